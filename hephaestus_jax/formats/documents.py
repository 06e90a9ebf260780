"""Renderers of documents: API documentation, source code and text.

A document is beginning-of-text (weight 0), the document (weight 1) and end-of-text (weight 1). Metadata conditioning
(arXiv 2501.01956) puts `URL: ` with the host and two newlines in front of the document, at weight 0, and repeats them
where a long document continues in another row.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import ClassVar

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.api_layouts import LAYOUTS, layout_of
from hephaestus_jax.formats.records import ApiDoc, Document, Record, digest
from hephaestus_jax.formats.spans import BOS, EOS, SEAM, Rendering, Span

FORMAT = 3  # raised whenever the same record is rendered differently


@dataclass(frozen=True)
class _DocumentRenderer:
    """What the three renderers share.

    Attributes:
        metadata: whether the host stands in front of the document (metadata conditioning).
    """

    metadata: bool = False

    @property
    def controls(self) -> tuple[str, ...]:
        """None besides beginning and end of text."""
        return ()

    def fingerprint(self) -> str:
        """Digest of the renderer's name, format and options."""
        return digest([type(self).__name__, FORMAT, asdict(self)])

    def _rendering(self, text: str, host: str) -> Rendering:
        carried = [Span(BOS, 0.0, "template")]
        if self.metadata and host:
            # the seam keeps the document's first token whole: same tokens, all with loss, with and without metadata
            carried += [Span(f"URL: {host}\n\n", 0.0, "metadata"), SEAM]
        if not text:  # nothing to learn: an empty document must not teach that metadata is followed by the end
            return Rendering((*carried, Span(EOS, 0.0, "template")), carry=len(carried))
        body = (Span(text, 1.0, "document"), Span(EOS, 1.0, "template"))
        return Rendering((*carried, *body), carry=len(carried))


@dataclass(frozen=True)
class ApiDocRenderer(_DocumentRenderer):
    """Renders `ApiDoc`, each in one of several layouts, chosen by a digest of source, version, provider and name.

    Attributes:
        layouts: names of `formats.api_layouts.LAYOUTS`; an API that Python could not define never gets "docstring".
        depth: levels of nested parameters that are written out.
    """

    layouts: tuple[str, ...] = ("markdown", "docstring", "tool_definition")
    depth: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "layouts", tuple(self.layouts))
        unknown = [name for name in self.layouts if name not in LAYOUTS]
        if unknown or not self.layouts:
            raise UserError(f"API documentation layouts {self.layouts}: choose some of {', '.join(LAYOUTS)}")
        if self.depth < 1:
            raise UserError(f"API documentation depth is {self.depth}; parameters need a depth of at least 1")

    def render(self, record: Record) -> Rendering:
        """The spans of an `ApiDoc`.

        Raises:
            UserError: the record is of another kind.
        """
        if not isinstance(record, ApiDoc):
            raise UserError(f"ApiDocRenderer has no form for a {type(record).__name__}; use the renderer of its kind")
        layout = LAYOUTS[layout_of(record, self.layouts, _draw(record))]
        return self._rendering(layout(record, self.depth), record.provenance.host or record.provider)


def _draw(doc: ApiDoc) -> int:
    """A number by which an API gets its layout: of its identity alone, and faster to make than its record id."""
    identity = "\0".join((doc.provenance.source, doc.provenance.version, doc.provider, doc.name))
    return int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest())


@dataclass(frozen=True)
class TextRenderer(_DocumentRenderer):
    """Renders a `Document` of the slice "text" as it is."""

    slice: ClassVar[str] = "text"

    def render(self, record: Record) -> Rendering:
        """The spans of a `Document`.

        Raises:
            UserError: the record is of another kind, or its document of another slice.
        """
        if not isinstance(record, Document) or record.slice != self.slice:
            kind = f"Document of slice {record.slice!r}" if isinstance(record, Document) else type(record).__name__
            raise UserError(f"{type(self).__name__} has no form for a {kind}; use the renderer of its kind")
        return self._rendering(record.text, record.provenance.host)


@dataclass(frozen=True)
class CodeRenderer(TextRenderer):
    """Renders a `Document` of the slice "code" as it is."""

    slice: ClassVar[str] = "code"
