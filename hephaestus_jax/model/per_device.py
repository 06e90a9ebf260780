"""Attention by a kernel that the compiler cannot divide: each device calls it with its own rows and query heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hephaestus_jax.sharding import Partitioning, active

Attend = Callable[..., jax.Array]
"""Queries [b, l, n, H], keys and values [b, l, k, H], segment ids [b, l], extra arguments -> [b, l, n, H]."""


def on_every_device(
    attend: Attend,
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segment_ids_BL: jax.Array,
    *extra: Any,
    extra_specs: tuple[Any, ...] = (),
) -> jax.Array:
    """`attend` with what each device holds of the arrays, which are the global ones: [B, L, N, H].

    Inside `with partitioning:` they are divided as its table says for the logical axes ("batch", "length", "heads" or
    "kv_heads", "head_dim"). Where there are fewer key/value heads than devices for heads, a device is given those that
    its query heads see. Outside, the arrays are on one device and handed over as they are.

    Args:
        extra: trees of arrays handed over after the others.
        extra_specs: how each of them is divided.
    """
    partitioning = active()
    if partitioning is None:
        return attend(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, *extra)
    head_axes = partitioning.split("heads")
    all_kv_heads = partitioning.split("kv_heads") != head_axes  # they are fewer than the devices of `head_axes`
    heads, group = heads_per_device(q_BLNH.shape[2], partitioning), q_BLNH.shape[2] // k_BLKH.shape[2]

    def on_device(
        q_blnh: jax.Array, k_blkh: jax.Array, v_blkh: jax.Array, segment_ids_bl: jax.Array, *extra: Any
    ) -> jax.Array:
        if all_kv_heads:
            first = jax.lax.axis_index(head_axes) * heads
            k_blkh, v_blkh = (heads_seen(x, first, heads, group) for x in (k_blkh, v_blkh))
        return attend(q_blnh, k_blkh, v_blkh, segment_ids_bl, *extra)

    axes = [("batch", "length", name, "head_dim") for name in ("heads", "kv_heads", "kv_heads")]
    specs = [partitioning.spec(names) for names in (*axes, ("batch", "length"))]
    # check_vma: a kernel does not say over which mesh axes its results differ
    return jax.shard_map(
        on_device,
        mesh=partitioning.mesh.abstract_mesh,
        in_specs=(*specs, *extra_specs),
        out_specs=specs[0],
        check_vma=False,
    )(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, *extra)


def heads_per_device(heads: int, partitioning: Partitioning | None) -> int:
    """Query heads of one device."""
    if partitioning is None:
        return heads
    return heads // math.prod(partitioning.mesh.shape[axis] for axis in partitioning.split("heads"))


def heads_seen(x_bLKH: jax.Array, first: jax.Array, heads: int, group: int) -> jax.Array:
    """Of all key/value heads those that the `heads` query heads from `first` on see, where `group` share one."""
    if group % heads == 0:  # all of them the same one
        return jax.lax.dynamic_slice_in_dim(x_bLKH, first // group, 1, axis=2)
    return jnp.take(x_bLKH, (first + jnp.arange(heads)) // group, axis=2)
