"""Help texts of Azure's commands: YAML in `helps[...]`, and the docstrings of the generated command classes."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hephaestus_jax.forge.prose import clean
from hephaestus_jax.forge.yaml_files import load_yaml
from hephaestus_jax.formats.quarantine import Quarantine

if TYPE_CHECKING:  # importing the package of all sources here would go in a circle
    from hephaestus_jax.forge.sources.source import SourceFile

_EXAMPLE = re.compile(r"^:example:[ \t]*", re.MULTILINE)
_LIST_OF = re.compile(r"^Lists? (?:a |the )?list of (?:the )?")
_GLUED = re.compile(r"(?<![./@\w])([a-z]+\.)(?=[A-Z][a-z]+ [a-z])")  # "for the queue.Use the returned signature"
LARGEST_HELP = 200_000  # characters of one text


@dataclass(frozen=True)
class Help:
    """What a command is for, help of its parameters by option, and its examples as (title, text)."""

    description: str
    parameters: Mapping[str, str]
    examples: tuple[tuple[str, str], ...]
    path: str = ""
    line: int = 0


def help_texts(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Command, text and line of each `helps["command"] = "text"`; the last of a command counts."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)):
            continue
        if not isinstance(node.value.value, str):
            continue
        for target in node.targets:
            table = target.value if isinstance(target, ast.Subscript) else None
            key = target.slice if isinstance(target, ast.Subscript) else None
            if not (isinstance(table, ast.Name) and table.id == "helps" and isinstance(key, ast.Constant)):
                continue
            if isinstance(key.value, str):
                yield key.value, node.value.value, node.lineno


def parsed_help(text: str, place: SourceFile, line: int, quarantine: Quarantine) -> Help | None:
    """The help of a command; None if the text is about a group of commands or no help (then quarantined)."""
    if len(text) > LARGEST_HELP:
        quarantine.add("help text too large", place.place(str(line)), f"{len(text):,} characters")
        return None
    try:
        stated = load_yaml(text)
    except ValueError as error:
        quarantine.add("malformed YAML", place.place(str(line)), str(error))
        return None
    if not isinstance(stated, Mapping) or stated.get("type") != "command":
        return None
    return Help(
        _joined(_text(stated.get("short-summary")), _text(stated.get("long-summary"))),
        dict(_parameters(stated.get("parameters"))),
        tuple(_examples(stated.get("examples"))),
        place.path,
        line,
    )


def docstring_help(docstring: str, path: str, line: int) -> Help:
    """The help of a generated command class: a summary, more of it, and `:example:` sections."""
    head, *examples = _EXAMPLE.split(inspect.cleandoc(docstring))
    short, _, long = head.strip().partition("\n\n")
    found = []
    for example in examples:
        title, _, body = example.partition("\n")
        if body.strip():
            found.append((_title(title), textwrap.dedent(body).strip()))
    return Help(_joined(short, long), {}, tuple(found), path, line)


def _title(text: str) -> str:
    """The title of an example; "" where it is the name of an operation: KustoPoolsGet, Volumes_Create."""
    told = clean(" ".join(text.split()))
    return "" if re.fullmatch(r"(?=.*[a-z_][A-Z])[A-Za-z_]+", told) else _LIST_OF.sub("List ", told)


def _joined(short: str, long: str) -> str:
    short = re.sub(
        r"(?<=[a-z])[ \t]*\n\s*(?=(?:Returns?|This|The|Use|It|If|You|For|Note)\b)", ". ", short
    )  # a sentence each
    short, long = clean(" ".join(short.split())), clean(_unwrapped(long))
    short = _LIST_OF.sub("List ", _GLUED.sub(r"\1 ", short))
    short, long = short[:1].upper() + short[1:], _GLUED.sub(r"\1 ", long)
    if short and short[-1] not in ".!?:":
        short += "."
    return short if not long or long.rstrip(".") == short.rstrip(".") else f"{short}\n\n{long}".strip()


def _unwrapped(text: str) -> str:
    """Paragraphs on one line each; lists and indented text stay."""
    kept = re.sub(r"(?<=\S)[ \t]*\n(?=[A-Za-z`\"'(])", " ", text)
    return kept.strip()


def _parameters(stated: Any) -> Iterator[tuple[str, str]]:
    for entry in stated if isinstance(stated, list) else ():
        if isinstance(entry, Mapping) and (names := _text(entry.get("name"))):
            words = _joined(_text(entry.get("short-summary")), _text(entry.get("long-summary")))
            for option in names.split():
                if words:
                    yield option, words


def _examples(stated: Any) -> Iterator[tuple[str, str]]:
    for entry in stated if isinstance(stated, list) else ():
        if isinstance(entry, Mapping) and (text := _text(entry.get("text") or entry.get("command")).strip()):
            title = _text(entry.get("name") or entry.get("summary"))
            title = re.sub(r"\s*\(auto-?generated\)\.?", "", title, flags=re.IGNORECASE)
            yield _title(title), text


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(item for item in value if isinstance(item, str))
    return value if isinstance(value, str) else ""
