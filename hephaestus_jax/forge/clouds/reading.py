"""Files of descriptions, read within bounds: JSON, gzip members, and values that are small enough to keep."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jsonschema import Draft202012Validator

from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json

if TYPE_CHECKING:  # importing the package of all sources here would go in a circle
    from hephaestus_jax.forge.sources.source import SourceFile

LARGEST_TEXT = 128 << 20  # bytes that a gzip member may unpack to
DEEPEST_VALUE = 32  # levels of an example's value
LONGEST_RESULT = 4_000  # characters
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def json_object(file: SourceFile, quarantine: Quarantine) -> dict[str, Json] | None:
    """The JSON object in a file (".gz": compressed); None, with the reason in the quarantine, if there is none."""
    raw = file.read(quarantine)
    if raw is None:
        return None
    try:
        if file.path.endswith(".gz"):
            raw = _unpacked(raw)
        text = raw.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse)
        value = _readable(value) if _ESCAPED_SURROGATE.search(text) else value
    except zlib.error as error:
        quarantine.add("malformed gzip", file.place(), str(error))
    except OverflowError as error:
        quarantine.add("gzip unpacks to too much", file.place(), str(error))
    except UnicodeDecodeError as error:
        quarantine.add("not UTF-8", file.place(), str(error))
    except (ValueError, RecursionError) as error:
        quarantine.add("malformed JSON", file.place(), str(error))
    else:
        if isinstance(value, dict):
            return value
        quarantine.add("not a JSON object", file.place(), type(value).__name__)
    return None


def _unpacked(raw: bytes) -> bytes:
    member = zlib.decompressobj(wbits=31)
    text = member.decompress(raw, LARGEST_TEXT)
    if member.unconsumed_tail:
        raise OverflowError(f"more than {LARGEST_TEXT:,} bytes")
    if not member.eof:
        raise zlib.error("truncated")
    return text


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is no JSON")


def _readable(value: Json) -> Json:
    """Without halves of surrogate pairs, which no file can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    return value


def mapping(value: Json) -> Mapping[str, Json]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def text(value: Json) -> str:
    """The value if it is a string, else ""."""
    return value if isinstance(value, str) else ""


def sequence(value: Json) -> list[Json]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def is_shallow(value: Json, levels: int = DEEPEST_VALUE) -> bool:
    """Whether a value is nested no deeper than `levels`."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(is_shallow(item, levels - 1) for item in inner)


def fitting(arguments: Mapping[str, Json], parameters: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """The arguments if they are valid against the parameters' schema and all of them are described, else None."""
    if not arguments.keys() <= mapping(parameters.get("properties")).keys():
        return None
    try:
        return arguments if Draft202012Validator(parameters).is_valid(arguments) else None
    except (RecursionError, re.error):
        return None


def result_text(value: Json) -> str | None:
    """A result as JSON on one line; None if it is too long to show."""
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= LONGEST_RESULT else None
