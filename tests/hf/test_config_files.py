"""config.json of every family: both spellings, absent fields, what is refused by name, and what is written back."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import MODEL, MODELS, SCALING, TIED, new_config, old_config

from hephaestus_jax.config import ExpertsConfig, ModelConfig, YarnRopeScaling
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.config_files import TokenIds, changed_config, fresh_config, model_from_json, read_config
from hephaestus_jax.hf.families import FAMILIES, canonical, family_of

PLAIN = dataclasses.replace(MODEL, rope_scaling=None)
LONGER = dataclasses.replace(MODEL, rope_scaling=YarnRopeScaling(4.0, 64, 16.0, 2.0, 1.25))
SPELLINGS = {"old": old_config, "new": new_config}
EVERY = {**MODELS, "tied": TIED, "plain": PLAIN, "yarn": LONGER}


def write(folder, config):
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text, "utf-8")
    return folder


def refused(config, *words):
    """Passes if reading it fails in one line that has these words in it."""
    with pytest.raises(UserError) as caught:
        model_from_json(json.loads(json.dumps(config)), "config.json")
    message = str(caught.value)
    assert "config.json" in message and "\n" not in message and len(message) < 400
    assert all(word in message for word in words), message


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_both_spellings_mean_the_same_model_and_come_back_as_they_were(spelling, name, tmp_path):
    model = EVERY[name]
    raw = SPELLINGS[spelling](model)
    if name == "yarn":
        rope = raw["rope_scaling" if spelling == "old" else "rope_parameters"]
        rope |= {"attention_factor": 1.25, "truncate": True}
    text = json.dumps(raw, indent=3) + "  \n"
    config = read_config(write(tmp_path, text))
    assert config.model == model
    assert changed_config(config, model, None) == text.encode()
    renamed = dataclasses.replace(model, name="another name", layer_pattern=model.layer_kinds)
    assert changed_config(config, renamed, "BF16") == text.encode()


# ---- absent fields

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "model_type")
WITHOUT = {
    **{family.model_type: (family.model_type, {}) for family in FAMILIES},
    "no window": ("mistral", {"sliding_window": None}),
    "a window of late layers": ("qwen2", {"use_sliding_window": True}),
    "a window that is not on": ("qwen3", {"sliding_window": 77}),
    "a window of all layers": ("qwen3_moe", {"use_sliding_window": True, "max_window_layers": 3}),
    "no caps": ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "every fourth": ("gemma3_text", {"sliding_window_pattern": 4, "rope_scaling": {
        "factor": 2.0, "rope_type": "linear"}}),
    "bases": ("gemma3_text", {"rope_theta": 7.0, "rope_local_base_freq": 5.0}),
    "every third": ("smollm3", {"no_rope_layer_interval": 3}),
    "yarn": ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}),
}  # fmt: skip


@pytest.mark.parametrize("case", WITHOUT)
def test_absent_fields_mean_what_they_mean_in_transformers(case):
    """transformers makes every field explicit, and a file with all of them says the same as one with the fewest."""
    transformers = pytest.importorskip("transformers")
    family, extra = WITHOUT[case]
    raw = {**old_config(dataclasses.replace(MODELS[family], num_layers=30, num_heads=32, embed_dim=192)), **extra}
    few = {name: value for name, value in raw.items() if name in SIZES or name in extra}
    theirs = json.loads(json.dumps(transformers.AutoConfig.for_model(**json.loads(json.dumps(few))).to_dict()))
    assert len(theirs) > len(few) + 10
    # Of what their classes leave to the model's code: the head dimension, where they have no field for it.
    theirs.setdefault("head_dim", few["hidden_size"] // few["num_attention_heads"])
    assert canonical(model_from_json(few, "few")) == canonical(model_from_json(theirs, "theirs"))


def test_llama3_scaling_is_of_the_models_own_context_unless_it_says_otherwise(tmp_path):
    config = old_config(MODEL)
    del config["rope_scaling"]["original_max_position_embeddings"]
    scaling = read_config(write(tmp_path, config)).model.rope_scaling
    assert scaling == dataclasses.replace(SCALING, original_max_positions=512)
    outside = config | {"original_max_position_embeddings": 65}
    assert model_from_json(outside, "it").rope_scaling == dataclasses.replace(SCALING, original_max_positions=65)


def sizes(kind, vocabulary, embed, mlp, layers, heads, kv_heads, head_dim=None, tied=False, **more):
    return {
        "model_type": kind, "vocab_size": vocabulary, "hidden_size": embed, "intermediate_size": mlp,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "tie_word_embeddings": tied, **({"head_dim": head_dim} if head_dim else {}), **more,
    }  # fmt: skip


PUBLISHED = {  # sizes of the published config.json, and the parameters that the model's files hold
    "Llama-2-7b": (sizes("llama", 32000, 4096, 11008, 32, 32, 32), 6_738_415_616),
    "Llama-3.2-1B": (sizes("llama", 128256, 2048, 8192, 16, 32, 8, 64, True), 1_235_814_400),
    "SmolLM2-1.7B": (sizes("llama", 49152, 2048, 8192, 24, 32, 32, None, True), 1_711_376_384),
    "SmolLM3-3B": (sizes("smollm3", 128256, 2048, 11008, 36, 16, 4, None, True), 3_075_098_624),
    "Mistral-7B-v0.1": (sizes("mistral", 32000, 4096, 14336, 32, 32, 8), 7_241_732_096),
    "Mixtral-8x7B-v0.1": (sizes("mixtral", 32000, 4096, 14336, 32, 32, 8), 46_702_792_704),
    "Qwen2.5-7B": (sizes("qwen2", 152064, 3584, 18944, 28, 28, 4), 7_615_616_512),
    "Qwen3-8B": (sizes("qwen3", 151936, 4096, 12288, 36, 32, 8), 8_190_735_360),
    "Qwen3-30B-A3B": (sizes("qwen3_moe", 151936, 2048, 6144, 48, 32, 4, 128), 30_532_122_624),
    "gemma-2-2b": (sizes("gemma2", 256000, 2304, 9216, 26, 8, 4, 256, True), 2_614_341_888),
    "gemma-3-1b-pt": (sizes("gemma3_text", 262144, 1152, 6912, 26, 4, 1, 256, True), 999_885_952),
    "OLMo-2-1124-7B": (sizes("olmo2", 100352, 4096, 11008, 32, 32, 32), 7_298_617_344),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_as_many_parameters_as_their_files(name):
    raw, count = PUBLISHED[name]
    model = model_from_json(raw, name)
    weights = family_of(model).weights(model)
    assert model.num_parameters == count == sum(math.prod(weight.our_shape(model)) for weight in weights)


# ---- what is written


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_only_what_differs_changes_in_the_files_own_spelling(spelling, family, tmp_path):
    model = MODELS[family]
    raw = SPELLINGS[spelling](model)
    config = read_config(write(tmp_path, raw))
    scaling = dataclasses.replace(model.rope_scaling, factor=32.0) if model.rope_scaling else None
    longer = dataclasses.replace(model, max_positions=4096, rope_theta=1e6, rope_scaling=scaling)
    changed = json.loads(changed_config(config, longer, "F32"))
    assert model_from_json(changed, "it") == longer
    assert list(changed) == list(raw), "fields keep their order, none comes or goes"
    differing = {name for name in raw if raw[name] != changed[name]}
    rope, dtype = {"rope_parameters"}, "dtype"
    if spelling == "old":
        rope, dtype = {"rope_theta", "rope_scaling"} if scaling else {"rope_theta"}, "torch_dtype"
    assert differing == {"max_position_embeddings", dtype} | rope
    assert changed[dtype] == "float32"

    deeper = dataclasses.replace(model, num_layers=7)
    changed = json.loads(changed_config(config, deeper, None))
    assert model_from_json(changed, "it") == deeper
    lists = {"layer_types", "no_rope_layers", "max_window_layers", "sliding_window_pattern"}
    assert {name for name in changed if raw.get(name) != changed[name]} <= {"num_hidden_layers"} | lists


def test_what_a_family_cannot_say_is_an_error_and_not_left_out(tmp_path):
    config = read_config(write(tmp_path, old_config(MODEL)))
    biased = dataclasses.replace(MODEL, qkv_bias=True, norm_placement="after")
    with pytest.raises(UserError, match=r"model_type 'llama' cannot say qkv_bias True, norm_placement 'after'"):
        changed_config(config, biased, None)
    with pytest.raises(UserError, match="is of no family .* nearest is .* qkv_bias True.*; change the model"):
        fresh_config(dataclasses.replace(biased, query_key_norm="all"), "F32", TokenIds())


@settings(deadline=None)
@given(
    st.builds(
        lambda family, **sizes: dataclasses.replace(MODELS[family], **sizes), family=st.sampled_from(list(MODELS)),
        vocab_size=st.integers(1, 1 << 20), embed_dim=st.integers(1, 9999), num_layers=st.integers(3, 200),
        head_dim=st.integers(1, 99).map(lambda n: 2 * n), rope_theta=st.floats(1.01, 1e9),
        norm_epsilon=st.floats(1e-12, 1.0), tied_embeddings=st.booleans(), max_positions=st.integers(1, 1 << 30),
    )
)  # fmt: skip
def test_a_fresh_config_reads_back_as_its_model(model: ModelConfig):
    assert family_of(model).model_type == model.name
    fresh = json.loads(json.dumps(fresh_config(model, "BF16", TokenIds(1, (2, 3), None))))
    assert canonical(model_from_json(fresh, "it")) == canonical(model)
    assert (fresh["bos_token_id"], fresh["eos_token_id"], fresh["torch_dtype"]) == (1, [2, 3], "bfloat16")


@pytest.mark.parametrize("family", MODELS)
def test_transformers_reads_a_fresh_config_alike(family):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.for_model(**fresh_config(MODELS[family], "BF16", TokenIds(1, 2, 0)))
    assert str(theirs.dtype) == "torch.bfloat16" and theirs.eos_token_id == 2
    explicit = json.loads(json.dumps(theirs.to_dict())) | {"head_dim": MODELS[family].head_dim}
    assert theirs.head_dim == MODELS[family].head_dim
    assert canonical(model_from_json(explicit, "it")) == canonical(MODELS[family])


VLLM = {  # vllm/model_executor/models/registry.py at commit 0002bff of github.com/vllm-project/vllm
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM",
    "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM", "olmo2": "Olmo2ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}  # fmt: skip


def test_architectures_are_those_of_vllms_registry_and_of_transformers():
    transformers = pytest.importorskip("transformers")
    for family in FAMILIES:
        fresh = fresh_config(MODELS[family.model_type], "BF16", TokenIds())
        assert fresh["architectures"] == [VLLM[family.model_type]]
        assert hasattr(transformers, VLLM[family.model_type])


# ---- what is refused

REFUSED_EVERYWHERE = {
    "model_type": ["gpt2", None, 3, ["llama"]],
    "architectures": [["LlamaForSequenceClassification"], ["LlamaModel"], "LlamaForCausalLM", 3],
    "attention_bias": [True, 1],
    "quantization_config": [{"bits": 4}],
    "auto_map": [{"AutoModelForCausalLM": "code.Model"}],
    "partial_rotary_factor": [0.5],
    "layer_types": [["full_attention"], ["chunked_attention"] * 3, "full_attention", [3, None, []], 7],
    "hidden_size": [0, -8, 24.0, True, "24", None, 10**30, [24]],
    "num_hidden_layers": [0, 1 << 39, "3"],
    "num_key_value_heads": [3],
    "head_dim": [7],
    "rms_norm_eps": ["1e-5", 0, float("nan"), float("inf")],
    "tie_word_embeddings": [1, "true"],
    "rope_theta": [0, "10000", 499.0],
    "rope_scaling": [
        "llama3", ["llama3"], {"type": "dynamic", "factor": 2.0}, {"rope_type": "longrope", "factor": 4.0},
        {"rope_type": "llama3"}, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4, "high_freq_factor": 1},
        {"rope_type": "default", "factor": 2.0}, {"rope_type": "llama3", "factor": None}, {"rope_type": ["yarn"]},
        {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}, {"rope_type": "yarn", "factor": 4.0, "truncate": False},
        {"rope_type": "yarn", "factor": 0.5}, {"rope_type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 2},
        {"rope_type": "linear"}, {"rope_type": "linear", "factor": 2.0, "original_max_position_embeddings": 8},
    ],
    "rope_parameters": [{"rope_type": "default", "rope_theta": 500.0}, {"spiral_attention": {"rope_theta": 1.0}}],
}  # fmt: skip
REFUSED = {
    "llama": {"hidden_act": ["gelu"], "mlp_bias": [True], "sliding_window": [4096], "use_sliding_window": [True],
              "original_max_position_embeddings": [65]},
    "mistral": {"hidden_act": ["gelu"], "sliding_window": [0, "5", 2.5, True],
                "layer_types": [["full_attention", "sliding_attention", "full_attention"]]},
    "mixtral": {"num_local_experts": [0, 1 << 20, "4"], "num_experts_per_tok": [5, 0]},
    "qwen2": {"use_sliding_window": [1, "yes"], "max_window_layers": [-1, "28", 1.0], "sliding_window": [-1],
              "hidden_act": ["gelu"]},
    "qwen3": {"layer_types": [["sliding_attention"] * 3], "head_dim": [0, 2.0]},
    "qwen3_moe": {"mlp_only_layers": [[0]], "decoder_sparse_step": [2], "num_local_experts": [7],
                  "norm_topk_prob": [1], "moe_intermediate_size": [0], "num_experts_per_tok": [7]},
    "gemma2": {"hidden_activation": ["gelu"], "sliding_window": [None, 0], "query_pre_attn_scalar": [0, -1, "256"],
               "attn_logit_softcapping": [-1.0, "50"], "use_bidirectional_attention": [True]},
    "gemma3_text": {"attn_logit_softcapping": [50.0], "sliding_window_pattern": [0, "6"],
                    "rope_local_base_freq": [0, "1"], "sliding_window": [None]},
    "olmo2": {"sliding_window": [4096], "hidden_act": ["gelu"]},
    "smollm3": {"no_rope_layers": [[1, 1], [1, 2, 1], "111", 3, [[1], 0, 1]], "no_rope_layer_interval": [0],
                "mlp_bias": [True], "layer_types": [["sliding_attention"] * 3]},
}  # fmt: skip
OUR_NAMES = {"num_key_value_heads": "num_kv_heads", "num_experts_per_tok": "experts_per_token",
             "use_sliding_window": "sliding_window"}  # fmt: skip


@pytest.mark.parametrize("family", MODELS)
def test_what_is_not_computed_here_is_refused_by_name(family):
    everywhere = {name: values for name, values in REFUSED_EVERYWHERE.items() if (family, name) not in IGNORED}
    for table in (everywhere, REFUSED[family]):
        for name, value in [(name, value) for name, values in table.items() for value in values]:
            config = old_config(MODELS[family]) | {name: value}
            config |= {"no_rope_layers": None} if name == "no_rope_layer_interval" else {}
            if name != "rope_scaling":
                own = config["rope_scaling"] or {"rope_type": "default"}
                config["rope_scaling"] = own | {"rope_theta": 500.0}
            with pytest.raises(UserError) as caught:
                model_from_json(json.loads(json.dumps(config)), "config.json")
            message = str(caught.value)
            assert "config.json" in message and "\n" not in message and len(message) < 400, (name, value)
            words = {name, OUR_NAMES.get(name, name), name.replace("_scaling", "_type")}
            found = message.lower().replace("_", "")
            assert any(word.replace("_", "") in found for word in words), (name, value, message)


IGNORED = {("mistral", "attention_bias"), ("mixtral", "attention_bias"), ("qwen2", "attention_bias")}
"""Fields that those families' classes do not have: attention has its biases, or none, whatever they say."""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    | st.sampled_from([1 << 39, 10**40, "yarn", "linear", "llama3", "default", "sliding_attention"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["rope_type", "type", "factor", "rope_theta", "full_attention", "sliding_attention", "beta_fast",
         "attention_factor", "original_max_position_embeddings", "truncate", "low_freq_factor"]), inner, max_size=4),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(list(MODELS)), st.sampled_from(list(SPELLINGS)))
def test_any_values_are_a_model_or_one_line(data, family, spelling):
    raw = SPELLINGS[spelling](MODELS[family])
    names = [*raw, "no_rope_layer_interval", "mlp_only_layers", "original_max_position_embeddings"]
    raw |= data.draw(st.dictionaries(st.sampled_from(names), JSON, min_size=1, max_size=3))
    try:
        model = model_from_json(raw, "config.json")
    except UserError as error:
        assert "config.json" in str(error) and "\n" not in str(error)
    else:
        assert len(model.layer_kinds) == model.num_layers


def test_words_for_models_with_images_and_for_those_of_other_kinds():
    refused({"model_type": "gemma3", "text_config": {}}, "'gemma3'", "save its text model (gemma3_text)")
    refused({"model_type": "mamba"}, "'mamba'", "llama, mistral, mixtral, qwen2")
    refused(old_config(MODEL) | {"model_type": "qwen2"}, "architectures", "'qwen2'", "Qwen2ForCausalLM")
    scaled = {"rope_type": "linear", "factor": 2.0}
    both = new_config(MODELS["gemma3_text"]) | {"rope_parameters": {"sliding_attention": scaled}}
    refused(both, "sliding_attention", "linear", "'default'")
    scaled = {"type": "linear", "factor": 2.0}  # whose type transformers does not read in this family
    refused(old_config(MODELS["gemma3_text"]) | {"rope_scaling": scaled}, "rope_scaling", "rope_type", "linear")


def test_settings_of_training_only_are_kept_and_said(tmp_path):
    config = read_config(write(tmp_path, old_config(MODEL) | {"attention_dropout": 0.1}))
    assert config.model == MODEL
    assert len(config.notes) == 1 and "attention_dropout 0.1" in config.notes[0]


def test_experts_of_the_published_sizes():
    """What the two families say of experts that differ in what is told of the feed-forward that is not there."""
    model = dataclasses.replace(MODELS["mixtral"], mlp_dim=7, experts=ExpertsConfig(8, 2, 90))
    fresh = fresh_config(model, "BF16", TokenIds())
    assert (fresh["intermediate_size"], fresh["num_local_experts"]) == (90, 8)
    assert canonical(model_from_json(fresh, "it")) == canonical(model)


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
