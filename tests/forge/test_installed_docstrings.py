"""Docstrings taken apart, in every style, and put together again by hypothesis."""

from __future__ import annotations

import inspect
import re
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.forge.installed.docstring_examples import extract_examples
from hephaestus_jax.forge.installed.docstring_items import DocField, clean_type
from hephaestus_jax.forge.installed.docstrings import parse_docstring
from hephaestus_jax.formats.records import ApiError, ApiExample


def parse(text: str, known=()):
    return parse_docstring(inspect.cleandoc(text), known)


def test_google():
    parsed = parse("""Pads a sequence.

    Longer text, in
    two lines.

    Args:
      x: A `Tensor`. Must be one of `float32`,
        `int32`: nothing else.
      size (int, optional): How long. Defaults to 3.
      *args: More sequences.
      **kwargs: Passed on.
      first, last (str): Both ends.

    Returns:
      A `Tensor`. Has the same type as `x`.

    Raises:
      ValueError: If `size` is
        negative.
      `tf.errors.OutOfRangeError`: never
      TypeError if x is no sequence.

    Note:
      Kept as it is.
    """)
    assert parsed.style == "google"
    assert parsed.description == "Pads a sequence.\n\nLonger text, in\ntwo lines.\n\nNote:\n  Kept as it is."
    assert parsed.parameters == (
        DocField("x", "", "A `Tensor`. Must be one of `float32`,\n`int32`: nothing else."),
        DocField("size", "int", "How long. Defaults to 3."),
        DocField("args", "", "More sequences."),
        DocField("kwargs", "", "Passed on."),
        DocField("first", "str", "Both ends."),
        DocField("last", "str", "Both ends."),
    )
    assert parsed.returns == (DocField("", "", "A `Tensor`. Has the same type as `x`."),)
    assert parsed.errors == (
        ApiError("ValueError", "If `size` is\nnegative."),
        ApiError("tf.errors.OutOfRangeError", "never"),
        ApiError("TypeError", "if x is no sequence."),
    )


def test_google_as_hugging_face_writes_it():
    parsed = parse("""Runs.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch_size, n)`, *optional*, defaults to `[-1, 0]`):
            Indices.

            <Tip>Look: out</Tip>
        mode ([`~a.Mode`], *optional*)
            The mode.

    Returns:
        `tuple[str, int]`: What came out.

    Example:

    ```python
    >>> run()
    1
    ```
    """)
    assert parsed.parameters == (
        DocField("input_ids", "torch.LongTensor of shape (batch_size, n)", "Indices.\n\n<Tip>Look: out</Tip>"),
        DocField("mode", "a.Mode", "The mode."),
    )
    assert parsed.returns == (DocField("", "tuple[str, int]", "What came out."),)
    assert parsed.examples == (ApiExample("run()", "1"),)
    assert parsed.description == "Runs."


def test_numpy():
    parsed = parse("""
    Solve a linear matrix equation.

    Parameters
    ----------
    a : (..., M, M) array_like
        Coefficient matrix.

        Second paragraph.
    b, c : {(M,), (M, K)}, array_like, optional
        Ordinates.
    rng : {None, int,
           `numpy.random.Generator`}, optional
        Generator.
    axis: int, default: 0
    *args
        The rest.

    Other Parameters
    ----------------
    cond : float
        Cutoff.

    Returns
    -------
    x : ndarray
        Solution.
    ok : bool

    Raises
    ------
    LinAlgError
        If `a` is singular.
    ValueError, TypeError
        Otherwise.

    See Also
    --------
    scipy.linalg.solve : Similar function in SciPy.

    Notes
    -----

    Examples
    --------
    Solve the system:

    >>> import numpy as np
    >>> a = np.array([[1, 2],
    ...               [3, 5]])
    >>> np.linalg.solve(a, [1, 2])  # doctest: +SKIP
    array([-1.,
    <BLANKLINE>
            1.])

    Check it.

    >>> True
    True
    """)
    assert parsed.style == "numpy"
    assert parsed.description == (
        "Solve a linear matrix equation.\n\nSee Also\n--------\nscipy.linalg.solve : Similar function in SciPy."
    )
    assert parsed.parameters == (
        DocField("a", "(..., M, M) array_like", "Coefficient matrix.\n\nSecond paragraph."),
        DocField("b", "{(M,), (M, K)}, array_like", "Ordinates."),
        DocField("c", "{(M,), (M, K)}, array_like", "Ordinates."),
        DocField("rng", "{None, int, numpy.random.Generator}", "Generator."),
        DocField("axis", "int", ""),
        DocField("args", "", "The rest."),
        DocField("cond", "float", "Cutoff."),
    )
    assert parsed.returns == (DocField("x", "ndarray", "Solution."), DocField("ok", "bool", ""))
    assert parsed.errors == (
        ApiError("LinAlgError", "If `a` is singular."),
        ApiError("ValueError", ", TypeError\nOtherwise."),
    )
    assert parsed.examples == (
        ApiExample(
            "import numpy as np\na = np.array([[1, 2],\n              [3, 5]])\nnp.linalg.solve(a, [1, 2])",
            "array([-1.,\n\n        1.])",
            "Solve the system",
        ),
        ApiExample("True", "True", "Check it."),
    )


def test_rest():
    parsed = parse("""Floods a region with :func:`colour`.

    :param image: Target image. See
        :ref:`coordinate-system`.
    :param int thresh: Optional threshold.
    :type image: :class:`~PIL.Image.Image`
    :param `names` (list of str): Names.
    :return: A copy.
    :rtype: int
    :raises KeyError: If it is missing.
    :unheard-of: field

    Afterwards.
    """)
    assert parsed.style == "rest"
    assert parsed.parameters == (
        DocField("image", "PIL.Image.Image", "Target image. See\n:ref:`coordinate-system`."),
        DocField("thresh", "int", "Optional threshold."),
        DocField("names", "list of str", "Names."),
    )
    assert parsed.returns == (DocField("", "int", "A copy."),)
    assert parsed.errors == (ApiError("KeyError", "If it is missing."),)
    assert parsed.description == "Floods a region with :func:`colour`.\n\nAfterwards.\n\n:unheard-of: field"


def test_a_line_that_begins_with_a_role_is_no_field():
    text = "Summary.\n\n:class:`Foo` is made by\n:func:`bar`: so there."
    assert parse(text).description == text


@pytest.mark.parametrize(
    ("text", "left", "names"),
    [
        ("Sends mail.\n\nto -- who gets it\n  and reads it\n\nMore.", "Sends mail.\n\nMore.", "to"),
        ("Waits.\n\n- `to`: who.\n- other: no parameter.", "Waits.\n\n- other: no parameter.", "to"),
        ("Says that\nto: is a word here.", "Says that\nto: is a word here.", None),
        ("labels (`int`):\n    The labels.\n\nto (`str`):\n    Who.", "labels (`int`):\n    The labels.", "to"),
    ],
)
def test_items_without_a_heading_are_told_by_the_signature(text, left, names):
    parsed = parse(text, {"to"})
    assert [field.name for field in parsed.parameters] == ([names] if names else [])
    assert parsed.description == left


def test_sections_inside_fences_and_descriptions_are_not_sections():
    text = "Writes.\n\n```\nArgs:\n  x: not a parameter\n```\n\nArgs:\n  y: is one, with\n    Returns:\n      inside."
    parsed = parse(text)
    assert [field.name for field in parsed.parameters] == ["y"]
    assert parsed.returns == ()
    assert "x: not a parameter" in parsed.description


def test_a_fence_on_one_line_does_not_hide_what_follows():
    assert [f.name for f in parse("Is\n\n```n! / m!```\n\nArgs:\n  n: a number\n").parameters] == ["n"]


def test_headings_that_explain_nothing_stay_in_the_description():
    text = "Summary.\n\nArgs:\n  See the base class for all of them\n\nRaises:\n  If something is wrong."
    assert parse(text).description == text


def test_placeholders_are_dropped():
    text = "Filter.\n\nParameters\n----------\n%(input)s\nsize : int\n    Size.\n%(out)s\n\nNotes\n-----\n%(x)s\n"
    parsed = parse(text)
    assert parsed.parameters == (DocField("size", "int", "Size."),)
    assert parsed.description == "Filter."


def test_examples_outside_sections_take_only_the_line_that_introduces_them():
    parsed = parse("Counts.\n\nIt is fast.\n\nFor example:\n\n>>> count()\n1\n\nTwice:\n\n>>> count()\n2\n\nThe end.")
    assert parsed.description == "Counts.\n\nIt is fast.\n\nThe end."
    assert parsed.examples == (ApiExample("count()", "1"), ApiExample("count()", "2", "Twice"))


def test_imports_belong_to_the_example_that_uses_them():
    left, examples = extract_examples(">>> import os\n\nThe folder:\n\n>>> os.getcwd()\n'/'\n", section=True)
    assert (left, examples) == ("", (ApiExample("import os\nos.getcwd()", "'/'", "The folder"),))


def test_code_blocks_in_example_sections():
    text = (
        "Fenced:\n\n```python\nx = 1\n\ny = 2\n```\n\nLiteral::\n\n    z = 3\n\n"
        ".. code-block:: python\n    :linenos:\n\n    w = 4\n\nDone."
    )
    left, examples = extract_examples(text, section=True)
    assert [e.call for e in examples] == ["x = 1\n\ny = 2", "z = 3", "w = 4"]
    assert [e.intent for e in examples] == ["Fenced", "Literal", None]
    assert left == "Done."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int, optional", "int"),
        ("`int`, *optional*, defaults to `8`", "int"),
        (":class:`~jax.Array`", "jax.Array"),
        ("bool, default=True", "bool"),
        ("array_like, shape (n,), optional", "array_like, shape (n,)"),
        ("optional", ""),
    ],
)
def test_clean_type(text, expected):
    assert clean_type(text) == expected


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda n: n not in ("self", "cls", "and", "or"))
WORDS = st.lists(st.from_regex(r"[A-Za-z]{1,9}", fullmatch=True), min_size=1, max_size=8).map(" ".join)
TYPES = st.sampled_from(["int", "str", "list[int]", "dict[str, int]", "jax.Array", "int or None"])
FIELDS = st.lists(st.tuples(NAMES, TYPES, WORDS, WORDS), min_size=1, max_size=4, unique_by=lambda field: field[0])
ERRORS = st.lists(st.tuples(st.sampled_from(["ValueError", "KeyError", "OSError"]), WORDS), max_size=2)


def google(summary, fields, errors):
    lines = [summary + ".", "", "Args:"]
    for name, kind, first, second in fields:
        lines += [f"  {name} ({kind}): {first}", f"    {second}"]
    lines += ["", "Raises:", *(f"  {name}: {text}" for name, text in errors)] if errors else []
    return "\n".join([*lines, "", "The end."])


def numpy(summary, fields, errors):
    lines = [summary + ".", "", "Parameters", "----------"]
    for name, kind, first, second in fields:
        lines += [f"{name} : {kind}", f"    {first}", f"    {second}"]
    lines += ["", "Raises", "------", *(f"{name}\n    {text}" for name, text in errors)] if errors else []
    return "\n".join([*lines, "", "Notes", "-----", "The end."])


def rest(summary, fields, errors):
    lines = [summary + ".", ""]
    for name, kind, first, second in fields:
        lines += [f":param {name}: {first}", f"    {second}", f":type {name}: {kind}"]
    lines += [f":raises {name}: {text}" for name, text in errors]
    return "\n".join([*lines, "", "The end."])


@settings(max_examples=60, deadline=None)
@given(WORDS, FIELDS, ERRORS)
@pytest.mark.parametrize("style", [google, numpy, rest])
def test_what_is_written_is_read(style, summary, fields, errors):
    parsed = parse_docstring(style(summary, fields, errors))
    assert parsed.style == style.__name__
    assert parsed.parameters == tuple(DocField(name, kind, f"{a}\n{b}") for name, kind, a, b in fields)
    assert parsed.errors == tuple(ApiError(name, text) for name, text in errors)
    assert parsed.description.startswith(summary + ".")
    assert parsed.description.endswith("The end.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Returns:\n----------\n  x: one\nArgs:", {"x", "one"}),
        ("Raises:\n----------\n    Deep\nplain", {"Deep", "plain"}),
        ("Raises\n------\n  ValueError: bad\nArgs:", {"ValueError", "bad"}),
        ("The answer\n----------\nArgs:\n-----\n  x: one", {"answer", "x", "one"}),
        ("Parameters\n----------\n... g\nAside:\n----------", {"Aside", "g"}),
    ],
)
def test_headings_of_two_styles_lose_nothing(text, words):
    assert words <= set(re.findall(r"\w+", str(parse_docstring(text)).replace("\\n", " ")))


LINES = st.sampled_from(
    ["Args:", "  x: one", "    more", "", "Returns:", "Parameters", "----------", "y : int", "    Deep", ">>> f()",
     "4", "... g", "```", "```python", ":param z: three", ":returns: q", "Raises:", "  ValueError: bad", "Examples:",
     "plain", "Note:", "  indented", ":class:`Foo` bar", "Example::", "    code", "Attributes:", "* x: bullet",
     "Returns: word"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, max_size=14))
def test_no_word_is_lost_whatever_the_order_of_the_lines(lines):
    text = inspect.cleandoc("\n".join(lines))
    parsed = parse_docstring(text, {"x"})
    kept = [parsed.description, parsed.style]
    for field in (*parsed.parameters, *parsed.attributes, *parsed.returns):
        kept += [field.name, field.type, field.description]
    kept += [part for error in parsed.errors for part in (error.name, error.description)]
    kept += [part or "" for example in parsed.examples for part in (example.call, example.result, example.intent)]
    marks = {"Args", "Returns", "Parameters", "param", "returns", "Raises", "Examples", "Example", "Attributes"}
    marks |= {"python"}
    lost = set(re.findall(r"\w+", text)) - set(re.findall(r"\w+", " ".join(kept))) - marks
    assert not lost, f"{lost} of\n{textwrap.indent(text, '| ')}"
