"""The rows of a file of a source: JSON, JSON lines (plain or gzipped), or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.tool_data.json_values import clean_json, parse_json
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json
from hephaestus_jax.formats.row_files import row_file

if TYPE_CHECKING:  # importing one source registers all, and they import this
    from hephaestus_jax.forge.sources.source import SourceFile

PATTERNS = ("**/*.jsonl", "**/*.jsonl.gz", "**/*.parquet", "**/*.json")  # the files that `rows` reads
MALFORMED = "malformed JSON"


class Row(NamedTuple):
    """One row, and where it stands: a line number, or an index into the list that the file holds."""

    where: str
    value: Json


def rows(file: SourceFile, quarantine: Quarantine) -> Iterator[Row]:
    """The rows in order; of a JSON file the items of its list, or its one value. Damaged ones go to the quarantine."""
    if file.path.endswith(".json"):
        yield from _json_rows(file, quarantine)
        return
    try:
        for row in row_file(file.root / file.path).scan():
            yield from _parsed(row.content, str(row.number), file, quarantine)
    except UserError as error:
        quarantine.add("unreadable file", file.place(), str(error).replace(str(file.root), ""))


def objects(file: SourceFile, quarantine: Quarantine) -> Iterator[tuple[str, dict[str, Json]]]:
    """The rows that are objects, with their places; what is none goes to the quarantine."""
    for where, value in rows(file, quarantine):
        if isinstance(value, dict):
            yield where, value
        else:
            quarantine.add("not an object", file.place(where), f"expected an object, found {type(value).__name__}")


def _parsed(
    content: bytes | Mapping[str, object], where: str, file: SourceFile, quarantine: Quarantine
) -> Iterator[Row]:
    try:
        parsed = parse_json(content) if isinstance(content, bytes) else clean_json(content, drop_nulls=True)
        yield Row(where, parsed)
    except ValueError as error:
        quarantine.add(MALFORMED, file.place(where), str(error))


def _json_rows(file: SourceFile, quarantine: Quarantine) -> Iterator[Row]:
    text = file.text(quarantine)
    if text is None:
        return
    if not text.strip():
        quarantine.add("empty file", file.place(), "it holds nothing")
        return
    try:
        value = parse_json(text)
    except ValueError as error:
        yield from _lines(text, error, file, quarantine)
        return
    if isinstance(value, list):
        yield from (Row(f"[{index}]", item) for index, item in enumerate(value))
    else:
        yield Row("", value)


def _lines(text: str, error: ValueError, file: SourceFile, quarantine: Quarantine) -> Iterator[Row]:
    """Many a file named .json holds JSON lines: read as such if its first line is an object."""
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    try:
        first = parse_json(numbered[0][1])
    except ValueError:
        first = None
    if len(numbered) < 2 or not isinstance(first, dict):
        quarantine.add(MALFORMED, file.place(), str(error))
        return
    for number, line in numbered:
        yield from _parsed(line.encode("utf-8", "surrogatepass"), str(number), file, quarantine)


def stated_licence(row: Mapping[str, Json]) -> str:
    """The licence that a row states, "" if it states none."""
    stated = row.get("licence") or row.get("license")
    return stated if isinstance(stated, str) else ""
