"""A confined machine as its owner sees it: started once, asked often, ended."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import hephaestus_jax
from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.doctests.pipe import LinePipe

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from hephaestus_jax.forge.confinement import worker;"
    " sys.path.pop(0); worker.main()"
)
_START_SECONDS, _ANSWER_SECONDS, _END_SECONDS = 60.0, 120.0, 20.0
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1",
    "COLUMNS": "80",
}  # fmt: skip


class Confined:
    """A confined machine; `measures` names what closes it in.

    Args:
        kind: what it is for; a shell's commands get less memory each, an interpreter has the standard library loaded.
        seconds: that one command or cell may take.

    Raises:
        UserError: it does not start, most often because the system forbids namespaces to its users.
    """

    def __init__(self, kind: Literal["shell", "python"], seconds: float = 5.0) -> None:
        root = str(Path(hephaestus_jax.__file__).parents[1])
        environment = dict(_ENVIRONMENT)
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", "-c", _BOOT, root, str(seconds), kind],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd="/",
            start_new_session=True,
        )  # fmt: skip
        self._pipe = LinePipe(self._process)
        self.alive = True
        measures = self._receive(_START_SECONDS)
        if measures is None:
            self._process.kill()
            words = self._process.communicate()[1].decode(errors="replace").strip().splitlines()
            why = words[-1] if words else "it gave no sign of life"
            raise UserError(
                f"confined machine: {why}; the bash and python environments need user namespaces"
                " (sysctl kernel.unprivileged_userns_clone=1, in a container --security-opt seccomp=unconfined)"
            )
        self.measures: list[str] = measures

    def ask(self, operation: str, *arguments: Any) -> Any:
        """The result of one of the operations of `worker.Machine`.

        Raises:
            UserError: the machine is gone.
        """
        self._pipe.send(json.dumps([operation, *arguments]).encode())
        answer = self._receive(_ANSWER_SECONDS)
        if answer is None:
            self.close()
            raise UserError(f"confined machine: no answer to {operation}; it has been ended")
        return answer

    def _receive(self, seconds: float) -> Any:
        """The next message; None at the end of the stream or when the time is over."""
        line = self._pipe.receive(seconds)
        return None if line is None else json.loads(line)

    def close(self) -> None:
        """Ends it and everything in it; returns when all of it is gone."""
        if not self.alive:
            return
        self.alive = False
        self._process.terminate()  # its supervisor kills the rest, and outlives it
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
