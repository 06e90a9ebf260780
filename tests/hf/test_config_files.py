"""config.json: both spellings, what is refused by name, and what is written back."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_llamas import MODEL, SCALING, TIED, new_config, old_config

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.config_files import TokenIds, changed_config, fresh_config, model_from_json, read_config

PLAIN = dataclasses.replace(MODEL, rope_scaling=None)
SPELLINGS = {"old": old_config, "new": new_config}


def write(folder, config):
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize("model", [MODEL, TIED, PLAIN], ids=["scaled", "tied", "plain"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_both_spellings_mean_the_same_model_and_come_back_as_they_were(spelling, model, tmp_path):
    text = json.dumps(SPELLINGS[spelling](model), indent=3) + "  \n"
    config = read_config(write(tmp_path, text))
    assert config.model == model
    assert changed_config(config, model, None) == text.encode()
    renamed = dataclasses.replace(model, name="another name")
    assert changed_config(config, renamed, "BF16") == text.encode()


def test_absent_fields_mean_what_they_mean_in_transformers(tmp_path):
    config = old_config(PLAIN)
    for name in ("rope_theta", "rope_scaling", "num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_act"):
        del config[name]
    for name in ("tie_word_embeddings", "max_position_embeddings", "attention_bias", "torch_dtype", "architectures"):
        del config[name]
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaConfig(**config)
    ours = read_config(write(tmp_path, config)).model
    assert (ours.rope_theta, ours.rope_scaling) == (theirs.rope_parameters["rope_theta"], None)
    assert (ours.num_kv_heads, ours.head_dim) == (theirs.num_key_value_heads, theirs.head_dim)
    assert (ours.norm_epsilon, ours.max_positions) == (theirs.rms_norm_eps, theirs.max_position_embeddings)
    assert ours.tied_embeddings == theirs.tie_word_embeddings


def test_llama3_scaling_is_of_the_models_own_context_unless_it_says_otherwise(tmp_path):
    config = old_config(MODEL)
    del config["rope_scaling"]["original_max_position_embeddings"]
    scaling = read_config(write(tmp_path, config)).model.rope_scaling
    assert scaling == dataclasses.replace(SCALING, original_max_positions=512)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_only_what_differs_changes_in_the_files_own_spelling(spelling, tmp_path):
    raw = SPELLINGS[spelling](MODEL)
    config = read_config(write(tmp_path, raw))
    longer = dataclasses.replace(
        MODEL, max_positions=4096, rope_theta=1e6, rope_scaling=dataclasses.replace(SCALING, factor=32.0)
    )
    changed = json.loads(changed_config(config, longer, "F32"))
    assert model_from_json(changed, "it") == longer
    assert list(changed) == list(raw), "fields keep their order, none comes or goes"
    differing = {name for name in raw if raw[name] != changed[name]}
    rope, dtype = ({"rope_theta", "rope_scaling"}, "torch_dtype") if spelling == "old" else (
        {"rope_parameters"}, "dtype")  # fmt: skip
    assert differing == {"max_position_embeddings", dtype} | rope
    assert changed[dtype] == "float32"


@given(
    st.builds(
        lambda **sizes: dataclasses.replace(MODEL, **sizes),
        vocab_size=st.integers(1, 1 << 20), embed_dim=st.integers(1, 9999), num_layers=st.integers(1, 200),
        head_dim=st.integers(1, 99).map(lambda n: 2 * n), rope_theta=st.floats(1e-3, 1e9),
        norm_epsilon=st.floats(1e-12, 1.0), tied_embeddings=st.booleans(),
        rope_scaling=st.sampled_from([None, SCALING]), max_positions=st.integers(1, 1 << 30),
    )
)  # fmt: skip
def test_a_fresh_config_reads_back_as_its_model(model: ModelConfig):
    fresh = json.loads(json.dumps(fresh_config(model, "BF16", TokenIds(1, (2, 3), None))))
    assert model_from_json(fresh, "it") == model
    assert (fresh["bos_token_id"], fresh["eos_token_id"], fresh["torch_dtype"]) == (1, [2, 3], "bfloat16")


def test_transformers_reads_a_fresh_config_alike():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaConfig(**fresh_config(MODEL, "BF16", TokenIds(1, 2, 0)))
    assert theirs.rope_parameters["rope_type"] == "llama3"
    assert theirs.rope_parameters["rope_theta"] == MODEL.rope_theta
    assert theirs.rope_parameters["original_max_position_embeddings"] == SCALING.original_max_positions
    assert (theirs.head_dim, theirs.rms_norm_eps, str(theirs.dtype)) == (8, 1e-5, "torch.bfloat16")


REFUSED = {
    "model_type": ["qwen2", None, 3],
    "architectures": [["LlamaForSequenceClassification"], ["LlamaModel"]],
    "hidden_act": ["gelu"],
    "attention_bias": [True, 1],
    "mlp_bias": [True],
    "sliding_window": [4096],
    "quantization_config": [{"bits": 4}],
    "auto_map": [{"AutoModelForCausalLM": "code.Model"}],
    "partial_rotary_factor": [0.5],
    "layer_types": [["full_attention", "sliding_attention"]],
    "hidden_size": [0, -8, 24.0, True, "24", None, 10**30],
    "num_key_value_heads": [3],
    "head_dim": [7],
    "rms_norm_eps": ["1e-5", 0, float("nan"), float("inf")],
    "tie_word_embeddings": [1, "true"],
    "rope_theta": [0, "10000", 499.0],
    "original_max_position_embeddings": [65],
    "rope_scaling": [
        "llama3", ["llama3"], {"type": "linear", "factor": 2.0}, {"rope_type": "yarn", "factor": 4.0},
        {"rope_type": "llama3"}, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4, "high_freq_factor": 1},
        {"rope_type": "default", "factor": 2.0}, {"rope_type": "llama3", "factor": None},
    ],
    "rope_parameters": [{"rope_type": "default", "rope_theta": 500.0}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values], ids=str
)
def test_what_is_not_computed_here_is_refused_by_name(name, value, tmp_path):
    config = old_config(MODEL) | {name: value}
    config["rope_scaling"] = value if name == "rope_scaling" else config["rope_scaling"] | {"rope_theta": 500.0}
    write(tmp_path, config)
    with pytest.raises(UserError) as caught:
        read_config(tmp_path)
    message = str(caught.value)
    assert "config.json" in message and "\n" not in message and len(message) < 400
    words = {"num_key_value_heads": "num_kv_heads"}.get(name, name).replace("_", "")
    assert words in message.lower().replace("_", "")


def test_settings_of_training_only_are_kept_and_said(tmp_path):
    config = read_config(write(tmp_path, old_config(MODEL) | {"attention_dropout": 0.1}))
    assert config.model == MODEL
    assert len(config.notes) == 1 and "attention_dropout 0.1" in config.notes[0]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"model_type": "llama", "model_type": "llama"}', "[" * 100_000, "\x00", '"llama"']
)
def test_a_damaged_file_is_one_line(text, tmp_path):
    with pytest.raises(UserError, match=r"config\.json") as caught:
        read_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_no_file_no_folder_and_urls(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_config(tmp_path)
    with pytest.raises(UserError, match="not there"):
        read_config(tmp_path / "absent")
    with pytest.raises(UserError, match="not a local folder"):
        read_config("gs://bucket/model")
