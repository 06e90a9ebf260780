"""Saves on a host's own disk, in one process; tests/parallel/test_four_processes.py has several."""

import shutil

import jax.numpy as jnp
import pytest
from states import abstract

from hephaestus_jax.checkpoints import Checkpointer
from hephaestus_jax.config import CheckpointConfig
from hephaestus_jax.errors import UserError


def state(number):
    """Arrays of several kinds, a scalar among them."""
    return {
        "w": jnp.arange(12.0).reshape(3, 4) + number,
        "half": jnp.full((5,), number, jnp.bfloat16),
        "flags": jnp.array([True, False, True]),
        "step": jnp.int32(number),
    }


@pytest.fixture
def opened(tmp_path):
    """Opens checkpointers on one directory, which are closed after the test."""
    opened = []

    def open_one():
        config = CheckpointConfig(every_steps=2, local_dir=str(tmp_path / "local"), local_every_steps=1)
        opened.append(Checkpointer(tmp_path / "checkpoints", config))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def saved(one, *, whole=(), local=()):
    """Checkpoints of some steps, then local saves of others."""
    for step in whole:
        one.save(step, state(step), {"next_row": 4 * step}, force=True)
    one.wait()
    for step in local:
        assert one.should_save_locally(step)
        one.save_locally(step, state(step), {"next_row": 4 * step})
    if local:
        one._local.wait()


def newest(one):
    restored = one.restore(abstract(state(0)))
    assert restored.facts == {"next_row": 4 * restored.step}
    assert all((restored.state[name] == array).all() for name, array in state(restored.step).items())
    return restored.step, restored.source


def steps_in(tmp_path):
    return sorted(int(path.name) for path in (tmp_path / "local" / "process_0").iterdir())


def test_a_local_save_newer_than_the_last_checkpoint_is_restored(opened, tmp_path):
    saved(opened(), whole=[2], local=[3, 4, 5])
    assert steps_in(tmp_path) == [4, 5]
    assert newest(opened()) == (5, "the hosts' own disks")
    assert steps_in(tmp_path) == [5]


def test_an_older_one_is_not_and_goes(opened, tmp_path):
    saved(opened(), whole=[2], local=[3])
    saved(opened(), whole=[4])
    assert newest(opened()) == (4, str(tmp_path / "checkpoints"))
    assert steps_in(tmp_path) == []


def test_without_a_checkpoint_there_is_none(opened, tmp_path):
    saved(opened(), local=[1])
    assert steps_in(tmp_path) == []
    assert opened().restore(abstract(state(0))) is None


def test_a_damaged_one_is_told_and_the_one_before_serves(opened, tmp_path, capfd):
    saved(opened(), whole=[2], local=[3, 4])
    pieces = tmp_path / "local" / "process_0" / "4" / "pieces"
    data = bytearray(pieces.read_bytes())
    data[7] ^= 1
    pieces.write_bytes(data)
    assert newest(opened()) == (3, "the hosts' own disks")
    (tmp_path / "local" / "process_0" / "3" / "index.json").write_text("{}")
    assert newest(opened()) == (2, str(tmp_path / "checkpoints"))
    assert capfd.readouterr().err.count("is damaged") == 2


def test_those_of_another_run_are_not_used(opened, tmp_path):
    saved(opened(), whole=[2], local=[3])
    shutil.rmtree(tmp_path / "checkpoints")
    one = opened()
    one.save(2, state(2), {"next_row": 9}, force=True)  # begun anew in the same place
    one.wait()
    assert opened().restore(abstract(state(0))).step == 2


def test_going_back_forgets_them(opened, tmp_path):
    one = opened()
    saved(one, whole=[2], local=[3])
    one.drop_after(9)
    assert newest(opened())[0] == 2


def test_half_a_setting_is_refused():
    with pytest.raises(UserError, match="local_every_steps is 0; give both or neither"):
        CheckpointConfig(local_dir="/tmp")
