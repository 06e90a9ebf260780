"""A training state in little: named tuples, nested dictionaries, an optimizer's state, several dtypes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

OPTIMIZER = optax.adamw(1e-2)


class Guard(NamedTuple):
    norm_mean: jax.Array
    good_steps: jax.Array
    halted: jax.Array


class State(NamedTuple):
    step: jax.Array
    params: Any
    opt_state: Any
    guard: Guard


def make_state(dtype: str = "float32", seed: int = 0, width: int = 32) -> State:
    """Step 0."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "embedder": {"embedding": jax.random.normal(keys[0], (300, width))},
        "layers": {
            "mlp": {"up": {"kernel": jax.random.normal(keys[1], (4, width, 2 * width))}},
            "norm": {"scale": jnp.ones((4, width))},
        },
        "head": {"kernel": jax.random.normal(keys[2], (width, 300))},
    }
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    guard = Guard(jnp.float32(0), jnp.int32(0), jnp.bool_(False))
    return State(jnp.int32(0), params, OPTIMIZER.init(params), guard)


def _step(state: State) -> tuple[State, jax.Array]:
    """One update on data that depends on the step alone."""
    data = jnp.sin(jnp.arange(300, dtype=jnp.float32) * (1 + state.step))

    def loss_of(params: Any) -> jax.Array:
        hidden = data.astype(params["head"]["kernel"].dtype) @ params["embedder"]["embedding"]
        kernel = params["layers"]["mlp"]["up"]["kernel"].mean(axis=0)
        hidden = jnp.tanh(hidden * params["layers"]["norm"]["scale"].sum(axis=0)) @ kernel @ kernel.T
        return jnp.mean(jnp.square(hidden @ params["head"]["kernel"]).astype(jnp.float32)) * 1e-6

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    updates, opt_state = OPTIMIZER.update(gradients, state.opt_state, state.params)
    norm = optax.global_norm(gradients).astype(jnp.float32)
    guard = Guard(0.9 * state.guard.norm_mean + 0.1 * norm, state.guard.good_steps + 1, ~jnp.isfinite(norm))
    params = optax.apply_updates(state.params, updates)
    return State(state.step + 1, params, opt_state, guard), loss


train_step = jax.jit(_step, donate_argnums=0)


def abstract(state: Any) -> Any:
    """Shapes, dtypes and shardings of a state."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def host_copy(state: Any) -> Any:
    """A state in host memory of its own, safe from donation."""
    return jax.tree.map(lambda x: np.array(x, copy=True), state)


def same_bits(left: Any, right: Any) -> bool:
    """Whether two trees are the same, bit by bit, dtypes included."""
    if jax.tree.structure(left) != jax.tree.structure(right):
        return False
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    arrays = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays)
