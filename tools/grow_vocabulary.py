"""Gives a Hugging Face model new control tokens: in its tokenizer files, its embedding and its output projection.

    python -m tools.grow_vocabulary HF_DIR OUT --tokens '<|call|>' '<|result|>'
    python -m tools.grow_vocabulary HF_DIR OUT --chat qwen3     what a chat family needs, its template if there is none
    python -m tools.grow_vocabulary HF_DIR OUT                  rows for a tokenizer with more ids than the embedding

OUT is a Hugging Face model again, which a run begins from: --gin.INIT_FROM=OUT. New rows are the mean of the old ones,
which stay as they are. Rows are padded to a multiple of 64: it divides over a mesh, and matrix products of whole blocks
give old tokens the same logits to the bit. `python -m tools.convert_checkpoint export RUN HF_OUT --unpad_vocabulary`
leaves padding out again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import duration
from tools._command import run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.grow_vocabulary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="HF_DIR", help="folder with config.json, *.safetensors and tokenizer files")
    parser.add_argument("out", metavar="OUT", help="new folder")
    parser.add_argument("--tokens", nargs="+", default=[], metavar="TOKEN", help="spellings, in the order of their ids")
    parser.add_argument("--tokens_file", help="file with one spelling a line, after those of --tokens")
    parser.add_argument("--chat", help="chat family whose control tokens are added, as far as the tokenizer lacks them")
    parser.add_argument(
        "--multiple", type=int, default=64, help="of the rows, made up by padding; 1 for none (default: %(default)s)"
    )
    parser.add_argument("--visible", action="store_true", help="decode(skip_special_tokens=True) keeps the new tokens")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the larger model."""
    from hephaestus_jax.hf.vocabulary_growth import grow_vocabulary

    args = _parser().parse_args(arguments)
    started = time.monotonic()
    tokens = [*args.tokens, *_from_file(args.tokens_file)]
    tokens += [token for token in _of_family(args.chat, Path(args.source)) if token not in tokens]
    templates = _template(args.chat, Path(args.source))
    grown = grow_vocabulary(args.source, args.out, tokens, args.multiple, not args.visible, templates)
    for name in templates:
        print(f"note: {name} is that of {args.chat}, since the model had none")
    for note in grown.notes:
        print(f"note: {note}", flush=True)
    for token, number in grown.ids.items():
        print(f"{number:>9,}  {token}")
    print(
        f"{len(grown.ids):,} new tokens, {grown.tokenizer_size:,} ids, {grown.old_rows:,} → {grown.rows:,} rows:"
        f" {grown.weight_bytes / 1e6:,.1f} MB in {args.out} after {duration(time.monotonic() - started)}"
    )


def _from_file(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line for line in Path(path).read_text("utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; give a text file in UTF-8, a token a line") from error


def _of_family(chat: str | None, folder: Path) -> list[str]:
    """The control tokens of a chat family that the tokenizer in `folder` lacks."""
    if chat is None:
        return []
    from hephaestus_jax.data.vocabularies import load_vocabulary
    from hephaestus_jax.formats.chat import chat_renderer
    from hephaestus_jax.formats.spans import BOS, EOS

    known = load_vocabulary(folder).control_ids
    return [token for token in chat_renderer(chat).controls if token not in known and token not in (BOS, EOS)]


def _template(chat: str | None, folder: Path) -> dict[str, bytes]:
    """Files of the chat family's template, unless the model in `folder` has one, or the family none."""
    if chat is None:
        return {}
    from hephaestus_jax.hf.chat_templates import chat_template
    from hephaestus_jax.hf.tokenizer_files import TOKENIZER_CONFIG

    settings = folder / TOKENIZER_CONFIG
    if any(folder.glob("chat_template*")) or (settings.is_file() and b'"chat_template"' in settings.read_bytes()):
        return {}
    try:
        return {name: text.encode() for name, text in chat_template(chat).items()}
    except UserError as error:
        print(f"note: no template is written: {error}")
        return {}


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # values only pass through
    run(main)
