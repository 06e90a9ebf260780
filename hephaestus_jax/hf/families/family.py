"""A family of models: how its tensors lie in files and how its config.json reads, both ways."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.config import ExpertsConfig, ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.families.fields import Field, JsonFields, Spelling, shown_value
from hephaestus_jax.hf.families.layers import shortest_pattern
from hephaestus_jax.hf.families.weights import Index, Weight

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

_BUFFERS = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
_NEVER: Mapping[str, tuple[Any, ...]] = {
    "partial_rotary_factor": (1,), "quantization_config": (), "compression_config": (), "auto_map": (),
    "is_encoder_decoder": (False,), "add_cross_attention": (False,),
}  # fmt: skip
"""What no family computes: field -> values of it that ask for nothing; absent and null never do."""


@dataclass(frozen=True, eq=False)
class Family:
    """A family.

    Attributes:
        model_type: in config.json.
        architectures: names in config.json, of transformers' classes and vLLM's registry; the first is written.
        layout: every parameter and its tensor, those of a layer in the order in which the model runs.
        fields: of config.json and of `ModelConfig`.
        function: fields of `ModelConfig` that are the same in all models of the family.
        constants: fields of config.json with the values of it that mean what is computed here; absent and null do as
            well. The first is written.
    """

    model_type: str
    architectures: tuple[str, ...]
    layout: tuple[Weight, ...]
    fields: tuple[Field, ...]
    function: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    # ---- tensors

    def weights(self, model: ModelConfig) -> tuple[Weight, ...]:
        """The parameters of that model."""
        return tuple(weight for weight in self.layout if not (model.tied_embeddings and weight.tensor == HEAD))

    def tensors(self, model: ModelConfig) -> Iterator[tuple[str, Weight, Index]]:
        """Every tensor of that model, as it runs: name, parameter, and index along its leading axes."""
        weights = self.weights(model)
        before = weights.index(next(weight for weight in weights if weight.stacked))
        layers = [weight for weight in weights if weight.stacked]
        after = [weight for weight in weights[before:] if not weight.stacked]
        for weight in weights[:before]:
            yield weight.tensor, weight, ()
        for layer in range(model.num_layers):
            for weight in layers:
                for name, index in weight.of_layer(model, layer):
                    yield name, weight, index
        for weight in after:
            yield weight.tensor, weight, ()

    def tensor_places(self, model: ModelConfig) -> Mapping[str, tuple[Weight, Index]]:
        """Tensor name -> parameter and index along its leading axes, in the order of `tensors`."""
        return _tensor_places(self, model)

    def copies(self, model: ModelConfig) -> Mapping[str, str]:
        """Tensors that a file may hold although they are another one's copy: name -> whose."""
        return {HEAD: EMBEDDING} if model.tied_embeddings else {}

    def is_buffer(self, name: str) -> bool:
        """Whether that is a table which older transformers saved and no version reads: rotary frequencies."""
        return bool(_BUFFERS.fullmatch(name))

    # ---- config.json

    def read_config(self, raw: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
        """The model that the contents of a config.json stand for.

        Raises:
            UserError: a field is missing or wrong, or asks for something that is not computed here.
        """
        fields = JsonFields(raw, where)
        architectures = raw.get("architectures")
        if architectures and architectures not in [[name] for name in self.architectures]:
            raise fields.wrong(
                "architectures", f"with model_type {self.model_type!r} only {' or '.join(self.architectures)} is read"
            )
        for name, accepted in {**_NEVER, **self.constants}.items():
            value = raw.get(name)
            if value is not None and value not in accepted:
                words = f"only {' or '.join(map(repr, accepted))}" if accepted else "only a model without it"
                raise fields.wrong(name, f"{words} is computed here")
        try:
            found: dict[str, Any] = {}
            for one in self.fields:
                found |= one.read(fields)
            return _model(self.model_type, found | dict(self.function))
        except UserError as error:  # of the architecture's own checks, which know no file
            raise error if where in str(error) else UserError(f"{where}: {error}") from error

    def write_config(self, model: ModelConfig, spelling: Spelling = "old") -> dict[str, Any]:
        """The fields of config.json that say what the model is, in that spelling of rotary embedding."""
        found = {"architectures": [self.architectures[0]], "model_type": self.model_type}
        found |= {name: accepted[0] for name, accepted in self.constants.items() if accepted}
        for one in self.fields:
            found |= one.write(model, spelling)
        return found

    def differences(self, model: ModelConfig) -> list[str]:
        """Fields of `ModelConfig` that this family's config.json cannot say of that model, with their values.

        Raises:
            UserError: what it would say is no model of this family at all.
        """
        mine, wanted = canonical(self.read_config(self.write_config(model))), canonical(model)
        names = [field.name for field in dataclasses.fields(wanted)]
        values = {name: getattr(wanted, name) for name in names if getattr(mine, name) != getattr(wanted, name)}
        return [f"{name} {shown_value(value)}" for name, value in values.items()]


@functools.lru_cache(maxsize=8)
def _tensor_places(family: Family, model: ModelConfig) -> Mapping[str, tuple[Weight, Index]]:
    return {name: (weight, index) for name, weight, index in family.tensors(model)}


def _model(name: str, values: Mapping[str, Any]) -> ModelConfig:
    ours = {key: value for key, value in values.items() if not key.startswith("experts.")}
    experts = {key.removeprefix("experts."): value for key, value in values.items() if key not in ours}
    return ModelConfig(name=name, experts=ExpertsConfig(**experts) if experts else None, **ours)


def canonical(model: ModelConfig) -> ModelConfig:
    """The same function and the same parameters said in one way, without the name: what two models are compared by."""
    changes: dict[str, Any] = {"name": "", "layer_pattern": shortest_pattern(model.layer_kinds)}
    if model.experts is not None:
        changes["mlp_dim"] = model.experts.mlp_dim  # of no effect
    if model.attention_scale_dim == model.head_dim:
        changes["attention_scale_dim"] = 0.0
    if "sliding" not in model.layer_kinds:
        changes |= {"sliding_window": 0, "sliding_rope_theta": 0.0}
    elif model.sliding_rope_theta == model.rope_theta and model.rope_scaling is None:
        changes["sliding_rope_theta"] = 0.0
    return dataclasses.replace(model, **changes)
