"""seqio Tasks over records: a data source, a preprocessor, and the functions that register them.

A Task made here yields `targets` (int32 token ids) and `loss_weights` (float32), with `record_id` beside them. seqio
runs the preprocessor one example at a time; the cache builder does not: it takes `record_source` and the renderer from
the Task and tokenises in batches, which gives the same tokens several times faster.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf

from data_tasks.settings import current
from data_tasks.vocabularies import HephaestusVocabulary
from hephaestus_jax.data.task import CorpusSource, RecordSource, Rejected, RenderedTask
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import SPLITS, Identified, from_json, identify, to_json
from hephaestus_jax.formats.row_files import SUFFIXES
from hephaestus_jax.formats.spans import Renderer
from hephaestus_jax.formats.user_data import UserDataSource

OpenSource = Callable[[str], RecordSource]  # split → records


class RecordDataSource(seqio.DataSource):
    """Records of a corpus, or of a user's own directory, as a seqio data source."""

    def __init__(self, open_source: OpenSource, splits: Sequence[str]) -> None:
        super().__init__(splits=splits)
        self.record_source = open_source

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """Any number of shards: records are numbered, a shard is a range of numbers."""
        return True

    def list_shards(self, split: str) -> Sequence[str]:
        """One nominal shard per split."""
        return [split]

    def num_input_examples(self, split: str) -> int:
        """Number of records of a split."""
        return self.record_source(split).count()

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
    ) -> tf.data.Dataset:
        """Records as JSON strings, in order; seqio shuffles downstream."""
        source = self.record_source(split)
        count, index, shards = source.count(), 0, 1
        if shard_info is not None:
            index, shards = shard_info.index, shard_info.num_shards
        start, stop = count * index // shards, count * (index + 1) // shards

        def encoded() -> object:
            for identifier, record in source.read(start, stop):
                yield {"record": json.dumps(to_json(record)), "record_id": identifier}

        signature = {name: tf.TensorSpec((), tf.string) for name in ("record", "record_id")}
        return tf.data.Dataset.from_generator(encoded, output_signature=signature)


@dataclass(frozen=True)
class RenderAndTokenize:
    """seqio preprocessor: record JSON → `targets` and `loss_weights`. Records that cannot be rendered are left out."""

    renderer: Renderer | None  # None: the renderer of the settings in force
    vocabulary: str | None  # None: the vocabulary of the settings in force

    def rendered_task(self, name: str, split: str, source: RecordSource) -> RenderedTask:
        """The same tokens, in batches and without TensorFlow."""
        renderer = self.renderer or current().renderer
        return RenderedTask(name, split, source, renderer, self.vocabulary or current().need_vocabulary())

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Maps and filters `dataset`."""
        signature = (tf.int32, tf.float32, tf.bool)

        def tokenized(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            targets, weights, kept = tf.numpy_function(self._tokenize_one, [example["record"]], signature)
            targets.set_shape([None])
            weights.set_shape([None])
            kept.set_shape([])
            return {"targets": targets, "loss_weights": weights, "record_id": example["record_id"], "kept": kept}

        def without_flag(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {name: value for name, value in example.items() if name != "kept"}

        return dataset.map(tokenized).filter(lambda example: example["kept"]).map(without_flag)

    def _tokenize_one(self, encoded: bytes) -> tuple[np.ndarray, np.ndarray, np.bool_]:
        one = self.rendered_task("", "", _Single(identify(from_json(json.loads(encoded)))))
        (result,) = one.read(0, 1)
        if isinstance(result, Rejected):
            return np.zeros(0, np.int32), np.zeros(0, np.float32), np.bool_(False)
        return result.tokens_T, result.weights_T, np.bool_(True)


@dataclass(frozen=True)
class _Single:
    record: Identified

    def fingerprint(self) -> str:
        return self.record.id

    def count(self) -> int:
        return 1

    def read(self, start: int, stop: int) -> Iterator[Identified]:
        return iter([self.record][start:stop])


def add_record_task(
    name: str,
    open_source: OpenSource,
    splits: Sequence[str] = SPLITS,
    renderer: Renderer | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
) -> seqio.Task:
    """Registers a seqio Task over records.

    Args:
        name: the name that `seqio.get_mixture_or_task` knows it by.
        open_source: split → numbered records.
        splits: the splits that `open_source` can open.
        renderer: how a record becomes text; by default that of the settings in force.
        vocabulary: path of the vocabulary; by default that of the settings in force.
    """
    path = None if vocabulary is None else os.fspath(vocabulary)
    return seqio.TaskRegistry.add(
        name,
        source=RecordDataSource(open_source, splits),
        preprocessors=[RenderAndTokenize(renderer, path)],
        output_features={
            "targets": seqio.Feature(HephaestusVocabulary(path), add_eos=False),
            "loss_weights": seqio.Feature(seqio.PassThroughVocabulary(2), add_eos=False, dtype=tf.float32),
        },
    )


def add_corpus_task(name: str, slice_name: str, renderer: Renderer | None = None) -> seqio.Task:
    """Registers a seqio Task over one slice of the corpus that the settings in force name."""

    def open_source(split: str) -> RecordSource:
        return CorpusSource(current().need_corpus(slice_name), slice_name, split)

    return add_record_task(name, open_source, renderer=renderer)


def add_user_task(
    name: str,
    directory: str | os.PathLike[str],
    renderer: Renderer | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
) -> seqio.Task:
    """Registers a seqio Task over a directory of JSONL or Parquet with `text`, `messages` or ADP trajectories.

    With sub-folders `train/` and, if there is one, `validation/`, these are the splits; else all of it is `train`.

    Raises:
        UserError: the directory does not exist, or holds data in a split's folder and outside of one.
    """
    directories = _split_folders(Path(directory))
    return add_record_task(
        name,
        functools.cache(lambda split: UserDataSource(directories[split])),  # its index of the files is made once
        tuple(directories),
        renderer,
        vocabulary,
    )


def _split_folders(directory: Path) -> dict[str, Path]:
    """Where each split of a user's data lies. What is in no split would be lost, or training would see validation."""
    if not directory.exists():
        raise UserError(f"no data at {directory}: give a directory of .jsonl or .parquet files")
    folders = {split: directory / split for split in SPLITS if (directory / split).is_dir()}
    if not folders:
        return {"train": directory}
    visible = (path.relative_to(directory) for path in directory.rglob("*") if path.name.endswith(SUFFIXES))
    outside = sorted(path for path in visible if path.parts[0] not in folders and not path.parts[0].startswith("."))
    if outside or "train" not in folders:
        problem = f"{outside[0]} is in neither" if outside else "there is no train/"
        raise UserError(
            f"{directory} has {' and '.join(f'{split}/' for split in folders)}, but {problem}; put every file"
            " into train/ or validation/, or elsewhere"
        )
    return folders
