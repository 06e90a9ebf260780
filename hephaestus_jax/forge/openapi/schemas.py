"""Schemas of OpenAPI as single JSON Schema objects (draft 2020-12): what one node of a schema says, all told.

A `Node` is a schema with its reference followed, its `allOf` merged, its keywords made valid and its children still as
the document has them. `expand` puts nodes together to a tree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from hephaestus_jax.forge.openapi.documents import DEEPEST, Refused, plain, text_of
from hephaestus_jax.forge.openapi.patterns import is_safe_pattern
from hephaestus_jax.forge.openapi.references import References
from hephaestus_jax.forge.openapi.wording import worded
from hephaestus_jax.forge.prose import clean
from hephaestus_jax.formats.records import Json, canonical_json

MOST_PARTS = 64  # of an `allOf`
MOST_VARIANTS = 12  # of a `oneOf` or `anyOf`
MOST_NODE_PROPERTIES = 2_000
MOST_VALUES = 100  # of an enumeration that stay a constraint
MOST_STEPS = 20_000_000  # nodes and properties looked at for one file
LONGEST_VALUE = 1_000  # characters of a default
LONGEST_CHAIN = 24  # references, parts and variants on the way to one node

MISSING: Any = object()  # no value; None is one
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_TYPE_NAMES = {
    "any": None, "bool": "boolean", "date": "string", "date-time": "string", "datetime": "string", "dict": "object",
    "double": "number", "file": "string", "float": "number", "int": "integer", "int32": "integer", "int64": "integer",
    "list": "array", "long": "integer", "map": "object", "str": "string", "text": "string", "timestamp": "string",
    "url": "string", "uuid": "string",
}  # fmt: skip
_TYPE_WORDS = frozenset([*TYPES, "bool", "none", "list", "str", "text", "enum"])  # as a format they say nothing
_FORMATS = {"datetime": "date-time", "google-datetime": "date-time", "timestamp": "date-time", "guid": "uuid"}
_WHOLE_NUMBERS = frozenset(["int", "integer", "int32", "int64", "long"])
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_ABOUT = {"uniqueItems": "array", "multipleOf": "number", **dict.fromkeys(_BOUNDS, "number")} | {
    key: {"Length": "string", "Items": "array", "Properties": "object"}[key[3:]] for key in _COUNTS
}  # the type of values that a constraint is about
_LIMITS_OF_TYPES = (2**31 - 1, -(2**31))  # what a number type can hold says nothing about the parameter


@dataclass(frozen=True)
class Node:
    """One schema, without its children.

    Attributes:
        own: valid keywords but for description and children.
        identity: of the schema that a reference led to; the same again further down means recursion.
        additional: schema of further properties, False if there may be none, None if nothing is said.
        examples: values the schema states for itself, most particular first.
    """

    identity: int = 0
    own: dict[str, Json] = field(default_factory=dict)
    description: str = ""
    title: str = ""
    properties: dict[str, Json] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    items: Json = None
    places: tuple[Json, ...] = ()  # prefixItems
    additional: Json = None
    variants: tuple[Json, ...] = ()
    more_variants: int = 0
    read_only: bool = False
    write_only: bool = False
    examples: tuple[Json, ...] = ()

    @property
    def type(self) -> str:
        """The one type beside null, "" if there is none or several."""
        stated = self.own.get("type", "")
        kinds = [kind for kind in stated if kind != "null"] if isinstance(stated, list) else [stated]
        return kinds[0] if len(kinds) == 1 else ""

    @property
    def is_bare(self) -> bool:
        """Whether nothing at all is said about values."""
        children = self.properties or self.variants or self.items is not None or self.additional is not None
        return not (self.own or children or self.places)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is said, not even in words."""
        return self.is_bare and not self.description and not self.title


EMPTY = Node()


class Schemas:
    """The nodes of one document, each made once.

    Raises:
        Refused: from every method, when the file has cost `MOST_STEPS` steps.
    """

    def __init__(self, references: References) -> None:
        self.references = references
        self.steps = 0
        self.patterns_left_out = 0
        self._nodes: dict[int, tuple[Json, Node]] = {}  # the schema is kept: its id must not pass to another one
        self._open: list[int] = []

    def spend(self, steps: int) -> None:
        """Counts work, and ends it where it is too much."""
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise Refused("too large when resolved", f"more than {MOST_STEPS:,} schema nodes")

    def node(self, schema: Json) -> Node:
        """The node of a schema of the document; an empty one for what is no schema."""
        if isinstance(schema, Node):
            return schema
        if not isinstance(schema, dict):
            return EMPTY
        if known := self._nodes.get(id(schema)):
            return known[1]
        if id(schema) in self._open or len(self._open) >= LONGEST_CHAIN:
            return Node(id(schema))  # it contains itself as a part, or hides behind too many others
        self._open.append(id(schema))
        try:
            node = self._made(schema)
        finally:
            self._open.pop()
        self._nodes[id(schema)] = (schema, node)
        return node

    def _made(self, schema: dict[str, Json]) -> Node:
        self.spend(1 + len(schema))
        if isinstance(reference := schema.get("$ref"), str):
            target = self.node(self.references.target(reference))
            beside = {key: value for key, value in schema.items() if key != "$ref" and not key.startswith("x-")}
            if not beside:
                return target
            own = self._own(beside)
            # a stated description or default is this use's; everything else is what is referred to
            return self._merged(own, target, target.identity)
        node = self._own(schema)
        for part in _list(schema.get("allOf"))[:MOST_PARTS]:
            node = self._merged(node, self.node(part), node.identity)
        return self._with_variants(node, schema)

    def _own(self, schema: dict[str, Json]) -> Node:
        own, more = self._keywords(schema)
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        if len(properties) > MOST_NODE_PROPERTIES:
            properties = dict(list(properties.items())[:MOST_NODE_PROPERTIES])
        self.spend(len(properties))
        stated = schema.get("description")
        description, read_only = worded(stated) if isinstance(stated, str) else ("", False)
        items = schema.get("items")
        places = _list(schema.get("prefixItems")) or (items if isinstance(items, list) else [])
        additional = schema.get("additionalProperties")
        return Node(
            identity=id(schema),
            own=own,
            description=f"{description.rstrip('.')}. {more}".lstrip(". ") if more else description,
            title=clean(schema["title"]) if isinstance(schema.get("title"), str) else "",
            properties={text_of(name): value for name, value in properties.items() if isinstance(name, str)},
            required=frozenset(text_of(name) for name in _list(schema.get("required")) if isinstance(name, str)),
            items=items if isinstance(items, dict) else None,
            places=tuple(places[:MOST_VARIANTS]),
            additional=additional if additional is False or (isinstance(additional, dict) and additional) else None,
            read_only=schema.get("readOnly") is True or read_only,
            write_only=schema.get("writeOnly") is True,
            examples=_examples(schema),
        )

    def _keywords(self, schema: dict[str, Json]) -> tuple[dict[str, Json], str]:
        """The valid keywords of this node, and in words what cannot be one."""
        made: dict[str, Json] = {}
        more = ""
        if kinds := _types(schema):
            made["type"] = kinds[0] if len(kinds) == 1 else kinds
        form = schema.get("format")
        if isinstance(form, str) and form and form.lower() not in _TYPE_WORDS:
            known = form.lower() if form.lower() in _WHOLE_NUMBERS else text_of(form)[:60]
            made["format"] = _FORMATS.get(form.lower(), known)
        elif schema.get("type") == "file":
            made["format"] = "binary"
        if isinstance(values := schema.get("enum"), list) and values:
            nullable = [None] if schema.get("nullable") is True and None not in values else []
            if len(values) > MOST_VALUES:
                shown = ", ".join(f"`{text_of(str(value))[:60]}`" for value in values[:5])
                more = f"One of {len(values):,} values, among them {shown}."
            elif len(told := canonical_json(kept := _plain(values + nullable))) <= 20 * LONGEST_VALUE and told:
                made["enum"] = _typed_values(kept, made.get("type"))
        if "const" in schema and (value := _plain(schema["const"])) is not MISSING:
            made["const"] = value
        if schema.get("default") is not None:
            value = coerced(_plain(schema["default"]), made.get("type"))
            if value is not MISSING and len(canonical_json(value)) <= LONGEST_VALUE:
                made["default"] = value
        made |= _constraints(schema, ["number" if kind == "integer" else kind for kind in kinds])
        if isinstance(pattern := schema.get("pattern"), str) and pattern and (not kinds or "string" in kinds):
            if is_safe_pattern(pattern) and text_of(pattern) == pattern:
                made["pattern"] = pattern
            else:
                self.patterns_left_out += 1
        if schema.get("deprecated") is True:
            made["deprecated"] = True
        return made, more

    def _merged(self, node: Node, part: Node, identity: int) -> Node:
        """Both together; where they differ, the first one is the more particular."""
        self.spend(1 + len(part.properties))
        own = {**part.own, **node.own}
        if node.own.get("type") == "object" and part.own.get("type") not in (None, "object") and not node.properties:
            own["type"] = part.own["type"]  # "object" is often written by habit
        if "null" in _list(part.own.get("type")) + _list(node.own.get("type")) and isinstance(own.get("type"), str):
            own["type"] = [own["type"], "null"] if own["type"] != "null" else "null"
        properties = node.properties or part.properties
        if node.properties and part.properties:
            properties = {**node.properties, **{k: v for k, v in part.properties.items() if k not in node.properties}}
        if len(properties) > MOST_NODE_PROPERTIES:
            properties = dict(list(properties.items())[:MOST_NODE_PROPERTIES])
        return Node(
            identity=identity,
            own=own,
            description=node.description or part.description,
            title=node.title or part.title,
            properties=properties,
            required=node.required | part.required,
            items=part.items if node.items is None else node.items,
            places=node.places or part.places,
            additional=part.additional if node.additional is None else node.additional,
            variants=node.variants or part.variants,
            more_variants=node.more_variants or part.more_variants,
            read_only=node.read_only or part.read_only,
            write_only=node.write_only or part.write_only,
            examples=node.examples or part.examples,
        )

    def _with_variants(self, node: Node, schema: dict[str, Json]) -> Node:
        """`oneOf` becomes `anyOf` too: with deeper fields left out, forms may no longer exclude each other."""
        stated = _list(schema.get("anyOf")) or _list(schema.get("oneOf"))
        seen: dict[int, Node] = {}
        nullable = schema.get("nullable") is True and "type" not in node.own
        for variant in stated[:MOST_VARIANTS]:
            made = self.node(variant)
            if made.own.get("type") == "null" and not made.properties:
                nullable = True
            elif made.own or not made.is_bare:
                seen.setdefault(made.identity, made)
        forms = list(seen.values())
        more = max(0, len(stated) - MOST_VARIANTS)
        if len(forms) == 1 and not more:
            node = self._merged(node, forms[0], forms[0].identity if not node.properties else node.identity)
            kind = node.own.get("type")
            if nullable and isinstance(kind, str) and kind != "null":
                node = replace(node, own={**node.own, "type": [kind, "null"]})
        elif forms:
            if nullable:
                forms.append(Node(own={"type": "null"}))
            node = replace(node, variants=tuple(forms), more_variants=more)
        return node


def coerced(value: Json, kind: Json) -> Json:
    """The value in the type it should have, where text or number is the only difference; else MISSING.

    Addresses and headers carry all values as text, and descriptions often state them so.
    """
    kinds = kind if isinstance(kind, list) else [kind] if kind else []
    if value is MISSING or not kinds or _is_of(value, kinds):
        return value
    if isinstance(value, str):
        text = value.strip()
        if "integer" in kinds and text.removeprefix("-").isdecimal() and len(text) < 20 and text.isascii():
            return int(text)
        if "number" in kinds and len(text) < 40:
            try:
                number = float(text)
                return number if math.isfinite(number) else MISSING
            except ValueError:
                return MISSING
        if "boolean" in kinds and text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif "string" in kinds and isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    elif "integer" in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    return MISSING


def _is_of(value: Json, kinds: list[Json]) -> bool:
    if value is None:
        return "null" in kinds
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, int):
        return "integer" in kinds or "number" in kinds
    if isinstance(value, float):
        return "number" in kinds
    return ("string" if isinstance(value, str) else "array" if isinstance(value, list) else "object") in kinds


def _types(schema: dict[str, Json]) -> list[str]:
    stated = [kind for kind in _list(schema.get("type")) if isinstance(kind, str)]
    named = (kind if kind in TYPES else _TYPE_NAMES.get(kind.strip().lower(), kind.strip().lower()) for kind in stated)
    kinds = list(dict.fromkeys(kind for kind in named if kind in TYPES))
    if str(schema.get("format")).lower() in _WHOLE_NUMBERS:
        kinds = list(dict.fromkeys("integer" if kind == "number" else kind for kind in kinds))
    if not kinds:
        values = schema.get("enum")
        if isinstance(schema.get("properties"), dict) and schema["properties"]:
            kinds = ["object"]
        elif isinstance(schema.get("items"), dict):
            kinds = ["array"]
        elif isinstance(values, list) and values and all(isinstance(value, str) for value in values):
            kinds = ["string"]
        elif isinstance(schema.get("additionalProperties"), dict) and schema["additionalProperties"]:
            kinds = ["object"]
    if (schema.get("nullable") is True or schema.get("x-nullable") is True) and kinds and "null" not in kinds:
        kinds.append("null")
    return kinds


def _constraints(schema: dict[str, Json], kinds: list[str]) -> dict[str, Json]:
    """The valid constraints that are about values of these types."""
    stated = {key: value for key, value in schema.items() if not kinds or _ABOUT.get(key) in kinds}
    made: dict[str, Json] = {}
    for key in _COUNTS:
        if _is_number(value := stated.get(key)) and isinstance(value, int) and 0 <= value < 2**31 - 1:
            made[key] = value
    for key in _BOUNDS:
        if _is_number(value := stated.get(key)) and abs(value) < 2**53 and value not in _LIMITS_OF_TYPES:
            made[key] = value
    for key, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if stated.get(exclusive) is True and key in made:  # the form of draft 4, which OpenAPI 3.0 uses
            made[exclusive] = made.pop(key)
    if _is_number(step := stated.get("multipleOf")) and step > 0:
        made["multipleOf"] = step
    if stated.get("uniqueItems") is True:
        made["uniqueItems"] = True
    return made


def _is_number(value: Json) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _examples(schema: dict[str, Json]) -> tuple[Json, ...]:
    found = [schema["example"]] if "example" in schema else []
    found += _list(schema.get("examples")) if isinstance(schema.get("examples"), list) else []
    return tuple(found[:3])


def _typed_values(values: list[Json], kind: Json) -> list[Json]:
    """Values of an enumeration in its type; as they are where that is not possible for all of them."""
    typed = [coerced(value, kind) for value in values]
    return values if any(value is MISSING for value in typed) else list({canonical_json(v): v for v in typed}.values())


def _plain(value: Json) -> Json:
    try:
        return plain(value, DEEPEST - 20)
    except Refused:
        return MISSING


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [] if value is None else [value]
