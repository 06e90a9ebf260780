"""One TextWorld game being played: what calls do, by TextWorld's own rules, and how it is told."""

from __future__ import annotations

from collections.abc import Callable

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.textworld.games import Game
from hephaestus_jax.forge.environments.worlds.textworld.scene import COOKED, CUT, Scene, listed

_LOST = "With that it can no longer be done as it was asked: the game is lost."


class Refused(Exception):
    """Something cannot be done; the message says why."""


class Session:
    """The state of a game, and what the player has seen of it.

    `seen` are entities that were in sight at some time, `visited` the rooms; only the player moves things, so what was
    seen is where it was last.
    """

    def __init__(self, game: Game) -> None:
        self.game = game
        self.state = game.state.copy()
        self.scene: Scene = game.scene(self.state)
        self.reached = [False] * len(game.quests)
        self.lost = False
        self.read = False  # the cookbook
        self.visited: set[str] = set()
        self.seen: set[str] = set()
        self.opened: set[str] = set()  # containers that were seen open
        self.last: Call | None = None
        self.at_new_room = False  # whether the last call led into a room for the first time
        self._update()

    @property
    def won(self) -> bool:
        """Whether everything that was asked for has been reached."""
        return not self.lost and all(
            reached for reached, quest in zip(self.reached, self.game.quests, strict=True) if quest.wins
        )

    @property
    def score(self) -> float:
        whole = sum(quest.reward for quest in self.game.quests)
        got = sum(q.reward for reached, q in zip(self.reached, self.game.quests, strict=True) if reached)
        return round(got / whole, 3)

    def do(self, call: Call) -> str:
        """What a call brings about, in words.

        Raises:
            Refused: it cannot be done.
        """
        rooms = len(self.visited)
        self.last = call
        told = getattr(self, f"_{call.tool}")(**{key: " ".join(str(v).split()) for key, v in call.arguments.items()})
        self.at_new_room = len(self.visited) > rooms
        return f"{told} {_LOST}" if self.lost else told

    # --- what the tools do --------------------------------------------------------------------------------------------

    def _look(self) -> str:
        return self.scene.describe()

    def _inventory(self) -> str:
        return self.scene.inventory()

    def _go(self, direction: str) -> str:
        exits = self.scene.exits[self.scene.room]
        if direction not in exits:
            raise Refused(f"There is no way out to the {direction}. There are ways to: {', '.join(exits)}.")
        door = exits[direction][1]
        if door and self.scene.status(door) != "open":
            raise Refused(f"The {self._name(door)} to the {direction} is {self.scene.status(door)}.")
        self._apply(lambda rule: rule == f"go/{direction}")
        return f"You go {direction}. {self.scene.describe()}"

    def _take(self, object: str) -> str:
        thing = self._sight(object)
        if thing in self.scene.carried:
            raise Refused(f"You carry the {object} already.")
        self._portable(thing)
        holder = self.scene.holder[thing]
        self._apply(lambda rule: rule.partition("/")[0] == "take", thing)
        off = "" if self.scene.types[holder] == "r" else f" from the {self._name(holder)}"
        return f"You take the {self._name(thing)}{off}."

    def _drop(self, object: str) -> str:
        thing = self._held(object)
        self._apply(lambda rule: rule == "drop", thing)
        return f"You drop the {self._name(thing)} on the floor."

    def _put(self, object: str, target: str) -> str:
        thing, place = self._held(object), self._sight(target)
        if not self.scene.is_furniture(place):
            raise Refused(f"You cannot put anything in or on the {self._name(place)}.")
        status = self.scene.status(place)
        if status in ("closed", "locked"):
            raise Refused(f"The {self._name(place)} is {status}.")
        self._apply(lambda rule: rule in ("put", "insert"), thing, place)
        return f"You put the {self._name(thing)} {'in' if status else 'on'} the {self._name(place)}."

    def _open(self, object: str) -> str:
        thing = self._openable(object, "open")
        status = self.scene.status(thing)
        if status != "closed":
            raise Refused(f"The {self._name(thing)} is {'open already' if status == 'open' else 'locked'}.")
        self._apply(lambda rule: rule.startswith("open/"), thing)
        if self.scene.types[thing] == "d":
            return f"You open the {self._name(thing)}."
        inside = [self.scene.named(item) for item in self.scene.contents.get(thing, ())]
        return f"You open the {self._name(thing)}. {f'In it you see {listed(inside)}.' if inside else 'It is empty.'}"

    def _close(self, object: str) -> str:
        thing = self._openable(object, "close")
        if self.scene.status(thing) != "open":
            raise Refused(f"The {self._name(thing)} is {self.scene.status(thing)} already.")
        self._apply(lambda rule: rule.startswith("close/"), thing)
        return f"You close the {self._name(thing)}."

    def _unlock(self, object: str, key: str) -> str:
        thing, held = self._lock_and_key(object, key)
        if self.scene.status(thing) != "locked":
            raise Refused(f"The {self._name(thing)} is not locked: it is {self.scene.status(thing)}.")
        self._apply(lambda rule: rule.startswith("unlock/"), thing, held)
        return f"You unlock the {self._name(thing)} with the {self._name(held)}. It is closed, but no longer locked."

    def _lock(self, object: str, key: str) -> str:
        thing, held = self._lock_and_key(object, key)
        status = self.scene.status(thing)
        if status != "closed":
            raise Refused(
                f"The {self._name(thing)} is {status}{'; close it first' if status == 'open' else ' already'}."
            )
        self._apply(lambda rule: rule.startswith("lock/"), thing, held)
        return f"You lock the {self._name(thing)} with the {self._name(held)}."

    def _eat(self, object: str) -> str:
        thing = self._held(object)
        if self.scene.has(thing, "drinkable"):
            self._apply(lambda rule: rule == "drink", thing)
            return f"You drink the {self._name(thing)}."
        if self.scene.types[thing] not in ("f", "meal") or self.scene.has(thing, "inedible"):
            why = "It is raw: cook it first." if self.scene.has(thing, "needs_cooking") else "It is not edible."
            raise Refused(f"You cannot eat the {self._name(thing)}. {why}")
        self._apply(lambda rule: rule == "eat", thing)
        return f"You eat the {self._name(thing)}."

    def _cook(self, food: str, appliance: str) -> str:
        thing, stove = self._held(food), self._sight(appliance)
        if self.scene.types[stove] not in COOKED:
            raise Refused(f"The {self._name(stove)} is nothing to cook with.")
        if not self.scene.has(thing, "cookable"):
            raise Refused(f"The {self._name(thing)} is nothing that can be cooked.")
        made = "burned" if self.scene.has(thing, "cooked") else COOKED[self.scene.types[stove]]
        self._apply(lambda rule: rule.startswith("cook/"), thing, stove)
        return f"The {self._name(thing)} is {made} now."

    def _cut(self, food: str, way: str, tool: str) -> str:
        thing, knife = self._held(food), self._held(tool)
        if not self.scene.has(knife, "sharp"):
            raise Refused(f"The {self._name(knife)} does not cut.")
        if not self.scene.has(thing, "cuttable"):
            raise Refused(f"The {self._name(thing)} cannot be cut.")
        if not self.scene.has(thing, "uncut"):
            raise Refused(f"The {self._name(thing)} has been cut already.")
        self._apply(lambda rule: rule == way, thing)
        return f"You {way} the {self._name(thing)}: it is {CUT[way]} now."

    def _prepare_meal(self) -> str:
        kitchen = next(iter(self._of("cooking_location")), ("",))[0]
        if kitchen != self.scene.room:
            raise Refused("The meal can be prepared in the kitchen only.")
        wanted = self._of("base")
        for food, ingredient in wanted:
            if food not in self.scene.carried:
                raise Refused("An ingredient is missing: you have to carry all of them.")
            for words, done in (((*COOKED.values(),), "cooked"), ((*CUT.values(),), "cut")):
                if any(self.scene.has(ingredient, word) != self.scene.has(food, word) for word in words):
                    raise Refused(f"An ingredient has not been {done} yet as the recipe says.")
        self._apply(lambda rule: rule == f"make/recipe/{len(wanted)}")
        return "You prepare the meal. You carry it now."

    def _examine(self, name: str) -> str:
        thing = self._sight(name)
        if self.game.recipe and self._name(thing) == "cookbook":
            self.read = True
            return self.game.recipe
        if self.scene.is_furniture(thing):
            return self.scene.furniture(thing)
        status = self.scene.status(thing)
        if status:
            return f"The {self._name(thing)} is {status}."
        told = self.scene.named(thing)
        return f"It is {told}." if told.endswith(")") else f"There is nothing special about the {self._name(thing)}."

    # --- TextWorld's rules --------------------------------------------------------------------------------------------

    def _apply(self, rule: Callable[[str], bool], *things: str) -> None:
        """Applies the rule whose name is meant, with these things."""
        for name in sorted(self.game.rules):
            if rule(name):
                for action in self.state.all_instantiations(self.game.rules[name], self.game.constants):
                    if set(things) <= {variable.name for variable in action.variables}:
                        self.state.apply(action)
                        self._update()
                        return
        raise Refused("That cannot be done.")

    def _of(self, name: str) -> list[tuple[str, ...]]:
        """The things that a proposition is true of."""
        return sorted(tuple(fact.names) for fact in self.state.facts if fact.name == name)

    def _update(self) -> None:
        """Takes note of what has changed: what is seen now, what is reached, what is lost."""
        self.scene = self.game.scene(self.state)
        self.visited.add(self.scene.room)
        self.seen.update(self.scene.visible())
        self.opened.update(thing for thing in self.scene.visible() if self.scene.status(thing) == "open")
        facts = set(self.state.facts)
        for number, quest in enumerate(self.game.quests):
            if self.reached[number]:
                continue
            self.reached[number] = any(conditions <= facts for conditions in quest.wins)
            self.lost |= not self.reached[number] and any(conditions <= facts for conditions in quest.fails)

    # --- what is meant ------------------------------------------------------------------------------------------------

    def _name(self, thing: str) -> str:
        return self.scene.names[thing]

    def _sight(self, name: str) -> str:
        """The id of a thing that is in sight."""
        for thing in self.scene.visible():
            if self._name(thing).lower() == name.lower():
                return thing
        raise Refused(f"You see no {name} here.")

    def _held(self, name: str) -> str:
        thing = next((item for item in self.scene.carried if self._name(item).lower() == name.lower()), "")
        if not thing:
            self._sight(name)
            raise Refused(f"You do not carry the {name}. Take it first.")
        return thing

    def _portable(self, thing: str) -> None:
        if self.scene.is_furniture(thing) or self.scene.types[thing] == "d":
            raise Refused(f"The {self._name(thing)} cannot be carried.")

    def _openable(self, name: str, what: str) -> str:
        thing = self._sight(name)
        if not self.scene.status(thing):
            raise Refused(f"The {self._name(thing)} is nothing that one could {what}.")
        return thing

    def _lock_and_key(self, name: str, key: str) -> tuple[str, str]:
        thing, held = self._openable(name, "lock or unlock"), self._held(key)
        if self.scene.keys.get(thing) != held:
            raise Refused(f"The {self._name(held)} does not fit the {self._name(thing)}.")
        return thing, held
