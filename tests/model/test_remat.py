"""Remat policies: the same function and gradients, other memory."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from small_decoders import config, loss, parameters, rows

from hephaestus_jax.config import REMAT_POLICIES, ComputeConfig
from hephaestus_jax.model.decoder import abstract_parameters

PATTERN: dict[str, Any] = {"layer_pattern": ("sliding", "full"), "sliding_window": 4}
MODELS = {"all the same": config(), "a layer left over": config(num_layers=3, **PATTERN)}


@pytest.mark.parametrize("name", MODELS)
def test_every_policy_gives_the_same_loss_and_gradients(name):
    model = MODELS[name]
    params, batch = parameters(model), rows(model)
    step = jax.jit(jax.value_and_grad(loss), static_argnums=(1, 2))
    results = {
        policy: step(params, model, ComputeConfig(dtype="float32", remat=policy), batch) for policy in REMAT_POLICIES
    }
    wanted_loss, wanted = results["none"]
    for policy, (got_loss, got) in results.items():
        assert float(got_loss) == pytest.approx(float(wanted_loss), rel=1e-6), policy
        for gradient, right in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            error = np.linalg.norm(np.asarray(gradient) - np.asarray(right))
            assert error <= 2e-6 * np.linalg.norm(right), policy


def saved_bytes(policy: str, attention: str = "reference", **pattern: Any) -> int:
    """Bytes that the backward pass keeps from the forward pass, parameters included."""
    model = config(embed_dim=16, mlp_dim=24, num_layers=4, **pattern)
    compute = ComputeConfig(remat=policy, attention=attention)
    batch = rows(model)
    _, backward = jax.eval_shape(
        lambda params: jax.vjp(lambda p: loss(p, model, compute, batch), params), abstract_parameters(model)
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))


def test_policies_save_less_and_less():
    saved = {policy: saved_bytes(policy) for policy in REMAT_POLICIES}
    assert saved["none"] > saved["dots"] > saved["dots_with_no_batch_dims"] > saved["full"]
    assert saved["none"] > saved["attention"] > saved["full"]
    # the scores go whichever way the attention is computed again
    assert saved_bytes("attention", "chunked") == saved_bytes("none", "chunked")
    # besides its operands it keeps its output, and one number for each query and head
    assert saved["attention"] < saved_bytes("none", "chunked") < 1.1 * saved["attention"]


@pytest.mark.parametrize("policy", ["dots", "dots_with_no_batch_dims", "full"])
def test_groups_of_layers_keep_what_layers_keep(policy):
    """Their weights are not kept once more, each layer's by itself; only the tables of rotations and masks are."""
    assert saved_bytes(policy, "chunked", **PATTERN) == pytest.approx(saved_bytes(policy, "chunked"), rel=0.01)
