"""Examples in reStructuredText as the AWS command line documents them: a heading, a sentence, a command, its output."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from hephaestus_jax.forge.clouds.command_lines import split_commands, words
from hephaestus_jax.forge.clouds.intents import intent, request_of_title
from hephaestus_jax.forge.clouds.reading import LONGEST_RESULT
from hephaestus_jax.forge.prose import clean

_UNDERLINE = re.compile(r"([=\-~^\"'*+#])\1{2,}\s*")
_BOLD = re.compile(r"\*\*(.+?)\*\*:?\.?(::)?")
_TARGET = re.compile(r"^\.\. _.*$|^\.\. [\w-]+::.*$|^__ \S+$", re.MULTILINE)
_OUTPUT = re.compile(
    r"^\W*(?:sample |example |the |expected )?(?:output|response|result|returns?)\b|"
    r"\b(?:output|returns?|response|displays|prints|looks like|similar to)\b[^.]*$",
    re.IGNORECASE,
)
_FILE = re.compile(r"\b(?:contents?|file|document)\b|\.(?:json|ya?ml|txt|py|sh|xml)\b", re.IGNORECASE)
_COMMAND_LABEL = re.compile(r"\W*(?:command|commands|example command|example|linux.*|windows.*)\W*", re.IGNORECASE)
_LINKS = (
    (re.compile(r"`([^`<]+?)\s*<[^>`]*>`_{1,2}"), r"\1"),
    (re.compile(r"(?<!`)`([^`]+)`_{1,2}"), r"\1"),
    (re.compile(r":[a-z]+:`([^`]+)`"), r"\1"),
    (re.compile(r"``(.+?)``"), r"`\1`"),
)
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_NO_OUTPUT = re.compile(r"^(this|the) command (produces|returns|has) no output", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, or literal text, which stands indented."""

    kind: Literal["heading", "prose", "literal"]
    text: str


@dataclass
class Example:
    """A command with what it printed, and the files it refers to as they are told."""

    call: str
    intent: str
    files: list[str] = field(default_factory=list)
    result: str | None = None

    @property
    def shown(self) -> str:
        """The command, followed by the files it reads."""
        return "\n\n".join([self.call, *self.files])


@dataclass(frozen=True)
class Page:
    """The examples of a page, its headings as requests, and what stands before the first example."""

    examples: tuple[Example, ...]
    headings: tuple[str, ...]


def page(text: str, program: str = "aws") -> Page:
    """Reads a page of examples of `program`."""
    examples: list[Example] = []
    headings: list[str] = []
    heading, label, current = "", "", None
    told: list[str] = []
    for block in blocks(text):
        if block.kind == "heading":
            heading, label, told, current = block.text, "", [], None
            if request := request_of_title(block.text):
                headings.append(request)
        elif block.kind == "prose":
            label = block.text
            if not _COMMAND_LABEL.fullmatch(label) and not _NO_OUTPUT.match(label):
                told.append(label)
        elif re.match(rf"(\$\s+)?{program}\s", block.text):
            call, printed = _session(block.text, program)
            current = Example(call, intent(heading, _explanation(told)), result=printed or None)
            examples.append(current)
            told = []
        elif current is not None:
            _attach(current, label, block.text)
            told = []
    return Page(tuple(examples), tuple(dict.fromkeys(headings)))


def _session(text: str, program: str) -> tuple[str, str]:
    """A block that begins with a command: the command, or several, and what was printed below."""
    lines = text.split("\n")
    for end in range(1, len(lines)):
        rest = lines[end]
        if len(split_commands("\n".join(lines[:end]))) == 1 and rest[:1] in ("{", "[") and _closed(lines[:end]):
            printed = "\n".join(lines[end:])
            return _prompted("\n".join(lines[:end])), printed if len(printed) <= LONGEST_RESULT else ""
    return _prompted(text), ""


def _closed(lines: list[str]) -> bool:
    return words("\n".join(lines)) is not None and not lines[-1].rstrip().endswith("\\")


def _prompted(text: str) -> str:
    """Without the prompts of a shell, and with the backslashes that continue a line where they are due."""
    lines = re.sub(r"^\$\s+", "", text, flags=re.MULTILINE).split("\n")
    lines = [re.sub(r"\\?\s+$", lambda end: "\\" if end[0][:1] == "\\" else "", line) for line in lines]
    for number, line in enumerate(lines[1:]):
        if (
            re.match(r"\s+--[a-z]", line)
            and lines[number].strip()
            and not lines[number].endswith(("\\", "|", "`", "^"))
        ):
            lines[number] += " \\"
    return "\n".join(lines)


def _explanation(told: list[str]) -> str:
    """The paragraph that says what the next command does: the last that is about an example, else the last."""
    about = [part for part in told if re.search(r"\b(example|command|following)\b", part, re.IGNORECASE)]
    return (about or told or [""])[-1]


def _attach(example: Example, label: str, text: str) -> None:
    if _OUTPUT.search(label) and not re.match(r"contents? of", label, re.IGNORECASE):
        if example.result is None and len(text) <= LONGEST_RESULT:
            example.result = _TRAILING.sub("", text)
    elif _FILE.search(label) and len(text) <= LONGEST_RESULT:
        example.files.append(f"# {label.rstrip(':. ')}:\n{text}")


def plain(text: str) -> str:
    """Inline reStructuredText as Markdown: links lose their targets, literals get single backquotes."""
    for pattern, replacement in _LINKS:
        text = pattern.sub(replacement, text)
    return clean(text)


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page in order."""
    lines = _TARGET.sub("", text.replace("\r\n", "\n").replace("\t", "    ")).split("\n")
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        indented = lines[at][0] == " "
        end = at
        while end < len(lines) and (not lines[end].strip() or (lines[end][0] == " ") == indented):
            if not indented and not lines[end].strip():
                break
            end += 1
        chunk, at = lines[at:end], end
        if indented:
            literal = textwrap.dedent("\n".join(chunk)).strip("\n").rstrip()
            yield Block("literal", literal)
        else:
            yield from _flowing(chunk)


def _flowing(lines: list[str]) -> Iterator[Block]:
    """Headings and a paragraph among lines that are not indented."""
    prose: list[str] = []
    for number, line in enumerate(lines):
        if _UNDERLINE.fullmatch(line):
            continue
        if number + 1 < len(lines) and _UNDERLINE.fullmatch(lines[number + 1]):
            yield Block("heading", plain(line))
        elif found := _BOLD.fullmatch(line.strip()):
            yield Block("heading", plain(found[1]))
        else:
            prose.append(line)
    paragraph = " ".join(prose).strip()
    if paragraph not in ("", "::"):
        yield Block("prose", plain(re.sub(r"\s*::$", ":", paragraph)))
