"""The expert of `textworld`: works out the next call from what has been seen, and explores to find the rest.

TextWorld's own expert goes straight to what nobody has seen yet. This one knows, beyond what was seen, only which key
fits which lock (their names mostly tell) and, after the cookbook was read, the recipe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.textworld.scene import COOKED, CUT, DIRECTIONS, article
from hephaestus_jax.forge.environments.worlds.textworld.session import Session

# In which order what is to be reached is worked on: gather, treat, put together, use up; the rest stays as it came.
_LATER = {"in": 0, **dict.fromkeys((*COOKED.values(), *CUT.values()), 1), "consumed": 3}


class _Stuck(Exception):
    """The player knows no way."""


class Player:
    """Plans one call at a time. Methods give a call to be made now, or None where nothing is left to be done."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._sought = ""  # what the call that was planned last looks for, in words
        self._bound_for = ""  # what it goes to, in words

    def next_call(self) -> Call | None:
        """What to do now; None if the game is over, or there is no way that the player knows of."""
        session = self.session
        self._sought = self._bound_for = ""
        if session.won or session.lost:
            return None
        try:
            if session.game.recipe and not session.read:
                return self._near(self._id("cookbook")) or Call("examine", {"name": "cookbook"})
            return next((self._reach(fact) for fact in self._missing()), None)
        except _Stuck:
            return None

    def unexplored(self) -> list[Call]:
        """The calls that show something new from here: going where one has not been, opening what was never open."""
        scene = self.session.scene
        fresh = [Call("go", {"direction": to}) for to in self._open_ways(scene.room) if self._unknown(to)]
        doors = [door for to, door in scene.doors(scene.room).items() if self._unknown(to)]
        closed = [*self._shut_containers(scene.room), *doors]
        return [*fresh, *(Call("open", {"object": self._name(thing)}) for thing in closed if self._shut(thing))]

    # --- goals --------------------------------------------------------------------------------------------------------

    def _missing(self) -> Iterator[Any]:
        """What still has to become true, in a sensible order."""
        facts = set(self.session.state.facts)
        missing = [
            fact
            for reached, quest in zip(self.session.reached, self.session.game.quests, strict=True)
            if quest.wins and not reached
            for fact in sorted(quest.wins[0])
            if fact not in facts
        ]

        def order(fact: Any) -> int:
            return 2 if fact.names[0] == self._id("meal") and fact.name == "in" else _LATER.get(fact.name, 0)

        yield from sorted(missing, key=order)

    def _reach(self, fact: Any) -> Call | None:
        thing, other = fact.names[0], fact.names[-1]
        name = self._name(thing)
        match fact.name:
            case "in" if thing == self._id("meal"):
                return self._walk(self._kitchen()) or Call("prepare_meal")
            case "in" if other == "I":
                return self._get(thing)
            case "in" | "on":
                return self._get(thing) or self._opened(other) or self._near(other) or Call(
                    "put", {"object": name, "target": self._name(other)}
                )  # fmt: skip
            case "at":
                return self._get(thing) or self._walk(other) or Call("drop", {"object": name})
            case "open":
                return self._opened(thing)
            case "consumed":
                return self._get(thing) or Call("eat", {"object": name})
        if fact.name in CUT.values():
            knife = self._id("knife")
            way = next(verb for verb, made in CUT.items() if made == fact.name)
            arguments = {"food": name, "way": way, "tool": self._name(knife)}
            return self._get(thing) or self._get(knife) or Call("cut", arguments)
        if fact.name in COOKED.values():
            stove = next(item for item, kind in self.session.scene.types.items() if COOKED.get(kind) == fact.name)
            return self._get(thing) or self._near(stove) or Call("cook", {"food": name, "appliance": self._name(stove)})
        return None

    def _get(self, thing: str) -> Call | None:
        """The next call on the way to carrying a thing."""
        scene = self.session.scene
        if thing in scene.carried:
            return None
        if thing not in self.session.seen:
            return self._explore(True, self._told(thing))
        holder = scene.holder.get(thing, "")
        inside = self._opened(holder) if scene.status(holder) else None
        return inside or self._near(thing) or Call("take", {"object": self._name(thing)})

    def _near(self, thing: str) -> Call | None:
        """The next call on the way to where a thing is; None when one is there."""
        scene = self.session.scene
        if thing in scene.visible():
            return None
        if thing not in self.session.seen:
            return self._explore(not scene.is_furniture(thing), self._told(thing))
        rooms = [room for room in sorted(self.session.visited) if thing in scene.doors(room).values()]
        room = scene.room_of(thing) or next(iter(rooms), "")
        if not room:
            raise _Stuck
        self._bound_for = f"The {self._name(thing)} is in the {self._name(room)}"
        return self._walk(room)

    def _opened(self, thing: str) -> Call | None:
        """The next call towards a thing being open; fetches the key of a locked one before going there."""
        scene = self.session.scene
        if thing not in self.session.seen:
            key = scene.keys.get(thing, "")
            at_hand = key in scene.visible() and key not in scene.carried and scene.status(thing) == "locked"
            return self._get(key) if at_hand else self._near(thing)
        match scene.status(thing):
            case "closed":
                return self._near(thing) or Call("open", {"object": self._name(thing)})
            case "locked":
                key = scene.keys.get(thing, "")
                if not key:
                    raise _Stuck
                return self._get(key) or self._near(thing) or Call(
                    "unlock", {"object": self._name(thing), "key": self._name(key)}
                )  # fmt: skip
        return None

    # --- ways ---------------------------------------------------------------------------------------------------------

    def _walk(self, room: str) -> Call | None:
        """The next call on the way to a room; explores while the room is unknown."""
        if room == self.session.scene.room:
            return None
        if room in self.session.visited:
            path = self._path(lambda place: place == room)
            if not path:
                raise _Stuck
            self._bound_for = self._bound_for or f"I have to go to the {self._name(room)}"
            return self._pass(path[0])
        return self._explore(False, f"the {self._name(room)}")

    def _explore(self, containers: bool, sought: str) -> Call:
        """The next call that shows something new: here, else by the shortest way to where there is something."""
        scene = self.session.scene
        self._sought = sought
        if containers:
            for call in (self._opened(thing) for thing in self._shut_containers(scene.room)):
                if call is not None:
                    return call
        path = self._path(
            lambda place: place not in self.session.visited or (containers and self._shut_containers(place))
        )
        if path:
            return self._pass(path[0])
        return self._unlock_something(containers)

    def _shut_containers(self, room: str) -> list[str]:
        """Containers of a room that have not been looked into and can be: closed, or locked with the key at hand."""
        scene = self.session.scene
        found = [
            t
            for t in scene.contents.get(room, ())
            if scene.status(t) in ("closed", "locked") and t in self.session.seen
        ]
        return [t for t in found if t not in self.session.opened and self._shut(t) and scene.types[t] == "c"]

    def _shut(self, thing: str) -> bool:
        """Whether a thing is closed, or locked and its key at hand."""
        scene = self.session.scene
        status = scene.status(thing)
        return status == "closed" or (status == "locked" and scene.keys.get(thing) in scene.carried)

    def _unlock_something(self, containers: bool) -> Call:
        """Fetches the key of something locked that stands in the way, and goes there."""
        scene, session = self.session.scene, self.session
        for thing in sorted(session.seen):
            key = scene.keys.get(thing, "")
            kind = scene.types[thing]
            if scene.status(thing) == "locked" and key in session.seen and (kind == "d" or containers):
                call = self._opened(thing)
                if call is not None:
                    return call
        raise _Stuck

    def _open_ways(self, room: str) -> list[str]:
        scene = self.session.scene
        return [
            to for to in DIRECTIONS
            if to in scene.exits[room] and scene.status(scene.exits[room][to][1]) in ("", "open")
        ]  # fmt: skip

    def _unknown(self, to: str) -> bool:
        return self.session.scene.exits[self.session.scene.room][to][0] not in self.session.visited

    def _path(self, found: Any) -> list[str]:
        """Directions of the shortest way through known rooms to one that is wanted; doors that can be opened count."""
        scene = self.session.scene
        queue: deque[tuple[str, list[str]]] = deque([(scene.room, [])])
        known = {scene.room}
        while queue:
            place, path = queue.popleft()
            if path and found(place):
                return path
            if place not in self.session.visited:
                continue
            for to in DIRECTIONS:
                other, door = scene.exits[place].get(to, ("", ""))
                if other and other not in known and (not door or scene.status(door) == "open" or self._shut(door)):
                    known.add(other)
                    queue.append((other, [*path, to]))
        return []

    def _pass(self, to: str) -> Call:
        """Goes in a direction, or opens the door that is there."""
        door = self.session.scene.exits[self.session.scene.room][to][1]
        return (self._opened(door) if door else None) or Call("go", {"direction": to})

    # --- names --------------------------------------------------------------------------------------------------------

    def _name(self, thing: str) -> str:
        return self.session.scene.names.get(thing, "")

    def _id(self, name: str) -> str:
        return next((thing for thing, called in self.session.scene.names.items() if called == name), "")

    def _kitchen(self) -> str:
        return self._id("kitchen")

    def _told(self, thing: str) -> str:
        """A thing that was not seen yet, as the player speaks of it."""
        scene = self.session.scene
        locks = [lock for lock, key in scene.keys.items() if key == thing]
        if locks:
            return f"the key of the {self._name(locks[0])}"
        return article(self._name(thing)) if scene.types[thing] in COOKED or scene.has(thing, "sharp") else (
            f"the {self._name(thing)}"
        )  # fmt: skip

    # --- why ----------------------------------------------------------------------------------------------------------

    def reasons(self, call: Call) -> tuple[str, ...]:
        """Why the player makes this call now, in sentences of its own; () of a call that is not the player's next."""
        planned = self.next_call()
        if planned is None or call.key != planned.key:
            return ()
        names = call.arguments
        match call.tool:
            case "go" if self._bound_for and not self._sought:
                return (f"{self._bound_for}, so I go {names['direction']}.",)
            case "go" if self._sought:
                return (
                    f"I have not found {self._sought} yet, so I go {names['direction']}.",
                    f"I am still looking for {self._sought}: on to the {names['direction']}.",
                )
            case "open" if self._sought:
                return (
                    f"I have not found {self._sought} yet, and the {names['object']} is closed.",
                    f"Perhaps opening the {names['object']} brings me to {self._sought}.",
                )
            case "take" if self._locked_by(names["object"]):
                return (f"The {names['object']} may be the key of the {self._locked_by(names['object'])}: I take it.",)
            case "unlock":
                return (f"The {names['object']} is locked; the {names['key']} should fit.",)
            case "cook":
                made = COOKED[self.session.scene.types[self._id(str(names["appliance"]))]]
                return (f"The recipe says that the {names['food']} has to be {made}.",)
            case "cut":
                return (f"The recipe says that the {names['food']} has to be {CUT[str(names['way'])]}.",)
            case "examine":
                return ("The cookbook tells what the meal is made of, so I read it first.",)
        return ()

    def _locked_by(self, key: str) -> str:
        """The name of what a key locks, where that has been seen; else ""."""
        locks = [lock for lock, thing in self.session.scene.keys.items() if thing == self._id(key)]
        return next((self._name(lock) for lock in locks if lock in self.session.seen), "")
