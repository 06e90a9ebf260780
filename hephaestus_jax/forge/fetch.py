"""Pinned packages from their registries: fetched, compared with their sha256, and unpacked without running anything.

A package is fetched once and kept under its sha256 in a folder that builds share; who has no network puts the file
there. `pip download` takes wheels only: of a source archive it runs the archive's own code. Those are downloaded by
`sdists.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.sources.source import Package
from hephaestus_jax.formats.record_files import sha256_of

TIMEOUT = 1_800  # seconds for one package
MAX_FILES = 500_000
MAX_BYTES = 16 << 30  # of everything in one archive, unpacked
_CHUNK = 1 << 20


class Unavailable(Exception):
    """A source cannot be had; the message says why and what would mend it. The build goes on without it."""


def package_folder() -> Path:
    """Where fetched packages are kept when nobody says otherwise."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "hephaestus_jax" / "packages"


def fetch(package: Package, folder: Path) -> Path:
    """The package's file, from `folder` or else from its registry.

    Raises:
        Unavailable: the registry, its client or the network is not there, or the file is not the pinned one.
    """
    suffix = ".tar.gz" if package.sdist else ".whl" if package.registry == "pypi" else ".tgz"
    kept = folder / f"{package.sha256}{suffix}"
    if kept.exists() and sha256_of(kept) == package.sha256:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="fetching-") as scratch:
        if package.sdist:
            from hephaestus_jax.forge.sdists import download  # what it imports takes most of a second

            download(package, Path(scratch))
        else:
            run_client(_command(package, Path(scratch)), f"{package.name} {package.version}")
        files = sorted(path for path in Path(scratch).iterdir() if path.is_file())
        found = next((path for path in files if sha256_of(path) == package.sha256), None)
        if found is None:
            got = ", ".join(f"{path.name} with sha256 {sha256_of(path)}" for path in files) or "no file"
            raise Unavailable(
                f"{package.name} {package.version}: expected sha256 {package.sha256}, got {got}; "
                "the registry serves another file than the pinned one"
            )
        os.replace(found, kept)
    return kept


def _command(package: Package, folder: Path) -> list[str]:
    if package.registry == "npm":
        spec = f"{package.name}@{package.version}"
        return ["npm", "pack", spec, "--pack-destination", str(folder), "--ignore-scripts", "--loglevel=error"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    if package.wheel is not None:
        python, abi, platform = package.wheel
        command += ["--implementation=cp", f"--python-version={python}", f"--abi={abi}", f"--platform={platform}"]
    return [*command, f"--dest={folder}", f"{package.name}=={package.version}"]


def run_client(command: list[str], told: str) -> str:
    """What a package client printed.

    Args:
        command: with its arguments.
        told: what the errors are about.

    Raises:
        Unavailable: the client is not installed, took too long, or failed.
    """
    try:
        # the folder of the build is no place to run a package client in: it would read settings from there
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, cwd=tempfile.gettempdir()
        )
    except FileNotFoundError:
        raise Unavailable(f"{told}: the command {command[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{told}: {command[0]} gave no answer within {TIMEOUT} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise Unavailable(f"{told}: {lines[-1].strip()[:300] if lines else f'exit status {done.returncode}'}")
    return done.stdout


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks a wheel (zip) or npm's tar into `folder`, unless that was done before; links and devices are left out.

    Raises:
        UserError: the archive is damaged, too large, or names a place outside the folder.
    """
    done = folder.with_name(folder.name + ".unpacked")
    if done.exists() and folder.is_dir():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    room = MAX_BYTES
    try:
        for number, (name, stream) in enumerate(_members(archive)):
            if number == MAX_FILES:
                raise UserError(f"{archive.name} holds more than {MAX_FILES:,} files; nothing of it is used")
            target = _inside(partial, name, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                while chunk := stream.read(_CHUNK):
                    room -= len(chunk)
                    if room < 0:
                        raise UserError(f"{archive.name} unpacks to more than {MAX_BYTES:,} bytes; it is not used")
                    file.write(chunk)
        os.replace(partial, folder)
        done.touch()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{archive.name} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _inside(folder: Path, name: str, archive: Path) -> Path:
    """The place of a member.

    Raises:
        UserError: it lies outside the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or "\0" in name or ".." in parts:
        raise UserError(f"{archive.name} names {name!r}, a place outside its folder; nothing of it is used")
    return folder.joinpath(*parts)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The regular files of an archive."""
    with _opened(archive) as opened:
        if isinstance(opened, zipfile.ZipFile):
            for info in opened.infolist():
                if not info.is_dir() and (info.external_attr >> 28) in (0, 8):  # 8: a regular file; 10: a link
                    with opened.open(info) as stream:
                        yield info.filename, stream
        else:
            for member in opened:
                if member.isreg() and (content := opened.extractfile(member)) is not None:
                    yield member.name, content


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield opened
    else:
        with tarfile.open(archive, "r|gz") as tar:
            yield tar
