"""Exporting parameters as a Hugging Face model: streamed, tensor after tensor, into a folder that appears when whole.

Of a model that was imported, everything comes back: the same tensors in the same dtypes, files and order, the same
config fields in their spelling, tokenizer and other files. Untouched parameters give the same bytes. While a tensor is
written the next one is read, and no more than the two are in memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.checkpoint import tensor_bytes
from hephaestus_jax.hf.config_files import (
    CONFIG,
    DTYPE_NAMES,
    TokenIds,
    changed_config,
    fresh_config,
    json_bytes,
    same_architecture,
)
from hephaestus_jax.hf.export_journal import Journal, WholeFile, going_on
from hephaestus_jax.hf.families import Family, family_of
from hephaestus_jax.hf.families.weights import Index, Weight
from hephaestus_jax.hf.folders import copy_file, new_folder, write_file
from hephaestus_jax.hf.layout import (
    Megabytes,
    cast,
    dtype_name,
    holds,
    in_threads,
    is_finite,
    rearranged,
    row_chunks,
    scratch,
)
from hephaestus_jax.hf.origin import Origin
from hephaestus_jax.hf.safetensors_files import DTYPES, INDEX, Entry, Header, shown
from hephaestus_jax.hf.safetensors_writing import Shard, make_header, make_index, plan_shards, write_shard

MAX_SHARD_BYTES = 5_000_000_000
ExportDType = Literal["float32", "bfloat16", "float16"]
Read = Callable[[str, Index], np.ndarray]
"""Path of a parameter and index along its leading axes -> values there, which nobody changes any more."""

_METADATA = {"format": "pt"}  # transformers refuses files without it


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: where.
        weight_bytes: bytes of tensors.
        files: names of the weight files.
        notes: what a user should know, a sentence each: dtypes, what was rounded, what the origin had left out.
    """

    folder: Path
    weight_bytes: int
    files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ExportedTensors:
    """The tensors that an export writes, in the files' form, made when asked for.

    Attributes:
        model: the architecture.
        read: gives the parameters.
        origin: of the model, None for one that began here.
        dtype: of all weights; None for the origin's dtype of each, float32 without an origin.
        max_shard_bytes: of a file, where there is no origin.
        rounded: from which dtype to which values were changed so far.
    """

    model: ModelConfig
    read: Read
    origin: Origin | None = None
    dtype: ExportDType | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES
    rounded: set[str] = field(default_factory=set, compare=False)

    def __post_init__(self) -> None:
        if self.dtype not in (None, *DTYPE_NAMES.values()):
            raise UserError(f"dtype {self.dtype!r} is not written; known: {', '.join(DTYPE_NAMES.values())}")
        if self.origin is not None:
            _check_origin(self.origin, self.model)

    @functools.cached_property
    def family(self) -> Family:
        """Whose names and files these are."""
        return family_of(self.model) if self.origin is None else self.origin.config.family

    @property
    def shards(self) -> list[Shard]:
        """The files to write."""
        if self.origin is None:
            dtype = _format_name(self.dtype or "float32")
            tensors = {
                name: (dtype, weight.tensor_shape(self.model))
                for name, (weight, _) in self.family.tensor_places(self.model).items()
            }
            return plan_shards(tensors, self.max_shard_bytes, _METADATA)
        return [Shard(shard.file, self._header(shard.header)) for shard in self.origin.shards]

    @property
    def dtype_in_config(self) -> str | None:
        """The dtype that config.json should name; None where it should name the origin's."""
        if self.origin is None:
            return _format_name(self.dtype or "float32")
        same = all(mine.header is its.header for mine, its in zip(self.shards, self.origin.shards, strict=True))
        return None if same or self.dtype is None else _format_name(self.dtype)

    def _header(self, header: Header) -> Header:
        """The origin's header of one file, itself where all dtypes stay."""
        tensors = {
            name: (self._dtype_of(name, entry.dtype), entry.shape)
            for name, entry in sorted(header.entries.items(), key=lambda item: item[1].start)
        }
        same = all(tensors[name][0] == entry.dtype for name, entry in header.entries.items())
        return header if same else make_header(tensors, header.metadata)

    def _dtype_of(self, name: str, dtype: str) -> str:
        return dtype if self.dtype is None or self.family.is_buffer(name) else _format_name(self.dtype)

    def values(self, name: str) -> np.ndarray | None:
        """What a tensor is made of; None for one that is no parameter."""
        if self.origin is not None and name in self.origin.extra:
            return None
        weight, index = self._place(name)
        return self.read(weight.path, index)

    def _place(self, name: str) -> tuple[Weight, Index]:
        return self.family.tensor_places(self.model)[self.family.copies(self.model).get(name, name)]

    def chunks(self, name: str, dtype: str, ours: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """The bytes of a tensor in a dtype of the format, from first to last, in memory that is used for nothing else.

        Args:
            ours: what `values` gave; without, it is asked.

        Raises:
            UserError: a value is NaN or infinite, or does not fit the dtype.
        """
        if self.origin is not None and name in self.origin.extra:
            yield from tensor_bytes(self.origin.extra[name])
            return
        weight, index = self._place(name)
        ours = self.read(weight.path, index) if ours is None else ours
        shape = weight.split_shape(self.model)
        source = ours.transpose(weight.to_theirs)
        if source.shape != shape:
            raise ValueError(f"{weight.path} has shape {ours.shape}, rearranged {source.shape}, not {shape}")

        def convert(rows: range) -> np.ndarray:
            part = source[rows.start : rows.stop].transpose(weight.to_ours)
            near = scratch("near", part.shape, part.dtype)
            near[...] = part  # together first, since what lies far apart is slow to turn around
            return self._converted(rearranged(near, weight.to_theirs), DTYPES[dtype], name)

        yield from in_threads(convert, row_chunks(shape, ours.itemsize, range(shape[0])))

    def _converted(self, values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
        if not is_finite(values):
            raise UserError(f"tensor {name} holds NaN or infinity; export an earlier checkpoint of the run")
        converted = values.copy() if values.dtype == dtype else cast(values, dtype)
        if not holds(dtype, values.dtype):
            if not is_finite(converted):
                raise UserError(f"tensor {name} holds numbers too large for {dtype.name}; export with another dtype")
            if not np.array_equal(cast(converted, values.dtype, scratch("back", values.shape, values.dtype)), values):
                self.rounded.add(f"{values.dtype.name} to {dtype_name(dtype)}")
        return converted


def export_model(
    out: str | os.PathLike,
    model: ModelConfig,
    read: Read,
    origin: Origin | None = None,
    dtype: ExportDType | None = None,
    *,
    files: Mapping[str, bytes] | None = None,
    ids: TokenIds | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    source: str = "",
    progress: bool = True,
) -> Exported:
    """Writes a Hugging Face model to `out`, which appears whole or not at all.

    Args:
        out: a folder that is not there yet, or empty.
        model: the architecture.
        read: gives the parameters, a whole one, or one layer or expert of a stacked one; called by one thread at a
            time, which need not be the caller's.
        origin: of the model; None for one that began here.
        dtype: of all weights; None for the origin's dtype of each tensor, float32 without an origin.
        files: more files by name, such as those of a tokenizer; none that the origin has.
        ids: special tokens; only without an origin, which has its own.
        max_shard_bytes: where a new file begins, likewise.
        source: a digest of all that `read` gives. With it, an export that was killed, or failed, is gone on with: the
            same call keeps the weight files that are whole, by their own digests. Without, it begins anew.
        progress: whether progress is shown.

    Raises:
        UserError: `out` is taken or cannot be written, the origin is another model's, or a value is NaN or infinite or
            does not fit the dtype.
    """
    files = files or {}
    if origin is not None and (ids or not files.keys().isdisjoint(origin.files)):
        raise UserError(f"{origin.folder} has files and special tokens of its own; leave out those given")
    tensors = ExportedTensors(model, read, origin, dtype, max_shard_bytes)
    shards = tensors.shards
    total = sum(entry.stop - entry.start for shard in shards for entry in shard.header.entries.values())
    with new_folder(out, keep=bool(source)) as folder, Megabytes("export", total, progress) as meter:
        digest = _digest(tensors, shards, source) if source else ""
        with going_on(folder, digest, meter.add) as journal:
            kept = len(journal.whole)
            if origin is None:
                _write_fresh(folder, tensors, shards, ids or TokenIds())
            else:
                _write_carried(folder, tensors, shards, origin)
            for name, data in files.items():
                write_file(folder / name, data)
            _write_weights(folder, tensors, shards, journal, meter)
    journal.remove()
    notes = [*_notes(tensors, shards), *_resumed(journal, kept, len(shards))]
    return Exported(Path(out), total, tuple(shard.file for shard in shards), tuple(notes))


def _digest(tensors: ExportedTensors, shards: Sequence[Shard], source: str) -> str:
    """Another one where any byte of the weight files could be another."""
    extra = {} if tensors.origin is None else tensors.origin.extra
    facts = {
        "source": source,
        "model": repr(tensors.model),
        "family": tensors.family.model_type,
        "files": [[shard.file, hashlib.sha256(shard.header.raw).hexdigest()] for shard in shards],
        "extra": {name: [chunk.tobytes().hex() for chunk in tensor_bytes(extra[name])] for name in extra},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _write_weights(
    folder: Path, tensors: ExportedTensors, shards: Sequence[Shard], journal: Journal, meter: Megabytes
) -> None:
    """Writes the files that are not whole yet."""
    left = [shard for shard in shards if shard.file not in journal.whole]
    tensors.rounded.update(change for file in journal.whole.values() for change in file.rounded)
    names = [name for shard in left for name in shard.names]
    with ThreadPoolExecutor(1) as reader:
        ahead = _read_ahead(tensors, names, reader)
        for shard in left:
            entries = shard.header.entries

            def chunks_of(name: str, entries: Mapping[str, Entry] = entries) -> Iterator[np.ndarray]:
                for chunk in tensors.chunks(name, entries[name].dtype, next(ahead)):
                    yield chunk
                    meter.add(chunk.nbytes)

            sha256 = write_shard(folder, shard, chunks_of)
            journal.add(WholeFile(shard.file, shard.header.file_bytes, sha256, tuple(sorted(tensors.rounded))))


def _read_ahead(
    tensors: ExportedTensors, names: Sequence[str], reader: ThreadPoolExecutor
) -> Iterator[np.ndarray | None]:
    """What each tensor is made of, the next one being read meanwhile."""
    under_way = [reader.submit(tensors.values, name) for name in names[:1]]
    for name in [*names[1:], None]:
        values = under_way.pop().result()
        if name is not None:
            under_way.append(reader.submit(tensors.values, name))
        yield values
        del values  # before the next one is waited for


def _resumed(journal: Journal, kept: int, count: int) -> Iterator[str]:
    if kept:
        yield f"{kept} of {count} weight files were whole from an export that was interrupted, and were kept"
    if journal.other:
        yield "an interrupted export of another source, or with other settings, lay there and was cleared away"


def _format_name(dtype: str) -> str:
    return next(name for name, ours in DTYPE_NAMES.items() if ours == dtype)


def _check_origin(origin: Origin, model: ModelConfig) -> None:
    """Raises unless the origin's tensors are those of the model."""
    held = {name: entry.shape for shard in origin.shards for name, entry in shard.header.entries.items()}
    family = origin.config.family
    wanted = {name: weight.tensor_shape(model) for name, (weight, _) in family.tensor_places(model).items()}
    copies = family.copies(model)
    for name in [*wanted, *held]:
        known = name in wanted or name in copies or name in origin.extra
        if not known or (name in wanted and held.get(name) != wanted[name]):
            raise UserError(
                f"tensor {shown(name)}: the model of {origin.folder} is another one than that of these parameters"
                f" ({list(held.get(name, ())) or 'none'} against {list(wanted.get(name, ())) or 'none'}); export"
                " without it, or with the run's own"
            )


def _write_fresh(folder: Path, tensors: ExportedTensors, shards: list[Shard], ids: TokenIds) -> None:
    dtype = tensors.dtype_in_config
    assert dtype is not None
    write_file(folder / CONFIG, json_bytes(fresh_config(tensors.model, dtype, ids)))
    if len(shards) > 1:
        write_file(folder / INDEX, make_index(shards))


def _write_carried(folder: Path, tensors: ExportedTensors, shards: list[Shard], origin: Origin) -> None:
    dtype = tensors.dtype_in_config
    for file in origin.files:
        if file not in (CONFIG, INDEX):
            copy_file(origin.folder / file, folder / file)
    write_file(folder / CONFIG, changed_config(origin.config, tensors.model, dtype))
    if origin.index is not None:
        write_file(folder / INDEX, origin.index if dtype is None else make_index(shards, origin.index))


def _notes(tensors: ExportedTensors, shards: list[Shard]) -> Iterator[str]:
    dtypes = sorted({entry.dtype for shard in shards for entry in shard.header.entries.values()})
    source = "as in the origin" if tensors.origin is not None and tensors.dtype is None else "as asked for"
    if tensors.origin is None and tensors.dtype is None:
        source = "since no dtype was asked for"
    yield f"weights are written in {', '.join(dtypes)}, {source}"
    for change in sorted(tensors.rounded):
        yield f"values that {change} changes were rounded to nearest even"
    if tensors.origin is not None:
        if not same_architecture(tensors.origin.config.model, tensors.model):
            yield f"{CONFIG} was changed where the model differs from {tensors.origin.folder}"
        for left in tensors.origin.left_out:
            yield f"not carried along: {left}"
