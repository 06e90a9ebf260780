"""`household`: chores in a furnished room, where what is asked for has to be found first.

Six kinds of tasks as in ALFWorld (Shridhar et al. 2021): put a thing somewhere, look at it under a lamp, clean, heat or
cool it and put it somewhere, put two of a kind somewhere. The engine is this project's own: furniture stands in plain
view, but what lies on it is seen only from close by, and what lies in a cabinet only when that is open.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

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
from hephaestus_jax.forge.environments.worlds.household.goals import Goal, TaskType, article, set_up
from hephaestus_jax.forge.environments.worlds.household.player import Player
from hephaestus_jax.forge.environments.worlds.household.rooms import APPLIANCES, LAMP, RESULTS, Place, Room, Treatment
from hephaestus_jax.formats.records import Json, digest

_MAX_STEPS = 45
_SYSTEMS = (
    "You do chores in a room. You see what lies somewhere only when you are there, and when it is open; you can carry "
    "one thing at a time.",
    "You control a household robot by calling tools. It can hold one thing, and it sees only what is where it stands; "
    "closed furniture must be opened first.",
    "You help in a household. Use the tools to walk about, to look for things and to handle them. You have one free "
    "hand: put down what you hold before you take something else.",
)
_TREATED = {
    "clean": "You hold the {object} under the water of the {place} and rub it. It is clean now.",
    "heat": "You heat the {object} in the {place} and take it out again. It is hot now.",
    "cool": "You leave the {object} in the {place} for a while and take it out again. It is cold now.",
}


def _text(description: str) -> dict[str, Json]:
    return {"type": "string", "description": description}


_PLACE = _text("A piece of furniture or an appliance, by its full name with the number, such as 'drawer 2'.")
_OBJECT = _text("A thing by its full name with the number, such as 'mug 1'.")
_TREAT = {"object": _text("The thing that you hold, by its full name with the number."), "place": _PLACE}
VERBS = (
    Verb("go_to", ("Walks to a piece of furniture or an appliance and tells what is seen there.",
                   "Moves to a place in the room; what lies there can be seen and handled afterwards."),
         {"place": _PLACE}, ("walk_to", "move_to"),
         ("I walk to the {place}.", "The next place to go to is the {place}.",
          "I have to be at the {place} for my next step.", "I go over to the {place}.")),
    Verb("open", ("Opens a piece of furniture or an appliance at which you stand.",
                  "Opens a door or drawer here, so that one can see inside and reach in."),
         {"place": _PLACE}, ("open_up", "open_place"),
         ("The {place} is closed, so I open it.", "To see or reach inside, I have to open the {place}.",
          "Only when it is open do I see what is inside.", "I open the {place}.")),
    Verb("close", ("Closes a piece of furniture or an appliance at which you stand.",
                   "Shuts a door or drawer here."),
         {"place": _PLACE}, ("shut", "close_place"),
         ("I shut the {place} again.", "The {place} need not stand open.", "I leave things as tidy as I found them.")),
    Verb("take", ("Takes a thing from the place at which you stand.",
                  "Picks up a thing that lies here; the hand must be free."),
         {"object": _OBJECT, "place": _PLACE}, ("pick_up", "grab"),
         ("The {object} is what I want: I take it.", "There is the {object}; I pick it up from the {place}.",
          "I need the {object} in my hand.", "I take the {object}.")),
    Verb("put", ("Puts down what you hold in or on the place at which you stand.",
                 "Places the thing in your hand here."),
         {"object": _TREAT["object"], "place": _PLACE}, ("put_down", "place_object"),
         ("The {object} goes to the {place}.", "I put the {object} down here.",
          "Now the {object} can be put down at the {place}.",
          "I leave the {object} at the {place}.")),
    Verb("clean", ("Washes the thing you hold in a sink at which you stand.",
                   "Rinses what is in your hand under the tap."),
         _TREAT, ("wash", "rinse"),
         ("The {object} must be washed, and here is a sink.", "At the {place} I can clean the {object}.",
          "It has to be clean, so I wash it.")),
    Verb("heat", ("Heats the thing you hold in a microwave at which you stand.",
                  "Warms up what is in your hand; it is taken out again."),
         _TREAT, ("warm_up", "microwave_object"),
         ("The {object} must be hot, so I heat it.", "With the {place} I can heat the {object}.",
          "It has to be warmed up before anything else.")),
    Verb("cool", ("Cools the thing you hold in a fridge at which you stand.",
                  "Chills what is in your hand; it is taken out again."),
         _TREAT, ("chill", "refrigerate"),
         ("The {object} must be cold, so I cool it.", "With the {place} I can cool the {object}.",
          "It has to be chilled before anything else.")),
    Verb("switch_on", ("Switches on a lamp that stands where you are.", "Turns a lamp on."),
         {"object": _text("The lamp, by its full name with the number.")}, ("turn_on", "light_lamp"),
         ("I switch the {object} on.", "I need light: the {object} will do.", "Under the light things can be seen.")),
    Verb("switch_off", ("Switches off a lamp that stands where you are.", "Turns a lamp off."),
         {"object": _text("The lamp, by its full name with the number.")}, ("turn_off", "darken_lamp"),
         ("I switch the {object} off.", "The {object} need not burn.", "No light is needed here.")),
    Verb("examine", ("Tells more about the place where you stand, or about a thing that you hold or that lies there.",
                     "Looks closely at a thing or a place within reach."),
         {"name": _text("A thing or a place, by its full name with the number.")}, ("inspect", "look_at"),
         ("I look closely at the {name}.", "Let me see what there is about the {name}.",
          "A closer look at it may help.")),
    Verb("look", ("Describes the room and what is seen from where you stand.", "Looks around."),
         {}, ("look_around", "describe_room"),
         ("I look around to see where I am.", "What is there in this room?", "Let me look around again.")),
    Verb("inventory", ("Tells what you hold.", "Says what is in your hand."),
         {}, ("check_hand", "what_do_i_hold"),
         ("What do I hold?", "I check what is in my hand.", "Do I have a free hand?")),
)  # fmt: skip


def _games(rooms: Sequence[str], tasks: Sequence[TaskType]) -> Iterator[str]:
    possible = {
        "kitchen": ("put", "clean", "heat", "cool", "two"),
        "bathroom": ("put", "clean", "two"),
        "bedroom": ("put", "look", "two"),
        "living_room": ("put", "look", "two"),
        "studio": ("put", "look", "clean", "heat", "cool", "two"),
    }
    return (f"{task}_{room}" for room in rooms for task in tasks if task in possible[room])


GAMES = tuple(_games(("kitchen", "bathroom", "bedroom", "living_room"), ("put", "look", "clean", "heat", "two")))
# A kind of task and a kind of room that training does not see; both are made of parts that it knows.
UNSEEN_GAMES = ("cool_kitchen", *_games(("studio",), ("put", "look", "clean", "heat", "cool", "two")))


class _Refused(Exception):
    """Something cannot be done; the message says why."""


@environment("household", Terms("", "1", "Apache-2.0"), GAMES, UNSEEN_GAMES)
class Household(Environment):
    """Chores in one room with furniture to be searched: put, look at under a lamp, clean, heat, cool, put two."""

    room: Room
    goal: Goal
    player: Player

    def reset(self, game: str, seed: int, split: Split) -> Task:
        task, _, kind = game.partition("_")
        rng = random.Random(digest(["household", game, seed]))
        self.room, self.goal = set_up(task, kind, rng)  # type: ignore[arg-type]
        self.player = Player(self.room, self.goal)
        return Task(self.goal.text, self._look(), VERBS, rng.choice(_SYSTEMS), _MAX_STEPS)

    def step(self, call: Call) -> Feedback:
        names = {key: " ".join(str(value).split()) for key, value in call.arguments.items()}
        try:
            told, error = getattr(self, f"_{call.tool}")(**names), False
        except _Refused as refused:
            told, error = str(refused), True
        score = self.goal.score(self.room, self.player.at, self.player.carried)
        return Feedback(told, error, round(score, 3), score == 1.0, score == 1.0)

    # --- what the tools do --------------------------------------------------------------------------------------------

    def _go_to(self, place: str) -> str:
        there = self._place(place)
        if there.name == self.player.at:
            raise _Refused(f"You are at the {there.name} already.")
        self.player.go(there.name)
        return f"You walk to the {there.name}. {self._seen(there)}"

    def _open(self, place: str) -> str:
        here = self._here(place)
        if not here.openable:
            raise _Refused(f"The {here.name} is nothing that one opens.")
        if here.is_open:
            raise _Refused(f"The {here.name} is open already.")
        here.is_open = True
        return f"You open the {here.name}. {self._seen(here)}"

    def _close(self, place: str) -> str:
        here = self._here(place)
        if not here.openable:
            raise _Refused(f"The {here.name} is nothing that one closes.")
        if not here.is_open:
            raise _Refused(f"The {here.name} is closed already.")
        here.is_open = False
        return f"You close the {here.name}."

    def _take(self, object: str, place: str) -> str:
        here = self._within(place)
        if self.player.carried:
            raise _Refused(f"You hold the {self.player.carried} already; put it down first.")
        if object not in here.things:
            raise _Refused(f"There is no {object} {here.word} the {here.name}.")
        if self.room.things[object].kind == LAMP:
            raise _Refused(f"The {object} cannot be carried about: it is fixed to the {here.name}.")
        here.things.remove(object)
        self.player.carried = object
        return f"You take the {object} from the {here.name}."

    def _put(self, object: str, place: str) -> str:
        self._held(object)
        here = self._within(place)
        here.things.add(object)
        self.player.carried = ""
        return f"You put the {object} {here.word} the {here.name}."

    def _clean(self, object: str, place: str) -> str:
        return self._treat("clean", object, place)

    def _heat(self, object: str, place: str) -> str:
        return self._treat("heat", object, place)

    def _cool(self, object: str, place: str) -> str:
        return self._treat("cool", object, place)

    def _treat(self, treatment: Treatment, name: str, place: str) -> str:
        self._held(name)
        here = self._here(place)
        if here.kind != APPLIANCES[treatment]:
            raise _Refused(f"With the {here.name} you cannot {treatment} anything. It takes a {APPLIANCES[treatment]}.")
        states = self.room.things[name].states
        if RESULTS[treatment] in states:
            raise _Refused(f"The {name} is {RESULTS[treatment]} already.")
        states.discard({"heat": "cold", "cool": "hot"}.get(treatment, ""))
        states.add(RESULTS[treatment])
        return _TREATED[treatment].format(object=name, place=here.name)

    def _switch_on(self, object: str) -> str:
        return self._switch(object, True)

    def _switch_off(self, object: str) -> str:
        return self._switch(object, False)

    def _switch(self, name: str, on: bool) -> str:
        here = self.player.place
        if here is None or not here.is_open or name not in here.things:
            raise _Refused(f"There is no {name} where you are.")
        lamp = self.room.things[name]
        if lamp.kind != LAMP:
            raise _Refused(f"The {name} cannot be switched on or off.")
        if lamp.lit == on:
            raise _Refused(f"The {name} is {'on' if on else 'off'} already.")
        lamp.lit = on
        held = f" You see the {self.player.carried} in its light." if on and self.player.carried else ""
        return f"You switch the {name} {'on' if on else 'off'}.{held}"

    def _examine(self, name: str) -> str:
        here = self.player.place
        if here is not None and name == here.name:
            return self._seen(here)
        if name in self.room.places:
            raise _Refused(f"The {name} is too far away. Go there first.")
        if name != self.player.carried and (here is None or not here.is_open or name not in here.things):
            raise _Refused(f"You see no {name} here.")
        thing = self.room.things[name]
        if thing.kind == LAMP:
            return f"The {name} is {'on' if thing.lit else 'off'}."
        if thing.states:
            return f"The {name} is {' and '.join(sorted(thing.states))}."
        return f"There is nothing special about the {name}: it is neither hot nor cold, nor freshly washed."

    def _look(self) -> str:
        kind = self.room.kind.replace("_", " ")
        names = sorted(
            self.room.places, key=lambda name: (name.rpartition(" ")[0].lower(), int(name.rpartition(" ")[2]))
        )
        told = f"You are in a {kind}. Around you there is this furniture: {', '.join(names)}."
        here = self.player.place
        return (
            f"{told} You stand in the middle of it."
            if here is None
            else f"{told} You stand at the {here.name}. {self._seen(here)}"
        )

    def _inventory(self) -> str:
        held = self.player.carried
        return f"You hold {article(held)}." if held else "You hold nothing."

    # --- what is where ------------------------------------------------------------------------------------------------

    def _place(self, name: str) -> Place:
        if name not in self.room.places:
            raise _Refused(f"There is no furniture named {name} in this room.")
        return self.room.places[name]

    def _here(self, name: str) -> Place:
        place = self._place(name)
        if self.player.at != name:
            raise _Refused(f"You are not at the {name}. Go there first.")
        return place

    def _within(self, name: str) -> Place:
        place = self._here(name)
        if not place.is_open:
            raise _Refused(f"The {name} is closed.")
        return place

    def _held(self, name: str) -> None:
        if name != self.player.carried or not name:
            held = f"you hold the {self.player.carried}" if self.player.carried else "you hold nothing"
            raise _Refused(f"You do not hold any {name}: {held}.")

    def _seen(self, place: Place) -> str:
        """What is seen at a place when one stands there; the player takes note of it."""
        self.player.look_into()
        if not place.is_open:
            return f"The {place.name} is closed."
        things = sorted(place.things)
        lit = "".join(f" The {name} is on." for name in things if self.room.things[name].lit)
        if not things:
            return f"There is nothing {place.word} {'it' if place.openable else f'the {place.name}'}."
        return f"{place.word.title()} the {place.name} you see {_listed(things)}.{lit}"

    # --- for players --------------------------------------------------------------------------------------------------

    def choices(self) -> Sequence[Call]:
        """Going to where a thing may well lie that has not been found yet is none of them: it would be no mistake."""
        player, here = self.player, self.player.place
        sensible = player.sensible_places() if not player.carried or self.goal.task == "look" else set()
        calls = [Call("go_to", {"place": name}) for name in self.room.places if name not in {player.at, *sensible}]
        if here is not None:
            if here.openable:
                calls.append(Call("close" if here.is_open else "open", {"place": here.name}))
            calls += [Call("take", {"object": name, "place": here.name}) for name in self._in_sight()]
            calls += [
                Call("switch_off" if self.room.things[name].lit else "switch_on", {"object": name})
                for name in self._in_sight()
                if self.room.things[name].kind == LAMP
            ]
        if player.carried:
            calls += [Call("put", {"object": player.carried, "place": name}) for name in self.room.places]
            calls += [
                Call(treatment, {"object": player.carried, "place": place.name})
                for treatment, kind in APPLIANCES.items()
                for place in self.room.places.values()
                if place.kind == kind
            ]
        return [*sorted(calls, key=lambda call: call.key), *self.looks()]

    def _in_sight(self) -> list[str]:
        here = self.player.place
        return sorted(here.things) if here is not None and here.is_open else []

    def looks(self) -> Sequence[Call]:
        near = [self.player.at, self.player.carried, *self._in_sight()]
        return [
            Call("inventory"), Call("look"), *(Call("examine", {"name": name}) for name in sorted(near) if name)
        ]  # fmt: skip

    def undo(self, call: Call) -> Call | None:
        """Only of what one does in search of something: everything else would be done and undone for nothing."""
        place = call.arguments.get("place")
        if not self.player.wanted() or call.tool not in ("go_to", "open"):
            return None
        if call.tool == "open":
            return Call("close", {"place": place})
        gone = place == self.player.at  # else it is asked for before going there
        back = self.player.before if gone else self.player.at
        first_time = self.player.at_new_place if gone else place not in self.player.searched
        return Call("go_to", {"place": back}) if back and first_time else None

    def oracle(self) -> Call:
        return self.player.next_call()

    def reasons(self, call: Call) -> Sequence[str]:
        """Why the expert makes this call now; () of another call."""
        return self.player.reasons(call)

    def state(self) -> str:
        places = [[place.name, place.is_open, sorted(place.things)] for place in self.room.places.values()]
        things = [[thing.name, sorted(thing.states), thing.lit] for thing in self.room.things.values()]
        return digest([self.player.at, self.player.carried, places, things])


def _listed(names: Sequence[str]) -> str:
    """As in "a cup 1, an egg 1 and a mug 2"."""
    with_articles = [article(name) for name in names]
    return " and ".join([", ".join(with_articles[:-1])] * (len(names) > 1) + with_articles[-1:])
