"""Ansible's modules as its packages document them. GPL-3.0-or-later: off unless asked for."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping

from hephaestus_jax.forge.ansible.files import STRINGS, collection_of, doc_strings, fragments
from hephaestus_jax.forge.ansible.markup import paragraphs
from hephaestus_jax.forge.ansible.schemas import Budget, options_schema, returns_schema
from hephaestus_jax.forge.prose import shortened
from hephaestus_jax.forge.sources.source import Package, SourceFile, source
from hephaestus_jax.forge.tool_data.checked import contradiction, noted
from hephaestus_jax.forge.yaml_files import load_yaml
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, ApiExample, Json, Record

LICENCE = "GPL-3.0-or-later"
MOST_EXAMPLES = 20  # of one module
MOST_NOTES = 6
DESCRIPTION = 4000  # characters
_TASK = re.compile(r"^[ \t]*-[ \t]", re.MULTILINE)
_BLOCKS = ("tasks", "block", "pre_tasks", "handlers", "post_tasks", "rescue", "always")


@source(
    "ansible",
    Package("pypi", "ansible", "12.3.0", "cd156f82fa87f7a899212b0efa9f7ca3a24d609212de9f78428a572eb01e5414", LICENCE),
    Package(
        "pypi", "ansible-core", "2.19.14", "d518d0e96fa75bedfe9b0a96d5b158aa712d092961824c115140c8677b88ff06", LICENCE
    ),
    files=("**/plugins/modules/**/*.py", "**/plugins/modules/**/*.yml", "ansible/modules/*.py"),
    default=False,
)
def read_ansible(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Ansible modules: options, return values, and the tasks of their examples."""
    found = collection_of(file.path)
    name = file.path.rsplit("/", 1)[-1].rpartition(".")[0]
    if found is None or name == "__init__":
        return
    text = file.text(quarantine)
    strings = _strings(text, file, quarantine) if text is not None else None
    if strings is None:
        return
    documentation = _yaml(strings.get("DOCUMENTATION"), "DOCUMENTATION", file, quarantine)
    if not isinstance(documentation, Mapping):
        if documentation is not None:
            quarantine.add("malformed documentation", file.place(), "DOCUMENTATION is no mapping")
        return
    collection, plugins = found
    extended = documentation.get("extends_documentation_fragment")
    extensions = list(fragments(extended, file, plugins, quarantine))
    if doc := _doc(f"{collection}.{name}", collection, documentation, extensions, strings, file, quarantine):
        yield doc


def _strings(text: str, file: SourceFile, quarantine: Quarantine) -> dict[str, Json] | None:
    """What the file states under each of `STRINGS`: YAML text, or in a YAML file perhaps its value."""
    if file.path.endswith(".yml"):
        value = _yaml(text, "", file, quarantine)
        return {key: value[key] for key in STRINGS if key in value} if isinstance(value, Mapping) else None
    try:
        strings = doc_strings(text)
    except (SyntaxError, ValueError) as error:
        quarantine.add("no Python", file.place(), str(error))
        return None
    if "DOCUMENTATION" not in strings:
        quarantine.add("no documentation", file.place(), "it assigns no DOCUMENTATION")
        return None
    return dict(strings)


def _yaml(stated: Json, what: str, file: SourceFile, quarantine: Quarantine) -> Json:
    if not isinstance(stated, str):
        return stated
    try:
        return load_yaml(stated)
    except ValueError as error:
        quarantine.add("malformed YAML", file.place(what), str(error))
        return None


def _doc(
    name: str,
    collection: str,
    documentation: Mapping[str, Json],
    extensions: list[Mapping[str, Json]],
    strings: Mapping[str, Json],
    file: SourceFile,
    quarantine: Quarantine,
) -> ApiDoc | None:
    summary = " ".join(paragraphs(documentation.get("short_description")))
    told = [text for text in paragraphs(documentation.get("description")) if text.rstrip(".") != summary.rstrip(".")]
    if not summary and not told:
        quarantine.add("nothing described", file.place(), "neither short_description nor description")
        return None
    notes = paragraphs(documentation.get("notes"))  # those of fragments are about a whole collection
    parts = [summary if summary.endswith(".") or not summary else summary + ".", *told]
    if notes:
        parts.append("\n".join(["Notes:", *(f"- {shortened(text, 300)}" for text in notes[:MOST_NOTES])]))
    options: dict[str, Json] = {}
    for extension in [documentation, *extensions]:
        stated = extension.get("options")
        for option, fields in stated.items() if isinstance(stated, Mapping) else ():
            options.setdefault(option, fields)
    budget = Budget()
    parameters = options_schema(options, budget)
    provenance = file.provenance("", LICENCE)
    if budget.dropped:
        provenance = noted(provenance, f"{budget.dropped} deeper fields left out")
    return ApiDoc(
        name=name,
        provider=collection,
        description=shortened("\n\n".join(filter(None, parts)), DESCRIPTION),
        provenance=provenance,
        parameters=parameters,
        returns=returns_schema(_yaml(strings.get("RETURN"), "RETURN", file, quarantine)),
        examples=tuple(_examples(strings.get("EXAMPLES"), name, parameters, file, quarantine))[:MOST_EXAMPLES],
        interface="module",
        function=name.rpartition(".")[2],
        deprecated=bool(documentation.get("deprecated")),
    )


# Examples.


def _examples(
    stated: Json, name: str, parameters: Mapping[str, Json], file: SourceFile, quarantine: Quarantine
) -> Iterator[ApiExample]:
    """The tasks that call the module, each as it is written, with its name as the intent."""
    if not isinstance(stated, str):
        return
    for chunk in _chunks(stated):
        try:
            value = load_yaml(chunk)
        except ValueError as error:
            quarantine.add("malformed example", file.place("EXAMPLES"), str(error))
            continue
        tasks = list(_tasks(value, name, 0))
        if len(tasks) == 1 and not _is_play(value):
            yield _example(tasks[0], chunk, name, parameters)
        else:  # a play or a block: it is one example, of several calls perhaps
            for task in tasks[:1]:
                yield ApiExample(chunk, intent=_intent(task))


def _chunks(text: str) -> Iterator[str]:
    """The entries of the list that the examples are, comments between them left out."""
    text = textwrap.dedent(text.replace("\t", "  "))
    starts = [found.start() for found in _TASK.finditer(text)]
    if not starts:
        return
    indents = [len(text[start:]) - len(text[start:].lstrip(" ")) for start in starts]
    outer = min(indents)
    begins = [start for start, indent in zip(starts, indents, strict=True) if indent == outer]
    for begin, end in zip(begins, [*begins[1:], len(text)], strict=True):
        lines = text[begin:end].split("\n")
        while len(lines) > 1 and (not lines[-1].strip() or lines[-1].lstrip().startswith(("#", "---"))):
            lines.pop()
        kept = []
        for index, line in enumerate(lines):
            if index and line.startswith("#"):  # what follows is no part of the entry: sample output, as a rule
                break
            kept.append(line)
        yield textwrap.dedent("\n".join(kept)).strip("\n")


def _tasks(value: Json, name: str, depth: int) -> Iterator[Mapping[str, Json]]:
    """The tasks within a value that call the module."""
    if depth > 8:
        return
    if isinstance(value, list):
        for item in value:
            yield from _tasks(item, name, depth + 1)
    elif isinstance(value, Mapping):
        if _key(value, name):
            yield value
        for key in _BLOCKS:
            if isinstance(value.get(key), list):
                yield from _tasks(value[key], name, depth + 1)


def _is_play(value: Json) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, Mapping) and any(key in first for key in ("hosts", *_BLOCKS))


def _key(task: Mapping[str, Json], name: str) -> str:
    """Under which name a task calls the module; "" if it does not."""
    short = name.rpartition(".")[2]
    return next((key for key in (name, short, f"ansible.legacy.{short}") if key in task), "")


def _intent(task: Mapping[str, Json]) -> str | None:
    stated = task.get("name")
    return " ".join(" ".join(paragraphs(stated)).split()) or None if isinstance(stated, str) else None


def _example(task: Mapping[str, Json], chunk: str, name: str, parameters: Mapping[str, Json]) -> ApiExample:
    stated = task[_key(task, name)]
    arguments = {} if stated is None else stated
    usable = isinstance(arguments, Mapping) and not _is_template(arguments) and "loop" not in task
    if not usable or contradiction(parameters, arguments) or any(k not in parameters["properties"] for k in arguments):
        return ApiExample(chunk, intent=_intent(task))
    return ApiExample(chunk, intent=_intent(task), arguments=dict(arguments))


def _is_template(value: Json) -> bool:
    """Whether a value holds a variable of a template, which is no value yet."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(map(_is_template, value.values()))
    return isinstance(value, list) and any(map(_is_template, value))
