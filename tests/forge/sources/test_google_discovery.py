"""Google's discovery documents: parameters, flattened bodies, returns, hostile documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hephaestus_jax.forge.sources.google_discovery import read_google_discovery
from hephaestus_jax.forge.sources.source import Origin, SourceFile
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, from_json, to_json


def read(root: Path, document: Any) -> tuple[list[ApiDoc], Quarantine]:
    """Both the methods of a document and what was set aside."""
    (root / "pets.v1.json").write_text(document if isinstance(document, str) else json.dumps(document))
    quarantine = Quarantine()
    origin = Origin("google-api-python-client", "2", "Apache-2.0")
    return [
        doc
        for doc in read_google_discovery(SourceFile(root, "pets.v1.json", origin), quarantine)
        if isinstance(doc, ApiDoc)
    ], quarantine


def document(**method: Any) -> dict[str, Any]:
    stated = {"httpMethod": "POST", "path": "v1/{+name}", "id": "pets.shops.pets.create", "description": "Adds a pet."}
    stated |= method
    return {
        "name": "pets",
        "version": "v1",
        "baseUrl": "https://pets.googleapis.com/",
        "documentationLink": "https://developers.google.com/pets/",
        "resources": {"shops": {"resources": {"pets": {"methods": {"create": stated}}}}},
        "schemas": {
            "Pet": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "Required. What it is called."},
                    "kind": {"type": "string", "description": "Required. Its kind.", "enum": ["CAT"],
                             "enumDescriptions": ["It purrs."]},
                    "age": {"type": "string", "format": "int64", "description": "Output only. Years."},
                    "mother": {"$ref": "Pet", "description": "Optional. Its mother."},
                },
            }
        },
    }  # fmt: skip


def test_a_method_with_its_body_and_response(tmp_path: Path) -> None:
    made = document(
        description="Adds a pet.",
        request={"$ref": "Pet"},
        response={"$ref": "Pet"},
        parameters={
            "name": {"type": "string", "location": "path", "required": True, "pattern": "^shops/[^/]+$"},
            "max": {"type": "integer", "format": "int32", "default": "20", "minimum": "1", "location": "query"},
            "tag": {"type": "string", "repeated": True, "location": "query", "description": "Tags."},
        },
    )
    (doc,), quarantine = read(tmp_path, made)
    assert not quarantine
    assert (doc.name, doc.provider, doc.interface) == ("pets.shops.pets.create", "googleapis.com", "rest")
    assert doc.signature == "POST https://pets.googleapis.com/v1/{name}"
    assert doc.provenance.path.endswith("methods.create@v1") and doc.provenance.host == "developers.google.com/pets"
    properties = doc.parameters["properties"]
    assert set(properties) == {"name", "max", "tag", "body_name", "kind", "mother"}  # the age is the service's to set
    assert doc.parameters["required"] == ["name", "kind"]
    assert properties["max"] == {"type": "integer", "format": "int32", "default": 20, "minimum": 1, "x-in": "query"}
    assert properties["tag"] == {
        "type": "array", "x-in": "query", "description": "Tags.", "items": {"type": "string"}
    }  # fmt: skip
    assert properties["kind"]["description"] == "Its kind.\n- `CAT`: It purrs."
    assert properties["mother"]["required"] == ["name", "kind"]
    assert "properties" not in properties["mother"]["properties"]["mother"]  # the recursion ends
    assert doc.returns is not None and doc.returns["properties"]["age"]["description"] == "Years."
    Draft202012Validator.check_schema(doc.parameters)
    Draft202012Validator.check_schema(doc.returns)
    assert from_json(to_json(doc)) == doc


def test_an_empty_request_is_no_parameter_and_a_patch_requires_no_field(tmp_path: Path) -> None:
    made = document(request={"$ref": "Nothing"})
    made["schemas"]["Nothing"] = {"type": "object", "properties": {}, "description": "The request."}
    assert read(tmp_path, made)[0][0].parameters["properties"] == {}
    patch = document(request={"$ref": "Pet"}, httpMethod="PATCH")
    assert "required" not in read(tmp_path, patch)[0][0].parameters


def test_what_no_caller_sends_is_no_parameter_and_what_the_words_demand_is_required(tmp_path: Path) -> None:
    made = document(
        httpMethod="PUT",
        request={"$ref": "Sent"},
        parameters={
            "id": {"type": "string", "location": "query", "description": "Required. Its id."},
            "tags": {"type": "string", "repeated": True, "location": "query", "description": "Tags.",
                     "enum": ["TAG_UNSPECIFIED", "A"], "enumDescriptions": ["Nothing.", "The first."]},
            "extra": {"type": "string", "location": "query", "description": "Do not use this field."},
        },
    )  # fmt: skip
    told = {"a": "Read-only. Its status.", "b": "Its number. Read-only.", "c": "OUTPUT ONLY.", "d": "Only reads."}
    properties = {name: {"type": "string", "description": words} for name, words in told.items()}
    properties["kind"] = {"type": "string", "default": "pets#pet"}
    properties["at"] = {"type": "string", "format": "google-datetime"}
    made["schemas"]["Sent"] = {"type": "object", "properties": properties}
    (doc,), _ = read(tmp_path, made)
    assert set(doc.parameters["properties"]) == {"id", "tags", "d", "at"}
    assert doc.parameters["required"] == ["id"]
    assert doc.function == "shops_pets_create"
    assert doc.parameters["properties"]["tags"] == {
        "type": "array", "x-in": "query", "description": "Tags.\n- `A`: The first.",
        "items": {"type": "string", "enum": ["TAG_UNSPECIFIED", "A"]},
    }  # fmt: skip
    assert doc.parameters["properties"]["at"]["format"] == "date-time"


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*", "[", "x" * 201])
def test_patterns_that_are_dangerous_or_wrong_are_left_out(tmp_path: Path, pattern: str) -> None:
    parameters = {"q": {"type": "string", "location": "query", "pattern": pattern}}
    (doc,), _ = read(tmp_path, document(parameters=parameters))
    assert "pattern" not in doc.parameters["properties"]["q"]


@pytest.mark.parametrize("wrong", [None, 7, "x", [], ["x"], {"x": 7}, {"$ref": 7}, {"$ref": "http://x/y"}])
def test_wrong_types_anywhere_do_not_stop_the_reader(tmp_path: Path, wrong: Any) -> None:
    assert not any(doc.description == "" for doc in read(tmp_path, document(description=wrong))[0])
    made = document(request=wrong, response=wrong, parameters={"a": wrong}, parameterOrder=wrong)
    made["schemas"] = {"http://x/y": wrong}
    made["resources"]["more"] = wrong
    docs, _ = read(tmp_path, made)
    assert [doc.name for doc in docs] == ["pets.shops.pets.create"]
    Draft202012Validator.check_schema(docs[0].parameters)


def test_bad_documents_are_set_aside(tmp_path: Path) -> None:
    assert read(tmp_path, '{"name": ')[1].counts == {"malformed JSON": 1}
    assert read(tmp_path, {"version": "v1"})[1].counts == {"no API name": 1}
    assert read(tmp_path, document(path=7))[1].counts == {"malformed method": 1}
    assert not read(tmp_path, {"kind": "discovery#directoryList"})[1]
    deep: dict[str, Any] = {"methods": {}}
    for _ in range(30):
        deep = {"resources": {"r": deep}}
    assert read(tmp_path, {"name": "pets", **deep})[1].counts == {"resources nested too deeply": 1}
