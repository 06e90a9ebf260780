"""The step of this project: `make_train_step`, as `python -m train` compiles it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.config import ComputeConfig, MeshConfig, TrainConfig
from hephaestus_jax.devices import memory_in_use
from hephaestus_jax.errors import UserError
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.train_step import StepMetrics, abstract_batch, abstract_state, init_state, make_train_step
from hephaestus_jax.versions import versions_of
from tools.benchmark.steps.spec import Rows, StepSpec, batches, tensors


def train_config(spec: StepSpec, **changes: Any) -> TrainConfig:
    """The run whose step that is."""
    optimizer = dataclasses.replace(spec.optimizer, moment_dtype=spec.moment_dtype)
    compute = ComputeConfig(
        dtype=spec.dtype, param_dtype=spec.param_dtype, attention=spec.attention, remat=spec.remat,
        loss_chunk=spec.loss_chunk,
    )  # fmt: skip
    given: dict[str, Any] = {
        "run_dir": "none", "mixture": "none", "model": spec.model, "train_steps": 1 << 20, "batch_size": spec.rows,
        "compute": compute, "mesh": MeshConfig(fsdp=spec.devices), "optimizer": optimizer, "schedule": spec.schedule,
    }  # fmt: skip
    return TrainConfig(**{**given, **changes})


def to_device(rows: Rows, partitioning: Partitioning) -> dict[str, jax.Array]:
    """The batch as the step takes it, of one task."""
    arrays = {name: jax.device_put(values, partitioning.batch) for name, values in vars(rows).items()}
    task_ids = np.zeros(len(rows.tokens), np.int32)
    return {**arrays, "task_ids": jax.device_put(task_ids, partitioning.sharding(("batch",)))}


class Ours:
    """The compiled step and its state."""

    def __init__(self, spec: StepSpec) -> None:
        self.spec = spec
        config = train_config(spec)
        if jax.default_backend() != spec.platform:
            raise UserError(f"JAX computes on {jax.default_backend()}, not on {spec.platform}; install jax[cuda13]")
        self.devices = jax.devices()[: spec.devices]
        partitioning = Partitioning(make_mesh(config.mesh, self.devices), config.model)
        abstract = abstract_state(config, partitioning)
        step = make_train_step(config, partitioning, abstract, groups=1)
        started, cpu = time.perf_counter(), time.process_time()
        self.step = step.lower(abstract, abstract_batch(spec.rows, spec.length, partitioning)).compile()
        self.compile_seconds, self.compile_cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        self.state = init_state(config, abstract, {"params": _parameters(spec)})
        self.batches = _endless([to_device(rows, partitioning) for rows in batches(spec)])

    def advance(self, steps: int) -> list[tuple[float, float]]:
        """Takes that many steps; the loss and gradient norm of each, fetched at the end."""
        sent: list[StepMetrics] = []
        for _ in range(steps):
            self.state, metrics = self.step(self.state, next(self.batches))
            sent.append(metrics)
        return [(float(metrics.loss), float(metrics.grad_norm)) for metrics in jax.device_get(sent)]

    def facts(self) -> dict[str, Any]:
        """What the result says of this side besides its speed."""
        spec, memory = self.spec, memory_in_use(self.devices)
        compiled = self.step.memory_analysis()
        return {
            "step": f"make_train_step, attention {spec.attention!r}, remat {spec.remat!r}, loss_chunk"
            f" {spec.loss_chunk}",
            "dtypes": f"computes in {spec.dtype}, parameters {spec.param_dtype}, first moment {spec.moment_dtype},"
            " second moment, softmax statistics and loss float32",
            "compile_s": round(self.compile_seconds, 2),
            "compile_cpu_s": round(self.compile_cpu_seconds, 2),
            "memory_of": memory.of,
            "peak_memory_mib": round(memory.peak / 2**20),
            "arguments_mib": round(compiled.argument_size_in_bytes / 2**20, 1) if compiled else None,
            "temporaries_mib": round(compiled.temp_size_in_bytes / 2**20, 1) if compiled else None,
            "device": self.devices[0].device_kind,
            "versions": versions_of("jax", "jaxlib", "flax", "optax"),
        }

    def product_rate(self, size: int, rounds: int) -> float:
        """FLOP/s of a square matrix product in the step's dtype, the median of `rounds`."""
        a, b = (jax.random.normal(jax.random.key(i), (size, size), self.spec.dtype) for i in range(2))
        product = jax.jit(lambda a, b: jnp.dot(a, b, precision="highest" if a.dtype == jnp.float32 else None))
        jax.block_until_ready(product(a, b))
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            jax.block_until_ready(product(a, b))
            seconds.append(time.perf_counter() - started)
        return 2 * size**3 / float(np.median(seconds))


def _parameters(spec: StepSpec) -> dict[str, Any]:
    """The tree of parameters on the host, stacked over layers."""
    tree: dict[str, Any] = {}
    for _, weight, index, values in tensors(spec):
        *folders, leaf = weight.path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        if leaf not in place:
            place[leaf] = np.empty(weight.our_shape(spec.model), spec.param_dtype)
        ours = values.reshape(weight.split_shape(spec.model)).transpose(weight.to_ours)
        place[leaf][index] = ours
    return tree


def _endless(items: list[Any]) -> Iterator[Any]:
    while True:
        yield from items
