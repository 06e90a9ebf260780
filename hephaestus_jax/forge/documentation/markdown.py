"""Markdown as documentation systems extend it (MyST, MkDocs, Docusaurus, MDX), as plain Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hephaestus_jax.forge.documentation.directives import (
    CODE,
    REMARKS,
    TITLED,
    UNSEEN,
    between,
    language_name,
    short_name,
)
from hephaestus_jax.forge.documentation.places import included, places, text_of
from hephaestus_jax.forge.documentation.roles import shown
from hephaestus_jax.forge.documentation.rst import rst_to_markdown
from hephaestus_jax.forge.prose import clean
from hephaestus_jax.forge.sources.source import SourceFile

DEEPEST = 8  # boxes within boxes

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_FIELD = re.compile(r"^(title|description):[ \t]*[\"']?(.+?)[\"']?[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,}|:{3,})[ \t]*(.*)$")
_DIRECTIVE = re.compile(r"\{([\w:+.-]+)\}[ \t]*(.*)$")
_BOX = re.compile(
    r"([ \t]*)(?:!!!|\?\?\?\+?)[ \t]+([\w-]+)(?:[ \t]+\"([^\"]*)\")?.*$|([ \t]*)===\+?!?[ \t]+\"([^\"]*)\".*$"
)
_OPTION = re.compile(r":([\w-]+):[ \t]*(.*)$")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_RULED = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d+[.)])[ \t]")
_COMMENT = re.compile(
    r"<!--.*?-->|\{/\*.*?\*/\}|^%[^\n{(]*$"
    r"|^(?:import|export)[ \t][^\n]*(?:from[ \t]|['\"];?[ \t]*$|;[ \t]*$)[^\n]*$",
    re.DOTALL | re.MULTILINE,
)
_TEMPLATE = re.compile(r"^[ \t]*(?:\{[%*#].*[%*#]\}|-{2,}8<-{2,}.*|\[TOC\]|\[\[.*\]\])[ \t]*$", re.MULTILINE)
_LABEL = re.compile(r"^\([^()\n]+\)=[ \t]*$", re.MULTILINE)
_ATTRIBUTES = re.compile(r"\{:?[ \t]*[#.][^{}\n]*\}|(?<=\))\{[^{}\n]*=[^{}\n]*\}")
_ROLE = re.compile(r"\{([\w:+.-]+)\}`([^`]+)`")
_EMPTY_LINK = re.compile(r"\[\]\(([^()\s]+)\)|<(?:project|doc|ref):([^<>\s]+)>")
_CODE_SPAN = re.compile(r"(`+)(?!`)[^`\n]+(?:\n[^`\n]+)?(?<!`)\1(?!`)")
_KEPT_SPAN = re.compile("\ue000(\\d{1,6})\ue001")
_AUTO_LINK = re.compile("\\[(\ue000\\d+\ue001)\\]\\[[^\\]\n]*\\]")
_TARGET = re.compile(r"^ {0,3}(?:> ?)*\[([^\]\n^]+)\]:[ \t]+\S+.*$", re.MULTILINE)
_NAMED_LINK = re.compile(r"\[((?:[^\[\]\n]|\n(?!\n))+)\](?:\[([^\[\]\n]*)\])?(?![\[(:])")
_ESCAPED = re.compile(r"\\(['\"<>])")
_PICTURE_LINK = re.compile(
    r"\[\s*(?:!\[[^\[\]\n]*\](?:\([^()\n]*\)|\[[^\[\]\n]*\])\s*)+\](?:\([^()\n]*\)|\[[^\[\]\n]*\])[ \t]*"
)
_SNIPPET = re.compile(r"<Snippet\b[^>]*?\btext=\{?([\"'`])([^\n]+?)\1\}?[^>\n]*/>")
_COMPONENT = re.compile(r"</?([A-Z][\w.]*)(?:\s(?:[^<>]|=>|<[^<>]*>)*?)?/?>|</?>")
_ENDED_COMPONENT = re.compile(r"</([A-Z][\w.]*)>|<([A-Z][\w.]*)(?:\s(?:[^<>]|=>|<[^<>]*>)*?)?/>")
_ROW = re.compile(
    r"name:\s*(?P<q>['\"`])(?P<name>.+?)(?P=q),.*?\btype:\s*(?P<r>['\"`])(?P<type>.+?)(?P=r).*?"
    r"\bdescription:\s*(?P<s>['\"`])(?P<told>.+?)(?<!\\)(?P=s)", re.DOTALL,
)  # fmt: skip
_PROPERTIES = re.compile(r"<PropertiesTable\b(.*?)^[ \t]*/>", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class _Piece:
    """A stretch of a page: lines of text, or the inside of a fence or box with what stands behind its mark."""

    kind: Literal["text", "fence", "colons", "box"]
    lines: tuple[str, ...]
    told: str = ""
    indent: str = ""


def plain_markdown(text: str, file: SourceFile) -> str:
    """A page without what only its documentation system would understand; links keep their words.

    Args:
        text: of the page.
        file: where it stands; titles that it refers to and files that it includes are looked up there.
    """
    text = text.replace("\r\n", "\n").expandtabs(4)
    found = _FRONT_MATTER.match(text)
    fields = dict(_FRONT_FIELD.findall(found[1])) if found else {}
    text = text[found.end() :] if found else text
    body = _Page(file, text).read(text, 0)
    if "title" in fields and not re.search(r"^# ", body[:2_000], re.MULTILINE):
        body = f"# {fields['title']}\n\n{fields.get('description', '')}\n\n{body}"
    return re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"


class _Page:
    def __init__(self, file: SourceFile, text: str) -> None:
        self._file = file
        self._targets = {name.lower() for name in _TARGET.findall(text)}
        # a placeholder such as <Name> looks like one, but nothing ends it
        self._components = {"", *(one or other for one, other in _ENDED_COMPONENT.findall(text))}
        self._switched = False  # whether the code above stands there in TypeScript already

    def read(self, text: str, depth: int) -> str:
        if depth > DEEPEST:
            return text
        made = []
        for piece in _pieces(text.split("\n")):
            if piece.kind == "text":
                made.append(self._text("\n".join(piece.lines)))
            elif piece.kind == "box":
                made.append(self._box(piece, depth))
            else:
                made.append(textwrap.indent(self._fence(piece, depth), piece.indent))
        return "\n\n".join(part for part in made if part.strip())

    def _fence(self, piece: _Piece, depth: int) -> str:
        inside = textwrap.dedent("\n".join(piece.lines)).strip("\n")
        directive = _DIRECTIVE.match(piece.told)
        if directive:
            return self._directive(directive[1].lower(), directive[2].strip(), inside, depth)
        if piece.kind == "colons":
            return self._remark(piece.told, inside, depth)
        language = re.match(r"[\w+#.-]*", piece.told.strip("{} "))
        name = language[0].lower() if language else ""
        switcher = "switcher" in piece.told
        if switcher and name in ("js", "jsx") and self._switched:
            self._switched = False
            return ""
        self._switched = switcher and name in ("ts", "tsx")
        shown_name = re.search(r"(?:filename|title)=[\"']?([^\"']+)", piece.told)
        return (f"`{shown_name[1]}`:\n\n" if shown_name else "") + _fenced(inside, name)

    def _remark(self, told: str, inside: str, depth: int) -> str:
        """A box of Docusaurus: `:::note Title`."""
        name, _, title = told.partition(" ")
        said = self.read(inside, depth + 1)
        label = title.strip(" []") or REMARKS.get(name.lower(), "")
        return _labelled(label, said) if label else said

    def _directive(self, name: str, argument: str, inside: str, depth: int) -> str:
        short = short_name(name)
        options, body = _options(inside)
        if name == "eval-rst":
            return rst_to_markdown(inside, self._file)
        if short in CODE or short == "code-cell":
            return _fenced(body, language_name(CODE.get(short, "") or argument))
        if short in ("include", "literalinclude"):
            return self._included(short, argument, options, depth)
        if short in UNSEEN or short.startswith("auto"):
            return ""
        if short == "math":
            return f"$$\n{body or argument}\n$$"
        if short in REMARKS:
            return _labelled(REMARKS[short], self.read("\n\n".join(filter(None, [argument, body])), depth + 1))
        if short.startswith("version") or short == "deprecated":
            version, _, said = argument.partition(" ")
            kind = {"versionadded": "New in version", "deprecated": "Deprecated since version"}
            label = f"{kind.get(short, 'Changed in version')} {version}"
            return _labelled(label, self.read("\n\n".join(filter(None, [said, body])), depth + 1))
        said = self.read(body, depth + 1)
        if not argument or short in ("list-table", "figure", "grid", "div", "container", "only", "csv-table", "table"):
            return said
        return f"**{argument}**\n\n{said}" if short in TITLED else f"**`{argument}`**\n\n{said}"

    def _included(self, name: str, argument: str, options: dict[str, str], depth: int) -> str:
        found = included(self._file, argument)
        text = between(text_of(found), options) if found else ""
        if name == "literalinclude":
            return _fenced(text.strip("\n"), language_name(options.get("language", ""))) if text else ""
        return self.read(text, depth + 1) if found and found.path.endswith(".md") else ""

    def _box(self, piece: _Piece, depth: int) -> str:
        said = self.read(textwrap.dedent("\n".join(piece.lines)), depth + 1)
        return textwrap.indent(_labelled(piece.told, said) if piece.told else said, piece.indent)

    def _text(self, text: str) -> str:
        spans: list[str] = []

        def keep(found: re.Match[str]) -> str:
            spans.append(found[0])
            return f"\ue000{len(spans) - 1}\ue001"

        text = _SNIPPET.sub(r"```\n\2\n```", _PROPERTIES.sub(_properties, _COMMENT.sub("", text)))
        text = _CODE_SPAN.sub(keep, _ROLE.sub(self._role, text))
        text = _PICTURE_LINK.sub("", _ESCAPED.sub(r"\1", text))
        text = _ATTRIBUTES.sub("", _LABEL.sub("", _TEMPLATE.sub("", text)))
        text = _COMPONENT.sub(lambda found: "" if (found[1] or "") in self._components else found[0], text)
        text = _AUTO_LINK.sub(r"\1", _EMPTY_LINK.sub(self._titled, text))
        if self._targets:
            text = _NAMED_LINK.sub(self._words_of_link, _TARGET.sub("", text))
        text = "\n\n".join(part for part in _cleaned(text) if part.strip())
        return _KEPT_SPAN.sub(lambda found: spans[int(found[1])] if int(found[1]) < len(spans) else "", text)

    def _words_of_link(self, found: re.Match[str]) -> str:
        name = " ".join((found[2] or found[1]).lower().split())
        return found[1] if name in self._targets else found[0]

    def _role(self, found: re.Match[str]) -> str:
        said = shown(found[1].lower(), found[2], places(self._file.root), self._file.path)
        return f"`{said.text}`" if said.code else said.text

    def _titled(self, found: re.Match[str]) -> str:
        target = (found[1] or found[2]).removeprefix("project:")
        known = places(self._file.root)
        page, mark, label = target.partition("#")
        if mark and not page:
            return known.title_of_label(label)
        return known.title_of_page(page, self._file.path) if "://" not in target else ""


def _pieces(lines: list[str]) -> Iterator[_Piece]:
    """Fences and boxes of a page, and the lines between them."""
    start = at = 0
    while at < len(lines):
        if (fence := _FENCE.match(lines[at])) and not ("`" in fence[3] and fence[2][0] == "`"):
            end = _end_of_fence(lines, at, fence[2])
            kind: Literal["fence", "colons"] = "colons" if fence[2][0] == ":" else "fence"
            piece = _Piece(kind, tuple(lines[at + 1 : end]), fence[3], fence[1])
            after = end + 1
        elif box := _BOX.match(lines[at]):
            indent = box[1] if box[2] else box[4]
            end = at + 1
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith(indent + "    ")):
                end += 1
            title = box[3] if box[3] is not None else REMARKS.get((box[2] or "").lower(), "")
            piece = _Piece("box", tuple(lines[at + 1 : end]), title if box[2] else box[5], indent)
            after = end
        else:
            at += 1
            continue
        yield _Piece("text", tuple(lines[start:at]))
        yield piece
        start = at = after
    yield _Piece("text", tuple(lines[start:]))


def _end_of_fence(lines: list[str], start: int, mark: str) -> int:
    """The line that closes a fence; colons nest, and the line that closes them says nothing else."""
    deeper = 0
    for number in range(start + 1, len(lines)):
        found = _FENCE.match(lines[number])
        if found is None or found[2][0] != mark[0]:
            continue
        if mark[0] == ":" and found[3]:
            deeper += len(found[2]) == len(mark)
        elif not found[3].strip() and len(found[2]) >= len(mark):
            if not deeper:
                return number
            deeper -= 1
    return len(lines)


def _options(inside: str) -> tuple[dict[str, str], str]:
    """The options at the head of a directive, and what follows them."""
    lines, options = inside.split("\n"), {}
    while lines and (found := _OPTION.match(lines[0])):
        options[found[1]] = found[2]
        lines.pop(0)
    if lines and lines[0] == "---" and "---" in lines[1:]:
        lines = lines[lines.index("---", 1) + 1 :]
    return options, "\n".join(lines).strip("\n")


def _cleaned(text: str) -> Iterator[str]:
    """Blocks between blank lines, without HTML, links and images; indented code stays as it is."""
    in_list = False
    for block in re.split(r"\n[ \t]*\n", text):
        lines = block.strip("\n").split("\n")
        if heading := _HEADING.match(lines[0]):
            yield f"{heading[1]} {clean(heading[2])}"
            lines = lines[1:]
            in_list = False
        elif len(lines) > 1 and lines[0].strip() and (ruled := _RULED.match(lines[1])):
            yield f"{'#' if ruled[1][0] == '=' else '##'} {clean(lines[0])}"
            lines = lines[2:]
            in_list = False
        if not lines or not lines[0].strip():
            continue
        indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
        in_list = _LIST_ITEM.match(lines[0]) is not None or (in_list and bool(indent))
        if len(indent) >= 4 and not in_list:
            yield "\n".join(lines)
        else:
            yield textwrap.indent(clean(textwrap.dedent("\n".join(lines))), indent)


def _properties(found: re.Match[str]) -> str:
    """A table of properties as a list, in which fields stand below what they are of."""
    rows = [(row.start() - found[1].rfind("\n", 0, row.start()), row) for row in _ROW.finditer(found[1])]
    columns = sorted({column for column, _ in rows})
    lines = (
        f"{'  ' * columns.index(column)}- `{row['name']}` ({row['type']}): {' '.join(row['told'].split())}"
        for column, row in rows
    )
    return "\n" + "\n".join(lines) + "\n"


def _labelled(label: str, said: str) -> str:
    label = f"{label.rstrip(':. ')}:"
    return f"{label} {said}" if re.match(r"\w", said) else f"{label}\n\n{said}"


def _fenced(text: str, language: str) -> str:
    if not text.strip():
        return ""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`{3,}", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
