"""Parsers: what renderers write is read back, prose is passed over, malformed calls are named, nothing hangs."""

from __future__ import annotations

import json

import pytest
from chat_conversations import PROVENANCE
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import Call, MalformedCallError, chat_renderer, parse_calls
from hephaestus_jax.formats.chat.code_action import python_call
from hephaestus_jax.formats.records import ApiAction, CodeAction, MessageAction, TextObservation, Trajectory

HOSTILE = st.sampled_from(
    ['"}]', "</tool_call>", "<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<|eot_id|>",
     "\nAction: x\nAction Input: {", "```", "\n</execute>\n", "<execute>", "{'a': 1}",
     '{"type": "function"', '{"name": "x", "parameters": {}}',
     "\\", "'"]
)  # fmt: skip
TEXT = st.text() | st.lists(HOSTILE | st.text(max_size=3), max_size=4).map("".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
NAME = st.text(min_size=1).filter(lambda name: name == name.strip() and "\n" not in name)
CALLS = st.lists(st.builds(Call, NAME | st.sampled_from(["f", "np.linalg.solve", "print", "call_tool", "class"]),
                           st.dictionaries(TEXT, JSON, max_size=4)), min_size=1, max_size=4)  # fmt: skip

RENDERERS = {
    "llama3": "llama3",
    "llama3.1": "llama3",
    "mistral_v2": "mistral",
    "mistral_v3": "mistral",
    "mistral_v7": "mistral",
    "hermes": "hermes",
    "qwen3": "hermes",
    "react": "react",
    "react:llama3": "react",
    "react:mistral_v1": "react",
    "code_action": "code_action",
    "code_action:hermes": "code_action",
    "code_action (fence)": "code_action",
}


def rendered(name: str, *actions) -> str:
    options = {"block": "fence"} if "fence" in name else {}
    trajectory = Trajectory((TextObservation("a question", "user"), *actions), PROVENANCE)
    return chat_renderer(name.split(" ")[0], **options).render(trajectory).text


def exact(calls: list[Call]) -> list[str]:
    # equality of Python values would let 1, 1.0 and True pass for each other
    return [json.dumps([call.name, call.arguments], sort_keys=True) for call in calls]


@pytest.mark.parametrize("name", RENDERERS)
@settings(max_examples=60, deadline=None)
@given(calls=CALLS)
def test_calls_are_read_back(name, calls):
    actions = [MessageAction("Let me see: {1, 2} [3].")] + [ApiAction(call.name, call.arguments) for call in calls]
    assert exact(parse_calls(RENDERERS[name], rendered(name, *actions))) == exact(calls)


@pytest.mark.parametrize("name", ["llama3.1", "code_action", "code_action (fence)", "mistral_v3", "hermes", "react"])
@settings(max_examples=60, deadline=None)
@given(code=TEXT.map(lambda text: "x = 1\n" + text))
def test_code_is_read_back(name, code):
    try:
        text = rendered(name, CodeAction("python", code), CodeAction("python", "y = 2"))
    except UserError as error:
        assert name == "code_action" and "</execute>" in code and "cannot stand" in str(error)
        return
    if name == "llama3.1":  # code is a message of its own there
        messages = text.split("<|start_header_id|>assistant<|end_header_id|>\n\n")
        assert parse_calls("llama3", messages[-1]) == [Call("python", {"code": "y = 2"})]
        text = "<|python_tag|>" + code + "<|eom_id|>"
        assert parse_calls("llama3", text) == [Call("python", {"code": code})]
        return
    assert parse_calls(RENDERERS[name], text) == [Call("python", {"code": code}), Call("python", {"code": "y = 2"})]


def test_code_of_other_languages():
    text = rendered("code_action", CodeAction("bash", "ls -l"), ApiAction("f", {}), CodeAction("c++", "int x;"))
    calls = [Call("bash", {"code": "ls -l"}), Call("f", {}), Call("c++", {"code": "int x;"})]
    assert "<execute_bash>\nls -l\n</execute_bash>" in text and parse_calls("code_action", text) == calls
    with pytest.raises(UserError, match="one plain word"):
        rendered("code_action", CodeAction("visual basic", "x"))


PROSE = {
    "llama3": 'The object {"name": "Ada", "age": 36} and {braces} are no calls.',
    "mistral": 'A list [1, 2] and {"name": 1}.',
    "hermes": 'Nothing here: {"name": "f", "arguments": {}}',
    "react": "Thought: no Action: here\nFinal Answer: done",
    "code_action": "Inline `f(x=1)` and f(x=1) are text.",
}


@pytest.mark.parametrize("family", PROSE)
def test_prose_holds_no_calls(family):
    assert parse_calls(family, PROSE[family]) == []
    assert parse_calls(family, "") == []


READ = [
    ("llama3", '{"name": "f", "parameters": {"a": 1}}', [Call("f", {"a": 1})]),
    ("llama3", ' {"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}<|eot_id|>', [Call("f"), Call("g")]),
    ("llama3", '<|python_tag|>{"name": "f", "parameters": {}}<|eom_id|>', [Call("f")]),
    ("llama3", '<|python_tag|>brave_search.call(query="a b")<|eom_id|>', [Call("brave_search", {"query": "a b"})]),
    ("llama3", '<|python_tag|>{"name": 1}', [Call("python", {"code": '{"name": 1}'})]),
    ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {}, "id": "123456789"}]</s>', [Call("f")]),
    ("mistral", '[TOOL_CALLS][]', []),
    ("hermes", 'x<tool_call>{"arguments": {"a": "</tool_call>"}, "name": "f"}</tool_call>y',
     [Call("f", {"a": "</tool_call>"})]),
    ("react", 'Action: f\nAction Input: {\n  "a": [1,\n 2]\n}\nObservation: x', [Call("f", {"a": [1, 2]})]),
    ("code_action", "<execute>\nf(a=1)\nprint(g(b='</execute>'))\n</execute>",
     [Call("f", {"a": 1}), Call("g", {"b": "</execute>"})]),
    ("code_action", "````python\n```\nf()\n````", [Call("python", {"code": "```\nf()"})]),
    ("code_action", "<execute>\n</execute>", [Call("python", {"code": ""})]),
    ("code_action", "```python\nsketch()\n```\n<execute>\nf()\n</execute>", [Call("f", {})]),
    ("code_action", "<execute>\nf(1)\n</execute>", [Call("python", {"code": "f(1)"})]),
    ("code_action", "<execute>\nf(a={1})\n</execute>", [Call("python", {"code": "f(a={1})"})]),
    ("code_action", "<execute>\nf(a=(1,))\n</execute>", [Call("python", {"code": "f(a=(1,))"})]),
    ("code_action", "<execute>\nf(a=b)\n</execute>", [Call("python", {"code": "f(a=b)"})]),
    ("code_action", "<execute>\nf(a='\\d')\n</execute>", [Call("f", {"a": "\\d"})]),
]  # fmt: skip


@pytest.mark.parametrize(("family", "text", "calls"), READ)
def test_forms_that_models_write(family, text, calls):
    assert parse_calls(family, text) == calls


MALFORMED = [
    ("llama3", 'said {"type": "function", "name": "f", "parameters": {"a": ', "not valid JSON"),
    ("llama3", '{"type": "function", "name": "f"}', '"parameters" must be'),
    ("llama3", '{"name": "f", "parameters": [1]}', '"parameters" must be'),
    ("llama3", '{"name": "", "parameters": {}}', '"name" must be'),
    ("mistral", '[TOOL_CALLS]{"name": "f", "arguments": {}}', "must be a JSON list"),
    ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": "{}"}]', '"arguments" must be'),
    ("mistral", "[TOOL_CALLS] f(1)", "not valid JSON"),
    ("mistral", "[TOOL_CALLS]", "not valid JSON"),
    ("mistral", "[TOOL_CALLS][1]", "must be a JSON object"),
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {}}\n', "</tool_call> is missing"),
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {}}}\n</tool_call>', "</tool_call> is missing"),
    ("hermes", "<tool_call>\n{'name': 'f'}\n</tool_call>", "not valid JSON"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"n": ' + "9" * 5000 + "}}</tool_call>", "unreadable JSON"),
    ("react", "Action: f\nObservation: x", "an action needs"),
    ("react", "Action:\nAction Input: {}", "an action needs"),
    ("react", "Action: f\nAction Input: x=1", "not valid JSON"),
    ("react", "Action: f\nAction Input: [1]", "must be a JSON object"),
    ("code_action", "<execute>\nf()", "not closed"),
    ("code_action", "```python\nf()\n``", "not closed"),
]


@pytest.mark.parametrize(("family", "text", "words"), MALFORMED)
def test_malformed_calls_are_named_with_their_place(family, text, words):
    with pytest.raises(MalformedCallError, match=words) as error:
        parse_calls(family, text)
    assert 0 <= error.value.position <= len(text)


SIZE = 100_000
UNITS = [
    "{", "[", "(", "-", "`", "\n", " ", "\\", '"', "x+", "a.", "f(", "lambda: ", "not ",
    '{"name": ', '{"name": [', '{"name": "', '{"name": {}} ', '{"type": "function", "name": "f", "parameters": {',
    "<|python_tag|>", "<tool_call>", "<tool_call>{", "[TOOL_CALLS]", "[TOOL_CALLS][", "[TOOL_CALLS][{",
    "Action: f\n", "Action: f\nAction Input: {", "Action:\t \t", "\nAction Input:\n",
    "<execute>\n", "```\n", "``` \n````\n",
]  # fmt: skip


@pytest.mark.parametrize("family", PROSE)
@pytest.mark.parametrize("unit", UNITS)
def test_hostile_texts_end_in_calls_or_an_error(family, unit):
    for text in (unit * (SIZE // len(unit)), f"<execute>\n{unit * (SIZE // len(unit))}\n</execute>"):
        try:
            calls = parse_calls(family, text)
        except MalformedCallError:
            continue
        assert sum(len(json.dumps(call.arguments)) for call in calls) <= 8 * len(text)


@settings(max_examples=200, deadline=None)
@given(family=st.sampled_from(sorted(PROSE)), pieces=st.lists(st.sampled_from(UNITS) | HOSTILE | st.text(max_size=4)))
def test_any_text_ends_in_calls_or_an_error(family, pieces):
    try:
        calls = parse_calls(family, "".join(pieces))
    except MalformedCallError:
        return
    assert all(call.name and isinstance(call.arguments, dict) for call in calls)


def test_unknown_family():
    with pytest.raises(UserError, match="no parser for calls of family 'x'"):
        parse_calls("x", "")


@settings(deadline=None)
@given(call=st.builds(Call, NAME, st.dictionaries(TEXT, JSON, max_size=4)))
def test_a_call_as_python_is_one_line(call):
    assert len(python_call(call).split("\n")) == 1
    compile(python_call(call), "call", "exec")
