"""Problems of the package reasoning-gym, solved at a desk with tools; answers are checked by the package.

What the tools can work out is worked out with them (`reasoning_plans`): the expert's calls take the numbers and words
of the problem and the results of calls before. No thought claims a derivation that is not made by calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from hephaestus_jax.forge.environments.environment import (
    Call,
    Environment,
    Feedback,
    NoWorld,
    Split,
    Task,
    Terms,
    Verb,
    environment,
)
from hephaestus_jax.forge.environments.worlds.reasoning_gym.games import GAMES, UNSEEN_GAMES
from hephaestus_jax.forge.environments.worlds.reasoning_gym.plans import Desk, Unsolvable
from hephaestus_jax.forge.environments.worlds.reasoning_gym.slips import check_of, slips
from hephaestus_jax.forge.environments.worlds.reasoning_gym.tools import VERBS, ToolError, used
from hephaestus_jax.formats.records import Json, digest

_ALL = {**GAMES, **UNSEEN_GAMES}
_MAX_STEPS = 40
_LONGEST_PLAN = 25  # calls
_TRIES = 60  # problems drawn until one can be solved by its plan
_SYSTEMS = (
    "You solve problems with the tools on offer. Submitted answers are checked; a wrong one may be mended.",
    "You have a calculator and other tools at hand. Use them rather than guessing, and submit the answer when you have "
    "it.",
    "Work on the problem step by step, with tools where they help. The problem is done when a submitted answer is "
    "accepted.",
)
_GOALS = (
    "{problem}\n\nPlease work out the answer with the tools and submit it.",
    "Here is a problem for you.\n\n{problem}\n\nSubmit the answer; it is checked at once.",
    "Please solve this and hand in the answer.\n\n{problem}\n\nYou are done when your answer is accepted.",
)


@environment(
    "reasoning_gym",
    Terms("reasoning-gym", "0.1.25", "Apache-2.0", needs=("reasoning_gym",)),
    games=tuple(GAMES),
    unseen_games=tuple(UNSEEN_GAMES),
)
class ReasoningGym(Environment):
    """Problems with exact answers, solved with a calculator and other tools."""

    def __init__(self) -> None:
        import reasoning_gym

        self._create = reasoning_gym.create_dataset
        self._drawn: tuple[str, int] | None = None  # game and seed of the problem at hand

    def reset(self, game: str, seed: int, split: Split) -> Task:
        """See `Environment.reset`. A problem that its plan does not solve is left for the next."""
        if self._drawn != (game, seed):
            self._draw(game, seed)
        self._drawn = (game, seed)
        self._results: dict[str, str] = {}  # of tools, by the keys of their calls
        self._last: Call | None = None  # of the plan
        self._best, self._won = 0.0, False
        choice = int(digest([game, seed])[:8], 16)
        goal = _GOALS[choice % len(_GOALS)].format(problem=self._problem)
        system = _SYSTEMS[choice // len(_GOALS) % len(_SYSTEMS)]
        return Task(goal, "", _verbs(_ALL[game].method), system, _MAX_STEPS)

    def _draw(self, game: str, seed: int) -> None:
        for number in range(_TRIES):
            if self._solved(game, seed + (number << 31)):
                return
        raise NoWorld(f"{game}: none of {_TRIES} problems from seed {seed} on is solved by its plan")

    def _solved(self, game: str, seed: int) -> bool:
        """Draws a problem and makes its plan; whether that leads to an answer that the package accepts."""
        generator = self._create(game, seed=seed, size=1, **_ALL[game].settings)
        entry = generator[0]
        plan: list[Call] = []

        def use(tool: str, arguments: dict[str, Json]) -> str:
            plan.append(Call(tool, arguments))
            return used(tool, arguments)

        try:
            answer = _ALL[game].solve(entry, Desk(use))
        except (Unsolvable, ToolError):
            return False
        self._generator, self._entry, self._answer = generator, entry, answer
        self._plan = list({call.key: call for call in plan}.values())
        self._problem = tidy(entry["question"])
        return self._scored(answer) == 1.0 and len(self._plan) <= _LONGEST_PLAN

    def _scored(self, answer: str) -> float:
        return min(1.0, max(0.0, float(self._generator.score_answer(answer, self._entry))))

    def step(self, call: Call) -> Feedback:
        """See `Environment.step`."""
        if call.tool == "read_problem":
            return self._feedback(self._problem)
        if self._won:
            return self._feedback("The problem is solved already.", error=True)
        if call.tool == "submit":
            return self._submit(str(call.arguments["answer"]))
        try:
            result = used(call.tool, call.arguments)
        except ToolError as error:
            return self._feedback(f"Error: {error}.", error=True)
        self._results[call.key] = result
        if call.key in {planned.key for planned in self._plan}:
            self._last = call
        return self._feedback(tidy(result) or "(empty)")

    def _submit(self, answer: str) -> Feedback:
        score = self._scored(answer)
        self._best, self._won = max(self._best, score), score == 1.0
        if self._won:
            self._accepted = answer
            return self._feedback("Correct: the answer is accepted.")
        return self._feedback(f"Wrong: the answer is not accepted (score {score:.2f} of 1).")

    def _feedback(self, told: str, error: bool = False) -> Feedback:
        return Feedback(told, error, 1.0 if self._won else self._best, self._won, self._won)

    def _next(self) -> Call:
        open_calls = [call for call in self._plan if call.key not in self._results]
        return open_calls[0] if open_calls else Call("submit", {"answer": self._answer})

    def oracle(self) -> Call | None:
        """See `Environment.oracle`: the first call of the plan that was not made yet, then the answer."""
        return None if self._won else self._next()

    def choices(self) -> Sequence[Call]:
        """What one may do by a slip in place of what comes next, answers that are at hand, and reading again."""
        seen = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])", self._problem)
        answers = list(dict.fromkeys([*list(self._results.values())[-2:], *seen[:3]]))
        calls = [*slips(self._next(), self._results), *(Call("submit", {"answer": text}) for text in answers)]
        calls = [*calls, *self.looks()]
        return list({call.key: call for call in calls}.values())

    def looks(self) -> Sequence[Call]:
        """See `Environment.looks`: reading again, and checking the last result by the opposite of what gave it."""
        check = check_of(self._last, self._results[self._last.key]) if self._last else None
        return [Call("read_problem"), *([check] if check else [])]

    def state(self) -> str:
        """See `Environment.state`; what was worked out counts, for the expert goes on from it."""
        made: list[Json] = [call.key for call in self._plan if call.key in self._results]
        return digest([self._drawn, made, self._best, self._won])

    def answer(self) -> str:
        """See `Environment.answer`."""
        if not self._won:
            return ""
        accepted = self._accepted
        return f"The answer is:\n{accepted}" if "\n" in accepted else f"The answer is {accepted}."


def tidy(text: str) -> str:
    """Lines without double blanks, no more than one empty line at a time, and a blank between sentences."""
    text = re.sub(r"(?<=[.?])(?=(Return|Do not) )", " ", text)
    lines = [re.sub(r"(?<=\S)[ \t]+", " ", line).rstrip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _verbs(method: tuple[str, ...]) -> tuple[Verb, ...]:
    """The tools, with how such problems are solved among the reasons to calculate."""
    return tuple(
        replace(verb, reasons=(*method, *method, *verb.reasons)) if method and verb.name == "calculate" else verb
        for verb in VERBS
    )
