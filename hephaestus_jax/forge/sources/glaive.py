"""Glaive's function-calling data, version 2: the functions stand in the system prompt, the dialogue is one text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import checked
from hephaestus_jax.forge.tool_data.json_values import first_value
from hephaestus_jax.forge.tool_data.rows import PATTERNS, objects, stated_licence
from hephaestus_jax.forge.tool_data.tool_schemas import tool_of
from hephaestus_jax.forge.tool_data.turns import Steps, calls_of
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json, Provenance, Record, Tool, Trajectory

LICENCE = "Apache-2.0"
HOST = "huggingface.co/datasets/glaiveai/glaive-function-calling-v2"
_TURN = re.compile(r"^[ \t]*(USER|ASSISTANT|FUNCTION RESPONSE):[ \t]*", re.MULTILINE)
_END = "<|endoftext|>"
_CALL = "<functioncall>"
_FUNCTIONS = re.compile(r"[\[{]")
_BETWEEN = re.compile(r"[\s,]*")


@source("glaive", files=PATTERNS)
def read_glaive(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Glaive function-calling v2: dialogues with <functioncall> and FUNCTION RESPONSE."""
    for where, row in objects(file, quarantine):
        try:
            yield _trajectory(row, file.provenance(where, stated_licence(row) or LICENCE, HOST))
        except ValueError as error:
            quarantine.add("malformed dialogue", file.place(where), str(error))


def _trajectory(row: Mapping[str, Json], provenance: Provenance) -> Trajectory:
    stated, chat = row.get("system") or "", row.get("chat")
    if not isinstance(stated, str) or not isinstance(chat, str):
        raise ValueError("system and chat: expected text")
    system, tools = _system(stated)
    made = Steps()
    parts = _TURN.split(chat)
    if parts[0].strip():
        raise ValueError("chat: it does not begin with USER: or ASSISTANT:")
    for author, text in zip(parts[1::2], parts[2::2], strict=True):
        text = text.replace(_END, "").strip()
        if author == "USER":
            made.said_by_user(text)
        elif author == "FUNCTION RESPONSE":
            made.answered(text)
        elif _CALL in text:
            made.called(_calls(text), text.partition(_CALL)[0].strip())
        elif text:
            made.said(text)
    if not made.steps:
        raise ValueError("chat: no turn")
    return checked(Trajectory(tuple(made.steps), provenance, tools=tools, system=system))


def _calls(text: str) -> list[tuple[str, dict[str, Json]]]:
    """The calls of a turn; what follows a call other than white space would be lost, and is refused."""
    calls = []
    for written in text.split(_CALL)[1:]:
        begin = len(written) - len(written.lstrip())
        value, end = first_value(written, begin)
        if written[end:].strip():
            raise ValueError(f"after a call stands {written[end:].strip()[:80]!r}")
        calls += calls_of(value)
    return calls


def _system(text: str) -> tuple[str, tuple[Tool, ...]]:
    """The prompt before the functions, and the functions, which are JSON one after the other."""
    text = text.strip().removeprefix("SYSTEM:").strip()
    found = _FUNCTIONS.search(text)
    if not found or "function" not in text[: found.start()].lower():
        return text, ()
    tools: list[Tool] = []
    position = found.start()
    while position < len(text):
        value, position = first_value(text, position)
        tools += [tool_of(tool) for tool in (value if isinstance(value, list) else [value])]
        between = _BETWEEN.match(text, position)
        position = between.end() if between else position
    return text[: found.start()].strip(), tuple(tools)
