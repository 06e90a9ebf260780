"""`python -m tools.train_vocabulary` and `python -m tools.benchmark tokenize`."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import chat_renderer
from hephaestus_jax.formats.records import Document, MessageAction, Provenance, TextObservation, Trajectory
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.formats.store import write_corpus
from tools import train_vocabulary
from tools.benchmark import __main__ as benchmark

ROOT = Path(__file__).parents[2]
HERE = Provenance("stdlib", "3", "PSF-2.0")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:12]
    code = [Document(path.read_text("utf-8", "replace"), "code", HERE) for path in paths]
    chat = [
        Trajectory((TextObservation(f"What is {i}?", "user"), MessageAction(f"It is {i}.")), HERE) for i in range(48)
    ]
    held_out = [Document("xylophonist " * 500, "text", HERE)]
    records = {
        ("code", "train"): code,
        ("agent_trajectories", "train"): chat,
        ("text", "validation"): held_out,
    }
    directory = tmp_path_factory.mktemp("train_vocabulary") / "corpus"
    write_corpus(directory, records, {})
    return directory


def test_trains_with_the_control_tokens_of_the_chat_family(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--corpus", str(corpus), "--size", "900", "--chat", "llama3.1", "--control", "<extra>"]
    for name in ("one", "two"):
        train_vocabulary.main([*arguments, "--megabytes", "0.2", "--out", str(tmp_path / name)])
    vocabulary = load_vocabulary(tmp_path / "one")
    assert {*chat_renderer("llama3.1").controls, "<extra>"} <= vocabulary.control_ids.keys()
    assert vocabulary.size == 900 and vocabulary.digest == load_vocabulary(tmp_path / "two").digest
    assert "900 tokens" in capsys.readouterr().out
    assert len(vocabulary.encode(" xylophonist")) > 4  # what is held out teaches the vocabulary nothing


def test_slices_are_spread_evenly(corpus: Path) -> None:
    from hephaestus_jax.formats.store import Corpus

    kinds = [type(record).__name__ for record in train_vocabulary.interleaved_records(Corpus(corpus))]
    assert (kinds.count("Document"), kinds.count("Trajectory")) == (12, 48)
    for start in range(0, 60, 10):
        assert kinds[start : start + 10].count("Document") == 2


def test_control_tokens_are_left_out_of_the_text() -> None:
    turns = Trajectory((TextObservation("a <|eot_id|> b", "user"), MessageAction("c")), HERE)
    texts = list(train_vocabulary.plain_texts([turns], RecordRenderer(chat="llama3")))
    # No token crosses what the tokenizer is given in two pieces; the user's own words stay.
    assert texts == ["user", "\n\n", "a <|eot_id|> b", "assistant", "\n\n", "c"]


def test_mistakes_are_one_line(tmp_path: Path, corpus: Path) -> None:
    command = [sys.executable, "-m", "tools.train_vocabulary", "--out", str(tmp_path / "v")]
    for arguments, message in (
        (["--corpus", str(tmp_path)], "error: no corpus at"),
        (["--corpus", str(corpus), "--size", "99"], "error: vocabulary size 99 is too small"),
        (["--corpus", str(corpus), "--chat", "nope"], "error: chat family 'nope' is unknown"),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert done.returncode == 2 and done.stderr.startswith(message) and done.stderr.count("\n") == 1, done.stderr


def test_the_benchmark_prints_one_line_of_json(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_vocabulary.main(["--corpus", str(corpus), "--size", "900", "--megabytes", "0.1", "--out", str(tmp_path)])
    capsys.readouterr()
    options = ["--vocabulary", str(tmp_path), "--megabytes", "0.05", "--rounds", "1"]
    for more in ([], ["--corpus", str(corpus)]):
        benchmark.main(["tokenize", *options, *more])
        (line,) = capsys.readouterr().out.splitlines()
        result = json.loads(line)
        (measured,) = result["vocabularies"].values()
        assert result["benchmark"] == "tokenize" and result["cores"] == 1
        assert measured["tokens"] > 1_000 and measured["ratio_of_encode_batch"] > 0
        assert measured["tokenize_tokens_per_core_s"] > 0 and measured["encode_batch_bytes_per_core_s"] > 0


def test_unknown_benchmarks_are_named() -> None:
    with pytest.raises(UserError, match="no benchmark is called sing; there are tokenize, pack, loader"):
        benchmark.main(["sing"])
