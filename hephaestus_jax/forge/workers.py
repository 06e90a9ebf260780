"""Jobs spread over processes, which may be killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress


@dataclass(frozen=True)
class Job:
    """A function of a module with its arguments, and the bytes of input that it has to go through."""

    name: str
    size: int
    function: Callable[..., None]
    arguments: tuple[Any, ...]


def run_jobs(label: str, jobs: Sequence[Job], workers: int, prepare: Callable[..., None], *shared: Any) -> None:
    """Runs the jobs, the largest first, in up to `workers` processes, or in this one; each keeps its own result.

    Args:
        label: for the progress line.
        jobs: what to run.
        workers: processes.
        prepare: called with `shared` once in every process, before its first job.

    Raises:
        UserError: from a job, or because a worker was killed. The results of finished jobs stay.
    """
    order = sorted(jobs, key=lambda job: (-job.size, job.name))
    total = sum(job.size for job in order)
    with Progress(label, "MB", round(total / 1e6)) as progress:
        done = 0
        for finished in _in_this_process(order, prepare, shared) if workers == 1 or len(order) < 2 else _in_workers(
            order, min(workers, len(order)), prepare, shared, progress.every
        ):  # fmt: skip
            done += finished
            progress.add(round(done / 1e6) - progress.count)


def _in_this_process(jobs: Sequence[Job], prepare: Callable[..., None], shared: tuple[Any, ...]) -> Iterator[int]:
    if jobs:
        prepare(*shared)
    for job in jobs:
        job.function(*job.arguments)
        yield job.size


def _in_workers(
    jobs: Sequence[Job], workers: int, prepare: Callable[..., None], shared: tuple[Any, ...], every: float
) -> Iterator[int]:
    """Yields the size of every finished job, and 0 at least every so many seconds: a large job can take minutes."""
    # spawn: a forked copy of a process with threads can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (prepare, shared))
    try:
        running = {pool.submit(job.function, *job.arguments): job for job in jobs}
        while running:
            finished, _ = wait(running, every, FIRST_COMPLETED)
            for future in finished:
                future.result()
            yield sum(running.pop(future).size for future in finished)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed (most often: out of memory); run again to resume, with fewer workers"
        ) from error
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
