"""A recipe of small steps as a process, to be interrupted: `python recipe_process.py WORK`.

The second step answers SIGTERM as a training run does: it saves and exits with 0 without being complete. It counts its
beginnings, and is complete from the second on. With STUBBORN set in the environment it ignores SIGTERM.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hephaestus_jax.recipe.accounts import Step
from hephaestus_jax.recipe.runner import run_steps
from tools._command import run

SLOW = """
import os, pathlib, signal, sys, time
work = pathlib.Path(sys.argv[1])
begun = work / "begun"
times = int(begun.read_text()) if begun.exists() else 0
if times:
    (work / "slow").touch()
    sys.exit(0)

def save(*_):
    while (work / "hold").exists():
        time.sleep(0.02)
    (work / "saved").touch()
    os._exit(0)

signal.signal(signal.SIGTERM, signal.SIG_IGN if "STUBBORN" in os.environ else save)
begun.write_text(str(times + 1))
(work / "pid").write_text(str(os.getpid()))
time.sleep(60)
"""


def steps(work: Path) -> tuple[Step, ...]:
    """Quick, slow, quick."""
    touch = (
        "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text() + 'x' if p.exists() else 'x')"
    )
    return (
        Step("first", "first step", ("-c", touch, str(work / "first")), (work / "first",)),
        Step("slow", "slow step", ("-c", SLOW, str(work)), (work / "slow",), ("first",)),
        Step("last", "last step", ("-c", touch, str(work / "last")), (work / "last",), ("slow",)),
    )


def main() -> None:
    work = Path(sys.argv[1])
    run_steps(steps(work), work, "")


if __name__ == "__main__":
    run(main)
