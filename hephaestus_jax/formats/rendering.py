"""One renderer for every kind of record, chosen by a handful of options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from hephaestus_jax.formats.chat import chat_renderer
from hephaestus_jax.formats.documents import ApiDocRenderer, CodeRenderer, TextRenderer
from hephaestus_jax.formats.records import Record, Trajectory, digest, slice_of
from hephaestus_jax.formats.spans import Renderer, Rendering


@dataclass(frozen=True)
class RecordRenderer:
    """Renders API documentation, trajectories, code and text alike.

    Attributes:
        chat: the template family of trajectories, a name that `formats.chat.chat_renderer` knows.
        train_on: "all" text of a trajectory, as in continual pre-training, or the "assistant" alone.
        metadata: prepend the record's host at weight 0 (metadata conditioning, arXiv 2501.01956).
    """

    chat: str = "llama3"
    train_on: str = "all"
    metadata: bool = True

    def __post_init__(self) -> None:
        self._chat.controls  # noqa: B018  an unknown family or option is an error here, not in a worker

    @cached_property
    def _chat(self) -> Renderer:
        return chat_renderer(self.chat, train_on=self.train_on)

    @cached_property
    def _documents(self) -> dict[str, Renderer]:
        return {
            "agent_docs": ApiDocRenderer(metadata=self.metadata),
            "code": CodeRenderer(metadata=self.metadata),
            "text": TextRenderer(metadata=self.metadata),
        }

    @property
    def controls(self) -> tuple[str, ...]:
        """The control tokens of the chat family."""
        return self._chat.controls

    def fingerprint(self) -> str:
        """Digest of every renderer within."""
        return digest([self._chat.fingerprint(), *(r.fingerprint() for r in self._documents.values())])

    def render(self, record: Record) -> Rendering:
        """The spans of `record`.

        Raises:
            UserError: the record holds something its renderer has no form for.
        """
        if isinstance(record, Trajectory):
            return self._chat.render(record)
        return self._documents.get(slice_of(record), self._documents["text"]).render(record)
