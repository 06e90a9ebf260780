"""Functions that say what a benchmark's function says, under whatever name and with parameters in whatever order.

A function is compared by the words of its descriptions (its own and its parameters'), weighted by how rare they are
among the benchmark's functions (Sparck Jones, "A statistical interpretation of term specificity", 1972), and by the
names of its parameters. The thresholds were chosen on planted copies and on real APIs, see `Thresholds`.

Shapes: T functions of the benchmark, W words of one function.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hephaestus_jax.formats.records import Json, Tool

MAX_NODES = 4_000  # of a schema that are looked at
_WORD = re.compile(r"[^\W\d_]+")
_ENDINGS = (
    "ations", "ation", "ments", "ment", "ings", "ing", "ers", "er", "ies", "ied", "ed", "es", "s", "ly", "e", "y",
)  # fmt: skip
_STOP = frozenset({
    "a", "an", "and", "any", "are", "as", "at", "be", "by", "can", "for", "from", "has", "have", "if", "in", "into",
    "is", "it", "its", "may", "must", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there",
    "these", "this", "those", "to", "was", "were", "which", "will", "with", "whether", "when", "where", "you", "your",
    "use", "used", "using",
})  # fmt: skip


@dataclass(frozen=True)
class Thresholds:
    """When two functions are one.

    Args:
        text: weighted Jaccard similarity of the words alone.
        text_beside_names: the same, if the parameters' names agree too.
        names: weighted Jaccard similarity of the parameters' names.
        fewest_words: of a function without so many distinct words, the name must agree as well.
    """

    text: float = 0.6
    text_beside_names: float = 0.3
    names: float = 0.75
    fewest_words: int = 6


THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Match:
    """The number of the function found, and the two similarities."""

    tool: int
    text: float
    names: float


@functools.lru_cache(1 << 18)
def stem(word: str) -> str:
    """A word without its usual English ending; crude, but the same for both sides."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def name_words(name: str) -> str:
    """A name without case and separators: "user_id", "userId" and "User-ID" are one."""
    return "".join(_WORD.findall(name)).lower() or name.lower()


@dataclass(frozen=True)
class Words:
    """What a function is compared by."""

    name: str
    text: frozenset[str]
    parameters: frozenset[str]


def words_of_tool(name: str, description: str, parameters: Mapping[str, Json]) -> Words:
    """The words of a function's descriptions, and its parameters' names."""
    nodes = list(_nodes(parameters))
    texts = [description, *(told for _, told in nodes)]
    words = frozenset(stem(word) for told in texts for word in _WORD.findall(told.lower()) if word not in _STOP)
    return Words(name_words(name), words, frozenset(name_words(found) for found, _ in nodes if found))


def _nodes(parameters: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Name and description of every field, in the order of the schema's levels."""
    level: list[Json] = [parameters]
    seen = 0
    while level and seen < MAX_NODES:
        following: list[Json] = []
        for schema in level:
            if not isinstance(schema, Mapping):
                continue
            properties = schema.get("properties")
            if isinstance(properties, Mapping):
                for name, part in properties.items():
                    told = part.get("description") if isinstance(part, Mapping) else None
                    yield str(name), told if isinstance(told, str) else ""
                    following.append(part)
                    seen += 1
            following += [schema[key] for key in ("items", "additionalProperties") if key in schema]
        level = following


class ToolIndex:
    """The functions of a benchmark, to look others up among them."""

    def __init__(self, tools: Sequence[Tool], thresholds: Thresholds = THRESHOLDS) -> None:
        self.thresholds = thresholds
        self._tools = [words_of_tool(tool.name, tool.description, tool.parameters) for tool in tools]
        postings: dict[str, list[int]] = defaultdict(list)
        for number, words in enumerate(self._tools):
            for word in sorted(words.text):
                postings[word].append(number)
        self._postings = {word: np.array(numbers, np.int32) for word, numbers in postings.items()}
        self._weights = {word: math.log((1 + len(tools)) / len(numbers)) for word, numbers in postings.items()}
        self._unknown = math.log(2 * (1 + len(tools)))
        named = Counter(name for words in self._tools for name in words.parameters)
        self._name_weights = {name: math.log((1 + len(tools)) / count) for name, count in named.items()}
        self._mass_T = np.array([self._mass(words.text) for words in self._tools])

    def find(self, candidate: Words) -> Match | None:
        """The function that `candidate` repeats, the most similar one if there are several."""
        best: Match | None = None
        for match in self.nearest(candidate):
            if self._is_copy(candidate, match) and (best is None or match.text + match.names > best.text + best.names):
                best = match
        return best

    def nearest(self, candidate: Words) -> Iterator[Match]:
        """The functions whose text is at least as similar as any rule asks for."""
        if not len(self._mass_T):
            return
        known = [word for word in candidate.text if word in self._postings]
        if not known:
            return
        numbers = np.concatenate([self._postings[word] for word in known])
        lengths = [len(self._postings[word]) for word in known]
        weights = np.repeat([self._weights[word] for word in known], lengths)
        shared_T = np.bincount(numbers, weights, len(self._mass_T))
        jaccard_T = shared_T / (self._mass(candidate.text) + self._mass_T - shared_T)
        for number in np.flatnonzero(jaccard_T >= self.thresholds.text_beside_names).tolist():
            names = self._names_alike(candidate.parameters, self._tools[number].parameters)
            yield Match(number, float(jaccard_T[number]), names)

    def _is_copy(self, candidate: Words, match: Match) -> bool:
        limits, tool = self.thresholds, self._tools[match.tool]
        if len(tool.text) < limits.fewest_words:
            return match.text >= limits.text and candidate.name == tool.name and match.names >= limits.names
        if match.text >= limits.text:
            return True
        return len(tool.parameters) > 1 and match.names >= limits.names

    def _names_alike(self, one: frozenset[str], other: frozenset[str]) -> float:
        either = one | other
        if not either:
            return 1.0
        weights = self._name_weights
        shared, whole = (math.fsum(weights.get(n, self._unknown) for n in names) for names in (one & other, either))
        return shared / whole

    def _mass(self, words: frozenset[str]) -> float:
        return math.fsum(self._weights.get(word, self._unknown) for word in words)
