"""Runs gradients and train steps on meshes of eight virtual devices, all in one process, and prints them as JSON.

Nothing here judges; `test_meshes.py` does.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from small_runs import GROUPS, LENGTH, ROWS, packed_rows, run_config

from hephaestus_jax.config import MeshConfig, TrainConfig
from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.train_step import (
    abstract_batch,
    abstract_state,
    gradient_sums,
    init_state,
    make_train_step,
)

MODELS: dict[str, dict[str, Any]] = {
    "untied, 4 kv heads": {"num_kv_heads": 4},
    "tied, 2 kv heads": {"num_kv_heads": 2, "tied_embeddings": True},
}
# (data, fsdp, tensor), model, microbatches: each model with enough kv heads for `tensor` and with fewer
CASES = [
    ((8, 1, 1), "untied, 4 kv heads", 2),
    ((1, 1, 8), "untied, 4 kv heads", 1),
    ((2, 2, 2), "untied, 4 kv heads", 2),
    ((1, 8, 1), "tied, 2 kv heads", 1),
    ((1, 4, 2), "tied, 2 kv heads", 1),
    ((1, 2, 4), "tied, 2 kv heads", 2),
]
COLLECTIVES = re.compile(r"\b(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def compare_gradients() -> list[dict[str, Any]]:
    """Every case against one device without any partitioning."""
    found = []
    for model, fields in MODELS.items():
        shapes = abstract_parameters(run_config(**fields).model)
        # larger than at the start of a run, so that attention and predictions are far from uniform
        normal = functools.partial(np.random.default_rng(1).normal, 0, 0.4)
        params = jax.tree.map(lambda x: normal(x.shape).astype(np.float32), shapes)  # noqa: B023
        (base, base_sums), _ = gradients(run_config(**fields), params, None, packed_rows(0))
        for mesh, _, microbatches in [case for case in CASES if case[1] == model]:
            config = run_config(MeshConfig(*mesh), microbatches, **fields)
            partitioning = Partitioning(make_mesh(config.mesh), config.model)
            batch = on_mesh(packed_rows(0), partitioning)
            (tree, sums), collectives = gradients(config, params, partitioning, batch)
            found.append({
                "case": [mesh, model, microbatches],
                "loss": float(np.sum(sums.loss_G) / np.sum(sums.weight_G)),
                "sums": worst(sums, base_sums, lambda x: np.abs(x).max()),
                "gradients": worst(tree, base, np.linalg.norm),
                "arrays": len(flat(tree)),
                "smallest_norm": min(float(np.linalg.norm(x)) for x in flat(base).values()),
                "collectives": collectives,
            })  # fmt: skip
    return found


def gradients(config: TrainConfig, params: Any, partitioning: Partitioning | None, batch: Any) -> tuple[Any, Counter]:
    """Gradient and sums, and how many of each collective the compiled program has."""

    def function(params: Any, batch: Any) -> Any:
        if partitioning is None:
            return gradient_sums(config, GROUPS, params, batch)
        with partitioning:
            return gradient_sums(config, GROUPS, params, batch)

    shardings = None
    if partitioning is not None:
        shardings = (partitioning.tree(parameter_axes(config.model)), partitioning.sharding(()))
        params = jax.tree.map(jax.device_put, params, shardings[0])
    compiled = jax.jit(function, out_shardings=shardings).lower(params, batch).compile()
    return compiled(params, batch), Counter(COLLECTIVES.findall(compiled.as_text()))


def compare_steps() -> dict[str, Any]:
    """Three whole steps on one device and on eight, one key/value head; the shapes that a device holds."""
    found: dict[str, Any] = {}
    for devices, mesh in ((1, MeshConfig(1, 1, 1)), (8, MeshConfig(2, 2, 2))):
        config = run_config(mesh, optimizer="adafactor", num_kv_heads=1)
        partitioning = Partitioning(make_mesh(mesh, jax.devices()[:devices]), config.model)
        abstract = abstract_state(config, partitioning)
        state = init_state(config, abstract)
        first = {name: x.tobytes().hex() for name, x in flat(state.params).items()}
        step = make_train_step(config, partitioning, abstract, GROUPS)
        losses = []
        for seed in range(3):
            state, metrics = step(state, on_mesh(packed_rows(seed), partitioning))
            losses.append(float(metrics.loss))
        shards = {name: x.addressable_shards[0].data.shape for name, x in named(state)}
        found[str(devices)] = {"losses": losses, "first": first, "shards": shards}
    return found


def on_mesh(rows: dict[str, np.ndarray], partitioning: Partitioning) -> dict[str, jax.Array]:
    shapes = abstract_batch(ROWS, LENGTH, partitioning)
    return {name: jax.device_put(x, shapes[name].sharding) for name, x in rows.items()}


def worst(tree: Any, base: Any, norm: Callable[[np.ndarray], Any]) -> float:
    """The largest difference between arrays of two trees, relative to the norm of the second's."""
    mine, other = flat(tree), flat(base)
    assert mine.keys() == other.keys()
    return max(float(norm(mine[name] - x) / max(norm(x), 1e-30)) for name, x in other.items())


def flat(tree: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in named(tree)}


def named(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in leaves]


if __name__ == "__main__":
    assert jax.device_count() == 8
    print(json.dumps({"gradients": compare_gradients(), "steps": compare_steps()}))
