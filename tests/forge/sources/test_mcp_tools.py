"""Tool lists: every form, wrapped or mixed, and what is no tool."""

from __future__ import annotations

import json
from pathlib import Path

from source_reading import read, read_rows

SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "description": "A"}}, "required": ["a"]}


def test_every_form(tmp_path: Path) -> None:
    mcp = {
        "name": "mcp",
        "description": "<p>Finds &amp; gets</p>",
        "inputSchema": SCHEMA,
        "outputSchema": {"type": "object", "properties": {"r": {"type": "integer"}}},
        "annotations": {"title": "Finder", "readOnlyHint": True},
    }
    rows = [
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [mcp], "nextCursor": "x"}},
        {"type": "function", "function": {"name": "chat", "description": "d", "parameters": SCHEMA}},
        {"type": "function", "name": "responses", "description": "d", "parameters": SCHEMA, "strict": True},
        {"name": "anthropic", "description": "d", "input_schema": SCHEMA, "input_examples": [{"a": "x"}, {"a": 3}]},
        [{"name": "bare", "description": "d"}],
        {"name": "server", "tools": [{**mcp, "name": "in_manifest"}], "license": "MIT"},
        {
            "messages": [],
            "tools": json.dumps([{"type": "function", "function": {"name": "column", "parameters": SCHEMA}}]),
        },
        {
            "functionDeclarations": [
                {"name": "google", "description": "d", "parameters": {"type": "OBJECT", "properties": {}}}
            ]
        },
        {"mcpServers": {"files": {"tools": {"mapped": {"description": "d", "inputSchema": SCHEMA}}}}},
    ]
    records, quarantine = read_rows("mcp_tools", tmp_path, *rows)
    docs = {doc.name: doc for doc in records}
    assert list(docs) == ["mcp", "chat", "responses", "anthropic", "bare", "in_manifest", "column", "google", "mapped"]
    assert not quarantine
    assert all(doc.parameters == SCHEMA for name, doc in docs.items() if name not in ("bare", "google"))
    assert docs["mcp"].description == "Finder\n\nFinds & gets\n\nIt changes nothing."
    assert docs["mcp"].returns == {"type": "object", "properties": {"r": {"type": "integer"}}}
    assert [example.arguments for example in docs["anthropic"].examples] == [{"a": "x"}]
    assert docs["in_manifest"].provider == "server" and docs["in_manifest"].provenance.licence == "MIT"
    assert docs["mapped"].provider == "files" and docs["chat"].provider == "rows"
    assert all(doc.interface == "tool" for doc in records)


def test_a_manifest_with_a_description_is_no_tool(tmp_path: Path) -> None:
    manifest = {"name": "server", "description": "A server", "tools": [{"name": "t", "description": "d"}]}
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    (doc,), _ = read("mcp_tools", tmp_path)
    assert doc.name == "t" and doc.provider == "server"


def test_what_is_no_tool(tmp_path: Path) -> None:
    rows = [
        {"tools": ["x", {"description": "no name"}, {"name": "empty"}]},
        {"a": 1},
        {"tools": "[{"},
        {"name": "s", "parameters": "{"},
    ]
    records, quarantine = read_rows("mcp_tools", tmp_path, *rows)
    assert records == [] and quarantine.counts == {"malformed tool": 5, "no tools": 1}
