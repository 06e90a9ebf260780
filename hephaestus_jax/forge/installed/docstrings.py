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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from docstring_parser import DocstringParam, DocstringRaises, DocstringReturns, ParseError, numpydoc, rest

from hephaestus_jax.forge.installed.docstring_examples import extract_examples
from hephaestus_jax.forge.installed.schemas import schema_from_words
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

_UNDERLINE = re.compile(r"\s*([-=~^])\1{2,}\s*$")
_GOOGLE_HEADING = re.compile(r"( *)(?:#{1,6} |\*\*)?([A-Za-z][A-Za-z ]{1,20}?)(?:\*\*)?:{1,2}(?:\*\*)?\s*$")
_ONE_LINE = re.compile(r"(Returns?|Yields?|Raises):[ \t]+(\S.*)$")
_FENCE = re.compile(r"\s*(```+|~~~+)")
_FIELD = re.compile(
    r"\s*:(param|parameter|arg|argument|key|keyword|kwarg|type|returns?|rtype|yields?|raises?|except|exception)\b[^:\n]*:(\s|$)"
)
_NAME = r"`{0,2}(?:\\?\*){0,2}[A-Za-z_]\w*`{0,2}"
_NAMES = re.compile(rf"(?:[-*+•]\s+)?(\*\*(?=\w[^*]*\*\*)|['\"])?({_NAME}(?:(?:\s*[,/]\s*|\s+and\s+|\s+or\s+){_NAME})*)(\*\*|['\"])?")
_EXCEPTION = re.compile(r"(?:[-*+]\s+)?(?:(?:an?|the) )?(?::\w+:)?[`*~]{0,3}([A-Za-z_][\w.]*)[`*]{0,2}(?=$|[\s:,.(-])(.*)", re.S | re.I)
_ROLE = re.compile(r":(?:py:)?(?:class|obj|func|meth|mod|data|ref|attr|exc):`~?([^`<]*?)(?:\s*<[^`>]*>)?`")
_PLACEHOLDER = re.compile(r"(?m)^[ \t]*(%\(\w+\)s|\{\{?\w+\}?\}|@@\w+)[ \t]*$\n?")


@dataclass(frozen=True)
class DocField:
    """One documented parameter, attribute or return value; `name` and `type` are "" where none is stated."""

    name: str
    type: str
    description: str


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


def parse_docstring(text: str) -> ParsedDocstring:
    """Takes a docstring apart.

    Args:
        text: the docstring, cleaned as `inspect.cleandoc` does.
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
    if not (read.parameters or read.returns or read.errors):
        read.field_lists()
        if read.parameters or read.returns or read.errors:
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
                fields = _numpy_fields(section.body) if self.numpy else google_fields(section.body)
                (self.parameters if section.kind == "parameters" else self.attributes).extend(fields)
                understood = bool(fields)
            case "returns":
                self.returns.extend(_numpy_returns(section.body) if self.numpy else _google_returns(section.body))
                understood = True
            case "raises":
                errors = _numpy_errors(section.body) if self.numpy else _google_errors(section.body)
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

    def field_lists(self) -> None:
        """Moves reST field lists out of the prose."""
        kept = []
        for text in self.prose:
            left, fields = _split_field_lists(text)
            kept.append(left)
            try:
                parsed = rest.parse(fields) if fields else None
            except ParseError:
                kept[-1] = text
                continue
            for item in parsed.meta if parsed else ():
                self._field(item)
        self.prose = kept

    def _field(self, item: object) -> None:
        match item:
            case DocstringParam(arg_name=names, type_name=type_name, description=description):
                for name in _split_names(names):
                    self.parameters.append(DocField(name, clean_type(type_name or ""), description or ""))
            case DocstringReturns(type_name=type_name, description=description):
                self.returns.append(DocField("", clean_type(type_name or ""), description or ""))
            case DocstringRaises(type_name=type_name, description=description):
                self.errors.append(ApiError(_ROLE.sub(r"\1", type_name or "Exception").strip("`"), description or ""))


def _paragraphs(texts: Iterable[str]) -> str:
    joined = "\n\n".join(stripped for text in texts if (stripped := text.strip("\n").rstrip()))
    return re.sub(r"\n{3,}", "\n\n", joined).strip()


# --- sections ---------------------------------------------------------------------------------------------------------


def _numpy_sections(lines: Sequence[str]) -> Iterator[_Section]:
    """Sections whose title is underlined."""
    starts = [
        index
        for index, (title, under) in enumerate(zip(lines, lines[1:], strict=False))
        if title.strip() and len(title) < 60 and title[:1].strip() and _UNDERLINE.match(under) and not _UNDERLINE.match(title)
    ]
    yield _Section(None, "\n".join(lines[: starts[0] if starts else len(lines)]))
    for start, end in itertools.pairwise([*starts, len(lines)]):
        kind = _TITLES.get(lines[start].strip().rstrip(":").lower())
        yield _Section(kind, "\n".join(lines[start:end]), textwrap.dedent("\n".join(lines[start + 2 : end])).strip("\n"))


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
    return min((len(m[1]) for line in lines if (m := _GOOGLE_HEADING.match(line)) and m[2].lower() in _TITLES), default=0)


def _google_section_at(lines: Sequence[str], index: int, outer: int) -> tuple[_Section, int] | None:
    """The section that starts at a line and the index after it, None when none does."""
    heading = _GOOGLE_HEADING.match(lines[index])
    if heading and len(heading[1]) == outer and heading[2].lower() in _TITLES:
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
    end = start
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
        end += 1
    return end


def _end_of_paragraph(lines: Sequence[str], start: int) -> int:
    end = start
    while end < len(lines) and lines[end].strip() and not _GOOGLE_HEADING.match(lines[end]) and not _ONE_LINE.match(lines[end]):
        end += 1
    return end


def _end_of_examples(lines: Sequence[str], start: int) -> int:
    """Examples are often not indented: they reach over the fence or the prompts that follow the title."""
    end = next((i for i in range(start, len(lines)) if lines[i].strip()), len(lines))
    if end < len(lines) and (fence := _FENCE.match(lines[end])):
        return next((i + 1 for i in range(end + 1, len(lines)) if lines[i].strip() == fence[1]), len(lines))
    if end < len(lines) and lines[end].startswith(">>>"):
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith((">>>", "...")) or lines[end - 1].strip()):
            end += 1
        return end
    return start


# --- Google items -----------------------------------------------------------------------------------------------------


def google_fields(body: str) -> list[DocField]:
    """`name (type): description` items; lines that start none continue the one before.

    Items stand at the smallest indentation at which a line reads as one.
    """
    found: list[tuple[str, str, list[str]]] = []
    for line in textwrap.dedent(body).splitlines():
        item = _google_item(line) if line[:1].strip() else None
        if item:
            found.append((item[0], item[1], [item[2]]))
        elif found:
            found[-1][2].append(line)
        elif line.strip():
            return []  # begins with prose: the section is no list of parameters
    return [
        DocField(name, type_name, _item_text(lines)) for names, type_name, lines in found for name in _split_names(names)
    ]


def _google_item(line: str) -> tuple[str, str, str] | None:
    """(names, type, start of the description) of a line that begins an item."""
    match = _NAMES.match(line)
    if not match:
        return None
    after = line[match.end() :]
    type_name = ""
    bracket = re.match(r"\s*[(\[]", after)
    if bracket:
        end = _closing(after, bracket.end() - 1)
        if end is None:
            return None
        type_name, after = after[bracket.end() : end], after[end + 1 :]
    colon = re.match(r"\s*:{1,2}(?:\s+|$)", after) or re.match(r"\s+(?:--?|–|—)\s+", after)
    if not colon:
        return None
    return match[2], clean_type(type_name), after[colon.end() :]


def _closing(text: str, start: int) -> int | None:
    """The index of the bracket that closes the one at `start`."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] in "([{") - (text[index] in ")]}")
        if depth == 0:
            return index
    return None


def _item_text(lines: Sequence[str]) -> str:
    return "\n".join([lines[0].strip(), textwrap.dedent("\n".join(lines[1:]))]).strip()


def _split_names(names: str) -> list[str]:
    """The parameters that share one description, without markup; "*args" becomes "args"."""
    found = (re.sub(r"[`*\\'\"]", "", name).strip() for name in re.split(r"\s*[,/]\s*|\s+and\s+|\s+or\s+", names))
    return [name for name in found if name.isidentifier()]


def clean_type(text: str) -> str:
    """A stated type without markup, "optional" and its default."""
    text = _ROLE.sub(r"\1", text)
    text = re.sub(r"[`]+|\*(?=optional)|(?<=optional)\*", "", text)
    text = re.sub(r"(?i)[,;(]?\s*\(?\b(optional|keyword[- ]only|required)\b\)?(?=\s*([,;)]|$))", "", text)
    text = re.sub(r"(?i)[,;]?\s*\(?\bdefaults?\b(\s+(to|is|value)\b|[\s:=]).*$", "", text)
    return " ".join(text.split()).strip(" ,;:")


def _google_returns(body: str) -> list[DocField]:
    """One field: `type: description` where the words before the colon are a type, else description alone."""
    first, _, following = body.partition("\n")
    head, colon, tail = first.partition(": ") if ": " in first else (first.removesuffix(":"), first[-1:], "")
    type_name = clean_type(head.removeprefix("(").removesuffix(")"))
    if colon.startswith(":") and _is_type(head.strip(), type_name):
        return [DocField("", type_name, _item_text([tail, following]))]
    return [DocField("", "", body.strip())]


def _is_type(written: str, cleaned: str) -> bool:
    """Whether the words before a colon state a type rather than begin a sentence or name a value."""
    if not cleaned or len(cleaned) > 120:
        return False
    if schema_from_words(cleaned) and len(cleaned.split()) <= 4:
        return True
    quoted = written.startswith(("`", ":class:", ":obj:")) and " " not in written.strip("`")
    plain = re.fullmatch(r"[A-Za-z_][\w.]*(\[.*\])?", cleaned) is not None
    camel = re.fullmatch(r"([a-z_]\w*\.)*[A-Z]\w*[a-z]\w*", cleaned) is not None
    return plain and (quoted or "[" in cleaned or "." in cleaned or camel) and cleaned not in ("Note", "Example", "Warning")


def _google_errors(body: str) -> list[ApiError]:
    found: list[tuple[str, list[str]]] = []
    for line in textwrap.dedent(body).splitlines():
        match = _EXCEPTION.match(line) if line[:1].strip() else None
        if match and _is_exception(match[1], match[2]):
            found.append((match[1], [match[2].lstrip(" :-,")]))
        elif found:
            found[-1][1].append(line)
        elif line.strip():
            return []
    return [ApiError(name, _item_text(lines)) for name, lines in found]


def _is_exception(name: str, after: str) -> bool:
    last = name.rpartition(".")[2]
    if last.endswith(("Error", "Exception", "Warning", "Exit", "Interrupt", "Iteration")):
        return True
    return last[:1].isupper() and last not in ("If", "When", "The", "Raises", "Note") and after.lstrip().startswith(":")


# --- NumPy items ------------------------------------------------------------------------------------------------------

_NUMPY_FIELDS = numpydoc.ParamSection("Parameters", "param")
_NUMPY_RETURNS = numpydoc.ReturnsSection("Returns", "returns")
_NUMPY_ERRORS = numpydoc.RaisesSection("Raises", "raises")


def _numpy_fields(body: str) -> list[DocField]:
    found: list[DocField] = []
    for item in _NUMPY_FIELDS.parse(body):
        assert isinstance(item, DocstringParam)
        # the item as written: the parser has already cut a default out of the type
        written = item.args[1] or ""
        names = _split_names(written.replace(" ...", ""))
        plausible = names and len(written.split()) <= 2 * len(names)
        if plausible:
            type_name = clean_type(item.type_name or "")
            found.extend(DocField(name, type_name, item.description or "") for name in names)
        elif found:  # a paragraph that is not indented continues the item before it
            text = "\n".join(filter(None, (found[-1].description, written, item.description)))
            found[-1] = DocField(found[-1].name, found[-1].type, text)
        else:
            return google_fields(body)  # Google items under a NumPy heading
    return found


def _numpy_returns(body: str) -> list[DocField]:
    found = []
    for item in _NUMPY_RETURNS.parse(body):
        assert isinstance(item, DocstringReturns)
        name, type_name = item.return_name or "", item.type_name or ""
        if not name and not item.description and len(type_name.split()) > 4:
            found.append(DocField("", "", type_name))  # a sentence where the type should be
        elif not name and type_name.isidentifier() and not schema_from_words(type_name) and type_name.islower():
            found.append(DocField(type_name, "", item.description or ""))  # "out" alone names the value
        else:
            found.append(DocField(name.strip("`*"), clean_type(type_name), item.description or ""))
    return found


def _numpy_errors(body: str) -> list[ApiError]:
    found = []
    for item in _NUMPY_ERRORS.parse(body):
        assert isinstance(item, DocstringRaises)
        match = _EXCEPTION.match(item.type_name or "")
        if match and _is_exception(match[1], match[2] or ":"):
            description = " ".join(filter(None, (match[2].lstrip(" :-"), item.description)))
            found.append(ApiError(match[1], description))
        elif found:
            last = found[-1]
            text = "\n".join(filter(None, (last.description, item.type_name, item.description)))
            found[-1] = ApiError(last.name, text)
    return found


# --- reST field lists -------------------------------------------------------------------------------------------------


def _split_field_lists(text: str) -> tuple[str, str]:
    """(prose, field lists): a list reaches to the first line after a blank one that is neither indented nor a field."""
    prose: list[str] = []
    fields: list[str] = []
    inside, indent = False, 0
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        if _FIELD.match(line) and (not inside or depth <= indent):
            inside, indent = True, depth
        elif inside and line.strip() and depth <= indent and (not fields[-1].strip() or not line.strip()):
            inside = False
        if inside:
            fields.append(line[indent:] if depth >= indent else line.lstrip().rjust(len(line) + 1))
        else:
            prose.append(line)
    return "\n".join(prose), "\n".join(fields)
