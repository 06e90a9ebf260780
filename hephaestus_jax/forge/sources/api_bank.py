"""API-Bank (Li et al., arXiv 2304.08244): dialogues of users with an assistant that calls APIs, levels 1 and 2.

A file is one dialogue, a turn per line; its name tells the APIs that are on offer beside those that are called. The
data set describes them in programs, `apis/*.py`, which are read where they stand beside the dialogues or above them,
and never run. Without them the tools are made of the calls in all dialogues of the folder, as
`provenance.processing` then says: their parameters are known by name and type of value only.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import checked, noted
from hephaestus_jax.forge.tool_data.json_values import object_of, parse_json
from hephaestus_jax.forge.tool_data.rows import objects
from hephaestus_jax.forge.tool_data.tool_schemas import parameters_schema
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    Json,
    MessageAction,
    Outcome,
    Record,
    Step,
    TextObservation,
    Tool,
    Trajectory,
)

LICENCE = "MIT"
HOST = "github.com/AlibabaResearch/DAMO-ConvAI"
PROGRAMS = "apis"  # folder of the data set's programs
LARGEST_PROGRAM = 1_000_000  # bytes
LARGEST_DIALOGUE = 8_000_000  # bytes, of one whose calls others are offered
_UP = 3  # folders above the dialogues in which it may stand
_FIGURE = re.compile(r"(?<![\w.-])[A-Za-z]{0,5}\d[\d,]*(?:\.\d+)?(?![\w-])")
_BLANK = re.compile(r"\[(?:[a-z]+[ _]?){1,4}\]", re.IGNORECASE)  # "the status is [status]"
_IDENTIFIER = re.compile(r"(?!(?:19|20)\d\d$)[A-Za-z]{0,5}\d{4,}")
_TEXT = re.compile(r': "([^"\\]{5,})"')
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@source("api_bank", files=("**/*.jsonl", "**/*.jsonl.gz", f"**/{PROGRAMS}/*.py"))
def read_api_bank(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """API-Bank dialogues with API calls and their results, and the APIs that its programs describe."""
    if file.path.endswith(".py"):
        yield from _docs(file, quarantine)
        return
    before = quarantine.total
    steps: list[Step] = []
    for where, turn in objects(file, quarantine):
        try:
            steps += _turn(turn, len(steps))
        except ValueError as error:
            quarantine.add("malformed turn", file.place(where), str(error))
    if quarantine.total > before:  # a dialogue with a hole in it makes no sense
        quarantine.add("dialogue with a bad turn", file.place(), "left out as a whole")
    elif not any(isinstance(step, ApiAction) for step in steps):
        quarantine.add("no call" if steps else "empty file", file.place(), "a dialogue without any API call")
    else:
        yield _trajectory(steps, file)


def _trajectory(steps: list[Step], file: SourceFile) -> Trajectory:
    name = file.path.rsplit("/", 1)[-1].partition(".")[0]
    calls: dict[str, list[Mapping[str, Json]]] = {}
    for step in steps:
        if isinstance(step, ApiAction):
            calls.setdefault(step.function, []).append(step.kwargs)
    folder = (file.root / file.path).parent
    stated = _stated_tools(file.root, file.path)
    all_calls: dict[str, list[Mapping[str, Json]]] = {**calls, **_calls_in(_files(folder, "*.jsonl"))}
    known = {api: _tool_of_calls(api, found) for api, found in all_calls.items()} | stated
    offered = dict.fromkeys([*calls, *(part for part in name.split("-") if part in known)])
    provenance = file.provenance("", LICENCE, HOST)
    if any(api not in stated for api in offered):
        provenance = noted(provenance, "tools on offer made of the calls")
    said = tuple(_grounded(list(_mended(steps))))
    wrong = sum(new != old for new, old in zip(said, _mended(steps), strict=True))
    if wrong:
        provenance = noted(provenance, f"{wrong} steps with something from nowhere marked")
    return checked(Trajectory(said, provenance, tools=tuple(known[api] for api in sorted(offered)), name=name))


def _turn(turn: Mapping[str, Json], number: int) -> list[Step]:
    role = turn.get("role")
    if role in ("User", "AI"):
        text = turn.get("text")
        if not isinstance(text, str):
            raise ValueError(f"text of a turn is a string, found {type(text).__name__}")
        return [TextObservation(text.strip(), "user") if role == "User" else MessageAction(text.strip())]
    if role != "API":
        raise ValueError(f"role {role!r} is none of User, AI, API")
    name = turn.get("api_name")
    if not isinstance(name, str) or not name:
        raise ValueError("api_name: a call names its API")
    result = turn.get("result")
    call_id = f"call_{number:06d}"
    call = ApiAction(
        name, object_of(turn.get("param_dict"), "param_dict"), tool_call_id=call_id, outcome=_outcome(result)
    )
    return [call, TextObservation(_told(result), "environment", tool_call_id=call_id)]


def _outcome(result: Json) -> Outcome:
    if not isinstance(result, Mapping) or "exception" not in result:
        return "unknown"
    return "error" if result["exception"] else "ok"


def _told(result: Json) -> str:
    """What came back: the output, or the exception; the repetition of the call is left out."""
    if isinstance(result, Mapping) and "output" in result:
        told = {key: result[key] for key in ("output", "exception") if result.get(key) is not None}
        return json.dumps(told or {"output": None}, ensure_ascii=False)
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _mended(steps: list[Step]) -> Iterator[Step]:
    """A call that succeeds after the same API failed corrects it."""
    failed: set[str] = set()
    for step in steps:
        if isinstance(step, ApiAction):
            if step.outcome == "ok" and step.function in failed:
                step = replace(step, outcome="corrected")
                failed.discard(step.function)
            elif step.outcome == "error":
                failed.add(step.function)
        yield step


def _grounded(steps: list[Step]) -> Iterator[Step]:
    """The steps; what the assistant says or passes on from nowhere is marked as an error.

    That is a figure after a result which nothing before holds, a blank that was not filled in, what only the call that
    follows brings, and an identifier in a call that nobody has given.
    """
    told, results = "", False
    for index, step in enumerate(steps):
        if isinstance(step, MessageAction):
            foretold = any(value in step.content and value not in told for value in _next_result(steps[index + 1 :]))
            if foretold or _BLANK.search(step.content) or (results and _unknown_figures(step.content, told)):
                step = replace(step, outcome="error")
            told += step.content.replace(",", "") + "\n"
        elif isinstance(step, ApiAction):
            given = [value for value in step.kwargs.values() if isinstance(value, str)]
            if any(_IDENTIFIER.fullmatch(value) and value.lower() not in told.lower() for value in given):
                step = replace(step, outcome="error")
            told += json.dumps(step.kwargs, ensure_ascii=False) + "\n"
        elif isinstance(step, TextObservation):
            told += step.content.replace(",", "") + "\n"
            results = results or step.source == "environment"
        yield step


def _next_result(steps: list[Step]) -> list[str]:
    """The longer texts that a call gives which comes at once."""
    match steps[:2]:
        case [ApiAction() as call, TextObservation(content=told, source="environment")]:
            known = json.dumps(call.kwargs, ensure_ascii=False)
            return [text for text in _TEXT.findall(told) if text != "success" and text not in known]
    return []


def _unknown_figures(said: str, told: str) -> list[str]:
    figures = (figure.replace(",", "") for figure in _FIGURE.findall(said))
    return [f for f in figures if len(f) > 4 and f not in told and re.sub(r"(\.\d*?)0+$", r"\1", f) not in told]


# Tools.


def _tool_of_calls(name: str, calls: list[Mapping[str, Json]]) -> Tool:
    """A tool with the parameters of all its calls, required where every call has them."""
    kinds: dict[str, list[str]] = {}
    for arguments in calls:
        for parameter, value in arguments.items():
            kind = _TYPES.get(type(value), "null")
            if kind not in kinds.setdefault(parameter, []):
                kinds[parameter].append(kind)
    properties = {parameter: {"type": found[0] if len(found) == 1 else found} for parameter, found in kinds.items()}
    required = [parameter for parameter in kinds if all(parameter in arguments for arguments in calls)]
    return Tool(name, "", {"type": "object", "properties": properties, **({"required": required} if required else {})})


Files = tuple[tuple[Path, int, int], ...]  # paths, sizes in bytes, and when they were changed, in ns


def _files(folder: Path, pattern: str) -> Files:
    stats = ((path, path.stat()) for path in sorted(folder.glob(pattern)))
    return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


@lru_cache(maxsize=4)
def _calls_in(files: Files) -> dict[str, list[Mapping[str, Json]]]:
    """The arguments of every call in dialogues, by API; what cannot be read is told when it is read."""
    calls: dict[str, list[Mapping[str, Json]]] = {}
    for path, size, _ in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if size <= LARGEST_DIALOGUE else []
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            try:
                turn = parse_json(line)
                if isinstance(turn, Mapping) and isinstance(turn.get("api_name"), str):
                    calls.setdefault(turn["api_name"], []).append(object_of(turn.get("param_dict")))
            except ValueError:
                continue
    return calls


def _stated_tools(root: Path, path: str) -> dict[str, Tool]:
    """The tools that the programs beside a dialogue, or above it, describe; {} where there are none."""
    folder = (root / path).parent
    for _ in range(_UP + 1):
        if (folder / PROGRAMS).is_dir():
            return _programs_in(_files(folder / PROGRAMS, "*.py"))
        if folder == root:
            break
        folder = folder.parent
    return {}


@lru_cache(maxsize=4)
def _programs_in(files: Files) -> dict[str, Tool]:
    found = {}
    for path, size, _ in files:
        try:
            text = path.read_text(encoding="utf-8") if size <= LARGEST_PROGRAM else ""
            found.update({tool.name: tool for tool, _ in _described(text)})
        except (OSError, ValueError):
            continue  # told when it is read
    return found


def _docs(file: SourceFile, quarantine: Quarantine) -> Iterator[ApiDoc]:
    text = file.text(quarantine) if file.size <= LARGEST_PROGRAM else None
    try:
        for tool, output in _described(text or ""):
            if tool.description or tool.parameters["properties"]:
                yield ApiDoc(
                    name=tool.name,
                    provider="API-Bank",
                    description=tool.description,
                    provenance=file.provenance(tool.name, LICENCE, HOST),
                    parameters=tool.parameters,
                    returns=output,
                    interface="tool",
                    function=tool.name,
                )
    except ValueError as error:
        quarantine.add("malformed program", file.place(), str(error))


def _described(program: str) -> Iterator[tuple[Tool, dict[str, Json] | None]]:
    """The tool that each class of a program describes in literals, and the schema of its output.

    Raises:
        ValueError: it is no Python.
    """
    try:
        classes = [node for node in ast.parse(program).body if isinstance(node, ast.ClassDef)]
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"no Python: {error}") from error
    for node in classes:
        stated: dict[str, Json] = {}
        for line in node.body:
            match line:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    try:
                        stated[name] = ast.literal_eval(value)
                    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                        continue  # not said in literals
        told, given, output = (stated.get(key) for key in ("description", "input_parameters", "output_parameters"))
        if isinstance(told, str) and isinstance(given, Mapping):
            result = parameters_schema(output)[0] if isinstance(output, Mapping) and output else None
            if result:
                result.pop("required", None)
            yield Tool(node.name, told.strip(), parameters_schema(given)[0]), result
