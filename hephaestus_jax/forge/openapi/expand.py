"""Nodes put together to a JSON Schema: the shallow fields first, within a depth and a number of fields.

Deeper fields, and those of a schema inside itself, are left out and counted; their object stays, with its description.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from hephaestus_jax.forge.openapi.schemas import Node, Schemas
from hephaestus_jax.forge.openapi.wording import without_echo, without_required
from hephaestus_jax.forge.prose import shortened
from hephaestus_jax.formats.records import Json

DEPTH = 5  # levels of nested fields
MOST_PROPERTIES = 400  # of one operation's parameters, and of its result
MOST_NODES = 4_000  # schemas of one operation, those without a name included
LONGEST_PATH = 16  # schemas inside each other
TOP_DESCRIPTION = 1_000  # characters
NESTED_DESCRIPTION = 300

Direction = Literal["request", "response"]


class Expansion:
    """One tree (or several side by side) in the making.

    Attributes:
        left_out: fields that were too deep, too many, or inside themselves.
    """

    def __init__(self, schemas: Schemas, direction: Direction) -> None:
        self.left_out = 0
        self.properties = 0
        self._schemas, self._direction = schemas, direction
        self._nodes = 0
        self._waiting: deque[tuple[Node, dict[str, Json], int, tuple[int, ...]]] = deque()

    def start(self, node: Node, level: int, description: str | None = None) -> dict[str, Json]:
        """The schema of a node whose fields are on `level` (from 1); `run` fills them in."""
        told = node.description or _title(node, "") if description is None else description
        return self._target(node, level, (), shortened(told, TOP_DESCRIPTION))

    def run(self) -> None:
        """Fills in the fields of all that was started, level by level."""
        while self._waiting:
            self._fill(*self._waiting.popleft())

    def _target(self, node: Node, level: int, above: tuple[int, ...], description: str) -> dict[str, Json]:
        self._schemas.spend(1)
        self._nodes += 1
        target = dict(node.own)
        if description:
            target["description"] = description
        if node.properties or node.items is not None or node.variants or node.additional is not None or node.places:
            self._waiting.append((node, target, level, above))
        return target

    def _nested(
        self, child: Json, name: str, level: int, above: tuple[int, ...], is_required: bool = False
    ) -> dict[str, Json]:
        node = self._schemas.node(child)
        told = without_echo(without_required(node.description) if is_required else node.description, name)
        return self._target(node, level, above, shortened(told or _title(node, name), NESTED_DESCRIPTION))

    def _fill(self, node: Node, target: dict[str, Json], level: int, above: tuple[int, ...]) -> None:
        if node.identity in above or len(above) >= LONGEST_PATH or self._nodes >= MOST_NODES:
            self.left_out += len(node.properties)
            return
        above = (*above, node.identity)
        if node.properties:
            self._fill_properties(node, target, level, above)
        if node.places:
            target["prefixItems"] = [self._nested(place, "", level, above) for place in node.places]
        elif node.items is not None and not self._schemas.node(node.items).is_empty:
            target["items"] = self._nested(node.items, "", level, above)
        if node.variants:
            forms = [self._nested(form, "", level, above) for form in node.variants]
            if node.more_variants:
                forms.append({"description": f"Or one of {node.more_variants:,} further forms."})
            target["anyOf"] = forms
        if node.additional is False and not self.is_cut(target, node):
            target["additionalProperties"] = False
        elif isinstance(node.additional, dict) and level <= DEPTH:
            target["additionalProperties"] = self._nested(node.additional, "", level + 1, above)

    def is_cut(self, target: dict[str, Json], node: Node) -> bool:
        """Whether the schema lacks fields of its node."""
        return len(target.get("properties", ())) < len(node.properties)

    def _fill_properties(self, node: Node, target: dict[str, Json], level: int, above: tuple[int, ...]) -> None:
        if level > DEPTH:
            self.left_out += len(node.properties)
            return
        shown = {name: child for name, child in node.properties.items() if not self.is_hidden(child)}
        kept = self.within_limit(shown, node.required)
        self.left_out += len(shown) - len(kept)
        target["properties"] = {
            name: self._nested(child, name, level + 1, above, name in node.required) for name, child in kept.items()
        }
        if required := [name for name in kept if name in node.required]:
            target["required"] = required

    def within_limit(self, properties: dict[str, Json], required: frozenset[str]) -> dict[str, Json]:
        """As many of the properties as there is room for, those that are required before the rest; it counts them."""
        room = max(0, MOST_PROPERTIES - self.properties)
        if len(properties) > room:
            first = sorted(properties, key=lambda name: name not in required)[:room]
            kept = frozenset(first)
            properties = {name: child for name, child in properties.items() if name in kept}
        self.properties += len(properties)
        return properties

    def is_hidden(self, child: Json) -> bool:
        """Whether a field does not travel in this direction."""
        node = self._schemas.node(child)
        return node.read_only if self._direction == "request" else node.write_only


def _title(node: Node, name: str) -> str:
    """The title where it says more than the name, for want of a description."""
    plain = "".join(filter(str.isalnum, node.title)).lower()
    told = " " in node.title and plain != "".join(filter(str.isalnum, name)).lower()
    return node.title if told and name else ""
