"""Sides of a comparison as processes that take turns: while one works, the other waits for its turn, asleep."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from hephaestus_jax.errors import UserError
from tools.benchmark.steps.spec import StepSpec

SIDES = {"ours": ("tools.benchmark.steps.ours", "Ours"), "torch": ("tools.benchmark.steps.theirs", "Theirs")}


class Turn(NamedTuple):
    """What some steps gave and took: loss and gradient norm of each, wall seconds, CPU seconds of all threads."""

    values: list[tuple[float, float]]
    seconds: float
    cpu_seconds: float


class Worker:
    """One side, in a process of its own."""

    def __init__(self, side: str, spec: StepSpec) -> None:
        context = multiprocessing.get_context("spawn")
        self.side = side
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(side, spec, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of a method of the side's object; "ready" waits until there is one.

        Raises:
            UserError: it failed; its own traceback is on standard error.
        """
        try:
            self._connection.send((method, arguments))
            good, value = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise UserError(f"the process of side {self.side!r} ended with {self._process.exitcode}") from None
        if not good:
            raise UserError(f"side {self.side!r}: {value}")
        return value

    def advance(self, steps: int) -> Turn:
        """That many steps, timed in the process itself, from the first one sent to the last values fetched."""
        return self.call("timed", steps)

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextlib.contextmanager
def workers(sides: list[str], spec: StepSpec) -> Iterator[dict[str, Worker]]:
    """The sides, ready; they start one after the other, so that neither's compilation disturbs the other's."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Worker] = {}
        for side in sides:
            found[side] = Worker(side, spec)
            stack.callback(found[side].close)
            found[side].call("ready")
        yield found


def limit_threads(threads: int) -> int:
    """Keeps this process and those it starts to so many processors, 0 for all that it may use; returns how many.

    XLA's pool and PyTorch's are as large as the processors that a process may use.
    """
    if not hasattr(os, "sched_setaffinity"):
        if threads not in (0, os.cpu_count()):
            raise UserError("this system cannot limit a process to some processors; leave --threads out")
        return os.cpu_count() or 1
    available = sorted(os.sched_getaffinity(0))
    if threads > len(available):
        raise UserError(f"--threads is {threads}; this process may use {len(available)} processors")
    if threads:
        os.sched_setaffinity(0, available[:threads])
    return threads or len(available)


def set_environment(spec: StepSpec) -> None:
    """Sets what the sides' processes read when they start."""
    os.environ["OMP_NUM_THREADS"] = str(spec.threads)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the other side needs memory of the GPU too
    if spec.platform == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _serve(side: str, spec: StepSpec, connection: Connection) -> None:
    """Answers calls until the other end closes."""
    try:
        module, name = SIDES[side]
        served = getattr(importlib.import_module(module), name)(spec)
    except UserError as error:
        served = error
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        if isinstance(served, UserError):
            connection.send((False, str(served)))
        elif method == "ready":
            connection.send((True, None))
        elif method == "timed":
            connection.send((True, _timed(served, *arguments)))
        else:
            connection.send((True, getattr(served, method)(*arguments)))


def _timed(served: Any, steps: int) -> Turn:
    started, cpu = time.perf_counter(), time.process_time()
    values = served.advance(steps)
    return Turn(values, time.perf_counter() - started, time.process_time() - cpu)
