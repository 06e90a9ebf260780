"""Next-token cross-entropy as sums over weighted tokens, never holding all logits at once.

The loss of a batch is Σ wℓ / Σ w. Everything here returns the sums, so that microbatches, hosts and tasks add up and
the division happens once. The logits exist for a chunk of positions at a time, and where a gradient is asked for it is
made in the same pass as the loss, so the output projection is multiplied out once (as in arXiv:2410.10989, which does
it in one GPU kernel; this is plain JAX and is partitioned with the rest of the program).

Shape suffixes: B rows, L tokens of a row, D embedding, V vocabulary, G groups of rows.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hephaestus_jax import sharding
from hephaestus_jax.products import einsum_float32, soft_capped


def next_token_targets(tokens_BL: jax.Array, loss_weights_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What each position predicts and how much that prediction weighs.

    `loss_weights_BL[:, i]` weighs the prediction *of* token i, which position i - 1 makes; the last position predicts
    nothing and weighs 0.

    Returns:
        targets_BL int32 and weights_BL float32.
    """
    targets_BL = jnp.pad(tokens_BL[:, 1:].astype(jnp.int32), ((0, 0), (0, 1)))
    weights_BL = jnp.pad(loss_weights_BL[:, 1:].astype(jnp.float32), ((0, 0), (0, 1)))
    return targets_BL, weights_BL


def by_parts(parts: int, *arrays_BL: jax.Array) -> tuple[jax.Array, ...]:
    """Rows [B, L, ...] cut into `parts` equal stretches that count as rows of their own, [parts · B, L / parts, ...].

    For rows whose tokens are divided over devices: a chunk of positions is then one of every device's. All rows' first
    stretches come first, which is how the devices hold them.
    """
    if parts == 1:
        return arrays_BL

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.swapaxes(x.reshape(x.shape[0], parts, -1, *x.shape[2:]), 0, 1)
        return x.reshape(-1, *x.shape[2:])

    others = [(None,) * (x.ndim - 1) for x in arrays_BL]
    return tuple(sharding.constrain(cut(x), ("row_part", *names)) for x, names in zip(arrays_BL, others, strict=True))


class LossSums(NamedTuple):
    """Sums over the positions of a batch; ℓ is the cross-entropy in nats, Z the softmax normaliser, w the weight.

    Attributes:
        objective: Σ w(ℓ + c·log²Z), what is differentiated.
        loss_G: Σ wℓ of each group.
        weight_G: Σ w of each group.
        z_loss: Σ w·c·log²Z.
        tokens_G: number of positions with w > 0 of each group, int32.
    """

    objective: jax.Array
    loss_G: jax.Array
    weight_G: jax.Array
    z_loss: jax.Array
    tokens_G: jax.Array


_MOST_STRETCHES, _SHORTEST_STRETCH = 8, 4096  # of the vocabulary, for sums over devices


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8))
def cross_entropy_sums(
    hidden_BLD: jax.Array,
    kernel_DV: jax.Array,
    targets_BL: jax.Array,
    weights_BL: jax.Array,
    groups_B: jax.Array,
    num_groups: int,
    z_loss: float,
    chunk: int,
    softcap: float = 0.0,
) -> LossSums:
    """Weighted cross-entropy of `hidden @ kernel` against the targets, in chunks of `chunk` positions of each row.

    Matrix products take the dtype of `hidden_BLD` and accumulate in float32; the log-sum-exp, the sums and the gradient
    of the kernel are float32 throughout. A position of weight 0 contributes exactly 0 to every sum and gradient,
    whatever its hidden state holds. A weighted position that is not finite makes the sums not finite.

    Only `objective` is differentiable, with respect to `hidden_BLD` and `kernel_DV`, and in reverse mode: cotangents of
    the other sums are ignored, and other arguments get zero gradients.

    Args:
        hidden_BLD: after the final norm; float32 or bfloat16.
        kernel_DV: output projection, cast to the dtype of `hidden_BLD`.
        targets_BL: token ids from 0 to V - 1.
        weights_BL: 0 or more.
        groups_B: group of each row, from 0 to `num_groups` - 1 (a task, a slice).
        num_groups: G.
        z_loss: coefficient c of c·log²Z (PaLM, arXiv:2204.02311, section 5).
        chunk: positions of each row whose logits exist at a time; at L or above, all of them do.
        softcap: `ModelConfig.logit_softcap`; ℓ and Z are of the capped logits.
    """
    losses = _LogitLosses(z_loss, softcap)
    rows, _ = _scan_chunks(hidden_BLD, kernel_DV, targets_BL, weights_BL, losses, chunk, differentiate=False)
    return _sums(rows, weights_BL, groups_B, num_groups)


class _LogitLosses(NamedTuple):
    """The coefficient of z-loss, and what the logits are soft-capped to."""

    z_loss: float
    softcap: float


class _Rows(NamedTuple):
    """Sums of each row: Σ wℓ and Σ w·c·log²Z."""

    loss_B: jax.Array
    z_loss_B: jax.Array


class _Gradients(NamedTuple):
    """Of the objective; the kernel's in float32 and summed within each of S shards of rows only.

    Shards are added up once, after the last chunk: a sum over devices in each chunk would send the whole kernel again
    and again.
    """

    hidden_BLD: jax.Array
    kernel_SDV: jax.Array


def _forward(
    hidden_BLD: jax.Array,
    kernel_DV: jax.Array,
    targets_BL: jax.Array,
    weights_BL: jax.Array,
    groups_B: jax.Array,
    num_groups: int,
    z_loss: float,
    chunk: int,
    softcap: float,
) -> tuple[LossSums, tuple[jax.Array, jax.Array]]:
    """The sums, and the gradients for a cotangent of 1."""
    losses = _LogitLosses(z_loss, softcap)
    rows, gradients = _scan_chunks(hidden_BLD, kernel_DV, targets_BL, weights_BL, losses, chunk, differentiate=True)
    assert gradients is not None
    kernel_gradient_DV = _sum_of_shards(gradients.kernel_SDV).astype(kernel_DV.dtype)
    # Together, so that the sum may not wait for the end of the layers' backward pass, in float32 all the while.
    kept = jax.lax.optimization_barrier((gradients.hidden_BLD, kernel_gradient_DV))
    return _sums(rows, weights_BL, groups_B, num_groups), kept


def _backward(
    num_groups: int,
    z_loss: float,
    chunk: int,
    softcap: float,
    gradients: tuple[jax.Array, jax.Array],
    cotangents: LossSums,
) -> tuple[jax.Array | None, ...]:
    del num_groups, z_loss, chunk, softcap
    hidden_BLD, kernel_DV = ((cotangents.objective * gradient).astype(gradient.dtype) for gradient in gradients)
    return hidden_BLD, kernel_DV, None, None, None


cross_entropy_sums.defvjp(_forward, _backward)


def _scan_chunks(
    hidden_BLD: jax.Array,
    kernel_DV: jax.Array,
    targets_BL: jax.Array,
    weights_BL: jax.Array,
    losses: _LogitLosses,
    chunk: int,
    *,
    differentiate: bool,
) -> tuple[_Rows, _Gradients | None]:
    """Goes over the rows' positions once, in equal chunks of at most `chunk`."""
    num_rows, length, _ = hidden_BLD.shape
    num_chunks = -(-length // chunk)
    size = -(-length // num_chunks)
    hidden_BLD, targets_BL, weights_BL = (
        jnp.pad(x, [(0, 0), (0, num_chunks * size - length)] + [(0, 0)] * (x.ndim - 2))
        for x in (hidden_BLD, targets_BL, weights_BL)
    )
    compute_kernel_DV = sharding.constrain(kernel_DV.astype(hidden_BLD.dtype), ("embed_activation", "vocabulary"))

    def step(carry: tuple[_Rows, _Gradients | None], index: jax.Array) -> tuple[tuple[_Rows, _Gradients | None], None]:
        rows, gradients = carry
        hidden, targets, weights = (
            jax.lax.dynamic_slice_in_dim(x, index * size, size, axis=1) for x in (hidden_BLD, targets_BL, weights_BL)
        )
        # Weight 0 must mean no contribution even where the hidden state is not finite: 0 · inf is NaN.
        hidden = jnp.where(weights[..., None] > 0, hidden, 0)
        here, d_logits = _chunk_losses(hidden, compute_kernel_DV, targets, weights, losses)
        if gradients is not None:
            d_hidden, d_kernel = _chunk_gradients(hidden, compute_kernel_DV, d_logits)
            gradients = _Gradients(
                jax.lax.dynamic_update_slice_in_dim(gradients.hidden_BLD, d_hidden, index * size, axis=1),
                gradients.kernel_SDV + d_kernel,
            )
        return (jax.tree.map(jnp.add, rows, here), gradients), None

    start = _Rows(jnp.zeros(num_rows), jnp.zeros(num_rows))
    none_yet = None
    if differentiate:
        none_yet = _Gradients(jnp.zeros_like(hidden_BLD), jnp.zeros((_row_shards(), *kernel_DV.shape)))
    (rows, gradients), _ = jax.lax.scan(step, (start, none_yet), jnp.arange(num_chunks))
    if gradients is not None:
        gradients = gradients._replace(hidden_BLD=gradients.hidden_BLD[:, :length])
    return rows, gradients


def _logits(
    hidden_BLD: jax.Array, kernel_DV: jax.Array, targets_BL: jax.Array, softcap: float
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The log-sum-exp and the target's logit [B, L], the capped logits and where the targets are [B, L, V]."""
    logits_BLV = einsum_float32("bld,dv->blv", hidden_BLD, kernel_DV)
    logits_BLV = soft_capped(sharding.constrain(logits_BLV, ("row_part", None, "vocabulary")), softcap)
    log_z_BL = jax.nn.logsumexp(logits_BLV, axis=-1)
    # A comparison, not a look-up: it stays local where the vocabulary is split over devices.
    is_target_BLV = targets_BL[..., None] == jax.lax.broadcasted_iota(jnp.int32, logits_BLV.shape, 2)
    target_logit_BL = jnp.sum(jnp.where(is_target_BLV, logits_BLV, 0.0), axis=-1)
    return log_z_BL, target_logit_BL, logits_BLV, is_target_BLV


def _chunk_losses(
    hidden_BLD: jax.Array, kernel_DV: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array, losses: _LogitLosses
) -> tuple[_Rows, jax.Array]:
    """The sums of each row over a chunk, and the gradient of the objective with respect to its logits uncapped."""
    z_loss, softcap = losses
    log_z_BL, target_logit_BL, logits_BLV, is_target_BLV = _logits(hidden_BLD, kernel_DV, targets_BL, softcap)
    rows = _Rows(
        jnp.sum(weights_BL * (log_z_BL - target_logit_BL), axis=1),
        jnp.sum(weights_BL * z_loss * jnp.square(log_z_BL), axis=1),
    )
    softmax_BLV = jnp.exp(logits_BLV - log_z_BL[..., None])
    of_softmax_BL = weights_BL * (1 + 2 * z_loss * log_z_BL)
    d_logits_BLV = of_softmax_BL[..., None] * softmax_BLV - jnp.where(is_target_BLV, weights_BL[..., None], 0.0)
    if softcap:
        d_logits_BLV = d_logits_BLV * (1 - jnp.square(logits_BLV / softcap))
    return rows, d_logits_BLV.astype(hidden_BLD.dtype)


def _chunk_gradients(
    hidden_BLD: jax.Array, kernel_DV: jax.Array, d_logits_BLV: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients of hidden [B, L, D] in its dtype, and of the kernel by shard of rows [S, D, V] in float32."""
    d_hidden_BLD = einsum_float32("blv,dv->bld", d_logits_BLV, kernel_DV)
    hidden_SBLD, d_logits_SBLV = (x.reshape(_row_shards(), -1, *x.shape[1:]) for x in (hidden_BLD, d_logits_BLV))
    d_kernel_SDV = einsum_float32("sbld,sblv->sdv", hidden_SBLD, d_logits_SBLV)
    d_kernel_SDV = sharding.constrain(d_kernel_SDV, ("row_part", "embed_activation", "vocabulary"))
    return d_hidden_BLD.astype(hidden_BLD.dtype), d_kernel_SDV


def _sum_of_shards(kernel_SDV: jax.Array) -> jax.Array:
    """Σ over the shards of rows, each device's part of [D, V]; a stretch of the vocabulary at a time.

    A sum over devices takes room for its whole result: at once, as much again as the gradient itself.
    """
    partitioning = sharding.active()
    if partitioning is None or len(kernel_SDV) == 1:
        return jnp.sum(kernel_SDV, axis=0)
    by_shard = partitioning.spec(("row_part", "embed_activation", "vocabulary"))
    result = partitioning.spec(("embed", "vocabulary"))
    several = [axis for axis, size in partitioning.mesh.shape.items() if size > 1]
    scattered = tuple(axis for axis in partitioning.split("embed") if axis in several)
    summed = tuple(axis for axis in partitioning.split("row_part") if axis in several and axis not in scattered)

    def on_device(kernel_sDv: jax.Array) -> jax.Array:
        size = stretch(kernel_sDv.shape[2])

        def of_stretch(index: jax.Array) -> jax.Array:
            part_Dv = jax.lax.dynamic_slice_in_dim(kernel_sDv[0], index * size, size, axis=1)
            part_Dv = jax.lax.psum(part_Dv, summed) if summed else part_Dv
            return jax.lax.psum_scatter(part_Dv, scattered, scatter_dimension=0, tiled=True) if scattered else part_Dv

        parts_Cdv = jax.lax.map(of_stretch, jnp.arange(kernel_sDv.shape[2] // size))
        return jnp.moveaxis(parts_Cdv, 0, 1).reshape(parts_Cdv.shape[1], -1)

    mesh = partitioning.mesh.abstract_mesh
    return jax.shard_map(on_device, mesh=mesh, in_specs=by_shard, out_specs=result, check_vma=False)(kernel_SDV)


def stretch(vocabulary: int) -> int:
    """The length of a few equal stretches of the vocabulary, of whole lanes; all of it where that does not divide."""
    fits = [n for n in range(1, _MOST_STRETCHES + 1) if vocabulary % (n * 128) == 0]
    return vocabulary // max((n for n in fits if vocabulary // n >= _SHORTEST_STRETCH), default=1)


def _row_shards() -> int:
    """Parts that the rows are divided into by the partitioning under which this is traced."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape.get(axis, 1) for axis in sharding.TABLE["row_part"].split)


def _sums(rows: _Rows, weights_BL: jax.Array, groups_B: jax.Array, num_groups: int) -> LossSums:
    """By group. Selected, not multiplied by 0 or 1, so that a row that is not finite stays in its own group."""
    in_group_BG = groups_B[:, None] == jnp.arange(num_groups)
    tokens_B = jnp.sum(weights_BL > 0, axis=1, dtype=jnp.int32)

    def by_group(x_B: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(in_group_BG, x_B[:, None], jnp.zeros((), x_B.dtype)), axis=0, dtype=x_B.dtype)

    z_loss = jnp.sum(rows.z_loss_B)
    return LossSums(
        objective=jnp.sum(rows.loss_B) + z_loss,
        loss_G=by_group(rows.loss_B),
        weight_G=by_group(jnp.sum(weights_BL, axis=1, dtype=jnp.float32)),
        z_loss=z_loss,
        tokens_G=by_group(tokens_B),
    )


def token_losses(
    hidden_BLD: jax.Array, kernel_DV: jax.Array, targets_BL: jax.Array, chunk: int, softcap: float = 0.0
) -> jax.Array:
    """Cross-entropy of every position in nats, float32 [B, L]; for evaluation, where a loss belongs to its record.

    Args:
        hidden_BLD, kernel_DV, targets_BL, chunk, softcap: as for `cross_entropy_sums`, computed in the same dtypes.
    """
    length = hidden_BLD.shape[1]
    num_chunks = -(-length // chunk)
    size = -(-length // num_chunks)
    padding = (0, num_chunks * size - length)
    hidden_BLD = jnp.pad(hidden_BLD, ((0, 0), padding, (0, 0)))
    targets_BL = jnp.pad(targets_BL, ((0, 0), padding))
    compute_kernel_DV = sharding.constrain(kernel_DV.astype(hidden_BLD.dtype), ("embed_activation", "vocabulary"))

    def of_chunk(index: jax.Array) -> jax.Array:
        hidden, targets = (
            jax.lax.dynamic_slice_in_dim(x, index * size, size, axis=1) for x in (hidden_BLD, targets_BL)
        )
        log_z_BL, target_logit_BL, _, _ = _logits(hidden, compute_kernel_DV, targets, softcap)
        return log_z_BL - target_logit_BL

    losses_CBL = jax.lax.map(of_chunk, jnp.arange(num_chunks))
    return jnp.moveaxis(losses_CBL, 0, 1).reshape(len(hidden_BLD), -1)[:, :length]


def load_balancing(counts_YE: jax.Array, probabilities_YE: jax.Array, tokens: jax.Array) -> jax.Array:
    """E · Σₑ fₑ · pₑ, the mean over layers: Switch Transformer's loss (arXiv:2101.03961, eq. 4) for k experts a token.

    Experts used evenly give k. Of one layer it is what transformers' `load_balancing_loss_func` computes. A product of
    two means over the whole batch is no sum over its parts; it is linear in the probabilities, though, so that parts
    may give theirs with the counts of the whole batch, and add up.

    Args:
        counts_YE: tokens of the batch that have the expert among theirs; no gradient goes through them.
        probabilities_YE: Σ of the router's probabilities, over the batch or a part of it.
        tokens: of the batch, those that both count.
    """
    shares_YE = counts_YE / jnp.maximum(tokens, 1)
    means_YE = probabilities_YE / jnp.maximum(tokens, 1)
    return counts_YE.shape[-1] * jnp.mean(jnp.sum(shares_YE * means_YE, axis=-1))


def router_z_loss(z_Y: jax.Array, tokens: jax.Array) -> jax.Array:
    """The mean over tokens and layers of the router's squared log-sum-exp (ST-MoE, arXiv:2202.08906, eq. 5).

    Args:
        z_Y: its sum over the tokens of the batch or a part of it.
        tokens: of the batch.
    """
    return jnp.mean(z_Y) / jnp.maximum(tokens, 1)
