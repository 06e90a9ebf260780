"""Adapters of every family against PEFT on PyTorch: logits, gradients, and the weights that they are merged into."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import MODELS, old_config, reader, safetensors

from hephaestus_jax.architecture import LORA_TARGETS, LoraConfig
from hephaestus_jax.config import ComputeConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.adapters import AdapterBase, export_adapter, merged
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.families import family_of
from hephaestus_jax.hf.importing import import_parameters
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.model.decoder import abstract_parameters, decode, output_logits
from hephaestus_jax.model.lora import joined, merged_parameters, trained_and_frozen

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

FLOAT32 = ComputeConfig(dtype="float32")
RNG = np.random.default_rng(7)
TOKENS = RNG.integers(0, 29, (2, 12))  # longer than the windows of the models that have one (5)
TARGETS = RNG.integers(0, 29, (2, 12))
ONES, PLACES = np.ones_like(TOKENS), np.broadcast_to(np.arange(12), (2, 12))
QUICK = {"xla_backend_optimization_level": 0}


def lora_of(model):
    targets = LORA_TARGETS if model.experts is None else LORA_TARGETS[:4]
    return LoraConfig(3, 5.0, targets, rank_stabilised=model.name == "gemma2")


def random_model(model):
    """transformers' own class, with values far from what they are initialised to."""
    config = transformers.AutoConfig.for_model(**old_config(model) | {"torch_dtype": "float32"})
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.3, generator=generator)
    return theirs


def with_adapters(params, model, lora, seed=0):
    """The parameters with adapters that change the logits as much as the weights do."""
    rng = np.random.default_rng(seed)
    adapters, _ = trained_and_frozen(abstract_parameters(model, lora=lora), lora)
    return joined(params, jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), adapters))


def loss_of(trained, frozen, model, lora):
    hidden = decode(joined(trained, frozen), model, FLOAT32, TOKENS, ONES, PLACES, lora)
    logits = output_logits(frozen, model, hidden)
    chosen = jnp.take_along_axis(logits, TARGETS[..., None], -1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - chosen), logits


our_gradients = jax.jit(jax.value_and_grad(loss_of, has_aux=True), static_argnums=(2, 3), compiler_options=QUICK)


@pytest.mark.parametrize("family", MODELS)
def test_peft_computes_the_same(family, tmp_path):
    model, saved = MODELS[family], tmp_path / "base"
    model = dataclasses.replace(model, num_layers=2, layer_pattern=model.layer_pattern[-2:])
    lora, theirs = lora_of(model), random_model(model)
    theirs.save_pretrained(saved)
    base = import_parameters(saved, abstract_parameters(model), progress=False)
    params = with_adapters(base, model, lora)
    read = reader(params)
    origin = keep_origin(saved, tmp_path / "origin")
    size = export_adapter(tmp_path / "adapter", model, read, lora, origin.config.family, AdapterBase(str(saved)))
    assert size == 4 * lora.num_parameters(model)
    export_model(tmp_path / "merged", model, merged(read, lora), origin, progress=False)

    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter", is_trainable=True)
    adapted.save_pretrained(tmp_path / "again")
    mine, again = (safetensors.load_file(tmp_path / at / "adapter_model.safetensors") for at in ("adapter", "again"))
    assert mine.keys() == again.keys() and all(np.array_equal(mine[name], again[name]) for name in mine)

    (loss, logits), gradients = our_gradients(*trained_and_frozen(params, lora), model, lora)
    wanted = adapted(torch.tensor(TOKENS)).logits
    their_loss = torch.nn.functional.cross_entropy(wanted.flatten(0, 1), torch.tensor(TARGETS).flatten())
    their_loss.backward()
    assert np.abs(logits).max() > 1, "not all about nothing"
    np.testing.assert_allclose(logits, wanted.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(loss, their_loss.item(), rtol=1e-5)
    of_logits = np.abs(logits - wanted.detach().numpy()).max()
    of_gradients = check_gradients(adapted, gradients, model, lora, origin.config.family, tmp_path)
    print(
        f"{family}: logits up to {np.abs(logits).max():.1f} differ by {of_logits:.1e}, gradients by {of_gradients:.1e}"
    )

    alone = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    np.testing.assert_allclose(logits, alone(torch.tensor(TOKENS)).logits.detach().numpy(), atol=1e-4)
    in_memory = merged_parameters(jax.tree.map(jnp.asarray, params), lora)
    assert jax.tree.structure(in_memory) == jax.tree.structure(base)
    again = import_parameters(tmp_path / "merged", abstract_parameters(model), progress=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), in_memory, again)


def test_what_cannot_be_written(tmp_path):
    model = dataclasses.replace(MODELS["llama"], num_layers=1)
    lora = LoraConfig(2, 2.5, ("value",))
    values = {"lora_a": np.ones((1, 24, 2), np.float32), "lora_b": np.ones((1, 2, 2, 8), np.float32)}
    tree = {"layers": {"attention": {"value": values}}}
    family, out = family_of(model), tmp_path / "out"
    values["lora_b"][0, 1, 1, 3] = 1e6
    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.v_proj\.lora_B\.weight holds .* too large for float16"):
        export_adapter(out, model, reader(tree), lora, family, dtype="float16")
    assert not out.exists()
    export_adapter(out, model, reader(tree), lora, family, AdapterBase("org/name", "abc"), dtype="bfloat16")
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["base_model_name_or_path"], config["revision"]) == (2.5, "org/name", "abc")
    assert config["target_modules"] == ["v_proj"] and config["use_rslora"] is False
    found = safetensors.load_file(out / "adapter_model.safetensors")
    assert {name.rpartition("layers.")[2]: (x.shape, x.dtype.name) for name, x in found.items()} == {
        "0.self_attn.v_proj.lora_A.weight": ((2, 24), "bfloat16"),
        "0.self_attn.v_proj.lora_B.weight": ((16, 2), "bfloat16"),
    }
    with pytest.raises(UserError, match="is there already"):
        export_adapter(out, model, reader(tree), lora, family)
    values["lora_a"][0, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"lora_A\.weight holds NaN"):
        export_adapter(tmp_path / "other", model, reader(tree), lora, family)


def check_gradients(adapted, gradients, model, lora, family, tmp_path):
    """Ours come to PEFT's names as adapters do."""
    export_adapter(tmp_path / "gradients", model, reader(gradients), lora, family)
    ours = safetensors.load_file(tmp_path / "gradients/adapter_model.safetensors")
    theirs = {n.replace(".default", ""): p.grad for n, p in adapted.named_parameters() if p.grad is not None}
    assert theirs.keys() == ours.keys(), "nothing but adapters is trained, and all of them"
    assert all(np.linalg.norm(gradient) > 0 for gradient in theirs.values())
    off = {n: np.linalg.norm(ours[n] - theirs[n].numpy()) / np.linalg.norm(theirs[n]) for n in ours}
    worst = max(off, key=off.__getitem__)
    assert off[worst] <= 1e-3, worst
    return off[worst]
