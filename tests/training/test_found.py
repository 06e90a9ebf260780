"""Mistakes and mishaps that once gave a traceback, a wrong run or a misleading line."""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from small_run import ROOT, Command, metrics

from hephaestus_jax.checkpoints import Checkpointer
from hephaestus_jax.config import CheckpointConfig, GuardConfig
from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.mixture_spec import load_mixture_spec
from hephaestus_jax.errors import UserError
from hephaestus_jax.first_state import first_state
from hephaestus_jax.run_directory import RunDirectory
from hephaestus_jax.skipped_rows import SkippedRows


def test_sigterm_before_the_first_step_saves_and_exits_0(command: Command, tmp_path: Path) -> None:
    process = command.start(tmp_path / "run", "EvaluationConfig.every_steps=5")
    assert process.stdout is not None
    assert any("started from scratch" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)  # at the latest during the evaluation of step 0
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    assert "saved: step 0 of 10" in output
    assert "resumed at step 0, row 0" in command(tmp_path / "run").stdout
    assert sorted(metrics(tmp_path / "run")) == list(range(1, 11))


def test_a_run_that_does_no_step_writes_no_line_twice(command: Command, tmp_path: Path) -> None:
    for _ in range(2):
        command(tmp_path / "run", "TrainConfig.stop_after=1")
    assert set(metrics(tmp_path / "run", "run")) == {1}


def test_checkpoints_without_run_json_are_not_taken_over(command: Command, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    refused = command(tmp_path / "run", "TRAIN_STEPS=12", "BATCH_SIZE=2", "OptimizerConfig.b2=0.99", status=2)
    assert "has checkpoints, but no run.json" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("change", [{"identity": 5}, {"identity": {}}, {"starts": 5}, {"config": []}])
def test_a_run_json_of_other_kinds_is_one_line(undisturbed: Path, tmp_path: Path, change: dict) -> None:
    shutil.copy(undisturbed / "run.json", tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(UserError, match="not as it was written"):
        RunDirectory(tmp_path).record()


@pytest.mark.parametrize("name", ["a*", "seed[1]", "what?"])
def test_a_checkpoint_directory_that_is_a_pattern_is_refused(tmp_path: Path, name: str) -> None:
    """Orbax saves there without a word, and what it saves cannot be read."""
    with pytest.raises(UserError, match="use another one"):
        Checkpointer(tmp_path / name, CheckpointConfig())


def test_a_failed_save_is_named_by_its_step_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointer = Checkpointer(tmp_path / "run", CheckpointConfig())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointer._writer, "wait_until_finished", full)
    monkeypatch.setattr(checkpointer, "_writing", 7)
    with pytest.raises(UserError, match="cannot save step 7"):
        checkpointer.wait()
    checkpointer.close()  # what the end of the run does; the line above is the one to be seen


def test_an_infinite_spike_factor_is_refused() -> None:
    with pytest.raises(UserError, match="spike_factor is inf"):
        GuardConfig(spike_factor=float("inf"))


def test_a_run_of_another_vocabulary_is_no_beginning(undisturbed: Path, mixture: str) -> None:
    config = SimpleNamespace(init_from=str(undisturbed), init_optimizer=False, lora=None)
    nothing = SimpleNamespace(restore=lambda *_, **__: None)
    abstract = SimpleNamespace(params={"final_norm": {"scale": jax.ShapeDtypeStruct((32,), jnp.float32)}})
    digest = load_mixture_spec(mixture).vocabulary.digest
    other = VocabularyIdentity("other.model", "another", 320)
    with pytest.raises(UserError, match=f"vocabulary of digest {digest[:12]}, this mixture one of another"):
        first_state(config, nothing, abstract, {}, other, SkippedRows())  # type: ignore[arg-type]


def test_steps_to_trace_that_will_not_come_are_told(command: Command, tmp_path: Path) -> None:
    told = "no trace: steps 50 to 60 are not among those to do (1 and later)"
    assert told in command(tmp_path / "run", "--profile_steps=50-60", "TRAIN_STEPS=1").stdout


def test_a_mistake_is_one_line_from_any_folder(command: Command, tmp_path: Path) -> None:
    arguments = command.arguments(tmp_path / "run", "BATCH_SIZE=0")
    environment = command.environment({"PYTHONPATH": str(ROOT)})
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert done.stderr.startswith("error: ")


def test_a_file_where_a_folder_should_be_is_one_line(command: Command, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    (tmp_path / "run" / "tensorboard").write_text("")
    refused = command(tmp_path / "run", "TRAIN_STEPS=12", "LoggingConfig.tensorboard=True", status=2)
    assert refused.stderr.count("\n") == 1
    assert "tensorboard" in refused.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("SEED=6", "seed changed from 5 to 6"),
        ("EvaluationConfig.batch_size=3", None),
        ("ModelConfig.max_positions=16", "max_positions"),
        ("TRAIN_STEPS=1" + "0" * 400, "train_steps"),
    ],
)
def test_a_dry_run_stops_where_the_run_would(
    command: Command, undisturbed: Path, tmp_path: Path, change: str, words: str | None
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    done = command(tmp_path / "run", change, "--dry_run", status=0 if words is None else 2)
    if words is not None:
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_dry_run_looks_for_the_base(command: Command, tmp_path: Path) -> None:
    missing = command(tmp_path / "run", f"TrainConfig.init_from={tmp_path / 'none'}", "--dry_run", status=2)
    assert "nothing to begin from" in missing.stderr


def test_warm_up_and_decay_must_fit(command: Command, tmp_path: Path) -> None:
    wsd = ("ScheduleConfig.kind=wsd", "ScheduleConfig.decay_steps=5", "WARMUP_STEPS=8", "--dry_run")
    assert "warm-up and decay take 13 of 10 steps" in command(tmp_path / "run", *wsd, status=2).stderr
    assert "so the rate only rises" in command(tmp_path / "run", "WARMUP_STEPS=30", "--dry_run").stdout
