"""Records in one file: Parquet, sorted by id, named by the digest of its bytes.

A row holds a record as JSON and, beside it, what one wants to filter by without parsing that. The keys of a record keep
their order, which is that of an API's parameters and of a call's arguments. Writing and reading go by row groups, so
that a file of any size needs little memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Identified, Record, from_json, identify, to_json

ROW_GROUP_RECORDS = 1_024


class StoredRecord(NamedTuple):
    """One row; `record` is JSON."""

    id: str
    source: str
    version: str
    licence: str
    host: str
    path: str
    record: str

    def parsed(self) -> Record:
        """The record itself."""
        return from_json(json.loads(self.record))


SCHEMA = pa.schema([(name, pa.string()) for name in StoredRecord._fields])


@dataclass(frozen=True)
class RecordFile:
    """A written file: its name, number of records, digest and size in bytes."""

    file: str
    records: int
    sha256: str
    bytes: int


def stored(record: Record) -> StoredRecord:
    """A record as a row; lone surrogates, legal in Python and JSON but not in UTF-8, become U+FFFD."""
    identifier, record = identify(_storable(record))
    origin = record.provenance
    return StoredRecord(
        identifier, origin.source, origin.version, origin.licence, origin.host, origin.path, json_text(record)
    )


def sorted_rows(records: Iterable[Record]) -> list[StoredRecord]:
    """Rows in id order; of equal ids the first in order of their texts, whichever came first."""
    rows: dict[str, StoredRecord] = {}
    for row in map(stored, records):
        known = rows.get(row.id)
        if known is None or row.record < known.record:
            rows[row.id] = row
    return [row for _, row in sorted(rows.items())]


def write_record_file(
    folder: Path, rows: Iterable[StoredRecord], prefix: str = "", group_records: int | None = None
) -> RecordFile:
    """Writes rows, which are in id order, to `<prefix><first 12 digits of the sha256>.parquet`.

    A file under its final name is always whole. `group_records` rows make a row group, and are in memory together, here
    and when they are read; `ROW_GROUP_RECORDS` when None.
    """
    group_records = group_records or ROW_GROUP_RECORDS
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{prefix}{os.getpid()}.partial"
    count = 0
    with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        group: list[StoredRecord] = []
        for row in rows:
            group.append(row)
            count += 1
            if len(group) == group_records:
                writer.write_table(_table(group))
                group.clear()
        if group or not count:
            writer.write_table(_table(group))
    sha256 = sha256_of(partial)
    path = folder / f"{prefix}{sha256[:12]}.parquet"
    os.replace(partial, path)
    return RecordFile(path.name, count, sha256, path.stat().st_size)


def read_rows(path: Path) -> Iterator[StoredRecord]:
    """Every row of a file, in order.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with pq.ParquetFile(path) as parquet:
            for number in range(parquet.num_row_groups):
                columns = parquet.read_row_group(number).to_pydict()
                yield from map(StoredRecord._make, zip(*(columns[name] for name in StoredRecord._fields), strict=True))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is missing or damaged ({error}); rebuild the corpus") from error


def read_records(path: Path, start: int, stop: int) -> Iterator[Identified]:
    """Records `start` to `stop` (exclusive) of a file, with the ids that are stored beside them.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with pq.ParquetFile(path) as parquet:
            first = 0
            for number in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(number).num_rows
                low, high = max(start - first, 0), min(stop - first, count)
                if low < high:
                    table = parquet.read_row_group(number, columns=["id", "record"])
                    for row in table.slice(low, high - low).to_pylist():
                        yield Identified(row["id"], from_json(json.loads(row["record"])))
                first += count
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is missing or damaged ({error}); rebuild the corpus") from error


def json_text(record: Record) -> str:
    """The record as JSON, keys in their own order."""
    return json.dumps(to_json(record), ensure_ascii=False, separators=(",", ":"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table(rows: list[StoredRecord]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=SCHEMA)


def _storable(record: Record) -> Record:
    text = json_text(record)
    try:
        text.encode()
        return record
    except UnicodeEncodeError:
        return from_json(json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")))
