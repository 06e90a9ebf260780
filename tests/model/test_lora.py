"""Adapters beside a projection's kernel: what they compute, what is trained, and what that takes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_decoders import FLOAT32, config, parameters, rows

from hephaestus_jax.architecture import LORA_TARGETS, ExpertsConfig, LoraConfig
from hephaestus_jax.compile_check.costs import walk
from hephaestus_jax.compile_check.hlo import parse
from hephaestus_jax.config import ComputeConfig, MeshConfig, OptimizerConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.model.decoder import abstract_parameters, decode, init_parameters, output_logits
from hephaestus_jax.model.lora import joined, merged_parameters, trained_and_frozen
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.train_step import abstract_batch, abstract_state, init_state, make_train_step

LORA = LoraConfig(3, 6.0, LORA_TARGETS)
KEY = jax.random.key(5)


def run(lora: LoraConfig | None, **changes) -> TrainConfig:
    model = config(vocab_size=64, embed_dim=32, mlp_dim=48, num_layers=4)
    made = TrainConfig("run", "mixture", model, train_steps=9, batch_size=2, init_from="base", lora=lora)
    return dataclasses.replace(made, **{"compute": FLOAT32, **changes})


# ---- what is asked for


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 0}, "LoraConfig.rank is 0; it must be above 0"),
        ({"alpha": -1.0}, "LoraConfig.alpha is -1.0"),
        ({"targets": ()}, "give different ones of query, key, value, out, gate, up, down"),
        ({"targets": ("query", "query")}, "give different ones"),
        ({"targets": ("q_proj",)}, "give different ones"),
    ],
)
def test_adapters_that_cannot_be(changes, words):
    with pytest.raises(UserError, match=words):
        LoraConfig(**{"rank": 4, "alpha": 8.0, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_from": ""}, "give init_from"),
        ({"init_optimizer": True}, "leave init_optimizer out"),
        ({"optimizer": OptimizerConfig("muon")}, "set it to 'adamw'"),
        ({"model": config(experts=ExpertsConfig(4, 2, 10))}, "gate, up, down, and model 'small' has experts"),
    ],
)
def test_runs_that_cannot_have_adapters(changes, words):
    with pytest.raises(UserError, match=words):
        run(LORA, **changes)


def test_scale():
    assert LoraConfig(16, 32.0).scale == 2.0
    assert LoraConfig(16, 32.0, rank_stabilised=True).scale == 8.0


# ---- what is computed


def test_fresh_adapters_change_nothing():
    model = config()
    fresh = jax.jit(lambda lora: init_parameters(model, KEY, "bfloat16", lora), static_argnums=0)
    plain, adapted = fresh(None), fresh(LORA)
    adapters, frozen = trained_and_frozen(adapted, LORA)
    jax.tree.map(np.testing.assert_array_equal, frozen, plain)
    assert LORA.num_parameters(model) == sum(x.size for x in jax.tree.leaves(adapters))
    assert {x.dtype.name for x in jax.tree.leaves(adapters)} == {"float32"}
    inputs = {"out": model.num_heads * model.head_dim, "down": model.mlp_dim}
    for parent, names in (("attention", LORA_TARGETS[:4]), ("mlp", LORA_TARGETS[4:])):
        for name in names:
            bound = inputs.get(name, model.embed_dim) ** -0.5
            a, b = (np.asarray(adapters["layers"][parent][name][part]) for part in ("lora_a", "lora_b"))
            assert not b.any() and 0.85 * bound < np.abs(a).max() <= bound
            assert abs(a.std() - bound / 3**0.5) < 0.2 * bound and len({*a.ravel().tolist()}) > 0.99 * a.size
    r = rows(model)
    given = (model, FLOAT32, r.tokens, r.segment_ids, r.positions)
    jitted = jax.jit(decode, static_argnums=(1, 2, 6))
    np.testing.assert_array_equal(jitted(plain, *given), jitted(adapted, *given, LORA))


def test_gradients_are_those_of_the_merged_weights():
    """With W' = W + s·A·B, dA = s · dW'·Bᵀ and dB = s · Aᵀ·dW'; for a pattern with a remainder, and remat."""
    model = config(layer_pattern=("sliding", "full"), sliding_window=4, num_layers=3, query_key_norm="head")
    lora = LORA
    shapes, _ = trained_and_frozen(abstract_parameters(model, lora=lora), lora)
    rng = np.random.default_rng(2)
    adapters = jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), shapes)
    params = jax.tree.map(jnp.asarray, joined(parameters(model), adapters))
    whole = merged_parameters(jax.tree.map(jnp.copy, params), lora)
    r = rows(model)

    def objective(trained, frozen, lora, remat="none"):
        compute = dataclasses.replace(FLOAT32, remat=remat)
        params = joined(trained, frozen)
        hidden = decode(params, model, compute, r.tokens, r.segment_ids, r.positions, lora)
        logits = output_logits(params, model, hidden)
        chosen = jnp.take_along_axis(logits, r.targets[..., None], -1)[..., 0]
        return jnp.sum((jax.nn.logsumexp(logits, -1) - chosen) * r.weights)

    loss_and_gradient = jax.jit(jax.value_and_grad(objective), static_argnums=(2, 3))
    trained, frozen = trained_and_frozen(params, lora)
    loss, found = loss_and_gradient(trained, frozen, lora, "full")
    wanted_loss, of_whole = loss_and_gradient(whole, {}, None)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5)
    for parent, projections in found["layers"].items():
        for target, gradient in projections.items():
            kernel, at = of_whole["layers"][parent][target]["kernel"], adapters["layers"][parent][target]
            layers, rank = kernel.shape[0], lora.rank
            a = at["lora_a"].reshape(layers, -1, rank)
            b = at["lora_b"].reshape(layers, rank, -1)
            d = np.asarray(kernel).reshape(layers, a.shape[1], b.shape[2])
            for part, wanted in (("lora_a", d @ b.swapaxes(1, 2)), ("lora_b", a.swapaxes(1, 2) @ d)):
                mine = np.asarray(gradient[part]).reshape(wanted.shape)
                norm = np.linalg.norm(wanted)
                assert np.linalg.norm(mine - lora.scale * wanted) < 1e-4 * lora.scale * norm, (target, part)
                assert norm > 0


# ---- what is trained


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_moments_are_those_of_adapters(kind):
    made = run(LORA, optimizer=OptimizerConfig(kind))
    state = abstract_state(made, Partitioning(make_mesh(MeshConfig()), made.model, lora=LORA))
    named = [(jax.tree_util.keystr(path), x) for path, x in jax.tree.leaves_with_path(state.opt_state)]
    arrays = {name: x for name, x in named if x.ndim > 1}
    assert len(arrays) >= 2 * 14 and all("lora_" in name for name in arrays)
    if kind == "adamw":
        assert sum(x.size for x in arrays.values()) == 2 * LORA.num_parameters(made.model)


def test_a_step_moves_adapters_only():
    made = run(LORA, microbatches=2)
    partitioning = Partitioning(make_mesh(MeshConfig()), made.model, lora=LORA)
    abstract = abstract_state(made, partitioning)
    base = jax.tree.map(jnp.asarray, parameters(made.model))
    before = jax.tree.map(np.array, base)
    state = init_state(made, abstract, {"params": base})
    step = make_train_step(made, partitioning, abstract, 1)
    first = jax.tree.map(np.array, trained_and_frozen(state.params, LORA)[0])
    for seed in range(2):
        state, metrics = step(state, batch(made, seed))
        assert not metrics.bad and metrics.grad_norm > 0
    adapters, frozen = trained_and_frozen(state.params, LORA)
    jax.tree.map(np.testing.assert_array_equal, frozen, before)
    changed = jax.tree.map(lambda old, new: bool((old != np.asarray(new)).any()), first, adapters)
    assert all(jax.tree.leaves(changed)) and len(jax.tree.leaves(changed)) == 14


def batch(made: TrainConfig, seed: int) -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(seed).integers(0, made.model.vocab_size, (made.batch_size, 16), np.int32)
    weights, ones = np.ones(tokens.shape, np.float32), np.ones_like(tokens)
    weights[:, 0] = 0
    positions = np.broadcast_to(np.arange(16, dtype=np.int32), tokens.shape)
    rows = {"tokens": tokens, "segment_ids": ones, "positions": positions, "loss_weights": weights}
    return {**rows, "task_ids": np.zeros(made.batch_size, np.int32)}


def test_nothing_is_computed_or_held_for_frozen_weights():
    """By the compiler's figures: no product gives a gradient of a frozen weight, no moment of one is an argument."""
    found = {}
    for name, lora in (("whole", None), ("adapters", LORA)):
        made = run(lora, compute=ComputeConfig("float32", remat="none"))
        partitioning = Partitioning(make_mesh(MeshConfig()), made.model, lora=lora)
        abstract = abstract_state(made, partitioning)
        step = make_train_step(made, partitioning, abstract, 1)
        compiled = step.lower(abstract, abstract_batch(2, 128, partitioning)).compile()
        found[name] = walk(parse(compiled.as_text())).flops, compiled.memory_analysis(), made
    tokens, weights, adapters = 2 * 128, made.model.num_parameters, LORA.num_parameters(made.model)
    less = found["whole"][0] - found["adapters"][0]
    formulas = [2 * 128 * found[name][2].flops_per_token(128) for name in ("whole", "adapters")]
    assert less == pytest.approx(formulas[0] - formulas[1], rel=1e-3)
    assert formulas[0] - formulas[1] == tokens * (2 * made.model.num_matmul_parameters - 6 * adapters)
    whole, small = (found[name][1] for name in ("whole", "adapters"))
    rows_bytes = whole.argument_size_in_bytes - 3 * 4 * weights  # rows and counters
    assert 0 < rows_bytes < 10_000
    assert small.argument_size_in_bytes == 4 * (weights + 3 * adapters) + rows_bytes
    assert small.alias_size_in_bytes >= 4 * (weights + 3 * adapters), "all of the state is updated where it lies"
    assert small.temp_size_in_bytes < whole.temp_size_in_bytes
