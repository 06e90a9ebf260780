"""Docstrings to ordered examples: what to run, what should come back, and which sentence introduces it."""

from __future__ import annotations

import ast
import builtins
import doctest
import re
from dataclasses import dataclass

from hephaestus_jax.formats.records import Provenance

MAX_DOCSTRING = 200_000  # characters; longer ones are refused rather than parsed
MAX_PARAGRAPH = 2_000  # characters looked at for an intent
# Directives that projects add to doctest's own; unknown ones would make the parser refuse the whole docstring.
_FLAGS = {
    name: doctest.register_optionflag(name)
    for name in (
        "ALLOW_BYTES",
        "ALLOW_UNICODE",
        "FLOAT_CMP",
        "IGNORE_OUTPUT",
        "IGNORE_RESULT",
        "IGNORE_WARNINGS",
        "IGNORE_WHITESPACE",
        "NUMBER",
        "REMOTE_DATA",
    )
}
_UNCHECKED = _FLAGS["IGNORE_OUTPUT"] | _FLAGS["IGNORE_RESULT"]
_SKIPPED = doctest.SKIP | _FLAGS["REMOTE_DATA"]
_DEFAULTS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_VARIES = re.compile(r"#\s*(may vary|random|output varies)\b", re.IGNORECASE)  # the scientific packages' convention
_UNDERLINE = re.compile(r"^[=\-~^*#]{3,}$")
_ROLE = re.compile(r":[a-z:]+:`~?([^`<]*?)(?:\s*<[^>]*>)?`")
_HEADING = re.compile(r"^(examples?|usage|example usage|e\.g\.)\s*:*$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'(\[])")
_FENCE = re.compile(r"^ *(?:```|~~~)\w*$", re.MULTILINE)
_BUILTINS = frozenset(dir(builtins))


@dataclass(frozen=True)
class DoctestJob:
    """The docstring of one API, to be executed.

    `module` is the module that defines it; `aliases` are the other dotted names it is exported under.
    """

    api_name: str
    aliases: tuple[str, ...]
    module: str
    docstring: str
    provenance: Provenance


@dataclass(frozen=True)
class DocExample:
    """One example: `source` to run, the documented output `want`, `error` if it documents an exception.

    `flags` are doctest's option flags; `checked` is False where the documentation says that its output may vary;
    `intent` is the sentence right before the example, "" where there is none.
    """

    source: str
    want: str
    error: str | None
    flags: int
    checked: bool
    skipped: bool
    intent: str


def extract_examples(docstring: str) -> tuple[DocExample, ...]:
    """The examples of a docstring, in order; those marked `+SKIP` are included and say so.

    Raises:
        ValueError: the docstring is malformed in doctest's eyes (inconsistent indentation, unknown directive) or
            longer than `MAX_DOCSTRING` characters.
    """
    if ">>>" not in docstring:
        return ()
    if len(docstring) > MAX_DOCSTRING:
        raise ValueError(f"docstring of {len(docstring):,} characters; at most {MAX_DOCSTRING:,} are parsed")
    examples = []
    prose = ""
    # the line that closes a fence would be taken for output
    for piece in doctest.DocTestParser().parse(_FENCE.sub("", docstring.expandtabs())):
        if isinstance(piece, str):
            prose += piece
        else:
            examples.append(_example(piece, intent_of(prose)))
            prose = ""
    return tuple(examples)


def _example(example: doctest.Example, intent: str) -> DocExample:
    flags = _DEFAULTS
    for flag, wanted in example.options.items():
        flags = flags | flag if wanted else flags & ~flag
    checked = not (flags & _UNCHECKED or _VARIES.search(example.want) or _VARIES.search(example.source))
    skipped = bool(flags & _SKIPPED)
    return DocExample(example.source, example.want, example.exc_msg, flags, checked, skipped, intent)


def intent_of(prose: str) -> str:
    """The last sentence of the last paragraph of `prose`, markup removed; "" if that is a heading or nothing."""
    paragraph: list[str] = []
    for line in reversed(prose.rstrip()[-MAX_PARAGRAPH:].splitlines()):
        text = line.strip()
        if not text:
            break
        paragraph.insert(0, text)
    paragraph = [line for line in paragraph if not line.startswith((".. ", "```", ":"))]
    if not paragraph or any(_UNDERLINE.match(line) for line in paragraph):
        return ""
    text = _ROLE.sub(r"`\1`", " ".join(paragraph))
    text = re.sub(r"``([^`]*)``", r"`\1`", text)
    text = re.sub(r"\s*:{2,}$", ":", text).strip()
    if _HEADING.match(text) or not re.search(r"[^\W\d_]{2,}", text):
        return ""
    return _SENTENCE_END.split(text)[-1].removeprefix("- ").removeprefix("* ")


def parse_source(source: str) -> ast.Module:
    """The syntax tree of `source`; an empty one where it does not parse."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module(body=[], type_ignores=[])


def shows_something(example: DocExample) -> bool:
    """Whether anything can come of running it: documented output or error, or an expression, which prints its value.

    Models of full size are built in many a docstring only to be given a name; that costs seconds and tells nothing.
    """
    if example.want or example.error:
        return True
    return any(isinstance(node, ast.Expr) for node in ast.walk(parse_source(example.source)))


@dataclass(frozen=True)
class Names:
    """The names a piece of source reads from outside itself, in order, and those it binds."""

    reads: tuple[str, ...]
    binds: frozenset[str]


def names_in(source: str) -> Names:
    """The free and the bound names of `source`; none of either where it does not parse.

    Scopes are not told apart (a comprehension's variable counts as bound): the result is used to find what must have
    run before, for which this errs on the harmless side.
    """
    tree = parse_source(source)
    reads: dict[str, None] = {}
    binds: set[str] = set()
    inner: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                reads[node.id] = None
            else:
                binds.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            binds.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            binds.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.arg):
            inner.add(node.arg)
        elif isinstance(node, ast.comprehension):
            inner.update(name.id for name in ast.walk(node.target) if isinstance(name, ast.Name))
    return Names(tuple(name for name in reads if name not in inner), frozenset(binds - inner))


def free_names(sources: list[str]) -> tuple[str, ...]:
    """The names that `sources`, run in order, expect to exist beforehand; built-in names left out."""
    bound = set(_BUILTINS)
    free: dict[str, None] = {}
    for source in sources:
        names = names_in(source)
        bound |= names.binds  # at once: `for i in x: print(i)` and recursive functions read what they bind
        free.update((name, None) for name in names.reads if name not in bound)
    return tuple(free)
