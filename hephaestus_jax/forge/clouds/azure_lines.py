"""Values on Azure's command lines: JSON, its shorthand, key=value pairs, and options that are abbreviated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hephaestus_jax.forge.clouds.command_lines import CommandLine
from hephaestus_jax.forge.clouds.options import CLI_OPTION, typed
from hephaestus_jax.forge.clouds.reading import is_shallow
from hephaestus_jax.formats.records import Json

DEEPEST_SHORTHAND = 20
_KEY = re.compile(r"\s*([\w.-]+)\s*:\s*")
_WORD = re.compile(r"'([^']*)'|[^,\]\[{}]+")


def arguments_of(line: CommandLine, properties: Mapping[str, Json]) -> dict[str, Json] | None:
    """The values of a command line by parameter; None if an option is unknown or its value is of another kind."""
    names = {
        spelling: name for name, schema in properties.items() for spelling in str(schema.get(CLI_OPTION, "")).split()
    }
    made: dict[str, Json] = {}
    positional = list(line.positional)
    waiting = [name for spelling, name in names.items() if not spelling.startswith("-")]
    for option, words in line.options.items():
        name = names.get(option) or _abbreviated(option, names)
        if name is None or name in made:
            return None
        if waiting and not positional:  # what one value too many is
            taken = {"boolean": 0, "array": len(words), "object": len(words)}.get(properties[name].get("type"), 1)
            words, positional = words[:taken], list(words[taken:])
        fits, value = _value(words, properties[name])
        if not fits:
            return None
        made[name] = value
    return made if _placed(positional, waiting, properties, made) else None


def _placed(words: list[str], waiting: list[str], properties: Mapping[str, Json], made: dict[str, Json]) -> bool:
    """Gives the words that belong to no option to the positional parameters; whether there are enough of these."""
    for number, name in enumerate(waiting):
        if not words:
            return True
        count = len(words) - (len(waiting) - number - 1) if properties[name].get("type") == "array" else 1
        fits, made[name] = _value(tuple(words[:count]), properties[name])
        if not fits:
            return False
        words = words[count:]
    return not words


def _abbreviated(option: str, names: Mapping[str, str]) -> str | None:
    if not option.startswith("--"):
        return None
    found = {name for spelling, name in names.items() if spelling.startswith(option)}
    return found.pop() if len(found) == 1 else None


def _value(words: tuple[str, ...], schema: Mapping[str, Json]) -> tuple[bool, Json]:
    kind = schema.get("type")
    if kind == "object":
        return _object(words, schema)
    if kind == "array" and words:
        if len(words) == 1 and words[0].startswith("["):
            stated = _structure(words[0], schema)
            return (True, stated) if isinstance(stated, list) else (False, None)
        items = schema.get("items")
        items = items if isinstance(items, Mapping) else {}
        parts = [_value((word,), items) for word in words]
        return all(fits for fits, _ in parts), [value for _, value in parts]
    if kind is None:
        stated = _json(words[0]) if len(words) == 1 else None
        return (True, stated) if stated is not None else (len(words) == 1, words[0] if words else None)
    fits, value = typed(words, schema)
    return fits, _cased(value, schema.get("enum")) if fits else None


def _cased(value: Json, choices: Any) -> Json:
    """A choice as it is spelled: the command line takes it in any case."""
    if not isinstance(choices, list) or not isinstance(value, str) or value in choices:
        return value
    return next((choice for choice in choices if isinstance(choice, str) and choice.lower() == value.lower()), value)


def _object(words: tuple[str, ...], schema: Mapping[str, Json]) -> tuple[bool, Json]:
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        stated = _structure(words[0], schema)
        return (True, stated) if isinstance(stated, dict) else (False, None)
    properties, values = schema.get("properties"), schema.get("additionalProperties")
    properties = properties if isinstance(properties, Mapping) else {}
    made: dict[str, Json] = {}
    for word in words:
        key, equals, text = word.partition("=")
        described = properties.get(key, values)
        if not equals or not key or key[0] in "[{." or not isinstance(described, Mapping) or text[:1] in ("[", "{"):
            return False, None
        if described.get("type") in ("object", "array"):
            return False, None
        fits, made[key] = _value((text,), described)
        if not fits:
            return False, None
    return True, made


def _structure(text: str, schema: Mapping[str, Json]) -> Json:
    """JSON, or the shorthand for it: `{name:a,sizes:[1,2]}`; None if it is neither."""
    if (value := _json(text)) is not None:
        return value
    try:
        words, end = _shorthand(text, 0, DEEPEST_SHORTHAND)
    except (IndexError, ValueError):
        return None
    return _like(words, schema) if end == len(text) else None


def _shorthand(text: str, at: int, levels: int) -> tuple[Any, int]:
    """The value that begins at a place of a shorthand, its words as strings, and where it ends.

    Raises:
        ValueError, IndexError: it is no shorthand.
    """
    if levels == 0:
        raise ValueError("nested too deeply")
    if text[at] not in "{[":
        found = _WORD.match(text, at)
        if found is None:
            raise ValueError("no word")
        return (found[1] if found[1] is not None else found[0].strip()), found.end()
    closing, is_object = ("}", True) if text[at] == "{" else ("]", False)
    made: Any = {} if is_object else []
    at += 1
    while text[at] != closing:
        if is_object:
            key = _KEY.match(text, at)
            if key is None:
                raise ValueError("no key")
            made[key[1]], at = _shorthand(text, key.end(), levels - 1)
        else:
            item, at = _shorthand(text, at, levels - 1)
            made.append(item)
        if text[at] == ",":
            at += 1
            while text[at] == " ":
                at += 1
        elif text[at] != closing:
            raise ValueError("no end")
    return made, at + 1


def _like(value: Any, schema: Json) -> Json:
    """A shorthand's words as the schema's types; those that are not of them stay words, and so are not valid."""
    described = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, dict):
        properties, values = described.get("properties"), described.get("additionalProperties")
        properties = properties if isinstance(properties, Mapping) else {}
        return {key: _like(item, properties.get(key, values)) for key, item in value.items()}
    if isinstance(value, list):
        return [_like(item, described.get("items")) for item in value]
    if described.get("type") in ("integer", "number", "boolean", "string"):
        fits, stated = typed((value,), described)
        return _cased(stated, described.get("enum")) if fits else value
    return value


def _json(text: str) -> Json:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if is_shallow(value) else None
