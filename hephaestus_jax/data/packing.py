"""Best-fit packing of tokenised records into rows of a fixed length.

Everything goes by explicit lengths: token id 0 is a token like any other, and only `segment_ids == 0` is padding. A
record longer than a row continues in another one (`split`), so every weighted token is predicted exactly once.

Shape suffixes: T tokens of one piece or of all pieces, S segments, N rows, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hephaestus_jax.errors import UserError

if TYPE_CHECKING:  # not at run time: reading a cache needs Rows, and must not need what reading a corpus needs
    from hephaestus_jax.data.identity import Origin
    from hephaestus_jax.data.task import TokenizedRecord

MIN_SEQUENCE_LENGTH = 2  # a row of one token has nothing to predict it from
CARRY_SHARE = 4  # a continuation re-carries at most a quarter of its row


@dataclass(frozen=True)
class Rows:
    """Packed rows.

    `tokens_NL`, `segment_ids_NL` and `positions_NL` are int32, `loss_weights_NL` is float32. Segments are numbered from
    1 in each row and segment 0 is padding, where everything else is 0 too. Positions restart at 0 in each segment.
    `loss_weights_NL[n, l]` weighs the prediction *of* `tokens_NL[n, l]`; at the first token of a segment it is 0.
    """

    tokens_NL: np.ndarray
    segment_ids_NL: np.ndarray
    positions_NL: np.ndarray
    loss_weights_NL: np.ndarray


@dataclass(frozen=True, slots=True)
class Piece:
    """What one row holds of one record: a segment in the making.

    The first `repeated` tokens were in earlier pieces already (carry and context) and have weight 0.
    """

    record_id: str
    origin: Origin
    part: int  # 0 for the piece that begins the record
    repeated: int
    tokens_T: np.ndarray  # int32
    weights_T: np.ndarray  # float32


@dataclass(frozen=True)
class Packed:
    """Pieces in the order of their rows, and how many go into each row."""

    pieces: list[Piece]
    row_segments_N: np.ndarray  # int64

    def rows(self, sequence_length: int) -> Rows:
        """The rows themselves."""
        return lay_out(
            _concatenate([piece.tokens_T for piece in self.pieces], np.int32),
            _concatenate([piece.weights_T for piece in self.pieces], np.float32),
            _lengths(self.pieces),
            self.row_segments_N,
            sequence_length,
        )


def check_sequence_length(sequence_length: int) -> None:
    """Raises a UserError for a row too short to predict anything in."""
    if sequence_length < MIN_SEQUENCE_LENGTH:
        raise UserError(f"sequence length {sequence_length} is too short; give at least {MIN_SEQUENCE_LENGTH} tokens")


def split(record: TokenizedRecord, sequence_length: int) -> list[Piece]:
    """Cuts a record into pieces that fit a row; none if no token of it can be learned.

    The first piece is the record's first `sequence_length` tokens. Every further piece begins with the record's first
    `carry` tokens (at most a quarter of the row) and with the last token of the piece before, all at weight 0, and goes
    on where that piece ended. The record's first token has nothing to be predicted from: its weight becomes 0.

    A record is learnable if a token other than its first has weight. Empty and one-token records are not.
    """
    tokens_T, weights_T = record.tokens_T, record.weights_T
    if not np.count_nonzero(weights_T[1:]):
        return []
    total = len(tokens_T)
    stop = min(total, sequence_length)
    first_weights_T = weights_T[:stop]
    if first_weights_T[0]:
        first_weights_T = first_weights_T.copy()
        first_weights_T[0] = 0
    pieces = [Piece(record.record_id, record.origin, 0, 0, tokens_T[:stop], first_weights_T)]
    carry_T = tokens_T[: min(record.carry, sequence_length // CARRY_SHARE)]
    repeated = len(carry_T) + 1
    while stop < total:
        start, stop = stop, min(total, stop + sequence_length - repeated)
        tokens = np.concatenate([carry_T, tokens_T[start - 1 : stop]])
        weights = np.concatenate([np.zeros(repeated, weights_T.dtype), weights_T[start:stop]])
        pieces.append(Piece(record.record_id, record.origin, len(pieces), repeated, tokens, weights))
    return pieces


def carry_is_cut(record: TokenizedRecord, sequence_length: int) -> bool:
    """Whether continuations of the record would begin with less than its whole carry."""
    return record.carry > sequence_length // CARRY_SHARE


def pack(pieces: Sequence[Piece], sequence_length: int) -> Packed:
    """Packs pieces into as few rows as best-fit-decreasing finds; the result depends on `pieces` alone.

    Johnson (1973), "Near-optimal bin packing algorithms".
    """
    lengths_S = _lengths(pieces)
    row_S = best_fit(lengths_S, sequence_length)
    order_S = np.lexsort((-lengths_S, row_S))  # stable: rows in order, longest segment first
    return Packed([pieces[index] for index in order_S], np.bincount(row_S))


def best_fit(lengths_S: np.ndarray, sequence_length: int) -> np.ndarray:
    """Row number of each piece under best-fit-decreasing.

    Rows are kept in stacks by their free space. A Python integer holds one bit per non-empty stack, so the tightest row
    that still fits is the lowest set bit at or above the piece's length: a handful of word operations per piece.
    """
    if len(lengths_S) and not 1 <= int(lengths_S.min()) <= int(lengths_S.max()) <= sequence_length:
        raise ValueError(f"piece lengths must be 1 to {sequence_length}, found {lengths_S.min()} to {lengths_S.max()}")
    stacks: list[list[int]] = [[] for _ in range(sequence_length + 1)]
    occupied = 0
    rows = 0
    row_S = [0] * len(lengths_S)
    order = np.argsort(-lengths_S, kind="stable")
    for index, length in zip(order.tolist(), lengths_S[order].tolist(), strict=True):
        fitting = occupied >> length
        if fitting:
            free = length + (fitting & -fitting).bit_length() - 1
            row = stacks[free].pop()
            if not stacks[free]:
                occupied ^= 1 << free
        else:
            free, row = sequence_length, rows
            rows += 1
        row_S[index] = row
        left = free - length
        if left:
            if not stacks[left]:
                occupied |= 1 << left
            stacks[left].append(row)
    return np.asarray(row_S, np.int64)


def lay_out(
    tokens_T: np.ndarray,
    weights_T: np.ndarray,
    lengths_S: np.ndarray,
    row_segments_N: np.ndarray,
    sequence_length: int,
) -> Rows:
    """Spreads segments, laid end to end in `tokens_T` and `weights_T`, over their rows."""
    first_segment_N = np.cumsum(row_segments_N) - row_segments_N
    number_S = np.arange(1, len(lengths_S) + 1) - np.repeat(first_segment_N, row_segments_N)
    start_S = np.cumsum(lengths_S) - lengths_S
    filled_N = np.add.reduceat(lengths_S, first_segment_N) if len(lengths_S) else np.zeros(0, np.int64)
    filled_NL = np.arange(sequence_length) < filled_N[:, None]

    def spread(values_T: np.ndarray, dtype: type) -> np.ndarray:
        values_NL: np.ndarray = np.zeros(filled_NL.shape, dtype)
        values_NL[filled_NL] = values_T
        return values_NL

    positions_T = np.arange(len(tokens_T), dtype=np.int32)
    positions_T -= np.repeat(start_S.astype(np.int32), lengths_S)
    return Rows(
        tokens_NL=spread(tokens_T, np.int32),
        segment_ids_NL=spread(np.repeat(number_S.astype(np.int32), lengths_S), np.int32),
        positions_NL=spread(positions_T, np.int32),
        loss_weights_NL=spread(weights_T, np.float32),
    )


def _lengths(pieces: Sequence[Piece]) -> np.ndarray:
    return np.fromiter((len(piece.tokens_T) for piece in pieces), np.int64, len(pieces))


def _concatenate(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.zeros(0, dtype)
