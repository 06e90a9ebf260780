"""JSON Schema in words: types, constraints and nested fields, as a reader of documentation wants them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hephaestus_jax.formats.records import Json

PYTHON_TYPE = "x-python-type"  # a Python annotation beside (or instead of) a JSON type
PYTHON_DEFAULT = "x-python-default"  # a default that is no JSON value, as Python source
PYTHON_KIND = "x-python-kind"  # "*" or "**" for a parameter that takes all further arguments
MAX_ENUM = 24  # values of an enumeration that are listed

_CONSTRAINTS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
    "multipleOf": "multiple of",
    "minLength": "minimum length",
    "maxLength": "maximum length",
    "minItems": "minimum items",
    "maxItems": "maximum items",
    "pattern": "pattern",
}
_VARIANTS = ("anyOf", "oneOf", "allOf")
_PYTHON_NAMES = {
    "array": "list",
    "boolean": "bool",
    "integer": "int",
    "null": "None",
    "number": "float",
    "object": "dict",
    "string": "str",
}


@dataclass(frozen=True)
class Field:
    """One parameter, or one field of a nested object."""

    name: str  # with the stars of a Python parameter that takes all further arguments
    type: str  # "" when nothing is known
    required: bool
    description: str
    default: str | None  # None when there is none
    constraints: str  # "at least 1, at most 100"; "" when there are none
    fields: tuple[Field, ...]  # of the object, or of the items of the array


def fields_of(schema: Json, depth: int, python: bool = False) -> tuple[Field, ...]:
    """The fields of an object (or of an array's items), nested down to `depth` levels; () at depth 0.

    With `python`, types and defaults are spelled as Python spells them.
    """
    if depth <= 0:
        return ()
    return tuple(_field(name, part, required, depth, python) for name, part, required in _properties(schema))


def _field(name: str, schema: Json, required: bool, depth: int, python: bool) -> Field:
    stated: Mapping[str, Json] = schema if isinstance(schema, Mapping) else {}
    default = _value(stated["default"], python) if "default" in stated else _text(stated.get(PYTHON_DEFAULT)) or None
    return Field(
        name=_text(stated.get(PYTHON_KIND)) + name,
        type=type_text(schema, python),
        required=required,
        description=_text(stated.get("description")).strip(),
        default=default,
        constraints=", ".join(f"{words} {stated[key]}" for key, words in _CONSTRAINTS.items() if key in stated),
        fields=fields_of(schema, depth - 1, python),
    )


def _properties(schema: Json) -> Iterator[tuple[str, Json, bool]]:
    """Name, schema and necessity of each field, through arrays, maps and variants; a name counts once.

    The places of a tuple are fields too, named by their titles.
    """
    if not isinstance(schema, Mapping):
        return
    seen: set[str] = set()
    for number, item in enumerate(_sequence(schema.get("prefixItems"))):
        name = title_of(item) or f"[{number}]"
        seen.add(name)
        yield name, item, True
    parts = [schema]
    if isinstance(items := schema.get("items"), Mapping):
        parts.append(items)
    if isinstance(values := schema.get("additionalProperties"), Mapping):
        parts.append(values)
    for part in [*parts, *(v for p in parts for key in _VARIANTS for v in _sequence(p.get(key)))]:
        if not isinstance(part, Mapping) or not isinstance(part.get("properties"), Mapping):
            continue
        required = _sequence(part.get("required"))
        for name, value in part["properties"].items():
            if name not in seen:
                seen.add(name)
                yield name, value, name in required


def type_text(schema: Json, python: bool = False) -> str:
    """The type in words: "integer", "array of string", "string or null", "\"asc\" | \"desc\""; "" if unknown."""
    if not isinstance(schema, Mapping):
        return ""
    if isinstance(stated := schema.get(PYTHON_TYPE), str):
        return stated
    if isinstance(reference := schema.get("$ref"), str):
        return reference.rsplit("/", 1)[-1]
    if isinstance(values := schema.get("enum"), list | tuple):
        more = f" | … {len(values) - MAX_ENUM} more" if len(values) > MAX_ENUM else ""
        return " | ".join(_value(value, python) for value in values[:MAX_ENUM]) + more
    if "const" in schema:
        return _value(schema["const"], python)
    for key in _VARIANTS:
        words = dict.fromkeys(filter(None, (type_text(part, python) for part in _sequence(schema.get(key)))))
        if words:
            return (" and " if key == "allOf" else " or ").join(words)
    return " or ".join(_simple(kind, schema, python) for kind in _sequence(schema.get("type")))


def title_of(schema: Json) -> str:
    """What the schema calls its value, "" if it does not say."""
    return _text(schema.get("title")) if isinstance(schema, Mapping) else ""


def _simple(kind: Json, schema: Mapping[str, Json], python: bool) -> str:
    name = _PYTHON_NAMES.get(kind, kind) if python and isinstance(kind, str) else kind
    if kind == "array" and schema.get("prefixItems"):
        return "tuple"
    if kind == "array" and (items := type_text(schema.get("items"), python)):
        return f"{name} of {items}"
    if kind == "object" and (values := type_text(schema.get("additionalProperties"), python)):
        return f"{name} of {values}"
    if isinstance(form := schema.get("format"), str) and kind != "null":
        return f"{name} ({form})"
    return str(name)


def _value(value: Json, python: bool) -> str:
    return repr(value) if python else json.dumps(value, ensure_ascii=False, default=repr)


def pruned(schema: Json, depth: int) -> Json:
    """The schema as a tool definition carries it: nested fields to `depth` levels, what is Python's own in words."""
    if not isinstance(schema, Mapping):
        return schema
    kept = {key: value for key, value in schema.items() if not key.startswith(("$", "x-python-"))}
    if default := _text(schema.get(PYTHON_DEFAULT)):
        kept["description"] = f"{_text(kept.get('description'))} Defaults to {default}.".strip()
    if isinstance(reference := schema.get("$ref"), str):
        kept["description"] = _joined(reference.rsplit("/", 1)[-1], kept.get("description"))
    stated = schema.get(PYTHON_TYPE)
    if isinstance(stated, str) and stated != type_text(kept, python=True):
        kept["description"] = _joined(stated, kept.get("description"))
    if isinstance(properties := kept.get("properties"), Mapping):
        kept["properties"] = {name: pruned(value, depth - 1) for name, value in properties.items()}
        if depth <= 0:
            del kept["properties"]
            kept.pop("required", None)
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = pruned(kept[key], depth)
    for key in (*_VARIANTS, "prefixItems"):
        if isinstance(parts := kept.get(key), list | tuple):
            kept[key] = [pruned(part, depth) for part in parts]
    return kept


def _joined(lead: str, description: Json) -> str:
    return f"{lead}: {description}" if isinstance(description, str) and description else lead


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _sequence(value: Json) -> list[Json]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value is None else [value]
