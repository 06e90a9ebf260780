"""Ordinary docstrings executed for real, and modules that cannot be imported."""

from __future__ import annotations

import dataclasses
import inspect
import statistics
import sys
from pathlib import Path

import pytest
from doctest_jobs import LIMITS, PRICE, PROVENANCE, execute, make_job

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.doctests.extract import DoctestJob
from hephaestus_jax.forge.doctests.process import Limits
from hephaestus_jax.forge.doctests.results import Failure, tally
from hephaestus_jax.forge.doctests.sandbox import run_doctests

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")


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


def test_what_shows_nothing_is_not_run(wares: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    silent = f"A big thing.\n\n    ```\n    >>> big = open({str(mark)!r}, 'w')\n    ```\n"
    outcome = execute([make_job("wares.price", silent)], wares, tmp_path)["wares.price"]
    assert outcome == Failure("shows nothing")
    assert not mark.exists()


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


def test_the_result_does_not_depend_on_the_number_of_workers(wares: Path, tmp_path: Path) -> None:
    jobs = [make_job(f"wares.f{n}", f">>> price({n})\n{2.0 * n}\n>>> object()\n") for n in range(20)]
    jobs += [make_job(f"bisect.g{n}", f">>> bisect([1, 2, 3], {n})\n", "bisect") for n in range(5)]
    one = list(run_doctests(jobs, 1, LIMITS, tmp_path / "1", python_path=[wares]))
    two = list(run_doctests(jobs[::-1], 2, LIMITS, tmp_path / "2", python_path=[wares]))
    assert one == two
    assert len(one) == 25 and all(isinstance(outcome, list) for _, outcome in one)


def test_a_lock_that_a_fork_copies_is_got_around(wares: Path, tmp_path: Path) -> None:
    job = make_job("wares.held.use", ">>> use()\n'free'", "wares.held")
    limits = dataclasses.replace(LIMITS, wall_seconds=4)  # soon found stuck, and run again in a process of its own
    outcome = execute([job], wares, tmp_path, limits)["wares.held.use"]
    assert isinstance(outcome, list)
    assert outcome[-1].matched


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


def test_nothing_under_test_is_imported_here(wares: Path, tmp_path: Path) -> None:
    assert isinstance(execute([make_job("wares.x", ">>> RATE\n3")], wares, tmp_path)["wares.x"], list)
    assert "wares" not in sys.modules


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 1"):
        run_doctests([], 0, LIMITS, tmp_path)
    with pytest.raises(UserError, match="cpu_seconds"):
        Limits(cpu_seconds=0)
    assert list(run_doctests([], 1, LIMITS, tmp_path)) == []
