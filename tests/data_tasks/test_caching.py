"""What a user may ask of the cache builder, and what it must refuse rather than get half right."""

import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import seqio
import tensorflow as tf

import data_tasks
from data_tasks import settings
from data_tasks.caching import CacheRequest, StageRequest, build_mixture
from data_tasks.seqio_source import SeqioTokens
from data_tasks.vocabularies import HephaestusVocabulary
from hephaestus_jax.errors import UserError


@pytest.fixture(autouse=True)
def configured(corpus: Path, vocabulary: Path) -> None:
    data_tasks.configure(corpus=corpus, environments=corpus, vocabulary=vocabulary)


@pytest.fixture
def task_name() -> Iterator[str]:
    yield "of_a_test"
    if "of_a_test" in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove("of_a_test")


def _write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def _request(out: Path, *stages: str, **options: Any) -> CacheRequest:
    return CacheRequest(stages=tuple(map(StageRequest.parse, stages)), out=out, **{"sequence_length": 64, **options})


@pytest.mark.parametrize(
    ("stages", "options", "message"),
    [
        (["base", "base@0"], {}, "base@0 does not begin after base@0"),
        (["base", "agent_heavy@20", "base@10"], {}, "base@10 does not begin after agent_heavy@20"),
        (["base@5"], {}, "begin at row 0"),
        (["base"], {"sequence_length": 1}, "sequence length 1 is too short"),
        (["base"], {"denominator": 0}, "denominator 0 is out of range"),
        (["base"], {"denominator": 1 << 21}, "denominator 2097152 is out of range"),
        (["base"], {"splits": ("validation",)}, "give train"),
        (["base"], {"splits": ("train", "train")}, "give train"),
        # mixture.json has one evaluation cache per task: of two splits, one would be lost
        (["base"], {"splits": ("train", "validation", "test")}, "at most one other"),
    ],
)
def test_a_request_is_refused_before_anything_is_built(
    tmp_path: Path, stages: list[str], options: dict, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        _request(tmp_path, *stages, **options)


@pytest.mark.parametrize("url", ["gs://bucket/rows", "memory://rows"])
def test_a_url_does_not_become_a_local_folder(url: str) -> None:
    with pytest.raises(UserError, match="local disk"):
        _request(Path(url), "base")


@pytest.mark.parametrize("change", [{"seed": 1}, {"sequence_length": 32}, {"denominator": 6}])
def test_another_mixture_is_refused_before_anything_is_built(tmp_path: Path, change: dict) -> None:
    build_mixture(_request(tmp_path, "text"))
    before = sorted(path.name for path in (tmp_path / "caches").iterdir())
    with pytest.raises(UserError, match="holds another mixture: its .*build into another directory"):
        build_mixture(_request(tmp_path, "base", **change))
    assert sorted(path.name for path in (tmp_path / "caches").iterdir()) == before


def test_damage_in_the_directory_names_what_to_delete(tmp_path: Path) -> None:
    mixture = build_mixture(_request(tmp_path, "text"))
    cache = tmp_path / mixture.spec.tasks["text"].cache
    (cache / "files.json").write_text("{}")
    with pytest.raises(UserError, match=f"delete {re.escape(str(cache))} and run again"):
        build_mixture(_request(tmp_path, "text"))
    (tmp_path / "mixture.json").write_text("{")
    with pytest.raises(UserError, match="mixture.json is damaged.*delete that file and run again"):
        build_mixture(_request(tmp_path, "text"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a.jsonl", "b.jsonl"], "b.jsonl is in neither"),
        (["train/a.jsonl", "validation/a.jsonl", "test/a.jsonl"], "test/a.jsonl is in neither"),
        (["validation/a.jsonl"], "there is no train/"),
        (["validation/a.jsonl", "b.jsonl"], "b.jsonl is in neither"),
    ],
)
def test_data_outside_the_splits_is_neither_lost_nor_trained_on(
    tmp_path: Path, files: list[str], message: str, task_name: str
) -> None:
    for name in files:
        _write(tmp_path / name, ["a note"])
    with pytest.raises(UserError, match=message):
        data_tasks.add_user_task(task_name, tmp_path)


def test_files_that_are_not_read_are_named_and_an_old_quarantine_goes(tmp_path: Path, task_name: str) -> None:
    said: list[str] = []
    data, out = tmp_path / "data", tmp_path / "out"
    _write(data / "a.jsonl", [f"note {n} is a note" for n in range(9)])
    (data / "b.csv").write_text("text\nlost\n")
    out.mkdir()
    (out / f"quarantine-{task_name}-train.json").write_text("{}")
    data_tasks.add_user_task(task_name, data)
    build_mixture(_request(out, task_name), said.append)
    assert f"{task_name} train: 1 file of another kind is not read: b.csv" in said
    assert sorted(path.name for path in out.iterdir()) == ["caches", "mixture.json"]


def test_a_foreign_task_reads_with_the_same_settings_in_a_worker(
    monkeypatch: pytest.MonkeyPatch, task_name: str, vocabulary: Path
) -> None:
    feature = seqio.Feature(HephaestusVocabulary(), add_eos=False)  # the vocabulary of the settings in force
    seqio.TaskRegistry.add(
        task_name,
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices({"targets": ["one", "two"]}),
            splits=["train"],
        ),
        preprocessors=[seqio.preprocessors.tokenize],
        output_features={"targets": feature},
    )
    source = SeqioTokens(task_name, "train")
    assert source.count() == 2  # used before it is sent, as the cache builder does
    sent = pickle.dumps(source)
    monkeypatch.setattr(settings, "_current", settings.DataSettings())  # what a new process begins with
    received = pickle.loads(sent)
    assert len(list(received.read(0, 2))) == 2 and received.vocabulary == str(vocabulary)
