"""New tokens in the tokenizer files of a Hugging Face model, with ids after those that are there.

`tokenizer.json` says what is encoded; `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, which
versions of transformers spell differently, are told where they list such tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.data.vocabularies import is_marker
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.config_files import json_bytes
from hephaestus_jax.hf.safetensors_files import parse_json, shown
from hephaestus_jax.hf.tokenizer_files import (
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    missing_tokenizer_json,
)
from hephaestus_jax.hf.vocabulary_size import token_ids

ADDED_TOKENS = "added_tokens.json"
_LISTS = ("additional_special_tokens", "extra_special_tokens")  # transformers 4 and 5

Json = Any


@dataclass(frozen=True)
class AddedTokens:
    """Tokenizer files with new tokens.

    Attributes:
        ids: of the new tokens by spelling, ascending and without a gap.
        files: those that changed, by name.
        old_size: ids before.
        notes: what a user should know, a sentence each.
    """

    ids: Mapping[str, int]
    files: Mapping[str, bytes]
    old_size: int
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Ids after."""
        return self.old_size + len(self.ids)


def add_tokens(folder: Path, tokens: Sequence[str], special: bool = True) -> AddedTokens:
    """The tokenizer files of the model in `folder` with `tokens` added, each of which is then one id.

    Args:
        folder: with tokenizer.json, or a SentencePiece model that one can be made of.
        tokens: spellings, in the order of their ids; none changes nothing.
            They must be spelt as markers (`vocabularies.is_marker`), since plain text would yield them otherwise.
        special: whether `decode(skip_special_tokens=True)` leaves them out.

    Raises:
        UserError: a spelling cannot be a token or is one already, or the files are damaged or of another kind.
    """
    made = missing_tokenizer_json(folder)
    spec = _read(folder, TOKENIZER_JSON, dict(made.files)) or {}
    known = token_ids(spec)
    if not known:
        raise UserError(
            f"{folder} has no {TOKENIZER_JSON} with ids, which new tokens are written to; load its tokenizer with"
            " transformers' AutoTokenizer and save it, which writes one"
        )
    _check_spellings(tokens, known, folder)
    old_size = max(known.values()) + 1
    ids = {token: old_size + number for number, token in enumerate(tokens)}
    files = dict(made.files)
    if ids:
        spec["added_tokens"] = [*(spec.get("added_tokens") or ()), *_entries(ids, special)]
        files[TOKENIZER_JSON] = (json.dumps(spec, indent=2, ensure_ascii=False) + "\n").encode()
        _check_encodes(folder, files[TOKENIZER_JSON], ids, known)
        files |= _other_files(folder, ids, special)
    return AddedTokens(ids, files, old_size, made.notes)


def _check_spellings(tokens: Sequence[str], known: Mapping[str, int], folder: Path) -> None:
    earlier: set[str] = set()
    for token in tokens:
        mend = ""
        if not token or token != token.strip() or not token.isprintable():
            mend = "it must be printable and neither begin nor end with white space"
        elif token in earlier:
            mend = "it is given twice"
        elif token in known:
            mend = f"{folder / TOKENIZER_JSON} has it already, with id {known[token]:,}; leave it out"
        elif not is_marker(token):
            mend = "it must be spelt as a marker, such as <tool_call> or <|call|>, or plain text yields it"
        if mend:
            raise UserError(f"new token {shown(token) or repr(token)}: {mend}")
        earlier.add(token)


def _entries(ids: Mapping[str, int], special: bool) -> list[dict[str, Json]]:
    return [{"id": number, **_entry(token, special)} for token, number in ids.items()]


def _entry(token: str, special: bool) -> dict[str, Json]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"content": token, **flags, "special": special}


def _check_encodes(folder: Path, content: bytes, ids: Mapping[str, int], known: Mapping[str, int]) -> None:
    """Raises unless the library gives every new token its id and leaves the others theirs.

    It numbers added tokens by itself when it loads a file, whatever ids the file says.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # `tokenizers` raises plain Exception
        raise UserError(f"{folder / TOKENIZER_JSON} cannot be read ({error}); fetch the tokenizer again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = tokenizer.get_vocab(with_added_tokens=True)
    moved = [token for token, number in {**known, **ids}.items() if found.get(token) != number]
    if moved:
        raise UserError(
            f"{folder / TOKENIZER_JSON} has gaps among its ids: {shown(moved[0])} would become"
            f" {found.get(moved[0])} rather than {({**known, **ids})[moved[0]]}; give a tokenizer without gaps"
        )
    for token, number in ids.items():
        encoded = tokenizer.encode(f"a{token}b", add_special_tokens=False).ids
        if encoded.count(number) != 1 or tokenizer.encode(token, add_special_tokens=False).ids != [number]:
            raise UserError(f"new token {shown(token)} is not encoded as one id ({encoded}); spell it otherwise")


def _other_files(folder: Path, ids: Mapping[str, int], special: bool) -> dict[str, bytes]:
    """The other files that list added tokens, where they do."""
    changes: dict[str, Callable[[dict[str, Json]], bool]] = {
        TOKENIZER_CONFIG: lambda value: _in_decoder(value, ids, special) | (special and _in_lists(value, ids)),
        SPECIAL_TOKENS: lambda value: special and _in_lists(value, ids),
        ADDED_TOKENS: lambda value: value.update(ids) is None,
    }
    files = {}
    for name, change in changes.items():
        value = _read(folder, name, {})
        if value is not None and change(value):
            files[name] = json_bytes(value)
    return files


def _in_decoder(value: dict[str, Json], ids: Mapping[str, int], special: bool) -> bool:
    decoder = value.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return False
    decoder.update({str(number): _entry(token, special) for token, number in ids.items()})
    return True


def _in_lists(value: dict[str, Json], ids: Mapping[str, int]) -> bool:
    found = [name for name in _LISTS if isinstance(value.get(name), list)]
    for name in found:
        value[name] = [*value[name], *ids]
    return bool(found)


def _read(folder: Path, name: str, made: Mapping[str, bytes]) -> dict[str, Json] | None:
    """A JSON object, None where there is no such file."""
    path = folder / name
    try:
        data = made[name] if name in made else path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    value = parse_json(data, str(path))
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object; fetch the tokenizer again")
    return value
