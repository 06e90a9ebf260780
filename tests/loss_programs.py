"""Compiled loss programs for the tests to read, and their values on a mesh.

Run as a program with 8 virtual devices, with meshes as arguments, it prints one JSON object; `test_losses.py`
starts it, since the number of devices of a process is fixed when JAX starts.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from compiling import FUSED

from hephaestus_jax import losses, sharding
from hephaestus_jax.config import MeshConfig, ModelConfig
from hephaestus_jax.losses import cross_entropy_sums
from hephaestus_jax.sharding import Partitioning, make_mesh

B, L, D, V, G = 8, 64, 32, 512, 3
CHUNK = 16
Z_LOSS = 1e-2
MODEL = ModelConfig("test", V, D, 64, 2, num_heads=8, num_kv_heads=8, head_dim=4)
AXES = (
    ("batch", "length", "embed_activation"), ("embed", "vocabulary"), ("batch", "length"), ("batch", "length"),
    ("batch",),
)  # fmt: skip

Objective = Callable[..., jax.Array]


def arrays(dtype: str = "float32") -> tuple[jax.Array, ...]:
    """Hidden states, kernel, targets, weights and groups."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0, 1, (B, L)) * (rng.uniform(size=(B, L)) < 0.7)
    return (
        jnp.asarray(rng.standard_normal((B, L, D)), dtype),
        jnp.asarray(rng.standard_normal((D, V)) / D**0.5, jnp.float32),
        jnp.asarray(rng.integers(0, V, (B, L)), jnp.int32),
        jnp.asarray(weights, jnp.float32),
        jnp.asarray(rng.integers(0, G, B), jnp.int32),
    )


def chunked(hidden: jax.Array, kernel: jax.Array, targets: jax.Array, weights: jax.Array, groups: jax.Array) -> Any:
    """The loss under test."""
    return cross_entropy_sums(hidden, kernel, targets, weights, groups, G, Z_LOSS, CHUNK).objective


def naive(hidden: jax.Array, kernel: jax.Array, targets: jax.Array, weights: jax.Array, groups: jax.Array) -> Any:
    """What a loss must not be: all logits at once."""
    del groups
    logits = jnp.einsum("bld,dv->blv", hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)
    logits = sharding.constrain(logits, ("batch", "length", "vocabulary"))
    log_z = jax.nn.logsumexp(logits, axis=-1)
    is_target = targets[..., None] == jnp.arange(V)
    loss = log_z - jnp.sum(jnp.where(is_target, logits, 0), axis=-1)
    return jnp.sum(weights * (loss + Z_LOSS * jnp.square(log_z)))


def compiled(objective: Objective, inputs: tuple[Any, ...], partitioning: Partitioning | None = None) -> Any:
    """Value and gradients of hidden and kernel; under `partitioning`, sharded like a training step's."""

    def program(*inputs: jax.Array) -> Any:
        return jax.value_and_grad(objective, argnums=(0, 1))(*inputs)

    if partitioning is None:
        return jax.jit(program).lower(*inputs).compile(FUSED)

    def on_mesh(*inputs: jax.Array) -> Any:
        with partitioning:
            return program(*inputs)

    given = places(partitioning)
    out = (partitioning.sharding(()), given[:2])
    return jax.jit(on_mesh, in_shardings=given, out_shardings=out).lower(*inputs).compile(FUSED)


def places(partitioning: Partitioning) -> tuple[Any, ...]:
    """The shardings of `arrays`, as a training step has them."""
    return tuple(partitioning.sharding(axes) for axes in AXES)


def largest_buffer(hlo: str) -> int:
    """Elements of the largest array that a compiled program's text names."""
    return max(math.prod(map(int, dims.split(","))) for dims in re.findall(r"\b[a-z]\w*\[([\d,]+)\]", hlo))


def collectives(hlo: str) -> list[tuple[bool, int]]:
    """Of each collective: whether it is in a loop (not in the entry computation), elements of its largest result."""
    found, in_entry = [], False
    for line in hlo.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            in_entry = line.startswith("ENTRY")
        match = re.search(r"= (.*?) (?:all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\S*\(", line)
        if match:
            sizes = [math.prod(map(int, dims.split(","))) for dims in re.findall(r"\[([\d,]+)\]", match[1])]
            found.append((not in_entry, max(sizes, default=1)))
    return found


def described(program: Any) -> dict[str, Any]:
    """What the tests look at in a compiled program."""
    hlo = program.as_text()
    sizes = {True: [0], False: [0]}
    for in_loop, size in collectives(hlo):
        sizes[in_loop].append(size)
    return {"largest_buffer": largest_buffer(hlo), "sent_in_loop": max(sizes[True]), "sent_once": max(sizes[False])}


_constrain = sharding.constrain


def _gather_vocabulary(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    x = _constrain(x, axes)
    return _constrain(x, ("row_part", None, None)) if axes == ("row_part", None, "vocabulary") else x


def _summed_chunk_gradients(hidden: jax.Array, kernel: jax.Array, d_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    return d_logits @ kernel.T, jnp.einsum("bld,blv->dv", hidden, d_logits)[None]


def main() -> None:
    """Compiles on each mesh given as data,fsdp,tensor; on the first, also in bfloat16 and what the checks must find."""
    result: dict[str, Any] = {}
    for words in sys.argv[1:]:
        data, fsdp, tensor = map(int, words.split(","))
        partitioning = Partitioning(make_mesh(MeshConfig(data, fsdp, tensor=tensor)), MODEL)
        program = compiled(chunked, arrays(), partitioning)
        value, gradients = program(*(jax.device_put(x, p) for x, p in zip(arrays(), places(partitioning), strict=True)))
        result[words] = {
            "devices": jax.device_count(),
            "float32": described(program),
            "value": float(value),
            "gradients": [np.asarray(x).tolist() for x in gradients],
        }
        if len(result) == 1:
            result[words] |= {
                "bfloat16": described(compiled(chunked, arrays("bfloat16"), partitioning)),
                "naive": described(compiled(naive, arrays(), partitioning)),
            }
            with mock.patch.object(sharding, "constrain", _gather_vocabulary):
                result[words]["gathered"] = described(compiled(chunked, arrays(), partitioning))
            with mock.patch.multiple(losses, _row_shards=lambda: 1, _chunk_gradients=_summed_chunk_gradients):
                result[words]["reduced_per_chunk"] = described(compiled(chunked, arrays(), partitioning))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
