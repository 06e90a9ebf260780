"""Spans: what a record looks like as training text, before any tokenizer.

A renderer turns a record into a `Rendering`: a sequence of `(text, weight, kind)`. The concatenated texts are the
training text; the weight says how much the loss counts each character; the kind says who speaks. Only spans of kind
"template" may yield control ids: text that happens to spell `<|eot_id|>` in any other span stays text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from hephaestus_jax.formats.records import Record

Kind = Literal["template", "metadata", "tools", "system", "user", "assistant", "observation", "document"]

# Control tokens that every vocabulary has under its own spelling; a vocabulary without one leaves it out.
BOS = "<|bos|>"
EOS = "<|eos|>"


@dataclass(frozen=True)
class Span:
    """A run of text with one loss weight (0 ≤ weight) and one speaker."""

    text: str
    weight: float
    kind: Kind


# An empty template span ends a run of text: what stands before and behind it is encoded by separate calls. The makers'
# own encoders work message by message, and their ids differ from those of the joined text (whitespace merges, the
# space that SentencePiece puts before each piece).
SEAM = Span("", 0.0, "template")


@dataclass(frozen=True)
class Rendering:
    """The spans of one record.

    The first `carry` spans (beginning-of-text, metadata, tool list) are repeated at weight 0 when the record is longer
    than a row and continues in the next.
    """

    spans: tuple[Span, ...]
    carry: int = 0

    @property
    def text(self) -> str:
        """The training text, control tokens spelled out."""
        return "".join(span.text for span in self.spans)


class Renderer(Protocol):
    """Turns records into renderings. Implementations are frozen, picklable dataclasses."""

    @property
    def controls(self) -> tuple[str, ...]:
        """The control tokens this renderer writes, BOS and EOS left out; the vocabulary must know all of them."""

    def fingerprint(self) -> str:
        """Changes whenever the same record would be rendered differently."""

    def render(self, record: Record) -> Rendering:
        """The spans of `record`.

        Raises:
            UserError: this renderer has no form for records of that kind.
        """
