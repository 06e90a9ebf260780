"""What chat rendering needs from a Hugging Face tokenizer directory: templates, special tokens, added tokens."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Json

_MARK = re.compile(r"[<\[|]\S.*[>\]|]", re.DOTALL)


@dataclass(frozen=True)
class TokenizerFiles:
    """The chat templates and tokens of a tokenizer directory.

    Attributes:
        template: the template of conversations without tools.
        tool_template: the template of conversations with tools; the same one unless the files name another.
        special_tokens: (role, spelling) pairs such as ("bos_token", "<s>"), which templates see as variables.
        added_tokens: every token that the tokenizer finds in text by its spelling.
        controls: those of them that are declared special, or that a template writes and that look like marks. Runs of
            line breaks or of spaces, which some tokenizers add as tokens, are text.
    """

    template: str = ""
    tool_template: str = ""
    special_tokens: tuple[tuple[str, str], ...] = ()
    added_tokens: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()

    @classmethod
    def read(cls, directory: str | Path) -> TokenizerFiles:
        """Reads `chat_template.jinja`, `tokenizer_config.json`, `special_tokens_map.json` and `tokenizer.json`.

        Raises:
            UserError: a file is missing or malformed, there is no chat template, or a token that the template writes
                takes the white space beside it along, which spans cannot express.
        """
        folder = Path(directory)
        config = _read_json(folder / "tokenizer_config.json")
        template, tool_template = _templates(folder, config)
        special = _special_tokens({**_read_json(folder / "special_tokens_map.json", optional=True), **config})
        added = _added_tokens(folder, config)
        named = {spelling for _, spelling in special}
        written = {spelling for spelling in added if spelling in template or spelling in tool_template}
        for spelling in sorted(written | named & set(added)):
            if added[spelling].get("lstrip") or added[spelling].get("rstrip"):
                raise UserError(f"{folder}: the token {spelling!r} strips white space beside it; no spans can say so")
        declared = {spelling for spelling, token in added.items() if token.get("special")}
        controls = named | declared | set(filter(_MARK.fullmatch, written))
        return cls(template, tool_template, special, tuple(sorted(named | set(added))), tuple(sorted(controls)))


def _read_json(path: Path, optional: bool = False) -> dict[str, Json]:
    if optional and not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a Hugging Face tokenizer directory") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; give a Hugging Face tokenizer directory")
    return value


def _templates(folder: Path, config: dict[str, Json]) -> tuple[str, str]:
    """The template without and with tools. A file of its own goes before the configuration's entry."""
    named: dict[str, str] = {}
    entry = config.get("chat_template")
    if isinstance(entry, str):
        named["default"] = entry
    elif isinstance(entry, list):
        named = {item["name"]: item["template"] for item in entry}
    if (folder / "chat_template.jinja").exists():
        named = {"default": (folder / "chat_template.jinja").read_text(encoding="utf-8")}
        for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
            named[path.stem] = path.read_text(encoding="utf-8")
    if "default" not in named:
        raise UserError(f"{folder} has no chat template; take a family by name, or add chat_template.jinja to it")
    return named["default"], named.get("tool_use", named["default"])


def _special_tokens(config: dict[str, Json]) -> tuple[tuple[str, str], ...]:
    tokens = []
    for role, token in sorted(config.items()):
        spelling = token.get("content") if isinstance(token, dict) else token
        if role.endswith("_token") and isinstance(spelling, str):
            tokens.append((role, spelling))
    return tuple(tokens)


def _added_tokens(folder: Path, config: dict[str, Json]) -> dict[str, dict[str, Json]]:
    if (folder / "tokenizer.json").exists():
        tokens = _read_json(folder / "tokenizer.json").get("added_tokens") or []
    else:
        tokens = (config.get("added_tokens_decoder") or {}).values()
    return {token["content"]: token for token in tokens}
