"""The accounts of a corpus build: of everything that was read, where it went."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import hephaestus_jax
from hephaestus_jax.forge.config import InstalledCorpusConfig
from hephaestus_jax.forge.doctests.results import Counts
from hephaestus_jax.forge.holdout import RULE, HeldOut
from hephaestus_jax.forge.installed import Distribution
from hephaestus_jax.forge.leaks import HELD_OUT_FILE
from hephaestus_jax.forge.stages import Finished, Group, Index
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import SLICES, SPLITS, Json, digest
from hephaestus_jax.formats.store import Corpus

LIBRARIES = ("rensa", "pyarrow", "docstring_parser")
BYTES_PER_TOKEN = 4  # a rule of thumb for English and code


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
    sources: dict[str, dict[str, Json]] = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=Quarantine)
    doctests: dict[str, Counts] = field(default_factory=dict)

    def add_read(self, index: Index) -> None:
        """Counts what was read of one distribution."""
        self.read.update(document.slice for document in index.documents)
        self.read["agent_docs"] += len(index.apis)
        self.read.update(index.left_out)
        self.dropped.update({(name, "not in the sample"): count for name, count in index.left_out.items()})
        self.skipped.update(index.skipped)
        self.quarantine.merge(index.quarantine)

    def add_doctests(self, name: str, counts: Counts) -> None:
        """Counts the executed docstrings of one distribution."""
        self.doctests[name] = counts
        self.read["agent_trajectories"] += counts.docstrings

    def add_finished(self, distribution: Distribution, made: Finished, kept: Mapping[Group, Sequence[int]]) -> None:
        """Counts what became of one distribution's records; `kept` are the numbers of those that are no duplicates."""
        self.dropped.update(made.dropped)
        self.cut.update(made.cut)
        self.cut_bytes.update(made.cut_bytes)
        written: dict[str, Json] = {}
        for group, numbers in kept.items():
            sizes = made.summaries.get(group, ())
            self.dropped[group[0], "says the same as another record"] += len(sizes) - len(numbers)
            self.records[group] += len(numbers)
            self.bytes[group] += sum(sizes[number][1] for number in numbers)
            if numbers:
                written["/".join(group)] = len(numbers)
        about = {"version": distribution.version, "licence": distribution.licence, "host": distribution.host}
        self.sources[distribution.name] = {**about, "records": written}

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

    def about(self, config: InstalledCorpusConfig, held_out: HeldOut, refused: Mapping[str, str]) -> dict[str, Json]:
        """What the manifest tells beside the shards. The number of workers is left out: it changes nothing."""
        configuration = {key: value for key, value in dataclasses.asdict(config).items() if key != "workers"}
        families = held_out.families
        return {
            "kind": "installed packages",
            "configuration": configuration,
            "versions": {
                "hephaestus_jax": hephaestus_jax.__version__,
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in LIBRARIES},
            },
            "held_out": {
                "file": HELD_OUT_FILE,
                "rule": RULE,
                "digest": digest(held_out.to_json()),
                "families": len(families),
                "apis": len(held_out.names),
                "words": len(held_out.words),
                "validation_keeps": "validation records are whole: nothing is cut from them",
            },
            "accounts": {name: self._account(name) for name in SLICES},
            "sources": self.sources,
            "refused_licences": dict(refused),
            "skipped_files": dict(sorted(self.skipped.items())),
            "quarantine": self.quarantine.to_json(),
            "doctests": {name: _plain(counts) for name, counts in self.doctests.items()},
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


def _plain(counts: Counts) -> dict[str, Json]:
    """Counts as JSON; `dataclasses.asdict` would turn a Counter inside out."""
    values = {field.name: getattr(counts, field.name) for field in dataclasses.fields(counts)}
    return {k: dict(sorted(v.items())) if isinstance(v, Counter) else v for k, v in values.items()}


def ledger_of(
    distributions: Iterable[Distribution],
    indexes: Iterable[Index],
    doctests: Mapping[str, Counts],
    finished: Mapping[str, Finished],
    kept: Mapping[tuple[str, Group], Sequence[int]],
) -> Ledger:
    """The accounts of a whole build, checked."""
    ledger = Ledger()
    for index in indexes:
        ledger.add_read(index)
    for name, counts in doctests.items():
        ledger.add_doctests(name, counts)
    for distribution in distributions:
        name = distribution.name
        own = {group: numbers for (source, group), numbers in kept.items() if source == name}
        ledger.add_finished(distribution, finished[name], own)
    ledger.check()
    return ledger


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
