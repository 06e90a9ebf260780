"""Calls of tools, and the parsers that read them back out of an assistant's text.

A parser is told the family and gets the text of one assistant turn, control tokens spelled out. Text around calls is
passed over; something that opens like a call and is none raises `MalformedCallError`. Every parser runs in time linear
in the text.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Json


@dataclass(frozen=True)
class Call:
    """A call of a tool: its name and its arguments, a JSON object."""

    name: str
    arguments: dict[str, Json] = field(default_factory=dict)


class MalformedCallError(ValueError):
    """Text that opens like a call and cannot be read as one; `position` counts characters of the parsed text."""

    def __init__(self, reason: str, position: int):
        super().__init__(f"malformed call at character {position}: {reason}")
        self.reason = reason
        self.position = position


def parse_calls(family: str, text: str) -> list[Call]:
    """The calls in one assistant turn, in order.

    Args:
        family: "llama3", "mistral", "hermes", "react" or "code_action".
        text: what the assistant wrote, control tokens spelled out (Llama's `<|python_tag|>` and Mistral's
            `[TOOL_CALLS]` are what mark code and calls).

    Returns:
        The calls; code is a call of the tool named after its language with one argument `code`.

    Raises:
        MalformedCallError: a call is cut short, is not valid JSON (or Python), or lacks name or arguments.
        UserError: the family is unknown.
    """
    if family not in _PARSERS:
        raise UserError(f"no parser for calls of family {family!r}; use one of {', '.join(sorted(_PARSERS))}")
    return _PARSERS[family](text)


# A number of a few thousand digits overflows Python's limit (ValueError); deep nesting exhausts the parser's stack.
_UNREADABLE = (ValueError, SyntaxError, RecursionError, MemoryError)
_DECODER = json.JSONDecoder()
_WHITESPACE = re.compile(r"\s*")


def _read_json(text: str, start: int) -> tuple[Json, int]:
    """The JSON value that begins at `start` (white space skipped) and the position behind it."""
    start = _skip(text, start)
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise MalformedCallError(f"not valid JSON ({error.msg})", max(start, error.pos)) from error
    except _UNREADABLE as error:
        raise MalformedCallError(f"unreadable JSON ({error})", start) from error


def _skip(text: str, start: int) -> int:
    match = _WHITESPACE.match(text, start)
    assert match is not None
    return match.end()


def _call(value: Json, arguments_key: str, position: int) -> Call:
    if not isinstance(value, dict):
        raise MalformedCallError("a call must be a JSON object", position)
    name, arguments = value.get("name"), value.get(arguments_key)
    if not isinstance(name, str) or not name:
        raise MalformedCallError('"name" must be a string', position)
    if not isinstance(arguments, dict):
        raise MalformedCallError(f'"{arguments_key}" must be a JSON object', position)
    return Call(name, arguments)


# Llama 3.x

_LLAMA_END = re.compile(r"(?:<\|eot_id\|>|<\|eom_id\|>)\s*\Z")
_LLAMA_OPENING = re.compile(r'\{\s*"(?:type|name)"\s*:|<\|python_tag\|>')
_LLAMA_BUILTIN = re.compile(r'\s*(brave_search|wolfram_alpha|photogen)\.call\(query="([^"]*)"\)\s*')
_LLAMA_BETWEEN = re.compile(r"[\s;]*")


def _parse_llama3(text: str) -> list[Call]:
    text = _LLAMA_END.sub("", text)
    calls: list[Call] = []
    position = 0
    while match := _LLAMA_OPENING.search(text, position):
        if not match[0].startswith("{"):
            return calls + _llama_tagged(text[match.end() :])
        value, position = _read_json(text, match.start())
        # an object that has a name and no parameters is prose about data, unless it says that it is a function
        if value.get("type") == "function" or "parameters" in value:
            calls.append(_call(value, "parameters", match.start()))
    return calls


def _llama_tagged(text: str) -> list[Call]:
    """What stands behind `<|python_tag|>`: a call of a built-in tool, calls as JSON and nothing else, or Python."""
    if match := _LLAMA_BUILTIN.fullmatch(text):
        return [Call(match[1], {"query": match[2]})]
    try:
        calls, position = [], _skip(text, 0)
        while position < len(text):
            value, end = _read_json(text, position)
            calls.append(_call(value, "parameters", position))
            position = _LLAMA_BETWEEN.match(text, end).end()  # type: ignore[union-attr]  # it matches anywhere
    except MalformedCallError:
        calls = []
    return calls or [Call("python", {"code": text})]


# Mistral

_MISTRAL_MARK = "[TOOL_CALLS]"


def _parse_mistral(text: str) -> list[Call]:
    calls: list[Call] = []
    position = text.find(_MISTRAL_MARK)
    while position >= 0:
        start = _skip(text, position + len(_MISTRAL_MARK))
        value, end = _read_json(text, start)
        if not isinstance(value, list):
            raise MalformedCallError("calls must be a JSON list", start)
        calls += [_call(item, "arguments", start) for item in value]
        position = text.find(_MISTRAL_MARK, end)
    return calls


# Hermes, Qwen

_HERMES_OPENING, _HERMES_CLOSING = "<tool_call>", "</tool_call>"


def _parse_hermes(text: str) -> list[Call]:
    calls: list[Call] = []
    position = text.find(_HERMES_OPENING)
    while position >= 0:
        start = _skip(text, position + len(_HERMES_OPENING))
        value, end = _read_json(text, start)
        end = _skip(text, end)
        if not text.startswith(_HERMES_CLOSING, end):
            raise MalformedCallError(f"{_HERMES_CLOSING} is missing", end)
        calls.append(_call(value, "arguments", start))
        position = text.find(_HERMES_OPENING, end + len(_HERMES_CLOSING))
    return calls


# ReAct

_REACT_ACTION = re.compile(r"^Action:[ \t]*([^\n]*)$", re.MULTILINE)
_REACT_INPUT = re.compile(r"\s*Action Input:")


def _parse_react(text: str) -> list[Call]:
    calls: list[Call] = []
    position = 0
    while match := _REACT_ACTION.search(text, position):
        name = match[1].strip()
        argument = _REACT_INPUT.match(text, match.end())
        if not name or argument is None:
            raise MalformedCallError("an action needs a name and, on the next line, an action input", match.start())
        value, position = _read_json(text, argument.end())
        if not isinstance(value, dict):
            raise MalformedCallError("an action input must be a JSON object", argument.end())
        calls.append(Call(name, value))
    return calls


# Code as action

_CODE_OPENING = re.compile(r"^(?:(`{3,})([^`\n]*)|<(execute(?:_([^<>\s]+))?)>[ \t]*)$", re.MULTILINE)
GENERIC_CALL = "call_tool"  # calls a tool whose name is no Python name: call_tool("GET /pets", {"limit": 5})


def _parse_code_action(text: str) -> list[Call]:
    """In a text with execute blocks fenced ones are prose."""
    executed: list[Call] = []
    fenced: list[Call] = []
    position = 0
    while match := _CODE_OPENING.search(text, position):
        fence, info, tag, tag_language = match.groups()
        # a fence is closed by at least as many backticks as opened it
        closing = f"{fence}`*" if fence else f"</{re.escape(tag)}>"
        closed = block_end(closing).search(text, match.end() + 1)
        if closed is None:
            raise MalformedCallError("the code block is not closed", match.start())
        code = text[match.end() + 1 : max(closed.start() - 1, match.end() + 1)]
        found = _calls_in_code(code, (info or "").strip() or tag_language or "python")
        (fenced if fence else executed).extend(found)
        position = closed.end()
    return executed or fenced


def block_end(closing: str) -> re.Pattern[str]:
    """The line that ends a block of code; the token that ends the turn may stand behind it."""
    return re.compile(rf"^{closing}[ \t]*(?:<\|\w+\|>|</s>)?$", re.MULTILINE)


def _calls_in_code(code: str, language: str) -> list[Call]:
    """Calls with literal keyword arguments, one per statement, bare or printed; other code is one call of its own."""
    whole = [Call(language, {"code": code})]
    if language != "python":
        return whole
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escape sequences in somebody else's code
            calls = [_call_of(statement) for statement in ast.parse(code).body]
    except _UNREADABLE:
        return whole
    return [call for call in calls if call is not None] if calls and None not in calls else whole


def _call_of(statement: ast.stmt) -> Call | None:
    node = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
        node = node.args[0] if len(node.args) == 1 and not node.keywords else None
    if not isinstance(node, ast.Call):
        return None
    name = _dotted_name(node.func)
    if name == GENERIC_CALL and len(node.args) == 2 and not node.keywords:
        tool, arguments = (_literal(argument) for argument in node.args)
        return Call(tool, arguments) if isinstance(tool, str) and isinstance(arguments, dict) else None
    if not name or node.args:
        return None
    keywords: dict[str, Json] = {}
    for keyword in node.keywords:
        value = _literal(keyword.value)
        keywords.update(value if keyword.arg is None else {keyword.arg: value})
    return Call(name, keywords)


def _literal(node: ast.expr) -> Json:
    """The JSON value that a Python literal spells; ValueError for tuples, sets, bytes and other literals."""
    value = ast.literal_eval(node)
    try:
        same = json.loads(json.dumps(value)) == value
    except TypeError as error:
        raise ValueError(str(error)) from error
    if not same:
        raise ValueError("the literal is no JSON value")
    return value


def _dotted_name(node: ast.expr) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


_PARSERS: dict[str, Callable[[str], list[Call]]] = {
    "llama3": _parse_llama3,
    "mistral": _parse_mistral,
    "hermes": _parse_hermes,
    "react": _parse_react,
    "code_action": _parse_code_action,
}
