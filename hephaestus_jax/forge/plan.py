"""The plan of a whole corpus: which records are versions, repeats and near-duplicates of others, and who sees what.

Everything here is decided from the records' infos alone, in an order that names and contents fix. Of records that say
the same one stays: the provider's own package before a catalogue, what has examples before what has none, the newest
released version before older ones.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hephaestus_jax.forge import dedup
from hephaestus_jax.forge.api_identity import Count, Entry, count
from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.infos import ApiInfo, Info
from hephaestus_jax.forge.sources import SOURCES
from hephaestus_jax.forge.sources.source import matches_provider
from hephaestus_jax.forge.stages import CleanIndex, Share, file_of
from hephaestus_jax.forge.units import Unit
from hephaestus_jax.formats.records import PLAYED

SIMILARITIES = (0.8, 0.7)  # of near-duplicates that are counted; the first is the one that is removed
# whose copy stays
_SLICE_ORDER = {"agent_docs": 0, "agent_trajectories": 1, PLAYED: 2, "text": 3, "code": 4}

REPEATED_PROVIDER = "catalogue's copy of a provider whose own package is read"
OLDER_VERSION = "older version of an API"
NEAR_DUPLICATE = "near-duplicate"
EXACT_DUPLICATE = "exact duplicate"
OVER_CAP = "beyond the cap on its provider"


@dataclass(frozen=True)
class Place:
    """Where a record is: the unit's place in the build, and its number in the unit."""

    unit: int
    number: int


@dataclass
class _OpenShare:
    """A `Share` while the plan is made."""

    dropped: dict[int, str] = field(default_factory=dict)
    validation: set[int] = field(default_factory=set)
    reserved: set[str] = field(default_factory=set)


@dataclass
class Plan:
    """Who goes where, per unit; and how many APIs there are."""

    shares: list[_OpenShare]
    counts: list[Count] = field(default_factory=list)

    def drop(self, place: Place, reason: str) -> None:
        """Leaves a record out."""
        self.shares[place.unit].dropped.setdefault(place.number, reason)

    def validate(self, place: Place) -> None:
        """Puts a record on the validation side."""
        self.shares[place.unit].validation.add(place.number)

    def reserve(self, place: Place, path: str) -> None:
        """Keeps a file from training."""
        self.shares[place.unit].reserved.add(path)

    def kept(self, place: Place) -> bool:
        """Whether a record goes on."""
        return place.number not in self.shares[place.unit].dropped

    def share(self, unit: int) -> Share:
        """One unit's part."""
        own = self.shares[unit]
        return Share(dict(sorted(own.dropped.items())), frozenset(own.validation), frozenset(own.reserved))


def plan_corpus(units: Sequence[Unit], indexes: Sequence[CleanIndex], config: ForgeConfig) -> Plan:
    """Plans everything but what is held out (`hold_out`).

    Args:
        units: of the build.
        indexes: of each.
        config: of the build.
    """
    plan = Plan([_OpenShare() for _ in units])
    entries = [(Place(u, n), info) for u, index in enumerate(indexes) for n, info in enumerate(index.infos)]
    entries = _without_repeats(entries, units, plan)
    signatures = dedup.stack([info.signature_P for _, info in entries])
    groups = {similar: dedup.near_duplicate_groups(signatures, similar=similar) for similar in SIMILARITIES}
    plan.counts = _counts(entries, groups)
    _drop_versions(entries, plan)
    _drop_near_duplicates(entries, groups[SIMILARITIES[0]], units, plan, config)
    _cap_providers(entries, plan, config)
    _validate_trajectories(entries, units, plan, config)
    return plan


Entries = list[tuple[Place, Info]]


def _without_repeats(entries: Entries, units: Sequence[Unit], plan: Plan) -> Entries:
    """Drops a catalogue's copies of providers whose own package is in the build."""
    read = {units[place.unit].source for place, info in entries if info.api is not None}
    replaced = {name: SOURCES[name].replaces for name in read if name in SOURCES}
    repeats: dict[tuple[str, str], bool] = {}
    kept = []
    for place, info in entries:
        source = units[place.unit].source
        if info.api is not None:
            key = (source, info.api.stated_provider)
            if key not in repeats:
                others = [patterns for name, patterns in replaced.items() if name != source]
                own = matches_provider(key[1], replaced.get(source, ()))
                repeats[key] = not own and any(matches_provider(key[1], patterns) for patterns in others)
            if repeats[key]:
                plan.drop(place, REPEATED_PROVIDER)
                continue
        kept.append((place, info))
    return kept


def _counts(entries: Entries, groups: Mapping[float, list[list[int]]]) -> list[Count]:
    number_NS = np.tile(np.arange(len(entries))[:, None], (1, len(SIMILARITIES)))
    for place, similar in enumerate(SIMILARITIES):
        for group in groups[similar]:
            number_NS[group, place] = group[0]
    return count(
        (
            Entry(info.api.identity, info.api.interface, info.licence, tuple(map(int, number_NS[row])))
            for row, (_, info) in enumerate(entries)
            if info.api is not None
        ),
        SIMILARITIES,
    )


def _drop_versions(entries: Entries, plan: Plan) -> None:
    """Of the versions of one API in one notation the best stays; those of one distribution are overloads."""
    versions: dict[tuple[str, str], list[tuple[Place, Info]]] = defaultdict(list)
    for place, info in entries:
        if info.api is not None:
            versions[info.api.identity, info.api.interface].append((place, info))
    for found in versions.values():
        if len(found) == 1 or (found[0][1].api and found[0][1].api.interface == "python" and _one_unit(found)):
            continue
        best = max(found, key=lambda entry: (_api(entry[1]).version, -entry[0].unit, -entry[0].number))
        python = _api(best[1]).interface == "python"
        for place, _ in found:
            if place != best[0] and not (python and place.unit == best[0].unit):
                plan.drop(place, OLDER_VERSION)


def _one_unit(found: Iterable[tuple[Place, Info]]) -> bool:
    return len({place.unit for place, _ in found}) == 1


def _api(info: Info) -> ApiInfo:
    assert info.api is not None
    return info.api


def _drop_near_duplicates(
    entries: Entries, groups: list[list[int]], units: Sequence[Unit], plan: Plan, config: ForgeConfig
) -> None:
    """Of near-duplicates one stays; what stays of code and text goes to validation by the file that it is from."""
    code = {(place.unit, info.path) for place, info in entries if info.slice == "code"}
    grouped = {row for group in groups for row in group}
    alone = ([row] for row in range(len(entries)) if row not in grouped)
    for group in [*groups, *alone]:
        members = [entries[row] for row in group if plan.kept(entries[row][0])]
        if not members:
            continue
        first = min(members, key=lambda entry: _preference(*entry))
        members.sort(key=lambda entry: (entry[0] != first[0], entry[0].unit, entry[0].number))
        for place, info in members[1:]:
            plan.drop(place, EXACT_DUPLICATE if info.digest == first[1].digest else NEAR_DUPLICATE)
        if first[1].slice in ("code", "text"):
            _validate_document(members, units, code, plan, config)


def _preference(place: Place, info: Info) -> tuple[Any, ...]:
    """Of near-duplicates the least stays."""
    api = info.api
    told = (api.deprecated, api.callable_examples == 0, api.examples == 0) if api is not None else (False, False, False)
    return (_SLICE_ORDER[info.slice], *told, place.unit, place.number)


def _validate_document(
    members: Sequence[tuple[Place, Info]],
    units: Sequence[Unit],
    code: set[tuple[int, str]],
    plan: Plan,
    config: ForgeConfig,
) -> None:
    place, info = members[0]
    file = file_of(info.path)
    key = file if (place.unit, file) in code else info.path  # a file's code and its own prose share one side
    if dedup.keyed_fraction(config.seed, "validation", units[place.unit].name, key) < config.validation_fraction:
        plan.validate(place)
        if info.slice == "code":
            for other, other_info in members:
                plan.reserve(other, other_info.path)


def _validate_trajectories(entries: Entries, units: Sequence[Unit], plan: Plan, config: ForgeConfig) -> None:
    """Of every source's trajectories all that call certain tools: of that source, training sees no call of those.

    Tools are taken in the order of a keyed hash as long as the wanted share is not exceeded. Where every tool is called
    more often than that, the least called one is taken, unless more than half of the source calls it.
    """
    callers: dict[str, dict[str, set[Place]]] = defaultdict(lambda: defaultdict(set))
    total: Counter[str] = Counter()
    for place, info in entries:
        if info.slice == "agent_trajectories" and plan.kept(place):
            source = units[place.unit].source
            total[source] += 1
            for group in info.groups:
                callers[source][group].add(place)
    for source, found in callers.items():
        wanted = math.ceil(config.validation_fraction * total[source])
        ordered = sorted(found, key=lambda group: (dedup.keyed_fraction(config.seed, "calls", source, group), group))
        chosen: set[Place] = set()
        for group in ordered:
            if len(chosen | found[group]) <= wanted:
                chosen |= found[group]
        least = min(ordered, key=lambda group: len(found[group]))
        if wanted and not chosen and 2 * len(found[least]) <= total[source]:
            chosen = found[least]
        for place in chosen:
            plan.validate(place)


def _cap_providers(entries: Entries, plan: Plan, config: ForgeConfig) -> None:
    if config.provider_cap is None:
        return
    apis: dict[str, list[tuple[float, Place]]] = defaultdict(list)
    for place, info in entries:
        if info.api is not None and plan.kept(place):
            apis[info.api.provider].append((dedup.keyed_fraction(config.seed, "cap", info.id), place))
    for found in apis.values():
        for _, place in sorted(found, key=lambda entry: (entry[0], entry[1].unit, entry[1].number))[
            config.provider_cap :
        ]:
            plan.drop(place, OVER_CAP)


def kept_infos(indexes: Sequence[CleanIndex], plan: Plan) -> Iterator[tuple[Place, Info]]:
    """What the plan lets go on, in order."""
    for unit, index in enumerate(indexes):
        for number, info in enumerate(index.infos):
            if plan.kept(place := Place(unit, number)):
                yield place, info


def choose_pool(indexes: Sequence[CleanIndex], plan: Plan, size: int, seed: int) -> dict[str, list[Place]]:
    """APIs for distractors, per split, spread over the providers; Python callables are left out."""
    drawn: dict[str, list[tuple[float, Place, str]]] = {"train": [], "validation": []}
    for place, info in kept_infos(indexes, plan):
        if info.api is not None and info.api.interface != "python":
            split = "validation" if place.number in plan.shares[place.unit].validation else "train"
            drawn[split].append((dedup.keyed_fraction(seed, "pool", info.id), place, info.api.provider))
    pool: dict[str, list[Place]] = {}
    for split, found in drawn.items():
        taken: Counter[str] = Counter()
        places: list[Place] = []
        for _, place, provider in sorted(found, key=lambda entry: (entry[0], entry[1].unit, entry[1].number)):
            if taken[provider] < max(2, size // 50) and len(places) < size:
                taken[provider] += 1
                places.append(place)
        pool[split] = places
    return pool
