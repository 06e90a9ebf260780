"""What a stage does with one unit, in any process: load, do the step (`stages`), keep the result.

Tables that take seconds to make (what is held out, the benchmarks) are made once in each process, by the first job that
needs them.
"""

from __future__ import annotations

from functools import cache

from hephaestus_jax.forge import stages
from hephaestus_jax.forge.cleaning import Cleaner
from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.cutting import Cutter
from hephaestus_jax.forge.decontamination import open_benchmarks
from hephaestus_jax.forge.holdout import HeldOut
from hephaestus_jax.forge.stages import Contents, Finished, Group
from hephaestus_jax.forge.units import Unit
from hephaestus_jax.forge.work import WorkFolder
from hephaestus_jax.formats.record_files import sorted_rows
from hephaestus_jax.formats.records import SPLITS, ApiDoc

_config = ForgeConfig()
_benchmarks: tuple[str, ...] = ()
_held_out = HeldOut()
_pool: dict[str, list[ApiDoc]] = {}


def prepare(config: ForgeConfig, benchmarks: tuple[str, ...], held_out: HeldOut, pool: dict[str, list[ApiDoc]]) -> None:
    """What the jobs of a stage share in this process."""
    global _config, _benchmarks, _held_out, _pool
    if (config, benchmarks) != (_config, _benchmarks):
        _cleaner.cache_clear()
    if held_out != _held_out:
        _cutter.cache_clear()
    _config, _benchmarks, _held_out, _pool = config, benchmarks, held_out, pool


@cache
def _cleaner() -> Cleaner:
    return Cleaner(_config, open_benchmarks(_benchmarks) if _benchmarks else None)


@cache
def _cutter() -> Cutter:
    return Cutter(_held_out)


def stage_of(stage: str, group: Group) -> str:
    return f"{stage}-" + "-".join(group)


def read_job(unit: Unit, key: str, work: WorkFolder) -> None:
    facts, contents = stages.read(unit, _config)
    if unit.distribution is None:
        rows = sorted_rows(contents.records)
        facts.count_repeats(contents.records, rows)
        work.save_records("read", unit.name, key, rows)
    else:
        work.save("read", unit.name, key, contents)
    work.save("read-facts", unit.name, key, facts)


def _load(stage: str, unit: Unit, key: str, work: WorkFolder) -> Contents:
    if unit.distribution is not None:
        return work.load(stage, unit.name, key)
    return Contents(records=[row.parsed() for row in work.load_records(stage, unit.name, key)])


def clean_job(unit: Unit, read_key: str, key: str, work: WorkFolder) -> None:
    index, contents = stages.clean(_load("read", unit, read_key, work), _cleaner(), unit.name)
    if unit.distribution is None:
        index, rows = stages.in_id_order(index, contents)
        work.save_records("clean", unit.name, key, rows)
    else:
        work.save("clean", unit.name, key, contents)
    work.save("clean-index", unit.name, key, index)


def windows_job(unit: Unit, clean_key: str, key: str, work: WorkFolder) -> None:
    wanted = set(work.load("windows", "wanted", key))
    found = stages.holders(_load("clean", unit, clean_key, work), wanted)
    work.save("windows", unit.name, key, found)


def finish_job(unit: Unit, clean_key: str, outcomes_key: str, share: stages.Share, key: str, work: WorkFolder) -> None:
    contents = _load("clean", unit, clean_key, work)
    outcomes = work.load("outcomes", unit.name, outcomes_key) if outcomes_key else []
    made = stages.finish(contents, outcomes, share, _held_out, _cutter(), _cleaner())
    _save_finished("finished", unit, key, made, work)


def compose_job(unit: Unit, finish_key: str, key: str, work: WorkFolder) -> None:
    made = Finished()
    for split in SPLITS:
        stage = stage_of("finished", ("agent_docs", split))
        if work.has(stage, unit.name, finish_key):
            records = (row.parsed() for row in work.load_records(stage, unit.name, finish_key))
            docs = [record for record in records if isinstance(record, ApiDoc)]
            made.merge(stages.compose_calls(docs, split, _pool[split], _cutter(), _cleaner(), _config.seed))
    _save_finished("composed", unit, key, made, work)


def _save_finished(stage: str, unit: Unit, key: str, made: Finished, work: WorkFolder) -> None:
    for group, rows in made.rows().items():
        work.save_records(stage_of(stage, group), unit.name, key, rows)
    made.records = {}
    work.save(f"{stage}-facts", unit.name, key, made)
