"""Optimizers against optax, and against NumPy in float64 layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import OPTIMISED

from hephaestus_jax.config import ModelConfig, OptimizerConfig
from hephaestus_jax.model.decoder import parameter_axes
from hephaestus_jax.optimizers import (
    _MATRICES,
    MUON_MOMENTUM,
    MUON_RMS,
    apply_direction,
    clip_scale,
    decayed,
    make_optimizer,
)

V, D, N, H, F = 72, 48, 4, 32, 64
LAYERS = 3
RATE = 3e-3
KINDS = ("adamw", "adafactor", "muon")
MATRICES = {  # of one layer, as [in, out]
    "attention/query": (D, N * H),
    "attention/out": (N * H, D),
    "mlp/gate": (D, F),
}


def shapes(layers: int = LAYERS) -> dict[str, Any]:
    y = layers
    return {
        "embedder": {"embedding": (V, D)},
        "layers": {
            "attention_norm": {"scale": (y, D)},
            "attention": {
                "query": {"kernel": (y, D, N, H)},
                "out": {"kernel": (y, N, H, D)},
            },
            "mlp": {"gate": {"kernel": (y, D, F)}},
        },
        "final_norm": {"scale": (D,)},
        "head": {"kernel": (D, V)},
    }


def random_tree(seed: int, layers: int = LAYERS, scale: float = 1.0) -> Any:
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, shapes(layers), is_leaf=lambda x: isinstance(x, tuple))


def steps_of_gradients(steps: int) -> Iterator[Any]:
    """Gradients whose size differs from step to step and from array to array."""
    for step in range(steps):
        yield random_tree(1000 + step, scale=10.0 ** (-(step % 4)))


def run(config: OptimizerConfig, params: Any, steps: int) -> tuple[Any, Any]:
    optimizer = make_optimizer(config)

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        direction, state = optimizer.update(grads, state, params)
        return apply_direction(params, direction, jnp.float32(RATE)), state

    state = jax.jit(optimizer.init)(params)
    for grads in steps_of_gradients(steps):
        params, state = step(params, state, grads)
    return params, state


def first_direction(config: OptimizerConfig, params: Any, grads: Any) -> Any:
    """The direction of the first step."""
    optimizer = make_optimizer(config)

    def update(grads: Any, params: Any) -> Any:
        return optimizer.update(grads, optimizer.init(params), params)[0]

    return jax.jit(update, compiler_options=OPTIMISED)(grads, params)


def by_path(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float64) for path, leaf in leaves
    }


def largest_difference(a: Any, b: Any) -> float:
    ours, theirs = by_path(a), by_path(b)
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)


def is_decayed(name: str) -> bool:
    return not name.endswith(("scale", "bias"))


def numpy_adamw(params: dict[str, np.ndarray], config: OptimizerConfig, steps: int) -> dict[str, np.ndarray]:
    m = {name: np.zeros_like(p) for name, p in params.items()}
    v = {name: np.zeros_like(p) for name, p in params.items()}
    for step, grads in enumerate(map(by_path, steps_of_gradients(steps)), start=1):
        new = {}
        for name, p in params.items():
            m[name] = config.b1 * m[name] + (1 - config.b1) * grads[name]
            v[name] = config.b2 * v[name] + (1 - config.b2) * grads[name] ** 2
            adam = (m[name] / (1 - config.b1**step)) / (np.sqrt(v[name] / (1 - config.b2**step)) + config.epsilon)
            new[name] = p - RATE * (adam + config.weight_decay * p * is_decayed(name))
        params = new
    return params


# AdamW


def test_twenty_steps_of_adamw_equal_optax_and_numpy() -> None:
    config = OptimizerConfig(kind="adamw", b1=0.9, b2=0.95, weight_decay=0.3)
    params = random_tree(0)
    ours, _ = run(config, params, 20)
    theirs = optax.adamw(RATE, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.3, mask=decayed)
    state, reference = theirs.init(params), params
    update = jax.jit(theirs.update)
    for grads in steps_of_gradients(20):
        updates, state = update(grads, state, reference)
        reference = optax.apply_updates(reference, updates)
    assert largest_difference(ours, reference) <= 1e-6
    in_float64 = numpy_adamw(by_path(params), config, 20)
    found = by_path(ours)
    assert max(np.abs(found[name] - in_float64[name]).max() for name in found) <= 2e-6
    undecayed = numpy_adamw(by_path(params), OptimizerConfig(b1=0.9, b2=0.95, weight_decay=0.0), 20)
    assert np.abs(found["head/kernel"] - undecayed["head/kernel"]).max() > 1e-2  # the comparison sees decay


def test_a_step_of_adamw_is_bitwise_optax() -> None:
    """Uncompiled, so that nothing is fused differently."""
    params, grads = ({"head": {"kernel": random_tree(seed)["head"]["kernel"]}} for seed in (0, 1))
    config = OptimizerConfig(b2=0.99)
    direction, _ = make_optimizer(config).update(grads, make_optimizer(config).init(params), params)
    theirs = optax.adamw(1.0, b1=config.b1, b2=0.99, weight_decay=config.weight_decay, mask=decayed)
    updates, _ = theirs.update(grads, theirs.init(params), params)
    assert largest_difference(direction, jax.tree.map(jnp.negative, updates)) == 0.0


def test_bfloat16_first_moments_keep_their_decay_rate() -> None:
    """The moment of noisy gradients has the size that it has in float32; with optax's `mu_dtype` it is 14 % smaller."""
    ours = OptimizerConfig(b1=0.99, weight_decay=0.0, moment_dtype="bfloat16")
    optimizers = {
        "ours": make_optimizer(ours),
        "float32": make_optimizer(dataclasses.replace(ours, moment_dtype="float32")),
        "optax": optax.scale_by_adam(ours.b1, ours.b2, mu_dtype=jnp.bfloat16),
    }

    @jax.jit
    def direction_after(noise: jax.Array) -> dict[str, jax.Array]:
        found = {}
        for name, optimizer in optimizers.items():
            params = {"x": jnp.zeros(noise.shape[1])}

            def step(state: Any, noise: jax.Array, optimizer: Any = optimizer, params: Any = params) -> tuple[Any, Any]:
                direction, state = optimizer.update({"x": 1 + noise}, state, params)
                return state, direction["x"]

            found[name] = jax.lax.scan(step, optimizer.init(params), noise)[1][-1]
        return found

    noise = jnp.asarray(np.random.default_rng(0).standard_normal((400, 2000)), jnp.float32)
    found = {name: np.asarray(x, np.float64) for name, x in direction_after(noise).items()}
    right = found["float32"]
    size = {name: float(x @ right / (right @ right)) for name, x in found.items()}
    assert abs(size["ours"] - 1) < 0.005
    assert size["optax"] < 0.9


# What all kinds share


@pytest.mark.parametrize("kind", KINDS)
def test_weight_decay_spares_norms_and_biases(kind: str) -> None:
    """With gradients of zero, the direction is the decay alone."""
    params = random_tree(0)
    params["layers"]["mlp"]["bias"] = jnp.ones((LAYERS, F))
    config = OptimizerConfig(kind=kind, weight_decay=0.25)  # type: ignore[arg-type]
    direction = first_direction(config, params, jax.tree.map(np.zeros_like, params))
    before = by_path(params)
    for name, found in by_path(direction).items():
        expected = 0.25 * before[name] if is_decayed(name) else np.zeros_like(found)
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment_dtype", ["float32", "bfloat16"])
def test_dtypes_of_the_state(kind: str, moment_dtype: str) -> None:
    """First moments as told, all else float32, whatever the parameters are; a step changes no shape and no dtype."""
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), random_tree(0))
    optimizer = make_optimizer(OptimizerConfig(kind=kind, moment_dtype=moment_dtype))  # type: ignore[arg-type]
    state = jax.eval_shape(optimizer.init, params)
    direction, after = jax.eval_shape(optimizer.update, params, state, params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert {leaf.dtype for leaf in jax.tree.leaves(direction)} == {jnp.dtype("float32")}
    moments = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        is_first = ".mu[" in name
        moments += is_first
        assert leaf.dtype == (moment_dtype if is_first else "int32" if "count" in name else "float32"), name
    assert moments == (0 if kind == "adafactor" else len(jax.tree.leaves(params)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_descends(kind: str) -> None:
    params = random_tree(0)
    target = random_tree(5)

    def distance(params: Any) -> jax.Array:
        return sum(jnp.mean(jnp.square(a - b)) for a, b in zip(*map(jax.tree.leaves, (params, target)), strict=True))

    optimizer = make_optimizer(OptimizerConfig(kind=kind, weight_decay=0.0))  # type: ignore[arg-type]

    @jax.jit
    def direction_of(params: Any, state: Any) -> tuple[Any, Any]:
        return optimizer.update(jax.grad(distance)(params), state, params)

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        direction, state = direction_of(params, state)
        return apply_direction(params, direction, jnp.float32(0.1)), state

    state, moved = optimizer.init(params), params
    for _ in range(12):
        moved, state = step(moved, state)
    assert float(distance(moved)) < 0.6 * float(distance(params))


@pytest.mark.parametrize("kind", KINDS)
def test_no_layer_depends_on_another(kind: str) -> None:
    """Layers in another order move in that order, and by as much."""
    optimizer = make_optimizer(OptimizerConfig(kind=kind))  # type: ignore[arg-type]
    update = jax.jit(lambda grads, params: optimizer.update(grads, optimizer.init(params), params)[0])

    def reorder(tree: Any) -> Any:
        return {**tree, "layers": jax.tree.map(lambda x: np.asarray(x)[[2, 0, 1]], tree["layers"])}

    params, grads = random_tree(0), random_tree(1)
    assert largest_difference(reorder(update(grads, params)), update(reorder(grads), reorder(params))) < 1e-6


def test_an_update_of_bfloat16_parameters_is_computed_in_float32() -> None:
    params = {"w": jnp.array([1.0, 256.0], jnp.bfloat16)}
    moved = apply_direction(params, {"w": jnp.array([1.0, 1.0])}, jnp.float32(0.01))
    assert moved["w"].dtype == jnp.bfloat16
    assert moved["w"].tolist() == [float(jnp.bfloat16(0.99)), 256.0]


# Clipping


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_clipping_is_that_of_optax(size: float) -> None:
    grads = {"a": jnp.asarray(size * np.random.default_rng(3).standard_normal((2, 500)), jnp.float32)}
    norm = optax.global_norm(grads)
    expected, _ = optax.clip_by_global_norm(0.7).update(grads, optax.EmptyState())
    scale = clip_scale(norm, OptimizerConfig(clip_norm=0.7))
    found = jax.tree.map(lambda g: g * scale, grads)
    np.testing.assert_allclose(found["a"], expected["a"], rtol=3e-7)
    assert float(optax.global_norm(found)) == pytest.approx(min(0.7, float(norm)), rel=1e-5)


def test_clipping_none_and_what_is_not_finite() -> None:
    assert float(clip_scale(jnp.float32(50.0), OptimizerConfig(clip_norm=0.0))) == 1.0
    assert not np.isfinite(float(clip_scale(jnp.float32(jnp.nan), OptimizerConfig(clip_norm=1.0))))
    assert float(clip_scale(jnp.float32(0.0), OptimizerConfig(clip_norm=1.0))) == 1.0


# Adafactor


def test_adafactor_is_optax_on_each_layer() -> None:
    """Even with more layers than any other axis is long, nothing is factored over layers."""
    layers = 80
    params, config = random_tree(0, layers), OptimizerConfig(kind="adafactor", weight_decay=0.0)
    optimizer = make_optimizer(config)
    state, update = jax.jit(optimizer.init)(params), jax.jit(optimizer.update)
    alone = optax.chain(optax.scale_by_factored_rms(min_dim_size_to_factor=32), optax.clip_by_block_rms(1.0))
    layer = lambda tree: jax.tree.map(lambda x: x[7], tree["layers"])  # noqa: E731
    lone_state, lone_update = alone.init(layer(params)), jax.jit(alone.update)
    for seed in range(3):
        grads = random_tree(seed, layers, scale=10.0**-seed)
        direction, state = update(grads, state, params)
        lone_direction, lone_state = lone_update(layer(grads), lone_state, layer(params))
        assert largest_difference(layer(direction), lone_direction) <= 1e-6
    stacked = state[0].inner_states["layers"].inner_state[0]
    for leaf in jax.tree.leaves(stacked):
        assert leaf.shape[0] == layers


def test_adafactor_factors_matrices_and_heads() -> None:
    """The first step against the paper's formula, in float64; and the size of what is kept."""
    params, grads = random_tree(0), random_tree(1)
    config = OptimizerConfig(kind="adafactor", weight_decay=0.0)
    direction = by_path(first_direction(config, params, grads))
    g = by_path(grads)

    def expected(grad: np.ndarray) -> np.ndarray:  # [..., in, out]
        square = grad**2 + 1e-30
        rows, columns = square.mean(-1, keepdims=True), square.mean(-2, keepdims=True)
        return grad / np.sqrt(rows * columns / rows.mean(-2, keepdims=True))

    def clipped(update: np.ndarray) -> np.ndarray:
        return update / max(1.0, float(np.sqrt((update**2).mean())))

    for layer in range(LAYERS):
        gate = clipped(expected(g["layers/mlp/gate/kernel"][layer]))
        np.testing.assert_allclose(direction["layers/mlp/gate/kernel"][layer], gate, rtol=1e-5)
        heads = g["layers/attention/query/kernel"][layer].transpose(1, 0, 2)  # [N, D, H]
        query = clipped(expected(heads)).transpose(1, 0, 2)
        np.testing.assert_allclose(direction["layers/attention/query/kernel"][layer], query, rtol=1e-5)
    np.testing.assert_allclose(direction["head/kernel"], clipped(expected(g["head/kernel"])), rtol=1e-5)
    kept = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(make_optimizer(config).init, params)))
    assert kept < 0.1 * sum(leaf.size for leaf in jax.tree.leaves(params))


# Muon


def numpy_muon(grads: list[np.ndarray]) -> np.ndarray:
    """The direction of one [in, out] matrix after these gradients, in float64, without decay."""
    m = np.zeros_like(grads[0])
    for step, grad in enumerate(grads, start=1):
        m = MUON_MOMENTUM * m + (1 - MUON_MOMENTUM) * grad
        ahead = m / (1 - MUON_MOMENTUM ** (step + 1))
        x = MUON_MOMENTUM * ahead + (1 - MUON_MOMENTUM) * grad / (1 - MUON_MOMENTUM**step)
    x /= np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return MUON_RMS * np.sqrt(max(x.shape)) * x


@pytest.mark.parametrize("moment_dtype", ["float32", "bfloat16"])
def test_muon_orthogonalises_each_layers_matrix(moment_dtype: str) -> None:
    params = random_tree(0)
    optimizer = make_optimizer(OptimizerConfig(kind="muon", weight_decay=0.0, moment_dtype=moment_dtype))  # type: ignore[arg-type]
    state, update = jax.jit(optimizer.init)(params), jax.jit(optimizer.update)
    history = list(steps_of_gradients(3))
    for grads in history:
        direction, state = update(grads, state, params)
    found = by_path(direction)
    for name, (rows, columns) in MATRICES.items():
        for layer in range(LAYERS):
            matrix = found[f"layers/{name}/kernel"][layer].reshape(rows, columns)
            singular = np.linalg.svd(matrix, compute_uv=False) / (MUON_RMS * np.sqrt(max(rows, columns)))
            assert singular.min() > 0.6 and singular.max() < 1.25, name
            alone = [by_path(g)[f"layers/{name}/kernel"][layer].reshape(rows, columns) for g in history]
            tolerance = 1e-5 if moment_dtype == "float32" else 2e-2
            np.testing.assert_allclose(matrix, numpy_muon(alone), atol=tolerance, err_msg=name)
            assert np.sqrt((matrix**2).mean()) == pytest.approx(MUON_RMS, rel=0.25)


def test_muon_leaves_embeddings_head_and_norms_to_adamw() -> None:
    params, grads = random_tree(0), random_tree(1)
    of_kind = {kind: by_path(first_direction(OptimizerConfig(kind=kind), params, grads)) for kind in ("muon", "adamw")}  # type: ignore[arg-type]
    for name in ("embedder/embedding", "head/kernel", "final_norm/scale", "layers/attention_norm/scale"):
        np.testing.assert_array_equal(of_kind["muon"][name], of_kind["adamw"][name])
    assert not np.allclose(of_kind["muon"]["layers/mlp/gate/kernel"], of_kind["adamw"]["layers/mlp/gate/kernel"])


def test_muon_knows_every_weight_of_the_decoder() -> None:
    """And which of its axes is the embedding's side: the input, but for the two weights that write back to it."""
    model = ModelConfig("test", V, D, F, LAYERS, num_heads=N, num_kv_heads=2, head_dim=H)
    found = 0
    for path, axes in jax.tree_util.tree_leaves_with_path(
        parameter_axes(model), is_leaf=lambda x: isinstance(x, tuple)
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not name.startswith("layers/") or name.endswith("scale"):
            continue
        sides = [[axes[1 + axis] for axis in side] for side in _MATRICES[tuple(name.split("/")[-2:])]]
        inputs, outputs = reversed(sides) if name.split("/")[-2] in ("out", "down") else sides
        assert inputs == ["embed"] and {"layers", *inputs, *outputs} == set(axes)
        found += 1
    assert found == 7


def test_muon_refuses_a_weight_whose_sides_it_does_not_know() -> None:
    params = {"layers": {"mlp": {"mixer": {"kernel": jnp.ones((2, 4, 4))}}}}
    optimizer = make_optimizer(OptimizerConfig(kind="muon"))
    with pytest.raises(KeyError, match="mixer"):
        optimizer.update(params, optimizer.init(params), params)


def test_muon_takes_each_expert_s_matrix_by_itself_and_leaves_the_router_to_adamw():
    rng = np.random.default_rng(0)
    gate, router = rng.standard_normal((LAYERS, 2, D, F)), rng.standard_normal((LAYERS, D, 2))
    config = OptimizerConfig("muon", weight_decay=0.0)

    def direction(tree: Any, kind: str = "muon") -> Any:
        tree = {"layers": jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)}
        optimizer = make_optimizer(dataclasses.replace(config, kind=kind))
        return optimizer.update(tree, optimizer.init(tree), tree)[0]["layers"]

    both = direction({"experts": {"gate": {"kernel": gate}, "router": {"kernel": router}}})["experts"]
    for expert in range(2):
        alone = direction({"mlp": {"gate": {"kernel": gate[:, expert]}}})["mlp"]["gate"]["kernel"]
        np.testing.assert_allclose(both["gate"]["kernel"][:, expert], alone, atol=1e-5)
    adamw = direction({"experts": {"router": {"kernel": router}}}, "adamw")["experts"]["router"]["kernel"]
    np.testing.assert_allclose(both["router"]["kernel"], adamw, atol=1e-6)
