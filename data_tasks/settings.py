"""Which corpus and vocabulary the registered tasks read.

Tasks are registered once, when `data_tasks` is imported; what they read is looked up when they are used. Set it by
environment (`HEPHAESTUS_CORPUS`, `HEPHAESTUS_ENVIRONMENTS`, `HEPHAESTUS_VOCABULARY`, `HEPHAESTUS_CHAT`) or with
`configure`.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import PLAYED
from hephaestus_jax.formats.rendering import RecordRenderer


@dataclass(frozen=True)
class DataSettings:
    """Paths and rendering options of the registered tasks; `environments` is a corpus of played episodes."""

    corpus: str | None = None
    environments: str | None = None
    vocabulary: str | None = None
    renderer: RecordRenderer = field(default_factory=RecordRenderer)

    @classmethod
    def from_environment(cls) -> DataSettings:
        """The settings that a shell started us with."""
        chat = os.environ.get("HEPHAESTUS_CHAT")
        return cls(
            corpus=os.environ.get("HEPHAESTUS_CORPUS"),
            environments=os.environ.get("HEPHAESTUS_ENVIRONMENTS"),
            vocabulary=os.environ.get("HEPHAESTUS_VOCABULARY"),
            renderer=RecordRenderer(chat=chat) if chat else RecordRenderer(),
        )

    def corpus_of(self, slice_name: str) -> str | None:
        """The corpus directory that holds a slice; None where none was chosen."""
        return self.environments if slice_name == PLAYED else self.corpus

    def need_corpus(self, slice_name: str) -> str:
        """The corpus directory that holds a slice, or an error that says how to set it."""
        corpus = self.corpus_of(slice_name)
        if corpus is None and slice_name == PLAYED:
            raise UserError(
                "no episodes chosen: pass --environments DIR, set HEPHAESTUS_ENVIRONMENTS, or"
                " data_tasks.configure(...); `python -m tools.rollout` plays them"
            )
        if corpus is None:
            raise UserError("no corpus chosen: pass --corpus DIR, set HEPHAESTUS_CORPUS, or data_tasks.configure(...)")
        return corpus

    def need_vocabulary(self) -> str:
        """The vocabulary path, or an error that says how to set it."""
        if self.vocabulary is None:
            raise UserError(
                "no vocabulary chosen: pass --vocabulary PATH, set HEPHAESTUS_VOCABULARY, or data_tasks.configure(...);"
                " `python -m tools.train_vocabulary` makes one"
            )
        return self.vocabulary


_current: DataSettings | None = None


def current() -> DataSettings:
    """The settings in force."""
    global _current
    if _current is None:
        _current = DataSettings.from_environment()
    return _current


def configure(
    corpus: str | os.PathLike[str] | None = None,
    environments: str | os.PathLike[str] | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
    renderer: RecordRenderer | None = None,
) -> DataSettings:
    """Changes what the registered tasks read from now on; what is not given stays."""
    global _current
    given = {"corpus": corpus, "environments": environments, "vocabulary": vocabulary}
    changes: dict = {name: os.fspath(value) for name, value in given.items() if value is not None}
    if renderer is not None:
        changes["renderer"] = renderer
    _current = dataclasses.replace(current(), **changes)
    return _current


def restore(settings: DataSettings) -> None:
    """Puts `settings` in force: those of the process that started this one."""
    global _current
    _current = settings
