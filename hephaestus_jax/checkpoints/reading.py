"""Reading single arrays of a checkpoint, or single rows of them, straight from storage.

For tools that look at a checkpoint piece by piece on one machine, such as an export of more parameters than fit into
memory. Only what is asked for is read, and it is compared with the digests taken at save. Arrays are stored
uncompressed, in C order, one chunk per shard that was saved (zarr within OCDBT), so that rows are ranges of bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import ml_dtypes
import numpy as np
import tensorstore
from etils import epath

from hephaestus_jax.checkpoints import storage
from hephaestus_jax.checkpoints.digests import first_difference, part_words, slab_digest, slab_rows
from hephaestus_jax.checkpoints.processes import Damaged
from hephaestus_jax.errors import UserError

Json = Any


@dataclass(frozen=True)
class _Chunks:
    """How one array lies in storage."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype
    separator: str

    @property
    def row_bytes(self) -> int:
        """Of a chunk."""
        return math.prod(self.chunk[1:]) * self.dtype.itemsize


class ArrayReader:
    """One checkpoint, opened for reading.

    Attributes:
        path: of the checkpoint.
        step: that it is named by.
        facts: the JSON that was saved with it.
    """

    def __init__(self, path: epath.Path, step: int) -> None:
        """Reads what the checkpoint says of itself.

        Raises:
            UserError: it is damaged.
        """
        self.path, self.step = path, step
        with self._damage_as_one_line():
            self._index = storage.read_index(path)
            self.facts = storage.read_facts(path, self._index)
            self._store = _open(path / storage.STATE)
        self._chunks: dict[str, _Chunks] = {}
        self._words: dict[tuple[str, int], dict[tuple[int, int], np.ndarray]] = {}  # of slabs that were read in parts

    @property
    def digest(self) -> str:
        """Another one where any array or fact is another."""
        return self._index.to_json()["sha256"]

    @property
    def names(self) -> tuple[str, ...]:
        """All arrays, such as "params/final_norm/scale"."""
        return tuple(self._index.arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array."""
        return self._entry(name).shape

    def dtype(self, name: str) -> np.dtype:
        """Of an array."""
        return _dtype(self._entry(name).dtype)

    def slabs(self, name: str) -> tuple[str, ...]:
        """The digests of an array's contents, one for each part of its first axis."""
        return self._entry(name).slabs

    def read(self, name: str, index: int | tuple[int, ...] | None = None) -> np.ndarray:
        """An array, or what lies at one index of its first axis, or of its first two; perhaps read-only.

        Memory: what is returned, and a few times the part of the first axis that has a digest of its own: one layer
        of stacked layers, 1/128 of a long axis. With an index of two axes, a few times what is returned; the layer is
        read twice then, the first time for its digest.

        Raises:
            UserError: there is no such array, or it is damaged or cannot be read.
        """
        entry = self._entry(name)
        rows = entry.shape[0] if entry.shape else 1
        size = slab_rows(rows)
        place = () if index is None else (index,) if isinstance(index, int) else index
        there = all(0 <= number < axis for number, axis in zip(place, entry.shape, strict=False))
        if not there or len(place) > min(2, len(entry.shape)):
            raise IndexError(f"array {name} of shape {entry.shape} has nothing at {place} of its first axes")
        if place:
            start = place[0] - place[0] % size
            with self._damage_as_one_line():
                if len(place) == 2:
                    return self._part(name, place[0], place[1])
                return self._slab(name, start, min(start + size, rows))[place[0] - start]
        whole = np.empty((rows, *entry.shape[1:]), self.dtype(name))
        for part, values in self.parts(name):
            whole[part] = values
        return whole.reshape(entry.shape)

    def parts(self, name: str) -> Iterator[tuple[slice, np.ndarray]]:
        """The array in parts of its first axis, each with its place there, one after the other; a scalar as [1].

        Memory and errors are those of `read`.
        """
        entry = self._entry(name)
        rows = entry.shape[0] if entry.shape else 1
        size = slab_rows(rows)
        for start in range(0, rows, size):
            part = slice(start, min(start + size, rows))
            with self._damage_as_one_line():
                values = self._slab(name, part.start, part.stop)
            yield part, values

    def _entry(self, name: str) -> storage.ArrayEntry:
        if name not in self._index.arrays:
            raise UserError(f"checkpoint {self.path} has no array {name}; give the checkpoint of the run it is of")
        return self._index.arrays[name]

    def _slab(self, name: str, start: int, stop: int) -> np.ndarray:
        """Some rows of an array, which are a slab, checked."""
        with self._errors_as_damage(name):
            values = self._rows(name, self._chunks_of(name), start, stop)
        self._check(name, start, _words(values, start))
        return values

    def _part(self, name: str, row: int, column: int) -> np.ndarray:
        """What lies at an index of the first two axes, checked: with its whole slab, when the first of that is read."""
        rows, columns = self._entry(name).shape[:2]
        size = slab_rows(rows)
        start = row - row % size
        if (name, start) not in self._words:
            places = itertools.product(range(start, min(start + size, rows)), range(columns))
            words = {place: _words(self._block(name, *place)[None, None], *place) for place in places}
            self._check(name, start, sum(words.values(), np.zeros(2, np.uint32)))
            self._words[name, start] = words
        values = self._block(name, row, column)
        if not np.array_equal(_words(values[None, None], row, column), self._words[name, start][row, column]):
            raise Damaged(f"array {name}: was changed while it was read")
        return values

    def _check(self, name: str, start: int, words: np.ndarray) -> None:
        """Raises `Damaged` unless these are the words of the slab that begins with row `start`."""
        entry = self._entry(name)
        rows = entry.shape[0] if entry.shape else 1
        found = list(entry.slabs)
        found[start // slab_rows(rows)] = slab_digest(words)
        if difference := first_difference(rows, entry.slabs, tuple(found)):
            raise Damaged(f"array {name}: {difference}")

    @contextlib.contextmanager
    def _errors_as_damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except Damaged:
            raise
        except Exception as error:  # TensorStore raises many kinds
            storage.raise_unless_damage(error, self.path)
            raise Damaged(f"array {name}: {storage.reason(error)}") from error

    def _chunks_of(self, name: str) -> _Chunks:
        if name not in self._chunks:
            self._chunks[name] = self._read_chunks(name, self._entry(name))
        return self._chunks[name]

    def _read_chunks(self, name: str, entry: storage.ArrayEntry) -> _Chunks:
        meta = json.loads(self._bytes(name, ".zarray"))
        if meta["compressor"] or meta["filters"] or meta["order"] != "C":
            raise Damaged(f"array {name}: is not stored as this project stores arrays")
        shape, chunk = tuple(meta["shape"]), tuple(meta["chunks"])
        chunks = _Chunks(shape, chunk, _dtype(meta["dtype"]), meta["dimension_separator"])
        if (chunks.shape, chunks.dtype) != (entry.shape, _dtype(entry.dtype)):
            raise Damaged(f"array {name}: is stored as {chunks.dtype}{list(chunks.shape)}, not {entry.kind}")
        return chunks

    def _bytes(self, name: str, key: str, part: slice | None = None) -> bytes:
        result = self._store.read(f"{name.replace('/', '.')}/{key}", byte_range=part).result()
        if result.state != "value":
            raise Damaged(f"array {name}: part {key} is missing")
        return result.value

    def _rows(self, name: str, chunks: _Chunks, start: int, stop: int) -> np.ndarray:
        if not chunks.shape:
            return np.frombuffer(self._bytes(name, "0"), chunks.dtype).reshape(1)
        height = chunks.chunk[0]
        down = range(start // height, (stop - 1) // height + 1)
        across = (range(-(-size // chunk)) for size, chunk in zip(chunks.shape[1:], chunks.chunk[1:], strict=True))
        places = list(itertools.product(down, *across))
        if len(places) == 1:
            return self._rows_of_chunk(name, chunks, places[0], start, stop)
        rows = np.empty((stop - start, *chunks.shape[1:]), chunks.dtype)
        for place in places:
            first, last = max(start, place[0] * height), min(stop, (place[0] + 1) * height)
            inner = (slice(i * size, (i + 1) * size) for i, size in zip(place[1:], chunks.chunk[1:], strict=True))
            rows[(slice(first - start, last - start), *inner)] = self._rows_of_chunk(name, chunks, place, first, last)
        return rows

    def _rows_of_chunk(self, name: str, chunks: _Chunks, place: tuple[int, ...], start: int, stop: int) -> np.ndarray:
        """Some rows of the array, as far as they lie in the chunk at `place`, which is stored in full at an edge."""
        top = place[0] * chunks.chunk[0]
        part = slice((start - top) * chunks.row_bytes, (stop - top) * chunks.row_bytes)
        data = self._bytes(name, chunks.separator.join(map(str, place)), part)
        values = np.frombuffer(data, chunks.dtype).reshape(stop - start, *chunks.chunk[1:])
        sizes = zip(place[1:], chunks.shape[1:], chunks.chunk[1:], strict=True)
        return values[(slice(None), *(slice(min(chunk, size - i * chunk)) for i, size, chunk in sizes))]

    def _block(self, name: str, row: int, column: int) -> np.ndarray:
        """What lies at an index of the first two axes, unchecked."""
        with self._errors_as_damage(name):
            chunks = self._chunks_of(name)
            (height, width, *chunk), shape = chunks.chunk, chunks.shape[2:]
            size = math.prod(chunk) * chunks.dtype.itemsize
            first = (row % height * width + column % width) * size
            across = [range(-(-axis // part)) for axis, part in zip(shape, chunk, strict=True)]
            block = np.empty(shape, chunks.dtype)
            for rest in itertools.product(*across):
                key = chunks.separator.join(map(str, (row // height, column // width, *rest)))
                data = self._bytes(name, key, slice(first, first + size))
                values = np.frombuffer(data, chunks.dtype).reshape(chunk)
                target = tuple(slice(i * part, (i + 1) * part) for i, part in zip(rest, chunk, strict=True))
                held = tuple(map(slice, block[target].shape))  # at an edge, a chunk is stored in full
                block[target] = values[held]
            return block

    @contextlib.contextmanager
    def _damage_as_one_line(self) -> Iterator[None]:
        try:
            yield
        except Damaged as damage:
            raise UserError(
                f"checkpoint {self.path} is damaged: {damage}; take another checkpoint of the run, or resume the run,"
                " which goes back to the one before"
            ) from damage


def open_arrays(directory: str | os.PathLike, step: int | None = None) -> ArrayReader:
    """A checkpoint, for reading its arrays one by one.

    Args:
        directory: of a run's checkpoints, a local path or URL.
        step: which checkpoint; the newest by default.

    Raises:
        UserError: there is no such checkpoint, or it is damaged.
    """
    path = storage.open_directory(directory)
    steps = storage.whole_steps(path)
    if not steps or step not in (None, *steps):
        wanted = "whole checkpoint" if step is None else f"checkpoint of step {step}"
        raise UserError(f"no {wanted} in {path}; there are {', '.join(map(str, steps)) or 'none'}")
    chosen = steps[-1] if step is None else step
    return ArrayReader(path / str(chosen), chosen)


def _open(path: epath.Path) -> tensorstore.KvStore:
    text = str(path)
    base: Json = f"{text}/" if "://" in text else {"driver": "file", "path": f"{text}/"}
    try:
        return tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    except Exception as error:  # TensorStore raises many kinds
        storage.raise_unless_damage(error, path.parent)
        raise Damaged(f"the arrays: {storage.reason(error)}") from error


def _dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def _words(values: np.ndarray, first_row: int, first_column: int = 0) -> np.ndarray:
    try:
        device = jax.local_devices(backend="cpu")[0]  # not through an accelerator and back
    except RuntimeError:
        return part_words(values, first_row, first_column)
    with jax.default_device(device):
        return part_words(values, first_row, first_column)
