"""Tokens per second of the training step, beside the same step of `transformers` and PyTorch.

Both sides have the same Llama with the same weights, the same packed rows (a block-diagonal causal mask), batch,
precision, AdamW, global-norm clipping and number of threads, on the processor or on one GPU. Each is a process of its
own; they take turns, so that a change of the machine's speed meets both. Loss and gradient norm of the first steps must
agree before anything is timed. A ratio above 1 means that this project's step is the quicker one.

Without gin-config installed, give the model by --sizes, for example Llama 3.2 1B:
  --sizes vocab_size=128256,embed_dim=2048,mlp_dim=8192,num_layers=16,num_heads=32,num_kv_heads=8,head_dim=64,
          tied_embeddings=1,max_positions=131072
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hephaestus_jax.devices import peak_flops
from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress
from tools.benchmark.steps.options import add_model, add_step, model_from, spec_from
from tools.benchmark.steps.spec import StepSpec
from tools.benchmark.steps.workers import Turn, Worker, limit_threads, set_environment, workers

CHECKED_STEPS = 3
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}  # relative, as the ones below
NORM_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
PRODUCT_SIZES = {"cpu": 2048, "gpu": 8192}
PRODUCT_ROUNDS = 7

Values = list[tuple[float, float]]
"""Loss and gradient norm of some steps."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--against", choices=["torch"], help="also the step of transformers and PyTorch")
    add_model(parser, "gin/models/medium.gin")
    add_step(parser)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of the processor, for each side; 0 for all (default)")
    parser.add_argument("--one_at_a_time", action="store_true", help="sides one after the other, for want of memory")
    parser.add_argument("--torch_attention", default="sdpa", help="attn_implementation (default: %(default)s)")
    parser.add_argument("--torch_compile", action="store_true", help="compile PyTorch's loss with torch.compile")
    parser.add_argument("--torch_checkpointing", action="store_true", help="PyTorch computes layers again")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Checks, measures, and returns the line to print."""
    if min(args.repeats, args.steps) < 1:
        raise UserError("--repeats and --steps must be at least 1")
    spec = spec_from(args, model=model_from(args), threads=limit_threads(args.threads))
    set_environment(spec)
    sides = ["ours", *([args.against] if args.against else [])]
    found: dict[str, _Side] = {}
    for together in [[side] for side in sides] if args.one_at_a_time else [sides]:
        found |= _measure(together, spec, args, {side: done.first for side, done in found.items()})
    fastest = max(done.product_rate for done in found.values())
    result = _described(spec, args) | {"matrix_product_tflops_per_s": _digits(fastest / 1e12)}
    if args.against:
        result |= _agreement(spec, {side: done.first for side, done in found.items()})
    for side, done in found.items():
        result[side] = _speed(spec, done, args.steps, fastest) | done.facts
    if args.against:
        result |= _ratios(found["ours"].turns, found[args.against].turns)
    return result


class _Side(NamedTuple):
    """What one side's process told."""

    first: Values
    turns: list[Turn]
    product_rate: float
    facts: dict[str, Any]


def _measure(
    sides: list[str], spec: StepSpec, args: argparse.Namespace, others: Mapping[str, Values]
) -> dict[str, _Side]:
    """Sides whose processes live at the same time; nothing is timed before they agree, also with `others`."""
    with workers(sides, spec) as started:
        first = {side: worker.advance(1).values for side, worker in started.items()}  # this one compiles
        for side, worker in started.items():
            first[side] += worker.advance(CHECKED_STEPS - 1).values
        if len(known := {**others, **first}) > 1:
            _agreement(spec, known)
        turns = _take_turns(list(started.values()), args)
        size = _product_size(spec)
        return {
            side: _Side(
                first[side], turns[side], worker.call("product_rate", size, PRODUCT_ROUNDS), worker.call("facts")
            )
            for side, worker in started.items()
        }


def _agreement(spec: StepSpec, values: Mapping[str, Values]) -> dict[str, Any]:
    """The largest relative differences over the first steps, whose later ones come after updates.

    Raises:
        UserError: they are above the tolerance: the sides do not compute the same.
    """
    ours, theirs = values["ours"], values["torch"]
    pairs = list(zip(ours, theirs, strict=True))
    found = {
        "loss": max(abs(a[0] - b[0]) / abs(b[0]) for a, b in pairs),
        "grad_norm": max(abs(a[1] - b[1]) / abs(b[1]) for a, b in pairs),
    }
    allowed = {"loss": LOSS_TOLERANCE[spec.dtype], "grad_norm": NORM_TOLERANCE[spec.dtype]}
    for name, difference in found.items():
        if not difference <= allowed[name]:  # NaN is no agreement either
            raise UserError(
                f"{name} differs by {difference:.2g} relatively, allowed is {allowed[name]:.2g}: ours (loss, gradient"
                f" norm) {ours}, torch {theirs}; the sides do not compute the same, so nothing was timed"
            )
    return {
        "checked_steps": len(pairs),
        "first_loss": {"ours": ours[0][0], "torch": theirs[0][0]},
        "first_grad_norm": {"ours": ours[0][1], "torch": theirs[0][1]},
        "largest_relative_difference": {name: float(f"{value:.2g}") for name, value in found.items()},
        "tolerance": allowed,
    }


def _take_turns(sides: list[Worker], args: argparse.Namespace) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {worker.side: [] for worker in sides}
    with Progress("timing", "turns", args.repeats * len(sides)) as progress:
        for repeat in range(args.repeats):
            for worker in sides if repeat % 2 == 0 else reversed(sides):
                turns[worker.side].append(worker.advance(args.steps))
                progress.add()
    return turns


def _product_size(spec: StepSpec) -> int:
    return min(PRODUCT_SIZES[spec.platform], 64 * spec.model.embed_dim)  # a trial run of a tiny model stays one


def _described(spec: StepSpec, args: argparse.Namespace) -> dict[str, Any]:
    model = spec.model
    sizes = ("vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": f"python -m tools.benchmark train {' '.join(sys.argv[2:])}".strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        "model": model.name, "parameters": model.num_parameters,
        "sizes": {name: getattr(model, name) for name in sizes} | {"tied_embeddings": model.tied_embeddings},
        "platform": spec.platform, "threads": spec.threads, "rows": spec.rows, "tokens_per_row": spec.length,
        "segments_per_row": spec.segments, "dtype": spec.dtype, "repeats": args.repeats,
        "steps_per_repeat": args.steps, "sides_take_turns": not args.one_at_a_time,
    }  # fmt: skip


def _speed(spec: StepSpec, side: _Side, steps: int, product_rate: float) -> dict[str, Any]:
    """Medians over the turns; FLOPs by the convention of `ModelConfig.flops_per_token`."""
    seconds = [turn.seconds / steps for turn in side.turns]
    median = statistics.median(seconds)
    flops = spec.model.flops_per_token(spec.length) * spec.tokens / median
    peak = peak_flops(side.facts["device"])
    return {
        "tokens_per_s": round(spec.tokens / median, 1),
        "step_s": _digits(median),
        "step_s_range": [_digits(min(seconds)), _digits(max(seconds))],
        "step_cpu_s": _digits(statistics.median(turn.cpu_seconds / steps for turn in side.turns)),
        "tflops_per_s": _digits(flops / 1e12),
        "share_of_matrix_product_rate": round(flops / product_rate, 3),
        "mfu_of_data_sheet_peak": round(flops / peak, 3) if peak else None,
    }


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _ratios(ours: Sequence[Turn], theirs: Sequence[Turn]) -> dict[str, Any]:
    pairs = [b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)]
    medians = [statistics.median(turn.seconds for turn in turns) for turns in (ours, theirs)]
    cpu = [statistics.median(turn.cpu_seconds for turn in turns) for turns in (ours, theirs)]
    return {
        "ratio": round(medians[1] / medians[0], 3),
        "ratio_of_pairs": [round(value, 3) for value in (min(pairs), statistics.median(pairs), max(pairs))],
        "cpu_seconds_ratio": round(cpu[1] / cpu[0], 3),
    }
