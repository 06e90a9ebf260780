"""A `tokenizer.json` for a vocabulary that exists as a SentencePiece model only.

`transformers` then gives the ids that `data.sentencepiece_vocabulary` gives, which for other people's models are those
of SentencePiece itself.

Models with identity normalization and without dummy prefix (ours; Gemma's): the pieces are written with real spaces
instead of U+2581. Nothing has to be replaced in a text then, and U+2581 itself falls to its three byte tokens. Other
models (Llama 2, Mistral) keep U+2581, and normalizers do what SentencePiece does: prefix, white space, its table of
characters.

**BPE.** SentencePiece joins the two neighbours whose union has the highest score, the leftmost of several;
`tokenizers` joins the pair of the lowest rank, the leftmost of several. Every pair has a rank of its own, but one union
c comes about from one pair only: as long as nothing was joined across the borders of c, what lies between them develops
as if c stood alone, and that passes through one state of two symbols. So with pairs ranked by the score of their union
both do the same, if no two pieces have one score. Runs of spaces that have (in Llama 2 and Mistral) are compared by
`first_difference`; other models with such pieces are refused.

**Unigram.** Both search the segmentation of the highest sum of scores: SentencePiece in 32-bit, `tokenizers` in 64-bit
floats. Where two segmentations score within rounding of each other the ids can differ, though never the text they
stand for: in runs of one character, and the more often the longer the text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.data.vocabularies import Vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Json

_SPACE = "\u2581"
_AWKWARD = (
    *("", " ", "  ", "\n", "\r\n\r\n \t a", " a  b ", "\u2581", "a\u2581 \u2581\u2581b \u2581", "a\x00b\x01\x7f\x85"),
    *("e\u0301 \u00e9 \ufb01 \u212b \uff21\u3000\u00a0", "\U0001f468\u200d\U0001f469 \u4e16", "<0x41> <s> <unk>"),
)  # fmt: skip
_MODEL_TYPES = {1: "Unigram", 2: "BPE"}  # of sentencepiece_model.proto


def tokenizer_json(vocabulary: Vocabulary, add_bos: bool = True, add_eos: bool = False) -> dict[str, Json]:
    """The JSON object of a `tokenizer.json` for a SentencePiece vocabulary.

    Args:
        vocabulary: what `load_vocabulary` gives for the path of a SentencePiece model.
        add_bos: whether `transformers` puts beginning-of-text before what it encodes, as the tokenizers of Llama do,
            unless told not to. Chat templates write it themselves and are encoded without.
        add_eos: likewise, end-of-text behind it.

    Raises:
        UserError: it is no SentencePiece vocabulary, or one that a `tokenizer.json` cannot express.
    """
    pieces = _read(vocabulary)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": pieces.added_tokens(),
        "normalizer": pieces.normalizer,
        "pre_tokenizer": None,
        "post_processor": _post_processor(vocabulary, add_bos, add_eos),
        "decoder": pieces.decoder(),
        "model": _bpe(pieces) if pieces.model_type == "BPE" else _unigram(pieces),
    }


def first_difference(vocabulary: Vocabulary, spec: Mapping[str, Json], texts: Sequence[str] = ()) -> str:
    """Compares the ids of a `tokenizer_json` with the vocabulary's own: of every piece, of runs of it, and of `texts`.

    Returns:
        The first difference in words; empty if there is none.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.encode_special_tokens = True  # control tokens that a text spells stay text
    probes = [*dict.fromkeys(_probes(vocabulary)), *texts]
    encodings = tokenizer.encode_batch_fast(probes, add_special_tokens=False)
    for text, expected, encoding in zip(probes, vocabulary.encode_batch(probes), encodings, strict=True):
        if expected.tolist() != encoding.ids:
            return f"{text[:40]!a} has the ids {expected.tolist()[:20]} and gets {encoding.ids[:20]}"
    return ""


def _probes(vocabulary: Vocabulary) -> Iterator[str]:
    yield from _AWKWARD
    for piece, is_control in zip(vocabulary.pieces(range(vocabulary.size)), vocabulary.is_control, strict=True):
        text = piece.decode("utf-8", "ignore")
        if text and not is_control:
            yield f"{text} a{text}{text}\n{text}{text}{text}b"
            if len(text) > 1 and len(set(text)) == 1:
                yield "b\n".join(text[0] * length for length in range(1, 4 * len(text)))
                yield "(".join(text[0] * length + "a" for length in range(1, 4 * len(text)))


@dataclass(frozen=True)
class _Pieces:
    """A SentencePiece model in the spelling that the JSON has.

    Attributes:
        path: the file.
        model_type: "BPE" or "Unigram".
        exact: whether spaces are spaces, and not U+2581.
        dummy_prefix: whether a text gets a space before it.
        normalizer: what is done to a text.
        spellings: of every id.
        normal: scores of the learned pieces.
        controls: ids of control tokens; true for those that no text yields in SentencePiece either, false for marks
            that are user-defined there: `transformers` finds them in every text, as SentencePiece does.
        defined: ids of pieces that are found in text before anything else.
        unknown: id of the unknown token.
    """

    path: str
    model_type: str
    exact: bool
    dummy_prefix: bool
    normalizer: Json
    spellings: tuple[str, ...]
    normal: Mapping[str, float]
    controls: Mapping[int, bool]
    defined: tuple[int, ...]
    unknown: int

    def refuse(self, reason: str) -> UserError:
        """What is raised where a model cannot be expressed."""
        return UserError(f"{self.path} has no tokenizer.json of the same ids: {reason}; get the model's own")

    def added_tokens(self) -> list[Json]:
        """Control tokens, and the pieces that are found before anything else."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        special = {**self.controls, **dict.fromkeys(self.defined, False)}
        return [{"id": i, "content": self.spellings[i], **flags, "special": special[i]} for i in sorted(special)]

    def decoder(self) -> Json:
        """From pieces to text."""
        steps: list[Json] = [{"type": "ByteFallback"}, {"type": "Fuse"}]
        if not self.exact:
            steps.insert(0, {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "})
        if self.dummy_prefix:
            steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return {"type": "Sequence", "decoders": steps}


def _read(vocabulary: Vocabulary) -> _Pieces:
    from sentencepiece import sentencepiece_model_pb2

    from hephaestus_jax.data.sentencepiece_vocabulary import SentencePieceVocabulary

    if not isinstance(vocabulary, SentencePieceVocabulary):
        raise UserError(f"{vocabulary.path} is no SentencePiece model; a tokenizer.json is made of those only")
    kind_of_model: Any = vars(sentencepiece_model_pb2)["ModelProto"]  # generated at import
    proto, kinds = kind_of_model.FromString(Path(vocabulary.path).read_bytes()), kind_of_model.SentencePiece
    rules = proto.normalizer_spec
    exact = not (rules.precompiled_charsmap or rules.remove_extra_whitespaces or rules.add_dummy_prefix)
    controls = set(vocabulary.control_ids.values())
    spaces = [exact and i not in controls and p.type != kinds.BYTE for i, p in enumerate(proto.pieces)]
    spellings = [
        p.piece.replace(_SPACE, " ") if has_spaces else p.piece
        for p, has_spaces in zip(proto.pieces, spaces, strict=True)
    ]
    pieces = _Pieces(
        path=vocabulary.path,
        model_type=_MODEL_TYPES.get(proto.trainer_spec.model_type, ""),
        exact=exact,
        dummy_prefix=rules.add_dummy_prefix,
        normalizer=_normalizer(rules),
        spellings=tuple(spellings),
        normal={s: p.score for s, p in zip(spellings, proto.pieces, strict=True) if p.type == kinds.NORMAL},
        controls={i: proto.pieces[i].type != kinds.USER_DEFINED for i in sorted(controls)},
        defined=tuple(i for i, p in enumerate(proto.pieces) if p.type == kinds.USER_DEFINED and i not in controls),
        unknown=next(i for i, p in enumerate(proto.pieces) if p.type == kinds.UNKNOWN),
    )
    if any(p.type == kinds.UNUSED for p in proto.pieces):
        raise pieces.refuse("some of its pieces are out of use")
    if proto.trainer_spec.treat_whitespace_as_suffix or not rules.escape_whitespaces:
        raise pieces.refuse("it writes spaces behind words, or unescaped")
    _check(pieces)
    return pieces


def _check(pieces: _Pieces) -> None:
    """Raises where other code relies on what a model could lack."""
    if not pieces.model_type:
        raise pieces.refuse("it is a model of words or of characters")
    if pieces.exact and " " not in pieces.normal:
        raise pieces.refuse("a space is no piece of it")
    if len(set(pieces.spellings)) < len(pieces.spellings):
        raise pieces.refuse("two of its pieces differ only in the sign for a space")
    if pieces.defined and (pieces.model_type == "Unigram" or not pieces.exact):
        raise pieces.refuse(f"piece {pieces.spellings[pieces.defined[0]]!r} is user-defined plain text")


def _normalizer(rules: Any) -> Json:
    """What SentencePiece does to a text before it looks for pieces; None if nothing has to be done."""
    steps: list[Json] = []
    if rules.precompiled_charsmap:
        table = base64.b64encode(rules.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": table})
    if rules.remove_extra_whitespaces:
        steps += [_replace({"Regex": r"\A +"}, ""), _replace({"Regex": " {2,}"}, " ")]
    if steps or rules.add_dummy_prefix:
        steps.append(_replace({"String": " "}, _SPACE))
    if rules.remove_extra_whitespaces:
        steps.append(_replace({"Regex": rf"{_SPACE}+\z"}, ""))
    if rules.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": _SPACE})
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _replace(pattern: Json, content: str) -> Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _post_processor(vocabulary: Vocabulary, add_bos: bool, add_eos: bool) -> Json:
    def marked(sequence: str, type_id: int) -> list[Json]:
        before, behind = ([mark(i, type_id)] if i is not None else [] for i in (bos, eos))
        return [*before, {"Sequence": {"id": sequence, "type_id": type_id}}, *behind]

    def mark(i: int, type_id: int) -> Json:
        return {"SpecialToken": {"id": spelt(i), "type_id": type_id}}

    def spelt(i: int) -> str:
        return vocabulary.pieces([i])[0].decode()

    bos, eos = vocabulary.bos_id if add_bos else None, vocabulary.eos_id if add_eos else None
    ids = [i for i in (bos, eos) if i is not None]
    if not ids:
        return None
    tokens = {spelt(i): {"id": spelt(i), "ids": [i], "tokens": [spelt(i)]} for i in ids}
    single = marked("A", 0)
    return {"type": "TemplateProcessing", "single": single, "pair": single + marked("B", 1), "special_tokens": tokens}


def _bpe(pieces: _Pieces) -> dict[str, Json]:
    letters = {spelling for spelling in pieces.spellings if len(spelling) == 1}
    if hidden := next((s for i in pieces.controls if (s := pieces.spellings[i]) in letters), ""):
        raise pieces.refuse(f"control token {hidden!r} is a single character")
    merges = _merges(pieces.normal)
    if unspelt := next((s for s in pieces.normal if not letters.issuperset(s)), ""):
        raise pieces.refuse(f"a character of piece {unspelt!r} is no piece itself")
    if tied := _tied([left + right for left, right in merges], pieces.normal):
        raise pieces.refuse(f"its pieces {tied[0]!r} and {tied[1]!r} have one score")
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces.spellings[pieces.unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": {spelling: i for i, spelling in enumerate(pieces.spellings)},
        "merges": [list(pair) for pair in merges],
    }


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """All pairs of pieces whose union is a piece, in the order in which SentencePiece prefers them."""
    merges: list[tuple[str, str]] = []
    for piece in sorted(scores, key=scores.__getitem__, reverse=True):
        splits = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        merges += [pair for pair in splits if pair[0] in scores and pair[1] in scores]
    return merges


def _tied(joined: Sequence[str], scores: Mapping[str, float]) -> tuple[str, ...]:
    """Two pieces of one score that are not both runs of one character; empty if there are none."""
    seen: dict[float, str] = {}
    for piece in joined:
        other = seen.setdefault(scores[piece], piece)
        if other != piece and len({*piece, *other}) > 1:
            return other, piece
    return ()


def _unigram(pieces: _Pieces) -> dict[str, Json]:
    least = min(pieces.normal.values())
    entries: list[Json] = []
    for spelling in pieces.spellings:
        score = pieces.normal.get(spelling)
        if score is None:
            # `tokenizers` looks for control and byte tokens in plain text like for any other piece: they must score
            # less than their characters one by one
            if not all(character in pieces.normal for character in spelling):
                raise pieces.refuse(f"not every character of {spelling!r} is a piece")
            score = (len(spelling) + 1) * min(least, -1.0)
        entries.append([spelling, score])
    return {"type": "Unigram", "unk_id": pieces.unknown, "vocab": entries, "byte_fallback": True}
