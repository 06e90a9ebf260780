"""Examples inside docstrings: doctests anywhere, code blocks in sections of examples."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from hephaestus_jax.formats.records import ApiExample

_PROMPT = re.compile(r"(\s*)>>>(?: (.*)|\s*)$")
_CONTINUED = re.compile(r"\s*\.\.\.(?: (.*)|\s*)$")
_DOCTEST_OPTION = re.compile(r"\s*#\s*doctest:.*$")
_FENCE = re.compile(r"\s*(```+|~~~+)[^`]*$")
_CODE_DIRECTIVE = re.compile(r"\s*\.\. (code-block|code|sourcecode|testcode|ipython)::")
_DOCTEST_DIRECTIVE = re.compile(r"\s*\.\. (doctest|testsetup|plot|try_examples)::.*$")
_SAYS_NOTHING = re.compile(
    r"(?i)(for (example|instance)|(simple |basic |example )?usages?( examples?)?|examples?|e\.g\.)$"
)


@dataclass(frozen=True)
class _Prose:
    text: str


@dataclass(frozen=True)
class _Code:
    """A statement with the output it prints; `continues` is whether the next one can belong to the same example."""

    source: str
    output: str = ""
    continues: bool = False


def extract_examples(text: str, section: bool = False) -> tuple[str, tuple[ApiExample, ...]]:
    """Takes the examples out of a docstring or one of its sections.

    Statements that print nothing belong to the next one that does: together they are one example. The intent of an
    example is the prose that introduces it.

    Args:
        text: what to look in.
        section: whether it is a section of examples. Then code blocks without prompts are examples too, and all prose
            before an example introduces it; elsewhere only a paragraph that ends with a colon does.

    Returns:
        The prose that is left, and the examples in order.
    """
    if ">>>" not in text and not section:
        return text, ()
    examples: list[ApiExample] = []
    left: list[str] = []
    before, intent = "", None
    pending: list[str] = []  # statements of the example under way

    def finish(result: str | None = None) -> None:
        examples.append(ApiExample(call="\n".join(pending), result=result, intent=intent))
        pending.clear()

    for piece in _pieces(text.splitlines(), section):
        if isinstance(piece, _Prose):
            if piece.text.strip() and pending and not _only_imports(pending):
                finish()
            if not pending or before or piece.text.strip():
                before += piece.text
            continue
        if before.strip() or not pending:
            kept, introduction = _introduction(before, section, summary=not left)
            intent = "\n\n".join(filter(None, (intent if pending else None, introduction))) or None
            left.append(kept)
            before = ""
        pending.append(piece.source)
        if piece.output or not piece.continues:
            finish(piece.output or None)
    if pending:
        finish()
    return _tidy("\n".join([*left, before])), tuple(examples)


def _only_imports(statements: list[str]) -> bool:
    """Imports alone show nothing; they belong to the example that uses them, whatever prose stands between."""
    return all(statement.startswith(("import ", "from ")) for statement in statements)


def _introduction(text: str, section: bool, summary: bool) -> tuple[str, str | None]:
    """(prose that stays, prose that introduces the example that follows it).

    Text that begins with the summary of the docstring keeps its first paragraph.
    """
    if section:
        kept, intent = "", text
    else:
        kept, _, intent = text.rstrip().rpartition("\n\n")
        if not intent.endswith(":") or (summary and not kept):
            return text, None
    intent = "\n\n".join(" ".join(part.split()) for part in intent.strip().rstrip(":").split("\n\n"))
    return kept, None if not intent or _SAYS_NOTHING.match(intent) else intent


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _pieces(lines: list[str], section: bool) -> Iterator[_Prose | _Code]:
    index = 0
    while index < len(lines):
        line = lines[index]
        if _PROMPT.match(line):
            index, code = _doctest(lines, index)
            if code.source:  # a prompt alone only sets statements apart
                yield code
        elif fence := _FENCE.match(line):
            end = next((i for i in range(index + 1, len(lines)) if lines[i].strip() == fence[1]), len(lines))
            inner = lines[index + 1 : end]
            if any(map(_PROMPT.match, inner)):
                yield from _pieces(inner, section)
            elif section and inner:
                yield _Code(_dedent(inner))
            else:
                yield _Prose("\n".join(lines[index : end + 1]) + "\n")
            index = end + 1
        elif (
            section
            and (_CODE_DIRECTIVE.match(line) or line.rstrip().endswith("::"))
            and not _DOCTEST_DIRECTIVE.match(line)
        ):
            end, inner = _indented_block(lines, index)
            if not _CODE_DIRECTIVE.match(line):
                yield _Prose(line.rstrip().removesuffix(":") + "\n")
            if any(map(_PROMPT.match, inner)):
                yield from _pieces(inner, section)
            elif inner:
                yield _Code(_dedent(inner))
            index = end
        else:
            if not _DOCTEST_DIRECTIVE.match(line):
                yield _Prose(line + "\n")
            index += 1


def _doctest(lines: list[str], index: int) -> tuple[int, _Code]:
    """One statement at the prompt and the output under it; the index after both."""
    prompt = _PROMPT.match(lines[index])
    assert prompt is not None
    indent = len(prompt[1])
    source = [prompt[2] or ""]
    index += 1
    while index < len(lines) and (continued := _CONTINUED.match(lines[index])):
        source.append(continued[1] or "")
        index += 1
    output = []
    while index < len(lines) and lines[index].strip() and not _PROMPT.match(lines[index]):
        if len(lines[index]) - len(lines[index].lstrip()) < indent or _FENCE.match(lines[index]):
            break
        output.append("" if lines[index].strip() == "<BLANKLINE>" else lines[index][indent:].rstrip())
        index += 1
    cleaned = "\n".join(_DOCTEST_OPTION.sub("", line).rstrip() for line in source)
    return index, _Code(cleaned.strip("\n"), "\n".join(output), continues=True)


def _indented_block(lines: list[str], index: int) -> tuple[int, list[str]]:
    """The lines under `lines[index]` that are indented deeper; the index after them. Directive options are left out."""
    indent = len(lines[index]) - len(lines[index].lstrip())
    end = index + 1
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
        end += 1
    inner = [line for line in lines[index + 1 : end] if not re.match(r"\s*:[\w-]+:", line)]
    return end, inner if any(line.strip() for line in inner) else []


def _dedent(lines: list[str]) -> str:
    return textwrap.dedent("\n".join(lines)).strip("\n")
