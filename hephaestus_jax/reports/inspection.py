"""Rows of caches, decoded for inspection: by row number, by record id, or by a text they hold."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hephaestus_jax.data.cache import Cache, Segment
from hephaestus_jax.data.mixture import Mixture, open_mixture
from hephaestus_jax.data.packing import Rows
from hephaestus_jax.data.storage import Storage
from hephaestus_jax.data.vocabularies import Vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.progress import Progress
from hephaestus_jax.reports.rows import InspectedRow, InspectedSegment, InspectedToken

MAX_ROWS = 1 << 60  # of a run: row numbers and what is counted from them are 64-bit integers
SEARCH_ROWS = 128  # rows read at a time while searching


def open_caches(url: str, task: str = "") -> tuple[tuple[Cache, ...], Mixture | None]:
    """The caches at `url`, training before validation, and the mixture they belong to, if it is one.

    Raises:
        UserError: neither a cache nor a mixture, or no such task.
    """
    if not url.endswith(".json") and not Storage(url).exists("mixture.json"):
        cache = Cache.open(url)
        if task not in ("", cache.manifest.task):
            raise UserError(f"{url} is the cache of task {cache.manifest.task!r}, not of {task!r}; give another")
        return (cache,), None
    mixture = open_mixture(url)
    caches = [*sorted(mixture.caches.items()), *sorted(mixture.validation.items())]
    chosen = tuple(cache for name, cache in caches if not task or name == task)
    if not chosen:
        names = ", ".join(dict.fromkeys(name for name, _ in caches))
        raise UserError(f"{url} has no task {task!r}; choose one of {names}")
    return chosen, mixture


@dataclass(frozen=True)
class Inspection:
    """One cache, or the caches of a mixture, read with their vocabulary.

    With a `mixture`, row numbers are those of a run; without, those of the first cache.
    """

    vocabulary: Vocabulary
    caches: tuple[Cache, ...]
    mixture: Mixture | None = None

    def __post_init__(self) -> None:
        for cache in self.caches:
            cache.require(vocabulary_digest=self.vocabulary.digest)

    @classmethod
    def open(cls, url: str, vocabulary: Vocabulary, task: str = "") -> Inspection:
        """Opens a cache, a folder with `mixture.json`, or a `mixture.json`; `task` leaves out the other tasks.

        Raises:
            UserError: neither a cache nor a mixture, another vocabulary, or no such task.
        """
        caches, mixture = open_caches(url, task)
        return cls(vocabulary, caches, mixture if not task else None)

    def rows(self, numbers: Sequence[int]) -> Iterator[InspectedRow]:
        """These rows: of a run for a mixture, else of the first cache.

        Raises:
            UserError: there is no such row.
        """
        if min(numbers, default=0) < 0:
            raise UserError(f"row {min(numbers)} is negative; rows are counted from 0")
        if max(numbers, default=0) >= MAX_ROWS:
            raise UserError(f"row {max(numbers)} is beyond every run; rows are below {MAX_ROWS}")
        if self.mixture is None:
            cache = self.caches[0]  # of a task, the training split comes first
            for number in numbers:
                if number >= len(cache):
                    raise UserError(f"{cache.url} has no row {number:,}; its rows are 0 to {len(cache) - 1:,}")
                yield self._row(cache, number)
            return
        located = self.mixture.locate(np.array(numbers, np.int64))
        for number, task, epoch, row in zip(numbers, *(part.tolist() for part in located), strict=True):
            inspected = self._row(self.mixture.caches[self.mixture.task_names[task]], row)
            yield replace(inspected, row=number, place=f"of the run, row {row:,} {inspected.place}, epoch {epoch}")

    def record(self, record_id: str) -> Iterator[InspectedRow]:
        """Every row that holds a piece of the record, by cache.

        Raises:
            UserError: no cache holds it.
        """
        found = False
        for cache in self.caches:
            for row in cache.find(record_id).tolist():
                found = True
                yield self._row(cache, row)
        if not found:
            names = ", ".join(map(_name, self.caches))
            raise UserError(f"record {record_id} is in none of these caches: {names}; is it in the corpus?")

    def search(self, query: str) -> Iterator[InspectedRow]:
        """Every row with a segment whose decoded text holds `query`, in order; reads a few rows at a time.

        Raises:
            UserError: the query is empty.
        """
        if not query:
            raise UserError("an empty text is in every row; give the text to search for")
        with Progress(f"searching {query!r}", "rows", sum(map(len, self.caches))) as progress:
            for cache in self.caches:
                for row in self._matching(cache, query, progress):
                    inspected = self._row(cache, row)
                    if any(query in segment.text for segment in inspected.segments):  # not across segments
                        yield inspected

    def _matching(self, cache: Cache, query: str, progress: Progress) -> Iterator[int]:
        for start in range(0, len(cache), SEARCH_ROWS):
            numbers = np.arange(start, min(start + SEARCH_ROWS, len(cache)))
            rows = cache.read(numbers)
            for number, tokens_L, segment_ids_L in zip(numbers, rows.tokens_NL, rows.segment_ids_NL, strict=True):
                if query in self.vocabulary.decode(tokens_L[segment_ids_L > 0]):
                    yield int(number)
            progress.add(len(numbers))

    def _row(self, cache: Cache, number: int) -> InspectedRow:
        rows = cache.read(np.array([number]))
        segments = tuple(self._segment(segment, rows) for segment in cache.segments(number))
        return InspectedRow(number, segments, cache.manifest.sequence_length, f"of cache {_name(cache)}")

    def _segment(self, segment: Segment, rows: Rows) -> InspectedSegment:
        part = slice(segment.start, segment.stop)
        tokens = inspected_tokens(self.vocabulary, rows.tokens_NL[0, part], rows.loss_weights_NL[0, part])
        origin = segment.origin
        return InspectedSegment(
            segment.record_id, origin.source, origin.version, origin.licence, tuple(tokens), segment.part
        )


def _name(cache: Cache) -> str:
    return f"{cache.manifest.task} {cache.manifest.split}"


def inspected_tokens(vocabulary: Vocabulary, tokens_T: np.ndarray, weights_T: np.ndarray) -> Iterator[InspectedToken]:
    """Each token with the text it completes; the texts join to what the vocabulary decodes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    fresh = True  # a text begins here, so that its first space may be the vocabulary's own
    last = len(tokens_T) - 1
    pieces = zip(tokens_T.tolist(), weights_T.tolist(), vocabulary.pieces(tokens_T), strict=True)
    for index, (token, weight, piece) in enumerate(pieces):
        control = bool(vocabulary.is_control[token])
        if vocabulary.dummy_prefix and fresh and not control:
            piece = piece.removeprefix(b" ")
        fresh = control
        text = decoder.decode(piece, final=index == last)
        yield InspectedToken(text, weight, control, token)


def with_paths(rows: Iterable[InspectedRow], corpus: Corpus) -> Iterator[InspectedRow]:
    """The rows, with the place inside the source of every record that the corpus holds.

    Raises:
        UserError: a shard of the corpus is missing or damaged.
    """
    for row in rows:
        paths = corpus_paths(corpus, {segment.record_id for segment in row.segments})
        yield replace(row, segments=tuple(replace(s, path=paths.get(s.record_id, "")) for s in row.segments))


def corpus_paths(corpus: Corpus, record_ids: Iterable[str]) -> dict[str, str]:
    """The place inside the source of each record that the corpus holds, by record id."""
    wanted = sorted(record_ids)
    found: dict[str, str] = {}
    for slice_name, splits in corpus.manifest["slices"].items():
        for split in splits:
            for shard in corpus.shards(slice_name, split):
                path = Path(corpus.directory) / shard.file
                try:  # ids are sorted, so nearly every row group is passed over by its statistics
                    table = pq.read_table(path, columns=["id", "path"], filters=[("id", "in", wanted)])
                except (OSError, pa.ArrowException) as error:
                    raise UserError(f"{path} is missing or damaged ({error}); rebuild the corpus") from error
                found.update(zip(table["id"].to_pylist(), table["path"].to_pylist(), strict=True))
    return found
