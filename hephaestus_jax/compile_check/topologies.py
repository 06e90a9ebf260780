"""Names of TPU slices, what a chip of each generation has, and libtpu's own description of a slice.

A slice is named by its shape in chips, `v5e:16x16`. (Names such as "v5p-512" count cores in some generations and chips
in others.) Several slices over the data-centre network are `2*v5e:16x16`.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from dataclasses import dataclass
from typing import Any

from hephaestus_jax import devices
from hephaestus_jax.errors import UserError

GIB = 1 << 30


@dataclass(frozen=True)
class Generation:
    """A generation of TPU, per JAX device: the chip, where its two cores act as one.

    Attributes:
        name: as in a topology's name.
        libtpu: what libtpu calls it.
        hbm: bytes that the compiler may use: what libtpu 0.0.42 names when a program does not fit.
        hbm_bandwidth: bytes/s.
        link_bandwidth: bytes/s of one inter-chip link in one direction; a chip has two links for each dimension.
        network_bandwidth: bytes/s of a chip's share of the data-centre network in one direction, between slices.
        dimensions: of the torus.
        wraps_from: length from which a dimension is a ring; shorter ones are lines.
        host: chips of a host along each dimension.
        megacore: whether the chip's two cores are one device, which libtpu must be told.
    """

    name: str
    libtpu: str
    hbm: int
    hbm_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float
    dimensions: int
    wraps_from: int
    host: tuple[int, ...]
    megacore: bool

    @property
    def peak_flops(self) -> float:
        """Dense bfloat16 FLOP/s, by the same table as the MFU of a run."""
        peak = devices.peak_flops(f"TPU {self.name}")
        assert peak is not None
        return peak


# Memory bandwidth and interconnect: https://cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, which state the
# interconnect of a chip over all links and both directions: 600, 400, 1,200 and 800 GB/s (v6e: 3,200 Gb/s one way).
# Data-centre network: 6.4 (v5e) and 25.6 Tb/s (v6e) for a pod of 256 chips, 50 Gb/s for a chip of v5p; v4 is taken to
# have 100 Gb/s for a host of 4 chips.
# Rings: a v4 or v5p slice wraps around where it is made of whole cubes of 4; v5e and v6e where a side is a pod's, 16.
GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation("v4", "v4", int(30.75 * GIB), 1228e9, 50e9, 3.125e9, 3, 4, (2, 2, 1), True),
        Generation("v5e", "v5e", int(15.75 * GIB), 819e9, 50e9, 3.125e9, 2, 16, (2, 2), False),
        Generation("v5p", "v5", int(95.74 * GIB), 2765e9, 100e9, 6.25e9, 3, 4, (2, 2, 1), True),
        Generation("v6e", "v6e", int(31.25 * GIB), 1640e9, 100e9, 12.5e9, 2, 16, (2, 2), False),
    )
}
EXAMPLES = "v5e:16x16, v6e:4x4, v5p:4x4x4, v4:4x4x4, 2*v5e:16x16"


@dataclass(frozen=True)
class Topology:
    """One or several equal TPU slices.

    Attributes:
        generation: of the chips.
        shape: chips of a slice along each dimension of the torus.
        slices: slices, joined by the data-centre network.
    """

    generation: Generation
    shape: tuple[int, ...]
    slices: int = 1

    def __str__(self) -> str:
        slices = f"{self.slices}*" if self.slices > 1 else ""
        return f"{slices}{self.generation.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.slices * math.prod(self.shape)

    @property
    def rings(self) -> tuple[bool, ...]:
        """Whether each dimension wraps around."""
        least = self.generation.wraps_from
        if self.generation.dimensions == 3:  # only where the slice is made of whole cubes
            return (all(size % least == 0 for size in self.shape),) * 3
        return tuple(size % least == 0 for size in self.shape)


def parse_topology(text: str) -> Topology:
    """The topology called `text`.

    Raises:
        UserError: it is not the name of one, or no slice of that generation has that shape.
    """
    match = re.fullmatch(r"(?:(\d+)\*)?(\w+):(\d+(?:x\d+)*)", text.strip())
    if not match:
        raise UserError(f"topology {text!r} is not understood; name a slice by its shape in chips: {EXAMPLES}")
    generation = GENERATIONS.get(match[2])
    if generation is None:
        known = ", ".join(GENERATIONS)
        raise UserError(f"topology {text!r}: {match[2]!r} is not known; known are {known} ({EXAMPLES})")
    shape, slices = tuple(map(int, match[3].split("x"))), int(match[1] or 1)
    if len(shape) != generation.dimensions:
        raise UserError(
            f"topology {text!r}: a slice of {generation.name} has {generation.dimensions} dimensions, not"
            f" {len(shape)}; for example {_example(generation)}"
        )
    if slices < 1 or any(size < 1 for size in shape) or not _fits_hosts(shape, generation.host):
        raise UserError(
            f"topology {text!r}: a slice of {generation.name} consists of hosts of"
            f" {'x'.join(map(str, generation.host))} chips, so each side must be a multiple of that; for example"
            f" {_example(generation)}"
        )
    return Topology(generation, shape, slices)


def _fits_hosts(shape: tuple[int, ...], host: tuple[int, ...]) -> bool:
    return all(size % side == 0 for size, side in zip(shape, host, strict=True))


def _example(generation: Generation) -> str:
    return f"{generation.name}:{'x'.join(['4'] * generation.dimensions)}"


def prepare_environment() -> None:
    """Settings without which libtpu looks for TPUs and JAX takes other devices; before JAX's first use.

    Two compiles at once are let pass: libtpu's lock is there for chips, of which none is used.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")


def describe(topology: Topology) -> list[Any]:
    """libtpu's devices of the topology, for compiling only.

    Raises:
        UserError: libtpu is not installed, or refuses the topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("the TPU compiler is not installed; pip install 'hephaestus_jax[tpu-compile]'")
    import jax
    from jax.experimental import topologies

    generation = topology.generation
    options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if generation.megacore:
        wraps = topology.rings
        options |= {"chip_config_name": "megacore", "chips_per_host_bounds": generation.host, "wrap": wraps}
    name = f"{generation.libtpu}:{'x'.join(map(str, topology.shape))}"
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"topology {topology}: libtpu refuses it: {str(error).splitlines()[0]}") from error
