"""The tokenizer files of a Hugging Face model whose vocabulary is one of ours, and those that a model lacks.

A model that began here gets its vocabulary file as it is, `tokenizer.json`, `tokenizer_config.json`, the chat template
of its family and `generation_config.json`. `transformers` puts beginning-of-text before a text that it encodes, since
every row of training data begins so, and not before the rendering of a conversation, which writes it itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hephaestus_jax.data.vocabularies import Vocabulary, load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import TEMPLATE_FILE, chat_renderer
from hephaestus_jax.formats.records import Json
from hephaestus_jax.hf.chat_templates import chat_template
from hephaestus_jax.hf.config_files import TokenIds, json_bytes

NO_CHAT = "none"
TOKENIZER_JSON, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
GENERATION_CONFIG, SPECIAL_TOKENS = "generation_config.json", "special_tokens_map.json"
_ENDS_OF_TURN = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>")
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class TokenizerFiles:
    """Files by name, and what a user should know of them, a sentence each."""

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def tokenizer_files(vocabulary: Vocabulary, chat: str, max_positions: int) -> TokenizerFiles:
    """The tokenizer files of a model that began here, `generation_config.json` among them.

    Args:
        vocabulary: that the model was trained with.
        chat: the chat family, a name that `formats.chat.chat_renderer` knows, or "none".
        max_positions: that the model was made for.

    Raises:
        UserError: the vocabulary lacks a control token of the family, or something cannot be expressed.
    """
    templates = {} if chat == NO_CHAT else _templates(vocabulary, chat)
    made = _vocabulary_files(vocabulary, max_positions)
    ids = token_ids(vocabulary, chat)
    generation = {"bos_token_id": ids.bos, "eos_token_id": ids.eos, "pad_token_id": ids.pad}
    files = {
        **made.files,
        **{name: text.encode() for name, text in templates.items()},
        GENERATION_CONFIG: json_bytes({name: value for name, value in generation.items() if value is not None}),
    }
    return TokenizerFiles(files, made.notes)


def token_ids(vocabulary: Vocabulary, chat: str) -> TokenIds:
    """Ids that generation begins, ends and pads with; an end of turn ends it too."""
    controls = vocabulary.control_ids
    turns = [] if chat == NO_CHAT else [controls[name] for name in _ENDS_OF_TURN if name in controls]
    ends = list(dict.fromkeys([*([] if vocabulary.eos_id is None else [vocabulary.eos_id]), *turns]))
    eos = tuple(ends) if len(ends) > 1 else (ends[0] if ends else None)
    return TokenIds(vocabulary.bos_id, eos, vocabulary.pad_id)


def missing_tokenizer_json(directory: Path) -> TokenizerFiles:
    """The `tokenizer.json` of a model that comes with a SentencePiece model only; nothing for other models."""
    found = [directory / name for name in _SENTENCEPIECE if (directory / name).is_file()]
    if (directory / TOKENIZER_JSON).exists() or not found:
        return TokenizerFiles({})
    settings = _read_json(directory / TOKENIZER_CONFIG)
    add_bos, add_eos = bool(settings.get("add_bos_token", True)), bool(settings.get("add_eos_token", False))
    try:
        made = _tokenizer_json(load_vocabulary(found[0]), add_bos, add_eos)
    except UserError as error:
        return TokenizerFiles({}, (f"no {TOKENIZER_JSON} was made: {error}",))
    return TokenizerFiles(made.files, (f"{TOKENIZER_JSON} was made from {found[0].name}", *made.notes))


def _tokenizer_json(vocabulary: Vocabulary, add_bos: bool = True, add_eos: bool = False) -> TokenizerFiles:
    from hephaestus_jax.hf.tokenizer_json_from_sentencepiece import first_difference, tokenizer_json

    spec = tokenizer_json(vocabulary, add_bos, add_eos)
    difference = first_difference(vocabulary, spec)
    files = {TOKENIZER_JSON: json.dumps(spec, ensure_ascii=False).encode()}
    if not difference:
        return TokenizerFiles(files)
    if spec["model"]["type"] == "Unigram":
        note = f"{TOKENIZER_JSON} may cut a text into other pieces where two ways score alike: {difference}"
        return TokenizerFiles(files, (note,))
    raise UserError(f"{vocabulary.path} has no tokenizer.json of the same ids: {difference}; get the model's own")


def _is_sentencepiece(vocabulary: Vocabulary) -> bool:
    from hephaestus_jax.data.sentencepiece_vocabulary import SentencePieceVocabulary

    return isinstance(vocabulary, SentencePieceVocabulary)


def _templates(vocabulary: Vocabulary, chat: str) -> dict[str, str]:
    from hephaestus_jax.data.tokenization import check_controls

    templates = chat_template(chat)
    if not chat.startswith(TEMPLATE_FILE):
        check_controls(chat_renderer(chat).controls, vocabulary)
    return templates


def _vocabulary_files(vocabulary: Vocabulary, max_positions: int) -> TokenizerFiles:
    from hephaestus_jax.data.tokenizer_json import read_tokenizer_json

    path = Path(vocabulary.path)
    data = path.read_bytes()
    notes: tuple[str, ...] = ()
    if _is_sentencepiece(vocabulary):
        made = _tokenizer_json(vocabulary)
        files, notes = {"tokenizer.model": data, **made.files}, made.notes
    elif path.name == TOKENIZER_JSON:
        beside = [path.parent / name for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS)]
        files = {TOKENIZER_JSON: data, **{file.name: file.read_bytes() for file in beside if file.is_file()}}
    else:
        spec = read_tokenizer_json(vocabulary.path, data)
        files = {path.name: data, TOKENIZER_JSON: json.dumps(spec, ensure_ascii=False).encode()}
    config = json_bytes(_tokenizer_config(vocabulary, max_positions))
    return TokenizerFiles({TOKENIZER_CONFIG: config, **files}, notes)


def _tokenizer_config(vocabulary: Vocabulary, max_positions: int) -> dict[str, Json]:
    special = {"bos": vocabulary.bos_id, "eos": vocabulary.eos_id, "pad": vocabulary.pad_id}
    named = {f"{key}_token": vocabulary.pieces([i])[0].decode() for key, i in special.items() if i is not None}
    unknown = {"unk_token": "<unk>"} if "<unk>" in vocabulary.control_ids else {}
    return {
        **named,
        **unknown,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_positions,
        # which takes tokenizer.json as it is; the class named after Llama makes a tokenizer of its own
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _read_json(path: Path) -> dict[str, Json]:
    try:
        return json.loads(path.read_bytes()) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from error
