"""What would fit: remat policies, microbatches and mesh shapes, compiled from the cheapest on until one does.

The order is by an estimate of the step's time, from the model's shapes alone: products at the chip's peak, weights
gathered and gradients reduced over `fsdp` for every microbatch, activations reduced over `tensor` in every layer. It
decides only what is tried first; whether something fits is what the compiler says. What cannot fit by the state and
the activations that its remat policy keeps is not compiled.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hephaestus_jax.compile_check.check import Check, gib
from hephaestus_jax.compile_check.topologies import Topology
from hephaestus_jax.config import REMAT_POLICIES, TrainConfig
from hephaestus_jax.errors import UserError

MAX_COMPILES = 12
MICROBATCHES = (1, 2, 4, 8, 16)
TENSORS = (1, 2, 4, 8)

# Recomputed share of the forward pass's products, roughly, and the order of what they keep: most first.
_RECOMPUTED = {"none": 0.0, "dots": 0.1, "attention": 0.1, "dots_with_no_batch_dims": 0.15, "full": 0.75}
_KEEPS = ("none", "attention", "dots", "dots_with_no_batch_dims", "full")


@dataclass(frozen=True)
class Candidate:
    """One way to run the same batch."""

    remat: str
    microbatches: int
    data: int
    fsdp: int
    tensor: int

    def applied(self, config: TrainConfig) -> TrainConfig:
        """`config` with these settings."""
        mesh = dataclasses.replace(config.mesh, data=self.data, fsdp=self.fsdp, tensor=self.tensor)
        compute = dataclasses.replace(config.compute, remat=self.remat)
        return dataclasses.replace(config, mesh=mesh, compute=compute, microbatches=self.microbatches)

    def overrides(self) -> str:
        """The same as arguments of a command line."""
        settings = {
            "ComputeConfig.remat": self.remat,
            "TrainConfig.microbatches": self.microbatches,
            "MeshConfig.data": self.data,
            "MeshConfig.fsdp": self.fsdp,
            "MeshConfig.tensor": self.tensor,
        }
        return " ".join(f"--gin.{name}={value}" for name, value in settings.items())

    def needs_no_less_than(self, other: Candidate) -> bool:
        """Whether this certainly takes as much memory as `other`: the same mesh, and it keeps at least as much."""
        same = (self.data, self.fsdp, self.tensor) == (other.data, other.fsdp, other.tensor)
        keeps_more = _KEEPS.index(self.remat) <= _KEEPS.index(other.remat)
        return same and keeps_more and self.microbatches <= other.microbatches


@dataclass(frozen=True)
class Suggestion:
    """What the search came to.

    Attributes:
        tried: candidates that were compiled, in order, and what that told.
        found: the first that fits; None if none did.
    """

    tried: tuple[tuple[Candidate, Check | str], ...]
    found: Candidate | None


def suggest(start: Check, compile_: Callable[[TrainConfig], Check], max_compiles: int = MAX_COMPILES) -> Suggestion:
    """Compiles candidates for the run of `start`, the cheapest first, until one fits.

    Args:
        start: what compiling the run as it is told; it is not compiled again.
        compile_: compiles another configuration of it.
        max_compiles: how many are tried at most.
    """
    config, topology = start.config, start.topology
    known = _as_candidate(start)
    tried: list[tuple[Candidate, Check | str]] = []
    too_large = [] if start.fits else [known]
    queue = sorted(candidates(config, topology), key=lambda c: _order(c, config, start.length, topology))
    for candidate in queue:
        if least_memory(candidate, config, start.length, topology) > topology.generation.hbm:
            continue
        if any(candidate.needs_no_less_than(other) for other in too_large):
            continue
        if candidate == known:
            return Suggestion(tuple(tried), known)
        if len(tried) == max_compiles:
            break
        print(f"compiling {candidate.overrides()}", file=sys.stderr, flush=True)
        try:
            result: Check | str = compile_(candidate.applied(config))
        except UserError as error:
            result = str(error)
        tried.append((candidate, result))
        if isinstance(result, Check) and result.fits:
            return Suggestion(tuple(tried), candidate)
        if isinstance(result, Check):
            too_large.append(candidate)
    return Suggestion(tuple(tried), None)


def candidates(config: TrainConfig, topology: Topology) -> Iterator[Candidate]:
    """Everything that divides: the batch over rows and microbatches, the model over the mesh."""
    model, others = config.model, config.mesh.expert * config.mesh.context
    width = model.experts.mlp_dim if model.experts else model.mlp_dim
    for tensor in TENSORS:
        if topology.chips % (tensor * others) or any(x % tensor for x in (width, model.num_heads, model.vocab_size)):
            continue
        left = topology.chips // (tensor * others)
        for data in _powers(left):
            fsdp = left // data
            if model.embed_dim % (fsdp * others):
                continue
            for microbatches in MICROBATCHES:
                if config.batch_size % (data * fsdp * config.mesh.expert * microbatches) == 0:
                    for remat in REMAT_POLICIES:
                        yield Candidate(remat, microbatches, data, fsdp, tensor)


def estimate(candidate: Candidate, config: TrainConfig, length: int, topology: Topology) -> float:
    """Seconds of a step, by shapes alone: see the module."""
    model, chip = config.model, topology.generation
    tokens = config.batch_size * length / topology.chips
    products = config.flops_per_token(length) * tokens * (1 + _RECOMPUTED.get(candidate.remat, 0.75) / 3)
    links = 2 * len(topology.shape) * chip.link_bandwidth
    weights = 2 * model.num_parameters / candidate.tensor
    gathers = 3 if candidate.remat == "full" else 2  # forward, backward, and the gradients' way back
    over_fsdp = (gathers + 1) * weights * candidate.microbatches if candidate.fsdp > 1 else 0
    over_data = 2 * weights / candidate.fsdp if candidate.data > 1 else 0
    activations = 2 * tokens * candidate.tensor * model.embed_dim
    over_tensor = 4 * model.num_layers * 2 * activations if candidate.tensor > 1 else 0
    behind = (over_fsdp + over_data) / links  # other work, but for a tenth; what waits for `tensor` waits
    return max(products / chip.peak_flops, behind) + 0.1 * behind + over_tensor / (2 * chip.link_bandwidth)


def in_words(suggestion: Suggestion) -> str:
    """What was tried, and the overrides of what fits."""
    lines = [f"tried {len(suggestion.tried)}, the cheapest by estimate first:"]
    for candidate, result in suggestion.tried:
        if isinstance(result, str):
            lines.append(f"  {candidate.overrides()}: {result}")
        else:
            verdict = "fits" if result.fits else "does not fit"
            lines.append(f"  {candidate.overrides()}: {gib(result.total)}, {verdict}")
    if suggestion.found is None:
        lines.append("none of them fits; take more chips, fewer rows a step, or shorter rows")
    else:
        lines.append(f"fits: {suggestion.found.overrides()}")
    return "\n".join(lines)


def _order(candidate: Candidate, config: TrainConfig, length: int, topology: Topology) -> tuple[float, ...]:
    """By time; of equals the plainest: fewer microbatches, less of `tensor` and `data`, less remat."""
    return (
        estimate(candidate, config, length, topology), candidate.microbatches, candidate.tensor, candidate.data,
        _KEEPS.index(candidate.remat) if candidate.remat in _KEEPS else len(_KEEPS),
    )  # fmt: skip


def _as_candidate(found: Check) -> Candidate:
    config, mesh = found.config, found.mesh
    return Candidate(config.compute.remat, config.microbatches, mesh["data"], mesh["fsdp"], mesh["tensor"])


def _powers(count: int) -> Iterator[int]:
    power = 1
    while count % power == 0:
        yield power
        power *= 2


def least_memory(candidate: Candidate, config: TrainConfig, length: int, topology: Topology) -> float:
    """Bytes that a chip needs at the least: its share of the state, and what the backward pass finds kept.

    Of every layer the input in the dtype of computing, and but for "full" the results of its matrix products too.
    """
    model, optimizer = config.model, config.optimizer
    trained = config.lora is None  # adapters are small
    moments = (2 if optimizer.moment_dtype == "bfloat16" else 4) + 4 if trained and optimizer.kind == "adamw" else 0
    state = (4 if config.compute.param_dtype == "float32" else 2) + moments
    width = model.experts.mlp_dim * model.experts.experts_per_token if model.experts else model.mlp_dim
    heads = (2 * model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    products = 0 if candidate.remat == "full" else (heads + 2 * width) / candidate.tensor
    rows = config.batch_size * candidate.tensor / topology.chips / candidate.microbatches
    each = 2 if config.compute.dtype == "bfloat16" else 4
    kept = each * rows * length * model.num_layers * (model.embed_dim + products)
    return state * model.num_parameters * candidate.data / topology.chips + kept
