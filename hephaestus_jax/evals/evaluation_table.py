"""Evaluations of several models side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Evaluations = Mapping[str, Mapping[str, Any]]  # by the model's name

TEXT = 600  # characters of a prompt or completion that are shown


def table(evaluations: Evaluations) -> str:
    """Held-out losses and ranking accuracies: a line for each figure, a column for each model."""
    first = next(iter(evaluations.values()))
    lines = [("", *evaluations)]
    for name, found in first["slices"].items():
        about = f"{found['records']:,} records, {found['tokens']:,} tokens"
        for measure, unit in (("nats_per_token", "nats/token"), ("bits_per_byte", "bits/byte")):
            cells = (evaluation["slices"].get(name, {}).get(measure) for evaluation in evaluations.values())
            lines.append((f"{name}, {unit}" + (f" ({about})" if unit == "nats/token" else ""), *map(_number, cells)))
    if first.get("ranking"):
        for kind, found in first["ranking"]["corruptions"].items():
            cells = (_accuracy(evaluation, kind) for evaluation in evaluations.values())
            lines.append((f"right call before {kind.replace('_', ' ')}, % of {found['pairs']:,} pairs", *cells))
    return aligned(lines)


def notes(evaluations: Evaluations) -> str:
    """What the table's figures mean."""
    ranking = next(iter(evaluations.values())).get("ranking")
    if not ranking:
        return ""
    return (
        f"calls: {ranking['calls']:,} of {ranking['apis']:,} unseen APIs; a guess gets 50 %, untrained"
        f" models about 60 % on missing arguments; ranked by"
        f" {ranking['normalisation']}"
    )


def samples(evaluations: Evaluations) -> str:
    """The texts that each model wrote."""
    lines = []
    for name, evaluation in evaluations.items():
        for sample in evaluation["samples"]:
            how = "greedy" if not sample["temperature"] else f"temperature {sample['temperature']}"
            lines.append(
                f"--- {name}, {how}, {sample['tokens']} tokens after: …{_shown(sample['prompt'][-TEXT // 3 :])}"
            )
            lines.append(_shown(sample["completion"][:TEXT]))
    return "\n".join(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = f"{{:<{widths[0]}}}" + "".join(f"  {{:>{width}}}" for width in widths[1:])
    return "\n".join(form.format(*line).rstrip() for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _accuracy(evaluation: Mapping[str, Any], kind: str) -> str:
    found = (evaluation.get("ranking") or {}).get("corruptions", {}).get(kind)
    return "-" if found is None else f"{100 * found['accuracy']:.1f}"


def _shown(text: str) -> str:
    """On one line, without what a terminal would act on."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
