"""evaluation.json, which `python -m tools.evaluate` writes, read for a report.

Arrays: R records of a slice, P pairs of a gold and a corrupted call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1

Json = Any


@dataclass(frozen=True)
class RecordLosses:
    """The loss of every record of a slice: ids and groups (what is resampled together) [R], sums of each [R]."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    nats_R: np.ndarray
    tokens_R: np.ndarray
    bytes_R: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.ids, self.groups, self.nats_R, self.tokens_R, self.bytes_R)}
        if len(lengths) != 1:
            raise ValueError("the columns of per_record differ in length")
        if not all(np.isfinite(part).all() for part in (self.nats_R, self.tokens_R, self.bytes_R)):
            raise ValueError("per_record holds numbers that are not finite")
        if len(set(self.ids)) != len(self.ids) or not (self.tokens_R > 0).all():
            raise ValueError("per_record has a record twice, or one without tokens")


@dataclass(frozen=True)
class SliceEvaluation:
    """Held-out loss of a slice and what it was measured on; NaN where it is not known."""

    records: int
    tokens: int
    bytes: int
    rows: int
    nats_per_token: float
    bits_per_byte: float
    per_record: RecordLosses | None


@dataclass(frozen=True)
class Pairs:
    """Gold against corrupted calls: id, group (what is resampled together) and kind of corruption, [P] each.

    `right_P` is 1 where the gold call is the likelier one, 0 where not, a half where neither is.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    corruptions: tuple[str, ...]
    right_P: np.ndarray

    def __post_init__(self) -> None:
        if len({len(part) for part in (self.ids, self.groups, self.corruptions, self.right_P)}) != 1:
            raise ValueError("the columns of per_pair differ in length")
        if not np.isfinite(self.right_P).all() or len(set(self.ids)) != len(self.ids):
            raise ValueError("per_pair holds numbers that are not finite, or a pair twice")


@dataclass(frozen=True)
class CorruptionScore:
    """Accuracy on one kind of corruption.

    Attributes:
        pairs: number of them.
        accuracy: share of them ranked right, ties by half.
        trivial: accuracy of a rule that looks at no model; NaN where it is not told.
        others: accuracy by other ways of comparing likelihoods, by name.
        baselines: what more rules that look at no model get, by name.
    """

    pairs: int
    accuracy: float
    trivial: float
    others: Mapping[str, float]
    baselines: Mapping[str, float]


@dataclass(frozen=True)
class Ranking:
    """How often the gold call is likelier than a corrupted one."""

    calls: int
    apis: int
    chance: float
    normalisation: str
    trivial_rule: str
    scores: Mapping[str, CorruptionScore]
    per_pair: Pairs | None
    examples: tuple[Mapping[str, Json], ...]


@dataclass(frozen=True)
class Evaluation:
    """The content of one evaluation.json."""

    path: Path
    model: Mapping[str, Json]
    inputs: Mapping[str, Json]
    slices: Mapping[str, SliceEvaluation]
    groups: str
    ranking: Ranking | None
    samples: tuple[Mapping[str, Json], ...]
    seconds: float
    versions: Mapping[str, Json] = field(default_factory=dict)

    @property
    def parameters(self) -> int | None:
        """Number of weights of the model."""
        value = self.model.get("parameters")
        return value if type(value) is int else None


def read_evaluation(path: Path, notes: list[str]) -> Evaluation | None:
    """The evaluation at `path`; None, and a sentence in `notes` if it is there and cannot be used."""
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text("utf-8"))
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            found = value.get("format") if isinstance(value, dict) else None
            notes.append(f"{path.name} has format {found}, this version reads {FORMAT}; evaluate again.")
            return None
        return _evaluation(path, value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        words = " ".join(str(error).split())[:120]
        notes.append(f"{path.name} is damaged ({type(error).__name__}: {words}); evaluate again.")
        return None


def _evaluation(path: Path, value: Mapping[str, Json]) -> Evaluation:
    samples = tuple(sample for sample in value.get("samples") or () if isinstance(sample, Mapping))
    groups = value.get("groups", "")
    return Evaluation(
        path=path,
        model=dict(value.get("model") or {}),
        inputs=dict(value.get("inputs") or {}),
        slices={str(name): _slice(part) for name, part in (value.get("slices") or {}).items()},
        groups=groups if isinstance(groups, str) else json.dumps(groups),
        ranking=_ranking(value["ranking"]) if value.get("ranking") else None,
        samples=samples,
        seconds=_float(value.get("seconds")),
        versions=dict(value.get("versions") or {}),
    )


def _slice(value: Mapping[str, Json]) -> SliceEvaluation:
    found = value.get("per_record")
    return SliceEvaluation(
        records=int(value.get("records") or 0),
        tokens=int(value.get("tokens") or 0),
        bytes=int(value.get("bytes") or 0),
        rows=int(value.get("rows") or 0),
        nats_per_token=_float(value.get("nats_per_token")),
        bits_per_byte=_float(value.get("bits_per_byte")),
        per_record=_records(found) if found else None,
    )


def _records(value: Mapping[str, Sequence[Json]]) -> RecordLosses:
    numbers = (np.asarray(value[name], np.float64) for name in ("nats", "tokens", "bytes"))
    return RecordLosses(tuple(map(str, value["id"])), tuple(map(str, value["group"])), *numbers)


def _ranking(value: Mapping[str, Json]) -> Ranking:
    scores = {str(name): _score(part) for name, part in (value.get("corruptions") or {}).items()}
    return Ranking(
        calls=int(value.get("calls") or 0),
        apis=int(value.get("apis") or 0),
        chance=float(value.get("chance", 0.5)),
        normalisation=str(value.get("normalisation") or ""),
        trivial_rule=str(value.get("trivial_rule") or ""),
        scores=scores,
        per_pair=_pairs(value["per_pair"]) if value.get("per_pair") else None,
        examples=tuple(item for item in value.get("examples") or () if isinstance(item, Mapping)),
    )


def _score(value: Mapping[str, Json]) -> CorruptionScore:
    prefix = "accuracy_"
    return CorruptionScore(
        pairs=int(value.get("pairs") or 0),
        accuracy=_float(value.get("accuracy")),
        trivial=_float(value.get("trivial")),
        others={name.removeprefix(prefix): _float(v) for name, v in value.items() if name.startswith(prefix)},
        baselines={str(name): _float(v) for name, v in (value.get("baselines") or {}).items()},
    )


def _pairs(value: Mapping[str, Sequence[Json]]) -> Pairs:
    ids, groups, corruptions = (tuple(map(str, value[column])) for column in ("id", "group", "corruption"))
    return Pairs(ids, groups, corruptions, np.asarray(value["correct"], np.float64))


def _float(value: Json) -> float:
    """A number, NaN for null."""
    return math.nan if value is None else float(value)
