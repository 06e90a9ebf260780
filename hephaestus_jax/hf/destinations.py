"""Arrays that are being filled, tensor after tensor, in the parts of them that a process's devices hold; and read so.

On CPUs the place of a tensor is the array itself, whose memory JAX takes over; elsewhere it is host memory of the
tensor's size, which is copied into the stacked array on the device while the next one is read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.checkpoints.storage import named_leaves
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.families.weights import Index
from hephaestus_jax.hf.slices import Box

_ALIGNMENT = 64  # of host memory that JAX takes over without a copy


@dataclass(frozen=True)
class Part:
    """A part of an array that devices of this process hold.

    Attributes:
        leading: its layers, and of these its experts, where the array has such axes.
        box: its range of each of the other axes.
        devices: that hold it.
    """

    leading: Box
    box: Box
    devices: tuple[jax.Device, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one tensor's part."""
        return tuple(map(len, self.box))

    def holds(self, index: Index) -> bool:
        """Whether it has something of the tensor at that index of the leading axes."""
        return all(number in axis for number, axis in zip(index, self.leading, strict=True))

    def within(self, index: Index) -> Index:
        """Where that tensor lies in it."""
        return tuple(number - axis.start for number, axis in zip(index, self.leading, strict=True))


def parts_of(sharding: jax.sharding.Sharding, shape: tuple[int, ...], leading: int) -> list[Part]:
    """The distinct parts of an array that this process holds.

    Args:
        leading: how many of its axes are of layers and experts.
    """
    devices: dict[Box, list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        box = tuple(range(*part.indices(size)[:2]) for part, size in zip(index or (), shape, strict=True))
        devices.setdefault(box, []).append(device)
    return [Part(box[:leading], box[leading:], tuple(holders)) for box, holders in devices.items()]


class Destination(Protocol):
    """An array that is being filled."""

    parts: Sequence[Part]

    def places(self, index: Index, parts: Sequence[Part]) -> list[np.ndarray]:
        """Host memory for a tensor's part of each of the parts."""

    def written(self, index: Index, parts: Sequence[Part], places: Sequence[np.ndarray]) -> None:
        """Says that these places hold the tensor now."""

    def finish(self) -> list[jax.Array]:
        """The array's parts, one per device."""


class HostArray:
    """For CPUs: the whole of each part in host memory, which becomes the array without a copy."""

    def __init__(self, parts: Sequence[Part], dtype: np.dtype) -> None:
        self.parts = parts
        self._memory = {part: _aligned((*map(len, part.leading), *part.shape), dtype) for part in parts}

    def places(self, index: Index, parts: Sequence[Part]) -> list[np.ndarray]:
        return [self._memory[part][part.within(index)] for part in parts]

    def written(self, index: Index, parts: Sequence[Part], places: Sequence[np.ndarray]) -> None:
        pass

    def finish(self) -> list[jax.Array]:
        return [jax.device_put(self._memory[part], device) for part in self.parts for device in part.devices]


class DeviceArray:
    """For accelerators: one tensor's part in host memory, copied into the stack on each device."""

    def __init__(self, parts: Sequence[Part], dtype: np.dtype) -> None:
        self.parts, self._dtype = parts, dtype
        self._stacks: dict[jax.Device, jax.Array] = {}
        self._copied: list[jax.Array] = []
        for part in parts:
            for device in part.devices if part.leading else ():
                self._stacks[device] = jnp.zeros((*map(len, part.leading), *part.shape), dtype, device=device)

    def places(self, index: Index, parts: Sequence[Part]) -> list[np.ndarray]:
        return [_aligned(part.shape, self._dtype) for part in parts]

    def written(self, index: Index, parts: Sequence[Part], places: Sequence[np.ndarray]) -> None:
        jax.block_until_ready(self._copied)  # so that no more than two tensors lie in host memory
        self._copied = []
        for part, place in zip(parts, places, strict=True):
            for device in part.devices:
                values = jax.device_put(place, device)
                if index:
                    values = _with_values(self._stacks[device], values, part.within(index))
                self._stacks[device] = values
                self._copied.append(values)

    def finish(self) -> list[jax.Array]:
        return [self._stacks[device] for part in self.parts for device in part.devices]


@functools.partial(jax.jit, donate_argnums=0)
def _with_values(stack: jax.Array, values: jax.Array, index: Index) -> jax.Array:
    start = (*index, *(0 for _ in values.shape))
    return jax.lax.dynamic_update_slice(stack, values.reshape((1,) * len(index) + values.shape), start)


def reader_of(params: Any) -> Callable[[str, Index], np.ndarray]:
    """What an export reads, of arrays on devices: a tensor at a time is put together from the parts that hold it.

    Args:
        params: tree of arrays of any sharding.

    Raises:
        UserError: another process holds a part of one.
    """
    arrays = named_leaves(params)
    for path, array in arrays.items():
        if not array.is_fully_addressable:
            raise UserError(
                f"parts of parameter {path} are in other processes; save a checkpoint, and export that:"
                " python -m tools.convert_checkpoint export"
            )

    def read(path: str, index: Index) -> np.ndarray:
        array = arrays[path]
        parts = parts_of(array.sharding, array.shape, len(index))
        held = {shard.device: shard.data for shard in array.addressable_shards}
        values = np.empty(array.shape[len(index) :], array.dtype)
        for part in (part for part in parts if part.holds(index)):
            place = tuple(slice(axis.start, axis.stop) for axis in part.box)
            values[place] = np.asarray(_values(held[part.devices[0]], part.within(index)))
        return values

    return read


@jax.jit
def _values(stack: jax.Array, index: Index) -> jax.Array:
    for number in index:
        stack = jax.lax.dynamic_index_in_dim(stack, number, keepdims=False)
    return stack


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
