"""Loading a description: JSON, or YAML without its traps, within bounds.

YAML is read as YAML 1.2 reads it (`no` is a word, a date is text), and an alias counts for all that it stands for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json

if TYPE_CHECKING:  # the package of the sources imports this one
    from hephaestus_jax.forge.sources.source import SourceFile

LARGEST_YAML = 32 << 20  # characters
MOST_NODES = 2_000_000  # of a YAML file, what its aliases stand for included
DEEPEST = 120  # levels of nesting, of a YAML file and of an example
_SURROGATE = re.compile("[\ud800-\udfff]")


class Refused(Exception):
    """A file that is not read; the reason is short and countable, the detail says what exactly."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def load(file: SourceFile, quarantine: Quarantine) -> dict[str, Any] | None:
    """The file as a JSON object that says it is OpenAPI 3 or Swagger 2; else None, with the reason set aside."""
    text = file.text(quarantine)
    if text is None:
        return None
    try:
        value = _from_json(text) if _is_json(file, text) else _from_yaml(text)
        if not isinstance(value, dict) or not isinstance(value.get("paths"), dict):
            raise Refused("not an OpenAPI description", "no object with `paths`")
        if not ("openapi" in value or "swagger" in value):
            raise Refused("not an OpenAPI description", "neither `openapi` nor `swagger` is stated")
    except Refused as refused:
        quarantine.add(refused.reason, file.place(), refused.detail)
        return None
    return value


def plain(value: Json, depth: int = 0) -> Json:
    """The value as JSON has it: keys are text, no infinities, no half of a surrogate pair, no types of YAML's own.

    Raises:
        Refused: nested more than `DEEPEST` levels.
    """
    if isinstance(value, str):
        return text_of(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= DEEPEST:
        raise Refused("nested too deeply", f"more than {DEEPEST} levels")
    if isinstance(value, dict):
        return {key_of(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    return text_of(str(value))


def text_of(text: str) -> str:
    """The text without halves of surrogate pairs, which no file could be written with."""
    return _SURROGATE.sub("\ufffd", text)


def key_of(key: Json) -> str:
    """A key as text: 200 as "200", true as "true"."""
    if isinstance(key, str):
        return text_of(key)
    return {True: "true", False: "false", None: "null"}[key] if key is None or isinstance(key, bool) else str(key)


def _is_json(file: SourceFile, text: str) -> bool:
    # YAML may begin with a brace too; a file that ends in .json must be JSON
    ends = text.lstrip()[:1] + text.rstrip()[-1:]
    return file.path.lower().endswith(".json") or ends in ("{}", "[]")


def _from_json(text: str) -> Json:
    try:
        return json.loads(text, parse_constant=str)
    except RecursionError:
        raise Refused("nested too deeply", "the JSON parser gave up") from None
    except ValueError as error:
        raise Refused("malformed JSON", str(error)) from None


def _from_yaml(text: str) -> Json:
    if len(text) > LARGEST_YAML:
        raise Refused("file too large", f"{len(text):,} characters of YAML, at most {LARGEST_YAML:,}")
    try:
        _weigh(text)
        return plain(yaml.load(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise Refused("malformed YAML", str(error)) from None
    except RecursionError:
        raise Refused("nested too deeply", "the YAML parser gave up") from None
    except (ValueError, TypeError, OverflowError, AttributeError) as error:  # what PyYAML lets through of odd tags
        raise Refused("malformed YAML", f"{type(error).__name__}: {error}") from None


def _weigh(text: str) -> None:
    """Counts the nodes of a YAML text from its events, which cost nothing but themselves, and refuses bombs."""
    weights: dict[str, int] = {}  # of what each anchor names
    open_nodes: list[list[Any]] = [[None, 0]]  # [anchor, nodes so far] from the outside in

    def count(nodes: int) -> None:
        open_nodes[-1][1] += nodes
        if open_nodes[-1][1] > MOST_NODES:
            raise Refused("too many YAML nodes", f"more than {MOST_NODES:,}, what the aliases stand for included")

    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise Refused("recursive YAML alias", f"*{event.anchor}")
            count(weights.get(event.anchor, 1))
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor:
                weights[event.anchor] = 1
            count(1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1])
            if len(open_nodes) > DEEPEST:
                raise Refused("nested too deeply", f"more than {DEEPEST} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, nodes = open_nodes.pop()
            if anchor:
                weights[anchor] = nodes
            count(nodes)


_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BaseLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own protocol


def _resolver(tag: str, pattern: str, first: str) -> None:
    add: Callable[..., None] = _Loader.add_implicit_resolver
    add(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), list(first))


_resolver("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolver("null", "~|null|Null|NULL|", "~nN")
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("$")))
_resolver("int", "[-+]?(?:0|[1-9][0-9]*)", "-+0123456789")
_resolver(
    "float",
    r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
    "-+.0123456789",
)
_resolver("merge", "<<", "<")
