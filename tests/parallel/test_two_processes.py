"""The real command as two processes of two devices each on loopback, against one process with four."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from compiling import QUICK
from processes import finish, free_port, wait_for_line

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

pytest.importorskip("pyarrow")  # which builds the rows; the command itself does without
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


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory):
    """The run directory of one process with four devices."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    [(status, _, errors)] = finish(start_on(command, 4, 1, run_dir))
    assert status == 0, errors[-3000:]
    return run_dir


def same_numbers(run_dir: Path, other: Path) -> None:
    """Every step's and every evaluation's numbers to 1e-6."""
    ours, theirs = metrics(run_dir), metrics(other)
    assert sorted(ours) == sorted(theirs) == list(range(1, 11))
    for step, line in theirs.items():
        names = [name for name in LOSSES if name in line]
        assert {"loss", "grad_norm", "param_norm"} <= set(names)
        assert [ours[step][name] for name in names] == pytest.approx([line[name] for name in names], rel=1e-6), step
        assert ours[step]["rows"] == line["rows"]


def test_two_processes_train_to_the_losses_of_one(command, alone, tmp_path):
    for status, _, errors in finish(start_on(command, 4, 2, tmp_path / "two")):
        assert status == 0, errors[-3000:]
    same_numbers(tmp_path / "two", alone)
    ours, theirs = metrics(tmp_path / "two", "eval"), metrics(alone, "eval")
    assert sorted(ours) == sorted(theirs) == [0, 4, 8, 10]
    for step, line in theirs.items():
        names = [name for name in line if name.endswith("nats_per_token")]
        assert len(names) == 2
        assert [ours[step][name] for name in names] == pytest.approx([line[name] for name in names], rel=1e-6), step


def test_a_signal_to_one_of_two_saves_and_ends_both_and_one_process_goes_on(command, alone, tmp_path):
    two = start_on(command, 4, 2, tmp_path / "run", "CheckpointConfig.every_steps=0")
    try:
        wait_for_line(two[0], "step 1 ")
        two[1].send_signal(signal.SIGTERM)
    finally:
        ended = finish(two)
    for status, _, errors in ended:
        assert status == 0, errors[-3000:]
    done = max(metrics(tmp_path / "run"))
    [(status, output, errors)] = finish(start_on(command, 4, 1, tmp_path / "run"))
    assert status == 0, errors[-3000:]
    assert re.search(rf"resumed at step {done}\b", output), output
    same_numbers(tmp_path / "run", alone)


def test_a_mistake_of_both_is_one_line_each(command, tmp_path):
    two = start_on(command, 4, 2, tmp_path / "two", "MIXTURE=/no/such/place")
    for status, _, errors in finish(two, timeout_seconds=120):
        assert status == 2
        assert "error: " in errors.splitlines()[-1]
        assert "no mixture at" in errors.splitlines()[-1]
