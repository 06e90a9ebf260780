"""Which episodes a roll-out plays: how many of each environment, their games, seeds, splits and policies.

Everything follows from the configuration: episode `n` of an environment is the same whatever else is played.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.environments.environment import ENVIRONMENTS, FIRST_UNSEEN_SEED, Kind, Split
from hephaestus_jax.forge.environments.episodes import Assignment, EpisodeConfig
from hephaestus_jax.forge.environments.perturbations import Perturbations
from hephaestus_jax.forge.environments.scripts import POLICIES, Policy
from hephaestus_jax.forge.environments.thoughts import Thoughts
from hephaestus_jax.formats.records import digest

ALL = "all"


@dataclass(frozen=True)
class RolloutConfig:
    """A roll-out.

    Args:
        episodes: of all environments together.
        environments: names with their shares of the episodes, as "name" or "name=share" (1 where none is given), or
            "all".
        held_out: environments that training never sees at all; their episodes go to validation.
        policies: names with their shares, written alike.
        validation_fraction: share of the episodes that are of unseen seeds and unseen games, half and half.
        thoughts: share of the steps before which the agent thinks aloud; 0 for none.
        perturbed: share of the episodes whose tools are renamed, described otherwise and shuffled.
        failures: share of the calls of those that fail once.
        seed: keys every choice.
        workers: processes; the bytes are the same for any number.
        modules: modules that register further environments.
    """

    episodes: int = 20_000
    environments: tuple[str, ...] = (ALL,)
    held_out: tuple[str, ...] = ()
    policies: tuple[str, ...] = ("oracle=2", "explore=3", "mistakes=5")
    validation_fraction: float = 0.05
    thoughts: float = 0.7
    perturbed: float = 0.25
    failures: float = 0.05
    seed: int = 0
    workers: int = 2
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.workers < 1:
            raise UserError("episodes and workers must be 1 or more")
        if not 0 <= self.validation_fraction <= 0.5:
            raise UserError(f"validation_fraction is {self.validation_fraction}; give a share from 0 to 0.5")
        shares("policies", self.policies, POLICIES)
        self.words  # noqa: B018  shares that are none are an error here, not in a worker

    @property
    def words(self) -> EpisodeConfig:
        """How episodes are put into words."""
        return EpisodeConfig(Thoughts(self.thoughts), Perturbations(self.perturbed, failures=self.failures))

    def kinds(self) -> list[tuple[Kind, float]]:
        """The environments with their shares, in the order of their names.

        Raises:
            UserError: one is unknown.
        """
        named = tuple(ENVIRONMENTS) if self.environments == (ALL,) else self.environments
        found = shares("environments", named, tuple(ENVIRONMENTS))
        unknown = set(self.held_out) - set(ENVIRONMENTS)
        if unknown:
            raise UserError(f"held_out names {', '.join(sorted(unknown))}; known are {', '.join(sorted(ENVIRONMENTS))}")
        return [
            (replace(ENVIRONMENTS[name], held_out=ENVIRONMENTS[name].held_out or name in self.held_out), share)
            for name, share in sorted(found.items())
        ]


def shares(setting: str, entries: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """`("a=2", "b")` as {"a": 2.0, "b": 1.0}.

    Raises:
        UserError: a name is unknown or comes twice, or a share is no number above 0.
    """
    found: dict[str, float] = {}
    for entry in entries:
        name, _, share = entry.partition("=")
        if name not in known:
            raise UserError(f"{setting} names {name!r}; known are {', '.join(sorted(known))}")
        try:
            number = float(share) if share else 1.0
        except ValueError:
            number = 0.0
        if name in found or not 0 < number < float("inf"):
            raise UserError(f"{setting}: {entry!r} must be a name, used once, or name=share with a share above 0")
        found[name] = number
    if not found:
        raise UserError(f"{setting} is empty; name at least one of {', '.join(sorted(known))}")
    return found


def dealt(total: int, parts: Sequence[float]) -> list[int]:
    """`total` dealt out by shares: whole numbers that add up to it, the largest remainders rounded up."""
    whole = sum(parts)
    exact = [total * part / whole for part in parts]
    counts = [int(value) for value in exact]
    order = sorted(range(len(parts)), key=lambda number: (counts[number] - exact[number], number))
    for number in order[: total - sum(counts)]:
        counts[number] += 1
    return counts


def split_counts(kind: Kind, episodes: int, validation_fraction: float) -> dict[Split, int]:
    """How many episodes of an environment are of each split."""
    if kind.held_out:
        return {"unseen_environments": episodes}
    unseen = round(episodes * validation_fraction)
    games = unseen // 2 if kind.unseen_games else 0
    counts: dict[Split, int] = {
        "train": episodes - unseen, "unseen_seeds": unseen - games, "unseen_games": games,
    }  # fmt: skip
    return {split: count for split, count in counts.items() if count}


def episodes_of(kind: Kind, split: Split, first: int, last: int, config: RolloutConfig) -> Iterator[list[Assignment]]:
    """The episodes `first` to `last` (exclusive) of an environment and split.

    Yields:
        what to try for one episode, in this order: its own seed, two others when that cannot be played by its policy,
        and the expert when none can.
    """
    games = {
        "unseen_games": kind.unseen_games,
        "unseen_environments": (*kind.games, *kind.unseen_games),
    }.get(split, kind.games)
    weights = shares("policies", config.policies, POLICIES)
    names: list[Policy] = [policy for policy in POLICIES if policy in weights]
    for number in range(first, last):
        rng = random.Random(digest([config.seed, kind.name, split, number]))
        (policy,) = rng.choices(names, [weights[name] for name in names])
        lowest = 0 if split == "train" else FIRST_UNSEEN_SEED
        seeds = [lowest + rng.randrange(FIRST_UNSEEN_SEED) for _ in range(4)]
        tried = [Assignment(kind, games[number % len(games)], seed, split, policy) for seed in seeds]
        tried[3] = replace(tried[3], policy="oracle")
        yield tried
