"""Which records made a step bad: the rows of its batch, worst first, with the ids of what is packed in them.

A halted state is frozen as it was before the bad step, so the loss of each of its rows can be computed once more.

Array shapes: B rows of the global batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.config import TrainConfig
from hephaestus_jax.data.loader import Loader, host_rows, to_global
from hephaestus_jax.data.mixture import Mixture
from hephaestus_jax.sharding import Partitioning
from hephaestus_jax.train_step import make_eval_step

SHOWN_RECORDS = 8  # ids in the message; the file holds all


@dataclass(frozen=True)
class BadRow:
    """A row of a bad step: its number in the run, where it lies, its loss, and the records in it."""

    row: int
    task: str
    cache_row: int
    loss: float  # nats per token
    record_ids: tuple[str, ...]


def find_bad_rows(
    config: TrainConfig, mixture: Mixture, partitioning: Partitioning, params: Any, first_row: int
) -> list[BadRow]:
    """The rows of the step that began at `first_row`: those whose loss is not finite, or all, by falling loss.

    Every process calls this.
    """
    loss_B = row_losses(config, mixture, partitioning, params, first_row)
    bad = np.flatnonzero(~np.isfinite(loss_B))
    places = bad if bad.size else np.argsort(-loss_B, kind="stable")
    where = mixture.locate(first_row + places)
    found = []
    for place, task, cache_row in zip(places.tolist(), where.task.tolist(), where.cache_row.tolist(), strict=True):
        name = mixture.task_names[task]
        ids = tuple(dict.fromkeys(segment.record_id for segment in mixture.caches[name].segments(cache_row)))
        found.append(BadRow(first_row + place, name, cache_row, float(loss_B[place]), ids))
    return found


def row_losses(
    config: TrainConfig, mixture: Mixture, partitioning: Partitioning, params: Any, first_row: int
) -> np.ndarray:
    """Mean loss of each row of a batch, in nats per token; rows without weight have 0: float32 [B]."""
    places = host_rows(partitioning.batch, config.batch_size)
    with Loader(mixture, config.batch_size, first_row, places, batches=1) as loader:
        arrays = to_global(next(loader), partitioning.batch)
    by_row = partitioning.sharding(("batch",))
    arrays["task_ids"] = jax.jit(lambda: jnp.arange(config.batch_size, dtype=jnp.int32), out_shardings=by_row)()
    sums = jax.device_get(make_eval_step(config, partitioning, groups=config.batch_size)(params, arrays))
    return np.divide(sums.loss_G, sums.weight_G, out=np.zeros_like(sums.loss_G), where=sums.weight_G > 0)


def in_words(rows: list[BadRow]) -> str:
    """One line: the rows with their tasks and losses, and the first of the record ids."""
    finite = all(math.isfinite(row.loss) for row in rows)
    worst = rows[:3] if finite else rows
    shown = ", ".join(f"row {row.row} ({row.task}, loss {row.loss:.4g} nats/token)" for row in worst[:3])
    more = f" and {len(rows) - 3} more rows" if len(rows) > 3 else ""
    ids = [identifier for row in worst for identifier in row.record_ids]
    hidden = f" and {len(ids) - SHOWN_RECORDS} more" if len(ids) > SHOWN_RECORDS else ""
    return f"{shown}{more}; records {', '.join(ids[:SHOWN_RECORDS])}{hidden}"
