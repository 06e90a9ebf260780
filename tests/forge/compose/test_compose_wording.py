"""The words: tasks from summaries, values in sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest
from compose_docs import CREATE_PET, example

from hephaestus_jax.forge.compose.replies import ask, closing
from hephaestus_jax.forge.compose.requests import request
from hephaestus_jax.forge.compose.settings import Draw
from hephaestus_jax.forge.compose.tasks import for_user, imperative, task_of
from hephaestus_jax.forge.compose.wording import human, is_plural, is_said, singular, spelled


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


@pytest.mark.parametrize(
    ("summary", "task"),
    [
        ("Update Stripped String", "update the stripped string"),
        ("Create SKU File", "create an SKU file"),
        ("Get Payouts for Payor", "get payouts for payor"),
        ("Get SKU by EAN", "get SKU by EAN"),  # nothing says that it is a title
        ("Register an instance in Kinesis", "register an instance in Kinesis"),
        ("Show a monitor by the given name.", "show a monitor"),
        ("Creates a project with the key and name.", "create a project"),
        ("Get it by id", "get it"),
    ],
)
def test_titles_become_parts_of_sentences(summary, task):
    assert imperative(summary) == task


def test_an_intent_that_is_of_another_sort_than_the_api_is_not_believed():
    wrong = example({}, intent="To delete a face")
    assert task_of(_with(CREATE_PET, "Searches for faces.", function="search_faces"), wrong) == "search for faces"
    assert task_of(_with(CREATE_PET, "Removes faces.", function="delete_faces"), wrong) == "delete a face"


def test_plurals_are_told_from_words_that_end_alike():
    assert [is_plural(name) for name in ("maxResults", "status", "address", "alias", "pet_ids", "pet", "")] == [
        True, False, False, False, True, False, False,
    ]  # fmt: skip


def test_a_description_that_names_the_value_stands_in_its_place():
    def asked(name, description):
        return ask("do it", name, {"description": description}, Draw(0, name))

    assert "the name of the zone" in asked("zone_name", "The name of the zone; a default is set.")
    assert "the ARN of the pet" in asked("petArn", "The Amazon Resource Name (ARN) of the pet.")
    assert "(" not in asked("table_name", "The table name.")
    assert "are the paths" in " ".join(ask("do it", "paths", {}, Draw(seed)) for seed in range(20))


def test_a_change_that_returns_an_empty_list_has_found_nothing_missing():
    assert closing("associate two pets", {"errorEntries": []}, Draw(1)) == "Done; the result lists no error entries."
    assert "empty" in closing("list pets", {"pets": []}, Draw(1))
    assert closing("get a club", {"club": {"id": 7, "n": 1}, "topics": [{"id": 1}]}, Draw(1)) is None


def test_a_value_that_two_parameters_share_is_said_once():
    said = request("update a pet", {"petId": 21, "PetId": 21, "text": "Red"}, Draw(1))
    assert said.count("21") == 1


def test_the_closing_tells_what_is_new():
    output = {"petId": 7, "shopId": 9}
    assert closing("feed a pet", output, Draw(1), [7]).lower().endswith("the shop id is 9.")
    assert closing("feed a pet", {"petId": 7}, Draw(1), [7]) == "Done."
    assert closing("get a pet", {"petId": 7}, Draw(1), [7]) is None
    assert singular("InstanceStatuses") == "InstanceStatus" and singular("aliases") == "alias"
    assert closing("feed a pet", {}, Draw(1)) is None
    assert closing("feed a pet", {"FailedItems": {"n": 1}, "n": 2}, Draw(1)) is None


def test_words_with_numbers_stay_one():
    assert [human(name) for name in ("s-3-bucket", "ec2Name", "ipv4", "line1")] == [
        "s3 bucket", "ec2 name", "ipv4", "line 1",
    ]  # fmt: skip
    assert imperative("Get list of accounts") == "get a list of accounts"


def test_a_version_in_front_is_no_verb_and_yes_is_an_answer():
    assert imperative("V1 Get Payout Statistics") == "get payout statistics"
    said = request("delete a pet", {"yes": True, "name": "Tom"}, Draw(3))
    assert "answer to any question" in said and "yes" in said
