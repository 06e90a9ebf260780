"""What the agent of a BabyAI level sees, in words: the way ahead and to the sides, things, doors, what it carries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hephaestus_jax.formats.records import Json

_TO_THE_LEFT, _TO_THE_RIGHT = -1, 1


def named(thing: Any) -> str:
    """What a thing is called: "red ball"."""
    return "wall" if thing.type == "wall" else f"{thing.color} {thing.type}"


def described(thing: Any) -> str:
    """A thing with its article and, of a door, its state: "a locked red door"."""
    words = named(thing)
    if thing.type == "door":
        words = f"{'open' if thing.is_open else 'locked' if thing.is_locked else 'closed'} {words}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def meant(name: str) -> str:
    """An object as an agent may write it, as `named` writes it: without article, small, single blanks."""
    words = name.lower().split()
    return " ".join(words[1:] if words[:1] in (["the"], ["a"], ["an"]) else words)


def steps_of(count: int) -> str:
    """`count` steps."""
    return f"{count} step" if count == 1 else f"{count} steps"


class View:
    """What is seen from where the agent of `level` stands.

    `ahead` is how many steps forward are free, as far as is seen; `front` the thing right in front, None if nothing.
    """

    def __init__(self, level: Any) -> None:
        grid, visible = level.gen_obs_grid()
        self._cells = [[grid.get(i, j) for j in range(grid.height)] for i in range(grid.width)]
        self._visible = visible
        self._middle, self._last = grid.width // 2, grid.height - 1
        self._standing_in = level.grid.get(*level.agent_pos)
        self._carried = level.carrying
        self.front = level.grid.get(*level.front_pos)
        self.ahead, self._end = self._free([(self._middle, row) for row in range(self._last - 1, -1, -1)])

    def _free(self, cells: Sequence[tuple[int, int]]) -> tuple[int, Any]:
        """How many of `cells`, from the agent outwards, can be walked over; and what stops the way, if it is seen."""
        for count, (column, row) in enumerate(cells):
            if not self._visible[column, row]:
                return count, None
            cell = self._cells[column][row]
            if cell is not None and not cell.can_overlap():
                return count, cell
        return len(cells), None

    def things(self) -> Iterator[tuple[Any, int, int]]:
        """Things and doors in sight, the nearest first: thing, steps ahead, steps to the right (left below 0)."""
        found = [
            (row_ahead + abs(side), row_ahead, side)
            for row_ahead in range(self._last + 1)
            for side in range(-self._middle, self._middle + 1)
            if (row_ahead or side) and self._visible[self._middle + side, self._last - row_ahead]
        ]
        for _, ahead, side in sorted(found):
            thing = self._cells[self._middle + side][self._last - ahead]
            if thing is not None and thing.type != "wall":
                yield thing, ahead, side

    def text(self) -> str:
        """The view as a player is told of it."""
        lines = []
        if self._standing_in is not None:
            lines.append(f"You stand in the doorway of the {named(self._standing_in)}.")
        sides = [self._side(_TO_THE_LEFT), self._side(_TO_THE_RIGHT)]
        lines.append(f"Ahead: {_way(self.ahead, self._end)}. Left: {sides[0]}. Right: {sides[1]}.")
        seen = [f"{described(thing)} {_place(ahead, side)}" for thing, ahead, side in self.things()]
        lines.append(f"You see {'; '.join(seen)}." if seen else "You see nothing but floor and walls.")
        lines.append(f"You carry {described(self._carried)}." if self._carried else "You carry nothing.")
        return "\n".join(lines)

    def _side(self, side: int) -> str:
        cells = [(self._middle + side * step, self._last) for step in range(1, self._middle + 1)]
        return _way(*self._free(cells))


def _way(free: int, end: Any) -> str:
    if end is None:
        return f"{steps_of(free)} free, as far as you see" if free else "you cannot see"
    return f"{steps_of(free)} free, then {described(end)}" if free else described(end)


def _place(ahead: int, side: int) -> str:
    parts = [f"{steps_of(ahead)} ahead"] if ahead else []
    if side:
        parts.append(f"{steps_of(abs(side))} to the {'left' if side < 0 else 'right'}")
    return "right in front of you" if (ahead, side) == (1, 0) else " and ".join(parts)


def fingerprint(level: Any) -> list[Json]:
    """All of a level's state that matters for what comes: things, doors, boxes, the agent, what is done so far."""
    cells = []
    for place, thing in enumerate(level.grid.grid):
        if thing is not None and thing.type != "wall":
            inside = getattr(thing, "contains", None)
            cells.append([place, described(thing), named(inside) if inside else ""])
    carried = named(level.carrying) if level.carrying else ""
    agent = [*(int(value) for value in level.agent_pos), int(level.agent_dir), carried]
    return [cells, agent, [_marks(instruction) for instruction in leaves(level.instrs)], _flags(level.instrs)]


def leaves(instruction: Any) -> list[Any]:
    """The single instructions that an instruction is made of."""
    parts = [getattr(instruction, name, None) for name in ("instr_a", "instr_b")]
    if parts[0] is None:
        return [instruction]
    return [leaf for part in parts for leaf in leaves(part)]


def _flags(instruction: Any) -> list[Json]:
    """Which parts of an instruction count as done."""
    if not hasattr(instruction, "instr_a"):
        return []
    done = [instruction.a_done == "success", instruction.b_done == "success"]
    return [done, _flags(instruction.instr_a), _flags(instruction.instr_b)]


def _marks(instruction: Any) -> list[Json]:
    """What an instruction remembers of the objects that it is about."""
    found: list[Json] = [bool(getattr(instruction, "preCarrying", None))]
    for name in ("desc", "desc_move", "desc_fixed"):
        described_by = getattr(instruction, name, None)
        if described_by is not None:
            found.append(sorted([int(x), int(y)] for x, y in described_by.obj_poss))
            found.append(sorted(_cell(thing) for thing in described_by.obj_set))
    return found


def _cell(thing: Any) -> list[int]:
    """Where a thing is; nowhere while it is carried, and when it was made for a level that was given up."""
    return [] if thing.cur_pos is None else [int(value) for value in thing.cur_pos]


def progress(instruction: Any, done: bool = False) -> tuple[int, int]:
    """How many of the single instructions are done, and how many there are."""
    if not hasattr(instruction, "instr_a"):
        return int(done), 1
    parts = [
        progress(instruction.instr_a, done or instruction.a_done == "success"),
        progress(instruction.instr_b, done or instruction.b_done == "success"),
    ]
    return sum(part[0] for part in parts), sum(part[1] for part in parts)
