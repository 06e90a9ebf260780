"""What a run took from its mixture, and how fast it went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hephaestus_jax.data.cache import MANIFEST
from hephaestus_jax.data.mixture import Mixture
from hephaestus_jax.data.mixture_spec import MixtureSpec, mixture_spec_from_json, resolve
from hephaestus_jax.data.storage import Storage
from hephaestus_jax.errors import UserError
from hephaestus_jax.reports.run_files import RunFiles, TrainPoint

MAX_ROWS = 1 << 60  # of a run: what is counted from row numbers are 64-bit integers


@dataclass(frozen=True)
class TaskFacts:
    """One task of a run's mixture: what the run took, and what its cache holds (None where it is out of reach).

    Attributes:
        share: of the rows taken.
        rows: taken by the steps done.
        epochs: of its cache.
        tokens: positions of the rows taken, padding too.
        cache_rows: rows of the cache.
        loss_tokens, loss_bytes: of the whole cache, tokens of weight above 0 and the bytes that they spell.
        efficiency: share of the cache's positions that hold a token.
    """

    task: str
    share: float
    rows: int
    epochs: float
    tokens: int
    cache_rows: int
    loss_tokens: int | None
    loss_bytes: int | None
    efficiency: float | None


@dataclass(frozen=True)
class Speed:
    """How fast a run went, first steps after a start left out; None where metrics.jsonl does not tell.

    `seconds` is the time of the steps, waiting for rows included; `wall_seconds` that of the processes that ended by
    themselves. `goodput` is how the last of those spent it.
    """

    steps: int
    tokens: int | None
    loss_tokens: int
    tokens_per_second: float | None
    loss_tokens_per_second: float | None
    step_seconds: float | None
    mfu: float | None
    stall: float | None
    memory_peak_bytes: float | None
    seconds: float | None
    wall_seconds: float | None
    goodput: Mapping[str, float]


def mixture_of(run: RunFiles) -> MixtureSpec | None:
    """The mixture of run.json; None if there is none that can be read."""
    value = run.identity.get("mixture")
    if not isinstance(value, Mapping):
        return None
    try:
        return mixture_spec_from_json(value, "run.json")
    except UserError:
        return None


def task_facts(run: RunFiles) -> tuple[TaskFacts, ...]:
    """What the steps done took from each task; empty where the mixture is not known."""
    spec, rows = mixture_of(run), run.metrics.last_step * (run.batch_size or 0)
    if spec is None or not 0 < rows < MAX_ROWS:
        return ()
    facts = []
    for use in Mixture(spec).epochs(rows):
        manifest = cache_manifest(run, spec.tasks[use.task].cache)
        loss_tokens, loss_bytes = manifest.get("loss_tokens"), manifest.get("loss_bytes")
        taken = (use.share, use.rows, use.epochs, use.tokens, use.cache_rows)
        facts.append(TaskFacts(use.task, *taken, loss_tokens, loss_bytes, manifest.get("packing_efficiency")))
    return tuple(facts)


def speed_of(run: RunFiles) -> Speed:
    """Means over the steps; of rates over a window of steps, so that they weigh every step about alike."""
    train = run.metrics.train
    timed = [point for point in train if point.step_seconds]
    step_seconds = _mean(point.step_seconds for point in timed)
    per_step = run.tokens_per_step
    rate = per_step / step_seconds if per_step and step_seconds else _mean(p.tokens_per_second for p in timed)
    memory = [point.memory_peak_bytes for point in train if point.memory_peak_bytes is not None]
    return Speed(
        steps=run.metrics.last_step,
        tokens=per_step * run.metrics.last_step if per_step else None,
        loss_tokens=sum(point.loss_tokens for point in train),
        tokens_per_second=rate,
        loss_tokens_per_second=_loss_rate(timed, step_seconds),
        step_seconds=step_seconds,
        mfu=_mean(point.mfu for point in timed),
        stall=_mean(point.stall for point in timed),
        memory_peak_bytes=max(memory, default=None),
        seconds=step_seconds * len(train) if step_seconds else None,
        wall_seconds=sum(run.metrics.wall_seconds) if run.metrics.wall_seconds else None,
        goodput=run.metrics.goodput[-1] if run.metrics.goodput else {},
    )


def _loss_rate(timed: list[TrainPoint], step_seconds: float | None) -> float | None:
    if not timed or not step_seconds:
        return None
    return sum(point.loss_tokens for point in timed) / len(timed) / step_seconds


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def cache_manifest(run: RunFiles, cache: str) -> dict[str, Any]:
    """The manifest of a cache of the run's mixture; empty where it is not on this machine any more."""
    mixture = run.settings.get("TrainConfig.mixture", "").strip("'\"")
    if not mixture or "://" in mixture or "://" in cache:  # a report is made without a network
        return {}
    try:
        value = Storage(resolve(mixture, cache)).read_json(MANIFEST)
    except UserError:
        return {}
    return value if isinstance(value, dict) else {}
