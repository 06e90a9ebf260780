"""BabyAI: rooms on a grid, seen from within and told in words, after Chevalier-Boisvert et al. 2019 (1810.08272).

The levels and the bot that knows its way are those of the package `minigrid`. The agent turns, walks, picks things up,
puts them down, and opens doors; it sees a square of seven by seven cells ahead of it, and nothing behind walls.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Sequence
from typing import Any

from hephaestus_jax.forge.environments.environment import (
    Call,
    Environment,
    Feedback,
    Split,
    Task,
    Terms,
    Verb,
    environment,
)
from hephaestus_jax.forge.environments.worlds.babyai.expert import MOST_STEPS, Actions, Expert
from hephaestus_jax.forge.environments.worlds.babyai.words import (
    View,
    described,
    fingerprint,
    meant,
    named,
    progress,
    steps_of,
)
from hephaestus_jax.formats.records import digest

# Levels of the package, with how many calls an episode of each may take.
_GAMES = {
    "GoToObj": 30, "GoToRedBall": 30, "GoToLocal": 30, "GoToDoor": 30, "GoToObjDoor": 30, "GoToRedBlueBall": 40,
    "GoToSeqS5R2": 90, "GoToObjMazeS5": 90, "FindObjS5": 90, "OpenDoor": 30, "OpenDoorLoc": 30, "OpenTwoDoors": 40,
    "OpenDoorsOrderN4": 50, "ActionObjDoor": 30, "PickupLoc": 30, "PickupDist": 30, "GoToObjMazeS4R2": 60,
    "OneRoomS12": 30, "UnlockLocal": 40, "UnlockPickup": 60, "BlockedUnlockPickup": 80, "KeyCorridorS3R2": 80,
    "PutNextLocal": 60, "PutNextS5N2": 60, "MoveTwoAcrossS5N2": 60, "FindObjS6": 100,
}  # fmt: skip
_UNSEEN_GAMES = {
    "OpenRedBlueDoors": 40, "UnlockPickupDist": 60, "PutNextS6N3": 80, "KeyCorridorS3R3": 90, "MiniBossLevel": 100,
}  # fmt: skip
_LIMITS = {**_GAMES, **_UNSEEN_GAMES}

_NO_LIMIT = 1_000_000  # of actions: beyond the package's own limit its reward for success would fall below 0

_OBJECT = {"type": "string", "description": 'The object by its colour and kind, such as "red ball".'}
_DOOR = {"type": "string", "description": 'The object by its colour and kind, such as "red door".'}
_DIRECTION = {"type": "string", "enum": ["left", "right"], "description": "To which side."}
_STEPS = {"type": "integer", "minimum": 1, "maximum": MOST_STEPS, "description": "How many steps to go."}
VERBS = (
    Verb(
        "turn",
        ("Turns a quarter to the left or to the right, on the spot.", "Changes the direction you face by 90 degrees."),
        {"direction": _DIRECTION},
        ("rotate", "face"),
        ("I have to face another way, so I turn {direction}.",
         "What I need is not straight ahead: I turn {direction}.",
         "I turn {direction} and see what is on that side.",
         "I turn to the {direction}."),
    ),
    Verb(
        "move_forward",
        ("Walks straight ahead, until the steps are done or something is in the way.",
         "Goes forward in the direction you face, by so many steps."),
        {"steps": _STEPS},
        ("walk", "go_forward"),
        ("This is the direction I need, so I walk on.",
         "It is free ahead, and that is where I want to go.",
         "I go straight ahead and see what comes into view.",
         "I want to get nearer, so I move on."),
    ),
    Verb(
        "pick_up",
        ("Picks up the object right in front of you; you can carry one at a time.",
         "Takes what lies directly ahead, if your hands are empty."),
        {"object": _OBJECT},
        ("take", "grab"),
        ("The {object} is in front of me and my hands are empty: I take it.",
         "The {object} has to come with me or out of the way, so I pick it up.",
         "I want the {object} in my hands."),
    ),
    Verb(
        "put_down",
        ("Puts what you carry on the free floor right in front of you.", "Drops the carried object one step ahead."),
        {"object": _OBJECT},
        ("drop", "lay_down"),
        ("The {object} can lie here.",
         "I need not carry the {object} any further.",
         "This is a good place to put the {object} down."),
    ),
    Verb(
        "open",
        ("Opens the door right in front of you; a locked one needs the key of its colour in your hands. "
         "A box can be opened too, and falls apart.",
         "Opens what is directly ahead: a door, with its key if it is locked, or a box."),
        {"object": _DOOR},
        ("unlock", "open_object"),
        ("The {object} has to be open, so I open it.",
         "I want the {object} open.",
         "With the {object} open I get on."),
    ),
    Verb(
        "close",
        ("Closes the open door right in front of you.", "Shuts the door directly ahead."),
        {"object": _DOOR},
        ("shut", "close_object"),
        ("I want the {object} closed again.", "The {object} should not stay open.", "I close the {object}."),
    ),
    Verb(
        "look",
        ("Tells what you see from where you stand; changes nothing.", "Describes the view and what you carry."),
        {},
        ("observe", "look_around"),
        ("I look at what is in view.", "What do I see from here?", "I want to see the view once more."),
    ),
)  # fmt: skip

_SYSTEMS = (
    "You control an agent in rooms on a grid. You see only what is ahead of you, up to six steps forward and three to "
    "either side, and nothing behind walls or closed doors.",
    "You are an agent that walks through rooms by calling tools. After every call you are told what is in view: six "
    "steps ahead, three to each side; what lies behind you or behind walls stays hidden.",
    "Use the tools to move an agent through rooms laid out in squares. Places are told from where the agent stands, in "
    "steps ahead and to the sides.",
)
_GOALS = ("Please {mission}.", "I want you to {mission}.", "Your task: {mission}.", "Would you {mission}, please?")
_NOTES = (
    ("go to", "To go to something means to stand right in front of it and face it."),
    ("next to", "Next to means on one of the four squares that touch it, not diagonally."),
)
_PLACES = ("on your left", "on your right", "in front of you", "behind you")
_PLACE_NOTE = "Places are meant as you stand now, at the beginning."


@environment(
    "babyai",
    Terms("minigrid", "3.2.0", "MIT", needs=("minigrid",)),
    games=tuple(_GAMES),
    unseen_games=tuple(_UNSEEN_GAMES),
)
class BabyAI(Environment):
    """Rooms on a grid with doors, keys, balls and boxes, seen from within."""

    def __init__(self) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module("minigrid")  # it tells of its levels to gymnasium
        self._level: Any = None
        self._expert: Expert | None = None

    def reset(self, game: str, seed: int, split: Split) -> Task:
        """See `Environment.reset`. A level that is solved before anything was done is made anew."""
        self._of = (game, seed)
        self._level = _begun(game, seed)
        self._expert = None
        self._calls: list[Actions] = []
        self._won = False
        choice = int(digest([game, seed])[:8], 16)
        mission = " ".join(self._level.mission.split())
        goal = _GOALS[choice % len(_GOALS)].format(mission=mission)
        notes = [note for words, note in _NOTES if words in mission]
        if any(place in mission for place in _PLACES):
            notes.append(_PLACE_NOTE)
        system = _SYSTEMS[choice // len(_GOALS) % len(_SYSTEMS)]
        return Task(" ".join([goal, *notes]), self._view.text(), VERBS, system, _LIMITS[game])

    @property
    def _view(self) -> View:
        return View(self._level)

    def step(self, call: Call) -> Feedback:
        """See `Environment.step`."""
        if call.tool == "look":
            return self._feedback(self._view.text(), False)
        if self._won:
            return self._feedback("The task is done; there is nothing left to do.", True)
        made = self._turn_or_walk(call) if call.tool in ("turn", "move_forward") else self._handle(call)
        if isinstance(made, str):
            return self._feedback(made, True)
        actions, told = made
        count = self._act(actions)
        if count < len(actions):  # the goal was reached on the way, before an open door
            told = f"You move {steps_of(count)} forward."
        return self._feedback(f"{told}\n{self._view.text()}", False)

    def _feedback(self, told: str, error: bool) -> Feedback:
        done, count = progress(self._level.instrs)
        return Feedback(told, error, 1.0 if self._won else round(done / count, 2), self._won, self._won)

    def _act(self, actions: Actions) -> int:
        """Takes the actions of a call until the goal is reached; how many."""
        self._calls.append(actions)
        for count, action in enumerate(actions, 1):
            reward, ended = self._level.step(action)[1:3]
            self._won = bool(ended and reward > 0)
            if self._won:
                return count
        return len(actions)

    def _turn_or_walk(self, call: Call) -> tuple[Actions, str] | str:
        """What is done and told; a refusal is told only."""
        actions, view = self._level.actions, self._view
        if call.tool == "turn":
            direction = call.arguments["direction"]
            return (int(actions.left if direction == "left" else actions.right),), f"You turn {direction}."
        if not _is_free(view.front):
            return f"You cannot move forward: {described(view.front)} is right in front of you."
        level, wanted, steps = self._level, int(call.arguments["steps"]), 1
        while steps < wanted and _is_free(stopped := level.grid.get(*(level.agent_pos + (steps + 1) * level.dir_vec))):
            steps += 1
        told = f"You move {steps_of(steps)} forward"
        if steps < wanted:
            told += f"; {described(stopped)} stops you"
        return (int(actions.forward),) * steps, f"{told}."

    def _handle(self, call: Call) -> tuple[Actions, str] | str:
        """The same for what is done with things."""
        level, front = self._level, self._level.grid.get(*self._level.front_pos)
        wanted = meant(str(call.arguments["object"]))
        if call.tool == "put_down":
            return self._put_down(wanted, front)
        if front is None or named(front) != wanted:
            there = described(front) if front is not None else "nothing"
            return f"There is no {wanted} right in front of you; in front of you there is {there}."
        if call.tool == "pick_up":
            if not front.can_pickup():
                return f"The {wanted} cannot be picked up."
            if level.carrying is not None:
                return f"You cannot pick up the {wanted}: you carry {described(level.carrying)}."
            return (int(level.actions.pickup),), f"You pick up the {wanted}."
        return self._open_or_close(call.tool, wanted, front)

    def _put_down(self, wanted: str, front: Any) -> tuple[Actions, str] | str:
        carried = self._level.carrying
        if carried is None or named(carried) != wanted:
            return f"You do not carry a {wanted}; you carry {described(carried) if carried else 'nothing'}."
        if front is not None:
            return f"You cannot put the {wanted} down: {described(front)} is right in front of you."
        return (int(self._level.actions.drop),), f"You put down the {wanted}."

    def _open_or_close(self, tool: str, wanted: str, front: Any) -> tuple[Actions, str] | str:
        toggle = (int(self._level.actions.toggle),)
        if front.type == "box" and tool == "open":
            inside = described(front.contains) if front.contains is not None else "nothing"
            return toggle, f"You open the {wanted} and it falls apart. In it there was {inside}."
        if front.type != "door":
            return f"The {wanted} cannot be {'opened' if tool == 'open' else 'closed'}."
        if front.is_open == (tool == "open"):
            return f"The {wanted} is {'open' if front.is_open else 'closed'} already."
        if not front.is_locked:
            return toggle, f"You {tool} the {wanted}."
        key = f"{front.color} key"
        if self._level.carrying is None or named(self._level.carrying) != key:
            return f"The {wanted} is locked, and you do not carry the {key}."
        return toggle, f"You unlock and open the {wanted} with the {key}."

    def choices(self) -> Sequence[Call]:
        """Turns, the whole way that is seen to be free ahead, and what can be done with things in sight."""
        view, carried = self._view, self._level.carrying
        calls = [Call("turn", {"direction": direction}) for direction in ("left", "right")]
        calls.append(Call("move_forward", {"steps": max(1, view.ahead)}))
        for name, kind, is_open in sorted(
            {(named(t), t.type, t.type == "door" and t.is_open) for t, *_ in view.things()}
        ):
            if kind != "door":
                calls.append(Call("pick_up", {"object": name}))
            if kind in ("door", "box"):
                calls.append(Call("close" if is_open else "open", {"object": name}))
        if carried is not None:
            calls.append(Call("put_down", {"object": named(carried)}))
        return [*calls, *self.looks()]

    def looks(self) -> Sequence[Call]:
        """See `Environment.looks`."""
        return [Call("look")]

    def undo(self, call: Call) -> Call | None:
        """See `Environment.undo`; steps forward take several calls to take back.

        Nor is what lay down and was picked up again as before: the package remembers where it lay.
        """
        level = self._level
        front = level.grid.get(*level.front_pos)
        match call.tool:
            case "turn":
                return Call("turn", {"direction": "right" if call.arguments["direction"] == "left" else "left"})
            case "pick_up":
                return Call("put_down", call.arguments)
            case "open" | "close" if front is not None and front.type == "door" and not front.is_locked:
                return Call("close" if call.tool == "open" else "open", call.arguments)
        return None

    def oracle(self) -> Call | None:
        """See `Environment.oracle`: what the package's bot does."""
        if self._expert is None:
            game, seed = self._of
            self._expert = Expert(lambda: _begun(game, seed))
        return None if self._won else self._expert.next(self._calls)

    def state(self) -> str:
        """See `Environment.state`."""
        return digest([*self._of, fingerprint(self._level), self._won])


def _is_free(cell: Any) -> bool:
    """Whether one can walk over a cell."""
    return cell is None or cell.can_overlap()


def _begun(game: str, seed: int) -> Any:
    """A level at its beginning. One that is solved by standing where it begins is left for the next that is not."""
    import gymnasium

    level: Any = gymnasium.make(f"BabyAI-{game}-v0", disable_env_checker=True).unwrapped
    while True:
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints what it rejected
            level.reset(seed=seed)
        solved = level.instrs.verify(level.actions.done) == "success"
        level.instrs.reset_verifier(level)
        if not solved:
            level.max_steps = _NO_LIMIT
            return level
        seed += 1 << 31
