"""Small models of every family for the tests of `hephaestus_jax.hf`; files are written without the code under test."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from parameters import reader

from hephaestus_jax.config import ExpertsConfig, LinearRopeScaling, ModelConfig, RopeScaling, YarnRopeScaling
from hephaestus_jax.hf.config_files import read_config
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.importing import import_parameters
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.model.decoder import abstract_parameters

safetensors = pytest.importorskip("safetensors.numpy")

SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)
MODEL = ModelConfig(
    name="llama", vocab_size=29, embed_dim=24, mlp_dim=40, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8,
    rope_theta=500.0, rope_scaling=SCALING, norm_epsilon=1e-5, tied_embeddings=False, max_positions=512,
)  # fmt: skip
TIED = dataclasses.replace(MODEL, tied_embeddings=True)

UP = "model.layers.2.mlp.up_proj.weight"

DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}


_GEMMA = {
    "norm_placement": "both", "norm_plus_one": True, "activation": "gelu_tanh", "scaled_embedding": True,
    "tied_embeddings": True, "attention_scale_dim": 12.0, "sliding_window": 5,
}  # fmt: skip
_KINDS: dict[str, dict[str, Any]] = {
    "llama": {"rope_scaling": SCALING},
    "mistral": {"layer_pattern": ("sliding",), "sliding_window": 5},
    "mixtral": {"experts": ExpertsConfig(4, 2, 40)},
    "qwen2": {"qkv_bias": True, "layer_pattern": ("full", "full", "sliding"), "sliding_window": 5,
              "tied_embeddings": True},
    "qwen3": {"query_key_norm": "head", "rope_scaling": YarnRopeScaling(4.0, 128, 8.0, 1.0)},
    "qwen3_moe": {"query_key_norm": "head", "experts": ExpertsConfig(6, 3, 16, normalise=False)},
    "gemma2": _GEMMA | {"layer_pattern": ("sliding", "full"), "attention_softcap": 4.0, "logit_softcap": 9.0},
    "gemma3_text": _GEMMA | {"layer_pattern": ("sliding", "full"), "sliding_rope_theta": 50.0,
                             "query_key_norm": "head", "rope_scaling": LinearRopeScaling(8.0)},
    "olmo2": {"query_key_norm": "all", "norm_placement": "after"},
    "smollm3": {"layer_pattern": ("full", "unrotated"), "tied_embeddings": True},
}  # fmt: skip
MODELS = {name: dataclasses.replace(MODEL, name=name, **{"rope_scaling": None} | kind) for name, kind in _KINDS.items()}
"""model_type -> a model of that family; what else it can have is in the cases of `test_against_transformers`."""


def shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a model and its shape, as transformers names them."""
    d = model.embed_dim
    found = {"model.embed_tokens.weight": (model.vocab_size, d)}
    for number in range(model.num_layers):
        layer = _layer_shapes(model)
        found |= {
            f"model.layers.{number}.{name}" + ("" if name.endswith("bias") else ".weight"): shape
            for name, shape in layer.items()
        }
    found["model.norm.weight"] = (d,)
    return found if model.tied_embeddings else found | {"lm_head.weight": (model.vocab_size, d)}


def _layer_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    d, h, kind = model.embed_dim, model.head_dim, model.name
    queries, keys = model.num_heads * h, model.num_kv_heads * h
    gemma = kind.startswith("gemma")
    found = {} if kind == "olmo2" else {"input_layernorm": (d,)}
    found |= {
        "self_attn.q_proj": (queries, d), "self_attn.k_proj": (keys, d), "self_attn.v_proj": (keys, d),
        "self_attn.o_proj": (d, queries),
    }  # fmt: skip
    if kind == "qwen2":
        found |= {"self_attn.q_proj.bias": (queries,), "self_attn.k_proj.bias": (keys,)}
        found |= {"self_attn.v_proj.bias": (keys,)}
    if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
        found |= {"self_attn.q_norm": (h,), "self_attn.k_norm": (h,)}
    if kind == "olmo2":
        found |= {"self_attn.q_norm": (queries,), "self_attn.k_norm": (keys,)}
    found |= {"post_attention_layernorm": (d,)}
    if gemma:
        found |= {"pre_feedforward_layernorm": (d,)}
    found |= _feed_forward_shapes(model)
    return found | ({"post_feedforward_layernorm": (d,)} if gemma or kind == "olmo2" else {})


def _feed_forward_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    d, f, experts = model.embed_dim, model.mlp_dim, model.experts
    if experts is None:
        return {"mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f)}
    count, f = experts.num_experts, experts.mlp_dim
    if model.name == "mixtral":
        part, names = "block_sparse_moe", {"w1": (f, d), "w2": (d, f), "w3": (f, d)}
    else:
        part, names = "mlp", {"gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f)}
    found = {f"{part}.gate": (count, d)}
    for name, shape in names.items():
        found |= {f"{part}.experts.{number}.{name}": shape for number in range(count)}
    return found


def random_bits(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Any finite values of that dtype: of every magnitude, subnormal numbers and negative zeros among them."""
    kind = DTYPES[dtype]
    unsigned = {2: np.uint16, 4: np.uint32}[kind.itemsize]
    bits = rng.integers(0, np.iinfo(unsigned).max, shape, unsigned, endpoint=True).reshape(-1)
    infinity = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}[dtype]
    bits[(bits & infinity) == infinity] ^= unsigned(infinity & -infinity)  # clears the exponent's last bit
    bits[: 3 : max(1, bits.size // 3)] = 1 << (8 * kind.itemsize - 1)
    if bits.size > 8:
        bits[1:9] = np.arange(1, 9)
    return bits.reshape(shape).view(kind)


def tensors(model: ModelConfig, dtypes: tuple[str, ...] = ("BF16",), seed: int = 0) -> dict[str, np.ndarray]:
    """Random bits for every tensor, the dtypes taken in turn."""
    rng = np.random.default_rng(seed)
    return {
        name: random_bits(rng, dtypes[number % len(dtypes)], shape)
        for number, (name, shape) in enumerate(shapes(model).items())
    }


_CLASSES = {
    "llama": "Llama", "mistral": "Mistral", "mixtral": "Mixtral", "qwen2": "Qwen2", "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3Moe", "gemma2": "Gemma2", "gemma3_text": "Gemma3", "olmo2": "Olmo2", "smollm3": "SmolLM3",
}  # fmt: skip


def old_config(model: ModelConfig) -> dict[str, Any]:
    """config.json as most files in the world have it, with a field nobody knows."""
    return {
        "architectures": [f"{_CLASSES[model.name]}ForCausalLM"], "model_type": model.name,
        "vocab_size": model.vocab_size, "hidden_size": model.embed_dim, "intermediate_size": model.mlp_dim,
        "num_hidden_layers": model.num_layers, "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads, "head_dim": model.head_dim, "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_theta, "rope_scaling": _scaling(model),
        "max_position_embeddings": model.max_positions, "tie_word_embeddings": model.tied_embeddings,
        "attention_bias": False, "torch_dtype": "bfloat16", "pad_token_id": None, "a_new_field": {"ключ": [1, None]},
        **_own_fields(model),
    }  # fmt: skip


def new_config(model: ModelConfig) -> dict[str, Any]:
    """config.json as transformers 5 writes it."""
    config = old_config(model)
    rope = {**(config.pop("rope_scaling") or {"rope_type": "default"}), "rope_theta": config.pop("rope_theta")}
    if model.name == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": config.pop("rope_local_base_freq")}
        rope = {"full_attention": rope, "sliding_attention": local}
        del config["sliding_window_pattern"]
    if model.name in ("qwen2", "qwen3", "gemma2", "gemma3_text", "smollm3"):
        names = {"sliding": "sliding_attention"}
        config["layer_types"] = [names.get(kind, "full_attention") for kind in model.layer_kinds]
    if model.name == "qwen3_moe":
        config["num_local_experts"] = config.pop("num_experts")
    return config | {"rope_parameters": rope, "dtype": config.pop("torch_dtype")}


def _scaling(model: ModelConfig) -> dict[str, Any] | None:
    match model.rope_scaling:
        case RopeScaling() as scaling:
            return {
                "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }  # fmt: skip
        case LinearRopeScaling(factor):
            return {"rope_type": "linear", "factor": factor}
        case YarnRopeScaling() as scaling:
            return {
                "type": "yarn", "factor": scaling.factor, "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow, "original_max_position_embeddings": scaling.original_max_positions,
            }  # fmt: skip
    return None


def _own_fields(model: ModelConfig) -> dict[str, Any]:
    """Those of one family."""
    experts, kinds = model.experts, model.layer_kinds
    match model.name:
        case "llama":
            return {"hidden_act": "silu", "pretraining_tp": 1}
        case "mistral":
            return {"hidden_act": "silu", "sliding_window": model.sliding_window or None}
        case "mixtral":
            return {"hidden_act": "silu", "sliding_window": model.sliding_window or None,
                    "num_local_experts": experts.num_experts,
                    "num_experts_per_tok": experts.experts_per_token, "router_aux_loss_coef": 0.02}  # fmt: skip
        case "qwen2" | "qwen3":
            window = bool(model.sliding_window)
            first = kinds.index("sliding") if window else 28
            return {"hidden_act": "silu", "use_sliding_window": window, "max_window_layers": first,
                    "sliding_window": model.sliding_window or 131072}  # fmt: skip
        case "qwen3_moe":
            return {"hidden_act": "silu", "use_sliding_window": model.sliding_window > 0,
                    "sliding_window": model.sliding_window or None, "mlp_only_layers": [],
                    "decoder_sparse_step": 1, "num_experts": experts.num_experts, "norm_topk_prob": experts.normalise,
                    "num_experts_per_tok": experts.experts_per_token,
                    "moe_intermediate_size": experts.mlp_dim}  # fmt: skip
        case "gemma2" | "gemma3_text":
            found = {"hidden_activation": "gelu_pytorch_tanh", "sliding_window": model.sliding_window,
                     "query_pre_attn_scalar": int(model.attention_scale_dim),
                     "attn_logit_softcapping": model.attention_softcap or None,
                     "final_logit_softcapping": model.logit_softcap or None}  # fmt: skip
            own = {"rope_local_base_freq": model.sliding_rope_theta, "sliding_window_pattern": len(model.layer_pattern)}
            return found | (own if model.name == "gemma3_text" else {"hidden_act": "gelu_pytorch_tanh"})
        case "smollm3":
            return {"hidden_act": "silu", "no_rope_layers": [int(kind == "full") for kind in kinds]}
    return {"hidden_act": "silu"}


def write_model(folder: Path, config: Mapping[str, Any], values: Mapping[str, np.ndarray], shards: int = 1) -> Path:
    """A Hugging Face model in `folder`, its tensors dealt out to so many files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=4, ensure_ascii=False), "utf-8")
    files = ["model.safetensors"]
    if shards > 1:
        files = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    weight_map = {name: files[number % shards] for number, name in enumerate(values)}
    for file in files:
        part = {name: array for name, array in values.items() if weight_map[name] == file}
        (folder / file).write_bytes(safetensors.save(part, {"format": "pt", "of": file}))
    if shards > 1:
        index = {"metadata": {"total_size": 1, "note": "kept"}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Contents of every file by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- through the code under test


def import_all(folder, dtype="float32"):
    return import_parameters(folder, abstract_parameters(read_config(folder).model, dtype), progress=False)


def export(folder, out, params, dtype=None, model=None):
    origin = keep_origin(folder, out.with_name(out.name + "-origin"))
    return export_model(out, model or origin.config.model, reader(params), origin, dtype, progress=False)


def run_process(name, *arguments):
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, str(Path(__file__).parent / f"{name}.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
