"""A Llama-3-style decoder: a pure tree of parameters outside, Flax NNX modules inside.

The parameters are a nested dictionary of arrays; those of the layers are stacked along a leading axis and the layers
are one `lax.scan`, so that neither the compiled program nor its compile time grows with depth:

    embedder/embedding [V, D]                          final_norm/scale [D]
    layers/attention_norm/scale [Y, D]                 layers/mlp_norm/scale [Y, D]
    layers/attention/query/kernel [Y, D, N, H]         layers/mlp/gate/kernel, up/kernel [Y, D, F]
    layers/attention/key/kernel, value/kernel [Y, D, K, H]   layers/mlp/down/kernel [Y, F, D]
    layers/attention/out/kernel [Y, N, H, D]           head/kernel [D, V], absent when embeddings are tied

A model with experts has, in place of layers/mlp:

    layers/experts/router/kernel [Y, D, E]             layers/experts/gate/kernel, up/kernel [Y, E, D, F]
                                                       layers/experts/down/kernel [Y, E, F, D]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hephaestus_jax.config import ComputeConfig, DType, ModelConfig
from hephaestus_jax.model.context_attention import row_order
from hephaestus_jax.model.experts import RouterSums
from hephaestus_jax.model.layers import (
    HIDDEN,
    DecoderLayer,
    Projection,
    RMSNorm,
    choose_methods,
    parameter,
    truncated_normal,
)
from hephaestus_jax.model.rotary import rotation
from hephaestus_jax.products import PRODUCT, precise
from hephaestus_jax.sharding import active, constrain

Parameters = dict[str, Any]


class Embedder(nnx.Module):
    """Token id to vector."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        shape = (config.vocab_size, config.embed_dim)
        self.embedding = parameter(truncated_normal(key, shape), ("vocabulary", "embed"))

    def __call__(self, tokens_BL: jax.Array, dtype: DType) -> jax.Array:
        # an id outside the vocabulary becomes NaN, which the training step notices; clamping would hide it
        table_VD = jnp.asarray(self.embedding[...], dtype)
        # Each device looks up its slice of D for all rows of its replica: tokens travel, not the table.
        tokens_BL = constrain(tokens_BL, ("replica_batch", None))
        x_BLD = table_VD.at[tokens_BL].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        x_BLD = constrain(x_BLD, ("replica_batch", None, "embed"))
        # Mesh axis by mesh axis from D to where the layers want it, which the compiler knows how to exchange.
        return constrain(x_BLD, ("replica_batch", "length", "replica_embed"))


class Decoder(nnx.Module):
    """Embedding, stacked layers, final norm; the output projection is applied by the loss, in parts."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        embedder_key, layers_key, head_key = jax.random.split(key, 3)
        self.config = config
        self.embedder = Embedder(config, embedder_key)
        make_layers = nnx.vmap(lambda layer_key: DecoderLayer(config, layer_key))
        self.layers = make_layers(jax.random.split(layers_key, config.num_layers))
        self.final_norm = RMSNorm(config)
        if not config.tied_embeddings:
            self.head = Projection(head_key, (config.embed_dim, config.vocab_size), ("embed", "vocabulary"))

    def __call__(
        self,
        tokens_BL: jax.Array,
        segment_ids_BL: jax.Array,
        positions_BL: jax.Array,
        compute: ComputeConfig,
        places: np.ndarray,
    ) -> tuple[jax.Array, RouterSums | None]:
        methods = choose_methods(self.config, compute, places)
        turns = rotation(self.config, positions_BL)
        graph, stacked = nnx.split(self.layers)

        def layer(x_BLD: jax.Array, weights: nnx.State) -> tuple[jax.Array, RouterSums | None]:
            return nnx.merge(graph, weights)(x_BLD, segment_ids_BL, turns, methods)

        x_BLD = constrain(self.embedder(tokens_BL, compute.dtype), HIDDEN)
        x_BLD, sums = jax.lax.scan(_remat(layer, compute.remat), x_BLD, stacked)
        return self.final_norm(x_BLD), sums


def _remat(layer: Callable, policy: str) -> Callable:
    """`layer` with a backward pass that computes again what the policy of that name (`ComputeConfig`) says."""
    policies = {
        "dots": jax.checkpoint_policies.save_from_both_policies(
            jax.checkpoint_policies.dots_saveable, jax.checkpoint_policies.save_only_these_names(PRODUCT)
        ),
        "dots_with_no_batch_dims": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        "full": jax.checkpoint_policies.nothing_saveable,
    }
    if policy in ("none", "attention"):  # "attention" is wrapped around the attention itself
        return layer
    return jax.checkpoint(layer, policy=policies[policy], prevent_cse=False)  # inside scan, CSE cannot undo it


def init_parameters(config: ModelConfig, key: jax.Array, dtype: DType = "float32") -> Parameters:
    """Fresh parameters: normal with standard deviation 0.02, cut at three; norms 1.

    Projections that are added to the residual stream (attention/out, mlp/down) start at 0.02 / √(2Y), as in GPT-2. The
    values depend on the key alone, not on how the arrays are sharded; float32 values are rounded to `dtype`.
    """
    state = nnx.state(Decoder(config, key), nnx.Param)
    return jax.tree.map(lambda values: values.astype(dtype), nnx.to_pure_dict(state))


def abstract_parameters(config: ModelConfig, dtype: DType = "float32") -> Parameters:
    """Shapes and dtypes of the parameters, as `jax.ShapeDtypeStruct`; nothing is allocated."""
    return jax.eval_shape(lambda: init_parameters(config, jax.random.key(0), dtype))


def parameter_axes(config: ModelConfig) -> Parameters:
    """The same tree with the logical axes of each parameter, one name per dimension."""
    _, state = _blueprint(config)
    return {name: _axes(part, ("layers",) if name == "layers" else ()) for name, part in state.items()}


def _axes(part: Any, leading: tuple[str, ...]) -> Any:
    if isinstance(part, nnx.Variable):
        return leading + part.get_metadata()["logical_axes"]
    return {name: _axes(inner, leading) for name, inner in part.items()}


@functools.lru_cache(maxsize=64)
def _blueprint(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """The module's structure, and its state without values."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, jax.random.key(0))))


def decode(
    params: Mapping[str, Any],
    config: ModelConfig,
    compute: ComputeConfig,
    tokens_BL: jax.Array,
    segment_ids_BL: jax.Array,
    positions_BL: jax.Array,
) -> jax.Array:
    """Hidden states after the final norm: [B, L, D] in `compute.dtype`.

    Args:
        params: as from `init_parameters(config)`, in any dtype.
        config: the architecture.
        compute: how it is computed; the result depends on it within rounding only.
        tokens_BL: token ids. An id outside the vocabulary gives NaN.
        segment_ids_BL: segments of the packed row; 0 is padding. A token attends to the earlier-or-equal places of its
            own segment.
        positions_BL: position of each token in its own text, for the rotary embedding.

    Raises:
        UserError: the attention backend cannot do what is asked.
    """
    places = row_places(tokens_BL.shape[1])
    tokens_BL, segment_ids_BL, positions_BL = (in_order(x, places) for x in (tokens_BL, segment_ids_BL, positions_BL))
    hidden_BLD, _ = decode_in_order(params, config, compute, tokens_BL, segment_ids_BL, positions_BL, places)
    return hidden_BLD if places_are_natural(places) else hidden_BLD[:, np.argsort(places)]


def decode_in_order(
    params: Mapping[str, Any],
    config: ModelConfig,
    compute: ComputeConfig,
    tokens_BL: jax.Array,
    segment_ids_BL: jax.Array,
    positions_BL: jax.Array,
    places: np.ndarray,
) -> tuple[jax.Array, RouterSums | None]:
    """As `decode`, for rows whose tokens are in the order that the mesh divides them in, as its result is.

    Args:
        places: from `row_places`, the place in the row of each index.

    Returns:
        hidden states, and for a model with experts the router's sums by layer and part of the batch, [Y, P, ...].
    """
    graph, blueprint = _blueprint(config)
    state = jax.tree.map(lambda leaf: leaf, blueprint)  # a copy, since the next line writes into it
    nnx.replace_by_pure_dict(state, dict(params))
    with precise(compute.dtype):
        return nnx.merge(graph, state)(tokens_BL, segment_ids_BL, positions_BL, compute, places)


def row_places(length: int) -> np.ndarray:
    """The place in the row of each index, in the order that the active partitioning divides rows in.

    Raises:
        UserError: rows of this length do not divide over mesh axis `context`.
    """
    return row_order(length, row_parts())


def row_parts() -> int:
    """The number of parts that the active partitioning divides the tokens of a row into."""
    partitioning = active()
    return 1 if partitioning is None else partitioning.context


def in_order(x_BL: jax.Array, places: np.ndarray) -> jax.Array:
    """Whole rows [B, L] with their tokens in that order, divided over the mesh."""
    if places_are_natural(places):
        return x_BL
    return constrain(constrain(x_BL, ("batch", "row"))[:, places], ("batch", "length"))


def places_are_natural(places: np.ndarray) -> bool:
    """Whether each index is its own place."""
    return bool((places == np.arange(len(places))).all())


def output_kernel(params: Mapping[str, Any]) -> jax.Array:
    """The output projection [D, V]: `head/kernel`, or the embedding transposed when embeddings are tied."""
    return params["head"]["kernel"] if "head" in params else params["embedder"]["embedding"].T
