"""Options of commands, and arguments of C functions, as JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hephaestus_jax.forge.man.blocks import Block
from hephaestus_jax.forge.prose import shortened
from hephaestus_jax.formats.records import Json

MOST_OPTIONS = 400
DESCRIPTION = 1000  # characters
LONGEST_SYNOPSIS = 10_000  # characters in which a prototype is looked for

_BETWEEN = re.compile(r"(?:\s*[,|/]\s*|\s+or\s+|\s{2,}|\s+(?=--?[A-Za-z]))(?=[-+]|\[-)")
_FLAG = re.compile(r"(--?(?:\[no-?\])?[A-Za-z0-9?#@%][\w.:+-]*|-[!$*^&(]|\+[A-Za-z]\w*)(.*)", re.DOTALL)
_DEFAULT = re.compile(r";\s*default=\"([^\"]*)\"")
_NEGATED = re.compile(r"--\[no-?\]")
_PROTOTYPE = r"(?:^|[;\n])\s*([\w\s*]+?)\b{}\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*;"
_INTEGERS = re.compile(
    r"\b(?:int|long|short|unsigned|size_t|ssize_t|off_t|off64_t|pid_t|uid_t|gid_t|mode_t|time_t|u?int\d+_t|socklen_t)\b"
)
_NUMBERS = re.compile(r"\b(?:float|double)\b")
_POINTED = re.compile(r"\(\s*\*\s*(\w+)\s*\)\s*\(")  # to a function
_NAME = re.compile(r"([A-Za-z_]\w*)\s*(?:\[[^\]]*\])*\s*$")


def options_schema(items: Iterable[Block]) -> tuple[dict[str, Json], int]:
    """The options among tagged items, and how many were too many. A name is that of the flag, without its dashes."""
    properties: dict[str, Json] = {}
    dropped = 0
    for item in items:
        flags = _flags(item.tag)
        if not flags:
            continue
        long = [flag for flag, _ in flags if flag.startswith("--")]
        longest = [*(flag for flag in long if not flag.startswith("--no-")), *long, flags[0][0]][0]
        name = longest.lstrip("-+") or longest
        if name in properties:
            continue  # told again, of another mode of the command as a rule
        if len(properties) >= MOST_OPTIONS:
            dropped += 1
            continue
        properties[name] = _option(flags, item)
    return {"type": "object", "properties": properties}, dropped


def _flags(tag: str) -> list[tuple[str, str]]:
    """The flags of a tag, each with its argument ("" if it has none); none if the tag is no option."""
    if not re.match(r"\[?[-+][^\s]", tag) or len(tag) > 400:
        return []
    found = []
    for part in _BETWEEN.split(tag):
        matched = _FLAG.match(part.strip().strip("[]") if part.count("[") != part.count("]") else part.strip())
        if matched:
            found.append((_NEGATED.sub("--", matched[1]).rstrip(":.,"), matched[2].strip().rstrip(",;.")))
    return found


def _option(flags: list[tuple[str, str]], item: Block) -> dict[str, Json]:
    argument = next((argument for _, argument in flags if argument), "")
    optional = argument.startswith("[")
    made: dict[str, Json] = {"type": "boolean"}
    if argument:
        made = {"type": ["boolean", "string"] if optional else "string"}
    tag = _DEFAULT.sub("", item.tag)
    if made["type"] == "string" and (default := _DEFAULT.search(item.tag)):
        made["default"] = default[1]
    written = f"`{tag}`" if "`" not in tag else tag
    text = shortened(item.told(), DESCRIPTION - len(written))
    made["description"] = f"{written}: {text}" if text else written
    return made


def function_schema(synopsis: str, name: str) -> tuple[str, dict[str, Json], Json]:
    """The prototype of a C function in a synopsis, its arguments, and its result; "" if it is not there."""
    text = re.sub(r"/\*[^*]*(?:\*(?!/)[^*]*)*\*/", " ", synopsis[:LONGEST_SYNOPSIS])
    found = re.search(_PROTOTYPE.format(re.escape(name)), text)
    empty: dict[str, Json] = {"type": "object", "properties": {}}
    if not found:
        return "", empty, None
    returned, inside = " ".join(found[1].split()), " ".join(found[2].split())
    properties: dict[str, Json] = {}
    for stated in _split(inside):
        named = _POINTED.search(stated) or _NAME.search(stated)
        if stated in ("void", "...", "") or not named:
            continue
        properties[named[1]] = {**_c_type(stated), "description": f"`{stated}`"}
    schema: dict[str, Json] = {"type": "object", "properties": properties}
    if properties:
        schema["required"] = list(properties)
    result = None if returned.split()[-1:] == ["void"] else {**_c_type(returned + " "), "title": returned}
    return f"{returned} {name}({inside})".replace("* ", "*"), schema, result


def _split(arguments: str) -> list[str]:
    """At the commas that are in no brackets."""
    parts, depth, begin = [], 0, 0
    for index, sign in enumerate(arguments):
        depth += (sign == "(") - (sign == ")")
        if sign == "," and depth == 0:
            parts.append(arguments[begin:index].strip())
            begin = index + 1
    return [*parts, arguments[begin:].strip()]


def _c_type(stated: str) -> dict[str, Json]:
    if re.search(r"\bchar\b[^*]*\*(?!.*\*)", stated):
        return {"type": "string"}
    if "*" in stated or "[" in stated or "(" in stated:
        return {}
    if _INTEGERS.search(stated):
        return {"type": "integer"}
    return {"type": "number"} if _NUMBERS.search(stated) else {}
