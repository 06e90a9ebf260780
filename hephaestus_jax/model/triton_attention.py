"""JAX's fused GPU attention in Triton, which keeps segments apart and stores no scores.

Its values and gradients were compared with the reference in Pallas' interpret mode, and it was lowered for CUDA; it has
neither run on a GPU nor been measured there. Block sizes are the library's own.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import attention as kernels

from hephaestus_jax.model.attention import Masking
from hephaestus_jax.model.per_device import on_every_device


def triton(
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segment_ids_BL: jax.Array,
    masking: Masking,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Causal attention within segments by the Triton kernel: [B, L, N, H] in the dtype of the queries.

    The backward pass computes the scores again from the log-sum-exp of each query, which is kept with the output.
    Softmax statistics are float32. The kernel wants a key and a value for each query head, so that they are repeated.

    Args:
        masking: of which it knows the scale only.
        interpret: emulates the kernel operation by operation, on any platform; for tests.
    """
    if masking.window or masking.softcap:
        raise ValueError(f"the Triton kernel has neither window nor soft-cap, but {masking} is asked for")
    scale = masking.scale or 1 / math.sqrt(q_BLNH.shape[-1])
    attend = functools.partial(_attend, scale, interpret)
    return on_every_device(attend, q_BLNH, k_BLKH, v_BLKH, segment_ids_BL)


def _attend(
    scale: float,
    interpret: bool,
    q_blnh: jax.Array,
    k_blkh: jax.Array,
    v_blkh: jax.Array,
    segment_ids_bl: jax.Array,
) -> jax.Array:
    k_blnh, v_blnh = (jnp.repeat(x, q_blnh.shape[2] // x.shape[2], axis=2) for x in (k_blkh, v_blkh))
    segment_ids_bl = jnp.asarray(segment_ids_bl)
    return kernels.mha(q_blnh, k_blnh, v_blnh, segment_ids_bl, sm_scale=scale, causal=True, interpret=interpret)
