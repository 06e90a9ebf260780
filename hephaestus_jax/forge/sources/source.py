"""What a source of the corpus is: pinned packages (or a folder of the user's) and a function that reads one file.

    @source("petstore", Package("npm", "petstore-specs", "1.2.0", "9f86d0…", "MIT"), files="specs/*.json")
    def read_petstore(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
        '''The pet stores' own descriptions of their operations.'''
        ...

A reader sees one file at a time, may look at the files beside it, runs nothing, and sets aside in the quarantine what
it cannot read. It yields records in a fixed order; what it yields must depend on the files alone.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Provenance, Record

LARGEST_FILE = 256 << 20  # bytes; a larger one is set aside unread
Registry = Literal["pypi", "npm"]


@dataclass(frozen=True)
class Package:
    """One file that a package registry serves: name, version, its sha256, and the licence (SPDX) it states.

    `wheel` is (python, abi, platform) of a wheel that is not for every machine, for instance
    ("3.11", "cp311", "manylinux_2_28_x86_64"); `sdist` tells that it is no wheel but the source archive.
    """

    registry: Registry
    name: str
    version: str
    sha256: str
    licence: str
    wheel: tuple[str, str, str] | None = None
    sdist: bool = False

    def __post_init__(self) -> None:
        if self.registry not in ("pypi", "npm"):
            raise UserError(f"package {self.name}: registry {self.registry!r} is neither 'pypi' nor 'npm'")
        if self.sdist and (self.registry != "pypi" or self.wheel is not None):
            raise UserError(f"package {self.name}: only PyPI has source archives, and one is not a wheel as well")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise UserError(f"package {self.name}: sha256 must be 64 hexadecimal digits; packages are pinned by it")

    @property
    def origin(self) -> str:
        """What its records name as their source: a source archive holds other things than the wheel of its name."""
        return f"{self.name}-sdist" if self.sdist else self.name

    @property
    def host(self) -> str:
        """Where a reader would find it."""
        return f"pypi.org/project/{self.name}" if self.registry == "pypi" else f"npmjs.com/package/{self.name}"


@dataclass(frozen=True)
class Origin:
    """What every record of one package or folder has in common."""

    name: str  # "botocore", or the name of the source where a folder was given
    version: str  # "unknown" of a folder
    licence: str  # SPDX, else "unknown"
    host: str = ""


@dataclass(frozen=True)
class SourceFile:
    """One file of a package that was unpacked to `root`; `path` is relative to it, with slashes."""

    root: Path
    path: str
    origin: Origin

    @property
    def size(self) -> int:
        """Bytes; 0 when the file cannot be looked at."""
        try:
            return (self.root / self.path).stat().st_size
        except OSError:
            return 0

    def sibling(self, name: str) -> SourceFile | None:
        """The file of this name (it may hold slashes and "..") beside this one; None if there is none inside `root`."""
        parts: list[str] = []
        for part in (PurePosixPath(self.path).parent / name).parts:
            if part == "..":
                if not parts:
                    return None
                parts.pop()
            else:
                parts.append(part)
        found = SourceFile(self.root, "/".join(parts), self.origin)
        return found if (found.root / found.path).is_file() else None

    def read(self, quarantine: Quarantine) -> bytes | None:
        """The bytes; None, with the reason in the quarantine, when they cannot be had or are too many."""
        try:
            if self.size > LARGEST_FILE:
                quarantine.add("file too large", self.place(), f"{self.size:,} bytes, at most {LARGEST_FILE:,}")
                return None
            return (self.root / self.path).read_bytes()
        except OSError as error:
            quarantine.add("unreadable file", self.place(), str(error.strerror))
            return None

    def text(self, quarantine: Quarantine) -> str | None:
        """The bytes as UTF-8, without a byte order mark; None, with the reason in the quarantine, if they are not."""
        raw = self.read(quarantine)
        try:
            return None if raw is None else raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            quarantine.add("not UTF-8", self.place(), str(error))
            return None

    def place(self, where: str = "") -> str:
        """How reports name this file, and a place in it."""
        return f"{self.origin.name}:{self.path}" + (f":{where}" if where else "")

    def provenance(self, where: str = "", licence: str = "", host: str = "") -> Provenance:
        """Provenance of a record at `where` in this file; `licence` and `host` if it states its own."""
        path = f"{self.path}:{where}" if where else self.path
        origin = self.origin
        return Provenance(origin.name, origin.version, licence or origin.licence, host or origin.host, path)


Reader = Callable[[SourceFile, Quarantine], Iterable[Record]]
Select = Callable[[Iterable[str]], Iterable[str]]


@dataclass(frozen=True)
class Source:
    """A named source.

    Args:
        name: as `--sources` names it.
        packages: to fetch; () if the user gives a folder, as `--sources NAME=FOLDER`. A folder may be given for any
            source, and takes the place of its packages.
        files: which files are read, each on its own: glob patterns of their paths ("**" for any folders), or a function
            from all paths, sorted, to those.
        read: one file's records.
        default: whether a build reads it without being asked to.
        replaces: providers of other sources that this one stands for when both are in a build: a catalogue's copies of
            them are left out. Each is a glob over `ApiDoc.provider`.
        description: one line, from the reader's docstring.
    """

    name: str
    packages: tuple[Package, ...]
    files: tuple[str, ...] | Select
    read: Reader = field(compare=False)
    default: bool = True
    replaces: tuple[str, ...] = ()
    description: str = ""

    def select(self, paths: Iterable[str]) -> list[str]:
        """The paths that are read, sorted."""
        ordered = sorted(paths)
        if callable(self.files):
            return sorted(self.files(ordered))
        return [path for path in ordered if self._pattern.fullmatch(path)]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        assert not callable(self.files)
        return re.compile("|".join(map(_glob, self.files)))


SOURCES: dict[str, Source] = {}


def source(
    name: str,
    *packages: Package,
    files: str | tuple[str, ...] | Select,
    default: bool = True,
    replaces: tuple[str, ...] = (),
) -> Callable[[Reader], Reader]:
    """Registers the decorated function as the reader of a source; the arguments are those of `Source`."""

    def register(read: Reader) -> Reader:
        if name in SOURCES:
            raise UserError(f"two sources are named {name!r}; rename one of them")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise UserError(f"source name {name!r} must be lower-case letters, digits and underscores")
        patterns = (files,) if isinstance(files, str) else files
        told = (read.__doc__ or "").strip().partition("\n")[0]
        SOURCES[name] = Source(name, packages, patterns, read, default and bool(packages), replaces, told)
        return read

    return register


def files_below(root: Path) -> Iterator[str]:
    """The paths of the regular files below a folder, with slashes; links are not followed."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(root).as_posix()


def _glob(pattern: str) -> str:
    """A glob as a regular expression: `*` and `?` stay within a folder, `**/` is any folders."""
    made = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        made.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or re.escape(part))
    return "".join(made)


def matches_provider(provider: str, patterns: Iterable[str]) -> bool:
    """Whether a provider is one of those that `Source.replaces` names."""
    return any(fnmatch.fnmatchcase(provider.lower(), pattern) for pattern in patterns)
