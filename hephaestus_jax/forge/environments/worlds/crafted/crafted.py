"""Environments of this project's own: a machine, generated tasks for it, an expert that goes by the machine's state.

A family is a function of a random generator that gives a `CraftedTask`: the request, what the machine holds at first,
and the steps of an expert. When an episode begins, the steps are rehearsed on a copy, which gives the state before and
after each of them. The expert then never follows a script: it asks in which of these states the machine is, makes the
looks that are still to be made there, then the next change. From any other state it seeks a way back (`_mend`): by
doing a change again, or by undoing what it can see.

Whether a task is done is decided by what the machine holds, or by the answer; never by the calls that were made.
"""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hephaestus_jax.forge.environments.environment import Call, Environment, Feedback, Split, Task, Verb

_ATTEMPTS = 3
_OBSERVATION_CHARACTERS = 4000


@dataclass(frozen=True)
class Step:
    """A call of the expert's; `slips` are mistakes that lie near it."""

    call: Call
    slips: tuple[Call, ...] = ()


@dataclass(frozen=True)
class CraftedTask:
    """A task, without what is particular to one machine.

    `answer` is what has to be submitted, "" where the machine itself has to be changed; `near` are answers that one
    might give too early or by mistake, all of them to be seen in the task.
    """

    goal: str
    steps: tuple[Step, ...]
    answer: str = ""
    near: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rehearsed:
    """What a step brings about where all goes well: its observation, and the state after it."""

    observation: str
    state: str


@dataclass(frozen=True)
class Heard:
    """A call that was made, its observation, and the states before and after."""

    call: Call
    observation: str
    error: bool
    before: str
    after: str


SUBMIT = Verb(
    "submit",
    (
        "Hand in the task once it is done, with the answer if the task asks for one. A wrong hand-in is refused; there"
        f" are {_ATTEMPTS} attempts.",
        f"Finish the task. Give the answer if one is asked for. You have {_ATTEMPTS} attempts.",
    ),
    {"answer": {"type": "string", "description": "The answer; leave it out if the task asks for none."}},
    other_names=("finish", "hand_in"),
    reasons=(
        "All that was asked for is done, so I hand it in.",
        "I have what is needed to finish.",
        "This settles the task; I submit.",
        "Nothing is left to do but to hand it in.",
    ),
    optional=("answer",),
)


class Crafted(Environment):
    """What the environments of this kind have in common; each adds its machine."""

    name: ClassVar[str]
    verbs: ClassVar[tuple[Verb, ...]]
    systems: ClassVar[tuple[str, ...]]
    families: ClassVar[Mapping[str, Callable[[random.Random], CraftedTask]]]

    def __init__(self) -> None:
        self._episode: tuple[str, int] | None = None
        self._task: CraftedTask
        self._rehearsed: list[Rehearsed] = []
        self._start = ""
        self._heard: list[Heard] = []
        self._told: list[str] = []  # all that a player has read so far
        self._attempts, self._success, self._done = _ATTEMPTS, False, False
        self._checked: tuple[str, tuple[int, int]] = ("", (0, 0))  # a state and what it passes

    def reset(self, game: str, seed: int, split: Split) -> Task:
        fresh = self._episode != (game, seed)
        if fresh:
            self._episode = None
            self._task = self.families[game](random.Random(f"{self.name} {game} {seed}"))
        self._begin(fresh)
        self._start = self._state()
        if fresh:
            self._rehearsed = self._rehearse([step.call for step in self._task.steps])
            self._episode = (game, seed)
        self._heard, self._told = [], [self._task.goal]
        self._attempts, self._success, self._done = _ATTEMPTS, False, False
        self._checked = ("", (0, 0))
        system = random.Random(f"system {self.name} {game} {seed}").choice(self.systems)
        steps = min(100, 2 * len(self._task.steps) + 10)
        return Task(self._task.goal, "", (*self.verbs, SUBMIT), system, steps)

    def step(self, call: Call) -> Feedback:
        if self._done:
            return Feedback(
                "The task has been handed in; nothing more can be done.", True, self._score(), self._success, True
            )
        before = self._state()
        observation, error = self._submit(call) if call.tool == "submit" else self._do(call)
        observation = tidy(observation)
        self._heard.append(Heard(call, observation, error, before, self._state()))
        self._told += [str(value) for _, value in sorted(call.arguments.items())]
        self._told.append(observation)
        return Feedback(observation, error, self._score(), self._success, self._done)

    def _submit(self, call: Call) -> tuple[str, bool]:
        answer, wanted = str(call.arguments.get("answer", "")), self._task.answer
        if wanted:
            right = same_answer(answer, wanted)
            complaint = "" if right else "the answer is wrong" if answer else "an answer is needed"
        else:
            passed, count = self._passed()
            complaint = "" if passed == count else f"{count - passed} of {count} checks failed"
        if not complaint:
            self._success = self._done = True
            return "Accepted.", False
        self._attempts -= 1
        self._done = not self._attempts
        left = {0: "no attempts left", 1: "1 attempt left"}.get(self._attempts, f"{self._attempts} attempts left")
        return f"Not accepted: {complaint}; {left}.", True

    def _score(self) -> float:
        if self._success:
            return 1.0
        if self._task.answer:
            return 0.0
        passed, count = self._passed()
        return round(0.9 * passed / count, 4)

    def _passed(self) -> tuple[int, int]:
        """What `_checks` says, asked once for every state."""
        state = self._state()
        if state != self._checked[0]:
            self._checked = (state, self._checks())
        return self._checked[1]

    def answer(self) -> str:
        return f"The answer is {self._task.answer}." if self._task.answer else ""

    def state(self) -> str:
        return f"{self._state()} {self._attempts} {self._success}"

    def oracle(self) -> Call | None:
        if self._done:
            return None
        return self._next_step(self._state())

    def _next_step(self, now: str) -> Call | None:
        before = self._start
        states = {self._start, *(rehearsed.state for rehearsed in self._rehearsed)}
        if now not in states:
            return self._mend(now, states)
        for step, rehearsed in zip(self._task.steps, self._rehearsed, strict=True):
            if before == now and (before != rehearsed.state or not self._has_seen(step.call, rehearsed.observation)):
                return step.call
            before = rehearsed.state
        return Call("submit", {"answer": self._task.answer} if self._task.answer else {})

    def _has_seen(self, call: Call, observation: str) -> bool:
        return any(heard.call.key == call.key and heard.observation == observation for heard in self._heard)

    def has_read(self, *names: str) -> bool:
        """Whether a player has read all these names so far."""
        return all(any(name in text for text in self._told) for name in names)

    def reasons(self, call: Call) -> Sequence[str]:
        if call.tool != SUBMIT.name:
            return self._why(call)
        answer = str(call.arguments.get("answer", ""))
        if not answer or "{" in answer:
            return ()
        return (
            f"That gives {answer}, so I submit it.",
            f"The answer is {answer}.",
            f"So it is {answer}; I hand that in.",
        )

    def _has_changed(self) -> bool:
        """Whether the player has changed the machine so far."""
        return any(heard.before != heard.after for heard in self._heard)

    def has_looked(self, *calls: Call) -> bool:
        """Whether one of these looks was made since the machine was last changed."""
        keys = {call.key for call in calls}
        for heard in reversed(self._heard):
            if heard.before != heard.after:
                return False
            if heard.call.key in keys and not heard.error:
                return True
        return False

    def choices(self) -> Sequence[Call]:
        if self._done:
            return ()
        right = self.oracle()
        found = list(self.looks())
        looks = {look.key for look in found}
        if right is not None:
            found += self._slips(right)
            found += [slip for step in self._task.steps if step.call.key == right.key for slip in step.slips]
        found += [Call("submit", {"answer": near}) for near in self._task.near if self.has_read(near)]
        if not self._task.answer:
            found.append(Call("submit"))
        unique = {call.key: call for call in found if right is None or call.key != right.key or call.key in looks}
        return [unique[key] for key in sorted(unique)]

    def _redo(self, states: set[str]) -> Call | None:
        """A change of the expert's that leads from here to one of `states`, or a look that is needed before it.

        No later ones are tried than the next and the one after it: what they need is not known yet.
        """
        after = [self._start, *(rehearsed.state for rehearsed in self._rehearsed)]
        changes = [number for number in range(len(self._rehearsed)) if after[number] != after[number + 1]]
        reached = after.index(self._last_good(states))
        ahead = [number for number in changes if number >= reached][:2]
        for number in (*(number for number in changes if number < reached), *ahead):
            call = self._task.steps[number].call
            if self._rehearse([call])[0].state in states:
                return next((look for look in self._looks_before(number) if not self._has_made(look)), call)
        return None

    def _looks_before(self, number: int) -> list[Call]:
        looks, before = [], self._start
        for step, rehearsed in zip(self._task.steps[:number], self._rehearsed[:number], strict=True):
            if rehearsed.state == before:
                looks.append(step.call)
            before = rehearsed.state
        return looks

    def _has_made(self, call: Call) -> bool:
        return any(heard.call.key == call.key for heard in self._heard)

    def _last_good(self, states: set[str]) -> str:
        """The state before things went wrong."""
        return next((heard.before for heard in reversed(self._heard) if heard.before in states), self._start)

    @abstractmethod
    def _begin(self, fresh: bool) -> None:
        """Puts the machine into the first state of the task; not `fresh` if that was the last task, too."""

    @abstractmethod
    def _state(self) -> str:
        """A fingerprint of what the machine holds."""

    @abstractmethod
    def _rehearse(self, calls: Sequence[Call]) -> list[Rehearsed]:
        """What the calls would do one after the other, from where the machine is; leaves no trace."""

    @abstractmethod
    def _do(self, call: Call) -> tuple[str, bool]:
        """Does a call: what is observed, and whether it is an error."""

    @abstractmethod
    def _checks(self) -> tuple[int, int]:
        """How many of the task's checks the machine passes now, and of how many; none where it asks for an answer."""

    @abstractmethod
    def _mend(self, now: str, states: set[str]) -> Call | None:
        """A call that leads from a state that is none of `states` back to one of them; None if none is known."""

    def _why(self, call: Call) -> Sequence[str]:
        """Why one would make a call of the machine's tools now, of what is known."""
        return ()

    @abstractmethod
    def _slips(self, call: Call) -> list[Call]:
        """Mistakes that one makes when one means `call`."""


def tidy(text: str) -> str:
    """An observation without trailing white space, and of bounded length."""
    text = "\n".join(line.rstrip() for line in text.rstrip().split("\n"))
    if len(text) <= _OBSERVATION_CHARACTERS:
        return text
    cut = text[: _OBSERVATION_CHARACTERS - 100].rpartition("\n")[0] or text[: _OBSERVATION_CHARACTERS - 100]
    return f"{cut}\n[cut: {len(text) - len(cut):,} more characters]"


def same_answer(given: str, wanted: str) -> bool:
    """Whether two answers say the same: numbers by value, lists without regard to space, words without case."""
    first, second = _plain(given), _plain(wanted)
    if first == second:
        return True
    try:
        return abs(float(first) - float(second)) < 1e-6
    except ValueError:
        return False


def _plain(answer: str) -> str:
    text = re.sub(r"\s*,\s*", ", ", " ".join(answer.split()))
    return text.strip(" '\"`").removeprefix("./").strip(" .'\"`").lower()
