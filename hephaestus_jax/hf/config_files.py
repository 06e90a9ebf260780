"""config.json, in both spellings: what it means, and how it is written back; `families` has the fields.

The older spelling has `rope_theta`, `rope_scaling` and `torch_dtype`; transformers 5 writes `rope_parameters` and
`dtype`. A file is written back byte for byte while it says what the model is; where the model or the dtype differs,
only those fields change, in the file's own spelling. Fields that this project does not know are kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.families import Family, canonical, family_of, family_of_config
from hephaestus_jax.hf.families.fields import shown_value
from hephaestus_jax.hf.families.rope import spelling_of
from hephaestus_jax.hf.safetensors_files import local_directory, parse_json, read_whole

CONFIG = "config.json"
MAX_CONFIG_BYTES = 16 << 20
DTYPE_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""safetensors dtype -> the name in config.json."""

_OF_TRAINING = ("attention_dropout", "router_jitter_noise")


@dataclass(frozen=True)
class HFConfig:
    """A config.json and the model it stands for.

    Attributes:
        path: of the file, for messages.
        raw: the JSON object, every field of it.
        data: the file's bytes.
        family: that it names.
        model: the architecture.
        notes: what it says that is kept but has no effect here, a sentence each.
    """

    path: Path
    raw: Mapping[str, Any]
    data: bytes
    family: Family
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
    family = family_of_config(raw, str(path))
    model = family.read_config(raw, str(path))
    notes = (
        f"{name} {shown_value(raw[name])} is kept in {CONFIG}; training here uses none"
        for name in _OF_TRAINING
        if raw.get(name)
    )
    return HFConfig(path, raw, data, family, model, tuple(notes))


def model_from_json(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The model that the contents of a config.json stand for; absent fields mean what they mean in transformers.

    Args:
        where: file, for messages.

    Raises:
        UserError: a field is missing or wrong, or asks for something that is not computed here.
    """
    return family_of_config(raw, where).read_config(raw, where)


def same_architecture(a: ModelConfig, b: ModelConfig) -> bool:
    """Whether two models are the same function of the same parameters, whatever their names."""
    return canonical(a) == canonical(b)


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
    family = family_of(model)
    return {
        **family.write_config(model, "old"),
        "attention_dropout": 0.0,
        "bos_token_id": ids.bos,
        "eos_token_id": list(ids.eos) if isinstance(ids.eos, tuple) else ids.eos,
        "initializer_range": 0.02,
        "pad_token_id": ids.pad,
        "torch_dtype": DTYPE_NAMES[dtype],
        "use_cache": True,
    }


def changed_config(config: HFConfig, model: ModelConfig, dtype: str | None) -> bytes:
    """The file of `config` for a model and dtype that may differ from it; its own bytes where they do not.

    Args:
        dtype: safetensors name of the weights' dtype; None where the weights keep theirs.

    Raises:
        UserError: a config.json of that family cannot say what the model is.
    """
    raw: dict[str, Any] = dict(config.raw)
    if not same_architecture(config.model, model):
        spelling = spelling_of(raw)
        before, after = (config.family.write_config(one, spelling) for one in (config.model, model))
        raw |= {name: value for name, value in after.items() if name not in before or before[name] != value}
        _check_says(raw, model, config)
    if dtype is not None:
        new = "dtype" in raw or ("torch_dtype" not in raw and spelling_of(raw) == "new")
        raw["dtype" if new else "torch_dtype"] = DTYPE_NAMES[dtype]
    return config.data if raw == config.raw else json_bytes(raw)


def _check_says(raw: Mapping[str, Any], model: ModelConfig, config: HFConfig) -> None:
    """Raises unless a changed config.json means that model."""
    try:
        missing = config.family.differences(model)
        if not missing and same_architecture(model_from_json(raw, str(config.path)), model):
            return
    except UserError as error:
        missing = [f"what the model is ({error})"]
    raise UserError(
        f"{config.path}: a config.json of model_type {config.family.model_type!r} cannot say"
        f" {', '.join(missing) or 'what the model is beside its other fields'}; export without the origin, or with the"
        " run's own"
    )


def json_bytes(value: Any) -> bytes:
    """JSON as Hugging Face's files have it: two spaces, a newline at the end, fields in their order."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
