"""The commands that AWS's command line defines in Python itself (`aws s3 cp`, `aws configure`), read as data."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from hephaestus_jax.forge.clouds.intents import request_of_title, summary_first
from hephaestus_jax.forge.clouds.options import CLI_OPTION, property_name
from hephaestus_jax.forge.clouds.python_values import (
    UNKNOWN,
    Called,
    Class,
    Follower,
    Function,
    ItemSet,
    Library,
    Module,
)
from hephaestus_jax.forge.clouds.rst_examples import plain
from hephaestus_jax.forge.prose import shortened
from hephaestus_jax.forge.sources.source import Origin, SourceFile, files_below
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json

_FOLDER = "awscli/customizations"
_TABLE = "building-command-table."
_DEEPEST = 4  # levels of subcommands
_TYPES = {"boolean": "boolean", "integer": "integer", "string": "string", "list": "array", "float": "number"}


@dataclass(frozen=True)
class Command:
    """A command with its description and options; `path` and `line` are where its class stands."""

    name: str  # "aws s3 cp"
    description: str
    properties: Mapping[str, Mapping[str, Json]]
    required: tuple[str, ...]
    examples: str  # reStructuredText
    path: str
    line: int


@lru_cache(maxsize=2)
def _all(root: Path, origin: Origin) -> tuple[Mapping[str, Command], Quarantine]:
    quarantine = Quarantine()
    file = SourceFile(root, f"{_FOLDER}/__init__.py", origin)
    library = Library(file, quarantine)
    found: dict[str, Command] = {}
    for parent, name, cls in _registered(library, root):
        for command in _commands(" ".join(filter(None, ["aws", parent, name])), cls, root, _DEEPEST):
            found.setdefault(command.name, command)
    return dict(sorted(found.items())), quarantine


def commands_of(root: Path, origin: Origin, quarantine: Quarantine) -> Mapping[str, Command]:
    """The commands that the package unpacked to `root` defines in Python, by name."""
    found, bad = _all(root, origin)
    quarantine.merge(bad)
    return found


def _registered(library: Library, root: Path) -> Iterator[tuple[str, str, Class]]:
    """Parent ("" at the top, "emr"), name and class of the commands that modules put into the tables of commands."""
    for path in files_below(root / _FOLDER):
        if not path.endswith(".py"):
            continue
        dotted = f"{_FOLDER}/{path}".removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        module = library.module(dotted)
        if module is None:
            continue
        for table, registered in _tables(library, module):
            parent = "" if table == "main" else table
            if isinstance(registered, Function):
                follower = Follower(library, registered.module)
                scope: dict[str, Any] = {**registered.scope, **dict.fromkeys(_parameters(registered), UNKNOWN)}
                follower.follow(registered.node.body, scope)
                for event in follower.events:
                    made = event.value if isinstance(event, ItemSet) and isinstance(event.key, str) else None
                    if isinstance(event, ItemSet) and isinstance(made, Called) and isinstance(made.of, Class):
                        yield parent, event.key, made.of
            elif isinstance(registered, Class) and isinstance(name := registered.get("NAME"), str):
                yield parent, name, registered


def _parameters(function: Function) -> list[str]:
    return [arg.arg for arg in function.node.args.args]


def _tables(library: Library, module: Module) -> Iterator[tuple[str, Any]]:
    """Which table of commands each `register(...)` of a module's functions fills, and with what."""
    for node in module.tree.body if module.tree else ():
        if not isinstance(node, ast.FunctionDef):
            continue
        follower = Follower(library, module)
        scope = dict(module.names)
        scope.update({arg.arg: UNKNOWN for arg in node.args.args})
        follower.follow(node.body, scope)
        for event in follower.events:
            if isinstance(event, Called) and event.function == "register" and len(event.args) > 1:
                table, handler = event.args[:2]
                if isinstance(table, str) and table.startswith(_TABLE):
                    yield table.removeprefix(_TABLE), _owner(handler, module, node)


def _owner(handler: Any, module: Module, node: ast.FunctionDef) -> Any:
    """A handler; the class, where it is the method by which a command adds itself: `Configure.add_command`."""
    if isinstance(handler, Function) and handler.node.name == "add_command":
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and part.attr == "add_command" and isinstance(part.value, ast.Name):
                owner = module.names.get(part.value.id)
                if isinstance(owner, Class) and owner.get("add_command") is handler:
                    return owner
    return handler


def _commands(name: str, cls: Class, root: Path, levels: int) -> Iterator[Command]:
    children = cls.get("SUBCOMMANDS")
    if isinstance(children, list) and children:
        for child in children if levels else ():
            inner = child.get("command_class") if isinstance(child, dict) else None
            if isinstance(inner, Class) and isinstance(child.get("name"), str):
                yield from _commands(f"{name} {child['name']}", inner, root, levels - 1)
        if not _runs_itself(cls):
            return
    description = _told(cls.get("DESCRIPTION"), root, name, "_description.rst")
    if not description or description == "describe the command":
        return
    properties, required = _options(cls.get("ARG_TABLE"))
    examples = _told(cls.get("EXAMPLES"), root, name, "_examples.rst", raw=True)
    path = cls.module.file.path
    yield Command(name, description, properties, required, examples, path, cls.node.lineno)


def _runs_itself(cls: Class) -> bool:
    """Whether a command with subcommands does something without one, as `aws configure` does."""
    return cls.name == "ConfigureCommand"


def _told(value: Any, root: Path, name: str, default: str, raw: bool = False) -> str:
    text = value if isinstance(value, str) else ""
    if isinstance(value, Called) and value.function in ("FROM_FILE", "_FromFile"):
        parts = [part for part in value.args if isinstance(part, str)]
        if not parts:
            parts = [*name.split()[1:], default]
        path = PurePosixPath("awscli/examples", *parts)
        file = SourceFile(root, path.as_posix(), Origin("awscli", "", ""))
        if ".." not in path.parts and (root / path).is_file():
            text = file.text(Quarantine()) or ""
    if raw:
        return text
    return summary_first("\n\n".join(filter(None, map(_paragraph, re.split(r"\n[ \t]*\n", text)))))


def _paragraph(text: str) -> str:
    """A paragraph, or a list, on as many lines as it has items; headings keep their words, targets are left out."""
    lines = [line for line in text.split("\n") if not re.match(r"\s*(?:([=~^*#+-])\1{2,}\s*$|\.\. )", line)]
    items = re.split(r"\n\s*[*-] ", "\n" + "\n".join(lines))
    told = [plain(" ".join(item.split())) for item in items]
    if title := re.fullmatch(r"\*\*(.+)\*\*", told[0]):
        told[0] = request_of_title(title[1])
    return "\n".join(filter(None, [told[0], *(f"- {item}" for item in told[1:] if item)]))


def _options(table: Any) -> tuple[dict[str, dict[str, Json]], tuple[str, ...]]:
    properties: dict[str, dict[str, Json]] = {}
    required = []
    for entry in table if isinstance(table, list) else ():
        if not isinstance(entry, dict) or not isinstance(option := entry.get("name"), str):
            continue
        name = property_name(option)
        properties[name] = _schema(entry, option)
        if entry.get("required") is True or (entry.get("positional_arg") is True and _must(entry)):
            required.append(name)
    return properties, tuple(required)


def _must(entry: Mapping[Any, Any]) -> bool:
    return entry.get("nargs") not in ("?", "*")


def _schema(entry: Mapping[Any, Any], option: str) -> dict[str, Json]:
    action, count = entry.get("action"), entry.get("nargs")
    stated = entry.get("cli_type_name")
    schema: dict[str, Json] = {"type": _TYPES.get(stated, "string") if isinstance(stated, str) else "string"}
    if action in ("store_true", "store_false"):
        schema = {"type": "boolean"}
    elif count in ("+", "*") or (isinstance(count, int) and count > 1) or schema["type"] == "array":
        schema = {"type": "array", "items": {"type": "string"}}
    elif isinstance(entry.get("schema"), dict):
        schema = {"type": "array" if entry["schema"].get("type") == "array" else "string"}
        if schema["type"] == "array":
            schema["items"] = {"type": "string"}
    if isinstance(help_text := entry.get("help_text"), str) and (words := plain(help_text)):
        schema["description"] = shortened(words, 1_000)
    choices = entry.get("choices") if schema["type"] == "string" else None
    if isinstance(choices, list) and choices and all(isinstance(choice, str) for choice in choices):
        schema["enum"] = list(dict.fromkeys(choices))
    default = entry.get("default")
    if isinstance(default, str) and schema["type"] == "string" and default in schema.get("enum", [default]):
        schema["default"] = default
    positional = entry.get("positional_arg") is True
    schema[CLI_OPTION] = option if positional else f"--{option}"
    return schema
