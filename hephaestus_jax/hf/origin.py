"""The origin of a line of runs: all of a Hugging Face model but its weights, kept so that an export gives it back.

    FOLDER/config.json, tokenizer.json, …   the model's files as they were: configs, tokenizer, chat template, licence
    FOLDER/origin.json                      header of every weight file, byte for byte; what was left out
    FOLDER/extra_tensors.safetensors        tensors that are no parameters here (tables that old versions saved)

Left out, and named, are weights in other formats, hidden folders, links to folders and files above 128 MiB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.checkpoint import Checkpoint, open_checkpoint, tensor_bytes
from hephaestus_jax.hf.config_files import HFConfig, json_bytes, read_config
from hephaestus_jax.hf.folders import copy_file, new_folder, write_file
from hephaestus_jax.hf.safetensors_files import (
    INDEX,
    PICKLES,
    Header,
    Tensor,
    Tensors,
    local_directory,
    parse_header,
    parse_json,
    read_header,
)
from hephaestus_jax.hf.safetensors_writing import Shard, make_header, write_shard

ORIGIN, EXTRA = "origin.json", "extra_tensors.safetensors"
FORMAT = 1
MAX_FILE_BYTES = 128 << 20
_WEIGHTS = (*PICKLES, ".safetensors", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite")
_OURS = (ORIGIN, EXTRA)


@dataclass(frozen=True)
class Origin:
    """A kept origin.

    Attributes:
        folder: where it is kept.
        config: its config.json.
        shards: the weight files, with their headers byte for byte.
        index: the bytes of the index, None for a single file.
        extra: tensors that are no parameters here, in `folder`.
        files: paths of the other files, relative to `folder`.
        left_out: what was not kept, with the reason.
    """

    folder: Path
    config: HFConfig
    shards: tuple[Shard, ...]
    index: bytes | None
    extra: dict[str, Tensor]
    files: tuple[str, ...]
    left_out: tuple[str, ...]


def keep_origin(hf_directory: str | os.PathLike, folder: str | os.PathLike) -> Origin:
    """Keeps what an export needs beside the weights; `folder` appears whole or not at all, and replaces an older one.

    Args:
        hf_directory: a Hugging Face model, or a kept origin (which is copied).

    Raises:
        UserError: the model is not as it must be, or the folder cannot be written.
    """
    source = local_directory(hf_directory)
    local = os.fspath(folder)
    if "://" in local:
        raise UserError(f"{local} is not a local folder; the files of {source} are kept on local disks only")
    if (source / ORIGIN).exists():
        load_origin(source)
        with new_folder(local, replace=True) as temporary:
            for file in _walk(source)[0]:
                copy_file(source / file, temporary / file)
        return load_origin(local)
    checkpoint = open_checkpoint(source)
    carried, left_out = _walk(source, tuple(checkpoint.tensors.headers))
    taken = [name for name in _OURS if name in carried]
    if taken:
        raise UserError(f"{source / taken[0]} has a name that is needed here; rename it")
    with new_folder(local, replace=True) as temporary:
        for file in carried:
            copy_file(source / file, temporary / file)
        _write_extra(temporary, checkpoint)
        write_file(temporary / ORIGIN, json_bytes(_to_json(checkpoint, left_out)))
    return load_origin(local)


def load_origin(folder: str | os.PathLike) -> Origin:
    """What `keep_origin` kept.

    Raises:
        UserError: it is not there, or damaged.
    """
    path = local_directory(folder)
    try:
        data = (path / ORIGIN).read_bytes()
        index = (path / INDEX).read_bytes() if (path / INDEX).exists() else None
    except OSError as error:
        raise UserError(f"cannot read {path / ORIGIN}: {error.strerror or error}; import the model again") from error
    value = parse_json(data, str(path / ORIGIN))
    try:
        if value["format"] != FORMAT:
            raise UserError(f"{path / ORIGIN} has format {value['format']!r}, this version reads {FORMAT}; upgrade")
        shards = tuple(_shard(item, path) for item in value["shards"])
        left_out = tuple(str(item) for item in value["left_out"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path / ORIGIN} is damaged: no {error}; import the model again") from error
    carried = tuple(file for file in _walk(path)[0] if file not in _OURS)
    return Origin(path, read_config(path), shards, index, dict(_extra(path)), carried, left_out)


def carried_files(tensors: Tensors) -> list[str]:
    """Relative paths of the files of a Hugging Face model that an origin would keep."""
    return _walk(tensors.directory, tuple(tensors.headers))[0]


def _to_json(checkpoint: Checkpoint, left_out: list[str]) -> dict[str, Any]:
    shards = [{"file": file, "header": header.raw.decode()} for file, header in checkpoint.tensors.headers.items()]
    return {"format": FORMAT, "shards": shards, "left_out": left_out}


def _shard(item: Any, path: Path) -> Shard:
    if os.path.basename(item["file"]) != item["file"]:
        raise UserError(f"{path / ORIGIN} is damaged: file {ascii(item['file'])[:80]}; import the model again")
    return Shard(item["file"], parse_header(item["header"].encode(), f"{path / ORIGIN}, file {item['file']}"))


def _write_extra(folder: Path, checkpoint: Checkpoint) -> None:
    tensors = {name: checkpoint.tensors[name] for name in checkpoint.buffers}
    if tensors:
        header = make_header({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}, {})
        write_shard(folder, Shard(EXTRA, header), lambda name: tensor_bytes(tensors[name]))


def _extra(path: Path) -> Iterator[tuple[str, Tensor]]:
    if (path / EXTRA).exists():
        header: Header = read_header(path / EXTRA)
        base = 8 + len(header.raw)
        for name, entry in header.entries.items():
            yield name, Tensor(name, entry.dtype, entry.shape, path / EXTRA, base + entry.start, base + entry.stop)


def _walk(folder: Path, weights: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """Relative paths of the files to keep, and what to leave out, with the reason; `weights` belong to neither."""
    keep, leave = [], []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        for name in [name for name in folders if name.startswith(".") or (here / name).is_symlink()]:
            folders.remove(name)
            kind = "a hidden folder" if name.startswith(".") else "a link to a folder"
            leave.append(f"{(here / name).relative_to(folder)}: {kind}")
        folders.sort()
        for name in sorted(files):
            path = here / name
            relative = str(path.relative_to(folder))
            if relative in weights:
                continue
            reason = None if relative in _OURS else _reason_to_leave(path)
            if reason:
                leave.append(f"{relative}: {reason}")
            else:
                keep.append(relative)
    return keep, leave


def _reason_to_leave(path: Path) -> str:
    """Why a file is not kept; empty if it is."""
    if path.name == INDEX:
        return ""
    if path.name == "evaluation.json":
        return "figures of these weights, not of those that training makes"
    if path.name.endswith((*_WEIGHTS, ".bin.index.json", ".safetensors.index.json")):
        return "weights of another format, or of another model"
    if not path.is_file():
        return "no file, or a link to none"
    if path.stat().st_size > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES >> 20} MiB"
    return ""
