"""Hugging Face model in and out: bytes per second beside a plain copy of the same bytes, and host memory.

A model of the given shape is made up in bfloat16, imported into arrays of bfloat16 on the host, saved as a checkpoint,
and exported from that checkpoint; the exported files must be those that were made up. Every round reads the files,
copies them, and imports (or exports) them, one after the other, and the system forgets the files before each; what is
written is waited for until it lies on disk. Ratios are pair by pair, above 1 where ours is quicker than the copy.

With --hosts, one process of so many imports the slices that its device holds on a mesh of as many devices; the other
processes have the other devices, and sleep. Read and copied is the same number of bytes then, and nothing is exported.
With --sparse, files have holes, which read as zeros but take no disk: sizes beyond the disk can be measured.

Memory is what the process holds of its own (RssAnon and RssShmem of /proc/self/status, every 5 ms), beyond what it held
before: the file cache does not count. With --optimizer, two moments as large as the parameters are in the checkpoint,
and `export_read_MB` is what the export read of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.errors import UserError
from tools.benchmark.synthetic import digests, load_model, make_up, weight_files

PIECE = 8 << 20
AXES = ("fsdp", "expert", "tensor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--shape", default="gin/models/llama3_1_8b.gin", help="gin file of the model (default: %(default)s)"
    )
    parser.add_argument("--layers", type=int, help="fewer layers of that shape (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="of each pair (default: %(default)s)")
    parser.add_argument("--hosts", type=int, default=1, help="import as one of so many (default: %(default)s)")
    parser.add_argument("--axis", choices=AXES, default="fsdp", help="of the mesh of hosts (default: %(default)s)")
    parser.add_argument("--sparse", action="store_true", help="make files with holes")
    parser.add_argument("--optimizer", action="store_true", help="export from a checkpoint with an optimizer's state")
    parser.add_argument("--scratch", help="where files are made and removed again (default: the system's)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the line to print."""
    from hephaestus_jax.hf.families import family_of

    if min(args.rounds, args.hosts) < 1:
        raise UserError("--rounds and --hosts must be at least 1")
    model = load_model(args.shape)
    if args.layers is not None:
        model = dataclasses.replace(model, num_layers=args.layers)
    size = 2 * model.num_parameters
    largest = max(2 * int(np.prod(weight.tensor_shape(model))) for weight in family_of(model).weights(model))
    with tempfile.TemporaryDirectory(dir=args.scratch, prefix="benchmark_convert_") as scratch:
        folder = Path(scratch)
        _require_free(folder, size, args)
        make_up(folder / "model", model, args.sparse)
        steps = _imports(folder, args)
        if args.hosts == 1:
            steps |= _in_process(_exports, folder, args.rounds)
            if digests(folder / "model") != digests(folder / "exported"):
                raise UserError("the exported files differ from those that were imported")
    return {
        "model": model.name,
        "layers": model.num_layers,
        "hosts": args.hosts,
        "sparse": args.sparse,
        "rounds": args.rounds,
        "tensor_MB": round(size / 1e6, 1),
        "largest_tensor_MB": round(largest / 1e6, 1),
        **_figures(steps, largest),
        **({"exported_files_same": True} if args.hosts == 1 else {"slices_same": True}),
    }


def _require_free(folder: Path, size: int, args: argparse.Namespace) -> None:
    checkpoint = (3 if args.optimizer else 1) * size if args.hosts == 1 else 0
    needed = 1.1 * (size * (not args.sparse) + checkpoint + size / args.hosts)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(f"{folder} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed; use --scratch")


def _figures(steps: dict[str, list[_Measured]], largest: int) -> dict[str, Any]:
    """Medians, ratios pair by pair, and the most memory of any round."""
    found: dict[str, Any] = {}
    for name, rounds in steps.items():
        found[f"{name}_s"] = round(statistics.median(one.seconds for one in rounds), 2)
        found[f"{name}_cpu_s"] = round(statistics.median(one.cpu_seconds for one in rounds), 2)
        found[f"{name}_MB_per_s"] = round(statistics.median(one.bytes / 1e6 / one.seconds for one in rounds), 1)
    for name, other in (("import", "read"), ("import", "copy"), ("export", "export_copy")):
        if name in steps and other in steps:
            pairs = zip(steps[other], steps[name], strict=True)
            ratios = [(mine.bytes / mine.seconds) / (its.bytes / its.seconds) for its, mine in pairs]
            found[f"{name}_ratio_to_{other.removeprefix('export_')}"] = round(statistics.median(ratios), 2)
    for name in ("import", "save", "export"):
        if name in steps:
            peak = max(one.peak_bytes - one.held_bytes for one in steps[name])
            found[f"{name}_beyond_destination_MB"] = round(peak / 1e6, 1)
            found[f"{name}_beyond_destination_in_largest_tensors"] = round(peak / largest, 2)
    found["import_MB"] = round(steps["import"][0].bytes / 1e6, 1)
    for name in ("import", "export"):
        if name in steps:
            found[f"{name}_read_MB"] = round(steps[name][0].read_bytes / 1e6, 1)
    return found


# ---- import


def _imports(folder: Path, args: argparse.Namespace) -> dict[str, list[_Measured]]:
    """Rounds of reading, copying and importing in a fresh process; with one host, its arrays are saved at the end."""
    if args.hosts == 1:
        return _in_process(_import_all, folder, args.rounds, args.optimizer)
    with ProcessPoolExecutor(args.hosts, mp_context=multiprocessing.get_context("spawn")) as pool:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        cluster = f"127.0.0.1:{port}", args.hosts
        done = folder / "done"
        others = [pool.submit(_sleep, *cluster, number, done) for number in range(1, args.hosts)]
        try:
            return pool.submit(_import_share, *cluster, folder, args.rounds, args.axis).result()
        finally:
            done.touch()
            for other in others:
                other.result()


def _import_all(folder: Path, rounds: int, optimizer: bool) -> dict[str, list[_Measured]]:
    import jax

    from hephaestus_jax.checkpoints import Checkpointer
    from hephaestus_jax.config import CheckpointConfig
    from hephaestus_jax.hf.config_files import read_config
    from hephaestus_jax.hf.origin import keep_origin
    from hephaestus_jax.model.decoder import abstract_parameters

    abstract = abstract_parameters(read_config(folder / "model").model, "bfloat16")
    steps, params = _rounds_of_import(folder, abstract, rounds, 1)
    keep_origin(folder / "model", folder / "imported" / "huggingface")
    state = {"params": params}
    if optimizer:
        state["opt_state"] = {name: jax.tree.map(lambda leaf: leaf + 1, params) for name in ("mu", "nu")}
    jax.block_until_ready(state)
    with _Watch() as saving:
        checkpointer = Checkpointer(folder / "imported" / "checkpoints", CheckpointConfig(), piece_bytes=0)
        checkpointer.save(0, state, {}, force=True)
        checkpointer.close()
        _sync(folder / "imported")
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    return {**steps, "save": [saving.of(size)]}


def _import_share(coordinator: str, hosts: int, folder: Path, rounds: int, axis: str) -> dict[str, list[_Measured]]:
    """As process 0 of so many."""
    import jax

    from hephaestus_jax import distributed
    from hephaestus_jax.config import MeshConfig
    from hephaestus_jax.hf.config_files import read_config
    from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
    from hephaestus_jax.sharding import Partitioning, make_mesh

    os.dup2(2, 1)  # what gloo says; standard output is for the result
    distributed.initialise(distributed.Cluster(coordinator, hosts, 0))
    model = read_config(folder / "model").model
    mesh = make_mesh(dataclasses.replace(MeshConfig(data=1, fsdp=1), **{axis: hosts}))
    shardings = Partitioning(mesh, model).tree(parameter_axes(model))
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract_parameters(model, "bfloat16"), shardings,
    )  # fmt: skip
    steps, params = _rounds_of_import(folder, abstract, rounds, hosts)
    _check_slices(folder / "model", params)
    return steps


def _sleep(coordinator: str, hosts: int, number: int, done: Path) -> None:
    """As another process, whose device belongs to the mesh."""
    import jax

    from hephaestus_jax import distributed

    os.dup2(2, 1)
    distributed.initialise(distributed.Cluster(coordinator, hosts, number))
    jax.devices()  # all processes tell each other of theirs
    while not done.exists():
        time.sleep(0.2)


def _rounds_of_import(folder: Path, abstract: Any, rounds: int, hosts: int) -> tuple[dict[str, list[_Measured]], Any]:
    from hephaestus_jax.hf.importing import import_own_parts

    steps: dict[str, list[_Measured]] = {"read": [], "copy": [], "import": []}
    params = None
    for _ in range(rounds):
        params = None
        _forget(folder / "model")
        with _Watch() as reading:
            size = _read(folder / "model", hosts)
        _forget(folder / "model")
        with _Watch() as copying:
            _copy(folder / "model", folder / "copy", hosts)
        shutil.rmtree(folder / "copy")
        _forget(folder / "model")
        with _Watch() as importing:
            params = import_own_parts(folder / "model", abstract)
        held = _held(params)
        steps["read"].append(reading.of(size))
        steps["copy"].append(copying.of(size))
        steps["import"].append(importing.of(held, held))
    return steps, params


def _held(params: Any) -> int:
    """Bytes of the arrays' parts in this process."""
    import jax

    return sum(shard.data.nbytes for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards)


def _check_slices(folder: Path, params: Any) -> None:
    """Raises unless this process's slices of some tensors are those of the files."""
    from hephaestus_jax.checkpoints.storage import named_leaves
    from hephaestus_jax.hf.checkpoint import open_checkpoint
    from hephaestus_jax.hf.safetensors_files import read_tensor

    checkpoint, arrays = open_checkpoint(folder), named_leaves(params)
    places = list(checkpoint.family.tensor_places(checkpoint.model).items())
    for name, (weight, index) in places[:: max(1, len(places) // 20)]:
        (shard,) = arrays[weight.path].addressable_shards
        bounds = [part.indices(size)[:2] for part, size in zip(shard.index, arrays[weight.path].shape, strict=True)]
        leading, inner = bounds[: len(index)], [slice(*bound) for bound in bounds[len(index) :]]
        if all(first <= number < last for number, (first, last) in zip(index, leading, strict=True)):
            whole = read_tensor(checkpoint.tensors[name]).reshape(weight.split_shape(checkpoint.model))
            wanted = whole.transpose(weight.to_ours)[tuple(inner)]
            found = shard.data[tuple(number - first for number, (first, _) in zip(index, leading, strict=True))]
            if not np.array_equal(np.asarray(found).view(np.uint16), wanted.view(np.uint16)):
                raise UserError(f"tensor {name}: the slice that was imported differs from the file's")


# ---- export


def _exports(folder: Path, rounds: int) -> dict[str, list[_Measured]]:
    """Rounds of copying the model and exporting the checkpoint, in a fresh process that builds no state."""
    from hephaestus_jax.checkpoints.reading import open_arrays
    from hephaestus_jax.hf.exporting import export_model
    from hephaestus_jax.hf.origin import load_origin

    origin = load_origin(folder / "imported" / "huggingface")
    arrays = open_arrays(folder / "imported" / "checkpoints")
    arrays.read("params/final_norm/scale")  # starts the devices
    steps: dict[str, list[_Measured]] = {"export_copy": [], "export": []}
    out = folder / "exported"
    for _ in range(rounds):
        shutil.rmtree(out, ignore_errors=True)
        _forget(folder / "model")
        with _Watch() as copying:
            size = _copy(folder / "model", folder / "copy", 1)
        shutil.rmtree(folder / "copy")
        _forget(folder / "imported")
        model, digest = origin.config.model, arrays.digest
        with _Watch() as exporting:
            export_model(out, model, lambda path, at: arrays.read(f"params/{path}", at), origin, source=digest)
        steps["export_copy"].append(copying.of(size))
        steps["export"].append(exporting.of(size))
    return steps


# ---- what is measured


def _in_process(measure: Any, *arguments: Any) -> dict[str, list[_Measured]]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def _read(folder: Path, parts: int) -> int:
    """Reads the first of so many parts of each file; how many bytes that was."""
    memory, count = memoryview(bytearray(PIECE)), 0
    for path in weight_files(folder):
        left = path.stat().st_size // parts
        with open(path, "rb", buffering=0) as file:
            while left > 0 and (read := file.readinto(memory[: min(left, PIECE)])):
                left, count = left - read, count + read
    return count


def _copy(folder: Path, target: Path, parts: int) -> int:
    """Copies them, and waits until they lie on disk; how many bytes that was."""
    target.mkdir()
    memory, count = memoryview(bytearray(PIECE)), 0
    for path in weight_files(folder):
        left = path.stat().st_size // parts
        with open(path, "rb", buffering=0) as source, open(target / path.name, "wb", buffering=0) as copy:
            while left > 0 and (read := source.readinto(memory[: min(left, PIECE)])):
                copy.write(memory[:read])
                left, count = left - read, count + read
            os.fsync(copy.fileno())
    return count


@dataclasses.dataclass(frozen=True)
class _Measured:
    """Of a block: seconds of the clock and of all threads, memory and bytes read.

    Attributes:
        bytes: that it was about.
        peak_bytes: the most memory that it held beyond what was held before.
        held_bytes: of these, what it was to hold.
        read_bytes: by read calls, of holes and the file cache too.
    """

    seconds: float
    cpu_seconds: float
    bytes: int
    peak_bytes: int
    held_bytes: int
    read_bytes: int


class _Watch:
    """Measures a block."""

    def __enter__(self) -> _Watch:
        self._before = self._peak = _own_memory()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        self._read = _bytes_read()
        self._started = time.perf_counter(), time.process_time()
        return self

    def _follow(self) -> None:
        while not self._ended.wait(0.005):
            self._peak = max(self._peak, _own_memory())

    def __exit__(self, *_: object) -> None:
        self._seconds, self._cpu = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        self._read = _bytes_read() - self._read
        self._ended.set()
        self._thread.join()

    def of(self, size: int, held: int = 0) -> _Measured:
        """What was measured, of so many bytes, and so many that were to be held at the end."""
        return _Measured(self._seconds, self._cpu, size, self._peak - self._before, held, self._read)


def _own_memory() -> int:
    """Bytes in memory that are no files' pages."""
    if sys.platform != "linux":
        raise UserError("memory is measured on Linux only")
    return sum(1024 * int(line.split()[1]) for line in _lines("status") if line.startswith(("RssAnon", "RssShmem")))


def _bytes_read() -> int:
    return next(int(line.split()[1]) for line in _lines("io") if line.startswith("rchar"))


def _lines(name: str) -> Sequence[str]:
    with open(f"/proc/self/{name}") as file:
        return file.readlines()


def _sync(folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _forget(folder: Path) -> None:
    """Drops the files of a folder from the operating system's cache."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
