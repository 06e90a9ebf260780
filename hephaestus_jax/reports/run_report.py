"""A report on runs: everything it says, and its form for the terminal. `run_report_html` makes the page."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import duration
from hephaestus_jax.reports.charts import shortened
from hephaestus_jax.reports.comparison import LEVEL_WORDS, Comparison, Difference, compare
from hephaestus_jax.reports.corpus_facts import CorpusFacts, read_corpus
from hephaestus_jax.reports.evaluation_file import Ranking
from hephaestus_jax.reports.rows import visible
from hephaestus_jax.reports.run_facts import Speed, TaskFacts, speed_of, task_facts
from hephaestus_jax.reports.run_files import RunFiles, read_runs
from hephaestus_jax.reports.verdicts import (
    Finding,
    chance_sentences,
    findings,
    fixed,
    grouped,
    headline,
    interval_words,
    percent,
    signed,
    subject_words,
)

NO_CHANCE = "Not achieved: rankings that are not shown to be better than chance"
TRIVIAL = "(trivial rule)"
NAME_WIDTH = 28  # of a run's name in a table of the terminal


@dataclass(frozen=True)
class RunVerdict:
    """What is said of one run: about what, in a sentence, and finding by finding under headings."""

    title: str
    sentence: str
    groups: tuple[tuple[str, tuple[Finding, ...]], ...]


@dataclass(frozen=True)
class Report:
    """All that a report says.

    Attributes:
        title: its heading.
        runs: in the order given.
        comparison: against the baseline.
        findings: the verdicts.
        corpus: None where none was named.
        tasks: what each run took from its mixture, by run.
        speeds: how fast each run went, by run.
        references: names of runs that are named as what the others began with, by whatever way.
    """

    title: str
    runs: tuple[RunFiles, ...]
    comparison: Comparison
    findings: tuple[Finding, ...]
    corpus: CorpusFacts | None
    tasks: Mapping[str, tuple[TaskFacts, ...]]
    speeds: Mapping[str, Speed]
    references: tuple[str, ...] = ()

    @property
    def baseline(self) -> str:
        """Name of the run that gains and costs are measured against."""
        return self.comparison.baseline

    @property
    def ranking(self) -> Ranking | None:
        """The first ranking there is: what its pairs were and how they were scored."""
        rankings = (run.evaluation.ranking for run in self.runs if run.evaluation)
        return next((ranking for ranking in rankings if ranking is not None), None)

    def style(self, run: str) -> int:
        """Number of the run, which chooses its colour, dashes and marks."""
        return [other.name for other in self.runs].index(run)

    @property
    def begun_from(self) -> Mapping[str, tuple[str, ...]]:
        """Runs of the report that others of it began with, and which those are."""
        found: dict[str, tuple[str, ...]] = {}
        for run in self.runs:
            others = (o for o in self.runs if o.identity.get("init_from") in (str(run.path), str(run.path.resolve())))
            names = tuple(other.name for other in others)
            if run.name in self.references and not names:  # the others went on from an export of it, say
                names = tuple(other.name for other in self.runs if other.name not in self.references)
            if names:
                found[run.name] = names
        return found

    def verdicts(self) -> tuple[RunVerdict, ...]:
        """On every run but the baseline; what others began with comes last. Of a run alone, that it is alone."""
        began, said = self.begun_from, []
        others = [run.name for run in self.runs if run.name != self.baseline]
        if not others:
            return (RunVerdict(self.baseline, "it stands alone; give a control too, to tell gains from costs.", ()),)
        for name in sorted(others, key=lambda name: name in began):
            title = f"{name} against {self.baseline}"
            if name in began:
                title += f" (for reference: {' and '.join(began[name])} began with {name})"
            mine = [finding for finding in self.findings if finding.run == name]
            groups = grouped(mine, self.baseline, name in began)
            said.append(RunVerdict(title, headline(self.comparison, self.findings, name), groups))
        return tuple(said)


def make_report(
    paths: Sequence[str],
    baseline: str | None = None,
    corpus: str | None = None,
    title: str = "",
    evaluations: str | None = None,
    references: Sequence[str] = (),
) -> Report:
    """Reads the runs and compares them.

    Args:
        paths: folders of the runs.
        baseline: folder of the run that gains and costs are measured against; one of `paths`, or one more. By default
            the first.
        corpus: folder of the corpus that they learned from.
        title: heading of the report.
        evaluations: folder with NAME.json for models without an evaluation.json of their own.
        references: folders, of `paths`, that the others began with; one that a run names in its run.json need not be
            given.

    Raises:
        UserError: no run is given, one has nothing to report, or the corpus cannot be read.
    """
    if not paths:
        raise UserError("no run to report on; give the folder of at least one")
    runs = read_runs(list(paths), evaluations)
    if baseline is not None:
        wanted = read_runs([baseline], evaluations)[0].path.resolve()
        if wanted not in [run.path.resolve() for run in runs]:
            runs = read_runs([baseline, *paths], evaluations)
        reference = next(run for run in runs if run.path.resolve() == wanted)
    else:
        reference = runs[0]
    began = {os.path.realpath(os.path.expanduser(path)) for path in references}
    named_so = tuple(run.name for run in runs if str(run.path.resolve()) in began)
    if len(named_so) < len(began) or reference.name in named_so:
        raise UserError(f"--reference {' '.join(references)}: give runs of the report other than the baseline")
    comparison = compare(runs, reference)
    report = Report(
        title=title,
        runs=runs,
        comparison=comparison,
        findings=findings(comparison),
        corpus=read_corpus(corpus) if corpus is not None else None,
        tasks={run.name: task_facts(run) for run in runs},
        speeds={run.name: speed_of(run) for run in runs},
        references=named_so,
    )
    compared = [run.name for run in runs if run is not reference and run.name not in report.begun_from]
    named = f"{', '.join(compared)} against {reference.name}" if compared else ", ".join(run.name for run in runs)
    return report if title else dataclasses.replace(report, title=named)


# ------------------------------------------------------------------------------------------------------ the terminal


def terminal(report: Report) -> str:
    """The report as text: tables of losses, rankings and rates, then verdicts, then what is missing."""
    parts = [report.title, _losses(report), _rankings(report), _speeds(report)]
    for said in report.verdicts():
        lines = [f"{said.title}: {said.sentence}"]
        for heading, found in said.groups:
            lines += [f"  {heading}", *(f"    {finding.sentence}" for finding in found)]
        parts.append("\n".join(lines))
    if chance := chance_sentences(report.comparison):
        parts.append("\n".join([NO_CHANCE, *(f"    {sentence}" for sentence in chance)]))
    gaps = [f"  {run.name}: {note}" for run in report.runs for note in run.notes]
    parts.append("\n".join(["missing", *gaps]) if gaps else "")
    return visible("\n\n".join(part for part in parts if part.strip())) + "\n"


def _losses(report: Report) -> str:
    comparison = report.comparison
    if not comparison.losses:
        return "No held-out loss was measured."
    bits = comparison.measure == "bits/byte"
    head = ["slice", "run", "nats/token", "bits/byte", "relative", f"difference ({comparison.measure})"]
    rows = [[*head, f"{LEVEL_WORDS} interval", "verdict"]]
    for name, cells in comparison.losses.items():
        for number, cell in enumerate(cells):
            nats = "–" if bits else fixed(cell.nats_per_token)
            rows.append([name if number == 0 else "", cell.run, nats, fixed(cell.bits_per_byte)])
            rows[-1] += [relative_words(cell.difference), *difference_words(cell.difference)]
    said = [f"held-out loss per slice; differences are against {comparison.baseline}, below 0 is better"]
    said += [f"Nats per token are left out: {comparison.why_measure}"] if bits else []
    said += [sentence for sentence in loss_footnotes(comparison)]
    return "\n".join([said[0], text_table(rows, left={0, 1, 7}), *said[1:]])


def _rankings(report: Report) -> str:
    accuracies, ranking = report.comparison.accuracies, report.ranking
    if not accuracies or ranking is None:
        return "No call was ranked."
    head = ["corruption", "run", "accuracy (%)", "pairs", "difference (points)"]
    rows = [[*head, f"{LEVEL_WORDS} interval (points)", "verdict"]]
    for name, scores in accuracies.items():
        for number, score in enumerate(scores):
            word = subject_words(name) if number == 0 else ""
            rows.append([word, score.run, fixed(100 * score.accuracy, 1), f"{score.pairs:,}"])
            rows[-1] += difference_words(score.difference)
        if math.isfinite(scores[0].trivial):
            rows.append(["", TRIVIAL, fixed(100 * scores[0].trivial, 1), "", "", "", ""])
    return "\n".join([f"ranking: {ranking_words(ranking)}", text_table(rows, left={0, 1, 6})])


def _speeds(report: Report) -> str:
    rows = [["run", "parameters", "steps", "tokens", "tokens/s", "time of steps", "stall", "goodput"]]
    for run in report.runs:
        speed = report.speeds[run.name]
        if speed.steps:
            rows.append([run.name, *speed_words(run, speed)])
    return "\n".join(["throughput", text_table(rows, left={0})]) if len(rows) > 1 else ""


def speed_words(run: RunFiles, speed: Speed) -> list[str]:
    """Parameters, steps, tokens, tokens/s, time of the steps, stall and goodput, as they are printed."""
    return [
        f"{run.parameters:,}" if run.parameters else "–",
        f"{speed.steps:,}",
        f"{speed.tokens:,}" if speed.tokens else "–",
        f"{speed.tokens_per_second:,.0f}" if speed.tokens_per_second else "–",
        duration(speed.seconds) if speed.seconds else "–",
        percent(speed.stall) if speed.stall is not None else "–",
        percent(speed.goodput["train"]) if "train" in speed.goodput else "–",
    ]


def difference_words(difference: Difference | None) -> list[str]:
    """Difference, interval and verdict; of the baseline, that it is the baseline."""
    if difference is None:
        return ["", "", "baseline"]
    size = signed(100 * difference.value, 1) if difference.measure == "accuracy" else signed(difference.value)
    interval = interval_words(difference) if math.isfinite(difference.low) else "–"
    return [size, interval, difference.verdict]


def relative_words(difference: Difference | None) -> str:
    """The difference as a share of the baseline's value."""
    if difference is None:
        return ""
    return f"{signed(100 * difference.relative, 1)} %" if math.isfinite(difference.relative) else "–"


def loss_footnotes(comparison: Comparison) -> Iterator[str]:
    """Where losses come from, where not from an evaluation of every run on the same records; what is resampled."""
    cells = [cell for row in comparison.losses.values() for cell in row]
    for run in dict.fromkeys(cell.run for cell in cells if cell.step is not None):
        step = next(cell.step for cell in cells if cell.run == run and cell.step is not None)
        yield f"{run} was not evaluated: losses as measured during training after step {step:,}"
    if any(cell.difference and math.isfinite(cell.difference.low) for cell in cells):
        groups = f"; {comparison.groups}" if comparison.groups else ""
        yield f"Intervals: paired bootstrap over groups of records{groups}"


def ranking_words(ranking: Ranking) -> str:
    """What was ranked, how it was scored, and what knowing nothing would give."""
    words = f"{ranking.calls:,} gold calls of {ranking.apis:,} APIs, each against corrupted ones"
    words += f"; chance {percent(ranking.chance)}, but untrained models were found at about 60 % on missing arguments"
    words += " (they favour words of the conversation), so compare runs there"
    if ranking.trivial_rule:
        words += f"; trivial rule: {ranking.trivial_rule}"
    return words + (f"; {ranking.normalisation}" if ranking.normalisation else "")


def text_table(rows: Sequence[Sequence[str]], left: set[int]) -> str:
    """Aligned columns, those in `left` to the left and the others to the right; the first row is a head."""
    rows = [[shortened(cell, NAME_WIDTH) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join([lines[0], "  " + "─" * (len(max(lines, key=len)) - 2), *lines[1:]])
