"""Azure's generated command classes: their arguments, as the methods that build them tell."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.forge.clouds.azure_arguments import Node
from hephaestus_jax.forge.clouds.python_values import UNKNOWN, Class, Follower, Function, Library

_BUILD = "_build_arguments_schema"
_DEEPEST = 60  # methods that call one another
_MOST_STATEMENTS = 50_000


@dataclass(eq=False)
class _Self:
    """`cls` within a method: what is kept on the class, and where the search for methods begins."""

    lineage: tuple[Class, ...]
    kept: dict[str, Any] = field(default_factory=dict)
    statements: int = 0


def lineage(cls: Class) -> tuple[Class, ...]:
    """The class and those of its bases that the package has, nearest first."""
    found: list[Class] = []
    pending = [cls]
    while pending and len(found) < 16:
        current = pending.pop(0)
        if current not in found:
            found.append(current)
            pending += [base for base in current.bases if isinstance(base, Class)]
    return tuple(found)


def arguments(library: Library, cls: Class) -> dict[str, Node]:
    """The arguments of a command class by name, in the order in which they are built."""
    this = _Self(lineage(cls))
    root = Node("root")
    this.kept["_args_schema"] = root
    for level, owner in enumerate(this.lineage):
        if isinstance(method := owner.attributes.get(_BUILD), Function):
            _Builder(library, this).run(method, {"cls": this}, level)
            break
    return root.parts


class _ReturnedError(Exception):
    pass


class _Builder:
    def __init__(self, library: Library, this: _Self, depth: int = 0) -> None:
        self._library = library
        self._this = this
        self._depth = depth
        self._level = 0

    def run(self, method: Function, names: dict[str, Any], level: int) -> None:
        """Follows a method of the class at `level` of the lineage."""
        self._level = level
        follower = Follower(self._library, method.module)
        scope = dict(method.scope)
        with contextlib.suppress(_ReturnedError):
            self._body(method.node.body, names, follower, scope)

    def _body(self, body: list[ast.stmt], names: dict[str, Any], follower: Follower, scope: dict[str, Any]) -> None:
        for node in body:
            self._this.statements += 1
            if self._this.statements > _MOST_STATEMENTS:
                raise _ReturnedError
            match node:
                case ast.Assign():
                    value = self._value(node.value, names, follower, scope)
                    for target in node.targets:
                        self._assign(target, value, names, follower, scope)
                case ast.Expr():
                    self._value(node.value, names, follower, scope)
                case ast.If():
                    chosen = self._is_kept(node.test)
                    if chosen is not False:
                        self._body(node.body, names, follower, scope)
                    if chosen is not True:
                        self._body(node.orelse, names, follower, scope)
                case ast.With():
                    self._body(node.body, names, follower, scope)
                case ast.Import() | ast.ImportFrom():
                    follower.follow([node], scope)
                case ast.Return():
                    raise _ReturnedError

    def _is_kept(self, test: ast.expr) -> bool | None:
        """Whether `cls.x is not None` holds; None for other conditions."""
        kept = test.left if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.IsNot) else None
        if not isinstance(kept, ast.Attribute):
            return None
        # the arguments of the command itself are being built, whatever the class has kept
        return kept.attr != "_args_schema" and kept.attr in self._this.kept

    def _assign(
        self, target: ast.expr, value: Any, names: dict[str, Any], follower: Follower, scope: dict[str, Any]
    ) -> None:
        if isinstance(target, ast.Name):
            names[target.id] = value
            scope[target.id] = value if not isinstance(value, Node | _Self) else UNKNOWN
        elif isinstance(target, ast.Attribute):
            owner = self._value(target.value, names, follower, scope)
            if isinstance(owner, _Self):
                if target.attr != "_args_schema":
                    owner.kept[target.attr] = value
            elif isinstance(owner, Node):
                if isinstance(value, Node):
                    owner.parts[target.attr] = value
                elif target.attr.startswith("_"):
                    owner.changed[target.attr] = value

    def _value(self, node: ast.expr, names: dict[str, Any], follower: Follower, scope: dict[str, Any]) -> Any:
        match node:
            case ast.Name() if node.id in names:
                return names[node.id]
            case ast.Attribute():
                owner = self._value(node.value, names, follower, scope)
                if isinstance(owner, _Self):
                    return owner.kept.get(node.attr, UNKNOWN)
                if isinstance(owner, Node):
                    return owner.parts.get(node.attr, UNKNOWN)
            case ast.Call():
                return self._called(node, names, follower, scope)
        try:
            return follower.value(node, scope)
        except Exception as error:  # the follower's own bound on its steps
            raise _ReturnedError from error

    def _called(self, node: ast.Call, names: dict[str, Any], follower: Follower, scope: dict[str, Any]) -> Any:
        function = node.func
        if isinstance(function, ast.Name) and function.id.startswith("AAZ"):
            settings = {k.arg: self._value(k.value, names, follower, scope) for k in node.keywords if k.arg}
            return Node(function.id, settings)
        if isinstance(function, ast.Attribute) and function.attr == _BUILD:
            self._build_above()
            return self._this.kept["_args_schema"]
        if isinstance(function, ast.Attribute) and function.attr.startswith("_build_args_"):
            given = [self._value(arg, names, follower, scope) for arg in node.args]
            self._build_part(function.attr, given)
            return None
        return UNKNOWN

    def _build_above(self) -> None:
        """`super()._build_arguments_schema()`."""
        for level in range(self._level + 1, len(self._this.lineage)):
            if isinstance(method := self._this.lineage[level].attributes.get(_BUILD), Function):
                if self._depth < _DEEPEST:
                    _Builder(self._library, self._this, self._depth + 1).run(method, {"cls": self._this}, level)
                return

    def _build_part(self, name: str, given: list[Any]) -> None:
        for level, owner in enumerate(self._this.lineage):
            if isinstance(method := owner.attributes.get(name), Function):
                parameters = [arg.arg for arg in method.node.args.args]
                values = dict(zip(parameters, [self._this, *given], strict=False))
                if self._depth < _DEEPEST:
                    _Builder(self._library, self._this, self._depth + 1).run(method, values, level)
                return


def registered(cls: Class, follower: Follower) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and keywords of the `register_command` decorators of a class."""
    for decorator in cls.node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else None
        if not (isinstance(decorator, ast.Call) and isinstance(called, ast.Name) and called.id == "register_command"):
            continue
        keywords = {k.arg: follower.value(k.value, cls.module.names) for k in decorator.keywords if k.arg}
        name = follower.value(decorator.args[0], cls.module.names) if decorator.args else keywords.get("name")
        if isinstance(name, str):
            yield name, keywords
