"""Which device holds what: the mesh, the one table from logical to mesh axes, and the shardings that follow from it.

    mesh = make_mesh(config.mesh)
    partitioning = Partitioning(mesh, config.model)
    shardings = partitioning.state(abstract_state, parameter_axes(config.model))
    partitioning.check(abstract_state, parameter_axes(config.model))
    with partitioning:                                       # inside the function that is traced
        x = constrain(x, ("batch", "length", "embed_activation"))

The compiler inserts the collectives (GSPMD; Xu et al. 2021, arXiv:2105.04663) from the shardings of the inputs and
from `constrain`. Every axis of an array has a logical name, and `TABLE` says over which mesh axes that name is split
and over which an array that has it is meant to be whole. What the table does not say is an error, never a silent copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from hephaestus_jax.config import LoraConfig, MeshConfig, ModelConfig
from hephaestus_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "expert", "context", "tensor")
"""From the slowest to the fastest varying: devices next to each other share `tensor`, which communicates most."""

ROW_AXES = ("batch", "replica_batch", "replica_embed", "length", "row", "row_part")
"""Logical axes of the rows and their activations, which are split though no parameter has them."""

_OF_EXPERTS, _OF_FEED_FORWARD = ("experts", "expert_embed", "expert_mlp", "router"), ("mlp",)
"""Logical axes that only parameters of models with experts, and only those of models without them, have."""

LARGE_BYTES = 1 << 20
"""An array that takes more than this on a device must not be replicated unless the table says so."""

Axes = tuple[str | None, ...]
KeyPath = tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """What the mesh does to one logical axis.

    Attributes:
        split: mesh axes that the axis is divided over.
        whole: mesh axes over which an array that has this axis is replicated on purpose.
        fewer_is_whole: an axis shorter than the product of `split` is replicated over it on purpose.
        mend: what to change when the size does not divide.
    """

    split: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    fewer_is_whole: bool = False
    mend: str = ""


TABLE: Mapping[str, Rule] = {
    # Parameters. Every matrix has an `embed` axis, split over all devices that hold different tokens of one replica of
    # the parameters; each data-parallel replica keeps all of it.
    "embed": Rule(
        ("fsdp", "expert", "context"),
        whole=("data",),
        mend="choose fsdp, expert and context so that their product divides ModelConfig.embed_dim",
    ),
    "norm": Rule(whole=MESH_AXES),  # scales: a few kB a layer, wanted by every device
    "layers": Rule(),  # scanned over: every device computes every layer
    "experts": Rule(("expert",), mend="choose expert so that it divides ExpertsConfig.num_experts"),
    "expert_embed": Rule(  # `embed` where the experts themselves are split over `expert`
        ("fsdp", "context"),
        whole=("data",),
        mend="choose fsdp and context so that their product divides ModelConfig.embed_dim",
    ),
    "expert_mlp": Rule(("tensor",), mend="choose tensor so that it divides ExpertsConfig.mlp_dim"),
    # The router's outputs: every device routes its tokens among all experts.
    "router": Rule(whole=("tensor",)),
    # Parameters and activations.
    "vocabulary": Rule(("tensor",), mend="pad ModelConfig.vocab_size to {above}, a multiple of {parts}"),
    "mlp": Rule(("tensor",), mend="choose tensor so that it divides ModelConfig.mlp_dim"),
    "heads": Rule(("tensor",), mend="choose tensor so that it divides ModelConfig.num_heads"),
    # Grouped-query attention with more tensor devices than key/value heads: each device computes all of them.
    "kv_heads": Rule(
        ("tensor",), fewer_is_whole=True, mend="choose tensor so that it divides ModelConfig.num_kv_heads, or above it"
    ),
    "head_dim": Rule(),
    "head_vector": Rule(whole=MESH_AXES),  # biases and norms of heads: a few kB a layer, like other norms
    "lora_rank": Rule(whole=MESH_AXES),  # adapters: the other axis of a factor is split as the kernel's
    # Activations.
    "batch": Rule(("data", "fsdp", "expert"), mend="make the rows of a microbatch a multiple of {parts}"),
    # The rows of a whole data-parallel replica: an activation split like `embed` cannot have its rows split over fsdp.
    "replica_batch": Rule(("data",), mend="make the rows of a microbatch a multiple of {parts}"),
    # Between the two, where `context` has gone over from `embed` to the tokens of a row and the others have not yet.
    "replica_embed": Rule(("fsdp", "expert"), mend="choose fsdp and expert so that they divide ModelConfig.embed_dim"),
    # A row's tokens, in the order of `model.context_attention.row_order`; as they come from the loader, in `row`, each
    # device has all of its rows.
    "length": Rule(("context",), mend="choose context so that twice its size divides the length of a row"),
    "row": Rule(whole=("context",)),
    # Rows cut into the parts that the devices of `context` hold, all parts of a kind together.
    "row_part": Rule(("context", "data", "fsdp", "expert"), mend="make the rows of a microbatch a multiple of {parts}"),
    "embed_activation": Rule(),
}
"""Logical axis -> rule. The only place that says how anything is divided."""


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices (of all processes), or of `devices`, with axes `MESH_AXES`.

    Over several slices, what lies between devices of different slices is the outermost part of `data`, and of `fsdp`
    where `data` is smaller than the number of slices: the axes that communicate least.

    Raises:
        UserError: the sizes do not multiply to the number of devices, or do not divide over the slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = dict(config.axes)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    words = " × ".join(f"{axis}={size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(devices) % fixed:
        raise UserError(
            f"mesh {words} does not divide {len(devices)} devices; choose sizes whose product divides {len(devices)}"
        )
    if free:
        sizes[free[0]] = len(devices) // fixed
    elif fixed != len(devices):
        raise UserError(
            f"mesh {words} covers {fixed} of {len(devices)} devices; set one of the sizes to -1 to take the rest"
        )
    shape, types = tuple(sizes.values()), (AxisType.Auto,) * len(sizes)
    if config.slices == 1:
        slices = {getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}
        if len(slices) > 1:
            raise UserError(f"the devices lie on {len(slices)} slices; set MeshConfig.slices to {len(slices)}")
        # A side of the torus may serve two axes: 512 × 4 on 8 × 16 × 16 chips.
        arranged = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(arranged, MESH_AXES, axis_types=types)
    return Mesh(arrange_slices(sizes, config.slices, devices), MESH_AXES, axis_types=types)


def arrange_slices(sizes: Mapping[str, int], slices: int, devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices of several slices in the shape of the mesh; of several processes, where devices know of no slices.

    Raises:
        UserError: there are not as many slices, or `data` and `fsdp` do not divide over them.
    """
    over_data = math.gcd(sizes["data"], slices)
    over_fsdp = slices // over_data
    if sizes["fsdp"] % over_fsdp:
        raise UserError(
            f"mesh data={sizes['data']} × fsdp={sizes['fsdp']} does not divide over {slices} slices; choose data, or"
            f" data and fsdp together, as a multiple of MeshConfig.slices"
        )
    of_slices = len({getattr(device, "slice_index", 0) for device in devices}) > 1
    granules = {device.slice_index if of_slices else device.process_index for device in devices}
    if len(granules) != slices:
        raise UserError(
            f"MeshConfig.slices is {slices}, and the devices lie on {len(granules)}"
            f" {'slices' if of_slices else 'processes'}; set it to {len(granules) if of_slices else 1}"
        )
    between = {"data": over_data, "fsdp": over_fsdp}
    within = [size // between.get(axis, 1) for axis, size in sizes.items()]
    return mesh_utils.create_hybrid_device_mesh(
        within,
        [between.get(axis, 1) for axis in sizes],
        devices,
        process_is_granule=not of_slices,
        allow_split_physical_axes=True,
    )


class Partitioning:
    """The shardings of one model on one mesh; as a context manager, it makes `constrain` act on what is traced inside.

    Args:
        mesh: from `make_mesh`; an abstract one will do where nothing is placed.
        model: gives the sizes of the logical axes.
        table: logical axis -> rule.
        lora: adapters of the model.

    Raises:
        UserError: a size of the model does not divide over the mesh.
    """

    def __init__(
        self,
        mesh: Mesh | AbstractMesh,
        model: ModelConfig,
        table: Mapping[str, Rule] = TABLE,
        lora: LoraConfig | None = None,
    ) -> None:
        self.mesh = mesh
        self.table = table
        self.sizes = {
            "layers": model.num_layers,
            "vocabulary": model.vocab_size,
            "embed": model.embed_dim,
            "norm": model.embed_dim,
            "heads": model.num_heads,
            "kv_heads": model.num_kv_heads,
            "head_dim": model.head_dim,
            "head_vector": model.head_dim,
        }
        if model.experts is None:
            self.sizes["mlp"] = model.mlp_dim
        else:
            experts = model.experts
            self.sizes |= {"experts": experts.num_experts, "router": experts.num_experts}
            self.sizes |= {"expert_embed": model.embed_dim, "expert_mlp": experts.mlp_dim}
        self._absent: tuple[str, ...] = _OF_EXPERTS if model.experts is None else _OF_FEED_FORWARD
        if not model.qkv_bias and model.query_key_norm == "none":
            self._absent += ("head_vector",)
        if lora is None:
            self._absent += ("lora_rank",)
        else:
            self.sizes["lora_rank"] = lora.rank
        self._entered: list[ExitStack] = []
        for name, size in self.sizes.items():
            self._require_divides(name, size, f"model {model.name!r}")

    def split(self, name: str | None) -> tuple[str, ...]:
        """Mesh axes that a logical axis of this model is divided over."""
        if name is None:
            return ()
        if name not in self.table:
            raise ValueError(f"logical axis {name!r} is not in the table; known: {', '.join(self.table)}")
        rule = self.table[name]
        fewer = rule.fewer_is_whole and self.sizes[name] < self._devices(rule.split)
        return () if fewer else rule.split

    def spec(self, axes: Axes) -> PartitionSpec:
        """The mesh axes of each dimension; None stands for a dimension that is not split."""
        entries = [self.split(name) for name in axes]
        return PartitionSpec(*(entry[0] if len(entry) == 1 else entry or None for entry in entries))

    def sharding(self, axes: Axes) -> NamedSharding:
        """The sharding of an array with these logical axes; `()` is replicated."""
        return NamedSharding(self.mesh, self.spec(axes))

    @property
    def batch(self) -> NamedSharding:
        """The sharding of rows [B, L] as they come: a device has the whole of its rows."""
        return self.sharding(("batch", "row"))

    @property
    def context(self) -> int:
        """Parts that the tokens of a row are divided into."""
        return self._devices(self.split("length"))

    @property
    def row_shards(self) -> int:
        """Parts that the rows of a batch are divided into."""
        return self._devices(self.split("batch"))

    def tree(self, axes_tree: Any) -> Any:
        """Shardings of a tree of logical axes (`parameter_axes`)."""
        return jax.tree.map(self.sharding, axes_tree, is_leaf=_is_axes)

    def state(self, abstract_state: Any, params_axes: Any) -> Any:
        """Shardings of a whole training state.

        An array belongs to the parameter whose path its own ends with. Of the parameter's shape (itself, its moments),
        it is sharded like it; of that shape without one dimension (Adafactor's factored moments), by the axes that are
        left. Everything else is replicated.

        Args:
            abstract_state: tree of arrays or `jax.ShapeDtypeStruct`, with the parameters' tree anywhere inside it.
            params_axes: the parameters' logical axes.
        """
        parameters = _by_path(params_axes)
        return jax.tree_util.tree_map_with_path(
            lambda path, x: self.sharding(self._place(path, x, parameters).axes), abstract_state
        )

    def check(self, abstract_state: Any, params_axes: Any, large_bytes: int = LARGE_BYTES) -> None:
        """Whether every mesh axis is used, and every large array split, as the table says.

        Args:
            abstract_state, params_axes: as for `state`.
            large_bytes: per device; smaller arrays may be replicated without a word.

        Raises:
            UserError: a mesh axis larger than 1 divides nothing, a rule for one is of a logical axis that neither
                parameters nor rows have, or a large array is replicated over one without the table saying so.
        """
        parameters = _by_path(params_axes)
        carried = {name for axes in parameters.values() for name in axes if name} | set(ROW_AXES)
        self._check_rules(carried)
        for path, x in jax.tree_util.tree_leaves_with_path(abstract_state):
            self._check_array(path, x, self._place(path, x, parameters), large_bytes)

    def describe(self) -> list[str]:
        """The table as it applies here, a line for each logical axis, for `--dry_run`."""
        lines = ["mesh " + " × ".join(f"{axis}={size}" for axis, size in self.mesh.shape.items())]
        for name, rule in self.table.items():
            if name in self._absent:
                continue
            size, split = self.sizes.get(name), self._really(self.split(name))
            words = f"split over {' × '.join(split)}" if split else "whole"
            if not split and (fewer := self._really(rule.split)):
                words = f"whole: fewer than the {self._devices(fewer)} devices of {' × '.join(fewer)}"
            elif size is not None and split:
                words += f": {size // self._devices(split)} on each of {self._devices(split)}"
            if split and (whole := self._really(rule.whole)):
                words += f", whole over {' × '.join(whole)}"
            lines.append(f"  {name}{'' if size is None else f' ({size})'}: {words}")
        return lines

    def __enter__(self) -> Partitioning:
        stack = ExitStack()
        # jax's own tracing caches know the abstract mesh, not `_ACTIVE`: without it a function that was traced for
        # another mesh, or for none, would be taken from the cache with that mesh's constraints.
        stack.enter_context(jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh))
        stack.callback(_ACTIVE.reset, _ACTIVE.set(self))
        self._entered.append(stack)
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.pop().close()

    def constrain(self, x: jax.Array, axes: Axes) -> jax.Array:
        """`x` under the sharding of its logical axes; see `constrain`."""
        if len(axes) != x.ndim:
            raise ValueError(f"{len(axes)} logical axes {axes} for an array of shape {x.shape}")
        for name, size in zip(axes, x.shape, strict=True):
            self._require_divides(name, size, f"an activation with axes {axes}")
        return jax.lax.with_sharding_constraint(x, self.sharding(axes))

    def _devices(self, mesh_axes: Iterable[str]) -> int:
        return math.prod(self.mesh.shape[axis] for axis in mesh_axes)

    def _really(self, mesh_axes: Iterable[str]) -> list[str]:
        """The mesh axes of more than one device."""
        return [axis for axis in mesh_axes if self.mesh.shape[axis] > 1]

    def _require_divides(self, name: str | None, size: int, where: str) -> None:
        parts = self._devices(self.split(name))
        if name is None or size % parts == 0:
            return
        words = " × ".join(f"{axis}={self.mesh.shape[axis]}" for axis in self._really(self.split(name)))
        mend = self.table[name].mend.format(parts=parts, above=(size // parts + 1) * parts)
        raise UserError(f"{where}: {name} of {size} does not divide over mesh axes {words}; {mend}")

    def _place(self, path: KeyPath, x: Any, parameters: Mapping[str, Axes]) -> _Place:
        """The logical axes of an array of the state."""
        words = _words(path).split("/")
        suffixes = ("/".join(words[start:]) for start in range(len(words)))
        axes = next((parameters[suffix] for suffix in suffixes if suffix in parameters), None)
        if axes is None:
            return _Place()
        if x.shape == self._shape(axes):
            return _Place(axes)
        without_one = [_Place(axes[:i] + axes[i + 1 :], dropped=name) for i, name in enumerate(axes)]
        fitting = [place for place in without_one if x.shape == self._shape(place.axes)]
        # Where two dimensions are equally long, either reading is right; the one that is split further is cheaper.
        return max(fitting, key=self._spread, default=_Place())

    def _shape(self, axes: Axes) -> tuple[int, ...]:
        return tuple(self.sizes[name] for name in axes if name)

    def _spread(self, place: _Place) -> int:
        return self._devices(axis for name in place.axes for axis in self.split(name))

    def _check_rules(self, carried: set[str]) -> None:
        used = {axis for name in carried for axis in self.split(name)}
        for axis, size in self.mesh.shape.items():
            if size > 1 and axis not in used:
                raise UserError(f"mesh axis {axis}={size} divides nothing of this model; set MeshConfig.{axis} to 1")
        for name, rule in self.table.items():
            idle = self._really(self.split(name))
            if idle and name not in carried and name not in self._absent:
                raise UserError(
                    f"the sharding rule {name} -> {' × '.join(rule.split)} is used by no parameter and no row;"
                    f" remove it, or set MeshConfig.{idle[0]} to 1"
                )

    def _check_array(self, path: KeyPath, x: Any, place: _Place, large_bytes: int) -> None:
        split = {axis for name in place.axes for axis in self.split(name)}
        bytes_here = math.prod(x.shape) * x.dtype.itemsize // self._devices(split)
        stated = self._stated(place)
        silent = [axis for axis, size in self.mesh.shape.items() if size > 1 and axis not in split | stated]
        if silent and bytes_here > large_bytes:
            raise UserError(
                f"{_words(path)} of shape {x.shape} takes {bytes_here / 2**20:.1f} MiB on every device of mesh axis"
                f" {silent[0]}={self.mesh.shape[silent[0]]}, and the table does not say that it should; split one of"
                f" its axes {place.axes} over {silent[0]} in hephaestus_jax/sharding.py, or list {silent[0]} in `whole`"
            )

    def _stated(self, place: _Place) -> set[str]:
        """Mesh axes over which an array is replicated on purpose."""
        stated: set[str] = set()
        for name in (*place.axes, place.dropped):
            if name is not None:
                rule = self.table[name]
                stated |= set(rule.whole)
                if name == place.dropped or self.split(name) != rule.split:  # averaged over, or fewer than the devices
                    stated |= set(rule.split)
        return stated


@dataclass(frozen=True)
class _Place:
    """The logical axes of an array of the state; `dropped` is one of its parameter's that a factored moment lacks."""

    axes: Axes = ()
    dropped: str | None = None


_ACTIVE: ContextVar[Partitioning | None] = ContextVar("partitioning", default=None)


def active() -> Partitioning | None:
    """The partitioning inside whose `with` this is called; None outside any."""
    return _ACTIVE.get()


def platform() -> str:
    """What the active mesh's devices are ("cpu", "gpu", "tpu"), which need not be of this machine; else JAX's own."""
    partitioning = active()
    if partitioning is None or isinstance(partitioning.mesh, AbstractMesh):
        return jax.default_backend()
    return partitioning.mesh.devices.flat[0].platform


def constrain(x: jax.Array, logical_axes: Axes) -> jax.Array:
    """`x`, split over the mesh as the table says for its logical axes; unchanged outside `with partitioning:`.

    Args:
        x: an array of as many dimensions as there are names.
        logical_axes: names in the table; None for a dimension that is not split.

    Raises:
        UserError: a dimension does not divide over its mesh axes.
    """
    active = _ACTIVE.get()
    return x if active is None else active.constrain(x, logical_axes)


def _is_axes(x: Any) -> bool:
    return isinstance(x, tuple) and all(name is None or isinstance(name, str) for name in x)


def _words(path: KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_path(params_axes: Any) -> dict[str, Axes]:
    leaves = jax.tree_util.tree_leaves_with_path(params_axes, is_leaf=_is_axes)
    return {_words(path): axes for path, axes in leaves}
