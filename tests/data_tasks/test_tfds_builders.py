"""`tfds.load` works on the corpus, splits included."""

import json
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

import data_tasks
import data_tasks.tfds_builders
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import SLICES, Document, Provenance, from_json
from hephaestus_jax.formats.store import Corpus, write_corpus


@pytest.mark.parametrize("name", SLICES)
def test_tfds_load_gives_every_record_of_every_split(name: str, corpus: Path, tmp_path: Path) -> None:
    data_tasks.configure(corpus=corpus, environments=corpus)
    loaded, info = tfds.load(f"hephaestus_corpus/{name}", data_dir=tmp_path, with_info=True)
    assert {split: info.splits[split].num_examples for split in loaded} == {"train": 400, "validation": 20}
    found = {row["id"].decode(): row for row in tfds.as_numpy(loaded["validation"])}
    expected = dict(Corpus(corpus).read(name, "validation"))
    assert found.keys() == expected.keys()
    for identifier, row in found.items():
        assert from_json(json.loads(row["record"])) == expected[identifier]
        assert row["licence"] == b"MIT" and row["text"]


def test_a_dataset_prepared_from_another_corpus_is_refused(corpus: Path, tmp_path: Path) -> None:
    data_tasks.configure(corpus=corpus, environments=corpus)
    tfds.load("hephaestus_corpus/text", data_dir=tmp_path)
    other = tmp_path / "other"
    write_corpus(other, {("text", "train"): [Document("x", "text", Provenance("a", "1", "MIT"))]}, {})
    with pytest.raises(UserError, match="prepared from another corpus"):
        tfds.load("hephaestus_corpus/text", data_dir=tmp_path, builder_kwargs={"corpus": str(other)})
