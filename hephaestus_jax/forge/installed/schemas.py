"""Python types as JSON Schema: annotations from the syntax tree, and the types that docstrings state in words."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]

# Names of types, without their module and in lower case, as annotations and docstrings spell them.
_TYPES = {
    "int": "integer",
    "integer": "integer",
    "integers": "integer",
    "ints": "integer",
    "float": "number",
    "floats": "number",
    "double": "number",
    "number": "number",
    "numbers": "number",
    "scalar": "number",
    "scalars": "number",
    "real": "number",
    "str": "string",
    "strs": "string",
    "string": "string",
    "strings": "string",
    "bool": "boolean",
    "bools": "boolean",
    "boolean": "boolean",
    "booleans": "boolean",
    "none": "null",
    "nonetype": "null",
    "list": "array",
    "lists": "array",
    "tuple": "array",
    "tuples": "array",
    "sequence": "array",
    "sequences": "array",
    "iterable": "array",
    "iterables": "array",
    "iterator": "array",
    "collection": "array",
    "set": "array",
    "frozenset": "array",
    "mutablesequence": "array",
    "abstractset": "array",
    "ndarray": "array",
    "ndarrays": "array",
    "array": "array",
    "arrays": "array",
    "dict": "object",
    "dictionary": "object",
    "dicts": "object",
    "mapping": "object",
    "mutablemapping": "object",
    "ordereddict": "object",
    "defaultdict": "object",
    "kwargs": "object",
}
# Generic types that stand for their argument.
# What NumPy and JAX accept as an array may be a single number.
_ARRAY_LIKE = {"array_like", "array-like", "arraylike", "tensorlike"}
_TRANSPARENT = {"annotated", "final", "classvar", "required", "notrequired", "readonly", "type_checking"}
_LONGEST_WORDED_TYPE = 200  # beyond it the "type" is prose


def schema_from_annotation(node: ast.expr | None) -> Schema:
    """The JSON Schema of an annotation, {} where JSON has no such type.

    A union in which one member has no JSON type has none either: its schema would refuse valid values.
    """
    match node:
        case ast.Constant(None):
            return {"type": "null"}
        case ast.Constant(str(text)):
            return _from_source(text)
        case ast.Name() | ast.Attribute():
            name = node.id if isinstance(node, ast.Name) else node.attr
            return _named(name)
        case ast.BinOp(left, ast.BitOr(), right):
            return union([schema_from_annotation(left), schema_from_annotation(right)])
        case ast.Subscript(ast.Name(name) | ast.Attribute(attr=name), arguments):
            items = arguments.elts if isinstance(arguments, ast.Tuple) else [arguments]
            return _generic(name.lower(), items)
    return {}


def _generic(name: str, arguments: list[ast.expr]) -> Schema:
    if name == "optional":
        return union([schema_from_annotation(arguments[0]), {"type": "null"}]) if arguments else {}
    if name == "union":
        return union([schema_from_annotation(item) for item in arguments])
    if name == "literal":
        return _enumeration(arguments)
    if name in _TRANSPARENT and arguments:
        return schema_from_annotation(arguments[0])
    schema = _named(name)
    if schema.get("type") == "array":
        # tuple[int, str] has a schema for each place; list[int] and tuple[int, ...] one for all
        if name == "tuple" and not (len(arguments) == 2 and _is_ellipsis(arguments[1])):
            places = [schema_from_annotation(item) for item in arguments]
            return {**schema, "prefixItems": places} if any(places) else schema
        items = schema_from_annotation(arguments[0]) if arguments else {}
        return {**schema, "items": items} if items else schema
    if schema.get("type") == "object" and len(arguments) == 2:
        values = schema_from_annotation(arguments[1])
        return {**schema, "additionalProperties": values} if values else schema
    return schema


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _enumeration(arguments: Iterable[ast.expr]) -> Schema:
    values = [value for item in arguments if (found := json_literal(item)) for value in found]
    return {"enum": values} if values else {}


def _named(name: str) -> Schema:
    if name.lower() in _ARRAY_LIKE:
        return {"type": ["array", "number"]}
    found = _TYPES.get(name.lower())
    return {"type": found} if found else {}


def _from_source(text: str) -> Schema:
    try:
        return schema_from_annotation(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def union(schemas: list[Schema]) -> Schema:
    """The schema of a value that satisfies one of `schemas`; {} when one of them says nothing."""
    if not all(schemas):
        return {}
    flat = [item for schema in schemas for item in schema.get("anyOf", [schema])]
    distinct = [item for index, item in enumerate(flat) if item not in flat[:index]]
    if len(distinct) == 1:
        return distinct[0]
    if all(set(item) == {"type"} for item in distinct):
        types = [kind for item in distinct for kind in _as_list(item["type"])]
        return {"type": list(dict.fromkeys(types))}
    if all(set(item) == {"enum"} for item in distinct):
        return {"enum": [value for item in distinct for value in item["enum"]]}
    return {"anyOf": distinct}


def admitting(schema: Schema, value: Any) -> Schema:
    """`schema`, widened where it refuses a default: "x: int = None" and "axis : int" with default "auto" are common."""
    kind = _json_type(value)
    if "anyOf" in schema:
        parts = schema["anyOf"]
        fits = any(admitting(part, value) == part for part in parts)
        return schema if fits else {**schema, "anyOf": [*parts, {"type": kind}]}
    if "enum" in schema:
        return schema if value in schema["enum"] else {**schema, "enum": [*schema["enum"], value]}
    if "type" not in schema:
        return schema
    types = _as_list(schema["type"])
    return schema if kind in types or (kind == "integer" and "number" in types) else {**schema, "type": [*types, kind]}


def _json_type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def schema_from_words(text: str) -> Schema:
    """The JSON Schema of a type that a docstring states: "int or None", "list of str", "{'a', 'b'}", "(M, N) ndarray".

    {} when the words name no JSON type; like `schema_from_annotation`, it says nothing rather than too much.
    """
    text = text.strip().rstrip(".,")
    if not text or len(text) > _LONGEST_WORDED_TYPE:
        return {}
    if re.fullmatch(r"\{[^{}]*\}", text):
        return _from_braces(text)
    as_annotation = _from_source(text)
    if as_annotation:
        return as_annotation
    alternatives = [part for part in re.split(r"\s*,?\s+or\s+|\s*\|\s*", text) if part]
    if len(alternatives) == 1:
        return _worded(text)
    # "int, float or None": what stands before the last "or" is a list too
    parts = [part.strip() for item in alternatives for part in _split_outside_brackets(item) if part.strip()]
    return union([schema_from_words(part) for part in parts])


def _worded(text: str) -> Schema:
    text = re.sub(r"^(an?|the|optional)\s+", "", text.strip(), flags=re.I)
    # shapes and dtypes around the noun: "(M, N) array_like", "array_like, shape (n,)", "ndarray of shape (n,)"
    text = re.sub(r"^\([^()]*\)\s*(?=\w)|^\{[^{}]*\}\s*(?=\w)|\s*\([^()]*\)$", "", text)
    text = re.sub(r",?\s*(of\s+)?(shape|dtype|size|length|ndim)\b.*$", "", text)
    sequence = re.fullmatch(
        r"(list|tuple|sequence|iterable|set|array|ndarray|array_like|array-like)s?\s+of\s+(.+)", text, re.I
    )
    if sequence:
        items = schema_from_words(sequence[2])
        return {"type": "array", "items": items} if items else {"type": "array"}
    if re.fullmatch(r"(dict|dictionary|mapping)\s+(of|from|mapping)\s.+", text, re.I):
        return {"type": "object"}
    words = re.sub(
        r"^(non-?negative|positive|negative|python|[012]-?d|two-dimensional|one-dimensional)\s+", "", text, flags=re.I
    )
    return _named(words.rpartition(".")[2] if re.fullmatch(r"[\w.\-]+", words) else words)


_LEADING_TYPE = re.compile(
    r"(?i)(?:an? )?(?:optional |python |scalar )*`{0,2}"
    r"(bool|boolean|int|integer|float|str|string|dict|dictionary)`{0,2}"
    r"(?: (?:whether|indicating|flag)\b|[,.;:](?=\s|$)(?!\s*(?:or|and|an?)\b)\s*`{0,2}(\w*))"
)


def schema_from_description(text: str) -> Schema:
    """The type that a description begins with, as Keras writes them: "Integer, the number of units", "Boolean. ..."."""
    match = _LEADING_TYPE.match(text)
    if not match or (match[2] or "").lower() in _TYPES:  # "int, float or str" is a list that goes on
        return {}
    return _named(match[1])


def _from_braces(text: str) -> Schema:
    """numpydoc's "{'C', 'F'}" is a choice of values, "{int, None}" a choice of types."""
    parts = [part for part in _split_outside_brackets(text[1:-1]) if part.strip()]
    values = []
    for part in parts:
        try:
            found = json_literal(ast.parse(part.strip(), mode="eval").body)
        except (SyntaxError, ValueError):
            found = None
        values.append(found)
    if all(found and (found[0] is None or isinstance(found[0], str | int | float)) for found in values):
        literals = [found[0] for found in values if found]
        return {"enum": literals} if any(value is not None for value in literals) else {"type": "null"}
    return union([schema_from_words(part) for part in parts])


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def json_literal(node: ast.expr | None) -> tuple[Any] | None:
    """(value,) when the expression is a literal that JSON can write and read back as it is, else None."""
    if node is None:
        return None
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return (value,) if _is_json(value) else None


def _is_json(value: Any) -> bool:
    match value:
        case None | bool() | int():
            return True
        case str():
            return value.isprintable() or value.encode("utf-8", "replace").decode("utf-8") == value  # no lone surrogate
        case float():
            return math.isfinite(value)
        case list():
            return all(map(_is_json, value))
        case dict():
            return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    return False
