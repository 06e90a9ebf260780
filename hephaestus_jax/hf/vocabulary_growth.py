"""A larger vocabulary for a Hugging Face model: new tokens, and rows of the embedding and the output projection.

A new row is the mean of the rows of the old tokens. Whatever the model says next, a new token is then at most as likely
as an old one is on average (Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021), so that
the old ones lose next to nothing. The rows may be padded to a multiple, which divides over a mesh; padding rows are the
same mean, and `unpadded` takes them out of an export.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.added_tokens import AddedTokens, add_tokens
from hephaestus_jax.hf.checkpoint import Checkpoint, open_checkpoint, tensor_bytes
from hephaestus_jax.hf.config_files import CONFIG, changed_config, json_bytes
from hephaestus_jax.hf.families import family_of
from hephaestus_jax.hf.folders import copy_file, new_folder, write_file
from hephaestus_jax.hf.layout import Megabytes, cast, is_finite, row_chunks
from hephaestus_jax.hf.origin import Origin, carried_files
from hephaestus_jax.hf.safetensors_files import DTYPES, INDEX, Header, Tensor, parse_json, read_tensor
from hephaestus_jax.hf.safetensors_writing import Shard, make_header, make_index, write_shard

GROWTH = "vocabulary_growth.json"
FORMAT = 1
MAX_NEW_TOKENS = 1 << 20
_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{7,64})(?:/|$)")


@dataclass(frozen=True)
class Grown:
    """What a growth made.

    Attributes:
        folder: the new model.
        ids: of the new tokens.
        tokenizer_size: ids of the tokenizer now.
        old_rows, rows: of the embedding, padding among them.
        weight_bytes: bytes of tensors written.
        notes: what a user should know, a sentence each.
    """

    folder: Path
    ids: Mapping[str, int]
    tokenizer_size: int
    old_rows: int
    rows: int
    weight_bytes: int
    notes: tuple[str, ...]


def grow_vocabulary(
    source: str | os.PathLike,
    out: str | os.PathLike,
    tokens: Sequence[str] = (),
    multiple: int = 1,
    special: bool = True,
    files: Mapping[str, bytes] | None = None,
    progress: bool = True,
) -> Grown:
    """Writes the Hugging Face model in `source` with a larger vocabulary to `out`, which appears whole or not at all.

    Streamed: memory for a few MiB of a tensor at a time. All other tensors and files are as they were; so are the rows
    of the old tokens, bit for bit.

    Args:
        tokens: new ones, whose ids follow the tokenizer's; none to give rows to what it has, or to pad only.
        multiple: of the rows, which padding makes up.
        special: of the new tokens; see `add_tokens`.
        files: more files by name, such as a chat template; each instead of the model's own, if it has one.
        progress: whether progress is shown.

    Raises:
        UserError: the model is not as it must be, a token is taken, or `out` is or cannot be written.
    """
    if not 0 < multiple <= MAX_NEW_TOKENS or len(tokens) > MAX_NEW_TOKENS:
        raise UserError(f"multiple {multiple:,} and {len(tokens):,} new tokens; both are 1 to {MAX_NEW_TOKENS:,}")
    checkpoint = open_checkpoint(source, tokenizer_fits=False)
    folder, model = checkpoint.tensors.directory, checkpoint.model
    added = add_tokens(folder, tokens, special)
    rows = -(-max(model.vocab_size, added.size) // multiple) * multiple
    larger = replace(model, vocab_size=rows)
    grown = _Rows.of(checkpoint, added, rows)
    shards = [Shard(file, _resized(header, grown.names, rows)) for file, header in checkpoint.tensors.headers.items()]
    total = sum(entry.stop - entry.start for shard in shards for entry in shard.header.entries.values())
    files = {**(files or {}), **added.files, GROWTH: _record(folder, added, model.vocab_size, rows, multiple)}
    carried = [file for file in carried_files(checkpoint.tensors) if file not in (CONFIG, INDEX, *files)]
    with new_folder(out) as temporary:
        for file in carried:
            copy_file(folder / file, temporary / file)
        for name, data in files.items():
            write_file(temporary / name, data)
        write_file(temporary / CONFIG, changed_config(checkpoint.config, larger, None))
        if checkpoint.tensors.index is not None:
            write_file(temporary / INDEX, make_index(shards, checkpoint.tensors.index))
        with Megabytes("grow", total, progress) as meter:
            for shard in shards:
                write_shard(temporary, shard, lambda name: _metered(grown.chunks(name), meter))
    notes = (*checkpoint.notes, *added.notes, *_notes(added, model.vocab_size, rows))
    return Grown(Path(out), added.ids, added.size, model.vocab_size, rows, total, notes)


@dataclass(frozen=True)
class _Rows:
    """The tensors of the larger model.

    Attributes:
        checkpoint: the old one.
        names: of the tensors with a row for each token.
        known: rows of old tokens.
        new: rows up to here are of tokens; old rows behind them are padding, and stay.
        rows: of the larger model.
    """

    checkpoint: Checkpoint
    names: frozenset[str]
    known: int
    new: int
    rows: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, added: AddedTokens, rows: int) -> _Rows:
        model = checkpoint.model
        named = {weight.tensor for weight in checkpoint.family.weights(model) if weight.theirs[0] == "V"}
        named |= {copy for copy, original in checkpoint.copies.items() if original in named}
        return cls(checkpoint, frozenset(named), min(added.old_size, model.vocab_size), added.size, rows)

    def chunks(self, name: str) -> Iterator[np.ndarray]:
        """The bytes of a tensor from first to last."""
        tensor = self.checkpoint.tensors[name]
        if name not in self.names:
            yield from tensor_bytes(tensor)
            return
        old = tensor.shape[0]
        replaced = min(self.new, old)  # old padding becomes rows of tokens up to here
        mean = self._mean(tensor)
        yield from _rows_of(tensor, range(self.known))
        yield from _repeated(mean, replaced - self.known)
        yield from _rows_of(tensor, range(replaced, old))
        yield from _repeated(mean, self.rows - old)

    def _mean(self, tensor: Tensor) -> np.ndarray:
        """The mean of the old tokens' rows [1, …], added up in float64."""
        total = np.zeros(tensor.shape[1:], np.float64)
        for values in _rows_of(tensor, range(self.known)):
            if not is_finite(values):
                raise UserError(f"{tensor.place} holds NaN or infinity; download it again")
            total += values.sum(0, dtype=np.float64)
        mean = (total / self.known).astype(np.float32)
        return cast(mean, DTYPES[tensor.dtype])[None]


def _rows_of(tensor: Tensor, rows: range) -> Iterator[np.ndarray]:
    for part in row_chunks(tensor.shape, DTYPES[tensor.dtype].itemsize, rows):
        yield read_tensor(tensor, slice(part.start, part.stop))


def _repeated(row: np.ndarray, count: int) -> Iterator[np.ndarray]:
    for part in row_chunks((count, *row.shape[1:]), row.dtype.itemsize, range(count)):
        yield np.repeat(row, len(part), axis=0)


def _metered(chunks: Iterator[np.ndarray], meter: Megabytes) -> Iterator[np.ndarray]:
    for chunk in chunks:
        yield chunk
        meter.add(chunk.nbytes)


def _resized(header: Header, names: frozenset[str], rows: int) -> Header:
    """A file's header with that many rows in the tensors of those names; itself where it has none of them."""
    entries = sorted(header.entries.items(), key=lambda item: item[1].start)
    tensors = {name: (e.dtype, (rows, *e.shape[1:]) if name in names else e.shape) for name, e in entries}
    if all(tensors[name][1] == entry.shape for name, entry in entries):
        return header
    return make_header(tensors, header.metadata)


def _record(folder: Path, added: AddedTokens, old_rows: int, rows: int, multiple: int) -> bytes:
    """What was done, for people and for the model card, after what was done before."""
    name, revision = hub_name(str(folder.absolute()))
    growth = {
        "source": f"{name}@{revision}" if name else folder.absolute().name,
        "tokens": dict(added.ids),
        "initialised": f"mean of the rows of the {min(added.old_size, old_rows):,} tokens before",
        "tokenizer_size": added.size,
        "rows_before": old_rows,
        "rows": rows,
        "multiple": multiple,
    }
    return json_bytes({"format": FORMAT, "growths": [*read_growths(folder), growth]})


def read_growths(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """What was done to the vocabulary of a model before, oldest first.

    Raises:
        UserError: the record is damaged.
    """
    path = Path(folder) / GROWTH
    if not path.exists():
        return []
    value = parse_json(path.read_bytes(), str(path))
    growths = value.get("growths") if isinstance(value, dict) and value.get("format") == FORMAT else None
    if not isinstance(growths, list) or not all(isinstance(growth, dict) for growth in growths):
        raise UserError(f"{path} is not as it was written; put it back, or take it away")
    return growths


def hub_name(path: str) -> tuple[str, str]:
    """Name on the Hub and revision of a model that lies in the Hub's cache; "" and "" for other folders."""
    if (found := _HUB_CACHE.search(path)) is None:
        return "", ""
    return f"{found[1]}/{found[2]}", found[3]


def _notes(added: AddedTokens, old_rows: int, rows: int) -> Iterator[str]:
    if old_rows > added.old_size:
        taken = min(added.size, old_rows) - added.old_size
        yield f"the embedding had {old_rows - added.old_size:,} rows without a token; {taken:,} of them have one now"
    elif old_rows < added.old_size:
        yield f"the tokenizer had {added.old_size - old_rows:,} ids without a row; they have one now"
    if rows > added.size:
        yield f"{rows - added.size:,} rows are padding; an export with --unpad_vocabulary leaves them out"


# ---- the way back

Read = Callable[[str, Any], np.ndarray]  # as in `exporting`


def unpadded(
    model: ModelConfig, read: Read, origin: Origin | None, size: int
) -> tuple[ModelConfig, Read, Origin | None]:
    """What `export_model` takes, for a vocabulary of the first `size` rows.

    Raises:
        UserError: the model has fewer rows.
    """
    if size > model.vocab_size:
        raise UserError(
            f"the tokenizer has {size:,} ids, the embedding {model.vocab_size:,} rows; a tokenizer that grew after"
            " training is another one than the model learned"
        )
    if size == model.vocab_size:
        return model, read, origin
    family = family_of(model) if origin is None else origin.config.family
    weights = [weight for weight in family.weights(model) if "V" in weight.ours]
    axes = {weight.path: weight.ours.index("V") for weight in weights}

    def read_rows(path: str, index: Any = None) -> np.ndarray:
        values = read(path, index)
        if path not in axes:
            return values
        return values[(slice(None),) * axes[path] + (slice(size),)]

    smaller = replace(model, vocab_size=size)
    if origin is None:
        return smaller, read_rows, None
    names = {weight.tensor for weight in weights}
    names |= {copy for copy, original in family.copies(model).items() if original in names}
    shards = tuple(Shard(shard.file, _resized(shard.header, frozenset(names), size)) for shard in origin.shards)
    index = None if origin.index is None else make_index(shards, origin.index)
    return smaller, read_rows, replace(origin, shards=shards, index=index)
