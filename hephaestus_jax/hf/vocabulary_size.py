"""How many token ids the tokenizer of a Hugging Face model has, and whether its embedding has a row for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hephaestus_jax.data.vocabularies import IMAGE_TOKENS
from hephaestus_jax.errors import UserError

TOKENIZER_JSON = "tokenizer.json"


def tokenizer_size(folder: Path) -> int | None:
    """One more than the largest id of text in `folder`/tokenizer.json; None where there is none that says its ids.

    Image tokens behind all others do not count (`vocabularies.IMAGE_TOKENS`). Read as plain JSON: no tokenizer library
    is needed. A file that is damaged is reported by whoever needs its text.
    """
    try:
        spec = json.loads((folder / TOKENIZER_JSON).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    ids = token_ids(spec) if isinstance(spec, dict) else {}
    return max((number for token, number in ids.items() if token not in IMAGE_TOKENS), default=-1) + 1 or None


def token_ids(spec: dict[str, Any]) -> dict[str, int]:
    """Spelling → id of a tokenizer.json: the pieces of its model, then the added tokens."""
    model, added = spec.get("model"), spec.get("added_tokens")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):  # Unigram: [piece, score] in the order of their ids
        ids = {str(item[0]): number for number, item in enumerate(vocab) if isinstance(item, list) and item}
    else:
        ids = {piece: number for piece, number in vocab.items() if _is_id(number)} if isinstance(vocab, dict) else {}
    tokens = [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    return ids | {str(token.get("content")): token["id"] for token in tokens if _is_id(token.get("id"))}


def _is_id(value: Any) -> bool:
    return type(value) is int and value >= 0


def check_tokenizer_size(folder: Path, rows: int) -> None:
    """Passes if an embedding with that many rows has one for every id of the tokenizer in `folder`; more are padding.

    Raises:
        UserError: the tokenizer has ids beyond it.
    """
    size = tokenizer_size(folder)
    if size is not None and size > rows:
        raise UserError(
            f"{folder / TOKENIZER_JSON} has {size:,} ids, the embedding beside it {rows:,} rows: give the new ids rows"
            f" with `python -m tools.grow_vocabulary {folder} OUT`, or put back the tokenizer that the model was saved"
            " with"
        )
