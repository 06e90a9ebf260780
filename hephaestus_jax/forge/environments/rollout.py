"""Plays the episodes of a roll-out in processes, and writes them as a corpus of their own.

Episodes are played in units of a fixed number. A unit's result is kept in `<out>.work/` until the corpus is written, so
a roll-out that was killed goes on where it was, and the bytes do not depend on the number of workers. Every episode
that claims success is played again, from what was written down, in another instance of its environment; one that
answers otherwise is left out and counted.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib
import inspect
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.beam_jobs import Job, Workers, run_jobs
from hephaestus_jax.forge.environments.accounts import EpisodeFacts, account, facts_of
from hephaestus_jax.forge.environments.assignments import RolloutConfig, dealt, episodes_of, split_counts
from hephaestus_jax.forge.environments.environment import ENVIRONMENTS, Environment, Kind, NoWorld, Split
from hephaestus_jax.forge.environments.episodes import Assignment, EpisodeConfig, play_episode, replay
from hephaestus_jax.forge.work import WorkFolder
from hephaestus_jax.formats.record_files import StoredRecord, sorted_rows
from hephaestus_jax.formats.records import PLAYED, SPLITS, Json, Trajectory, digest, episode_of
from hephaestus_jax.formats.row_files import file_digest
from hephaestus_jax.formats.store import Corpus, write_sorted_corpus
from hephaestus_jax.progress import Progress

SLICE = PLAYED
EPISODES_TOGETHER = 50  # of one unit: a fixed number, so that no byte depends on the workers


@dataclass(frozen=True)
class Unit:
    """Some episodes of one environment and split."""

    kind: Kind
    split: Split
    first: int
    last: int

    @property
    def name(self) -> str:
        """Names the unit's result."""
        return f"{self.kind.name}-{self.split}-{self.first:06d}"

    def key(self, work: WorkFolder, config: RolloutConfig) -> str:
        """Of everything that the result depends on."""
        kind, terms = self.kind, self.kind.terms
        where = [kind.name, terms.package, terms.version, list(kind.games), list(kind.unseen_games), kind.held_out]
        words = [config.thoughts, config.perturbed, config.failures]
        source = file_digest(Path(inspect.getfile(kind.make)))  # of an environment from elsewhere
        return work.key(
            "episodes", where, source, self.split, self.first, self.last, list(config.policies), config.seed, words
        )


@dataclass
class Played:
    """What came of a unit: facts of its episodes in the order of their ids, and what was given up, by reason."""

    facts: list[EpisodeFacts] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)


def roll_out(config: RolloutConfig, out: Path | str) -> Corpus:
    """Plays everything, or goes on with a roll-out that was interrupted.

    Raises:
        UserError: an environment is unknown, none is installed, or the folder is in use or holds something else.
    """
    out = Path(out).absolute()
    if out.exists() and not (out / "manifest.json").exists() and any(out.iterdir()):
        raise UserError(f"{out} exists and is no corpus; choose another folder for the episodes")
    if (out / "manifest.json").exists() and Corpus(out).manifest.get("builder") != "rollout":
        raise UserError(f"{out} holds another corpus; choose another folder for the episodes")
    import_modules(config.modules)
    found, missing = _playable(config)
    counts = dealt(config.episodes, [share for _, share in found])
    units = [unit for (kind, _), count in zip(found, counts, strict=True) for unit in _units(kind, count, config)]
    work = WorkFolder(out.with_name(out.name + ".work"))
    with work.locked():
        keys = [unit.key(work, config) for unit in units]
        if (out / "manifest.json").exists() and Corpus(out).manifest.get("made_from") == digest(keys):
            return Corpus(out)  # whole already
        jobs = [
            Job(unit.name, unit.last - unit.first, _play_job, (unit, key, work))
            for unit, key in zip(units, keys, strict=True)
            if not work.has("played", unit.name, key)
        ]
        run_jobs("playing", jobs, Workers(config.workers), _prepare, config, unit="episodes")
        corpus = _write(out, work, units, keys, config, missing)
        work.remove()
    return corpus


def import_modules(modules: Sequence[str]) -> None:
    """Imports modules that register environments.

    Raises:
        UserError: there is no such module.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise UserError(f"there is no module {module}; run where it can be imported from") from None


def _playable(config: RolloutConfig) -> tuple[list[tuple[Kind, float]], dict[str, str]]:
    """The environments that can be played here with their shares, and why the others cannot; these are told at once."""
    wanted = config.kinds()
    missing = {kind.name: reason for kind, _ in wanted if (reason := _unplayable(kind))}
    found = [(kind, share) for kind, share in wanted if kind.name not in missing]
    if not found:
        raise UserError("no environment can be played: " + "; ".join(f"{k}: {v}" for k, v in missing.items()))
    for name, reason in missing.items():
        print(f"left out: {name}: {reason}", file=sys.stderr, flush=True)
    return found, missing


def _unplayable(kind: Kind) -> str:
    """Why an environment cannot be played on this machine; "" if it can."""
    if reason := kind.missing():
        return reason
    try:
        kind.make().close()
    except UserError as error:  # for instance, no way here to lock a shell in
        return str(error)
    return ""


def _units(kind: Kind, episodes: int, config: RolloutConfig) -> Iterator[Unit]:
    for split, count in split_counts(kind, episodes, config.validation_fraction).items():
        for first in range(0, count, EPISODES_TOGETHER):
            yield Unit(kind, split, first, min(first + EPISODES_TOGETHER, count))


# --- in the workers ---------------------------------------------------------------------------------------------------

_config = RolloutConfig()


def _prepare(config: RolloutConfig) -> None:
    global _config
    _config = config
    import_modules(config.modules)


def _play_job(unit: Unit, key: str, work: WorkFolder) -> None:
    records, lost = play_unit(unit, _config)
    rows = sorted_rows(records)
    of_ids = {row.id: facts_of(row.parsed()) for row in rows}
    work.save_records("episodes", unit.name, key, rows)
    work.save("played", unit.name, key, Played([of_ids[row.id] for row in rows], lost))


def play_unit(unit: Unit, config: RolloutConfig) -> tuple[list[Trajectory], Counter[str]]:
    """The episodes of a unit, and how many were given up, by reason.

    Raises:
        UserError: the environment failed in every one of them.
    """
    records: list[Trajectory] = []
    lost: Counter[str] = Counter()
    with _Instances(unit.kind) as instances:
        for tried in episodes_of(unit.kind, unit.split, unit.first, unit.last, config):
            made = next(filter(None, (_tried(wanted, instances, config.words, lost) for wanted in tried)), None)
            if made is not None:
                records.append(made)
            else:
                lost["not played at all"] += 1
    if instances.failures and not records:
        raise UserError(f"environment {unit.kind.name} failed in every episode: {instances.failures[0]}")
    return records, lost


class _Instances:
    """Two instances of an environment: one to play in, one to play again what was written down."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.failures: list[str] = []
        self._make()

    def _make(self) -> None:
        with contextlib.ExitStack() as made:  # closes the player when no checker can be made
            self.player: Environment = self._kind.make()
            made.callback(self.player.close)
            self.checker: Environment = self._kind.make()
            made.callback(self.checker.close)
            self._open = made.pop_all()

    def renew(self, error: Exception) -> str:
        """New ones after an error that is the environment's own, whose state nobody knows now; the error in words."""
        self.failures.append(f"{type(error).__name__}: {error}".partition("\n")[0])
        self._open.close()
        self._make()
        return self.failures[-1]

    def __enter__(self) -> _Instances:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _tried(wanted: Assignment, instances: _Instances, config: EpisodeConfig, lost: Counter[str]) -> Trajectory | None:
    """An episode that can be played again; None, and why in `lost`, if none comes of the assignment."""
    try:
        made = play_episode(instances.player, wanted, config)
        problem = replay(instances.checker, made) if made is not None and made.success else ""
        if made is not None and not problem:
            return made
        reason = f"played again, it {problem}" if problem else "no way found to play this seed"
    except NoWorld:
        reason = "no world for this seed"
    except UserError:
        raise
    except Exception as error:  # a package's own; one bad episode must not cost the others
        reason = f"the environment {wanted.kind.name} failed: {instances.renew(error)}"
    lost[f"{wanted.policy}: {reason}; others were tried"] += 1
    return None


def verify(corpus: Corpus) -> tuple[int, list[tuple[str, str]]]:
    """Plays every episode that claims success once more; how many, and (name, what answers otherwise) of those that do.

    Raises:
        UserError: an environment of the corpus is unknown here, or not installed.
    """
    instances: dict[str, Environment] = {}
    problems: list[tuple[str, str]] = []
    checked = 0
    total = sum(corpus.count(SLICE, split) for split in SPLITS)
    with contextlib.ExitStack() as open_instances, Progress("playing again", "episodes", total) as progress:
        for split in SPLITS:
            for _, record in progress.track(corpus.read(SLICE, split)):
                if not isinstance(record, Trajectory) or not record.success:
                    continue
                name = episode_of(record)["environment"]
                if name not in instances:
                    instances[name] = _installed(name).make()
                    open_instances.callback(instances[name].close)
                checked += 1
                if problem := replay(instances[name], record):
                    problems.append((record.name, problem))
    if not checked:
        raise UserError(f"no episode of {corpus.directory} claims success; name the folder of a roll-out")
    return checked, problems


def _installed(name: str) -> Kind:
    kind = ENVIRONMENTS.get(name)
    reason = _unplayable(kind) if kind else "it is unknown here"
    if kind is None or reason:
        raise UserError(f"environment {name}: {reason}")
    return kind


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(
    out: Path, work: WorkFolder, units: Sequence[Unit], keys: Sequence[str], config: RolloutConfig, missing: dict
) -> Corpus:
    _allow_open_files(len(units) + 100)
    played = [work.load("played", unit.name, key) for unit, key in zip(units, keys, strict=True)]
    known = {facts.task for made in played for facts in made.facts if facts.split == "train"}
    kept: list[EpisodeFacts] = []

    def rows(training: bool) -> Iterator[StoredRecord]:
        chosen = [(u, k, p) for u, k, p in zip(units, keys, played, strict=True) if (u.split == "train") == training]
        parts = [_rows_of(work.load_records("episodes", unit.name, key), made) for unit, key, made in chosen]
        for row, facts in heapq.merge(*parts, key=lambda pair: pair[0].id):
            if facts.doings in doings:
                repeats["the same words and calls as in another"] += 1
            elif not training and facts.task in known:
                repeats["a validation task that training has too"] += 1
            else:
                doings.add(facts.doings)
                kept.append(facts)
                yield row

    doings: set[str] = set()
    repeats: Counter[str] = Counter()
    groups = {(SLICE, "train"): rows(True), (SLICE, "validation"): rows(False)}
    lost = sum((made.lost for made in played), Counter[str]())
    kinds = list({unit.kind.name: unit.kind for unit in units}.values())

    def about() -> dict[str, Json]:
        return {**_about(config, kinds, kept, lost + repeats, missing), "made_from": digest(list(keys))}

    return write_sorted_corpus(out, groups, about)


def _allow_open_files(count: int) -> None:
    """All units' files are open at once while they are merged; most systems allow 1,024 of them unless asked.

    Raises:
        UserError: the system does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise UserError(f"{count:,} files must be open at once, {hard:,} are allowed; raise the limit (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _rows_of(rows: Iterator[StoredRecord], made: Played) -> Iterator[tuple[StoredRecord, EpisodeFacts]]:
    yield from zip(rows, made.facts, strict=True)


def _about(
    config: RolloutConfig, kinds: Sequence[Kind], kept: Sequence[EpisodeFacts], left_out: Counter[str], missing: dict
) -> dict[str, Json]:
    """What the manifest tells beside the shards."""
    return {
        "builder": "rollout",
        "seed": config.seed,
        "policies": list(config.policies),
        "thoughts": config.thoughts,
        "perturbed": config.perturbed,
        "failures": config.failures,
        "environments": {
            kind.name: {
                "package": kind.terms.package or "hephaestus_jax",
                "version": kind.terms.version,
                "licence": kind.terms.licence,
                "games": list(kind.games),
                "unseen_games": list(kind.unseen_games),
                "held_out": kind.held_out,
            }
            for kind in kinds
        },
        "unavailable_environments": missing,
        "left_out": dict(sorted(left_out.items())),
        "episodes": account(kept),
    }
