"""Cuts held-out APIs out of training records.

`Cutter.cut` takes any record of the training side and gives it back without them, with what was done in
`provenance.processing`, or says why nothing of it can stay. Its result is checked with the same matcher that finds the
places to cut; the leak scan (`forge.leaks`) checks again with other means.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from hephaestus_jax.forge.cut_python import cut_python
from hephaestus_jax.forge.cut_text import cut_text, dependants
from hephaestus_jax.forge.holdout import WINDOW_WORDS, HeldOut, matched_words, words_of
from hephaestus_jax.forge.python_source import Unparseable
from hephaestus_jax.formats.api_layouts import LAYOUTS
from hephaestus_jax.formats.records import (
    ApiDoc,
    Document,
    Json,
    Provenance,
    Record,
    Trajectory,
    canonical_json,
    to_json,
)

# what layouts say of their own: headings, types as Python spells them, constraints
LAYOUT_WORDS = frozenset(
    """
    args and any array arrays as at async bool boolean by class constant constraints def default defaults description
    dict each elif enum error errors example examples exclusive false fields float format in int integer is items
    json keys least length list literal max maximum min minimum minitems more most multiple name none not null number
    object of one only optional or other otherwise parameter parameters pattern properties python raises required
    r result returns schema str string than to true tuple type types union unique values with x above below
    """.split()  # noqa: SIM905  a list of a hundred words in quotes is not better to read
)
_DEPTH = 8  # of nested parameters, more than any renderer shows
_ESCAPED = re.compile(r"\\(?:u[0-9a-f]{4}|[nrtbf\"])")  # what JSON writes for control characters and quotes
_PAIRS = 3  # of a window's seven pairs of neighbours, that at most five texts side by side have within them
_ROUNDS = 4  # a cut can bring words together that make a new window


class Matcher:
    """Finds the words of a text that show a held-out API: its distinctive names, and copies of its docstrings."""

    def __init__(self, held_out: HeldOut) -> None:
        self.words = held_out.words
        self._windows = held_out.windows
        # most texts hold none of the pairs that windows begin with in the right place, which is quick to see
        self._beginnings = {tuple(window.split(" ", 2)[:2]) for window in self._windows}
        self._by_rarest = _by_rarest(self._windows)

    def needed_words(self, words: Set[str]) -> Iterator[tuple[str, ...]]:
        """The windows that nothing but these lower-case words is needed for."""
        for key in self._by_rarest.keys() & words:
            for needed, window in self._by_rarest[key]:
                if needed <= words:
                    yield window

    def may_come_about(self, texts: Iterable[str]) -> bool:
        """Whether a layout that puts these texts side by side, in any order, may make a window.

        Quick, and wrongly False only for a window that would be made of six texts and more.
        """
        pieces = [[word.lower() for word in words_of(text)] for text in texts]
        pairs = {pair for piece in pieces for pair in itertools.pairwise(piece)}
        windows = self.needed_words({word for piece in pieces for word in piece} | LAYOUT_WORDS)
        return any(sum(map(pairs.__contains__, itertools.pairwise(window))) >= _PAIRS for window in windows)

    def offsets(self, text: str) -> list[int]:
        """Character offsets of the words that show a held-out API, in order."""
        words = words_of(text)
        windows = self._window_starts([word.lower() for word in words])
        if not windows and self.words.isdisjoint(words):
            return []
        covered = {number for start in windows for number in range(start, start + WINDOW_WORDS)}
        return [
            match.start()
            for number, (match, word) in enumerate(zip(matched_words(text), words, strict=True))
            if number in covered or word in self.words
        ]

    def matches(self, text: str) -> bool:
        """Whether the text shows a held-out API."""
        words = words_of(text)
        return not self.words.isdisjoint(words) or bool(self._window_starts([word.lower() for word in words]))

    def _window_starts(self, words: list[str]) -> list[int]:
        if len(words) < WINDOW_WORDS or not self._windows:
            return []
        beginnings, windows = self._beginnings, self._windows
        starts = [i for i, pair in enumerate(itertools.pairwise(words)) if pair in beginnings]
        return [i for i in starts if " ".join(words[i : i + WINDOW_WORDS]) in windows]


def _by_rarest(windows: Iterable[str]) -> dict[str, list[tuple[frozenset[str], tuple[str, ...]]]]:
    """Each window, with the words it needs, found by the one of them that the fewest windows hold."""
    # numbers (defaults, bounds, versions) stand in a record as numbers, or not at all
    needed = {window: frozenset(word for word in window.split(" ") if word.isalpha()) for window in windows}
    uses = Counter(word for words in needed.values() for word in words)
    found: dict[str, list[tuple[frozenset[str], tuple[str, ...]]]] = {}
    for window, words in sorted(needed.items()):
        rarest = min(words, key=lambda word: (uses[word], word))
        found.setdefault(rarest, []).append((words, tuple(window.split(" "))))
    return found


@dataclass(frozen=True)
class Dropped:
    """A record of which nothing can stay, and why."""

    reason: str


class Cutter:
    """Cuts one list of held-out APIs out of records."""

    def __init__(self, held_out: HeldOut) -> None:
        self.matcher = Matcher(held_out)

    def cut(self, record: Record) -> Record | Dropped:
        """The record without held-out APIs: the very same object where there are none in it."""
        if not self._shows(record):
            return record
        if isinstance(record, Trajectory):
            return Dropped("trajectory uses a held-out API")
        if isinstance(record, Document):
            made: Record | Dropped = self._document(record)
        else:
            made = self._api(record)
        if isinstance(made, Dropped) or not self._shows(made):
            return made
        return Dropped(f"{type(record).__name__}: a held-out API is left after cutting")

    def _shows(self, record: Record) -> bool:
        """Whether a held-out API shows in the record, or comes about where a layout puts its parts side by side."""
        if isinstance(record, Document):
            return self.matcher.matches(record.text)
        value = to_json(record)
        del value["provenance"], value["kind"]
        # most records lack the words: to look at them all at once takes a tenth of the time that the strings take
        words = words_of(_ESCAPED.sub(" ", canonical_json(value)).replace("\\\\", "\\"))
        plain = {word.lower() for word in words} | LAYOUT_WORDS
        if self.matcher.words.isdisjoint(words) and next(self.matcher.needed_words(plain), None) is None:
            return False
        strings = list(strings_in(value))
        if self.matcher.matches("\n".join(strings)):
            return True
        if not isinstance(record, ApiDoc) or not self.matcher.may_come_about(strings):
            return False
        return any(self.matcher.matches(layout(record, _DEPTH)) for layout in LAYOUTS.values())

    def _text(self, text: str) -> tuple[str, int]:
        """A text without held-out APIs, and how many pieces were cut."""
        pieces = 0
        for _ in range(_ROUNDS):
            if not (offsets := self.matcher.offsets(text)):
                break
            text, count = cut_text(text, offsets)
            pieces += count
        return text, pieces

    def _document(self, record: Document) -> Document | Dropped:
        text, definitions, pieces = record.text, 0, 0
        try:
            for _ in range(_ROUNDS if record.language == "python" else 0):
                if not (offsets := self.matcher.offsets(text)):
                    break
                cut = cut_python(text, offsets, self.matcher.words)
                if cut is None:
                    return Dropped("code: cannot be cut and stay parseable")
                text, definitions, pieces = cut.text, definitions + cut.definitions, pieces + cut.pieces
        except Unparseable:
            pass  # cut as text
        if record.language != "python" or not pieces + definitions:
            text, pieces = self._text(text)
        if not text.strip():
            return Dropped(f"{record.slice}: nothing left after cutting held-out APIs")
        return replace(record, text=text, provenance=_processed(record.provenance, definitions, pieces))

    def _api(self, record: ApiDoc) -> ApiDoc | Dropped:
        head = [record.name, record.signature, *strings_in(_without_descriptions(record.parameters))]
        if any(map(self.matcher.matches, head)):
            return Dropped("API documentation: its signature names a held-out API")
        pieces = 0

        def cut(text: str) -> str:
            nonlocal pieces
            left, count = self._text(text)
            pieces += count
            return left.strip() if count else text

        description = cut(record.description)
        errors = [replace(error, description=cut(error.description)) for error in record.errors]
        errors = [error for error in errors if not self.matcher.matches(error.name)]
        shown = [f"{example.intent or ''}\n{example.call}\n{example.result or ''}" for example in record.examples]
        hit = {number for number, text in enumerate(shown) if self.matcher.matches(text)}
        gone = dependants([example.call for example in record.examples], hit)
        examples = [example for number, example in enumerate(record.examples) if number not in gone]
        returns = record.returns and _map_descriptions(record.returns, cut)
        if returns and any(map(self.matcher.matches, strings_in(returns))):
            returns = None
        pieces += len(gone) + (returns is None and record.returns is not None) + len(record.errors) - len(errors)
        made = replace(
            record,
            description=description,
            parameters=_map_descriptions(record.parameters, cut),
            returns=returns,
            errors=tuple(errors),
            examples=tuple(examples),
        )
        if not description.strip() and record.description.strip():
            return Dropped("API documentation: no description left after cutting held-out APIs")
        return replace(made, provenance=_processed(record.provenance, 0, pieces))


def _processed(provenance: Provenance, definitions: int, pieces: int) -> Provenance:
    note = f"cut: {definitions} definitions of held-out APIs, {pieces} pieces that use or describe them"
    return replace(provenance, processing=(*provenance.processing, note))


def strings_in(value: Json) -> Iterator[str]:
    """The strings inside a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from strings_in(item)
    elif isinstance(value, Iterable):
        for item in value:
            yield from strings_in(item)


def _without_descriptions(schema: Json) -> Json:
    return _map_descriptions(schema, lambda text: "")


def _map_descriptions(schema: Json, change: Any) -> Any:
    """A JSON Schema with every description changed."""
    if isinstance(schema, Mapping):
        return {
            key: change(item) if key == "description" and isinstance(item, str) else _map_descriptions(item, change)
            for key, item in schema.items()
        }
    if isinstance(schema, list | tuple):
        return [_map_descriptions(item, change) for item in schema]
    return schema
