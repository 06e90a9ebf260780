"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Container, Iterator
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.safetensors_writing import write_problem

UNFINISHED, REPLACED = ".unfinished", ".replaced"
_COPY_BYTES = 8 << 20


@contextlib.contextmanager
def new_folder(path: str | os.PathLike, replace: bool = False, keep: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path`, which becomes `path` by one rename if the block ends without an error.

    It is called `path`.unfinished. A failure removes it; after a kill it stays, and the next call for `path` clears it.

    Args:
        replace: whether a folder at `path` gives way; otherwise it must be empty or absent.
        keep: whether the folder stays after a failure too, and comes to the block as the last attempt left it.

    Raises:
        UserError: `path` is taken, another process is writing it, or it cannot be written.
    """
    target = Path(os.path.abspath(os.path.expanduser(path)))
    if os.path.lexists(target) and not (target.is_dir() and (replace or not any(target.iterdir()))):
        raise UserError(f"{target} is there already; give another folder, or move it away")
    temporary = target.with_name(target.name + UNFINISHED)
    with _failures(target), contextlib.ExitStack() as stack:
        temporary.mkdir(parents=True, exist_ok=True)
        stack.callback(os.close, _lock(temporary))
        try:
            if not keep:
                clear(temporary)
            yield temporary
            _sync_folders(temporary)
            if replace and target.exists():
                _exchange(temporary, target)
            else:
                os.rename(temporary, target)
            _sync(target.parent)
        except BaseException:
            if not keep:
                shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextlib.contextmanager
def _failures(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {target}: {write_problem(error)}") from error


def _lock(folder: Path) -> int:
    """Holds the folder against other processes until the descriptor is closed, by a kill too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except OSError as error:
        held = error.errno not in (errno.EWOULDBLOCK, errno.ENOENT)  # others: a file system without locks
    if not held:
        os.close(descriptor)
        raise UserError(f"another process is writing {folder}; wait for it, or give another folder")
    return descriptor


def _exchange(temporary: Path, target: Path) -> None:
    """Puts one folder in the place of another. A kill in between can leave neither, and the old one as .replaced."""
    old = target.with_name(target.name + REPLACED)
    shutil.rmtree(old, ignore_errors=True)
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def clear(folder: Path, but: Container[str] = ()) -> None:
    """Removes what lies in a folder, all but files of those names."""
    for path in folder.iterdir():
        if path.name in but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folders(folder: Path) -> None:
    for place, _, _ in os.walk(folder):
        _sync(Path(place))


def write_file(path: Path, data: bytes) -> None:
    """Writes a new file, and its folder where needed; it lies on disk on return.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write {path}: {write_problem(error)}") from error


def copy_file(source: Path, target: Path) -> None:
    """Copies the bytes of a file, of what it leads to if it is a link; raises as `write_file` does."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(source, "rb") as reading, open(target, "xb") as writing:
            shutil.copyfileobj(reading, writing, _COPY_BYTES)
            writing.flush()
            os.fsync(writing.fileno())
    except OSError as error:
        raise UserError(f"cannot copy {source} to {target}: {write_problem(error)}") from error
