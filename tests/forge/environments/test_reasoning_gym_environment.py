"""Problems solved with tools: plans lead to accepted answers, tools are exact, slips are wrong, seeds decide all."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("reasoning_gym")

from environment_checks import (
    ROOT,
    check_choices,
    check_determinism,
    check_kind,
    check_looks_and_undo,
    check_refusals,
    kind_named,
    play_oracle,
    replay,
    told,
)

from hephaestus_jax.forge.environments.environment import FIRST_UNSEEN_SEED, Call
from hephaestus_jax.forge.environments.worlds.reasoning_gym.calculator import CalculatorError, calculate
from hephaestus_jax.forge.environments.worlds.reasoning_gym.slips import slips
from hephaestus_jax.forge.environments.worlds.reasoning_gym.tools import ToolError, used
from hephaestus_jax.forge.environments.worlds.reasoning_gym.world import ReasoningGym, tidy

KIND = kind_named("reasoning_gym")


@pytest.fixture(scope="module")
def player() -> ReasoningGym:
    return ReasoningGym()


def test_the_kind_complies() -> None:
    check_kind(KIND)
    assert len(KIND.games) >= 30 and len(KIND.unseen_games) >= 6


@pytest.mark.parametrize("game", [*KIND.games, *KIND.unseen_games])
def test_the_plan_wins_and_a_fresh_instance_says_the_same(player: ReasoningGym, game: str) -> None:
    split = "unseen_games" if game in KIND.unseen_games else "train"
    seed = FIRST_UNSEEN_SEED + 11 if game in KIND.unseen_games else 11
    steps = play_oracle(player, game, seed, split)
    assert [call.tool for call, _ in steps][-1] == "submit" and len(steps) >= 2
    assert steps[-1][0].arguments["answer"] in player.answer()
    task = player.reset(game, seed, split)
    again, repeated = replay(ReasoningGym(), game, seed, split, [call for call, _ in steps])
    assert told(task, steps) == told(again, repeated)


@pytest.mark.parametrize("game", ["gcd", "fraction_simplification", "simple_geometry", "coin_flip", "gsm_symbolic"])
def test_numbers_of_a_plan_come_from_the_problem_or_from_results(player: ReasoningGym, game: str) -> None:
    """No call takes a number that was not told, but for small ones that belong to the method."""
    for seed in range(4):
        steps = play_oracle(player, game, seed)
        told_so_far = player.reset(game, seed, "train").goal.replace(",", "")
        for call, feedback in steps[:-1]:
            known = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", told_so_far)}
            known |= {number / 100 for number in known} | {1 - number / 100 for number in known}
            for number in re.findall(r"\d+(?:\.\d+)?", str(call.arguments["expression"])):
                small = float(number) <= 12 or float(number) in (24, 52, 60, 100, 180, 365)
                assert small or float(number) in known, f"{call.key} knows {number}"
            told_so_far += f" {feedback.observation}"


def test_a_wrong_answer_is_told_and_mended(player: ReasoningGym) -> None:
    task = player.reset("products", 4, "train")
    wrong = player.step(Call("submit", {"answer": "1"}))
    assert not wrong.success and not wrong.done and wrong.observation.startswith("Wrong")
    right = player.oracle()
    assert right is not None and right.tool == "calculate"
    result = player.step(right).observation
    assert player.oracle() == Call("submit", {"answer": result})
    last = player.step(Call("submit", {"answer": result}))
    assert last.success and last.done and last.score == 1.0 and player.answer() == f"The answer is {result}."
    assert player.oracle() is None and player.step(right).error
    assert len(task.verbs) == 11


def test_what_cannot_be_done_is_an_error_in_words(player: ReasoningGym) -> None:
    task = player.reset("base_conversion", 2, "train")
    check_refusals(player, task, [
        Call("calculate", {"expression": "1 / 0"}), Call("calculate", {"expression": "__import__('os')"}),
        Call("convert_base", {"number": "129", "from_base": 8, "to_base": 10}),
        Call("convert_base", {"number": "1", "from_base": 1, "to_base": 10}),
        Call("sort_items", {"items": ["a"], "order": "ascending", "by": "number"}),
        Call("sort_items", {"items": [], "order": "ascending", "by": "text"}),
        Call("move_date", {"date": "2022-02-30", "days": 1}), Call("move_date", {"date": "9999-12-31", "days": 9}),
        Call("days_between", {"first": "today", "last": "2022-01-01"}), Call("count_text", {"text": "a", "part": ""}),
        Call("solve"), Call("submit", {}),
    ])  # fmt: skip


def test_looks_leave_the_state_and_choices_comply(player: ReasoningGym) -> None:
    for game in ("spell_backward", "simple_equations", "base_conversion"):
        assert check_looks_and_undo(player, game, 1, depth=3)["looks"] >= 3
    for game in KIND.games[::4]:
        check_choices(player, player.reset(game, 6, "train"))


def test_slips_are_wrong_and_are_never_what_was_meant(player: ReasoningGym) -> None:
    found = 0
    for game in KIND.games:
        player.reset(game, 8, "train")
        call = player.oracle()
        assert call is not None
        right = used(call.tool, call.arguments)
        for other in slips(call, {}):
            found += 1
            with contextlib.suppress(ToolError):
                assert used(other.tool, other.arguments) != right
    assert found >= 2 * len(KIND.games)


def test_two_processes_and_other_episodes_before_make_no_difference() -> None:
    check_determinism("reasoning_gym", "gsm_symbolic", 3)


@pytest.mark.parametrize(("expression", "value"), [
    ("99 - 25 - 18 - 58", "-2"), ("2 * 4 / 13.1529824451", "0.608227071951"), ("1 / 3", "0.333333333333"),
    ("2 / 3", "0.666666666667"), ("10**20 + 1", "100000000000000000001"), ("(-2.5)**3", "-15.625"), ("7 // -2", "-4"),
    ("0.1 + 0.2", "0.3"), ("sqrt(2)", "1.41421356237"), ("sqrt(0.25)", "0.5"), ("comb(8, 6)", "28"), ("-7 % 3", "2"),
    ("hex(0x10 - 0x20)", "-0x10"), ("max(3, 4.5, 1)", "4.5"), ("1 << 10", "1024"), ("100.0", "100"), ("- 3 + +2", "-1"),
])  # fmt: skip
def test_the_calculator_is_exact(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize("expression", [
    "", "1 +", "1; 2", "x", "open('a')", "(1).real", "[1]", "'a' * 9", "True + 1", "2**0.5", "9**9**9**9", "10**4000",
    "1 << 10**9", "0**-1", "sqrt(-1)", "comb(3, -1)", "sqrt(1, 2)", "hex(0.5)", "1 + hex(3)", "max(*[1])", "1e999",
    "(" * 300 + "1" + ")" * 300, "lambda: 1", "1 if 1 else 2", "5 % 0", "9" * 5000, "+".join(["1"] * 20_000),
])  # fmt: skip
def test_the_calculator_refuses_in_words(expression: str) -> None:
    with pytest.raises(CalculatorError):
        calculate(expression)


_small = st.integers(-999, 999)


@settings(max_examples=60, deadline=None)
@given(_small, _small, _small, st.sampled_from("+-*/"), st.sampled_from("+-*"))
def test_the_calculator_agrees_with_fractions(a: int, b: int, c: int, first: str, second: str) -> None:
    if first == "/" and b == 0:
        return
    expected = eval(f"F(a) {first} F(b) {second} F(c)", {"F": Fraction, "a": a, "b": b, "c": c})
    got = Fraction(calculate(f"({a}) {first} ({b}) {second} ({c})"))
    assert abs(got - expected) <= abs(expected) * Fraction(1, 10**11)


@settings(max_examples=60, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(2, 36), st.integers(2, 36))
def test_bases_are_converted_there_and_back(number: int, base: int, other: int) -> None:
    there = used("convert_base", {"number": str(number), "from_base": 10, "to_base": base})
    across = used("convert_base", {"number": there, "from_base": base, "to_base": other})
    assert used("convert_base", {"number": across, "from_base": other, "to_base": 10}) == str(number)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30), st.integers(-25, 25))
def test_letters_are_shifted_there_and_back(text: str, places: int) -> None:
    there = used("shift_letters", {"text": text, "places": places})
    assert used("shift_letters", {"text": there, "places": -places}) == text


def test_the_calendar_knows_weekdays() -> None:
    assert used("move_date", {"date": "2024-02-28", "days": 2}) == "2024-03-01, a Friday"
    assert used("days_between", {"first": "2023-01-01", "last": "2024-01-01"}) == "365"


def test_texts_are_made_tidy() -> None:
    assert tidy("a  b \n\n\n\n c?Return it.\n") == "a b\n\n c? Return it."


_ELSEWHERE = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from environment_checks import kind_named, play_oracle, told
kind = kind_named("reasoning_gym")
environment = kind.make()
for game in reversed(kind.games + kind.unseen_games):
    words = told(environment.reset(game, 3, "train"), play_oracle(environment, game, 3))
    print(game, hashlib.sha256(words.encode()).hexdigest())
"""


def test_every_game_is_the_same_in_processes_with_other_hashes() -> None:
    """Hashes of strings decide the order of sets: a game that draws from one differs between processes."""
    outcomes = []
    for seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE, str(Path(__file__).parent)], env=environ, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        outcomes.append(
            [line for line in done.stdout.splitlines() if line.split()[0] in KIND.games + KIND.unseen_games]
        )
    assert len(outcomes[0]) == len(KIND.games + KIND.unseen_games) and outcomes[0] == outcomes[1]
