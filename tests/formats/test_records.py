"""Records survive JSON, and their ids depend on content alone."""

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    ApiError,
    ApiExample,
    CodeAction,
    Document,
    ImageObservation,
    Json,
    MessageAction,
    Provenance,
    Record,
    TextObservation,
    Tool,
    Trajectory,
    WebObservation,
    digest,
    from_json,
    record_id,
    slice_of,
    to_json,
)

texts = st.text(max_size=20)
maybe = st.none() | texts
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
provenances = st.builds(Provenance, texts, texts, texts, texts, texts, st.tuples(texts))
outcomes = st.sampled_from(["ok", "error", "corrected", "unknown"])
steps = st.one_of(
    st.builds(ApiAction, texts, json_objects, maybe, maybe, st.none() | st.floats(0, 1), maybe, outcomes),
    st.builds(CodeAction, texts, texts, maybe, maybe, st.none(), maybe, outcomes),
    st.builds(MessageAction, texts, maybe, maybe, st.none(), outcomes),
    st.builds(TextObservation, texts, st.sampled_from(["user", "agent", "environment"]), maybe),
    st.builds(WebObservation, maybe, maybe, maybe, json_values, json_values, maybe),
    st.builds(ImageObservation, json_values, json_values, maybe, maybe),
)
examples = st.builds(ApiExample, texts, maybe, maybe)
errors = st.builds(ApiError, texts, texts)
records = st.one_of(
    st.builds(
        ApiDoc,
        texts,
        texts,
        texts,
        provenances,
        texts,
        json_objects,
        st.none() | json_objects,
        st.lists(errors, max_size=2).map(tuple),
        st.lists(examples, max_size=2).map(tuple),
    ),
    st.builds(
        Trajectory,
        st.lists(steps, max_size=4).map(tuple),
        provenances,
        st.lists(st.builds(Tool, texts, texts, json_objects), max_size=2).map(tuple),
        st.lists(texts, max_size=2).map(tuple),
        texts,
        st.none() | st.booleans(),
    ),
    st.builds(Document, texts, st.sampled_from(["code", "text"]), provenances, texts),
)


@given(records)
def test_json_and_back(record: Record) -> None:
    again = from_json(json.loads(json.dumps(to_json(record))))
    assert again == record
    assert record_id(again) == record_id(record)


@given(records, texts)
def test_the_id_ignores_processing_and_nothing_else_of_the_provenance(record: Record, text: str) -> None:
    where = record.provenance
    processed = dataclasses.replace(record, provenance=dataclasses.replace(where, processing=("cut", text)))
    assert record_id(processed) == record_id(record)
    for name in ("source", "version", "licence", "host", "path"):
        moved = dataclasses.replace(record, provenance=dataclasses.replace(where, **{name: getattr(where, name) + "x"}))
        assert record_id(moved) != record_id(record)


def test_ids_are_the_same_in_every_process() -> None:
    record = Document("x = 'ü'\n", "code", Provenance("a", "1", "MIT"))
    assert record_id(record) == "b151e9ae36fd98f71b4ba923a0d4de2c"
    code = (
        "from hephaestus_jax.formats.records import *;"
        "print(record_id(Document(\"x = 'ü'\\n\", 'code', Provenance('a', '1', 'MIT'))))"
    )
    for seed in ("0", "1"):
        printed = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert printed.stdout.strip() == record_id(record)


def test_digest_ignores_the_order_of_keys_only() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest("\ud800") != digest("\ud801")


def test_slices() -> None:
    where = Provenance("a", "1", "MIT")
    assert slice_of(ApiDoc("f", "a", "", where)) == "agent_docs"
    assert slice_of(Trajectory((), where)) == "agent_trajectories"
    assert slice_of(Document("", "text", where)) == "text"


def test_deeply_nested_arguments_are_no_deep_recursion() -> None:
    kwargs = json.loads('{"a":' * 600 + "1" + "}" * 600)
    record = Trajectory((ApiAction("f", kwargs),), Provenance("a", "1", "MIT"))
    assert to_json(record)["steps"][0]["kwargs"] is kwargs
    assert len(record_id(record)) == 32


ORIGIN = to_json(Document("", "text", Provenance("a", "1", "MIT")))["provenance"]


@pytest.mark.parametrize(
    "value",
    [
        {},
        ["kind"],
        {"kind": []},
        {"kind": "Poem"},
        {"kind": "Document"},
        {"kind": "Document", "text": "x", "slice": "text", "provenance": {"source": "a"}},
        {"kind": "Document", "text": "x", "slice": "text", "provenance": {}, "colour": "red"},
        {
            "kind": "Trajectory",
            "steps": [{"class_": "Dance"}],
            "provenance": ORIGIN,
        },
        {"kind": "Trajectory", "steps": "abc", "provenance": ORIGIN},
        {"kind": "Trajectory", "steps": [], "provenance": "here"},
        {
            "kind": "Trajectory",
            "steps": [{"class_": "MessageAction", "content": "x", "outcome": "bad"}],
            "provenance": ORIGIN,
        },
    ],
)
def test_malformed_records_are_refused(value: Json) -> None:
    with pytest.raises(UserError, match="record"):
        from_json(value)
