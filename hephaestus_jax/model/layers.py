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

from hephaestus_jax.architecture import ExpertsConfig, LayerKind, ModelConfig
from hephaestus_jax.config import ComputeConfig
from hephaestus_jax.model import attention, context_attention, experts, grouped_products
from hephaestus_jax.model.attention import AttentionFunction
from hephaestus_jax.model.experts import Activation, RouterSums
from hephaestus_jax.model.grouped_products import GroupedProduct
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
    """Root-mean-square normalisation (arXiv 1910.07467), computed in float32.

    Args:
        config: its epsilon, and whether 1 is added to the scale.
        shape: of the scale; its axes, the last ones of the input, are normalised together. [D] by default.
        axes: their logical names.
    """

    def __init__(self, config: ModelConfig, shape: tuple[int, ...] = (), axes: tuple[str, ...] = ("norm",)):
        fresh = jnp.zeros if config.norm_plus_one else jnp.ones
        self.scale = parameter(fresh(shape or (config.embed_dim,), jnp.float32), axes)
        self.normalised = tuple(range(-len(axes), 0))
        self.epsilon, self.plus_one = config.norm_epsilon, config.norm_plus_one

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=self.normalised, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + self.epsilon)
        scale = self.scale[...].astype(jnp.float32)
        return (normed * (1 + scale if self.plus_one else scale)).astype(x.dtype)


def _normed(module: nnx.Module, name: str, x: jax.Array) -> jax.Array:
    """`x` after the module's norm of that name, if it has one."""
    return getattr(module, name)(x) if hasattr(module, name) else x


class Projection(nnx.Module):
    """A matrix product over the last `contracted` axes of the input, and a bias where its logical axes are given.

    With an adapter (`lora.add_adapters`) it has two factors more, whose product is added to the kernel's.
    """

    lora_a: nnx.Param
    lora_b: nnx.Param
    lora_scale: float

    def __init__(
        self,
        key: jax.Array,
        shape: tuple[int, ...],
        axes: tuple[str, ...],
        contracted: int = 1,
        stddev: float = STDDEV,
        bias_axes: tuple[str, ...] = (),
    ):
        matrix = (math.prod(shape[:contracted]), math.prod(shape[contracted:]))  # fewer axes compile faster
        self.kernel = parameter(truncated_normal(key, matrix, stddev).reshape(shape), axes)
        self.contracted = contracted
        if bias_axes:
            self.bias = parameter(jnp.zeros(shape[contracted:], jnp.float32), bias_axes)

    def __call__(self, x: jax.Array) -> jax.Array:
        product = project(x, self.kernel[...].astype(x.dtype), self.contracted)
        if hasattr(self, "lora_a"):
            rank_BLR = project(x, self.lora_a[...].astype(x.dtype), self.contracted)
            rank_BLR = constrain(rank_BLR, ("batch", "length", "lora_rank"))
            product += self.lora_scale * project(rank_BLR, self.lora_b[...].astype(x.dtype), 1)
        if not hasattr(self, "bias"):
            return product
        # In float32, so that its gradient, a sum over all tokens, is too.
        return (product.astype(jnp.float32) + self.bias[...].astype(jnp.float32)).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention; queries and keys may be normalised, then rotated by their positions."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        keys = jax.random.split(key, 4)
        embed, heads, kv_heads, head = config.embed_dim, config.num_heads, config.num_kv_heads, config.head_dim

        def into_heads(key: jax.Array, count: int, name: str) -> Projection:
            bias_axes = (name, "head_vector") if config.qkv_bias else ()
            return Projection(key, (embed, count, head), ("embed", name, "head_dim"), bias_axes=bias_axes)

        self.query = into_heads(keys[0], heads, "heads")
        self.key = into_heads(keys[1], kv_heads, "kv_heads")
        self.value = into_heads(keys[2], kv_heads, "kv_heads")
        self.out = Projection(keys[3], (heads, head, embed), ("heads", "head_dim", "embed"), 2, residual_stddev(config))
        if config.query_key_norm == "head":
            self.query_norm, self.key_norm = (RMSNorm(config, (head,), ("head_vector",)) for _ in range(2))
        elif config.query_key_norm == "all":
            self.query_norm = RMSNorm(config, (heads, head), ("heads", "head_vector"))
            self.key_norm = RMSNorm(config, (kv_heads, head), ("kv_heads", "head_vector"))

    def __call__(
        self, x_BLD: jax.Array, segment_ids_BL: jax.Array, positions: Rotation | None, attend: AttentionFunction
    ) -> jax.Array:
        heads, kv_heads = ("batch", "length", "heads", "head_dim"), ("batch", "length", "kv_heads", "head_dim")
        q_BLNH = constrain(rotate(_normed(self, "query_norm", self.query(x_BLD)), positions), heads)
        k_BLKH = constrain(rotate(_normed(self, "key_norm", self.key(x_BLD)), positions), kv_heads)
        v_BLKH = constrain(self.value(x_BLD), kv_heads)
        return self.out(constrain(attend(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL), heads))


@jax.checkpoint
def gelu_tanh(x: jax.Array) -> jax.Array:
    """GELU in its tanh approximation (arXiv 1606.08415), computed in float32; for the backward pass it keeps `x`."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


ACTIVATIONS: dict[str, Activation] = {"silu": jax.nn.silu, "gelu_tanh": gelu_tanh}
"""`ModelConfig.activation` -> its function."""


class FeedForward(nnx.Module):
    """The gated feed-forward: down(activation(gate x) · up x) (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        gate_key, up_key, down_key = jax.random.split(key, 3)
        embed, mlp = config.embed_dim, config.mlp_dim
        self.activation = config.activation
        self.gate = Projection(gate_key, (embed, mlp), ("embed", "mlp"))
        self.up = Projection(up_key, (embed, mlp), ("embed", "mlp"))
        self.down = Projection(down_key, (mlp, embed), ("mlp", "embed"), stddev=residual_stddev(config))

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        wide_BLF = ACTIVATIONS[self.activation](self.gate(x_BLD)) * self.up(x_BLD)
        return self.down(constrain(wide_BLF, ("batch", "length", "mlp")))


class Experts(nnx.Module):
    """A mixture of experts, each a gated feed-forward; see `experts`."""

    def __init__(self, config: ModelConfig, mixture: ExpertsConfig, key: jax.Array):
        router_key, gate_key, up_key, down_key = jax.random.split(key, 4)
        embed, count, width = config.embed_dim, mixture.num_experts, mixture.mlp_dim
        into, out_of = ("experts", "expert_embed", "expert_mlp"), ("experts", "expert_mlp", "expert_embed")
        self.config, self.activation = mixture, config.activation
        self.router = Projection(router_key, (embed, count), ("embed", "router"))
        self.gate = Projection(gate_key, (count, embed, width), into)
        self.up = Projection(up_key, (count, embed, width), into)
        self.down = Projection(down_key, (count, width, embed), out_of, stddev=residual_stddev(config))

    def __call__(
        self, x_BLD: jax.Array, segment_ids_BL: jax.Array, grouped: GroupedProduct
    ) -> tuple[jax.Array, RouterSums]:
        matrices = experts.Matrices(*(projection.kernel[...] for projection in (self.gate, self.up, self.down)))
        router_DE = self.router.kernel[...]
        activation = ACTIVATIONS[self.activation]
        return experts.feed_forward(x_BLD, segment_ids_BL, router_DE, matrices, self.config, grouped, activation)


class Methods(NamedTuple):
    """How the layers of one kind are computed.

    Attributes:
        attend: attention, under what such a layer sees.
        positions: how queries and keys are rotated; None in unrotated layers.
        grouped: the experts' products.
    """

    attend: AttentionFunction
    positions: Rotation | None
    grouped: GroupedProduct


class DecoderLayer(nnx.Module):
    """x + attention(x), then x + feed-forward(x), with norms before or after each; the latter may be of experts."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        attention_key, mlp_key = jax.random.split(key)
        if config.norm_placement != "after":
            self.attention_norm, self.mlp_norm = RMSNorm(config), RMSNorm(config)
        if config.norm_placement != "before":
            self.attention_post_norm, self.mlp_post_norm = RMSNorm(config), RMSNorm(config)
        self.attention = Attention(config, attention_key)
        if config.experts is None:
            self.mlp = FeedForward(config, mlp_key)
        else:
            self.experts = Experts(config, config.experts, mlp_key)

    def __call__(
        self, x_BLD: jax.Array, segment_ids_BL: jax.Array, methods: Methods
    ) -> tuple[jax.Array, RouterSums | None]:
        """The hidden states, and what the router did if there is one."""
        normed_BLD = _normed(self, "attention_norm", x_BLD)
        attended_BLD = self.attention(normed_BLD, segment_ids_BL, methods.positions, methods.attend)
        x_BLD = constrain(x_BLD + _normed(self, "attention_post_norm", attended_BLD), HIDDEN)
        normed_BLD, sums = _normed(self, "mlp_norm", x_BLD), None
        if hasattr(self, "experts"):
            fed_BLD, sums = self.experts(normed_BLD, segment_ids_BL, methods.grouped)
        else:
            fed_BLD = self.mlp(normed_BLD)
        return constrain(x_BLD + _normed(self, "mlp_post_norm", fed_BLD), HIDDEN), sums


def residual_stddev(config: ModelConfig) -> float:
    """Outputs that are added to the residual stream start smaller, so that its variance does not grow with depth."""
    return STDDEV / math.sqrt(2 * config.num_layers)


def choose_methods(
    config: ModelConfig, compute: ComputeConfig, kind: LayerKind, positions: Rotation | None, places: np.ndarray
) -> Methods:
    """What `compute` names for layers of that kind, for rows whose tokens are at these places and so rotated.

    See `attention` and `grouped_products`.

    Raises:
        UserError: it cannot do what is asked.
    """
    attend = attention_function(config, compute, kind, places)
    return Methods(attend, positions, grouped_products.choose(compute.experts, platform()))


def attention_function(
    config: ModelConfig, compute: ComputeConfig, kind: LayerKind, places: np.ndarray
) -> AttentionFunction:
    """The attention that `compute` names, computed again in the backward pass where `compute.remat` says so.

    Raises:
        UserError: it cannot do what is asked.
    """
    grouped, masking = config.num_kv_heads < config.num_heads, masking_of(config, kind, len(places))
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
        # Inside scan, CSE cannot undo it; layers that a pattern leaves over are outside.
        return jax.checkpoint(function, prevent_cse=config.num_layers % len(config.layer_pattern) > 0)
    return function


def masking_of(config: ModelConfig, kind: LayerKind, length: int) -> attention.Masking:
    """What the scores of such a layer go through in rows of `length`, of which a window as long hides nothing."""
    window = config.sliding_window if kind == "sliding" and config.sliding_window < length else 0
    scale = config.attention_scale_dim**-0.5 if config.attention_scale_dim else 0.0
    return attention.Masking(window, config.attention_softcap, scale)
