"""Every shipped gin/models/*.gin: loads, is the published architecture, and says its true number of parameters."""

from __future__ import annotations

import math
import re
from pathlib import Path

import jax
import pytest

from hephaestus_jax.config import ExpertsConfig, ModelConfig, RopeScaling
from hephaestus_jax.gin_files import load_gin
from hephaestus_jax.model.decoder import abstract_parameters

FILES = sorted((Path(__file__).parents[2] / "gin" / "models").glob("*.gin"))
PUBLISHED = {
    "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824,
    "llama3_1_8b": 8_030_261_248,
    "llama3_1_70b": 70_553_706_496,
    "qwen3_30b_a3b": 30_532_122_624,
}
LAPTOP = {"tiny": (0.9e6, 1.3e6), "quickstart": (2.5e6, 3.2e6), "small": (6e6, 8e6), "medium": (50e6, 60e6)}


def load(file, *overrides) -> ModelConfig:
    return load_gin(ModelConfig, file, overrides, also=[RopeScaling, ExpertsConfig])


def test_every_model_is_known_to_this_test():
    assert {file.stem for file in FILES} == PUBLISHED.keys() | LAPTOP.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_parameter_counts(file):
    model = load(file)
    assert model.name == file.stem
    title = file.read_text("utf-8").splitlines()[0]
    said = re.match(r"# .+: ([\d,]+) parameters", title)
    assert said, title
    leaves = jax.tree.leaves(abstract_parameters(model))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == model.num_parameters == int(said[1].replace(",", ""))
    if file.stem not in LAPTOP:
        assert model.num_parameters == PUBLISHED[file.stem]
    else:
        low, high = LAPTOP[file.stem]
        assert low < model.num_parameters < high


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_says_what_is_required_and_commonly_changed(file):
    text = file.read_text("utf-8")
    assert text.index("# Required:") < text.index("# Commonly changed:") < text.index("ModelConfig.")


@pytest.mark.parametrize("name", LAPTOP)
def test_the_vocabulary_of_small_models_is_given_by_one_macro(name):
    model, other = load(f"gin/models/{name}.gin"), load(f"gin/models/{name}.gin", "VOCAB_SIZE=999")
    assert other.vocab_size == 999
    assert model.num_parameters - other.num_parameters == (model.vocab_size - 999) * model.embed_dim


def test_llama_rope_scaling():
    factors = {name: load(f"gin/models/{name}.gin").rope_scaling for name in PUBLISHED if "llama" in name}
    assert {scaling.factor for name, scaling in factors.items() if "3_2" in name} == {32.0}
    assert {scaling.factor for name, scaling in factors.items() if "3_1" in name} == {8.0}
    assert {scaling.original_max_positions for scaling in factors.values()} == {8192}
