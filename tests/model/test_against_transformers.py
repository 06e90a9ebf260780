"""Logits against Hugging Face transformers' LlamaForCausalLM on PyTorch, where both are installed."""

from __future__ import annotations

import numpy as np
import pytest
from small_decoders import FLOAT32, config, jitted_decode, parameters

from hephaestus_jax.config import RopeScaling
from hephaestus_jax.model.decoder import output_kernel

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH = 24
SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)


def llama(model, params):
    """The transformers model with the same weights."""
    scaling = model.rope_scaling
    rope = {"rope_type": "default", "rope_theta": model.rope_theta}
    if scaling is not None:
        rope |= {
            "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }  # fmt: skip
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=model.vocab_size, hidden_size=model.embed_dim, intermediate_size=model.mlp_dim,
            num_hidden_layers=model.num_layers, num_attention_heads=model.num_heads,
            num_key_value_heads=model.num_kv_heads, head_dim=model.head_dim, rms_norm_eps=model.norm_epsilon,
            tie_word_embeddings=model.tied_embeddings, max_position_embeddings=model.max_positions,
            rope_parameters=rope, attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    state = {
        "model.embed_tokens.weight": params["embedder"]["embedding"],
        "model.norm.weight": params["final_norm"]["scale"],
        "lm_head.weight": np.asarray(output_kernel(params)).T,
    }
    layers = params["layers"]
    for number in range(model.num_layers):
        place = f"model.layers.{number}"
        state[f"{place}.input_layernorm.weight"] = layers["attention_norm"]["scale"][number]
        state[f"{place}.post_attention_layernorm.weight"] = layers["mlp_norm"]["scale"][number]
        for ours, name in (("query", "q"), ("key", "k"), ("value", "v")):
            kernel = layers["attention"][ours]["kernel"][number]
            state[f"{place}.self_attn.{name}_proj.weight"] = kernel.reshape(model.embed_dim, -1).T
        out = layers["attention"]["out"]["kernel"][number]
        state[f"{place}.self_attn.o_proj.weight"] = out.reshape(-1, model.embed_dim).T
        for name in ("gate", "up", "down"):
            state[f"{place}.mlp.{name}_proj.weight"] = layers["mlp"][name]["kernel"][number].T
    theirs.load_state_dict({name: torch.tensor(np.ascontiguousarray(array)) for name, array in state.items()})
    return theirs


@pytest.mark.parametrize("scaling", [None, SCALING], ids=["plain", "llama3"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_logits_equal_those_of_transformers(scaling, tied):
    model = config(rope_scaling=scaling, tied_embeddings=tied, rope_theta=500.0)
    params = parameters(model, seed=5)
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, model.vocab_size, (2, LENGTH))
    positions = np.stack([np.arange(LENGTH), np.arange(LENGTH) + 700])
    with torch.no_grad():
        wanted = llama(model, params)(torch.tensor(tokens), position_ids=torch.tensor(positions)).logits.numpy()
    hidden = jitted_decode(params, model, FLOAT32, tokens, np.ones_like(tokens), positions)
    got = np.asarray(hidden @ output_kernel(params))
    assert np.abs(got).max() > 1  # not all about nothing
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
