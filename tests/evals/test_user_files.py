"""A user's own evaluation files become slices: packed caches as they are, everything else packed once."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers")  # the trainer alone opens packed caches only
pytest.importorskip("pyarrow")
sys.path.append(str(Path(__file__).parents[1] / "data"))
from mixtures_on_disk import LENGTH, write_mixture
from token_sources import RandomSource, write_vocabulary

import hephaestus_jax
from hephaestus_jax.config import EvaluationConfig
from hephaestus_jax.data.cache_build import build_cache
from hephaestus_jax.data.mixture import Mixture, open_mixture
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals.plain_text import PlainTextSource, open_records
from hephaestus_jax.evals.user_files import open_user_files

ROOT = str(Path(hephaestus_jax.__file__).parents[1])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_mixture(folder)
    return folder


@pytest.fixture(scope="module")
def mixture(data: Path) -> Mixture:
    return open_mixture(str(data))


def open_one(path: Path | str, data: Path, mixture: Mixture, folder: Path, name: str = "own"):
    config = EvaluationConfig(files=(f"{name}={path}",), vocabulary=str(data / "vocabulary" / "tokenizer.json"))
    return open_user_files(config, mixture, folder)[name]


def texts(cache, data: Path) -> list[str]:
    """The text of every segment, in the order of rows."""
    rows = cache.read(np.arange(cache.manifest.rows))
    vocabulary = load_vocabulary(data / "vocabulary" / "tokenizer.json")
    found = []
    for tokens, segments in zip(rows.tokens_NL, rows.segment_ids_NL, strict=True):
        found += [vocabulary.decode(tokens[segments == k].tolist()) for k in range(1, segments.max() + 1)]
    return found


def test_a_packed_cache_is_opened_where_it_is(data, mixture, tmp_path):
    path = mixture.validation["docs"].url
    config = EvaluationConfig(files=(f"own={path}", f"code={mixture.caches['code'].url}"))  # needs no vocabulary
    found = open_user_files(config, mixture, tmp_path / "evaluation")
    assert list(found) == ["own", "code"] and found["own"].manifest == mixture.validation["docs"].manifest
    assert not (tmp_path / "evaluation").exists()


def test_rows_of_text_are_packed_once(data, mixture, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps({"text": f"number {n} is here"}) + "\n" for n in range(5)) + "not json\n")
    cache = open_one(file, data, mixture, tmp_path / "evaluation")
    assert sorted(texts(cache, data)) == [f"number {n} is here" for n in range(5)]
    assert cache.manifest.sequence_length == LENGTH and cache.manifest.loss_bytes > 0
    stamp = os.stat(Path(cache.url) / "manifest.json").st_mtime_ns
    again = open_one(file, data, mixture, tmp_path / "evaluation")
    assert again.url == cache.url and os.stat(Path(again.url) / "manifest.json").st_mtime_ns == stamp
    file.write_text(json.dumps({"text": "another text"}) + "\n")
    changed = open_one(file, data, mixture, tmp_path / "evaluation")
    assert changed.url != cache.url and texts(changed, data) == ["another text"]


def test_plain_text_is_a_document_a_file(data, mixture, tmp_path):
    folder = tmp_path / "books"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text("the second")
    (folder / "a.md").write_text("# the first\n")
    (folder / "deep" / "c.txt").write_text("é, the third")
    (folder / ".hidden.txt").write_text("not this")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    cache = open_one(folder, data, mixture, tmp_path / "evaluation")
    assert sorted(texts(cache, data)) == sorted(["# the first\n", "the second", "é, the third"])
    assert sorted(origin.source for origin in cache.manifest.origins) == ["a.md", "b.txt", "deep/c.txt"]
    one = open_one(folder / "b.txt", data, mixture, tmp_path / "evaluation", "one")
    assert texts(one, data) == ["the second"]


def test_the_fingerprint_of_text_follows_names_and_bytes(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    first = PlainTextSource(str(tmp_path)).fingerprint()
    assert PlainTextSource(str(tmp_path)).fingerprint() == first
    (tmp_path / "a.txt").write_text("y")
    second = PlainTextSource(str(tmp_path)).fingerprint()
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert len({first, second, PlainTextSource(str(tmp_path)).fingerprint()}) == 3


def test_rows_come_before_text_and_what_is_not_read_is_named(tmp_path, capsys):
    (tmp_path / "README.md").write_text("about the rows")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"nothing": 1}\n')
    records = open_records(str(tmp_path))
    assert records.count() == 1
    err = capsys.readouterr().err
    assert "not read: README.md" in err and "1 quarantined" in err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "absent.jsonl", "absent.jsonl does not exist; mend EvaluationConfig.files"),
        (lambda p: p, "nothing to evaluate on in .*holds no .jsonl"),
        (lambda p: "gs://", "cannot"),
    ],
)
def test_what_is_not_there(data, mixture, tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        open_one(make(tmp_path), data, mixture, tmp_path / "evaluation")


def test_text_that_is_not_unicode(data, mixture, tmp_path):
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.txt is not UTF-8"):
        open_one(tmp_path / "latin.txt", data, mixture, tmp_path / "evaluation")


def test_another_vocabulary_length_or_name_is_refused(data, mixture, tmp_path):
    other = write_vocabulary(tmp_path / "other", extra=60)
    file = tmp_path / "own.txt"
    file.write_text("some text")
    with pytest.raises(UserError, match="EvaluationConfig.vocabulary .* has digest .*give that tokenizer"):
        open_user_files(EvaluationConfig(files=(f"own={file}",), vocabulary=other), mixture, tmp_path / "e")
    with pytest.raises(UserError, match="give the mixture's tokenizer as EvaluationConfig.vocabulary"):
        open_user_files(EvaluationConfig(files=(f"own={file}",)), mixture, tmp_path / "e")
    with pytest.raises(UserError, match=r"has the name '\.\./out'; use letters"):
        open_one(file, data, mixture, tmp_path / "e", name="../out")
    vocabulary = str(data / "vocabulary" / "tokenizer.json")
    for source, length, message in (
        (RandomSource(other, records=20), LENGTH, "was tokenised with vocabulary"),
        (RandomSource(vocabulary, records=20), LENGTH * 2, f"holds rows of {2 * LENGTH} tokens, not {LENGTH}"),
    ):
        built = build_cache(source, tmp_path / "caches", length)
        with pytest.raises(UserError, match=message):
            open_one(built.path, data, mixture, tmp_path / "e")
    assert not (tmp_path / "out").exists()


TRAINER_ONLY = """
import sys
BLOCKED = {"tensorflow", "seqio", "pyarrow", "tokenizers", "sentencepiece", "tiktoken", "jinja2"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from pathlib import Path
from hephaestus_jax import metrics, run_directory
from hephaestus_jax.config import EvaluationConfig
from hephaestus_jax.data.mixture import open_mixture
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals import held_out
from hephaestus_jax.evals.user_files import open_user_files
mixture, folder = open_mixture(sys.argv[1]), Path(sys.argv[2])
found = open_user_files(EvaluationConfig(files=("own=" + mixture.validation["docs"].url,)), mixture, folder)
print(found["own"].manifest.rows)
(folder / "a.txt").write_text("text")
config = EvaluationConfig(files=(f"own={folder}/a.txt",), vocabulary=sys.argv[1] + "/vocabulary/tokenizer.json")
try:
    open_user_files(config, mixture, folder)
except UserError as error:
    print(error)
"""


def test_with_the_trainers_packages_alone_a_cache_opens_and_text_says_what_to_do(data, mixture, tmp_path):
    environment = {**os.environ, "PYTHONPATH": ROOT, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(TRAINER_ONLY), str(data), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, message = done.stdout.splitlines()
    assert int(rows) == mixture.validation["docs"].manifest.rows
    assert "is not installed here" in message and "python -m tools.build_cache --data" in message


def test_all_processes_hear_of_an_error(data, mixture, tmp_path, monkeypatch):
    """A process that does not build gets word of what went wrong in the one that does."""
    monkeypatch.setattr("hephaestus_jax.distributed.is_main", lambda: False)
    monkeypatch.setattr("hephaestus_jax.distributed.broadcast", lambda value: ["", "nothing to read; mend it"])
    with pytest.raises(UserError, match="nothing to read; mend it"):
        open_one(tmp_path / "not looked at", data, mixture, tmp_path)
    docs = mixture.validation["docs"]
    monkeypatch.setattr("hephaestus_jax.distributed.broadcast", lambda value: [docs.url, ""])
    assert open_one(tmp_path / "not looked at", data, mixture, tmp_path).url == docs.url
