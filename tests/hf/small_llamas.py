"""Small Llama models for the tests of `hephaestus_jax.hf`; their files are written without the code under test."""

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

from hephaestus_jax.config import ModelConfig, RopeScaling
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


def shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a model and its shape, as transformers names them."""
    d, f = model.embed_dim, model.mlp_dim
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    found = {"model.embed_tokens.weight": (model.vocab_size, d)}
    for number in range(model.num_layers):
        layer = {
            "input_layernorm": (d,), "self_attn.q_proj": (queries, d), "self_attn.k_proj": (keys, d),
            "self_attn.v_proj": (keys, d), "self_attn.o_proj": (d, queries), "post_attention_layernorm": (d,),
            "mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f),
        }  # fmt: skip
        found |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    found["model.norm.weight"] = (d,)
    return found if model.tied_embeddings else found | {"lm_head.weight": (model.vocab_size, d)}


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


def old_config(model: ModelConfig) -> dict[str, Any]:
    """config.json as most files in the world have it, with a field nobody knows."""
    scaling = model.rope_scaling
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": model.vocab_size,
        "hidden_size": model.embed_dim, "intermediate_size": model.mlp_dim, "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads, "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim, "hidden_act": "silu", "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_theta, "rope_scaling": scaling and {
            "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        },
        "max_position_embeddings": model.max_positions, "tie_word_embeddings": model.tied_embeddings,
        "attention_bias": False, "torch_dtype": "bfloat16", "pretraining_tp": 1, "a_new_field": {"ключ": [1, None]},
    }  # fmt: skip


def new_config(model: ModelConfig) -> dict[str, Any]:
    """config.json as transformers 5 writes it."""
    config = old_config(model)
    theta, scaling = config.pop("rope_theta"), config.pop("rope_scaling") or {"rope_type": "default"}
    return config | {"rope_parameters": {**scaling, "rope_theta": theta}, "dtype": config.pop("torch_dtype")}


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
