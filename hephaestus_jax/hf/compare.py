"""Whether two models are the same: tensors bit for bit, config field for field, other files byte for byte.

A model is looked at through a `View`, of a folder or of what an export would write, and streamed. Beside it the
comparison of logits with `transformers`, where that and PyTorch are installed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.config import ComputeConfig, ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.checkpoint import open_checkpoint, tensor_bytes
from hephaestus_jax.hf.config_files import CONFIG, changed_config
from hephaestus_jax.hf.exporting import ExportDType, ExportedTensors, Read
from hephaestus_jax.hf.layout import Megabytes
from hephaestus_jax.hf.origin import Origin, carried_files
from hephaestus_jax.hf.safetensors_files import DTYPES, INDEX, Entry, shown


@dataclass(frozen=True)
class View:
    """A model as it is compared.

    Attributes:
        name: for messages.
        model: the architecture.
        tensors: name -> what a header says of it.
        chunks: name -> its bytes from first to last, in contiguous arrays.
        config: fields of config.json; None for a model that has none yet.
        files: other files by relative path; None likewise.
    """

    name: str
    model: ModelConfig
    tensors: Mapping[str, Entry]
    chunks: Callable[[str], Iterator[np.ndarray]]
    config: Mapping[str, Any] | None
    files: Mapping[str, Path] | None


def view_folder(directory: str | os.PathLike) -> View:
    """A Hugging Face model.

    Raises:
        UserError: as `open_checkpoint`.
    """
    checkpoint = open_checkpoint(directory)
    tensors = checkpoint.tensors
    entries = {name: entry for header in tensors.headers.values() for name, entry in header.entries.items()}
    files = {name: tensors.directory / name for name in carried_files(tensors)}
    return View(
        str(directory),
        checkpoint.model,
        entries,
        lambda name: tensor_bytes(tensors[name]),
        checkpoint.config.raw,
        files,
    )


def view_export(
    name: str, model: ModelConfig, read: Read, origin: Origin | None, dtype: ExportDType | None = None
) -> View:
    """What `export_model` would write of those parameters.

    Raises:
        UserError: as `export_model`.
    """
    exported = ExportedTensors(model, read, origin, dtype)
    entries = {name: entry for shard in exported.shards for name, entry in shard.header.entries.items()}
    config, files = None, None
    if origin is not None:
        config = json.loads(changed_config(origin.config, model, exported.dtype_in_config))
        files = {file: origin.folder / file for file in origin.files}
    return View(name, model, entries, lambda tensor: exported.chunks(tensor, entries[tensor].dtype), config, files)


def compare_models(a: View, b: View, progress: bool = True) -> Iterator[str]:
    """What differs between two models, one line each, as it is found; nothing if they are the same.

    How tensors are spread over files does not count. What one of the two does not have yet is not compared.

    Raises:
        UserError: a file cannot be read.
    """
    yield from _config_differences(a, b)
    yield from _file_differences(a, b)
    both = [name for name in a.tensors if name in b.tensors]
    for here, there in ((a, b), (b, a)):
        yield from (f"tensor {shown(name)}: only in {here.name}" for name in here.tensors if name not in there.tensors)
    total = sum(a.tensors[name].stop - a.tensors[name].start for name in both)
    with Megabytes("compare", total, progress) as meter:
        for name in both:
            if difference := _tensor_difference(name, a, b, meter):
                yield f"tensor {shown(name)}: {difference}"


def _config_differences(a: View, b: View) -> Iterator[str]:
    if a.config is None or b.config is None:
        ours, theirs = vars(a.model), vars(b.model)
        differing = [name for name in ours if name != "name" and ours[name] != theirs[name]]
        yield from (f"model: {name} is {ours[name]!r} and {theirs[name]!r}" for name in differing)
        return
    for name in dict.fromkeys([*a.config, *b.config]):
        mine, its = (json.dumps(config[name]) if name in config else "absent" for config in (a.config, b.config))
        if mine != its:
            yield f"{CONFIG}: {shown(name)} is {mine[:80]} and {its[:80]}"


def _file_differences(a: View, b: View) -> Iterator[str]:
    if a.files is None or b.files is None:
        return
    for name in sorted((a.files.keys() | b.files.keys()) - {CONFIG, INDEX}):
        if name not in a.files or name not in b.files:
            yield f"file {shown(name)}: only in {a.name if name in a.files else b.name}"
        elif not _same_bytes(a.files[name], b.files[name]):
            yield f"file {shown(name)}: differs"


def _same_bytes(a: Path, b: Path) -> bool:
    try:
        return a.read_bytes() == b.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror or error}") from error


def _tensor_difference(name: str, a: View, b: View, meter: Megabytes) -> str:
    mine, its = a.tensors[name], b.tensors[name]
    if (mine.dtype, mine.shape) != (its.dtype, its.shape):
        return f"is {mine.kind} and {its.kind}"
    itemsize = DTYPES[mine.dtype].itemsize
    differing, first, done = 0, None, 0
    for left, right in _aligned_chunks(a.chunks(name), b.chunks(name)):
        unequal = (left != right).reshape(-1, itemsize).any(axis=1)
        if count := int(unequal.sum()):
            first = done // itemsize + int(unequal.argmax()) if first is None else first
            differing += count
        done += len(left)
        meter.add(len(left))
    if first is None:
        return ""
    place = [int(axis) for axis in np.unravel_index(first, mine.shape)] if mine.shape else []
    return f"{differing:,} of {(mine.stop - mine.start) // itemsize:,} values differ, the first at {place}"


def _aligned_chunks(a: Iterator[np.ndarray], b: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pieces of equal length of two streams of bytes, whatever their own chunks."""
    left = right = np.empty(0, np.uint8)
    while True:
        left, right = left if len(left) else _next(a), right if len(right) else _next(b)
        count = min(len(left), len(right))
        if not count:
            return
        yield left[:count], right[:count]
        left, right = left[count:], right[count:]


def _next(chunks: Iterator[np.ndarray]) -> np.ndarray:
    return next((chunk.reshape(-1).view(np.uint8) for chunk in chunks if chunk.size), np.empty(0, np.uint8))


# ---- logits

CLOSE = 1e-4
"""Largest difference of float32 values that are the same but for rounding, as a share of the largest if above 1."""

MAX_WINDOW = 1024
"""Tokens of a sliding window up to which rows for the comparison are longer than it; transformers holds all scores."""


@dataclass(frozen=True)
class LogitComparison:
    """Logits of a model here and in transformers, both in float32, at random tokens.

    Attributes:
        largest_difference: between two logits.
        largest_logit: in absolute value, to judge it by.
        logits: how many were compared.
        length: tokens of each row.
        differing_layer: where they differ by more than rounding, the first layer whose output does, in words.
    """

    largest_difference: float
    largest_logit: float
    logits: int
    length: int
    differing_layer: str = ""

    @property
    def relative(self) -> float:
        """The difference as a share of the largest logit."""
        return self.largest_difference / self.largest_logit if self.largest_logit else self.largest_difference


def compare_with_transformers(
    directory: str | os.PathLike, rows: int = 2, length: int = 0, seed: int = 0
) -> LogitComparison:
    """Logits of the model in `directory` against those of its class in transformers, over whole rows from position 0.

    Where they differ by more than rounding, the hidden states are compared as well, layer by layer.

    Args:
        length: tokens of a row; 0 for 64, or 64 beyond a sliding window of up to `MAX_WINDOW`.

    Raises:
        UserError: transformers or PyTorch is not installed, or the model cannot be imported.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"the comparison needs PyTorch and transformers ({error}); install both") from error
    from hephaestus_jax.hf.importing import import_parameters
    from hephaestus_jax.model.decoder import abstract_parameters, output_logits

    model = open_checkpoint(directory).model
    if not length:
        length = 64 + (model.sliding_window if model.sliding_window <= MAX_WINDOW else 0)
    tokens = np.random.default_rng(seed).integers(0, model.vocab_size, (rows, min(length, model.max_positions)))
    params = import_parameters(directory, abstract_parameters(model), progress=False)
    ours = np.asarray(output_logits(params, model, _hidden_states(params, model, tokens)))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens)).logits.numpy()
    difference, largest = float(np.abs(ours - wanted).max()), float(np.abs(wanted).max())
    found = LogitComparison(difference, largest, wanted.size, tokens.shape[1])
    if found.largest_difference <= CLOSE * max(1.0, found.largest_logit):
        return found
    return replace(found, differing_layer=differing_layer(params, model, theirs, tokens))


def differing_layer(params: Any, model: ModelConfig, theirs: Any, tokens: np.ndarray) -> str:
    """The first layer whose output is not that of transformers' model, in words; empty if every layer's is.

    Compared is what the final norm makes of it, so that sizes do not matter.

    Args:
        params: imported from what `theirs` is.
        model: the architecture.
        theirs: model of transformers.
        tokens: [B, L], each row by itself from position 0.
    """
    import jax
    import torch

    with torch.no_grad():
        states = theirs.model(torch.tensor(tokens), output_hidden_states=True).hidden_states[1:]
        wanted = [theirs.model.norm(state).numpy() for state in states[:-1]] + [states[-1].numpy()]
    for number, kind in enumerate(model.layer_kinds):
        kinds = model.layer_kinds[: number + 1]
        window = model.sliding_window if "sliding" in kinds else 0
        first = replace(model, num_layers=number + 1, layer_pattern=kinds, sliding_window=window)
        layers = jax.tree.map(lambda values, count=number + 1: values[:count], params["layers"])
        ours = _hidden_states({**params, "layers": layers}, first, tokens)
        difference, largest = float(np.abs(ours - wanted[number]).max()), float(np.abs(wanted[number]).max())
        if not difference <= CLOSE * max(1.0, largest):
            return f"layer {number} of {model.num_layers} ({kind}): {difference:.2e} off, largest value {largest:.2f}"
    return ""


def _hidden_states(params: Any, model: ModelConfig, tokens: np.ndarray) -> Any:
    """After the final norm, float32 [B, L, D]."""
    import jax

    from hephaestus_jax.model.decoder import decode

    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    compute = ComputeConfig(dtype="float32")
    return jax.jit(decode, static_argnums=(1, 2))(params, model, compute, tokens, np.ones_like(tokens), positions)
