"""Training: what is learned, that it is the same every time, and what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizer_files as files

from hephaestus_jax.data.sentencepiece_training import CHUNK_CHARACTERS, VocabularyConfig, train_sentencepiece
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.spans import BOS, EOS


def _train(out: Path, texts: list[str] | None = None, **options: Any) -> Any:
    config = VocabularyConfig(**{"size": 1_000, "max_bytes": 200_000, **options})
    return train_sentencepiece(texts if texts is not None else files.sources(8), out, config)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_the_same_texts_give_the_same_file(tmp_path: Path, model_type: str) -> None:
    texts = [text[:20_000] for text in files.sources(12)]
    first, second = (
        _train(tmp_path / name, texts, model_type=model_type, max_bytes=40_000, size=800) for name in ("one", "two")
    )
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
    assert first.digest == second.digest
    about = json.loads((tmp_path / "one" / "vocabulary.json").read_text())
    assert about["digest"] == first.digest and about["config"]["size"] == first.size == 800
    assert about["config"]["model_type"] == model_type
    sizes = list(itertools.accumulate(len(text.encode()) for text in texts))
    assert sizes[-1] > 60_000
    assert about["trained_on"]["bytes"] == next(size for size in sizes if size >= 40_000)


def test_what_is_learned(tmp_path: Path) -> None:
    vocabulary = _train(tmp_path, controls=("<|eot_id|>", "</s>", "<tool_call>"))
    # </s> is a name that is known for the end of text and takes that part
    assert vocabulary.control_ids == {
        **{"<unk>": 0, BOS: 1, "</s>": 2, EOS: 2, "<|pad|>": 3},
        **{"<|eot_id|>": 4, "<tool_call>": 5},
    }
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.pad_id) == (1, 2, 3)
    processor = sentencepiece.SentencePieceProcessor(model_file=vocabulary.path)
    assert processor.encode("2024", out_type=str) == ["2", "0", "2", "4"]
    assert processor.encode("        return", out_type=str)[0].startswith("\u2581\u2581\u2581\u2581")
    assert processor.encode("self", out_type=str) == ["self"]  # no dummy prefix, and the corpus says it often


def test_control_tokens_in_the_text_are_not_learned(tmp_path: Path) -> None:
    vocabulary = _train(tmp_path, ["<|eot_id|> and so on\n" * 500, *files.sources(4)], controls=("<|eot_id|>",))
    ids = vocabulary.encode("<|eot_id|>")
    assert vocabulary.control_ids["<|eot_id|>"] not in ids and vocabulary.decode(ids) == "<|eot_id|>"


def test_awkward_texts_are_used_all_the_same(tmp_path: Path) -> None:
    word = "unmistakable"  # only in texts that SentencePiece would leave out: reserved characters, NUL, overlong lines
    texts = [f"{word} \u2581\x00\u2585 " * 40, f"{word} " * CHUNK_CHARACTERS, *files.sources(4), ""]
    vocabulary = _train(tmp_path, texts)
    assert len(vocabulary.encode(f" {word}")) == 1
    hard = f"{word} \u2581\x00\u2585\t"
    assert vocabulary.decode(vocabulary.encode(hard)) == hard


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"controls": ("<a>", "<a>")}, "<a> is given twice"),
        ({"controls": ("<a b>",)}, "white space"),
        ({"controls": ("",)}, "is empty"),
        ({"controls": ("<0x0A>",)}, "byte token"),
        ({"size": 260}, "too small: control tokens and bytes alone need 261"),
        ({"model_type": "word"}, "model type 'word' is unknown; use one of bpe, unigram"),
        ({"max_bytes": 0}, "must be positive"),
        ({"coverage": 1.5}, "coverage"),
    ],
)
def test_configurations_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VocabularyConfig(**options)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["hello there"] * 3, "33 bytes of text yield .* tokens at most, not 1000: give more text"),
        ([], "no text to train"),
        ([""], "no text to train"),
        (["fine", "bad \ud800"], "text 1 holds a lone surrogate"),
    ],
)
def test_texts_that_do_not_do(tmp_path: Path, model_type: str, texts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _train(tmp_path, texts, model_type=model_type)
    assert not list(tmp_path.iterdir())


def test_standard_error_is_given_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import os

    _train(tmp_path)
    os.write(2, b"still there\n")
    shown = capfd.readouterr().err
    assert shown.endswith("still there\n")
    assert "reading text: " in shown and "learning: " in shown and "tokens/s" in shown
    assert "trainer_interface" not in shown  # SentencePiece's own log
