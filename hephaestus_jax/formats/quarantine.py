"""Bad input set aside: counted by reason, with a few examples each, never lost silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.errors import UserError

DETAIL_CHARACTERS = 300  # of an example's detail that are kept; a malformed line can be a whole file


@dataclass(frozen=True)
class QuarantineExample:
    """One input that was set aside."""

    reason: str  # short and countable: "malformed JSON"
    place: str  # "file:line" or a record id
    detail: str  # what exactly was wrong there


@dataclass
class Quarantine:
    """Collects rejected inputs. Counts are exact; of each reason the first `max_examples` are kept as examples."""

    max_examples: int = 20
    _counts: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, list[QuarantineExample]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_examples < 0:
            raise UserError(f"quarantine: max_examples is {self.max_examples}; set it to 0 or more")

    def add(self, reason: str, place: str, detail: str) -> None:
        """Sets one input aside."""
        self._counts[reason] += 1
        kept = self._examples.setdefault(reason, [])
        if len(kept) < self.max_examples:
            kept.append(QuarantineExample(reason, place, _shortened(detail)))

    def merge(self, other: Quarantine) -> None:
        """Adds what another worker set aside; merging in a fixed order gives the same examples every time."""
        for reason, count in other._counts.items():
            self._counts[reason] += count
            kept = self._examples.setdefault(reason, [])
            kept.extend(other._examples.get(reason, ())[: max(0, self.max_examples - len(kept))])

    @property
    def counts(self) -> dict[str, int]:
        """Inputs set aside per reason, most frequent first, ties by name."""
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def examples(self) -> tuple[QuarantineExample, ...]:
        """The first examples of every reason, in the order of `counts`."""
        return tuple(example for reason in self.counts for example in self._examples.get(reason, ()))

    @property
    def total(self) -> int:
        """Inputs set aside in all."""
        return sum(self._counts.values())

    def __len__(self) -> int:
        return self.total

    def __bool__(self) -> bool:
        return self.total > 0

    def summary(self) -> str:
        """One line: how many, why, and where the first of each was."""
        if not self.total:
            return "nothing quarantined"
        reasons = []
        for reason, count in self.counts.items():
            first = next(iter(self._examples.get(reason, ())), None)
            reasons.append(f"{count:,} {reason}" + (f" (first: {first.place}: {first.detail})" if first else ""))
        return f"{self.total:,} quarantined: " + "; ".join(reasons)

    def to_json(self) -> dict[str, Any]:
        """`{"total", "counts", "max_examples", "examples": [{"reason", "place", "detail"}]}`."""
        examples = [{"reason": e.reason, "place": e.place, "detail": e.detail} for e in self.examples]
        return {"total": self.total, "counts": self.counts, "max_examples": self.max_examples, "examples": examples}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Quarantine:
        """Inverse of `to_json`."""
        made = cls(max_examples=value["max_examples"], _counts=Counter(value["counts"]))
        for example in value["examples"]:
            made._examples.setdefault(example["reason"], []).append(QuarantineExample(**example))
        return made


def _shortened(detail: str) -> str:
    line = " ".join(detail.split())
    # The text may hold half of a surrogate pair, which no report file could be written with.
    line = line.encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= DETAIL_CHARACTERS else line[: DETAIL_CHARACTERS - 1] + "…"
