"""Attention kernels on meshes, and what compilers make of them; by themselves they are in `test_attention.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from compiling import QUICK
from kernels_worker import CASES, PROGRAMS

from hephaestus_jax.config import MeshConfig, ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.model import splash, triton_attention
from hephaestus_jax.model.attention import PLAIN, Masking
from hephaestus_jax.model.context_attention import row_order
from hephaestus_jax.sharding import MESH_AXES, Partitioning, make_mesh

WORKER = Path(__file__).parent / "kernels_worker.py"
ROOT = WORKER.parents[2]
MODEL = ModelConfig("heads only", 128, 16, 128, 1, 2, 1, 8)


@pytest.fixture(scope="module")
def found():
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {QUICK}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    done = subprocess.run(
        [sys.executable, str(WORKER)], env=os.environ | environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_a_mesh_changes_neither_output_nor_gradients(found, case):
    assert max(found["differences"][case]) < 1e-5


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_tpu_compiler_takes_the_kernels_and_moves_no_more_than_it_must(found, program):
    if "programs" not in found:
        pytest.skip("libtpu is not installed")
    made = found["programs"][program]
    assert made["kernels"] == (["dkv", "fwd"] if program == "one backward kernel" else ["dkv", "dq", "fwd"])
    # keys, values and segment ids come from the devices that share a row; the gradients of the first two go back
    wanted = {"all-gather": 3, "reduce-scatter": 2} if program == "length" else {}
    assert made["collectives"] == wanted


def test_remat_keeps_the_output_of_the_kernel_where_it_keeps_products(found):
    if "decoders" not in found:
        pytest.skip("libtpu is not installed")
    assert found["decoders"] == {"full": {"fwd": 2, "dq": 1, "dkv": 1}, "dots": {"fwd": 1, "dq": 1, "dkv": 1}}


def test_the_gpu_kernel_is_lowered_for_cuda():
    """As far as it can be followed without a GPU."""

    def total(q, k, v, segment_ids):
        return triton_attention.triton(q, k, v, segment_ids, PLAIN).astype(np.float32).sum()

    q, k = (jax.ShapeDtypeStruct((1, 512, count, 128), jax.numpy.bfloat16) for count in (4, 2))
    traced = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(q, k, k, jax.ShapeDtypeStruct((1, 512), np.int32))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert all(name in text for name in ("triton", "mha_forward", "mha_backward"))


@pytest.mark.parametrize(("length", "block"), [(128, 128), (640, 128), (384, 384), (8192, 512), (1152, 384)])
def test_the_largest_block_that_divides_the_row(length, block):
    assert splash.block_size(length) == block


def heads(length):
    q, k = (np.zeros((1, length, count, 8), np.float32) for count in (2, 1))
    return q, k, k, np.ones((1, length), np.int32)


def test_rows_that_blocks_do_not_divide_are_refused():
    with pytest.raises(UserError, match="rows of a multiple of 128 tokens, not rows of 200; pack rows of"):
        splash.splash(*heads(200), PLAIN)


def test_so_are_rows_whose_chunks_on_a_device_blocks_do_not_divide():
    mesh = jax.sharding.AbstractMesh((1, 1, 1, 2, 1), MESH_AXES)
    with (
        Partitioning(mesh, MODEL),
        pytest.raises(UserError, match=r"4 chunks, .* context=2, each a multiple of 128"),
    ):
        splash.splash(*heads(256), PLAIN, places=row_order(256, 2))


def test_the_order_of_a_row_must_be_the_one_that_devices_hold():
    whole = Partitioning(make_mesh(MeshConfig(fsdp=1), jax.devices()[:1]), MODEL)
    with whole, pytest.raises(ValueError, match="not the order in which 1 devices hold a row"):
        splash.splash(*heads(512), PLAIN, places=row_order(512, 2))


def test_a_masking_that_the_gpu_kernel_lacks_is_refused():
    with pytest.raises(ValueError, match="neither window nor soft-cap"):
        triton_attention.triton(*heads(256), Masking(window=3))
