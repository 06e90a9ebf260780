"""AWS, from the service models of its Python SDK."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hephaestus_jax.forge.clouds.expand import Member, Shape, expanded
from hephaestus_jax.forge.clouds.intents import intent, summary_first
from hephaestus_jax.forge.clouds.names import python_call, snake_case
from hephaestus_jax.forge.clouds.reading import fitting, is_shallow, json_object, mapping, result_text, sequence, text
from hephaestus_jax.forge.prose import clean, shortened
from hephaestus_jax.forge.sources.source import Package, SourceFile, source
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, ApiError, ApiExample, Json

PROVIDER = "amazonaws.com"
MOST_ERRORS, ERROR_CHARACTERS = 20, 400
DESCRIPTION_CHARACTERS = 6_000
_BOTOCORE = Package(
    "pypi", "botocore", "1.44.5", "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921", "Apache-2.0"
)
_EMPTY = re.compile(r"Returns? (?:an? )?(?:empty|no) (?:response|content)\.?", re.IGNORECASE)
_TERM = re.compile(r"^- ([A-Z][\w ]{2,40}) :\n+(?=\S)", re.MULTILINE)
_TYPES: dict[Json, dict[str, Json]] = {
    "structure": {"type": "object"},
    "list": {"type": "array"},
    "map": {"type": "object"},
    "string": {"type": "string"},
    "character": {"type": "string"},
    "integer": {"type": "integer"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "boolean": {"type": "boolean"},
    "timestamp": {"type": "string", "format": "date-time"},
    "blob": {"type": "string", "format": "byte"},
}
_LIMITS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
}


def newest_versions(paths: Iterable[str]) -> list[str]:
    """The service models of the newest version of each service: botocore/data/SERVICE/DATE/service-2.json.gz."""
    newest: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        if len(parts) == 5 and parts[:2] == ["botocore", "data"] and parts[4].startswith("service-2.json"):
            newest[parts[2]] = max(path, newest.get(parts[2], ""))
    return list(newest.values())


@source("botocore", _BOTOCORE, files=newest_versions, replaces=(f"{PROVIDER}*",))
def read_botocore(file: SourceFile, quarantine: Quarantine) -> Iterator[ApiDoc]:
    """The operations of AWS, in the newest version of each service, from the models of its Python SDK."""
    model = json_object(file, quarantine)
    if model is None:
        return
    service = _Service(file.path.split("/")[-3] if file.path.count("/") > 1 else "", model)
    examples = _examples(file, quarantine)
    for name, operation in mapping(model.get("operations")).items():
        if not isinstance(operation, Mapping):
            quarantine.add("malformed operation", file.place(name), type(operation).__name__)
            continue
        yield _operation_doc(service, file, name, operation, sequence(examples.get(name)))


def _examples(file: SourceFile, quarantine: Quarantine) -> Mapping[str, Json]:
    for name in ("examples-1.json", "examples-1.json.gz"):
        if beside := file.sibling(name):
            return mapping((json_object(beside, quarantine) or {}).get("examples"))
    return {}


@dataclass(frozen=True)
class _Service:
    """A service's model, telling its shapes level by level."""

    name: str
    model: Mapping[str, Json]
    _told: dict[str, Shape] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return text(mapping(self.model.get("metadata")).get("apiVersion"))

    def stated(self, name: str) -> Mapping[str, Json]:
        return mapping(mapping(self.model.get("shapes")).get(name))

    def shape(self, member: Mapping[str, Json]) -> Shape:
        """The shape that a member refers to, with the member's own words."""
        name = text(member.get("shape"))
        shape = self._told.get(name)
        if shape is None:
            shape = self._told[name] = self._shape(name)
        if member.get("jsonvalue") is True:
            shape = Shape({k: v for k, v in shape.told.items() if k == "description"})
        told = shape.told
        if words := _words(member):
            told = {**told, "description": words}
        if member.get("deprecated") is True:
            told = {**told, "deprecated": True}
        return shape if told is shape.told else replace(shape, told=told)

    def _shape(self, name: str) -> Shape:
        stated = self.stated(name)
        kind = stated.get("type")
        told = {} if stated.get("document") is True else dict(_TYPES.get(kind if isinstance(kind, str) else None, {}))
        if words := _words(stated):
            told["description"] = words
        values = [value for value in sequence(stated.get("enum")) if isinstance(value, str)]
        if values and told.get("type") == "string":
            told["enum"] = list(dict.fromkeys(values))
        told |= _limits(told, stated)
        if not told.get("type"):
            return Shape(told, name)
        required = {text(item) for item in sequence(stated.get("required"))}
        members = mapping(stated.get("members")) if kind == "structure" else {}
        return Shape(
            told,
            name,
            # the SDK makes up an idempotency token where none is given
            tuple(
                Member(key, part, key in required and part.get("idempotencyToken") is not True)
                for key, part in members.items()
                if isinstance(part, Mapping)
            ),
            mapping(stated.get("member")) if kind == "list" else None,
            mapping(stated.get("value")) if kind == "map" else None,
        )


def _words(stated: Mapping[str, Json]) -> str:
    words = _TERM.sub(r"- \1:", clean(text(stated.get("documentation"))))
    words = re.sub(r"(?<=\w)\.\.(?=\s|$)", ".", words)
    words = "" if _EMPTY.fullmatch(words) else words
    if stated.get("deprecated") is True and (reason := clean(text(stated.get("deprecatedMessage")))):
        words = words if reason in words else f"{words}\n\nDeprecated: {reason}".strip()
    return words


def _limits(told: Mapping[str, Json], stated: Mapping[str, Json]) -> dict[str, Json]:
    kind = told.get("type")
    if "enum" in told or told.get("format") in ("byte", "date-time") or kind not in _LIMITS:
        return {}
    limits = {}
    for key, limit in zip(_LIMITS[kind], (stated.get("min"), stated.get("max")), strict=True):
        counts = kind in ("string", "array")
        if isinstance(limit, int | float) and not isinstance(limit, bool) and (not counts or limit >= 0):
            limits[key] = int(limit) if counts else limit
    return limits


def _operation_doc(
    service: _Service, file: SourceFile, name: str, operation: Mapping[str, Json], examples: list[Json]
) -> ApiDoc:
    parameters = expanded(mapping(operation.get("input")), service.shape)
    returns = expanded(mapping(operation.get("output")), service.shape) if operation.get("output") else None
    schema = {"type": "object", "properties": {}, **parameters.schema}
    schema.pop("description", None)  # of the request's own structure: "Contains the parameters for …"
    function = snake_case(name)
    provenance = file.provenance(f"operations.{name}@{service.version}")
    return ApiDoc(
        name=f"{service.name}.{name}",
        provider=PROVIDER,
        description=shortened(summary_first(_words(operation)), DESCRIPTION_CHARACTERS),
        provenance=replace(provenance, processing=parameters.processing),
        parameters=schema,
        returns=returns.schema if returns and returns.schema.get("properties") else None,
        errors=tuple(_errors(service, sequence(operation.get("errors")))),
        examples=tuple(filter(None, (_example(function, schema, mapping(example)) for example in examples))),
        interface="rpc",
        function=function,
        deprecated=operation.get("deprecated") is True,
    )


def _errors(service: _Service, stated: list[Json]) -> Iterator[ApiError]:
    for error in stated[:MOST_ERRORS]:
        if name := text(mapping(error).get("shape")):
            words = _words(mapping(error)) or _words(service.stated(name))
            yield ApiError(name, shortened(words, ERROR_CHARACTERS))


def _example(function: str, parameters: Mapping[str, Json], stated: Mapping[str, Json]) -> ApiExample | None:
    given, returned = stated.get("input", {}), stated.get("output")
    if not isinstance(given, dict) or not is_shallow(given) or not is_shallow(returned):
        return None
    return ApiExample(
        call=python_call(f"client.{function}", given),
        result=result_text(returned) if isinstance(returned, dict) and json.dumps(returned) != "{}" else None,
        intent=intent(clean(text(stated.get("title"))), clean(text(stated.get("description")))) or None,
        arguments=fitting(given, parameters),
    )
