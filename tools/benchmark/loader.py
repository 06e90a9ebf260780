"""Loader throughput, and the bytes it reads, against a plain memory-mapped read of the same rows.

The plain read takes the same rows in the same order from uncompressed .npy files (int32 and float32, as the loader
delivers them) into arrays of the same shape, in one thread. Both sides run in alternating rounds, each in a process of
its own; rates are medians. The operating system's file cache is warm on both sides.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.data.cache import ROW_ARRAYS
from hephaestus_jax.data.identity import Origin
from hephaestus_jax.data.loader import Loader
from hephaestus_jax.data.mixture import Mixture, open_mixture
from hephaestus_jax.data.task import TokenizedRecord
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import digest

VOCABULARY_SIZE = 8_000  # of the default mixture
VOCABULARY_TEXTS = 200  # that it is trained on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--mixture", help="mixture.json; by default one is built from the standard library's sources")
    parser.add_argument("--seq_length", type=int, default=2048, help="of the default mixture (default: %(default)s)")
    parser.add_argument(
        "--megabytes", type=float, default=24, help="text of the default mixture (default: %(default)s)"
    )
    parser.add_argument("--batch_size", type=int, default=256, help="rows per batch (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=8, help="batches per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each side (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the loader (default: %(default)s)")
    parser.add_argument("--scratch", help="where files are made and removed again (default: the system's)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the line to print."""
    if min(args.batch_size, args.batches, args.rounds, args.threads) < 1:
        raise UserError("--batch_size, --batches, --rounds and --threads must be at least 1")
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        url = args.mixture or _build_mixture(Path(scratch), args.seq_length, args.megabytes)
        rows, mixture = args.batch_size * args.batches, open_mixture(url)
        _write_plain(Path(scratch), mixture, rows)
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(_in_new_process(_read_with_loader, url, args.batch_size, args.batches, args.threads))
            theirs.append(_in_new_process(_read_plain, scratch, args.batch_size, args.batches))
    row_bytes = mixture.spec.sequence_length * 4 * len(ROW_ARRAYS)
    loader_rate, plain_rate = (rows / statistics.median(r.seconds for r in side) for side in (ours, theirs))
    loader_cpu, plain_cpu = (statistics.median(r.cpu_seconds for r in side) / rows * 1e6 for side in (ours, theirs))
    return {
        "sequence_length_tokens": mixture.spec.sequence_length,
        "batch_size_rows": args.batch_size,
        "rows_per_round": rows,
        "most_epochs_per_round": round(max(use.epochs for use in mixture.epochs(rows)), 3),
        "rounds": args.rounds,
        "loader_threads": args.threads,
        "cpu_count": os.cpu_count(),
        "loader_rows_per_second": round(loader_rate),
        "memory_mapped_rows_per_second": round(plain_rate),
        "loader_over_memory_mapped_ratio": round(loader_rate / plain_rate, 3),
        "loader_tokens_per_second": round(loader_rate * mixture.spec.sequence_length),
        "loader_bytes_read_per_row": round(statistics.median(r.bytes_read for r in ours) / rows),
        "memory_mapped_bytes_per_row": row_bytes,
        "loader_cpu_microseconds_per_row": round(loader_cpu, 1),
        "memory_mapped_cpu_microseconds_per_row": round(plain_cpu, 1),
    }


@dataclass(frozen=True)
class _Round:
    seconds: float
    cpu_seconds: float
    bytes_read: int  # by system calls of this process: a memory-mapped read has none


def _in_new_process(work: Callable[..., _Round], *arguments: Any) -> _Round:
    """Runs a round where nothing of an earlier one is left in memory; importing and opening are not measured."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(work, *arguments).result()


def _measure(work: Callable[[], None]) -> _Round:
    started, cpu, read = time.perf_counter(), time.process_time(), _bytes_read()
    work()
    return _Round(time.perf_counter() - started, time.process_time() - cpu, _bytes_read() - read)


def _bytes_read() -> int:
    """Bytes that read calls of this process have returned, by the kernel's account.

    Raises:
        UserError: the kernel keeps none.
    """
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        raise UserError("/proc/self/io is not there to count bytes read; run this benchmark on Linux") from None
    return int(dict(line.split(": ") for line in lines)["rchar"])


def _read_with_loader(url: str, batch_size: int, batches: int, threads: int) -> _Round:
    mixture = open_mixture(url)
    for cache in mixture.caches.values():
        cache.read(np.zeros(1, np.int64))  # opens the arrays

    def read() -> None:
        with Loader(mixture, batch_size, batches=batches, threads=threads) as loader:
            for _ in loader:
                pass

    return _measure(read)


def _write_plain(folder: Path, mixture: Mixture, rows: int) -> None:
    """The first `rows` rows of the run: each once as .npy files, and where in them each row of the run lies."""
    where = mixture.locate(np.arange(rows))
    unique, places = np.unique(np.stack([where.task, where.cache_row]), axis=1, return_inverse=True)
    np.save(folder / "places.npy", places.ravel())
    shape = (unique.shape[1], mixture.spec.sequence_length)
    files = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", "f4" if name == "loss_weights" else "i4", shape)
        for name in ROW_ARRAYS
    }
    for k, task in enumerate(mixture.task_names):
        [chosen] = np.nonzero(unique[0] == k)
        for part in np.array_split(chosen, len(chosen) // 1024 + 1):
            found = mixture.caches[task].read(unique[1, part])
            for name, file in files.items():
                file[part] = getattr(found, f"{name}_NL")
    for file in files.values():
        file.flush()


def _read_plain(folder: str, batch_size: int, batches: int) -> _Round:
    arrays = [np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in ROW_ARRAYS]
    places = np.load(Path(folder) / "places.npy")

    def read() -> None:
        for chosen in places.reshape(batches, batch_size):
            for array in arrays:
                np.take(array, chosen, axis=0)

    return _measure(read)


def _build_mixture(folder: Path, sequence_length: int, megabytes: float) -> str:
    """A mixture of two tasks, 3 : 1, over the standard library's sources; the path of its mixture.json."""
    from hephaestus_jax.data.cache_build import build_cache
    from hephaestus_jax.data.mixture_spec import MixtureSpec, Stage, save_mixture_spec

    texts = list(_sources(int(megabytes * 1e6)))
    vocabulary = _train_vocabulary(folder, texts)
    parts = {}
    for name, share in (("code", texts[: 3 * len(texts) // 4]), ("other_code", texts[3 * len(texts) // 4 :])):
        built = build_cache(_Texts(name, share, vocabulary), folder / "caches", sequence_length)
        parts[name] = built.as_part(folder)
        used = built.manifest.vocabulary
    spec = MixtureSpec(
        name="standard_library",
        seed=0,
        denominator=4,
        sequence_length=sequence_length,
        vocabulary=used,
        tasks=parts,
        stages=(Stage(0, {"code": 3, "other_code": 1}),),
    )
    save_mixture_spec(str(folder), spec)
    return str(folder / "mixture.json")


def _sources(most_bytes: int) -> Iterator[str]:
    """Python files of the standard library in order of their paths, about `most_bytes` in all."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if most_bytes <= 0:
            return
        if "site-packages" not in path.parts:
            text = path.read_text("utf-8", "replace")
            most_bytes -= len(text)
            yield text


def _train_vocabulary(folder: Path, texts: Sequence[str]) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = byte_level, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts[:: max(1, len(texts) // VOCABULARY_TEXTS)], trainer)
    path = str(folder / "tokenizer.json")
    tokenizer.save(path)
    return path


@dataclass(frozen=True)
class _Texts:
    """A `TokenSource` over texts in memory."""

    name: str
    texts: Sequence[str]
    vocabulary: str
    split: str = "train"

    def fingerprint(self) -> str:
        return digest(list(self.texts))

    def count(self) -> int:
        return len(self.texts)

    def read(self, start: int, stop: int) -> Iterator[TokenizedRecord]:
        from hephaestus_jax.data.vocabularies import load_vocabulary

        origin = Origin("python", sysconfig.get_python_version(), "PSF-2.0")
        texts = self.texts[start:stop]
        for number, tokens in enumerate(load_vocabulary(self.vocabulary).encode_batch(texts), start):
            yield TokenizedRecord(digest([self.name, number]), origin, tokens, np.ones(len(tokens), np.float32))
