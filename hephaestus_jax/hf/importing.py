"""Importing the parameters of a Hugging Face model: streamed from its files into arrays of any sharding.

Tensor after tensor is read in pieces of a few MiB, checked, cast, rearranged and written to its place. On CPUs that
place is the array itself, whose memory JAX takes over; elsewhere it is one layer's worth of host memory, which is
copied into the stacked array on the device. Each process reads the rows that its devices hold.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.checkpoints.processes import together
from hephaestus_jax.checkpoints.storage import named_leaves
from hephaestus_jax.distributed import is_main
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf import llama
from hephaestus_jax.hf.checkpoint import Checkpoint, check_copies, open_checkpoint
from hephaestus_jax.hf.layout import Megabytes, cast, holds, in_threads, is_finite, rearranged, row_chunks, scratch
from hephaestus_jax.hf.safetensors_files import DTYPES, Tensor, read_rows

_ALIGNMENT = 64  # of host memory that JAX takes over without a copy

Index = tuple[slice, ...]


def import_parameters(directory: str | os.PathLike, abstract_params: Any, progress: bool = True) -> Any:
    """The parameters of the model in `directory`, in the tree, dtypes and shardings of `abstract_params`.

    Values are the file's: exact in a dtype as wide as the file's, rounded to nearest even in a narrower one (see
    `narrowed`). All processes of a run call it together.

    Args:
        abstract_params: tree of `jax.ShapeDtypeStruct`; without a sharding, an array goes to the first device.
        progress: whether progress is shown.

    Raises:
        UserError: a file, tensor or the config is not as it must be (see `open_checkpoint`), a tensor holds NaN or
            infinity, or the arrays asked for are not those of this model.
    """
    by_path = named_leaves(abstract_params)

    def read_all() -> dict[str, jax.Array]:
        checkpoint = open_checkpoint(directory)
        weights = {weight.path: weight for weight in llama.weights(checkpoint.model)}
        _check_wanted(by_path, weights, checkpoint)
        check_copies(checkpoint)
        with Megabytes("import", checkpoint.weight_bytes, progress and is_main()) as meter:
            return {path: _import_array(checkpoint, weights[path], leaf, meter) for path, leaf in by_path.items()}

    arrays = together(read_all)
    return jax.tree.unflatten(jax.tree.structure(abstract_params), [arrays[path] for path in by_path])


def narrowed(checkpoint: Checkpoint, abstract_params: Any) -> list[str]:
    """Tensors whose values would be rounded to fit the dtypes asked for, as in "lm_head.weight: F32 to bfloat16"."""
    wanted = named_leaves(abstract_params)
    found = []
    for name, (weight, _) in llama.tensor_places(checkpoint.model).items():
        stored, asked = DTYPES[checkpoint.tensors[name].dtype], np.dtype(wanted[weight.path].dtype)
        if not holds(asked, stored):
            found.append(f"{name}: {checkpoint.tensors[name].dtype} to {asked.name}")
    return found


def stored_dtypes(checkpoint: Checkpoint) -> dict[str, str]:
    """Parameter path -> the narrowest dtype that holds all its tensors exactly, such as "bfloat16"."""
    found: dict[str, np.dtype] = {}
    for name, (weight, _) in llama.tensor_places(checkpoint.model).items():
        stored = DTYPES[checkpoint.tensors[name].dtype]
        same = found.setdefault(weight.path, stored) == stored
        found[weight.path] = stored if same else np.dtype(np.float32)
    return {path: dtype.name for path, dtype in found.items()}


def _check_wanted(wanted: Mapping[str, Any], weights: Mapping[str, llama.Weight], checkpoint: Checkpoint) -> None:
    """Raises unless exactly the model's arrays are asked for."""
    folder, model = checkpoint.tensors.directory, checkpoint.model
    for path in sorted(weights.keys() ^ wanted.keys()):
        which = "the model in {} has no parameter {}" if path in wanted else "the model in {} has parameter {} as well"
        raise UserError(
            f"{which.format(folder, path)}; leave the model out of the configuration, to take it from there"
        )
    for path, leaf in wanted.items():
        shape = weights[path].our_shape(model)
        if tuple(leaf.shape) != shape:
            raise UserError(
                f"parameter {path} has shape {list(shape)} in {folder}, {list(leaf.shape)} is asked for; leave the"
                " model out of the configuration, to take it from there"
            )


def _import_array(checkpoint: Checkpoint, weight: llama.Weight, wanted: Any, meter: Megabytes) -> jax.Array:
    sharding = wanted.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shards = _shards(sharding, wanted.shape, weight.stacked)
    on_host = all(device.platform == "cpu" for shard in shards for device in shard.devices)
    array: _Array = (_HostArray if on_host else _DeviceArray)(shards, np.dtype(wanted.dtype), weight.stacked)
    for name, layer in weight.tensors(checkpoint.model):
        here = [shard for shard in shards if layer is None or layer in shard.layers]
        _fill(checkpoint, weight, checkpoint.tensors[name], [array.place(shard, layer) for shard in here], here, meter)
        array.filled(layer, here)
    by_device = array.finish()
    return jax.make_array_from_single_device_arrays(tuple(wanted.shape), sharding, by_device)


def _fill(
    checkpoint: Checkpoint,
    weight: llama.Weight,
    tensor: Tensor,
    places: Sequence[np.ndarray],
    shards: Sequence[_Shard],
    meter: Megabytes,
) -> None:
    """Reads one tensor into its places, each a shard's part of one layer in our order of axes."""
    if not shards:
        return
    split = weight.split_shape(checkpoint.model)
    row_axis = weight.to_theirs[0]  # where the tensor's first axis is among ours
    held = [shard.index[row_axis] for shard in shards]
    rows = range(min(part.start for part in held), max(part.stop for part in held))
    file_rows = tensor.shape[0] // split[0]

    def fill_rows(chunk: range) -> int:
        shape = (len(chunk) * file_rows, *tensor.shape[1:])
        stored = scratch("stored", shape, DTYPES[tensor.dtype])
        read_rows(tensor, chunk.start * file_rows, stored)
        values = _checked(stored, places[0].dtype, tensor).reshape(len(chunk), *split[1:])
        values = rearranged(values, weight.to_ours)
        for shard, part, place in zip(shards, held, places, strict=True):
            first, last = max(chunk.start, part.start), min(chunk.stop, part.stop)
            if first < last:
                source, target = list(shard.index), [slice(None)] * place.ndim
                source[row_axis] = slice(first - chunk.start, last - chunk.start)
                target[row_axis] = slice(first - part.start, last - part.start)
                place[tuple(target)] = values[tuple(source)]
        return stored.nbytes

    for count in in_threads(fill_rows, row_chunks(split, DTYPES[tensor.dtype].itemsize, rows)):
        meter.add(count)


def _checked(values: np.ndarray, dtype: np.dtype, tensor: Tensor) -> np.ndarray:
    """The values in `dtype`, in memory of this thread."""
    if not is_finite(values):
        raise UserError(f"{tensor.place} holds NaN or infinity; download it again, or take an earlier checkpoint")
    converted = cast(values, dtype, scratch("cast", values.shape, dtype))
    if not holds(dtype, values.dtype) and not is_finite(converted):
        raise UserError(f"{tensor.place} holds numbers too large for {dtype.name}; import it as float32")
    return converted


# ---- where values go


@dataclass(frozen=True)
class _Shard:
    """A part of an array that devices of this process hold: its layers and, of the other axes, its slices."""

    layers: range
    index: Index
    devices: tuple[jax.Device, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one layer."""
        return tuple(part.stop - part.start for part in self.index)


def _shards(sharding: jax.sharding.Sharding, shape: tuple[int, ...], stacked: bool) -> list[_Shard]:
    """The distinct parts that this process holds."""
    devices: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(tuple(shape)).items():
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index or (), shape, strict=True))
        devices.setdefault(bounds, []).append(device)
    found = []
    for bounds, holders in devices.items():
        layers, inner = (range(*bounds[0]), bounds[1:]) if stacked else (range(1), bounds)
        found.append(_Shard(layers, tuple(slice(*bound) for bound in inner), tuple(holders)))
    return found


class _Array(Protocol):
    """An array that is being filled, layer after layer (`None` where there are no layers)."""

    def place(self, shard: _Shard, layer: int | None) -> np.ndarray:
        """Host memory for one layer of a shard."""

    def filled(self, layer: int | None, shards: Sequence[_Shard]) -> None:
        """Says that the places of that layer have been written."""

    def finish(self) -> list[jax.Array]:
        """The array's parts, one per device."""


class _HostArray:
    """For CPUs: the whole of each shard in host memory, which becomes the array without a copy."""

    def __init__(self, shards: Sequence[_Shard], dtype: np.dtype, stacked: bool) -> None:
        self._shards, self._stacked = shards, stacked
        self._memory = [_aligned((len(shard.layers), *shard.shape), dtype) for shard in shards]

    def place(self, shard: _Shard, layer: int | None) -> np.ndarray:
        return self._memory[self._shards.index(shard)][0 if layer is None else layer - shard.layers.start]

    def filled(self, layer: int | None, shards: Sequence[_Shard]) -> None:
        pass

    def finish(self) -> list[jax.Array]:
        parts = [memory if self._stacked else memory[0] for memory in self._memory]
        return [
            jax.device_put(part, device)
            for shard, part in zip(self._shards, parts, strict=True)
            for device in shard.devices
        ]


class _DeviceArray:
    """For accelerators: one layer of each shard in host memory, copied into the stack on each device."""

    def __init__(self, shards: Sequence[_Shard], dtype: np.dtype, stacked: bool) -> None:
        self._shards, self._stacked = shards, stacked
        self._memory = [_aligned(shard.shape, dtype) for shard in shards]
        self._parts: dict[jax.Device, jax.Array] = {}
        if stacked:
            for shard in shards:
                for device in shard.devices:
                    self._parts[device] = jnp.zeros((len(shard.layers), *shard.shape), dtype, device=device)

    def place(self, shard: _Shard, layer: int | None) -> np.ndarray:
        return self._memory[self._shards.index(shard)]

    def filled(self, layer: int | None, shards: Sequence[_Shard]) -> None:
        for shard in shards:
            for device in shard.devices:
                values = jax.device_put(self.place(shard, layer), device)
                if layer is None:
                    self._parts[device] = values
                else:
                    number = layer - shard.layers.start
                    self._parts[device] = _with_layer(self._parts[device], values, number)
                # The memory is used again. Not `values`: they may be that memory, which the update still reads.
                self._parts[device].block_until_ready()

    def finish(self) -> list[jax.Array]:
        return [self._parts[device] for shard in self._shards for device in shard.devices]


@functools.partial(jax.jit, donate_argnums=0)
def _with_layer(stack: jax.Array, values: jax.Array, number: int) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(stack, values, number, 0)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
