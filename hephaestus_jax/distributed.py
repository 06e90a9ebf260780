"""Several processes as one run: joining them, telling the first from the others, ending them together.

Each process is told by the environment, the same command otherwise, or by its command:

    HEPHAESTUS_COORDINATOR=host0:8476 HEPHAESTUS_PROCESSES=2 HEPHAESTUS_PROCESS_ID=0 python -m train ...
    python -m train --coordinator=host0:8476 --processes=2 --process_id=0 ...

On TPU pods, under Slurm's `srun` and Open MPI's `mpirun`, JAX finds all three by itself and nothing needs to be set.
HEPHAESTUS_PROCESSES=1, or --processes=1, keeps a process to itself, wherever it runs.

On CPUs (gloo), programs that do not depend on each other must not be under way at the same time when each has
collectives of its own: they were seen to wait for each other for ever. Put them into one program, or wait in between.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from hephaestus_jax.errors import UserError

COORDINATOR = "HEPHAESTUS_COORDINATOR"
PROCESSES = "HEPHAESTUS_PROCESSES"
PROCESS_ID = "HEPHAESTUS_PROCESS_ID"

VARIABLES = (COORDINATOR, PROCESSES, PROCESS_ID)
FLAGS = ("--coordinator", "--processes", "--process_id")

_MEND = (
    f"start every process, with {COORDINATOR} (a free port of process 0's host), {PROCESSES} and {PROCESS_ID} where JAX"
    f" does not find them by itself, or set {PROCESSES}=1 to run alone"
)
# what gloo, the coordination service and its clients say; jaxlib raises it as one of several kinds
_LOST = re.compile(
    r"^[A-Z_]+: .*(Gloo|[Cc]oordination|[Hh]eartbeat|[Bb]arrier|[Cc]onnection (closed|reset|refused))|^UNAVAILABLE: ",
    re.DOTALL,
)

_LAST_WORDS_SECONDS = 2.0

# This process's number where the cluster was stated; JAX, asked before there are devices, would wait for the others.
_stated_number: int | None = None


@dataclass(frozen=True)
class Cluster:
    """Where a process stands among those of its run.

    Attributes:
        coordinator: "HOST:PORT" of process 0, reachable from all; empty for a process alone.
        processes: how many there are.
        process_id: this one's number, from 0.
    """

    coordinator: str
    processes: int
    process_id: int

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if self.processes > 1 and not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise UserError(f"{COORDINATOR} is {self.coordinator!r}; write HOST:PORT, with process 0's host")
        if self.processes < 1:
            raise UserError(f"{PROCESSES} is {self.processes}; it must be 1 or more")
        if not 0 <= self.process_id < self.processes:
            raise UserError(
                f"{PROCESS_ID} is {self.process_id}; with {self.processes} processes, number them from 0 to"
                f" {self.processes - 1}"
            )

    @classmethod
    def from_environment(cls) -> Cluster | None:
        """As the three variables say; None where they are absent.

        Raises:
            UserError: some of them are missing, or are not what they should be.
        """
        return cls._from_texts(VARIABLES, [os.environ.get(name) for name in VARIABLES])

    @classmethod
    def from_flags(cls, flags: argparse.Namespace) -> Cluster | None:
        """As the options of `add_flags` say; None where they are absent.

        Raises:
            UserError: some of them are missing, or are not what they should be.
        """
        return cls._from_texts(FLAGS, [flags.coordinator, flags.processes, flags.process_id])

    @classmethod
    def _from_texts(cls, names: Sequence[str], texts: Sequence[str | None]) -> Cluster | None:
        """Coordinator, processes and process id under these names, each if it is there."""
        given = {name: text for name, text in zip(names, texts, strict=True) if text}
        if not given:
            return None
        coordinator, *numbers = names
        if given == {numbers[0]: "1"}:
            return cls("", 1, 0)
        if missing := set(names) - set(given):
            raise UserError(
                f"{' and '.join(sorted(given))} given, but not {' and '.join(sorted(missing))}; give all three or none"
            )
        for name in numbers:
            if not given[name].isdecimal():
                raise UserError(f"{name} is {given[name]!r}; it must be a whole number")
        return cls(given[coordinator], *(int(given[name]) for name in numbers))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The options of `Cluster.from_flags`, in place of the environment variables."""
    group = parser.add_argument_group("several processes", "where the platform does not say (TPU pods and Slurm do)")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="a free port of process 0's host")
    group.add_argument("--processes", metavar="N", help="of this run; 1 to run alone")
    group.add_argument("--process_id", metavar="I", help="this one's number, from 0")


def initialise(cluster: Cluster | None = None, timeout_seconds: int = 300) -> None:
    """Joins the processes of a run; to be called once, before anything asks JAX for its devices.

    Args:
        cluster: where this process stands; by default what the environment says, or what JAX detects. A process of
            which nothing says that there are others is alone.
        timeout_seconds: how long to wait for the others.

    Raises:
        UserError: the environment is incomplete, or the cluster cannot be joined. When the others do not come in time,
            the process ends with that one line and status 2.
    """
    if jax.distributed.is_initialized():
        return
    cluster = cluster or Cluster.from_environment()
    if cluster and cluster.processes == 1:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    global _stated_number
    where = "the cluster that JAX found"
    if cluster:
        _stated_number = cluster.process_id
        where = f"process {cluster.process_id} of {cluster.processes}, with process 0 at {cluster.coordinator}"
        if cluster.process_id == 0:
            _require_free_port(int(cluster.coordinator.rpartition(":")[2]))
    try:
        with _giving_up_after(timeout_seconds, f"{where}: the others did not come within {timeout_seconds} s; {_MEND}"):
            jax.distributed.initialize(
                cluster.coordinator if cluster else None,
                cluster.processes if cluster else None,
                cluster.process_id if cluster else None,
                cluster_detection_method="deactivate" if cluster else None,
                initialization_timeout=2 * timeout_seconds,
            )
    except ValueError as error:
        if cluster is None and "coordinator_address" in str(error):
            return  # no cluster was found
        raise UserError(f"{where}: {_first_line(error)}; {_MEND}") from error
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"{where}: {_first_line(error)}; {_MEND}") from error


@contextlib.contextmanager
def _giving_up_after(seconds: float, message: str) -> Iterator[None]:
    """Ends the process with one line when the body takes too long; at JAX's own time limit it aborts in C++."""

    def give_up() -> None:
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _require_free_port(port: int) -> None:
    """JAX crashes the process when its coordinator cannot have the port."""
    both = socket.has_dualstack_ipv6()
    try:
        socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        ).close()
    except OSError as error:
        raise UserError(
            f"port {port} of {COORDINATOR} cannot be used here: {os.strerror(error.errno or 0)}; choose another"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def is_main() -> bool:
    """Whether this process is the one that prints and writes what is written once."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line, once among all processes."""
    if is_main():
        print(text, flush=True)


def barrier(name: str) -> None:
    """Waits until all processes are here; returns at once where there is one.

    Raises:
        AssertionError: another process is at a barrier of another name.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def broadcast(value: Any, source: int = 0) -> Any:
    """The value of one process, on every process; all of them call this, and what the others pass does not count.

    Args:
        value: small, of what JSON knows; tuples come back as lists, also where there is one process.
        source: whose it is.
    """
    mine = jax.process_index() == source
    text = json.dumps(value).encode() if mine else b""
    if jax.process_count() > 1:
        length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text)), is_source=mine))
        padded = np.frombuffer(text.ljust(length, b" "), np.uint8)
        text = np.asarray(multihost_utils.broadcast_one_to_all(padded, is_source=mine), np.uint8).tobytes()
    return json.loads(text)


def lost_a_process(error: BaseException | None) -> bool:
    """Whether an error says that another process of the run is gone; what waits for it would do so for ever."""
    while error is not None:
        if isinstance(error, RuntimeError | ValueError) and _LOST.search(str(error)):
            return jax.distributed.is_initialized()
        error = error.__cause__
    return False


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Around all that a process does: an error of one process ends the run on all of them.

    JAX's own exit waits for every process to come to its end, and those that wait for this one in a collective never
    do. So a process with an error says so and leaves at once, with the status of a `SystemExit`, 2 for a `UserError`
    and 1 for any other; the others lose its connection and fail in turn. A process alone, and one without an error,
    leave as they always do.
    """
    try:
        yield
    except BaseException as error:
        finished = isinstance(error, SystemExit) and error.code in (None, 0)
        if finished or not jax.distributed.is_initialized():
            raise
        _leave(error)


def _leave(error: BaseException) -> NoReturn:
    status = 1
    if isinstance(error, SystemExit):  # whoever raised it has said why
        status = error.code if isinstance(error.code, int) else 1
    elif isinstance(error, UserError):
        status = 2
        print(f"error: {error}", file=sys.stderr)
    elif lost_a_process(error):
        print(
            f"error: another process of this run has ended or cannot be reached ({_first_line(error)[:200]}); start all"
            " of them again, and they resume at the newest checkpoint",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    # All is said; what JAX's threads have to tell of the others' connections, as each leaves, would bury it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if _stated_number in (None, 0):  # the others end when process 0 does, and may have a word of their own to say first
        time.sleep(_LAST_WORDS_SECONDS)
    os._exit(status)


class Preemption:
    """Whether the run was asked to end (SIGTERM), at the same step on every process.

    One process has a signal handler of its own. Several use JAX's preemption sync point, whose handler
    `jax.distributed.initialize` installed: a signal to any one of them is passed on, and all agree on the first step
    that none has begun. A Python handler set afterwards would switch that off, so there is none then.
    """

    def __init__(self) -> None:
        self._requested = False
        self._calls = 0
        self._together = jax.distributed.is_initialized()
        if not self._together:
            self._before = signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self._requested = True

    def requested(self) -> bool:
        """Whether to stop before doing more; every process calls this once at every step.

        Once true, it stays true. It costs microseconds: nothing is sent until a signal came.
        """
        self._calls += 1  # what the processes agree on; steps are no good for it, a rollback takes them again
        if self._together and not self._requested:
            self._requested = multihost_utils.reached_preemption_sync_point(self._calls)
        return self._requested

    def close(self) -> None:
        """Gives the signal back to whoever had it before."""
        if not self._together:
            signal.signal(signal.SIGTERM, self._before if self._before is not None else signal.SIG_DFL)

    def __enter__(self) -> Preemption:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
