"""One parameter of ours and the tensors that hold it: the line that a family's map is made of.

Axes are named by the letters of `architecture.py` (V, D, F, N, K, H), with E experts and M the width of one of them.
Hugging Face stores a projection as [out, in] with heads and head dimension as one axis, ours is [in, out] with both
apart; the values are the same, and the order within a head, which rotary embedding depends on, is too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hephaestus_jax.config import ModelConfig

Index = tuple[int, ...]
"""Where a tensor lies in its parameter: (), (layer,) or (layer, expert)."""


@dataclass(frozen=True)
class Weight:
    """One parameter of ours and the tensor, or tensor per layer, or per layer and expert, that holds it.

    Attributes:
        path: in the parameter tree, such as "layers/attention/query/kernel".
        tensor: its name in the files; "{layer}" in it stands for the layer's number, "{expert}" for the expert's.
        theirs: axes of the tensor by their letters, those that are one axis there in brackets: "(NH)D".
        ours: axes of the parameter, without the leading ones of layers and experts: "DNH".
    """

    path: str
    tensor: str
    theirs: str
    ours: str

    @property
    def leading(self) -> str:
        """The parameter's leading axes: "" for one tensor, "Y" for one per layer, "YE" for one per expert of each."""
        return "Y" * ("{layer}" in self.tensor) + "E" * ("{expert}" in self.tensor)

    @property
    def stacked(self) -> bool:
        """Whether the parameter has leading axes."""
        return bool(self.leading)

    @property
    def split_axes(self) -> str:
        """The tensor's axes with those in brackets taken apart: "NHD"."""
        return self.theirs.replace("(", "").replace(")", "")

    @property
    def to_ours(self) -> tuple[int, ...]:
        """The permutation that takes the tensor, taken apart, to its part of the parameter."""
        return tuple(self.split_axes.index(axis) for axis in self.ours)

    @property
    def to_theirs(self) -> tuple[int, ...]:
        """The permutation that takes that part of the parameter to the tensor, taken apart."""
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
        """Shape of the parameter, with its leading axes."""
        sizes = axis_sizes(model)
        return tuple(sizes[axis] for axis in self.leading + self.ours)

    def tensors(self, model: ModelConfig) -> Iterator[tuple[str, Index]]:
        """Names in the files, each with its index along the leading axes."""
        if not self.stacked:
            yield self.tensor, ()
            return
        for layer in range(model.num_layers):
            yield from self.of_layer(model, layer)

    def of_layer(self, model: ModelConfig, layer: int) -> Iterator[tuple[str, Index]]:
        """The same of one layer, where there are layers: one tensor, or one per expert."""
        if self.leading == "Y":
            yield self.tensor.format(layer=layer), (layer,)
            return
        for expert in range(axis_sizes(model)["E"]):
            yield self.tensor.format(layer=layer, expert=expert), (layer, expert)


def axis_sizes(model: ModelConfig) -> dict[str, int]:
    """Letter -> size; Y is the number of layers, E and M are 0 without experts."""
    experts = model.experts
    return {
        "V": model.vocab_size, "D": model.embed_dim, "F": model.mlp_dim, "N": model.num_heads,
        "K": model.num_kv_heads, "H": model.head_dim, "Y": model.num_layers,
        "E": experts.num_experts if experts else 0, "M": experts.mlp_dim if experts else 0,
    }  # fmt: skip
