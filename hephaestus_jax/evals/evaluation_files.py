"""evaluation.json: where it lies, when it is kept, and the facts of models and versions in it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hephaestus_jax.checkpoints.reading import ArrayReader, open_arrays
from hephaestus_jax.data.storage import Storage
from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress
from hephaestus_jax.run_directory import digest_of
from hephaestus_jax.starting_point import StartingPoint
from hephaestus_jax.versions import versions_of

FORMAT = 1
FILE = "evaluation.json"
_BLOCK = 16_000_000

Json = Any


@dataclass(frozen=True)
class EvaluationFile:
    """One model's evaluation on disk, or the place for it."""

    storage: Storage
    key: str

    @classmethod
    def of(cls, start: StartingPoint, folder: str | os.PathLike[str] | None) -> EvaluationFile:
        """MODEL/evaluation.json, or FOLDER/NAME.json with the last part of the model's path."""
        if folder is None:
            return cls(Storage(start.path), FILE)
        return cls(Storage(os.fspath(folder)), f"{os.path.basename(start.path.rstrip('/'))}.json")

    def __str__(self) -> str:
        return f"{self.storage}/{self.key}"

    def read(self, facts: Mapping[str, Json], inputs: Mapping[str, Json]) -> dict[str, Json] | None:
        """The evaluation that is there, if it is of these weights and inputs, wherever they lay; else None."""
        try:
            found = self.storage.read_json(self.key)
        except UserError:  # none, or not whole: it is written anew
            return None
        if not isinstance(found, dict) or (found.get("format"), found.get("inputs")) != (FORMAT, inputs):
            return None
        model = found.get("model", {})
        return found if all(model.get(name) == facts[name] for name in ("kind", "step", "digest")) else None

    def write(self, value: Mapping[str, Json]) -> None:
        """Writes all of it or nothing; what is not a finite number becomes null."""
        text = json.dumps(_finite(value), sort_keys=True, ensure_ascii=False, allow_nan=False)
        self.storage.write(self.key, (text + "\n").encode())


def _finite(value: Json) -> Json:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def model_facts(start: StartingPoint) -> dict[str, Json]:
    """Which weights a model has, told from its files without loading them.

    Raises:
        UserError: there are none.
    """
    step = None
    if start.kind == "huggingface":
        digest = _digest_of_files(Path(start.path))
    else:
        reader = open_arrays(start.checkpoints)
        digest = weights_digest(reader)
        step = reader.step if start.kind == "run" else None
    parameters = start.model.num_parameters
    return {"path": start.path, "kind": start.kind, "step": step, "parameters": parameters, "digest": digest}


def weights_digest(arrays: ArrayReader) -> str:
    """Of the parameters of a checkpoint, told from the digests that were saved with it."""
    return digest_of({name: arrays.slabs(name) for name in arrays.names if name.startswith("params/")})


def _digest_of_files(folder: Path) -> str:
    """Of a Hugging Face model's configuration and weights."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    state = hashlib.blake2b(digest_size=16)
    progress = Progress(f"reading {folder.name}", "bytes", sum(file.stat().st_size for file in files))
    for file in files:
        with open(file, "rb") as opened:
            while block := opened.read(_BLOCK):
                state.update(block)
                progress.add(len(block))
    return state.hexdigest()


def versions() -> dict[str, str]:
    """Of what the figures were made with."""
    found = versions_of("jax", "jaxlib", "flax", "numpy")
    return found | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}
