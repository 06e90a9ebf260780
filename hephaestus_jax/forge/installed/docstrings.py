"""Docstrings in Google, NumPy and reST style, taken apart: description, parameters, returns, errors, examples.

`docstring_parser` reads the items of NumPy sections and reST field lists. Finding the sections is done here, and so
are Google items: on docstrings of JAX, Keras and Optax the library loses every paragraph that follows a section (about
half of them have one) and refuses a whole docstring for one line without a colon (3 %). Text that no section explains
stays in the description, so nothing is lost.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hephaestus_jax.forge.installed.docstring_examples import extract_examples
from hephaestus_jax.forge.installed.docstring_items import (
    DocField,
    google_errors,
    google_fields,
    google_returns,
    items_by_name,
    numpy_errors,
    numpy_fields,
    numpy_returns,
    rest_fields,
)
from hephaestus_jax.formats.records import ApiError, ApiExample

Kind = Literal["parameters", "attributes", "returns", "raises", "examples"]
Style = Literal["google", "numpy", "rest", "plain"]

_TITLES: dict[str, Kind] = {
    **dict.fromkeys(
        ("args", "arguments", "parameters", "params", "parameter", "keyword args", "keyword arguments",
         "keyword parameters", "other parameters", "other args", "other arguments", "optional arguments",
         "init args", "constructor args", "arg"), "parameters"),
    **dict.fromkeys(("attributes", "fields"), "attributes"),
    **dict.fromkeys(("returns", "return", "return value", "yields", "yield", "return values"), "returns"),
    **dict.fromkeys(("raises", "raise", "exceptions", "throws"), "raises"),
    **dict.fromkeys(
        ("example", "examples", "usage", "example usage", "usage example", "usage examples", "simple usage",
         "basic usage", "examples of usage", "standalone usage"), "examples"),
}  # fmt: skip

# Of the numpydoc standard; what they hold stays in the description.
_OTHER_NUMPY_TITLES = {"methods", "notes", "receives", "references", "see also", "warnings", "warns"}

_UNDERLINE = re.compile(r"\s*([-=~^])\1{2,}\s*$")
_GOOGLE_HEADING = re.compile(r"( *)(?:#{1,6} |\*\*)?([A-Za-z][A-Za-z ]{1,20}?)(?:\*\*)?:{1,2}(?:\*\*)?\s*$")
_ONE_LINE = re.compile(r"(Returns?|Yields?|Raises):[ \t]+(\S.*)$")
_FENCE = re.compile(r"\s*(```+|~~~+)[^`]*$")
_PLACEHOLDER = re.compile(r"(?m)^[ \t]*(%\(\w+\)s|\$?\{\{?\w+\}?\}|@@\w+)[ \t]*$\n?")


@dataclass(frozen=True)
class ParsedDocstring:
    """A docstring taken apart. `description` is everything that is in none of the other fields, in order."""

    description: str
    parameters: tuple[DocField, ...] = ()
    attributes: tuple[DocField, ...] = ()
    returns: tuple[DocField, ...] = ()
    errors: tuple[ApiError, ...] = ()
    examples: tuple[ApiExample, ...] = ()
    style: Style = "plain"


@dataclass(frozen=True)
class _Section:
    """A stretch of a docstring; `kind` None is prose, and then `text` is all of it."""

    kind: Kind | None
    text: str  # as written, heading included
    body: str = ""


def parse_docstring(text: str, known: Collection[str] = ()) -> ParsedDocstring:
    """Takes a docstring apart.

    Args:
        text: the docstring, cleaned as `inspect.cleandoc` does.
        known: the parameters of the signature. An item that names one is its documentation even without a heading.
    """
    text = _PLACEHOLDER.sub("", text)  # filled in when the module is imported, which never happens here
    sections = list(_numpy_sections(text.splitlines()))
    style: Style = "numpy"
    if not any(section.kind for section in sections):
        sections, style = list(_google_sections(text.splitlines())), "google"
    if not any(section.kind for section in sections):
        style = "plain"
    read = _Reader(numpy=style == "numpy")
    for section in sections:
        read.section(section)
    if style != "numpy" and known:
        read.items_without_heading({*known} - {field.name for field in (*read.parameters, *read.attributes)})
    if not read.parameters and style != "numpy":
        found = len(read.returns) + len(read.errors)
        read.field_lists()
        if read.parameters or len(read.returns) + len(read.errors) > found:
            style = "rest"
    return ParsedDocstring(
        description=_paragraphs(read.prose),
        parameters=tuple(read.parameters),
        attributes=tuple(read.attributes),
        returns=tuple(read.returns),
        errors=tuple(read.errors),
        examples=tuple(read.examples),
        style=style,
    )


class _Reader:
    """Collects what the sections of one docstring hold."""

    def __init__(self, numpy: bool) -> None:
        self.numpy = numpy
        self.prose: list[str] = []
        self.parameters: list[DocField] = []
        self.attributes: list[DocField] = []
        self.returns: list[DocField] = []
        self.errors: list[ApiError] = []
        self.examples: list[ApiExample] = []

    def section(self, section: _Section) -> None:
        """Reads one section; what it cannot explain goes to the prose as it was written."""
        match section.kind:
            case "parameters" | "attributes":
                before, fields = numpy_fields(section.body) if self.numpy else google_fields(section.body)
                (self.parameters if section.kind == "parameters" else self.attributes).extend(fields)
                understood = bool(fields)
                if understood and before:
                    self.prose.append(before)
            case "returns":
                self.returns.extend(numpy_returns(section.body) if self.numpy else google_returns(section.body))
                understood = True
            case "raises":
                errors = numpy_errors(section.body) if self.numpy else google_errors(section.body)
                self.errors.extend(errors)
                understood = bool(errors)
            case "examples":
                left, examples = extract_examples(section.body, section=True)
                self.examples.extend(examples)
                understood = bool(examples)
                if understood and left:
                    self.prose.append(textwrap.dedent(left))
            case None:
                understood = False
        if not understood:
            left, examples = extract_examples(section.text)
            self.prose.append(left)
            self.examples.extend(examples)

    def items_without_heading(self, known: set[str]) -> None:
        """Moves `name: description` items that name a parameter out of the prose."""
        kept = []
        for text in self.prose:
            left, fields = items_by_name(text, known)
            kept.append(left)
            self.parameters.extend(fields)
        self.prose = kept

    def field_lists(self) -> None:
        """Moves reST field lists out of the prose."""
        kept = []
        for text in self.prose:
            left, parameters, returns, errors = rest_fields(text)
            kept.append(left)
            self.parameters.extend(parameters)
            self.returns.extend(returns)
            self.errors.extend(errors)
        self.prose = kept


def _paragraphs(texts: Iterable[str]) -> str:
    joined = "\n\n".join(stripped for text in texts if (stripped := text.strip("\n").rstrip()))
    return re.sub(r"\n{3,}", "\n\n", joined).strip()


# --- sections ---------------------------------------------------------------------------------------------------------


def _numpy_sections(lines: Sequence[str]) -> Iterator[_Section]:
    """Sections whose title is underlined."""
    starts = [
        index
        for index, (title, under) in enumerate(itertools.pairwise(lines))
        if title.strip()
        and len(title) < 60
        and title[:1].strip()
        and _UNDERLINE.match(under)
        and not _UNDERLINE.match(title)
    ]
    yield _Section(None, "\n".join(lines[: starts[0] if starts else len(lines)]))
    for start, end in itertools.pairwise([*starts, len(lines)]):
        title = lines[start].strip().rstrip(":").lower()
        body = textwrap.dedent("\n".join(lines[start + 2 : end])).strip("\n")
        # a section with nothing in it says nothing, but any line of prose may happen to be underlined
        if body.strip() or title not in _TITLES.keys() | _OTHER_NUMPY_TITLES:
            yield _Section(_TITLES.get(title), "\n".join(lines[start:end]), body)


def _google_sections(lines: Sequence[str]) -> Iterator[_Section]:
    """Sections whose title ends with a colon and whose body is indented under it."""
    outer = _heading_indent(lines)
    prose: list[str] = []
    index, fence = 0, ""
    while index < len(lines):
        line = lines[index]
        found = None if fence else _google_section_at(lines, index, outer)
        if found is None:
            if marker := _FENCE.match(line):
                fence = "" if fence == marker[1] else fence or marker[1]
            prose.append(line)
            index += 1
            continue
        section, index = found
        yield _Section(None, "\n".join(prose))
        prose = []
        yield section
    yield _Section(None, "\n".join(prose))


def _heading_indent(lines: Sequence[str]) -> int:
    """The indentation of the outermost headings; deeper ones belong to the text of a section."""
    return min(
        (len(m[1]) for line in lines if (m := _GOOGLE_HEADING.match(line)) and m[2].lower() in _TITLES), default=0
    )


def _google_section_at(lines: Sequence[str], index: int, outer: int) -> tuple[_Section, int] | None:
    """The section that starts at a line and the index after it, None when none does."""
    heading = _GOOGLE_HEADING.match(lines[index])
    # one more space is a slip: " Returns:" after "Args:"
    if heading and len(heading[1]) - outer in (0, 1) and heading[2].lower() in _TITLES:
        kind = _TITLES[heading[2].lower()]
        end = _end_of_body(lines, index + 1, outer)
        if not any(line.strip() for line in lines[index + 1 : end]):
            # a body that is not indented reaches to the next blank line
            flat = kind == "examples" or index + 1 >= len(lines) or not lines[index + 1].strip()
            end = _end_of_examples(lines, index + 1) if flat and kind == "examples" else end
            end = end if flat else _end_of_paragraph(lines, index + 1)
        body = textwrap.dedent("\n".join(lines[index + 1 : end])).strip("\n")
        if body.strip():
            return _Section(kind, "\n".join(lines[index:end]), body), end
        return None
    one_line = _ONE_LINE.match(lines[index])
    if one_line:
        end = _end_of_paragraph(lines, index + 1)
        rest_of_it = textwrap.dedent("\n".join(lines[index + 1 : end]))
        body = f"{one_line[2]}\n{rest_of_it}".strip("\n")
        return _Section(_TITLES[one_line[1].lower()], "\n".join(lines[index:end]), body), end
    return None


def _end_of_body(lines: Sequence[str], start: int, indent: int) -> int:
    first = next((_depth(line) for line in lines[start:] if line.strip()), 0)
    end = start
    while end < len(lines) and (not lines[end].strip() or _depth(lines[end]) > indent):
        if lines[end].strip() and _depth(lines[end]) < first and _is_heading(lines[end]):
            break
        end += 1
    return end


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_heading(line: str) -> bool:
    heading = _GOOGLE_HEADING.match(line)
    return heading is not None and heading[2].lower() in _TITLES


def _end_of_paragraph(lines: Sequence[str], start: int) -> int:
    end = start
    while (
        end < len(lines)
        and lines[end].strip()
        and not _GOOGLE_HEADING.match(lines[end])
        and not _ONE_LINE.match(lines[end])
    ):
        end += 1
    return end


def _end_of_examples(lines: Sequence[str], start: int) -> int:
    """Examples are often not indented: they reach over the fence or the prompts that follow the title."""
    end = next((i for i in range(start, len(lines)) if lines[i].strip()), len(lines))
    if end < len(lines) and (fence := _FENCE.match(lines[end])):
        return next((i + 1 for i in range(end + 1, len(lines)) if lines[i].strip() == fence[1]), len(lines))
    if end < len(lines) and lines[end].startswith(">>>"):
        while end < len(lines) and (
            not lines[end].strip() or lines[end].startswith((">>>", "...")) or lines[end - 1].strip()
        ):
            end += 1
        return end
    return start
