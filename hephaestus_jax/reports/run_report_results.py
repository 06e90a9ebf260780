"""The sections of a report's page that say what came out: verdict, losses, curves, rankings, samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hephaestus_jax.reports.charts import Estimate, EstimateGroup, Line, Reference, interval_chart, line_chart
from hephaestus_jax.reports.comparison import LEVEL_WORDS, SLICES, AccuracyCell, LossCell
from hephaestus_jax.reports.page import listed, paragraph, preformatted, prose, sign, table, text
from hephaestus_jax.reports.run_files import RunFiles, TrainPoint
from hephaestus_jax.reports.run_report import (
    NO_CHANCE,
    TRIVIAL,
    Report,
    difference_words,
    loss_footnotes,
    ranking_words,
    relative_words,
)
from hephaestus_jax.reports.verdicts import Finding, chance_sentences, fixed, percent, subject_words

CURVE_POINTS = 200  # of a training curve; more cannot be told apart
EXAMPLES = 8


def verdict(report: Report) -> str:
    """What came out, run by run, first in a sentence and then finding by finding; and what is missing."""
    verdicts = report.verdicts()
    parts = [f"<p class='headline'><b>{prose(said.title)}</b>: {prose(said.sentence)}</p>\n" for said in verdicts]
    parts.append(f"<div class='charts wide'>{_loss_chart(report)}{_accuracy_chart(report)}</div>\n")
    for said in verdicts:
        lists = "".join(_findings(heading, found) for heading, found in said.groups)
        if lists:
            parts.append(f"<div class='card'><h3>{prose(said.title)}</h3>\n{lists}</div>\n")
    if chance := chance_sentences(report.comparison):
        parts.append(f"<div class='card'><h3>{NO_CHANCE}</h3>\n{listed(chance)}</div>\n")
    if gaps := [f"{run.name}: {note}" for run in report.runs for note in run.notes]:
        parts.append(f"<div class='card'><h3>What is missing from this report</h3>\n{listed(gaps)}</div>\n")
    return "".join(parts)


def _findings(heading: str, found: Sequence[Finding]) -> str:
    items = "".join(f"<li>{sign(finding.verdict)}{prose(finding.sentence)}</li>\n" for finding in found)
    return f"<div class='label'>{text(heading)}</div>\n<ul class='verdict'>\n{items}</ul>\n"


def _loss_chart(report: Report) -> str:
    comparison = report.comparison
    groups = [
        EstimateGroup(name, tuple(_difference(report, cell) for cell in cells if cell.difference))
        for name, cells in comparison.losses.items()
    ]
    if not any(math.isfinite(one.value) for group in groups for one in group.estimates):
        return ""
    known = any(math.isfinite(one.low) for group in groups for one in group.estimates)
    return interval_chart(
        f"Held-out loss: difference from {report.baseline}{f', {LEVEL_WORDS} intervals' if known else ''}",
        groups,
        f"difference in {comparison.measure}; left of 0 is better",
        Reference(0.0, report.baseline),
    )


def losses(report: Report) -> str:
    """The table of losses, and what they were measured on."""
    comparison = report.comparison
    if not comparison.losses:
        return paragraph("No held-out loss was measured.")
    bits = comparison.measure == "bits/byte"
    head = ["run", *([] if bits else ["nats/token"]), "bits/byte", "relative", f"difference ({comparison.measure})"]
    head += [f"{LEVEL_WORDS} interval ({comparison.measure})", "verdict", "records", "tokens"]
    rows = [
        (_slice_heading(name), [_loss_row(cell, bits) for cell in cells]) for name, cells in comparison.losses.items()
    ]
    parts = [table(head, rows, left={0, len(head) - 3})]
    if bits:
        parts.append(paragraph(f"Losses are compared in bits per byte, because {comparison.why_measure}.", "note"))
    return "".join([*parts, *(paragraph(f"{line}.", "note") for line in loss_footnotes(comparison))])


def _slice_heading(name: str) -> str:
    return f"{name}\n{SLICES[name]}" if SLICES.get(name, name) != name else name


def _loss_row(cell: LossCell, bits: bool) -> list[str]:
    values = [cell.bits_per_byte] if bits else [cell.nats_per_token, cell.bits_per_byte]
    records = f"{cell.records:,}" if cell.records else "–"
    against = [relative_words(cell.difference), *difference_words(cell.difference)]
    return [cell.run, *map(fixed, values), *against, records, f"{cell.tokens:,}"]


def _difference(report: Report, cell: LossCell) -> Estimate:
    difference = cell.difference
    assert difference is not None
    return Estimate(cell.run, difference.value, difference.low, difference.high, report.style(cell.run))


# -------------------------------------------------------------------------------------------------------------- curves


def curves(report: Report) -> str:
    """Held-out loss of every slice, training loss and learning rate over the tokens of each run."""
    began = report.begun_from
    runs = [run for run in report.runs if run.name not in began and (run.metrics.train or run.metrics.held_out)]
    if not runs:
        return paragraph("No run left a metrics.jsonl, so there are no curves.")
    in_tokens = all(run.tokens_per_step for run in runs)
    x_label = "tokens of the run, padding included" if in_tokens else "steps of the run"
    measure = report.comparison.measure
    charts = []
    for name in report.comparison.losses:
        lines = [_held_out_line(report, run, name, in_tokens) for run in report.runs]
        charts.append(line_chart(f"Held-out loss: {name}", [line for line in lines if line], x_label, measure))
    said = [f"Held-out losses as measured during training ({measure})."]
    if any(cell.step is None for row in report.comparison.losses.values() for cell in row):
        said[0] += " A mark alone is a run without a curve for the slice: its evaluation.json, at its last step."
    if began:
        said.append(f"{' and '.join(began)}, which others began with: a mark at 0, without the way there.")
    if report.comparison.measure == "nats/token":
        loss = [_line(report, run, _smooth(run.metrics.train), in_tokens) for run in runs]
        charts.append(line_chart("Training loss", loss, x_label, "nats/token, running mean"))
        if len(runs) > 1:
            said.append("Training losses of runs on different mixtures are of different text and do not compare.")
    else:
        said.append(f"Training loss is left out, because {report.comparison.why_measure}.")
    rates = [_line(report, run, _thinned(_rates(run)), in_tokens) for run in runs]
    charts.append(line_chart("Learning rate", rates, x_label, "learning rate"))
    return f"<div class='charts'>{''.join(charts)}</div>\n{''.join(paragraph(line, 'note') for line in said)}"


def _held_out_line(report: Report, run: RunFiles, name: str, in_tokens: bool) -> Line | None:
    nats = report.comparison.measure == "nats/token"
    points = [
        (float(point.step), value)
        for point in run.metrics.held_out.get(name, ())
        if (value := point.nats_per_token if nats else point.bits_per_byte) is not None
    ]
    if points and run.name in report.begun_from:
        points = [(0.0, points[-1][1])]
    if not points:
        cell = next((cell for cell in report.comparison.losses[name] if cell.run == run.name), None)
        if cell is None:
            return None
        step = 0 if run.name in report.begun_from else run.metrics.last_step
        points = [(float(step), cell.nats_per_token if nats else cell.bits_per_byte)]
    return _line(report, run, points, in_tokens, marks=True)


def _line(
    report: Report, run: RunFiles, points: Sequence[tuple[float, float]], in_tokens: bool, marks: bool = False
) -> Line:
    scale = (run.tokens_per_step or 1) if in_tokens else 1
    return Line(run.name, tuple((step * scale, y) for step, y in points), report.style(run.name), marks)


def _smooth(train: Sequence[TrainPoint]) -> list[tuple[float, float]]:
    """Running means of the loss, weighted by loss tokens, over a twentieth of the run."""
    known = [point for point in train if point.loss is not None]
    window = max(1, len(known) // 20)
    points, loss, weight = [], 0.0, 0
    for number, point in enumerate(known):
        loss += (point.loss or 0.0) * (tokens := max(1, point.loss_tokens))
        weight += tokens
        if number >= window:
            left = known[number - window]
            loss -= (left.loss or 0.0) * (gone := max(1, left.loss_tokens))
            weight -= gone
        points.append((float(point.step), loss / weight))
    return _thinned(points)


def _rates(run: RunFiles) -> list[tuple[float, float]]:
    return [(float(p.step), p.learning_rate) for p in run.metrics.train if p.learning_rate is not None]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points, the first and the last among them."""
    if len(points) <= CURVE_POINTS:
        return list(points)
    return [points[round(n * (len(points) - 1) / (CURVE_POINTS - 1))] for n in range(CURVE_POINTS)]


# ------------------------------------------------------------------------------------------------------------ rankings


def _accuracy_chart(report: Report) -> str:
    accuracies, facts = report.comparison.accuracies, report.ranking
    if not accuracies or facts is None:
        return ""
    groups = [
        EstimateGroup(subject_words(name), tuple(_accuracy(report, score) for score in scores))
        for name, scores in accuracies.items()
    ]
    return interval_chart(
        f"Gold call ranked first, {LEVEL_WORDS} intervals",
        groups,
        "accuracy (% of pairs)",
        Reference(facts.chance, "chance"),
        percent=True,
    )


def ranking(report: Report) -> str:
    """The table of accuracies, and examples."""
    accuracies, facts = report.comparison.accuracies, report.ranking
    if not accuracies or facts is None:
        return paragraph("No call was ranked: python -m tools.evaluate ranks gold calls against corrupted ones.")
    head = ["run", "accuracy (%)", f"{LEVEL_WORDS} interval (%)", "difference (points)"]
    head += [f"{LEVEL_WORDS} interval (points)", "verdict", "pairs"]
    rows = [(subject_words(name), _accuracy_rows(scores)) for name, scores in accuracies.items()]
    words = paragraph(f"{ranking_words(facts)}.", "note")
    return f"{table(head, rows, left={0, 5})}{words}{_other_ways(report)}{_examples(report)}"


def _accuracy(report: Report, score: AccuracyCell) -> Estimate:
    return Estimate(score.run, score.accuracy, score.low, score.high, report.style(score.run))


def _accuracy_row(score: AccuracyCell) -> list[str]:
    around = f"{fixed(100 * score.low, 1)} to {fixed(100 * score.high, 1)}" if math.isfinite(score.low) else "–"
    return [score.run, fixed(100 * score.accuracy, 1), around, *difference_words(score.difference), f"{score.pairs:,}"]


def _accuracy_rows(scores: Sequence[AccuracyCell]) -> list[list[str]]:
    rows = [_accuracy_row(score) for score in scores]
    if math.isfinite(scores[0].trivial):
        rows.append([TRIVIAL, fixed(100 * scores[0].trivial, 1), *[""] * 5])
    return rows


def _other_ways(report: Report) -> str:
    """Accuracies by other ways of comparing likelihoods, and what rules get that look at no model."""
    first = report.ranking
    if first is None or not any(score.others for score in first.scores.values()):
        return ""
    ways = list(dict.fromkeys(way for score in first.scores.values() for way in score.others))
    groups = []
    for name, shown in first.scores.items():
        rows = []
        for run in report.runs:
            ranking = run.evaluation.ranking if run.evaluation else None
            if ranking is not None and name in ranking.scores:
                others = ranking.scores[name].others
                rows.append([run.name, *(fixed(100 * others.get(way, math.nan), 1) for way in ways)])
        groups.append((subject_words(name), rows))
        if known := ", ".join(f"{subject_words(rule)} {percent(value)}" for rule, value in shown.baselines.items()):
            groups[-1] = (f"{subject_words(name)}\nwithout a model: {known}", rows)
    made = table(["run", *(f"{subject_words(way)} (%)" for way in ways)], groups, left={0})
    return f"<details><summary>Other ways of comparing likelihoods</summary>{made}</details>\n"


def _examples(report: Report) -> str:
    """A card for every gold call, with all calls that it was ranked against."""
    calls: dict[tuple[str, str, str], dict[str, str]] = {}
    for run in report.runs:
        for example in run.evaluation.ranking.examples if run.evaluation and run.evaluation.ranking else ():
            api, prompt, gold, kind, bad = (
                str(example.get(name, "")) for name in ("api", "prompt", "gold", "corruption", "corrupted")
            )
            calls.setdefault((api, prompt, gold), {})[bad] = kind
    parts = ["<h3>Examples of ranked calls</h3>\n"] if calls else []
    for (api, prompt, gold), corrupted in list(calls.items())[:EXAMPLES]:
        parts.append(f"<div class='card'><b>{text(api)}</b>\n<div class='label'>end of the prompt</div>")
        parts.append(f"{preformatted(prompt)}<div class='label'>gold call</div>{preformatted(gold)}")
        for bad, kind in corrupted.items():
            parts.append(f"<div class='label'>{text(subject_words(kind))}</div>{preformatted(bad)}")
        parts.append("</div>\n")
    return "".join(parts)


def samples(report: Report) -> str:
    """What the runs wrote after the same prompts, side by side."""
    prompts: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for run, sample in _all_samples(report):
        how = f"temperature {sample.get('temperature', 'unknown')}, seed {sample.get('seed', 'unknown')}"
        made = (run, str(sample.get("completion", "")))
        prompts.setdefault((str(sample.get("prompt", "")), how), []).append(made)
    if not prompts:
        return paragraph("No sample was generated.")
    parts = [paragraph("Samples show what a model writes, not how good it is: they are few and show no rate.", "note")]
    for (prompt, how), completions in prompts.items():
        parts.append(f"<div class='card'><div class='label'>prompt ({text(how)})</div>{preformatted(prompt)}")
        for run, completion in completions:
            parts.append(f"<div class='label'>{text(run)}</div>{preformatted(completion)}")
        parts.append("</div>\n")
    return "".join(parts)


def _all_samples(report: Report) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for run in report.runs:
        for sample in run.evaluation.samples if run.evaluation else ():
            yield run.name, sample
