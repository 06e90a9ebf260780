"""From sources to a corpus: fetch, read, execute, clean, plan, finish, compose, write.

1. *fetch*: the pinned packages of the sources; what cannot be had is reported, and the rest goes on.
2. *read*: every unit's records (some files of a source, or a Python distribution).
3. *execute*: the examples of Python docstrings, in sandboxed workers.
4. *clean*: licences, languages, boilerplate, secrets, benchmarks; and an info of every record.
5. *plan*: over the whole corpus: repeats, versions, near-duplicates, what is held out, what is validation.
6. *finish*: every unit's records put on their sides and cut.
7. *compose*: documented example calls as trajectories.
8. *write*: one sorted corpus with its manifest and the list of held-out APIs.

Stages 2, 4, 6 and 7 are Beam pipelines over units (`beam_jobs`). Their results are kept in `<out>.work/` until the
corpus is written, so a build that was killed goes on where it was. All orders are fixed by names and contents: the
bytes do not depend on the number of workers.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import stages, unit_jobs
from hephaestus_jax.forge.beam_jobs import Job, Workers, run_jobs
from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.decontamination import PACKAGES
from hephaestus_jax.forge.doctests.extract import DoctestJob
from hephaestus_jax.forge.doctests.sandbox import Limits, run_doctests
from hephaestus_jax.forge.fetch import Unavailable
from hephaestus_jax.forge.holdout import Census, HeldOut, choose, windows_of
from hephaestus_jax.forge.holdout_services import Described, ServiceApi, candidates, choose_services, joined
from hephaestus_jax.forge.leaks import HELD_OUT_FILE
from hephaestus_jax.forge.ledger import Ledger
from hephaestus_jax.forge.plan import Place, Plan, choose_pool, kept_infos, plan_corpus
from hephaestus_jax.forge.stage_times import StageTimes
from hephaestus_jax.forge.stages import CleanIndex, Finished, Group, ReadFacts
from hephaestus_jax.forge.unit_jobs import stage_of
from hephaestus_jax.forge.units import Found, Unit, find_units, python_path, unpacked_package
from hephaestus_jax.forge.work import WorkFolder
from hephaestus_jax.formats.record_files import StoredRecord
from hephaestus_jax.formats.records import SLICES, SPLITS, ApiDoc, digest
from hephaestus_jax.formats.row_files import file_digest
from hephaestus_jax.formats.store import Corpus, write_sorted_corpus
from hephaestus_jax.progress import Progress

EXECUTED_TOGETHER = 400  # docstrings; a build that is killed loses no more, and no result depends on the workers
POOL = 400  # APIs of other providers that composed trajectories draw distractors from
GROUPS: tuple[Group, ...] = tuple((name, split) for name in SLICES for split in SPLITS)


def build_corpus(config: ForgeConfig, out: Path | str, times: StageTimes | None = None) -> Corpus:
    """Builds the corpus, or goes on with a build that was interrupted.

    Raises:
        UserError: a source is unknown or not installed, nothing was found, the examples cannot be executed here, or the
            folder is in use by another build or for something else.
    """
    out = Path(out).absolute()
    if out.exists() and not (out / "manifest.json").exists() and any(out.iterdir()):
        raise UserError(f"{out} exists and is no corpus; choose another folder for it")
    work = WorkFolder(out.with_name(out.name + ".work"))
    times = times or StageTimes()
    with work.locked():
        with times.measure("fetch"):
            build = _Build(config, work, times)
        for stage in (build.read, build.execute, build.clean, build.plan, build.finish, build.compose):
            with times.measure(stage.__name__):
                stage()
        with times.measure("write"):
            corpus = build.write(out)
        work.remove()
    return corpus


class _Build:
    """The state of one build between its stages."""

    def __init__(self, config: ForgeConfig, work: WorkFolder, times: StageTimes) -> None:
        self.config, self.work, self.records = config, work, times.records
        self.workers = Workers(config.workers, config.beam_options)
        unpacked = work.path / "unpacked"
        self.found: Found = find_units(config, unpacked)
        self.units = self.found.units
        self.benchmarks = _benchmark_folders(config, unpacked)
        self.benchmark_digests = [
            PACKAGES[n].sha256 if n in PACKAGES else file_digest(Path(n)) for n in config.benchmarks
        ]
        self.held_out = HeldOut()
        self.plan_made = Plan([])
        self.languages = Counter[tuple[str, str]]()  # of what goes on, with their slices
        self.pool: dict[str, list[ApiDoc]] = {split: [] for split in SPLITS}

    # --- keys -----------------------------------------------------------------------------------------------------

    def _read_key(self, unit: Unit) -> str:
        config = self.config
        options = [config.include_tests, config.sample, config.seed if config.sample < 1 else 0]
        return self.work.key("read", unit.name, unit.state, options if unit.distribution else [])

    def _execute_key(self, unit: Unit) -> str:
        return self.work.key("execute", self._read_key(unit))

    def _executes(self, unit: Unit) -> bool:
        return self.config.include_doctests and unit.distribution is not None

    def _outcomes_key(self, unit: Unit) -> str:
        """The key of the executed docstrings, "" when none are to be executed."""
        return self._execute_key(unit) if self._executes(unit) else ""

    def _clean_key(self, unit: Unit) -> str:
        config = self.config
        return self.work.key(
            "clean", self._read_key(unit), config.licence_policy, list(config.languages), self.benchmark_digests
        )

    @cached_property
    def _finish_keys(self) -> list[str]:
        """Of every unit; only once the plan is made."""
        held_out = digest(self.held_out.to_json())
        return [
            self.work.key(
                "finish", held_out, self._clean_key(unit), self._outcomes_key(unit),
                self.plan_made.share(number).to_json(),
            )
            for number, unit in enumerate(self.units)
        ]  # fmt: skip

    @cached_property
    def _compose_keys(self) -> list[str]:
        """Of every unit; only once the plan is made."""
        pool = digest({split: [doc.name for doc in docs] for split, docs in self.pool.items()})
        return [self.work.key("compose", key, pool, self.config.seed) for key in self._finish_keys]

    # --- stages ---------------------------------------------------------------------------------------------------

    def _run(self, label: str, jobs: Sequence[Job]) -> None:
        shared = (self.config, self.benchmarks, self.held_out, self.pool)
        run_jobs(label, jobs, self.workers, unit_jobs.prepare, *shared)

    def read(self) -> None:
        """Reads every unit."""
        keyed = [(unit, self._read_key(unit)) for unit in self.units]
        jobs = [
            Job(unit.name, unit.size, unit_jobs.read_job, (unit, key, self.work))
            for unit, key in keyed
            if not self.work.has("read-facts", unit.name, key)
        ]
        self._run("reading sources", jobs)
        self.records["read"] = self.records["clean"] = sum(facts.read.total() for _, facts in self._read_facts())

    def execute(self) -> None:
        """Runs the docstrings of one distribution after the other; the sandbox has its own workers."""
        waiting = [
            unit
            for unit in self.units
            if self._executes(unit) and not self.work.has("outcomes", unit.name, self._execute_key(unit))
        ]
        jobs = {unit.name: stages.jobs_of(self.work.load("read", unit.name, self._read_key(unit))) for unit in waiting}
        if not waiting:
            return
        with Progress("executing docstrings (each twice)", "docstrings", 2 * sum(map(len, jobs.values()))) as progress:
            for unit in waiting:
                outcomes: list[Any] = []
                for first in range(0, len(jobs[unit.name]), EXECUTED_TOGETHER):
                    part = jobs[unit.name][first : first + EXECUTED_TOGETHER]
                    outcomes += self._execute_part(f"{unit.name}-{first:06d}", self._execute_key(unit), part, progress)
                self.work.save("outcomes", unit.name, self._execute_key(unit), outcomes)

    def _execute_part(self, name: str, key: str, jobs: Sequence[DoctestJob], progress: Progress) -> list[Any]:
        if self.work.has("outcomes", name, key):
            progress.add(2 * len(jobs))
        else:
            scratch = self.work.path / "scratch"
            path = python_path(self.units, self.config)
            run = run_doctests(jobs, self.config.workers, Limits(), scratch, progress, path)
            self.work.save("outcomes", name, key, list(run))
        return self.work.load("outcomes", name, key)

    def clean(self) -> None:
        """Cleans every unit's records."""
        keyed = [(unit, self._read_key(unit), self._clean_key(unit)) for unit in self.units]
        jobs = [
            Job(unit.name, unit.size, unit_jobs.clean_job, (unit, read_key, key, self.work))
            for unit, read_key, key in keyed
            if not self.work.has("clean-index", unit.name, key)
        ]
        self._run("cleaning records", jobs)

    def plan(self) -> None:
        """Decides what of the whole corpus goes where."""
        indexes = [self.work.load("clean-index", unit.name, self._clean_key(unit)) for unit in self.units]
        if not any(index.infos for index in indexes):
            raise UserError("nothing was found to build a corpus from; name other sources")
        self.records["plan"] = self.records["finish"] = sum(len(index.infos) for index in indexes)
        with Progress("planning", "steps", 4) as progress:
            self.plan_made = plan_corpus(self.units, indexes, self.config)
            self.languages = Counter((info.slice, info.language) for _, info in kept_infos(indexes, self.plan_made))
            progress.add()
            census = self._census(indexes)
            python = self._hold_out_python(indexes, census)
            progress.add()
            self.held_out = joined(python, self._hold_out_services(indexes, census))
            progress.add()
            places = choose_pool(indexes, self.plan_made, POOL, self.config.seed) if self.config.compose else {}
            self.pool = {split: self._docs_at(places.get(split, [])) for split in SPLITS}
            progress.add()

    def _census(self, indexes: Sequence[CleanIndex]) -> Census:
        """What all units say about the names of APIs; what a name is renamed to counts too."""
        names = {
            part for index in indexes for api in index.apis for name in api.all_names for part in name.split(".")
        } | {info.api.function for index in indexes for info in index.infos if info.api is not None}
        censuses = [facts.census for _, facts in self._read_facts()]
        names |= {name for census in censuses for pair in census.renames for name in pair}
        total = Census()
        for census in censuses:
            total.update(census.only(names))
        return total

    def _read_facts(self) -> Iterator[tuple[Unit, ReadFacts]]:
        for unit in self.units:
            yield unit, self.work.load("read-facts", unit.name, self._read_key(unit))

    def _hold_out_python(self, indexes: Sequence[CleanIndex], census: Census) -> HeldOut:
        apis = [
            api
            for unit, index in enumerate(indexes)
            for number, api in enumerate(index.apis)
            if self.plan_made.kept(Place(unit, number))
        ]
        return choose(apis, census, self.config.heldout_fraction, self.config.heldout_max_uses, self.config.seed)

    def _hold_out_services(self, indexes: Sequence[CleanIndex], census: Census) -> HeldOut:
        config = self.config
        apis = [
            ServiceApi(place, info.api)
            for place, info in kept_infos(indexes, self.plan_made)
            if info.api is not None and info.api.interface != "python"
        ]
        chosen = candidates(apis, config.heldout_fraction, config.seed)
        places = [item.place for items in chosen.values() for item in items]
        services = [item.api.service for items in chosen.values() for item in items]
        docs = dict(zip(places, self._docs_at(places), strict=True))
        described = [
            Described(service, docs[place].name, docs[place].description)
            for place, service in zip(places, services, strict=True)
        ]
        holders = self._holders({window for item in described for window in windows_of(item.description)})
        functions = Counter(item.api.function for item in apis)
        wanted = round(config.heldout_fraction * len(apis))
        held_out, held = choose_services(chosen, described, holders, functions, census, wanted)
        for service in held:
            for item in chosen[service]:
                self.plan_made.validate(item.place)
        return held_out

    def _holders(self, windows: set[str]) -> dict[str, Counter[str]]:
        """How many descriptions of every service hold each window."""
        holders: dict[str, Counter[str]] = defaultdict(Counter)
        if not windows:
            return holders
        wanted = sorted(windows)
        key = self.work.key("windows", digest(wanted), [self._clean_key(unit) for unit in self.units])
        self.work.save("windows", "wanted", key, wanted)
        jobs = [
            Job(unit.name, unit.size, unit_jobs.windows_job, (unit, self._clean_key(unit), key, self.work))
            for unit in self.units
            if not self.work.has("windows", unit.name, key)
        ]
        self._run("looking for copies", jobs)
        for unit in self.units:
            for window, services in self.work.load("windows", unit.name, key).items():
                holders[window].update(services)
        return holders

    def _docs_at(self, places: Sequence[Place]) -> list[ApiDoc]:
        """The documentation at these places, in their order."""
        wanted: dict[int, set[int]] = defaultdict(set)
        for place in places:
            wanted[place.unit].add(place.number)
        found: dict[Place, ApiDoc] = {}
        for number in sorted(wanted):
            unit = self.units[number]
            rows = self.work.load_records("clean", unit.name, self._clean_key(unit))
            for row_number, row in enumerate(rows):
                if row_number in wanted[number] and isinstance(record := row.parsed(), ApiDoc):
                    found[Place(number, row_number)] = record
        return [found[place] for place in places]

    def finish(self) -> None:
        """Puts the records of every unit on their sides, and cuts the training side."""
        jobs = []
        for number, unit in enumerate(self.units):
            key, share = self._finish_keys[number], self.plan_made.share(number)
            if not self.work.has("finished-facts", unit.name, key):
                arguments = (unit, self._clean_key(unit), self._outcomes_key(unit), share, key, self.work)
                jobs.append(Job(unit.name, unit.size, unit_jobs.finish_job, arguments))
        self._run("finishing records", jobs)

    def compose(self) -> None:
        """Composes the example calls of every unit."""
        jobs = []
        for number, unit in enumerate(self.units):
            key = self._compose_keys[number]
            if self._composes(unit) and not self.work.has("composed-facts", unit.name, key):
                jobs.append(
                    Job(unit.name, unit.size, unit_jobs.compose_job, (unit, self._finish_keys[number], key, self.work))
                )
        self._run("composing calls", jobs)
        self.records["compose"] = sum(
            self.work.load("composed-facts", unit.name, self._compose_keys[number]).made.total()
            for number, unit in enumerate(self.units)
            if self._composes(unit)
        )

    def _composes(self, unit: Unit) -> bool:
        return self.config.compose and unit.distribution is None

    def write(self, out: Path) -> Corpus:
        """Writes the records that are no duplicates, the manifest and the list of held-out APIs."""
        parts = self._parts()
        kept = without_duplicates({name: part[0] for name, part in parts.items()})
        ledger = Ledger()
        for unit, facts in self._read_facts():
            ledger.add_read(facts)
            ledger.add_clean(self.work.load("clean-index", unit.name, self._clean_key(unit)).facts)
            if self._executes(unit):
                ledger.add_doctests(unit.name, self.work.load("outcomes", unit.name, self._execute_key(unit)))
        for name, (made, _, _) in parts.items():
            ledger.add_finished(made, {group: kept[name, group] for group in GROUPS})
        ledger.check()
        ledger.add_languages(self.languages)
        self.records["write"] = sum(map(len, kept.values()))
        with Progress("writing", "records", self.records["write"]) as progress:
            groups = {
                group: progress.track(self._rows(group, parts, kept, ledger))
                for group in GROUPS
                if any(kept[name, group] for name in parts)
            }
            held_out = json.dumps(self.held_out.to_json(), ensure_ascii=False, indent=1) + "\n"
            extra = {HELD_OUT_FILE: held_out}
            return write_sorted_corpus(
                out, groups, lambda: ledger.about(self.config, self.held_out, self.found, self.plan_made), extra
            )

    def _parts(self) -> dict[str, tuple[Finished, str, str]]:
        """Everything that was finished or composed: name of the part to its facts, unit's name and key."""
        parts: dict[str, tuple[Finished, str, str]] = {}
        for number, unit in enumerate(self.units):
            key = self._finish_keys[number]
            parts[unit.name] = (self.work.load("finished-facts", unit.name, key), "finished", key)
            if self._composes(unit):
                key = self._compose_keys[number]
                made = self.work.load("composed-facts", unit.name, key)
                parts[f"{unit.name} composed"] = (made, "composed", key)
        return parts

    def _rows(
        self,
        group: Group,
        parts: Mapping[str, tuple[Finished, str, str]],
        kept: Mapping[tuple[str, Group], Sequence[int]],
        ledger: Ledger,
    ) -> Iterator[StoredRecord]:
        """The rows of a group in id order, each id once."""

        def rows_of(name: str) -> Iterator[StoredRecord]:
            _, stage, key = parts[name]
            numbers = set(kept[name, group])
            rows = self.work.load_records(stage_of(stage, group), name.removesuffix(" composed"), key)
            yield from (row for number, row in enumerate(rows) if number in numbers)

        last = ""
        for row in heapq.merge(*(rows_of(name) for name in parts if kept[name, group]), key=lambda row: row.id):
            if row.id != last:
                ledger.distributions.add(group, row)
                yield row
            last = row.id


def _benchmark_folders(config: ForgeConfig, unpacked: Path) -> tuple[str, ...]:
    """The benchmarks that are kept out, those of packages as their folders.

    Raises:
        UserError: a benchmark cannot be had: a corpus without that check would be taken for one with it.
    """
    folders = []
    for name in config.benchmarks:
        if name in PACKAGES:
            try:
                folders.append(f"{name}={unpacked_package(PACKAGES[name], config, unpacked)}")
            except Unavailable as error:
                told = f"benchmark {name} cannot be kept out: {error}; leave it out of `benchmarks`"
                raise UserError(told) from error
        elif Path(name).is_file():
            folders.append(str(Path(name).absolute()))
        else:
            raise UserError(f"benchmark {name} is neither one of {', '.join(PACKAGES)} nor a file of JSON lines")
    return tuple(folders)


def without_duplicates(finished: Mapping[str, Finished]) -> dict[tuple[str, Group], list[int]]:
    """The numbers of the records that stay, per part and group: of those that say the same, the first.

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
