"""The blocks of a manual page: sections, paragraphs, tagged items, verbatim text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

DEEPEST = 20  # levels of indentation that are told apart

_BULLET = re.compile(r"[•·*o○□+–—-]|\(?\d{1,3}[.)]\)?|\(?[a-z][.)]")


@dataclass
class Block:
    """A part of a section. `kind` is "text", "item" (a tag and what is said about it) or "code"."""

    kind: str
    text: str = ""
    tag: str = ""
    level: int = 0  # of indentation
    children: list[Block] = field(default_factory=list)

    def told(self) -> str:
        """The text with all that belongs to it, as Markdown."""
        parts = [self.text]
        for child in self.children:
            if child.kind == "code":
                parts.append(f"```\n{child.text}\n```")
            elif child.kind == "item":
                below = child.told().replace("\n", "\n  ")
                parts.append(f"- {child.tag}: {below}" if not _is_bullet(child.tag) else f"- {below}")
            else:
                parts.append(child.text)
        kept = [part for part in parts if part.strip()]
        joined = kept[0] if kept else ""
        for before, part in pairwise(kept):
            listed = part.startswith("- ") and before.startswith("- ")
            joined += ("\n" if listed else "\n\n") + part
        return joined


@dataclass
class Section:
    """A section or subsection and its blocks."""

    title: str
    level: int  # 1, or 2 of a subsection
    blocks: list[Block] = field(default_factory=list)

    def items(self) -> Iterator[Block]:
        """Every tagged item, nested ones too, in order."""
        pending = list(reversed(self.blocks))
        while pending:
            block = pending.pop()
            if block.kind == "item":
                yield block
            pending += reversed(block.children)

    def told(self) -> str:
        """The section as Markdown, without its title."""
        return Block("text", children=self.blocks).told()


@dataclass
class Page:
    """A manual page."""

    title: str = ""
    number: str = ""
    source: str = ""  # the project and its version, as the page states them
    sections: list[Section] = field(default_factory=list)

    def section(self, *titles: str) -> list[Section]:
        """The sections of these titles, each with its subsections."""
        found: list[Section] = []
        within = False
        for section in self.sections:
            if section.level == 1:
                within = section.title.upper() in titles
            if within:
                found.append(section)
        return found


@dataclass
class Builder:
    """Puts text and marks together to blocks."""

    page: Page = field(default_factory=Page)
    words: list[str] = field(default_factory=list)
    code: list[str] | None = None  # lines of verbatim text
    items: list[Block] = field(default_factory=list)  # open ones, outermost first
    level: int = 0
    opened: list[bool] = field(default_factory=list)  # of each indentation: whether it tells about an option
    tag_wanted: str = ""  # "new", or "more" for another tag of the same item

    @property
    def in_synopsis(self) -> bool:
        """Whether the section is a synopsis, where the breaks between lines mean something."""
        sections = self.page.sections
        return bool(sections) and sections[-1].title.upper() in ("SYNOPSIS", "SYNTAX")

    def section(self, title: str, level: int) -> None:
        """Begins a section (1) or subsection (2)."""
        self.end_code()
        self.paragraph()
        self.items.clear()
        self.opened.clear()
        self.level = 0
        self.tag_wanted = ""
        self.page.sections.append(Section(" ".join(title.split()), level))

    def text(self, line: str, glued: bool = False) -> None:
        """A line of text; `glued` to the one before."""
        if self.tag_wanted and line.strip():
            self._tag(" ".join(line.split()))
        elif self.code is not None:
            self.code.append(line.rstrip())
        elif glued and self.words:
            self.words[-1] += line.strip()
        elif line.strip():
            self.words.append(" ".join(line.split()))

    def paragraph(self, leave: bool = False) -> None:
        """Ends the paragraph; `leave` also the items that are not indented less."""
        text = " ".join(self.words).strip()
        self.words.clear()
        if text:
            if self.items and not self.items[-1].text and not self.items[-1].children:
                self.items[-1].text = text
            else:
                self._add(Block("text", text, level=self.level))
        if leave:
            while self.items and self.items[-1].level >= self.level:
                self.items.pop()

    def want_tag(self, more: bool = False) -> None:
        """The next line is the tag of an item, or another one of the same."""
        self.end_code()
        self.paragraph()
        self.tag_wanted = "more" if more and self.items else "new"

    def item(self, tag: str) -> None:
        """Begins an item."""
        self.end_code()
        self.paragraph()
        self.tag_wanted = "new"
        self._tag(" ".join(tag.split()))

    def indent(self) -> None:
        """What follows is indented; after a paragraph that is an option it tells about the option."""
        self.end_code()
        self.paragraph()
        home = self._home()
        last = home[-1] if home else None
        option = bool(last and last.kind == "text" and last.text.startswith("-") and len(last.text) < 200)
        if last and option:
            home[-1] = Block("item", tag=last.text, level=self.level)
            self.items.append(home[-1])
        if self.level < DEEPEST:
            self.level += 1
            self.opened.append(option)

    def dedent(self) -> None:
        """Ends what was indented."""
        self.end_code()
        self.paragraph()
        self.level = max(0, self.level - 1)
        ends = self.level if self.opened and self.opened.pop() else self.level + 1
        while self.items and self.items[-1].level >= ends:
            self.items.pop()

    def begin_code(self) -> None:
        """Verbatim lines follow."""
        if self.code is None:
            self.paragraph()
            self.code = []

    def end_code(self) -> None:
        """The verbatim lines end."""
        if self.code is not None:
            text = "\n".join(self.code).strip("\n")
            self.code = None
            if text.strip():
                self._add(Block("code", text, level=self.level))

    def finish(self) -> Page:
        """The page."""
        self.end_code()
        self.paragraph()
        return self.page

    def _tag(self, tag: str) -> None:
        more, self.tag_wanted = self.tag_wanted == "more", ""
        if more:
            self.items[-1].tag += f", {tag}"
            return
        while self.items and self.items[-1].level >= self.level:
            self.items.pop()
        block = Block("item", tag=tag, level=self.level)
        self._add(block)
        self.items.append(block)

    def _home(self) -> list[Block]:
        if self.items:
            return self.items[-1].children
        return self.page.sections[-1].blocks if self.page.sections else []

    def _add(self, block: Block) -> None:
        if len(self.items) < DEEPEST:
            self._home().append(block)


def _is_bullet(tag: str) -> bool:
    return _BULLET.fullmatch(tag) is not None
