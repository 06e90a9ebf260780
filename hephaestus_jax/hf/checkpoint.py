"""A Hugging Face model on disk, opened: config and tensors read together, and every tensor accounted for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.config_files import DTYPE_NAMES, HFConfig, read_config
from hephaestus_jax.hf.families import Family
from hephaestus_jax.hf.families.family import HEAD
from hephaestus_jax.hf.layout import CHUNK_BYTES
from hephaestus_jax.hf.safetensors_files import Tensor, Tensors, open_tensors, read_tensor, shown
from hephaestus_jax.hf.slices import shares
from hephaestus_jax.hf.vocabulary_size import check_tokenizer_size


@dataclass(frozen=True)
class Checkpoint:
    """A model whose tensors are exactly those that its config asks for, and what is kept beside them.

    Attributes:
        config: config.json.
        tensors: all tensors of the files.
        buffers: tables that older versions of transformers saved and nothing reads; kept for export.
        copies: tensor -> the one that it repeats, such as the output projection of a model with tied embeddings. Equal
            bits are required, by `check_copies`.
    """

    config: HFConfig
    tensors: Tensors
    buffers: tuple[str, ...]
    copies: Mapping[str, str]

    @property
    def model(self) -> ModelConfig:
        """The architecture."""
        return self.config.model

    @property
    def family(self) -> Family:
        """Which says how its tensors lie."""
        return self.config.family

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.stop - tensor.start for tensor in self.tensors.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know before using it, a sentence each."""
        notes = list(self.config.notes)
        if self.buffers:
            notes.append(
                f"{len(self.buffers)} tables of rotary frequencies ({shown(self.buffers[0])}, …) are not used, since"
                " they are computed; they are kept for export"
            )
        for name, of in self.copies.items():
            notes.append(f"{name} repeats {of}, since embeddings are tied; it is written again on export")
        return tuple(notes)


def open_checkpoint(directory: str | os.PathLike, *, tokenizer_fits: bool = True) -> Checkpoint:
    """Opens the model in `directory`, without reading its tensors.

    Args:
        tokenizer_fits: whether the embedding must have a row for every id of the tokenizer beside it.

    Raises:
        UserError: config or files are damaged or ask for what is not done here; a tensor is missing, is one too many,
            or has another shape than the config says, naming the first such; the tokenizer has more ids than that.
    """
    config = read_config(directory)
    tensors = open_tensors(directory)
    family, model = config.family, config.model
    wanted = set()
    for name, weight, _ in family.tensors(model):  # one by one, since a config may ask for any number
        _check(tensors, name, weight.tensor_shape(model), config)
        wanted.add(name)
    copies = {name: of for name, of in family.copies(model).items() if name in tensors}
    for name, of in copies.items():
        if (tensors[name].dtype, tensors[name].shape) != (tensors[of].dtype, tensors[of].shape):
            raise _differs(tensors[name], tensors[of])
    buffers = tuple(name for name in tensors if family.is_buffer(name))
    for name in tensors:
        if name not in wanted and name not in copies and name not in buffers:
            raise UserError(_extra(tensors[name], config))
    if tokenizer_fits:
        check_tokenizer_size(config.path.parent, model.vocab_size)
    return Checkpoint(config, tensors, buffers, copies)


def _check(tensors: Tensors, name: str, shape: tuple[int, ...], config: HFConfig) -> None:
    if name not in tensors:
        hint = " (or set tie_word_embeddings to true, if they are tied)" if name == HEAD else ""
        if other := next((other for other in tensors if other.endswith("." + name) or name.endswith("." + other)), ""):
            raise UserError(
                f"tensor {name} is missing, and {shown(other)} is there: {tensors.directory} holds a model within"
                " another, or without its head; save the text model by itself with transformers"
            )
        raise UserError(
            f"tensor {name} is missing: {config.path} asks for it, and no file in {tensors.directory} has it{hint};"
            " download the model again"
        )
    tensor = tensors[name]
    if tensor.shape != shape:
        raise UserError(f"{tensor.place} has shape {list(tensor.shape)}, {config.path} wants {list(shape)}; mend one")
    if tensor.dtype not in DTYPE_NAMES:
        raise UserError(
            f"{tensor.place} has dtype {tensor.dtype}; weights are read in {', '.join(DTYPE_NAMES)}, convert it"
        )


def _extra(tensor: Tensor, config: HFConfig) -> str:
    reason = f"belongs to nothing in a model of type {config.family.model_type}"
    if tensor.name.endswith(".bias"):
        reason = f"is a bias, which a model of type {config.family.model_type} does not have there"
    elif tensor.name.startswith("model.layers."):
        reason = f"belongs to none of the {config.model.num_layers} layers"
    return f"{tensor.place} {reason} as {config.path} describes it; mend the config, or take the tensor out of the file"


def _differs(copy: Tensor, of: Tensor) -> UserError:
    return UserError(
        f"{copy.place} differs from {of.name}, although embeddings are tied; set tie_word_embeddings to false in"
        " config.json if both are meant"
    )


def check_copies(checkpoint: Checkpoint, share: int = 0, of_shares: int = 1) -> None:
    """Compares the bits of tensors that repeat others, or one of so many equal shares of them.

    Raises:
        UserError: one differs from what it should repeat.
    """
    for name, of in checkpoint.copies.items():
        copy, original = checkpoint.tensors[name], checkpoint.tensors[of]
        part = shares(copy.stop - copy.start, of_shares)[share]
        for mine, its in zip(tensor_bytes(copy, part), tensor_bytes(original, part), strict=True):
            if not np.array_equal(mine, its):
                raise _differs(copy, original)


def tensor_bytes(tensor: Tensor, part: range | None = None) -> Iterator[np.ndarray]:
    """The bytes of a tensor, or that part of them, in order: uint8, a few MiB at a time in memory of their own."""
    size = tensor.stop - tensor.start
    flat = Tensor(tensor.name, "U8", (size,), tensor.file, tensor.start, tensor.stop)
    part = range(size) if part is None else part
    for start in range(part.start, part.stop, CHUNK_BYTES):
        yield read_tensor(flat, slice(start, min(start + CHUNK_BYTES, part.stop)))
