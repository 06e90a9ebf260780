"""Attention over rows whose tokens are divided over devices (context parallelism), balanced for the causal mask.

A query sees the tokens before it, so that equal stretches of a row are unequal work. Of 2C equal chunks device c of C
therefore holds chunks c and 2C-1-c ("zig-zag", as in Llama 3, arXiv 2407.21783, section 3.3.2): whatever the device,
its queries meet 2C+1 chunks of keys. Every device gathers keys and values of the whole row, few of them under
grouped-query attention, and goes through its pairs of a block of queries and a block of keys with an online softmax
(arXiv 2205.14135), so that scores exist for one pair at a time, in the backward pass too.

    order = row_order(length, parts)                       # index in zig-zag order -> place in the row
    out = in_parts(q, k, v, segment_ids, masking, order)   # arrays in zig-zag order, inside `with partitioning:`

Shapes: B rows, L tokens of a row, N query heads, K key/value heads, H head dimension. Within a device b rows, l tokens,
cut into blocks: I blocks of queries, J blocks of keys of the whole row, S tokens of a block, G query heads of each
key/value head.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from hephaestus_jax.errors import UserError
from hephaestus_jax.model.attention import AttentionFunction, Masking
from hephaestus_jax.model.per_device import on_every_device
from hephaestus_jax.products import PRODUCT, einsum_float32, soft_capped
from hephaestus_jax.sharding import active

MAX_BLOCK = 512
"""Tokens of a block at most: its scores take N · 512 · 512 float32 numbers for each row of a device, 1 MiB a head."""

_MASKED = -1e30  # as in `attention`


def row_order(length: int, parts: int) -> np.ndarray:
    """Zig-zag order: the place in the row of each index, int32 [L]; of `parts` equal stretches each is a device's.

    Raises:
        UserError: the row does not divide into twice as many chunks.
    """
    if parts == 1:
        return np.arange(length, dtype=np.int32)
    if length % (2 * parts):
        raise UserError(
            f"rows of {length} tokens do not divide into {2 * parts} chunks, two for each device of mesh axis"
            f" context={parts}; choose MeshConfig.context so that twice its size divides the length, or pack rows of a"
            f" multiple of {2 * parts} tokens"
        )
    chunks = np.arange(length, dtype=np.int32).reshape(2 * parts, -1)
    return np.concatenate([chunks[[part, 2 * parts - 1 - part]].ravel() for part in range(parts)])


def in_parts(
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segment_ids_BL: jax.Array,
    masking: Masking,
    places: np.ndarray,
) -> jax.Array:
    """Attention by pairs of blocks: [B, L, N, H] in the dtype of the queries; see the module.

    Softmax statistics and sums are float32. The backward pass gathers keys and values again and computes the scores
    again from the log-sum-exp of each query, which is kept with the output; both are named `products.PRODUCT`.

    Raises:
        ValueError: `places` is not the zig-zag order of the active partitioning.
    """
    partitioning = active()
    if partitioning is None or not np.array_equal(places, row_order(len(places), partitioning.context)):
        raise ValueError("rows are in parts only inside `with partitioning:`, and there in the zig-zag order of it")
    plan = Plan.of(len(places), partitioning.context, masking)
    return on_every_device(functools.partial(_attend, plan), q_BLNH, k_BLKH, v_BLKH, segment_ids_BL)


def choose(name: str, masking: Masking, places: np.ndarray) -> AttentionFunction:
    """The attention over parts of rows for the backend called `name`.

    Raises:
        UserError: it computes whole rows only; the message names those that do not.
    """
    if name not in BACKENDS:
        raise UserError(
            f"attention backend {name!r} wants whole rows, and MeshConfig.context divides them; set"
            f" ComputeConfig.attention to {' or '.join(BACKENDS)}, or MeshConfig.context to 1"
        )
    return functools.partial(BACKENDS[name], masking=masking, places=places)


def _splash(
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segment_ids_BL: jax.Array,
    masking: Masking,
    places: np.ndarray,
    fused_backward: bool = False,
) -> jax.Array:
    from hephaestus_jax.model.splash import splash  # Pallas is imported where it is used

    return splash(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, masking, places=places, fused_backward=fused_backward)


BACKENDS: dict[str, Callable[..., jax.Array]] = {
    "chunked": in_parts,
    "splash": _splash,
    "splash_fused": functools.partial(_splash, fused_backward=True),
}
"""`ComputeConfig.attention` -> its function for rows in parts."""


@dataclass(frozen=True)
class Plan:
    """Which blocks of queries meet which blocks of keys on which device.

    Attributes:
        parts: C, devices that share a row.
        block: S, tokens of a block.
        chunk_blocks: blocks of a chunk; a device has two chunks of queries.
        masking: what the scores go through.
    """

    parts: int
    block: int
    chunk_blocks: int
    masking: Masking

    @staticmethod
    def of(length: int, parts: int, masking: Masking) -> Plan:
        """The plan of the largest blocks up to `MAX_BLOCK` that divide a chunk."""
        chunk = length // (2 * parts)
        blocks = next(count for count in range(-(-chunk // MAX_BLOCK), chunk + 1) if chunk % count == 0)
        return Plan(parts, chunk // blocks, blocks, masking)

    def pairs(self) -> np.ndarray:
        """For every device the pairs that it computes: int32 [C, P, 4].

        A pair is the block of queries by its number on the device and by its place in the row, and the block of keys by
        its number among the gathered ones and by its place in the row. Every device has the same number: P is
        chunk_blocks² · (2C-1) + chunk_blocks · (chunk_blocks+1) without a window. Under a window devices with early
        blocks have a few less; they are filled up with pairs whose keys are after the queries, which see nothing.
        """
        per_device = []
        for part in range(self.parts):
            own = [chunk * self.chunk_blocks + i for chunk in self._chunks(part) for i in range(self.chunk_blocks)]
            # The block's own keys first: from then on no query's maximum is that of an empty set.
            pairs = [
                (i, place, self._gathered(key), key)
                for i, place in enumerate(own)
                for key in range(place, self._first_key(place) - 1, -1)
            ]
            per_device.append(pairs)
        longest = max(map(len, per_device))
        nothing = (0, -1, 0, 0)  # a query before the row sees no key
        return np.array([pairs + [nothing] * (longest - len(pairs)) for pairs in per_device], np.int32)

    def _chunks(self, part: int) -> tuple[int, int]:
        return part, 2 * self.parts - 1 - part

    def _first_key(self, place: int) -> int:
        """The first block of keys that a block of queries sees."""
        window = self.masking.window
        return max(0, (place * self.block - window + 1) // self.block) if window else 0

    def _gathered(self, place: int) -> int:
        """Where a block of the row is among those gathered from all devices."""
        chunk, block = divmod(place, self.chunk_blocks)
        part, second = (chunk, 0) if chunk < self.parts else (2 * self.parts - 1 - chunk, 1)
        return (2 * part + second) * self.chunk_blocks + block

    def here(self, q_blNH: jax.Array, segments_bl: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The pairs of the device that asks, int32 [P, 4], and the segments of its tokens.

        Tied to the queries: what depends on pairs and segments alone is the same in every layer, and would be computed
        once and kept, which here is the masks of all pairs.
        """
        pairs = jnp.asarray(self.pairs())[jax.lax.axis_index("context")]
        return jax.lax.optimization_barrier((pairs, segments_bl, q_blNH))[:2]

    def cut(self, x_bl: jax.Array) -> jax.Array:
        """[b, l, ...] as blocks [I, b, S, ...]."""
        return jnp.moveaxis(x_bl.reshape(x_bl.shape[0], -1, self.block, *x_bl.shape[2:]), 1, 0)

    def join(self, x_IbS: jax.Array) -> jax.Array:
        """Blocks [I, b, S, ...] as [b, l, ...]."""
        x_bIS = jnp.moveaxis(x_IbS, 0, 1)
        return x_bIS.reshape(x_bIS.shape[0], -1, *x_bIS.shape[3:])

    def gather(self, x_bl: jax.Array) -> jax.Array:
        """The blocks of all devices that share the row: [J, b, S, ...]."""
        return jax.lax.all_gather(self.cut(x_bl), "context", axis=0, tiled=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: Plan, q_blNH: jax.Array, k_blKH: jax.Array, v_blKH: jax.Array, segments_bl: jax.Array) -> jax.Array:
    """Attention of a device's own queries over the keys of the whole rows."""
    return _forward(plan, q_blNH, k_blKH, v_blKH, segments_bl)[0]


def _forward(plan: Plan, q_blNH: jax.Array, k_blKH: jax.Array, v_blKH: jax.Array, segments_bl: jax.Array) -> tuple:
    pairs, tied_segments_bl = plan.here(q_blNH, segments_bl)
    q_IbSKGH, segments_IbS = plan.cut(_grouped(q_blNH, k_blKH.shape[2])), plan.cut(tied_segments_bl)
    k_JbSKH, v_JbSKH, segments_JbS = plan.gather(k_blKH), plan.gather(v_blKH), plan.gather(tied_segments_bl)

    def step(carry: Any, pair: jax.Array) -> tuple[Any, None]:
        i, _, j, _ = pair
        mixed, maximum, total = (_at(x, i) for x in carry)
        q, k, v = _at(q_IbSKGH, i), _at(k_JbSKH, j), _at(v_JbSKH, j)
        scores, mask = _scores(plan, pair, q, k, _at(segments_IbS, i), _at(segments_JbS, j))
        scores = scores + mask
        higher = jnp.maximum(maximum, jnp.max(scores, axis=-1))
        shares, kept = jnp.exp(scores - higher[..., None]), jnp.exp(maximum - higher)
        added = einsum_float32("bkgqm,bmkh->bkgqh", shares.astype(v.dtype), v)
        new = (mixed * kept[..., None] + added, higher, total * kept + jnp.sum(shares, axis=-1))
        return tuple(jax.lax.dynamic_update_index_in_dim(x, y, i, 0) for x, y in zip(carry, new, strict=True)), None

    blocks, rows, block, kv_heads, group, head_dim = q_IbSKGH.shape
    statistics = (blocks, rows, kv_heads, group, block)
    start = (jnp.zeros((*statistics, head_dim)), jnp.full(statistics, _MASKED), jnp.zeros(statistics))
    (mixed, maximum, total), _ = jax.lax.scan(step, start, pairs)
    out_IbSKGH = jnp.moveaxis(mixed / total[..., None], 4, 2).astype(q_blNH.dtype)
    out = checkpoint_name(plan.join(out_IbSKGH).reshape(q_blNH.shape), PRODUCT)
    log_sum = checkpoint_name(maximum + jnp.log(total), PRODUCT)
    return out, (q_blNH, k_blKH, v_blKH, segments_bl, out, log_sum)


def _backward(plan: Plan, kept: tuple[jax.Array, ...], d_out_blNH: jax.Array) -> tuple:
    q_blNH, k_blKH, v_blKH, segments_bl, out_blNH, log_sum_IbKGS = kept
    kv_heads = k_blKH.shape[2]
    pairs, segments_bl = plan.here(q_blNH, segments_bl)
    q_IbSKGH, segments_IbS = plan.cut(_grouped(q_blNH, kv_heads)), plan.cut(segments_bl)
    d_out_IbSKGH = plan.cut(_grouped(d_out_blNH, kv_heads))
    k_JbSKH, v_JbSKH, segments_JbS = plan.gather(k_blKH), plan.gather(v_blKH), plan.gather(segments_bl)
    products = jnp.sum(d_out_blNH.astype(jnp.float32) * out_blNH.astype(jnp.float32), axis=-1)
    products_IbKGS = jnp.moveaxis(plan.cut(_grouped(products, kv_heads)), 2, 4)

    def step(carry: Any, pair: jax.Array) -> tuple[Any, None]:
        i, _, j, _ = pair
        q, k, v, d_out = _at(q_IbSKGH, i), _at(k_JbSKH, j), _at(v_JbSKH, j), _at(d_out_IbSKGH, i)
        scores, mask = _scores(plan, pair, q, k, _at(segments_IbS, i), _at(segments_JbS, j))
        shares = jnp.exp(scores + mask - _at(log_sum_IbKGS, i)[..., None])
        d_shares = einsum_float32("bqkgh,bmkh->bkgqm", d_out, v)
        d_scores = shares * (d_shares - _at(products_IbKGS, i)[..., None]) * _scale(plan, q)
        if plan.masking.softcap:
            d_scores = d_scores * (1 - jnp.square(scores / plan.masking.softcap))
        d_scores = d_scores.astype(q.dtype)
        added = (
            einsum_float32("bkgqm,bmkh->bqkgh", d_scores, k),
            einsum_float32("bkgqm,bqkgh->bmkh", d_scores, q),
            einsum_float32("bkgqm,bqkgh->bmkh", shares.astype(q.dtype), d_out),
        )
        return tuple(x.at[place].add(y) for x, y, place in zip(carry, added, (i, j, j), strict=True)), None

    start = tuple(jnp.zeros(x.shape) for x in (q_IbSKGH, k_JbSKH, v_JbSKH))
    (d_q, d_k, d_v), _ = jax.lax.scan(step, start, pairs)
    d_k, d_v = (jax.lax.psum_scatter(x, "context", scatter_dimension=0, tiled=True) for x in (d_k, d_v))
    d_q_blNH = plan.join(d_q).reshape(q_blNH.shape).astype(q_blNH.dtype)
    return d_q_blNH, plan.join(d_k).astype(k_blKH.dtype), plan.join(d_v).astype(v_blKH.dtype), None


_attend.defvjp(_forward, _backward)


def _scores(
    plan: Plan,
    pair: jax.Array,
    q_bSKGH: jax.Array,
    k_bSKH: jax.Array,
    query_segments_bS: jax.Array,
    key_segments_bS: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The scores of a pair of blocks, soft-capped, and what to add so that what is not seen does not count.

    Both float32, [b, K, G, queries, keys] and [b, 1, 1, queries, keys].
    """
    masking = plan.masking
    scores = einsum_float32("bqkgh,bmkh->bkgqm", q_bSKGH, k_bSKH) * _scale(plan, q_bSKGH)
    scores = soft_capped(scores, masking.softcap)
    _, query_block, _, key_block = pair
    within = jnp.arange(plan.block)
    before = (query_block * plan.block + within)[:, None] - (key_block * plan.block + within)[None, :]
    seen = before >= 0
    if masking.window:
        seen &= before < masking.window
    seen_bSS = seen & (query_segments_bS[:, :, None] == key_segments_bS[:, None, :])
    return scores, jnp.where(seen_bSS, 0.0, _MASKED)[:, None, None]


def _scale(plan: Plan, q: jax.Array) -> float:
    return plan.masking.scale or 1 / math.sqrt(q.shape[-1])


def _grouped(x_blN: jax.Array, kv_heads: int) -> jax.Array:
    """[b, l, N, ...] as [b, l, K, G, ...]."""
    return x_blN.reshape(*x_blN.shape[:2], kv_heads, -1, *x_blN.shape[3:])


def _at(x: jax.Array, index: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, index, 0, keepdims=False)
