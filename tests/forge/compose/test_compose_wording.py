"""The words: tasks from summaries, values in sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest
from compose_docs import CREATE_PET, example

from hephaestus_jax.forge.compose.requests import request
from hephaestus_jax.forge.compose.settings import Draw
from hephaestus_jax.forge.compose.tasks import for_user, imperative, task_of
from hephaestus_jax.forge.compose.wording import human, is_said, singular, spelled


@pytest.mark.parametrize(
    ("summary", "task"),
    [
        ("Deletes the specified route table.", "delete the route table"),
        ("Creates or updates a label.", "create or update a label"),
        ("Creates, tags and returns an image.", "create, tag and return an image"),
        ("Permanently deletes a pet. It cannot be undone.", "permanently delete a pet"),
        ("To create a VPC", "create a VPC"),
        ("This example creates a VPC.", "create a VPC"),
        ("The following ``create-vpc`` example creates a VPC.", "create a VPC"),
        ("Example 2: To list your keys", "list your keys"),
        ("Use this operation to retry a payment.", "retry a payment"),
        ("Allows you to move a file.", "move a file"),
        ("Returns a list of [pets](https://pets.example/docs).", "get a list of pets"),
        ("Modifies an index e.g. its name. More.", "modify an index"),
        ("Order details", None),
        ("Access token for the API", None),
        ("A pet.", None),
        ("Lists", None),
        ("", None),
        ("Updates are sent by mail.", None),
    ],
)
def test_a_summary_becomes_an_imperative(summary, task):
    assert imperative(summary) == task


def test_the_intent_comes_first_then_the_summary_then_the_name():
    assert task_of(CREATE_PET, example({}, intent="To register a dog")) == "register a dog"
    assert task_of(CREATE_PET, example({}, intent="Response 1")) == "create a pet"
    assert task_of(_with(CREATE_PET, "Pets are nice."), example({})) == "create a pet"
    assert task_of(_with(CREATE_PET, "Nice.", function="pets"), example({})) is None


def _with(doc, description, **fields):
    return replace(doc, description=description, **fields)


def test_what_is_yours_is_mine_to_the_user():
    assert for_user("list your pets that you own and send them to you") == "list my pets that I own and send them to me"


@pytest.mark.parametrize(
    ("name", "words"),
    [("VpcId", "VPC ID"), ("maxResults", "max results"), ("pet_ids", "pet IDs"), ("size-gb", "size gb"), ("_", "_")],
)
def test_identifiers_are_said_as_words(name, words):
    assert human(name) == words


def test_values_are_written_as_people_do():
    assert spelled("pet_1") == "pet_1"
    assert spelled("a b") == '"a b"'
    assert spelled(["a", "b", "c"]) == "a, b and c"
    assert spelled(True) == "true"
    assert spelled({"a": [1]}) == '{"a": [1]}'
    assert [singular(word) for word in ("VpcIds", "policies", "addresses", "status", "boxes")] == [
        "VpcId", "policy", "address", "status", "box",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_a_request_is_a_sentence_that_states_all_values(seed):
    arguments = {"name": "Finn", "limit": 5, "deep": {"a": [1.5, None]}, "ids": ["x1", "x2"], "dry": False}
    for count in range(len(arguments) + 1):
        chosen = dict(list(arguments.items())[:count])
        text = request("list your pets", chosen, Draw(seed, "r", count))
        assert text[0].isupper()
        assert "{" not in text.replace('{"a": [1.5, null]}', "")
        for name in chosen:
            assert human(name) in text
        for value in ("Finn", 5, 1.5, None, "x1", "x2", False)[: (0, 1, 2, 4, 6, 7)[count]]:
            assert is_said(value, text)
        assert "your" not in text
