import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.data.storage import MissingKeyError, Storage, copy
from hephaestus_jax.errors import UserError


@pytest.fixture(params=["path", "file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    urls = {"path": str(tmp_path / "a b%20c"), "file": f"file://{tmp_path}/f", "memory": f"memory:/{tmp_path}"}
    return Storage(urls[request.param])


def test_what_is_written_is_read_and_listed(storage: Storage) -> None:
    storage.write("x/one", b"\x00\xff")
    storage.write("x/two", b"")
    storage.write_json("y.json", {"b": [1, None], "a": "é"})
    assert storage.read("x/one") == b"\x00\xff"
    assert storage.read("x/one", slice(-1, None)) == b"\xff"
    assert storage.read("x/two") == b""
    assert storage.read_json("y.json") == {"a": "é", "b": [1, None]}
    assert storage.list() == ["x/one", "x/two", "y.json"]
    assert storage.list("x/t") == ["x/two"]
    assert storage.join("x").read("one") == b"\x00\xff"
    assert storage.exists("x/two") and not storage.exists("x/three") and not storage.exists("x")
    assert Storage(storage.url) == pickle.loads(pickle.dumps(storage))


def test_overwriting_replaces_the_whole_value(storage: Storage) -> None:
    storage.write("k", b"a long value")
    storage.write("k", b"short")
    assert storage.read("k") == b"short"
    assert storage.list() == ["k"]  # no temporary files


def test_absent_keys_and_bad_json(storage: Storage) -> None:
    with pytest.raises(MissingKeyError, match="nothing-here does not exist"):
        storage.read("nothing-here")
    assert storage.list() == []
    storage.write("bad.json", b"{")
    with pytest.raises(UserError, match=r"bad\.json is damaged"):
        storage.read_json("bad.json")
    with pytest.raises(UserError, match=r"cannot read .*bad\.json"):
        storage.read("bad.json", slice(5, 9))


def test_a_path_means_a_local_directory_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Storage("here")
    relative.write("k", b"v")
    assert (tmp_path / "here" / "k").read_bytes() == b"v"
    monkeypatch.chdir("/")
    assert relative.read("k") == b"v"
    assert Storage(tmp_path / "here").read("k") == b"v"  # type: ignore[arg-type]


def test_memory_is_one_per_process(tmp_path: Path) -> None:
    Storage(f"memory:/{tmp_path}").write("a/b", b"v")
    assert Storage(f"memory:/{tmp_path}/a/").read("b") == b"v"


def test_copy_between_storages_ends_with_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = Storage(str(tmp_path / "source")), Storage(f"memory:/{tmp_path}/target")
    keys = [f"deep/{number}" for number in range(40)] + ["manifest.json", "zz"]
    for key in keys:
        source.write(key, key.encode() * 1000)
    read: list[str] = []
    original = Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, key: read.append(key) or original(self, key))  # type: ignore
    assert copy(source, target) == 42
    monkeypatch.undo()
    assert read[-1] == "manifest.json"
    assert target.list() == sorted(keys)
    assert all(target.read(key) == source.read(key) for key in keys)


def test_errors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for attempt in (
        lambda: Storage(""),
        lambda: Storage("nosuchscheme://x").list(),
        lambda: Storage("gs://").read("x"),
        lambda: Storage(str(tmp_path / "file")).write("below", b""),
        lambda: copy(Storage(str(tmp_path)), Storage(str(tmp_path / "file"))),
    ):
        with pytest.raises(UserError) as caught:
            attempt()
        assert "\n" not in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("ab-", min_size=1, max_size=4), st.binary()), st.text("ab"))
def test_listing_by_prefix_is_filtering(tmp_path_factory: pytest.TempPathFactory, values: dict, prefix: str) -> None:
    storage = Storage(f"memory:/{tmp_path_factory.mktemp('s')}")
    for key, value in values.items():
        storage.write(key, value)
    assert storage.list(prefix) == sorted(key for key in values if key.startswith(prefix))
    assert {key: storage.read(key) for key in storage.list()} == values


def test_no_tensorflow_needed() -> None:
    """Opening `gs://` must not drag in TensorFlow, as path libraries do."""
    import subprocess
    import sys

    code = (
        "import sys\nfor name in 'tensorflow seqio tensorflow_datasets apache_beam pyarrow jax etils.epath'.split():\n"
        "    sys.modules[name] = None\n"
        "from hephaestus_jax.data.cache import Cache\nfrom hephaestus_jax.data import storage\n"
        "storage._open('gs://bucket/folder')\nprint('ok')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout == "ok\n", done.stderr
