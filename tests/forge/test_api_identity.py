import itertools

import pytest

from hephaestus_jax.forge.api_identity import Entry, api_text, api_version, count, identity, newer, version_order
from hephaestus_jax.formats.records import ApiDoc, Interface, Provenance


def _doc(name: str, provider: str = "x.com", path: str = "", interface: Interface = "rest", **fields: object) -> ApiDoc:
    return ApiDoc(name, provider, "d", Provenance("s", "1", "MIT", "", path), interface=interface, **fields)  # type: ignore[arg-type]


AWS_CATALOGUE = "package/api/amazonaws.com/ec2.json:paths.x@2016-11-15"


@pytest.mark.parametrize(
    "docs",
    [
        [
            _doc("ec2.DescribeInstances", "amazonaws.com", interface="rpc"),
            _doc("aws ec2 describe-instances", "aws", interface="cli"),
            _doc("GET /#Action=DescribeInstances", "amazonaws.com", AWS_CATALOGUE, function="GET_DescribeInstances"),
        ],
        [
            _doc("s3.ListObjects", "amazonaws.com", interface="rpc"),
            _doc("aws s3api list-objects", "awscli", interface="cli"),
        ],
        [
            _doc("GET /v1/pets/{id}"),
            _doc("get /v2beta1/Pets/{petId}/?api-version=2020-01-01"),
            _doc("GET /api/v1p3/pets/:id"),
            _doc("GET /2021-03-01-preview/pets/{id}", "api.x.com"),
            _doc("GET /1.0/pets/{id}", "X.com"),
        ],
        [
            _doc("youtube.videos.list", "googleapis.com", interface="rpc"),
            _doc("GET /youtube/v3/videos", "googleapis.com", function="youtube.videos.list"),
        ],
        [
            _doc("GET /repos/{owner}/{repo}", "github.com", "generated/ghes-3.19.json:p"),
            _doc("GET /api/v3/repos/{o}/{r}", "github.com", "package/api/github.com/ghes-3.1.json:p"),
        ],
        [
            _doc("GET /v1.0/me", "microsoft.com", "package/api/microsoft.com/graph.json:p@v1.0"),
            _doc("GET /beta/me", "microsoft.com", "package/api/microsoft.com/graph-beta.json:p@beta"),
        ],
    ],
)
def test_versions_and_notations_of_one_api_are_one(docs: list[ApiDoc]) -> None:
    assert len({identity(doc) for doc in docs}) == 1, [identity(doc) for doc in docs]


def test_different_apis_stay_apart() -> None:
    docs = [
        _doc("GET /pets/{id}"),
        _doc("DELETE /pets/{id}"),
        _doc("GET /pets"),
        _doc("GET /pets/{id}/{toy}"),
        _doc("GET /pets/{id}", "y.com"),
        _doc("GET /pets/{id}?state=lost"),
        _doc("GET /repos/{o}/{r}/releases", "github.com"),
        _doc("GET /repos/{o}/{r}/releases/latest", "github.com"),
        _doc("GET /tags/{arn}", "amazonaws.com", "api/amazonaws.com/backup.json:p", function="ListTags"),
        _doc("GET /tags/{arn}", "amazonaws.com", "api/amazonaws.com/glue.json:p", function="ListTags"),
        _doc("GET /status", "m.com", "api/m.com/orders.json:p"),
        _doc("GET /status", "m.com", "api/m.com/users.json:p"),
        _doc("az vm create", "azure-cli", interface="cli"),
        _doc("az vm delete", "azure-cli", interface="cli"),
        _doc("numpy.matrix", "numpy", interface="python"),
        _doc("numpy.Matrix", "numpy", interface="python"),
        _doc("aws s3 ls", "aws", interface="cli"),
        _doc("aws s3 cp", "aws", interface="cli"),
    ]
    assert len({identity(doc) for doc in docs}) == len(docs)


def test_the_version_to_keep_is_released_then_newest() -> None:
    ordered = [
        _doc("GET /pets", path="a.json:p@v3alpha"),
        _doc("GET /pets", path="a.json:p@v3beta1"),
        _doc("GET /pets", path="a.json:p@v1"),
        _doc("GET /pets", path="a.json:p@v2", deprecated=True),
        _doc("GET /pets", path="a.json:p@v2"),
        _doc("GET /v10/pets"),
        _doc("GET /2019-05-01/pets"),
        _doc("GET /pets", path="a.json:p@2021-01-01"),
    ]
    for low, high in itertools.combinations(ordered[2:], 2):
        assert newer(high, low) and not newer(low, high), (api_version(low), api_version(high))
    assert newer(ordered[1], ordered[0])
    assert all(newer(stable, preview) for stable in ordered[2:] for preview in ordered[:2])
    current, old = (_doc("GET /x", "github.com", f"api/github.com/{name}.json:p@1.1.4") for name in ("now", "ghes-3.1"))
    assert newer(current, old)
    assert sorted(ordered, key=version_order) == sorted(reversed(ordered), key=version_order)


def test_the_text_compared_has_no_version_and_all_parameters() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "string", "description": "second"}, "a": {"type": "null"}}}
    one, other = (_doc(f"GET /{version}/pets/{{id}}", parameters=schema) for version in ("v1", "v2beta1"))
    assert api_text(one) == api_text(other)
    assert api_text(one).split("\n")[1:] == ["d", "a null ", "b string second"]


def test_counting_links_identities_and_groups() -> None:
    entries = [
        Entry("a", "rest", "MIT", (0, 0)),
        Entry("a", "rest", "unknown", (1, 0)),  # another version of a
        Entry("b", "rpc", "Apache-2.0", (1, 0)),  # reads like that version
        Entry("c", "python", "BSD-3-Clause", (3, 0)),  # like the rest only at 0.7
        Entry("d", "cli", "GPL-3.0-only", (4, 4)),
    ]
    found = {(c.policy, c.with_python): (c.records, c.identities, *c.distinct.values()) for c in count(entries)}
    assert found == {
        ("any", True): (5, 4, 3, 2),
        ("any", False): (4, 3, 2, 2),
        ("stated", True): (4, 4, 4, 2),  # without the version that linked them a and b are two
        ("stated", False): (3, 3, 3, 2),
        ("permissive", True): (3, 3, 3, 1),
        ("permissive", False): (2, 2, 2, 1),
    }
    assert all(c.records == 0 and set(c.distinct) == {0.8, 0.7} for c in count([]))
