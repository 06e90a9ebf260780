"""What makes operations read like documentation: words without debris, and only parameters that a caller would send."""

import json
from pathlib import Path
from typing import Any

import pytest

from hephaestus_jax.forge.openapi.operations import read_openapi
from hephaestus_jax.forge.openapi.texts import errors_of, success_text
from hephaestus_jax.forge.openapi.wording import says_required, without_echo, without_required, worded
from hephaestus_jax.forge.sources.source import Origin, SourceFile
from hephaestus_jax.formats.api_layouts import markdown
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, ApiError, Json


def read(folder: Path, operation: dict[str, Any], path: str = "/pets", shared: Json = None) -> ApiDoc:
    """The one operation of a document; `shared` are the parameters of its path."""
    item = {"get": {"summary": "Gets pets."} | operation} | ({"parameters": shared} if shared else {})
    document = {"openapi": "3.0.0", "info": {"version": "2021-06-01-preview"}, "paths": {path: item}}
    (folder / "pets.json").write_text(json.dumps(document))
    quarantine = Quarantine()
    (doc,) = read_openapi(SourceFile(folder, "pets.json", Origin("pets", "1.3.17", "MIT")), quarantine)
    assert not quarantine
    return doc


def query(name: str, description: str = "", **more: Json) -> dict[str, Json]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string"}, **more}


@pytest.mark.parametrize(
    ("stated", "plain", "read_only"),
    [
        ("Optional. The name.", "The name.", False),
        ("(Optional) The name", "The name", False),
        ("***Optional*** - The number.", "The number.", False),
        ("Read-only. Nullable. Its colour.", "Its colour.", True),
        ("**Output only.** Its age", "Its age", True),
        ("Its colour. Read-only.", "Its colour.", True),
        ("Its colour. This property is read-only.", "Its colour.", True),
        ("The group of this action. Optional.", "The group of this action.", False),
        ("Optional text of the label", "Optional text of the label", False),
        ("Whether it is optional.", "Whether it is optional.", False),
        ("read only", "read only", False),
        ("PetStoreResponse", "", False),
        ("Auto generated using Swagger Inspector", "", False),
        ("A generic empty message that you can re-use. It is", "An empty object.", False),
    ],
)
def test_words_that_the_schema_says_better(stated: str, plain: str, read_only: bool) -> None:
    assert worded(stated) == (plain, read_only)


@pytest.mark.parametrize("bomb", [" ", "(", "*", "Optional. ", "(optional) ", "Read-only (", ". ", "- 400 A - "])
def test_words_end_soon_on_repetition(bomb: str) -> None:
    assert len(worded("```\n" + bomb * 50_000)[0]) <= 20_000
    assert len(without_required(worded(bomb * 50_000)[0])) <= 20_000


@pytest.mark.parametrize(
    "text", ["Required. The name.", "(Required) The name.", "The name. Required.", "The name. (required)"]
)
def test_the_word_required_counts_where_it_stands_alone(text: str) -> None:
    assert says_required(text)
    assert without_required(text) == "The name."
    assert not says_required("Required when the name is given.") and not says_required("Payment is required.")


def test_a_description_that_is_the_name_says_nothing() -> None:
    assert without_echo("pet_id", "petId") == ""
    assert without_echo("The tag parameter", "tag") == ""
    assert without_echo("the pet food", "petfood") == "the pet food"


def test_necessity_is_taken_from_the_words_where_nothing_else_is_stated(tmp_path: Path) -> None:
    shared = [query("a", "Required. It."), query("b", "Required. It.", required=False), query("c", "c", required=True)]
    doc = read(tmp_path, {}, shared=shared)
    assert doc.parameters["required"] == ["a", "c"]
    told = {name: part.get("description") for name, part in doc.parameters["properties"].items()}
    assert told == {"a": "It.", "c": None, "b": "Required. It."}


def test_fields_that_only_a_response_carries_are_not_sent(tmp_path: Path) -> None:
    fields = {"id": {"description": "Read-only. Its id."}, "name": {"type": "string"}}
    content = {
        "application/json": {"schema": {"type": "object", "properties": {"pet": {"properties": fields}, **fields}}}
    }
    doc = read(tmp_path, {"requestBody": {"content": content}, "responses": {"200": {"content": content}}})
    assert set(doc.parameters["properties"]) == {"pet", "name"}
    assert set(doc.parameters["properties"]["pet"]["properties"]) == {"name"}
    assert doc.returns is not None
    assert doc.returns["properties"]["id"] == {"description": "Its id."}


def test_parameters_that_no_caller_sends(tmp_path: Path) -> None:
    google = [query(name) for name in ("$.xgafv", "alt", "fields", "prettyPrint", "quotaUser", "uploadType")]
    assert list(read(tmp_path, {"parameters": [query("tag")]}, shared=google).parameters["properties"]) == ["tag"]
    others = [query("fields"), query("callback", "JSONP callback"), query("callback_url", "Where to tell the result.")]
    others += [query("license", "Your Pets license API key. Register first."), query("key", "Your registered API key.")]
    doc = read(tmp_path, {"parameters": others})
    assert list(doc.parameters["properties"]) == ["fields", "callback_url"]


def test_a_form_has_no_callback_either_and_a_time_is_no_version(tmp_path: Path) -> None:
    form = {
        "application/x-www-form-urlencoded": {"schema": {"properties": {"callback": {"description": "JSONP"}, "a": {}}}}
    }
    post = {"post": {"summary": "Adds pets.", "requestBody": {"content": form}}}
    version = "Wed Oct 15 2025 13:50:17 GMT+0000 (Coordinated Universal Time)"
    document = {"openapi": "3.0.0", "info": {"version": version}, "paths": {"/pets": post}}
    (tmp_path / "form.json").write_text(json.dumps(document))
    (doc,) = read_openapi(SourceFile(tmp_path, "form.json", Origin("pets", "1", "MIT")), Quarantine())
    assert list(doc.parameters["properties"]) == ["a"]
    assert doc.provenance.path == "form.json:paths./pets.post"


def test_a_value_in_the_path_is_never_null_and_its_default_is_an_example(tmp_path: Path) -> None:
    assert read(tmp_path, {"parameters": [{"name": "a", "in": "path", "schema": {"type": ["null"]}}]}, "/pets/{a}")
    schema = {"type": "string", "nullable": True, "default": "tom"}
    version = {"name": "api-version", "in": "query", "required": True, "schema": {"type": "string"}}
    parameters = [{"name": "id", "in": "path", "required": True, "schema": schema}, version]
    doc = read(tmp_path, {"parameters": parameters}, "/pets/{id}")
    assert doc.parameters["properties"]["id"] == {"type": "string", "x-in": "path"}
    assert doc.parameters["properties"]["api-version"]["default"] == "2021-06-01-preview", "as Azure demands it"
    assert doc.examples[0].arguments == {"id": "tom", "api-version": "2021-06-01-preview"}


@pytest.mark.parametrize(
    ("stated", "made"),
    [
        ({"type": "number", "format": "int64"}, {"type": "integer", "format": "int64"}),
        ({"type": ["integer", "number"], "format": "int32"}, {"type": "integer", "format": "int32"}),
        ({"type": "number", "format": "string"}, {"type": "number"}),
        ({"type": "integer", "format": "Int32"}, {"type": "integer", "format": "int32"}),
        ({"type": "string", "format": "dateTime"}, {"type": "string", "format": "date-time"}),
        (
            {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}},
            {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}},
        ),
    ],
)
def test_types(tmp_path: Path, stated: Json, made: Json) -> None:
    doc = read(tmp_path, {"parameters": [{"name": "a", "in": "query", "schema": stated}]})
    assert doc.parameters["properties"]["a"] == made | {"x-in": "query"}


def test_a_list_under_one_code_is_the_errors_in_it() -> None:
    text = "*** Error Responses: ***\n\n * 400 InvalidName - The name is\n wrong.\n\n * 404 NoServer - No such server."
    assert errors_of({"default": {"description": text}}, True) == (
        ApiError("400 InvalidName", "The name is"),
        ApiError("404 NoServer", "No such server."),
    )


def test_success_without_the_word_ok() -> None:
    assert success_text("OK. The pets.") == success_text("200 The pets.") == "The pets."
    assert (
        success_text("OK.")
        == success_text("Description was not specified")
        == success_text("Ok response definition.")
        == ""
    )
    assert (
        errors_of({"default": {"description": "Pet error response describing why the operation failed."}}, True) == ()
    )


def test_what_is_told_about_the_path_is_not_all_about_the_operation(tmp_path: Path) -> None:
    item = {"description": "Chat messages", "delete": {"operationId": "DeleteMessage", "description": ""}}
    (tmp_path / "chat.json").write_text(json.dumps({"openapi": "3.0.0", "paths": {"/messages//:id/x": item}}))
    (doc,) = read_openapi(SourceFile(tmp_path, "chat.json", Origin("chat", "1", "MIT")), Quarantine())
    assert doc.description == "Delete message\n\nChat messages"
    assert doc.name == "DELETE /messages/{id}/x"
    assert doc.parameters["required"] == ["id"]


def test_a_summary_that_is_the_name_is_told_in_words(tmp_path: Path) -> None:
    named = {"operationId": "createOrg", "summary": "createOrg"}
    assert read(tmp_path, named | {"description": "Admins can invite people."}).description.startswith("Create org\n\n")
    assert read(tmp_path, named | {"description": "Creates an org."}).description == "Creates an org."


def test_debris_behind_a_description(tmp_path: Path) -> None:
    assert read(tmp_path, {"summary": "", "description": "Gets the pets.\nNone"}).description == "Gets the pets."


def test_what_is_still_to_be_written_is_nothing(tmp_path: Path) -> None:
    doc = read(tmp_path, {"description": "TODO: Resource-level docs"})
    assert doc.description == "Gets pets."


def test_what_describes_a_file_is_no_example_of_it(tmp_path: Path) -> None:
    content = {"application/pdf": {"schema": {"type": "string"}, "example": "The certificate as PDF."}}
    assert read(tmp_path, {"responses": {"200": {"content": content}}}).examples == ()


def test_dates_are_dates_and_placeholders_are_no_values(tmp_path: Path) -> None:
    born = {"type": "string", "format": "date"}
    schema = {"type": "object", "properties": {"pets": {"type": "array", "items": {"properties": {"born": born}}}}}
    time = "2025-10-15T13:51:13.988Z"
    media = {"schema": schema, "example": {"pets": [{"born": time, "seen": time}]}}
    word = query("word", schema={"type": "string", "example": "{word}"}, required=True)
    day = query("day", schema=born | {"example": time})
    doc = read(tmp_path, {"responses": {"200": {"content": {"application/json": media}}}, "parameters": [word, day]})
    assert doc.examples[0].result == f'{{"pets": [{{"born": "2025-10-15", "seen": "{time}"}}]}}'
    assert doc.examples[0].call == "GET /pets?day=2025-10-15"
    assert doc.examples[0].arguments is None


def test_the_version_of_a_catalogue_is_not_that_of_the_api(tmp_path: Path) -> None:
    assert "1.3.17" not in markdown(read(tmp_path, {}), 3)
