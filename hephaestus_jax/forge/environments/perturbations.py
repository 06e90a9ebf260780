"""Changes to what an agent is offered, so that it learns to read its tools rather than to know them by heart.

The environment behind is the same: only names, descriptions and the order of the tools change, and some calls fail for
no fault of the agent's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import cached_property

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.environments.environment import Call, Verb
from hephaestus_jax.formats.records import Tool

FAILURES = (
    "Error: the request timed out after 30 s. Nothing was done.",
    "Error: the service is unavailable for the moment (503). Nothing was done.",
    "Error: connection reset by peer. The call was not carried out.",
    "Error: too many requests (429). The call was not carried out; try again.",
)


@dataclass(frozen=True)
class Perturbations:
    """How much is changed.

    Args:
        episodes: share of the episodes in which anything is.
        names: whether tools get their other names.
        descriptions: whether they get their other descriptions.
        order: whether they are shuffled.
        failures: of the calls of a changed episode so many fail once, and succeed when repeated.
    """

    episodes: float = 0.25
    names: bool = True
    descriptions: bool = True
    order: bool = True
    failures: float = 0.05

    def __post_init__(self) -> None:
        for name in ("episodes", "failures"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"perturbations: {name} is {getattr(self, name)}; give a share from 0 to 1")


NONE = Perturbations(episodes=0.0)


@dataclass(frozen=True)
class Offer:
    """The tools as an agent sees them; `changes` names what was done to them.

    `failures` is how many calls fail, as a share.
    """

    verbs: tuple[Verb, ...]
    tools: tuple[Tool, ...]
    names: dict[str, str] = field(default_factory=dict)  # the environment's name to the one on offer
    failures: float = 0.0
    changes: tuple[str, ...] = ()

    def shown(self, call: Call) -> Call:
        """A call as the agent makes it."""
        return replace(call, tool=self.names.get(call.tool, call.tool))

    def meant(self, call: Call) -> Call:
        """Inverse of `shown`; a name that only the environment knows means nothing."""
        return replace(
            call, tool=self._meanings.get(call.tool, f"{call.tool}?" if call.tool in self.names else call.tool)
        )

    @cached_property
    def _meanings(self) -> dict[str, str]:
        return {name: own for own, name in self.names.items()}

    @property
    def shown_verbs(self) -> tuple[Verb, ...]:
        """The verbs under the names on offer."""
        return tuple(replace(verb, name=self.names.get(verb.name, verb.name)) for verb in self.verbs)


def offer(verbs: tuple[Verb, ...], config: Perturbations, rng: random.Random) -> Offer:
    """The tools of one episode, changed or not."""
    if rng.random() >= config.episodes:
        return Offer(verbs, tuple(verb.tool() for verb in verbs), {verb.name: verb.name for verb in verbs})
    names = {
        verb.name: rng.choice(verb.other_names) if config.names and verb.other_names else verb.name for verb in verbs
    }
    texts = {
        verb.name: rng.choice(verb.descriptions[1:]) if config.descriptions and verb.descriptions[1:] else ""
        for verb in verbs
    }
    tools = [verb.tool(names[verb.name], texts[verb.name]) for verb in verbs]
    if config.order:
        rng.shuffle(tools)
    done = {
        "names": any(own != name for own, name in names.items()),
        "descriptions": any(texts.values()),
        "order": config.order,
        "failures": config.failures > 0,
    }
    return Offer(verbs, tuple(tools), names, config.failures, tuple(name for name, was in done.items() if was))
