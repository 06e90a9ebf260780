"""Importing the parameters of a Hugging Face model: streamed from its files into arrays of any sharding.

The files are read from first to last byte in pieces of a few MiB, by several threads; each piece is checked, cast,
rearranged and written to its place (`destinations`). A process reads those bytes that its devices hold (`slices`), and
of host memory, beyond the arrays, what the threads work on and, on accelerators, two tensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from hephaestus_jax.checkpoints.processes import together
from hephaestus_jax.checkpoints.storage import named_leaves
from hephaestus_jax.distributed import is_main
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.checkpoint import Checkpoint, check_copies, open_checkpoint
from hephaestus_jax.hf.destinations import Destination, DeviceArray, HostArray, Part, parts_of
from hephaestus_jax.hf.families.weights import Index, Weight
from hephaestus_jax.hf.layout import Megabytes, cast, holds, in_threads, is_finite, rearranged, scratch
from hephaestus_jax.hf.safetensors_files import DTYPES, Tensor
from hephaestus_jax.hf.slices import Box, box_size, chunks_of_boxes, clipped, read_boxes


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
    return together(lambda: import_own_parts(directory, abstract_params, progress))


def import_own_parts(directory: str | os.PathLike, abstract_params: Any, progress: bool = True) -> Any:
    """What this process does in `import_parameters`; its errors stay its own."""
    wanted = named_leaves(abstract_params)
    checkpoint = open_checkpoint(directory)
    weights = {weight.path: weight for weight in checkpoint.family.weights(checkpoint.model)}
    _check_wanted(wanted, weights, checkpoint)
    check_copies(checkpoint, jax.process_index(), jax.process_count())
    shardings = {path: _sharding(leaf) for path, leaf in wanted.items()}
    filled = {path: _destination(shardings[path], leaf, len(weights[path].leading)) for path, leaf in wanted.items()}
    arrivals = list(_arrivals(checkpoint, filled))
    with Megabytes("import", sum(arrival.bytes for arrival in arrivals), progress and is_main()) as meter:
        for piece, count in in_threads(_read, _pieces(arrivals)):
            meter.add(count)
            piece.finish()
    arrays = [
        jax.make_array_from_single_device_arrays(tuple(leaf.shape), shardings[path], filled[path].finish())
        for path, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(abstract_params), arrays)


def narrowed(checkpoint: Checkpoint, abstract_params: Any) -> list[str]:
    """Tensors whose values would be rounded to fit the dtypes asked for, as in "lm_head.weight: F32 to bfloat16"."""
    wanted = named_leaves(abstract_params)
    found = []
    for name, (weight, _) in checkpoint.family.tensor_places(checkpoint.model).items():
        stored, asked = DTYPES[checkpoint.tensors[name].dtype], np.dtype(wanted[weight.path].dtype)
        if not holds(asked, stored):
            found.append(f"{name}: {checkpoint.tensors[name].dtype} to {asked.name}")
    return found


def stored_dtypes(checkpoint: Checkpoint) -> dict[str, str]:
    """Parameter path -> the narrowest dtype that holds all its tensors exactly, such as "bfloat16"."""
    found: dict[str, np.dtype] = {}
    for name, (weight, _) in checkpoint.family.tensor_places(checkpoint.model).items():
        stored = DTYPES[checkpoint.tensors[name].dtype]
        same = found.setdefault(weight.path, stored) == stored
        found[weight.path] = stored if same else np.dtype(np.float32)
    return {path: dtype.name for path, dtype in found.items()}


def _check_wanted(wanted: Mapping[str, Any], weights: Mapping[str, Weight], checkpoint: Checkpoint) -> None:
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


# ---- what is read


@dataclass(frozen=True)
class _Arrival:
    """A tensor that this process needs some of.

    Attributes:
        tensor: in its file.
        weight: the parameter that it is, or is one of.
        shape: of the tensor, with axes taken apart.
        index: where in the parameter it lies.
        array: the parameter.
        parts: of the parameter, those that it belongs to.
        boxes: what of the tensor, with axes taken apart, each of them holds.
    """

    tensor: Tensor
    weight: Weight
    shape: tuple[int, ...]
    index: Index
    array: Destination
    parts: Sequence[Part]
    boxes: Sequence[Box]

    @property
    def bytes(self) -> int:
        """Of the tensor's, those that are needed; twice where two of the parts need them."""
        return sum(map(box_size, self.boxes)) * DTYPES[self.tensor.dtype].itemsize


@dataclass(frozen=True)
class _Piece:
    """Some rows of an arriving tensor, and where they go."""

    arrival: _Arrival
    places: Sequence[np.ndarray]
    rows: range
    is_last: bool

    def finish(self) -> None:
        """Says that the tensor has arrived, if this was its last piece."""
        if self.is_last:
            self.arrival.array.written(self.arrival.index, self.arrival.parts, self.places)


def _sharding(wanted: Any) -> jax.sharding.Sharding:
    return wanted.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _destination(sharding: jax.sharding.Sharding, wanted: Any, leading: int) -> Destination:
    parts = parts_of(sharding, tuple(wanted.shape), leading)
    on_host = all(device.platform == "cpu" for part in parts for device in part.devices)
    return (HostArray if on_host else DeviceArray)(parts, np.dtype(wanted.dtype))


def _arrivals(checkpoint: Checkpoint, arrays: Mapping[str, Destination]) -> Iterator[_Arrival]:
    """The tensors that this process needs some of, in the order of files and of bytes in them."""
    places = checkpoint.family.tensor_places(checkpoint.model)
    for name, tensor in checkpoint.tensors.items():
        if name not in places:  # a copy, or a table
            continue
        weight, index = places[name]
        array = arrays[weight.path]
        if parts := [part for part in array.parts if part.holds(index)]:
            boxes = [tuple(part.box[axis] for axis in weight.to_theirs) for part in parts]
            yield _Arrival(tensor, weight, weight.split_shape(checkpoint.model), index, array, parts, boxes)


def _pieces(arrivals: Sequence[_Arrival]) -> Iterator[_Piece]:
    for arrival in arrivals:
        itemsize = DTYPES[arrival.tensor.dtype].itemsize
        chunks = list(chunks_of_boxes(arrival.shape, itemsize, arrival.boxes))
        places = arrival.array.places(arrival.index, arrival.parts)
        for number, rows in enumerate(chunks, 1):
            yield _Piece(arrival, places, rows, number == len(chunks))


def _read(piece: _Piece) -> tuple[_Piece, int]:
    """Reads a piece into its places; the piece itself, and how many bytes they took of it."""
    tensor, weight = piece.arrival.tensor, piece.arrival.weight
    boxes = [clipped(box, piece.rows) for box in piece.arrival.boxes]
    stored = read_boxes(tensor, piece.arrival.shape, piece.rows, boxes)
    row_axis = weight.to_theirs[0]  # where the tensor's first axis is among ours
    count = 0
    for box, whole, place in zip(boxes, piece.arrival.boxes, piece.places, strict=True):
        if not box_size(box):
            continue
        values = _together(stored[tuple(slice(axis.start, axis.stop) for axis in box)])
        values = rearranged(_checked(values, place.dtype, tensor), weight.to_ours)
        target = [slice(None)] * place.ndim
        first = piece.rows.start + box[0].start - whole[0].start
        target[row_axis] = slice(first, first + len(box[0]))
        place[tuple(target)] = values
        count += box_size(box) * stored.itemsize
    return piece, count


def _together(values: np.ndarray) -> np.ndarray:
    """The values in contiguous memory, this thread's unless they are so already."""
    if values.flags.c_contiguous:
        return values
    near = scratch("near", values.shape, values.dtype)
    near[...] = values
    return near


def _checked(values: np.ndarray, dtype: np.dtype, tensor: Tensor) -> np.ndarray:
    """The values in `dtype`, in memory of this thread."""
    if not is_finite(values):
        raise UserError(f"{tensor.place} holds NaN or infinity; download it again, or take an earlier checkpoint")
    converted = cast(values, dtype, scratch("cast", values.shape, dtype))
    if not holds(dtype, values.dtype) and not is_finite(converted):
        raise UserError(f"{tensor.place} holds numbers too large for {dtype.name}; import it as float32")
    return converted
