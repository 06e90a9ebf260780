"""The steps of a corpus build that look at one unit at a time, and can run in any process.

read    what a unit holds, as records
clean   the records without secrets; those that are left out are counted
finish  every record on its side, training without what is held out
compose trajectories of the documented example calls
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from hephaestus_jax.forge import dedup
from hephaestus_jax.forge.cleaning import Cleaner, CleanFacts
from hephaestus_jax.forge.compose import ComposeConfig, compose, violations
from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.cutting import Cutter, Dropped
from hephaestus_jax.forge.doctests.extract import DoctestJob
from hephaestus_jax.forge.doctests.results import Failure, Outcome
from hephaestus_jax.forge.doctests.trajectories import to_trajectory, tool_from
from hephaestus_jax.forge.holdout import Api, Census, HeldOut, windows_of
from hephaestus_jax.forge.hygiene.language import language_of
from hephaestus_jax.forge.infos import Info, content_digest, info_of, main_text, service_of, text_bytes
from hephaestus_jax.forge.installed import Distribution, FoundApi, ReadOptions, read_distribution
from hephaestus_jax.forge.sources import SOURCES
from hephaestus_jax.forge.units import Unit
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.record_files import StoredRecord, stored
from hephaestus_jax.formats.records import ApiDoc, Document, Json, Record, Tool, Trajectory, identify, slice_of

Group = tuple[str, str]  # slice, split
REPEATED = "says the same as another record"
CONTRADICTS = "a call contradicts its schema"


@dataclass
class Contents:
    """What was read of one unit: APIs and documents of a Python distribution, or the records of files."""

    apis: list[FoundApi] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def all(self) -> list[Record]:
        """Every record, in the order that their numbers go by."""
        return [*(api.record for api in self.apis), *self.documents, *self.records]


@dataclass
class ReadFacts:
    """What reading a unit found: records per slice, what it says about names, what was set aside or left out.

    `left_out` counts what sampling left out, per slice.
    """

    read: Counter[str] = field(default_factory=Counter)
    census: Census = field(default_factory=Census)
    quarantine: Quarantine = field(default_factory=Quarantine)
    skipped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (slice, reason)

    def count_repeats(self, records: Sequence[Record], rows: Sequence[StoredRecord]) -> None:
        """Counts the records that are missing from their own rows, because they repeat another."""
        missing = Counter(map(slice_of, records)) - Counter(slice_of(row.parsed()) for row in rows)
        self.dropped.update({(name, REPEATED): count for name, count in missing.items()})


@dataclass
class CleanIndex:
    """What the plan needs to know of a unit after cleaning; entry i of `infos` is of record i of its contents."""

    infos: list[Info]
    apis: list[Api]  # of a Python distribution; entry i is of record i
    facts: CleanFacts


@dataclass(frozen=True)
class Share:
    """One unit's part of the plan.

    `dropped` gives the reason for the records (by number) that do not go on, `validation` the numbers of those that
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
    """The records of one unit, per slice and split, and what became of those that are in none of them.

    `summaries` gives of each record, in id order, the digest of what it says and the bytes of its texts.
    """

    records: dict[Group, list[Record]] = field(default_factory=dict)
    summaries: dict[Group, list[tuple[str, int]]] = field(default_factory=dict)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (slice, reason)
    cut: Counter[str] = field(default_factory=Counter)  # records that lost something, per slice
    cut_bytes: Counter[str] = field(default_factory=Counter)  # of text, that those records lost
    made: Counter[str] = field(default_factory=Counter)  # records that no file holds: they were made here, per slice
    kinds: Counter[str] = field(default_factory=Counter)  # of composed trajectories
    clean: CleanFacts = field(default_factory=CleanFacts)  # of what was made here

    def add(self, record: Record, split: str) -> None:
        """Puts a record into its slice."""
        self.records.setdefault((slice_of(record), split), []).append(record)

    def merge(self, other: Finished) -> None:
        """Adds what was made of other records."""
        for group, records in other.records.items():
            self.records.setdefault(group, []).extend(records)
        for name in ("dropped", "cut", "cut_bytes", "made", "kinds"):
            getattr(self, name).update(getattr(other, name))
        self.clean.merge(other.clean)

    def rows(self) -> dict[Group, list[StoredRecord]]:
        """Every group as rows in id order, each record once; `summaries` are then those of the rows."""
        rows: dict[Group, list[StoredRecord]] = {}
        for group, records in self.records.items():
            found = {row.id: (row, record) for row, record in ((stored(record), record) for record in records)}
            self.dropped[group[0], REPEATED] += len(records) - len(found)
            ordered = [found[identifier] for identifier in sorted(found)]
            rows[group] = [row for row, _ in ordered]
            self.summaries[group] = [(content_digest(record), text_bytes(record)) for _, record in ordered]
        return rows


def read(unit: Unit, config: ForgeConfig) -> tuple[ReadFacts, Contents]:
    """Reads a unit."""
    if unit.distribution is not None:
        return _read_distribution(unit.distribution, config)
    facts, records = ReadFacts(), list[Record]()
    reader = SOURCES[unit.source].read
    for file in unit.files:
        try:
            records += reader(file, facts.quarantine)
        except (RecursionError, MemoryError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            # a reader that does not expect what a file holds must not end a build of hours
            facts.quarantine.add("the reader failed", file.place(), f"{type(error).__name__}: {error}")
    facts.read.update(slice_of(record) for record in records)
    return facts, Contents(records=records)


def _read_distribution(distribution: Distribution, config: ForgeConfig) -> tuple[ReadFacts, Contents]:
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
    counts = Counter(document.slice for document in documents)
    counts["agent_docs"] = len(apis)
    return ReadFacts(counts, census, quarantine, reading.skipped, +left_out), Contents(kept_apis, kept)


def module_parts(path: str) -> list[str]:
    """The parts of a path or dotted name, without suffixes: "numpy/linalg/_linalg.py:3" gives three."""
    return file_of(path).removesuffix(".pyi").removesuffix(".py").replace("/", ".").split(".")


def file_of(path: str) -> str:
    """A record's file, the line number left out."""
    file, _, line = path.rpartition(":")
    return file if line.isdigit() else path


def _sampled(distribution: Distribution, file: str, config: ForgeConfig) -> bool:
    if config.sample == 1:
        return True
    return dedup.keyed_fraction(config.seed, "sample", distribution.name, file) < config.sample


def clean(contents: Contents, cleaner: Cleaner, source: str) -> tuple[CleanIndex, Contents]:
    """Cleans what was read; its records keep their order, those that are left out are gone.

    Args:
        contents: from `read`.
        cleaner: of the build.
        source: the distribution's name, for the names of files.
    """
    facts = CleanFacts()
    apis = [
        replace(api, record=record)
        for api in contents.apis
        if isinstance(record := cleaner.clean(api.record, facts), ApiDoc)
    ]
    documents = [made for doc in contents.documents if isinstance(made := cleaner.clean(doc, facts), Document)]
    records = [made for record in contents.records if (made := cleaner.clean(record, facts)) is not None]
    kept = Contents(apis, documents, records)
    infos = [info_of(record, identify(record).id, _language(record)) for record in kept.all()]
    return CleanIndex(infos, [_api(source, api) for api in apis], facts), kept


def in_id_order(index: CleanIndex, contents: Contents) -> tuple[CleanIndex, list[StoredRecord]]:
    """The records of files as rows in id order, each once, with their infos in the same order."""
    found: dict[str, tuple[StoredRecord, Info]] = {}
    for record, info in zip(contents.records, index.infos, strict=True):
        if info.id in found:
            index.facts.dropped[info.slice, REPEATED] += 1
        else:
            found[info.id] = stored(record), info
    ordered = [found[identifier] for identifier in sorted(found)]
    return replace(index, infos=[info for _, info in ordered]), [row for row, _ in ordered]


def holders(contents: Contents, wanted: Set[str]) -> dict[str, Counter[str]]:
    """How many of the unit's descriptions hold each of the `wanted` windows of words, per service."""
    found: dict[str, Counter[str]] = {}
    for record in contents.all():
        if isinstance(record, ApiDoc):
            for window in set(windows_of(record.description)) & wanted:
                found.setdefault(window, Counter())[service_of(record)] += 1
    return found


def _language(record: Record) -> str:
    if isinstance(record, Document) and record.language:
        return record.language
    return language_of(main_text(record) if isinstance(record, Document) else _told(record))


def _told(record: Record) -> str:
    return record.description if isinstance(record, ApiDoc) else main_text(record)[:2_000]


def _api(source: str, found: FoundApi) -> Api:
    return Api(
        name=found.record.name,
        qualname=found.qualname,
        aliases=found.aliases,
        file=f"{source}:{found.file}",
        docstring=found.docstring,
        parameters=tuple(found.record.parameters.get("properties", {})),
    )


def jobs_of(contents: Contents) -> list[DoctestJob]:
    """The docstrings with examples, in the order of their APIs."""
    return [
        DoctestJob(api.record.name, api.aliases, api.module, api.docstring, api.record.provenance)
        for api in contents.apis
        if ">>>" in api.docstring
    ]


def finish(
    contents: Contents,
    outcomes: Sequence[tuple[DoctestJob, Outcome]],
    share: Share,
    held_out: HeldOut,
    cutter: Cutter,
    cleaner: Cleaner,
) -> Finished:
    """Puts every record of a unit on its side, and cuts what is held out from the training side.

    Args:
        contents: what is left after cleaning.
        outcomes: of the examples in its docstrings.
        share: this unit's part of the plan.
        held_out: what training must not see.
        cutter: for the same `held_out`.
        cleaner: for what is made here.
    """
    made = Finished()
    side = _Sides(held_out.names, share.reserved, cutter)
    docs: list[ApiDoc] = []
    for number, record in enumerate(contents.all()):
        if number in share.dropped:
            made.dropped[slice_of(record), share.dropped[number]] += 1
        elif number in share.validation:
            made.add(record, "validation")
        elif number < len(contents.apis):
            assert isinstance(record, ApiDoc)
            side.add(made, record.name, record)
            docs.append(record)
        else:
            _add_cut(made, record, cutter)
    _add_doctests(made, docs, outcomes, side, cleaner)
    return made


def _add_doctests(
    made: Finished,
    docs: Sequence[ApiDoc],
    outcomes: Sequence[tuple[DoctestJob, Outcome]],
    side: _Sides,
    cleaner: Cleaner,
) -> None:
    """Adds the trajectories of executed docstrings."""
    trained = {doc.name: doc for doc in made.records.get(("agent_docs", "train"), []) if isinstance(doc, ApiDoc)}
    # a held-out API must not be on offer in training; in validation, any may be
    pools = {"train": _tools(trained.values()), "validation": _tools(docs)}
    originals = {doc.name: doc for doc in docs}
    for job, outcome in outcomes:
        made.made["agent_trajectories"] += 1
        if isinstance(outcome, Failure):
            made.dropped["agent_trajectories", f"doctest: {outcome.reason}"] += 1
            continue
        pool = pools["validation" if job.api_name in side.held else "train"]
        documented = trained.get(job.api_name, originals.get(job.api_name))
        trajectory: Record | None = to_trajectory(job, outcome, documented, pool)
        if trajectory is None:
            made.dropped["agent_trajectories", "doctest: no kept example uses the API and prints something"] += 1
            continue
        trajectory = cleaner.clean(trajectory, made.clean)
        if isinstance(trajectory, Trajectory):
            side.add(made, job.api_name, trajectory)


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


def compose_calls(
    docs: Sequence[ApiDoc], split: str, pool: Sequence[ApiDoc], cutter: Cutter, cleaner: Cleaner, seed: int
) -> Finished:
    """Trajectories of the documented example calls of a unit's APIs.

    Args:
        docs: of one split.
        split: which.
        pool: APIs of other units of the same split, for distractors.
        cutter: for what is held out.
        cleaner: of the build.
        seed: of the build.
    """
    made = Finished()
    providers: dict[str, list[ApiDoc]] = {}
    for doc in docs:
        providers.setdefault(doc.provider, []).append(doc)
    for _, own in sorted(providers.items()):
        for trajectory in compose(own, pool, ComposeConfig(seed=seed)):
            made.made["agent_trajectories"] += 1
            kept = cleaner.clean(trajectory, made.clean)
            if not isinstance(kept, Trajectory):
                continue
            if violations(kept):  # scrubbing may have touched a value that the schema restricts
                made.dropped["agent_trajectories", CONTRADICTS] += 1
                continue
            made.kinds[str(kept.details["composed"])] += 1
            if split == "validation":
                made.add(kept, split)
            else:
                _add_cut(made, kept, cutter)
    return made
