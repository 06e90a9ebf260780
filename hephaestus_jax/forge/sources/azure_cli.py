"""Azure's command line, from the help texts, tables of commands and generated classes of its package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hephaestus_jax.forge.clouds import azure_classes, azure_tables
from hephaestus_jax.forge.clouds.azure_arguments import (
    CLI_OPTION,
    EVERYWHERE,
    GENERIC_UPDATE,
    GLOBAL,
    PAGES,
    WAIT,
    Root,
    argument_schema,
    command_shape,
)
from hephaestus_jax.forge.clouds.azure_help import Help, docstring_help, help_texts, parsed_help
from hephaestus_jax.forge.clouds.azure_lines import arguments_of
from hephaestus_jax.forge.clouds.command_lines import CommandLine, parsed, split_commands
from hephaestus_jax.forge.clouds.expand import expanded
from hephaestus_jax.forge.clouds.options import usage
from hephaestus_jax.forge.clouds.python_values import Class, Follower, Library, Module
from hephaestus_jax.forge.clouds.reading import fitting
from hephaestus_jax.forge.sources.source import Package, SourceFile, files_below, source
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, ApiExample, Json

PROVIDER = "azure-cli"
_CLI = Package("pypi", "azure-cli", "2.91.0", "998f2b7812e553520c0f4c7bbb8420487d83f9930711cef335401c1f3fc5e0b6", "MIT")
_MODULES = "azure/cli/command_modules"
_OLD_PROFILES = re.compile(r"/aaz/profile_|/tests/")
LONGEST_EXAMPLE = 4_000  # characters


@source("azure_cli", _CLI, files=f"{_MODULES}/*/__init__.py")
def read_azure_cli(file: SourceFile, quarantine: Quarantine) -> Iterator[ApiDoc]:
    """The commands of Azure's command line with their options and examples, one command module at a time."""
    module = _CommandModule(file, quarantine)
    for name in module.names():
        told = module.help(name)
        if told is None or not told.description:
            continue
        parameters, processing = module.parameters(name, told)
        deprecated = module.is_deprecated(name)
        provenance = replace(file, path=told.path or file.path).provenance(str(told.line) if told.line else "")
        yield ApiDoc(
            name=f"az {name}",
            provider=PROVIDER,
            description=told.description,
            provenance=replace(provenance, processing=processing),
            signature=usage(f"az {name}", parameters),
            parameters=parameters,
            examples=tuple(_examples(name, told, parameters)),
            interface="cli",
            function="_".join(["az", *name.replace("-", "_").split()]),
            deprecated=deprecated,
        )


@dataclass
class _CommandModule:
    """A folder of azure/cli/command_modules: what its files tell about its commands."""

    file: SourceFile
    quarantine: Quarantine
    helps: dict[str, Help] = field(default_factory=dict)
    generated: dict[str, tuple[Class, Mapping[str, Any]]] = field(default_factory=dict)
    _paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.file.path.rpartition("/")[0]
        below = self.file.root / self.folder
        found = (f"{self.folder}/{path}" for path in files_below(below) if path.endswith(".py"))
        self._paths = [path for path in found if not _OLD_PROFILES.search(path)]
        self.library = Library(self.file, self.quarantine, _arguments_only)
        modules = [module for path in self._paths if (module := self.library.module(_dotted(path))) is not None]
        for module in modules:
            if "/aaz/" in module.file.path:
                self._add_generated(module)
            elif module.tree is not None:
                self._add_helps(module, module.tree)
        own = [module for module in modules if "/aaz/" not in module.file.path]
        self.tables = azure_tables.tables(self.library, own, _dotted(self.folder))

    def _add_generated(self, module: Module) -> None:
        for value in module.names.values():
            if isinstance(value, Class) and value.module is module:
                for name, keywords in azure_classes.registered(value, Follower(self.library, module)):
                    self.generated[name] = (value, keywords)

    def _add_helps(self, module: Module, tree: ast.Module) -> None:
        for name, text, line in help_texts(tree):
            told = parsed_help(text, module.file, line, self.quarantine)
            if told is not None:
                self.helps[" ".join(name.split())] = told

    def names(self) -> list[str]:
        """All commands, described or not."""
        return sorted({*self.helps, *self.generated, *self.tables.commands, *self.tables.classes})

    def command_class(self, name: str) -> Class | None:
        """The class of a command: the one put into the table of commands, else the generated one."""
        if name in self.tables.classes:
            return self.tables.classes[name]
        return self.generated[name][0] if name in self.generated and name not in self.tables.commands else None

    def help(self, name: str) -> Help | None:
        """The help text of a command, else the docstring of its class."""
        from_class = self._function_help(name)
        for cls in azure_classes.lineage(found) if (found := self.command_class(name)) else ():
            if docstring := ast.get_docstring(cls.node, clean=False):
                from_class = docstring_help(docstring, cls.module.file.path, cls.node.lineno)
                break
        told = self.helps.get(name)
        if told is None or from_class is None:
            return told or from_class
        known = {" ".join(text.split()) for _, text in told.examples}
        more = tuple(example for example in from_class.examples if " ".join(example[1].split()) not in known)
        return replace(told, description=told.description or from_class.description, examples=(*told.examples, *more))

    def _function_help(self, name: str) -> Help | None:
        """The docstring of the function behind a command, up to its parameters."""
        command = self.tables.commands.get(name)
        if command is None or command.function is None:
            return None
        docstring = ast.get_docstring(command.function.node) or ""
        words = re.split(r"\n\s*(?::\w|Args:|Parameters\n|Returns?:)", docstring)[0].strip()
        path, line = command.function.module.file.path, command.function.node.lineno
        return docstring_help(words, path, line) if words and not words.startswith(":") else None

    def is_deprecated(self, name: str) -> bool:
        """Whether a command is marked so."""
        if name in self.tables.commands:
            return self.tables.commands[name].deprecated
        return name in self.generated and "deprecate_info" in self.generated[name][1]

    def parameters(self, name: str, told: Help) -> tuple[dict[str, Json], tuple[str, ...]]:
        """The JSON Schema of a command's options, and how it was made where that is worth a word."""
        processing: tuple[str, ...] = ()
        if (cls := self.command_class(name)) is not None:
            schema, processing = self._class_parameters(name, cls)
        else:
            schema = self._table_parameters(name)
        _add_help(schema["properties"], told)
        lines = [line for _, text in told.examples for line in [_only_line(name, text)] if line]
        added = self._seen(name, schema["properties"], lines)
        schema["properties"].update(added)
        if any(option not in GLOBAL for option in added):
            processing += ("parameters from examples",)
        return schema, processing

    def _class_parameters(self, name: str, cls: Class) -> tuple[dict[str, Json], tuple[str, ...]]:
        made = expanded(Root(azure_classes.arguments(self.library, cls)), command_shape)
        schema: dict[str, Json] = {"type": "object", "properties": {}, **made.schema}
        for flag, extras in (("AZ_SUPPORT_GENERIC_UPDATE", GENERIC_UPDATE), ("AZ_SUPPORT_PAGINATION", PAGES)):
            if cls.get(flag) is True:
                _add(schema["properties"], extras)
        if cls.get("AZ_SUPPORT_NO_WAIT") is True:
            _add(schema["properties"], {"no_wait": EVERYWHERE["no_wait"]})
        if name in self.generated and self.generated[name][1].get("confirmation"):
            _add(schema["properties"], {"yes": EVERYWHERE["yes"]})
        if name.endswith(" wait"):
            _add(schema["properties"], WAIT)
        return schema, made.processing

    def _table_parameters(self, name: str) -> dict[str, Json]:
        schema: dict[str, Json] = {"type": "object", "properties": {}}
        if (command := self.tables.commands.get(name)) is None:
            return schema
        required = []
        for argument, settings in azure_tables.arguments(self.tables, command).items():
            described = argument_schema(argument, settings)
            if described is not None:
                schema["properties"][argument] = described
                if settings.get("required") is True and "default" not in described:
                    required.append(argument)
        if required:
            schema["required"] = required
        return schema

    def _seen(self, name: str, properties: Mapping[str, Json], lines: list[CommandLine]) -> dict[str, dict[str, Json]]:
        """Options of the examples that the command's own definition does not tell: registered ones, or global ones."""
        taken = {spelling for schema in properties.values() for spelling in str(schema.get(CLI_OPTION, "")).split()}
        missing = [option for line in lines for option in line.options if option not in taken]
        if not missing:
            return {}
        known = {**GLOBAL, **self.tables.known(name)}
        made: dict[str, dict[str, Json]] = {}
        for argument, settings in reversed(known.items()):  # of two with one spelling the nearer one is the command's
            schema = argument_schema(argument, settings)
            spellings = set(str(schema[CLI_OPTION]).split()) if schema else set()
            if schema and argument not in properties and spellings & set(missing):
                made[argument] = schema
                missing = [option for option in missing if option not in spellings]
        return dict(reversed(made.items()))


def _arguments_only(path: str, text: str) -> str:
    """Of a generated command class the part that builds its arguments; what follows sends requests and is larger."""
    return text.partition("\n    def _execute_operations(self)")[0] if "/aaz/" in path else text


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _add(properties: dict[str, Json], extras: Mapping[str, Mapping[str, Any]]) -> None:
    for name, settings in extras.items():
        schema = argument_schema(name, settings)
        if schema is not None and name not in properties:
            properties[name] = schema


def _add_help(properties: dict[str, Json], told: Help) -> None:
    """Descriptions that the help text has for parameters which have none of their own."""
    for schema in properties.values():
        for option in str(schema.get(CLI_OPTION, "")).split():
            if option in told.parameters and not schema.get("description"):
                schema["description"] = told.parameters[option]


def _only_line(name: str, text: str) -> CommandLine | None:
    commands = split_commands(text)
    return parsed(commands[0], ["az", *name.split()]) if len(commands) == 1 else None


def _examples(name: str, told: Help, parameters: Mapping[str, Json]) -> Iterator[ApiExample]:
    for title, text in told.examples:
        if len(text) > LONGEST_EXAMPLE:
            continue
        line = _only_line(name, text)
        given = arguments_of(line, parameters["properties"]) if line else None
        yield ApiExample(
            call=text.strip(),
            intent=title or None,
            arguments=None if given is None else fitting(given, parameters),
        )
