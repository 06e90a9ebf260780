"""Arguments of Azure's commands: what they are called, what they take, and where that is stated.

Two kinds of definitions are known: `Argument`s of the older commands (an argparse call in all but name), and `Node`s,
which the generated command classes build into trees. Both become JSON Schemas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.forge.clouds.expand import Member, Shape
from hephaestus_jax.forge.clouds.options import CLI_OPTION
from hephaestus_jax.forge.clouds.python_values import Called, Class, Dotted
from hephaestus_jax.forge.prose import clean, shortened
from hephaestus_jax.formats.records import Json

LONGEST_CHOICE = 200  # characters

# What the command line gives to all commands that need it; the words are ours.
RESOURCE_GROUP = {
    "options": ["--resource-group", "-g"],
    "help": "Name of the resource group; a default can be set with `az configure --defaults group=<name>`.",
}
LOCATION = {
    "options": ["--location", "-l"],
    "help": "Location, one of those that `az account list-locations` prints; a default can be set with "
    "`az configure --defaults location=<location>`.",
}
COMMON: Mapping[str, Mapping[str, Any]] = {
    "resource_group_name_type": RESOURCE_GROUP,
    "get_location_type": LOCATION,
    "name_type": {"options": ["--name", "-n"], "help": "Name of the resource."},
    "tags_type": {"options": [], "help": "Space-separated tags: `key[=value] [key[=value] ...]`.", "nargs": "*"},
    "tag_type": {"options": [], "help": "A single tag in the format `key[=value]`.", "nargs": "?"},
    "no_wait_type": {
        "options": ["--no-wait"],
        "help": "Do not wait for the operation to finish.",
        "action": "store_true",
    },
    "zones_type": {
        "options": ["--zones", "-z"],
        "help": "Space-separated availability zones to put the resource into.",
        "nargs": "+",
    },
    "zone_type": {"options": ["--zone", "-z"], "help": "Availability zone to put the resource into."},
    "edge_zone_type": {"options": ["--edge-zone"], "help": "Name of the edge zone."},
    "get_three_state_flag": {"three_state": True},
    "vnet_name_type": {},
    "subnet_name_type": {},
    "deployment_name_type": {"ignored": True},
    "ignore_type": {"ignored": True},
    "file_type": {},
}
EVERYWHERE: Mapping[str, Mapping[str, Any]] = {
    "resource_group_name": RESOURCE_GROUP,
    "location": LOCATION,
    "no_wait": COMMON["no_wait_type"],
    "yes": {"options": ["--yes", "-y"], "help": "Do not ask for confirmation.", "action": "store_true"},
}
GLOBAL: Mapping[str, Mapping[str, Any]] = {
    "subscription": {"options": ["--subscription"], "help": "Name or ID of the subscription."},
    "query": {"options": ["--query"], "help": "JMESPath expression that is applied to the output."},
    "output": {"options": ["--output", "-o"], "help": "Format of the output."},
    "ids": {
        "options": ["--ids"],
        "help": "Resource IDs that stand for the arguments which name a resource.",
        "nargs": "+",
    },
    "debug": {"options": ["--debug"], "help": "Show all logs.", "action": "store_true"},
    "verbose": {"options": ["--verbose"], "help": "Show more logs.", "action": "store_true"},
    "only_show_errors": {"options": ["--only-show-errors"], "help": "Show errors only.", "action": "store_true"},
}
GENERIC_UPDATE: Mapping[str, Mapping[str, Any]] = {
    "properties_to_set": {
        "options": ["--set"],
        "help": "Sets properties of the object by path and value: `property1.property2=<value>`.",
        "nargs": "+",
    },
    "properties_to_add": {
        "options": ["--add"],
        "help": "Adds an object to a list by path and key value pairs: `property.list <key=value or JSON string>`.",
        "nargs": "+",
    },
    "properties_to_remove": {
        "options": ["--remove"],
        "help": "Removes a property or an element of a list: `property.list <index>` or `propertyToRemove`.",
        "nargs": "+",
    },
    "force_string": {
        "options": ["--force-string"],
        "help": "Keeps string literals of `--set` and `--add` instead of reading them as JSON.",
        "action": "store_true",
    },
}
WAIT: Mapping[str, Mapping[str, Any]] = {
    name: {"options": [f"--{name}"], "help": words, "action": "store_true"}
    for name, words in (
        ("created", "Wait until the resource is created."),
        ("updated", "Wait until the resource is updated."),
        ("deleted", "Wait until the resource is deleted."),
        ("exists", "Wait until the resource exists."),
    )
} | {
    "custom": {"options": ["--custom"], "help": "Wait until the condition, a JMESPath expression, holds."},
    "interval": {"options": ["--interval"], "help": "Seconds between two polls.", "type": "integer"},
    "timeout": {"options": ["--timeout"], "help": "Maximum number of seconds to wait.", "type": "integer"},
}
PAGES: Mapping[str, Mapping[str, Any]] = {
    "max_items": {"options": ["--max-items"], "help": "Maximum number of items to return.", "type": "integer"},
    "next_token": {
        "options": ["--next-token"],
        "help": "Token of the page to begin with, as an earlier, cut list printed it.",
    },
}

_KINDS = {
    "AAZIntArg": "integer",
    "AAZBoolArg": "boolean",
    "AAZFloatArg": "number",
    "AAZListArg": "array",
    "AAZObjectArg": "object",
    "AAZIdentityObjectArg": "object",
    "AAZDictArg": "object",
    "AAZFreeFormDictArg": "object",
    "AAZAnyTypeArg": "",
    "AAZPaginationLimitArg": "integer",
    "AAZSystemAssignedFlagArg": "string",
    "AAZUserAssignedIdentityArg": "array",
}
_FORMATS = {"AAZDateArg": "date", "AAZTimeArg": "time", "AAZDateTimeArg": "date-time", "AAZDurationArg": "duration"}


@dataclass(eq=False)
class Node:
    """An argument of a generated command class, with its parts: fields by name, or "Element"."""

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: dict[str, Node] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)  # what a subclass sets afterwards: "_required"

    @property
    def required(self) -> bool:
        form = self.settings.get("fmt")
        if self.kind == "AAZResourceLocationArg" and isinstance(form, Node) and form.settings.get("resource_group_arg"):
            return False  # the location of the resource group is taken
        return self.changed.get("_required", self.settings.get("required")) is True

    @property
    def registered(self) -> bool:
        return self.changed.get("_registered", True) is not False

    @property
    def options(self) -> list[str]:
        stated = self.changed.get("_options", self.settings.get("options"))
        if isinstance(stated, list | tuple):
            return [option for option in stated if isinstance(option, str)]
        common = {"AAZResourceGroupNameArg": RESOURCE_GROUP, "AAZResourceLocationArg": LOCATION}.get(self.kind)
        return list(common["options"]) if common else []


def node_shape(node: Node) -> Shape:
    """One level of an argument's schema."""
    kind = _KINDS.get(node.kind, "string")
    told: dict[str, Json] = {"type": kind} if kind else {}
    if words := _help(node.changed.get("_help", node.settings.get("help")), node.kind):
        told["description"] = words
    if form := _FORMATS.get(node.kind):
        told["format"] = form
    choices = _choices(node.settings.get("enum"))
    if choices and kind == "string" and node.settings.get("enum_support_extension") is not True:
        told["enum"] = choices
    default = node.settings.get("default")
    if _is_default(default, kind, choices):
        told["default"] = default
    name = f"{id(node)}"
    if kind == "array":
        return Shape(told, name, items=node.parts.get("Element", Node("AAZStrArg")))
    if kind == "object" and "Element" in node.parts:
        return Shape(told, name, values=node.parts["Element"])
    if kind != "object":
        return Shape(told)
    members = (
        Member(max(part.options or [key], key=len).lstrip("-"), part, part.required)
        for key, part in node.parts.items()
        if part.registered
    )
    return Shape(told, name, members=tuple({member.name: member for member in members}.values()))


@dataclass(frozen=True)
class Root:
    """All arguments of a command, for `expand.expanded`."""

    nodes: Mapping[str, Node]


def command_shape(described: Any) -> Shape:
    """`node_shape`, and the top of a command: its arguments by the names that programs have for them."""
    if isinstance(described, Root):
        members = tuple(
            Member(name, _Top(name, node), node.required) for name, node in described.nodes.items() if node.registered
        )
        return Shape({"type": "object"}, members=members)
    if isinstance(described, _Top):
        shape = node_shape(described.node)
        options = described.node.options or [f"--{described.name.replace('_', '-')}"]
        return Shape({**shape.told, CLI_OPTION: spelled(options)}, shape.name, shape.members, shape.items, shape.values)
    return node_shape(described)


@dataclass(frozen=True)
class _Top:
    name: str
    node: Node


def spelled(options: list[str]) -> str:
    """The spellings of an option, the long ones first."""
    return " ".join(dict.fromkeys(sorted(options, key=lambda option: not option.startswith("--"))))


def settings_of(value: Any, depth: int = 6) -> dict[str, Any]:
    """What an argument type of the older commands says: keywords of `argument`, with "options" for the spellings."""
    if depth <= 0:
        return {}
    if isinstance(value, Dotted):
        return dict(COMMON.get(value.name.rpartition(".")[2], {}))
    if not isinstance(value, Called):
        return {}
    if value.function in ("get_enum_type", "get_enum_choices") and value.args:
        return {"choices": value.args[0], **({"default": value.kwargs["default"]} if "default" in value.kwargs else {})}
    if value.function == "get_datetime_type":
        return {"help": value.kwargs.get("help")}
    if value.function in COMMON:
        return dict(COMMON[value.function])
    if not value.function.endswith("ArgumentType"):
        return {}
    return merged(value.args, value.kwargs, depth)


def merged(types: tuple[Any, ...], keywords: Mapping[str, Any], depth: int = 6) -> dict[str, Any]:
    """Argument types with the keywords given beside them, which win."""
    made: dict[str, Any] = {}
    for value in (*types, keywords.get("overrides"), keywords.get("arg_type")):
        made.update(settings_of(value, depth - 1))
    stated = {key: value for key, value in keywords.items() if key not in ("overrides", "arg_type")}
    if "options_list" in stated:
        options = stated.pop("options_list")
        options = [options] if isinstance(options, str) else options
        if isinstance(options, list | tuple):
            stated["options"] = [spelling for option in options if (spelling := _spelling(option))]
    made.update({key: value for key, value in stated.items() if value is not None})
    return made


def _spelling(option: Any) -> str:
    if isinstance(option, str):
        return option
    if isinstance(option, Called) and isinstance(target := option.kwargs.get("target"), str):  # c.deprecate(...)
        return target
    return ""


def argument_schema(name: str, settings: Mapping[str, Any]) -> dict[str, Json] | None:
    """The JSON Schema of an argument of an older command; None if users do not see it."""
    if settings.get("ignored") or isinstance(settings.get("help"), Dotted):  # argparse.SUPPRESS
        return None
    schema: dict[str, Json] = {"type": _type(settings)}
    if schema["type"] == "array":
        schema["items"] = {"type": "integer" if _is_named(settings.get("type"), "int") else "string"}
    if words := _help(settings.get("help"), ""):
        schema["description"] = shortened(words, 1_000)
    choices = _choices(settings.get("choices"))
    if choices and schema["type"] == "string":
        schema["enum"] = choices
    elif choices and schema["type"] == "array" and schema["items"]["type"] == "string":
        schema["items"]["enum"] = choices
    default = settings.get("default")
    if _is_default(default, str(schema["type"]), choices):
        schema["default"] = default
    if isinstance(settings.get("deprecate_info"), Called):
        schema["deprecated"] = True
    options = settings.get("options") or [f"--{name.replace('_', '-')}"]
    schema[CLI_OPTION] = spelled(list(options))
    return schema


def _type(settings: Mapping[str, Any]) -> str:
    action, count, kind = settings.get("action"), settings.get("nargs"), settings.get("type")
    if kind in ("integer", "boolean"):
        return kind
    if action in ("store_true", "store_false") or settings.get("three_state"):
        return "boolean"
    if count in ("+", "*") or (type(count) is int and count > 1) or action == "append":
        return "array"
    if _is_named(kind, "int"):
        return "integer"
    return "number" if _is_named(kind, "float") else "string"


def _is_named(value: Any, name: str) -> bool:
    return isinstance(value, Dotted) and value.name == name


def _choices(stated: Any) -> list[str]:
    """Values of an enumeration: of a list, the keys of a dictionary, or the values of an `Enum` class."""
    if isinstance(stated, Called) and len(stated.args) == 1:  # CaseInsensitiveList([...]), sorted(...), list(...)
        stated = stated.args[0]
    if isinstance(stated, Class):
        stated = [value for key, value in stated.attributes.items() if not key.startswith("_")]
    if isinstance(stated, Mapping):
        stated = list(stated)
    if not isinstance(stated, list | tuple) or not stated:
        return []
    if not all(isinstance(value, str) and 0 < len(value) <= LONGEST_CHOICE for value in stated):
        return []
    return list(dict.fromkeys(stated))


def _is_default(value: Any, kind: str, choices: list[str]) -> bool:
    if kind == "string":
        return isinstance(value, str) and value != "" and (not choices or value in choices)
    if kind == "boolean":
        return isinstance(value, bool)
    numbers: dict[str, Any] = {"integer": int, "number": int | float}
    return kind in numbers and isinstance(value, numbers[kind]) and not isinstance(value, bool)


def _help(stated: Any, kind: str) -> str:
    if isinstance(stated, Mapping):
        stated = "\n\n".join(_lines(stated))
    if isinstance(stated, str):
        return clean(stated)
    common = {"AAZResourceGroupNameArg": RESOURCE_GROUP, "AAZResourceLocationArg": LOCATION}.get(kind)
    return str(common["help"]) if common else ""


def _lines(stated: Mapping[Any, Any]) -> Iterator[str]:
    for key in ("short-summary", "long-summary"):
        if isinstance(words := stated.get(key), str):
            yield words
