"""Building units in several processes, which may be killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from hephaestus_jax.data.cache_units import TokenTable, UnitSummary, build_unit
from hephaestus_jax.data.task import TokenSource
from hephaestus_jax.data.vocabularies import single_threaded
from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress


@dataclass(frozen=True)
class _Job:
    """Everything a process needs to build any unit."""

    source: TokenSource
    directory: Path
    records: int
    unit_records: int
    sequence_length: int
    table: TokenTable

    def stem(self, number: int) -> Path:
        return self.directory / f"{number:08d}"

    def missing(self) -> list[int]:
        units = range(-(-self.records // self.unit_records))
        done = {path.stem for path in self.directory.glob("*.json")}
        return [number for number in units if self.stem(number).name not in done]

    def bounds(self, number: int) -> tuple[int, int]:
        start = number * self.unit_records
        return start, min(start + self.unit_records, self.records)

    def build(self, number: int) -> UnitSummary:
        unit = build_unit(self.source, *self.bounds(number), self.sequence_length, self.table)
        unit.save(self.stem(number))
        return unit.summary


def build_units(
    source: TokenSource,
    directory: Path,
    records: int,
    unit_records: int,
    sequence_length: int,
    table: TokenTable,
    workers: int,
) -> None:
    """Builds the units that `directory` lacks, in `workers` processes (with 1, in this one).

    Raises:
        UserError: from the source, from writing, or because a worker was killed; finished units stay.
    """
    job = _Job(source, directory, records, unit_records, sequence_length, table)
    missing = job.missing()
    if not missing:
        return
    left = sum(stop - start for start, stop in map(job.bounds, missing))
    label = f"tokenise and pack {source.name} {source.split}"
    alone = min(workers, len(missing)) == 1  # starting a process takes longer than most single units
    tokens, started = 0, time.monotonic()
    with Progress(label, "records", left) as progress:
        for summary in _in_this_process(job, missing) if alone else _in_workers(job, missing, workers):
            tokens += summary.tokens
            rate = tokens / (time.monotonic() - started)
            progress.label = f"{label}, {tokens / 1e6:,.2f}M tokens at {rate / 1e6:,.3f}M tokens/s"
            progress.add(summary.records)


def _in_this_process(job: _Job, numbers: list[int]) -> Iterator[UnitSummary]:
    for number in numbers:
        yield job.build(number)


def _in_workers(job: _Job, numbers: list[int], workers: int) -> Iterator[UnitSummary]:
    # spawn: a forked copy of a process with threads (tokenizers, TensorStore, TensorFlow) can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(numbers)), context, _start_worker, (job,))
    try:
        for future in as_completed([pool.submit(_build_in_worker, number) for number in numbers]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker was killed while it built units of {job.source.name} (most often: out of memory); run again to "
            "resume, with fewer workers or smaller units"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)  # units in the making are finished and kept


_job: _Job  # of this worker, set when it starts


def _start_worker(job: _Job) -> None:
    global _job
    _job = job
    single_threaded()  # one worker is one core
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which lets units be finished
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent was killed; a worker left alone would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _build_in_worker(number: int) -> UnitSummary:
    return _job.build(number)
