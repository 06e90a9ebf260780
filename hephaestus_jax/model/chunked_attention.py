"""Attention for one stretch of queries after the other, with a backward pass written by hand.

The softmax of a stretch is made whole, so nothing is rescaled; what is kept for the backward pass is the result and the
logarithm of each softmax's normaliser, both named `products.PRODUCT` for remat policies. From these the shares are made
again (arXiv 2205.14135, appendix B, by stretches of queries only). Operands of every product lie as the product wants
them, which is what makes this the quicker way on CPUs: heads come before places throughout, and the gradients of keys
and values are kept transposed until the end.

Shapes: B rows, L queries and M keys of a stretch (or the row), K key/value heads of G query heads each, H head size.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from hephaestus_jax.products import PRODUCT, einsum_float32, precise

if TYPE_CHECKING:
    from hephaestus_jax.model.attention import Masking

MASKED = -1e30  # swallows any score, so that exp(MASKED - maximum) is 0; finite, so that nothing becomes NaN


class Stretch(NamedTuple):
    """Queries from `first` to `end`, and the keys from `start` to `end` that one of them may see."""

    first: int
    end: int
    start: int


def stretches(length: int, chunk: int, window: int) -> list[Stretch]:
    """The queries of a row in stretches of `chunk`."""
    firsts = range(0, length, chunk)
    return [Stretch(f, min(f + chunk, length), max(f - window + 1, 0) if window else 0) for f in firsts]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend(
    q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array, masking: Masking, chunk: int
) -> jax.Array:
    """Attention [B, L, N, H] in the dtype of the queries; scores exist for `chunk` queries at a time."""
    return _forward(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, masking, chunk)[0]


class _Kept(NamedTuple):
    """What the backward pass needs."""

    q_BKGLH: jax.Array
    k_BKLH: jax.Array
    v_BKLH: jax.Array
    segment_ids_BL: jax.Array
    mixed_BKGLH: jax.Array
    log_z_BKGL1: jax.Array


def _forward(
    q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array, masking: Masking, chunk: int
) -> tuple[jax.Array, _Kept]:
    q, k, v = _heads_first(q_BLNH, k_BLKH.shape[2]), k_BLKH.swapaxes(1, 2), v_BLKH.swapaxes(1, 2)
    parts, logs = [], []
    for at in stretches(q_BLNH.shape[1], chunk, masking.window):
        scores, _ = _scores(q, k, segment_ids_BL, at, masking)
        largest = jnp.max(scores, axis=-1, keepdims=True)
        shares = jnp.exp(scores - largest)
        z = jnp.sum(shares, axis=-1, keepdims=True)
        # Divided after the product: H numbers per query instead of M.
        mixed = einsum_float32("bkglm,bkmh->bkglh", shares.astype(v.dtype), v[:, :, at.start : at.end]) / z
        parts.append(mixed.astype(q.dtype))
        logs.append(largest + jnp.log(z))
    mixed = checkpoint_name(jnp.concatenate(parts, axis=3), PRODUCT)
    log_z = checkpoint_name(jnp.concatenate(logs, axis=3), PRODUCT)
    return _heads_last(mixed), _Kept(q, k, v, segment_ids_BL, mixed, log_z)


def _backward(
    masking: Masking, chunk: int, kept: _Kept, d_mixed_BLNH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    # Where the forward pass is computed again just before, the compiler would keep all its scores for this one.
    q, k, v, segment_ids_BL, mixed, log_z = jax.lax.optimization_barrier(kept)
    d_mixed = _heads_first(d_mixed_BLNH, k.shape[1])
    # Σ of shares times their gradients, by way of the result: H numbers per query instead of M.
    inner = jnp.sum(d_mixed.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1, keepdims=True)
    scale = _scale(masking, q.shape[-1])
    d_q = []
    d_k_BKHL, d_v_BKHL = (jnp.zeros((*k.shape[:2], k.shape[3], k.shape[2]), jnp.float32) for _ in range(2))
    with precise("float32" if q.dtype == jnp.float32 else "bfloat16"):
        for at in stretches(q.shape[3], chunk, masking.window):
            queries, keys = slice(at.first, at.end), slice(at.start, at.end)
            scores, capped = _scores(q, k, segment_ids_BL, at, masking)
            shares = jnp.exp(scores - log_z[:, :, :, queries])
            d_here = d_mixed[:, :, :, queries]
            d_shares = einsum_float32("bkglh,bkmh->bkglm", d_here, v[:, :, keys])
            d_scores = shares * (d_shares - inner[:, :, :, queries])
            if capped is not None:
                d_scores = d_scores * (1 - jnp.square(capped))
            shares, d_scores = shares.astype(v.dtype), d_scores.astype(q.dtype)
            d_q.append(einsum_float32("bkglm,bkmh->bkglh", d_scores, k[:, :, keys]))
            d_v_BKHL = d_v_BKHL.at[..., keys].add(einsum_float32("bkglh,bkglm->bkhm", d_here, shares))
            of_keys = einsum_float32("bkglh,bkglm->bkhm", q[:, :, :, queries], d_scores)
            d_k_BKHL = d_k_BKHL.at[..., keys].add(of_keys)
    d_q_BLNH = _heads_last(scale * jnp.concatenate(d_q, axis=3)).astype(q.dtype)
    d_k_BLKH, d_v_BLKH = (x.transpose(0, 3, 1, 2).astype(k.dtype) for x in (scale * d_k_BKHL, d_v_BKHL))
    return d_q_BLNH, d_k_BLKH, d_v_BLKH, None


attend.defvjp(_forward, _backward)


def _scores(
    q_BKGLH: jax.Array, k_BKLH: jax.Array, segment_ids_BL: jax.Array, at: Stretch, masking: Masking
) -> tuple[jax.Array, jax.Array | None]:
    """Masked scores of a stretch [B, K, G, L, M] in float32, and their tanh where they are soft-capped."""
    queries, keys = slice(at.first, at.end), slice(at.start, at.end)
    scores = einsum_float32("bkglh,bkmh->bkglm", q_BKGLH[:, :, :, queries], k_BKLH[:, :, keys])
    scores = scores * _scale(masking, q_BKGLH.shape[-1])
    capped = None
    if masking.softcap:
        capped = jnp.tanh(scores / masking.softcap)
        scores = masking.softcap * capped
    behind_LM = np.arange(at.first, at.end)[:, None] - np.arange(at.start, at.end)[None, :]
    seen_LM = (behind_LM >= 0) & (behind_LM < masking.window) if masking.window else behind_LM >= 0
    seen_BLM = seen_LM & (segment_ids_BL[:, queries, None] == segment_ids_BL[:, None, keys])
    return scores + jnp.where(seen_BLM, 0.0, MASKED)[:, None, None], capped


def _scale(masking: Masking, head_dim: int) -> float:
    return masking.scale or 1 / math.sqrt(head_dim)


def _heads_first(x_BLNH: jax.Array, kv_heads: int) -> jax.Array:
    rows, length, heads, head_dim = x_BLNH.shape
    return x_BLNH.reshape(rows, length, kv_heads, heads // kv_heads, head_dim).transpose(0, 2, 3, 1, 4)


def _heads_last(x_BKGLH: jax.Array) -> jax.Array:
    rows, kv_heads, group, length, head_dim = x_BKGLH.shape
    return x_BKGLH.transpose(0, 3, 1, 2, 4).reshape(rows, length, kv_heads * group, head_dim)
