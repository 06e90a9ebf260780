"""Values between files and parameters: rearranged and cast on the host, a few MiB at a time, bit for bit.

On the host, and with numpy, because devices may flush subnormal numbers when they convert.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from hephaestus_jax.hf.safetensors_files import DTYPES
from hephaestus_jax.progress import Progress

CHUNK_BYTES = 2 << 20
MAX_THREADS = 8
_TILE = 64
_INFINITY = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}
_THREAD = threading.local()
_T = TypeVar("_T")
_R = TypeVar("_R")
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: np.dtype) -> str:
    """The safetensors name of a dtype."""
    return _DTYPE_NAMES[np.dtype(dtype)]


def is_finite(values: np.ndarray) -> bool:
    """Whether no element is NaN or infinite; float32, bfloat16 or float16."""
    infinity = _INFINITY[dtype_name(values.dtype)]
    bits = values.view({2: np.uint16, 4: np.uint32}[values.dtype.itemsize])
    sign = bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    without_sign = np.bitwise_and(bits, sign, out=scratch("bits", bits.shape, bits.dtype))
    return int(without_sign.max(initial=0)) < infinity


def holds(dtype: np.dtype, other: np.dtype) -> bool:
    """Whether `dtype` holds every value of `other` exactly; both float32, bfloat16 or float16."""
    return dtype in (other, np.float32)


def cast(values: np.ndarray, dtype: np.dtype, out: np.ndarray | None = None) -> np.ndarray:
    """`values` in another float dtype: exact where it is wider, rounded to nearest even where it is not.

    Args:
        out: where they are put, unless they are of that dtype already; new memory without.
    """
    if values.dtype == dtype:
        return values
    out = np.empty(values.shape, dtype) if out is None else out
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is noticed
        np.copyto(out, values, casting="unsafe")
    return out


def rearranged(values: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """values.transpose(order) in contiguous memory, this thread's; `values` themselves where the order is theirs.

    In tiles, so that both sides of a tile stay in the processor's cache: several times as fast as numpy's own way.
    """
    if order == tuple(range(values.ndim)):
        return values
    turned = scratch("rearranged", tuple(values.shape[axis] for axis in order), values.dtype)
    back = turned.transpose(np.argsort(order))
    for start in range(0, values.shape[-1], _TILE):
        back[..., start : start + _TILE] = values[..., start : start + _TILE]
    return turned


def row_chunks(shape: tuple[int, ...], itemsize: int, rows: range) -> Iterator[range]:
    """Ranges of the first axis of an array of that shape, each of about `CHUNK_BYTES`, together `rows`."""
    per_chunk = max(1, CHUNK_BYTES // max(1, math.prod(shape[1:]) * itemsize))
    for start in range(rows.start, rows.stop, per_chunk):
        yield range(start, min(start + per_chunk, rows.stop))


def scratch(purpose: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory of this thread, whose contents last until the thread asks for the same purpose again.

    Fresh memory costs as much as what is done with it here: the system clears it page by page.
    """
    memory: dict[str, np.ndarray] = _THREAD.__dict__
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if purpose not in memory or memory[purpose].size < size:
        memory[purpose] = np.empty(size, np.uint8)
    return memory[purpose][:size].view(dtype).reshape(shape)


def in_threads(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """function(item) of each item, in their order; a few are computed ahead in threads (numpy lets go of the lock)."""
    pool, threads = _pool()
    under_way: deque[Future[_R]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
        wait(under_way)


@functools.cache
def _pool() -> tuple[ThreadPoolExecutor, int]:
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    return ThreadPoolExecutor(threads), threads


class Megabytes:
    """Progress of so many bytes, shown in MB."""

    def __init__(self, label: str, total_bytes: int, shown: bool) -> None:
        self._progress = Progress(label, "MB", total_bytes // 1_000_000) if shown else None
        self._bytes = 0

    def add(self, count: int) -> None:
        """Records `count` more bytes."""
        self._bytes += count
        if self._progress:
            self._progress.add(self._bytes // 1_000_000 - self._progress.count)

    def __enter__(self) -> Megabytes:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._progress and failure[0] is None:
            self._progress.close()
