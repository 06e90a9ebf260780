"""Parameters of tools as tool lists state them, in any of their forms, as valid JSON Schema (draft 2020-12)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hephaestus_jax.forge.installed.schemas import schema_from_words
from hephaestus_jax.formats.records import Json, Tool

DEPTH = 5  # levels of fields; deeper ones keep type and description
MOST_PROPERTIES = 400  # of a whole schema; a deeper or later one is left out
MOST_NODES = 10_000  # schemas within a schema, references resolved

_TYPES = {"array", "boolean", "integer", "null", "number", "object", "string"}
_WORDS: dict[str, dict[str, Json]] = {  # one-word types that are no Python, of catalogues and of people
    "any": {},
    "array": {"type": "array"},
    "binary": {"type": "string"},
    "blob": {"type": "string"},
    "char": {"type": "string"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "decimal": {"type": "number"},
    "double": {"type": "number"},
    "enum": {"type": "string"},
    "file": {"type": "string"},
    "geopoint": {"type": "string"},
    "hash": {"type": "object"},
    "hashmap": {"type": "object"},
    "json": {"type": "object"},
    "long": {"type": "integer"},
    "map": {"type": "object"},
    "object": {"type": "object"},
    "path": {"type": "string"},
    "raw": {},
    "short": {"type": "integer"},
    "text": {"type": "string"},
    "time": {"type": "string"},
    "timestamp": {"type": "string"},
    "url": {"type": "string", "format": "uri"},
    "uuid": {"type": "string", "format": "uuid"},
}
_OPTIONAL = re.compile(r"(?i)[,;]?\s*\(?\boptional\b\)?\s*")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")


@dataclass
class _Budget:
    """How many properties, and schemas of any kind, may still be taken."""

    left: int = MOST_PROPERTIES
    nodes: int = MOST_NODES
    dropped: int = 0


def parameters_schema(stated: Json) -> tuple[dict[str, Json], int]:
    """The parameters of a tool as a JSON Schema of type "object", and how many fields were left out of it.

    Reads a JSON Schema (OpenAPI's and Google's spellings too), a mapping of names to fields or to types in words, and
    a list of fields with names. What is none of these gives no parameters. No reference remains: local ones are
    resolved, deeper than `DEPTH` levels only type and description are told.
    """
    budget = _Budget()
    if isinstance(stated, list):
        stated = {p["name"]: p for p in stated if isinstance(p, Mapping) and isinstance(p.get("name"), str)}
    if not isinstance(stated, Mapping):
        return {"type": "object", "properties": {}}, 0
    if not _is_schema(stated):
        stated = _schema_of_fields(stated)
    made = _clean(stated, stated, DEPTH, budget, ())
    made = {"type": "object", "properties": {}, **{k: v for k, v in made.items() if k not in ("type", "default")}}
    return made, budget.dropped


def any_schema(stated: Json) -> dict[str, Json] | None:
    """A stated schema of a result, under the rules of `parameters_schema`; None if nothing is stated."""
    if not isinstance(stated, Mapping) or not stated:
        return None
    return _clean(stated, stated, DEPTH, _Budget(), ()) or None


def tool_of(stated: Json) -> Tool:
    """A tool of any list: {"type": "function", "function": {...}}, a bare function, `input_schema`, `inputSchema`.

    Raises:
        ValueError: it has no name.
    """
    fields = stated
    if isinstance(stated, Mapping) and isinstance(stated.get("function"), Mapping):
        fields = stated["function"]
    if not isinstance(fields, Mapping):
        raise ValueError(f"a tool is an object, found {type(stated).__name__}")
    name = fields.get("name") or fields.get("api_name") or fields.get("apiCode")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a tool has a name, found {name!r}")
    parameters = next((fields[k] for k in ("parameters", "input_schema", "inputSchema") if fields.get(k)), None)
    description = fields.get("description")
    return Tool(name, description.strip() if isinstance(description, str) else "", parameters_schema(parameters)[0])


def _is_schema(stated: Mapping[str, Json]) -> bool:
    if isinstance(stated.get("properties"), Mapping):
        return True
    return any(isinstance(stated.get(key), str) for key in ("type", "$ref", "$schema")) or any(
        isinstance(stated.get(key), list) for key in ("anyOf", "oneOf", "allOf", "required")
    )


def _schema_of_fields(fields: Mapping[str, Json]) -> dict[str, Json]:
    """`{"city": {"type": "str, optional", "description": …, "default": …}}`: what is not optional is required."""
    properties: dict[str, Json] = {}
    required = []
    for name, field in fields.items():
        stated = dict(field) if isinstance(field, Mapping) else {"type": field} if isinstance(field, str) else {}
        kind = stated.get("type")
        flag = stated.pop("required", None)
        stated.pop("name", None)
        optional = isinstance(kind, str) and "optional" in kind.lower()
        properties[name] = stated
        if flag is True or str(flag).lower() == "true" or (flag is None and not optional and "default" not in stated):
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def type_schema(words: str) -> dict[str, Json]:
    """The schema of a type in words ("List[int]", "STRING", "str, optional"); {} where JSON has none."""
    return dict(_type_schema(words[:200]))


@lru_cache(maxsize=4096)
def _type_schema(words: str) -> dict[str, Json]:
    bare = _OPTIONAL.sub("", words).strip() if not words.startswith("Optional[") else words
    lowered = bare.lower()
    if lowered in _TYPES:
        return {"type": lowered}
    if lowered in _WORDS:
        return _WORDS[lowered]
    return _checked(schema_from_words(bare))


def _checked(schema: Mapping[str, Any]) -> dict[str, Json]:
    return {key: value for key, value in schema.items() if not key.startswith("x-python-default")}


def _clean(
    stated: Json, root: Mapping[str, Json], depth: int, budget: _Budget, path: tuple[str, ...]
) -> dict[str, Json]:
    """What is valid of a stated schema, in a fixed order."""
    if isinstance(stated, bool):
        return {} if stated else {"not": {}}
    if isinstance(stated, str):
        return type_schema(stated)
    budget.nodes -= 1
    if not isinstance(stated, Mapping) or len(path) > 60 or budget.nodes < 0:
        return {}
    reference = stated.get("$ref")
    if isinstance(reference, str):
        target = _resolved(reference, root)
        if reference in path:
            return _leaf(_types(target), {**target, **stated})
        beside = {key: value for key, value in stated.items() if key != "$ref"}
        return _clean({**target, **beside}, root, depth, budget, (*path, reference))
    made: dict[str, Json] = _types(stated)
    path = (*path, "")
    _copy_plain(stated, made)
    _copy_values(stated, made)
    for key in _LISTS_OF_SCHEMAS:
        parts = stated.get(key)
        if isinstance(parts, list) and parts and depth > 0:
            made[key] = [_clean(part, root, depth, budget, path) for part in parts[:50]]
    if isinstance(stated.get("not"), Mapping | bool) and depth > 0:
        made["not"] = _clean(stated["not"], root, depth, budget, path)
    items = stated.get("items")
    if isinstance(items, list) and items and depth > 0:  # of drafts before 2020-12
        made["prefixItems"] = [_clean(item, root, depth, budget, path) for item in items[:50]]
    elif isinstance(items, Mapping | str) and depth > 0 and (cleaned := _clean(items, root, depth, budget, path)):
        made["items"] = cleaned
    more = stated.get("additionalProperties")
    if isinstance(more, bool):
        made["additionalProperties"] = more
    elif isinstance(more, Mapping) and depth > 0 and (cleaned := _clean(more, root, depth - 1, budget, path)):
        made["additionalProperties"] = cleaned
    _copy_properties(stated, made, root, depth, budget, path)
    return made


def _copy_properties(
    stated: Mapping[str, Json],
    made: dict[str, Json],
    root: Mapping[str, Json],
    depth: int,
    budget: _Budget,
    path: tuple[str, ...],
) -> None:
    properties = stated.get("properties")
    if isinstance(properties, list):
        properties = {p["name"]: p for p in properties if isinstance(p, Mapping) and isinstance(p.get("name"), str)}
    if not isinstance(properties, Mapping):
        return
    if depth <= 0:
        budget.dropped += len(properties)
        made.pop("additionalProperties", None)
        return
    listed = stated.get("required")
    required = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    made["properties"] = {}
    for name, part in properties.items():
        if budget.left <= 0 and name not in required:
            budget.dropped += 1
            continue
        budget.left -= 1
        made["properties"][name] = _clean(part, root, depth - 1, budget, path)
        if isinstance(part, Mapping) and part.get("required") is True:  # a flag, as OpenAPI's parameters have it
            required.append(name)
    if required := [name for name in dict.fromkeys(required) if name in properties]:
        made["required"] = required
    made.setdefault("type", "object")


def _types(stated: Mapping[str, Json]) -> dict[str, Json]:
    kind = stated.get("type")
    if isinstance(kind, list):
        parts = [part.lower() for part in kind if isinstance(part, str)]
        known = list(dict.fromkeys(part for part in parts if part in _TYPES))
        made: dict[str, Json] = {"type": known} if known and len(known) == len(set(parts)) else {}
    else:
        made = type_schema(kind) if isinstance(kind, str) else {}
    if stated.get("nullable") is True and (plain := made.get("type")):
        listed = plain if isinstance(plain, list) else [plain]
        made["type"] = listed if "null" in listed else [*listed, "null"]
    return made


def _copy_plain(stated: Mapping[str, Json], made: dict[str, Json]) -> None:
    for key in ("title", "format", "description"):
        if isinstance(value := stated.get(key), str) and value.strip():
            made[key] = value.strip()
    if made.get("format") == "datetime":
        made["format"] = "date-time"
    for key in _NUMBERS:
        value = stated.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            made[key] = value
        elif value is True and key.startswith("exclusive"):  # OpenAPI 3.0
            bound = key[9:].lower()
            if isinstance(number := stated.get(bound), int | float) and not isinstance(number, bool):
                made[key] = number
                made.pop(bound, None)
    for key in _COUNTS:
        value = stated.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            made[key] = value
    multiple = stated.get("multipleOf")
    if isinstance(multiple, int | float) and not isinstance(multiple, bool) and multiple > 0:
        made["multipleOf"] = multiple
    if stated.get("uniqueItems") is True:
        made["uniqueItems"] = True
    pattern = stated.get("pattern")
    if isinstance(pattern, str) and len(pattern) < 1000 and _compiles(pattern):
        made["pattern"] = pattern


@lru_cache(maxsize=4096)
def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError, MemoryError):
        return False
    return True


def _copy_values(stated: Mapping[str, Json], made: dict[str, Json]) -> None:
    enum = stated.get("enum")
    if isinstance(enum, list) and enum:
        made["enum"] = enum
    if "const" in stated:
        made["const"] = stated["const"]
    if "default" in stated and (stated["default"] is None or fitting_value(stated["default"], made) is not None):
        made["default"] = fitting_value(stated["default"], made)
    if isinstance(examples := stated.get("examples"), list) and examples:
        made["examples"] = examples
    elif (value := fitting_value(stated.get("example_value"), made)) not in ("", None):  # of RapidAPI's catalogue
        made["examples"] = [value]
    if stated.get("deprecated") is True:
        made["deprecated"] = True


def fitting_value(value: Json, schema: Mapping[str, Json]) -> Json:
    """A value of a parameter as its type has it: "true" as true, "7" as 7; None if a text is none of its type's."""
    kind = schema.get("type")
    if not isinstance(value, str) or kind not in ("boolean", "integer", "number"):
        return value
    words = value.strip().lower()
    if kind == "boolean":
        return {"true": True, "false": False}.get(words)
    if re.fullmatch(r"[+-]?\d{1,18}(\.0*)?", words):
        return int(words.partition(".")[0])
    plain = kind == "number" and re.fullmatch(r"[+-]?\d{0,18}\.\d{1,18}", words)
    return float(words) if plain else None


def _resolved(reference: str, root: Mapping[str, Json]) -> Mapping[str, Json]:
    """What a local reference points to; {} of any other."""
    if not reference.startswith("#/"):
        return {}
    value: Json = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _leaf(made: dict[str, Json], stated: Mapping[str, Json]) -> dict[str, Json]:
    """A schema that recurs: what it is, without its fields."""
    if isinstance(text := stated.get("description"), str) and text.strip():
        made["description"] = text.strip()
    return made
