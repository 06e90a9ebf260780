"""Conversations in the form of OpenAI's chat API, with tools; `formats.messages` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import checked
from hephaestus_jax.forge.tool_data.json_values import list_of, object_of
from hephaestus_jax.forge.tool_data.rows import PATTERNS, objects, stated_licence
from hephaestus_jax.forge.tool_data.tool_schemas import tool_of
from hephaestus_jax.formats.messages import trajectory_from_messages
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json, Record, Trajectory


@source("openai_messages", files=PATTERNS)
def read_openai_messages(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Rows of {"messages", "tools"} as OpenAI's chat API has them; licence and success where a row states them."""
    for where, row in objects(file, quarantine):
        try:
            read = trajectory_from_messages(_normal(row), file.provenance(where, stated_licence(row)))
        except (UserError, ValueError) as error:
            quarantine.add("malformed messages", file.place(where), str(error))
            continue
        yield checked(_with_success(read))


def _normal(row: Mapping[str, Json]) -> dict[str, Json]:
    """The row with what people write instead of JSON made JSON: arguments, tools in another list's form."""
    made = dict(row)
    messages = list_of(row.get("messages"), "messages")
    made["messages"] = [_with_arguments(message) if isinstance(message, Mapping) else message for message in messages]
    key = "tools" if row.get("tools") is not None else "functions"
    if row.get(key) is not None:
        made[key] = [_tool(stated) for stated in list_of(row[key], key)]
    return made


def _with_arguments(message: Mapping[str, Json]) -> dict[str, Json]:
    made = dict(message)
    if made.get("tool_calls") is not None:
        made["tool_calls"] = [_call(call) for call in list_of(made["tool_calls"], "tool_calls")]
    if made.get("function_call") is not None:
        made["function_call"] = _call(made["function_call"])
    if made.get("content") is None and made.get("role") in ("system", "user"):
        made["content"] = ""
    return made


def _call(call: Json) -> Json:
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _call(call["function"])}
    return {**call, "arguments": object_of(call.get("arguments"))}


def _tool(stated: Json) -> Json:
    tool = tool_of(stated)
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _with_success(read: Trajectory) -> Trajectory:
    success, reward = read.details.get("success"), read.details.get("reward")
    return replace(
        read,
        success=success if isinstance(success, bool) else None,
        reward=float(reward) if isinstance(reward, int | float) and not isinstance(reward, bool) else None,
    )
