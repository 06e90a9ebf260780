"""The user's own evaluation files, as caches like those of the mixture.

A packed cache is opened as it is. Anything else (JSON lines, Parquet, plain text) is tokenised and packed into the run
directory, in `evaluation/NAME/`; a later start with the same files finds the cache there and takes it. Trajectories are
rendered in the chat format that the environment variable HEPHAESTUS_CHAT names, as when a mixture is built.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hephaestus_jax import distributed
from hephaestus_jax.config import EvaluationConfig
from hephaestus_jax.data.cache import MANIFEST, Cache
from hephaestus_jax.data.mixture import Mixture
from hephaestus_jax.data.storage import Storage
from hephaestus_jax.errors import UserError


def open_user_files(config: EvaluationConfig, mixture: Mixture, folder: Path) -> dict[str, Cache]:
    """The caches of `config.files` by name, built in `folder` where they are not packed yet.

    Every process calls this; one of them builds, in a folder that all of them see.

    Raises:
        UserError: a path does not exist, holds nothing to read, or was tokenised with another vocabulary or for another
            sequence length; or files must be tokenised and what that needs is not installed.
    """
    caches = {}
    for file in config.files:
        name, _, path = file.partition("=")
        find = functools.partial(_locate, name, path, config.vocabulary, mixture, Path(folder))
        caches[name] = Cache.open(_agree(find))
        caches[name].require(mixture.spec.vocabulary.digest, mixture.spec.sequence_length)
    return caches


def _agree(find: Callable[[], str]) -> str:
    """What `find` returns on the first process; where it raises a UserError, all processes do."""
    found = error = ""
    if distributed.is_main():
        try:
            found = find()
        except UserError as problem:  # the others wait for word of it
            error = str(problem)
    found, error = distributed.broadcast([found, error])
    if error:
        raise UserError(error)
    return found


def _locate(name: str, path: str, vocabulary: str, mixture: Mixture, folder: Path) -> str:
    """Where the cache of one file is; it is built if need be."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"EvaluationConfig.files has the name {name!r}; use letters, digits, _ - and .")
    where = Storage(path)
    if where.exists(MANIFEST):
        return where.url
    if "://" in path:
        raise UserError(
            f"no packed cache at {path}: build one with `python -m tools.build_cache`, or give a local file"
        )
    if not os.path.exists(where.url):
        raise UserError(f"evaluation file {path} does not exist; mend EvaluationConfig.files")
    return str(_tokenise(name, where.url, vocabulary, mixture, folder / name))


def _tokenise(name: str, path: str, vocabulary: str, mixture: Mixture, folder: Path) -> Path:
    if not vocabulary:
        raise UserError(
            f"evaluation file {path} must be tokenised: give the mixture's tokenizer as EvaluationConfig.vocabulary"
        )
    try:
        # what reads and tokenises text is imported here only: the trainer runs without it
        from hephaestus_jax.data.cache_build import build_cache
        from hephaestus_jax.data.task import RenderedTask
        from hephaestus_jax.data.vocabularies import load_vocabulary
        from hephaestus_jax.evals.plain_text import open_records
        from hephaestus_jax.formats.rendering import RecordRenderer

        found, wanted = load_vocabulary(vocabulary).digest, mixture.spec.vocabulary
        if found != wanted.digest:
            raise UserError(
                f"EvaluationConfig.vocabulary {vocabulary} has digest {found[:12]}, the mixture was tokenised with"
                f" {wanted.name} (digest {wanted.digest[:12]}); give that tokenizer"
            )
        records = open_records(path)
        renderer = RecordRenderer(chat=os.environ.get("HEPHAESTUS_CHAT", RecordRenderer.chat))
        if getattr(records, "kind", "") == "Trajectory":
            print(f"{path}: trajectories in the chat format of {renderer.chat} (from HEPHAESTUS_CHAT)", file=sys.stderr)
        source = RenderedTask(name, "evaluation", records, renderer, vocabulary)
        return build_cache(source, folder, mixture.spec.sequence_length).path
    except ImportError as error:
        if (error.name or "").startswith("hephaestus_jax"):
            raise
        raise UserError(
            f"evaluation file {path} must be tokenised, and {error.name} is not installed here: build its cache where"
            f" the whole project is installed (`python -m tools.build_cache --data {path} --seq_length"
            f" {mixture.spec.sequence_length} --vocabulary {vocabulary} --out DIR`) and give {name}=DIR/caches/...;"
            " plain text goes in as JSON lines"
        ) from error
