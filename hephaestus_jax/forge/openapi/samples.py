"""Values that a schema states as examples, put together from its fields; nothing is made up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from hephaestus_jax.forge.openapi.documents import Refused, plain
from hephaestus_jax.forge.openapi.schemas import MISSING, Node, Schemas, coerced
from hephaestus_jax.formats.records import Json, canonical_json

DEEPEST = 6  # levels that are put together
MOST_FIELDS = 200  # of one value
_LARGEST = 20_000  # characters of one example as JSON
# What generators write where nobody gave an example.
_PLACEHOLDER = re.compile(r'"(?:string|<[A-Za-z][\w .-]*>|\{[A-Za-z][\w .]*\}|\{\{[^"]*\}\})"')


_POINT_IN_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d.*")


def stated_value(value: Json, kind: Json, spend: Callable[[int], None]) -> Json:
    """An example as a JSON value, in the type it should have; MISSING if it is none, a placeholder, or too large.

    Its size is spent, as the work that it is.
    """
    size = _size(value)
    spend(size // 16 + 1)
    if size > _LARGEST:
        return MISSING
    try:
        value = plain(value)
    except Refused:
        return MISSING
    if isinstance(value, str) and kind in ("object", "array"):
        value = parsed(value)
    value = coerced(value, kind)
    if value is MISSING:
        return MISSING
    text = canonical_json(value)
    return MISSING if len(text) > _LARGEST or _PLACEHOLDER.search(text) else value


def _size(value: Json) -> int:
    """About the characters of a value as JSON; no more is looked at than what is allowed."""
    size, waiting = 0, [value]
    while waiting and size <= _LARGEST:
        item = waiting.pop()
        size += len(item) + 2 if isinstance(item, str) else 2
        if isinstance(item, dict):
            size += 4 * len(item)
            waiting += list(item.values())[:_LARGEST]
        elif isinstance(item, list):
            size += len(item)
            waiting += item[:_LARGEST]
    return size


def parsed(text: str) -> Json:
    """JSON that was written as text; MISSING if it is none."""
    try:
        return plain(json.loads(text, parse_constant=str)) if len(text) <= _LARGEST else MISSING
    except (ValueError, RecursionError, Refused):
        return MISSING


def dated(value: Json, node: Node, schemas: Schemas, depth: int = 0) -> Json:
    """The value with dates where a date is asked for, in place of the points in time that serializers make of them."""
    if isinstance(value, str):
        return value[:10] if node.own.get("format") == "date" and _POINT_IN_TIME.fullmatch(value) else value
    if depth >= DEEPEST:
        return value
    if isinstance(value, dict) and node.properties:
        parts = node.properties
        return {
            key: dated(item, schemas.node(parts[key]), schemas, depth + 1) if key in parts else item
            for key, item in value.items()
        }
    if isinstance(value, list) and node.items is not None:
        return [dated(item, schemas.node(node.items), schemas, depth + 1) for item in value]
    return value


class Samples:
    """Example values of the schemas of one document.

    Args:
        schemas: of the document.
        whole: every field must have an example, not only the required ones; such a value can be shown as a result.
    """

    def __init__(self, schemas: Schemas, whole: bool) -> None:
        self._schemas, self._whole = schemas, whole
        self._known: dict[tuple[int, int], tuple[Node, Json]] = {}  # by identity and depth

    def of(self, node: Node, above: tuple[int, ...] = ()) -> Json:
        """The value; MISSING if the schema states none."""
        if node.identity in above or len(above) >= DEEPEST:
            return MISSING
        known = self._known.get((node.identity, len(above)))
        if known is None or known[0] is not node:
            known = self._known[node.identity, len(above)] = (node, self._made(node, above))
        return known[1]

    def explicit(self, node: Node) -> Json:
        """The value that the schema states for itself as an example, without its fields."""
        kind = node.own.get("type")
        values = (stated_value(example, kind, self._schemas.spend) for example in node.examples)
        value = next((value for value in values if value is not MISSING and value != ""), MISSING)
        return value if value is MISSING else dated(value, node, self._schemas)

    def fallback(self, node: Node) -> Json:
        """The default, the constant, or the only value there is."""
        if "const" in node.own:
            return node.own["const"]
        values = [value for value in node.own.get("enum", ()) if value is not None]
        return node.own.get("default", values[0] if len(values) == 1 else MISSING)

    def _made(self, node: Node, above: tuple[int, ...]) -> Json:
        self._schemas.spend(1)
        if (value := self.explicit(node)) is not MISSING:
            return value
        above = (*above, node.identity)
        if node.properties:
            return self._object(node, above)
        if node.items is not None:
            item = self.of(self._schemas.node(node.items), above)
            return MISSING if item is MISSING else [item]
        if node.variants:
            return self.of(self._schemas.node(node.variants[0]), above)
        return MISSING

    def _object(self, node: Node, above: tuple[int, ...]) -> Json:
        made: dict[str, Json] = {}
        if len(node.properties) > MOST_FIELDS:
            return MISSING
        for name, child in node.properties.items():
            part = self._schemas.node(child)
            if part.write_only if self._whole else part.read_only:
                continue
            value = self.of(part, above)
            if value is MISSING and name in node.required and not self._whole:
                value = self.fallback(part)
            if value is not MISSING:
                made[name] = value
            elif self._whole or name in node.required:
                return MISSING
        return made or MISSING
