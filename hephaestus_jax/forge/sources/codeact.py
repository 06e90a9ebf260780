"""CodeAct (Wang et al., arXiv 2402.01030): agents that act by Python code in <execute> blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.json_values import list_of, object_of
from hephaestus_jax.forge.tool_data.rows import PATTERNS, objects, stated_licence
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import (
    CodeAction,
    Json,
    MessageAction,
    Provenance,
    Record,
    Step,
    TextObservation,
    Trajectory,
)

LICENCE = "Apache-2.0"
HOST = "huggingface.co/datasets/xingyaoww/code-act"
_BLOCK = re.compile(r"<execute>(.*?)(</execute>|\Z)", re.DOTALL)
_THOUGHT = re.compile(r"<thought>([^<]*(?:<(?!/?thought>)[^<]*)*)</thought>")
_OBSERVATION = re.compile(r"\A\s*Observation:[ \t]*\n?")
_ERROR = re.compile(r"^Traceback \(most recent call last\)|^(?:\w+\.)*\w*(?:Error|Exception)\b: ", re.MULTILINE)


@source("codeact", files=PATTERNS)
def read_codeact(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """CodeAct conversations: code in <execute> blocks, what it printed, solutions."""
    for where, row in objects(file, quarantine):
        try:
            yield _trajectory(row, file.provenance(where, stated_licence(row) or LICENCE, HOST))
        except ValueError as error:
            quarantine.add("malformed conversation", file.place(where), str(error))


def _trajectory(row: Mapping[str, Json], provenance: Provenance) -> Trajectory:
    steps: list[Step] = []
    system: list[str] = []
    stated = row.get("conversations") if row.get("conversations") is not None else row.get("messages")
    for index, turn in enumerate(list_of(stated, "conversations")):
        fields = object_of(turn, f"conversations[{index}]")
        role = fields.get("role") or fields.get("from")
        text = fields.get("content") if fields.get("content") is not None else fields.get("value")
        if not isinstance(text, str):
            raise ValueError(f"conversations[{index}]: expected text, found {type(text).__name__}")
        if role == "system":
            system.append(text.strip())
        elif role in ("user", "human"):
            steps.append(_observed(text, steps))
        elif role in ("assistant", "gpt"):
            steps += _acted(text, len(steps))
        else:
            raise ValueError(f"conversations[{index}]: the role {role!r} is unknown")
    if not any(isinstance(step, CodeAction | MessageAction) for step in steps):
        raise ValueError("conversations: the assistant says nothing")
    codes = any(isinstance(step, CodeAction) for step in steps)
    identifier = row.get("id")
    return Trajectory(
        tuple(steps),
        provenance,
        code_languages=("python",) if codes else (),
        system="\n\n".join(system),
        name=identifier if isinstance(identifier, str) else "",
    )


def _observed(text: str, steps: list[Step]) -> TextObservation:
    """The user's turn: after code, what it printed. An exception in it marks the code as wrong."""
    found = _OBSERVATION.match(text)
    last = steps[-1] if steps else None
    if not found or not isinstance(last, CodeAction):
        return TextObservation(text, "user")
    if _ERROR.search(text):
        steps[-1] = replace(last, outcome="error")
    return TextObservation(text[found.end() :].strip(), "environment", tool_call_id=last.tool_call_id)


def _acted(text: str, number: int) -> list[Step]:
    """An assistant's turn: its code blocks, each with the words before it; without code, a message."""
    thoughts = "\n".join(part.strip() for part in _THOUGHT.findall(text)) or None
    text = _THOUGHT.sub("", text).strip()
    steps: list[Step] = []
    begin = 0
    for block in _BLOCK.finditer(text):
        if not block[2]:
            raise ValueError("an <execute> block does not end")
        said = text[begin : block.start()].strip() or None
        steps.append(
            CodeAction(
                "python",
                block[1].strip("\n").rstrip(),
                description=said,
                reasoning_content=None if steps else thoughts,
                tool_call_id=f"call_{number + len(steps):06d}",
            )
        )
        begin = block.end()
    if rest := text[begin:].strip():
        steps.append(MessageAction(rest, reasoning_content=None if steps else thoughts))
    elif not steps:
        steps.append(MessageAction("", reasoning_content=thoughts))
    return steps
