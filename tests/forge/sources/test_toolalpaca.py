"""ToolAlpaca: operations of a specification, golden calls, simulated runs, the catalogue of public APIs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from source_reading import read, real

from hephaestus_jax.formats.records import ApiAction, ApiDoc, MessageAction, Trajectory

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
    assert len(docs) == 1465 and len(records) - len(docs) == 110
    assert quarantine.counts == {"malformed call": 4}
