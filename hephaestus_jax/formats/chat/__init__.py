"""Chat renderers: trajectories in the turns of a model family, with tool calls, by name.

chat_renderer("llama3", train_on="assistant").render(trajectory)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat.calls import Call, MalformedCallError, parse_calls
from hephaestus_jax.formats.chat.code_action import CodeAsAction
from hephaestus_jax.formats.chat.hermes import Hermes
from hephaestus_jax.formats.chat.llama3 import Llama3
from hephaestus_jax.formats.chat.mistral import Mistral
from hephaestus_jax.formats.chat.react import React
from hephaestus_jax.formats.chat.renderer import ChatRenderer
from hephaestus_jax.formats.chat.text_format import TextFormat

__all__ = ["FAMILIES", "Call", "ChatRenderer", "MalformedCallError", "chat_renderer", "parse_calls"]

# name: renderer and the options that the name stands for
FAMILIES: dict[str, tuple[type[ChatRenderer], dict[str, Any]]] = {
    "llama3": (Llama3, {"version": "3"}),
    "llama3.1": (Llama3, {"version": "3.1"}),
    "mistral": (Mistral, {"version": "v3"}),
    "mistral_v1": (Mistral, {"version": "v1"}),
    "mistral_v2": (Mistral, {"version": "v2"}),
    "mistral_v3": (Mistral, {"version": "v3"}),
    "mistral_v7": (Mistral, {"version": "v7"}),
    "hermes": (Hermes, {"tokens": "hermes"}),
    "qwen2.5": (Hermes, {"tokens": "qwen2.5"}),
    "qwen3": (Hermes, {"tokens": "qwen3"}),
    "react": (React, {}),
    "code_action": (CodeAsAction, {}),
}
TEMPLATE_FILE = "template_file"


def chat_renderer(name: str, **options: Any) -> ChatRenderer:
    """The chat renderer of a family.

    Args:
        name: one of `FAMILIES`; "react" and "code_action" stand plain, and "react:llama3" within the turns of another
            family; "template_file:DIR" is the `chat_template` in the tokenizer files of a directory.
        **options: `train_on` ("all" or "assistant"), `thoughts`, and the attributes of the renderer's class.

    Raises:
        UserError: the name or an option is unknown, or an option has no such value.
    """
    family, _, argument = name.partition(":")
    if family == TEMPLATE_FILE:
        return _template_file(argument, options)
    if family not in FAMILIES:
        names = ", ".join([*FAMILIES, f"{TEMPLATE_FILE}:DIR"])
        raise UserError(f"chat family {name!r} is unknown; use one of {names}")
    cls, preset = FAMILIES[family]
    if argument:
        if not issubclass(cls, TextFormat):
            raise UserError(f"chat family {family!r} does not stand within another; {name!r} should be {family!r}")
        preset = {**preset, "within": chat_renderer(argument)}
    _check_options(family, options, [field.name for field in dataclasses.fields(cls)])
    return cls(**{**preset, **options})


def _check_options(family: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    for option in options:
        if option not in known:
            raise UserError(f"chat family {family!r} has no option {option!r}; its options are {', '.join(known)}")


def _template_file(directory: str, options: Mapping[str, Any]) -> ChatRenderer:
    try:  # the parsers and the other families need no Jinja
        from hephaestus_jax.formats.chat.template_file import TemplateFile
    except ModuleNotFoundError as error:
        raise UserError(f"chat templates of tokenizer files need {error.name}: pip install 'jinja2>=3.1.6'") from error
    _check_options(TEMPLATE_FILE, options, ["train_on", "thoughts", "variables", "today", "lossy"])
    return TemplateFile.from_directory(directory, **options)
