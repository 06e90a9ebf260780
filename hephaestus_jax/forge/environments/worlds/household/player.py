"""The expert of `household`: a sensible person who knows only what the room has shown so far, and looks for things."""

from __future__ import annotations

from dataclasses import dataclass, field

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.household.goals import Goal, article
from hephaestus_jax.forge.environments.worlds.household.rooms import (
    APPLIANCES,
    LAMP,
    RESULTS,
    Place,
    Room,
    likely_places,
    search_order,
)


@dataclass
class Player:
    """Where the player is and what has been seen: things with the place where each was last, and places looked into.

    `room` is the room as it is; of it only the furniture (all of it stands in plain view), whether that is open, and
    the places in `searched` are read.
    """

    room: Room
    goal: Goal
    at: str = ""  # "" in the middle of the room
    before: str = ""  # the place that was left last
    at_new_place: bool = False  # whether the place had not been searched on arrival
    carried: str = ""
    searched: set[str] = field(default_factory=set)

    def go(self, where: str) -> None:
        """Arrives at a place."""
        self.before, self.at, self.at_new_place = self.at, where, where not in self.searched

    def look_into(self) -> None:
        """Takes note of what is seen at the place where the player stands."""
        if self.at and self.room.places[self.at].is_open:
            self.searched.add(self.at)

    def seen_at(self) -> dict[str, str]:
        """Things that were seen and have not been moved by anyone but the player: name to place, sorted."""
        return {name: place for place in sorted(self.searched) for name in sorted(self.room.places[place].things)}

    @property
    def place(self) -> Place | None:
        """The furniture where the player stands."""
        return self.room.places[self.at] if self.at else None

    def wanted(self) -> str:
        """The kind of thing that has to be found next; "" if nothing has to be."""
        if not self._known_candidates() and not self._holds_wanted():
            return self.goal.thing
        return LAMP if self.goal.task == "look" and not self._lamp() else ""

    def sensible_places(self) -> set[str]:
        """Places that are still to be searched, where what is wanted may well be: going there would be no mistake."""
        wanted = self.wanted()
        return likely_places(self.room, wanted) - self.searched if wanted else set()

    def next_call(self) -> Call:
        """What the player does now."""
        if self.carried and not self._holds_wanted():
            return self._put_away()
        if not self._holds_wanted():
            return self._fetch()
        if self.goal.task == "look":
            return self._light()
        if not self.goal.treated(self.room, self.carried):
            return self._treat()
        return self._put(self._target())

    def _holds_wanted(self) -> bool:
        return bool(self.carried) and self.room.things[self.carried].kind == self.goal.thing

    def _known_candidates(self) -> list[str]:
        """Where things of the wanted kind were seen that are not yet where they belong; treated ones first."""
        placed = set(self.goal.placed(self.room))
        found = [
            name for name in self.seen_at() if self.room.things[name].kind == self.goal.thing and name not in placed
        ]
        return sorted(found, key=lambda name: (not self._done_to(name), self.seen_at()[name] != self.at, name))

    def _done_to(self, name: str) -> bool:
        return self.goal.treatment is not None and RESULTS[self.goal.treatment] in self.room.things[name].states

    def _fetch(self) -> Call:
        known = self._known_candidates()
        if not known:
            return self._search(self.goal.thing)
        where = self.seen_at()[known[0]]
        return self._at(where) or self._opened(where) or Call("take", {"object": known[0], "place": where})

    def _search(self, kind: str) -> Call:
        """Opens what stands closed here, or goes to the likeliest place not looked into yet."""
        if self.place is not None and self.at not in self.searched and self.at in likely_places(self.room, kind):
            return Call("open", {"place": self.at})
        unknown = [name for name in search_order(self.room, kind) if name not in self.searched]
        return self._at(unknown[0]) or Call("open", {"place": unknown[0]})

    def _lamp(self) -> str:
        return next((name for name in self.seen_at() if self.room.things[name].kind == LAMP), "")

    def _light(self) -> Call:
        lamp = self._lamp()
        if not lamp:
            return self._search(LAMP)
        return self._at(self.seen_at()[lamp]) or Call("switch_on", {"object": lamp})

    def _treat(self) -> Call:
        treatment = self.goal.treatment
        assert treatment is not None
        where = self._nearest(APPLIANCES[treatment])
        return self._at(where) or Call(treatment, {"object": self.carried, "place": where})

    def _target(self) -> str:
        return self._nearest(self.goal.target)

    def _nearest(self, kind: str) -> str:
        """A place of this kind: here, else an open one, else the first."""
        places = [place for place in self.room.places.values() if place.kind == kind]
        return min(
            places, key=lambda place: (place.name != self.at, not place.is_open, len(place.name), place.name)
        ).name

    def _put(self, where: str) -> Call:
        return self._at(where) or self._opened(where) or Call("put", {"object": self.carried, "place": where})

    def _put_away(self) -> Call:
        """Lays down what is not wanted: here, or on the next open surface."""
        if self.place is not None and self.place.is_open:
            return Call("put", {"object": self.carried, "place": self.at})
        open_places = [place.name for place in self.room.places.values() if place.is_open]
        return self._put(self.at or sorted(open_places)[0])

    def _at(self, where: str) -> Call | None:
        return None if where == self.at else Call("go_to", {"place": where})

    def _opened(self, where: str) -> Call | None:
        return None if self.room.places[where].is_open else Call("open", {"place": where})

    # --- why ----------------------------------------------------------------------------------------------------------

    def reasons(self, call: Call) -> tuple[str, ...]:
        """Why the player makes this call now, in sentences of its own; () of a call that is not the player's next."""
        if call.key != self.next_call().key:
            return ()
        where, thing, carried = call.arguments.get("place", ""), self.goal.thing, self.carried
        wanted = self.wanted()
        if call.tool in ("go_to", "open") and wanted and where not in self.searched:
            return self._why_search(call.tool, wanted, where)
        match call.tool:
            case "go_to" if not carried:
                found = article(self._known_candidates()[0])
                return (
                    f"I saw {found} at the {where}, so I go there.",
                    f"At the {where} there is {found}, which I need.",
                )
            case "go_to" if self._holds_wanted() and not self.goal.treated(self.room, carried):
                result = RESULTS[self.goal.treatment or "clean"]
                return (
                    f"The {carried} is not {result} yet. For that I need the {where}.",
                    f"Before I put the {carried} anywhere it has to be {result}, so I go to the {where}.",
                )
            case "go_to" if self.goal.task == "look":
                return (
                    f"I have the {carried} in my hand, and the lamp stands at the {where}.",
                    f"To the light at the {where}.",
                )
            case "open" if carried:
                return (f"The {where} is closed, and the {carried} has to go there.",)
            case "go_to" if self._holds_wanted():
                return f"I have the {carried}; now to the {where} with it.", f"The {carried} has to go to the {where}."
            case "take":
                found = call.arguments["object"]
                return (
                    f"There is {article(found)}, and {article(thing)} is what I am asked for.",
                    f"The {found} will do: I take it.",
                )
            case "put" if not self._holds_wanted():
                return (
                    f"The {carried} is of no use for this task, so I put it down again.",
                    f"I do not need the {carried}.",
                )
            case "put":
                return f"I stand at the {where} with the {carried}, so I put it down.", f"Here the {carried} belongs."
            case "clean" | "heat" | "cool":
                return (
                    f"The {carried} has to be {RESULTS[call.tool]} before I put it down.",
                    f"Now I {call.tool} the {carried}.",
                )
            case "switch_on":
                return f"I stand here with the {carried}; only the light is missing.", "Now the light."
        return ()

    def _why_search(self, tool: str, wanted: str, where: str) -> tuple[str, ...]:
        place = self.room.places[where]
        if tool == "open":
            return (
                f"The {where} is closed; there may be {article(wanted)} in it.",
                f"Without opening the {where} I cannot tell whether {article(wanted)} is in there.",
            )
        if where in likely_places(self.room, wanted):
            return (
                f"I have to find {article(wanted)} first. It may well be {place.word} the {where}.",
                f"I have not come across {article(wanted)} that I can use yet. The {where} is a likely place for one.",
                f"{article(place.kind).capitalize()} is where {article(wanted)} is often kept, so I try the {where}.",
            )
        return (
            f"Where one would look for {article(wanted)} there is none, so I try the {where} as well.",
            f"The {where} is no usual place for {article(wanted)}, but I have tried the usual ones.",
        )
