"""A mixture: which row of which cache is row `i` of a run.

`MixtureSpec` is what `mixture.json` says; `Mixture` is the pure function from row numbers to (task, epoch, cache row).
The answer depends on the spec alone, never on the number of hosts, the batch size or what was read before.

A stage begins at a row and gives every task an integer rate over the mixture's denominator. Its rows come in blocks of
`denominator` rows, counted from the stage's first row; a whole block holds exactly `rate` rows of each task, in an
order that is a keyed permutation. The n-th row of a task, counted over all stages, is its cursor: epoch
n // rows, and within the epoch a keyed permutation of the cache's rows. A stage that is cut short, in the middle of a
block even, hands every task's cursor to the next one, so no row of an epoch is skipped or repeated.

Array shapes: N rows asked for, K tasks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from hephaestus_jax.data.cache import Cache
from hephaestus_jax.data.mixture_spec import MixtureSpec, TaskCache, load_mixture_spec, resolve
from hephaestus_jax.data.permutation import derive_key, permutations, permute
from hephaestus_jax.errors import UserError

_PAGE_ROWS = 4096  # blocks are laid out in groups of about this many rows, so that small ones cost no loop each


class Location(NamedTuple):
    """Where rows come from, int64[N] each; `task` indexes `Mixture.task_names`."""

    task: np.ndarray
    epoch: np.ndarray
    cache_row: np.ndarray


class TaskUse(NamedTuple):
    """What a run takes from one task. `share` is the part of all rows; `tokens` counts padding too."""

    task: str
    cache_rows: int
    share: float
    rows: int
    epochs: float
    tokens: int


class Mixture:
    """The pure function from row numbers of a run to rows of its caches.

    `task_names` are in alphabetical order. `caches` and `validation` hold the open caches by task when the mixture came
    from `open_mixture`, and are empty when it was made from a spec alone.
    """

    def __init__(
        self,
        spec: MixtureSpec,
        caches: Mapping[str, Cache] | None = None,
        validation: Mapping[str, Cache] | None = None,
    ) -> None:
        self.spec = spec
        self.caches = dict(caches or {})
        self.validation = dict(validation or {})
        self.task_names = tuple(sorted(spec.tasks))
        self._cache_rows_K = np.array([spec.tasks[name].rows for name in self.task_names], np.int64)
        self._first_rows = np.array([stage.first_row for stage in spec.stages], np.int64)
        self._rates = [self._rates_of(stage.rates) for stage in spec.stages]
        self._cursors = [np.zeros(len(self.task_names), np.int64)]  # of every task, where each stage begins
        for stage in range(1, len(spec.stages)):
            rows = spec.stages[stage].first_row - spec.stages[stage - 1].first_row
            self._cursors.append(self._cursors[-1] + self._counts_in_stage(stage - 1, rows))

    def locate(self, rows: np.ndarray) -> Location:
        """Task, epoch and cache row of each row number in `rows` (integers[N] ≥ 0, in any order)."""
        rows = _row_numbers(rows)
        task, cursor = self._task_and_cursor(rows)
        epoch, within = np.divmod(cursor, self._cache_rows_K[task])
        cache_row = np.empty_like(cursor)
        for chosen in group(task, epoch):
            k = task[chosen[0]]
            key = derive_key("epoch", self.spec.seed, self.task_names[k], int(epoch[chosen[0]]))
            cache_row[chosen] = permute(within[chosen], int(self._cache_rows_K[k]), key)
        return Location(task, epoch, cache_row)

    def counts(self, row: int) -> np.ndarray:
        """Rows of each task among the rows before `row`: int64[K], in the order of `task_names`."""
        if row < 0:
            raise ValueError(f"row {row} is negative")
        stage = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return self._cursors[stage] + self._counts_in_stage(stage, row - self.spec.stages[stage].first_row)

    def epochs(self, total_rows: int) -> tuple[TaskUse, ...]:
        """What a run of `total_rows` rows takes from each task."""
        uses = []
        for name, rows in zip(self.task_names, self.counts(total_rows).tolist(), strict=True):
            cache_rows = self.spec.tasks[name].rows
            share = rows / total_rows if total_rows else 0.0
            tokens = rows * self.spec.sequence_length
            uses.append(TaskUse(name, cache_rows, share, rows, rows / cache_rows, tokens))
        return tuple(uses)

    def describe(self, total_rows: int) -> str:
        """`epochs` as a table, to be printed before a run."""
        uses = self.epochs(total_rows)
        table = [("task", "rows in cache", "share of rows", "rows used", "epochs", "tokens with padding")]
        for use in uses:
            numbers = (f"{use.cache_rows:,}", f"{100 * use.share:.2f} %", f"{use.rows:,}", f"{use.epochs:.3f}")
            table.append((use.task, *numbers, f"{use.tokens:,}"))
        tokens = sum(use.tokens for use in uses)
        table.append(("total", f"{sum(use.cache_rows for use in uses):,}", "", f"{total_rows:,}", "", f"{tokens:,}"))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        form = f"{{:<{widths[0]}}}" + "".join(f"  {{:>{width}}}" for width in widths[1:])
        return "\n".join(form.format(*line).rstrip() for line in table)

    def _rates_of(self, rates: Mapping[str, int]) -> np.ndarray:
        return np.array([rates.get(name, 0) for name in self.task_names], np.int64)

    def _task_and_cursor(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stage = np.searchsorted(self._first_rows, rows, side="right") - 1
        page, slot = np.divmod(rows - self._first_rows[stage], self._page_rows)
        task, cursor = np.empty_like(rows), np.empty_like(rows)
        for chosen in group(stage, page):
            s, p = int(stage[chosen[0]]), int(page[chosen[0]])
            task_in_page, rank_in_page = self._page(s, p)
            task[chosen] = k = task_in_page[slot[chosen]]
            before_K = self._cursors[s] + p * self._page_blocks * self._rates[s]
            cursor[chosen] = before_K[k] + rank_in_page[slot[chosen]]
        return task, cursor

    def _counts_in_stage(self, stage: int, rows: int) -> np.ndarray:
        """Rows of each task among the first `rows` rows of a stage: whole pages by their rates, the rest by order."""
        pages, rest = divmod(rows, self._page_rows)
        counts = pages * self._page_blocks * self._rates[stage]
        if rest:
            task_in_page, _ = self._page(stage, pages)
            counts = counts + np.bincount(task_in_page[:rest], minlength=len(self.task_names))
        return counts

    @property
    def _page_blocks(self) -> int:
        return max(1, _PAGE_ROWS // self.spec.denominator)

    @property
    def _page_rows(self) -> int:
        return self._page_blocks * self.spec.denominator

    def _page(self, stage: int, page: int) -> tuple[np.ndarray, np.ndarray]:
        first_block = page * self._page_blocks
        rates = tuple(self._rates[stage].tolist())
        return _lay_out(self.spec.seed, self.spec.stages[stage].first_row, first_block, self._page_blocks, rates)


@functools.lru_cache(maxsize=64)
def _lay_out(
    seed: int, first_row: int, first_block: int, blocks: int, rates: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Task and rank within the task of each row in `blocks` consecutive blocks of the stage that begins at `first_row`.

    Two arrays int64[blocks · denominator], where the denominator is the sum of the rates.
    """
    task_of_ticket = np.repeat(np.arange(len(rates)), rates)
    if max(rates) == len(task_of_ticket):  # one task only: there is nothing to order
        task = np.tile(task_of_ticket, blocks)
    else:
        keys = [derive_key("block", seed, first_row, first_block + block) for block in range(blocks)]
        task = task_of_ticket[permutations(len(task_of_ticket), keys)].ravel()
    by_task = np.argsort(task, kind="stable")
    counts = np.bincount(task, minlength=len(rates))
    rank = np.empty_like(task)
    rank[by_task] = np.arange(len(task)) - np.repeat(np.cumsum(counts) - counts, counts)
    return task, rank


def group(*columns: np.ndarray) -> list[np.ndarray]:
    """Indices of equal rows of the table that `columns` (each [N]) make: one array per distinct row."""
    if not columns[0].size:
        return []
    order = np.lexsort(columns)
    changes = np.any([np.diff(column[order]) != 0 for column in columns], axis=0)
    return np.split(order, np.flatnonzero(changes) + 1)


def _row_numbers(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueError(f"expected a vector of row numbers, got {rows.dtype}{list(rows.shape)}")
    rows = rows.astype(np.int64)
    if rows.size and rows.min() < 0:
        raise ValueError(f"row {rows.min()} is negative")
    return rows


def quantise(rates: Mapping[str, float], denominator: int) -> dict[str, int]:
    """Integer rates over `denominator` nearest to the proportions `rates`, by the largest remainder.

    Args:
        rates: positive numbers of any sum; ties go to the alphabetically first task.
        denominator: what the result sums to.

    Raises:
        UserError: a rate is no positive number, or would come out as zero.
    """
    bad = [name for name, rate in rates.items() if not (math.isfinite(rate) and rate > 0)]
    if denominator < 1:
        raise UserError(f"denominator {denominator} is below 1; it is the number of rows over which rates are exact")
    if bad or not rates:
        where = f"the rate of {bad[0]!r} is {rates[bad[0]]}" if bad else "a mixture has no tasks"
        raise UserError(f"{where}; give every task of the mixture a rate above 0 and leave the others out")
    total = sum((Fraction(rate) for rate in rates.values()), Fraction(0))
    exact = {name: Fraction(rate) / total * denominator for name, rate in sorted(rates.items())}
    whole = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (whole[name] - exact[name], name))
    for name in by_remainder[: denominator - sum(whole.values())]:
        whole[name] += 1
    zero = [name for name, rate in whole.items() if rate == 0]
    if zero:
        enough = max(math.ceil(total / Fraction(rates[name])) for name in zero)
        raise UserError(
            f"task {zero[0]!r} with {100 * float(Fraction(rates[zero[0]]) / total):.3g} % of the mixture rounds to 0 of"
            f" {denominator} rows; use a denominator of at least {enough}"
        )
    return {name: whole[name] for name in rates}


def open_mixture(url: str) -> Mixture:
    """Reads `mixture.json` at `url` and opens its caches, the validation caches included.

    Raises:
        UserError: the file or a cache is missing, damaged, or not the one that the mixture was built from.
    """
    spec = load_mixture_spec(url)
    caches = {name: _open_cache(spec, url, name, part) for name, part in spec.tasks.items()}
    validation = {name: _open_cache(spec, url, name, part) for name, part in spec.validation.items()}
    return Mixture(spec, caches, validation)


def _open_cache(spec: MixtureSpec, url: str, name: str, part: TaskCache) -> Cache:
    where = resolve(url, part.cache)
    cache = Cache.open(where)
    manifest = cache.manifest
    facts: Iterable[tuple[str, object, object]] = (
        ("sequence length", manifest.sequence_length, spec.sequence_length),
        ("vocabulary digest", manifest.vocabulary.digest, spec.vocabulary.digest),
        ("row count", manifest.rows, part.rows),
        ("content digest", manifest.digest, part.digest),
    )
    for what, found, expected in facts:
        if found != expected:
            raise UserError(
                f"cache {where} of task {name!r} has {what} {found}, but mixture {url} was built with {expected};"
                " rebuild the mixture with `python -m tools.build_cache`, or put the cache back that it names"
            )
    return cache
