"""Tool schemas in all their forms, calls as people write them, and calls held against their tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hephaestus_jax.forge.tool_data.checked import checked, contradiction
from hephaestus_jax.forge.tool_data.json_values import clean_json, first_value, object_of, parse_loose
from hephaestus_jax.forge.tool_data.tool_schemas import parameters_schema, tool_of
from hephaestus_jax.formats.records import ApiAction, Provenance, Tool, Trajectory, canonical_json

INTEGERS = {"type": "array", "items": {"type": "integer"}}
KEYWORDS = [
    word
    for line in (
        "type properties items required enum default description anyOf allOf oneOf $ref $defs nullable format pattern",
        "minimum exclusiveMinimum minLength additionalProperties prefixItems const examples title multipleOf not",
    )
    for word in line.split()
]
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-1, 1)
    | st.sampled_from(["string", "int", "#/$defs/a", "(", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(anything)
def test_whatever_is_stated_becomes_a_valid_schema(stated: Any) -> None:
    schema, _ = parameters_schema(stated)
    Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object" and isinstance(schema["properties"], dict)
    assert parameters_schema(schema)[0] == schema or "$ref" in json.dumps(stated)


@pytest.mark.parametrize(
    ("stated", "properties", "required"),
    [
        ({"city": "str"}, {"city": {"type": "string"}}, ["city"]),
        ({"n": {"type": "int, optional", "description": "N"}}, {"n": {"type": "integer", "description": "N"}}, None),
        ({"n": {"type": "List[int]", "default": 0}}, {"n": {**INTEGERS, "default": 0}}, None),
        ([{"name": "q", "type": "STRING", "required": True}], {"q": {"type": "string"}}, ["q"]),
        ({"type": "OBJECT", "properties": {"a": {"type": "BOOLEAN"}}}, {"a": {"type": "boolean"}}, None),
        ({"properties": {"a": {"type": "float"}}, "required": ["a", "b"]}, {"a": {"type": "number"}}, ["a"]),
        (
            {"properties": {"a": {"type": "integer", "minimum": 1, "exclusiveMinimum": True, "nullable": True}}},
            {"a": {"type": ["integer", "null"], "exclusiveMinimum": 1}},
            None,
        ),
        (None, {}, None),
        ("text", {}, None),
    ],
)  # fmt: skip
def test_forms_of_parameters(stated: Any, properties: Any, required: Any) -> None:
    schema, _ = parameters_schema(stated)
    assert schema["properties"] == properties
    assert schema.get("required") == required


def test_a_recursion_keeps_its_type_and_no_fields() -> None:
    node = {"type": "object", "description": "A node", "properties": {"next": {"$ref": "#/$defs/N"}}}
    stated = {"type": "object", "properties": {"head": {"$ref": "#/$defs/N"}}, "$defs": {"N": node}}
    head = parameters_schema(stated)[0]["properties"]["head"]
    assert head["properties"]["next"] == {"type": "object", "description": "A node"}


def test_references_that_fan_out_are_bounded() -> None:
    definitions: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(50)}
    schema, _ = parameters_schema({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": definitions})
    assert len(json.dumps(schema)) < 2_000_000
    remote = {"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}, "b": {"$ref": "http://x/y"}}}
    assert parameters_schema(remote)[0]["properties"] == {"a": {}, "b": {}}


def test_fields_beyond_the_limit_are_counted() -> None:
    many = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(450)}, "required": ["p449"]}
    schema, dropped = parameters_schema(many)
    assert dropped == 49 and len(schema["properties"]) == 401 and "p449" in schema["properties"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("{'a': None, 'b': True, 'c': -1}", {"a": None, "b": True, "c": -1}),
        ("{'a': true, 'b': null}", {"a": True, "b": None}),
        ('{"a": "line\nbreak"}', {"a": "line\nbreak"}),
        ("""{"name": "f", "arguments": '{"q": "it's"}'}""", {"name": "f", "arguments": {"q": "it's"}}),
        ('{"a": NaN}', {"a": "nan"}),
        ('{"a": "\\ud83d"}', {"a": "\ufffd"}),
    ],
)
def test_loose_json(text: str, value: Any) -> None:
    assert parse_loose(text) == value
    canonical_json(value)


@pytest.mark.parametrize(
    "text", ["{'a': __import__('os')}", "{", "[" * 100_000, "1 +", "{'a': {1, 2}}", "-" * 9_000 + "1"]
)
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_loose(text)


def test_arguments_as_objects_and_as_text() -> None:
    assert object_of(None) == object_of("") == object_of("{}") == {}
    assert object_of('"{\\"a\\": 1}"') == {"a": 1}  # encoded twice
    with pytest.raises(ValueError, match="expected an object"):
        object_of("[1]")
    with pytest.raises(ValueError, match="levels"):
        value: Any = 1
        for _ in range(300):
            value = [value]
        clean_json(value)


def test_the_first_value_of_a_text() -> None:
    assert first_value('{"a": 1} and more') == ({"a": 1}, 8)
    assert first_value("{'a': 'it{'} x")[0] == {"a": "it{"}
    with pytest.raises(ValueError):
        first_value("no value")


def test_names_of_tools_in_every_list() -> None:
    for stated in (
        {"type": "function", "function": {"name": "f"}},
        {"name": "f"},
        {"name": "f", "input_schema": {"type": "object"}},
    ):
        assert tool_of(stated).name == "f"
    refused: tuple[Any, ...] = ({}, {"name": 3}, "f", {"function": {}})
    for bad in refused:
        with pytest.raises(ValueError):
            tool_of(bad)


def test_calls_that_contradict_are_never_called_right() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    steps = (
        ApiAction("f", {"a": 1}, outcome="ok"),
        ApiAction("f", {"a": "1"}, outcome="ok"),
        ApiAction("g", {}, outcome="corrected"),
        ApiAction("f", {}, outcome="error"),
    )
    made = checked(Trajectory(steps, Provenance("s", "1", "MIT"), tools=(Tool("f", "", schema),)))
    assert [step.outcome for step in made.steps if isinstance(step, ApiAction)] == ["ok", "unknown", "unknown", "error"]
    assert made.provenance.processing == (
        "1 calls of tools that are not on offer",
        "2 calls contradict the schema of their tool",
    )


def test_a_pattern_of_unknown_origin_is_not_run() -> None:
    evil = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    assert contradiction(evil, {"a": "a" * 40 + "!"}) == ""


def test_texts_made_to_harm_take_linear_time() -> None:
    quoted = '"arguments": \''
    for text in ("{" + quoted * 50_000 + "}", "{'a': " * 3000, "{'" * 100_000):
        with pytest.raises(ValueError):
            parse_loose(text)
        with pytest.raises(ValueError):
            first_value(text)
