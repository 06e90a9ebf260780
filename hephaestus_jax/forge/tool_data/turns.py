"""Conversations as lists of {"from", "value"}, the form of ShareGPT, AgentInstruct, APIGen-MT and Hermes's calls.

Calls stand in turns of their own (`function_call`), or within an assistant's text as `<tool_call>{…}</tool_call>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hephaestus_jax.forge.tool_data.checked import checked
from hephaestus_jax.forge.tool_data.json_values import list_of, object_of, parse_loose
from hephaestus_jax.forge.tool_data.tool_schemas import tool_of
from hephaestus_jax.formats.records import (
    ApiAction,
    Json,
    MessageAction,
    Outcome,
    Provenance,
    Step,
    TextObservation,
    Tool,
    Trajectory,
)

_ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model", "agent"), "agent"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "environment"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
    "system": "system",
}
_TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_THOUGHT = re.compile(r"\A\s*<(think|thought|scratch_pad)>(.*?)</\1>", re.DOTALL)
# A tag that opens again before it closes ends the search at once: no text takes more than linear time.
_RESPONSES = re.compile(r"<tool_response>([^<]*(?:<(?!/?tool_response>)[^<]*)*)</tool_response>")
_ROW_KEYS = {"conversations", "conversation", "tools", "system", "id", "licence", "license", "success", "reward"}


def tools_of(stated: Json) -> tuple[Tool, ...]:
    """The tools that a row lists, perhaps as a string of JSON.

    Raises:
        ValueError: it is no list of tools with names.
    """
    return tuple(tool_of(tool) for tool in list_of(stated, "tools"))


def calls_of(stated: Json) -> list[tuple[str, dict[str, Json]]]:
    """Name and arguments of each call of a value, perhaps a string of JSON: one call, or a list of them.

    Raises:
        ValueError: a call has no name, or its arguments are no object.
    """
    if isinstance(stated, str):
        stated = parse_loose(stated)
    found = []
    for call in stated if isinstance(stated, list) else [stated]:
        if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
            call = call["function"]
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str) or not call["name"].strip():
            raise ValueError("a call is an object with a name")
        arguments = next((call[k] for k in ("arguments", "parameters", "args") if call.get(k) is not None), None)
        found.append((call["name"].strip(), object_of(arguments)))
    return found


@dataclass
class Steps:
    """Steps of a conversation as they come; results answer the oldest call that is still open."""

    steps: list[Step] = field(default_factory=list)
    open_calls: list[str] = field(default_factory=list)
    made: int = 0

    def said_by_user(self, text: str) -> None:
        """A turn of the user."""
        self.steps.append(TextObservation(text, "user"))

    def said(self, text: str, outcome: Outcome = "unknown") -> None:
        """A turn of the agent, calls in `<tool_call>` among its text."""
        thought = _THOUGHT.match(text)
        rest = text[thought.end() :] if thought else text
        reasoning = thought[2].strip() or None if thought else None
        written = [match[1] for match in _TOOL_CALL.finditer(rest)]
        if not written:
            told = rest.strip() if thought else text
            self.steps.append(MessageAction(told, reasoning_content=reasoning, outcome=outcome))
            return
        told = _TOOL_CALL.sub("", rest).strip()
        calls = [call for part in written for call in calls_of(part.strip())]
        self.called(calls, told, reasoning, outcome)

    def called(
        self,
        calls: list[tuple[str, dict[str, Json]]],
        told: str = "",
        reasoning: str | None = None,
        outcome: Outcome = "unknown",
    ) -> None:
        """Calls made together; what was said beside them goes with the first."""
        for index, (name, arguments) in enumerate(calls):
            call_id = f"call_{self.made:06d}"
            self.made += 1
            self.open_calls.append(call_id)
            first = index == 0
            self.steps.append(
                ApiAction(
                    name,
                    arguments,
                    description=(told or None) if first else None,
                    reasoning_content=reasoning if first else None,
                    tool_call_id=call_id,
                    outcome=outcome,
                )
            )

    def answered(self, text: str) -> None:
        """What came back from one or, in `<tool_response>` each or as a list of as many, from several calls."""
        for part in self._parts(text):
            call_id = self.open_calls.pop(0) if self.open_calls else None
            self.steps.append(TextObservation(part, "environment", tool_call_id=call_id))

    def _parts(self, text: str) -> list[str]:
        tagged = [part.strip() for part in _RESPONSES.findall(text)]
        if tagged:
            return tagged
        if len(self.open_calls) > 1:
            try:
                listed = json.loads(text)
            except (ValueError, RecursionError):
                return [text]
            if isinstance(listed, list) and len(listed) == len(self.open_calls):
                return [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in listed]
        return [text]


def trajectory_of_turns(row: Mapping[str, Json], provenance: Provenance) -> Trajectory:
    """Reads `{"conversations": [{"from", "value"}], "tools"?, "system"?, "id"?}`; {"role", "content"} is read too.

    A turn's `loss: false` (or `weight: 0`) becomes the outcome "error", which no loss is taken on. What a trajectory
    has no field for goes to its details.

    Raises:
        ValueError: a turn or a call is malformed.
    """
    made = Steps()
    system = [row["system"]] if isinstance(row.get("system"), str) and row["system"].strip() else []
    stated = row.get("conversations") if row.get("conversations") is not None else row.get("conversation")
    for role, text, outcome in _turns(stated):
        if role == "system" and not made.steps:
            system.append(text)
        elif role in ("user", "system"):
            made.said_by_user(text)
        elif role == "environment":
            made.answered(text)
        elif role == "call":
            made.called(calls_of(text), outcome=outcome)
        else:
            made.said(text, outcome)
    if not any(isinstance(step, ApiAction | MessageAction) for step in made.steps):
        raise ValueError("conversations: the assistant says nothing")
    identifier, success, reward = row.get("id"), row.get("success"), row.get("reward")
    trajectory = Trajectory(
        tuple(made.steps),
        provenance,
        tools=tools_of(row.get("tools")),
        system="\n\n".join(system),
        success=success if isinstance(success, bool) else None,
        reward=float(reward) if isinstance(reward, int | float) and not isinstance(reward, bool) else None,
        name=str(identifier) if isinstance(identifier, str | int) else "",
        details={key: value for key, value in row.items() if key not in _ROW_KEYS and value is not None},
    )
    return checked(trajectory)


def _turns(stated: Json) -> Iterator[tuple[str, str, Outcome]]:
    for index, turn in enumerate(list_of(stated, "conversations")):
        if not isinstance(turn, Mapping):
            raise ValueError(f"conversations[{index}]: expected an object, found {type(turn).__name__}")
        author = turn.get("from") if turn.get("from") is not None else turn.get("role")
        text = turn.get("value") if turn.get("value") is not None else turn.get("content")
        role = _ROLES.get(author.lower()) if isinstance(author, str) else None
        if role is None:
            raise ValueError(f"conversations[{index}]: the author {author!r} is unknown")
        if isinstance(text, Mapping | list) and role in ("call", "environment"):
            text = json.dumps(text, ensure_ascii=False)
        if not isinstance(text, str):
            raise ValueError(f"conversations[{index}]: expected text, found {type(text).__name__}")
        unlearnt = turn.get("loss") is False or (turn.get("weight") == 0 and turn.get("weight") is not False)
        yield role, text, "error" if unlearnt else "unknown"
