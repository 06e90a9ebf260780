"""Options of commands as parameters: their types, as far as examples tell, and a command line's values by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hephaestus_jax.forge.clouds.command_lines import CommandLine
from hephaestus_jax.formats.records import Json

CLI_OPTION = "x-cli-option"  # how a parameter is written on the command line
_GLOBAL = frozenset(["--region", "--profile", "--output", "--query", "--endpoint-url", "--color"])  # have one value


def usage(name: str, parameters: Mapping[str, Json], most: int = 24) -> str:
    """A command with its options as manuals write it: `az group show --name|-n NAME [--output|-o OUTPUT]`."""
    required = parameters.get("required", ())
    parts = []
    properties = sorted(parameters["properties"].items(), key=lambda item: item[0] not in required)
    for key, schema in properties[:most]:
        spellings = str(schema.get(CLI_OPTION, "")).split()
        value = "" if schema.get("type") == "boolean" else key.upper().replace("_", "-")
        value += " ..." if schema.get("type") == "array" else ""
        is_option = bool(spellings) and spellings[0].startswith("-")
        shown = " ".join(filter(None, ["|".join(spellings) if is_option else "", value]))
        parts.append(shown if key in required else f"[{shown}]")
    return " ".join([name, *parts, *(["[...]"] if len(properties) > most else [])])


def property_name(option: str) -> str:
    """The parameter that an option is: "--instance-ids" is "instance_ids"."""
    return option.lstrip("-").replace("-", "_").replace(".", "_")


def seen_properties(lines: Iterable[CommandLine]) -> dict[str, dict[str, Json]]:
    """Schemas of the options of some command lines, in the order of their appearance.

    An option that never has a value is a boolean, one with several values somewhere an array, else a string.
    """
    counts: dict[str, list[int]] = {}
    for line in lines:
        for option, values in line.options.items():
            counts.setdefault(option, []).append(len(values))
    made: dict[str, dict[str, Json]] = {}
    for option, found in counts.items():
        if max(found) == 0:
            kind: dict[str, Json] = {"type": "boolean"}
        elif max(found) == 1 or option in _GLOBAL:
            kind = {"type": "string" if min(found) else ["string", "boolean"]}
        else:
            kind = {"type": "array", "items": {"type": "string"}}
        made[property_name(option)] = {**kind, CLI_OPTION: option}
    return made


def arguments_of(line: CommandLine, properties: Mapping[str, Json]) -> dict[str, Json] | None:
    """The values of a command line by parameter; None if an option is none of the parameters or has a wrong value.

    Args:
        line: the command line.
        properties: schemas with the option's spellings under "x-cli-option", separated by spaces; one without dashes
            is positional.
    """
    names = {
        spelling: name for name, schema in properties.items() for spelling in str(schema.get(CLI_OPTION, "")).split()
    }
    made: dict[str, Json] = {}
    for option, values in line.options.items():
        name = names.get(option)
        if name is None:
            return None
        fits, value = typed(values, properties[name])
        if not fits:
            return None
        made[name] = value
    return made if _place_positional(line.positional, names, properties, made) else None


def _place_positional(
    given: tuple[str, ...], names: Mapping[str, str], properties: Mapping[str, Json], made: dict[str, Json]
) -> bool:
    waiting = [name for spelling, name in names.items() if not spelling.startswith("-")]
    rest = list(given)
    for name in waiting:
        if not rest:
            break
        if properties[name].get("type") == "array":
            made[name], rest = rest, []
        else:
            made[name] = rest.pop(0)
    return not rest


def typed(values: tuple[str, ...], schema: Mapping[str, Json]) -> tuple[bool, Json]:
    """Whether the words after an option are a value of the schema's type, and which."""
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not values:
        return ("boolean" in kinds, True) if "array" not in kinds else (True, [])
    if "array" in kinds:
        inner = schema.get("items")
        parts = [typed((value,), inner if isinstance(inner, Mapping) else {"type": "string"}) for value in values]
        return all(fits for fits, _ in parts), [value for _, value in parts]
    if len(values) > 1:
        return False, None
    word = values[0]
    for kind in kinds:
        if kind == "integer" and word.lstrip("-").isdecimal():
            return True, int(word)
        if kind == "number" and _is_number(word):
            return True, float(word)
        if kind == "boolean" and word.lower() in ("true", "false", "yes", "no", "1", "0"):
            return True, word.lower() in ("true", "yes", "1")
        if kind == "string" or kind is None:
            return True, word
    return False, None


def _is_number(word: str) -> bool:
    try:
        return abs(float(word)) < 1e300
    except ValueError:
        return False
