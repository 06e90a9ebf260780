"""BabyAI in words: the bot wins, what is seen is told, refusals are errors, and everything follows from the seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("minigrid")

from environment_checks import (
    ROOT,
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
from hephaestus_jax.forge.environments.worlds.babyai.words import meant
from hephaestus_jax.forge.environments.worlds.babyai.world import BabyAI

KIND = kind_named("babyai")


@pytest.fixture(scope="module")
def player() -> BabyAI:
    return BabyAI()


def test_the_kind_complies() -> None:
    check_kind(KIND)
    assert len(KIND.games) >= 15 and len(KIND.unseen_games) >= 3


@pytest.mark.parametrize("game", [*KIND.games, *KIND.unseen_games])
def test_the_expert_wins_and_a_fresh_instance_says_the_same(player: BabyAI, game: str) -> None:
    split = "unseen_games" if game in KIND.unseen_games else "train"
    seed = FIRST_UNSEEN_SEED + 5 if game in KIND.unseen_games else 5
    steps = play_oracle(player, game, seed, split)
    task = player.reset(game, seed, split)
    again, repeated = replay(BabyAI(), game, seed, split, [call for call, _ in steps])
    assert told(task, steps) == told(again, repeated)


def test_two_processes_and_other_episodes_before_make_no_difference() -> None:
    check_determinism("babyai", "MiniBossLevel", 3)


@pytest.mark.parametrize("game", ["UnlockPickup", "PutNextS5N2", "KeyCorridorS3R2", "GoToSeqS5R2"])
def test_looks_and_what_takes_back(player: BabyAI, game: str) -> None:
    tried = check_looks_and_undo(player, game, 2, depth=12)
    assert tried["looks"] and tried["undone turn"]


def test_picking_up_and_opening_are_taken_back(player: BabyAI) -> None:
    tried = check_looks_and_undo(player, "KeyCorridorS3R2", 0, depth=16)
    assert tried["undone pick_up"] and tried["undone open"] and tried["undone close"]


def test_a_description_of_things_that_lie_nowhere(player: BabyAI) -> None:
    """What a description means may be among things that are in no place; two such once ended a roll-out."""
    task = player.reset("PickupDist", 579238599, "train")
    nowhere = 0
    for _ in range(task.max_steps):
        choices = [call for call in player.choices() if call.tool == "pick_up"] or [player.oracle()]
        done = player.step(choices[0]).done
        assert player.state()
        nowhere = max(nowhere, sum(thing.cur_pos is None for thing in player._level.instrs.desc.obj_set))
        if done:
            break
    assert nowhere >= 2


def test_what_cannot_be_done_is_an_error_in_words(player: BabyAI) -> None:
    task = player.reset("UnlockPickup", 0, "train")
    check_refusals(player, task, [
        Call("pick_up", {"object": "purple box"}), Call("pick_up", {"object": "unicorn"}),
        Call("put_down", {"object": "green key"}), Call("open", {"object": "green door"}),
        Call("close", {"object": "wall"}), Call("turn", {"direction": "up"}), Call("move_forward", {"steps": 0}),
        Call("fly"), Call("move_forward", {}),
    ])  # fmt: skip


def test_a_locked_door_needs_its_key(player: BabyAI) -> None:
    steps = play_oracle(player, "UnlockLocal", 1)
    player.reset("UnlockLocal", 1, "train")
    key = next(call.arguments["object"] for call, _ in steps if call.tool == "pick_up")
    for call, _ in steps[:-1]:
        player.step(call)
    door = steps[-1][0].arguments["object"]
    player._level.carrying = None
    refused = player.step(Call("open", {"object": door}))
    assert refused.error and refused.observation == f"The {door} is locked, and you do not carry the {key}."
    wall = player.step(Call("move_forward", {"steps": 1}))
    assert wall.error and wall.observation == f"You cannot move forward: a locked {door} is right in front of you."


def test_a_box_that_was_opened_is_gone_and_the_bot_may_give_up(player: BabyAI) -> None:
    """A mistake that cannot be mended is no way for the planner, and never an exception."""
    task = player.reset("UnlockPickup", 0, "train")
    steps = play_oracle(player, "UnlockPickup", 0)
    player.reset("UnlockPickup", 0, "train")
    for call, _ in steps[:-1]:
        player.step(call)
    box = steps[-1][0].arguments["object"]
    opened = player.step(Call("open", {"object": f"the {box}"}))
    assert not opened.error and f"You open the {box} and it falls apart" in opened.observation
    assert player.step(Call("pick_up", {"object": box})).error
    assert player.oracle() is None and task.max_steps > len(steps)


def test_the_expert_recovers_from_wrong_steps(player: BabyAI) -> None:
    """Three wrong steps in an episode, of a kind that can be mended."""
    won = 0
    for seed in range(6):
        task = player.reset("PutNextLocal", seed, "train")
        for number in range(task.max_steps):
            wrong = [call for call in player.choices() if call.tool in ("turn", "move_forward", "pick_up")]
            call = wrong[(31 * number + seed) % len(wrong)] if number in (1, 4, 7) else player.oracle()
            if call is None:
                break
            if player.step(call).success:
                won += 1
                break
    assert won >= 5


def test_a_walk_tells_how_far_it_went(player: BabyAI) -> None:
    player.reset("GoToObj", 3, "train")
    free = player._view.ahead
    for _ in range(4):
        if free:
            break
        player.step(Call("turn", {"direction": "left"}))
        free = player._view.ahead
    made = player.step(Call("move_forward", {"steps": 10}))
    assert f"You move {free} step" in made.observation and "stops you" in made.observation


def test_a_walk_that_wins_before_an_open_door_ends_there(player: BabyAI) -> None:
    for seed in range(40):
        steps = play_oracle(player, "GoToDoor", seed)
        last = steps[-1][0]
        if last.tool != "move_forward":
            continue
        player.reset("GoToDoor", seed, "train")
        for call, _ in steps[:-1]:
            player.step(call)
        free, level = last.arguments["steps"], player._level
        door = level.grid.get(*(level.agent_pos + (free + 1) * level.dir_vec))
        door.is_open, door.is_locked = True, False
        made = player.step(Call("move_forward", {"steps": 10}))
        assert made.success and made.observation.startswith(f"You move {free} step")
        assert "stops you" not in made.observation.split("\n")[0]
        return
    pytest.fail("no walk ends before the door")


def test_the_choices_name_only_what_is_in_sight(player: BabyAI) -> None:
    for seed in range(5):
        player.reset("MiniBossLevel", seed, "train")
        shown = player._view.text()
        for call in player.choices():
            assert str(call.arguments.get("object", "")) in shown


def test_names_are_read_as_people_write_them() -> None:
    assert meant("The  Red Ball") == "red ball" and meant("a") == "" and meant("grey door") == "grey door"


_ELSEWHERE = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from environment_checks import kind_named, play_oracle, told
kind = kind_named("babyai")
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
