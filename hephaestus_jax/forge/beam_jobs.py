"""A stage of the build: jobs as an Apache Beam pipeline, each of which keeps its own result.

Here the jobs are dealt to worker processes, and each runs its share on Beam's in-process `FnApiRunner` (the default
DirectRunner would look for another runner on the network, and the runner's own worker processes hang when one of them
is killed). With `beam_options` the same pipeline goes to any other Beam runner whose workers see the work folder.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress

_SHARES = 24  # for each worker: enough to even out and to show progress, few enough for their start not to count


@dataclass(frozen=True)
class Job:
    """A function of a module with its arguments, and its size: bytes to go through, or what else the caller counts."""

    name: str
    size: int
    function: Callable[..., None]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Workers:
    """Who runs the jobs: `count` processes here, or, if there are options, the Beam runner that they name."""

    count: int
    beam_options: tuple[str, ...] = ()


def run_jobs(
    label: str,
    jobs: Sequence[Job],
    workers: Workers,
    prepare: Callable[..., None],
    *shared: Any,
    unit: str = "",
) -> None:
    """Runs the jobs, the largest first; each keeps its own result, and finished ones are not lost with the build.

    Args:
        label: for the progress line.
        jobs: what to run.
        workers: who runs them.
        prepare: called with `shared` once in every process, before its first job.
        unit: what the sizes of the jobs count, where that is not bytes.

    Raises:
        UserError: from a job, or because a worker was killed.
    """
    order = sorted(jobs, key=lambda job: (-job.size, job.name))
    total = sum(job.size for job in order)
    unit, scale = (unit, 1) if unit else ("MB", 1e6) if total > 2e7 else ("kB", 1e3)
    with Progress(label, unit, round(total / scale)) as progress:
        done = 0
        for finished in _finished(order, workers, prepare, shared, progress.every):
            done += finished
            progress.add(round(done / scale) - progress.count)


def _finished(
    jobs: Sequence[Job], workers: Workers, prepare: Callable[..., None], shared: tuple[Any, ...], every: float
) -> Iterator[int]:
    """Yields the size of what was finished, as it is finished."""
    if not jobs:
        return
    if workers.beam_options:
        _run_elsewhere(jobs, workers.beam_options, prepare, shared)
        yield sum(job.size for job in jobs)
    elif workers.count == 1 or len(jobs) == 1:
        prepare(*shared)
        for share in _shares(jobs, _SHARES):
            yield _run_share(share)
    else:
        count = min(workers.count, len(jobs))
        yield from _in_workers(_shares(jobs, count * _SHARES), count, prepare, shared, every)


def _shares(jobs: Sequence[Job], count: int) -> list[Sequence[Job]]:
    """The jobs dealt out: the largest ones begin a share each."""
    return [jobs[first::count] for first in range(min(count, len(jobs)))]


def _in_workers(
    shares: Sequence[Sequence[Job]], workers: int, prepare: Callable[..., None], shared: tuple[Any, ...], every: float
) -> Iterator[int]:
    """Yields the size of every finished share, and 0 at least every so many seconds: a share can take minutes."""
    # spawn: a forked copy of a process with threads can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (prepare, shared))
    try:
        running = {pool.submit(_run_share, share) for share in shares}
        while running:
            finished, running = wait(running, every, FIRST_COMPLETED)
            yield sum(future.result() for future in finished)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed (most often: out of memory); run again to resume, with fewer workers"
        ) from error
    except Exception:
        print("a job failed; what is under way is finished and kept, then it stops", file=sys.stderr, flush=True)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(prepare: Callable[..., None], shared: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare(*shared)


def _end_with_parent() -> None:
    """Ends this process when its parent was killed; a worker left alone would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_share(jobs: Sequence[Job]) -> int:
    """Runs jobs as a Beam pipeline in this process; their size in bytes."""
    with _quiet_import():
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    _errors.clear()
    _run_pipeline(jobs, _call_unless_failed, FnApiRunner(), [])
    if _errors:
        raise _errors[0]
    return sum(job.size for job in jobs)


def _run_elsewhere(
    jobs: Sequence[Job], options: Sequence[str], prepare: Callable[..., None], shared: tuple[Any, ...]
) -> None:
    _run_pipeline(jobs, _PreparedCall(prepare, shared), None, options)


def _run_pipeline(jobs: Sequence[Job], call: Callable[[Job], str], runner: Any, options: Sequence[str]) -> None:
    with _quiet_import():
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

    with beam.Pipeline(runner=runner, options=PipelineOptions(list(options))) as pipeline:
        _ = pipeline | "Jobs" >> beam.Create(jobs) | beam.Reshuffle() | "Run" >> beam.Map(call)


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Beam warns, through the root logger, that clients for Google's cloud are not installed."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


_errors: list[Exception] = []  # of the jobs that ran in this process


def _call_unless_failed(job: Job) -> str:
    """Calls a job; an error is kept for the end of the pipeline, for Beam would wrap it in pages of text."""
    if not _errors:
        try:
            job.function(*job.arguments)
        except Exception as error:
            _errors.append(error)
    return job.name


class _PreparedCall:
    """Calls a job in a process that may not have been prepared yet."""

    def __init__(self, prepare: Callable[..., None], shared: tuple[Any, ...]) -> None:
        self.prepare, self.shared, self.prepared = prepare, shared, False

    def __call__(self, job: Job) -> str:
        if not self.prepared:
            self.prepare(*self.shared)
            self.prepared = True
        job.function(*job.arguments)
        return job.name
