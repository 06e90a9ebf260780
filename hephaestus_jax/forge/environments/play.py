"""One episode being tried out: it keeps what was done and can be put back to any earlier point by playing again."""

from __future__ import annotations

from collections.abc import Sequence

from hephaestus_jax.forge.environments.environment import Call, Environment, Feedback, Split, Task, checked_step
from hephaestus_jax.forge.environments.seen import Seen


class Play:
    """An episode of `environment`, from its beginning; `calls` and `feedback` are what happened so far."""

    def __init__(self, environment: Environment, game: str, seed: int, split: Split) -> None:
        self.environment, self.game, self.seed, self.split = environment, game, seed, split
        self.calls: list[Call] = []
        self.feedback: list[Feedback] = []
        self.steps = 0  # made in all, those of earlier attempts included: what searching costs
        self.task: Task = environment.reset(game, seed, split)

    def restart(self, calls: Sequence[Call] = ()) -> None:
        """Begins the episode again and plays `calls`; nothing is done if that is where it stands already."""
        if [call.key for call in self.calls] == [call.key for call in calls]:
            return
        self.calls, self.feedback = [], []
        self.task = self.environment.reset(self.game, self.seed, self.split)
        for call in calls:
            self.step(call)

    def step(self, call: Call) -> Feedback:
        """Does `call`."""
        made = checked_step(self.environment, self.task.verbs, call, self.last)
        self.calls.append(call)
        self.feedback.append(made)
        self.steps += 1
        return made

    def knows(self, call: Call) -> bool:
        """Whether all that `call` names has been told of: in the goal, in an observation, as a tool's own words."""
        seen = Seen()
        words = (str([verb.descriptions, verb.parameters]) for verb in self.task.verbs)
        for text in (self.task.goal, self.task.observation, *words, *(made.observation for made in self.feedback)):
            seen.add(text)
        return all(seen.knows(value) for value in call.arguments.values() if isinstance(value, str))

    @property
    def last(self) -> Feedback | None:
        """What the last call brought about."""
        return self.feedback[-1] if self.feedback else None

    @property
    def won(self) -> bool:
        """Whether the goal is reached now."""
        return self.last is not None and self.last.success

    @property
    def over(self) -> bool:
        """Whether nothing more can be done: won, lost, or too long."""
        return self.last is not None and (self.last.done or self.last.success or len(self.calls) >= self.task.max_steps)
