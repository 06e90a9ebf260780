"""The items of benchmarks, which no record of a corpus may give away: questions, functions on offer, gold calls.

BFCL: Patil et al., "The Berkeley Function Calling Leaderboard" (2025), read from the unpacked `bfcl-eval` package.
Anything else is JSONL, one item a line.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Json, Tool

_SKIPPED = ("BFCL_v4_format_sensitivity.json",)  # names of items, nothing of their own


@dataclass(frozen=True)
class GoldCall:
    """A call that an item expects: the function and the values of its arguments, in words."""

    function: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One item of a benchmark; its id names it in reports."""

    benchmark: str
    id: str
    texts: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    calls: tuple[GoldCall, ...] = ()


def read_bfcl(folder: Path | str) -> list[Item]:
    """The items of BFCL; `folder` is the unpacked package, or any folder above its `data`.

    Raises:
        UserError: no BFCL data is there, or a line of it is malformed.
    """
    found = sorted(Path(folder).glob("**/BFCL_v*_*.json"))
    data = min((path.parent for path in found), key=lambda path: len(path.parts), default=None)
    if data is None:
        raise UserError(f"{folder}: no BFCL_v*.json in it; give the folder that the bfcl-eval package was unpacked to")
    items = []
    for path in sorted(data.rglob("*.json")):
        if path.name in _SKIPPED:
            continue
        answers = path.parent.name == "possible_answer"
        for number, line in enumerate(_lines(path), start=1):
            name = str(line.get("id") or f"{path.stem}:{line.get('name') or number}")
            if answers:
                items.append(Item("bfcl", name, calls=tuple(_gold_calls(line.get("ground_truth")))))
            else:
                items.append(Item("bfcl", name, tuple(_questions(line)), tuple(_tools(line))))
    return [item for item in items if item.texts or item.tools or item.calls]


def read_jsonl(path: Path | str, benchmark: str = "") -> list[Item]:
    """The items of any JSONL: its fields text, question, prompt and messages are texts, functions and tools are tools.

    Of a line with none of these, every string is a text; a line that is a string is one.

    Raises:
        UserError: the file is missing, or a line is not JSON.
    """
    path = Path(path)
    items = []
    for number, line in enumerate(_lines(path), start=1):
        item = line if isinstance(line, Mapping) else {"text": line}
        texts, tools = tuple(_questions(item)), tuple(_tools(item))
        if not texts and not tools:
            texts = tuple(_strings(item))
        name = str(item.get("id") or f"{path.name}:{number}")
        items.append(Item(benchmark or path.stem, name, texts, tools))
    return items


def _lines(path: Path) -> Iterator[Json]:
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file of benchmark items") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}); mend it or leave it out") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number} is not JSON ({error}); one item a line is expected") from error


def _questions(line: Mapping[str, Json]) -> Iterator[str]:
    """What users say, in texts or in lists of messages at any depth."""
    for key in ("text", "question", "prompt", "messages", "conversations"):
        yield from _said(line.get(key))


def _said(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _said(part)
    elif isinstance(value, Mapping) and (value.get("role") or value.get("from") or "user") != "system":
        yield from _said(value.get("content", value.get("value")))


def _tools(line: Mapping[str, Json]) -> Iterator[Tool]:
    """The functions of a line, or the line itself where it is one."""
    listed = line.get("function") or line.get("functions") or line.get("tools") or []
    if "name" in line and "parameters" in line:
        listed = [line]
    for entry in listed if isinstance(listed, list) else [listed]:
        if not isinstance(entry, Mapping):
            continue
        if isinstance(inner := entry.get("function"), Mapping):
            entry = inner
        parameters = entry.get("parameters") or entry.get("input_schema") or entry.get("inputSchema") or {}
        if isinstance(entry.get("name"), str) and isinstance(parameters, Mapping):
            yield Tool(entry["name"], str(entry.get("description") or ""), parameters)


def _gold_calls(truth: Json) -> Iterator[GoldCall]:
    """BFCL states calls as {function: {parameter: [allowed values]}} or, in multi-turn items, as Python source."""
    if isinstance(truth, list):
        for part in truth:
            yield from _gold_calls(part)
    elif isinstance(truth, str):
        if call := _python_call(truth):
            yield call
    elif isinstance(truth, Mapping):
        for function, arguments in truth.items():
            if isinstance(arguments, Mapping):
                first = [values[0] if isinstance(values, list) and values else values for values in arguments.values()]
                yield GoldCall(function, tuple(text for value in first for text in leaves(value)))


def _python_call(source: str) -> GoldCall | None:
    try:
        call = ast.parse(source, mode="eval").body
        if not isinstance(call, ast.Call):
            return None
        values = [ast.literal_eval(node) for node in [*call.args, *(keyword.value for keyword in call.keywords)]]
        return GoldCall(ast.unparse(call.func), tuple(text for value in values for text in leaves(value)))
    except (SyntaxError, ValueError, RecursionError):
        return None


def leaves(value: Json) -> Iterator[str]:
    """The values at the ends of a JSON value, as text; empty ones and nulls left out."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, float) and value.is_integer():
        yield str(int(value))
    elif value is not None and value != "":
        yield str(value).strip().lower()


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(part)


def tools_of(items: Iterable[Item]) -> Iterator[tuple[Item, Tool]]:
    """Every function with the item it is on offer in."""
    for item in items:
        for tool in item.tools:
            yield item, tool
