"""What a build reads, in pieces of bounded size: files of the sources, and distributions of Python packages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import dedup
from hephaestus_jax.forge.config import INSTALLED, PYTHON_PACKAGES, ForgeConfig
from hephaestus_jax.forge.fetch import Unavailable, fetch, package_folder, unpack
from hephaestus_jax.forge.installed import Distribution, iter_distributions
from hephaestus_jax.forge.installed.wheels import WHEELS
from hephaestus_jax.forge.sources import SOURCES, Origin, Package, Source, SourceFile
from hephaestus_jax.forge.sources.source import files_below
from hephaestus_jax.formats.records import Json, digest
from hephaestus_jax.progress import Progress

UNIT_BYTES = 8 << 20  # of files that are read together; a fixed number, so that units never depend on the workers


@dataclass(frozen=True)
class Unit:
    """What one job reads: some files of a source, or a Python distribution; `size` in bytes.

    `state` changes whenever what is to be read does.
    """

    name: str
    source: str
    size: int
    state: Json = field(repr=False)
    files: tuple[SourceFile, ...] = field(repr=False, default=())
    distribution: Distribution | None = None


@dataclass(frozen=True)
class SourceFacts:
    """What the manifest tells of a source that is read."""

    version: str
    licence: str
    host: str


@dataclass(frozen=True)
class Found:
    """The units of a build in their order, and the sources that it goes on without, each with the reason."""

    units: tuple[Unit, ...]
    facts: dict[str, SourceFacts]  # of origins: packages, distributions and given folders
    refused: dict[str, str]  # distributions whose licence the policy does not allow
    unavailable: dict[str, str]


def find_units(config: ForgeConfig, unpacked: Path) -> Found:
    """Fetches what is not at hand, and lists what is to be read.

    Args:
        config: of the build.
        unpacked: folder for the contents of fetched packages.

    Raises:
        UserError: a source is unknown, a folder does not exist, or nothing is left to read.
    """
    units: list[Unit] = []
    facts: dict[str, SourceFacts] = {}
    refused: dict[str, str] = {}
    unavailable: dict[str, str] = {}
    for name, folder in named_sources(config.sources):
        try:
            if name in (INSTALLED, PYTHON_PACKAGES):
                found = _distributions(name, config, unpacked)
                refused |= {item.name: item.licence for item in found if not config.allows(item.licence)}
                kept = [item for item in found if item.name not in refused and item.name not in facts]
                facts |= {item.name: SourceFacts(item.version, item.licence, item.host) for item in kept}
                units += [_distribution_unit(item, name) for item in kept]
            else:
                for root, origin in _roots(SOURCES[name], folder, config, unpacked, unavailable):
                    facts[origin.name] = SourceFacts(origin.version, origin.licence, origin.host)
                    units += _file_units(SOURCES[name], root, origin, config)
        except Unavailable as error:
            unavailable[name] = str(error)
    if not units:
        told = "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())
        raise UserError(f"nothing was found to build a corpus from{': ' + told if told else '; name other sources'}")
    return Found(tuple(units), facts, refused, unavailable)


def named_sources(names: Sequence[str] | None) -> list[tuple[str, str]]:
    """Sources and the folders given for them ("" where none is), in the order of the names.

    Raises:
        UserError: a source is unknown, named twice, or needs a folder.
    """
    if names is None:
        names = [INSTALLED, PYTHON_PACKAGES, *(name for name, source in SOURCES.items() if source.default)]
    found: dict[str, str] = {}
    for entry in names:
        name, _, folder = entry.partition("=")
        known = [INSTALLED, PYTHON_PACKAGES, *sorted(SOURCES)]
        if name not in known:
            raise UserError(f"there is no source {name!r}; known are {', '.join(known)}")
        if name in found:
            raise UserError(f"source {name} is named twice; name it once")
        if name in SOURCES and not folder and not SOURCES[name].packages:
            raise UserError(f"source {name} has no packages of its own; give its folder as {name}=FOLDER")
        found[name] = folder
    return sorted(found.items())


def _roots(
    source: Source, folder: str, config: ForgeConfig, unpacked: Path, unavailable: dict[str, str]
) -> Iterator[tuple[Path, Origin]]:
    """The folders that hold a source's files; packages that cannot be had go to `unavailable`, with the reason."""
    if folder:
        if not Path(folder).is_dir():
            raise UserError(f"source {source.name}: there is no folder {folder}")
        yield Path(folder).absolute(), Origin(source.name, "unknown", "unknown")
        return
    for package in source.packages:
        origin = Origin(package.origin, package.version, package.licence, package.host)
        try:
            yield unpacked_package(package, config, unpacked), origin
        except Unavailable as error:
            unavailable[source.name if len(source.packages) == 1 else f"{source.name}: {package.name}"] = str(error)


def unpacked_package(package: Package, config: ForgeConfig, unpacked: Path) -> Path:
    """The folder below `unpacked` with a package's files, which is fetched unless it is there.

    Raises:
        Unavailable: it cannot be had.
        UserError: its archive is damaged.
    """
    folder = unpacked / f"{package.origin.replace('/', '_').lstrip('@')}-{package.version}"
    if folder.with_name(folder.name + ".unpacked").exists():
        return folder
    kept = Path(config.package_folder) if config.package_folder else package_folder()
    with Progress(f"fetching {package.name} {package.version}", "packages", 1) as progress:
        archive = fetch(package, kept)
        unpack(archive, folder)
        progress.add()
    return folder


def _file_units(source: Source, root: Path, origin: Origin, config: ForgeConfig) -> list[Unit]:
    """The files of a source in the order of their paths, so many together as come to `UNIT_BYTES`."""
    paths = list(files_below(root))
    files = [SourceFile(root, path, origin) for path in source.select(paths)]
    if config.sample < 1:
        files = [
            file for file in files
            if dedup.keyed_fraction(config.seed, "sample", source.name, file.path) < config.sample
        ]  # fmt: skip
    groups: list[list[SourceFile]] = []
    room = 0
    for file in files:
        if file.size > room or not groups:
            groups.append([])
            room = UNIT_BYTES
        groups[-1].append(file)
        room -= file.size
    # In a folder of the user's files may change, also those that readers look at beside their own.
    folder = [[path, _changed(root / path)] for path in sorted(paths)] if origin.version == "unknown" else []
    return [
        Unit(
            name=f"{source.name}-{origin.name.replace('/', '_').lstrip('@')}-{number:05d}",
            source=source.name,
            size=sum(file.size for file in group),
            state=[[[file.path, file.size] for file in group], digest(folder)],
            files=tuple(group),
        )
        for number, group in enumerate(groups)
    ]


def _changed(path: Path) -> int:
    return os.stat(path).st_mtime_ns


def _distributions(name: str, config: ForgeConfig, unpacked: Path) -> list[Distribution]:
    if name == INSTALLED:
        return iter_distributions(config.packages, config.site_directories)
    roots = [str(unpacked_package(wheel, config, unpacked)) for wheel in WHEELS]
    return iter_distributions([wheel.name for wheel in WHEELS], roots)


def _distribution_unit(distribution: Distribution, source: str) -> Unit:
    stats: list[tuple[str, int, int]] = []
    for file in distribution.files:
        try:
            stat = os.stat(distribution.root / file)
        except OSError:
            continue  # listed but not there: reading says so
        stats.append((file, stat.st_size, stat.st_mtime_ns))
    origin = [distribution.name, distribution.version, distribution.licence, distribution.description]
    size = sum(size for file, size, _ in stats if file.endswith(".py"))
    return Unit(distribution.name, source, size, [origin, str(distribution.root), stats], distribution=distribution)


def python_path(units: Iterable[Unit], config: ForgeConfig) -> list[Path]:
    """Where the packages that are not of this interpreter are imported from when their examples are executed."""
    given = [Path(folder) for folder in config.site_directories or ()]
    fetched = [u.distribution.root for u in units if u.source == PYTHON_PACKAGES and u.distribution is not None]
    return [*given, *dict.fromkeys(fetched)]
