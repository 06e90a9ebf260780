"""Schema-Guided Dialogue: methods as tools, calls with results, documentation of methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from source_reading import read, real

from hephaestus_jax.formats.records import ApiAction, ApiDoc, Trajectory

SERVICE = {
    "service_name": "Trains_1",
    "description": "Trains",
    "slots": [
        {"name": "to", "description": "Where to", "is_categorical": False, "possible_values": []},
        {"name": "class", "description": "Class", "is_categorical": True, "possible_values": ["first", "second"]},
    ],
    "intents": [
        {
            "name": "BuyTicket",
            "description": "Buy a ticket",
            "is_transactional": True,
            "required_slots": ["to"],
            "optional_slots": {"class": "second"},
            "result_slots": ["to", "class"],
        }
    ],
}


def turn(call: dict[str, Any], act: str = "INFORM", results: Any = ()) -> dict[str, Any]:
    frame = {
        "service": "Trains_1",
        "actions": [{"act": act}],
        "service_call": {"method": "BuyTicket", "parameters": call},
        "service_results": list(results),
    }
    return {"speaker": "SYSTEM", "utterance": "ok", "frames": [frame]}


def dialogue(*turns: Any) -> dict[str, Any]:
    user = {"speaker": "USER", "utterance": "A ticket", "frames": []}
    return {"dialogue_id": "1", "services": ["Trains_1"], "turns": [user, *turns]}


def written(folder: Path, *dialogues: Any, schema: bool = True) -> tuple[list[Any], dict[str, int]]:
    (folder / "dialogues_001.json").write_text(json.dumps(dialogues))
    if schema:
        (folder / "schema.json").write_text(json.dumps([SERVICE]))
    records, quarantine = read("schema_guided_dialogue", folder)
    return records, quarantine.counts


def test_calls_and_documentation(tmp_path: Path) -> None:
    good = turn({"to": "Rome", "class": "first"}, "NOTIFY_SUCCESS", [{"to": "Rome"}])
    records, counts = written(tmp_path, dialogue(good, turn({"class": "third"}), turn({"to": "X"}, "NOTIFY_FAILURE")))
    trajectory, doc = records
    assert [s.outcome for s in trajectory.steps if isinstance(s, ApiAction)] == ["ok", "unknown", "error"]
    assert trajectory.provenance.processing == ("1 calls contradict the schema of their tool",)
    assert trajectory.provenance.licence == "CC-BY-SA-4.0" and counts == {}
    assert doc.name == "Trains_1.BuyTicket" and doc.function == "BuyTicket" and "confirm" in doc.description
    assert doc.parameters["properties"]["class"]["enum"] == ["first", "second", "dontcare"]
    assert doc.parameters["properties"]["class"]["default"] == "second" and doc.parameters["required"] == ["to"]
    assert trajectory.system == "Today is Friday, 2019-03-01."
    assert doc.returns["items"]["properties"]["class"]["enum"] == ["first", "second"]
    assert doc.returns["items"]["properties"]["to"] == {"type": "string", "description": "Where to"}


def test_a_missing_schema_and_bad_dialogues_are_told(tmp_path: Path) -> None:
    bad = dialogue({"speaker": "BOSS", "utterance": "x"})
    records, counts = written(tmp_path, dialogue(), bad, {"turns": []}, {"turns": 3}, schema=False)
    assert len(records) == 1 and records[0].tools == ()
    assert counts == {"malformed dialogue": 3, "no schema": 1}


def test_real_files() -> None:
    records, quarantine = read("schema_guided_dialogue", real("sgd"))
    trajectories = [record for record in records if isinstance(record, Trajectory)]
    assert len(trajectories) == 128 and sum(isinstance(record, ApiDoc) for record in records) == 30
    assert not quarantine and all(t.tools for t in trajectories)
    assert sum(isinstance(step, ApiAction) for t in trajectories for step in t.steps) == 209
    assert not any(t.provenance.processing for t in trajectories)  # every call fits its schema
