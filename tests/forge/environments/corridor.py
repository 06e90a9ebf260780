"""A small environment for tests of what is common to all: rooms in a row, with a key and a locked chest.

The key lies in one room and the chest stands in another; both are seen only from within their rooms. `corridor` knows
what to do from any state, `corridor_by_heart` only one path from the beginning.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from hephaestus_jax.forge.environments.environment import (
    ENVIRONMENTS,
    Call,
    Environment,
    Feedback,
    Split,
    Task,
    Terms,
    Verb,
    environment,
)

_DIRECTION = {"type": "string", "enum": ["left", "right"]}
_THING = {"type": "string"}
VERBS = (
    Verb("go", ("Goes to the next room.", "Walks one room further."), {"direction": _DIRECTION}, ("walk",),
         ("I have to find it, so I go {direction}.", "To the {direction} I may find more.", "On we go.")),
    Verb("take", ("Picks a thing up.", "Takes what lies in the room."), {"thing": _THING}, ("pick_up",),
         ("The {thing} will be needed.", "I take the {thing}.", "This is what I was looking for.")),
    Verb("drop", ("Puts a thing down.", "Lays down what is carried."), {"thing": _THING}, ("put_down",),
         ("I do not need the {thing}.", "Away with it.", "The {thing} can stay here.")),
    Verb("open", ("Opens a thing with what is carried.", "Unlocks and opens."), {"thing": _THING}, ("unlock",),
         ("With the key the {thing} opens.", "Now it can be opened.", "The {thing} is what the task is about.")),
    Verb("look", ("Tells what there is in the room.", "Describes the room."), {}, ("describe_room",),
         ("What is there in here?", "I look around.", "Let me see.")),
)  # fmt: skip


class Corridor(Environment):
    """Rooms in a row."""

    def reset(self, game: str, seed: int, split: Split) -> Task:
        rng = random.Random(f"{game} {seed}")
        self.rooms = {"short": 3, "long": 9, "unseen": 4}[game]
        self.name = f"{rng.choice(('red', 'blue', 'iron', 'brass', 'small', 'heavy', 'rusty', 'bent'))} key"
        self.at, self.key, self.chest = (rng.randrange(self.rooms) for _ in range(3))
        self.carried = self.opened = False
        system = rng.choice(("You are in a house.", "You control a person in a house."))
        return Task("Please open the chest.", self._room(), VERBS, system, 40)

    def _room(self) -> str:
        things = [name for name, at in ((self.name, self.key), ("chest", self.chest)) if at == self.at]
        seen = f" You see a {' and a '.join(things)}." if things else ""
        return f"You are in room {self.at + 1}.{seen}"

    def step(self, call: Call) -> Feedback:
        told, error = self._do(call)
        return Feedback(told, error, 1.0 if self.opened else 0.5 * self.carried, self.opened, self.opened)

    def _do(self, call: Call) -> tuple[str, bool]:
        thing = call.arguments.get("thing")
        match call.tool:
            case "look":
                return self._room(), False
            case "go":
                to = self.at + (1 if call.arguments["direction"] == "right" else -1)
                if not 0 <= to < self.rooms:
                    return "There is a wall.", True
                self.at = to
                return self._room(), False
            case "take" if thing == self.name and self.key == self.at and not self.carried:
                self.carried, self.key = True, -1
                return f"You take the {self.name}.", False
            case "drop" if thing == self.name and self.carried:
                self.carried, self.key = False, self.at
                return f"You put the {self.name} down.", False
            case "open" if thing == "chest" and self.chest == self.at:
                self.opened = self.carried
                return ("You open the chest.", False) if self.carried else ("It is locked.", True)
        return f"You cannot {call.tool} {thing} here.", True

    def choices(self) -> Sequence[Call]:
        calls = [Call("go", {"direction": direction}) for direction in ("left", "right")]
        calls += [Call(tool, {"thing": thing}) for tool in ("drop", "open", "take") for thing in ("chest", self.name)]
        return [*calls, *self.looks()]

    def looks(self) -> Sequence[Call]:
        return [Call("look")]

    def undo(self, call: Call) -> Call | None:
        back = {"left": "right", "right": "left"}
        return Call("go", {"direction": back[call.arguments["direction"]]}) if call.tool == "go" else None

    def state(self) -> str:
        return f"{self.at} {self.key} {self.chest} {self.carried} {self.opened}"

    def oracle(self) -> Call | None:
        if not self.carried and self.at == self.key:
            return Call("take", {"thing": self.name})
        goal = self.chest if self.carried else self.key
        if goal == self.at:
            return Call("open", {"thing": "chest"})
        return Call("go", {"direction": "right" if goal > self.at else "left"})


class CorridorByHeart(Corridor):
    """Rooms in a row, whose expert knows one path."""

    def gold_path(self) -> Sequence[Call]:
        return self._path

    def oracle(self) -> Call | None:
        return None

    def reset(self, game: str, seed: int, split: Split) -> Task:
        super().reset(game, seed, split)
        path: list[Call] = []
        while not self.opened and (call := Corridor.oracle(self)) is not None:
            path.append(call)
            self.step(call)
        self._path = path
        return super().reset(game, seed, split)


if "corridor" not in ENVIRONMENTS:
    environment("corridor", Terms("", "1", "Apache-2.0"), ("short", "long"), ("unseen",))(Corridor)
    environment("corridor_by_heart", Terms("", "1", "Apache-2.0"), ("short", "long"), ("unseen",))(CorridorByHeart)
