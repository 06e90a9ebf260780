"""Tiktoken-style rank files as `tokenizer.json`: Llama 3's `tokenizer.model` and Mistral's `tekken.json`.

Such a file lists byte sequences by rank; merging always takes the adjacent pair whose union ranks lowest. Hugging
Face's BPE wants the pairs themselves, so every split of every sequence into two listed ones becomes a merge, in the
order of ranks.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Json

# Facts of the Llama 3 tokenizer as `llama-models` states them: split pattern and the order of its 256 control tokens.
_LLAMA3_RANKS = 128_000
_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_LLAMA3_NAMED = (
    "begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1", "finetune_right_pad_id",
    "step_id", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag", "image",
)  # fmt: skip
_LLAMA3_CONTROLS = tuple(f"<|{name}|>" for name in _LLAMA3_NAMED) + tuple(
    f"<|reserved_special_token_{i + 2}|>" for i in range(256 - len(_LLAMA3_NAMED))
)
# The control tokens of tekken files that do not list their own.
_TEKKEN_CONTROLS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip


@functools.lru_cache(maxsize=1)
def byte_alphabet() -> tuple[str, ...]:
    """The character that stands for each of the 256 bytes in byte-level BPE (GPT-2's table).

    Printable Latin-1 characters stand for themselves, the others for U+0100 onwards.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(spare)) for byte in range(256))


def llama3_tokenizer_json(path: str | Path) -> dict[str, Json]:
    """Llama 3's tiktoken `tokenizer.model` as the JSON object of a `tokenizer.json`.

    Raises:
        UserError: the file is damaged, or its ranks are not those of Llama 3.
    """
    ranks: dict[bytes, int] = {}
    try:
        for line in Path(path).read_bytes().splitlines():
            if line:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error) as error:
        raise UserError(f"{path} is damaged ({error}); fetch the tokenizer again") from error
    if len(ranks) != _LLAMA3_RANKS or sorted(ranks.values()) != list(range(_LLAMA3_RANKS)):
        raise UserError(
            f"{path} has {len(ranks)} ranks; of tiktoken files only Llama 3's (128,000 ranks) is known, and a truncated"
            " one is refused: fetch it again, or use the model's tokenizer.json"
        )
    controls = {name: _LLAMA3_RANKS + i for i, name in enumerate(_LLAMA3_CONTROLS)}
    return _tokenizer_json(ranks, controls, _LLAMA3_PATTERN, bos="<|begin_of_text|>")


def tekken_tokenizer_json(path: str | Path, tekken: Mapping[str, Json]) -> dict[str, Json]:
    """A Mistral tekken file, parsed, as the JSON object of a `tokenizer.json`.

    Control tokens hold the first ids (1,000 in the published files), ranks follow.

    Raises:
        UserError: fields are missing or the ranks have holes.
    """
    try:
        config = tekken["config"]
        reserved = config["default_num_special_tokens"]
        ranks = {
            base64.b64decode(entry["token_bytes"]): entry["rank"] + reserved
            for entry in tekken["vocab"]
            if entry["rank"] < config["default_vocab_size"] - reserved
        }
        listed = tekken.get("special_tokens")
        listed = sorted(listed, key=lambda entry: entry["rank"]) if listed else ()
        names = tuple(entry["token_str"] for entry in listed) or _TEKKEN_CONTROLS
        pattern = config["pattern"]
    except (KeyError, TypeError, binascii.Error) as error:
        raise UserError(f"{path} is no whole tekken file (at {error}); fetch the tokenizer again") from error
    if sorted(ranks.values()) != list(range(reserved, config["default_vocab_size"])):
        raise UserError(f"{path} lacks some of its ranks; fetch the tokenizer again")
    names += tuple(f"<SPECIAL_{i}>" for i in range(len(names), reserved))
    return _tokenizer_json(ranks, {name: i for i, name in enumerate(names)}, pattern, bos="<s>")


def save_tokenizer_json(spec: Mapping[str, Json], path: str | Path) -> None:
    """Writes the JSON object of a `tokenizer.json` as `tokenizers` and `transformers` read it."""
    Path(path).write_text(json.dumps(spec, ensure_ascii=False), "utf-8")


def _tokenizer_json(ranks: Mapping[bytes, int], controls: Mapping[str, int], pattern: str, bos: str) -> dict[str, Json]:
    alphabet = byte_alphabet()
    spelt = {token: "".join([alphabet[byte] for byte in token]) for token in ranks}
    vocab = {spelt[token]: rank for token, rank in ranks.items()}
    # added tokens get the next free ids on loading, unless the model's own vocabulary gives them others
    vocab.update({name: i for name, i in controls.items() if i < len(ranks)})
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    bos_first = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    second = [{**bos_first[0], "SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **flags} for name, i in controls.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": bos_first,
            "pair": [*bos_first, *second],
            "special_tokens": {bos: {"id": bos, "ids": [controls[bos]], "tokens": [bos]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # a word that is listed as a whole is taken as a whole
            "vocab": vocab,
            "merges": [[spelt[left], spelt[right]] for left, right in _merges(ranks)],
        },
    }


def _merges(ranks: Mapping[bytes, int]) -> Sequence[tuple[bytes, bytes]]:
    """Every pair of listed sequences whose union is listed, by the rank of the union."""
    merges: list[tuple[bytes, bytes]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        splits = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [(left, right) for left, right in splits if left in ranks and right in ranks]
        merges += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges
