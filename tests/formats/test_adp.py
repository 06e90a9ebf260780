"""The Agent Data Protocol in and out: nothing is lost, and what is invalid is refused with its place."""

import copy
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.adp import EXTRAS_KEY, trajectory_from_adp, trajectory_to_adp
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
    from_json,
    record_id,
    to_json,
)

HERE = Provenance("somewhere", "1", "MIT", "example.org", "a.jsonl:7", ("read",))
ELSEWHERE = Provenance("elsewhere", "2", "unknown")
OUTCOMES = ["ok", "error", "corrected", "unknown"]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
number = st.one_of(st.integers(-5, 5), st.floats(-2, 2))
json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), number, text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=6,
)
json_object = st.dictionaries(text.filter(lambda key: key != EXTRAS_KEY), json_value, max_size=3)


# Valid ADP objects, every optional field absent, null or present.


@st.composite
def optional_fields(draw, fields):
    made = {}
    for name, strategy in fields.items():
        presence = draw(st.sampled_from(["absent", "null", "present"]))
        if presence != "absent":
            made[name] = None if presence == "null" else draw(strategy)
    return made


annotation = st.fixed_dictionaries(
    {
        "element_type": text,
        "bounding_box": st.fixed_dictionaries({side: number for side in ("x", "y", "width", "height")}),
        "text": st.none() | text,
    }
)
source = st.sampled_from(["user", "agent", "environment"])
action_fields = {"reasoning_content": text, "reward": number}
observation_fields = {"reward": number}


@st.composite
def adp_tool_action(draw):
    if draw(st.booleans()):
        step = {"class_": "api_action", "function": draw(text), "kwargs": draw(json_object)}
        return {**step, **draw(optional_fields({**action_fields, "description": text}))}
    step = {"class_": "code_action", "language": draw(st.sampled_from(["python", "bash"])), "content": draw(text)}
    return {**step, "description": draw(st.none() | text), **draw(optional_fields(action_fields))}


@st.composite
def adp_observation(draw):
    kind = draw(st.sampled_from(["text", "text", "image", "web"]))
    if kind == "text":
        step = {"class_": "text_observation", "content": draw(text), "source": draw(source)}
        return {**step, **draw(optional_fields({**observation_fields, "name": text}))}
    image = {"class_": "image_observation", "content": draw(text), "source": draw(source)}
    image.update(draw(optional_fields({"annotations": st.lists(annotation, max_size=2)})))
    if kind == "image":
        return {**image, **draw(optional_fields(observation_fields))}
    viewport = st.lists(st.integers(1, 2000), min_size=2, max_size=2)
    step = {"class_": "web_observation", "html": draw(st.none() | text), "axtree": draw(st.none() | text)}
    step.update(url=draw(st.none() | text), viewport_size=draw(st.none() | viewport))
    step["image_observation"] = draw(st.none() | st.just(image))
    return {**step, **draw(optional_fields(observation_fields))}


@st.composite
def adp_objects(draw):
    content = []
    for turn in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["say", "see", "call", "calls", "unanswered"]))
        if kind == "say":
            step = {"class_": "message_action", "content": draw(text)}
            content.append({**step, **draw(optional_fields({**action_fields, "description": text}))})
        elif kind == "see":
            if content and content[-1]["class_"] in ("api_action", "code_action"):
                continue  # an unanswered call before an observation is not valid
            content.append(draw(adp_observation()))
        elif kind == "unanswered":
            content.append({**draw(adp_tool_action()), **draw(optional_fields({"tool_call_id": st.just(None)}))})
            content.append({"class_": "message_action", "content": "so be it"})
        else:
            ids = [f"id{turn}.{number}" for number in range(1 if kind == "call" else 3)]
            content += [{**draw(adp_tool_action()), "tool_call_id": identifier} for identifier in ids]
            answers = [{**draw(adp_observation()), "tool_call_id": identifier} for identifier in ids]
            content += draw(st.permutations(answers))
    value = {"id": draw(text), "content": content}
    value.update(draw(optional_fields({"available_custom_tools": st.lists(text, max_size=2)})))
    if draw(st.booleans()):
        used = sorted({step["language"] for step in content if step["class_"] == "code_action"})
        value["available_code_languages"] = draw(st.none() | st.permutations(used))
    if draw(st.booleans()):
        value["schema_version"] = draw(st.sampled_from(["1.0.0", "1.2.0", "1.5.0"]))
    if draw(st.booleans()):
        value["details"] = draw(json_object)
    if "available_custom_tools" not in value and draw(st.booleans()):
        value["available_apis"] = draw(st.none() | st.lists(text, max_size=2))
    return value


@settings(max_examples=150, deadline=None)
@given(adp_objects())
def test_every_valid_object_leaves_as_it_came(value):
    before = copy.deepcopy(value)
    trajectory = trajectory_from_adp(value, HERE)
    assert trajectory_to_adp(trajectory, extras=False) == before
    assert value == before  # the input is not changed
    assert json.loads(json.dumps(trajectory_to_adp(trajectory, extras=False))) == before


@settings(max_examples=100, deadline=None)
@given(adp_objects())
def test_extras_bring_back_a_trajectory_that_came_from_adp(value):
    trajectory = trajectory_from_adp(value, HERE)
    written = json.loads(json.dumps(trajectory_to_adp(trajectory)))
    assert trajectory_from_adp(written, ELSEWHERE) == trajectory
    bare = {key: item for key, item in written["details"].items() if key != EXTRAS_KEY}
    assert bare == value.get("details", {})  # the extras are the only addition


# Trajectories of our own, with ids that the protocol would refuse too.

outcome = st.sampled_from(OUTCOMES)
call_id = st.sampled_from([None, "a", "b", "call_000001"])
own_action_fields = {
    "description": st.none() | text,
    "reasoning_content": st.none() | text,
    "reward": st.none() | number,
    "outcome": outcome,
}
own_steps = st.one_of(
    st.builds(ApiAction, text, json_object, tool_call_id=call_id, **own_action_fields),
    st.builds(CodeAction, st.sampled_from(["python", "bash"]), text, tool_call_id=call_id, **own_action_fields),
    st.builds(MessageAction, text, **own_action_fields),
    st.builds(TextObservation, text, source, call_id, st.none() | number),
    st.builds(ImageObservation, text, st.none() | st.lists(annotation, max_size=1), source, call_id),
    st.builds(WebObservation, st.none() | text, url=st.none() | text, tool_call_id=call_id),
)
own_trajectories = st.builds(
    Trajectory,
    steps=st.lists(own_steps, max_size=8).map(tuple),
    provenance=st.sampled_from([HERE, ELSEWHERE]),
    tools=st.lists(st.builds(Tool, text, text, json_object), max_size=2).map(tuple),
    code_languages=st.sampled_from([(), ("python",), ("python", "bash")]),
    system=text,
    success=st.none() | st.booleans(),
    reward=st.none() | number,
    name=text,
    details=json_object,
)


@settings(max_examples=250, deadline=None)
@given(own_trajectories)
def test_our_own_trajectories_leave_as_valid_objects_and_come_back_equal(trajectory):
    try:
        written = json.loads(json.dumps(trajectory_to_adp(trajectory)))
    except UserError as error:
        assert "cannot express" in str(error)
        return
    assert trajectory_from_adp(written, ELSEWHERE) == trajectory
    bare = trajectory_to_adp(trajectory, extras=False)
    assert EXTRAS_KEY not in bare["details"]
    assert bare["schema_version"] == "1.2.0"
    trajectory_from_adp(bare, ELSEWHERE)  # valid without the extras too
    assert record_id(trajectory_from_adp(written, ELSEWHERE)) == record_id(trajectory)


def test_what_the_protocol_lacks_travels_in_details():
    call = ApiAction("search", {"q": "x"}, outcome="error")
    steps = (TextObservation("hello", "user"), call, TextObservation("no", "environment"))
    made = Trajectory(steps, HERE, tools=(Tool("search", "Searches."),), system="Be brief.", success=False, reward=0)
    value = trajectory_to_adp(made)
    own = value["details"][EXTRAS_KEY]
    assert own["outcomes"] == {"1": "error"}
    assert own["tools"][0]["description"] == "Searches."
    assert (own["system"], own["success"], own["reward"], own["name"]) == ("Be brief.", False, 0, "")
    assert own["provenance"]["licence"] == "MIT"
    assert value["id"] == record_id(made)
    assert value["content"][1]["tool_call_id"] == value["content"][2]["tool_call_id"] == "call_000001"
    assert own["tool_call_ids"] == {"1": None, "2": None}
    assert trajectory_from_adp(value, ELSEWHERE) == made


def test_parallel_calls_without_ids_are_answered_in_order():
    steps = (ApiAction("a", {}), ApiAction("b", {}), TextObservation("1", "environment"), TextObservation("2", "agent"))
    content = trajectory_to_adp(Trajectory(steps, HERE))["content"]
    assert [step["tool_call_id"] for step in content] == ["call_000001", "call_000002", "call_000001", "call_000002"]


def test_a_form_that_no_longer_fits_is_refused():
    sparse = {"id": "1", "content": [{"class_": "message_action", "content": "a", "reward": None}] * 2}
    shorter = dataclasses.replace(trajectory_from_adp(sparse, HERE), steps=())
    with pytest.raises(UserError, match="remove that key after changing the steps"):
        trajectory_to_adp(shorter)


def test_records_keep_the_trajectory_through_their_own_json():
    value = {"id": "1", "content": [{"class_": "text_observation", "content": "x", "source": "user", "name": "Ann"}]}
    restored = from_json(json.loads(json.dumps(to_json(trajectory_from_adp(value, HERE)))))
    assert trajectory_to_adp(restored, extras=False) == value


# What is refused, and where.

SAY = {"class_": "message_action", "content": "hello"}
SEE = {"class_": "text_observation", "content": "hello", "source": "environment"}
CALL = {"class_": "api_action", "function": "f", "kwargs": {}}
CODE = {"class_": "code_action", "language": "python", "content": "1", "description": None}


def linked(step, identifier):
    return {**step, "tool_call_id": identifier}


def with_content(*content, **top):
    return {"id": "1", "content": list(content), **top}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "trajectory: expected an object, found list"),
        ({"id": "1"}, "content: missing"),
        ({"content": []}, "id: missing"),
        ({"id": 7, "content": []}, "id: expected a string, found int"),
        ({"id": "1", "content": {}}, "content: expected a list, found dict"),
        (with_content(extra=1), "extra: not a field"),
        (with_content(details=[]), "details: expected an object"),
        (with_content(details=None), "details: expected an object"),
        (with_content(schema_version="2.0.0"), "schema_version: '2.0.0'"),
        (with_content(schema_version=None), "schema_version: None"),
        (with_content(available_custom_tools=["a"], available_apis=["a"]), "available_apis: the other name"),
        (with_content(available_custom_tools=["a", 1]), r"available_custom_tools\[1\]: expected a string"),
        (with_content(CODE, available_code_languages=["bash"]), r"available_code_languages: .*\['bash', 'python'\]"),
        (with_content("hello"), r"content\[0\]: expected an object, found str"),
        (with_content({"content": "x"}), r"content\[0\].class_: missing"),
        (with_content(SAY, {"class_": "robot"}), r"content\[1\].class_: 'robot' is none of api_action"),
        (with_content({"class_": ["x"]}), r"content\[0\].class_"),
        (with_content({**SAY, "tool_call_id": "a"}), r"content\[0\].tool_call_id: not a field"),
        (with_content({**SAY, "thoughts": "x"}), r"content\[0\].thoughts: not a field"),
        (with_content({"class_": "message_action"}), r"content\[0\].content: missing"),
        (with_content({**SAY, "content": None}), r"content\[0\].content: expected a string, found NoneType"),
        (with_content({**SAY, "reward": "1"}), r"content\[0\].reward: expected a number, found str"),
        (with_content({**SAY, "reward": True}), r"content\[0\].reward: expected a number, found bool"),
        (with_content({**SEE, "source": "robot"}), r"content\[0\].source: 'robot' is none of user, agent"),
        (with_content({**SEE, "name": 1}), r"content\[0\].name: expected a string"),
        (with_content({**CALL, "kwargs": "{}"}), r"content\[0\].kwargs: expected an object, found str"),
        (with_content({k: v for k, v in CODE.items() if k != "description"}), r"content\[0\].description: missing"),
        (with_content({"class_": "image_observation", "content": "x"}), r"content\[0\].source: missing"),
        (
            with_content({"class_": "image_observation", "content": "x", "source": "user", "annotations": [{}]}),
            r"content\[0\].annotations\[0\].element_type: missing",
        ),
        (
            with_content(
                {
                    "class_": "web_observation",
                    "html": None,
                    "url": None,
                    "viewport_size": [1, 2, 3],
                    "image_observation": None,
                }
            ),
            r"content\[0\].viewport_size: expected \[width, height\]",
        ),
        (with_content(CALL, SEE), r"content\[0\].tool_call_id: missing, though an observation follows"),
        (with_content(CODE, {**SEE, "source": "user"}), r"content\[0\].tool_call_id: missing"),
        (with_content(linked(CALL, "a")), r"content\[0\].tool_call_id: no later observation answers 'a'"),
        (with_content(linked(SEE, "a")), r"content\[0\].tool_call_id: 'a' is the id of no earlier tool action"),
        (with_content(linked(SEE, "a"), linked(CALL, "a")), r"content\[0\].tool_call_id: 'a' is the id of no earlier"),
        (with_content(linked(CALL, "a"), linked(CALL, "a")), r"content\[1\].tool_call_id: 'a' is also .* content\[0\]"),
        (
            with_content(linked(CALL, "a"), linked(SEE, "a"), linked(SEE, "a")),
            r"content\[2\].tool_call_id: 'a' is already answered by content\[1\]",
        ),
        (with_content(linked(CALL, 3), SEE), r"content\[0\].tool_call_id: expected a string, found int"),
        (with_content(details={EXTRAS_KEY: {"secret": 1}}), r"details.hephaestus_jax.secret: not a field"),
        (with_content(SAY, details={EXTRAS_KEY: {"outcomes": {"0": "great"}}}), r"outcomes.0: 'great' is none of ok"),
        (with_content(SAY, details={EXTRAS_KEY: {"outcomes": {"1": "ok"}}}), r"outcomes.1: content\[1\] has no"),
        (with_content(SEE, details={EXTRAS_KEY: {"outcomes": {"0": "ok"}}}), r"outcomes.0: content\[0\] has no"),
        (with_content(SAY, details={EXTRAS_KEY: {"provenance": {"source": "x"}}}), "was not written by this library"),
        (with_content(SAY, details={EXTRAS_KEY: {"form": {"top": {}, "steps": {"9": {}}}}}), "does not fit its steps"),
    ],
)
def test_invalid_objects_are_refused_with_their_place(value, message):
    with pytest.raises(UserError, match=message):
        trajectory_from_adp(value, HERE)


def test_a_version_before_links_may_lack_them_and_leaves_as_it_came():
    value = with_content(CALL, SEE, schema_version="1.1.0", available_apis=["f"])
    trajectory = trajectory_from_adp(value, HERE)
    assert trajectory.tools == (Tool("f"),)
    assert trajectory_to_adp(trajectory, extras=False) == value
    unstated = with_content(CALL, SEE)
    assert trajectory_to_adp(trajectory_from_adp(unstated, HERE, default_version="1.0.0"), extras=False) == unstated


def test_the_protocols_own_writing_leaves_no_trace_in_the_record():
    written = {**SAY, "description": None, "reasoning_content": None, "reward": None}
    value = with_content(written, schema_version="1.2.0", details={"a": 1})
    assert trajectory_from_adp(value, HERE).details == {"a": 1}
