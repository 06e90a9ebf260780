"""Ansible's markup of descriptions, `C(...)`, `O(...)`, `L(text,url)`, as Markdown."""

from __future__ import annotations

import re

from hephaestus_jax.forge.prose import clean
from hephaestus_jax.formats.records import Json

_MARK = re.compile(r"\b(RV|[BICULRMOVEP])\(((?:\\.|[^\\()]|\([^()]*\))*)\)")
_RULE = re.compile(r"\bHORIZONTALLINE\b")
_OF_PLUGIN = re.compile(r"\A[\w.]+#\w+:(?:[\w-]+:)?")
_SPLIT = re.compile(r"(?<=[A-Za-z])(?: _[a-z]+){2,}")
_UNPARSED = 20_000  # characters; a longer text is cut, it is no description


def paragraphs(stated: Json) -> list[str]:
    """The paragraphs of a description, which is a text or a list of them, as Markdown."""
    items = stated if isinstance(stated, list) else [stated]
    texts = [clean(_MARK.sub(_told, _RULE.sub("", str(item)[:_UNPARSED]))) for item in items if item is not None]
    return [_spaced(text.rstrip(", ")) for text in texts if text]


def _spaced(text: str) -> str:
    """Without the underscores that a generator left in a title: "all organizations _wireless _devices"."""
    return _SPLIT.sub(lambda found: found[0].replace(" _", " "), text)


def sentences(texts: list[str]) -> str:
    """The paragraphs on one line, each ended by a full stop where another follows."""
    ended = [text if text.endswith((".", "!", "?", ":", ";", ",")) else f"{text}." for text in texts[:-1]]
    return " ".join([*ended, *texts[-1:]])


def _told(found: re.Match[str]) -> str:
    kind, text = found[1], re.sub(r"\\(.)", r"\1", found[2]).strip()
    if kind in ("B", "I"):
        return text
    if kind == "U":
        return text
    if kind in ("L", "R"):
        return text.rpartition(",")[0].strip() or text
    if kind in ("O", "RV"):
        text = _OF_PLUGIN.sub("", text)
    if kind == "P":
        text = text.partition("#")[0]
    if kind == "V" and not text:
        text = '""'
    return f"`{text}`" if text and "`" not in text else text
