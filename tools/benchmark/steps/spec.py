"""What both sides of a comparison are given: sizes, precision, hyperparameters, initial weights and rows.

Weights and rows are drawn from the seed by numpy, each tensor by itself, so that nothing has to travel between the
processes. Nothing here imports a framework.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hephaestus_jax.config import DType, ModelConfig, OptimizerConfig, ScheduleConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.families import family_of
from hephaestus_jax.hf.families.weights import Index, Weight

STDDEV = 0.02
BATCHES = 4  # different ones, used in turn


@dataclass(frozen=True)
class StepSpec:
    """One step, as both sides are to do it.

    Attributes:
        model: a Llama.
        rows, length: B and L of a batch.
        segments: texts packed into each row.
        dtype: of activations and matrix products.
        param_dtype: of the stored parameters; PyTorch computes under `autocast` where it differs from `dtype`.
        moment_dtype: of AdamW's first moment in ours; PyTorch keeps both moments in `param_dtype`.
        threads: of the processor, for either side.
        platform: "cpu" or "gpu", for both.
        seed: of weights and rows.
        attention, loss_chunk, remat: of ours, as in `ComputeConfig`.
        devices: for ours, which splits parameters and rows over them (fsdp).
        torch_attention: an `attn_implementation` of transformers.
        torch_compile: whether PyTorch's loss is compiled.
        torch_checkpointing: whether PyTorch computes each layer again in the backward pass.
    """

    model: ModelConfig
    rows: int
    length: int
    segments: int
    dtype: DType
    param_dtype: DType
    moment_dtype: DType
    threads: int
    platform: str
    seed: int
    attention: str
    loss_chunk: int
    remat: str
    devices: int = 1
    torch_attention: str = "sdpa"
    torch_compile: bool = False
    torch_checkpointing: bool = False
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="constant", warmup_steps=0))

    def __post_init__(self) -> None:
        for name in ("rows", "length", "segments", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1")
        if self.segments * 2 > self.length:
            raise UserError(f"{self.segments} segments do not fit into rows of {self.length} tokens")

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.rows * self.length


@dataclass(frozen=True)
class Rows:
    """A packed batch: int32 [B, L] each, segments counted from 1, and the weight of each token's prediction, float32.

    The first token of a segment weighs nothing.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    loss_weights: np.ndarray


def batches(spec: StepSpec) -> list[Rows]:
    """Random tokens in segments whose boundaries are random."""
    return [_rows(spec, np.random.default_rng([spec.seed, 0, number])) for number in range(BATCHES)]


def _rows(spec: StepSpec, rng: np.random.Generator) -> Rows:
    shape = (spec.rows, spec.length)
    starts = np.zeros(shape, np.int32)
    starts[:, 0] = 1
    for row in starts:
        row[rng.choice(np.arange(1, spec.length), spec.segments - 1, replace=False)] = 1
    places = np.broadcast_to(np.arange(spec.length, dtype=np.int32), shape)
    first_places = np.maximum.accumulate(np.where(starts > 0, places, 0), axis=1)
    return Rows(
        tokens=rng.integers(0, spec.model.vocab_size, shape, dtype=np.int32),
        segment_ids=np.cumsum(starts, axis=1, dtype=np.int32),
        positions=places - first_places,
        loss_weights=(starts == 0).astype(np.float32),
    )


def tensors(spec: StepSpec) -> Iterator[tuple[str, Weight, Index, np.ndarray]]:
    """Name, place and values (float32, as Hugging Face stores them) of every weight: normal, norms near 1."""
    for number, (name, weight, index) in enumerate(family_of(spec.model).tensors(spec.model)):
        rng = np.random.default_rng([spec.seed, 1, number])
        values = rng.standard_normal(weight.tensor_shape(spec.model), np.float32)
        values *= STDDEV
        yield name, weight, index, values + 1 if weight.ours == "D" else values
