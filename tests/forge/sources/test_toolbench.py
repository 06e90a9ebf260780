"""ToolBench: the path to the answer, branches given up, outcomes; APIs of queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
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
    assert "a branch that was given up" in made.provenance.processing


def test_a_branch_is_shown_where_it_left_the_path_and_not_before_another_give_up(tmp_path: Path) -> None:
    def tree(end: dict[str, Any]) -> dict[str, Any]:
        tried = call("find", '{"q": "b"}', 0, GIVE_UP)
        return node("Action Input", "", call("find", '{"q": "a"}', 0, tried, call("find", '{"q": "c"}', 0, end)))

    (made,), _ = one(tmp_path, answer(tree(FINISH)))
    told = [(step.kwargs.get("q"), step.outcome) for step in made.steps if isinstance(step, ApiAction)]
    assert told == [("a", "ok"), ("b", "error"), (None, "error"), ("c", "corrected"), (None, "ok")]
    (made,), _ = one(tmp_path, answer(tree(GIVE_UP)))
    told = [(step.kwargs.get("q"), step.outcome) for step in made.steps if isinstance(step, ApiAction)]
    assert told == [("a", "ok"), ("c", "ok"), (None, "error")] and made.success is False


def test_thoughts_about_what_is_not_shown_and_calls_made_again_are_left_out(tmp_path: Path) -> None:
    again = node("Thought", "The last attempt failed.", call("find", "{}", 0, call("find", "{}", 0, FINISH)))
    (made,), _ = one(tmp_path, answer(node("Action Input", "", call("find", '{"q": "a"}', 1), again)))
    assert calls(made) == [("find", "ok"), ("Finish", "ok")]
    assert made.steps[1].reasoning_content is None
    assert made.provenance.processing == (
        "1 calls made again with the same result left out",
        "1 thoughts about attempts that are not shown left out",
    )


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        ("{'status': 400, 'title': 'Bad Request', 'traceId': '1'}", "error"),
        ('{"status":"401","msg":"Authentication required"}', "error"),
        ("{'message': 'unknown service'}", "error"),
        ("{'message': 'E-mail sent successfully'}", "ok"),
        ("{'success': False, 'data': []}", "error"),
        ("<html><head><title>403 Forbidden</title></head></html>", "error"),
        ("{'meta': {'code': 200}, 'data': [1]}", "ok"),
        ("[]", "ok"),
        ("plain words", "ok"),
        ("", "unknown"),
    ],
)
def test_services_tell_their_errors_in_their_own_words(tmp_path: Path, response: str, outcome: str) -> None:
    observed = json.dumps({"error": "", "response": response})
    (made,), _ = one(tmp_path, answer(node("Action Input", "", call("find", "{}", 0, FINISH, observed=observed))))
    assert calls(made)[0] == ("find", outcome)


def test_an_answer_that_holds_the_word_error_is_no_error_for_that(tmp_path: Path) -> None:
    for response, outcome in (("{'result': [{'overview': 'trial and error'}]}", "unknown"), ("{'code': 500}", "error")):
        observed = json.dumps({"error": "Message error...", "response": response})
        (made,), _ = one(tmp_path, answer(node("Action Input", "", call("find", "{}", 0, FINISH, observed=observed))))
        assert calls(made)[0] == ("find", outcome)


def test_the_description_of_a_tool_without_what_was_written_around_it(tmp_path: Path) -> None:
    around = 'This is the subfunction for tool "seo", you can use this tool.'
    told = [around + 'The description of this function is: "Finds "all" of it."', around]
    functions = [{"name": str(number), "description": text} for number, text in enumerate(told)]
    (made,), _ = one(tmp_path, answer(node("Action Input", "", call("0", "{}", 0, FINISH)), function=functions))
    assert [tool.description for tool in made.tools] == ['Finds "all" of it.', ""]


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
    for number in range(30):
        chain = call("find", f'{{"q": "{number}"}}', 0, chain)
    (made,), _ = one(tmp_path, answer(node("Action Input", "", chain)))
    assert len(calls(made)) == 31


def test_apis_of_queries(tmp_path: Path) -> None:
    api = {
        "tool_name": "Zip",
        "api_name": "lookup",
        "api_description": "Looks up.",
        "required_parameters": [{"name": "zip", "type": "NUMBER", "description": "Code", "default": "8000"}],
        "optional_parameters": [{"name": "lang", "type": "STRING", "default": "en"}],
        "template_response": {"city": "str", "list": [{"n": "int", "_list_length": 2}], "was": "NoneType"},
    }
    rows = [
        {"query": "q", "api_list": [api, 3, {"tool_name": "Zip"}, {"tool_name": "a", "api_name": "b"}]},
        {"query": "q"},
    ]
    (made,), counts = one(tmp_path, rows)
    assert made.name == "Zip: lookup" and made.interface == "tool" and made.parameters["required"] == ["zip"]
    assert made.parameters["properties"]["zip"] == {"type": "number", "description": "Code", "examples": [8000]}
    assert made.parameters["properties"]["lang"]["default"] == "en"
    assert made.returns["properties"]["list"]["items"]["properties"] == {"n": {"type": "integer"}}
    assert made.returns["properties"]["was"] == {}  # nothing was seen of it
    assert counts == {"malformed API": 2, "nothing described": 1, "query without APIs": 1}


def test_defaults_have_their_types_and_errors_are_no_results(tmp_path: Path) -> None:
    optional = [("BOOLEAN", "true"), ("NUMBER", "2.5"), ("NUMBER", "many"), ("STRING", "7")]
    api = {
        "tool_name": "Zip",
        "api_name": "lookup",
        "api_description": "Looks up.",
        "optional_parameters": [{"name": kind + text, "type": kind, "default": text} for kind, text in optional],
        "template_response": {"statusCode": "int", "message": "str", "error": "str"},
    }
    (made,), _ = one(tmp_path, [{"query": "q", "api_list": [api]}])
    defaults = [schema.get("default") for schema in made.parameters["properties"].values()]
    assert defaults == [True, 2.5, None, "7"] and made.returns is None


def test_real_files() -> None:
    records, quarantine = read("toolbench", real("toolbench"))
    trajectories = [record for record in records if isinstance(record, Trajectory)]
    assert len(trajectories) == 14 and sum(t.success is True for t in trajectories) == 9
    assert sum(isinstance(record, ApiDoc) for record in records) == 47
    assert quarantine.counts == {"nothing described": 17, "malformed tree": 1, "query without APIs": 1}
    assert any(outcome == "corrected" for t in trajectories for _, outcome in calls(t))
