"""Public names: under which dotted names a definition can be reached from outside.

`numpy.linalg.solve` is defined in numpy/linalg/_linalg.py; that it is public is written in imports, in the `__all__`
of packages, and in decorators such as `@tf_export("nn.relu")`. All of it is read from the syntax tree.
"""

from __future__ import annotations

import ast
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from hephaestus_jax.forge.installed.modules import Module

# A module can be reached under endless names when packages import their parents; these bounds end the walk.
_NAMES_PER_MODULE = 4
_DEEPEST_NAME = 8
_LONGEST_CHAIN = 20

# Decorators that state official names, and what their arguments are relative to.
_EXPORT_DECORATORS = {"tf_export": "tensorflow.", "keras_export": "", "estimator_export": "tensorflow.estimator."}


@dataclass
class Bindings:
    """What a module's top level binds.

    `definitions` are the classes, functions and variables of the module itself; `imported` maps a local name to
    (module, name), or to (module, None) when it is the module itself; `stars` are modules that it imports all of.
    `all` is the literal `__all__`, None when there is none or when it is computed.
    """

    name: str
    is_package: bool
    definitions: set[str] = field(default_factory=set)
    imported: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    renamed: set[str] = field(default_factory=set)  # `import x as x`: meant as a re-export (PEP 484)
    internal: set[str] = field(default_factory=set)  # `import a.b as c`: an abbreviation for the module's own use
    stars: list[str] = field(default_factory=list)
    all: set[str] | None = None


def read_bindings(module: Module) -> Bindings:
    """The bindings of a module's top level, inside `if` and `try` too."""
    found = Bindings(module.name, module.is_package)
    computed_all = False
    for node in top_level(module.tree.body):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.definitions.add(node.name)
            case ast.ImportFrom():
                _read_import_from(node, module.package, found)
            case ast.Import():
                for alias in node.names:
                    if alias.asname:
                        found.imported[alias.asname] = (alias.name, None)
                        if alias.asname != alias.name.rpartition(".")[2]:
                            found.internal.add(alias.asname)
            case ast.Assign([ast.Name(name)], ast.Name() | ast.Attribute(ast.Name()) as value) if source := _renamed(
                found, value
            ):
                found.imported[name] = source
                found.renamed.add(name)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        found.definitions.add(target.id)
                        if target.id == "__all__":
                            computed_all |= not _add_all(found, node.value)
            case ast.Delete():
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        found.definitions.discard(target.id)
                        found.imported.pop(target.id, None)
            case ast.Expr(ast.Call(ast.Attribute(ast.Name("__all__"), "append" | "extend"), [argument])):
                computed_all |= not _add_all(found, argument)
    if computed_all:
        found.all = None
    return found


def top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module (or a class body) is executed, those under `if`, `try`, `with` included."""
    for node in body:
        yield node
        match node:
            case ast.If():
                yield from top_level((*node.body, *node.orelse))
            case ast.Try() | ast.TryStar():
                handlers = (statement for handler in node.handlers for statement in handler.body)
                yield from top_level((*node.body, *handlers, *node.orelse, *node.finalbody))
            case ast.With():
                yield from top_level(node.body)


def _read_import_from(node: ast.ImportFrom, package: str, found: Bindings) -> None:
    source = resolve_relative(package, node.level, node.module)
    for alias in node.names:
        if alias.name == "*":
            found.stars.append(source)
        else:
            found.imported.setdefault(alias.asname or alias.name, (source, alias.name))
            if alias.asname == alias.name:
                found.renamed.add(alias.name)


def _renamed(found: Bindings, value: ast.Name | ast.Attribute) -> tuple[str, str | None] | None:
    """Where the value of `new = old` or `new = module.old` comes from, None when it is no known definition."""
    if isinstance(value, ast.Name):
        return (found.name, value.id) if value.id in found.definitions else found.imported.get(value.id)
    assert isinstance(value.value, ast.Name)
    source, name = found.imported.get(value.value.id, ("", None))
    return (f"{source}.{name}" if name else source, value.attr) if source else None


def resolve_relative(package: str, level: int, module: str | None) -> str:
    """The absolute name of the module in `from ..module import x`, seen from `package`."""
    if level == 0:
        return module or ""
    parts = package.split(".")
    base = parts[: len(parts) - (level - 1)]
    return ".".join([*base, module] if module else base)


def _add_all(found: Bindings, value: ast.expr | None) -> bool:
    """Adds the strings of a literal to `__all__`; False when part of it is computed."""
    if isinstance(value, ast.List | ast.Tuple):
        items: list[ast.expr] = value.elts
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        items = [value]
    else:
        return False
    names = {item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)}
    found.all = (found.all or set()) | names
    return len(names) == len(items)


def is_public(name: str) -> bool:
    """Whether no part of a dotted name begins with an underscore."""
    return not name.startswith("_") and "._" not in name


class Exports:
    """The public names of every definition of one distribution."""

    def __init__(self, bindings: Iterable[Bindings]) -> None:
        self._modules: Mapping[str, Bindings] = {item.name: item for item in bindings}
        self._children: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._modules):
            self._children[name.rpartition(".")[0]].append(name)
        self._names: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._star_names: dict[str, set[str]] = {}
        self._walk()

    def public_names(self, module: str, name: str) -> set[str]:
        """The dotted names under which the top-level `name` of `module` can be reached without a private part."""
        return self._names.get((module, name), set())

    def _walk(self) -> None:
        """Visits every module under its public names, breadth first, so that short names come first."""
        roots = [name for name in self._modules if name.rpartition(".")[0] not in self._modules and is_public(name)]
        queue = deque((name, name) for name in sorted(roots, key=lambda name: (name.count("."), name)))
        visits: dict[str, set[str]] = defaultdict(set)
        while queue:
            prefix, module = queue.popleft()
            if prefix in visits[module] or len(visits[module]) >= _NAMES_PER_MODULE:
                continue
            visits[module].add(prefix)
            for name, target in self._exported(module):
                queue.extend(self._record(f"{prefix}.{name}", *target))
            for child in self._children[module]:
                if is_public(last := child.rpartition(".")[2]):
                    queue.append((f"{prefix}.{last}", child))

    def _record(self, public: str, module: str, name: str | None) -> list[tuple[str, str]]:
        """Notes a public name along the whole chain of imports; returns the modules it opens up."""
        if name is None:
            return [(public, module)] if module in self._modules and public.count(".") < _DEEPEST_NAME else []
        for place in self._chain(module, name):
            if place[1] is None:
                return self._record(public, *place)
            self._names[place[0], place[1]].add(public)
        return []

    def _chain(self, module: str, name: str) -> Iterator[tuple[str, str | None]]:
        """The places through which `module.name` is imported, the definition last."""
        for _ in range(_LONGEST_CHAIN):
            if f"{module}.{name}" in self._modules and not self._binds(module, name):
                yield f"{module}.{name}", None
                return
            yield module, name
            bindings = self._modules.get(module)
            if bindings is None or name in bindings.definitions:
                return
            if name in bindings.imported:
                source, original = bindings.imported[name]
                if original is None:
                    yield source, None
                    return
                module, name = source, original
                continue
            star = next((star for star in bindings.stars if name in self._exported_by_star(star)), None)
            if star is None:
                return
            module = star

    def _binds(self, module: str, name: str) -> bool:
        bindings = self._modules.get(module)
        return bindings is not None and (name in bindings.definitions or name in bindings.imported)

    def _exported(self, module: str) -> list[tuple[str, tuple[str, str | None]]]:
        """(public name, where it comes from) for what a module offers to others, sorted by name."""
        bindings = self._modules.get(module)
        if bindings is None:
            return []
        found: dict[str, tuple[str, str | None]] = {name: (module, name) for name in bindings.definitions}
        if bindings.is_package:
            reexported = set(bindings.imported) - (bindings.internal - (bindings.all or set()))
        else:
            reexported = (bindings.all or set()) | bindings.renamed
        found.update({name: bindings.imported[name] for name in reexported if name in bindings.imported})
        if bindings.is_package or bindings.all is not None:
            for star in bindings.stars:
                for name in self._exported_by_star(star):
                    if bindings.is_package or name in (bindings.all or ()):
                        found.setdefault(name, (star, name))
        elif bindings.stars and not bindings.definitions:  # a module that only passes on, as collections.abc does
            for star in bindings.stars:
                found.update({name: (star, name) for name in self._exported_by_star(star)})
        return sorted((name, target) for name, target in found.items() if is_public(name))

    def _exported_by_star(self, module: str) -> set[str]:
        """The names that `from module import *` brings."""
        if module in self._star_names:
            return self._star_names[module]
        self._star_names[module] = set()  # modules that import all of each other
        bindings = self._modules.get(module)
        names: set[str] = set()
        if bindings is not None:
            if bindings.all is not None:
                names = set(bindings.all)
            else:
                names = bindings.definitions | {n for n, (_, original) in bindings.imported.items() if original}
                for star in bindings.stars:
                    names |= self._exported_by_star(star)
                names = {name for name in names if is_public(name)}
        self._star_names[module] = names
        return names


def official_modules(module: Module) -> dict[str, str]:
    """Local decorator names that move a definition to another module, as in `export = set_module("jax.numpy")`."""
    found = {}
    for node in module.tree.body:
        match node:
            case ast.Assign([ast.Name(name)], ast.Call() as call) if target := _module_argument(call):
                found[name] = target
    return found


def official_names(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, moved: Mapping[str, str]) -> set[str]:
    """The names that a definition's decorators state.

    Args:
        node: the definition.
        moved: the module's own decorators, from `official_modules`.
    """
    found: set[str] = set()
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        called = last_name(call.func if call else decorator)
        if call and called in _EXPORT_DECORATORS:
            prefix = _EXPORT_DECORATORS[called]
            found.update(prefix + name for argument in call.args for name in _strings(argument))
            if prefix:
                old = (name for k in call.keywords if k.arg == "v1" for name in _strings(k.value))
                found.update(f"{prefix}compat.v1.{name}" for name in old)
        target = (_module_argument(call) if call else None) or moved.get(called)
        if target:
            found.add(f"{target}.{node.name}")
    return {name for name in found if is_public(name)}


def _module_argument(call: ast.Call) -> str | None:
    """The module in `set_module("numpy")` and `array_function_dispatch(dispatcher, module="numpy")`."""
    called = last_name(call.func)
    if called == "set_module" and call.args:
        return next(iter(_strings(call.args[0])), None)
    if called == "array_function_dispatch" or (
        called == "partial" and call.args and last_name(call.args[0]) == "array_function_dispatch"
    ):
        return next((name for k in call.keywords if k.arg == "module" for name in _strings(k.value)), None)
    return None


def _strings(node: ast.expr) -> list[str]:
    items = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
    return [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]


def last_name(node: ast.expr) -> str:
    """`c` for the expressions `c` and `a.b.c`, "" for any other."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
