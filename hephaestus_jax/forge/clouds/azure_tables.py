"""Azure's older commands: tables of commands, arguments registered for them, and the functions behind them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.forge.clouds.azure_arguments import EVERYWHERE, GENERIC_UPDATE, WAIT, merged
from hephaestus_jax.forge.clouds.python_values import (
    UNKNOWN,
    Called,
    Class,
    Dotted,
    Event,
    Follower,
    Function,
    ItemSet,
    Library,
    Module,
)

_SCOPES = frozenset(["argument_context", "AzArgumentContext"])
_GROUPS = frozenset(["command_group", "AzCommandGroup"])
_GIVEN = frozenset(["cmd", "client", "self", "instance", "cli_ctx", "kwargs", "args", "ctx"])
_PARAM = re.compile(r"^\s*:param\s+(?:\w+\s+)?(\w+):[ \t]*(.*(?:\n(?!\s*:|\s*\n).*)*)", re.MULTILINE)
_TEMPLATE = re.compile(r"([\w.]+)#(?:(\w+)\.)?\{\}")


@dataclass(eq=False)
class Registered:
    """An older command: the function behind it, where known, and what kind of command it is."""

    name: str
    function: Function | None
    is_update: bool = False
    is_wait: bool = False
    confirms: bool = False
    deprecated: bool = False


@dataclass(eq=False)
class Tables:
    """What the files of a command module register."""

    commands: dict[str, Registered] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)  # put into the table of commands as they are
    contexts: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # scope -> argument -> settings

    def settings(self, command: str, argument: str) -> dict[str, Any]:
        """What is registered for an argument of a command: of the wider scopes first, the narrower ones win."""
        made = dict(EVERYWHERE.get(argument, {}))
        words = command.split()
        for count in range(len(words) + 1):
            made.update(self.contexts.get(" ".join(words[:count]), {}).get(argument, {}))
        return made

    def known(self, command: str) -> dict[str, dict[str, Any]]:
        """All arguments that are registered for a command or a scope around it."""
        words = command.split()
        names = dict.fromkeys(EVERYWHERE)
        for count in range(len(words) + 1):
            names.update(dict.fromkeys(self.contexts.get(" ".join(words[:count]), {})))
        return {name: self.settings(command, name) for name in names}


def tables(library: Library, modules: list[Module], owner: str) -> Tables:
    """Follows the functions of some modules and collects what they register.

    Args:
        library: resolves names of other modules.
        modules: those of the command module, `owner` its dotted name.
    """
    made = Tables()
    for module in modules:
        for event in _events(library, module):
            if isinstance(event, ItemSet):
                if isinstance(event.key, str) and isinstance(event.value, Called) and isinstance(event.value.of, Class):
                    made.classes[event.key] = event.value.of
            elif event.function == "add_argument":
                _add_argument(made, event)
            elif isinstance(event.of, Called):
                if event.of.function in _GROUPS:
                    _register(made, library, event, event.of, owner)
                elif event.of.function in _SCOPES:
                    _argument(made, event, event.of)
    return made


def _events(library: Library, module: Module) -> Iterator[Event]:
    """What the functions and methods of a module that load commands or arguments do."""
    for node in module.tree.body if module.tree else ():
        methods = [node] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        for method in methods:
            if not _mentions(method):
                continue
            follower = Follower(library, module)
            scope = dict(module.names)
            scope.update({arg.arg: Dotted(arg.arg) for arg in method.args.args})
            follower.follow(method.body, scope)
            yield from follower.events


def _mentions(method: ast.FunctionDef) -> bool:
    names = {node.attr for node in ast.walk(method) if isinstance(node, ast.Attribute)}
    return bool(names & (_SCOPES | _GROUPS | {"command_table", "add_argument"}))


def _argument(made: Tables, event: Called, context: Called) -> None:
    scope = context.args[0] if context.args else context.kwargs.get("command_scope", context.kwargs.get("scope", ""))
    if scope is UNKNOWN or not isinstance(scope, str) or not event.args or not isinstance(event.args[0], str):
        return
    at = made.contexts.setdefault(" ".join(scope.split()), {})
    name = event.args[0]
    if event.function == "ignore":
        for ignored in event.args:
            if isinstance(ignored, str):
                at[ignored] = {"ignored": True}
    elif event.function in ("argument", "extra", "positional") or event.function.startswith(("register_", "extra_")):
        settings = merged(event.args[1:], event.kwargs)
        if event.function == "extra":
            settings["extra"] = True
        if event.function == "positional":
            settings.setdefault("options", [name.upper()])
        at[name] = {**at.get(name, {}), **settings}


def _add_argument(made: Tables, event: Called) -> None:
    """`command.add_argument("account_name", "--account-name", ...)`: for any command of the module."""
    options = [option for option in event.args[1:] if isinstance(option, str)]
    if event.args and isinstance(name := event.args[0], str) and options and options[0].startswith("-"):
        settings = {**merged((), {k: v for k, v in event.kwargs.items() if k != "required"}), "options": options}
        made.contexts.setdefault("", {}).setdefault(name, settings)


def _register(made: Tables, library: Library, event: Called, group: Called, owner: str) -> None:
    prefix = group.args[0] if group.args else group.kwargs.get("group_name", "")
    if not isinstance(prefix, str) or not event.args or not isinstance(event.args[0], str):
        return
    kind = event.function
    if not re.search(r"command|custom|^show$|^wait$", kind) or kind in ("command_group",):
        return
    name = " ".join(f"{prefix} {event.args[0]}".split())
    is_update, custom = "generic_update" in kind, "custom" in kind
    target = event.kwargs.get("custom_func_name") if is_update else event.args[1] if len(event.args) > 1 else None
    function = None
    if isinstance(target, str):
        function = _function(library, target, _template(event, group, custom or is_update), owner)
    made.commands[name] = Registered(
        name,
        function,
        is_update=is_update,
        is_wait="wait" in kind,
        confirms=bool(event.kwargs.get("confirmation")),
        deprecated=isinstance(event.kwargs.get("deprecate_info"), Called),
    )


def _template(event: Called, group: Called, custom: bool) -> str:
    """Where the functions of a table are: "module#Class.{}"; "" if it does not say."""
    places = [event.kwargs.get("custom_command_type"), group.kwargs.get("custom_command_type")] if custom else []
    places += [event.kwargs.get("command_type"), group.args[1] if len(group.args) > 1 else None]
    places.append(group.kwargs.get("command_type"))
    for place in places if not custom else places[:2]:
        if isinstance(place, Called) and isinstance(template := place.kwargs.get("operations_tmpl"), str):
            return template
    return "" if not custom else "custom"


def _function(library: Library, target: str, template: str, owner: str) -> Function | None:
    if "#" in target:
        template, target = target.rpartition("#")[0] + "#{}", target.rpartition("#")[2]
    if template == "custom":
        template = f"{owner}.custom#{{}}"
    found = _TEMPLATE.fullmatch(template)
    if found is None or not found[1].startswith("azure.cli."):
        return None
    value = library.resolve(".".join(filter(None, [found[1], target if not found[2] else found[2]])))
    if found[2] and isinstance(value, Class):
        value = value.get(target)
    return value if isinstance(value, Function) else None


def arguments(made: Tables, command: Registered) -> dict[str, dict[str, Any]]:
    """The arguments of an older command, with what is registered for them, in the order of its function."""
    found: dict[str, dict[str, Any]] = {}
    for name, stated in _signature(command.function):
        registered = made.settings(command.name, name)
        found[name] = {**stated, **registered}
        if "options" not in registered and registered.get("help") is None and stated.get("help"):
            found[name]["help"] = stated["help"]
    for name, settings in made.known(command.name).items():
        if settings.get("extra"):
            found.setdefault(name, settings)
    if command.is_update:
        found.update({name: dict(stated) for name, stated in GENERIC_UPDATE.items()})
    if command.is_wait:
        found.update({name: dict(stated) for name, stated in WAIT.items()})
    if command.confirms:
        found.setdefault("yes", dict(EVERYWHERE["yes"]))
    return found


def _signature(function: Function | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each parameter of a function: required if it has no default; a boolean default makes it a flag."""
    if function is None:
        return
    spec = function.node.args
    named = [*spec.posonlyargs, *spec.args]
    defaults: list[ast.expr | None] = [None] * (len(named) - len(spec.defaults)) + list(spec.defaults)
    defaults += list(spec.kw_defaults)
    told = _told(ast.get_docstring(function.node) or "")
    for parameter, default in zip([*named, *spec.kwonlyargs], defaults, strict=True):
        name = parameter.arg
        if name in _GIVEN or name.startswith("_"):
            continue
        settings: dict[str, Any] = {"required": default is None}
        if isinstance(default, ast.Constant) and isinstance(default.value, bool):
            settings["action"] = "store_false" if default.value else "store_true"
        elif isinstance(default, ast.Constant) and default.value is not None:
            settings["default"] = default.value
        if name in told:
            settings["help"] = told[name]
        yield name, settings


def _told(docstring: str) -> Mapping[str, str]:
    return {found[1]: " ".join(found[2].split()) for found in _PARAM.finditer(docstring)}
