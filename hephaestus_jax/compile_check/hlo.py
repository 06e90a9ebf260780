"""A compiled program's text (HLO) as computations of instructions.

Only the text tells: `cost_analysis()` counts the body of a loop once and a custom kernel as nothing.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_BYTES = {
    "pred": 1, "s2": 0.25, "u2": 0.25, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4,
    "s64": 8, "u64": 8, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16, "token": 0, "opaque": 0,
}  # fmt: skip
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,<=? ]*)\](\{[^{}]*\})?")
_INSTRUCTION = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_SPACE = re.compile(r"S\((\d+)\)")


@dataclass(frozen=True)
class Array:
    """An array's type: element type, dimensions, and the memory that it lies in (0 is the main one, HBM)."""

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes without the layout's padding."""
        per_element = _BYTES.get(self.dtype, 1 if self.dtype.startswith("f8") else 4)
        return math.ceil(self.size * per_element)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name: unique in its computation.
        opcode: what it does.
        arrays: of its result, a tuple's one after the other.
        operands: names of instructions of the same computation.
        argument: the text between the parentheses, which is a constant's value.
        attributes: the text after them.
        root: whether it is the computation's result.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    argument: str
    attributes: str
    root: bool

    @property
    def op_name(self) -> str:
        """The JAX operation that it comes from."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1] if found else ""

    def attribute(self, name: str) -> str:
        """The text of an attribute in braces, or up to the next comma; empty if there is none."""
        found = re.search(rf"(?:^|[ ,]){re.escape(name)}=(\{{|[^,\s]*)", self.attributes)
        if not found:
            return ""
        if found[1] == "{":
            return self.attributes[found.end() : _closing(self.attributes, found.end() - 1)]
        return found[1]

    def numbers(self, name: str) -> tuple[int, ...]:
        """An attribute such as `lhs_contracting_dims={1,2}`."""
        return tuple(int(number) for number in re.findall(r"-?\d+", self.attribute(name)))

    def called(self, *names: str) -> tuple[str, ...]:
        """Computations that the attributes `names` refer to."""
        return tuple(called for name in names for called in re.findall(r"%?([\w.\-]+)", self.attribute(name)) if called)


@dataclass(frozen=True)
class Computation:
    """Instructions in order, by name."""

    name: str
    instructions: Mapping[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose result is the computation's."""
        return next(x for x in self.instructions.values() if x.root)

    @functools.cached_property
    def parameters(self) -> Mapping[int, Instruction]:
        """Parameters by number."""
        return {int(x.argument): x for x in self.instructions.values() if x.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> Mapping[str, tuple[Instruction, ...]]:
        """Instruction -> those that have it as an operand."""
        users: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for operand in instruction.operands:
                users.setdefault(operand, []).append(instruction)
        return {name: tuple(found) for name, found in users.items()}

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """The instruction that gives an operand."""
        return self.instructions[instruction.operands[index]]


@dataclass(frozen=True)
class Module:
    """A program: its computations, and the one that it begins with."""

    computations: Mapping[str, Computation]
    entry: str
    partitions: int = field(default=1)


def parse(text: str) -> Module:
    """The program that `compiled.as_text()` writes down."""
    computations: dict[str, Computation] = {}
    entry, name = "", ""
    lines: list[str] = []
    for line in text.splitlines():
        if not name and (header := _COMPUTATION.match(line)):
            name, lines = header[2], []
            entry = name if header[1] else entry
        elif name and (line.rstrip() == "}" or line.startswith("}, execution_thread=")):
            instructions = {x.name: x for x in map(_instruction, lines)}
            computations[name] = Computation(name, instructions)
            name = ""
        elif name and _INSTRUCTION.match(line):
            lines.append(line)
        elif name and lines:  # kernels carry metadata with line breaks
            lines[-1] += line
    partitions = re.search(r"num_partitions=(\d+)", text[: text.find("\n")])
    return Module(computations, entry, int(partitions[1]) if partitions else 1)


def _instruction(line: str) -> Instruction:
    start = _INSTRUCTION.match(line)
    assert start is not None
    at = start.end()
    end = _closing(line, at) + 1 if line[at] == "(" else line.index(" ", at)
    types, rest = line[at:end], line[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    argument, attributes = rest[len(opcode) + 1 : close], rest[close + 1 :].lstrip(", ")
    operands = () if opcode in ("constant", "parameter") else tuple(re.findall(r"%([\w.\-]+)", argument))
    return Instruction(start[2], opcode, tuple(_arrays(types)), operands, argument, attributes, bool(start[1]))


def _arrays(types: str) -> Iterator[Array]:
    for dtype, dimensions, layout in _ARRAY.findall(types):
        space = _SPACE.search(layout)
        shape = tuple(int(size) for size in re.findall(r"\d+", dimensions))
        yield Array(dtype, shape, int(space[1]) if space else 0)


def _closing(text: str, start: int) -> int:
    """Where the bracket at `start` closes."""
    opening = text[start]
    closing = {"(": ")", "{": "}"}[opening]
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == opening) - (text[place] == closing)
        if depth == 0:
            return place
    raise ValueError(f"unbalanced {opening} in {text[start : start + 80]!r}")


# Loops


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """How often the body of a `while` runs; None if it depends on data.

    The compiler's own note where it left one; else a condition `i < n` on a counter whose start, step and end are
    constants.
    """
    if known := re.search(r'known_trip_count"?:?=?\{"?n"?:"?(\d+)', loop.attributes):
        return int(known[1])
    condition = module.computations[loop.called("condition")[0]]
    body = module.computations[loop.called("body")[0]]
    compare = _through(module, condition, condition.root)
    if compare is None or compare[1].opcode != "compare":
        return None
    where, test = compare
    sides = [_counter_or_constant(module, where, where.operand(test, side), condition) for side in (0, 1)]
    direction = test.attribute("direction")
    if isinstance(sides[0], int) and isinstance(sides[1], _Counter):  # n > i
        sides.reverse()
        direction = {"GT": "LT", "GE": "LE", "LT": "GT", "LE": "GE"}.get(direction, direction)
    counter, limit = sides
    if isinstance(limit, _Counter):  # the limit is carried through the loop unchanged
        limit = _initial(module, computation, loop, limit.index)
    if not isinstance(counter, _Counter) or limit is None:
        return None
    start = _initial(module, computation, loop, counter.index)
    step = _step(module, body, counter.index)
    if start is None or not step:
        return None
    return _trips(start, limit, step, direction)


def _trips(start: int, limit: int, step: int, direction: str) -> int | None:
    if direction == "LT" and step > 0:
        return max(0, -(-(limit - start) // step))
    if direction == "LE" and step > 0:
        return max(0, (limit - start) // step + 1)
    if direction == "GT" and step < 0:
        return max(0, -(-(start - limit) // -step))
    if direction == "GE" and step < 0:
        return max(0, (start - limit) // -step + 1)
    if direction == "NE" and (limit - start) % step == 0 and (limit - start) // step >= 0:
        return (limit - start) // step
    return None


@dataclass(frozen=True)
class _Counter:
    """An element of the loop's state."""

    index: int


def _through(module: Module, computation: Computation, x: Instruction) -> tuple[Computation, Instruction] | None:
    """`x`, or what it is inside the fusion or call that computes it alone, with the computation it is found in."""
    if x.opcode in ("fusion", "call"):
        inner = module.computations[x.called("calls", "to_apply")[0]]
        return _through(module, inner, inner.root)
    return computation, x


def _counter_or_constant(
    module: Module, where: Computation, x: Instruction, condition: Computation
) -> _Counter | int | None:
    """What a side of the condition's comparison is."""
    if x.opcode in ("copy", "bitcast", "convert"):
        return _counter_or_constant(module, where, where.operand(x, 0), condition)
    if x.opcode == "constant":
        return _value(x)
    if x.opcode == "get-tuple-element":
        return _Counter(_index(x))
    if x.opcode == "parameter" and where is not condition:  # of a fusion: what the condition hands it
        call = condition.root
        return _counter_or_constant(module, condition, condition.operand(call, int(x.argument)), condition)
    return None


def _initial(module: Module, computation: Computation, loop: Instruction, index: int) -> int | None:
    """The constant that an element of the loop's state begins with."""
    state = computation.operand(loop, 0)
    while state.opcode in ("copy", "bitcast"):
        state = computation.operand(state, 0)
    if state.opcode != "tuple":
        return None
    return _constant(module, computation, computation.operand(state, index))


def _constant(module: Module, computation: Computation, x: Instruction) -> int | None:
    if x.opcode in ("copy", "bitcast", "convert", "reshape", "broadcast", "copy-done", "copy-start"):
        return _constant(module, computation, computation.operand(x, 0))
    if x.opcode == "constant":
        return _value(x)
    if x.opcode in ("fusion", "call") and not x.operands:
        found = _through(module, computation, x)
        return _constant(module, *found) if found else None
    return None


def _step(module: Module, body: Computation, index: int) -> int | None:
    """What an iteration adds to an element of the loop's state; 0 if it is not a constant."""
    result = body.root
    if result.opcode != "tuple":
        return None
    new: Instruction = body.operand(result, index)
    while new.opcode in ("copy", "bitcast"):
        new = body.operand(new, 0)
    found = _through(module, body, new)
    if found is None:
        return None
    where, add = found
    if add.opcode not in ("add", "subtract"):
        return None
    sides = [_constant_of_step(module, body, new, where, where.operand(add, side)) for side in (0, 1)]
    known = [side for side in sides if side is not None]
    if len(known) != 1:
        return None
    return known[0] if add.opcode == "add" else -known[0]


def _constant_of_step(
    module: Module, body: Computation, new: Instruction, where: Computation, x: Instruction
) -> int | None:
    """A constant of the loop's body, or of the fusion `new` in it, which may be handed it."""
    if x.opcode == "parameter" and where is not body:
        return _constant(module, body, body.operand(new, int(x.argument)))
    return _constant(module, where, x)


def _value(constant: Instruction) -> int | None:
    return int(constant.argument) if re.fullmatch(r"-?\d+", constant.argument) else None


def _index(x: Instruction) -> int:
    return int(x.attribute("index"))
