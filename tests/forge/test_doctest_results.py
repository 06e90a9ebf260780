"""What counts as agreement: with the documentation, between two runs, and with the form of a result."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import pytest

from hephaestus_jax.forge.doctests.execute import agrees
from hephaestus_jax.forge.doctests.extract import _DEFAULTS
from hephaestus_jax.forge.doctests.results import ExecutedExample, Failure, agreement, read_result, unstable


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
    assert agrees(want, got, _DEFAULTS) is expected


def test_addresses_are_unstable_even_where_they_do_not_move() -> None:
    now = datetime(2031, 5, 7)
    assert unstable("<A object at 0x7f0a12>", now) == "memory address"
    assert unstable("datetime.date(2031, 5, 7)", now) == unstable("2031-05-07", now) == "today's date"
    assert unstable("frozenset({'a', 'b'})", now) == "set order"
    assert not unstable("{'a': 'b', 'c': 'd'} {'a'} {1, 2} 0x7f0a12 2031-05-17 /usr/bin", now)


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
