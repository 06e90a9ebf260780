"""The training command as processes that can be watched and ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hephaestus_jax.checkpoints import storage
from hephaestus_jax.errors import UserError

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 600.0
POLL_SECONDS = 0.002
_STEP = re.compile(r"step [\d,]+ of ")


class Attempt:
    """One start of `python -m train` on a run directory, as one process or several on this machine."""

    def __init__(
        self, gin_file: Path, run_dir: Path, processes: int, devices: int = 1, overrides: Sequence[str] = ()
    ) -> None:
        command = [sys.executable, "-m", "train", f"--gin_file={gin_file}", f"--gin.TrainConfig.run_dir={run_dir}"]
        command += overrides
        if processes > 1:  # on CPU, processes that find different programs in the cache wait for each other for ever
            command.append("--gin.LoggingConfig.compilation_cache=")
        self.run_dir, self.lines, self.processes = run_dir, list[str](), processes
        self.errors = run_dir.with_suffix(".err")
        port = _free_port()
        self.started = time.monotonic()
        with open(self.errors, "w") as errors:
            self._processes = [
                subprocess.Popen(
                    command, cwd=ROOT, env=_environment(number, processes, port, devices), text=True,
                    stdout=subprocess.DEVNULL if number else subprocess.PIPE, stderr=errors,
                )
                for number in range(processes)
            ]  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stdout = self._processes[0].stdout
        assert stdout is not None
        for line in stdout:
            self.lines.append(line.rstrip("\n"))

    def line(self, *beginnings: str) -> str:
        """The last line printed that begins in one of these ways; empty if there is none."""
        return next((line for line in reversed(self.lines) if line.startswith(beginnings)), "")

    @property
    def steps_taken(self) -> bool:
        """Whether it has reported a step of its own."""
        return any(_STEP.match(line) for line in self.lines)

    @property
    def running(self) -> bool:
        """Whether no process has ended."""
        return all(process.poll() is None for process in self._processes)

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints lie."""
        return self.run_dir / "checkpoints"

    def wait_until(self, condition: Callable[[], object]) -> bool:
        """Waits until `condition` holds; false if a process ended first."""
        while not condition():
            if not self.running:
                return False
            if time.monotonic() - self.started > TIMEOUT_SECONDS:
                self.kill()
                raise UserError(f"the run in {self.run_dir} hangs; see {self.errors}")
            time.sleep(POLL_SECONDS)
        return True

    def next_open_save(self) -> bool:
        """Waits for a save to begin, any open one excepted; false if a process ended first."""
        seen = set(storage.open_saves(self.checkpoints))
        return self.wait_until(lambda: set(storage.open_saves(self.checkpoints)) - seen)

    @property
    def open_saves(self) -> list[str]:
        """Folders of saves that are open, or were when it was killed."""
        return storage.open_saves(self.checkpoints)

    def kill(self) -> bool:
        """SIGKILL to all processes; whether they were in an open save."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
        self._end()
        return bool(self.open_saves)

    def kill_one(self, number: int) -> list[int]:
        """SIGKILL to that process; the exit statuses of all, once the others have ended by themselves."""
        self._processes[number].send_signal(signal.SIGKILL)
        return self._end()

    def terminate(self) -> list[int]:
        """SIGTERM to the last process; the exit statuses of all."""
        self._processes[-1].send_signal(signal.SIGTERM)
        return self._end()

    def finish(self) -> None:
        """Waits for the end of the run.

        Raises:
            UserError: the command failed.
        """
        if any(statuses := self._end()):
            last = (self.errors.read_text().splitlines() or ["no message"])[-1]
            raise UserError(f"the run in {self.run_dir} ended with exit statuses {statuses}: {last}")

    def _end(self) -> list[int]:
        try:
            statuses = [process.wait(TIMEOUT_SECONDS) for process in self._processes]
        except subprocess.TimeoutExpired as error:
            for process in self._processes:
                process.kill()
            raise UserError(f"the run in {self.run_dir} hangs; see {self.errors}") from error
        self._reader.join()
        return statuses


def newest_whole(checkpoints: Path) -> int | None:
    """The newest step whose checkpoint is there, if any is."""
    steps = storage.whole_steps(storage.open_directory(checkpoints))
    return steps[-1] if steps else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _environment(number: int, processes: int, port: int, devices: int) -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("HEPHAESTUS_")}
    if processes > 1:
        outside["HEPHAESTUS_COORDINATOR"] = f"127.0.0.1:{port}"
        outside["HEPHAESTUS_PROCESS_ID"] = str(number)
    if devices > 1:
        flag = f"--xla_force_host_platform_device_count={devices}"
        outside |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
    return {**outside, "HEPHAESTUS_PROCESSES": str(processes), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
