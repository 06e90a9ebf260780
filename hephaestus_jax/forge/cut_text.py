"""Cuts the places that a held-out API shows in out of prose: entries of lists, examples, paragraphs, code blocks."""

from __future__ import annotations

import ast
import bisect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

# Starts of entries: bullets, numbered points, "name: what", "name : type", fields of reStructuredText, table rows.
_ENTRY = re.compile(
    r"\s*(?:[-*+•]\s+|\(?\d+[.)]\s+|\||:[\w ,*.`]+:|@\w+|\.\. "
    r"|[*`~:]{0,3}[\w.]+[*`]{0,2}\s*(?:\([^()]*\))?\s*:(?:\s|$))"
)
_EXAMPLE = re.compile(r"\s*>>>(?:\s|$)")
_PROMPT = re.compile(r"(?m)^[ \t]*(?:>>>|\.\.\.) ?")
_UNDERLINE = re.compile(r"\s*([=\-~^\"'`#*+_.])\1{2,}\s*$")
_FENCE = re.compile(r"\s*(```+|~~~+)")


@dataclass(frozen=True)
class Piece:
    """Lines `first` to `last` (inclusive) that stay or go together; the paragraph (or code block) they are part of."""

    first: int
    last: int
    paragraph: int
    is_heading: bool = False
    is_example: bool = False


def cut_text(text: str, offsets: Sequence[int]) -> tuple[str, int]:
    """`text` without the pieces that `offsets` point into, and how many pieces were cut.

    Args:
        text: prose in any mark-up; a docstring's indentation is understood.
        offsets: character offsets of what must go.
    """
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    hit_lines = {bisect.bisect_right(starts, offset) - 1 for offset in offsets}
    pieces = _pieces(lines)
    cut = {i for i, piece in enumerate(pieces) if any(n in hit_lines for n in range(piece.first, piece.last + 1))}
    cut |= _later_examples(lines, pieces, cut)
    cut |= _orphaned_headings(pieces, cut)
    gone = {n for i in cut for n in range(pieces[i].first, pieces[i].last + 1)}
    return "\n".join(_without(lines, gone)), len(cut)


def _pieces(lines: Sequence[str]) -> list[Piece]:
    pieces: list[Piece] = []
    number, paragraph = 0, 0
    while number < len(lines):
        if not lines[number].strip():
            number += 1
            continue
        end = _fence_end(lines, number)
        if end is not None:
            pieces.append(Piece(number, end, paragraph))
        else:
            end = number
            while end + 1 < len(lines) and lines[end + 1].strip() and not _FENCE.match(lines[end + 1]):
                end += 1
            pieces.extend(_entries(lines, number, end, paragraph))
        number, paragraph = end + 1, paragraph + 1
    return pieces


def _fence_end(lines: Sequence[str], number: int) -> int | None:
    """The line that closes the fenced block opening at `number`, None when none does."""
    opening = _FENCE.match(lines[number])
    if not opening:
        return None
    for end in range(number + 1, len(lines)):
        if lines[end].strip() == opening[1]:
            return end
    return None


def _entries(lines: Sequence[str], first: int, last: int, paragraph: int) -> list[Piece]:
    """Splits a paragraph into its heading, entries and examples; plain running text is one piece."""
    starts = [first]
    for number in range(first + 1, last + 1):
        if not _UNDERLINE.match(lines[number]) and _starts_piece(lines, starts[-1], number, last):
            starts.append(number)
    ends = [start - 1 for start in starts[1:]] + [last]
    return [
        Piece(start, end, paragraph, _is_heading(lines, start, end), bool(_EXAMPLE.match(lines[start])))
        for start, end in zip(starts, ends, strict=True)
    ]


def _starts_piece(lines: Sequence[str], begin: int, number: int, last: int) -> bool:
    """Whether a new piece starts at line `number`, the present one having started at line `begin`."""
    line, indent = lines[number], _indent(lines[begin])
    if _EXAMPLE.match(line) or _indent(line) < indent:
        return True
    if _EXAMPLE.match(lines[begin]):
        return False  # the example's output
    if _ENTRY.match(line) or _UNDERLINE.match(lines[number - 1]):
        return True
    return _indent(line) == indent and _is_entry(lines, begin, last)


def _is_entry(lines: Sequence[str], number: int, last: int) -> bool:
    """Whether the line starts an entry: by its looks, or because its continuation is indented."""
    return bool(_ENTRY.match(lines[number])) or (number < last and _indent(lines[number + 1]) > _indent(lines[number]))


def _is_heading(lines: Sequence[str], first: int, last: int) -> bool:
    if first == last:
        return lines[first].rstrip().endswith(":") and len(lines[first].split()) <= 3
    return first + 1 == last and bool(_UNDERLINE.match(lines[last]))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _later_examples(lines: Sequence[str], pieces: Sequence[Piece], cut: set[int]) -> set[int]:
    """Examples that use what a cut example would have made."""
    examples = [i for i, piece in enumerate(pieces) if piece.is_example]
    sources = [_PROMPT.sub("", _source(lines, pieces[i])) for i in examples]
    return {examples[k] for k in dependants(sources, {k for k, i in enumerate(examples) if i in cut})}


def _source(lines: Sequence[str], piece: Piece) -> str:
    prompted = []
    for line in lines[piece.first : piece.last + 1]:
        if not line.lstrip().startswith((">>>", "...")):
            break
        prompted.append(line)
    return "\n".join(prompted)


def dependants(sources: Sequence[str], cut: set[int]) -> set[int]:
    """Numbers of the Python `sources`, run in order, that read a name which only a cut one binds; `cut` included."""
    if not cut:
        return set()
    gone = set(cut)
    missing: set[str] = set()
    for number, source in enumerate(sources):
        reads, binds = _names(source)
        if number in gone or reads & missing:
            gone.add(number)
            missing |= binds
        else:
            missing -= binds
    return gone


def _names(source: str) -> tuple[set[str], set[str]]:
    """The names that a source reads, and those it binds; all its words are both when it does not parse."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"\w+", source)), set(re.findall(r"(?m)^\s*(\w+)\s*=(?!=)", source))
    reads: set[str] = set()
    binds: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (reads if isinstance(node.ctx, ast.Load) else binds).add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            # a module that a cut import brought is in scope elsewhere too: only new names count
            binds.update(alias.asname or alias.name for alias in node.names if "." not in (alias.asname or alias.name))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            binds.add(node.name)
    return reads, binds


def _orphaned_headings(pieces: Sequence[Piece], cut: set[int]) -> set[int]:
    """Headings whose paragraph lost everything else."""
    orphaned = set()
    touched = {pieces[i].paragraph for i in cut}
    for paragraph in touched:
        left = [i for i, piece in enumerate(pieces) if piece.paragraph == paragraph and i not in cut]
        if left and all(pieces[i].is_heading for i in left):
            orphaned.update(left)
    return orphaned


def _without(lines: Sequence[str], gone: set[int]) -> list[str]:
    """The lines that stay; where whole paragraphs went, one blank line is left of those around them."""
    kept: list[str] = []
    after_cut = False
    for number, line in enumerate(lines):
        if number in gone:
            after_cut = True
            continue
        if after_cut and not line.strip():
            if number == len(lines) - 1:  # a docstring's closing quotes may stand on it
                while kept and not kept[-1].strip():
                    kept.pop()
            elif not kept or not kept[-1].strip():
                continue
        after_cut = False
        kept.append(line)
    return kept
