"""The families of models that are read and written, a page each; adding one is a page here and its line below."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.families import (
    gemma2,
    gemma3,
    llama,
    mistral,
    mixtral,
    olmo2,
    qwen2,
    qwen3,
    qwen3_moe,
    smollm3,
)
from hephaestus_jax.hf.families.family import Family, canonical
from hephaestus_jax.hf.families.fields import shown_value

FAMILIES: tuple[Family, ...] = tuple(
    page.FAMILY for page in (llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma2, gemma3, olmo2, smollm3)
)
_BY_TYPE = {family.model_type: family for family in FAMILIES}
_WITH_IMAGES = {"gemma3": "gemma3_text", "mistral3": "mistral"}


def family_of_config(raw: Mapping[str, Any], where: str) -> Family:
    """The family that a config.json names.

    Raises:
        UserError: it is none of `FAMILIES`.
    """
    name = raw.get("model_type")
    if type(name) is str and name in _BY_TYPE:
        return _BY_TYPE[name]
    hint = ""
    if type(name) is str and name in _WITH_IMAGES:
        hint = f"; it is a model with images: save its text model ({_WITH_IMAGES[name]}) by itself and take that"
    raise UserError(f"{where}: model_type is {shown_value(name)}; those read are {', '.join(_BY_TYPE)}{hint}")


@functools.lru_cache(maxsize=64)
def family_of(model: ModelConfig) -> Family:
    """The family that a model is written as where nothing says which: the first whose config.json says all of it.

    Raises:
        UserError: no family has what the model has.
    """
    missing: dict[str, list[str]] = {}
    for family in FAMILIES:
        with suppress(UserError):  # no model of that family at all
            missing[family.model_type] = family.differences(model)
            if not missing[family.model_type]:
                return family
    nearest = min(missing, key=lambda name: len(missing[name]))
    raise UserError(
        f"model {model.name!r} is of no family that Hugging Face has: nearest is {nearest}, which has no"
        f" {' and no '.join(missing[nearest])}; change the model, or keep its checkpoints in this project's format"
    )


__all__ = ["FAMILIES", "Family", "canonical", "family_of", "family_of_config"]
