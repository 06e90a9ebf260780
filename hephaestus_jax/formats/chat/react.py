"""ReAct (Yao et al., arXiv 2210.03629): Thought, Action, Action Input, Observation, Final Answer, each on its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat.conversation import SEPARATOR, AssistantTurn, Part
from hephaestus_jax.formats.chat.renderer import compact_json
from hephaestus_jax.formats.chat.text_format import TextFormat
from hephaestus_jax.formats.records import Tool


@dataclass(frozen=True)
class React(TextFormat):
    """Renders trajectories as ReAct.

    In a turn with calls thought and text are the `Thought:` and each call an `Action:` with its `Action Input:`, a JSON
    object on one line. In a turn without calls the text is the `Final Answer:`, behind the `Thought:` if there is one.
    """

    user_prefix = "Question: "
    assistant_prefix = ""
    turn_end = "\n"

    def tool_prompt(self, tools: Sequence[Tool]) -> str:
        """The tools with their schemas, and the form of an answer."""
        listing = "\n".join(
            f"- {tool.name}: {tool.description}".rstrip(": ") + f" Arguments: {compact_json(dict(tool.parameters))}"
            for tool in tools
        )
        return (
            f"You can call these tools:\n{listing}\n\n"
            "Write in this form, and call as many tools as you need:\n"
            "Thought: what to do next\n"
            "Action: the name of a tool\n"
            "Action Input: its arguments, a JSON object on one line\n"
            "Observation: what the tool returned\n"
            "Final Answer: the answer to the question"
        )

    def assistant_text(self, turn: AssistantTurn) -> tuple[Part, ...]:
        """The turn as labelled lines."""
        if not turn.calls:
            thought = _labelled("Thought: ", turn.thought)
            answer = _labelled("Final Answer: ", turn.text)
            return (*thought, *_behind("\n", thought, answer))
        lines = list(_labelled("Thought: ", (*turn.thought, *_behind(SEPARATOR, turn.thought, turn.text))))
        for part in turn.calls:
            name = part.call.name
            if "\n" in name or name != name.strip() or not name:
                raise UserError(f"ReAct has no form for a tool named {name!r}; a name is one line without outer spaces")
            action = f"Action: {name}\nAction Input: {compact_json(part.call.arguments)}"
            lines.append(Part("\n" + action if lines else action, part.weight))
        return tuple(lines)


def _labelled(label: str, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return (replace(parts[0], text=label + parts[0].text), *parts[1:]) if parts else ()


def _behind(separator: str, first: tuple[Part, ...], then: tuple[Part, ...]) -> tuple[Part, ...]:
    return (replace(then[0], text=separator + then[0].text), *then[1:]) if first and then else then
