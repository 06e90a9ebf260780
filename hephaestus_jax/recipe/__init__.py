"""A chain of runs from one gin file: corpus → vocabulary → rows → base → continual runs → evaluation → report.

Every step is an ordinary command of this project, printed as a user could type it and run as a process of its own.

    config.py     what a recipe is told: `Recipe`, bound by gin, and its `Stage`s
    plan.py       its steps, in order
    accounts.py   the account kept of every step in the work folder
    runner.py     runs the steps that are not done yet
    processes.py  commands that do not outlive the recipe, signals

Nothing here imports jax.
"""

from __future__ import annotations

from pathlib import Path

from hephaestus_jax.recipe.config import Recipe
from hephaestus_jax.recipe.plan import plan
from hephaestus_jax.recipe.runner import run_steps

__all__ = ["Recipe", "run_recipe"]


def run_recipe(recipe: Recipe, operative: str) -> None:
    """Does the steps of `recipe` that are not done yet in its work folder.

    Args:
        recipe: what to do.
        operative: its complete gin text (`gin_files.operative_text`), kept in the work folder.

    Raises:
        UserError: the folder is in use, was begun with other settings or has too little room, or a step failed.
        SystemExit: with 128 and the signal's number when asked to end (143 for SIGTERM, 130 for Ctrl-C); the same
            command goes on from there.
    """
    run_steps(plan(recipe), Path(recipe.work_dir).expanduser(), operative, recipe.disk_gigabytes)
