"""Renderings to tokens: control tokens from templates only, everything else as plain text, weights to the character.

A rendering is cut at the control tokens that its template spans contain, and at seams. The plain text between two cuts
is one *run*, encoded in one piece, so that merges cross span borders as in the family's own chat template. All runs of
a batch go to the tokenizer in one call, and all weights are found together:

    spans   <|start|>user<|end|> \\n\\n Hello!   <|eot|>        runs lie end to end on one axis of UTF-8 bytes;
    runs             user        \\n\\nHello!                   each span is a *piece* of a run on that axis,
    tokens  C        T     C     T   T    T     C              and so is each token

Shape suffixes: T tokens, R runs, P pieces, C control tokens.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hephaestus_jax.data.vocabularies import Vocabulary, check_unicode
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.spans import BOS, EOS, Rendering, Span

# In a template span this is a control token or a mistake, unless the renderer says which control tokens it writes.
_CONTROL_LIKE = re.compile(r"<\|\w+\|>")
_RUN = -1  # in place of a control id


@dataclass(frozen=True)
class Tokens:
    """One rendering as tokens.

    `tokens_T` int32; `weights_T` float32, the loss weight of the prediction *of* each token, 0 for the first. The first
    `carry` tokens lie wholly within the first `Rendering.carry` spans.
    """

    tokens_T: np.ndarray
    weights_T: np.ndarray
    carry: int = 0


def check_controls(controls: Iterable[str], vocabulary: Vocabulary) -> None:
    """Makes sure that a vocabulary has every control token a renderer writes.

    Raises:
        UserError: it lacks some.
    """
    missing = [name for name in controls if name not in vocabulary.control_ids and name not in (BOS, EOS)]
    if missing:
        raise UserError(
            f"{vocabulary.path} lacks the control tokens {' '.join(missing)}: use the vocabulary of the template's"
            " family, train one with them, or add them to a model's with `python -m tools.grow_vocabulary`"
        )


def tokenize(
    renderings: Sequence[Rendering], vocabulary: Vocabulary, controls: Sequence[str] | None = None
) -> list[Tokens]:
    """The tokens of each rendering.

    A token's weight is the least of those of the characters it covers, in whole or in part. Beginning and end of text
    (`spans.BOS`, `spans.EOS`) are left out where the vocabulary has none.

    Args:
        renderings: any number of them; tokenised in one call of the tokenizer.
        vocabulary: whose ids the tokens are.
        controls: the control tokens that the renderer writes (`Renderer.controls`), all of which the vocabulary must
            have. By default whatever looks like `<|name|>` in a template must be a control token of the vocabulary.

    Raises:
        UserError: a template names a control token that the vocabulary lacks, or a text is not valid Unicode.
    """
    check_controls(controls or (), vocabulary)
    batch = _Batch(vocabulary, controls is None)
    for rendering in renderings:
        batch.add(rendering)
    return batch.tokens()


@dataclass(frozen=True)
class _Border:
    """Where the carried spans of a rendering end: the numbers of items, runs and pieces of the batch begun before."""

    items: int
    run: int
    pieces: int


@dataclass
class _Batch:
    """Renderings on their way to tokens. An *item* is a control token or a run."""

    vocabulary: Vocabulary
    strict: bool  # whether all that looks like a control token must be one
    items: list[int] = field(default_factory=list)  # the control id, or _RUN
    item_weights: list[float] = field(default_factory=list)  # of control tokens; 0 for runs
    texts: list[str] = field(default_factory=list)  # of runs
    after_control: list[bool] = field(default_factory=list)  # of runs
    run_pieces: list[int] = field(default_factory=list)  # number of pieces at the end of each run
    piece_bytes: list[int] = field(default_factory=list)
    piece_weights: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # number of items at the end of each rendering
    borders: list[_Border] = field(default_factory=list)  # of each rendering's carried spans
    _parts: list[str] = field(default_factory=list)  # of the run being gathered
    _after_control: bool = False  # whether that run follows a control token

    def add(self, rendering: Rendering) -> None:
        """Cuts a rendering into items."""
        border = self._here()
        self._after_control = False
        for number, span in enumerate(rendering.spans, 1):
            if span.kind == "template":
                self._add_template(span)
            elif span.text:
                self._add_text(span.text, span.weight)
            if number == rendering.carry:
                border = self._here()
        self._end_run()
        self.ends.append(len(self.items))
        self.borders.append(border)

    def _here(self) -> _Border:
        return _Border(len(self.items), len(self.texts), len(self.piece_bytes))

    def _add_template(self, span: Span) -> None:
        if not span.text:  # a seam
            self._end_run()
            self._after_control = False
        for control, text in _split_template(self.vocabulary, span.text, self.strict):
            if control == _RUN:
                self._add_text(text, span.weight)
            else:
                self._end_run()
                self._after_control = True
                self.items.append(control)
                self.item_weights.append(span.weight)

    def _add_text(self, text: str, weight: float) -> None:
        self._parts.append(text)
        if text.isascii():
            self.piece_bytes.append(len(text))
        else:
            check_unicode(text)
            self.piece_bytes.append(len(text.encode()))
        self.piece_weights.append(weight)

    def _end_run(self) -> None:
        if self._parts:
            self.after_control.append(self._after_control)
            self.texts.append("".join(self._parts))
            self.run_pieces.append(len(self.piece_bytes))
            self.items.append(_RUN)
            self.item_weights.append(0.0)
            self._parts = []

    def tokens(self) -> list[Tokens]:
        """Encodes the runs and puts the renderings together."""
        ids_T, counts_R = self.vocabulary.encode_flat(self.texts, self.after_control)
        runs = _Runs(self, ids_T, counts_R)
        items = np.array(self.items, np.int64)
        lengths = np.ones(len(items), np.int64)
        lengths[items == _RUN] = counts_R
        starts = np.concatenate([[0], np.cumsum(lengths)])  # of items, in tokens of the whole batch
        controls_C = starts[:-1][items != _RUN]
        in_run = np.ones(starts[-1], bool)
        in_run[controls_C] = False
        tokens_T, weights_T = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
        tokens_T[controls_C], tokens_T[in_run] = items[items != _RUN], ids_T
        weights_T[controls_C] = np.array(self.item_weights, np.float32)[items != _RUN]
        weights_T[in_run] = runs.weights_T

        bounds = starts[[0, *self.ends]]
        weights_T[bounds[:-1][bounds[:-1] < bounds[1:]]] = 0  # nothing comes before a first token
        return [
            Tokens(tokens_T[first:last], weights_T[first:last], int(starts[border.items] - first + within))
            for first, last, border, within in zip(
                bounds[:-1], bounds[1:], self.borders, runs.tokens_within, strict=True
            )
        ]


class _Runs:
    """The tokens of all runs of a batch: their weights, and how many of them lie within carried spans."""

    def __init__(self, batch: _Batch, ids_T: np.ndarray, counts_R: np.ndarray) -> None:
        self._batch, self._counts_R = batch, counts_R
        self._last_token_R = np.cumsum(counts_R)  # exclusive
        self._last_piece_R = np.array(batch.run_pieces, np.int64)  # exclusive
        self._first_piece_R = np.concatenate([[0], self._last_piece_R])[:-1]
        self._weights_P = np.array(batch.piece_weights, np.float32)
        self._ends_P = np.cumsum(np.array(batch.piece_bytes, np.int64))
        least_R = most_R = np.empty(0, np.float32)
        if len(counts_R):
            least_R = np.minimum.reduceat(self._weights_P, self._first_piece_R)
            most_R = np.maximum.reduceat(self._weights_P, self._first_piece_R)
        cut = [border.run for border in batch.borders if self._cuts(border)]
        uneven_R = least_R < most_R  # only in these, and those cut by a border, does it matter where a token lies
        placed_R = uneven_R.copy()
        placed_R[cut] = True
        self.weights_T = np.repeat(least_R, counts_R)
        self.tokens_within = [0] * len(batch.borders)
        if placed_R.any():
            starts_T, ends_T = self._positions(ids_T, placed_R)
            uneven_T = np.repeat(uneven_R, counts_R)
            self.weights_T[uneven_T] = self._weights_at(starts_T[uneven_T], ends_T[uneven_T])
            self.tokens_within = [self._before(border, ends_T) for border in batch.borders]

    def _cuts(self, border: _Border) -> bool:
        """Whether a border lies inside a run, rather than between two items."""
        return border.run < len(self._counts_R) and border.pieces > self._first_piece_R[border.run]

    def _before(self, border: _Border, ends_T: np.ndarray) -> int:
        """Number of tokens of the run a border cuts that end before it."""
        if not self._cuts(border):
            return 0
        return int((ends_T[self._tokens_of(border.run)] <= self._ends_P[border.pieces - 1]).sum())

    def _tokens_of(self, run: int) -> slice:
        return slice(self._last_token_R[run] - self._counts_R[run], self._last_token_R[run])

    def _positions(self, ids_T: np.ndarray, placed_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last (exclusive) byte of each token, exact in the runs of `placed_R`; two int64 arrays [T]."""
        run_ends_R = self._ends_P[self._last_piece_R - 1]
        run_starts_R = np.concatenate([[0], run_ends_R])[:-1]
        ends_T = np.cumsum(self._batch.vocabulary.token_bytes[ids_T], dtype=np.int64)
        sums = np.concatenate([[0], ends_T])[np.concatenate([[0], self._last_token_R])]
        excess_R = np.diff(sums) - (run_ends_R - run_starts_R)  # 1 for a dummy prefix
        ends_T += np.repeat(run_starts_R - sums[:-1] - excess_R, self._counts_R)
        starts_T = ends_T - self._batch.vocabulary.token_bytes[ids_T]
        if self._batch.vocabulary.dummy_prefix:
            floor_T = np.repeat(run_starts_R, self._counts_R)
            starts_T, ends_T = np.maximum(starts_T, floor_T), np.maximum(ends_T, floor_T)
        plain_R = (excess_R == 0) | (self._batch.vocabulary.dummy_prefix & (excess_R == 1))
        for run in np.flatnonzero(placed_R):
            text = self._batch.texts[run]
            if not (plain_R[run] and self._batch.vocabulary.spells(text)):
                tokens = self._tokens_of(run)
                offsets = self._batch.vocabulary.offsets(text, self._batch.after_control[run])
                byte_of_char = np.cumsum([run_starts_R[run], *(len(char.encode()) for char in text)])
                starts_T[tokens], ends_T[tokens] = (byte_of_char[offset] for offset in offsets)
        return starts_T, ends_T

    def _weights_at(self, starts_T: np.ndarray, ends_T: np.ndarray) -> np.ndarray:
        """The least weight of the pieces that each token touches; of the next one for a token without characters."""
        first_T = np.searchsorted(self._ends_P, starts_T, "right").clip(max=len(self._ends_P) - 1)
        weights_T = self._weights_P[first_T]
        for token in np.flatnonzero(ends_T > self._ends_P[first_T]):
            beyond = int(np.searchsorted(self._ends_P, ends_T[token], "left"))
            weights_T[token] = self._weights_P[first_T[token] : beyond + 1].min()
        return weights_T


@functools.lru_cache(maxsize=4096)
def _split_template(vocabulary: Vocabulary, text: str, strict: bool) -> tuple[tuple[int, str], ...]:
    """A template's text as control ids, each with "", and the plain text between them, each with `_RUN`."""
    parts: list[tuple[int, str]] = []
    for number, part in enumerate(_control_pattern(vocabulary).split(text)):
        if number % 2 == 0:  # between control tokens
            if strict:
                check_controls(_CONTROL_LIKE.findall(part), vocabulary)
            parts += [(_RUN, part)] if part else []
        elif part in vocabulary.control_ids:
            if part in vocabulary.swallowing:
                raise UserError(f"{vocabulary.path} lets {part} swallow white space beside it; templates cannot use it")
            parts.append((vocabulary.control_ids[part], ""))
    return tuple(parts)


@functools.lru_cache(maxsize=8)
def _control_pattern(vocabulary: Vocabulary) -> re.Pattern[str]:
    names = sorted({*vocabulary.control_ids, BOS, EOS}, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, names))})")
