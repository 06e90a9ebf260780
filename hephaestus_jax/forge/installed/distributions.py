"""The installed distributions: what they are called, under which licence they stand, which files they own."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import site
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.installed.licences import spdx_licence
from hephaestus_jax.formats.records import Provenance

STANDARD_LIBRARY = "python"
METADATA = "METADATA"  # the place of a distribution's long description, as if it were a file

# Parts of the standard library's folder that are not the standard library, or are data about this one build.
_NOT_STANDARD = ("site-packages", "dist-packages", "__pycache__", "lib-dynload", "_sysconfigdata", "config-")
_LICENCE_FILE = re.compile(r"(?i)(licen[cs]e|copying|unlicense)[^/]*$")


@dataclass(frozen=True)
class Distribution:
    """One installed distribution.

    `files` are relative to `root`, with forward slashes, sorted; those that other distributions also list belong to
    the first of them by name. `description` is the long description of the package metadata.
    """

    name: str
    version: str
    licence: str
    host: str
    root: Path
    files: tuple[str, ...] = field(repr=False, default=())
    description: str = field(repr=False, default="")

    def __post_init__(self) -> None:
        if not self.name or not self.root.is_absolute():
            raise ValueError(f"a distribution needs a name and an absolute root: {self.name!r}, {self.root}")
        if list(self.files) != sorted(set(self.files)):
            raise ValueError(f"{self.name}: files are not sorted and distinct")

    def provenance(self, path: str) -> Provenance:
        """Where a record at `path` (relative to the root, perhaps with a line number) comes from."""
        return Provenance(source=self.name, version=self.version, licence=self.licence, host=self.host, path=path)


def iter_distributions(only: Sequence[str] | None = None, paths: Sequence[str] | None = None) -> list[Distribution]:
    """The installed distributions and the standard library (as "python"), sorted by name.

    Args:
        only: names to keep, in any spelling that names the same package (PEP 503); all when None.
        paths: the site directories to look in; those of the running interpreter when None.

    Raises:
        UserError: a name in `only` is not installed.
    """
    wanted = None if only is None else {canonical_name(name): name for name in only}
    found: dict[str, Distribution] = {}
    if wanted is None or STANDARD_LIBRARY in wanted:
        found[STANDARD_LIBRARY] = standard_library()
    metadata: dict[str, importlib.metadata.Distribution] = {}
    for installed in importlib.metadata.distributions(path=list(paths) if paths is not None else site_directories()):
        # the first on the path wins, as it does for `import`
        metadata.setdefault(canonical_name(installed.metadata["Name"] or ""), installed)
    metadata.pop("", None)  # a folder left over from an interrupted installation has no name
    owned: set[tuple[Path, str]] = set()
    for name in sorted(metadata):
        found[name] = _distribution(metadata[name], owned)
    if wanted is None:
        return [found[name] for name in sorted(found)]
    missing = [name for canonical, name in wanted.items() if canonical not in found]
    if missing:
        raise UserError(
            f"not installed: {', '.join(sorted(missing))}; install them with pip or leave them out of the corpus"
        )
    return [found[name] for name in sorted(wanted)]


def canonical_name(name: str) -> str:
    """The normalised form of a distribution name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def site_directories() -> list[str]:
    """The directories that hold the packages of the running interpreter, in import order.

    The current directory and PYTHONPATH are left out: what lies there is the user's work, not an installed package.
    """
    candidates = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
    return [path for path in dict.fromkeys(candidates) if path in sys.path and Path(path).is_dir()]


def standard_library() -> Distribution:
    """The standard library of the running interpreter, its tests included."""
    root = Path(sysconfig.get_path("stdlib"))
    files = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return Distribution(
        name=STANDARD_LIBRARY,
        version=platform.python_version(),
        licence="PSF-2.0",
        host="docs.python.org/3",
        root=root,
        files=tuple(sorted(file for file in files if not _is_not_standard(file))),
    )


def _is_not_standard(file: str) -> bool:
    return any(part.startswith(_NOT_STANDARD) for part in file.split("/"))


def _distribution(installed: importlib.metadata.Distribution, owned: set[tuple[Path, str]]) -> Distribution:
    metadata = installed.metadata
    root = Path(str(installed.locate_file(""))).resolve()
    listed = sorted({path.as_posix() for path in installed.files or ()})
    # files outside the root are scripts and data; `owned` gives a file that two packages list to the first of them
    files = tuple(f for f in listed if not f.startswith(("../", "/")) and (root, f) not in owned)
    owned.update((root, file) for file in files)
    name = canonical_name(metadata["Name"])
    return Distribution(
        name=name,
        version=metadata["Version"] or "unknown",
        licence=spdx_licence(
            metadata["License-Expression"],
            metadata["License"],
            metadata.get_all("Classifier") or [],
            _licence_texts(root, listed),
        ),
        host=f"pypi.org/project/{name}",
        root=root,
        files=files,
        description=_description(metadata),
    )


def _licence_texts(root: Path, files: Sequence[str]) -> list[str]:
    inside = [f for f in files if re.match(r"[^/]+\.(dist|egg)-info/", f) and _LICENCE_FILE.search(f)]
    return [(root / file).read_text(encoding="utf-8", errors="replace") for file in inside if (root / file).is_file()]


def _description(metadata: importlib.metadata.PackageMetadata) -> str:
    """The long description: the body of the metadata file, or in old files a field."""
    body = metadata.json.get("description", "")  # .json undoes the indentation that the field form adds
    return "" if not isinstance(body, str) or body.strip() in ("", "UNKNOWN") else body.strip("\n") + "\n"
