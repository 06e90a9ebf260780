"""Files of text as numbered records: whatever `formats.user_data` reads, and plain text, one document per file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hephaestus_jax.data.task import RecordSource
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Document, Identified, Provenance, digest, identify
from hephaestus_jax.formats.row_files import SUFFIXES as ROW_SUFFIXES
from hephaestus_jax.formats.row_files import file_digest
from hephaestus_jax.formats.user_data import UserDataSource

TEXT_SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class PlainTextSource:
    """Text files, a document each, in the order of their names. Picklable.

    Attributes:
        path: one file, or a folder that is searched with its sub-folders; hidden files are left out.
    """

    path: str

    def fingerprint(self) -> str:
        """Digest of the files' names and bytes."""
        return digest([[str(file.relative_to(self._root)), file_digest(file)] for file in self._files])

    def count(self) -> int:
        """Number of files."""
        return len(self._files)

    def read(self, start: int, stop: int) -> Iterator[Identified]:
        """Documents `start` to `stop` (exclusive), in order.

        Raises:
            UserError: a file is not UTF-8.
        """
        for file in self._files[start:stop]:
            try:
                text = file.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{file} is not UTF-8 ({error}); convert it, or leave it out") from error
            name = str(file.relative_to(self._root))
            yield identify(Document(text, "text", Provenance(name, file_digest(file), "unknown", path=name)))

    @property
    def _root(self) -> Path:
        path = Path(self.path)
        return path if path.is_dir() else path.parent

    @cached_property
    def _files(self) -> tuple[Path, ...]:
        path = Path(self.path)
        return _visible(path, TEXT_SUFFIXES) if path.is_dir() else (path,)


def open_records(path: str) -> RecordSource:
    """The records at `path`: rows where there are files of rows, else text files.

    Files that are not read are named on standard error, and so is the number of rows that could not be read.

    Raises:
        UserError: there is nothing to read.
    """
    where = Path(path).expanduser()
    plain = where.name.endswith(TEXT_SUFFIXES) if where.is_file() else not _visible(where, ROW_SUFFIXES)
    if plain:
        source = PlainTextSource(str(where))
        if not source.count():
            kinds = ", ".join((*ROW_SUFFIXES, *TEXT_SUFFIXES))
            raise UserError(f"nothing to evaluate on in {path}: it holds no {kinds} file")
        return source
    rows = UserDataSource(where)
    rows.count()  # reads and checks them
    if rows.ignored:
        print(f"{path}: not read: {', '.join(rows.ignored)}", file=sys.stderr)
    if rows.quarantine:
        print(f"{path}: {rows.quarantine.summary()}", file=sys.stderr)
    return rows


def _visible(folder: Path, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    found = (file for file in folder.rglob("*") if file.name.endswith(suffixes) and file.is_file())
    return tuple(
        sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))
    )
