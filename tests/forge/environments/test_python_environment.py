"""A Python session: an expert that runs, reads tracebacks and mends; hidden checks that run the code."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from crafted_checks import (
    after_mistake,
    check_choices_are_known,
    check_python,
    different_tasks,
    keep_program_output,
    won,
)
from environment_checks import check_determinism, check_kind, check_looks_and_undo, check_refusals, replay, told

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.confinement.process import Confined
from hephaestus_jax.forge.environments.environment import ENVIRONMENTS, Call, checked_step
from hephaestus_jax.forge.environments.worlds.python.tasks import run
from hephaestus_jax.forge.environments.worlds.python.world import Python

KIND = ENVIRONMENTS["python"]
GAMES = (*KIND.games, *KIND.unseen_games)
INVENTED = {"write_function", "mend_function", "write_class"}  # their trials have arguments that the expert makes up


@pytest.fixture(scope="module")
def session() -> Iterator[Python]:
    try:
        environment = Python()
    except UserError as error:
        pytest.skip(str(error))
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def other(session: Python) -> Iterator[Python]:
    environment = Python()
    yield environment
    environment.close()


@pytest.fixture(autouse=True)
def program_output(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_program_output(monkeypatch)


def test_families() -> None:
    check_kind(KIND)
    assert len(KIND.games) >= 12 and len(KIND.unseen_games) >= 2
    assert different_tasks(Python.families, 600) >= 590


@pytest.mark.parametrize("game", GAMES)
def test_the_expert_wins_by_what_it_has_read(session: Python, other: Python, game: str) -> None:
    for seed in (7, 2**30 + 1):
        steps = won(session, game, seed, "train", None if game in INVENTED else check_python)
        assert not any(value.startswith("!") for value in session._wanted[:3]), "a check that fails for the expert"
    if GAMES.index(game) % 4 == 0:
        task, again = replay(other, game, seed, "train", [call for call, _ in steps])
        assert told(task, again) == told(task, steps)


def test_determinism(session: Python) -> None:
    check_determinism("python", "write_report", 5, environment=session, count=8)


def test_looks_change_nothing(session: Python) -> None:
    assert check_looks_and_undo(session, "write_report", 1, depth=5)["looks"] >= 4


@pytest.mark.parametrize("game", ("csv_total", "two_tables"))
def test_choices_name_only_files_that_were_seen(session: Python, game: str) -> None:
    check_choices_are_known(session, game, 4, lambda: list(session._tree))


MISTAKES = (  # family, what the right code has in it, what is run instead
    ("csv_total", "import csv", lambda code: code.replace("import csv\n", "")),
    ("csv_total", "amounts", lambda code: "rows = []\n" + code),
    ("people", "json.load(", lambda code: code.replace("json.load(", "json.loads(")),
    ("slow_requests", "findall", lambda code: code.replace("int(found)", "found")),
    ("stock_moves", "for kind", lambda code: code.replace("dict(stock)", "stock.clear()")),
    ("grid", "grid = ", lambda code: code.replace("int(value)", "value")),
    ("write_report", "groups = ", lambda code: "import os\nos._exit(1)"),
    ("write_report", "json.dump", lambda code: code.replace(', "w"', "")),
    ("write_function", "def ", lambda code: code.replace("def ", "def my_")),
    ("mend_function", "def ", lambda code: code.replace(":\n", "\n", 1)),
    ("mend_program", "replace", lambda code: code.replace('"w"', '"r"')),
)


@pytest.mark.parametrize(("game", "right", "wrong"), MISTAKES)
def test_the_expert_mends_a_mistake(session: Python, game: str, right: str, wrong) -> None:
    assert after_mistake(session, game, 12, right, lambda code: run(wrong(code))) is not None


def test_a_file_that_is_lost_is_lost(session: Python) -> None:
    lost = after_mistake(
        session, "csv_total", 12, "csv.DictReader", lambda code: run(code.replace('") as', '", "w") as'))
    )
    assert lost is None and session.oracle() is None


def test_hidden_checks_run_the_code(session: Python) -> None:
    task = session.reset("write_function", 12, "train")
    right = str(session._task.steps[0].call.arguments["code"])
    name = right.split("def ")[1].split("(")[0]
    cases = (
        (f"def {name}(*given): return None", False),
        (right.replace("return", "return\n    ", 1), False),
        (f"{right}\ninner = {name}\n{name} = lambda *given: inner(*given)", True),
    )
    for code, passes in cases:
        session.reset("write_function", 12, "train")
        checked_step(session, task.verbs, run(code), None)
        assert checked_step(session, task.verbs, Call("submit"), None).success == passes, code
    session.reset("write_function", 12, "train")
    checked_step(
        session,
        task.verbs,
        run(f"def {name}(*given):\n    global spoiled\n    spoiled = 1\n    while True: pass"),
        None,
    )
    assert not checked_step(session, task.verbs, Call("submit"), None).success
    assert checked_step(session, task.verbs, run("spoiled"), None).error, "checks run in a copy"


def test_refusals(session: Python) -> None:
    task = session.reset("csv_total", 1, "train")
    codes = ("1 / 0", "x =", "nothing", "open('/etc/x', 'w')", "input()", "raise SystemExit", "\0", "'\ud800")
    calls = [*map(run, codes), Call("read_file", {"path": "nowhere"}), Call("run"), Call("dance")]
    check_refusals(session, task, calls)


HOSTILE = (
    "while True: pass", "import time\nwhile True:\n    try:\n        time.sleep(9)\n    except BaseException:\n  "
        "      pass",
    "import os\nwhile True: os.fork()", "print('x' * 10 ** 8)", "x = 'x' * 10 ** 10", "import os; os._exit(3)",
    "import os; os.kill(1, 9); os.kill(-1, 9)", "import sys; sys.stdout.close()", "def f(): return f()\nf()",
    "import os; os.system('sleep 60 &')", "import socket; socket.create_connection(('127.0.0.1', 22), 1);"
        " print('reached')",
    "class Odd:\n    def __repr__(self):\n        while True: pass\nodd = Odd()", "import os; os.chmod('.', 0)",
    "import threading, time\nthreading.Thread(target=lambda:"
        " time.sleep(60)).start()", "import shutil; shutil.rmtree('/')",
)  # fmt: skip


def test_hostile_code_harms_nobody(session: Python) -> None:
    confined = Confined("python", seconds=0.3)
    try:
        for code in HOSTILE:
            confined.ask("begin", {"a.txt": ["file", 0o644, "hello\n"]})
            assert "reached" not in confined.ask("python", code)["output"].split(), code
            confined.ask("python", "kept = 1")
        confined.ask("begin", {"a.txt": ["file", 0o644, "hello\n"]})
        answer = confined.ask(
            "python", "import os\nprint(open('a.txt').read(), len([n for n in os.listdir('/proc') if n.isdigit()]))"
        )
        assert answer["output"].split()[0] == "hello" and int(answer["output"].split()[1]) <= 3, "something is left"
    finally:
        confined.close()


def test_nothing_is_left_when_it_is_closed() -> None:
    try:
        environment = Python()
    except UserError as error:
        pytest.skip(str(error))
    environment.reset("people", 1, "train")
    assert environment._machine is not None
    number = environment._machine._process.pid
    environment.close()
    environment.close()
    assert not os.path.exists(f"/proc/{number}")
