"""The two forms of a call in a trajectory, a tool's arguments as JSON and Python code, with the same changes to both.

Every change gives the step with another call, or None where it cannot be made. In code the change is made in the text,
so that every other byte stays; the new text must parse to what was meant, which is made a second time in the syntax
tree.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from hephaestus_jax.formats.records import ApiAction, CodeAction, Json

_LITERALS = (bool, int, float, str)
Step = ApiAction | CodeAction


class Call(Protocol):
    """A call that a step of a trajectory makes."""

    @property
    def step(self) -> Step:
        """The step that makes it."""

    @property
    def function(self) -> str:
        """The name that is called: whole of a tool, the last part of it in code."""

    def literals(self) -> Sequence[Any]:
        """Numbers, strings and truth values among the arguments, however deep, in order."""

    def variables(self) -> Sequence[str]:
        """Arguments that are a variable's name."""

    def keywords(self) -> Sequence[str]:
        """Names of the arguments given by keyword."""

    def droppable(self) -> Sequence[int]:
        """Arguments given by keyword, and the last one given by position."""

    def argument_source(self, index: int) -> str:
        """An argument as `ast.unparse` writes it."""

    def with_function(self, name: str) -> Step | None:
        """Another function's name."""

    def with_literal(self, index: int, value: Any) -> Step | None:
        """Another value of the same type in place of a literal."""

    def with_variable(self, index: int, name: str) -> Step | None:
        """Another variable in place of one."""

    def with_keyword(self, index: int, name: str) -> Step | None:
        """Another keyword for the same argument."""

    def without(self, index: int) -> Step | None:
        """One argument fewer."""


@dataclass(frozen=True)
class JsonCall:
    """A tool's call: arguments by name."""

    step: ApiAction

    @staticmethod
    def is_call(step: Any, names: frozenset[str]) -> bool:
        """Whether the step calls a tool of one of these names."""
        return isinstance(step, ApiAction) and step.function in names

    @property
    def function(self) -> str:
        """The tool's name."""
        return self.step.function

    @cached_property
    def _places(self) -> list[tuple[Any, ...]]:
        return list(_literal_places(dict(self.step.kwargs)))

    def literals(self) -> Sequence[Any]:
        """See `Call`."""
        return [_at(self.step.kwargs, place) for place in self._places]

    def variables(self) -> Sequence[str]:
        """None: JSON has none."""
        return ()

    def keywords(self) -> Sequence[str]:
        """The arguments' names."""
        return list(self.step.kwargs)

    def droppable(self) -> Sequence[int]:
        """Every argument."""
        return range(len(self.step.kwargs))

    def argument_source(self, index: int) -> str:
        """See `Call`."""
        return repr(list(self.step.kwargs.values())[index])

    def with_function(self, name: str) -> Step | None:
        """See `Call`."""
        return dataclasses.replace(self.step, function=name)

    def with_literal(self, index: int, value: Any) -> Step | None:
        """See `Call`."""
        kwargs = copy.deepcopy(dict(self.step.kwargs))
        *outer, last = self._places[index]
        _at(kwargs, outer)[last] = value
        return self._with(kwargs)

    def with_variable(self, index: int, name: str) -> None:
        """Never."""

    def with_keyword(self, index: int, name: str) -> Step | None:
        """See `Call`."""
        if name in self.step.kwargs:
            return None
        pairs = enumerate(self.step.kwargs.items())
        return self._with({name if number == index else key: value for number, (key, value) in pairs})

    def without(self, index: int) -> Step | None:
        """See `Call`."""
        return self._with({k: v for number, (k, v) in enumerate(self.step.kwargs.items()) if number != index})

    def _with(self, kwargs: Mapping[str, Json]) -> Step | None:
        if kwargs == self.step.kwargs:
            return None
        return dataclasses.replace(self.step, kwargs=kwargs)


def _literal_places(value: Json, place: tuple[Any, ...] = ()) -> Any:
    """Paths to the literals within a JSON value, in order."""
    if isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _literal_places(item, (*place, key))
    elif isinstance(value, _LITERALS):
        yield place


def _at(value: Any, place: Sequence[Any]) -> Any:
    for key in place:
        value = value[key]
    return value


@dataclass(frozen=True)
class CodeCall:
    """A call in Python code: the node of number `number` in the order of `ast.walk`."""

    step: CodeAction
    number: int

    @staticmethod
    def first(step: Any, names: frozenset[str]) -> CodeCall | None:
        """The first call in the text of a function or method of one of these names, if there is one.

        None too for code that does not parse, and for line ends of which text and syntax tree count differently.
        """
        if not isinstance(step, CodeAction) or step.language.lower() not in ("python", "ipython"):
            return None
        tree = None if {"\r", "\f"} & set(step.content) else parsed(step.content)
        if tree is None:
            return None
        formatted = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        found = [
            (node.lineno, node.col_offset, number)
            for number, node in enumerate(ast.walk(tree))
            if isinstance(node, ast.Call) and _name_of(node.func) in names and id(node) not in formatted
        ]
        return CodeCall(step, min(found)[2]) if found else None

    @property
    def function(self) -> str:
        """The name behind the last dot."""
        return _name_of(self._node.func)

    @cached_property
    def _tree(self) -> ast.Module:
        tree = parsed(self.step.content)
        assert tree is not None
        return tree

    @cached_property
    def _node(self) -> ast.Call:
        return self._node_in(self._tree)

    def _node_in(self, tree: ast.Module) -> ast.Call:
        node = list(ast.walk(tree))[self.number]
        assert isinstance(node, ast.Call)
        return node

    @cached_property
    def _bytes(self) -> bytes:
        return self.step.content.encode()

    def literals(self) -> Sequence[Any]:
        """See `Call`."""
        return [node.value for node in _literal_nodes(self._node)]

    def variables(self) -> Sequence[str]:
        """See `Call`."""
        return [node.id for node in _variable_nodes(self._node)]

    def keywords(self) -> Sequence[str]:
        """See `Call`."""
        return [keyword.arg for keyword in _named(self._node)]  # type: ignore[misc]  # _named leaves out those without

    def droppable(self) -> Sequence[int]:
        """See `Call`."""
        plain = len([node for node in self._node.args if not isinstance(node, ast.Starred)])
        whole = plain == len(self._node.args)  # what stands behind *more is not the last one for certain
        return [*([plain - 1] if plain and whole else []), *range(plain, plain + len(_named(self._node)))]

    def argument_source(self, index: int) -> str:
        """See `Call`."""
        return ast.unparse(_arguments(self._node)[index])

    def with_function(self, name: str) -> Step | None:
        """See `Call`."""
        _, stop = self._span(self._node.func)
        edit = (stop - len(self.function.encode()), stop, name)
        return self._edited([edit], lambda call: _rename(call.func, name))

    def with_literal(self, index: int, value: Any) -> Step | None:
        """See `Call`."""
        node = _literal_nodes(self._node)[index]
        text = repr(value)
        if isinstance(value, str) and self._source(node).startswith('"') and not set(value) & set("'\"\\\n"):
            text = f'"{value}"'
        return self._edited(
            [(*self._span(node), text)], lambda call: setattr(_literal_nodes(call)[index], "value", value)
        )

    def with_variable(self, index: int, name: str) -> Step | None:
        """See `Call`."""
        span = self._span(_variable_nodes(self._node)[index])
        return self._edited([(*span, name)], lambda call: setattr(_variable_nodes(call)[index], "id", name))

    def with_keyword(self, index: int, name: str) -> Step | None:
        """See `Call`."""
        keyword = _named(self._node)[index]
        start, _ = self._span(keyword)
        edit = (start, start + len((keyword.arg or "").encode()), name)
        return self._edited([edit], lambda call: setattr(_named(call)[index], "arg", name))

    def without(self, index: int) -> Step | None:
        """See `Call`."""
        parts: list[ast.AST] = sorted([*self._node.args, *self._node.keywords], key=self._span)
        dropped = _argument_parts(self._node)[index]
        place = parts.index(dropped)
        start, stop = self._span(dropped)
        if place > 0:
            start = self._span(parts[place - 1])[1]  # with the comma before it
        elif len(parts) > 1:
            stop = self._span(parts[1])[0]
        return self._edited([(start, stop, "")], lambda call: _drop(call, index))

    def _span(self, node: Any) -> tuple[int, int]:
        """First and last (exclusive) byte of a node."""
        lines = self._line_starts
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(place + 1 for place, byte in enumerate(self._bytes) if byte == ord("\n"))]

    def _source(self, node: ast.AST) -> str:
        start, stop = self._span(node)
        return self._bytes[start:stop].decode()

    def _edited(self, edits: list[tuple[int, int, str]], meant: Callable[[ast.Call], None]) -> Step | None:
        """The code with byte ranges replaced, if it parses to the tree that `meant` makes of the old one."""
        content = self._bytes
        for start, stop, text in sorted(edits, reverse=True):
            content = content[:start] + text.encode() + content[stop:]
        wanted = copy.deepcopy(self._tree)
        meant(self._node_in(wanted))
        found = parsed(content.decode())
        if found is None or ast.dump(found) != ast.dump(wanted) or ast.dump(found) == ast.dump(self._tree):
            return None
        return dataclasses.replace(self.step, content=content.decode())


def call_of(step: Any, names: frozenset[str]) -> Call | None:
    """The first call that a step makes of an API that goes by one of `names`, if it makes one.

    A tool is called by its full name; in Python code the last part of the name counts, which also finds methods.
    """
    if JsonCall.is_call(step, names):
        return JsonCall(step)
    return CodeCall.first(step, frozenset(name.rpartition(".")[2] for name in names))


def text_of(step: Step) -> str:
    """A call as a reader sees it."""
    return (
        step.content
        if isinstance(step, CodeAction)
        else f"{step.function} {json.dumps(dict(step.kwargs), ensure_ascii=False)}"
    )


def parsed(code: str) -> ast.Module | None:
    """The syntax tree; None for what is not Python."""
    try:
        with warnings.catch_warnings():  # about escapes in other people's strings
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _rename(node: ast.expr, name: str) -> None:
    setattr(node, "attr" if isinstance(node, ast.Attribute) else "id", name)


def _named(call: ast.Call) -> list[ast.keyword]:
    return [keyword for keyword in call.keywords if keyword.arg is not None]


def _argument_parts(call: ast.Call) -> list[ast.AST]:
    """The arguments that can be told apart, keywords with their names; `*these` and `**these` cannot."""
    return [*(node for node in call.args if not isinstance(node, ast.Starred)), *_named(call)]


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [part.value if isinstance(part, ast.keyword) else part for part in _argument_parts(call)]  # type: ignore[misc]


def _literal_nodes(call: ast.Call) -> list[ast.Constant]:
    """Literals among the arguments; the parts of formatted strings have no place of their own."""
    found = []
    for argument in _arguments(call):
        formatted = [part for node in ast.walk(argument) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)]
        hidden = set(map(id, formatted))
        constants = (node for node in ast.walk(argument) if isinstance(node, ast.Constant) and id(node) not in hidden)
        found += [node for node in constants if isinstance(node.value, _LITERALS)]
    return found


def _variable_nodes(call: ast.Call) -> list[ast.Name]:
    return [node for node in _arguments(call) if isinstance(node, ast.Name)]


def _drop(call: ast.Call, index: int) -> None:
    dropped = _argument_parts(call)[index]
    call.args = [node for node in call.args if node is not dropped]
    call.keywords = [keyword for keyword in call.keywords if keyword is not dropped]
