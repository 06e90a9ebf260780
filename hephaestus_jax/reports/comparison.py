"""Runs against a baseline: held-out loss per slice and ranking accuracy, with intervals and verdicts in words.

A difference is always *run minus baseline*. It has an interval only where both were measured on the same records of the
same inputs: the records are then paired and their groups resampled (`evals.bootstrap`). Where that is not so, the
difference says why, and no verdict is given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hephaestus_jax.evals.bootstrap import Interval, PerRecord, paired_bootstrap
from hephaestus_jax.reports.evaluation_file import Evaluation, Ranking, RecordLosses
from hephaestus_jax.reports.run_facts import mixture_of
from hephaestus_jax.reports.run_files import RunFiles

ALL = "all"  # corruptions together
LEVEL = 0.95
LEVEL_WORDS = f"{100 * LEVEL:.0f} %"
FEW_GROUPS = 10  # below, the bootstrap's interval is itself too uncertain to be left without a word

SLICES = {
    "agent_docs": "documentation of held-out APIs",
    "agent_trajectories": "calls of held-out APIs",
    "agent_environments": "episodes of unseen games",
    "code": "code",
    "text": "text",
}
"""The slices in the order of a report, and what they are."""

CORRUPTIONS = ("wrong_function", "wrong_argument", "missing_argument")
"""What is wrong with the calls that right ones are ranked against, in the order of a report."""

Verdict = Literal["better", "worse", "no difference shown", "not compared"]
Measure = Literal["nats/token", "bits/byte", "accuracy"]


@dataclass(frozen=True)
class Difference:
    """A run's value minus the baseline's.

    Attributes:
        measure: of the value; a smaller loss is better, a larger accuracy is.
        value: the difference; NaN where there is none.
        relative: the difference as a share of the baseline's value.
        low, high: of the interval; NaN where `why_not` says why there is none.
        groups: that were resampled.
        why_not: empty where there is an interval.
    """

    measure: Measure
    value: float
    relative: float
    low: float = math.nan
    high: float = math.nan
    groups: int = 0
    why_not: str = ""

    @property
    def verdict(self) -> Verdict:
        """What the interval allows to say."""
        if self.why_not or not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "not compared"
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "better" if (self.low > 0) == (self.measure == "accuracy") else "worse"


@dataclass(frozen=True)
class LossCell:
    """One run on one slice; `difference` is None for the baseline itself. `step` is None for an evaluation.json."""

    run: str
    nats_per_token: float
    bits_per_byte: float
    records: int
    tokens: int
    step: int | None
    difference: Difference | None


@dataclass(frozen=True)
class AccuracyCell:
    """One run on one corruption; the interval is of the accuracy itself, NaN where there is none.

    `chance` is the accuracy of guessing, `trivial` that of a rule that looks at no model (NaN where it is not told).
    """

    run: str
    accuracy: float
    low: float
    high: float
    chance: float
    trivial: float
    pairs: int
    difference: Difference | None


@dataclass(frozen=True)
class Comparison:
    """Everything that is compared.

    Attributes:
        baseline: name of the run that differences are against.
        measure: of the losses' differences.
        why_measure: why it is bits per byte, if it is.
        losses: cells by slice, in the order of the runs.
        accuracies: cells by corruption; `ALL` is every pair together.
        groups: what is resampled, in words.
    """

    baseline: str
    measure: Measure
    why_measure: str
    losses: Mapping[str, tuple[LossCell, ...]]
    accuracies: Mapping[str, tuple[AccuracyCell, ...]]
    groups: str


def compare(runs: Sequence[RunFiles], baseline: RunFiles) -> Comparison:
    """Every run against `baseline`, which is one of them."""
    why = _why_bits(runs)
    measure: Measure = "bits/byte" if why else "nats/token"
    losses = {}
    for name in _slices(runs):
        cells = (_loss_cell(run, baseline, name, measure) for run in runs)
        losses[name] = tuple(cell for cell in cells if cell is not None)
    accuracies = {}
    for corruption in _corruptions(runs):
        scores = (_accuracy_cell(run, baseline, corruption) for run in runs)
        accuracies[corruption] = tuple(score for score in scores if score is not None)
    groups = next((run.evaluation.groups for run in runs if run.evaluation and run.evaluation.groups), "")
    return Comparison(baseline.name, measure, why, losses, accuracies, groups)


def vocabulary_of(run: RunFiles) -> str:
    """Digest of the vocabulary that the run's losses are in; "" where it is not known."""
    given = run.evaluation.inputs.get("vocabulary") if run.evaluation else None
    if isinstance(given, Mapping):
        given = given.get("digest")
    return str(given or run.vocabulary or "")


def _why_bits(runs: Sequence[RunFiles]) -> str:
    measured = [run for run in runs if run.evaluation or run.metrics.held_out]
    known = {vocabulary_of(run) for run in measured}
    if len(known) < 2:
        return ""
    if "" in known:
        unknown = ", ".join(run.name for run in measured if not vocabulary_of(run))
        return f"the vocabulary of {unknown} is not known, so nats per token may count different tokens"
    return "the runs have different vocabularies, so a token of one is not a token of the other"


def _slices(runs: Sequence[RunFiles]) -> list[str]:
    names = {name for run in runs for name in (run.evaluation.slices if run.evaluation else ())}
    names |= {name for run in runs for name in run.metrics.held_out}
    return [*(name for name in SLICES if name in names), *sorted(names - set(SLICES))]


def _loss_cell(run: RunFiles, baseline: RunFiles, name: str, measure: Measure) -> LossCell | None:
    difference = None if run is baseline else _loss_difference(run, baseline, name, measure)
    if run.evaluation is not None and name in run.evaluation.slices:
        part = run.evaluation.slices[name]
        return LossCell(run.name, part.nats_per_token, part.bits_per_byte, part.records, part.tokens, None, difference)
    points = run.metrics.held_out.get(name, ())
    if not points:
        return None
    last = points[-1]
    nats = math.nan if last.nats_per_token is None else last.nats_per_token
    bits = math.nan if last.bits_per_byte is None else last.bits_per_byte
    return LossCell(run.name, nats, bits, 0, last.tokens or 0, last.step, difference)


def _loss_difference(run: RunFiles, baseline: RunFiles, name: str, measure: Measure) -> Difference:
    ours, theirs = run.evaluation, baseline.evaluation
    if ours is None or theirs is None or name not in ours.slices or name not in theirs.slices:
        return _unpaired_metrics(run, baseline, name, measure)
    a, b = ours.slices[name], theirs.slices[name]
    value, reference = (s.nats_per_token if measure == "nats/token" else s.bits_per_byte for s in (a, b))
    why = _why_unpaired(ours, theirs)
    if a.per_record is None or b.per_record is None:
        why = why or "evaluation.json has no losses per record"
    elif _grouped(a.per_record) != _grouped(b.per_record):
        return Difference(measure, math.nan, math.nan, why_not=why or "the records evaluated are not the same")
    elif measure == "bits/byte" and not (a.per_record.bytes_R > 0).all():
        why = why or "some records spell no bytes"
    difference = Difference(measure, value - reference, _share(value - reference, reference), why_not=why)
    if why or a.per_record is None or b.per_record is None:
        return difference
    interval = paired_bootstrap(_ratios(a.per_record, measure), _ratios(b.per_record, measure), level=LEVEL)
    return _with_interval(difference, interval)


def _grouped(records: RecordLosses) -> dict[str, str]:
    return dict(zip(records.ids, records.groups, strict=True))


def _ratios(records: RecordLosses, measure: Measure) -> PerRecord:
    """The records as numerators and denominators of the measure."""
    if measure == "nats/token":
        return PerRecord(records.ids, records.groups, records.nats_R.tolist(), records.tokens_R.tolist())
    return PerRecord(records.ids, records.groups, (records.nats_R / math.log(2)).tolist(), records.bytes_R.tolist())


def _unpaired_metrics(run: RunFiles, baseline: RunFiles, name: str, measure: Measure) -> Difference:
    """The difference of the last held-out losses during training, if they were measured on the same rows."""
    missing = [r.name for r in (run, baseline) if r.evaluation is None or name not in r.evaluation.slices]
    why = f"{' and '.join(missing)} {'has' if len(missing) == 1 else 'have'} no evaluation.json with this slice"
    points = [r.metrics.held_out[name][-1] for r in (run, baseline) if name in r.metrics.held_out]
    digests = {_validation_digest(run, name), _validation_digest(baseline, name)}
    same = len(points) == 2 and points[0].tokens == points[1].tokens and len(digests) == 1 and "" not in digests
    if len(missing) < 2 or not same:
        return Difference(measure, math.nan, math.nan, why_not=why)
    before, after = (p.nats_per_token if measure == "nats/token" else p.bits_per_byte for p in reversed(points))
    if before is None or after is None:
        return Difference(measure, math.nan, math.nan, why_not=why)
    return Difference(measure, after - before, _share(after - before, before), why_not=why)


def _validation_digest(run: RunFiles, name: str) -> str:
    """Digest of the cache that the slice's held-out loss was measured on during training; "" if not known."""
    spec = mixture_of(run)
    part = spec.validation.get(name) if spec is not None else None
    return part.digest if part is not None else ""


def _why_unpaired(a: Evaluation, b: Evaluation) -> str:
    """Why records of two evaluations cannot be paired; empty if they can."""
    for name in ("vocabulary", "corpus", "mixture", "options", *sorted({*a.inputs, *b.inputs})):
        if a.inputs.get(name) != b.inputs.get(name):
            return f"the two were evaluated with different inputs ({name})"
    return ""


def _share(difference: float, reference: float) -> float:
    return difference / reference if reference else math.nan


# ------------------------------------------------------------------------------------------------------------ rankings


def _corruptions(runs: Sequence[RunFiles]) -> list[str]:
    rankings = (run.evaluation.ranking for run in runs if run.evaluation)
    names = {name for ranking in rankings if ranking is not None for name in ranking.scores}
    found = [*(name for name in CORRUPTIONS if name in names), *sorted(names - set(CORRUPTIONS))]
    return [*found, ALL] if len(found) > 1 else found


def _accuracy_cell(run: RunFiles, baseline: RunFiles, corruption: str) -> AccuracyCell | None:
    ranking = run.evaluation.ranking if run.evaluation else None
    if ranking is None:
        return None
    scores = [s for name, s in ranking.scores.items() if corruption in (ALL, name) and s.pairs > 0]
    pairs = sum(score.pairs for score in scores)
    accuracy, trivial = (
        sum(value * score.pairs for value, score in zip(values, scores, strict=True)) / pairs if pairs else math.nan
        for values in ([score.accuracy for score in scores], [score.trivial for score in scores])
    )
    low = high = math.nan
    outcomes = _outcomes(ranking, corruption)
    if outcomes is not None:
        nothing = dataclasses.replace(outcomes, numerators=[0.0] * len(outcomes.ids))  # what is subtracted
        interval = paired_bootstrap(outcomes, nothing, level=LEVEL)
        low, high = interval.low, interval.high
    difference = None if run is baseline else _accuracy_difference(run, baseline, corruption)
    return AccuracyCell(run.name, accuracy, low, high, ranking.chance, trivial, pairs, difference)


def _accuracy_difference(run: RunFiles, baseline: RunFiles, corruption: str) -> Difference:
    ours, theirs = run.evaluation, baseline.evaluation
    if ours is None or theirs is None or ours.ranking is None or theirs.ranking is None:
        return Difference("accuracy", math.nan, math.nan, why_not=f"{baseline.name} has no ranking")
    a, b = _outcomes(ours.ranking, corruption), _outcomes(theirs.ranking, corruption)
    why = _why_unpaired(ours, theirs)
    if a is None or b is None:
        why = why or "evaluation.json has no such pairs"
    elif (a.ids, a.groups) != (b.ids, b.groups):
        why = why or "the calls ranked are not the same"
    if why or a is None or b is None:
        return Difference("accuracy", math.nan, math.nan, why_not=why)
    interval = paired_bootstrap(a, b, level=LEVEL)
    return _with_interval(Difference("accuracy", interval.difference, _share(interval.difference, b.ratio)), interval)


def _outcomes(ranking: Ranking, corruption: str) -> PerRecord | None:
    """The pairs of one corruption: 1, a half or 0 each; None without any."""
    pairs = ranking.per_pair
    chosen = [n for n, name in enumerate(pairs.corruptions) if corruption in (ALL, name)] if pairs is not None else []
    if pairs is None or not chosen:
        return None
    ids, groups = [pairs.ids[n] for n in chosen], [pairs.groups[n] for n in chosen]
    return PerRecord(ids, groups, pairs.right_P[chosen].tolist(), [1.0] * len(chosen))


def _with_interval(difference: Difference, interval: Interval) -> Difference:
    if interval.n_groups < 2:
        why = "all of it is one group, so there is nothing to resample"
        return dataclasses.replace(difference, groups=interval.n_groups, why_not=why)
    return dataclasses.replace(difference, low=interval.low, high=interval.high, groups=interval.n_groups)
