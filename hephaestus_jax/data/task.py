"""What the cache builder packs: a named source of tokenised records, readable by number from any process.

A `TokenSource` hides where tokens come from. `RenderedTask` is the usual one (records → renderer → vocabulary, in
batches); `data_tasks.seqio_source` wraps any foreign seqio Task. Both are picklable, so that workers can open their
own. Nothing here imports TensorFlow.

Shape suffixes: T tokens of one record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from hephaestus_jax.data.identity import Origin
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Identified, Trajectory, digest, held_out_split
from hephaestus_jax.formats.spans import Renderer
from hephaestus_jax.formats.store import Corpus

BATCH_RECORDS = 256  # renderings tokenised together; large enough to keep the tokenizer in its own loop


@dataclass(frozen=True)
class TokenizedRecord:
    """One record as tokens.

    `tokens_T` int32, `weights_T` float32: the loss weight of the prediction *of* each token. The first `carry` tokens
    (beginning-of-text, metadata, tool list) are repeated at weight 0 where the record continues in another row.
    """

    record_id: str  # 32 hexadecimal digits
    origin: Origin
    tokens_T: np.ndarray
    weights_T: np.ndarray
    carry: int = 0


@dataclass(frozen=True)
class Rejected:
    """A record that could not be turned into tokens, and why; counted in the cache's manifest."""

    record_id: str
    reason: str


class TokenSource(Protocol):
    """Numbered records of one task and split, as tokens."""

    @property
    def name(self) -> str:
        """The task's name."""

    @property
    def split(self) -> str:
        """The split, usually "train" or "validation"."""

    @property
    def vocabulary(self) -> str:
        """Path of the vocabulary whose ids the tokens are."""

    def fingerprint(self) -> str:
        """Changes whenever a token of a record would change: source, renderer and vocabulary together."""

    def count(self) -> int:
        """Number of records."""

    def read(self, start: int, stop: int) -> Iterator[TokenizedRecord | Rejected]:
        """Records `start` to `stop` (exclusive), in order."""


class RecordSource(Protocol):
    """Numbered records; `formats.user_data.UserDataSource` is another one."""

    def fingerprint(self) -> str:
        """Changes whenever a record changes."""

    def count(self) -> int:
        """Number of records."""

    def read(self, start: int, stop: int) -> Iterator[Identified]:
        """Records `start` to `stop` (exclusive), in order."""


@dataclass(frozen=True)
class CorpusSource:
    """One slice and split of a corpus on disk."""

    directory: str
    slice: str
    split: str

    @cached_property
    def _corpus(self) -> Corpus:
        return Corpus(Path(self.directory))

    def fingerprint(self) -> str:
        """Digest of the shards."""
        return self._corpus.digest(self.slice, self.split)

    def count(self) -> int:
        """Number of records."""
        return self._corpus.count(self.slice, self.split)

    def read(self, start: int, stop: int) -> Iterator[Identified]:
        """Records `start` to `stop` (exclusive), in id order."""
        return self._corpus.read(self.slice, self.split, start, stop)


@dataclass(frozen=True)
class RenderedTask:
    """Records, rendered to spans and tokenised in batches."""

    name: str
    split: str
    source: RecordSource
    renderer: Renderer
    vocabulary: str  # path of a tokenizer.json, a SentencePiece model, or a directory holding one

    def fingerprint(self) -> str:
        """Digest of source, renderer and vocabulary."""
        from hephaestus_jax.data.vocabularies import load_vocabulary

        parts = [self.source.fingerprint(), self.renderer.fingerprint(), load_vocabulary(self.vocabulary).digest]
        return digest(parts)

    def count(self) -> int:
        """Number of records."""
        return self.source.count()

    def read(self, start: int, stop: int) -> Iterator[TokenizedRecord | Rejected]:
        """Records `start` to `stop` (exclusive), in order."""
        for first in range(start, stop, BATCH_RECORDS):
            yield from self._read_batch(first, min(first + BATCH_RECORDS, stop))

    def _read_batch(self, start: int, stop: int) -> Iterator[TokenizedRecord | Rejected]:
        from hephaestus_jax.data.tokenization import tokenize
        from hephaestus_jax.data.vocabularies import check_unicode, load_vocabulary

        results: list[TokenizedRecord | Rejected | None] = []
        renderings, kept, with_turns = [], [], False
        for identifier, record in self.source.read(start, stop):
            if self.split == "train" and (held_out := held_out_split(record)):
                raise UserError(
                    f"record {identifier} of {self.name} is an episode of the split {held_out}, which is held out; "
                    "training must not read it: put it on the validation side"
                )
            try:
                rendering = self.renderer.render(record)
                check_unicode(rendering.text)
                renderings.append(rendering)
                with_turns |= isinstance(record, Trajectory)
                kept.append((len(results), identifier, record.provenance))
                results.append(None)
            except UserError as error:
                results.append(Rejected(identifier, str(error)))
        # documents can be tokenised with any vocabulary, trajectories only with one that has their family's controls
        controls = self.renderer.controls if with_turns else ()
        tokenized = tokenize(renderings, load_vocabulary(self.vocabulary), controls)
        for (slot, identifier, where), tokens in zip(kept, tokenized, strict=True):
            origin = Origin(where.source, where.version, where.licence)
            results[slot] = TokenizedRecord(identifier, origin, tokens.tokens_T, tokens.weights_T, tokens.carry)
        return iter([result for result in results if result is not None])
