from collections import defaultdict

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from token_sources import make_record, record_id

from hephaestus_jax.data.packing import Packed, best_fit, check_sequence_length, pack, split
from hephaestus_jax.data.task import TokenizedRecord
from hephaestus_jax.errors import UserError

LENGTHS = st.sampled_from([2, 3, 4, 5, 8, 9, 32])


def record_of(content: bytes, carry: float, number: int) -> TokenizedRecord:
    """A token and its weight from each byte: id 0 is frequent, and so is weight 0."""
    codes = np.frombuffer(content, np.uint8)
    weights = np.array([0, 0.25, 1, 1])[codes // 4 % 4]
    return make_record(codes % 4, weights, round(carry * len(codes)), number)


@st.composite
def records(draw: st.DrawFn) -> list[TokenizedRecord]:
    """Up to 12 records of up to 80 tokens; the carry may be all of it."""
    drawn = draw(st.lists(st.tuples(st.binary(max_size=80), st.sampled_from([0, 0.1, 0.5, 1])), max_size=12))
    return [record_of(content, carry, number) for number, (content, carry) in enumerate(drawn)]


def packed_of(drawn: list[TokenizedRecord], length: int) -> Packed:
    return pack([piece for record in drawn for piece in split(record, length)], length)


@settings(max_examples=200, deadline=None)
@given(records(), LENGTHS)
@example([make_record([0] * 640, [1.0] * 640, 3)], 32)  # id 0 only, 20 rows
@example([make_record(range(80), [1.0] * 80, 80)], 8)  # carry longer than a row
@example([make_record([7], [1.0]), make_record([], [])], 2)
def test_every_weighted_token_is_predicted_exactly_once_from_the_token_before_it(
    drawn: list[TokenizedRecord], length: int
) -> None:
    packed = packed_of(drawn, length)
    rows = packed.rows(length)
    predicted: dict[str, list[tuple[int, int, int, float]]] = defaultdict(list)
    piece = iter(packed.pieces)
    for n in range(len(rows.tokens_NL)):
        for segment in range(1, rows.segment_ids_NL[n].max() + 1):
            at = np.flatnonzero(rows.segment_ids_NL[n] == segment)
            source = next(piece)
            for k in at[1:]:
                if weight := float(rows.loss_weights_NL[n, k]):
                    pair = int(rows.tokens_NL[n, k - 1]), int(rows.tokens_NL[n, k])
                    predicted[source.record_id].append((source.part, *pair, weight))
    for record in drawn:
        expected = [
            (int(record.tokens_T[k - 1]), int(record.tokens_T[k]), float(record.weights_T[k]))
            for k in range(1, len(record.tokens_T))
            if record.weights_T[k]
        ]
        found = sorted(predicted.pop(record.record_id, []), key=lambda item: item[0])  # stable: in order within a part
        assert [item[1:] for item in found] == expected
    assert not predicted


@settings(max_examples=200, deadline=None)
@given(records(), LENGTHS)
def test_rows_are_well_formed(drawn: list[TokenizedRecord], length: int) -> None:
    rows = packed_of(drawn, length).rows(length)
    shape = rows.tokens_NL.shape
    assert shape[1:] == (length,)
    for array in (rows.segment_ids_NL, rows.positions_NL, rows.loss_weights_NL):
        assert array.shape == shape
    dtypes = [rows.tokens_NL.dtype, rows.segment_ids_NL.dtype, rows.positions_NL.dtype, rows.loss_weights_NL.dtype]
    assert dtypes == [np.int32, np.int32, np.int32, np.float32]
    padding = rows.segment_ids_NL == 0
    for array in (rows.tokens_NL, rows.positions_NL, rows.loss_weights_NL):
        assert not array[padding].any()
    for n in range(shape[0]):
        ids = rows.segment_ids_NL[n]
        used = ids[: np.count_nonzero(ids)]
        assert len(used) and used[0] == 1 and set(np.diff(used)) <= {0, 1}  # contiguous, from 1, padding last
        starts = np.flatnonzero(np.diff(used, prepend=0))
        assert not rows.positions_NL[n, starts].any() and not rows.loss_weights_NL[n, starts].any()
        assert (np.diff(rows.positions_NL[n, : len(used)])[np.diff(used) == 0] == 1).all()


@settings(max_examples=200, deadline=None)
@given(records(), LENGTHS)
def test_records_are_rebuilt_from_their_pieces(drawn: list[TokenizedRecord], length: int) -> None:
    pieces = packed_of(drawn, length).pieces
    for record in drawn:
        own = sorted((piece for piece in pieces if piece.record_id == record.record_id), key=lambda piece: piece.part)
        if not record.weights_T[1:].any():
            assert not own
            continue
        assert [piece.part for piece in own] == list(range(len(own)))
        fresh = np.concatenate([piece.tokens_T[piece.repeated :] for piece in own])
        np.testing.assert_array_equal(fresh, record.tokens_T)
        carry = record.tokens_T[: min(record.carry, length // 4)]
        end = len(own[0].tokens_T)
        for piece in own[1:]:
            np.testing.assert_array_equal(piece.tokens_T[: len(carry)], carry)
            assert piece.repeated == len(carry) + 1 and piece.tokens_T[len(carry)] == record.tokens_T[end - 1]
            assert not piece.weights_T[: piece.repeated].any() and len(piece.tokens_T) <= length
            end += len(piece.tokens_T) - piece.repeated


def test_splitting_leaves_the_record_as_it_was() -> None:
    record = make_record([5, 6, 7], [1, 1, 1])
    piece = split(record, 8)[0]
    assert piece.weights_T.tolist() == [0, 1, 1] and record.weights_T.tolist() == [1, 1, 1]


@pytest.mark.parametrize("size", [8, 9, 15, 160])
def test_pieces_of_a_long_document(size: int) -> None:
    pieces = split(make_record(range(size), [1] * size, carry=1), 8)
    assert len(pieces) == 1 + max(0, -(-(size - 8) // 6))  # eight, then six new ones after carry and context
    assert sum(int(piece.weights_T.sum()) for piece in pieces) == size - 1


def test_the_whole_carry_is_repeated_if_it_fits_in_a_quarter() -> None:
    two = split(make_record(range(20), [1] * 20, carry=2), 8)
    assert two[1].tokens_T.tolist() == [0, 1, 7, 8, 9, 10, 11, 12]
    cut = split(make_record(range(20), [1] * 20, carry=3), 8)
    assert cut[1].tokens_T.tolist() == two[1].tokens_T.tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=60))
def test_best_fit_is_what_the_textbook_says(lengths: list[int]) -> None:
    """Against a plain implementation, by free space: the row's identity among equally full ones does not matter."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [k for k, used in enumerate(rows) if used + length <= 40]
        if fitting:
            rows[max(fitting, key=lambda k: rows[k])] += length
        else:
            rows.append(length)
    found = best_fit(np.array(lengths, np.int64), 40)
    used = np.bincount(found, weights=lengths) if lengths else np.zeros(0)
    assert sorted(used) == sorted(rows)


def test_the_result_depends_on_the_pieces_alone() -> None:
    rng = np.random.default_rng(0)
    pieces = [split(make_record([1] * n, [1] * n, number=n), 64)[0] for n in rng.integers(2, 64, 200)]
    first, second = pack(pieces, 64), pack(list(pieces), 64)
    assert [piece.record_id for piece in first.pieces] == [piece.record_id for piece in second.pieces]
    assert sorted(piece.record_id for piece in first.pieces) == sorted(piece.record_id for piece in pieces)


def test_usual_documents_fill_98_percent_of_rows_of_2048() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.8, 1.2, 4_096), 2, 2_048).astype(np.int64)
    rows = best_fit(lengths, 2_048).max() + 1
    assert lengths.sum() / (rows * 2_048) >= 0.98


def test_refusals() -> None:
    with pytest.raises(UserError, match="sequence length 1 is too short"):
        check_sequence_length(1)
    with pytest.raises(ValueError, match="1 to 4"):
        best_fit(np.array([5]), 4)
    with pytest.raises(ValueError, match="1 to 4"):
        best_fit(np.array([0]), 4)
    assert len(pack([], 8).rows(8).tokens_NL) == 0
    assert record_id(0) != record_id(1)
