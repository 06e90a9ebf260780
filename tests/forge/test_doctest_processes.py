"""No process outlives the run that started it, whatever a docstring does and however the run ends."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from doctest_jobs import LIMITS, make_job, processes_with

from hephaestus_jax.forge.doctests.results import Failure
from hephaestus_jax.forge.doctests.sandbox import run_doctests

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")

ROOT = Path(__file__).parents[2]
both = pytest.mark.parametrize("namespaces", [True, False], ids=["namespaces", "audit hook alone"])

# Gets past the audit hook, then leaves sessions of their own behind, and orphans in them.
SPAWN = """
    >>> import sys
    >>> frame = sys._getframe()
    >>> while "guard" not in frame.f_locals: frame = frame.f_back
    >>> frame.f_locals["guard"]._checks.clear()
    >>> import os, signal, time
    >>> for _ in range(10):
    ...     if os.fork() == 0:
    ...         os.setsid()
    ...         if os.fork() == 0: os.setsid()
    ...         else: os._exit(0)
    ...         signal.pause()
"""


@both
def test_what_a_docstring_starts_ends_with_it(wares: Path, tmp_path: Path, namespaces: bool) -> None:
    look = ">>> import os; len([name for name in os.listdir('/proc') if name.isdigit()])\n2"
    jobs = [
        make_job("wares.a", SPAWN + "    >>> 'started'\n    'started'\n"),
        make_job("wares.b", look),
        make_job("wares.c", SPAWN + "    >>> os.kill(os.getppid(), signal.SIGKILL)\n    >>> time.sleep(60)\n"),
    ]
    limits = dataclasses.replace(LIMITS, wall_seconds=5, namespaces=namespaces)
    run = run_doctests(jobs, 2, limits, tmp_path, python_path=[wares])
    if namespaces and "own /proc" not in run.isolation:
        pytest.skip("this kernel permits too few namespaces")
    outcomes = {job.api_name: outcome for job, outcome in run}
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
    for name in ("wares.a", "wares.b") if namespaces else ("wares.a",):  # without, /proc is that of the machine
        outcome = outcomes[name]
        assert isinstance(outcome, list) and outcome[-1].matched, outcome
    killed = Failure("timeout", "wall time") if namespaces else Failure("crashed", "took the worker with it")
    assert outcomes["wares.c"] == killed, "process 1 cannot be killed from within its namespace"


def test_children_are_gone_when_their_end_returns() -> None:
    program = """
        import os, signal
        from hephaestus_jax.forge.doctests.supervisor import adopt_orphans, end_children
        adopt_orphans()
        read_end, write_end = os.pipe()
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
                child = os.fork()
                os.write(write_end, b"x")
                if child: os._exit(0)
                signal.pause()
        for _ in range(10):
            os.read(read_end, 1)
        os.close(write_end)
        end_children()
        os.set_blocking(read_end, False)
        assert os.read(read_end, 1) == b"", "raises as long as somebody could write"
        end_children()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, check=True)


def test_giving_up_leaves_no_process_behind(wares: Path, tmp_path: Path) -> None:
    jobs = [
        make_job(f"wares.{n:03d}", ">>> 1\n1" if n < 100 else ">>> import time; time.sleep(60)") for n in range(300)
    ]
    for _ in run_doctests(jobs, 2, LIMITS, tmp_path, python_path=[wares]):
        break
    assert processes_with(str(tmp_path)) == []


@both
def test_a_killed_build_leaves_no_process_behind(tmp_path: Path, namespaces: bool) -> None:
    program = """
        import sys
        from pathlib import Path
        from hephaestus_jax.forge.doctests.extract import DoctestJob
        from hephaestus_jax.forge.doctests.process import Limits
        from hephaestus_jax.forge.doctests.sandbox import run_doctests
        from hephaestus_jax.formats.records import Provenance
        scratch, docstring, namespaces = sys.argv[1:]
        jobs = [DoctestJob(f"time.{n}", (), "time", docstring, Provenance("", "", "")) for n in "ab"]
        limits = Limits(wall_seconds=600, namespaces=namespaces == "True")
        list(run_doctests(jobs, 2, limits, Path(scratch)))
    """
    docstring = inspect.cleandoc(SPAWN + "    >>> time.sleep(600)")
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), docstring, str(namespaces)]
    build = subprocess.Popen(command, cwd=ROOT)
    try:  # two workers with a supervisor each, their docstrings, and what those have started
        wait_until(lambda: all(len(processes_with(f"{tmp_path}/00000-{run}")) >= 13 for run in (1, 2)))
    finally:
        build.kill()
        build.wait()
    wait_until(lambda: not processes_with(str(tmp_path)))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
