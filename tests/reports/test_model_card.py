"""The model card says what the run recorded, is read by huggingface_hub, and says nothing else."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import jax
import pytest

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "training")]
import own_model
import small_run

from hephaestus_jax.checkpoints import Checkpointer
from hephaestus_jax.checkpoints.reading import open_arrays
from hephaestus_jax.config import PARTS, CheckpointConfig, MeshConfig, TrainConfig
from hephaestus_jax.data.mixture import open_mixture
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals.evaluation_files import weights_digest
from hephaestus_jax.gin_files import load_gin_with_text
from hephaestus_jax.hf.origin import keep_origin, load_origin
from hephaestus_jax.hf.vocabulary_growth import grow_vocabulary
from hephaestus_jax.model.decoder import init_parameters
from hephaestus_jax.reports.model_card import card_files
from hephaestus_jax.run_directory import RunDirectory, identity_of
from hephaestus_jax.sharding import make_mesh
from hephaestus_jax.starting_point import starting_model

ModelCard = pytest.importorskip("huggingface_hub").ModelCard

BASE_CARD = "---\nlicense: llama3.1\nlicense_name: 'The Llama licence'\ntags:\n- x\n---\n# Their model\n"
STEPS = 6


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Path:
    return Path(small_run.write_mixture(tmp_path_factory.mktemp("mixture")))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A model as it lies in the Hub's cache."""
    folder = tmp_path_factory.mktemp("hub") / "models--acme--small-1.0/snapshots/0123abcd"
    folder.parent.mkdir(parents=True)
    own_model.write_model(folder)
    (folder / "README.md").write_text(BASE_CARD)
    return folder


def write_run(folder: Path, mixture: Path, init_from: Path | str = "", origin: Path | None = None, **facts) -> Path:
    """A run as `train` leaves it after six steps, without the training."""
    gin_file = folder.parent / f"{folder.name}.gin"
    gin_file.write_text(small_run.GIN)
    overrides = [
        f"RUN_DIR={folder}",
        f"MIXTURE={mixture}",
        *([f"TrainConfig.init_from={init_from}"] if init_from else []),
    ]
    loaded = load_gin_with_text((TrainConfig,), [gin_file], overrides, also=(*PARTS, starting_model))
    config = loaded.value
    with RunDirectory(folder) as run:
        run.begin(identity_of(config, open_mixture(str(mixture))), config, make_mesh(MeshConfig()), 0, loaded.operative)
        if origin is not None:
            keep_origin(origin, run.huggingface)
        params = init_parameters(config.model, jax.random.key(0))
        with Checkpointer(run.checkpoints, CheckpointConfig()) as checkpointer:
            facts = {"next_row": STEPS * small_run.BATCH, "seed": 5, **facts}
            checkpointer.save(STEPS, {"params": params}, facts, force=True)
    lines = [{"kind": "train", "step": step, "loss": 5.0, "loss_tokens/code": 10 * step} for step in range(1, 9)]
    lines.append({"kind": "eval", "step": STEPS, "code/nats_per_token": 2.5, "code/bits_per_byte": 1.25,
                  "code/tokens": 1234})  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def made(run: Path, licence: str = ""):
    origin = load_origin(run / "huggingface") if (run / "huggingface").exists() else None
    return card_files(str(run), open_arrays(run / "checkpoints"), origin, licence)


def card(run: Path, licence: str = "") -> str:
    text = made(run, licence).files["README.md"].decode()
    assert "None" not in text and "nan" not in text.lower().split() and "{" not in text
    return text


@pytest.fixture(scope="module")
def run(base, mixture, tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "my_run", mixture, base, base)


def test_what_is_recorded_is_said(run, base):
    text = card(run)
    data = ModelCard(text).data.to_dict()
    assert data == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "license": "llama3.1",
        "license_name": "The Llama licence", "base_model": "acme/small-1.0", "tags": ["hephaestus_jax"],
    }  # fmt: skip
    for said in (
        "# my_run\n",
        "of 28,832 parameters, trained further from `acme/small-1.0` on the mixture `small`",
        "- Model: `acme/small-1.0` (`llama`), revision `0123abcd`",
        "- Its terms are in `LICENSE`",
        "| steps | 6 of 10 |",
        "| rows taken | 24 |",
        "| tokens, padding included | 768 |",
        "| tokens under loss | 210 |",  # of the first six steps
        "| optimizer | adamw, b1 0.9,",
        "Mixture `small`, tokenised with `tokenizer.json` (300 ids",
        "| `code` | 33.33 % | 8 | 0.615 | 256 | MIT (7) |",
        "- MIT: package0 1,",
        "Held-out losses during training, after step 6:",
        "| `code` | 1,234 | 2.5000 | 1.2500 |",
        "1 × cpu in 1 process(es), mesh: no axis divided",
        f"jax {jax.__version__}",
    ):
        assert said in text, said
    assert "rows left out" not in text and "average" not in text and "| 9 |" not in text


def test_the_base_models_card_goes_along(run, tmp_path, mixture):
    files = made(run)
    assert files.files["BASE_MODEL_CARD.md"] == BASE_CARD.encode()
    assert files.origin is not None and "README.md" not in files.origin.files and "LICENSE" in files.origin.files
    assert "the base model's went to BASE_MODEL_CARD.md" in files.notes[0]
    # of a run that begins with such an export
    export = tmp_path / "export"
    own_model.write_model(export)
    for name, data in files.files.items():
        (export / name).write_bytes(data)
    again = made(write_run(tmp_path / "next", mixture, export, export))
    assert again.files["BASE_MODEL_CARD_2.md"] == files.files["README.md"]
    assert "BASE_MODEL_CARD.md" in again.origin.files
    text = again.files["README.md"].decode()
    assert "further from `export`" in text and ModelCard(text).data.base_model is None


def test_a_line_of_runs_and_new_tokens(run, base, mixture, tmp_path):
    grow_vocabulary(base, tmp_path / "grown", ["<|call|>"], progress=False)
    first = write_run(tmp_path / "first", mixture, tmp_path / "grown", tmp_path / "grown")
    text = card(write_run(tmp_path / "second", mixture, first, tmp_path / "grown"))
    assert ModelCard(text).data.base_model == "acme/small-1.0", "which growing recorded"
    assert "- Tokens added to the vocabulary of `acme/small-1.0@0123abcd`: `<|call|>`" in text
    assert "- Read from the folder `grown`" in text
    assert "## Runs before this one\n\n- `first` on the mixture `small`\n" in text


def test_every_growth_is_told(run, base, mixture, tmp_path):
    for source, out, token in ((base, "a/model", "<|a|>"), ("a/model", "b/model", "<|b|>"), ("b/model", "c", "<|c|>")):
        (tmp_path / out).parent.mkdir(exist_ok=True)
        grow_vocabulary(tmp_path / source, tmp_path / out, [token], progress=False)
    text = card(write_run(tmp_path / "run", mixture, tmp_path / "c", tmp_path / "c"))
    assert all(f"`: `{token}`\n" in text for token in ("<|a|>", "<|b|>", "<|c|>"))


def test_from_scratch_nothing_is_said_of_a_base_model(mixture, tmp_path):
    run = write_run(tmp_path / "run", mixture, skipped_rows=[[4, 8]])
    text = card(run)
    assert "trained from scratch" in text and "Base model" not in text
    assert "license" not in ModelCard(text).data.to_dict()
    assert "| rows taken | 20 |" in text and "| rows left out after rollbacks | 4 |" in text
    assert ModelCard(card(run, "apache-2.0")).data.license == "apache-2.0"
    with pytest.raises(UserError, match="not spelt like the Hub's"):
        made(run, "Apache 2\nbase_model: x")
    assert "trained further from `run` on" in card(write_run(tmp_path / "no", mixture, run))
    parameters = dataclasses.replace(load_model(run), vocab_size=300).num_parameters
    smaller = card_files(str(run), open_arrays(run / "checkpoints"), None, "", dataclasses.replace(
        load_model(run), vocab_size=300))  # fmt: skip
    assert f"{parameters:,} parameters" in smaller.files["README.md"].decode()


def load_model(run: Path):
    from hephaestus_jax.starting_point import open_starting_point

    return open_starting_point(run).model


def evaluation(digest: str) -> dict:
    part = {"records": 12, "tokens": 3456, "bytes": 9, "rows": 3, "nats_per_token": 2.0, "bits_per_byte": 0.9}
    scores = {"wrong name": {"pairs": 7, "accuracy": 0.75, "trivial": 0.5}}
    return {"format": 1, "model": {"digest": digest, "step": STEPS}, "slices": {"docs": part}, "seconds": 1.0,
            "ranking": {"calls": 5, "apis": 4, "chance": 0.5, "corruptions": scores}}  # fmt: skip


def test_an_evaluation_is_told_if_it_is_of_these_weights(mixture, tmp_path):
    run = write_run(tmp_path / "run", mixture)
    digest = weights_digest(open_arrays(run / "checkpoints"))
    (run / "evaluation.json").write_text(json.dumps(evaluation(digest)))
    text = card(run)
    assert "| `docs` | 12 | 3,456 | 2.0000 | 0.9000 |" in text
    assert "| `wrong name` | 7 | 75.0 % | 50.0 % | 50.0 % |" in text and "during training" not in text
    results = ModelCard(text).data.eval_results
    found = {(result.dataset_name, result.metric_type): result.metric_value for result in results}
    assert found == {("docs, 12 held-out records", "bits_per_byte"): 0.9,
                     ("docs, 12 held-out records", "nats_per_token"): 2.0}  # fmt: skip

    (run / "evaluation.json").write_text(json.dumps(evaluation("another")))
    assert "evaluation.json is of other weights" in made(run).notes[-1]
    text = card(run)
    assert "`docs`" not in text.partition("## Evaluation")[2] and "after step 6" in text
    assert not ModelCard(text).data.eval_results


def test_a_name_that_yaml_would_read_as_something_else(mixture, tmp_path):
    run = write_run(tmp_path / "null", mixture)
    (run / "evaluation.json").write_text(json.dumps(evaluation(weights_digest(open_arrays(run / "checkpoints")))))
    assert ModelCard(card(run)).data.model_name == "null"


def test_an_average(mixture, tmp_path):
    record = {"kind": "exponential", "decay": 0.5, "steps": [4, 6], "weights": [0.5, 0.5], "run": "/elsewhere"}
    text = card(write_run(tmp_path / "run", mixture, averaged=record))
    assert "an average of the run's checkpoints (exponential, decay 0.5 a saved step)" in text
    assert "4 (0.5000), 6 (0.5000)" in text
    assert "Held-out losses" not in text, "those were of the step itself"


def test_records_that_are_gone_or_another_cache_are_not_guessed(mixture, tmp_path):
    run = write_run(tmp_path / "run", mixture)
    record = json.loads((run / "run.json").read_text())
    record["identity"]["mixture"]["tasks"]["code"]["digest"] = "0" * 64
    record["versions"], record["starts"] = {}, []
    (run / "run.json").write_text(json.dumps(record))
    (run / "metrics.jsonl").unlink()
    text = card(run)
    assert "| `code` | 33.33 % | 8 | 0.615 | 256 |  |" in text and "| MIT (5) |" in text
    assert "under loss" not in text and "## Evaluation" not in text and "Hardware" not in text


def test_names_cannot_break_out(mixture, tmp_path):
    run = write_run(tmp_path / "run", mixture).rename(tmp_path / 'a: "b"\n---\n# <script>|`x` \u2028 ⚒')
    record = json.loads((run / "run.json").read_text())
    record["identity"]["mixture"]["name"] = "m`|\n## not a heading"
    record["versions"] = {"x\n- y": "[1](http://example.org)"}
    (run / "run.json").write_text(json.dumps(record))
    digest = weights_digest(open_arrays(run / "checkpoints"))
    found = evaluation(digest)
    found["slices"] = {'s"|\n---\n': found["slices"]["docs"]}
    (run / "evaluation.json").write_text(json.dumps(found))
    text = card(run)
    data = ModelCard(text).data
    assert data.model_name == 'a: "b" --- # <script>|`x` ⚒' and len(data.eval_results) == 2
    lines = text.splitlines()
    assert lines.count("---") == 2 and sum(line.startswith("#") for line in lines) == 5
    assert not any(line.startswith("- y") for line in lines) and "\\[1\\](http" in text
    assert "<script>" not in text.partition("\n---\n")[2].replace("\\<script\\>", "")
