"""Options of commands as parameters: their types, as far as examples tell, and a command line's values by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hephaestus_jax.forge.clouds.command_lines import CommandLine
from hephaestus_jax.formats.records import Json

CLI_OPTION = "x-cli-option"  # how a parameter is written on the command line
# Options of every command, which have one value; the words are ours.
_EVERYWHERE = {
    "--region": "The region to use, instead of the one that the configuration or the environment names.",
    "--profile": "The profile of the configuration whose credentials and settings are used.",
    "--output": "The format of the output: json, text or table.",
    "--query": "A JMESPath expression that selects what is shown of the response.",
    "--endpoint-url": "The URL to send the request to, instead of the service's own.",
    "--color": "Whether the output is in color: on, off or auto.",
    "--cli-input-json": "The arguments as JSON, or a file:// path to it; options on the command line come first.",
    "--generate-cli-skeleton": "Prints a template of the arguments or of the output, and sends no request.",
    "--max-items": "The maximum number of items to return; where there are more, the output holds a token to go on.",
    "--starting-token": "The token that the output of an earlier, cut command holds: where to go on.",
    "--page-size": "The number of items that are asked of the service with each request; it changes no output.",
    "--no-paginate": "Makes one request only, for the first page of results.",
    "--no-sign-request": "Sends the request without credentials.",
    "--no-verify-ssl": "Does not verify the certificate of the service.",
    "--dry-run": "Checks whether the request is permitted, without making it.",
    "--debug": "Shows debug logging.",
    "--no-cli-pager": "Does not send the output through a pager.",
}
_SWITCHES = frozenset(
    ["--no-paginate", "--no-sign-request", "--no-verify-ssl", "--dry-run", "--no-dry-run", "--debug", "--no-cli-pager"]
)
_WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,8})")
# Names of options whose value is a number, and of those that only look so.
_COUNTS = re.compile(
    r"^--(?:max|maximum|min|minimum|num|number|desired|total|target)-|-?\b(?:count|size|limit|results|items|priority|period|"
    r"capacity|port|seconds|minutes|hours|days|years|millis|number|validity|duration|length|iops|storage|throughput|"
    r"threshold|interval|units|quantity|vlan|asn|mtu|index|precedence|timeout|attempts|weight|order|quota|cutoff)$"
)
_NO_COUNT = re.compile(
    r"(?:id|arn|code|time|date|name|token|key|type|phone-number|serial-number|account-number|password|url|errors|concurrency)$"
)
# Names of options that take a list, where the examples give it one item.
_SEVERAL = re.compile(
    r"-(?:ids|arns|names|keys|filters|specifications|operations|groups|types|addresses|targets|regions|instances|"
    r"versions|identifiers|zones|certificates|statistics|providers|descriptors|subnets|principals|statuses|processes|ips|list)$"
)


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

    An option that never has a value is a boolean, one with several values somewhere an array, one with whole numbers
    and a name that counts an integer; else a string.
    """
    seen: dict[str, list[tuple[str, ...]]] = {}
    for line in lines:
        for option, values in line.options.items():
            seen.setdefault(option, []).append(values)
    made: dict[str, dict[str, Json]] = {}
    for option, found in seen.items():
        schema: dict[str, Json] = {**_seen_type(option, found), CLI_OPTION: option}
        if option in _EVERYWHERE:
            schema["description"] = _EVERYWHERE[option]
        made[property_name(option)] = schema
    return made


def _seen_type(option: str, found: list[tuple[str, ...]]) -> dict[str, Json]:
    words = [word for values in found for word in values]
    most, fewest = max(map(len, found)), min(map(len, found))
    if option in _EVERYWHERE:
        whole = option in ("--max-items", "--page-size")
        return {"type": "boolean" if option in _SWITCHES else "integer" if whole else "string"}
    if most == 0:
        return {"type": "boolean"}
    if most > 1:
        return {"type": "array", "items": {"type": "string"}}
    if not fewest:
        return {"type": ["string", "boolean"]}
    if all(map(_WHOLE.fullmatch, words)) and _COUNTS.search(option) and not _NO_COUNT.search(option):
        return {"type": "integer"}
    as_json = any(word.startswith(("{", "[", "file://")) for word in words)
    if not as_json and (_SEVERAL.search(option) or (option == "--tags" and all(w.startswith("Key=") for w in words))):
        return {"type": "array", "items": {"type": "string"}}
    return {"type": "string"}


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
