"""API-Bank: dialogues with calls; exceptions are errors; a bad turn spoils its dialogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from source_reading import read, read_rows, real

from hephaestus_jax.formats.records import ApiAction, MessageAction, Outcome

USER = {"role": "User", "text": "Alarm at 8"}
AI = {"role": "AI", "text": "Done"}


def api(arguments: object, exception: str | None = None, name: str = "AddAlarm") -> dict[str, object]:
    result: dict[str, object] = {
        "api_name": name,
        "input": {},
        "output": None if exception else "success",
        "exception": exception,
    }
    return {"role": "API", "api_name": name, "param_dict": arguments, "result": result}


def test_calls_results_and_tools(tmp_path: Path) -> None:
    (made,), quarantine = read_rows(
        "api_bank", tmp_path, USER, api({"time": 8}, "no token"), api({"time": "8", "token": "t"}), AI
    )
    calls = [step for step in made.steps if isinstance(step, ApiAction)]
    assert [call.outcome for call in calls] == ["error", "corrected"] and not quarantine
    assert made.steps[2].content == '{"exception": "no token"}' and made.steps[2].tool_call_id == calls[0].tool_call_id
    (tool,) = made.tools
    assert tool.parameters["required"] == ["time"]
    assert tool.parameters["properties"]["time"] == {"type": ["integer", "string"]}
    assert made.provenance.processing == ("tools on offer made of the calls",)


def test_arguments_as_text(tmp_path: Path) -> None:
    (made,), _ = read_rows("api_bank", tmp_path, USER, api("{'time': None}"))
    assert made.steps[1].kwargs == {"time": None}


def test_a_bad_turn_spoils_its_dialogue_only(tmp_path: Path) -> None:
    read_rows("api_bank", tmp_path, USER, api("{'time': "), file="a.jsonl")
    read_rows("api_bank", tmp_path, USER, {"role": "Boss"}, file="b.jsonl")
    read_rows("api_bank", tmp_path, USER, AI, file="c.jsonl")
    records, quarantine = read_rows("api_bank", tmp_path, USER, api({}), file="d.jsonl")
    assert len(records) == 1
    assert quarantine.counts == {"dialogue with a bad turn": 2, "malformed turn": 2, "no call": 1}


def test_tools_are_known_from_all_dialogues_and_those_of_the_name_are_on_offer(tmp_path: Path) -> None:
    read_rows("api_bank", tmp_path, USER, api({"time": "8"}), api({"id": 1}, name="Stop"), file="AddAlarm-Stop-1.jsonl")
    records, _ = read_rows("api_bank", tmp_path, USER, api({"time": "8", "token": "t"}), file="AddAlarm-Stop-2.jsonl")
    first, second = records
    assert [tool.name for tool in first.tools] == [tool.name for tool in second.tools] == ["AddAlarm", "Stop"]
    assert first.tools == second.tools
    assert set(second.tools[0].parameters["properties"]) == {"time", "token"}
    assert second.tools[0].parameters["required"] == ["time"]


PROGRAM = """
import os
class AddAlarm(API):
    description = "Sets an alarm."
    input_parameters = {"time": {"type": "str", "description": "When"}, "n": {"type": "int", "description": ""}}
    output_parameters = {"status": {"type": "str", "description": "success or failed"}}
    database = os.system("rm -rf /")
class Other: pass
"""


def test_programs_describe_the_tools_and_are_not_run(tmp_path: Path) -> None:
    (tmp_path / "apis").mkdir()
    (tmp_path / "apis" / "add_alarm.py").write_text(PROGRAM)
    (tmp_path / "apis" / "broken.py").write_text("class (:")
    (tmp_path / "lv1" / "given").mkdir(parents=True)
    calls = [api({"time": "8", "n": 1}), api({"n": "x"}), api({}, name="Lost")]
    rows = "\n".join(json.dumps(row) for row in [USER, *calls])
    (tmp_path / "lv1" / "given" / "AddAlarm-1.jsonl").write_text(rows)
    (doc, dialogue), quarantine = read("api_bank", tmp_path)
    assert doc.name == "AddAlarm" and doc.description == "Sets an alarm." and doc.interface == "tool"
    assert doc.returns["properties"]["status"] == {"type": "string", "description": "success or failed"}
    told, lost = dialogue.tools
    assert told.description == doc.description and told.parameters == doc.parameters and lost.description == ""
    assert told.parameters["properties"]["time"] == {"type": "string", "description": "When"}
    assert [step.outcome for step in dialogue.steps if isinstance(step, ApiAction)] == ["ok", "unknown", "ok"]
    assert dialogue.provenance.processing == (
        "tools on offer made of the calls",
        "1 calls contradict the schema of their tool",
    )
    assert quarantine.counts == {"malformed program": 1}


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("Your order is 123456.", "error"),
        ("You owe 1683.29 USD.", "error"),
        ("Your id is APPT1234.", "error"),
        ("Your token is 998877, the sum 12,345.60.", "unknown"),
        ("The rate is 2.8700, your rest 984.20.", "unknown"),
        ("The status of it is [status].", "error"),
        ("Done for 2023-04-12, 10:30, in 2023.", "unknown"),
    ],
)
def test_figures_from_nowhere_are_errors(tmp_path: Path, said: str, outcome: Outcome) -> None:
    called = api({"token": "998877", "sum": "12345.60 2.87 984.2"})
    (made,), _ = read_rows(
        "api_bank", tmp_path, {"role": "User", "text": "998877"}, called, {"role": "AI", "text": said}
    )
    assert made.steps[-1] == MessageAction(said, outcome=outcome)


def test_what_the_call_has_not_brought_yet_and_what_nobody_gave_are_errors(tmp_path: Path) -> None:
    found = {"role": "API", "api_name": "Query", "param_dict": {"id": "1234", "day": "2023"}}
    found["result"] = {"output": {"doctor": "Dr. Kim"}, "exception": None}
    said = [{"role": "AI", "text": text} for text in ("I look for Dr. Kim. ", "Dr. Kim it is.")]
    (made,), _ = read_rows("api_bank", tmp_path, USER, said[0], found, said[1])
    assert made.steps[1] == MessageAction("I look for Dr. Kim.", outcome="error")
    assert made.steps[2].outcome == "error" and made.steps[4].outcome == "unknown"
    (made,), _ = read_rows("api_bank", tmp_path, {"role": "User", "text": "id 1234, Dr. Kim?"}, said[0], found, said[1])
    assert [step.outcome for step in made.steps if not hasattr(step, "source")] == ["unknown", "ok", "unknown"]


def test_real_files() -> None:
    records, quarantine = read("api_bank", real("api_bank"))
    assert len(records) == 212 and quarantine.counts == {"empty file": 1, "no call": 1}
    outcomes = [step.outcome for record in records for step in record.steps if isinstance(step, ApiAction)]
    assert len(outcomes) == 389 and set(outcomes) == {"ok", "error"}
