"""Averages the weights of a run's saved steps.

    python -m tools.average_checkpoints RUN OUT                  all saved steps, uniformly
    python -m tools.average_checkpoints RUN OUT --last 4         the newest four
    python -m tools.average_checkpoints RUN OUT --ema 0.8        exponentially, one update for each saved step

OUT is a folder that `python -m tools.convert_checkpoint export`, `python -m tools.evaluate` and --gin.INIT_FROM take
like a run; it has no optimizer state, so it is not resumed. CheckpointConfig.keep and keep_every_steps say which steps
a run keeps.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import duration
from tools._command import run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.average_checkpoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument("out", metavar="OUT", help="new folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--steps", type=int, nargs="+", help="steps to average (default: all that are saved)")
    which.add_argument("--last", type=int, help="the newest so many")
    parser.add_argument("--ema", type=float, metavar="DECAY", help="exponential average with this decay a saved step")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the average."""
    from hephaestus_jax.averaging import Average, average_checkpoints, saved_steps

    args = _parser().parse_args(arguments)
    started = time.monotonic()
    if args.last is not None and args.last < 2:
        raise UserError(f"--last {args.last}; give 2 or more")
    steps = tuple(sorted(set(args.steps))) if args.steps else saved_steps(args.run)
    average = Average(steps[-args.last :] if args.last else steps, args.ema)
    done = average_checkpoints(args.run, args.out, average)
    recorded = average.to_json()
    for step, weight in zip(recorded["steps"], recorded["weights"], strict=True):
        print(f"step {step:>9,}  weight {weight:.6f}")
    print(
        f"averaged {len(average.steps)} steps of {args.run}:"
        f" {done.parameter_bytes / 1e6:,.1f} MB of parameters in {args.out} after"
        f" {duration(time.monotonic() - started)}"
    )


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # values only pass through
    run(main)
