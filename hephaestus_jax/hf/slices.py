"""Which bytes of a tensor a process needs, and reading those: of a matrix whose columns are divided, parts of its rows.

A device's part of an array is a box: a range along each axis. In the file, whose order of axes is another, it is many
runs of bytes. Runs with less than a page between them are read as one, since systems and disks move pages.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from hephaestus_jax.hf.layout import row_chunks, scratch
from hephaestus_jax.hf.safetensors_files import DTYPES, Tensor, read_runs

READ_OVER_BYTES = 4096
"""What is shorter and lies between two runs is read with them."""

Box = tuple[range, ...]


def box_size(box: Box) -> int:
    """Elements in a box."""
    return math.prod(map(len, box))


def chunks_of_boxes(shape: tuple[int, ...], itemsize: int, boxes: Sequence[Box]) -> Iterator[range]:
    """Rows of an array's first axis that hold something of the boxes, in ranges of a few MiB."""
    spans = sorted({(box[0].start, box[0].stop) for box in boxes if box_size(box)})
    for start, stop in _merged(np.array(spans).reshape(-1, 2), 1).tolist():
        yield from row_chunks(shape, itemsize, range(start, stop))


def clipped(box: Box, rows: range) -> Box:
    """What of a box lies in those rows, which are counted from the first of them."""
    start, stop = max(box[0].start, rows.start), min(box[0].stop, rows.stop)
    return (range(start - rows.start, max(start, stop) - rows.start), *box[1:])


def read_boxes(tensor: Tensor, shape: tuple[int, ...], rows: range, boxes: Sequence[Box]) -> np.ndarray:
    """Rows of a tensor in memory of this thread, of which only the boxes' elements have been read.

    Args:
        shape: of the tensor, with axes taken apart.
        rows: of its first axis.
        boxes: within the rows, as `clipped` gives them.

    Raises:
        UserError: the file cannot be read, or has become shorter since it was opened.
    """
    dtype, held = DTYPES[tensor.dtype], (len(rows), *shape[1:])
    values = scratch("stored", held, dtype)
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    runs = byte_runs(held, dtype.itemsize, tuple(boxes), READ_OVER_BYTES)
    read_runs(tensor, rows.start * row_bytes, runs, values.reshape(-1).view(np.uint8).data)
    return values


@functools.lru_cache(maxsize=256)  # the chunks of a tensor, and tensors of a kind, repeat each other
def byte_runs(shape: tuple[int, ...], itemsize: int, boxes: tuple[Box, ...], read_over: int) -> list[list[int]]:
    """Start and stop of the runs of bytes that hold those boxes of an array, ascending and apart.

    Args:
        read_over: what is shorter, in bytes, and lies between two runs joins them.
    """
    runs = np.concatenate([np.zeros((0, 2), np.int64), *(_runs(shape, box) for box in boxes)]) * itemsize
    return _merged(runs[np.argsort(runs[:, 0], kind="stable")], max(1, read_over)).tolist()


def _runs(shape: tuple[int, ...], box: Box) -> np.ndarray:
    """Start and stop, in elements, of the runs of one box [R, 2]."""
    if not box_size(box):
        return np.zeros((0, 2), np.int64)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    axis = len(shape) - 1  # along which a run extends: all axes behind it are whole
    while axis > 0 and len(box[axis]) == shape[axis]:
        axis -= 1
    starts = np.array([box[axis].start * strides[axis]])
    for outer in reversed(range(axis)):
        starts = (np.arange(box[outer].start, box[outer].stop)[:, None] * strides[outer] + starts).reshape(-1)
    return np.stack([starts, starts + len(box[axis]) * strides[axis]], axis=1)


def _merged(runs: np.ndarray, gap: int) -> np.ndarray:
    """Ascending runs [R, 2], those joined that overlap or have less than `gap` between them."""
    if not len(runs):
        return runs
    stops = np.maximum.accumulate(runs[:, 1])
    begins = np.flatnonzero(np.r_[True, runs[1:, 0] - stops[:-1] >= gap])
    return np.stack([runs[begins, 0], stops[np.r_[begins[1:] - 1, len(runs) - 1]]], axis=1)


def shares(size: int, count: int) -> list[range]:
    """`size` things dealt out to `count`, in order and as evenly as can be."""
    bounds = [size * number // count for number in range(count + 1)]
    return [range(*pair) for pair in itertools.pairwise(bounds)]
