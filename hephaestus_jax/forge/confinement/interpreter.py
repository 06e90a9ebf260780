"""A Python interpreter that keeps its names between cells. Runs inside the confined worker, in a process of its own.

Tracebacks show the frames of the cells alone, without the marks under the lines, so that they read the same in every
version of Python. Standard library only.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import re
import select
import signal
import socket
import sys
import time
import types
from typing import Any

# Loaded before the worker closes itself in, because it may not be able to read the installation afterwards.
_LOADED = (
    "_strptime", "abc", "argparse", "array", "ast", "asyncio", "base64", "binascii", "bisect", "bz2",
    "calendar", "cmath", "codecs", "collections.abc", "colorsys", "concurrent.futures", "configparser",
    "contextvars", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "dis", "doctest",
    "encodings.ascii", "encodings.base64_codec", "encodings.cp1252", "encodings.hex_codec", "encodings.idna",
    "encodings.iso8859_1", "encodings.latin_1", "encodings.punycode", "encodings.raw_unicode_escape",
    "encodings.rot_13", "encodings.unicode_escape", "encodings.utf_16", "encodings.utf_16_le",
    "encodings.utf_8_sig", "enum", "filecmp", "fileinput", "fnmatch", "fractions", "functools", "getpass",
    "glob", "graphlib", "gzip", "heapq", "hmac", "html", "importlib.resources", "importlib.util", "inspect",
    "ipaddress", "itertools", "keyword", "linecache", "locale", "logging", "lzma", "math", "mimetypes",
    "numbers", "operator", "pathlib", "pickle", "pkgutil", "platform", "pprint", "queue", "reprlib", "runpy",
    "sched", "secrets", "shlex", "shutil", "signal", "sqlite3", "statistics", "string", "stringprep", "struct",
    "subprocess", "tarfile", "tempfile", "textwrap", "threading", "time", "timeit", "tokenize", "tomllib",
    "traceback", "types", "typing", "unicodedata", "unittest", "urllib.parse", "uuid", "warnings", "weakref",
    "xml.etree.ElementTree", "zipfile", "zlib", "zoneinfo",
)  # fmt: skip
_OUTPUT_CHARACTERS = 20_000
_VALUE_CHARACTERS = 20_000
_INLINED = ("<listcomp>", "<dictcomp>", "<setcomp>")  # frames that later versions of Python do not have
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]+")


def load() -> None:
    """Imports what cells are likely to import."""
    for name in _LOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


class _TooMuch(BaseException):
    """A cell printed more than allowed."""


class _Capture(io.StringIO):
    """What a cell prints, up to a limit."""

    def write(self, text: str) -> int:
        if self.tell() + len(text) > _OUTPUT_CHARACTERS:
            super().write(text[: max(0, _OUTPUT_CHARACTERS - self.tell())])
            raise _TooMuch
        return super().write(text)


def serve(connection: socket.socket, seconds: float) -> None:
    """Answers {"code"} with {"output", "error", "names"} and {"evaluate"} with {"values"} until the end of input."""
    interpreter = Interpreter(seconds)
    with connection.makefile("rwb") as stream:
        for line in stream:
            message = json.loads(line)
            code = message.get("code")
            answer = interpreter.evaluate(message["evaluate"]) if code is None else interpreter.run(code)
            answer["number"] = message["number"]
            stream.write(json.dumps(answer).encode() + b"\n")
            stream.flush()


class Interpreter:
    """The names of a session and the sources of its cells; a cell may take so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._process = seconds, os.getpid()
        signal.signal(signal.SIGALRM, self._too_long)
        self.main = types.ModuleType("__main__")
        self.main.__dict__.pop("__doc__")
        self._sources: dict[str, list[str]] = {}
        sys.modules["__main__"] = self.main
        self._folder = os.getcwd()
        sys.path[:] = [self._folder, *(path for path in sys.path if path)]
        random.seed(0)

    def _too_long(self, number: int, frame: Any) -> None:
        raise TimeoutError(f"the code ran for more than {self._seconds:g} seconds")

    def run(self, code: str) -> dict[str, Any]:
        """Runs one cell; the value of an expression at its end is shown, as in a notebook."""
        importlib.invalidate_caches()  # times of change are pinned, so that a new module would not be noticed
        name = f"<cell {len(self._sources) + 1}>"
        self._sources[name] = code.splitlines()
        capture, error = _Capture(), ""
        output = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = capture
        sys.stdin = io.StringIO("")
        try:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            self._execute(code, name)
        except _TooMuch:
            error = f"Error: the code printed more than {_OUTPUT_CHARACTERS:,} characters and was ended."
        except BaseException as problem:
            error = self._describe(problem)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.stdout, sys.stderr = output
            if os.getpid() != self._process:  # a copy that the cell made of us
                os._exit(0)
        return {"output": _ADDRESS.sub("at 0x...", _text(capture) + error), "error": bool(error), "names": self.names()}

    def _execute(self, code: str, name: str) -> None:
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec", dont_inherit=True), self.main.__dict__)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), self.main.__dict__)
            if value is not None:
                print(repr(value))

    def _describe(self, problem: BaseException) -> str:
        if isinstance(problem, SyntaxError) and (problem.filename or "").startswith("<cell "):
            lines = [f'  File "<cell>", line {problem.lineno}']
            source = self._sources[str(problem.filename)]
            if problem.lineno and problem.lineno <= len(source):
                lines.append(f"    {source[problem.lineno - 1].strip()}")
            return "\n".join([*lines, f"{type(problem).__name__}: {problem.msg}"])
        lines, trace = ["Traceback (most recent call last):"], problem.__traceback__
        while trace is not None:
            lines += self._frame(trace.tb_frame.f_code, trace.tb_lineno)
            trace = trace.tb_next
        if len(lines) > 21:
            lines[11:-10] = ["  ..."]
        return "\n".join([*lines, _last_line(problem)])

    def _frame(self, code: types.CodeType, number: int) -> list[str]:
        """A frame of a cell or of a file of the session's folder as tracebacks show it; nothing of all others."""
        if code.co_name in _INLINED:
            return []
        path = os.path.relpath(code.co_filename, self._folder)
        if code.co_filename in self._sources:
            path, source = "<cell>", self._sources[code.co_filename]
        elif not path.startswith("..") and os.path.isfile(path):
            with open(path, errors="replace") as file:
                source = file.read().splitlines()
        else:
            return []
        shown = [f"    {source[number - 1].strip()}"] if 0 < number <= len(source) else []
        return [f'  File "{path}", line {number}, in {code.co_name}', *shown]

    def names(self) -> dict[str, str]:
        """Every name of the session with a fingerprint of its value."""
        try:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            return {
                name: fingerprint(value) for name, value in sorted(vars(self.main).items()) if not name.startswith("_")
            }
        except BaseException as problem:
            return {"?": type(problem).__name__}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def evaluate(self, expressions: list[str]) -> dict[str, Any]:
        """The values of expressions as text, each computed after the other in a copy of this process."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                deadline = time.monotonic() + self._seconds / 2
                values = [self._value(expression, deadline) for expression in expressions]
                with os.fdopen(writing, "wb") as stream:
                    stream.write(json.dumps(values).encode())
            finally:
                os._exit(0)
        os.close(writing)
        data = _read_all(reading, self._seconds)
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        try:
            return {"values": json.loads(data)}
        except ValueError:
            return {"values": ["!Timeout"] * len(expressions)}

    def _value(self, expression: str, deadline: float) -> str:
        sys.stdout = sys.stderr = io.StringIO()
        left = deadline - time.monotonic()
        if left <= 0:
            return "!Timeout"
        signal.setitimer(signal.ITIMER_REAL, left)
        try:
            tree = ast.parse(expression)
            last = tree.body.pop()
            assert isinstance(last, ast.Expr)
            scope = vars(self.main)
            exec(compile(tree, "<check>", "exec"), scope)
            return _short(eval(compile(ast.Expression(last.value), "<check>", "eval"), scope))
        except BaseException as problem:
            return f"!{type(problem).__name__}"


def _read_all(descriptor: int, seconds: float) -> bytes:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    parts = []
    while poller.poll(1000 * seconds):
        part = os.read(descriptor, 1 << 16)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _text(capture: _Capture) -> str:
    try:
        text = capture.getvalue()
    except ValueError:  # the cell closed it
        return ""
    return text if not text or text.endswith("\n") else text + "\n"


def _last_line(problem: BaseException) -> str:
    try:
        words = str(problem)
    except BaseException:
        words = ""
    return f"{type(problem).__name__}: {words}" if words else type(problem).__name__


def _short(value: Any) -> str:
    text = _ADDRESS.sub("at 0x...", repr(value))
    if len(text) <= _VALUE_CHARACTERS:
        return text
    return text[:100] + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def fingerprint(value: Any) -> str:
    """Equal for values that are the same to a program; of functions and classes, that have the same code."""
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, types.FunctionType):
        return "function " + hashlib.sha256(_code(value.__code__).encode()).hexdigest()
    if isinstance(value, type):
        parts = [f"{name}={fingerprint(part)}" for name, part in sorted(vars(value).items()) if callable(part)]
        return f"class {value.__name__} " + hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return _short(value)


def _code(code: types.CodeType) -> str:
    constants = [_code(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts]
    return repr((code.co_code, constants, code.co_names, code.co_varnames))
