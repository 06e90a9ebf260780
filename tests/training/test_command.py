"""What the command does besides training: dry run, identity, other runs' checkpoints, user files, profiles, errors."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_run import BATCH, LENGTH, ROOT, Command, exact, metrics

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.data.mixture_spec import load_mixture_spec, save_mixture_spec

# Steps 1, 5 and 10 of the small run, nats per token: float32 on the CPU; other machines differ in the last bits.
GOLDEN = {1: 5.79073047, 5: 5.72428750, 10: 5.64420890}


def test_golden_losses(undisturbed: Path) -> None:
    losses = {step: metrics(undisturbed)[step]["loss"] for step in GOLDEN}
    assert losses == pytest.approx(GOLDEN, rel=1e-5)


def test_what_a_run_leaves(undisturbed: Path, mixture: str) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    assert {"config.gin", "run.json", "metrics.jsonl", "tensorboard", "checkpoints"} <= names
    line = metrics(undisturbed)[10]
    assert line["rows"] == 40
    assert line["loss_tokens/docs"] + line["loss_tokens/text"] + line["loss_tokens/code"] > 0
    for name in ("loss", "z_loss", "grad_norm", "param_norm", "learning_rate", "tokens_per_second", "memory_bytes"):
        assert line[name] > 0, name
    assert line["mfu"] is None  # no peak is known for a CPU
    assert line["loss_tokens_per_second"] < line["tokens_per_second"]
    run = json.loads((undisturbed / "run.json").read_text())
    assert run["identity"]["model.num_layers"] == 2
    assert run["starts"][0]["devices"] == 1
    assert run["versions"]["jax"]
    assert "recomputation not counted" in run["conventions"]["mfu"]
    assert set(run["digests"]) >= {"mixture", "vocabulary"}
    held_out = metrics(undisturbed, "eval")[10]
    assert held_out["docs/nats_per_token"] == pytest.approx(math.log(300), abs=1.0)
    goodput = {name: value for name, value in metrics(undisturbed, "run")[10].items() if name.startswith("goodput/")}
    assert sum(goodput.values()) == pytest.approx(1.0, abs=1e-6)
    assert goodput["goodput/compile"] > 0
    assert goodput["goodput/train"] > 0


def test_the_loss_of_the_batch_is_that_of_its_tasks(undisturbed: Path) -> None:
    weights = {"code": 1.0, "docs": 1.0}
    for line in metrics(undisturbed).values():
        tasks = {name for name in weights if f"loss/{name}" in line}
        if not line["loss_tokens/text"]:  # the weights of text are fractional, and not in the file
            total = sum(line[f"loss/{name}"] * line[f"loss_tokens/{name}"] for name in tasks)
            assert line["loss"] == pytest.approx(total / sum(line[f"loss_tokens/{name}"] for name in tasks), rel=1e-5)


def test_mfu_of_a_peak_that_is_given(command: Command, tmp_path: Path) -> None:
    done = command(
        tmp_path / "run", "LoggingConfig.peak_tflops=0.001", "TRAIN_STEPS=3", "EvaluationConfig.every_steps=0"
    )
    assert "recomputation not counted" in done.stdout
    line, config = metrics(tmp_path / "run")[3], ModelConfig("t", 320, 32, 64, 2, 4, 2, 8, tied_embeddings=True)
    expected = config.flops_per_token(LENGTH) * line["tokens_per_second"] / 1e9
    assert line["mfu"] == pytest.approx(expected, rel=1e-6)
    assert [text for text in done.stdout.splitlines() if text.startswith("step 3 of 3") and ", MFU " in text]


def test_dry_run_writes_nothing(command: Command, tmp_path: Path) -> None:
    done = command(tmp_path / "run", "--dry_run")
    assert not (tmp_path / "run").exists()
    parameters = ModelConfig("test", 320, 32, 64, 2, 4, 2, 8, tied_embeddings=True).num_parameters
    assert f"{parameters:,} parameters" in done.stdout
    for words in ("epochs", "FLOPs per step", "memory per device", "estimated time", f"{10 * BATCH * LENGTH:,} tokens"):
        assert words in done.stdout, words


def test_identity_is_refused_and_the_rest_is_free(
    command: Command, undisturbed: Path, mixture: str, tmp_path: Path
) -> None:
    command(tmp_path / "run", "TRAIN_STEPS=5")
    for change, words in (
        ("ModelConfig.mlp_dim=96", "model.mlp_dim changed from 64 to 96"),
        ("SEED=6", "seed changed from 5 to 6"),
        ("BATCH_SIZE=8", "batch_size changed from 4 to 8"),
        ("OptimizerConfig.b2=0.99", "optimizer.b2 changed"),
    ):
        refused = command(tmp_path / "run", change, status=2)
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert words in refused.stderr
    free = (
        "MICROBATCHES=2",
        "EvaluationConfig.every_steps=3",
        "LoggingConfig.tensorboard=False",
        "CheckpointConfig.keep=2",
    )
    command(tmp_path / "run", *free, "ComputeConfig.remat='full'", "ComputeConfig.loss_chunk=8")
    ours, theirs = metrics(tmp_path / "run"), metrics(undisturbed)
    assert [ours[step]["loss"] for step in range(1, 11)] == pytest.approx(
        [theirs[step]["loss"] for step in range(1, 11)], rel=1e-6
    )


def test_stages_beyond_the_consumed_row_may_be_added(
    command: Command, undisturbed: Path, mixture: str, tmp_path: Path
) -> None:
    command(tmp_path / "run", "TRAIN_STEPS=5")
    spec = load_mixture_spec(mixture)
    for first_row, status in ((19, 2), (32, 0)):
        extended = tmp_path / f"extended{first_row}.json"
        save_mixture_spec(str(extended), absolute(spec, mixture).with_stage(first_row, {"code": 7}))
        done = command(tmp_path / "run", f"MIXTURE={extended}", status=status)
        assert status == 0 or done.stderr.count("\n") == 1
    ours, theirs = metrics(tmp_path / "run"), metrics(undisturbed)
    assert all(ours[step]["loss"] == theirs[step]["loss"] for step in range(1, 9))
    assert ours[9]["loss_tokens/docs"] == ours[10]["loss_tokens/text"] == 0


def absolute(spec, mixture: str):
    """The spec with absolute paths of its caches, so that it may lie anywhere."""
    import dataclasses

    folder = Path(mixture).parent

    def moved(parts):
        return {name: dataclasses.replace(part, cache=str(folder / part.cache)) for name, part in parts.items()}

    return dataclasses.replace(spec, tasks=moved(spec.tasks), validation=moved(spec.validation))


def test_starting_from_another_run(command: Command, undisturbed: Path, tmp_path: Path) -> None:
    """Continual pre-training: the weights are taken over, the step and the optimizer begin anew."""
    files = (f"TrainConfig.init_from={undisturbed}", "TRAIN_STEPS=2", "ScheduleConfig.initial_fraction=0.5")
    done = command(tmp_path / "run", *files)
    assert f"started with params of step 10 of {undisturbed}" in done.stdout
    before, after = metrics(undisturbed, "eval")[10], metrics(tmp_path / "run", "eval")[0]
    assert after["docs/nats_per_token"] == before["docs/nats_per_token"]
    rates = [metrics(tmp_path / "run")[step]["learning_rate"] for step in (1, 2)]
    assert rates == pytest.approx([1e-3 * (0.5 + 0.5 / 3), 1e-3 * (0.5 + 1 / 3)], rel=1e-6)
    assert "resumed at step 2" in command(tmp_path / "run", *files, "TRAIN_STEPS=3").stdout
    missing = command(tmp_path / "other", f"TrainConfig.init_from={tmp_path / 'nothing'}", status=2)
    assert "nothing to begin from" in missing.stderr
    command(tmp_path / "moments", *files, "TrainConfig.init_optimizer=True", "TRAIN_STEPS=1")
    assert metrics(tmp_path / "moments")[1]["loss"] == metrics(tmp_path / "run")[1]["loss"]
    assert metrics(tmp_path / "moments")[1]["param_norm"] != metrics(tmp_path / "run")[1]["param_norm"]


def test_profile_and_bfloat16(command: Command, tmp_path: Path) -> None:
    command(tmp_path / "run", "--profile_steps=2-3", "TRAIN_STEPS=4", "DTYPE=bfloat16", "OptimizerConfig.kind='muon'")
    traces = list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1
    assert traces[0].stat().st_size > 1000
    assert all(np.isfinite(line["loss"]) for line in metrics(tmp_path / "run").values())


@pytest.mark.slow
def test_with_the_trainers_requirements_only(command: Command, undisturbed: Path, tmp_path: Path) -> None:
    """The same losses where everything that requirements/trainer.txt does not bring is absent."""
    arguments = command.arguments(tmp_path / "run")
    script = [sys.executable, str(Path(__file__).with_name("trainer_only.py")), *arguments[3:]]
    environment = command.environment({"PYTHONPATH": str(ROOT)})
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert exact(tmp_path / "run") == exact(undisturbed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("MIXTURE=/no/such/place", "no mixture at"),
        ("MeshConfig.fsdp=3", "does not divide 1 devices"),
        ("BATCH_SIZE=3", None),
        ("VOCAB_SIZE=299", "vocabulary of 300 ids"),
        ("ComputeConfig.attention=flash", "known backends: reference"),
        ("TrainConfig.run_dir=", "TrainConfig.run_dir is empty"),
    ],
)
def test_mistakes_are_one_line(command: Command, tmp_path: Path, change: str, words: str | None) -> None:
    done = command(tmp_path / "run", change, "--dry_run", status=0 if words is None else 2)
    if words is not None:
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
