"""API documentation from Python sources: every public callable with a docstring becomes an `ApiDoc`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from hephaestus_jax.forge.installed.docstrings import ParsedDocstring, parse_docstring
from hephaestus_jax.forge.installed.exports import (
    Exports,
    is_public,
    last_name,
    official_modules,
    official_names,
    top_level,
)
from hephaestus_jax.forge.installed.modules import Module
from hephaestus_jax.forge.installed.signatures import (
    Function,
    Signature,
    argument_parameters,
    class_signature,
    function_signature,
    parameters_schema,
    returns_schema,
)
from hephaestus_jax.formats.records import ApiDoc

SHORTEST_DOCSTRING = 50  # characters; shorter ones say little more than the name

# Decorators whose functions are read as attributes, or are variants of another function without a docstring of its own.
_NOT_CALLED = {"property", "cached_property", "setter", "getter", "deleter", "overload", "abstractproperty",
               "hybrid_property", "lazyproperty", "classproperty"}  # fmt: skip


@dataclass(frozen=True)
class FoundApi:
    """The documentation of one callable and where it stands.

    `span` are the first and last line of the definition, decorators included; `docstring_span` those of the docstring
    as it stands in the file. Lines count from 1. `docstring` is cleaned as `inspect.cleandoc` does. `aliases` are all
    known dotted names, the record's own and the place of definition among them, sorted.
    """

    record: ApiDoc
    module: str
    qualname: str
    file: str
    span: tuple[int, int]
    docstring_span: tuple[int, int]
    docstring: str
    style: str
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        (first, last), (doc_first, doc_last) = self.span, self.docstring_span
        if not 1 <= first <= doc_first <= doc_last <= last:
            raise ValueError(f"{self.file}: docstring at {self.docstring_span} is not inside {self.span}")

    @property
    def place(self) -> str:
        """The dotted name at the place of definition."""
        return f"{self.module}.{self.qualname}"


@dataclass(frozen=True)
class _Definition:
    """A class or function with a docstring, and the public class around it."""

    node: Function | ast.ClassDef
    outer: tuple[str, ...]
    official: frozenset[str]  # names of the outermost definition that its decorators state

    @property
    def qualname(self) -> str:
        return ".".join((*self.outer, self.node.name))

    @property
    def official_names(self) -> tuple[str, ...]:
        """The official names of this definition itself, sorted."""
        tail = self.qualname.partition(".")[2]
        return tuple(sorted(f"{name}.{tail}" if tail else name for name in self.official))


def find_apis(module: Module) -> list[FoundApi]:
    """The public callables of a module with docstrings of `SHORTEST_DOCSTRING` characters or more, in file order.

    Their names are those of the place of definition; `with_public_name` gives them their own.
    """
    found = [_from_definition(module, definition) for definition in _definitions(module)]
    return sorted((*found, *_from_add_newdoc(module)), key=lambda api: api.span)


def with_public_name(api: FoundApi, exports: Exports) -> FoundApi:
    """The same API under its shortest public name, with all its names as aliases."""
    head, _, tail = api.qualname.partition(".")
    reached = {f"{name}.{tail}" if tail else name for name in exports.public_names(api.module, head)}
    names = {*api.aliases, *reached, api.place}
    # a package of its own is the better home: pymongo's collections can be reached through gridfs too
    own = api.module.partition(".")[0] + "."
    shortest = min(
        filter(is_public, names),
        key=lambda name: (not name.startswith(own), name.count("."), len(name), name),
        default=api.place,
    )
    record = dataclasses.replace(api.record, name=shortest)
    return dataclasses.replace(api, record=record, aliases=tuple(sorted(names)))


# --- definitions ------------------------------------------------------------------------------------------------------


def _definitions(module: Module) -> Iterator[_Definition]:
    moved = official_modules(module)
    seen: set[str] = set()
    for node in top_level(module.tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            official = frozenset(official_names(node, moved))
            for definition in _with_members(node, (), official):
                if definition.qualname not in seen:  # of variants under `if` and `try`, the first documented one
                    seen.add(definition.qualname)
                    yield definition


def _with_members(node: ast.stmt, outer: tuple[str, ...], official: frozenset[str]) -> Iterator[_Definition]:
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    if node.name.startswith("_") and node.name != "__call__":
        return
    if isinstance(node, ast.ClassDef):
        if len(_docstring_of_class(node)) >= SHORTEST_DOCSTRING:
            yield _Definition(node, outer, official)
        for member in top_level(node.body):
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _with_members(member, (*outer, node.name), official)
    elif len(ast.get_docstring(node) or "") >= SHORTEST_DOCSTRING and _is_called(node):
        yield _Definition(node, outer, official)


def _is_called(node: Function) -> bool:
    names = (last_name(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list)
    return _NOT_CALLED.isdisjoint(names)


def _docstring_of_class(node: ast.ClassDef) -> str:
    """The docstring of a class, else of its constructor."""
    constructor = _constructor(node)
    return ast.get_docstring(node) or (ast.get_docstring(constructor) if constructor else "") or ""


def _constructor(node: ast.ClassDef) -> Function | None:
    found = {m.name: m for m in top_level(node.body) if isinstance(m, ast.FunctionDef) and _is_called(m)}
    return found.get("__init__") or found.get("__new__")


def _from_definition(module: Module, definition: _Definition) -> FoundApi:
    node = definition.node
    if isinstance(node, ast.ClassDef):
        constructor = _constructor(node)
        documented = node if ast.get_docstring(node) or constructor is None else constructor
        signature = class_signature(node, constructor)
    else:
        constructor, documented = None, node
        signature = function_signature(node, bound=bool(definition.outer) and not _is_static(node))
    text = ast.get_docstring(documented) or ""
    _, body = _leading_signature(text, definition.qualname)  # the source states it better
    parsed = parse_docstring(body or text, signature.names)
    if isinstance(node, ast.ClassDef) and constructor is None:
        parsed = _attributes_as_parameters(parsed, signature.names)
    if constructor and constructor is not documented and (own := ast.get_docstring(constructor)):
        parsed = _merged(parsed, parse_docstring(own, signature.names))
    api = api_doc(module, (module.name, definition.qualname), node.lineno, parsed, signature)
    return FoundApi(
        record=dataclasses.replace(api, returns=None) if isinstance(node, ast.ClassDef) else api,
        module=module.name,
        qualname=definition.qualname,
        file=module.file,
        span=(min([node.lineno, *(d.lineno for d in node.decorator_list)]), node.end_lineno or node.lineno),
        docstring_span=_lines(documented.body[0]),
        docstring=text,
        style=parsed.style,
        aliases=definition.official_names,
    )


def api_doc(
    module: Module, place: tuple[str, str], line: int, parsed: ParsedDocstring, signature: Signature | None
) -> ApiDoc:
    """The record of a callable at `place` (module, qualified name), documented at `line` of the file of `module`."""
    return ApiDoc(
        name=".".join(place),
        provider=module.distribution.name,
        description=_description(parsed),
        provenance=module.distribution.provenance(f"{module.file}:{line}"),
        signature=signature.text if signature else "",
        parameters=parameters_schema(parsed, signature),
        returns=returns_schema(parsed, signature.returns if signature else None),
        errors=parsed.errors,
        examples=parsed.examples,
    )


def _lines(node: ast.stmt | ast.expr) -> tuple[int, int]:
    return node.lineno, node.end_lineno or node.lineno


def _merged(of_class: ParsedDocstring, of_constructor: ParsedDocstring) -> ParsedDocstring:
    """The docstring of a class with what that of its constructor adds."""
    # "Initializes the object." and the like add nothing to what the class says of itself
    more = of_constructor.description if len(of_constructor.description.split()) > 12 else ""
    documented = {field.name for field in of_constructor.parameters}
    return dataclasses.replace(
        of_class,
        description="\n\n".join(filter(None, (of_class.description, more))),
        parameters=(
            *of_constructor.parameters,
            *(field for field in of_class.parameters if field.name not in documented),
        ),
        errors=tuple(dict.fromkeys((*of_class.errors, *of_constructor.errors))),
        examples=tuple(dict.fromkeys((*of_class.examples, *of_constructor.examples))),
    )


def _attributes_as_parameters(parsed: ParsedDocstring, fields: Collection[str]) -> ParsedDocstring:
    """For a class made from its fields, documented attributes are what its constructor takes."""
    moved = tuple(item for item in parsed.attributes if item.name in fields)
    kept = tuple(item for item in parsed.attributes if item.name not in fields)
    return dataclasses.replace(parsed, parameters=(*parsed.parameters, *moved), attributes=kept)


def _description(parsed: ParsedDocstring) -> str:
    """The description, followed by the attributes in one form for all styles."""
    if not parsed.attributes:
        return parsed.description
    lines = ["Attributes:"]
    for item in parsed.attributes:
        head = f"{item.name} ({item.type})" if item.type else item.name
        body = item.description.replace("\n", "\n        ")
        lines.append(f"    {head}: {body}".rstrip())
    return "\n\n".join(filter(None, (parsed.description, "\n".join(lines))))


def _is_static(node: Function) -> bool:
    return any(last_name(decorator) == "staticmethod" for decorator in node.decorator_list)


# --- documentation of compiled code -----------------------------------------------------------------------------------

_WRITTEN_SIGNATURE = re.compile(r"([\w.]+)\((.*)\)(?:\s*->\s*(.+))?$")


def _from_add_newdoc(module: Module) -> Iterator[FoundApi]:
    """Docstrings that NumPy and SciPy attach to compiled functions: `add_newdoc("numpy", "dot", "...")`."""
    for node in module.tree.body:
        match node:
            case ast.Expr(ast.Call(func, arguments)) if last_name(func) == "add_newdoc":
                pass
            case _:
                continue
        match arguments:
            case [ast.Constant(str(place)), ast.Constant(str(name)), ast.Constant(str()) as doc]:
                member = ""
            case [
                ast.Constant(str(place)),
                ast.Constant(str(name)),
                ast.Tuple([ast.Constant(str(member)), ast.Constant(str()) as doc]),
            ]:
                pass
            case [ast.Constant(str(name)), ast.Constant(str()) as doc]:
                place, member = module.package, ""
            case _:
                continue
        text = inspect.cleandoc(str(doc.value))
        qualname = f"{name}.{member}" if member else name
        if not is_public(qualname) or len(text) < SHORTEST_DOCSTRING:
            continue
        signature, body = _leading_signature(text, qualname)
        if member and signature is None:
            continue  # an attribute
        parsed = parse_docstring(body)
        record = api_doc(module, (place, qualname), node.lineno, parsed, signature)
        yield FoundApi(record, place, qualname, module.file, _lines(node), _lines(doc), text, parsed.style)


def _leading_signature(text: str, name: str) -> tuple[Signature | None, str]:
    """(signature, the rest) of a docstring whose first paragraph is the signature."""
    first, _, rest = text.partition("\n\n")
    match = _WRITTEN_SIGNATURE.match(" ".join(first.split()))
    if not match or match[1].rpartition(".")[2] != name.rpartition(".")[2]:
        return None, text
    try:
        parsed = ast.parse(f"def f({match[2]}): pass").body[0]
    except SyntaxError:
        return Signature((), None, match[0]), rest  # "arange([start,] stop[, step])" is none in Python
    assert isinstance(parsed, ast.FunctionDef)
    return Signature(tuple(argument_parameters(parsed.args)), None, match[0]), rest
