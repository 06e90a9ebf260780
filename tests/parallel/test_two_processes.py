"""The real command as two processes of two devices each on loopback, against one process with four."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import QUICK, finish, free_port, wait_for_line

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from small_run import Command, metrics, write_mixture

pytestmark = pytest.mark.slow
MESH = ("MeshConfig.fsdp=2", "MeshConfig.tensor=2", "LoggingConfig.tensorboard=False")
LOSSES = ("loss", "loss/code", "loss/docs", "loss/text", "z_loss", "grad_norm", "param_norm")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    return Command(tmp_path_factory.mktemp("command"), write_mixture(tmp_path_factory.mktemp("mixture")))


def start_on(command: Command, devices: int, processes: int, run_dir: Path, *overrides: str) -> list[subprocess.Popen]:
    """`devices` virtual devices shared evenly by `processes` of one run."""
    flags = f"--xla_force_host_platform_device_count={devices // processes} {QUICK}"
    environment = {"XLA_FLAGS": flags, "HEPHAESTUS_PROCESSES": str(processes)}
    if processes == 1:
        return [command.start(run_dir, *MESH, *overrides, environment=environment)]
    environment["HEPHAESTUS_COORDINATOR"] = f"127.0.0.1:{free_port()}"
    return [
        command.start(run_dir, *MESH, *overrides, environment={**environment, "HEPHAESTUS_PROCESS_ID": str(number)})
        for number in range(processes)
    ]


def test_two_processes_train_to_the_losses_of_one(command, tmp_path):
    alone = start_on(command, 4, 1, tmp_path / "alone", "TRAIN_STEPS=6")
    two = start_on(command, 4, 2, tmp_path / "two", "TRAIN_STEPS=6")
    for status, _, errors in finish([*alone, *two]):
        assert status == 0, errors[-3000:]
    ours, theirs = metrics(tmp_path / "two"), metrics(tmp_path / "alone")
    assert sorted(ours) == sorted(theirs) == [1, 2, 3, 4, 5, 6]
    for step, line in theirs.items():
        names = [name for name in LOSSES if name in line]
        assert {"loss", "grad_norm", "param_norm"} <= set(names)
        assert [ours[step][name] for name in names] == pytest.approx([line[name] for name in names], rel=1e-6), step
        assert ours[step]["rows"] == line["rows"]
    for step, line in metrics(tmp_path / "alone", "eval").items():
        held_out = {name: value for name, value in line.items() if name.endswith("nats_per_token")}
        assert len(held_out) == 2
        same = {name: metrics(tmp_path / "two", "eval")[step][name] for name in held_out}
        assert same == pytest.approx(held_out, rel=1e-6)


def test_a_signal_to_one_of_two_saves_and_ends_both_and_one_process_goes_on(command, tmp_path):
    alone = start_on(command, 4, 1, tmp_path / "alone")
    two = start_on(command, 4, 2, tmp_path / "two", "CheckpointConfig.every_steps=0")
    try:
        wait_for_line(two[0], "step 1 ")
        two[1].send_signal(signal.SIGTERM)
    finally:
        ended = finish([*two, *alone])
    for status, _, errors in ended:
        assert status == 0, errors[-3000:]
    done = max(metrics(tmp_path / "two"))
    [(status, output, errors)] = finish(start_on(command, 4, 1, tmp_path / "two"))
    assert status == 0, errors[-3000:]
    assert re.search(rf"resumed at step {done}\b", output), output
    ours, theirs = metrics(tmp_path / "two"), metrics(tmp_path / "alone")
    assert sorted(ours) == sorted(theirs) == list(range(1, 11))
    assert [line["loss"] for line in ours.values()] == pytest.approx(
        [line["loss"] for line in theirs.values()], rel=1e-6
    )


def test_what_one_process_cannot_read_is_one_line_and_ends_both(command, tmp_path):
    """A mistake that only one process makes, before any step."""
    two = start_on(command, 4, 2, tmp_path / "two", "MIXTURE=/no/such/place")
    for status, _, errors in finish(two, timeout_seconds=120):
        assert status == 2
        assert "error: " in errors.splitlines()[-1] and "no mixture at" in errors.splitlines()[-1]
