"""Conversations in the form of OpenAI's chat API: `messages`, with `tools`, as trajectories and back.

Reading keeps everything. What a trajectory has no field for (unknown keys of the row, of a message, of a tool) goes to
its `details`. Reading normalises: writing a trajectory and reading it again gives the same trajectory.

* Leading `system` and `developer` messages are the system prompt; later ones are read as a user's text.
* An assistant's `content` beside tool calls becomes the `description` of the first call; `reasoning_content` (also
  called `reasoning` or `thinking`) that of the first action. Calls that follow each other are parallel calls.
* A tool's result answers the open call with its `tool_call_id`, else the oldest open call of its `name`, else the
  oldest open call. Calls and results without an id get one (`call_000001`, …).
* `content` may be a list of parts: runs of text become one step, each image a step of its own. What an assistant says
  in `refusal` instead of `content` is its text.
* `weight: 0` of an assistant's message (OpenAI's "do not train on this") becomes the outcome "error" of its steps.
* `arguments` may be a JSON string or an object; `""` and null stand for no arguments. `function_call` and `functions`,
  the API's earlier names, are read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import (
    Action,
    ApiAction,
    Author,
    CodeAction,
    ImageObservation,
    Json,
    MessageAction,
    Observation,
    Outcome,
    Provenance,
    Step,
    TextObservation,
    Tool,
    Trajectory,
    WebObservation,
)

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_MESSAGE_KEYS = {
    "system": {"role", "content"},
    "developer": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "function_call", "weight", *_REASONING},
    "tool": {"role", "content", "tool_call_id", "name"},
    "function": {"role", "content", "tool_call_id", "name"},
}
_ROW_KEYS = {"messages", "tools", "functions", "id"}
_MADE_UP_ID = re.compile(r"call_\d{6,}")
_SEPARATOR = "\n\n"  # between several leading system messages


def trajectory_from_messages(value: Json, provenance: Provenance) -> Trajectory:
    """Reads `{"messages": [...], "tools": [...]}`; both may also be JSON strings, as they are in many Parquet files.

    Raises:
        UserError: a message is malformed; the message begins with the place, such as `messages[2].tool_calls[0].id`.
    """
    row = _object(value, "the row")
    messages = _list(_decoded(row.get("messages"), "messages"), "messages")
    reader = _Reader(messages)
    for index, message in enumerate(messages):
        reader.read(_object(message, f"messages[{index}]"), f"messages[{index}]")
    if not reader.steps:
        raise UserError("messages: no message of a user, an assistant or a tool; drop the row")
    tools, tool_fields = _tools(row)
    identifier = row.get("id")
    details = {key: item for key, item in row.items() if key not in _ROW_KEYS and item is not None}
    if identifier is not None and not isinstance(identifier, str):
        details["id"] = identifier
    if reader.leftovers:
        details["message_fields"] = reader.leftovers
    if tool_fields:
        details["tool_fields"] = tool_fields
    return Trajectory(
        steps=tuple(reader.steps),
        provenance=provenance,
        tools=tools,
        code_languages=(),
        system=_SEPARATOR.join(reader.system),
        name=identifier if isinstance(identifier, str) else "",
        details=details,
    )


@dataclass
class _Reader:
    """Collects the steps of one conversation and pairs results with calls."""

    messages: list[Json]
    steps: list[Step] = field(default_factory=list)
    system: list[str] = field(default_factory=list)
    leftovers: dict[str, Json] = field(default_factory=dict)  # keys of messages that no step has a field for
    open_calls: list[int] = field(default_factory=list)  # steps whose result is still to come
    unnamed: set[int] = field(default_factory=set)  # steps whose id is made up
    given: int = 0  # ids made up so far

    def read(self, message: Mapping[str, Json], place: str) -> None:
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise UserError(f"{place}.role: {role!r} is none of {', '.join(ROLES)}")
        if role == "assistant" and message.get("refusal") and not message.get("content"):
            message = {**message, "content": message["refusal"], "refusal": None}
        unknown = {k: v for k, v in message.items() if k not in _MESSAGE_KEYS[role] and v is not None}
        if role == "assistant":
            self._act(message, place)
        elif role in ("tool", "function"):
            self._answer(message, place)
        elif role == "user" or self.steps:
            if role != "user":
                unknown["role"] = role
            self.steps += [_observed(part, "user") for part in _parts(message.get("content"), f"{place}.content")]
        else:
            self.system.append(_text_content(message.get("content"), f"{place}.content"))
        if unknown:
            self.leftovers[place.removeprefix("messages[").removesuffix("]")] = unknown

    def _act(self, message: Mapping[str, Json], place: str) -> None:
        content = message.get("content")
        text = _text_content(content, f"{place}.content") if content is not None else ""
        thought = next((message[key] for key in _REASONING if message.get(key)), None)
        if thought is not None and not isinstance(thought, str):
            raise UserError(f"{place}.reasoning_content: expected a string, found {type(thought).__name__}")
        outcome = _outcome(message, place)
        calls = _calls(message, place)
        if not calls:
            self.steps.append(MessageAction(text, reasoning_content=thought, outcome=outcome))
        for index, (name, arguments, call_id) in enumerate(calls):
            first = index == 0
            self.open_calls.append(len(self.steps))
            if not call_id:
                self.unnamed.add(len(self.steps))
            self.steps.append(
                ApiAction(
                    name,
                    arguments,
                    description=(text or None) if first else None,
                    reasoning_content=thought if first else None,
                    tool_call_id=call_id or self._fresh_id(),
                    outcome=outcome,
                )
            )

    @cached_property
    def _taken(self) -> frozenset[str]:
        """All that looks like a made-up id, anywhere in the messages."""
        return frozenset(_MADE_UP_ID.findall(str(self.messages)))

    def _fresh_id(self) -> str:
        self.given += 1
        while (call_id := f"call_{self.given:06d}") in self._taken:
            self.given += 1
        return call_id

    def _answer(self, message: Mapping[str, Json], place: str) -> None:
        stated = message.get("tool_call_id") or None
        index = self._answered_call(stated, message.get("name"), place)
        self.open_calls.remove(index)
        call = self.steps[index]
        assert isinstance(call, ApiAction)
        if index in self.unnamed and stated:  # the source gave the id to the result only
            call = self.steps[index] = replace(call, tool_call_id=stated)
        parts = _parts(message.get("content") or "", f"{place}.content")
        if len(parts) != 1:
            raise UserError(f"{place}.content: a tool's result is text or one image; split or describe the images")
        self.steps.append(_observed(parts[0], "environment", call.tool_call_id))

    def _answered_call(self, call_id: Json, name: Json, place: str) -> int:
        calls = [(index, call) for index in self.open_calls if isinstance(call := self.steps[index], ApiAction)]
        for index, call in reversed(calls):  # an id that is used again belongs to the latest call
            if call_id and call.tool_call_id == call_id:
                return index
        if call_id:
            calls = [(index, call) for index, call in calls if index in self.unnamed]
        for index, call in calls:
            if name is None or call.function == name:
                return index
        what = f"{call_id!r} is the id of no open call" if call_id else "no open call of this name to answer"
        raise UserError(f"{place}.tool_call_id: {what}; a result comes after the message that calls the tool")


def trajectory_to_messages(trajectory: Trajectory) -> dict[str, Json]:
    """Writes `{"messages": [...], "tools": [...]}`, `id` if the trajectory has a name, and its `details`.

    A code action becomes a call of a tool named after its language with the argument `code`; a page its URL and
    accessibility tree (else HTML); an observation that answers no call a user's message. Rewards, and outcomes other
    than "error", have no place in this form.
    """
    messages: list[dict[str, Json]] = []
    if trajectory.system:
        messages.append({"role": "system", "content": trajectory.system})
    ids = _call_ids(trajectory.steps)
    for index, step in enumerate(trajectory.steps):
        if not isinstance(step, Action):
            messages.append(_written_observation(step, ids.get(index)))
        elif isinstance(step, ApiAction | CodeAction) and index and _parallel(step, trajectory.steps[index - 1]):
            messages[-1]["tool_calls"].append(_written_call(step, ids[index]))
        else:
            messages.append(_written_action(step, ids.get(index)))
    details = {key: item for key, item in trajectory.details.items() if key not in _ROW_KEYS}
    value: dict[str, Json] = {**details, "messages": messages}
    if trajectory.tools:
        value["tools"] = [_written_tool(tool) for tool in trajectory.tools]
    if trajectory.name:
        value["id"] = trajectory.name
    elif "id" in trajectory.details:
        value["id"] = trajectory.details["id"]
    return value


def _call_ids(steps: tuple[Step, ...]) -> dict[int, str]:
    """The id of every call and of its result, by step index; calls without an id get one."""
    taken = {getattr(step, "tool_call_id", None) for step in steps}
    fresh = (call_id for number in count(1) if (call_id := f"call_{number:06d}") not in taken)
    ids: dict[int, str] = {}
    open_calls: list[int] = []
    for index, step in enumerate(steps):
        stated = getattr(step, "tool_call_id", None)
        if isinstance(step, ApiAction | CodeAction):
            ids[index] = stated or next(fresh)
            open_calls.append(index)
        elif not isinstance(step, Action):
            answered = [call for call in open_calls if ids[call] == stated][-1:]
            if not answered and not stated and getattr(step, "source", None) != "user":
                answered = open_calls[:1]
            for call in answered:
                ids[index] = ids[call]
                open_calls.remove(call)
    return ids


def _parallel(step: Action, previous: Step) -> bool:
    """Whether a call is made together with the call before it."""
    if not isinstance(previous, ApiAction | CodeAction):
        return False
    return not step.description and not step.reasoning_content and _weighs(step) == _weighs(previous)


def _weighs(step: Action) -> bool:
    return step.outcome != "error"


def _written_action(step: Action, call_id: str | None) -> dict[str, Json]:
    message: dict[str, Json] = {"role": "assistant", "content": step.description}
    if isinstance(step, MessageAction):
        message["content"] = _SEPARATOR.join(filter(None, [step.description, step.content]))
    else:
        message["tool_calls"] = [_written_call(step, call_id or "")]
    if step.reasoning_content:
        message["reasoning_content"] = step.reasoning_content
    if not _weighs(step):
        message["weight"] = 0
    return message


def _written_call(step: ApiAction | CodeAction, call_id: str) -> dict[str, Json]:
    if isinstance(step, CodeAction):
        step = ApiAction(step.language, {"code": step.content})
    function = {"name": step.function, "arguments": json.dumps(step.kwargs, ensure_ascii=False)}
    return {"id": call_id, "type": "function", "function": function}


def _written_observation(step: Observation, call_id: str | None) -> dict[str, Json]:
    content: Json
    if isinstance(step, TextObservation):
        content = step.content
    elif isinstance(step, WebObservation):
        content = "\n".join(filter(None, [f"URL: {step.url}" if step.url else "", step.axtree or step.html]))
    else:
        content = [{"type": "image_url", "image_url": {"url": step.content}}]
    if call_id:
        return {"role": "tool", "tool_call_id": call_id, "content": content}
    return {"role": "user", "content": content}


def _written_tool(tool: Tool) -> dict[str, Json]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


# The parts of a message.


def _outcome(message: Mapping[str, Json], place: str) -> Outcome:
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or weight not in (None, 0, 1):
        raise UserError(f"{place}.weight: expected 0 or 1, found {weight!r}")
    return "error" if weight == 0 else "unknown"


def _calls(message: Mapping[str, Json], place: str) -> list[tuple[str, Mapping[str, Json], str | None]]:
    """Name, arguments and id of each call of an assistant's message."""
    calls = []
    tool_calls = _decoded(message.get("tool_calls"), f"{place}.tool_calls")
    for index, call in enumerate([] if tool_calls is None else _list(tool_calls, f"{place}.tool_calls")):
        where = f"{place}.tool_calls[{index}]"
        fields = _object(call, where)
        call_id = fields.get("id")
        if call_id is not None and not isinstance(call_id, str):
            raise UserError(f"{where}.id: expected a string, found {type(call_id).__name__}")
        calls.append((*_function(fields.get("function", fields), f"{where}.function"), call_id))
    if message.get("function_call") is not None:
        calls.append((*_function(message["function_call"], f"{place}.function_call"), None))
    return calls


def _function(value: Json, place: str) -> tuple[str, Mapping[str, Json]]:
    fields = _object(value, place)
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        raise UserError(f"{place}.name: expected the name of a function, found {name!r}")
    arguments = _decoded(fields.get("arguments"), f"{place}.arguments")
    return name, {} if arguments is None else _object(arguments, f"{place}.arguments")


@dataclass(frozen=True)
class _Image:
    url: str


def _parts(content: Json, place: str) -> list[str | _Image]:
    """Runs of text and images, in order; at least one."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise UserError(f"{place}: expected text or a list of parts, found {type(content).__name__}")
    parts: list[str | _Image] = []
    for index, part in enumerate(content):
        where = f"{place}[{index}]"
        fields = _object(part, where)
        kind = fields.get("type")
        text = fields.get("refusal" if kind == "refusal" else "text")
        if kind in ("text", "input_text", "output_text", "refusal") and isinstance(text, str):
            if parts and isinstance(parts[-1], str):
                parts[-1] += text
            else:
                parts.append(text)
        elif kind in ("image_url", "input_image", "image") and (url := _image_url(fields)):
            parts.append(_Image(url))
        else:
            raise UserError(f"{where}.type: {kind!r} is no text and no image with a URL; turn it into text or drop it")
    return parts or [""]


def _image_url(part: Mapping[str, Json]) -> str:
    for key in ("image_url", "url", "image"):
        value = part.get(key)
        value = value.get("url") if isinstance(value, Mapping) else value
        if isinstance(value, str) and value:
            return value
    return ""


def _text_content(content: Json, place: str) -> str:
    parts = _parts(content, place)
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    raise UserError(f"{place}: only a user or a tool can show images; turn them into text or drop them")


def _observed(part: str | _Image, source: Author, call_id: str | None = None) -> Observation:
    if isinstance(part, _Image):
        return ImageObservation(part.url, source=source, tool_call_id=call_id)
    return TextObservation(part, source, tool_call_id=call_id)


def _tools(row: Mapping[str, Json]) -> tuple[tuple[Tool, ...], dict[str, Json]]:
    """The tools on offer, and what `Tool` has no field for, by index."""
    key = "tools" if row.get("tools") is not None else "functions"
    value = _decoded(row.get(key), key)
    tools, leftovers = [], {}
    for index, item in enumerate([] if value is None else _list(value, key)):
        place = f"{key}[{index}]"
        outer = _object(item, place)
        fields = _object(outer.get("function", outer), f"{place}.function")
        name, description = fields.get("name"), fields.get("description")
        if not isinstance(name, str) or not isinstance(description, str | None):
            raise UserError(f"{place}: a tool needs a name, and its description is a string")
        parameters = _decoded(fields.get("parameters"), f"{place}.parameters")
        schema = {} if parameters is None else {"parameters": _object(parameters, f"{place}.parameters")}
        tools.append(Tool(name, description or "", **schema))
        known = {"name", "description", "parameters", "type", "function"}
        if unknown := {k: v for k, v in {**outer, **fields}.items() if k not in known and v is not None}:
            leftovers[str(index)] = unknown
    return tuple(tools), leftovers


def _decoded(value: Json, place: str) -> Any:
    """A JSON value that may have been written as a string; the empty string is null."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({error})") from error


def _object(value: Json, place: str) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: expected an object, found {type(value).__name__}")
    return value


def _list(value: Json, place: str) -> list[Json]:
    if not isinstance(value, list):
        raise UserError(f"{place}: expected a list, found {type(value).__name__}")
    return value
