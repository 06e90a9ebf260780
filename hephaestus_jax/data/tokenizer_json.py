"""Vocabularies from Hugging Face `tokenizer.json` files with a BPE model: Llama 3, Qwen, Mistral, Gemma, OLMo, SmolLM.

Two kinds are known: byte-level BPE, and BPE over characters with white space as U+2581 and byte fallback, as converted
from SentencePiece. Plain text goes through a copy of the tokenizer that has never heard of the control tokens: they
are cut out of the JSON, so no text can spell its way to one. The post-processor is not used (templates place BOS and
EOS), truncation and padding are off.

A normalizer (Qwen's NFC, say) makes `decode(encode(s))` the normalized text; `spells` tells where that matters.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from hephaestus_jax.data import tiktoken_files
from hephaestus_jax.data.vocabularies import IMAGE_TOKENS, WELL_KNOWN, Vocabulary, is_marker, single_threaded
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Json

_SPACE = "\u2581"  # SentencePiece's sign for a space
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def read_tokenizer_json(path: str, content: bytes) -> dict[str, Json]:
    """The JSON object of a `tokenizer.json`, or what a tekken or tiktoken file is as one.

    Raises:
        UserError: the file is damaged or of another kind.
    """
    if not content.lstrip().startswith(b"{"):
        return tiktoken_files.llama3_tokenizer_json(path)
    try:
        spec = json.loads(content)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); fetch the tokenizer again") from error
    return tiktoken_files.tekken_tokenizer_json(path, spec) if "config" in spec and "vocab" in spec else spec


class TokenizerJsonVocabulary(Vocabulary):
    """A vocabulary over a `tokenizer.json`, a tekken file or Llama 3's tiktoken file."""

    def __init__(self, path: str, content: bytes) -> None:
        """Builds the plain encoder.

        Args:
            path: the file; its neighbours `tokenizer_config.json` and `special_tokens_map.json` name BOS, EOS and pad.
            content: the bytes of the file.

        Raises:
            UserError: the tokenizer is of a kind that is not supported, or damaged.
        """
        single_threaded()
        spec = read_tokenizer_json(path, content)
        try:
            self._byte_level = _check_kind(path, spec)
            spec = _of_text(spec)
            names = _special_names(Path(path).parent, spec)
            controls = _controls(spec["added_tokens"], {name for name in names.values() if name})
            pieces = self._piece_bytes(spec, controls)
            special = _special_ids(path, names, controls)
            self._plain = _tokenizer(path, _plain_spec(spec, controls))
            continued = _without_first_prefix(spec)
            self._continued = _tokenizer(path, _plain_spec(continued, controls)) if continued else self._plain
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(f"{path} is no whole tokenizer.json (at {error!r}); fetch the tokenizer again") from error
        super().__init__(path, pieces, controls, special, content)
        self.swallowing = frozenset(t["content"] for t in spec["added_tokens"] if t.get("lstrip") or t.get("rstrip"))
        self.dummy_prefix = self._plain_bytes("a") == 2
        self.prefix_after_control = self.dummy_prefix and self._continued is self._plain
        normalizers = {part["type"] for part in _components(spec.get("normalizer"))}
        self._normalizes = bool(normalizers)
        self._ascii_stays = self._byte_level and normalizers <= {"Sequence", "NFC", "NFD", "NFKC", "NFKD", "ByteLevel"}

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself, without control tokens."""
        return self._plain

    def _piece_bytes(self, spec: Mapping[str, Json], controls: Mapping[str, int]) -> list[bytes]:
        added = {token["id"]: token["content"] for token in spec["added_tokens"]}
        vocab = {i: piece for piece, i in spec["model"]["vocab"].items()}
        pieces = [b""] * (max([*added, *vocab]) + 1)
        alphabet = {char: byte for byte, char in enumerate(tiktoken_files.byte_alphabet())}
        for i, piece in vocab.items():
            if self._byte_level and all(char in alphabet for char in piece):
                pieces[i] = bytes([alphabet[char] for char in piece])
            elif not self._byte_level and (byte := _BYTE_PIECE.fullmatch(piece)):
                pieces[i] = bytes([int(byte[1], 16)])
            else:
                pieces[i] = piece.replace(_SPACE, " ").encode()
        for i, text in added.items():
            plain = text if self._byte_level or text in controls else text.replace(_SPACE, " ")
            pieces[i] = plain.encode()
        return pieces

    def _plain_bytes(self, text: str) -> int:
        return int(self.token_bytes[self._plain.encode(text, add_special_tokens=False).ids].sum())

    def _encode_flat(self, texts: Sequence[str], after_control: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
        if self._continued is self._plain or not any(after_control):
            return _encode(self._plain, texts)
        # one call for each encoder, then back into the order of the texts
        after = np.array(after_control, bool)
        parts: list[np.ndarray] = [np.empty(0, np.int32)] * len(texts)
        for encoder, chosen in ((self._plain, np.flatnonzero(~after)), (self._continued, np.flatnonzero(after))):
            ids, counts = _encode(encoder, [texts[i] for i in chosen])
            for i, part in zip(chosen, np.split(ids, np.cumsum(counts)[:-1]) if len(chosen) else [], strict=True):
                parts[i] = part
        counts_N = np.array([len(part) for part in parts], np.int64)
        return np.concatenate(parts), counts_N

    def offsets(self, text: str, after_control: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """First and last (exclusive) character of `text` that each of its tokens stands for: two int64 arrays [T]."""
        encoder = self._continued if after_control else self._plain
        pairs = np.array(encoder.encode(text, add_special_tokens=False).offsets, np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def spells(self, text: str) -> bool:
        """Whether the tokens of `text` stand for exactly its bytes, in order, but for a dummy prefix."""
        if self._ascii_stays and text.isascii():
            return True
        if not self._byte_level and _SPACE in text:
            return False
        if not self._normalizes:
            return True
        return self._plain.normalizer.normalize_str(text).replace(_SPACE, " ") in (text, " " + text)


def _encode(encoder: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    encodings = encoder.encode_batch_fast(texts, add_special_tokens=False)  # "fast" leaves the offsets out
    counts_N = np.fromiter(map(len, encodings), np.int64, len(encodings))
    ids = itertools.chain.from_iterable(encoding.ids for encoding in encodings)
    return np.fromiter(ids, np.int32, int(counts_N.sum())), counts_N


def _tokenizer(path: str, spec: Mapping[str, Json]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # `tokenizers` raises plain Exception
        raise UserError(f"{path} cannot be read ({error}); fetch the tokenizer again") from error


def _check_kind(path: str, spec: Mapping[str, Json]) -> bool:
    """Whether the tokenizer is byte-level BPE, else it is BPE with byte fallback."""
    model = spec.get("model")
    if not isinstance(model, dict) or "added_tokens" not in spec:
        raise UserError(f"{path} is no tokenizer.json: it has no model or added_tokens")
    if model.get("type", "BPE") != "BPE":
        raise UserError(f"{path} holds a {model['type']} model; only BPE is supported, as Llama, Qwen and Mistral have")
    if any(part["type"] == "ByteLevel" for part in _components(spec.get("pre_tokenizer"), spec.get("normalizer"))):
        return True
    if model.get("byte_fallback") and any(part["type"] == "ByteFallback" for part in _components(spec.get("decoder"))):
        return False
    raise UserError(f"{path} is neither byte-level nor has byte fallback, so it cannot spell every text; use another")


def _of_text(spec: dict[str, Json]) -> dict[str, Json]:
    """The tokenizer without image tokens after its last id of text."""
    added = [token for token in spec["added_tokens"] if token["content"] not in IMAGE_TOKENS]
    text_ids = [*spec["model"]["vocab"].values(), *(token["id"] for token in added)]
    behind = [t for t in spec["added_tokens"] if t["content"] in IMAGE_TOKENS and t["id"] > max(text_ids, default=-1)]
    return {**spec, "added_tokens": [token for token in spec["added_tokens"] if token not in behind]}


def _components(*roots: Json) -> Iterator[dict[str, Json]]:
    """Pre-tokenizers, normalizers or decoders with those nested in sequences."""
    for root in roots:
        if isinstance(root, dict):
            yield root
            for key in ("pretokenizers", "normalizers", "decoders"):
                yield from _components(*root.get(key, ()))


def _controls(added: Sequence[Mapping[str, Json]], named: set[str]) -> dict[str, int]:
    return {
        token["content"]: token["id"]
        for token in added
        if token.get("special") or token["content"] in named or is_marker(token["content"])
    }


def _plain_spec(spec: Mapping[str, Json], controls: Mapping[str, int]) -> dict[str, Json]:
    """The tokenizer without its control tokens, post-processor, truncation and padding."""
    model = dict(spec["model"])
    unknown = model.get("unk_token")
    kept = [token for token in spec["added_tokens"] if token["content"] not in controls]
    # On loading, an added token gets the next free id whatever the file says, unless the model's vocabulary has it.
    numbered = {token["content"]: token["id"] for token in kept}
    vocab = {piece: i for piece, i in model["vocab"].items() if piece not in controls or piece == unknown}
    model["vocab"] = {**numbered, **vocab}
    if len(vocab) < len(spec["model"]["vocab"]):
        pairs = (tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"])
        model["merges"] = [p for p in pairs if not {p[0], p[1], p[0] + p[1]} & (controls.keys() - {unknown})]
    return {
        **spec,
        "added_tokens": kept,
        "model": model,
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }


def _without_first_prefix(spec: Mapping[str, Json]) -> dict[str, Json] | None:
    """The tokenizer as it treats text after a control token, None if that is no different.

    With the prefix scheme "first" only the text that opens the whole input gets a space before it.
    """
    pre_tokenizer = json.loads(json.dumps(spec.get("pre_tokenizer")))
    first = [part for part in _components(pre_tokenizer) if part.get("prepend_scheme") == "first"]
    for part in first:
        part["prepend_scheme"] = "never"
    return {**spec, "pre_tokenizer": pre_tokenizer} if first else None


def _special_names(folder: Path, spec: Mapping[str, Json]) -> dict[str, str | None]:
    """Spellings of BOS, EOS and padding; None where a file says there is none, absent where nothing is said."""
    names: dict[str, str | None] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the latter has the last word
        if (folder / file).is_file():
            try:
                settings = json.loads((folder / file).read_text("utf-8"))
            except ValueError as error:
                raise UserError(f"{folder / file} is damaged ({error}); fetch the tokenizer again") from error
            for key in WELL_KNOWN:
                if f"{key}_token" in settings:
                    value = settings[f"{key}_token"]
                    names[key] = value["content"] if isinstance(value, dict) else value
    return {**_post_processor_names(spec.get("post_processor")), **names}


def _post_processor_names(processor: Json) -> dict[str, str | None]:
    names: dict[str, str | None] = {}
    for part in (processor, *(processor or {}).get("processors", ())):
        if part and part["type"] == "TemplateProcessing":
            tokens = [item["SpecialToken"]["id"] if "SpecialToken" in item else "" for item in part["single"]]
            names |= {"bos": tokens[0]} if tokens[0] else {}
            names |= {"eos": tokens[-1]} if tokens[-1] else {}
    return names


def _special_ids(path: str, names: Mapping[str, str | None], controls: Mapping[str, int]) -> dict[str, int | None]:
    ids: dict[str, int | None] = {}
    for key, candidates in WELL_KNOWN.items():
        name = names.get(key, next((name for name in candidates if name in controls), None))
        if name and name not in controls:
            raise UserError(f"the files beside {path} name {key}_token {name}, which is none of its added tokens")
        ids[key] = controls[name] if name else None
    return ids
