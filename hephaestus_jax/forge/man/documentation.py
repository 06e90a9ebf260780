"""A manual page as documentation of what it describes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hephaestus_jax.forge.man.blocks import Block, Page
from hephaestus_jax.forge.man.options import function_schema, options_schema
from hephaestus_jax.forge.prose import shortened
from hephaestus_jax.formats.records import ApiDoc, ApiError, ApiExample, Json, Provenance

DESCRIPTION = 6000  # characters
SYNOPSIS = 2000
MOST_EXAMPLES, LONGEST_EXAMPLE = 10, 2000
MOST_ERRORS = 20

_NAME_LINE = re.compile(r"\A(.*?)\s+(?:-{1,2}|[–—−])\s+(.*)\Z", re.DOTALL)
_BLANK_LINES = re.compile(r"\n\s*\n")
_VERSION = re.compile(r"[\s,]*\(?(?:version|release|v)?\.?[\s-]*v?\d[\w.:+~()-]*.*\Z", re.IGNORECASE)
_OTHER_SECTIONS = frozenset(
    title
    for line in (
        "NAME/SYNOPSIS/SYNTAX/OPTIONS/EXAMPLES/EXAMPLE/AUTHOR/AUTHORS/COPYRIGHT/BUGS/HISTORY/COLOPHON/VERSION",
        "AVAILABILITY/LICENSE/LICENCE/STANDARDS/ERRORS/DIAGNOSTICS/SEE ALSO/REPORTING BUGS/EXIT STATUS/EXIT CODES",
        "RETURN VALUE/RETURN VALUES/CONFORMING TO",
    )
    for title in line.split("/")
)
_STAGE = re.compile(r"\A\((?:ALPHA|BETA|PREVIEW|DEPRECATED)\)\s*", re.IGNORECASE)
_LEADS_NOWHERE = re.compile(r"\n\n[^\n]*\boptions (?:are|supported|available)\b[^\n]*:\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Manual:
    """What a page documents: names, one line about them, and its section of the manual ("1", "3")."""

    names: tuple[str, ...]
    summary: str
    number: str


def manual_of(page: Page, path_name: str, path_number: str) -> Manual | None:
    """What the NAME section states; None if it states nothing."""
    named = [block for section in page.section("NAME", "NAMES")[:1] for block in section.blocks[:1]]
    text = " ".join(block.told() for block in named)
    found = _NAME_LINE.match(" ".join(text.split()))
    if not found or not found[2].strip():
        return None
    names = [name.strip() for name in found[1].split(",") if name.strip() and len(name.split()) <= 3]
    ordered = [name for name in names if name == path_name] or names[:1] or [path_name]
    return Manual((*ordered, *(name for name in names if name not in ordered)), found[2].strip(), path_number)


def documentation(page: Page, manual: Manual, provenance: Provenance) -> tuple[ApiDoc, int]:
    """The page as documentation, and how many options were left out."""
    function = manual.number[:1] in ("2", "3")
    parts = (section.told() for section in page.section("SYNOPSIS", "SYNTAX"))
    plain = (part.replace("```\n", "").replace("\n```", "") for part in parts)
    synopsis = "\n".join(_BLANK_LINES.sub("\n", part) for part in plain if part)
    name = manual.names[0] if function else _command(manual.names[0], synopsis)
    signature, returns, dropped = shortened(synopsis.strip(), SYNOPSIS), None, 0
    if function:
        stated, parameters, returns = function_schema(synopsis, name)
        signature = stated or signature
        if value := _paragraph(page, "RETURN VALUE", "RETURN VALUES", "RETURNS"):
            returns = {**(returns or {}), "description": value}
    else:
        parameters, dropped = options_schema(item for section in page.sections for item in section.items())
        needed = [item for section in page.section("REQUIRED FLAGS", "REQUIRED OPTIONS") for item in section.blocks]
        if required := list(options_schema(block for block in needed if block.kind == "item")[0]["properties"]):
            parameters["required"] = required
    doc = ApiDoc(
        name=f"{name}({manual.number})" if function else name,
        provider=_provider(page, name),
        description=_description(page, manual, not function),
        provenance=provenance,
        signature=signature,
        parameters=parameters,
        returns=returns,
        errors=_errors(page, function),
        examples=() if function else _examples(page),
        interface="module" if function else "cli",
        function=name,
        deprecated=bool(re.match(r"(?i)\(?(deprecated|obsolete)\b", manual.summary)),
    )
    return doc, dropped


def _command(name: str, synopsis: str) -> str:
    """The name as it is typed: the page git-log is about "git log", if its synopsis says so."""
    typed = [f"{' '.join(line.split())} " for line in synopsis.split("\n")]
    for spelt in (name.replace("_", " "), name.replace("-", " ")):
        if spelt != name and any(line.startswith(f"{spelt} ") for line in typed):
            return spelt
    return name


def _provider(page: Page, name: str) -> str:
    """The project that the page names; else the program, of a command that has several words."""
    source = " ".join(_VERSION.sub("", page.source).split())
    if re.search("[A-Za-z]{2}", source) and len(source) < 60:
        return source
    return name.split()[0] if " " in name else "man pages"


def _paragraph(page: Page, *titles: str) -> str:
    text = "\n\n".join(filter(None, (section.told() for section in page.section(*titles))))
    return shortened(text, 1000)


def _description(page: Page, manual: Manual, command: bool) -> str:
    """The summary, then DESCRIPTION (or, if there is none, what stands in its place); options stand elsewhere."""
    summary = manual.summary[:1].upper() + manual.summary[1:]
    parts = [summary if summary.endswith((".", "!", "?")) else summary + "."]
    if len(manual.names) > 1:
        parts.append("Also: " + ", ".join(manual.names[1:8]) + ".")
    sections = page.section("DESCRIPTION", "OVERVIEW") or [
        section for section in page.sections if section.title.upper() not in _OTHER_SECTIONS
    ]
    for section in sections:
        blocks = [b for b in section.blocks if not (command and b.kind == "item" and b.tag.startswith(("-", "+")))]
        told = Block("text", children=blocks).told()
        if told and _is_alike(told.split("\n")[0][: len(manual.summary) + 20].partition(". ")[0], manual.summary):
            parts[0] = told  # which begins with the summary
        elif told:
            parts.append(told if section.level == 1 or not section.title else f"**{section.title}**\n\n{told}")
    return shortened(_LEADS_NOWHERE.sub("", "\n\n".join(parts)), DESCRIPTION)


def _is_alike(told: str, summary: str) -> bool:
    """Whether a text is but the summary again: "(BETA) Creates a disk." and "create a disk"."""
    one, other = (re.sub(r"\W+", " ", _STAGE.sub("", text).lower()).strip() for text in (told, summary))
    return one == other


def _errors(page: Page, function: bool) -> tuple[ApiError, ...]:
    sections = page.section("ERRORS") if function else page.section("EXIT STATUS", "EXIT CODES", "EXIT VALUES")
    pattern = re.compile(
        r"E[A-Z0-9]+(?:(?:,| or| and)? E[A-Z0-9]+)*" if function else r"[><=]*\s*\d{1,3}(?:\s*[-–]\s*\d+)?"
    )
    found = []
    for section in sections:
        for item in section.items():
            if pattern.fullmatch(item.tag.strip()):
                found.append(ApiError(item.tag.strip(), shortened(item.told(), 400)))
    return tuple(found[:MOST_ERRORS])


def _examples(page: Page) -> tuple[ApiExample, ...]:
    """Commands that stand verbatim (or as tags) in EXAMPLES, with the words before (or about) them."""
    found: list[ApiExample] = []
    for section in page.section("EXAMPLES", "EXAMPLE"):
        intent = section.title if section.level > 1 else ""
        pending = [(block, intent) for block in reversed(section.blocks)]
        said = intent
        while pending:
            block, given = pending.pop()
            if block.kind == "text" and block.text.startswith("$ ") and len(block.text) <= LONGEST_EXAMPLE:
                found.append(_example(block.text.replace(" \\ ", " \\\n    "), said))  # a command set as running text
            elif block.kind == "text":
                said = block.text
            elif block.kind == "item":
                commandlike = (
                    block.tag.split()[:1] and re.match(r"[\w./$%#-]", block.tag) and len(block.tag.split()) > 1
                )
                if commandlike and block.text:
                    found.append(_example(block.tag, block.text))
                else:
                    said = block.text or block.tag
                pending += [(child, given) for child in reversed(block.children)]
            elif len(block.text) <= LONGEST_EXAMPLE:
                found.append(_example(block.text, said))
                said = intent
    return tuple(found[:MOST_EXAMPLES])


def _example(call: str, intent: str) -> ApiExample:
    """A command and its intent. Where prompts tell commands from output, the output of one command is the result."""
    lines = call.strip("\n").split("\n")
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    lines = [line[indent:] for line in lines]
    result: str | None = None
    if lines[0].startswith(("$ ", "% ")):
        prompts = [index for index, line in enumerate(lines) if line.startswith(lines[0][:2])]
        ends = [i for i in range(len(lines)) if not lines[i].endswith("\\")]
        last = next((i for i in ends if i >= prompts[0]), 0)
        if len(prompts) == 1 and last + 1 < len(lines) and any(line.strip() for line in lines[last + 1 :]):
            result = "\n".join(lines[last + 1 :]).strip("\n")
            lines = lines[: last + 1]
        lines = [line[2:] if line.startswith(lines[0][:2]) else line for line in lines]
    told: Json = shortened(" ".join(intent.split()), 500).rstrip(":").strip()
    return ApiExample("\n".join(lines), result, told or None)
