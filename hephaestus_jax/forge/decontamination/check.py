"""Whether a record gives a benchmark's item away."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from hephaestus_jax.forge.decontamination.benchmarks import GoldCall, Item, leaves
from hephaestus_jax.forge.decontamination.phrases import PhraseIndex
from hephaestus_jax.forge.decontamination.schemas import THRESHOLDS, Thresholds, ToolIndex, name_words, words_of_tool
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    CodeAction,
    Document,
    Json,
    MessageAction,
    Record,
    TextObservation,
    Tool,
    Trajectory,
)

DESCRIPTION_SHARE = 0.8  # of a function's description that running text must hold to repeat it
# values of a call that are nobody else's: so many characters and values; fewer if the function's name agrees too
CALL_VALUES, CALL_CHARACTERS = 3, 25
NAMED_CALL_VALUES, NAMED_CALL_CHARACTERS = 2, 12


@dataclass(frozen=True)
class Contamination:
    """What a record gives away: which item of which benchmark, by which rule, and what shows it."""

    benchmark: str
    item: str
    rule: str  # "question", "function", "description", "call"
    evidence: str


class Decontaminator:
    """Finds records that hold a benchmark's question, function or gold call; it can be pickled.

    Args:
        items: of all benchmarks.
        boilerplate: runs of words, from `grams_in`, that many unrelated records hold and that show nothing.
        thresholds: when two functions are one.
    """

    def __init__(
        self, items: Iterable[Item], boilerplate: Collection[str] = (), thresholds: Thresholds = THRESHOLDS
    ) -> None:
        self._names: list[tuple[str, str]] = []
        self._phrases = PhraseIndex(frozenset(boilerplate))
        self._calls: dict[tuple[str, ...], list[tuple[int, str]]] = {}
        tools: dict[object, tuple[int, Tool]] = {}
        for owner, item in enumerate(items):
            self._names.append((item.benchmark, item.id))
            for text in item.texts:
                self._phrases.add(owner, text, "question")
            for tool in item.tools:
                tools.setdefault(words_of_tool(tool.name, tool.description, tool.parameters), (owner, tool))
                self._phrases.add(owner, tool.description, "description", DESCRIPTION_SHARE)
            for call in item.calls:
                self._add_call(owner, call)
        self._owners = [owner for owner, _ in tools.values()]
        self._tools = [tool for _, tool in tools.values()]
        self._tool_index = ToolIndex(self._tools, thresholds)

    def check(self, record: Record) -> Contamination | None:
        """The first thing that the record gives away; None if it is clean."""
        for tool in _functions(record):
            if found := self._check_tool(tool):
                return found
        for function, arguments in _calls(record):
            if found := self._check_call(function, arguments):
                return found
        for text in _texts(record):
            if found := self._check_text(text, message=isinstance(record, Trajectory)):
                return found
        return None

    def grams_in(self, record: Record) -> set[str]:
        """The benchmarks' runs of words that a record holds, to count which are boilerplate."""
        return {gram for text in _texts(record) for gram in self._phrases.grams_in(text)}

    def _check_tool(self, tool: Tool) -> Contamination | None:
        match = self._tool_index.find(words_of_tool(tool.name, tool.description, tool.parameters))
        if match is None:
            return None
        likeness = f"words {match.text:.2f}, parameters {match.names:.2f}"
        evidence = f"{tool.name} repeats {self._tools[match.tool].name}: {likeness}"
        return self._found(self._owners[match.tool], "function", evidence)

    def _check_text(self, text: str, message: bool) -> Contamination | None:
        phrase = self._phrases.find(text, message)
        return None if phrase is None else self._found(phrase.owner, phrase.rule, phrase.shared)

    def _check_call(self, function: str, arguments: Mapping[str, Json]) -> Contamination | None:
        values = tuple(sorted(leaves(arguments)))
        same_values = self._calls.get(values, ())
        if not same_values:
            return None
        evidence = f"{function}({', '.join(values)})"[:200]
        if len(values) >= CALL_VALUES and sum(map(len, values)) >= CALL_CHARACTERS:
            return self._found(same_values[0][0], "call", evidence)
        for owner, name in same_values:
            if name == _last_name(function):
                return self._found(owner, "call", evidence)
        return None

    def _add_call(self, owner: int, call: GoldCall) -> None:
        values = tuple(sorted(call.values))
        if len(values) >= NAMED_CALL_VALUES and sum(map(len, values)) >= NAMED_CALL_CHARACTERS:
            self._calls.setdefault(values, []).append((owner, _last_name(call.function)))

    def _found(self, owner: int, rule: str, evidence: str) -> Contamination:
        benchmark, item = self._names[owner]
        return Contamination(benchmark, item, rule, evidence)


def _last_name(function: str) -> str:
    return name_words(function.rpartition(".")[2])


def _functions(record: Record) -> Iterator[Tool]:
    if isinstance(record, ApiDoc):
        yield Tool(record.name, record.description, record.parameters)
    elif not isinstance(record, Document):
        yield from record.tools


def _calls(record: Record) -> Iterator[tuple[str, Mapping[str, Json]]]:
    if isinstance(record, ApiDoc):
        for example in record.examples:
            if example.arguments is not None:
                yield record.name, example.arguments
    elif not isinstance(record, Document):
        for step in record.steps:
            if isinstance(step, ApiAction):
                yield step.function, step.kwargs


def _texts(record: Record) -> Iterator[str]:
    if isinstance(record, Document):
        yield record.text
    elif isinstance(record, ApiDoc):
        yield record.description
        for example in record.examples:
            yield from filter(None, (example.intent, example.call, example.result))
    else:
        yield record.system
        yield from (tool.description for tool in record.tools)
        for step in record.steps:
            if isinstance(step, MessageAction | TextObservation | CodeAction):
                yield step.content
