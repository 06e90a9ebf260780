"""Wrong steps, drawn from what a player could have done: another tool, another argument, a later step too early."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.play import Play

WrongKind = Literal["wrong tool", "wrong argument", "wrong order", "premature finish"]
WRONG_KINDS: tuple[WrongKind, ...] = get_args(WrongKind)

_AHEAD = 4  # a step done too early is one of so many that come later
_UNKNOWN = 0.1  # of the wrong tools are none of those on offer


def wrong_call(kind: WrongKind, play: Play, rest: Sequence[Call], rng: random.Random) -> Call | None:
    """A call of this kind instead of `rest[0]`, where `play` stands; None if there is none.

    * wrong tool: a choice that uses another tool, with the same object where there is one; now and then a tool that
      is not on offer. To look is never wrong.
    * wrong argument: a choice with the right tool and other arguments, or the right call with a slip in a word.
    * wrong order: one of the next steps too early, of what the agent knows by now.
    """
    right = rest[0]
    if kind == "wrong order":
        later = [call for call in rest[2 : 2 + _AHEAD] if call.key != right.key and play.knows(call)]
        return rng.choice(later) if later else None
    sensible = {call.key for call in (*rest[:2], *play.environment.looks())}
    choices = [call for call in play.environment.choices() if call.key not in sensible]
    if kind == "wrong argument":
        others = [call for call in choices if call.tool == right.tool]
        slipped = _slip(right, rng)
        if slipped is not None and (not others or rng.random() < 0.25):
            return slipped
        return rng.choice(others) if others else None
    if rng.random() < _UNKNOWN:
        return replace(right, tool=_invented(right.tool, {verb.name for verb in play.task.verbs}, rng))
    others = [call for call in choices if call.tool != right.tool]
    words = {str(value) for value in right.arguments.values()}
    same = [call for call in others if words & {str(value) for value in call.arguments.values()}]
    return rng.choice(same or others) if others else None


def _slip(call: Call, rng: random.Random) -> Call | None:
    """The call with two letters of one of its words changed over; None if no argument is text that long."""
    texts = sorted(key for key, value in call.arguments.items() if isinstance(value, str) and len(value) >= 4)
    if not texts:
        return None
    name = rng.choice(texts)
    text = call.arguments[name]
    places = [at for at in range(1, len(text) - 1) if text[at].isalpha() and text[at + 1].isalpha()]
    places = [at for at in places if text[at] != text[at + 1]]
    if not places:
        return None
    at = rng.choice(places)
    return replace(call, arguments={**call.arguments, name: text[:at] + text[at + 1] + text[at] + text[at + 2 :]})


def _invented(name: str, taken: set[str], rng: random.Random) -> str:
    """A name near `name` that nothing is called."""
    made = [f"{name}_item", f"do_{name}", f"{name}_now", name.title().replace("_", ""), f"{name}s"]
    return rng.choice([item for item in made if item not in taken])
