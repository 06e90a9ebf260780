"""Runs several commands as one: their output line by line under their names, ended together."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

FAREWELL_SECONDS = 20.0  # for the others to end by themselves once one has failed; they lose its connection
TERMINATION_SECONDS = 60.0  # to save and end after a SIGTERM
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Command:
    """What to start: a name for its output, the arguments, the whole environment."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str | None = None


class Group:
    """Commands that run side by side; as a context manager, none outlives it.

    Attributes:
        processes: in the order of the commands.
    """

    def __init__(self, commands: Sequence[Command], output: IO[str] | None = None) -> None:
        self._output = output or sys.stdout
        self._lock = threading.Lock()
        self._names = [command.name for command in commands]
        self.processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        for command in commands:
            # in sessions of their own: the terminal's interrupt is ours to pass on, as the wish to save and end
            process = subprocess.Popen(
                list(command.arguments), env=dict(command.environment), cwd=command.folder, text=True, errors="replace",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            self.processes.append(process)
            reader = threading.Thread(target=self._copy, args=(command.name, process), daemon=True)
            reader.start()
            self._readers.append(reader)

    def _copy(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._write(name, line.rstrip())

    def _write(self, name: str, line: str) -> None:
        with self._lock:
            self._output.write(f"[{name}] {line}\n")
            self._output.flush()

    def terminate(self) -> None:
        """SIGTERM to all that run: a training run saves and ends."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Waits for all; 0, or the exit status of the first that failed (128 + the signal that ended it).

        When one fails, the others have `FAREWELL_SECONDS` to end, then `TERMINATION_SECONDS` after a SIGTERM, and are
        killed then.
        """
        running = True
        while running and not self._failed():
            running = any(process.poll() is None for process in self.processes)
            time.sleep(_POLL_SECONDS)
        failed = self._failed()
        if failed:
            name, status = failed[0]
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
            self._write("launch", f"process {name} {how}; the others are ended")
            if not self._ended_within(FAREWELL_SECONDS):
                self.terminate()
                self._ended_within(TERMINATION_SECONDS)
        self.close()
        return 0 if not failed else status if status > 0 else 128 - status

    def _failed(self) -> list[tuple[str, int]]:
        """Names and exit statuses of those that failed; those that a signal ended first, the cause more likely."""
        ended = [(name, process.poll() or 0) for name, process in zip(self._names, self.processes, strict=True)]
        return sorted((one for one in ended if one[1]), key=lambda one: one[1] != -signal.SIGKILL)

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(process.poll() is not None for process in self.processes):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def close(self) -> None:
        """Kills what still runs, and waits for the last of the output."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for reader in self._readers:
            reader.join(timeout=5)  # a grandchild may hold the pipe

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_together(commands: Sequence[Command], restarts: int = 0) -> int:
    """Runs the commands to their end; SIGINT and SIGTERM are passed on to them as SIGTERM.

    Args:
        commands: of one run.
        restarts: how often all of them are started again after one failed, other than by a mistake of the user (exit
            status 2); a training run resumes at its newest checkpoint.

    Returns:
        0, or the exit status of the first that failed in the last attempt.
    """
    asked = threading.Event()
    group: Group | None = None

    def pass_on(*_: object) -> None:
        asked.set()
        if group is not None:
            group.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for attempt in range(restarts + 1):
            with Group(commands) as group:
                if asked.is_set():  # while they were being started
                    group.terminate()
                status = group.wait()
            if status in (0, 2) or asked.is_set() or attempt == restarts:
                break
            print(f"exit status {status}; all start again ({attempt + 1} of {restarts} times)", flush=True)
        return status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
