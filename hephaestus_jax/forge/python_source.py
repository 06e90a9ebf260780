"""Python source with the places of its parts as character offsets, and edits that leave whole lines behind."""

from __future__ import annotations

import ast
import bisect
import io
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

_SEMICOLON_BEFORE = re.compile(r"\s*;\s*$")
_SEMICOLON_AFTER = re.compile(r"[ \t]*;[ \t]*")
_REST_OF_LINE = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|$)")
_BLANK_LINE = re.compile(r"[ \t]*\n")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, order=True)
class Edit:
    """Characters [start, end) are replaced by `text`; `is_definition` marks a held-out API's own definition."""

    start: int
    end: int
    text: str = ""
    is_definition: bool = False


class Unparseable(ValueError):
    """The text is not Python of this version."""


def parse(text: str) -> ast.Module:
    """The syntax tree of `text`.

    Raises:
        Unparseable: it is not Python of this version.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unparseable(str(error)) from error


class Source:
    """A parsed text with the places of its nodes and comments as character offsets."""

    def __init__(self, text: str, tree: ast.Module, offsets: Iterable[int]) -> None:
        self.text, self.tree = text, tree
        self.lines = text.split("\n")
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._ascii = text.isascii()
        self._spans: dict[ast.AST, tuple[int, int]] = {}
        # finding the comments is slow, and they matter only where a hit may be in one
        in_comment = any("#" in text[self.line_start(offset) : offset] for offset in offsets)
        self.comments = list(self._comments()) if in_comment else []

    def offset(self, line: int, column: int) -> int:
        """Character offset of a line (from 1) and a column in UTF-8 bytes, as syntax trees count."""
        if not self._ascii:
            text = self.lines[line - 1]
            column = len(text.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "surrogatepass"))
        return self._starts[line - 1] + column

    @cached_property
    def reads(self) -> dict[str, list[tuple[ast.Name, tuple[ast.AST, ...]]]]:
        """Where every name is read, each place with the functions around it."""
        found: dict[str, list[tuple[ast.Name, tuple[ast.AST, ...]]]] = {}
        queue: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(self.tree, ())]
        while queue:
            node, around = queue.pop()
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found.setdefault(node.id, []).append((node, around))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                around = (*around, node)
            queue.extend((child, around) for child in ast.iter_child_nodes(node))
        return found

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Start and end of a node, the decorators of a definition included."""
        if (span := self._spans.get(node)) is None:
            span = self._spans[node] = self._span(node)
        return span

    def _span(self, node: ast.AST) -> tuple[int, int]:
        start = self.offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]
        if decorators := getattr(node, "decorator_list", None):
            first = decorators[0]
            start = self.text.rindex("@", 0, self.offset(first.lineno, first.col_offset))
        return start, self.offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def _comments(self) -> Iterator[tuple[int, int]]:
        try:
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
                if token.type == tokenize.COMMENT:
                    start = self._starts[token.start[0] - 1] + token.start[1]
                    yield start, start + len(token.string)
        except (tokenize.TokenError, SyntaxError, IndexError):
            return  # it parsed, so the comments up to here are all we can tell from the rest

    def line_start(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1

    def comment_at(self, offset: int) -> tuple[int, int] | None:
        """The comment that a character is in."""
        place = bisect.bisect_right(self.comments, (offset, len(self.text))) - 1
        return self.comments[place] if place >= 0 and offset < self.comments[place][1] else None

    def removal(self, statement: ast.stmt, words: frozenset[str] = frozenset()) -> Edit:
        """The edit that removes a statement: its whole lines where it has them to itself.

        `words` are the names of held-out APIs, by which their own definitions are told.
        """
        text = self.text
        start, end = self.span(statement)
        begin = self.line_start(start)
        if text[begin:start].strip():  # after "x = 1;"
            before = _SEMICOLON_BEFORE.search(text[begin:start])
            after = _SEMICOLON_AFTER.match(text, end)
            if before:
                return Edit(begin + before.start(), end)
            return Edit(start, after.end() if after else end)
        tail = _REST_OF_LINE.match(text, end)
        if not tail:  # before "; y = 2"
            after = _SEMICOLON_AFTER.match(text, end)
            return Edit(start, after.end() if after else end)
        end = tail.end()
        if isinstance(statement, Definition):
            begin = self._with_comment_above(begin, start)
        if text.endswith("\n\n", 0, begin) or not text[:begin].strip(" \n"):
            while blank := _BLANK_LINE.match(text, end):
                end = blank.end()
        return Edit(begin, end, is_definition=isinstance(statement, Definition) and statement.name in words)

    def comment_removal(self, start: int, end: int) -> Edit:
        """The edit that removes a comment, with its line if it has one to itself."""
        begin = self.line_start(start)
        if self.text[begin:start].strip():
            return Edit(begin + len(self.text[begin:start].rstrip()), end)
        return Edit(begin, min(end + 1, len(self.text)))

    def _with_comment_above(self, begin: int, start: int) -> int:
        """Takes in the comment lines that stand directly above and are indented alike."""
        indent = self.text[begin:start]
        while begin:
            above = self.line_start(begin - 1)
            line = self.text[above:begin]
            if not line.startswith(indent + "#") or line.startswith(("#!", "# -*-")):
                break
            begin = above
        return begin

    def top_level_edits(self, hits: Iterable[int], words: frozenset[str]) -> list[Edit]:
        """A coarse cut: whole statements of the module, and whole comments."""
        hits = sorted(hits)
        edits = []
        for statement in self.tree.body:
            start, end = self.span(statement)
            if bisect.bisect_left(hits, start) < bisect.bisect_left(hits, end):
                edits.append(self.removal(statement, words))
        return edits + [self.comment_removal(*place) for place in set(map(self.comment_at, hits)) if place]


def disjoint(edits: Iterable[Edit]) -> list[Edit]:
    """The edits in order; one inside another is dropped, two that overlap are joined."""
    kept: list[Edit] = []
    for edit in sorted(set(edits), key=lambda edit: (edit.start, -edit.end)):
        if kept and edit.start < kept[-1].end:
            if edit.end > kept[-1].end:
                kept[-1] = Edit(kept[-1].start, edit.end, is_definition=kept[-1].is_definition or edit.is_definition)
        else:
            kept.append(edit)
    return kept


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text after disjoint edits in order."""
    parts: list[str] = []
    position = 0
    for edit in edits:
        parts += [text[position : edit.start], edit.text]
        position = edit.end
    return "".join([*parts, text[position:]])
