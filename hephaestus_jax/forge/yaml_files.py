"""YAML of unknown origin as JSON values: no tags that build objects, no bombs of aliases, no unbounded depth.

An alias repeats what its anchor named: nine levels of ten aliases each are a billion nodes in half a page. What an
alias repeats is counted as often as it is repeated, and shared instead of copied, so that a bomb costs what its text
costs. The events of libyaml are put together here with a stack of our own: no depth exhausts the interpreter's.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from hephaestus_jax.formats.records import Json

MOST_NODES = 5_000_000  # of one document, with its aliases expanded
MOST_BY_ALIAS = 500_000  # of them, those that aliases repeat
DEEPEST = 200  # levels of nesting, with aliases expanded

_STANDARD = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset(
    f"{_STANDARD}{name}"
    for name in ("null", "bool", "int", "float", "str", "seq", "map", "set", "omap", "pairs", "binary", "timestamp")
)
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(w for word in ("true", "yes", "on") for w in (word, word.title(), word.upper()))
_FALSE = frozenset(w for word in ("false", "no", "off") for w in (word, word.title(), word.upper()))
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,299})")
_BASED = re.compile(r"0x[0-9a-fA-F]{1,64}|0o[0-7]{1,64}|0b[01]{1,64}")
_REAL = re.compile(r"[-+]?(?:[0-9]{1,300}\.[0-9]{0,300}|\.[0-9]{1,300}|[0-9]{1,300}(?=[eE]))(?:[eE][-+]?[0-9]{1,4})?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # valid nowhere in YAML, found in real files


def load_yaml(text: str) -> Json:
    """The one document in `text` (JSON is YAML too) as a JSON value; of an empty text None.

    Words and numbers are read as YAML 1.1 and 1.2 agree or, for yes/no/on/off, as 1.1 does. Dates, times like 12:30,
    numbers with leading zeros, infinities, and values under tags of one's own (`!vault`) stay the text they are. Keys
    are always the text as written (200, yes). Values that an alias repeats are shared: do not change them in place.

    Raises:
        ValueError: it is no YAML or more than one document, an alias contains itself or names nothing, a tag asks for
            an object of a language, it nests too deep, or it has too many nodes.
    """
    text = _CONTROL.sub(" ", _SURROGATE.sub("\ufffd", text))
    builder = _Builder()
    loader = None
    try:
        loader = yaml.CSafeLoader(text)
        while loader.check_event():
            builder.take(loader.get_event())
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    finally:
        if loader is not None:
            loader.dispose()
    return builder.document


@dataclass(slots=True)
class _Built:
    """A value with the nodes and levels of the tree it stands for."""

    value: Any
    nodes: int = 1
    levels: int = 0
    text: str | None = None  # of a scalar, as written
    plain: bool = False  # a scalar without quotes


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end is still to come."""

    value: list[Json] | dict[str, Json]
    anchor: str | None
    key: _Built | None = None
    merges: list[Json] = field(default_factory=list)
    nodes: int = 1
    levels: int = 1

    def add(self, built: _Built) -> None:
        self.nodes += built.nodes
        self.levels = max(self.levels, built.levels + 1)
        if isinstance(self.value, list):
            self.value.append(built.value)
        elif self.key is None:
            if built.text is None:
                raise ValueError("a key is a list or a mapping")
            self.key = built
        else:
            if self.key.text == "<<" and self.key.plain:
                self.merges.append(built.value)
            else:
                self.value[self.key.text or ""] = built.value
            self.key = None

    def close(self) -> _Built:
        if isinstance(self.value, dict):
            for merged in self.merges:
                for part in merged if isinstance(merged, list) else [merged]:
                    if not isinstance(part, dict):
                        raise ValueError("what is merged by << is no mapping")
                    for key, value in part.items():
                        self.value.setdefault(key, value)
        return _Built(self.value, self.nodes, self.levels)


@dataclass(slots=True)
class _Builder:
    """Puts the events of one document together."""

    document: Json = None
    documents: int = 0
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, _Built] = field(default_factory=dict)
    nodes: int = 0
    by_alias: int = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            _check_tag(event.tag)
            self._add(_scalar(event), event.anchor)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            _check_tag(event.tag)
            if len(self.stack) >= DEEPEST:
                raise ValueError(f"nests more than {DEEPEST} levels deep")
            if event.anchor:
                self.anchors.pop(event.anchor, None)  # until it ends, the name means nothing
            self.stack.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            opened = self.stack.pop()
            self._add(opened.close(), opened.anchor)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise ValueError(f"alias *{event.anchor} names nothing that ended before it")
            repeated = self.anchors[event.anchor]
            self.by_alias += repeated.nodes
            if self.by_alias > MOST_BY_ALIAS:
                raise ValueError(f"its aliases repeat more than {MOST_BY_ALIAS:,} nodes")
            self._add(repeated, None)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise ValueError("more than one document")

    def _add(self, built: _Built, anchor: str | None) -> None:
        self.nodes += 1
        if self.nodes + self.by_alias > MOST_NODES:
            raise ValueError(f"more than {MOST_NODES:,} nodes")
        if built.levels + len(self.stack) > DEEPEST:
            raise ValueError(f"nests more than {DEEPEST} levels deep")
        if anchor:
            self.anchors[anchor] = built
        if self.stack:
            self.stack[-1].add(built)
        else:
            self.document = built.value


def _check_tag(tag: str | None) -> None:
    if tag and not tag.startswith("!") and tag not in _KNOWN_TAGS:
        raise ValueError(f"tag {tag} is none of YAML's own")


def _scalar(event: yaml.ScalarEvent) -> _Built:
    text = event.value
    if not event.implicit[0] and event.tag in (None, "!", _STANDARD + "str", _STANDARD + "binary"):
        return _Built(text, text=text)
    if event.tag and event.tag.startswith("!"):
        return _Built(text, text=text)
    return _Built(_plain(text), text=text, plain=True)


def _plain(text: str) -> Json:
    """What a word without quotes means."""
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _WHOLE.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _REAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text
