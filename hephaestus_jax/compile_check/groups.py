"""Which devices take part in a collective together, and which mesh axes that is."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hephaestus_jax.compile_check.hlo import Instruction

_MESH = re.compile(r"mesh\[([^\]]*)\]\s*(?:\{([^}]*)\})?")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


@dataclass(frozen=True)
class Groups:
    """Groups of devices, numbered as in the mesh (row-major).

    Attributes:
        members: [groups][devices]; all groups are equally large. Of a permutation, the cycles' or chains' devices.
    """

    members: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Devices of a group."""
        return len(self.members[0]) if self.members else 0

    def axes(self, mesh: Mapping[str, int]) -> tuple[str, ...]:
        """The mesh axes along which the devices of a group differ; `mesh` is axis -> size in order."""
        return _axes(self.members, tuple(mesh.items()))


@functools.lru_cache(maxsize=4096)
def _axes(members: tuple[tuple[int, ...], ...], mesh: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    places = np.array(np.unravel_index(np.array(members), [size for _, size in mesh]))  # [axis, group, device]
    differ = (places != places[:, :, :1]).any(axis=(1, 2))
    return tuple(name for (name, _), differs in zip(mesh, differ, strict=True) if differs)


def groups_of(x: Instruction, devices: int) -> Groups:
    """The groups of a collective among `devices` devices."""
    return _parse(_text(x), devices)


def between_slices(x: Instruction, devices: int) -> tuple[str, Groups] | None:
    """Kind and groups of a collective over the network between slices, which TPUs write as a transfer to the host.

    The transfer's target reads {1,2}x{0:15}: slices from 1, and devices within a slice. Devices are numbered slice by
    slice; each takes part with those at its place in the other slices.

    Args:
        devices: of one slice, which the program is written for.
    """
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', x.attributes)
    target = re.search(r'_xla_megascale_target="\{([\d,:]+)\}x', x.attributes)
    if x.opcode != "send" or not kind or not target:
        return None
    slices = 0
    for part in target[1].split(","):
        first, _, last = part.partition(":")
        slices += int(last or first) - int(first) + 1
    members = tuple(tuple(place + part * devices for part in range(slices)) for place in range(devices))
    return kind[1].lower().replace("_", "-"), Groups(members)


def _text(x: Instruction) -> str:
    """The attribute that names the groups, and no more of the instruction."""
    name = "source_target_pairs" if "source_target_pairs=" in x.attributes else "replica_groups"
    start = x.attributes.find(f"{name}=")
    if start < 0:
        return ""
    rest = x.attributes[start + len(name) + 1 :]
    end = re.search(r",\s*(?:[a-z_]+=)", rest)
    return ("pairs " if name.startswith("source") else "") + (rest[: end.start()] if end else rest)


@functools.lru_cache(maxsize=4096)
def _parse(text: str, devices: int) -> Groups:
    everyone = Groups((tuple(range(devices)),))
    if text.startswith("pairs"):
        pairs = re.findall(r"\{(\d+),(\d+)\}", text)
        return Groups(_connected([(int(a), int(b)) for a, b in pairs])) if pairs else everyone
    if mesh := _MESH.search(text):
        return Groups(_of_mesh(mesh[1], mesh[2] or "", text, devices))
    if iota := _IOTA.search(text):
        groups, order, turned = ([int(n) for n in part.split(",")] if part else [] for part in iota.groups())
        numbers = np.arange(int(np.prod(order))).reshape(order)
        numbers = numbers.transpose(turned) if turned else numbers
        return Groups(_rows(numbers.reshape(groups[0], -1)))
    listed = re.findall(r"\{([\d,]+)\}", text)
    return Groups(tuple(tuple(map(int, group.split(","))) for group in listed)) if listed else everyone


def _of_mesh(sizes: str, axes: str, text: str, devices: int) -> tuple[tuple[int, ...], ...]:
    """`mesh['a'=4,'b'=2] {'a'}`; `'a':(2)2` is the part of axis a of size 2 that comes after one of size 2."""
    shape = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", sizes)}
    numbers = np.arange(devices)
    if order := re.search(r"device_ids=\(?\[([\d,]+)\](?:<=\[([\d,]+)\](?:T\(([\d,]+)\))?)?", text):
        listed = [int(n) for n in order[1].split(",")]
        if order[2]:
            numbers = np.arange(devices).reshape([int(n) for n in order[2].split(",")])
            if order[3]:
                numbers = numbers.transpose([int(n) for n in order[3].split(",")])
            numbers = numbers.reshape(-1)
        elif len(listed) == devices:
            numbers = np.array(listed)
    split: list[tuple[bool, int]] = []  # whether a dimension is within the group, its size
    wanted = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes)
    for name, size in shape.items():
        parts = [(int(before), int(part)) for found, before, part in wanted if found == name and part]
        if any(found == name and not part for found, _, part in wanted):
            split.append((True, size))
        else:
            at = 1
            for before, part in sorted(parts):
                split += [(False, before // at), (True, part)]
                at = before * part
            split.append((False, size // at))
    grid = numbers.reshape([size for _, size in split])
    inside = [i for i, (within, _) in enumerate(split) if within]
    outside = [i for i, (within, _) in enumerate(split) if not within]
    count = int(np.prod([split[i][1] for i in inside])) if inside else 1
    return _rows(grid.transpose(outside + inside).reshape(-1, count))


def _connected(pairs: list[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Devices that a permutation joins, as groups of the largest size that all have."""
    group: dict[int, set[int]] = {}
    for a, b in pairs:
        merged = group.get(a, {a}) | group.get(b, {b})
        for member in merged:
            group[member] = merged
    unique = {id(members): tuple(sorted(members)) for members in group.values()}
    largest = max(map(len, unique.values()))
    return tuple(sorted(members for members in unique.values() if len(members) == largest))


def _rows(numbers: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in row) for row in numbers)
