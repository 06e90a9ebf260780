"""Batches of rows for the devices of this host, read ahead in background threads.

    with Loader(mixture, batch_size, next_row, host_rows(sharding, batch_size)) as loader:
        for batch in loader:
            arrays = to_global(batch, sharding)      # what the train step takes
            ...                                      # batch.next_row is what a checkpoint stores

A batch is a pure function of its first row, so batches are assembled independently of each other, and stopping and
resuming at any row, with any batch size and on any number of hosts, gives the same rows.

Array shapes: B rows of the global batch, N of them on this host, L tokens of a row.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hephaestus_jax.data.cache import Cache
from hephaestus_jax.data.mixture import Mixture, group
from hephaestus_jax.errors import UserError

if TYPE_CHECKING:  # jax is imported where it is used: reading rows does not need it
    import jax
    from jax.sharding import NamedSharding

PADDING_ROW = -1  # row number of the empty rows that fill the last batch of an evaluation
_ROW_ARRAYS = {"tokens": np.int32, "segment_ids": np.int32, "positions": np.int32, "loss_weights": np.float32}


@dataclass(frozen=True)
class Batch:
    """The rows of one global batch that this host holds.

    `tokens`, `segment_ids`, `positions` int32[N, L] and `loss_weights` float32[N, L] as in the caches; `task_ids`
    int32[N] index the mixture's `task_names`; `rows` int64[N] are the row numbers in the run (in the cache, for an
    evaluation); `places` int64[N] say where in the global batch each row lies, in ascending order.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    loss_weights: np.ndarray
    task_ids: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    batch_size: int  # B
    next_row: int  # the row after this batch

    @property
    def nbytes(self) -> int:
        """Bytes of the four row arrays."""
        return sum(getattr(self, name).nbytes for name in _ROW_ARRAYS)


class _ReadAhead:
    """Calls `assemble` on each item of `items` in background threads and yields the results in order.

    An error of a thread is raised by `next`, and again if asked again: nothing is skipped. Threads hold no lock and
    wait for nobody, so closing cannot deadlock.
    """

    def __init__(self, assemble: Callable[[int], Batch], items: Iterable[int], depth: int, threads: int) -> None:
        self._assemble = assemble
        self._items = iter(items)
        self._depth = depth
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="loader")
        self._pending: deque[Future[Batch]] = deque()
        self.stall_seconds = 0.0
        self._fill()

    def _fill(self) -> None:
        for item in itertools.islice(self._items, self._depth - len(self._pending)):
            self._pending.append(self._executor.submit(self._assemble, item))

    def next(self) -> Batch:
        if not self._pending:
            self.close()
            raise StopIteration
        started = time.perf_counter()
        batch = self._pending[0].result()
        self.stall_seconds += time.perf_counter() - started
        self._pending.popleft()
        self._fill()
        return batch

    def close(self) -> None:
        self._pending.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)


class Loader:
    """An iterator over the batches of a run, from `next_row` on.

    Args:
        mixture: with its caches open (`open_mixture`).
        batch_size: rows of the global batch, B.
        next_row: the first row of the first batch: 0, or what the checkpoint stored.
        host_rows: places in the global batch that this host's devices hold, from `host_rows`; all by default.
        batches: how many to deliver; without end by default.
        prefetch: batches ready or under way at any time, each 16 · N · L bytes.
        threads: batches assembled at the same time; TensorStore reads the rows of each in threads of its own.
        jump: from the row that a batch would begin with to the one that it does begin with, where rows are left out.
    """

    def __init__(
        self,
        mixture: Mixture,
        batch_size: int,
        next_row: int = 0,
        host_rows: np.ndarray | None = None,
        batches: int | None = None,
        prefetch: int = 8,
        threads: int = 2,
        jump: Callable[[int], int] = lambda row: row,
    ) -> None:
        missing = [name for name in mixture.task_names if name not in mixture.caches]
        if missing:
            raise UserError(f"the cache of task {missing[0]!r} is not open; open the mixture with `open_mixture`")
        if next_row < 0 or prefetch < 1 or threads < 1:
            raise ValueError(f"next_row {next_row}, prefetch {prefetch} or threads {threads} is out of range")
        self.mixture = mixture
        self.batch_size = batch_size
        self.next_row = next_row
        self.bytes_delivered = 0
        self._places = _check_places(host_rows, batch_size)
        first_rows = itertools.islice(_first_rows(next_row, batch_size, jump), batches)
        self._ahead = _ReadAhead(self.assemble, first_rows, prefetch, threads)

    @property
    def stall_seconds(self) -> float:
        """Seconds that the consumer has waited for batches so far."""
        return self._ahead.stall_seconds

    def assemble(self, first_row: int) -> Batch:
        """This host's part of the batch that begins at `first_row`; pure, and safe to call from any thread."""
        rows = first_row + self._places
        task, _, cache_row = self.mixture.locate(rows)
        arrays = _empty_arrays(len(rows), self.mixture.spec.sequence_length)
        for chosen in group(task):
            cache = self.mixture.caches[self.mixture.task_names[task[chosen[0]]]]
            _read_into(arrays, chosen, cache, cache_row[chosen])
        return Batch(
            **arrays,
            task_ids=task.astype(np.int32),
            rows=rows,
            places=self._places,
            batch_size=self.batch_size,
            next_row=first_row + self.batch_size,
        )

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self._ahead.next()
        self.next_row = batch.next_row
        self.bytes_delivered += batch.nbytes
        return batch

    def close(self) -> None:
        """Stops reading ahead; returns at once, also while a read is under way."""
        self._ahead.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _first_rows(row: int, batch_size: int, jump: Callable[[int], int]) -> Iterator[int]:
    while True:
        row = jump(row)
        yield row
        row += batch_size


def evaluation_batches(
    cache: Cache, batch_size: int, host_rows: np.ndarray | None = None, task_id: int = 0, max_rows: int | None = None
) -> Iterator[Batch]:
    """The rows of `cache` in order, at most `max_rows` of them; the last batch is filled with rows of weight 0."""
    places = _check_places(host_rows, batch_size)
    total = cache.manifest.rows if max_rows is None else min(max_rows, cache.manifest.rows)

    def assemble(first_row: int) -> Batch:
        rows = first_row + places
        present = np.flatnonzero(rows < total)
        arrays = _empty_arrays(len(rows), cache.manifest.sequence_length)
        if present.size:
            _read_into(arrays, present, cache, rows[present])
        return Batch(
            **arrays,
            task_ids=np.full(len(rows), task_id, np.int32),
            rows=np.where(rows < total, rows, PADDING_ROW),
            places=places,
            batch_size=batch_size,
            next_row=min(first_row + batch_size, total),
        )

    ahead = _ReadAhead(assemble, range(0, total, batch_size), depth=4, threads=2)
    try:
        for _ in range(0, total, batch_size):
            yield ahead.next()
    finally:
        ahead.close()


def split_rows(batch_size: int, host: int, hosts: int) -> np.ndarray:
    """Places in the global batch of host number `host` when `hosts` hosts share it evenly, in order: int64[B / hosts].

    Raises:
        UserError: the batch does not divide evenly.
    """
    if not 0 <= host < hosts:
        raise ValueError(f"host {host} is not one of {hosts}")
    share = _divide(batch_size, hosts, f"{hosts} hosts")
    return np.arange(host * share, (host + 1) * share)


def host_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """Places in the global batch that this process's devices hold, ascending: int64[N].

    Args:
        sharding: of an array [B, L]; only its first dimension counts here.
        batch_size: B.

    Raises:
        UserError: the batch does not divide evenly over the mesh axes that shard it.
    """
    shards = _shards(sharding, 0)
    size = _divide(batch_size, shards, f"{shards} row shards (mesh axes {_axes_in_words(sharding, 0)})")
    indices = _row_sharding(sharding).addressable_devices_indices_map((batch_size,))
    starts = {index[0].start or 0 for index in indices.values() if index is not None}
    return np.concatenate([np.arange(start, start + size) for start in sorted(starts)])


def to_global(batch: Batch, sharding: NamedSharding) -> dict[str, jax.Array]:
    """The global arrays of a batch: four row arrays [B, L] under `sharding`, `task_ids` [B] under its first dimension.

    Every process calls this with its own part of the same batch, from `host_rows` of the same sharding.

    Raises:
        UserError: a row's length does not divide evenly over the mesh axes that shard it.
    """
    length = batch.tokens.shape[1]
    shards = _shards(sharding, 1)
    if length % shards:
        axes = _axes_in_words(sharding, 1)
        raise UserError(f"rows of {length} tokens do not divide over mesh axes {axes}; choose a divisor of {length}")
    by_rows = _row_sharding(sharding)
    arrays = {name: _global_array(batch, name, (length,), sharding) for name in _ROW_ARRAYS}
    return {**arrays, "task_ids": _global_array(batch, "task_ids", (), by_rows)}


def _global_array(batch: Batch, name: str, tail: tuple[int, ...], sharding: NamedSharding) -> jax.Array:
    import jax

    local = getattr(batch, name)

    def part(index: Any) -> np.ndarray:  # one slice per dimension
        start, stop, _ = index[0].indices(batch.batch_size)
        first = int(np.searchsorted(batch.places, start))
        if not np.array_equal(batch.places[first : first + stop - start], np.arange(start, stop)):
            raise ValueError(f"this process's batch lacks rows {start} to {stop}: load them with `host_rows`")
        return local[(slice(first, first + stop - start), *index[1:])]

    return jax.make_array_from_callback((batch.batch_size, *tail), sharding, part)


def _row_sharding(sharding: NamedSharding) -> NamedSharding:
    from jax.sharding import NamedSharding, PartitionSpec

    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:1]))


def _mesh_axes(sharding: NamedSharding, dimension: int) -> tuple[str, ...]:
    entry = sharding.spec[dimension] if dimension < len(sharding.spec) else None
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _shards(sharding: NamedSharding, dimension: int) -> int:
    return int(np.prod([sharding.mesh.shape[axis] for axis in _mesh_axes(sharding, dimension)], dtype=np.int64))


def _axes_in_words(sharding: NamedSharding, dimension: int) -> str:
    axes = _mesh_axes(sharding, dimension)
    return " × ".join(f"{axis}={sharding.mesh.shape[axis]}" for axis in axes) or "none"


def _divide(batch_size: int, parts: int, words: str) -> int:
    if batch_size < 1 or batch_size % parts:
        below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
        sizes = f"{below} or {above}" if below > 0 else f"{above}"
        raise UserError(f"a batch of {batch_size} rows does not divide over {words}; use a batch size of {sizes}")
    return batch_size // parts


def _check_places(places: np.ndarray | None, batch_size: int) -> np.ndarray:
    if batch_size < 1:
        raise UserError(f"a batch of {batch_size} rows is empty; use a batch size of at least 1")
    if places is None:
        return np.arange(batch_size)
    places = np.asarray(places, np.int64)
    if not len(places) or places[0] < 0 or places[-1] >= batch_size or (np.diff(places) <= 0).any():
        raise ValueError(f"host_rows must be ascending places in [0, {batch_size})")
    return places


def _empty_arrays(rows: int, length: int) -> dict[str, Any]:
    return {name: np.zeros((rows, length), dtype) for name, dtype in _ROW_ARRAYS.items()}


def _read_into(arrays: dict[str, np.ndarray], places: np.ndarray, cache: Cache, cache_rows: np.ndarray) -> None:
    found = cache.read(cache_rows)
    for name, array in arrays.items():
        array[places] = getattr(found, f"{name}_NL")


def row_digests(batch: Batch) -> np.ndarray:
    """128-bit digest of each row (row number, task and the four row arrays): uint8[N, 16]."""
    digests = np.empty((len(batch.rows), 16), np.uint8)
    for n in range(len(batch.rows)):
        state = hashlib.blake2b(digest_size=16)
        state.update(np.array([batch.rows[n], batch.task_ids[n]], "<i8").tobytes())
        for name, dtype in _ROW_ARRAYS.items():
            state.update(np.ascontiguousarray(getattr(batch, name)[n], np.dtype(dtype).newbyteorder("<")).tobytes())
        digests[n] = np.frombuffer(state.digest(), np.uint8)
    return digests


def batch_digest(*parts: Batch) -> str:
    """128-bit digest of a global batch, given as one batch or as the parts of all hosts: 32 hexadecimal digits.

    Raises:
        ValueError: the parts lack a row of the batch, or hold different rows in one place.
    """
    digest_of: dict[int, bytes] = {}
    for part in parts:
        for place, digest in zip(part.places.tolist(), row_digests(part), strict=True):
            if digest_of.setdefault(place, digest.tobytes()) != digest.tobytes():
                raise ValueError(f"two parts differ in row {place} of the batch")
    if sorted(digest_of) != list(range(parts[0].batch_size)):
        raise ValueError(f"{len(digest_of)} of {parts[0].batch_size} rows of the batch are at hand")
    return hashlib.blake2b(b"".join(digest_of[place] for place in sorted(digest_of)), digest_size=16).hexdigest()
