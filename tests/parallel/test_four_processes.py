"""Four processes of the real command, one of which is killed: four go on from the hosts' own disks, one of which is
new and one damaged, or two from the last checkpoint, on another mesh."""

import dataclasses
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from compiling import QUICK
from processes import finish

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

pytest.importorskip("pyarrow")  # which builds the rows; the command itself does without
from small_run import Command, metrics, write_mixture

from hephaestus_jax.checkpoints import storage
from tools.launch.platforms import local
from tools.launch.runner import Group

pytestmark = pytest.mark.slow
COMMON = ("LoggingConfig.tensorboard=False", "EvaluationConfig.every_steps=0", "LoggingConfig.compilation_cache=''")

EVERY = 20  # steps between persistent checkpoints; more than are taken between the first local saves and the kill


def local_steps(hosts, number):
    """Those of which a host has a whole local save."""
    return [int(path.name) for path in hosts.glob(f"{number}/process_*/[0-9]*") if path.name.isdecimal()]


class Lines:
    """What a group wrote, as a file would take it."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def of(lines, name):
    return [line.removeprefix(f"[{name}] ") for line in lines.text.splitlines() if line.startswith(f"[{name}] ")]


def four_hosts(command, run_dir, hosts, *overrides):
    """Four processes that are replicas two by two, each with a disk of its own."""
    mesh = ("MeshConfig.data=2", "MeshConfig.fsdp=2", f"CheckpointConfig.every_steps={EVERY}")
    arguments = command.arguments(run_dir, *COMMON, *mesh, "CheckpointConfig.local_every_steps=1", *overrides)
    return [
        dataclasses.replace(one, arguments=[*one.arguments, f"--gin.CheckpointConfig.local_dir={hosts / one.name}"])
        for one in local(arguments, processes=4, devices=1)
    ]


def test_one_of_four_is_killed_and_the_run_goes_on(tmp_path):
    random.seed(time.time())  # at another moment each time
    command = Command(tmp_path, write_mixture(tmp_path / "mixture"))
    lines, victim, run, hosts = Lines(), random.randrange(1, 4), tmp_path / "run", tmp_path / "hosts"
    with Group(four_hosts(command, run, hosts, "TRAIN_STEPS=100000"), lines) as group:
        while not all(max(local_steps(hosts, number), default=0) > EVERY + 1 for number in range(4)):
            assert all(process.poll() is None for process in group.processes), lines.text
            time.sleep(0.005)
        time.sleep(0.1 * random.random())
        group.processes[victim].send_signal(signal.SIGKILL)
        assert group.wait() == 128 + signal.SIGKILL
    # Process 0 has the coordination service: should it be gone before another has said so, JAX aborts that one; and
    # gloo aborts one that reads what a failing other has sent out of turn.
    others = [process.returncode for number, process in enumerate(group.processes) if number != victim]
    assert set(others) <= {1, -signal.SIGABRT}, lines.text
    for number in [n for n, process in enumerate(group.processes) if process.returncode == 1]:
        said = [line for line in of(lines, number) if line.startswith("error: ")]
        assert len(said) == 1 and said[0].startswith("error: another process of this run has ended"), lines.text
    assert "Traceback" not in lines.text
    assert of(lines, "launch") == [f"process {victim} was ended by SIGKILL; the others are ended"]
    newest = storage.whole_steps(storage.open_directory(run / "checkpoints"))[-1]
    assert newest >= EVERY
    shutil.copytree(run, tmp_path / "fewer")
    steps = newest + 8
    end = f"TRAIN_STEPS={steps}"

    # The victim's host is new, and on another one, whose replica is not the victim, a piece is damaged.
    held = max(step for number in range(4) for step in local_steps(hosts, number))
    shutil.rmtree(hosts / str(victim))
    damaged = 1 if victim != 1 and victim != 3 else 2
    for pieces in (hosts / str(damaged)).rglob("pieces"):
        data = bytearray(pieces.read_bytes())
        data[len(data) // 2] ^= 1
        pieces.write_bytes(data)
    again = Lines()
    with Group(four_hosts(command, run, hosts, end), again) as group:
        assert group.wait() == 0, again.text
    [resumed] = [line for line in of(again, 0) if line.startswith("resumed at step")]
    assert resumed.endswith("from the hosts' own disks (2 of 4 processes got theirs from others)"), again.text
    assert newest < int(re.search(r"step (\d+)", resumed)[1]) <= held
    assert any("is damaged" in line for line in of(again, damaged))

    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=4 {QUICK}"}
    alone = command.start(tmp_path / "alone", *COMMON, end, "MeshConfig.fsdp=4", environment=flags)
    two = command.arguments(tmp_path / "fewer", *COMMON, end, "MeshConfig.fsdp=2", "MeshConfig.tensor=2")
    fewer = Lines()
    with Group(local(two, processes=2, devices=2), fewer) as group:
        assert group.wait() == 0, fewer.text
    [(status, _, errors)] = finish([alone])
    assert status == 0, errors
    assert any(re.match(rf"resumed at step {newest:,}, row {4 * newest:,},", line) for line in of(fewer, 0))
    for run_dir in (run, tmp_path / "fewer"):
        same_losses(metrics(run_dir), metrics(tmp_path / "alone"), steps)


def same_losses(ours, theirs, steps):
    assert sorted(ours) == sorted(theirs) == list(range(1, steps + 1))
    for step, line in theirs.items():
        assert ours[step]["rows"] == line["rows"]
        assert {k: v for k, v in ours[step].items() if "tokens/" in k} == {
            k: v for k, v in line.items() if "tokens/" in k
        }
        assert ours[step]["loss"] == pytest.approx(line["loss"], rel=1e-6), step
