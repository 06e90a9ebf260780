"""Mistral instruct formats v1, v2, v3 (SentencePiece and Tekken) and v7.

The ids equal those of `mistral_common`, which encodes each piece between control tokens by a call of its own; in v1,
where `[INST]` is text, user and assistant turns are separate calls, hence the seams.

What the maker's encoder does and this one follows: consecutive user turns join with a blank line; v1 puts the system
prompt in front of the first user turn, v2 and v3 in front of the last one, v7 between tokens of its own at the start;
v2, v3 and v7 list the tools before the last user turn; v2 leaves out calls and results before the last user turn; the
text of an assistant loses its trailing spaces (not in v1); results that are JSON are written as JSON in v2 and v3.

What it refuses and this one writes all the same, as v7 would: text and calls in one assistant turn in v2 and v3, and
several results of one turn in v2.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from dataclasses import dataclass, replace
from typing import Literal, get_args

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat.conversation import (
    SEPARATOR,
    AssistantTurn,
    CallPart,
    Conversation,
    Part,
    ToolTurn,
    Turn,
    UserTurn,
)
from hephaestus_jax.formats.chat.renderer import ChatRenderer, SpanBuilder, compact_json, thought_parts, tool_schema
from hephaestus_jax.formats.records import Json
from hephaestus_jax.formats.spans import Rendering

Version = Literal["v1", "v2", "v3", "v7"]
Placement = Literal["official", "first"]

CALL_ID_LENGTH = 9
_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_ALPHABET = string.digits + string.ascii_letters


@dataclass(frozen=True)
class Mistral(ChatRenderer):
    """Renders trajectories for Mistral's instruct models.

    Attributes:
        version: of the maker's instruct tokenizer. v1 has no tools: a trajectory with calls or tools is an error.
        placement: "official" puts the tools (and before v7 the system prompt) where the maker's encoder does, at the
            last user turn of the conversation: earlier turns are then trained without having seen them. "first" puts
            both at the first user turn. The carry is what precedes the first turn: beginning-of-text, the system
            prompt in v7, and the tools when they stand there.
    """

    version: Version = "v3"
    placement: Placement = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version not in get_args(Version):
            raise UserError(f"Mistral version {self.version!r} is unknown; use one of {', '.join(get_args(Version))}")
        if self.placement not in get_args(Placement):
            raise UserError(f"placement={self.placement!r} is unknown; use one of {', '.join(get_args(Placement))}")

    @property
    def controls(self) -> tuple[str, ...]:
        """The control tokens this renderer writes."""
        names = ["<s>", "</s>"]
        if self.version != "v1":
            names += ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
            names += ["[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
        if self.version == "v7":
            names += ["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"]
        return tuple(names)

    def render_conversation(self, conversation: Conversation) -> Rendering:
        """The spans of a conversation.

        Raises:
            UserError: v1, and the conversation has tools or calls.
        """
        turns = self._turns(conversation)
        users = [i for i, turn in enumerate(turns) if isinstance(turn, _UserTurns)]
        tools_at = users[-1 if self.placement == "official" else 0] if users else -1
        system_at = users[0] if users and self.version == "v1" else tools_at
        spans = SpanBuilder()
        spans.add("<s>", 0.0, "template")
        if self.version == "v7" and (conversation.system or conversation.tool_prompt):
            spans.add("[SYSTEM_PROMPT]", self.context, "template")
            self._system(spans, conversation)
            spans.add("[/SYSTEM_PROMPT]", self.context, "template")
        spans.end_carry()
        for i, turn in enumerate(turns):
            if isinstance(turn, _UserTurns):
                if i == tools_at:
                    self._tools(spans, conversation, leading=i == 0)
                self._user(spans, turn, conversation if i == system_at and self.version != "v7" else None)
            elif isinstance(turn, AssistantTurn):
                self._assistant(spans, turn, before_last_user=bool(users) and i < users[-1])
            elif not (self.version == "v2" and users and i < users[-1]):
                self._result(spans, turn)
        return spans.build()

    def _turns(self, conversation: Conversation) -> list[_UserTurns | AssistantTurn | ToolTurn]:
        """The turns with neighbouring user turns joined, opened by a user turn as the formats before v7 demand."""
        turns: list[_UserTurns | AssistantTurn | ToolTurn] = []
        for turn in conversation.turns:
            self._check(turn, conversation)
            if not isinstance(turn, UserTurn):
                turns.append(turn)
            elif turns and isinstance(turns[-1], _UserTurns):
                turns[-1] = _UserTurns((*turns[-1].turns, turn))
            else:
                turns.append(_UserTurns((turn,)))
        if self.version != "v7" and not (turns and isinstance(turns[0], _UserTurns)):
            turns.insert(0, _UserTurns(()))
        return turns

    def _check(self, turn: Turn, conversation: Conversation) -> None:
        calls = isinstance(turn, ToolTurn) or (isinstance(turn, AssistantTurn) and turn.calls)
        if self.version == "v1" and (calls or conversation.tools):
            raise UserError("Mistral v1 has no form for tools and calls; use version v3, or wrap them with `react`")

    def _system(self, spans: SpanBuilder, conversation: Conversation) -> None:
        spans.add(conversation.system, self.context, "system")
        spans.add(SEPARATOR if conversation.system and conversation.tool_prompt else "", self.context, "template")
        spans.add(conversation.tool_prompt, self.context, "tools")

    def _tools(self, spans: SpanBuilder, conversation: Conversation, leading: bool) -> None:
        if not conversation.tools:
            return
        spans.add("[AVAILABLE_TOOLS]", self.context, "template")
        spans.add(compact_json([tool_schema(tool) for tool in conversation.tools]), self.context, "tools")
        spans.add("[/AVAILABLE_TOOLS]", self.context, "template")
        if leading:
            spans.end_carry()

    def _user(self, spans: SpanBuilder, user: _UserTurns, with_system: Conversation | None) -> None:
        spaced = self.version == "v1"
        spans.add("[INST] " if spaced else "[INST]", self.context, "template")
        if with_system is not None and (with_system.system or with_system.tool_prompt):
            self._system(spans, with_system)
            spans.add(SEPARATOR, self.context, "template")
        said = [turn for turn in user.turns if turn.text]
        for i, turn in enumerate(said):
            spans.add(SEPARATOR if i else "", self.context, "template")
            spans.add(turn.text, self.context, turn.kind)
        spans.add(" [/INST]" if spaced else "[/INST]", self.context, "template")
        spans.seam()

    def _assistant(self, spans: SpanBuilder, turn: AssistantTurn, before_last_user: bool) -> None:
        parts = (*thought_parts(turn), *turn.text)
        calls = () if self.version == "v2" and before_last_user else turn.calls
        if not parts and not calls:
            return
        spans.add_parts(parts if self.version == "v1" else _without_trailing_spaces(parts))
        if calls:
            spans.add("[TOOL_CALLS]", calls[0].weight, "template")
            for i, part in enumerate(calls):
                spans.add(", " if i else "[", part.weight, "assistant")
                spans.add(compact_json(self._call(part)), part.weight, "assistant")
            spans.add("]", calls[-1].weight, "assistant")
        spans.add("</s>", turn.end_weight, "template")

    def _call(self, part: CallPart) -> Json:
        call: dict[str, Json] = {"name": part.call.name, "arguments": part.call.arguments}
        return call if self.version == "v2" else {**call, "id": mistral_call_id(part.call_id, part.index)}

    def _result(self, spans: SpanBuilder, turn: ToolTurn) -> None:
        call_id = mistral_call_id(turn.call_id, turn.index)
        spans.add("[TOOL_RESULTS]", self.context, "template")
        if self.version == "v7":
            spans.add(call_id, self.context, "template")
            spans.add("[TOOL_CONTENT]", self.context, "template")
            spans.add(turn.text, self.context, "observation")
        else:
            content = _as_json(turn.text or "{}")
            result: Json = {"content": content, "call_id": call_id}
            if self.version == "v2":
                result = [{"name": turn.name, "content": content}]
            spans.add(compact_json(result), self.context, "observation")
        spans.add("[/TOOL_RESULTS]", self.context, "template")


@dataclass(frozen=True)
class _UserTurns:
    """User turns that one `[INST]` block holds."""

    turns: tuple[UserTurn, ...]


def mistral_call_id(call_id: str, index: int) -> str:
    """`call_id` if it has the form the makers demand (9 letters or digits), else one derived from it.

    A call without an id takes the id of its index in the conversation.
    """
    if _CALL_ID.fullmatch(call_id):
        return call_id
    seed = call_id or f"call {index}"
    number = int.from_bytes(hashlib.blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "big")
    digits = []
    for _ in range(CALL_ID_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)


def _without_trailing_spaces(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    kept = list(parts)
    while kept:
        text = kept[-1].text.rstrip(" ")
        if text:
            return (*kept[:-1], replace(kept[-1], text=text))
        kept.pop()
    return ()


def _as_json(text: str) -> Json:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
