"""Causal attention within segments: a table of backends, and an error for what a backend cannot do.

Shapes: q_BLNH queries; k_BLKH and v_BLKH keys and values, K of them shared by N/K query heads each (grouped-query
attention, arXiv 2305.13245); segment_ids_BL. A token attends to the earlier-or-equal places of its own segment, or to
the nearest `Masking.window` of them. Padding (segment 0) is a segment like any other here: it sees itself, so no
softmax is empty, and nothing else sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from hephaestus_jax.errors import UserError
from hephaestus_jax.model import chunked_attention
from hephaestus_jax.products import einsum_float32, soft_capped

PLATFORMS = ("cpu", "gpu", "tpu")
QUERY_CHUNK = 256
MAX_CHUNKS = 32
_MASKED = -1e30  # swallows any score, so that exp(_MASKED - maximum) is 0; finite, so that nothing becomes NaN


@dataclass(frozen=True)
class Masking:
    """What the scores go through besides causality and segments; static, the same for every row.

    Attributes:
        window: the tokens that a query sees at most, itself included: key j only if i - window < j (transformers'
            `sliding_window`); 0 for all.
        softcap: scores become softcap · tanh(scores / softcap) before they are masked (Gemma 2, arXiv 2408.00118);
            0 for none.
        scale: what the products of queries and keys are multiplied by; 0 for 1/√H.
    """

    window: int = 0
    softcap: float = 0.0
    scale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("window", "softcap", "scale"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"Masking.{name} is {value}; give a number of at least 0 (0 for its default)")


PLAIN = Masking()

AttentionFunction = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""Queries, keys, values, segment ids -> [B, L, N, H], under a masking that is settled."""


class BackendFunction(Protocol):
    """What a backend computes: [B, L, N, H], for whole rows in their natural order."""

    def __call__(
        self,
        q_BLNH: jax.Array,
        k_BLKH: jax.Array,
        v_BLKH: jax.Array,
        segment_ids_BL: jax.Array,
        masking: Masking,
    ) -> jax.Array: ...


def reference(
    q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array, masking: Masking
) -> jax.Array:
    """Plain products; holds all B·N·L·L scores in float32. Returns [B, L, N, H] in the dtype of the queries."""
    rows, length, heads, head_dim = q_BLNH.shape
    kv_heads = k_BLKH.shape[2]
    q_BLKGH = q_BLNH.reshape(rows, length, kv_heads, heads // kv_heads, head_dim)
    scores = einsum_float32("blkgh,bmkh->bkglm", q_BLKGH, k_BLKH)
    scores = scores * masking.scale if masking.scale else scores / math.sqrt(head_dim)
    scores = soft_capped(scores, masking.softcap)
    # Added rather than selected: the backward pass of a sum keeps nothing, that of a selection keeps the mask per head.
    scores = scores + jnp.where(_seen(segment_ids_BL, masking.window), 0.0, _MASKED)[:, None, None]
    shares = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    # Divided after the product: H numbers per query instead of M, and one array of scores less for the backward pass.
    mixed = einsum_float32("bkglm,bmkh->blkgh", shares.astype(v_BLKH.dtype), v_BLKH)
    sums_BLKG = jnp.einsum("bkglm->blkg", shares)
    return (mixed / sums_BLKG[..., None]).reshape(q_BLNH.shape).astype(q_BLNH.dtype)


def xla(
    q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array, masking: Masking
) -> jax.Array:
    """`jax.nn.dot_product_attention` with the mask written out; holds all scores, as `reference` does."""
    mask_BLM = _seen(segment_ids_BL, masking.window)
    return jax.nn.dot_product_attention(
        q_BLNH, k_BLKH, v_BLKH, mask=mask_BLM[:, None], scale=masking.scale or None, implementation="xla"
    )


def chunked(
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segment_ids_BL: jax.Array,
    masking: Masking,
    chunk: int = 0,
) -> jax.Array:
    """`reference` for one stretch of queries after the other, each against the keys that one of them may see.

    Half the products of `reference`, fewer under a window, and scores of one stretch only: B·N·chunk·L at a time, in
    the backward pass too, which computes them again. Unless given, the chunk is 256, or L/32 for rows above 8,192
    tokens.
    """
    length = q_BLNH.shape[1]
    chunk = chunk or max(QUERY_CHUNK, -(-length // MAX_CHUNKS))
    return chunked_attention.attend(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, masking, chunk)


def splash(
    q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array, masking: Masking
) -> jax.Array:
    """The fused TPU kernel: never stores the scores, skips what causality and window mask; see `model.splash`."""
    from hephaestus_jax.model.splash import splash  # only where it is used: it takes 0.3 s to import

    return splash(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, masking)


def splash_fused(
    q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array, masking: Masking
) -> jax.Array:
    """`splash` with one backward kernel: fewer products, more memory."""
    from hephaestus_jax.model.splash import splash  # as above

    return splash(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, masking, fused_backward=True)


def triton(
    q_BLNH: jax.Array, k_BLKH: jax.Array, v_BLKH: jax.Array, segment_ids_BL: jax.Array, masking: Masking
) -> jax.Array:
    """A fused GPU kernel that never stores the scores; see `model.triton_attention`."""
    from hephaestus_jax.model.triton_attention import triton  # as above

    return triton(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, masking)


def _seen(segment_ids_BL: jax.Array, window: int) -> jax.Array:
    """Which keys each query sees: bool [B, L, M], as many keys as queries."""
    places = jnp.arange(segment_ids_BL.shape[1])
    seen_LM = places[:, None] >= places[None, :]
    if window:
        seen_LM &= places[:, None] - places[None, :] < window
    return seen_LM & (segment_ids_BL[:, :, None] == segment_ids_BL[:, None, :])


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
        window: whether it knows `Masking.window`.
        softcap: whether it knows `Masking.softcap`.
        float32_softmax: whether the softmax statistics are float32 in every dtype.
        length_multiple: what the row length must be a multiple of.
        recomputes: whether its backward pass computes the scores again by itself.
        reason: why `segment_ids` is False, for the error.
    """

    name: str
    function: BackendFunction | None
    platforms: tuple[str, ...] = PLATFORMS
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    grouped: bool = True
    segment_ids: bool = True
    window: bool = True
    softcap: bool = True
    float32_softmax: bool = True
    length_multiple: int = 1
    recomputes: bool = False
    reason: str = ""


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("reference", reference),
        Backend("chunked", chunked, recomputes=True),
        Backend("xla", xla, softcap=False),
        Backend("splash", splash, platforms=("tpu",), length_multiple=128, recomputes=True),
        Backend("splash_fused", splash_fused, platforms=("tpu",), length_multiple=128, recomputes=True),
        Backend(
            "triton", triton, platforms=("gpu",), dtypes=("bfloat16",), window=False, softcap=False,
            length_multiple=128, recomputes=True,
        ),
        Backend(
            "cudnn", None, platforms=("gpu",), dtypes=("bfloat16",), segment_ids=False,
            reason="jax.nn.dot_product_attention gives the cuDNN kernel no segment ids, and the offsets of packed"
            " segments that jax 0.10 has inside are wrong for grouped key/value heads (jax-ml/jax#39521)",
        ),
    )
}  # fmt: skip


def choose(name: str, *, dtype: str, length: int, grouped: bool, platform: str, masking: Masking = PLAIN) -> Backend:
    """The backend called `name`, once it is certain that it can do what is asked.

    Raises:
        UserError: there is none, or it cannot; the message names the backends that can.
    """
    backend = BACKENDS.get(name)
    if backend is None:
        raise UserError(f"ComputeConfig.attention is {name!r}; known backends: {', '.join(BACKENDS)}")
    asked = _Asked(dtype, length, grouped, platform, masking)
    if problem := _problem(backend, asked):
        able = [other.name for other in BACKENDS.values() if not _problem(other, asked)]
        raise UserError(f"attention backend {name!r} {problem}; set ComputeConfig.attention to {' or '.join(able)}")
    return backend


@dataclass(frozen=True)
class _Asked:
    """What a backend is to do."""

    dtype: str
    length: int
    grouped: bool
    platform: str
    masking: Masking


def _problem(backend: Backend, asked: _Asked) -> str:
    """What `backend` cannot do of what is asked; empty if it can."""
    if backend.function is None or not backend.segment_ids:
        return f"does not keep the segments of a packed row apart: {backend.reason}"
    if asked.platform not in backend.platforms:
        return f"runs on {', '.join(backend.platforms)}, not on {asked.platform}"
    if asked.dtype not in backend.dtypes:
        return f"computes in {', '.join(backend.dtypes)}, not in {asked.dtype}"
    if asked.grouped and not backend.grouped:
        return "needs as many key/value heads as query heads"
    if asked.masking.window and not backend.window:
        return f"knows no sliding window (of {asked.masking.window} tokens)"
    if asked.masking.softcap and not backend.softcap:
        return f"knows no soft-cap of the scores (of {asked.masking.softcap})"
    if asked.length % backend.length_multiple:
        return f"needs rows of a multiple of {backend.length_multiple} tokens, not {asked.length}"
    return ""
