"""Verdicts in plain sentences. What was not achieved is said as plainly as what was."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hephaestus_jax.reports.comparison import (
    ALL,
    FEW_GROUPS,
    LEVEL_WORDS,
    SLICES,
    AccuracyCell,
    Comparison,
    Difference,
    LossCell,
    Verdict,
)

KEPT = {"code", "text"}
"""Slices that a run is meant not to lose; on the other known slices and on rankings it is meant to gain."""


@dataclass(frozen=True)
class Finding:
    """One verdict: of `run` against the baseline on `subject` (a slice, or a kind of corruption).

    `gain_wanted` is None for slices of which it is not known what a run is meant to do there.
    """

    run: str
    subject: str
    verdict: Verdict
    sentence: str
    gain_wanted: bool | None


def grouped(found: Iterable[Finding], baseline: str, reference: bool) -> tuple[tuple[str, tuple[Finding, ...]], ...]:
    """The findings of one run under plain headings, gains first.

    Args:
        found: findings of one run.
        baseline: what it is compared with.
        reference: whether the run is what others began with, so that nothing was to be achieved by it.
    """
    groups: dict[str, list[Finding]] = {name: [] for name in _headings(baseline)}
    for finding in found:
        groups[_heading(finding, baseline, reference)].append(finding)
    return tuple((name, tuple(group)) for name, group in groups.items() if group)


def _headings(baseline: str) -> tuple[str, ...]:
    return (
        f"Better than {baseline}",
        f"Cost: worse than {baseline}",
        f"Not achieved: worse than {baseline}",
        f"Not achieved: no gain over {baseline} shown",
        f"Worse than {baseline}",
        f"No cost against {baseline} shown; the interval says how large a one is not ruled out",
        f"No difference from {baseline} shown",
        "Not known: no paired comparison is possible",
    )


def _heading(finding: Finding, baseline: str, reference: bool) -> str:
    better, cost, loss, no_gain, worse, no_cost, same, unknown = _headings(baseline)
    wanted = None if reference else finding.gain_wanted
    if finding.verdict == "better":
        return better
    if finding.verdict == "worse":
        return worse if wanted is None else loss if wanted else cost
    if finding.verdict == "no difference shown":
        return same if wanted is None else no_gain if wanted else no_cost
    return unknown


def findings(comparison: Comparison) -> tuple[Finding, ...]:
    """Every verdict of every run but the baseline, slices first."""
    found = []
    for name, cells in comparison.losses.items():
        base = next((cell for cell in cells if cell.run == comparison.baseline), None)
        for cell in cells:
            if cell.difference is not None:
                found.append(_of_loss(name, cell, base, cell.difference, comparison))
    for name, scores in comparison.accuracies.items():
        reference = next((score for score in scores if score.run == comparison.baseline), None)
        for score in scores:
            if score.difference is not None:
                found.append(_of_accuracy(name, score, reference, score.difference, comparison))
    return tuple(found)


def headline(comparison: Comparison, found: tuple[Finding, ...], run: str) -> str:
    """What came out for a run in one sentence, without its subject: over slices and over rankings."""
    mine = [finding for finding in found if finding.run == run]
    slices = [finding for finding in mine if finding.subject in comparison.losses]
    rankings = [f for f in mine if f.subject in comparison.accuracies and f.subject != ALL]
    parts = [_counted(slices, "slice"), _counted(rankings, "kind of corrupted call", "kinds of corrupted calls")]
    told = "; ".join(part for part in parts if part)
    return f"{told}." if told else "nothing to compare was measured."


def _counted(found: list[Finding], noun: str, plural: str = "") -> str:
    if not found:
        return ""
    plural = plural or f"{noun}s"
    of = {"better": "better on", "worse": "worse on", "no difference shown": "no difference shown on"}
    of["not compared"] = "no paired comparison on"
    names: dict[str, list[str]] = {}
    for finding in found:
        names.setdefault(finding.verdict, []).append(subject_words(finding.subject))
    parts = [f"{of[verdict]} {len(names[verdict])} ({', '.join(names[verdict])})" for verdict in of if verdict in names]
    return f"of {len(found)} {noun if len(found) == 1 else plural}, {', '.join(parts)}"


def chance_sentences(comparison: Comparison) -> tuple[str, ...]:
    """For every run, on which corruptions it is not shown to rank better than chance."""
    failed: dict[str, list[str]] = {}
    for name, scores in comparison.accuracies.items():
        for score in scores:
            if score.low <= score.chance:  # false where there is no interval
                known = f"{fixed(100 * score.low, 1)} to {fixed(100 * score.high, 1)} %"
                words = f"{subject_words(name)} {percent(score.accuracy)} (interval {known})"
                failed.setdefault(score.run, []).append(words)
    return tuple(f"{run}: {', '.join(words)}." for run, words in failed.items())


def subject_words(name: str) -> str:
    """A slice or corruption as it stands in a sentence."""
    return {ALL: "all corruptions together"}.get(name, name if name in SLICES else name.replace("_", " "))


def fixed(value: float, places: int = 4) -> str:
    """A number with so many decimals; a dash for NaN."""
    return f"{value:,.{places}f}".replace("-", "−") if math.isfinite(value) else "–"


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else "unknown"


def signed(value: float, places: int = 4) -> str:
    """A difference with its sign; a minus sign proper."""
    return f"{value:+.{places}f}".replace("-", "−") if math.isfinite(value) else "–"


def interval_words(difference: Difference) -> str:
    """ "−0.0123 to +0.0045", in percentage points for accuracies."""
    scale, places = (100, 1) if difference.measure == "accuracy" else (1, 4)
    return f"{signed(scale * difference.low, places)} to {signed(scale * difference.high, places)}"


def _of_loss(
    name: str, cell: LossCell, base: LossCell | None, difference: Difference, comparison: Comparison
) -> Finding:
    about = f"{name}: " if name not in SLICES or SLICES[name] == name else f"{name} ({SLICES[name]}): "
    versus = f"{_loss(cell, comparison)} against {_loss(base, comparison) if base else 'nothing'} {comparison.measure}"
    sentence = about + _sentence(cell.run, comparison.baseline, versus, difference)
    wanted = name not in KEPT if name in SLICES else None
    return Finding(cell.run, name, difference.verdict, sentence, wanted)


def _of_accuracy(
    name: str, score: AccuracyCell, base: AccuracyCell | None, difference: Difference, comparison: Comparison
) -> Finding:
    versus = (
        f"gold call ranked first in {percent(score.accuracy)} against {percent(base.accuracy if base else math.nan)}"
    )
    versus += f" of {score.pairs:,} pairs"
    sentence = f"{subject_words(name)}: " + _sentence(score.run, comparison.baseline, versus, difference)
    return Finding(score.run, name, difference.verdict, sentence, gain_wanted=True)


def _sentence(run: str, baseline: str, versus: str, difference: Difference) -> str:
    if difference.verdict == "not compared":
        size = f" (difference {_size(difference)})" if math.isfinite(difference.value) else ""
        return f"no paired comparison of {run} and {baseline} is possible, because {difference.why_not}{size}."
    few = ""
    if difference.groups < FEW_GROUPS:
        few = f"; only {difference.groups} groups, so the interval is itself uncertain"
    told = f"{versus}, {_size(difference)}, {LEVEL_WORDS} interval {interval_words(difference)}"
    if difference.verdict == "no difference shown":
        return f"no difference shown between {run} and {baseline}: {told}, which includes 0{few}."
    return f"{run} is {difference.verdict} than {baseline}: {told}{few}."


def _size(difference: Difference) -> str:
    if difference.measure == "accuracy":
        return f"{signed(100 * difference.value, 1)} percentage points"
    share = f" ({signed(100 * difference.relative, 1)} %)" if math.isfinite(difference.relative) else ""
    return f"{signed(difference.value)} {difference.measure}{share}"


def _loss(cell: LossCell, comparison: Comparison) -> str:
    value = cell.nats_per_token if comparison.measure == "nats/token" else cell.bits_per_byte
    return f"{value:.4f}" if math.isfinite(value) else "unknown"
