"""Programs whose costs are known, compiled for 8 virtual CPU devices; prints one JSON object for `test_costs.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from hephaestus_jax.compile_check.costs import walk
from hephaestus_jax.compile_check.hlo import parse

M, K, N, B = 24, 40, 56, 6
DOT = 2 * M * K * N


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    return a @ b


def batched(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum("bmk,bkn->bmn", a, b)


def two_contracted(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum("bmk,bkn->mn", a, b)


def scanned(x: jax.Array, weights: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]


def nested(x: jax.Array, weights: jax.Array) -> jax.Array:
    """5 times, each going over all weights."""
    return jax.lax.fori_loop(0, 5, lambda _, x: scanned(x, weights), x)


def in_steps(x: jax.Array, w: jax.Array) -> jax.Array:
    """3, 5, 7, ... up to 20: 9 times."""

    def body(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return state[0] + 2, jnp.tanh(state[1] @ w)

    return jax.lax.while_loop(lambda state: state[0] <= 20, body, (jnp.int32(3), x))[1]


def until_small(x: jax.Array, w: jax.Array) -> jax.Array:
    """Nobody knows how often."""
    return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: jnp.tanh(x @ w), x)


def either(which: jax.Array, x: jax.Array, w: jax.Array) -> jax.Array:
    """One product or two."""
    return jax.lax.cond(which > 0, lambda: jnp.tanh(x @ w) @ w, lambda: x @ w)


def remat(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Gradient of three layers, each computed again: 2 + 4 products a layer, and those computed again."""

    def loss(weights: jax.Array, x: jax.Array) -> jax.Array:
        layer = jax.checkpoint(lambda x, w: (jnp.sin(jnp.sin(x @ w) @ w), None), prevent_cse=False)
        return jnp.sum(jax.lax.scan(layer, x, weights)[0])

    return jax.grad(loss)(weights, x)


def convolution(x: jax.Array, w: jax.Array) -> jax.Array:
    """Length 10, a window of 3 that reaches 1 beyond each end: 28 of 30 places are of the input."""
    return jax.lax.conv_general_dilated(x, w, (1,), [(1, 1)])


def shapes(*sizes: tuple[int, ...]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]


PROGRAMS: dict[str, tuple[Callable[..., Any], list[jax.ShapeDtypeStruct]]] = {
    "product": (product, shapes((M, K), (K, N))),
    "batched": (batched, shapes((B, M, K), (B, K, N))),
    "two_contracted": (two_contracted, shapes((B, M, K), (B, K, N))),
    "scanned": (scanned, shapes((M, K), (7, K, K))),
    "nested": (nested, shapes((M, K), (7, K, K))),
    "in_steps": (in_steps, shapes((M, K), (K, K))),
    "until_small": (until_small, shapes((M, K), (K, K))),
    "either": (either, shapes((), (M, K), (K, K))),
    "remat": (remat, shapes((M, K), (3, K, K))),
    "convolution": (convolution, shapes((B, K, 10), (N, K, 3))),
}


def collectives() -> dict[str, Any]:
    """On a mesh of 2 × 4, each in a loop of 3."""
    mesh = jax.make_mesh((2, 4), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)

    def looped(body: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        return lambda x: jax.lax.fori_loop(0, 3, lambda _, x: jnp.cos(body(x)), x)

    ring = [(i, (i + 1) % 4) for i in range(4)]
    bodies: dict[str, Callable[[jax.Array], jax.Array]] = {
        "all-reduce": lambda x: jax.lax.psum(x, "data"),
        "all-reduce both": lambda x: jax.lax.psum(x, ("data", "tensor")),
        "all-gather": lambda x: jnp.sum(jax.lax.all_gather(jnp.sin(x), "tensor"), axis=0),
        "reduce-scatter": lambda x: jnp.tile(jax.lax.psum_scatter(jnp.sin(x), "tensor", tiled=True), (4, 1)),
        "collective-permute": lambda x: jax.lax.ppermute(x, "tensor", ring),
        "all-to-all": lambda x: jax.lax.all_to_all(x, "tensor", 0, 0, tiled=True),
    }
    found = {}
    whole = PartitionSpec(("data", "tensor"))
    x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=NamedSharding(mesh, whole))  # 8 × 16 on a device
    for name, body in bodies.items():
        function = jax.shard_map(looped(body), mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
        costs = walk(parse(jax.jit(function).lower(x).compile().as_text()))
        found[name] = [
            [c.kind, [str(a) for a in c.arrays], c.times, c.payload, c.sent, list(c.groups.axes(dict(mesh.shape)))]
            for c in costs.collectives
        ]
    return found


def main() -> None:
    found: dict[str, Any] = {"devices": jax.device_count(), "collectives": collectives()}
    for name, (function, arguments) in PROGRAMS.items():
        compiled = jax.jit(function).lower(*arguments).compile()
        module = parse(compiled.as_text())
        costs, once = walk(module), walk(module, loops=False)
        found[name] = {
            "flops": costs.flops,
            "once": once.flops,
            "compiler": compiled.cost_analysis()["flops"],
            "unknown_loops": costs.unknown_loops,
            "hbm_bytes": costs.hbm_bytes,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
