"""Products of rows with one matrix per group of rows, where the groups are as large as they happen to be.

    out_RF = grouped(rows_RD, matrices_EDF, sizes_E)      # rows of group 0 first, then those of group 1, ...

Rows after the last group give rows that mean nothing (never read them); their gradient is ignored.

Shapes: R rows, E groups, D and F the matrices' sides, T rows of a tile.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hephaestus_jax.errors import UserError
from hephaestus_jax.products import einsum_float32

GroupedProduct = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Rows [R, D], matrices [E, D, F] of the same dtype and sizes int32 [E] -> [R, F] of that dtype, summed in float32."""

MAX_TILE = 256
KERNEL_TILE, KERNEL_LANES = (512, 1024, 1024), 128
"""Rows, and sides of a matrix, that the TPU kernel works on at a time: 5 MiB of a core's vector memory, twice over."""


def ragged_dot(rows_RD: jax.Array, matrices_EDF: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """The compiler's own. Every row meets every matrix on CPUs, and on TPUs (jax 0.10) in the matrices' gradient."""
    wide = jax.lax.ragged_dot(rows_RD, matrices_EDF, sizes_E, preferred_element_type=jnp.float32)
    return wide.astype(rows_RD.dtype)


@jax.custom_vjp
def tiled(rows_RD: jax.Array, matrices_EDF: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """One tile of rows after the other, each with the matrix of its group: less than a tile per group is wasted."""
    return _of_tiles(rows_RD, matrices_EDF, sizes_E, "td,df->tf")


def _tiled_forward(rows_RD: jax.Array, matrices_EDF: jax.Array, sizes_E: jax.Array) -> tuple:
    return tiled(rows_RD, matrices_EDF, sizes_E), (rows_RD, matrices_EDF, sizes_E)


def _tiled_backward(kept: tuple[jax.Array, ...], d_out_RF: jax.Array) -> tuple:
    rows_RD, matrices_EDF, sizes_E = kept
    return (
        _of_tiles(d_out_RF, matrices_EDF, sizes_E, "tf,df->td"),
        _of_matrices(rows_RD, d_out_RF, sizes_E).astype(matrices_EDF.dtype),
        None,
    )


tiled.defvjp(_tiled_forward, _tiled_backward)


def _of_tiles(rows_RX: jax.Array, matrices_EDF: jax.Array, sizes_E: jax.Array, subscripts: str) -> jax.Array:
    """The product of every tile with its group's matrix."""
    tile = _tile(len(rows_RX), len(matrices_EDF))
    padded_RX = jnp.pad(rows_RX, ((0, tile), (0, 0)))
    sides = dict(zip("df", matrices_EDF.shape[1:], strict=True))

    def step(index: jax.Array, out: jax.Array) -> jax.Array:
        group, first, _ = _find(index, sizes_E, tile)
        rows = jax.lax.dynamic_slice_in_dim(padded_RX, first, tile)
        product = einsum_float32(subscripts, rows, matrices_EDF[group])
        # What a tile writes past the end of its group, the next group's first tile writes over.
        return jax.lax.dynamic_update_slice_in_dim(out, product.astype(out.dtype), first, 0)

    out = jnp.zeros((len(padded_RX), sides[subscripts[-1]]), rows_RX.dtype)
    return jax.lax.fori_loop(0, _tiles(sizes_E, tile)[-1], step, out)[: len(rows_RX)]


def _of_matrices(rows_RD: jax.Array, d_out_RF: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """The gradient of every group's matrix, float32 [E, D, F]."""
    tile = _tile(len(rows_RD), len(sizes_E))
    padded = [jnp.pad(x, ((0, tile), (0, 0))) for x in (rows_RD, d_out_RF)]

    def step(index: jax.Array, sums: jax.Array) -> jax.Array:
        group, first, count = _find(index, sizes_E, tile)
        rows, d_out = (jax.lax.dynamic_slice_in_dim(x, first, tile) for x in padded)
        of_group = (jnp.arange(tile) < count)[:, None]  # on both sides: 0 · inf is NaN
        rows, d_out = jnp.where(of_group, rows, 0), jnp.where(of_group, d_out, 0)
        return sums.at[group].add(einsum_float32("td,tf->df", rows, d_out))

    sums = jnp.zeros((len(sizes_E), rows_RD.shape[1], d_out_RF.shape[1]), jnp.float32)
    return jax.lax.fori_loop(0, _tiles(sizes_E, tile)[-1], step, sums)


def _tile(rows: int, groups: int) -> int:
    """Rows of a tile: about half a group's, so that what is wasted at the groups' ends stays a quarter or so."""
    return min(MAX_TILE, max(8, rows // (2 * groups) // 8 * 8))


def _tiles(sizes_E: jax.Array, tile: int) -> jax.Array:
    """Number of tiles up to the end of each group."""
    return jnp.cumsum(-(-sizes_E // tile))


def _find(index: jax.Array, sizes_E: jax.Array, tile: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A tile's group, its first row, and how many rows of the group are left from there on."""
    ends_E = _tiles(sizes_E, tile)
    group = jnp.sum(index >= ends_E)
    within = (index - ends_E[group] + -(-sizes_E[group] // tile)) * tile
    return group, jnp.cumsum(sizes_E)[group] - sizes_E[group] + within, sizes_E[group] - within


def megablox(rows_RD: jax.Array, matrices_EDF: jax.Array, sizes_E: jax.Array, interpret: bool = False) -> jax.Array:
    """JAX's own TPU kernels (MegaBlocks, arXiv 2211.15841), in both directions; they compute the groups' rows only.

    Args:
        interpret: emulates the kernels operation by operation, on any platform; for tests.
    """
    from jax.experimental.pallas.ops.tpu.megablox import gmm  # Pallas is imported where it is used

    count, (_, inner, outer) = len(rows_RD), matrices_EDF.shape
    tile = min(KERNEL_TILE[0], -(-count // KERNEL_LANES) * KERNEL_LANES)
    padded_RD = jnp.pad(rows_RD, ((0, -count % tile), (0, 0)))
    tiling = (tile, min(KERNEL_TILE[1], inner), min(KERNEL_TILE[2], outer))
    return gmm(padded_RD, matrices_EDF, sizes_E, rows_RD.dtype, tiling, None, None, False, interpret)[:count]


PRODUCTS: dict[str, GroupedProduct] = {"ragged_dot": ragged_dot, "tiled": tiled, "megablox": megablox}
BY_PLATFORM = {"cpu": "tiled", "gpu": "ragged_dot", "tpu": "megablox"}
"""What "auto" stands for."""


def choose(name: str, platform: str) -> GroupedProduct:
    """The product called `name`; "auto" is the platform's in `BY_PLATFORM`.

    Raises:
        UserError: there is none of this name.
    """
    if name != "auto" and name not in PRODUCTS:
        raise UserError(f"ComputeConfig.experts is {name!r}; known are auto, {', '.join(PRODUCTS)}")
    return PRODUCTS[BY_PLATFORM[platform] if name == "auto" else name]
