"""Makes and runs doctest jobs, and looks for the processes they leave, for tests."""

from __future__ import annotations

import inspect
from pathlib import Path

from hephaestus_jax.forge.doctests.extract import DoctestJob
from hephaestus_jax.forge.doctests.process import Limits
from hephaestus_jax.forge.doctests.results import Outcome
from hephaestus_jax.forge.doctests.sandbox import run_doctests
from hephaestus_jax.formats.records import Provenance

PROVENANCE = Provenance("wares", "1.0", "MIT")
LIMITS = Limits(output_bytes=20_000)
PRICE = """The price of some wares.

    >>> price(3)
    6.0

    Every piece may cost more:

    >>> price(3, each=RATE)
    9
    >>> price(-1)
    Traceback (most recent call last):
        ...
    ValueError: count is negative
    >>> price("a")
    >>> Basket(["a"]).size()
    2
"""


def make_job(name: str, docstring: str, module: str = "wares", aliases: tuple[str, ...] = ()) -> DoctestJob:
    return DoctestJob(name, aliases, module, inspect.cleandoc(docstring), PROVENANCE)


def execute(jobs: list[DoctestJob], wares: Path, scratch: Path, limits: Limits = LIMITS) -> dict[str, Outcome]:
    run = run_doctests(jobs, 2, limits, scratch, python_path=[wares])
    return {job.api_name: outcome for job, outcome in run}


def processes_with(text: str) -> list[int]:
    """The processes that have `text` in their environment, as every process of a doctest run has its scratch folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
