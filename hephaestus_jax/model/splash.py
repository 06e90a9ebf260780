"""Splash attention: JAX's fused TPU kernel, which keeps segments apart, skips masked blocks and stores no scores.

Each device attends with its own rows and query heads (`per_device`). Where the length is split over devices too
(context parallelism), each gathers the keys and values of the whole row and attends with its own queries; in the order
of `context_attention.row_order` all of them have the same number of blocks to compute.

    out = splash(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, Masking(window=4096))
    out = splash(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, Masking(), places=row_order(L, C))  # over context

Shapes as in `attention`; within a device b rows, l queries, n query heads.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import NamedSharding, PartitionSpec

from hephaestus_jax.errors import UserError
from hephaestus_jax.model.attention import Masking
from hephaestus_jax.model.context_attention import row_order
from hephaestus_jax.model.per_device import heads_per_device, on_every_device
from hephaestus_jax.products import PRODUCT
from hephaestus_jax.sharding import Partitioning, active

LANES = 128
"""The kernel works on blocks of a multiple of this many queries and keys."""

MAX_BLOCK = 512
"""Scores of one block are float32 in a core's vector memory, several times in the backward pass: 1 MiB each."""


def block_size(length: int) -> int:
    """The largest multiple of `LANES` up to `MAX_BLOCK` that divides `length`, which is such a multiple."""
    return max(block for block in range(LANES, MAX_BLOCK + 1, LANES) if length % block == 0)


def splash(
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segment_ids_BL: jax.Array,
    masking: Masking,
    *,
    places: np.ndarray | None = None,
    fused_backward: bool = False,
    interpret: bool = False,
) -> jax.Array:
    """Causal attention within segments by the splash kernel: [B, L, N, H] in the dtype of the queries.

    The backward pass computes the scores again from the log-sum-exp of each query, which is kept with the output;
    both are named `products.PRODUCT` for remat policies. Softmax statistics are float32. The scale is multiplied
    into the queries, in their dtype.

    Args:
        places: `row_order` where the length is split over devices; None for whole rows in their natural order.
        fused_backward: one kernel for all three gradients, which computes the scores once (5 products instead of 7),
            and writes the queries' gradient in parts, one for every 1,024 keys, that are summed afterwards: for a row
            of 8,192 tokens 8 times the memory of the queries.
        interpret: emulates the kernel operation by operation, on any platform; for tests.

    Raises:
        UserError: a row, or a device's two chunks of one, are no multiple of 128 tokens each.
        ValueError: `places` is not the order of the active partitioning, or is missing.
    """
    partitioning = active()
    parts = partitioning.context if partitioning else 1
    natural = row_order(q_BLNH.shape[1], parts)
    if not (parts == 1 if places is None else np.array_equal(places, natural)):
        raise ValueError(f"places are not the order in which {parts} devices hold a row; give those of row_order")
    heads = heads_per_device(q_BLNH.shape[2], partitioning)
    kernel = _kernel(heads, natural, parts, masking, fused_backward, interpret)
    scale = masking.scale or 1 / math.sqrt(q_BLNH.shape[-1])
    return on_every_device(
        functools.partial(_attend, parts),
        q_BLNH * jnp.asarray(scale, q_BLNH.dtype),
        k_BLKH,
        v_BLKH,
        segment_ids_BL,
        kernel,
        extra_specs=(_specs(kernel, partitioning),),
    )


def whole_rows(x_bl: jax.Array, parts: int) -> jax.Array:
    """[b, L, ...] in natural order, from the parts [b, l, ...] of `row_order` on the devices of mesh axis `context`.

    It travels as a matrix: only so does libtpu 0.0.42 make a reduce-scatter of the backward pass (v5e and v5p, jax
    0.10.2), and a full all-reduce, twice the bytes, of more dimensions.
    """
    if parts == 1:
        return x_bl
    b, _, *rest = x_bl.shape
    x_lM = jnp.swapaxes(x_bl, 0, 1).reshape(x_bl.shape[1], -1)
    chunks = jax.lax.all_gather(x_lM, "context").reshape(parts, 2, -1, x_lM.shape[1])
    # the devices' first chunks, then their second ones from the last device to the first
    x_LM = jnp.concatenate([chunks[:, 0], chunks[::-1, 1]]).reshape(-1, x_lM.shape[1])
    return jnp.swapaxes(x_LM.reshape(-1, b, *rest), 0, 1)


def _attend(
    parts: int, q_blnh: jax.Array, k_blkh: jax.Array, v_blkh: jax.Array, segment_ids_bl: jax.Array, kernel: Any
) -> jax.Array:
    """The kernel on a device, row by row; its arrays have the heads before the length."""
    k_bLkh, v_bLkh, key_segments_bL = (whole_rows(x, parts) for x in (k_blkh, v_blkh, segment_ids_bl))
    segments = kernels.SegmentIds(q=segment_ids_bl, kv=key_segments_bL)
    heads_first = (jnp.swapaxes(x, 1, 2) for x in (q_blnh, k_bLkh, v_bLkh))
    return jnp.swapaxes(jax.vmap(kernel)(*heads_first, segments), 1, 2)


def _kernel(heads: int, places: np.ndarray, parts: int, masking: Masking, fused_backward: bool, interpret: bool) -> Any:
    """The kernel for `heads` query heads at these places of the row, each of `parts` devices holding its part of them.

    It is a tree of the arrays that say which blocks are computed; they are divided as the queries are.

    Raises:
        UserError: blocks do not divide the row, or the chunks of it that a device holds.
    """
    length, chunks = len(places), 2 * parts if parts > 1 else 1
    if length % (chunks * LANES):
        each = f"{chunks} chunks, two for each device of mesh axis context={parts}, each " if parts > 1 else ""
        raise UserError(
            f"splash attention needs rows of {each}a multiple of {LANES} tokens, not rows of {length}; pack rows"
            f" of a multiple of {chunks * LANES} tokens, or set ComputeConfig.attention to 'chunked'"
        )
    block = block_size(length // chunks)
    shape = (length, length)
    mask = masks.LocalMask(shape, (masking.window - 1, 0), 0) if masking.window else masks.CausalMask(shape)
    mask.q_sequence = places
    # Fused, larger key blocks: fewer parts of the queries' gradient, for 3 % more scores at 8,192 tokens.
    key_block = 2 * block if fused_backward and length // chunks % (2 * block) == 0 else block
    sizes = kernels.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block,
        block_q_dkv=block, block_kv_dkv=key_block, block_kv_dkv_compute=block,
        block_q_dq=None if fused_backward else block, block_kv_dq=None if fused_backward else block,
        use_fused_bwd_kernel=fused_backward,
    )  # fmt: skip
    return kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        attn_logits_soft_cap=masking.softcap or None,
        head_shards=1,  # all heads see the same, so that one description does for every device
        q_seq_shards=parts,
        residual_checkpoint_name=PRODUCT,
        interpret=interpret,
    )


def _specs(kernel: Any, partitioning: Partitioning | None) -> Any:
    """How the kernel's arrays are divided over the mesh: as the queries of a row."""
    if partitioning is None:
        return None
    by_queries = PartitionSpec(None, "context" if partitioning.context > 1 else None)
    return kernel.manual_sharding_spec(NamedSharding(partitioning.mesh, by_queries))
