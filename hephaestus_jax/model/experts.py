"""A mixture of experts in place of the feed-forward, computed without dropping a token, on one device or over a mesh.

Every token's feed-forward is the sum of its k likeliest experts', weighted by the router's probabilities. On a device:

    route       softmax over all experts in float32, the k largest, their shares
    sort        the T·k pairs (token, expert) by expert, so that each expert's rows lie together
    compute     the gated feed-forward of each expert's rows (`grouped_products`)
    combine     each token's rows, by their shares

Over a mesh this runs inside a `shard_map`. Rows and tokens stay where they are; what an expert's matrices are divided
over besides `expert` and `tensor` is gathered before use, and their gradients are scattered back as they are summed.
With `expert` above 1 a device holds some of the experts: the devices of that axis gather each other's tokens, each
computes its own experts' part of all of them, and the parts are summed and scattered back.

A device's share of the work then depends on the data: balanced it is T·k rows for its own T tokens, at worst those of
all `expert` devices. Rows are therefore computed in rounds of `ROUND` · T · k, as many as it takes: memory is that of
one round, nothing is lost whatever the load, and the backward pass computes the rows again.

Shapes: B rows, L tokens of a row, D embedding, E experts, F width of an expert, K experts of a token; within a device
T tokens, R pairs of a round.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from hephaestus_jax.config import ExpertsConfig
from hephaestus_jax.model.grouped_products import GroupedProduct
from hephaestus_jax.products import einsum_float32
from hephaestus_jax.sharding import Partitioning, active

ROUND = 1.25
"""Rows of a round, over those of a balanced load; only with experts divided over devices."""


Activation = Callable[[jax.Array], jax.Array]
"""Number by number."""


class Matrices(NamedTuple):
    """The experts' weights: gate and up [E, D, F], down [E, F, D]."""

    gate: jax.Array
    up: jax.Array
    down: jax.Array


class RouterSums(NamedTuple):
    """Sums over tokens, padding left out, by the parts of the batch that devices hold; add them up.

    Attributes:
        counts: int32 [..., E], tokens that have expert e among theirs.
        probabilities: float32 [..., E], Σ of the router's probabilities.
        z: float32 [...], Σ of the squared log-sum-exp of the router's logits.
    """

    counts: jax.Array
    probabilities: jax.Array
    z: jax.Array


def feed_forward(
    x_BLD: jax.Array,
    segment_ids_BL: jax.Array,
    router_DE: jax.Array,
    matrices: Matrices,
    config: ExpertsConfig,
    grouped: GroupedProduct,
    activation: Activation = jax.nn.silu,
) -> tuple[jax.Array, RouterSums]:
    """The experts' feed-forward [B, L, D] in the dtype of `x_BLD`, and the router's sums by part of the batch [P, ...].

    Args:
        x_BLD: after the norm; its dtype is that of the products, whose sums are float32.
        segment_ids_BL: 0 is padding, which is computed like any token but counts in no sum.
        router_DE: kernel of the router.
        matrices: of all experts.
        config: how many of them a token has.
        grouped: from `grouped_products`.
        activation: of the gates.
    """
    device = _Device(config, grouped, activation)
    matrices = Matrices(*(x.astype(x_BLD.dtype) for x in matrices))
    partitioning = active()
    if partitioning is None or partitioning.mesh.size == 1:
        return _on_device(device, x_BLD, segment_ids_BL, router_DE, matrices)
    tokens = ("batch", "length", "embed_activation")
    into, out_of = ("experts", "expert_embed", "expert_mlp"), ("experts", "expert_mlp", "expert_embed")
    of_tokens, of_segments = partitioning.spec(tokens), partitioning.spec(tokens[:2])
    of_matrices = tuple(partitioning.spec(axes) for axes in (into, into, out_of))
    of_sums = PartitionSpec(partitioning.split("batch") + partitioning.split("length"))

    def on_device(x_blD: jax.Array, segment_ids_bl: jax.Array, router_DE: jax.Array, *matrices: jax.Array) -> tuple:
        return _on_device(device, x_blD, segment_ids_bl, router_DE, Matrices(*matrices))

    device = device.on(partitioning)
    # check_vma: the kernels do not say over which axes their results differ
    return jax.shard_map(
        on_device,
        mesh=partitioning.mesh.abstract_mesh,
        in_specs=(of_tokens, of_segments, PartitionSpec(), *of_matrices),
        out_specs=(of_tokens, of_sums),
        check_vma=False,
    )(x_BLD, segment_ids_BL, router_DE, *matrices)


@dataclass(frozen=True)
class _Device:
    """What a device has to know.

    Attributes:
        config, grouped, activation: as of `feed_forward`.
        expert_axes: mesh axes that the experts are divided over.
        embed_axes: mesh axes that the matrices' other dimension is divided over, to be gathered.
        sum_axes: mesh axes that an expert's width is divided over: each device has a part of every sum.
    """

    config: ExpertsConfig
    grouped: GroupedProduct
    activation: Activation = jax.nn.silu
    expert_axes: tuple[str, ...] = ()
    embed_axes: tuple[str, ...] = ()
    sum_axes: tuple[str, ...] = ()

    def on(self, partitioning: Partitioning) -> _Device:
        """The same on a mesh; axes of one device are left out."""

        def over(name: str) -> tuple[str, ...]:
            return tuple(axis for axis in partitioning.split(name) if partitioning.mesh.shape[axis] > 1)

        return dataclasses.replace(
            self, expert_axes=over("experts"), embed_axes=over("expert_embed"), sum_axes=over("expert_mlp")
        )


def _on_device(
    device: _Device, x_blD: jax.Array, segment_ids_bl: jax.Array, router_DE: jax.Array, matrices: Matrices
) -> tuple[jax.Array, RouterSums]:
    """The part of one device; [b, l, D], and sums of [1, ...]."""
    x_TD = x_blD.reshape(-1, x_blD.shape[-1])
    shares_TK, experts_TK, sums = _route(device.config, x_TD, segment_ids_bl.reshape(-1), router_DE)
    if device.embed_axes:
        gate, up = (jax.lax.all_gather(x, device.embed_axes, axis=1, tiled=True) for x in matrices[:2])
        down = jax.lax.all_gather(matrices.down, device.embed_axes, axis=2, tiled=True)
        matrices = Matrices(gate, up, down)
    rows = x_TD.shape[0] * device.config.experts_per_token
    if device.expert_axes:
        # from here on the tokens of all devices that share the experts, and the numbers of the experts here
        x_TD, shares_TK, experts_TK = (
            jax.lax.all_gather(x, device.expert_axes, axis=0, tiled=True) for x in (x_TD, shares_TK, experts_TK)
        )
        experts_TK = experts_TK - jax.lax.axis_index(device.expert_axes) * len(matrices.gate)
        rows = -(-int(rows * ROUND) // 8) * 8
    y_TD = _compute(device, rows, x_TD, shares_TK, experts_TK, matrices).astype(x_TD.dtype)
    if device.expert_axes:
        y_TD = jax.lax.psum_scatter(y_TD, device.expert_axes, scatter_dimension=0, tiled=True)
    if device.sum_axes:
        y_TD = _sum_once(device.sum_axes, y_TD)
    return y_TD.reshape(x_blD.shape), sums


def _route(
    config: ExpertsConfig, x_TD: jax.Array, segment_ids_T: jax.Array, router_DE: jax.Array
) -> tuple[jax.Array, jax.Array, RouterSums]:
    """Each token's experts int32 [T, K], their shares float32 [T, K], and the sums [1, ...]."""
    logits_TE = einsum_float32("td,de->te", x_TD, router_DE.astype(x_TD.dtype))
    log_z_T = jax.nn.logsumexp(logits_TE, axis=-1)
    probabilities_TE = jnp.exp(logits_TE - log_z_T[:, None])
    _, experts_TK = jax.lax.top_k(jax.lax.stop_gradient(probabilities_TE), config.experts_per_token)
    # Selected by comparison: the gradient of a look-up would be a scatter.
    chosen_TKE = experts_TK[..., None] == jnp.arange(config.num_experts)
    shares_TK = jnp.sum(jnp.where(chosen_TKE, probabilities_TE[:, None], 0.0), axis=-1)
    if config.normalise:
        shares_TK = shares_TK / jnp.sum(shares_TK, axis=-1, keepdims=True)
    counts_T = segment_ids_T != 0
    sums = RouterSums(
        counts=jnp.sum(chosen_TKE & counts_T[:, None, None], axis=(0, 1), dtype=jnp.int32),
        probabilities=jnp.sum(jnp.where(counts_T[:, None], probabilities_TE, 0.0), axis=0),
        z=jnp.sum(jnp.where(counts_T, jnp.square(log_z_T), 0.0)),
    )
    return shares_TK, experts_TK, jax.tree.map(lambda x: x[None], sums)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_once(axes: tuple[str, ...], y_TD: jax.Array) -> jax.Array:
    """Σ over the devices of mesh axes, which all have it afterwards.

    The gradient of a sum is the sum of its gradients; here they are all the same, so that a product does.
    """
    return jax.lax.psum(y_TD, axes)


def _sum_once_forward(axes: tuple[str, ...], y_TD: jax.Array) -> tuple[jax.Array, None]:
    return _sum_once(axes, y_TD), None


def _sum_once_backward(axes: tuple[str, ...], _: None, d_y_TD: jax.Array) -> tuple[jax.Array]:
    return (d_y_TD * jax.lax.axis_size(axes),)


_sum_once.defvjp(_sum_once_forward, _sum_once_backward)


class _Pairs(NamedTuple):
    """The pairs (token, expert), numbered token by token, in the order of the experts here; other experts' come last.

    Attributes:
        order: int32 [T·K and a round more], the pair at each place.
        places: int32 [T, K], the place of each pair.
        ends: int32 [E], the place after each expert's last pair.
    """

    order: jax.Array
    places: jax.Array
    ends: jax.Array

    @staticmethod
    def sort(experts_TK: jax.Array, experts: int, rows: int) -> _Pairs:
        """Of experts 0 to `experts` - 1; others are elsewhere."""
        here_TK = (experts_TK >= 0) & (experts_TK < experts)
        keys = jnp.where(here_TK, experts_TK, experts).ravel()
        order = jnp.argsort(keys, stable=True)
        ends = jnp.searchsorted(keys[order], jnp.arange(experts), side="right", method="compare_all")
        places = jnp.argsort(order).reshape(experts_TK.shape)
        return _Pairs(jnp.pad(order, (0, rows)).astype(jnp.int32), places.astype(jnp.int32), ends.astype(jnp.int32))

    def round(self, index: jax.Array | int, rows: int) -> _Round:
        """The pairs at places `index` · `rows` and the following `rows` ones."""
        first = jnp.asarray(index * rows, jnp.int32)
        cut_E = jnp.clip(self.ends - first, 0, rows)
        here_TK = (self.places >= first) & (self.places < jnp.minimum(first + rows, self.ends[-1]))
        order_R = jax.lax.dynamic_slice_in_dim(self.order, first, rows)
        return _Round(order_R, jnp.where(here_TK, self.places - first, -1), jnp.diff(cut_E, prepend=0))


class _Round(NamedTuple):
    """Some of the sorted pairs: which [R], the row of each pair [T, K] or -1, and the rows of each expert [E]."""

    order: jax.Array
    rows: jax.Array
    sizes: jax.Array


def _compute(
    device: _Device,
    rows: int,
    x_TD: jax.Array,
    shares_TK: jax.Array,
    experts_TK: jax.Array,
    matrices: Matrices,
) -> jax.Array:
    """What the experts here add to each token, float32 [T, D], `rows` pairs at a time."""
    experts = len(matrices.gate)
    most = x_TD.shape[0] * min(shares_TK.shape[1], experts)  # pairs that can be of experts here
    rows = min(rows, most)
    pairs = _Pairs.sort(experts_TK, experts, rows)
    if rows == most:
        return _one_round(device, pairs.round(0, rows), x_TD, shares_TK, matrices)
    return _in_rounds(device, rows, pairs, x_TD, shares_TK, matrices)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_rounds(
    device: _Device, rows: int, pairs: _Pairs, x_TD: jax.Array, shares_TK: jax.Array, matrices: Matrices
) -> jax.Array:
    """The sum of as many rounds as there are pairs for."""

    def step(index: jax.Array, y_TD: jax.Array) -> jax.Array:
        return y_TD + _one_round(device, pairs.round(index, rows), x_TD, shares_TK, matrices)

    start = jnp.zeros(x_TD.shape, jnp.float32)
    return jax.lax.fori_loop(0, -(-pairs.ends[-1] // rows), step, start)


def _in_rounds_forward(device: _Device, rows: int, *operands: _Pairs | jax.Array | Matrices) -> tuple:
    return _in_rounds(device, rows, *operands), operands


def _in_rounds_backward(device: _Device, rows: int, operands: tuple, d_y_TD: jax.Array) -> tuple:
    pairs, *differentiated = operands

    def step(index: jax.Array, sums: tuple) -> tuple:
        here = pairs.round(index, rows)
        _, pull = jax.vjp(functools.partial(_one_round, device, here), *differentiated)
        return jax.tree.map(lambda x, y: x + y.astype(jnp.float32), sums, pull(d_y_TD))

    start = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tuple(differentiated))
    sums = jax.lax.fori_loop(0, -(-pairs.ends[-1] // rows), step, start)
    return None, *jax.tree.map(lambda x, y: x.astype(y.dtype), sums, tuple(differentiated))


_in_rounds.defvjp(_in_rounds_forward, _in_rounds_backward)


def _one_round(device: _Device, here: _Round, x_TD: jax.Array, shares_TK: jax.Array, matrices: Matrices) -> jax.Array:
    """What the pairs of a round add to each token, float32 [T, D]."""
    x_RD, grouped = _dispatch(x_TD, here), device.grouped
    wide_RF = device.activation(grouped(x_RD, matrices.gate, here.sizes)) * grouped(x_RD, matrices.up, here.sizes)
    return _combine(grouped(wide_RF, matrices.down, here.sizes), shares_TK, here)


# Both by hand: the plain gradient of a look-up is a scatter, and these are look-ups in both directions.


@jax.custom_vjp
def _dispatch(x_TD: jax.Array, here: _Round) -> jax.Array:
    """The row of each pair's token, [R, D]."""
    return x_TD[here.order // here.rows.shape[1]]


def _dispatch_forward(x_TD: jax.Array, here: _Round) -> tuple[jax.Array, _Round]:
    return _dispatch(x_TD, here), here


def _dispatch_backward(here: _Round, d_x_RD: jax.Array) -> tuple[jax.Array, None]:
    return _sum_of_pairs(d_x_RD, here, None).astype(d_x_RD.dtype), None


_dispatch.defvjp(_dispatch_forward, _dispatch_backward)


@jax.custom_vjp
def _combine(y_RD: jax.Array, shares_TK: jax.Array, here: _Round) -> jax.Array:
    """Each token's rows times their shares, float32 [T, D]."""
    return _sum_of_pairs(y_RD, here, shares_TK)


def _combine_forward(y_RD: jax.Array, shares_TK: jax.Array, here: _Round) -> tuple:
    return _combine(y_RD, shares_TK, here), (y_RD, shares_TK, here)


def _combine_backward(kept: tuple[jax.Array, jax.Array, _Round], d_y_TD: jax.Array) -> tuple:
    y_RD, shares_TK, here = kept
    d_y_RD = d_y_TD[here.order // here.rows.shape[1]]
    d_shares_R = jnp.sum(d_y_RD * y_RD.astype(jnp.float32), axis=-1)
    d_shares_TK = jnp.where(here.rows >= 0, d_shares_R[here.rows], 0.0)
    return (d_y_RD * shares_TK.ravel()[here.order][:, None]).astype(y_RD.dtype), d_shares_TK, None


_combine.defvjp(_combine_forward, _combine_backward)


def _sum_of_pairs(y_RD: jax.Array, here: _Round, shares_TK: jax.Array | None) -> jax.Array:
    """Σ of the rows of each token's pairs, times their shares if given, float32 [T, D]; one pair of each at a time."""
    total = jnp.zeros(())
    for k in range(here.rows.shape[1]):
        rows_T = here.rows[:, k]
        of_pair = jnp.where(rows_T[:, None] >= 0, y_RD[rows_T], 0).astype(jnp.float32)
        total = total + (of_pair if shares_TK is None else of_pair * shares_TK[:, k, None])
    return total
