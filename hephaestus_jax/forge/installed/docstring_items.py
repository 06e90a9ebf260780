"""The items of docstring sections: parameters, return values and errors in Google and NumPy style, reST field lists."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from docstring_parser import (
    DocstringMeta,
    DocstringParam,
    DocstringRaises,
    DocstringReturns,
    ParseError,
    numpydoc,
    rest,
)

from hephaestus_jax.forge.installed.schemas import schema_from_words
from hephaestus_jax.formats.records import ApiError

_FIELD = re.compile(
    r"\s*:(param|parameter|arg|argument|key|keyword|kwarg|type|returns?|rtype|yields?|raises?|except|exception)\b"
    r"[^:\n]*:(\s|$)"
)
_PARAM = re.compile(r"(?m)^:(?:kw)?param(?:eter)? ([^:(\n]+)(?:\(([^\n]*?)\))?:(?=\s|$)")
_NAME = r"`{0,2}(?:\\?\*){0,2}[A-Za-z_]\w*`{0,2}"
_NAMES = re.compile(
    rf"(?:[-*+•]\s+)?(\*\*(?=\w[^*]*\*\*)|['\"])?({_NAME}(?:(?:\s*[,/]\s*|\s+and\s+|\s+or\s+){_NAME})*)(\*\*|['\"])?"
)
_EXCEPTION = re.compile(
    r"(?:[-*+]\s+)?(?:(?:an?|the) )?(?::\w+:)?[`*~]{0,3}([A-Za-z_][\w.]*)[`*]{0,2}(?=$|[\s:,.(-])(.*)", re.S | re.I
)
_ROLE = re.compile(r":(?:py:)?(?:class|obj|func|meth|mod|data|ref|attr|exc):`~?([^`<]*?)(?:\s*<[^`>]*>)?`")


@dataclass(frozen=True)
class DocField:
    """One documented parameter, attribute or return value; `name` and `type` are "" where none is stated."""

    name: str
    type: str
    description: str


# --- Google items -----------------------------------------------------------------------------------------------------


def google_fields(body: str) -> tuple[str, list[DocField]]:
    """(prose before the first item, items) of a section of `name (type): description` items.

    Lines that begin no item continue the one before.
    """
    before: list[str] = []
    found: list[tuple[str, str, list[str]]] = []
    for line in textwrap.dedent(body).splitlines():
        item = _google_item(line) if line[:1].strip() else None
        if item:
            found.append((item[0], item[1], [item[2]]))
        elif found:
            found[-1][2].append(line)
        else:
            before.append(line)
    return "\n".join(before), _fields(found)


def _fields(items: Sequence[tuple[str, str, Sequence[str]]]) -> list[DocField]:
    return [DocField(name, stated, _item_text(body)) for names, stated, body in items for name in _split_names(names)]


def items_by_name(text: str, known: Collection[str]) -> tuple[str, list[DocField]]:
    """(prose, fields) of a text in which some lines begin items that name a known parameter.

    An item begins after a blank line, a colon or another item, or with a bullet; it goes on over the lines that are
    indented deeper and over those right below it that read as its continuation.
    """
    prose: list[str] = []
    items: list[tuple[str, str, list[str]]] = []
    indent: int | None = None  # of the item under way
    last = ""
    for line in text.splitlines():
        bare = line.strip()
        depth = len(line) - len(line.lstrip())
        may_begin = indent is not None or not last or last.endswith(":") or bare[:2] in ("* ", "- ")
        item = _google_item(bare) if may_begin else None
        names = _split_names(item[0]) if item else []
        if item and names and all(name in known for name in names):
            indent = depth
            items.append((item[0], item[1], [item[2]]))
        elif indent is not None and (not bare or depth > indent or (depth == indent and _continues(last, bare, depth))):
            items[-1][2].append(line if bare else "")
        else:
            indent = None
            prose.append(line)
        last = bare
    return "\n".join(prose), _fields(items)


def _continues(last: str, bare: str, depth: int) -> bool:
    """Whether a line goes on with the paragraph above it although it is not indented deeper than its first line."""
    return bool(last) and (depth > 0 or (bare[0].islower() and not last.endswith(".")))


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
    if not colon and bracket and not after.strip():
        return match[2], clean_type(type_name), ""
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
    text = re.sub(r"\[`~?([^`\]]+)`\]", r"\1", _ROLE.sub(r"\1", text))
    text = re.sub(r"[`]+|\*(?=optional)|(?<=optional)\*", "", text)
    text = re.sub(r"(?i)[,;(]?\s*\(?\b(optional|keyword[- ]only|required)\b\)?(?=\s*([,;)]|$))", "", text)
    text = re.sub(r"(?i)[,;]?\s*\(?\bdefaults?\b(\s+(to|is|value)\b|[\s:=]).*$", "", text)
    return " ".join(text.split()).strip(" ,;:")


def google_returns(body: str) -> list[DocField]:
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
    camel = re.fullmatch(r"([a-z_]\w*\.)*[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*", cleaned) is not None
    return (
        plain
        and (quoted or "[" in cleaned or "." in cleaned or camel)
        and cleaned not in ("Note", "Example", "Warning")
    )


def google_errors(body: str) -> list[ApiError]:
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


def numpy_fields(body: str) -> tuple[str, list[DocField]]:
    """(prose before the first item, items) of a section of `name : type` items with indented descriptions."""
    found: list[DocField] = []
    for item in _NUMPY_FIELDS.parse(_with_types_on_one_line(_from_first_item(body))):
        assert isinstance(item, DocstringParam)
        # the item as written: the parser has already cut a default out of the type
        written = item.args[1] or ""
        names = _split_names(written.replace(" ...", ""))
        plausible = names and len(written.split()) <= 2 * len(names)
        if plausible:
            type_name = clean_type(item.type_name or "")
            found.extend(DocField(name, type_name, item.description or "") for name in names)
        elif found:  # a paragraph that is not indented continues the item before it
            whole = f"{written}: {item.type_name}" if item.type_name else written
            text = "\n".join(filter(None, (found[-1].description, whole, item.description)))
            found[-1] = DocField(found[-1].name, found[-1].type, text)
        else:
            return google_fields(body)  # Google items under a NumPy heading
    return "", found


def _from_first_item(body: str) -> str:
    """The body with its first line at the margin: the library drops what is indented before the first item."""
    return body.lstrip()


def _with_types_on_one_line(body: str) -> str:
    """Joins an item that is broken inside a bracket, "x : {None, int,\\n Generator}, optional"; the library cannot."""
    lines: list[str] = []
    for line in body.splitlines():
        if lines and lines[-1][:1].strip() and line[:1] == " " and _open_brackets(lines[-1]) > 0:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return "\n".join(lines)


def _open_brackets(line: str) -> int:
    return sum((character in "([{") - (character in ")]}") for character in line)


def numpy_returns(body: str) -> list[DocField]:
    found = []
    for item in _NUMPY_RETURNS.parse(_from_first_item(body)):
        assert isinstance(item, DocstringReturns)
        name, type_name = item.return_name or "", item.type_name or ""
        if not item.description and len(type_name.split()) > 4:
            found.append(DocField(name, "", type_name))  # a sentence where the type should be
        elif not name and type_name.isidentifier() and not schema_from_words(type_name) and type_name.islower():
            found.append(DocField(type_name, "", item.description or ""))  # "out" alone names the value
        else:
            found.append(DocField(name.strip("`*"), clean_type(type_name), item.description or ""))
    return found


def numpy_errors(body: str) -> list[ApiError]:
    """The errors of a section that names one per line, descriptions indented; none when it begins with prose."""
    found: list[ApiError] = []
    for item in _NUMPY_ERRORS.parse(_from_first_item(body)):
        assert isinstance(item, DocstringRaises)
        match = _EXCEPTION.match(item.type_name or "")
        if match and (not match[2].strip() or _is_exception(match[1], match[2])):
            found.append(ApiError(match[1], "\n".join(filter(None, (match[2].lstrip(" :-"), item.description)))))
        elif not found:
            return []
        else:
            text = "\n".join(filter(None, (found[-1].description, item.type_name, item.description)))
            found[-1] = ApiError(found[-1].name, text)
    return found


# --- reST field lists -------------------------------------------------------------------------------------------------


def rest_fields(text: str) -> tuple[str, list[DocField], list[DocField], list[ApiError]]:
    """(prose, parameters, return values, errors) of a text with reST field lists in it."""
    parameters: list[DocField] = []
    returns: list[DocField] = []
    errors: list[ApiError] = []
    prose, listed = _split_field_lists(text)
    try:
        # the closing field keeps the library from dedenting a list whose every line but the first is indented
        parsed = rest.parse(f"{_PARAM.sub(_two_fields, listed)}\n:end:").meta if listed else []
    except ParseError:
        return text, [], [], []
    for item in parsed:
        match item:
            case DocstringParam(arg_name=names, type_name=type_name, description=description):
                stated = clean_type(type_name or "")
                fields = [DocField(name, stated, description or "") for name in _split_names(names)]
                parameters.extend(fields)
                if not fields:
                    prose += f"\n\n{names}: {description or ''}"
            case DocstringReturns(type_name=type_name, description=description):
                returns.append(DocField("", clean_type(type_name or ""), description or ""))
            case DocstringRaises(type_name=type_name, description=description):
                errors.append(ApiError(_ROLE.sub(r"\1", type_name or "Exception").strip("`"), description or ""))
            case DocstringMeta(args=words, description=description) if words != ["end"]:
                prose += f"\n\n:{' '.join(words)}: {description or ''}"
    return prose, parameters, returns, errors


def _two_fields(match: re.Match[str]) -> str:
    """Splits ":param name (type):" and ":param list of str name:" into :type: and :param: fields."""
    words, in_brackets = match[1].rstrip("` ").strip(), match[2]
    type_name, _, name = ("", "", words) if in_brackets else words.rpartition(" ")
    stated = in_brackets or type_name
    name = name.strip("`")
    return f":type {name}: {stated}\n:param {name}:" if stated and " " not in name else match[0]


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
