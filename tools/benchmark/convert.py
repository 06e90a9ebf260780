"""Hugging Face model in and out: bytes per second beside a plain copy of the same bytes, and host memory.

A model of the given shape is made up in bfloat16 (random finite bits), imported into arrays of bfloat16 on the host,
saved as a checkpoint, and exported from that checkpoint, whose files must have the digests of those made up. Beside it
the same files are read, and copied, in pieces of 8 MiB. Before each of these the files are dropped from the operating
system's cache; what is written is waited for until it lies on disk. CPU seconds are those of all threads, in user mode
and in the kernel; other work on the machine disturbs them less.

Memory is what the process holds of its own (RssAnon and RssShmem of /proc/self/status, every 5 ms): the file cache does
not count, nor do libraries, nor what was held before the work began. Import and export each run in a fresh process.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.config import ModelConfig, RopeScaling
from hephaestus_jax.errors import UserError
from hephaestus_jax.gin_files import load_gin

PIECE = 8 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--shape", default="gin/models/llama3_1_8b.gin", help="gin file of the model (default: %(default)s)"
    )
    parser.add_argument("--layers", type=int, help="fewer layers of that shape (default: all)")
    parser.add_argument("--scratch", help="where files are made and removed again (default: the system's)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the line to print."""
    from hephaestus_jax.hf import llama

    model = load_gin(ModelConfig, args.shape, also=[RopeScaling])
    if args.layers is not None:
        model = dataclasses.replace(model, num_layers=args.layers)
    size = 2 * model.num_parameters
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = Path(scratch)
        if (free := shutil.disk_usage(folder).free) < 2.2 * size:
            raise UserError(
                f"{folder} has {free / 1e9:.1f} GB free, {2.2 * size / 1e9:.1f} GB are needed; use --scratch"
            )
        digests = _make_up(folder / "model", model)
        _forget(folder / "model")
        with _Watch() as reading:
            _read(folder / "model")
        _forget(folder / "model")
        with _Watch() as copying:
            _copy(folder / "model", folder / "copy")
        shutil.rmtree(folder / "copy")
        imported = _in_process(_import, folder / "model", folder / "imported")
        shutil.rmtree(folder / "model")
        exported = _in_process(_export, folder / "imported", folder / "exported")
        same = digests == _digests(folder / "exported")
    if not same:
        raise UserError("the exported files differ from those that were imported")
    largest = max(2 * np.prod(weight.tensor_shape(model)) for weight in llama.weights(model))
    steps = {"read": reading.measured, "copy": copying.measured, **imported, **exported}
    return {
        "model": model.name,
        "layers": model.num_layers,
        "tensor_MB": round(size / 1e6, 1),
        "largest_tensor_MB": round(float(largest) / 1e6, 1),
        **{f"{name}_s": round(step.seconds, 2) for name, step in steps.items()},
        **{f"{name}_cpu_s": round(step.cpu_seconds, 2) for name, step in steps.items()},
        **{f"{name}_MB_per_s": round(size / 1e6 / step.seconds, 1) for name, step in steps.items()},
        "import_beyond_arrays_MB": round((steps["import"].peak_bytes - size) / 1e6, 1),
        "save_beyond_arrays_MB": round((steps["save"].peak_bytes - size) / 1e6, 1),
        "export_memory_MB": round(steps["export"].peak_bytes / 1e6, 1),
        "exported_files_same": same,
    }


def _make_up(folder: Path, model: ModelConfig) -> dict[str, str]:
    """Writes a model of random finite bits; digests of its files."""
    from hephaestus_jax.hf import llama
    from hephaestus_jax.hf.config_files import CONFIG, TokenIds, fresh_config, json_bytes
    from hephaestus_jax.hf.layout import Megabytes
    from hephaestus_jax.hf.safetensors_files import INDEX
    from hephaestus_jax.hf.safetensors_writing import make_index, plan_shards, write_shard

    bits = np.random.default_rng(0).integers(0, 1 << 16, PIECE, np.uint16) & 0xBFFF  # exponents below that of infinity
    tensors = {name: ("BF16", weight.tensor_shape(model)) for name, (weight, _) in llama.tensor_places(model).items()}
    shards = plan_shards(tensors, 5_000_000_000, {"format": "pt"})
    folder.mkdir()
    (folder / CONFIG).write_bytes(json_bytes(fresh_config(model, "BF16", TokenIds())))
    (folder / INDEX).write_bytes(make_index(shards))
    if len(shards) == 1:
        (folder / INDEX).unlink()
    with Megabytes("make up", 2 * model.num_parameters, shown=True) as meter:
        for shard in shards:

            def chunks_of(name: str, entries: Any = shard.header.entries) -> Iterator[np.ndarray]:
                left, offset = (entries[name].stop - entries[name].start) // 2, _offset(name)
                while left:
                    chunk = bits[offset : offset + left]
                    yield chunk
                    meter.add(chunk.nbytes)
                    left, offset = left - len(chunk), 0

            write_shard(folder, shard, chunks_of)
    return _digests(folder)


def _offset(name: str) -> int:
    """Where in the random bits a tensor begins, so that no two are the same."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") % (PIECE // 2)


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


# ---- what is measured


def _read(folder: Path) -> None:
    """Reads the weights."""
    buffer = bytearray(PIECE)
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _copy(folder: Path, target: Path) -> None:
    """Copies the weights."""
    target.mkdir()
    buffer = memoryview(bytearray(PIECE))
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb", buffering=0) as source, open(target / path.name, "wb", buffering=0) as copy:
            while count := source.readinto(buffer):
                copy.write(buffer[:count])
            os.fsync(copy.fileno())


def _import(folder: Path, out: Path) -> dict[str, _Measured]:
    from hephaestus_jax.checkpoints import Checkpointer
    from hephaestus_jax.config import CheckpointConfig
    from hephaestus_jax.hf.config_files import read_config
    from hephaestus_jax.hf.importing import import_parameters
    from hephaestus_jax.hf.origin import keep_origin
    from hephaestus_jax.model.decoder import abstract_parameters

    abstract = abstract_parameters(read_config(folder).model, "bfloat16")
    with _Watch() as importing:
        params = import_parameters(folder, abstract)
    keep_origin(folder, out / "huggingface")
    with _Watch(importing.before) as saving:
        checkpointer = Checkpointer(out / "checkpoints", CheckpointConfig(), piece_bytes=0)
        checkpointer.save(0, {"params": params}, {}, force=True)
        checkpointer.close()
        _sync(out)
    return {"import": importing.measured, "save": saving.measured}


def _export(folder: Path, out: Path) -> dict[str, _Measured]:
    from hephaestus_jax.checkpoints.reading import open_arrays
    from hephaestus_jax.hf.exporting import export_model
    from hephaestus_jax.hf.origin import load_origin

    origin = load_origin(folder / "huggingface")
    arrays = open_arrays(folder / "checkpoints")
    arrays.read("params/final_norm/scale")  # starts the devices
    with _Watch() as exporting:
        export_model(out, origin.config.model, lambda path, index: arrays.read(f"params/{path}", index), origin)
    return {"export": exporting.measured}


def _in_process(measure: Callable[[Path, Path], dict[str, _Measured]], source: Path, out: Path) -> dict[str, _Measured]:
    _forget(source)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(measure, source, out).result()


@dataclasses.dataclass(frozen=True)
class _Measured:
    """Seconds of a block, of the clock and of all threads, and the most memory it held beyond what was held before."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class _Watch:
    """Measures a block."""

    def __init__(self, before: int | None = None) -> None:
        self.before = _own_memory() if before is None else before
        self._peak, self._ended = self.before, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.measured = _Measured(0.0, 0.0, 0)

    def _follow(self) -> None:
        while not self._ended.wait(0.005):
            self._peak = max(self._peak, _own_memory())

    def __enter__(self) -> _Watch:
        self._thread.start()
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, cpu_seconds = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        self._ended.set()
        self._thread.join()
        self.measured = _Measured(seconds, cpu_seconds, self._peak - self.before)


def _own_memory() -> int:
    """Bytes in memory that are no files' pages."""
    if sys.platform != "linux":
        raise UserError("memory is measured on Linux only")
    with open("/proc/self/status") as file:
        return sum(1024 * int(line.split()[1]) for line in file if line.startswith(("RssAnon", "RssShmem")))


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
