"""Tokenizer files for tests: real ones from installed packages, small ones made on the spot."""

from __future__ import annotations

import functools
import json
import sysconfig
import tempfile
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece
from hephaestus_jax.data.tiktoken_files import llama3_tokenizer_json, save_tokenizer_json
from hephaestus_jax.data.vocabularies import Vocabulary, load_vocabulary

CONTROLS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<tool_call>")
SENTENCEPIECE_MISTRAL = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
}
TEKKEN = "tekken_240911.json"


def _package(name: str) -> Path:
    spec = util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed")
    return Path(spec.submodule_search_locations[0])


def llama3_file() -> Path:
    """Llama 3's tiktoken file."""
    return _package("llama_models") / "llama3" / "tokenizer.model"


def mistral_file(name: str) -> Path:
    """A file of mistral-common, by version or name."""
    return _package("mistral_common") / "data" / SENTENCEPIECE_MISTRAL.get(name, name)


def sources(count: int = 40) -> list[str]:
    """Some of the standard library's source files."""
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return [path.read_text("utf-8", "replace") for path in paths[:count]]


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory()
    _keep.append(folder)
    return Path(folder.name)


_keep: list[Any] = []  # folders that live as long as the tests


@functools.cache
def trained(model_type: str = "bpe") -> Vocabulary:
    """A vocabulary of our own."""
    config = VocabularyConfig(2_048, CONTROLS, model_type=model_type, max_bytes=300_000)  # type: ignore[arg-type]
    return train_sentencepiece([*sources(20), "Grüße, мир, 世界, 🙂 é\n" * 50], _folder() / model_type, config)


@functools.cache
def llama3_json() -> Path:
    """Llama 3's vocabulary as a `tokenizer.json`."""
    path = _folder() / "llama3" / "tokenizer.json"
    path.parent.mkdir()
    save_tokenizer_json(llama3_tokenizer_json(llama3_file()), path)
    return path


@functools.cache
def library(path: Path) -> tokenizers.Tokenizer:
    """A `tokenizer.json` as the library itself uses it."""
    return tokenizers.Tokenizer.from_file(str(path))


@functools.cache
def qwen_like() -> Path:
    """Byte-level BPE in Qwen's manner over Llama 3's merges: NFC, no BOS, markers that are not special."""
    spec = json.loads(llama3_json().read_text())
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<table>", "    ¶"]
    added = spec["added_tokens"][: len(names)]
    for token, name in zip(added, names, strict=True):
        token |= {"content": name, "special": name.startswith("<|")}
    spec |= {"added_tokens": added, "normalizer": {"type": "NFC"}, "post_processor": None}
    folder = _folder() / "qwen_like"
    folder.mkdir()
    save_tokenizer_json(spec, folder / "tokenizer.json")
    config = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def metaspace_spec(scheme: str | None = None) -> dict[str, Any]:
    """A small `tokenizer.json` converted from SentencePiece: prefix by normalizer, or by Metaspace with a scheme."""
    pieces = ["<unk>", "<s>", "</s>", "[INST]", *(f"<0x{byte:02X}>" for byte in range(256))]
    merges = [["▁", "a"], ["a", "b"], ["▁a", "b"], ["▁", "▁"], ["\n", "▁"]]
    pieces += ["▁", "a", "b", "c", "\n", *("".join(merge) for merge in merges)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    unspace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [{"id": i, "content": pieces[i], **flags} for i in range(4)],
        "normalizer": None
        if scheme
        else {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
        if scheme
        else None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [unspace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": merges,
        },
    }


def write_spec(folder: Path, spec: dict[str, Any], **neighbours: Any) -> Vocabulary:
    """The vocabulary of a `tokenizer.json` written into `folder`, with files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    for name, value in neighbours.items():
        (folder / f"{name}.json").write_text(json.dumps(value), "utf-8")
    return load_vocabulary(folder)


@functools.cache
def vocabulary(name: str) -> Vocabulary:
    """A vocabulary by name: "trained", "unigram", "llama3", "tekken", "qwen_like" or a version of Mistral's."""
    if name in ("trained", "unigram"):
        return trained("bpe" if name == "trained" else "unigram")
    if name == "qwen_like":
        return load_vocabulary(qwen_like())
    return load_vocabulary(llama3_file() if name == "llama3" else mistral_file(TEKKEN if name == "tekken" else name))
