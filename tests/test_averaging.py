"""The average of a run's checkpoints is numpy's, and is taken wherever a run is."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "hf"))

from hephaestus_jax.architecture import ModelConfig
from hephaestus_jax.averaging import Average, average_checkpoints, saved_steps
from hephaestus_jax.checkpoints import Checkpointer, storage
from hephaestus_jax.checkpoints.reading import open_arrays
from hephaestus_jax.config import CheckpointConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.model.decoder import abstract_parameters
from hephaestus_jax.run_directory import RunDirectory
from hephaestus_jax.starting_point import open_starting_point
from tools.average_checkpoints import main

MODEL = ModelConfig(
    name="small", vocab_size=300, embed_dim=8, mlp_dim=12, num_layers=3, num_heads=2, num_kv_heads=1, head_dim=4,
    max_positions=64,
)  # fmt: skip
STEPS = (5, 10, 15, 30)


def parameters(step: int, dtype: Any = np.float32) -> dict[str, Any]:
    """Random values of many magnitudes, so that the order of additions and the rounding show."""
    rng = np.random.default_rng(step)

    def values(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return (rng.standard_normal(leaf.shape) * 10.0 ** rng.integers(-6, 6, leaf.shape)).astype(dtype)

    return jax.tree.map(values, abstract_parameters(MODEL))


def write_run(folder: Path, dtype: Any = np.float32, steps: tuple[int, ...] = STEPS) -> Path:
    config = CheckpointConfig(keep=len(steps))
    with Checkpointer(folder / "checkpoints", config) as checkpointer:
        for step in steps:
            params = jax.tree.map(jax.numpy.asarray, parameters(step, dtype))
            state = {"params": params, "opt_state": jax.tree.map(lambda x: x * 0 + 7, params)}
            checkpointer.save(step, state, {"next_row": 4 * step, "seed": 1}, force=True)
    fields = {f"model.{name}": value for name, value in dataclasses.asdict(MODEL).items()}
    record = {"format": 1, "identity": {**fields, "vocabulary": "digest", "mixture": {}}, "digests": {}, "config": {},
              "versions": {}, "starts": []}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def averaged(out: Path) -> dict[str, np.ndarray]:
    reader = open_arrays(out / "checkpoints")
    assert all(name.startswith("params/") for name in reader.names), "nothing but parameters"
    return {name.removeprefix("params/"): reader.read(name) for name in reader.names}


def stacked(dtype: Any = np.float32, steps: tuple[int, ...] = STEPS) -> dict[str, np.ndarray]:
    trees = [storage.named_leaves(parameters(step, dtype)) for step in steps]
    return {name: np.stack([np.asarray(tree[name], np.float64) for tree in trees]) for name in trees[0]}


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
def test_uniform_is_the_mean_of_numpy(dtype, run, tmp_path):
    source = run if dtype is np.float32 else write_run(tmp_path / "run", dtype)
    average_checkpoints(source, tmp_path / "out", Average(STEPS), progress=False)
    found, wanted = averaged(tmp_path / "out"), stacked(dtype)
    assert found.keys() == wanted.keys() and len(found) == 12
    for name, values in wanted.items():
        assert found[name].dtype == dtype
        assert found[name].tobytes() == values.mean(axis=0).astype(dtype).tobytes(), name


def test_exponential_is_the_recursion(run, tmp_path):
    average_checkpoints(run, tmp_path / "out", Average(STEPS, 0.7), progress=False)
    found = averaged(tmp_path / "out")
    for name, values in stacked().items():
        ema = values[0]
        for value in values[1:]:
            ema = 0.7 * ema + (1 - 0.7) * value
        assert (np.abs(found[name] - ema) <= 1e-7 * np.abs(values).max(axis=0)).all(), name  # one rounding to float32


@pytest.mark.parametrize("decay", [None, 0.1, 0.999])
def test_weights_add_up_to_one_and_favour_what_they_should(decay):
    weights = Average((1, 2, 3, 7), decay).to_json()["weights"]
    assert math.isclose(sum(weights), 1.0)
    if decay is None:
        assert weights == [0.25] * 4
    else:
        assert math.isclose(weights[3], 1 - decay) and math.isclose(weights[0], decay**3)


def test_the_result_is_taken_like_a_run(run, tmp_path, capsys):
    (run / "config.gin").write_text("TrainConfig.seed = 1\n")
    main([str(run), str(tmp_path / "out"), "--last", "2", "--ema", "0.5"])
    assert "averaged 2 steps" in capsys.readouterr().out
    start = open_starting_point(tmp_path / "out")
    assert (start.kind, start.model, start.vocabulary) == ("run", MODEL, "digest")
    restored = start.restore({"params": abstract_parameters(MODEL)})
    wanted = parameters(15)["final_norm"]["scale"] * 0.5 + parameters(30)["final_norm"]["scale"] * 0.5
    np.testing.assert_allclose(restored.state["params"]["final_norm"]["scale"], wanted, rtol=1e-6)
    assert restored.step == 30 and restored.facts["next_row"] == 120
    record = {"kind": "exponential", "decay": 0.5, "steps": [15, 30], "weights": [0.5, 0.5], "run": str(run)}
    assert restored.facts["averaged"] == record
    assert json.loads((tmp_path / "out/run.json").read_text())["averaged"] == record
    assert (tmp_path / "out/config.gin").read_text() == "TrainConfig.seed = 1\n"
    with pytest.raises(UserError, match="begin a new run from it"):
        _ = RunDirectory(tmp_path / "out").identity
    with pytest.raises(UserError, match="an average already"):
        saved_steps(tmp_path / "out")


def test_what_cannot_be_averaged(run, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no checkpoint of step 20; there are 5, 10, 15, 30"):
        average_checkpoints(run, out, Average((5, 20)))
    with pytest.raises(UserError, match="two different ones"):
        Average((5,))
    with pytest.raises(UserError, match="decay 1.0 is not between"):
        Average(STEPS, 1.0)
    with pytest.raises(UserError, match="--last 1"):
        main([str(run), str(out), "--last", "1"])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError):
        saved_steps(tmp_path)
    assert not out.exists() and not out.with_name("out.unfinished").exists()


def test_a_damaged_checkpoint_leaves_nothing_behind(tmp_path):
    run = write_run(tmp_path / "run", steps=(5, 10))
    files = [file for file in (run / "checkpoints/5/state").rglob("*") if file.is_file() and "/d/" in str(file)]
    largest = max(files, key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 64
    largest.write_bytes(data)
    with pytest.raises(UserError, match="5 is damaged"):
        average_checkpoints(run, tmp_path / "out", Average((5, 10)), progress=False)
    assert not (tmp_path / "out").exists()
