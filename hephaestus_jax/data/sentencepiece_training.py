"""Training SentencePiece vocabularies that lose nothing.

SentencePiece's defaults destroy code. Here normalization is the identity, no space is put before a text, white space is
kept and learned as tokens of its own, digits are split, every byte has a token, and control tokens are control symbols,
which no text can yield. The result is a function of the texts, their order and the configuration.
"""

from __future__ import annotations

import io
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

import sentencepiece

from hephaestus_jax.data.vocabularies import WELL_KNOWN, Vocabulary, load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress

ModelType = Literal["bpe", "unigram"]

CHUNK_CHARACTERS = 4_000  # a longer text is cut after a line; SentencePiece leaves out overlong sentences
# SentencePiece reserves these and leaves out sentences with them; in use they are spelt by bytes.
_RESERVED = dict.fromkeys(map(ord, "\x00\u2581\u2585"))
_THREADS = 8  # fixed, since the sums of unigram training depend on it; BPE uses one
_BPE_SIZE = re.compile(rb"Added: .* size=(\d+)")


@dataclass(frozen=True)
class VocabularyConfig:
    """What is learned.

    Attributes:
        size: number of ids, control tokens and the 256 bytes included.
        controls: control tokens besides unknown, beginning, end and padding. If they hold a name that is well known
            for one of these (`<|begin_of_text|>`, `</s>`), it takes that part.
        model_type: "bpe" (Sennrich et al., arXiv 1508.07909) or "unigram" (Kudo, arXiv 1804.10959).
        max_bytes: training stops reading after the text that reaches this many UTF-8 bytes.
        coverage: share of characters that get tokens of their own; the others are spelt by bytes.
        max_piece_characters: length limit of a token.
    """

    size: int = 16_384
    controls: tuple[str, ...] = ()
    model_type: ModelType = "bpe"
    max_bytes: int = 200_000_000
    coverage: float = 0.9999
    max_piece_characters: int = 16

    def __post_init__(self) -> None:
        repeated = [name for name, count in Counter(self.controls).items() if count > 1]
        if repeated:
            raise UserError(f"control token {repeated[0]} is given twice; name each once")
        for name in self.controls:
            if not name or any(char.isspace() or char in "\x00\u2581\u2585," for char in name):
                raise UserError(
                    f"control token {name!r} is empty or holds white space, a comma or a reserved character"
                )
            if re.fullmatch("<0x[0-9A-F]{2}>", name):
                raise UserError(f"control token {name} has the name of a byte token; choose another")
        least = 256 + len(self.special_names()) + len(self.controls) + 1
        if self.size < least:
            raise UserError(f"vocabulary size {self.size} is too small: control tokens and bytes alone need {least}")
        if self.model_type not in get_args(ModelType):
            raise UserError(f"model type {self.model_type!r} is unknown; use one of {', '.join(get_args(ModelType))}")
        if self.max_bytes < 1 or not 0 < self.coverage <= 1 or self.max_piece_characters < 1:
            raise UserError("max_bytes and max_piece_characters must be positive and coverage in (0, 1]")

    def special_names(self) -> dict[str, str]:
        """The spellings of "unk", "bos", "eos" and "pad"."""
        chosen = {key: next((n for n in names if n in self.controls), names[0]) for key, names in WELL_KNOWN.items()}
        return {"unk": "<unk>", **chosen}


def train_sentencepiece(texts: Iterable[str], out: str | Path, config: VocabularyConfig) -> Vocabulary:
    """Learns a vocabulary and writes `tokenizer.model` and `vocabulary.json` (how it was made) into a directory.

    Args:
        texts: plain texts, control tokens left out; only the first `config.max_bytes` are used, so mix them.
        out: the directory, made if need be.
        config: what to learn.

    Raises:
        UserError: the texts are too few for a vocabulary of that size, or hold lone surrogates.
    """
    directory, count, writer = Path(out), Counter[str](), io.BytesIO()
    with _learning_progress(config) as stream:
        reading = Progress("reading text", "bytes", config.max_bytes, stream=stream)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_chunks(texts, config.max_bytes, count, reading),
                model_writer=writer,
                **_options(config),
            )
        except RuntimeError as error:
            raise UserError(_reason(error, config, count["bytes"])) from error
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "tokenizer.model.partial"
    partial.write_bytes(writer.getvalue())
    os.replace(partial, directory / "tokenizer.model")
    vocabulary = load_vocabulary(directory / "tokenizer.model")
    about = {"config": asdict(config), "trained_on": dict(count), "digest": vocabulary.digest}
    about["sentencepiece"] = sentencepiece.__version__
    (directory / "vocabulary.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return vocabulary


def _options(config: VocabularyConfig) -> dict[str, Any]:
    special = config.special_names()
    return {
        "model_type": config.model_type,
        "vocab_size": config.size,
        "character_coverage": config.coverage,
        "max_sentencepiece_length": config.max_piece_characters,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
        "byte_fallback": True,
        "control_symbols": [name for name in config.controls if name not in special.values()],
        **{f"{key}_piece": name for key, name in special.items()},
        **{f"{key}_id": number for number, key in enumerate(special)},
        "max_sentence_length": 4 * CHUNK_CHARACTERS,
        "num_threads": _THREADS,
        "minloglevel": 0,
    }


def _chunks(texts: Iterable[str], max_bytes: int, count: Counter[str], progress: Progress) -> Iterator[str]:
    """The texts up to `max_bytes`, in pieces that SentencePiece takes."""
    for text in texts:
        if count["bytes"] >= max_bytes:
            break
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise UserError(f"text {count['texts']} holds a lone surrogate; replace it by U+FFFD") from None
        count.update(bytes=size, texts=1)
        progress.add(size)
        text, start = text.translate(_RESERVED), 0
        while start < len(text):
            stop = start + CHUNK_CHARACTERS
            if stop < len(text):
                stop = text.rfind("\n", start, stop) + 1 or stop
            yield text[start:stop]
            start = stop
    progress.close()


def _reason(error: RuntimeError, config: VocabularyConfig, used_bytes: int) -> str:
    text = " ".join(str(error).split())
    if not used_bytes:
        return "there is no text to train a vocabulary on; check what was given"
    if limit := re.search(r"<= (\d+)", text):
        return (
            f"{used_bytes:,} bytes of text yield {limit[1]} tokens at most, not {config.size}: give more text or a"
            " smaller size"
        )
    return f"SentencePiece cannot train on {used_bytes:,} bytes of text: {text[:300]}"


@contextmanager
def _learning_progress(config: VocabularyConfig) -> Iterator[TextIO]:
    """Shows how far the learning is, which SentencePiece tells its log on file descriptor 2 alone.

    Yields the stream that leads where that descriptor led.
    """
    terminal = os.dup(2)
    reader, writer = os.pipe()
    with os.fdopen(terminal, "w", buffering=1) as stream:
        follower = threading.Thread(target=_follow, args=(reader, stream, config), daemon=True)
        os.dup2(writer, 2)
        os.close(writer)
        follower.start()
        try:
            yield stream
        finally:
            os.dup2(terminal, 2)  # closes the pipe's last writing end, which ends the follower
            follower.join()


def _follow(reader: int, stream: TextIO, config: VocabularyConfig) -> None:
    is_bpe = config.model_type == "bpe"
    unit = "tokens" if is_bpe else "expectation-maximization steps"
    progress: Progress | None = None
    with os.fdopen(reader, "rb") as log:
        for line in log:
            learned = _BPE_SIZE.search(line)
            if learned or b"EM sub_iter" in line:
                progress = progress or Progress("learning", unit, config.size if is_bpe else None, stream=stream)
                progress.add(int(learned[1]) - progress.count if learned else 1)
    if progress:
        progress.close()
