"""The table of attention backends: every one equals the first, and says what it cannot do."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.model import attention, splash, triton_attention
from hephaestus_jax.model.attention import BACKENDS, PLAIN, Backend, Masking, choose

LENGTH = 256
BLOCK = 128  # the kernel's smallest: two of them to a row
HEADS, HEAD_DIM = 4, 8
USABLE = [name for name, backend in BACKENDS.items() if backend.function]

WAYS = {
    "reference": attention.reference,
    "chunked": functools.partial(attention.chunked, chunk=96),  # two whole chunks and a rest
    "xla": attention.xla,
    "splash": functools.partial(splash.splash, interpret=True),
    "splash_fused": functools.partial(splash.splash, fused_backward=True, interpret=True),
    "triton": functools.partial(triton_attention.triton, interpret=True),
}
MASKINGS = [
    (PLAIN, 1),
    (Masking(window=1), 4),
    (Masking(window=37, scale=0.7), 2),
    (Masking(window=BLOCK, softcap=1.5), 2),
]


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splash, "MAX_BLOCK", BLOCK)
        yield


def test_no_backend_goes_untested():
    assert list(WAYS) == USABLE


def inputs(kv_heads, length=LENGTH, rows=1):
    rng = np.random.default_rng(kv_heads)
    shapes = [(rows, length, heads, HEAD_DIM) for heads in (HEADS, kv_heads, kv_heads, HEADS)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def can(name, masking):
    backend = BACKENDS[name]
    asked = {"dtype": backend.dtypes[0], "length": LENGTH, "grouped": True, "platform": backend.platforms[0]}
    try:
        return choose(name, **asked, masking=masking)
    except UserError:
        return None


@functools.cache
def compiled(name, masking, native=False):
    """The backend's output and the gradients of a weighted sum of it, for any segments."""
    function = BACKENDS[name].function if native else WAYS[name]

    def total(q, k, v, weights, segment_ids):
        out = function(q, k, v, segment_ids, masking)
        return (out * weights).sum(), out

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))


def by_definition(q, k, v, segment_ids, masking):
    """One query after the other, in float64."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    for row, i, head in np.ndindex(q.shape[:3]):
        kv_head = head * k.shape[2] // q.shape[2]
        window = masking.window or i + 1
        sees = [j for j in range(i + 1) if i - window < j and segment_ids[row, j] == segment_ids[row, i]]
        scores = k[row, sees, kv_head] @ q[row, i, head] * (masking.scale or q.shape[-1] ** -0.5)
        if masking.softcap:
            scores = masking.softcap * np.tanh(scores / masking.softcap)
        shares = np.exp(scores - scores.max())
        out[row, i, head] = shares @ v[row, sees, kv_head] / shares.sum()
    return out


@pytest.mark.parametrize(("masking", "kv_heads"), MASKINGS)
def test_the_reference_is_what_the_definition_says(masking, kv_heads):
    q, k, v, _ = inputs(kv_heads, length=45, rows=2)
    segment_ids = np.array([[1] * 6 + [2] * 33 + [0] * 6, [3] * 2 + [0] * 3 + [1] * 40])
    got = attention.reference(q, k, v, segment_ids, masking)
    np.testing.assert_allclose(got, by_definition(q, k, v, segment_ids, masking), rtol=1e-5, atol=1e-5)


@st.composite
def packed_rows(draw):
    """Segments of any length, some ending at or beside the edge of a block, and perhaps padding."""
    near_edges = st.sampled_from([1, BLOCK - 1, BLOCK, BLOCK + 1, LENGTH - 1])
    ends = draw(st.sets(st.one_of(near_edges, st.integers(1, LENGTH - 1)), max_size=6))
    segments = np.searchsorted(sorted(ends), np.arange(LENGTH), side="right") + 1
    padded = draw(st.booleans()) and len(ends) > 0
    return np.where(segments == segments[-1], 0, segments) if padded else segments


@pytest.mark.parametrize(("masking", "kv_heads"), MASKINGS)
def test_every_backend_equals_the_reference_in_value_and_gradient(masking, kv_heads):
    arrays = inputs(kv_heads)
    able = [name for name in USABLE if can(name, masking)]
    assert {"chunked", "splash"} <= set(able)

    @settings(max_examples=8, deadline=None)
    @example(np.ones(LENGTH, int))
    @example(np.zeros(LENGTH, int))
    @example(np.repeat([1, 2], BLOCK))
    @given(packed_rows())
    def same(segments):
        (_, right_out), right = compiled("reference", masking)(*arrays, segments[None])
        for name in able:
            (_, out), gradients = compiled(name, masking)(*arrays, segments[None])
            for got, wanted in zip((out, *gradients), (right_out, *right), strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, err_msg=name)

    same()


@pytest.mark.parametrize("window", [0, 10])
def test_chunked_never_holds_all_scores(window):
    """Of 64 queries by 64 keys at most 16 queries' scores exist at a time, in the backward pass too.

    Under a window, those with the keys that one of the 16 may see.
    """
    heads, length, chunk = 4, 64, 16
    q = k = v = jax.ShapeDtypeStruct((1, length, heads, 8), np.float32)
    segment_ids = jax.ShapeDtypeStruct((1, length), np.int32)

    def memory(function):
        def total(q, k, v, segments):
            return function(q, k, v, segments, Masking(window)).sum()

        return str(jax.make_jaxpr(jax.grad(total, argnums=(0, 1, 2)))(q, k, v, segment_ids))

    chunked = memory(functools.partial(attention.chunked, chunk=chunk))
    most = chunk + window - 1 if window else length
    sizes = ((length, length), (chunk, length), (chunk, most))
    scores = [f"f32[1,{heads},1,{queries},{keys}]" for queries, keys in sizes]
    assert scores[0] in memory(attention.reference)
    assert scores[0] not in chunked
    assert (scores[1] in chunked) == (not window)
    assert scores[2] in chunked


def test_half_precision_is_as_near_as_its_rounding():
    """Kernels are emulated, except where their platform is at hand."""
    segment_ids = np.repeat([[1, 2, 3, 0]], LENGTH // 4, axis=1)
    arrays = [jax.numpy.bfloat16(x) for x in inputs(2)]
    wide = [np.asarray(x, np.float32) for x in arrays]
    (_, right_out), right = compiled("reference", PLAIN)(*wide, segment_ids)
    for name in USABLE:
        native = jax.default_backend() in BACKENDS[name].platforms
        (_, out), gradients = compiled(name, PLAIN, native)(*arrays, segment_ids)
        assert out.dtype == jax.numpy.bfloat16
        for got, wanted in zip((out, *gradients), (right_out, *right), strict=True):
            error = np.abs(np.asarray(got, np.float32) - wanted).max() / np.abs(wanted).max()
            assert error < 3 * 2.0**-8, name


@pytest.mark.parametrize("name", USABLE)
def test_softmax_statistics_are_float32_in_bfloat16_too(name):
    q, k, v, _ = (jax.numpy.bfloat16(x) for x in inputs(2))
    segment_ids = np.ones((1, LENGTH), np.int32)
    jaxpr = str(jax.make_jaxpr(WAYS[name], static_argnums=4)(q, k, v, segment_ids, PLAIN))
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
    with pytest.raises(UserError, match="'splash' runs on tpu, not on cpu; set ComputeConfig.attention to reference"):
        ask("splash")
    with pytest.raises(UserError, match=r"knows no soft-cap of the scores \(of 30.0\); .* reference or chunked$"):
        ask("xla", masking=Masking(softcap=30.0))
    kernel = Backend(
        "kernel", attention.reference, platforms=("tpu",), dtypes=("bfloat16",), grouped=False, window=False,
        length_multiple=128,
    )  # fmt: skip
    monkeypatch.setitem(BACKENDS, "kernel", kernel)
    can = {"platform": "tpu", "grouped": False}
    assert ask("kernel", **can) is kernel
    with pytest.raises(UserError, match="computes in bfloat16, not in float32"):
        ask("kernel", **can, dtype="float32")
    with pytest.raises(UserError, match="needs as many key/value heads as query heads"):
        ask("kernel", **can | {"grouped": True})
    with pytest.raises(UserError, match="needs rows of a multiple of 128 tokens, not 500"):
        ask("kernel", **can, length=500)
    with pytest.raises(UserError, match="knows no sliding window"):
        ask("kernel", **can, masking=Masking(window=64))


@pytest.mark.parametrize("wrong", [{"window": -1}, {"softcap": float("nan")}, {"scale": float("inf")}])
def test_a_masking_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UserError, match=f"Masking.{next(iter(wrong))} is"):
        Masking(**wrong)
