"""The model card of an export: a README.md that says where the weights come from, from the run's own records.

What is not recorded is not said. The front matter is what huggingface_hub's `ModelCard` reads. The base model's own
README.md goes out as BASE_MODEL_CARD.md.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hephaestus_jax.architecture import ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.reports.evaluation_file import Evaluation
from hephaestus_jax.reports.model_card_facts import LICENCE_KEYS, CardFacts, TaskUse
from hephaestus_jax.reports.run_facts import mixture_of

if TYPE_CHECKING:
    from hephaestus_jax.checkpoints.reading import ArrayReader
    from hephaestus_jax.hf.origin import Origin

CARD = "README.md"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_SOURCES = 12  # named for each licence; the others are counted

Json = Any


@dataclass(frozen=True)
class CardFiles:
    """What an export writes besides the weights: the origin without its own card, and the cards by file name."""

    origin: Origin | None
    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def card_files(
    run: str, arrays: ArrayReader, origin: Origin | None, licence: str = "", model: ModelConfig | None = None
) -> CardFiles:
    """The card of one checkpoint of a run.

    Args:
        run: its folder, or that of an average of its checkpoints.
        arrays: the checkpoint.
        origin: the kept Hugging Face model that the line of runs began with; None for one begun from scratch.
        licence: of the new model, by the Hub's identifiers ("apache-2.0"); by default the base model's, as its card
            says, and none without a base model.
        model: that is exported, where it is not the run's: its vocabulary may be without padding.

    Raises:
        UserError: no run is there, or the licence is spelt in another way.
    """
    if licence and not _LICENCE.fullmatch(licence):
        raise UserError(f"licence {licence!r} is not spelt like the Hub's, such as apache-2.0, llama3.1 or other")
    if "://" in run:
        return CardFiles(origin, {}, (f"no model card is written, since records are not read from {run}",))
    facts = CardFacts(run, arrays, origin, model)
    files, notes = {}, []
    if origin is not None and CARD in origin.files:
        names = (f"BASE_MODEL_CARD{f'_{number}' if number > 1 else ''}.md" for number in itertools.count(1))
        base_card = next(name for name in names if name not in origin.files)
        files[base_card] = (origin.folder / CARD).read_bytes()
        origin = replace(origin, files=tuple(file for file in origin.files if file != CARD))
        notes.append(f"{CARD} is the new model's card; the base model's went to {base_card}")
    if facts.run.evaluation is not None and facts.evaluation is None:
        notes.append("evaluation.json is of other weights than those exported, so the model card leaves it out")
    files[CARD] = model_card(facts, licence).encode()
    return CardFiles(origin, files, tuple(notes))


def model_card(facts: CardFacts, licence: str = "") -> str:
    """The card as Markdown with its front matter."""
    sections = {
        "": _introduction(facts),
        "Base model": _base(facts),
        "Runs before this one": _lineage(facts),
        "Training": _training(facts),
        "Training data": _data(facts),
        "Evaluation": _evaluation(facts),
        "Hardware and software": _machines(facts),
    }
    parts = ["---\n", *_yaml(_front_matter(facts, licence)), "---\n\n", f"# {_plain(facts.run.name)}\n"]
    for title, lines in sections.items():
        if text := "\n".join(lines):
            parts.append(f"\n## {title}\n\n{text}\n" if title else f"\n{text}\n")
    return "".join(parts)


# ---- front matter


def _front_matter(facts: CardFacts, licence: str) -> dict[str, Json]:
    base = facts.base
    terms = dict(base.licence) if base is not None else {}
    terms = {"license": licence} if licence else {key: terms[key] for key in LICENCE_KEYS if key in terms}
    matter: dict[str, Json] = {"library_name": "transformers", "pipeline_tag": "text-generation", **terms}
    if base is not None and base.hub_id:
        matter["base_model"] = base.hub_id
    matter["tags"] = ["hephaestus_jax"]
    if facts.evaluation is not None and (results := list(_results(facts.evaluation))):
        matter["model-index"] = [{"name": _line(facts.run.name), "results": results}]
    return matter


def _results(evaluation: Evaluation) -> Iterator[dict[str, Json]]:
    task = {"type": "text-generation", "name": "Text generation"}
    for name, part in evaluation.slices.items():
        found = {"bits per byte": part.bits_per_byte, "nats per token": part.nats_per_token}
        metrics = [
            {"type": kind.replace(" ", "_"), "value": value, "name": kind}
            for kind, value in found.items()
            if math.isfinite(value)
        ]
        if metrics:
            data = {"type": "held-out", "name": f"{_line(name)}, {part.records:,} held-out records"}
            yield {"task": task, "dataset": data, "metrics": metrics}


def _yaml(value: Json, indent: str = "") -> Iterator[str]:
    """Lines of a mapping in block style; text in double quotes, which JSON and YAML spell alike."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield f"{indent}{key}:\n"
            yield from _yaml(item, indent + "  ")
        elif isinstance(item, list):
            yield f"{indent}{key}:\n"
            for entry in item:
                if isinstance(entry, Mapping):
                    first, *rest = _yaml(entry, indent + "  ")
                    yield f"{indent}- {first.removeprefix(indent + '  ')}"
                    yield from rest
                else:
                    yield f"{indent}- {_scalar(entry)}\n"
        else:
            yield f"{indent}{key}: {_scalar(item)}\n"


def _scalar(value: Json) -> str:
    if isinstance(value, str):  # always in quotes: `no` and `null` would be something else
        return json.dumps(_line(value), ensure_ascii=False)
    return f"{value:.6f}" if isinstance(value, float) else json.dumps(value)


# ---- sections


def _introduction(facts: CardFacts) -> Iterator[str]:
    model = facts.model
    size = f"A language model of {model.num_parameters:,} parameters" if model is not None else "A language model"
    before = facts.base.name if facts.base is not None else facts.init_name
    way = f"trained further from {_code(before)}" if before else "trained from scratch"
    on = f" on the mixture {_code(facts.mixture.name)}" if facts.mixture is not None else ""
    yield f"{size}, {way}{on} with hephaestus_jax. This card was written from the records of the run."
    if facts.averaged:
        steps, weights = facts.averaged.get("steps", ()), facts.averaged.get("weights", ())
        kind = facts.averaged.get("kind")
        how = f"exponential, decay {facts.averaged.get('decay')} a saved step" if kind == "exponential" else f"{kind}"
        shares = ", ".join(f"{step:,} ({weight:.4f})" for step, weight in zip(steps, weights, strict=False))
        yield f"\nThe weights are an average of the run's checkpoints ({how}); steps and their weights: {shares}."


def _base(facts: CardFacts) -> Iterator[str]:
    base = facts.base
    if base is None:
        return
    revision = f", revision {_code(base.revision)}" if base.revision else ""
    kind = f" ({_code(base.model_type)})" if base.model_type else ""
    yield f"- Model: {_code(base.name)}{kind}{revision}"
    if base.folder and base.folder != base.name:
        yield f"- Read from the folder {_code(base.folder)}"
    if base.licence:
        words = ", ".join(_code(value) for value in base.licence.values())
        yield f"- Licence, as its card says: {words}; its terms go on applying"
    if base.licence_files:
        yield f"- Its terms are in {', '.join(_code(file) for file in base.licence_files)}"
    for source, added in base.new_tokens:
        tokens = " ".join(_code(token) for token in added)
        yield f"- Tokens added to the vocabulary of {_code(source)}: {tokens}"


def _lineage(facts: CardFacts) -> Iterator[str]:
    for run in facts.lineage:
        mixture = mixture_of(run)
        yield f"- {_code(run.name)}" + (f" on the mixture {_code(mixture.name)}" if mixture else "")


def _training(facts: CardFacts) -> Iterator[str]:
    identity = facts.identity
    planned = facts.run.train_steps
    rows = None if facts.next_row is None else facts.next_row - facts.skipped_rows
    length = identity.get("sequence_length")
    tokens = rows * length if rows is not None and type(length) is int else None
    found: dict[str, Json] = {
        "steps": f"{facts.step:,}" + (f" of {planned:,}" if planned and planned != facts.step else ""),
        "rows of a step": identity.get("batch_size"),
        "tokens of a row": length,
        "rows taken": rows,
        "rows left out after rollbacks": facts.skipped_rows or None,
        "tokens, padding included": tokens,
        "tokens under loss": None if facts.averaged else facts.loss_tokens,
        "optimizer": _settings(identity, "optimizer"),
        "schedule of the learning rate": _settings(identity, "schedule"),
        "loss": _settings(identity, "loss"),
        "adapters (LoRA), added to the weights": _settings(identity, "lora"),
        "computed in": identity.get("compute.dtype"),
        "parameters kept in": identity.get("compute.param_dtype"),
        "seed": identity.get("seed"),
    }
    yield from _table(("", ""), [(name, _cell(value)) for name, value in found.items() if value not in (None, "")])


def _settings(identity: Mapping[str, Json], part: str) -> str:
    """The settings of a part of the configuration, its kind first."""
    found = {name.partition(".")[2]: value for name, value in identity.items() if name.startswith(f"{part}.")}
    kind = found.pop("kind", None)
    rest = [f"{name} {value}" for name, value in found.items() if value not in (None, "")]
    return ", ".join([*([str(kind)] if kind else []), *rest])


def _data(facts: CardFacts) -> Iterator[str]:
    mixture = facts.mixture
    if mixture is None:
        return
    vocabulary = mixture.vocabulary
    yield (
        f"Mixture {_code(mixture.name)}, tokenised with {_code(vocabulary.name)} ({vocabulary.size:,} ids, digest"
        f" {_code(vocabulary.digest[:12])})."
    )
    if not facts.tasks:
        return
    yield ""
    head = ("task", "share of rows", "rows", "epochs", "tokens, padding included", "licences (sources)")
    rows = [
        (_code(use.task), f"{100 * use.share:.2f} %", _cell(use.rows), f"{use.epochs:.3f}", _cell(use.tokens),
         _licences(use))
        for use in facts.tasks
    ]  # fmt: skip
    yield from _table(head, rows)
    yield from _sources(facts.tasks)


def _licences(use: TaskUse) -> str:
    return ", ".join(f"{_cell(licence or 'none recorded')} ({count:,})" for licence, count in use.licences)


def _sources(tasks: Sequence[TaskUse]) -> Iterator[str]:
    """The sources of all tasks by licence."""
    by_licence: dict[str, set[str]] = {}
    for name, version, licence in sorted({source for use in tasks for source in use.sources}):
        by_licence.setdefault(licence, set()).add(f"{name} {version}".strip())
    if by_licence:
        yield "\nSources by licence:\n"
    for licence, sources in sorted(by_licence.items(), key=lambda item: (-len(item[1]), item[0])):
        named = sorted(sources)[:_SOURCES]
        more = f" and {len(sources) - len(named):,} more" if len(sources) > len(named) else ""
        yield f"- {_plain(licence) or 'none recorded'}: {', '.join(map(_plain, named))}{more}"


def _evaluation(facts: CardFacts) -> Iterator[str]:
    if (found := facts.evaluation) is not None:
        rows = [
            (_code(name), _cell(part.records), _cell(part.tokens), _number(part.nats_per_token),
             _number(part.bits_per_byte))
            for name, part in found.slices.items()
        ]  # fmt: skip
        yield "Held-out losses of these weights:\n"
        yield from _table(("slice", "records", "tokens", "nats/token", "bits/byte"), rows)
        if (ranking := found.ranking) is not None:
            of = f"{ranking.calls:,} calls, {ranking.apis:,} APIs"
            yield f"\nRight calls of held-out APIs against corrupted ones ({of}):\n"
            scores = [
                (_code(name), _cell(score.pairs), _share(score.accuracy), _share(score.trivial), _share(ranking.chance))
                for name, score in ranking.scores.items()
            ]
            yield from _table(("corruption", "pairs", "accuracy", "a rule without a model", "chance"), scores)
    elif facts.held_out:
        points = [
            (_code(name), _cell(point.tokens), _number(point.nats_per_token), _number(point.bits_per_byte))
            for name, point in facts.held_out.items()
        ]
        yield f"Held-out losses during training, after step {facts.step:,}:\n"
        yield from _table(("slice", "tokens", "nats/token", "bits/byte"), points)


def _machines(facts: CardFacts) -> Iterator[str]:
    for start in facts.starts:
        axes: Json = start.get("mesh") if isinstance(start.get("mesh"), Mapping) else {}
        mesh = ", ".join(f"{_plain(axis)} {size}" for axis, size in axes.items() if size != 1) or "no axis divided"
        yield (
            f"- from step {start['step']:,} ({_plain(start.get('time', 'no time recorded'))}):"
            f" {start.get('devices')} × {_plain(start.get('device_kind'))} in {start.get('processes')} process(es),"
            f" mesh: {mesh}"
        )
    versions = {name: value for name, value in facts.run.record.get("versions", {}).items() if value}
    if versions:
        yield f"- versions: {', '.join(f'{_plain(name)} {_plain(value)}' for name, value in versions.items())}"


# ---- Markdown


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells that are safe already."""
    if rows:
        rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        yield f"| {' | '.join(head)} |"
        yield f"|{' --- |' * len(head)}"
        yield from (f"| {' | '.join(row)} |" for row in rows)


def _line(value: Json) -> str:
    """Text in one line of printable characters."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return " ".join(text.split())[:400]


def _plain(value: Json) -> str:
    """One line of text that Markdown does not read as markup."""
    return re.sub(r"([\\`*\[\]<>#])", r"\\\1", _line(value))


def _code(value: Json) -> str:
    """One line of text as it is, in a code span."""
    return f"`{_line(value).replace('`', chr(39))}`"


def _cell(value: Json) -> str:
    """A number with separators, or text; "" where there is none."""
    if value is None:
        return ""
    return f"{value:,}" if type(value) is int else _plain(value)


def _number(value: float | None) -> str:
    return f"{value:.4f}" if value is not None and math.isfinite(value) else ""


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else ""
