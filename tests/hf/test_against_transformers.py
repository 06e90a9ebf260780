"""Logits and gradients of imported models against Hugging Face transformers' LlamaForCausalLM on PyTorch."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_llamas import MODEL, TIED, files_of, old_config, reader

from hephaestus_jax.config import ComputeConfig
from hephaestus_jax.hf.compare import compare_with_transformers
from hephaestus_jax.hf.config_files import read_config
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.importing import import_parameters
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.model.decoder import abstract_parameters, decode, output_kernel

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FLOAT32 = ComputeConfig(dtype="float32")
LONG = 131_072
CASES = {
    "grouped heads, untied, plain rotary": dataclasses.replace(MODEL, rope_scaling=None, max_positions=LONG),
    "grouped heads, tied, Llama 3 rotary": dataclasses.replace(TIED, max_positions=LONG),
    "as many key heads, untied, Llama 3 rotary": dataclasses.replace(
        MODEL, num_kv_heads=4, num_layers=2, max_positions=LONG
    ),
}

# Two packed rows; 0 is padding. Positions restart in every document, or go on to the end of a long context.
SEGMENTS = np.array([[1] * 9 + [2] * 8 + [3] * 5 + [0] * 2, [4] * 20 + [5] * 4])
NEAR = np.array([[*range(9), *range(8), *range(5), 0, 0], [*range(20), *range(60, 64)]])
FAR = NEAR + np.array([[0] * 9 + [4000] * 8 + [LONG - 5] * 5 + [0] * 2, [LONG - 20] * 20 + [70_000] * 4])
RNG = np.random.default_rng(3)
TOKENS = RNG.integers(0, MODEL.vocab_size, SEGMENTS.shape)
TARGETS = RNG.integers(0, MODEL.vocab_size, SEGMENTS.shape)
WEIGHTS = RNG.uniform(0.2, 1.5, SEGMENTS.shape).astype(np.float32) * (SEGMENTS > 0)


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """A random model saved by transformers in several files, and transformers' own module."""
    model = CASES[request.param]
    folder = tmp_path_factory.mktemp("saved") / "model"
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**old_config(model) | {"torch_dtype": "float32"}, attn_implementation="eager")
    ).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("norm.weight"):  # far from 1, and of both signs
                parameter.uniform_(-3, 3, generator=generator)
            else:
                parameter.normal_(0, 0.3, generator=generator)
    theirs.save_pretrained(folder, max_shard_size="12KB")
    return folder, theirs, import_parameters(folder, abstract_parameters(model), progress=False), model


def per_segment(function):
    """Calls `function` with the slice of every document in the packed rows."""
    for row, segments in enumerate(SEGMENTS):
        for segment in set(segments.tolist()) - {0}:
            places = np.flatnonzero(segments == segment)
            function(row, slice(int(places[0]), int(places[-1]) + 1))


def our_loss(params, model, positions):
    hidden = decode(params, model, FLOAT32, TOKENS, SEGMENTS, positions)
    logits = jnp.matmul(hidden, output_kernel(params), precision="highest")
    chosen = jnp.take_along_axis(logits, TARGETS[..., None], -1)[..., 0]
    return jnp.sum((jax.nn.logsumexp(logits, -1) - chosen) * WEIGHTS), logits


QUICK = {"xla_backend_optimization_level": 0}  # half the compile time
our_gradients = jax.jit(jax.value_and_grad(our_loss, has_aux=True), static_argnums=1, compiler_options=QUICK)


@pytest.mark.parametrize("positions", [NEAR, FAR], ids=["near", "far"])
def test_logits_and_gradients_of_packed_rows(positions, pair, tmp_path, monkeypatch):
    folder, theirs, params, model = pair
    assert len(list(folder.glob("*.safetensors"))) > 2, "it was saved in several files"
    assert "rope_parameters" in json.loads((folder / "config.json").read_text())
    assert read_config(folder).model == model
    if positions is FAR:
        turn_in_double_precision(theirs, monkeypatch)

    (loss, logits), gradients = our_gradients(params, model, positions)
    losses = []

    def run(row, places):
        tokens, targets = torch.tensor(TOKENS[row, places]), torch.tensor(TARGETS[row, places])
        wanted = theirs(tokens[None], position_ids=torch.tensor(positions[row, places])[None]).logits[0]
        assert np.abs(wanted.detach()).max() > 5, "not all about nothing"
        assert np.abs(np.asarray(logits[row, places]) - wanted.detach().numpy()).max() <= 1e-4
        each = torch.nn.functional.cross_entropy(wanted, targets, reduction="none")
        losses.append((each * torch.tensor(WEIGHTS[row, places])).sum())

    theirs.zero_grad()
    per_segment(run)
    total = torch.stack(losses).sum()
    total.backward()
    np.testing.assert_allclose(loss, total.item(), rtol=1e-5)
    for name, mine, its in zip(*gradient_pairs(theirs, gradients, model, tmp_path), strict=True):
        scale = np.abs(its).max()
        assert scale > 0 and np.abs(mine - its).max() <= 1e-3 * scale, name
        assert np.linalg.norm(mine - its) <= 1e-3 * np.linalg.norm(its), name


def turn_in_double_precision(theirs, monkeypatch):
    """Lets transformers' own code compute its angles in float64: in float32 they are off by up to 0.008 radians."""
    monkeypatch.setattr(torch, "float", torch.float64)
    rotary = type(theirs.model.rotary_emb)(theirs.config)
    assert rotary.inv_freq.dtype == torch.float64
    monkeypatch.setattr(theirs.model, "rotary_emb", rotary)


def gradient_pairs(theirs, gradients, model, tmp_path):
    """Names, our gradients and theirs; theirs come through a file, by the way that their weights took."""
    by_name = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    saved = transformers.LlamaForCausalLM(theirs.config)
    saved.load_state_dict(by_name, strict=False)
    saved.save_pretrained(tmp_path / "gradients")
    wanted = import_parameters(tmp_path / "gradients", abstract_parameters(model), progress=False)
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    return names, [np.asarray(leaf) for _, leaf in leaves], [np.asarray(leaf) for leaf in jax.tree.leaves(wanted)]


@pytest.mark.parametrize("pair", [list(CASES)[1]], indirect=True)
def test_the_older_spelling_means_the_same_to_both(pair, tmp_path):
    folder, _, _, model = pair
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "config.json").write_text(json.dumps(old_config(model) | {"torch_dtype": "float32"}))
    assert read_config(old).model == model
    found = compare_with_transformers(old, length=16)
    assert found.largest_difference <= 1e-4 and found.largest_logit > 5 and found.logits == 2 * 16 * model.vocab_size


def test_what_transformers_saved_comes_back_byte_for_byte(pair, tmp_path):
    folder, _, params, model = pair
    export_model(tmp_path / "out", model, reader(params), keep_origin(folder, tmp_path / "origin"), progress=False)
    assert files_of(tmp_path / "out") == files_of(folder)


def test_transformers_reads_a_model_that_began_here(tmp_path):
    model = dataclasses.replace(TIED, num_layers=1)
    rng = np.random.default_rng(0)
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_parameters(model))
    }
    values = {path: rng.standard_normal(shape).astype(np.float32) for path, shape in shapes.items()}
    for dtype in ("bfloat16", None):
        out = tmp_path / str(dtype)
        export_model(out, model, lambda path, index: values[path] if index is None else values[path][index],
                     dtype=dtype, max_shard_bytes=6000, progress=False)  # fmt: skip
        assert compare_with_transformers(out, length=16).largest_difference <= 1e-4
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "bfloat16")
    assert loaded.dtype == torch.bfloat16 and loaded.config.tie_word_embeddings
