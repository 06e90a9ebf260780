"""Runs the examples of one docstring as doctest would. Runs inside the sandbox, in a process forked for this docstring.

Standard library only.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import io
import math
import re
import sys
import traceback
import types
from collections.abc import Sequence
from typing import Any

from hephaestus_jax.forge.doctests.extract import free_names
from hephaestus_jax.forge.doctests.isolation import Guard, reason_for

# Abbreviations that documentations assume without importing them.
CONVENTIONS = {
    "jax": "import jax",
    "jnp": "import jax.numpy as jnp",
    "keras": "import keras",
    "lax": "from jax import lax",
    "linen": "from flax import linen",
    "np": "import numpy as np",
    "numpy": "import numpy",
    "nx": "import networkx as nx",
    "optax": "import optax",
    "pa": "import pyarrow as pa",
    "pc": "import pyarrow.compute as pc",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "sns": "import seaborn as sns",
    "tf": "import tensorflow as tf",
    "tfds": "import tensorflow_datasets as tfds",
    "torch": "import torch",
}
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?![\w])")
_NUMPY_SCALAR = re.compile(r"\bnp\.(?:float|int|uint|complex|str)[\d_]+\(([^()]*)\)")
_NUMPY_BOOL = re.compile(r"\bnp\.(True|False)_\b")
_OPENING = re.compile(r"([\[(])\s+")
_RELATIVE_TOLERANCE = 1e-4  # documented numbers are often printed on another machine, or rounded
_checker = doctest.OutputChecker()


class OutputLimit(BaseException):
    """An example printed more than allowed. Not an `Exception`, so that no example swallows it by habit."""


class _Capture(io.StringIO):
    """Standard output of one example, bounded."""

    def __init__(self, budget: int) -> None:
        super().__init__()
        self._left = budget

    def write(self, text: str) -> int:
        self._left -= len(text)
        if self._left < 0:
            raise OutputLimit
        return super().write(text)


class _Discard(io.TextIOBase):
    """Standard error of the examples, which no doctest compares."""

    def write(self, text: str) -> int:
        return len(text)


def agrees(want: str, got: str, flags: int) -> bool:
    """Whether the output `got` is what was documented.

    By doctest's rules, or with numbers equal to 1 part in 10⁴, NumPy's scalars printed with or without their class, and
    any space after an opening bracket.
    """
    if _checker.check_output(want, got, flags):
        return True
    want, got = _plain(want), _plain(got)
    want_numbers, got_numbers = _NUMBER.findall(want), _NUMBER.findall(got)
    if len(want_numbers) != len(got_numbers):
        return False
    if not _checker.check_output(_NUMBER.sub("0", want), _NUMBER.sub("0", got), flags):
        return False
    pairs = zip(want_numbers, got_numbers, strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-9) for a, b in pairs)


def _plain(output: str) -> str:
    return _OPENING.sub(r"\1", _NUMPY_BOOL.sub(r"\1", _NUMPY_SCALAR.sub(r"\1", output)))


def setup_lines(sources: list[str], api_name: str, aliases: Sequence[str], module: str) -> list[str]:
    """Import statements for the names that the examples assume: those of the API's module, and the conventions.

    doctest gives an example all of its module's globals; only the names that are used are imported here, from the most
    public place that has the same object, so that the trajectory can be read and run on its own.
    """
    lines = []
    values = vars(sys.modules[module])
    for name in free_names(sources):
        # Where a module has another module under a conventional name, its documentation means the conventional one.
        conventional = name not in values or isinstance(values[name], types.ModuleType)
        for line in (CONVENTIONS.get(name) if conventional else None, _import_of(name, api_name, aliases, module)):
            if line is not None and _runs(line):
                lines.append(line)
                break
    return lines


def _runs(line: str) -> bool:
    try:
        exec(line, {})
    except Exception:  # the package of a convention is not installed
        return False
    return True


def _import_of(name: str, api_name: str, aliases: Sequence[str], module: str) -> str | None:
    top = module.partition(".")[0]
    values = vars(sys.modules[module])
    if name not in values:
        return f"import {name}" if name == top else None
    value = values[name]
    if isinstance(value, types.ModuleType):
        return _import_module(value.__name__, name)
    places = [prefix for public in (api_name, *aliases) for prefix in _prefixes(public)]
    for place in sorted({*places, top}, key=lambda place: (place.count("."), "._" in place, place)):
        found = sys.modules.get(place)
        if found is not None and vars(found).get(name, sys) is value and "._" not in place:
            return f"from {place} import {name}"
    return f"from {module} import {name}"


def _import_module(target: str, name: str) -> str:
    parent, _, last = target.rpartition(".")
    if target == name:
        return f"import {name}"
    return f"from {parent} import {name}" if parent and last == name else f"import {target} as {name}"


def _prefixes(dotted: str) -> list[str]:
    parts = dotted.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def run_job(task: dict[str, Any], guard: Guard, output_bytes: int) -> dict[str, Any]:
    """Runs one docstring.

    `task` holds api_name, aliases, module and examples [{source, want, error, flags, checked, index}]; the result is
    {"steps": [ExecutedExample as a dictionary]} or {"failure": reason, "detail": text}.
    """
    try:
        importlib.import_module(task["module"])
    except BaseException as error:
        return {"failure": "import", "detail": describe(error)}
    guard.strict = True
    examples = task["examples"]
    setup = setup_lines([e["source"] for e in examples], task["api_name"], task["aliases"], task["module"])
    blank = {"want": "", "error": None, "flags": 0, "checked": True, "index": -1}
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main  # classes that an example defines are found here, by pickle for one
    steps = []
    try:
        for example in [*({"source": line + "\n", **blank} for line in setup), *examples]:
            guard.refused.clear()
            step = _run_example(example, main.__dict__, output_bytes)
            if guard.refused:
                step["dropped"] = reason_for(guard.refused)
            output_bytes -= len(step["got"])
            steps.append(step)
    except OutputLimit:
        return {"failure": "output", "detail": "prints more than the limit"}
    return {"steps": steps}


def imported_modules(task: dict[str, Any]) -> list[str]:
    """The modules that the import statements of a docstring load, in order; what cannot be parsed is passed over."""
    sources = [example["source"] for example in task["examples"]]
    found: dict[str, None] = {}
    for source in [*setup_lines(sources, task["api_name"], task["aliases"], task["module"]), *sources]:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Import):
                    found.update((alias.name, None) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    # `from flax import nnx` loads the module flax.nnx; `from math import pi` has no such module
                    members = (f"{node.module}.{alias.name}" for alias in node.names)
                    found.update((name, None) for name in (node.module, *members))
    return list(found)


def _run_example(example: dict[str, Any], namespace: dict[str, Any], budget: int) -> dict[str, Any]:
    """Compiles and runs one example; gives its output, or the traceback without the frames, as doctest writes both."""
    capture = _Capture(budget)
    sys.stdout, sys.stderr, sys.displayhook = capture, _Discard(), sys.__displayhook__
    exception = None
    try:
        exec(compile(example["source"], "<docstring>", "single", dont_inherit=True), namespace)
    except OutputLimit:
        raise
    except BaseException as error:
        exception = error
    try:
        got = capture.getvalue()
    except ValueError:  # the example closed its standard output
        got = ""
    step = {"source": example["source"], "want": example["want"], "got": got, "exception": None, "dropped": ""}
    step |= {"index": example["index"], "setup": example["index"] < 0}
    if exception is None:
        step["matched"] = example["error"] is None and _output_agrees(example, got)
        return step
    message = describe(exception)
    step["got"] = f"{got}Traceback (most recent call last):\n  ...\n{message}"
    step["exception"] = type(exception).__name__
    step["matched"] = _error_agrees(example, message)
    if isinstance(exception, MemoryError):
        step["dropped"] = "memory"
    elif example["error"] is None:
        step["dropped"] = "undocumented exception"
    return step


def _output_agrees(example: dict[str, Any], got: str) -> bool:
    return not example["checked"] or agrees(example["want"], got, example["flags"])


def _error_agrees(example: dict[str, Any], message: str) -> bool:
    """Compares as doctest does with IGNORE_EXCEPTION_DETAIL at hand: the module of the class does not count."""
    if example["error"] is None:
        return False
    want, got = (re.sub(r"^[\w.]*\.(?=\w+:?)", "", text) for text in (example["error"], message))
    if example["flags"] & doctest.IGNORE_EXCEPTION_DETAIL:
        want, got = (text.partition(":")[0].strip() for text in (want, got))
    return _checker.check_output(want, got, example["flags"])


def describe(error: BaseException) -> str:
    """The last line or lines of a traceback: class and message."""
    try:
        return "".join(traceback.format_exception_only(type(error), error))
    except BaseException:  # an exception whose own __str__ fails
        return f"{type(error).__name__}\n"
