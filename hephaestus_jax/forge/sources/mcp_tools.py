"""Lists of tools as servers and model providers state them: MCP, OpenAI (chat, Responses), Anthropic, functions.

The form is found out per entry, so that lists may be mixed, and wrapped: in a JSON-RPC result, in a server's manifest,
in a row of a data set beside other things.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hephaestus_jax.forge.prose import clean
from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import contradiction, noted
from hephaestus_jax.forge.tool_data.json_values import list_of
from hephaestus_jax.forge.tool_data.rows import PATTERNS, rows, stated_licence
from hephaestus_jax.forge.tool_data.tool_schemas import any_schema, parameters_schema
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, ApiExample, Json, Record

DEEPEST = 6  # wrappings around a list
_LISTS = ("tools", "functions", "function_declarations", "functionDeclarations")
_WRAPPINGS = ("result", "server", "manifest", "servers", "mcpServers", "data", "body")
_HINTS = {  # annotations of MCP, as words for a reader
    "readOnlyHint": "It changes nothing.",
    "destructiveHint": "It may destroy what is there.",
    "idempotentHint": "Repeating a call changes nothing more.",
}
_SCHEMAS = ("inputSchema", "input_schema", "parameters")


class _Entry(NamedTuple):
    """One tool as stated, where it stands, and whose it is."""

    where: str
    stated: Json
    server: str
    licence: str


@source("mcp_tools", files=PATTERNS)
def read_mcp_tools(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Tool lists of MCP servers, OpenAI and Anthropic, in JSON and JSON lines."""
    for where, value in rows(file, quarantine):
        found = False
        for entry in _entries(value, where, "", "", 0):
            found = True
            try:
                yield _doc(entry, file)
            except ValueError as error:
                quarantine.add("malformed tool", file.place(entry.where), str(error))
        if not found:
            quarantine.add("no tools", file.place(where), "neither a tool nor a list of tools")


def _entries(value: Json, where: str, server: str, licence: str, depth: int) -> Iterator[_Entry]:
    """Every tool within a value."""
    if depth > DEEPEST:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _entries(item, f"{where}[{index}]", server, licence, depth + 1)
        return
    if not isinstance(value, Mapping):
        if depth and not isinstance(value, str):
            yield _Entry(where, value, server, licence)
        return
    if _is_tool(value):
        yield _Entry(where, value, server, licence)
        return
    server, licence = _server(value) or server, stated_licence(value) or licence
    before = f"{where}." if where else ""
    for key in _LISTS:
        listed = value.get(key)
        if isinstance(listed, str):  # a column of a data set
            try:
                listed = list_of(listed, key)
            except ValueError:
                yield _Entry(before + key, listed, server, licence)
                continue
        if isinstance(listed, Mapping) and all(isinstance(part, Mapping) for part in listed.values()):
            listed = [{"name": name, **part} for name, part in listed.items()]
        if isinstance(listed, list):
            for index, item in enumerate(listed):
                yield from _listed(item, f"{before}{key}[{index}]", server, licence, depth)
    for key in _WRAPPINGS:
        inner = value.get(key)
        if key in ("servers", "mcpServers") and isinstance(inner, Mapping):
            for name, part in inner.items():
                yield from _entries(part, f"{before}{key}.{name}", name, licence, depth + 1)
        elif isinstance(inner, Mapping | list):
            yield from _entries(inner, before + key, server, licence, depth + 1)


def _listed(item: Json, where: str, server: str, licence: str, depth: int) -> Iterator[_Entry]:
    if isinstance(item, Mapping) and not _is_tool(item) and any(key in item for key in _LISTS):
        yield from _entries(item, where, server, licence, depth + 1)  # Google's lists of lists
    else:
        yield _Entry(where, item, server, licence)


def _is_tool(value: Mapping[str, Json]) -> bool:
    if isinstance(value.get("function"), Mapping):
        return True
    return isinstance(value.get("name"), str) and (
        any(key in value for key in _SCHEMAS) or ("description" in value and not any(key in value for key in _LISTS))
    )


def _server(value: Mapping[str, Json]) -> str:
    """The name of the server that a manifest or an initialisation states."""
    info = value.get("serverInfo")
    stated = info if isinstance(info, Mapping) else value
    for key in ("name", "display_name", "id"):
        if isinstance(name := stated.get(key), str) and name.strip():
            return name.strip()
    return ""


def _doc(entry: _Entry, file: SourceFile) -> ApiDoc:
    fields = entry.stated
    if isinstance(fields, Mapping) and isinstance(fields.get("function"), Mapping):
        fields = fields["function"]
    if not isinstance(fields, Mapping):
        raise ValueError(f"a tool is an object, found {type(fields).__name__}")
    name = fields.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a tool has a name, found {name!r}")
    schema = next((fields[key] for key in _SCHEMAS if fields.get(key) is not None), None)
    if isinstance(schema, str):
        raise ValueError("the schema of the input is text")
    parameters, dropped = parameters_schema(schema)
    text = _description(fields)
    if not text and not parameters["properties"]:
        raise ValueError("neither a description nor parameters")
    provenance = file.provenance(entry.where, entry.licence)
    if dropped:
        provenance = noted(provenance, f"{dropped} deeper fields left out")
    return ApiDoc(
        name=name.strip(),
        provider=entry.server or file.path.rsplit("/", 1)[-1].partition(".")[0],
        description=text,
        provenance=provenance,
        parameters=parameters,
        returns=any_schema(fields.get("outputSchema") or fields.get("output_schema") or fields.get("returns")),
        examples=_examples(fields, parameters),
        interface="tool",
        function=name.strip(),
        deprecated=fields.get("deprecated") is True,
    )


def _description(fields: Mapping[str, Json]) -> str:
    """Title, description and what the annotations say of the tool."""
    stated = fields.get("annotations")
    annotations = stated if isinstance(stated, Mapping) else {}
    title = fields.get("title") or annotations.get("title")
    text = fields.get("description")
    text = clean(text) if isinstance(text, str) else ""
    if isinstance(title, str) and title.strip() and title.strip().lower() not in text.lower():
        text = f"{title.strip()}\n\n{text}".strip()
    hints = [words for key, words in _HINTS.items() if annotations.get(key) is True]
    return "\n\n".join(filter(None, [text, " ".join(hints)]))


def _examples(fields: Mapping[str, Json], parameters: Mapping[str, Json]) -> tuple[ApiExample, ...]:
    """Anthropic's `input_examples`; those that the schema refuses are left out."""
    listed = fields.get("input_examples")
    found = []
    for value in listed if isinstance(listed, list) else ():
        if isinstance(value, Mapping) and not contradiction(parameters, value):
            call = json.dumps({"name": fields["name"], "arguments": value}, ensure_ascii=False)
            found.append(ApiExample(call, arguments=value))
    return tuple(found[:10])
