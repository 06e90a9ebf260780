"""Logits and gradients of imported models of every family against Hugging Face transformers on PyTorch."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import MODELS, TIED, files_of, old_config, reader

from hephaestus_jax.config import ComputeConfig
from hephaestus_jax.hf.compare import compare_models, compare_with_transformers, differing_layer, view_folder
from hephaestus_jax.hf.config_files import read_config
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.families import canonical
from hephaestus_jax.hf.importing import import_parameters
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.model.decoder import abstract_parameters, decode, output_logits

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FLOAT32 = ComputeConfig(dtype="float32")
LONG = 131_072
CASES = {name: dataclasses.replace(model, max_positions=LONG) for name, model in MODELS.items()} | {
    "llama, tied, plain": dataclasses.replace(TIED, rope_scaling=None, max_positions=LONG),
}
WINDOW = {"layer_pattern": ("sliding",), "sliding_window": 5}
FURTHER = {
    "mixtral": WINDOW,
    "qwen3_moe": WINDOW,
    "qwen3": {"layer_pattern": ("full", "sliding", "sliding"), "sliding_window": 5},
    # layers left over behind whole patterns
    "gemma3_text": {"num_layers": 8, "layer_pattern": ("sliding",) * 5 + ("full",), "logit_softcap": 9.0},
    "smollm3": {"num_layers": 5, "layer_pattern": ("full", "full", "full", "unrotated")},
}
CASES |= {f"{name}, further": dataclasses.replace(CASES[name], **more) for name, more in FURTHER.items()}

# Two packed rows; 0 is padding. Positions restart in every document, or go on to the end of a long context. Documents
# are longer than the windows of the models that have one (5).
SEGMENTS = np.array([[1] * 9 + [2] * 8 + [3] * 5 + [0] * 2, [4] * 20 + [5] * 4])
NEAR = np.array([[*range(9), *range(8), *range(5), 0, 0], [*range(20), *range(60, 64)]])
FAR = NEAR + np.array([[0] * 9 + [4000] * 8 + [LONG - 5] * 5 + [0] * 2, [LONG - 20] * 20 + [70_000] * 4])
RNG = np.random.default_rng(3)
TOKENS = RNG.integers(0, TIED.vocab_size, SEGMENTS.shape)
TARGETS = RNG.integers(0, TIED.vocab_size, SEGMENTS.shape)
WEIGHTS = RNG.uniform(0.2, 1.5, SEGMENTS.shape).astype(np.float32) * (SEGMENTS > 0)


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """A random model saved by transformers in several files, and transformers' own module."""
    model = CASES[request.param]
    folder = tmp_path_factory.mktemp("saved") / "model"
    theirs = random_model(model)
    theirs.save_pretrained(folder, max_shard_size="12KB")
    return folder, theirs, import_parameters(folder, abstract_parameters(model), progress=False), model


def random_model(model):
    """transformers' own class, every parameter far from what it is initialised to."""
    config = transformers.AutoConfig.for_model(**old_config(model) | {"torch_dtype": "float32"})
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("norm.weight"):  # far from 1, and of both signs
                parameter.uniform_(-3, 3, generator=generator)
            elif name.endswith("bias"):
                parameter.uniform_(-2, 2, generator=generator)
            else:
                parameter.normal_(0, 0.3, generator=generator)
    return theirs


def per_segment(function):
    """Calls `function` with the slice of every document in the packed rows."""
    for row, segments in enumerate(SEGMENTS):
        for segment in set(segments.tolist()) - {0}:
            places = np.flatnonzero(segments == segment)
            function(row, slice(int(places[0]), int(places[-1]) + 1))


def our_loss(params, model, positions):
    logits = output_logits(params, model, decode(params, model, FLOAT32, TOKENS, SEGMENTS, positions))
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
    losses, differences = [], []

    def run(row, places):
        tokens, targets = torch.tensor(TOKENS[row, places]), torch.tensor(TARGETS[row, places])
        wanted = theirs(tokens[None], position_ids=torch.tensor(positions[row, places])[None]).logits[0]
        assert np.abs(wanted.detach()).max() > 3, "not all about nothing"
        differences.append(float(np.abs(np.asarray(logits[row, places]) - wanted.detach().numpy()).max()))
        each = torch.nn.functional.cross_entropy(wanted, targets, reduction="none")
        losses.append((each * torch.tensor(WEIGHTS[row, places])).sum())

    theirs.zero_grad()
    per_segment(run)
    assert max(differences) <= 1e-4, differing_layer(params, model, theirs, TOKENS) or "only in packed rows"
    total = torch.stack(losses).sum()
    total.backward()
    np.testing.assert_allclose(loss, total.item(), rtol=1e-5)
    relative = {}
    for name, mine, its in zip(*gradient_pairs(theirs, gradients, model, tmp_path), strict=True):
        assert np.abs(its).max() > 0, name
        relative[name] = max(
            np.abs(mine - its).max() / np.abs(its).max(), np.linalg.norm(mine - its) / np.linalg.norm(its)
        )
    worst = max(relative, key=relative.__getitem__)
    assert relative[worst] <= 1e-3, worst
    print(f"{model.name}: logits {max(differences):.1e}, gradients {relative[worst]:.1e} ({worst})")


def turn_in_double_precision(theirs, monkeypatch):
    """Lets transformers' own code compute its angles in float64: in float32 they are off by up to 0.008 radians."""
    monkeypatch.setattr(torch, "float", torch.float64)
    rotary = type(theirs.model.rotary_emb)(theirs.config)
    assert {buffer.dtype for buffer in rotary.buffers()} == {torch.float64}
    monkeypatch.setitem(theirs.model._modules, "rotary_emb", rotary)


def gradient_pairs(theirs, gradients, model, tmp_path):
    """Names, our gradients and theirs; theirs come through a file, by the way that their weights took."""
    by_name = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    saved = type(theirs)(theirs.config)
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


@pytest.mark.parametrize("family", MODELS)
def test_transformers_reads_a_model_that_began_here(family, tmp_path):
    """It finds every tensor it looks for, none besides, and saves them as they were."""
    model = MODELS[family]
    rng = np.random.default_rng(0)
    values = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract_parameters(model))
    out, again = tmp_path / "out", tmp_path / "again"
    export_model(out, model, reader(values), dtype="bfloat16", max_shard_bytes=6000, progress=False)
    theirs, found = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert type(theirs).__name__ == read_config(out).family.architectures[0] and theirs.dtype == torch.bfloat16
    assert not any(found.values()), found
    theirs.save_pretrained(again)
    a, b = view_folder(out), view_folder(again)
    assert canonical(a.model) == canonical(b.model) == canonical(model)
    differences = compare_models(dataclasses.replace(a, config=None, files=None), b, progress=False)
    assert [line for line in differences if not line.startswith("model: ")] == []


@pytest.mark.parametrize("pair", ["gemma3_text"], indirect=True)
def test_the_layer_that_differs_is_named(pair):
    _, theirs, params, model = pair
    assert differing_layer(params, model, theirs, TOKENS) == ""
    broken = {**params, "layers": jax.tree.map(lambda values: values.at[1].multiply(1.01), params["layers"])}
    assert differing_layer(broken, model, theirs, TOKENS).startswith("layer 1 of 3 (full): ")
