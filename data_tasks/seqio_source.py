"""Any seqio Task as a source of tokens for the cache builder.

Tasks over records (`data_tasks.records`) are rendered and tokenised in batches. Every other Task is run as seqio would
run it, one example at a time, and its `targets` are packed: `inputs`, where a Task has them, come first at weight 0,
and a `loss_weights` feature is honoured.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import seqio

from data_tasks.records import RecordDataSource, RenderAndTokenize
from data_tasks.settings import DataSettings, current, restore
from data_tasks.vocabularies import HephaestusVocabulary
from hephaestus_jax.data.identity import Origin
from hephaestus_jax.data.task import Rejected, TokenizedRecord, TokenSource
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import digest


@dataclass(frozen=True)
class SeqioTokens:
    """The examples of a seqio Task, as its own preprocessors leave them.

    Attributes:
        modules: modules to import in a worker, so that the Task is registered there too.
        settings: those in force, which a worker must share: the Task's vocabulary may be theirs.
    """

    name: str
    split: str
    modules: tuple[str, ...] = ()
    settings: DataSettings = field(default_factory=current)

    @cached_property
    def _task(self) -> seqio.Task:
        restore(self.settings)
        for module in self.modules:
            importlib.import_module(module)
        return seqio.TaskRegistry.get(self.name)

    def __getstate__(self) -> dict[str, Any]:
        # a worker must look the Task up itself: only then are the modules imported and the settings restored
        return {name: value for name, value in self.__dict__.items() if name != "_task"}

    @property
    def vocabulary(self) -> str:
        """Path of the vocabulary of `targets`.

        Raises:
            UserError: a vocabulary that no file holds, such as seqio's ByteVocabulary.
        """
        vocabulary = self._task.output_features["targets"].vocabulary
        if isinstance(vocabulary, HephaestusVocabulary):
            return vocabulary.path
        if isinstance(vocabulary, seqio.SentencePieceVocabulary) and not vocabulary.extra_ids:
            return vocabulary.sentencepiece_model_file
        raise UserError(
            f"task {self.name!r} uses {type(vocabulary).__name__}, which the cache cannot read back;"
            " give its `targets` a data_tasks.vocabularies.HephaestusVocabulary"
        )

    @cached_property
    def _summary(self) -> tuple[int, str]:
        """Number of examples and digest of their tokens: a Task's code cannot be digested, what it yields can."""
        identifiers = [record.record_id for record in self._examples()]
        return len(identifiers), digest(identifiers)

    def fingerprint(self) -> str:
        """Digest of every example."""
        from hephaestus_jax.data.vocabularies import load_vocabulary

        return digest([self._summary[1], load_vocabulary(self.vocabulary).digest])

    def count(self) -> int:
        """Number of examples."""
        return self._summary[0]

    def read(self, start: int, stop: int) -> Iterator[TokenizedRecord | Rejected]:
        """Examples `start` to `stop` (exclusive), in seqio's unshuffled order."""
        return self._examples(start, stop)

    def _examples(self, start: int = 0, stop: int | None = None) -> Iterator[TokenizedRecord]:
        dataset = self._task.get_dataset(None, self.split, shuffle=False, num_epochs=1).skip(start)
        if stop is not None:
            dataset = dataset.take(stop - start)
        for example in dataset.as_numpy_iterator():
            yield self._tokenized(example)

    def _tokenized(self, example: Mapping[str, np.ndarray]) -> TokenizedRecord:
        targets = np.asarray(example["targets"], np.int32)
        weights = np.asarray(example.get("loss_weights", np.ones(len(targets))), np.float32)
        inputs = np.asarray(example.get("inputs", ()), np.int32)
        tokens = np.concatenate([inputs, targets])
        weights = np.concatenate([np.zeros(len(inputs), np.float32), weights])
        if len(weights):
            weights[0] = 0  # nothing predicts the first token
        content = hashlib.blake2b(tokens.tobytes() + weights.tobytes(), digest_size=16).hexdigest()
        return TokenizedRecord(content, Origin(f"seqio:{self.name}", "unknown", "unknown"), tokens, weights)


def token_source(task: seqio.Task, split: str, modules: tuple[str, ...] = ()) -> TokenSource:
    """What the cache builder reads for one split of a seqio Task."""
    if isinstance(task.source, RecordDataSource):
        steps = [step for step in task.preprocessors if isinstance(step, RenderAndTokenize)]
        if len(steps) == len(task.preprocessors) == 1:
            return steps[0].rendered_task(task.name, split, task.source.record_source(split))
    return SeqioTokens(task.name, split, modules)


def tasks_and_rates(name: str) -> dict[str, float]:
    """Task names and rates of a seqio Task or Mixture; a Task has rate 1.

    Raises:
        UserError: seqio knows no such name.
    """
    try:
        found = seqio.get_mixture_or_task(name)
    except ValueError:
        known = sorted([*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()])
        raise UserError(f"no task or mixture {name!r}; known are {', '.join(known)}") from None
    if isinstance(found, seqio.Task):
        return {name: 1.0}
    return {task.name: found.get_rate(task) for task in found.tasks}
