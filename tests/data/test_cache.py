import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_sources import ListSource, RandomSource, make_record, record_id, write_vocabulary

from hephaestus_jax.data.cache import ARRAYS, ROW_ARRAYS, Cache, CacheManifest
from hephaestus_jax.data.cache_build import BuiltCache, build_cache
from hephaestus_jax.data.packing import split
from hephaestus_jax.data.storage import Storage, copy
from hephaestus_jax.data.task import Rejected, TokenizedRecord
from hephaestus_jax.errors import UserError

LENGTH = 64


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def source(vocabulary: str) -> RandomSource:
    return RandomSource(vocabulary, records=600, fractional=True)


@pytest.fixture(scope="module")
def built(source: RandomSource, tmp_path_factory: pytest.TempPathFactory) -> BuiltCache:
    return build_cache(source, tmp_path_factory.mktemp("built"), LENGTH, unit_records=100)


@pytest.fixture
def damaged(built: BuiltCache, tmp_path: Path) -> Path:
    """A copy of the cache, to be damaged."""
    return Path(shutil.copytree(built.path, tmp_path / "cache"))


def weighted(record: TokenizedRecord) -> list[tuple[int, float]]:
    return [
        (int(token), float(weight))
        for token, weight in zip(record.tokens_T[1:], record.weights_T[1:], strict=True)
        if weight
    ]


def test_every_record_is_in_its_rows_or_counted(source: RandomSource, built: BuiltCache) -> None:
    cache, manifest = Cache.open(str(built.path)), built.manifest
    rows = cache.read(np.arange(len(cache)))
    found: dict[str, list[tuple[int, list[tuple[int, float]]]]] = {}
    origins: dict[str, str] = {}
    for row in range(len(cache)):
        for segment in cache.segments(row):
            inside = slice(segment.start, segment.stop)
            assert segment.stop > segment.start and len(set(rows.segment_ids_NL[row, inside])) == 1
            pairs = zip(rows.tokens_NL[row, inside].tolist(), rows.loss_weights_NL[row, inside].tolist(), strict=True)
            part = segment.part, [pair for pair in pairs if pair[1]]
            found.setdefault(segment.record_id, []).append(part)
            origins[segment.record_id] = segment.origin.source
    counted = dict.fromkeys(("rejected", "empty", "unweighted", "continued", "tokens"), 0)
    for number in range(source.records):
        record = source.record(number)
        parts = sorted(found.pop(record_id(number), []))
        if isinstance(record, Rejected):
            counted["rejected"] += 1
        elif len(record.tokens_T) == 0:
            counted["empty"] += 1
        elif not weighted(record):
            counted["unweighted"] += 1
        else:
            counted["continued"] += len(parts) > 1
            counted["tokens"] += len(record.tokens_T)
            assert [part for part, _ in parts] == list(range(len(parts)))
            assert [pair for _, pairs in parts for pair in pairs] == weighted(record)
            assert origins[record.record_id] == record.origin.source
            continue
        assert not parts
    assert not found
    counters = manifest.counters
    assert counted == {
        "rejected": counters.rejected_records,
        "empty": counters.empty_records,
        "unweighted": counters.unweighted_records,
        "continued": counters.continued_records,
        "tokens": manifest.tokens - counters.repeated_tokens,
    }
    assert min(counted.values()) > 0  # the source has some of each


def test_the_manifest_tells_what_the_rows_hold(source: RandomSource, built: BuiltCache) -> None:
    cache, manifest = Cache.open(str(built.path)), built.manifest
    assert cache.manifest == manifest
    rows = cache.read(np.arange(len(cache)))
    used, learned = rows.segment_ids_NL > 0, rows.loss_weights_NL > 0
    assert (manifest.task, manifest.split, manifest.fingerprint) == ("random", "train", source.fingerprint())
    assert (manifest.rows, manifest.sequence_length) == rows.tokens_NL.shape
    assert manifest.tokens == used.sum() and manifest.packing_efficiency == pytest.approx(used.mean())
    assert manifest.loss_tokens == learned.sum()
    assert manifest.loss_weight == pytest.approx(rows.loss_weights_NL.sum(dtype=np.float64))
    ids = rows.tokens_NL[learned]
    assert manifest.loss_bytes == np.where(ids < 256, 1, 2).sum()  # the ids of `write_vocabulary`
    assert manifest.segments == rows.segment_ids_NL.max(axis=1).sum()
    assert manifest.records == 600 and manifest.vocabulary.size == 300
    assert sum(rejection.records for rejection in manifest.rejections) == manifest.counters.rejected_records
    assert {origin.source for origin in manifest.origins} == {f"package{k}" for k in range(7)}
    assert manifest.dtypes["tokens"] == "uint16" and manifest.dtypes["loss_weights"] == "float32"


def test_a_row_is_the_same_alone_in_any_order_and_repeated(built: BuiltCache) -> None:
    cache = Cache.open(str(built.path))
    everything = cache.read(np.arange(len(cache)))
    wanted = np.random.default_rng(0).integers(0, len(cache), 50)
    some, again = cache.read(wanted), pickle.loads(pickle.dumps(cache)).read(wanted)
    for name in ("tokens_NL", "segment_ids_NL", "positions_NL", "loss_weights_NL"):
        np.testing.assert_array_equal(getattr(some, name), getattr(everything, name)[wanted])
        np.testing.assert_array_equal(getattr(some, name), getattr(again, name))
    assert cache.read(np.array([], np.int64)).tokens_NL.shape == (0, LENGTH)
    for bad in ([-1], [len(cache)]):
        with pytest.raises(IndexError):
            cache.read(np.array(bad))


def test_find_names_the_rows_of_a_record(built: BuiltCache) -> None:
    cache = Cache.open(str(built.path))
    rows_of: dict[str, list[int]] = {}
    for row in range(len(cache)):
        for segment in cache.segments(row):
            rows_of.setdefault(segment.record_id, []).append(row)
    assert max(map(len, rows_of.values())) > 20
    for identifier, rows in list(rows_of.items())[::7]:
        assert cache.find(identifier).tolist() == sorted(set(rows))
    assert cache.find("0" * 32).tolist() == []
    for bad in ("xyz", "0" * 30):
        with pytest.raises(UserError, match="32 hexadecimal digits"):
            cache.find(bad)


def test_a_cache_reads_the_same_from_memory(built: BuiltCache) -> None:
    url = "memory://test_cache/copied"
    copy(Storage(str(built.path)), Storage(url))
    here, there = Cache.open(str(built.path)), Cache.open(url)
    there.verify()
    wanted = np.arange(0, len(here), 3)
    np.testing.assert_array_equal(here.read(wanted).tokens_NL, there.read(wanted).tokens_NL)
    assert here.segments(2) == there.segments(2) and here.manifest.digest == there.manifest.digest


def test_reading_a_row_reads_little_more_than_the_row(built: BuiltCache, vocabulary: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = tuple(make_record(rng.integers(0, 300, 512), np.ones(512), number=n) for n in range(512))
    path = build_cache(ListSource(items, vocabulary), tmp_path, 512).path
    cache = Cache.open(str(path))
    cache.read(np.array([0]))  # the shards' indices
    stored = sum(size for name, (size, _) in cache.files.items() if name.split("/")[0] in ROW_ARRAYS) / len(cache)
    before = int(Path("/proc/self/io").read_text().split()[1])
    for row in range(1, 257):
        cache.read(np.array([row]))
    read = int(Path("/proc/self/io").read_text().split()[1]) - before
    assert read / 256 < 1.1 * stored + 100  # the second term: reading this counter


@pytest.mark.parametrize("missing", ["tokens/c/0/0", "segment_part/zarr.json", "row_offsets", "files.json"])
def test_missing_files_are_found_on_opening(damaged: Path, missing: str) -> None:
    path = damaged / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match="rebuild") as caught:
        Cache.open(str(damaged))
    assert missing in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("array", ARRAYS)
def test_truncated_files_are_found_on_opening(damaged: Path, array: str) -> None:
    shard = next(path for path in (damaged / array / "c").rglob("*") if path.is_file())
    content = shard.read_bytes()
    for changed in (content[:-1], content[: len(content) // 2], content + b"\x00", b""):
        shard.write_bytes(changed)
        with pytest.raises(UserError, match="truncated or grew") as caught:
            Cache.open(str(damaged))
        assert str(shard.relative_to(damaged)) in str(caught.value)


def test_any_flipped_bit_is_found_by_verify(damaged: Path) -> None:
    Cache.open(str(damaged)).verify()
    rng = np.random.default_rng(0)
    for path in sorted(path for path in damaged.rglob("*") if path.is_file()):
        content = path.read_bytes()
        changed = bytearray(content)
        changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"changed|damaged|has format") as caught:
            Cache.open(str(damaged)).verify()
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
        path.write_bytes(content)
    Cache.open(str(damaged)).verify()


def test_any_flipped_bit_of_the_rows_is_an_error_when_they_are_read(damaged: Path) -> None:
    """No pass over the whole cache is needed for that: training would stop at the damaged row."""
    rng = np.random.default_rng(1)
    for array in ROW_ARRAYS:
        path = damaged / array / "c" / "0" / "0"
        content = path.read_bytes()
        changed = bytearray(content)
        changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        cache = Cache.open(str(damaged))
        with pytest.raises(UserError, match="is damaged") as caught:
            cache.read(np.arange(len(cache)))
        assert "\n" not in str(caught.value)
        path.write_bytes(content)


def test_a_file_that_goes_missing_later_is_an_error_and_never_zeros(damaged: Path) -> None:
    cache = Cache.open(str(damaged))
    (damaged / "loss_weights" / "c" / "0" / "0").unlink()
    with pytest.raises(UserError, match="is damaged"):
        cache.read(np.array([0]))


def test_a_zeroed_block_is_an_error_when_it_is_read(damaged: Path) -> None:
    path = damaged / "tokens" / "c" / "0" / "0"
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(400) + content[500:])
    cache = Cache.open(str(damaged))
    with pytest.raises(UserError, match="is damaged"):
        cache.read(np.arange(len(cache)))


@pytest.mark.parametrize(
    ("field", "value"), [("rows", 1), ("fingerprint", "0"), ("tokens", 0), ("digest", "0"), ("origins", [])]
)
def test_a_changed_manifest_is_refused(damaged: Path, field: str, value: object) -> None:
    path = damaged / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(UserError, match=r"manifest\.json was changed since it was built"):
        Cache.open(str(damaged))
    path.write_text(json.dumps({key: item for key, item in manifest.items() if key != field}))
    with pytest.raises(UserError, match=r"manifest\.json"):
        Cache.open(str(damaged))


def test_no_cache_another_format_another_vocabulary(damaged: Path, built: BuiltCache) -> None:
    with pytest.raises(UserError, match=r"no cache at .*nowhere: build one with"):
        Cache.open(str(damaged / "nowhere"))
    cache = Cache.open(str(damaged))
    cache.require(cache.manifest.vocabulary.digest, LENGTH)
    with pytest.raises(UserError, match=r"tokenised with vocabulary tokenizer\.json .*not with the one of digest fff"):
        cache.require("f" * 32)
    with pytest.raises(UserError, match="rows of 64 tokens, not 65"):
        cache.require(sequence_length=65)
    newer = dataclasses.replace(built.manifest, format=2)
    (damaged / "manifest.json").write_text(json.dumps(newer.to_json()))
    with pytest.raises(UserError, match="format 2, this version reads 1"):
        Cache.open(str(damaged))
    for text, message in (("[]", "format None"), ("{", "is damaged")):
        (damaged / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=message):
            Cache.open(str(damaged))


def test_the_manifest_survives_json(built: BuiltCache) -> None:
    again = CacheManifest.from_json(json.loads(json.dumps(built.manifest.to_json())), "here")
    assert again == built.manifest


def test_a_rebuilt_cache_of_the_same_name_is_not_served_from_memory(vocabulary: str, tmp_path: Path) -> None:
    def build(token: int) -> np.ndarray:
        path = tmp_path / "same"
        shutil.rmtree(path, ignore_errors=True)
        items = tuple(make_record([token] * 8, [1] * 8, number=n) for n in range(20))
        build_cache(ListSource(items, vocabulary), tmp_path, 8).path.rename(path)
        return Cache.open(str(path)).read(np.arange(20)).tokens_NL

    assert (build(5) == 5).all() and (build(6) == 6).all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 5)), min_size=1, max_size=30),
    st.sampled_from([2, 3, 7, 16]),
    st.integers(1, 9),
)
def test_what_goes_in_comes_out(
    vocabulary: str,
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[bytes, int]],
    length: int,
    unit_records: int,
) -> None:
    records = [
        make_record([byte % 8 for byte in content], [byte >= 64 for byte in content], min(carry, len(content)), number)
        for number, (content, carry) in enumerate(drawn)
    ]
    source = ListSource(tuple(records), vocabulary)
    out = tmp_path_factory.mktemp("out")
    expected = sorted(
        (piece.record_id, piece.part, piece.tokens_T.tolist(), piece.weights_T.tolist())
        for record in records
        for piece in split(record, length)
    )
    if not expected:
        with pytest.raises(UserError, match="has a token to learn"):
            build_cache(source, out, length, unit_records=unit_records)
        return
    cache = Cache.open(str(build_cache(source, out, length, unit_records=unit_records).path))
    rows = cache.read(np.arange(len(cache)))
    found = []
    for n in range(len(cache)):
        for segment in cache.segments(n):
            inside = slice(segment.start, segment.stop)
            values = rows.tokens_NL[n, inside].tolist(), rows.loss_weights_NL[n, inside].tolist()
            found.append((segment.record_id, segment.part, *values))
    assert sorted(found) == expected
    assert cache.manifest.loss_weight == sum(sum(weights) for *_, weights in expected)
