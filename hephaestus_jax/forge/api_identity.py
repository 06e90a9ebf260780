"""Which API a record describes: the same one in every version, catalogue and notation; and how many there are.

Two records have one `identity` if they describe versions of one API (`/v1/pets/{id}` and `/v2beta1/pets/{petId}`), or
one operation in the notations of its SDK, its command line and a catalogue (`ec2.DescribeInstances`,
`aws ec2 describe-instances`). What only reads alike is told by near-duplicate groups (`forge.dedup` over `api_text`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from hephaestus_jax.forge.dedup import UnionFind
from hephaestus_jax.forge.hygiene.licences import POLICIES, Policy, allowed
from hephaestus_jax.formats.records import ApiDoc, Interface
from hephaestus_jax.formats.schema_text import type_text

API_VERSION = "@"  # in `Provenance.path`, before the API's own version: "paths./pets.get@v1beta"

_METHOD = re.compile(r"(GET|PUT|POST|DELETE|PATCH|HEAD|OPTIONS|TRACE)\s+(\S.*)", re.IGNORECASE | re.DOTALL)
_STAGES = ("alpha", "beta", "preview", "rc", "dev", "experimental", "unstable", "canary", "snapshot", "draft")
_STAGE = re.compile(r"(" + "|".join(_STAGES) + r")(?![a-z])", re.IGNORECASE)
# a path segment that tells the version and nothing else: v1, v2beta1, v1p3, 2021-03-01-preview
_VERSION_SEGMENT = re.compile(
    r"v\d+(?:[._p]\d+)*(?:[._-]?(?:alpha|beta|preview|rc|eap|dev|experimental|unstable)\d*(?:[._p]\d+)*)?"
    r"|\d{4}[-_.]\d{2}[-_.]\d{2}(?:[-.]?(?:alpha|beta|preview|rc|dev)[\w.]*)?",
    re.IGNORECASE,
)
# these too, but only at the beginning of a path: /1.0/boards, /beta/me; not /releases/latest
_EARLY_VERSION = re.compile(r"\d+(?:\.\d+)*|alpha|beta|preview|latest", re.IGNORECASE)
_EARLY_SEGMENTS = 2
_VERSION_ENDING = re.compile(r"[-_.@](?:v?\d+(?:[._-]\d+)*|alpha|beta|preview)+$", re.IGNORECASE)
_QUERY_VERSION = re.compile(r"[?&](?:api[-_]?version|version|v)=[^&#]*", re.IGNORECASE)
_BRACED = re.compile(r"\{[^{}]*\}|<[^<>]*>|(?<=/):[A-Za-z_]\w*")

_AWS = frozenset({"amazonaws.com", "aws", "aws-cli", "awscli", "botocore", "aws.amazon.com", "amazon.com"})
_GOOGLE = frozenset({"googleapis.com", "google.com", "google"})
_GITHUB = frozenset({"github.com", "api.github.com", "github"})
_WHOLE_PATHS = frozenset({"github.com", "azure.com"})  # a path there says its service; descriptions move between files
# where the command line calls a service otherwise than the SDK
_AWS_SERVICES = {"s3api": "s3", "configservice": "config", "deploy": "codedeploy"}


def identity(doc: ApiDoc) -> str:
    """The same for all versions and notations of one API, another for every other: "stripe.com|get /charges/{}".

    One line; of a Python callable its name with its case.
    """
    if doc.interface == "python":
        return f"python|{doc.name}"
    provider = family(doc.provider)
    if provider == "amazonaws.com" and (operation := _aws_operation(doc)):
        return f"{provider}|{operation}"
    if provider == "googleapis.com" and (operation := _google_operation(doc)):
        return f"{provider}|{operation}"
    if found := _METHOD.fullmatch(doc.name.strip()):
        service = "" if provider in _WHOLE_PATHS else _service(doc)
        return f"{provider}|{found[1].lower()} {service and service + ':'}{_path(found[2])}"
    words = doc.name.split()
    if not words:
        return f"{provider}|{doc.function.lower()}"
    return f"{provider}|{' '.join(words).lower()}"


def family(provider: str) -> str:
    """The provider under the one name that its packages and the catalogues' copies share."""
    name = provider.strip().lower().partition(":")[0].removeprefix("www.")
    for shared, names in (("amazonaws.com", _AWS), ("googleapis.com", _GOOGLE), ("github.com", _GITHUB)):
        if name in names or name.endswith("." + shared):
            return shared
    return name.removeprefix("api.") if name.count(".") > 1 else name


def api_version(doc: ApiDoc) -> str:
    """The version of the API as its source states it: behind "@" in the place, else in the path; "" if nowhere."""
    _, mark, stated = doc.provenance.path.rpartition(API_VERSION)
    if mark and "/" not in stated:
        return stated
    segments = [part for part in re.split(r"[/\s?=&]", doc.name) if part]
    return next((part for place, part in enumerate(segments[1:]) if _is_version(segments[1:], place)), _edition(doc))


def version_order(doc: ApiDoc) -> tuple[bool, tuple[int, ...], bool, tuple[int, ...], bool, str, str]:
    """Sorts the versions of one API: released above preliminary, then the newer; the last sorts highest.

    Of equal versions a file without an edition ("api.github.com") stands above the editions ("ghes-3.1"). What nothing
    tells apart is ordered by its source's version and its place, so that the choice is the same in every order.
    """
    stated, edition = api_version(doc), _edition(doc)
    released = _STAGE.search(f"{stated} {edition}") is None
    origin = doc.provenance
    return (
        released, _numbers(stated), not edition, _numbers(edition), not doc.deprecated, origin.version, origin.path,
    )  # fmt: skip


def newer(first: ApiDoc, second: ApiDoc) -> bool:
    """Whether the first record is of the version to keep when both describe one API."""
    return version_order(first) > version_order(second)


def api_text(doc: ApiDoc) -> str:
    """What near-duplicates of descriptions are judged by: the name without version, the description, the parameters.

    Nested fields, returned values and examples are left out: whole families of APIs share them.
    """
    parts = [_spoken(doc), doc.description]
    properties = doc.parameters.get("properties")
    if isinstance(properties, Mapping):
        for name in sorted(properties):
            schema = properties[name]
            told = schema.get("description") if isinstance(schema, Mapping) else None
            parts.append(f"{name} {type_text(schema)} {told if isinstance(told, str) else ''}")
    return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class Entry:
    """One described API record, as little of it as counting needs.

    `groups` holds the record's near-duplicate group for each similarity that is counted; records of one group share a
    number, and no number is used by two groups.
    """

    identity: str
    interface: Interface
    licence: str
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Count:
    """How many APIs a licence policy leaves.

    `distinct` has one number for each similarity: sets of records linked by an identity or a near-duplicate group.
    """

    policy: Policy
    with_python: bool
    records: int
    identities: int
    distinct: dict[float, int]


def count(entries: Iterable[Entry], similarities: tuple[float, ...] = (0.8, 0.7)) -> list[Count]:
    """Distinct described APIs under every licence policy, with Python callables and without.

    Args:
        entries: one for each described record; versions and repeats among them count once.
        similarities: what the places of `Entry.groups` stand for.
    """
    known = list(entries)
    may = {policy: {licence: allowed(licence, policy) for licence in {e.licence for e in known}} for policy in POLICIES}
    counts = []
    for policy in POLICIES:
        for with_python in (True, False):
            kept = [e for e in known if may[policy][e.licence] and (with_python or e.interface != "python")]
            distinct = {similar: _linked(kept, place) for place, similar in enumerate(similarities)}
            counts.append(Count(policy, with_python, len(kept), len({e.identity for e in kept}), distinct))
    return counts


def _linked(entries: list[Entry], place: int) -> int:
    """The number of sets of entries that identities and near-duplicate groups link."""
    number_of = {name: number for number, name in enumerate(dict.fromkeys(e.identity for e in entries))}
    sets: UnionFind[int] = UnionFind()
    first_of: dict[int, int] = {}
    for entry in entries:
        number = number_of[entry.identity]
        sets.union(first_of.setdefault(entry.groups[place], number), number)
    return len({sets.find(number) for number in number_of.values()})


def _path(path: str) -> str:
    """A path without versions, names of variables, query versions and case."""
    path = _QUERY_VERSION.sub("", path.strip())
    segments = [segment for segment in _BRACED.sub("{}", path).split("/") if segment]
    kept = [segment for place, segment in enumerate(segments) if not _is_version(segments, place)]
    if len(kept) > 1 and kept[0].lower() == "api":
        del kept[0]
    return "/" + "/".join(kept).lower()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d{1,9}", version))


def _edition(doc: ApiDoc) -> str:
    """The version at the end of the file's name: "3.1" of ghes-3.1.json, "beta" of graph-beta.json; else ""."""
    ending = _VERSION_ENDING.search(PurePosixPath(doc.provenance.path.partition(":")[0]).stem)
    return ending[0].strip("-_.@") if ending else ""


def _is_version(segments: list[str], place: int) -> bool:
    if _VERSION_SEGMENT.fullmatch(segments[place]):
        return True
    early = place < _EARLY_SEGMENTS and place < len(segments) - 1
    return early and _EARLY_VERSION.fullmatch(segments[place]) is not None


def _service(doc: ApiDoc) -> str:
    """The service whose file stands in the provider's folder: two services of a provider may share a path."""
    place = PurePosixPath(doc.provenance.path.partition(":")[0])
    if place.parent.name.lower() != doc.provider.partition(":")[0].lower():
        return ""
    return _VERSION_ENDING.sub("", place.stem).lower()


def _aws_operation(doc: ApiDoc) -> str:
    """ "ec2.describeinstances", from the name of the SDK or the command line, or a catalogue's function; else ""."""
    words = doc.name.split()
    if words and words[0].lower() == "aws" and len(words) >= 3:
        service, operation = words[1].lower(), "".join(words[2:])
        service = _AWS_SERVICES.get(service, service)
    elif doc.interface == "rpc" and "." in doc.name:
        service, _, operation = doc.name.rpartition(".")
    elif doc.function and (service := _service(doc)):
        operation = re.sub(r"^(GET|POST|PUT|DELETE)_", "", doc.function)
    else:
        return ""
    return f"{service.lower()}.{re.sub(r'[-_]', '', operation).lower()}"


def _google_operation(doc: ApiDoc) -> str:
    """ "youtube.videos.list", from the name, or from a catalogue's function; else ""."""
    for name in (doc.name, doc.function):
        if re.fullmatch(r"[\w-]+(\.[\w-]+)+", name):
            return ".".join(part for part in name.lower().split(".") if not _VERSION_SEGMENT.fullmatch(part))
    return ""


def _spoken(doc: ApiDoc) -> str:
    found = _METHOD.fullmatch(doc.name.strip())
    return f"{found[1]} {_path(found[2])}" if found else doc.name
