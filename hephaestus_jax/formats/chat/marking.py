"""Finding contents in a rendered template: private-use characters around them, put in before and taken out behind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat.conversation import Part
from hephaestus_jax.formats.records import Json
from hephaestus_jax.formats.spans import Kind

_PRIVATE = re.compile("[\U000f0000-\U000ffffd\U00100000-\U0010fffd]")
# templates tell texts apart by how they begin or end, and cut or move them; all of that shows in the comparison
_REFUSED = "the chat template does not write its contents through unchanged ({}), so their weights cannot be found"


@dataclass(frozen=True)
class Mark:
    """What a marked text is: who speaks, in which message (counted from 0), at which weight.

    `optional` texts, such as old thoughts and ids, are ones that templates leave out by rule.
    """

    kind: Kind
    message: int
    weight: float
    optional: bool = False


@dataclass(frozen=True)
class Segment:
    """Where a marked text lies in the rendering."""

    start: int
    end: int
    mark: Mark


class Marker:
    """Marks texts, and finds the marks again.

    Args:
        taken: every text of the conversation; private-use characters in it are not used as marks.
    """

    def __init__(self, taken: str):
        used = set(_PRIVATE.findall(taken))
        self._free: Iterator[str] = (
            char for char in map(chr, chain(range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))) if char not in used
        )
        self._opening: dict[str, tuple[str, Mark]] = {}
        self._closing: set[str] = set()
        self.generation = (self._next(), self._next())

    def _next(self) -> str:
        char = next(self._free, None)
        if char is None:
            raise UserError("a conversation has too many messages to mark; split the trajectory")
        return char

    def mark(self, text: str, mark: Mark) -> str:
        """`text` with marks around all but its outer white space, which templates like to trim."""
        return self.mark_parts((Part(text, mark.weight),), mark)

    def mark_parts(self, parts: Sequence[Part], mark: Mark) -> str:
        """The joined parts, each marked with its own weight instead of that of `mark`."""
        text = "".join(part.text for part in parts)
        start, end = len(text) - len(text.lstrip()), len(text.rstrip())
        marked, position = [text[:start]], 0
        for part in parts:
            core = text[max(position, start) : min(position + len(part.text), end)] if start < end else ""
            if core:
                opening, closing = self._next(), self._next()
                self._closing.add(closing)
                self._opening[opening] = (closing, replace(mark, weight=part.weight))
                marked += [opening, core, closing]
            position += len(part.text)
        return "".join([*marked, text[max(start, end) :]])

    def protect(self, value: Json, controls: re.Pattern[str], mark: Mark) -> Json:
        """`value` with marks around those strings in it that spell a control token."""
        if isinstance(value, str):
            return self.mark(value, replace(mark, optional=True)) if controls.search(value) else value
        if isinstance(value, dict):
            return {self.protect(k, controls, mark): self.protect(v, controls, mark) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.protect(item, controls, mark) for item in value]
        return value

    def left_out(self, segments: Sequence[Segment]) -> Mark | None:
        """A mark of a text that is not optional and not among the segments found."""
        found = {id(segment.mark) for segment in segments}
        missing = (mark for _, mark in self._opening.values() if not mark.optional and id(mark) not in found)
        return next(missing, None)

    def find(self, marked: str, plain: str) -> tuple[list[Segment], list[tuple[int, int]]]:
        """The segments, and the stretches that the template declares generated, as positions in `plain`.

        Raises:
            UserError: without its marks `marked` is not `plain`, or a text was cut, moved or left in part.
        """
        segments: list[Segment] = []
        generated: list[tuple[int, int]] = []
        open_mark, open_at, generated_from, removed = "", 0, 0, 0
        kept: list[str] = []
        last = 0
        for match in _PRIVATE.finditer(marked):
            char, position = match[0], match.start() - removed
            closing = self._opening[open_mark][0] if open_mark else ""
            if char == closing:
                segments.append(Segment(open_at, position, self._opening[open_mark][1]))
                open_mark = ""
            elif char in self._opening and not open_mark:
                open_mark, open_at = char, position
            elif char == self.generation[0]:
                generated_from = position
            elif char == self.generation[1]:
                generated.append((generated_from, position))
            elif char in self._opening or char in self._closing:
                raise UserError(_REFUSED.format("it cuts or mixes them"))
            else:
                continue  # a character of the conversation itself
            kept.append(marked[last : match.start()])
            last = match.end()
            removed += 1
        if open_mark or "".join([*kept, marked[last:]]) != plain:
            raise UserError(_REFUSED.format("it renders them differently when they are marked"))
        return segments, generated
