"""The code slice: source files of the installed packages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from hephaestus_jax.forge.installed.distributions import Distribution
from hephaestus_jax.forge.installed.modules import Module, is_test, is_vendored, read_python
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Document

# Cython is read as text; headers, stubs and web files that packages carry say nothing about their authors' code.
_OTHER_SOURCES = {".pyx": "cython"}
_GENERATED = re.compile(
    r"(?i)(auto(matically)?[- ]?generated|machine[- ]generated|generated (by|from|file)|do not (edit|modify)|this file is made by)"
)
_HEAD_LINES = 12
_SHORTEST = 40  # characters; below it there is only a licence-free import or a version


def code_document(module: Module, skipped: Counter[str]) -> Document | None:
    """A parsed file as a record of the code slice; None when it is left out, with the reason counted in `skipped`."""
    reason = _why_left_out(module)
    if reason:
        skipped[reason] += 1
        return None
    return Document(
        text=module.text,
        slice="code",
        provenance=module.distribution.provenance(module.file),
        language="python",
    )


def _why_left_out(module: Module) -> str:
    if module.is_stub:
        return "type stub"
    if len(module.text.strip()) < _SHORTEST:
        return "empty source file"
    if is_generated(module.text):
        return "generated source file"
    return ""


def is_generated(text: str) -> bool:
    """Whether a file says in its first lines that a program wrote it."""
    head = "\n".join(line for line in text.split("\n", _HEAD_LINES)[:_HEAD_LINES])
    return any(
        _GENERATED.search(line) for line in head.splitlines() if line.lstrip().startswith(("#", '"""', "'''", "//", "/*"))
    )


def other_sources(
    distribution: Distribution, quarantine: Quarantine, skipped: Counter[str], tests: bool = False
) -> Iterator[Document]:
    """The source files that are not Python, in order."""
    for file in distribution.files:
        language = _OTHER_SOURCES.get(file[file.rfind(".") :])
        if language is None or is_vendored(file) or (is_test(file) and not tests):
            continue
        text = read_python(distribution.root / file, f"{distribution.name}:{file}", quarantine)
        if text is None:
            continue
        if is_generated(text):
            skipped["generated source file"] += 1
        elif len(text.strip()) >= _SHORTEST:
            yield Document(text, "code", distribution.provenance(file), language)
