"""Manual pages of a folder such as /usr/share/man: commands (sections 1, 6, 8) and C functions (2, 3).

A command is documented as "cli", its options as parameters. A C function is no interface that records know: it is a
"module", named with its section ("open(2)"). Pages of other sections describe files and ideas, and are not read, nor
are translations.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from hephaestus_jax.forge.man.documentation import documentation, manual_of
from hephaestus_jax.forge.man.man7 import read_man
from hephaestus_jax.forge.man.mdoc import read_mdoc
from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import noted
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Record

LARGEST_PAGE = 4 << 20  # bytes, unpacked
_PAGE = re.compile(r"(.+)\.([12368][a-zA-Z0-9]*)(?:\.gz)?")
_TRANSLATION = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?([.@].*)?")
_MDOC = re.compile(r"^\.\s*(Dd|Sh)\b", re.MULTILINE)
_REDIRECT = re.compile(r"\A(?:[.']\\\".*\n|\s*\n)*\.so[ \t]+(\S+)")
_UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def _pages(paths: Iterable[str]) -> list[str]:
    """Pages in folders man1, man2, … that are not below the folder of a language."""
    chosen = []
    for path in paths:
        *folders, name = path.split("/")
        translated = len(folders) > 1 and _TRANSLATION.fullmatch(folders[-2]) and folders[-2] not in ("man", "usr")
        if folders and re.fullmatch(r"man[12368]\w*", folders[-1]) and not translated and _PAGE.fullmatch(name):
            chosen.append(path)
    return chosen


@source("man_pages", files=_pages)
def read_man_pages(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Manual pages: commands with their options, C functions with their arguments."""
    text = _text(file, quarantine)
    if text is None:
        return
    if not text.strip():
        quarantine.add("empty file", file.place(), "it holds nothing")
        return
    if redirect := _REDIRECT.match(text):
        quarantine.add("another name of a page", file.place(), redirect[1])
        return
    matched = _PAGE.fullmatch(file.path.rsplit("/", 1)[-1])
    name, number = (matched[1], matched[2]) if matched else (file.path, "1")
    page = (read_mdoc if _MDOC.search(text[:20_000]) else read_man)(text)
    manual = manual_of(page, name, number)
    if manual is None:
        quarantine.add("no NAME section", file.place(), f"{len(page.sections)} sections")
        return
    doc_provenance = file.provenance()
    doc, dropped = documentation(page, manual, doc_provenance)
    if dropped:
        provenance = noted(doc_provenance, f"{dropped} further options left out")
        doc = replace(doc, provenance=provenance)
    yield doc


def _text(file: SourceFile, quarantine: Quarantine) -> str | None:
    raw = file.read(quarantine)
    if raw is None:
        return None
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = zlib.decompressobj(wbits=31).decompress(raw, LARGEST_PAGE + 1)
        except zlib.error as error:
            quarantine.add("damaged gzip", file.place(), str(error))
            return None
    if len(raw) > LARGEST_PAGE:
        quarantine.add("file too large", file.place(), f"above {LARGEST_PAGE:,} bytes")
        return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # of any bytes; pages before 2000 are written so
    return _UNREADABLE.sub(" ", text)
