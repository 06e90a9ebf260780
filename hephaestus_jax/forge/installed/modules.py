"""The Python files of a distribution, each read and parsed once."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hephaestus_jax.forge.installed.distributions import STANDARD_LIBRARY, Distribution
from hephaestus_jax.formats.quarantine import Quarantine

_TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
_TEST_FILE = re.compile(r"(test_(?!util|case|help|lib).*|.*_tests?|conftest)\.pyi?$")
# Copies of other packages: they stand under their own licences, and the originals are usually installed too.
_VENDORED_FOLDERS = frozenset({"_vendor", "vendor", "vendored", "_vendored", "third_party", "_bundled", "typeshed"})
_PROTOCOL_BUFFERS = re.compile(r"_pb2(_grpc)?\.pyi?$")
_MACHINE_MADE = re.compile(r"(^|/)__editable__")  # written by pip on this machine, with its paths
_PYTHON = (".py", ".pyi")


@dataclass(frozen=True)
class Module:
    """A parsed Python file; `file` is relative to the root of its distribution."""

    distribution: Distribution
    file: str
    name: str
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @property
    def is_package(self) -> bool:
        return self.file.rsplit("/", 1)[-1].startswith("__init__.")

    @property
    def is_stub(self) -> bool:
        return self.file.endswith(".pyi")

    @property
    def package(self) -> str:
        """The package that relative imports in this module start from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def is_test(file: str) -> bool:
    """Whether a path names a test, judged by its folders and its own name."""
    *folders, name = file.split("/")
    return not _TEST_FOLDERS.isdisjoint(folders) or bool(_TEST_FILE.match(name))


def is_vendored(file: str) -> bool:
    """Whether a path lies in a copy of another package."""
    return not _VENDORED_FOLDERS.isdisjoint(file.split("/")[:-1])


def is_machine_made(file: str) -> bool:
    """Whether a path names a file that a program wrote, with nothing in it to learn from."""
    return bool(_PROTOCOL_BUFFERS.search(file) or _MACHINE_MADE.search(file))


def module_name(file: str) -> str:
    """The dotted name of a Python file given relative to its site root, "" when it cannot be imported."""
    parts = file.rsplit(".", 1)[0].split("/")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts) if parts and all(part.isidentifier() for part in parts) else ""


def python_files(distribution: Distribution, tests: bool = False) -> list[str]:
    """The Python files worth reading, sorted; a stub beside its source file is left out.

    Args:
        distribution: whose files.
        tests: whether to include test files.
    """
    kept = [
        file
        for file in distribution.files
        if file.endswith(_PYTHON)
        and (tests or not is_test(file))
        and not is_vendored(file)
        and not is_machine_made(file)
        and module_name(file)
        and not (distribution.name == STANDARD_LIBRARY and file.startswith("pydoc_data/"))  # prose reads it
    ]
    sources = {file for file in kept if file.endswith(".py")}
    return [file for file in kept if file in sources or file.removesuffix("i") not in sources]


def parse_modules(distribution: Distribution, quarantine: Quarantine, tests: bool = False) -> Iterator[Module]:
    """Reads and parses the Python files in order; what cannot be read or parsed goes to quarantine."""
    for file in python_files(distribution, tests):
        module = parse_module(distribution, file, quarantine)
        if module is not None:
            yield module


def parse_module(distribution: Distribution, file: str, quarantine: Quarantine) -> Module | None:
    """One parsed file, or None after it was put in quarantine."""
    place = f"{distribution.name}:{file}"
    text = read_python(distribution.root / file, place, quarantine)
    if text is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        quarantine.add("python syntax", place, f"{type(error).__name__}: {error}")
        return None
    return Module(distribution, file, module_name(file), text, tree)


def read_python(path: Path, place: str, quarantine: Quarantine) -> str | None:
    """The text of a source file in the encoding that it declares (PEP 263), line ends as "\\n".

    Returns None after an unreadable file was put in quarantine.
    """
    try:
        data = path.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except OSError as error:
        quarantine.add("unreadable file", place, f"{type(error).__name__}: {error.strerror}")
        return None
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        quarantine.add("undecodable file", place, f"{type(error).__name__}: {error}")
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")
