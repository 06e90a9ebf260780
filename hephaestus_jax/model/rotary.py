"""Rotary position embedding (RoFormer, arXiv 2104.09864) and the ways to change its frequencies for longer contexts.

Pairs are (i, i + H/2), the layout in which Hugging Face stores weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.architecture import LayerKind, LinearRopeScaling, ModelConfig, RopeScaling, YarnRopeScaling


class Rotation(NamedTuple):
    """Cosine and sine of every pair's angle at every token, float32, each of shape [B, L, H/2].

    Both times YaRN's attention factor where there is one, which so gets into queries and keys.
    """

    cos: jax.Array
    sin: jax.Array


def frequencies(config: ModelConfig, kind: LayerKind = "full") -> np.ndarray:
    """Radians that each pair turns per position in layers of that kind: float64 [H/2], fastest first."""
    own_theta = kind == "sliding" and config.sliding_rope_theta > 0
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    plain = (config.sliding_rope_theta if own_theta else config.rope_theta) ** -exponents
    scaling = None if own_theta else config.rope_scaling
    if scaling is None:
        return plain
    if isinstance(scaling, LinearRopeScaling):
        return plain / scaling.factor
    if isinstance(scaling, YarnRopeScaling):
        kept = _kept_by_yarn(config.head_dim, config.rope_theta, scaling)
    else:
        kept = _kept_by_llama(plain, scaling)
    return plain * (kept + (1 - kept) / scaling.factor)


def _kept_by_llama(plain: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """The share of each frequency that is not slowed; between slow and fast pairs it grows with the turns."""
    turns = scaling.original_max_positions * plain / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return np.clip(kept, 0, 1)


def _kept_by_yarn(head_dim: int, theta: float, scaling: YarnRopeScaling) -> np.ndarray:
    """The share of each frequency that is not slowed; between fast and slow pairs it falls with the pair's number."""

    def pair_of(turns: float) -> float:
        """The pair, as a fraction, that makes that many turns within the original context."""
        return head_dim * math.log(scaling.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_of(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_of(scaling.beta_slow)), head_dim - 1)
    slowed = (np.arange(head_dim // 2) - first) / (last - first or 0.001)
    return 1 - np.clip(slowed, 0, 1)


def _factor(config: ModelConfig, kind: LayerKind) -> float:
    """What cosines and sines are multiplied by (YaRN, section 3.4)."""
    scaling = config.rope_scaling
    if not isinstance(scaling, YarnRopeScaling) or (kind == "sliding" and config.sliding_rope_theta):
        return 1.0
    return scaling.attention_factor or 0.1 * math.log(max(scaling.factor, 1.0)) + 1.0


def rotation(config: ModelConfig, positions_BL: jax.Array, kind: LayerKind = "full") -> Rotation | None:
    """Cosine and sine at `positions_BL` (integers from 0 to 2³¹ - 1), right to a few 1e-7 at every position.

    None for unrotated layers.

    The product position · frequency, rounded to float32, would be off by 0.008 radians at position 131,072. Whole turns
    do not matter, so the turns are counted in fixed point with 32 bits behind the point, where integer overflow drops
    them for free; what a frequency has behind those 32 bits is added as a small float.
    """
    if kind == "unrotated":
        return None
    turns = frequencies(config, kind) / (2 * math.pi) % 1.0 * 2.0**32  # of a position; whole turns do not matter
    whole = np.floor(turns)
    rest = (turns - whole).astype(np.float32)
    positions_BL1 = positions_BL[..., None]
    small = jnp.round(positions_BL1.astype(jnp.float32) * rest).astype(jnp.uint32)
    fixed = positions_BL1.astype(jnp.uint32) * whole.astype(np.uint32) + small
    signed = jax.lax.bitcast_convert_type(fixed, jnp.int32)  # half a turn either way keeps the angle small
    angles = signed.astype(jnp.float32) * np.float32(2 * math.pi / 2.0**32)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    factor = _factor(config, kind)
    return Rotation(cos, sin) if factor == 1 else Rotation(factor * cos, factor * sin)


def rotations(config: ModelConfig, positions_BL: jax.Array) -> dict[LayerKind, Rotation | None]:
    """The rotation of every kind of layer that the model has; the same arrays where it is the same."""
    same: LayerKind = "sliding" if config.sliding_rope_theta else "full"
    alike: dict[LayerKind, LayerKind] = {kind: same if kind == "sliding" else kind for kind in config.layer_pattern}
    made = {kind: rotation(config, positions_BL, kind) for kind in dict.fromkeys(alike.values())}
    return {kind: made[other] for kind, other in alike.items()}


def rotate(x_BLNH: jax.Array, by: Rotation | None) -> jax.Array:
    """Turns every pair of every head, if at all; computed in float32, returned in the dtype of `x_BLNH`."""
    if by is None:
        return x_BLNH
    first, second = jnp.split(x_BLNH.astype(jnp.float32), 2, axis=-1)
    cos, sin = by.cos[:, :, None, :], by.sin[:, :, None, :]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BLNH.dtype)
