"""A corpus on disk: sorted, content-addressed Parquet shards and one manifest.

    DIR/manifest.json
    DIR/<slice>/<split>/00000-<first 12 digits of the shard's sha256>.parquet

Records are sorted by id and cut into shards of a fixed number of records, so the bytes depend on the records alone and
never on how many workers made them. The keys of a record keep their order, which is that of an API's parameters and of
a call's arguments. A corpus is written beside its final name and renamed when whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Identified, Json, Record, digest, from_json, identify, to_json

FORMAT = 1
SHARD_RECORDS = 16_384
ROW_GROUP_RECORDS = 1_024

_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "source", "version", "licence", "host", "path", "record")])


@dataclass(frozen=True)
class Shard:
    """One Parquet file: its path relative to the corpus, number of records, digest and size in bytes."""

    file: str
    records: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Corpus:
    """A corpus that was written by `write_corpus`."""

    directory: Path

    @cached_property
    def manifest(self) -> dict[str, Json]:
        """What was built, from what, and how.

        Raises:
            UserError: there is no corpus here, or one of another format.
        """
        path = Path(self.directory) / "manifest.json"
        try:
            manifest = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise UserError(f"no corpus at {self.directory}: build one with `python -m tools.build_corpus`") from None
        except (ValueError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); rebuild the corpus") from error
        if manifest.get("format") != FORMAT:
            raise UserError(f"{path} has format {manifest.get('format')}, this version reads {FORMAT}; rebuild it")
        return manifest

    def shards(self, slice_name: str, split: str) -> list[Shard]:
        """The shards of one slice and split, in order; none if the corpus holds no such records."""
        return [Shard(**shard) for shard in self.manifest["slices"].get(slice_name, {}).get(split, [])]

    def count(self, slice_name: str, split: str) -> int:
        """Number of records of one slice and split."""
        return sum(shard.records for shard in self.shards(slice_name, split))

    def digest(self, slice_name: str, split: str) -> str:
        """Changes whenever a record of the slice and split changes."""
        return digest([shard.sha256 for shard in self.shards(slice_name, split)])

    def read(self, slice_name: str, split: str, start: int = 0, stop: int | None = None) -> Iterator[Identified]:
        """Records `start` to `stop` (exclusive) in id order, with the ids that are stored beside them.

        Raises:
            UserError: a shard is missing or damaged.
        """
        stop = self.count(slice_name, split) if stop is None else stop
        first = 0
        for shard in self.shards(slice_name, split):
            low, high = max(start - first, 0), min(stop - first, shard.records)
            if low < high:
                yield from self._read_shard(shard, low, high)
            first += shard.records

    def _read_shard(self, shard: Shard, low: int, high: int) -> Iterator[Identified]:
        path = Path(self.directory) / shard.file
        try:
            with pq.ParquetFile(path) as parquet:
                groups = range(low // ROW_GROUP_RECORDS, (high - 1) // ROW_GROUP_RECORDS + 1)
                table = parquet.read_row_groups(list(groups), columns=["id", "record"])
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} is missing or damaged ({error}); rebuild the corpus") from error
        offset = groups.start * ROW_GROUP_RECORDS
        for row in table.slice(low - offset, high - low).to_pylist():
            yield Identified(row["id"], from_json(json.loads(row["record"])))

    def verify(self) -> None:
        """Compares every shard with its digest.

        Raises:
            UserError: a shard is missing or its bytes changed.
        """
        for slice_name, splits in self.manifest["slices"].items():
            for split in splits:
                for shard in self.shards(slice_name, split):
                    path = Path(self.directory) / shard.file
                    if not path.exists() or _sha256(path) != shard.sha256:
                        raise UserError(f"{path} is missing or was changed since it was built; rebuild the corpus")


def write_corpus(
    directory: Path | str, records: Mapping[tuple[str, str], Iterable[Record]], about: Mapping[str, Json]
) -> Corpus:
    """Writes `records`, given per (slice, split), and the manifest; replaces a corpus of the same name.

    Of records with equal ids, which differ in `processing` or in the order of keys if at all, one is written. `about`
    goes into the manifest beside the shards.
    """
    directory = Path(directory)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    slices: dict[str, dict[str, list[Json]]] = {}
    for (slice_name, split), group in sorted(records.items()):
        shards = slices.setdefault(slice_name, {}).setdefault(split, [])
        rows = _distinct(group)
        for start in range(0, len(rows), SHARD_RECORDS):
            folder = partial / slice_name / split
            shard = _write_shard(folder, len(shards), rows[start : start + SHARD_RECORDS])
            shards.append(dataclasses.asdict(dataclasses.replace(shard, file=f"{slice_name}/{split}/{shard.file}")))
    partial.mkdir(parents=True, exist_ok=True)
    manifest = {"format": FORMAT, **about, "slices": slices}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, directory)
    return Corpus(directory)


def _distinct(records: Iterable[Record]) -> list[Identified]:
    """Ids and records in id order; of equal ids the first in order of their texts, whichever came first."""
    rows: dict[str, Record] = {}
    for identifier, record in map(identify, map(_storable, records)):
        known = rows.get(identifier)
        if known is None or _text(record) < _text(known):
            rows[identifier] = record
    return [Identified(*row) for row in sorted(rows.items())]


def _write_shard(folder: Path, number: int, rows: list[Identified]) -> Shard:
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[str]] = {name: [] for name in _SCHEMA.names}
    for identifier, record in rows:
        origin = record.provenance
        values = (identifier, origin.source, origin.version, origin.licence, origin.host, origin.path)
        for name, value in zip(_SCHEMA.names, (*values, _text(record)), strict=True):
            columns[name].append(value)
    unnamed = folder / f"{number:05d}.partial"
    pq.write_table(pa.table(columns, schema=_SCHEMA), unnamed, compression="zstd", row_group_size=ROW_GROUP_RECORDS)
    sha256 = _sha256(unnamed)
    path = folder / f"{number:05d}-{sha256[:12]}.parquet"
    os.replace(unnamed, path)
    return Shard(path.name, len(rows), sha256, path.stat().st_size)


def _storable(record: Record) -> Record:
    """The record itself, or with U+FFFD for lone surrogates: legal in Python and JSON, but not in UTF-8."""
    text = _text(record)
    try:
        text.encode()
        return record
    except UnicodeEncodeError:
        return from_json(json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")))


def _text(record: Record) -> str:
    return json.dumps(to_json(record), ensure_ascii=False, separators=(",", ":"))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
