"""What a run's own records say of its weights: the facts of a model card. What is not recorded is None or empty.

Records are run.json, metrics.jsonl, evaluation.json, the facts of the checkpoint, the files of the Hugging Face model
that the line of runs began with, and the manifests of the caches, as far as their digests are those in run.json.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hephaestus_jax.architecture import ModelConfig
from hephaestus_jax.data.mixture import Mixture
from hephaestus_jax.data.mixture_spec import MixtureSpec
from hephaestus_jax.errors import UserError
from hephaestus_jax.reports.evaluation_file import Evaluation
from hephaestus_jax.reports.run_facts import MAX_ROWS, cache_manifest, mixture_of
from hephaestus_jax.reports.run_files import HeldOutPoint, RunFiles, read_runs

if TYPE_CHECKING:
    from hephaestus_jax.checkpoints.reading import ArrayReader
    from hephaestus_jax.hf.origin import Origin

MAX_LINEAGE = 16
LICENCE_KEYS = ("license", "license_name", "license_link")  # as the Hub spells them
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SCALAR = re.compile(r"([A-Za-z_-]+):[ \t]+([^\s#\[{|>&*!].*?)[ \t]*")

Json = Any


@dataclass(frozen=True)
class BaseModel:
    """The Hugging Face model that a line of runs began with.

    Attributes:
        hub_id: such as "allenai/OLMo-2-0425-1B"; "" where no record says so.
        revision: of it; "" likewise.
        folder: last part of the path that it was read from, where that is not the Hub's cache; "" likewise.
        model_type: of its config.json.
        licence: what its README.md says, by the Hub's keys.
        licence_files: names of files with its terms, which an export carries.
        new_tokens: that were added to a vocabulary: the name of the model whose it was, and the tokens, in order.
    """

    hub_id: str
    revision: str
    folder: str
    model_type: str
    licence: Mapping[str, str]
    licence_files: tuple[str, ...]
    new_tokens: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def name(self) -> str:
        """As the card calls it."""
        return self.hub_id or self.folder or "a Hugging Face model whose name is not recorded"


@dataclass(frozen=True)
class TaskUse:
    """What the steps took from a task; its sources are (name, version, licence), empty where no manifest tells."""

    task: str
    share: float
    rows: int
    epochs: float
    tokens: int
    sources: tuple[tuple[str, str, str], ...]

    @property
    def licences(self) -> tuple[tuple[str, int], ...]:
        """(licence, number of sources), most sources first; "" for those without one."""
        return tuple(Counter(licence for _, _, licence in self.sources).most_common())


class CardFacts:
    """The facts of one checkpoint of a run.

    Args:
        run: the folder of a run, or of an average of its checkpoints.
        arrays: the checkpoint.
        origin: the kept Hugging Face model, None for a line begun from scratch.
        model: the architecture that is exported; None for the run's.

    Raises:
        UserError: no run is there.
    """

    def __init__(self, run: str, arrays: ArrayReader, origin: Origin | None, model: ModelConfig | None = None) -> None:
        self.run: RunFiles = read_runs([run])[0]
        self.model = model or self.run.model
        self.step: int = arrays.step
        self.facts: Mapping[str, Json] = arrays.facts
        self._arrays, self._origin = arrays, origin

    @property
    def identity(self) -> Mapping[str, Json]:
        """What the weights are a function of."""
        return self.run.identity

    @property
    def averaged(self) -> Mapping[str, Json]:
        """How checkpoints were averaged; empty if they were not."""
        value = self.facts.get("averaged")
        return value if isinstance(value, Mapping) else {}

    @cached_property
    def lineage(self) -> tuple[RunFiles, ...]:
        """The runs that this one's weights went through before, as far as their folders are there; oldest first."""
        found: list[RunFiles] = []
        path = self.identity.get("init_from")
        while isinstance(path, str) and Path(path, "run.json").is_file() and len(found) < MAX_LINEAGE:
            found.append(read_runs([path])[0])
            path = found[-1].identity.get("init_from")
        return tuple(reversed(found))

    @property
    def init_name(self) -> str:
        """Last part of the path that the run began from; "" for a fresh one."""
        path = self.identity.get("init_from")
        return Path(path).name if isinstance(path, str) else ""

    @cached_property
    def base(self) -> BaseModel | None:
        """None for a line begun from scratch."""
        return None if self._origin is None else _base_model(self._origin, self._read_from())

    def _read_from(self) -> str:
        """Where the base model was read from; "" where no record says so."""
        first = self.lineage[0] if self.lineage else self.run
        path = first.identity.get("init_from")
        if not isinstance(path, str) or Path(path, "run.json").is_file():
            return ""
        if Path(path, "checkpoints").is_dir():  # an imported model, which says itself where it came from
            from hephaestus_jax.checkpoints.reading import open_arrays

            try:
                path = open_arrays(Path(path, "checkpoints")).facts.get("imported_from", path)
            except UserError:
                return path
        return str(path)

    @property
    def next_row(self) -> int | None:
        """The row of the mixture that would have come next."""
        row = self.facts.get("next_row")
        return row if type(row) is int and 0 < row < MAX_ROWS else None

    @property
    def skipped_rows(self) -> int:
        """Rows before `next_row` that were left out after rollbacks."""
        ranges = self.facts.get("skipped_rows", ())
        return sum(stop - start for start, stop in ranges if stop <= (self.next_row or 0))

    @cached_property
    def mixture(self) -> MixtureSpec | None:
        """The mixture of run.json."""
        return mixture_of(self.run)

    @cached_property
    def tasks(self) -> tuple[TaskUse, ...]:
        """What was taken from each task."""
        if self.mixture is None or self.next_row is None:
            return ()
        uses = Mixture(self.mixture).epochs(self.next_row)
        return tuple(TaskUse(u.task, u.share, u.rows, u.epochs, u.tokens, self._sources(u.task)) for u in uses)

    def _sources(self, task: str) -> tuple[tuple[str, str, str], ...]:
        assert self.mixture is not None
        cache = self.mixture.tasks[task]
        manifest = cache_manifest(self.run, cache.cache)
        if manifest.get("digest") != cache.digest:  # another cache lies there now
            return ()
        origins = [origin for origin in manifest.get("origins", ()) if isinstance(origin, Mapping)]
        return tuple((str(o.get("source")), str(o.get("version")), str(o.get("licence") or "")) for o in origins)

    @property
    def loss_tokens(self) -> int | None:
        """Tokens under loss of all steps; None where metrics.jsonl lacks a step."""
        points = [point for point in self.run.metrics.train if point.step <= self.step]
        return sum(point.loss_tokens for point in points) if len(points) == self.step > 0 else None

    @property
    def starts(self) -> tuple[Mapping[str, Json], ...]:
        """Every start and resume up to this checkpoint."""
        starts = [start for start in self.run.starts if isinstance(start, Mapping)]
        return tuple(start for start in starts if type(start.get("step")) is int and start["step"] < self.step)

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """Of exactly these weights."""
        from hephaestus_jax.evals.evaluation_files import weights_digest

        found = self.run.evaluation
        return found if found is not None and found.model.get("digest") == weights_digest(self._arrays) else None

    @property
    def held_out(self) -> Mapping[str, HeldOutPoint]:
        """Held-out losses during training, after exactly these steps."""
        if self.averaged:
            return {}
        points = {name: [p for p in curve if p.step == self.step] for name, curve in self.run.metrics.held_out.items()}
        return {name: found[-1] for name, found in points.items() if found}


def _base_model(origin: Origin, read_from: str) -> BaseModel:
    from hephaestus_jax.hf.vocabulary_growth import hub_name, read_growths

    growths = read_growths(origin.folder)
    hub_id, revision = hub_name(read_from)
    for recorded in (str(growth.get("source", "")) for growth in growths):
        if not hub_id and _HUB_ID.fullmatch(recorded.partition("@")[0]):
            hub_id, _, revision = recorded.partition("@")
    card = origin.folder / "README.md"
    terms = [file for file in origin.files if re.match(r"(LICEN[CS]E|NOTICE|USE_POLICY)", file, re.IGNORECASE)]
    return BaseModel(
        hub_id=hub_id,
        revision=revision,
        folder="" if revision and revision in read_from else Path(read_from).name,
        model_type=str(origin.config.raw.get("model_type", "")),
        licence=_front_matter(card.read_text("utf-8", errors="replace")) if card.is_file() else {},
        licence_files=tuple(terms),
        new_tokens=tuple((str(one.get("source")), tuple(one["tokens"])) for one in growths if one.get("tokens")),
    )


def _front_matter(card: str) -> dict[str, str]:
    """What the YAML at the top of a model's card says of its licence, as far as it is plain text."""
    lines = card.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, str] = {}
    for line in lines[1:]:
        if line.strip() == "---":
            return found
        scalar = _SCALAR.fullmatch(line)
        if scalar and scalar[1] in LICENCE_KEYS:
            found[scalar[1]] = scalar[2].strip("\"'")
    return {}  # it does not end
