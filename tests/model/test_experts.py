"""Experts against what they are by definition, one token and one expert after the other, and against transformers."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec
from small_decoders import FLOAT32, config, jitted_loss_and_gradients, parameters, rows

from hephaestus_jax.config import ExpertsConfig, LossConfig, MeshConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.losses import load_balancing, router_z_loss
from hephaestus_jax.model import experts, grouped_products
from hephaestus_jax.model.decoder import abstract_parameters, decode
from hephaestus_jax.model.experts import Matrices
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.train_step import gradient_sums

D, F, E = 12, 10, 6
TOKENS = (2, 9)
MIXTURE = ExpertsConfig(num_experts=E, experts_per_token=3, mlp_dim=F)
DEVICE = experts._Device(MIXTURE, grouped_products.tiled)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 0, 0, 0], [5] * 9])


def weights(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"router": (D, E), "gate": (E, D, F), "up": (E, D, F), "down": (E, F, D)}
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def inputs(seed=1):
    return np.random.default_rng(seed).normal(0, 1, (*TOKENS, D)).astype(np.float32)


def by_definition(x_D, weights, mixture):
    """One token's feed-forward in float64."""
    logits = x_D @ weights["router"]
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    chosen = sorted(range(E), key=lambda expert: -probabilities[expert])[: mixture.experts_per_token]
    total = sum(probabilities[chosen]) if mixture.normalise else 1.0
    y_D = np.zeros(D)
    for expert in chosen:
        gate, up = x_D @ weights["gate"][expert], x_D @ weights["up"][expert]
        y_D += probabilities[expert] / total * ((gate / (1 + np.exp(-gate)) * up) @ weights["down"][expert])
    return y_D


def dense(x_BLD, weights, mixture):
    """Every token through every expert, in jax: for gradients."""
    probabilities = jax.nn.softmax(x_BLD @ weights["router"], axis=-1)
    lowest = jax.lax.top_k(probabilities, mixture.experts_per_token)[0][..., -1:]
    shares = jnp.where(probabilities >= lowest, probabilities, 0)
    if mixture.normalise:
        shares = shares / shares.sum(-1, keepdims=True)
    gate, up = (jnp.einsum("bld,edf->blef", x_BLD, weights[name]) for name in ("gate", "up"))
    return jnp.einsum("blef,efd,ble->bld", jax.nn.silu(gate) * up, weights["down"], shares)


def ours(x_BLD, weights, mixture, grouped):
    matrices = Matrices(weights["gate"], weights["up"], weights["down"])
    return experts.feed_forward(x_BLD, SEGMENTS, weights["router"], matrices, mixture, grouped)


def gradients(function, x_BLD, weights, cotangent):
    return jax.jit(jax.grad(lambda x, w: jnp.sum(function(x, w) * cotangent), argnums=(0, 1)))(x_BLD, weights)


def assert_close(found, expected, tolerance=2e-6):
    for mine, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(mine - other).max() <= tolerance * np.abs(other).max()


WAYS = {
    "ragged_dot": grouped_products.ragged_dot,
    "tiled": grouped_products.tiled,
    "megablox": functools.partial(grouped_products.megablox, interpret=True),
}


def test_no_product_goes_untested():
    assert WAYS.keys() == grouped_products.PRODUCTS.keys()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize(
    "mixture", [MIXTURE, ExpertsConfig(E, 2, F, normalise=False)], ids=["of 3", "of 2, as they are"]
)
def test_every_token_is_its_experts_sum(name, mixture):
    x, w = inputs(), weights()
    grouped = WAYS[name]
    y, sums = jax.jit(functools.partial(ours, mixture=mixture, grouped=grouped))(x, w)
    wide = {name: array.astype(np.float64) for name, array in w.items()}
    expected = [[by_definition(token, wide, mixture) for token in row] for row in x.astype(np.float64)]
    assert_close(y, np.array(expected))
    cotangent = inputs(2)
    found = gradients(lambda x, w: ours(x, w, mixture, grouped)[0], x, w, cotangent)
    assert_close(found, gradients(lambda x, w: dense(x, w, mixture), x, w, cotangent))
    assert int(sums.counts.sum()) == 15 * mixture.experts_per_token  # of 18 tokens three are padding
    assert float(sums.probabilities.sum()) == pytest.approx(15)


@pytest.mark.parametrize("load", ["even", "all to three", "none here"])
@pytest.mark.parametrize("size", [8, 40])
def test_rounds_add_up_to_the_whole_whatever_the_load(load, size):
    """As on a device that has experts 2 to 5 of six, with fewer rows to a round than there may be pairs."""
    rng = np.random.default_rng(3)
    x, shares = rng.normal(size=(18, D)).astype(np.float32), rng.uniform(0.1, 1, (18, 3)).astype(np.float32)
    chosen = np.stack([rng.permutation(6)[:3] for _ in range(18)]) - 2
    chosen = {"even": chosen, "all to three": np.tile([3, 0, 2], (18, 1)), "none here": np.tile([-1, -2, 4], (18, 1))}[
        load
    ]
    matrices = Matrices(*(weights()[name][2:] for name in ("gate", "up", "down")))

    def total(rows, x, shares, matrices):
        y = experts._compute(DEVICE, rows, x, shares, jnp.asarray(chosen), matrices)
        return jnp.sum(y * inputs(4).reshape(18, D)), y

    def run(rows):
        function = jax.value_and_grad(functools.partial(total, rows), argnums=(0, 1, 2), has_aux=True)
        return jax.jit(function)(x, shares, matrices)

    (_, y), found = run(size)
    (_, expected), others = run(54)
    assert np.abs(expected).max() > (0 if load == "none here" else 1) - 1e-9
    assert_close((y, found), (expected, others))
    if load == "all to three":
        assert (np.abs(np.asarray(y)).sum(axis=-1) > 0.01).all()  # every token got something


@given(st.lists(st.integers(0, 40), min_size=1, max_size=7))
@settings(max_examples=10, deadline=None)
def test_grouped_products_of_any_sizes(sizes):
    rng = np.random.default_rng(0)
    rows = np.pad(rng.normal(size=(sum(sizes), 5)), ((0, 80 * 7 - sum(sizes)), (0, 0)), constant_values=np.nan)
    matrices, sizes = rng.normal(size=(7, 5, 3)), np.array(sizes + [0] * (7 - len(sizes)))
    group = np.repeat(np.arange(7), sizes)
    cotangent = rng.normal(size=(len(rows), 3))

    out, pull = jitted_tiled(rows.astype(np.float32), matrices.astype(np.float32), sizes)
    d_rows, d_matrices = pull(cotangent.astype(np.float32))
    count = len(group)
    np.testing.assert_allclose(out[:count], np.einsum("rd,rdf->rf", rows[:count], matrices[group]), atol=1e-5)
    np.testing.assert_allclose(d_rows[:count], np.einsum("rf,rdf->rd", cotangent[:count], matrices[group]), atol=1e-5)
    expected = np.zeros_like(matrices)
    np.add.at(expected, group, np.einsum("rd,rf->rdf", rows[:count], cotangent[:count]))
    np.testing.assert_allclose(d_matrices, expected, atol=1e-4)


@jax.jit
def jitted_tiled(rows, matrices, sizes):
    return jax.vjp(lambda rows, matrices: grouped_products.tiled(rows, matrices, sizes), rows, matrices)


def test_an_unknown_product_is_one_clear_line():
    with pytest.raises(
        UserError, match="ComputeConfig.experts is 'dense'; known are auto, ragged_dot, tiled, megablox"
    ):
        grouped_products.choose("dense", "cpu")


# The model


SMALL = config(experts=ExpertsConfig(num_experts=5, experts_per_token=2, mlp_dim=7))


def test_parameters_and_products_are_counted():
    shapes = abstract_parameters(SMALL)
    assert SMALL.num_parameters == sum(x.size for x in jax.tree.leaves(shapes))
    assert {name: x.shape for name, x in shapes["layers"]["experts"]["gate"].items()} == {"kernel": (2, 5, 12, 7)}
    # of 5 experts a token uses 2; the embedding is looked up, norms are no products
    idle = 2 * 3 * 3 * 12 * 7
    assert SMALL.num_matmul_parameters == SMALL.num_parameters - idle - 5 * 12 - 29 * 12
    attention = 6 * 2 * 4 * 8 * 100
    assert SMALL.flops_per_token(100) == 6 * SMALL.num_matmul_parameters + attention


def test_qwen3_30b_a3b_is_counted_as_its_makers_do():
    mixture = ExpertsConfig(128, 8, 768)
    model = dataclasses.replace(
        SMALL, vocab_size=151936, embed_dim=2048, num_layers=48, num_heads=32, num_kv_heads=4, head_dim=128,
        experts=mixture,
    )  # fmt: skip
    assert round(model.num_parameters / 1e9, 1) == 30.5
    # "3.3B activated", the embedding among them
    assert model.num_matmul_parameters + 151936 * 2048 == pytest.approx(3.3e9, rel=0.02)


def test_remat_changes_nothing():
    params, batch = parameters(SMALL), rows(SMALL)
    plain = jitted_loss_and_gradients(params, SMALL, FLOAT32, batch)
    again = jitted_loss_and_gradients(params, SMALL, dataclasses.replace(FLOAT32, remat="full"), batch)
    assert_close(again, plain, 1e-5)


def test_the_loss_in_bfloat16_is_near():
    params, batch = parameters(SMALL), rows(SMALL)
    loss, gradient = jitted_loss_and_gradients(params, SMALL, dataclasses.replace(FLOAT32, dtype="bfloat16"), batch)
    exact, _ = jitted_loss_and_gradients(params, SMALL, FLOAT32, batch)
    assert float(loss) == pytest.approx(float(exact), rel=0.05)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def run_config(microbatches=1, **coefficients):
    return TrainConfig(
        run_dir="unused", mixture="unused", model=SMALL, train_steps=1, batch_size=4, microbatches=microbatches,
        compute=FLOAT32, loss=LossConfig(**coefficients),
    )  # fmt: skip


@functools.cache  # made outside of anything that is traced
def batch():
    first, second = rows(SMALL, 1), rows(SMALL, 2)
    arrays = {
        "tokens": np.concatenate([first.tokens, second.tokens[:1]]),
        "segment_ids": np.concatenate([first.segment_ids, second.segment_ids[:1]]),
        "positions": np.concatenate([first.positions, second.positions[:1]]),
        "loss_weights": np.concatenate([first.weights, second.weights[:1]]).astype(np.float32),
        "task_ids": np.zeros(4, np.int32),
    }
    return {name: jnp.asarray(x) for name, x in arrays.items()}


def test_the_router_s_losses_are_those_of_the_whole_batch_in_any_number_of_microbatches():
    params, coefficients = parameters(SMALL), {"load_balancing": 0.7, "router_z": 0.3}
    one, sums = jax.jit(functools.partial(gradient_sums, run_config(1, **coefficients), 1))(params, batch())
    two, sums_of_two = jax.jit(functools.partial(gradient_sums, run_config(2, **coefficients), 1))(params, batch())
    without, _ = jax.jit(functools.partial(gradient_sums, run_config(1), 1))(params, batch())
    assert_close((two, sums_of_two), (one, sums), 1e-5)
    # and they are what is added: the gradient of the router's losses by themselves, written out
    weight = float(batch()["loss_weights"][:, 1:].sum())

    def of_router(params):
        probabilities_YTE, logits_YTE = router_of(params)
        chosen = jax.lax.top_k(jax.lax.stop_gradient(probabilities_YTE), 2)[1]
        shares_YE = jax.nn.one_hot(chosen, 5).sum(2).mean(1)
        balance = (5 * (shares_YE * probabilities_YTE.mean(1)).sum(-1)).mean()
        return weight * (0.7 * balance + 0.3 * jnp.square(jax.nn.logsumexp(logits_YTE, -1)).mean())

    expected = jax.jit(jax.grad(of_router))(params)
    difference = jax.tree.map(lambda x, y: x - y, one, without)
    router = difference["layers"]["experts"]["router"]["kernel"]
    assert np.abs(router).max() > 0.1
    assert_close(router, expected["layers"]["experts"]["router"]["kernel"], 1e-3)  # of differences of float32 numbers
    assert_close(difference["layers"]["attention"]["out"], expected["layers"]["attention"]["out"], 1e-3)


def router_of(params):
    """Probabilities and logits of every layer's router at the tokens that are no padding, [Y, T, E]."""
    seen = []
    original = experts._route

    def watched(config, x_TD, segment_ids_T, router_DE):
        seen.append(x_TD @ router_DE)
        return original(config, x_TD, segment_ids_T, router_DE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experts, "_route", watched)
        patch.setattr(jax.lax, "scan", unrolled)
        rows = batch()
        decode(params, SMALL, FLOAT32, rows["tokens"], rows["segment_ids"], rows["positions"])
    logits = jnp.stack(seen)[:, np.flatnonzero(np.asarray(rows["segment_ids"]))]
    return jax.nn.softmax(logits, -1), logits


def unrolled(step, carry, xs):
    ys = []
    for index in range(len(jax.tree.leaves(xs)[0])):
        carry, y = step(carry, jax.tree.map(lambda x: x[index], xs))  # noqa: B023
        ys.append(y)
    return carry, jax.tree.map(lambda *y: jnp.stack(y), *ys)


def test_losses_of_the_router_need_experts():
    with pytest.raises(UserError, match="LossConfig.router_z is 0.1, and the model has no experts; set it to 0"):
        dataclasses.replace(run_config(router_z=0.1), model=config())


@pytest.mark.parametrize("sizes, message", [
    ({"expert": 2}, "experts of 5 does not divide over mesh axes expert=2; choose expert so that it divides Experts"),
    ({"tensor": 2}, "expert_mlp of 7 does not divide over mesh axes tensor=2; choose tensor so that it divides Exp"),
])  # fmt: skip
def test_a_mesh_that_does_not_divide_the_experts_is_refused(sizes, message):
    from jax.sharding import AbstractMesh

    shape = MeshConfig(fsdp=1, **sizes).axes
    with pytest.raises(UserError, match=message):
        Partitioning(AbstractMesh(tuple(shape.values()), tuple(shape)), dataclasses.replace(SMALL, vocab_size=30))


# transformers


def block_of(torch, module, w, mixture):
    with torch.no_grad():
        module.gate.weight.copy_(torch.tensor(w["router"].T))
        both = np.concatenate([w["gate"], w["up"]], axis=2).swapaxes(1, 2)  # [E, 2F, D]
        module.experts.gate_up_proj.copy_(torch.tensor(both))
        module.experts.down_proj.copy_(torch.tensor(w["down"].swapaxes(1, 2)))
    x = torch.tensor(inputs(), requires_grad=True)
    y = module(x)
    (y * torch.tensor(inputs(2))).sum().backward()
    return y.detach().numpy(), x.grad.numpy(), module.gate.weight.grad.numpy().T


@pytest.mark.parametrize("normalise", [True, False])
def test_experts_are_those_of_transformers(normalise):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    mixture = ExpertsConfig(E, 3, F, normalise)
    sizes = {"hidden_size": D, "num_experts_per_tok": 3, "hidden_act": "silu", "num_attention_heads": 2}
    if normalise:
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock as Block

        options = transformers.MixtralConfig(**sizes, intermediate_size=F, num_local_experts=E)
    else:
        from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock as Block

        options = transformers.Qwen3MoeConfig(**sizes, moe_intermediate_size=F, num_experts=E, norm_topk_prob=False)
    options._experts_implementation = "eager"
    w = weights()
    y, d_x, d_router = block_of(torch, Block(options), w, mixture)
    function = functools.partial(ours, mixture=mixture, grouped=grouped_products.tiled)
    assert_close(jax.jit(function)(inputs(), w)[0], y, 1e-5)
    found = gradients(lambda x, w: function(x, w)[0], inputs(), w, inputs(2))
    assert_close((found[0], found[1]["router"]), (d_x, d_router), 1e-5)


def test_the_load_balancing_loss_of_a_layer_is_that_of_transformers():
    torch = pytest.importorskip("torch")
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    w, x = weights(), inputs()
    logits = torch.tensor((x @ w["router"]).reshape(-1, E))
    theirs = mixtral.load_balancing_loss_func((logits,), E, 3, torch.tensor(SEGMENTS != 0))
    _, sums = jax.jit(functools.partial(ours, mixture=MIXTURE, grouped=grouped_products.tiled))(x, w)
    assert float(load_balancing(sums.counts, sums.probabilities, 15)) == pytest.approx(float(theirs), rel=1e-6)
    z = torch.logsumexp(logits[torch.tensor(SEGMENTS.ravel() != 0)], -1).square().mean()
    assert float(router_z_loss(sums.z, 15)) == pytest.approx(float(z), rel=1e-6)


def test_the_loss_of_experts_used_evenly_is_their_number_per_token():
    counts, probabilities = np.full((3, 4), 50), np.full((3, 4), 25.0)  # 100 tokens, two of four experts each
    assert float(load_balancing(counts, probabilities, 100)) == pytest.approx(2)


def test_one_device_s_mesh_is_no_mesh():
    partitioning = Partitioning(make_mesh(MeshConfig(), jax.devices()[:1]), SMALL)
    with partitioning:
        program = str(jax.make_jaxpr(functools.partial(ours, mixture=MIXTURE, grouped=grouped_products.tiled))(
            inputs(), weights()))  # fmt: skip
    assert "shard_map" not in program
    assert partitioning.spec(("experts", "expert_embed", "expert_mlp")) == PartitionSpec(
        "expert", ("fsdp", "context"), "tensor"
    )
