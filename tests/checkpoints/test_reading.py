"""Arrays read one by one from storage: the saved bits on any mesh, no more read than asked for, damage named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import states
import tensorstore

from hephaestus_jax.checkpoints import Checkpointer, storage
from hephaestus_jax.checkpoints.digests import array_digests, part_words, slab_digest, slab_rows
from hephaestus_jax.checkpoints.reading import ArrayReader, open_arrays
from hephaestus_jax.config import CheckpointConfig
from hephaestus_jax.errors import UserError


def _saved(folder: Path, tree: dict, step: int = 0) -> ArrayReader:
    checkpointer = Checkpointer(folder, CheckpointConfig())
    checkpointer.save(step, tree, {"next_row": 7}, force=True)
    checkpointer.close()
    return open_arrays(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, states.State]:
    folder = tmp_path_factory.mktemp("saved")
    state = states.make_state("bfloat16")
    _saved(folder, state._asdict())
    return folder, state


def test_every_array_and_every_index(saved: tuple[Path, states.State]) -> None:
    folder, state = saved
    reader = open_arrays(folder)
    assert (reader.step, reader.facts) == (0, {"next_row": 7})
    arrays = storage.named_leaves(state._asdict())
    assert set(reader.names) == set(arrays)
    for name, array in arrays.items():
        expected = np.asarray(array)
        found = reader.read(name)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert (reader.dtype(name), reader.shape(name)) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
        for index in {0, len(expected) // 2, len(expected) - 1} if expected.shape else ():
            assert reader.read(name, index).tobytes() == expected[index].tobytes()


@pytest.mark.parametrize("chunks", [(2, 3, 4), (3, 6, 5), (1, 4, 8), (4, 1, 1)])
def test_arrays_that_were_saved_in_shards(chunks: tuple[int, ...], tmp_path: Path) -> None:
    expected = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    reader = _saved(tmp_path, {"params": {"w": jnp.asarray(expected)}})
    kvstore = {"driver": "ocdbt", "base": f"file://{tmp_path}/0/state/", "path": "params.w/"}
    metadata = {"shape": [4, 6, 8], "chunks": list(chunks), "dtype": "<f4", "compressor": None}
    spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
    tensorstore.open(spec, create=True, delete_existing=True).result().write(expected).result()
    reader = open_arrays(tmp_path)
    assert reader.read("params/w").tobytes() == expected.tobytes()
    assert [reader.read("params/w", i).tobytes() for i in range(4)] == [expected[i].tobytes() for i in range(4)]
    for place in np.ndindex(4, 6):  # experts of a layer
        assert reader.read("params/w", place).tobytes() == expected[place].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "bool", "uint8"])
def test_slab_digests_are_those_of_the_whole_array(dtype: str) -> None:
    values = jnp.asarray(np.random.default_rng(1).integers(0, 2, (300, 3, 5)), dtype)
    size = slab_rows(300)
    rows = np.asarray(values)
    starts = range(0, 300, size)
    parts = tuple(slab_digest(part_words(rows[start : start + size], start)) for start in starts)
    assert parts == array_digests({"a": values})["a"]
    columns = [sum(part_words(rows[s : s + size, c : c + 1], s, c) for c in range(3)) for s in starts]
    assert parts == tuple(map(slab_digest, columns))


def test_only_what_is_asked_for_is_read(saved: tuple[Path, states.State], monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_arrays(saved[0])
    seen: list[tuple[str, int]] = []
    read = reader._bytes

    def noted(name: str, *args: Any) -> bytes:
        data = read(name, *args)
        seen.append((name, len(data)))
        return data

    monkeypatch.setattr(reader, "_bytes", noted)
    layer = reader.read("params/layers/mlp/up/kernel", 2)
    assert {name for name, _ in seen} == {"params/layers/mlp/up/kernel"}
    assert sum(size for _, size in seen[1:]) == layer.nbytes  # the first is the array's description


def test_damage_to_one_expert_spoils_its_layer(tmp_path: Path) -> None:
    """The digest is the layer's: no expert of it is given out before all have been read."""
    values = np.arange(3 * 4 * 5 * 6, dtype=np.float32).reshape(3, 4, 5, 6)
    reader = _saved(tmp_path, {"w": jnp.asarray(values)})
    block = reader._block
    reader._block = lambda name, row, column: block(name, row, column) + ((row, column) == (1, 3))  # type: ignore
    assert reader.read("w", (0, 1)).tobytes() == values[0, 1].tobytes()
    with pytest.raises(UserError, match="array w: differs from what was saved at index 1"):
        reader.read("w", (1, 0))
    reader._block = lambda name, row, column: block(name, row, column) + (column == 2)  # type: ignore
    with pytest.raises(UserError, match="array w: was changed while it was read"):
        reader.read("w", (0, 2))
    for place in ((0, 4), (3, 0), (-1, 0), (0, 0, 0)):
        with pytest.raises(IndexError, match="has nothing at"):
            reader.read("w", place)


def test_damage_is_named(saved: tuple[Path, states.State], tmp_path: Path) -> None:
    values = np.arange(4 * 50_000, dtype=np.float32).reshape(4, 50_000)
    reader = _saved(tmp_path, {"params": {"a": jnp.asarray(values), "b": jnp.ones(3)}})
    needle = values[2, 100:200].tobytes()
    files = [path for path in (tmp_path / "0/state").rglob("*") if path.is_file()]
    (file,) = (path for path in files if needle in path.read_bytes())
    data = bytearray(file.read_bytes())
    data[data.index(needle)] ^= 1
    file.write_bytes(data)
    assert reader.read("params/a", 1).tobytes() == values[1].tobytes()
    for index in (2, None):
        with pytest.raises(UserError, match=r"is damaged: array params/a: differs .* at index 2 of its first axis"):
            reader.read("params/a", index)
    file.write_bytes(data[:1000])
    with pytest.raises(UserError, match=r"checkpoint \S*/0 is damaged: array params/a: .*take another"):
        open_arrays(tmp_path).read("params/a", 3)
    (tmp_path / "0/state/manifest.ocdbt").unlink()
    with pytest.raises(UserError, match="is damaged"):
        open_arrays(tmp_path).read("params/b")


def test_what_is_not_there(saved: tuple[Path, states.State], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no whole checkpoint in .*; there are none"):
        open_arrays(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint of step 5 in .*; there are 0"):
        open_arrays(saved[0], 5)
    reader = open_arrays(saved[0])
    with pytest.raises(UserError, match="has no array params/nothing"):
        reader.read("params/nothing")
    with pytest.raises(IndexError, match=r"nothing at \(4,\)"):
        reader.read("params/layers/norm/scale", 4)


def test_index_that_contradicts_the_storage(tmp_path: Path) -> None:
    _saved(tmp_path, {"a": jnp.ones((2, 3))})
    path = tmp_path / "0/digests/metadata"
    index = storage.Index.from_json(json.loads(path.read_text()))
    entry = index.arrays["a"]
    other = storage.Index({"a": storage.ArrayEntry((3, 2), entry.dtype, entry.slabs)}, index.facts)
    path.write_text(json.dumps(other.to_json()))
    with pytest.raises(UserError, match=r"array a: is stored as float32\[2, 3\], not float32\[3, 2\]"):
        open_arrays(tmp_path).read("a")
