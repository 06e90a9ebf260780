"""What an agent thinks before a step, from templates: why this step, after what was seen.

A thought names nothing that the agent cannot know: whatever any call of the episode names, now or later, is named only
when it stands in the goal, in an observation so far, or in the tools on offer; a thought without names takes its place
otherwise. `told_too_early` is the test of it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.scripts import Part
from hephaestus_jax.forge.environments.seen import Seen
from hephaestus_jax.formats.records import ApiAction, Json, TextObservation, Trajectory, canonical_json

_OPENINGS = ("First things first. ", "Let me see. ", "To begin with: ", "I start here. ", "", "", "")
_LOOKS = (
    "Before I go on, I want to be sure of how things stand.",
    "A look costs little and may save a wrong step.",
    "I am not certain what there is here, so I check.",
    "Let me take stock.",
)
_DETOURS = (
    "I do not know yet whether this leads anywhere, but it has not been tried.",
    "It might be this way; I try it.",
    "I cannot see from here what is needed, so I look elsewhere.",
)
_RETURNS = (
    "That brings me no closer. I go back.",
    "Nothing here that helps; I undo this step.",
    "Not what I was looking for, so I return to where I was.",
)
_RECOVERIES = (
    "That was not the right step. ",
    "This did not do what I wanted. ",
    "I made a mistake there. ",
    "That did not help: I have to put it right. ",
)
_REFUSED = (
    "That was refused. ",
    "The answer is an error, so this cannot be done like that. ",
    "This failed. ",
    "An error; I should do it differently. ",
)
_UNFINISHED = (
    "I was too quick: the task is not done. ",
    "It is not finished yet. ",
    "There is something left to do. ",
)
_FAILED_CALLS = (
    "The call did not go through, and not for anything I did. I repeat it.",
    "This looks like a passing failure, so I try the same call again.",
    "Nothing was done; once more.",
)
_PLAIN = (
    "This is the next step.",
    "I go on with what the task needs.",
    "From what I have seen, this comes next.",
    "This should bring me closer to the goal.",
)


@dataclass(frozen=True)
class Thoughts:
    """How often an agent thinks aloud: `share` of its steps; 0 for never."""

    share: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UserError(f"thoughts: share is {self.share}; give a number from 0 to 1")


@dataclass(frozen=True)
class Situation:
    """What a step follows: `refused` is whether the wrong step before a recovery was answered with an error."""

    part: Part
    first: bool = False
    refused: bool = False
    unfinished: bool = False  # it was said to be done and was not
    failed: bool = False  # the call before failed for no fault of the agent's


def thought(reasons: Sequence[str], call: Call, situation: Situation, seen: Seen, rng: random.Random) -> str:
    """A thought that goes before `call`; `reasons` are templates of why it is made."""
    if situation.failed:
        return rng.choice(_FAILED_CALLS)
    if situation.part == "return":
        return rng.choice(_RETURNS)
    if situation.part == "look" and rng.random() < 0.5:
        return rng.choice(_LOOKS)
    if situation.part == "detour" and rng.random() < 0.5:
        return rng.choice(_DETOURS)
    reason = _reason(reasons, call.arguments, seen, rng)
    if situation.part == "recovery":
        openings = _UNFINISHED if situation.unfinished else _REFUSED if situation.refused else _RECOVERIES
        return rng.choice(openings) + reason
    return (rng.choice(_OPENINGS) if situation.first else "") + reason


def _reason(reasons: Sequence[str], arguments: Mapping[str, Json], seen: Seen, rng: random.Random) -> str:
    """One of the reasons that can be said with what is known."""
    known = {name: str(value) for name, value in arguments.items() if seen.knows(value)}
    filled = [reason.format_map(known) for reason in reasons if slots(reason) <= known.keys()]
    possible = [reason for reason in filled if not unseen_names(reason, seen)]
    return rng.choice(possible or _PLAIN)


def slots(template: str) -> set[str]:
    """The arguments that a template names."""
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def told_too_early(trajectory: Trajectory) -> list[str]:
    """What thoughts of a trajectory name before anything has told of it, among the arguments of all its calls."""
    calls = [step for step in trajectory.steps if isinstance(step, ApiAction)]
    seen = Seen(frozenset(str(value) for call in calls for value in call.kwargs.values()))
    seen.add(trajectory.system)
    for tool in trajectory.tools:
        seen.add(canonical_json([tool.name, tool.description, tool.parameters]))
    found = []
    for step in trajectory.steps:
        if isinstance(step, ApiAction) and step.reasoning_content:
            found += unseen_names(step.reasoning_content, seen)
        elif isinstance(step, TextObservation):
            seen.add(step.content)
    return found


def unseen_names(text: str, seen: Seen) -> list[str]:
    """What a thought names although nothing has told of it, sorted."""
    lower = text.lower()
    named = (name for name in sorted(seen.names) if re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", lower))
    return [name for name in named if not seen.knows(name)]
