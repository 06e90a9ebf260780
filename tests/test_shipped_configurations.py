"""Every shipped gin file, complete and literally: what it binds is compared with a golden text.

After an intended change, write the golden files anew and read their diff:
`PYTHONPATH=. python tests/test_shipped_configurations.py`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hephaestus_jax.config import PARTS, ModelConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.gin_files import load_gin_with_text
from hephaestus_jax.recipe import Recipe
from hephaestus_jax.starting_point import starting_model

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
REQUIRED = {
    "runs/pretrain": ("RUN_DIR=runs/base", "MIXTURE=rows/base"),
    "runs/continual_pretrain": ("RUN_DIR=runs/agent", "MIXTURE=rows/agent", "INIT_FROM=models/base"),
}
REQUIRED["runs/lora"] = REQUIRED["runs/continual_pretrain"]
REQUIRED |= {
    f"runs/tpu/{file.stem}": REQUIRED["runs/continual_pretrain" if "INIT_FROM" in file.read_text() else "runs/pretrain"]
    for file in sorted((ROOT / "gin" / "runs" / "tpu").glob("*.gin"))
}
BASE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu", "max_position_embeddings": 256,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
ALSO = (*PARTS, starting_model)
RECIPES = ("runs/quickstart",)
MODELS = sorted(f"models/{file.stem}" for file in (ROOT / "gin" / "models").glob("*.gin"))


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Works in a folder with a small Hugging Face model to begin from."""
    folder = tmp_path_factory.mktemp("configurations")
    with contextlib.chdir(folder):
        write_base()
        yield


def write_base() -> None:
    Path("models/base").mkdir(parents=True)
    Path("models/base/config.json").write_text(json.dumps(BASE))


def operative(name: str) -> str:
    """The operative configuration of a shipped file, with what it requires given."""
    target = ModelConfig if name.startswith("models/") else Recipe if name in RECIPES else TrainConfig
    return load_gin_with_text(target, f"gin/{name}.gin", REQUIRED.get(name, ()), also=ALSO).operative


def golden(name: str) -> Path:
    return GOLDEN / f"{name.replace('/', '_')}.gin"


@pytest.mark.parametrize("name", [*REQUIRED, *RECIPES, *MODELS])
def test_operative_configuration(name: str) -> None:
    assert operative(name) == golden(name).read_text()


def test_every_shipped_file_is_looked_at() -> None:
    files = [file for folder in ("runs", "models") for file in (ROOT / "gin" / folder).rglob("*.gin")]
    shipped = {str(file.relative_to(ROOT / "gin").with_suffix("")) for file in files}
    assert shipped - {"runs/training"} == {*REQUIRED, *RECIPES, *MODELS}
    assert {file.name for file in GOLDEN.iterdir()} == {golden(name).name for name in (*REQUIRED, *RECIPES, *MODELS)}


@pytest.mark.parametrize("name", REQUIRED)
def test_what_is_required_is_named(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_gin_with_text(TrainConfig, f"gin/{name}.gin", (), also=ALSO)
    for binding in REQUIRED[name]:
        assert f"--gin.{binding.partition('=')[0]}=" in str(caught.value)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_fits_into_a_run(model: str) -> None:
    files = ["gin/runs/pretrain.gin", f"gin/{model}.gin"]
    config = load_gin_with_text(TrainConfig, files, REQUIRED["runs/pretrain"], also=ALSO).value
    assert config.model.name == model.partition("/")[2]


def test_the_model_to_go_on_from_is_that_of_its_weights() -> None:
    required = REQUIRED["runs/continual_pretrain"]
    config = load_gin_with_text(TrainConfig, "gin/runs/continual_pretrain.gin", required, also=ALSO).value
    assert (config.model.vocab_size, config.model.embed_dim, config.model.norm_epsilon) == (512, 64, 1e-6)
    files = ["gin/runs/continual_pretrain.gin", "gin/models/tiny.gin"]
    with pytest.raises(UserError, match="ModelConfig is bound, and nothing uses it"):
        load_gin_with_text(TrainConfig, files, required, also=ALSO)
    other = load_gin_with_text(TrainConfig, files, (*required, "TrainConfig.model=@ModelConfig()"), also=ALSO).value
    assert other.model.name == "tiny"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("TRAIN_STEP=5", "did you mean TRAIN_STEPS"),
        ("MeshConfig.fspd=2", "did you mean fsdp"),
        ("MashConfig.fsdp=2", "known are"),
        ("TRAIN_STEPS=ten", "TrainConfig.train_steps is 'ten'; it must be of type int"),
        ("TRAIN_STEPS=1.5", "it must be of type int"),
        ("DTYPE=float16", "ComputeConfig.dtype is 'float16'"),
        ("BATCH_SIZE=0", "TrainConfig.batch_size is 0; it must be above 0"),
        ("MICROBATCHES=3", "does not divide into 3 microbatches"),
        ("ScheduleConfig.kind=wsd", "decay_steps must be given"),
        ("ScheduleConfig.kind=linear", "ScheduleConfig.kind is 'linear'"),
        ("ComputeConfig.remat=some", "known policies: none, dots"),
        ("LoggingConfig.profile_steps=12-10", "write FIRST-LAST"),
        ("ModelConfig.num_kv_heads=3", "it must divide num_heads"),
        ("MeshConfig.data=-1", "only one axis can take the rest"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_mend(override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        name = "runs/pretrain"
        load_gin_with_text(TrainConfig, f"gin/{name}.gin", (*REQUIRED[name], override), also=ALSO)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_base()
        for name in (*REQUIRED, *RECIPES, *MODELS):
            golden(name).write_text(operative(name))


if __name__ == "__main__":
    sys.exit(main())
