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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import dedup, stages
from hephaestus_jax.forge.config import InstalledCorpusConfig
from hephaestus_jax.forge.cutting import Cutter
from hephaestus_jax.forge.doctests.results import Counts, tally
from hephaestus_jax.forge.holdout import Api, Census, HeldOut, choose
from hephaestus_jax.forge.installed import Distribution, iter_distributions
from hephaestus_jax.forge.leaks import HELD_OUT_FILE
from hephaestus_jax.forge.ledger import ledger_of
from hephaestus_jax.forge.stages import DocumentInfo, Finished, Group, Index, Share
from hephaestus_jax.forge.work import WorkFolder
from hephaestus_jax.formats.records import SLICES, SPLITS, Record, digest
from hephaestus_jax.formats.store import Corpus, write_corpus
from hephaestus_jax.progress import Progress

GROUPS: tuple[Group, ...] = tuple((name, split) for name in SLICES for split in SPLITS)


def build_installed_corpus(config: InstalledCorpusConfig, out: Path | str) -> Corpus:
    """Builds the corpus of an installation, or goes on with a build that was interrupted.

    Raises:
        UserError: a package is not installed, nothing was found, or the examples cannot be executed here.
    """
    out = Path(out).absolute()
    if out.exists() and not (out / "manifest.json").exists() and any(out.iterdir()):
        raise UserError(f"{out} exists and is no corpus; choose another folder for it")
    work = WorkFolder(out.with_name(out.name + ".work"))
    build = _Build(config, work)
    build.read()
    if config.include_doctests:
        build.execute()
    build.plan()
    build.finish()
    corpus = _write(build, out)
    work.remove()
    return corpus


@dataclass(frozen=True)
class _Task:
    """One distribution on its way through the stages; `size` is that of its files in bytes."""

    distribution: Distribution
    read_key: str
    size: int

    @property
    def name(self) -> str:
        return self.distribution.name


class _Build:
    """The state of one build between its stages."""

    def __init__(self, config: InstalledCorpusConfig, work: WorkFolder) -> None:
        self.config, self.work = config, work
        found = iter_distributions(config.packages, config.site_directories)
        self.refused = {item.name: item.licence for item in found if not config.allows(item.licence)}
        self.tasks = [_task(item, config, work) for item in found if item.name not in self.refused]
        self.held_out = HeldOut()
        self.shares: dict[str, Share] = {}

    # 1

    def read(self) -> None:
        jobs = {task.name: (_read_task, (task, self.config, self.work)) for task in self.tasks
                if not self.work.has("contents", task.name, task.read_key)}  # fmt: skip
        _run_all("reading", self.tasks, jobs, self.config.workers)

    # 2

    def execute_key(self, task: _Task) -> str:
        return self.work.key("execute", task.read_key)

    def execute(self) -> None:
        """Runs the docstrings of one distribution after the other; the sandbox has its own workers."""
        from hephaestus_jax.forge.doctests.sandbox import Limits, run_doctests

        waiting = [t for t in self.tasks if not self.work.has("outcomes", t.name, self.execute_key(t))]
        python_path = [Path(folder) for folder in self.config.site_directories or ()]
        jobs = {task.name: stages.jobs_of(self.work.load("contents", task.name, task.read_key)) for task in waiting}
        with Progress("executing docstrings (each twice)", "docstrings", 2 * sum(map(len, jobs.values()))) as progress:
            for task in waiting:
                outcomes: list[Any] = []
                if jobs[task.name]:
                    scratch = self.work.path / "scratch"
                    run = run_doctests(
                        jobs[task.name], self.config.workers, Limits(), scratch, progress, python_path
                    )
                    outcomes = list(run)
                self.work.save("outcomes", task.name, self.execute_key(task), outcomes)

    def outcomes(self, task: _Task) -> list[Any]:
        if not self.config.include_doctests:
            return []
        return self.work.load("outcomes", task.name, self.execute_key(task))

    # 3

    def plan(self) -> None:
        """Chooses what is held out, what is a duplicate, and what goes to validation."""
        apis: list[Api] = []
        documents: list[tuple[str, int, DocumentInfo]] = []
        for task, index in self.indexes():
            apis += index.apis
            documents += [(task.name, number, info) for number, info in enumerate(index.documents)]
        if not apis and not documents:
            raise UserError("nothing was found to build a corpus from; name other packages")
        names = {part for api in apis for name in (api.name, *api.aliases) for part in name.split(".")}
        census = self._census(names)
        config = self.config
        self.held_out = choose(apis, census, config.heldout_fraction, config.heldout_max_uses, config.seed)
        self.shares = _shares([task.name for task in self.tasks], documents, config)

    def _census(self, names: set[str]) -> Census:
        """What all distributions say about names; a rename's other name counts too."""
        censuses = [index.census for _, index in self.indexes()]
        total = Census()
        renames = {pair for census in censuses for pair in census.renames}
        names = names | {name for pair in renames for name in pair}
        for census in censuses:
            total.update(census.only(names))
        return total

    def all_counts(self) -> dict[str, Counts]:
        """What came of the docstrings, per distribution."""
        return {task.name: counts for task in self.tasks for counts in tally(self.outcomes(task)).values()}

    # 4

    def finish_key(self, task: _Task) -> str:
        parts = [task.read_key, self.config.include_doctests, self.shares[task.name].to_json()]
        return self.work.key("finish", digest(self.held_out.to_json()), *parts)

    def finish(self) -> None:
        jobs = {}
        for task in self.tasks:
            if not self.work.has("finished", task.name, self.finish_key(task)):
                execute_key = self.execute_key(task) if self.config.include_doctests else None
                arguments = (task, self.work, execute_key, self.shares[task.name], self.finish_key(task))
                jobs[task.name] = (_finish_task, arguments)
        _run_all("cutting", self.tasks, jobs, self.config.workers, self.held_out)

    def indexes(self) -> Iterator[tuple[_Task, Index]]:
        for task in self.tasks:
            yield task, self.work.load("index", task.name, task.read_key)


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


def _run_all(
    label: str,
    tasks: Sequence[_Task],
    jobs: Mapping[str, tuple[Callable[..., None], tuple[Any, ...]]],
    workers: int,
    held_out: HeldOut | None = None,
) -> None:
    """Runs one job per task in processes, the largest first; each keeps its own result."""
    sizes = {task.name: task.size for task in tasks}
    order = sorted(jobs, key=lambda name: (-sizes[name], name))
    with Progress(label, "MB of sources", round(sum(sizes[name] for name in order) / 1e6)) as progress:
        done = 0

        def advance(name: str) -> None:
            nonlocal done
            done += sizes[name]
            progress.add(round(done / 1e6) - progress.count)

        if workers == 1 or len(order) < 2:
            _set_cutter(held_out)
            for name in order:
                function, arguments = jobs[name]
                function(*arguments)
                advance(name)
            return
        with ProcessPoolExecutor(workers, get_context("spawn"), _set_cutter, (held_out,)) as pool:
            running = {pool.submit(jobs[name][0], *jobs[name][1]): name for name in order}
            try:
                while running:
                    finished, _ = wait(running, progress.every, FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        advance(running.pop(future))
                    progress.add(0)  # the first task can take minutes
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


_cutter: Cutter | None = None  # of this process: its tables take seconds to make, and all tasks share them
_held_out = HeldOut()


def _set_cutter(held_out: HeldOut | None) -> None:
    global _cutter, _held_out
    if held_out is not None:
        _cutter, _held_out = Cutter(held_out), held_out


def _read_task(task: _Task, config: InstalledCorpusConfig, work: WorkFolder) -> None:
    index, contents = stages.read(task.distribution, config)
    work.save("index", task.name, task.read_key, index)
    work.save("contents", task.name, task.read_key, contents)


def _finish_task(task: _Task, work: WorkFolder, execute_key: str | None, share: Share, key: str) -> None:
    assert _cutter is not None
    contents = work.load("contents", task.name, task.read_key)
    outcomes = work.load("outcomes", task.name, execute_key) if execute_key else []
    made = stages.finish(contents, outcomes, share, _held_out, _cutter)
    for group in GROUPS:
        work.save("records-" + "-".join(group), task.name, key, made.records.get(group, []))
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


def _write(build: _Build, out: Path) -> Corpus:
    """Writes the records that are no duplicates, the manifest and the list of held-out APIs."""
    finished = {
        task.name: build.work.load("finished", task.name, build.finish_key(task)) for task in build.tasks
    }
    kept = without_duplicates(finished)
    distributions = [task.distribution for task in build.tasks]
    indexes = (index for _, index in build.indexes())
    ledger = ledger_of(distributions, indexes, build.all_counts(), finished, kept)
    held_out = json.dumps(build.held_out.to_json(), ensure_ascii=False, indent=1) + "\n"

    def records(group: Group) -> Iterator[Record]:
        for task in build.tasks:
            stored = build.work.load("records-" + "-".join(group), task.name, build.finish_key(task))
            yield from (stored[number] for number in kept[task.name, group])

    groups = {group: records(group) for group in GROUPS if any(kept[name, group] for name in finished)}
    corpus = write_corpus(out, groups, ledger.about(build.config, build.held_out, build.refused))
    partial = out / (HELD_OUT_FILE + ".partial")
    partial.write_text(held_out, "utf-8")
    os.replace(partial, out / HELD_OUT_FILE)
    return corpus


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
