"""Looks for held-out APIs in what training reads; exit status 1 when any is found.

    python -m tools.scan_leaks --corpus DIR                                the training records of a corpus
    python -m tools.scan_leaks --corpus DIR --cache DIR --vocabulary FILE  and the decoded rows of its caches

--cache takes one cache, or a folder with mixture.json for all of its training caches.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from hephaestus_jax.data.cache import Cache
from hephaestus_jax.data.vocabularies import Vocabulary, load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.leaks import Leak, LeakScanner, held_out_of, scan_corpus, scan_texts, summary
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.reports.inspection import Inspection
from tools._command import run

ROWS = 128  # read at a time
SEAM = 512  # characters on either side of the place where a record continues in another row


def scan_cache(cache: Cache, vocabulary: Vocabulary, scanner: LeakScanner) -> Iterator[Leak]:
    """The leaks in the decoded segments of a cache, and in the seams of records that fill several rows."""
    seams: dict[tuple[str, int], tuple[str, str]] = {}  # record, number of the seam → text before, text after

    def texts() -> Iterator[tuple[str, str]]:
        for start in range(0, len(cache), ROWS):
            numbers = np.arange(start, min(start + ROWS, len(cache)))
            rows = cache.read(numbers)
            for number, tokens_L, weights_L in zip(numbers.tolist(), rows.tokens_NL, rows.loss_weights_NL, strict=True):
                for segment in cache.segments(number):
                    tokens_T = tokens_L[segment.start : segment.stop]
                    text = vocabulary.decode(tokens_T)
                    yield f"{cache.manifest.task} row {number} record {segment.record_id}", text
                    # what a continuation repeats at its head has no weight
                    fresh = np.flatnonzero(weights_L[segment.start : segment.stop])
                    head = _head(vocabulary.decode(tokens_T[fresh[0] :])) if segment.part and fresh.size else ""
                    for seam, side, piece in ((segment.part, 1, head), (segment.part + 1, 0, _tail(text))):
                        known = list(seams.get((segment.record_id, seam), ("", "")))
                        known[side] = piece
                        seams[segment.record_id, seam] = (known[0], known[1])
        for (record, seam), (before, after) in seams.items():
            if seam and before and after:
                yield f"{cache.manifest.task} record {record} where part {seam} begins", before + after

    yield from scan_texts(texts(), cache.manifest.segments, scanner)


def _head(text: str) -> str:
    """Where a text begins, up to the end of a word: half a word could look like a name that it only contains."""
    return text if len(text) <= SEAM else re.sub(r"\w+$", "", text[:SEAM])


def _tail(text: str) -> str:
    """How a text ends, from the beginning of a word."""
    return text if len(text) <= SEAM else re.sub(r"^\w+", "", text[-SEAM:])


def _caches(url: str, path: str | None) -> Iterator[tuple[Cache, Vocabulary]]:
    path = path or os.environ.get("HEPHAESTUS_VOCABULARY")
    if not path:
        raise UserError("no vocabulary: give --vocabulary FILE, the one the caches were made with")
    vocabulary = load_vocabulary(path)
    for cache in Inspection.open(url, vocabulary).caches:
        if cache.manifest.split == "train":
            yield cache, vocabulary


def main() -> None:
    """Scans and prints; the exit status tells the result."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.scan_leaks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, type=Path, help="the corpus, with its list of held-out APIs")
    parser.add_argument("--cache", action="append", default=[], help="a cache or folder with mixture.json; repeatable")
    parser.add_argument("--vocabulary", help="the vocabulary of the caches (default: $HEPHAESTUS_VOCABULARY)")
    parser.add_argument("--limit", type=int, default=50, help="leaks to show (default: 50); all are counted")
    options = parser.parse_args()
    scanner = LeakScanner(held_out_of(options.corpus))
    caches = [pair for url in options.cache for pair in _caches(url, options.vocabulary)]
    found = []
    scans = [scan_corpus(Corpus(options.corpus), scanner), *(scan_cache(*pair, scanner) for pair in caches)]
    for leak in chain.from_iterable(scans):
        found.append(leak)
        if len(found) <= options.limit:
            print(leak)
    print(summary(found))
    if found:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
