"""seqio sees ordinary Tasks and Mixtures; the cache builder sees the same tokens in batches."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import seqio
import tensorflow as tf

import data_tasks
from data_tasks.caching import CacheRequest, StageRequest, build_mixture
from data_tasks.seqio_source import SeqioTokens, tasks_and_rates, token_source
from data_tasks.vocabularies import HephaestusVocabulary
from hephaestus_jax.data.cache import Cache
from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece
from hephaestus_jax.data.task import RenderedTask
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import SLICES
from hephaestus_jax.formats.rendering import RecordRenderer
from tools import build_cache
from tools._command import run


@pytest.fixture(autouse=True)
def configured(corpus: Path, vocabulary: Path) -> None:
    data_tasks.configure(corpus=corpus, environments=corpus, vocabulary=vocabulary, renderer=RecordRenderer())


def _unregister(name: str) -> None:
    seqio.TaskRegistry.remove(name)


@pytest.mark.parametrize("name", SLICES)
def test_seqio_yields_the_tokens_that_the_cache_builder_packs(name: str) -> None:
    task = seqio.get_mixture_or_task(name)
    batched = list(token_source(task, "validation").read(0, 20))
    examples = list(task.get_dataset(None, "validation", shuffle=False).as_numpy_iterator())
    assert len(examples) == len(batched) == 20
    for example, record in zip(examples, batched, strict=True):
        assert example["record_id"].decode() == record.record_id
        np.testing.assert_array_equal(example["targets"], record.tokens_T)
        np.testing.assert_array_equal(example["loss_weights"], record.weights_T)


def test_targets_decode_to_the_rendered_text() -> None:
    task = seqio.get_mixture_or_task("agent_docs")
    vocabulary = task.output_features["targets"].vocabulary
    text = vocabulary.decode(next(task.get_dataset(None, "train", shuffle=False).as_numpy_iterator())["targets"])
    assert "price_" in text and "what to look up" in text


@pytest.mark.parametrize("name", sorted(data_tasks.MIXTURES))
def test_mixtures_iterate_shuffled_and_trimmed(name: str) -> None:
    mixture = seqio.get_mixture_or_task(name)
    dataset = mixture.get_dataset({"targets": 16, "loss_weights": 16}, "train", shuffle=True, seed=1, num_epochs=1)
    examples = list(dataset.take(50).as_numpy_iterator())
    assert len(examples) == 50
    assert all(len(example["targets"]) == len(example["loss_weights"]) <= 16 for example in examples)
    assert tasks_and_rates(name) == data_tasks.MIXTURES[name]


def test_shards_partition_the_records() -> None:
    task = seqio.get_mixture_or_task("text")
    seen = [
        example["record_id"]
        for index in range(3)
        for example in task.get_dataset(
            None, "train", shuffle=False, shard_info=seqio.ShardInfo(index, 3)
        ).as_numpy_iterator()
    ]
    assert len(seen) == len(set(seen)) == task.source.num_input_examples("train")


def test_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="no task or mixture 'nothing'; known are .*agent_docs"):
        tasks_and_rates("nothing")


def test_a_user_directory_becomes_a_task(tmp_path: Path) -> None:
    rows = [{"text": f"note {n}"} for n in range(5)]
    (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data_tasks.add_user_task("my_notes", tmp_path)
    try:
        source = token_source(seqio.TaskRegistry.get("my_notes"), "train")
        assert isinstance(source, RenderedTask)
        vocabulary = load_vocabulary(source.vocabulary)
        assert ["note 0" in vocabulary.decode(record.tokens_T) for record in source.read(0, 5)].count(True) == 1
    finally:
        _unregister("my_notes")


def test_a_foreign_task_is_packed_as_seqio_yields_it(vocabulary: Path) -> None:
    def pairs(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed
        return tf.data.Dataset.from_tensor_slices({"inputs": ["ask", "ask more"], "targets": ["answer", "sale " * 9]})

    feature = seqio.Feature(HephaestusVocabulary(vocabulary), add_eos=False)
    seqio.TaskRegistry.add(
        "foreign",
        source=seqio.FunctionDataSource(pairs, splits=["train"]),
        preprocessors=[seqio.preprocessors.tokenize],
        output_features={"inputs": feature, "targets": feature},
    )
    try:
        source = token_source(seqio.TaskRegistry.get("foreign"), "train")
        assert isinstance(source, SeqioTokens) and source.count() == 2
        first, second = source.read(0, 2)
        assert load_vocabulary(vocabulary).decode(first.tokens_T) == "askanswer"
        inputs = len(load_vocabulary(vocabulary).encode("ask"))
        assert first.weights_T.tolist() == [0] * inputs + [1] * (len(first.tokens_T) - inputs)
        (again,) = source.read(1, 2)
        np.testing.assert_array_equal(again.tokens_T, second.tokens_T)
    finally:
        _unregister("foreign")


def test_a_foreign_vocabulary_without_a_file_is_refused() -> None:
    def texts(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed
        return tf.data.Dataset.from_tensor_slices({"targets": ["a"]})

    seqio.TaskRegistry.add(
        "bytes",
        source=seqio.FunctionDataSource(texts, splits=["train"]),
        preprocessors=[seqio.preprocessors.tokenize],
        output_features={"targets": seqio.Feature(seqio.ByteVocabulary(), add_eos=False)},
    )
    try:
        with pytest.raises(UserError, match="ByteVocabulary"):
            token_source(seqio.TaskRegistry.get("bytes"), "train").vocabulary  # noqa: B018
    finally:
        _unregister("bytes")


def _request(out: Path, **changes: object) -> CacheRequest:
    fields: dict = {"stages": (StageRequest("agent_code_text"),), "sequence_length": 128, "out": out}
    return CacheRequest(**{**fields, **changes})


@pytest.fixture(scope="module")
def built(corpus: Path, vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_tasks.configure(corpus=corpus, environments=corpus, vocabulary=vocabulary, renderer=RecordRenderer())
    out = tmp_path_factory.mktemp("caches")
    build_mixture(_request(out))
    return out


def test_the_mixture_has_a_cache_per_task_and_split(built: Path) -> None:
    mixture = build_mixture(_request(built))  # a second time: everything is reused
    assert set(mixture.spec.tasks) == set(mixture.spec.validation) == set(SLICES) - {"agent_environments"}
    assert dict(mixture.spec.stages[0].rates) == {
        "agent_docs": 750,
        "agent_trajectories": 250,
        "code": 1000,
        "text": 1000,
    }
    for part in mixture.spec.tasks.values():
        manifest = Cache.open(str(built / part.cache)).manifest
        assert manifest.records == 400 and manifest.rows == part.rows and manifest.origins[0].licence == "MIT"


def test_a_stage_may_be_added_and_nothing_else_changed(built: Path) -> None:
    later = (StageRequest("agent_code_text"), StageRequest("base", 1001))
    mixture = build_mixture(_request(built, stages=later))
    assert [stage.first_row for stage in mixture.spec.stages] == [0, 1001]
    with pytest.raises(UserError, match="holds another mixture.*seed"):
        build_mixture(_request(built, stages=later, seed=1))
    with pytest.raises(UserError, match="holds another mixture.*rates"):
        build_mixture(_request(built, stages=(StageRequest("agent_heavy"),)))


def test_a_task_without_training_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jsonl").write_text('{"text": ""}\n')
    data_tasks.add_user_task("empty", tmp_path / "bad")
    try:
        with pytest.raises(UserError, match="empty"):
            build_mixture(_request(tmp_path / "out", stages=(StageRequest("empty"),)))
        assert not (tmp_path / "out" / "mixture.json").exists()
    finally:
        _unregister("empty")


@pytest.mark.parametrize("text", ["base@x", "base@-1", "base@1.5"])
def test_a_stage_needs_a_row_number(text: str) -> None:
    with pytest.raises(UserError, match="row number"):
        StageRequest.parse(text)


def _build_cache(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.build_cache", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_builds_from_the_users_own_directory(tmp_path: Path, vocabulary: Path) -> None:
    data = tmp_path / "data"
    for split, count in {"train": 300, "validation": 10}.items():
        (data / split).mkdir(parents=True)
        turns = [
            [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}] for n in range(count)
        ]
        rows = [json.dumps({"messages": messages}) for messages in turns]
        (data / split / "chats.jsonl").write_text("\n".join([*rows, "{broken"]))
    out = tmp_path / "out"
    result = _build_cache("--data", data, "--seq_length", 64, "--out", out, "--vocabulary", vocabulary, "--workers", 2)
    assert result.returncode == 0, result.stderr
    assert "user_data" in result.stdout and "epochs" in result.stdout
    assert "user_data train: 1 quarantined: 1 malformed JSON" in result.stdout, "the malformed line is reported"
    assert (
        json.loads((out / "quarantine-user_data-train.json").read_text())["examples"][0]["place"] == "chats.jsonl:301"
    )
    assert json.loads((out / "mixture.json").read_text())["tasks"]["user_data"]["rows"] > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mixture", "nothing"], "no task or mixture 'nothing'"),
        (["--mixture", "base", "--chat", "nobody"], "nobody"),
        (["--mixture", "base", "--corpus", "/nowhere"], "no corpus at /nowhere"),
        (["--mixture", "base", "--import", "no_such_module"], "no_such_module"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path,
    corpus: Path,
    vocabulary: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    usual = ["--corpus", str(corpus)] if "--corpus" not in arguments else []
    rest = ["--vocabulary", str(vocabulary), "--seq_length", "64", "--out", str(tmp_path / "o")]
    monkeypatch.setattr(sys, "argv", ["build_cache", *arguments, *usual, *rest])
    with pytest.raises(SystemExit) as ended:
        run(build_cache.main)
    assert ended.value.code == 2
    errors = capfd.readouterr().err
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last and "Traceback" not in errors


def test_a_mistake_ends_the_process_too(tmp_path: Path) -> None:
    result = _build_cache("--seq_length", 64, "--out", tmp_path / "o")
    assert result.returncode == 2
    assert result.stderr == "error: give either --mixture NAME or --data DIR\n"


def test_documents_need_no_control_tokens_of_a_chat_family_and_trajectories_do(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    train_sentencepiece([f"Item {n} is on sale.\n" * 3 for n in range(300)], plain, VocabularyConfig(size=300))
    data_tasks.configure(vocabulary=plain)
    assert len(list(token_source(seqio.TaskRegistry.get("text"), "validation").read(0, 20))) == 20
    with pytest.raises(UserError, match=re.escape("<|start_header_id|>")):
        list(token_source(seqio.TaskRegistry.get("agent_trajectories"), "validation").read(0, 20))


def test_a_record_that_is_no_unicode_is_rejected_alone(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "good"}\n{"text": "half \\ud83d a pair"}\n{"text": "good too"}\n')
    data_tasks.add_user_task("halves", tmp_path)
    try:
        source = token_source(seqio.TaskRegistry.get("halves"), "train")
        kinds = [type(result).__name__ for result in source.read(0, source.count())]
        assert kinds.count("TokenizedRecord") == 2 and len(kinds) + source.source.quarantine.total == 3
    finally:
        _unregister("halves")
