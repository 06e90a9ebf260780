"""Whether the rows of a mixture were made with a model's own tokenizer."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.vocabularies import TOKENIZER_FILES
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import digest

_CONFIG_FILES = ("config.json", "generation_config.json")


def check_tokenizer_files(directory: Path, vocabulary: VocabularyIdentity) -> None:
    """Passes if one of the tokenizer files in `directory` is what the mixture's rows were made with.

    A vocabulary's digest is of its file and of the ids of beginning and end of text. Those ids are looked for among
    the ones that the model's configuration names, so that no tokenizer library is needed here.

    Raises:
        UserError: none is; token ids would mean something else than the model learned.
    """
    files = [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]
    files += sorted(path for path in directory.glob("*.model") if path not in files)
    ids = [None, *_special_ids(directory)]
    for file in files:
        with open(file, "rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        if any(digest([content, *pair]) == vocabulary.digest for pair in itertools.product(ids, repeat=2)):
            return
    found = ", ".join(file.name for file in files) or "no tokenizer file"
    raise UserError(
        f"the mixture's rows were made with {vocabulary.name} (digest {vocabulary.digest[:12]}), and the model in"
        f" {directory} comes with {found}, not the same: its token ids mean something else; build the mixture with"
        f" --vocabulary {directory}"
    )


def _special_ids(directory: Path) -> list[int]:
    """Every id that the model's files call beginning, end or padding of text, or an added token's."""
    found: set[int] = set()

    def collect(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                collect(item)
        elif isinstance(value, int) and not isinstance(value, bool):
            found.add(value)

    for name in _CONFIG_FILES:
        values = _read(directory / name)
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            collect(values.get(key))
    settings = _read(directory / "tokenizer_config.json")
    names = {_spelling(settings.get(key)) for key in ("bos_token", "eos_token", "pad_token")}
    names |= {_spelling(value) for value in _read(directory / "special_tokens_map.json").values()}
    for key, entry in (settings.get("added_tokens_decoder") or {}).items():
        if _spelling(entry) in names and key.isdecimal():
            found.add(int(key))
    for entry in _read(directory / "tokenizer.json").get("added_tokens") or []:
        if entry.get("special"):
            collect(entry.get("id"))
    return sorted(found)


def _spelling(entry: Any) -> str | None:
    return entry.get("content") if isinstance(entry, dict) else entry if isinstance(entry, str) else None


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is none: files that are damaged are reported by whoever needs them."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
