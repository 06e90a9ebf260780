"""Renderings of API documentation, code and text: what a model reads, and what carries loss."""

import ast
import doctest
import json
import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.api_layouts import LAYOUTS, layout_of, signature_of
from hephaestus_jax.formats.documents import ApiDocRenderer, CodeRenderer, TextRenderer
from hephaestus_jax.formats.records import (
    ApiDoc,
    ApiError,
    ApiExample,
    Document,
    MessageAction,
    Provenance,
    Trajectory,
    from_json,
    to_json,
)
from hephaestus_jax.formats.schema_text import fields_of, pruned, type_text
from hephaestus_jax.formats.spans import BOS, EOS, SEAM, Span

NUMPY = Provenance("numpy", "2.1.0", "BSD-3-Clause", "pypi.org/project/numpy")
SOLVE = ApiDoc(
    name="numpy.linalg.solve",
    provider="numpy",
    description="Solve a linear matrix equation.\n\nComputes the exact solution of `ax = b`.",
    provenance=NUMPY,
    signature="solve(a, b, *, check=True)",
    parameters={
        "type": "object",
        "required": ["a", "b"],
        "properties": {
            "a": {"x-python-type": "(M, M) array_like", "type": "array", "description": "Coefficient matrix."},
            "b": {"x-python-type": "array_like", "description": "Ordinate, or\n“dependent variable” values."},
            "check": {"type": "boolean", "default": True, "description": "Whether to check."},
        },
    },
    returns={"x-python-type": "ndarray", "description": "Solution to the system."},
    errors=(ApiError("LinAlgError", "If `a` is singular."),),
    examples=(
        ApiExample("x = [1, 2]\nfor i in x:\n    print(i)", "1\n2", "Print each:"),
        ApiExample(">>> 1 + 1", "2"),
    ),
)
PETS = ApiDoc(
    name="GET /v1/pets/{id}",
    provider="petstore",
    description="Finds a pet.",
    provenance=Provenance("petstore", "unknown", "MIT"),
    parameters={
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "integer", "minimum": 1, "description": "Which pet."},
            "filter": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"tag": {"enum": ["a", "b"]}, "deep": {"properties": {"deeper": {"type": "string"}}}},
                },
            },
        },
    },
    returns={"type": "object", "properties": {"name": {"type": ["string", "null"]}}},
    errors=(ApiError("404", "No such pet."),),
    examples=(ApiExample("GET /v1/pets/7", '{"name": "Rex"}', "Fetch pet 7"),),
)


def test_the_markdown_page_of_a_python_function():
    assert LAYOUTS["markdown"](SOLVE, 3) == (
        "# numpy.linalg.solve\n\nnumpy 2.1.0\n\n"
        "```python\nsolve(a, b, *, check=True)\n```\n\n"
        "Solve a linear matrix equation.\n\nComputes the exact solution of `ax = b`.\n\n"
        "## Parameters\n\n"
        "- `a` (`(M, M) array_like`, required): Coefficient matrix.\n"
        "- `b` (`array_like`, required): Ordinate, or\n  “dependent variable” values.\n"
        "- `check` (`bool`, optional, default `True`): Whether to check.\n\n"
        "## Returns\n\n`ndarray`: Solution to the system.\n\n"
        "## Errors\n\n- `LinAlgError`: If `a` is singular.\n\n"
        "## Examples\n\nPrint each:\n\n"
        "```python\n>>> x = [1, 2]\n>>> for i in x:\n...     print(i)\n1\n2\n```\n\n"
        "```python\n>>> 1 + 1\n2\n```\n"
    )


def test_the_markdown_page_of_a_rest_operation():
    assert LAYOUTS["markdown"](PETS, 3) == (
        "# GET /v1/pets/{id}\n\npetstore\n\nFinds a pet.\n\n"
        "## Parameters\n\n"
        "- `id` (`integer`, required, at least 1): Which pet.\n"
        "- `filter` (`array of object`, optional)\n"
        '  - `tag` (`"a" | "b"`, optional)\n'
        "  - `deep` (optional)\n"
        "    - `deeper` (`string`, optional)\n\n"
        "## Returns\n\n`object`\n\n- `name` (`string or null`)\n\n"
        "## Errors\n\n- `404`: No such pet.\n\n"
        '## Example\n\nFetch pet 7\n\n```\nGET /v1/pets/7\n```\n\nResult:\n\n```json\n{"name": "Rex"}\n```\n'
    )


def test_the_docstring_layout_is_python_and_its_examples_run():
    source = LAYOUTS["docstring"](SOLVE, 3)
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef) and function.name == "solve"
    docs = ast.get_docstring(function)
    assert "a ((M, M) array_like): Coefficient matrix." in docs
    assert "check (bool, optional): Whether to check. Defaults to True." in docs
    assert "Raises:\n    LinAlgError: If `a` is singular." in docs
    test = doctest.DocTestParser().get_doctest(docs, {}, "solve", None, 0)
    assert len(test.examples) == 3
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


def test_the_tool_definition_is_json_and_leaves_out_nothing():
    text = LAYOUTS["tool_definition"](SOLVE, 3)
    definition, end = json.JSONDecoder().raw_decode(text)
    assert definition["name"] == "numpy.linalg.solve"
    assert definition["parameters"]["properties"]["a"] == {
        "type": "array",
        "description": "(M, M) array_like: Coefficient matrix.",
    }
    assert definition["parameters"]["properties"]["check"]["type"] == "boolean"
    assert definition["returns"] == {"description": "ndarray: Solution to the system."}
    for part in (
        "Computes the exact solution",
        "LinAlgError: If `a` is singular.",
        "Example: Print each:",
        ">>> 1 + 1",
    ):
        assert part in text[end:]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_tells_everything(layout):
    text = LAYOUTS[layout](SOLVE, 3)
    told = [
        "solve",
        "Coefficient matrix.",
        "Ordinate",
        "Whether to check.",
        "Solution to",
        "singular",
        "print(i)",
        "Print",
    ]
    assert [part for part in told if part not in text] == []


def test_nested_parameters_stop_at_the_stated_depth():
    def lines(depth):
        return [line.split("`")[1] for line in LAYOUTS["markdown"](PETS, depth).splitlines() if "- `" in line]

    assert lines(1)[:2] == ["id", "filter"] and "tag" not in lines(1)
    assert "tag" in lines(2) and "deeper" not in lines(2)
    assert "deeper" in lines(3)
    assert "deeper" not in LAYOUTS["tool_definition"](PETS, 2) and "deeper" in LAYOUTS["tool_definition"](PETS, 3)


def test_layouts_are_chosen_by_identity_and_all_of_them_occur():
    docs = [ApiDoc(f"m.f{i}", "m", "Does something.", NUMPY) for i in range(200)]
    renderer = ApiDocRenderer()
    texts = [renderer.render(doc).text for doc in docs]
    assert texts == [pickle.loads(pickle.dumps(renderer)).render(from_json(to_json(doc))).text for doc in docs]
    starts = [text.removeprefix(BOS)[0] for text in texts]  # "# m.f0", "# m - m 2.1.0\ndef", "{"
    forms = ["def " in text for text in texts], [start == "{" for start in starts]
    assert 40 < sum(forms[0]) < 95 and 40 < sum(forms[1]) < 95


def test_an_operation_that_python_could_not_define_is_never_a_docstring():
    def layouts(doc, names):
        return {layout_of(doc, names, draw) for draw in range(30)}

    assert layouts(PETS, ("markdown", "docstring", "tool_definition")) == {"markdown", "tool_definition"}
    assert layouts(PETS, ("docstring",)) == {"markdown"}
    assert layouts(SOLVE, ("markdown", "docstring")) == {"markdown", "docstring"}
    odd = ApiDoc("m.f", "m", "", NUMPY, signature="f(x, /, [y])")  # as C extensions document themselves
    assert layouts(odd, ("docstring", "markdown")) == {"markdown"}


def test_the_signature_is_made_of_the_parameters_when_none_is_stated():
    parameters = {"properties": {"y": {"default": "a"}, "x": {}}, "required": ["x"]}
    assert signature_of(ApiDoc("m.f", "m", "", NUMPY, parameters=parameters)) == "f(x, y='a')"
    assert signature_of(ApiDoc("m.C.f", "m", "", NUMPY, signature="(self, x)")) == "f(self, x)"
    assert signature_of(ApiDoc("m.C.f", "m", "", NUMPY, signature="m.C.f(self, x=g.h(1))")) == "f(self, x=g.h(1))"


def test_asynchronous_functions_are_defined_as_such():
    doc = ApiDoc("m.f", "m", "", NUMPY, signature="async f(x)")
    for stated in ("async f(x)", "async def f(x):", "async def m.f(x)", "async (x)"):
        assert signature_of(replace(doc, signature=stated)) == "async f(x)"
    assert layout_of(doc, ("docstring", "markdown"), 0) == "docstring"
    assert "\nasync def f(x):\n" in LAYOUTS["docstring"](doc, 3)


def test_what_only_python_can_say_is_said_in_words():
    properties = {
        "shape": {"type": "array", "x-python-default": "tuple()", "description": "Lengths."},
        "rest": {"type": "array", "x-python-kind": "*"},
    }
    doc = ApiDoc("m.f", "m", "", NUMPY, parameters={"type": "object", "properties": properties})
    assert signature_of(doc) == "f(shape=tuple(), *rest)"
    assert "- `shape` (`list`, optional, default `tuple()`): Lengths.\n- `*rest` (" in LAYOUTS["markdown"](doc, 3)
    assert "shape (list, optional): Lengths. Defaults to tuple().\n" in LAYOUTS["docstring"](doc, 3)
    definition = LAYOUTS["tool_definition"](doc, 3)
    assert '"description": "Lengths. Defaults to tuple()."' in definition and "x-python" not in definition


def test_several_results_are_told_by_name():
    pair = [{"title": "q", "x-python-type": "ndarray", "description": "Orthonormal."}, {"title": "r", "type": "array"}]
    doc = ApiDoc("m.qr", "m", "Factors.", NUMPY, returns={"type": "array", "prefixItems": pair})
    assert "## Returns\n\n`tuple`\n\n- `q` (`ndarray`): Orthonormal.\n- `r` (`list`)\n" in LAYOUTS["markdown"](doc, 3)
    assert "Returns:\n        tuple\n            q (ndarray): Orthonormal.\n" in LAYOUTS["docstring"](doc, 3)
    assert "x-python-type" not in LAYOUTS["tool_definition"](doc, 3)
    named = ApiDoc("m.f", "m", "", NUMPY, returns={"title": "x", "type": "string", "description": "It."})
    assert "## Returns\n\n`x` (`str`): It.\n" in LAYOUTS["markdown"](named, 3)


def test_notes_stand_behind_the_parameters():
    text = "Sums.\n\nIn full.\n\nSee Also\n--------\nprod : Multiplies.\n\nNotes\n-----\nFast."
    doc = ApiDoc("m.f", "m", text, NUMPY, parameters={"properties": {"x": {}}}, examples=(ApiExample("f(1)", "1"),))
    for layout in ("markdown", "docstring"):
        page = LAYOUTS[layout](doc, 3)
        marks = [
            page.index(mark)
            for mark in ("In full.", "    x" if layout == "docstring" else "- `x`", "See Also", ">>> f")
        ]
        assert marks == sorted(marks)


def test_quotes_and_fences_inside_do_not_end_the_layout():
    doc = ApiDoc("m.f", "m", 'Says """hello""".', NUMPY, examples=(ApiExample("f('''```''')", "```\nx\n```"),))
    assert 'Says """hello""".' in ast.get_docstring(ast.parse(LAYOUTS["docstring"](doc, 3)).body[0])
    page = LAYOUTS["markdown"](doc, 3)
    assert page.count("````python\n") == 1 and page.rstrip().endswith("\n````")


def test_backslashes_survive_in_docstrings():
    doc = ApiDoc("m.f", "m", r"Computes \beta and \n.", NUMPY)
    assert ast.get_docstring(ast.parse(LAYOUTS["docstring"](doc, 3)).body[0]).strip() == doc.description


def test_spans_weights_and_what_is_carried():
    text = Document("def f(): ...", "code", NUMPY)
    assert CodeRenderer().render(text).spans == (
        Span(BOS, 0.0, "template"),
        Span("def f(): ...", 1.0, "document"),
        Span(EOS, 1.0, "template"),
    )
    conditioned = CodeRenderer(metadata=True).render(text)
    assert conditioned.carry == 3 and conditioned.spans[2] == SEAM  # the document's tokens are the same without
    assert conditioned.spans[1] == Span("URL: pypi.org/project/numpy\n\n", 0.0, "metadata")
    assert CodeRenderer().render(text).carry == 1
    provider = ApiDocRenderer(metadata=True).render(PETS)
    assert provider.spans[1].text == "URL: petstore\n\n"  # no host: the provider stands for it
    assert TextRenderer(metadata=True).render(Document("x", "text", Provenance("", "", ""))).carry == 1


def test_an_empty_document_is_begin_and_end():
    spans = TextRenderer().render(Document("", "text", NUMPY)).spans
    assert [span.text for span in spans] == [BOS, EOS]


def test_records_of_other_kinds_are_refused():
    trajectory = Trajectory((MessageAction("x"),), NUMPY)
    for renderer in (ApiDocRenderer(), CodeRenderer(), TextRenderer()):
        with pytest.raises(UserError, match="no form for a Trajectory"):
            renderer.render(trajectory)
    with pytest.raises(UserError, match="no form for a Document of slice 'code'"):
        TextRenderer().render(Document("x", "code", NUMPY))
    with pytest.raises(UserError, match="no form for a ApiDoc"):
        CodeRenderer().render(SOLVE)


def test_options_are_checked_and_part_of_the_fingerprint():
    with pytest.raises(UserError, match="choose some of markdown"):
        ApiDocRenderer(layouts=("html",))
    with pytest.raises(UserError, match="choose some of"):
        ApiDocRenderer(layouts=())
    with pytest.raises(UserError, match="depth of at least 1"):
        ApiDocRenderer(depth=0)
    made = [
        ApiDocRenderer(),
        ApiDocRenderer(metadata=True),
        ApiDocRenderer(depth=2),
        ApiDocRenderer(layouts=("markdown",)),
        TextRenderer(),
        CodeRenderer(),
    ]
    assert len({renderer.fingerprint() for renderer in made}) == len(made)
    assert ApiDocRenderer(layouts=["markdown"]).fingerprint() == ApiDocRenderer(layouts=("markdown",)).fingerprint()


def test_types_in_words():
    assert type_text({"type": "array", "items": {"type": "string"}}) == "array of string"
    assert type_text({"type": "array", "items": {"type": "string"}}, python=True) == "list of str"
    assert type_text({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "string or null"
    assert type_text({"$ref": "#/$defs/Pet"}) == "Pet"
    assert type_text({"type": "string", "format": "date-time"}) == "string (date-time)"
    assert type_text({"enum": [True, None]}, python=True) == "True | None"
    assert type_text({"enum": list(range(30))}).endswith(" | … 6 more")
    assert type_text(True) == type_text({}) == ""
    assert [
        field.name for field in fields_of({"allOf": [{"properties": {"x": {}}}, {"properties": {"y": {}}}]}, 1)
    ] == ["x", "y"]


KEYWORDS = [
    "type",
    "properties",
    "items",
    "title",
    "prefixItems",
    "required",
    "enum",
    "anyOf",
    "oneOf",
    "$ref",
    "default",
    "description",
]
KEYWORDS += ["format", "additionalProperties", "x-python-type", "a", "b"]
schemas = st.recursive(
    st.one_of(st.booleans(), st.none(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4)),
    max_leaves=12,
)
words = st.text(max_size=20)


@settings(max_examples=200, deadline=None)
@given(schemas, schemas, words, words, st.none() | words)
def test_no_schema_and_no_text_breaks_a_layout(parameters, returns, description, call, result):
    doc = ApiDoc(
        "m.f",
        "m",
        description,
        NUMPY,
        parameters=parameters if isinstance(parameters, dict) else {},
        returns=returns if isinstance(returns, dict) else None,
        examples=(ApiExample(call, result),),
    )
    for layout in LAYOUTS.values():
        assert layout(doc, 3)
    json.dumps(pruned(parameters, 2))
    assert ApiDocRenderer().render(doc).spans[-1] == Span(EOS, 1.0, "template")
