"""Hostile docstrings executed for real: what harms nobody but themselves, with and without the audit hook."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctest_jobs import LIMITS, make_job, processes_with

from hephaestus_jax.forge.doctests.process import Limits
from hephaestus_jax.forge.doctests.results import Failure, Outcome
from hephaestus_jax.forge.doctests.sandbox import run_doctests

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")


HOSTILE = {
    "fork bomb": ">>> import os\n>>> while True: os.fork()",
    "endless loop": ">>> while True: pass\n>>> 1",
    "endless sleep": ">>> import time; time.sleep(1000)",
    "memory": ">>> 'before'\n'before'\n>>> x = bytearray(10 << 30)\n>>> 'after'\n'after'",
    "exit": ">>> import os; os._exit(0)",
    "sys.exit": ">>> import sys; sys.exit(3)\n>>> 1\n1",
    "flood": ">>> while True: print('x' * 1000)",
    "large value": ">>> 'x' * (1 << 24)",
    "close stdout": ">>> import sys; sys.stdout.close()\n>>> print(1)\n1",
    "close all": ">>> import os; os.closerange(0, 1000)",
    "close and stay": ">>> import os; os.closerange(0, 1000)\n>>> while True: pass",
    "forge": ">>> import os; os.write(3, b'{\"steps\": [{\"source\": 1}]}\\n'); os._exit(0)",
    "garbage": ">>> import os; os.write(3, b'\\xff' * 100_000); os._exit(0)",
    "kill parent": ">>> import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "kill all": ">>> import os, signal; os.kill(-1, signal.SIGKILL)",
    "write home": ">>> import os; open(os.path.expanduser('~/x'), 'w').write('mine')\n4",
    "write outside": ">>> open('{canary}', 'w')",
    "append outside": ">>> import os; os.open('{canary}', os.O_WRONLY | os.O_APPEND)",
    "create outside": ">>> import pathlib; pathlib.Path('{canary}.new').touch()",
    "delete": ">>> import os; os.remove('{canary}')",
    "delete tree": ">>> import shutil, os; shutil.rmtree(os.path.dirname('{canary}'))",
    "delete by descriptor": (
        ">>> import os, sys\n>>> fd = os.open(sys.prefix, os.O_RDONLY)\n>>> os.remove('canary', dir_fd=fd)"
    ),
    "database by address": ">>> import sqlite3; sqlite3.connect('file:{canary}', uri=True)",
    "rename": ">>> import os; os.rename('{canary}', '{canary}.moved')",
    "through a link": ">>> import os; os.symlink('{canary}', 'link')\n>>> open('link', 'w')",
    "database": ">>> import sqlite3; sqlite3.connect('{canary}')",
    "read outside": ">>> open('{canary}').read()",
    "subprocess": ">>> import subprocess; subprocess.run(['rm', '{canary}'])",
    "shell": ">>> import os; os.system('rm {canary}')",
    "ctypes": ">>> import ctypes; ctypes.CDLL(None)",
    "network": ">>> import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)",
    "url": ">>> import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}')",
    "stdin": ">>> input()\nTraceback (most recent call last):\nEOFError: EOF when reading a line",
    "large file": ">>> f = open('big', 'wb')\n>>> while True: _ = f.write(bytes(1 << 20))\n>>> 1",
    "abort": ">>> import os; os.abort()",
    "unhappy exception": ">>> class E(Exception):\n...     def __str__(self): raise self\n>>> raise E\n>>> 1",
}  # fmt: skip
EXPECTED = {
    "fork bomb": "refused", "endless loop": "timeout", "endless sleep": "timeout", "memory": "memory",
    "exit": "exited", "sys.exit": "undocumented exception", "flood": "output", "large value": "output",
    "close stdout": "", "close all": "exited", "close and stay": "timeout", "forge": "crashed", "garbage": "exited",
    "kill parent": "refused", "kill all": "refused", "write home": "", "write outside": "refused",
    "append outside": "refused", "create outside": "refused", "delete": "refused", "delete tree": "refused",
    "delete by descriptor": "refused", "database by address": "refused",
    "rename": "refused", "through a link": "refused", "database": "refused", "read outside": "refused",
    "subprocess": "refused", "shell": "refused", "ctypes": "refused", "network": "network", "url": "network",
    "stdin": "", "large file": "undocumented exception", "abort": "crashed",
    "unhappy exception": "undocumented exception",
}  # fmt: skip


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture(scope="module", params=[True, False], ids=["namespaces", "audit hook alone"])
def hostilities(
    request: pytest.FixtureRequest, wares: Path, listener: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """What came of the hostile docstrings, run among ordinary ones."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "canary").write_text("alive")
    jobs = []
    for name, docstring in HOSTILE.items():
        text = docstring.replace("{canary}", str(folder / "canary")).replace("{port}", str(listener.getsockname()[1]))
        jobs.append(make_job(f"wares.{name}", text))
        jobs.append(make_job(f"wares.{name} and then", ">>> price(2)\n4.0"))
    limits = Limits(cpu_seconds=1, wall_seconds=4, output_bytes=20_000, namespaces=request.param)
    run = run_doctests(jobs, 2, limits, tmp_path_factory.mktemp("scratch"), python_path=[wares])
    if request.param and "network namespace" not in run.isolation:
        pytest.skip("this kernel permits no namespaces")
    assert ("pid namespace" in run.isolation) is request.param
    outcomes = {job.api_name.removeprefix("wares."): outcome for job, outcome in run}
    assert sorted(path.name for path in folder.iterdir()) == ["canary"]
    assert (folder / "canary").read_text() == "alive"
    with pytest.raises(BlockingIOError):  # nobody has called
        listener.accept()
    return outcomes


@pytest.mark.slow
def test_hostile_docstrings_fail_alone(hostilities: dict[str, Outcome]) -> None:
    for name in HOSTILE:
        after = hostilities[f"{name} and then"]
        assert isinstance(after, list) and after[-1].matched, f"after {name}: {after}"
    found = {}
    for name in HOSTILE:
        outcome = hostilities[name]
        dropped = outcome.reason if isinstance(outcome, Failure) else "".join({step.dropped for step in outcome} - {""})
        found[name] = dropped
    assert found == EXPECTED


@pytest.mark.slow
def test_what_surrounds_a_refusal_is_kept(hostilities: dict[str, Outcome]) -> None:
    outcome = hostilities["memory"]
    assert isinstance(outcome, list)
    assert [step.got for step in outcome if not step.dropped] == ["'before'\n", "'after'\n"]


BYPASS = """
    >>> import sys
    >>> frame = sys._getframe()
    >>> while "guard" not in frame.f_locals: frame = frame.f_back
    >>> frame.f_locals["guard"]._checks.clear()
    >>> import ctypes, os, signal, socket
    >>> libc = ctypes.CDLL(None, use_errno=True)
    >>> open("{canary}", "w")
    Traceback (most recent call last):
    OSError: [Errno 30] Read-only file system: '{canary}'
    >>> os.remove("{canary}")
    Traceback (most recent call last):
    OSError: [Errno 30] Read-only file system: '{canary}'
    >>> socket.create_connection(("127.0.0.1", {port}), timeout=2)
    Traceback (most recent call last):
    OSError: [Errno 101] Network is unreachable
    >>> os.kill({pid}, signal.SIGKILL)
    Traceback (most recent call last):
    ProcessLookupError: [Errno 3] No such process
    >>> os.kill(1, signal.SIGKILL)
    >>> libc.mount(None, b"/", None, 4096 | 32, None)
    -1
    >>> libc.mount(b"tmpfs", b"{folder}", b"tmpfs", 0, None)
    -1
    >>> sorted(os.listdir("/dev"))
    ['full', 'null', 'random', 'urandom', 'zero']
    >>> open("/proc/sys/kernel/hostname", "w")
    Traceback (most recent call last):
    OSError: [Errno 30] Read-only file system: '/proc/sys/kernel/hostname'
    >>> for _ in range(20):
    ...     if os.fork() == 0:
    ...         os.setsid(); signal.pause(); os._exit(0)
    >>> "still here"
    'still here'
"""


def test_the_kernel_holds_where_the_hook_is_bypassed(wares: Path, listener: socket.socket, tmp_path: Path) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "canary").write_text("alive")
    text = BYPASS.replace("{canary}", str(folder / "canary")).replace("{port}", str(listener.getsockname()[1]))
    text = text.replace("{pid}", str(os.getpid())).replace("{folder}", str(folder))
    scratch = tmp_path / "scratch"
    run = run_doctests(
        [make_job("wares.a", text), make_job("wares.b", ">>> price(1)\n2.0")], 1, LIMITS, scratch, python_path=[wares]
    )
    if not {"own /proc", "read-only file system"} <= set(run.isolation):
        pytest.skip("this kernel permits too few namespaces")
    for _, outcome in run:
        assert isinstance(outcome, list)
        for step in outcome:
            assert step.matched, step
    assert (folder / "canary").read_text() == "alive"
    assert processes_with(str(scratch)) == []
    assert list(scratch.iterdir()) == []
