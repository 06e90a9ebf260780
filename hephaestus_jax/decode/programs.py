"""Which models can share a compiled program."""

from __future__ import annotations

import dataclasses

from hephaestus_jax.config import ModelConfig


def same_program(model: ModelConfig) -> ModelConfig:
    """The part of an architecture that its compiled program depends on: equal for models that can share one."""
    return dataclasses.replace(model, name="", max_positions=1 << 31)
