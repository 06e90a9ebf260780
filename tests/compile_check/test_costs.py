"""The walk over compiled programs gives the costs that are known of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compiled_programs import DOT, B, K, M, N

SQUARE = 2 * M * K * K
BYTES = 8 * 16 * 4  # of what a device holds


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """In a process of its own: the number of devices is fixed when JAX starts."""
    flags = "--xla_force_host_platform_device_count=8"
    root = str(Path(__file__).resolve().parents[2])
    env = dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=root)
    program = Path(__file__).with_name("compiled_programs.py")
    done = subprocess.run([sys.executable, str(program)], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("product", DOT),
        ("batched", B * DOT),
        ("two_contracted", B * DOT),
        ("scanned", 7 * SQUARE),
        ("nested", 5 * 7 * SQUARE),
        ("in_steps", 9 * SQUARE),
        ("until_small", SQUARE),
        ("either", 2 * SQUARE),
        # forward 2; computed again 2, the second of which only its input's derivative needs; backward 4
        ("remat", 3 * 8 * SQUARE),
        ("convolution", 2 * B * K * N * 28),
    ],
)
def test_flops(found: dict[str, Any], name: str, flops: int) -> None:
    assert found[name]["flops"] == flops


@pytest.mark.parametrize("name", ["product", "batched", "two_contracted", "convolution"])
def test_without_loops_the_compiler_counts_the_same(found: dict[str, Any], name: str) -> None:
    assert found[name]["once"] == found[name]["flops"] == found[name]["compiler"]


@pytest.mark.parametrize("name", ["scanned", "nested", "in_steps", "until_small"])
def test_the_compiler_counts_every_loop_once(found: dict[str, Any], name: str) -> None:
    """But for what is no product: the loop's own counter, the activation."""
    assert found[name]["once"] == SQUARE
    assert found[name]["once"] <= found[name]["compiler"] < found[name]["once"] + 3 * M * K


def test_a_loop_that_depends_on_data_is_reported(found: dict[str, Any]) -> None:
    assert found["until_small"]["unknown_loops"] == 1
    assert found["nested"]["unknown_loops"] == 0


def test_bytes_of_a_product_are_its_operands_and_result(found: dict[str, Any]) -> None:
    assert found["product"]["hbm_bytes"] == 4 * (M * K + K * N + M * N)


def test_a_scan_reads_one_slice_at_a_time(found: dict[str, Any]) -> None:
    """Seven times a weight, and some activations; not seven times all weights."""
    weights = 7 * K * K * 4
    assert weights <= found["scanned"]["hbm_bytes"] < 7 * weights


@pytest.mark.parametrize(
    ("name", "kind", "payload", "sent", "axes"),
    [
        ("all-reduce", "all-reduce", BYTES, BYTES, ["data"]),
        ("all-reduce both", "all-reduce", BYTES, 2 * 7 / 8 * BYTES, ["data", "tensor"]),
        ("all-gather", "all-gather", 4 * BYTES, 3 * BYTES, ["tensor"]),
        ("reduce-scatter", "reduce-scatter", BYTES, 3 / 4 * BYTES, ["tensor"]),
        ("collective-permute", "collective-permute", BYTES, BYTES, ["tensor"]),
        ("all-to-all", "all-to-all", BYTES, 3 / 4 * BYTES, ["tensor"]),
    ],
)
def test_collectives(found: dict[str, Any], name: str, kind: str, payload: int, sent: float, axes: list[str]) -> None:
    assert found["devices"] == 8
    assert [(c[0], c[2], c[3], c[4], c[5]) for c in found["collectives"][name]] == [(kind, 3, payload, sent, axes)]
