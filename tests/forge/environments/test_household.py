"""`household`: its expert searches with what it has seen only, and what cannot be done is told."""

from __future__ import annotations

import itertools

import pytest
from environment_checks import (
    begin,
    check_determinism,
    check_kind,
    check_looks_and_undo,
    check_refusals,
    check_task,
    kind_named,
    play_oracle,
    replay,
)

from hephaestus_jax.forge.environments.environment import FIRST_UNSEEN_SEED, Call
from hephaestus_jax.forge.environments.thoughts import Seen, unseen_names
from hephaestus_jax.forge.environments.worlds.household.rooms import likely_places
from hephaestus_jax.forge.environments.worlds.household.world import Household

KIND = kind_named("household")
ALL_GAMES = (*KIND.games, *KIND.unseen_games)


@pytest.fixture
def environment() -> Household:
    return Household()


def play(environment: Household, *calls: tuple[str, dict]) -> list:
    return [environment.step(Call(tool, arguments)) for tool, arguments in calls]


def test_games_hold_out_a_kind_of_task_and_a_kind_of_room() -> None:
    check_kind(KIND)
    tasks, rooms = zip(*(game.split("_", 1) for game in KIND.games), strict=True)
    assert "cool" not in tasks and "studio" not in rooms
    assert all(game.startswith("cool_") or game.endswith("_studio") for game in KIND.unseen_games)


@pytest.mark.parametrize("game", ALL_GAMES)
def test_the_expert_wins_with_names_that_it_has_read(environment: Household, game: str) -> None:
    for seed in (*range(3), FIRST_UNSEEN_SEED + 1):
        steps = play_oracle(environment, game, seed)
        task = environment.reset(game, seed, "train")
        assert 2 * len(steps) <= 2 * task.max_steps
        seen = Seen(frozenset([*environment.room.places, *environment.room.things]))
        seen.add(task.observation)
        for call, feedback in steps:
            unknown = [value for value in call.arguments.values() if not seen.knows(value)]
            assert not unknown, f"{call.key}: {unknown} was not seen before"
            why = " ".join(environment.reasons(call))
            assert why and not unseen_names(why, seen), why
            environment.step(call)
            seen.add(feedback.observation)
        again = replay(Household(), game, seed, "train", [call for call, _ in steps])[1]
        assert [told for _, told in again] == [told for _, told in steps]


def test_scores_rise_with_the_subgoals(environment: Household) -> None:
    scores = {game: [f.score for _, f in play_oracle(environment, game, 2)] for game in KIND.games}
    assert set(scores["heat_kitchen"]) >= {0.333, 0.667, 1.0}
    assert set(scores["two_bedroom"]) >= {0.25, 0.5, 0.75, 1.0}
    assert all(later >= earlier for s in scores.values() for earlier, later in itertools.pairwise(s))


def test_an_episode_is_the_same_everywhere() -> None:
    check_determinism("household", "look_living_room", 5)
    check_determinism("household", "cool_studio", FIRST_UNSEEN_SEED + 3, "unseen_games")


@pytest.mark.parametrize("game", ["two_kitchen", "look_bedroom", "clean_studio"])
def test_looks_and_undo_leave_the_state_as_it_was(environment: Household, game: str) -> None:
    tried = check_looks_and_undo(environment, game, 3, depth=8)
    assert tried["looks"] > 10 and tried["undone go_to"] > 2


def test_what_cannot_be_done_is_refused_in_words(environment: Household) -> None:
    task = environment.reset("heat_kitchen", 1, "train")
    check_task(task)
    check_refusals(environment, task, [
        Call("open", {"place": "fridge 1"}),
        Call("take", {"object": "mug 1", "place": "countertop 1"}),
        Call("go_to", {"place": "cupboard 1"}),
        Call("go_to", {"place": "fridge"}),
        Call("go_to", {"somewhere": "fridge 1"}),
        Call("close", {}),
        Call("put", {"object": "mug 1", "place": "sink 1"}),
        Call("heat", {"object": "mug 1", "place": "microwave 1"}),
        Call("switch_on", {"object": "desk lamp 1"}),
        Call("examine", {"name": "sink 1"}),
        Call("fly", {}),
    ])  # fmt: skip
    play(environment, ("go_to", {"place": "fridge 1"}))
    check_refusals(environment, task, [
        Call("go_to", {"place": "fridge 1"}),
        Call("close", {"place": "fridge 1"}),
        Call("take", {"object": "egg 1", "place": "fridge 1"}),
    ])  # fmt: skip
    told = environment.step(Call("take", {"object": "egg 1", "place": "fridge 1"})).observation
    assert told == "The fridge 1 is closed."


def test_one_thing_at_a_time_and_the_right_appliance(environment: Household) -> None:
    task, _ = begin(environment, "two_kitchen", 4, "train")
    while not environment.player.carried:
        environment.step(environment.oracle())
    held = environment.player.carried
    here = environment.player.at
    other = next((name for name in environment.room.places[here].things), "spoon 9")
    check_refusals(environment, task, [Call("take", {"object": other, "place": here})])
    assert held in environment.step(Call("take", {"object": other, "place": here})).observation
    play(environment, ("go_to", {"place": "sink 1"}))
    check_refusals(environment, task, [
        Call("heat", {"object": held, "place": "sink 1"}),
        Call("put", {"object": held, "place": here if here != "sink 1" else "stove 1"}),
        Call("put", {"object": "spoon 9", "place": "sink 1"}),
        Call("open", {"place": "sink 1"}),
    ])  # fmt: skip
    assert not environment.step(Call("clean", {"object": held, "place": "sink 1"})).error
    assert environment.step(Call("clean", {"object": held, "place": "sink 1"})).error
    assert "clean" in environment.step(Call("examine", {"name": held})).observation


def test_heating_undoes_cooling(environment: Household) -> None:
    environment.reset("heat_kitchen", 7, "train")
    while not environment.player.carried:
        environment.step(environment.oracle())
    held = environment.player.carried
    play(environment, ("go_to", {"place": "fridge 1"}), ("cool", {"object": held, "place": "fridge 1"}))
    assert environment.room.things[held].states == {"cold"}
    play(environment, ("go_to", {"place": "microwave 1"}), ("heat", {"object": held, "place": "microwave 1"}))
    assert environment.room.things[held].states == {"hot"}


def test_the_expert_puts_away_what_is_not_wanted(environment: Household) -> None:
    """From a wrong thing in the hand it recovers, and wins."""
    recovered = 0
    for seed in range(12):
        environment.reset("put_kitchen", seed, "train")
        for _ in range(8):
            others = [c for c in environment.choices() if c.tool == "take" and environment.goal.thing not in c.key]
            if others:
                assert not environment.step(others[0]).error
                assert environment.oracle().tool == "put"
                recovered += 1
                break
            environment.step(environment.oracle())
        feedback = None
        for _ in range(45):
            feedback = environment.step(environment.oracle())
            if feedback.done:
                break
        assert feedback is not None and feedback.success
    assert recovered >= 6


def test_reasons_are_of_the_expert_s_calls_only(environment: Household) -> None:
    environment.reset("put_kitchen", 0, "train")
    others = [call for call in environment.choices() if call.key != environment.oracle().key]
    assert others and not any(environment.reasons(call) for call in others)


def test_sensible_places_are_no_wrong_choices(environment: Household) -> None:
    environment.reset("put_kitchen", 0, "train")
    likely = likely_places(environment.room, environment.goal.thing)
    gone = {call.arguments["place"] for call in environment.choices() if call.tool == "go_to"}
    assert likely and not likely & gone and gone
