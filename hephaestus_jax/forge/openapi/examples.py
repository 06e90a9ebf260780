"""Uses of an operation: the values its parameters, body and response state as examples, as calls with results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlencode

from jsonschema.exceptions import SchemaError

from hephaestus_jax.forge.openapi.inputs import Content, Input, Inputs, templates
from hephaestus_jax.forge.openapi.patterns import BoundedValidator
from hephaestus_jax.forge.openapi.samples import Samples, dated, parsed, stated_value
from hephaestus_jax.forge.openapi.schemas import MISSING, Schemas, coerced
from hephaestus_jax.forge.prose import clean, shortened
from hephaestus_jax.formats.records import ApiExample, Json

MOST_EXAMPLES = 3  # of one operation
LARGEST_RESULT = 4_000  # characters
_WIDE = 100  # characters of JSON that still stand in one line
_STRINGS = 400  # of a result that are looked at for addresses
_EMPTY_NAME = re.compile(
    r"(?:default|examples?|response|request|sample|success|ok|body|value|application|json|[-_/ \d])*", re.I
)


class Examples:
    """The examples of one document's operations."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._requests, self._responses = Samples(schemas, whole=False), Samples(schemas, whole=True)

    def of(
        self, method: str, base: str, path: str, inputs: Inputs, success: Content | None, parameters: dict[str, Json]
    ) -> tuple[ApiExample, ...]:
        """Calls for which every required value is stated, and calls whose body or result is.

        `arguments` is given where the values are whole and valid against `parameters`.
        """
        results = self._named(success, self._responses) if success else {}
        bodies = self._named(inputs.body, self._requests) if inputs.body else {}
        made: list[ApiExample] = []
        for name, body in self._uses(inputs, bodies, results):
            paired = results.get(name, MISSING)
            if paired is MISSING and len(bodies) <= 1 and results:
                paired = next(iter(results.values()))
            intent, result = paired if paired is not MISSING else ("", MISSING)
            example = _Use(self, inputs, name, body, result, parameters).made(method, base, path)
            if example is not None and all(example.call != other.call for other in made):
                told = (bodies[name][0] if name in bodies else "") or intent
                made.append(ApiExample(example.call, example.result, told or None, example.arguments))
        return tuple(made[:MOST_EXAMPLES])

    def value_of(self, one: Input, name: str) -> tuple[Json, bool]:
        """The value of a parameter in the example of this name, and whether it is stated as an example."""
        kind = one.node.own.get("type")
        named = self._values(one.raw.get("examples"))
        stated = [named[name][1]] if name in named else []
        stated += [one.raw["example"]] if "example" in one.raw else []
        stated += [value for _, value in named.values()]
        for value in stated:
            if (found := stated_value(value, kind, self._schemas.spend)) is not MISSING and found != "":
                return dated(found, one.node, self._schemas), True
        found = self._requests.of(one.node)
        return (found, True) if found is not MISSING else (self._requests.fallback(one.node), False)

    def _uses(self, inputs: Inputs, bodies: dict[str, Any], results: dict[str, Any]) -> Iterator[tuple[str, Json]]:
        if bodies:
            for name, (_, body) in list(bodies.items())[: 2 * MOST_EXAMPLES]:
                yield name, body
            return
        names = {name for one in inputs.inputs for name in self._values(one.raw.get("examples"))}
        shared = [name for name in results if name in names]
        for name in shared[:MOST_EXAMPLES] or [next(iter(results), "")]:
            yield name, MISSING

    def _named(self, content: Content | None, samples: Samples) -> dict[str, tuple[str, Json]]:
        """Name → (what is said about it, value) of the examples of a body; the name "" of one that has none."""
        if content is None or content.is_binary:
            return {}
        kind = content.node.own.get("type")
        found: dict[str, tuple[str, Json]] = {}
        stated = {"": ("", content.media["example"])} if "example" in content.media else {}
        for name, (told, value) in {**stated, **self._values(content.media.get("examples"))}.items():
            if isinstance(value, str) and content.is_json and value.lstrip()[:1] in ("{", "["):
                value = parsed(value)
            if (
                value is not MISSING
                and (made := stated_value(value, kind, self._schemas.spend)) is not MISSING
                and made != ""
            ):
                found[name] = (told, dated(made, content.node, self._schemas))
        if not found and (made := samples.of(content.node)) is not MISSING:
            found[""] = ("", made)
        return found

    def _values(self, examples: Json) -> dict[str, tuple[str, Json]]:
        """The named examples that state a value, with what their summary says."""
        found: dict[str, tuple[str, Json]] = {}
        if isinstance(examples, dict):
            for name, example in list(examples.items())[:20]:
                example = self._schemas.references.resolved(example)
                if "value" in example:
                    found[name] = (_told(name, example), self._followed(example["value"]))
        return found

    def _followed(self, value: Json) -> Json:
        """The value, where a reference to another example stands for it (or for the items of a list)."""
        if isinstance(value, list) and len(value) <= 20:
            return [item if isinstance(item, list) else self._followed(item) for item in value]
        reference = value.get("$ref") if isinstance(value, dict) and len(value) == 1 else None
        if not isinstance(reference, str) or "/examples/" not in reference:
            return value
        example = self._schemas.references.resolved(value)
        return example.get("value", value)


class _Use:
    """One call in the making."""

    def __init__(
        self, examples: Examples, inputs: Inputs, name: str, body: Json, result: Json, parameters: dict[str, Json]
    ) -> None:
        self._inputs, self._body, self._result, self._parameters = inputs, body, result, parameters
        self._values: dict[str, Json] = {}  # by the unique names
        self._whole = True
        self._told = body is not MISSING
        for one in inputs.inputs:
            if one.place == "body" and body is not MISSING:
                continue
            value, told = examples.value_of(one, name)
            if value is not MISSING and (told or one.required):
                self._values[one.name] = value
                self._told |= told
            elif one.required:
                self._whole = False

    def made(self, method: str, base: str, path: str) -> ApiExample | None:
        """The example; None if it would show nothing."""
        self._take_from_addresses(path)
        result = None if self._result is MISSING else _json_text(self._result)
        if not (self._told and self._whole) and self._body is MISSING and result is None:
            return None
        arguments = self._arguments()
        if arguments is None and self._body is MISSING and self._result in (MISSING, {}, [], "", None):
            return None
        call = self._call(method, base + path)
        if len(call) > 2 * LARGEST_RESULT:
            return None
        return ApiExample(call, result, None, arguments)

    def _take_from_addresses(self, path: str) -> None:
        """Takes path parameters without a value from an address in the result that has the form of the path."""
        paths = [one for one in self._inputs.inputs if one.place == "path"]
        lacking = [one for one in paths if one.name not in self._values]
        address = _address_of(path)
        if not lacking or self._result is MISSING or address is None:
            return
        for text in _strings(self._result):
            if len(text) < 500 and (found := address.match(text)):
                values = dict(zip(templates(path), map(unquote, found.groups()), strict=True))
                typed = {one.name: coerced(values.get(one.stated), one.node.own.get("type")) for one in paths}
                if all(value is not MISSING for value in typed.values()):
                    self._values |= typed
                    self._told = True
                    self._whole = all(one.name in self._values for one in self._demanded())
                return

    def _demanded(self) -> list[Input]:
        given = self._body is not MISSING
        return [one for one in self._inputs.inputs if one.required and not (given and one.place == "body")]

    def _arguments(self) -> dict[str, Json] | None:
        """The values by the names of `parameters`; None where they are not whole or not valid."""
        if not self._whole:
            return None
        arguments = dict(self._values)
        if self._body is not MISSING:
            names = {one.stated: one.name for one in self._inputs.inputs if one.place == "body"}
            if not self._inputs.is_flat:
                arguments[names["body"]] = self._body
            elif isinstance(self._body, dict) and self._body.keys() <= names.keys():
                arguments |= {names[key]: value for key, value in self._body.items()}
            else:
                return None
        properties = self._parameters["properties"]
        if not arguments.keys() <= properties.keys() or (arguments == {} and self._result is MISSING):
            return None
        ordered = {name: arguments[name] for name in properties if name in arguments}
        try:
            return ordered if BoundedValidator(self._parameters).is_valid(ordered) else None
        except (SchemaError, RecursionError, ValueError, TypeError, OverflowError):
            return None

    def _call(self, method: str, path: str) -> str:
        """The request as people write it: method and address, and the body as JSON below."""
        query: list[tuple[str, str]] = []
        body: dict[str, Json] = {}
        path = path.partition("#")[0] or "/"  # what stands behind it only tells operations apart
        for one in self._inputs.inputs:
            if one.name not in self._values:
                continue
            value = self._values[one.name]
            if one.place == "path":
                path = path.replace(f"{{{one.stated}}}", quote(_word(value), safe=":@,+$~()'*"))
            elif one.place == "query":
                query += _query(one.stated, value)
            elif one.place == "body":
                body[one.stated] = value
        address = path + ("?" + urlencode(query, safe=":/,@*[]$'()", quote_via=quote) if query else "")
        sent: Json = self._body
        if sent is MISSING and body:
            sent = body if self._inputs.is_flat else next(iter(body.values()))
        return f"{method} {address}" + ("" if sent is MISSING else "\n\n" + _body_text(sent))


def _address_of(path: str) -> re.Pattern[str] | None:
    """What an address looks like that leads to this path; a group for each template.

    It may lead to something below a path that ends in a word; below a template it could all be one value, such as a
    Git reference with slashes. None for a path without words of its own, and for templates side by side, which could
    be read in many ways.
    """
    parts = re.split(r"\{([^{}]+)\}", path)
    crowded = any(segment.count("{") > 1 for segment in path.split("/"))
    if crowded or path.count("/") < 2 or len(set(parts[1::2])) != len(parts[1::2]):
        return None
    pattern = r"([^/?#{}\s]+)".join(map(re.escape, parts[::2]))
    end = "?#{" if path.endswith("}") else "/?#{"
    return re.compile(rf"https?://[^/\s]+(?:/[^/\s?#]+){{0,3}}{pattern}(?=[{end}]|$)")


def _query(name: str, value: Json) -> list[tuple[str, str]]:
    if isinstance(value, list):
        return [(name, _word(item)) for item in value]
    if isinstance(value, dict):
        return [(f"{name}[{key}]", _word(item)) for key, item in value.items()]
    return [(name, _word(value))]


def _word(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _body_text(value: Json) -> str:
    return value if isinstance(value, str) else _lines(value)


def _json_text(value: Json) -> str | None:
    if value in ("", None):
        return None
    text = value if isinstance(value, str) else _lines(value)
    if len(text) > LARGEST_RESULT and not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LARGEST_RESULT else None


def _lines(value: Json) -> str:
    """JSON in one line if that is short, else indented."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDE else json.dumps(value, ensure_ascii=False, indent=2)


def _strings(value: Json) -> Iterator[str]:
    """The strings of a value in its order, at most `_STRINGS`."""
    waiting, count = [value], 0
    while waiting and count < _STRINGS:
        item = waiting.pop()
        count += 1
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            # what stands at the top is about the thing itself, what is nested may be about another
            waiting += reversed(sorted(item.values(), key=lambda part: not isinstance(part, str)))
        elif isinstance(item, list):
            waiting += reversed(item)


def _told(name: Json, example: dict[str, Any]) -> str:
    """What an example shows: its summary or description, if that says more than that it is one."""
    for key in ("summary", "description"):
        text = clean(example[key]) if isinstance(example.get(key), str) else ""
        if text and not _EMPTY_NAME.fullmatch(text) and text != name and " " in text:
            return shortened(text, 300)
    return ""
