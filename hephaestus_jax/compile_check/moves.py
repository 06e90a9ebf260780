"""What the collectives of a step move: weights, gradients, activations or sums, told by shape and origin."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from hephaestus_jax.compile_check.costs import Collective
from hephaestus_jax.compile_check.hlo import Array
from hephaestus_jax.losses import stretch
from hephaestus_jax.sharding import Partitioning

SMALL = 1 << 20
"""Bytes up to which what is no parameter is called sums: norms, losses, counts."""

Names = Mapping[tuple[int, ...], str]


@dataclass(frozen=True)
class Move:
    """Collectives alike, in one step on one device.

    Attributes:
        kind: of the collective.
        axes: mesh axes that it goes over.
        what: "weights", "gradients", with names where the shape tells; "rows" (integers: tokens, segments),
            "activations", "sums".
        origin: the JAX operation, shortened.
        shape: of one of them.
        count: executions.
        payload: bytes of all of them (`Collective.payload`).
        sent: bytes that a device sends, as a ring does it.
    """

    kind: str
    axes: tuple[str, ...]
    what: str
    origin: str
    shape: str
    count: int
    payload: int
    sent: float


def moves(
    collectives: Iterable[Collective],
    mesh: Mapping[str, int],
    params: Any,
    params_axes: Any,
    partitioning: Partitioning,
) -> tuple[Move, ...]:
    """The collectives by kind, axes and what they move, the most bytes first.

    Args:
        collectives: of one step.
        mesh: axis -> size, in the mesh's order.
        params, params_axes: shapes of the parameters and their logical axes.
        partitioning: tells how they are divided.
    """
    names = parameter_shapes(params, params_axes, partitioning)
    found: dict[tuple[str, ...], Move] = {}
    for x in collectives:
        axes = x.groups.axes(mesh)
        if x.groups.size < 2:
            continue
        for i, array in enumerate(x.arrays):
            gathers = x.kind == "all-reduce" and i < len(x.pieces) and x.pieces[i]
            what = classify(x, array, names, gathers)
            key = (x.kind, "+".join(axes), what, _origin(x.op_name))
            share = array.bytes / x.payload if x.payload else 0.0
            old = found.get(key, Move(x.kind, axes, what, _origin(x.op_name), str(array), 0, 0, 0.0))
            found[key] = Move(
                old.kind, old.axes, old.what, old.origin, old.shape, old.count + x.times,
                old.payload + x.times * array.bytes, old.sent + x.times * x.sent * share,
            )  # fmt: skip
    return tuple(sorted(found.values(), key=lambda move: -move.sent))


def parameter_shapes(params: Any, params_axes: Any, partitioning: Partitioning) -> dict[tuple[int, ...], str]:
    """Every shape in which a parameter, or one layer of it, may be on a device, whole or divided -> its name."""
    names: dict[tuple[int, ...], set[str]] = {}
    is_axes = lambda x: isinstance(x, tuple)  # noqa: E731
    leaves = jax.tree_util.tree_leaves_with_path(params)
    all_axes = jax.tree.leaves(params_axes, is_leaf=is_axes)
    for (path, leaf), axes in zip(leaves, all_axes, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        name = name.removeprefix("layers/").removesuffix("/kernel").removesuffix("/embedding")
        for drop in {0, int(axes[:1] == ("layers",))}:
            for shape in _divided(leaf.shape[drop:], axes[drop:], partitioning):
                names.setdefault(shape, set()).add(name)
        if "vocabulary" in axes:  # whose gradient is summed in stretches
            place, parts = axes.index("vocabulary"), partitioning.split("vocabulary")
            here = leaf.shape[place] // math.prod(partitioning.mesh.shape[axis] for axis in parts)
            sizes, whole = list(leaf.shape), list(axes)
            sizes[place], whole[place] = stretch(here), None
            for shape in _divided(sizes, whole, partitioning):
                names.setdefault(shape, set()).add(name)
    return {shape: ", ".join(sorted(found)) for shape, found in names.items()}


def _divided(shape: Sequence[int], axes: Sequence[str | None], partitioning: Partitioning) -> set[tuple[int, ...]]:
    """Canonical shapes with each dimension divided over any part of its mesh axes, head dimensions joined or not."""
    choices = []
    for size, name in zip(shape, axes, strict=True):
        divisors = {1}
        for mesh_axis in partitioning.split(name):
            divisors |= {divisor * partitioning.mesh.shape[mesh_axis] for divisor in divisors}
        choices.append({size // divisor for divisor in divisors if size % divisor == 0})
    found = set()
    heads = {i for i, name in enumerate(axes) if name in ("heads", "kv_heads", "head_dim")}
    for sizes in itertools.product(*choices):
        found.add(canonical(sizes))
        if len(heads) == 2:
            joined = [size for i, size in enumerate(sizes) if i not in heads]
            joined.append(sizes[min(heads)] * sizes[max(heads)])
            found.add(canonical(joined))
    return found


def canonical(shape: Iterable[int]) -> tuple[int, ...]:
    """The dimensions of a shape without those of 1, in order of size: layouts and transposes do not matter."""
    return tuple(sorted(size for size in shape if size != 1))


def classify(collective: Collective, array: Array, names: Names, gathers: bool = False) -> str:
    """What an array of a collective is: told by its shape, except where the kind says that it cannot be a parameter.

    A product with weights that are gathered piece by piece while it is computed, or with gradients that are reduced
    so, is a loop of permutations; the compiler names its body after the one or the other. Short pieces are gathered by
    a sum over arrays that are zero elsewhere (`gathers`).
    """
    name = names.get(canonical(array.shape))
    if name and collective.kind != "all-to-all" and array.size > 1:
        summed = (collective.kind in ("all-reduce", "reduce-scatter") and not gathers) or "_rs" in collective.inside
        return f"{'gradients' if summed else 'weights'}: {name}"
    if collective.kind != "all-to-all" and array.bytes <= SMALL:
        return "sums"
    return "rows" if array.dtype[0] in "su" else "activations"


def _origin(op_name: str) -> str:
    """The JAX operation without what every one has: where in the step it is, and what it is."""
    backward = "backward" if "transpose(jvp" in op_name else "forward" if "jvp" in op_name else ""
    again = "remat" if "rematted" in op_name else ""
    inside = "layer" if "/while/" in op_name else ""
    last = re.sub(r"\[.*", "", op_name).rpartition("/")[2]
    return " ".join(word for word in (backward, again, inside, last) if word)
