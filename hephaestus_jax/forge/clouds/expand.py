"""Descriptions that refer to one another, made into one JSON Schema: to a depth, without recursion, of bounded size.

A reader says how one level is described (`Shape`); `expanded` goes through the levels breadth first, so that what is
left out of a very large structure is what lies deepest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.forge.prose import shortened
from hephaestus_jax.formats.records import Json

DEPTH = 5  # levels of fields
MOST_FIELDS = 400  # of one schema, at all levels together; required ones are kept up to twice as many
MOST_WRAPPINGS = 8  # arrays of arrays, maps of maps
TOP_CHARACTERS, NESTED_CHARACTERS = 1_000, 300  # of a field's description


@dataclass(frozen=True)
class Member:
    """A field of an object: its name, whether it is required, and what describes it."""

    name: str
    described: Any
    required: bool = False


@dataclass(frozen=True)
class Shape:
    """One level of a description: keywords of a JSON Schema, and what it is made of.

    `name` is that of a shared description, "" if it has none of its own: a name within itself is a recursion.
    """

    told: Mapping[str, Json]
    name: str = ""
    members: tuple[Member, ...] = ()
    items: Any = None
    values: Any = None


@dataclass
class _Work:
    read: Callable[[Any], Shape]
    fields: int = 0
    left_out: int = 0
    pending: deque[tuple[dict[str, Json], Shape, int, frozenset[str]]] = field(default_factory=deque)


@dataclass(frozen=True)
class Expanded:
    """A JSON Schema, and how many fields it was too large for."""

    schema: dict[str, Json]
    left_out: int

    @property
    def processing(self) -> tuple[str, ...]:
        """As a record's provenance tells it."""
        return (f"{self.left_out} deeper fields left out",) if self.left_out else ()


def expanded(described: Any, read: Callable[[Any], Shape]) -> Expanded:
    """The JSON Schema of what `read` tells about `described` and all that it is made of."""
    work = _Work(read)
    schema = _placed(work, described, 0, frozenset(), 0)
    while work.pending:
        target, shape, level, within = work.pending.popleft()
        _fill(work, target, shape, level, within)
    return Expanded(schema, work.left_out)


def _placed(work: _Work, described: Any, level: int, within: frozenset[str], wrappings: int) -> dict[str, Json]:
    """The schema of one level; its fields, if any, are put in later."""
    shape = work.read(described)
    schema = dict(shape.told)
    if description := schema.get("description"):
        schema["description"] = shortened(description, TOP_CHARACTERS if level <= 1 else NESTED_CHARACTERS)
    if shape.name in within or wrappings > MOST_WRAPPINGS:
        return schema
    inner = within | {shape.name} if shape.name else within
    for key, part in (("items", shape.items), ("additionalProperties", shape.values)):
        if part is not None:
            schema[key] = _placed(work, part, max(level, 2), inner, wrappings + 1)
    if shape.members and level < DEPTH:
        work.pending.append((schema, shape, level + 1, inner))
    return schema


def _fill(work: _Work, target: dict[str, Json], shape: Shape, level: int, within: frozenset[str]) -> None:
    kept = []
    for member in sorted(shape.members, key=lambda member: not member.required):  # stable: else in the stated order
        if work.fields >= (2 * MOST_FIELDS if member.required else MOST_FIELDS):
            work.left_out += 1
        else:
            work.fields += 1
            kept.append(member)
    target["properties"] = {m.name: _placed(work, m.described, level, within, 0) for m in kept}
    if required := [member.name for member in kept if member.required]:
        target["required"] = required
