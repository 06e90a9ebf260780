"""A model small enough to compile on a dozen meshes, and rows packed as unevenly as data comes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hephaestus_jax.config import (
    ComputeConfig,
    DType,
    ExpertsConfig,
    LoraConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)

ROWS, LENGTH, GROUPS = 16, 32, 3
MODEL = ModelConfig("small", 64, 32, 48, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=6, rope_theta=1e4)


EXPERTS = ExpertsConfig(num_experts=8, experts_per_token=2, mlp_dim=16)


def run_config(
    mesh: MeshConfig | None = None,
    microbatches: int = 1,
    optimizer: str = "adamw",
    dtype: DType = "float32",
    lora: LoraConfig | None = None,
    **model: Any,
) -> TrainConfig:
    """A run on `mesh`; `model` changes fields of the model."""
    attention = "chunked" if mesh is not None and mesh.context > 1 else "reference"
    of_router = 0.5 if model.get("experts") else 0.0  # large, so that they are seen in every gradient of the router
    return TrainConfig(
        run_dir="unused",
        mixture="unused",
        model=dataclasses.replace(MODEL, **model),
        train_steps=8,
        batch_size=ROWS,
        microbatches=microbatches,
        compute=ComputeConfig(dtype=dtype, attention=attention, loss_chunk=7),
        mesh=mesh or MeshConfig(),
        loss=LossConfig(1e-3, load_balancing=of_router, router_z=of_router),
        optimizer=OptimizerConfig(optimizer),
        schedule=ScheduleConfig(peak=1e-2, warmup_steps=2),
        init_from="unused" if lora else "",
        lora=lora,
    )


def packed_rows(seed: int, vocab_size: int = MODEL.vocab_size) -> dict[str, np.ndarray]:
    """Rows of one to four segments, most with padding at the end, weights from 0 to 2, uneven over the rows."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, vocab_size, (ROWS, LENGTH), np.int32)
    segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    weights = np.zeros((ROWS, LENGTH), np.float32)
    for row in range(ROWS):
        ends = np.sort(random.choice(np.arange(2, LENGTH + 1), random.integers(1, 5), replace=False))
        for segment, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True), start=1):
            segments[row, start:end] = segment
            positions[row, start:end] = np.arange(end - start)
            weights[row, start + 1 : end] = random.choice([0.0, 0.5, 1.0, 2.0], end - start - 1)
    weights[ROWS // 2 :: 3] = 0  # rows that count for nothing
    tasks = random.integers(0, GROUPS, ROWS, np.int32)
    return {"tokens": tokens, "segment_ids": segments, "positions": positions, "loss_weights": weights,
            "task_ids": tasks}  # fmt: skip
