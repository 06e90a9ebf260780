"""LoRA adapters on the way out: added to the weights that they stand beside, or by themselves in PEFT's format.

PEFT names a factor after the module that it belongs to, so that the families' maps name them too. It has A as
[R, inputs] and B as [outputs, R], where ours are [inputs, R] and [R, outputs] with heads apart.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hephaestus_jax.architecture import LoraConfig, ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.config_files import DTYPE_NAMES, json_bytes
from hephaestus_jax.hf.exporting import ExportDType, Read
from hephaestus_jax.hf.families import Family
from hephaestus_jax.hf.families.weights import Index, Weight
from hephaestus_jax.hf.folders import new_folder, write_file
from hephaestus_jax.hf.layout import cast, is_finite
from hephaestus_jax.hf.safetensors_files import DTYPES
from hephaestus_jax.hf.safetensors_writing import Shard, make_header, write_shard
from hephaestus_jax.model.lora import A, B

ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
_WEIGHT = ".weight"


@dataclasses.dataclass(frozen=True)
class AdapterBase:
    """What adapters were trained on, as PEFT finds it.

    Attributes:
        name: on the Hub, or a folder; "" where nobody knows.
        revision: of it, on the Hub.
    """

    name: str = ""
    revision: str = ""


def merged(read: Read, lora: LoraConfig) -> Read:
    """The weights with the adapters added, one layer at a time: W + scale · A·B in float32, and not rounded here."""

    def read_merged(path: str, index: Index) -> np.ndarray:
        values = read(path, index)
        if not _is_target(path, lora):
            return values
        a, b = (read(_factor(path, name), index) for name in (A, B))
        return values.astype(np.float32) + np.float32(lora.scale) * np.tensordot(a, b, 1)

    return read_merged


def _is_target(path: str, lora: LoraConfig) -> bool:
    parents, _, leaf = path.rpartition("/")
    return path.startswith("layers/") and leaf == "kernel" and parents.rpartition("/")[2] in lora.targets


def _factor(path: str, name: str) -> str:
    return f"{path.rpartition('/')[0]}/{name}"


def export_adapter(
    out: str | os.PathLike,
    model: ModelConfig,
    read: Read,
    lora: LoraConfig,
    family: Family,
    base: AdapterBase = AdapterBase(),
    dtype: ExportDType = "float32",
) -> int:
    """Writes the adapters as PEFT reads them to `out`, which appears whole or not at all; the bytes of their weights.

    Args:
        out: a folder that is not there yet, or empty.
        model: the architecture.
        read: gives the parameters, adapters among them, of a layer.
        lora: what the adapters are.
        family: of the model that they are for.
        base: that model.
        dtype: of the factors.

    Raises:
        UserError: `out` is taken or cannot be written, or a value is NaN or infinite or does not fit the dtype.
    """
    factors = dict(_factors(model, lora, family))
    stored = next(name for name, ours in DTYPE_NAMES.items() if ours == dtype)
    shapes = {name: (stored, factor.shape(model, lora)) for name, factor in factors.items()}
    header = make_header(shapes, {"format": "pt"})

    def chunks_of(name: str) -> Iterator[np.ndarray]:
        values = np.ascontiguousarray(factors[name].theirs(read).reshape(shapes[name][1]))
        converted = cast(values, DTYPES[stored])
        if not is_finite(converted):
            raise UserError(
                f"{name} holds NaN or infinity, or numbers too large for {dtype}; export an earlier checkpoint of the"
                " run, or with another dtype"
            )
        yield converted

    modules = {factor.weight.tensor.removesuffix(_WEIGHT).rpartition(".")[2] for factor in factors.values()}
    with new_folder(out) as folder:
        write_file(folder / ADAPTER_CONFIG, json_bytes(_config(lora, sorted(modules), base)))
        write_shard(folder, Shard(ADAPTER, header), chunks_of)
    return sum(entry.stop - entry.start for entry in header.entries.values())


@dataclasses.dataclass(frozen=True)
class _Factor:
    """One factor of one layer: A or B of that projection."""

    weight: Weight
    index: Index
    name: str

    def shape(self, model: ModelConfig, lora: LoraConfig) -> tuple[int, int]:
        """As PEFT has it."""
        outputs, inputs = self.weight.tensor_shape(model)
        return (lora.rank, inputs) if self.name == A else (outputs, lora.rank)

    def theirs(self, read: Read) -> np.ndarray:
        """Its values with the axes turned round, heads still apart; the order of what is one axis there is the same."""
        values = read(_factor(self.weight.path, self.name), self.index)
        return np.moveaxis(values, -1, 0) if self.name == A else np.moveaxis(values, 0, -1)


def _factors(model: ModelConfig, lora: LoraConfig, family: Family) -> Iterator[tuple[str, _Factor]]:
    for name, weight, index in family.tensors(model):
        if _is_target(weight.path, lora):
            for factor, theirs in ((A, "lora_A"), (B, "lora_B")):
                yield f"base_model.model.{name.removesuffix(_WEIGHT)}.{theirs}.weight", _Factor(weight, index, factor)


def _config(lora: LoraConfig, modules: list[str], base: AdapterBase) -> Mapping[str, Any]:
    """The fields that every version of PEFT knows; the others have defaults."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name or None,
        "revision": base.revision or None,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        "lora_dropout": 0.0,
        "use_rslora": lora.rank_stabilised,
        "target_modules": modules,
        "modules_to_save": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }
