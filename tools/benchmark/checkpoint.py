"""Bytes per second of saving and restoring a training state, beside a plain copy of the same bytes; a step's pause.

Each round saves the state and waits until it lies on disk, copies the files of that checkpoint and flushes the copy
(Orbax flushes its files too), restores it with its digests checked, and reads the copy into memory. Ratios are pair by
pair, above 1 where ours is the quicker one. Then training steps are timed alone, and around a save: how long `save`
holds up the loop, and how much longer the steps take while the rest is written behind them. The files lie in the
operating system's cache when they are read, unless --cold has it forget them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hephaestus_jax.config import CheckpointConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress
from hephaestus_jax.versions import versions_of
from tools.benchmark.steps.options import add_model, add_step, model_from, spec_from
from tools.benchmark.steps.workers import limit_threads, set_environment

_BUFFER = 8 << 20
_MB = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    add_model(parser, "gin/models/medium.gin")
    add_step(parser)
    parser.add_argument("--folder", type=Path, help="where checkpoints are written (default: the system's temporary)")
    parser.add_argument("--rounds", type=int, default=5, help="saves, copies and restores (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="steps timed alone, each round (default: %(default)s)")
    parser.add_argument("--cold", action="store_true", help="have the system forget the files before they are read")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the line to print."""
    if min(args.rounds, args.steps) < 1:
        raise UserError("--rounds and --steps must be at least 1")
    spec = spec_from(args, model=model_from(args), threads=limit_threads(0))
    set_environment(spec)
    from tools.benchmark.steps.ours import Ours  # imports jax, which reads the environment

    side = Ours(spec)
    side.advance(1)  # moments that are not zero
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="benchmark_checkpoint_") as folder:
        rounds, pauses = _rounds(side, Path(folder), args)
    size = rounds[0].size
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions_of("jax", "orbax-checkpoint", "tensorstore"),
        "model": spec.model.name, "parameters": spec.model.num_parameters, "threads": spec.threads,
        "checkpoint_mb": round(size / _MB, 1), "rounds": args.rounds, "files_cached": not args.cold,
        "save_mb_per_s": _rate(size, [r.save for r in rounds]), "copy_mb_per_s": _rate(size, [r.copy for r in rounds]),
        "restore_mb_per_s": _rate(size, [r.restore for r in rounds]),
        "read_mb_per_s": _rate(size, [r.read for r in rounds]),
        "save_ratio_to_copy": _median([r.copy / r.save for r in rounds]),
        "restore_ratio_to_copy": _median([r.copy / r.restore for r in rounds]),
        "restore_ratio_to_read": _median([r.read / r.restore for r in rounds]),
        "step_s": _median([p.step for p in pauses]),
        "pause_s": _median([p.pause for p in pauses]),
        "step_s_while_writing": _median([p.step_while_writing for p in pauses]),
        "lost_s_per_save": _median([p.lost for p in pauses]),
    }  # fmt: skip


class _Round(NamedTuple):
    """Bytes of the checkpoint's files, and seconds."""

    size: int
    save: float
    copy: float
    restore: float
    read: float


class _Pause(NamedTuple):
    """Seconds: of a step alone, of the call of `save`, of a step while it is written, and lost by the save in all."""

    step: float
    pause: float
    step_while_writing: float
    lost: float


def _rounds(side: Any, folder: Path, args: argparse.Namespace) -> tuple[list[_Round], list[_Pause]]:
    import jax

    from hephaestus_jax.checkpoints import Checkpointer

    rounds, pauses = [], []
    config = CheckpointConfig(every_steps=1, keep=2)
    with Checkpointer(folder / "ours", config) as checkpoints, Progress("measured", "rounds", args.rounds) as progress:
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), side.state)
        for number in range(1, args.rounds + 1):
            rounds.append(_round(side, checkpoints, abstract, folder, 2 * number, args.cold))
            pauses.append(_pause(side, checkpoints, folder / "ours", 2 * number + 1, args.steps))
            progress.add()
    return rounds, pauses


def _round(side: Any, checkpoints: Any, abstract: Any, folder: Path, step: int, cold: bool) -> _Round:
    import jax

    def save() -> None:
        checkpoints.save(step, side.state, {"next_row": step}, force=True)
        checkpoints.wait()

    seconds = {"save": _seconds(save)}
    source, copied = folder / "ours" / str(step), folder / "copy"
    shutil.rmtree(copied, ignore_errors=True)
    seconds["copy"] = _seconds(lambda: _copy(source, copied))
    if cold:
        _forget(source)
    seconds["restore"] = _seconds(lambda: jax.block_until_ready(checkpoints.restore(abstract).state))
    if cold:
        _forget(copied)
    seconds["read"] = _seconds(lambda: _read(copied))
    return _Round(size=sum(path.stat().st_size for path in _files(source)), **seconds)


def _pause(side: Any, checkpoints: Any, folder: Path, step: int, alone: int) -> _Pause:
    """Steps alone, then a save with steps behind it until it is on disk."""
    per_step = _seconds(lambda: side.advance(alone)) / alone
    started = time.perf_counter()
    checkpoints.save(step, side.state, {"next_row": step}, force=True)
    pause = time.perf_counter() - started
    steps = [_seconds(lambda: side.advance(1))]
    while not (folder / str(step)).exists():  # it appears when it is whole
        steps.append(_seconds(lambda: side.advance(1)))
    taken = time.perf_counter() - started
    checkpoints.wait()
    return _Pause(per_step, pause, statistics.mean(steps), taken - len(steps) * per_step)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    """The same files, flushed."""
    buffer = memoryview(bytearray(_BUFFER))
    for path in _files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "rb", buffering=0) as reading, open(copy, "wb", buffering=0) as writing:
            while count := reading.readinto(buffer):
                writing.write(buffer[:count])
            os.fsync(writing.fileno())


def _read(folder: Path) -> None:
    """All of it into fresh memory, as a restore has to."""
    for path in _files(folder):
        with open(path, "rb", buffering=0) as reading:
            whole = memoryview(bytearray(path.stat().st_size))
            done = 0
            while count := reading.readinto(whole[done:]):
                done += count


def _forget(folder: Path) -> None:
    for path in _files(folder):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _rate(size: int, seconds: list[float]) -> float:
    return float(f"{size / _MB / statistics.median(seconds):.4g}")


def _median(values: list[float]) -> float:
    return float(f"{statistics.median(values):.3g}")
