"""JSON of unknown origin, and calls that were written as JSON or nearly so."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from hephaestus_jax.formats.records import Json

DEEPEST = 250  # levels of nesting in a record: what is written must be read again, by any program
LONGEST_LITERAL = 1_000_000  # characters of a Python literal; its parser takes far more memory than that of JSON

_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {"true": True, "false": False, "null": None, "undefined": None, "NaN": "NaN", "Infinity": "Infinity"}
_QUOTED_ARGUMENTS = re.compile(r"""["']arguments["']\s*:\s*'""")


def clean_json(value: Any, depth: int = 0, drop_nulls: bool = False) -> Json:
    """What a JSON or Parquet reader gave, as values that canonical JSON can hold.

    Half surrogate pairs become U+FFFD, infinities and NaN text, dates ISO text, bytes their text.

    Args:
        value: what was read.
        depth: levels around it.
        drop_nulls: whether fields without a value are left out; Parquet gives every row the fields of all.

    Raises:
        ValueError: it nests deeper than `DEEPEST` levels.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= DEEPEST:
        raise ValueError(f"nests more than {DEEPEST} levels deep")
    if isinstance(value, Mapping):
        return {
            clean_json(str(key)): clean_json(item, depth + 1, drop_nulls)
            for key, item in value.items()
            if not (drop_nulls and item is None)
        }
    if isinstance(value, list | tuple):
        return [clean_json(item, depth + 1, drop_nulls) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def parse_json(text: str | bytes) -> Json:
    """The JSON value of a text.

    Raises:
        ValueError: it is no JSON, or nests deeper than `DEEPEST` levels.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # UnicodeDecodeError is a ValueError
    try:
        return clean_json(json.loads(text))
    except RecursionError as error:
        raise ValueError("nests too deep") from error


def parse_loose(text: str) -> Json:
    """The value of JSON as models and people write it: JSON, a Python literal, or a mixture of both.

    JSON's words (true, null) may stand in Python literals and Python's in JSON, quotes may be single, line breaks may
    stand in strings, and a JSON text in single quotes may be the value of "arguments". Nothing is run.

    Raises:
        ValueError: it is none of these.
    """
    try:
        return parse_json(text)
    except ValueError as error:
        first = error
    for attempt in (_unescaped_breaks, _python_literal, _quoted_arguments):
        try:
            return clean_json(attempt(text))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise ValueError(str(first)) from first


def object_of(value: Json, what: str = "arguments") -> dict[str, Json]:
    """An object, perhaps written as a string; None and the empty string are the empty one.

    Raises:
        ValueError: it is no object.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if isinstance(value, str):
        value = parse_loose(value)
        if isinstance(value, str):  # encoded twice
            value = parse_loose(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"{what}: expected an object, found {type(value).__name__}")
    return dict(value)


def list_of(value: Json, what: str) -> list[Json]:
    """A list, perhaps written as a string; None and the empty string are the empty one.

    Raises:
        ValueError: it is no list.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, str):
        value = parse_loose(value)
    if not isinstance(value, list):
        raise ValueError(f"{what}: expected a list, found {type(value).__name__}")
    return value


def first_value(text: str, start: int = 0) -> tuple[Json, int]:
    """The JSON value (or Python literal of a dict or list) that begins at `start`, and where it ends.

    Raises:
        ValueError: none begins there.
    """
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
        return clean_json(value), end
    except RecursionError as error:
        raise ValueError("nests too deep") from error
    except ValueError:
        end = _closing(text, start)
        return parse_loose(text[start:end]), end


def _closing(text: str, start: int) -> int:
    """The end of the brackets that open at `start`, strings in either quotes left out."""
    depth, quote, index = 0, "", start
    while index < len(text):
        sign = text[index]
        if quote:
            if sign == "\\":
                index += 1
            elif sign == quote and (quote == '"' or _ends_string(text, index)):
                quote = ""
        elif sign in "\"'":
            quote = sign
        elif sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
            if depth == 0:
                return index + 1
        elif depth == 0:
            break
        index += 1
    raise ValueError("no value, or one that does not end")


def _ends_string(text: str, index: int) -> bool:
    """Whether a single quote is the end of a string and no apostrophe."""
    return text[index + 1 : index + 40].lstrip()[:1] in (",", "}", "]", ":", "")


def _unescaped_breaks(text: str) -> Json:
    return json.loads(text, strict=False)


def _python_literal(text: str) -> Json:
    if len(text) > LONGEST_LITERAL:
        raise ValueError(f"longer than {LONGEST_LITERAL:,} characters")
    return _literal(ast.parse(text.strip(), mode="eval").body)


def _literal(node: ast.expr) -> Json:
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
            return value
        case ast.Name(id=name) if name in _WORDS:
            return _WORDS[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {str(_literal(k)): _literal(v) for k, v in zip(keys, values, strict=True) if k is not None}
    raise ValueError("no literal")


def _quoted_arguments(text: str) -> Json:
    """`{"name": "f", "arguments": '{"q": "it's"}'}`, as function-calling data of chat models has it."""
    found, text = _QUOTED_ARGUMENTS.search(text), text.rstrip()
    end = text.rfind("'")
    if not found or end < found.end() or not text.startswith("{") or text[end + 1 :].strip() != "}":
        raise ValueError("no arguments in single quotes")
    inner = json.loads(text[found.end() : end].replace("\\'", "'"), strict=False)
    return json.loads(text[: found.end() - 1] + json.dumps(inner) + "}", strict=False)
