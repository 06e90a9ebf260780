"""A corpus on disk: sorted, content-addressed, the same bytes for the same records."""

import hashlib
import random
from pathlib import Path

import pytest

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats import record_files, store
from hephaestus_jax.formats.records import ApiAction, ApiDoc, Document, Provenance, Trajectory, identify, record_id
from hephaestus_jax.formats.store import Corpus, write_corpus


def _documents(count: int) -> list[Document]:
    return [Document(f"text {n}", "text", Provenance("a", "1", "MIT", path=f"a.txt:{n}")) for n in range(count)]


def _digest(directory: Path) -> str:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    content = b"".join(str(path.relative_to(directory)).encode() + path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_RECORDS", 100)
    monkeypatch.setattr(record_files, "ROW_GROUP_RECORDS", 16)


def test_any_range_reads_back_in_id_order(tmp_path: Path) -> None:
    documents = _documents(257)
    corpus = write_corpus(tmp_path / "c", {("text", "train"): documents}, {})
    expected = sorted(documents, key=record_id)
    assert [shard.records for shard in corpus.shards("text", "train")] == [100, 100, 57]
    for start, stop in [(0, 257), (0, 0), (15, 17), (99, 101), (100, 200), (250, 257), (3, 4)]:
        assert list(corpus.read("text", "train", start, stop)) == list(map(identify, expected[start:stop]))
    assert list(corpus.read("code", "train")) == []
    corpus.verify()


def test_the_bytes_do_not_depend_on_the_order_of_records_or_repetitions(tmp_path: Path) -> None:
    documents = _documents(130)
    shuffled = documents + documents[:7]
    random.Random(0).shuffle(shuffled)
    write_corpus(tmp_path / "a", {("text", "train"): documents}, {"name": "x"})
    write_corpus(tmp_path / "b", {("text", "train"): shuffled}, {"name": "x"})
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b")


def _api(*parameters: str) -> ApiDoc:
    properties = {name: {"type": "string", "default": ""} for name in parameters}
    return ApiDoc("f", "p", "", Provenance("a", "1", "MIT"), parameters={"type": "object", "properties": properties})


def test_parameters_and_arguments_keep_their_order(tmp_path: Path) -> None:
    call = Trajectory((ApiAction("f", {"x2": 1, "x1": {"b": 1, "a": 2}}),), Provenance("a", "1", "MIT"))
    records = {("agent_docs", "train"): [_api("x", "b", "a")], ("agent_trajectories", "train"): [call]}
    corpus = write_corpus(tmp_path / "c", records, {})
    ((_, doc),), ((_, trajectory),) = (
        corpus.read(slice_name, "train") for slice_name in ("agent_docs", "agent_trajectories")
    )
    assert list(doc.parameters["properties"]) == ["x", "b", "a"] and list(doc.parameters) == ["type", "properties"]
    assert repr(trajectory.steps) == repr(call.steps)


def test_of_records_that_differ_in_the_order_of_keys_alone_one_is_kept_whatever_comes_first(tmp_path: Path) -> None:
    pair = [_api("x", "a"), _api("a", "x")]
    for name, records in (("a", pair), ("b", pair[::-1])):
        assert write_corpus(tmp_path / name, {("agent_docs", "train"): records}, {}).count("agent_docs", "train") == 1
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b")


def test_text_that_utf8_cannot_hold_keeps_a_consistent_id(tmp_path: Path) -> None:
    where = Provenance("a", "1", "MIT")
    corpus = write_corpus(
        tmp_path / "c", {("text", "train"): [Document("lone \ud800, pair \ud83d\ude00", "text", where)]}, {}
    )
    ((identifier, found),) = corpus.read("text", "train")
    assert found.text == "lone \ufffd, pair 😀"
    table = record_files.pq.read_table(tmp_path / "c" / corpus.shards("text", "train")[0].file)
    assert table["id"].to_pylist() == [record_id(found)] == [identifier]


def test_damage_is_found(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", {("text", "train"): _documents(120)}, {})
    shard = tmp_path / "c" / corpus.shards("text", "train")[1].file
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(UserError, match="changed since it was built"):
        corpus.verify()
    shard.write_bytes(bytes(content[: len(content) // 2]))
    with pytest.raises(UserError, match="missing or damaged"):
        list(corpus.read("text", "train"))
    shard.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        list(corpus.read("text", "train"))


def test_a_directory_without_a_corpus_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tools.build_corpus"):
        Corpus(tmp_path).manifest  # noqa: B018
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Corpus(tmp_path).manifest  # noqa: B018
    (tmp_path / "manifest.json").write_text('{"format": 0}')
    with pytest.raises(UserError, match="format"):
        Corpus(tmp_path).manifest  # noqa: B018


def test_a_rewritten_corpus_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", {("text", "train"): _documents(120)}, {})
    write_corpus(tmp_path / "c", {("text", "validation"): _documents(3)}, {})
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["manifest.json", "text"]
    assert list(Corpus(tmp_path / "c").manifest["slices"]["text"]) == ["validation"]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
