"""Our vocabularies as seqio knows vocabularies."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import seqio
import tensorflow as tf

from data_tasks.settings import current
from hephaestus_jax.data.vocabularies import Vocabulary, load_vocabulary


class HephaestusVocabulary(seqio.Vocabulary):
    """A vocabulary of `hephaestus_jax.data.vocabularies`, loaded when it is first used.

    Text never yields control ids. seqio itself takes id 0 for padding, and where the family names no padding token this
    vocabulary has to say so too, though id 0 may be a real token ("!" in Llama 3). Our caches never rely on it: they
    are packed by explicit lengths. seqio's own padding and packing lose real tokens with such vocabularies.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Remembers the path.

        Args:
            path: what `load_vocabulary` takes; by default the vocabulary of the settings in force.
        """
        super().__init__()
        self._path = None if path is None else os.fspath(path)

    @property
    def path(self) -> str:
        """The file or directory."""
        return self._path if self._path is not None else current().need_vocabulary()

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary itself."""
        return load_vocabulary(self.path)

    @property
    def bos_id(self) -> int | None:
        """Beginning of text, None if the family has none."""
        return self.vocabulary.bos_id

    @property
    def eos_id(self) -> int | None:
        """End of text, None if the family has none."""
        return self.vocabulary.eos_id

    @property
    def pad_id(self) -> int:
        """The family's padding token, else 0, which may be a real token."""
        return self.vocabulary.pad_id or 0

    @property
    def unk_id(self) -> int | None:
        """None: every text can be spelt."""
        return None

    @property
    def _base_vocab_size(self) -> int:
        return self.vocabulary.size

    def _encode(self, s: str) -> list[int]:
        return self.vocabulary.encode(s).tolist()

    def _decode(self, ids: Iterable[int]) -> str:
        return self.vocabulary.decode(list(ids))

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: bytes | np.ndarray) -> np.ndarray:  # bytes in a graph, an array when eager
            return self.vocabulary.encode(np.asarray(text, object).item().decode())

        ids = tf.numpy_function(encode, [s], tf.int32)
        ids.set_shape([None])
        return ids

    def decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        """Text of a batch of ids, each row up to and with its first end of text; what `decode` does for one row."""
        return self._decode_tf(ids)  # seqio's own would put `pad_id` behind it, which may be a real token

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(array: np.ndarray) -> np.ndarray:
            rows = array.reshape(int(np.prod(array.shape[:-1])), array.shape[-1])
            texts = [self.decode(row.tolist()).encode() for row in rows]
            return np.array(texts, object).reshape(array.shape[:-1])

        texts = tf.numpy_function(decode, [ids], tf.string)
        texts.set_shape(ids.shape[:-1])
        return texts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HephaestusVocabulary) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self._path)

    def __str__(self) -> str:
        return f"HephaestusVocabulary({self.path!r})"
