"""Causal attention within segments: a table of backends, and an error for what a backend cannot do.

Shapes: q_BLNH queries; k_BLKH and v_BLKH keys and values, K of them shared by N/K query heads each (grouped-query
attention, arXiv 2305.13245); segment_ids_BL. A token attends to the earlier-or-equal places of its own segment.
Padding (segment 0) is a segment like any other here: it sees itself, so no softmax is empty, and nothing else sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from hephaestus_jax.errors import UserError
from hephaestus_jax.products import einsum_float32

PLATFORMS = ("cpu", "gpu", "tpu")
QUERY_CHUNK = 256
MAX_CHUNKS = 32
_MASKED = -1e30  # swallows any score, so that exp(_MASKED - maximum) is 0; finite, so that nothing becomes NaN

AttentionFunction = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def reference(q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array) -> jax.Array:
    """Plain products; holds all B·N·L·L scores in float32. Returns [B, L, N, H] in the dtype of the queries."""
    return _attend(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, segment_ids_BL, first=0)


def xla(q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array) -> jax.Array:
    """`jax.nn.dot_product_attention` with the mask written out; holds all scores, as `reference` does."""
    places = jnp.arange(q_BLNH.shape[1])
    mask_BLM = _mask(segment_ids_BL, segment_ids_BL, places, places)
    return jax.nn.dot_product_attention(q_BLNH, k_BLKH, v_BLKH, mask=mask_BLM[:, None], implementation="xla")


def chunked(
    q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array, chunk: int = 0
) -> jax.Array:
    """`reference` for one stretch of queries after the other, each against the keys up to its end.

    Half the products of `reference`, and scores of one stretch only: B·N·chunk·L at a time, in the backward pass too,
    which computes them again. Unless given, the chunk is 256, or L/32 for rows above 8,192 tokens.
    """
    length = q_BLNH.shape[1]
    chunk = chunk or max(QUERY_CHUNK, -(-length // MAX_CHUNKS))
    # CSE is kept out: where the whole layer is computed again too, it would keep the scores from there.
    attend = jax.checkpoint(_attend, static_argnums=5)
    parts = []
    for first in range(0, length, chunk):
        end = min(first + chunk, length)
        queries, query_segments = q_BLNH[:, first:end], segment_ids_BL[:, first:end]
        parts.append(attend(queries, k_BLKH[:, :end], v_BLKH[:, :end], query_segments, segment_ids_BL[:, :end], first))
    return jnp.concatenate(parts, axis=1)


def _attend(
    q_BLNH: jax.Array,
    k_BMKH: jax.Array,
    v_BMKH: jax.Array,
    query_segments_BL: jax.Array,
    key_segments_BM: jax.Array,
    first: int,
) -> jax.Array:
    """Attention of the L queries from place `first` on over the first M keys; softmax statistics in float32."""
    rows, queries, heads, head_dim = q_BLNH.shape
    keys, kv_heads = k_BMKH.shape[1:3]
    q_BLKGH = q_BLNH.reshape(rows, queries, kv_heads, heads // kv_heads, head_dim)
    scores = einsum_float32("blkgh,bmkh->bkglm", q_BLKGH, k_BMKH)
    mask_BLM = _mask(query_segments_BL, key_segments_BM, first + jnp.arange(queries), jnp.arange(keys))
    # Added rather than selected: the backward pass of a sum keeps nothing, that of a selection keeps the mask per head.
    scores = scores / math.sqrt(head_dim) + jnp.where(mask_BLM, 0.0, _MASKED)[:, None, None]
    shares = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    # Divided after the product: H numbers per query instead of M, and one array of scores less for the backward pass.
    mixed = einsum_float32("bkglm,bmkh->blkgh", shares.astype(v_BMKH.dtype), v_BMKH)
    sums_BLKG = jnp.einsum("bkglm->blkg", shares)
    return (mixed / sums_BLKG[..., None]).reshape(q_BLNH.shape).astype(q_BLNH.dtype)


def _mask(
    query_segments_BL: jax.Array, key_segments_BM: jax.Array, query_places_L: jax.Array, key_places_M: jax.Array
) -> jax.Array:
    """Which keys each query sees: bool [B, L, M]."""
    causal_LM = query_places_L[:, None] >= key_places_M[None, :]
    return causal_LM & (query_segments_BL[:, :, None] == key_segments_BM[:, None, :])


@dataclass(frozen=True)
class Backend:
    """One way to compute attention, and what it can do.

    Attributes:
        name: as in `ComputeConfig.attention`.
        function: computes it; None for a backend that is known but cannot be used here, for `reason`.
        platforms: where it runs.
        dtypes: of queries, keys and values.
        grouped: whether it takes fewer key/value heads than query heads.
        segment_ids: whether it keeps the segments of a packed row apart.
        float32_softmax: whether the softmax statistics are float32 in every dtype.
        length_multiple: what the row length must be a multiple of.
        recomputes: whether its backward pass computes the scores again by itself.
        reason: why `segment_ids` is False, for the error.
    """

    name: str
    function: AttentionFunction | None
    platforms: tuple[str, ...] = PLATFORMS
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    grouped: bool = True
    segment_ids: bool = True
    float32_softmax: bool = True
    length_multiple: int = 1
    recomputes: bool = False
    reason: str = ""


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("reference", reference),
        Backend("chunked", chunked, recomputes=True),
        Backend("xla", xla),
        Backend(
            "cudnn", None, platforms=("gpu",), dtypes=("bfloat16",), segment_ids=False,
            reason="jax.nn.dot_product_attention gives the cuDNN kernel no segment ids",
        ),
    )
}  # fmt: skip


def choose(name: str, *, dtype: str, length: int, grouped: bool, platform: str) -> Backend:
    """The backend called `name`, once it is certain that it can do what is asked.

    Raises:
        UserError: there is none, or it cannot; the message names the backends that can.
    """
    backend = BACKENDS.get(name)
    if backend is None:
        raise UserError(f"ComputeConfig.attention is {name!r}; known backends: {', '.join(BACKENDS)}")
    if problem := _problem(backend, dtype, length, grouped, platform):
        able = [other.name for other in BACKENDS.values() if not _problem(other, dtype, length, grouped, platform)]
        raise UserError(f"attention backend {name!r} {problem}; set ComputeConfig.attention to {' or '.join(able)}")
    return backend


def _problem(backend: Backend, dtype: str, length: int, grouped: bool, platform: str) -> str:
    """What `backend` cannot do of what is asked; empty if it can."""
    if backend.function is None or not backend.segment_ids:
        return f"does not keep the segments of a packed row apart: {backend.reason}"
    if platform not in backend.platforms:
        return f"runs on {', '.join(backend.platforms)}, not on {platform}"
    if dtype not in backend.dtypes:
        return f"computes in {', '.join(backend.dtypes)}, not in {dtype}"
    if grouped and not backend.grouped:
        return "needs as many key/value heads as query heads"
    if length % backend.length_multiple:
        return f"needs rows of a multiple of {backend.length_multiple} tokens, not {length}"
    return ""
