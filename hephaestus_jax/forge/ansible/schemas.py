"""Options and return values of a module as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hephaestus_jax.forge.ansible.markup import paragraphs, sentences
from hephaestus_jax.forge.prose import shortened
from hephaestus_jax.formats.records import Json

DEPTH = 5  # levels of options
MOST_OPTIONS = 400  # of one module; further optional ones are left out
TOP_DESCRIPTION, NESTED_DESCRIPTION = 1000, 300  # characters
_TYPES = {
    "str": "string",
    "string": "string",
    "path": "string",
    "bytes": "string",
    "bits": "string",
    "sid": "string",
    "tmppath": "string",
    "pathspec": "array",
    "pathlist": "array",
    "bool": "boolean",
    "boolean": "boolean",
    "int": "integer",
    "integer": "integer",
    "float": "number",
    "list": "array",
    "dict": "object",
    "dictionary": "object",
    "complex": "object",
}


@dataclass
class Budget:
    """How many options may still be told, and how many were left out."""

    left: int = MOST_OPTIONS
    dropped: int = 0


def options_schema(options: Json, budget: Budget, depth: int = DEPTH) -> dict[str, Json]:
    """The schema of a mapping of options."""
    properties: dict[str, Json] = {}
    required = []
    for name, stated in options.items() if isinstance(options, Mapping) else ():
        fields: Mapping[str, Json] = stated if isinstance(stated, Mapping) else {}
        needed = fields.get("required") is True
        if budget.left <= 0 and not needed:
            budget.dropped += 1
            continue
        budget.left -= 1
        properties[name] = _option(fields, budget, depth)
        if needed:
            required.append(name)
    schema: dict[str, Json] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema


def _option(fields: Mapping[str, Json], budget: Budget, depth: int) -> dict[str, Json]:
    stated = fields.get("type")
    kind = str(stated) if stated is not None else "str"
    made: dict[str, Json] = {"type": _TYPES[kind]} if kind in _TYPES else {}  # raw, json, jsonarg: any value
    inner = fields.get("suboptions") or fields.get("options")
    nested: dict[str, Json] = {}
    if isinstance(inner, Mapping) and inner:
        if depth > 1:
            nested = options_schema(inner, budget, depth - 1)
        else:
            budget.dropped += len(inner)
    choices = fields.get("choices")
    values = list(choices) if isinstance(choices, list | Mapping) else []
    if made.get("type") == "array":
        elements = fields.get("elements")
        items: dict[str, Json] = {"type": _TYPES[elements]} if elements in _TYPES else {}
        items.update(nested)
        if values:
            items["enum"] = values
        if items:
            made["items"] = items
    else:
        made.update(nested)
        if values and made.get("type") != "boolean":
            made["enum"] = values
    if text := _description(fields, depth, choices):
        made["description"] = text
    if fields.get("default") is not None:
        made["default"] = fields["default"]
    return made


def _description(fields: Mapping[str, Json], depth: int, choices: Json) -> str:
    text = sentences(paragraphs(fields.get("description")))
    if isinstance(choices, Mapping):
        told = [f"`{value}`: {' '.join(paragraphs(about))}" for value, about in choices.items()]
        text = "\n".join([text, *(f"- {line}" for line in told)])
    text = shortened(text, TOP_DESCRIPTION if depth == DEPTH else NESTED_DESCRIPTION)
    aliases = fields.get("aliases")
    if isinstance(aliases, list) and aliases:
        text = f"{text} Also: {', '.join(f'`{alias}`' for alias in aliases[:5])}.".strip()
    return text


def returns_schema(stated: Json, depth: int = DEPTH) -> dict[str, Json] | None:
    """The schema of a module's return values; None if it states none."""
    if not isinstance(stated, Mapping):
        return None
    properties: dict[str, Json] = {}
    for name, fields in list(stated.items())[:MOST_OPTIONS]:
        if not isinstance(fields, Mapping):
            continue
        kind = str(fields.get("type"))
        made: dict[str, Json] = {"type": _TYPES[kind]} if kind in _TYPES else {}
        inner = returns_schema(fields.get("contains"), depth - 1) if depth > 1 else None
        if made.get("type") == "array":
            elements = fields.get("elements")
            items: dict[str, Json] = inner or ({"type": _TYPES[elements]} if elements in _TYPES else {})
            if items:
                made["items"] = items
        elif inner:
            made.update(inner)
        text = sentences(paragraphs(fields.get("description")))
        when = " ".join(paragraphs(fields.get("returned")))
        if when and when.lower() not in ("always", "success", "on success", "when success"):
            text = f"{text} Returned: {when}.".strip().replace("..", ".")
        if text:
            made["description"] = shortened(text, TOP_DESCRIPTION if depth == DEPTH else NESTED_DESCRIPTION)
        properties[name] = made
    return {"type": "object", "properties": properties} if properties else None
