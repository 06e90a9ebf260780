"""Documented command lines as code that the agent runs in a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from hephaestus_jax.forge.compose.cases import belies, holds_secret, is_filler, is_placeholder
from hephaestus_jax.forge.compose.offers import Offer
from hephaestus_jax.forge.compose.replies import output_of
from hephaestus_jax.forge.compose.requests import request
from hephaestus_jax.forge.compose.settings import ComposeConfig, Draw
from hephaestus_jax.forge.compose.tasks import task_of
from hephaestus_jax.forge.compose.wording import is_said
from hephaestus_jax.formats.records import ApiDoc, Json

LANGUAGE = "bash"
_ONE_LETTER = {"-n": "name", "-g": "resource group", "-l": "location", "-o": "output format"}
_COMPOUND = re.compile(r"[;|&<>`\n]|\$\(|\$\{?\w")
BROKEN_QUOTES = re.compile(r"(?<!\\)\"\s*[\[{]+\s*\"")  # --value "[{"id": 1}]" loses its inner quotes
_ALIAS = re.compile(r"(?<![\w-])-([A-Za-z])(?![\w-])")


@dataclass(frozen=True)
class Command:
    """One documented command line."""

    offer: Offer
    number: int
    task: str
    call: str
    values: dict[str, Json]  # what the user must say, by option
    stated: dict[str, Json]  # what the line states, by option
    result: str | None


def commands_of(offer: Offer, config: ComposeConfig) -> Iterator[Command]:
    """The documented command lines of an API that are one simple command each; equal ones once."""
    doc = offer.doc
    seen = set()
    for number, example in enumerate(doc.examples):
        call = example.call.strip()
        if call in seen or len(call) > config.max_arguments or len(example.result or "") > config.max_result:
            continue
        seen.add(call)
        stated = options(call, doc)
        # The reader of the source knows what "-n" stands for.
        values = dict(example.arguments) if stated is not None and example.arguments is not None else stated
        output = output_of(example.result)
        if stated is None or values is None or any(re.fullmatch("-[A-Za-z]", name) for name in values):
            continue
        if belies(doc, values, output):
            continue
        if (
            any(is_placeholder(word) for word in call.split())
            or holds_secret(values)
            or holds_secret(output)
            or is_filler(output)
        ):
            continue
        task = task_of(doc, example)
        if task is not None:
            yield Command(offer, number, task, call, values, stated, example.result or None)


def options(call: str, doc: ApiDoc) -> dict[str, Json] | None:
    """The values of a command's options and its further words, by name; None if it is not one simple command."""
    line = re.sub(r"\\\r?\n\s*", " ", call)
    if BROKEN_QUOTES.search(line):
        return None
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    name = doc.name.split()
    bare = re.sub(r"'[^']*'", "''", line)
    if words[: len(name)] != name or _COMPOUND.search(re.sub(r'"[^"$`]*"', '""', bare)):
        return None
    found: dict[str, Json] = {}
    option = ""
    for word in words[len(name) :]:
        if word.startswith("-") and not re.match(r"-\d", word):
            option, equals, value = word.partition("=")
            option = _option_name(option, doc)
            found[option] = value if equals else True
            option = "" if equals else option
        elif option and found[option] is True:
            found[option] = word
        elif option:
            before = found[option]
            found[option] = [*before, word] if isinstance(before, list) else [before, word]
        else:
            found.setdefault("arguments", [])
            assert isinstance(found["arguments"], list)
            found["arguments"].append(word)
    return found


def _option_name(option: str, doc: ApiDoc) -> str:
    if option.startswith("--"):
        return option[2:]
    if option in _ONE_LETTER:
        return _ONE_LETTER[option]
    for name, schema in doc.parameters.get("properties", {}).items():
        if isinstance(schema, dict) and option[1:] in _ALIAS.findall(str(schema.get("description", ""))):
            return str(name)
    return option


def command_request(command: Command, draw: Draw) -> str | None:
    """The user's words for a command; None where they would not state every value of it."""
    text = request(command.task, command.values, draw)
    for value in command.stated.values():
        parts = value if isinstance(value, list) else [value]
        if not all(part is True or is_said(part, text) for part in parts):
            return None
    return text
