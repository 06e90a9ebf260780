"""The sections of a report's page that say what the results rest on: limits, data, throughput, configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence

from hephaestus_jax.progress import duration
from hephaestus_jax.reports.comparison import FEW_GROUPS, LEVEL, LEVEL_WORDS
from hephaestus_jax.reports.page import listed, paragraph, table, text
from hephaestus_jax.reports.run_facts import TaskFacts
from hephaestus_jax.reports.run_files import RunFiles
from hephaestus_jax.reports.run_report import Report
from hephaestus_jax.reports.verdicts import fixed, percent, subject_words

SMALL_MODEL = 1_000_000_000  # parameters; below, what holds for it need not hold for the models that agents are made of
SOURCES = 40  # shown; the others are summed up
_OF_THE_PLACE = {"TrainConfig.run_dir"}  # differs between any two runs and says nothing of them

Row = list[str]


def limits(report: Report) -> str:
    """What the numbers do not show: how few they rest on, and what else differed."""
    said = [*_size_limits(report), *_statistical_limits(report), *_confounders(report)]
    if report.ranking is not None:
        said.append(
            "Rankings compare likelihoods of calls that were given; they do not show that a model would write the call."
        )
    if report.comparison.losses.keys() & {"agent_docs", "agent_trajectories"}:
        said.append(
            "Held-out APIs were kept out of this corpus. A model that began elsewhere may have seen them there."
        )
    return listed(said)


def _size_limits(report: Report) -> Iterator[str]:
    sizes = [run.parameters for run in report.runs if run.parameters]
    if sizes and max(sizes) < SMALL_MODEL:
        yield (
            f"The largest model here has {max(sizes):,} parameters, and no run here took more than"
            f" {_tokens(max((s.tokens or 0) for s in report.speeds.values()))}. That says little about a model of"
            " 8,000,000,000: gains and costs of a mixture change with size and with what a model knew before."
        )
    seeds = {run.name: run.identity["seed"] for run in report.runs if "seed" in run.identity}
    if seeds:
        words = ", ".join(f"{name} seed {seed}" for name, seed in seeds.items())
        yield (
            f"Every run was made once ({words}). Intervals are over records, not over training seeds; another seed may"
            " move every loss by more than the intervals show."
        )


def _tokens(count: int) -> str:
    return f"{count:,} tokens" if count else "an unknown number of tokens"


def _statistical_limits(report: Report) -> Iterator[str]:
    comparison = report.comparison
    found = [(name, cell.difference) for name, row in comparison.losses.items() for cell in row]
    found += [(subject_words(name), score.difference) for name, row in comparison.accuracies.items() for score in row]
    known = [(name, one.groups) for name, one in found if one is not None and math.isfinite(one.low)]
    if known:
        yield (
            f"There are {len(known)} intervals here, each of {LEVEL_WORDS}: if nothing differed at all, about"
            f" {len(known) * (1 - LEVEL):.1f} of them would still exclude 0. They are not corrected for that."
        )
        samples = dict(known)
        yield "Groups resampled: " + ", ".join(f"{name} {groups:,}" for name, groups in samples.items()) + "."
        if few := [name for name, groups in samples.items() if groups < FEW_GROUPS]:
            yield f"With fewer than {FEW_GROUPS} groups an interval is itself uncertain: {', '.join(few)}."


def _confounders(report: Report) -> Iterator[str]:
    """What differs between each run and the baseline besides the mixture."""
    base = next(run for run in report.runs if run.name == report.baseline)
    for run in report.runs:
        if run is base or run.name in report.begun_from or not run.identity or not base.identity:
            continue
        names = sorted({*run.identity, *base.identity} - {"mixture"})
        differing = [name for name in names if run.identity.get(name) != base.identity.get(name)]
        ours, theirs = report.speeds[run.name].tokens, report.speeds[base.name].tokens
        if ours != theirs:
            differing.append(f"tokens seen ({ours or 0:,} against {theirs or 0:,})")
        same = run.identity.get("mixture") == base.identity.get("mixture")
        mixtures = "the same mixture" if same else "different mixtures"
        if differing:
            yield (
                f"{run.name} and {base.name} were trained on {mixtures} and differ otherwise: {', '.join(differing)}."
                " A difference between them is not the mixture's alone."
            )
        else:
            yield (
                f"{run.name} and {base.name} were trained on {mixtures}; all else that the weights depend on is the"
                " same."
            )


# ---------------------------------------------------------------------------------------------------------------- data


def corpus(report: Report) -> str:
    """Slices, sources and licences of the corpus, and what is held out."""
    facts = report.corpus
    if facts is None:
        return paragraph("No corpus was named; give --corpus DIR to show what the runs learned from.")
    rows = []
    for part in facts.slices:
        size = megabytes(part.text_bytes) if part.text_bytes is not None else "–"
        rows.append([part.slice, part.split, f"{part.records:,}", size, megabytes(part.stored_bytes)])
    head = ["slice", "split", "records", "text (MB)", "stored, compressed (MB)"]
    parts = [table(head, [("", rows)], left={0, 1})]
    if facts.held_out_apis is not None:
        told = f"{facts.held_out_apis:,} APIs of {facts.held_out_families or 0:,} families are held out: "
        told += "their documentation and calls are the validation split, and they are cut from everything else."
        parts.append(paragraph(told))
        if facts.held_out_rule:
            parts.append(f"<details><summary>Rule</summary>{paragraph(facts.held_out_rule, 'note')}</details>\n")
    slices = list(dict.fromkeys(part.slice for part in facts.slices))
    head = ["package", "version", "licence", *(f"{name} (records)" for name in slices), "records (MB as JSON)"]
    rows = []
    for source in facts.sources[:SOURCES]:
        counts = [sum(n for key, n in source.records.items() if key.partition("/")[0] == name) for name in slices]
        sized = [f"{count:,}" for count in counts]
        rows.append([source.source, source.version, source.licence, *sized, megabytes(source.record_bytes)])
    if rest := facts.sources[SOURCES:]:
        counts = [sum(n for s in rest for k, n in s.records.items() if k.partition("/")[0] == name) for name in slices]
        size = megabytes(sum(source.record_bytes for source in rest))
        rows.append([f"{len(rest):,} others", "", "", *(f"{count:,}" for count in counts), size])
    parts.append(table(head, [("", rows)], left={0, 1, 2}))
    licences = [[licence or "unknown", f"{count:,}", f"{records:,}"] for licence, count, records in facts.licences]
    parts.append(table(["licence", "packages", "records"], [("", licences)], left={0}))
    return "".join(parts)


def mixture(report: Report) -> str:
    """Rows, epochs and tokens of every task, run by run."""
    groups = []
    for run in report.runs:
        if tasks := report.tasks[run.name]:
            name = run.identity.get("mixture", {}).get("name", "")
            steps = f"{run.metrics.last_step:,} steps"
            groups.append((f"{run.name}\nmixture {name}, {steps}", [_task_row(task) for task in tasks]))
    if not groups:
        return paragraph("No run says what its mixture was.")
    head = ["task", "share of rows", "rows", "epochs", "tokens with padding", "rows in cache", "loss tokens in cache"]
    head += ["bytes under loss (MB)", "bytes/token", "packing"]
    return table(head, groups, left={0})


def _task_row(task: TaskFacts) -> Row:
    ratio = task.loss_bytes / task.loss_tokens if task.loss_bytes and task.loss_tokens else math.nan
    return [
        task.task,
        percent(task.share),
        f"{task.rows:,}",
        f"{task.epochs:.3f}",
        f"{task.tokens:,}",
        f"{task.cache_rows:,}",
        f"{task.loss_tokens:,}" if task.loss_tokens is not None else "–",
        megabytes(task.loss_bytes) if task.loss_bytes is not None else "–",
        fixed(ratio, 2),
        percent(task.efficiency) if task.efficiency is not None else "–",
    ]


# ---------------------------------------------------------------------------------------------------------- throughput


def throughput(report: Report) -> str:
    """Rates of every run, and where the wall time of its last process went."""
    runs = [run for run in report.runs if report.speeds[run.name].steps]
    if not runs:
        return paragraph("No run left a metrics.jsonl, so there are no rates.")
    head = ["run", "steps", "tokens", "loss tokens", "tokens/s", "loss tokens/s", "s/step", "time of steps", "MFU"]
    rows = [_speed_row(run, report) for run in runs]
    parts = [table([*head, "stall", "peak memory (MB)"], [("", rows)], left={0})]
    parts.append(paragraph("; ".join(f"{name}: {words}" for name, words in _conventions(runs).items()), "note"))
    timed = [run for run in runs if report.speeds[run.name].goodput]
    if timed:
        names = list(dict.fromkeys(part for run in timed for part in report.speeds[run.name].goodput))
        body = "".join(_share_row(name, timed, report) for name in names)
        heads = "".join(f"<th class='n' scope='col'>{text(run.name)} (%)</th>" for run in timed)
        parts.append("<h3>Where the wall time went</h3>\n<div class='scroll'><table><thead><tr><th>part</th>")
        parts.append(f"{heads}</tr></thead><tbody>\n{body}</tbody></table></div>\n")
        parts.append(paragraph(_wall_words(timed, report), "note"))
    return "".join(parts)


def _speed_row(run: RunFiles, report: Report) -> Row:
    speed = report.speeds[run.name]
    return [
        run.name,
        f"{speed.steps:,}",
        f"{speed.tokens:,}" if speed.tokens else "–",
        f"{speed.loss_tokens:,}",
        f"{speed.tokens_per_second:,.0f}" if speed.tokens_per_second else "–",
        f"{speed.loss_tokens_per_second:,.0f}" if speed.loss_tokens_per_second else "–",
        f"{speed.step_seconds:.3f}" if speed.step_seconds else "–",
        duration(speed.seconds) if speed.seconds else "–",
        percent(speed.mfu) if speed.mfu is not None else "–",
        percent(speed.stall) if speed.stall is not None else "–",
        megabytes(speed.memory_peak_bytes) if speed.memory_peak_bytes is not None else "–",
    ]


def _conventions(runs: Sequence[RunFiles]) -> Mapping[str, str]:
    for run in runs:
        found = run.record.get("conventions")
        if isinstance(found, Mapping):
            wanted = ("tokens_per_second", "stall", "memory_bytes", "mfu")
            return {name: str(found[name]) for name in wanted if name in found}
    return {}


def _share_row(name: str, runs: Sequence[RunFiles], report: Report) -> str:
    cells = []
    for run in runs:
        share = report.speeds[run.name].goodput.get(name, 0.0)
        width = 100 * min(1.0, max(0.0, share))
        cells.append(f"<td class='n'>{100 * share:.1f}<span class='bar'><i style='width:{width:.1f}%'></i></span></td>")
    return f"<tr><td>{text(name)}</td>{''.join(cells)}</tr>\n"


def _wall_words(runs: Sequence[RunFiles], report: Report) -> str:
    said = []
    for run in runs:
        seconds, starts = report.speeds[run.name].wall_seconds, max(1, len(run.starts))
        of = "of its only process" if starts == 1 else f"of the last of its {starts} processes that ended by itself"
        said.append(f"{run.name}: shares {of}" + (f", {duration(seconds)} in all" if seconds else ""))
    return "; ".join(said) + "."


def megabytes(count: float) -> str:
    """Bytes as megabytes (10⁶)."""
    return f"{count / 1e6:,.2f}"


# ------------------------------------------------------------------------------------------------------- configuration


def configuration(report: Report) -> str:
    """What differs between the runs, and every run's complete configuration with that highlighted."""
    runs = [run for run in report.runs if run.settings]
    if not runs:
        return paragraph("No run left its configuration.")
    names = sorted({name for run in runs for name in run.settings} - _OF_THE_PLACE)
    differing = {name for name in names if len({run.settings.get(name) for run in runs}) > 1}
    parts = []
    if len(runs) > 1:
        rows = [[name, *(run.settings.get(name, "–") for run in runs)] for name in sorted(differing)]
        head, left = ["setting", *(run.name for run in runs)], set(range(len(runs) + 1))
        parts.append(table(head, [("", rows)], left) if rows else paragraph("The configurations are the same."))
    for run in runs:
        lines = (_setting(name, value, name in differing) for name, value in sorted(run.settings.items()))
        parts.append(f"<details><summary>Complete configuration of {text(run.name)}</summary>")
        parts.append(f"<pre>{''.join(lines)}</pre></details>\n")
    return "".join(parts)


def _setting(name: str, value: str, differs: bool) -> str:
    line = text(f"{name} = {value}")
    return f"<mark>{line}</mark>\n" if differs else f"{line}\n"


def provenance(report: Report) -> str:
    """Where the runs come from: folders, digests, versions, starts, the Hugging Face model they began with."""
    columns = {run.name: _facts(run) for run in report.runs}
    names = dict.fromkeys(name for facts in columns.values() for name in facts)
    rows = [[name, *(facts.get(name, "–") for facts in columns.values())] for name in names]
    return table(["", *columns], [("", rows)], left=set(range(len(columns) + 1)))


def _facts(run: RunFiles) -> dict[str, str]:
    facts = {"folder": str(run.path)}
    if run.parameters:
        facts["parameters"] = f"{run.parameters:,}"
    began = run.identity.get("init_from")
    if run.identity:
        facts["began with"] = str(began) if began else f"scratch, seed {run.identity.get('seed')}"
    for name in ("model_type", "architectures", "_name_or_path", "transformers_version"):
        if name in run.origin:
            value = run.origin[name]
            facts[f"Hugging Face {name}"] = value if isinstance(value, str) else json.dumps(value)
    facts |= {f"digest of {name}": str(value) for name, value in run.record.get("digests", {}).items()}
    for number, start in enumerate(run.starts if len(run.starts) <= 6 else [*run.starts[:3], *run.starts[-3:]]):
        facts[f"start {number + 1}" if len(run.starts) <= 6 else f"start {number + 1} of those shown"] = _start(start)
    if len(run.starts) > 6:
        facts["starts"] = f"{len(run.starts):,}, the first and last three shown"
    if run.evaluation is not None:
        inputs = {name: value for name, value in run.evaluation.inputs.items()}
        facts["evaluated at step"] = str(run.evaluation.model.get("step"))
        facts["digest of the weights evaluated"] = str(run.evaluation.model.get("digest", "unknown"))
        facts |= {f"evaluated on ({k})": v if isinstance(v, str) else json.dumps(v) for k, v in inputs.items()}
    for name, value in run.record.get("versions", {}).items():
        if value:
            facts[name if name == "commit" else f"version of {name}"] = str(value)
    return facts


def _start(start: object) -> str:
    if not isinstance(start, Mapping):
        return "unknown"
    where = f"{start.get('devices', '?')} × {start.get('device_kind', '?')}"
    if (processes := start.get("processes")) not in (None, 1):
        where += f" in {processes} processes"
    return f"{start.get('time', 'time unknown')}, step {start.get('step', '?')}, {where}"
