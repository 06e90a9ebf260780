"""Signatures from the syntax tree, and the JSON Schemas of parameters and results that they make with a docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hephaestus_jax.forge.installed.docstrings import DocField, ParsedDocstring
from hephaestus_jax.forge.installed.exports import last_name
from hephaestus_jax.forge.installed.schemas import (
    Schema,
    admitting,
    json_literal,
    schema_from_annotation,
    schema_from_description,
    schema_from_words,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef

_DATACLASS_DECORATORS = {"dataclass", "define", "frozen", "attrs", "s", "mutable", "strict"}
_DATACLASS_BASES = {"NamedTuple", "BaseModel", "TypedDict", "PyTreeNode", "Struct", "Module"}


@dataclass(frozen=True)
class Parameter:
    """One parameter; `kind` is "*" or "**" when it takes any number of arguments."""

    name: str
    annotation: ast.expr | None = None
    default: ast.expr | None = None
    kind: Literal["", "*", "**"] = ""


@dataclass(frozen=True)
class Signature:
    """How a callable is called: its parameters without `self`, the result, and both as text."""

    parameters: tuple[Parameter, ...]
    returns: ast.expr | None
    text: str

    @property
    def names(self) -> frozenset[str]:
        """The names of the parameters."""
        return frozenset(parameter.name for parameter in self.parameters)


def function_signature(node: Function, bound: bool) -> Signature:
    """The signature of a function; of a method when `bound`, and then its first parameter is left out."""
    arguments = _without_first(node.args) if bound else node.args
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    text = f"{prefix}{node.name}({ast.unparse(arguments)}){result}"
    return Signature(tuple(argument_parameters(arguments)), node.returns, text)


def class_signature(node: ast.ClassDef, constructor: Function | None) -> Signature:
    """The signature of a class: that of its constructor, or of the fields that its constructor is made from."""
    if constructor is not None:
        arguments = _without_first(constructor.args)
        return Signature(tuple(argument_parameters(arguments)), None, f"{node.name}({ast.unparse(arguments)})")
    parameters = tuple(_dataclass_fields(node))
    written = (
        f"{item.name}: {ast.unparse(item.annotation)}" + (f" = {ast.unparse(item.default)}" if item.default else "")
        for item in parameters
        if item.annotation is not None
    )
    return Signature(parameters, None, f"{node.name}({', '.join(written)})")


def argument_parameters(arguments: ast.arguments) -> Iterator[Parameter]:
    """The parameters of a parsed argument list, in order."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for argument, default in zip(positional, defaults, strict=True):
        yield Parameter(argument.arg, argument.annotation, default)
    if arguments.vararg:
        yield Parameter(arguments.vararg.arg, arguments.vararg.annotation, kind="*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield Parameter(argument.arg, argument.annotation, default)
    if arguments.kwarg:
        yield Parameter(arguments.kwarg.arg, arguments.kwarg.annotation, kind="**")


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


def _dataclass_fields(node: ast.ClassDef) -> Iterator[Parameter]:
    decorators = {last_name(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}
    bases = {last_name(base) for base in node.bases}
    if _DATACLASS_DECORATORS.isdisjoint(decorators) and _DATACLASS_BASES.isdisjoint(bases):
        return
    for item in node.body:
        if (
            isinstance(item, ast.AnnAssign)
            and isinstance(item.target, ast.Name)
            and not item.target.id.startswith("_")
            and "ClassVar" not in ast.unparse(item.annotation)
        ):
            yield Parameter(item.target.id, item.annotation, _field_default(item.value))


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


# --- schemas ----------------------------------------------------------------------------------------------------------


def parameters_schema(parsed: ParsedDocstring, signature: Signature | None) -> Schema:
    """The JSON Schema of the parameters: those of the signature in order, then those that only the docstring knows.

    Without a signature it is unknown which parameters are required.
    """
    documented: dict[str, DocField] = {}
    for item in parsed.parameters:
        documented.setdefault(item.name, item)  # of two descriptions of one parameter, the first
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for parameter in signature.parameters if signature else ():
        described = documented.pop(parameter.name, None)
        if parameter.kind and described is None:
            continue  # *args and **kwargs that nothing is said about; the signature shows them
        properties[parameter.name] = _property(described, parameter)
        if parameter.default is None and not parameter.kind:
            required.append(parameter.name)
    for name, item in documented.items():
        if name not in ("self", "cls"):
            properties[name] = _property(item, Parameter(name))
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema


def _property(item: DocField | None, parameter: Parameter) -> Schema:
    annotation, default = parameter.annotation, parameter.default
    stated = item.type if item else ""
    schema = schema_from_annotation(annotation) or schema_from_words(stated)
    if item and annotation is None and not stated:
        schema = schema_from_description(item.description)
    if parameter.kind == "*":  # the annotation is that of each argument
        schema = {"type": "array", "items": schema} if schema else {"type": "array"}
    elif parameter.kind == "**":
        schema = {"type": "object"}
    if parameter.kind:
        schema["x-python-kind"] = parameter.kind
    if annotation is not None:
        schema["x-python-type"] = ast.unparse(annotation)
    elif stated:
        schema["x-python-type"] = stated
    if item and item.description:
        schema["description"] = item.description
    if default is not None:
        literal = json_literal(default)
        if literal:
            schema = {**admitting(schema, literal[0]), "default": literal[0]}
        else:
            schema["x-python-default"] = ast.unparse(default)
    return schema


def returns_schema(parsed: ParsedDocstring, annotation: ast.expr | None) -> Schema | None:
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
        schema["x-python-type"] = ast.unparse(annotation)
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
