"""The steps of a corpus build that look at one distribution at a time, and can run in any process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hephaestus_jax.forge import dedup
from hephaestus_jax.forge.config import InstalledCorpusConfig
from hephaestus_jax.forge.cutting import Cutter, Dropped, strings_in
from hephaestus_jax.forge.doctests.extract import DoctestJob
from hephaestus_jax.forge.doctests.results import Failure, Outcome
from hephaestus_jax.forge.doctests.trajectories import to_trajectory, tool_from
from hephaestus_jax.forge.holdout import Api, Census, HeldOut
from hephaestus_jax.forge.installed import Distribution, FoundApi, ReadOptions, read_distribution
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, Document, Json, Record, Tool, Trajectory, digest, slice_of, to_json

Group = tuple[str, str]  # slice, split


@dataclass(frozen=True)
class DocumentInfo:
    """What the plan needs to know of a document: where it is from, its exact digest, its signature [P] uint32."""

    slice: str
    path: str
    digest: str
    signature_P: np.ndarray = field(repr=False)


@dataclass
class Contents:
    """What was read of one distribution."""

    apis: list[FoundApi]
    documents: list[Document]


@dataclass
class Index:
    """What the plan needs to know of one distribution; entry i of `apis` and `documents` is entry i of `Contents`.

    `left_out` counts what sampling left out, per slice.
    """

    apis: list[Api]
    documents: list[DocumentInfo]
    census: Census
    quarantine: Quarantine
    skipped: Counter[str]
    left_out: Counter[str]


@dataclass(frozen=True)
class Share:
    """One distribution's part of the plan.

    `dropped` gives the reason for the documents (by number) that do not go on, `validation` the numbers of those that
    go to validation, and `reserved` the files whose code is validation: training gets nothing from them.
    """

    dropped: Mapping[int, str] = field(default_factory=dict)
    validation: frozenset[int] = frozenset()
    reserved: frozenset[str] = frozenset()

    def to_json(self) -> Json:
        """For keys."""
        return [{str(k): v for k, v in self.dropped.items()}, sorted(self.validation), sorted(self.reserved)]


@dataclass
class Finished:
    """The records of one distribution, per slice and split, and what became of those that are in none of them.

    `summaries` gives of each record the digest of what it says and the bytes of its texts.
    """

    records: dict[Group, list[Record]] = field(default_factory=dict)
    summaries: dict[Group, list[tuple[str, int]]] = field(default_factory=dict)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (slice, reason)
    cut: Counter[str] = field(default_factory=Counter)  # records that lost something, per slice
    cut_bytes: Counter[str] = field(default_factory=Counter)  # of text, that those records lost

    def add(self, record: Record, split: str) -> None:
        """Puts a record into its slice."""
        self.records.setdefault((slice_of(record), split), []).append(record)


def read(distribution: Distribution, config: InstalledCorpusConfig) -> tuple[Index, Contents]:
    """Reads a distribution: its records, and the index by which the whole corpus is planned."""
    quarantine = Quarantine()
    reading = read_distribution(distribution, ReadOptions(tests=config.include_tests), quarantine)
    apis, documents = reading.apis, [*reading.code, *reading.text]
    census = Census()
    for name in [distribution.name, *(document.provenance.path for document in documents), *(a.module for a in apis)]:
        census.modules.update(module_parts(name))
    for document in documents:
        (census.add_code if document.language == "python" else census.add_text)(document.text)
    kept_apis = [api for api in apis if _sampled(distribution, api.file, config)]
    kept = [document for document in documents if _sampled(distribution, file_of(document.provenance.path), config)]
    left_out = Counter(document.slice for document in documents) - Counter(document.slice for document in kept)
    left_out["agent_docs"] = len(apis) - len(kept_apis)
    index = Index(
        apis=[_api(distribution, api) for api in kept_apis],
        documents=[_info(document) for document in kept],
        census=census,
        quarantine=quarantine,
        skipped=reading.skipped,
        left_out=+left_out,
    )
    return index, Contents(kept_apis, kept)


def module_parts(path: str) -> list[str]:
    """The parts of a path or dotted name, without suffixes: "numpy/linalg/_linalg.py:3" gives three."""
    return file_of(path).removesuffix(".pyi").removesuffix(".py").replace("/", ".").split(".")


def file_of(path: str) -> str:
    """A record's file, the line number left out."""
    file, _, line = path.rpartition(":")
    return file if line.isdigit() else path


def _sampled(distribution: Distribution, file: str, config: InstalledCorpusConfig) -> bool:
    if config.sample == 1:
        return True
    return dedup.keyed_fraction(config.seed, "sample", distribution.name, file) < config.sample


def _api(distribution: Distribution, found: FoundApi) -> Api:
    return Api(
        name=found.record.name,
        qualname=found.qualname,
        aliases=found.aliases,
        file=f"{distribution.name}:{found.file}",
        docstring=found.docstring,
        parameters=tuple(found.record.parameters.get("properties", {})),
    )


def _info(document: Document) -> DocumentInfo:
    text = document.text
    return DocumentInfo(document.slice, document.provenance.path, dedup.text_digest(text), dedup.signature(text))


def jobs_of(contents: Contents) -> list[DoctestJob]:
    """The docstrings with examples, in the order of their APIs."""
    return [
        DoctestJob(api.record.name, api.aliases, api.module, api.docstring, api.record.provenance)
        for api in contents.apis
        if ">>>" in api.docstring
    ]


def finish(
    contents: Contents, outcomes: Sequence[tuple[DoctestJob, Outcome]], share: Share, held_out: HeldOut, cutter: Cutter
) -> Finished:
    """Puts every record of a distribution on its side, and cuts what is held out from the training side.

    Args:
        contents: what was read.
        outcomes: of the jobs of `contents`.
        share: this distribution's part of the plan.
        held_out: what training must not see.
        cutter: for the same `held_out`.
    """
    made = Finished()
    for number, document in enumerate(contents.documents):
        if number in share.dropped:
            made.dropped[document.slice, share.dropped[number]] += 1
        elif number in share.validation:
            made.add(document, "validation")
        else:
            _add_cut(made, document, cutter)
    side = _Sides(held_out.names, share.reserved, cutter)
    docs = [api.record for api in contents.apis]
    for doc in docs:
        side.add(made, doc.name, doc)
    trained = {doc.name: doc for doc in made.records.get(("agent_docs", "train"), []) if isinstance(doc, ApiDoc)}
    # a held-out API must not be on offer in training; in validation, any may be
    pools = {"train": _tools(trained.values()), "validation": _tools(docs)}
    originals = {doc.name: doc for doc in docs}
    for job, outcome in outcomes:
        if isinstance(outcome, Failure):
            made.dropped["agent_trajectories", f"doctest: {outcome.reason}"] += 1
            continue
        pool = pools["validation" if job.api_name in held_out.names else "train"]
        documented = trained.get(job.api_name, originals.get(job.api_name))
        trajectory = to_trajectory(job, outcome, documented, pool)
        if trajectory is None:
            made.dropped["agent_trajectories", "doctest: no kept example uses the API and prints something"] += 1
        else:
            side.add(made, job.api_name, trajectory)
    made.summaries = {group: summaries(records) for group, records in made.records.items()}
    return made


def _tools(docs: Iterable[ApiDoc]) -> list[Tool]:
    return sorted((tool_from(doc) for doc in docs), key=lambda tool: tool.name)


@dataclass(frozen=True)
class _Sides:
    """Where what belongs to an API goes: `held` are names of APIs, `reserved` files."""

    held: Container[str]
    reserved: Container[str]
    cutter: Cutter

    def add(self, made: Finished, name: str, record: ApiDoc | Trajectory) -> None:
        """Adds what belongs to the API `name`."""
        if name in self.held:
            made.add(record, "validation")
        elif file_of(record.provenance.path) in self.reserved:
            made.dropped[slice_of(record), "stands in a file whose code is validation"] += 1
        else:
            _add_cut(made, record, self.cutter)


def _add_cut(made: Finished, record: Record, cutter: Cutter) -> None:
    left = cutter.cut(record)
    if isinstance(left, Dropped):
        made.dropped[slice_of(record), left.reason] += 1
        return
    if left is not record:
        made.cut[slice_of(record)] += 1
        made.cut_bytes[slice_of(record)] += text_bytes(record) - text_bytes(left)
    made.add(left, "train")


def text_bytes(record: Record) -> int:
    """Bytes of everything a record says."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in strings_in(_content(record)))


def summaries(records: Iterable[Record]) -> list[tuple[str, int]]:
    """Of each record a digest of what it says, wherever it is from, and the bytes of its texts."""
    return [(digest(_content(record)), text_bytes(record)) for record in records]


def _content(record: Record) -> dict[str, Json]:
    value = to_json(record)
    del value["provenance"]
    return value
