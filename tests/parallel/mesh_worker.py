"""Runs gradients and train steps on meshes of eight virtual devices, all in one process, and prints them as JSON.

Nothing here judges; `test_meshes.py` does. By hand, with every mesh of 1, 2, 4 and 8 devices and a verdict on each:

    XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu PYTHONPATH=. python tests/parallel/mesh_worker.py --all
"""  # noqa: E501

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np
from small_runs import EXPERTS, GROUPS, LENGTH, ROWS, packed_rows, run_config

from hephaestus_jax import losses
from hephaestus_jax.architecture import LORA_TARGETS, LoraConfig, YarnRopeScaling
from hephaestus_jax.config import DType, MeshConfig, TrainConfig
from hephaestus_jax.model import attention, experts
from hephaestus_jax.model.attention import Masking
from hephaestus_jax.model.context_attention import in_parts, row_order
from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
from hephaestus_jax.model.lora import trained_and_frozen
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
    "experts": {"num_kv_heads": 2, "experts": EXPERTS},
    "everything": {
        "num_kv_heads": 1, "experts": EXPERTS, "num_layers": 3, "layer_pattern": ("sliding", "unrotated"),
        "sliding_window": 6, "rope_scaling": YarnRopeScaling(4.0, 64, beta_fast=4.0), "tied_embeddings": True,
        "qkv_bias": True, "query_key_norm": "all", "norm_placement": "both", "norm_plus_one": True,
        "activation": "gelu_tanh", "scaled_embedding": True, "attention_scale_dim": 9.0, "attention_softcap": 3.0,
        "logit_softcap": 5.0,
    },
    "adapters": {"num_kv_heads": 2, "tied_embeddings": True, "lora": LoraConfig(3, 6.0, LORA_TARGETS)},
}  # fmt: skip
Case = tuple[tuple[int, ...], str, int]  # (data, fsdp, expert, context, tensor), model, microbatches

# Each model with enough kv heads for `tensor` and with fewer; every axis alone and with others.
CASES: list[Case] = [
    ((8, 1, 1, 1, 1), "untied, 4 kv heads", 2),
    ((1, 1, 1, 1, 8), "untied, 4 kv heads", 1),
    ((1, 2, 1, 2, 2), "untied, 4 kv heads", 2),
    ((1, 8, 1, 1, 1), "tied, 2 kv heads", 1),
    ((1, 1, 1, 2, 4), "tied, 2 kv heads", 2),
    ((1, 1, 8, 1, 1), "experts", 1),
    ((2, 1, 2, 1, 2), "experts", 2),
    ((1, 2, 2, 2, 1), "experts", 1),
    ((1, 1, 2, 2, 2), "everything", 1),
    ((1, 2, 1, 1, 4), "adapters", 2),
]
COLLECTIVES = re.compile(r"\b(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def all_cases() -> Iterator[Case]:
    """Every mesh of 1, 2, 4 and 8 devices, dense and with experts, microbatches taking turns."""
    sizes = [mesh for mesh in itertools.product((1, 2, 4, 8), repeat=5) if np.prod(mesh) <= 8]
    for number, (model, mesh) in enumerate(itertools.product(MODELS, sizes)):
        yield mesh, model, 1 + number % 2


def compare_gradients(cases: list[Case], dtype: DType = "float32") -> Iterator[dict[str, Any]]:
    """Every case against one device without any partitioning, and without microbatches."""
    for model, cases_of_model in itertools.groupby(cases, key=lambda case: case[1]):
        fields = MODELS[model]
        config = run_config(dtype=dtype, **fields)
        shapes = abstract_parameters(config.model, lora=config.lora)
        # larger than at the start of a run, so that attention and predictions are far from uniform
        normal = functools.partial(np.random.default_rng(1).normal, 0, 0.4)
        params = jax.tree.map(lambda x: normal(x.shape).astype(np.float32), shapes)  # noqa: B023
        (base, base_sums), _ = gradients(config, params, None, packed_rows(0))
        for mesh, _, microbatches in cases_of_model:
            config = run_config(MeshConfig(*mesh), microbatches, dtype=dtype, **fields)
            devices = jax.devices()[: int(np.prod(mesh))]
            partitioning = Partitioning(make_mesh(config.mesh, devices), config.model, lora=config.lora)
            batch = on_mesh(packed_rows(0), partitioning)
            (tree, sums), collectives = gradients(config, params, partitioning, batch)
            yield {
                "case": [mesh, model, microbatches],
                "loss": float(np.sum(sums.loss.loss_G) / np.sum(sums.loss.weight_G)),
                "sums": worst(sums, base_sums, lambda x: np.abs(x).max()),
                "gradients": worst(tree, base, np.linalg.norm),
                "arrays": len(flat(tree)),
                "smallest_norm": min(float(np.linalg.norm(x)) for x in flat(base).values()),
                "collectives": collectives,
            }


def gradients(config: TrainConfig, params: Any, partitioning: Partitioning | None, batch: Any) -> tuple[Any, Counter]:
    """Gradient and sums, and how many of each collective the compiled program has."""

    def function(params: Any, batch: Any) -> Any:
        if partitioning is None:
            return gradient_sums(config, GROUPS, params, batch)
        # A vocabulary as small as this one would be summed over devices in one stretch.
        with partitioning, mock.patch.object(losses, "stretch", lambda vocabulary: vocabulary // 2):
            return gradient_sums(config, GROUPS, params, batch)

    shardings = None
    if partitioning is not None:
        of_params = partitioning.tree(parameter_axes(config.model, config.lora))
        shardings = (trained_and_frozen(of_params, config.lora)[0], partitioning.sharding(()))
        params = jax.tree.map(jax.device_put, params, of_params)
    compiled = jax.jit(function, out_shardings=shardings).lower(params, batch).compile()
    return compiled(params, batch), Counter(COLLECTIVES.findall(compiled.as_text()))


def compare_steps() -> dict[str, Any]:
    """Three whole steps on one device and on eight, one key/value head; the shapes that a device holds."""
    found: dict[str, Any] = {}
    for devices, mesh in ((1, MeshConfig(1, 1)), (8, MeshConfig(2, 2, tensor=2))):
        config = run_config(mesh, optimizer="adafactor", num_kv_heads=1)
        partitioning = Partitioning(make_mesh(mesh, jax.devices()[:devices]), config.model)
        abstract = abstract_state(config, partitioning)
        state = init_state(config, abstract)
        first = {name: x.tobytes().hex() for name, x in flat(state.params).items()}
        step = make_train_step(config, partitioning, abstract, GROUPS)
        found_losses = []
        for seed in range(3):
            state, metrics = step(state, on_mesh(packed_rows(seed), partitioning))
            found_losses.append(float(metrics.loss))
        shards = {name: x.addressable_shards[0].data.shape for name, x in named(state)}
        found[str(devices)] = {"losses": found_losses, "first": first, "shards": shards}
    return found


def compare_maskings() -> list[dict[str, Any]]:
    """Attention of rows in parts, window and soft-cap among them, against whole rows on one device."""
    rng = np.random.default_rng(2)
    length, heads = 64, 4
    segments = np.sort(rng.integers(1, 4, (2, length)), axis=1)
    segments[1, 50:] = 0
    cases = [
        (MeshConfig(2, 1, context=4), Masking(), 4, "float32"),
        (MeshConfig(1, 1, context=8), Masking(7), 1, "float32"),
        (MeshConfig(1, 1, context=2, tensor=4), Masking(20, 2.0, 0.5), 2, "float32"),
        (MeshConfig(1, 1, 2, 4), Masking(20, 2.0), 2, "bfloat16"),
    ]
    found = []
    for mesh, masking, kv_heads, dtype in cases:
        shapes = [(2, length, count, 8) for count in (heads, kv_heads, kv_heads, heads)]
        *qkv, weights = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
        model = run_config(num_heads=heads, num_kv_heads=kv_heads).model
        partitioning, order = Partitioning(make_mesh(mesh), model), row_order(length, mesh.context)
        natural = np.argsort(order)

        def parts(*arrays: jax.Array) -> jax.Array:
            with partitioning:  # noqa: B023
                *arrays, ids = (x[:, order] for x in (*arrays, segments))  # noqa: B023
                return in_parts(*arrays, ids, masking, order)[:, natural]  # noqa: B023

        def whole(*arrays: jax.Array) -> jax.Array:
            return attention.reference(*arrays, segments, masking)  # noqa: B023

        on_all = jax.device_put(qkv, partitioning.sharding(()))
        mine, other = (
            jax.jit(jax.grad(lambda *x: (f(*x) * weights).astype("float32").sum(), argnums=(0, 1, 2)))(*arrays)  # noqa: B023
            for f, arrays in ((parts, on_all), (whole, qkv))
        )
        wide = [[np.asarray(x, np.float64) for x in tree] for tree in (mine, other)]
        found.append({"dtype": dtype, "gradients": worst(*wide, np.linalg.norm)})
    return found


def long_rows() -> dict[str, Any]:
    """What a step on one row of 32,768 tokens takes on each of eight devices that share it; compiled, not run."""
    config = run_config(MeshConfig(1, 1, context=8), num_heads=4, num_kv_heads=2, head_dim=64, max_positions=1 << 15)
    config = dataclasses.replace(config, batch_size=1, compute=dataclasses.replace(config.compute, remat="full"))
    partitioning = Partitioning(make_mesh(config.mesh), config.model)
    abstract = abstract_state(config, partitioning)
    step = make_train_step(config, partitioning, abstract, GROUPS)
    memory = step.lower(abstract, abstract_batch(1, 1 << 15, partitioning)).compile().memory_analysis()
    return {"temporary_bytes": memory.temp_size_in_bytes, "scores_bytes": 4 * (1 << 30) * 4 // 8}


def extreme_load() -> dict[str, Any]:
    """The gradients of experts where every token goes to the same two, which one of four devices has."""
    config = run_config(**MODELS["experts"])
    shapes = abstract_parameters(config.model)
    params = jax.tree.map(lambda x: np.random.default_rng(3).normal(0, 0.4, x.shape).astype(np.float32), shapes)
    params["layers"]["mlp_norm"]["scale"] = np.abs(params["layers"]["mlp_norm"]["scale"])
    found = {}
    for name, mesh in (("one", None), ("four", MeshConfig(2, 1, expert=4))):
        with mock.patch.object(experts, "_route", _always_the_same):
            if mesh is None:
                base, _ = gradients(config, params, None, packed_rows(0))
                continue
            partitioning = Partitioning(make_mesh(mesh), config.model)
            tree, _ = gradients(
                run_config(mesh, **MODELS["experts"]), params, partitioning, on_mesh(packed_rows(0), partitioning)
            )
        found[name] = {"gradients": worst(tree[0], base[0], np.linalg.norm), "counts": tree[1].router.counts.tolist()}
    return found


def _always_the_same(config: Any, x_TD: jax.Array, segment_ids_T: jax.Array, router_DE: jax.Array) -> Any:
    biased = x_TD @ router_DE + 100.0 * (np.arange(EXPERTS.num_experts) < 2)
    return _ROUTE(config, biased, segment_ids_T, np.eye(EXPERTS.num_experts, dtype=np.float32))


_ROUTE = experts._route


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


def judge_all(dtype: DType) -> int:
    """Prints a line for every case; the number of those that differ too much."""
    sums, gradient = (1e-6, 1e-5) if dtype == "float32" else (0.02, 0.2)
    failed = 0
    for number, found in enumerate(compare_gradients(list(all_cases()), dtype), start=1):
        good = found["sums"] < sums and found["gradients"] < gradient
        failed += not good
        mesh, model, microbatches = found["case"]
        words = f"{model}, {microbatches} microbatch(es): sums {found['sums']:.1e}, gradients {found['gradients']:.1e}"
        print(f"{number:4} {'good' if good else 'BAD '} {mesh} {words}", flush=True)
    print(f"{failed} of {number} differ too much ({dtype}: sums {sums:g}, gradients {gradient:g}, relative)")
    return failed


if __name__ == "__main__":
    assert jax.device_count() == 8
    if "--all" in sys.argv:
        sys.exit(judge_all("bfloat16" if "bfloat16" in sys.argv else "float32") > 0)
    found = {"gradients": list(compare_gradients(CASES)), "steps": compare_steps(), "maskings": compare_maskings()}
    found["bfloat16"] = list(compare_gradients([((1, 2, 2, 1, 2), "experts", 1)], "bfloat16"))
    print(json.dumps({**found, "long": long_rows(), "extreme": extreme_load()}))
