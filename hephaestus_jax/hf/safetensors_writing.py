"""Writing safetensors files: planned first, since a header comes before its tensors, then written in one pass."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.safetensors_files import DTYPES, SINGLE, Entry, Header

_AHEAD = 4  # chunks whose digest is still to be taken


@dataclass(frozen=True)
class Shard:
    """A file to be written: its name and its header."""

    file: str
    header: Header

    @property
    def names(self) -> list[str]:
        """Its tensors, in their order."""
        return sorted(self.header.entries, key=lambda name: self.header.entries[name].start)


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


def write_shard(folder: Path, shard: Shard, chunks_of: Callable[[str], Iterable[np.ndarray]]) -> str:
    """Writes one file, tensor after tensor, and waits until it lies on disk; the SHA-256 of what was written.

    Args:
        chunks_of: name -> iterable of contiguous arrays that hold the tensor's bytes from first to last, in memory that
            nobody writes to afterwards.

    Raises:
        UserError: it cannot be written.
        ValueError: a tensor's chunks are not as long as the header says.
    """
    path, entries = folder / shard.file, shard.header.entries
    try:
        with open(path, "xb", buffering=0) as file, _Writer(file) as writer:
            writer.write(len(shard.header.raw).to_bytes(8, "little") + shard.header.raw)
            for name in shard.names:
                before = writer.written
                for chunk in chunks_of(name):
                    writer.write(chunk.reshape(-1).view(np.uint8).data)
                if writer.written - before != entries[name].stop - entries[name].start:
                    raise ValueError(f"tensor {name}: {writer.written - before} bytes for {entries[name].kind}")
            os.fsync(file.fileno())
            return writer.sha256()
    except OSError as error:
        raise UserError(f"cannot write {path}: {write_problem(error)}") from error


class _Writer:
    """Writes to a file what a thread takes the digest of meanwhile."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._thread, self._under_way = ThreadPoolExecutor(1), deque[Future[None]]()
        self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        view, done = memoryview(data), 0
        self._under_way.append(self._thread.submit(self._digest.update, view))
        while done < len(view):
            done += self._file.write(view[done:]) or 0
        self.written += done
        if len(self._under_way) > _AHEAD:
            self._under_way.popleft().result()

    def sha256(self) -> str:
        """Of all that was written."""
        for update in self._under_way:
            update.result()
        return self._digest.hexdigest()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()


def write_problem(error: OSError) -> str:
    """Why a file could not be written, and the mend."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{error.strerror or error}; {'make room' if full else 'mend that'} and start again"
