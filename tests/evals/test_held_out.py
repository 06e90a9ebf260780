"""Held-out losses equal a float64 sum over the same tokens, on one device and on eight, for slices and samples."""

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from hephaestus_jax import progress
from hephaestus_jax.config import EvaluationConfig, ModelConfig, TrainConfig
from hephaestus_jax.data.cache import CacheManifest, Counters
from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.packing import Rows
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals.held_out import IN_FLIGHT, HeldOut, SliceLoss

LENGTH, VOCABULARY = 12, 50
BYTES_OF_TOKEN = np.arange(VOCABULARY) % 5 + 1
MODEL = ModelConfig("tiny", VOCABULARY, 8, 8, 1, 1, 1, 2)
CONFIG = TrainConfig("r", "m", MODEL, 1000, batch_size=4)


@dataclasses.dataclass
class ArrayCache:
    """A cache in memory."""

    rows: Rows
    manifest: CacheManifest

    def read(self, rows: np.ndarray) -> Rows:
        return Rows(*(getattr(self.rows, field.name)[rows] for field in dataclasses.fields(Rows)))


def make_cache(rows: int, weights: Callable[[np.random.Generator, tuple[int, int]], np.ndarray], seed=0) -> ArrayCache:
    """Random rows of two segments and padding; weights only where a token can be predicted."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCABULARY, (rows, LENGTH)).astype(np.int32)
    first, used = rng.integers(1, LENGTH - 4, (rows, 1)), rng.integers(LENGTH - 3, LENGTH + 1, (rows, 1))
    place = np.arange(LENGTH)
    segments = np.where(place < first, 1, np.where(place < used, 2, 0)).astype(np.int32)
    predicted = (place != 0) & (place != first) & (segments > 0)
    weights_NL = np.where(predicted, weights(rng, (rows, LENGTH)), 0).astype(np.float32)
    positions = np.where(segments == 2, place - first, place).astype(np.int32)
    learned = weights_NL > 0
    manifest = CacheManifest(
        task="t",
        split="validation",
        fingerprint="f",
        vocabulary=VocabularyIdentity("v", "d", VOCABULARY),
        sequence_length=LENGTH,
        unit_records=1,
        rows=rows,
        segments=2 * rows,
        records=2 * rows,
        tokens=int((segments > 0).sum()),
        loss_tokens=int(learned.sum()),
        loss_weight=float(weights_NL.sum(dtype=np.float64)),
        loss_bytes=int(BYTES_OF_TOKEN[tokens[learned]].sum()),
        counters=Counters(),
        rejections=(),
        origins=(),
        dtypes={"loss_weights": "uint8" if set(np.unique(weights_NL)) <= {0, 1} else "float32"},
        versions={},
        files_digest="",
    )
    return ArrayCache(Rows(tokens, segments, positions * (segments > 0), weights_NL), manifest)


def plain(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return (rng.random(shape) < 0.7).astype(np.float64)


def fractional(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.choice([0.0, 0.25, 1.0, 1.5], shape)


class FakeSums(NamedTuple):
    loss_G: jax.Array
    weight_G: jax.Array
    tokens_G: jax.Array


def token_nats(tokens, scale):
    """Stands for the negative log-likelihood of each token."""
    return scale * (1 + (tokens * 7919 % 97) / 97)


@functools.partial(jax.jit, static_argnames="groups")
def fake_eval_step(params, batch, groups=3):
    weights = batch["loss_weights"]
    nats = token_nats(batch["tokens"].astype(jnp.float32), params)
    by_group = jax.nn.one_hot(batch["task_ids"], groups, axis=0)
    return FakeSums(
        by_group @ (weights * nats).sum(1),
        by_group @ weights.sum(1),
        (by_group @ (weights > 0).sum(1)).astype(jnp.int32),
    )


def expected(cache: ArrayCache, scale: float, rows: np.ndarray | None = None) -> tuple[float, int]:
    chosen = cache.read(np.arange(cache.manifest.rows) if rows is None else rows)
    weights = chosen.loss_weights_NL.astype(np.float64)
    nats = token_nats(chosen.tokens_NL.astype(np.float64), scale)
    return float((weights * nats).sum() / weights.sum()), int((weights > 0).sum())


def partitioning() -> SimpleNamespace:
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    return SimpleNamespace(batch=NamedSharding(mesh, PartitionSpec("data")))


def held_out(validation, user=None, batch_size=8, eval_step=fake_eval_step, **evaluation) -> HeldOut:
    config = dataclasses.replace(CONFIG, batch_size=batch_size, evaluation=EvaluationConfig(**evaluation))
    return HeldOut(config, SimpleNamespace(validation=validation), user or {}, partitioning(), eval_step)


def close(found: float, wanted: float) -> bool:
    return found == pytest.approx(wanted, rel=2e-6)


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_every_row_counts_once(batch_size):
    docs, own = make_cache(37, plain), make_cache(8, plain, seed=1)
    results = held_out({"docs": docs}, {"own": own}, batch_size).run(jnp.float32(2))
    assert list(results) == ["docs", "own"]
    for cache, found in zip((docs, own), results.values(), strict=True):
        nats, tokens = expected(cache, 2)
        assert close(found.nats_per_token, nats) and found.tokens == tokens == cache.manifest.loss_tokens
        assert found.rows == cache.manifest.rows and found.bytes_exact and found.seconds > 0
        learned = cache.rows.loss_weights_NL > 0  # bits of the tokens under loss over the bytes that they spell
        bits = token_nats(cache.rows.tokens_NL[learned].astype(np.float64), 2).sum() / math.log(2)
        assert close(found.bits_per_byte, bits / BYTES_OF_TOKEN[cache.rows.tokens_NL[learned]].sum())


def test_the_real_model_on_a_mesh_of_eight_gives_what_one_device_gives():
    script = Path(__file__).with_name("held_out_process.py")
    eight = f"--xla_force_host_platform_device_count=8 {os.environ.get('XLA_FLAGS', '')}"
    flags = {"XLA_FLAGS": eight, "JAX_PLATFORMS": "cpu"}
    flags["PYTHONPATH"] = str(Path(progress.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, **flags}, capture_output=True, text=True, check=True
    )
    one, eight = json.loads(done.stdout).values()
    for name, cache in (("docs", make_cache(37, plain)), ("code", make_cache(16, plain, seed=1))):
        assert eight[name]["nats_per_token"] == pytest.approx(one[name]["nats_per_token"], rel=1e-6)
        assert eight[name]["tokens"] == one[name]["tokens"] == cache.manifest.loss_tokens
        assert eight[name]["rows"] == cache.manifest.rows
        assert abs(one[name]["nats_per_token"] - math.log(VOCABULARY + 14)) < 0.5  # of a model that knows nothing


def test_fractional_weights_weigh_the_average_and_are_marked():
    cache = make_cache(30, fractional)
    found = held_out({"a": cache}).run(jnp.float32(1))["a"]
    nats, tokens = expected(cache, 1)
    assert close(found.nats_per_token, nats) and found.tokens == tokens and not found.bytes_exact
    manifest = cache.manifest
    assert close(found.bits_per_byte, nats / math.log(2) * manifest.loss_tokens / manifest.loss_bytes)
    assert "about" in str(found)


def test_a_sample_is_spread_over_the_slice():
    cache = make_cache(40, plain)
    found = held_out({"a": cache}, max_rows=10).run(jnp.float32(1))["a"]
    nats, tokens = expected(cache, 1, np.arange(0, 40, 4))
    assert close(found.nats_per_token, nats) and (found.tokens, found.rows) == (tokens, 10) and not found.bytes_exact
    more = held_out({"a": cache}, max_rows=100).run(jnp.float32(1))["a"]
    assert more.rows == 40 and more.bytes_exact


def test_the_evaluation_batch_size_is_its_own():
    shapes = []

    def eval_step(params, batch):
        shapes.append({name: array.shape for name, array in batch.items()})
        return fake_eval_step(params, batch)

    cache = make_cache(5, plain)
    held_out({"a": cache}, eval_step=eval_step).run(jnp.float32(1))
    config = dataclasses.replace(CONFIG, batch_size=8, evaluation=EvaluationConfig(batch_size=4))
    HeldOut(config, SimpleNamespace(validation={"a": cache}), {}, partitioning(), eval_step).run(jnp.float32(1))
    assert [shape["tokens"] for shape in shapes] == [(8, LENGTH), (4, LENGTH), (4, LENGTH)]
    assert shapes[1]["task_ids"] == (4,) and shapes[1]["segment_ids"] == (4, LENGTH)


def test_sums_are_kept_in_float64():
    """A float32 running sum would stop growing at 2²⁴."""
    rows = 2000

    def eval_step(params, batch):
        one = np.array([20_001.0], np.float32)
        return FakeSums(one, one, np.array([20_001], np.int32))

    found = held_out({"a": make_cache(rows, plain)}, eval_step=eval_step, batch_size=1).run(None)["a"]
    assert found.tokens == rows * 20_001 and found.nats_per_token == 1.0


def test_sums_are_fetched_late_but_not_without_end():
    fetched, sent, ahead = [], [], []

    class Late:
        def __init__(self, value):
            self.value = value

        def __array__(self, dtype=None, copy=None):
            fetched.append(1)
            return np.array([self.value], dtype)

    def eval_step(params, batch):
        sent.append(1)
        ahead.append(len(sent) - len(fetched) // 3)
        return FakeSums(Late(1.0), Late(2.0), Late(2))

    found = held_out({"a": make_cache(50, plain)}, eval_step=eval_step, batch_size=1).run(None)["a"]
    assert found.nats_per_token == 0.5 and found.tokens == 100
    assert ahead[:IN_FLIGHT] == list(range(1, IN_FLIGHT + 1)) and max(ahead) == IN_FLIGHT + 1


def test_a_slice_without_loss_is_skipped_with_a_note(capsys):
    empty = make_cache(4, lambda rng, shape: np.zeros(shape))
    results = held_out({"empty": empty, "a": make_cache(4, plain)}).run(jnp.float32(1))
    assert list(results) == ["a"]
    assert "held-out slice 'empty' has no token under loss: skipped" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_is_told():
    found = held_out({"a": make_cache(4, plain)}).run(jnp.float32(jnp.nan))["a"]
    assert math.isnan(found.nats_per_token) and math.isnan(found.bits_per_byte)


def test_names_and_batches_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="calls a file 'a', as a validation slice of the mixture is"):
        held_out({"a": make_cache(4, plain)}, {"a": make_cache(4, plain)})
    eight = SimpleNamespace(
        batch=NamedSharding(AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data"))
    )
    with pytest.raises(UserError, match="a batch of 4 rows does not divide over 8 row shards"):
        HeldOut(CONFIG, SimpleNamespace(validation={"a": make_cache(4, plain)}), {}, eight, fake_eval_step)
    assert held_out({}).run(None) == {}


def test_a_long_evaluation_shows_progress_and_a_short_one_does_not(monkeypatch, capsys):
    held_out({"a": make_cache(20, plain)}).run(jnp.float32(1))
    assert capsys.readouterr().err == ""
    now = iter(range(1000))
    clock = SimpleNamespace(monotonic=lambda: float(next(now)))
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr("hephaestus_jax.evals.held_out.time", clock)
    held_out({"a": make_cache(20, plain)}, batch_size=2).run(jnp.float32(1))
    assert "held-out loss: " in (err := capsys.readouterr().err) and "of 20 rows" in err and "rows/s" in err
    assert err.endswith("\n")


def test_a_slice_in_words():
    loss = SliceLoss(2.5, 0.75, True, 123_456, 78, 1.25)
    assert str(loss) == "2.5000 nats/token, 0.7500 bits/byte (123,456 tokens in 78 rows, 1.2 s)"
