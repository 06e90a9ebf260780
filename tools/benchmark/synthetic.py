"""Hugging Face models made up for benchmarks: of any shape, in bfloat16, of random finite bits, perhaps sparse."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hephaestus_jax.config import MODEL_PARTS, ModelConfig
from hephaestus_jax.gin_files import load_gin
from hephaestus_jax.hf.config_files import CONFIG, TokenIds, fresh_config, json_bytes
from hephaestus_jax.hf.families import family_of
from hephaestus_jax.hf.layout import Megabytes
from hephaestus_jax.hf.safetensors_files import INDEX, Entry
from hephaestus_jax.hf.safetensors_writing import Shard, make_index, plan_shards, write_shard

MAX_SHARD_BYTES = 5_000_000_000
_PAGE = 4096
_BITS = 8 << 20


def load_model(gin_file: str) -> ModelConfig:
    """The model of a gin file."""
    return load_gin(ModelConfig, gin_file, also=MODEL_PARTS)


def make_up(folder: Path, model: ModelConfig, sparse: bool = False) -> None:
    """Writes a model of random finite bits.

    Args:
        folder: new.
        sparse: whether only the first and the last page of each tensor are written, and the rest is holes: zeros that
            take no place on the disk.
    """
    bits = np.random.default_rng(0).integers(0, 1 << 16, _BITS, np.uint16) & 0xBFFF  # exponents below infinity's
    places = family_of(model).tensor_places(model)
    tensors = {name: ("BF16", weight.tensor_shape(model)) for name, (weight, _) in places.items()}
    shards = plan_shards(tensors, MAX_SHARD_BYTES, {"format": "pt"})
    folder.mkdir()
    (folder / CONFIG).write_bytes(json_bytes(fresh_config(model, "BF16", TokenIds())))
    if len(shards) > 1:
        (folder / INDEX).write_bytes(make_index(shards))
    with Megabytes("make up", 2 * model.num_parameters, shown=True) as meter:
        for shard in shards:
            if sparse:
                _write_holes(folder / shard.file, shard, bits)
                meter.add(shard.header.file_bytes)
            else:
                _write_bits(folder, shard, bits, meter)


def _write_bits(folder: Path, shard: Shard, bits: np.ndarray, meter: Megabytes) -> None:
    def chunks_of(name: str) -> Iterator[np.ndarray]:
        left, offset = _size(shard.header.entries[name]) // 2, _offset(name)
        while left:
            chunk = bits[offset : offset + left]
            yield chunk
            meter.add(chunk.nbytes)
            left, offset = left - len(chunk), 0

    write_shard(folder, shard, chunks_of)


def _write_holes(path: Path, shard: Shard, bits: np.ndarray) -> None:
    data = 8 + len(shard.header.raw)
    with open(path, "xb") as file:
        file.write(len(shard.header.raw).to_bytes(8, "little") + shard.header.raw)
        file.truncate(shard.header.file_bytes)
        for name, entry in shard.header.entries.items():
            page = bits[_offset(name) :][: min(_PAGE, _size(entry)) // 2].tobytes()
            for place in (entry.start, entry.stop - len(page)):
                file.seek(data + place)
                file.write(page)
        file.flush()
        os.fsync(file.fileno())


def _size(entry: Entry) -> int:
    return entry.stop - entry.start


def _offset(name: str) -> int:
    """Where in the random bits a tensor begins, so that no two are the same."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") % (_BITS // 2)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of a model's weight files."""
    found = {}
    for path in weight_files(folder):
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def weight_files(folder: Path) -> list[Path]:
    """By name."""
    return sorted(folder.glob("*.safetensors"))
