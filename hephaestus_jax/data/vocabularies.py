"""Vocabularies: text to token ids and back, for SentencePiece models and Hugging Face `tokenizer.json` files alike.

A vocabulary keeps two things apart that tokenizers like to mix: plain text, which never yields a control id whatever
it spells, and control tokens (`<|eot_id|>`, `[INST]`, `<tool_call>`), which only a template may place, by id.

Which tokens are control tokens:

- in SentencePiece models those of type CONTROL and UNKNOWN, and the USER_DEFINED ones that are spelt as markers;
- in `tokenizer.json` the added tokens that are special, those the files beside it name as beginning, end or padding,
  and the other added tokens that are spelt as markers (Qwen's `<tool_call>`). Added tokens of plain text stay text:
  runs of white space, letters, and the names of HTML elements (Gemma's `<table>`). See `is_marker`.

Nothing here imports TensorFlow. Files are read from local disk.

Shape suffixes: T tokens, N texts.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import digest
from hephaestus_jax.formats.spans import BOS, EOS

_MARKER = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]{2,}\]|\|+[^|\s]+\|+|<\|.+\|>")
_HTML = re.compile(
    r"</?(a|abbr|b|big|blockquote|body|br|caption|code|col|colgroup|dd|div|dl|dt|em|figcaption|figure|footer|h[1-6]|head"
    r"|header|hr|html|i|img|ins|kbd|li|main|mark|ol|p|pre|q|s|samp|script|section|small|span|strike|strong|sub|sup|table"
    r"|tbody|td|tfoot|th|thead|title|tr|tt|u|ul|var)/?>"
)
# Names under which tokenizers are found in a model directory; the first that is there is taken.
TOKENIZER_FILES = ("tokenizer.json", "tekken.json", "tokenizer.model")

# Names of beginning, end and padding: the first is what we call them, the others are found where no file says so.
WELL_KNOWN = {
    "bos": (BOS, "<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>"),
    "eos": (EOS, "<|end_of_text|>", "</s>", "<eos>", "<|endoftext|>"),
    "pad": ("<|pad|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]"),
}
IMAGE_TOKENS = ("<image_soft_token>",)
"""Tokens that no text has. Where they come after all others, a text model may have no embedding for them (Gemma 3)."""

_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")  # how such a file begins


def is_marker(spelling: str) -> bool:
    """Whether a token that is not declared special is spelt like a control token.

    Markers are `<name>`, `[name]`, `|name|` and `<|any name|>`, the bare names of HTML elements excepted.
    """
    return bool(_MARKER.fullmatch(spelling)) and not _HTML.fullmatch(spelling)


class Vocabulary(ABC):
    """Token ids of one tokenizer file.

    Vocabularies pickle as their path. Encoding uses one core; workers are how it is spread over several.
    """

    def __init__(
        self,
        path: str,
        pieces: Sequence[bytes],
        controls: Mapping[str, int],
        special: Mapping[str, int | None],
        content: bytes,
    ) -> None:
        """Fills in the parts all families share.

        Args:
            path: the file.
            pieces: the bytes each id stands for; of a control token, its spelling.
            controls: every control token by its spelling.
            special: ids under "bos", "eos" and "pad", None where the family has none.
            content: the bytes of the file.
        """
        self.path = path
        self.size = len(pieces)
        self.bos_id, self.eos_id, self.pad_id = special["bos"], special["eos"], special["pad"]
        generic = {name: i for name, i in ((BOS, self.bos_id), (EOS, self.eos_id)) if i is not None}
        self.control_ids: Mapping[str, int] = {**controls, **generic}
        self.is_control = np.zeros(self.size, bool)
        self.is_control[list(self.control_ids.values())] = True
        self._pieces = list(pieces)
        self.token_bytes = np.array([len(piece) for piece in pieces], np.int32)
        self.token_bytes[self.is_control] = 0
        self.digest = digest([hashlib.sha256(content).hexdigest(), self.bos_id, self.eos_id])

    path: str
    size: int  # ids are in [0, size)
    control_ids: Mapping[str, int]  # by spelling; also spans.BOS and spans.EOS where the family has them
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    digest: str  # of the tokenizer file, 32 hexadecimal digits
    token_bytes: np.ndarray  # int32[size]: UTF-8 bytes each id stands for, 0 for control tokens
    is_control: np.ndarray  # bool[size]
    swallowing: frozenset[str] = frozenset()  # control tokens that swallow white space beside them
    dummy_prefix: bool = False  # whether a text gets a space before it that is not its own,
    prefix_after_control: bool = False  # and whether it does after a control token too

    def encode_flat(
        self, texts: Sequence[str], after_control: Sequence[bool] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of plain texts, one after the other.

        Args:
            texts: N plain texts; control tokens they spell stay text.
            after_control: whether each text follows a control token; by default none does. Some tokenizers put a space
                before a text only if it does not.

        Returns:
            ids_T, int32, of all texts, and counts_N, int64, the number of ids of each.

        Raises:
            UserError: a text is not valid Unicode (it holds a lone surrogate), or the tokenizer file yields control
                ids for plain text.
        """
        after_control = [False] * len(texts) if after_control is None else after_control
        try:
            ids_T, counts_N = self._encode_flat(texts, after_control)
        except (UnicodeEncodeError, TypeError) as error:
            for text in texts:
                check_unicode(text)
            raise error
        if self.is_control[ids_T].any():
            spelling = self._pieces[ids_T[np.argmax(self.is_control[ids_T])]].decode("utf-8", "replace")
            raise UserError(f"{self.path} yields the control token {spelling} for plain text; use another tokenizer")
        return ids_T, counts_N

    @abstractmethod
    def _encode_flat(self, texts: Sequence[str], after_control: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
        """As `encode_flat`, without the checks."""

    @abstractmethod
    def offsets(self, text: str, after_control: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """First and last (exclusive) character of `text` that each of its tokens stands for: two int64 arrays [T]."""

    def spells(self, text: str) -> bool:
        """Whether the tokens of `text` stand for exactly its bytes, in order, but for a dummy prefix."""
        return True

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids, int32[T], of each plain text. See `encode_flat`."""
        ids_T, counts_N = self.encode_flat(texts)
        return np.split(ids_T, np.cumsum(counts_N)[:-1]) if len(texts) else []

    def encode(self, text: str) -> np.ndarray:
        """The ids, int32[T], of one plain text. See `encode_flat`."""
        return self.encode_flat([text])[0]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text that ids stand for, control tokens spelt out; bytes that are not UTF-8 become U+FFFD.

        `decode(encode(s)) == s` for every `s` if the tokenizer itself loses nothing: `spells(s)` says so.

        Raises:
            UserError: an id is outside [0, size).
        """
        array_T = np.asarray(ids, np.int64)
        if array_T.size and not 0 <= array_T.min() <= array_T.max() < self.size:
            bad = int(array_T[(array_T < 0) | (array_T >= self.size)][0])
            raise UserError(f"token id {bad} is outside {self.path} (0 to {self.size - 1}); wrong vocabulary?")
        if not self.dummy_prefix:
            return b"".join([self._pieces[i] for i in array_T]).decode("utf-8", "replace")
        return self._without_dummy_prefixes(array_T).decode("utf-8", "replace")

    def pieces(self, ids: Sequence[int] | np.ndarray) -> list[bytes]:
        """The bytes each id stands for; of a control token, its spelling."""
        return [self._pieces[int(i)] for i in ids]

    def _without_dummy_prefixes(self, ids_T: np.ndarray) -> bytes:
        joined, fresh = bytearray(), True  # fresh: a text begins here, so its first space may be the dummy prefix
        for i in ids_T:
            piece = self._pieces[i]
            joined += piece[1:] if fresh and piece.startswith(b" ") and not self.is_control[i] else piece
            fresh = self.prefix_after_control and bool(self.is_control[i])
        return bytes(joined)

    def __reduce__(self) -> tuple:
        return load_vocabulary, (self.path,)


def load_vocabulary(path: str | Path) -> Vocabulary:
    """The vocabulary in a file or directory; loaded once per process and content.

    Args:
        path: a `tokenizer.json`, a SentencePiece model, Llama 3's tiktoken `tokenizer.model`, a Mistral `tekken.json`,
            or a directory that holds one (taken in this order: tokenizer.json, tekken.json, tokenizer.model, the only
            `*.model`). What a file is, is told from its content.

    Raises:
        UserError: there is no such file, or it is damaged or of another kind.
    """
    file = _find(Path(path))
    stat = file.stat()
    return _load(str(file), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=16)
def _load(path: str, _mtime: int, _size: int) -> Vocabulary:
    content = Path(path).read_bytes()
    if content.lstrip().startswith(b"{") or _TIKTOKEN.match(content):
        from hephaestus_jax.data.tokenizer_json import TokenizerJsonVocabulary

        return TokenizerJsonVocabulary(path, content)
    from hephaestus_jax.data.sentencepiece_vocabulary import SentencePieceVocabulary

    return SentencePieceVocabulary(path, content)


def _find(path: Path) -> Path:
    path = path.absolute()  # not resolved: in the hub's cache links lead away from the file's neighbours
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"no vocabulary at {path}: name a tokenizer.json, a *.model or a directory that holds one")
    for name in TOKENIZER_FILES:
        if (path / name).is_file():
            return path / name
    models = sorted(path.glob("*.model"))
    if len(models) != 1:
        found = f"{len(models)} files *.model" if models else f"none of {', '.join(TOKENIZER_FILES)}, *.model"
        raise UserError(f"{path} holds {found}: name the vocabulary file itself")
    return models[0]


def check_unicode(text: str) -> None:
    """Makes sure that a text can be written as UTF-8.

    Raises:
        UserError: it holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = ascii(text[max(error.start - 20, 0) : error.end + 20])
        raise UserError(f"text is not valid Unicode: lone surrogate near {near}; replace it by U+FFFD") from None


def single_threaded() -> None:
    """Keeps `tokenizers` to one core unless the environment says otherwise: the cache builder has a worker per core."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
