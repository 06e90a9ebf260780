"""What a TextWorld game looks like at one moment: where everything is, and how that is told to the player."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DIRECTIONS = ("north", "east", "south", "west")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
COOKED = {"stove": "fried", "oven": "roasted", "toaster": "grilled"}  # type of an appliance to what it makes of food
CUT = {"slice": "sliced", "dice": "diced", "chop": "chopped"}
_FURNITURE = ("c", "s", *COOKED)
_INVENTORY = "I"


@dataclass(frozen=True)
class Scene:
    """A state of a game by the ids of its entities.

    `holder` is what a thing is in or on (a room, furniture, "I" for carried), `exits` the ways out of each room (where
    to, and the door or ""), `keys` the key of a lock, `traits` what else is true of a thing.
    """

    names: Mapping[str, str]
    types: Mapping[str, str]
    room: str
    holder: Mapping[str, str]
    exits: Mapping[str, Mapping[str, tuple[str, str]]]
    keys: Mapping[str, str]
    traits: Mapping[str, frozenset[str]]
    contents: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def has(self, thing: str, trait: str) -> bool:
        return trait in self.traits.get(thing, ())

    def status(self, thing: str) -> str:
        """One of "open", "closed" and "locked"; "" of what cannot be opened."""
        return next((word for word in ("open", "closed", "locked") if self.has(thing, word)), "")

    def doors(self, room: str) -> dict[str, str]:
        """Directions of the doors of a room to the doors."""
        return {to: door for to, (_, door) in self.exits[room].items() if door}

    def is_furniture(self, thing: str) -> bool:
        return self.types[thing] in _FURNITURE

    @property
    def carried(self) -> Sequence[str]:
        return self.contents.get(_INVENTORY, ())

    def within(self, holder: str) -> list[str]:
        """What can be seen in a room, or in or on a thing: not what closed containers hold."""
        if self.status(holder) in ("closed", "locked"):
            return []
        found = []
        for thing in self.contents.get(holder, ()):
            found += [thing, *self.within(thing)]
        return found

    def visible(self) -> list[str]:
        """Everything within reach: in the room, carried, and the doors."""
        return [*self.within(self.room), *self.carried, *self.doors(self.room).values()]

    def room_of(self, thing: str) -> str:
        """The room that a thing is in; "I" if it is carried, "" if it is nowhere."""
        while thing and self.types.get(thing) != "r" and thing != _INVENTORY:
            thing = self.holder.get(thing, "")
        return thing

    # --- in words -----------------------------------------------------------------------------------------------------

    def named(self, thing: str) -> str:
        """As in "a carrot (raw, sliced)", "an egg"."""
        name, states = self.names[thing], self._states(thing)
        return f"{article(name)} ({', '.join(states)})" if states else article(name)

    def _states(self, thing: str) -> list[str]:
        raw = self.has(thing, "raw") or self.has(thing, "needs_cooking")
        if self.names[thing] == "meal":
            return []
        words = ["raw"] if raw and self.has(thing, "cookable") else []
        words += [word for word in (*COOKED.values(), *CUT.values()) if self.has(thing, word)]
        return ["burned"] if self.has(thing, "burned") else words

    def furniture(self, thing: str) -> str:
        """A piece of furniture and what is seen in or on it, as a sentence."""
        name, status = self.names[thing], self.status(thing)
        if status in ("closed", "locked"):
            return f"There is {article(name)}, which is {status}."
        held = list(self.contents.get(thing, ()))
        things = listed([self.named(item) for item in held])
        if status == "open":
            return f"There is {article(name)}, which is open{f' and holds {things}' if held else ' and empty'}."
        return f"There is {article(name)}{f' with {things} on it' if held else ' with nothing on it'}."

    def describe(self) -> str:
        """The room where the player is: furniture, the floor, ways out; one line each."""
        here = self.contents.get(self.room, ())
        lines = [f"You are in the {self.names[self.room]}."]
        lines += [self.furniture(thing) for thing in here if self.is_furniture(thing)]
        loose = [self.named(thing) for thing in here if not self.is_furniture(thing)]
        if loose:
            lines.append(f"On the floor you see {listed(loose)}.")
        ways = [self._way(to) for to in DIRECTIONS if to in self.exits[self.room]]
        lines.append(f"Ways out: {', '.join(ways)}." if ways else "There are no ways out.")
        return "\n".join(lines)

    def _way(self, to: str) -> str:
        door = self.exits[self.room][to][1]
        return f"{to} (through the {self.names[door]}, which is {self.status(door)})" if door else to

    def inventory(self) -> str:
        held = [self.named(thing) for thing in self.carried]
        return f"You carry {listed(held)}." if held else "You carry nothing."


def scene_of(facts: Iterable[Any], names: Mapping[str, str], types: Mapping[str, str]) -> Scene:
    """Reads the propositions of a state."""
    room, holder, keys = "", {}, {}
    ways: dict[str, dict[str, str]] = defaultdict(dict)
    doors: dict[tuple[str, str], str] = {}
    traits: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        ids = [variable.name for variable in fact.arguments]
        match fact.name:
            case "at" if ids[0] == "P":
                room = ids[1]
            case "at" | "in" | "on":
                holder[ids[0]] = ids[1]
            case "link":
                doors[ids[0], ids[2]] = ids[1]
            case "match":
                keys[ids[1]] = ids[0]
            case name if name.endswith("_of") and len(ids) == 2:
                ways[ids[1]][name.removesuffix("_of")] = ids[0]
            case name if len(ids) == 1:
                traits[ids[0]].add(name)
    exits = {
        place: {to: (other, doors.get((place, other), "")) for to, other in ways.get(place, {}).items()}
        for place, kind in types.items()
        if kind == "r"
    }
    contents: dict[str, list[str]] = defaultdict(list)
    for thing in sorted(holder, key=lambda item: (names.get(item) or "", item)):
        if names.get(thing):
            contents[holder[thing]].append(thing)
    frozen = {thing: frozenset(words) for thing, words in traits.items()}
    return Scene(names, types, room, holder, exits, keys, frozen, contents)


def article(name: str) -> str:
    """As in "a mug", "an egg"."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def listed(names: Sequence[str]) -> str:
    """As in "a, b and c"."""
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + list(names[-1:]))
