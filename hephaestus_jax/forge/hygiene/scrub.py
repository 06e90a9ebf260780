"""Secrets and personal data of a record, replaced by placeholders of the same shape.

What is found anywhere in a record is replaced everywhere in it, by the same placeholder: a token that one call returns
and the next one passes on stays one token.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from hephaestus_jax.forge.hygiene.personal import personal_in
from hephaestus_jax.forge.hygiene.secrets import Hit, secrets_in
from hephaestus_jax.formats.records import Json, Record, from_json, to_json

SHORTEST = 6  # characters of anything that is looked for
# what is no text: patterns match texts, the rest names or counts
_NO_TEXT = frozenset({"pattern", "format", "type", "kind", "class_", "interface", "provenance", "$ref", "x-in"})
_VALUE_KEYS = frozenset({"default", "example", "examples", "const", "enum", "value", "items", "content"})


def scrub(record: Record) -> tuple[Record, Counter[str]]:
    """The record without secrets and personal data, and how many were replaced, per category.

    Documentation placeholders (example.com, AKIAIOSFODNN7EXAMPLE, 555 numbers, test cards, reserved addresses) stay.
    Each category adds "scrubbed: e-mail" (and so on) to `provenance.processing`; a clean record comes back itself.
    """
    value = to_json(record)
    strings = list(_strings(value, ""))
    replacements = _replacements(strings)
    if not replacements:
        return record, Counter()
    counts: Counter[str] = Counter()
    scrubbed = from_json(_replaced(value, _Replacer(replacements, counts)))
    steps = [f"scrubbed: {category}" for category in sorted(counts)]
    kept = tuple(step for step in record.provenance.processing if step not in steps)
    provenance = dataclasses.replace(record.provenance, processing=(*kept, *steps))
    return dataclasses.replace(scrubbed, provenance=provenance), counts


def _strings(value: Json, name: str) -> Iterator[tuple[str, str]]:
    """Every text with the name of what it is the value of."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if not _is_no_text(key, part):
                yield from _strings(part, name if key in _VALUE_KEYS else key)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part, name)


def _is_no_text(key: str, value: Json) -> bool:
    # a parameter may be called "format" too: its schema is no text, what it says is
    return key == "provenance" or (key in _NO_TEXT and isinstance(value, str))


def _replacements(strings: list[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Of every text to replace its category and its placeholder."""
    found: dict[str, Hit] = {}
    for name, text in strings:
        if len(text) < SHORTEST:
            continue
        for hit in (*secrets_in(text, name), *personal_in(text, name)):
            found.setdefault(hit.text, hit)
    numbers: Counter[str] = Counter()
    made = {}
    for text, hit in found.items():
        placeholder = hit.placeholder(numbers[hit.category])
        numbers[hit.category] += 1
        if placeholder != text:
            made[text] = (hit.category, placeholder)
    return made


class _Replacer:
    """Replaces texts by their placeholders, the longer first, and counts."""

    def __init__(self, replacements: Mapping[str, tuple[str, str]], counts: Counter[str]) -> None:
        self._replacements, self._counts = replacements, counts
        ordered = sorted(replacements, key=lambda text: (-len(text), text))
        start = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))"  # also behind a sign that is written %22
        self._pattern = re.compile(start + "(?:" + "|".join(map(re.escape, ordered)) + r")(?![A-Za-z0-9])")

    def __call__(self, text: str) -> str:
        return self._pattern.sub(self._placeholder, text)

    def _placeholder(self, match: re.Match[str]) -> str:
        category, placeholder = self._replacements[match[0]]
        self._counts[category] += 1
        return placeholder


def _replaced(value: Json, replace: _Replacer) -> Json:
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, Mapping):
        return {key: part if _is_no_text(key, part) else _replaced(part, replace) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(part, replace) for part in value]
    return value
