"""Executes docstrings in sandboxed workers, twice each. Nothing under test is imported in this process."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.doctests.extract import DoctestJob, extract_examples, shows_something
from hephaestus_jax.forge.doctests.process import Limits, WorkerProcess, WorkerSettings
from hephaestus_jax.forge.doctests.results import Failure, Outcome, agreement, read_result
from hephaestus_jax.progress import Progress

_UNIT = 100  # docstrings per worker process: fixed, so that no result depends on the number of workers


@dataclass(frozen=True)
class _Task:
    """One docstring on its way to a worker; `number` is its place in the sorted list of jobs.

    `examples` is a failure where there is nothing to run.
    """

    number: int
    job: DoctestJob
    examples: tuple[dict[str, Any], ...] | Failure

    def message(self) -> dict[str, Any]:
        job = self.job
        head = {"number": self.number, "api_name": job.api_name, "aliases": job.aliases, "module": job.module}
        return {**head, "examples": self.examples}


class DoctestRun:
    """The execution of a list of docstrings; iterating it yields (job, outcome).

    `isolation` names the measures in force on this machine, as a worker found them.
    """

    def __init__(
        self,
        jobs: Sequence[DoctestJob],
        workers: int,
        limits: Limits,
        scratch: Path,
        progress: Progress | None,
        python_path: Sequence[Path],
    ) -> None:
        self._jobs = sorted(jobs, key=lambda job: (_group(job.module), job.module, job.api_name, job.docstring))
        self._workers, self._limits, self._scratch, self._progress = workers, limits, scratch.resolve(), progress
        self._python_path = tuple(str(path.resolve()) for path in python_path)
        self._lock = threading.Lock()
        self._live: set[WorkerProcess] = set()
        self._stopping = False
        with self._start("probe", seed=0, cold=False) as worker:
            self.isolation = worker.isolation

    def __iter__(self) -> Iterator[tuple[DoctestJob, Outcome]]:
        """Yields every job once, sorted by package, module and API name."""
        self._stopping = False
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="doctests")
        try:
            units = [
                (tasks, [pool.submit(self._run_unit, tasks, f"{number:05d}-{run}", run) for run in (1, 2)])
                for number, tasks in enumerate(_units(self._jobs))
            ]
            for tasks, runs in units:
                yield from _compare(tasks, runs)
        finally:
            with self._lock:
                self._stopping = True
                for worker in self._live:
                    worker.kill()
            pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, name: str, seed: int, cold: bool) -> WorkerProcess:
        return WorkerProcess(WorkerSettings(self._scratch / name, self._limits, seed, self._python_path, cold))

    def _run_unit(self, tasks: Sequence[_Task], name: str, seed: int) -> dict[int, Outcome]:
        """Runs one unit once, in as many workers as it takes."""
        outcomes: dict[int, Outcome] = {}
        runnable = [task for task in tasks if not isinstance(task.examples, Failure)]
        self._count(len(tasks) - len(runnable))
        again = self._run_tasks(runnable, name, seed, False, outcomes)
        self._count(-len(again))
        self._run_tasks(again, name, seed, True, outcomes)
        return outcomes

    def _run_tasks(
        self, tasks: Sequence[_Task], name: str, seed: int, cold: bool, outcomes: dict[int, Outcome]
    ) -> list[_Task]:
        """Fills `outcomes`; returns the tasks that deserve another try in a cold worker."""
        again = []
        pending = deque(tasks)
        while pending and not self._stopping:
            with self._start(name, seed, cold) as worker, self._registered(worker):
                while pending and worker.alive:
                    task = pending.popleft()
                    result = worker.ask(task.message())
                    outcomes[task.number] = read_result(result) if result is not None else _loss(worker)
                    self._count(1)
                    if result is not None and result.get("retry") is True:
                        again.append(task)
                for task in [task for task in pending if task.job.module == worker.importing]:
                    outcomes[task.number] = _loss(worker)  # this worker did not survive the import, nor would another
                    pending.remove(task)
                    self._count(1)
        return again

    @contextlib.contextmanager
    def _registered(self, worker: WorkerProcess) -> Iterator[None]:
        """Keeps the worker on the list of those to kill when the iteration is given up."""
        with self._lock:
            self._live.add(worker)
            if self._stopping:
                worker.kill()
        try:
            yield
        finally:
            with self._lock:
                self._live.discard(worker)

    def _count(self, docstrings: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._progress.add(docstrings)


def run_doctests(
    jobs: Sequence[DoctestJob],
    workers: int,
    limits: Limits,
    scratch: Path,
    progress: Progress | None = None,
    python_path: Sequence[Path] = (),
) -> DoctestRun:
    """Executes the examples of every docstring twice, in separate processes with different hash seeds and folders.

    Args:
        jobs: the docstrings.
        workers: worker processes at a time.
        limits: what one docstring may use.
        scratch: a folder for the workers to fill; what they leave there is removed.
        progress: counts executions, two per docstring.
        python_path: folders to import from besides the installation.

    Returns:
        An iterable of (job, list of `ExecutedExample` | `Failure`), in an order and with contents that do not depend
        on `workers`; its `isolation` names the measures in force.

    Raises:
        UserError: fewer than one worker, a system other than Linux, or a worker that does not start.
    """
    if workers < 1:
        raise UserError(f"doctests: {workers} workers; at least 1 is needed")
    if not sys.platform.startswith("linux"):
        raise UserError(f"doctests: the sandbox needs Linux, this is {sys.platform}; build the corpus without them")
    return DoctestRun(jobs, workers, limits, scratch, progress, python_path)


def _group(module: str) -> str:
    """What shares workers: a top-level package, or the whole standard library."""
    top = module.partition(".")[0]
    return "" if top in sys.stdlib_module_names else top


def _units(jobs: Sequence[DoctestJob]) -> Iterator[list[_Task]]:
    """The sorted jobs in pieces of one group and at most `_UNIT` docstrings."""
    numbered = enumerate(jobs)
    for _, group in itertools.groupby(numbered, key=lambda item: _group(item[1].module)):
        tasks = [_Task(number, job, _runnable(job)) for number, job in group]
        yield from (tasks[start : start + _UNIT] for start in range(0, len(tasks), _UNIT))


def _runnable(job: DoctestJob) -> tuple[dict[str, Any], ...] | Failure:
    try:
        examples = extract_examples(job.docstring)
    except ValueError as error:
        return Failure("malformed", str(error))
    if examples and not any(map(shows_something, examples)):
        return Failure("shows nothing")
    runnable = tuple(
        {"index": index, **{key: getattr(example, key) for key in ("source", "want", "error", "flags", "checked")}}
        for index, example in enumerate(examples)
        if not example.skipped
    )
    return runnable or Failure("marked +SKIP" if examples else "no examples")


def _compare(
    tasks: Sequence[_Task], runs: Sequence[Future[dict[int, Outcome]]]
) -> Iterator[tuple[DoctestJob, Outcome]]:
    first, second = (run.result() for run in runs)
    for task in tasks:
        if isinstance(task.examples, Failure):
            yield task.job, task.examples
        else:
            yield task.job, agreement(first[task.number], second[task.number])


def _loss(worker: WorkerProcess) -> Failure:
    """Why there is no result from a worker that is gone."""
    if worker.importing:
        return Failure("import", f"importing {worker.importing} ended or stopped the worker")
    return Failure("crashed", "took the worker with it")
