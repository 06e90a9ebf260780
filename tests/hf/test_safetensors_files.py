"""safetensors files against the reference implementation, and damaged or hostile ones."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_models import safetensors

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.checkpoint import tensor_bytes
from hephaestus_jax.hf.safetensors_files import DTYPES, INDEX, open_tensors, parse_header, read_header, read_tensor
from hephaestus_jax.hf.safetensors_writing import Shard, make_header, make_index, plan_shards, write_shard

ARRAYS = {
    "b": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a": np.arange(10, dtype=ml_dtypes.bfloat16).reshape(5, 2),
    "scalar": np.array(3.5, np.float16),
    "nothing": np.zeros((0, 7), np.int64),
    "naïve/名": np.array([[1, 2], [3, 4]], np.int8),
}


def one_file(folder, data):
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(data)
    return folder


def refused(folder) -> str:
    with pytest.raises(UserError) as caught:
        tensors = open_tensors(folder)
        for name in tensors:
            read_tensor(tensors[name])
    message = str(caught.value)
    assert "\n" not in message and message.isprintable() and len(message) < 600, message
    return message


def with_header(header, data=b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def test_reads_what_the_reference_wrote(tmp_path):
    tensors = open_tensors(one_file(tmp_path, safetensors.save(ARRAYS, {"format": "pt"})))
    assert set(tensors) == set(ARRAYS)
    for name, array in ARRAYS.items():
        read = read_tensor(tensors[name])
        assert read.dtype == array.dtype and read.shape == array.shape
        assert read.tobytes() == array.tobytes() == b"".join(part.tobytes() for part in tensor_bytes(tensors[name]))
    np.testing.assert_array_equal(read_tensor(tensors["b"], slice(1, 3)), ARRAYS["b"][1:3])
    assert read_tensor(tensors["b"], slice(2, 2)).shape == (0, 4)
    assert tensors.headers["model.safetensors"].metadata == {"format": "pt"}


def test_the_reference_reads_what_is_written(tmp_path):
    kinds = {name: (_name(array.dtype), array.shape) for name, array in ARRAYS.items()}
    sha256 = write_shard(tmp_path, Shard("x", make_header(kinds, {"format": "pt"})), lambda name: [ARRAYS[name]])
    data = (tmp_path / "x").read_bytes()
    assert sha256 == hashlib.sha256(data).hexdigest()
    header = read_header(tmp_path / "x")
    assert header.file_bytes == len(data) and header.metadata == {"format": "pt"}
    assert (8 + len(header.raw)) % 8 == 0
    with pytest.importorskip("safetensors").safe_open(tmp_path / "x", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        for name in ("b", "scalar", "nothing", "naïve/名"):  # its numpy side does not read bfloat16
            np.testing.assert_array_equal(file.get_tensor(name), ARRAYS[name])
        assert file.get_slice("a").get_shape() == [5, 2] and file.get_slice("a").get_dtype() == "BF16"


def _name(dtype):
    return next(name for name, ours in DTYPES.items() if ours == dtype)


def test_a_tensor_that_is_not_as_long_as_planned_is_a_mistake_of_the_caller(tmp_path):
    header = make_header({"a": ("F32", (4,))}, {})
    with pytest.raises(ValueError, match="tensor a: 12 bytes"):
        write_shard(tmp_path, Shard("x", header), lambda name: [np.zeros(3, np.float32)])


def test_shards_are_cut_where_the_next_tensor_would_not_fit():
    kinds = {str(n): ("F32", (size,)) for n, size in enumerate([2, 2, 1, 9, 1, 1])}
    shards = plan_shards(kinds, 16, {})
    assert [list(shard.header.entries) for shard in shards] == [["0", "1"], ["2"], ["3"], ["4", "5"]]
    assert shards[1].file == "model-00002-of-00004.safetensors"
    index = json.loads(make_index(shards, b'{"metadata": {"note": "kept", "total_size": 3}}'))
    assert index["metadata"] == {"note": "kept", "total_size": 64}
    assert index["weight_map"]["3"] == shards[2].file
    assert [shard.file for shard in plan_shards(kinds, 1 << 30, {})] == ["model.safetensors"]


# ---- damage

GOOD = safetensors.save({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "v": np.ones(2, np.float16)})


@pytest.mark.parametrize("size", [0, 3, 8, 20, len(GOOD) - 20, len(GOOD) - 1])
def test_a_truncated_file_is_named(tmp_path, size):
    message = refused(one_file(tmp_path, GOOD[:size]))
    assert "model.safetensors is truncated" in message
    if size > len(GOOD) - 28:
        assert "tensor v" in message or "tensor w" in message


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "header of 2⁶⁴ - 1 bytes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "header of 99 MB in 10 bytes": struct.pack("<Q", 99_000_000) + b"{}",
    "not JSON": with_header(b"{'w': 1}"),
    "not UTF-8": with_header(b'{"\xff": 1}'),
    "nested without end": with_header(b'{"a":' * 50_000),
    "a list": with_header([]),
    "a number of 9,999 digits": with_header(b'{"w": ' + b"9" * 9999 + b"}"),
    "no object": with_header({"w": 3}),
    "no dtype": with_header({"w": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "dtype unknown": with_header({"w": ENTRY | {"dtype": "F128"}}, bytes(8)),
    "dtype a list": with_header({"w": ENTRY | {"dtype": ["F32"]}}, bytes(8)),
    "negative size": with_header({"w": ENTRY | {"shape": [-2]}}, bytes(8)),
    "negative sizes": with_header({"w": ENTRY | {"shape": [-2, -1]}}, bytes(8)),
    "size true": with_header({"w": ENTRY | {"shape": [True, 2]}}, bytes(8)),
    "size 2.0": with_header({"w": ENTRY | {"shape": [2.0]}}, bytes(8)),
    "negative offset": with_header({"w": ENTRY | {"data_offsets": [-8, 0]}}, bytes(8)),
    "offsets backwards": with_header({"w": ENTRY | {"data_offsets": [8, 0]}}, bytes(8)),
    "three offsets": with_header({"w": ENTRY | {"data_offsets": [0, 8, 8]}}, bytes(8)),
    "huge offsets": with_header({"w": ENTRY | {"shape": [2**60], "data_offsets": [0, 2**62]}}, bytes(8)),
    "sizes that overflow": with_header({"w": ENTRY | {"shape": [2**62, 2**62, 0], "data_offsets": [0, 8]}}, bytes(8)),
    "size and offsets differ": with_header({"w": ENTRY | {"shape": [3]}}, bytes(8)),
    "overlap": with_header({"w": ENTRY, "v": ENTRY | {"data_offsets": [4, 12]}}, bytes(12)),
    "the same bytes twice": with_header({"w": ENTRY, "v": ENTRY}, bytes(8)),
    "a gap": with_header({"w": ENTRY, "v": ENTRY | {"data_offsets": [9, 17]}}, bytes(17)),
    "a gap at the start": with_header({"w": ENTRY | {"data_offsets": [8, 16]}}, bytes(16)),
    "bytes of no tensor": with_header({"w": ENTRY}, bytes(9)),
    "one name twice": with_header(b'{"w": %s, "w": %s}' % ((json.dumps(ENTRY).encode(),) * 2), bytes(8)),
    "metadata no text": with_header({"__metadata__": {"a": 1}, "w": ENTRY}, bytes(8)),
    "a name of control characters": with_header({"w\n\x1b[31m": ENTRY | {"shape": [3]}}, bytes(8)),
    "a name of 100,000 letters": with_header({"w" * 100_000: ENTRY | {"shape": [3]}}, bytes(8)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, name):
    message = refused(one_file(tmp_path, HOSTILE[name]))
    assert "model.safetensors" in message
    if name != "one name twice":  # the reference takes the last
        with pytest.raises(pytest.importorskip("safetensors").SafetensorError):
            safetensors.load(HOSTILE[name])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.booleans())
@example(8, 0x20, True)
def test_any_damaged_byte_of_the_header_gives_a_header_or_one_line(place, byte, insert):
    data = GOOD[:place] + bytes([byte]) + GOOD[place + (not insert) :]
    length = int.from_bytes(data[:8], "little")
    try:
        header = parse_header(data[8 : 8 + min(length, 1000)], "file")
    except UserError as error:
        assert "\n" not in str(error)
        return
    spans = sorted((entry.start, entry.stop) for entry in header.entries.values())
    assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))


# ---- several files


def sharded(folder, weight_map=None):
    folder.mkdir(exist_ok=True)
    (folder / "one.safetensors").write_bytes(safetensors.save({"a": ARRAYS["b"], "b": ARRAYS["b"]}))
    (folder / "two.safetensors").write_bytes(safetensors.save({"c": ARRAYS["b"]}))
    index = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}
    index["weight_map"] = {k: v for k, v in (index["weight_map"] | (weight_map or {})).items() if v is not None}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_shards_and_links_to_them_are_opened(tmp_path):
    """A snapshot of Hugging Face's cache holds nothing but links."""
    blobs = sharded(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    tensors = open_tensors(snapshot)
    assert {name: tensor.file.name for name, tensor in tensors.items()} == {
        "a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"
    }  # fmt: skip


@pytest.mark.parametrize(
    "file",
    ["../two.safetensors", "/etc/two.safetensors", "sub/two.safetensors", "..", "", "two.bin", "C:\\two.safetensors",
     "two.safetensors\n", 3, None, ["two.safetensors"], "./two.safetensors", ".two.safetensors"],
    ids=str,
)  # fmt: skip
def test_an_index_that_points_outside_its_folder_is_refused(tmp_path, file):
    folder = sharded(tmp_path / "model")
    (tmp_path / "two.safetensors").write_bytes((folder / "two.safetensors").read_bytes())
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["c"] = file
    (folder / INDEX).write_text(json.dumps(index))
    message = refused(folder)
    assert INDEX in message and "tensor c" in message and "not opened" in message


def test_index_and_files_must_agree(tmp_path):
    assert "tensor d is not in" in refused(sharded(tmp_path / "1", {"d": "one.safetensors"}))
    assert "tensor b is in" in (message := refused(sharded(tmp_path / "2", {"b": None}))) and "does not name" in message
    assert "there says two.safetensors" in refused(sharded(tmp_path / "3", {"b": "two.safetensors"}))
    assert "no weight_map" in refused(_index(tmp_path / "4", {}))
    assert "no weight_map" in refused(_index(tmp_path / "5", {"weight_map": ["a"]}))
    folder = sharded(tmp_path / "6")
    (folder / "two.safetensors").unlink()
    assert "two.safetensors is missing, and with it tensor c" in refused(folder)
    folder = sharded(tmp_path / "7")
    (folder / "model.safetensors").write_bytes(GOOD)
    assert "two models" in refused(folder)


def _index(folder, value):
    sharded(folder)
    (folder / INDEX).write_text(json.dumps(value))
    return folder


def test_pickles_are_refused_with_the_mend(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    message = refused(tmp_path)
    assert "pytorch_model.bin" in message and "run code" in message and "save_pretrained" in message


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match="Git LFS pointer in place of the file; run `git lfs pull`"):
        open_tensors(tmp_path)


def test_a_folder_without_weights(tmp_path):
    assert "has no weights" in refused(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(GOOD)
    assert "only adapter_model.safetensors" in refused(tmp_path)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    tensors = open_tensors(one_file(tmp_path, GOOD))
    (tmp_path / "model.safetensors").write_bytes(GOOD[:-20])
    with pytest.raises(UserError, match="while it was read"):
        for name in tensors:
            read_tensor(tensors[name])
