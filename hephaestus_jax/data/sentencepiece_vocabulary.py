"""Vocabularies from SentencePiece models with byte fallback: our own (`data.sentencepiece_training`) and foreign ones.

SentencePiece writes a space as U+2581 and reads every U+2581 back as a space. So that U+2581 itself survives, models
with identity normalization and without dummy prefix (ours; Gemma's) get it as its three byte tokens, cut out of the
text before SentencePiece sees it: there `decode(encode(s)) == s` for every valid Unicode string. Models with a dummy
prefix (Llama 2, Mistral) are used exactly as their makers do, U+2581 read back as a space included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from hephaestus_jax.data.vocabularies import Vocabulary, is_marker
from hephaestus_jax.errors import UserError

_SPACE = "\u2581"
_MODEL: Any = vars(sentencepiece_model_pb2)["ModelProto"]  # generated at import, so type checkers do not see it


class SentencePieceVocabulary(Vocabulary):
    """A vocabulary over the bytes of a SentencePiece model."""

    def __init__(self, path: str, content: bytes) -> None:
        """Loads the model.

        Raises:
            UserError: the model is damaged, of another kind, or has no byte fallback.
        """
        proto, types = _parse(path, content), _MODEL.SentencePiece
        controls: dict[str, int] = {}
        pieces: list[bytes] = []
        for i, piece in enumerate(proto.pieces):
            marker = piece.type == types.USER_DEFINED and is_marker(piece.piece)
            if marker or piece.type in (types.CONTROL, types.UNKNOWN):
                # a user-defined piece would be found in plain text, a control piece never is
                piece.type = types.CONTROL if marker else piece.type
                controls[piece.piece] = i
                pieces.append(piece.piece.encode())
            elif piece.type == types.BYTE:
                pieces.append(bytes([int(piece.piece[3:5], 16)]))
            else:
                pieces.append(piece.piece.replace(_SPACE, " ").encode())
        self._byte_ids = {pieces[i]: i for i, piece in enumerate(proto.pieces) if piece.type == types.BYTE}
        if len(self._byte_ids) != 256:
            raise UserError(f"{path} has no byte fallback, so it cannot spell every text; train one that has")
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        ids = {key: getattr(self._processor, f"{key}_id")() for key in ("bos", "eos", "pad")}
        super().__init__(path, pieces, controls, {key: i if i >= 0 else None for key, i in ids.items()}, content)
        rules = proto.normalizer_spec
        self.dummy_prefix = self.prefix_after_control = rules.add_dummy_prefix
        self._identity = not rules.precompiled_charsmap and not rules.remove_extra_whitespaces
        self._exact = self._identity and not self.dummy_prefix
        self._space_ids = [self._byte_ids[bytes([byte])] for byte in _SPACE.encode()]

    def _encode_flat(self, texts: Sequence[str], after_control: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
        encoded = self._processor.encode(list(texts), return_type="numpy", num_threads=1)
        if self._exact:
            for i, text in enumerate(texts):
                if _SPACE in text:
                    encoded[i] = self._encode_around_spaces(text)
        counts_N = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return np.concatenate(encoded) if encoded else np.empty(0, np.int32), counts_N

    def _encode_around_spaces(self, text: str) -> np.ndarray:
        """The ids of a text that holds U+2581."""
        ids: list[int] = []
        for part in re.split(f"({_SPACE})", text):
            ids += self._space_ids if part == _SPACE else self._processor.encode(part, num_threads=1)
        return np.array(ids, np.int32)

    def offsets(self, text: str, after_control: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """First and last (exclusive) character of `text` that each of its tokens stands for: two int64 arrays [T]."""
        pairs = np.array(self._processor.encode(text, return_type="offset_mapping")["offsets"], np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def spells(self, text: str) -> bool:
        """Whether the tokens of `text` stand for exactly its bytes, in order, but for a dummy prefix."""
        return self._exact or (self._identity and _SPACE not in text)


def _parse(path: str, content: bytes) -> Any:
    """The parsed model."""
    try:
        # SentencePiece checks more than the parser does, a truncated model for instance
        sentencepiece.SentencePieceProcessor(model_proto=content)
        proto = _MODEL.FromString(content)
        if not proto.pieces:
            raise ValueError("it has no pieces")
        return proto
    except Exception as error:  # of several unrelated types
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} is neither a tokenizer.json nor a whole SentencePiece model ({reason}); fetch or train it again"
        ) from error
