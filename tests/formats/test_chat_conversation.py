"""Trajectories as turns: grouping, pairing, weights, and the text of pages and images."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chat_conversations import PROVENANCE
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import FAMILIES, chat_renderer
from hephaestus_jax.formats.chat.calls import Call
from hephaestus_jax.formats.chat.conversation import (
    AssistantTurn,
    CallPart,
    Part,
    ToolTurn,
    UserTurn,
    conversation_of,
    observation_text,
)
from hephaestus_jax.formats.records import (
    ApiAction,
    CodeAction,
    ImageObservation,
    MessageAction,
    TextObservation,
    Tool,
    Trajectory,
    WebObservation,
)


def turns(*steps, thoughts: bool = True):
    return conversation_of(Trajectory(steps, PROVENANCE), thoughts).turns


def test_consecutive_actions_are_one_turn_texts_first():
    said = MessageAction("a", description="before", reasoning_content="why")
    call = ApiAction("f", {"x": 1}, tool_call_id="1", outcome="error")
    code = CodeAction("bash", "ls", outcome="corrected")
    assert turns(said, call, code) == (
        AssistantTurn(
            (Part("why"),),
            (Part("before\n\na"),),
            (
                CallPart(Call("f", {"x": 1}), "1", 0.0, index=0),
                CallPart(Call("bash", {"code": "ls"}), "", 1.0, "bash", index=1),
            ),
            1.0,
        ),
    )


def test_a_text_behind_a_call_opens_another_turn():
    first, second = turns(ApiAction("f", {}), ApiAction("g", {}, description="then", outcome="error"))
    assert [part.call.name for part in first.calls] == ["f"] and first.end_weight == 1
    assert second == AssistantTurn((), (Part("then", 0.0),), (CallPart(Call("g", {}), "", 0.0, index=1),), 0.0)
    thought = ApiAction("g", {}, reasoning_content="hm")
    assert len(turns(ApiAction("f", {}), thought)) == 2
    assert len(turns(ApiAction("f", {}), thought, thoughts=False)) == 1


def test_texts_of_a_turn_keep_their_weights_apart():
    (turn,) = turns(MessageAction("wrong", outcome="error"), MessageAction("right"), MessageAction(""))
    assert turn.text == (Part("wrong", 0.0), Part("\n\nright", 1.0))


def test_results_find_their_calls():
    calls = [ApiAction("f", {}, tool_call_id="1"), ApiAction("g", {}, tool_call_id="2"), ApiAction("h", {})]
    results = [
        TextObservation("of g", "environment", "2"),
        TextObservation("of f, the oldest open", "environment"),
        WebObservation(html="of h"),
        TextObservation("of nobody", "environment"),
        TextObservation("also", "agent"),
        TextObservation("of f, again", "user", "1"),
        TextObservation("a person", "user"),
        TextObservation("unknown id", "user", "9"),
    ]
    assert turns(*calls, *results)[1:] == (
        ToolTurn("of g", "2", "g", 1),
        ToolTurn("of f, the oldest open", "1", "f", 0),
        ToolTurn("of h", "", "h", 2),
        UserTurn("of nobody", "observation"),
        UserTurn("also", "observation"),
        ToolTurn("of f, again", "1", "f", 0),
        UserTurn("a person"),
        UserTurn("unknown id"),
    )


def test_a_user_who_speaks_does_not_answer_an_open_call():
    *_, user, result = turns(ApiAction("f", {}), TextObservation("wait", "user"), TextObservation("r", "environment"))
    assert user == UserTurn("wait") and result == ToolTurn("r", "", "f", 0)


def test_pages_and_images_have_a_text_form():
    page = WebObservation(html="<p>", axtree="[1] button", url="https://a.org", image_observation={"content": "b64"})
    assert observation_text(page) == "URL: https://a.org\n[1] button\n[image]"
    assert observation_text(WebObservation(html="<p>")) == "<p>"
    assert observation_text(WebObservation()) == ""
    assert observation_text(ImageObservation("b64")) == "[image]"
    annotated = ImageObservation("b64", [{"text": "OK", "element_type": "button"}, {"text": None}, "x"])
    assert observation_text(annotated) == "[image]\nOK"


WORDS = st.sampled_from(["", "a", " b \n", "<|eot_id|>", "[INST]", "</s><|im_end|>", "é"])
IDS = st.sampled_from([None, "", "1", "2", "abcdefgh9"])
OUTCOMES = st.sampled_from(["ok", "error", "corrected", "unknown"])
COMMON = {"description": st.none() | WORDS, "reasoning_content": st.none() | WORDS, "outcome": OUTCOMES}
STEP = st.one_of(
    st.builds(MessageAction, WORDS, **COMMON),
    st.builds(ApiAction, st.sampled_from(["f", "GET /x"]), st.dictionaries(WORDS, WORDS), tool_call_id=IDS, **COMMON),
    st.builds(CodeAction, st.sampled_from(["python", "bash"]), WORDS, tool_call_id=IDS, **COMMON),
    st.builds(TextObservation, WORDS, st.sampled_from(["user", "agent", "environment"]), IDS),
    st.builds(WebObservation, html=WORDS, tool_call_id=IDS),
    st.builds(ImageObservation, WORDS, tool_call_id=IDS),
)


@pytest.mark.parametrize("family", [*FAMILIES, "react:mistral_v1", "code_action:qwen3"])
@settings(max_examples=30, deadline=None)
@given(steps=st.lists(STEP, max_size=8), system=WORDS, tools=st.booleans())
def test_any_trajectory_renders_alike_for_both_purposes(family, steps, system, tools):
    trajectory = Trajectory(tuple(steps), PROVENANCE, (Tool("f", "<|eot_id|>"),) if tools else (), system=system)
    try:
        everything, assistant = (
            chat_renderer(family, train_on=train_on).render(trajectory) for train_on in ("all", "assistant")
        )
    except UserError:
        assert family == "mistral_v1" and (tools or any(isinstance(step, ApiAction | CodeAction) for step in steps))
        return
    assert everything.text == assistant.text
    for of_all, of_assistant in zip(character_weights(everything), character_weights(assistant), strict=True):
        assert of_assistant in (0, of_all)  # what fine-tuning weighs, pre-training weighs as much
    said = any(isinstance(step, ApiAction | CodeAction | MessageAction) for step in steps)
    assert said or not any(character_weights(assistant))
    if all(step.outcome == "error" for step in steps if hasattr(step, "outcome")):
        assert not any(character_weights(assistant))
    assert 0 <= everything.carry <= len(everything.spans)


def character_weights(rendering) -> list[float]:
    return [span.weight for span in rendering.spans for _ in span.text]


def test_code_is_offered_as_a_tool_where_the_family_has_no_words_for_it():
    steps = (TextObservation("add", "user"), CodeAction("python", "1 + 1", tool_call_id="1"))
    trajectory = Trajectory(steps, PROVENANCE, code_languages=("python",))
    for family in ("llama3", "mistral_v3", "qwen2.5", "react"):
        assert "Runs Python code and returns what it prints." in chat_renderer(family).render(trajectory).text
    for family in ("llama3.1", "code_action"):
        assert "Runs Python code" not in chat_renderer(family).render(trajectory).text
    own = replace(trajectory, tools=(Tool("python", "My own."),))
    assert "Runs Python code" not in chat_renderer("llama3").render(own).text
