"""The decoder: a pure tree of parameters outside, Flax NNX modules inside.

The parameters are a nested dictionary of arrays; those of the layers are stacked along a leading axis and the layers
are one `lax.scan`, so that neither the compiled program nor its compile time grows with depth:

    embedder/embedding [V, D]                          final_norm/scale [D]
    layers/attention_norm/scale [Y, D]                 layers/mlp_norm/scale [Y, D]
    layers/attention/query/kernel [Y, D, N, H]         layers/mlp/gate/kernel, up/kernel [Y, D, F]
    layers/attention/key/kernel, value/kernel [Y, D, K, H]   layers/mlp/down/kernel [Y, F, D]
    layers/attention/out/kernel [Y, N, H, D]           head/kernel [D, V], absent when embeddings are tied

What a `ModelConfig` may have besides: norms after attention and feed-forward, with or in place of those before;
norms of queries and keys, of each head or of all; biases; experts in place of layers/mlp:

    layers/attention_post_norm/scale, layers/mlp_post_norm/scale [Y, D]
    layers/attention/query_norm/scale, key_norm/scale [Y, H], or [Y, N, H] and [Y, K, H]
    layers/attention/query/bias [Y, N, H]              layers/attention/key/bias, value/bias [Y, K, H]
    layers/experts/router/kernel [Y, D, E]             layers/experts/gate/kernel, up/kernel [Y, E, D, F]
                                                       layers/experts/down/kernel [Y, E, F, D]

Of a run that trains adapters (`lora`) each projection that has one:

    layers/attention/query/lora_a [Y, D, R]            layers/attention/query/lora_b [Y, R, N, H]

Layers that differ in what they see are scanned over by groups, each one repetition of the pattern; the first layers of
a last, incomplete one come after the scan. The program grows with the pattern, which is all layers where they do not
repeat (Qwen's windows in late layers). The parameters are the same stack whatever the pattern.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hephaestus_jax.architecture import LayerKind, LoraConfig, ModelConfig
from hephaestus_jax.config import ComputeConfig, DType
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
from hephaestus_jax.model.lora import add_adapters, is_adapter
from hephaestus_jax.model.rotary import rotations
from hephaestus_jax.products import PRODUCT, einsum_float32, precise, soft_capped
from hephaestus_jax.sharding import active, constrain

Parameters = dict[str, Any]
Layer = Callable[[jax.Array, nnx.State], tuple[jax.Array, RouterSums | None]]
"""Hidden states and a layer's weights -> hidden states, and what the router did if there is one."""


class Embedder(nnx.Module):
    """Token id to vector."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        shape = (config.vocab_size, config.embed_dim)
        self.embedding = parameter(truncated_normal(key, shape), ("vocabulary", "embed"))
        self.scale = math.sqrt(config.embed_dim) if config.scaled_embedding else 1.0

    def __call__(self, tokens_BL: jax.Array, dtype: DType) -> jax.Array:
        # an id outside the vocabulary becomes NaN, which the training step notices; clamping would hide it
        table_VD = jnp.asarray(self.embedding[...], dtype)
        # Each device looks up its slice of D for all rows of its replica: tokens travel, not the table.
        tokens_BL = constrain(tokens_BL, ("replica_batch", None))
        x_BLD = table_VD.at[tokens_BL].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        x_BLD = constrain(x_BLD, ("replica_batch", None, "embed"))
        # Mesh axis by mesh axis from D to where the layers want it, which the compiler knows how to exchange.
        x_BLD = constrain(x_BLD, ("replica_batch", "length", "replica_embed"))
        # Rounded to the dtype before, as Gemma was trained: 55.5 for √3072 in bfloat16.
        return x_BLD if self.scale == 1 else x_BLD * jnp.asarray(self.scale, dtype)


class Decoder(nnx.Module):
    """Embedding, stacked layers, final norm; the output projection is applied by the loss, in parts."""

    def __init__(self, config: ModelConfig, key: jax.Array, lora: LoraConfig | None = None):
        embedder_key, layers_key, head_key = jax.random.split(key, 3)
        self.config = config
        self.embedder = Embedder(config, embedder_key)
        make_layers = nnx.vmap(lambda layer_key: DecoderLayer(config, layer_key))
        self.layers = make_layers(jax.random.split(layers_key, config.num_layers))
        if lora is not None:
            add_adapters(self.layers, config, lora, key)
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
        config = self.config
        turns = rotations(config, positions_BL)
        methods = {kind: choose_methods(config, compute, kind, turns[kind], places) for kind in turns}
        graph, stacked = nnx.split(self.layers)

        def layer_of(kind: LayerKind) -> Layer:
            def layer(x_BLD: jax.Array, weights: nnx.State) -> tuple[jax.Array, RouterSums | None]:
                return nnx.merge(graph, weights)(x_BLD, segment_ids_BL, methods[kind])

            return layer

        x_BLD = constrain(self.embedder(tokens_BL, compute.dtype), HIDDEN)
        pattern = [layer_of(kind) for kind in config.layer_pattern]
        x_BLD, sums = _scan(pattern, compute.remat, x_BLD, stacked, config.num_layers)
        return self.final_norm(x_BLD), sums


def _scan(
    pattern: Sequence[Layer], remat: str, x_BLD: jax.Array, stacked: nnx.State, num_layers: int
) -> tuple[jax.Array, RouterSums | None]:
    """Applies `num_layers` layers of the repeated pattern to `x_BLD`; the routers' sums are stacked as they are."""
    if len(pattern) == 1:
        return jax.lax.scan(_remat(pattern[0], remat), x_BLD, stacked)
    size = len(pattern)
    whole = num_layers // size

    def group(
        x_BLD: jax.Array, weights: nnx.State, count: int = size, in_scan: bool = True
    ) -> tuple[jax.Array, RouterSums | None]:
        """The first `count` layers of the pattern."""
        found = []
        for index, layer in enumerate(pattern[:count]):
            # Cut out of the group inside what is computed again: the group's weights are kept as they are, where the
            # layer's own would be kept as copies.
            own = _remat(lambda x_BLD, weights, i=index, f=layer: f(x_BLD, _at(weights, i)), remat, in_scan)
            x_BLD, sums = own(x_BLD, weights)
            found.append(sums)
        return x_BLD, jax.tree.map(lambda *parts: jnp.stack(parts), *found)

    groups = jax.tree.map(lambda w: w[: whole * size].reshape(whole, size, *w.shape[1:]), stacked)
    x_BLD, sums = jax.lax.scan(group, x_BLD, groups)
    sums = jax.tree.map(lambda s: s.reshape(whole * size, *s.shape[2:]), sums)
    if rest := num_layers - whole * size:
        x_BLD, last = group(x_BLD, jax.tree.map(lambda w: w[whole * size :], stacked), rest, in_scan=False)
        sums = jax.tree.map(lambda *parts: jnp.concatenate(parts), sums, last)
    return x_BLD, sums


def _at(weights: nnx.State, index: int) -> nnx.State:
    return jax.tree.map(lambda w: w[index], weights)


def _remat(layer: Callable, policy: str, in_scan: bool = True) -> Callable:
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
    return jax.checkpoint(layer, policy=policies[policy], prevent_cse=not in_scan)  # inside scan, CSE cannot undo it


def init_parameters(
    config: ModelConfig, key: jax.Array, dtype: DType = "float32", lora: LoraConfig | None = None
) -> Parameters:
    """Fresh parameters: normal with standard deviation 0.02, cut at three; norms multiply by 1, biases are 0.

    Projections that are added to the residual stream (attention/out, mlp/down) start at 0.02 / √(2Y), as in GPT-2. The
    values depend on the key alone, not on how the arrays are sharded; float32 values are rounded to `dtype`, those of
    adapters are not. Without adapters the others are the same.
    """
    state = nnx.state(Decoder(config, key, lora), nnx.Param)
    return jax.tree_util.tree_map_with_path(
        lambda path, values: values if is_adapter(path) else values.astype(dtype), nnx.to_pure_dict(state)
    )


def abstract_parameters(config: ModelConfig, dtype: DType = "float32", lora: LoraConfig | None = None) -> Parameters:
    """Shapes and dtypes of the parameters, as `jax.ShapeDtypeStruct`; nothing is allocated."""
    return jax.eval_shape(lambda: init_parameters(config, jax.random.key(0), dtype, lora))


def parameter_axes(config: ModelConfig, lora: LoraConfig | None = None) -> Parameters:
    """The same tree with the logical axes of each parameter, one name per dimension."""
    _, state = _blueprint(config, lora)
    return {name: _axes(part, ("layers",) if name == "layers" else ()) for name, part in state.items()}


def _axes(part: Any, leading: tuple[str, ...]) -> Any:
    if isinstance(part, nnx.Variable):
        return leading + part.get_metadata()["logical_axes"]
    return {name: _axes(inner, leading) for name, inner in part.items()}


@functools.lru_cache(maxsize=64)
def _blueprint(config: ModelConfig, lora: LoraConfig | None = None) -> tuple[nnx.GraphDef, nnx.State]:
    """The module's structure, and its state without values."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, jax.random.key(0), lora)))


def decode(
    params: Mapping[str, Any],
    config: ModelConfig,
    compute: ComputeConfig,
    tokens_BL: jax.Array,
    segment_ids_BL: jax.Array,
    positions_BL: jax.Array,
    lora: LoraConfig | None = None,
) -> jax.Array:
    """Hidden states after the final norm: [B, L, D] in `compute.dtype`.

    Args:
        params: as from `init_parameters`, in any dtype.
        config: the architecture.
        compute: how it is computed; the result depends on it within rounding only.
        tokens_BL: token ids. An id outside the vocabulary gives NaN.
        segment_ids_BL: segments of the packed row; 0 is padding. A token attends to the earlier-or-equal places of its
            own segment.
        positions_BL: position of each token in its own text, for the rotary embedding.
        lora: adapters that `params` has.

    Raises:
        UserError: the attention backend cannot do what is asked.
    """
    places = row_places(tokens_BL.shape[1])
    tokens_BL, segment_ids_BL, positions_BL = (in_order(x, places) for x in (tokens_BL, segment_ids_BL, positions_BL))
    hidden_BLD, _ = decode_in_order(params, config, compute, tokens_BL, segment_ids_BL, positions_BL, places, lora)
    return hidden_BLD if places_are_natural(places) else hidden_BLD[:, np.argsort(places)]


def decode_in_order(
    params: Mapping[str, Any],
    config: ModelConfig,
    compute: ComputeConfig,
    tokens_BL: jax.Array,
    segment_ids_BL: jax.Array,
    positions_BL: jax.Array,
    places: np.ndarray,
    lora: LoraConfig | None = None,
) -> tuple[jax.Array, RouterSums | None]:
    """As `decode`, for rows whose tokens are in the order that the mesh divides them in, as its result is.

    Args:
        places: from `row_places`, the place in the row of each index.

    Returns:
        hidden states, and for a model with experts the router's sums by layer and part of the batch, [Y, P, ...].
    """
    graph, blueprint = _blueprint(config, lora)
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


def output_logits(params: Mapping[str, Any], config: ModelConfig, hidden_BLD: jax.Array) -> jax.Array:
    """The logits after the final norm, soft-capped where the model has it: float32 [B, L, V].

    Products are in the dtype of `hidden_BLD` and add up in float32.
    """
    kernel_DV = output_kernel(params).astype(hidden_BLD.dtype)
    with precise("float32" if hidden_BLD.dtype == jnp.float32 else "bfloat16"):
        logits_BLV = einsum_float32("bld,dv->blv", hidden_BLD, kernel_DV)
    return soft_capped(logits_BLV, config.logit_softcap)
