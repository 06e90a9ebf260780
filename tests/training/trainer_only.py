"""Runs `python -m train` as where nothing but requirements/trainer.txt is installed: other modules are absent.

What those requirements bring is read from the installed packages' own metadata, without their extras.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import runpy
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def closure(requirements: list[str]) -> set[str]:
    """Names of the distributions that the requirements bring, themselves included."""
    wanted, pending = set(), [Requirement(line) for line in requirements]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in wanted or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        wanted.add(name)
        pending += [Requirement(line) for line in importlib.metadata.requires(name) or ()]
    return wanted


def hide(modules: set[str]) -> None:
    """Lets Python find none of these modules on its path, as where they are not installed."""
    find = importlib.machinery.PathFinder.find_spec

    def find_spec(fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in modules else find(fullname, path, target)

    importlib.machinery.PathFinder.find_spec = find_spec
    for name in [name for name in sys.modules if name.partition(".")[0] in modules]:
        del sys.modules[name]


def main() -> None:
    lines = (ROOT / "requirements" / "trainer.txt").read_text().splitlines()
    kept = closure([line for line in lines if line and not line.startswith("#")]) | {"hephaestus-jax"}
    owners = importlib.metadata.packages_distributions()
    absent = {m for m, names in owners.items() if kept.isdisjoint(canonicalize_name(name) for name in names)}
    absent -= {"hephaestus_jax", "train", "tools", "gin", "data_tasks"}
    assert {"tensorflow", "seqio", "tokenizers", "sentencepiece", "pyarrow", "transformers"} <= absent, absent
    hide(absent)
    assert importlib.util.find_spec("tensorflow") is None
    runpy.run_module("train", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
