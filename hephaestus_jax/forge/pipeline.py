"""From the installed packages to a corpus: read, execute, plan, finish, write.

1. *read*: every distribution's records, and an index of what they say (parallel).
2. *execute*: the examples of their docstrings, in sandboxed workers.
3. *plan*: over the whole corpus: which APIs are held out, which documents are duplicates or validation.
4. *finish*: every distribution's records put on their sides and cut (parallel).
5. *write*: one sorted corpus with its manifest and the list of held-out APIs.

The results of 1, 2 and 4 are kept in `<out>.work/` until the corpus is written, so a build that was killed goes on
where it was. All orders are fixed by names and contents: the bytes do not depend on the number of workers.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import dedup, stages
from hephaestus_jax.forge.config import InstalledCorpusConfig
from hephaestus_jax.forge.cutting import Cutter
from hephaestus_jax.forge.doctests.extract import DoctestJob
from hephaestus_jax.forge.doctests.results import Counts, tally
from hephaestus_jax.forge.doctests.sandbox import Limits, run_doctests
from hephaestus_jax.forge.holdout import Api, Census, HeldOut, choose
from hephaestus_jax.forge.installed import Distribution, iter_distributions
from hephaestus_jax.forge.leaks import HELD_OUT_FILE
from hephaestus_jax.forge.ledger import ledger_of
from hephaestus_jax.forge.stages import DocumentInfo, Finished, Group, Index, Share
from hephaestus_jax.forge.work import WorkFolder
from hephaestus_jax.forge.workers import Job, run_jobs
from hephaestus_jax.formats.records import SLICES, SPLITS, Record, digest
from hephaestus_jax.formats.store import Corpus, write_corpus
from hephaestus_jax.progress import Progress

EXECUTED_TOGETHER = 400  # docstrings; a build that is killed loses no more, and no result depends on the workers
GROUPS: tuple[Group, ...] = tuple((name, split) for name in SLICES for split in SPLITS)


def build_installed_corpus(config: InstalledCorpusConfig, out: Path | str) -> Corpus:
    """Builds the corpus of an installation, or goes on with a build that was interrupted.

    Raises:
        UserError: a package is not installed, nothing was found, the examples cannot be executed here, or the folder
            is in use by another build or for something else.
    """
    out = Path(out).absolute()
    if out.exists() and not (out / "manifest.json").exists() and any(out.iterdir()):
        raise UserError(f"{out} exists and is no corpus; choose another folder for it")
    found = iter_distributions(config.packages, config.site_directories)
    work = WorkFolder(out.with_name(out.name + ".work"))
    with work.locked():
        build = _Build(config, work, found)
        build.read()
        build.execute()
        build.plan()
        build.finish()
        corpus = build.write(out)
        work.remove()
    return corpus


@dataclass(frozen=True)
class _Task:
    """One distribution on its way through the stages; `size` is that of its Python files in bytes."""

    distribution: Distribution
    read_key: str
    size: int

    @property
    def name(self) -> str:
        return self.distribution.name


class _Build:
    """The state of one build between its stages."""

    def __init__(self, config: InstalledCorpusConfig, work: WorkFolder, found: Sequence[Distribution]) -> None:
        self.config, self.work = config, work
        self.refused = {item.name: item.licence for item in found if not config.allows(item.licence)}
        self.tasks = [_task(item, config, work) for item in found if item.name not in self.refused]
        self.held_out = HeldOut()
        self.shares: dict[str, Share] = {}

    def read(self) -> None:
        """Reads every distribution."""
        jobs = [
            Job(task.name, task.size, _read_task, (task, self.config, self.work))
            for task in self.tasks
            if not self.work.has("contents", task.name, task.read_key)
        ]
        run_jobs("reading sources", jobs, self.config.workers, _prepare, None)

    def execute(self) -> None:
        """Runs the docstrings of one distribution after the other; the sandbox has its own workers."""
        if not self.config.include_doctests:
            return
        waiting = [t for t in self.tasks if not self.work.has("outcomes", t.name, self._execute_key(t))]
        jobs = {task.name: stages.jobs_of(self.work.load("contents", task.name, task.read_key)) for task in waiting}
        with Progress("executing docstrings (each twice)", "docstrings", 2 * sum(map(len, jobs.values()))) as progress:
            for task in waiting:
                outcomes: list[Any] = []
                for start in range(0, len(jobs[task.name]), EXECUTED_TOGETHER):
                    part = jobs[task.name][start : start + EXECUTED_TOGETHER]
                    outcomes += self._execute_part(f"{task.name}-{start:06d}", self._execute_key(task), part, progress)
                self.work.save("outcomes", task.name, self._execute_key(task), outcomes)

    def _execute_part(self, name: str, key: str, jobs: Sequence[DoctestJob], progress: Progress) -> list[Any]:
        if self.work.has("outcomes", name, key):
            progress.add(2 * len(jobs))
        else:
            scratch = self.work.path / "scratch"
            python_path = [Path(folder) for folder in self.config.site_directories or ()]
            run = run_doctests(jobs, self.config.workers, Limits(), scratch, progress, python_path)
            self.work.save("outcomes", name, key, list(run))
        return self.work.load("outcomes", name, key)

    def plan(self) -> None:
        """Chooses what is held out, what is a duplicate, and what goes to validation."""
        config = self.config
        with Progress("planning", "steps", 3) as progress:
            apis: list[Api] = []
            documents: list[tuple[str, int, DocumentInfo]] = []
            for task, index in self._indexes():
                apis += index.apis
                documents += [(task.name, number, info) for number, info in enumerate(index.documents)]
            if not apis and not documents:
                raise UserError("nothing was found to build a corpus from; name other packages")
            census = self._census({part for api in apis for name in api.all_names for part in name.split(".")})
            progress.add()
            self.held_out = choose(apis, census, config.heldout_fraction, config.heldout_max_uses, config.seed)
            progress.add()
            self.shares = _shares([task.name for task in self.tasks], documents, config)
            progress.add()

    def finish(self) -> None:
        """Puts the records of every distribution on their sides, and cuts the training side."""
        jobs = [
            Job(task.name, task.size, _finish_task, (task, self.work, self._outcomes_key(task), share, key))
            for task in self.tasks
            for share, key in [(self.shares[task.name], self._finish_key(task))]
            if not self.work.has("finished", task.name, key)
        ]
        run_jobs("cutting sources", jobs, self.config.workers, _prepare, self.held_out)

    def write(self, out: Path) -> Corpus:
        """Writes the records that are no duplicates, the manifest and the list of held-out APIs."""
        finished = {task.name: self.work.load("finished", task.name, self._finish_key(task)) for task in self.tasks}
        kept = without_duplicates(finished)
        distributions = [task.distribution for task in self.tasks]
        doctests = {task.name: _counts(task.name, self._outcomes(task)) for task in self.tasks}
        ledger = ledger_of(distributions, (index for _, index in self._indexes()), doctests, finished, kept)
        with Progress("writing", "records", sum(map(len, kept.values()))) as progress:
            groups = {
                group: progress.track(self._records(group, kept))
                for group in GROUPS
                if any(kept[name, group] for name in finished)
            }
            corpus = write_corpus(out, groups, ledger.about(self.config, self.held_out, self.refused))
        partial = out / (HELD_OUT_FILE + ".partial")
        partial.write_text(json.dumps(self.held_out.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")
        os.replace(partial, out / HELD_OUT_FILE)
        return corpus

    def _records(self, group: Group, kept: Mapping[tuple[str, Group], Sequence[int]]) -> Iterator[Record]:
        for task in self.tasks:
            if numbers := kept[task.name, group]:
                stored = self.work.load(_stage_of(group), task.name, self._finish_key(task))
                yield from (stored[number] for number in numbers)

    def _indexes(self) -> Iterator[tuple[_Task, Index]]:
        for task in self.tasks:
            yield task, self.work.load("index", task.name, task.read_key)

    def _census(self, names: set[str]) -> Census:
        """What all distributions say about names; what a name is renamed to counts too."""
        censuses = [index.census for _, index in self._indexes()]
        names = names | {name for census in censuses for pair in census.renames for name in pair}
        total = Census()
        for census in censuses:
            total.update(census.only(names))
        return total

    def _execute_key(self, task: _Task) -> str:
        return self.work.key("execute", task.read_key)

    def _outcomes_key(self, task: _Task) -> str:
        """The key of the executed docstrings, "" when none are to be executed."""
        return self._execute_key(task) if self.config.include_doctests else ""

    def _outcomes(self, task: _Task) -> list[Any]:
        key = self._outcomes_key(task)
        return self.work.load("outcomes", task.name, key) if key else []

    def _finish_key(self, task: _Task) -> str:
        parts = [task.read_key, self._outcomes_key(task), self.shares[task.name].to_json()]
        return self.work.key("finish", digest(self.held_out.to_json()), *parts)


def _task(distribution: Distribution, config: InstalledCorpusConfig, work: WorkFolder) -> _Task:
    stats: list[tuple[str, int, int]] = []
    for file in distribution.files:
        try:
            stat = os.stat(distribution.root / file)
        except OSError:
            continue  # listed but not there: reading says so
        stats.append((file, stat.st_size, stat.st_mtime_ns))
    origin = [distribution.name, distribution.version, distribution.licence, distribution.description]
    reading = [config.include_tests, config.sample, config.seed if config.sample < 1 else 0]
    key = work.key("read", origin, str(distribution.root), stats, reading)
    return _Task(distribution, key, sum(size for file, size, _ in stats if file.endswith(".py")))


def _stage_of(group: Group) -> str:
    return "records-" + "-".join(group)


def _counts(name: str, outcomes: Sequence[Any]) -> Counts:
    return tally(outcomes).get(name, Counts())


_cutter: Cutter | None = None  # of this process: its tables take seconds to make, and all jobs share them
_held_out = HeldOut()


def _prepare(held_out: HeldOut | None) -> None:
    global _cutter, _held_out
    if held_out is not None:
        _cutter, _held_out = Cutter(held_out), held_out


def _read_task(task: _Task, config: InstalledCorpusConfig, work: WorkFolder) -> None:
    index, contents = stages.read(task.distribution, config)
    work.save("index", task.name, task.read_key, index)
    work.save("contents", task.name, task.read_key, contents)


def _finish_task(task: _Task, work: WorkFolder, outcomes_key: str, share: Share, key: str) -> None:
    assert _cutter is not None
    contents = work.load("contents", task.name, task.read_key)
    outcomes = work.load("outcomes", task.name, outcomes_key) if outcomes_key else []
    made = stages.finish(contents, outcomes, share, _held_out, _cutter)
    for group in GROUPS:
        work.save(_stage_of(group), task.name, key, made.records.get(group, []))
    work.save("finished", task.name, key, dataclasses.replace(made, records={}))


def _shares(
    names: Iterable[str], documents: Sequence[tuple[str, int, DocumentInfo]], config: InstalledCorpusConfig
) -> dict[str, Share]:
    """Which documents are duplicates and which are validation, per distribution."""
    shares: dict[str, dict[str, Any]] = {
        name: {"dropped": {}, "validation": set(), "reserved": set()} for name in names
    }
    code = {(name, info.path) for name, _, info in documents if info.slice == "code"}
    for slice_name in ("code", "text"):
        entries = [entry for entry in documents if entry[2].slice == slice_name]
        groups = dedup.near_duplicate_groups(dedup.stack([info.signature_P for _, _, info in entries]))
        grouped = {row for group in groups for row in group}
        for group in [*groups, *([row] for row in range(len(entries)) if row not in grouped)]:
            family = [entries[row] for row in group]
            name, number, info = family[0]
            texts = {info.digest}
            for other, other_number, other_info in family[1:]:
                exact = other_info.digest in texts
                shares[other]["dropped"][other_number] = "exact duplicate" if exact else "near-duplicate"
                texts.add(other_info.digest)
            file = stages.file_of(info.path)
            key = file if (name, file) in code else info.path  # a file's code and its own prose share one side
            if dedup.keyed_fraction(config.seed, "validation", name, key) < config.validation_fraction:
                shares[name]["validation"].add(number)
                if slice_name == "code":
                    for other, _, other_info in family:
                        shares[other]["reserved"].add(other_info.path)
    return {
        name: Share(dict(sorted(s["dropped"].items())), frozenset(s["validation"]), frozenset(s["reserved"]))
        for name, s in shares.items()
    }


def without_duplicates(finished: Mapping[str, Finished]) -> dict[tuple[str, Group], list[int]]:
    """The numbers of the records that stay, per distribution and group: of those that say the same, the first.

    Validation comes before training, for what it holds must not be trained on.
    """
    kept: dict[tuple[str, Group], list[int]] = {}
    for slice_name in SLICES:
        seen: set[str] = set()
        for split in reversed(SPLITS):
            for name, made in finished.items():
                numbers = kept[name, (slice_name, split)] = []
                for number, (text, _) in enumerate(made.summaries.get((slice_name, split), ())):
                    if text not in seen:
                        seen.add(text)
                        numbers.append(number)
    return kept
