"""What `mixture.json` says: the caches of a mixture and its stages."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.storage import MissingKeyError, Storage
from hephaestus_jax.errors import UserError

FORMAT = 1
MAX_DENOMINATOR = 1 << 20  # the order of a block is laid out in memory, 16 bytes a row


@dataclass(frozen=True)
class TaskCache:
    """One task's rows: where they lie (a URL, or a path relative to mixture.json), how many, and their digest."""

    cache: str
    rows: int
    digest: str

    def __post_init__(self) -> None:
        _check_integer("rows", self.rows, 0, f"cache {self.cache}")
        for name in ("cache", "digest"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"cache {self.cache}: {name} is {getattr(self, name)!r}; it must be a string")


@dataclass(frozen=True)
class Stage:
    """From `first_row` on, out of every `denominator` rows, `rates[task]` come from each task."""

    first_row: int
    rates: Mapping[str, int]

    def __post_init__(self) -> None:
        where = f"stage at row {self.first_row}"
        _check_integer("first_row", self.first_row, 0, where)
        if not self.rates:
            raise UserError(f"{where} has no rates; give at least one task a rate")
        for task, rate in self.rates.items():
            _check_integer(f"rate of task {task!r}", rate, 1, f"{where} (leave out a task that takes no part)")


@dataclass(frozen=True)
class MixtureSpec:
    """A mixture's caches and stages; a stage lasts until the next one begins, the last one for ever."""

    name: str
    seed: int
    denominator: int
    sequence_length: int
    vocabulary: VocabularyIdentity
    tasks: Mapping[str, TaskCache]
    stages: tuple[Stage, ...]
    validation: Mapping[str, TaskCache] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"mixture {self.name!r}"
        _check_integer("seed", self.seed, None, where)
        _check_integer("denominator", self.denominator, 1, where)
        _check_integer("sequence_length", self.sequence_length, 1, where)
        if self.denominator > MAX_DENOMINATOR:
            raise UserError(f"{where}: denominator {self.denominator} exceeds {MAX_DENOMINATOR}; use coarser rates")
        if not self.tasks or not self.stages:
            raise UserError(f"{where} has no {'stages' if self.tasks else 'tasks'}; give it at least one")
        for task, part in self.tasks.items():
            if part.rows == 0:
                raise UserError(f"{where}: the cache of task {task!r} has no rows; leave the task out of the mixture")
        self._check_stages(where)

    def _check_stages(self, where: str) -> None:
        first = self.stages[0].first_row
        if first != 0:
            raise UserError(f"{where}: the first stage begins at row {first}; it must begin at row 0")
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            if stage.first_row <= before.first_row:
                kind = "two stages begin" if stage.first_row == before.first_row else "a stage begins too early,"
                raise UserError(f"{where}: {kind} at row {stage.first_row}; put the stages in order of distinct rows")
        for stage in self.stages:
            unknown = sorted(set(stage.rates) - set(self.tasks))
            if unknown:
                raise UserError(
                    f"{where}: the stage at row {stage.first_row} names unknown task {unknown[0]!r};"
                    f" the mixture has caches for {', '.join(sorted(self.tasks))}"
                )
            total = sum(stage.rates.values())
            if total != self.denominator:
                raise UserError(
                    f"{where}: the rates of the stage at row {stage.first_row} sum to {total}, not to the denominator"
                    f" {self.denominator}; `quantise` turns any proportions into such rates"
                )

    def with_stage(self, first_row: int, rates: Mapping[str, int]) -> MixtureSpec:
        """The same mixture with one more stage at its end; rows before `first_row` stay what they were."""
        return dataclasses.replace(self, stages=(*self.stages, Stage(first_row, dict(rates))))

    def to_json(self) -> dict[str, Any]:
        """The content of `mixture.json`."""
        return {"format": FORMAT, **dataclasses.asdict(self)}


def load_mixture_spec(url: str) -> MixtureSpec:
    """Reads the mixture at `url`: a `mixture.json` on any storage, or the folder that holds one.

    Raises:
        UserError: nothing is there, or it is no mixture.
    """
    folder, name = _split(url)
    where = posixpath.join(folder, name)
    try:
        value = Storage(folder).read_json(name)
    except MissingKeyError:
        raise UserError(f"no mixture at {where}: build one with `python -m tools.build_cache`") from None
    return mixture_spec_from_json(value, where)


def save_mixture_spec(url: str, spec: MixtureSpec) -> None:
    """Writes the mixture to `url`, a `mixture.json` or the folder to hold one."""
    folder, name = _split(url)
    Storage(folder).write_json(name, spec.to_json())


def resolve(url: str, cache: str) -> str:
    """Where the mixture at `url` means by `cache`: a path relative to its folder, an absolute path, or a URL."""
    if "://" in cache or os.path.isabs(cache):
        return cache
    return Storage(_split(url)[0]).join(cache).url


def _split(url: str | os.PathLike[str]) -> tuple[str, str]:
    url = os.fspath(url)
    if not url.endswith(".json"):
        return url, "mixture.json"
    folder, name = posixpath.split(url)
    return folder or ".", name


def mixture_spec_from_json(value: Any, where: str) -> MixtureSpec:
    """Inverse of `MixtureSpec.to_json`; `where` names the file in errors.

    Raises:
        UserError: another format, missing or unknown fields, or a mixture that contradicts itself.
    """
    try:
        fields = dict(value)
        found = fields.pop("format", None)
        if found != FORMAT:
            raise UserError(f"{where} has format {found}, this version reads {FORMAT}; rebuild the mixture")
        fields["vocabulary"] = VocabularyIdentity(**fields["vocabulary"])
        fields["tasks"] = {name: TaskCache(**part) for name, part in fields["tasks"].items()}
        fields["validation"] = {name: TaskCache(**part) for name, part in fields.get("validation", {}).items()}
        fields["stages"] = tuple(Stage(**stage) for stage in fields["stages"])
        return MixtureSpec(**fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where} is no mixture ({type(error).__name__}: {error}); rebuild the mixture") from error


def check_extension(old: MixtureSpec, new: MixtureSpec, next_row: int) -> None:
    """Passes if rows before `next_row`, which a run consumed under `old`, are the same under `new`.

    Stages and tasks that only later rows use may differ, and caches may have moved.

    Raises:
        UserError: names the first part of the consumed identity that changed.
    """
    if next_row == 0:
        return
    mend = f"{next_row:,} rows were already consumed: change only stages from row {next_row} on, or begin a new run"
    for name in ("seed", "denominator", "sequence_length"):
        _check_same(name, getattr(old, name), getattr(new, name), mend)
    for name in ("digest", "size"):
        _check_same(f"vocabulary {name}", getattr(old.vocabulary, name), getattr(new.vocabulary, name), mend)
    consumed = [stage for stage in old.stages if stage.first_row < next_row]
    kept = [stage for stage in new.stages if stage.first_row < next_row]
    for number, (before, after) in enumerate(zip(consumed, kept, strict=False)):
        _check_same(f"first_row of stage {number}", before.first_row, after.first_row, mend)
        _check_same(f"rates of stage {number}", dict(before.rates), dict(after.rates), mend)
    _check_same(f"number of stages before row {next_row}", len(consumed), len(kept), mend)
    for task in sorted({task for stage in consumed for task in stage.rates}):
        before_cache, after_cache = old.tasks[task], new.tasks[task]
        _check_same(f"rows of task {task!r}", before_cache.rows, after_cache.rows, mend)
        _check_same(f"cache digest of task {task!r}", before_cache.digest, after_cache.digest, mend)


def _check_same(what: str, old: object, new: object, mend: str) -> None:
    if old != new:
        raise UserError(f"the mixture's {what} changed from {old} to {new}; {mend}")


def _check_integer(what: str, value: Any, least: int | None, where: str) -> None:
    if type(value) is not int or (least is not None and value < least):
        wanted = "an integer" if least is None else f"an integer of at least {least}"
        raise UserError(f"{where}: {what} is {value!r}; it must be {wanted}")
