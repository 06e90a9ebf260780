"""Runs that train adapters, by the shipped file: resumed bit for bit, the weights as they were, out in both forms."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from parameters import reader
from small_run import exact

from hephaestus_jax.checkpoints.reading import open_arrays
from hephaestus_jax.config import PARTS, ModelConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.gin_files import load_gin_with_text
from hephaestus_jax.hf.checkpoint import open_checkpoint
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.safetensors_files import read_tensor
from hephaestus_jax.model.decoder import abstract_parameters, init_parameters
from hephaestus_jax.starting_point import open_starting_point, starting_model
from hephaestus_jax.train import train
from tools.convert_checkpoint import main as convert

MODEL = ModelConfig(
    "llama", vocab_size=320, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
    max_positions=64,
)  # fmt: skip
SETTINGS = (
    "TRAIN_STEPS=4", "BATCH_SIZE=4", "WARMUP_STEPS=1", "DTYPE=float32", "ComputeConfig.param_dtype=bfloat16",
    "LORA_RANK=4", "LORA_ALPHA=6.0", "EvaluationConfig.every_steps=0", "ScheduleConfig.total_steps=4",
    "LoggingConfig.tensorboard=False", "LoggingConfig.compilation_cache=",
)  # fmt: skip

PLAIN = ("OptimizerConfig.weight_decay=0.0", "LEARNING_RATE=2e-4")  # what the file has besides adapters


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, mixture: str) -> Path:
    """A small random Llama in bfloat16 with the tokenizer that the mixture's rows were made with."""
    folder = tmp_path_factory.mktemp("huggingface") / "llama"
    params = init_parameters(MODEL, jax.random.key(3))
    tokenizer = (Path(mixture).parent / "vocabulary/tokenizer.json").read_bytes()
    export_model(folder, MODEL, reader(params), dtype="bfloat16", files={"tokenizer.json": tokenizer}, progress=False)
    return folder


def begin(run_dir: Path, mixture: str, init_from: Path, *overrides: str, file: str = "lora") -> None:
    given = (f"RUN_DIR={run_dir}", f"MIXTURE={mixture}", f"INIT_FROM={init_from}", *SETTINGS, *overrides)
    if file != "lora":
        given = tuple(line for line in given if not line.startswith("LORA"))
    loaded = load_gin_with_text(TrainConfig, f"gin/runs/{file}.gin", given, also=(*PARTS, starting_model))
    train(loaded.value, loaded.operative)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, mixture: str, llama: Path) -> Path:
    """Four steps in one go."""
    run_dir = tmp_path_factory.mktemp("adapted") / "run"
    begin(run_dir, mixture, llama)
    return run_dir


def saved(run_dir: Path) -> dict[str, np.ndarray]:
    arrays = open_arrays(run_dir / "checkpoints", 4)
    return {name: arrays.read(name) for name in arrays.names}


def test_a_resumed_run_is_the_same_bit_for_bit(adapted: Path, mixture: str, llama: Path, tmp_path: Path) -> None:
    begin(tmp_path / "run", mixture, llama, "TrainConfig.stop_after=2")
    begin(tmp_path / "run", mixture, llama)
    assert exact(tmp_path / "run") == exact(adapted)
    one, other = saved(adapted), saved(tmp_path / "run")
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert len({line["loss"] for line in exact(adapted).values()}) == 4
    for change in ("LORA_ALPHA=8.0", "LoraConfig.targets=('query',)"):
        with pytest.raises(UserError, match="lora.* changed from"):
            begin(tmp_path / "run", mixture, llama, change)
    with pytest.raises(UserError, match="lora.* changed from"):
        begin(tmp_path / "run", mixture, llama, *PLAIN, file="continual_pretrain")


def test_the_weights_are_those_of_the_file(adapted: Path, llama: Path) -> None:
    arrays, checkpoint = saved(adapted), open_checkpoint(llama)
    for name, (weight, index) in checkpoint.family.tensor_places(MODEL).items():
        values = arrays[f"params/{weight.path}"][index].transpose(weight.to_theirs)
        assert values.dtype == ml_dtypes.bfloat16
        tensor = read_tensor(checkpoint.tensors[name])
        assert values.tobytes() == tensor.tobytes(), name
    adapters = {name: x for name, x in arrays.items() if "/lora_" in name and name.startswith("params/")}
    assert len(adapters) == 14 and all(x.any() and x.dtype == np.float32 for x in adapters.values())
    moments = [name for name, x in arrays.items() if name.startswith("opt_state/") and x.ndim]
    assert len(moments) == 2 * 14 and all("/lora_" in name for name in moments)


def test_both_exports(adapted: Path, llama: Path, tmp_path: Path) -> None:
    merged, alone = tmp_path / "merged", tmp_path / "alone"
    convert(["export", str(adapted), str(merged), "--no_card"])
    convert(["export", str(adapted), str(alone), "--adapter"])
    convert(["verify", str(adapted), str(merged)])
    config = json.loads((alone / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 6, str(llama))
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    arrays = saved(adapted)
    tensors = open_checkpoint(merged).tensors
    adapters = pytest.importorskip("safetensors.numpy").load_file(alone / "adapter_model.safetensors")
    assert len(adapters) == 2 * 2 * 7
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn.o_proj"
        a, b = (adapters[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        assert np.array_equal(a, arrays["params/layers/attention/out/lora_a"][layer].reshape(32, 4).T)
        base = arrays["params/layers/attention/out/kernel"][layer].reshape(32, 32).T.astype(np.float32)
        wanted = base + np.float32(1.5) * (b @ a)
        found = read_tensor(tensors[f"{name}.weight"])
        assert found.dtype == ml_dtypes.bfloat16 and found.tobytes() != base.astype(found.dtype).tobytes()
        np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=2**-8, atol=0)
    for arguments, words in (
        (("--adapter", "--unpad_vocabulary"), "leave out --unpad_vocabulary"),
        (("--base", "x"), "give --adapter too"),
    ):
        with pytest.raises(UserError, match=words):
            convert(["export", str(adapted), str(tmp_path / "no"), *arguments])


def test_what_begins_from_it_has_the_merged_weights(adapted: Path, tmp_path: Path) -> None:
    """As evaluation, generation and another run do."""
    start = open_starting_point(adapted)
    assert start.lora is not None and start.lora.rank == 4 and start.model == MODEL
    params = start.restore({"params": abstract_parameters(MODEL, "bfloat16")}).state["params"]
    assert jax.tree.structure(params) == jax.tree.structure(abstract_parameters(MODEL))
    convert(["export", str(adapted), str(tmp_path / "merged"), "--no_card"])
    exported = open_starting_point(tmp_path / "merged")
    wanted = exported.restore({"params": abstract_parameters(MODEL, "bfloat16")}).state["params"]
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True)
    different = [np.mean(np.asarray(mine) != np.asarray(its)) for mine, its in pairs]
    assert max(different) < 1e-3, "sums in another order may round to the neighbour now and then"
