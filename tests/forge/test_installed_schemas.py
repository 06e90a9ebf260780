"""Annotations, worded types and defaults as JSON Schema."""

from __future__ import annotations

import ast
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.forge.installed.schemas import (
    admitting,
    json_literal,
    schema_from_annotation,
    schema_from_description,
    schema_from_words,
)

INTS = {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("int", {"type": "integer"}),
        ("None", {"type": "null"}),
        ("'int'", {"type": "integer"}),
        ("Optional[float]", {"type": ["number", "null"]}),
        ("typing.Optional['str']", {"type": ["string", "null"]}),
        ("int | str | None", {"type": ["integer", "string", "null"]}),
        ("Union[int, list[int]]", {"anyOf": [{"type": "integer"}, INTS]}),
        ("Sequence[int]", INTS),
        ("tuple[int, ...]", INTS),
        ("tuple[int, str]", {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}),
        ("tuple[Foo, Bar]", {"type": "array"}),
        ("Mapping[str, list[int]]", {"type": "object", "additionalProperties": INTS}),
        ("Literal['a', 'b', None]", {"enum": ["a", "b", None]}),
        ("Literal['a', B.C]", {"enum": ["a"]}),
        ("Annotated[int, 'positive']", {"type": "integer"}),
        ("int | Foo", {}),  # refusing a Foo would be wrong
        ("Any", {}),
        ("Callable[[int], str]", {}),
        ("'not ( python'", {}),
    ],
)
def test_annotations(annotation, expected):
    assert schema_from_annotation(ast.parse(annotation, mode="eval").body) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("int", {"type": "integer"}),
        ("int or None", {"type": ["integer", "null"]}),
        ("int, float or None", {"type": ["integer", "number", "null"]}),
        ("{'C', 'F'}", {"enum": ["C", "F"]}),
        ("{None, str}", {"type": ["null", "string"]}),
        ("{'linear', 2} or bool", {"anyOf": [{"enum": ["linear", 2]}, {"type": "boolean"}]}),
        ("(M, N) ndarray", {"type": "array"}),
        ("ndarray of shape (n,)", {"type": "array"}),
        ("array_like, shape (n,)", {"type": ["array", "number"]}),
        ("list of ints", INTS),
        ("sequence of foos", {"type": "array"}),
        ("dict of str to int", {"type": "object"}),
        ("positive int", {"type": "integer"}),
        ("str or path object", {}),
        ("callable", {}),
        ("", {}),
        ("whatever the caller " * 20, {}),
    ],
)
def test_words(words, expected):
    assert schema_from_words(words) == expected


@given(st.text(max_size=60))
def test_words_never_fail(words):
    assert json.dumps(schema_from_words(words)) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Integer, the number of units.", {"type": "integer"}),
        ("An optional `bool`. Defaults to `False`.", {"type": "boolean"}),
        ("Boolean whether to go.", {"type": "boolean"}),
        ("String. Optional name.", {"type": "string"}),
        ("float, or a callable", {}),
        ("int, float or str.", {}),
        ("int or list of ints.", {}),
        ("The string, if any.", {}),
    ],
)
def test_descriptions_that_begin_with_a_type(text, expected):
    assert schema_from_description(text) == expected


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "integer"}, None, {"type": ["integer", "null"]}),
        ({"type": "number"}, 3, {"type": "number"}),
        ({"type": "integer"}, True, {"type": ["integer", "boolean"]}),
        ({"enum": ["a"]}, None, {"enum": ["a", None]}),
        ({"anyOf": [{"type": "integer"}, INTS]}, None, {"anyOf": [{"type": "integer"}, INTS, {"type": "null"}]}),
        ({"anyOf": [{"type": "integer"}, INTS]}, 3, {"anyOf": [{"type": "integer"}, INTS]}),
        ({}, None, {}),
    ],
)
def test_a_schema_admits_its_default(schema, value, expected):
    assert admitting(schema, value) == expected


@pytest.mark.parametrize("source", ["(1, 2)", "b'x'", "float('inf')", "1e999", "{1: 2}", "x", "...", "'\\ud800'"])
def test_what_json_cannot_write_is_no_literal(source):
    assert json_literal(ast.parse(source, mode="eval").body) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
                    max_leaves=6))  # fmt: skip
def test_literals_are_read_as_they_are(value):
    assert json_literal(ast.parse(repr(value), mode="eval").body) == (value,)
