"""The decoder: tokens per second forward and backward, and compile time at two depths.

The step is the loss and the gradients of all parameters, on one device, without an optimizer; rows are random and hold
several segments each. Compilations of the two depths alternate; the seconds are the fastest of the rounds, in wall time
and in CPU seconds of all threads, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.config import MODEL_PARTS, REMAT_POLICIES, ComputeConfig, ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.gin_files import load_gin
from hephaestus_jax.losses import cross_entropy_sums
from hephaestus_jax.model.decoder import abstract_parameters, decode, output_kernel
from hephaestus_jax.progress import Progress

SEGMENTS = 4  # of a row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--gin_file", default="gin/models/small.gin", help="the model (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="rows (default: %(default)s)")
    parser.add_argument("--length", type=int, default=512, help="tokens per row (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps; 0 for none (default: %(default)s)")
    parser.add_argument(
        "--depths", type=int, nargs=2, default=[4, 32], help="layers whose compile times to compare (default: 4 32)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="compilations of each depth; 0 for none (default: 3)")
    parser.add_argument("--attention", default="reference", help="attention backend (default: %(default)s)")
    parser.add_argument("--remat", default="none", help=f"{', '.join(REMAT_POLICIES)} (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="default: %(default)s")
    parser.add_argument("--loss_chunk", type=int, default=256, help="positions at a time (default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the line to print."""
    if min(args.batch, args.length, *args.depths) < 1 or min(args.steps, args.rounds) < 0:
        raise UserError("--batch, --length and --depths must be 1 or more, --steps and --rounds 0 or more")
    model = load_gin(ModelConfig, args.gin_file, also=MODEL_PARTS)
    compute = ComputeConfig(dtype=args.dtype, attention=args.attention, remat=args.remat, loss_chunk=args.loss_chunk)
    device = jax.devices()[0]
    result = {
        "model": model.name, "parameters": model.num_parameters, "platform": device.platform,
        "device": device.device_kind, "dtype": args.dtype, "attention": args.attention, "remat": args.remat,
        "rows": args.batch, "tokens_per_row": args.length,
    }  # fmt: skip
    if args.steps:
        result |= _throughput(model, compute, args)
    if args.rounds:
        result |= _compile_times(model, compute, args)
    return result


def _rows(model: ModelConfig, args: argparse.Namespace) -> tuple[jax.Array, ...]:
    """Tokens, segment ids and positions of random rows."""
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, (args.batch, args.length))
    per_segment = -(-args.length // SEGMENTS)
    places = np.broadcast_to(np.arange(args.length), tokens.shape)
    return tuple(jnp.asarray(array, jnp.int32) for array in (tokens, places // per_segment + 1, places % per_segment))


def _step(model: ModelConfig, compute: ComputeConfig) -> Any:
    """The compiled-on-call function of the mean loss and the gradients of all parameters."""

    def loss(params: dict, tokens: jax.Array, segment_ids: jax.Array, positions: jax.Array) -> jax.Array:
        hidden = decode(params, model, compute, tokens, segment_ids, positions)
        weights = jnp.ones(tokens.shape, jnp.float32)
        groups = jnp.zeros(tokens.shape[:1], jnp.int32)
        kernel = output_kernel(params)
        sums = cross_entropy_sums(
            hidden, kernel, jnp.roll(tokens, -1, 1), weights, groups, 1, 0.0, compute.loss_chunk, model.logit_softcap
        )
        return sums.objective / tokens.size

    return jax.jit(jax.value_and_grad(loss))


def _throughput(model: ModelConfig, compute: ComputeConfig, args: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of the median step; the first step is not among them."""
    abstract = abstract_parameters(model, compute.param_dtype)  # the values do not matter to the speed
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.02, leaf.dtype), abstract)
    rows = _rows(model, args)
    step = _step(model, compute).lower(params, *rows).compile()
    memory = step.memory_analysis()
    jax.block_until_ready(step(params, *rows))
    seconds = []
    progress = Progress("timing", "steps", args.steps)
    for _ in range(args.steps):
        start = time.perf_counter()
        jax.block_until_ready(step(params, *rows))
        seconds.append(time.perf_counter() - start)
        progress.add()
    progress.close()
    median = statistics.median(seconds)
    tokens = args.batch * args.length
    return {
        "tokens_per_s": round(tokens / median, 1),
        "step_s": round(median, 4),
        "tflops_per_s": round(tokens * model.flops_per_token(args.length) / median / 1e12, 4),
        "temporary_mib": round(memory.temp_size_in_bytes / 2**20, 1) if memory else None,
    }


def _compile_times(model: ModelConfig, compute: ComputeConfig, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the traced step to the executable, tracing included, at each depth."""
    wall: dict[int, list[float]] = {depth: [] for depth in args.depths}
    cpu: dict[int, list[float]] = {depth: [] for depth in args.depths}
    rows = _rows(model, args)
    progress = Progress("compiling", "programs", args.rounds * len(args.depths))
    for _ in range(args.rounds):
        for depth in args.depths:
            layered = dataclasses.replace(model, num_layers=depth)
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            _step(layered, compute).lower(abstract_parameters(layered, compute.param_dtype), *rows).compile()
            wall[depth].append(time.perf_counter() - wall_start)
            cpu[depth].append(time.process_time() - cpu_start)
            progress.add()
    progress.close()
    shallow, deep = args.depths
    return {
        "compile_s": {f"{depth}_layers": round(min(wall[depth]), 3) for depth in args.depths},
        "compile_cpu_s": {f"{depth}_layers": round(min(cpu[depth]), 3) for depth in args.depths},
        "compile_ratio": round(min(wall[deep]) / min(wall[shallow]), 3),
        "compile_cpu_ratio": round(min(cpu[deep]) / min(cpu[shallow]), 3),
    }
