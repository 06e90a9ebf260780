"""Small run directories written by hand, whose figures are known."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

VOCABULARY = {"name": "tokenizer.model", "digest": "voc1", "size": 512}
LENGTH, BATCH = 64, 4

MIXTURE = {
    "denominator": 4,
    "format": 1,
    "name": "agent_code",
    "seed": 0,
    "sequence_length": LENGTH,
    "stages": [{"first_row": 0, "rates": {"agent_docs": 1, "code": 3}}],
    "tasks": {
        "agent_docs": {"cache": "caches/a", "digest": "a1", "rows": 10},
        "code": {"cache": "caches/c", "digest": "c1", "rows": 40},
    },
    "validation": {"code": {"cache": "caches/v", "digest": "v1", "rows": 5}},
    "vocabulary": VOCABULARY,
}

RECORD = {
    "format": 1,
    "identity": {
        "batch_size": BATCH, "sequence_length": LENGTH, "seed": 3, "init_from": "", "vocabulary": "voc1",
        "mixture": MIXTURE, "model.name": "t", "model.vocab_size": 512, "model.embed_dim": 16, "model.mlp_dim": 32,
        "model.num_layers": 2, "model.num_heads": 2, "model.num_kv_heads": 1, "model.head_dim": 8,
        "model.rope_scaling": None, "model.tied_embeddings": True,
    },
    "digests": {"mixture": "m" * 32, "model": "d" * 32, "vocabulary": "voc1"},
    "config": {"train_steps": 4},
    "versions": {"jax": "0.10.2", "commit": "abc"},
    "conventions": {"stall": "share of the time of training that waited for rows"},
    "starts": [{"step": 0, "time": "2026-01-01T00:00:00+00:00", "device_kind": "cpu", "devices": 1, "processes": 1}],
}  # fmt: skip

CONFIG = "TrainConfig.batch_size = 4\nTrainConfig.mixture = '/nowhere'\nScheduleConfig.peak = 0.001\n"


def train_line(step, loss, **more):
    values = {"loss_tokens/code": 200, "learning_rate": 1e-3 * step, "tokens_per_second": 128.0, "step_seconds": 2.0}
    return {"kind": "train", "step": step, "rows": step * BATCH, "loss": loss, "stall": 0.25, **values, **more}


def eval_line(step, **losses):
    line = {"kind": "eval", "step": step}
    for name, nats in losses.items():
        line |= {f"{name}/nats_per_token": nats, f"{name}/bits_per_byte": nats / 2, f"{name}/tokens": 1000}
    return line


METRICS = (
    eval_line(0, code=6.0),
    *(train_line(step, 6.0 - step / 2) for step in (1, 2, 3, 4)),
    eval_line(4, code=4.0),
    {"kind": "run", "step": 4, "goodput/train": 0.75, "goodput/compile": 0.25},
)


def records(shifts, groups=12, per_group=2, tokens=10):
    """per_record of a slice: 5 nats per token, moved by `shifts[group % len(shifts)]`."""
    numbers = range(groups * per_group)
    return {
        "id": [f"r{n:03d}" for n in numbers],
        "group": [f"g{n // per_group}" for n in numbers],
        "nats": [tokens * (5.0 + shifts[n // per_group % len(shifts)]) for n in numbers],
        "tokens": [tokens for _ in numbers],
        "bytes": [3 * tokens for _ in numbers],
    }


def slice_of(per_record):
    nats, tokens, size = (sum(per_record[name]) for name in ("nats", "tokens", "bytes"))
    return {
        "records": len(per_record["id"]), "tokens": tokens, "bytes": size, "rows": 9, "per_record": per_record,
        "nats_per_token": nats / tokens, "bits_per_byte": nats / math.log(2) / size,
    }  # fmt: skip


def ranking(margins):
    """`margins` by corruption: log-likelihood of gold minus corrupted, one pair for each of so many APIs."""
    pairs = [(f"api{n}", name, value) for name, values in margins.items() for n, value in enumerate(values)]
    scores = {
        name: {
            "pairs": len(v), "accuracy": sum((m > 0) + (m == 0) / 2 for m in v) / len(v), "trivial": 0.375,
            "accuracy_total": 0.625, "accuracy_per_byte": 0.875, "baselines": {"shorter_call": 0.375},
        }
        for name, v in margins.items()
    }  # fmt: skip
    example = {"api": "api0", "prompt": "What?", "gold": "f(1)", "corrupted": "g(1)", "corruption": "wrong_function"}
    per_pair = {
        "id": [f"{api}/{kind}" for api, kind, _ in pairs],
        "group": [f"family of {api}" for api, _, _ in pairs],
        "corruption": [kind for _, kind, _ in pairs],
        "correct": [0.5 if margin == 0 else float(margin > 0) for *_, margin in pairs],
    }
    return {
        "calls": 12, "apis": 12, "chance": 0.5, "normalisation": "sum of log-likelihoods", "corruptions": scores,
        "trivial_rule": "the shorter call wins", "per_pair": per_pair, "examples": [example],
    }  # fmt: skip


def evaluation(slices, margins=None, **inputs):
    return {
        "format": 1,
        "model": {"path": "x", "kind": "run", "step": 4, "parameters": 12345, "digest": "e" * 32},
        "inputs": {"mixture": "m1", "corpus": "k1", "vocabulary": "voc1", "options": {}, **inputs},
        "groups": "API families",
        "slices": {name: slice_of(per_record) for name, per_record in slices.items()},
        "ranking": ranking(margins) if margins else None,
        "samples": [{"prompt": "Once", "completion": " upon", "tokens": 3, "temperature": 0.8, "seed": 7}],
        "seconds": 1.5,
        "versions": {},
    }


def write_run(folder: Path, record=RECORD, metrics=METRICS, config=CONFIG, evaluated=None, **identity) -> str:
    """Writes what is not None; `identity` changes fields of the record's identity."""
    folder.mkdir(parents=True, exist_ok=True)
    if record is not None:
        record = copy.deepcopy(record)
        record["identity"].update(identity)
        (folder / "run.json").write_text(json.dumps(record))
    if metrics is not None:
        lines = (line if isinstance(line, str) else json.dumps(line) for line in metrics)
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if config is not None:
        (folder / "config.gin").write_text(config)
    if evaluated is not None:
        (folder / "evaluation.json").write_text(json.dumps(evaluated))
    return str(folder)


DOCS, CALLS, CODE, TEXT = "agent_docs", "agent_trajectories", "code", "text"
NOISE = (0.2, -0.2, 0.1, -0.1)


def write_pair(folder: Path) -> tuple[str, str]:
    """control and agent: agent better on documentation by 0.5, worse on code by 0.25, the same on text but for noise.

    Calls: of 12 pairs each, wrong function 6 against 12 right, missing argument 6 against 6 (other ones), one a tie.
    """
    half = [1.0, -1.0] * 6
    other = [-1.0, 1.0] * 5 + [0.0, 0.0]
    control = evaluation(
        {DOCS: records((0.0,)), CODE: records((0.0,)), TEXT: records((0.0,))},
        {"wrong_function": half, "missing_argument": half},
    )
    agent = evaluation(
        {DOCS: records((-0.5, -0.45, -0.55)), CODE: records((0.25, 0.2, 0.3)), TEXT: records(NOISE)},
        {"wrong_function": [2.0] * 12, "missing_argument": other},
    )
    config = CONFIG.replace("0.001", "0.002")
    first = write_run(folder / "control", evaluated=control)
    return first, write_run(folder / "agent", evaluated=agent, config=config, **{"schedule.peak": 0.002})
