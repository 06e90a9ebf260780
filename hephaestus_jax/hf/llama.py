"""How Llama's tensors lie in a Hugging Face model: one line per parameter of ours.

Axes are named by the letters of `config.py` (V, D, F, N, K, H). Hugging Face stores a projection as [out, in] with
heads and head dimension as one axis, ours is [in, out] with both apart; the values are the same, and the order within a
head, which rotary embedding depends on, is too.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hephaestus_jax.config import ModelConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Weight:
    """One parameter of ours and the tensor, or tensor per layer, that holds it.

    Attributes:
        path: in the parameter tree, such as "layers/attention/query/kernel".
        tensor: its name in the files; "{layer}" in it stands for the layer's number.
        theirs: axes of the tensor by their letters, those that are one axis there in brackets: "(NH)D".
        ours: axes of the parameter, without the leading one of the layers: "DNH".
    """

    path: str
    tensor: str
    theirs: str
    ours: str

    @property
    def stacked(self) -> bool:
        """Whether the parameter has a leading axis of layers."""
        return "{layer}" in self.tensor

    @property
    def split_axes(self) -> str:
        """The tensor's axes with those in brackets taken apart: "NHD"."""
        return self.theirs.replace("(", "").replace(")", "")

    @property
    def to_ours(self) -> tuple[int, ...]:
        """The permutation that takes the tensor, taken apart, to the parameter."""
        return tuple(self.split_axes.index(axis) for axis in self.ours)

    @property
    def to_theirs(self) -> tuple[int, ...]:
        """The permutation that takes the parameter to the tensor, taken apart."""
        return tuple(self.ours.index(axis) for axis in self.split_axes)

    def split_shape(self, model: ModelConfig) -> tuple[int, ...]:
        """Shape of the tensor, taken apart."""
        return tuple(axis_sizes(model)[axis] for axis in self.split_axes)

    def tensor_shape(self, model: ModelConfig) -> tuple[int, ...]:
        """Shape of the tensor in the file."""
        groups = re.findall(r"\((\w+)\)|(\w)", self.theirs)
        sizes = axis_sizes(model)
        return tuple(math.prod(sizes[axis] for axis in together or one) for together, one in groups)

    def our_shape(self, model: ModelConfig) -> tuple[int, ...]:
        """Shape of the parameter, with the leading axis if it has one."""
        sizes = axis_sizes(model)
        return ((model.num_layers,) if self.stacked else ()) + tuple(sizes[axis] for axis in self.ours)

    def tensors(self, model: ModelConfig) -> Iterator[tuple[str, int | None]]:
        """Names in the files, each with its index along the leading axis (None without one)."""
        if not self.stacked:
            yield self.tensor, None
            return
        for layer in range(model.num_layers):
            yield self.tensor.format(layer=layer), layer


def axis_sizes(model: ModelConfig) -> dict[str, int]:
    """Letter -> size."""
    return {
        "V": model.vocab_size, "D": model.embed_dim, "F": model.mlp_dim, "N": model.num_heads,
        "K": model.num_kv_heads, "H": model.head_dim,
    }  # fmt: skip


_LAYER = "model.layers.{layer}."
LLAMA = (
    Weight("embedder/embedding", EMBEDDING, "VD", "VD"),
    Weight("layers/attention_norm/scale", _LAYER + "input_layernorm.weight", "D", "D"),
    Weight("layers/attention/query/kernel", _LAYER + "self_attn.q_proj.weight", "(NH)D", "DNH"),
    Weight("layers/attention/key/kernel", _LAYER + "self_attn.k_proj.weight", "(KH)D", "DKH"),
    Weight("layers/attention/value/kernel", _LAYER + "self_attn.v_proj.weight", "(KH)D", "DKH"),
    Weight("layers/attention/out/kernel", _LAYER + "self_attn.o_proj.weight", "D(NH)", "NHD"),
    Weight("layers/mlp_norm/scale", _LAYER + "post_attention_layernorm.weight", "D", "D"),
    Weight("layers/mlp/gate/kernel", _LAYER + "mlp.gate_proj.weight", "FD", "DF"),
    Weight("layers/mlp/up/kernel", _LAYER + "mlp.up_proj.weight", "FD", "DF"),
    Weight("layers/mlp/down/kernel", _LAYER + "mlp.down_proj.weight", "DF", "FD"),
    Weight("final_norm/scale", "model.norm.weight", "D", "D"),
    Weight("head/kernel", HEAD, "VD", "DV"),
)

_BUFFERS = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


def weights(model: ModelConfig) -> tuple[Weight, ...]:
    """The parameters of that model."""
    return tuple(weight for weight in LLAMA if not (model.tied_embeddings and weight.tensor == HEAD))


@functools.lru_cache(maxsize=8)
def tensor_places(model: ModelConfig) -> Mapping[str, tuple[Weight, int | None]]:
    """Tensor name -> parameter and index along its leading axis, layer by layer as the model runs."""
    stacked = [weight for weight in weights(model) if weight.stacked]
    before = [weight for weight in weights(model) if weight.tensor == EMBEDDING]
    after = [weight for weight in weights(model) if not weight.stacked and weight not in before]
    layers = [(weight, layer) for layer in range(model.num_layers) for weight in stacked]
    found: dict[str, tuple[Weight, int | None]] = {weight.tensor: (weight, None) for weight in before}
    found |= {weight.tensor.format(layer=layer): (weight, layer) for weight, layer in layers}
    return found | {weight.tensor: (weight, None) for weight in after}


def copies(model: ModelConfig) -> Mapping[str, str]:
    """Tensors that a file may hold although they are another one's copy: name -> whose."""
    return {HEAD: EMBEDDING} if model.tied_embeddings else {}


def is_buffer(name: str) -> bool:
    """Whether that is a table which older versions of transformers saved and no version reads: rotary frequencies."""
    return bool(_BUFFERS.fullmatch(name))
