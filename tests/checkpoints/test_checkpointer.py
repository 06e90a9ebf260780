"""Saving, keeping and restoring, in one process."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from states import OPTIMIZER, abstract, host_copy, make_state, same_bits, train_step

from hephaestus_jax.checkpoints import Checkpointer, checkpointer, restore_parts, storage
from hephaestus_jax.config import CheckpointConfig
from hephaestus_jax.errors import UserError

ROOT = Path(__file__).parents[2]
FACTS = {"next_row": 40, "seed": 3, "mixture": "d1ge5t", "stages": [[0, {"code": 4}]], "nothing": None}
EVERY_STEP = CheckpointConfig(every_steps=1, keep=2)


@pytest.fixture
def opened():
    """Opens checkpointers that are closed after the test."""
    opened = []

    def open_one(directory, config=EVERY_STEP):
        opened.append(Checkpointer(directory, config))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def steps_in(directory):
    return sorted(int(name) for name in os.listdir(directory) if name.isdecimal())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_restored_is_what_was_saved_and_trains_on_alike(tmp_path, opened, dtype):
    state = make_state(dtype)
    losses = []
    for step in range(1, 11):
        state, loss = train_step(state)
        losses.append(float(loss))
        if step == 5:
            saver = opened(tmp_path)
            saver.save(5, state, FACTS, force=True)
            middle = host_copy(state)
    saver.wait()
    restored = opened(tmp_path).restore(abstract(make_state(dtype, seed=9)))
    assert (restored.step, restored.facts, restored.set_aside) == (5, FACTS, ())
    assert same_bits(restored.state, middle)
    resumed, rest = restored.state, []
    for _ in range(5):
        resumed, loss = train_step(resumed)
        rest.append(float(loss))
    assert rest == losses[5:] and len(set(losses)) == 10
    assert same_bits(resumed, state)


def test_an_array_that_earlier_versions_did_not_save_is_zeros(tmp_path, opened):
    old = {"guard": {"steps": jnp.int32(3)}}
    saver = opened(tmp_path)
    saver.save(1, old, {}, force=True)
    saver.wait()
    wanted = abstract({"guard": {"steps": jnp.int32(0), "mean": jnp.ones(2)}})
    with pytest.raises(UserError, match="guard/mean is not in it"):
        opened(tmp_path).restore(wanted)
    restored = opened(tmp_path).restore(wanted, later=("guard/mean",)).state["guard"]
    assert int(restored["steps"]) == 3 and restored["mean"].tolist() == [0, 0]


def test_dropping_later_checkpoints_leaves_the_oldest(tmp_path, opened):
    one = opened(tmp_path, CheckpointConfig(every_steps=1, keep=5))
    for step in (2, 4, 6):
        one.save(step, {"x": jnp.float32(step)}, {})
    one.drop_after(4)
    assert steps_in(tmp_path) == [2, 4]
    one.drop_after(0)
    assert steps_in(tmp_path) == [2]
    assert one.restore(abstract({"x": jnp.float32(0)})).step == 2


def test_buffers_may_be_donated_as_soon_as_save_returns(tmp_path, opened):
    one = opened(tmp_path)
    state, _ = train_step(make_state(width=64))
    for step in range(1, 41, 10):
        expected = host_copy(state)
        one.save(step, state, {})
        for _ in range(10):
            old = state
            state, _ = train_step(state)
        assert old.params["head"]["kernel"].is_deleted()
        restored = one.restore(abstract(state))
        assert restored.step == step and same_bits(restored.state, expected)


def test_saving_goes_on_behind_the_callers_back(tmp_path, opened, monkeypatch):
    """With the disk held up, `save` returns, the checkpoint is not there, and `wait` is what waits."""
    one = opened(tmp_path)
    commit = one._writer._handler.finalize
    held = 1.0  # seconds

    def finalize(directory):
        time.sleep(held)
        commit(directory)

    monkeypatch.setattr(one._writer._handler, "finalize", finalize)
    one.save(1, make_state(), FACTS)
    assert one.last_saved == 1 and steps_in(tmp_path) == []
    assert storage.open_saves(tmp_path) == ["1.orbax-checkpoint-tmp"]
    before = one.blocked_seconds
    one.wait()
    assert steps_in(tmp_path) == [1] and storage.open_saves(tmp_path) == []
    assert one.blocked_seconds - before > held / 2


def test_nothing_was_saved(tmp_path, opened):
    one = opened(tmp_path / "new")
    assert one.restore(abstract(make_state())) is None and one.last_saved is None


def test_an_atomic_commit_holds_state_facts_and_digests(tmp_path, opened):
    one = opened(tmp_path)
    one.save(7, make_state(), FACTS)
    one.wait()
    assert json.loads((tmp_path / "7" / "facts" / "metadata").read_text()) == FACTS
    index = json.loads((tmp_path / "7" / "digests" / "metadata").read_text())
    arrays = index["arrays"]
    assert arrays["params/layers/mlp/up/kernel"]["shape"] == [4, 32, 64]
    assert [len(arrays[name]["slabs"]) for name in ("params/layers/mlp/up/kernel", "step")] == [4, 1]
    assert "opt_state/0/mu/head/kernel" in arrays and len(arrays) == 4 + 2 * 4 + 1 + 1 + 3


def test_restored_onto_other_devices_shardings(tmp_path, opened):
    one = opened(tmp_path)
    state = make_state()
    one.save(1, state, FACTS)
    plain = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)  # no sharding: the first device
    assert same_bits(one.restore(plain).state, state)


# ---- which are saved and kept


def test_every_few_steps(tmp_path, opened):
    one = opened(tmp_path, CheckpointConfig(every_steps=3, keep=2))
    assert [step for step in range(10) if one.should_save(step)] == [3, 6, 9]
    state = make_state()
    for step in range(10):
        one.save(step, state, {})
    one.wait()
    assert steps_in(tmp_path) == [6, 9]
    assert one.last_saved == 9 and not one.should_save(9)


def test_no_step_is_written_twice(tmp_path, opened):
    one = opened(tmp_path)
    one.save(3, make_state(), {"first": True}, force=True)
    one.save(3, make_state(seed=1), {"first": False}, force=True)
    assert one.restore(abstract(make_state())).facts == {"first": True}
    again = opened(tmp_path)
    assert again.restore(abstract(make_state())).step == 3
    written = (tmp_path / "3" / "facts" / "metadata").stat().st_mtime_ns
    again.save(3, make_state(seed=1), {}, force=True)
    again.wait()
    assert (tmp_path / "3" / "facts" / "metadata").stat().st_mtime_ns == written


def test_keeps_the_newest_and_milestones(tmp_path, opened):
    one = opened(tmp_path, CheckpointConfig(every_steps=1, keep=3, keep_every_steps=4))
    state = make_state(width=8)
    for step in range(1, 10):
        one.save(step, state, {})
        one.wait()
        kept = [s for s in range(1, step + 1) if s > step - 3 or s % 4 == 0]
        assert steps_in(tmp_path) == kept
    assert [name for name in os.listdir(tmp_path) if not name.isdecimal()] == []


def test_by_minutes(tmp_path, opened, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpointer.time, "monotonic", lambda: now[0])
    one = opened(tmp_path, CheckpointConfig(every_steps=0, every_minutes=1.0))
    state, saved = make_state(width=8), []
    for step in range(1, 300):  # a step takes 3 s
        now[0] += 3.0
        if one.should_save(step):
            assert one.should_save(step)  # asking changes nothing
            one.save(step, state, {})
            saved.append(step)
    assert saved[0] == 20 and set(np.diff(saved)) == {20}


def test_other_processes_are_asked_rarely(monkeypatch):
    """As process 0 of two: a question costs a synchronisation, so few are put, and none late by much."""
    now, asked = [0.0], []
    monkeypatch.setattr(checkpointer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpointer.jax, "process_count", lambda: 2)
    monkeypatch.setattr(checkpointer.multihost_utils, "broadcast_one_to_all", lambda x: asked.append(x) or x)
    clock = checkpointer._Clock(600.0)
    rng, due_at = np.random.default_rng(0), []
    for step in range(1, 4000):
        now[0] += rng.uniform(0.5, 1.5)
        if clock.due(step):
            due_at.append((now[0], step))
            clock.restart()
    assert len(due_at) >= 6
    assert len(asked) <= 15 * (len(due_at) + 1)
    starts = [0.0, *(at for at, _ in due_at[:-1])]
    assert all(600 <= at - start <= 605 for (at, _), start in zip(due_at, starts, strict=True))


def test_what_a_killed_save_left_is_removed(tmp_path, opened, capsys):
    one = opened(tmp_path)
    one.save(2, make_state(), {})
    one.wait()
    for name in ("4.orbax-checkpoint-tmp", "1.deleting"):
        (tmp_path / name / "state").mkdir(parents=True)
    for name in ("007", "old.deleting", "set_aside"):  # not ours to remove
        (tmp_path / name).mkdir()
    again = opened(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["007", "2", "old.deleting", "set_aside"]
    assert capsys.readouterr().err == (f"removed {tmp_path / '4.orbax-checkpoint-tmp'}, a save that was not finished\n")
    assert again.restore(abstract(make_state())).step == 2


# ---- refusals


def test_another_model_is_refused_and_nothing_set_aside(tmp_path, opened):
    one = opened(tmp_path)
    one.save(1, make_state(width=32), {})
    with pytest.raises(UserError, match=r"params/embedder/embedding is float32\[300, 32\], not float32\[300, 16\]"):
        one.restore(abstract(make_state(width=16)))
    with pytest.raises(UserError, match=r"params/\S+ is float32.* not bfloat16") as caught:
        one.restore(abstract(make_state("bfloat16")))
    assert "\n" not in str(caught.value)
    state = make_state()
    with pytest.raises(UserError, match=r"it has opt_state/0/count too and 8 more differences"):
        one.restore(abstract(state._replace(opt_state=())))
    with pytest.raises(UserError, match="params/more is not in it"):
        one.restore(abstract(state._replace(params={**state.params, "more": jnp.zeros(3)})))
    assert sorted(os.listdir(tmp_path)) == ["1"]
    assert one.restore(abstract(state)).step == 1


def test_a_directory_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use checkpoint directory .*file/checkpoints"):
        Checkpointer(tmp_path / "file" / "checkpoints", EVERY_STEP)


def test_storage_that_cannot_be_read_is_no_damage(tmp_path, opened, monkeypatch):
    one = opened(tmp_path)
    one.save(1, make_state(), {})
    one.wait()

    def refuse(path, item):
        raise PermissionError(13, "Permission denied")

    def unavailable(path, item):
        raise ValueError("UNAVAILABLE: the bucket is away")

    read_bytes = type(storage.open_directory(tmp_path)).read_bytes
    for failure, message in ((refuse, "Permission denied"), (unavailable, "UNAVAILABLE")):
        monkeypatch.setattr(
            type(storage.open_directory(tmp_path)), "read_bytes", lambda path, fail=failure: fail(path, "")
        )
        with pytest.raises(UserError, match=f"cannot read checkpoint .*{message}.*start again"):
            one.restore(abstract(make_state()))
    monkeypatch.setattr(type(storage.open_directory(tmp_path)), "read_bytes", read_bytes)
    assert sorted(os.listdir(tmp_path)) == ["1"]
    assert one.restore(abstract(make_state())).step == 1


def test_a_later_format_is_refused(tmp_path, opened):
    one = opened(tmp_path)
    one.save(1, make_state(), {})
    one.wait()
    path = tmp_path / "1" / "digests" / "metadata"
    value = json.loads(path.read_text())
    value["format"] = 99
    value["sha256"] = storage.json_digest({k: v for k, v in value.items() if k != "sha256"})
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match="format 99.*upgrade"):
        one.restore(abstract(make_state()))
    assert steps_in(tmp_path) == [1]


# ---- parts of it


def test_parameters_alone(tmp_path, opened):
    one = opened(tmp_path, CheckpointConfig(every_steps=1, keep=5))
    states = {step: make_state(seed=step) for step in (1, 2)}
    for step, state in states.items():
        one.save(step, state, {"of": step})
    one.wait()
    wanted = {"params": abstract(states[1].params)}
    newest = restore_parts(tmp_path, wanted)
    assert (newest.step, newest.facts) == (2, {"of": 2}) and same_bits(newest.state["params"], states[2].params)
    assert same_bits(restore_parts(str(tmp_path), wanted, step=1).state["params"], states[1].params)
    both = restore_parts(tmp_path, {**wanted, "opt_state": abstract(OPTIMIZER.init(states[1].params))})
    assert same_bits(both.state["opt_state"], states[2].opt_state)
    with pytest.raises(UserError, match="no checkpoint of step 3 in .*; there are 1, 2"):
        restore_parts(tmp_path, wanted, step=3)
    with pytest.raises(UserError, match="no whole checkpoint in .*; there are none"):
        restore_parts(tmp_path / "elsewhere", wanted)
    with pytest.raises(UserError, match="params/embedder/embedding is float32"):
        restore_parts(tmp_path, {"params": abstract(make_state(width=8).params)})
    with pytest.raises(UserError, match="params/extra is not in it"):
        restore_parts(tmp_path, {"params": {"extra": jax.ShapeDtypeStruct((), jnp.float32)}})


# ---- what it prints and imports


def test_names_of_leaves():
    tree = {"a": {"b": 1}, "c": (2, [3])}
    assert storage.named_leaves(tree) == {"a/b": 1, "c/0": 2, "c/1/0": 3}
    assert storage.nested(storage.named_leaves(tree)) == {"a": {"b": 1}, "c": {"0": 2, "1": {"0": 3}}}
    with pytest.raises(ValueError, match="same name"):
        storage.named_leaves({"a": {"b": 1}, "a/b": 2})


def test_others_may_log_through_absl(tmp_path, opened, caplog):
    opened(tmp_path)
    logging.getLogger("absl").warning("not from Orbax")
    assert "not from Orbax" in caplog.text


def test_saving_and_restoring_is_silent_and_needs_no_tensorflow(tmp_path):
    code = """
    import sys, warnings
    warnings.simplefilter("always")
    from states import abstract, make_state
    from hephaestus_jax.checkpoints import Checkpointer
    from hephaestus_jax.config import CheckpointConfig

    state = make_state()
    for step in (1, 2, 3):
        one = Checkpointer(sys.argv[1], CheckpointConfig(every_steps=1, keep=2))
        one.save(step, state, {"next_row": 1})
        assert one.restore(abstract(state)).step == step
        one.close()
    assert not {"tensorflow", "seqio", "torch"} & set(sys.modules)
    """
    lines = [line[4:] for line in code.splitlines()]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "checkpoints")])
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
