"""The command's own parts, and one real compile for TPUs where libtpu is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from hephaestus_jax.compile_check.check import Check, load_config, needed_bytes, row_length
from hephaestus_jax.compile_check.costs import Collective, Costs
from hephaestus_jax.compile_check.groups import Groups
from hephaestus_jax.compile_check.hlo import Array
from hephaestus_jax.compile_check.moves import classify, moves, parameter_shapes
from hephaestus_jax.compile_check.report import as_json, in_words
from hephaestus_jax.compile_check.roofline import bandwidth, roofline
from hephaestus_jax.compile_check.topologies import GIB, parse_topology
from hephaestus_jax.config import ModelConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
from hephaestus_jax.sharding import Partitioning

ROOT = Path(__file__).resolve().parents[2]
RUNS = sorted(f"gin/runs/tpu/{file.name}" for file in (ROOT / "gin" / "runs" / "tpu").glob("*.gin"))
MODEL = ModelConfig("small", 512, 64, 160, 2, num_heads=4, num_kv_heads=2, head_dim=32)


@pytest.mark.parametrize(
    ("words", "gib"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.27G of 15.75G hbm. Exceeded", 20.27),
        ("RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (600.00G) exceeds available", 600),
        ("RESOURCE_EXHAUSTED: Used 512.00M of 15.75G hbm", 0.5),
        ("RESOURCE_EXHAUSTED: something else", 0),
    ],
)
def test_what_the_compiler_says_it_needs(words: str, gib: float) -> None:
    assert needed_bytes(words) == int(gib * GIB)


@pytest.mark.parametrize("name", RUNS)
def test_every_shipped_run_loads_without_paths(name: str) -> None:
    config = load_config([name], [])
    assert row_length([name], []) == 8192
    assert config.compute.dtype == "bfloat16"
    assert (config.compute.param_dtype, config.optimizer.moment_dtype) == ("float32", "float32")
    text = (ROOT / name).read_text("utf-8")
    assert text.startswith("# ")
    for word in ("Mesh:", "Remat:", "Required to be set:", "Commonly overridden:"):
        assert word in text.partition("include")[0]


def test_the_length_is_the_last_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text("SEQUENCE_LENGTH = 64\n")
    (tmp_path / "b.gin").write_text("OTHER = 1\n")
    files = [str(tmp_path / "a.gin"), str(tmp_path / "b.gin")]
    assert row_length(files, []) == 64
    assert row_length(files, ["SEQUENCE_LENGTH=128"]) == 128
    with pytest.raises(UserError, match="give --length"):
        row_length(files[1:], [])


def test_what_is_required_besides_paths_stays_an_error(tmp_path: Path) -> None:
    (tmp_path / "run.gin").write_text("include 'gin/runs/pretrain.gin'\nTRAIN_STEPS = %gin.REQUIRED\n")
    with pytest.raises(UserError, match="TRAIN_STEPS"):
        load_config([str(tmp_path / "run.gin")], [])


# What collectives move


def collective(kind: str, *shape: int, op_name: str = "", inside: str = "", dtype: str = "bf16") -> Collective:
    groups = Groups(((0, 1, 2, 3), (4, 5, 6, 7)))
    return Collective(kind, (Array(dtype, shape),), groups, 3, op_name, inside)


@pytest.fixture(scope="module")
def partitioning() -> Partitioning:
    sizes = {"data": 2, "fsdp": 4}
    names = ("data", "fsdp", "expert", "context", "tensor")
    return Partitioning(jax.sharding.AbstractMesh(tuple(sizes.get(name, 1) for name in names), names), MODEL)


def test_weights_and_gradients_are_told_by_their_shapes(partitioning: Partitioning) -> None:
    names = parameter_shapes(abstract_parameters(MODEL), parameter_axes(MODEL), partitioning)
    told = {
        classify(x, x.arrays[0], names): x
        for x in (
            collective("all-gather", 1, 64, 160),
            collective("reduce-scatter", 160, 64),
            collective("all-gather", 64, 4, 32),
            collective("all-gather", 64, 128),  # heads and their dimension joined
            collective("all-gather", 512, 64),
            collective("all-reduce", 8, 2048, 96),
            collective("all-reduce", 3),
            collective("all-to-all", 64, 160 * 64, 160),
        )
    }
    assert set(told) == {
        "weights: mlp/down, mlp/gate, mlp/up",
        "gradients: mlp/down, mlp/gate, mlp/up",
        "weights: attention/out, attention/query",
        "weights: embedder, head",
        "activations",
        "sums",
    }
    rows = collective("all-gather", 1024, 2048, dtype="s32")
    assert classify(rows, rows.arrays[0], names) == "rows"
    piece = collective("collective-permute", 16, 160, inside="windowed_dot_general_body_rs.3")
    assert classify(piece, piece.arrays[0], names).startswith("gradients: mlp")
    piece = collective("collective-permute", 16, 160, inside="windowed_dot_general_body_ag.3")
    assert classify(piece, piece.arrays[0], names).startswith("weights: mlp")


def test_a_stretch_of_the_vocabulary_is_told_by_its_shape() -> None:
    model = dataclasses.replace(MODEL, vocab_size=32768)
    names = ("data", "fsdp", "expert", "context", "tensor")
    mesh = Partitioning(jax.sharding.AbstractMesh((1, 2, 1, 1, 2), names), model)
    told = parameter_shapes(abstract_parameters(model), parameter_axes(model), mesh)
    stretch = collective("all-reduce", model.embed_dim, 4096, dtype="f32")  # four of 16,384 on each device of tensor
    assert classify(stretch, stretch.arrays[0], told) == "gradients: embedder, head"


def test_moves_add_up(partitioning: Partitioning) -> None:
    gather = collective("all-gather", 1, 64, 160, op_name="jit(step)/transpose(jvp())/while/body/dot_general")
    mesh = {"data": 2, "fsdp": 4}
    (move,) = moves([gather, gather], mesh, abstract_parameters(MODEL), parameter_axes(MODEL), partitioning)
    assert (move.kind, move.axes, move.count) == ("all-gather", ("fsdp",), 6)
    assert move.payload == 6 * 64 * 160 * 2
    assert move.sent == pytest.approx(move.payload * 3 / 4)
    assert move.origin == "backward layer dot_general"


# Roofline


class Chip:
    def __init__(self, *coords: int) -> None:
        self.coords = coords


@pytest.mark.parametrize(
    ("topology", "members", "links"),
    [
        ("v5e:16x16", range(256), 4),  # two rings, both directions
        ("v5e:16x16", range(16), 2),  # one ring
        ("v5e:16x16", range(8), 1),  # half a ring is a line
        ("v5e:4x4", range(16), 2),  # two lines
        ("v5p:4x4x4", range(64), 6),
    ],
)
def test_links_of_a_collective(topology: str, members: range, links: int) -> None:
    parsed = parse_topology(topology)
    coords = list(np.ndindex(*reversed(parsed.shape)))
    places = np.array([(0, *reversed(c)) for c in coords])
    x = Collective("all-gather", (Array("bf16", (8,)),), Groups((tuple(members),)), 1, "")
    assert bandwidth(x, parsed, places) == links * parsed.generation.link_bandwidth


def test_between_slices_the_network_counts() -> None:
    parsed = parse_topology("2*v5e:4x4")
    places = np.array([(i // 16, i % 4, i // 4 % 4, 0) for i in range(32)])
    x = Collective("all-reduce", (Array("bf16", (8,)),), Groups(((0, 16),)), 1, "")
    assert bandwidth(x, parsed, places) == parsed.generation.network_bandwidth


def test_the_longest_part_is_the_step() -> None:
    parsed = parse_topology("v5e:2x2")
    chips = [Chip(x, y, 0) for y in range(2) for x in range(2)]
    costs = Costs(flops=197e12, hbm_bytes=2 * 819e9)
    times = roofline(costs, parsed, chips, useful_flops=0.5 * 197e12)
    assert (times.compute, times.memory, times.interconnect) == (1.0, 2.0, 0.0)
    assert (times.step, times.bound, times.mfu) == (2.0, "memory", 0.25)


# In words


def test_what_does_not_fit_says_what_it_needs() -> None:
    config = TrainConfig("r", "m", MODEL, 1, 16)
    said = "RESOURCE_EXHAUSTED: Used 20.27G of 15.75G hbm"
    topology, needed = parse_topology("v5e:4x4"), int(20.27 * GIB)
    found = Check(config, 128, topology, {"fsdp": 16}, 1.0, 0.0, 0.0, needed=needed, said=said)
    assert not found.fits
    assert "does not fit: the compiler needs 20.27 GiB of 15.75 GiB" in in_words(found)
    assert as_json(found)["fits"] is False
    json.dumps(as_json(found))


TINY = """
include 'gin/models/tiny.gin'
include 'gin/runs/training.gin'
SEQUENCE_LENGTH = 128
BATCH_SIZE = 8
TrainConfig.model = @ModelConfig()
ModelConfig.num_layers = 2
ComputeConfig.attention = 'splash'
ComputeConfig.remat = 'full'
"""


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, the TPU compiler")
def test_the_real_step_compiles_for_a_small_slice(tmp_path: Path) -> None:
    (tmp_path / "tiny.gin").write_text(TINY)
    command = [sys.executable, "-m", "tools.compile_check", "--topology=v5e:2x2", "--json"]
    command.append(f"--gin_file={tmp_path / 'tiny.gin'}")
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["fits"]
    assert found["mesh"]["fsdp"] == 4
    # forward and backward, the layers' forward again but for its last product; one block of scores, all of it computed
    assert 1.1 < found["flops_ratio"] < 1.6
    assert found["once_flops"] == pytest.approx(found["compiler_flops"], rel=0.1)
    assert found["uncounted_kernels"] == {}
    assert found["unknown_loops"] == 0
    state = 3 * 4 * found["parameters"] / 4
    assert state <= found["memory_bytes"]["arguments"] < 2 * state  # small arrays are padded to whole tiles
    kinds = {move["what"].partition(":")[0] for move in found["collectives"]}
    assert {"weights", "gradients"} <= kinds


def test_a_wrong_topology_is_one_line() -> None:
    command = [sys.executable, "-m", "tools.compile_check", "--gin_file=x.gin", "--topology=v5p-512"]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: topology 'v5p-512'")
