"""Executed docstrings as trajectories: a user's intent, the agent's calls, and what they really returned."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hephaestus_jax.forge.doctests.extract import DoctestJob, extract_examples, names_in, parse_source
from hephaestus_jax.forge.doctests.results import ExecutedExample
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    CodeAction,
    Json,
    Step,
    TextObservation,
    Tool,
    Trajectory,
    canonical_json,
    digest,
)
from hephaestus_jax.formats.schema_text import pruned

PROCESSING = "doctest examples executed twice, equal outputs kept"
_DIRECTIVE = re.compile(r"[ \t]*#\s*doctest:.*$", re.MULTILINE)
_DESCRIPTION = 400  # characters of a tool's description
_DEPTH = 3  # levels of nested parameters that a tool's schema keeps
_SIGNATURE = re.compile(r"^[\w.]+\(.*\)(\s*->.*)?\.?$")
_DISTRACTORS = (2, 3, 4)
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_TEMPLATES = (
    "Show me `{name}` at work in Python. {summary}",
    "How is `{name}` used? {summary} Run it, please.",
    "{summary} Try it with `{name}`.",
)
_CALL_TEMPLATES = ("{summary}", "I need the following. {summary}", "Please use the tools at hand. {summary}")


@dataclass(frozen=True)
class _Turn:
    """One kept example: what the user says before it, if anything, and the call of the API that it is, if it is one."""

    example: ExecutedExample
    intent: str
    kwargs: Mapping[str, Json] | None  # arguments of the call of the documented API


def tool_from(doc: ApiDoc) -> Tool:
    """The API as a tool on offer: its description ends with the first paragraph."""
    description = doc.description.strip().split("\n\n")[0]
    if len(description) > _DESCRIPTION:
        description = description[:_DESCRIPTION].rsplit(" ", 1)[0] + " …"
    return Tool(doc.name, description, pruned(doc.parameters, _DEPTH))


def to_trajectory(
    job: DoctestJob, executed: Sequence[ExecutedExample], doc: ApiDoc | None = None, pool: Sequence[Tool] = ()
) -> Trajectory | None:
    """The trajectory of one docstring; None where no kept example printed anything, or none names the API.

    Plain calls of the documented API with JSON arguments become `ApiAction`s when `doc` gives the schema to call it by;
    every other example is code. Examples after the last one that printed anything are left out.

    Args:
        job: the docstring.
        executed: what came of it, dropped examples included.
        doc: the documentation of the API.
        pool: tools of the same package that may be offered besides, sorted by name. They must be of the same split: an
            API that is held out must not be shown to training here.
    """
    turns = _turns(job, executed, doc)
    while turns and not turns[-1].example.got:
        turns.pop()
    if not any(_uses(job, turn.example.source) for turn in turns):
        return None
    turns[0] = replace(turns[0], intent=_opening(job, doc, turns))
    turns = _with_setup(executed, _with_values(turns))
    kept = [turn.example for turn in turns if not turn.example.setup]
    has_calls = any(turn.kwargs is not None for turn in turns)
    has_code = any(turn.kwargs is None for turn in turns)
    return Trajectory(
        steps=tuple(_steps(job.api_name, turns)),
        provenance=replace(job.provenance, processing=(*job.provenance.processing, PROCESSING)),
        tools=_offered(tool_from(doc), pool) if doc is not None and has_calls else (),
        code_languages=("python",) if has_code else (),
        success=all(example.matched for example in kept),
        name=job.api_name,
        details={"api": job.api_name, "examples": len(kept), "matched": sum(e.matched for e in kept)},
    )


def _uses(job: DoctestJob, source: str) -> bool:
    """Whether the source names the API, under any of its names; that a call is a `__call__` cannot be seen."""
    last = {name.removesuffix(".__call__").rpartition(".")[2] for name in (job.api_name, *job.aliases)}
    return not last.isdisjoint(re.findall(r"\w+", source))


def _turns(job: DoctestJob, executed: Sequence[ExecutedExample], doc: ApiDoc | None) -> list[_Turn]:
    """The kept examples with their intents; an intent before a dropped example moves on to the next kept one."""
    intents = [example.intent for example in extract_examples(job.docstring)]
    known: dict[str, str] = {}
    turns = []
    pending = ""
    spoken = -1
    for example in executed:
        kwargs = call_arguments(example.source, known, job, doc) if doc is not None else None
        known |= imported_names(example.source)
        if example.setup:
            continue
        pending = next((text for text in reversed(intents[spoken + 1 : example.index + 1]) if text), pending)
        spoken = example.index
        if not example.dropped:
            turns.append(_Turn(example, pending, kwargs))
            pending = ""
    if any(turn.kwargs is None and not _only_imports(turn.example) for turn in turns):
        return turns
    return [turn for turn in turns if turn.kwargs is not None]  # what calls were imported by is not the agent's concern


def _with_setup(executed: Sequence[ExecutedExample], turns: list[_Turn]) -> list[_Turn]:
    """The turns, after one that imports what their code needs; the user still speaks first."""
    read = {name for turn in turns if turn.kwargs is None for name in names_in(turn.example.source).reads}
    sources = [e.source for e in executed if e.setup and not e.dropped and names_in(e.source).binds & read]
    if not sources:
        return turns
    setup = ExecutedExample("".join(sources), "", "", None, True, index=-1, setup=True)
    return [_Turn(setup, turns[0].intent, None), replace(turns[0], intent=""), *turns[1:]]


def _only_imports(example: ExecutedExample) -> bool:
    body = parse_source(example.source).body
    return bool(body) and all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in body)


def _steps(name: str, turns: Sequence[_Turn]) -> list[Step]:
    """The steps; code that prints nothing goes into one call with the code that follows it."""
    steps: list[Step] = []
    silent: list[str] = []
    for number, turn in enumerate(turns):
        if turn.intent:
            steps.append(TextObservation(turn.intent, "user"))
        call_id = f"call_{number}"
        if turn.kwargs is not None:
            steps.append(ApiAction(name, turn.kwargs, tool_call_id=call_id, outcome="ok"))
        else:
            silent.append(_DIRECTIVE.sub("", turn.example.source).rstrip("\n"))
            if not turn.example.got and _goes_on(turns[number + 1 :]):
                continue
            steps.append(CodeAction("python", "\n".join(silent), tool_call_id=call_id, outcome="ok"))
            silent.clear()
        steps.append(TextObservation(turn.example.got.rstrip("\n"), "environment", tool_call_id=call_id))
    return steps


def _goes_on(following: Sequence[_Turn]) -> bool:
    """Whether the next turn is code that the user says nothing before."""
    return bool(following) and following[0].kwargs is None and not following[0].intent


# --- calls ------------------------------------------------------------------------------------------------------------


def imported_names(source: str) -> dict[str, str]:
    """What the names that `source` imports stand for: `import numpy as np` gives {"np": "numpy"}."""
    found = {}
    for node in parse_source(source).body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def call_arguments(source: str, known: Mapping[str, str], job: DoctestJob, doc: ApiDoc) -> dict[str, Json] | None:
    """The arguments by name if `source` is nothing but a call of the documented API that its schema can express.

    `known` maps the names imported so far to what they stand for. None if `source` is anything else: another function,
    a method of an object, arguments that are not JSON, more positional arguments than the schema names.
    """
    body = parse_source(source).body
    if len(body) != 1 or not isinstance(body[0], ast.Expr) or not isinstance(body[0].value, ast.Call):
        return None
    call = body[0].value
    if _dotted(call.func, known) not in {job.api_name, *job.aliases}:
        return None
    names = _positional(doc)
    if len(call.args) > len(names) or any(keyword.arg is None for keyword in call.keywords):
        return None
    pairs = [*zip(names, call.args, strict=False), *((str(keyword.arg), keyword.value) for keyword in call.keywords)]
    kwargs: dict[str, Json] = {}
    for name, node in pairs:
        try:
            kwargs[name] = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
    return kwargs if _fits(kwargs, doc.parameters) else None


def _dotted(node: ast.expr, known: Mapping[str, str]) -> str | None:
    """What a dotted expression such as `np.linalg.solve` stands for."""
    attributes = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in known:
        return None
    return ".".join((known[node.id], *reversed(attributes)))


def _positional(doc: ApiDoc) -> list[str]:
    """The parameters that may be given by position, in order."""
    body = parse_source(f"def {doc.signature.removeprefix('async ')}: pass").body
    if len(body) == 1 and isinstance(body[0], ast.FunctionDef):
        return [argument.arg for argument in (*body[0].args.posonlyargs, *body[0].args.args)]
    # Compiled code documents signatures such as "arange([start,] stop)".
    return [name for name, schema in doc.parameters.get("properties", {}).items() if "x-python-kind" not in schema]


def _fits(kwargs: Mapping[str, Json], parameters: Mapping[str, Json]) -> bool:
    """Whether the arguments are JSON, known to the schema, of its types, and all that it requires."""
    properties = parameters.get("properties", {})
    if not set(parameters.get("required", ())) <= set(kwargs) <= set(properties):
        return False
    try:
        if json.loads(json.dumps(kwargs, allow_nan=False)) != kwargs:  # tuples and integer keys do not survive
            return False
    except (TypeError, ValueError, RecursionError):
        return False
    return all(_has_type(value, properties[name]) for name, value in kwargs.items())


def _has_type(value: Json, schema: Mapping[str, Json]) -> bool:
    if "x-python-kind" in schema or ("enum" in schema and value not in schema["enum"]):
        return False
    stated = schema.get("type")
    if stated is None:
        return True
    kinds = [stated] if isinstance(stated, str) else list(stated)
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, _JSON_TYPES.get(kind, (object,))) for kind in kinds)


def _offered(tool: Tool, pool: Sequence[Tool]) -> tuple[Tool, ...]:
    """The tool among two to four others, of its own module if that has as many, in an order that says nothing."""
    others = {other.name: other for other in pool if other.name != tool.name}
    parent = tool.name.rpartition(".")[0] + "."
    near = [name for name in others if name.startswith(parent)]
    names = near if len(near) >= max(_DISTRACTORS) else list(others)
    count = min(_DISTRACTORS[_draw(tool.name, "count") % len(_DISTRACTORS)], len(names))
    chosen = {tool.name: tool}
    attempt = 0
    while len(chosen) <= count:
        name = names[_draw(tool.name, attempt) % len(names)]
        chosen[name] = others[name]
        attempt += 1
    return tuple(sorted(chosen.values(), key=lambda offered: digest([tool.name, offered.name])))


def _draw(*key: str | int) -> int:
    return int(digest(list(key)), 16)


# --- intents ----------------------------------------------------------------------------------------------------------


def _opening(job: DoctestJob, doc: ApiDoc | None, turns: Sequence[_Turn]) -> str:
    """The user's first words: what the API does, by its summary, and the sentence before the first example."""
    text = doc.description if doc is not None and doc.description.strip() else job.docstring.partition(">>>")[0]
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    summary = next((words for words in paragraphs if words and not _SIGNATURE.match(words)), "")[:_DESCRIPTION]
    if summary and summary[-1] not in ".!?:":
        summary += "."
    templates = _TEMPLATES if any(turn.kwargs is None for turn in turns) else _CALL_TEMPLATES
    opening = templates[_draw(job.api_name, "intent") % len(templates)].format(name=job.api_name, summary=summary)
    prose = turns[0].intent
    return " ".join(opening.split()) + (f" {prose}" if prose and prose not in opening else "")


def _with_values(turns: Sequence[_Turn]) -> list[_Turn]:
    """The turns; where the user's words are followed by calls only, they end with the arguments to call with."""
    starts = [number for number, turn in enumerate(turns) if turn.intent]
    result = list(turns)
    for start, end in zip(starts, [*starts[1:], len(turns)], strict=True):
        calls = [turn.kwargs for turn in turns[start:end]]
        if None not in calls:
            written = "; then ".join(_words(kwargs) for kwargs in calls if kwargs is not None)
            result[start] = replace(turns[start], intent=f"{turns[start].intent} Use {written}.")
    return result


def _words(kwargs: Mapping[str, Json]) -> str:
    return ", ".join(f"{name} = {canonical_json(value)}" for name, value in kwargs.items()) or "no arguments"
