"""Conversations in OpenAI's form: read completely, written back, malformed ones refused with their place."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.adp import trajectory_from_adp, trajectory_to_adp
from hephaestus_jax.formats.messages import trajectory_from_messages, trajectory_to_messages
from hephaestus_jax.formats.records import (
    ApiAction,
    CodeAction,
    ImageObservation,
    MessageAction,
    Provenance,
    TextObservation,
    Tool,
    Trajectory,
    WebObservation,
)

HERE = Provenance("somewhere", "1", "MIT")
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Now.", "parameters": {"type": "object", "properties": {"c": {}}}},
}


def call(name, arguments, identifier=None):
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {**made, "id": identifier} if identifier else made


def read(*messages, **row):
    return trajectory_from_messages({"messages": list(messages), **row}, HERE)


def test_a_conversation_with_parallel_calls():
    made = read(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Use tools."},
        {"role": "user", "content": "Paris and Rome?"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": "two calls",
            "tool_calls": [call("weather", '{"c": "Paris"}', "p"), call("weather", {"c": "Rome"}, "r")],
        },
        {"role": "tool", "tool_call_id": "r", "content": "sun"},
        {"role": "tool", "tool_call_id": "p", "content": [{"type": "text", "text": part} for part in ("ra", "in")]},
        {"role": "assistant", "content": "Rain and sun."},
        tools=[WEATHER],
        id="conversation 1",
    )
    assert made.system == "Be brief.\n\nUse tools."
    assert made.name == "conversation 1"
    assert made.tools == (Tool("weather", "Now.", {"type": "object", "properties": {"c": {}}}),)
    assert made.steps == (
        TextObservation("Paris and Rome?", "user"),
        ApiAction("weather", {"c": "Paris"}, "Let me look.", "two calls", tool_call_id="p"),
        ApiAction("weather", {"c": "Rome"}, tool_call_id="r"),
        TextObservation("sun", "environment", "r"),
        TextObservation("rain", "environment", "p"),
        MessageAction("Rain and sun."),
    )
    written = trajectory_to_messages(made)
    roles = [message["role"] for message in written["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert [c["id"] for c in written["messages"][2]["tool_calls"]] == ["p", "r"]
    assert json.loads(written["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {"c": "Paris"}
    assert written["tools"] == [WEATHER]
    assert trajectory_from_messages(written, HERE) == made


def test_missing_ids_are_paired_by_name_then_order():
    made = read(
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call("a", "{}"), call("b", ""), call("a", None)]},
        {"role": "tool", "name": "b", "content": "from b"},
        {"role": "tool", "content": "first a"},
        {"role": "tool", "content": None},
    )
    ids = [step.tool_call_id for step in made.steps[1:]]
    assert ids == ["call_000001", "call_000002", "call_000003", "call_000002", "call_000001", "call_000003"]
    assert made.steps[-1].content == ""


def test_an_id_that_is_made_up_is_none_of_the_conversations_own():
    made = read(
        {"role": "assistant", "tool_calls": [call("a", "{}"), call("b", "{}", "call_000001")]},
        {"role": "tool", "tool_call_id": "call_000001", "content": "from b"},
        {"role": "tool", "content": "from a"},
    )
    assert [step.tool_call_id for step in made.steps] == ["call_000002", "call_000001", "call_000001", "call_000002"]
    steps = (replace(made.steps[0], tool_call_id=None), *made.steps[1:3], replace(made.steps[3], tool_call_id=None))
    assert trajectory_to_messages(replace(made, steps=steps)) == trajectory_to_messages(made)


def test_an_id_that_only_the_result_has_goes_to_its_call():
    result = {"role": "tool", "tool_call_id": "x", "content": "1"}
    made = read({"role": "assistant", "tool_calls": [call("a", "{}")]}, result)
    assert [step.tool_call_id for step in made.steps] == ["x", "x"]


def test_an_id_that_is_used_again_belongs_to_the_latest_call():
    asked = {"role": "assistant", "tool_calls": [call("a", "{}", "x")]}
    told = {"role": "tool", "tool_call_id": "x", "content": "1"}
    made = read(asked, told, asked, told)
    assert [type(step) for step in made.steps] == [ApiAction, TextObservation] * 2
    assert trajectory_from_messages(trajectory_to_messages(made), HERE) == made
    assert trajectory_from_adp(trajectory_to_adp(made), HERE) == made  # the protocol wants unique ids, and gets them


def test_the_apis_earlier_names_are_read():
    made = read(
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"c": 1}'}},
        {"role": "function", "name": "weather", "content": "sun"},
        functions=[WEATHER["function"]],
    )
    assert made.steps[0] == ApiAction("weather", {"c": 1}, tool_call_id="call_000001")
    assert made.steps[1].tool_call_id == "call_000001"
    assert made.tools[0].name == "weather"


def test_images_become_steps_of_their_own():
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    words = {"type": "text", "text": "what is"}
    made = read({"role": "user", "content": [words, {"type": "text", "text": " this?"}, picture]})
    assert made.steps == (
        TextObservation("what is this?", "user"),
        ImageObservation("https://example.org/x.png", source="user"),
    )
    seen = read({"role": "assistant", "tool_calls": [call("look", "{}")]}, {"role": "tool", "content": [picture]})
    assert isinstance(seen.steps[1], ImageObservation)
    assert seen.steps[1].tool_call_id == "call_000001"


def test_a_message_that_is_not_to_be_trained_on_is_an_error_step():
    made = read({"role": "user", "content": "?"}, {"role": "assistant", "content": "wrong", "weight": 0})
    assert made.steps[1] == MessageAction("wrong", outcome="error")
    assert trajectory_to_messages(made)["messages"][1]["weight"] == 0
    assert read({"role": "assistant", "content": "right", "weight": 1}).steps[0].outcome == "unknown"


def test_a_refusal_is_what_the_assistant_says():
    refused = MessageAction("I will not.")
    assert read({"role": "assistant", "content": None, "refusal": "I will not."}).steps == (refused,)
    assert read({"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]}).steps == (refused,)
    both = read({"role": "assistant", "content": "Well.", "refusal": "No."})
    assert (both.steps[0].content, both.details["message_fields"]) == ("Well.", {"0": {"refusal": "No."}})


def test_unknown_keys_are_kept_in_details():
    made = read(
        {"role": "user", "content": "hi", "name": "Ann"},
        {"role": "assistant", "content": "hello", "refusal": None, "annotations": [1]},
        tools=[{**WEATHER, "function": {**WEATHER["function"], "strict": True}}],
        quality=0.5,
        id=7,
        empty=None,
    )
    assert made.details == {
        "quality": 0.5,
        "id": 7,
        "message_fields": {"0": {"name": "Ann"}, "1": {"annotations": [1]}},
        "tool_fields": {"0": {"strict": True}},
    }
    assert trajectory_from_messages(trajectory_to_messages(made), HERE) == made


def test_nested_columns_may_be_json_strings():
    row = {"messages": json.dumps([{"role": "user", "content": "hi"}]), "tools": json.dumps([WEATHER])}
    made = trajectory_from_messages(row, HERE)
    assert made.steps == (TextObservation("hi", "user"),)
    assert made.tools[0].name == "weather"
    assert trajectory_from_messages({**row, "tools": ""}, HERE).tools == ()


def test_what_this_form_has_no_role_for_is_written_as_text():
    steps = (
        CodeAction("python", "1+1", description="Compute.", tool_call_id="c"),
        TextObservation("2", "environment", "c"),
        ApiAction("open", {"url": "x"}),
        WebObservation(url="https://x", axtree="a tree"),
        TextObservation("an event", "environment"),
    )
    messages = trajectory_to_messages(Trajectory(steps, HERE))["messages"]
    assert messages[0]["content"] == "Compute."
    assert messages[0]["tool_calls"][0]["function"] == {"name": "python", "arguments": '{"code": "1+1"}'}
    assert messages[1] == {"role": "tool", "tool_call_id": "c", "content": "2"}
    assert messages[3]["tool_call_id"] == messages[2]["tool_calls"][0]["id"]
    assert messages[3]["content"] == "URL: https://x\na tree"
    assert messages[4] == {"role": "user", "content": "an event"}


def test_a_later_system_message_answers_no_call():
    made = read(
        {"role": "assistant", "tool_calls": [call("f", "{}", "a")]},
        {"role": "developer", "content": "Stop."},
        {"role": "tool", "tool_call_id": "a", "content": "done"},
    )
    assert made.system == ""
    assert made.steps[1:] == (TextObservation("Stop.", "user"), TextObservation("done", "environment", "a"))
    assert made.details["message_fields"] == {"1": {"role": "developer"}}


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
arguments = st.dictionaries(words, st.one_of(st.none(), st.integers(), words, st.lists(words, max_size=2)), max_size=2)


@st.composite
def conversations(draw):
    messages = [{"role": "system", "content": draw(words)} for _ in range(draw(st.integers(0, 2)))]
    messages.append({"role": draw(st.sampled_from(["user", "assistant"])), "content": draw(words)})
    for turn in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["user", "assistant", "calls", "unanswered", "system"]))
        if kind in ("user", "system"):
            messages.append({"role": kind, "content": draw(words)})
            continue
        message = {"role": "assistant", "content": draw(st.none() | words)}
        message["weight"] = draw(st.sampled_from([None, 0, 1]))
        if draw(st.booleans()):
            message["reasoning_content"] = draw(words)
        if kind != "assistant":
            count = draw(st.integers(1, 3))
            ids = [draw(st.sampled_from([None, f"{turn}.{number}"])) for number in range(count)]
            message["tool_calls"] = [
                call(draw(words.filter(bool)), draw(st.one_of(arguments, arguments.map(json.dumps))), identifier)
                for identifier in ids
            ]
        messages.append(message)
        if kind == "calls":
            messages += [{"role": "tool", "content": draw(words), "tool_call_id": identifier} for identifier in ids]
    return {"messages": messages, "tools": draw(st.none() | st.just([WEATHER])), "id": draw(st.none() | words)}


@settings(max_examples=200, deadline=None)
@given(conversations())
def test_writing_and_reading_again_changes_nothing(value):
    before = json.dumps(value)
    made = trajectory_from_messages(value, HERE)
    assert json.dumps(value) == before
    assert trajectory_from_messages(json.loads(json.dumps(trajectory_to_messages(made))), HERE) == made
    calls = [step.tool_call_id for step in made.steps if isinstance(step, ApiAction)]
    assert len(calls) == len(set(calls))


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "the row: expected an object"),
        ({}, "messages: expected a list, found NoneType"),
        ({"messages": []}, "messages: no message of a user"),
        ({"messages": "[{"}, "messages: not JSON"),
        ({"messages": ["hi"]}, r"messages\[0\]: expected an object, found str"),
        ({"messages": [{"content": "hi"}]}, r"messages\[0\].role: None is none of system"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\[0\].role: 'robot'"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: expected text or a list of parts"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\].content: expected .*, found int"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            r"messages\[0\].content\[0\].type: 'input_audio' is no text",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [call("f", "{oops")]}]},
            r"messages\[1\].tool_calls\[0\].function.arguments: not JSON",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [call("f", "[1]")]}]},
            r"messages\[1\].tool_calls\[0\].function.arguments: expected an object, found list",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [call("", "{}")]}]}, r"function.name: expected the name"),
        ({"messages": [{"role": "assistant", "content": "x", "weight": "0"}]}, r"messages\[0\].weight: expected"),
        (
            {"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]},
            r"messages\[0\].weight: expected 0 or 1",
        ),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, r"messages\[1\].tool_call_id: no open call"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [call("f", "{}", "a")]},
                    {"role": "tool", "tool_call_id": "b", "content": "x"},
                ]
            },
            r"messages\[1\].tool_call_id: 'b' is the id of no open call",
        ),
        ({"messages": [USER], "tools": [{"type": "function"}]}, r"tools\[0\]: a tool needs a name"),
        ({"messages": [USER], "tools": {"name": "f"}}, r"tools: expected a list, found dict"),
    ],
)
def test_malformed_conversations_are_refused_with_their_place(row, message):
    with pytest.raises(UserError, match=message):
        trajectory_from_messages(row, HERE)
