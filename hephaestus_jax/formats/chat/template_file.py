"""Any family, through the `chat_template` in its own tokenizer files.

The text is what `transformers`' `apply_chat_template` gives. Which characters are whose is found by rendering a second
time with a private-use character before and behind each content: taking them out must give the first rendering again,
or the template is refused. What the assistant writes are the template's `{% generation %}` blocks if it has them, else
all from behind the generation prompt up to and with the token that ends the turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat.conversation import AssistantTurn, Conversation, Part, ToolTurn, UserTurn, joined
from hephaestus_jax.formats.chat.jinja_template import JinjaTemplate
from hephaestus_jax.formats.chat.marking import Mark, Marker, Segment
from hephaestus_jax.formats.chat.mistral import mistral_call_id
from hephaestus_jax.formats.chat.renderer import ChatRenderer, SpanBuilder, TrainOn, tool_schema
from hephaestus_jax.formats.chat.tokenizer_files import TokenizerFiles
from hephaestus_jax.formats.records import Json, canonical_json
from hephaestus_jax.formats.spans import Kind, Rendering

_PREAMBLE = -1  # the message number of the system prompt and of the tools


@dataclass(frozen=True)
class TemplateFile(ChatRenderer):
    """Renders trajectories through a chat template.

    Calls of one turn whose steps weigh differently share the template's text between them at the lower weight.

    Attributes:
        files: the templates and tokens.
        variables: variables for the template, for instance `enable_thinking`, as a JSON object.
        today: the date for templates that write one, as "2024-07-26".
        lossy: take templates that leave out texts: some drop what is said beside a call, or the calls. Without it such
            a conversation is an error. (What a template does with thoughts is its own affair.)
    """

    files: TokenizerFiles = field(default_factory=TokenizerFiles)
    variables: str = "{}"
    today: str = ""
    lossy: bool = False

    @classmethod
    def from_directory(
        cls,
        directory: str | Path,
        train_on: TrainOn = "all",
        thoughts: bool = True,
        variables: Mapping[str, Json] | None = None,
        today: str = "",
        lossy: bool = False,
    ) -> TemplateFile:
        """The renderer of a Hugging Face tokenizer directory.

        Raises:
            UserError: the files are missing or malformed, or the template is not valid Jinja.
        """
        files = TokenizerFiles.read(directory)
        renderer = cls(train_on, thoughts, files, canonical_json(dict(variables or {})), today, lossy)
        for tools in (False, True):
            renderer._template(tools)  # a syntax error is found here, not in a worker
        return renderer

    @property
    def controls(self) -> tuple[str, ...]:
        """The tokenizer's special tokens, and the other tokens that look like marks and that the template writes."""
        return self.files.controls

    def render_conversation(self, conversation: Conversation) -> Rendering:
        """The spans of a conversation.

        Raises:
            UserError: the template refuses the conversation, or its contents cannot be found in the rendering.
        """
        plain, segments, generated = self._rendered(conversation)
        regions = self._regions(conversation, plain, segments, generated)
        beginning = len(self._beginning) if plain.startswith(self._beginning) else 0
        carry_end = self._carry_end(plain, segments, beginning)
        return _assemble(plain, segments, regions, self.context, beginning, carry_end)

    def messages(self, conversation: Conversation, marker: Marker | None = None) -> list[dict[str, Json]]:
        """The conversation in the form of OpenAI's API, contents marked if there is a marker."""
        marker = marker or _NoMarker()
        prompt = "\n\n".join(filter(None, [conversation.system, conversation.tool_prompt]))
        messages: list[dict[str, Json]] = []
        if prompt:
            messages.append({"role": "system", "content": marker.mark(prompt, self._mark("system", _PREAMBLE))})
        for number, turn in enumerate(conversation.turns):
            if isinstance(turn, AssistantTurn):
                messages.append(self._assistant(turn, number, marker))
            elif isinstance(turn, UserTurn):
                messages.append({"role": "user", "content": marker.mark(turn.text, self._mark(turn.kind, number))})
            else:
                messages.append(self._result(turn, number, marker))
        return messages

    def tools(self, conversation: Conversation, marker: Marker | None = None) -> list[Json] | None:
        """The tools in the form of OpenAI's API, None when there are none."""
        marker = marker or _NoMarker()
        mark = self._mark("tools", _PREAMBLE)
        schemas = []
        for tool in conversation.tools:
            schema = marker.protect(tool_schema(tool), self._suspicious, mark)
            schema["function"]["name"] = marker.mark(tool.name, mark)  # never optional: a list left out is noticed
            schemas.append(schema)
        return schemas or None

    def _mark(self, kind: Kind, message: int) -> Mark:
        return Mark(kind, message, self.context)

    def _assistant(self, turn: AssistantTurn, number: int, marker: Marker) -> dict[str, Json]:
        message: dict[str, Json] = {"role": "assistant"}
        message["content"] = marker.mark_parts(turn.text, Mark("assistant", number, 1.0))
        if turn.thought:
            thought = marker.mark_parts(turn.thought, Mark("assistant", number, 1.0, optional=True))
            message |= {"reasoning_content": thought, "thinking": thought}  # templates read either name
        calls = []
        for part in turn.calls:
            mark = Mark("assistant", number, part.weight)
            function = {
                "name": marker.mark(part.call.name, mark),
                "arguments": marker.protect(part.call.arguments, self._suspicious, mark),
            }
            call_id = marker.protect(_call_id(part.call_id, part.index), self._suspicious, mark)
            calls.append({"type": "function", "id": call_id, "function": function})
        return {**message, "tool_calls": calls} if calls else message

    def _result(self, turn: ToolTurn, number: int, marker: Marker) -> dict[str, Json]:
        mark = self._mark("observation", number)
        return {
            "role": "tool",
            "content": marker.mark(turn.text, mark),
            "tool_call_id": marker.protect(_call_id(turn.call_id, turn.index), self._suspicious, mark),
            "name": marker.protect(turn.name, self._suspicious, mark),
        }

    def _rendered(self, conversation: Conversation) -> tuple[str, list[Segment], list[tuple[int, int]]]:
        template = self._template(bool(conversation.tools))
        messages, tools = self.messages(conversation), self.tools(conversation)
        plain = template.render(messages, tools)
        marker = Marker(json.dumps([messages, tools], ensure_ascii=False))
        marked = template.render(
            self.messages(conversation, marker), self.tools(conversation, marker), generation_marks=marker.generation
        )
        segments, generated = marker.find(marked, plain)
        lost = None if self.lossy else marker.left_out(segments)
        if lost is not None:
            raise UserError(
                f"the chat template leaves out a text of kind {lost.kind!r} (turn {lost.message});"
                " pass lossy=True to take what it writes, or choose another family"
            )
        numbers = [segment.mark.message for segment in segments]
        turns = [number for number in numbers if number != _PREAMBLE]
        if turns != sorted(turns):
            raise UserError("the chat template changes the order of messages, so their weights cannot be found")
        return plain, segments, generated

    def _regions(
        self, conversation: Conversation, plain: str, segments: list[Segment], generated: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """What the assistant writes, as stretches of `plain` in order; empty turns have none."""
        if generated:
            return generated
        regions = []
        indices = [i for i, segment in enumerate(segments) if segment.mark.message != _PREAMBLE]
        for number, group in groupby(indices, lambda i: segments[i].mark.message):
            first, *others = group
            last = others[-1] if others else first
            if not isinstance(conversation.turns[number], AssistantTurn):
                continue
            before = segments[first - 1].end if first else 0
            behind = segments[last + 1].start if last + 1 < len(segments) else len(plain)
            previous = conversation.turns[number - 1] if number else None
            start = before + self._opening_end(plain[before : segments[first].start], previous)
            regions.append((start, segments[last].end + self._closing_end(plain[segments[last].end : behind])))
        return regions

    def _opening_end(self, gap: str, previous: object) -> int:
        """Where in `gap`, the text before an assistant's first content, its own writing begins."""
        prompt = self._probes.prompt
        token = self._controls.search(prompt)
        # a prompt that also opens a thought is found in part where no thought was kept
        for end in range(len(prompt), token.end() - 1 if token else 0, -1):
            found = gap.rfind(prompt[:end])
            if found >= 0:
                return found + end
        closing = self._probes.closing if isinstance(previous, AssistantTurn) else self._probes.user_closing
        if isinstance(previous, ToolTurn):
            match = self._controls.search(gap)
            closing = match[0] if match else ""
        if not prompt and closing and closing in gap:
            return gap.index(closing) + len(closing)
        raise UserError("the chat template does not open this assistant's turn as it opens others; no weights for it")

    def _closing_end(self, gap: str) -> int:
        """Where in `gap`, the text behind an assistant's last content, its turn ends."""
        closing = self._probes.closing
        if closing in gap:
            return gap.index(closing) + len(closing)
        match = self._controls.search(gap)
        return match.end() if match else 0

    def _carry_end(self, plain: str, segments: list[Segment], beginning: int) -> int:
        """Where the first turn begins if it is a user's; else behind beginning-of-text."""
        turns = [i for i, segment in enumerate(segments) if segment.mark.message != _PREAMBLE]
        header = self._probes.user_opening
        if turns and header and segments[turns[0]].mark.kind in ("user", "observation"):
            before = segments[turns[0] - 1].end if turns[0] else 0
            found = plain.rfind(header, before, segments[turns[0]].start)
            if found >= 0:
                return found
        return beginning

    @property
    def _beginning(self) -> str:
        return dict(self.files.special_tokens).get("bos_token", "")

    def _template(self, tools: bool) -> JinjaTemplate:
        variables = canonical_json({**dict(self.files.special_tokens), **json.loads(self.variables)})
        return JinjaTemplate(self.files.tool_template if tools else self.files.template, variables, self.today)

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        return _any_of(self.files.controls)

    @cached_property
    def _suspicious(self) -> re.Pattern[str]:
        """Tokens, this family's and those of others, which must not come from a template span by chance."""
        return re.compile(rf"{_any_of(self.files.added_tokens).pattern}|<\|\w+\|>")

    @cached_property
    def _probes(self) -> _Probes:
        """How the template opens and closes turns, learned from a small conversation."""
        question = {"role": "user", "content": "probe-a"}
        answer = {"role": "assistant", "content": "probe-b"}
        template = self._template(False)
        asked, prompted = template.render([question], None), template.render([question], None, prompt=True)
        if not prompted.startswith(asked):
            raise UserError("the chat template's generation prompt does not follow the conversation; no weights for it")
        answered = template.render([question, answer], None)
        closing = answered.rpartition("probe-b")[2]
        end = self._controls.search(closing)
        if end is None:
            raise UserError("the chat template ends an assistant's turn with no token of the tokenizer; no weights")
        again = template.render([question, answer, {"role": "user", "content": "probe-c"}], None)
        between = again.rpartition("probe-b")[2].partition("probe-c")[0]
        opening = between.removeprefix(closing[: end.end()]).lstrip("\n")
        return _Probes(prompted[len(asked) :], asked.rpartition("probe-a")[2], closing[: end.end()], opening)


@dataclass(frozen=True)
class _Probes:
    prompt: str  # the generation prompt, "" when the template has none
    user_closing: str  # what ends a user's turn
    closing: str  # what ends an assistant's turn, up to its first control token
    user_opening: str  # what opens a user's turn


class _NoMarker(Marker):
    """Leaves texts as they are."""

    def __init__(self) -> None:
        pass

    def mark(self, text: str, mark: Mark) -> str:
        return text

    def mark_parts(self, parts: Sequence[Part], mark: Mark) -> str:
        return joined(tuple(parts))


def _any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _call_id(call_id: str, index: int) -> str:
    return call_id or mistral_call_id("", index)


def _assemble(
    plain: str, segments: list[Segment], regions: list[tuple[int, int]], context: float, beginning: int, carry_end: int
) -> Rendering:
    """Spans from positions: contents by kind, the text between them as template.

    `beginning` characters of beginning-of-text weigh 0.
    """
    cuts = {0, len(plain), beginning, carry_end}
    cuts.update(position for region in regions for position in region)
    cuts.update(position for segment in segments for position in (segment.start, segment.end))
    spans = SpanBuilder()
    ahead, regions_ahead = 0, 0  # the first segment, and the first region, that does not end before the stretch
    edges = sorted(cuts)
    for start, end in pairwise(edges):
        while ahead < len(segments) and segments[ahead].end <= start:
            ahead += 1
        while regions_ahead < len(regions) and regions[regions_ahead][1] <= start:
            regions_ahead += 1
        low, high = regions[regions_ahead] if regions_ahead < len(regions) else (end, end)
        inside = low <= start
        near = segments[max(ahead - 1, 0) : ahead + 1]
        own = [s for s in near if s.start <= start < s.end]
        if inside:
            weight = min((s.mark.weight for s in own or near if low <= s.start < high), default=1.0)
        else:
            weight = min([context, *(s.mark.weight for s in own)])
        spans.add(plain[start:end], 0.0 if end <= beginning else weight, own[0].mark.kind if own else "template")
        if end == carry_end:
            spans.end_carry()
    return spans.build()
