"""Saves on the disks of the hosts themselves: often, without a shared file system, restored from each other's copies.

Every process writes the pieces of the state that its own devices hold. After a failure, the newest step is restored of
which the processes together have every piece: a process on a fresh host, or with a damaged copy, gets its pieces from
one that holds the same (another replica along `data`, say), over the devices' network. The whole is compared with the
digests taken at save. Where pieces are lacking, or the mesh is another, the persistent checkpoints serve as ever.

LOCAL/process_N/STEP/
  index.json     JSON: the checkpoint's index and facts, the persistent checkpoint that it builds on, its own pieces
  pieces         their bytes, one after the other
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from hephaestus_jax.checkpoints import storage
from hephaestus_jax.checkpoints.processes import Damaged
from hephaestus_jax.distributed import barrier, broadcast
from hephaestus_jax.errors import UserError

INDEX, PIECES = "index.json", "pieces"
_OFFERED = 3  # steps of which a process tells the others
Place = tuple[tuple[int, int], ...]  # start and stop along each axis
_say_lock = threading.Lock()


@dataclass(frozen=True)
class Parent:
    """The newest persistent checkpoint when a local save was made; that save belongs to the run which has it."""

    step: int
    sha256: str
    modified: int  # seconds; a run begun anew in the same place has other files

    @classmethod
    def of(cls, directory: Any, step: int) -> Parent:
        """Of the whole checkpoint of `step`; raises `Damaged` where its index is."""
        path = directory / str(step)
        return cls(step, storage.read_json(path, storage.DIGESTS)["sha256"], int(path.stat().mtime))


@dataclass(frozen=True)
class _Copy:
    """What a process has of one step."""

    folder: Path
    step: int
    value: dict[str, Any]  # of index.json

    @property
    def digest(self) -> int:
        """The same on all processes of one save: 32 bits."""
        shared = {name: self.value[name] for name in ("index", "facts", "parent")}
        return zlib.crc32(json.dumps(shared, sort_keys=True).encode())

    def holds(self, wanted: Mapping[str, set[Place]]) -> bool:
        has = {(piece["array"], tuple(map(tuple, piece["place"]))) for piece in self.value["pieces"]}
        return all((name, place) in has for name, places in wanted.items() for place in places)

    def read(self) -> dict[tuple[str, Place], np.ndarray]:
        """All pieces; raises `Damaged`."""
        try:
            data = np.fromfile(self.folder / PIECES, np.uint8)
            found = {}
            for piece in self.value["pieces"]:
                part = data[piece["offset"] :][: piece["bytes"]]
                if len(part) != piece["bytes"] or zlib.crc32(part.data) != piece["crc32"]:
                    raise Damaged(f"array {piece['array']}")
                shape = [stop - start for start, stop in piece["place"]]
                key = (piece["array"], tuple(map(tuple, piece["place"])))
                dtype = np.dtype(getattr(ml_dtypes, piece["dtype"], piece["dtype"]))
                found[key] = part.view(dtype).reshape(shape)
            return found
        except (OSError, ValueError) as error:
            raise Damaged(storage.reason(error)) from error


class LocalSaves:
    """The local saves of one process. All processes of the run make the same calls in the same order."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(os.path.abspath(os.path.expanduser(directory)))
        self._own = self.directory / f"process_{jax.process_index()}"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="local_saves")
        self._writing: Future[None] | None = None
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            for left in self._own.glob("*.partial"):
                shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise UserError(f"cannot use CheckpointConfig.local_dir {directory}: {error.strerror}") from error

    def save(self, step: int, arrays: Mapping[str, jax.Array], facts: Mapping[str, Any], parent: Parent) -> None:
        """Copies this process's pieces of the state to the host and writes them in the background."""
        index = storage.Index.of(arrays, facts).to_json()
        pieces = {
            (name, _place(shard.index, array.shape)): np.array(shard.data)  # a copy: the device's may be donated
            for name, array in arrays.items()
            for shard in array.addressable_shards
        }
        self.wait()
        barrier("local save")  # now all have the save before whole: with it, one older is not needed
        value = {"index": index, "facts": dict(facts), "parent": asdict(parent)}
        self._writing = self._thread.submit(self._write, step, json.loads(json.dumps(value)), pieces)

    def wait(self) -> None:
        """Waits until the last save is written. One that failed is told, and is no error: the run goes on."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.result()
            except OSError as error:
                _say(f"no local save in {self._own}: {error.strerror}; the run goes on without")

    def _write(self, step: int, value: dict[str, Any], pieces: Mapping[tuple[str, Place], np.ndarray]) -> None:
        for old in sorted(self._steps())[:-1]:
            shutil.rmtree(self._own / str(old), ignore_errors=True)
        partial, listed, offset = self._own / f"{step}.partial", [], 0
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with open(partial / PIECES, "wb") as file:
            for (name, place), piece in pieces.items():
                data = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
                file.write(data.data)
                entry = {"array": name, "place": place, "dtype": piece.dtype.name, "offset": offset}
                listed.append({**entry, "bytes": len(data), "crc32": zlib.crc32(data.data)})
                offset += len(data)
            file.flush()
            os.fsync(file.fileno())
        (partial / INDEX).write_text(json.dumps({**value, "pieces": listed}), "utf-8")
        shutil.rmtree(self._own / str(step), ignore_errors=True)
        partial.rename(self._own / str(step))

    def _steps(self) -> list[int]:
        return [int(path.name) for path in self._own.iterdir() if path.name.isdecimal()]

    def clear(self) -> None:
        """Deletes all local saves of this host: the run goes on from elsewhere."""
        self.wait()
        for folder in self.directory.glob("process_*/[0-9]*"):
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Waits as `wait` does, and ends the thread."""
        self.wait()
        self._thread.shutdown()

    # ---- restoring

    def restore(
        self, wanted: Mapping[str, jax.ShapeDtypeStruct], parents: list[Parent]
    ) -> tuple[int, dict[str, jax.Array], dict[str, Any], list[int]] | None:
        """The newest step that the processes have together, if it is newer than every persistent checkpoint.

        Args:
            wanted: arrays by name, with their shardings.
            parents: the persistent checkpoints that there are, ascending.

        Returns:
            Step, arrays, facts, and the processes that got theirs from others; None where nothing can be had.
        """
        copies = self._copies(wanted, parents)
        for step, digest in self._offers(copies):
            copy = next((one for one in copies if (one.step, one.digest) == (step, digest)), None)
            pieces = None
            if copy is not None:
                try:
                    pieces = copy.read()
                except Damaged as damage:
                    _say(f"local save {copy.folder} is damaged: {damage}")
            have = _gather(np.array([pieces is not None])).reshape(-1).astype(bool)
            if not all(_covered(array.sharding, array.shape, have) for array in wanted.values()):
                continue
            shared = {name: copy.value[name] for name in ("index", "facts")} if copy is not None else None
            shared = broadcast(shared, source=int(np.argmax(have)))
            arrays = {name: _assemble(name, array, pieces, have) for name, array in wanted.items()}
            if damage_found := storage.Index.from_json(shared["index"]).damage(arrays):
                _say(f"local save of step {step} is not what was saved: {damage_found}")
                continue
            for other in set(self._steps()) - {step}:
                shutil.rmtree(self._own / str(other), ignore_errors=True)
            return step, arrays, shared["facts"], np.flatnonzero(~have).tolist()
        return None

    def _copies(self, wanted: Mapping[str, jax.ShapeDtypeStruct], parents: list[Parent]) -> list[_Copy]:
        """Complete ones on this host, for this process's devices, of this run; newest first."""
        places = {
            name: {_place(index, x.shape) for index in x.sharding.addressable_devices_indices_map(x.shape).values()}
            for name, x in wanted.items()
        }
        found = []
        for path in self.directory.glob(f"process_*/[0-9]*/{INDEX}"):
            try:
                copy = _Copy(path.parent, int(path.parent.name), json.loads(path.read_text("utf-8")))
                if copy.step > parents[-1].step and Parent(**copy.value["parent"]) in parents and copy.holds(places):
                    found.append(copy)
            except (OSError, ValueError, KeyError, TypeError) as error:
                _say(f"local save {path.parent} is damaged: {storage.reason(error)}")
        return sorted(found, key=lambda copy: -copy.step)

    def _offers(self, copies: list[_Copy]) -> list[tuple[int, int]]:
        """(step, digest) of what any process has, newest first; the same on all processes."""
        mine = np.zeros((_OFFERED, 2), np.uint32)
        for row, copy in zip(mine, dict.fromkeys((c.step, c.digest) for c in copies), strict=False):
            row[:] = copy
        offers = {(int(step), int(digest)) for step, digest in _gather(mine).reshape(-1, 2) if step}
        return sorted(offers, reverse=True)


def _gather(values: np.ndarray) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(values)) if jax.process_count() > 1 else values[None]


def _place(index: tuple[slice, ...] | None, shape: tuple[int, ...]) -> Place:
    return tuple(part.indices(size)[:2] for part, size in zip(index or (), shape, strict=True))


def _givers(sharding: Any, shape: tuple[int, ...], have: np.ndarray) -> dict[Place, jax.Device]:
    """For every piece of an array, the first device that has it and whose process has a copy."""
    found: dict[Place, jax.Device] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        if have[device.process_index]:
            found.setdefault(_place(index, shape), device)
    return found


def _covered(sharding: Any, shape: tuple[int, ...], have: np.ndarray) -> bool:
    places = {_place(index, shape) for index in sharding.devices_indices_map(shape).values()}
    return len(_givers(sharding, shape, have)) == len(places)


def _assemble(
    name: str, wanted: jax.ShapeDtypeStruct, pieces: Mapping[tuple[str, Place], np.ndarray] | None, have: np.ndarray
) -> jax.Array:
    """The array from every process's pieces; those without get theirs from a process that holds the same."""
    sharding = wanted.sharding

    def mine(index: tuple[slice, ...] | None) -> np.ndarray:
        place = _place(index, wanted.shape)
        if pieces is None:
            return np.zeros([stop - start for start, stop in place], wanted.dtype)
        return pieces[name, place]

    array = jax.make_array_from_callback(wanted.shape, sharding, mine)
    if have.all():
        return array
    assert isinstance(sharding, NamedSharding)  # of several processes
    givers = set(_givers(sharding, wanted.shape, have).values())
    mesh = sharding.mesh
    every = NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
    gives = np.vectorize(lambda device: device in givers, otypes=[bool])(mesh.devices)
    flags = jax.make_array_from_callback(gives.shape, every, lambda index: gives[index])
    # gloo: one program at a time
    return jax.block_until_ready(_passed_on(sharding, array, flags))


def _passed_on(sharding: NamedSharding, array: jax.Array, flags: jax.Array) -> jax.Array:
    """Each piece as its giver has it: of the bits of all replicas, the others' are taken as 0 and all are summed."""
    mesh, spec = sharding.mesh, sharding.spec
    split = {axis for entry in spec if entry is not None for axis in ((entry,) if isinstance(entry, str) else entry)}
    replicas = tuple(axis for axis in mesh.axis_names if axis not in split)

    def pass_on(piece: jax.Array, gives: jax.Array) -> jax.Array:
        unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(piece.dtype.itemsize, jnp.uint32)
        boolean = piece.dtype == jnp.bool_
        bits = piece.astype(unsigned) if boolean else jax.lax.bitcast_convert_type(piece, unsigned)
        total = jax.lax.psum(jnp.where(gives.reshape(()), bits, 0).astype(jnp.uint32), replicas).astype(unsigned)
        return total.astype(bool) if boolean else jax.lax.bitcast_convert_type(total, piece.dtype)

    mapped = jax.shard_map(
        pass_on, mesh=mesh, in_specs=(spec, PartitionSpec(*mesh.axis_names)), out_specs=spec, check_vma=False
    )
    return jax.jit(mapped, out_shardings=sharding, donate_argnums=0)(array, flags)


def _say(line: str) -> None:
    with _say_lock:
        print(f"process {jax.process_index()}: {line}", file=sys.stderr, flush=True)
