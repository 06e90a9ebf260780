"""Trajectories as neutral conversations: what was said, called and returned, before any family's markup.

Every family renders a `Conversation`, so the questions that have nothing to do with markup are answered once, here:

* Consecutive actions become one assistant turn: its texts first, then its calls (several calls are parallel calls). A
  text that follows a call opens a new turn, because no family can put text behind a call.
* The `description` of an action is said in front of it. `reasoning_content` is a thought, kept or left out by option.
* A step whose outcome is "error" keeps its place at weight 0; every other step weighs 1.
* Code becomes a call of a tool named after the language, with one argument `code`; that tool is offered with the others
  unless the family has its own way of saying that code can be run.
* An observation answers the call whose id it carries, else, unless a user speaks, the oldest call still unanswered.
  An environment's observation that answers no call is shown in a user turn, as kind "observation".
* A page is its URL with the accessibility tree, else the HTML; an image is the placeholder `[image]` with the texts
  of its annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hephaestus_jax.formats.chat.calls import Call
from hephaestus_jax.formats.records import (
    Action,
    ApiAction,
    CodeAction,
    ImageObservation,
    Json,
    MessageAction,
    Observation,
    TextObservation,
    Tool,
    Trajectory,
    WebObservation,
)

SEPARATOR = "\n\n"  # between two texts of one turn
IMAGE_PLACEHOLDER = "[image]"


@dataclass(frozen=True)
class Part:
    """Text of an assistant turn with its loss weight; the parts of a turn join without a separator."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class CallPart:
    """One call of an assistant turn. `language` is set when the call stands for code."""

    call: Call
    call_id: str = ""  # "" when the source gave none
    weight: float = 1.0
    language: str = ""
    index: int = 0  # which call of the conversation this is, counted from 0


@dataclass(frozen=True)
class AssistantTurn:
    """What the agent thinks, says and calls, in this order; the end of the turn weighs what its last step weighs."""

    thought: tuple[Part, ...] = ()
    text: tuple[Part, ...] = ()
    calls: tuple[CallPart, ...] = ()
    end_weight: float = 1.0


@dataclass(frozen=True)
class UserTurn:
    """Text shown in the user's role; `kind` is "observation" when an environment or another agent speaks."""

    text: str
    kind: Literal["user", "observation"] = "user"


@dataclass(frozen=True)
class ToolTurn:
    """What a call returned. `call_id` equals that of the call and may be empty; `name` is the tool's."""

    text: str
    call_id: str
    name: str
    index: int  # which call of the conversation this answers, counted from 0


Turn = AssistantTurn | UserTurn | ToolTurn


@dataclass(frozen=True)
class Conversation:
    """The system prompt, the tools on offer and the turns.

    `tool_prompt` is a description of the tools in words, for formats that have no markup for them.
    """

    turns: tuple[Turn, ...]
    system: str = ""
    tools: tuple[Tool, ...] = ()
    tool_prompt: str = ""


def code_tool(language: str) -> Tool:
    """The tool that runs code of a language."""
    code = {"type": "string", "description": f"{language.capitalize()} code. What it defines stays for later calls."}
    schema = {"type": "object", "properties": {"code": code}, "required": ["code"]}
    return Tool(language, f"Runs {language.capitalize()} code and returns what it prints.", schema)


def conversation_of(trajectory: Trajectory, thoughts: bool = True, code_tools: Sequence[str] = ()) -> Conversation:
    """The conversation of a trajectory.

    Args:
        trajectory: any.
        thoughts: keep `reasoning_content`.
        code_tools: languages whose code is offered as a tool, unless there is a tool of that name.
    """
    builder = _Turns(thoughts)
    for step in trajectory.steps:
        if isinstance(step, Action):
            builder.act(step)
        else:
            builder.observe(step)
    named = {tool.name for tool in trajectory.tools}
    tools = (*trajectory.tools, *(code_tool(language) for language in code_tools if language not in named))
    return Conversation(builder.finish(), trajectory.system, tools)


def observation_text(observation: Observation) -> str:
    """The text form of an observation: a page is its URL and accessibility tree, else HTML; images a placeholder."""
    if isinstance(observation, TextObservation):
        return observation.content
    if isinstance(observation, ImageObservation):
        return "\n".join([IMAGE_PLACEHOLDER, *_annotation_texts(observation.annotations)])
    assert isinstance(observation, WebObservation)
    lines = [f"URL: {observation.url}"] if observation.url else []
    page = observation.axtree or observation.html
    if page:
        lines.append(page)
    if observation.image_observation is not None:
        lines.append(IMAGE_PLACEHOLDER)
    return "\n".join(lines)


def step_weight(action: Action) -> float:
    """0 for a step that went wrong, else 1."""
    return 0.0 if action.outcome == "error" else 1.0


def joined(parts: tuple[Part, ...]) -> str:
    """The text of the parts."""
    return "".join(part.text for part in parts)


class _Turns:
    """Collects steps into turns and pairs results with calls."""

    def __init__(self, thoughts: bool):
        self.thoughts = thoughts
        self.turns: list[Turn] = []
        self.open: AssistantTurn | None = None
        self.calls: list[tuple[str, str]] = []  # id and name of every call so far
        self.pending: list[int] = []  # calls without a result, as indices into `calls`

    def act(self, action: Action) -> None:
        weight = step_weight(action)
        thought = (action.reasoning_content or "") if self.thoughts else ""
        said = [action.description or ""]
        if isinstance(action, MessageAction):
            said.append(action.content)
        text = SEPARATOR.join(filter(None, said))
        if self.open is None:
            self.open = AssistantTurn()
        elif (self.open.calls and (text or thought)) or (self.open.text and thought):
            self._close()
            self.open = AssistantTurn()
        turn = self.open
        self.open = AssistantTurn(
            _appended(turn.thought, thought, weight),
            _appended(turn.text, text, weight),
            turn.calls + self._call(action, weight),
            weight,
        )

    def _call(self, action: Action, weight: float) -> tuple[CallPart, ...]:
        if isinstance(action, MessageAction):
            return ()
        call_id, index = action.tool_call_id or "", len(self.calls)
        if isinstance(action, CodeAction):
            part = CallPart(Call(action.language, {"code": action.content}), call_id, weight, action.language, index)
        else:
            assert isinstance(action, ApiAction)
            part = CallPart(Call(action.function, dict(action.kwargs)), call_id, weight, index=index)
        self.pending.append(index)
        self.calls.append((call_id, part.call.name))
        return (part,)

    def observe(self, observation: Observation) -> None:
        self._close()
        text = observation_text(observation)
        index = self._answered(observation)
        if index is not None:
            if index in self.pending:
                self.pending.remove(index)
            call_id, name = self.calls[index]
            self.turns.append(ToolTurn(text, call_id, name, index))
        else:
            self.turns.append(UserTurn(text, "user" if _source(observation) == "user" else "observation"))

    def _answered(self, observation: Observation) -> int | None:
        if observation.tool_call_id:
            for index in reversed(range(len(self.calls))):
                if self.calls[index][0] == observation.tool_call_id:
                    return index
        if _source(observation) == "user":
            return None
        return self.pending[0] if self.pending else None

    def _close(self) -> None:
        if self.open is not None:
            self.turns.append(self.open)
            self.open = None

    def finish(self) -> tuple[Turn, ...]:
        self._close()
        return tuple(self.turns)


def _source(observation: Observation) -> str:
    """Who speaks: "user", "agent" or "environment"; pages and images come from the environment unless they say so."""
    return getattr(observation, "source", None) or "environment"


def _appended(parts: tuple[Part, ...], text: str, weight: float) -> tuple[Part, ...]:
    if not text:
        return parts
    return (*parts, Part(SEPARATOR + text if parts else text, weight))


def _annotation_texts(annotations: Json) -> list[str]:
    if not isinstance(annotations, (list, tuple)):
        return []
    texts = [item.get("text") for item in annotations if isinstance(item, dict)]
    return [text for text in texts if isinstance(text, str) and text]
