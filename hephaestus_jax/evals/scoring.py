"""The loss of chosen tokens of packed rows, for any number of models of one shape with one compiled program.

Shape letters: N rows, B rows at a time, L tokens of a row, K chosen tokens of a row, S segments of a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.config import ComputeConfig, ModelConfig
from hephaestus_jax.data.packing import Rows
from hephaestus_jax.losses import token_losses
from hephaestus_jax.model.decoder import decode, output_kernel
from hephaestus_jax.products import precise
from hephaestus_jax.sharding import Partitioning

WIDTH_STEP = 64  # K is rounded up to a multiple of it, so that few programs are compiled
IN_FLIGHT = 2  # batches on the devices at a time


class TokenScorer:
    """Scores rows in batches; the parameters are an argument, so models of one shape share the compiled program.

    Logits are computed for the chosen tokens alone: of a small model they are most of the work.

    Args:
        model: the architecture.
        compute: how it is computed.
        partitioning: of the model on the mesh of one process.
        batch_size: B; rounded up to what divides over the mesh.
    """

    def __init__(self, model: ModelConfig, compute: ComputeConfig, partitioning: Partitioning, batch_size: int) -> None:
        self.model, self.compute, self.partitioning = model, compute, partitioning
        shards = partitioning.row_shards
        self.batch_size = -(-batch_size // shards) * shards
        self._score = jax.jit(self._function)

    def __call__(
        self, params: Any, batches: Iterable[tuple[Rows, np.ndarray]], width: int | None = None
    ) -> Iterator[np.ndarray]:
        """The losses of each batch, in order: float64 [N, L], nats at the chosen tokens and 0 elsewhere.

        Args:
            params: of the model.
            batches: up to B rows each, and bool [N, L] which tokens are chosen; never the first of a row.
            width: no row has more chosen tokens; L - 1 by default.
        """
        waiting: deque[tuple[jax.Array, np.ndarray]] = deque()
        for rows, chosen_NL in batches:
            waiting.append((self._send(params, rows, chosen_NL, width), chosen_NL))
            if len(waiting) > IN_FLIGHT:
                yield _fetch(*waiting.popleft())
        while waiting:
            yield _fetch(*waiting.popleft())

    def _send(self, params: Any, rows: Rows, chosen_NL: np.ndarray, width: int | None) -> jax.Array:
        length = chosen_NL.shape[1]
        width = min(length - 1, -(-(width or length) // WIDTH_STEP) * WIDTH_STEP)
        missing = self.batch_size - len(chosen_NL)
        arrays = (rows.tokens_NL, rows.segment_ids_NL, rows.positions_NL, _places(chosen_NL, width))
        padded = (np.pad(array, ((0, missing), (0, 0)), mode="constant") for array in arrays)
        return self._score(params, *jax.device_put(tuple(padded), self.partitioning.batch))

    def _function(
        self,
        params: Any,
        tokens_BL: jax.Array,
        segment_ids_BL: jax.Array,
        positions_BL: jax.Array,
        places_BK: jax.Array,
    ) -> jax.Array:
        with self.partitioning, precise(self.compute.dtype):
            hidden_BLD = decode(params, self.model, self.compute, tokens_BL, segment_ids_BL, positions_BL)
            before_BK = jnp.maximum(places_BK - 1, 0)  # a token is predicted at the place before it
            hidden_BKD = jnp.take_along_axis(hidden_BLD, before_BK[..., None], axis=1)
            targets_BK = jnp.take_along_axis(tokens_BL, places_BK, axis=1)
            # Two chunks at least, so that never all logits exist.
            chunk = min(self.compute.loss_chunk, -(-places_BK.shape[1] // 2))
            return token_losses(hidden_BKD, output_kernel(params), targets_BK, chunk, self.model.logit_softcap)


def segment_sums(values_NL: np.ndarray, segment_ids_NL: np.ndarray, num_segments: int) -> np.ndarray:
    """Σ of values over each segment: float64 [N, S + 1], where column 0 is the padding."""
    num_rows = len(values_NL)
    flat = (np.arange(num_rows)[:, None] * (num_segments + 1) + segment_ids_NL).ravel()
    sums = np.bincount(flat, np.asarray(values_NL, np.float64).ravel(), num_rows * (num_segments + 1))
    return sums.reshape(num_rows, num_segments + 1)


def _places(chosen_NL: np.ndarray, width: int) -> np.ndarray:
    """The places of each row's chosen tokens, int32 [N, K], filled up with 0."""
    if chosen_NL[:, 0].any() or chosen_NL.sum(axis=1).max(initial=0) > width:
        raise ValueError(f"the first token of a row is chosen, or more than {width} of one row are")
    order_NL = np.argsort(~chosen_NL, axis=1, kind="stable")[:, :width]
    return np.where(np.take_along_axis(chosen_NL, order_NL, axis=1), order_NL, 0).astype(np.int32)


def _fetch(nats_BK: jax.Array, chosen_NL: np.ndarray) -> np.ndarray:
    nats_NL = np.zeros(chosen_NL.shape, np.float64)
    found_NK = np.asarray(nats_BK, np.float64)[: len(chosen_NL)]
    counts_N = chosen_NL.sum(axis=1)
    nats_NL[chosen_NL] = found_NK[np.arange(found_NK.shape[1]) < counts_N[:, None]]
    return nats_NL
