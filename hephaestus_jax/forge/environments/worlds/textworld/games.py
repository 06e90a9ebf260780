"""Games made by TextWorld from a seed: its maps, objects, names and logic, without its compiler.

TextWorld would turn each game into a story file with Inform 7, which takes seconds; here the logic is played as it is,
and only the text that the story file would give is this project's own (`textworld_scene`).
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hephaestus_jax.forge.environments.environment import Split
from hephaestus_jax.forge.environments.worlds.textworld.scene import Scene, article, scene_of

_COIN = (
    "Somewhere in these rooms lies a coin. Find it and take it.",
    "Please find the coin that lies in one of the rooms, and pick it up.",
    "Walk through the rooms until you find the coin, and take it.",
)
_TREASURE = (
    "Find the {thing} and take it. Leave the {decoy} where it is: whoever takes it has lost.",
    "Somewhere there is {a_thing}: please get hold of it. You must not take the {decoy}.",
    "Bring the {thing} into your possession, wherever it may be, but never pick up the {decoy}.",
)
_PUT = (
    "Please put the {thing} {where}.",
    "The {thing} has to go {where}. Find it and put it there.",
    "Find the {thing}, wherever it is, and put it {where}.",
)
_BRING = (
    "Please bring the {thing} to the {room} and drop it on the floor there.",
    "The {thing} belongs on the floor of the {room}: find it and drop it there.",
)
_UNLOCK = (
    "Please open the {lock}. It is locked, so you will need its key.",
    "The {lock} is locked. Find the key that fits, unlock it and open it.",
)
_GET = (
    "Please get the {thing} out of the {lock}. The {lock} is locked, and its key is somewhere.",
    "I need the {thing}. It is locked up in the {lock}: find the key and take the {thing} out.",
)
_COOK = (
    "You are hungry. Find the cookbook in the kitchen, prepare the meal by its recipe and eat it. Careful: food that "
    "is cut or cooked in another way than the recipe says is spoiled, and the game is lost.",
    "Please cook: read the cookbook in the kitchen, gather the ingredients, do with them exactly what the recipe says, "
    "prepare the meal in the kitchen and eat it. An ingredient that is treated wrongly or eaten loses the game.",
)


@dataclass(frozen=True)
class Quest:
    """Something to be reached: propositions that all have to be true; `fails` are sets of which none may be."""

    wins: tuple[frozenset[Any], ...]
    fails: tuple[frozenset[Any], ...] = ()
    reward: float = 1.0


@dataclass(frozen=True)
class Game:
    """A game at its beginning. `state` is copied before it is played; `types` and `names` are by ids."""

    state: Any
    rules: Any
    constants: Any
    names: dict[str, str]
    types: dict[str, str]
    quests: tuple[Quest, ...]
    goal: str
    recipe: str = ""
    max_steps: int = 50

    def scene(self, state: Any) -> Scene:
        return scene_of(state.facts, self.names, self.types)


def make_game(game: str, rng: random.Random, split: Split) -> Game | None:
    """A game; None if what was drawn does not have what the game needs. It may be one that cannot be won."""
    made = _MAKERS[game](rng, split)
    if made is None:
        return None
    names = [name for name in made.names.values() if name]
    return made if len(set(names)) == len(names) else None


def _coin_collector(rng: random.Random, split: Split) -> Game:
    from textworld.challenges.tw_coin_collector import coin_collector

    level = rng.choice((0, 100, 100, 200)) + rng.randint(4, 7)
    with _without_inform():
        made = coin_collector.make({"level": level}, _options(rng))
    return _game(made, _quests(made), rng.choice(_COIN))


def _cooking(rng: random.Random, split: Split) -> Game:
    ways = rng.choice(({"cook": True}, {"cut": True}, {"cook": True, "cut": True}, {}))
    size = 1 if len(ways) == 2 else rng.choice((1, 6))
    return _recipe_game(rng, split, rng.randint(1, 2 if ways else 3), size, ways)


def _feast(rng: random.Random, split: Split) -> Game:
    return _recipe_game(rng, split, rng.randint(2, 3), 6, {"cook": True, "cut": True})


def _recipe_game(rng: random.Random, split: Split, ingredients: int, rooms: int, ways: dict[str, bool]) -> Game:
    from textworld.challenges.tw_cooking import cooking

    settings: dict[str, Any] = {
        "recipe": ingredients, "take": ingredients, "go": rooms, "open": True, "drop": False, "recipe_seed": 0,
        "split": "train" if split == "train" else "test", **ways,
    }  # fmt: skip
    with _without_inform():
        made = cooking.make(settings, _options(rng))
    recipe = _recipe(made.metadata["ingredients"])
    return _game(made, _quests(made), rng.choice(_COOK), recipe)


def _recipe(ingredients: list[tuple[str, str, str]]) -> str:
    """What the cookbook says of ingredients (name, way of cooking, way of cutting)."""
    lines = []
    for name, cooked, cut in ingredients:
        states = [word for word, none in ((cut, "uncut"), (cooked, "raw")) if word != none]
        lines.append(f"- {name}: {' and '.join(states) or 'as it is'}")
    head = "The cookbook says what has to go into the meal, and how each ingredient has to be by then:"
    return "\n".join([head, *lines, "Prepare the meal in the kitchen when you carry all of this, and eat it."])


def _treasure_hunt(rng: random.Random, split: Split) -> Game | None:
    made = _house(rng)
    scene = made.scene(made.state)
    loose = _loose(scene)
    if len(loose) < 2:
        return None
    thing, decoy = rng.sample(loose, 2)
    words = {"thing": scene.names[thing], "a_thing": article(scene.names[thing]), "decoy": scene.names[decoy]}
    quest = Quest((_facts(made, ("in", thing, "I")),), (_facts(made, ("in", decoy, "I")),))
    return replace(made, quests=(quest,), goal=rng.choice(_TREASURE).format(**words))


def _delivery(rng: random.Random, split: Split) -> Game | None:
    made = _house(rng)
    return _errands(made, [_deliver(made, rng)])


def _locks(rng: random.Random, split: Split) -> Game | None:
    made = _house(rng, locked=True)
    return _errands(made, [_open_lock(made, rng)])


def _two_errands(rng: random.Random, split: Split) -> Game | None:
    made = _house(rng, locked=rng.random() < 0.5)
    return _errands(made, [_deliver(made, rng), rng.choice((_deliver, _open_lock))(made, rng)])


_MAKERS = {
    "coin_collector": _coin_collector, "treasure_hunt": _treasure_hunt, "delivery": _delivery, "locks": _locks,
    "cooking": _cooking, "two_errands": _two_errands, "feast": _feast,
}  # fmt: skip
GAMES = ("coin_collector", "treasure_hunt", "delivery", "locks", "cooking")
UNSEEN_GAMES = ("two_errands", "feast")


# --- errands in a house -----------------------------------------------------------------------------------------------


def _house(rng: random.Random, locked: bool = False) -> Game:
    """Rooms with doors, furniture and things; with `locked` one of the closed doors is locked and has a key."""
    import textworld.generator as generator
    from textworld.generator.game import Game as Made
    from textworld.generator.world import World
    from textworld.logic import Proposition, Variable

    options = _options(rng)
    rngs = options.rngs
    layout = generator.make_map(rng.randint(4, 7), rng=rngs["map"], possible_door_states=["open", "closed"])
    world = World.from_map(layout, kb=options.kb)
    world.set_player_room(rng.choice(sorted(room.id for room in world.rooms)))
    world.populate(rng.randint(12, 20), rng=rngs["objects"])
    closed = sorted(fact for fact in world.facts if fact.name == "closed" and fact.arguments[0].type == "d")
    if locked and closed:
        door = closed[0].arguments[0]
        taken = {entity.id for entity in world.entities}
        key = Variable(next(name for name in map("k_{}".format, range(99)) if name not in taken), "k")
        room = Variable(rng.choice(sorted(room.id for room in world.rooms)), "r")
        facts = [fact for fact in world.facts if fact != closed[0]]
        world = World.from_facts([*facts, Proposition("locked", [door]), Proposition("match", [key, door]),
                                  Proposition("at", [key, room])], kb=options.kb)  # fmt: skip
    return _game(Made(world, generator.make_grammar(options.grammar, rng=rngs["grammar"])), (), "")


def _errands(made: Game, errands: list[tuple[Quest, str] | None]) -> Game | None:
    """A game of these errands; None if one is missing, or two are about the same thing."""
    found = [errand for errand in errands if errand is not None]
    if len(found) < len(errands) or len({quest for quest, _ in found}) < len(found):
        return None
    if len(found) > 1:
        things = [{name for fact in quest.wins[0] for name in fact.names} - {"I", "P"} for quest, _ in found]
        if things[0] & things[1]:
            return None
    told = ("There are two things to do. " if len(found) > 1 else "") + " ".join(text for _, text in found)
    return replace(made, quests=tuple(quest for quest, _ in found), goal=told)


def _deliver(made: Game, rng: random.Random) -> tuple[Quest, str] | None:
    """A thing is to be put in or on furniture, or brought to a room."""
    scene = made.scene(made.state)
    loose = _loose(scene)
    targets = sorted(name for name, kind in scene.types.items() if kind in ("c", "s", "r"))
    if not loose:
        return None
    thing = rng.choice(loose)
    target = rng.choice([name for name in targets if name != scene.holder[thing] and name != scene.room])
    kind, name = scene.types[target], scene.names[target]
    if kind == "r":
        text = rng.choice(_BRING).format(thing=scene.names[thing], room=name)
        return Quest((_facts(made, ("at", thing, target)),)), text
    preposition = "in" if kind == "c" else "on"
    text = rng.choice(_PUT).format(thing=scene.names[thing], where=f"{preposition} the {name}")
    return Quest((_facts(made, (preposition, thing, target)),)), text


def _open_lock(made: Game, rng: random.Random) -> tuple[Quest, str] | None:
    """Something locked is to be opened, or to be emptied of a thing."""
    scene = made.scene(made.state)
    locked = sorted(thing for thing in scene.keys if scene.status(thing) == "locked")
    if not locked:
        return None
    lock = rng.choice(locked)
    inside = [thing for thing in scene.contents.get(lock, ()) if not scene.is_furniture(thing)]
    if inside and rng.random() < 0.6:
        thing = rng.choice(inside)
        text = rng.choice(_GET).format(thing=scene.names[thing], lock=scene.names[lock])
        return Quest((_facts(made, ("in", thing, "I")),)), text
    return Quest((_facts(made, ("open", lock)),)), rng.choice(_UNLOCK).format(lock=scene.names[lock])


def _loose(scene: Scene) -> list[str]:
    """Things that can be carried, are no keys, and are not carried from the beginning."""
    return sorted(thing for thing, holder in scene.holder.items() if scene.types[thing] in ("o", "f") and holder != "I")


def _facts(made: Game, *told: tuple[str, ...]) -> frozenset[Any]:
    from textworld.logic import Proposition, Variable

    types = {**made.types, "I": "I", "P": "P"}
    return frozenset(Proposition(name, [Variable(item, types[item]) for item in ids]) for name, *ids in told)


# --- TextWorld --------------------------------------------------------------------------------------------------------


def _options(rng: random.Random) -> Any:
    from textworld.generator.game import GameOptions

    options = GameOptions()
    options.seeds = {key: rng.randrange(1 << 31) for key in ("map", "objects", "quest", "grammar")}
    options.grammar.include_adj = rng.random() < 0.5
    options.grammar.allowed_variables_numbering = True
    options.kb = _knowledge(*_built_in_logic())
    return options


def _built_in_logic() -> tuple[str, str]:
    from textworld.generator import data

    return data.LOGIC_DATA_PATH, data.TEXT_GRAMMARS_PATH


@functools.cache
def _knowledge(logic_path: str, grammar_path: str) -> Any:
    """The rules of a kind of games: read once, and in an order that does not depend on the file system."""
    from textworld.generator.data import KnowledgeBase
    from textworld.logic import GameLogic

    made = KnowledgeBase(
        GameLogic.load(sorted(glob.glob(os.path.join(glob.escape(logic_path), "*.twl")))), grammar_path
    )
    made.logic_path = logic_path
    return made


def _load_knowledge(target_dir: str | None = None, logic_path: str = "", grammar_path: str = "") -> Any:
    if target_dir is not None:
        logic_path, grammar_path = os.path.join(target_dir, "logic"), os.path.join(target_dir, "text_grammars")
    built_in = _built_in_logic()
    return _knowledge(logic_path or built_in[0], grammar_path or built_in[1])


@contextlib.contextmanager
def _without_inform() -> Iterator[None]:
    """Within it TextWorld's challenges neither compile their games to try their walkthroughs, nor read rules anew."""
    import textworld
    from textworld.generator.data import KnowledgeBase

    walkthrough, load = textworld.GameMaker.set_walkthrough, KnowledgeBase.__dict__["load"]
    textworld.GameMaker.set_walkthrough = lambda self, commands: None
    KnowledgeBase.load = staticmethod(_load_knowledge)
    try:
        yield
    finally:
        textworld.GameMaker.set_walkthrough = walkthrough
        KnowledgeBase.load = load


def _quests(made: Any) -> tuple[Quest, ...]:
    return tuple(
        Quest(
            tuple(frozenset(event.condition.preconditions) for event in quest.win_events),
            tuple(frozenset(event.condition.preconditions) for event in quest.fail_events),
            float(quest.reward) if quest.win_events else 0.0,
        )
        for quest in made.quests
    )


def _game(made: Any, quests: tuple[Quest, ...], goal: str, recipe: str = "", max_steps: int = 50) -> Game:
    names = {key: " ".join((info.name or "").split()) for key, info in made.infos.items()}
    names = {key: "living room" if name == "livingroom" else name for key, name in names.items()}
    types = {key: str(info.type) for key, info in made.infos.items()}
    kb = made.kb
    return Game(made.world.state, kb.rules, kb.types.constants_mapping, names, types, quests, goal, recipe, max_steps)
