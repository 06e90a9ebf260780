"""safetensors files, one or many: opened with every inconsistency named, and read by rows.

A file is an 8-byte little-endian length, that many bytes of JSON (name -> dtype, shape, data_offsets), and the tensors'
bytes end to end (https://github.com/huggingface/safetensors, "Format"). A model in several files has an index,
`model.safetensors.index.json`, whose `weight_map` says which file holds which tensor.

Files may be symbolic links, wherever they lead: Hugging Face's cache and git-annex keep folders of links. A name in the
index is another matter, since it comes with the download: it must be a plain name in the index's folder.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np

from hephaestus_jax.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # as the reference implementation
MAX_INDEX_BYTES = 1 << 30
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_), "U8": np.dtype(np.uint8), "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2), "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "U16": np.dtype(np.uint16), "I16": np.dtype(np.int16), "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16), "U32": np.dtype(np.uint32), "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32), "U64": np.dtype(np.uint64), "I64": np.dtype(np.int64), "F64": np.dtype(np.float64),
}  # fmt: skip
"""The format's names of dtypes."""


@dataclass(frozen=True)
class Entry:
    """What a header says of one tensor: dtype by the format's name, shape, and its bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def kind(self) -> str:
        """Dtype and shape, as in "BF16[8, 4]"."""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Header:
    """One file's header: its bytes as they lie there (without the length before them), and what they say."""

    raw: bytes
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]

    @property
    def file_bytes(self) -> int:
        """Size of the whole file."""
        return 8 + len(self.raw) + max((entry.stop for entry in self.entries.values()), default=0)


@dataclass(frozen=True)
class Tensor:
    """One tensor in a file; `start` and `stop` count from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    stop: int

    @property
    def place(self) -> str:
        """For messages: name and file."""
        return f"tensor {shown(self.name)} in {self.file}"

    @property
    def kind(self) -> str:
        """Dtype and shape, as in "BF16[8, 4]"."""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Tensors(Mapping[str, Tensor]):
    """Every tensor of a folder by name, in the order of files and of bytes in them.

    Attributes:
        directory: the folder.
        headers: file name -> header, sorted by name.
        index: the bytes of the index, None for a single file.
    """

    directory: Path
    headers: Mapping[str, Header]
    index: bytes | None
    tensors: Mapping[str, Tensor] = field(repr=False)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def shown(name: str) -> str:
    """A name from a file as it may stand in a one-line message: printable and not long."""
    text = name if name.isprintable() and name else ascii(name)
    return text if len(text) <= 120 else text[:117] + "..."


# ---- opening


def open_tensors(directory: str | os.PathLike) -> Tensors:
    """Reads the headers of a folder's model.safetensors, or of the files that its index names.

    Raises:
        UserError: there are none, or a file, a tensor or the index is not what it says, naming the first such.
    """
    folder = local_directory(directory)
    index = _read_index(folder)
    names = [SINGLE] if index is None else sorted(set(index[1].values()))
    headers = {name: read_header(folder / name) for name in names}
    tensors: dict[str, Tensor] = {}
    for file, header in headers.items():
        for name in sorted(header.entries, key=lambda name: header.entries[name].start):
            _require_place(name, folder / file, None if index is None else index[1])
            entry, base = header.entries[name], 8 + len(header.raw)
            tensors[name] = Tensor(name, entry.dtype, entry.shape, folder / file, base + entry.start, base + entry.stop)
    for name, file in (index[1] if index else {}).items():
        if name not in tensors:
            raise UserError(
                f"tensor {shown(name)} is not in {folder / file}, where {folder / INDEX} says it is; download both"
                " again"
            )
    return Tensors(folder, headers, None if index is None else index[0], tensors)


def local_directory(directory: str | os.PathLike) -> Path:
    """The folder at a path.

    Raises:
        UserError: it is a URL, not there, or not a folder.
    """
    text = os.fspath(directory)
    if "://" in text:
        raise UserError(f"{text} is not a local folder; Hugging Face directories are read from and written to local"
                        " disks, copy it there")  # fmt: skip
    path = Path(text).expanduser()
    if not path.is_dir():
        raise UserError(f"{path} is {'not a folder' if path.exists() else 'not there'}; give the folder of a model")
    return path


def _require_place(name: str, file: Path, weight_map: Mapping[str, str] | None) -> None:
    if weight_map is None or weight_map.get(name) == file.name:
        return
    said = f"there says {shown(weight_map[name])}" if name in weight_map else "does not name it"
    raise UserError(
        f"tensor {shown(name)} is in {file}, and {INDEX} {said}; download the files again, or mend the index"
    )


def _read_index(folder: Path) -> tuple[bytes, dict[str, str]] | None:
    """Bytes and weight map of the index; None where one model.safetensors is the whole model."""
    path = folder / INDEX
    if not path.exists():
        if not (folder / SINGLE).exists():
            raise UserError(_no_weights(folder))
        return None
    data = read_whole(path, MAX_INDEX_BYTES)
    value = parse_json(data, str(path))
    weight_map = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path} has no weight_map from tensors to files; download it again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _is_plain(file):
            raise UserError(
                f"{path} places tensor {shown(name)} in {ascii(file)[:120]}, which is no plain .safetensors name in"
                " its folder; a file elsewhere is not opened, mend the index"
            )
    missing = sorted({file for file in weight_map.values() if not (folder / file).exists()})
    if missing:
        held = [name for name, file in weight_map.items() if file == missing[0]]
        raise UserError(
            f"{folder / missing[0]} is missing, and with it tensor {shown(held[0])} and {len(held) - 1} more"
            f" ({len(missing)} of {len(set(weight_map.values()))} files are); download it again"
        )
    if (folder / SINGLE).exists() and SINGLE not in weight_map.values():
        raise UserError(f"{folder} holds two models, {SINGLE} and the files of {INDEX}; move one of them away")
    return data, weight_map


def _is_plain(file: str) -> bool:
    plain = os.path.basename(file) == file and "\\" not in file and file.isprintable()
    return plain and file.endswith(".safetensors") and not file.startswith(".")


def _no_weights(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    pickles = [name for name in names if name.endswith(PICKLES) or name.endswith(".bin.index.json")]
    others = [name for name in names if name.endswith(".safetensors")]
    if others:
        return f"{folder} has no {SINGLE} and no {INDEX}, only {shown(others[0])}; give the folder of a whole model"
    if pickles:
        return (
            f"{folder} holds its weights as PyTorch pickles only ({shown(pickles[0])}), which run code when opened and"
            " are refused; where you trust them, load and save them again as safetensors: transformers'"
            " AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
        )
    return f"{folder} has no weights, neither {SINGLE} nor {INDEX}; give the folder of a model, all of it downloaded"


def read_header(path: Path) -> Header:
    """The header of one file, checked against the file's size.

    Raises:
        UserError: the file cannot be read, is truncated, or its header is not a header.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(8)
            if first == b"version ":
                raise UserError(f"{path} is a Git LFS pointer in place of the file; run `git lfs pull` in its folder")
            length = int.from_bytes(first, "little")
            if len(first) == 8 and length <= min(size - 8, MAX_HEADER_BYTES):
                raw = _read_exactly(file.fileno(), 8, length, path)
            elif len(first) < 8 or length <= MAX_HEADER_BYTES:
                raise UserError(f"{path} is truncated: {size:,} bytes, less than its header; download it again")
            else:
                raise UserError(f"{path} is no safetensors file: a header of {length:,} bytes; download it again")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    header = parse_header(raw, str(path))
    if size < header.file_bytes:
        cut = [name for name, entry in header.entries.items() if 8 + length + entry.stop > size]
        raise UserError(
            f"{path} is truncated: {size:,} of {header.file_bytes:,} bytes, tensor {shown(cut[0])} and"
            f" {len(cut) - 1} more are cut; download it again"
        )
    if size > header.file_bytes:
        raise UserError(f"{path} has {size - header.file_bytes:,} bytes that belong to no tensor; download it again")
    return header


def parse_header(raw: bytes, where: str) -> Header:
    """The header of those bytes.

    Args:
        where: file, for messages.

    Raises:
        UserError: it is no header, or its tensors overlap, leave gaps or are not as long as they must be.
    """
    value = parse_json(raw, f"header of {where}")
    if not isinstance(value, dict):
        raise UserError(f"header of {where} is no JSON object; download the file again")
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise UserError(f"__metadata__ in {where} is not text by name; download the file again")
    entries = {name: _entry(name, item, where) for name, item in value.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            problem = "overlaps the tensor before it" if entry.start < end else "leaves a gap before it"
            raise UserError(f"tensor {shown(name)} in {where} {problem}; download the file again")
        end = entry.stop
    return Header(raw, entries, metadata)


def _entry(name: str, item: Any, where: str) -> Entry:
    place = f"tensor {shown(name)} in {where}"
    dtype, shape, offsets = (item.get(key) if isinstance(item, dict) else None for key in _KEYS)
    if not (isinstance(dtype, str) and _sizes(shape) and _sizes(offsets) and len(offsets) == 2):
        raise UserError(f"{place} has a damaged entry {ascii(item)[:120]} in the header; download the file again")
    if dtype not in DTYPES:
        raise UserError(f"{place} has dtype {shown(dtype)}, which is not read here; known: {', '.join(DTYPES)}")
    entry = Entry(dtype, tuple(shape), *offsets)
    if entry.stop - entry.start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise UserError(
            f"{place} is {shown(entry.kind)} and has {entry.stop - entry.start:,} bytes, which is not its size;"
            " download the file again"
        )
    return entry


_KEYS = ("dtype", "shape", "data_offsets")


def _sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def parse_json(data: bytes, where: str) -> Any:
    """JSON in which no object has a key twice.

    Raises:
        UserError: it is not.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
            raise UserError(f"{where} has {shown(twice)} twice; download the file again")
        return found

    if data.startswith(b"\xef\xbb\xbf"):
        raise UserError(f"{where} begins with a byte order mark; save it as UTF-8 without one")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where} is damaged: not JSON in UTF-8 ({reason}); download the file again") from error


# ---- reading


def read_tensor(tensor: Tensor, rows: slice | None = None) -> np.ndarray:
    """A tensor, or some rows of its first axis (`rows` has step 1), straight from the file.

    Raises:
        UserError: the file cannot be read, or has become shorter since it was opened.
    """
    first, last = (0, 1) if not tensor.shape else (rows or slice(None)).indices(tensor.shape[0])[:2]
    shape = (max(0, last - first), *tensor.shape[1:]) if tensor.shape else ()
    values = np.empty(shape, DTYPES[tensor.dtype])
    row_bytes = math.prod(tensor.shape[1:]) * values.itemsize
    read_runs(tensor, first * row_bytes, [(0, values.nbytes)], values.reshape(-1).view(np.uint8).data)
    return values


def read_runs(tensor: Tensor, first: int, runs: Iterable[Sequence[int]], memory: memoryview) -> None:
    """Reads some of a tensor's bytes to where they would be if `memory` held all that follow byte `first` of it.

    Args:
        runs: start and stop within the memory of what is read.

    Raises:
        UserError: as `read_tensor`.
    """
    try:
        descriptor, read, base = os.open(tensor.file, os.O_RDONLY), os.preadv, tensor.start + first
        try:
            for start, stop in runs:  # perhaps millions
                if read(descriptor, (memory[start:stop],), base + start) != stop - start:
                    _read_into(descriptor, base + start, memory[start:stop], tensor.file)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"cannot read {tensor.place}: {error.strerror or error}") from error


def _read_into(descriptor: int, start: int, memory: memoryview, path: Path) -> None:
    done = 0
    while done < len(memory):
        count = os.preadv(descriptor, [memory[done:]], start + done)
        if count == 0:
            raise UserError(f"{path} ended at byte {start + done:,} while it was read; it was changed or truncated")
        done += count


def _read_exactly(descriptor: int, start: int, length: int, path: Path) -> bytes:
    memory = bytearray(length)
    _read_into(descriptor, start, memoryview(memory), path)
    return bytes(memory)


def read_whole(path: Path, limit: int) -> bytes:
    """A file that is never large; raises `UserError` where it is, or cannot be read."""
    try:
        if path.stat().st_size > limit:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, more than such a file ever has; mend it")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
