"""A corpus on disk: sorted, content-addressed Parquet shards and one manifest.

    DIR/manifest.json
    DIR/<slice>/<split>/00000-<first 12 digits of the shard's sha256>.parquet

Records are sorted by id and cut into shards (`record_files`) of a fixed number of records, so the bytes depend on the
records alone and never on how many workers made them. A corpus is written beside its final name and renamed when whole.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.record_files import (
    RecordFile,
    StoredRecord,
    read_records,
    sha256_of,
    sorted_rows,
    write_record_file,
)
from hephaestus_jax.formats.records import Identified, Json, Record, digest

FORMAT = 1
SHARD_RECORDS = 16_384
BYTES_PER_TOKEN = 4  # UTF-8, a rule of thumb for English and code


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

    def shards(self, slice_name: str, split: str) -> list[RecordFile]:
        """The shards of one slice and split, in order; none if the corpus holds no such records."""
        return [RecordFile(**shard) for shard in self.manifest["slices"].get(slice_name, {}).get(split, [])]

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
                yield from read_records(Path(self.directory) / shard.file, low, high)
            first += shard.records

    def verify(self) -> None:
        """Compares every shard with its digest.

        Raises:
            UserError: a shard is missing or its bytes changed.
        """
        for slice_name, splits in self.manifest["slices"].items():
            for split in splits:
                for shard in self.shards(slice_name, split):
                    path = Path(self.directory) / shard.file
                    if not path.exists() or sha256_of(path) != shard.sha256:
                        raise UserError(f"{path} is missing or was changed since it was built; rebuild the corpus")


def write_corpus(
    directory: Path | str, records: Mapping[tuple[str, str], Iterable[Record]], about: Mapping[str, Json]
) -> Corpus:
    """Writes `records`, given per (slice, split), and the manifest; replaces a corpus of the same name.

    Of records with equal ids, which differ in `processing` or in the order of keys if at all, one is written. `about`
    goes into the manifest beside the shards.
    """
    rows = {group: sorted_rows(items) for group, items in records.items()}
    return write_sorted_corpus(directory, rows, lambda: about)


def write_sorted_corpus(
    directory: Path | str,
    rows: Mapping[tuple[str, str], Iterable[StoredRecord]],
    about: Callable[[], Mapping[str, Json]],
    files: Mapping[str, str] | None = None,
) -> Corpus:
    """Writes rows, of which each group comes in id order without repetitions; memory is that of a row group.

    Args:
        directory: of the corpus; one of the same name is replaced.
        rows: per (slice, split).
        about: called when all rows are written; what it gives goes into the manifest beside the shards.
        files: further files of the corpus, name to text.
    """
    directory = Path(directory)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    slices: dict[str, dict[str, list[Json]]] = {}
    for (slice_name, split), group in sorted(rows.items()):
        shards = slices.setdefault(slice_name, {}).setdefault(split, [])
        remaining = iter(group)
        while (first := next(remaining, None)) is not None:
            part = itertools.chain([first], itertools.islice(remaining, SHARD_RECORDS - 1))
            written = write_record_file(partial / slice_name / split, part, f"{len(shards):05d}-")
            shards.append(dataclasses.asdict(written) | {"file": f"{slice_name}/{split}/{written.file}"})
    partial.mkdir(parents=True, exist_ok=True)
    for name, text in (files or {}).items():
        (partial / name).write_text(text, "utf-8")
    manifest = {"format": FORMAT, **about(), "slices": slices}
    text = json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    (partial / "manifest.json").write_text(text, "utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, directory)
    return Corpus(directory)
