"""The games of TextWorldExpress: what is asked for, with which tools, and how one differs from another."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from hephaestus_jax.forge.environments.environment import Verb
from hephaestus_jax.forge.environments.worlds.text_commands import Commands, Pattern
from hephaestus_jax.forge.environments.worlds.textworld_express.verbs import (
    CLOSE,
    CLOSE_DOOR,
    COOK,
    CUT,
    CUTS,
    DIRECTIONS,
    EAT,
    EXAMINE,
    FOOD_VERBS,
    INVENTORY,
    LOOK,
    MOVE,
    OPEN,
    OPEN_DOOR,
    PREPARE,
    PUT,
    READ,
    TAKE,
    TASK,
    simon_verbs,
)

_DIRECTED = {"direction": DIRECTIONS}
_PATTERNS = (
    Pattern("look_around", "look around"),
    Pattern("inventory", "inventory"),
    Pattern("recall_task", "task"),
    Pattern("move", "move {direction}", values=_DIRECTED),
    Pattern("open_door", "open door to {direction}", values=_DIRECTED),
    Pattern("close_door", "close door to {direction}", values=_DIRECTED),
    Pattern("open", "open {container}"),
    Pattern("close", "close {container}"),
    Pattern("take", "take {object}"),
    Pattern("put", "put {object} in {container}"),
    Pattern("examine", "examine {object}"),
    Pattern("read", "read {object}"),
    Pattern("cook", "cook {food} in {appliance}"),
    Pattern("prepare_meal", "prepare meal"),
    Pattern("eat", "eat {food}"),
    Pattern("cut", "{style} {food}", values={"style": CUTS}),
)
_SIMON_PATTERNS = (
    *(Pattern(verb, f"{verb} {{food}}") for verb in FOOD_VERBS),
    Pattern("perform", "{motion}"),
)


def _cookingworld(rng: random.Random) -> dict[str, int]:
    return {
        "numLocations": rng.choice((1, 2, 3, 4, 6, 8, 11)),
        "numIngredients": rng.randint(1, 5),
        "numDistractorItems": rng.randint(0, 10),
        **_doors_and_bag(rng),
    }


def _twc(rng: random.Random) -> dict[str, int]:
    return {"numLocations": rng.randint(1, 3), "numItemsToPutAway": rng.randint(1, 4), **_doors_and_bag(rng)}


def _coin(rng: random.Random) -> dict[str, int]:
    rooms = rng.choice((2, 3, 4, 5, 6, 7, 9, 11))
    return {"numLocations": rooms, "numDistractorItems": rng.randint(0, 10), **_doors_and_bag(rng)}


def _mapreader(rng: random.Random) -> dict[str, int]:
    rooms, apart = rng.choice(((5, 2), (6, 3), (8, 3), (10, 4), (12, 4), (15, 4), (15, 6), (20, 6), (25, 7)))
    return {
        "numLocations": rooms,
        "maxDistanceApart": apart,
        "maxDistractorItemsPerLocation": rng.randint(0, 3),
        **_doors_and_bag(rng),
    }


def _simonsays(rng: random.Random) -> dict[str, int]:
    return {"gameLength": rng.randint(3, 12), "numDistractors": rng.randint(1, 5)}


def _nothing(rng: random.Random) -> dict[str, int]:
    return {}


def _doors_and_bag(rng: random.Random) -> dict[str, int]:
    return {"includeDoors": rng.randint(0, 1), "limitInventorySize": rng.randint(0, 1)}


_ROOMS = (LOOK, INVENTORY, MOVE, OPEN_DOOR, CLOSE_DOOR, TAKE)


@dataclass(frozen=True)
class Game:
    """One of the package's games.

    `goals` are equivalent requests, with the package's words {coin_room} and {box_room} where its task has them;
    `expert` is the package's class that plays it; `parameters` draws what the package is asked for.
    """

    expert: str
    goals: tuple[str, ...]
    verbs: tuple[Verb, ...]
    max_steps: int
    parameters: Callable[[random.Random], dict[str, int]] = _nothing
    patterns: tuple[Pattern, ...] = _PATTERNS

    @cached_property
    def commands(self) -> Commands:
        return Commands([pattern for pattern in self.patterns if pattern.tool in {verb.name for verb in self.verbs}])


GAMES: dict[str, Game] = {
    "cookingworld": Game(
        "CookingWorldGoldAgent",
        (
            "I am hungry. Please cook the meal of the cookbook in the kitchen: read the recipe, gather its "
            "ingredients, prepare each exactly as its directions say, then prepare the meal and eat it. You are "
            "done when it is eaten; eating an ingredient or preparing it the wrong way spoils the meal.",
            "Let's make something good to eat. The cookbook in the kitchen has the recipe. Collect every "
            "ingredient, cut and cook each one just as it is written there, make the meal, and eat it to finish. "
            "Do not eat ingredients, and do not cut or cook them in any other way: that would lose the game.",
        ),
        (*_ROOMS, OPEN, CLOSE, PUT, EXAMINE, READ, CUT, COOK, PREPARE, EAT),
        100,
        _cookingworld,
    ),
    "twc": Game(
        "TWCGoldAgent",
        (
            "Some things here are not where they belong. Please pick each of them up and put it in the place "
            "where one usually keeps such a thing. You are done when all of them are in their places.",
            "Tidy up, please: find the objects that lie about and put every one of them where it is usually kept. "
            "It is finished when everything is in its usual place.",
        ),
        (*_ROOMS, OPEN, CLOSE, PUT),
        50,
        _twc,
    ),
    "coin": Game(
        "CoinGoldAgent",
        (
            "There is a coin somewhere in this house. Please search the rooms until you find it, and take it; "
            "with the coin in your hands you are done.",
            "Find the coin that is hidden in one of the rooms and take it. The game ends when you have it.",
        ),
        _ROOMS,
        60,
        _coin,
    ),
    "mapreader": Game(
        "MapReaderGoldAgent",
        (
            "Please take the coin that is in the {coin_room} and put it into the box in the {box_room}. You carry "
            "a map that may help you find the way. You are done when the coin is in the box.",
            "There is a coin in the {coin_room}. Fetch it and put it into the box that you find in the "
            "{box_room}; the map in your inventory shows how the places are connected. The coin in the box ends "
            "the game.",
        ),
        (*_ROOMS, PUT, READ, TASK),
        50,
        _mapreader,
    ),
    "arithmetic": Game(
        "ArithmeticGoldAgent",
        (
            "There is a math problem in this room. Please take it, read it and solve it. Then take the things "
            "whose number is the answer, and put them in the box. Putting anything else in the box loses the "
            "game.",
            "Solve the math problem that lies here: take it and read it. Of the things in this room, put those "
            "that are as many as its answer into the box, and nothing else, or the game is lost.",
        ),
        (LOOK, INVENTORY, TAKE, PUT, READ),
        14,
    ),
    "sorting": Game(
        "SortingGoldAgent",
        (
            "Please sort the things in this room by quantity. Put the smallest quantity into the box first, then "
            "the next smallest, and so on until all of them are in the box. A thing put in out of turn loses the "
            "game.",
            "All the things here that have a quantity belong in the box, in order from the smallest quantity to "
            "the largest. Put them in one after the other; the game is lost if one goes in too early.",
        ),
        (LOOK, INVENTORY, TAKE, PUT),
        24,
    ),
    "peckingorder": Game(
        "PeckingOrderGoldAgent",
        (
            "There is an instructions book in this room. Please read it and do what it says; then read it again "
            "for the next instruction, and so on until the game is completed. Do not take anything else: that "
            "loses it.",
            "Follow the instructions book that you find here, one instruction at a time: read, do it, read again, "
            "until nothing is left to do. Taking a thing that it has not asked for yet ends the game with a "
            "loss.",
        ),
        (LOOK, INVENTORY, TAKE, PUT, READ),
        24,
    ),
    "simonsays": Game(
        "SimonSaysGoldAgent",
        (
            "Let's play Simon says. Do exactly what Simon says, one thing after the other, until he says that you "
            "have won. A wrong action loses the game at once.",
            "You are playing Simon says: do each time what Simon says, and nothing else, until the game is "
            "completed. One wrong action and it is lost.",
        ),
        simon_verbs(),
        20,
        _simonsays,
        _SIMON_PATTERNS,
    ),
}

SYSTEMS = (
    "You act in a text world by calling tools. Each call is one action, and its result tells what happened; name "
    "things as the descriptions do.",
    "This is a game in words. You play it by tool calls, one action at a time, and read what each brings about.",
    "You are in a small simulated world and can only act through the tools. Use the names that you have read; "
    "what a tool answers is what you perceive.",
)
