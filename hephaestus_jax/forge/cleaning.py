"""Hygiene of one record at a time: licence, language, length and boilerplate, secrets, benchmarks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.decontamination import Contamination, Decontaminator
from hephaestus_jax.forge.hygiene.filters import why_left_out
from hephaestus_jax.forge.hygiene.scrub import scrub
from hephaestus_jax.formats.records import Json, Record, slice_of

CONTAMINATED = "shows a benchmark"


class Contaminated(NamedTuple):
    """A record that was removed because a benchmark shows in it."""

    record: str  # what it was: its source and path
    benchmark: str
    item: str
    rule: str
    evidence: str


@dataclass
class CleanFacts:
    """What became of the records of one unit, per slice and reason."""

    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    scrubbed: Counter[str] = field(default_factory=Counter)  # places, per kind
    contaminated: list[Contaminated] = field(default_factory=list)

    def merge(self, other: CleanFacts) -> None:
        """Adds those of another unit."""
        self.dropped.update(other.dropped)
        self.scrubbed.update(other.scrubbed)
        self.contaminated += other.contaminated

    def contaminated_json(self) -> list[dict[str, Json]]:
        """For the manifest."""
        return [item._asdict() for item in self.contaminated]


class Cleaner:
    """Cleans records by one configuration."""

    def __init__(self, config: ForgeConfig, decontaminator: Decontaminator | None) -> None:
        self._config, self._decontaminator = config, decontaminator

    def clean(self, record: Record, facts: CleanFacts) -> Record | None:
        """The record without secrets; None when it is left out, with the reason in `facts`."""
        reason = self._why_left_out(record, facts)
        if reason:
            facts.dropped[slice_of(record), reason] += 1
            return None
        record, found = scrub(record)
        facts.scrubbed.update(found)
        return record

    def _why_left_out(self, record: Record, facts: CleanFacts) -> str:
        if not self._config.allows(record.provenance.licence):
            return f"licence: not {self._config.licence_policy}"
        if reason := why_left_out(record, self._config.languages):
            return reason
        if self._decontaminator is not None and (found := self._decontaminator.check(record)):
            facts.contaminated.append(_told(record, found))
            return CONTAMINATED
        return ""


def _told(record: Record, found: Contamination) -> Contaminated:
    origin = record.provenance
    return Contaminated(f"{origin.source}:{origin.path}", found.benchmark, found.item, found.rule, found.evidence)
