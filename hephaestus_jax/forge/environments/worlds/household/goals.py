"""The goals of `household`: what is asked for, in words, and how far it is reached."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from hephaestus_jax.forge.environments.worlds.household.rooms import (
    APPLIANCES,
    RESULTS,
    THINGS,
    Room,
    Treatment,
    add_lamp,
    add_thing,
    furnished,
    kinds_of,
    preposition,
)

TaskType = Literal["put", "look", "clean", "heat", "cool", "two"]

_PUT = (
    "Please put {a_thing} {where}.",
    "I would like to have {a_thing} {where}. Find one and put it there.",
    "Find {a_thing} and put it {where}.",
    "There should be {a_thing} {where}: please see to it.",
)
_TWO = (
    "Please put two {things} {where}.",
    "Find two {things} and put them {where}; you can carry only one thing at a time.",
    "I need two {things} {where}. Please bring both there.",
    "Two {things} belong {where}: please collect them and put them there.",
)
_LOOK = (
    "Look at {a_thing} under the desk lamp: stand at the lamp with it in your hand and switch the lamp on.",
    "Please find {a_thing}, carry it to the desk lamp and switch the lamp on, so that I can see it properly.",
    "I want {a_thing} examined in the light of the desk lamp. Hold it at the lamp and switch the lamp on.",
)
_TREATED: dict[TaskType, tuple[str, ...]] = {
    "clean": (
        "Please put a clean {thing} {where}; wash it in the sink first.",
        "Wash {a_thing} in the sink, then put it {where}.",
        "I need {a_thing} {where}, but it has to be rinsed in the sink before.",
    ),
    "heat": (
        "Please put a hot {thing} {where}; heat it in the microwave first.",
        "Heat {a_thing} in the microwave, then put it {where}.",
        "I would like {a_thing} {where}, warmed up in the microwave.",
    ),
    "cool": (
        "Please put a cold {thing} {where}; chill it with the fridge first.",
        "Cool {a_thing} with the fridge, then put it {where}.",
        "I would like {a_thing} {where}, chilled in the fridge beforehand.",
    ),
}
_ENDINGS = ("", "", " The task is over as soon as that is so.", " That is all.")


@dataclass(frozen=True)
class Goal:
    """What is asked for: things of the kind `thing`, so many, treated or not, in or on a place of the kind `target`.

    `target` is "" where a thing is to be looked at under the lamp.
    """

    task: TaskType
    thing: str
    target: str
    text: str

    @property
    def treatment(self) -> Treatment | None:
        """What has to be done to the thing before it is put down."""
        return self.task if self.task in ("clean", "heat", "cool") else None

    @property
    def count(self) -> int:
        """How many things have to be put there."""
        return 2 if self.task == "two" else 1

    def treated(self, room: Room, name: str) -> bool:
        """Whether a thing needs no treatment (any more)."""
        return self.treatment is None or RESULTS[self.treatment] in room.things[name].states

    def placed(self, room: Room) -> list[str]:
        """The things that lie where they are wanted, as they are wanted."""
        return [
            name
            for place in room.places.values()
            if place.kind == self.target
            for name in sorted(place.things)
            if room.things[name].kind == self.thing and self.treated(room, name)
        ]

    def score(self, room: Room, at: str, carried: str) -> float:
        """The share of subgoals that is reached now: held, treated, placed. 1 is success."""
        held = bool(carried) and room.things[carried].kind == self.thing
        if self.task == "look":
            here = room.places[at].things if at else ()
            return 1.0 if held and any(room.things[name].lit for name in here) else 0.5 * held
        done = min(len(self.placed(room)), self.count)
        if done == self.count:
            return 1.0
        if self.treatment is None:
            return (done + 0.5 * held) / self.count
        treated = any(
            thing.kind == self.thing and self.treated(room, name) for name, thing in sorted(room.things.items())
        )
        return (held + treated) / 3


def article(name: str) -> str:
    """As in "an apple 1", "a mug 2"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(kind: str) -> str:
    """Of a kind of things or furniture."""
    return (THINGS[kind].plural if kind in THINGS else "") or (f"{kind[:-1]}ves" if kind == "shelf" else f"{kind}s")


def set_up(task: TaskType, kind: str, rng: random.Random) -> tuple[Room, Goal]:
    """A room in which the task is still to be done and can be done."""
    room = furnished(kind, rng)
    wanted, target = _wanted(task, room, rng)
    if task == "look" or (kind in ("bedroom", "living_room", "studio") and rng.random() < 0.5):
        add_lamp(room, rng)
    enough = 2 if task == "two" else 1
    for _ in range(enough + (rng.random() < 0.4)):
        add_thing(room, wanted, rng, not_in=(target,))
    others = [name for name in kinds_of(kind) if name != wanted]
    for _ in range(rng.randint(7, 13)):
        add_thing(room, rng.choice(others), rng)
    return room, Goal(task, wanted, target, _text(task, wanted, target, room, rng))


# Where nobody wants a thing put that has just been treated, and where only those things belong that usually are there.
_ODD_FOR_TREATED = {
    "clean": ("sink", "garbage can", "laundry hamper"),
    "heat": ("microwave", "fridge", "garbage can"),
    "cool": ("fridge", "microwave", "garbage can"),
}
_ODD_TARGETS = (
    "armchair", "bathtub", "bed", "fridge", "laundry hamper", "microwave", "sink", "sofa", "stove", "toilet",
    "towel rack",
)  # fmt: skip


def _wanted(task: TaskType, room: Room, rng: random.Random) -> tuple[str, str]:
    """The kind of things asked for, and the kind of furniture that they belong to."""
    kinds = [name for name in kinds_of(room.kind) if task not in APPLIANCES or task in THINGS[name].treatments]
    if task == "look":
        return rng.choice([name for name in kinds if name not in ("pillow", "laptop")]), ""
    wanted = rng.choice(kinds)
    unwanted = _ODD_FOR_TREATED.get(task, ())
    present = [name for name in room.kinds() if name not in unwanted]
    present = [name for name in present if name not in _ODD_TARGETS or name in THINGS[wanted].usual]
    usual = [name for name in present if name in THINGS[wanted].usual]
    pool = usual if len(usual) > 1 and rng.random() < 0.8 else present
    return wanted, rng.choice(pool)


def _text(task: TaskType, wanted: str, target: str, room: Room, rng: random.Random) -> str:
    templates = ({"put": _PUT, "two": _TWO, "look": _LOOK} | _TREATED)[task]
    which = f"the {target}"
    if sum(place.kind == target for place in room.places.values()) > 1:
        which = (
            rng.choice((article(target), f"one of the {plural(target)}")) if task != "two" else f"the {plural(target)}"
        )
    words = {"a_thing": article(wanted), "thing": wanted, "things": plural(wanted)}
    return rng.choice(templates).format(**words, where=f"{preposition(target)} {which}") + rng.choice(_ENDINGS)
