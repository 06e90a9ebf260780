"""Charts as inline SVG: no script, colours from the page's style sheet, readable without colour.

A series is told apart three ways: its name stands beside it, its line has dashes of its own, its marks a shape of their
own. Text and lines use the CSS variables --ink, --faint, --line and --s0 … --s5.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from hephaestus_jax.reports.rows import visible

DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "1 4")
WIDTH = 420  # of a chart, in its own units; text is 12 of them high
_CHARACTER = 7.3  # width of a wide one, of text 12 high
_DIGIT = 6.7  # and of what stands in numbers
_LABEL_GAP = 14.0  # between the lines of neighbouring labels


@dataclass(frozen=True)
class Line:
    """One series of a line chart; `style` chooses colour, dashes and marks. One point alone is a mark."""

    label: str
    points: tuple[tuple[float, float], ...]
    style: int
    marks: bool = False


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, if it has one (else NaN)."""

    label: str
    value: float
    low: float
    high: float
    style: int


@dataclass(frozen=True)
class EstimateGroup:
    """Estimates under one heading."""

    label: str
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True)
class Reference:
    """A vertical line at `value`: zero, or chance."""

    value: float
    label: str


@dataclass(frozen=True)
class Bar:
    """A length that begins at 0, and what stands at its end; `style` chooses the colour."""

    label: str
    value: float
    words: str
    style: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise ValueError(f"bar {self.label!r} is {self.value}; lengths are finite and not negative")


def line_chart(title: str, lines: Sequence[Line], x_label: str, y_label: str, height: int = 250) -> str:
    """Lines over a common axis, each with its name at its end.

    Values that are not finite are left out; without any, the title says that there is nothing to draw.
    """
    lines = [Line(line.label, _finite(line.points), line.style, line.marks) for line in lines]
    lines = [line for line in lines if line.points]
    if not lines:
        return f"<figure><figcaption>{_text(title)}: nothing was measured.</figcaption></figure>"
    xs = [0.0, *(x for line in lines for x, _ in line.points)]  # steps and tokens begin at 0
    ys = [y for line in lines for _, y in line.points]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 5), ticks(min(ys), max(ys), 6)
    y_words = _tick_words(y_ticks)
    labels = [shortened(line.label, 14) for line in lines]
    left = 14 + _CHARACTER * max(map(len, y_words))
    right = WIDTH - 16 - _CHARACTER * max(map(len, labels))
    top, bottom = 22.0, height - 38.0
    x_of, y_of = _scale(xs, (left, right), margin=0.0), _scale(ys, (bottom, top))
    parts = [_axes(x_of, y_of, x_ticks, y_ticks, (left, right, top, bottom), x_label, y_label)]
    ends = [y_of(line.points[-1][1]) for line in lines]
    parts += [_drawn(line, x_of, y_of) for line in lines]
    for line, label, y in zip(lines, labels, spread(ends, _LABEL_GAP, top, bottom - 6), strict=True):
        x, end = x_of(line.points[-1][0]), y_of(line.points[-1][1])
        if abs(end - y) > 5:  # the name had to move away from its line
            parts.append(f"<path class='lead' d='M{x + 3:.1f} {end:.1f}L{x + 11:.1f} {y:.1f}'/>")
        parts.append(f"<text class='name s{line.style % 6}' x='{x + 13:.1f}' y='{y + 4:.1f}'>{_text(label)}</text>")
    return _figure(title, "".join(parts), height)


def interval_chart(
    title: str, groups: Sequence[EstimateGroup], x_label: str, reference: Reference, percent: bool = False
) -> str:
    """Values with their intervals, one line of the page each, under the names of their groups."""
    groups = [
        EstimateGroup(group.label, kept)
        for group in groups
        if (kept := tuple(e for e in group.estimates if math.isfinite(e.value)))
    ]
    if not groups:
        return f"<figure><figcaption>{_text(title)}: nothing was measured.</figcaption></figure>"
    estimates = [estimate for group in groups for estimate in group.estimates]
    spans = [v for e in estimates for v in (e.value, e.low, e.high, reference.value) if math.isfinite(v)]
    x_ticks = ticks(min(spans), max(spans), 7)
    labels = [shortened(estimate.label, 16) for estimate in estimates]
    left, right, top = 16 + _CHARACTER * max(map(len, labels)), WIDTH - 16.0, 30.0
    x_of = _scale(spans, (left, right))
    x_ticks = [tick for tick in x_ticks if left - 1 <= x_of(tick) <= right + 1]
    rows, y = [], top
    for group in groups:
        rows.append(f"<text class='group' x='4' y='{y + 12:.1f}'>{_text(shortened(group.label, 44))}</text>")
        y += 20
        for estimate in group.estimates:
            rows.append(_estimate(estimate, x_of, y + 8, shortened(estimate.label, 16)))
            y += 19
        y += 7
    bottom = y
    grid = [f"<path class='grid' d='M{x_of(tick):.1f} {top}V{bottom:.1f}'/>" for tick in x_ticks]
    for tick, word in zip(x_ticks, _tick_words(x_ticks, percent), strict=True):
        grid.append(f"<text class='tick mid' x='{x_of(tick):.1f}' y='{bottom + 15:.1f}'>{word}</text>")
    at = x_of(reference.value)
    grid.append(f"<path class='zero' d='M{at:.1f} {top - 4}V{bottom:.1f}'/>")
    name = shortened(reference.label, 28)
    grid.append(f"<text class='tick {_anchor(at, name)}' x='{at:.1f}' y='{top - 9:.1f}'>{_text(name)}</text>")
    grid.append(f"<text class='tick mid' x='{(left + right) / 2:.1f}' y='{bottom + 32:.1f}'>{_text(x_label)}</text>")
    return _figure(title, "".join([*grid, *rows]), int(bottom + 40))


def bar_chart(title: str, bars: Sequence[Bar], x_label: str, reference: Reference | None = None) -> str:
    """Horizontal bars from 0, one line of the page each: the name before, the words behind."""
    if not any(bar.value for bar in bars):
        return f"<figure><figcaption>{_text(title)}: nothing was counted.</figcaption></figure>"
    labels = [shortened(bar.label, 22) for bar in bars]
    spans = [0.0, *(bar.value for bar in bars), *([reference.value] if reference else [])]
    top = 26.0 if reference else 6.0
    bottom = top + 19.0 * len(bars)
    left = 12 + _CHARACTER * max(map(_width, labels))
    right = WIDTH - 10 - _DIGIT * max(len(bar.words) for bar in bars)
    x_of = _scale(spans, (left, right), margin=0.0)
    x_ticks = [tick for tick in ticks(0.0, max(spans), 5) if x_of(tick) <= WIDTH - 24]
    parts = [f"<path class='grid' d='M{x_of(tick):.1f} {top}V{bottom:.1f}'/>" for tick in x_ticks]
    for tick, word in zip(x_ticks, _tick_words(x_ticks), strict=True):
        parts.append(f"<text class='tick mid' x='{x_of(tick):.1f}' y='{bottom + 15:.1f}'>{word}</text>")
    drawn = [_bar(bar, label, x_of, top + 19.0 * n) for n, (bar, label) in enumerate(zip(bars, labels, strict=True))]
    parts += [lengths for lengths, _ in drawn]
    if reference:
        at, name = x_of(reference.value), shortened(reference.label, 28)
        parts.append(f"<path class='zero' d='M{at:.1f} {top - 6}V{bottom:.1f}'/>")
        parts.append(f"<text class='tick {_anchor(at, name)}' x='{at:.1f}' y='{top - 11:.1f}'>{_text(name)}</text>")
    parts += [words for _, words in drawn]  # over the line
    parts.append(f"<text class='tick mid' x='{(left + right) / 2:.1f}' y='{bottom + 32:.1f}'>{_text(x_label)}</text>")
    return _figure(title, "".join(parts), int(bottom + 40))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers, about so many of them, the first at most `low` and the last at least `high`."""
    low, high = _widened(low, high)
    raw = (high - low) / max(1, about - 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next((m * size for m in (1, 2, 2.5, 5) if m * size >= raw * 0.999), 10 * size)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The positions moved as little as it takes to be `gap` apart, within `low` to `high` if there is room."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    gap = min(gap, (high - low) / max(1, len(order) - 1))
    blocks: list[tuple[list[int], float]] = []  # neighbours that touch, and where the first of them lies
    for index in order:
        block, start = [index], min(max(positions[index], low), high)
        while blocks and blocks[-1][1] + gap * len(blocks[-1][0]) > start:
            block = blocks.pop()[0] + block
            middle = sum(positions[i] for i in block) / len(block) - gap * (len(block) - 1) / 2
            start = min(max(middle, low), high - gap * (len(block) - 1))
        blocks.append((block, start))
    moved = [0.0] * len(positions)
    for block, start in blocks:
        for number, index in enumerate(block):
            moved[index] = start + gap * number
    return moved


def shortened(text: str, most: int) -> str:
    """The text, its middle left out where it is longer than `most` characters."""
    text = visible(text).replace("\n", "␊").replace("\t", " ")
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def mark(style: int, x: float, y: float) -> str:
    """The mark of a series: circle, square, diamond, triangle, ring or cross, by turns."""
    shapes = (
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.6'",
        f"<rect x='{x - 3.3:.1f}' y='{y - 3.3:.1f}' width='6.6' height='6.6'",
        f"<path d='M{x:.1f} {y - 4.8:.1f}l4.8 4.8l-4.8 4.8l-4.8 -4.8z'",
        f"<path d='M{x:.1f} {y - 4.6:.1f}l4.4 7.8h-8.8z'",
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.2' fill-opacity='0' stroke-width='2'",
        f"<path d='M{x - 3.6:.1f} {y - 3.6:.1f}l7.2 7.2m0 -7.2l-7.2 7.2' stroke-width='2'",
    )
    return f"{shapes[style % 6]} class='mark s{style % 6}'/>"


def _figure(title: str, content: str, height: int) -> str:
    return (
        f"<figure><figcaption>{_text(title)}</figcaption><svg viewBox='0 0 {WIDTH} {height}' role='img'"
        f" aria-label='{_text(title)}'>{content}</svg></figure>"
    )


def _axes(
    x_of: _Scale,
    y_of: _Scale,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    box: tuple[float, float, float, float],
    x_label: str,
    y_label: str,
) -> str:
    left, right, top, bottom = box
    parts = [f"<text class='tick' x='2' y='12'>{_text(y_label)}</text>"]
    for tick, word in zip(y_ticks, _tick_words(y_ticks), strict=True):
        y = y_of(tick)
        if top - 1 <= y <= bottom + 1:
            parts.append(f"<path class='grid' d='M{left:.1f} {y:.1f}H{right:.1f}'/>")
            parts.append(f"<text class='tick end' x='{left - 6:.1f}' y='{y + 4:.1f}'>{word}</text>")
    for tick, word in zip(x_ticks, _tick_words(x_ticks), strict=True):
        x = x_of(tick)
        if left - 1 <= x <= right + 1:
            parts.append(f"<path class='axis' d='M{x:.1f} {bottom:.1f}v4'/>")
            parts.append(f"<text class='tick mid' x='{x:.1f}' y='{bottom + 16:.1f}'>{word}</text>")
    parts.append(f"<path class='axis' d='M{left:.1f} {bottom:.1f}H{right:.1f}'/>")
    parts.append(f"<text class='tick mid' x='{(left + right) / 2:.1f}' y='{bottom + 33:.1f}'>{_text(x_label)}</text>")
    return "".join(parts)


def _drawn(line: Line, x_of: _Scale, y_of: _Scale) -> str:
    places = [(x_of(x), y_of(y)) for x, y in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dashes = f" stroke-dasharray='{DASHES[line.style % 6]}'" if line.style % 6 else ""
    marks = places if line.marks or len(places) == 1 else []
    drawn = f"<path class='line s{line.style % 6}' d='{path}'{dashes}/>" if len(places) > 1 else ""
    return drawn + "".join(mark(line.style, x, y) for x, y in marks)


def _estimate(estimate: Estimate, x_of: _Scale, y: float, label: str) -> str:
    parts = [f"<text class='name s{estimate.style % 6}' x='10' y='{y + 4:.1f}'>{_text(label)}</text>"]
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        low, high = x_of(estimate.low), x_of(estimate.high)
        whisker = f"M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8"
        parts.append(f"<path class='line s{estimate.style % 6}' d='{whisker}'/>")
    parts.append(mark(estimate.style, x_of(estimate.value), y))
    return "".join(parts)


def _bar(bar: Bar, label: str, x_of: _Scale, y: float) -> tuple[str, str]:
    """The bar, and the texts before and behind it."""
    start, end = x_of(0.0), x_of(bar.value)
    width = max(end - start, 0.8) if bar.value else 0.0  # the smallest can still be seen
    length = f"<rect class='s{bar.style % 6}' x='{start:.1f}' y='{y + 3:.1f}' width='{width:.1f}' height='13'/>"
    words = f"<text class='end' x='{start - 6:.1f}' y='{y + 13:.1f}'>{_text(label)}</text>"
    return length, words + f"<text class='name' x='{start + width + 5:.1f}' y='{y + 13:.1f}'>{_text(bar.words)}</text>"


def _width(label: str) -> int:
    """In narrow characters; those of East Asian scripts are as wide as two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in label)


class _Scale:
    """Values to places, linearly."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self.low, self.factor, self.start = low, (stop - start) / (high - low), start

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.factor


def _scale(values: Sequence[float], places: tuple[float, float], margin: float = 0.05) -> _Scale:
    """The values' extent, and a margin on both sides, onto the places from the first to the last."""
    low, high = _widened(min(values), max(values))
    pad = margin * (high - low)
    return _Scale(low - pad, high + pad, *places)


def _widened(low: float, high: float) -> tuple[float, float]:
    """The extent itself, or one around it where it is too narrow to be drawn."""
    size = max(abs(low), abs(high))
    if high - low > 1e-9 * size and high - low > 1e-15:
        return low, high
    pad = 0.05 * size if size > 1e-12 else 1.0
    return low - pad, high + pad


def _tick_words(values: Sequence[float], percent: bool = False) -> list[str]:
    """All with the same number of decimals, and in thousands or millions where they are large."""
    values = [100 * value for value in values] if percent else list(values)
    largest = max(map(abs, values))
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if largest >= size:
            divisor = 1e3 if unit == "k" else size
            return [f"{word}{unit}" if value else "0" for value, word in _decimals([v / divisor for v in values])]
    if largest < 1e-5:
        return [f"{value:.1e}" if value else "0" for value in values]
    return [word for _, word in _decimals(values)]


def _decimals(values: Sequence[float]) -> list[tuple[float, str]]:
    step = min((b - a for a, b in itertools.pairwise(values)), default=1.0)
    places = next((n for n in range(9) if abs(step * 10**n - round(step * 10**n)) < 1e-6 * step * 10**n), 9)
    return [(value, f"{value:,.{places}f}".replace("-", "−")) for value in (v + 0.0 for v in values)]


def _anchor(x: float, label: str) -> str:
    """The text-anchor class that keeps a label at `x` inside the picture."""
    half = _CHARACTER * len(label) / 2
    return "end" if x + half > WIDTH else "mid" if x > half else "start"


def _finite(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y))


def _text(text: str) -> str:
    return escape(visible(text), quote=True)
