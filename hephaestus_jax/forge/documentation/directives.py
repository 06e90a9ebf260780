"""The directives of documentation systems for `docutils`: what a reader of the page would see of them.

Directives that nobody lists here describe an object (`.. confval:: name`, `.. c:function:: int f(void)`): what they
name is shown as code above what they say of it. Pages are never asked of the code that they document.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList

from hephaestus_jax.forge.documentation.places import included, text_of
from hephaestus_jax.forge.sources.source import SourceFile

MOST_INCLUDED = 100  # files in one page
LONGEST_LISTING = 20_000  # characters of a file that is shown as code

UNSEEN = frozenset(re.findall(r"[\w-]+", """
    acks bibliography blockdiag button-link button-ref carousel cfgcode contents digraph footbibliography footer
    graphviz header highlight image image-sg index inheritance-diagram kroki mermaid meta minigallery nwdiag plantuml
    program-output raw rst-class seqdiag tabularcolumns testcleanup testsetup title toctree todo uml video youtube
"""))  # fmt: skip
REMARKS = {
    "note": "Note", "tip": "Tip", "hint": "Hint", "warning": "Warning", "danger": "Danger", "error": "Error",
    "important": "Important", "attention": "Attention", "caution": "Caution", "seealso": "See also",
    "hazmat": "Warning", "legacy": "Legacy", "end-note": "Note",
}  # fmt: skip
_VERSIONS = {
    "versionadded": "New in version", "version-added": "New in version",
    "versionchanged": "Changed in version", "version-changed": "Changed in version",
    "deprecated": "Deprecated since version", "version-deprecated": "Deprecated since version",
    "versionremoved": "Removed in version", "version-removed": "Removed in version",
}  # fmt: skip
CODE = {
    "code": "", "code-block": "", "sourcecode": "", "parsed-literal": "", "literal": "", "prompt": "", "console":
    "console", "ipython": "python", "plot": "python", "doctest": "python", "testcode": "python", "testoutput": "",
    "jupyter-execute": "python", "jupyter-input": "python", "doctest-requires": "python", "doctest-skip": "python",
    "doctest-skip-all": "python", "productionlist": "", "code-tab": "", "highlight-block": "", "code-cell": "python",
    "bokeh-plot": "python", "pyvista-plot": "python", "doctest-remote-data": "python", "output": "",
    "ipython3": "python", "click:example": "python", "click:run": "python",
}  # fmt: skip
TITLED = frozenset(re.findall(r"[\w-]+", """
    admonition card centered collapse details dropdown grid-item-card group-tab rubric sidebar tab tab-item topic
"""))  # fmt: skip
_PLAIN = frozenset(re.findall(r"[\w-]+", """
    card-carousel compound container div epigraph figure glossary grid grid-item highlights hlist ifconfig only
    pull-quote subfigure tab-set tabs try_examples change
"""))  # fmt: skip
# objects that are worth a line though nothing is said of them
_TOLD_BY_NAME = frozenset(
    ["attribute", "class", "classmethod", "data", "exception", "function", "macro", "member", "method", "option"]
)
_KEPT = frozenset(["table", "csv-table", "list-table", "replace", "unicode", "role", "default-role"])
_LANGUAGES = frozenset(["default", "none", "text", "guess", "no-highlight"])
_USED = re.compile(r"\.\. +(?:\|[^|\n]+\| +)?([\w:+.-]+?) ?::(?=\s|$)")
_OPTION = re.compile(r":([\w-]+):(?:\s+(.*))?$")
_NOT_INCLUDED = re.compile(r"(?i)change|contributors|news|links|licen[cs]e|_nav_|release|history")


@dataclass
class Page:
    """The page that is being read, at `document.settings.page`."""

    file: SourceFile
    included: int = 0  # files so far


def know_directives(text: str) -> None:
    """Makes the directives that a text uses known to `docutils`, save those of its own that serve as they are."""
    for name in set(_USED.findall(text)):
        if name.lower() not in _KEPT:
            directives.register_directive(name.lower(), _Extended)


def short_name(name: str) -> str:
    """The name of a directive without its domain, unless it is known with it: "py:function" is "function"."""
    return name if name in CODE else name.rpartition(":")[2]


class _Extended(Directive):
    """Any directive; what stands behind its name is taken apart here, since nobody knows its options."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.name.lower()
        short = short_name(name)
        argument, options, body = self._parts()
        if short == "image" and isinstance(self.state.parent, nodes.substitution_definition):
            return [nodes.image()]
        if name == "date":
            return [nodes.inline()]
        if short in UNSEEN or short.startswith("auto"):
            return []
        if short in CODE:
            return self._code(short, argument, options, body)
        if short == "math":
            formula = "\n".join(filter(None, [argument, *body]))
            return [nodes.math_block(formula, formula)]
        if short == "include":
            return self._include(argument, options)
        if short == "literalinclude":
            return self._listing(argument, options)
        if short in REMARKS:
            return [self._box(f"{REMARKS[short]}:", self._text(argument, body))]
        if short in _VERSIONS:
            version, _, words = " ".join(argument.split()).partition(" ")
            said = self._text(words, body)
            return [self._box(f"{_VERSIONS[short]} {version.strip('.')}{':' if said else '.'}", said)]
        if short in TITLED:
            return [self._titled(argument), *self._text("", body)]
        said = self._text("", body)
        if short in _PLAIN:
            return said
        return [*self._signatures(argument), *said] if said or short in _TOLD_BY_NAME else []

    def _parts(self) -> tuple[str, dict[str, str], StringList]:
        """What stands behind the name and in the lines below it, the options, and the body."""
        first = self.block_text.split("\n", 1)[0].partition("::")[2].strip()
        end, lines, options = 0, [], {}
        for end, line in enumerate([*self.content, ""]):
            found = _OPTION.match(line.strip())
            if found and (end or not first):
                options[found[1]] = (found[2] or "").strip()
            elif not line.strip() or options or not first or (end and line.lstrip().startswith(".. ")):
                break
            else:
                lines.append(line.strip())
        return "\n".join(lines), options, self.content[end:]

    def _text(self, argument: str, body: StringList) -> list[nodes.Node]:
        content = StringList([argument, ""] if argument else [], "page") + body
        holder = nodes.container()
        self.state.nested_parse(content, self.content_offset, holder, match_titles=True)
        return list(holder.children)

    def _inline(self, text: str) -> list[nodes.Node]:
        return self.state.inline_text(" ".join(text.split()), self.lineno)[0]

    def _box(self, title: str, said: list[nodes.Node]) -> nodes.Node:
        return nodes.admonition("", *said, remark=title)

    def _titled(self, title: str) -> nodes.Node:
        return nodes.rubric("", "", *self._inline(title))

    def _signatures(self, argument: str) -> list[nodes.Node]:
        joined = re.sub(r"\\\n\s*", " ", argument)
        lines = [line.strip() for line in joined.split("\n") if line.strip()]
        if len(lines) > 1 and joined.count("(") == joined.count(")") == 1:
            lines = [" ".join(lines)]
        return [nodes.rubric("", "", nodes.literal(line, re.sub(r"\\(?![a-z])", "", line))) for line in lines]

    def _code(self, name: str, argument: str, options: dict[str, str], body: StringList) -> list[nodes.Node]:
        language = CODE[name] or argument
        lines = list(body)
        if not re.fullmatch(r"[\w+.#-]*", language):
            lines, language = [*argument.split("\n"), *lines], ""
        text = textwrap.dedent("\n".join(lines)).strip("\n")
        if name == "plot" and not text:
            return []
        if name == "parsed-literal":
            text = re.sub(r"\\(.)|:\w+:(?=`)", r"\1", text)
        return [nodes.literal_block(text, text, language=language_name(language))] if text.strip() else []

    def _include(self, argument: str, options: dict[str, str]) -> list[nodes.Node]:
        found = self._included(argument)
        if found is None or _NOT_INCLUDED.search(argument):
            return []
        text = between(text_of(found), options)
        if "literal" in options or "code" in options:
            return [nodes.literal_block(text, text, language=language_name(options.get("code", "")))]
        if found.path.endswith((".rst", ".txt", ".inc", ".examples")):
            know_directives(text)
            self.state.document.settings.know_roles(text)
            self.state_machine.insert_input(text.replace("\t", "    ").split("\n"), found.path)
        return []

    def _listing(self, argument: str, options: dict[str, str]) -> list[nodes.Node]:
        found = self._included(argument)
        text = between(text_of(found), options) if found is not None else ""
        text = textwrap.dedent(text).strip("\n")
        if not text or len(text) > LONGEST_LISTING:
            return []
        language = options.get("language") or _LANGUAGE_OF.get(argument.rpartition(".")[2], "")
        return [nodes.literal_block(text, text, language=language_name(language))]

    def _included(self, name: str) -> SourceFile | None:
        page: Page = self.state.document.settings.page
        page.included += 1
        return included(page.file, name.split("\n")[0].strip()) if page.included <= MOST_INCLUDED else None


_LANGUAGE_OF = {
    "py": "python", "pyx": "cython", "pxd": "cython", "sh": "bash", "yaml": "yaml", "yml": "yaml", "json": "json",
    "html": "html", "ini": "ini", "toml": "toml", "c": "c", "cpp": "cpp", "h": "c", "js": "javascript", "xml": "xml",
}  # fmt: skip


def language_name(named: str) -> str:
    return "" if named.lower() in _LANGUAGES else named.lower().replace("pycon", "python").replace("python3", "python")


def between(text: str, options: dict[str, str]) -> str:
    """The part of an included file that the options choose."""
    lines = text.replace("\r\n", "\n").replace("\t", "    ").split("\n")
    if name := options.get("pyobject"):
        lines = _definition(lines, name)
    if chosen := options.get("lines"):
        lines = [line for number, line in enumerate(lines, 1) if _is_chosen(number, chosen)]
    if chosen := options.get("start-line"):
        lines = lines[int(chosen) if chosen.isdigit() else 0 :]
    for option, further in (("start-after", 1), ("start-at", 0)):
        if mark := options.get(option):
            start = next((number for number, line in enumerate(lines) if mark in line), None)
            lines = lines[start + further :] if start is not None else []
    for option, further in (("end-before", 0), ("end-at", 1)):
        if mark := options.get(option):
            end = next((number for number, line in enumerate(lines) if mark in line), len(lines))
            lines = lines[: end + further]
    return "\n".join(lines)


def _is_chosen(number: int, chosen: str) -> bool:
    for part in chosen.split(","):
        first, dash, last = part.strip().partition("-")
        start = int(first) if first.isdigit() else 1
        end = int(last) if last.isdigit() else (1 << 30 if dash else start)
        if start <= number <= end:
            return True
    return False


def _definition(lines: list[str], name: str) -> list[str]:
    """The lines of a class or function of Python."""
    start, depth = 0, 0
    for part in name.split("."):
        pattern = re.compile(rf"( *)(?:async )?(?:class|def) {re.escape(part)}\b")
        start = next((n for n in range(start, len(lines)) if pattern.match(lines[n])), len(lines))
        if start == len(lines):
            return []
        depth = len(lines[start]) - len(lines[start].lstrip())
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > depth):
        end += 1
    return lines[start:end]
