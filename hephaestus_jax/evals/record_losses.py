"""Held-out loss of every record: what differences between models are resampled from.

A record's nats are Σ ℓ over its tokens of weight above 0, all its segments together; ℓ is the negative log-likelihood.
Its bytes are the UTF-8 bytes that the same tokens spell. With weights of 0 and 1 the sums over a slice are those of
`evals.held_out`; other weights count as 1 here. Where rows are sampled, a record counts with the parts that were read.

A record's *group* is what it is resampled together with:

- documentation and trajectories of held-out APIs: the family that was held out together (`heldout.json` of the corpus),
  which is a top-level function, or a class with its methods, and those it shares a name or a docstring with;
- other documentation and trajectories: the API's full name;
- code and text: the file, with its package;
- records that the corpus does not hold: each is a group of its own.

Shape letters: N rows, L tokens of a row, R records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hephaestus_jax.data.cache import Cache
from hephaestus_jax.data.packing import Rows
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals.scoring import TokenScorer, segment_sums
from hephaestus_jax.progress import Progress

if TYPE_CHECKING:  # pyarrow is needed for the corpus alone
    from hephaestus_jax.formats.records import Record
    from hephaestus_jax.formats.store import Corpus

_LINE = re.compile(r":\d+$")  # of a place such as "numpy/core/numeric.py:120"
GROUPS = (
    "records are resampled together: API documentation and trajectories by the family of APIs that was held out"
    " together, else by API; code and text by package and file; records not in the corpus one by one"
)


@dataclass(frozen=True)
class SliceRecords:
    """Which rows of a slice are read, and which record each of their segments belongs to.

    Attributes:
        cache: of the slice.
        rows_N: row numbers, ascending.
        ids: of the R records, sorted.
        record_NS: number of the record of each segment, -1 where a row has fewer; column 0 is the padding.
        token_bytes_V: UTF-8 bytes that each token id spells.
    """

    cache: Cache
    rows_N: np.ndarray
    ids: tuple[str, ...]
    record_NS: np.ndarray
    token_bytes_V: np.ndarray

    @classmethod
    def of(cls, cache: Cache, token_bytes_V: np.ndarray, max_rows: int = 0) -> SliceRecords:
        """The records of a cache, or of `max_rows` rows spread evenly over it, as `evals.held_out` spreads them."""
        total = cache.manifest.rows
        count = min(max_rows or total, total)
        rows_N = np.arange(count) * total // max(count, 1)
        by_row = [[segment.record_id for segment in cache.segments(row)] for row in rows_N.tolist()]
        ids = tuple(sorted({identifier for row in by_row for identifier in row}))
        number = {identifier: index for index, identifier in enumerate(ids)}
        record_NS = np.full((count, 1 + max(map(len, by_row), default=0)), -1)
        for n, row in enumerate(by_row):
            record_NS[n, 1 : len(row) + 1] = [number[identifier] for identifier in row]
        return cls(cache, rows_N, ids, record_NS, token_bytes_V)

    def batches(self, size: int) -> Iterator[tuple[int, Rows]]:
        """Up to `size` rows at a time, and the index of the first."""
        for start in range(0, len(self.rows_N), size):
            yield start, self.cache.read(self.rows_N[start : start + size])

    def by_record(self, start: int, values_NL: np.ndarray, segment_ids_NL: np.ndarray) -> np.ndarray:
        """Σ of values over the records: float64 [R], of the rows from `start` on."""
        record_NS = self.record_NS[start : start + len(values_NL)]
        sums_NS = segment_sums(values_NL, segment_ids_NL, record_NS.shape[1] - 1)
        known_NS = record_NS >= 0
        return np.bincount(record_NS[known_NS], sums_NS[known_NS], len(self.ids))


@dataclass(frozen=True)
class RecordLosses:
    """The losses of R records under one model: `nats_R` float64, `tokens_R` and `bytes_R` int64, in the order of ids.

    Records without a token under loss are left out.
    """

    ids: tuple[str, ...]
    nats_R: np.ndarray
    tokens_R: np.ndarray
    bytes_R: np.ndarray
    rows: int

    @property
    def nats_per_token(self) -> float:
        """Σ ℓ over the tokens under loss."""
        return float(self.nats_R.sum() / self.tokens_R.sum())

    @property
    def bits_per_byte(self) -> float:
        """Σ ℓ / ln 2 over the bytes that the tokens under loss spell; NaN if they spell none."""
        total = self.bytes_R.sum()
        return float(self.nats_R.sum() / np.log(2) / total) if total else float("nan")

    def to_json(self, groups: Mapping[str, str]) -> dict[str, Any]:
        """As in evaluation.json; `groups` by record id."""
        return {
            "records": len(self.ids),
            "tokens": int(self.tokens_R.sum()),
            "bytes": int(self.bytes_R.sum()),
            "rows": self.rows,
            "nats_per_token": self.nats_per_token,
            "bits_per_byte": self.bits_per_byte,
            "per_record": {
                "id": list(self.ids),
                "group": [groups[identifier] for identifier in self.ids],
                "nats": self.nats_R.tolist(),
                "tokens": self.tokens_R.tolist(),
                "bytes": self.bytes_R.tolist(),
            },
        }


def record_losses(scorer: TokenScorer, params: Any, records: SliceRecords, progress: Progress) -> RecordLosses | None:
    """The losses of every record of a slice; None if no token is under loss.

    Raises:
        UserError: a loss is not finite.
    """
    starts: list[tuple[int, np.ndarray]] = []
    tokens_R, bytes_R, nats_R = (np.zeros(len(records.ids)) for _ in range(3))

    def learned() -> Iterator[tuple[Rows, np.ndarray]]:
        nonlocal tokens_R, bytes_R
        for start, rows in records.batches(scorer.batch_size):
            learned_NL = rows.loss_weights_NL > 0
            starts.append((start, rows.segment_ids_NL))
            spelt_NL = records.token_bytes_V[rows.tokens_NL] * learned_NL
            tokens_R += records.by_record(start, learned_NL, rows.segment_ids_NL)
            bytes_R += records.by_record(start, spelt_NL, rows.segment_ids_NL)
            yield rows, learned_NL

    for number, nats_NL in enumerate(scorer(params, learned())):
        start, segment_ids_NL = starts[number]
        nats_R += records.by_record(start, nats_NL, segment_ids_NL)
        progress.add(len(nats_NL))
    if not np.isfinite(nats_R).all():
        bad = records.ids[int(np.argmin(np.isfinite(nats_R)))]
        raise UserError(
            f"the loss of record {bad} of {records.cache.url} is not finite: this model's weights are broken, or were"
            " made with another vocabulary"
        )
    kept = np.flatnonzero(tokens_R)
    if not kept.size:
        return None
    return RecordLosses(
        ids=tuple(records.ids[index] for index in kept),
        nats_R=nats_R[kept],
        tokens_R=tokens_R[kept].astype(np.int64),
        bytes_R=bytes_R[kept].astype(np.int64),
        rows=len(records.rows_N),
    )


class Groups:
    """The group of each record of a corpus; `family` names the family of each held-out API by its first member.

    Raises:
        UserError: the corpus is missing or damaged.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.family = _families(Path(corpus.directory))

    def of(self, slice_name: str, ids: Sequence[str]) -> dict[str, str]:
        """The group of each id among the validation records of a slice."""
        wanted, groups = set(ids), {identifier: f"record:{identifier}" for identifier in ids}
        for identifier, record in self._corpus.read(slice_name, "validation"):
            if identifier in wanted:
                groups[identifier] = self.of_record(record)
        return groups

    def of_record(self, record: Record) -> str:
        """The group of one record."""
        from hephaestus_jax.formats.records import ApiDoc, Trajectory

        if isinstance(record, ApiDoc | Trajectory):
            details = record.details if isinstance(record, Trajectory) else {}
            name = str(details.get("api") or record.name)
            if name:
                return self.of_api(name)
        where = record.provenance
        return f"file:{where.source}:{_LINE.sub('', where.path)}"

    def of_api(self, name: str) -> str:
        """The group of an API by its full name."""
        return f"api:{self.family.get(name, name)}"


def _families(corpus: Path) -> dict[str, str]:
    """The first name of the family that each held-out API belongs to."""
    path = corpus / "heldout.json"
    if not path.exists():  # a user's own corpus has none
        return {}
    try:
        families = json.loads(path.read_text("utf-8"))["families"]
        return {name: family["names"][0] for family in families for name in (*family["aliases"], *family["names"])}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} is damaged ({error}); rebuild the corpus") from error
