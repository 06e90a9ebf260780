"""Building a cache: units in parallel, then one pass that assembles them into zarr3.

    OUT/<task>-<split>-<sequence length>-<fingerprint>.partial/    plan.json, lock, units/, cache/
    OUT/<task>-<split>-<sequence length>-<fingerprint>/            appears by renaming cache/, whole

A build that was killed goes on with the units it lacks and ends in the same bytes, for any number of workers. Nothing
in those bytes depends on time, paths or the machine. While it is built a cache needs about twice its room on disk.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorstore as ts

from hephaestus_jax.data.cache import (
    ARRAYS,
    FILES,
    FORMAT,
    MANIFEST,
    RECORD_ID_BYTES,
    ROW_ARRAYS,
    Cache,
    CacheManifest,
    Counters,
    Rejection,
)
from hephaestus_jax.data.cache_units import TokenTable, Unit, UnitSummary, load_summary, merge_rejections, write_whole
from hephaestus_jax.data.cache_workers import build_units
from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.mixture_spec import TaskCache
from hephaestus_jax.data.packing import check_sequence_length, lay_out
from hephaestus_jax.data.storage import Storage, first_line
from hephaestus_jax.data.task import TokenSource
from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress
from hephaestus_jax.versions import versions_of

UNIT_RECORDS = 4_096  # enough to fill rows of 2,048 to 98 % at usual lengths, little enough to hold in memory
SHARD_TOKENS, SHARD_ROWS = 1 << 22, 1 << 12  # at most, per file of a row array; assembling holds one of each array
SEGMENTS_PER_CHUNK, SEGMENTS_PER_SHARD = 1 << 12, 1 << 20

# Measured at 2,048 on shared cores, so roughly: random single rows of tokens at 40k rows/s uncompressed (2.0 bytes per
# token on disk), 36k at Zstandard 1 (1.37), 25k at Zstandard 3 (1.39). Positions are ramps: Zstandard 0.57 bytes,
# bit-shuffled LZ4 0.25, read at about the same speed.
_ZSTD = {"name": "zstd", "configuration": {"level": 1}}
_LZ4 = {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}}
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}


@dataclass(frozen=True)
class BuiltCache:
    """A finished cache, and whether it had been there already."""

    path: Path
    manifest: CacheManifest
    reused: bool

    def as_part(self, folder: Path) -> TaskCache:
        """The cache as a part of the mixture whose `mixture.json` lies in `folder`, above the cache."""
        where = self.path.relative_to(folder).as_posix()
        return TaskCache(where, self.manifest.rows, self.manifest.digest)


@dataclass(frozen=True)
class _Plan:
    """What makes two builds the same one: only then may one go on with the other's units."""

    fingerprint: str
    sequence_length: int
    unit_records: int
    records: int
    versions: dict[str, str]
    format: int = FORMAT

    def difference(self, other: object) -> str:
        """The first field in which a plan on disk differs, as words; empty if none does."""
        theirs = other if isinstance(other, dict) else {}
        for name, value in dataclasses.asdict(self).items():
            if theirs.get(name) != value:
                return f"{name} was {theirs.get(name)}, is {value}"
        return ""


def cache_name(source: TokenSource, sequence_length: int, fingerprint: str) -> str:
    """Name of the cache's directory."""
    task = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{source.name}-{source.split}")
    return f"{task}-{sequence_length}-{fingerprint[:12]}"


def build_cache(
    source: TokenSource,
    out: Path | str,
    sequence_length: int,
    workers: int = 1,
    unit_records: int = UNIT_RECORDS,
) -> BuiltCache:
    """Builds the cache of `source` in the local directory `out`, or finds it there finished.

    `workers` processes tokenise and pack; with 1 it is this process. Each holds one unit of `unit_records` records in
    memory, about 20 bytes per token. Assembling holds one shard of each array and one unit, 200 MB at usual lengths.

    Raises:
        UserError: another build of the same cache is running, the source or its vocabulary is damaged, no record has a
            token to learn, a worker was killed, or the disk is full. What was done is kept for the next attempt.
    """
    check_sequence_length(sequence_length)
    if workers < 1 or unit_records < 1:
        raise UserError(f"workers ({workers}) and unit records ({unit_records}) must be at least 1")
    if "://" in str(out):
        raise UserError(f"caches are built on local disk, not at {out}; build one there, then copy it (storage.copy)")
    fingerprint = source.fingerprint()
    final = Path(out) / cache_name(source, sequence_length, fingerprint)
    partial = final.with_name(final.name + ".partial")
    versions = versions_of("numpy", "sentencepiece", "tensorstore", "tokenizers")
    plan = _Plan(fingerprint, sequence_length, unit_records, source.count(), versions)
    if final.exists():
        shutil.rmtree(partial, ignore_errors=True)
        return _reuse(final, plan)
    _mention_leftovers(partial)
    with _locked(partial):
        if final.exists():  # another build finished while we waited for its lock
            return _reuse(final, plan)
        _resume_or_discard(partial, plan)
        table = TokenTable.load(source.vocabulary)
        units = partial / "units"
        build_units(source, units, plan.records, unit_records, sequence_length, table, workers)
        stems = [units / f"{number:08d}" for number in range(-(-plan.records // unit_records))]
        manifest = _assemble(source, plan, table, stems, partial / "cache")
        os.rename(partial / "cache", final)
    shutil.rmtree(partial, ignore_errors=True)
    return BuiltCache(final, manifest, reused=False)


def _reuse(final: Path, plan: _Plan) -> BuiltCache:
    try:
        manifest = Cache.open(str(final)).manifest
    except UserError as error:
        raise UserError(f"{error}: delete {final} and run again") from error
    if manifest.fingerprint != plan.fingerprint or manifest.unit_records != plan.unit_records:
        raise UserError(
            f"{final} was built with fingerprint {manifest.fingerprint[:16]} and units of {manifest.unit_records} "
            f"records, not {plan.fingerprint[:16]} and {plan.unit_records}; delete it, or give another directory"
        )
    print(f"{final} is already built: {manifest.rows:,} rows, {manifest.tokens:,} tokens", file=sys.stderr)
    return BuiltCache(final, manifest, reused=True)


def _mention_leftovers(partial: Path) -> None:
    """Names unfinished builds of other records or another vocabulary; they may be running, so they are not deleted."""
    task = partial.name.rsplit("-", 1)[0]
    for other in sorted(partial.parent.glob("*.partial")):
        if other.name.rsplit("-", 1)[0] == task and other != partial:
            reason = "its fingerprint (records, renderer, vocabulary) differs"
            print(f"not resuming {other}: {reason}; delete it if nothing is building it", file=sys.stderr)


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    try:
        partial.mkdir(parents=True, exist_ok=True)
        file = open(partial / "lock", "w")  # noqa: SIM115 - closed below; the lock dies with the process
    except OSError as error:
        raise UserError(f"cannot write {partial}: {error.strerror}; give another directory") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is building {partial}; wait for it, or end it") from None
        yield


def _resume_or_discard(partial: Path, plan: _Plan) -> None:
    """Leaves in `partial` what an earlier build of the same plan finished, and nothing of any other."""
    units, path = partial / "units", partial / "plan.json"
    if path.exists():
        difference = plan.difference(json.loads(path.read_bytes()))
        if difference:
            print(f"discarding the unfinished {partial}: {difference}", file=sys.stderr)
            path.unlink()  # first: units without a plan count for nothing
    if not path.exists():
        shutil.rmtree(units, ignore_errors=True)
        write_whole(path, lambda file: file.write(json.dumps(dataclasses.asdict(plan)).encode()))
    units.mkdir(exist_ok=True)
    for stray in units.glob("*.partial"):
        stray.unlink(missing_ok=True)
    done = len(list(units.glob("*.json")))
    if done:
        print(f"resuming {partial}: {done:,} of {-(-plan.records // plan.unit_records):,} units done", file=sys.stderr)


def _assemble(source: TokenSource, plan: _Plan, table: TokenTable, stems: list[Path], target: Path) -> CacheManifest:
    shutil.rmtree(target, ignore_errors=True)
    summaries = [load_summary(stem) for stem in stems]
    total = _add(summaries)
    if total.rows == 0:
        raise UserError(
            f"task {source.name}, split {source.split}: none of its {total.records:,} records has a token to learn "
            f"({total.counters.rejected_records:,} rejected, {total.counters.empty_records:,} empty, "
            f"{total.counters.unweighted_records:,} without loss weight); "
            f"{_first_reason(total.rejections)}leave the task out, or mend its records or renderer"
        )
    dtypes = _dtypes(total, table, plan.sequence_length)
    try:
        _write_arrays(stems, total, dtypes, plan.sequence_length, target)
        files = _digest_files(target)
    except (OSError, ValueError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise UserError(f"cannot write {target}: {first_line(error)}; mend that and run again to resume") from error
    listed = (json.dumps(files, indent=0) + "\n").encode()
    manifest = CacheManifest(
        task=source.name,
        split=source.split,
        fingerprint=plan.fingerprint,
        vocabulary=VocabularyIdentity(table.name, table.digest, table.size),
        sequence_length=plan.sequence_length,
        unit_records=plan.unit_records,
        rows=total.rows,
        segments=total.segments,
        records=total.records,
        tokens=total.tokens,
        loss_tokens=total.loss_tokens,
        loss_weight=total.loss_weight,
        loss_bytes=total.loss_bytes,
        counters=total.counters,
        rejections=total.rejections,
        origins=total.origins,
        dtypes=dtypes,
        versions=plan.versions,
        files_digest=hashlib.sha256(listed).hexdigest(),
    )
    text = (json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n").encode()
    write_whole(target / FILES, lambda file: file.write(listed))
    write_whole(target / MANIFEST, lambda file: file.write(text))
    return manifest


def _first_reason(rejections: tuple[Rejection, ...]) -> str:
    return f"the first reason: {rejections[0].reason}; " if rejections else ""


def _add(summaries: list[UnitSummary]) -> UnitSummary:
    numbers: Counter[str] = Counter()
    counters: Counter[str] = Counter()
    rejections: dict[str, Rejection] = {}
    for summary in summaries:
        counters.update(dataclasses.asdict(summary.counters))
        rejections = merge_rejections(rejections, summary.rejections)
        for name in ("rows", "segments", "records", "tokens", "loss_tokens", "loss_weight", "loss_bytes"):
            numbers[name] += getattr(summary, name)
    return UnitSummary(
        **numbers,
        most_segments=max((summary.most_segments for summary in summaries), default=0),
        plain_weights=all(summary.plain_weights for summary in summaries),
        counters=Counters(**counters),
        rejections=tuple(rejections.values()),
        origins=tuple(dict.fromkeys(origin for summary in summaries for origin in summary.origins)),
    )


def _dtypes(total: UnitSummary, table: TokenTable, sequence_length: int) -> dict[str, str]:
    return {
        "tokens": table.dtype.name,
        "segment_ids": np.min_scalar_type(total.most_segments).name,
        "positions": np.min_scalar_type(sequence_length - 1).name,
        "loss_weights": "uint8" if total.plain_weights else "float32",
        "row_offsets": "int64",
        "segment_record": "uint8",
        "segment_origin": "int32",
        "segment_part": "int32",
    }


def _write_arrays(
    stems: list[Path], total: UnitSummary, dtypes: dict[str, str], sequence_length: int, target: Path
) -> None:
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(dtypes, (total.segments,))
    shapes["segment_record"] = (total.segments, RECORD_ID_BYTES)
    shapes["row_offsets"] = (total.rows + 1,)
    for name in ROW_ARRAYS:
        shapes[name] = (total.rows, sequence_length)
    writers = {name: _ArrayWriter(target, name, shapes[name], dtypes[name]) for name in ARRAYS}
    origin_numbers = {origin: number for number, origin in enumerate(total.origins)}
    writers["row_offsets"].append(np.zeros(1, np.int64))
    segments = 0
    with Progress(f"assemble {target.parent.name.removesuffix('.partial')}", "rows", total.rows) as progress:
        for stem in stems:
            unit = Unit.load(stem)
            renumbered = np.array([origin_numbers[origin] for origin in unit.summary.origins], np.int32)
            writers["row_offsets"].append(segments + np.cumsum(unit.row_segments_N, dtype=np.int64))
            writers["segment_record"].append(unit.record_S16)
            writers["segment_origin"].append(renumbered[unit.origin_S])
            writers["segment_part"].append(unit.part_S)
            segments += unit.summary.segments
            _append_rows(unit, writers, sequence_length, progress)
    for writer in writers.values():
        writer.close()


def _append_rows(unit: Unit, writers: dict[str, _ArrayWriter], sequence_length: int, progress: Progress) -> None:
    """Lays the unit out a shard's worth of rows at a time: a unit of long documents may hold many shards."""
    block = max(1, SHARD_TOKENS // sequence_length)
    segment_stop_N = np.cumsum(unit.row_segments_N, dtype=np.int64)
    token_stop_S = np.cumsum(unit.lengths_S, dtype=np.int64)
    segment = token = 0
    for row in range(0, unit.summary.rows, block):
        row_segments = unit.row_segments_N[row : row + block]
        last_segment = int(segment_stop_N[row + len(row_segments) - 1])
        last_token = int(token_stop_S[last_segment - 1])
        rows = lay_out(
            unit.tokens_T[token:last_token],
            unit.weights_T[token:last_token],
            unit.lengths_S[segment:last_segment],
            row_segments,
            sequence_length,
        )
        writers["tokens"].append(rows.tokens_NL)
        writers["segment_ids"].append(rows.segment_ids_NL)
        writers["positions"].append(rows.positions_NL)
        writers["loss_weights"].append(rows.loss_weights_NL)
        segment, token = last_segment, last_token
        progress.add(len(row_segments))


class _ArrayWriter:
    """Appends to one zarr3 array, a whole shard at a time."""

    def __init__(self, target: Path, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self._name = name
        # in a context of its own: what is written must not fill the pool that readers share
        spec = {**Storage(str(target)).zarr_spec(name), **_zarr_options(name, shape, dtype)}
        self._array = ts.open(spec, create=True, context=ts.Context()).result()
        self._buffer: np.ndarray = np.zeros((_chunk_and_shard(name, shape)[1], *shape[1:]), dtype)
        self._filled = self._written = 0

    def append(self, values: np.ndarray) -> None:
        """Adds `values` along the first axis."""
        while len(values):
            taken = values[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            values = values[len(taken) :]
            if self._filled == len(self._buffer):
                self._flush()

    def _flush(self) -> None:
        stop = self._written + self._filled
        self._array[self._written : stop].write(self._buffer[: self._filled]).result()
        self._written, self._filled = stop, 0

    def close(self) -> None:
        """Writes the last, partial shard."""
        if self._filled:
            self._flush()
        if self._written != self._array.shape[0]:
            raise AssertionError(f"{self._name}: {self._written} of {self._array.shape[0]} written")


def _chunk_and_shard(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Length of a chunk (what is read at once) and of a shard (a file) along the first axis."""
    if name in ROW_ARRAYS:
        # a shard's index has 16 bytes for every chunk it could hold, and is read whole
        return 1, min(max(1, SHARD_TOKENS // shape[1]), SHARD_ROWS, shape[0])
    return SEGMENTS_PER_CHUNK, SEGMENTS_PER_SHARD


def _zarr_options(name: str, shape: tuple[int, ...], dtype: str) -> dict[str, object]:
    chunk, shard = _chunk_and_shard(name, shape)
    codecs = [_BYTES, _LZ4 if name == "positions" else _ZSTD, _CRC]
    return {
        "store_data_equal_to_fill_value": True,  # a chunk that is absent must mean damage, never zeros
        "metadata": {
            "shape": list(shape),
            "data_type": dtype,
            "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard, *shape[1:]]}},
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": [chunk, *shape[1:]],
                        "codecs": codecs,
                        "index_codecs": [_BYTES, _CRC],
                        "index_location": "end",
                    },
                }
            ],
        },
    }


def _digest_files(target: Path) -> dict[str, tuple[int, str]]:
    """Size and sha256 of every file, arrays in order and shards by number."""
    files: dict[str, tuple[int, str]] = {}
    for name in ARRAYS:
        paths = [path for path in (target / name).rglob("*") if path.is_file()]
        for path in sorted(paths, key=lambda path: (len(str(path)), str(path))):
            with open(path, "rb") as file:
                files[str(path.relative_to(target))] = (
                    path.stat().st_size,
                    hashlib.file_digest(file, "sha256").hexdigest(),
                )
    return files
