"""What a run would be, before it is one: `python -m train --dry_run` prints this and writes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hephaestus_jax.checkpoints import newest_step
from hephaestus_jax.config import LoraConfig, ModelConfig, TrainConfig
from hephaestus_jax.data.mixture import Mixture, open_mixture
from hephaestus_jax.devices import peak_flops
from hephaestus_jax.metrics import MFU_CONVENTION
from hephaestus_jax.progress import duration
from hephaestus_jax.run_directory import RunDirectory, check_identity, identity_of
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.starting_point import open_starting_point
from hephaestus_jax.train_step import (
    TrainState,
    abstract_batch,
    abstract_state,
    check_batch,
    init_state,
    make_train_step,
)

ASSUMED_MFU = 0.4  # for the estimate of hours on devices whose peak is known
_GIB = 1 << 30


def headline(config: TrainConfig, mixture: Mixture, partitioning: Partitioning) -> str:
    """Model, mesh and length of the run, in a few lines."""
    model, length = config.model, mixture.spec.sequence_length
    devices = partitioning.mesh.devices.ravel()
    axes = " × ".join(f"{axis} {size}" for axis, size in partitioning.mesh.shape.items())
    tokens = config.train_steps * config.batch_size * length
    warmup, steps = config.schedule.warmup_steps, config.schedule_steps
    short = f"; warm-up takes {warmup:,} steps, so the rate only rises" if warmup >= steps else ""
    compute = config.compute
    adapters = [] if config.lora is None else [_adapters(config.lora, model)]
    return "\n".join(
        [
            f"model {model.name}: {model.num_parameters:,} parameters, {model.num_layers} layers,"
            f" computed in {compute.dtype}, attention {compute.attention!r}, remat {compute.remat!r}",
            *adapters,
            f"mesh {axes}: {devices.size} {devices[0].device_kind} device(s), {jax.process_count()} process(es)",
            f"mixture {mixture.spec.name!r}: rows of {length:,} tokens, {config.batch_size:,} rows per step,"
            f" {config.train_steps:,} steps = {tokens:,} tokens{short}",
        ]
    )


def _adapters(lora: LoraConfig, model: ModelConfig) -> str:
    count = lora.num_parameters(model)
    return (
        f"adapters of rank {lora.rank}, scale {lora.scale:g}, on {', '.join(lora.targets)}: {count:,} parameters are"
        f" trained, {100 * count / model.num_parameters:.3g} % as many as those that are kept as they are"
    )


def describe(config: TrainConfig) -> None:
    """Prints parameters, tokens, epochs per task, FLOPs, memory per device and estimated hours.

    The real step is compiled for the real devices; where their peak speed is not known it is also run, three times, if
    it fits into half of this machine's memory.

    Raises:
        UserError: whatever would keep the run from starting, damaged checkpoints and evaluation files excepted.
    """
    partitioning = Partitioning(make_mesh(config.mesh), config.model, lora=config.lora)
    check_batch(config, partitioning)
    abstract = abstract_state(config, partitioning)
    mixture = open_mixture(config.mixture)
    identity = identity_of(config, mixture)
    if (old := RunDirectory(config.run_dir, writes=False).identity) is not None:
        check_identity(old, identity)
    elif config.init_from:
        start = open_starting_point(config.init_from)
        start.check_vocabulary(mixture.spec.vocabulary)
        if start.kind != "huggingface":
            newest_step(start.checkpoints)
    length = mixture.spec.sequence_length
    print(headline(config, mixture, partitioning))
    print("\n".join(["arrays on the mesh", *partitioning.describe()[1:]]))
    print(mixture.describe(config.train_steps * config.batch_size))

    per_step = config.flops_per_token(length) * config.batch_size * length
    print(f"{per_step:.3g} FLOPs per step, {per_step * config.train_steps:.3g} FLOPs in all ({MFU_CONVENTION})")

    step = make_train_step(config, partitioning, abstract, len(mixture.task_names))
    batch = abstract_batch(config.batch_size, length, partitioning)
    started = time.monotonic()
    compiled = step.lower(abstract, batch).compile()
    print(f"the step compiled in {time.monotonic() - started:.1f} s")
    print(_memory(compiled.memory_analysis()))
    devices = partitioning.mesh.devices.ravel()
    if peak := config.logging.peak_tflops * 1e12 or peak_flops(devices[0].device_kind):
        seconds = per_step * config.train_steps / (peak * devices.size * ASSUMED_MFU)
        print(
            f"estimated time: {_hours(seconds)} at {100 * ASSUMED_MFU:.0f} % MFU of {peak / 1e12:,.0f} TFLOP/s a device"
        )
    elif (needed := _bytes(compiled.memory_analysis()) * devices.size) > _host_bytes() / 2:
        print(
            f"estimated time: unknown, this device's peak is not known and a step to measure would take"
            f" {needed / _GIB:,.1f} GiB of this machine's {_host_bytes() / _GIB:,.1f} GiB;"
            " give LoggingConfig.peak_tflops"
        )
    else:
        seconds = _measure(compiled, init_state(config, abstract), batch)
        print(f"estimated time: {_hours(seconds * config.train_steps)} at {seconds:.3g} s a step, measured just now")


def _bytes(memory: Any) -> int:
    """Bytes that a compiled step takes on each device: arguments, results, temporaries and code; 0 if not told."""
    if memory is None:
        return 0
    reused = memory.alias_size_in_bytes
    results = memory.output_size_in_bytes - reused
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes


def _memory(memory: Any) -> str:
    if memory is None:
        return "memory per device: not told by this compiler"
    held, temporary = memory.argument_size_in_bytes / _GIB, memory.temp_size_in_bytes / _GIB
    return (
        f"memory per device: {_bytes(memory) / _GIB:.3f} GiB"
        f" (state and batch {held:.3f} GiB, temporaries {temporary:.3f} GiB)"
    )


def _host_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _measure(compiled: Any, state: TrainState, batch: Mapping[str, jax.ShapeDtypeStruct]) -> float:
    """Seconds of one step, the fastest of three, on rows of token 1."""
    fill = {"task_ids": 0}
    rows = {name: jax.device_put(np.full(x.shape, fill.get(name, 1), x.dtype), x.sharding) for name, x in batch.items()}
    times = []
    for _ in range(3):
        started = time.monotonic()
        state, _ = jax.block_until_ready(compiled(state, rows))
        times.append(time.monotonic() - started)
    return min(times)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f} hours ({duration(seconds)})"
