"""The rooms of `household`: what furniture stands in them, which things lie about, and where they usually lie."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Treatment = Literal["clean", "heat", "cool"]
APPLIANCES: dict[Treatment, str] = {"clean": "sink", "heat": "microwave", "cool": "fridge"}
RESULTS: dict[Treatment, str] = {"clean": "clean", "heat": "hot", "cool": "cold"}  # the treatment to the adjective
LAMP = "desk lamp"
_LAMP_STANDS_ON = ("desk", "side table", "dresser", "shelf")

# Kinds of furniture that are opened and closed, and further ones that things lie in rather than on.
_OPENABLE = ("cabinet", "drawer", "fridge", "microwave", "safe", "laundry hamper")
_HOLLOW = ("sink", "bathtub", "garbage can")

# Room to kinds of furniture with the least and the highest number of them.
_FURNITURE: dict[str, dict[str, tuple[int, int]]] = {
    "kitchen": {
        "cabinet": (3, 5), "countertop": (1, 2), "dining table": (0, 1), "drawer": (2, 3), "fridge": (1, 1),
        "garbage can": (1, 1), "microwave": (1, 1), "shelf": (0, 1), "sink": (1, 1), "stove": (1, 1),
    },
    "bathroom": {
        "bathtub": (0, 1), "cabinet": (2, 4), "countertop": (1, 1), "drawer": (1, 2), "garbage can": (1, 1),
        "laundry hamper": (0, 1), "shelf": (1, 2), "sink": (1, 2), "toilet": (1, 1), "towel rack": (1, 1),
    },
    "bedroom": {
        "armchair": (0, 1), "bed": (1, 1), "desk": (1, 1), "drawer": (3, 5), "dresser": (0, 1), "garbage can": (1, 1),
        "laundry hamper": (0, 1), "safe": (0, 1), "shelf": (1, 2), "side table": (1, 2),
    },
    "living_room": {
        "armchair": (1, 2), "cabinet": (1, 3), "coffee table": (1, 1), "drawer": (2, 4), "garbage can": (1, 1),
        "safe": (0, 1), "shelf": (1, 2), "side table": (1, 2), "sofa": (1, 1), "TV stand": (1, 1),
    },
    "studio": {
        "bed": (1, 1), "cabinet": (2, 3), "countertop": (1, 1), "desk": (1, 1), "drawer": (2, 3), "fridge": (1, 1),
        "garbage can": (1, 1), "microwave": (1, 1), "shelf": (1, 1), "side table": (1, 1), "sink": (1, 1),
    },
}  # fmt: skip
ROOMS = tuple(_FURNITURE)


@dataclass(frozen=True)
class ThingKind:
    """A kind of things: where one finds or keeps it (likeliest first), and what is sensibly done to it."""

    usual: tuple[str, ...]
    treatments: tuple[Treatment, ...] = ()
    plural: str = ""  # where it is not made with an s


_FOOD: tuple[Treatment, ...] = ("clean", "heat", "cool")
_DISH: tuple[Treatment, ...] = ("clean", "heat", "cool")
_TABLES = ("countertop", "dining table", "desk", "coffee table", "side table")
_PAPERS = ("desk", "coffee table", "drawer", "shelf", "side table", "sofa", "bed", "armchair")
_SMALL = ("drawer", "side table", "desk", "coffee table", "dresser", "TV stand", "shelf", "safe")
THINGS: dict[str, ThingKind] = {
    "apple": ThingKind(("countertop", "fridge", "dining table", "side table"), _FOOD),
    "bread roll": ThingKind(("countertop", "cabinet", "dining table", "fridge"), ("heat", "cool")),
    "egg": ThingKind(("fridge", "countertop", "sink"), _FOOD),
    "cabbage": ThingKind(("fridge", "countertop", "sink"), ("clean", "cool")),
    "potato": ThingKind(("countertop", "fridge", "cabinet", "sink"), _FOOD, "potatoes"),
    "tomato": ThingKind(("countertop", "fridge", "dining table"), _FOOD, "tomatoes"),
    "wine bottle": ThingKind(("fridge", "cabinet", "countertop", "dining table"), ("cool",)),
    "bowl": ThingKind(("cabinet", "countertop", "shelf", "dining table", "sink"), _DISH),
    "cup": ThingKind(("cabinet", "countertop", "shelf", "sink", "side table"), _DISH),
    "mug": ThingKind(("cabinet", "countertop", "shelf", "desk", "side table", "sink"), _DISH),
    "plate": ThingKind(("cabinet", "countertop", "dining table", "shelf", "sink"), _DISH),
    "pan": ThingKind(("stove", "cabinet", "countertop", "sink"), ("clean", "cool")),
    "pot": ThingKind(("stove", "cabinet", "countertop", "sink"), ("clean", "cool")),
    "fork": ThingKind(("drawer", "countertop", "sink", "dining table"), ("clean",)),
    "knife": ThingKind(("drawer", "countertop", "sink", "dining table"), ("clean",), "knives"),
    "spoon": ThingKind(("drawer", "countertop", "sink", "dining table"), ("clean",)),
    "spatula": ThingKind(("drawer", "countertop", "stove", "sink"), ("clean",)),
    "salt shaker": ThingKind(("cabinet", "countertop", "shelf", "dining table", "drawer")),
    "sponge": ThingKind(("sink", "countertop", "cabinet", "shelf", "bathtub"), ("clean",)),
    "soap bar": ThingKind(("sink", "countertop", "bathtub", "cabinet", "toilet"), ("clean",)),
    "soap bottle": ThingKind(("countertop", "cabinet", "sink", "shelf", "toilet")),
    "washcloth": ThingKind(("countertop", "cabinet", "drawer", "bathtub", "laundry hamper", "sink"), ("clean",)),
    "towel": ThingKind(("towel rack", "laundry hamper", "cabinet", "shelf")),
    "toilet roll": ThingKind(("toilet", "cabinet", "drawer", "shelf", "countertop")),
    "toothbrush": ThingKind(("countertop", "drawer", "sink", "shelf", "cabinet"), ("clean",), "toothbrushes"),
    "comb": ThingKind(("countertop", "drawer", "shelf", "dresser", "cabinet"), ("clean",)),
    "candle": ThingKind(("shelf", "countertop", "toilet", "side table", "coffee table", "dresser")),
    "tissue box": ThingKind(("side table", "shelf", "coffee table", "toilet", "dresser"), (), "tissue boxes"),
    "alarm clock": ThingKind(("side table", "desk", "dresser", "shelf")),
    "book": ThingKind(("shelf", *_PAPERS)),
    "laptop": ThingKind(("desk", "bed", "sofa", "coffee table", "side table")),
    "magazine": ThingKind(("coffee table", *_PAPERS)),
    "newspaper": ThingKind(("sofa", *_PAPERS)),
    "notebook": ThingKind(_PAPERS),
    "pen": ThingKind(("desk", *_SMALL)),
    "pencil": ThingKind(("desk", *_SMALL)),
    "phone": ThingKind(("side table", "bed", "sofa", *_SMALL)),
    "credit card": ThingKind(("safe", *_SMALL)),
    "key ring": ThingKind(_SMALL),
    "watch": ThingKind(("dresser", *_SMALL), (), "watches"),
    "pillow": ThingKind(("bed", "sofa", "armchair")),
    "remote control": ThingKind(("TV stand", "sofa", "coffee table", "armchair", "drawer", "side table")),
    "statue": ThingKind(("shelf", "TV stand", "dresser", "coffee table", "side table")),
    "vase": ThingKind(("shelf", "coffee table", "side table", "dresser", "cabinet")),
    "teddy bear": ThingKind(("bed", "armchair", "dresser", "shelf")),
}

_KITCHEN = (
    "apple", "bread roll", "egg", "cabbage", "potato", "tomato", "wine bottle", "bowl", "cup", "mug", "plate", "pan",
    "pot", "fork", "knife", "spoon", "spatula", "salt shaker", "sponge",
)  # fmt: skip
_DESK = ("book", "laptop", "notebook", "pen", "pencil", "phone", "credit card", "key ring", "watch", "pillow")
_FOUND: dict[str, tuple[str, ...]] = {
    "kitchen": _KITCHEN,
    "bathroom": (
        "soap bar", "soap bottle", "washcloth", "towel", "toilet roll", "toothbrush", "comb", "candle", "sponge",
        "tissue box",
    ),
    "bedroom": (*_DESK, "alarm clock", "teddy bear", "mug", "tissue box"),
    "living_room": (*_DESK, "magazine", "newspaper", "remote control", "statue", "vase", "candle", "tissue box"),
    "studio": (
        "apple", "bread roll", "egg", "tomato", "bowl", "cup", "mug", "plate", "fork", "spoon", "sponge", "salt shaker",
        *_DESK, "alarm clock",
    ),
}  # fmt: skip


@dataclass
class Place:
    """A piece of furniture; `things` lie in it or on it."""

    name: str
    kind: str
    is_open: bool = True
    things: set[str] = field(default_factory=set)

    @property
    def openable(self) -> bool:
        return self.kind in _OPENABLE

    @property
    def word(self) -> str:
        """How things lie there: "in" or "on"."""
        return preposition(self.kind)


@dataclass
class Thing:
    """One thing; `states` are of "clean", "hot" and "cold"; `lit` is of a lamp."""

    name: str
    kind: str
    states: set[str] = field(default_factory=set)
    lit: bool = False


@dataclass
class Room:
    """A room with everything in it."""

    kind: str
    places: dict[str, Place]
    things: dict[str, Thing]

    def kinds(self) -> list[str]:
        """The kinds of furniture that there are, sorted."""
        return sorted({place.kind for place in self.places.values()})


def preposition(kind: str) -> str:
    """How things lie there: "in" or "on"."""
    return "in" if kind in _OPENABLE or kind in _HOLLOW else "on"


def kinds_of(room: str) -> tuple[str, ...]:
    """The kinds of things that may be in a room."""
    return _FOUND[room]


def furnished(kind: str, rng: random.Random) -> Room:
    """A room with furniture; what can be shut is shut."""
    places: dict[str, Place] = {}
    for what, (least, most) in _FURNITURE[kind].items():
        for number in range(1, rng.randint(least, most) + 1):
            name = f"{what} {number}"
            places[name] = Place(name, what, is_open=what not in _OPENABLE)
    return Room(kind, places, {})


def add_lamp(room: Room, rng: random.Random) -> None:
    """A desk lamp that stands where such lamps stand."""
    stands = [place for place in room.places.values() if place.kind in _LAMP_STANDS_ON]
    lamp = Thing(f"{LAMP} 1", LAMP)
    room.things[lamp.name] = lamp
    rng.choice(stands).things.add(lamp.name)


def add_thing(room: Room, kind: str, rng: random.Random, not_in: Sequence[str] = ()) -> Thing:
    """One more thing of a kind, in a place where it is usual; not in furniture of the kinds `not_in`."""
    places = [place for place in room.places.values() if place.kind not in not_in]
    usual = THINGS[kind].usual
    at_home = [place for place in places if place.kind in usual] or [p for p in places if p.kind in _TABLES] or places
    weights = [0.7 ** usual.index(place.kind) if place.kind in usual else 1.0 for place in at_home]
    number = 1 + sum(thing.kind == kind for thing in room.things.values())
    thing = Thing(f"{kind} {number}", kind)
    room.things[thing.name] = thing
    rng.choices(at_home, weights)[0].things.add(thing.name)
    return thing


def search_order(room: Room, kind: str) -> list[str]:
    """The places of a room in the order in which a sensible person looks for a thing of this kind."""
    usual = _LAMP_STANDS_ON if kind == LAMP else THINGS[kind].usual

    def rank(place: Place) -> tuple[int, str, int]:
        likely = usual.index(place.kind) if place.kind in usual else len(usual) + (place.kind not in _TABLES)
        kind_of_place, _, number = place.name.rpartition(" ")
        return likely, kind_of_place, int(number)

    return [place.name for place in sorted(room.places.values(), key=rank)]


def likely_places(room: Room, kind: str) -> set[str]:
    """The places where a thing of this kind may well be."""
    usual = _LAMP_STANDS_ON if kind == LAMP else THINGS[kind].usual
    return {place.name for place in room.places.values() if place.kind in usual}
