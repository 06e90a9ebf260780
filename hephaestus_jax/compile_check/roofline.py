"""The least time that a step can take on a topology, and what that assumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hephaestus_jax.compile_check.costs import Collective, Costs
from hephaestus_jax.compile_check.topologies import Topology

ASSUMPTIONS = (
    "products at the chip's dense bfloat16 peak; every byte that enters or leaves a kernel moves once at the full"
    " memory bandwidth; collectives as rings over all links of the torus dimensions that their devices span, both"
    " directions where a dimension wraps around, one where it does not, one after the other; the three overlap"
    " completely, so that the longest is the step"
)


@dataclass(frozen=True)
class Roofline:
    """Seconds that each part of a step takes by itself at the least, and the MFU if the longest were all.

    Attributes:
        compute, memory, interconnect: seconds.
        mfu: useful FLOPs (`ModelConfig.flops_per_token`) over peak · step seconds.
    """

    compute: float
    memory: float
    interconnect: float
    mfu: float

    @property
    def step(self) -> float:
        """Seconds of a step in which everything overlaps."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bound(self) -> str:
        """The part that takes longest."""
        parts = {"compute": self.compute, "memory": self.memory, "interconnect": self.interconnect}
        return max(parts, key=lambda name: parts[name])


def roofline(costs: Costs, topology: Topology, devices: Sequence[Any], useful_flops: float) -> Roofline:
    """The roofline of one device.

    Args:
        costs: of one step on one device.
        topology: gives the chip's figures.
        devices: of the mesh in its order, with `coords`.
        useful_flops: of one step on one device.
    """
    chip = topology.generation
    places = _places(devices)
    compute = costs.flops / chip.peak_flops
    memory = costs.hbm_bytes / chip.hbm_bandwidth
    links = sum(x.times * x.sent / bandwidth(x, topology, places) for x in costs.collectives)
    longest = max(compute, memory, links)
    return Roofline(compute, memory, links, useful_flops / (chip.peak_flops * longest) if longest else 0.0)


def bandwidth(collective: Collective, topology: Topology, places: np.ndarray) -> float:
    """Bytes/s at which a device sends in a collective.

    Args:
        places: [devices, 1 + dimensions]: the slice and the coordinates of each device of the mesh.
    """
    chip = topology.generation
    members = places[np.array(collective.groups.members[:1])][0]  # groups of one collective lie alike
    spans = [len(set(members[:, axis])) for axis in range(members.shape[1])]
    if spans[0] > 1:
        return chip.network_bandwidth
    if collective.kind == "collective-permute":  # they come in pairs, one for each direction of a ring
        return 2 * chip.link_bandwidth
    links = 0
    for span, size, ring in zip(spans[1 : len(topology.shape) + 1], topology.shape, topology.rings, strict=True):
        if span > 1:
            links += 2 if ring and span == size else 1
    return max(links, 1) * chip.link_bandwidth


def _places(devices: Sequence[Any]) -> np.ndarray:
    rows = [(getattr(device, "slice_index", None) or 0, *device.coords) for device in devices]
    return np.array(rows)
