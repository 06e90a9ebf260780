"""The sandboxed worker: imports the modules under test once, then forks one process per docstring.

Started by `process.py` with a plain environment. Speaks JSON lines: a `Launch` comes first, then one task per line; it
answers {"isolation": [...]}, {"importing": module} before each import, and {"number", "result"} per task. Standard
library only.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hephaestus_jax.forge.doctests import execute
from hephaestus_jax.forge.doctests.isolation import (
    Guard,
    Isolation,
    adopt_orphans,
    close_namespaces,
    die_with_parent,
    enter_namespaces,
    limit,
)
from hephaestus_jax.forge.doctests.supervisor import end_children, supervise


@dataclass(frozen=True)
class Launch:
    """What a worker is told when it starts; sizes in bytes, times in seconds."""

    scratch: str
    namespaces: bool  # False leaves the kernel's namespaces out, to see how the audit hook fares alone
    burn_pids: int  # process numbers to use up first, so that the two runs of a docstring show different ones
    cold: bool  # fork first and import afterwards: slow, and safe where importing starts threads
    address_space_bytes: int
    cpu_seconds: int
    wall_seconds: float
    import_seconds: float
    file_bytes: int
    scratch_bytes: int
    output_bytes: int
    processes: int


class Worker:
    """Answers tasks one at a time."""

    def __init__(self, launch: Launch, guard: Guard, isolation: Isolation, answers: BinaryIO) -> None:
        self.launch, self.guard, self.isolation, self.answers = launch, guard, isolation, answers
        self.home = Path(launch.scratch)
        self._import_errors: dict[str, str] = {}
        self._imported: set[str] = set()

    def send(self, message: dict[str, Any]) -> None:
        self.answers.write(json.dumps(message).encode() + b"\n")
        self.answers.flush()

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        """The result of one task: steps, or a failure."""
        if not self.launch.cold:
            detail = self._import(task["module"])
            if detail:
                return {"failure": "import", "detail": detail}
            for module in execute.imported_modules(task):
                self._import(module)  # warm for all that follow; an error is the example's to show
        folder = self.home / str(task["number"])
        folder.mkdir()
        try:
            return self._fork(task, folder)
        finally:
            end_children(self.isolation.is_init)  # whatever the docstring left running
            shutil.rmtree(folder, ignore_errors=True)

    def _import(self, module: str) -> str:
        """Imports `module` for this and later docstrings; returns what went wrong, or ""."""
        if module not in self._imported:
            self._imported.add(module)
            self.send({"importing": module})
            try:
                importlib.import_module(module)
            except BaseException as error:  # SystemExit and worse: a module may do anything when imported
                self._import_errors[module] = execute.describe(error)
            gc.collect()
            gc.freeze()  # keeps the pages shared with the children from being touched by their collector
        return self._import_errors.get(module, "")

    def _fork(self, task: dict[str, Any], folder: Path) -> dict[str, Any]:
        read_end, write_end = os.pipe()
        alone = len(os.listdir("/proc/self/task")) == 1
        child = os.fork()
        if child == 0:
            self._run_and_exit(task, folder, write_end)
        os.close(write_end)
        seconds = self.launch.wall_seconds + (self.launch.import_seconds if self.launch.cold else 0)
        deadline = time.monotonic() + seconds
        # Every character may take six bytes in JSON, and the sources travel back with the output.
        answer = _read_all(read_end, deadline, cap=8 * self.launch.output_bytes + 8_000_000)
        os.close(read_end)
        result = _parse(answer)
        if result is None:
            _wait_for(child, deadline)
        status, usage = _kill_group(child)
        if result is not None:
            return result
        if time.monotonic() >= deadline:
            # Forked from a process with threads, the child may be stuck on a lock that one of them held.
            return {"failure": "timeout", "detail": "wall time", "retry": not alone and not self.launch.cold}
        return self._diagnose(status, usage)

    def _run_and_exit(self, task: dict[str, Any], folder: Path, write_end: int) -> None:
        """The child: closes every other descriptor, takes its limits upon itself, runs, answers, ends."""
        try:
            die_with_parent()
            os.setsid()
            os.dup2(write_end, 3)
            os.closerange(4, 1 << 16)
            os.chdir(folder)
            os.environ.update(HOME=str(folder), TMPDIR=str(folder))
            tempfile.tempdir = None
            seconds = self.launch.cpu_seconds + (int(self.launch.import_seconds) if self.launch.cold else 0)
            limit(resource.RLIMIT_CPU, seconds, seconds + 1)
            result = execute.run_job(task, self.guard, self.launch.output_bytes)
            _write_all(3, json.dumps(result).encode() + b"\n")
        finally:
            os._exit(0)

    def _diagnose(self, status: int, usage: resource.struct_rusage) -> dict[str, Any]:
        """Why a child ended without a result."""
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGXCPU or (
            code == -signal.SIGKILL and usage.ru_utime + usage.ru_stime >= self.launch.cpu_seconds
        ):
            return {"failure": "timeout", "detail": "processor time"}
        if code < 0:
            return {"failure": "crashed", "detail": signal.Signals(-code).name}
        return {"failure": "exited", "detail": f"exit status {code} without a result"}


def _read_all(descriptor: int, deadline: float, cap: int) -> bytes:
    """Reads until the end, the deadline, a full line, or `cap` bytes."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    parts, size = [], 0
    while size <= cap and (left := deadline - time.monotonic()) > 0:
        if not poller.poll(left * 1000):
            continue
        part = os.read(descriptor, 1 << 16)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if part.endswith(b"\n"):
            break
    return b"".join(parts)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _parse(answer: bytes) -> dict[str, Any] | None:
    try:
        result = json.loads(answer)
    except ValueError:
        return None
    return result if isinstance(result, dict) else None


def _wait_for(child: int, deadline: float) -> None:
    """Waits until `child` has ended or the deadline has passed, without reaping it."""
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return
        time.sleep(0.01)


def _kill_group(child: int) -> tuple[int, resource.struct_rusage]:
    """Kills the child's process group, reaps the child, and returns its status and what it used."""
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    _, status, usage = os.wait4(child, 0)
    return status, usage


def _take_descriptors() -> tuple[BinaryIO, BinaryIO]:
    """Keeps the two pipes to the parent for the protocol and gives everyone else /dev/null."""
    tasks, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    return os.fdopen(tasks, "rb"), os.fdopen(answers, "wb")


def main() -> None:
    """Reads the launch line, closes the sandbox around this process, answers tasks until the input ends."""
    die_with_parent()
    tasks, answers = _take_descriptors()
    launch = Launch(**json.loads(tasks.readline()))
    scratch, host_uid = Path(launch.scratch), os.geteuid()
    isolation = enter_namespaces(scratch, launch.scratch_bytes) if launch.namespaces else Isolation()
    supervise()
    adopt_orphans()
    close_namespaces(isolation)
    limit(resource.RLIMIT_AS, launch.address_space_bytes)
    limit(resource.RLIMIT_FSIZE, launch.file_bytes)
    limit(resource.RLIMIT_CORE, 0)
    isolation.measures.append("resource limits")
    if host_uid != 0 and "user namespace" in isolation.measures:
        # Without a user namespace the limit would count all the user's processes; for root the kernel ignores it.
        limit(resource.RLIMIT_NPROC, launch.processes)
        isolation.measures.append("process limit")
    os.chdir(scratch)
    for _ in range(launch.burn_pids):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    # This project's own frames stand in tracebacks, which some packages print with their source lines.
    places = (sys.prefix, sys.base_prefix, str(Path(__file__).parent), *(path for path in sys.path if path))
    guard = Guard(scratch, readable=places)
    guard.install()
    isolation.measures.append("audit hook")
    worker = Worker(launch, guard, isolation, answers)
    worker.send({"isolation": isolation.measures})
    for line in tasks:
        task = json.loads(line)
        worker.send({"number": task["number"], "result": worker.run(task)})
