"""A small quickstart: the shipped recipe, its own command, on little data and with few steps."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python -m train --gin_file=gin/runs/quickstart.gin"
"""As the README says it."""

SMALLER = (
    "MODEL=gin/models/tiny.gin",
    "VOCABULARY_SIZE=1500",
    "SEQUENCE_LENGTH=128",
    "BATCH_SIZE=4",
    "BASE_STEPS=4",
    "BASE_WARMUP=1",
    "CONTINUAL_STEPS=4",
    "CONTINUAL_WARMUP=1",
    "EVALUATION_ROWS=16",
    "EVALUATION_CALLS=8",
    "Recipe.corpus_settings=(\"PACKAGES=('gin-config','optax','python')\", 'SAMPLE=0.03', 'VALIDATION_FRACTION=0.2')",
    "Recipe.train_settings=('DTYPE=float32', 'EvaluationConfig.every_steps=2', 'EvaluationConfig.max_rows=4')",
)
"""Settings that make it small, as after --gin."""


@dataclass(frozen=True)
class Quickstart:
    """What a run of it left.

    Attributes:
        folder: where the command was given.
        output: what it printed.
    """

    folder: Path
    output: str

    @property
    def work(self) -> Path:
        """The work folder: corpus, vocabulary, rows_base, rows_agent, base, base_hf, control, agent, agent_hf."""
        return self.folder / "work" / "quickstart"


def smaller_options() -> list[str]:
    """What to add to `COMMAND` for the small one; the work folder stays where it is, below the current one."""
    return [f"--gin.{setting}" for setting in SMALLER]


def run_quickstart(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Runs the small quickstart in `folder`, to its end, whatever that is; output and errors in `stdout`."""
    program, *arguments = COMMAND.split()
    assert program == "python"
    options = [*smaller_options(), *(f"--gin.{text}" for text in overrides)]
    return subprocess.run(
        [sys.executable, *arguments, *options],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
    )  # fmt: skip
