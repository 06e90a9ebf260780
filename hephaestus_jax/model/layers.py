"""The parts of a decoder layer as Flax NNX modules.

Parameters carry their logical axes as metadata (`logical_axes`), beside their shapes; a module's matrix products and
outputs are in the dtype of its input, whatever the dtype of its parameters.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hephaestus_jax.config import ComputeConfig, ExpertsConfig, ModelConfig
from hephaestus_jax.model import attention, context_attention, experts, grouped_products
from hephaestus_jax.model.rotary import Rotation, rotate
from hephaestus_jax.products import project
from hephaestus_jax.sharding import active, constrain, platform

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
        return project(x, self.kernel[...].astype(x.dtype), self.contracted)


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


class Experts(nnx.Module):
    """A mixture of experts, each a SwiGLU feed-forward; see `experts`."""

    def __init__(self, config: ModelConfig, mixture: ExpertsConfig, key: jax.Array):
        router_key, gate_key, up_key, down_key = jax.random.split(key, 4)
        embed, count, width = config.embed_dim, mixture.num_experts, mixture.mlp_dim
        into, out_of = ("experts", "expert_embed", "expert_mlp"), ("experts", "expert_mlp", "expert_embed")
        self.config = mixture
        self.router = Projection(router_key, (embed, count), ("embed", "router"))
        self.gate = Projection(gate_key, (count, embed, width), into)
        self.up = Projection(up_key, (count, embed, width), into)
        self.down = Projection(down_key, (count, width, embed), out_of, stddev=residual_stddev(config))

    def __call__(
        self, x_BLD: jax.Array, segment_ids_BL: jax.Array, grouped: grouped_products.GroupedProduct
    ) -> tuple[jax.Array, experts.RouterSums]:
        matrices = experts.Matrices(*(projection.kernel[...] for projection in (self.gate, self.up, self.down)))
        router_DE = self.router.kernel[...]
        return experts.feed_forward(x_BLD, segment_ids_BL, router_DE, matrices, self.config, grouped)


class Methods(NamedTuple):
    """How the parts of a layer are computed."""

    attend: attention.AttentionFunction
    grouped: grouped_products.GroupedProduct


class DecoderLayer(nnx.Module):
    """x + attention(norm x), then x + feed-forward(norm x); the latter may be a mixture of experts."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, attention_key)
        self.mlp_norm = RMSNorm(config)
        if config.experts is None:
            self.mlp = SwiGLU(config, mlp_key)
        else:
            self.experts = Experts(config, config.experts, mlp_key)

    def __call__(
        self, x_BLD: jax.Array, segment_ids_BL: jax.Array, positions: Rotation, methods: Methods
    ) -> tuple[jax.Array, experts.RouterSums | None]:
        """The hidden states, and what the router did if there is one."""
        attended = self.attention(self.attention_norm(x_BLD), segment_ids_BL, positions, methods.attend)
        x_BLD = constrain(x_BLD + attended, HIDDEN)
        normed_BLD, sums = self.mlp_norm(x_BLD), None
        if hasattr(self, "experts"):
            fed_BLD, sums = self.experts(normed_BLD, segment_ids_BL, methods.grouped)
        else:
            fed_BLD = self.mlp(normed_BLD)
        return constrain(x_BLD + fed_BLD, HIDDEN), sums


def residual_stddev(config: ModelConfig) -> float:
    """Outputs that are added to the residual stream start smaller, so that its variance does not grow with depth."""
    return STDDEV / math.sqrt(2 * config.num_layers)


def choose_methods(config: ModelConfig, compute: ComputeConfig, places: np.ndarray) -> Methods:
    """What `compute` names, for rows whose tokens are at these places; see `attention` and `grouped_products`."""
    grouped = grouped_products.choose(compute.experts, platform())
    return Methods(attention_function(config, compute, places), grouped)


def attention_function(config: ModelConfig, compute: ComputeConfig, places: np.ndarray) -> attention.AttentionFunction:
    """The attention that `compute` names, computed again in the backward pass where `compute.remat` says so.

    Raises:
        UserError: it cannot do what is asked.
    """
    grouped, masking = config.num_kv_heads < config.num_heads, attention.Masking()
    partitioning = active()
    backend = attention.choose(
        compute.attention,
        dtype=compute.dtype,
        length=len(places),
        grouped=grouped,
        platform=platform(),
        masking=masking,
    )
    if partitioning is not None and partitioning.context > 1:
        return context_attention.choose(compute.attention, masking, places)
    assert backend.function is not None
    function = functools.partial(backend.function, masking=masking)
    if compute.remat == "attention" and not backend.recomputes:
        return jax.checkpoint(function, prevent_cse=False)
    return function
