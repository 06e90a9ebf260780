"""Packing units: a fixed number of a source's records, tokenised and packed in one go, by any process.

A unit is a function of its records alone, so the bytes of a cache are the same for any number of workers. Finished
units wait on disk until all are there: `<number>.npz` with their segments, then `<number>.json` with what they count.

Shape suffixes: T tokens, S segments, N rows of one unit.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.data.cache import RECORD_ID_BYTES, Counters, Rejection
from hephaestus_jax.data.identity import Origin
from hephaestus_jax.data.packing import Packed, Piece, carry_is_cut, pack, split
from hephaestus_jax.data.task import Rejected, TokenizedRecord, TokenSource
from hephaestus_jax.errors import UserError

EXAMPLES = 3  # record ids kept per reason of rejection
REASONS = 50  # reasons kept apart; further ones share OTHER_REASONS, so that a manifest stays readable
OTHER_REASONS = "other reasons"


@dataclass(frozen=True)
class TokenTable:
    """What packing must know of a vocabulary: its name, digest, and the UTF-8 bytes that each id spells."""

    name: str
    digest: str
    bytes_V: np.ndarray  # int32 [vocabulary size]; 0 for control tokens

    @classmethod
    def load(cls, path: str) -> TokenTable:
        """Reads the vocabulary at `path`."""
        from hephaestus_jax.data.vocabularies import load_vocabulary

        vocabulary = load_vocabulary(path)
        return cls(Path(vocabulary.path).name, vocabulary.digest, np.asarray(vocabulary.token_bytes, np.int32))

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.bytes_V)

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned integers that hold every id: 16 or 32 bits."""
        return np.dtype(np.uint16 if self.size <= 1 << 16 else np.uint32)


@dataclass(frozen=True)
class UnitSummary:
    """What a unit counts. The origins are those of its segments, in order of appearance."""

    rows: int = 0
    segments: int = 0
    records: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    loss_weight: float = 0.0
    loss_bytes: int = 0
    most_segments: int = 0  # in one row
    plain_weights: bool = True  # all of them 0 or 1
    counters: Counters = field(default_factory=Counters)
    rejections: tuple[Rejection, ...] = ()
    origins: tuple[Origin, ...] = ()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> UnitSummary:
        """Inverse of `dataclasses.asdict` through JSON."""
        rejections = tuple(Rejection(r["reason"], r["records"], tuple(r["examples"])) for r in value["rejections"])
        origins = tuple(Origin(**origin) for origin in value["origins"])
        fields = {**value, "counters": Counters(**value["counters"]), "rejections": rejections, "origins": origins}
        return cls(**fields)


@dataclass(frozen=True)
class Unit:
    """The packed segments of a unit, laid end to end in the order of their rows."""

    tokens_T: np.ndarray  # uint16 or uint32
    weights_T: np.ndarray  # bool if all weights are 0 or 1, else float32
    lengths_S: np.ndarray  # int32
    row_segments_N: np.ndarray  # int32: segments of each row
    record_S16: np.ndarray  # uint8: record ids
    origin_S: np.ndarray  # int32: index into the summary's origins
    part_S: np.ndarray  # int32
    summary: UnitSummary

    def save(self, stem: Path) -> None:
        """Writes `<stem>.npz` and then `<stem>.json`, each whole or not at all: the second says that both are there."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "summary"}
        write_whole(stem.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
        summary = json.dumps(dataclasses.asdict(self.summary)).encode()
        write_whole(stem.with_suffix(".json"), lambda file: file.write(summary))

    @classmethod
    def load(cls, stem: Path) -> Unit:
        """Inverse of `save`."""
        with np.load(stem.with_suffix(".npz")) as arrays:
            return cls(**arrays, summary=load_summary(stem))


def load_summary(stem: Path) -> UnitSummary:
    """What the unit saved under `stem` counts."""
    return UnitSummary.from_json(json.loads(stem.with_suffix(".json").read_bytes()))


def build_unit(source: TokenSource, start: int, stop: int, sequence_length: int, table: TokenTable) -> Unit:
    """Tokenises and packs records `start` to `stop` (exclusive).

    Raises:
        UserError: the source is damaged, or yields tokens, weights or ids that no cache can hold.
    """
    pieces: list[Piece] = []
    counts: Counter[str] = Counter()
    rejections: dict[str, Rejection] = {}
    records = 0
    for item in source.read(start, stop):
        records += 1
        if isinstance(item, Rejected):
            counts["rejected_records"] += 1
            rejections = merge_rejections(rejections, [Rejection(item.reason, 1, (item.record_id,))])
            continue
        new = split(item, sequence_length)
        pieces.extend(new)
        _count(counts, item, new, sequence_length)
    if records != stop - start:
        raise UserError(
            f"task {source.name}: records {start} to {stop - 1} were asked for and {records} came; the source counts "
            "its records wrongly or changed during the build"
        )
    packed = pack(pieces, sequence_length)
    return _unit(packed, source.name, table, records, Counters(**counts), tuple(rejections.values()))


def _count(counts: Counter[str], record: TokenizedRecord, pieces: list[Piece], sequence_length: int) -> None:
    if len(record.tokens_T) == 0:
        counts["empty_records"] += 1
        return
    if record.weights_T[0] > 0:
        counts["unpredicted_tokens"] += 1
    if not pieces:
        counts["unweighted_records"] += 1
        counts["unweighted_tokens"] += len(record.tokens_T)
    elif len(pieces) > 1:
        counts["continued_records"] += 1
        counts["carry_cut_records"] += carry_is_cut(record, sequence_length)
        counts["repeated_tokens"] += sum(piece.repeated for piece in pieces)


def merge_rejections(known: dict[str, Rejection], new: Iterable[Rejection]) -> dict[str, Rejection]:
    """Adds `new` to what is known per reason, in order of appearance."""
    for rejection in new:
        reason = rejection.reason if rejection.reason in known or len(known) < REASONS else OTHER_REASONS
        before = known.get(reason, Rejection(reason, 0, ()))
        examples = (*before.examples, *rejection.examples)[:EXAMPLES]
        known[reason] = Rejection(reason, before.records + rejection.records, examples)
    return known


def _unit(
    packed: Packed, task: str, table: TokenTable, records: int, counters: Counters, rejections: tuple[Rejection, ...]
) -> Unit:
    pieces = packed.pieces
    tokens_T = np.concatenate([np.zeros(0, np.int32), *(piece.tokens_T for piece in pieces)])
    weights_T = np.concatenate([np.zeros(0, np.float32), *(piece.weights_T for piece in pieces)])
    lengths_S = np.fromiter((len(piece.tokens_T) for piece in pieces), np.int32, len(pieces))
    _check(tokens_T, weights_T, lengths_S, pieces, task, table)
    learned_T = weights_T > 0
    loss_tokens = int(np.count_nonzero(learned_T))
    plain = int(np.count_nonzero(weights_T == 1)) == loss_tokens
    origins = {origin: number for number, origin in enumerate(dict.fromkeys(piece.origin for piece in pieces))}
    summary = UnitSummary(
        rows=len(packed.row_segments_N),
        segments=len(pieces),
        records=records,
        tokens=len(tokens_T),
        loss_tokens=loss_tokens,
        loss_weight=float(weights_T.sum(dtype=np.float64)),
        loss_bytes=int(table.bytes_V[tokens_T[learned_T]].sum(dtype=np.int64)),
        most_segments=int(packed.row_segments_N.max(initial=0)),
        plain_weights=plain,
        counters=counters,
        rejections=rejections,
        origins=tuple(origins),
    )
    return Unit(
        tokens_T=tokens_T.astype(table.dtype),
        weights_T=learned_T if plain else weights_T.astype(np.float32),
        lengths_S=lengths_S,
        row_segments_N=packed.row_segments_N.astype(np.int32),
        record_S16=_record_ids(pieces, task),
        origin_S=np.fromiter((origins[piece.origin] for piece in pieces), np.int32, len(pieces)),
        part_S=np.fromiter((piece.part for piece in pieces), np.int32, len(pieces)),
        summary=summary,
    )


def _check(
    tokens_T: np.ndarray,
    weights_T: np.ndarray,
    lengths_S: np.ndarray,
    pieces: list[Piece],
    task: str,
    table: TokenTable,
) -> None:
    if not len(tokens_T):
        return
    in_range = tokens_T.min() >= 0 and tokens_T.max() < table.size
    if in_range and weights_T.min() >= 0 and weights_T.max() < np.inf:  # NaN compares as False
        return
    foreign_T = (tokens_T < 0) | (tokens_T >= table.size)
    broken_T = ~((weights_T >= 0) & np.isfinite(weights_T))
    bad = np.flatnonzero(foreign_T | broken_T)
    piece = pieces[int(np.searchsorted(np.cumsum(lengths_S), bad[0], side="right"))]
    if foreign_T[bad[0]]:
        raise UserError(
            f"task {task}, record {piece.record_id}: token id {tokens_T[bad[0]]} is outside vocabulary {table.name} of "
            f"{table.size:,} ids; give the task the vocabulary that its tokens come from"
        )
    raise UserError(
        f"task {task}, record {piece.record_id}: loss weight {weights_T[bad[0]]} is negative or not finite; mend the "
        "renderer"
    )


def _record_ids(pieces: list[Piece], task: str) -> np.ndarray:
    try:
        data = b"".join(bytes.fromhex(piece.record_id) for piece in pieces)
        return np.frombuffer(data, np.uint8).reshape(len(pieces), RECORD_ID_BYTES)
    except ValueError:
        raise UserError(f"task {task}: record ids must be {2 * RECORD_ID_BYTES} hexadecimal digits") from None


def write_whole(path: Path, write: Callable[[Any], Any]) -> None:
    """Writes a file beside `path` and renames it when whole and on disk.

    Raises:
        UserError: the disk is full, or the file cannot be written; nothing is left under `path`.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}; mend that and run again to resume") from error
