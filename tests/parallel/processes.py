"""Starts Python scripts of this folder as processes of a run, and collects what they print."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from compiling import QUICK

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

Finished = tuple[int, str, str]  # exit status, standard output, standard error


def start(script: str, *arguments: str, devices: int = 1, **environment: str) -> subprocess.Popen[str]:
    """A script of this folder, or `-m MODULE` with it among the arguments, on `devices` virtual CPU devices."""
    command = [sys.executable, *([str(HERE / script)] if script.endswith(".py") else ["-m", script]), *arguments]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("HEPHAESTUS_")}
    inside = {
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "1",  # warnings of the compiler are shown
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    return subprocess.Popen(
        command, cwd=ROOT, env={**outside, **inside, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def start_together(count: int, script: str, *arguments: str, devices: int = 1) -> list[subprocess.Popen[str]]:
    """The processes of one run on loopback, `devices` each."""
    run = {"HEPHAESTUS_COORDINATOR": f"127.0.0.1:{free_port()}", "HEPHAESTUS_PROCESSES": str(count)}
    return [
        start(script, *arguments, devices=devices, **run, HEPHAESTUS_PROCESS_ID=str(process))
        for process in range(count)
    ]


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def finish(processes: Sequence[subprocess.Popen[str]], timeout_seconds: float = 300) -> list[Finished]:
    """Waits for all; none outlives the call."""
    try:
        outputs = [process.communicate(timeout=timeout_seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    """The process's next line of standard output that has `text` in it."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the process ended without {text!r}: {process.stderr.read() if process.stderr else ''}")
