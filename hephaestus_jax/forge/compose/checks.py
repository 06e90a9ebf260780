"""What must hold of a trajectory's calls: they fit their schemas, are answered in order, and rest on what was said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from hephaestus_jax.forge.compose.wording import is_said
from hephaestus_jax.formats.records import (
    ApiAction,
    CodeAction,
    Json,
    Step,
    TextObservation,
    Tool,
    Trajectory,
    canonical_json,
)


def violations(trajectory: Trajectory) -> list[str]:
    """What contradicts the trajectory's own tools and answers; [] if nothing does.

    Every call names one tool on offer and its arguments are declared by and valid against that tool's JSON Schema
    (draft 2020-12); call ids are unique; the calls of one turn are answered by one observation each, in their order
    (those of the last turn may all be unanswered); every link in `details["links"]` names a value that stands in the
    earlier call's output; code is of a language on offer.
    """
    return [*_tools(trajectory), *_calls(trajectory), *_answers(trajectory.steps), *_links(trajectory)]


def underived(trajectory: Trajectory) -> list[str]:
    """Argument values that stand neither in the user's words nor in an earlier observation; [] if there are none.

    A value that is its parameter's default, or the only one that its parameter allows, needs no saying.
    """
    schemas = {tool.name: tool.parameters for tool in trajectory.tools}
    heard: list[str] = []
    found = []
    for step in trajectory.steps:
        if isinstance(step, TextObservation):
            heard.append(step.content)
        elif isinstance(step, ApiAction):
            text = "\n".join(heard)
            found += [
                f"{step.function}: {where} = {value!r} was never said"
                for where, value in unsaid(step.kwargs, schemas.get(step.function, {}), text)
            ]
    return found


def unsaid(arguments: Mapping[str, Json], schema: Mapping[str, Json], text: str) -> list[tuple[str, Json]]:
    """The scalar values of a call, with their places, that `text` does not state and the schema does not imply."""
    properties = schema.get("properties", {})
    return [
        (where, value)
        for name, argument in arguments.items()
        if not _implied(argument, properties.get(name))
        for where, value in _scalars(argument, name)
        if not is_said(value, text)
    ]


def _implied(value: Json, schema: Json) -> bool:
    if not isinstance(schema, Mapping):
        return False
    if "default" in schema and _same(schema["default"], value):
        return True
    return "const" in schema or (isinstance(only := schema.get("enum"), Sequence) and len(only) == 1)


def _same(one: Json, other: Json) -> bool:
    return canonical_json(one) == canonical_json(other)  # unlike ==, tells True from 1


def _scalars(value: Json, where: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _scalars(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _scalars(item, f"{where}[{number}]")
    else:
        yield where, value


# --- schemas ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def _checked(schema: str) -> tuple[Draft202012Validator | None, str]:
    """The validator of a schema given as JSON; None and the reason if it is no valid JSON Schema."""
    parsed = json.loads(schema)
    fault = _fault(parsed)
    return (None, fault) if fault else (Draft202012Validator(parsed), "")


def _fault(schema: Json) -> str:
    """Why a schema is invalid; its properties are looked at one by one, since APIs of one provider share many."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return _fault_of(canonical_json(schema))
    faults = (_fault_of(canonical_json(value)) for value in properties.values())
    return next(filter(None, faults), "") or _fault_of(canonical_json({**schema, "properties": {}}))


@lru_cache(maxsize=65536)
def _fault_of(schema: str) -> str:
    try:
        Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as error:
        return error.message[:200]
    return ""


def schema_fault(schema: Mapping[str, Json]) -> str:
    """Why `schema` is no valid JSON Schema of draft 2020-12; "" if it is one."""
    return _checked(canonical_json(schema))[1]


def argument_faults(arguments: Mapping[str, Json], schema: Mapping[str, Json]) -> list[str]:
    """How the arguments of a call contradict the schema of its parameters; [] if they do not."""
    validator, fault = _checked(canonical_json(schema))
    if validator is None:
        return [f"the schema is invalid: {fault}"]
    faults = [error.message[:200] for error in validator.iter_errors(_plain(arguments))]
    if not schema.get("additionalProperties") and "patternProperties" not in schema:
        faults += [f"{name!r} is no parameter" for name in arguments if name not in schema.get("properties", {})]
    return faults


def _plain(value: Json) -> Json:
    # jsonschema takes neither tuples for arrays nor other mappings for objects
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _tools(trajectory: Trajectory) -> list[str]:
    counts = Counter(tool.name for tool in trajectory.tools)
    found = [f"tool {name!r} is on offer {count} times" for name, count in counts.items() if count > 1]
    for tool in trajectory.tools:
        if fault := schema_fault(tool.parameters):
            found.append(f"tool {tool.name!r}: the schema is invalid: {fault}")
    return found


def _calls(trajectory: Trajectory) -> list[str]:
    tools: dict[str, Tool] = {tool.name: tool for tool in trajectory.tools}
    found = []
    for step in trajectory.steps:
        if isinstance(step, CodeAction) and step.language not in trajectory.code_languages:
            found.append(f"{step.language!r} is no language on offer")
        if not isinstance(step, ApiAction):
            continue
        if step.function not in tools:
            found.append(f"{step.function!r} is no tool on offer")
        else:
            faults = argument_faults(step.kwargs, tools[step.function].parameters)
            found += [f"{step.function}: {fault}" for fault in faults]
    return found


# --- answers and links ------------------------------------------------------------------------------------------------


def _answers(steps: Sequence[Step]) -> list[str]:
    """Faults of call ids and of what answers them."""
    found: list[str] = []
    seen: set[str] = set()
    open_calls: list[str] = []  # ids of the turn's calls that no observation has answered yet, in their order
    answered = 0  # of the turn's calls
    for step in steps:
        if isinstance(step, ApiAction | CodeAction):
            if answered and open_calls:
                found.append(f"call {open_calls[0]!r} is not answered before the next call")
            if answered:
                open_calls, answered = [], 0
            call_id = step.tool_call_id or ""
            if not call_id or call_id in seen:
                found.append(f"call id {call_id!r} is {'used twice' if call_id else 'missing'}")
            seen.add(call_id)
            open_calls.append(call_id)
        elif isinstance(step, TextObservation) and step.source == "environment":
            if not open_calls or step.tool_call_id != open_calls[0]:
                expected = repr(open_calls[0]) if open_calls else "no call"
                found.append(f"an observation answers {step.tool_call_id!r} where {expected} is next")
            open_calls = open_calls[1:]
            answered += 1
        else:  # words of the user or the agent
            if open_calls:
                found.append(f"call {open_calls[0]!r} is not answered before the next words")
            open_calls, answered = [], 0
    if open_calls and answered:
        found.append(f"call {open_calls[0]!r} is not answered")
    return found


def _links(trajectory: Trajectory) -> list[str]:
    links = trajectory.details.get("links", ())
    found = []
    for link in links:
        outputs: dict[str | None, str] = {}  # of the calls before this one
        value = missing = object()
        for step in trajectory.steps:
            if isinstance(step, TextObservation) and step.source == "environment":
                outputs[step.tool_call_id] = step.content
            elif isinstance(step, ApiAction) and step.tool_call_id == link["to"]:
                value = at_path(step.kwargs, link["argument"], missing)
                break
        told = at_path(_parsed(outputs.get(link["from"])), link["path"], missing)
        if value is missing or told is missing or not _same(told, value):
            found.append(f"{link['argument']} of {link['to']} does not stand at {link['path']} of {link['from']}")
    return found


def at_path(value: Json, path: Sequence[str | int], default: Json = None) -> Json:
    """What stands at a path of keys and places; `default` if nothing does."""
    for part in path:
        if isinstance(value, Mapping):
            known = part in value
        else:
            known = isinstance(value, list | tuple) and isinstance(part, int) and 0 <= part < len(value)
        if not known:
            return default
        value = value[part]
    return value


def _parsed(text: str | None) -> Json:
    try:
        return json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return None
