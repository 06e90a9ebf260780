"""What a run would be, before it is one: `python -m train --dry_run` prints this and writes nothing."""

from __future__ import annotations

import time

import jax
import numpy as np

from hephaestus_jax.config import TrainConfig
from hephaestus_jax.data.mixture import Mixture, open_mixture
from hephaestus_jax.devices import peak_flops
from hephaestus_jax.metrics import MFU_CONVENTION
from hephaestus_jax.progress import duration
from hephaestus_jax.run_directory import identity_of
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.train_step import abstract_batch, abstract_state, check_batch, init_state, make_train_step

ASSUMED_MFU = 0.4  # for the estimate of hours on devices whose peak is known
_GIB = 1 << 30


def headline(config: TrainConfig, mixture: Mixture, partitioning: Partitioning) -> str:
    """Model, mesh and length of the run, in a few lines."""
    model, length = config.model, mixture.spec.sequence_length
    devices = partitioning.mesh.devices.ravel()
    axes = " × ".join(f"{axis} {size}" for axis, size in partitioning.mesh.shape.items())
    tokens = config.train_steps * config.batch_size * length
    compute = config.compute
    return "\n".join(
        [
            f"model {model.name}: {model.num_parameters:,} parameters, {model.num_layers} layers,"
            f" computed in {compute.dtype}, attention {compute.attention!r}, remat {compute.remat!r}",
            f"mesh {axes}: {devices.size} {devices[0].device_kind} device(s), {jax.process_count()} process(es)",
            f"mixture {mixture.spec.name!r}: rows of {length:,} tokens, {config.batch_size:,} rows per step,"
            f" {config.train_steps:,} steps = {tokens:,} tokens",
        ]
    )


def describe(config: TrainConfig) -> None:
    """Prints parameters, tokens, epochs per task, FLOPs, memory per device and estimated hours.

    The real step is compiled for the real devices; where their peak speed is not known it is also run three times.

    Raises:
        UserError: whatever would stop the run itself.
    """
    partitioning = Partitioning(make_mesh(config.mesh), config.model)
    check_batch(config, partitioning)
    abstract = abstract_state(config, partitioning)
    mixture = open_mixture(config.mixture)
    identity_of(config, mixture)
    length = mixture.spec.sequence_length
    print(headline(config, mixture, partitioning))
    print("\n".join(partitioning.describe()))
    print(mixture.describe(config.train_steps * config.batch_size))

    per_step = config.model.flops_per_token(length) * config.batch_size * length
    print(f"{per_step:.3g} FLOPs per step, {per_step * config.train_steps:.3g} FLOPs in all ({MFU_CONVENTION})")

    step = make_train_step(config, partitioning, abstract, len(mixture.task_names))
    batch = abstract_batch(config.batch_size, length, partitioning)
    started = time.monotonic()
    compiled = step.lower(abstract, batch).compile()
    print(f"the step compiled in {time.monotonic() - started:.1f} s")
    if (memory := compiled.memory_analysis()) is not None:
        total = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        total += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
        held, temporary = memory.argument_size_in_bytes / _GIB, memory.temp_size_in_bytes / _GIB
        print(
            f"memory per device: {total / _GIB:.3f} GiB"
            f" (state and batch {held:.3f} GiB, temporaries {temporary:.3f} GiB)"
        )
    print(_estimate(config, partitioning, compiled, abstract, batch, per_step))


def _estimate(config, partitioning, compiled, abstract, batch, per_step: float) -> str:  # type: ignore[no-untyped-def]
    """The whole run's time in words: from the devices' peak if it is known, else from steps that are run now."""
    devices = partitioning.mesh.devices.ravel()
    peak = config.logging.peak_tflops * 1e12 or peak_flops(devices[0].device_kind)
    if peak:
        seconds = per_step * config.train_steps / (peak * devices.size * ASSUMED_MFU)
        speed = f"{100 * ASSUMED_MFU:.0f} % MFU of {peak / 1e12:,.0f} TFLOP/s a device"
        return f"estimated time: {_hours(seconds)} at {speed}"
    state = init_state(config, abstract)
    fill = {"task_ids": 0}
    rows = {name: jax.device_put(np.full(x.shape, fill.get(name, 1), x.dtype), x.sharding) for name, x in batch.items()}
    times = []
    for _ in range(3):
        started = time.monotonic()
        state, _ = jax.block_until_ready(compiled(state, rows))
        times.append(time.monotonic() - started)
    return f"estimated time: {_hours(min(times) * config.train_steps)} at {min(times):.3g} s a step, measured just now"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f} hours ({duration(seconds)})"
