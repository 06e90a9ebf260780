"""Files of rows: JSON lines, plain or gzipped, and Parquet; read once from end to end, or from any row on.

A row is the bytes of a line, or what Parquet holds for it as Python values. Its number counts from 1, blank lines
included, so that `file:number` is what an editor shows.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from hephaestus_jax.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_CHUNK = 1 << 20  # bytes read at once for digests
_BATCH_ROWS = 1024  # rows of Parquet turned into Python values at once


class Row(NamedTuple):
    """One row: its number from 1, the key by which it is found again, and its content."""

    number: int
    key: int  # byte offset of a plain line, else number - 1
    content: bytes | dict[str, Any]


class RowFile(Protocol):
    """A file of rows. Implementations are picklable; what they keep open is not pickled."""

    path: Path

    def scan(self) -> Iterator[Row]:
        """Every row from the first to the last, blank lines left out.

        Raises:
            UserError: the file is damaged.
        """

    def at(self, keys: list[int]) -> Iterator[bytes | dict[str, Any]]:
        """The rows with these keys, which ascend."""


def row_file(path: Path) -> RowFile:
    """The reader that fits the name of the file."""
    if path.name.endswith(".parquet"):
        return ParquetRows(path)
    return GzipLines(path) if path.name.endswith(".gz") else Lines(path)


def file_digest(path: Path) -> str:
    """128-bit digest of the bytes of a file, as 32 hexadecimal digits."""
    made = hashlib.blake2b(digest_size=16)
    with _readable(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()


@dataclass
class Lines:
    """Plain lines; a row is found by the offset of its first byte."""

    path: Path

    def scan(self) -> Iterator[Row]:
        """Every row that is not blank."""
        offset = 0
        with _readable(self.path), self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield Row(number, offset, line)
                offset += len(line)

    def at(self, keys: list[int]) -> Iterator[bytes]:
        """The lines that begin at these offsets."""
        with _readable(self.path), self.path.open("rb") as file:
            for key in keys:
                file.seek(key)
                yield file.readline()


@dataclass
class GzipLines:
    """Gzipped lines. They can only be read forwards: reading on from the last position is cheap, going back is not."""

    path: Path
    _position: list[tuple[int, BinaryIO]] = field(default_factory=list, repr=False)  # next line and its open file

    def scan(self) -> Iterator[Row]:
        """Every row that is not blank."""
        with _readable(self.path), gzip.open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield Row(number, number - 1, line)

    def at(self, keys: list[int]) -> Iterator[bytes]:
        """The lines with these numbers, counted from 0."""
        if not keys:
            return
        # Taken out while in use, so that two readers never share a position.
        line, file = self._position.pop() if self._position else (0, self._opened())
        if line > keys[0]:
            file.close()
            line, file = 0, self._opened()
        with _readable(self.path):
            for key in keys:
                while line < key:
                    file.readline()
                    line += 1
                content = file.readline()
                line += 1
                yield content
        self._position.append((line, file))

    def _opened(self) -> BinaryIO:
        with _readable(self.path):
            return gzip.open(self.path, "rb")  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_position": []}


@dataclass
class ParquetRows:
    """Rows of Parquet; the last row group that was read is kept."""

    path: Path
    _group: list[tuple[int, pa.Table]] = field(default_factory=list, repr=False)

    def scan(self) -> Iterator[Row]:
        """Every row."""
        number = 0
        with _readable(self.path), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                for content in batch.to_pylist():
                    number += 1
                    yield Row(number, number - 1, content)

    def at(self, keys: list[int]) -> Iterator[dict[str, Any]]:
        """The rows with these numbers, counted from 0."""
        with _readable(self.path), pq.ParquetFile(self.path) as file:
            first, position = 0, 0
            for group in range(file.num_row_groups):
                stop = first + file.metadata.row_group(group).num_rows
                wanted = position
                while wanted < len(keys) and keys[wanted] < stop:
                    wanted += 1
                if wanted > position:
                    yield from self._table(file, group).take([key - first for key in keys[position:wanted]]).to_pylist()
                first, position = stop, wanted

    def _table(self, file: pq.ParquetFile, group: int) -> pa.Table:
        if not self._group or self._group[0][0] != group:
            self._group[:] = [(group, file.read_row_group(group))]
        return self._group[0][1]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_group": []}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what a damaged or unreadable file raises into one clear line."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: truncated or not gzip ({error}); fetch the file again or remove it") from error
    except pa.ArrowException as error:
        raise UserError(f"{path}: truncated or not Parquet ({error}); fetch the file again or remove it") from error
    except OSError as error:
        if path.name.endswith(".parquet") and error.errno is None:  # how Arrow reports damaged pages
            raise UserError(f"{path}: damaged Parquet ({error}); fetch the file again or remove it") from error
        raise UserError(f"{path}: cannot be read ({error}); check the file and its permissions") from error
