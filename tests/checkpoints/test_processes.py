"""Saving from other processes: on many devices, from two processes, from one that is killed, onto a full disk."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from states import abstract, make_state

from hephaestus_jax.checkpoints import Checkpointer, storage
from hephaestus_jax.config import CheckpointConfig
from hephaestus_jax.errors import UserError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "checkpoints" / "save_process.py"
TIMEOUT_SECONDS = 200


def start(command, directory, *arguments):
    path = os.pathsep.join([str(ROOT), str(SCRIPT.parent)])
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), command, str(directory), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """(exit status, standard output, standard error)"""
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.slow
def test_any_mesh_restores_what_another_saved(tmp_path):
    assert finish(start("mesh", tmp_path)) == (0, "all well\n", "")


# ---- two processes


def run_two(directory, action):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    both = [start("process", directory, number, port, action) for number in range(2)]
    outcomes = [finish(process) for process in both]
    return [(status, out.splitlines()[-1], err) for status, out, err in outcomes]  # gloo prints lines of its own before


@pytest.mark.slow
def test_two_processes_save_and_restore(tmp_path, capfd):
    for status, out, err in run_two(tmp_path, "save"):
        assert (status, out) == (0, "restored 4 {'step': 4} []"), err
    assert sorted(os.listdir(tmp_path)) == ["3", "4"]
    data = [path for path in (tmp_path / "4").rglob("*") if path.is_file() and path.stat().st_size > 20_000]
    assert {path.relative_to(tmp_path / "4" / "state").parts[0] for path in data} == {
        "ocdbt.process_0", "ocdbt.process_1"
    }  # fmt: skip
    # damage in the shards of one process alone: both go back together, one says so
    victim = next(path for path in data if "ocdbt.process_1" in str(path))
    os.truncate(victim, 100)
    outcomes = run_two(tmp_path, "restore")
    for status, out, err in outcomes:
        assert (status, out) == (0, "restored 3 {'step': 3} ['4-1']"), err
    lines = [[line for line in err.splitlines() if "is damaged" in line] for _, _, err in outcomes]
    assert (len(lines[0]), lines[1]) == (1, [])
    assert sorted(os.listdir(tmp_path)) == ["3", "set_aside"]
    # one process reads what two have saved (bits were compared with their digests; its own random numbers differ in
    # the last one, compiled as they are in another way)
    one = Checkpointer(tmp_path, CheckpointConfig())
    restored = one.restore(abstract(make_state()))
    assert restored.step == 3
    assert jax.tree.all(jax.tree.map(lambda x, y: np.allclose(x, y, rtol=1e-5), restored.state, make_state(seed=1)))
    one.close()


# ---- killed


def losses_of(out):
    return {int(step): value for word, step, value in map(str.split, out.splitlines()[1:]) if word == "loss"}


@pytest.mark.slow
def test_killed_at_random_moments_it_resumes_from_a_whole_checkpoint(tmp_path):
    last, rng = 12, random.Random(2)
    status, out, err = finish(start("train", tmp_path / "undisturbed", last))
    assert (status, err) == (0, "")
    undisturbed = losses_of(out)
    assert len(set(undisturbed.values())) == last
    killed, directory, losses, in_open_save, resumed_at = 0, tmp_path / "killed", {}, 0, [0]
    while killed < 3:
        process = start("train", directory, last)
        assert process.stdout.readline() == f"resumed {resumed_at[-1]}\n"
        for _ in range(rng.randrange(1, 5)):
            _, step, value = process.stdout.readline().split()
            losses[int(step)] = value
        if killed != 1:  # into the save that follows this step
            deadline = time.monotonic() + 20
            while not storage.open_saves(directory) and time.monotonic() < deadline:
                time.sleep(0.0005)
        else:
            time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        losses.update({int(line.split()[1]): line.split()[2] for line in rest.splitlines() if line.count(" ") == 2})
        in_open_save += bool(storage.open_saves(directory))
        whole = storage.whole_steps(storage.open_directory(directory))
        assert whole or len(losses) <= 2, "at most the save of the last step may be lost"
        assert not whole or whole[-1] >= max(losses) - 2
        resumed_at.append(whole[-1] if whole else 0)
        killed += 1
    status, out, err = finish(start("train", directory, last))
    assert status == 0 and out.startswith(f"resumed {resumed_at[-1]}\n")
    assert {**losses, **losses_of(out)} == undisturbed
    assert in_open_save >= 1 and storage.open_saves(directory) == []
    assert err.count("a save that was not finished") == len(err.splitlines())


# ---- a full disk


@contextlib.contextmanager
def small_file_system(path, kilobytes):
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


SIZE = sum(leaf.nbytes for leaf in jax.tree.leaves(make_state())) // 1024  # kilobytes of one checkpoint


@pytest.mark.parametrize("room", [4, 12, 60, SIZE // 2, SIZE])  # for the second checkpoint
def test_a_full_file_system_is_one_line_and_the_last_checkpoint_stays_whole(tmp_path, capfd, room):
    state = make_state()
    with small_file_system(tmp_path / "small", 4 * SIZE) as small:
        one = Checkpointer(small, CheckpointConfig(every_steps=1))
        one.save(1, state, {"next_row": 8})
        one.wait()
        free = shutil.disk_usage(small).free
        (small / "filler").write_bytes(bytes(max(free - room * 1024, 0)))
        with pytest.raises(UserError) as caught:
            one.save(2, state, {"next_row": 16})
            one.wait()
        assert str(caught.value) == (
            f"cannot save step 2 to {small}: No space left on device; the last whole checkpoint is step 1; mend that"
            " and start again"
        )
        assert sorted(os.listdir(small)) == ["1", "filler"]
        (small / "filler").unlink()
        assert one.restore(abstract(state)).step == 1
        one.save(2, state, {"next_row": 16})  # mended
        assert one.restore(abstract(state)).facts == {"next_row": 16}
        one.close()
    assert capfd.readouterr().err == ""


def test_the_next_step_after_a_failed_save_tells(tmp_path, capfd):
    """The loop asks `should_save` at every step: it need not get to the next save to learn that the last one failed."""
    with small_file_system(tmp_path / "small", 32) as small:
        one = Checkpointer(small, CheckpointConfig(every_steps=1000))
        with pytest.raises(UserError, match="cannot save step 1 .*No space left.*there is no whole checkpoint yet"):
            one.save(1, make_state(), {}, force=True)
            for step in range(2, 400):
                one.should_save(step)
                time.sleep(0.01)
        one.close()
        assert os.listdir(small) == []
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_the_command_stops_with_one_line_on_a_full_disk(tmp_path):
    with small_file_system(tmp_path / "small", 1500) as small:
        status, out, err = finish(start("train", small, 9))
        assert status == 2 and out.startswith("resumed 0\nloss 1 ")
        assert err.startswith("error: cannot save step") and len(err.splitlines()) == 1, err
        assert "No space left on device" in err
        assert storage.open_saves(small) == []
