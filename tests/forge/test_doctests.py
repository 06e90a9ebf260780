"""Docstrings executed for real, hostile ones among them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import socket
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.doctests.execute import agrees
from hephaestus_jax.forge.doctests.extract import DoctestJob, extract_examples, free_names, intent_of
from hephaestus_jax.forge.doctests.process import Limits
from hephaestus_jax.forge.doctests.results import (
    ExecutedExample,
    Failure,
    Outcome,
    agreement,
    read_result,
    tally,
    unstable,
)
from hephaestus_jax.forge.doctests.sandbox import run_doctests
from hephaestus_jax.forge.doctests.trajectories import to_trajectory, tool_from
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    CodeAction,
    Provenance,
    TextObservation,
    Tool,
    from_json,
    to_json,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")

PROVENANCE = Provenance("wares", "1.0", "MIT")
QUICK = Limits(cpu_seconds=2, wall_seconds=4, import_seconds=20, output_bytes=20_000)


def make_job(name: str, docstring: str, module: str = "wares", aliases: tuple[str, ...] = ()) -> DoctestJob:
    return DoctestJob(name, aliases, module, inspect.cleandoc(docstring), PROVENANCE)


@pytest.fixture(scope="module")
def wares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small package that nobody has installed."""
    root = tmp_path_factory.mktemp("site")
    package = root / "wares"
    package.mkdir()
    (package / "__init__.py").write_text(
        textwrap.dedent(
            """
            import math as _math
            RATE = 3

            def price(count, each=2.0):
                if count < 0:
                    raise ValueError("count is negative")
                return count * each

            class Basket:
                def __init__(self, names): self.names = names
                def size(self): return len(self.names)
            """
        )
    )
    (package / "broken.py").write_text("raise RuntimeError('cannot be imported')\n")
    (package / "deadly.py").write_text("import os\nos._exit(7)\n")
    (package / "loud.py").write_text(
        "import os\nfor fd in range(1, 20):\n    try: os.write(fd, b'{\\n')\n    except OSError: 0\n"
    )
    (package / "held.py").write_text(
        textwrap.dedent(
            """
            import threading, time
            lock, held = threading.Lock(), threading.Event()

            def hold():  # long enough for a fork to copy the lock while it is taken
                with lock:
                    held.set()
                    time.sleep(1.5)

            threading.Thread(target=hold, daemon=True).start()
            held.wait()

            def use():
                with lock:
                    return "free"
            """
        )
    )
    return root


def execute(
    jobs: list[DoctestJob], wares: Path, scratch: Path, workers: int = 2, limits: Limits = QUICK
) -> dict[str, Outcome]:
    run = run_doctests(jobs, workers, limits, scratch, python_path=[wares])
    return {job.api_name: outcome for job, outcome in run}


# --- extraction -------------------------------------------------------------------------------------------------------


def test_examples_keep_their_order_and_the_sentence_before_them() -> None:
    examples = extract_examples(
        inspect.cleandoc(
            """Adds things.

            Examples
            --------
            >>> 1 + 1
            2

            A remark. Lists are joined with :func:`join`::

            >>> [1] + [2]
            [1, 2]
            >>> boom()  # doctest: +SKIP
            >>> 1 / 0
            Traceback (most recent call last):
                ...
            ZeroDivisionError: division by zero
            >>> rng()  # may vary
            0.5
            """
        )
    )
    assert [example.source for example in examples][:2] == ["1 + 1\n", "[1] + [2]\n"]
    assert [example.intent for example in examples] == ["", "Lists are joined with `join`:", "", "", ""]
    assert [example.skipped for example in examples] == [False, False, True, False, False]
    assert examples[3].error == "ZeroDivisionError: division by zero\n"
    assert [example.checked for example in examples] == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("prose", "intent"),
    [
        ("Examples\n--------\n", ""),
        ("Example:\n\n", ""),
        ("Usage::\n", ""),
        ("First this. Then that is done:\n", "Then that is done:"),
        ("One paragraph.\n\nAnother\nin two lines.\n", "Another in two lines."),
        ("Text.\n\n.. doctest::\n", ""),
        ("***\n", ""),
        ("See e.g. numpy for `x`.", "See e.g. numpy for `x`."),
    ],
)
def test_intent(prose: str, intent: str) -> None:
    assert intent_of(prose) == intent


def test_malformed_docstrings_are_refused() -> None:
    with pytest.raises(ValueError, match="inconsistent leading whitespace"):
        extract_examples("    >>> f()\n  1\n")
    with pytest.raises(ValueError, match="at most"):
        extract_examples(">>> 1\n" * 100_000)
    assert extract_examples("no examples") == ()


@given(st.text(max_size=200))
def test_any_text_gives_examples_or_a_reason(text: str) -> None:
    try:
        examples = extract_examples(">>> 1\n" + text)
    except ValueError:
        return
    assert examples[0].source.startswith("1")


def test_free_names() -> None:
    sources = [
        "x = f(1)\n",
        "for i in x: print(i, y)\n",
        "g = lambda a: a + b\n",
        "[k for k in x]\n",
        "import m; m.n\n",
        "(",
    ]
    assert free_names(sources) == ("f", "y", "b")


@pytest.mark.parametrize(
    ("want", "got", "expected"),
    [
        ("0.333\n", "0.33300001\n", True),
        ("0.333\n", "0.334\n", False),
        ("array([True])\n", "array([ True])\n", True),
        ("2.5\n", "np.float64(2.5)\n", True),
        ("False\n", "np.False_\n", True),
        ("False\n", "np.True_\n", False),
        ("<A at 0x...>\n", "<A at 0x7f12>\n", True),
        ("1 2\n", "1 2 3\n", False),
        ("abc\n", "abd\n", False),
        ("", "1\n", False),
    ],
)
def test_agreement_with_the_documentation(want: str, got: str, expected: bool) -> None:
    from hephaestus_jax.forge.doctests.extract import _DEFAULTS

    assert agrees(want, got, _DEFAULTS) is expected


# --- ordinary docstrings ----------------------------------------------------------------------------------------------


PRICE = """The price of some wares.

    >>> price(3)
    6.0

    Every piece may cost more:

    >>> price(3, each=RATE)
    9
    >>> price(-1)
    Traceback (most recent call last):
        ...
    ValueError: count is negative
    >>> price("a")
    >>> Basket(["a"]).size()
    2
"""


def test_examples_run_in_the_namespace_of_their_module(wares: Path, tmp_path: Path) -> None:
    outcome = execute([make_job("wares.price", PRICE)], wares, tmp_path)["wares.price"]
    assert isinstance(outcome, list)
    setup = [step.source for step in outcome if step.setup]
    assert setup == ["from wares import price\n", "from wares import RATE\n", "from wares import Basket\n"]
    steps = [step for step in outcome if not step.setup]
    assert [step.got for step in steps[:2]] == ["6.0\n", "9\n"]
    assert steps[2].got == "Traceback (most recent call last):\n  ...\nValueError: count is negative\n"
    assert [step.exception for step in steps] == [None, None, "ValueError", "TypeError", None]
    assert [step.dropped for step in steps] == ["", "", "", "undocumented exception", ""]
    assert [step.matched for step in steps] == [True, True, True, False, False]
    counts = tally([(make_job("wares.price", PRICE), outcome)])["wares"]
    assert (counts.examples, counts.executed, counts.equal, counts.matched) == (5, 5, 4, 3)


def test_the_standard_library_keeps_its_word(tmp_path: Path) -> None:
    names = ["mean", "median", "mode", "multimode", "quantiles", "stdev", "NormalDist"]
    jobs = [
        DoctestJob(f"statistics.{name}", (), "statistics", inspect.getdoc(getattr(statistics, name)) or "", PROVENANCE)
        for name in ["fmean", *names]
    ]
    done = [(job, outcome) for job, outcome in run_doctests(jobs, 2, Limits(), tmp_path) if isinstance(outcome, list)]
    steps = [step for _, outcome in done for step in outcome if not step.setup]
    assert len(steps) >= 15
    assert all(step.matched and not step.dropped for step in steps)


def test_what_two_runs_disagree_on_is_dropped(wares: Path, tmp_path: Path) -> None:
    docstring = """
    >>> object()
    >>> import os, time, random, tempfile
    >>> os.getpid()
    >>> time.time_ns()
    >>> random.random()
    >>> os.getcwd()
    >>> tempfile.mkdtemp()
    >>> list({"a", "b", "c", "d", "e", "f", "g"})
    >>> for again in range(1): print(time.time_ns())
    >>> again + 1
    >>> import datetime; datetime.date.today()
    >>> {"one", "two"}
    >>> os.__file__
    >>> 7
    """
    outcome = execute([make_job("wares.drift", docstring)], wares, tmp_path)["wares.drift"]
    assert isinstance(outcome, list)
    assert [step.dropped for step in outcome] == [
        "differs", "", *["differs"] * 7, "follows a dropped example", "today's date", "set order", "machine path", "",
    ]  # fmt: skip


def test_addresses_are_unstable_even_where_they_do_not_move() -> None:
    now = datetime(2031, 5, 7)
    assert unstable("<A object at 0x7f0a12>", now) == "memory address"
    assert unstable("datetime.date(2031, 5, 7)", now) == unstable("2031-05-07", now) == "today's date"
    assert unstable("frozenset({'a', 'b'})", now) == "set order"
    assert not unstable("{'a': 'b', 'c': 'd'} {'a'} {1, 2} 0x7f0a12 2031-05-17 /usr/bin", now)


def test_the_result_does_not_depend_on_the_number_of_workers(wares: Path, tmp_path: Path) -> None:
    jobs = [make_job(f"wares.f{n}", f">>> price({n})\n{2.0 * n}\n>>> object()\n") for n in range(20)]
    jobs += [make_job(f"bisect.g{n}", f">>> bisect([1, 2, 3], {n})\n", "bisect") for n in range(5)]
    one = list(run_doctests(jobs, 1, QUICK, tmp_path / "1", python_path=[wares]))
    two = list(run_doctests(jobs[::-1], 2, QUICK, tmp_path / "2", python_path=[wares]))
    assert one == two
    assert len(one) == 25 and all(isinstance(outcome, list) for _, outcome in one)


def test_a_lock_that_a_fork_copies_is_got_around(wares: Path, tmp_path: Path) -> None:
    outcome = execute([make_job("wares.held.use", ">>> use()\n'free'", "wares.held")], wares, tmp_path)[
        "wares.held.use"
    ]
    assert isinstance(outcome, list)
    assert outcome[-1].matched


# --- hostile docstrings -----------------------------------------------------------------------------------------------


HOSTILE = {
    "fork bomb": ">>> import os\n>>> while True: os.fork()",
    "endless loop": ">>> while True: pass",
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
    "large file": ">>> f = open('big', 'wb')\n>>> while True: _ = f.write(bytes(1 << 20))",
    "abort": ">>> import os; os.abort()",
    "unhappy exception": ">>> class E(Exception):\n...     def __str__(self): raise self\n>>> raise E",
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
    limits = Limits(cpu_seconds=1, wall_seconds=3, import_seconds=20, output_bytes=20_000, namespaces=request.param)
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


def processes_with(text: str) -> list[int]:
    """The processes that have `text` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_the_kernel_holds_where_the_hook_is_bypassed(wares: Path, listener: socket.socket, tmp_path: Path) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "canary").write_text("alive")
    text = BYPASS.replace("{canary}", str(folder / "canary")).replace("{port}", str(listener.getsockname()[1]))
    text = text.replace("{pid}", str(os.getpid())).replace("{folder}", str(folder))
    scratch = tmp_path / "scratch"
    run = run_doctests(
        [make_job("wares.a", text), make_job("wares.b", ">>> price(1)\n2.0")], 1, QUICK, scratch, python_path=[wares]
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


def test_modules_that_cannot_be_imported(wares: Path, tmp_path: Path) -> None:
    modules = ["wares", "wares.broken", "wares.deadly", "wares.loud", "no_such_package"]
    jobs = [make_job(f"{module}.{n}", ">>> 1\n1", module) for module in modules for n in "ab"]
    outcomes = execute(jobs, wares, tmp_path)
    assert len(outcomes) == 10
    for n in "ab":
        assert isinstance(outcomes[f"wares.{n}"], list)
        broken, deadly, missing = (outcomes[f"{m}.{n}"] for m in ("wares.broken", "wares.deadly", "no_such_package"))
        assert broken == Failure("import", "RuntimeError: cannot be imported\n")
        assert deadly == Failure("import", "importing wares.deadly ended or stopped the worker")
        assert missing == Failure("import", "ModuleNotFoundError: No module named 'no_such_package'\n")
        loud = outcomes[f"wares.loud.{n}"]
        assert isinstance(loud, list) or loud.reason == "import"


def test_giving_up_leaves_no_process_behind(wares: Path, tmp_path: Path) -> None:
    jobs = [
        make_job(f"wares.{n:03d}", ">>> 1\n1" if n < 100 else ">>> import time; time.sleep(60)") for n in range(300)
    ]
    for _ in run_doctests(jobs, 2, Limits(wall_seconds=60), tmp_path, python_path=[wares]):
        break
    assert processes_with(str(tmp_path)) == []


def test_a_killed_build_leaves_no_process_behind(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from hephaestus_jax.forge.doctests.extract import DoctestJob
        from hephaestus_jax.forge.doctests.process import Limits
        from hephaestus_jax.forge.doctests.sandbox import run_doctests
        from hephaestus_jax.formats.records import Provenance
        docstring = ">>> import time; time.sleep(600)"
        jobs = [DoctestJob(f"time.{n}", (), "time", docstring, Provenance("", "", "")) for n in "ab"]
        list(run_doctests(jobs, 2, Limits(wall_seconds=600), Path(sys.argv[1])))
    """
    root = Path(__file__).parents[2]
    build = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], cwd=root)
    try:
        wait_until(
            lambda: len(processes_with(f"{tmp_path}/00000-1")) >= 3 and len(processes_with(f"{tmp_path}/00000-2")) >= 3
        )
    finally:
        build.kill()
        build.wait()
    wait_until(lambda: not processes_with(str(tmp_path)))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_under_test_is_imported_here(wares: Path, tmp_path: Path) -> None:
    assert isinstance(execute([make_job("wares.x", ">>> RATE\n3")], wares, tmp_path)["wares.x"], list)
    assert "wares" not in sys.modules


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 1"):
        run_doctests([], 0, QUICK, tmp_path)
    with pytest.raises(UserError, match="cpu_seconds"):
        Limits(cpu_seconds=0)
    assert list(run_doctests([], 1, QUICK, tmp_path)) == []


def test_forged_results_are_failures() -> None:
    step = ExecutedExample("1\n", "", "1\n", None, True)
    good = dataclasses.asdict(step)
    assert read_result({"steps": [good]}) == [step]
    forged: list[Any] = [{}, [], None, 3, {"steps": 1}, {"steps": [3]}]
    forged += [{"steps": [{**good, change: 1}]} for change in ("got", "matched", "exception", "unknown")]
    for value in forged:
        assert read_result(value) == Failure("crashed", "reported something else than a result"), value


def test_runs_that_differ_in_length_are_a_failure() -> None:
    step = ExecutedExample("1\n", "", "1\n", None, True)
    assert agreement([step], [step, step]) == Failure("differs", "the runs needed different set-ups")
    assert agreement([step], Failure("timeout")) == Failure("timeout")


# --- trajectories -----------------------------------------------------------------------------------------------------


PRICE_DOC = ApiDoc(
    name="wares.price",
    provider="wares",
    description="The price of some wares.\n\nMore text.",
    provenance=PROVENANCE,
    signature="price(count, each=2.0)",
    parameters={
        "type": "object",
        "properties": {"count": {"type": "integer"}, "each": {"type": "number"}},
        "required": ["count"],
    },
)
POOL = [Tool(f"wares.other{n}") for n in range(9)]


def steps_of(*pairs: tuple[str, str], setup: str = "from wares import price\n") -> list[ExecutedExample]:
    executed = [ExecutedExample(setup, "", "", None, True, index=-1, setup=True)]
    return executed + [ExecutedExample(s + "\n", "", got, None, True, index=n) for n, (s, got) in enumerate(pairs)]


def test_plain_calls_become_tool_calls() -> None:
    job = make_job("wares.price", ">>> price(3)\n6.0\n>>> price(count=1, each=0.5)\n0.5")
    trajectory = to_trajectory(
        job, steps_of(("price(3)", "6.0\n"), ("price(count=1, each=0.5)", "0.5\n")), PRICE_DOC, POOL
    )
    assert trajectory is not None
    user, *steps = trajectory.steps
    assert isinstance(user, TextObservation) and user.source == "user"
    assert "The price of some wares." in user.content and "count = 3; then count = 1, each = 0.5" in user.content
    assert steps == [
        ApiAction("wares.price", {"count": 3}, tool_call_id="call_0", outcome="ok"),
        TextObservation("6.0", "environment", tool_call_id="call_0"),
        ApiAction("wares.price", {"count": 1, "each": 0.5}, tool_call_id="call_1", outcome="ok"),
        TextObservation("0.5", "environment", tool_call_id="call_1"),
    ]
    names = [tool.name for tool in trajectory.tools]
    assert "wares.price" in names and 3 <= len(names) == len(set(names)) <= 5
    assert trajectory.code_languages == () and trajectory.success is True
    assert trajectory == to_trajectory(
        job, steps_of(("price(3)", "6.0\n"), ("price(count=1, each=0.5)", "0.5\n")), PRICE_DOC, POOL
    )
    assert from_json(json.loads(json.dumps(to_json(trajectory)))) == trajectory


@pytest.mark.parametrize(
    "source",
    [
        "price(x)",  # not a literal
        "price((1, 2))",  # a tuple is not JSON
        "price(1, 2, 3)",  # more than the signature takes
        "price(1, colour=2)",  # unknown to the schema
        "price(each=1.0)",  # lacks what is required
        "price('a')",  # of another type
        "price(True)",
        "price(*[1])",
        "price(**{'count': 1})",
        "y = price(1)",
        "price(1) + 1",
        "other(price)",
        "basket.price(1)",
        "price(float('nan'))",
        "price({1: 2})",
        "price(1); price(2)",
        "price" + "(" * 500,
    ],
)
def test_everything_else_stays_code(source: str) -> None:
    job = make_job("wares.price", f">>> {source}\n6.0")
    trajectory = to_trajectory(job, steps_of((source, "6.0\n")), PRICE_DOC, POOL)
    assert trajectory is not None
    actions = [step for step in trajectory.steps if not isinstance(step, TextObservation)]
    assert all(isinstance(action, CodeAction) for action in actions)
    assert isinstance(actions[-1], CodeAction)
    assert actions[-1].content in (source, f"from wares import price\n{source}")  # imports go into the same call
    assert trajectory.tools == () and trajectory.code_languages == ("python",)


def test_calls_are_recognised_under_every_name() -> None:
    job = make_job("wares.price", ">>> import wares as w\n>>> w.deep.price(1)\n2.0", aliases=("wares.deep.price",))
    executed = steps_of(("import wares as w", ""), ("w.deep.price(1)", "2.0\n"))
    trajectory = to_trajectory(job, executed, PRICE_DOC, POOL)
    assert trajectory is not None
    assert [type(step).__name__ for step in trajectory.steps] == ["TextObservation", "ApiAction", "TextObservation"]


def test_prose_becomes_the_users_turn_and_imports_come_first() -> None:
    job = make_job(
        "wares.price", "Summary.\n\n>>> x = 2\n\nPrices are floats:\n\n>>> price(x)  # doctest: +ELLIPSIS\n4.0"
    )
    executed = steps_of(("x = 2", ""), ("price(x)  # doctest: +ELLIPSIS", "4.0\n"))
    trajectory = to_trajectory(job, executed)
    assert trajectory is not None
    said = [step.content for step in trajectory.steps if isinstance(step, TextObservation) and step.source == "user"]
    ran = [step.content for step in trajectory.steps if isinstance(step, CodeAction)]
    assert said == ["How is `wares.price` used? Summary. Run it, please.", "Prices are floats:"]
    assert ran == ["from wares import price\nx = 2", "price(x)"], "silent code waits for what follows, not for the user"
    ids = [step.tool_call_id for step in trajectory.steps if isinstance(step, CodeAction)]
    assert len(set(ids)) == len(ids)


def test_without_prose_the_summary_is_the_intent_and_dropped_steps_are_gone() -> None:
    job = make_job("wares.price", ">>> object()\n>>> price.x\n2")
    executed = [
        ExecutedExample("object()\n", "", "<object at 0x1234>\n", None, False, 0, dropped="differs"),
        ExecutedExample("price.x\n", "2\n", "1\n", None, False, 1),
    ]
    trajectory = to_trajectory(job, executed, PRICE_DOC)
    assert trajectory is not None
    assert isinstance(trajectory.steps[0], TextObservation) and "`wares.price`" in trajectory.steps[0].content
    assert [step.content for step in trajectory.steps if isinstance(step, CodeAction)] == ["price.x"]
    assert trajectory.success is False
    assert trajectory.provenance.processing == ("doctest examples executed twice, equal outputs kept",)


def test_a_docstring_that_shows_nothing_makes_no_trajectory() -> None:
    job = make_job("wares.price", ">>> x = 1\n>>> object()")
    silent = ExecutedExample("x = 1\n", "", "", None, True, 0)
    dropped = ExecutedExample("object()\n", "", "<object>\n", None, False, 1, dropped="differs")
    assert to_trajectory(job, [silent, dropped]) is None
    assert to_trajectory(job, []) is None
    spoken = ExecutedExample("print(1)\n", "", "1\n", None, False, 1)
    assert to_trajectory(job, [silent, spoken]) is None


def test_a_docstring_all_the_way_to_a_trajectory(wares: Path, tmp_path: Path) -> None:
    job = make_job("wares.price", PRICE)
    outcome = execute([job], wares, tmp_path)["wares.price"]
    assert isinstance(outcome, list)
    trajectory = to_trajectory(job, outcome, PRICE_DOC, POOL)
    assert trajectory is not None
    shapes = [type(step).__name__ for step in trajectory.steps if not isinstance(step, TextObservation)]
    assert shapes == ["CodeAction", "ApiAction", "CodeAction", "ApiAction", "CodeAction"]
    last = trajectory.steps[-3]
    assert isinstance(last, TextObservation) and last.content.endswith("ValueError: count is negative")


def test_code_that_prints_nothing_is_run_with_what_follows() -> None:
    job = make_job("wares.price", "Summary.\n\n>>> x = 2\n>>> y = 3\n>>> price(x)\n4.0\n>>> z = price(y)\n>>> z\n6.0")
    executed = steps_of(("x = 2", ""), ("y = 3", ""), ("price(x)", "4.0\n"), ("z = price(y)", ""), ("z", "6.0\n"))
    trajectory = to_trajectory(job, executed)
    assert trajectory is not None
    ran = [step.content for step in trajectory.steps if isinstance(step, CodeAction)]
    seen = [s.content for s in trajectory.steps if isinstance(s, TextObservation) and s.source == "environment"]
    assert ran == ["from wares import price\nx = 2\ny = 3\nprice(x)", "z = price(y)\nz"]
    assert seen == ["4.0", "6.0"]


def test_offered_tools_hold_no_python_only_keys() -> None:
    documented = {"type": "object", "properties": {"count": {"type": "integer", "x-python-type": "np.int64"}}}
    tool = tool_from(dataclasses.replace(PRICE_DOC, parameters=documented))
    assert "x-python" not in str(tool.parameters) and "np.int64" in str(tool.parameters)
