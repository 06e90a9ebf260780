"""Rotary embedding: angles against float64, and the properties that attention relies on."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import reference_decoder
from small_decoders import config

from hephaestus_jax.architecture import LinearRopeScaling, RopeScaling, YarnRopeScaling
from hephaestus_jax.model.rotary import Rotation, frequencies, rotate, rotation, rotations

YARN = YarnRopeScaling(4.0, 8192)
LLAMA_3_1 = RopeScaling(factor=8.0)
LLAMA_3_2 = RopeScaling(factor=32.0)


@pytest.mark.parametrize("scaling", [None, LLAMA_3_1, LLAMA_3_2, LinearRopeScaling(8.0), YARN])
def test_frequencies_equal_those_of_one_pair_at_a_time(scaling):
    model = config(head_dim=128, rope_theta=500_000.0, rope_scaling=scaling)
    got = frequencies(model)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, reference_decoder.frequencies(model), rtol=1e-12)
    if not isinstance(scaling, LinearRopeScaling | None):
        plain = frequencies(config(head_dim=128, rope_theta=500_000.0))
        assert got[0] == plain[0]
        assert got[-1] == pytest.approx(plain[-1] / scaling.factor, rel=1e-12)
        assert ((plain / scaling.factor < got) & (got < plain)).any()  # some pair lies between


def test_sliding_layers_may_have_frequencies_of_their_own():
    same = config(layer_pattern=("sliding", "full"), sliding_window=3, rope_scaling=LLAMA_3_1)
    other = dataclasses.replace(same, sliding_rope_theta=10.0)
    assert (frequencies(same, "sliding") == frequencies(same)).all() and (frequencies(other) == frequencies(same)).all()
    np.testing.assert_allclose(frequencies(other, "sliding"), 10.0 ** -(np.arange(4) / 4), rtol=1e-12)
    assert rotation(other, np.array([[3]]), "unrotated") is None
    assert rotate(1, None) == 1
    shared, own = (rotations(model, np.array([[3]])) for model in (same, other))
    assert shared["sliding"] is shared["full"] and (own["sliding"].cos != own["full"].cos).any()


@pytest.mark.parametrize(
    ("scaling", "length"),
    [(YARN, 0.1 * np.log(4) + 1), (YarnRopeScaling(4.0, 64, attention_factor=0.7), 0.7), (YarnRopeScaling(1.0, 64), 1)],
)
def test_yarn_lengthens_what_it_rotates(scaling, length):
    by = rotation(config(rope_scaling=scaling), np.array([[0, 7, 100_000]]))
    np.testing.assert_allclose(np.hypot(by.cos, by.sin), length, rtol=1e-6)


@pytest.mark.parametrize("scaling", [None, LLAMA_3_1])
def test_cosines_and_sines_equal_float64_at_every_position(scaling):
    model = config(head_dim=16, rope_theta=500_000.0, rope_scaling=scaling)
    positions = np.concatenate([np.arange(131_073), [2**24 + 1, 2**31 - 1]]).astype(np.int32)
    got = jax.jit(lambda positions: rotation(model, positions))(positions[None])
    angles = np.outer(positions.astype(np.float64), frequencies(model))
    assert got.cos.dtype == got.sin.dtype == np.float32
    assert np.abs(got.cos[0] - np.cos(angles)).max() < 5e-7
    assert np.abs(got.sin[0] - np.sin(angles)).max() < 5e-7


def test_a_pair_may_turn_more_than_once_per_position():
    model = config(head_dim=16, rope_scaling=LinearRopeScaling(0.1))
    positions = np.arange(131_073, dtype=np.int32)
    angles = np.outer(positions.astype(np.float64), frequencies(model))
    assert frequencies(model)[0] == 10
    np.testing.assert_allclose(rotation(model, positions[None]).cos[0], np.cos(angles), atol=5e-7)


def test_rotation_turns_pairs_half_a_head_apart():
    turned = rotate(np.array([[[[1.0, 2.0, 3.0, 4.0]]]], np.float32), quarter_turn_of_first_pair())
    np.testing.assert_allclose(turned[0, 0, 0], [-3.0, 2.0, 1.0, 4.0])


def quarter_turn_of_first_pair():
    return Rotation(np.array([[[0.0, 1.0]]], np.float32), np.array([[[1.0, 0.0]]], np.float32))


def test_products_depend_on_the_distance_only():
    model = config(head_dim=8)
    rng = np.random.default_rng(0)
    query, key = (np.tile(rng.standard_normal(8).astype(np.float32), (1, 3, 1, 1)) for _ in range(2))
    near, far = np.array([[5, 20, 100_003]]), np.array([[2, 17, 100_000]])  # always 3 apart
    products = np.sum(rotate(query, rotation(model, near)) * rotate(key, rotation(model, far)), -1)
    np.testing.assert_allclose(products, products[0, 0, 0], rtol=1e-5)
