"""The way to the goal: by the environment's own expert, or by its gold path and a search for the way back to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.play import Play

_STEPS = 600  # that one search may make: episodes differ, and some mistakes cannot be mended


def expert_path(play: Play) -> list[Call] | None:
    """The calls of an expert from the beginning to success; `play` stands at their end. None if it does not win."""
    play.restart()
    return solve(play, play.environment.gold_path())


def solve(play: Play, rest: Sequence[Call] = (), steps: int = _STEPS) -> list[Call] | None:
    """The calls from where `play` stands to success; `play` stands at their end.

    Args:
        play: an episode, whose last call may have been a mistake.
        rest: what an expert would have done from before that mistake; read where the environment has no `oracle`.
        steps: of the environment that may be made in search, those of playing again included.

    Returns:
        None if no way was found; `play` then stands anywhere.
    """
    start = list(play.calls)
    if not rest:
        return _follow_oracle(play)
    limit = play.steps + steps
    for detour in _detours(play, start):
        if play.steps > limit:
            return None
        play.restart(start)
        way = _follow(play, [*detour, *rest])
        if way is not None:
            return way
    return None


def _follow_oracle(play: Play) -> list[Call] | None:
    start = len(play.calls)
    while not play.over:
        call = play.environment.oracle()
        if call is None:
            return None
        play.step(call)
    return play.calls[start:] if play.won else None


def _follow(play: Play, calls: Sequence[Call]) -> list[Call] | None:
    """Plays `calls` until success; the calls that it took, None if they do not win or one of them is refused."""
    start = len(play.calls)
    for call in calls:
        if play.over:
            break
        if play.step(call).error:
            return None
    return play.calls[start:] if play.won else None


def _detours(play: Play, start: Sequence[Call]) -> Iterator[list[Call]]:
    """What may lead back to the expert's path: nothing, taking back, one step, two steps; the shortest first."""
    yield []
    play.restart(start)  # what was tried has led elsewhere
    back = play.environment.undo(start[-1]) if start else None
    if back is not None:
        yield [back]
        play.restart(start)
    first = [call for call in play.environment.choices() if back is None or call.key != back.key]
    yield from ([call] for call in first)
    for call, other in itertools.product(first, first):
        if call.key != other.key:
            yield [call, other]
