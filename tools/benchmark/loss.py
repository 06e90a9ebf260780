"""Time and memory of the chunked loss, with its gradients, against one that makes all logits at once.

The other side is the usual program: all logits, `log_softmax` in float32, and automatic differentiation. Both compile
once and then run in alternating rounds on the default device. Memory is what the compiled program needs besides its
inputs and outputs, as the compiler tells it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.errors import UserError
from hephaestus_jax.losses import cross_entropy_sums
from hephaestus_jax.progress import Progress

SIZES = {"batch_size": 8, "seq_length": 512, "embed_dim": 256, "vocab_size": 16384, "chunk": 64, "rounds": 7}

Loss = Callable[..., jax.Array]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the line to print."""
    for name in SIZES:
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1")
    inputs = _inputs(args)
    losses: dict[str, Loss] = {"chunked": _chunked(args.chunk), "all_logits": _all_logits}
    result: dict[str, Any] = {name: getattr(args, name) for name in SIZES} | {"dtype": args.dtype}
    result["device"] = jax.devices()[0].device_kind
    with Progress("measuring", "rounds", 2 * args.rounds) as progress:
        for part, transform in {"forward": lambda loss: loss, "forward_backward": _with_gradients}.items():
            programs = {name: jax.jit(transform(loss)).lower(*inputs).compile() for name, loss in losses.items()}
            seconds = {name: [_seconds(program, inputs)] for name, program in programs.items()}
            for _ in progress.track(range(args.rounds)):
                for name, program in programs.items():
                    seconds[name].append(_seconds(program, inputs))
            result[part] = _compared(programs, {name: times[1:] for name, times in seconds.items()})
    return result


def _inputs(args: argparse.Namespace) -> tuple[jax.Array, ...]:
    """Hidden states, kernel, targets and weights."""
    rng = np.random.default_rng(0)
    rows = (args.batch_size, args.seq_length)
    return (
        jnp.asarray(rng.standard_normal((*rows, args.embed_dim)), args.dtype),
        jnp.asarray(rng.standard_normal((args.embed_dim, args.vocab_size)) / args.embed_dim**0.5, jnp.float32),
        jnp.asarray(rng.integers(0, args.vocab_size, rows), jnp.int32),
        jnp.asarray(rng.uniform(size=rows) < 0.9, jnp.float32),
    )


def _chunked(chunk: int) -> Loss:
    def loss(hidden: jax.Array, kernel: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        groups = jnp.zeros(hidden.shape[0], jnp.int32)
        return cross_entropy_sums(hidden, kernel, targets, weights, groups, 1, 0.0, chunk).objective

    return loss


def _all_logits(hidden: jax.Array, kernel: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    logits = jnp.einsum("bld,dv->blv", hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)
    log_probabilities = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(weights * log_probabilities)


def _with_gradients(loss: Loss) -> Callable[..., Any]:
    return jax.value_and_grad(loss, argnums=(0, 1))


def _seconds(program: Any, inputs: tuple[jax.Array, ...]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(*inputs))
    return time.perf_counter() - start


def _compared(programs: dict[str, Any], seconds: dict[str, list[float]]) -> dict[str, float]:
    found = {}
    for name, program in programs.items():
        found[f"{name}_ms"] = round(1e3 * statistics.median(seconds[name]), 1)
        found[f"{name}_temporary_mib"] = round(program.memory_analysis().temp_size_in_bytes / 2**20, 2)
    ratios = [ours / theirs for ours, theirs in zip(seconds["chunked"], seconds["all_logits"], strict=True)]
    found["time_ratio_to_all_logits"] = round(statistics.median(ratios), 3)
    memory = found["all_logits_temporary_mib"] / max(found["chunked_temporary_mib"], 1e-9)
    found["times_less_memory"] = round(memory, 1)
    return found
