"""`textworld`: games of TextWorld on its logic, told in this project's words, and an expert that explores."""

from __future__ import annotations

import random

import pytest
from environment_checks import (
    check_determinism,
    check_kind,
    check_looks_and_undo,
    check_refusals,
    kind_named,
    play_oracle,
    replay,
)

pytest.importorskip("textworld")

from hephaestus_jax.forge.environments.environment import FIRST_UNSEEN_SEED, Call
from hephaestus_jax.forge.environments.thoughts import Seen, unseen_names
from hephaestus_jax.forge.environments.worlds.textworld.games import make_game
from hephaestus_jax.forge.environments.worlds.textworld.world import TextWorld

KIND = kind_named("textworld")
ALL_GAMES = (*KIND.games, *KIND.unseen_games)
NAMED = ("object", "target", "key", "food", "appliance", "tool", "name")  # arguments that name things


@pytest.fixture(scope="module")
def environment() -> TextWorld:
    return TextWorld()


def play_until(environment: TextWorld, tool: str) -> None:
    while (call := environment.oracle()).tool != tool:
        environment.step(call)


@pytest.mark.parametrize("game", ALL_GAMES)
def test_the_expert_wins_with_names_that_it_has_read(environment: TextWorld, game: str) -> None:
    for seed in (0, 1, FIRST_UNSEEN_SEED + 2):
        split = "train" if seed < FIRST_UNSEEN_SEED else "unseen_seeds"
        steps = play_oracle(environment, game, seed, split)
        task = environment.reset(game, seed, split)
        assert 2 * len(steps) <= task.max_steps
        seen = Seen(frozenset(filter(None, environment.session.scene.names.values())))
        seen.add(task.observation)
        seen.add(task.goal)
        if game in ("cooking", "feast"):
            seen.add("meal")  # the goal names it
        for call, feedback in steps:
            unknown = [call.arguments[key] for key in NAMED if key in call.arguments]
            unknown = [name for name in unknown if not seen.knows(name)]
            assert not unknown, f"{call.key}: {unknown} was not seen before"
            why = " ".join(environment.reasons(call))
            assert not unseen_names(why.replace(" a stove", "").replace(" an oven", ""), seen), why
            environment.step(call)
            seen.add(feedback.observation)
        again = replay(TextWorld(), game, seed, split, [call for call, _ in steps])[1]
        assert [told for _, told in again] == [told for _, told in steps]


def test_kind() -> None:
    check_kind(KIND)
    assert not set(KIND.games) & set(KIND.unseen_games)


def test_folds_of_ingredients() -> None:
    """Unseen seeds have ingredients that training never has."""
    names: dict[str, set[str]] = {"train": set(), "unseen_seeds": set()}
    for split, found in names.items():
        for seed in range(12):
            game = make_game("feast", random.Random(seed), split)
            found |= {game.names[thing] for thing, kind in game.types.items() if kind == "f"}
    assert len(names["unseen_seeds"] - names["train"]) >= 3
    assert not names["train"] & {"tomato", "egg", "white tuna", "yellow onion", "yellow apple", "green hot pepper"}


def test_an_episode_is_the_same_everywhere(environment: TextWorld) -> None:
    check_determinism("textworld", "locks", 5, environment=environment)


@pytest.mark.parametrize("game", ["treasure_hunt", "cooking"])
def test_looks_and_undo_leave_the_state_as_it_was(environment: TextWorld, game: str) -> None:
    assert check_looks_and_undo(environment, game, 3, depth=6)["looks"] > 10


def test_going_back_takes_back_a_step_into_a_new_room(environment: TextWorld) -> None:
    environment.reset("coin_collector", 1, "train")
    call = environment.oracle()
    assert call.tool == "go" and environment.undo(call).tool == "go"
    before = environment.state()
    environment.step(call)
    back = environment.undo(call)
    environment.step(back)
    assert environment.state() == before and environment.undo(back) is None


def test_what_cannot_be_done_is_refused_in_words(environment: TextWorld) -> None:
    task = environment.reset("locks", 1, "train")
    scene = environment.session.scene
    wall = next(to for to in ("north", "east", "south", "west") if to not in scene.exits[scene.room])
    check_refusals(environment, task, [
        Call("go", {"direction": wall}),
        Call("go", {"direction": "up"}),
        Call("take", {"object": "unicorn"}),
        Call("drop", {"object": "unicorn"}),
        Call("open", {}),
        Call("cook", {"food": "unicorn", "appliance": "stove"}),
    ])  # fmt: skip
    play_until(environment, "unlock")
    unlock = environment.oracle()
    lock, key = unlock.arguments["object"], unlock.arguments["key"]
    check_refusals(environment, task, [
        Call("open", {"object": lock}),
        Call("close", {"object": lock}),
        Call("take", {"object": key}),
        Call("open", {"object": key}),
        Call("lock", {"object": lock, "key": key}),
        Call("eat", {"object": key}),
        Call("put", {"object": key, "target": key}),
    ])  # fmt: skip
    assert environment.step(Call("open", {"object": lock})).observation == f"The {lock} is locked."
    assert not environment.step(unlock).error
    check_refusals(environment, task, [unlock])


def test_hidden_things_are_neither_told_nor_offered(environment: TextWorld) -> None:
    """What lies in a closed container or in another room can be neither read of nor taken."""
    for seed in range(6):
        task = environment.reset("treasure_hunt", seed, "train")
        scene = environment.session.scene
        hidden = {scene.names[t] for t in scene.holder if t not in scene.visible() and scene.names[t]}
        offered = {str(value) for call in environment.choices() for value in call.arguments.values()}
        assert hidden and not hidden & offered
        check_refusals(environment, task, [Call("take", {"object": name}) for name in sorted(hidden)])


def test_wrongly_treated_food_loses(environment: TextWorld) -> None:
    environment.reset("feast", 0, "train")
    play_until(environment, "cut")
    call = environment.oracle()
    wrong = next(way for way in ("chop", "dice", "slice") if way != call.arguments["way"])
    told = environment.step(Call("cut", {**call.arguments, "way": wrong}))
    assert told.done and not told.success and not told.error and "lost" in told.observation
    assert environment.oracle() is None


def test_a_meal_needs_all_that_the_recipe_says(environment: TextWorld) -> None:
    task = environment.reset("feast", 2, "train")
    play_until(environment, "take")
    check_refusals(environment, task, [Call("prepare_meal"), Call("eat", {"object": "meal"})])
    play_until(environment, "cut")
    check_refusals(environment, task, [Call("prepare_meal")])


def test_the_decoy_loses(environment: TextWorld) -> None:
    lost = 0
    for seed in range(40):
        environment.reset("treasure_hunt", seed, "train")
        decoy = next(iter(next(iter(environment.session.game.quests[0].fails)))).names[0]
        name = environment.session.scene.names[decoy]
        while environment.oracle() and decoy not in environment.session.scene.visible():
            environment.step(environment.oracle())
        if environment.oracle():
            told = environment.step(Call("take", {"object": name}))
            lost += told.done and not told.success and "lost" in told.observation
        if lost == 2:
            return
    raise AssertionError("the decoy was never seen")
