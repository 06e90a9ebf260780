"""Small decoders and packed rows that the tests of the model share."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from compiling import OPTIMISED

from hephaestus_jax.architecture import ExpertsConfig, LinearRopeScaling, ModelConfig, RopeScaling, YarnRopeScaling
from hephaestus_jax.config import ComputeConfig
from hephaestus_jax.model.decoder import abstract_parameters, decode, output_logits

FLOAT32 = ComputeConfig(dtype="float32")
_SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)


def config(**changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = dict(vocab_size=29, embed_dim=12, mlp_dim=20, num_layers=2, num_heads=4, num_kv_heads=2)
    return ModelConfig(**{"name": "small", **sizes, "head_dim": 8, "rope_theta": 100.0, **changes})


CONFIGS = {
    "as many key/value heads, untied": config(num_kv_heads=4),
    "grouped, tied, scaled": config(tied_embeddings=True, rope_scaling=_SCALING),
    "one key/value head, untied, scaled": config(num_kv_heads=1, rope_scaling=_SCALING, norm_epsilon=1e-2),
}


OTHERS = {
    # as Gemma 2
    "sliding and full, capped": config(
        layer_pattern=("sliding", "full"), sliding_window=4, norm_placement="both", norm_plus_one=True,
        activation="gelu_tanh", scaled_embedding=True, attention_scale_dim=20.0, attention_softcap=3.0,
        logit_softcap=5.0, tied_embeddings=True,
    ),
    # as Gemma 3; a pattern that two layers are left over of
    "sliding with their own rotary, normed heads": config(
        layer_pattern=("sliding", "sliding", "full"), num_layers=5, sliding_window=3, sliding_rope_theta=10.0,
        rope_scaling=LinearRopeScaling(8.0), query_key_norm="head", norm_placement="both", norm_plus_one=True,
        activation="gelu_tanh", scaled_embedding=True, num_kv_heads=1,
    ),
    # as OLMo 2 and SmolLM 3, with experts
    "norms after, unrotated, experts": config(
        layer_pattern=("full", "unrotated"), norm_placement="after", query_key_norm="all", activation="gelu_tanh",
        experts=ExpertsConfig(4, 2, 10),
    ),
    # as Qwen 2
    "biases, one window, YaRN": config(
        layer_pattern=("sliding",), sliding_window=5, qkv_bias=True,
        rope_scaling=YarnRopeScaling(4.0, 64, beta_fast=4.0),
    ),
}  # fmt: skip
CONFIGS |= OTHERS


def parameters(config: ModelConfig, seed: int = 0) -> dict:
    """Float32 parameters large enough for attention to choose and for the norms to matter."""
    rng = np.random.default_rng(seed)

    def values(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "scale":
            return (rng.uniform(0.5, 2.0, leaf.shape) - config.norm_plus_one).astype(np.float32)
        return (rng.standard_normal(leaf.shape) * 0.4).astype(np.float32)

    return jax.tree.map_with_path(values, abstract_parameters(config))


class Rows(NamedTuple):
    """Packed rows, each array [B, L]; `weights` are 0 on padding and on the first token of a segment."""

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def rows(config: ModelConfig, seed: int = 0) -> Rows:
    """Three rows of 14 tokens: segments with padding after, with padding between and far positions, and one alone."""
    rng = np.random.default_rng(seed)
    segment_ids = np.array(
        [
            [1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 0, 0, 0],
            [4, 4, 0, 2, 2, 2, 2, 2, 2, 2, 7, 7, 7, 7],
            [1] * 14,
        ]
    )
    positions = np.array(
        [
            [0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 0, 0, 0],
            [0, 1, 0, 60, 61, 62, 63, 64, 65, 66, 7, 8, 9, 10],
            [*range(9), *range(5)],  # positions may restart inside a segment
        ]
    )
    tokens = rng.integers(0, config.vocab_size, segment_ids.shape)
    targets = rng.integers(0, config.vocab_size, segment_ids.shape)
    weights = rng.uniform(0.2, 1.5, segment_ids.shape) * (segment_ids > 0)
    return Rows(tokens, segment_ids, positions, targets, weights)


def loss(params: dict, config: ModelConfig, compute: ComputeConfig, rows: Rows) -> jax.Array:
    """Σ weight · (-log softmax(logits)[target])."""
    hidden = decode(params, config, compute, rows.tokens, rows.segment_ids, rows.positions)
    logits = output_logits(params, config, hidden)
    losses = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, rows.targets[..., None], -1)[..., 0]
    return jnp.sum(losses * rows.weights)


jitted_decode = jax.jit(decode, static_argnums=(1, 2))
optimised_decode = jax.jit(decode, static_argnums=(1, 2), compiler_options=OPTIMISED)
jitted_loss_and_gradients = jax.jit(jax.value_and_grad(loss), static_argnums=(1, 2))
