"""Calls of APIs that training never saw, and the same calls with one thing wrong.

A corrupted call differs from the right one in one respect and in no other byte; code is parsed again, and the parsed
call must be the right one but for that respect, else the corruption is dropped. What is drawn is keyed by the seed and
the call, so that all models are asked the same.

wrong_function    the name is that of another function: of a tool on offer, else of a documented API of the same module
                  or class, a class's for a class. Never one of the API's own family (aliases, near-duplicates).
wrong_argument    the first of these that is possible, in a keyed order:
                  value     a number, string or truth value among the arguments becomes another of its type, one that
                            some other right call holds; a truth value becomes the other one
                  variable  a variable becomes another one assigned before, from a different expression
                  keyword   a keyword becomes another parameter's name
                  Arguments do not change places: functions symmetric in two of them are common (`distance(u, v)`).
missing_argument  an argument is dropped: one given by keyword, or the last one given by position. Never one that equals
                  a default of the API, because nothing would change.

Whether a corrupted call would return something else is not tried out; the rules above keep out what is known to be the
same call. Replacements are as long as what they replace, as nearly as the candidates allow, so that length tells little
of which call is right; a missing argument is shorter by its nature.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hephaestus_jax.evals.call_forms import Call, JsonCall, Step, parsed
from hephaestus_jax.formats.records import ApiDoc, CodeAction, Trajectory, digest

KINDS = ("wrong_function", "wrong_argument", "missing_argument")
CANDIDATES = 32  # keyed draws, of which the one nearest in length is taken

T = TypeVar("T")


@dataclass(frozen=True)
class Corruption:
    """A step whose call has one thing wrong; `how` says which rule made it."""

    kind: str
    how: str
    step: Step


@dataclass
class ApiKnowledge:
    """What the documentation says of APIs, by full name. Mutable: `add` fills it.

    Attributes:
        family: the family that a held-out API belongs to.
        siblings: names of the documented APIs of each module or class.
        documented: the documentation of the APIs that are called.
    """

    family: Mapping[str, str] = field(default_factory=dict)
    siblings: dict[str, list[str]] = field(default_factory=dict)
    documented: dict[str, ApiDoc] = field(default_factory=dict)

    def add(self, doc: ApiDoc, called: bool = True) -> None:
        """Takes note of an API."""
        self.siblings.setdefault(doc.name.rpartition(".")[0], []).append(doc.name)
        if called:
            self.documented[doc.name] = doc

    def parameters(self, api: str) -> list[str]:
        """The names of an API's parameters."""
        return [name for name in self._properties(api) if name.isidentifier()]

    def defaults(self, api: str) -> frozenset[str]:
        """The defaults of an API's parameters, as `ast.unparse` writes expressions."""
        stated = [repr(schema["default"]) for schema in self._properties(api).values() if "default" in schema]
        signature = self.documented[api].signature if api in self.documented else ""
        return frozenset([*stated, *_signature_defaults(signature)])

    def _properties(self, api: str) -> Mapping[str, Any]:
        return self.documented[api].parameters.get("properties", {}) if api in self.documented else {}

    def same(self, one: str, other: str) -> bool:
        """Whether two names stand for one API, or for one family."""
        return one == other or self.family.get(one, one) == self.family.get(other, other)


def _signature_defaults(signature: str) -> list[str]:
    head, bracket, rest = signature.removeprefix("async ").partition("(")
    tree = parsed(f"def {head.rpartition('.')[2] or 'f'}{bracket}{rest}: pass")
    if tree is None or not isinstance(tree.body[0], ast.FunctionDef):
        return []
    arguments = tree.body[0].args
    return [ast.unparse(node) for node in (*arguments.defaults, *arguments.kw_defaults) if node is not None]


class Corruptor:
    """Corrupts calls, given all of the right ones.

    Args:
        knowledge: of the documented APIs.
        calls: the right calls: values that replace others are theirs.
        seed: of the choices.
    """

    def __init__(self, knowledge: ApiKnowledge, calls: Sequence[Call], seed: int = 0) -> None:
        self._knowledge, self._seed = knowledge, seed
        self._values: dict[type, dict[str, Any]] = {}
        for call in calls:
            for value in call.literals():
                self._values.setdefault(type(value), {})[repr(value)] = value
        self._keywords = sorted({name for call in calls for name in call.keywords()})

    def corrupt(self, call: Call, api: str, key: str, trajectory: Trajectory, before: int) -> list[Corruption]:
        """The corruptions of one call, at most one of each kind.

        Args:
            call: the right one.
            api: full name of the API it calls.
            key: tells this call from all others.
            trajectory: that it is of.
            before: steps of the trajectory that come before the call's.
        """
        draw = _Draw(self._seed, key)
        makers: dict[str, Iterator[tuple[str, Step | None]]] = {
            "wrong_function": self._functions(call, api, trajectory, draw),
            "wrong_argument": self._arguments(call, api, trajectory, before, draw),
            "missing_argument": self._missing(call, api, draw),
        }
        return [
            Corruption(kind, *made)
            for kind, candidates in makers.items()
            if (made := next(((how, bad) for how, bad in candidates if bad is not None), None)) is not None
        ]

    def _functions(
        self, call: Call, api: str, trajectory: Trajectory, draw: _Draw
    ) -> Iterator[tuple[str, Step | None]]:
        offered = [tool.name for tool in trajectory.tools if not self._knowledge.same(tool.name, api)]
        module = self._knowledge.siblings.get(api.rpartition(".")[0], ())
        siblings = [
            other for other in module if not self._knowledge.same(other, api) and _is_class(other) == _is_class(api)
        ]
        if not isinstance(call, JsonCall):  # in code the module stands before the name already
            offered = []
            siblings = [last for other in siblings if (last := other.rpartition(".")[2]).isidentifier()]
        for how, names in (("tool on offer", offered), ("sibling", siblings)):
            others = (name for name in names if name != call.function)
            for other in draw.nearest(how, others, call.function):
                yield how, call.with_function(other)

    def _arguments(
        self, call: Call, api: str, trajectory: Trajectory, before: int, draw: _Draw
    ) -> Iterator[tuple[str, Step | None]]:
        rules: dict[str, Callable[[], Iterator[Step | None]]] = {
            "value": lambda: self._other_values(call, draw),
            "variable": lambda: self._other_variables(call, trajectory, before, draw),
            "keyword": lambda: self._other_keywords(call, api, draw),
        }
        for how in draw.shuffled("rule", rules):
            for bad in rules[how]():
                yield how, bad

    def _other_values(self, call: Call, draw: _Draw) -> Iterator[Step | None]:
        literals = call.literals()
        for index in draw.shuffled("literal", range(len(literals))):
            for value in self._others(literals[index], draw):
                yield call.with_literal(index, value)

    def _others(self, value: Any, draw: _Draw) -> list[Any]:
        """Values of the same type that are not equal to it, nearest in length first."""
        if isinstance(value, bool):
            return [not value]
        known = self._values.get(type(value), {})
        texts = draw.nearest("value", (text for text, other in known.items() if other != value), repr(value))
        others = [known[text] for text in texts]
        return others if isinstance(value, str) else [*others, value + 1]

    def _other_variables(self, call: Call, trajectory: Trajectory, before: int, draw: _Draw) -> Iterator[Step | None]:
        assigned = _assignments(trajectory, before)
        variables = call.variables()
        for index in draw.shuffled("variable", range(len(variables))):
            name = variables[index]
            others = (other for other, source in assigned.items() if other != name and source != assigned.get(name))
            for other in draw.nearest("variable", others, name):
                yield call.with_variable(index, other)

    def _other_keywords(self, call: Call, api: str, draw: _Draw) -> Iterator[Step | None]:
        given = call.keywords()
        for index in draw.shuffled("keyword", range(len(given))):
            for names in (self._knowledge.parameters(api), self._keywords):
                for other in draw.nearest("keyword", (name for name in names if name not in given), given[index]):
                    yield call.with_keyword(index, other)

    def _missing(self, call: Call, api: str, draw: _Draw) -> Iterator[tuple[str, Step | None]]:
        defaults = self._knowledge.defaults(api)
        droppable = [index for index in call.droppable() if call.argument_source(index) not in defaults]
        for index in draw.shuffled("drop", droppable):
            yield "dropped", call.without(index)


def _is_class(name: str) -> bool:
    return name.rpartition(".")[2][:1].isupper()


def _assignments(trajectory: Trajectory, before: int) -> dict[str, str]:
    """Variables assigned in the code before a step, with the expression assigned last."""
    found: dict[str, str] = {}
    for step in trajectory.steps[:before]:
        tree = parsed(step.content) if isinstance(step, CodeAction) else None
        for statement in tree.body if tree is not None else ():
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                found[statement.targets[0].id] = ast.unparse(statement.value)
    return found


@dataclass(frozen=True)
class _Draw:
    """Choices that depend on the seed and on which call they are for alone."""

    seed: int
    key: str

    def shuffled(self, what: str, items: Iterable[T]) -> list[T]:
        """The items in a keyed order."""
        return sorted(items, key=lambda item: digest([self.seed, self.key, what, repr(item)]))

    def nearest(self, what: str, names: Iterable[str], to: str) -> list[str]:
        """A few of the names, the one whose length is nearest to that of `to` first."""
        some = self.shuffled(what, sorted(set(names)))[:CANDIDATES]
        return sorted(some, key=lambda name: abs(len(name.encode()) - len(to.encode())))
