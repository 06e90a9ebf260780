"""Python files read as data: what names stand for and which calls are made, as far as the text alone tells.

Nothing is imported or executed: statements are followed one after the other on values that are either plain (strings,
numbers, lists, dictionaries), names of things elsewhere (`Dotted`), calls of unknown things (`Called`), or `UNKNOWN`.
Both branches of a condition are followed. Steps, depth and sizes are bounded.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from hephaestus_jax.forge.clouds.plain_values import LARGEST_VALUE, UNKNOWN, combined, is_plain, item_of, method
from hephaestus_jax.formats.quarantine import Quarantine

if TYPE_CHECKING:  # importing the package of all sources here would go in a circle
    from hephaestus_jax.forge.sources.source import SourceFile

MOST_STEPS = 300_000  # statements and expressions of one file, or of one function that is followed
DEEPEST_CALL = 6
_BUILTIN = frozenset(["int", "float", "str", "bool"])
LARGEST_PYTHON = 8 << 20  # bytes


@dataclass(frozen=True, eq=False, repr=False)
class Dotted:
    """Something that is only known by its name, for instance "azure.cli.core.commands.parameters.tags_type"."""

    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Called:
    """The value of a call: of what, with which arguments. `of` is what a method was called on."""

    function: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    of: Any = None
    line: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class ItemSet:
    """`target[key] = value`."""

    target: Any
    key: Any
    value: Any
    line: int


@dataclass(frozen=True, eq=False, repr=False)
class Class:
    """A class with the values of its attributes; those of its bases are looked up in them."""

    name: str
    bases: tuple[Any, ...]
    attributes: Mapping[str, Any]
    node: ast.ClassDef
    module: Module

    def get(self, name: str, depth: int = 8) -> Any:
        """An attribute of the class or the first of its bases that has it; UNKNOWN if none has."""
        if name in self.attributes:
            return self.attributes[name]
        for base in self.bases if depth else ():
            if isinstance(base, Class) and (value := base.get(name, depth - 1)) is not UNKNOWN:
                return value
        return UNKNOWN


@dataclass(frozen=True, eq=False, repr=False)
class Function:
    """A function, with the names it sees."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    scope: Mapping[str, Any]
    module: Module


Event = Called | ItemSet


@dataclass(eq=False, repr=False)
class Module:
    """A file: the names it defines, and what happens when it is imported."""

    dotted: str
    file: SourceFile
    names: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    tree: ast.Module | None = None


class _TooMuchError(Exception):
    pass


class _ReturnError(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Library:
    """The Python files of an unpacked package, read when they are asked for.

    `shorten` makes of a file's path and text what is read of it.
    """

    def __init__(
        self, file: SourceFile, quarantine: Quarantine, shorten: Callable[[str, str], str] = lambda _, text: text
    ) -> None:
        self._file = file
        self._shorten = shorten
        self._quarantine = quarantine
        self._modules: dict[str, Module | None] = {}

    def module(self, dotted: str) -> Module | None:
        """The module of this dotted name; None if the package has none or it cannot be read."""
        if dotted not in self._modules:
            path = dotted.replace(".", "/")
            found = None
            for candidate in (f"{path}.py", f"{path}/__init__.py"):
                if ".." not in candidate and (self._file.root / candidate).is_file():
                    found = dataclasses.replace(self._file, path=candidate)
                    break
            self._modules[dotted] = None  # while it is read: an import in a circle finds nothing
            self._modules[dotted] = self._read(dotted, found) if found else None
        return self._modules[dotted]

    def resolve(self, dotted: str, depth: int = 6) -> Any:
        """What a dotted name of the package stands for; UNKNOWN if the package does not tell."""
        owner, _, name = dotted.rpartition(".")
        if not owner or depth <= 0:
            return UNKNOWN
        module = self.module(owner)
        if module is None or name not in module.names:
            return UNKNOWN
        value = module.names[name]
        return self.resolve(value.name, depth - 1) if isinstance(value, Dotted) and value.name != dotted else value

    def _read(self, dotted: str, file: SourceFile) -> Module | None:
        tree = parsed(file, self._quarantine, self._shorten)
        if tree is None:
            return None
        module = Module(dotted, file, tree=tree)
        run = Follower(self, module)
        run.follow(tree.body, module.names)
        module.events = run.events
        return module


def parsed(
    file: SourceFile, quarantine: Quarantine, shorten: Callable[[str, str], str] = lambda _, text: text
) -> ast.Module | None:
    """The syntax tree of a file; None, with the reason in the quarantine, if it has none."""
    if file.size > LARGEST_PYTHON:
        quarantine.add("file too large", file.place(), f"{file.size:,} bytes, at most {LARGEST_PYTHON:,}")
        return None
    text = file.text(quarantine)
    if text is None:
        return None
    try:
        with warnings.catch_warnings():  # about the escapes in other people's strings
            warnings.simplefilter("ignore")
            return ast.parse(shorten(file.path, text))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        quarantine.add("malformed Python", file.place(), str(error))
        return None


class Follower:
    """Follows statements of one module; `events` are the calls of unknown things and the items set, in order."""

    def __init__(self, library: Library, module: Module) -> None:
        self.events: list[Event] = []
        self._library = library
        self._module = module
        self._steps = 0
        self._depth = 0

    def follow(self, body: list[ast.stmt], scope: dict[str, Any]) -> None:
        """Follows statements; those behind a bound are left out."""
        with contextlib.suppress(_TooMuchError, _ReturnError, RecursionError):
            self._body(body, scope)

    def call(self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What a function returns for these arguments; UNKNOWN if that cannot be told."""
        if self._depth >= DEEPEST_CALL:
            return UNKNOWN
        scope = dict(function.scope)
        spec = function.node.args
        names = [arg.arg for arg in (*spec.posonlyargs, *spec.args)]
        defaults = names[len(names) - len(spec.defaults) :] if spec.defaults else []
        module, self._module = self._module, function.module
        self._depth += 1
        try:
            scope.update({name: Dotted(name) for name in names})
            scope.update({n: self.value(d, scope) for n, d in zip(defaults, spec.defaults, strict=True)})
            scope.update(zip(names, args, strict=False))
            scope.update({name: value for name, value in kwargs.items() if name is not None})
            self._body(function.node.body, scope)
        except _ReturnError as returned:
            return returned.value
        finally:
            self._depth -= 1
            self._module = module
        return None

    def _body(self, body: list[ast.stmt], scope: dict[str, Any]) -> None:
        for statement in body:
            self._step()
            self._statement(statement, scope)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise _TooMuchError

    def _statement(self, node: ast.stmt, scope: dict[str, Any]) -> None:
        match node:
            case ast.Assign():
                value = self.value(node.value, scope)
                for target in node.targets:
                    self._assign(target, value, scope)
            case ast.AnnAssign() if node.value is not None:
                self._assign(node.target, self.value(node.value, scope), scope)
            case ast.AugAssign():
                joined = ast.BinOp(node.target, node.op, node.value)
                self._assign(node.target, self.value(ast.copy_location(joined, node), scope), scope)
            case ast.Expr():
                self.value(node.value, scope)
            case ast.Import() | ast.ImportFrom():
                self._import(node, scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                scope[node.name] = Function(node, scope, self._module)
            case ast.ClassDef():
                attributes: dict[str, Any] = {}
                bases = tuple(self.value(base, scope) for base in node.bases)
                self._body(node.body, inner := dict(scope))
                attributes = {k: v for k, v in inner.items() if scope.get(k, UNKNOWN) is not v}
                scope[node.name] = Class(node.name, bases, attributes, node, self._module)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self.value(item.context_expr, scope)
                    if item.optional_vars is not None:
                        self._assign(item.optional_vars, value, scope)
                self._body(node.body, scope)
            case ast.For() | ast.AsyncFor():
                for value in self._iterated(self.value(node.iter, scope)):
                    self._assign(node.target, value, scope)
                    self._body(node.body, scope)
            case ast.If():
                self._branch(node.body, scope)
                self._branch(node.orelse, scope)
            case ast.Try():
                for part in (node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody):
                    self._branch(part, scope)
            case ast.Return():
                raise _ReturnError(self.value(node.value, scope) if node.value else None)

    def _branch(self, body: list[ast.stmt], scope: dict[str, Any]) -> None:
        with contextlib.suppress(_ReturnError):  # the other branch goes on
            self._body(body, scope)

    def _iterated(self, value: Any) -> Iterator[Any]:
        if isinstance(value, (dict, list | tuple)):
            yield from list(value)
        else:
            yield UNKNOWN

    def _assign(self, target: ast.expr, value: Any, scope: dict[str, Any]) -> None:
        match target:
            case ast.Name():
                scope[target.id] = value
            case ast.Tuple() | ast.List():
                parts = value if isinstance(value, list | tuple) and len(value) == len(target.elts) else None
                for number, part in enumerate(target.elts):
                    self._assign(part, UNKNOWN if parts is None else parts[number], scope)
            case ast.Subscript():
                owner, key = self.value(target.value, scope), self.value(target.slice, scope)
                if isinstance(owner, dict) and isinstance(key, str):
                    owner[key] = value
                else:
                    self.events.append(ItemSet(owner, key, value, target.lineno))

    def _import(self, node: ast.Import | ast.ImportFrom, scope: dict[str, Any]) -> None:
        if isinstance(node, ast.Import):
            for name in node.names:
                scope[name.asname or name.name.partition(".")[0]] = Dotted(
                    name.name if name.asname else name.name.partition(".")[0]
                )
            return
        package = node.module or ""
        if node.level:
            parts = self._module.dotted.split(".")
            is_package = PurePosixPath(self._module.file.path).name == "__init__.py"
            base = parts[: len(parts) - node.level + (1 if is_package else 0)]
            package = ".".join(filter(None, [*base, node.module or ""]))
        for name in node.names:
            if name.name == "*":
                module = self._library.module(package)
                scope.update({k: v for k, v in module.names.items() if not k.startswith("_")} if module else {})
                continue
            dotted = f"{package}.{name.name}"
            value = self._library.resolve(dotted)
            scope[name.asname or name.name] = Dotted(dotted) if value is UNKNOWN else value

    def value(self, node: ast.expr, scope: Mapping[str, Any]) -> Any:
        """What an expression stands for."""
        self._step()
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return scope[node.id] if node.id in scope else Dotted(node.id) if node.id in _BUILTIN else UNKNOWN
            case ast.List() | ast.Tuple() | ast.Set():
                return self._items(node.elts, scope)
            case ast.Dict():
                return self._dict(node, scope)
            case ast.JoinedStr():
                parts = [self.value(part, scope) for part in node.values]
                return "".join(map(str, parts)) if all(is_plain(part) for part in parts) else UNKNOWN
            case ast.FormattedValue():
                return self.value(node.value, scope)
            case ast.BinOp():
                return combined(self.value(node.left, scope), node.op, self.value(node.right, scope))
            case ast.UnaryOp():
                operand = self.value(node.operand, scope)
                if isinstance(node.op, ast.USub) and isinstance(operand, int | float):
                    return -operand
                return not operand if isinstance(node.op, ast.Not) and is_plain(operand) else UNKNOWN
            case ast.IfExp():
                chosen = self.value(node.body, scope)
                return chosen if chosen is not UNKNOWN else self.value(node.orelse, scope)
            case ast.Attribute():
                return self._attribute(self.value(node.value, scope), node.attr)
            case ast.Subscript():
                return item_of(self.value(node.value, scope), self.value(node.slice, scope))
            case ast.Call():
                return self._called(node, scope)
            case ast.Starred():
                return self.value(node.value, scope)
            case ast.ListComp() | ast.GeneratorExp() if len(node.generators) == 1 and not node.generators[0].ifs:
                return self._comprehended(node, scope)
        return UNKNOWN

    def _items(self, nodes: list[ast.expr], scope: Mapping[str, Any]) -> list[Any]:
        made: list[Any] = []
        for node in nodes:
            value = self.value(node, scope)
            made += value if isinstance(node, ast.Starred) and isinstance(value, list | tuple) else [value]
            if len(made) > LARGEST_VALUE:
                raise _TooMuchError
        return made

    def _dict(self, node: ast.Dict, scope: Mapping[str, Any]) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            value = self.value(item, scope)
            if key is None:
                made.update(value if isinstance(value, dict) else {})
            elif isinstance(name := self.value(key, scope), str | int):
                made[name] = value
        return made

    def _comprehended(self, node: ast.ListComp | ast.GeneratorExp, scope: Mapping[str, Any]) -> Any:
        generator = node.generators[0]
        over = self.value(generator.iter, scope)
        if not isinstance(over, list | tuple | dict):
            return UNKNOWN
        made, inner = [], dict(scope)
        for item in over:
            self._assign(generator.target, item, inner)
            made.append(self.value(node.elt, inner))
        return made

    def _attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, Class):
            value = owner.get(name)
            return Dotted(f"{owner.module.dotted}.{owner.name}.{name}") if value is UNKNOWN else value
        if isinstance(owner, Dotted):
            dotted = f"{owner.name}.{name}"
            value = self._library.resolve(dotted) if "." in owner.name else UNKNOWN
            return Dotted(dotted) if value is UNKNOWN else value
        return UNKNOWN

    def _known_sentences(self, node: ast.expr, scope: Mapping[str, Any]) -> Any:
        """The whole sentences with which a text begins that ends with what is only known when it runs."""
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            node = node.left
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            node = node.func.value
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            node = node.left
        if isinstance(node, ast.JoinedStr):
            node = node.values[0] if node.values else node
        start = self.value(node, scope)
        found = re.match(r"[^{%]*[.!?](?=\s|\Z)", start, re.DOTALL) if isinstance(start, str) else None
        return found[0] if found else UNKNOWN

    def _called(self, node: ast.Call, scope: Mapping[str, Any]) -> Any:
        args = tuple(self._items(node.args, scope))
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value, scope)
            if keyword.arg == "help" and value is UNKNOWN:
                value = self._known_sentences(keyword.value, scope)
            kwargs.update(
                {keyword.arg: value}
                if keyword.arg is not None
                else {k: v for k, v in value.items() if isinstance(k, str)}
                if isinstance(value, dict)
                else {}
            )
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value, scope)
            if isinstance(owner, str | list | dict | tuple):
                return method(owner, node.func.attr, args, kwargs)
            function = self._attribute(owner, node.func.attr)
        else:
            owner, function = None, self.value(node.func, scope)
        if isinstance(function, Function) and not (isinstance(owner, Class) or self._depth >= DEEPEST_CALL):
            return self.call(function, args, kwargs)
        called = Called(self._named(node.func, function), args, kwargs, owner, node.lineno)
        if isinstance(function, Class):
            called = Called(function.name, args, kwargs, function, node.lineno)
        self.events.append(called)
        return called

    @staticmethod
    def _named(node: ast.expr, value: Any) -> str:
        if isinstance(value, Dotted):
            return value.name.rpartition(".")[2]
        if isinstance(node, ast.Attribute):
            return node.attr
        return node.id if isinstance(node, ast.Name) else ""
