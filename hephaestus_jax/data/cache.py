"""Reading a cache: one task and split as packed rows, on any storage, with numpy and TensorStore alone.

    manifest.json                what the cache holds and what it was made from (`CacheManifest`)
    files.json                   size in bytes and sha256 of every file below
    tokens, segment_ids, positions, loss_weights       zarr3 [rows, sequence_length]
    row_offsets                  zarr3 int64 [rows + 1]: first segment of each row
    segment_record               zarr3 uint8 [segments, 16]: record id
    segment_origin               zarr3 int32 [segments]: index into the manifest's origins
    segment_part                 zarr3 int32 [segments]: 0 where the record begins, n for its n-th continuation

Integers are stored as small as the data permits and read back as int32. Every row carries a CRC-32C, so damage inside a
row is an error when the row is read; missing and truncated files are found on opening, and `verify` finds anything.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import tensorstore as ts

from hephaestus_jax.data.identity import Origin, VocabularyIdentity
from hephaestus_jax.data.packing import Rows
from hephaestus_jax.data.storage import CONTEXT, MissingKeyError, Storage, first_line
from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress

FORMAT = 1
MANIFEST, FILES = "manifest.json", "files.json"
ROW_ARRAYS = ("tokens", "segment_ids", "positions", "loss_weights")
SEGMENT_ARRAYS = ("segment_record", "segment_origin", "segment_part")
ARRAYS = (*ROW_ARRAYS, "row_offsets", *SEGMENT_ARRAYS)
RECORD_ID_BYTES = 16
FIND_SEGMENTS = 1 << 20  # record ids looked through at a time: 16 MiB
VERIFY_BYTES = 16 << 20  # bytes of a file hashed at a time


@dataclass(frozen=True)
class Rejection:
    """Records turned down for one reason; `examples` are a few of their ids."""

    reason: str
    records: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Counters:
    """What happened to records on their way into rows: nothing is left out without being counted here."""

    empty_records: int = 0  # no tokens at all; not in the rows
    unweighted_records: int = 0  # no token that could be learned (one-token records too); not in the rows
    unweighted_tokens: int = 0  # tokens of those records
    unpredicted_tokens: int = 0  # weighted first tokens, with nothing before them to be predicted from; weight set to 0
    continued_records: int = 0  # longer than a row
    carry_cut_records: int = 0  # continued records whose carry was longer than a quarter of a row
    repeated_tokens: int = 0  # carry and context at the head of continuations, weight 0
    rejected_records: int = 0  # could not be turned into tokens; `rejections` says why


@dataclass(frozen=True)
class CacheManifest:
    """What a cache holds; the digest covers every byte of it, and every field but `versions`."""

    task: str
    split: str
    fingerprint: str  # of the TokenSource: records, renderer and vocabulary
    vocabulary: VocabularyIdentity
    sequence_length: int
    unit_records: int
    rows: int
    segments: int
    records: int  # read from the source, whatever became of them
    tokens: int  # in rows, repeated ones included, padding not
    loss_tokens: int  # of weight above 0
    loss_weight: float  # sum of all loss weights
    loss_bytes: int  # UTF-8 bytes spelled by the loss tokens
    counters: Counters
    rejections: tuple[Rejection, ...]
    origins: tuple[Origin, ...]
    dtypes: Mapping[str, str]
    versions: Mapping[str, str]
    files_digest: str
    format: int = FORMAT
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        # the same rows made with other package versions are the same cache
        names = {f.name for f in dataclasses.fields(self) if f.init} - {"versions"}
        value = {name: getattr(self, name) for name in names}
        text = json.dumps(value, sort_keys=True, default=dataclasses.asdict)
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    @property
    def packing_efficiency(self) -> float:
        """Share of the rows' positions that hold a token."""
        return self.tokens / max(1, self.rows * self.sequence_length)

    def to_json(self) -> dict[str, Any]:
        """The manifest as a JSON object; the packing efficiency is written for the reader's convenience."""
        return {**dataclasses.asdict(self), "packing_efficiency": round(self.packing_efficiency, 6)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> CacheManifest:
        """Inverse of `to_json`.

        Raises:
            UserError: another format, a field missing or unknown, or a value changed since it was written.
        """
        found = value.get("format") if isinstance(value, Mapping) else None
        if found != FORMAT:
            raise UserError(f"{where} has format {found}, this version reads {FORMAT}; rebuild the cache")
        fields = {key: item for key, item in value.items() if key not in ("packing_efficiency", "digest")}
        try:
            fields["vocabulary"] = VocabularyIdentity(**fields["vocabulary"])
            fields["counters"] = Counters(**fields["counters"])
            fields["rejections"] = tuple(
                Rejection(item["reason"], item["records"], tuple(item["examples"])) for item in fields["rejections"]
            )
            fields["origins"] = tuple(Origin(**origin) for origin in fields["origins"])
            manifest = cls(**fields)
        except (KeyError, TypeError) as error:
            raise UserError(f"{where} is damaged ({first_line(error)}); rebuild the cache") from error
        if manifest.digest != value.get("digest"):
            raise UserError(f"{where} was changed since it was built; rebuild the cache")
        return manifest


@dataclass(frozen=True)
class Segment:
    """One segment of a row: tokens `start` to `stop` (exclusive) are part number `part` of a record."""

    record_id: str
    origin: Origin
    part: int
    start: int
    stop: int


@dataclass(frozen=True)
class Cache:
    """An opened cache: make one with `Cache.open`. Reading is thread-safe; pickling reopens it."""

    url: str
    manifest: CacheManifest
    files: Mapping[str, tuple[int, str]]  # file → size in bytes, sha256

    @classmethod
    def open(cls, url: str) -> Cache:
        """Opens a cache and checks, without reading the rows, that all of it is there.

        Checked are the digests of the manifest, of the file list and of the arrays' metadata, that every file is
        present, and that the last file of each array has its whole length.

        Raises:
            UserError: no cache, one of another format, or one that is incomplete or was changed.
        """
        storage = Storage(url)
        try:
            manifest = CacheManifest.from_json(storage.read_json(MANIFEST), f"{storage}/{MANIFEST}")
        except MissingKeyError:
            raise UserError(f"no cache at {storage}: build one with `python -m tools.build_cache`") from None
        try:
            listed = storage.read(FILES)
        except MissingKeyError as error:
            raise UserError(f"{storage} is incomplete: {error}; rebuild the cache, or copy it anew") from error
        if hashlib.sha256(listed).hexdigest() != manifest.files_digest:
            raise UserError(f"{storage}/{FILES} was changed since the cache was built; rebuild it")
        files = {name: (size, sha256) for name, (size, sha256) in json.loads(listed).items()}
        cache = cls(storage.url, manifest, files)
        cache._check_files()
        return cache

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.url, self.manifest, self.files)  # arrays are opened anew

    def __len__(self) -> int:
        return self.manifest.rows

    def read(self, rows: np.ndarray) -> Rows:
        """The rows of these numbers, in this order; numbers may repeat. All are read at once.

        Raises:
            IndexError: a number is not that of a row.
            UserError: a row is missing or damaged.
        """
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.manifest.rows:
            raise IndexError(f"rows of {self.url} are 0 to {self.manifest.rows - 1}, not {rows.min()} to {rows.max()}")
        pending = [self._arrays[name][rows].read() for name in ROW_ARRAYS]
        tokens, segment_ids, positions, loss_weights = (self._result(future) for future in pending)
        return Rows(
            tokens_NL=tokens.astype(np.int32),
            segment_ids_NL=segment_ids.astype(np.int32),
            positions_NL=positions.astype(np.int32),
            loss_weights_NL=loss_weights.astype(np.float32),
        )

    def segments(self, row: int) -> list[Segment]:
        """The segments of one row, in order: where each comes from, and its place in the row."""
        rows = self.read(np.array([row]))
        first, stop = (int(offset) for offset in self._slice("row_offsets", row, row + 2))
        ids = self._slice("segment_record", first, stop)
        origins = self._slice("segment_origin", first, stop)
        parts = self._slice("segment_part", first, stop)
        segment_ids_L = rows.segment_ids_NL[0]
        used_L = segment_ids_L[segment_ids_L > 0]
        bounds = np.searchsorted(used_L, np.arange(1, stop - first + 2)).tolist()
        return [
            Segment(
                record_id=ids[k].tobytes().hex(),
                origin=self.manifest.origins[int(origins[k])],
                part=int(parts[k]),
                start=bounds[k],
                stop=bounds[k + 1],
            )
            for k in range(stop - first)
        ]

    def find(self, record_id: str) -> np.ndarray:
        """Numbers of the rows that hold a piece of the record, ascending; none if it is not in the cache."""
        try:
            wanted = np.frombuffer(bytes.fromhex(record_id), np.uint8)
        except ValueError:
            wanted = np.zeros(0, np.uint8)
        if len(wanted) != RECORD_ID_BYTES:
            raise UserError(f"{record_id!r} is no record id; give its {2 * RECORD_ID_BYTES} hexadecimal digits")
        hits = [
            start + np.flatnonzero((self._slice("segment_record", start, start + FIND_SEGMENTS) == wanted).all(axis=1))
            for start in range(0, self.manifest.segments, FIND_SEGMENTS)
        ]
        if not any(len(hit) for hit in hits):
            return np.zeros(0, np.int64)
        offsets = self._slice("row_offsets", 0, self.manifest.rows + 1)
        return np.unique(np.searchsorted(offsets, np.concatenate(hits), side="right") - 1)

    def require(self, vocabulary_digest: str | None = None, sequence_length: int | None = None) -> None:
        """Refuses a cache made with another vocabulary or for another sequence length.

        Raises:
            UserError: what differs, and from what.
        """
        made_with = self.manifest.vocabulary
        if vocabulary_digest is not None and vocabulary_digest != made_with.digest:
            raise UserError(
                f"{self.url} was tokenised with vocabulary {made_with.name} (digest {made_with.digest[:12]}), not with "
                f"the one of digest {vocabulary_digest[:12]}; give that vocabulary, or rebuild the cache"
            )
        if sequence_length is not None and sequence_length != self.manifest.sequence_length:
            raise UserError(
                f"{self.url} holds rows of {self.manifest.sequence_length} tokens, not {sequence_length}; "
                f"set the sequence length to {self.manifest.sequence_length}, or build a cache of {sequence_length}"
            )

    def verify(self) -> None:
        """Reads every byte and compares it with its digest.

        Raises:
            UserError: the first file that is missing, truncated or changed.
        """
        storage = Storage(self.url)
        with Progress(f"verify {self.url}", "bytes", sum(size for size, _ in self.files.values())) as progress:
            for name, (size, sha256) in self.files.items():
                hasher = hashlib.sha256()
                self._check_length(storage, name)
                for start in range(0, size, VERIFY_BYTES):
                    data = storage.read(name, slice(start, min(size, start + VERIFY_BYTES)))
                    hasher.update(data)
                    progress.add(len(data))
                if hasher.hexdigest() != sha256:
                    raise UserError(f"{self.url}/{name} was changed since the cache was built; rebuild it")

    @cached_property
    def _arrays(self) -> dict[str, ts.TensorStore]:
        storage = Storage(self.url)
        options = {"fill_missing_data_reads": False, "recheck_cached_data": "open", "recheck_cached_metadata": "open"}
        pending = {
            name: ts.open({**storage.zarr_spec(name), **options}, open=True, read=True, context=CONTEXT)
            for name in ARRAYS
        }
        return {name: self._result(future) for name, future in pending.items()}

    def _slice(self, name: str, start: int, stop: int) -> np.ndarray:
        array = self._arrays[name]
        return self._result(array[start : min(stop, array.shape[0])].read())

    def _result(self, future: ts.Future) -> Any:
        try:
            return future.result()
        except (ValueError, OSError) as error:
            raise UserError(
                f"{self.url} is damaged ({first_line(error)}); rebuild the cache, or copy it anew"
            ) from error

    def _check_files(self) -> None:
        storage = Storage(self.url)
        present = set(storage.list())
        missing = [name for name in self.files if name not in present]
        if missing:
            raise UserError(
                f"{self.url} is incomplete: {len(missing)} of {len(self.files)} files are missing, the first is "
                f"{missing[0]}; rebuild the cache, or copy it anew"
            )
        for array in ARRAYS:
            metadata = f"{array}/zarr.json"
            if hashlib.sha256(storage.read(metadata)).hexdigest() != self.files[metadata][1]:
                raise UserError(f"{self.url}/{metadata} was changed since the cache was built; rebuild it")
            shards = [name for name in self.files if name.startswith(f"{array}/c/")]
            self._check_length(storage, max(shards, key=lambda name: (len(name), name)))  # c/10 comes after c/9

    def _check_length(self, storage: Storage, name: str) -> None:
        size = self.files[name][0]
        try:
            whole = len(storage.read(name, slice(size - 1, None))) == 1
        except MissingKeyError:
            raise
        except UserError:  # the range begins beyond the end
            whole = False
        if not whole:
            raise UserError(
                f"{self.url}/{name} is truncated or grew: its size should be {size:,} bytes; rebuild the cache, or "
                "copy it anew"
            )
