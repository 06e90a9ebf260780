"""config.json of Llama models, in both spellings: what it means, and how it is written back.

The older spelling has `rope_theta`, `rope_scaling` and `torch_dtype`; transformers 5 writes `rope_parameters` and
`dtype`. A file is written back byte for byte while it says what the model is; where the model or the dtype differs,
only those fields change, in the file's own spelling. Fields that this project does not know are kept.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.config import ModelConfig, RopeScaling
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.safetensors_files import local_directory, parse_json, read_whole, shown

CONFIG = "config.json"
MAX_CONFIG_BYTES = 16 << 20
ARCHITECTURE = "LlamaForCausalLM"
DTYPE_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""safetensors dtype -> the name in config.json."""

# What changes the numbers, and the values of it that mean what is computed here; absent and null always do.
_HONOURED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "sliding_window": (),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1,),
    "quantization_config": (),
    "compression_config": (),
    "auto_map": (),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
}
_PLAIN_ROPE = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_LLAMA3_ROPE = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


@dataclass(frozen=True)
class HFConfig:
    """A config.json and the model it stands for.

    Attributes:
        path: of the file, for messages.
        raw: the JSON object, every field of it.
        data: the file's bytes.
        model: the architecture.
        notes: what it says that is kept but has no effect here, a sentence each.
    """

    path: Path
    raw: Mapping[str, Any]
    data: bytes
    model: ModelConfig
    notes: tuple[str, ...] = ()


def read_config(directory: str | os.PathLike) -> HFConfig:
    """Reads `directory`/config.json.

    Raises:
        UserError: it is missing or damaged, or asks for something that is not computed here, by name.
    """
    path = local_directory(directory) / CONFIG
    if not path.exists():
        raise UserError(f"{path} is missing; give the folder of a Hugging Face model, all of it")
    data = read_whole(path, MAX_CONFIG_BYTES)
    raw = parse_json(data, str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path} is no JSON object; give the config.json of a model")
    model = model_from_json(raw, str(path))
    notes = []
    if raw.get("attention_dropout"):
        notes.append(f"attention_dropout {raw['attention_dropout']} is kept in {CONFIG}; training here uses none")
    return HFConfig(path, raw, data, model, tuple(notes))


def model_from_json(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The model that the contents of a config.json stand for; absent fields mean what they mean in transformers.

    Args:
        where: file, for messages.

    Raises:
        UserError: a field is missing or wrong, or asks for something that is not computed here.
    """
    _require_honoured(raw, where)
    fields = _Fields(raw, where)
    embed, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    if raw.get("head_dim") is None and embed % heads:
        raise UserError(f"{where}: hidden_size {embed} is no multiple of num_attention_heads {heads}; give head_dim")
    max_positions = fields.size("max_position_embeddings", 2048)
    try:
        theta, scaling = _rope(fields, max_positions)
        return ModelConfig(
            name=raw["model_type"],
            vocab_size=fields.size("vocab_size"),
            embed_dim=embed,
            mlp_dim=fields.size("intermediate_size"),
            num_layers=fields.size("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=fields.size("num_key_value_heads", heads),
            head_dim=fields.size("head_dim", embed // heads),
            rope_theta=theta,
            rope_scaling=scaling,
            norm_epsilon=fields.number("rms_norm_eps", 1e-6),
            tied_embeddings=fields.flag("tie_word_embeddings"),
            max_positions=max_positions,
        )
    except UserError as error:  # of the architecture's own checks, which know no file
        raise error if where in str(error) else UserError(f"{where}: {error}") from error


def same_architecture(a: ModelConfig, b: ModelConfig) -> bool:
    """Whether two models differ in nothing but their names."""
    return dataclasses.replace(a, name=b.name) == b


def _require_honoured(raw: Mapping[str, Any], where: str) -> None:
    architectures = raw.get("architectures")
    if raw.get("model_type") != "llama":
        raise UserError(f"{where}: model_type is {_shown(raw.get('model_type'))}; only 'llama' is read so far")
    if architectures and architectures != [ARCHITECTURE]:
        raise UserError(f"{where}: architectures is {_shown(architectures)}; only {ARCHITECTURE} is read so far")
    for name, accepted in _HONOURED.items():
        value = raw.get(name)
        if value is not None and value not in accepted:
            words = f"only {' or '.join(map(repr, accepted))}" if accepted else "only a model without it"
            raise UserError(f"{where}: {name} is {_shown(value)}; {words} is computed here")
    layer_types = raw.get("layer_types")
    if layer_types and any(kind != "full_attention" for kind in layer_types):
        raise UserError(f"{where}: layer_types is {_shown(layer_types)}; only 'full_attention' is computed here")


def _rope(fields: _Fields, max_positions: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary frequencies, from either spelling."""
    old, new = fields.mapping("rope_scaling"), fields.mapping("rope_parameters")
    if old and new:
        raise UserError(f"{fields.where} has rope_scaling and rope_parameters; keep the one that is meant")
    rope = _Fields(old or new or {}, f"{fields.where}: {'rope_scaling' if old else 'rope_parameters'}")
    thetas = {where.number("rope_theta") for where in (rope, fields) if where.raw.get("rope_theta") is not None}
    if len(thetas) > 1:
        raise UserError(f"{fields.where} has two values of rope_theta; keep the one that is meant")
    theta = thetas.pop() if thetas else 10_000.0
    kind = rope.raw.get("rope_type") or rope.raw.get("type") or "default"
    if kind not in ("default", "llama3"):
        raise UserError(f"{rope.where}: rope_type is {_shown(kind)}; only 'default' and 'llama3' are computed here")
    known = _PLAIN_ROPE + (_LLAMA3_ROPE if kind == "llama3" else ())
    for name, value in rope.raw.items():
        if name not in known and value is not None:
            raise UserError(
                f"{rope.where}: {shown(name)} is not known for rope_type {kind!r}; remove it if it means nothing"
            )
    if rope.raw.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise UserError(f"{rope.where}: partial_rotary_factor is not 1; only whole heads are turned here")
    if kind == "default":
        return theta, None
    original = rope.size("original_max_position_embeddings", max_positions)
    if fields.raw.get("original_max_position_embeddings") not in (None, original):
        raise UserError(f"{fields.where} has two values of original_max_position_embeddings; keep the one meant")
    factor, low, high = (rope.number(name) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    return theta, RopeScaling(factor, low, high, original)


@dataclass(frozen=True)
class _Fields:
    """Fields of a JSON object with their types checked; `where` is for messages."""

    raw: Mapping[str, Any]
    where: str

    def size(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if type(value) is not int or not 0 < value < 1 << 40:
            raise UserError(f"{self.where}: {name} is {_shown(value)}; it must be a whole number above 0")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if type(value) not in (int, float) or not 0 < value < 1e30:
            raise UserError(f"{self.where}: {name} is {_shown(value)}; it must be a number above 0")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._value(name, False)
        if type(value) is not bool:
            raise UserError(f"{self.where}: {name} is {_shown(value)}; it must be true or false")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._value(name, {})
        if not isinstance(value, dict):
            raise UserError(f"{self.where}: {name} is {_shown(value)}; it must be an object")
        return value

    def _value(self, name: str, default: Any) -> Any:
        value = self.raw.get(name)
        value = default if value is None else value
        if value is None:
            raise UserError(f"{self.where} has no {name}; give the config.json of a whole model")
        return value


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ---- writing


@dataclass(frozen=True)
class TokenIds:
    """Ids that generation needs; None where the vocabulary has none."""

    bos: int | None = None
    eos: int | tuple[int, ...] | None = None
    pad: int | None = None


def fresh_config(model: ModelConfig, dtype: str, ids: TokenIds) -> dict[str, Any]:
    """A config.json for a model that began here, in the older spelling, which every version of transformers reads.

    Args:
        dtype: safetensors name of the weights' dtype.
        ids: special tokens.
    """
    eos = list(ids.eos) if isinstance(ids.eos, tuple) else ids.eos
    return {
        "architectures": [ARCHITECTURE], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": ids.bos, "eos_token_id": eos, "head_dim": model.head_dim, "hidden_act": "silu",
        "hidden_size": model.embed_dim, "initializer_range": 0.02, "intermediate_size": model.mlp_dim,
        "max_position_embeddings": model.max_positions, "mlp_bias": False, "model_type": "llama",
        "num_attention_heads": model.num_heads, "num_hidden_layers": model.num_layers,
        "num_key_value_heads": model.num_kv_heads, "pad_token_id": ids.pad, "rms_norm_eps": model.norm_epsilon,
        "rope_scaling": _scaling_json(model.rope_scaling), "rope_theta": model.rope_theta,
        "tie_word_embeddings": model.tied_embeddings, "torch_dtype": DTYPE_NAMES[dtype], "use_cache": True,
        "vocab_size": model.vocab_size,
    }  # fmt: skip


def changed_config(config: HFConfig, model: ModelConfig, dtype: str | None) -> bytes:
    """The file of `config` for a model and dtype that may differ from it; its own bytes where they do not.

    Args:
        dtype: safetensors name of the weights' dtype; None where the weights keep theirs.
    """
    raw: dict[str, Any] = dict(config.raw)
    old = config.model
    names = {
        "vocab_size": "vocab_size", "embed_dim": "hidden_size", "mlp_dim": "intermediate_size",
        "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "num_kv_heads": "num_key_value_heads",
        "head_dim": "head_dim", "norm_epsilon": "rms_norm_eps", "tied_embeddings": "tie_word_embeddings",
        "max_positions": "max_position_embeddings",
    }  # fmt: skip
    for ours, theirs in names.items():
        if getattr(old, ours) != getattr(model, ours):
            raw[theirs] = getattr(model, ours)
    if (old.rope_theta, old.rope_scaling) != (model.rope_theta, model.rope_scaling):
        _set_rope(raw, model)
    if dtype is not None:
        spelling = (
            "dtype" if "dtype" in raw or ("torch_dtype" not in raw and "rope_parameters" in raw) else "torch_dtype"
        )
        raw[spelling] = DTYPE_NAMES[dtype]
    return config.data if raw == config.raw else json_bytes(raw)


def _set_rope(raw: dict[str, Any], model: ModelConfig) -> None:
    scaling = _scaling_json(model.rope_scaling)
    if raw.get("rope_parameters"):
        raw["rope_parameters"] = {**(scaling or {"rope_type": "default"}), "rope_theta": model.rope_theta}
    else:
        raw |= {"rope_theta": model.rope_theta, "rope_scaling": scaling}


def _scaling_json(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    return {
        "factor": scaling.factor, "high_freq_factor": scaling.high_freq_factor,
        "low_freq_factor": scaling.low_freq_factor, "rope_type": "llama3",
        "original_max_position_embeddings": scaling.original_max_positions,
    }  # fmt: skip


def json_bytes(value: Any) -> bytes:
    """JSON as Hugging Face's files have it: two spaces, a newline at the end, fields in their order."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
