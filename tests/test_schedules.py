"""Learning-rate schedules against their closed forms, in plain Python floats, at every step."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.config import ScheduleConfig
from hephaestus_jax.optimizers import make_schedule

KINDS = [("cosine", "linear"), ("constant", "linear"), ("wsd", "linear"), ("wsd", "cosine"), ("wsd", "sqrt")]


def closed_form(config: ScheduleConfig, train_steps: int, step: int) -> float:
    """The rate of a step that counts from 0."""
    done, warmup = step + 1, config.warmup_steps
    if done <= warmup:
        return config.peak * (config.initial_fraction + (1 - config.initial_fraction) * done / warmup)
    if config.kind == "constant":
        return config.peak
    decay = train_steps - warmup if config.kind == "cosine" else config.decay_steps
    share = min(max(0.0, (done - (train_steps - decay)) / decay), 1.0)
    shape = "cosine" if config.kind == "cosine" else config.decay_shape
    if shape == "linear":
        height = 1 - share
    elif shape == "sqrt":
        height = 1 - math.sqrt(share)
    else:
        height = 0.5 * (1 + math.cos(math.pi * share))
    return config.peak * (config.final_fraction + (1 - config.final_fraction) * height)


def rates(config: ScheduleConfig, train_steps: int, extra: int = 0) -> np.ndarray:
    steps = jnp.arange(train_steps + extra, dtype=jnp.int32)
    return np.asarray(jax.jit(jax.vmap(make_schedule(config, train_steps)))(steps))


def config_of(kind: str, shape: str, **others: object) -> ScheduleConfig:
    decay_steps = {"decay_steps": 30, "decay_shape": shape} if kind == "wsd" else {}
    return ScheduleConfig(kind=kind, **{"warmup_steps": 11, "peak": 3e-4, **decay_steps, **others})  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "shape"), KINDS)
@pytest.mark.parametrize("initial_fraction", [0.0, 0.1])
def test_every_step_has_its_closed_form(kind: str, shape: str, initial_fraction: float) -> None:
    config = config_of(kind, shape, initial_fraction=initial_fraction, final_fraction=0.1)
    expected = [closed_form(config, 173, step) for step in range(173)]
    np.testing.assert_allclose(rates(config, 173), expected, rtol=3e-6)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_ends_are_exact(data: st.DataObject) -> None:
    """For any sizes, compiled: the peak where warm-up ends, the final share at the last step and after it."""
    kind, shape = data.draw(st.sampled_from(KINDS))
    warmup = data.draw(st.integers(0, 60))
    decay = data.draw(st.integers(1, 60))
    train_steps = warmup + decay + data.draw(st.integers(0, 300))
    final = data.draw(st.sampled_from([0.0, 0.07, 0.1, 1.0]))
    peak = data.draw(st.floats(1e-6, 1.0))
    others = {"warmup_steps": warmup, "final_fraction": final, "peak": peak}
    if kind == "wsd":
        others["decay_steps"] = decay
    config = config_of(kind, shape, **others)
    found = rates(config, train_steps, extra=5)
    last = peak if kind == "constant" else peak * final
    assert (found[train_steps - 1 :] == np.float32(last)).all()
    if warmup:
        assert found[warmup - 1] == np.float32(peak)
        assert (np.diff(found[:warmup]) > 0).all()
    if kind == "wsd":
        assert (found[max(warmup - 1, 0) : train_steps - decay] == np.float32(peak)).all()
    after = found[max(warmup - 1, 0) :]
    assert (np.diff(after) <= np.float32(peak) * 1e-6).all()


@pytest.mark.parametrize("steps", [41, 49, 55])
@pytest.mark.parametrize("shape", ["linear", "sqrt"])
def test_lengths_that_compiled_code_does_not_divide_exactly(steps: int, shape: str) -> None:
    """`steps / steps`, compiled as `steps · (1 / steps)`, is below 1 for these."""
    config = config_of("wsd", shape, warmup_steps=steps, decay_steps=steps, final_fraction=0.0, peak=1.0)
    found = rates(config, 3 * steps)
    assert (found[steps - 1], found[2 * steps - 1], found[-1]) == (1.0, 1.0, 0.0)


def test_the_first_step_already_moves() -> None:
    found = rates(ScheduleConfig(kind="constant", warmup_steps=4, peak=1.0), 10)
    assert found.tolist() == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_warming_up_again_starts_where_the_base_run_ended() -> None:
    found = rates(ScheduleConfig(kind="constant", warmup_steps=10, peak=1.0, initial_fraction=0.1), 12)
    np.testing.assert_allclose(found[:3], [0.19, 0.28, 0.37], rtol=1e-6)
    assert found[9] == 1.0


def test_one_traced_int32_step() -> None:
    config = config_of("wsd", "sqrt")
    schedule = make_schedule(config, 100)
    traced = jax.jit(schedule)
    for step in (0, 10, 11, 69, 70, 99):
        rate = traced(jnp.int32(step))
        assert rate.shape == () and rate.dtype == jnp.float32
        np.testing.assert_allclose(float(rate), closed_form(config, 100, step), rtol=3e-6)
        np.testing.assert_allclose(float(schedule(step)), float(rate), rtol=3e-6)


def test_long_runs_keep_their_precision() -> None:
    """A million steps: the rate near the end is still right to a millionth of the peak."""
    config = ScheduleConfig(kind="cosine", warmup_steps=2000, peak=1.0, final_fraction=0.0)
    schedule = jax.jit(make_schedule(config, 1_000_000))
    for step in (1999, 2000, 500_000, 999_000, 999_998, 999_999):
        assert abs(float(schedule(jnp.int32(step))) - closed_form(config, 1_000_000, step)) < 1e-6
