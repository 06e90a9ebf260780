"""Calls of APIs that training never saw, with what came before them.

From the validation trajectories: every step that calls the trajectory's API (`details["api"]`), or any tool on offer
where none is named. From the validation documentation of APIs that have no trajectory: the examples, as a trajectory in
which a user asks for the API by name and the agent runs one example after the other. Nothing of it was executed: calls
and results are as documented. Each call says which of the two it is from (`source`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hephaestus_jax.evals.call_forms import Call, call_of
from hephaestus_jax.evals.corruption import ApiKnowledge
from hephaestus_jax.formats.records import (
    SPLITS,
    Action,
    ApiAction,
    ApiDoc,
    CodeAction,
    Record,
    Step,
    TextObservation,
    Trajectory,
    digest,
)
from hephaestus_jax.progress import Progress

if TYPE_CHECKING:  # pyarrow
    from hephaestus_jax.formats.store import Corpus

Source = Literal["trajectory", "documentation"]


@dataclass(frozen=True)
class GoldCall:
    """A right call.

    Attributes:
        api: full name of what is called.
        group: what it is resampled together with.
        source: where it is from.
        key: tells it from every other one.
        trajectory: that it is of.
        before: steps of the trajectory that come before it.
        call: of the step at that place.
    """

    api: str
    group: str
    source: Source
    key: str
    trajectory: Trajectory
    before: int
    call: Call


def gold_calls(corpus: Corpus, group_of: Callable[[Record], str], max_calls: int = 0, seed: int = 0) -> list[GoldCall]:
    """Calls of as many APIs as possible: first one of each, then a second one, until there are `max_calls` (0: all).

    Args:
        corpus: its validation split is read.
        group_of: the group of a record.
        max_calls: how many at most.
        seed: of the choice among an API's calls, and among APIs.
    """
    by_api: dict[str, list[GoldCall]] = defaultdict(list)
    for identifier, record in corpus.read("agent_trajectories", "validation"):
        if isinstance(record, Trajectory):
            for gold in _calls(record, identifier, "trajectory", group_of(record)):
                by_api[gold.api].append(gold)
    executed = set(by_api)
    for identifier, record in corpus.read("agent_docs", "validation"):
        if isinstance(record, ApiDoc) and record.examples and record.name not in executed:
            for gold in _calls(_documented(record), identifier, "documentation", group_of(record)):
                by_api[gold.api].append(gold)
    placed = []
    for calls in by_api.values():
        calls.sort(key=lambda gold: digest([seed, gold.key]))
        placed += [(number, digest([seed, gold.key]), gold) for number, gold in enumerate(calls)]
    placed.sort(key=lambda item: item[:2])
    return [gold for _, _, gold in placed[: max_calls or None]]


def knowledge_of(corpus: Corpus, family: Mapping[str, str], calls: Sequence[GoldCall]) -> ApiKnowledge:
    """What the documentation of both splits says of the APIs called, and the names of all."""
    knowledge, called = ApiKnowledge(family), {gold.api for gold in calls}
    total = sum(corpus.count("agent_docs", split) for split in SPLITS)
    with Progress("reading documentation", "APIs", total) as progress:
        for split in SPLITS:
            for _, record in progress.track(corpus.read("agent_docs", split)):
                if isinstance(record, ApiDoc):
                    knowledge.add(record, record.name in called)
    return knowledge


def _calls(trajectory: Trajectory, identifier: str, source: Source, group: str) -> Iterator[GoldCall]:
    stated = str(trajectory.details.get("api") or "")
    names = _names(stated) if stated else frozenset(tool.name for tool in trajectory.tools)
    for index, step in enumerate(trajectory.steps):
        if not isinstance(step, Action) or step.outcome == "error" or not (stated or isinstance(step, ApiAction)):
            continue
        if (call := call_of(step, names)) is not None:
            yield GoldCall(stated or call.function, group, source, f"{identifier}/{index}", trajectory, index, call)


def _names(api: str) -> frozenset[str]:
    """The names by which an API is called: a constructor by its class's; a `__call__` cannot be seen."""
    return frozenset() if api.endswith(".__call__") else frozenset([api.removesuffix(".__init__")])


def _documented(doc: ApiDoc) -> Trajectory:
    """The examples of an API as a trajectory, in the manner of those whose examples were executed."""
    summary = " ".join(doc.description.strip().partition("\n\n")[0].split())
    steps: list[Step] = [TextObservation(f"How is `{doc.name}` used? {summary} Run it, please.", "user")]
    for number, example in enumerate(doc.examples):
        if number and example.intent:
            steps.append(TextObservation(example.intent, "user"))
        call_id = f"call_{number}"
        steps.append(CodeAction("python", example.call.strip("\n"), tool_call_id=call_id, outcome="ok"))
        steps.append(TextObservation((example.result or "").rstrip("\n"), "environment", tool_call_id=call_id))
    return Trajectory(
        tuple(steps), doc.provenance, code_languages=("python",), name=doc.name, details={"api": doc.name}
    )
