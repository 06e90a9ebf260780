"""The real train step of a configuration, compiled for a topology of TPUs that need not be there."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from hephaestus_jax.compile_check.costs import Costs, walk
from hephaestus_jax.compile_check.hlo import parse
from hephaestus_jax.compile_check.kernels import KernelFormulas
from hephaestus_jax.compile_check.moves import Move, moves
from hephaestus_jax.compile_check.roofline import Roofline, roofline
from hephaestus_jax.compile_check.topologies import GIB, Topology, describe
from hephaestus_jax.config import PARTS, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.gin_files import find_gin_file, load_gin
from hephaestus_jax.model.decoder import parameter_axes
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.starting_point import starting_model
from hephaestus_jax.train_step import abstract_batch, abstract_state, check_batch, make_train_step

LENGTH = "SEQUENCE_LENGTH"
"""The macro of a gin file that says how long the mixture's rows are."""

_PATHS = ("RUN_DIR", "MIXTURE", "INIT_FROM")  # macros that compiling does not need
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def load_config(gin_files: Sequence[str], overrides: Sequence[str]) -> TrainConfig:
    """The run that gin files describe; paths that they require and that compiling does not need may be left out.

    Raises:
        UserError: as `load_gin`.
    """
    also = (*PARTS, starting_model)
    try:
        return load_gin(TrainConfig, gin_files, overrides, also)
    except UserError as error:
        missing = re.findall(r"--gin\.(\w+)=\.\.\.", str(error))
        if not missing or not set(missing) <= set(_PATHS):
            raise
    return load_gin(TrainConfig, gin_files, [*overrides, *(f"{name}=unused" for name in missing)], also)


def row_length(gin_files: Sequence[str], overrides: Sequence[str]) -> int:
    """Tokens of a row, as the macro SEQUENCE_LENGTH of the overrides or of the last file that has it says.

    Raises:
        UserError: none has it.
    """
    texts = [Path(find_gin_file(file)).read_text("utf-8") for file in gin_files]
    found = re.findall(rf"(?m)^{LENGTH} *= *(\d+)", "\n".join([*texts, *overrides]))
    if not found:
        raise UserError(f"{', '.join(gin_files)} has no {LENGTH}; give --length, the tokens of a row")
    return int(found[-1])


@dataclass(frozen=True)
class Memory:
    """Bytes on each chip while the step runs, as the compiler plans them.

    Attributes:
        arguments: state and batch.
        outputs: results that do not reuse the arguments' place.
        temporaries: everything in between.
        code: the program.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        return self.arguments + self.outputs + self.temporaries + self.code


@dataclass(frozen=True)
class Check:
    """What compiling told.

    Attributes:
        config, length, topology: what was compiled.
        mesh: size of each axis.
        memory: None where the compiler gave up for want of memory.
        needed: bytes that it then said it needs.
        said: its words then.
        costs: of one step on one chip; empty where it gave up.
        moves: collectives by kind, mesh axes and what they move.
        useful_flops: of one step on one chip, `ModelConfig.flops_per_token`.
        once_flops: of the walk with every loop counted once, to compare with `compiler_flops`.
        compiler_flops: the compiler's own count, which counts every loop once, kernels as 0, and sums and
            activations too.
        roofline: None where it gave up.
        trace_seconds, compile_seconds: on this machine.
    """

    config: TrainConfig
    length: int
    topology: Topology
    mesh: dict[str, int]
    useful_flops: float
    trace_seconds: float
    compile_seconds: float
    memory: Memory | None = None
    needed: int = 0
    said: str = ""
    costs: Costs = field(default_factory=Costs)
    moves: tuple[Move, ...] = ()
    once_flops: float = 0.0
    compiler_flops: float = 0.0
    roofline: Roofline | None = None

    @property
    def total(self) -> int:
        """Bytes that the step needs on each chip."""
        return self.memory.total if self.memory else self.needed

    @property
    def fits(self) -> bool:
        """Whether every chip has that much."""
        return self.memory is not None and self.total <= self.topology.generation.hbm

    @property
    def flops_ratio(self) -> float:
        """FLOPs that are executed over those that are useful."""
        return self.costs.flops / self.useful_flops


def check(config: TrainConfig, length: int, topology: Topology, keep_text: str = "") -> Check:
    """Compiles the train step of `config` for rows of `length` tokens on `topology`; nothing is allocated.

    Args:
        config: its mesh must cover the topology.
        length: tokens of a row.
        topology: the chips.
        keep_text: file that the compiled program's text is written to.

    Raises:
        UserError: configuration, mesh or topology do not fit together, or the compiler refuses the program for
            another reason than memory.
    """
    config = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, slices=topology.slices))
    mesh = make_mesh(config.mesh, describe(topology))
    partitioning = Partitioning(mesh, config.model, lora=config.lora)
    check_batch(config, partitioning)
    abstract = abstract_state(config, partitioning)
    batch = abstract_batch(config.batch_size, length, partitioning)
    started = time.monotonic()
    lowered = make_train_step(config, partitioning, abstract, 1).lower(abstract, batch)
    traced = time.monotonic()
    useful = config.flops_per_token(length) * config.batch_size * length / topology.chips
    found = Check(config, length, topology, dict(mesh.shape), useful, traced - started, 0.0)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        seconds = time.monotonic() - traced
        words = " ".join(str(error).split("\n\n")[0].split())
        if "RESOURCE_EXHAUSTED" not in words:
            raise UserError(f"the TPU compiler refuses the program: {words[:1000]}") from error
        return dataclasses.replace(found, compile_seconds=seconds, needed=needed_bytes(words), said=words[:600])
    found = dataclasses.replace(found, compile_seconds=time.monotonic() - traced)
    text = compiled.as_text()
    if keep_text:
        Path(keep_text).write_text(text)
    return _with_costs(found, compiled, text, partitioning, abstract)


def _with_costs(found: Check, compiled: Any, text: str, partitioning: Partitioning, abstract: Any) -> Check:
    config, mesh = found.config, partitioning.mesh
    module = parse(text)
    windows = {"sliding": config.model.sliding_window}
    formulas = KernelFormulas(config.model.head_dim, tuple(windows.get(kind, 0) for kind in config.model.layer_pattern))
    costs = walk(module, formulas)
    told = compiled.memory_analysis()
    memory = Memory(
        told.argument_size_in_bytes, told.output_size_in_bytes - told.alias_size_in_bytes, told.temp_size_in_bytes,
        told.generated_code_size_in_bytes,
    )  # fmt: skip
    return dataclasses.replace(
        found,
        memory=memory,
        costs=costs,
        moves=moves(
            costs.collectives,
            dict(mesh.shape),
            abstract.params,
            parameter_axes(config.model, config.lora),
            partitioning,
        ),
        once_flops=walk(module, loops=False).flops,
        compiler_flops=(compiled.cost_analysis() or {}).get("flops", 0.0),
        roofline=roofline(costs, found.topology, list(mesh.devices.flat), found.useful_flops),
    )


def needed_bytes(words: str) -> int:
    """The memory that an out-of-memory message of the compiler says the program needs; 0 if it does not say."""
    for pattern in (r"Used ([\d.]+)([KMGT]?) of", r"total memory required[^(]*\(([\d.]+)([KMGT]?)\)"):
        if found := re.search(pattern, words):
            return int(float(found[1]) * _UNITS[found[2]])
    return 0


def gib(count: float) -> str:
    """Bytes in GiB, in words."""
    return f"{count / GIB:.2f} GiB"
