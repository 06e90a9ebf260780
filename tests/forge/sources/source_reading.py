"""Reads files with a source's reader as the pipeline does, and checks what every record must hold to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hephaestus_jax.forge.sources import SOURCES, Origin, SourceFile
from hephaestus_jax.forge.sources.source import files_below
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, Record, Trajectory, canonical_json, from_json, to_json

DATA = Path(__file__).parents[4] / "shared" / "data"


def real(folder: str) -> Path:
    """A folder of real data; the test is skipped where it is absent."""
    if not (DATA / folder).is_dir():
        pytest.skip(f"no real data at {DATA / folder}")
    return DATA / folder


def read(name: str, root: Path) -> tuple[list[Any], Quarantine]:
    """All records of a folder, each checked."""
    source, quarantine = SOURCES[name], Quarantine()
    records: list[Record] = []
    for path in source.select(files_below(root)):
        records += source.read(SourceFile(root, path, Origin(name, "unknown", "unknown")), quarantine)
    check(records)
    return records, quarantine


def read_rows(name: str, folder: Path, *rows: Any, file: str = "rows.jsonl") -> tuple[list[Any], Quarantine]:
    """Records of a file of JSON lines; a row that is a string is a line as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / file).write_text("\n".join(lines), encoding="utf-8")
    return read(name, folder)


@cache
def check_schema(text: str) -> None:
    """The schema is valid and refers to nothing; the same one is looked at once."""
    Draft202012Validator.check_schema(json.loads(text))
    assert '"$ref"' not in text


def check(records: Iterable[Record]) -> None:
    """Schemas are valid, references gone, and JSON gives back the record."""
    for record in records:
        written = canonical_json(to_json(record))
        written.encode("utf-8")  # no half surrogate pair
        assert "NaN" not in written or '"NaN"' in written
        assert canonical_json(to_json(from_json(json.loads(written)))) == written
        assert from_json(to_json(record)) == record
        schemas = [record.parameters, record.returns or {}] if isinstance(record, ApiDoc) else []
        if isinstance(record, Trajectory):
            schemas = [tool.parameters for tool in record.tools]
        for schema in schemas:
            check_schema(json.dumps(schema))
        if isinstance(record, ApiDoc):
            for example in record.examples:
                if example.arguments is not None:
                    Draft202012Validator(record.parameters).validate(example.arguments)


_KEYS = "conversations messages tools query answers system chat prompt turns intents tree entries"
HOSTILE: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "a number": lambda: "7",
    "a text": lambda: '"x"',
    "null": lambda: "null",
    "broken": lambda: '{"a": ',
    "deep": lambda: "[" * 100_000 + "]" * 100_000,
    "deep objects": lambda: '{"conversations":' * 100_000 + "1" + "}" * 100_000,
    "deep but parsable": lambda: '{"tools":' + "[" * 300 + "]" * 300 + "}",
    "a huge number": lambda: '{"id": ' + "9" * 10_000 + "}",
    "empty object": lambda: "{}",
    "wrong types": lambda: json.dumps(dict.fromkeys([*_KEYS.split()], 3)),
}
