"""API documentation from Python sources: every public callable with a docstring becomes an `ApiDoc`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hephaestus_jax.forge.installed.docstrings import DocField, ParsedDocstring, parse_docstring
from hephaestus_jax.forge.installed.exports import (
    Exports,
    is_public,
    last_name,
    official_modules,
    official_names,
    top_level,
)
from hephaestus_jax.forge.installed.modules import Module
from hephaestus_jax.forge.installed.schemas import Schema, json_literal, schema_from_annotation, schema_from_words
from hephaestus_jax.formats.records import ApiDoc

SHORTEST_DOCSTRING = 50  # characters; shorter ones say little more than the name

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Decorators whose functions are read as attributes, or are variants of another function without a docstring of its own.
_NOT_CALLED = {"property", "cached_property", "setter", "getter", "deleter", "overload", "abstractproperty",
               "hybrid_property", "lazyproperty", "classproperty"}  # fmt: skip
_DATACLASS_DECORATORS = {"dataclass", "define", "frozen", "attrs", "s", "mutable"}
_DATACLASS_BASES = {"NamedTuple", "BaseModel", "TypedDict", "PyTreeNode", "Struct"}


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
    shortest = min(filter(is_public, names), key=lambda name: (name.count("."), len(name), name), default=api.place)
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
    source = _Source(module.text)
    if isinstance(node, ast.ClassDef):
        constructor = _constructor(node)
        documented = node if ast.get_docstring(node) else constructor
        assert documented is not None
        text = ast.get_docstring(documented) or ""
        parsed = parse_docstring(text)
        own = ast.get_docstring(constructor) if constructor and documented is node else None
        if own:
            parsed = _merged(parsed, parse_docstring(own))
        arguments = constructor.args if constructor else None
        fields = _dataclass_fields(node) if constructor is None else []
        if fields:
            parsed = _attributes_as_parameters(parsed, {f.target.id for f in fields if isinstance(f.target, ast.Name)})
        result = None
    else:
        documented, text = node, ast.get_docstring(node) or ""
        parsed = parse_docstring(text)
        arguments, fields, result = node.args, [], node.returns
    bound = isinstance(node, ast.ClassDef) or (bool(definition.outer) and not _is_static(node))
    statement = documented.body[0]
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    tail = ".".join((*definition.outer, node.name)).partition(".")[2]
    record = ApiDoc(
        name=f"{module.name}.{definition.qualname}",
        provider=module.distribution.name,
        description=_description(parsed),
        provenance=module.distribution.provenance(f"{module.file}:{node.lineno}"),
        signature=_signature(node, arguments, fields, bound),
        parameters=_parameters(parsed, arguments, fields, bound, source),
        returns=None if isinstance(node, ast.ClassDef) else _returns(parsed, result, source),
        errors=parsed.errors,
        examples=parsed.examples,
    )
    return FoundApi(
        record=record,
        module=module.name,
        qualname=definition.qualname,
        file=module.file,
        span=(first, node.end_lineno or node.lineno),
        docstring_span=(statement.lineno, statement.end_lineno or statement.lineno),
        docstring=text,
        style=parsed.style,
        aliases=tuple(sorted(f"{name}.{tail}" if tail else name for name in definition.official)),
    )


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


def _attributes_as_parameters(parsed: ParsedDocstring, fields: set[str]) -> ParsedDocstring:
    """For a class made from its fields, documented attributes are what its constructor takes."""
    moved = tuple(item for item in parsed.attributes if item.name in fields)
    kept = tuple(item for item in parsed.attributes if item.name not in fields)
    return dataclasses.replace(parsed, parameters=(*parsed.parameters, *moved), attributes=kept)


def _dataclass_fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    decorators = {last_name(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}
    bases = {last_name(base) for base in node.bases}
    if _DATACLASS_DECORATORS.isdisjoint(decorators) and _DATACLASS_BASES.isdisjoint(bases):
        return []
    return [
        item
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
        and "ClassVar" not in ast.dump(item.annotation)
    ]


def _is_static(node: Function) -> bool:
    return any(last_name(decorator) == "staticmethod" for decorator in node.decorator_list)


# --- schemas ----------------------------------------------------------------------------------------------------------


class _Source:
    """Expressions as they are written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def of(self, node: ast.expr) -> str:
        """The source of an expression on one line."""
        if isinstance(node, ast.Name):
            return node.id
        return ast.unparse(node)


def _parameters(
    parsed: ParsedDocstring,
    arguments: ast.arguments | None,
    fields: list[ast.AnnAssign],
    bound: bool,
    source: _Source,
) -> Schema:
    """The JSON Schema of the parameters: those of the signature in order, then those only the docstring knows."""
    documented = {item.name: item for item in reversed(parsed.parameters)}
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for name, annotation, default, kind in _signature_parameters(arguments, fields, bound):
        item = documented.pop(name, None)
        if kind and item is None:
            continue  # *args and **kwargs that nothing is said about; the signature shows them
        properties[name] = _property(item, annotation, default, kind, source)
        if default is None and not kind:
            required.append(name)
    for item in parsed.parameters:
        if documented.get(item.name) is item and item.name not in ("self", "cls"):
            properties[item.name] = _property(item, None, None, "", source)
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema


def _signature_parameters(
    arguments: ast.arguments | None, fields: list[ast.AnnAssign], bound: bool
) -> Iterator[tuple[str, ast.expr | None, ast.expr | None, str]]:
    """(name, annotation, default, kind) of each parameter; kind is "*" or "**" for those that take any number."""
    for item in fields:
        assert isinstance(item.target, ast.Name)
        yield item.target.id, item.annotation, _field_default(item.value), ""
    if arguments is None:
        return
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for index, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        if not (bound and index == 0):
            yield argument.arg, argument.annotation, default, ""
    if arguments.vararg:
        yield arguments.vararg.arg, arguments.vararg.annotation, None, "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield argument.arg, argument.annotation, default, ""
    if arguments.kwarg:
        yield arguments.kwarg.arg, arguments.kwarg.annotation, None, "**"


def _field_default(value: ast.expr | None) -> ast.expr | None:
    """The default of a dataclass field; that of `field(default=x)` is x, of `field(default_factory=f)` is `f()`."""
    if isinstance(value, ast.Call) and last_name(value.func).lower() in ("field", "attrib", "ib"):
        for keyword in value.keywords:
            if keyword.arg == "default":
                return keyword.value
            if keyword.arg in ("default_factory", "factory"):
                return ast.Call(func=keyword.value, args=[], keywords=[])
        return None
    return value


def _property(
    item: DocField | None, annotation: ast.expr | None, default: ast.expr | None, kind: str, source: _Source
) -> Schema:
    stated = item.type if item else ""
    schema = schema_from_annotation(annotation) or schema_from_words(stated)
    if kind:
        # the annotation of *args is that of each one
        schema = {"type": "array", "items": schema} if kind == "*" else {"type": "object"}
        schema["x-python-kind"] = kind
    if annotation is not None:
        schema["x-python-type"] = source.of(annotation)
    elif stated:
        schema["x-python-type"] = stated
    if item and item.description:
        schema["description"] = item.description
    if default is not None:
        literal = json_literal(default)
        if literal:
            schema["default"] = literal[0]
        else:
            schema["x-python-default"] = source.of(default)
    return schema


def _returns(parsed: ParsedDocstring, annotation: ast.expr | None, source: _Source) -> Schema | None:
    """The JSON Schema of the result; several documented values are the items of a tuple."""
    if annotation is None and not parsed.returns:
        return None
    schema: Schema = schema_from_annotation(annotation)
    items = [_return_value(item) for item in parsed.returns]
    if len(items) == 1:
        schema = {**items[0], **schema}
    elif items:
        schema = {"type": "array", **schema, "prefixItems": items}
    if annotation is not None:
        schema["x-python-type"] = source.of(annotation)
    return schema


def _return_value(item: DocField) -> Schema:
    schema: Schema = schema_from_words(item.type)
    if item.name:
        schema["title"] = item.name
    if item.type:
        schema["x-python-type"] = item.type
    if item.description:
        schema["description"] = item.description
    return schema


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


def _signature(node: ast.AST, arguments: ast.arguments | None, fields: list[ast.AnnAssign], bound: bool) -> str:
    """`name(parameters) -> result` as a caller sees it: without `self`."""
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    if fields:
        written = ", ".join(
            f"{ast.unparse(item.target)}: {ast.unparse(item.annotation)}"
            + (f" = {ast.unparse(default)}" if (default := _field_default(item.value)) is not None else "")
            for item in fields
        )
    elif arguments is None:
        written = ""
    else:
        written = ast.unparse(_without_first(arguments) if bound else arguments)
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    result = getattr(node, "returns", None)
    return f"{prefix}{node.name}({written})" + (f" -> {ast.unparse(result)}" if result is not None else "")


def _without_first(arguments: ast.arguments) -> ast.arguments:
    positional = [*arguments.posonlyargs, *arguments.args][1:]
    only = max(0, len(arguments.posonlyargs) - 1)
    return ast.arguments(
        posonlyargs=positional[:only],
        args=positional[only:],
        vararg=arguments.vararg,
        kwonlyargs=arguments.kwonlyargs,
        kw_defaults=arguments.kw_defaults,
        kwarg=arguments.kwarg,
        defaults=arguments.defaults[-len(positional) :] if positional else [],
    )


# --- documentation of compiled code -----------------------------------------------------------------------------------

_WRITTEN_SIGNATURE = re.compile(r"([\w.]+)\((.*)\)(?:\s*->\s*(.+))?$")


def _from_add_newdoc(module: Module) -> Iterator[FoundApi]:
    """Docstrings that NumPy and SciPy attach to compiled functions: `add_newdoc("numpy", "dot", "...")`."""
    for node in module.tree.body:
        match node:
            case ast.Expr(ast.Call(func, [ast.Constant(str(place)), ast.Constant(str(name)), ast.Constant(str()) as doc])):
                pass
            case ast.Expr(
                ast.Call(
                    func,
                    [
                        ast.Constant(str(place)),
                        ast.Constant(str(owner)),
                        ast.Tuple([ast.Constant(str(member)), ast.Constant(str()) as doc]),
                    ],
                )
            ):
                name = f"{owner}.{member}"
            case ast.Expr(ast.Call(func, [ast.Constant(str(name)), ast.Constant(str()) as doc])):
                place = module.package
            case _:
                continue
        text = inspect.cleandoc(doc.value)
        if last_name(func) == "add_newdoc" and is_public(name) and len(text) >= SHORTEST_DOCSTRING:
            yield _compiled(module, node, place, name, doc, text)


def _compiled(module: Module, node: ast.stmt, place: str, name: str, doc: ast.Constant, text: str) -> FoundApi:
    signature, arguments, body = _leading_signature(text, name)
    parsed = parse_docstring(body)
    source = _Source(module.text)
    record = ApiDoc(
        name=f"{place}.{name}",
        provider=module.distribution.name,
        description=_description(parsed),
        provenance=module.distribution.provenance(f"{module.file}:{node.lineno}"),
        signature=signature,
        parameters=_parameters(parsed, arguments, [], False, source),
        returns=_returns(parsed, None, source),
        errors=parsed.errors,
        examples=parsed.examples,
    )
    span = (node.lineno, node.end_lineno or node.lineno)
    lines = (doc.lineno, doc.end_lineno or doc.lineno)
    return FoundApi(record, place, name, module.file, span, lines, text, parsed.style)


def _leading_signature(text: str, name: str) -> tuple[str, ast.arguments | None, str]:
    """(signature, its parameters, the rest) of a docstring whose first paragraph is the signature."""
    first, _, rest_of_it = text.partition("\n\n")
    match = _WRITTEN_SIGNATURE.match(" ".join(first.split()))
    if not match or match[1].rpartition(".")[2] != name.rpartition(".")[2]:
        return "", None, text
    try:
        parsed: Any = ast.parse(f"def f({match[2]}): pass").body[0]
    except SyntaxError:
        return match[0], None, rest_of_it  # "arange([start,] stop[, step,])" is a signature, but not in Python
    return match[0], parsed.args, rest_of_it


