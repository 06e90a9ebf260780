"""The user's words: a task and the values that its call needs."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hephaestus_jax.forge.compose.settings import Draw
from hephaestus_jax.forge.compose.tasks import READING, for_user, verb_of
from hephaestus_jax.forge.compose.wording import capitalised, human, is_plural, is_said, joined, singular, spelled
from hephaestus_jax.formats.records import Json

_INLINE = 70  # characters of values that go into the sentence of the task itself
_SHORT = 160  # characters of values that are said in one sentence
_SHOWN = re.compile(r"(?:the|a|an|all|my|information|details|one or more|some|every)\b")

_BARE = (
    "{Task}.",
    "Please {task}.",
    "Could you {task}?",
    "I need to {task}.",
    "I'd like to {task}.",
    "Can you {task}, please?",
    "I want you to {task}.",
    "Help me {task}.",
)
_BARE_READING = ("Show me {things}.", "Can I see {things}?", "I'm looking for {things}.", "I need to see {things}.")
_WITH = (
    "{Task}, with {values}.",
    "Please {task}. Use {values}.",
    "I need to {task}: {values}.",
    "Could you {task} ({values})?",
    "I'd like to {task}, using {values}.",
    "{Task}: {values}.",
)
_WITH_READING = ("Show me {things} ({values}).", "Can I see {things}? {Sentences}.")
_APART = (
    "{Request} {Sentences}.",
    "{Request} Here is what you need: {listed}.",
    "{Request} Use this: {listed}.",
    "{Request} The values are: {listed}.",
)
_LINES = (
    "{Request}\n\n{lines}",
    "{Request} The details:\n\n{lines}",
    "{Request} Use these values:\n{lines}",
    "{Request} Here is what to use:\n{lines}",
)
_FROM_BEFORE = (
    "use the {what} from that result",
    "take the {what} from what comes back",
    "for the {what}, use what the first call returned",
    "you will find the {what} in the result before it",
)


@dataclass(frozen=True)
class Value:
    """An argument that the user says."""

    name: str  # as people say it
    text: str  # as people write it
    plain: bool  # no object, and short
    several: bool = False

    @property
    def inline(self) -> str:
        return f"{self.name} {self.text}"


def values_of(arguments: Mapping[str, Json], said: str, leave: Collection[str] = ()) -> list[Value]:
    """The arguments to say, but for those that `said` already states and those to leave out."""
    found = []
    for name, value in arguments.items():
        if name in leave or _is_stated(value, said):
            continue
        text = spelled(value)
        bare = isinstance(value, bool)
        told = human(singular(name) if isinstance(value, list) and len(value) == 1 else name)
        several = is_plural(told) and isinstance(value, str | list)
        if name == "yes" and value is True:
            told, text, bare = "answer to any question", "yes", False
        said_so = Value(told, f"set to {text}" if bare else text, not text.startswith(("{", "[")), several)
        if said_so not in found:  # "skuId" of a path and "SkuId" of a body
            found.append(said_so)
    return found


def _is_stated(value: Json, text: str) -> bool:
    parts = value if isinstance(value, list) and value else [value]
    return all(isinstance(part, str) and len(part) >= 3 and is_said(part, text) for part in parts)


def request(task: str, arguments: Mapping[str, Json], draw: Draw, leave: Collection[str] = ()) -> str:
    """A request for the task that states every argument but those to leave out."""
    task = for_user(task)
    values = values_of(arguments, task, leave)
    said = " and ".join(value.inline for value in values)
    reads, things = _things(task)
    if values and len(values) <= 2 and len(said) <= _INLINE and len(task) <= 100 and all(v.plain for v in values):
        template = draw.pick(_WITH + (_WITH_READING if reads else ()))
        return _filled(template, task, things, values)
    lead = _filled(draw.pick(_BARE + (_BARE_READING if reads else ())), task, things, [])
    if not values:
        return lead
    if len(said) <= _SHORT and len(values) <= 4 and all(value.plain for value in values):
        return _filled(draw.pick(_APART), task, things, values, lead)
    return _filled(draw.pick(_LINES), task, things, values, lead)


def _things(task: str) -> tuple[bool, str]:
    """Whether the task only reads, and what it reads where that can be shown."""
    _verb, _, rest = task.partition(" ")
    return verb_of(task) in READING and bool(_SHOWN.match(rest)), rest


def _filled(template: str, task: str, things: str, values: Sequence[Value], lead: str = "") -> str:
    return template.format(
        task=task,
        Task=capitalised(task),
        things=things,
        Request=lead,
        values=joined([value.inline for value in values]),
        listed="; ".join(_pair(value) for value in values),
        lines="\n".join("- " + _pair(value) for value in values),
        Sentences=capitalised(joined([_sentence(value) for value in values])),
    )


def _pair(value: Value) -> str:
    return f"{value.name}: {value.text.removeprefix('set to ')}"


def _sentence(value: Value) -> str:
    if value.text.startswith("set to "):
        return f"{value.name} should be {value.text.removeprefix('set to ')}"
    return f"the {value.name} {'are' if value.several else 'is'} {value.text}"


def follow_up(task: str, arguments: Mapping[str, Json], linked: Sequence[str], among: bool, draw: Draw) -> str:
    """A request whose linked arguments come from the result before it; `among`: from the first of several there."""
    text = request(task, arguments, draw, linked)
    what = joined([human(singular(name) if isinstance(arguments[name], list) else name) for name in linked])
    place = " (the first one listed)" if among else ""
    joint = draw.pick(_FROM_BEFORE).format(what=what)
    return f"{text}{chr(10) if chr(10) in text else ' '}{capitalised(joint)}{place}."


def together(requests: Sequence[str], draw: Draw) -> str:
    """Several requests that do not depend on each other, in one turn."""
    if any("\n" in text for text in requests) or draw.chance(0.4):
        opening = draw.pick(("I have {n} things to do:", "Please do these {n} things:", "{N} requests, in any order:"))
        count = {2: "two", 3: "three", 4: "four", 5: "five"}.get(len(requests), str(len(requests)))
        lines = "\n".join(f"{number}. {text}" for number, text in enumerate(requests, 1))
        return f"{opening.format(n=count, N=capitalised(count))}\n{lines}"
    joints = draw.shuffled(("Also: ", "At the same time: ", "Another thing: ", "And this, please: "))
    told = [joints[number % len(joints)] + text for number, text in enumerate(requests[1:])]
    return " ".join([requests[0], *told])


def written(value: Json) -> str:
    """A value as the user gives it when asked."""
    return spelled(value) if not isinstance(value, dict) else json.dumps(value, ensure_ascii=False)
