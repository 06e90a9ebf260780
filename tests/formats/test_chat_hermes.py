"""Hermes and Qwen: weights to the character, marks as tokens or text, and the text form of Qwen's own framework."""

from __future__ import annotations

import json
import re

import pytest
from chat_conversations import PROVENANCE, TEXTS, Script, Taste, encode, scripts, weighted_text

from hephaestus_jax.formats.chat import chat_renderer
from hephaestus_jax.formats.records import ApiAction, MessageAction, TextObservation, Tool, Trajectory

STEPS = (
    TextObservation("question", "user"),
    MessageAction("let me see", reasoning_content="why"),
    ApiAction("wrong", {"x": 1}, tool_call_id="a", outcome="error"),
    ApiAction("right", {"x": "ü"}, tool_call_id="b"),
    TextObservation("failed", "environment", "a"),
    TextObservation("fine", "environment", "b"),
    MessageAction("answer"),
)
TRAJECTORY = Trajectory(STEPS, PROVENANCE, (Tool("right"),), system="system prompt")


@pytest.mark.parametrize("family", ["hermes", "qwen2.5", "qwen3"])
def test_weights_to_the_character(family):
    rendering = chat_renderer(family, train_on="assistant").render(TRAJECTORY)
    assert weighted_text(rendering) == (
        "<think>\nwhy\n</think>\n\nlet me see¦"
        '\n<tool_call>\n{"name": "right", "arguments": {"x": "ü"}}\n</tool_call><|im_end|>¦'
        "answer<|im_end|>"
    )
    assert rendering.text.endswith(
        "<|im_start|>user\n<tool_response>\nfailed\n</tool_response>\n<tool_response>\nfine\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nanswer<|im_end|>\n"
    )
    carried = "".join(span.text for span in rendering.spans[: rendering.carry])
    assert carried.startswith("<|im_start|>system\nsystem prompt\n\n# Tools\n\n")
    assert rendering.text[len(carried) :].startswith("<|im_start|>user\nquestion<|im_end|>\n")


def test_a_family_with_a_beginning():
    rendering = chat_renderer("hermes", beginning="<|begin_of_text|>").render(TRAJECTORY)
    assert (rendering.spans[0].text, rendering.spans[0].weight) == ("<|begin_of_text|>", 0)
    assert "<|begin_of_text|>" in chat_renderer("hermes", beginning="<|begin_of_text|>").controls


def test_marks_are_tokens_where_the_vocabulary_has_them():
    def bytes_of(text: str) -> list[int]:
        return list(text.encode())

    for family, tokens in (("hermes", 2), ("qwen2.5", 4), ("qwen3", 8)):
        renderer = chat_renderer(family)
        controls = {name: 1000 + i for i, name in enumerate(renderer.controls)}
        ids = encode(renderer.render(TRAJECTORY), controls, bytes_of)
        used = {i for i in ids if i >= 1000}
        assert len(used) == len(controls) == tokens
        # three calls are opened: two in the conversation, one in the instructions
        assert ids.count(controls.get("<tool_call>", -1)) == (4 if "<tool_call>" in controls else 0)


def test_text_that_spells_marks_stays_text():
    renderer = chat_renderer("qwen3")
    pattern = re.compile("|".join(map(re.escape, renderer.controls)))
    count = 0
    for script in scripts(100, Taste(), seed=5):
        for span in renderer.render(script.trajectory()).spans:
            if span.kind != "template" and pattern.search(span.text):
                count += 1
        # each message opens and closes once; the instructions hold one example of a call
        template = "".join(s.text for s in renderer.render(script.trajectory()).spans if s.kind == "template")
        assert template.count("<|im_start|>") == template.count("<|im_end|>")
        calls = sum(len(message.get("calls", ())) for message in script.messages)
        assert template.count("</tool_call>") - 2 * bool(script.tools) == calls
    assert count > 50


def test_text_form_equals_qwens_framework():
    schema = pytest.importorskip("qwen_agent.llm.schema")
    prompts = pytest.importorskip("qwen_agent.llm.fncall_prompts.nous_fncall_prompt")
    # behind a text that ends its line the framework leaves out the line break that Qwen's chat templates write
    texts = tuple(text for text in TEXTS if not text.endswith("\n"))
    compared = [script for script in scripts(300, Taste(texts, doubled_users=False), seed=9) if script.tools]
    assert len(compared) >= 200
    for script in compared:
        messages = prompts.NousFnCallPrompt().preprocess_fncall_messages(_qwen(script, schema), script.tools, "en")
        expected = "".join(
            f"<|im_start|>{m.role}\n{''.join(item.text for item in m.content)}<|im_end|>\n" for m in messages
        )
        assert chat_renderer("hermes").render(script.trajectory()).text == expected


def _qwen(script: Script, schema) -> list:
    def message(role, text, **more):
        return schema.Message(role=role, content=[schema.ContentItem(text=text)] if text else [], **more)

    messages = [message("system", script.system)] if script.system else []
    for m in script.messages:
        if m["role"] == "tool":
            messages.append(message("function", m["content"], name=m["name"]))
            continue
        if m["content"] or not m.get("calls"):
            messages.append(message(m["role"], m["content"]))
        for call in m.get("calls", ()):
            arguments = json.dumps(call["arguments"], ensure_ascii=False)
            function_call = schema.FunctionCall(name=call["name"], arguments=arguments)
            messages.append(message("assistant", "", function_call=function_call))
    return messages
