"""Rolling back behind a bad step: rows that poison a run are left out, recorded, and left out again on every resume.

The mixture has clean rows, which are soon learned, and from row 24 to 27 poisonous ones, of tokens never seen before:
the whole batch of a step, if the run comes by it.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from compiling import QUICK
from small_run import ROOT, metrics
from token_sources import ListSource, make_record, write_vocabulary

from hephaestus_jax.checkpoints import Checkpointer
from hephaestus_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    GuardConfig,
    LoggingConfig,
    ModelConfig,
    ScheduleConfig,
    TrainConfig,
)
from hephaestus_jax.data.cache_build import build_cache
from hephaestus_jax.data.loader import Loader, host_rows, to_global
from hephaestus_jax.data.mixture import open_mixture
from hephaestus_jax.data.mixture_spec import MixtureSpec, Stage, save_mixture_spec
from hephaestus_jax.errors import UserError
from hephaestus_jax.gin_files import operative_text
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.skipped_rows import SKIPPED_ROWS, Rollback, SkippedRows
from hephaestus_jax.train import Training, train
from hephaestus_jax.train_step import abstract_state, init_state, make_train_step

LENGTH, BATCH, STEPS = 32, 4, 10
POISON = range(24, 28)  # the rows of the 7th batch


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of the mixture; the tokens of its poisonous rows are among those that the clean ones never have."""
    folder = tmp_path_factory.mktemp("poisoned")
    vocabulary = write_vocabulary(folder / "vocabulary")
    rng = np.random.default_rng(0)
    parts = {}
    for task, tokens, seed in (("clean", (10, 14), 0), ("poison", (200, 300), 1000)):
        records = tuple(
            make_record(rng.integers(*tokens, LENGTH), np.ones(LENGTH), number=seed + n, origin=task) for n in range(8)
        )
        built = build_cache(ListSource(records, vocabulary, name=task), folder / "caches", LENGTH)
        parts[task] = built.as_part(folder)
        identity = built.manifest.vocabulary
    stages = (Stage(0, {"clean": 1}), Stage(POISON.start, {"poison": 1}), Stage(POISON.stop, {"clean": 1}))
    save_mixture_spec(str(folder), MixtureSpec("poisoned", 3, 1, LENGTH, identity, parts, stages, {}))
    return str(folder / "mixture.json")


def configure(mixture: str, run_dir: Path, **guard: object) -> TrainConfig:
    policy = {"on_bad_step": "rollback", "loss_spike_factor": 1.3, "spike_after": 3, **guard}
    return TrainConfig(
        run_dir=str(run_dir),
        mixture=mixture,
        model=ModelConfig("small", 320, 32, 64, 2, num_heads=4, num_kv_heads=2, head_dim=8, max_positions=LENGTH),
        train_steps=STEPS,
        batch_size=BATCH,
        compute=ComputeConfig(dtype="float32", loss_chunk=16),
        schedule=ScheduleConfig("constant", 2e-2, 0),
        guard=GuardConfig(**policy),
        checkpoints=CheckpointConfig(every_steps=2),
        logging=LoggingConfig(every_steps=1, tensorboard=False, compilation_cache=""),
    )


def record(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / SKIPPED_ROWS).read_text().splitlines()]


def facts(run_dir: Path, step: int) -> dict:
    return json.loads((run_dir / "checkpoints" / str(step) / "facts" / "metadata").read_text())


def losses_of(run_dir: Path) -> dict[int, float]:
    return {step: line["loss"] for step, line in metrics(run_dir).items()}


@pytest.fixture(scope="module")
def rolled_back(poisoned: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that met the poison at step 7 and went back to step 6."""
    run_dir = tmp_path_factory.mktemp("rolled_back") / "run"
    train(configure(poisoned, run_dir))
    return run_dir


def test_the_poison_is_left_out_and_recorded(rolled_back: Path, poisoned: str) -> None:
    [line] = record(rolled_back)
    assert (line["step"], line["checkpoint"], line["first_row"], line["next_row"]) == (7, 6, 24, 28)
    assert line["cause"].startswith("loss ") and "running mean" in line["cause"]
    assert sorted(row["row"] for row in line["rows"]) == list(POISON)
    opened = open_mixture(poisoned)
    for row in line["rows"]:
        assert row["task"] == "poison"
        segments = opened.caches["poison"].segments(row["cache_row"])
        assert row["record_ids"] == list(dict.fromkeys(segment.record_id for segment in segments))
    lines = metrics(rolled_back)
    assert sorted(lines) == list(range(1, STEPS + 1))
    assert [lines[step]["rows"] for step in range(1, STEPS + 1)] == [4, 8, 12, 16, 20, 24, 32, 36, 40, 44]
    assert not any("loss/poison" in line or line["bad"] for line in lines.values())
    # the checkpoint that it went back to knows nothing of it, later ones do
    assert "skipped_rows" not in facts(rolled_back, 6)
    assert facts(rolled_back, STEPS)["skipped_rows"] == [[24, 28]]
    assert facts(rolled_back, STEPS)["next_row"] == 44


def test_the_losses_are_those_of_the_other_rows(rolled_back: Path, poisoned: str, tmp_path: Path) -> None:
    """Steps taken one by one over the rows that are left, without loop, guard and checkpoints."""
    config = configure(poisoned, tmp_path)
    partitioning, mixture = Partitioning(make_mesh(config.mesh), config.model), open_mixture(poisoned)
    abstract = abstract_state(config, partitioning)
    state, step = init_state(config, abstract), make_train_step(config, partitioning, abstract, 2)
    places, found = host_rows(partitioning.batch, BATCH), {}
    for number, first_row in enumerate((0, 4, 8, 12, 16, 20, 28, 32, 36, 40), start=1):
        with Loader(mixture, BATCH, first_row, places, batches=1) as loader:
            state, report = step(state, to_global(next(loader), partitioning.batch))
        found[number] = float(report.loss)
    assert found == losses_of(rolled_back)


def live_bytes() -> int:
    return sum(array.nbytes for array in jax.live_arrays() if not array.is_deleted())


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def killed_after_rollback(poisoned: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is killed one step after it rolled back, before anything was saved since; not to be changed."""
    run_dir = tmp_path_factory.mktemp("killed") / "run"
    write = Training.write

    def kill(self: Training, sent: object, values: object) -> None:
        if len(self.skipped):
            raise Killed
        write(self, sent, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "write", kill)
        with pytest.raises(Killed):
            train(configure(poisoned, run_dir))
    assert max(metrics(run_dir)) == 6
    return run_dir


def test_a_resume_leaves_the_same_rows_out(
    killed_after_rollback: Path, rolled_back: Path, poisoned: str, tmp_path: Path
) -> None:
    shutil.copytree(killed_after_rollback, tmp_path / "run")
    train(configure(poisoned, tmp_path / "run"))
    assert losses_of(tmp_path / "run") == losses_of(rolled_back)
    assert record(tmp_path / "run") == record(rolled_back)
    assert facts(tmp_path / "run", STEPS) == facts(rolled_back, STEPS)


def test_a_resume_without_the_record_is_refused(poisoned: str, tmp_path: Path) -> None:
    stopped = dataclasses.replace(configure(poisoned, tmp_path), stop_after=8)
    train(stopped)
    (tmp_path / SKIPPED_ROWS).unlink()
    with pytest.raises(UserError, match="made without rows 24 to 27, and skipped_rows.jsonl .* put that file back"):
        train(configure(poisoned, tmp_path))
    (tmp_path / SKIPPED_ROWS).write_text("{}\n")
    with pytest.raises(UserError, match="is damaged"):
        train(configure(poisoned, tmp_path))


def test_back_by_more_steps_and_on_by_more_rows(poisoned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, drop_after = [live_bytes()], Checkpointer.drop_after

    def measured(self: Checkpointer, step: int) -> None:
        held.append(live_bytes())
        drop_after(self, step)

    monkeypatch.setattr(Checkpointer, "drop_after", measured)
    config = configure(poisoned, tmp_path, rollback_steps=2, rollback_skip_steps=5)
    train(config)
    # the state is gone before another one is made: two of them may not fit
    assert held[1] - held[0] < 4 * config.model.num_parameters / 2
    [line] = record(tmp_path)
    # two steps before the 7th at least: the newest such checkpoint is the 4th; five steps' rows from there
    assert (line["checkpoint"], line["first_row"], line["next_row"]) == (4, 16, 36)
    lines = metrics(tmp_path)
    assert [lines[step]["rows"] for step in range(1, STEPS + 1)] == [4, 8, 12, 16, 40, 44, 48, 52, 56, 60]


def test_without_a_checkpoint_it_begins_again(poisoned: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = configure(poisoned, tmp_path)
    train(dataclasses.replace(config, checkpoints=CheckpointConfig(every_steps=0), train_steps=8))
    assert "rolled back to step 0, and rows 0 to 27 are left out (rollback 1 of 10 at most)" in capsys.readouterr().out
    assert [line["rows"] for line in metrics(tmp_path).values()] == list(range(32, 61, 4))


def test_rollbacks_are_bounded(poisoned: str, tmp_path: Path) -> None:
    """Every step after the second is called a spike: no rows help."""
    config = configure(poisoned, tmp_path, spike_factor=1.0000001, spike_after=1, max_rollbacks=2)
    with pytest.raises(UserError, match="raise GuardConfig.max_rollbacks, after 2 of them") as error:
        train(dataclasses.replace(config, schedule=ScheduleConfig("constant", 1e-9, 0), train_steps=100))
    assert "\n" not in str(error.value)
    lines = record(tmp_path)
    assert len(lines) == 2
    assert (tmp_path / "bad_rows.jsonl").exists()
    # what was left out first stays so: ranges follow each other, or begin where the run went on
    assert SkippedRows(map(Rollback.from_json, lines)).after(lines[0]["first_row"]) >= lines[0]["next_row"]


def test_ranges_that_follow_each_other_are_one_jump() -> None:
    skipped = SkippedRows([Rollback(3, "loss nan", 2, 8, 12), Rollback(3, "loss nan", 2, 12, 20)])
    assert [skipped.after(row) for row in (0, 8, 12, 20)] == [0, 20, 20, 20]
    skipped.check([[8, 12], (12, 20)])


@pytest.mark.slow
def test_a_resume_on_another_mesh_leaves_the_same_rows_out(
    killed_after_rollback: Path, rolled_back: Path, poisoned: str, tmp_path: Path
) -> None:
    """Whatever the policy is by now: without one the poison would be taken, were it not for the record."""
    shutil.copytree(killed_after_rollback, tmp_path / "run")
    config = configure(poisoned, tmp_path / "run", on_bad_step="skip", loss_spike_factor=0.0)
    (tmp_path / "run.gin").write_text(operative_text(config))
    two = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {QUICK}"}
    command = [sys.executable, "-m", "train", f"--gin_file={tmp_path / 'run.gin'}"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **two}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 cpu device(s)" in done.stdout
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(rolled_back), rel=1e-6)
    assert facts(tmp_path / "run", STEPS) == facts(rolled_back, STEPS)


def test_the_policy_checks_itself() -> None:
    with pytest.raises(UserError, match="loss_spike_factor is 0.5"):
        GuardConfig(loss_spike_factor=0.5)
    with pytest.raises(UserError, match="max_rollbacks is -1"):
        GuardConfig(max_rollbacks=-1)
