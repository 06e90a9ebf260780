"""The words of Google's discovery documents: line ends that were lost come back, notes to its own engineers go."""

from __future__ import annotations

import re

from hephaestus_jax.forge.prose import clean, mended

# "One of the following: * A date. * A month.": a list in one line. What stands between digits is a product.
_LIST_BEGINS = re.compile(r"(?<=[:.])\s+(?=(?P<mark>[*-])\s+\S)")
_MOST_INLINE = 20_000  # characters in which lists are looked for
_NOTES = re.compile(
    r"\(--.*?--\)\s*|\bapi-linter: \S+\s*|\baip\.dev/not-precedent: [^.]*\.?\s*|\bcopybara:strip_begin\(.*?(?:\)|$)\s*|"
    r"\bcopybara:strip_end\w*\b.*|\bLINT(?:\.\w+|: [A-Z_]+)(?:\([^)]*\))?\s*|\bNext (?:free )?(?:ID|tag)s?: ?\d+\.?\s*|"
    r"\bTODO\s?\(b/\d+\)[^.]*(?:\.|$)\s*|\(?\bb/\d{6,}\)?|\bcs/symbol:\S+\s*|"
    r"(?:\b(?:See|See also|Refer to|More details:?|Details:?) (?:https?://)?go/\S+(?: for [^.]*)?\.?\s*)",
    re.DOTALL | re.IGNORECASE,
)
_HOLLOW = re.compile(r"^Properties of the object\.\s*(?:Contains field @type with type URL\.)?$")
_ENDING = re.compile(
    r"(?<=[.!?])\s+(?:(?:REQUIRED|OPTIONAL|Required|Optional|optional|Read-write)\.?|\.)$|\s(?:\+optional|\(optional\)\.?)$"
)
# The last item of a list of words, with what stands behind the list.
_WORD_ITEM = re.compile(r"[*-] `[^`]+`[.,;]?")
_LAST_ITEM = re.compile(rf"({_WORD_ITEM.pattern})\s+(?=[A-Z])")
_REMARK = re.compile(r"(?<=\S)[ \t]+(?=\*\*(?:Important|Note|Warning|Caution):\*\*)")
_LEADING_STAR = re.compile(r"^\* (?!.*\s\* )", re.DOTALL)
_UNUSABLE = re.compile(
    r"^\W*(?:deprecated\W+)?do not use\b|"
    r"do not use this field|this field is not used\b|for internal (?:\w+ )?use only|^\W*internal use only|\bunused\.?$|"
    r"not supported by cloud run|not supported or used by",
    re.IGNORECASE,
)


def worded(description: str) -> str:
    """The description as plain Markdown, as it is meant for readers of the documentation."""
    text = mended(clean(description))
    if _HOLLOW.match(text):
        return ""
    if _NOTES.search(text):
        text = _NOTES.sub("", text).strip()
    return _REMARK.sub("\n\n", _with_lists(_LEADING_STAR.sub("", _ENDING.sub("", text)).strip()))


def is_unusable(description: str) -> bool:
    """Whether the words say that nobody outside has a use for a field."""
    return _UNUSABLE.search(description) is not None


def _with_lists(text: str) -> str:
    """Each item of a list on its own line, where all of them stand behind a colon in one."""
    begins = None if "\n" in text or len(text) > _MOST_INLINE else _LIST_BEGINS.search(text)
    if begins is None:
        return text
    mark = re.escape(begins["mark"])
    head, tail = text[: begins.start()], text[begins.end() :]
    items = re.split(rf"(?<![\d)])\s+(?={mark} [^\d\s(])", tail)
    if len(items) < 2:
        return text
    if all(map(_WORD_ITEM.fullmatch, items[:-1])):
        items[-1] = _LAST_ITEM.sub(r"\1\n\n", items[-1], count=1)
    return "\n".join([head, *items])
