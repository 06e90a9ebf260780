"""Greedy texts equal a naive loop and `transformers`; samples follow the model's probabilities within the nucleus."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "model"))
import reference_decoder
from small_decoders import CONFIGS, FLOAT32, config, parameters

from hephaestus_jax.config import ComputeConfig
from hephaestus_jax.decode import sampling
from hephaestus_jax.decode.sampling import generate
from hephaestus_jax.errors import UserError

MODEL = CONFIGS["grouped, tied, scaled"]
PARAMS = parameters(MODEL)
PROMPT = [3, 1, 4, 1, 5]


def naive(params, model, prompt, count):
    """The most likely id again and again, by the decoder in float64 NumPy on just what there is."""
    ids = list(prompt)
    for _ in range(count):
        row = np.array([ids])
        logits = reference_decoder.logits(params, model, row, np.ones_like(row), np.arange(len(ids))[None])
        ids.append(int(np.argmax(logits[0, -1])))
    return ids[len(prompt) :]


def test_greedy_is_the_most_likely_id_each_time():
    found = generate(PARAMS, MODEL, FLOAT32, PROMPT, 12)
    assert found == naive(PARAMS, MODEL, PROMPT, 12) and len(set(found)) > 3
    assert generate(PARAMS, MODEL, FLOAT32, np.array(PROMPT), 12, temperature=1.0, top_p=1e-6, seed=7) == found


def test_greedy_where_layers_see_different_things():
    """Longer than the window, and than the rows that a pattern's left-over layer sees."""
    for name in ("sliding with their own rotary, normed heads", "norms after, unrotated, experts"):
        model, params = CONFIGS[name], parameters(CONFIGS[name])
        found = generate(params, model, FLOAT32, PROMPT, 9)
        assert found == naive(params, model, PROMPT, 9) and len(set(found)) > 2


def test_samples_are_drawn_from_capped_logits():
    """Within ±0.01 they are about all the same, so that any id may come even where a low temperature leaves few."""
    model = dataclasses.replace(MODEL, logit_softcap=0.01)
    capped, plain = (generate(PARAMS, each, FLOAT32, PROMPT, 40, temperature=0.05, seed=1) for each in (model, MODEL))
    assert len(set(capped)) > 15 > len(set(plain))


def test_greedy_equals_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    from hephaestus_jax.hf.exporting import export_model

    model = dataclasses.replace(CONFIGS["one key/value head, untied, scaled"], max_positions=128)
    params = parameters(model, seed=1)

    def read(path, index):
        array = params
        for name in path.split("/"):
            array = array[name]
        return array[index]

    export_model(tmp_path / "hf", model, read)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    with torch.no_grad():
        wanted = theirs.generate(
            torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    assert generate(params, model, FLOAT32, PROMPT, 24) == wanted[0, len(PROMPT) :].tolist()


def test_a_stop_id_ends_the_text_and_is_left_out():
    whole = generate(PARAMS, MODEL, FLOAT32, PROMPT, 12)
    stop = whole[5]
    assert generate(PARAMS, MODEL, FLOAT32, PROMPT, 12, stop_ids=[stop, 10**6]) == whole[: whole.index(stop)]
    assert generate(PARAMS, MODEL, FLOAT32, PROMPT, 12, stop_ids=[whole[0]]) == []


def test_samples_are_a_function_of_the_seed():
    once, again, other = (
        generate(PARAMS, MODEL, FLOAT32, PROMPT, 12, temperature=1.0, seed=seed) for seed in (3, 3, 4)
    )
    assert once == again != other
    # the same draws wherever the text stands: a longer one begins with the shorter one
    assert generate(PARAMS, MODEL, FLOAT32, PROMPT, 20, temperature=1.0, seed=3)[:12] == once


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.75), (2.0, 0.5)])
def test_draws_follow_the_probabilities_of_the_nucleus(temperature, top_p):
    logits = jnp.asarray([1.0, 3.0, -2.0, 2.5, 0.0, 2.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.vmap(lambda key: sampling._choose(logits, jnp.float32(temperature), jnp.float32(top_p), key))(keys)
    found = np.bincount(np.asarray(drawn), minlength=6) / len(keys)
    p = np.exp(np.asarray(logits, np.float64) / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    kept = order[: 1 + int(np.searchsorted(np.cumsum(p[order]), top_p))]
    wanted = np.zeros(6)
    wanted[kept] = p[kept] / p[kept].sum()
    assert found == pytest.approx(wanted, abs=0.015) and not found[wanted == 0].any()


def test_texts_of_one_buffer_length_share_a_program():
    before = sampling._write._cache_size()
    other = dataclasses.replace(MODEL, name="other", max_positions=4096)
    for model, prompt, count in ((MODEL, PROMPT, 7), (other, PROMPT[:2], 30), (MODEL, PROMPT * 4, 44)):
        generate(parameters(model), model, FLOAT32, prompt, count, temperature=0.5, seed=count)
    assert sampling._write._cache_size() <= before + 1


def test_bfloat16_on_cpu_works():
    found = generate(PARAMS, MODEL, ComputeConfig(dtype="bfloat16", attention="chunked"), PROMPT, 3)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_ids": []}, "one id or more, each from 0 to 28"),
        ({"prompt_ids": [29]}, "each from 0 to 28"),
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"max_tokens": 60}, "exceed the model's 64 positions"),
    ],
)
def test_what_cannot_be_written_is_refused(changes, message):
    model = config(max_positions=64)
    with pytest.raises(UserError, match=message):
        generate(PARAMS, model, FLOAT32, **{"prompt_ids": PROMPT, "max_tokens": 4, **changes})
