"""Writing safetensors files: planned first, since a header comes before its tensors, then written in one pass."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.safetensors_files import DTYPES, SINGLE, Entry, Header


@dataclass(frozen=True)
class Shard:
    """A file to be written: its name and its header."""

    file: str
    header: Header


def make_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> Header:
    """The header of a file that holds those tensors (name -> dtype and shape) in that order, end to end."""
    entries, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * DTYPES[dtype].itemsize
        entries[name] = Entry(dtype, tuple(shape), start, end)
    value: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, entry in entries.items():
        value[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.start, entry.stop]}
    raw = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Header(raw + b" " * (-len(raw) % 8), entries, metadata)  # padded, so that tensors are aligned


def plan_shards(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], max_shard_bytes: int, metadata: Mapping[str, str]
) -> list[Shard]:
    """Files for those tensors in that order, a new one where the next tensor would exceed `max_shard_bytes`."""
    groups: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    filled = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * DTYPES[dtype].itemsize
        if groups[-1] and filled + size > max_shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = (dtype, shape)
        filled += size
    count = len(groups)
    names = [SINGLE] if count == 1 else [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    return [Shard(name, make_header(group, metadata)) for name, group in zip(names, groups, strict=True)]


def make_index(shards: Iterable[Shard], old: bytes | None = None) -> bytes:
    """The index of those files, as transformers writes it.

    Args:
        old: an index whose other metadata are kept.
    """
    metadata: dict[str, Any] = dict(json.loads(old).get("metadata") or {}) if old else {}
    shards = list(shards)
    entries = {name: (entry, shard.file) for shard in shards for name, entry in shard.header.entries.items()}
    metadata["total_size"] = sum(entry.stop - entry.start for entry, _ in entries.values())
    value = {"metadata": metadata, "weight_map": {name: entries[name][1] for name in sorted(entries)}}
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_shard(folder: Path, shard: Shard, chunks_of: Callable[[str], Iterable[np.ndarray]]) -> None:
    """Writes one file, tensor after tensor, and waits until it lies on disk.

    Args:
        chunks_of: name -> iterable of contiguous arrays that hold the tensor's bytes from first to last.

    Raises:
        UserError: it cannot be written.
        ValueError: a tensor's chunks are not as long as the header says.
    """
    path = folder / shard.file
    try:
        with open(path, "xb", buffering=0) as file:
            _write_all(file, len(shard.header.raw).to_bytes(8, "little") + shard.header.raw)
            for name in sorted(shard.header.entries, key=lambda name: shard.header.entries[name].start):
                written = 0
                for chunk in chunks_of(name):
                    written += _write_all(file, chunk)
                entry = shard.header.entries[name]
                if written != entry.stop - entry.start:
                    raise ValueError(f"tensor {name}: {written} bytes for {entry.kind}")
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write {path}: {write_problem(error)}") from error


def _write_all(file: Any, data: Any) -> int:
    view = memoryview(data).cast("B") if isinstance(data, bytes) else memoryview(data.reshape(-1).view(np.uint8))
    done = 0
    while done < len(view):
        done += file.write(view[done:])
    return len(view)


def write_problem(error: OSError) -> str:
    """Why a file could not be written, and the mend."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{error.strerror or error}; {'make room' if full else 'mend that'} and start again"
