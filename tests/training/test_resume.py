"""A run that is broken off and resumed is the run that was not: separate processes of the real command."""

import signal
from pathlib import Path

import numpy as np
import pytest
from compiling import QUICK
from small_run import BATCH, STAGES, Command, exact, metrics

from hephaestus_jax.data.mixture import open_mixture


def test_the_small_run_crosses_an_epoch_and_a_stage_on_both_sides(mixture: str) -> None:
    opened = open_mixture(mixture)
    for rows in (np.arange(0, 5 * BATCH), np.arange(5 * BATCH, 10 * BATCH)):
        docs = opened.task_names.index("docs")
        where = opened.locate(rows)
        assert len(set(where.epoch[where.task == docs].tolist())) > 1
    assert 0 < STAGES[1][0] < 5 * BATCH
    assert opened.epochs(10 * BATCH)[opened.task_names.index("text")].epochs > 1


def test_five_and_five_steps_are_ten(command: Command, undisturbed: Path, tmp_path: Path) -> None:
    first = command(tmp_path / "run", "TRAIN_STEPS=5")
    assert "done: step 5 of 5, row 20" in first.stdout
    second = command(tmp_path / "run")
    assert "resumed at step 5, row 20" in second.stdout
    assert "train_steps 5 → 10" in second.stdout
    assert exact(tmp_path / "run") == exact(undisturbed)
    assert len(exact(undisturbed)) == 10
    ours, theirs = metrics(tmp_path / "run", "eval"), metrics(undisturbed, "eval")
    assert theirs.keys() == {0, 4, 8, 10}
    assert {step: ours[step] for step in theirs} == theirs
    assert last_digests(tmp_path / "run") == last_digests(undisturbed)


def last_digests(run_dir: Path) -> str:
    """The content digests of the last checkpoint: parameters, moments, step and guard."""
    return (run_dir / "checkpoints" / "10" / "digests" / "metadata").read_text()


def test_stop_after_is_no_part_of_the_run(command: Command, undisturbed: Path, tmp_path: Path) -> None:
    for step in (3, 7):
        stopped = command(tmp_path / "run", f"TrainConfig.stop_after={step}")
        assert f"saved: step {step} of 10" in stopped.stdout
    command(tmp_path / "run")
    assert exact(tmp_path / "run") == exact(undisturbed)
    assert last_digests(tmp_path / "run") == last_digests(undisturbed)
    assert "this run is complete: 10 of 10 steps" in command(tmp_path / "run").stdout


def test_sigterm_saves_and_exits_with_0(command: Command, undisturbed: Path, tmp_path: Path) -> None:
    more = ("TRAIN_STEPS=100000", "EvaluationConfig.every_steps=0", "CheckpointConfig.every_steps=0")
    process = command.start(tmp_path / "run", *more)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 20 of"):
            process.send_signal(signal.SIGTERM)
            break
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    done = metrics(tmp_path / "run")
    assert f"saved: step {max(done):,} of 100,000, row {BATCH * max(done):,}" in output
    assert (tmp_path / "run" / "checkpoints" / str(max(done))).is_dir()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [str(max(done))]
    compared = {step: line["loss"] for step, line in done.items() if step <= 10}
    assert compared == {step: line["loss"] for step, line in metrics(undisturbed).items()}
    resumed = command(tmp_path / "run", *more, f"TrainConfig.stop_after={max(done) + 1}")
    assert f"resumed at step {max(done):,}" in resumed.stdout


def test_a_second_run_in_the_same_directory_is_refused(command: Command, tmp_path: Path) -> None:
    process = command.start(tmp_path / "run", "TRAIN_STEPS=100000", "EvaluationConfig.every_steps=0")
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("step 1 of"):
                break
        refused = command(tmp_path / "run", status=2)
        assert refused.stderr.count("\n") == 1
        assert "is running in" in refused.stderr
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("change", ["MeshConfig.tensor=2"])  # fsdp: tests/checkpoints/test_processes.py
def test_resuming_on_another_mesh(command: Command, undisturbed: Path, tmp_path: Path, change: str) -> None:
    command(tmp_path / "run", "TRAIN_STEPS=5")
    two = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {QUICK}"}
    command(tmp_path / "run", change, environment=two)
    ours, theirs = metrics(tmp_path / "run"), metrics(undisturbed)
    for step in range(6, 11):
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], rel=1e-6)
