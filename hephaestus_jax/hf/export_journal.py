"""Which files of an unfinished export are whole, so that the same export goes on where it was killed.

OUT.unfinished           the folder that becomes OUT
OUT.unfinished.journal   JSON lines: what the export is of, then each file that lies on disk, with its digest

A line counts if it is whole, and a file if its bytes have the digest that the line says. A journal of another export,
by what it says of itself, counts for nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.folders import clear
from hephaestus_jax.hf.safetensors_writing import write_problem

JOURNAL = ".journal"
_PIECE = 8 << 20


@dataclass(frozen=True)
class WholeFile:
    """A file that lies on disk.

    Attributes:
        file: its name.
        bytes: its size.
        sha256: of its contents.
        rounded: what was rounded in it, in words.
    """

    file: str
    bytes: int
    sha256: str
    rounded: tuple[str, ...] = ()


@contextlib.contextmanager
def going_on(folder: Path, export: str, progress: Callable[[int], None]) -> Iterator[Journal]:
    """The journal of an export to `folder`, which holds nothing but what the journal says is whole.

    After a failure the two stay if a file is whole. The caller removes the journal once the folder has its name.

    Args:
        folder: the temporary one.
        export: a digest of everything that the files' bytes follow from; empty for an export that is never gone on
            with.
        progress: called with numbers of bytes that were verified.

    Raises:
        UserError: the journal cannot be read or written, or what the block raises, with what can be done.
    """
    journal = Journal(folder, export or os.urandom(16).hex())
    journal.verify(progress)
    clear(folder, but=journal.whole)
    journal.begin()
    try:
        yield journal
    except BaseException as error:
        if not (export and journal.whole):
            shutil.rmtree(folder, ignore_errors=True)
            journal.remove()
        elif isinstance(error, UserError):
            count = len(journal.whole)
            raise UserError(f"{error} ({count} whole files are kept, the same command goes on from there)") from error
        raise


class Journal:
    """The journal of one export, as it lies there.

    Attributes:
        whole: files that are whole, by name; before `verify`, that may be.
        other: whether what lay there was the journal of another export.
    """

    def __init__(self, folder: Path, export: str) -> None:
        self.path = folder.with_name(folder.name + JOURNAL)
        self._folder, self._export = folder, export
        self.whole: dict[str, WholeFile] = {}
        head, *lines = self._lines() or [None]
        self.other = head is not None and head != {"export": export}
        if head is not None and not self.other:
            self.whole = {entry.file: entry for line in lines if (entry := _entry(line)) is not None}

    def _lines(self) -> list[Any]:
        """The journal's whole lines."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}; mend that, or remove it") from error
        found = []
        for line in text.split(b"\n")[:-1]:  # what stands behind the last end of line was cut off by a kill
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def verify(self, progress: Callable[[int], None]) -> None:
        """Reads the files that are said to be whole, and forgets those that are not.

        Args:
            progress: called with numbers of bytes read.
        """
        self.whole = {
            name: entry
            for name, entry in self.whole.items()
            if _digest(self._folder / name, entry.bytes, progress) == entry.sha256
        }

    def begin(self) -> None:
        """Writes the journal as far as it holds, in one rename."""
        temporary = self.path.with_name(self.path.name + ".new")
        lines = [{"export": self._export}, *map(asdict, self.whole.values())]
        try:
            with open(temporary, "wb") as file:
                file.write(b"".join(map(_line, lines)))
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self.path)
        except OSError as error:
            raise UserError(f"cannot write {temporary}: {write_problem(error)}") from error

    def add(self, entry: WholeFile) -> None:
        """Says that a file lies on disk."""
        self.whole[entry.file] = entry
        try:
            with open(self.path, "ab") as file:
                file.write(_line(asdict(entry)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {write_problem(error)}") from error

    def remove(self) -> None:
        """For an export that is done, or given up."""
        self.path.unlink(missing_ok=True)


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _entry(value: Any) -> WholeFile | None:
    try:
        entry = WholeFile(value["file"], value["bytes"], value["sha256"], tuple(value["rounded"]))
    except (KeyError, TypeError):
        return None
    plain = isinstance(entry.file, str) and os.path.basename(entry.file) == entry.file
    return entry if plain and entry.file else None


def _digest(path: Path, size: int, progress: Callable[[int], None]) -> str:
    """SHA-256 of a file of that size; empty where there is no such file."""
    digest, memory = hashlib.sha256(), memoryview(bytearray(_PIECE))
    try:
        if path.is_symlink() or path.stat().st_size != size:
            return ""
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(memory):
                digest.update(memory[:count])
                progress(count)
    except OSError:
        return ""
    return digest.hexdigest()
