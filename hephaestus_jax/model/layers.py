"""The parts of a decoder layer as Flax NNX modules.

Parameters carry their logical axes as metadata (`logical_axes`), beside their shapes; a module's matrix products and
outputs are in the dtype of its input, whatever the dtype of its parameters.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from hephaestus_jax.config import ComputeConfig, ModelConfig
from hephaestus_jax.model import attention
from hephaestus_jax.model.rotary import Rotation, rotate
from hephaestus_jax.sharding import constrain

STDDEV = 0.02
HIDDEN = ("batch", "length", "embed_activation")


def parameter(values: jax.Array, axes: tuple[str, ...]) -> nnx.Param:
    """A parameter that knows its logical axes."""
    return nnx.Param(values, logical_axes=axes)


def truncated_normal(key: jax.Array, shape: tuple[int, ...], stddev: float = STDDEV) -> jax.Array:
    """Normal values, cut at three standard deviations."""
    return stddev * jax.random.truncated_normal(key, -3.0, 3.0, shape, jnp.float32)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation (arXiv 1910.07467), computed in float32."""

    def __init__(self, config: ModelConfig):
        self.scale = parameter(jnp.ones(config.embed_dim, jnp.float32), ("norm",))
        self.epsilon = config.norm_epsilon

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        wide = x_BLD.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + self.epsilon)
        return (normed * self.scale[...].astype(jnp.float32)).astype(x_BLD.dtype)


class Projection(nnx.Module):
    """A matrix product without bias over the last `contracted` axes of the input."""

    def __init__(
        self,
        key: jax.Array,
        shape: tuple[int, ...],
        axes: tuple[str, ...],
        contracted: int = 1,
        stddev: float = STDDEV,
    ):
        matrix = (math.prod(shape[:contracted]), math.prod(shape[contracted:]))  # fewer axes compile faster
        self.kernel = parameter(truncated_normal(key, matrix, stddev).reshape(shape), axes)
        self.contracted = contracted

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tensordot(x, self.kernel[...].astype(x.dtype), axes=self.contracted)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        query_key, key_key, value_key, out_key = jax.random.split(key, 4)
        embed, heads, kv_heads, head = config.embed_dim, config.num_heads, config.num_kv_heads, config.head_dim
        kv_axes = ("embed", "kv_heads", "head_dim")
        self.query = Projection(query_key, (embed, heads, head), ("embed", "heads", "head_dim"))
        self.key = Projection(key_key, (embed, kv_heads, head), kv_axes)
        self.value = Projection(value_key, (embed, kv_heads, head), kv_axes)
        self.out = Projection(out_key, (heads, head, embed), ("heads", "head_dim", "embed"), 2, residual_stddev(config))

    def __call__(
        self, x_BLD: jax.Array, segment_ids_BL: jax.Array, positions: Rotation, attend: attention.AttentionFunction
    ) -> jax.Array:
        heads, kv_heads = ("batch", "length", "heads", "head_dim"), ("batch", "length", "kv_heads", "head_dim")
        q_BLNH = constrain(rotate(self.query(x_BLD), positions), heads)
        k_BLKH = constrain(rotate(self.key(x_BLD), positions), kv_heads)
        v_BLKH = constrain(self.value(x_BLD), kv_heads)
        return self.out(constrain(attend(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL), heads))


class SwiGLU(nnx.Module):
    """The gated feed-forward: down(silu(gate x) · up x) (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        gate_key, up_key, down_key = jax.random.split(key, 3)
        embed, mlp = config.embed_dim, config.mlp_dim
        self.gate = Projection(gate_key, (embed, mlp), ("embed", "mlp"))
        self.up = Projection(up_key, (embed, mlp), ("embed", "mlp"))
        self.down = Projection(down_key, (mlp, embed), ("mlp", "embed"), stddev=residual_stddev(config))

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        wide_BLF = jax.nn.silu(self.gate(x_BLD)) * self.up(x_BLD)
        return self.down(constrain(wide_BLF, ("batch", "length", "mlp")))


class DecoderLayer(nnx.Module):
    """x + attention(norm x), then x + feed-forward(norm x)."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, attention_key)
        self.mlp_norm = RMSNorm(config)
        self.mlp = SwiGLU(config, mlp_key)

    def __call__(
        self, x_BLD: jax.Array, segment_ids_BL: jax.Array, positions: Rotation, attend: attention.AttentionFunction
    ) -> jax.Array:
        attended = self.attention(self.attention_norm(x_BLD), segment_ids_BL, positions, attend)
        x_BLD = constrain(x_BLD + attended, HIDDEN)
        return constrain(x_BLD + self.mlp(self.mlp_norm(x_BLD)), HIDDEN)


def residual_stddev(config: ModelConfig) -> float:
    """Outputs that are added to the residual stream start smaller, so that its variance does not grow with depth."""
    return STDDEV / math.sqrt(2 * config.num_layers)


def attention_function(
    config: ModelConfig, compute: ComputeConfig, length: int, platform: str
) -> attention.AttentionFunction:
    """The attention that `compute` names, computed again in the backward pass where `compute.remat` says so."""
    grouped = config.num_kv_heads < config.num_heads
    backend = attention.choose(
        compute.attention, dtype=compute.dtype, length=length, grouped=grouped, platform=platform
    )
    assert backend.function is not None
    if compute.remat == "attention" and not backend.recomputes:
        return jax.checkpoint(backend.function, prevent_cse=False)
    return backend.function
