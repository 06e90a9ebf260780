"""Web pages in a headless browser: players win from what they see, refusals are told, seeds decide, nothing stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("miniwob")
if not shutil.which("chromium") or not shutil.which("chromedriver"):
    pytest.skip("chromium or chromedriver is not installed", allow_module_level=True)

from environment_checks import (
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

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.miniwob.page import Element
from hephaestus_jax.forge.environments.worlds.miniwob.players import PLAYERS, UNSEEN_PLAYERS, Sight
from hephaestus_jax.forge.environments.worlds.miniwob.world import MiniWoB

KIND = kind_named("miniwob")


@pytest.fixture(scope="module")
def player() -> Iterator[MiniWoB]:
    made = MiniWoB()
    yield made
    made.close()


def test_the_kind_complies() -> None:
    check_kind(KIND)
    assert len(KIND.games) >= 12 and KIND.terms.programs == ("chromium", "chromedriver")


@pytest.mark.parametrize(
    "game",
    ["click-tab-2", "enter-date", "choose-list", "login-user-popup", "search-engine", "guess-number", "odd-or-even"],
)
def test_the_player_wins_and_other_episodes_between_change_nothing(player: MiniWoB, game: str) -> None:
    steps = play_oracle(player, game, 5)
    task = player.reset(game, 5, "train")
    check_choices(player, task)
    play_oracle(player, game, 6)
    again, repeated = replay(player, game, 5, "train", [call for call, _ in steps])
    assert told(task, steps) == told(again, repeated)


def test_another_process_with_another_browser_says_the_same(player: MiniWoB) -> None:
    check_determinism("miniwob", "click-checkboxes", 3, environment=player, count=6)


def test_a_browser_that_died_is_replaced(player: MiniWoB) -> None:
    before = player.reset("enter-text", 9, "train")
    player._browser._driver.quit()
    assert player.reset("enter-text", 9, "train") == before


def test_looks_leave_the_page_as_it_is(player: MiniWoB) -> None:
    assert check_looks_and_undo(player, "form-sequence-2", 2)["looks"] >= 3


def test_what_cannot_be_done_is_an_error_in_words(player: MiniWoB) -> None:
    task = player.reset("choose-list", 2, "train")
    check_refusals(player, task, [
        Call("click", {"ref": 99}), Call("click", {"ref": 0}), Call("type_text", {"ref": 2, "text": "x"}),
        Call("type_text", {"ref": 1, "text": "x"}), Call("select_option", {"ref": 1, "option": "nobody"}),
        Call("select_option", {"ref": 2, "option": "x"}), Call("click", {}), Call("scroll"),
    ])  # fmt: skip
    player.reset("enter-date", 2, "train")
    refused = player.step(Call("type_text", {"ref": 1, "text": "01/31/2018"}))
    assert refused.error and "does not take" in refused.observation


def test_a_wrong_click_may_lose_and_then_nothing_goes_on(player: MiniWoB) -> None:
    player.reset("click-link", 7, "train")
    right = player.oracle()
    wrong = next(one for one in player._elements if one.kind == "link" and Call("click", {"ref": one.ref}) != right)
    lost = player.step(Call("click", {"ref": wrong.ref}))
    assert lost.done and not lost.success and lost.score == 0.0 and "wrong" in lost.observation
    assert player.oracle() is None and player.step(Call("click", {"ref": wrong.ref})).error


def test_a_wrong_text_is_mended(player: MiniWoB) -> None:
    player.reset("enter-text", 4, "train")
    first = player.oracle()
    assert first is not None
    player.step(Call("type_text", {**first.arguments, "text": "something else"}))
    assert player.oracle() == first
    player.step(first)
    last = player.oracle()
    assert last is not None and player.step(last).success


def test_players_guess_by_halves_from_what_was_told() -> None:
    page = (Element(1, "number field", "", value="4"), Element(2, "button", "Submit"))
    first = Sight("Guess the number between 0-9", page, (), "")
    assert PLAYERS["guess-number"](first) == Call("click", {"ref": 2})
    then = Sight("Guess the number between 0-9", page, (2,), 'text "The number is higher than 4."')
    assert PLAYERS["guess-number"](then) == Call("type_text", {"ref": 1, "text": "7"})


@pytest.mark.parametrize(
    ("text", "value"), [("x + 2 = 3", "1"), ("x - 2 = 3", "5"), ("7 - x = 3", "4"), ("-1 + x = 3", "4")]
)
def test_players_solve_equations(text: str, value: str) -> None:
    page = (Element(1, "text", text), Element(2, "text field", "", value=""), Element(3, "button", "Submit"))
    assert UNSEEN_PLAYERS["simple-algebra"](Sight("", page, (), "")) == Call("type_text", {"ref": 2, "text": value})


def test_elements_are_told_with_all_that_is_seen_of_them() -> None:
    assert Element(1, "checkbox", "a", checked=True).line() == '[1] checkbox "a", checked'
    assert Element(2, "text field", "", value="", focused=True).line() == "[2] text field, empty, has the focus"
    assert Element(3, "drop-down list", "", value="b", options=("a", "b")).line() == (
        '[3] drop-down list, options: a; b, chosen "b"'
    )


def test_closing_leaves_no_process_and_no_folder(player: MiniWoB) -> None:
    """The last test: the browser of all of them is closed here, and once more after it."""
    service, profile = player._browser._driver.service.process.pid, Path(player._browser._profile)
    family = _family(service)
    assert len(family) > 2 and profile.exists()
    player.close()
    assert not profile.exists() and not [pid for pid in family if _alive(pid)]


def _family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def _alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and was not yet waited for does not)."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
