"""Content digests of sharded arrays: computed on the devices, the same on every mesh.

Storage restores a flipped bit without a word, so each checkpoint carries a digest of what its arrays held. Every
element is mixed with its place in the array into two 32-bit words, and the words are summed modulo 2³². Integer sums
do not depend on their order, so no array is gathered and no sharding changes the result. Both mixers are bijective: a
change of any one element always changes the digest; any other change goes unseen with probability 2⁻⁶⁴.

An array has one digest per *slab*, a range of its first axis, so that damage is located: stacked layers have a slab
each, a long first axis is cut into at most `MAX_SLABS`.

Shape letters: R rows (first axis), S slabs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

MAX_SLABS = 128
_PLACE = (0x9E3779B1, 0x85EBCA77)  # odd, so that places of one row stay apart
_ROW = (0xC2B2AE3D, 0x27D4EB2F)


def _murmur(words: jax.Array) -> jax.Array:
    """Bijective mixing of 32-bit words: the finaliser of MurmurHash3 (Appleby)."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def _lowbias(words: jax.Array) -> jax.Array:
    """Bijective mixing of 32-bit words: lowbias32 (Wellons, "Prospecting for Hash Functions")."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)


def _bits(array: jax.Array) -> jax.Array:
    """The array's bits as uint32, with a last axis of 2 for elements of 64 bits; its first axis is R, 1 for scalars."""
    array = array.reshape(1) if array.ndim == 0 else array
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)


def _add_pairs(left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    return left[0] + right[0], left[1] + right[1]


def slab_rows(rows: int) -> int:
    """Rows of one slab, of an array with that many."""
    return max(1, -(-rows // MAX_SLABS))


def _row_sums(array: jax.Array, first_row: jax.Array | int = 0, first_column: jax.Array | int = 0) -> jax.Array:
    """uint32 [R, 2]: both digest words of each row, of a part of an array.

    The part begins at `first_row` of the first axis and at `first_column` of the second, and has the others whole.
    """
    bits = _bits(array)
    rows, inner = bits.shape[0], bits.shape[1:]
    if max(rows, math.prod(inner)) >= 1 << 32:
        raise ValueError(f"an array of shape {array.shape} is too large to digest: 2³² rows, or elements in a row")
    place = jnp.zeros((1, *inner), jnp.uint32)  # index within the row, in row-major order
    for axis, size in enumerate(inner, 1):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, place.shape, axis)
        if axis == 1:
            place = place + jnp.asarray(first_column, jnp.uint32)
    numbers = jnp.arange(1, rows + 1, dtype=jnp.uint32) + jnp.asarray(first_row, jnp.uint32)
    row = numbers.reshape(rows, *(1 for _ in inner))
    first = _murmur(bits + (place * jnp.uint32(_PLACE[0]) + _murmur(row * jnp.uint32(_ROW[0]))))
    second = _lowbias(bits ^ (place * jnp.uint32(_PLACE[1]) + _lowbias(row * jnp.uint32(_ROW[1]))))
    # one reduction over both: with a sum of its own each, XLA on CPU writes the mixed words to memory, 10 times slower
    zero, axes = jnp.uint32(0), tuple(range(1, bits.ndim))
    return jnp.stack(jax.lax.reduce((first, second), (zero, zero), _add_pairs, axes), axis=-1)


def _slab_sums(array: jax.Array) -> jax.Array:
    """uint32 [S, 2]: both digest words of each slab."""
    sums = _row_sums(array)
    rows = sums.shape[0]
    size = slab_rows(rows)
    whole = jnp.pad(sums, ((0, -rows % size), (0, 0)))
    return jnp.sum(whole.reshape(-1, size, 2), axis=1, dtype=jnp.uint32)


@functools.lru_cache
def _compiled(replicated: NamedSharding | None):
    # One program for a whole tree of arrays: several under way at once, each with collectives of its own, can wait for
    # each other for ever where CPU devices of several processes talk through gloo.
    return jax.jit(lambda arrays: jax.tree.map(_slab_sums, arrays), out_shardings=replicated)


def array_digests(arrays: Mapping[str, jax.Array]) -> dict[str, tuple[str, ...]]:
    """The digests of each array, one per slab, as 16 hexadecimal digits.

    All processes call it together with the same arrays. It returns when the arrays have been computed and read.
    """
    by_mesh: dict[NamedSharding | None, dict[str, jax.Array]] = {}
    for name, array in arrays.items():
        sharding = array.sharding
        replicated = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
        by_mesh.setdefault(replicated, {})[name] = array
    sums: dict[str, np.ndarray] = {}
    for replicated, group in by_mesh.items():
        sums.update(jax.device_get(_compiled(replicated)(group)))
    return {name: _as_text(sums[name]) for name in arrays}


@jax.jit
def _sum_of_rows(array: jax.Array, first_row: jax.Array, first_column: jax.Array) -> jax.Array:
    return jnp.sum(_row_sums(array, first_row, first_column), axis=0, dtype=jnp.uint32)


def part_words(part: np.ndarray, first_row: int, first_column: int = 0) -> np.ndarray:
    """uint32 [2]: what a part of an array adds to the words of its slab, which are the sum over all its parts.

    Args:
        part: some indices of the first axis, of these some of the second, and of the others all.
        first_row: index of the array's first axis that it begins with.
        first_column: the same of the second axis.
    """
    return np.asarray(_sum_of_rows(part, np.uint32(first_row), np.uint32(first_column)))


def slab_digest(words: np.ndarray) -> str:
    """The digest of one slab, given its words."""
    return _as_text(words[None])[0]


def _as_text(words: np.ndarray) -> tuple[str, ...]:
    return tuple(f"{first:08x}{second:08x}" for first, second in words.tolist())


def first_difference(rows: int, expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    """Where two digests of an array with that many rows differ, as words; empty if nowhere."""
    differing = [slab for slab, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]]
    if not differing:
        return ""
    start = differing[0] * slab_rows(rows)
    stop = min(rows, start + slab_rows(rows)) - 1
    place = f"index {start}" if start >= stop else f"indices {start} to {stop}"
    return f"differs from what was saved at {place} of its first axis ({len(differing)} of {len(expected)} parts)"
