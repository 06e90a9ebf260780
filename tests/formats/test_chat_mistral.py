"""Mistral ids against `mistral_common`'s own encoders, in every version whose tokenizer it ships."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from chat_conversations import PROVENANCE, Script, Taste, encode, scripts, weighted_text

from hephaestus_jax.data.tokenization import tokenize
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import chat_renderer
from hephaestus_jax.formats.chat.mistral import mistral_call_id
from hephaestus_jax.formats.records import ApiAction, MessageAction, TextObservation, Tool, Trajectory

mistral_common = pytest.importorskip("mistral_common")
from mistral_common.protocol.instruct import messages as official  # noqa: E402
from mistral_common.protocol.instruct.request import ChatCompletionRequest  # noqa: E402
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall, ToolCall  # noqa: E402
from mistral_common.protocol.instruct.tool_calls import Tool as OfficialTool  # noqa: E402
from mistral_common.protocol.instruct.validator import ValidationMode  # noqa: E402
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer  # noqa: E402

FILES = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v3 tekken": "tekken_240911.json",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
}
TASTES = {
    "v1": Taste(calls=False),
    "v2": Taste(text_with_calls=False, parallel=False),
    "v3": Taste(text_with_calls=False),
    "v3 tekken": Taste(text_with_calls=False),
    "v7": Taste(),
}


def official_request(script: Script, named_results: bool) -> ChatCompletionRequest:
    messages = [official.SystemMessage(content=script.system)] if script.system else []
    for message in script.messages:
        if message["role"] == "user":
            messages.append(official.UserMessage(content=message["content"]))
        elif message["role"] == "tool":
            name = message["name"] if named_results else None
            messages.append(
                official.ToolMessage(content=message["content"], tool_call_id=message["tool_call_id"], name=name)
            )
        else:
            calls = [
                ToolCall(
                    id=call["id"], function=FunctionCall(name=call["name"], arguments=json.dumps(call["arguments"]))
                )
                for call in message.get("calls", ())
            ]
            content = message["content"] or None
            messages.append(official.AssistantMessage(content=content, tool_calls=calls or None))
    tools = [OfficialTool(function=Function(**tool)) for tool in script.tools]
    return ChatCompletionRequest(messages=messages, tools=tools or None)


@pytest.mark.parametrize("which", FILES)
def test_ids_equal_mistrals_encoder(which):
    path = Path(mistral_common.__file__).parent / "data" / FILES[which]
    tokenizer = MistralTokenizer.from_file(str(path), mode=ValidationMode.finetuning)
    text_tokenizer = tokenizer.instruct_tokenizer.tokenizer
    version = which.split()[0]
    renderer = chat_renderer(f"mistral_{version}")
    controls = {name: text_tokenizer.get_special_token(name) for name in renderer.controls}
    assert len(set(controls.values())) == len(controls)
    calls, renderings, expected = 0, [], []
    for script in scripts(100, TASTES[which], seed=len(which)):
        expected.append(tokenizer.encode_chat_completion(official_request(script, version == "v2")).tokens)
        renderings.append(renderer.render(script.trajectory()))
        encode_text = partial(text_tokenizer.encode, bos=False, eos=False)
        assert encode(renderings[-1], controls, encode_text) == expected[-1]
        calls += sum(len(message.get("calls", ())) for message in script.messages)
    assert calls > 150 or version == "v1"
    ours = tokenize(renderings, load_vocabulary(path))
    assert [tokens.tokens_T.tolist() for tokens in ours] == expected


STEPS = (
    TextObservation("question", "user"),
    ApiAction("wrong", {"x": 1}, tool_call_id="a", outcome="error"),
    ApiAction("right", {"x": 2}, tool_call_id="abcdefgh9", outcome="ok"),
    TextObservation("failed", "environment", "a"),
    TextObservation("fine", "environment", "abcdefgh9"),
    MessageAction("answer  "),
    TextObservation("more", "user"),
    MessageAction("again"),
)
TRAJECTORY = Trajectory(STEPS, PROVENANCE, (Tool("right"),), system="system prompt")


def test_weights_to_the_character():
    rendering = chat_renderer("mistral", train_on="assistant").render(TRAJECTORY)
    assert weighted_text(rendering) == (
        ', {"name": "right", "arguments": {"x": 2}, "id": "abcdefgh9"}]</s>¦answer</s>¦again</s>'
    )


def test_the_tool_list_leads_when_placed_first():
    official_place, first = (
        chat_renderer("mistral", placement=placement).render(TRAJECTORY) for placement in ("official", "first")
    )
    assert official_place.spans[0].text == first.spans[0].text == "<s>"
    assert official_place.carry == 1
    carried = "".join(span.text for span in first.spans[: first.carry])
    assert carried.startswith("<s>[AVAILABLE_TOOLS]") and carried.endswith("[/AVAILABLE_TOOLS]")
    assert first.text[len(carried) :].startswith("[INST]system prompt\n\nquestion[/INST]")


def test_the_system_prompt_is_carried_in_v7():
    rendering = chat_renderer("mistral_v7").render(TRAJECTORY)
    carried = "".join(span.text for span in rendering.spans[: rendering.carry])
    assert carried == "<s>[SYSTEM_PROMPT]system prompt[/SYSTEM_PROMPT]"


def test_text_and_calls_of_one_turn_follow_v7_in_v3():
    trajectory = replace(TRAJECTORY, steps=(STEPS[0], MessageAction("first I look"), STEPS[2], STEPS[4]), tools=())
    for family in ("mistral_v3", "mistral_v7"):
        rendering = chat_renderer(family, train_on="assistant").render(trajectory)
        assert weighted_text(rendering) == (
            'first I look[TOOL_CALLS][{"name": "right", "arguments": {"x": 2}, "id": "abcdefgh9"}]</s>'
        )


def test_v1_has_no_tools():
    with pytest.raises(UserError, match="no form for tools"):
        chat_renderer("mistral_v1").render(TRAJECTORY)


def test_call_ids_have_the_form_the_makers_demand_and_pair_up():
    assert mistral_call_id("abcdefgh9", 3) == "abcdefgh9"
    derived = {mistral_call_id(call_id, 0) for call_id in ("a", "abcdefgh-", "abcdefgh9x", "ключ", "\udc80")}
    derived |= {mistral_call_id("", index) for index in range(1000)}
    assert len(derived) == 1005 and all(len(i) == 9 and i.isascii() and i.isalnum() for i in derived)
    text = chat_renderer("mistral").render(TRAJECTORY).text
    assert (
        text.count(f'"id": "{mistral_call_id("a", 0)}"') == text.count(f'"call_id": "{mistral_call_id("a", 0)}"') == 1
    )
