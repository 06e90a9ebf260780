"""Trains a SentencePiece vocabulary on the training split of a corpus.

    python -m tools.train_vocabulary --corpus DIR --size 16384 --out DIR

Every slice gives text in proportion to its number of records, until the limit is reached. Records are read in the order
of their content-derived ids, so the text is a random sample and the result the same every time.
"""

from __future__ import annotations

import argparse
import heapq
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import SLICES, Record
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.formats.spans import BOS, EOS, SEAM, Renderer, Rendering
from hephaestus_jax.formats.store import Corpus
from tools._command import run


def main(arguments: list[str] | None = None) -> None:
    """Trains and reports."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_vocabulary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpus", required=True, help="corpus directory, as `tools.build_corpus` writes")
    parser.add_argument("--out", required=True, help="directory for tokenizer.model and vocabulary.json")
    parser.add_argument("--size", type=int, default=16_384, help="number of token ids (default: %(default)s)")
    parser.add_argument(
        "--chat", default="llama3", help="chat family whose control tokens to add (default: %(default)s)"
    )
    parser.add_argument("--control", action="append", default=[], help="a further control token; may be repeated")
    parser.add_argument("--model_type", default="bpe", choices=["bpe", "unigram"], help="default: %(default)s")
    parser.add_argument("--megabytes", type=float, default=200, help="text to read at most (default: %(default)s MB)")
    args = parser.parse_args(arguments)
    renderer = RecordRenderer(chat=args.chat)
    config = VocabularyConfig(
        size=args.size,
        controls=tuple(dict.fromkeys([*renderer.controls, *args.control])),
        model_type=args.model_type,
        max_bytes=round(args.megabytes * 1e6),
    )
    records = interleaved_records(Corpus(Path(args.corpus)))
    vocabulary = train_sentencepiece(plain_texts(records, renderer), args.out, config)
    about = json.loads((Path(args.out) / "vocabulary.json").read_text("utf-8"))
    print(
        f"{vocabulary.path}: {vocabulary.size:,} tokens, {len(config.controls)} of them control tokens of {args.chat},"
        f" learned from {about['trained_on']['bytes'] / 1e6:.1f} MB of text; digest {vocabulary.digest}"
    )


def interleaved_records(corpus: Corpus) -> Iterator[Record]:
    """The training records of all slices, each slice spread evenly over the whole."""

    def placed(slice_name: str) -> Iterator[tuple[float, str, Record]]:
        count = corpus.count(slice_name, "train")
        for number, (_, record) in enumerate(corpus.read(slice_name, "train")):
            yield (number + 0.5) / count, slice_name, record

    slices = [name for name in SLICES if corpus.count(name, "train")]
    for _, _, record in heapq.merge(*map(placed, slices), key=lambda item: item[:2]):
        yield record


def plain_texts(records: Iterable[Record], renderer: Renderer) -> Iterator[str]:
    """The texts between control tokens and seams, which no token crosses; records without a form are passed over."""
    names = sorted([*renderer.controls, BOS, EOS], key=len, reverse=True)
    controls = re.compile("|".join(map(re.escape, names)))
    for record in records:
        try:
            yield from filter(None, _runs(renderer.render(record), controls))
        except UserError:
            continue  # the cache builder counts these; for a vocabulary they do not matter


def _runs(rendering: Rendering, controls: re.Pattern[str]) -> Iterator[str]:
    run = ""
    for span in rendering.spans:
        if span == SEAM:
            yield run
            run = ""
            continue
        first, *others = controls.split(span.text) if span.kind == "template" else [span.text]
        run += first
        for text in others:
            yield run
            run = text
    yield run


if __name__ == "__main__":
    run(main)
