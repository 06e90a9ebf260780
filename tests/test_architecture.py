"""The architecture's configuration: what it refuses, what it counts, and the way through JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent / "model"))
from small_decoders import CONFIGS, config

from hephaestus_jax.architecture import ExpertsConfig, LinearRopeScaling, ModelConfig, RopeScaling, YarnRopeScaling
from hephaestus_jax.errors import UserError

POSITIVE = st.floats(1e-3, 1e9)


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(sorted(CONFIGS.items())).map(lambda item: item[1]),
    scaling=st.none()
    | st.builds(RopeScaling, POSITIVE)
    | st.builds(LinearRopeScaling, POSITIVE)
    | st.builds(YarnRopeScaling, POSITIVE, st.integers(1, 1 << 20)),
    experts=st.none()
    | st.builds(ExpertsConfig, st.integers(4, 9), st.integers(1, 4), st.integers(1, 9), st.booleans()),
)
def test_any_model_comes_back_from_json(model: ModelConfig, scaling: Any, experts: ExpertsConfig | None) -> None:
    model = dataclasses.replace(model, rope_scaling=scaling, experts=experts)
    assert ModelConfig.from_json(json.loads(json.dumps(dataclasses.asdict(model)))) == model


@pytest.mark.parametrize(
    "change",
    [
        {"other": 1},
        {"rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0}},
        {"rope_scaling": {}},
        {"rope_scaling": 8.0},
        {"experts": {"num_experts": 4}},
        {"layer_pattern": None},
    ],
)
def test_json_of_no_model_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        ModelConfig.from_json(dataclasses.asdict(config()) | change)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layer_pattern": ()},
            "layer_pattern is ().*a tuple of full, sliding, unrotated, no longer than num_layers 2",
        ),
        ({"layer_pattern": ("full",) * 3}, "no longer than num_layers 2"),
        ({"layer_pattern": ("local",)}, "give a tuple of full, sliding, unrotated"),
        ({"layer_pattern": "full"}, "give a tuple"),
        ({"layer_pattern": ("sliding",)}, "sliding layers need a window"),
        ({"sliding_window": 4}, "a window needs sliding layers"),
        ({"sliding_window": -4}, "sliding_window is -4; it must be 0 or more"),
        ({"logit_softcap": float("nan")}, "logit_softcap is nan"),
        ({"query_key_norm": "both"}, "query_key_norm is 'both'; it must be one of none, head, all"),
        ({"norm_placement": "between"}, "one of before, after, both"),
        ({"activation": "gelu"}, "one of silu, gelu_tanh"),
    ],
)
def test_what_is_no_model_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        config(**changes)
    assert "\n" not in str(error.value)


def test_scalings_check_themselves() -> None:
    with pytest.raises(UserError, match="LinearRopeScaling.factor is 0; it must be above 0"):
        LinearRopeScaling(0)
    with pytest.raises(UserError, match="YarnRopeScaling.beta_slow 32 must be below beta_fast 32.0"):
        YarnRopeScaling(4.0, 64, beta_slow=32)


def test_kinds_repeat_the_pattern() -> None:
    model = config(num_layers=5, layer_pattern=("sliding", "full"), sliding_window=3)
    assert model.layer_kinds == ("sliding", "full", "sliding", "full", "sliding")


@pytest.mark.parametrize("window", [1, 4, 10, 99])
def test_attention_flops_are_of_the_keys_that_are_seen(window: int) -> None:
    """12 · heads · head size for every query and key, counted one by one, but for the half of its own key."""
    model = config(num_layers=3, layer_pattern=("sliding", "full", "unrotated"), sliding_window=window)
    length = 10
    seen = {
        "sliding": sum(min(place + 1, window) for place in range(length)),
        "full": sum(range(1, length + 1)),
    }
    keys = (seen["sliding"] + 2 * seen["full"]) / length - min(window, length) / (2 * length) - 2 / 2
    attention = model.flops_per_token(length) - 6 * model.num_matmul_parameters
    assert attention == pytest.approx(12 * model.num_heads * model.head_dim * keys, rel=1e-9)
