"""Results of the stages kept on disk, so that a build that was killed goes on where it was.

    <work>/<stage>/<digest of the bytes>.parquet     records, sorted by id
    <work>/<stage>/<digest of the bytes>.pickle      what else a stage hands on
    <work>/<stage>/<unit>-<key>.json                 which of these is the unit's result, once that is whole

A key covers everything that a result depends on. Results are compared with their digests when they are read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hephaestus_jax
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.record_files import StoredRecord, read_rows, sha256_of, write_record_file
from hephaestus_jax.formats.records import Json, digest

_GROUP_RECORDS = 64  # few, because the files of all units are open at once when they are merged


@dataclass(frozen=True)
class WorkFolder:
    """A folder of results, each under a key of everything that it depends on.

    Pickles in it are this program's own: never point it at a folder from somewhere else.
    """

    path: Path

    def key(self, *parts: Json) -> str:
        """A key over `parts` and over the code of the forge itself: a changed program makes its results anew."""
        return digest([code_digest(), *parts])

    def has(self, stage: str, name: str, key: str) -> bool:
        """Whether the result is there, whole."""
        return self._receipt(stage, name, key).exists()

    def save(self, stage: str, name: str, key: str, value: Any) -> None:
        """Keeps a result of any kind; a file under its final name is always whole."""
        content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        sha256 = hashlib.sha256(content).hexdigest()
        self._write(self.path / stage / f"{sha256[:24]}.pickle", content)
        self._sign(stage, name, key, f"{sha256[:24]}.pickle", sha256)

    def save_records(self, stage: str, name: str, key: str, rows: Iterable[StoredRecord]) -> None:
        """Keeps records, which are in id order."""
        written = write_record_file(self.path / stage, rows, group_records=_GROUP_RECORDS)
        self._sign(stage, name, key, written.file, written.sha256)

    def load(self, stage: str, name: str, key: str) -> Any:
        """A result that `save` kept.

        Raises:
            UserError: it is damaged.
        """
        path, sha256 = self._found(stage, name, key)
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise self._damaged(path)
        return pickle.loads(content)

    def load_records(self, stage: str, name: str, key: str) -> Iterator[StoredRecord]:
        """Records that `save_records` kept, in id order.

        Raises:
            UserError: they are damaged.
        """
        path, sha256 = self._found(stage, name, key)
        if not path.exists() or sha256_of(path) != sha256:
            raise self._damaged(path)
        return read_rows(path)

    def _found(self, stage: str, name: str, key: str) -> tuple[Path, str]:
        try:
            receipt = json.loads(self._receipt(stage, name, key).read_text("utf-8"))
            return self.path / stage / receipt["file"], receipt["sha256"]
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(self._receipt(stage, name, key)) from error

    def _damaged(self, path: Path) -> UserError:
        return UserError(f"{path} is missing or damaged; remove {self.path} and build again")

    def _receipt(self, stage: str, name: str, key: str) -> Path:
        return self.path / stage / f"{name}-{key[:16]}.json"

    def _sign(self, stage: str, name: str, key: str, file: str, sha256: str) -> None:
        self._write(self._receipt(stage, name, key), json.dumps({"file": file, "sha256": sha256}).encode())

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this build alone; the system lets go of it when the process ends, however it ends.

        Raises:
            UserError: another build holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{self.path} is in use by another build; wait, or choose another folder") from None
            try:
                yield
            finally:
                if self.path.exists() and os.listdir(self.path) == ["lock"]:  # nothing was worth keeping
                    self.remove()

    def remove(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.path, ignore_errors=True)


@cache
def code_digest() -> str:
    """Digest of the source files that decide what a corpus holds."""
    root = Path(hephaestus_jax.__file__).parent
    files = sorted([*(root / "forge").rglob("*.py"), *(root / "formats").rglob("*.py")])
    return digest([[str(file.relative_to(root)), file.read_text("utf-8")] for file in files])
