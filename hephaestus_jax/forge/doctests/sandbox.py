"""Executes docstrings in sandboxed workers, twice each. Nothing under test is imported in this process."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import hephaestus_jax
from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.doctests.extract import DoctestJob, extract_examples
from hephaestus_jax.forge.doctests.results import Failure, Outcome, agreement, read_result
from hephaestus_jax.forge.doctests.worker import Launch
from hephaestus_jax.progress import Progress

_UNIT = 100  # docstrings per worker process: fixed, so that no result depends on the number of workers
_SLACK_SECONDS = 10.0  # on top of the worker's own limits, before the worker itself is given up
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from hephaestus_jax.forge.doctests import worker;"
    " sys.path.pop(0); worker.main()"
)
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "COLUMNS": "80",
    "NO_COLOR": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONWARNINGS": "ignore",
    "MPLBACKEND": "Agg",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "HF_HUB_OFFLINE": "1",
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")},
}


@dataclass(frozen=True)
class Limits:
    """What one docstring may use. Sizes in bytes, times in seconds."""

    address_space_bytes: int = 2 << 30  # jax aborts with 1 GiB
    cpu_seconds: int = 15
    wall_seconds: float = 30.0
    import_seconds: float = 120.0  # for importing the module, once per worker
    file_bytes: int = 16 << 20
    scratch_bytes: int = 256 << 20
    output_bytes: int = 1 << 20
    processes: int = 256
    namespaces: bool = True  # False leaves the kernel's namespaces out; for tests

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name != "namespaces" and getattr(self, item.name) <= 0:
                raise UserError(f"doctest limit {item.name} is {getattr(self, item.name)}; it must be above 0")


@dataclass(frozen=True)
class _Task:
    """One docstring on its way to a worker; `number` is its place in the sorted list of jobs."""

    number: int
    job: DoctestJob
    examples: tuple[dict[str, Any], ...]

    def message(self) -> dict[str, Any]:
        job = self.job
        head = {"number": self.number, "api_name": job.api_name, "aliases": job.aliases, "module": job.module}
        return {**head, "examples": self.examples}


class DoctestRun:
    """The execution of a list of docstrings; iterating it yields (job, outcome).

    `isolation` names the measures in force on this machine, as a worker found them.
    """

    def __init__(
        self, jobs: Sequence[DoctestJob], workers: int, limits: Limits, scratch: Path, progress: Progress | None,
        python_path: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        if workers < 1:
            raise UserError(f"doctests: {workers} workers; at least 1 is needed")
        if not sys.platform.startswith("linux"):
            raise UserError(f"doctests: the sandbox needs Linux, this is {sys.platform}; build the corpus without them")
        self.workers, self.limits, self.scratch, self.progress = workers, limits, scratch.resolve(), progress
        self.python_path = tuple(str(path.resolve()) for path in python_path)
        self.jobs = sorted(jobs, key=lambda job: (_group(job.module), job.module, job.api_name, job.docstring))
        self._lock = threading.Lock()
        self._live: set[subprocess.Popen[bytes]] = set()
        self._stopping = False
        self.scratch.mkdir(parents=True, exist_ok=True)
        with _WorkerProcess(self, "probe", seed=0, cold=False) as worker:
            self.isolation = worker.isolation

    def __iter__(self) -> Iterator[tuple[DoctestJob, Outcome]]:
        """Yields every job once, sorted by package, module and API name, whatever the number of workers."""
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="doctests")
        try:
            units = [(unit, self._submit(pool, number, unit)) for number, unit in enumerate(_units(self.jobs))]
            for unit, runs in units:
                first, second = (run.result() for run in runs)
                for number, (job, prepared) in unit:
                    outcome = prepared if isinstance(prepared, Failure) else agreement(first[number], second[number])
                    yield job, outcome
        finally:
            self._stopping = True
            with self._lock:
                for process in self._live:
                    _kill(process)
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, number: int, unit: _Unit) -> list[Future[dict[int, Outcome]]]:
        tasks = [_Task(place, job, found) for place, (job, found) in unit if not isinstance(found, Failure)]
        return [pool.submit(self._run_unit, tasks, f"{number:05d}-{run}", run) for run in (1, 2)]

    def _run_unit(self, tasks: list[_Task], name: str, seed: int) -> dict[int, Outcome]:
        """Runs one unit once, in as many workers as it takes."""
        outcomes: dict[int, Outcome] = {}
        again = self._run_tasks(tasks, name, seed, False, outcomes)
        self._run_tasks(again, name, seed, True, outcomes)
        return outcomes

    def _run_tasks(
        self, tasks: Sequence[_Task], name: str, seed: int, cold: bool, outcomes: dict[int, Outcome]
    ) -> list[_Task]:
        """Fills `outcomes`; returns the tasks that deserve another try in a cold worker."""
        again = []
        pending = deque(tasks)
        while pending and not self._stopping:
            with _WorkerProcess(self, name, seed, cold) as worker:
                while pending and worker.alive:
                    task = pending.popleft()
                    result = worker.ask(task)
                    outcomes[task.number] = read_result(result)
                    if result.get("retry") is True:
                        again.append(task)
                    self._count()
                if worker.importing:  # the worker did not survive an import: no other docstring of it will
                    for task in [task for task in pending if task.job.module == worker.importing]:
                        outcomes[task.number] = _import_failure(worker.importing)
                        pending.remove(task)
                        self._count()
        return again

    def _count(self) -> None:
        if self.progress is not None:
            with self._lock:
                self.progress.add()

    def track(self, process: subprocess.Popen[bytes], alive: bool) -> None:
        """Keeps the list of processes to kill when the iteration is given up."""
        with self._lock:
            (self._live.add if alive else self._live.discard)(process)
            if self._stopping:
                _kill(process)


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
        scratch: a folder that the workers may fill and that is emptied again.
        progress: counts executed docstrings; expect two per docstring that has examples.
        python_path: folders to import from besides the installation.

    Returns:
        An iterable of (job, list of `ExecutedExample` | `Failure`), in an order and with contents that do not depend
        on `workers`; its `isolation` names the measures in force.

    Raises:
        UserError: the worker cannot be started, or this is not Linux.
    """
    return DoctestRun(jobs, workers, limits, scratch, progress, python_path)


_Prepared = tuple[dict[str, Any], ...] | Failure
_Unit = list[tuple[int, tuple[DoctestJob, _Prepared]]]


def _group(module: str) -> str:
    """The jobs that share workers: those of one top-level package, or of the standard library."""
    top = module.partition(".")[0]
    return "" if top in sys.stdlib_module_names else top


def _units(jobs: Sequence[DoctestJob]) -> Iterator[_Unit]:
    unit: _Unit = []
    for number, job in enumerate(jobs):
        if unit and (len(unit) == _UNIT or _group(unit[-1][1][0].module) != _group(job.module)):
            yield unit
            unit = []
        unit.append((number, (job, _prepare(job))))
    if unit:
        yield unit


def _prepare(job: DoctestJob) -> _Prepared:
    try:
        examples = extract_examples(job.docstring)
    except ValueError as error:
        return Failure("malformed", str(error))
    runnable = tuple(
        {"index": index, **{key: getattr(example, key) for key in ("source", "want", "error", "flags", "checked")}}
        for index, example in enumerate(examples)
        if not example.skipped
    )
    return runnable or Failure("no examples", "all are marked +SKIP" if examples else "")


def _import_failure(module: str) -> Failure:
    """The failure of a docstring whose module takes the worker down when imported."""
    return Failure("import", f"importing {module} ended or stopped the worker")


class _WorkerProcess:
    """One worker and the pipe to it. A context manager: on leaving, the worker and all it started are gone."""

    def __init__(self, run: DoctestRun, name: str, seed: int, cold: bool) -> None:
        self.run, self.limits = run, run.limits
        self.folder = run.scratch / name
        self.importing = ""  # the module being imported when the worker was last heard of
        self.alive = True
        self._buffer = bytearray()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        environment = _ENVIRONMENT | {"HOME": str(self.folder), "TMPDIR": str(self.folder), "PYTHONHASHSEED": str(seed)}
        environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        if run.python_path:
            environment["PYTHONPATH"] = os.pathsep.join(run.python_path)
        root = str(Path(hephaestus_jax.__file__).parents[1])
        command = [sys.executable, "-s", "-P", "-B", "-c", _BOOT, root]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, cwd=self.folder, start_new_session=True,
        )  # fmt: skip
        run.track(self.process, True)
        values = {key: value for key, value in asdict(self.limits).items()}
        self._send(asdict(Launch(scratch=str(self.folder), burn_pids=64 * seed, cold=cold, **values)))
        hello = self._receive(time.monotonic() + 60.0)
        if hello is None or "isolation" not in hello:
            assert self.process.stderr is not None
            _kill(self.process)
            words = self.process.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
            if not run._stopping:
                raise UserError(f"the doctest worker did not start: {' '.join(words) or 'no message'}")
        self.isolation = tuple(hello["isolation"]) if hello else ()

    def __enter__(self) -> _WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        _kill(self.process)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        self.process.wait()
        self.run.track(self.process, False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, task: _Task) -> dict[str, Any]:
        """The worker's result for `task`; a failure, and `alive` turns False, when the worker does not survive it."""
        self._send(task.message())
        limits = self.limits
        deadline = time.monotonic() + limits.import_seconds + limits.wall_seconds + _SLACK_SECONDS
        while (message := self._receive(deadline)) is not None:
            if "importing" in message:
                self.importing = message["importing"]
            elif message.get("number") == task.number:
                self.importing = ""
                return message["result"]
        self.alive = False
        if self.importing:
            return _reported(_import_failure(self.importing))
        return _reported(Failure("crashed", "took the worker with it"))

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the worker is gone, which the missing answer will say

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        """The next message; None at the end of the stream or when the deadline has passed."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        poller = select.poll()  # select() refuses descriptors above 1023
        poller.register(descriptor, select.POLLIN)
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                return json.loads(line)
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(1000 * left):
                return None
            part = os.read(descriptor, 1 << 20)
            if not part:
                return None
            self._buffer += part


def _reported(failure: Failure) -> dict[str, Any]:
    """A failure in the form in which workers report one."""
    return {"failure": failure.reason, "detail": failure.detail}


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
