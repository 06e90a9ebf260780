"""Rotary position embedding (RoFormer, arXiv 2104.09864) with Llama 3's scaling of the frequencies.

Pairs are (i, i + H/2), the layout in which Hugging Face stores Llama weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.config import ModelConfig, RopeScaling


class Rotation(NamedTuple):
    """Cosine and sine of every pair's angle at every token, float32, each of shape [B, L, H/2]."""

    cos: jax.Array
    sin: jax.Array


def frequencies(config: ModelConfig) -> np.ndarray:
    """Radians that each pair turns per position: float64 [H/2], fastest first."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    plain = config.rope_theta**-exponents
    return plain if config.rope_scaling is None else _scaled(plain, config.rope_scaling)


def _scaled(plain: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Slow pairs are slowed by `factor`, fast ones kept; between, the share kept grows with the turns per context."""
    turns = scaling.original_max_positions * plain / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0, 1)
    return plain * (kept + (1 - kept) / scaling.factor)


def rotation(config: ModelConfig, positions_BL: jax.Array) -> Rotation:
    """Cosine and sine at `positions_BL` (integers from 0 to 2³¹ - 1), right to a few 1e-7 at every position.

    The product position · frequency, rounded to float32, would be off by 0.008 radians at position 131,072. Whole turns
    do not matter, so the turns are counted in fixed point with 32 bits behind the point, where integer overflow drops
    them for free; what a frequency has behind those 32 bits is added as a small float.
    """
    turns = frequencies(config) / (2 * math.pi) * 2.0**32
    whole = np.floor(turns)
    rest = (turns - whole).astype(np.float32)
    positions_BL1 = positions_BL[..., None]
    small = jnp.round(positions_BL1.astype(jnp.float32) * rest).astype(jnp.uint32)
    fixed = positions_BL1.astype(jnp.uint32) * whole.astype(np.uint32) + small
    signed = jax.lax.bitcast_convert_type(fixed, jnp.int32)  # half a turn either way keeps the angle small
    angles = signed.astype(jnp.float32) * np.float32(2 * math.pi / 2.0**32)
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x_BLNH: jax.Array, by: Rotation) -> jax.Array:
    """Turns every pair of every head; computed in float32, returned in the dtype of `x_BLNH`."""
    first, second = jnp.split(x_BLNH.astype(jnp.float32), 2, axis=-1)
    cos, sin = by.cos[:, :, None, :], by.sin[:, :, None, :]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BLNH.dtype)
