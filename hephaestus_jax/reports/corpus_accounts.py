"""What a corpus's manifest tells, checked and typed, for the page that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import SPLITS
from hephaestus_jax.formats.store import Corpus

NEAR_DUPLICATE, LOOSER = "J >= 0.8", "J >= 0.7"  # keys of `ApiCount.distinct`

Counts = Mapping[str, int]


@dataclass(frozen=True)
class SliceAccount:
    """Where the records of one slice went; `records` and `text_bytes` are what was written, per split."""

    name: str
    read: int
    dropped: Counts  # per reason
    cut: int  # records that something was cut from
    cut_bytes: int
    records: Counts
    text_bytes: Counts

    @property
    def written(self) -> int:
        """Records of all splits."""
        return sum(self.records.values())


@dataclass(frozen=True)
class ApiCount:
    """How many APIs are documented under a licence policy; `distinct` per similarity of near-duplicates."""

    policy: str
    with_python: bool
    described: int  # records
    identities: int  # versions and notations of one API once
    distinct: Counts


@dataclass(frozen=True)
class SourceAccount:
    """One package, distribution or folder that was read; `records` per "slice/split"."""

    name: str
    version: str
    licence: str
    host: str
    records: Counts

    def of_slice(self, slice_name: str) -> int:
        """Records of one slice."""
        return sum(count for key, count in self.records.items() if key.partition("/")[0] == slice_name)


@dataclass(frozen=True)
class QuarantineAccount:
    """Inputs that were set aside: per reason, and (reason, place, detail) of some."""

    counts: Counts
    examples: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Removed:
    """A record that was removed because a benchmark shows in it."""

    record: str
    benchmark: str
    item: str
    rule: str
    evidence: str


@dataclass(frozen=True)
class DoctestAccount:
    """The executed documentation examples of one distribution."""

    name: str
    docstrings: int
    examples: int
    executed: int
    equal: int  # in both runs, fit for use
    matched: int  # of those, as documented
    failures: Counts  # docstrings per reason
    dropped: Counts  # examples per reason


@dataclass(frozen=True)
class Distributions:
    """What the corpus is made of; providers and deprecated in APIs, domains in records."""

    providers: Counts
    deprecated: Counts
    interfaces: Counts
    methods: Counts
    domains: Counts
    languages: Mapping[str, Counts]  # per slice
    licences: Mapping[str, Counts]  # per slice


@dataclass(frozen=True)
class HeldOutAccount:
    """What training never sees: APIs in families, known by distinctive words; `file` lists them."""

    file: str
    rule: str
    families: int
    apis: int
    words: int


@dataclass(frozen=True)
class CorpusAccounts:
    """All of it; `policy`, `sample` and `provider_cap` are the configuration's."""

    slices: tuple[SliceAccount, ...]
    apis: tuple[ApiCount, ...]
    sources: tuple[SourceAccount, ...]  # most records first
    unavailable: Mapping[str, str]
    refused: Mapping[str, str]
    skipped: Counts
    quarantine: QuarantineAccount
    scrubbed: Counts
    removed: tuple[Removed, ...]
    composed: Counts
    doctests: tuple[DoctestAccount, ...]
    distributions: Distributions
    held_out: HeldOutAccount
    policy: str
    sample: float
    provider_cap: int | None
    benchmarks: tuple[str, ...]
    configuration: Mapping[str, Any]
    versions: Mapping[str, str]

    def api_count(self, with_python: bool) -> ApiCount | None:
        """The APIs under the corpus's own policy."""
        found = (item for item in self.apis if (item.policy, item.with_python) == (self.policy, with_python))
        return next(found, None)


def read_accounts(corpus: Corpus) -> CorpusAccounts:
    """The accounts of a corpus.

    Raises:
        UserError: there is no corpus, or its manifest is damaged, or of a version that counted less.
    """
    manifest, path = corpus.manifest, f"{corpus.directory}/manifest.json"
    if not isinstance(manifest, Mapping) or manifest.get("kind") != "forge":
        raise UserError(f"{path} is not of a corpus that tools.build_corpus made; name the folder of one")
    try:
        return _accounts(manifest)
    except KeyError as error:
        raise UserError(f"{path} does not tell {error}: it is of an older version; rebuild the corpus") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); rebuild the corpus") from error


def _accounts(manifest: Mapping[str, Any]) -> CorpusAccounts:
    told = manifest["distributions"]
    sources = [_source(name, facts) for name, facts in manifest["sources"].items()]
    quarantine, held_out = manifest["quarantine"], manifest["held_out"]
    configuration = dict(manifest["configuration"])
    cap = configuration["provider_cap"]
    examples = tuple((e["reason"], e["place"], e["detail"]) for e in quarantine["examples"])
    return CorpusAccounts(
        slices=tuple(_slice(name, facts) for name, facts in manifest["accounts"].items()),
        apis=tuple(map(_api_count, manifest["apis"])),
        sources=tuple(sorted(sources, key=lambda source: (-sum(source.records.values()), source.name))),
        unavailable=_words(manifest["unavailable_sources"]),
        refused=_words(manifest["refused_licences"]),
        skipped=_counts(manifest["skipped_files"]),
        quarantine=QuarantineAccount(_counts(quarantine["counts"]), examples),
        scrubbed=_counts(manifest["scrubbed"]),
        removed=tuple(Removed(**{key: str(value) for key, value in item.items()}) for item in manifest["contaminated"]),
        composed=_counts(manifest["composed"]),
        doctests=tuple(_doctests(name, facts) for name, facts in manifest["doctests"].items()),
        distributions=Distributions(
            **{name: _counts(told[name]) for name in ("providers", "deprecated", "interfaces", "methods", "domains")},
            languages={name: _counts(counts) for name, counts in sorted(told["languages"].items())},
            licences={name: _counts(counts) for name, counts in sorted(told["licences"].items())},
        ),
        held_out=HeldOutAccount(
            file=str(held_out["file"]),
            rule=str(held_out["rule"]),
            families=_count(held_out["families"]),
            apis=_count(held_out["apis"]),
            words=_count(held_out["words"]),
        ),
        policy=str(configuration["licence_policy"]),
        sample=float(configuration["sample"]),
        provider_cap=None if cap is None else _count(cap),
        benchmarks=tuple(map(str, configuration["benchmarks"])),
        configuration=configuration,
        versions=_words(manifest["versions"]),
    )


def _slice(name: str, facts: Mapping[str, Any]) -> SliceAccount:
    return SliceAccount(
        name=name,
        read=_count(facts["read"]),
        dropped=_counts(facts["dropped"]),
        cut=_count(facts["cut"]["records"]),
        cut_bytes=_count(facts["cut"]["text_bytes"]),
        records={split: _count(facts["records"][split]) for split in SPLITS},
        text_bytes={split: _count(facts["text_bytes"][split]) for split in SPLITS},
    )


def _api_count(item: Mapping[str, Any]) -> ApiCount:
    distinct = _counts(item["distinct"])
    return ApiCount(
        policy=str(item["licence_policy"]),
        with_python=bool(item["with_python_callables"]),
        described=_count(item["described_records"]),
        identities=_count(item["distinct_identities"]),
        distinct={similar: distinct[similar] for similar in (NEAR_DUPLICATE, LOOSER)},
    )


def _source(name: str, facts: Mapping[str, Any]) -> SourceAccount:
    told = {key: str(facts[key]) for key in ("version", "licence", "host")}
    return SourceAccount(name=name, **told, records=_counts(facts["records"]))


def _doctests(name: str, facts: Mapping[str, Any]) -> DoctestAccount:
    numbers = {key: _count(facts[key]) for key in ("docstrings", "examples", "executed", "equal", "matched")}
    return DoctestAccount(name=name, **numbers, failures=_counts(facts["failures"]), dropped=_counts(facts["dropped"]))


def _counts(value: Mapping[str, Any]) -> dict[str, int]:
    """Most frequent first, ties by name."""
    found = {str(name): _count(count) for name, count in value.items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _words(value: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(words) for name, words in value.items()}
