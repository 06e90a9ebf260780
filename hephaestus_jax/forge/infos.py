"""What the plan of a whole corpus needs to know of one record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hephaestus_jax.forge import dedup
from hephaestus_jax.forge.api_identity import api_text, family, identity, version_order
from hephaestus_jax.forge.cutting import strings_in
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    Document,
    Interface,
    Json,
    Record,
    Trajectory,
    digest,
    slice_of,
    to_json,
)


@dataclass(frozen=True, slots=True)
class ApiInfo:
    """Of an API: whose it is, which one, in which version, and what a report tells of it."""

    provider: str  # the family of the provider: "amazonaws.com"
    stated_provider: str
    identity: str
    version: tuple[Any, ...]  # sorts versions of one API, the best last
    interface: Interface
    function: str
    method: str  # of HTTP; "" of other interfaces
    deprecated: bool
    examples: int
    callable_examples: int  # with arguments
    service: str  # what is held out together


@dataclass(frozen=True, slots=True)
class Info:
    """Of any record: what it says (digest, MinHash signature [P] uint32, bytes of its texts) and where it is from."""

    slice: str
    id: str
    digest: str
    text_bytes: int
    licence: str
    language: str
    source: str
    path: str
    api: ApiInfo | None
    groups: tuple[str, ...]  # of a trajectory: what it is kept on one side with
    signature_P: np.ndarray = field(repr=False)


def info_of(record: Record, identifier: str, language: str) -> Info:
    """The record's info; `language` is that of its text."""
    origin = record.provenance
    text = main_text(record)
    return Info(
        slice=slice_of(record),
        id=identifier,
        digest=dedup.text_digest(text) if isinstance(record, Document) else content_digest(record),
        text_bytes=text_bytes(record),
        licence=origin.licence,
        language=language,
        source=origin.source,
        path=origin.path,
        api=_api_info(record) if isinstance(record, ApiDoc) else None,
        groups=groups_of(record) if isinstance(record, Trajectory) else (),
        signature_P=dedup.signature(text),
    )


def _api_info(doc: ApiDoc) -> ApiInfo:
    method, _, rest = doc.name.partition(" ")
    return ApiInfo(
        provider=family(doc.provider),
        stated_provider=doc.provider,
        identity=identity(doc),
        version=version_order(doc),
        interface=doc.interface,
        function=doc.function,
        method=method if rest and method.isupper() else "",
        deprecated=doc.deprecated,
        examples=len(doc.examples),
        callable_examples=sum(example.arguments is not None for example in doc.examples),
        service=service_of(doc),
    )


def service_of(doc: ApiDoc) -> str:
    """What an API is held out together with: its service, group of commands, or file; the same for SDK and CLI."""
    provider = family(doc.provider)
    if doc.interface == "cli":
        words = doc.name.split()
        named = words[1] if len(words) > 2 else words[0] if words else ""
    elif doc.interface == "rpc" or (doc.interface == "rest" and " " not in doc.name):
        named = doc.name.partition(".")[0]
    else:
        named = doc.provenance.path.partition(":")[0]
    return f"{provider}|{named.lower()}"


def groups_of(trajectory: Trajectory) -> tuple[str, ...]:
    """The tools that a trajectory calls; of one without calls its first step, which the answers to one prompt share."""
    called = {step.function for step in trajectory.steps if isinstance(step, ApiAction)}
    return tuple(sorted(called)) or (digest(content(trajectory)["steps"][:1]),)


def main_text(record: Record) -> str:
    """What near-duplicates are judged by."""
    if isinstance(record, Document):
        return record.text
    if isinstance(record, ApiDoc):
        return api_text(record)
    return "\n".join(strings_in(content(record)["steps"]))


def text_bytes(record: Record) -> int:
    """Bytes of everything a record says."""
    return len("".join(strings_in(content(record))).encode("utf-8", "surrogatepass"))


def content_digest(record: Record) -> str:
    """Digest of what a record says, wherever it is from."""
    return digest(content(record))


def content(record: Record) -> dict[str, Json]:
    """The record as JSON without its provenance."""
    value = to_json(record)
    del value["provenance"]
    return value
