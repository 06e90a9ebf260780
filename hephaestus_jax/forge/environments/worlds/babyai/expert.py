"""The way to the goal of a BabyAI level, from any state: the package's bot, in an episode of its own.

The bot plans one action at a time, from all that it has seen since the beginning. So the expert plays the episode
along, call by call, and when the player did something else than it advised, it begins again and follows. It sees no
more than the player, who takes several steps with one call and is told only what is seen after the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.babyai.words import named

Actions = tuple[int, ...]  # of one call
MOST_STEPS = 10  # of one call
_PLANS = 60  # subgoals that the bot may make for one action; it is known to go round in circles at times


class _Stuck(Exception):
    """The bot makes plans without end."""


class _Subgoals(list):
    """The bot's stack of subgoals, which may grow so often before an action comes of it."""

    left = _PLANS

    def append(self, subgoal: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise _Stuck
        super().append(subgoal)


class Expert:
    """Advises in one episode; `begin` gives a level at the beginning of it."""

    def __init__(self, begin: Callable[[], Any]) -> None:
        self._begin = begin
        self._made: list[Actions] = []  # in the expert's own episode
        self._level: Any = None
        self._bot: Any = None
        self._advised: int | None = None  # None when the bot is at a loss, or the episode is over

    def next(self, made: Sequence[Actions]) -> Call | None:
        """What to do after the calls whose actions are `made`; None when the bot knows no way."""
        if self._level is None or list(made[: len(self._made)]) != self._made:
            self._start()
        for actions in made[len(self._made) :]:
            for action in actions:
                self._act(action)
            self._see()
            self._made.append(actions)
        return self._advice()

    def _start(self) -> None:
        from minigrid.utils.baby_ai_bot import BabyAIBot

        self._level, self._made, self._over = self._begin(), [], False
        self._bot = BabyAIBot(self._level)
        self._bot.stack = _Subgoals(self._bot.stack)
        self._look_around, self._bot._process_obs = self._bot._process_obs, lambda: None
        self._look_around()
        self._plan(None)

    def _plan(self, taken: int | None) -> None:
        """The bot's mistakes are many kinds of exceptions, failed assertions above all: it is at a loss then."""
        self._bot.stack.left = _PLANS
        try:
            self._advised = self._bot.replan(taken)
        except Exception:
            self._advised = None

    def _act(self, action: int) -> None:
        self._over = self._over or self._level.step(action)[2]
        self._plan(self._level.actions(action))

    def _see(self) -> None:
        """What comes into sight after a call; "done" is an action that changes nothing of the bot's plans."""
        self._look_around()
        if not self._over:
            self._plan(self._level.actions.done)

    def _advice(self) -> Call | None:
        if self._over:
            return None
        level, actions = self._level, self._level.actions
        front = level.grid.get(*level.front_pos)
        match self._advised:
            case actions.left:
                return Call("turn", {"direction": "left"})
            case actions.right:
                return Call("turn", {"direction": "right"})
            case actions.forward:
                return self._walk()
            case actions.pickup if front is not None:
                return Call("pick_up", {"object": named(front)})
            case actions.drop if level.carrying is not None:
                return Call("put_down", {"object": named(level.carrying)})
            case actions.toggle if front is not None and front.type == "door":
                return Call("close" if front.is_open else "open", {"object": named(front)})
        return None

    def _walk(self) -> Call | None:
        """All the steps forward that are planned from what is known now; None if the first is no way.

        They are made in the expert's own episode, to find out how many they are.
        """
        level, forward = self._level, self._level.actions.forward
        steps = 0
        while not self._over and self._advised == forward and self._bot.vis_mask[tuple(level.front_pos)]:
            before = tuple(level.agent_pos)
            self._act(forward)
            if tuple(level.agent_pos) == before:
                break
            steps += 1
            if steps == MOST_STEPS:
                break
        if not steps:
            return None
        self._see()
        self._made.append((int(forward),) * steps)
        return Call("move_forward", {"steps": steps})
