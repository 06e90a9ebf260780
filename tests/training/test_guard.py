"""Steps that are not finite, and spikes: dropped inside the step, or the end of the run with the records named."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import BATCH, Command, metrics

from hephaestus_jax.config import ComputeConfig, GuardConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from hephaestus_jax.data.mixture import open_mixture
from hephaestus_jax.model.decoder import init_parameters
from hephaestus_jax.train_step import fresh_state, make_step_function

MODEL = ModelConfig("m", 40, 16, 32, 2, 2, 1, 8)
GROUPS = 2


def configure(**changes: object) -> TrainConfig:
    parts = {
        "compute": ComputeConfig("float32"),
        "schedule": ScheduleConfig("constant", 1e-2, 0),
        "optimizer": OptimizerConfig(),
        **changes,
    }
    return TrainConfig("run", "mixture", MODEL, 100, 4, **parts)


def batch(seed: int = 0, spoil: float | None = None) -> dict[str, jax.Array]:
    """Four rows of two tasks; `spoil` is put into the loss weights of one token."""
    rng = np.random.default_rng(seed)
    weights = (rng.random((4, 12)) < 0.7).astype(np.float32)
    weights[:, 0] = 0
    if spoil is not None:
        weights[2, 5] = spoil
    return {
        "tokens": jnp.asarray(rng.integers(0, 40, (4, 12)), jnp.int32),
        "segment_ids": jnp.ones((4, 12), jnp.int32),
        "positions": jnp.tile(jnp.arange(12, dtype=jnp.int32), (4, 1)),
        "loss_weights": jnp.asarray(weights),
        "task_ids": jnp.array([0, 1, 0, 1], jnp.int32),
    }


def start(config: TrainConfig):
    return fresh_state(config, init_parameters(MODEL, jax.random.key(0)))


def same(a: object, b: object) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


@pytest.mark.parametrize("spoil", [float("inf"), float("nan")])
def test_a_step_that_is_not_finite_leaves_the_state_alone(spoil: float) -> None:
    config = configure()
    step = jax.jit(make_step_function(config, GROUPS))
    state, _ = step(start(config), batch(0))
    after, report = step(state, batch(1, spoil))
    assert bool(report.bad)
    assert not bool(report.halted)
    assert same((state.params, state.opt_state), (after.params, after.opt_state))
    assert int(after.step) == 2
    assert (int(after.guard.skipped), int(after.guard.skipped_in_row), int(after.guard.good_steps)) == (1, 1, 1)
    good, report = step(after, batch(2))
    assert not bool(report.bad)
    assert not same(good.params, after.params)
    assert (int(good.guard.skipped), int(good.guard.skipped_in_row)) == (1, 0)
    # the row that was skipped is as if it had never been, but for the step's number
    straight, _ = step(state, batch(2))
    assert same(straight.params, good.params)


def test_stop_freezes_the_state_at_the_bad_step() -> None:
    config = configure(guard=GuardConfig("stop"))
    step = jax.jit(make_step_function(config, GROUPS))
    state, _ = step(start(config), batch(0))
    frozen, report = step(state, batch(1, float("nan")))
    assert bool(report.halted)
    assert int(frozen.step) == 1
    assert same((state.params, state.opt_state), (frozen.params, frozen.opt_state))
    later, report = step(frozen, batch(2))  # was sent before anyone read the bad step's metrics
    assert bool(report.halted)
    assert same((frozen.params, frozen.step), (later.params, later.step))


def test_skipping_ends_after_max_skipped_in_a_row() -> None:
    config = configure(guard=GuardConfig("skip", max_skipped=2))
    step = jax.jit(make_step_function(config, GROUPS))
    state = start(config)
    seen = []
    for number, spoil in enumerate([None, np.nan, np.nan, None, np.nan, np.nan, np.nan]):
        state, report = step(state, batch(number, spoil))
        seen.append((bool(report.bad), bool(report.halted)))
    assert seen == [(False, False), (True, False), (True, False), (False, False), *[(True, False)] * 2, (True, True)]
    assert int(state.guard.skipped) == 5


def test_a_spike_is_a_multiple_of_the_running_mean() -> None:
    config = configure(guard=GuardConfig("skip", spike_factor=3.0, spike_after=5))
    step = jax.jit(make_step_function(config, GROUPS))
    state, norms = start(config), []
    for number in range(8):
        state, report = step(state, batch(number))
        assert not bool(report.bad)
        norms.append(float(report.grad_norm))
    assert float(state.guard.norm_mean) == pytest.approx(np.mean(norms), rel=1e-5)
    spoiled = {**batch(9), "tokens": jnp.full((4, 12), 7, jnp.int32)}  # one token for ever: far from what was learned
    scaled = state._replace(guard=state.guard._replace(norm_mean=state.guard.norm_mean / 50))
    _, report = step(scaled, spoiled)
    assert bool(report.bad)
    early = scaled._replace(guard=scaled.guard._replace(good_steps=jnp.int32(4)))
    _, report = step(early, spoiled)
    assert not bool(report.bad)


def test_microbatches_do_not_change_the_gradient() -> None:
    """Rows of very unequal weight: one has a single token under loss."""
    rows = batch(3)
    weights = np.asarray(rows["loss_weights"]).copy()
    weights[0] = 0
    weights[1] = 0
    weights[1, 3] = 0.25
    rows["loss_weights"] = jnp.asarray(weights)
    plain = configure(optimizer=OptimizerConfig(clip_norm=0.0))
    one, report_one = jax.jit(make_step_function(plain, GROUPS))(start(plain), rows)
    four = TrainConfig("run", "mixture", MODEL, 100, 4, 4, compute=plain.compute, schedule=plain.schedule,
                       optimizer=plain.optimizer)  # fmt: skip
    many, report_many = jax.jit(make_step_function(four, GROUPS))(start(four), rows)
    assert float(report_many.loss) == pytest.approx(float(report_one.loss), rel=1e-6)
    assert float(report_many.grad_norm) == pytest.approx(float(report_one.grad_norm), rel=1e-6)
    np.testing.assert_allclose(report_many.loss_G, report_one.loss_G, rtol=1e-6)
    # the first moment is (1 - b1) times the gradient
    moments = [jax.tree.leaves(state.opt_state) for state in (one, many)]
    for ours, theirs in zip(*moments, strict=True):
        scale = float(jnp.max(jnp.abs(theirs))) or 1.0
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * scale)


def test_a_batch_without_loss_is_a_step_without_a_gradient() -> None:
    config = configure(optimizer=OptimizerConfig(weight_decay=0.0))
    state = start(config)
    nothing = {**batch(0), "loss_weights": jnp.zeros((4, 12), jnp.float32)}
    after, report = jax.jit(make_step_function(config, GROUPS))(state, nothing)
    assert float(report.loss) == 0
    assert not bool(report.bad)
    assert same(state.params, after.params)


def test_the_run_stops_and_names_the_records_of_the_rows(command: Command, mixture: str, tmp_path: Path) -> None:
    """Every step after the first is called a spike: the second stops the run, and names its own four rows."""
    spike = ("GuardConfig.spike_factor=1.0000001", "GuardConfig.spike_after=0", "LEARNING_RATE=3.0", "WARMUP_STEPS=0")
    stopped = command(tmp_path / "run", *spike, "GuardConfig.on_bad_step='stop'", status=2)
    error = stopped.stderr.strip().splitlines()[-1]
    lines = metrics(tmp_path / "run")
    bad = max(lines)
    assert error.startswith(f"error: stopped at step {bad}, whose update was dropped: loss ")
    named = [json.loads(line) for line in (tmp_path / "run" / "bad_rows.jsonl").read_text().splitlines()]
    opened = open_mixture(mixture)
    rows = np.arange((bad - 1) * BATCH, bad * BATCH)
    assert sorted(row["row"] for row in named) == rows.tolist()
    where = opened.locate(rows)
    for row in named:
        place = row["row"] - rows[0]
        assert row["task"] == opened.task_names[where.task[place]]
        ids = {segment.record_id for segment in opened.caches[row["task"]].segments(int(where.cache_row[place]))}
        assert set(row["record_ids"]) == ids
        assert any(identifier in error for identifier in ids) or named.index(row) > 2
    assert not (tmp_path / "run" / "checkpoints" / str(bad)).exists()
    total = sum(line["loss"] for line in named)
    assert total > 0


def test_parameters_that_overflow_end_the_run(command: Command, tmp_path: Path) -> None:
    """A rate beyond all measure: the loss is finite, the parameters after it are not, and no checkpoint is made."""
    stopped = command(tmp_path / "run", "LEARNING_RATE=1e38", "WARMUP_STEPS=0", status=2)
    assert sorted(metrics(tmp_path / "run")) == [1]
    assert "stopped at step 1, after which parameters are not finite" in stopped.stderr
    assert not [path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal()]


def test_spikes_in_a_row_are_skipped_and_then_end_the_run(command: Command, tmp_path: Path) -> None:
    """Nothing is ever below a millionth above the mean for long: skipped steps go on with the next rows."""
    spike = ("GuardConfig.spike_factor=1.000001", "GuardConfig.spike_after=1", "GuardConfig.max_skipped=2")
    done = command(tmp_path / "run", *spike, "CheckpointConfig.every_steps=1", "LEARNING_RATE=1e-6", status=2)
    lines = metrics(tmp_path / "run")
    flags = [lines[step]["bad"] for step in sorted(lines)]
    assert flags[-3:] == [1, 1, 1]
    assert done.stdout.count("update dropped") == sum(flags) - 1
    good = {str(step) for step, line in lines.items() if not line["bad"]}
    saved = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal()}
    assert saved <= good
