"""Rows that a run leaves out since it rolled back, and the file of the run directory that records them.

A rollback takes the run back to a checkpoint and on with later rows. The rows between are a range [first_row,
next_row). Whenever the run comes to the first row of a range, in this process or in one that resumes from any
checkpoint on any mesh, it goes on at its end: the rows of a run are a function of its mixture and of this record.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.bad_rows import BadRow
from hephaestus_jax.data.storage import Storage
from hephaestus_jax.errors import UserError

SKIPPED_ROWS = "skipped_rows.jsonl"
_ROWS_NAMED = 16  # of a bad step, the worst; where any row lies, the mixture tells


@dataclass(frozen=True)
class Rollback:
    """One line of the file.

    Attributes:
        step: the bad step.
        cause: what was bad about it, in words.
        checkpoint: the step that the run went back to, 0 for its beginning.
        first_row, next_row: the rows [first_row, next_row) are left out.
        rows: the worst rows of the bad step, with the ids of their records.
    """

    step: int
    cause: str
    checkpoint: int
    first_row: int
    next_row: int
    rows: tuple[BadRow, ...] = ()

    @classmethod
    def from_json(cls, value: Any) -> Rollback:
        """Reads a line; raises `KeyError` or `TypeError` where it is not one."""
        rows = tuple(BadRow(**{**row, "record_ids": tuple(row["record_ids"])}) for row in value["rows"])
        return cls(**{**value, "rows": rows})


class SkippedRows:
    """What a run leaves out. Every process holds all of it; one of them reads and writes the file.

    Args:
        rollbacks: so far, in order.
        folder: the run directory, where this process writes; None elsewhere.
    """

    def __init__(self, rollbacks: Iterable[Rollback] = (), folder: Path | None = None) -> None:
        self.rollbacks = list(rollbacks)
        self._folder = folder

    def __len__(self) -> int:
        return len(self.rollbacks)

    def after(self, row: int) -> int:
        """The row to go on with when `row` would be next."""
        ends = {skipped.first_row: skipped.next_row for skipped in self.rollbacks}
        while row in ends:
            row = ends[row]
        return row

    def add(self, rollback: Rollback) -> None:
        """Leaves out the rows of one more rollback; they are on disk when it returns."""
        self.rollbacks.append(dataclasses.replace(rollback, rows=rollback.rows[:_ROWS_NAMED]))
        if self._folder is not None:
            lines = "".join(json.dumps(dataclasses.asdict(line)) + "\n" for line in self.rollbacks)
            Storage(str(self._folder)).write(SKIPPED_ROWS, lines.encode())

    def facts(self) -> dict[str, list[list[int]]]:
        """What a checkpoint says of them: all ranges so far, nothing where there are none."""
        ranges = [[skipped.first_row, skipped.next_row] for skipped in self.rollbacks]
        return {"skipped_rows": ranges} if ranges else {}

    def check(self, ranges: Iterable[Iterable[int]]) -> None:
        """Whether the file has what a checkpoint says of skipped rows.

        Raises:
            UserError: it lacks a range.
        """
        known = [(skipped.first_row, skipped.next_row) for skipped in self.rollbacks]
        for first_row, next_row in ranges:
            if (first_row, next_row) not in known:
                raise UserError(
                    f"the checkpoint was made without rows {first_row:,} to {next_row - 1:,}, and {SKIPPED_ROWS} of"
                    " the run directory does not say so; put that file back"
                )


def read_skipped_rows(folder: Path) -> list[dict[str, Any]]:
    """The lines of the file as JSON, empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = folder / SKIPPED_ROWS
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        _ = [Rollback.from_json(line) for line in lines]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}; put it back as it was") from error
    return lines
