"""From seqio Mixtures to packed caches and one `mixture.json`: what `python -m tools.build_cache` does.

OUT/mixture.json
OUT/caches/<task>-<split>-<sequence length>-<fingerprint>/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import seqio

from data_tasks.seqio_source import tasks_and_rates, token_source
from hephaestus_jax.data.cache import CacheManifest
from hephaestus_jax.data.cache_build import BuiltCache, build_cache
from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.mixture import Mixture, open_mixture, quantise
from hephaestus_jax.data.mixture_spec import (
    MAX_DENOMINATOR,
    MixtureSpec,
    Stage,
    TaskCache,
    check_extension,
    load_mixture_spec,
    save_mixture_spec,
)
from hephaestus_jax.data.packing import check_sequence_length
from hephaestus_jax.data.storage import Storage
from hephaestus_jax.data.task import RenderedTask, TokenSource
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.user_data import UserDataSource


@dataclass(frozen=True)
class StageRequest:
    """From row `first_row` of a run on, train on the seqio Task or Mixture of this name."""

    mixture: str
    first_row: int = 0

    @classmethod
    def parse(cls, text: str) -> StageRequest:
        """Reads "NAME" or "NAME@FIRST_ROW"."""
        name, at, row = text.partition("@")
        if at and not row.isdecimal():
            raise UserError(f"--mixture {text}: after @ comes the row number at which the stage begins")
        return cls(name, int(row or 0))


@dataclass(frozen=True)
class CacheRequest:
    """What to build.

    Attributes:
        stages: in order of their first rows; the first begins at row 0.
        sequence_length: tokens per row.
        denominator: rows per block of the mixture, over which the rates are exact.
        modules: modules that register further seqio tasks, imported here and in the workers.
    """

    stages: tuple[StageRequest, ...]
    sequence_length: int
    out: Path
    seed: int = 0
    denominator: int = 3000  # divisible by 3 and by 1,000: 1 : 1 : 1 and 1 in 1,000 are exact
    splits: tuple[str, ...] = ("train", "validation")
    workers: int = 1
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages or self.stages[0].first_row != 0:
            raise UserError("the first stage must begin at row 0; give one --mixture NAME without @")
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            if stage.first_row <= before.first_row:
                raise UserError(
                    f"stage {stage.mixture}@{stage.first_row} does not begin after {before.mixture}@{before.first_row};"
                    " give the stages in order of their first rows"
                )
        if ":/" in str(self.out):  # Path makes gs:/ of gs://, a local folder of that name
            raise UserError(f"caches are built on local disk, not at {self.out}; build one there, then copy it")
        check_sequence_length(self.sequence_length)
        if not 1 <= self.denominator <= MAX_DENOMINATOR:
            raise UserError(f"denominator {self.denominator} is out of range; choose one from 1 to {MAX_DENOMINATOR}")
        if "train" not in self.splits or len(self.splits) > 2 or len(set(self.splits)) < len(self.splits):
            raise UserError(f"splits {','.join(self.splits)}: give train, and at most one other to evaluate on")


def build_mixture(request: CacheRequest, say: Callable[[str], None] = print) -> Mixture:
    """Builds every cache of the mixture that is not built yet, writes `mixture.json`, and opens the result.

    Raises:
        UserError: an unknown task, a vocabulary that differs between tasks, an empty training split, or a directory
            that holds another mixture.
    """
    rates = [tasks_and_rates(stage.mixture) for stage in request.stages]
    quantised = [quantise(stage_rates, request.denominator) for stage_rates in rates]
    old = _existing(request.out)
    if old:
        _refuse_other_settings(old, request)
    built = {
        split: _build_split(request, sorted({name for stage in rates for name in stage}), split, say)
        for split in request.splits
    }
    manifests = [cache.manifest for caches in built.values() for cache in caches.values()]
    spec = MixtureSpec(
        name="+".join(dict.fromkeys(stage.mixture for stage in request.stages)),
        seed=request.seed,
        denominator=request.denominator,
        sequence_length=request.sequence_length,
        vocabulary=_one_vocabulary(manifests),
        tasks=_parts(request.out, built["train"]),
        stages=tuple(Stage(stage.first_row, part) for stage, part in zip(request.stages, quantised, strict=True)),
        validation={
            name: part
            for split in request.splits
            if split != "train"
            for name, part in _parts(request.out, built[split]).items()
        },
    )
    if old:
        _refuse_another(request.out, old, spec)
    save_mixture_spec(str(request.out), spec)
    return open_mixture(str(request.out))


def _build_split(
    request: CacheRequest, names: list[str], split: str, say: Callable[[str], None]
) -> dict[str, BuiltCache]:
    caches = {}
    for name in names:
        task = seqio.TaskRegistry.get(name)
        if split not in task.splits:
            _need(split, f"task {name!r} has no such split")
            say(f"{name}: no {split} split")
            continue
        source = token_source(task, split, request.modules)
        if source.count() == 0:
            _need(split, f"task {name!r} has no records")
            say(f"{name}: no {split} records")
            continue
        _report_quarantine(source, request.out, say)
        caches[name] = build_cache(source, request.out / "caches", request.sequence_length, request.workers)
        say(_summary(caches[name]))
    return caches


def _report_quarantine(source: TokenSource, out: Path, say: Callable[[str], None]) -> None:
    """Says what of a user's files was not read, and writes reasons and examples beside the caches."""
    if not (isinstance(source, RenderedTask) and isinstance(source.source, UserDataSource)):
        return
    ignored, quarantine = source.source.ignored, source.source.quarantine
    if ignored:
        few = ", ".join(ignored[:3]) + (" …" if len(ignored) > 3 else "")
        files = "1 file of another kind is" if len(ignored) == 1 else f"{len(ignored):,} files of another kind are"
        say(f"{source.name} {source.split}: {files} not read: {few}")
    name = f"quarantine-{source.name}-{source.split}.json"
    path = out / name
    if not quarantine:
        path.unlink(missing_ok=True)  # the data was mended since
    else:
        Storage(str(out)).write_json(name, quarantine.to_json())
        say(f"{source.name} {source.split}: {quarantine.summary()}; examples in {path}")


def _summary(built: BuiltCache) -> str:
    """One line on a cache: what it holds and what was left out."""
    manifest, counters = built.manifest, built.manifest.counters
    left_out = counters.rejected_records + counters.empty_records + counters.unweighted_records
    return (
        f"{manifest.task} {manifest.split}: {manifest.records:,} records ({left_out:,} left out,"
        f" {counters.continued_records:,} continued over rows), {manifest.rows:,} rows, {manifest.tokens:,} tokens,"
        f" {100 * manifest.packing_efficiency:.2f} % of the rows filled{' (already built)' if built.reused else ''}"
        + "".join(f"\n  {rejected.records:,} rejected: {rejected.reason}" for rejected in manifest.rejections)
    )


def _need(split: str, problem: str) -> None:
    if split == "train":
        raise UserError(f"{problem}; leave the task out of the mixture, or give it training records")


def _parts(out: Path, caches: dict[str, BuiltCache]) -> dict[str, TaskCache]:
    return {name: cache.as_part(out) for name, cache in caches.items()}


def _one_vocabulary(manifests: list[CacheManifest]) -> VocabularyIdentity:
    first = manifests[0].vocabulary
    for manifest in manifests:
        if manifest.vocabulary.digest != first.digest:
            raise UserError(
                f"task {manifest.task!r} is tokenised with {manifest.vocabulary.name}, the others with {first.name};"
                " a mixture has one vocabulary"
            )
    return first


def _existing(out: Path) -> MixtureSpec | None:
    path = out / "mixture.json"
    try:
        return load_mixture_spec(str(path)) if path.exists() else None
    except UserError as error:
        raise UserError(f"{error}: delete that file and run again") from error


def _refuse_other_settings(old: MixtureSpec, request: CacheRequest) -> None:
    """What can be told before hours of tokenising."""
    for option in ("sequence_length", "seed", "denominator"):
        before, now = getattr(old, option), getattr(request, option)
        if before != now:
            raise UserError(
                f"{request.out} holds another mixture: its {option.replace('_', ' ')} is {before}, not {now};"
                " build into another directory"
            )


def _refuse_another(out: Path, old: MixtureSpec, spec: MixtureSpec) -> None:
    """A directory may gain stages; everything that an existing mixture says must stay."""
    try:
        check_extension(old, spec, next_row=old.stages[-1].first_row + 1)
    except UserError as error:
        raise UserError(f"{out} holds another mixture: {error}; or build into another directory") from error
