"""API-Bank: dialogues with calls; exceptions are errors; a bad turn spoils its dialogue."""

from __future__ import annotations

from pathlib import Path

from source_reading import read, read_rows, real

from hephaestus_jax.formats.records import ApiAction

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


def test_real_files() -> None:
    records, quarantine = read("api_bank", real("api_bank"))
    assert len(records) == 212 and quarantine.counts == {"empty file": 1, "no call": 1}
    outcomes = [step.outcome for record in records for step in record.steps if isinstance(step, ApiAction)]
    assert len(outcomes) == 389 and set(outcomes) == {"ok"}
