"""One sandboxed worker process as its parent sees it: how it is started, asked, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import hephaestus_jax
from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.doctests.pipe import LinePipe
from hephaestus_jax.forge.doctests.worker import Launch

_SLACK_SECONDS = 10.0  # on top of the worker's own limits, before the worker itself is given up
_START_SECONDS = 60.0
_END_SECONDS = 60.0  # a process that waits for a slow device cannot even be killed
_BURNT_PIDS = 64  # per seed
# The worker's modules come from this project, the packages under test from the installation alone.
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
    wall_seconds: float = 60.0
    import_seconds: float = 120.0  # for importing the module, once per worker
    file_bytes: int = 16 << 20
    scratch_bytes: int = 256 << 20
    output_bytes: int = 1 << 20
    processes: int = 256
    namespaces: bool = True  # False leaves the kernel's namespaces out

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name != "namespaces" and getattr(self, item.name) <= 0:
                raise UserError(f"doctest limit {item.name} is {getattr(self, item.name)}; it must be above 0")


@dataclass(frozen=True)
class WorkerSettings:
    """How to start one worker: its folder, its limits, its hash seed (the number of the run), where to import from."""

    folder: Path
    limits: Limits
    seed: int
    python_path: tuple[str, ...] = ()
    cold: bool = False  # fork first and import afterwards

    def environment(self) -> dict[str, str]:
        """The worker's whole environment: nothing is inherited but the path of shared libraries."""
        folder = str(self.folder)
        environment = _ENVIRONMENT | {"HOME": folder, "TMPDIR": folder, "PYTHONHASHSEED": str(self.seed)}
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        if self.python_path:
            environment["PYTHONPATH"] = os.pathsep.join(self.python_path)
        return environment

    def launch(self) -> Launch:
        """What the worker is told."""
        return Launch(
            scratch=str(self.folder), burn_pids=_BURNT_PIDS * self.seed, cold=self.cold, **asdict(self.limits)
        )


class WorkerProcess:
    """One worker and the pipe to it. A context manager: on leaving, the worker and all it started are gone.

    `isolation` names the measures in force; `importing` is the module that the worker was importing when last heard of;
    `alive` turns False when the worker did not survive a task.

    Raises:
        UserError: the worker does not start, or does not end.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.importing = ""
        self.alive = True
        shutil.rmtree(settings.folder, ignore_errors=True)
        settings.folder.mkdir(parents=True)
        root = str(Path(hephaestus_jax.__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", "-c", _BOOT, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=settings.environment(),
            cwd=settings.folder,
            start_new_session=True,
        )
        self._pipe = LinePipe(self._process)
        self._send(asdict(settings.launch()))
        hello = self._receive(time.monotonic() + _START_SECONDS)
        if hello is None:
            self.kill()
            words = self._process.communicate()[1].decode(errors="replace").strip().splitlines()
            self.__exit__()
            raise UserError(f"the doctest worker did not start: {words[-1] if words else 'no message'}")
        self.isolation = tuple(hello["isolation"])

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(_END_SECONDS)  # the supervisor: it outlives everything that the worker started
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise UserError(
                f"doctests: a worker in {self.settings.folder} did not end within {_END_SECONDS:g} s of being killed;"
                " look for what keeps its processes"
            ) from None
        shutil.rmtree(self.settings.folder, ignore_errors=True)

    def kill(self) -> None:
        """Has the worker and everything it started killed, and does not wait for their end."""
        self.alive = False
        self._process.terminate()

    def ask(self, task: dict[str, Any]) -> dict[str, Any] | None:
        """The worker's result for `task`; None, and `alive` turns False, when the worker does not survive it."""
        self._send(task)
        limits = self.settings.limits
        deadline = time.monotonic() + limits.import_seconds + limits.wall_seconds + _SLACK_SECONDS
        while (message := self._receive(deadline)) is not None:
            if "importing" in message:
                self.importing = message["importing"]
            elif message.get("number") == task["number"]:
                self.importing = ""
                return message["result"]
        self.alive = False
        return None

    def _send(self, message: dict[str, Any]) -> None:
        self._pipe.send(json.dumps(message).encode())

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        """The next message; None at the end of the stream, when it makes no sense, or when the deadline has passed."""
        line = self._pipe.receive(deadline - time.monotonic())
        try:
            message = None if line is None else json.loads(line)
        except ValueError:  # a module under test wrote into the pipe while it was imported
            return None
        return message if isinstance(message, dict) else None
