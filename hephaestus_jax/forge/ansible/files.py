"""The YAML strings of a module's file, by the syntax tree, and the fragments of documentation it extends."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hephaestus_jax.forge.yaml_files import load_yaml
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json

if TYPE_CHECKING:  # importing one source registers all, and they import this
    from hephaestus_jax.forge.sources.source import SourceFile

STRINGS = ("DOCUMENTATION", "EXAMPLES", "RETURN")
_ASSIGNED = re.compile(r"^[ \t]*([A-Z][A-Z_]*)\s*=\s*(?=[rRuUbB]{0,2}(?:\"\"\"|'''))", re.MULTILINE)
_LITERAL = re.compile(r"[rRuUbB]{0,2}(\"\"\"|''')(?:\\.|(?!\1).)*\1", re.DOTALL)


def doc_strings(text: str) -> dict[str, str]:
    """The strings that a Python file assigns to names in capitals; of several the first.

    Raises:
        SyntaxError, ValueError: it is no Python.
    """
    found: dict[str, str] = {}
    for assigned in _ASSIGNED.finditer(text):
        literal = _LITERAL.match(text, assigned.end())
        if literal:
            value = _string(literal[0])
            if value is not None:
                found.setdefault(assigned[1], value)
    if "DOCUMENTATION" not in found and "DOCUMENTATION" in text:  # written in another way: parse the whole file
        for name, node in _assignments(text):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.setdefault(name, node.value)
    return found


def _string(literal: str) -> str | None:
    try:
        with warnings.catch_warnings():  # about the escapes in other people's strings
            warnings.simplefilter("ignore")
            value = ast.literal_eval(literal)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def _assignments(text: str) -> Iterator[tuple[str, ast.expr]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"the file nests too deep: {type(error).__name__}") from error
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value


def collection_of(path: str) -> tuple[str, str] | None:
    """The collection of a module's file and the folder of the collection's plugins; None if it is no module."""
    parts = path.split("/")
    if "ansible_collections" in parts:
        start = parts.index("ansible_collections")
        if parts[start + 3 : start + 5] == ["plugins", "modules"] and len(parts) > start + 5:
            return ".".join(parts[start + 1 : start + 3]), "/".join(parts[: start + 4])
    if parts[-3:-1] == ["ansible", "modules"]:
        return "ansible.builtin", "/".join([*parts[:-2], "plugins"])
    return None


def fragments(stated: Json, file: SourceFile, plugins: str, quarantine: Quarantine) -> Iterator[Mapping[str, Json]]:
    """The fragments that `extends_documentation_fragment` names. One that is in another package cannot be had."""
    names = stated if isinstance(stated, list) else [stated]
    for name in names:
        for single in str(name or "").split(","):
            if single.strip():
                found = _fragment(single.strip(), file, plugins)
                if found is None:
                    quarantine.add("documentation fragment not found", file.place(), single.strip())
                else:
                    yield found


def _fragment(name: str, file: SourceFile, plugins: str) -> Mapping[str, Json] | None:
    parts = name.split(".")
    folder, attribute = plugins, "DOCUMENTATION"
    if len(parts) >= 3:
        if plugins.startswith("ansible_collections/") or "/ansible_collections/" in plugins:
            head = plugins[: plugins.index("ansible_collections")]
            folder = f"{head}ansible_collections/{parts[0]}/{parts[1]}/plugins"
        elif parts[:2] != ["ansible", "builtin"]:
            return None
        parts = parts[2:]
    if len(parts) == 2:
        attribute = parts[1].upper()
    if not re.fullmatch(r"\w+", parts[0]):
        return None
    return _parsed_fragment(file.root, f"{folder}/doc_fragments/{parts[0]}.py").get(attribute)


@lru_cache(maxsize=256)
def _parsed_fragment(root: Path, path: str) -> dict[str, Mapping[str, Json]]:
    """The fragments of one file, by the name they are assigned to."""
    try:
        strings = doc_strings((root / path).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return {}
    found: dict[str, Mapping[str, Json]] = {}
    for name, text in strings.items():
        try:
            value = load_yaml(text)
        except ValueError:
            continue
        if isinstance(value, Mapping):
            found[name] = value
    return found
