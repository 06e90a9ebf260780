"""Chat templates for `transformers`: what our renderers write, as Jinja programs over messages in OpenAI's form.

The text is that of `formats.chat` for the same messages: leading system messages are joined, neighbouring messages of
the assistant are one turn until a text or a thought follows a call, results stand in the family's own role. Calls must
come with their arguments as an object; a string is written as it is.

The ids are those of our renderers too, where no token of the vocabulary crosses a seam (`formats.spans.SEAM`): Llama's
own encoder encodes header, text and each call by themselves, whereas `transformers` encodes whatever stands between two
control tokens at once. A text that begins with white space or punctuation can therefore share a token with the two
line breaks before it.
"""

from __future__ import annotations

from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import FAMILIES, TEMPLATE_FILE, hermes, llama3
from hephaestus_jax.formats.chat.tokenizer_files import TokenizerFiles

_COMMON = """\
{%- macro said(content) -%}
    {%- if content is string -%}
        {{- content }}
    {%- elif content -%}
        {%- for part in content -%}
            {{- part.text if part is mapping and part.text is defined else '[image]' }}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- macro arguments(function) -%}
    {%- if function.arguments is string -%}
        {{- function.arguments or '{}' }}
    {%- else -%}
        {{- (function.arguments or {}) | tojson(ensure_ascii=ESCAPED) }}
    {%- endif -%}
{%- endmacro -%}
{%- set state = namespace(system='', leading=true, turn=false, text=false, calls=false, any_calls=false) -%}
{%- for message in messages -%}
    {%- if state.leading and message.role in ('system', 'developer') -%}
        {%- set state.system = state.system + ('\\n\\n' if state.system else '') + said(message.content) -%}
    {%- else -%}
        {%- set state.leading = false -%}
        {%- set state.any_calls = state.any_calls or message.tool_calls is defined and message.tool_calls -%}
    {%- endif -%}
{%- endfor -%}
{%- set state.leading = true -%}
"""
_TURNS = """\
{%- for message in messages -%}
    {%- set state.leading = state.leading and message.role in ('system', 'developer') -%}
    {%- if message.role == 'assistant' -%}
        {%- set thought = message.reasoning_content if message.reasoning_content is defined else '' -%}
        {%- set text = said(message.content) -%}
        {%- set calls = message.tool_calls if message.tool_calls is defined and message.tool_calls else [] -%}
        {%- if state.turn and ((state.calls and (text or thought)) or (state.text and thought)) -%}
            {{- CLOSE }}
            {%- set state.turn = false -%}
        {%- endif -%}
        {%- if not state.turn -%}
            {{- OPEN }}
            {%- set state.turn = true -%}
            {%- set state.text = false -%}
            {%- set state.calls = false -%}
        {%- endif -%}
        {%- if thought -%}
            {{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}
        {%- endif -%}
        {%- if text -%}
            {{- ('\\n\\n' if state.text else '') + text }}
            {%- set state.text = true -%}
        {%- endif -%}
        {%- for call in calls -%}
            {%- set function = call.function if call.function is defined else call -%}
            CALL
            {%- set state.calls = true -%}
        {%- endfor -%}
    {%- elif not state.leading -%}
        {%- if state.turn -%}
            {{- CLOSE }}
            {%- set state.turn = false -%}
        {%- endif -%}
        OTHER
    {%- endif -%}
{%- endfor -%}
{%- if state.turn -%}
    {{- CLOSE }}
{%- endif -%}
{%- if add_generation_prompt -%}
    {{- OPEN }}
{%- endif -%}
"""
_LLAMA_BEGINNING = """\
{{- bos_token }}
{%- set environment = ENVIRONMENT if tools or state.any_calls else '' -%}
{%- if environment or state.system -%}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + environment }}
    {{- ('\\n\\n' if environment and state.system else '') + state.system + '<|eot_id|>' }}
{%- endif -%}
{%- if tools -%}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' + TOOLS_BEFORE }}
    {%- for tool in tools -%}
        {{- ('' if loop.first else '\\n\\n') + tool | tojson(ensure_ascii=true, indent=4) }}
    {%- endfor -%}
    {{- TOOLS_BEHIND + '<|eot_id|>' }}
{%- endif -%}
"""
_LLAMA_CALL = """{{- '{"type": "function", "name": ' + function.name | tojson(ensure_ascii=true) }}
            {{- ', "parameters": ' + arguments(function) + '}' }}"""
_LLAMA_OTHER = """{%- set role = 'ipython' if message.role in ('tool', 'function', 'ipython') else 'user' -%}
        {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' + said(message.content) + '<|eot_id|>' }}"""
_HERMES_BEGINNING = """\
{%- if state.system or tools -%}
    {{- '<|im_start|>system\\n' + state.system }}
    {%- if tools -%}
        {{- ('\\n\\n' if state.system else '') + TOOLS_BEFORE }}
        {%- for tool in tools -%}
            {{- ('' if loop.first else '\\n') + tool | tojson }}
        {%- endfor -%}
        {{- TOOLS_BEHIND }}
    {%- endif -%}
    {{- '<|im_end|>\\n' }}
{%- endif -%}
"""
_HERMES_CALL = """{{- ('\\n' if state.calls or state.text else '') + '<tool_call>\\n' }}
            {{- '{"name": ' + function.name | tojson + ', "arguments": ' }}
            {{- arguments(function) + '}\\n</tool_call>' }}"""
_HERMES_OTHER = """{%- if message.role in ('tool', 'function') -%}
            {%- if loop.first or loop.previtem.role not in ('tool', 'function') -%}
                {{- '<|im_start|>user' }}
            {%- endif -%}
            {{- '\\n<tool_response>\\n' + said(message.content) + '\\n</tool_response>' }}
            {%- if loop.last or loop.nextitem.role not in ('tool', 'function') -%}
                {{- '<|im_end|>\\n' }}
            {%- endif -%}
        {%- else -%}
            {{- '<|im_start|>user\\n' + said(message.content) + '<|im_end|>\\n' }}
        {%- endif -%}"""


def chat_template(family: str) -> dict[str, str]:
    """The templates of a chat family by file name: `chat_template.jinja`, and others beside it.

    Args:
        family: a name that `formats.chat.chat_renderer` knows.

    Raises:
        UserError: the family is unknown, or stands for something that no template can express.
    """
    name, _, argument = family.partition(":")
    if name == TEMPLATE_FILE:
        return _copied(TokenizerFiles.read(Path(argument)))
    if name in ("llama3", "llama3.1"):
        return {"chat_template.jinja": _llama3(FAMILIES[name][1]["version"])}
    if name in ("hermes", "qwen2.5", "qwen3"):
        return {"chat_template.jinja": _hermes()}
    raise UserError(
        f"chat family {family!r} has no template for transformers; those with one are llama3, llama3.1, hermes,"
        f" qwen2.5, qwen3 and {TEMPLATE_FILE}:DIR, and --chat none writes none"
    )


def _copied(files: TokenizerFiles) -> dict[str, str]:
    templates = {"chat_template.jinja": files.template}
    if files.tool_template != files.template:
        templates["additional_chat_templates/tool_use.jinja"] = files.tool_template
    return templates


def _llama3(version: str) -> str:
    end = "('<|eom_id|>' if state.calls else '<|eot_id|>')" if version == "3.1" else "'<|eot_id|>'"
    environment = llama3.ENVIRONMENT if version == "3.1" else ""
    beginning = _filled(
        _LLAMA_BEGINNING,
        ENVIRONMENT=_quoted(environment),
        TOOLS_BEFORE=_quoted(llama3.TOOLS_BEFORE),
        TOOLS_BEHIND=_quoted(llama3.TOOLS_BEHIND),
    )
    header = _quoted("<|start_header_id|>assistant<|end_header_id|>\n\n")
    turns = _filled(_TURNS, CLOSE=end, OPEN=header, CALL=_LLAMA_CALL, OTHER=_LLAMA_OTHER)
    return _filled(_COMMON, ESCAPED="true") + beginning + turns


def _hermes() -> str:
    beginning = _filled(
        _HERMES_BEGINNING, TOOLS_BEFORE=_quoted(hermes.TOOLS_BEFORE), TOOLS_BEHIND=_quoted(hermes.TOOLS_BEHIND)
    )
    turns = _filled(
        _TURNS,
        CLOSE=_quoted("<|im_end|>\n"),
        OPEN=_quoted("<|im_start|>assistant\n"),
        CALL=_HERMES_CALL,
        OTHER=_HERMES_OTHER,
    )
    return _filled(_COMMON, ESCAPED="false") + beginning + turns


def _filled(template: str, **parts: str) -> str:
    for name, part in parts.items():
        template = template.replace(name, part)
    return template


def _quoted(text: str) -> str:
    """As a string in Jinja."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
