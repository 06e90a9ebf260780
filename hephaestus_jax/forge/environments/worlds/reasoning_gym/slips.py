"""Calls that come of a slip: a wrong sign, digits changed over, the wrong order, the wrong base, one place too far."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.reasoning_gym.tools import ToolError, used

_SIGNS = (("+", "-"), ("-", "+"), ("*", "+"), ("/", "*"), ("%", "/"), ("max", "min"))


def slips(call: Call, results: Mapping[str, str]) -> list[Call]:
    """Such calls in place of `call`, that the tool answers otherwise, in a fixed order; none that was made."""
    if call.tool == "submit":
        return [Call("submit", {"answer": text}) for text in dict.fromkeys(_answers(str(call.arguments["answer"])))]
    right = used(call.tool, call.arguments)
    found = {}
    for other in _others(call.tool, call.arguments):
        if other.key in results or other.key in found:
            continue
        try:
            if used(other.tool, other.arguments) != right:
                found[other.key] = other
        except ToolError:
            found[other.key] = other
    return list(found.values())


_OPPOSITES = {"+": "-", "-": "+", "*": "/", "/": "*"}


def check_of(call: Call, result: str) -> Call | None:
    """A call whose result shows whether that of `call` is right; None where there is no simple one."""
    given = call.arguments
    match call.tool:
        case "calculate":
            parts = str(given["expression"]).split(" ")
            if len(parts) == 3 and parts[1] in _OPPOSITES and parts[2] != "0" and not result.startswith("-"):
                return Call("calculate", {"expression": f"{result} {_OPPOSITES[parts[1]]} {parts[2]}"})
        case "reverse_text":
            return Call("reverse_text", {"text": result})
        case "convert_base":
            bases = {"from_base": given["to_base"], "to_base": given["from_base"]}
            return Call("convert_base", {"number": result, **bases})
        case "reverse_items":
            return Call("reverse_items", {"items": result.split(", ")})
    return None


def _others(tool: str, given: Mapping[str, Any]) -> Iterator[Call]:
    match tool:
        case "calculate":
            yield from (Call(tool, {"expression": text}) for text in _expressions(given["expression"]))
        case "sort_items":
            yield Call(tool, {**given, "order": "descending" if given["order"] == "ascending" else "ascending"})
            yield Call(tool, {**given, "by": "text" if given["by"] == "number" else "number"})
            yield Call("reverse_items", {"items": given["items"]})
        case "reverse_items":
            yield Call("sort_items", {**given, "order": "descending", "by": "text"})
            yield Call(tool, {"items": given["items"][:-1] or given["items"]})
        case "reverse_text":
            yield Call("reverse_items", {"items": [given["text"]]})
            yield Call(tool, {"text": given["text"][:-1] or given["text"]})
        case "count_text":
            yield Call(tool, {**given, "part": given["text"][:1]})
            yield Call(tool, {**given, "text": given["text"][: len(given["text"]) // 2]})
            yield Call("reverse_text", {"text": given["text"]})
        case "convert_base":
            yield Call(tool, {**given, "from_base": given["to_base"], "to_base": given["from_base"]})
            yield Call(tool, {**given, "to_base": 10 if given["to_base"] != 10 else 16})
            yield Call("reverse_text", {"text": given["number"]})
        case "shift_letters":
            yield Call(tool, {**given, "places": -given["places"]})
            yield Call("reverse_text", {"text": given["text"]})
        case "move_date":
            yield Call(tool, {**given, "days": -given["days"] or 1})
            yield Call(tool, {**given, "days": given["days"] + 1})
        case "days_between":
            yield Call(tool, {"first": given["last"], "last": given["first"]})
            yield Call("move_date", {"date": given["last"], "days": 0})


def _expressions(expression: str) -> Iterator[str]:
    """A sign taken for another, two digits changed over, the last term forgotten, a bracket too few."""
    for sign, other in _SIGNS:
        at = expression.find(f" {sign} ")
        if at >= 0:
            yield expression[: at + 1] + other + expression[at + 1 + len(sign) :]
    for match in re.finditer(r"(?<![\w.])\d\d+", expression):
        digits = match.group()
        changed = digits[:-2] + digits[-1] + digits[-2]
        if changed != digits and not changed.startswith("0"):
            yield expression[: match.start()] + changed + expression[match.end() :]
            break
    if expression.count("(") == expression.count(")") == 0 and len(parts := re.split(r" ([-+]) ", expression)) > 3:
        yield "".join(f" {part} " if part in "+-" else part for part in parts[:-2])
    if "(" in expression and ")" in expression:
        yield expression.replace(")", "", 1)


def _answers(answer: str) -> Iterator[str]:
    """Forms in which a right result is handed in wrongly."""
    if re.fullmatch(r"-?\d+(\.\d+)?", answer):
        yield answer.removeprefix("-") if answer.startswith("-") else f"-{answer}"
        if "." in answer:
            yield answer.partition(".")[0]
        elif len(answer) > 1:
            yield answer[:-1]
    elif ", " in answer:
        yield ", ".join(answer.split(", ")[:-1])
    elif len(answer) > 3:
        yield answer[:-1]
