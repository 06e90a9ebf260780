"""The accounts of a corpus build: of everything that was read, where it went."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.forge.api_identity import Count, family
from hephaestus_jax.forge.cleaning import CleanFacts
from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.doctests.results import Counts, tally
from hephaestus_jax.forge.holdout import RULE, HeldOut
from hephaestus_jax.forge.leaks import HELD_OUT_FILE
from hephaestus_jax.forge.plan import Plan
from hephaestus_jax.forge.stages import REPEATED, Finished, Group, ReadFacts
from hephaestus_jax.forge.units import Found
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.record_files import StoredRecord
from hephaestus_jax.formats.records import PLAYED, SLICES, SPLITS, Json, digest
from hephaestus_jax.formats.store import BYTES_PER_TOKEN, Corpus
from hephaestus_jax.versions import versions_of

LIBRARIES = ("apache-beam", "rensa", "pyarrow", "docstring_parser", "PyYAML", "jsonschema")
_UNTOLD = ("workers", "beam_options", "package_folder")  # they change nothing


@dataclass
class Distributions:
    """What the corpus is made of, counted while it is written."""

    providers: Counter[str] = field(default_factory=Counter)  # of APIs, families of them
    interfaces: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)  # of HTTP operations
    domains: Counter[str] = field(default_factory=Counter)  # the hosts records are from
    deprecated: Counter[str] = field(default_factory=Counter)  # of APIs, per provider
    languages: dict[str, Counter[str]] = field(default_factory=dict)  # per slice, as far as it was told
    licences: dict[str, Counter[str]] = field(default_factory=dict)  # per slice
    sources: dict[str, Counter[str]] = field(default_factory=dict)  # of each origin, records per slice and split

    def add(self, group: Group, row: StoredRecord) -> None:
        """Counts a record that is written."""
        self.licences.setdefault(group[0], Counter())[row.licence] += 1
        self.sources.setdefault(row.source, Counter())["/".join(group)] += 1
        self.domains[row.host.partition("/")[0] or "unknown"] += 1
        if group[0] == "agent_docs":
            doc = json.loads(row.record)
            self.providers[family(doc["provider"])] += 1
            self.interfaces[doc["interface"]] += 1
            self.deprecated[family(doc["provider"])] += doc["deprecated"]
            method, _, rest = doc["name"].partition(" ")
            if doc["interface"] == "rest" and rest:
                self.methods[method] += 1

    def to_json(self) -> dict[str, Json]:
        """For the manifest, the most frequent first."""
        plain = {
            name: _ordered(getattr(self, name))
            for name in ("providers", "interfaces", "methods", "domains", "deprecated")
        }
        per_slice = {name: getattr(self, name) for name in ("languages", "licences")}
        return plain | {
            name: {slice_name: _ordered(counter) for slice_name, counter in sorted(counters.items())}
            for name, counters in per_slice.items()
        }


@dataclass
class Ledger:
    """Records per slice: read, dropped (by reason), cut, and written (with the bytes of their texts, per split)."""

    read: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    cut_bytes: Counter[str] = field(default_factory=Counter)
    records: Counter[Group] = field(default_factory=Counter)
    bytes: Counter[Group] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    quarantine: Quarantine = field(default_factory=Quarantine)
    doctests: dict[str, Counts] = field(default_factory=dict)
    composed: Counter[str] = field(default_factory=Counter)
    clean: CleanFacts = field(default_factory=CleanFacts)
    distributions: Distributions = field(default_factory=Distributions)

    def add_read(self, facts: ReadFacts) -> None:
        """Counts what was read of one unit."""
        self.read.update(facts.read)
        self.dropped.update(facts.dropped)
        self.dropped.update({(name, "not in the sample"): count for name, count in facts.left_out.items()})
        self.skipped.update(facts.skipped)
        self.quarantine.merge(facts.quarantine)

    def add_clean(self, facts: CleanFacts) -> None:
        """Counts what cleaning left out."""
        self.dropped.update(facts.dropped)
        self.clean.merge(facts)

    def add_doctests(self, name: str, outcomes: Sequence[Any]) -> None:
        """Counts the executed docstrings of one distribution."""
        self.doctests[name] = tally(outcomes).get(name, Counts())

    def add_finished(self, made: Finished, kept: Mapping[Group, Sequence[int]]) -> None:
        """Counts what became of one part's records; `kept` are the numbers of those that are no duplicates."""
        self.read.update(made.made)
        self.dropped.update(made.dropped)
        self.add_clean(made.clean)
        self.cut.update(made.cut)
        self.cut_bytes.update(made.cut_bytes)
        self.composed.update(made.kinds)
        for group, numbers in kept.items():
            sizes = made.summaries.get(group, ())
            self.dropped[group[0], REPEATED] += len(sizes) - len(numbers)
            self.records[group] += len(numbers)
            self.bytes[group] += sum(sizes[number][1] for number in numbers)

    def add_languages(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Takes the counts of (slice, language) of what goes on; "" is a language that was not told."""
        for (slice_name, language), number in counts.items():
            self.distributions.languages.setdefault(slice_name, Counter())[language or "unknown"] += number

    def check(self) -> None:
        """Every record that was read was written or dropped for a stated reason.

        Raises:
            RuntimeError: the accounts do not balance, which is a defect of the pipeline.
        """
        for name in SLICES:
            dropped = sum(count for (slice_name, _), count in self.dropped.items() if slice_name == name)
            written = sum(self.records[name, split] for split in SPLITS)
            if self.read[name] != dropped + written:
                raise RuntimeError(f"{name}: {self.read[name]} records read, {dropped} dropped, {written} written")

    def about(self, config: ForgeConfig, held_out: HeldOut, found: Found, plan: Plan) -> dict[str, Json]:
        """What the manifest tells beside the shards. The number of workers is left out: it changes nothing."""
        families = held_out.families
        written = self.distributions.sources
        return {
            "kind": "forge",
            "configuration": {k: v for k, v in dataclasses.asdict(config).items() if k not in _UNTOLD},
            "versions": {"python": platform.python_version(), **versions_of(*LIBRARIES)},
            "held_out": {
                "file": HELD_OUT_FILE,
                "rule": RULE,
                "digest": digest(held_out.to_json()),
                "families": len(families),
                "apis": len(held_out.names),
                "words": len(held_out.words),
                "validation_keeps": "validation records are whole: nothing is cut from them",
            },
            "accounts": {name: self._account(name) for name in SLICES if name != PLAYED or self.read[name]},
            "sources": {
                name: {**dataclasses.asdict(facts), "records": dict(sorted(written.get(name, {}).items()))}
                for name, facts in sorted(found.facts.items())
            },
            "unavailable_sources": found.unavailable,
            "refused_licences": found.refused,
            "skipped_files": dict(sorted(self.skipped.items())),
            "quarantine": self.quarantine.to_json(),
            "doctests": {name: _plain(counts) for name, counts in self.doctests.items()},
            "composed": _ordered(self.composed),
            "scrubbed": _ordered(self.clean.scrubbed),
            "contaminated": self.clean.contaminated_json(),
            "apis": [_count(item) for item in plan.counts],
            "distributions": self.distributions.to_json(),
        }

    def _account(self, name: str) -> dict[str, Json]:
        dropped = {reason: count for (slice_name, reason), count in sorted(self.dropped.items()) if slice_name == name}
        return {
            "read": self.read[name],
            "dropped": {reason: count for reason, count in dropped.items() if count},
            "cut": {"records": self.cut[name], "text_bytes": self.cut_bytes[name]},
            "records": {split: self.records[name, split] for split in SPLITS},
            "text_bytes": {split: self.bytes[name, split] for split in SPLITS},
        }


def _ordered(counter: Mapping[str, int]) -> dict[str, int]:
    return {key: n for key, n in sorted(counter.items(), key=lambda item: (-item[1], item[0])) if n}


def _count(item: Count) -> dict[str, Json]:
    return {
        "licence_policy": item.policy,
        "with_python_callables": item.with_python,
        "described_records": item.records,
        "distinct_identities": item.identities,
        "distinct": {f"J >= {similar}": number for similar, number in item.distinct.items()},
    }


def _plain(counts: Counts) -> dict[str, Json]:
    """Counts as JSON; `dataclasses.asdict` would turn a Counter inside out."""
    values = {field.name: getattr(counts, field.name) for field in dataclasses.fields(counts)}
    return {k: dict(sorted(v.items())) if isinstance(v, Counter) else v for k, v in values.items()}


def table(corpus: Corpus) -> str:
    """Records, megabytes of text and approximate tokens of a corpus, per slice and split."""
    lines = [f"{'slice':<20}{'split':<12}{'records':>10}{'MB of text':>12}{'M tokens*':>11}{'cut':>8}{'dropped':>9}"]
    for name, account in corpus.manifest["accounts"].items():
        for split in SPLITS:
            size = account["text_bytes"][split]
            line = f"{name:<20}{split:<12}{account['records'][split]:>10,}{size / 1e6:>12.2f}"
            line += f"{size / BYTES_PER_TOKEN / 1e6:>11.2f}"
            if split == "train":
                line += f"{account['cut']['records']:>8,}{sum(account['dropped'].values()):>9,}"
            lines.append(line)
    return "\n".join([*lines, f"* text bytes / {BYTES_PER_TOKEN}"])


def api_table(corpus: Corpus) -> str:
    """How many APIs there are, per licence policy, with and without Python callables."""
    counts = corpus.manifest["apis"]
    similar = sorted(counts[0]["distinct"], reverse=True) if counts else []
    head = "".join(f"{name:>12}" for name in similar)
    lines = [f"{'distinct described APIs':<34}{'records':>10}{'identities':>12}{head}"]
    for item in counts:
        told = f"{item['licence_policy']}, {'with' if item['with_python_callables'] else 'without'} Python callables"
        numbers = "".join(f"{item['distinct'][name]:>12,}" for name in similar)
        lines.append(f"{told:<34}{item['described_records']:>10,}{item['distinct_identities']:>12,}{numbers}")
    return "\n".join(lines)
