"""The held-out split of catalogued APIs: whole services that training never sees.

A *service* is what a provider documents together (`infos.service_of`): the operations of one AWS or Google service in
every notation, one group of a command line, one specification. Services are taken in the order of a keyed hash until
the wanted share of the documented APIs is held out; one with more than `MAX_SERVICE` APIs, or whose descriptions share
many windows of words with others, stays in training, because copies of them are cut out of everything else.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hephaestus_jax.forge import dedup
from hephaestus_jax.forge.holdout import (
    COMMON_UNITS,
    MAX_SERVICE,
    MAX_SHARED,
    MIN_NAME,
    Census,
    Family,
    HeldOut,
    windows_of,
)
from hephaestus_jax.forge.infos import ApiInfo
from hephaestus_jax.forge.plan import Place

_PARTS = 3  # words of a function's name that make it distinctive: "createVpcEndpoint", not "listItems"
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class ServiceApi:
    """What the choice knows of one API."""

    place: Place
    api: ApiInfo


@dataclass(frozen=True)
class Described:
    """Name and description of one API of a service that may be held out."""

    service: str
    name: str
    description: str


def candidates(apis: Iterable[ServiceApi], fraction: float, seed: int) -> dict[str, list[ServiceApi]]:
    """The services to hold out, twice as many as are wanted: some share too much with others.

    Args:
        apis: all that go on, Python callables left out.
        fraction: share of them to hold out.
        seed: keys the choice.
    """
    services: dict[str, list[ServiceApi]] = defaultdict(list)
    for item in apis:
        services[item.api.service].append(item)
    wanted = 2 * round(fraction * sum(map(len, services.values())))
    chosen: dict[str, list[ServiceApi]] = {}
    for service in sorted(services, key=lambda name: dedup.keyed_fraction(seed, "holdout service", name)):
        if len(services[service]) <= min(MAX_SERVICE, wanted):
            chosen[service] = services[service]
            wanted -= len(services[service])
    return chosen


def choose_services(
    chosen: Mapping[str, Sequence[ServiceApi]],
    described: Sequence[Described],
    holders: Mapping[str, Mapping[str, int]],
    functions: Counter[str],
    census: Census,
    wanted: int,
) -> tuple[HeldOut, list[str]]:
    """The held-out services and their families.

    Args:
        chosen: from `candidates`, in the order they are taken.
        described: the descriptions of all of their APIs.
        holders: of each window of `described`, how many other descriptions of each service hold it.
        functions: how often each function's name occurs among all APIs.
        census: what code and text say about names.
        wanted: number of APIs to hold out.
    """
    texts: dict[str, list[Described]] = defaultdict(list)
    for item in described:
        texts[item.service].append(item)
    families, common, held = [], set[str](), []
    for service, members in chosen.items():
        if len(members) > wanted:
            continue
        windows = {window for item in texts[service] for window in windows_of(item.description)}
        outside = {window: sum(n for name, n in holders[window].items() if name != service) for window in windows}
        if sum(0 < count < COMMON_UNITS for count in outside.values()) > MAX_SHARED:
            continue
        wanted -= len(members)
        held.append(service)
        common.update(window for window, count in outside.items() if count >= COMMON_UNITS)
        own = Counter(item.api.function for item in members)
        families.append(
            Family(
                names=tuple(sorted({item.name for item in texts[service]})),
                aliases=(),
                words=tuple(sorted(name for name in own if _distinctive(name, functions[name] - own[name], census))),
                docstrings=tuple(sorted({item.description for item in texts[service]})),
            )
        )
    return HeldOut(tuple(sorted(families, key=lambda family: family.names)), tuple(sorted(common))), held


def _distinctive(name: str, elsewhere: int, census: Census) -> bool:
    """Whether a function's name shows its service wherever it stands."""
    parts = {part.lower() for part in _PART.findall(name)}
    plain = re.fullmatch(r"\w+", name) is not None
    return plain and len(name) >= MIN_NAME and len(parts) >= _PARTS and not elsewhere and not census.words[name]


def joined(first: HeldOut, second: HeldOut) -> HeldOut:
    """Both lists as one."""
    families = sorted({*first.families, *second.families}, key=lambda family: family.names)
    return HeldOut(tuple(families), tuple(sorted({*first.common, *second.common})))
