"""Code as action (CodeAct, arXiv 2402.01030): a call is Python that prints its result, in a block that is executed."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, get_args

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat.calls import GENERIC_CALL, Call, block_end
from hephaestus_jax.formats.chat.conversation import SEPARATOR, AssistantTurn, CallPart, Part
from hephaestus_jax.formats.chat.text_format import TextFormat
from hephaestus_jax.formats.records import Json, Tool

Block = Literal["execute", "fence"]

_LANGUAGE = re.compile(r"[^`<>\s]+")
_BACKTICKS = re.compile(r"`+")


@dataclass(frozen=True)
class CodeAsAction(TextFormat):
    """Renders trajectories as code as action.

    Neighbouring calls share a block, one `print(tool(key=value))` per line; code is a block of its own. A tool whose
    name is no Python name is called through `call_tool(name, arguments)`.

    Attributes:
        block: "execute" writes `<execute>` … `</execute>` (`<execute_bash>` for other languages), which no prose holds
            by chance; "fence" writes fenced Markdown, longer than any fence inside.
    """

    block: Block = "execute"

    user_prefix = "User: "
    assistant_prefix = "Assistant: "
    turn_end = "\n\n"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block not in get_args(Block):
            raise UserError(f"block={self.block!r} is unknown; use one of {', '.join(get_args(Block))}")

    def announces(self, language: str) -> bool:
        """Any language: code is how this form acts."""
        del language
        return True

    def tool_prompt(self, tools: Sequence[Tool]) -> str:
        """The tools as signatures, and the form of a call."""
        listing = "\n".join(f"- {_signature(tool)}: {tool.description}".rstrip(": ") for tool in tools)
        opening, closing = self._marks("python", "")
        return (
            f"You can call these Python functions:\n{listing}\n\n"
            "Write code in a block like this one, and you will be shown what it prints:\n"
            f"{opening}\nprint(function(argument=1))\n{closing}"
        )

    def assistant_text(self, turn: AssistantTurn) -> tuple[Part, ...]:
        """The turn's thought and text, then its calls as blocks of code."""
        parts = list(turn.thought)
        if turn.text:
            first = replace(turn.text[0], text=(SEPARATOR if parts else "") + turn.text[0].text)
            parts += (first, *turn.text[1:])
        for calls in _blocks(turn.calls):
            language = calls[0].language or "python"
            lines = [part.call.arguments["code"] if part.language else python_call(part.call) for part in calls]
            opening, closing = self._marks(language, "\n".join(lines))
            # in plain text the block must open a line, behind the words "Assistant: "
            before = SEPARATOR if parts else "" if self.within else "\n"
            parts.append(Part(f"{before}{opening}\n", calls[0].weight))
            for part, line in zip(calls, lines, strict=True):
                parts.append(Part(line + "\n", part.weight))
            parts.append(Part(closing, calls[-1].weight))
        return tuple(parts)

    def _marks(self, language: str, code: str) -> tuple[str, str]:
        if not _LANGUAGE.fullmatch(language):
            raise UserError(f"a block of code has no form for the language {language!r}; it must be one plain word")
        if self.block == "fence":
            longest = max(map(len, _BACKTICKS.findall(code)), default=0)
            fence = "`" * max(3, longest + 1)
            return fence + language, fence
        tag = "execute" if language == "python" else f"execute_{language}"
        if block_end(f"</{re.escape(tag)}>").search(code):
            raise UserError(f"code that holds the line </{tag}> cannot stand in an execute block; use block='fence'")
        return f"<{tag}>", f"</{tag}>"


def python_call(call: Call) -> str:
    """A call as one line of Python that prints the result."""
    if not _is_python_name(call.name):
        return f"print({GENERIC_CALL}({call.name!r}, {call.arguments!r}))"
    named = {key: value for key, value in call.arguments.items() if _is_identifier(key)}
    other = {key: value for key, value in call.arguments.items() if key not in named}
    arguments = [f"{key}={value!r}" for key, value in named.items()] + ([f"**{other!r}"] if other else [])
    return f"print({call.name}({', '.join(arguments)}))"


def _blocks(calls: tuple[CallPart, ...]) -> list[list[CallPart]]:
    blocks: list[list[CallPart]] = []
    for is_code, group in groupby(calls, lambda part: bool(part.language)):
        parts = list(group)
        blocks += [[part] for part in parts] if is_code else [parts]
    return blocks


def _signature(tool: Tool) -> str:
    if not _is_python_name(tool.name):
        return f"{GENERIC_CALL}({tool.name!r}, {{{', '.join(_typed(tool.parameters))}}})"
    return f"{tool.name}({', '.join(_typed(tool.parameters))})"


def _typed(parameters: Mapping[str, Json]) -> list[str]:
    properties = parameters.get("properties")
    if not isinstance(properties, Mapping):
        return []
    required = parameters.get("required") or ()
    typed = []
    for name, schema in properties.items():
        kind = schema.get("type", "any") if isinstance(schema, Mapping) else "any"
        typed.append(f"{name}: {kind if isinstance(kind, str) else 'any'}" + ("" if name in required else " = ..."))
    return typed


def _is_python_name(name: str) -> bool:
    return name not in (GENERIC_CALL, "print") and all(map(_is_identifier, name.split(".")))


def _is_identifier(name: str) -> bool:
    # ASCII alone: Python normalises other identifiers, so the name read back might be another one
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
