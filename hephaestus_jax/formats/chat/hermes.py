"""ChatML with tool calls as Hermes, Qwen 2.5 and Qwen 3 write them: JSON between `<tool_call>` marks.

The text form of tools, calls and results is that of Qwen's own agent framework and of Hermes function calling. For the
chat template of one particular checkpoint, with its default system prompt and its rules about old thoughts, take
`template_file`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat.conversation import AssistantTurn, Conversation, ToolTurn, Turn, UserTurn
from hephaestus_jax.formats.chat.renderer import ChatRenderer, SpanBuilder, compact_json, thought_parts, tool_schema
from hephaestus_jax.formats.spans import Rendering

Tokens = Literal["hermes", "qwen2.5", "qwen3"]

_MARKS: dict[str, tuple[str, ...]] = {
    "hermes": (),
    "qwen2.5": ("<tool_call>", "</tool_call>"),
    "qwen3": ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
}
TOOLS_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
TOOLS_BEHIND = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


@dataclass(frozen=True)
class Hermes(ChatRenderer):
    """Renders trajectories in ChatML with Hermes tool calls.

    Attributes:
        tokens: which marks are tokens of the vocabulary besides `<|im_start|>` and `<|im_end|>`: none ("hermes"), those
            of calls ("qwen2.5"), or those of calls, responses and thoughts ("qwen3").
        beginning: the vocabulary's beginning-of-text token, "" for families that have none (Qwen).
    """

    tokens: Tokens = "hermes"
    beginning: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens not in get_args(Tokens):
            raise UserError(f"tokens={self.tokens!r} is unknown; use one of {', '.join(get_args(Tokens))}")

    @property
    def controls(self) -> tuple[str, ...]:
        """The control tokens this renderer writes."""
        return (*filter(None, [self.beginning]), "<|im_start|>", "<|im_end|>", *_MARKS[self.tokens])

    def render_conversation(self, conversation: Conversation) -> Rendering:
        """The spans of a conversation."""
        spans = SpanBuilder()
        spans.add(self.beginning, 0.0, "template")
        self._system(spans, conversation)
        spans.end_carry()
        for is_result, group in groupby(conversation.turns, lambda turn: isinstance(turn, ToolTurn)):
            if is_result:
                self._results(spans, list(group))
                continue
            for turn in group:
                if isinstance(turn, AssistantTurn):
                    self._assistant(spans, turn)
                else:
                    assert isinstance(turn, UserTurn)
                    spans.add("<|im_start|>user\n", self.context, "template")
                    spans.add(turn.text, self.context, turn.kind)
                    spans.add("<|im_end|>\n", self.context, "template")
        return spans.build()

    def _system(self, spans: SpanBuilder, conversation: Conversation) -> None:
        if not (conversation.system or conversation.tool_prompt or conversation.tools):
            return
        spans.add("<|im_start|>system\n", self.context, "template")
        spans.add(conversation.system, self.context, "system")
        if conversation.tool_prompt:
            spans.add("\n\n" if conversation.system else "", self.context, "template")
            spans.add(conversation.tool_prompt, self.context, "tools")
        if conversation.tools:
            behind = conversation.system or conversation.tool_prompt
            spans.add(("\n\n" if behind else "") + TOOLS_BEFORE, self.context, "template")
            listing = "\n".join(compact_json(tool_schema(tool)) for tool in conversation.tools)
            spans.add(listing, self.context, "tools")
            spans.add(TOOLS_BEHIND, self.context, "template")
        spans.add("<|im_end|>\n", self.context, "template")

    def _assistant(self, spans: SpanBuilder, turn: AssistantTurn) -> None:
        spans.add("<|im_start|>assistant\n", self.context, "template")
        thought = thought_parts(turn)
        if thought:
            opening, *inner, closing = thought
            spans.add(opening.text, opening.weight, "template")
            spans.add_parts(inner)
            spans.add(closing.text, closing.weight, "template")
        spans.add_parts(turn.text)
        for i, part in enumerate(turn.calls):
            spans.add("\n" if i or turn.text else "", part.weight, "template")
            spans.add("<tool_call>\n", part.weight, "template")
            call = {"name": part.call.name, "arguments": part.call.arguments}
            spans.add(compact_json(call), part.weight, "assistant")
            spans.add("\n</tool_call>", part.weight, "template")
        spans.add("<|im_end|>", turn.end_weight, "template")
        spans.add("\n", self.context, "template")

    def _results(self, spans: SpanBuilder, results: list[Turn]) -> None:
        spans.add("<|im_start|>user", self.context, "template")
        for turn in results:
            assert isinstance(turn, ToolTurn)
            spans.add("\n<tool_response>\n", self.context, "template")
            spans.add(turn.text, self.context, "observation")
            spans.add("\n</tool_response>", self.context, "template")
        spans.add("<|im_end|>\n", self.context, "template")
