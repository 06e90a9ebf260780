"""A small run: a mixture of three tasks on disk, a gin file for it, and the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "data"))

from compiling import QUICK  # noqa: E402
from token_sources import RandomSource, write_vocabulary  # noqa: E402

from hephaestus_jax.data.cache_build import build_cache  # noqa: E402
from hephaestus_jax.data.mixture_spec import MixtureSpec, Stage, save_mixture_spec  # noqa: E402

LENGTH = 32
RECORDS = {"code": 12, "docs": 5, "text": 8}
# With 4 rows a step: every task's cache is used up within 10 steps, and the second stage begins within step 5.
STAGES = ((0, {"code": 3, "docs": 2, "text": 2}), (18, {"docs": 3, "text": 4}))
BATCH = 4

GIN = """
include 'gin/runs/pretrain.gin'

VOCAB_SIZE = 320
DTYPE = 'float32'
TRAIN_STEPS = 10
BATCH_SIZE = 4
WARMUP_STEPS = 3
SEED = 5

ModelConfig.name = 'test'
ModelConfig.embed_dim = 32
ModelConfig.mlp_dim = 64
ModelConfig.num_layers = 2
ModelConfig.num_heads = 4
ModelConfig.num_kv_heads = 2
ModelConfig.head_dim = 8
ScheduleConfig.total_steps = 10
EvaluationConfig.every_steps = 4
CheckpointConfig.every_steps = 5
CheckpointConfig.every_minutes = 0
LoggingConfig.every_steps = 1
LoggingConfig.tensorboard = False  # whose writer imports torch where that is installed
"""


def write_mixture(directory: Path) -> str:
    """Builds the caches and writes `mixture.json`; the path of the latter."""
    vocabulary = write_vocabulary(directory / "vocabulary")
    parts, validation = {}, {}
    for number, (name, records) in enumerate(RECORDS.items()):
        train = RandomSource(vocabulary, records, seed=number, name=name, mean=20.0, fractional=name == "text")
        held_out = RandomSource(vocabulary, 9, seed=100 + number, name=name, mean=20.0)
        for source, into in ((train, parts), (held_out, validation)):
            built = build_cache(source, directory / "caches", LENGTH)
            into[name] = built.as_part(directory)
            identity = built.manifest.vocabulary
    spec = MixtureSpec(
        name="small",
        seed=11,
        denominator=7,
        sequence_length=LENGTH,
        vocabulary=identity,
        tasks=parts,
        stages=tuple(Stage(first_row, rates) for first_row, rates in STAGES),
        validation={"docs": validation["docs"], "text": validation["text"]},
    )
    save_mixture_spec(str(directory), spec)
    return str(directory / "mixture.json")


class Command:
    """`python -m train` with the small run's gin file, one compilation cache for all."""

    def __init__(self, folder: Path, mixture: str) -> None:
        self.gin_file = folder / "small.gin"
        self.gin_file.write_text(GIN + f"LoggingConfig.compilation_cache = {str(folder / 'compilations')!r}\n")
        self.mixture = mixture

    def arguments(self, run_dir: Path, *overrides: str) -> list[str]:
        """The command line; `overrides` as in --gin.NAME=VALUE, without the dashes, or whole options with them."""
        given = [text if text.startswith("--") else f"--gin.{text}" for text in overrides]
        gin = [f"--gin_file={self.gin_file}", f"--gin.RUN_DIR={run_dir}", f"--gin.MIXTURE={self.mixture}"]
        return [sys.executable, "-m", "train", *gin, *given]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's environment, on the CPU with one device."""
        return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK, **(more or {})}

    def __call__(
        self, run_dir: Path, *overrides: str, status: int = 0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, and insists on the exit status."""
        done = subprocess.run(
            self.arguments(run_dir, *overrides),
            cwd=ROOT, env=self.environment(environment), capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == status, (done.returncode, done.stdout[-3000:], done.stderr[-3000:])
        return done

    def start(self, run_dir: Path, *overrides: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Starts it; its output is read from pipes."""
        return subprocess.Popen(
            self.arguments(run_dir, *overrides),
            cwd=ROOT, env=self.environment(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


def metrics(run_dir: Path, kind: str = "train") -> dict[int, dict]:
    """The lines of metrics.jsonl of one kind, by step; a step that is written twice is an error."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    chosen = [line for line in lines if line["kind"] == kind]
    by_step = {line["step"]: line for line in chosen}
    assert len(by_step) == len(chosen)
    return by_step


TIMED = {"tokens_per_second", "loss_tokens_per_second", "step_seconds", "stall", "memory_bytes", "memory_peak_bytes"}


def exact(run_dir: Path, kind: str = "train") -> dict[int, dict]:
    """`metrics` without what depends on the clock and the machine's memory."""
    return {
        step: {name: value for name, value in line.items() if name not in TIMED}
        for step, line in metrics(run_dir, kind).items()
    }
