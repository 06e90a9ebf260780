"""The table of attention backends: every one equals the first, and says what it cannot do."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from hephaestus_jax.errors import UserError
from hephaestus_jax.model import attention
from hephaestus_jax.model.attention import BACKENDS, Backend, choose

LENGTH = 21
USABLE = [name for name, backend in BACKENDS.items() if backend.function]


def inputs(kv_heads, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(2, LENGTH, heads, 8) for heads in (4, kv_heads, kv_heads, 4)]
    q, k, v, weights = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    segment_ids = np.array([[1] * 6 + [2] * 9 + [0] * 6, [3] * 2 + [0] * 3 + [1] * 16])
    return q, k, v, segment_ids, weights


def out_and_gradients(function, q, k, v, segment_ids, weights):
    def total(q, k, v):
        out = function(q, k, v, segment_ids)
        return (out * weights).sum(), out

    (_, out), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return out, *gradients


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_every_backend_equals_the_reference_in_value_and_gradient(kv_heads):
    batch = inputs(kv_heads)
    wanted = out_and_gradients(attention.reference, *batch)
    ways = {name: BACKENDS[name].function for name in USABLE if name != "reference"}
    ways["chunked"] = functools.partial(attention.chunked, chunk=8)  # 21 tokens: two whole chunks and a rest
    for name, function in ways.items():
        for got, right in zip(out_and_gradients(function, *batch), wanted, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-6, atol=1e-6, err_msg=name)


def test_chunked_never_holds_all_scores():
    """Of 64 queries by 64 keys at most 16 queries' scores exist at a time, in the backward pass too."""
    heads, length, chunk = 4, 64, 16
    q = k = v = jax.ShapeDtypeStruct((1, length, heads, 8), np.float32)
    segment_ids = jax.ShapeDtypeStruct((1, length), np.int32)

    def memory(function):
        gradient = jax.grad(lambda q, k, v, segments: function(q, k, v, segments).sum(), argnums=(0, 1, 2))
        return str(jax.make_jaxpr(gradient)(q, k, v, segment_ids))

    chunked = memory(lambda *arrays: attention.chunked(*arrays, chunk=chunk))
    whole, part = f"f32[1,{heads},1,{length},{length}]", f"f32[1,{heads},1,{chunk},{length}]"
    assert whole in memory(attention.reference)
    assert whole not in chunked
    assert part in chunked


def test_a_token_sees_earlier_places_of_its_own_segment_only():
    *_, segment_ids, _ = inputs(4)
    places = np.broadcast_to(np.eye(LENGTH, dtype=np.float32)[None, :, None, :], (2, LENGTH, 4, LENGTH))
    sees = np.asarray(attention.reference(np.zeros_like(places), np.zeros_like(places), places, segment_ids)) > 0
    for row, i, j in np.ndindex(2, LENGTH, LENGTH):
        assert sees[row, i, :, j].all() == (j <= i and segment_ids[row, j] == segment_ids[row, i])


@pytest.mark.parametrize("name", USABLE)
def test_softmax_statistics_are_float32_in_bfloat16_too(name):
    q, k, v, segment_ids, _ = (jax.numpy.bfloat16(x) if x.dtype == np.float32 else x for x in inputs(2))
    jaxpr = str(jax.make_jaxpr(BACKENDS[name].function)(q, k, v, segment_ids))
    assert BACKENDS[name].float32_softmax
    sums = [line for line in jaxpr.splitlines() if " reduce_sum[" in line or " exp " in line]
    assert sums and all("f32[" in line.split("=")[0] for line in sums)


def ask(name, **changes):
    asked = {"dtype": "bfloat16", "length": 512, "grouped": True, "platform": "cpu", **changes}
    return choose(name, **asked)


def test_what_a_backend_cannot_do_is_an_error_that_names_those_that_can(monkeypatch):
    assert ask("reference") is BACKENDS["reference"]
    with pytest.raises(UserError, match="'flash'; known backends: reference, chunked"):
        ask("flash")
    with pytest.raises(UserError, match=r"'cudnn' does not keep the segments.*set ComputeConfig.attention to refer"):
        ask("cudnn", platform="gpu")
    kernel = Backend(
        "kernel", attention.reference, platforms=("tpu",), dtypes=("bfloat16",), grouped=False, length_multiple=128
    )
    monkeypatch.setitem(BACKENDS, "kernel", kernel)
    can = {"platform": "tpu", "grouped": False}
    assert ask("kernel", **can) is kernel
    with pytest.raises(UserError, match="runs on tpu, not on cpu; set ComputeConfig.attention to reference or chun"):
        ask("kernel", **can | {"platform": "cpu"})
    with pytest.raises(UserError, match="computes in bfloat16, not in float32"):
        ask("kernel", **can, dtype="float32")
    with pytest.raises(UserError, match="needs as many key/value heads as query heads"):
        ask("kernel", **can | {"grouped": True})
    with pytest.raises(UserError, match="needs rows of a multiple of 128 tokens, not 500"):
        ask("kernel", **can, length=500)
