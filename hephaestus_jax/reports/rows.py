"""Decoded rows for the eye: segments, loss weights, and where each segment comes from. Here for the terminal.

Nothing here reads a cache: `reports.inspection` makes the rows, `reports.rows_html` shows them as a page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

PALETTE = (39, 208, 35, 170, 142, 44, 203, 105)  # xterm colours, one per segment in turn, readable on dark and light
_RESET = "\x1b[0m"
_KEPT = "\n\t"  # control characters that stay as they are


@dataclass(frozen=True)
class InspectedToken:
    """One token: the text it completes (bytes of a character that ends in a later token belong to that one)."""

    text: str
    weight: float
    control: bool
    id: int


@dataclass(frozen=True)
class InspectedSegment:
    """One segment of a row: a record, or part number `part` of one."""

    record_id: str
    source: str
    version: str
    licence: str
    tokens: tuple[InspectedToken, ...]
    part: int = 0
    path: str = ""  # the place inside the source, where it is known

    @property
    def text(self) -> str:
        """The decoded text, control tokens spelled out."""
        return "".join(token.text for token in self.tokens)

    @property
    def loss_tokens(self) -> int:
        """Tokens of weight above 0."""
        return sum(token.weight > 0 for token in self.tokens)

    def matches(self, query: str) -> list[bool]:
        """Which tokens hold a piece of an occurrence of `query`; none for an empty query."""
        hits = [False] * len(self.tokens)
        spans = list(_occurrences(self.text, query)) if query else []
        start = 0
        for index, token in enumerate(self.tokens):
            stop = start + len(token.text)
            hits[index] = any(start < end and first < stop for first, end in spans)
            start = stop
        return hits


@dataclass(frozen=True)
class InspectedRow:
    """One row; `length` is the number of its positions, those after the last segment are padding."""

    row: int
    segments: tuple[InspectedSegment, ...]
    length: int
    place: str = ""  # of what it is a row: "of cache text train"

    @property
    def tokens(self) -> int:
        """Positions that hold a token."""
        return sum(len(segment.tokens) for segment in self.segments)

    @property
    def loss_tokens(self) -> int:
        """Tokens of weight above 0."""
        return sum(segment.loss_tokens for segment in self.segments)

    @property
    def title(self) -> str:
        """The row in one line of words."""
        parts = [f"row {self.row:,} {self.place}".strip(), _counted(len(self.segments), "segment")]
        parts.append(f"{self.tokens:,} of {self.length:,} positions used")
        parts.append(f"{self.loss_tokens:,} {'token carries' if self.loss_tokens == 1 else 'tokens carry'} loss")
        return " · ".join(parts)


def segment_facts(segment: InspectedSegment) -> list[str]:
    """What is known of a segment besides its record id, as short phrases."""
    return [
        f"{segment.source or 'source unknown'} {segment.version if segment.version != 'unknown' else ''}".strip(),
        f"licence {segment.licence or 'unknown'}",
        *([segment.path] if segment.path else []),
        f"part {segment.part + 1}" if segment.part else "from its beginning",
        f"{_counted(len(segment.tokens), 'token')}, {segment.loss_tokens:,} with loss",
    ]


def visible(text: str) -> str:
    """The text with characters that steer a terminal or reorder a line made visible.

    Lone carriage returns, escapes and other control characters become their Unicode pictures, bidirectional and
    other format characters their code points.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in _KEPT:
        return character
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    if ord(character) == 0x7F:
        return "\u2421"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def _occurrences(text: str, query: str) -> Iterator[tuple[int, int]]:
    start = text.find(query)
    while start >= 0:
        yield start, start + len(query)
        start = text.find(query, start + len(query))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# The terminal.


@dataclass(frozen=True)
class TerminalStyle:
    """How rows are shown in a terminal.

    Attributes:
        colour: with escape sequences; without, weights and control tokens are shown by brackets.
        boundaries: a thin bar between tokens.
        highlight: occurrences of this text are marked.
    """

    colour: bool = True
    boundaries: bool = False
    highlight: str = ""


def legend(style: TerminalStyle) -> str:
    """What the colours, or the brackets, mean."""
    samples = (
        _painted("weight 1", InspectedToken("", 1.0, False, 0), 0, False, style),
        _painted("other than 0 and 1", InspectedToken("", 0.5, False, 0), 0, False, style),
        _painted("weight 0", InspectedToken("", 0.0, False, 0), 0, False, style),
        _painted("control token with loss", InspectedToken("", 1.0, True, 0), 0, False, style),
        _painted("without", InspectedToken("", 0.0, True, 0), 0, False, style),
    )
    return "legend: " + "  ".join(samples)


def terminal(rows: Iterable[InspectedRow], style: TerminalStyle) -> Iterator[str]:
    """The rows as pieces of text to be written one after the other."""
    for row in rows:
        yield f"{_bold(row.title, style)}\n"
        for index, segment in enumerate(row.segments):
            facts = " · ".join([f"[{index + 1}]", *segment_facts(segment), f"record {segment.record_id}"])
            yield f"\n{_coloured(f'━━ {visible(facts)}', index, style)}\n"
            yield _segment_text(segment, index, style)
        padding = row.length - row.tokens
        told = f"({_counted(padding, 'position')} of padding)\n" if padding else ""
        yield f"\n{_dim(told, style)}\n"


def _segment_text(segment: InspectedSegment, index: int, style: TerminalStyle) -> str:
    shown = zip(segment.tokens, segment.matches(style.highlight), strict=True)
    if style.boundaries:
        bar = _dim("|", style)
        text = bar.join(_painted(visible(token.text), token, index, hit, style) for token, hit in shown)
    else:
        runs = groupby(shown, key=lambda item: (item[0].weight, item[0].control, item[1]))
        text = ""
        for (weight, control, hit), items in runs:
            run = InspectedToken("".join(token.text for token, _ in items), weight, control, 0)
            text += _painted(visible(run.text), run, index, hit, style)
    return text if text.endswith("\n") else text + "\n"


def _painted(text: str, token: InspectedToken, index: int, hit: bool, style: TerminalStyle) -> str:
    if not style.colour:
        if not text:
            return ""
        marked = f"«{text}»" if hit else text
        return marked if token.weight == 1 else f"{{{token.weight:.3g}:{marked}}}"
    codes = []
    if token.weight <= 0:
        codes.append("38;5;244")
    elif token.weight != 1:
        codes.append(f"38;5;{PALETTE[index % len(PALETTE)]};3")
    else:
        codes.append(f"38;5;{PALETTE[index % len(PALETTE)]}")
    if token.control:
        codes.append("7")
    if hit:
        codes.append("1;4")
    # Each line is painted by itself: pagers forget a colour at the end of a line.
    return "\n".join(f"\x1b[{';'.join(codes)}m{line}{_RESET}" if line else "" for line in text.split("\n"))


def _coloured(text: str, index: int, style: TerminalStyle) -> str:
    return f"\x1b[1;38;5;{PALETTE[index % len(PALETTE)]}m{text}{_RESET}" if style.colour else text


def _bold(text: str, style: TerminalStyle) -> str:
    return f"\x1b[1m{text}{_RESET}" if style.colour else text


def _dim(text: str, style: TerminalStyle) -> str:
    return f"\x1b[38;5;244m{text}{_RESET}" if style.colour else text
