"""ToolBench: the path to the answer, branches given up, outcomes; APIs of queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from source_reading import read, real

from hephaestus_jax.formats.records import ApiAction, ApiDoc, TextObservation, Trajectory


def node(kind: str, text: str, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"node_type": kind, "description": text, "children": list(children), **more}


def call(
    name: str, arguments: str, code: int, *children: dict[str, Any], observed: str = '{"error": "", "response": "r"}'
) -> dict[str, Any]:
    return node("Action", name, node("Action Input", arguments, *children, observation=observed, observation_code=code))


def answer(root: dict[str, Any], **more: Any) -> dict[str, Any]:
    functions = [
        {
            "name": "find",
            "description": "Finds",
            "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
        },
        {"name": "Finish", "parameters": {"type": "object", "properties": {"return_type": {"type": "string"}}}},
    ]
    return {"win": True, "tree": {"tree": root}, "answer_generation": {"query": "Do it", "function": functions, **more}}


def one(tmp_path: Path, value: Any) -> tuple[list[Any], dict[str, int]]:
    (tmp_path / "a.json").write_text(json.dumps(value))
    records, quarantine = read("toolbench", tmp_path)
    return records, quarantine.counts


FINISH = call("Finish", '{"return_type": "give_answer"}', 3)
GIVE_UP = call("Finish", '{"return_type": "give_up_and_restart"}', 4)


def calls(trajectory: Trajectory) -> list[tuple[str, str]]:
    return [(step.function, step.outcome) for step in trajectory.steps if isinstance(step, ApiAction)]


def test_the_path_to_the_answer_with_thoughts_and_outcomes(tmp_path: Path) -> None:
    thought = node("Thought", "I look.", call("find", '{"q": "x"}', 0, FINISH))
    (made,), counts = one(tmp_path, answer(node("Action Input", "", thought)))
    assert calls(made) == [("find", "ok"), ("Finish", "ok")] and made.success is True and counts == {}
    assert made.steps[0] == TextObservation("Do it", "user")
    assert made.steps[1].reasoning_content == "I look." and made.steps[1].kwargs == {"q": "x"}
    assert made.steps[2].tool_call_id == made.steps[1].tool_call_id
    assert [tool.name for tool in made.tools] == ["find", "Finish"] and made.provenance.licence == "Apache-2.0"


def test_a_branch_that_was_given_up_stands_before_the_answer(tmp_path: Path) -> None:
    root = node("Action Input", "", call("find", '{"q": "a"}', 0, GIVE_UP), call("find", '{"q": "b"}', 0, FINISH))
    (made,), _ = one(tmp_path, answer(root))
    assert calls(made) == [("find", "error"), ("Finish", "error"), ("find", "corrected"), ("Finish", "ok")]
    assert "1 branches that were given up" in made.provenance.processing


def test_errors_hallucinated_tools_and_single_quotes(tmp_path: Path) -> None:
    failing = call(
        "find", "{'q': 'a'}", 0, call("nope", "{}", 1, call("find", "{}", 0, FINISH)), observed='{"error": "x"}'
    )
    (made,), _ = one(tmp_path, answer(node("Action Input", "", failing)))
    assert calls(made) == [("find", "error"), ("nope", "error"), ("find", "corrected"), ("Finish", "ok")]
    assert "1 calls of tools that are not on offer" in made.provenance.processing


def test_trees_without_answer_with_broken_calls_or_wrong_nodes_are_set_aside(tmp_path: Path) -> None:
    bad = [
        answer(node("Action Input", "", call("find", "{}", 0))),
        answer(node("Action Input", "", call("find", '{"q": ', 0, FINISH))),
        answer(node("Action Input", "", {"node_type": 3})),
        answer(node("Action Input", "", call("find", "{}", 0, FINISH)), query=None),
        {"tree": {"tree": [1]}, "answer_generation": {}},
    ]
    records, counts = one(tmp_path, bad)
    assert records == [] and counts == {"malformed tree": 5}


def test_a_long_chain_is_read_whole(tmp_path: Path) -> None:
    chain = FINISH
    for _ in range(30):
        chain = call("find", "{}", 0, chain)
    (made,), _ = one(tmp_path, answer(node("Action Input", "", chain)))
    assert len(calls(made)) == 31


def test_apis_of_queries(tmp_path: Path) -> None:
    api = {
        "tool_name": "Zip",
        "api_name": "lookup",
        "api_description": "Looks up.",
        "required_parameters": [{"name": "zip", "type": "NUMBER", "description": "Code", "default": "8000"}],
        "optional_parameters": [{"name": "lang", "type": "STRING", "default": "en"}],
        "template_response": {"city": "str", "list": [{"n": "int", "_list_length": 2}]},
    }
    rows = [
        {"query": "q", "api_list": [api, 3, {"tool_name": "Zip"}, {"tool_name": "a", "api_name": "b"}]},
        {"query": "q"},
    ]
    (made,), counts = one(tmp_path, rows)
    assert made.name == "Zip: lookup" and made.interface == "tool" and made.parameters["required"] == ["zip"]
    assert made.parameters["properties"]["zip"] == {"type": "number", "description": "Code", "examples": ["8000"]}
    assert made.parameters["properties"]["lang"]["default"] == "en"
    assert made.returns["properties"]["list"]["items"]["properties"] == {"n": {"type": "integer"}}
    assert counts == {"malformed API": 2, "nothing described": 1, "query without APIs": 1}


def test_real_files() -> None:
    records, quarantine = read("toolbench", real("toolbench"))
    trajectories = [record for record in records if isinstance(record, Trajectory)]
    assert len(trajectories) == 14 and sum(t.success is True for t in trajectories) == 9
    assert sum(isinstance(record, ApiDoc) for record in records) == 47
    assert quarantine.counts == {"nothing described": 17, "malformed tree": 1, "query without APIs": 1}
    assert any(outcome == "corrected" for t in trajectories for _, outcome in calls(t))
