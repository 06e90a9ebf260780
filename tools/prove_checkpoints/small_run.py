"""A run that takes a minute: a synthetic mixture, a small model, and the gin file that trains it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hephaestus_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DType,
    EvaluationConfig,
    LoggingConfig,
    ModelConfig,
    ScheduleConfig,
    TrainConfig,
)
from hephaestus_jax.data.cache_build import build_cache
from hephaestus_jax.data.identity import Origin
from hephaestus_jax.data.mixture_spec import MixtureSpec, Stage, save_mixture_spec
from hephaestus_jax.data.task import TokenizedRecord
from hephaestus_jax.data.tiktoken_files import byte_alphabet
from hephaestus_jax.gin_files import operative_text

LENGTH, BATCH_SIZE, SAVE_EVERY, EVALUATE_EVERY = 64, 4, 2, 25
RECORDS = {"docs": 30, "code": 120}


@dataclass(frozen=True)
class SyntheticRecords:
    """Records drawn from their number alone: runs of bytes that repeat, so that there is something to learn."""

    name: str
    vocabulary: str
    records: int
    split: str = "train"

    def fingerprint(self) -> str:
        """Changes with whatever changes the tokens."""
        return hashlib.sha256(f"synthetic 1 {self.name} {self.records}".encode()).hexdigest()[:32]

    def count(self) -> int:
        """Number of records."""
        return self.records

    def read(self, start: int, stop: int) -> Iterator[TokenizedRecord]:
        """Records `start` to `stop` (exclusive)."""
        for number in range(start, stop):
            rng = np.random.default_rng((len(self.name), number))
            tokens = np.tile(rng.integers(0, 256, rng.integers(3, 12)), int(rng.integers(2, 12))).astype(np.int32)
            weights = np.ones(len(tokens), np.float32)
            record_id = hashlib.md5(f"{self.name} {number}".encode()).hexdigest()
            yield TokenizedRecord(record_id, Origin(self.name, "1", "CC0-1.0"), tokens, weights)


def write_small_run(out: Path, steps: int, dtype: DType = "bfloat16") -> Path:
    """Builds the mixture in `out`, or finds it there; the gin file of a run of `steps` steps over it.

    Rows of several epochs, with a stage that begins in the middle of the run.
    """
    vocabulary = out / "vocabulary" / "tokenizer.json"
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text(json.dumps(_byte_tokenizer()), "utf-8")
    parts = {}
    for name, records in RECORDS.items():
        built = build_cache(SyntheticRecords(name, str(vocabulary), records), out / "caches", LENGTH)
        parts[name] = built.as_part(out)
        identity = built.manifest.vocabulary
    spec = MixtureSpec(
        name="synthetic",
        seed=5,
        denominator=4,
        sequence_length=LENGTH,
        vocabulary=identity,
        tasks=parts,
        stages=(Stage(0, {"docs": 1, "code": 3}), Stage(steps * BATCH_SIZE // 2, {"docs": 2, "code": 2})),
        validation={"docs": parts["docs"]},
    )
    save_mixture_spec(str(out), spec)
    config = TrainConfig(
        run_dir=str(out / "run"),
        mixture=str(out / "mixture.json"),
        model=ModelConfig("small", 256, 128, 256, 2, num_heads=4, num_kv_heads=2, head_dim=32, max_positions=LENGTH),
        train_steps=steps,
        compute=ComputeConfig(dtype),
        batch_size=BATCH_SIZE,
        schedule=ScheduleConfig(warmup_steps=min(5, steps)),
        checkpoints=CheckpointConfig(every_steps=SAVE_EVERY, keep=2),
        evaluation=EvaluationConfig(every_steps=EVALUATE_EVERY, max_rows=8),
        logging=LoggingConfig(every_steps=1, compilation_cache=str(out / "compilations"), tensorboard=False),
    )
    (out / "run.gin").write_text(operative_text(config), "utf-8")
    return out / "run.gin"


def _byte_tokenizer() -> dict[str, object]:
    """A tokenizer.json of 256 ids, one per byte."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    model = {"type": "BPE", "vocab": {letter: n for n, letter in enumerate(byte_alphabet())}, "merges": []}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }
