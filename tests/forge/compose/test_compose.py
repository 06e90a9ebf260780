"""What is composed: kinds, links, derivability, order, splits, secrets."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from compose_docs import (
    CREATE_DISK,
    CREATE_PET,
    CREATE_VPC,
    DESCRIBE_VPCS,
    FEED_PET,
    FINN,
    GET_PET,
    NETWORK,
    PETS,
    UNRELATED,
    doc,
    example,
    schema,
    text,
)

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.compose import KINDS, ComposeConfig, compose, underived, violations
from hephaestus_jax.forge.compose.cases import belies, whole_numbers
from hephaestus_jax.forge.compose.commands import options
from hephaestus_jax.forge.compose.links import Leaf, _look_alike, identified
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    CodeAction,
    MessageAction,
    TextObservation,
    Trajectory,
    canonical_json,
    from_json,
    record_id,
    to_json,
)
from hephaestus_jax.formats.rendering import RecordRenderer

EVERYTHING = ComposeConfig(
    missing_function=1, missing_parameter=1, parallel=1, multi_turn=1, max_dependent=9, max_per_api=99, bash=0
)
FAR = tuple(
    doc(f"GET /x/{n}", f"Lists the {word}.", provider=f"p{n}.example", function=f"list_{word}")
    for n, word in enumerate(("stars", "songs", "books", "ships"))
)


def composed(docs, config=EVERYTHING, pool=FAR) -> list[Trajectory]:
    return list(compose(docs, pool, config))


def of_kind(kind: str, docs=PETS, **changes) -> list[Trajectory]:
    return [t for t in composed(docs, replace(EVERYTHING, **changes)) if t.details["composed"] == kind]


def calls(trajectory: Trajectory) -> list[ApiAction]:
    return [step for step in trajectory.steps if isinstance(step, ApiAction)]


@pytest.fixture(scope="module")
def everything() -> list[Trajectory]:
    docs = (*PETS, *NETWORK)
    return [t for seed in range(8) for t in composed(docs, replace(EVERYTHING, seed=seed, bash=seed % 2), FAR)] + [
        t for seed in range(8) for t in composed([CREATE_DISK], replace(EVERYTHING, seed=seed, bash=seed % 2))
    ]


def test_every_kind_is_made_and_nothing_contradicts_a_schema_or_comes_from_nowhere(everything):
    assert set(KINDS) == {t.details["composed"] for t in everything}
    for trajectory in everything:
        assert violations(trajectory) == []
        assert underived(trajectory) == []
        assert trajectory.success
        assert all(getattr(step, "outcome", "ok") == "ok" for step in trajectory.steps)


def test_every_trajectory_renders_and_survives_its_json_form(everything):
    renderer = RecordRenderer()
    for trajectory in everything[::7]:
        renderer.render(trajectory)
        assert from_json(json.loads(canonical_json(to_json(trajectory)))) == from_json(to_json(trajectory))


def test_the_order_of_the_documentation_changes_nothing_and_the_seed_does():
    config = replace(EVERYTHING, bash=0.5)
    first = [record_id(t) for t in composed(PETS, config)]
    assert first == [record_id(t) for t in composed(PETS[::-1], config, FAR[::-1])]
    assert first == [record_id(t) for t in composed((*PETS, PETS[0]), config)]
    assert first != [record_id(t) for t in composed(PETS, replace(config, seed=1))]


def test_a_single_call_states_every_value_and_shows_the_documented_result():
    made = of_kind("single", [CREATE_PET], alone=1)
    assert len(made) == 1
    user, call, result, *rest = made[0].steps
    assert isinstance(user, TextObservation)
    assert re.search(r"create a pet", user.content, re.I)
    assert "Finn" in user.content
    assert "dog" in user.content
    assert isinstance(call, ApiAction)
    assert dict(call.kwargs) == {"name": "Finn", "kind": "dog"}
    assert json.loads(result.content)["id"] == "pet_41"
    assert [tool.name for tool in made[0].tools] == ["createPet"]
    assert all("pet_41" in step.content for step in rest)  # the closing words state what the result holds


def test_distractors_are_others_within_limits_and_in_no_telling_place():
    made = of_kind("distractors", alone=0, distractors=(3, 5))
    places = Counter()
    for trajectory in made:
        right = calls(trajectory)[0].function
        names = [tool.name for tool in trajectory.tools]
        assert 3 <= len(names) - 1 <= 5
        assert names.count(right) == 1
        places[names.index(right)] += 1
    assert len(places) > 1


def test_only_what_is_given_is_ever_on_offer(everything):
    known = {d.function or "az_disk_create" for d in (*PETS, *NETWORK, *FAR, CREATE_DISK)}
    assert {tool.name for t in everything for tool in t.tools} <= known


def test_near_tools_come_before_far_ones():
    other = [doc(f"GET /v1/{n}", f"Lists orders of kind {n}.", function=f"listOrders{n}") for n in range(60)]
    near = [doc(f"GET /v1/pets/{n}", f"Counts pets by {n}.", function=f"countPets{n}") for n in ("age", "size", "town")]
    offered = Counter()
    for seed in range(6):
        for t in composed([CREATE_PET, *near, *other], ComposeConfig(seed=seed, alone=0, distractors=(4, 4))):
            offered.update(tool.name for tool in t.tools)
    assert sum(offered[d.function] for d in near) >= 6 * 2


def test_a_missing_function_is_not_on_offer_and_is_declined_without_a_call():
    made = of_kind("missing_function")
    assert made
    for trajectory in made:
        assert not calls(trajectory)
        right = next(d for d in PETS if d.name == trajectory.name)
        assert right.function not in [tool.name for tool in trajectory.tools]
        assert trajectory.tools
        words = trajectory.steps[1]
        assert isinstance(words, MessageAction)
        assert "pet" in words.content


def test_a_missing_parameter_is_asked_for_by_its_description_then_given_then_used():
    made = of_kind("missing_parameter", [GET_PET])
    assert made
    for trajectory in made:
        user, question, answer, call, *_ = trajectory.steps
        assert call.kwargs["pet_id"] not in user.content
        assert "ID of the pet" in question.content
        assert call.kwargs["pet_id"] in answer.content


def test_an_argument_that_its_default_gives_is_not_asked_for():
    limited = doc(
        "GET /v1/pets",
        "List pets",
        example({"version": "2024"}, {"pets": []}),
        parameters=schema("version", version=text(default="2024")),
    )
    assert not of_kind("missing_parameter", [limited])
    assert of_kind("distractors", [limited], alone=0)


def test_parallel_calls_stand_in_one_turn_each_with_its_own_result():
    made = of_kind("parallel", [GET_PET, *UNRELATED])
    assert made
    for trajectory in made:
        first, second = calls(trajectory)
        assert first.tool_call_id != second.tool_call_id
        assert {first.kwargs["pet_id"], second.kwargs["pet_id"]} == {"pet_41", "pet_77"}
        results = {s.tool_call_id: json.loads(s.content)["id"] for s in trajectory.steps[3:5]}
        assert results == {c.tool_call_id: c.kwargs["pet_id"] for c in (first, second)}


def test_calls_that_change_things_are_not_run_beside_others():
    assert not of_kind("parallel", [CREATE_PET, FEED_PET])


def test_an_output_feeds_an_input_by_name_and_its_old_value_is_replaced_everywhere():
    made = [t for seed in range(6) for t in of_kind("dependent", NETWORK, seed=seed)]
    assert {tuple(t.details["apis"]) for t in made} == {("ec2.CreateVpc", "ec2.CreateSubnet")}
    for trajectory in made:
        first, second = calls(trajectory)
        assert second.kwargs["VpcId"] == "vpc-a01106c2"
        assert "vpc-ffffffff" not in canonical_json(to_json(trajectory))
        link = trajectory.details["links"][0]
        assert (link["path"], link["argument"]) == (["Vpc", "VpcId"], ["VpcId"])
        assert (link["from"], link["to"]) == (first.tool_call_id, second.tool_call_id)
        said = " ".join(s.content for s in trajectory.steps if isinstance(s, TextObservation) and s.source == "user")
        assert "vpc-a01106c2" not in said
        assert "VPC ID" in said


def test_a_pair_whose_results_tell_different_things_of_one_vpc_is_no_chain():
    assert not of_kind("dependent", [CREATE_VPC, DESCRIBE_VPCS])
    agreeing = replace(
        DESCRIBE_VPCS, examples=(example({"VpcIds": ["vpc-ffffffff"]}, {"Vpcs": [{"VpcId": "vpc-ffffffff"}]}),)
    )
    chain = of_kind("dependent", [CREATE_VPC, agreeing])[0]
    assert calls(chain)[1].kwargs == {"VpcIds": ["vpc-a01106c2"]}
    assert '"vpc-a01106c2"' in [s for s in chain.steps if isinstance(s, TextObservation)][-1].content


def test_an_id_is_told_by_what_it_is_the_id_of():
    made = of_kind("dependent", PETS)
    assert ("POST /v1/pets", "POST /v1/pets/{pet_id}/meals") in {tuple(t.details["apis"]) for t in made}
    owners = replace(
        FEED_PET,
        name="POST /v1/owners/{id}/bills",
        parameters=schema("id", id=text(), food=text(), grams={"type": "integer"}),
        examples=(example({"id": "owner_5", "food": "fish"}, {"bill": 1}),),
    )
    assert not of_kind("dependent", [CREATE_PET, owners])


def test_a_conversation_repeats_no_call_and_removes_last():
    made = [t for seed in range(5) for t in of_kind("multi_turn", seed=seed)]
    assert made
    for trajectory in made:
        named = [canonical_json([c.function, c.kwargs]) for c in calls(trajectory)]
        assert len(set(named)) == len(named)
        assert sum(isinstance(s, TextObservation) and s.source == "user" for s in trajectory.steps) > 1
        assert "deletePet" not in [c.function for c in calls(trajectory)][:-1]


def test_a_command_runs_in_bash_and_a_compound_one_is_left_out():
    made = of_kind("command", [CREATE_DISK], bash=1)
    assert len(made) == 1
    user, run = made[0].steps
    assert isinstance(run, CodeAction)
    assert (run.language, made[0].code_languages, made[0].tools) == ("bash", ("bash",), ())
    assert all(word in user.content for word in ("disk1", "rg-1", "10"))
    assert calls(of_kind("distractors", [CREATE_DISK], bash=0, alone=0)[0])[0].function == "az_disk_create"


def test_names_are_made_to_fit_and_marks_of_the_readers_are_left_out(everything):
    for trajectory in everything:
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", tool.name) for tool in trajectory.tools)
        assert "x-in" not in canonical_json([tool.parameters for tool in trajectory.tools])
    long = replace(GET_PET, function="", name="GET /" + "very-long/" * 20 + "{pet_id}")
    assert len(calls(composed([long])[0])[0].function) <= 64


def test_a_large_schema_is_cut_but_never_below_what_the_calls_use():
    fields = {f"field{n}": text("A field that says much about the pet. " * 9) for n in range(120)}
    big = replace(
        CREATE_PET,
        parameters=schema("name", **fields, name=text(), kind=text()),
        examples=(example({"name": "Finn", "kind": "dog", "field77": "wide"}, {"id": "pet_41"}),),
    )
    made = composed([big])
    assert made
    tool = next(tool for tool in made[0].tools if tool.name == "createPet")
    assert len(json.dumps(tool.parameters)) < 3_000
    assert {"name", "kind", "field77"} <= set(tool.parameters["properties"])
    assert all(violations(t) == [] for t in made)


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({"name": "Finn", "password": "hunter22"}, {"id": "pet_1"}),
        ({"name": "Finn"}, {"id": "pet_1", "secretAccessKey": "wJalrXUtnFEMI"}),
        ({"name": "string"}, {"id": "pet_1"}),
        ({"name": "Finn"}, {"id": "string", "kind": "string"}),
        ({"name": 7}, {"id": "pet_1"}),
        ({"kind": "dog"}, {"id": "pet_1"}),
        ({"name": "Finn", "colour": "red"}, {"id": "pet_1"}),
        ({"name": "Finn"}, {"id": "pet_1", "name": "Tama"}),
        ({"name": "x" * 5_000}, {"id": "pet_1"}),
        (None, {"id": "pet_1"}),
    ],
    ids=["secret", "secret result", "placeholder", "filler", "type", "required", "unknown", "belied", "large", "none"],
)
def test_an_example_that_should_not_be_shown_is_not(arguments, result):
    parameters = schema("name", name=text(), kind=text(), password=text())
    assert not composed([replace(CREATE_PET, parameters=parameters, examples=(example(arguments, result),))])


def test_a_result_that_is_of_another_thing_than_was_asked_for_is_not_shown():
    assert not composed([replace(GET_PET, examples=(example({"pet_id": "pet_1"}, FINN),))])
    assert composed([replace(GET_PET, examples=(example({"pet_id": "pet_41"}, FINN),))])


def test_provenance_joins_the_licences_and_names_every_document():
    made = next(t for t in of_kind("dependent", (CREATE_PET, GET_PET, FEED_PET)) if "feedPet" in str(t.steps))
    assert made.provenance.licence == "MIT"
    pair = [t for t in of_kind("dependent", PETS) if set(t.details["apis"]) >= {CREATE_PET.name, GET_PET.name}]
    for trajectory in pair:
        assert trajectory.provenance.licence == "Apache-2.0 AND MIT"
    assert made.provenance.processing == ("read", "composed: dependent from documented examples, not executed")
    assert made.details["documents"] == [record_id(d) for d in (CREATE_PET, FEED_PET)]


def test_limits_hold():
    counts = Counter(t.name for t in composed(PETS, replace(EVERYTHING, max_per_api=2)))
    assert max(counts.values()) == 2
    assert not of_kind("dependent", max_dependent=0)
    with pytest.raises(UserError, match="distractors"):
        ComposeConfig(distractors=(4, 2))
    with pytest.raises(UserError, match="share"):
        ComposeConfig(parallel=1.5)


def test_descriptions_of_nothing_at_all_do_no_harm():
    empty = ApiDoc("x", "p", "", CREATE_PET.provenance, examples=(example({}, ""),), interface="tool")
    odd = replace(GET_PET, parameters={"type": "object"}, examples=(example({}, {"a": [None, 1e300, "\ud800"]}),))
    for trajectory in composed([empty, odd]):
        assert violations(trajectory) == []


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("rtbassoc-781d0d1a", "iip-assoc-0e7736511a163c209", False),
        ("eni-686ea200", "eni-9dec76cd", True),
        ("arn:aws:iam::1:role/x", "arn:aws:s3:::x", False),
        ("fluffy", "tom", True),
    ],
)
def test_identifiers_of_different_makes_are_not_exchanged(one, other, alike):
    assert _look_alike(*(Leaf((), "id", value, "string", "") for value in (one, other))) is alike


def test_ids_of_requests_and_versions_feed_nothing():
    assert [identified(name, "") for name in ("CreatorRequestId", "versionId", "clientToken")] == ["", "", ""]


def test_a_result_is_compared_with_the_call_whatever_the_case_and_below_a_wrapper():
    doc = replace(GET_PET, name="PUT /pets/{petId}")
    assert belies(doc, {"petId": 7}, {"Id": 8}) and not belies(doc, {"petId": 7}, {"Id": 7})
    assert belies(GET_PET, {"pet_kind": "cat"}, {"code": 200, "data": {"PetKind": "dog"}})
    assert belies(GET_PET, {"body": {"club_id": 1}}, {"club": {"club_id": 2}})


def test_whole_numbers_are_written_without_a_point():
    assert whole_numbers({"a": [4.0, 0.5], "b": 1e300}) == {"a": [4, 0.5], "b": 1e300}
    assert isinstance(whole_numbers(4.0), int)


@pytest.mark.parametrize("call", ['az x --v "[{"id": 1}]"', 'az x --v "{"a": 1}"'])
def test_a_command_whose_quotes_are_lost_is_left_out(call):
    assert options(call, replace(GET_PET, name="az x", interface="cli")) is None


def test_what_a_result_mentions_by_the_way_is_not_removed():
    owner = example({"pet_id": "pet_41"}, {"id": "pet_41", "owner_name": "Ann", "shop_id": "shop_9"})
    shop = schema("id", id=text(), owner_name=text(), shop_id=text())
    get = replace(GET_PET, returns=shop, examples=(owner,))
    close = replace(
        GET_PET, name="DELETE /shops/{shop_id}", function="deleteShop", description="Deletes a shop.", returns=None,
        parameters=schema("shop_id", shop_id=text()), examples=(example({"shop_id": "shop_1"}),),
    )  # fmt: skip
    show = replace(close, name="GET /shops/{shop_id}", function="getShop", description="Gets a shop.")
    assert of_kind("dependent", [get, show]) and not of_kind("dependent", [get, close])


def test_a_hollow_result_is_none():
    made = composed([replace(GET_PET, examples=(example({"pet_id": "pet_41"}, {"pet": {}}),))])
    assert made and not any("environment" in str(step) for trajectory in made for step in trajectory.steps)
