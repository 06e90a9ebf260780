"""What a run left behind, read for a report: metrics.jsonl, run.json, config.gin, evaluation.json.

Whatever is missing or damaged becomes a plain sentence (`RunFiles.notes`) and a value that is None, never an error: a
report on a crashed run is worth having. Nothing here imports JAX.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hephaestus_jax.architecture import ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.reports.evaluation_file import Evaluation, read_evaluation

EVALUATION = "evaluation.json"
ORIGIN = "huggingface"  # folder of a run whose line began with a Hugging Face model

Json = Any


class TrainPoint(NamedTuple):
    """One step, as metrics.jsonl tells it; None where it tells nothing."""

    step: int
    loss: float | None
    loss_tokens: int
    learning_rate: float | None
    tokens_per_second: float | None
    loss_tokens_per_second: float | None
    step_seconds: float | None
    mfu: float | None
    stall: float | None
    memory_peak_bytes: float | None
    bad: bool


class HeldOutPoint(NamedTuple):
    """Held-out loss of one slice after some steps."""

    step: int
    nats_per_token: float | None
    bits_per_byte: float | None
    tokens: int | None


@dataclass(frozen=True)
class Metrics:
    """metrics.jsonl: steps in order, held-out losses by slice, and shares of wall time per process that ended."""

    train: tuple[TrainPoint, ...] = ()
    held_out: Mapping[str, tuple[HeldOutPoint, ...]] = field(default_factory=dict)
    goodput: tuple[Mapping[str, float], ...] = ()
    wall_seconds: tuple[float, ...] = ()
    damaged_lines: int = 0

    @property
    def last_step(self) -> int:
        """The last step that left a line; 0 without any."""
        steps = [point.step for point in self.train[-1:]]
        steps += [points[-1].step for points in self.held_out.values() if points]
        return max(steps, default=0)


@dataclass(frozen=True)
class RunFiles:
    """One run, or one model that was evaluated.

    Attributes:
        name: as the report calls it; distinct among the runs of a report.
        path: its folder.
        record: run.json, or empty.
        config_text: the operative configuration, or "".
        metrics: empty where there is no metrics.jsonl.
        evaluation: None where there is no evaluation.json.
        origin: config.json of the Hugging Face model that its line began with, or empty.
        notes: what is missing or damaged, a sentence each.
    """

    name: str
    path: Path
    record: Mapping[str, Json]
    config_text: str
    metrics: Metrics
    evaluation: Evaluation | None
    origin: Mapping[str, Json]
    notes: tuple[str, ...]

    @property
    def identity(self) -> Mapping[str, Json]:
        """What the weights are a function of, from run.json."""
        return self.record.get("identity", {})

    @property
    def starts(self) -> list[Mapping[str, Json]]:
        """Every start and resume, from run.json."""
        return self.record.get("starts", [])

    @property
    def settings(self) -> dict[str, str]:
        """The operative configuration by name, values as gin spells them; the model's from run.json if need be."""
        settings = {}
        for line in self.config_text.splitlines():
            name, equals, value = line.partition(" = ")
            if equals:
                settings[name] = value
        for name, value in self.identity.items():
            part, _, field_name = name.partition(".")
            if part == "model" and field_name:
                settings.setdefault(f"ModelConfig.{field_name}", repr(value))
        return settings

    @property
    def train_steps(self) -> int | None:
        """Steps that the run was meant to take."""
        return _integer(self.record.get("config", {}).get("train_steps"))

    @property
    def batch_size(self) -> int | None:
        """Rows of a step."""
        batch = _integer(self.identity.get("batch_size"))
        return batch if batch is not None and batch > 0 else None

    @property
    def tokens_per_step(self) -> int | None:
        """Positions of the rows of a step, padding too."""
        batch, length = self.batch_size, _integer(self.identity.get("sequence_length"))
        return batch * length if batch and length and length > 0 else None

    @property
    def vocabulary(self) -> str | None:
        """Digest of the vocabulary that its training and held-out loss are in."""
        return self.identity.get("vocabulary")

    @property
    def model(self) -> ModelConfig | None:
        """The model of run.json."""
        fields = {name.partition(".")[2]: v for name, v in self.identity.items() if name.startswith("model.")}
        if not fields:
            return None
        try:
            return ModelConfig.from_json(fields)
        except (TypeError, UserError, ValueError):
            return None

    @property
    def parameters(self) -> int | None:
        """Number of weights."""
        if self.evaluation is not None and self.evaluation.parameters:
            return self.evaluation.parameters
        return self.model.num_parameters if self.model is not None else None


def read_runs(paths: list[str], evaluations: str | None = None) -> tuple[RunFiles, ...]:
    """The runs in these folders, in order, under distinct names.

    Args:
        paths: folders of runs, of imported models, or of Hugging Face models that were evaluated.
        evaluations: a folder that holds NAME.json for models without an evaluation.json of their own.

    Raises:
        UserError: a folder is given twice, does not exist, or has nothing of a run in it.
    """
    folders = [Path(path).expanduser().absolute() for path in paths]
    for number, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:number]]:
            raise UserError(f"{folder} is given twice; name every run once")
    names = _distinct_names(folders)
    return tuple(_read_run(name, folder, evaluations) for name, folder in zip(names, folders, strict=True))


def _distinct_names(folders: list[Path]) -> list[str]:
    """Last parts of the paths, as many as it takes to tell them apart."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-parts:]).strip("/") or "/" for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _read_run(name: str, folder: Path, evaluations: str | None) -> RunFiles:
    if not folder.is_dir():
        raise UserError(f"there is no run at {folder}; give the folder that `python -m train` wrote")
    notes: list[str] = []
    record = _read_object(folder / "run.json", notes)
    kinds = {"identity": dict, "config": dict, "versions": dict, "digests": dict, "starts": list}
    for part, kind in kinds.items():
        if part in record and not isinstance(record[part], kind):
            notes.append(f"run.json is not as it was written: its {part} is left out.")
            record = {key: value for key, value in record.items() if key != part}
    metrics = _read_metrics(folder / "metrics.jsonl", notes)
    evaluation_path = folder / EVALUATION
    if not evaluation_path.exists() and evaluations is not None:
        evaluation_path = Path(evaluations) / f"{folder.name}.json"
    evaluation = read_evaluation(evaluation_path, notes)
    origin = _read_object(folder / ORIGIN / "config.json", notes) or _read_object(folder / "config.json", notes)
    if not (record or metrics.train or metrics.held_out or evaluation or origin or notes):
        raise UserError(
            f"{folder} has neither run.json, metrics.jsonl nor {EVALUATION}; give a run directory, or a model that"
            " `python -m tools.evaluate` was run on"
        )
    run = RunFiles(name, folder, record, _read_text(folder / "config.gin"), metrics, evaluation, origin, ())
    return RunFiles(**{**vars(run), "notes": (*notes, *_gaps(run))})


def _gaps(run: RunFiles) -> Iterator[str]:
    """What is not there, in words."""
    metrics = run.metrics
    if not run.record:
        yield "There is no run.json, so configuration, identity and versions are not known."
    if not metrics.train and not metrics.held_out:
        yield "There is no metrics.jsonl with a step in it, so there are no curves and no throughput."
    elif not metrics.goodput:
        yield "No process of it ended by itself, so where the wall time went is not known."
    if run.evaluation is None:
        yield f"It has no {EVALUATION} (python -m tools.evaluate), so there are no intervals, rankings or samples."
    elif type(step := run.evaluation.model.get("step")) is int and metrics.train and step != metrics.last_step:
        yield f"Its {EVALUATION} is of step {step:,}, and the run is at step {metrics.last_step:,}: evaluate it again."
    if metrics.damaged_lines:
        yield f"{metrics.damaged_lines:,} damaged line(s) of metrics.jsonl were left out."
    if run.train_steps and metrics.train and metrics.last_step < run.train_steps:
        yield f"It stopped at step {metrics.last_step:,} of {run.train_steps:,}."
    if dropped := sum(point.bad for point in metrics.train):
        yield f"The updates of {dropped:,} step(s) were dropped as not finite or as spikes."


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _read_object(path: Path, notes: list[str]) -> Mapping[str, Json]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read ({' '.join(str(error).split())[:120]}).")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{path.name} is no JSON object and is left out.")
        return {}
    return value


def _read_metrics(path: Path, notes: list[str]) -> Metrics:
    train: dict[int, TrainPoint] = {}
    held_out: dict[str, dict[int, HeldOutPoint]] = {}
    goodput: list[Mapping[str, float]] = []
    seconds: list[float] = []
    damaged = 0
    try:
        with open(path, "rb") as lines:
            for text in lines:
                line = _metrics_line(text)
                if line is None:
                    damaged += 1
                elif line["kind"] == "train":
                    train[line["step"]] = _train_point(line)
                elif line["kind"] == "eval":
                    for name, point in _held_out_points(line):
                        held_out.setdefault(name, {})[point.step] = point
                elif line["kind"] == "run":
                    shares = {name.partition("/")[2]: _number(v) for name, v in line.items() if "goodput/" in name}
                    goodput.append({name: share for name, share in shares.items() if share is not None})
                    if (wall := _number(line.get("wall_seconds"))) is not None:
                        seconds.append(wall)
    except FileNotFoundError:
        pass
    except OSError as error:
        notes.append(f"metrics.jsonl cannot be read ({error.strerror}).")
    return Metrics(
        tuple(train[step] for step in sorted(train)),
        {name: tuple(points[step] for step in sorted(points)) for name, points in held_out.items()},
        tuple(shares for shares in goodput if shares),
        tuple(seconds),
        damaged,
    )


def _metrics_line(text: bytes) -> dict[str, Json] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return None
    step = _integer(line.get("step"))
    return line if step is not None and step >= 0 else None


def _train_point(line: Mapping[str, Json]) -> TrainPoint:
    names = ("learning_rate", "tokens_per_second", "loss_tokens_per_second", "step_seconds", "mfu", "stall")
    tokens = sum(_integer(value) or 0 for name, value in line.items() if name.startswith("loss_tokens/"))
    numbers = {name: _number(line.get(name)) for name in (*names, "memory_peak_bytes")}
    return TrainPoint(line["step"], _number(line.get("loss")), tokens, bad=bool(line.get("bad")), **numbers)


def _held_out_points(line: Mapping[str, Json]) -> Iterator[tuple[str, HeldOutPoint]]:
    slices = dict.fromkeys(name.rpartition("/")[0] for name in line if name.endswith(("/nats_per_token", "/tokens")))
    for name in slices:
        nats, bits = _number(line.get(f"{name}/nats_per_token")), _number(line.get(f"{name}/bits_per_byte"))
        yield name, HeldOutPoint(line["step"], nats, bits, _integer(line.get(f"{name}/tokens")))


def _number(value: Json) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _integer(value: Json) -> int | None:
    """An integer that a float holds exactly; None for anything else."""
    return value if type(value) is int and abs(value) < 1 << 53 else None
