"""Google's APIs, from the discovery documents that its Python client carries."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from hephaestus_jax.forge.clouds.expand import Expanded, Member, Shape, expanded
from hephaestus_jax.forge.clouds.google_words import is_unusable, worded
from hephaestus_jax.forge.clouds.reading import json_object, mapping, sequence, text
from hephaestus_jax.forge.sources.source import Package, SourceFile, source
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, Json

PROVIDER = "googleapis.com"
_CLIENT = Package(
    "pypi",
    "google-api-python-client",
    "2.202.0",
    "aaa90064c9bb642ff1d065b22ca8958a2cb6e345909cefe70d0e5452fc50e08b",
    "Apache-2.0",
)
_DEEPEST_RESOURCE = 20
_TYPES = frozenset(["string", "integer", "number", "boolean", "array", "object"])
_LIMITS = {"minimum": "minimum", "maximum": "maximum"}
_FORMATS = {"google-datetime": "date-time"}
_LONGEST_PATTERN = 200
_NECESSITY = re.compile(
    r"^\W{0,2}(required|optional|output[ -]only|input[ -]only|read[ -]only|immutable|identifier)\b"
    r"(?:[\])*]|[.:;](?=\s|$))+\s*",
    re.IGNORECASE,
)
_SET_BY_SERVICE = re.compile(r"(?:^|[.!?`\"]\s+|\[)\W{0,2}(?:output|read)[ _-]only[\].]?\s*$", re.IGNORECASE)


@source(
    "google_discovery",
    _CLIENT,
    files="googleapiclient/discovery_cache/documents/*.json",
    replaces=(f"{PROVIDER}*",),
)
def read_google_discovery(file: SourceFile, quarantine: Quarantine) -> Iterator[ApiDoc]:
    """The methods of Google's REST APIs, in all versions, from the discovery documents of its Python client."""
    document = json_object(file, quarantine)
    if document is None or document.get("kind") == "discovery#directoryList":  # the list of the documents themselves
        return
    api = _Api(document, text(document.get("name")), text(document.get("version")))
    if not api.name:
        quarantine.add("no API name", file.place(), "the document states no name")
        return
    for where, name, method in _methods(document, file, quarantine):
        doc = _method_doc(api, file, where, name, method)
        if doc is None:
            quarantine.add("malformed method", file.place(where), "no HTTP method or path")
        elif doc.description:  # without one, nothing is documented
            yield doc


@dataclass(frozen=True)
class _Api:
    document: Mapping[str, Json]
    name: str
    version: str

    @property
    def host(self) -> str:
        link = text(self.document.get("documentationLink"))
        return re.sub(r"^https?://", "", link).rstrip("/")

    @functools.cached_property
    def schemas(self) -> Mapping[str, Json]:
        return mapping(self.document.get("schemas"))

    def address(self, path: str) -> str:
        """Where a method is served, with plain placeholders: "{+name}" is "{name}"."""
        base = text(self.document.get("baseUrl")) or text(self.document.get("rootUrl"))
        return base.rstrip("/") + "/" + re.sub(r"\{[+#./;?&]?(\w+)[*]?\}", r"{\1}", path).lstrip("/")


def _methods(
    document: Mapping[str, Json], file: SourceFile, quarantine: Quarantine
) -> Iterator[tuple[str, str, Mapping[str, Json]]]:
    """Place, dotted name below the API, and description of each method, in the order of the document."""
    stack: list[tuple[str, str, Mapping[str, Json], int]] = [("", "", document, 0)]
    while stack:
        where, name, resource, depth = stack.pop()
        if depth > _DEEPEST_RESOURCE:
            quarantine.add("resources nested too deeply", file.place(where), f"more than {_DEEPEST_RESOURCE} levels")
            continue
        for key, method in mapping(resource.get("methods")).items():
            place = f"{where}methods.{key}"
            if isinstance(method, Mapping):
                yield place, f"{name}{key}", method
            else:
                quarantine.add("malformed method", file.place(place), type(method).__name__)
        inner = [(key, mapping(part)) for key, part in mapping(resource.get("resources")).items()]
        stack += [(f"{where}resources.{key}.", f"{name}{key}.", part, depth + 1) for key, part in reversed(inner)]


def _method_doc(api: _Api, file: SourceFile, where: str, name: str, method: Mapping[str, Json]) -> ApiDoc | None:
    verb, path = text(method.get("httpMethod")), method.get("path")
    if not verb or not isinstance(path, str):
        return None
    parameters = expanded(_Call(api.name, name, method), _Reader(api.schemas, inputs=True, creates=verb == "POST").call)
    returns: Expanded | None = None
    if response := mapping(method.get("response")):
        returns = expanded(response, _Reader(api.schemas, inputs=False, creates=False).shape)
    provenance = file.provenance(f"{where}@{api.version}", host=api.host)
    return ApiDoc(
        name=f"{api.name}.{name}",
        provider=PROVIDER,
        description=_description(method),
        provenance=replace(provenance, processing=parameters.processing),
        signature=f"{verb} {api.address(path)}",
        parameters={"type": "object", **{"properties": {}}, **parameters.schema},
        returns=returns.schema if returns and len(returns.schema) > 0 else None,
        interface="rest",
        function=re.sub(r"\W", "_", name, flags=re.ASCII),
        deprecated=method.get("deprecated") is True,
    )


def _description(method: Mapping[str, Json]) -> str:
    stated = worded(text(method.get("description")))
    upload = mapping(method.get("mediaUpload"))
    if accepted := [kind for kind in sequence(upload.get("accept")) if isinstance(kind, str) and kind != "*/*"]:
        stated += f"\n\nThe media itself can be uploaded with the call: {', '.join(accepted)}."
    return stated.strip()


@dataclass(frozen=True)
class _Call:
    """What a method takes: the root of its parameters."""

    api: str
    name: str
    method: Mapping[str, Json]


@dataclass(frozen=True)
class _Parameter:
    """A part of a call, with where it goes."""

    place: str
    stated: Mapping[str, Json]
    repeated: bool = False


@dataclass(frozen=True)
class _Reader:
    """Tells the schemas of a discovery document level by level.

    Args:
        schemas: the document's own.
        inputs: whether fields that only the service sets are left out.
        creates: whether fields that the words call required are so (they are when something is created, but not
            when it is changed in part).
    """

    schemas: Mapping[str, Json]
    inputs: bool
    creates: bool

    def call(self, described: _Call | _Parameter | Mapping[str, Json]) -> Shape:
        """The shape of what a method takes, or of a part of it."""
        if isinstance(described, _Call):
            return Shape({"type": "object"}, members=self._arguments(described))
        if not isinstance(described, _Parameter):
            return self.shape(described)
        shape = self.shape(described.stated)
        told = {**shape.told, "x-in": described.place}
        if described.repeated:
            description = told.pop("description", None)
            told.pop("x-in")
            whole: dict[str, Json] = {"type": "array", "x-in": described.place}
            if description:
                whole["description"] = description
            return Shape(whole, items={**described.stated, "description": "", "enumDescriptions": []})
        return replace(shape, told=told)

    def shape(self, stated: Mapping[str, Json]) -> Shape:
        """The shape of one schema of the document."""
        target, name = stated, ""
        if reference := text(stated.get("$ref")):
            target, name = mapping(self.schemas.get(reference)), reference
        told = _told(target, text(stated.get("description")) or text(target.get("description")))
        members = tuple(
            Member(key, part, self._required(part))
            for key, part in mapping(target.get("properties")).items()
            if isinstance(part, Mapping) and not (self.inputs and _is_never_sent(key, part))
        )
        kind = told.get("type")
        items, values = target.get("items"), target.get("additionalProperties")
        return Shape(
            told,
            name,
            members if kind == "object" else (),
            items if kind == "array" and isinstance(items, Mapping) else None,
            values if kind == "object" and isinstance(values, Mapping) else None,
        )

    def _arguments(self, call: _Call) -> tuple[Member, ...]:
        stated = {
            key: part
            for key, part in mapping(call.method.get("parameters")).items()
            if isinstance(part, Mapping) and not (_is_unusable(part) and part.get("required") is not True)
        }
        order = [name for name in sequence(call.method.get("parameterOrder")) if name in stated]
        members = []
        for name in dict.fromkeys([*order, *stated]):
            part = stated[name]
            place = text(part.get("location")) or "query"
            required = part.get("required") is True or ("required" not in part and _says_required(part))
            members.append(Member(name, _Parameter(place, part, part.get("repeated") is True), required))
        return (*members, *self._body(call, frozenset(stated)))

    def _body(self, call: _Call, taken: frozenset[str]) -> Iterator[Member]:
        request = mapping(call.method.get("request"))
        if not request:
            return
        body = self.shape(request)
        if not body.members:
            if body.told.get("type") == "object" and body.values is None:  # a request message without fields
                return
            yield Member("body" if "body" not in taken else "body_", _Parameter("body", request))
            return
        method = text(call.method.get("id")) or f"{call.api}.{call.name}"
        for member in body.members:
            name = f"body_{member.name}" if member.name in taken else member.name
            annotations = mapping(member.described.get("annotations"))
            required = member.required or method in sequence(annotations.get("required"))
            # the same value stands in the path already
            yield Member(name, _Parameter("body", member.described), required and name == member.name)

    def _required(self, part: Mapping[str, Json]) -> bool:
        return self.inputs and self.creates and _says_required(part)


def _says_required(part: Mapping[str, Json]) -> bool:
    found = _NECESSITY.match(text(part.get("description")))
    return found is not None and found[1].lower() == "required"


def _is_never_sent(name: str, part: Mapping[str, Json]) -> bool:
    """Whether only the service sets a field, or nobody does; `kind` says which message it is, as the method does."""
    found = _NECESSITY.match(text(part.get("description")))
    is_output = found is not None and found[1].lower().startswith(("output", "read"))
    is_output |= part.get("readOnly") is True or _SET_BY_SERVICE.search(text(part.get("description"))) is not None
    is_kind = name == "kind" and "#" in f"{part.get('default')} {part.get('description')}"
    return is_output or is_kind or _is_unusable(part)


def _is_unusable(part: Mapping[str, Json]) -> bool:
    return is_unusable(text(part.get("description")))


def _told(stated: Mapping[str, Json], description: str) -> dict[str, Json]:
    kind = stated.get("type")
    told: dict[str, Json] = {}
    if kind in _TYPES:
        told["type"] = kind
    elif "properties" in stated:
        told["type"] = "object"
    if words := _words(stated, description):
        told["description"] = words
    if form := text(stated.get("format")):
        told["format"] = _FORMATS.get(form, form)
    values = [value for value in sequence(stated.get("enum")) if isinstance(value, str)]
    if values and kind == "string":
        told["enum"] = list(dict.fromkeys(values))
    if kind == "string" and _is_pattern(pattern := text(stated.get("pattern"))):
        told["pattern"] = pattern
    for key in _LIMITS:
        if (limit := _scalar(kind, stated.get(key))) is not None and kind in ("integer", "number"):
            told[key] = limit
    if (default := _scalar(kind, stated.get("default"))) is not None:
        told["default"] = default
    if stated.get("deprecated") is True:
        told["deprecated"] = True
    return told


def _words(stated: Mapping[str, Json], description: str) -> str:
    words = _NECESSITY.sub("", worded(description))
    while words != (further := _NECESSITY.sub("", words)):
        words = further
    told = []
    for value, meaning in zip(sequence(stated.get("enum")), sequence(stated.get("enumDescriptions")), strict=False):
        if not isinstance(value, str) or re.search(
            r"^UNSPECIFIED|_UNSPECIFIED$", value
        ):  # no more than that nothing was said
            continue
        if isinstance(meaning, str) and meaning.strip():
            told.append(f"- `{value}`: {' '.join(worded(meaning).split())}")
    return "\n".join([words, *told]).strip()


def _scalar(kind: Json, stated: Json) -> Json:
    """A limit or default, which discovery documents write as a string, as its type has it; None if it is none."""
    if not isinstance(stated, str):
        return stated if isinstance(stated, int) and kind in ("integer", "number") else None
    try:
        if kind == "boolean":
            return {"true": True, "false": False}.get(stated)
        if kind == "integer":
            return int(stated)
        if kind == "number":
            value = float(stated)
            return value if abs(value) < 1e300 else None
    except ValueError:
        return None
    return stated if kind == "string" else None


def _is_pattern(pattern: str) -> bool:
    """Whether a regular expression is valid and plain: one with repetitions of repetitions can take forever."""
    if not pattern or len(pattern) > _LONGEST_PATTERN or re.search(r"[+*}]\)*[+*{]|\)[+*{]", pattern):
        return False
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True
