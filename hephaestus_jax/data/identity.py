"""What rows must be traceable to: the origin of a record, and the vocabulary of its tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Source, version and licence of a record."""

    source: str
    version: str
    licence: str


@dataclass(frozen=True)
class VocabularyIdentity:
    """The vocabulary that tokens are ids of; digest and size identify it, the name is for people."""

    name: str
    digest: str
    size: int
