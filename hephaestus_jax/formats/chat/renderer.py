"""What every chat renderer shares: its options, its weights, its fingerprint, and the assembly of spans."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat.calls import Call
from hephaestus_jax.formats.chat.conversation import (
    AssistantTurn,
    CallPart,
    Conversation,
    Part,
    ToolTurn,
    UserTurn,
    code_tool,
    conversation_of,
)
from hephaestus_jax.formats.records import Json, Record, Tool, Trajectory, digest
from hephaestus_jax.formats.spans import SEAM, Kind, Rendering, Span

TrainOn = Literal["all", "assistant"]


class SpanBuilder:
    """Assembles the spans of one rendering; neighbours of one weight and kind become one span."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._carry = 0

    def add(self, text: str, weight: float, kind: Kind) -> None:
        """Appends text; an empty text changes nothing."""
        if not text:
            return
        last = self._spans[-1] if len(self._spans) > self._carry else SEAM
        if last.text and last.weight == weight and last.kind == kind:
            self._spans[-1] = Span(last.text + text, weight, kind)
        else:
            self._spans.append(Span(text, weight, kind))

    def add_parts(self, parts: Iterable[Part]) -> None:
        """Appends what the assistant said."""
        for part in parts:
            self.add(part.text, part.weight, "assistant")

    def seam(self) -> None:
        """What follows is encoded by a call of its own."""
        self._spans.append(SEAM)

    def end_carry(self) -> None:
        """What stands so far is repeated when the record continues in another row."""
        self._carry = len(self._spans)

    def build(self) -> Rendering:
        """The rendering of what was added."""
        return Rendering(tuple(self._spans), self._carry)


@dataclass(frozen=True)
class ChatRenderer:
    """Base of the chat renderers: `Renderer` for trajectories.

    Attributes:
        train_on: "all" weighs every turn, the system prompt, the tool list and the markup between turns as well
            (continual pre-training); "assistant" weighs what the assistant writes, the markup of its calls and its
            end-of-turn token (fine-tuning). Beginning-of-text weighs 0, as does a step that went wrong, either way.
        thoughts: keep `reasoning_content`.
    """

    train_on: TrainOn = "all"
    thoughts: bool = True

    def __post_init__(self) -> None:
        if self.train_on not in get_args(TrainOn):
            raise UserError(f"train_on={self.train_on!r} is unknown; use one of {', '.join(get_args(TrainOn))}")

    @property
    def controls(self) -> tuple[str, ...]:
        """The control tokens this renderer writes, BOS and EOS of `formats.spans` left out."""
        raise NotImplementedError

    def render_conversation(self, conversation: Conversation) -> Rendering:
        """The spans of a conversation."""
        raise NotImplementedError

    @property
    def context(self) -> float:
        """The weight of what the assistant did not write."""
        return 1.0 if self.train_on == "all" else 0.0

    def fingerprint(self) -> str:
        """Digest of the class, its options and the rendering of sample conversations: code changes show in it."""
        options = {f.name: repr(getattr(self, f.name)) for f in dataclasses.fields(self)}
        code = [self.announces("python"), dataclasses.asdict(code_tool("python"))]
        return digest([type(self).__name__, options, code, *(self._sample(sample) for sample in _SAMPLES)])

    def render(self, record: Record) -> Rendering:
        """The spans of a trajectory.

        Raises:
            UserError: the record is no trajectory, or holds something that this family has no form for.
        """
        if not isinstance(record, Trajectory):
            raise UserError(f"{type(record).__name__} has no chat form; render it with formats.documents")
        code_tools = [language for language in record.code_languages if not self.announces(language)]
        return self.render_conversation(conversation_of(record, self.thoughts, code_tools))

    def announces(self, language: str) -> bool:
        """Whether this family says in its own way that code of a language can be run; else it is offered as a tool."""
        del language
        return False

    def _sample(self, conversation: Conversation) -> Json:
        try:
            rendering = self.render_conversation(conversation)
        except UserError as error:
            return str(error)
        return [rendering.carry, *(dataclasses.astuple(span) for span in rendering.spans)]


def tool_schema(tool: Tool) -> dict[str, Json]:
    """A tool in the form that OpenAI's API introduced and the families took over."""
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def compact_json(value: Json) -> str:
    """JSON on one line with every character as it is, the form in which Mistral and Qwen write calls."""
    return json.dumps(value, ensure_ascii=False)


def thought_parts(turn: AssistantTurn) -> tuple[Part, ...]:
    """The turn's thought between `<think>` marks, the form of Qwen 3 and of reasoning models made from Llama.

    The marks are text for Llama and Mistral, whose vocabularies have no token for them.
    """
    if not turn.thought:
        return ()
    first, last = turn.thought[0].weight, turn.thought[-1].weight
    return (Part("<think>\n", first), *turn.thought, Part("\n</think>\n\n", last))


_SAMPLES = (
    Conversation((UserTurn("a question"), AssistantTurn((Part("a thought"),), (Part("an answer"),))), "a prompt"),
    Conversation(
        (
            UserTurn("a question"),
            AssistantTurn(
                text=(Part("said"), Part("\n\nwrong", 0.0)),
                calls=(
                    CallPart(Call("look_up", {"key": ["é", 1.5, None, {"deep": True}]}), "callid001", 0.0),
                    CallPart(Call("python", {"code": "print('x')"}), "other id", 1.0, "python", 1),
                ),
            ),
            ToolTurn('{"value": 1}', "callid001", "look_up", 0),
            ToolTurn("x\n", "other id", "python", 1),
            UserTurn("a page", "observation"),
            AssistantTurn((Part("why"),), (Part("done"),)),
        ),
        "a system prompt",
        (Tool("look_up", "Looks up é."), Tool("GET /v1/pets/{id}")),
    ),
)
