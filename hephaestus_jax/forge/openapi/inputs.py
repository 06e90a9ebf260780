"""What an operation takes: its path, query and header parameters and the fields of its body, by unique names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from hephaestus_jax.forge.openapi.documents import text_of
from hephaestus_jax.forge.openapi.schemas import Node, Schemas
from hephaestus_jax.forge.openapi.wording import says_required, without_echo, without_required, worded
from hephaestus_jax.forge.prose import clean
from hephaestus_jax.formats.records import Json

Place = Literal["path", "query", "header", "body"]
MOST_PARAMETERS = 1_000  # that are looked at
_TEMPLATE = re.compile(r"\{([^{}]+)\}")
# Headers that are no parameters in OpenAPI, that identify the caller, or that a client fills in by itself.
_NO_PARAMETERS = re.compile(
    r"accept|content-type|content-length|authorization|host|cookie|user-agent|(?:x-)?api-?_?key|apikey|jwt|"
    r"x-amz-(?:content-sha256|date|algorithm|credential|security-token|signature|signedheaders)|x-amz-target|"
    r"(?:x-)?(?:access|auth)[-_]?token|oauth[-_]token|ocp-apim-subscription-key|\$\.xgafv",
    re.IGNORECASE,
)
_KEY_HEADER = re.compile(
    r".*(?:api|user|application|app|dev|auth|access|client|subscription|session|csrf|bearer)[-_]?(?:key|token|secret)",
    re.IGNORECASE,
)
_KEY_NAME = re.compile(r"key|token|auth|api[-_]?key|[a-z]*access[-_]?token|hapikey|app_?id|app_?key", re.IGNORECASE)
_KEY = re.compile(
    r"(?:your |the |an? |user'?s? |registered |personal |private |secret |developer |valid )*"
    r"(?:(?:api|app|application|subscription)[- ]?key\b|access token\b|oauth (?:2\.0 )?token\b|bearer token\b)",
    re.IGNORECASE,
)
_OWN_KEY = re.compile(r"your (?:[\w.'-]+ ){0,4}(?:api[- ]?key|access token|auth(?:entication)? token)\b", re.IGNORECASE)
# How a response is to be wrapped for a browser's script: nothing that a caller of the operation asks for.
_CALLBACK = re.compile(r"callback|jsonp|_?cb|jsoncallback", re.IGNORECASE)
# Parameters that every operation of Google's services has: how a response is written, whom a call is counted for.
_GOOGLE = re.compile(
    r"\$\.xgafv|access_token|alt|bearer_token|callback|fields|key|oauth_token|pp|prettyPrint|quotaUser|uploadType|"
    r"upload_protocol|userIp"
)
_DATED_VERSION = re.compile(r"\d{4}-\d\d-\d\d(?:[-.]\w+)*")
_UNREADABLE = re.compile(
    r"(?:image|audio|video|font)/.*|application/(?:pdf|zip|gzip|octet-stream|x-tar|vnd\.ms-.*)", re.IGNORECASE
)
_BOILERPLATE_BODY = re.compile(r"(?:the )?(?:request )?(?:body|payload|request|parameters?|input)(?: object)?\.?", re.I)


@dataclass(frozen=True)
class Input:
    """One parameter, or one field of the body.

    Attributes:
        name: unique in the operation.
        stated: the name where it travels.
        is_shared: all operations of the path have it.
        raw: the parameter as the document has it; {} of a field of the body.
    """

    name: str
    stated: str
    place: Place
    required: bool
    node: Node
    description: str
    is_shared: bool = False
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """A body of a request or a response in the media type that was chosen."""

    media_type: str
    media: dict[str, Any]
    node: Node

    @property
    def is_json(self) -> bool:
        """Whether it travels as JSON."""
        return _rank(self.media_type) == 0

    @property
    def is_binary(self) -> bool:
        """Whether no text could show it: what is stated as an example of it can only be about it."""
        has_fields = self.node.properties or self.node.type in ("object", "array")
        is_file = self.node.own.get("format") == "binary" or _UNREADABLE.match(self.media_type) is not None
        return is_file and not has_fields


@dataclass(frozen=True)
class Inputs:
    """All that an operation takes; `body` is None if it has none, and is flat if its fields are inputs themselves."""

    inputs: tuple[Input, ...]
    body: Content | None = None
    is_flat: bool = False


def gather(
    path: str, operation: dict[str, Any], item: dict[str, Any], schemas: Schemas, secrets: frozenset[str]
) -> Inputs:
    """Path parameters first, then what is required, then the rest as the document has it.

    Args:
        path: with its templates; those that no parameter declares are parameters too.
        operation: in the words of OpenAPI 3.
        item: the path's own entry, whose parameters all operations share.
        schemas: of the document.
        secrets: names of parameters that carry credentials, in lower case.
    """
    references = schemas.references
    found = list(_parameters(path, operation, item, schemas, secrets))
    request = references.resolved(operation.get("requestBody"))
    body = chosen(request.get("content"), schemas)
    if body is None:
        return Inputs(tuple(_ordered(found)))
    fields, is_flat = _body_inputs(body, request, {one.name for one in found}, schemas)
    return Inputs(tuple(_ordered(found + fields)), body, is_flat)


def chosen(content: Json, schemas: Schemas) -> Content | None:
    """The content in the media type that says most: JSON, a form, anything else; None if there is none."""
    if not isinstance(content, dict):
        return None
    medias = [(text_of(kind), media) for kind, media in content.items() if isinstance(media, dict)]
    if not medias:
        return None
    kind, media = min(medias, key=lambda pair: _rank(pair[0]))
    return Content(kind, media, schemas.node(media.get("schema")))


def templates(path: str) -> list[str]:
    """The names in braces, each once."""
    return list(dict.fromkeys(_TEMPLATE.findall(path)))


def _parameters(
    path: str, operation: dict[str, Any], item: dict[str, Any], schemas: Schemas, secrets: frozenset[str]
) -> Iterable[Input]:
    declared: dict[tuple[str, str], Input] = {}
    taken: set[str] = set()
    own = [(raw, False) for raw in _list(operation.get("parameters"))]
    shared = [(raw, True) for raw in _list(item.get("parameters"))]
    stated = [(schemas.references.resolved(raw), is_shared) for raw, is_shared in (own + shared)[:MOST_PARAMETERS]]
    is_google = any(raw.get("name") == "$.xgafv" for raw, is_shared in stated if is_shared)
    for raw, is_shared in stated:
        made = _parameter(raw, schemas)
        if made is None or (made.place, made.stated) in declared or _is_unwanted(made, secrets):
            continue
        if is_google and is_shared and _GOOGLE.fullmatch(made.stated):
            continue
        if made.place == "path" and f"{{{made.stated}}}" not in path and "{" not in made.stated:
            continue  # nowhere to put it
        name = _unique(made.stated, made.place, taken)
        taken.add(name)
        declared[made.place, made.stated] = replace(made, name=name, is_shared=is_shared)
    order = templates(path)
    for name in order:
        if ("path", name) not in declared:
            node = Node(own={"type": "string"})
            declared["path", name] = Input(_unique(name, "path", taken), name, "path", True, node, "")
            taken.add(declared["path", name].name)
    paths = [declared["path", name] for name in order]
    return [*paths, *(one for one in declared.values() if one.place != "path")]


def _parameter(raw: dict[str, Any], schemas: Schemas) -> Input | None:
    name, place = raw.get("name"), raw.get("in")
    if not isinstance(name, str) or not name or place not in ("path", "query", "header"):
        return None
    schema = raw.get("schema")
    content = None if isinstance(schema, dict) else chosen(raw.get("content"), schemas)
    node = content.node if content else schemas.node(schema)
    if raw.get("deprecated") is True and not node.own.get("deprecated"):
        node = replace(node, own={**node.own, "deprecated": True})
    node = _settled(name, place, node, schemas)
    told = worded(raw["description"])[0] if isinstance(raw.get("description"), str) else ""
    required = place == "path" or raw.get("required") is True
    name = text_of(name)
    told = told or node.description
    required |= "required" not in raw and says_required(told)
    told = without_echo(without_required(told) if required else told, name)
    return Input(name, name, cast(Place, place), required, node, told, raw=raw)


def _settled(name: str, place: str, node: Node, schemas: Schemas) -> Node:
    """What a parameter's place and name say about its value: one in the path is never null, and has no default.

    What is stated as such a default is an example. The version that Azure's operations demand of every call is that of
    the description.
    """
    if place == "path" and isinstance(stated := node.own.get("type"), list):
        kinds = [kind for kind in stated if kind != "null"]
        node = replace(node, own={**node.own, "type": kinds[0] if len(kinds) == 1 else kinds or stated})
    if place == "path" and "default" in node.own:
        own = {key: value for key, value in node.own.items() if key != "default"}
        return replace(node, own=own, examples=(*node.examples, node.own["default"]))
    if name == "api-version" and place == "query" and not node.own.keys() & {"default", "enum", "const"}:
        info = schemas.references.document.get("info")
        version = info.get("version") if isinstance(info, dict) else None
        if isinstance(version, str) and _DATED_VERSION.fullmatch(version):
            return replace(node, own={**node.own, "default": version})
    return node


def _is_unwanted(made: Input, secrets: frozenset[str]) -> bool:
    """Whether it carries a credential, or what a client fills in by itself."""
    if made.place == "path":
        return False
    named = _KEY_NAME.fullmatch(made.stated) is not None and _KEY.match(made.description) is not None
    named |= _OWN_KEY.match(made.description) is not None
    named |= made.place == "header" and _KEY_HEADER.fullmatch(made.stated) is not None
    named |= _is_callback(made.stated, made.description)
    return named or made.stated.lower() in secrets or _NO_PARAMETERS.fullmatch(made.stated) is not None


def _is_callback(name: str, description: str) -> bool:
    return _CALLBACK.fullmatch(name) is not None and "jsonp" in f"{name} {description}".lower()


def _body_inputs(body: Content, request: dict[str, Any], taken: set[str], schemas: Schemas) -> tuple[list[Input], bool]:
    """The fields of an object, but for those that only a response carries; else the body as one input."""
    node = body.node
    if node.properties and not node.variants and node.type in ("object", ""):
        fields = []
        for name, schema in node.properties.items():
            part = schemas.node(schema)
            if not part.read_only and not _is_callback(name, part.description):
                unique = _unique(name, "body", taken)
                taken.add(unique)
                required = name in node.required
                told = without_required(part.description) if required else part.description
                fields.append(Input(unique, name, "body", required, part, without_echo(told, name)))
        return fields, True
    told = clean(request["description"]) if isinstance(request.get("description"), str) else ""
    if node.is_bare and not body.is_json:
        node = Node(own={"type": "string", "format": "binary"})
    told = "" if _BOILERPLATE_BODY.fullmatch(told) else told
    if not body.is_json:
        told = f"{told.rstrip('.')}. Content type: {body.media_type}." if told else f"Content type: {body.media_type}."
    required = request.get("required") is True
    return [Input(_unique("body", "body", taken), "body", "body", required, node, told or node.description)], False


def _ordered(inputs: Iterable[Input]) -> list[Input]:
    def rank(one: Input) -> tuple[bool, bool, bool, bool]:
        return one.place != "path", not one.required, one.is_shared and one.place != "path", one.place == "header"

    return sorted(inputs, key=rank)


def _unique(name: str, place: str, taken: set[str]) -> str:
    while name in taken:
        name = f"{place}_{name}"
    return name


def _rank(media_type: str) -> int:
    kind = media_type.lower().partition(";")[0].strip()
    if kind in ("application/json", "text/json", "*/*", "application/*+json") or kind.endswith("+json"):
        return 0
    if "form" in kind:
        return 1
    return 2 if kind else 3


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
