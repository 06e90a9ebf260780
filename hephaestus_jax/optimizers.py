"""Learning-rate schedules and optimizers.

An optimizer here gives the *descent direction* u, decoupled weight decay included, without the learning rate:
`new = p - rate(step) · u`. The train step multiplies, because it knows the step (`apply_direction`), and clips, because
it has the global norm anyway (`clip_scale`).

The layers of the decoder are stacked: a parameter under `layers/` is [Y, ...] for Y layers. Adafactor and Muon work on
each layer by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from hephaestus_jax.config import OptimizerConfig, ScheduleConfig

MUON_MOMENTUM = 0.95
MUON_RMS = 0.2  # root mean square of AdamW's update, which Muon's is scaled to (arXiv:2502.16982, section 2.2)

FACTORED_FROM = 32
"""Length of the second longest axis from which Adafactor factors an array; head dimensions of 64 are common."""

LAYERS = "layers"
_MATRICES: dict[tuple[str, ...], tuple[tuple[int, ...], tuple[int, ...]]] = {
    # The end of a weight's path, and the input and output axes of one layer's array.
    ("query", "kernel"): ((0,), (1, 2)),
    ("key", "kernel"): ((0,), (1, 2)),
    ("value", "kernel"): ((0,), (1, 2)),
    ("out", "kernel"): ((0, 1), (2,)),
    ("gate", "kernel"): ((0,), (1,)),
    ("up", "kernel"): ((0,), (1,)),
    ("down", "kernel"): ((0,), (1,)),
    # A matrix for each expert, which is no axis of either.
    ("experts", "gate", "kernel"): ((1,), (2,)),
    ("experts", "up", "kernel"): ((1,), (2,)),
    ("experts", "down", "kernel"): ((1,), (2,)),
}
_NO_MATRICES = (("router", "kernel"),)
"""Kernels inside the layers that Muon leaves to AdamW: the router's outputs are logits, as the output projection's."""
_NOT_DECAYED = ("scale", "bias")

Tree = Any


# Schedules


def make_schedule(config: ScheduleConfig, train_steps: int) -> Callable[[jax.Array | int], jax.Array]:
    """The learning rate of each step, float32 and traceable.

    Steps count from 0, and step t takes the rate that belongs to t + 1 steps done: the first of W warm-up steps already
    moves 1/W of the way up, step W - 1 has the peak, and the last step of the run has `final_fraction · peak` exactly
    (the peak, for "constant"). Later steps keep that. With p the share of the decay that is done, from 0 to 1, the
    shapes are 1 - p (linear), (1 + cos πp) / 2 (cosine) and 1 - √p (sqrt; Hägele et al. 2024, arXiv:2405.18392).
    """
    peak, low = config.peak, config.peak * config.final_fraction
    first = config.peak * config.initial_fraction
    warmup = config.warmup_steps
    decay_steps = {"cosine": train_steps - warmup, "wsd": config.decay_steps, "constant": 0}[config.kind]
    shape = _SHAPES["cosine" if config.kind == "cosine" else config.decay_shape]

    def schedule(step: jax.Array | int) -> jax.Array:
        done = jnp.asarray(step, jnp.int32) + 1
        rate = jnp.float32(peak)
        if decay_steps:
            start = train_steps - decay_steps
            # The ends are selected, since compiled code may not divide exactly: 49 / 49 can come out below 1.
            falling = _between(low, peak, shape(jnp.clip((done - start) / jnp.float32(decay_steps), 0.0, 1.0)))
            rate = jnp.where(done <= start, peak, jnp.where(done >= train_steps, low, falling))
        if warmup:
            rate = jnp.where(done < warmup, _between(first, peak, done / jnp.float32(warmup)), rate)
        return rate.astype(jnp.float32)

    return schedule


_SHAPES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + jnp.cos(jnp.pi * share)) / 2,
    "sqrt": lambda share: 1 - jnp.sqrt(share),
}


def _between(low: float, high: float, height: jax.Array) -> jax.Array:
    """The rate at a height from 0 (`low`) to 1 (`high`)."""
    return low * (1 - height) + high * height


# What the train step does with norms and directions


def clip_scale(norm: jax.Array, config: OptimizerConfig) -> jax.Array:
    """What gradients whose global norm is `norm` are multiplied by, so that it is at most `config.clip_norm`.

    A norm that is not finite leaves gradients that are not finite; the guard drops such a step.
    """
    if config.clip_norm == 0:
        return jnp.ones_like(norm)
    return jnp.where(norm < config.clip_norm, 1.0, config.clip_norm / norm)


def apply_direction(params: Tree, direction: Tree, learning_rate: jax.Array) -> Tree:
    """`p - learning_rate · u` in float32, rounded to the parameter's dtype.

    A bfloat16 parameter loses an update below 1/512 of its size; keep float32 parameters for training at small rates.
    """

    def move(param: jax.Array, update: jax.Array) -> jax.Array:
        return (param.astype(jnp.float32) - learning_rate * update).astype(param.dtype)

    return jax.tree.map(move, params, direction)


# Optimizers


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The transformation from gradients to the descent direction; `update` needs the parameters.

    - "adamw" (arXiv:1711.05101).
    - "adafactor" (arXiv:1804.04235): the second moment is factored over the two longest axes of a layer's array, if
      both are at least `FACTORED_FROM`; an attention kernel [D, N, H] is so factored for each head, finer than as one
      matrix. No first moment. The update of each layer's array is clipped to a root mean square of 1. The rate is
      absolute, not relative to the parameter's size, so it means what it means for AdamW.
    - "muon" (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): for each layer's weights as [in, out]
      matrices (an attention kernel [D, N, H] is [D, N·H], the one that goes out is [N·H, D]), Nesterov momentum of
      `MUON_MOMENTUM`, orthogonalised by five Newton-Schulz steps and scaled to the root mean square of AdamW's update,
      so that rate and weight decay are shared (arXiv:2502.16982). Each expert has its own matrices. AdamW for
      everything else.

    Parameters and gradients of any dtype are taken to float32 first, and so are directions and second moments. First
    moments are stored as `moment_dtype`, and computed in float32. Weight decay spares paths that end in `scale` or
    `bias`.
    """
    decay = optax.add_decayed_weights(config.weight_decay, mask=decayed)
    return _in_float32(optax.chain(_DIRECTIONS[config.kind](config), decay))


def decayed(params: Tree) -> Tree:
    """True for the parameters that weight decay applies to."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1] not in _NOT_DECAYED, params)


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    return _stored_moment(optax.scale_by_adam(config.b1, config.b2, config.epsilon), config.moment_dtype)


def _adafactor(config: OptimizerConfig) -> optax.GradientTransformation:
    del config  # b1, b2 and epsilon are AdamW's
    factored = optax.scale_by_factored_rms(min_dim_size_to_factor=FACTORED_FROM)
    layer = optax.chain(factored, optax.clip_by_block_rms(1.0))
    return optax.partition({"layers": _each_layer(layer), "others": layer}, _layers_or_others)


def _muon(config: OptimizerConfig) -> optax.GradientTransformation:
    muon = contrib.scale_by_muon(beta=MUON_MOMENTUM, weight_dimension_numbers=_dimension_numbers)
    layer = optax.chain(_stored_moment(muon, config.moment_dtype), optax.stateless(_scale_to_rms))
    return optax.partition({"matrices": _each_layer(layer), "others": _adam(config)}, _matrices_or_others)


_DIRECTIONS = {"adamw": _adam, "adafactor": _adafactor, "muon": _muon}


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` sees float32 parameters and gradients, and so keeps float32 state."""

    def init(params: Tree) -> Tree:
        return inner.init(optax.tree.cast(params, jnp.float32))

    def update(grads: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        return inner.update(optax.tree.cast(grads, jnp.float32), state, optax.tree.cast(params, jnp.float32))

    return optax.GradientTransformation(init, update)


def _stored_moment(inner: optax.GradientTransformation, dtype: str) -> optax.GradientTransformation:
    """Keeps the first moment `mu` of `inner`'s state as `dtype` between steps.

    optax's own `mu_dtype` also rounds the decay rate to that dtype: 0.99 becomes 0.988 in bfloat16, and the moment
    ends up 15 % too small. Here the moment is widened before it is used.
    """

    def init(params: Tree) -> Tree:
        state = inner.init(params)
        return state._replace(mu=optax.tree.cast(state.mu, dtype))

    def update(grads: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        direction, state = inner.update(grads, state._replace(mu=optax.tree.cast(state.mu, jnp.float32)), params)
        return direction, state._replace(mu=optax.tree.cast(state.mu, dtype))

    return optax.GradientTransformation(init, update)


def _each_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` on one layer after the other; its state is stacked like the layers.

    So nothing is averaged over layers, and Muon's products need room for one layer only.
    """

    def update(grads: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        return jax.lax.map(lambda layer: inner.update(*layer), (grads, state, params))

    return optax.GradientTransformation(jax.vmap(inner.init), update)


# Paths and matrices


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/").split("/"))


def _layers_or_others(params: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: "layers" if _names(path)[0] == LAYERS else "others", params)


def _is_matrix(path: tuple[Any, ...]) -> bool:
    """Whether this is a weight inside the layers that Muon orthogonalises; `_MATRICES` must know it."""
    names = _names(path)
    return names[0] == LAYERS and names[-1] == "kernel" and names[-2:] not in _NO_MATRICES


def _sides(path: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Input and output axes of one layer's weight."""
    names = _names(path)
    return _MATRICES[names[-3:] if names[-3:] in _MATRICES else names[-2:]]


def _matrices_or_others(params: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: "matrices" if _is_matrix(path) else "others", params)


def _dimension_numbers(matrices: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: contrib.MuonDimensionNumbers(*_sides(path)), matrices)


def _scale_to_rms(directions: Tree, params: Tree = None) -> Tree:
    """An orthogonal [in, out] matrix has a root mean square of 1 / √max(in, out)."""
    del params

    def scale(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        sides = [math.prod(x.shape[axis] for axis in side) for side in _sides(path)]
        return MUON_RMS * math.sqrt(max(sides)) * x

    return jax.tree_util.tree_map_with_path(scale, directions)
