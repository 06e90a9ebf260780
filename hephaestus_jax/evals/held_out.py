"""Held-out loss per slice: the mixture's validation caches and the user's own files.

nats per token is Σ wℓ / Σ w over a slice, ℓ the negative log-likelihood of a token and w its loss weight.

bits per byte divides what the text costs by how long it is, so that models with different vocabularies compare:
Σ ℓ / ln 2 over the bytes that the same tokens spell. Both sums run over the same tokens, those of weight above 0, whose
number and UTF-8 bytes the cache's manifest states. So

    bits per byte = (nats per token / ln 2) · (loss tokens of the slice / loss bytes of the slice)

which is exact when every row was evaluated and all weights are 0 or 1. With `max_rows` (spread evenly over the slice)
the slice's mean bytes per token stand in for those of the rows evaluated; with fractional weights ℓ is averaged by
weight and bytes are not. `SliceLoss.bytes_exact` says which it is.

Array shapes: B rows of a batch, L tokens of a row, G groups of `LossSums`.
"""

from __future__ import annotations

import dataclasses
import io
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from hephaestus_jax import distributed
from hephaestus_jax.config import TrainConfig
from hephaestus_jax.data.cache import Cache, CacheManifest
from hephaestus_jax.data.loader import evaluation_batches, host_rows, to_global
from hephaestus_jax.data.mixture import Mixture
from hephaestus_jax.data.packing import Rows
from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress

IN_FLIGHT = 8  # batches sent to the devices whose sums were not fetched yet: each holds 16 · B · L bytes there


@dataclass(frozen=True)
class SliceLoss:
    """The loss on one slice.

    Attributes:
        nats_per_token: Σ wℓ / Σ w.
        bits_per_byte: see the module; NaN where the tokens spell nothing (control tokens alone).
        bytes_exact: whether `bits_per_byte` is exact.
        tokens: of weight above 0 that were evaluated.
        rows: that were evaluated.
        seconds: wall time.
    """

    nats_per_token: float
    bits_per_byte: float
    bytes_exact: bool
    tokens: int
    rows: int
    seconds: float

    def __str__(self) -> str:
        about = "" if self.bytes_exact else "about "
        return (
            f"{self.nats_per_token:.4f} nats/token, {about}{self.bits_per_byte:.4f} bits/byte"
            f" ({self.tokens:,} tokens in {self.rows:,} rows, {self.seconds:.1f} s)"
        )


class _Sums(Protocol):
    """What is used of `losses.LossSums`; all fetched at once, replicated over the devices."""

    @property
    def loss_G(self) -> Any: ...
    @property
    def weight_G(self) -> Any: ...
    @property
    def tokens_G(self) -> Any: ...


@dataclass(frozen=True)
class _Sample:
    """Some rows of a cache, evenly spread over it: its first ones alone would be those of the longest records."""

    cache: Cache
    manifest: CacheManifest  # of the cache, but for the number of rows

    def read(self, rows: np.ndarray) -> Rows:
        return self.cache.read(rows * self.cache.manifest.rows // self.manifest.rows)


EvalStep = Callable[[Any, dict[str, Any]], _Sums]


class HeldOut:
    """Evaluates parameters on every slice.

    Args:
        config: `config.evaluation` says how many rows, and how many at a time.
        mixture: with its validation caches open.
        user: the user's own slices, by name (`evals.user_files`).
        partitioning: its `batch` is the sharding of [B, L] arrays.
        eval_step: (params, global arrays of a batch with task_ids) → `LossSums`; the z-loss plays no part.

    Raises:
        UserError: two slices have one name, or the batch does not divide over the mesh.
    """

    def __init__(
        self,
        config: TrainConfig,
        mixture: Mixture,
        user: Mapping[str, Cache],
        partitioning: Any,
        eval_step: EvalStep,
    ) -> None:
        both = sorted(set(mixture.validation) & set(user))
        if both:
            raise UserError(f"EvaluationConfig.files calls a file {both[0]!r}, as a validation slice of the mixture is")
        self.slices = {**mixture.validation, **user}
        self._batch_size = config.evaluation.batch_size or config.batch_size
        self._max_rows = config.evaluation.max_rows or None
        self._sharding = partitioning.batch
        self._places = host_rows(self._sharding, self._batch_size) if self.slices else np.zeros(0, np.int64)
        self._eval_step = eval_step

    def run(self, params: Any, label: str = "held-out loss") -> dict[str, SliceLoss]:
        """The loss on every slice; every process calls this. Slices without a token under loss are left out."""
        results = {}
        started = time.monotonic()
        stream = sys.stderr if distributed.is_main() else io.StringIO()
        progress = Progress(label, "rows", sum(self._rows(cache) for cache in self.slices.values()), stream=stream)
        for name, cache in self.slices.items():
            loss = self._evaluate(params, cache, progress)
            if loss is not None:
                results[name] = loss
            elif distributed.is_main():
                print(f"held-out slice {name!r} has no token under loss: skipped", flush=True)
        if time.monotonic() - started > progress.every:  # a short one has shown nothing that needs an end
            progress.close()
        return results

    def _rows(self, cache: Cache) -> int:
        return min(cache.manifest.rows, self._max_rows or cache.manifest.rows)

    def _evaluate(self, params: Any, cache: Cache, progress: Progress) -> SliceLoss | None:
        started, rows = time.monotonic(), self._rows(cache)
        sample = cast(Cache, _Sample(cache, dataclasses.replace(cache.manifest, rows=rows)))
        waiting: deque[tuple[int, _Sums]] = deque()
        total = np.zeros(3)  # Σ wℓ, Σ w, tokens; float64

        def fetch_one() -> None:
            count, sums = waiting.popleft()
            for number, array in enumerate((sums.loss_G, sums.weight_G, sums.tokens_G)):
                total[number] += np.asarray(array, np.float64).sum()
            progress.add(count)

        done = 0
        for batch in evaluation_batches(sample, self._batch_size, self._places):
            waiting.append((batch.next_row - done, self._eval_step(params, to_global(batch, self._sharding))))
            done = batch.next_row
            if len(waiting) > IN_FLIGHT:
                fetch_one()
        while waiting:
            fetch_one()
        loss, weight, tokens = total.tolist()
        if not weight:
            return None
        manifest = cache.manifest
        nats = loss / weight
        return SliceLoss(
            nats_per_token=nats,
            bits_per_byte=nats / math.log(2) * manifest.loss_tokens / (manifest.loss_bytes or math.nan),
            bytes_exact=rows == manifest.rows and manifest.dtypes["loss_weights"] == "uint8",
            tokens=int(tokens),
            rows=rows,
            seconds=time.monotonic() - started,
        )
