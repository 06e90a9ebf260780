"""API-Bank (Li et al., arXiv 2304.08244): dialogues of users with an assistant that calls APIs, levels 1 and 2.

A file is one dialogue, a turn per line. The data set describes its APIs in its own program, not in these files: tools
on offer are made of what the dialogue calls, which `provenance.processing` says, so that their parameters are known by
name and type of value only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import noted
from hephaestus_jax.forge.tool_data.json_values import object_of
from hephaestus_jax.forge.tool_data.rows import objects
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import (
    ApiAction,
    Json,
    MessageAction,
    Outcome,
    Record,
    Step,
    TextObservation,
    Tool,
    Trajectory,
)

LICENCE = "MIT"
HOST = "github.com/AlibabaResearch/DAMO-ConvAI"
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@source("api_bank", files=("**/*.jsonl", "**/*.jsonl.gz"))
def read_api_bank(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """API-Bank dialogues with API calls and their results."""
    before = quarantine.total
    steps: list[Step] = []
    for where, turn in objects(file, quarantine):
        try:
            steps += _turn(turn, len(steps))
        except ValueError as error:
            quarantine.add("malformed turn", file.place(where), str(error))
    if quarantine.total > before:  # a dialogue with a hole in it makes no sense
        quarantine.add("dialogue with a bad turn", file.place(), "left out as a whole")
    elif not any(isinstance(step, ApiAction) for step in steps):
        quarantine.add("no call" if steps else "empty file", file.place(), "a dialogue without any API call")
    else:
        yield _trajectory(steps, file)


def _trajectory(steps: list[Step], file: SourceFile) -> Trajectory:
    name = file.path.rsplit("/", 1)[-1].partition(".")[0]
    provenance = noted(file.provenance("", LICENCE, HOST), "tools on offer made of the calls")
    return Trajectory(tuple(_mended(steps)), provenance, tools=_tools(steps), name=name)


def _turn(turn: Mapping[str, Json], number: int) -> list[Step]:
    role = turn.get("role")
    if role in ("User", "AI"):
        text = turn.get("text")
        if not isinstance(text, str):
            raise ValueError(f"text of a turn is a string, found {type(text).__name__}")
        return [TextObservation(text, "user") if role == "User" else MessageAction(text)]
    if role != "API":
        raise ValueError(f"role {role!r} is none of User, AI, API")
    name = turn.get("api_name")
    if not isinstance(name, str) or not name:
        raise ValueError("api_name: a call names its API")
    result = turn.get("result")
    call_id = f"call_{number:06d}"
    call = ApiAction(
        name, object_of(turn.get("param_dict"), "param_dict"), tool_call_id=call_id, outcome=_outcome(result)
    )
    return [call, TextObservation(_told(result), "environment", tool_call_id=call_id)]


def _outcome(result: Json) -> Outcome:
    if not isinstance(result, Mapping) or "exception" not in result:
        return "unknown"
    return "error" if result["exception"] else "ok"


def _told(result: Json) -> str:
    """What came back: the output, or the exception; the repetition of the call is left out."""
    if isinstance(result, Mapping) and "output" in result:
        told = {key: result[key] for key in ("output", "exception") if result.get(key) is not None}
        return json.dumps(told or {"output": None}, ensure_ascii=False)
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _mended(steps: list[Step]) -> Iterator[Step]:
    """A call that succeeds after the same API failed corrects it."""
    failed: set[str] = set()
    for step in steps:
        if isinstance(step, ApiAction):
            if step.outcome == "ok" and step.function in failed:
                step = replace(step, outcome="corrected")
                failed.discard(step.function)
            elif step.outcome == "error":
                failed.add(step.function)
        yield step


def _tools(steps: list[Step]) -> tuple[Tool, ...]:
    """A tool for each API that is called: parameters of all its calls, required where every call has them."""
    calls: dict[str, list[Mapping[str, Json]]] = {}
    for step in steps:
        if isinstance(step, ApiAction):
            calls.setdefault(step.function, []).append(step.kwargs)
    return tuple(Tool(name, "", _schema(calls[name])) for name in sorted(calls))


def _schema(calls: list[Mapping[str, Json]]) -> dict[str, Json]:
    kinds: dict[str, list[str]] = {}
    for arguments in calls:
        for name, value in arguments.items():
            kind = _TYPES.get(type(value), "null")
            if kind not in kinds.setdefault(name, []):
                kinds[name].append(kind)
    properties = {name: {"type": found[0] if len(found) == 1 else found} for name, found in kinds.items()}
    required = [name for name in kinds if all(name in arguments for arguments in calls)]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}
