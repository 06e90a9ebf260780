"""Layouts of API documentation: the same knowledge as a reference page, a documented function, or a tool definition.

Every layout tells name, signature, description, parameters with types, defaults and descriptions, returns, errors, and
examples with their results.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterable

from hephaestus_jax.formats.records import ApiDoc, ApiExample, Json
from hephaestus_jax.formats.schema_text import Field, fields_of, pruned, title_of, type_text

# "Notes" over a line of dashes: a section of a NumPy docstring that stands behind the parameters.
_SECTION = re.compile(r"^[A-Z][A-Za-z ]*\n-{3,}[ \t]*$", re.MULTILINE)
_PYTHON_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def markdown(doc: ApiDoc, depth: int) -> str:
    """A page of a reference manual."""
    parts = [f"# {doc.name}", _origin(doc)]
    python = has_python_name(doc)
    if signature := signature_of(doc):
        parts.append(_fenced(signature, "python" if python else ""))
    description, sections = _description(doc)
    parts.append(description)
    if fields := fields_of(doc.parameters, depth, python):
        parts += ["## Parameters", "\n".join(_markdown_fields(fields, "", inputs=True))]
    if returns := _markdown_returns(doc, depth, python):
        parts += ["## Returns", returns]
    if doc.errors:
        parts += ["## Errors", "\n".join(_item(f"`{e.name}`", e.description, "") for e in doc.errors)]
    parts.append(sections)
    if doc.examples:
        parts.append("## Examples" if len(doc.examples) > 1 else "## Example")
        parts += [part for example in doc.examples for part in _markdown_example(example, python)]
    return "\n\n".join(filter(None, parts)) + "\n"


def docstring(doc: ApiDoc, depth: int) -> str:
    """A documented Python function; only for names that Python could have."""
    module, _, _ = doc.name.rpartition(".")
    description, notes = _description(doc)
    sections = [description]
    if fields := fields_of(doc.parameters, depth, python=True):
        sections.append(_section("Args", _docstring_fields(fields, inputs=True)))
    if doc.returns is not None:
        told = _told(_returned(doc, True, "{}"), doc.returns.get("description"), ": ")
        nested = _docstring_fields(fields_of(doc.returns, depth - 1, python=True), inputs=False)
        sections.append(_section("Returns", [*filter(None, [told]), *(_indented(line) for line in nested)]))
    if doc.errors:
        sections.append(_section("Raises", [_told(e.name, e.description, ": ", "    ") for e in doc.errors]))
    sections.append(notes)
    if doc.examples:
        examples = [_told(e.intent, shown(e, python=True), "\n\n") for e in doc.examples]
        sections.append(_section("Examples", ["\n\n".join(examples)]))
    body = "\n\n".join(filter(None, sections))
    quotes = 'r"""' if "\\" in body else '"""'
    body = body.replace('"""', r"\"\"\"")
    head = f"# {_told(module, _origin(doc), ' - ')}\n" if module or _origin(doc) else ""
    return f'{head}{_definition(doc)}:\n{_indented(quotes + body)}\n    """\n'


def tool_definition(doc: ApiDoc, depth: int) -> str:
    """A tool as a model sees it in a prompt, followed by what such a definition leaves out."""
    summary, _, rest = doc.description.strip().partition("\n\n")
    definition = {"name": doc.name, "description": " ".join(summary.split())}
    definition["parameters"] = pruned(doc.parameters, depth)
    if doc.returns is not None:
        definition["returns"] = pruned(doc.returns, depth)
    parts = [_json_lines(definition, 3), rest.strip()]
    if doc.errors:
        parts.append("Errors:\n" + "\n".join(_item(e.name, e.description, "") for e in doc.errors))
    for example in doc.examples:
        head = f"Example: {example.intent}" if example.intent else "Example:"
        parts.append(_told(head, shown(example, has_python_name(doc)), "\n"))
    return "\n\n".join(filter(None, parts)) + "\n"


LAYOUTS: dict[str, Callable[[ApiDoc, int], str]] = {
    "markdown": markdown,
    "docstring": docstring,
    "tool_definition": tool_definition,
}


def layout_of(doc: ApiDoc, layouts: tuple[str, ...], draw: int) -> str:
    """The layout that the number `draw` chooses; a documented Python function must be one that Python can define."""
    chosen = layouts[draw % len(layouts)]
    if chosen != "docstring" or (has_python_name(doc) and _parsed(f"{_definition(doc)}: ...") is not None):
        return chosen
    others = [name for name in layouts if name != "docstring"] or ["markdown"]
    return others[draw // len(layouts) % len(others)]


def has_python_name(doc: ApiDoc) -> bool:
    """Whether it is a Python callable under a name that Python could have."""
    return doc.interface == "python" and _PYTHON_NAME.fullmatch(doc.name) is not None


def signature_of(doc: ApiDoc) -> str:
    """The stated signature, with the name in front; else one made of the parameters, for names that Python has."""
    name = doc.name.rpartition(".")[2]
    if not has_python_name(doc):
        return doc.signature
    if not doc.signature:
        fields = sorted(fields_of(doc.parameters, 1, python=True), key=lambda field: not field.required)
        whole = [field.required or field.name.startswith("*") for field in fields]
        stated = [f.name if w else f"{f.name}={f.default or '...'}" for f, w in zip(fields, whole, strict=True)]
        return f"{name}({', '.join(stated)})"
    prefix = "async " if doc.signature.startswith("async ") else ""
    signature = doc.signature.removeprefix(prefix).removeprefix("def ").removesuffix(":")
    head, bracket, rest = signature.partition("(")
    return prefix + (head.rpartition(".")[2] or name) + bracket + rest


def _definition(doc: ApiDoc) -> str:
    """What stands before the colon of a Python definition."""
    signature = signature_of(doc)
    return f"async def {signature.removeprefix('async ')}" if signature.startswith("async ") else f"def {signature}"


def shown(example: ApiExample, python: bool) -> str:
    """The call with its result below; Python statements behind prompts, as an interactive session shows them."""
    call = example.call.strip("\n")
    if python and not call.lstrip().startswith(">>>"):
        call = _prompted(call)
    return call if example.result is None else f"{call}\n{example.result.rstrip()}"


def _prompted(code: str) -> str:
    """Python statements behind prompts; what is no Python as it is."""
    lines = code.split("\n")
    if len(lines) == 1:
        return ">>> " + code
    if (tree := _parsed(code)) is None:
        return code
    starts = {min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) for node in tree.body}
    return "\n".join((">>> " if n in starts else "... ") + line for n, line in enumerate(lines, start=1))


def _markdown_example(example: ApiExample, python: bool) -> list[str]:
    if python:
        return [example.intent or "", _fenced(shown(example, python), "python")]
    result = [] if example.result is None else ["Result:", _fenced(example.result.rstrip(), _language(example.result))]
    return [example.intent or "", _fenced(example.call.strip("\n"), _language(example.call)), *result]


def _markdown_fields(fields: Iterable[Field], indent: str, inputs: bool) -> list[str]:
    lines = []
    for field in fields:
        traits = [f"`{field.type}`" if field.type else "", _necessity(field) if inputs else ""]
        if field.default is not None:
            traits.append(f"default `{field.default}`")
        traits.append(field.constraints)
        told = ", ".join(filter(None, traits))
        lines.append(_item(f"`{field.name}` ({told})" if told else f"`{field.name}`", field.description, indent))
        lines += _markdown_fields(field.fields, indent + "  ", inputs)
    return lines


def _markdown_returns(doc: ApiDoc, depth: int, python: bool) -> str:
    if doc.returns is None:
        return ""
    told = _told(_returned(doc, python, "`{}`"), doc.returns.get("description"), ": ")
    fields = _markdown_fields(fields_of(doc.returns, depth, python), "", inputs=False)
    return "\n\n".join(filter(None, [told, "\n".join(fields)]))


def _returned(doc: ApiDoc, python: bool, form: str) -> str:
    """Name and type of what is returned, each put into `form`."""
    name, kind = title_of(doc.returns), type_text(doc.returns, python)
    told = [form.format(part) if part else "" for part in (name, kind)]
    return f"{told[0]} ({told[1]})" if name and kind else told[0] or told[1]


def _description(doc: ApiDoc) -> tuple[str, str]:
    """The description, and the sections in it (Notes, See Also, References) that belong behind the parameters."""
    text = doc.description.strip()
    if found := _SECTION.search(text):
        return text[: found.start()].rstrip(), text[found.start() :]
    return text, ""


def _necessity(field: Field) -> str:
    return "required" if field.required else "optional"


def _docstring_fields(fields: Iterable[Field], inputs: bool) -> list[str]:
    lines = []
    for field in fields:
        optional = "optional" if inputs and not field.required else ""
        traits = ", ".join(filter(None, [field.type, optional, field.constraints]))
        described = field.description
        if field.default is not None:
            described = f"{described} Defaults to {field.default}.".strip()
        lines.append(_told(f"{field.name} ({traits})" if traits else field.name, described, ": ", "    "))
        lines += [_indented(line) for line in _docstring_fields(field.fields, inputs)]
    return lines


def _json_lines(value: Json, levels: int, indent: str = "") -> str:
    """JSON with a line for each key of the outer `levels` of objects."""
    if not levels or not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, default=repr)
    inner = indent + "  "
    lines = (
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {_json_lines(item, levels - 1, inner)}"
        for key, item in value.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _section(title: str, lines: list[str]) -> str:
    return f"{title}:\n" + "\n".join(_indented(line) for line in lines) if lines else ""


def _item(head: str, description: str, indent: str) -> str:
    return indent + "- " + _told(head, description, ": ", indent + "  ")


def _told(head: str | None, text: object, between: str, indent: str = "") -> str:
    """Head and text with `between` them, either alone if the other is missing; later lines of the text indented."""
    body = text.strip() if isinstance(text, str) else ""
    if indent:
        body = body.replace("\n", "\n" + indent)
        body = "\n".join(line.rstrip() for line in body.split("\n"))
    return f"{head}{between}{body}" if head and body else head or body


def _indented(text: str) -> str:
    return "\n".join("    " + line if line.strip() else "" for line in text.split("\n"))


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)  # a fence inside must not end this one
    return f"{fence}{language}\n{text}\n{fence}"


def _language(text: str) -> str:
    try:
        return "json" if isinstance(json.loads(text), dict | list) else ""
    except (ValueError, RecursionError):
        return ""


def _parsed(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():  # about the escapes in other people's strings
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _origin(doc: ApiDoc) -> str:
    """Who offers it; the version of its package only where that is the version of the API, as of a Python callable."""
    version = doc.provenance.version if doc.interface == "python" else "unknown"
    return " ".join(filter(None, [doc.provider, version if version != "unknown" else ""]))
