"""What a recipe is told."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from hephaestus_jax.errors import UserError

_TAKEN = {"corpus", "vocabulary", "steps", "evaluate", "report", "lock"}  # by other steps and files


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


@dataclass(frozen=True)
class Stage:
    """One run of a recipe: a row of `Recipe.stages`.

    Attributes:
        name: of its folder in the work folder.
        starts_from: the earlier stage whose weights it begins with, by way of a Hugging Face folder; "" for fresh ones.
        mixture: seqio task or mixture that it trains on (`data_tasks/mixtures.py`).
        train_steps: of the whole run.
        learning_rate: at the peak of its schedule.
        warmup_steps: until the peak; a stage that starts from another is re-warmed (gin/runs/continual_pretrain.gin).
    """

    name: str
    starts_from: str
    mixture: str
    train_steps: int
    learning_rate: float
    warmup_steps: int

    def __post_init__(self) -> None:
        where = f"Recipe.stages, stage {self.name!r}"
        free = self.name not in _TAKEN and not self.name.startswith(("rows_", "check_")) and self.name[-3:] != "_hf"
        _require(
            re.fullmatch(r"[a-z][a-z0-9_]*", self.name) is not None and free,
            f"{where}: a name is of a-z, 0-9 and _, begins neither with rows_ nor check_, does not end with _hf, and is"
            f" none of {', '.join(sorted(_TAKEN))}",
        )
        _require(bool(self.mixture), f"{where}: name the mixture to train on")
        _require(self.train_steps > 0, f"{where}: train_steps is {self.train_steps}; it must be above 0")
        _require(
            0 < self.learning_rate < math.inf, f"{where}: learning_rate is {self.learning_rate}; it must be above 0"
        )
        _require(
            0 <= self.warmup_steps <= self.train_steps,
            f"{where}: warmup_steps is {self.warmup_steps}; it must be from 0 to train_steps {self.train_steps}",
        )
        _require(
            not self.starts_from or self.warmup_steps > 0,
            f"{where}: warmup_steps is 0; a stage that starts from another is re-warmed, give 1 or more",
        )


@dataclass(frozen=True)
class Recipe:
    """A chain of runs and what they need.

    Attributes:
        work_dir: folder of everything that is made; the same recipe given again goes on there.
        stages: a row for each run, in order: the fields of `Stage`.
        baseline: the stage that gains and costs are measured against.
        evaluation_mixture: mixture of one of the stages; its held-out slices are what all of them are judged on.
        corpus_config: gin file of `tools.build_corpus`.
        model_config: gin file with the architecture of the stages that begin with fresh weights.
        vocabulary_size: token ids, of the vocabulary and of the model.
        sequence_length: tokens of a row.
        batch_size: rows of a step.
        seed: of the fresh weights and of the order of the rows. The corpus has its own, in `corpus_config`.
        chat: chat template family of trajectories.
        corpus_settings: further settings for `tools.build_corpus`, each "NAME=VALUE" as after --gin.
        train_settings: further settings for every run, likewise.
        evaluation_rows: rows of each slice in the evaluation at the end, at most; 0 for all.
        evaluation_calls: calls of unseen APIs that are ranked, at most; 0 for all.
        title: of the report.
        tokens_per_second: of training, for the estimate of the time left; corrected by what is measured.
        disk_gigabytes: free space that beginning needs, roughly.
    """

    work_dir: str
    stages: tuple[tuple[str, str, str, int, float, int], ...]
    baseline: str
    evaluation_mixture: str
    corpus_config: str
    model_config: str
    vocabulary_size: int
    sequence_length: int
    batch_size: int
    seed: int = 0
    chat: str = "llama3"
    corpus_settings: tuple[str, ...] = ()
    train_settings: tuple[str, ...] = ()
    evaluation_rows: int = 0
    evaluation_calls: int = 0
    title: str = ""
    tokens_per_second: float = 1000.0
    disk_gigabytes: float = 2.0

    def __post_init__(self) -> None:
        for name in ("work_dir", "corpus_config", "model_config", "chat"):
            _require(bool(getattr(self, name)), f"Recipe.{name} is empty; it must be given")
        _require("://" not in self.work_dir, f"Recipe.work_dir {self.work_dir} is a URL; give a local folder")
        for name in ("vocabulary_size", "sequence_length", "batch_size", "tokens_per_second"):
            _require(getattr(self, name) > 0, f"Recipe.{name} is {getattr(self, name)}; it must be above 0")
        for name in ("seed", "evaluation_rows", "evaluation_calls", "disk_gigabytes"):
            _require(getattr(self, name) >= 0, f"Recipe.{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("corpus_settings", "train_settings"):
            for setting in getattr(self, name):
                _require("=" in setting, f"Recipe.{name} has {setting!r}; write NAME=VALUE")
        self._check_chain()

    @property
    def chain(self) -> tuple[Stage, ...]:
        """The stages, each with its fields named."""
        return tuple(Stage(*row) for row in self.stages)

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.chain if stage.name == name)

    @property
    def mixtures(self) -> dict[str, str]:
        """What the stages train on: mixture → name of the folder of its rows, after the first stage that uses it."""
        first: dict[str, str] = {}
        for stage in self.chain:
            first.setdefault(stage.mixture, f"rows_{stage.name}")
        return first

    def _check_chain(self) -> None:
        width = len(fields(Stage))
        _require(bool(self.stages), "Recipe.stages is empty; give a row for each run")
        for row in self.stages:
            names = ", ".join(field.name for field in fields(Stage))
            _require(len(row) == width, f"Recipe.stages has the row {row!r}; a row is ({names})")
        known: list[str] = []
        for stage in self.chain:
            _require(stage.name not in known, f"Recipe.stages names two stages {stage.name!r}")
            _require(
                stage.starts_from in ("", *known),
                f"Recipe.stages, stage {stage.name!r}: it starts from {stage.starts_from!r}, which is no earlier stage"
                f" ({', '.join(known) or 'there is none'}); give one, or '' for fresh weights",
            )
            known.append(stage.name)
        _require(self.baseline in known, f"Recipe.baseline is {self.baseline!r}; give one of {', '.join(known)}")
        _require(
            self.evaluation_mixture in self.mixtures,
            f"Recipe.evaluation_mixture is {self.evaluation_mixture!r}; give one that is trained on:"
            f" {', '.join(self.mixtures)}",
        )
        self._check_comparison()

    def _check_comparison(self) -> None:
        """What starts where the baseline starts is compared with it: steps and schedule must be the same."""
        baseline = self.stage(self.baseline)
        for stage in self.chain:
            for name in ("train_steps", "learning_rate", "warmup_steps"):
                before, here = getattr(baseline, name), getattr(stage, name)
                _require(
                    stage.starts_from != baseline.starts_from or here == before,
                    f"Recipe.stages: {name} is {here:g} for {stage.name!r} and {before:g} for the baseline"
                    f" {baseline.name!r}; both start from {baseline.starts_from or 'fresh weights'!r} and are compared,"
                    " so give them the same",
                )
