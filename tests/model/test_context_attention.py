"""Rows in parts: the order, the pairs of blocks, what they compute; over devices in tests/parallel/test_meshes.py."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh
from small_decoders import FLOAT32, config

from hephaestus_jax.config import ComputeConfig, MeshConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.model import attention, context_attention
from hephaestus_jax.model.attention import Masking
from hephaestus_jax.model.context_attention import Plan, in_parts, row_order
from hephaestus_jax.model.layers import attention_function
from hephaestus_jax.sharding import Partitioning, make_mesh


def test_zig_zag_order():
    assert row_order(12, 3).tolist() == [0, 1, 10, 11, 2, 3, 8, 9, 4, 5, 6, 7]
    assert row_order(5, 1).tolist() == [0, 1, 2, 3, 4]  # whole rows may be of any length
    with pytest.raises(UserError, match="rows of 12 tokens do not divide into 8 chunks.* context=4; choose MeshConfig"):
        row_order(12, 4)


@given(
    parts=st.sampled_from([1, 2, 3, 8]),
    chunk_blocks=st.integers(1, 3),
    block=st.sampled_from([1, 4, 5]),
    window=st.integers(0, 70),
)
@settings(max_examples=60, deadline=None)
def test_every_device_has_as_many_pairs_and_every_seen_key_is_in_one(parts, chunk_blocks, block, window):
    length = 2 * parts * chunk_blocks * block
    plan = Plan(parts, block, chunk_blocks, Masking(window=window))
    pairs = plan.pairs()
    if not window:
        assert pairs.shape[1] == chunk_blocks**2 * (2 * parts - 1) + chunk_blocks * (chunk_blocks + 1)
        assert (pairs[..., 1] >= 0).all()  # none to fill up with: the work is balanced exactly
    places = row_order(length, parts).reshape(parts, -1, block)
    gathered = places.reshape(-1, block)
    seen = set()
    for part in range(parts):
        met = set()
        for i, query_block, j, key_block in pairs[part]:
            if query_block < 0:
                continue
            assert places[part, i].tolist() == list(range(query_block * block, (query_block + 1) * block))
            assert gathered[j].tolist() == list(range(key_block * block, (key_block + 1) * block))
            assert i in met or query_block == key_block  # its own keys come first
            met.add(i)
            assert (query_block, key_block) not in seen
            seen.add((query_block, key_block))
    query, key = np.tril_indices(length)
    near = query - key < (window or length)
    assert seen == set(zip((query[near] // block).tolist(), (key[near] // block).tolist(), strict=True))


def test_blocks_are_the_largest_that_divide_a_chunk():
    assert Plan.of(32768, 8, Masking()) == Plan(8, 512, 4, Masking())
    assert Plan.of(48, 4, Masking()) == Plan(4, 6, 1, Masking())
    assert Plan.of(2 * 520, 1, Masking()) == Plan(1, 260, 2, Masking())


@pytest.mark.parametrize(
    "masking", [Masking(), Masking(window=5, softcap=1.5), Masking(window=16, scale=0.7)], ids=["plain", "5", "16"]
)
def test_pairs_of_blocks_compute_what_whole_rows_do(masking, monkeypatch):
    monkeypatch.setattr(context_attention, "MAX_BLOCK", 4)
    rng = np.random.default_rng(0)
    q, k, v, weights = (rng.standard_normal((2, 24, heads, 8)).astype(np.float32) for heads in (4, 2, 2, 4))
    segments = np.sort(rng.integers(1, 4, (2, 24)), axis=1)
    segments[1, 17:] = 0
    partitioning = Partitioning(make_mesh(MeshConfig(), jax.devices()[:1]), config())

    def parts(*arrays):
        with partitioning:
            return in_parts(*arrays, segments, masking, row_order(24, 1))

    def whole(*arrays):
        return attention.reference(*arrays, segments, masking)

    def evaluate(function):
        return jax.jit(jax.value_and_grad(lambda *x: (function(*x) * weights).sum(), argnums=(0, 1, 2)))(q, k, v)

    (total, found), (expected, others) = evaluate(parts), evaluate(whole)
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    for mine, other in zip(found, others, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)


def over_context(size):
    return Partitioning(AbstractMesh((1, 1, 1, size, 1), tuple(MeshConfig().axes)), config())


def test_a_backend_for_whole_rows_is_refused():
    with over_context(2), pytest.raises(UserError) as error:
        attention_function(config(), ComputeConfig(attention="reference"), "full", row_order(16, 2))
    assert str(error.value) == (
        "attention backend 'reference' wants whole rows, and MeshConfig.context divides them; set"
        " ComputeConfig.attention to chunked or splash or splash_fused, or MeshConfig.context to 1"
    )


def test_another_order_than_the_mesh_s_is_refused():
    with over_context(4), pytest.raises(ValueError, match="in the zig-zag order of it"):
        in_parts(*[np.zeros((1, 16, 2, 4))] * 3, np.ones((1, 16)), Masking(), row_order(16, 2))


def test_without_context_nothing_is_divided():
    attend = attention_function(config(), FLOAT32, "full", row_order(14, 1))
    assert isinstance(attend, functools.partial) and attend.func is attention.reference
