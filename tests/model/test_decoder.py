"""The decoder against an independent float64 implementation, and what must hold for packed rows."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_decoder
from compiling import FUSED
from hypothesis import given, settings
from hypothesis import strategies as st
from small_decoders import (
    CONFIGS,
    FLOAT32,
    OTHERS,
    config,
    jitted_decode,
    jitted_loss_and_gradients,
    optimised_decode,
    parameters,
    rows,
)

from hephaestus_jax.architecture import ExpertsConfig, LinearRopeScaling, RopeScaling, YarnRopeScaling
from hephaestus_jax.config import ComputeConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.model.attention import BACKENDS, Masking
from hephaestus_jax.model.decoder import (
    abstract_parameters,
    decode,
    init_parameters,
    output_kernel,
    output_logits,
    parameter_axes,
)
from hephaestus_jax.model.layers import masking_of

EACH = pytest.mark.parametrize("name", CONFIGS)


@functools.cache
def evaluated(name):
    """(config, params, rows, loss, gradients) of one small decoder; compiled once for all tests."""
    model = CONFIGS[name]
    params, batch = parameters(model), rows(model)
    loss, gradients = jitted_loss_and_gradients(params, model, FLOAT32, batch)
    return model, params, batch, float(loss), jax.tree.map(np.asarray, gradients)


def hidden_of(model, params, tokens, segment_ids, positions, compute=FLOAT32):
    return np.asarray(jitted_decode(params, model, compute, tokens, segment_ids, positions))


@EACH
def test_forward_equals_the_float64_reference(name):
    model, params, batch, loss, _ = evaluated(name)
    wanted = reference_decoder.decode(params, model, *batch[:3])
    got = hidden_of(model, params, *batch[:3])
    assert got.dtype == np.float32
    assert np.linalg.norm(got - wanted) <= 1e-5 * np.linalg.norm(wanted)
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert loss == pytest.approx(reference_decoder.loss(params, model, *batch), rel=1e-5)


def scalings():
    factors = st.floats(1.0, 16.0)
    yarn = st.builds(YarnRopeScaling, factors, st.integers(8, 4096), st.floats(2.0, 32.0), st.floats(0.5, 1.5))
    return st.none() | st.builds(LinearRopeScaling, factors) | st.builds(RopeScaling, factors) | yarn


def models():
    """Any model of one to four layers."""

    def made(kinds, layers, window, **fields):
        pattern, experts = tuple(kinds[:layers]), ExpertsConfig(3, 2, 7) if fields.pop("experts") else None
        sliding = "sliding" in pattern
        return config(
            num_layers=layers, layer_pattern=pattern, sliding_window=window * sliding, experts=experts, **fields
        )

    return st.builds(
        made,
        kinds=st.lists(st.sampled_from(["full", "sliding", "unrotated"]), min_size=1, max_size=4),
        layers=st.integers(1, 4),
        window=st.integers(1, 20),
        experts=st.booleans(),
        num_kv_heads=st.sampled_from([1, 2, 4]),
        rope_scaling=scalings(),
        sliding_rope_theta=st.sampled_from([0.0, 7.0]),
        tied_embeddings=st.booleans(),
        qkv_bias=st.booleans(),
        query_key_norm=st.sampled_from(["none", "head", "all"]),
        norm_placement=st.sampled_from(["before", "after", "both"]),
        norm_plus_one=st.booleans(),
        activation=st.sampled_from(["silu", "gelu_tanh"]),
        scaled_embedding=st.booleans(),
        attention_scale_dim=st.sampled_from([0.0, 3.0]),
        attention_softcap=st.sampled_from([0.0, 2.0]),
        logit_softcap=st.sampled_from([0.0, 3.0]),
    )


def all_logits(params, model, compute, batch):
    return output_logits(params, model, decode(params, model, compute, *batch[:3]))


@settings(max_examples=8, deadline=None)
@given(model=models(), backend=st.sampled_from(["reference", "chunked"]), seed=st.integers(0, 99))
def test_any_model_equals_the_float64_reference(model, backend, seed):
    params, batch = parameters(model, seed), rows(model, seed)
    compute = ComputeConfig(dtype="float32", attention=backend)
    got = np.asarray(jax.jit(all_logits, static_argnums=(1, 2))(params, model, compute, batch))
    wanted = reference_decoder.logits(params, model, *batch[:3])
    assert np.abs(got - wanted).max() <= 3e-5 * np.abs(wanted).max()
    assert sum(x.size for x in jax.tree.leaves(params)) == model.num_parameters


def test_a_window_reaches_as_far_as_its_layers_and_no_further():
    """Two layers of a window of 4: a token is seen 6 places later, and not 7."""
    model = config(layer_pattern=("sliding",), sliding_window=4)
    compute, params = ComputeConfig(dtype="float32", attention="chunked"), parameters(model)
    ones, places = np.ones((1, 16), int), np.arange(16)[None]
    before, after = (
        np.asarray(jitted_decode(params, model, compute, tokens, ones, places))
        for tokens in (ones, np.where(places == 2, 5, ones))
    )
    assert (before != after).any(-1)[0].tolist() == [2 <= place <= 8 for place in range(16)]


def test_a_window_as_long_as_the_row_hides_nothing():
    model = config(layer_pattern=("sliding",), sliding_window=14)
    assert masking_of(model, "sliding", 14) == Masking() != masking_of(model, "sliding", 15)
    assert masking_of(model, "full", 15) == Masking()


def test_positions_are_nothing_to_unrotated_layers():
    model = config(layer_pattern=("unrotated",))
    params, batch = parameters(model), rows(model)
    assert (hidden_of(model, params, *batch[:3]) == hidden_of(model, params, *batch[:2], 7 * batch.positions)).all()


@pytest.mark.parametrize(
    ("backend", "message"), [("xla", "knows no soft-cap"), ("cudnn", "does not keep the segments")]
)
def test_a_backend_that_cannot_do_what_a_layer_needs_is_refused(backend, message):
    model = CONFIGS["sliding and full, capped"]
    with pytest.raises(UserError, match=message):
        decode(parameters(model), model, ComputeConfig(attention=backend), *rows(model)[:3])


def test_bfloat16_stays_near_float32_whatever_the_layers():
    for model in OTHERS.values():
        params, batch = parameters(model), rows(model)
        half, full = (
            hidden_of(model, params, *batch[:3], compute=ComputeConfig(dtype=dtype)).astype(np.float32)
            for dtype in ("bfloat16", "float32")
        )
        assert np.linalg.norm(half - full) < 0.05 * np.linalg.norm(full), model


def changed_by(params, path, difference):
    """`params` in float64 with `difference` added to the tensor at `path`."""
    return jax.tree.map_with_path(
        lambda other, leaf: leaf.astype(np.float64) + (difference if other == path else 0), params
    )


@EACH
def test_gradients_equal_central_finite_differences_of_the_reference(name):
    model, params, batch, _, gradients = evaluated(name)
    rng = np.random.default_rng(7)
    step = 1e-5

    def slope(path, direction):
        ahead, behind = (
            reference_decoder.loss(changed_by(params, path, sign * step * direction), model, *batch) for sign in (1, -1)
        )
        return (ahead - behind) / (2 * step)

    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        shown = jax.tree_util.keystr(path)
        size = float(np.linalg.norm(gradient))
        assert size > 0, shown
        for _ in range(2):
            direction = rng.standard_normal(gradient.shape)
            got = np.vdot(gradient.astype(np.float64), direction)
            assert got == pytest.approx(slope(path, direction), rel=1e-4, abs=1e-5 * size), shown
        largest = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        anywhere = tuple(rng.integers(0, extent) for extent in gradient.shape)
        for place in (largest, anywhere):
            single = np.zeros(gradient.shape)
            single[place] = 1
            got = float(gradient[place])
            assert got == pytest.approx(slope(path, single), rel=1e-4, abs=1e-5 * size), (shown, place)


LENGTH = 16
PACKED = "grouped, tied, scaled"


@st.composite
def packed_rows(draw):
    """Segment ids (0 padding) and positions of one row of 16 tokens, segments of any length in any order."""
    segment_ids: list[int] = []
    while len(segment_ids) < LENGTH:
        segment_ids += [draw(st.integers(0, 3))] * draw(st.integers(1, 8))
    positions = draw(st.lists(st.integers(0, 100), min_size=LENGTH, max_size=LENGTH))
    return np.array([segment_ids[:LENGTH]]), np.array([positions])


@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("backend", ["reference", "chunked", "xla"])
@given(row=packed_rows(), changed=st.integers(0, 3), seed=st.integers(0, 99))
def test_other_segments_and_later_tokens_change_not_one_bit(backend, row, changed, seed):
    model, params = CONFIGS[PACKED], evaluated(PACKED)[1]
    compute = ComputeConfig(dtype="float32", attention=backend)
    segment_ids, positions = row
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, model.vocab_size, (1, LENGTH))
    others = (tokens + rng.integers(1, model.vocab_size, tokens.shape)) % model.vocab_size
    first = rng.integers(0, LENGTH)
    touched = (segment_ids == changed) & (np.arange(LENGTH) >= first)
    before, after = (
        np.asarray(optimised_decode(params, model, compute, row, segment_ids, positions))
        for row in (tokens, np.where(touched, others, tokens))
    )
    same = (before == after).all(-1)
    assert (same | touched).all()
    assert not (same & touched).any()


def test_a_packed_segment_is_computed_as_if_alone():
    model, params = CONFIGS[PACKED], evaluated(PACKED)[1]
    batch = rows(model)
    together = hidden_of(model, params, *batch[:3])
    by_themselves = [np.zeros_like(array) for array in batch[:3]]
    for array, packed in zip(by_themselves, batch[:3], strict=True):
        array[0, :7] = packed[1, 3:10]  # the segment moves to the beginning of a row of padding; its positions stay
    alone = hidden_of(model, params, *by_themselves)
    np.testing.assert_allclose(alone[0, :7], together[1, 3:10], rtol=2e-5, atol=2e-6)


def test_padding_is_finite_and_has_no_gradient():
    model, params, batch, *_ = evaluated("as many key/value heads, untied")
    assert np.isfinite(hidden_of(model, params, *batch[:3])).all()
    only_padding = np.zeros_like(batch.segment_ids)
    assert np.isfinite(hidden_of(model, params, batch.tokens, only_padding, batch.positions)).all()

    pad = model.vocab_size - 1  # a token of its own, so that its row of the embedding is the padding's
    tokens = np.where(batch.segment_ids > 0, np.minimum(batch.tokens, pad - 1), pad)
    padded = batch._replace(tokens=tokens)
    embedding = np.asarray(jitted_loss_and_gradients(params, model, FLOAT32, padded)[1]["embedder"]["embedding"])
    assert not embedding[pad].any()
    assert embedding[np.unique(tokens[tokens != pad])].any(-1).all()
    nothing = padded._replace(weights=np.zeros_like(batch.weights), segment_ids=only_padding)
    gradients = jitted_loss_and_gradients(params, model, FLOAT32, nothing)[1]
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))  # NaN counts as any


@pytest.mark.parametrize("token", [29, -1])
def test_a_token_outside_the_vocabulary_is_not_clamped(token):
    model, params, batch, *_ = evaluated(PACKED)
    tokens = batch.tokens.copy()
    tokens[0, 5] = token
    hidden = hidden_of(model, params, tokens, *batch[1:3])
    assert np.isnan(hidden[0, 5]).all()
    assert np.isfinite(hidden[1:]).all()


def test_bfloat16_stays_near_float32():
    model, params, batch, *_ = evaluated(PACKED)
    half = hidden_of(model, params, *batch[:3], compute=ComputeConfig(dtype="bfloat16"))
    full = hidden_of(model, params, *batch[:3])
    assert half.dtype == jnp.bfloat16
    relative = np.linalg.norm(half.astype(np.float32) - full) / np.linalg.norm(full)
    assert 1e-4 < relative < 3e-2  # rounded, but the same function


@EACH
def test_the_tree_its_shapes_and_its_axes(name):
    model = CONFIGS[name]
    V, D, F, N, K, H, Y = (
        model.vocab_size, model.embed_dim, model.mlp_dim, model.num_heads, model.num_kv_heads, model.head_dim,
        model.num_layers,
    )  # fmt: skip
    norm, heads = ((Y, D), ("layers", "norm")), {"query": N, "key": K, "value": K}
    wanted = {
        "embedder/embedding": ((V, D), ("vocabulary", "embed")),
        "layers/attention/query/kernel": ((Y, D, N, H), ("layers", "embed", "heads", "head_dim")),
        "layers/attention/key/kernel": ((Y, D, K, H), ("layers", "embed", "kv_heads", "head_dim")),
        "layers/attention/value/kernel": ((Y, D, K, H), ("layers", "embed", "kv_heads", "head_dim")),
        "layers/attention/out/kernel": ((Y, N, H, D), ("layers", "heads", "head_dim", "embed")),
        "final_norm/scale": ((D,), ("norm",)),
    }
    if not model.tied_embeddings:
        wanted["head/kernel"] = ((D, V), ("embed", "vocabulary"))
    if model.norm_placement != "after":
        wanted |= {"layers/attention_norm/scale": norm, "layers/mlp_norm/scale": norm}
    if model.norm_placement != "before":
        wanted |= {"layers/attention_post_norm/scale": norm, "layers/mlp_post_norm/scale": norm}
    for part, count in heads.items():
        axes = ("layers", "heads" if part == "query" else "kv_heads", "head_vector")
        if model.qkv_bias:
            wanted[f"layers/attention/{part}/bias"] = ((Y, count, H), axes)
        if part != "value" and model.query_key_norm == "all":
            wanted[f"layers/attention/{part}_norm/scale"] = ((Y, count, H), axes)
        if part != "value" and model.query_key_norm == "head":
            wanted[f"layers/attention/{part}_norm/scale"] = ((Y, H), ("layers", "head_vector"))
    if model.experts is None:
        wanted["layers/mlp/gate/kernel"] = wanted["layers/mlp/up/kernel"] = ((Y, D, F), ("layers", "embed", "mlp"))
        wanted["layers/mlp/down/kernel"] = ((Y, F, D), ("layers", "mlp", "embed"))
    else:
        E, F = model.experts.num_experts, model.experts.mlp_dim
        wide = ((Y, E, D, F), ("layers", "experts", "expert_embed", "expert_mlp"))
        wanted["layers/experts/gate/kernel"] = wanted["layers/experts/up/kernel"] = wide
        wanted["layers/experts/down/kernel"] = ((Y, E, F, D), ("layers", "experts", "expert_mlp", "expert_embed"))
        wanted["layers/experts/router/kernel"] = ((Y, D, E), ("layers", "embed", "router"))

    def flat(tree, is_leaf=None):
        leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf)
        return {"/".join(key.key for key in path): leaf for path, leaf in leaves}

    shapes = flat(abstract_parameters(model, "bfloat16"))
    axes = flat(parameter_axes(model), lambda leaf: isinstance(leaf, tuple))
    assert {path: (shapes[path].shape, axes[path]) for path in axes} == wanted
    assert shapes.keys() == axes.keys()
    assert {leaf.dtype for leaf in shapes.values()} == {jnp.dtype("bfloat16")}


def test_fresh_parameters():
    model = config(vocab_size=500, embed_dim=64, mlp_dim=96, num_layers=8)
    init = jax.jit(
        lambda key: (init_parameters(model, key), init_parameters(model, key, "bfloat16")), compiler_options=FUSED
    )
    params, rounded = init(jax.random.key(3))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), abstract_parameters(model)
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path]
        values = np.asarray(leaf)
        if names[-1] == "scale":
            assert (values == 1).all()
            continue
        stddev = 0.02 / 4 if "out" in names or "down" in names else 0.02  # 4 = √(2 · 8 layers)
        assert values.std() == pytest.approx(stddev, rel=0.05), names
        assert np.abs(values).max() <= 3.001 * stddev
        assert abs(values.mean()) < 0.05 * stddev
        if names[0] == "layers":
            assert not (values[0] == values[1]).any()
    again, other = init(jax.random.key(3))[0], init(jax.random.key(4))[0]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, again))
    assert not (params["embedder"]["embedding"] == other["embedder"]["embedding"]).all()
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a.astype(jnp.bfloat16) == b).all()), params, rounded))


def test_output_kernel():
    for model in CONFIGS.values():
        params = parameters(model)
        kernel = output_kernel(params)
        assert kernel.shape == (model.embed_dim, model.vocab_size)
        if model.tied_embeddings:
            assert (kernel == params["embedder"]["embedding"].T).all()


def test_an_unknown_backend_is_one_clear_line():
    model, params, batch, *_ = evaluated(PACKED)
    with pytest.raises(UserError, match=rf"'flash'; known backends: {', '.join(BACKENDS)}$"):
        decode(params, model, ComputeConfig(attention="flash"), *batch[:3])


@pytest.mark.parametrize("pattern", [("full",), ("sliding", "full")])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_the_program_does_not_grow_with_depth(remat, pattern):
    compute = ComputeConfig(remat=remat)
    sizes = set()
    for num_layers in (4, 32):
        model = config(num_layers=num_layers, layer_pattern=pattern, sliding_window=3 * (len(pattern) - 1))
        lowered = jitted_loss_and_gradients.lower(abstract_parameters(model), model, compute, rows(model))
        sizes.add(len(lowered.as_text().splitlines()))
    assert len(sizes) == 1
    assert sizes.pop() > 100  # there was something to count
