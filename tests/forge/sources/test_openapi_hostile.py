"""Hostile descriptions end soon, in the quarantine or as bounded records; nothing outside the file is looked at."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from hephaestus_jax.forge.openapi import schemas
from hephaestus_jax.forge.openapi.operations import read_openapi
from hephaestus_jax.forge.openapi.patterns import is_safe_pattern
from hephaestus_jax.forge.sources.source import Origin, SourceFile
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, canonical_json, from_json, to_json

ORIGIN = Origin("hostile", "1", "unknown")


def read(folder: Path, text: str | bytes, name: str = "spec.json") -> tuple[list[ApiDoc], Quarantine]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    quarantine = Quarantine()
    docs = list(read_openapi(SourceFile(folder, name, ORIGIN), quarantine))
    for doc in docs:
        Draft202012Validator.check_schema(doc.parameters)
        Draft202012Validator.check_schema(doc.returns or {})
        text = canonical_json(to_json(doc))
        text.encode("utf-8")
        json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert from_json(to_json(doc)) == doc
        assert len(text) < 2_000_000
        assert '"$ref":' not in canonical_json([doc.parameters, doc.returns])
    return docs, quarantine


def spec(schema: object = None, components: object = None, **operation: object) -> dict[str, object]:
    """A description of one operation with this body."""
    stated: dict[str, object] = {"summary": "Makes a pet.", "responses": {}}
    if schema is not None:
        stated["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return {
        "openapi": "3.0.3",
        "info": {"title": "pets", "version": "1"},
        "paths": {"/pets": {"post": stated | operation}},
        "components": {"schemas": components or {}},
    }


def properties(doc: ApiDoc) -> dict[str, dict[str, object]]:
    return dict(doc.parameters["properties"])


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/x", "../secret.json#/x", "file:///etc/passwd", "secret.json"]
)
def test_remote_and_file_references_are_not_followed_and_the_rest_is_kept(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret.json").write_text('{"type": "object", "properties": {"secret": {"type": "string"}}}')
    body = {"type": "object", "properties": {"far": {"$ref": target}, "near": {"type": "string"}}}
    docs, quarantine = read(tmp_path, json.dumps(spec(body)))
    assert properties(docs[0]) == {"far": {"x-in": "body"}, "near": {"type": "string", "x-in": "body"}}
    assert quarantine.counts == {"remote reference": 1}


def test_recursion_ends_with_an_object_that_is_only_described(tmp_path: Path) -> None:
    node = {"type": "object", "description": "A node.", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}
    docs, _ = read(tmp_path, json.dumps(spec({"$ref": "#/components/schemas/Node"}, {"Node": node})))
    assert properties(docs[0])["next"]["properties"] == {"next": {"type": "object", "description": "A node."}}
    assert docs[0].provenance.processing == ("1 deeper fields left out",)


def test_mutual_recursion_and_references_in_a_circle(tmp_path: Path) -> None:
    def link(name: str) -> dict[str, object]:
        return {"type": "object", "properties": {"other": {"$ref": f"#/components/schemas/{name}"}}}

    parts = {
        "A": link("B"),
        "B": link("A"),
        "C": {"$ref": "#/components/schemas/D"},
        "D": {"$ref": "#/components/schemas/C"},
    }
    body = {"type": "object", "properties": {name: {"$ref": f"#/components/schemas/{name}"} for name in parts}}
    docs, _ = read(tmp_path, json.dumps(spec(body, parts)))
    assert set(properties(docs[0])) == set("ABCD")
    assert properties(docs[0])["A"]["properties"]["other"]["properties"]["other"] == {"type": "object"}  # type: ignore[index]
    assert properties(docs[0])["C"] == {"x-in": "body"}


def test_parts_in_a_circle_and_ten_thousand_of_them(tmp_path: Path) -> None:
    parts = {
        "A": {"allOf": [{"$ref": "#/components/schemas/B"}, {"properties": {"a": {"type": "string"}}}]},
        "B": {"allOf": [{"$ref": "#/components/schemas/A"}, {"properties": {"b": {"type": "string"}}}]},
        "Many": {"allOf": [{"properties": {f"p{n}": {"type": "string"}}} for n in range(10_000)]},
        "Forms": {"oneOf": [{"type": "object", "properties": {f"p{n}": {}}} for n in range(10_000)]},
    }
    body = {"type": "object", "properties": {name: {"$ref": f"#/components/schemas/{name}"} for name in parts}}
    found = properties(read(tmp_path, json.dumps(spec(body, parts)))[0][0])
    assert set(found["A"]["properties"]) == {"a", "b"}  # type: ignore[call-overload]
    assert len(found["Many"]["properties"]) == schemas.MOST_PARTS  # type: ignore[arg-type]
    assert len(found["Forms"]["anyOf"]) == schemas.MOST_VARIANTS + 1  # type: ignore[arg-type]


def test_a_schema_that_doubles_at_every_level_is_bounded(tmp_path: Path) -> None:
    parts = {
        f"S{n}": {
            "type": "object",
            "properties": {f"p{k}": {"$ref": f"#/components/schemas/S{n + 1}"} for k in range(40)},
        }
        for n in range(30)
    }
    docs, _ = read(tmp_path, json.dumps(spec({"$ref": "#/components/schemas/S0"}, parts)))
    assert len(properties(docs[0])) == 40
    assert canonical_json(docs[0].parameters).count('"p0"') <= 400
    assert "deeper fields left out" in docs[0].provenance.processing[0]


def test_a_file_that_costs_too_many_steps_keeps_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "MOST_STEPS", 300)
    document = spec({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(40)}})
    paths = document["paths"]
    assert isinstance(paths, dict)
    document["paths"] = {f"/pets{n}": json.loads(json.dumps(paths["/pets"])) for n in range(20)}
    docs, quarantine = read(tmp_path, json.dumps(document))
    assert 0 < len(docs) < 20
    assert quarantine.counts == {"too large when resolved": 1}


@pytest.mark.parametrize("name", ["spec.json", "spec.yaml"])
def test_nesting_of_a_million_levels(tmp_path: Path, name: str) -> None:
    deep = '{"openapi": "3.0.0", "paths": ' + '{"a":' * 1_000_000 + "1" + "}" * 1_000_000 + "}"
    docs, quarantine = read(tmp_path, deep, name)
    assert not docs
    assert quarantine.counts == {"nested too deeply": 1}


def test_an_example_nested_too_deeply_is_left_out(tmp_path: Path) -> None:
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    docs, _ = read(
        tmp_path, json.dumps(spec({"type": "object", "properties": {"a": {"default": deep, "example": deep}}}))
    )
    assert properties(docs[0]) == {"a": {"x-in": "body"}}
    assert not docs[0].examples


def test_aliases_that_stand_for_a_billion_nodes(tmp_path: Path) -> None:
    lines = ["openapi: 3.0.0", "x-a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"x-a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    docs, quarantine = read(tmp_path, "\n".join([*lines, "paths: {}"]), "spec.yaml")
    assert not docs
    assert quarantine.counts == {"too many YAML nodes": 1}


def test_an_alias_inside_itself(tmp_path: Path) -> None:
    _, quarantine = read(tmp_path, "openapi: 3.0.0\npaths: &a {/x: *a}\n", "spec.yaml")
    assert quarantine.counts == {"recursive YAML alias": 1}


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [ls]", "!unknown x", "!!int many", "{[a]: b}", "[1", "\t- x"]
)
def test_yaml_that_is_none_or_names_objects(tmp_path: Path, tag: str) -> None:
    docs, quarantine = read(tmp_path, f"openapi: 3.0.0\nx-a: {tag}\npaths: {{}}\n", "spec.yaml")
    assert not docs
    assert quarantine.counts == {"malformed YAML": 1}


def test_yaml_keeps_dates_and_words_as_text_and_makes_keys_text(tmp_path: Path) -> None:
    text = """
openapi: 3.0.0
info: {version: 2020-01-02, title: !!binary aGk=}
paths:
  /pets:
    get:
      summary: Lists pets.
      parameters:
        - name: country
          in: query
          description: Where.
          example: no
          schema: {type: string, enum: [no, se, 2020-01-02]}
        - {name: since, in: query, schema: {type: string, default: 2020-01-02T00:00:00Z}}
      responses:
        200:
          content: {application/json: {example: {day: 2020-01-02, 1: true, null: 012}}}
"""
    (doc,), quarantine = read(tmp_path, text, "spec.yaml")
    assert not quarantine
    country = {"type": "string", "enum": ["no", "se", "2020-01-02"], "description": "Where.", "x-in": "query"}
    assert properties(doc)["country"] == country
    assert properties(doc)["since"]["default"] == "2020-01-02T00:00:00Z"
    assert doc.provenance.path.endswith("@2020-01-02")
    assert doc.examples[0].arguments == {"country": "no"}
    assert doc.examples[0].result == '{"day": "2020-01-02", "1": true, "null": "012"}'


def test_a_huge_enumeration_becomes_words(tmp_path: Path) -> None:
    many = [f"v{n}" for n in range(100_000)]
    docs, _ = read(tmp_path, json.dumps(spec({"type": "object", "properties": {"a": {"enum": many}}})))
    assert properties(docs[0])["a"] == {
        "type": "string",
        "description": "One of 100,000 values, among them `v0`, `v1`, `v2`, `v3`, `v4`.",
        "x-in": "body",
    }


@pytest.mark.parametrize(
    "target", ["#/info/title", "#/paths", "#/components/schemas/Missing", "#/components/schemas/List", "#"]
)
def test_references_to_what_is_no_schema(tmp_path: Path, target: str) -> None:
    body = {"type": "object", "properties": {"odd": {"$ref": target}, "good": {"type": "string"}}}
    docs, _ = read(tmp_path, json.dumps(spec(body, {"List": [1, 2]})))
    assert set(properties(docs[0])) == {"odd", "good"}


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "int",
            "minimum": "1",
            "exclusiveMaximum": True,
            "maximum": 5,
            "format": 3,
            "enum": {},
            "required": "a",
        },
        {"type": ["string", "string", 3], "pattern": "(((", "minLength": -1, "maxLength": 2.5, "multipleOf": 0},
        {"type": "object", "properties": {"a": None, "b": True, "c": [], "d": {"type": {}}}, "required": [1, "a"]},
        {"type": "array", "items": [{"type": "string"}, 3], "uniqueItems": "yes", "minItems": True},
        {"anyOf": "x", "allOf": {}, "oneOf": [None, 3, {"type": "null"}], "nullable": True, "not": 3},
        {"default": float("inf"), "enum": [float("nan"), 1], "example": float("-inf"), "minimum": float("-inf")},
        {"type": "string", "default": None, "description": ["no text"], "title": 3, "additionalProperties": "x"},
        {"$ref": 3, "$id": "http://x", "$schema": "y", "$defs": 4, "properties": []},
    ],
)
def test_schemas_that_are_wrong_become_valid_ones(tmp_path: Path, schema: object) -> None:
    parameter = {"name": "p", "in": "query", "schema": schema}
    docs, _ = read(tmp_path, json.dumps(spec({"type": "object", "properties": {"a": schema}}, parameters=[parameter])))
    assert set(properties(docs[0])) == {"p", "a"}


def test_infinities_and_half_pairs_in_json(tmp_path: Path) -> None:
    text = json.dumps(spec({"type": "object", "properties": {"a\ud800": {"example": 1, "description": "half \udc00"}}}))
    text = text.replace('"example": 1', '"example": [NaN, Infinity, 1e999], "default": "\\ud800"')
    docs, _ = read(tmp_path, text)
    assert properties(docs[0]) == {"a\ufffd": {"default": "\ufffd", "description": "half \ufffd", "x-in": "body"}}
    assert docs[0].examples[0].arguments == {"a\ufffd": ["NaN", "Infinity", "inf"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"openapi": "3.0.0", "paths": {', "malformed JSON"),
        (b'{"openapi": "3.0.0", "paths": {}, "x": "\xff\xfe"}', "not UTF-8"),
        ("[]", "not an OpenAPI description"),
        ('{"paths": {}}', "not an OpenAPI description"),
        ('{"openapi": "3.0.0", "paths": []}', "not an OpenAPI description"),
        ('{"openapi": "3.0.0", "paths": {"/a": 3}}', "path is not an object"),
        ('{"openapi": "3.0.0", "paths": {"/a": {"get": "text"}}}', "operation is not an object"),
        ('{"openapi": "3.0.0", "paths": {"/a": {"$ref": "x.json"}}}', "remote reference"),
        ("1" * 10_000, "malformed JSON"),
        ("", "malformed JSON"),
    ],
)
def test_what_is_no_description_is_quarantined(tmp_path: Path, text: str | bytes, reason: str) -> None:
    docs, quarantine = read(tmp_path, text)
    assert not docs
    assert reason in quarantine.counts


def test_one_bad_operation_does_not_lose_the_others(tmp_path: Path) -> None:
    document = spec()
    odd = {
        "summary": "Odd.",
        "operationId": "same",
        "parameters": [None, 3, {"name": 5}],
        "responses": [1],
        "requestBody": "x",
    }
    more = {
        "summary": "Good.",
        "operationId": "same",
        "responses": {"200": None, "x-a": {}, "201": {"content": "json"}},
    }
    document["paths"] = {"/a": {"get": 1, "put": odd, "post": more}, "/b": None, "/c": {"get": {}}, 5: {}}
    docs, quarantine = read(tmp_path, json.dumps(document))
    assert [(doc.name, doc.function) for doc in docs] == [("POST /a", "same"), ("PUT /a", "same")]
    assert quarantine.counts == {"operation is not an object": 1, "path is not an object": 1}


@pytest.mark.parametrize(
    ("pattern", "safe"),
    [
        ("^[a-z]{1,63}$", True),
        (r"^\d{4}-\d{2}-\d{2}$", True),
        ("^(a|b)$", True),
        ("^([0-9A-F]{2}:){5}[0-9A-F]{2}$", True),
        ("(a{1,99}){1,99}b", False),
        ("(a+){20}b", False),
        ("(a+)+$", False),
        ("(a|aa)*$", False),
        ("((a{1,}))*b", False),
        (r"^[\w(+]+(\(x\))?$", True),
        ("a*" * 9, False),
        ("x" * 600, False),
        (r"\p{L}", False),
    ],
)
def test_patterns_that_may_never_end_are_told_apart(pattern: str, safe: bool) -> None:
    assert is_safe_pattern(pattern) is safe


@pytest.mark.parametrize(
    ("pattern", "arguments", "left_out"),
    [("^(a+)+$", {"p": "a" * 3_000 + "!"}, ("1 patterns left out",)), ("^a*a*a*a*a*b", None, ())],
)
def test_an_example_for_a_pattern_that_may_never_end(
    tmp_path: Path, pattern: str, arguments: object, left_out: tuple[str, ...]
) -> None:
    schema = {"type": "string", "pattern": pattern}
    bad = {"name": "p", "in": "query", "required": True, "example": "a" * 3_000 + "!", "schema": schema}
    ok = {"200": {"content": {"application/json": {"example": {"id": 1}}}}}
    docs, _ = read(tmp_path, json.dumps(spec(parameters=[bad], responses=ok)))
    assert docs[0].examples[0].arguments == arguments
    assert docs[0].provenance.processing == left_out


def test_a_path_of_many_templates_and_a_long_address(tmp_path: Path) -> None:
    path = "/a/" + "".join(f"{{p{n}}}" for n in range(100))
    document = spec(
        responses={"200": {"content": {"application/json": {"example": {"url": "http://x/a/" + "y" * 480}}}}}
    )
    document["paths"] = {path: dict(document["paths"])["/pets"]}  # type: ignore[call-overload]
    docs, _ = read(tmp_path, json.dumps(document))
    assert len(properties(docs[0])) == 100
    assert docs[0].examples[0].arguments is None


def test_one_huge_example_that_everything_refers_to(tmp_path: Path) -> None:
    huge = {"value": [["x"] * 1_000] * 200}
    names = [
        {"name": f"p{n}", "in": "query", "examples": {"a": {"$ref": "#/components/examples/huge"}}} for n in range(300)
    ]
    document = spec(parameters=names)
    document["components"] = {"examples": {"huge": huge}}
    docs, _ = read(tmp_path, json.dumps(document))
    assert len(properties(docs[0])) == 300
    assert docs[0].examples == ()
