"""Runs of words that a text shares with the texts of a benchmark, numbers left open.

As in Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C, 13 shared words give an item away. Texts
of a benchmark are often shorter than that, so runs are found by their parts of `GRAM` words, and of a short text most
words must be shared.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

GRAM = 6
RUN_WORDS = 13  # of a long text, that give it away
SHORT_SHARE = 0.75  # of a text below 18 words
LONG_SHARE = 0.1  # of a text above 130 words
SHORTEST_WHOLE = 4  # words of a text that is only found whole
PLAIN_WORDS = 4  # of a gram that are no numbers
MAX_TEXTS = 8  # texts that one gram is looked up in; further ones say nearly the same

# Chinese, Japanese and Korean characters are words of their own
_TOKEN = re.compile(r"[\u3040-\u9fff\uac00-\ud7af]|[^\W\d_\u3040-\u9fff\uac00-\ud7af]+|\d+(?:[.,:/-]\d+)*")
NUMBER = "#"


def words_of(text: str) -> list[str]:
    """Lower-case words; every number is "#"."""
    return [NUMBER if token[0].isdigit() else token for token in _TOKEN.findall(text.lower())]


@dataclass(frozen=True)
class _Text:
    owner: int
    rule: str
    words: int
    needed: int  # words that must be shared
    begin: str


@dataclass(frozen=True)
class Phrase:
    """Whose text was found, by which rule, and the words that are shared."""

    owner: int
    rule: str
    shared: str


@dataclass
class PhraseIndex:
    """Finds texts of a benchmark in others.

    `boilerplate` holds grams (of `GRAM` words joined by spaces) that do not count.
    """

    boilerplate: Collection[str] = ()
    _texts: list[_Text] = field(default_factory=list)
    _grams: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    _ends: set[tuple[str, str]] = field(default_factory=set)  # first and last word of every gram: most texts stop there
    _whole: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, owner: int, text: str, rule: str, share: float | None = None) -> None:
        """Adds a text of item `owner`; of a text with a `share`, so much of its words must be shared."""
        words = words_of(text)
        key = " ".join(words)
        if len(words) < SHORTEST_WHOLE or key in self._whole:
            return
        self._whole[key] = owner, rule
        if len(words) < GRAM:
            return
        needed = max(GRAM, min(RUN_WORDS, math.ceil(SHORT_SHARE * len(words))), math.ceil(LONG_SHARE * len(words)))
        if share is not None:
            needed = max(RUN_WORDS, math.ceil(share * len(words)))
        number = len(self._texts)
        self._texts.append(_Text(owner, rule, len(words), needed, key[:80]))
        for place in range(len(words) - GRAM + 1):
            gram = words[place : place + GRAM]
            if GRAM - gram.count(NUMBER) < PLAIN_WORDS:
                continue
            self._ends.add((gram[0], gram[-1]))
            places = self._grams.setdefault(" ".join(gram), [])
            if len(places) < MAX_TEXTS:
                places.append((number, place))

    def find(self, text: str, message: bool = False) -> Phrase | None:
        """The text of which most is in `text`, if that gives it away.

        A text of fewer than `GRAM` words is found only as a whole `message`; as a part of other text it is anybody's.
        """
        words = words_of(text)
        if len(words) < GRAM:
            key = " ".join(words)
            return Phrase(*self._whole[key], key) if message and key in self._whole else None
        found: dict[int, set[int]] = defaultdict(set)
        for gram in self._shared(words):
            for number, place in self._grams[gram]:
                found[number].update(range(place, place + GRAM))
        enough = [number for number, places in found.items() if len(places) >= self._texts[number].needed]
        if not enough:
            return None
        best = max(enough, key=lambda number: (len(found[number]) / self._texts[number].words, -number))
        text_found = self._texts[best]
        shared = f"{len(found[best])} of {text_found.words} words of “{text_found.begin}”"
        return Phrase(text_found.owner, text_found.rule, shared)

    def grams_in(self, text: str) -> set[str]:
        """The grams of the benchmark that a text holds: those of many unrelated records are boilerplate."""
        return set(self._shared(words_of(text)))

    def _shared(self, words: list[str]) -> Iterable[str]:
        ends = self._ends
        for place, pair in enumerate(zip(words, words[GRAM - 1 :], strict=False)):
            if pair in ends:
                gram = " ".join(words[place : place + GRAM])
                if gram in self._grams and gram not in self.boilerplate:
                    yield gram
