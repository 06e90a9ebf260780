"""GitHub's own description of its REST API, with the additions of its Enterprise editions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hephaestus_jax.forge.openapi.documents import load
from hephaestus_jax.forge.openapi.operations import METHODS, read_openapi
from hephaestus_jax.forge.sources.source import Package, SourceFile, source
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Record

PACKAGE = Package(
    "npm",
    "@octokit/openapi",
    "23.0.2",
    "71a18407dd5e8464f4e0525daf03deabbe65abd9287d6adc7b5d98f516cd0d0c",
    "MIT",
)
_SERVER = re.compile(r"ghes-(\d+)\.(\d+)\.json$")


def _files(paths: Iterable[str]) -> list[str]:
    """The main description, the Enterprise Cloud's, the newest Enterprise Server's; none with references replaced."""
    named = {path.rpartition("/")[2]: path for path in paths if "/generated/" in path}
    servers = {name: tuple(map(int, found.groups())) for name in named if (found := _SERVER.match(name))}
    newest = max(servers, key=lambda name: servers[name], default="")
    return [named[name] for name in ("api.github.com.json", "ghec.json", newest) if name in named]


@source("octokit", PACKAGE, files=_files, replaces=("github.com*",))
def read_octokit(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """GitHub's REST operations; of the Enterprise editions those that github.com does not have."""
    name = file.path.rpartition("/")[2]
    before = {"api.github.com.json": (), "ghec.json": ("api.github.com.json",)}
    known = {pair for other in before.get(name, ("api.github.com.json", "ghec.json")) for pair in _pairs(file, other)}
    yield from read_openapi(file, quarantine, "github.com", keep=lambda method, path: (method, path) not in known)


def _pairs(file: SourceFile, name: str) -> Iterator[tuple[str, str]]:
    """Method and path of the operations of a file beside this one; what is wrong with it is told when it is read."""
    other = file.sibling(name)
    document = load(other, Quarantine()) if other else None
    for path, item in document["paths"].items() if document else ():
        for method in METHODS:
            if isinstance(item, dict) and method in item:
                yield method.upper(), path
