"""Results of long steps kept on disk, so that a build that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hephaestus_jax
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Json, digest


@dataclass(frozen=True)
class WorkFolder:
    """A folder of results, each under a key of everything that it depends on.

    The files are pickles that this program wrote for itself: never point it at a folder from somewhere else.
    """

    path: Path

    def key(self, *parts: Json) -> str:
        """A key over `parts` and over the code of the forge itself: a changed program makes its results anew."""
        return digest([code_digest(), *parts])

    def file(self, stage: str, name: str, key: str) -> Path:
        """Where a result lies."""
        return self.path / stage / f"{name}-{key[:16]}.pickle"

    def has(self, stage: str, name: str, key: str) -> bool:
        """Whether the result is there, whole."""
        return self.file(stage, name, key).exists()

    def save(self, stage: str, name: str, key: str, value: Any) -> None:
        """Keeps a result; a file under its final name is always whole."""
        path = self.file(stage, name, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with open(partial, "wb") as file:
            pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    def load(self, stage: str, name: str, key: str) -> Any:
        """A result that `save` kept."""
        with open(self.file(stage, name, key), "rb") as file:
            return pickle.load(file)

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
            yield

    def remove(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.path, ignore_errors=True)


@cache
def code_digest() -> str:
    """Digest of the source files that decide what a corpus holds."""
    root = Path(hephaestus_jax.__file__).parent
    files = sorted([*(root / "forge").rglob("*.py"), *(root / "formats").rglob("*.py")])
    return digest([[str(file.relative_to(root)), file.read_text("utf-8")] for file in files])
