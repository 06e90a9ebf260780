"""What is known about the devices: their peak rate, and how much of their memory is in use."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Dense bfloat16 peak of one JAX device, in 10¹² FLOP/s, by `Device.device_kind`; the first pattern that matches counts.
# NVIDIA states most of its figures with 2:4 sparsity, twice what dense products reach. Before v4, and again with v7, a
# TPU chip is two JAX devices, each with half of the chip's figure.
# Sources: cloud.google.com/tpu/docs (a page per generation) and the data sheets of the GPUs.
_PEAK_TFLOPS = (
    (r"TPU v2", 22.5),
    (r"TPU v3", 61.5),
    (r"TPU v4", 275.0),
    (r"TPU v5 ?(lite|e)", 197.0),
    (r"TPU v5", 459.0),
    (r"TPU v6 ?(lite|e)", 918.0),
    (r"TPU ?v?7x", 1153.5),
    (r"A100|A800", 312.0),
    (r"A10G", 70.0),
    (r"A30", 165.0),
    (r"A40", 149.7),
    (r"L40S", 362.0),
    (r"L4", 121.0),
    (r"H100 PCIe", 756.0),
    (r"H100 NVL", 835.5),
    (r"H100|H200|H800|GH200", 989.4),
    (r"H20", 148.0),
    (r"GB200", 2500.0),
    (r"B200", 2250.0),
    (r"MI250", 191.5),  # a card is two devices
    (r"MI300X", 1307.4),
    (r"MI325X", 1307.4),
    (r"MI300A", 980.6),
)


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 peak in FLOP/s of one device of this kind; None where it is not known, as for CPUs."""
    for pattern, tflops in _PEAK_TFLOPS:
        if re.search(rf"\b(?:{pattern})(?!\d)", device_kind, re.IGNORECASE):
            return tflops * 1e12
    return None


@dataclass(frozen=True)
class Memory:
    """Memory in use, in bytes.

    `of` says whose: "device" is the fullest device of this process (`limit` is what its allocator may take), "process"
    is the resident memory of the process, where devices keep no account of their own (CPU).
    """

    of: Literal["device", "process"]
    in_use: int
    peak: int
    limit: int | None = None

    def __str__(self) -> str:
        limit = f" of {_gib(self.limit)}" if self.limit else ""
        return f"{_gib(self.in_use)}{limit} in use per {self.of}, {_gib(self.peak)} at the peak"


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"


def memory_in_use(devices: Sequence[Any] | None = None) -> Memory:
    """Memory of the fullest of `devices` (of this process by default), or of the process if they do not tell."""
    if devices is None:
        import jax

        devices = jax.local_devices()
    stats = [found for device in devices if (found := device.memory_stats())]
    if not stats:
        return _process_memory()
    limits = [found["bytes_limit"] for found in stats if found.get("bytes_limit")]
    return Memory(
        of="device",
        in_use=max(found["bytes_in_use"] for found in stats),
        peak=max(found.get("peak_bytes_in_use", found["bytes_in_use"]) for found in stats),
        limit=min(limits) if limits else None,
    )


def _process_memory() -> Memory:
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    try:
        in_use = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux: the peak is all there is
        in_use = peak
    return Memory("process", in_use, max(peak, in_use))
