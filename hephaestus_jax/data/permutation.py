"""Keyed pseudo-random permutations of [0, size): constant time and memory per element, the same on every platform.

A Feistel network over Z_a × Z_b with a·b ≥ size and a ≈ b, and cycle walking for the few points outside
(Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). The round function is the finaliser of SplitMix64
(Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014). Everything is arithmetic on unsigned
64-bit integers and BLAKE2b, so that the values depend on no generator of numpy's.

It is meant for shuffling, not for secrets.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math

import numpy as np

ROUNDS = 12  # 6 for either half; with these even permutations of 5 elements come out uniform over keys
MAX_SIZE = 1 << 62  # so that a, b < 2**32 and no sum overflows

_SHIFT_1, _SHIFT_2, _SHIFT_3 = (np.uint64(shift) for shift in (30, 27, 31))
_MULTIPLIER_1, _MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def derive_key(*parts: str | int) -> bytes:
    """128-bit key from any sequence of strings and integers; other sequences give other keys."""
    encoded = json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return hashlib.blake2b(encoded, digest_size=16).digest()


def permute(index: np.ndarray | int, size: int, key: bytes) -> np.ndarray:
    """Where the permutation of [0, `size`) chosen by `key` sends each element of `index`.

    Args:
        index: integers in [0, size), of any shape.
        size: at least 1, at most 2**62.
        key: 16 bytes, from `derive_key`.

    Returns:
        int64, of the shape of `index`. Distinct elements go to distinct elements.

    Raises:
        ValueError: an index outside [0, size), or a size out of range.
    """
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"size {size} is outside [1, 2**62]")
    index = np.asarray(index, np.int64)
    if index.size and not (0 <= index.min() and index.max() < size):
        raise ValueError(f"index outside [0, {size})")
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    round_keys = _round_keys(key)
    point = _encipher(index.ravel().astype(np.uint64), rows, columns, round_keys)
    # a·b exceeds size by less than a, so about one point in sqrt(size) has to walk on
    outside = np.flatnonzero(point >= size)
    while outside.size:
        point[outside] = _encipher(point[outside], rows, columns, round_keys)
        outside = outside[point[outside] >= size]
    return point.astype(np.int64).reshape(index.shape)


def _encipher(point: np.ndarray, rows: int, columns: int, round_keys: tuple[np.uint64, ...]) -> np.ndarray:
    """A bijection of [0, rows · columns): each round adds a hash of one coordinate to the other."""
    a, b = np.uint64(rows), np.uint64(columns)
    left, right = np.divmod(point, b)
    for even, odd in zip(round_keys[::2], round_keys[1::2], strict=True):
        left = (left + _mix(right ^ even) % a) % a
        right = (right + _mix(left ^ odd) % b) % b
    return left * b + right


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> _SHIFT_1)) * _MULTIPLIER_1
    value = (value ^ (value >> _SHIFT_2)) * _MULTIPLIER_2
    return value ^ (value >> _SHIFT_3)


@functools.lru_cache(maxsize=4096)
def _round_keys(key: bytes) -> tuple[np.uint64, ...]:
    if len(key) != 16:
        raise ValueError(f"key has {len(key)} bytes, expected 16 (use derive_key)")
    halves = [hashlib.blake2b(key, digest_size=8 * ROUNDS // 2, salt=bytes([half])).digest() for half in (0, 1)]
    return tuple(np.frombuffer(b"".join(halves), "<u8").astype(np.uint64))
