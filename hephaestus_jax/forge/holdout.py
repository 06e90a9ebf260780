"""The held-out split by API: which APIs training never sees, and the words by which they are known.

A *unit* is a module-level function, or a class with everything in it. Units are joined to *families* that share one
side: those with near-duplicate docstrings, and those that share a name rare enough to be held out by it. A family may
be held out when every one of its units goes only by distinctive names, so that its definitions, re-exports and calls
can be found by those names in code and text alike, and cut without harm to the rest. `RULE` states it in full; the
choice among such families is keyed by the seed and the family's first name alone.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import dedup
from hephaestus_jax.formats.records import Json

WINDOW_WORDS = 8
COMMON_UNITS = 3  # a window that so many other units' docstrings hold is a phrase, not a copy
MAX_SHARED = 10
MIN_NAME = 6
MAX_FAMILY = 64
MAX_SERVICE = 64
RULE = (
    "A unit is a module-level function, or a class with its methods. Units with near-duplicate docstrings (Jaccard"
    " similarity of 3-word shingles >= 0.8) or a distinctive name in common form one family. A name is distinctive if"
    f" it has {MIN_NAME} characters or more, does not begin with two underscores, occurs at most `heldout_max_uses`"
    " times in all code and text read, and is the name of no module, distribution or documented parameter. A family"
    f" can be held out if it has at most {MAX_FAMILY} documented APIs, every name of its functions and classes is"
    " distinctive (aliases and the names they are imported or assigned under included), none of its classes is a base"
    f" class anywhere, and its docstrings share at most {MAX_SHARED} windows (below) with other units, for each copy is"
    " cut out of the training side. Families are taken in the order of a keyed hash until `heldout_fraction` of the"
    " documented APIs is held out. Known by: the distinctive names of its functions, classes and methods, each as a"
    f" whole word, and windows of {WINDOW_WORDS} consecutive words of its docstrings (lower case; at least 4 different"
    f" words of 3 or more letters alone) that the docstrings of fewer than {COMMON_UNITS} other units hold."
    " Of APIs that are no Python callables whole services are held out (the operations of one cloud service in every"
    f" notation, a group of commands, a specification), of at most {MAX_SERVICE} APIs each, in the order of a keyed"
    f" hash, if their descriptions share at most {MAX_SHARED} windows that fewer than {COMMON_UNITS} others hold."
    " Known by: windows of their descriptions, and names of functions of three or more parts that occur nowhere else."
)
_WORD = re.compile(r"\w+")
_ESCAPED_WORD = re.compile(r"(?:\w|\\_)+")  # reStructuredText and Markdown escape underscores
_ESCAPE = re.compile(r"\\[abfnrtv]")  # of a string in source code: "\nname" holds the name


Unit = tuple[str, str]  # file, outermost name


@dataclass(frozen=True)
class Api:
    """What the choice needs to know of one documented API.

    `qualname` is its name inside its file ("Class.method"), `name` and `aliases` its full dotted names, `file` names
    distribution and file.
    """

    name: str
    qualname: str
    aliases: tuple[str, ...]
    file: str
    docstring: str
    parameters: tuple[str, ...] = ()

    @property
    def unit(self) -> Unit:
        """File and outermost name: a class and its methods share it, and so do overloads."""
        return self.file, self.qualname.partition(".")[0]

    @property
    def all_names(self) -> tuple[str, ...]:
        """All dotted names, the first being its own."""
        return (self.name, *self.aliases)

    @property
    def outer_names(self) -> set[str]:
        """The names that the function, or the class around the method, goes by."""
        depth = self.qualname.count(".") + 1
        dotted = [name.split(".") for name in self.all_names]
        return {self.unit[1]} | {parts[-depth] for parts in dotted if len(parts) >= depth}

    @property
    def inner_names(self) -> set[str]:
        """The names of the method, and of the classes between it and the outermost one."""
        return set(self.qualname.split(".")[1:])


@dataclass
class Census:
    """What the code and text say about names. Mutable: every distribution adds to it."""

    words: Counter[str] = field(default_factory=Counter)  # occurrences of words of MIN_NAME characters and more
    modules: set[str] = field(default_factory=set)  # parts of module and distribution names
    bases: set[str] = field(default_factory=set)  # names that classes derive from
    renames: set[tuple[str, str]] = field(default_factory=set)  # (name, the name it is imported or assigned under)

    def add_text(self, text: str) -> None:
        """Counts the words of a text."""
        self.words.update(word for word in words_of(text) if len(word) >= MIN_NAME)

    def add_code(self, text: str) -> None:
        """Counts the words of a Python file and notes its base classes and renamings."""
        self.add_text(text)
        for bases in _CLASS.findall(text):
            self.bases.update(re.findall(r"\w+", bases))
        for imported in _IMPORT.findall(text):
            self.renames.update(pair for pair in _AS.findall(imported) if pair[0] != pair[1])
        self.renames.update((name, new) for new, name in _ASSIGNED.findall(text) if name != new)

    def update(self, other: Census) -> None:
        """Adds the findings of another census."""
        self.words.update(other.words)
        self.modules |= other.modules
        self.bases |= other.bases
        self.renames |= other.renames

    def only(self, words: Iterable[str]) -> Census:
        """The census with the counts of `words` alone: the rest of a large vocabulary is not worth its memory."""
        counts = Counter({word: self.words[word] for word in words if word in self.words})
        return Census(counts, self.modules, self.bases, self.renames)


_CLASS = re.compile(r"(?m)^[ \t]*class\s+\w+\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*:")
_IMPORT = re.compile(r"(?m)^[ \t]*from\s+\S+\s+import\s+(\([^)]*\)|[^\n]*)")
_AS = re.compile(r"(\w+)\s+as\s+(\w+)")
_ASSIGNED = re.compile(r"(?m)^[ \t]*(?:\w+\.)*(\w+)\s*=\s*(?:\w+\.)*(\w+)[ \t]*(?:#.*)?$")


@dataclass(frozen=True)
class Family:
    """APIs that are held out together: their dotted names, the words they are known by, and their docstrings."""

    names: tuple[str, ...]
    aliases: tuple[str, ...]
    words: tuple[str, ...]
    docstrings: tuple[str, ...]


@dataclass(frozen=True)
class HeldOut:
    """Everything that training must not see.

    `common` are the windows of held-out docstrings that do not count as copies.
    """

    families: tuple[Family, ...] = ()
    common: tuple[str, ...] = ()

    @cached_property
    def words(self) -> frozenset[str]:
        """The distinctive names."""
        return frozenset(word for family in self.families for word in family.words)

    @cached_property
    def windows(self) -> frozenset[str]:
        """The distinctive windows of the docstrings."""
        docstrings = (text for family in self.families for text in family.docstrings)
        return frozenset(window for text in docstrings for window in windows_of(text)) - set(self.common)

    @cached_property
    def names(self) -> frozenset[str]:
        """The full dotted names of the held-out APIs, without aliases."""
        return frozenset(name for family in self.families for name in family.names)

    def to_json(self) -> Json:
        """Inverse of `from_json`."""
        families = [
            {"names": f.names, "aliases": f.aliases, "words": f.words, "docstrings": f.docstrings}
            for f in self.families
        ]
        return {"rule": RULE, "window_words": WINDOW_WORDS, "families": families, "common": self.common}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> HeldOut:
        """Inverse of `to_json`.

        Raises:
            UserError: the value was not written by `to_json`.
        """
        try:
            families = [{key: tuple(items) for key, items in family.items()} for family in value["families"]]
            return cls(tuple(Family(**family) for family in families), tuple(value["common"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"the list of held-out APIs is malformed ({error}); rebuild the corpus") from error


def matched_words(text: str) -> Iterator[re.Match[str]]:
    """The words of a text with their places: runs of letters, digits and underscores, escaped ones included."""
    return _pattern(text).finditer(_without_escapes(text))


def words_of(text: str) -> list[str]:
    """The words of a text, without the backslashes of escaped underscores."""
    words = _pattern(text).findall(_without_escapes(text))
    return [word.replace("\\", "") for word in words] if "\\_" in text else words


def _pattern(text: str) -> re.Pattern[str]:
    return _ESCAPED_WORD if "\\_" in text else _WORD


def _without_escapes(text: str) -> str:
    """The text, as long as before, with blanks for the escape sequences of source code."""
    return _ESCAPE.sub("  ", text) if "\\" in text else text


def windows_of(text: str) -> Iterator[str]:
    """Every run of `WINDOW_WORDS` lower-case words that is not mostly numbers and symbols."""
    words = [word.lower() for word in words_of(text)]
    for start in range(len(words) - WINDOW_WORDS + 1):
        window = words[start : start + WINDOW_WORDS]
        if len({word for word in window if len(word) >= 3 and word.isalpha()}) >= 4:
            yield " ".join(window)


def choose(apis: Sequence[Api], census: Census, fraction: float, max_uses: int, seed: int) -> HeldOut:
    """Chooses the held-out families; see `RULE`.

    Args:
        apis: all documented APIs.
        census: what code and text say about names, counts for all names of `apis` included.
        fraction: share of the documented APIs to hold out, 0 ≤ fraction < 1.
        max_uses: how often a name may occur and still be held out.
        seed: keys the choice.
    """
    units: dict[Unit, list[Api]] = defaultdict(list)
    for api in sorted(apis, key=lambda api: (api.name, api.file, api.qualname)):
        units[api.unit].append(api)
    names = _Names(census, max_uses, {name for api in apis for name in api.parameters})
    able = [family for family in _families(units, names) if _can_go(family, units, names)]
    families = _with_few_copies(able, units)
    families.sort(key=lambda family: dedup.keyed_fraction(seed, "holdout", *family[0]))
    chosen, wanted = [], round(fraction * len(apis))
    for family in families:
        size = sum(len(units[unit]) for unit in family)
        if size <= wanted:
            chosen.append(family)
            wanted -= size
    made = [_family([api for unit in family for api in units[unit]], names) for family in chosen]
    held = {unit for family in chosen for unit in family}
    return HeldOut(tuple(sorted(made, key=lambda family: family.names)), _common_windows(held, units))


Units = Mapping[Unit, Sequence[Api]]


class _Names:
    """Which names are distinctive."""

    def __init__(self, census: Census, max_uses: int, parameters: set[str]) -> None:
        self._census, self._max_uses, self._parameters = census, max_uses, parameters
        self._renames: dict[str, set[str]] = defaultdict(set)
        for name, new in census.renames:
            self._renames[name].add(new)

    def all_of(self, name: str) -> set[str]:
        """The name, and those it is imported or assigned under."""
        found, queue = {name}, [name]
        while queue:
            for new in self._renames.get(queue.pop(), set()) - found:
                found.add(new)
                queue.append(new)
        return found

    def is_distinctive(self, name: str) -> bool:
        return (
            len(name) >= MIN_NAME
            and not name.startswith("__")
            and self._census.words[name] <= self._max_uses
            and name not in self._census.modules
            and name not in self._parameters
        )

    def is_base(self, name: str) -> bool:
        return name in self._census.bases


def _families(units: Units, names: _Names) -> list[list[Unit]]:
    """Units grouped by near-duplicate docstrings and by distinctive names in common, sorted."""
    groups: dedup.UnionFind[Unit] = dedup.UnionFind()
    apis = [api for members in units.values() for api in members]
    signatures = dedup.stack([dedup.signature(api.docstring) for api in apis])
    similar = dedup.near_duplicate_groups(
        signatures, lambda one, other: dedup.jaccard(apis[one].docstring, apis[other].docstring)
    )
    for group in similar:
        for row in group[1:]:
            groups.union(apis[group[0]].unit, apis[row].unit)
    known_by: dict[str, Unit] = {}
    for api in apis:
        for word in sorted(api.outer_names | api.inner_names):
            for name in sorted(names.all_of(word)):
                if names.is_distinctive(name):
                    groups.union(known_by.setdefault(name, api.unit), api.unit)
    families: dict[Unit, list[Unit]] = defaultdict(list)
    for unit in units:
        families[groups.find(unit)].append(unit)
    return [sorted(family) for family in families.values()]


def _can_go(family: Sequence[Unit], units: Units, names: _Names) -> bool:
    apis = [api for unit in family for api in units[unit]]
    outer = {name for api in apis for word in api.outer_names for name in names.all_of(word)}
    return len(apis) <= MAX_FAMILY and all(names.is_distinctive(n) and not names.is_base(n) for n in outer)


def _family(apis: Sequence[Api], names: _Names) -> Family:
    outer = {name for api in apis for word in api.outer_names for name in names.all_of(word)}
    inner = {name for api in apis for word in api.inner_names for name in names.all_of(word)}
    return Family(
        names=tuple(sorted({api.name for api in apis})),
        aliases=tuple(sorted({alias for api in apis for alias in api.aliases})),
        words=tuple(sorted(outer | {name for name in inner if names.is_distinctive(name)})),
        docstrings=tuple(sorted({api.docstring for api in apis})),
    )


def _unit_windows(members: Iterable[Api]) -> set[str]:
    return {window for api in members for window in windows_of(api.docstring)}


def _with_few_copies(families: Sequence[Sequence[Unit]], units: Units) -> list[Sequence[Unit]]:
    """The families that share few windows with units outside, phrases common to many units not counted."""
    # hashes instead of the windows themselves: there are millions
    own = [Counter(hash(window) for unit in family for window in _unit_windows(units[unit])) for family in families]
    holders = Counter({window: 0 for windows in own for window in windows})
    for members in units.values():
        holders.update(key for key in map(hash, _unit_windows(members)) if key in holders)
    return [
        family
        for family, windows in zip(families, own, strict=True)
        if sum(0 < holders[key] - inside < COMMON_UNITS for key, inside in windows.items()) <= MAX_SHARED
    ]


def _common_windows(held: set[Unit], units: Units) -> tuple[str, ...]:
    """Windows of held-out docstrings that `COMMON_UNITS` other units hold too."""
    windows = {window for unit in held for window in _unit_windows(units[unit])}
    counts: Counter[str] = Counter()
    for unit, members in units.items():
        if unit not in held:
            counts.update(_unit_windows(members) & windows)
    return tuple(sorted(window for window, count in counts.items() if count >= COMMON_UNITS))
