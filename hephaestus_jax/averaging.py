"""The average of a run's checkpoints, as weights to export, evaluate or begin from.

    OUT/run.json        the run's, with what was averaged under "averaged": it cannot be resumed, there is no optimizer
    OUT/config.gin      the run's
    OUT/checkpoints/N   parameters only, under the number of the newest step averaged
    OUT/huggingface/    the run's, if it has one

Uniform: Σ θᵢ / n (checkpoint averaging; "stochastic weight averaging", arXiv 1803.05407). Exponential, with decay d:
a₁ = θ₁, aₖ = d · aₖ₋₁ + (1 − d) · θₖ, one update for each saved step however far apart they lie. Of a run with LoRA
adapters the factors are averaged, each by itself.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hephaestus_jax.checkpoints import Checkpointer, storage
from hephaestus_jax.checkpoints.reading import ArrayReader, open_arrays
from hephaestus_jax.config import CheckpointConfig
from hephaestus_jax.data.storage import MissingKeyError, Storage
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.folders import new_folder
from hephaestus_jax.hf.layout import Megabytes
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.run_directory import AVERAGED, CHECKPOINTS, CONFIG, HUGGINGFACE, RUN
from hephaestus_jax.starting_point import open_starting_point

PARAMETERS = "params/"


@dataclass(frozen=True)
class Average:
    """How steps are averaged.

    Attributes:
        steps: ascending.
        decay: of the exponential average; None for the uniform one.
    """

    steps: tuple[int, ...]
    decay: float | None = None

    def __post_init__(self) -> None:
        if len(self.steps) < 2 or list(self.steps) != sorted(set(self.steps)):
            raise UserError(f"steps {list(self.steps)} cannot be averaged; give two different ones or more")
        if self.decay is not None and not 0 < self.decay < 1:
            raise UserError(f"decay {self.decay} is not between 0 and 1; nearer to 1 counts older steps more")

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each step, to be divided by their sum."""
        count = len(self.steps)
        if self.decay is None:
            return (1.0,) * count
        return tuple((1 - self.decay if k else 1.0) * self.decay ** (count - 1 - k) for k in range(count))

    def to_json(self) -> dict[str, Any]:
        """As it is recorded."""
        kind = {"kind": "uniform"} if self.decay is None else {"kind": "exponential", "decay": self.decay}
        total = math.fsum(self.weights)
        return {**kind, "steps": list(self.steps), "weights": [weight / total for weight in self.weights]}


@dataclass(frozen=True)
class Averaged:
    """What was written: where, how it was averaged, and how many bytes of parameters there are."""

    folder: Path
    average: Average
    parameter_bytes: int


def saved_steps(run: str | os.PathLike[str]) -> tuple[int, ...]:
    """Steps of a run's whole checkpoints, ascending.

    Raises:
        UserError: no run is there, or it is an average already.
    """
    start = open_starting_point(run)
    if start.kind != "run":
        raise UserError(f"{run} is no run with checkpoints of several steps; give the folder that `train` wrote")
    if AVERAGED in Storage(start.path).read_json(RUN):
        raise UserError(f"{run} is an average already; give the run that it was made of")
    return tuple(storage.whole_steps(storage.open_directory(start.checkpoints)))


def average_checkpoints(
    run: str | os.PathLike[str], out: str | os.PathLike[str], average: Average, progress: bool = True
) -> Averaged:
    """Writes the average of a run's parameters to `out`, which appears whole or not at all.

    Read part by part of each array from all checkpoints, added up in float64 and rounded to the parameters' dtype (to
    bfloat16 by way of float32).
    Memory: the average, and a few parts (a layer, or 1/128 of the embedding) of each checkpoint.

    Raises:
        UserError: a step is not there or is damaged, checkpoints differ in their arrays, or `out` is taken.
    """
    present = saved_steps(run)
    if missing := [step for step in average.steps if step not in present]:
        raise UserError(
            f"{run} has no checkpoint of step {missing[0]:,}; there are {', '.join(map(str, present)) or 'none'}"
        )
    start = open_starting_point(run)
    readers = [open_arrays(start.checkpoints, step) for step in average.steps]
    names = [name for name in readers[0].names if name.startswith(PARAMETERS)]
    for reader in readers[1:]:
        _check_same(readers[0], reader, names)
    source, record = Storage(start.path), {**average.to_json(), "run": start.path}
    with new_folder(out) as folder:
        params = _averages(readers, names, average, progress)
        size = sum(array.nbytes for array in params.values())
        facts = {**readers[-1].facts, AVERAGED: record}
        with Checkpointer(folder / CHECKPOINTS, CheckpointConfig(), piece_bytes=0) as checkpointer:
            checkpointer.save(average.steps[-1], storage.nested(params), facts, force=True)
        if start.origin is not None:
            keep_origin(start.origin, folder / HUGGINGFACE)
        target = Storage(str(folder))
        target.write_json(RUN, {**source.read_json(RUN), AVERAGED: record})
        with contextlib.suppress(MissingKeyError):  # it is for reports only
            target.write(CONFIG, source.read(CONFIG))
    return Averaged(Path(out), average, size)


def _check_same(first: ArrayReader, other: ArrayReader, names: Sequence[str]) -> None:
    theirs = [name for name in other.names if name.startswith(PARAMETERS)]
    differing = sorted(set(names) ^ set(theirs))
    differing += [n for n in names if n in theirs and _kind(first, n) != _kind(other, n)]
    if differing:
        raise UserError(f"checkpoints {first.path} and {other.path} differ in {differing[0]}; average those of one run")


def _kind(reader: ArrayReader, name: str) -> tuple[Any, ...]:
    return reader.shape(name), reader.dtype(name)


def _averages(
    readers: Sequence[ArrayReader], names: Sequence[str], average: Average, progress: bool
) -> Mapping[str, jax.Array]:
    first, weights = readers[0], average.weights
    size = sum(math.prod(first.shape(name)) * first.dtype(name).itemsize for name in names)
    total = math.fsum(weights)
    found = {}
    with Megabytes("average", size * len(readers), progress) as meter:
        for name in names:
            shape = first.shape(name)
            averaged = np.empty(shape or (1,), first.dtype(name))
            for parts in zip(*(reader.parts(name) for reader in readers), strict=True):
                place = parts[0][0]
                added = np.zeros(parts[0][1].shape, np.float64)
                for weight, (_, values) in zip(weights, parts, strict=True):
                    added += weight * values.astype(np.float64)
                    meter.add(values.nbytes)
                averaged[place] = added / total
            found[name] = jax.device_put(averaged.reshape(shape))
    return found
