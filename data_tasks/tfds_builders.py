"""The corpus as a TensorFlow dataset: `tfds.load("hephaestus_corpus/agent_docs", split="validation")`.

The builder reads the corpus that the settings in force name (`HEPHAESTUS_CORPUS` or `data_tasks.configure`), or the one
given as `builder_kwargs={"corpus": DIR}`. What it prepares remembers the corpus's digest, and a prepared dataset that
was made from another corpus is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from data_tasks.settings import current
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import SLICES, SPLITS, digest, to_json
from hephaestus_jax.formats.store import Corpus


class HephaestusCorpus(tfds.core.GeneratorBasedBuilder):
    """Records of one slice of a corpus, as text, with their provenance."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "API documentation, trajectories, code and text."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"The {name} slice of the corpus.") for name in SLICES
    ]

    def __init__(self, *, corpus: str | None = None, **kwargs: Any) -> None:
        self._corpus_path = corpus
        super().__init__(**kwargs)
        prepared = (self.info.metadata or {}).get("corpus_digest")
        if prepared is not None and self._named_corpus() is not None and prepared != self._digest():
            raise UserError(
                f"{self.data_dir} was prepared from another corpus than {self._named_corpus()};"
                " delete that folder, or pass another data_dir"
            )

    def _named_corpus(self) -> str | None:
        return self._corpus_path or current().corpus_of(self.builder_config.name)

    def _corpus(self) -> Corpus:
        return Corpus(Path(self._corpus_path or current().need_corpus(self.builder_config.name)))

    def _digest(self) -> str:
        return digest([self._corpus().digest(self.builder_config.name, split) for split in SPLITS])

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        return self.dataset_info_from_configs(
            description="Records of a Hephaestus corpus.",
            features=tfds.features.FeaturesDict(
                {
                    "id": text,
                    "record": tfds.features.Text(doc="the record as JSON; formats.records.from_json reads it"),
                    "text": tfds.features.Text(doc="the record as training text, control tokens spelled out"),
                    "source": text,
                    "version": text,
                    "licence": text,
                    "path": text,
                }
            ),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # nothing is downloaded
        self.info.metadata["corpus_digest"] = self._digest()
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        renderer = current().renderer
        for identifier, record in self._corpus().read(self.builder_config.name, split):
            origin = record.provenance
            yield (
                identifier,
                {
                    "id": identifier,
                    "record": json.dumps(to_json(record), ensure_ascii=False),
                    "text": renderer.render(record).text,
                    "source": origin.source,
                    "version": origin.version,
                    "licence": origin.licence,
                    "path": origin.path,
                },
            )
