"""Losses by record add up to those of the slice, token by token, however records lie in rows."""

import dataclasses
import io
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("pyarrow")
sys.path.append(str(Path(__file__).parents[1] / "data"))
from token_sources import RandomSource, record_id, write_vocabulary

from hephaestus_jax.config import ComputeConfig, EvaluationConfig, MeshConfig, ModelConfig, TrainConfig
from hephaestus_jax.data.cache import Cache
from hephaestus_jax.data.cache_build import build_cache
from hephaestus_jax.data.packing import Rows
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals.held_out import HeldOut
from hephaestus_jax.evals.record_losses import Groups, SliceRecords, record_losses
from hephaestus_jax.evals.scoring import TokenScorer, segment_sums
from hephaestus_jax.formats.records import ApiDoc, Document, Provenance, TextObservation, Trajectory
from hephaestus_jax.formats.records import record_id as id_of
from hephaestus_jax.formats.store import write_corpus
from hephaestus_jax.losses import token_losses
from hephaestus_jax.model.decoder import decode, init_parameters, output_kernel
from hephaestus_jax.progress import Progress
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.train_step import make_eval_step

LENGTH = 32
MODEL = ModelConfig("test", 320, 16, 32, 1, 2, 1, 8, tied_embeddings=True, max_positions=LENGTH)
COMPUTE = ComputeConfig(dtype="float32", loss_chunk=11)
PARAMS = jax.tree.map(lambda x: 4 * x, init_parameters(MODEL, jax.random.key(0)))  # so that losses differ


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def token_bytes(folder) -> np.ndarray:
    return load_vocabulary(write_vocabulary(folder / "vocabulary")).token_bytes


@pytest.fixture(scope="module")
def cache(folder, token_bytes) -> Cache:
    """160 records, some longer than many rows, some without weight, some empty."""
    source = RandomSource(str(folder / "vocabulary" / "tokenizer.json"), records=160, mean=15.0, seed=3)
    return Cache.open(str(build_cache(source, folder / "caches", LENGTH).path))


@pytest.fixture(scope="module")
def scorer() -> TokenScorer:
    return TokenScorer(MODEL, COMPUTE, Partitioning(make_mesh(MeshConfig(), jax.devices()[:1]), MODEL), 16)


def quiet() -> Progress:
    return Progress("rows", "rows", stream=io.StringIO())


def losses_of(scorer, cache, token_bytes, max_rows=0, params=PARAMS):
    return record_losses(scorer, params, SliceRecords.of(cache, token_bytes, max_rows), quiet())


def test_token_losses_are_those_of_float64():
    rng = np.random.default_rng(0)
    hidden, kernel = rng.standard_normal((3, 10, 6)), rng.standard_normal((6, 23))
    targets = rng.integers(0, 23, (3, 10))
    arrays = (jnp.asarray(hidden, jnp.float32), jnp.asarray(kernel, jnp.float32), jnp.asarray(targets))
    for chunk, softcap in ((1, 0.0), (3, 2.0), (5, 0.0), (10, 30.0), (99, 0.0)):
        logits = softcap * np.tanh(hidden @ kernel / softcap) if softcap else hidden @ kernel
        wanted = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
        assert np.asarray(token_losses(*arrays, chunk, softcap)) == pytest.approx(wanted, abs=2e-6)


def test_never_all_logits_exist():
    shapes = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in (((2, 64, 8), "float32"), ((8, 512), "float32"))]
    compiled = jax.jit(token_losses, static_argnums=3).lower(*shapes, jax.ShapeDtypeStruct((2, 64), "int32"), 16)
    text = compiled.compile().as_text()
    assert "f32[2,16,512]" in text and "2,64,512]" not in text


def test_chosen_tokens_get_the_losses_of_a_plain_forward_pass(scorer, cache):
    """By another way: all logits of each row at once, in float64 from the hidden states on."""
    rows = cache.read(np.arange(20))
    rng = np.random.default_rng(1)
    chosen = (rng.random(rows.tokens_NL.shape) < 0.4) & (np.arange(LENGTH) > 0)
    chosen[3], chosen[4, 1:] = False, True
    hidden = decode(PARAMS, MODEL, COMPUTE, *map(jnp.asarray, (rows.tokens_NL, rows.segment_ids_NL, rows.positions_NL)))
    logits = np.asarray(hidden, np.float64) @ np.asarray(output_kernel(PARAMS), np.float64)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = -np.take_along_axis(logits[:, :-1], rows.tokens_NL[:, 1:, None], -1)[..., 0]
    wanted = np.where(chosen, np.pad(nats, ((0, 0), (1, 0))), 0)

    def part(start, stop):
        fields = (getattr(rows, field.name)[start:stop] for field in dataclasses.fields(Rows))
        return Rows(*fields), chosen[start:stop]

    found = np.concatenate(list(scorer(PARAMS, [part(0, 16), part(16, 20)])))
    assert found == pytest.approx(wanted, abs=2e-5) and np.ptp(wanted[chosen]) > 5
    with pytest.raises(ValueError, match="first token"):
        list(scorer(PARAMS, [(rows, np.ones_like(chosen))]))


def test_segments_are_summed_apart():
    values = np.array([[1.0, 2.0, 4.0, 8.0], [0.5, 0.25, 0.0, 0.0]])
    segments = np.array([[1, 2, 2, 0], [1, 1, 3, 0]])
    assert segment_sums(values, segments, 3).tolist() == [[8.0, 1.0, 6.0, 0.0], [0.0, 0.75, 0.0, 0.0]]


def test_the_sums_are_those_of_held_out(scorer, cache, token_bytes):
    found = losses_of(scorer, cache, token_bytes)
    config = TrainConfig("r", "m", MODEL, 1, 8, compute=COMPUTE, evaluation=EvaluationConfig(batch_size=8))
    eval_step = make_eval_step(config, scorer.partitioning, groups=1)
    mixture = SimpleNamespace(validation={"a": cache})
    for max_rows in (0, 7):
        limited = dataclasses.replace(config, evaluation=EvaluationConfig(batch_size=8, max_rows=max_rows))
        wanted = HeldOut(limited, mixture, {}, scorer.partitioning, eval_step).run(PARAMS)["a"]
        found = losses_of(scorer, cache, token_bytes, max_rows)
        assert found.nats_per_token == pytest.approx(wanted.nats_per_token, rel=1e-5)
        assert (found.tokens_R.sum(), found.rows) == (wanted.tokens, wanted.rows)
        if not max_rows:
            assert found.bits_per_byte == pytest.approx(wanted.bits_per_byte, rel=1e-5) and wanted.bytes_exact


def test_every_record_has_its_own_tokens_and_bytes(scorer, cache, token_bytes):
    """Against the source: what a record has under loss, whatever rows it lies in."""
    found = losses_of(scorer, cache, token_bytes)
    source = RandomSource("", records=160, mean=15.0, seed=3)
    wanted = {}
    for number in range(160):
        record = source.record(number)
        tokens = getattr(record, "tokens_T", np.zeros(0, np.int32))[1:]  # nothing predicts the first
        learned = tokens[getattr(record, "weights_T", np.zeros(0))[1:] > 0]
        if len(learned):
            wanted[record_id(number)] = (len(learned), int(token_bytes[learned].sum()))
    rows = zip(found.ids, zip(found.tokens_R.tolist(), found.bytes_R.tolist(), strict=True), strict=True)
    assert dict(rows) == wanted and max(count for count, _ in wanted.values()) > 10 * LENGTH
    assert sum(found.bytes_R) == cache.manifest.loss_bytes and list(found.ids) == sorted(found.ids)


def test_every_record_has_its_own_nats(scorer, cache, token_bytes):
    nats = defaultdict(float)
    for row in range(len(cache)):
        rows = cache.read(np.array([row]))
        (losses,) = scorer(PARAMS, [(rows, rows.loss_weights_NL > 0)])
        for segment in cache.segments(row):
            nats[segment.record_id] += losses[0, segment.start : segment.stop].sum()
    found = losses_of(scorer, cache, token_bytes)
    assert dict(zip(found.ids, found.nats_R, strict=True)) == pytest.approx(
        {key: value for key, value in nats.items() if value}, rel=1e-5
    )


def test_as_json(scorer, cache, token_bytes):
    found = losses_of(scorer, cache, token_bytes)
    value = json.loads(json.dumps(found.to_json({identifier: f"g{identifier[0]}" for identifier in found.ids})))
    columns = value["per_record"]
    assert value["records"] == len(found.ids) == len(set(columns["id"])) and value["tokens"] == sum(columns["tokens"])
    assert value["nats_per_token"] == pytest.approx(sum(columns["nats"]) / value["tokens"])
    assert value["bits_per_byte"] == pytest.approx(sum(columns["nats"]) / math.log(2) / value["bytes"])
    assert all(group == f"g{identifier[0]}" for identifier, group in zip(columns["id"], columns["group"], strict=True))


def test_a_loss_that_is_not_finite_names_a_record(scorer, cache, token_bytes):
    broken = jax.tree.map(lambda x: x * jnp.nan, PARAMS)
    with pytest.raises(UserError, match=r"the loss of record [0-9a-f]{32} of .* is not finite"):
        losses_of(scorer, cache, token_bytes, params=broken)


def provenance(path: str = "pkg/a.py:12", source: str = "pkg") -> Provenance:
    return Provenance(source, "1", "MIT", path=path)


def trajectory(name: str, **details) -> Trajectory:
    return Trajectory((TextObservation("hello", "user"),), provenance("pkg/b.py:3"), name=name, details=details)


def test_groups_are_families_of_apis_and_files(tmp_path):
    docs = [ApiDoc(name, "pkg", "words", provenance()) for name in ("pkg.C", "pkg.C.go", "other.C", "pkg.alone")]
    calls = [trajectory("pkg.C.go", api="pkg.C.go"), trajectory("nobody.knows"), trajectory("")]
    code = [Document(f"x = {n}", "code", provenance(path)) for n, path in enumerate(("a.py", "a.py:7", "b.py", ""))]
    records = {("agent_docs", "validation"): docs, ("agent_trajectories", "validation"): calls}
    corpus = write_corpus(tmp_path / "corpus", {**records, ("code", "validation"): code}, {})
    families = [{"names": ["other.C", "pkg.C", "pkg.C.go"], "aliases": ["pkg.shortcut"], "words": [], "docstrings": []}]
    (tmp_path / "corpus" / "heldout.json").write_text(json.dumps({"families": families}))
    groups = Groups(corpus)
    found = groups.of("agent_docs", [id_of(doc) for doc in docs])
    assert [found[id_of(doc)] for doc in docs] == ["api:other.C", "api:other.C", "api:other.C", "api:pkg.alone"]
    found = groups.of("agent_trajectories", [id_of(call) for call in calls])
    assert [found[id_of(call)] for call in calls] == ["api:other.C", "api:nobody.knows", "file:pkg:pkg/b.py"]
    found = groups.of("code", [*(id_of(document) for document in code), "f" * 32])
    files = ["file:pkg:a.py", "file:pkg:a.py", "file:pkg:b.py", "file:pkg:"]
    assert list(found.values()) == [*files, "record:" + "f" * 32]
    assert groups.of_api("pkg.shortcut") == "api:other.C"
    (tmp_path / "corpus" / "heldout.json").write_text('{"families": [{"names": []}]}')
    with pytest.raises(UserError, match="heldout.json is damaged"):
        Groups(corpus)
