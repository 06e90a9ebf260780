"""What a run begins from, by the real command: a Hugging Face model, and a run that began with one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from parameters import reader
from small_run import Command, metrics

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.data.mixture_spec import load_mixture_spec
from hephaestus_jax.errors import UserError
from hephaestus_jax.first_state import keep_origin_of
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.model.decoder import abstract_parameters, init_parameters
from hephaestus_jax.run_directory import RunDirectory
from hephaestus_jax.starting_point import open_starting_point, starting_model

MODEL = ModelConfig(
    "llama", vocab_size=320, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
    max_positions=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, mixture: str) -> Path:
    """A small random Llama with the tokenizer that the mixture's rows were made with."""
    folder = tmp_path_factory.mktemp("huggingface") / "llama"
    params = init_parameters(MODEL, jax.random.key(3))

    tokenizer = (Path(mixture).parent / "vocabulary/tokenizer.json").read_bytes()
    export_model(folder, MODEL, reader(params), dtype="bfloat16", files={"tokenizer.json": tokenizer}, progress=False)
    return folder


def continual(command: Command, llama: Path) -> tuple[str, ...]:
    """The shipped file for continual pre-training in place of the small run's own."""
    command.gin_file.with_name("continual.gin").write_text(
        "include 'gin/runs/continual_pretrain.gin'\nTRAIN_STEPS = 2\nBATCH_SIZE = 4\nWARMUP_STEPS = 1\n"
        f"DTYPE = 'float32'\nINIT_FROM = {str(llama)!r}\nLoggingConfig.every_steps = 1\n"
        "LoggingConfig.tensorboard = False\n"
        f"LoggingConfig.compilation_cache = {str(command.gin_file.parent / 'compilations')!r}\n"
    )
    return (f"--gin_file={command.gin_file.with_name('continual.gin')}",)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, command: Command, llama: Path) -> Path:
    """A run of two steps from the Hugging Face model, its model told by nothing but that folder."""
    run_dir = tmp_path_factory.mktemp("begun") / "run"
    bare = Bare(command)
    done = bare(run_dir, *continual(command, llama))
    assert f"started with params of the Hugging Face model {llama}" in done.stdout
    assert f"{MODEL.num_parameters:,} parameters" in done.stdout
    return run_dir


class Bare(Command):
    """The same command without the small run's own gin file."""

    def __init__(self, command: Command) -> None:
        self.gin_file, self.mixture = command.gin_file, command.mixture

    def arguments(self, run_dir: Path, *overrides: str) -> list[str]:
        return [word for word in super().arguments(run_dir, *overrides) if word != f"--gin_file={self.gin_file}"]


def test_a_run_begins_with_a_hugging_face_model_and_hands_its_origin_on(
    command: Command, llama: Path, begun: Path, tmp_path: Path
) -> None:
    assert sorted(metrics(begun)) == [1, 2]
    kept = {path.name for path in (begun / "huggingface").iterdir()}
    assert {"config.json", "tokenizer.json", "origin.json"} <= kept
    assert not any(name.endswith(".safetensors") for name in kept)
    point = open_starting_point(begun)
    assert (point.kind, point.model) == ("run", MODEL)
    assert point.origin == str(begun / "huggingface")
    # A second run from the first: same line, same origin; the Hugging Face model itself is no longer asked for.
    moved = llama.with_name("moved")
    llama.rename(moved)
    try:
        Bare(command)(tmp_path / "second", *continual(command, begun), "TRAIN_STEPS=1")
        resumed = Bare(command)(begun, *continual(command, llama))
    finally:
        moved.rename(llama)
    assert (tmp_path / "second/huggingface/config.json").read_bytes() == (llama / "config.json").read_bytes()
    assert "this run is complete" in resumed.stdout


def test_untouched_weights_are_those_of_the_file(llama: Path) -> None:
    point = open_starting_point(llama)
    assert (point.kind, point.model, point.origin) == ("huggingface", MODEL, str(llama))
    restored = point.restore({"params": abstract_parameters(MODEL, "float32")})
    expected = init_parameters(MODEL, jax.random.key(3))
    for ours, theirs in zip(jax.tree.leaves(restored.state["params"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype("bfloat16").astype("float32"))


def test_another_tokenizer_is_refused(llama: Path, mixture: str, tmp_path: Path) -> None:
    vocabulary = load_mixture_spec(mixture).vocabulary
    open_starting_point(llama).check_vocabulary(vocabulary)
    other = shutil.copytree(llama, tmp_path / "other")
    (other / "tokenizer.json").write_bytes((llama / "tokenizer.json").read_bytes() + b" ")
    with pytest.raises(UserError, match=r"comes with tokenizer\.json, not the same.*--vocabulary"):
        open_starting_point(other).check_vocabulary(vocabulary)
    (other / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="comes with no tokenizer file"):
        open_starting_point(other).check_vocabulary(vocabulary)


def test_nothing_to_begin_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither run\.json \(a run\) nor config\.json"):
        open_starting_point(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"identity": {"model.name": "x"}}))
    with pytest.raises(UserError, match="does not say what model it is of"):
        open_starting_point(tmp_path)


def test_optimizer_state_is_not_in_a_hugging_face_model(llama: Path) -> None:
    with pytest.raises(UserError, match="no optimizer state; leave out"):
        open_starting_point(llama).restore({"params": abstract_parameters(MODEL, "float32"), "opt_state": {}})


def test_a_run_that_has_begun_knows_its_model(begun: Path, tmp_path: Path) -> None:
    assert starting_model(str(tmp_path / "gone"), str(begun)) == MODEL
    with pytest.raises(UserError, match="nothing to begin from"):
        starting_model(str(tmp_path / "gone"), str(tmp_path / "new"))


def test_an_origin_that_nothing_was_saved_from_goes(llama: Path, tmp_path: Path) -> None:
    """A start that saved nothing may be followed by one that begins elsewhere: its export must not carry this one."""
    run = RunDirectory(tmp_path / "run")
    keep_origin_of(str(llama), run)
    assert (run.huggingface / "tokenizer.json").exists()
    keep_origin_of("", run)
    assert not run.huggingface.exists()
