"""LoRA adapters: two factors of low rank beside a projection's kernel, which alone are trained (arXiv 2106.09685).

With in and out the axes of a kernel, a leaf `kernel` [Y, in, out] has `lora_a` [Y, in, R] and `lora_b` [Y, R, out]
beside it, in float32, and the projection gives x·W + scale · (x·A)·B. B begins with 0, so that the first step sees the
weights as they were.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hephaestus_jax.architecture import LORA_TARGETS, LoraConfig, ModelConfig

A, B = "lora_a", "lora_b"

Parameters = dict[str, Any]
_ADAPTERS_KEY = 1  # folded into the key of the model, so that its other weights are those without adapters


def add_adapters(layers: Any, config: ModelConfig, lora: LoraConfig, key: jax.Array) -> None:
    """Gives the stacked layers fresh adapters: A uniform in ±1/√(inputs), as PEFT has it, and B zero.

    Raises:
        UserError: a target is not among the model's projections.
    """
    lora.check(config)
    key = jax.random.fold_in(key, _ADAPTERS_KEY)
    for number, name in enumerate(LORA_TARGETS):
        if name not in lora.targets:
            continue
        parent = layers.attention if hasattr(layers.attention, name) else layers.mlp
        _add_adapter(getattr(parent, name), lora, jax.random.fold_in(key, number))


def _add_adapter(projection: Any, lora: LoraConfig, key: jax.Array) -> None:
    layers, *shape = projection.kernel.shape
    axes, contracted = projection.kernel.get_metadata()["logical_axes"], projection.contracted
    inputs, outputs = shape[:contracted], shape[contracted:]
    bound = math.prod(inputs) ** -0.5
    a = jax.random.uniform(key, (layers, *inputs, lora.rank), jnp.float32, -bound, bound)
    projection.lora_a = nnx.Param(a, logical_axes=(*axes[:contracted], "lora_rank"))
    b = jnp.zeros((layers, lora.rank, *outputs), jnp.float32)
    projection.lora_b = nnx.Param(b, logical_axes=("lora_rank", *axes[contracted:]))
    projection.lora_scale = lora.scale


# ---- the tree


def is_adapter(path: tuple[Any, ...]) -> bool:
    """Whether that is the path of an adapter's factor."""
    return path[-1].key in (A, B)


def trained_and_frozen(params: Mapping[str, Any], lora: LoraConfig | None) -> tuple[Parameters, Parameters]:
    """The parameters that a run trains, and the others; with adapters the former are these alone."""
    if lora is None:
        return dict(params), {}
    return _chosen(params, lambda name: name in (A, B)), _chosen(params, lambda name: name not in (A, B))


def _chosen(params: Mapping[str, Any], chosen: Callable[[str], bool]) -> Parameters:
    """The leaves whose names are chosen; dictionaries that have none are left out."""
    found: Parameters = {}
    for name, part in params.items():
        if isinstance(part, Mapping):
            if inner := _chosen(part, chosen):
                found[name] = inner
        elif chosen(name):
            found[name] = part
    return found


def joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> Parameters:
    """The tree of the leaves of both, which have none in common; what `trained_and_frozen` took apart."""
    both = {**one, **other}
    for name in one.keys() & other.keys():
        both[name] = joined(one[name], other[name])
    return both


# ---- merging


def merged_parameters(params: Mapping[str, Any], lora: LoraConfig) -> Parameters:
    """The parameters without adapters, these added to their kernels: W + scale · A·B in float32, rounded once.

    Dtypes and shardings are those of the kernels, whose buffers are used again.
    """
    if A in params:
        others = {name: value for name, value in params.items() if name not in (A, B)}
        return others | {"kernel": _merge(params["kernel"], params[A], params[B], lora.scale)}
    return {name: merged_parameters(part, lora) if isinstance(part, Mapping) else part for name, part in params.items()}


def _merge(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    return _merge_program(scale, kernel.sharding)(kernel, a, b)


@functools.lru_cache(maxsize=64)
def _merge_program(scale: float, sharding: jax.sharding.Sharding) -> Callable[..., jax.Array]:
    def of_layer(layer: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        kernel, a, b = layer
        product = jnp.tensordot(a, b, 1, precision="highest")
        return (kernel.astype(jnp.float32) + scale * product).astype(kernel.dtype)

    def merge(kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.map(of_layer, (kernel, a, b))  # one layer after the other, since a stack may be large

    return jax.jit(merge, donate_argnums=0, out_shardings=sharding)
