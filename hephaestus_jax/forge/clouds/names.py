"""Names of operations in the other spellings that their services have for them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from hephaestus_jax.formats.records import Json

_PLURAL_ACRONYM = re.compile(r"(?<=[a-z0-9])([A-Z]{2,}s)(?=$|[A-Z])|^([A-Z]{2,}s)(?=$|[A-Z])")
_WORD_START = re.compile(r"(?<=[^_])([A-Z][a-z]+)")
_WORD_END = re.compile(r"(?<=[a-z0-9])([A-Z])")
_LONG_CALL = 100  # characters from which each argument of a call gets a line


def snake_case(name: str) -> str:
    """An operation's name as a Python client has it: "DescribeDBInstances" is "describe_db_instances"."""
    name = _PLURAL_ACRONYM.sub(lambda found: "_" + found[0].capitalize(), name)
    name = _WORD_START.sub(r"_\1", name)
    return re.sub(r"_+", "_", _WORD_END.sub(r"_\1", name)).lower().strip("_")


def python_call(function: str, arguments: Mapping[str, Json]) -> str:
    """A call as Python writes it, over several lines if it is long."""
    parts = [f"{name}={python_value(value)}" for name, value in arguments.items()]
    line = f"{function}({', '.join(parts)})"
    if len(line) <= _LONG_CALL:
        return line
    return f"{function}(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def python_value(value: Json) -> str:
    """A JSON value as a Python literal with double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python_value(key)}: {python_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(python_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
