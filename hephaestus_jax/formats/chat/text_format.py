"""Text formats: calls written as words or code inside an assistant's text, not in a family's own markup.

A text format rewrites a conversation into one without calls, results and tools; a family's renderer then wraps it in
its turns, or it stands plain between beginning and end of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import ClassVar

from hephaestus_jax.formats.chat.conversation import AssistantTurn, Conversation, Part, ToolTurn, Turn, UserTurn
from hephaestus_jax.formats.chat.renderer import ChatRenderer, SpanBuilder
from hephaestus_jax.formats.records import Tool
from hephaestus_jax.formats.spans import BOS, EOS, Rendering


@dataclass(frozen=True)
class TextFormat(ChatRenderer):
    """Base of the text formats.

    Attributes:
        within: the family whose turns hold the text, or None for plain text: BOS, the prompt, turns that open with
            a word ("Question: "), EOS.
    """

    within: ChatRenderer | None = None

    user_prefix: ClassVar[str]
    assistant_prefix: ClassVar[str]
    observation_prefix: ClassVar[str] = "Observation: "
    turn_end: ClassVar[str]

    def tool_prompt(self, tools: Sequence[Tool]) -> str:
        """The tools and how to call them, in words."""
        raise NotImplementedError

    def assistant_text(self, turn: AssistantTurn) -> tuple[Part, ...]:
        """The turn's thought, text and calls as text."""
        raise NotImplementedError

    @property
    def controls(self) -> tuple[str, ...]:
        """The control tokens of the wrapping family."""
        return self.within.controls if self.within else ()

    def render_conversation(self, conversation: Conversation) -> Rendering:
        """The spans of a conversation."""
        if self.within:
            return replace(self.within, train_on=self.train_on).render_conversation(self.rewritten(conversation))
        return self._plain(self.rewritten(conversation))

    def rewritten(self, conversation: Conversation) -> Conversation:
        """The conversation with calls, results and tools as text; neighbouring results share a turn."""
        turns: list[Turn] = []
        for is_result, group in groupby(conversation.turns, lambda turn: isinstance(turn, ToolTurn)):
            if is_result:
                texts = (self.observation_prefix + turn.text for turn in group if isinstance(turn, ToolTurn))
                turns.append(UserTurn("\n".join(texts), "observation"))
            else:
                turns += map(self._rewritten_turn, group)
        prompt = self.tool_prompt(conversation.tools) if conversation.tools else ""
        return Conversation(tuple(turns), conversation.system, tool_prompt=prompt)

    def _rewritten_turn(self, turn: Turn) -> Turn:
        if isinstance(turn, AssistantTurn):
            return AssistantTurn(text=self.assistant_text(turn), end_weight=turn.end_weight)
        if isinstance(turn, UserTurn) and turn.kind == "observation":
            return replace(turn, text=self.observation_prefix + turn.text)
        return turn

    def _plain(self, conversation: Conversation) -> Rendering:
        spans = SpanBuilder()
        spans.add(BOS, 0.0, "template")
        for text, kind in ((conversation.system, "system"), (conversation.tool_prompt, "tools")):
            if text:
                spans.add(text, self.context, kind)  # type: ignore[arg-type]
                spans.add("\n\n", self.context, "template")
        spans.end_carry()
        end = self.context
        for turn in conversation.turns:
            if isinstance(turn, AssistantTurn):
                end = turn.end_weight
                spans.add(self.assistant_prefix, self.context, "template")
                spans.add_parts(turn.text)
            else:
                assert isinstance(turn, UserTurn)
                end = self.context
                spans.add(self.user_prefix if turn.kind == "user" else "", self.context, "template")
                spans.add(turn.text, self.context, turn.kind)
            spans.add(self.turn_end, end, "template")
        spans.add(EOS, end, "template")
        return spans.build()
