"""The leak scan: whether anything held out shows in what training reads.

Written apart from the cutting it checks, and working differently: both kinds of trace are looked for with one
Aho-Corasick automaton each, over the finished text. A leak is

- a distinctive name of a held-out API as a whole word (as a definition, a call, part of a dotted name, a re-export),
  in the case it is written in;
- eight consecutive words of a held-out docstring, in any case and with any punctuation between them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ahocorasick_rs

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.holdout import HeldOut
from hephaestus_jax.formats.records import SLICES, Json, Record, to_json
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.progress import Progress

HELD_OUT_FILE = "heldout.json"
_SEPARATOR = re.compile(r"\W+")
_WINDOW = 8  # words; see `holdout.RULE`
_CONTEXT = 40  # characters shown on either side of a leak


@dataclass(frozen=True)
class Leak:
    """One trace of a held-out API.

    `place` names the record or row and what in it, `kind` is definition, call, re-export, dotted name, name or
    docstring; `trace` is what was found, `context` the text around it.
    """

    place: str
    kind: str
    trace: str
    context: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind} of {self.trace!r}: …{self.context}…"


class LeakScanner:
    """Looks for one list of held-out APIs."""

    def __init__(self, held_out: HeldOut) -> None:
        self._names = sorted({word for family in held_out.families for word in family.words})
        docstrings = {text for family in held_out.families for text in family.docstrings}
        self._windows = sorted({window for text in docstrings for window in _telling(text)} - set(held_out.common))
        self._find_names = ahocorasick_rs.AhoCorasick(self._names) if self._names else None
        padded = [f" {window} " for window in self._windows]
        self._find_windows = ahocorasick_rs.AhoCorasick(padded) if padded else None

    def scan(self, text: str, place: str) -> list[Leak]:
        """The leaks of one text."""
        text = _readable(text)
        return [*self._named(text, place), *self._copied(text, place)]

    def scan_record(self, identifier: str, record: Record) -> list[Leak]:
        """The leaks of one record, field by field; provenance is no training text."""
        fields = {key: value for key, value in to_json(record).items() if key not in ("provenance", "kind")}
        leaks = []
        for field, value in fields.items():
            for text in _texts(value):
                leaks += self.scan(text, f"{identifier} {record.provenance.source} {field}")
        return leaks

    def _named(self, text: str, place: str) -> Iterator[Leak]:
        if self._find_names is None:
            return
        for number, start, end in self._find_names.find_matches_as_indexes(text, overlapping=True):
            if not (_in_word(text[start - 1 : start]) or _in_word(text[end : end + 1])):
                yield Leak(place, _kind(text, start, end), self._names[number], _around(text, start, end))

    def _copied(self, text: str, place: str) -> Iterator[Leak]:
        if self._find_windows is None:
            return
        plain = f" {' '.join(_SEPARATOR.split(text)).lower()} "
        for number, start, end in self._find_windows.find_matches_as_indexes(plain, overlapping=True):
            yield Leak(place, "docstring", self._windows[number], _around(plain, start, end))


def held_out_of(directory: Path | str) -> HeldOut:
    """The held-out APIs of a corpus.

    Raises:
        UserError: the corpus has no list of them.
    """
    path = Path(directory) / HELD_OUT_FILE
    try:
        return HeldOut.from_json(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, so nothing tells what is held out; rebuild the corpus") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); rebuild the corpus") from error


def scan_corpus(corpus: Corpus, scanner: LeakScanner) -> Iterator[Leak]:
    """The leaks in the training records of a corpus."""
    total = sum(corpus.count(name, "train") for name in SLICES)
    with Progress("scanning the corpus", "records", total) as progress:
        for name in SLICES:
            for identifier, record in progress.track(corpus.read(name, "train")):
                for leak in scanner.scan_record(identifier, record):
                    yield Leak(f"{name}/train {leak.place}", leak.kind, leak.trace, leak.context)


def scan_texts(texts: Iterable[tuple[str, str]], total: int, scanner: LeakScanner) -> Iterator[Leak]:
    """The leaks in (place, text) pairs, as the decoded segments of a cache."""
    with Progress("scanning decoded rows", "segments", total) as progress:
        for place, text in progress.track(texts):
            yield from scanner.scan(text, place)


def summary(leaks: Iterable[Leak]) -> str:
    """How many leaks there are of each kind, in one line."""
    counts = Counter(leak.kind for leak in leaks)
    told = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
    return f"{sum(counts.values()):,} leaks" + (f": {told}" if told else "")


def _readable(text: str) -> str:
    """The text with underscores as they are read, and a blank for what a string in source code writes as "\\n"."""
    return re.sub(r"\\[abfnrtv]", " ", text.replace("\\_", "_"))


def _telling(docstring: str) -> Iterator[str]:
    """The windows of a docstring that hold 4 different words of 3 letters or more."""
    words = [word.lower() for word in _SEPARATOR.split(_readable(docstring)) if word]
    for start in range(len(words) + 1 - _WINDOW):
        window = words[start : start + _WINDOW]
        if sum(word.isalpha() and len(word) >= 3 for word in set(window)) >= 4:
            yield " ".join(window)


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in value:
            yield from _texts([key, value[key]])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _in_word(character: str) -> bool:
    return character == "_" or character.isalnum()


def _kind(text: str, start: int, end: int) -> str:
    before = text[max(0, start - 200) : start]
    if re.search(r"\b(def|class)\s+$", before):
        return "definition"
    if re.match(r"\s*\(", text[end : end + 20]):
        return "call"
    quoted = before.endswith(("'", '"')) and text.startswith(before[-1:], end)
    if quoted or re.search(r"\bimport\s*\(?[\w\s,]*$", before):
        return "re-export"
    return "dotted name" if before.endswith(".") else "name"


def _around(text: str, start: int, end: int) -> str:
    return " ".join(text[max(0, start - _CONTEXT) : end + _CONTEXT].split())
