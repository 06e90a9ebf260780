"""Our vocabularies behind seqio's interface."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

seqio = pytest.importorskip("seqio")
import tensorflow as tf  # noqa: E402

import data_tasks  # noqa: E402
from data_tasks.vocabularies import HephaestusVocabulary  # noqa: E402
from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece  # noqa: E402
from hephaestus_jax.errors import UserError  # noqa: E402

TEXTS = ["if x:\n\t  y = 1", "\u2581 é🙂\x00 \x00", "<|eos|> <|eot_id|>", "", " "]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> HephaestusVocabulary:
    texts = Path(seqio.__file__).parent.glob("*.py")
    out = tmp_path_factory.mktemp("seqio_vocabulary")
    train_sentencepiece((p.read_text() for p in texts), out, VocabularyConfig(800, ("<|eot_id|>",), max_bytes=200_000))
    return HephaestusVocabulary(out)


@pytest.mark.parametrize("text", TEXTS)
def test_python_and_tensorflow_agree(adapted: HephaestusVocabulary, text: str) -> None:
    ids = adapted.encode(text)
    assert adapted.decode(ids) == text
    assert adapted.encode_tf(tf.constant(text)).numpy().tolist() == ids
    assert adapted.decode_tf(tf.constant(ids, tf.int32)).numpy().decode() == text
    in_graph = tf.function(adapted.encode_tf)(tf.constant(text))
    assert in_graph.numpy().tolist() == ids


def test_in_a_dataset(adapted: HephaestusVocabulary) -> None:
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS).map(adapted.encode_tf)
    assert dataset.element_spec.shape.as_list() == [None] and dataset.element_spec.dtype == tf.int32
    assert [ids.tolist() for ids in dataset.as_numpy_iterator()] == [adapted.encode(text) for text in TEXTS]
    assert [text.decode() for text in dataset.map(adapted.decode_tf).as_numpy_iterator()] == TEXTS


def test_decoding_ends_with_the_first_end_of_text(adapted: HephaestusVocabulary) -> None:
    ids = [*adapted.encode("ab"), adapted.eos_id, *adapted.encode("cd")]
    assert adapted.decode(ids) == "ab<|eos|>"
    assert adapted.decode_tf(tf.constant([ids, ids])).numpy().tolist() == [b"ab<|eos|>"] * 2


def test_ids_and_sizes(adapted: HephaestusVocabulary) -> None:
    assert (adapted.bos_id, adapted.eos_id, adapted.pad_id, adapted.unk_id) == (1, 2, 3, None)
    assert adapted.vocab_size == adapted.vocabulary.size == 800
    twin = pickle.loads(pickle.dumps(adapted))
    assert twin == adapted and twin.encode("a b") == adapted.encode("a b")
    assert adapted != HephaestusVocabulary("elsewhere") and adapted != seqio.ByteVocabulary()


def test_without_a_path_the_settings_decide(adapted: HephaestusVocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_tasks import settings

    monkeypatch.setattr(settings, "_current", settings.DataSettings())
    lazy = HephaestusVocabulary()
    with pytest.raises(UserError, match="no vocabulary chosen"):
        lazy.encode("a")
    data_tasks.configure(vocabulary=adapted.path)
    assert lazy.encode("a b") == adapted.encode("a b") and lazy == adapted
