"""One optimizer step: a pure function of the training state and a batch of rows.

The loss is Σ wℓ / Σ w over the global batch, whatever the mesh and the number of microbatches: every microbatch adds
its sums, and the one division comes last. Whether the step counts is decided here too, on the devices, so that no host
has to wait for a loss before it sends the next batch.

Shape suffixes: B rows of the global batch, L tokens of a row, G tasks, M microbatches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hephaestus_jax.config import GuardConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.losses import (
    LossSums,
    by_parts,
    cross_entropy_sums,
    load_balancing,
    next_token_targets,
    router_z_loss,
)
from hephaestus_jax.model.decoder import (
    abstract_parameters,
    decode_in_order,
    in_order,
    init_parameters,
    output_kernel,
    parameter_axes,
    row_parts,
    row_places,
)
from hephaestus_jax.model.experts import RouterSums
from hephaestus_jax.model.lora import joined, trained_and_frozen
from hephaestus_jax.optimizers import apply_direction, clip_scale, make_optimizer, make_schedule
from hephaestus_jax.products import precise
from hephaestus_jax.sharding import Partitioning

Arrays = dict[str, jax.Array]  # tokens, segment_ids, positions, loss_weights [B, L]; task_ids [B]
ROW_ARRAYS = {"tokens": jnp.int32, "segment_ids": jnp.int32, "positions": jnp.int32, "loss_weights": jnp.float32}
_MEMORY = 100  # good steps over which the running means of gradient norm and loss forget


class GuardState(NamedTuple):
    """What the non-finite and spike policy remembers; scalars."""

    norm_mean: jax.Array  # float32: running mean of the gradient norm over good steps
    loss_mean: jax.Array  # float32: of the loss, likewise
    good_steps: jax.Array  # int32
    skipped_in_row: jax.Array  # int32
    skipped: jax.Array  # int32, over the whole run
    halted: jax.Array  # bool: frozen at a bad step, or parameters are not finite; nothing changes any more


class TrainState(NamedTuple):
    """All that a step changes."""

    step: jax.Array  # int32: steps done
    params: Any
    opt_state: Any
    guard: GuardState


class RouterMetrics(NamedTuple):
    """What a step reports of its experts; float32 scalars."""

    load_balancing: jax.Array  # the loss of this name, before its coefficient; experts_per_token when balanced
    router_z: jax.Array  # the loss of this name, before its coefficient
    busiest_expert: jax.Array  # tokens of the layer's busiest expert over an even share, in the worst layer


class StepMetrics(NamedTuple):
    """What a step reports; float32 scalars unless said otherwise. Losses are in nats."""

    loss: jax.Array  # Σ wℓ / Σ w over the batch
    loss_G: jax.Array  # Σ wℓ of each task
    weight_G: jax.Array  # Σ w of each task
    tokens_G: jax.Array  # int32: tokens with w > 0 of each task
    z_loss: jax.Array  # its share of the objective, per unit of weight
    grad_norm: jax.Array  # global, before clipping
    param_norm: jax.Array  # of the parameters that are trained, after the step
    learning_rate: jax.Array
    bad: jax.Array  # bool: the update was dropped
    halted: jax.Array  # bool: the state is frozen from here on
    router: RouterMetrics | None = None  # of a model with experts


def fresh_guard() -> GuardState:
    """The guard of a run that has seen nothing yet."""
    count, mean = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)
    return GuardState(mean, mean, count, count, count, jnp.zeros((), bool))


def fresh_state(config: TrainConfig, params: Any, opt_state: Any = None) -> TrainState:
    """Step 0 with the given parameters, and the given optimizer state or a new one."""
    if opt_state is None:
        opt_state = make_optimizer(config.optimizer).init(trained_and_frozen(params, config.lora)[0])
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, fresh_guard())


def abstract_state(config: TrainConfig, partitioning: Partitioning) -> TrainState:
    """Shapes, dtypes and shardings of the training state, nothing allocated.

    Raises:
        UserError: the mesh and the model do not fit (`Partitioning.check`).
    """
    params = abstract_parameters(config.model, config.compute.param_dtype, config.lora)
    state = jax.eval_shape(lambda params: fresh_state(config, params), params)
    axes = parameter_axes(config.model, config.lora)
    partitioning.check(state, axes)
    shardings = partitioning.state(state, axes)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def init_state(config: TrainConfig, abstract: TrainState, found: Mapping[str, Any] | None = None) -> TrainState:
    """The state of step 0, made on the devices that hold it; the values do not depend on the mesh.

    Args:
        config: of the run.
        abstract: from `abstract_state`.
        found: "params", and perhaps "opt_state", to begin with; what is not there is made anew from the seed, adapters
            among the parameters too.
    """

    def make(found: Mapping[str, Any]) -> TrainState:
        params = found.get("params")
        if params is None or config.lora is not None:
            key = jax.random.key(config.seed)
            fresh = init_parameters(config.model, key, config.compute.param_dtype, config.lora)
            params = fresh if params is None else joined(trained_and_frozen(fresh, config.lora)[0], params)
        return fresh_state(config, params, found.get("opt_state"))

    return jax.jit(make, out_shardings=shardings_of(abstract))(found or {})


def shardings_of(abstract: Any) -> Any:
    """The shardings of a tree of arrays or of their abstract shapes."""
    return jax.tree.map(lambda x: x.sharding, abstract)


def abstract_batch(rows: int, length: int, partitioning: Partitioning) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and shardings of a batch, as `data.loader.to_global` makes it."""
    arrays = {
        name: jax.ShapeDtypeStruct((rows, length), dtype, sharding=partitioning.batch)
        for name, dtype in ROW_ARRAYS.items()
    }
    by_row = partitioning.sharding(("batch",))
    return {**arrays, "task_ids": jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=by_row)}


def check_batch(config: TrainConfig, partitioning: Partitioning) -> None:
    """Whether the batches of training and evaluation divide over row shards, and the former over microbatches.

    Raises:
        UserError: it does not.
    """
    shards = partitioning.row_shards
    axes = " × ".join(partitioning.split("batch"))
    if config.batch_size % (shards * config.microbatches):
        raise UserError(
            f"a batch of {config.batch_size} rows does not divide over {shards} row shards (mesh axes {axes}) and"
            f" {config.microbatches} microbatches; use a multiple of {shards * config.microbatches}"
        )
    if config.evaluation.batch_size % shards:
        raise UserError(
            f"EvaluationConfig.batch_size {config.evaluation.batch_size} does not divide over {shards} row shards (mesh"
            f" axes {axes}); use a multiple of {shards}, or 0 for the training batch size"
        )


class BatchSums(NamedTuple):
    """What the forward pass of some rows adds up to; the sums of all microbatches are those of the batch."""

    loss: LossSums
    router: RouterSums | None = None  # of a model with experts, by layer: [Y, E] and [Y]


def sums_of_batch(config: TrainConfig, groups: int, z_loss: float, params: Any, batch: Arrays) -> BatchSums:
    """Forward pass and sums of some rows."""
    length = batch["tokens"].shape[1]
    places = row_places(length)
    parts = row_parts()
    tokens_BL, segment_ids_BL, positions_BL = (
        in_order(batch[name], places) for name in ("tokens", "segment_ids", "positions")
    )
    hidden_BLD, router = decode_in_order(
        params, config.model, config.compute, tokens_BL, segment_ids_BL, positions_BL, places, config.lora
    )
    # From whole rows: the place before a token may be another device's.
    targets_BL, weights_BL = next_token_targets(batch["tokens"], batch["loss_weights"])
    targets_BL, weights_BL = in_order(targets_BL, places), in_order(weights_BL, places)
    hidden_BLD, targets_BL, weights_BL = by_parts(parts, hidden_BLD, targets_BL, weights_BL)
    groups_B = jnp.tile(batch["task_ids"], parts) if parts > 1 else batch["task_ids"]
    # Two chunks at least, so that never all logits exist.
    chunk = min(config.compute.loss_chunk, -(-length // parts // 2))
    with precise(config.compute.dtype):
        loss = cross_entropy_sums(
            hidden_BLD, output_kernel(params), targets_BL, weights_BL, groups_B, groups, z_loss, chunk,
            config.model.logit_softcap,
        )  # fmt: skip
    return BatchSums(loss, None if router is None else jax.tree.map(lambda x: jnp.sum(x, axis=1), router))


def gradient_sums(config: TrainConfig, groups: int, params: Any, batch: Arrays) -> tuple[Any, BatchSums]:
    """Gradient of Σ w(ℓ + z) + Σ w · (the router's losses) over the batch in float32, and its sums.

    With respect to the parameters that are trained (`lora.trained_and_frozen`).

    Microbatch by microbatch. The load-balancing loss is a product of means over the whole batch; with more than one
    microbatch a forward pass over all of them comes first, for the batch's counts of tokens per expert, given which the
    loss is a sum over microbatches (`losses.load_balancing`).
    """
    _, weights_BL = next_token_targets(batch["tokens"], batch["loss_weights"])
    weight, tokens = jnp.sum(weights_BL), counted_tokens(batch)
    trained, frozen = trained_and_frozen(params, config.lora)

    def objective(trained: Any, part: Arrays, counts_YE: jax.Array | None) -> tuple[jax.Array, BatchSums]:
        sums = sums_of_batch(config, groups, config.loss.z_loss, joined(trained, frozen), part)
        if sums.router is None:
            return sums.loss.objective, sums
        counts_YE = sums.router.counts if counts_YE is None else counts_YE
        of_router = config.loss.load_balancing * load_balancing(counts_YE, sums.router.probabilities, tokens)
        of_router += config.loss.router_z * router_z_loss(sums.router.z, tokens)
        return sums.loss.objective + weight * of_router, sums  # the step divides everything by the weight

    def of_part(part: Arrays, counts_YE: jax.Array | None) -> tuple[Any, BatchSums]:
        gradient, sums = jax.grad(objective, has_aux=True)(trained, part, counts_YE)
        return jax.tree.map(lambda g: g.astype(jnp.float32), gradient), sums

    if config.microbatches == 1:
        return of_part(batch, None)
    # Microbatch m takes rows m, m + M, ...: every device works on rows that it already holds.
    parts = {name: _interleave(x, config.microbatches) for name, x in batch.items()}
    counts_YE = None
    if config.loss.load_balancing:
        routers = _sum_over(parts, lambda part: sums_of_batch(config, groups, 0.0, params, part).router)
        counts_YE = routers.counts
    return _sum_over(parts, lambda part: of_part(part, counts_YE))


def counted_tokens(batch: Arrays) -> jax.Array:
    """Tokens that the router's losses are means over: all but padding, float32."""
    return jnp.sum(batch["segment_ids"] != 0).astype(jnp.float32)


def _sum_over(parts: Arrays, of_part: Callable[[Arrays], Any]) -> Any:
    """Σ of a function of the microbatches, one after the other."""
    shapes = jax.eval_shape(of_part, {name: x[0] for name, x in parts.items()})
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, of_part(part)), None), zeros, parts)
    return total


def _interleave(x: jax.Array, parts: int) -> jax.Array:
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def make_step_function(
    config: TrainConfig, groups: int
) -> Callable[[TrainState, Arrays], tuple[TrainState, StepMetrics]]:
    """The step before compilation; `groups` is the number of tasks."""
    optimizer, schedule = make_optimizer(config.optimizer), make_schedule(config.schedule, config.schedule_steps)

    def step(state: TrainState, batch: Arrays) -> tuple[TrainState, StepMetrics]:
        gradient, sums = gradient_sums(config, groups, state.params, batch)
        losses, router = sums.loss, router_metrics(sums, counted_tokens(batch))
        weight = jnp.sum(losses.weight_G)
        per_weight = jnp.where(weight > 0, 1 / jnp.where(weight > 0, weight, 1), 0)
        norm = optax.global_norm(gradient) * per_weight
        loss = jnp.sum(losses.loss_G) * per_weight
        rate = schedule(state.step)
        # Decided before the update, so that dropping it needs no second copy of the state.
        guard, bad = _judge(config.guard, state.guard, loss, norm)
        # Divided by the weight and clipped in one product, which the compiler puts into the update.
        scale = per_weight * clip_scale(norm, config.optimizer)
        gradient = jax.tree.map(lambda g: g * scale, gradient)
        trained, frozen = trained_and_frozen(state.params, config.lora)
        direction, opt_state = optimizer.update(gradient, state.opt_state, trained)
        new = (apply_direction(trained, direction, rate), opt_state)
        trained, opt_state = jax.tree.map(lambda old, new: jnp.where(bad, old, new), (trained, state.opt_state), new)
        param_norm = optax.global_norm(jax.tree.map(lambda p: p.astype(jnp.float32), trained))
        guard = guard._replace(halted=guard.halted | ~jnp.isfinite(param_norm))
        metrics = StepMetrics(
            loss, losses.loss_G, losses.weight_G, losses.tokens_G, losses.z_loss * per_weight, norm, param_norm, rate,
            bad, guard.halted, router,
        )  # fmt: skip
        done = state.step + jnp.where(guard.halted, 0, 1)
        return TrainState(done, joined(trained, frozen), opt_state, guard), metrics

    return step


def router_metrics(sums: BatchSums, tokens: jax.Array) -> RouterMetrics | None:
    """Of the whole batch; None for a model without experts."""
    if (router := sums.router) is None:
        return None
    even_Y = jnp.maximum(jnp.mean(router.counts.astype(jnp.float32), axis=-1), 1e-30)
    return RouterMetrics(
        load_balancing=load_balancing(router.counts, router.probabilities, tokens),
        router_z=router_z_loss(router.z, tokens),
        busiest_expert=jnp.max(jnp.max(router.counts, axis=-1) / even_Y),
    )


def _judge(config: GuardConfig, guard: GuardState, loss: jax.Array, norm: jax.Array) -> tuple[GuardState, jax.Array]:
    """The guard after this step, and whether the step is bad (its update dropped)."""
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(norm)) | guard.halted
    trusted = guard.good_steps >= max(config.spike_after, 1)
    if config.spike_factor:
        bad |= trusted & (norm > config.spike_factor * guard.norm_mean)
    if config.loss_spike_factor:
        bad |= trusted & (guard.loss_mean > 0) & (loss > config.loss_spike_factor * guard.loss_mean)
    in_row = jnp.where(bad, guard.skipped_in_row + 1, 0)
    allowed = config.max_skipped if config.on_bad_step == "skip" else 0
    halted = guard.halted | (bad & (in_row > allowed))
    window = jnp.minimum(guard.good_steps + 1, _MEMORY)
    norm_mean, loss_mean = (
        jnp.where(bad, mean, jnp.where(mean > 0, mean + (value - mean) / window, value))
        for mean, value in ((guard.norm_mean, norm), (guard.loss_mean, loss))
    )
    good, skipped = guard.good_steps + (~bad).astype(jnp.int32), guard.skipped + bad.astype(jnp.int32)
    return GuardState(norm_mean, loss_mean, good, in_row, skipped, halted), bad


def make_train_step(config: TrainConfig, partitioning: Partitioning, abstract: TrainState, groups: int) -> Any:
    """The jitted step `(state, batch) → (state, StepMetrics)`; the state's buffers are reused."""
    function = make_step_function(config, groups)

    def step(state: TrainState, batch: Arrays) -> tuple[TrainState, StepMetrics]:
        with partitioning:
            return function(state, batch)

    shardings, everywhere = shardings_of(abstract), partitioning.sharding(())
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere))


def make_eval_step(config: TrainConfig, partitioning: Partitioning, groups: int) -> Any:
    """The jitted loss sums `(params, batch) → LossSums` without gradient and without z-loss."""

    def step(params: Any, batch: Arrays) -> LossSums:
        with partitioning:
            return sums_of_batch(config, groups, 0.0, params, batch).loss

    return jax.jit(step, out_shardings=partitioning.sharding(()))
