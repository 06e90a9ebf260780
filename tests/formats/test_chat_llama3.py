"""Llama 3.x ids against Meta's own encoder, and weights to the character."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path

import pytest
from chat_conversations import PROVENANCE, Script, Taste, encode, scripts, weighted_text

from hephaestus_jax.data.tokenization import tokenize
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import chat_renderer
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    CodeAction,
    MessageAction,
    TextObservation,
    Tool,
    Trajectory,
)


@pytest.fixture(scope="module")
def chat_format():
    pytest.importorskip("llama_models")
    from llama_models.llama3.chat_format import ChatFormat
    from llama_models.llama3.tokenizer import Tokenizer

    return ChatFormat(Tokenizer.get_instance())


def official_ids(chat_format, script: Script, environment: bool) -> list[int]:
    from llama_models.datatypes import BuiltinTool, RawMessage, StopReason, ToolCall

    messages = []
    called = any(message.get("calls") for message in script.messages)
    ipython = environment and (bool(script.tools) or called)
    system = "\n\n".join(filter(None, ["Environment: ipython" if ipython else "", script.system]))
    if system:
        messages.append(RawMessage(role="system", content=system))
    if script.tools:
        listing = "\n\n".join(json.dumps({"type": "function", "function": tool}, indent=4) for tool in script.tools)
        messages.append(RawMessage(role="user", content=(
            "Answer the user's question by making use of the following functions if needed.\n"
            "If none of the function can be used, please say so.\nHere is a list of functions in JSON format:\n"
            f"{listing}\n\nReturn function calls in JSON format."
        )))  # fmt: skip
    for message in script.messages:
        if message["role"] != "assistant":
            messages.append(RawMessage(role=message["role"], content=message["content"], call_id="id"))
            continue
        calls = [
            ToolCall.model_construct(  # its validation takes no arguments nested deeper than two levels
                call_id=call["id"],
                tool_name=BuiltinTool.code_interpreter if environment and call.get("code") else call["name"],
                arguments=call["arguments"],
            )
            for call in message.get("calls", ())
        ]
        end = StopReason.end_of_message if environment and calls else StopReason.end_of_turn
        text = message["content"]
        if environment and any(call.get("code") for call in message.get("calls", ())) and text:
            messages.append(RawMessage(role="assistant", content=text, stop_reason=end))
            text = ""
        messages.append(RawMessage(role="assistant", content=text, tool_calls=calls, stop_reason=end))
    tokens = chat_format.encode_dialog_prompt(messages).tokens
    return tokens[: -len(chat_format._encode_header("assistant"))]


@pytest.mark.parametrize(("family", "environment"), [("llama3", False), ("llama3.1", True)])
@pytest.mark.parametrize("code", [False, True])
def test_ids_equal_metas_encoder(chat_format, family, environment, code):
    import llama_models.llama3.tokenizer

    tokenizer = chat_format.tokenizer
    renderer = chat_renderer(family)
    renderings, expected = [], []
    for script in scripts(100, Taste(code=code), seed=code):
        renderings.append(renderer.render(script.trajectory()))
        expected.append(official_ids(chat_format, script, environment))
        encode_text = partial(tokenizer.encode, bos=False, eos=False)
        assert encode(renderings[-1], tokenizer.special_tokens, encode_text) == expected[-1]
    assert sum(map(len, expected)) > 20_000
    ours = load_vocabulary(Path(llama_models.llama3.tokenizer.__file__).with_name("tokenizer.model"))
    assert [tokens.tokens_T.tolist() for tokens in tokenize(renderings, ours)] == expected


def test_every_text_of_a_message_reaches_the_official_decoder(chat_format):
    from llama_models.datatypes import StopReason

    action = ApiAction("search", {"query": '}{"', "n": [1, None]}, tool_call_id="1")
    trajectory = Trajectory((TextObservation("hi", "user"), action), PROVENANCE)
    assistant = chat_renderer("llama3").render(trajectory).text.rpartition("<|end_header_id|>\n\n")[2]
    message = chat_format.decode_assistant_message_from_content(assistant, StopReason.end_of_turn)
    assert (message.tool_calls[0].tool_name, message.tool_calls[0].arguments) == ("search", action.kwargs)


STEPS = (
    TextObservation("question", "user"),
    MessageAction("thinking aloud", reasoning_content="private"),
    ApiAction("wrong", {"x": 1}, tool_call_id="a", outcome="error"),
    TextObservation("it failed", "environment", "a"),
    ApiAction("right", {"x": 2}, tool_call_id="b", outcome="corrected"),
    ApiAction("also", {}, tool_call_id="c", outcome="ok"),
    TextObservation("it worked", "environment", "b"),
    TextObservation("too", "environment", "c"),
    MessageAction("answer"),
)
TRAJECTORY = Trajectory(STEPS, PROVENANCE, (Tool("right"),), system="system prompt")


def test_fine_tuning_weighs_the_assistant_alone():
    rendering = chat_renderer("llama3", train_on="assistant", thoughts=False).render(TRAJECTORY)
    assert weighted_text(rendering) == (
        "thinking aloud¦"
        '{"type": "function", "name": "right", "parameters": {"x": 2}}'
        '{"type": "function", "name": "also", "parameters": {}}<|eot_id|>¦'
        "answer<|eot_id|>"
    )


def test_continual_pre_training_weighs_all_but_the_beginning_and_wrong_steps():
    rendering = chat_renderer("llama3").render(TRAJECTORY)
    before, _, behind = rendering.text.removeprefix("<|begin_of_text|>").partition(
        '{"type": "function", "name": "wrong", "parameters": {"x": 1}}<|eot_id|>'
    )
    assert "wrong" not in before + behind
    assert weighted_text(rendering) == f"{before}¦{behind}"


def test_thoughts_are_kept_or_left_out():
    kept = chat_renderer("llama3", train_on="assistant").render(TRAJECTORY)
    assert weighted_text(kept).startswith("<think>\nprivate\n</think>\n\nthinking aloud¦")
    assert "private" not in chat_renderer("llama3", thoughts=False).render(TRAJECTORY).text


def test_the_carry_is_beginning_system_prompt_and_tools():
    rendering = chat_renderer("llama3").render(TRAJECTORY)
    carried = "".join(span.text for span in rendering.spans[: rendering.carry])
    assert carried.startswith("<|begin_of_text|><|start_header_id|>system") and "system prompt" in carried
    assert carried.endswith("Return function calls in JSON format.<|eot_id|>")
    assert rendering.text[len(carried) :].startswith("<|start_header_id|>user<|end_header_id|>\n\nquestion")


def test_python_code_is_a_tagged_message_in_3_1_and_a_call_in_3():
    code = CodeAction("python", "print(1)", description="Let me see.", tool_call_id="a")
    trajectory = Trajectory((TextObservation("q", "user"), code, TextObservation("1", "environment", "a")), PROVENANCE)
    tagged = chat_renderer("llama3.1", train_on="assistant").render(trajectory)
    assert weighted_text(tagged) == "Let me see.<|eom_id|>¦<|python_tag|>print(1)<|eom_id|>"
    call = chat_renderer("llama3", train_on="assistant").render(trajectory)
    assert '"name": "python", "parameters": {"code": "print(1)"}' in weighted_text(call)
    assert {span.text for span in tagged.spans if "python_tag" in span.text} == {"<|python_tag|>"}


def test_controls_are_those_written():
    for family in ("llama3", "llama3.1"):
        renderer = chat_renderer(family)
        template = "".join(
            span.text
            for script in scripts(30, Taste(code=True))
            for span in renderer.render(script.trajectory()).spans
            if span.kind == "template"
        )
        assert all(control in template for control in renderer.controls)
        for control in ("<|eom_id|>", "<|python_tag|>"):
            assert (control in template) == (control in renderer.controls)


def test_fingerprints_tell_renderers_apart_and_survive_pickling():
    renderers = [
        chat_renderer(family, train_on=train_on, thoughts=thoughts)
        for family in ("llama3", "llama3.1", "mistral", "mistral_v7", "hermes", "qwen3", "react", "code_action")
        for train_on in ("all", "assistant")
        for thoughts in (True, False)
    ]
    prints = [renderer.fingerprint() for renderer in renderers]
    assert len(set(prints)) == len(prints)
    assert [pickle.loads(pickle.dumps(renderer)).fingerprint() for renderer in renderers] == prints


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("llama5", {}, "chat family 'llama5' is unknown"),
        ("llama3", {"train": "all"}, "no option 'train'"),
        ("llama3", {"train_on": "user"}, "train_on='user'"),
        ("llama3", {"version": "4"}, "'4' is unknown"),
        ("llama3:react", {}, "does not stand within"),
        ("mistral", {"version": "v9"}, "'v9' is unknown"),
        ("mistral", {"placement": "x"}, "placement='x'"),
        ("hermes", {"tokens": "x"}, "tokens='x'"),
        ("code_action", {"block": "x"}, "block='x'"),
    ],
)
def test_unknown_names_and_options_are_errors(name, options, words):
    with pytest.raises(UserError, match=words):
        chat_renderer(name, **options)


def test_other_records_are_refused():
    with pytest.raises(UserError, match="ApiDoc has no chat form"):
        chat_renderer("llama3").render(ApiDoc("f", "p", "d", PROVENANCE))
