"""AWS's service models: shapes as schemas, examples as calls, hostile files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from hephaestus_jax.forge.clouds import reading
from hephaestus_jax.forge.clouds.intents import intent
from hephaestus_jax.forge.clouds.names import snake_case
from hephaestus_jax.forge.sources.botocore import newest_versions, read_botocore
from hephaestus_jax.forge.sources.source import Origin, SourceFile
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, from_json, to_json

PATH = "botocore/data/pets/2020-01-01/service-2.json.gz"
MODEL = {
    "metadata": {"apiVersion": "2020-01-01"},
    "operations": {
        "ListPets": {
            "input": {"shape": "ListPetsRequest"},
            "output": {"shape": "Pets"},
            "errors": [{"shape": "NoSuchShop"}],
            "documentation": "<p>Lists the <code>pets</code> of a shop.</p>",
        },
        "Broken": 7,
    },
    "shapes": {
        "ListPetsRequest": {
            "type": "structure",
            "required": ["Shop", "Token"],
            "members": {
                "Shop": {"shape": "Name", "documentation": "<p>The shop.</p>"},
                "Token": {"shape": "Name", "idempotencyToken": True},
                "Kind": {"shape": "Kind"},
                "Count": {"shape": "Count"},
            },
        },
        "Name": {"type": "string", "min": 1, "max": 8},
        "Kind": {"type": "string", "enum": ["cat", "dog"]},
        "Count": {"type": "integer", "min": 1, "max": 3},
        "Pets": {"type": "structure", "members": {"Pet": {"shape": "Pet"}}},
        "Pet": {"type": "structure", "members": {"Name": {"shape": "Name"}, "Children": {"shape": "PetList"}}},
        "PetList": {"type": "list", "member": {"shape": "Pet"}},
        "NoSuchShop": {"type": "structure", "members": {}, "documentation": "<p>There is none.</p>"},
    },
}


def read(root: Path, raw: bytes, examples: object = None) -> tuple[list[ApiDoc], Quarantine]:
    """Both the records of one service model and what was set aside."""
    (root / PATH).parent.mkdir(parents=True, exist_ok=True)
    (root / PATH).write_bytes(raw)
    if examples is not None:
        (root / PATH).with_name("examples-1.json").write_text(json.dumps({"examples": examples}))
    quarantine = Quarantine()
    docs = [
        doc
        for doc in read_botocore(SourceFile(root, PATH, Origin("botocore", "1", "Apache-2.0")), quarantine)
        if isinstance(doc, ApiDoc)
    ]
    return docs, quarantine


def test_an_operation_with_its_schema_errors_and_example(tmp_path: Path) -> None:
    example = {
        "title": "To list pets",
        "description": "This example lists the cats of the shop named Fur.",
        "input": {"Shop": "Fur", "Kind": "cat"},
        "output": {"Pet": {"Name": "Tom"}},
    }
    wrong = {"title": "To list pets", "input": {"Shop": "Fur", "Count": 99}}
    (doc,), quarantine = read(tmp_path, gzip.compress(json.dumps(MODEL).encode()), {"ListPets": [example, wrong]})
    assert (doc.name, doc.function, doc.interface) == ("pets.ListPets", "list_pets", "rpc")
    assert doc.description == "Lists the `pets` of a shop."
    assert doc.parameters["required"] == ["Shop"]  # the SDK makes up the token
    assert doc.parameters["properties"]["Shop"] == {
        "type": "string", "description": "The shop.", "minLength": 1, "maxLength": 8
    }  # fmt: skip
    assert doc.errors[0].name == "NoSuchShop" and doc.errors[0].description == "There is none."
    assert doc.examples[0].call == 'client.list_pets(Shop="Fur", Kind="cat")'
    assert doc.examples[0].arguments == {"Shop": "Fur", "Kind": "cat"}
    assert doc.examples[0].result == '{"Pet": {"Name": "Tom"}}'
    assert doc.examples[0].intent == "List the cats of the shop named Fur."
    assert doc.examples[1].arguments is None  # 99 is more than the schema allows
    assert quarantine.counts == {"malformed operation": 1}
    assert from_json(to_json(doc)) == doc


def test_a_recursive_shape_ends_where_it_repeats(tmp_path: Path) -> None:
    (doc,), _ = read(tmp_path, gzip.compress(json.dumps(MODEL).encode()))
    assert doc.returns is not None
    Draft202012Validator.check_schema(doc.returns)
    children = doc.returns["properties"]["Pet"]["properties"]["Children"]
    assert children == {"type": "array", "items": {"type": "object"}}


def test_a_very_wide_structure_is_cut_and_counted(tmp_path: Path) -> None:
    members = {f"M{n}": {"shape": "Deep"} for n in range(300)}
    shapes = {"Deep": {"type": "structure", "members": {f"D{n}": {"shape": "S"} for n in range(300)}}}
    shapes |= {"In": {"type": "structure", "members": members}, "S": {"type": "string"}}
    model = {"operations": {"Wide": {"input": {"shape": "In"}}}, "shapes": shapes}
    (doc,), _ = read(tmp_path, gzip.compress(json.dumps(model).encode()))
    assert len(doc.parameters["properties"]) == 300
    assert doc.provenance.processing == (f"{300 * 300 - 100} deeper fields left out",)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (gzip.compress(json.dumps(MODEL).encode())[:100], "malformed gzip"),
        (gzip.compress(b'{"operations": '), "malformed JSON"),
        (gzip.compress(b'{"operations": {"A": {"x": NaN}}}'), "malformed JSON"),
        (gzip.compress(b"[" * 100_000), "malformed JSON"),
        (gzip.compress(b"[1]"), "not a JSON object"),
        (gzip.compress(b"\xff\xfe{}"), "not UTF-8"),
    ],
    # Named, since gzip writes the time: two processes that collect would differ.
    ids=["cut", "no end", "NaN", "deep", "list", "UTF-16"],
)
def test_bad_files_are_set_aside(tmp_path: Path, raw: bytes, reason: str) -> None:
    docs, quarantine = read(tmp_path, raw)
    assert docs == [] and quarantine.counts == {reason: 1}


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST_TEXT", 1 << 16)
    docs, quarantine = read(tmp_path, gzip.compress(b" " * (1 << 20)))
    assert docs == [] and quarantine.counts == {"gzip unpacks to too much": 1}


@pytest.mark.parametrize("wrong", [None, 7, "x", [], ["x"], {"x": 7}, {"shape": 7}, {"shape": "Self"}])
def test_wrong_types_anywhere_do_not_stop_the_reader(tmp_path: Path, wrong: object) -> None:
    model = {
        "metadata": wrong,
        "operations": {"A": {"input": wrong, "output": wrong, "errors": [wrong], "documentation": wrong}},
        "shapes": {"Self": {"type": wrong, "members": {"a": wrong}, "required": wrong, "enum": wrong, "min": wrong}},
    }
    docs, _ = read(tmp_path, gzip.compress(json.dumps(model).encode()), {"A": [wrong, {"input": wrong}]})
    assert [doc.name for doc in docs] == ["pets.A"]
    Draft202012Validator.check_schema(docs[0].parameters)


def test_only_the_newest_version_is_read() -> None:
    paths = [f"botocore/data/ec2/{date}/service-2.json.gz" for date in ("2014-01-01", "2016-11-15", "2015-01-01")]
    assert newest_versions([*paths, "botocore/data/ec2/2019-01-01/paginators-1.json", "x/y"]) == [paths[1]]


@pytest.mark.parametrize(
    ("name", "snake"),
    [("DescribeDBInstances", "describe_db_instances"), ("ListHITs", "list_hits"), ("GetIPSet", "get_ip_set")],
)
def test_names_are_those_of_the_client(name: str, snake: str) -> None:
    assert snake_case(name) == snake


@pytest.mark.parametrize(
    ("title", "sentence", "asked"),
    [
        ("To list buckets", "", "List buckets."),
        ("Example 2: To copy a file", "The following `cp` command copies a file to `b`.", "Copy a file to `b`."),
        ("x", "The following example shows how to remove a tag.", "Remove a tag."),
        ("CreatePet", "Nothing said about it.", "Nothing said about it."),
    ],
)
def test_intents_are_requests(title: str, sentence: str, asked: str) -> None:
    assert intent(title, sentence) == asked


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("<p><b>This API works with the following fleet types:</b> EC2</p><p>Stops it.</p>", "Stops it.\n\nThis API"),
        ("<note><p>Old.</p></note><ul><li><p>x</p></li></ul><p>Stops it.</p>", "Stops it.\n\nNote: Old."),
        ("<p>Stops it.. Really.</p>", "Stops it. Really."),
        ("<p>Returns empty response.</p>", ""),
        ("<note><p>Old.</p></note>", "Note: Old."),
    ],
)
def test_descriptions_begin_with_what_the_operation_does(tmp_path: Path, stated: str, told: str) -> None:
    model = {"metadata": {}, "operations": {"Stop": {"name": "Stop", "documentation": stated}}, "shapes": {}}
    (tmp_path / "service-2.json").write_text(json.dumps(model))
    (doc,) = read_botocore(SourceFile(tmp_path, "service-2.json", Origin("botocore", "1", "x")), Quarantine())
    assert isinstance(doc, ApiDoc) and doc.description.startswith(told) and bool(doc.description) == bool(told)
