"""The text slice: prose documentation that the installation carries.

Long descriptions of the package metadata, documentation files inside packages, the topics of `pydoc`, and long module
docstrings. Licence texts are left out: every record names its licence already, and they repeat endlessly.
"""

from __future__ import annotations

import ast
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator

from hephaestus_jax.forge.installed.distributions import METADATA, STANDARD_LIBRARY, Distribution
from hephaestus_jax.forge.installed.modules import Module, is_test, is_vendored, parse_module
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Document

SHORTEST_PROSE = 200  # characters
SHORTEST_MODULE_DOCSTRING = 400
_TOPICS = "pydoc_data/topics.py"
_PROSE_FILE = re.compile(r"(?i)(\.(md|rst|txt|markdown)|(^|/)(readme|changes|changelog|news|history|howto|notes))$")
_LICENCE_FILE = re.compile(
    r"(?i)(licen[cs]e|copying|copyright|notice|authors|contributors|credits|third_party|code_of_conduct)[^/]*$"
    r"|\.(dist|egg)-info/"
)
_LIST_FILE = re.compile(
    r"(?i)(requirements[^/]*|top_level|entry_points|sources|dependency_links|cmakelists|tags|grammar)\.txt$"
)


def read_prose(distribution: Distribution, quarantine: Quarantine, skipped: Counter[str]) -> Iterator[Document]:
    """The prose of a distribution but for its module docstrings, in the order of the files.

    Args:
        distribution: whose prose.
        quarantine: receives files that cannot be read or decoded.
        skipped: counts what is left out, by reason.
    """
    if len(distribution.description) >= SHORTEST_PROSE:
        yield _document(distribution, METADATA, distribution.description)
    elif distribution.description:
        skipped["short long description"] += 1
    for file in distribution.files:
        if distribution.name == STANDARD_LIBRARY and file == _TOPICS:
            yield from _topics(distribution, quarantine)
        elif _PROSE_FILE.search(file) and not is_test(file) and not is_vendored(file):
            yield from _file(distribution, file, quarantine, skipped)


def module_prose(module: Module) -> Document | None:
    """The docstring of a module as a document, when it is long; docstrings of callables are in the API slice."""
    docstring = ast.get_docstring(module.tree) or ""
    if module.is_stub or len(docstring) < SHORTEST_MODULE_DOCSTRING or not is_prose(docstring):
        return None
    line = module.tree.body[0].lineno
    return _document(module.distribution, f"{module.file}:{line}", f"{module.name}\n\n{docstring}\n")


def is_prose(text: str) -> bool:
    """Whether a text reads as prose: lines of several words, mostly letters, with sentences among them."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return False
    letters = sum(character.isalpha() or character.isspace() for line in lines for character in line)
    sentences = len(re.findall(r"[a-z)`'\"*][.:!?](?:\s|$)", text))
    return (
        statistics.fmean(len(line.split()) for line in lines) >= 4
        and letters >= 0.6 * sum(map(len, lines))
        and sentences * 100 >= len(text.split())
    )


def _file(distribution: Distribution, file: str, quarantine: Quarantine, skipped: Counter[str]) -> Iterable[Document]:
    if _LICENCE_FILE.search(file):
        skipped["licence text"] += 1
        return ()
    if _LIST_FILE.search(file):
        skipped["list, not prose"] += 1
        return ()
    try:
        text = (distribution.root / file).read_text(encoding="utf-8-sig")
    except OSError as error:
        quarantine.add("unreadable file", f"{distribution.name}:{file}", f"{type(error).__name__}: {error.strerror}")
        return ()
    except UnicodeDecodeError as error:
        quarantine.add("undecodable file", f"{distribution.name}:{file}", str(error))
        return ()
    if len(text) < SHORTEST_PROSE:
        skipped["short text file"] += 1
        return ()
    if not is_prose(text):
        skipped["list, not prose"] += 1
        return ()
    return (_document(distribution, file, text),)


def _topics(distribution: Distribution, quarantine: Quarantine) -> Iterator[Document]:
    """The topics of `help()`: one assignment of a dictionary from topic to text."""
    module = parse_module(distribution, _TOPICS, quarantine)
    for node in module.tree.body if module else ():
        match node:
            case ast.Assign([ast.Name("topics")], ast.Dict(keys, values)):
                for key, value in zip(keys, values, strict=True):
                    text = value.value if isinstance(value, ast.Constant) else None
                    if key is not None and isinstance(text, str) and len(text) >= SHORTEST_PROSE:
                        yield _document(distribution, f"{_TOPICS}:{key.lineno}", text)


def _document(distribution: Distribution, path: str, text: str) -> Document:
    return Document(text=text, slice="text", provenance=distribution.provenance(path), language="en")
