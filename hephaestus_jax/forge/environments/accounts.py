"""What was played: facts of every episode, and the table over them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hephaestus_jax.formats.records import (
    ApiAction,
    Json,
    MessageAction,
    Record,
    TextObservation,
    Trajectory,
    canonical_json,
    digest,
    episode_of,
    to_json,
)
from hephaestus_jax.formats.store import BYTES_PER_TOKEN


@dataclass(frozen=True)
class EpisodeFacts:
    """What the accounts tell of one episode; `steps` are the agent's, `size` the bytes of its JSON.

    `task` is equal for equal tasks, `doings` for equal calls in equal tasks, whatever was thought.
    """

    environment: str
    game: str
    split: str
    policy: str
    success: bool
    steps: int
    wrong_steps: int
    size: int
    task: str
    doings: str


def facts_of(record: Record) -> EpisodeFacts:
    """The facts of an episode's record."""
    assert isinstance(record, Trajectory)
    episode = episode_of(record)
    return EpisodeFacts(
        episode["environment"], episode["game"], episode["split"], episode["policy"], bool(record.success),
        sum(isinstance(step, ApiAction | MessageAction) for step in record.steps), len(episode["wrong_steps"]),
        len(canonical_json(to_json(record)).encode("utf-8", "surrogatepass")), episode["task"], _doings(record),
    )  # fmt: skip


def _doings(record: Trajectory) -> str:
    calls = [[step.function, step.kwargs] for step in record.steps if isinstance(step, ApiAction)]
    observed = [step.content for step in record.steps if isinstance(step, TextObservation)]
    return digest([calls, observed])


def account(episodes: Iterable[EpisodeFacts]) -> list[dict[str, Json]]:
    """Per environment, split and policy: episodes, successes, steps, wrong steps, bytes."""
    groups: dict[tuple[str, str, str], list[EpisodeFacts]] = defaultdict(list)
    for facts in episodes:
        groups[facts.environment, facts.split, facts.policy].append(facts)
    return [
        {
            "environment": environment,
            "split": split,
            "policy": policy,
            "episodes": len(items),
            "successes": sum(item.success for item in items),
            "steps": sum(item.steps for item in items),
            "wrong_steps": sum(item.wrong_steps for item in items),
            "bytes": sum(item.size for item in items),
        }
        for (environment, split, policy), items in sorted(groups.items())
    ]


def table(rows: Sequence[dict[str, Json]]) -> str:
    """The account as a table, with a line of sums."""
    lines = [
        f"{'environment':<20}{'split':<21}{'policy':<10}{'episodes':>9}{'success %':>11}{'steps':>9}{'wrong':>8}"
        f"{'k tokens':>10}"
    ]
    for row in [*rows, _sums(rows)]:
        success = 100 * row["successes"] / max(row["episodes"], 1)
        lines.append(
            f"{row['environment']:<20}{row['split']:<21}{row['policy']:<10}{row['episodes']:>9,}{success:>11.1f}"
            f"{row['steps']:>9,}{row['wrong_steps']:>8,}{row['bytes'] / BYTES_PER_TOKEN / 1e3:>10,.0f}"
        )
    return "\n".join(lines)


def _sums(rows: Sequence[dict[str, Json]]) -> dict[str, Json]:
    sums = {name: sum(row[name] for row in rows) for name in ("episodes", "successes", "steps", "wrong_steps", "bytes")}
    return {"environment": "all", "split": "", "policy": "", **sums}
