"""Readers of conversations whose form is known from published schemas: ShareGPT, xLAM, Glaive, CodeAct, OpenAI."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from source_reading import read, read_rows

from hephaestus_jax.formats.records import ApiAction, CodeAction, MessageAction, TextObservation

TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}


# ShareGPT


def test_agent_instruct_turns_that_are_not_learnt(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "loss": None, "value": "You are"},
        {"from": "gpt", "loss": False, "value": "Ok."},
        {"from": "human", "loss": None, "value": "ls"},
        {"from": "gpt", "loss": True, "value": "Act: bash"},
    ]
    (made,), _ = read_rows("sharegpt", tmp_path, {"id": "os_0", "conversations": turns})
    assert [step.outcome for step in made.steps if isinstance(step, MessageAction)] == ["error", "unknown"]
    assert made.name == "os_0" and made.provenance.licence == "unknown"


def test_calls_in_text_and_results_in_order(tmp_path: Path) -> None:
    said = (
        "<think>hm</think>I look.\n<tool_call>{'name': 'f', 'arguments': {'a': 1}}</tool_call><tool_call>\n"
        + json.dumps({"name": "f", "arguments": '{"a": 2}'})
    )
    turns = [
        {"from": "system", "value": "S"},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": said},
        {"from": "tool", "value": "<tool_response>one</tool_response><tool_response>two</tool_response>"},
        {"from": "gpt", "value": "done"},
    ]
    row = {"conversations": turns, "tools": json.dumps([TOOL]), "licence": "MIT", "category": "x"}
    (made,), quarantine = read_rows("sharegpt", tmp_path, row)
    first, second = made.steps[1:3]
    assert first.kwargs == {"a": 1} and first.description == "I look." and first.reasoning_content == "hm"
    assert second.kwargs == {"a": 2} and made.system == "S" and made.details == {"category": "x"}
    assert [(s.content, s.tool_call_id) for s in made.steps[3:5]] == [
        ("one", first.tool_call_id),
        ("two", second.tool_call_id),
    ]
    assert made.provenance.licence == "MIT" and not quarantine


def test_malformed_conversations(tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": None}]},
        {"conversations": [{"from": "martian", "value": "x"}]},
        {"conversations": [{"from": "human", "value": "alone"}]},
        {"conversations": [{"from": "gpt", "value": "<tool_call>{broken</tool_call>"}]},
        {"conversations": [{"from": "function_call", "value": '{"arguments": {}}'}]},
        {"conversations": [{"from": "gpt", "value": "x"}], "tools": "[{]"},
    ]
    records, quarantine = read_rows("sharegpt", tmp_path, *rows)
    assert records == [] and quarantine.counts == {"malformed conversation": 6}


# xLAM


def xlam(**more: object) -> dict[str, object]:
    tools = [{"name": "f", "description": "d", "parameters": {"a": {"type": "int"}, "b": {"type": "str, optional"}}}]
    row = {
        "id": 1,
        "query": "q",
        "tools": json.dumps(tools),
        "answers": json.dumps([{"name": "f", "arguments": {"a": 1}}]),
    }
    return {**row, **more}


def test_xlam_rows(tmp_path: Path) -> None:
    two = json.dumps([{"name": "f", "arguments": {"a": "x"}}, {"name": "g", "arguments": "{}"}])
    (good, odd), quarantine = read_rows(
        "xlam", tmp_path, xlam(), xlam(answers=two), xlam(answers="[{"), xlam(query=None)
    )
    assert good.tools[0].parameters["required"] == ["a"] and good.provenance.licence == "CC-BY-4.0"
    assert good.steps[1].kwargs == {"a": 1} and not good.provenance.processing
    assert len(odd.provenance.processing) == 2 and quarantine.counts == {"malformed row": 2}


def test_apigen_mt_and_every_kind_of_file(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
        {"from": "observation", "value": '{"ok": true}'},
        {"from": "gpt", "value": "done"},
    ]
    row = {"conversations": turns, "tools": json.dumps([TOOL]), "system": "policy"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    (tmp_path / "c.json").write_text(json.dumps([row]))
    (tmp_path / "d.json").write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n{broken\n")
    (tmp_path / "e.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "f.jsonl.gz").write_bytes(b"\x1f\x8b no")
    records, quarantine = read("xlam", tmp_path)
    assert len(records) == 5 and len({json.dumps([repr(s) for s in r.steps]) for r in records}) == 1
    assert records[0].provenance.licence == "CC-BY-NC-4.0" and records[0].system == "policy"
    assert quarantine.counts == {"unreadable file": 2, "malformed JSON": 1}


# Glaive


def test_glaive(tmp_path: Path) -> None:
    prompt = (
        "SYSTEM: You have functions. Use them if required -\n"
        + json.dumps(TOOL, indent=1)
        + "\n\n"
        + json.dumps({**TOOL, "name": "g"})
    )
    chat = (
        'USER: A: what\'s 1?\n\n\nASSISTANT: Wait <functioncall> {"name": "f", "arguments": \'{"a": 1}\'} <|endoftext|>'
        '\n\n\nFUNCTION RESPONSE: {"r": 2}\n\n\nASSISTANT: It is 2. <|endoftext|>\n\n\n'
    )
    (made,), _ = read_rows("glaive", tmp_path, {"system": prompt, "chat": chat})
    assert [tool.name for tool in made.tools] == [
        "f",
        "g",
    ] and made.system == "You have functions. Use them if required -"
    user, call, result, said = made.steps
    assert user == TextObservation("A: what's 1?", "user") and call.kwargs == {"a": 1} and call.description == "Wait"
    assert result.content == '{"r": 2}' and result.tool_call_id == call.tool_call_id and said.content == "It is 2."


def test_glaive_rows_with_broken_calls_are_set_aside(tmp_path: Path) -> None:
    rows = [
        {"system": "", "chat": 'ASSISTANT: <functioncall> {"name": "f", "arguments": \'{"a": \'}'},
        {"system": "", "chat": 'ASSISTANT: <functioncall> {"name": "f", "arguments": {}} and then words'},
        {"system": "", "chat": "no author"},
        {"system": "has functions {broken", "chat": "USER: x"},
    ]
    records, quarantine = read_rows("glaive", tmp_path, *rows)
    assert records == [] and quarantine.counts == {"malformed dialogue": 4}


# CodeAct


def test_codeact(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "task"},
        {"role": "assistant", "content": "<thought>t</thought>Run\n<execute>\nif x:\n    y\n</execute>"},
        {"role": "user", "content": "Observation:\nTraceback (most recent call last):\nNameError: x"},
        {"role": "assistant", "content": "<execute>print(1)</execute>"},
        {"role": "user", "content": "Observation:\n1"},
        {"role": "assistant", "content": "<solution>1</solution>"},
    ]
    bad = [{"conversations": [turns[1]]}, {"conversations": [{"role": "assistant", "content": "<execute> open"}]}]
    (made,), quarantine = read_rows("codeact", tmp_path, {"id": "c", "conversations": turns}, *bad)
    codes = [step for step in made.steps if isinstance(step, CodeAction)]
    assert [(c.content, c.outcome) for c in codes] == [("if x:\n    y", "error"), ("print(1)", "unknown")]
    assert codes[0].reasoning_content == "t" and codes[0].description == "Run" and made.code_languages == ("python",)
    assert made.steps[4].content == "1" and made.steps[4].source == "environment"
    assert made.steps[4].tool_call_id == codes[1].tool_call_id and made.steps[-1].content == "<solution>1</solution>"
    assert quarantine.counts == {"malformed conversation": 2}


# OpenAI


def test_openai_messages(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{'a': 1}"}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "r"},
    ]
    bad = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
    ]
    anthropic = [{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}]
    rows = [
        {
            "messages": messages,
            "tools": [{"type": "function", "function": TOOL}],
            "success": True,
            "reward": 1,
            "license": "MIT",
        },
        {"messages": json.dumps(messages), "tools": anthropic},
        {"messages": bad},
        {"messages": [{"role": "boss", "content": "x"}]},
    ]
    (first, second), quarantine = read_rows("openai_messages", tmp_path, *rows)
    assert isinstance(first.steps[1], ApiAction) and first.steps[1].kwargs == {"a": 1}
    assert (first.success, first.reward, first.provenance.licence) == (True, 1.0, "MIT")
    assert second.provenance.processing == ("1 calls contradict the schema of their tool",)
    assert quarantine.counts == {"malformed messages": 2}


def test_texts_made_to_harm_take_linear_time(tmp_path: Path) -> None:
    turns = [{"from": "gpt", "value": "<tool_call>" * 20_000}, {"from": "tool", "value": "<tool_response>" * 50_000}]
    rows = [{"conversations": turns[::-1]}, {"conversations": [{"from": "gpt", "value": "x"}, turns[1]]}]
    records, quarantine = read_rows("sharegpt", tmp_path, *rows, file="a.jsonl")
    assert len(records) == 1 and quarantine.total == 1
    code = {"conversations": [{"role": "assistant", "content": "<thought>" * 50_000}]}
    (tmp_path / "a.jsonl").unlink()
    assert len(read_rows("codeact", tmp_path, code)[0]) == 1
    chat = {"system": "", "chat": "USER: x" + "\n" * 300_000 + " " * 300_000 + "y"}
    assert len(read_rows("glaive", tmp_path, chat)[0]) == 1
