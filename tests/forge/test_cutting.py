import ast
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.forge.cut_text import cut_text, dependants
from hephaestus_jax.forge.cutting import Cutter, Dropped, Matcher
from hephaestus_jax.forge.holdout import Family, HeldOut
from hephaestus_jax.formats.records import (
    ApiDoc,
    ApiError,
    ApiExample,
    CodeAction,
    Document,
    Provenance,
    TextObservation,
    Trajectory,
)

DOCSTRING = "Frobnicates every row of the given matrix until its trace has finally settled down."
HELD_OUT = HeldOut(
    (
        Family(("pkg.frobnicate",), ("pkg.core.frobnicate",), ("frobnicate",), (DOCSTRING,)),
        Family(("pkg.Unraveller", "pkg.Unraveller.pull_knots"), (), ("Unraveller", "pull_knots"), ("Short.",)),
    )
)
ORIGIN = Provenance("pkg", "1", "MIT")
CUTTER = Cutter(HELD_OUT)


def cut(code: str) -> str:
    made = CUTTER.cut(Document(textwrap.dedent(code).lstrip("\n"), "code", ORIGIN, "python"))
    assert isinstance(made, Document), made
    ast.parse(made.text)
    assert not CUTTER.matcher.offsets(made.text)
    return made.text


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("x = 1\n\n\n@a\n@b(1)\ndef frobnicate(x):\n    '''Doc.'''\n    return\n\n\ny = 1\n", "x = 1\n\n\ny = 1\n"),
        ("async def frobnicate(x):\n    return x\n\n\ny = 1\n", "y = 1\n"),
        ("@over\ndef frobnicate(x: int): ...\n@over\ndef frobnicate(x): ...\ndef frobnicate(x): x\ny = 1\n", "y = 1\n"),
        ("# frob the rows\n# of all\ndef frobnicate(x):\n    return x\ny = 1\n", "y = 1\n"),
        ("class Unraveller(Base):\n    a = 1\n    def fit(self): return 2\n\n\ny = 1\n", "y = 1\n"),
        ("from pkg import a, frobnicate, b\n", "from pkg import a, b\n"),
        ("from pkg import a, frobnicate\n", "from pkg import a\n"),
        ("from pkg import frobnicate, Unraveller, b\n", "from pkg import b\n"),
        ("from pkg import a, frobnicate, Unraveller\n", "from pkg import a\n"),
        ("from pkg import frobnicate\nx = 1\n", "x = 1\n"),
        ("from pkg import (\n    a,\n    frobnicate,\n    b,\n)\n", "from pkg import (\n    a,\n    b,\n)\n"),
        ("from pkg import (\n    a,\n    frobnicate as f,  # why\n)\nf(1)\n", "from pkg import (\n    a,  # why\n)\n"),
        ("__all__ = ['a', 'frobnicate', 'b']\n", "__all__ = ['a', 'b']\n"),
        ("__all__ = ['a', 'frobnicate']\n", "__all__ = ['a']\n"),
        ("__all__ = [\n    'a',\n    ('frobnicate'),\n    'b',\n]\n", "__all__ = [\n    'a',\n    'b',\n]\n"),
        ("__all__ = ('a', 'frobnicate', 'b')\n", "__all__ = ('a', 'b')\n"),
        ("__all__ += ['frobnicate']\nx = 1\n", "x = 1\n"),
        ("LAZY = {'a': 'x', 'frobnicate': 'y', 'b': 'z'}\n", "LAZY = {'a': 'x', 'b': 'z'}\n"),
        ("LAZY = {'x': ['a', 'frobnicate'], 'y': []}\n", "LAZY = {'y': []}\n"),
        ("x = 1; frobnicate(x); y = 2\n", "x = 1; y = 2\n"),
        ("x = 1; frobnicate(x)\ny = 2\n", "x = 1\ny = 2\n"),
        ("frobnicate(x); y = 2\n", "y = 2\n"),
        ("if hasattr(pkg, 'frobnicate'):\n    x = 1\nelse:\n    x = 2\ny = 3\n", "y = 3\n"),
        ("try:\n    from pkg import frobnicate\nexcept ImportError:\n    frobnicate = None\ny = 3\n", "y = 3\n"),
        ("y = 'é€😀'; frobnicate('é€😀'); z = 'é'\n", "y = 'é€😀'; z = 'é'\n"),
        ("x = 1  # like frobnicate\ny = 2\n", "x = 1\ny = 2\n"),
        ("x = 1\n    # a frobnicate comment\ny = '# frob'\n", "x = 1\ny = '# frob'\n"),
        ("x = getattr(pkg, 'frobnicate')\ny = 2\n", "y = 2\n"),
        ("if x: frobnicate(x)\ny = 2\n", "y = 2\n"),
        ("class A:\n    x = 1\n    y = frobnicate(x)\n", "class A:\n    x = 1\n"),
        ("class A:\n    y = frobnicate(x)\nz = 1\n", "z = 1\n"),
        ("match x:\n    case Unraveller():\n        y = 1\nz = 1\n", "z = 1\n"),
        ("x = lambda v: frobnicate(v)\nz = 1\n", "z = 1\n"),
        ("del frobnicate\nz = 1\n", "z = 1\n"),
        ("z = 1\nx = f'{frobnicate(1)} and'\n", "z = 1\n"),
        ("# frobnicate\n# is nice\n\nz = 1\n", "# is nice\n\nz = 1\n"),
    ],
)  # fmt: skip
def test_statement_cuts(code: str, left: str) -> None:
    assert cut(code) == left


def test_names_bound_by_what_was_cut_go_too() -> None:
    left = cut("""
        import numpy as np
        from pkg import frobnicate as f, other
        import pkg

        g = f
        table = g([1])
        print(table.rows)
        settle = pkg.frobnicate


        def uses(x):
            return settle(x)


        def shadows(settle):
            return settle(1)


        class Holder:
            tool = pkg.Unraveller()

            def run(self):
                return self.tool.fit()

            def rest(self):
                return np.zeros(3)


        other(1)
        """)
    assert "settle(x)" not in left and "table" not in left and "tool" not in left and "g =" not in left
    assert "def shadows(settle):" in left and "def rest(self):" in left and "other(1)" in left and "import pkg" in left


def test_attributes_set_from_held_out_classes_go() -> None:
    left = cut("""
        class Model:
            def __init__(self):
                self.inner = Unraveller()

            def fit(self):
                return self.inner.fit()

            def other(self):
                return self.outer.fit()
        """)
    assert "self.inner" not in left and "self.outer.fit()" in left


def test_functions_lose_statements_only_where_nothing_can_miss_them() -> None:
    left = cut("""
        def shows():
            x = 1
            frobnicate(x)
            assert frobnicate(x) == 2
            return x


        def computes():
            y = frobnicate(1)
            return y + 1


        def only():
            frobnicate(2)


        def documented():
            '''Only a docstring.'''
            frobnicate(2)


        def outer():
            def inner():
                return frobnicate(1)
            return inner


        def loops(xs):
            for x in xs:
                frobnicate(x)
            return xs


        class A:
            def fit(self):
                with self.pull_knots() as p:
                    return p
            def rest(self): ...
        """)
    assert left.count("def ") == 2 and "def shows():\n    x = 1\n    return x" in left and "def rest(self): ..." in left


def test_callers_of_functions_that_used_a_held_out_api_stay() -> None:
    assert "wrapper(3)" in cut("def wrapper(x):\n    return frobnicate(x)\n\n\ny = wrapper(3)\n")


def test_docstrings_and_long_strings_lose_lines() -> None:
    left = cut('''
        def kept(x):
            """Does something else.

            Faster than frobnicate for
            small matrices.

            Args:
              x: passed to frobnicate
                in the end.
              y: stays.

            See Also
            --------
            frobnicate : the other one.
            """
            return x


        HELP = """
        frobnicate   settles

        other        stays
        """


        def emptied():
            """Like frobnicate."""


        def emptied_too():
            "Like frobnicate."
            return 1
        ''')
    assert "Does something else." in left and "y: stays." in left and "in the end" not in left
    assert "See Also" not in left and "small matrices" not in left and "other        stays" in left
    assert "emptied()" not in left and "def emptied_too():\n    return 1" in left


def test_copies_of_docstrings_are_cut_wherever_they_stand() -> None:
    copied = "every row of the given matrix until its trace has finally"
    left = cut(f'''
        # {copied[:16]}
        # {copied[16:]} settled
        x = "{copied}"


        def g():
            """Fine.

            {copied.upper()}!
            """
            return 1
        ''')
    assert "trace" not in left.lower() and '"""Fine.' in left and "# every row of" not in left


def test_a_window_broken_by_one_other_word_is_no_copy() -> None:
    text = "# every row of the given BIG matrix until its trace\nx = 1\n"
    assert CUTTER.cut(Document(text, "code", ORIGIN, "python")).text == text  # type: ignore[union-attr]


def test_larger_identifiers_are_other_names() -> None:
    code = "def frobnicate_all(x):\n    return x.frobnicated, _frobnicate, Frobnicate, frobnicate2\n"
    record = Document(code, "code", ORIGIN, "python")
    assert CUTTER.cut(record) is record


def test_code_that_does_not_parse_is_cut_as_text() -> None:
    made = CUTTER.cut(Document("print 'x'\n\nfrobnicate 1\nprint y\n\nprint 'z'\n", "code", ORIGIN, "python"))
    assert isinstance(made, Document) and made.text == "print 'x'\n\nprint 'z'\n"


def test_code_of_nothing_else_is_dropped() -> None:
    made = CUTTER.cut(Document("from pkg import frobnicate\n", "code", ORIGIN, "python"))
    assert made == Dropped("code: nothing left after cutting held-out APIs")


def test_what_was_cut_is_recorded() -> None:
    code = "def frobnicate(x):\n    return x\n\n\nfrobnicate(1)\nfrobnicate(2)\nz = 1\n"
    made = CUTTER.cut(Document(code, "code", ORIGIN, "python"))
    assert made.provenance.processing == ("cut: 1 definitions of held-out APIs, 2 pieces that use or describe them",)  # type: ignore[union-attr]


_STATEMENTS = st.sampled_from(
    [
        "x{n} = {n}",
        "frobnicate({n})",
        "x{n} = frobnicate({n})  # ü",
        "from m{n} import frobnicate as f{n}, g{n}",
        "print(f{n}, 'é')",
        "del x{n}",
        "return_ = [1, frobnicate, {n}]",
        "'''A string.\n\nfrobnicate {n}\n'''",
        "# frobnicate comment {n}",
        "z{n} = '# no comment' ; frobnicate()",
        "T = ('frobnicate', 'b', {n})",
        "D = {{'frobnicate': 1, **rest, 'b': {n}}}",
        "assert frobnicate({n}), \\\n    'message'",
        "x = (\n    frobnicate\n    .attribute\n)",
    ]
)
_HEADS = st.sampled_from(
    [
        "if True:",
        "for i in frobnicate():",
        "def function{n}():",
        "class Class{n}:",
        "with Unraveller() as w:",
        "try:\n{pad}    pass\n{pad}finally:",
        "while x:",
        "@decorated\n{pad}def frobnicate(x,\n{pad}      y=1):",
        "async def other{n}(x: Unraveller = 3):",
    ]
)


@st.composite
def _blocks(draw: st.DrawFn, depth: int = 0) -> str:
    lines = []
    pad = "    " * depth
    for n in range(draw(st.integers(1, 4))):
        if depth < 3 and draw(st.booleans()):
            lines.append(pad + draw(_HEADS).format(n=n, pad=pad) + "\n" + draw(_blocks(depth + 1)))
        else:
            statement = draw(_STATEMENTS).format(n=n)
            first, *rest = statement.split("\n")
            lines.append("\n".join([pad + first, *rest]))
    return "\n".join([*lines, pad + "pass"])


@settings(max_examples=300, deadline=None)
@given(_blocks())
def test_any_code_stays_parseable_and_clean(code: str) -> None:
    ast.parse(code)
    made = CUTTER.cut(Document(code, "code", ORIGIN, "python"))
    if isinstance(made, Document):
        ast.parse(made.text)
        assert "frobnicate" not in made.text and "Unraveller" not in made.text
        # what was cut leaves no name behind that only it had bound
        assert not any(f"print(f{n}," in made.text and f"as f{n}" in code for n in range(4) if depth_zero(code, n))
    else:
        assert "nothing left" in made.reason


def depth_zero(code: str, n: int) -> bool:
    """Whether f{n} is bound and read at module level."""
    lines = code.split("\n")
    return f"print(f{n}, 'é')" in lines and f"from m{n} import frobnicate as f{n}, g{n}" in lines


_LINES = ["a b", "", "- frobnicate", "- other", ">>> x = frobnicate()", ">>> x", "```", "    c"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(_LINES)))
def test_cut_text_keeps_every_other_line_in_order(lines: list[str]) -> None:
    text = "\n".join(lines)
    left, count = cut_text(text, CUTTER.matcher.offsets(text))
    assert not CUTTER.matcher.matches(left) and (count > 0) == CUTTER.matcher.matches(text)
    rest = iter(lines)
    assert not left or all(line in rest for line in left.split("\n"))  # a subsequence


def test_prose_loses_paragraphs_entries_and_code_blocks() -> None:
    text = textwrap.dedent("""\
        # Guide

        Nothing here.

        Call `pkg.frobnicate`, or with
        an escape frob\\_nicate.

        - one
        - pkg.frobnicate(x), which goes on
          in a second line
        - three

        ```python
        x = 1

        frobnicate(x)
        ```

        >>> u = Unraveller()
        >>> y = 1
        >>> u.fit()
        3
        >>> y
        1

        The end.
        """)
    made = CUTTER.cut(Document(text, "text", ORIGIN, "en"))
    assert isinstance(made, Document)
    assert made.text == "# Guide\n\nNothing here.\n\n- one\n- three\n\n>>> y = 1\n>>> y\n1\n\nThe end.\n"


def test_escaped_underscores_are_seen() -> None:
    made = CUTTER.cut(Document("Keep.\n\nSee pull\\_knots here.\n", "text", ORIGIN, "en"))
    assert isinstance(made, Document) and made.text == "Keep.\n"


def test_dependants_follow_names() -> None:
    sources = ["import m", "x = m.a()", "y = 2", "x.b()", "y", "x = 3", "x", "z = x +"]
    assert dependants(sources, {1}) == {1, 3}
    assert dependants(sources, set()) == set()


def _doc(**fields: object) -> ApiDoc:
    return ApiDoc(**{"name": "pkg.other", "provider": "pkg", "description": "Fine.", "provenance": ORIGIN} | fields)  # type: ignore[arg-type]


def test_api_docs_of_others_lose_what_names_the_held_out() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "description": "Given to frobnicate."}, "y": {}}}
    doc = _doc(
        description="Fine.\n\nSee also `frobnicate`.\n\nGood.",
        parameters=schema,
        returns={"description": "What frobnicate returns."},
        errors=(ApiError("ValueError", "if frobnicate fails"), ApiError("KeyError", "never")),
        examples=(
            ApiExample("u = Unraveller()"),
            ApiExample("other(1)", "2", "Without"),
            ApiExample("u.fit()", "3"),
            ApiExample("other(2)", "4", "Unlike frobnicate"),
        ),
    )
    made = CUTTER.cut(doc)
    assert isinstance(made, ApiDoc)
    assert made.description == "Fine.\n\nGood." and made.examples == (ApiExample("other(1)", "2", "Without"),)
    assert made.parameters["properties"] == {"x": {"type": "string", "description": ""}, "y": {}}
    assert made.returns == {"description": ""}
    assert made.errors == (ApiError("ValueError", ""), ApiError("KeyError", "never"))
    assert made.provenance.processing == ("cut: 0 definitions of held-out APIs, 7 pieces that use or describe them",)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "pkg.Other.frobnicate"},
        {"signature": "other(x: Unraveller)"},
        {"parameters": {"type": "object", "properties": {"frobnicate": {}}}},
        {"parameters": {"type": "object", "properties": {"x": {"x-python-type": "list[Unraveller]"}}}},
        {"description": f"{DOCSTRING} Twice."},
    ],
)
def test_api_docs_with_a_held_out_signature_or_nothing_left_are_dropped(fields: dict[str, object]) -> None:
    assert isinstance(CUTTER.cut(_doc(**fields)), Dropped)


def test_a_copy_that_only_the_layout_brings_together_is_dropped() -> None:
    doc = _doc(
        description="Frobnicates.\n\nOther.",
        errors=(ApiError("every", "row of the given"), ApiError("matrix", "until its trace has finally settled down.")),
    )
    assert isinstance(CUTTER.cut(doc), Dropped)


def test_trajectories_that_call_or_mention_are_dropped() -> None:
    def trajectory(code: str) -> Trajectory:
        return Trajectory((CodeAction("python", code), TextObservation("1", "environment")), ORIGIN)

    fine = trajectory("import pkg\npkg.other(1)")
    assert CUTTER.cut(fine) is fine
    for code in ("pkg.frobnicate(1)", "from pkg import frobnicate as f\nf(1)", "x.pull_knots()", f"# {DOCSTRING}"):
        assert CUTTER.cut(trajectory(code)) == Dropped("trajectory uses a held-out API")


def test_matcher_offsets_point_at_words() -> None:
    text = "Ünïcode frobnicate; " + DOCSTRING
    words = [text[offset:].split()[0] for offset in Matcher(HELD_OUT).offsets(text)]
    assert words[0] == "frobnicate;" and words[1:] == DOCSTRING.split()
