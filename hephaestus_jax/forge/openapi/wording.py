"""What people write into a description beside what it describes: whether a value is optional, or only ever returned."""

from __future__ import annotations

import re
from functools import lru_cache

from hephaestus_jax.forge.prose import clean, mended

_TRAIT = r"optional|nullable|not nullable|input[- ]only|read[- ]?only|output[- ]only|server[- ]set"
# "(Optional) The name", "Read-only. Nullable. The name": a word with a mark behind it, or in brackets.
_LEADING = re.compile(
    rf"^[\W_]{{0,4}}(?P<word>{_TRAIT})\b(?:[\])*_]|[.:;](?=[\s*_)\]]|$)|\s+-(?=\s))+\s*", re.IGNORECASE
)
_MOST_TRAITS, _LONGEST_TRAIT = 3, 60  # of one description; characters of one at the end
_TRAILING = re.compile(
    r"(?:(?<=[.!?])\s{1,3}(?:this (?:property|field|value|attribute) is )?|\s{0,3}[(\[])"
    rf"(?P<word>{_TRAIT})[)\]]?\.?$",
    re.IGNORECASE,
)
_REQUIRED = re.compile(
    r"^[\W_]{0,4}required\b(?:[\])*_]|[.:;](?=[\s*_)\]]|$)|\s+-(?=\s))+\s*|(?:(?<=[.!?])\s{1,3}|\s{0,3}[(\[])required[)\]]?\.?$",
    re.IGNORECASE,
)
CLASS_NAME = re.compile(r"(?:[A-Z]+[a-z0-9]+){2,}(?:Model|Dto|DTO|Request|Response|Input|Output)?\.?")
_FRAME = re.compile(r"^the |(?: query| path)? parameter\.?$", re.IGNORECASE)
_LONGEST_FRAME = 20  # characters
_GENERATED = re.compile(r"auto[- ]?generated\b[^.]*\.?", re.IGNORECASE)


@lru_cache(maxsize=1 << 15)
def worded(description: str) -> tuple[str, bool]:
    """The description as plain Markdown without words that a schema says better; whether it says "read-only"."""
    text, read_only = mended(clean(description)), False
    for pattern in (_LEADING, _TRAILING) * _MOST_TRAITS:
        if found := pattern.search(text, 0 if pattern is _LEADING else max(0, len(text) - _LONGEST_TRAIT)):
            read_only |= found["word"].lower().startswith(("read", "output", "server"))
            text = (text[: found.start()] + text[found.end() :]).strip()
    return "" if CLASS_NAME.fullmatch(text) or _GENERATED.fullmatch(text) else text, read_only


def says_required(description: str) -> bool:
    """Whether a description begins or ends with the word "required" on its own."""
    return _REQUIRED.search(description) is not None


def without_required(description: str) -> str:
    """The description without that word, for where it is told already."""
    return _REQUIRED.sub("", description).strip()


def without_echo(description: str, name: str) -> str:
    """The description; "" if it is one word, and that word is the name ("the name parameter" is no more either)."""
    if len(description) > len(name) + _LONGEST_FRAME:
        return description
    words = _FRAME.sub("", description)
    is_echo = " " not in words and _letters(words) == _letters(name)
    return "" if is_echo else description


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
