"""`textworld`: generated text adventures (Côté et al. 2018) in rooms that have to be explored.

Worlds, names, cooking recipes and the rules by which everything happens are TextWorld's; the games are played on its
logic, without its compiler and its interpreter, so a game is made in a fraction of a second. Nothing is written to
disk. TextWorld's cooking games have folds by ingredients and preparations: "train", and "test" for everything else.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

from hephaestus_jax.forge.environments.environment import (
    Call,
    Environment,
    Feedback,
    NoWorld,
    Split,
    Task,
    Terms,
    Verb,
    environment,
)
from hephaestus_jax.forge.environments.worlds.textworld.games import GAMES, UNSEEN_GAMES, Game, make_game
from hephaestus_jax.forge.environments.worlds.textworld.player import Player
from hephaestus_jax.forge.environments.worlds.textworld.scene import COOKED, CUT, DIRECTIONS, OPPOSITE
from hephaestus_jax.forge.environments.worlds.textworld.session import Refused, Session
from hephaestus_jax.formats.records import Json, digest

_TRIES = 50  # games drawn for a seed until one can be won in time
_SYSTEMS = (
    "You play a text adventure. You see the room in which you are; what lies in closed containers and in other rooms "
    "you have to find out.",
    "You walk through the rooms of a building and handle things by calling tools. Doors and containers may be "
    "closed or locked.",
    "This is a text adventure that is played with tools. Use the names of things exactly as they are told, without "
    "what stands in brackets.",
)


def _text(description: str) -> dict[str, Json]:
    return {"type": "string", "description": description}


_THING = _text("The name of a thing, as it was told.")
_CARRIED = _text("The name of a thing that you carry.")
_WHAT_OPENS = _text("The name of a door or a container.")
_DIRECTION = {"type": "string", "enum": list(DIRECTIONS), "description": "Where to go."}
_WAY = {"type": "string", "enum": sorted(CUT), "description": "How to cut it."}
VERBS = (
    Verb("go", ("Goes through a way out of the room into the next one.", "Walks one room further in a direction."),
         {"direction": _DIRECTION}, ("walk", "move"),
         ("I go {direction}.", "The way {direction} is the one to take now.", "Next I walk {direction}.",
          "What I need is not in this room, so I go {direction}.")),
    Verb("look", ("Describes the room: furniture, things, ways out.", "Looks around in the room."),
         {}, ("look_around", "describe_room"),
         ("I look around.", "What is there in this room?", "Let me see once more what is here.")),
    Verb("inventory", ("Tells what you carry.", "Lists the things in your possession."),
         {}, ("list_carried", "check_bag"),
         ("What do I carry?", "I check what I have with me.", "Let me see what I have got.")),
    Verb("examine", ("Looks closely at something in the room or at something that you carry; reads what is written.",
                     "Inspects or reads a thing within reach."),
         {"name": _THING}, ("inspect", "read"),
         ("I take a close look at the {name}.", "The {name} may tell me more.",
          "I want to know more about the {name}.")),
    Verb("take", ("Picks up a thing from the floor, from furniture or out of an open container.",
                  "Takes a thing that is in sight."),
         {"object": _THING}, ("pick_up", "get"),
         ("I take the {object}.", "The {object} is what I need.", "There is the {object}: I take it along.")),
    Verb("drop", ("Drops a thing that you carry on the floor of the room.", "Lays a thing down on the floor."),
         {"object": _CARRIED}, ("lay_down", "leave"),
         ("I drop the {object} here.", "The {object} can lie here.", "I leave the {object} in this room.")),
    Verb("put", ("Puts a thing that you carry on furniture or into an open container.",
                 "Places a carried thing in or on something."),
         {"object": _CARRIED, "target": _text("The name of the furniture or container.")}, ("place", "insert"),
         ("The {target} is the place for the {object}.", "I put the {object} where it has to go.",
          "Here is the {target}, and I put the {object} there.")),
    Verb("open", ("Opens a closed door or container.", "Opens what is shut but not locked."),
         {"object": _WHAT_OPENS}, ("open_up", "pull_open"),
         ("The {object} is closed, so I open it.", "I open the {object}.", "Behind the {object} there may be more.")),
    Verb("close", ("Closes an open door or container.", "Shuts what is open."),
         {"object": _WHAT_OPENS}, ("shut", "push_shut"),
         ("I close the {object}.", "The {object} need not be open.", "I shut the {object} again.")),
    Verb("unlock", ("Unlocks a door or a container with the key that fits; it is closed then, not yet open.",
                    "Turns a key in a lock, to open it."),
         {"object": _WHAT_OPENS, "key": _CARRIED}, ("unlock_with", "turn_key"),
         ("With the {key} I can unlock the {object}.", "The {object} is locked, and I have the {key}.",
          "I try the {key} on the {object}.")),
    Verb("lock", ("Locks a closed door or container with the key that fits.", "Turns a key in a lock, to shut it."),
         {"object": _WHAT_OPENS, "key": _CARRIED}, ("lock_with", "secure"),
         ("I lock the {object} with the {key}.", "The {object} should be locked.", "With the {key} I lock it.")),
    Verb("eat", ("Eats or drinks something that you carry.", "Consumes a carried thing."),
         {"object": _CARRIED}, ("consume", "eat_up"),
         ("I eat the {object}.", "The {object} is to be eaten.", "Now for the {object}.")),
)  # fmt: skip
_COOKING_VERBS = (
    Verb("cook", ("Cooks food that you carry: a stove fries it, an oven roasts it, a BBQ grills it. Twice burns it.",
                  "Heats carried food: frying it with a stove, roasting it with an oven, grilling it with a BBQ."),
         {"food": _CARRIED, "appliance": _text("The name of the stove, oven or BBQ, which has to be in the room.")},
         ("heat_food", "cook_with"),
         ("I cook the {food} with the {appliance}.", "The {appliance} is the right thing for the {food}.",
          "The {food} has to be cooked.")),
    Verb("cut", ("Slices, dices or chops food that you carry, with a knife that you carry.",
                 "Cuts carried food in one of three ways with a carried knife."),
         {"food": _CARRIED, "way": _WAY, "tool": _text("The name of the knife.")}, ("cut_up", "use_knife"),
         ("I {way} the {food} with the {tool}.", "The {food} has to be cut.", "Now I {way} the {food}.")),
    Verb("prepare_meal", ("Makes the meal of the recipe out of its ingredients: you carry all of them, in the kitchen.",
                          "Puts the treated ingredients together to a meal; works in the kitchen only."),
         {}, ("make_meal", "assemble_meal"),
         ("All ingredients should be ready: I prepare the meal.", "Now the meal can be prepared.",
          "The ingredients come together now.")),
)  # fmt: skip


@functools.lru_cache(maxsize=16)
def _playable(game: str, seed: int, split: Split) -> Game:
    """The game of a seed, always the same one, which the expert wins in at most half of the steps that it allows."""
    rng = random.Random(digest(["textworld", game, seed]))
    for _ in range(_TRIES):
        made = make_game(game, rng, split)
        if made is not None and 4 <= _steps_to_win(made) <= made.max_steps // 2:
            return made
    raise NoWorld(f"textworld: no game {game} that can be won was found for seed {seed}")


def _steps_to_win(made: Game) -> int:
    """0 if the expert does not win."""
    session = Session(made)
    player = Player(session)
    for number in range(made.max_steps):
        if session.won:
            return number
        call = player.next_call()
        if call is None:
            return 0
        session.do(call)
    return 0


@environment("textworld", Terms("textworld", "1.7.0", "MIT", needs=("textworld",)), GAMES, UNSEEN_GAMES)
class TextWorld(Environment):
    """Text adventures that TextWorld generates: finding a coin or a treasure, deliveries, locks and keys, cooking."""

    session: Session
    player: Player

    def reset(self, game: str, seed: int, split: Split) -> Task:
        made = _playable(game, seed, "train" if split == "train" else "unseen_seeds")
        self.session = Session(made)
        self.player = Player(self.session)
        system = random.Random(digest(["textworld system", game, seed])).choice(_SYSTEMS)
        verbs = (*VERBS, *_COOKING_VERBS) if made.recipe else VERBS
        scene = self.session.scene
        seen = f"{scene.describe()}\n{scene.inventory()}" if scene.carried else scene.describe()
        return Task(made.goal, seen, verbs, system, made.max_steps)

    def step(self, call: Call) -> Feedback:
        try:
            told, error = self.session.do(call), False
        except Refused as refused:
            told, error = str(refused), True
        won = self.session.won
        return Feedback(told, error, 1.0 if won else self.session.score, won, won or self.session.lost)

    def choices(self) -> Sequence[Call]:
        """Where the expert explores, the other ways to explore from here are none of them: they would be no mistake."""
        session, scene = self.session, self.session.scene
        calls = [Call("go", {"direction": to}) for to in DIRECTIONS]
        for thing in sorted(set(scene.visible())):
            calls += self._choices_about(thing)
        for thing in scene.carried:
            name = {"object": scene.names[thing]}
            calls.append(Call("drop", name))
            calls += [Call("eat", name)] * (scene.types[thing] in ("f", "meal"))
            near = [other for other in scene.visible() if scene.is_furniture(other)]
            calls += [Call("put", {**name, "target": scene.names[other]}) for other in near]
        if session.read:
            calls.append(Call("prepare_meal"))
        unexplored = [call.key for call in self.player.unexplored()]
        expert = self.player.next_call()
        left_out = set(unexplored) if expert is not None and expert.key in unexplored else set()
        return [*sorted((c for c in calls if c.key not in left_out), key=lambda call: call.key), *self.looks()]

    def _choices_about(self, thing: str) -> list[Call]:
        """What one could do with a thing in sight."""
        scene = self.session.scene
        name, status = scene.names[thing], scene.status(thing)
        calls = []
        if status:
            calls.append(Call("close" if status == "open" else "open", {"object": name}))
            keys = [scene.names[item] for item in scene.carried if scene.types[item] == "k"]
            calls += [Call("unlock" if status == "locked" else "lock", {"object": name, "key": key}) for key in keys]
        elif not scene.is_furniture(thing) and thing not in scene.carried:
            calls.append(Call("take", {"object": name}))
        if not self.session.game.recipe:
            return calls
        food = [
            scene.names[item] for item in scene.carried if scene.has(item, "cookable") or scene.has(item, "cuttable")
        ]
        if scene.types[thing] in COOKED:
            calls += [Call("cook", {"food": item, "appliance": name}) for item in food]
        if scene.has(thing, "sharp") and thing in scene.carried:
            calls += [Call("cut", {"food": item, "way": way, "tool": name}) for item in food for way in sorted(CUT)]
        return calls

    def looks(self) -> Sequence[Call]:
        scene = self.session.scene
        names = sorted(scene.names[thing] for thing in set(scene.visible()))
        return [Call("inventory"), Call("look"), *(Call("examine", {"name": name}) for name in names)]

    def undo(self, call: Call) -> Call | None:
        """Of going into a room for the first time: everything else would be done and undone for nothing."""
        if call.tool != "go":
            return None
        to = call.arguments["direction"]
        back = Call("go", {"direction": OPPOSITE[to]})
        if self.session.last is not None and call.key == self.session.last.key:  # it has just been done
            return back if self.session.at_new_room else None
        other = self.session.scene.exits[self.session.scene.room].get(to, ("", ""))[0]
        return back if other and other not in self.session.visited else None

    def oracle(self) -> Call | None:
        return self.player.next_call()

    def reasons(self, call: Call) -> Sequence[str]:
        """Why the expert makes this call now; () of another call."""
        return self.player.reasons(call)

    def state(self) -> str:
        return digest([sorted(map(str, self.session.state.facts)), self.session.reached, self.session.lost])
