"""ToolAlpaca: operations of a specification, golden calls, simulated runs, the catalogue of public APIs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from source_reading import read, real

from hephaestus_jax.formats.records import ApiAction, ApiDoc, Document, MessageAction, Trajectory, to_json

SPEC = {
    "servers": [{"url": "https://api.zoo.org/v1/"}],
    "paths": {
        "/pets/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {
                "operationId": "getPet",
                "summary": "Get a pet",
                "parameters": [{"$ref": "#/components/parameters/Lang"}],
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}},
                    "404": {"description": "No such pet"},
                },
            },
            "put": {
                "operationId": "putPet",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}},
            },
        }
    },
    "components": {
        "parameters": {
            "Lang": {"name": "lang", "in": "query", "schema": {"type": "string"}, "description": "Language"}
        },
        "schemas": {"Pet": {"type": "object", "properties": {"name": {"type": "string"}, "id": {"type": "integer"}}}},
    },
}


def written(folder: Path, **more: Any) -> tuple[list[Any], dict[str, int]]:
    row = {"Name": "Zoo", "Documentation": json.dumps(SPEC), **more}
    (folder / "eval.json").write_text(json.dumps([row]))
    records, quarantine = read("toolalpaca", folder)
    return records, quarantine.counts


def test_operations(tmp_path: Path) -> None:
    (get, put), counts = written(tmp_path)
    assert get.name == "GET /v1/pets/{id}" and get.function == "getPet" and get.provider == "api.zoo.org"
    assert get.parameters["properties"] == {
        "id": {"type": "integer"},
        "lang": {"type": "string", "description": "Language"},
    }
    assert get.parameters["required"] == ["id"] and get.errors[0].name == "404"
    assert get.returns["properties"]["name"] == {"type": "string"}
    assert set(put.parameters["properties"]) == {"id", "name", "body_id"} and counts == {}


def test_golden_answers(tmp_path: Path) -> None:
    answers = [
        [{"Action": "getPet", "Action_Input": '{"id": 1}'}, {"Action": "getPet", "Action_Input": '{"id": "x"}'}],
        [{"Action": "getPet", "Action_Input": '{"id": '}],
        [],
    ]
    records, counts = written(tmp_path, Instructions=["a", "b", "c"], Golden_Answers=answers)
    (made,) = [record for record in records if isinstance(record, Trajectory)]
    assert [step.outcome for step in made.steps if isinstance(step, ApiAction)] == ["ok", "unknown"]
    assert counts == {"malformed call": 2}
    _, counts = written(tmp_path, Instructions=["a"], Golden_Answers=answers)
    assert counts == {"answers do not pair": 1}


def test_simulated_runs(tmp_path: Path) -> None:
    run = {
        "input": "Which pet?",
        "intermediate_steps": [[["getPet", "{'id': 1}", "Thought: look\nAction: getPet"], "Status Code: 200"]],
        "output": "Rex",
        "Final Thought": "done",
    }
    records, counts = written(tmp_path, Instances=[run, {"input": 3}, {"input": "x", "intermediate_steps": [["a"]]}])
    (made,) = [record for record in records if isinstance(record, Trajectory)]
    call = made.steps[1]
    assert isinstance(call, ApiAction) and call.reasoning_content == "look" and call.kwargs == {"id": 1}
    assert made.steps[-1] == MessageAction("Rex", reasoning_content="done")
    assert counts == {"malformed instance": 2}


def test_real_files() -> None:
    records, quarantine = read("toolalpaca", real("toolalpaca"))
    docs = [record for record in records if isinstance(record, ApiDoc)]
    lists = [record for record in records if isinstance(record, Document)]
    runs = [record for record in records if isinstance(record, Trajectory)]
    assert len(docs) == 40 and len(lists) == 51 and sum(text.text.count("\n- ") for text in lists) == 1425
    assert len(runs) == 104 and quarantine.counts == {"malformed call": 10}
    assert not any(
        word in json.dumps(to_json(run)) for run in runs for word in ("LQGE4R", "75619bf6f8", "8BbG6gN9", "access_key")
    )
    outcomes = [step.outcome for run in runs for step in run.steps if isinstance(step, ApiAction)]
    assert outcomes.count("unknown") == 3 and set(outcomes) == {"ok", "unknown"}  # a number where a text is asked


def test_keys_of_a_service_are_no_business_of_the_agent(tmp_path: Path) -> None:
    asked = [
        [{"Action": "getPet", "Action_Input": '{"id": 1, "lang": "k3y"}'}],
        [{"Action": "shoot", "Action_Input": ""}],
    ]
    records, counts = written(tmp_path, Instructions=["a", "b"], Golden_Answers=asked, Authentication={"lang": "***"})
    made = records[-1]
    assert made.steps[1].kwargs == {"id": 1} and "lang" not in made.tools[0].parameters["properties"]
    assert made.tools[0].parameters["required"] == ["id"] and "lang" in records[0].parameters["properties"]
    assert made.provenance.processing == ("golden calls, without results", "keys of the service left out")
    assert counts == {"malformed call": 1}  # of a tool that is not on offer


def test_the_catalogue_becomes_texts_by_category(tmp_path: Path) -> None:
    entries = [
        {"API": "Zoo", "Description": "Pets.", "Auth": "apiKey", "Category": "Animals", "Link": "https://zoo.org"},
        {"API": "Ark", "Description": "Ark", "Auth": "", "Category": "Animals"},
        {"API": "Sky", "Description": "Clouds"},
        {"API": 3},
    ]
    (tmp_path / "public.json").write_text(json.dumps({"count": 4, "entries": entries}))
    records, quarantine = read("toolalpaca", tmp_path)
    animals, other = records
    assert animals.text == ("# Public APIs: Animals\n\n- Zoo (authentication: API key): Pets. https://zoo.org\n- Ark\n")
    assert other.text.startswith("# Public APIs: Other\n\n- Sky: Clouds.") and other.slice == "text"
    assert quarantine.counts == {"malformed API": 1}


def test_a_description_does_not_say_its_summary_twice_and_a_path_begins_with_a_slash(tmp_path: Path) -> None:
    operation = {"operationId": "f", "summary": "Get all pets.", "description": "Get all pets of the zoo."}
    spec = {"servers": [{"url": "https://zoo.org"}], "paths": {"pets": {"get": operation}}}
    (tmp_path / "eval.json").write_text(json.dumps([{"Name": "Zoo", "Documentation": json.dumps(spec)}]))
    (doc,), _ = read("toolalpaca", tmp_path)
    assert doc.name == "GET /pets" and doc.description == "Get all pets of the zoo."
