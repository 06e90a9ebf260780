"""That `violations` and `underived` find what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from compose_docs import NETWORK, PETS, schema, text
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.forge.compose import ComposeConfig, compose, underived, violations
from hephaestus_jax.formats.records import ApiAction, CodeAction, Step, TextObservation, Trajectory

CONFIG = ComposeConfig(missing_parameter=1, parallel=1, multi_turn=1, max_per_api=99, closing=1)
GOOD = list(compose((*PETS, *NETWORK), (), CONFIG))
CALLING = [t for t in GOOD if any(isinstance(s, ApiAction) for s in t.steps)]
PARALLEL = [t for t in GOOD if t.details["composed"] == "parallel"]
LINKED = [t for t in GOOD if t.details.get("links")]


def test_what_is_composed_is_right():
    assert CALLING
    assert PARALLEL
    assert LINKED
    assert [v for t in GOOD for v in (*violations(t), *underived(t))] == []


@st.composite
def calls(draw: st.DrawFn) -> tuple[Trajectory, int]:
    """A right trajectory and the place of one of its calls."""
    trajectory = draw(st.sampled_from(CALLING))
    return trajectory, draw(st.sampled_from([n for n, s in enumerate(trajectory.steps) if isinstance(s, ApiAction)]))


def changed(trajectory: Trajectory, place: int, **fields) -> Trajectory:
    steps = list(trajectory.steps)
    steps[place] = replace(steps[place], **fields)
    return replace(trajectory, steps=tuple(steps))


@settings(max_examples=60, deadline=None)
@given(calls(), st.data())
def test_a_changed_call_is_found(chosen, data):
    trajectory, place = chosen
    call = trajectory.steps[place]
    assert isinstance(call, ApiAction)
    kwargs = dict(call.kwargs)
    parameters = next(tool.parameters for tool in trajectory.tools if tool.name == call.function)
    mutations = ["unknown tool", "no id"]
    if kwargs:
        mutations += ["renamed", "wrong type"]
    if required := [name for name in parameters.get("required", ()) if name in kwargs]:
        mutations.append("dropped")
    mutation = data.draw(st.sampled_from(mutations))
    if mutation == "unknown tool":
        bad = changed(trajectory, place, function=call.function + "2")
    elif mutation == "no id":
        bad = changed(trajectory, place, tool_call_id=None)
    elif mutation == "dropped":
        del kwargs[data.draw(st.sampled_from(required))]
        bad = changed(trajectory, place, kwargs=kwargs)
    else:
        name = data.draw(st.sampled_from(sorted(kwargs)))
        value = kwargs.pop(name)
        wrong = {"not": "this"} if mutation == "wrong type" else value
        bad = changed(trajectory, place, kwargs={**kwargs, name + ("_" if mutation == "renamed" else ""): wrong})
    assert violations(bad)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(PARALLEL), st.booleans())
def test_swapped_or_equal_ids_of_parallel_calls_are_found(trajectory, of_calls):
    kind = ApiAction if of_calls else TextObservation
    places = [n for n, s in enumerate(trajectory.steps) if isinstance(s, kind) and s.tool_call_id]
    first, second = (trajectory.steps[n].tool_call_id for n in places[:2])
    swapped = changed(changed(trajectory, places[0], tool_call_id=second), places[1], tool_call_id=first)
    assert violations(swapped)
    assert violations(changed(trajectory, places[0], tool_call_id=second))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(PARALLEL), st.data())
def test_an_answer_that_is_missing_twice_there_or_elsewhere_is_found(trajectory, data):
    steps: Sequence[Step] = trajectory.steps
    place = data.draw(st.sampled_from([n for n, s in enumerate(steps) if getattr(s, "source", "") == "environment"]))
    without = (*steps[:place], *steps[place + 1 :])
    for bad in (without, (*steps[:place], steps[place], *steps[place:]), (steps[place], *without)):
        assert violations(replace(trajectory, steps=tuple(bad)))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(LINKED), st.sampled_from(["value", "path", "output", "call"]))
def test_a_link_that_does_not_hold_is_found(trajectory, what):
    link = trajectory.details["links"][0]
    second = next(n for n, s in enumerate(trajectory.steps) if getattr(s, "tool_call_id", "") == link["to"])
    call = trajectory.steps[second]
    assert isinstance(call, ApiAction)
    if what == "value":
        key = link["argument"][0]
        bad = changed(trajectory, second, kwargs={**call.kwargs, key: "other" if len(link["argument"]) == 1 else ["o"]})
    elif what == "output":
        places = [n for n, s in enumerate(trajectory.steps) if isinstance(s, TextObservation) and s.tool_call_id]
        place = next(n for n in places if trajectory.steps[n].tool_call_id == link["from"])
        bad = changed(trajectory, place, content="{}")
    else:
        changes = {"path": {"path": ["nowhere"]}, "call": {"from": link["to"]}}[what]
        bad = replace(trajectory, details={**trajectory.details, "links": [{**link, **changes}]})
    assert violations(bad)


def test_tools_of_one_name_invalid_schemas_and_unknown_languages_are_found():
    good = CALLING[0]
    assert any("2 times" in v for v in violations(replace(good, tools=(*good.tools, good.tools[0]))))
    broken = replace(good.tools[0], parameters={"type": "object", "properties": {"a": {"type": "text"}}})
    assert any("invalid" in v for v in violations(replace(good, tools=(broken, *good.tools[1:]))))
    ran = replace(good, steps=(CodeAction("bash", "ls", tool_call_id="c"),))
    assert violations(ran)
    assert violations(replace(ran, code_languages=("bash",))) == []


@pytest.mark.parametrize(
    ("value", "said", "derived"),
    [
        ("vpc-1", "Take vpc-1.", True),
        ("vpc-1", "Take vpc-12.", False),
        (5, "at most 5 of them", True),
        (5, "at most 15 of them", False),
        (1000, "up to 1,000", True),
        (2.0, "2 times", True),
        (True, "set to true", True),
        (True, "set it", False),
        ('say "hi"', 'write "say \\"hi\\""', True),
        ("", 'an empty name, ""', True),
        ("", "no name", False),
        (["a1", "b2"], "a1 and b2", True),
        (["a1", "b2"], "a1 and b3", False),
        ({"k": {"d": "deep"}}, '{"k": {"d": "deep"}}', True),
        ({"k": {"d": "deep"}}, "shallow", False),
        ("usual", "nothing", True),
    ],
)
def test_a_value_is_derived_if_the_words_state_it(value, said, derived):
    tool = CALLING[0].tools[0]
    tool = replace(tool, name="f", parameters=schema(v={}, u=text(default="usual")))
    name = "u" if value == "usual" else "v"
    steps = (TextObservation(said, "user"), ApiAction("f", {name: value}, tool_call_id="c"))
    assert (underived(replace(CALLING[0], tools=(tool,), steps=steps)) == []) is derived
