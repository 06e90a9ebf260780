"""Chat templates of tokenizer files, rendered as `transformers` renders them but without importing it.

Two differences are on purpose: a template that asks for today's date gets the date it is told, or an error, because a
corpus must not depend on the day it was built; and `{% generation %}` blocks can be marked in the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Json


@dataclass(frozen=True)
class JinjaTemplate:
    """A chat template with the variables that every rendering of it sees.

    Attributes:
        source: the template in the Jinja language.
        variables: the template's variables (special tokens, options such as `enable_thinking`) as a JSON object.
        today: the date that `strftime_now` gives, as "2024-07-26"; "" makes a template that asks an error.
    """

    source: str
    variables: str = "{}"
    today: str = ""

    def __post_init__(self) -> None:
        try:
            date.fromisoformat(self.today or "2024-01-01")
        except ValueError as error:
            raise UserError(f"today={self.today!r} is no date; write it as 2024-07-26") from error
        _compiled(self.source, self.today, ("", ""))  # a syntax error is found here, not in a worker

    def render(
        self,
        messages: list[dict[str, Json]],
        tools: list[Json] | None,
        prompt: bool = False,
        generation_marks: tuple[str, str] = ("", ""),
    ) -> str:
        """The text of a conversation in the form of OpenAI's API.

        Args:
            messages: each with `role` and `content`.
            tools: tools on offer, or None.
            prompt: end with the generation prompt.
            generation_marks: what to write before and behind what the template itself declares generated.

        Raises:
            UserError: the template refuses the conversation, or fails.
        """
        template = _compiled(self.source, self.today, generation_marks)
        variables: Mapping[str, Any] = json.loads(self.variables)
        try:
            return template.render(
                **{**variables, "messages": messages, "tools": tools, "documents": None},
                add_generation_prompt=prompt,
            )
        except UserError:
            raise
        except Exception as error:  # a template is somebody else's program and fails as it likes
            reason = " ".join(str(error).split())
            raise UserError(f"the chat template does not take this conversation: {reason}") from error


@lru_cache(maxsize=64)
def _compiled(source: str, today: str, generation_marks: tuple[str, str]) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.extend(generation_marks=generation_marks)
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _Clock(today)
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"the chat template is not valid Jinja: line {error.lineno}: {error.message}") from error


class _Generation(Extension):
    """The tag `{% generation %}`, by which a template declares what the assistant writes."""

    tags = {"generation"}  # noqa: RUF012  Jinja declares it so

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        before, behind = self.environment.generation_marks  # type: ignore[attr-defined]
        return before + caller() + behind


@dataclass(frozen=True)
class _Clock:
    today: str

    def __call__(self, form: str) -> str:
        if not self.today:
            raise UserError("the chat template asks for today's date; pass today='2024-07-26', a date for the corpus")
        return date.fromisoformat(self.today).strftime(form)


# Jinja's own filter escapes HTML characters, which chat templates do not want.
def _tojson(
    value: Json,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
