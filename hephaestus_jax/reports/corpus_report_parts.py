"""What the sections of a corpus's page share: counts in tables of bounded length, names of bounded length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hephaestus_jax.reports.charts import shortened
from hephaestus_jax.reports.page import table

NAME_CHARACTERS = 90


def named(value: object, most: int = NAME_CHARACTERS) -> str:
    """A name from elsewhere, its middle left out where it is long; an empty one is told."""
    return shortened(str(value), most) or "(empty)"


def share(value: float) -> str:
    """A share as a percentage; small ones are told from none."""
    if 0 < value < 0.0005:
        return "< 0.1 %"
    return f"{100 * value:.1f} %"


def plural(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def summed(names: Sequence[str], most: int) -> str:
    """Names in one line, those beyond `most` as a number."""
    shown = ", ".join(named(name, 60) for name in names[:most])
    return shown + (f" and {len(names) - most:,} others" if len(names) > most else "")


def largest(counts: Mapping[str, int], most: int) -> tuple[list[tuple[str, int]], int, int]:
    """The `most` largest, ties by name; how many names are left, and their sum."""
    ordered = sorted(((name, count) for name, count in counts.items() if count), key=lambda item: (-item[1], item[0]))
    rest = ordered[most:]
    return ordered[:most], len(rest), sum(count for _, count in rest)


def count_table(what: str, columns: Mapping[str, Mapping[str, int]], unit: str, most: int, shares: bool = True) -> str:
    """Counts per name, a column each; names by their sums, those beyond `most` together.

    Args:
        what: the names are of.
        columns: heading to counts; of one column the heading may be empty.
        unit: of the counts.
        most: rows.
        shares: whether each column is followed by its names' shares of it.
    """
    totals = Counter[str]()
    for counts in columns.values():
        totals.update(counts)
    shown, more, _ = largest(totals, most)
    names = {name for name, _ in shown}
    rows = [[named(name)] for name, _ in shown] + ([[f"{more:,} others"]] if more else [])
    head = [what]
    for heading, counts in columns.items():
        head.append(f"{heading} ({unit})" if heading else unit)
        head += [f"share of {heading}" if heading else "share"] * shares
        total = sum(counts.values())
        rest = sum(count for name, count in counts.items() if name not in names)
        found = [*(counts.get(name, 0) for name, _ in shown), *([rest] if more else [])]
        for row, count in zip(rows, found, strict=True):
            row.append(f"{count:,}" if count else "–")
            row += [share(count / total) if count else ""] * shares
    return table(head, [("", rows)], left={0})
