"""`python -m tools.evaluate`: a run and its Hugging Face export get the same figures; what is done is kept."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

pytest.importorskip("sentencepiece")
pytest.importorskip("pyarrow")
sys.path.append(str(Path(__file__).parent))
import unseen_apis as world

from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece
from hephaestus_jax.data.storage import Storage
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.decode import sampling
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals.bootstrap import PerRecord, paired_bootstrap
from hephaestus_jax.evals.evaluation import EvaluationOptions, Evaluator
from hephaestus_jax.evals.evaluation_files import EvaluationFile, model_facts
from hephaestus_jax.starting_point import open_starting_point
from tools.evaluate import main


class Models(NamedTuple):
    folder: Path
    corpus: str
    vocabulary: str
    mixture: str
    run: str
    hugging_face: str  # the run's weights
    other: str  # another run


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    folder = tmp_path_factory.mktemp("world")
    corpus = world.corpus(folder / "corpus")
    vocabulary = world.vocabulary(folder / "vocabulary", corpus)
    digest = load_vocabulary(vocabulary).digest
    mixture = world.mixture(folder / "rows", corpus, vocabulary)
    config = world.model()
    params = world.parameters(config)
    run = world.write_run(folder / "run", config, params, digest)
    hugging_face = world.write_hugging_face(folder / "hf", config, params, vocabulary)
    other = world.write_run(folder / "other", config, world.parameters(config, seed=1), digest, step=7)
    return Models(folder, str(corpus.directory), vocabulary, mixture, run, hugging_face, other)


def evaluate(models: Models, *paths: str, **options: object) -> None:
    given = {"mixture": models.mixture, "corpus": models.corpus, "vocabulary": models.vocabulary, "sample_tokens": 8}
    flags = [f"--{name}={value}" for name, value in {**given, **options}.items()]
    main([*paths, *flags])


def read(path: str | Path, name: str = "evaluation.json") -> dict:
    return json.loads((Path(path) / name).read_text("utf-8"))


@pytest.fixture(scope="module")
def done(models) -> Callable[[str], dict]:
    before = sampling._write._cache_size()
    evaluate(models, models.run, models.hugging_face, models.other)
    assert sampling._write._cache_size() <= before + 3  # prompts of different lengths, one shape of model
    return read


def test_a_run_and_its_export_get_the_same_figures(models, done):
    run, exported, other = (done(path) for path in (models.run, models.hugging_face, models.other))
    assert run["inputs"] == exported["inputs"] == other["inputs"]
    for name in ("slices", "ranking", "samples", "groups"):
        assert run[name] == exported[name]
    assert run["slices"] != other["slices"] and run["ranking"] != other["ranking"]
    kinds = [(value["model"]["kind"], value["model"]["step"]) for value in (run, exported, other)]
    assert kinds == [("run", 3), ("huggingface", None), ("run", 7)]
    assert len({value["model"]["digest"] for value in (run, exported, other)}) == 3


def test_the_file_has_what_a_report_needs(models, done):
    value = done(models.run)
    assert value["format"] == 1 and value["seconds"] > 0 and value["versions"]["jax"] == jax.__version__
    assert value["model"]["parameters"] == world.model().num_parameters
    assert set(value["inputs"]) == {"mixture", "corpus", "vocabulary", "options"}
    assert value["inputs"]["options"]["dtype"] == "float32" and "batch_size" not in value["inputs"]["options"]
    assert list(value["slices"]) == ["agent_docs", "agent_trajectories", "code", "text"]
    groups = {name: set(found["per_record"]["group"]) for name, found in value["slices"].items()}
    assert groups == {
        "agent_docs": {"api:pkg.squash", "api:pkg.hush", "api:pkg.Blender"},
        "agent_trajectories": {"api:pkg.squash"},
        "code": {f"file:pkg:{n}.py" for n in range(3)},
        "text": {"file:pkg:S.md"},
    }
    for found in value["slices"].values():
        columns = found["per_record"]
        assert found["records"] == len(columns["id"]) and found["tokens"] == sum(columns["tokens"])
        assert found["nats_per_token"] == pytest.approx(sum(columns["nats"]) / found["tokens"])
        assert found["bits_per_byte"] == pytest.approx(sum(columns["nats"]) / math.log(2) / sum(columns["bytes"]))
    assert value["ranking"]["calls"] == 4 and value["ranking"]["pairs"] == 12
    samples = value["samples"]
    assert [sample["temperature"] for sample in samples] == [0.0, 0.8]  # the other prompt leaves no room
    assert all(0 <= sample["tokens"] <= 8 and sample["prompt"].endswith("\n\n") for sample in samples)
    assert all("`pkg.squash`" in sample["prompt"] for sample in samples)


def test_two_models_compare_record_by_record(models, done):
    def docs(path: str) -> PerRecord:
        columns = done(path)["slices"]["agent_docs"]["per_record"]
        return PerRecord(columns["id"], columns["group"], columns["nats"], columns["tokens"])

    same = paired_bootstrap(docs(models.run), docs(models.hugging_face))
    assert (same.difference, same.low, same.high, same.n_groups) == (0.0, 0.0, 0.0, 3)
    found = paired_bootstrap(docs(models.run), docs(models.other))
    values = [done(path)["slices"]["agent_docs"]["nats_per_token"] for path in (models.run, models.other)]
    assert found.difference == pytest.approx(values[0] - values[1]) and found.low < found.high


def test_what_is_there_is_kept_unless_weights_or_inputs_changed(models, done, capsys, tmp_path, monkeypatch):
    first = {path: Path(path, "evaluation.json").read_bytes() for path in (models.run, models.hugging_face)}
    capsys.readouterr()
    evaluate(models, *first, batch_size=3)
    out, err = capsys.readouterr()
    assert err.count("is kept: same weights, same inputs") == 2 and "wrote" not in out
    assert {path: Path(path, "evaluation.json").read_bytes() for path in first} == first
    assert "agent_docs, nats/token" in out and "right call before missing argument, % of 4 pairs" in out
    evaluator = Evaluator(EvaluationOptions(models.mixture, models.vocabulary, models.corpus, sample_tokens=8))
    start = open_starting_point(models.run)
    file = EvaluationFile.of(start, None)
    facts = {**read(models.run)["model"], "path": "moved"}
    assert file.read(facts, evaluator.inputs) is not None
    assert file.read({**facts, "digest": "x"}, evaluator.inputs) is None
    assert file.read({**facts, "step": 4}, evaluator.inputs) is None
    assert file.read(facts, {**evaluator.inputs, "mixture": "x"}) is None
    for text in ("", "{", "[]", '{"format": 2}'):
        other = EvaluationFile.of(start, tmp_path)
        (tmp_path / "run.json").write_text(text)
        assert other.read(facts, evaluator.inputs) is None


def test_models_of_one_shape_share_their_programs(models):
    evaluator = Evaluator(EvaluationOptions(models.mixture, models.vocabulary, models.corpus, max_rows=1, samples=0))
    scorers = []
    for path in (models.run, models.other, models.hugging_face):  # the last one has another name
        start = open_starting_point(path)
        evaluator.evaluate(start, model_facts(start), "x")
        scorers.append(evaluator._scorer(start.model))
    assert scorers[0] is scorers[1] is scorers[2]
    assert scorers[0]._score._cache_size() <= 2  # all tokens of a row, and those of the calls
    assert evaluator._scorer(world.model(embed_dim=8)) is not scorers[0]


def test_nothing_is_written_by_halves(models, tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "_sample", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(models, models.other, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fewer_rows_and_no_corpus(models, done, tmp_path, capsys):
    evaluate(models, models.other, out=tmp_path, max_rows=1, corpus="", samples=0)
    value = read(tmp_path, "other.json")
    assert value["ranking"] is None and value["samples"] == [] and value["inputs"]["corpus"] == ""
    assert {found["rows"] for found in value["slices"].values()} == {1}
    assert all(group.startswith("record:") for group in value["slices"]["code"]["per_record"]["group"])
    full = done(models.other)["slices"]["code"]["per_record"]
    assert set(value["slices"]["code"]["per_record"]["id"]) <= set(full["id"])
    assert "right call" not in capsys.readouterr().out


def test_numbers_that_are_not_finite_become_null(tmp_path):
    EvaluationFile(Storage(str(tmp_path)), "a.json").write({"x": math.nan, "y": [1.5, np.inf], "z": {"t": (2,)}})
    assert read(tmp_path, "a.json") == {"x": None, "y": [1.5, None], "z": {"t": [2]}}


def test_a_checkpoint_in_bfloat16_is_read_as_it_is(models, done, tmp_path):
    params = jax.tree.map(lambda x: x.astype("bfloat16"), world.parameters(world.model()))
    run = world.write_run(tmp_path / "run", world.model(), params, load_vocabulary(models.vocabulary).digest)
    evaluate(models, run, max_calls=-1, samples=0)
    found, wanted = (value["slices"]["agent_docs"]["per_record"] for value in (read(run), done(models.run)))
    assert found["id"] == wanted["id"] and found["nats"] == pytest.approx(wanted["nats"], rel=0.02)
    assert found["nats"] != wanted["nats"] and read(run)["ranking"] is None


def test_what_does_not_fit_is_refused(models, tmp_path, monkeypatch):
    digest = load_vocabulary(models.vocabulary).digest
    with pytest.raises(UserError, match="two models would be written to one file"):
        evaluate(models, models.run, models.run)
    with pytest.raises(UserError, match="nothing to begin from"):
        evaluate(models, str(tmp_path))
    stranger = world.write_run(tmp_path / "stranger", world.model(), world.parameters(world.model()), "0" * 32)
    with pytest.raises(UserError, match="vocabulary of digest 000000000000"):
        evaluate(models, stranger)
    for changes, message in (({"max_positions": 64}, "64 positions"), ({"vocab_size": 200}, "has 200 ids")):
        config = world.model(**changes)
        path = world.write_run(tmp_path / str(len(message)), config, {"x": jax.numpy.zeros(1)}, digest)
        with pytest.raises(UserError, match=message):
            evaluate(models, path)
    strange = tmp_path / "vocabulary"
    train_sentencepiece(["other words altogether"], strange, VocabularyConfig(size=280))
    with pytest.raises(UserError, match="give that one"):
        evaluate(models, models.run, vocabulary=strange)
    for options in ({"max_rows": -1}, {"max_calls": -2}, {"batch_size": 0}, {"sample_tokens": 0}, {"samples": -1}):
        with pytest.raises(UserError, match=next(iter(options))):
            EvaluationOptions("m", "v", **options)


def test_a_damaged_corpus_is_told(models, tmp_path):
    other = world.corpus(tmp_path / "corpus")
    for path in (Path(other.directory) / "agent_docs" / "validation").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        evaluate(models, models.other, corpus=other.directory, out=tmp_path / "out")
