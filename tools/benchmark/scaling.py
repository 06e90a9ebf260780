"""How step time, memory and compile time of the training step grow with parameters, row length and devices.

Each size is a process of its own: the step is compiled, run once, and then timed. Row lengths share one number of
tokens per step. Devices are virtual ones of one processor, over which the same batch and the parameters are divided
(fsdp): their memory falls, their time does not, since they share the processor. Memory is what the compiled step needs
on each device (state and batch, temporaries), and the most that the process held. The exponents are slopes of straight
lines through the logarithms: 1 is proportional growth.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import statistics
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress
from hephaestus_jax.versions import versions_of
from tools.benchmark.steps.options import add_step, model_of_file, spec_from
from tools.benchmark.steps.spec import StepSpec
from tools.benchmark.steps.workers import limit_threads, set_environment, workers

MODELS = [f"gin/models/{name}.gin" for name in ("tiny", "quickstart", "small", "medium")]
GROWING = ("step_s", "step_cpu_s", "compile_s", "compile_cpu_s", "arguments_mib", "temporaries_mib", "resident_mib")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--models", nargs="*", default=MODELS, help="gin files to compare (default: %(default)s)")
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 512, 1024, 2048], help="of rows, to compare")
    parser.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8], help="virtual devices, to compare")
    parser.add_argument("--model", default="gin/models/small.gin", help="of lengths and devices (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=2048, help="per step, for every size (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each size (default: %(default)s)")
    add_step(parser)
    parser.set_defaults(rows=None)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the line to print."""
    if args.steps < 1:
        raise UserError("--steps must be at least 1")
    if args.platform != "cpu":
        raise UserError("this benchmark is of virtual devices of the processor; leave --platform out")
    given = {"threads": limit_threads(0), "segments": args.segments}
    base = model_of_file(args.model)
    tables = {
        "parameters": [_spec(args, given, model=model_of_file(path)) for path in args.models],
        "length": [_spec(args, given, model=base, length=length) for length in args.lengths],
        "devices": [_spec(args, given, model=base, devices=devices) for devices in args.devices],
    }
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions_of("jax", "jaxlib", "flax", "optax"),
        "threads": given["threads"],
        "dtype": args.dtype,
    }
    with Progress("measured", "sizes", sum(map(len, tables.values()))) as progress:
        for name, specs in tables.items():
            rows = []
            for spec in specs:
                rows.append(_measured(spec, args.steps))
                progress.add()
            result[f"by_{name}"] = rows
            result[f"exponents_by_{name}"] = _exponents(name, rows)
    return result


def _spec(args: argparse.Namespace, given: dict[str, Any], **changes: Any) -> StepSpec:
    length = changes.get("length", args.length)
    if args.tokens % length:
        raise UserError(f"--tokens {args.tokens} is no multiple of a row's length {length}")
    return spec_from(args, **{**given, "devices": 1, "rows": args.tokens // length, **changes})


def _measured(spec: StepSpec, steps: int) -> dict[str, Any]:
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
    os.environ["XLA_FLAGS"] = " ".join([*flags, f"--xla_force_host_platform_device_count={spec.devices}"])
    set_environment(spec)
    with workers(["ours"], spec) as started:
        worker = started["ours"]
        worker.advance(1)
        turns = [worker.advance(1) for _ in range(steps)]
        facts = worker.call("facts")
    seconds = [turn.seconds for turn in turns]
    return {
        "model": spec.model.name, "parameters": spec.model.num_parameters, "rows": spec.rows, "length": spec.length,
        "devices": spec.devices, "step_s": float(f"{statistics.median(seconds):.4g}"),
        "step_cpu_s": float(f"{statistics.median(turn.cpu_seconds for turn in turns):.4g}"),
        "step_s_range": [float(f"{value:.4g}") for value in (min(seconds), max(seconds))],
        "tokens_per_s": round(spec.tokens / statistics.median(seconds), 1),
        "compile_s": facts["compile_s"], "compile_cpu_s": facts["compile_cpu_s"],
        "arguments_mib": facts["arguments_mib"], "temporaries_mib": facts["temporaries_mib"],
        "resident_mib": facts["peak_memory_mib"],
    }  # fmt: skip


def _exponents(name: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Slope of log(measure) over log(size), for each measure."""
    if len({row[name] for row in rows}) < 2:
        return {}
    sizes = [math.log(row[name]) for row in rows]
    found = {}
    for measure in GROWING:
        if all(row[measure] for row in rows):
            slope, _ = statistics.linear_regression(sizes, [math.log(row[measure]) for row in rows])
            found[measure] = round(slope, 2)
    return found
