"""Schema-Guided Dialogue (Rastogi et al., arXiv 1909.05855): multi-turn dialogues over services, with their schemas.

The methods of the dialogue's services are the tools; `service_call` and `service_results` of the system's turns are
calls and what they gave. All values are strings, as in the data. Its people live on one day, which the system prompt
tells: dates in calls are reckoned from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import checked
from hephaestus_jax.forge.tool_data.json_values import list_of, object_of, parse_json
from hephaestus_jax.forge.tool_data.rows import objects
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    Json,
    MessageAction,
    Outcome,
    Record,
    Step,
    TextObservation,
    Tool,
    Trajectory,
)

LICENCE = "CC-BY-SA-4.0"
HOST = "github.com/google-research-datasets/dstc8-schema-guided-dialogue"
TODAY = "2019-03-01"  # of every dialogue, a Friday
_OUTCOMES: dict[str, Outcome] = {"NOTIFY_SUCCESS": "ok", "NOTIFY_FAILURE": "error"}


@source("schema_guided_dialogue", files="**/*.json")
def read_schema_guided_dialogue(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Schema-Guided Dialogue: dialogues as trajectories, the services' methods as API documentation."""
    services: dict[str, dict[str, Tool]] | None = None
    for where, row in objects(file, quarantine):
        try:
            if "intents" in row:
                yield from _docs(row, file, where)
            elif "turns" in row:
                if services is None:
                    services = _services(file, quarantine)
                yield _dialogue(row, services, file, where)
            else:
                quarantine.add("unknown form", file.place(where), f"keys {', '.join(sorted(row)[:8])}")
        except ValueError as error:
            kind = "malformed service" if "intents" in row else "malformed dialogue"
            quarantine.add(kind, file.place(where), str(error))


# Services.


def _services(file: SourceFile, quarantine: Quarantine) -> dict[str, dict[str, Tool]]:
    """The tools of every service, by service and method, from the schema beside the dialogues."""
    beside = file.sibling("schema.json")
    text = beside.text(quarantine) if beside else None
    if text is None:
        quarantine.add("no schema", file.place(), "schema.json is not beside the dialogues: no tools are on offer")
        return {}
    return _tools_of(text)


@lru_cache(maxsize=4)
def _tools_of(schema: str) -> dict[str, dict[str, Tool]]:
    found: dict[str, dict[str, Tool]] = {}
    try:
        stated = list_of(parse_json(schema), "schema.json")
    except ValueError:
        return {}  # its own reading tells what is wrong with it
    for service in stated:
        try:
            methods = {method: tool for method, tool, _ in _methods(service)}
            found[str(service["service_name"])] = methods
        except (ValueError, TypeError):
            continue  # its own reading tells
    return found


def _methods(service: Json) -> Iterator[tuple[str, Tool, Mapping[str, Json]]]:
    """Each method of a service: its name, the tool, and the intent that states it."""
    fields = object_of(service, "service")
    slots = {}
    for slot in list_of(fields.get("slots"), "slots"):
        stated = object_of(slot, "slot")
        if not isinstance(stated.get("name"), str):
            raise ValueError("slots: a slot has a name")
        slots[stated["name"]] = stated
    for intent in list_of(fields.get("intents"), "intents"):
        stated = object_of(intent, "intent")
        name, service_name = stated.get("name"), fields.get("service_name")
        if not isinstance(name, str) or not isinstance(service_name, str):
            raise ValueError("a service and each of its intents have a name")
        required = [s for s in list_of(stated.get("required_slots"), "required_slots") if isinstance(s, str)]
        optional = object_of(stated.get("optional_slots"), "optional_slots")
        properties = {slot: _slot(slots.get(slot, {})) for slot in [*required, *optional]}
        for slot, default in optional.items():
            if isinstance(default, str) and default:
                properties[slot]["default"] = default
        schema: dict[str, Json] = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        yield name, Tool(f"{service_name}.{name}", str(stated.get("description") or ""), schema), stated


def _slot(stated: Mapping[str, Json], result: bool = False) -> dict[str, Json]:
    """The schema of a slot; results tell nobody's wishes."""
    made: dict[str, Json] = {"type": "string"}
    if isinstance(text := stated.get("description"), str) and text:
        made["description"] = text
    values = stated.get("possible_values")
    if stated.get("is_categorical") is True and isinstance(values, list) and values:
        made["enum"] = [*values, *(["dontcare"] if "dontcare" not in values and not result else [])]
    return made


def _docs(service: Mapping[str, Json], file: SourceFile, where: str) -> Iterator[ApiDoc]:
    slots = {slot.get("name"): slot for slot in list_of(service.get("slots"), "slots") if isinstance(slot, Mapping)}
    for name, tool, intent in _methods(service):
        about = str(service.get("description") or "").strip()
        results = [s for s in list_of(intent.get("result_slots"), "result_slots") if isinstance(s, str)]
        kept = "It changes something for the user: confirm first." if intent.get("is_transactional") is True else ""
        told = ". ".join(part.rstrip(". ") for part in (tool.description, about and f"Service: {about}") if part)
        fields = {slot: _slot(slots.get(slot) or {}, result=True) for slot in results}
        yield ApiDoc(
            name=tool.name,
            provider=str(service["service_name"]),
            description=" ".join(filter(None, [told + "." if told else "", kept])),
            provenance=file.provenance(f"{where}.{name}", LICENCE, HOST),
            parameters=tool.parameters,
            returns={"type": "array", "items": {"type": "object", "properties": fields}} if fields else None,
            interface="tool",
            function=name,
        )


# Dialogues.


def _dialogue(
    row: Mapping[str, Json], services: Mapping[str, Mapping[str, Tool]], file: SourceFile, where: str
) -> Trajectory:
    names = [name for name in list_of(row.get("services"), "services") if isinstance(name, str)]
    tools = tuple(tool for name in names for tool in services.get(name, {}).values())
    steps: list[Step] = []
    for index, turn in enumerate(list_of(row.get("turns"), "turns")):
        stated = object_of(turn, f"turns[{index}]")
        speaker, text = stated.get("speaker"), stated.get("utterance")
        if speaker not in ("USER", "SYSTEM") or not isinstance(text, str):
            raise ValueError(f"turns[{index}]: a turn has a speaker (USER, SYSTEM) and an utterance")
        if speaker == "USER":
            steps.append(TextObservation(text, "user"))
            continue
        for frame in list_of(stated.get("frames"), "frames"):
            steps += _call(object_of(frame, "frame"), len(steps))
        steps.append(MessageAction(text))
    if not steps:
        raise ValueError("turns: a dialogue without turns")
    identifier = row.get("dialogue_id")
    trajectory = Trajectory(
        tuple(steps),
        file.provenance(where, LICENCE, HOST),
        tools=tools,
        system=f"Today is Friday, {TODAY}.",
        name=identifier if isinstance(identifier, str) else "",
        details={"services": names},
    )
    return checked(trajectory)


def _call(frame: Mapping[str, Json], number: int) -> list[Step]:
    if frame.get("service_call") is None:
        return []
    call = object_of(frame["service_call"], "service_call")
    method, service = call.get("method"), frame.get("service")
    if not isinstance(method, str) or not isinstance(service, str):
        raise ValueError("service_call: a call names its method, its frame the service")
    acts = [act.get("act") for act in list_of(frame.get("actions"), "actions") if isinstance(act, Mapping)]
    outcome: Outcome = next((_OUTCOMES[act] for act in acts if isinstance(act, str) and act in _OUTCOMES), "unknown")
    results = frame.get("service_results")
    if outcome == "unknown" and results:
        outcome = "ok"  # a search that found something
    call_id = f"call_{number:06d}"
    action = ApiAction(f"{service}.{method}", object_of(call.get("parameters")), tool_call_id=call_id, outcome=outcome)
    told = json.dumps(results if results is not None else [], ensure_ascii=False)
    return [action, TextObservation(told, "environment", tool_call_id=call_id)]
