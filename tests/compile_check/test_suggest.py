"""What is compiled, in what order, and what is said of it; the compiler is a function of the settings."""

from __future__ import annotations

import itertools

import pytest

from hephaestus_jax.compile_check.check import Check, Memory
from hephaestus_jax.compile_check.suggest import Candidate, candidates, estimate, in_words, least_memory, suggest
from hephaestus_jax.compile_check.topologies import GIB, parse_topology
from hephaestus_jax.config import ComputeConfig, MeshConfig, ModelConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.gin_files import split_overrides

MODEL = ModelConfig("8b", 128256, 4096, 14336, 32, 32, 8, 128)
CONFIG = TrainConfig("run", "mixture", MODEL, 100, 256, compute=ComputeConfig(remat="dots"), mesh=MeshConfig(fsdp=256))
TOPOLOGY = parse_topology("v5e:16x16")
KEPT = {"none": 40.0, "attention": 30.0, "dots": 25.0, "dots_with_no_batch_dims": 20.0, "full": 6.0}


def compiled(config: TrainConfig, scale: float = 1.0) -> Check:
    """A compiler that knows what each remat policy keeps: GiB, over microbatches and tensor."""
    kept = scale * KEPT[config.compute.remat] / config.microbatches / config.mesh.tensor
    mesh = {"data": config.mesh.data, "fsdp": config.mesh.fsdp, "tensor": config.mesh.tensor}
    memory = Memory(int(0.4 * GIB), 0, int(kept * GIB), 0)
    return Check(config, 8192, TOPOLOGY, mesh, 1.0, 0.0, 0.0, memory=memory)


def test_the_first_that_fits_in_the_order_of_the_estimate() -> None:
    seen: list[TrainConfig] = []

    def compile_(config: TrainConfig) -> Check:
        seen.append(config)
        return compiled(config)

    result = suggest(compiled(CONFIG), compile_, max_compiles=50)
    assert result.found is not None
    assert compiled(result.found.applied(CONFIG)).fits
    times = [estimate(candidate, CONFIG, 8192, TOPOLOGY) for candidate, _ in result.tried]
    assert times == sorted(times)
    assert [candidate.applied(CONFIG) for candidate, _ in result.tried] == seen
    cheaper = [c for c in candidates(CONFIG, TOPOLOGY) if estimate(c, CONFIG, 8192, TOPOLOGY) < times[-1]]
    possible = [c for c in cheaper if least_memory(c, CONFIG, 8192, TOPOLOGY) <= TOPOLOGY.generation.hbm]
    assert not [c for c in possible if compiled(c.applied(CONFIG)).fits]


def test_what_needs_more_than_something_too_large_is_not_compiled() -> None:
    """The run itself was too large: nothing on its mesh that keeps more is tried."""
    seen: list[TrainConfig] = []

    def compile_(config: TrainConfig) -> Check:
        seen.append(config)
        return compiled(config)

    suggest(compiled(CONFIG), compile_, max_compiles=50)
    assert seen
    tried = [(c.compute.remat, c.microbatches, c.mesh) for c in seen]
    assert len(set(tried)) == len(tried)
    assert not [c for c in seen if c.mesh == CONFIG.mesh and c.compute.remat in ("none", "attention", "dots")]


def test_what_cannot_fit_is_not_compiled() -> None:
    seen: list[TrainConfig] = []
    suggest(compiled(CONFIG), lambda config: (seen.append(config), compiled(config))[1], max_compiles=100)
    assert seen
    for c in seen:
        candidate = Candidate(c.compute.remat, c.microbatches, c.mesh.data, c.mesh.fsdp, c.mesh.tensor)
        assert least_memory(candidate, CONFIG, 8192, TOPOLOGY) <= TOPOLOGY.generation.hbm
    full, none = (least_memory(Candidate(remat, 1, 1, 256, 1), CONFIG, 8192, TOPOLOGY) for remat in ("full", "none"))
    assert 2 * GIB < full < 4 * GIB  # an input of 64 MiB for each of 32 layers, and a 256th of 90 GiB
    assert none > TOPOLOGY.generation.hbm


def test_nothing_fits() -> None:
    result = suggest(compiled(CONFIG, 1000), lambda config: compiled(config, 1000), max_compiles=5)
    assert result.found is None
    assert len(result.tried) <= 5
    assert "none of them fits; take more chips" in in_words(result)


def test_a_run_that_is_the_cheapest_that_fits_is_left_as_it_is() -> None:
    best = suggest(compiled(CONFIG), compiled, max_compiles=100).found
    assert best is not None
    config = best.applied(CONFIG)
    result = suggest(compiled(config), lambda other: pytest.fail("fits") if other == config else compiled(other), 100)
    assert result.found == best


def test_a_candidate_that_is_refused_does_not_end_the_search() -> None:
    def compile_(config: TrainConfig) -> Check:
        if config.mesh.tensor > 1:
            raise UserError("tensor is refused")
        return compiled(config)

    result = suggest(compiled(CONFIG), compile_, max_compiles=100)
    assert result.found is not None
    assert result.found.tensor == 1


def test_overrides_are_those_of_the_command_line() -> None:
    candidate = Candidate("full", 2, 4, 32, 2)
    overrides, rest = split_overrides(candidate.overrides().split())
    assert not rest
    assert "MeshConfig.fsdp=32" in overrides
    applied = candidate.applied(CONFIG)
    assert (applied.mesh.data, applied.mesh.fsdp, applied.mesh.tensor) == (4, 32, 2)
    assert (applied.microbatches, applied.compute.remat) == (2, "full")


def test_every_candidate_divides() -> None:
    for c in candidates(CONFIG, TOPOLOGY):
        assert c.data * c.fsdp * c.tensor == 256
        assert CONFIG.batch_size % (c.data * c.fsdp * c.microbatches) == 0
        assert MODEL.num_heads % c.tensor == 0


def test_more_remat_and_more_microbatches_are_never_cheaper() -> None:
    for low, high in itertools.pairwise(["none", "dots", "dots_with_no_batch_dims", "full"]):
        a, b = (estimate(Candidate(remat, 1, 1, 256, 1), CONFIG, 8192, TOPOLOGY) for remat in (low, high))
        assert a <= b
    a, b = (estimate(Candidate("full", m, 1, 256, 1), CONFIG, 8192, TOPOLOGY) for m in (1, 4))
    assert a < b
