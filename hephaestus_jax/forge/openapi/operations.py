"""The operations of a description as records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hephaestus_jax.forge.openapi import swagger2
from hephaestus_jax.forge.openapi.documents import Refused, load, text_of
from hephaestus_jax.forge.openapi.examples import Examples
from hephaestus_jax.forge.openapi.expand import Expansion
from hephaestus_jax.forge.openapi.inputs import Content, Inputs, chosen, gather
from hephaestus_jax.forge.openapi.licences import stated_licence
from hephaestus_jax.forge.openapi.references import References
from hephaestus_jax.forge.openapi.schemas import Schemas
from hephaestus_jax.forge.openapi.texts import (
    base_path,
    description_of,
    errors_of,
    identifier,
    success_text,
    with_base,
)
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, Json

if TYPE_CHECKING:  # the package of the sources imports this one
    from hephaestus_jax.forge.sources.source import SourceFile

METHODS = ("get", "post", "put", "patch", "delete", "head", "options", "trace")
_COLON = re.compile(r"/:([A-Za-z_]\w*)(?=/|$)")  # "/pets/:id", as routers of some languages write it
_WRITTEN_TIME = re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d{4} ")  # that of a serializer, in place of a date
_SLASHES = re.compile(r"(?<!:)/{2,}")
LONGEST_PATH = 1_000  # characters
KEPT_RESULTS = 256  # expanded responses that are kept, since neighbouring operations share them

Keep = Callable[[str, str], bool]


def read_openapi(
    file: SourceFile, quarantine: Quarantine, provider: str = "", licence: str = "", keep: Keep | None = None
) -> Iterator[ApiDoc]:
    """The described operations of an OpenAPI 3 or Swagger 2 file, in its order.

    Args:
        file: JSON or YAML.
        quarantine: receives files and operations that cannot be read, and references that are not followed.
        provider: who offers the API; "" for the server's host, else the title.
        licence: "" for what the description states about itself, "unknown" if it states nothing.
        keep: whether an operation is read, from its method (upper case) and its path as the file has it.
    """
    document = load(file, quarantine)
    if document is None:
        return
    reader = _Reader(file, document, quarantine, provider, licence)
    try:
        yield from reader.records(keep)
    except Refused as refused:
        quarantine.add(refused.reason, file.place(), refused.detail)


class _Reader:
    """One document being read."""

    def __init__(
        self, file: SourceFile, document: dict[str, Any], quarantine: Quarantine, provider: str, licence: str
    ) -> None:
        self._file, self._document, self._quarantine = file, document, quarantine
        self._references = References(document, file, quarantine)
        self._schemas = Schemas(self._references)
        self._examples = Examples(self._schemas)
        self._is_2 = "openapi" not in document
        self._results: dict[int, tuple[Any, dict[str, Json], int]] = {}
        info = document.get("info")
        info = info if isinstance(info, dict) else {}
        self._licence = licence or stated_licence(info.get("license"))
        version = " ".join(text_of(str(info.get("version", ""))).split())[:60]
        self._version = "" if _WRITTEN_TIME.match(version) else version
        servers = swagger2.servers(document) if self._is_2 else document.get("servers")
        self._host, self._base = base_path(servers)
        title = info.get("title")
        self._provider = provider or self._host or (text_of(title).strip() if isinstance(title, str) else "")
        self._secrets = self._credential_names()

    def records(self, keep: Keep | None) -> Iterator[ApiDoc]:
        for path, stated in self._document["paths"].items():
            if not isinstance(path, str) or path.startswith("x-"):
                continue
            item = self._references.resolved(stated)
            if not item:
                if not isinstance(stated, dict) or stated:
                    self._quarantine.add("path is not an object", self._file.place(f"paths.{path}"), repr(stated)[:80])
                continue
            if len(path) > LONGEST_PATH:
                self._quarantine.add("path too long", self._file.place("paths"), path)
                continue
            for method in METHODS:
                if method in item and (keep is None or keep(method.upper(), path)):
                    yield from self._operation(method, path, item)

    def _operation(self, method: str, path: str, item: dict[str, Any]) -> Iterator[ApiDoc]:
        where = f"paths.{text_of(path)}.{method}"
        operation = item[method]
        if not isinstance(operation, dict):
            self._quarantine.add("operation is not an object", self._file.place(where), repr(operation)[:80])
            return
        try:
            if doc := self._record(method, path, item, operation, where):
                yield doc
        except RecursionError:
            self._quarantine.add("nested too deeply", self._file.place(where), "")

    def _record(
        self, method: str, path: str, item: dict[str, Any], operation: dict[str, Any], where: str
    ) -> ApiDoc | None:
        path = _SLASHES.sub("/", _COLON.sub(r"/{\1}", text_of(path)))
        description = description_of(operation, item, path)
        if not description:
            return None
        host, base = self._address(operation, item, path)
        if self._is_2:
            operation, item = swagger2.as_version_3(operation, item, self._references), {}
        patterns = self._schemas.patterns_left_out
        inputs = gather(path, operation, item, self._schemas, self._secrets)
        parameters, left_out = self._parameters(inputs)
        responses = self._responses(operation)
        success, returns, more = self._success(responses)
        examples = self._examples.of(method.upper(), base, path, inputs, success, parameters)
        processing = [f"{left_out + more:,} deeper fields left out"] if left_out + more else []
        if patterns := self._schemas.patterns_left_out - patterns:
            processing.append(f"{patterns:,} patterns left out")
        place = f"{where}@{self._version}" if self._version else where
        provenance = replace(self._file.provenance(place, self._licence, host), processing=tuple(processing))
        return ApiDoc(
            name=f"{method.upper()} {base}{path}",
            provider=self._provider or self._file.origin.name,
            description=description,
            provenance=provenance,
            parameters=parameters,
            returns=returns,
            errors=errors_of(responses, any(code.startswith("2") for code in responses)),
            examples=examples,
            interface="rest",
            function=identifier(operation.get("operationId")),
            deprecated=operation.get("deprecated") is True,
        )

    def _address(self, operation: dict[str, Any], item: dict[str, Any], path: str) -> tuple[str, str]:
        """Host, and the base that stands in front of the path."""
        for part in (operation, item):
            if part.get("servers"):
                host, base = base_path(part["servers"])
                return host or self._host, with_base(base, path)
        return self._host, with_base(self._base, path)

    def _parameters(self, inputs: Inputs) -> tuple[dict[str, Json], int]:
        """One JSON Schema of all inputs, and how many fields it leaves out."""
        expansion = Expansion(self._schemas, "request")
        by_name = {one.name: one for one in inputs.inputs}
        required = frozenset(name for name, one in by_name.items() if one.required)
        kept = expansion.within_limit(dict(by_name), required)
        expansion.left_out += len(by_name) - len(kept)
        properties: dict[str, Json] = {}
        for name, one in kept.items():
            schema = expansion.start(one.node, 2, one.description)
            schema["x-in"] = one.place
            properties[name] = schema
        expansion.run()
        made: dict[str, Json] = {"type": "object", "properties": properties}
        if stated := [name for name in properties if name in required]:
            made["required"] = stated
        return made, expansion.left_out

    def _responses(self, operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
        stated = operation.get("responses")
        if not isinstance(stated, dict):
            return {}
        codes = [(str(code), response) for code, response in stated.items() if not str(code).startswith("x-")]
        return {text_of(code): self._references.resolved(response) for code, response in codes[:100]}

    def _success(self, responses: dict[str, dict[str, Any]]) -> tuple[Content | None, dict[str, Json] | None, int]:
        """The content of the first success that has one, its schema, and how many fields that leaves out."""
        codes = sorted(code for code in responses if code.startswith("2"))
        if not codes and "default" in responses and "rror" not in str(responses["default"].get("description")):
            codes = ["default"]
        told = next(filter(None, (success_text(responses[code].get("description")) for code in codes)), "")
        for code in codes:
            content = chosen(responses[code].get("content"), self._schemas)
            if content is not None and not content.node.is_bare:
                schema, left_out = self._result(content)
                told = success_text(responses[code].get("description"))
                if told:  # it is about this use of the schema, which may be one of many
                    schema = {**schema, "description": told}
                return content, schema, left_out
        found = next(filter(None, (chosen(responses[code].get("content"), self._schemas) for code in codes)), None)
        return found, {"description": told} if told else None, 0

    def _result(self, content: Content) -> tuple[dict[str, Json], int]:
        """The schema of a response, shared by all operations that have it; nothing may change it."""
        node = content.node
        known = self._results.get(node.identity)
        if known is None or known[0] is not node:
            expansion = Expansion(self._schemas, "response")
            schema = expansion.start(node, 1)
            expansion.run()
            while len(self._results) >= KEPT_RESULTS:
                del self._results[next(iter(self._results))]
            known = self._results[node.identity] = (node, schema, expansion.left_out)
        return known[1], known[2]

    def _credential_names(self) -> frozenset[str]:
        """The parameters that carry API keys, in lower case."""
        components = self._document.get("components")
        schemes = self._document.get("securityDefinitions") if self._is_2 else None
        if isinstance(components, dict):
            schemes = components.get("securitySchemes")
        found = [self._references.resolved(scheme) for scheme in schemes.values()] if isinstance(schemes, dict) else []
        return frozenset(
            str(scheme["name"]).lower() for scheme in found if scheme.get("type") == "apiKey" and "name" in scheme
        )
