"""Llama 3.x chat: header, text and end-of-turn token, calls as JSON, results in the role `ipython`.

The ids equal those of `llama_models.llama3.chat_format.ChatFormat`, which encodes header, text and each call by
separate calls of the tokenizer; hence the seams. The tool list stands in a user message behind the system prompt, in
the words of Meta's Llama 3.1 prompt format.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, get_args

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat.conversation import AssistantTurn, CallPart, Conversation, ToolTurn
from hephaestus_jax.formats.chat.renderer import ChatRenderer, SpanBuilder, thought_parts, tool_schema
from hephaestus_jax.formats.spans import Kind, Rendering

Version = Literal["3", "3.1"]

TOOLS_BEFORE = (
    "Answer the user's question by making use of the following functions if needed.\n"
    "If none of the function can be used, please say so.\n"
    "Here is a list of functions in JSON format:\n"
)
TOOLS_BEHIND = "\n\nReturn function calls in JSON format."
ENVIRONMENT = "Environment: ipython"


@dataclass(frozen=True)
class Llama3(ChatRenderer):
    """Renders trajectories for Llama 3.x.

    Attributes:
        version: "3" uses only tokens that every Llama 3 vocabulary has: every message ends with `<|eot_id|>`, and
            Python code is a JSON call of the tool `python`. "3.1" turns on `Environment: ipython` in the system
            message of a conversation that has tools or calls: a message with calls ends with `<|eom_id|>`, and Python
            code is a message of its own behind `<|python_tag|>` (a text before it is a message that ends with
            `<|eom_id|>` too).
    """

    version: Version = "3"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version not in get_args(Version):
            raise UserError(f"Llama version {self.version!r} is unknown; use one of {', '.join(get_args(Version))}")

    @property
    def controls(self) -> tuple[str, ...]:
        """The control tokens this renderer writes."""
        common = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
        return common if self.version == "3" else (*common, "<|eom_id|>", "<|python_tag|>")

    def announces(self, language: str) -> bool:
        """Version 3.1 has `Environment: ipython` for Python."""
        return self.version == "3.1" and language.lower() in ("python", "ipython")

    def render_conversation(self, conversation: Conversation) -> Rendering:
        """The spans of a conversation."""
        spans = SpanBuilder()
        spans.add("<|begin_of_text|>", 0.0, "template")
        self._preamble(spans, conversation)
        spans.end_carry()
        for turn in conversation.turns:
            if isinstance(turn, AssistantTurn):
                end = "<|eom_id|>" if self.version == "3.1" and turn.calls else "<|eot_id|>"
                for message in self._messages(turn):
                    self._assistant(spans, message, end)
                continue
            self._header(spans, "ipython" if isinstance(turn, ToolTurn) else "user")
            spans.add(turn.text, self.context, "observation" if isinstance(turn, ToolTurn) else turn.kind)
            spans.add("<|eot_id|>", self.context, "template")
        return spans.build()

    def _preamble(self, spans: SpanBuilder, conversation: Conversation) -> None:
        calls = any(isinstance(turn, AssistantTurn) and turn.calls for turn in conversation.turns)
        environment = ENVIRONMENT if self.version == "3.1" and (conversation.tools or calls) else ""
        prompt: list[tuple[str, Kind]] = [
            (environment, "template"),
            (conversation.system, "system"),
            (conversation.tool_prompt, "tools"),
        ]
        prompt = [(text, kind) for text, kind in prompt if text]
        if prompt:
            self._header(spans, "system")
            for i, (text, kind) in enumerate(prompt):
                spans.add("\n\n" if i else "", self.context, "template")
                spans.add(text, self.context, kind)
            spans.add("<|eot_id|>", self.context, "template")
        if conversation.tools:
            self._header(spans, "user")
            spans.add(TOOLS_BEFORE, self.context, "template")
            listing = "\n\n".join(json.dumps(tool_schema(tool), indent=4) for tool in conversation.tools)
            spans.add(listing, self.context, "tools")
            spans.add(TOOLS_BEHIND + "<|eot_id|>", self.context, "template")

    def _messages(self, turn: AssistantTurn) -> list[AssistantTurn]:
        """The turn as messages: with version 3.1 each piece of Python code is one of its own."""
        if not any(self._is_tagged(part) for part in turn.calls):
            return [turn]
        said = (*turn.thought, *turn.text)
        messages = [AssistantTurn(turn.thought, turn.text, (), said[-1].weight)] if said else []
        for part in turn.calls:
            last = messages[-1] if messages else None
            if last is None or self._is_tagged(part) or any(self._is_tagged(other) for other in last.calls):
                messages.append(AssistantTurn(calls=(part,), end_weight=part.weight))
            else:
                messages[-1] = AssistantTurn(last.thought, last.text, (*last.calls, part), part.weight)
        return messages

    def _is_tagged(self, part: CallPart) -> bool:
        return bool(part.language) and self.announces(part.language)

    def _assistant(self, spans: SpanBuilder, turn: AssistantTurn, end: str) -> None:
        self._header(spans, "assistant")
        spans.add_parts(thought_parts(turn))
        spans.add_parts(turn.text)
        for part in turn.calls:
            if self._is_tagged(part):
                spans.add("<|python_tag|>", part.weight, "template")
                spans.add(part.call.arguments["code"], part.weight, "assistant")
            else:
                spans.seam()
                spans.add(call_json(part), part.weight, "assistant")
        spans.add(end, turn.end_weight, "template")

    def _header(self, spans: SpanBuilder, role: str) -> None:
        spans.add(f"<|start_header_id|>{role}<|end_header_id|>\n\n", self.context, "template")
        spans.seam()


def call_json(part: CallPart) -> str:
    """A call as Llama writes it, non-ASCII characters escaped."""
    return json.dumps({"type": "function", "name": part.call.name, "parameters": part.call.arguments})
