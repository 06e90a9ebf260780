"""What a compiled program computes, moves in memory and sends, on each device: loops times their trip counts.

FLOPs are those of matrix products (a multiplication and an addition each), which is what accelerators' peaks are of;
of conditional branches the dearest counts. A custom kernel counts by its formula (`kernels`); one without a formula is
listed, never dropped in silence.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hephaestus_jax.compile_check.groups import Groups, between_slices, groups_of
from hephaestus_jax.compile_check.hlo import Array, Computation, Instruction, Module, trip_count

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all", "ragged-all-to-all",
    "collective-broadcast",
)  # fmt: skip

KernelFlops = Callable[[Instruction, tuple[Array, ...]], float | None]


@dataclass(frozen=True)
class Collective:
    """One collective of the program.

    Attributes:
        kind: as HLO names it; an all-reduce whose result is cut down to a slice within one kernel is a reduce-scatter.
        arrays: what a device holds of the collective's larger side: the result of a gather, the operand of a
            reduction, what is sent otherwise.
        groups: the devices that take part together.
        times: executions in a step.
        op_name: the JAX operation that it comes from.
        inside: the computation that it is in.
        pieces: for each of `arrays`, whether it is zeros but for this device's piece: a sum of those is a gather.
    """

    kind: str
    arrays: tuple[Array, ...]
    groups: Groups
    times: int
    op_name: str
    inside: str = ""
    pieces: tuple[bool, ...] = ()

    @property
    def payload(self) -> int:
        """Bytes of `arrays` in one execution."""
        return sum(array.bytes for array in self.arrays)

    @property
    def sent(self) -> float:
        """Bytes that a device sends in one execution, as a ring does it."""
        share = (self.groups.size - 1) / self.groups.size if self.groups.size else 1.0
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0, "collective-broadcast": 1.0}.get(self.kind, share)
        return factor * self.payload


@dataclass
class Costs:
    """Sums over one execution of a program on one device.

    Attributes:
        flops: of matrix products, kernels included.
        kernel_flops: those of custom kernels, by formula.
        hbm_bytes: read from and written to main memory by instructions; within a fusion, what enters and leaves it.
        collectives: each with the number of its executions.
        uncounted: custom kernels without a formula, and how often they run.
        unknown_loops: loops whose trip count depends on data, counted once.
    """

    flops: float = 0.0
    kernel_flops: float = 0.0
    hbm_bytes: float = 0.0
    collectives: list[Collective] = field(default_factory=list)
    uncounted: Counter[str] = field(default_factory=Counter)
    unknown_loops: int = 0


def walk(module: Module, kernel_flops: KernelFlops | None = None, *, loops: bool = True) -> Costs:
    """The costs of one execution.

    Args:
        module: the program.
        kernel_flops: FLOPs of a custom call given its operands' arrays; None for one that it does not know.
        loops: whether bodies count as often as they run; once otherwise, as in the compiler's own cost analysis.
    """
    walker = _Walker(module, kernel_flops or (lambda kernel, operands: None), loops)
    walker.computation(module.computations[module.entry], 1, True)
    return walker.costs


class _Walker:
    """Adds up as it goes; `times` is how often the computation at hand runs."""

    def __init__(self, module: Module, kernel_flops: KernelFlops, loops: bool) -> None:
        self.module = module
        self.kernel_flops = kernel_flops
        self.loops = loops
        self.costs = Costs()
        self.asynchronous = _asynchronous_channels(module)

    def computation(self, computation: Computation, times: int, in_memory: bool) -> None:
        """A computation's instructions; `in_memory` says whether their results lie in main memory."""
        for x in computation.instructions.values():
            self.instruction(computation, x, times)
            if in_memory:
                self.costs.hbm_bytes += times * self.traffic(computation, x)

    def instruction(self, computation: Computation, x: Instruction, times: int) -> None:
        if x.opcode == "dot":
            self.costs.flops += times * _dot(computation, x)
        elif x.opcode == "convolution":
            self.costs.flops += times * _convolution(computation, x)
        elif x.opcode == "while":
            trips = trip_count(self.module, computation, x) if self.loops else 1
            self.costs.unknown_loops += trips is None
            self.call(x.called("body"), times * (1 if trips is None else trips), True)
        elif x.opcode == "conditional":
            self.dearest(x, times)
        elif x.opcode in ("call", "async-start"):
            self.call(x.called("to_apply", "calls"), times, True)
        elif x.opcode == "fusion":
            self.call(x.called("calls"), times, False)
        elif x.opcode == "custom-call":
            self.custom(computation, x, times)
        elif (kind := x.opcode.removesuffix("-start")) in COLLECTIVES and not self.is_continued(computation, x):
            self.costs.collectives.append(self.collective(computation, x, kind, times))
        elif found := between_slices(x, self.module.partitions):
            sent = computation.operand(x, 0)
            while sent.opcode == "bitcast":  # to tiles; before, it has the parameter's shape
                sent = computation.operand(sent, 0)
            kind, groups = found
            self.costs.collectives.append(Collective(kind, sent.arrays, groups, times, x.op_name, computation.name))

    def call(self, names: tuple[str, ...], times: int, in_memory: bool) -> None:
        for name in names:
            self.computation(self.module.computations[name], times, in_memory)

    def dearest(self, x: Instruction, times: int) -> None:
        """Of a conditional's branches the one with most FLOPs, then most bytes."""
        names = x.called("branch_computations") or x.called("true_computation", "false_computation")
        found = []
        for name in names:
            branch = _Walker(self.module, self.kernel_flops, self.loops)
            branch.computation(self.module.computations[name], times, True)
            found.append(branch.costs)
        if found:
            self.add(max(found, key=lambda costs: (costs.flops, costs.hbm_bytes)))

    def add(self, other: Costs) -> None:
        self.costs.flops += other.flops
        self.costs.kernel_flops += other.kernel_flops
        self.costs.hbm_bytes += other.hbm_bytes
        self.costs.collectives += other.collectives
        self.costs.uncounted.update(other.uncounted)
        self.costs.unknown_loops += other.unknown_loops

    def custom(self, computation: Computation, x: Instruction, times: int) -> None:
        target = x.attribute("custom_call_target").strip('"')
        if target not in ("tpu_custom_call", "__gpu$xla.gpu.triton") and "matmul" not in target:
            return  # bookkeeping of the compiler: buffers, asynchronous copies, sharding
        operands = tuple(array for name in x.operands for array in computation.instructions[name].arrays)
        flops = self.kernel_flops(x, operands)
        if flops is None:
            self.costs.uncounted[kernel_name(x) or target] += times
        else:
            self.costs.flops += times * flops
            self.costs.kernel_flops += times * flops

    # Collectives

    def is_continued(self, computation: Computation, x: Instruction) -> bool:
        """Whether this is the middle or end of a collective that was started elsewhere.

        On TPU a collective that runs behind other work is written into each kernel that it runs behind, always with
        the same channel; the first has it start.
        """
        channel = x.attribute("channel_id")
        return channel in self.asynchronous and not _is_start(computation, x)

    def collective(self, computation: Computation, x: Instruction, kind: str, times: int) -> Collective:
        operands = tuple(array for name in x.operands for array in computation.instructions[name].arrays)
        if kind == "all-gather":
            # the asynchronous form gives (operands, results)
            arrays = x.arrays[len(operands) :][: len(operands)] if x.opcode.endswith("-start") else x.arrays
        else:
            arrays = operands
        if kind == "all-reduce" and _is_scattered(computation, x):
            kind = "reduce-scatter"
        if kind == "ragged-all-to-all":
            arrays = operands[:1]
        groups = groups_of(x, self.module.partitions)
        pieces = tuple(_is_piece(self.module, computation, name) for name in x.operands)
        return Collective(kind, arrays, groups, times, x.op_name, computation.name, pieces)

    # Main memory

    def traffic(self, computation: Computation, x: Instruction) -> float:
        """Bytes that an instruction reads from and writes to main memory."""
        if x.opcode in _FREE or x.opcode.endswith("-done"):
            return 0.0
        if x.opcode == "fusion":
            inner = self.module.computations[x.called("calls")[0]]
            read = sum(_read_by_fusion(inner, number, arrays) for number, arrays in _operands(computation, x))
            return read + _written_by_fusion(inner, x)
        if x.opcode in ("dynamic-slice", "slice", "gather"):
            return 2.0 * _in_memory(x.arrays)
        if x.opcode in ("dynamic-update-slice", "scatter"):
            return 2.0 * sum(_in_memory(arrays) for number, arrays in _operands(computation, x) if number)
        read = sum(_in_memory(arrays) for _, arrays in _operands(computation, x))
        return float(read + (_in_memory(x.arrays) if not x.opcode.endswith("-start") else 0))


_FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "partition-id",
    "after-all", "iota", "opt-barrier", "async-start", "async-update",
)  # fmt: skip


def _in_memory(arrays: tuple[Array, ...]) -> int:
    return sum(array.bytes for array in arrays if array.space == 0)


def _operands(computation: Computation, x: Instruction) -> Iterator[tuple[int, tuple[Array, ...]]]:
    for number, name in enumerate(x.operands):
        yield number, computation.instructions[name].arrays


def _read_by_fusion(inner: Computation, number: int, arrays: tuple[Array, ...]) -> float:
    """Of an operand that is only cut up, the pieces; of one that is only written into, nothing."""
    parameter = inner.parameters.get(number)
    if parameter is None or not _in_memory(arrays):
        return 0.0
    users = _beyond_bitcasts(inner, parameter)
    if users and all(user.opcode in ("dynamic-slice", "slice", "gather") for user, _ in users):
        return float(min(sum(array.bytes for user, _ in users for array in user.arrays), _in_memory(arrays)))
    if users and all(user.opcode == "dynamic-update-slice" and user.operands[0] == via for user, via in users):
        return 0.0
    return float(_in_memory(arrays))


def _beyond_bitcasts(inner: Computation, x: Instruction) -> list[tuple[Instruction, str]]:
    """Users of `x`, and the name under which each has it."""
    found: list[tuple[Instruction, str]] = []
    for user in inner.users.get(x.name, ()):
        found += _beyond_bitcasts(inner, user) if user.opcode == "bitcast" else [(user, x.name)]
    return found


def _written_by_fusion(inner: Computation, x: Instruction) -> float:
    """The results, of which one that is updated in place counts with the update only."""
    root = inner.root
    results = [inner.operand(root, i) for i in range(len(root.operands))] if root.opcode == "tuple" else [root]
    if len(results) != len(x.arrays):
        return float(_in_memory(x.arrays))
    written = 0.0
    for result, array in zip(results, x.arrays, strict=True):
        while result.opcode == "bitcast":
            result = inner.operand(result, 0)
        if result.opcode == "dynamic-update-slice":
            array = inner.operand(result, 1).arrays[0] if array.space == 0 else array
            written += array.bytes
        else:
            written += _in_memory((array,))
    return written


# Matrix products


def _dot(computation: Computation, x: Instruction) -> float:
    left = computation.operand(x, 0).arrays[0]
    contracted = math.prod(left.shape[axis] for axis in x.numbers("lhs_contracting_dims"))
    return 2.0 * x.arrays[0].size * contracted


def _convolution(computation: Computation, x: Instruction) -> float:
    """Products of a convolution, of which those with padding are none; TPUs write every matrix product as one."""
    left, right = (computation.operand(x, side).arrays[0].shape for side in (0, 1))
    labels = x.attribute("dim_labels")
    of_left, _, rest = labels.partition("_")
    of_right, _, of_result = rest.partition("->")
    window = _window(x.attribute("window"))
    result = x.arrays[0].shape
    products = 1.0
    for axis, (size, stride, low, dilation, window_dilation) in enumerate(_padded(window, len(of_left) - 2)):
        products *= _valid(
            left[of_left.index(str(axis))], result[of_result.index(str(axis))], size, stride, low, dilation,
            window_dilation,
        )  # fmt: skip
    batch, features = result[of_result.index("b")], result[of_result.index("f")]
    return 2.0 * batch * features * right[of_right.index("i")] * products / _batch_groups(x)


def _batch_groups(x: Instruction) -> int:
    found = x.attribute("batch_group_count")
    return int(found) if found else 1


def _window(text: str) -> dict[str, list[str]]:
    return {name: value.split("x") for name, value in re.findall(r"(\w+)=([\w\-x]+)", text)}


_WINDOW_DEFAULTS = {"size": "1", "stride": "1", "pad": "0_0", "lhs_dilate": "1", "rhs_dilate": "1"}


def _padded(window: dict[str, list[str]], axes: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Size, stride, padding before, dilation of the input and of the window, for each axis."""
    for axis in range(axes):
        size, stride, pad, dilation, window_dilation = (
            window[name][axis] if name in window else default for name, default in _WINDOW_DEFAULTS.items()
        )
        yield int(size), int(stride), int(pad.partition("_")[0]), int(dilation), int(window_dilation)


def _valid(length: int, result: int, size: int, stride: int, low: int, dilation: int, window_dilation: int) -> int:
    """Pairs of a place in the result and one in the window that meet an element of the input."""
    if size == 1 and low == 0 and dilation == 1 and (result - 1) * stride < length:
        return result
    total = 0
    for place in range(size):
        first = place * window_dilation - low  # input place, dilated, for result 0
        if dilation == 1:
            # first + stride·r in [0, length)
            lowest = max(0, -(first // stride))
            highest = min(result - 1, (length - 1 - first) // stride)
            total += max(0, highest - lowest + 1)
        else:
            places = (first + stride * r for r in range(result))
            total += sum(0 <= at <= (length - 1) * dilation and at % dilation == 0 for at in places)
    return total


# Collectives


def _asynchronous_channels(module: Module) -> set[str]:
    return {
        x.attribute("channel_id")
        for computation in module.computations.values()
        for x in computation.instructions.values()
        if x.opcode in COLLECTIVES and _is_start(computation, x)
    }


def _is_start(computation: Computation, x: Instruction) -> bool:
    return any('"AsyncCollectiveStart"' in user.attributes for user in computation.users.get(x.name, ()))


def _is_scattered(computation: Computation, x: Instruction) -> bool:
    """Whether a kernel keeps only this device's slice of a sum: TPU's way to write a reduce-scatter."""
    if not computation.name.startswith("all-reduce-scatter"):
        return False
    return any(user.opcode == "dynamic-slice" for user in computation.users.get(x.name, ()))


def _is_piece(module: Module, computation: Computation, name: str) -> bool:
    """Whether an array was made by writing a piece into another."""
    x = computation.instructions[name]
    while x.opcode in ("copy", "bitcast", "copy-start", "copy-done"):
        x = computation.operand(x, 0)
    if x.opcode == "fusion":
        x = module.computations[x.called("calls")[0]].root
    return x.opcode == "dynamic-update-slice"


def kernel_name(x: Instruction) -> str:
    """The name that a Pallas kernel was given."""
    found = re.search(r'kernel_name\W+"?([\w.\-]+)', x.attributes)
    return found[1] if found else x.op_name.rpartition("/")[2]
