"""What a policy does in an episode, planned in advance: a script of moves, each with the part it plays.

Policies try things out on a `Play` until they know how the episode goes; the script is then played once more from the
beginning for the record (`episodes`), so what is recorded is what really happens.

* `oracle`: the expert's path.
* `explore`: with looks, and with detours that a player who cannot see what is hidden would make.
* `mistakes`: with wrong steps, and the way back from each, found from the state in which it left the episode.
* `random`: any of the choices; `refuse`: gives up at once. Floors, to be compared with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hephaestus_jax.forge.environments.environment import Call, Feedback
from hephaestus_jax.forge.environments.mistakes import WRONG_KINDS, WrongKind, wrong_call
from hephaestus_jax.forge.environments.planner import expert_path, solve
from hephaestus_jax.forge.environments.play import Play

Policy = Literal["oracle", "explore", "mistakes", "random", "refuse"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
# expert: a step of the way; look: changes nothing; detour, return: a way that leads nowhere, and back from it; wrong:
# a mistake; recovery: the first step of mending it; floor: of a policy that does not know better
Part = Literal["expert", "look", "detour", "return", "wrong", "recovery", "floor"]

_EXPLORED = 0.25  # looks or detours per step of the expert
_WRONG = (1, 1, 1, 2, 2, 3)  # wrong steps of an episode, drawn evenly
_TRIES = 12  # wrong steps drawn for one place until one can be mended


@dataclass(frozen=True)
class Move:
    """One step of a script; a `call` of None says to the user that the goal is reached, or that it is given up."""

    call: Call | None
    part: Part
    wrong_kind: WrongKind | None = None


@dataclass(frozen=True)
class Script:
    """An episode as it was planned; `solved` is whether it ended in success."""

    moves: tuple[Move, ...]
    solved: bool


def plan(policy: Policy, play: Play, rng: random.Random) -> Script:
    """What `policy` does in the episode."""
    return _PLANS[policy](play, rng)


def _oracle(play: Play, rng: random.Random) -> Script:
    path = expert_path(play)
    return Script(_expert(path or ()), path is not None)


def _expert(calls: Sequence[Call]) -> tuple[Move, ...]:
    return tuple(Move(call, "expert") for call in calls)


def _explore(play: Play, rng: random.Random) -> Script:
    path = expert_path(play)
    if path is None:
        return Script((), False)
    room = play.task.max_steps - len(path)
    moves: list[Move] = []
    seen: set[str] = set()
    for number, call in enumerate(path):
        if rng.random() < _EXPLORED and room >= 2:
            made = _exploration(play, [move.call for move in moves if move.call], path[number:], seen, rng)
            moves += made
            room -= len(made)
        moves.append(Move(call, "expert"))
    play.restart([move.call for move in moves if move.call])
    return Script(tuple(moves), play.won and len(moves) > len(path))  # else it is the oracle's episode again


def _exploration(
    play: Play, before: Sequence[Call], rest: Sequence[Call], seen: set[str], rng: random.Random
) -> list[Move]:
    """A look, or a detour and the way back from it, that leaves the state as it was; none if none is found."""
    play.restart(before)
    environment = play.environment
    state = environment.state()
    looks = {call.key for call in environment.looks()}
    ahead = {call.key for call in rest[:3]}
    choices = [call for call in (*environment.looks(), *environment.choices()) if call.key not in seen | ahead]
    for call in rng.sample(choices, min(len(choices), 4)):
        play.restart(before)
        made = play.step(call)
        back = environment.undo(call)
        seen.add(call.key)
        if made.error or play.over:
            continue
        if call.key in looks and environment.state() == state:
            return [Move(call, "look")]
        if back is not None and not play.step(back).error and not play.over and environment.state() == state:
            return [Move(call, "detour"), Move(back, "return")]
    return []


def _mistakes(play: Play, rng: random.Random) -> Script:
    path = expert_path(play)
    if path is None:
        return Script((), False)
    moves = list(_expert(path))
    first = 0  # a further mistake is made after the one before it was mended
    for _ in range(rng.choice(_WRONG)):
        places = list(range(first, len(moves)))
        for place in rng.sample(places, min(len(places), 4)):
            found = _mistake(play, moves, place, rng)
            if found is not None:
                moves[place:] = found
                first = place + 2
                break
    wrong = any(move.part == "wrong" for move in moves)
    return Script(tuple(moves), wrong)  # without a mistake this would be the oracle's episode again


def _mistake(play: Play, moves: Sequence[Move], place: int, rng: random.Random) -> list[Move] | None:
    """A wrong step at `place` and the whole way from there; None if no wrong step was found that can be mended."""
    before = [move.call for move in moves[:place] if move.call]
    rest = [move.call for move in moves[place:] if move.call]
    for kind in rng.sample(WRONG_KINDS, len(WRONG_KINDS)):
        if kind == "premature finish":
            if any(move.wrong_kind == kind for move in moves) or rng.random() < 0.5:
                continue  # it is always possible, and would be most of the mistakes
            return [Move(None, "wrong", kind), Move(rest[0], "recovery"), *_expert(rest[1:])]
        for _ in range(_TRIES // len(WRONG_KINDS)):
            play.restart(before)
            wrong = wrong_call(kind, play, rest, rng)
            if wrong is None:
                break
            made = play.step(wrong)
            if made.success or play.over:
                continue
            way = solve(play, rest if play.environment.gold_path() else ())
            if way and _cost(made, way, rest) and len(before) + 1 + len(way) <= play.task.max_steps:
                return [Move(wrong, "wrong", kind), Move(way[0], "recovery"), *_expert(way[1:])]
    return None


def _cost(made: Feedback, way: Sequence[Call], rest: Sequence[Call]) -> bool:
    """Whether a step was a mistake: it was refused, or the goal is further away than before, or no nearer by the same
    way. As long another way means that it was as good as what the expert would have done."""
    same = [call.key for call in way] == [call.key for call in rest]
    return len(way) > len(rest) or (len(way) == len(rest) and (made.error or same))


def _random(play: Play, rng: random.Random) -> Script:
    moves = []
    while not play.over:
        choices = play.environment.choices()
        if not choices:
            break
        call = rng.choice(list(choices))
        moves.append(Move(call, "floor"))
        play.step(call)
    return Script((*moves, Move(None, "floor")), play.won)


def _refuse(play: Play, rng: random.Random) -> Script:
    return Script((Move(None, "floor"),), False)


_PLANS: dict[Policy, Callable[[Play, random.Random], Script]] = {
    "oracle": _oracle,
    "explore": _explore,
    "mistakes": _mistakes,
    "random": _random,
    "refuse": _refuse,
}
