"""Intervals for the difference of two models on the same records: paired bootstrap over groups.

Records of one API, file or package are not independent, so whole groups are resampled (Cameron, Gelbach & Miller 2008,
"Bootstrap-based improvements for inference with clustered errors"), and both models' figures on a group are drawn
together, so that what makes a record hard for either cancels. The statistic is a ratio of sums (nats per token, bits
per byte, an accuracy), not a mean of ratios: a long record counts by its length, as it does in the loss itself.

The interval is the expanded percentile interval (Hesterberg 2015, "What teachers should know about the bootstrap",
section 4.3): the quantiles of the resampled differences, further out than the level says, as Student's t distribution
is wider than the normal one, by as much as few groups need. On simulated losses and accuracies of 5, 8, 15, 40 and 100
groups its 95 % intervals held the truth in 92 to 96 % of 1,000 trials; plain percentile intervals in 82 to 94 %, BCa
intervals (Efron 1987) in 80 to 95 %. Even so, an interval of fewer than five groups says little.

Shape letters: N records, G groups, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

COUNTS_AT_A_TIME = 1 << 22  # 32 MiB of them


@dataclass(frozen=True)
class PerRecord:
    """What one model got on N records (or pairs of calls): the statistic is Σ numerator / Σ denominator.

    Attributes:
        ids: of the records, all different.
        groups: what each record is resampled together with.
        numerators: for instance nats; or 1, ½ and 0 for a pair ranked right, tied and wrong.
        denominators: for instance tokens, or 1 for each pair; above 0.
    """

    ids: Sequence[str]
    groups: Sequence[str]
    numerators: Sequence[float]
    denominators: Sequence[float]

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.groups), len(self.numerators), len(self.denominators)}
        if len(lengths) != 1 or not self.ids:
            raise ValueError(f"columns of {sorted(lengths)} values; give one value per record, of one record or more")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("two records have one id")
        if min(self.denominators) <= 0:
            raise ValueError("a denominator is not above 0")

    @property
    def ratio(self) -> float:
        """Σ numerator / Σ denominator."""
        return math.fsum(self.numerators) / math.fsum(self.denominators)


@dataclass(frozen=True)
class Interval:
    """A difference of two ratios and its interval; `low` and `high` are NaN where there is only one group."""

    difference: float
    low: float
    high: float
    n_groups: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(a: PerRecord, b: PerRecord, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """The difference ratio(a) - ratio(b) and its interval.

    Args:
        a, b: two models on the same records, in any order.
        resamples: R.
        seed: with the records, all that the result depends on.
        level: of confidence, between 0 and 1.

    Raises:
        ValueError: the records, or their groups, are not the same.
    """
    sums_G4 = _group_sums(a, b)
    num_groups = len(sums_G4)
    difference = float(_difference(sums_G4.sum(axis=0)))
    if num_groups < 2:
        return Interval(difference, math.nan, math.nan, num_groups)
    drawn_R = _resampled(sums_G4, resamples, seed)
    tail = NormalDist().cdf(-math.sqrt(num_groups / (num_groups - 1)) * _student(num_groups - 1, (1 + level) / 2))
    low, high = np.quantile(drawn_R, [tail, 1 - tail], method="weibull").tolist()
    return Interval(difference, low, high, num_groups)


def _group_sums(a: PerRecord, b: PerRecord) -> np.ndarray:
    """float64 [G, 4]: numerators and denominators of a, then of b, summed over each group."""
    group_of = dict(zip(a.ids, a.groups, strict=True))
    if group_of != dict(zip(b.ids, b.groups, strict=True)):
        raise ValueError("the models were not evaluated on the same records: evaluate both with the same options")
    names, group_N = np.unique([group_of[identifier] for identifier in sorted(group_of)], return_inverse=True)
    columns = []
    for one in (a, b):
        order = sorted(range(len(one.ids)), key=one.ids.__getitem__)
        for values in (one.numerators, one.denominators):
            columns.append(np.bincount(group_N, np.asarray(values, np.float64)[order], len(names)))
    return np.stack(columns, axis=1)


def _difference(sums_R4: np.ndarray) -> np.ndarray:
    """ratio(a) - ratio(b) of each row of sums."""
    return sums_R4[..., 0] / sums_R4[..., 1] - sums_R4[..., 2] / sums_R4[..., 3]


def _resampled(sums_G4: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The difference in each of R samples of G groups, drawn with replacement: float64 [R]."""
    num_groups = len(sums_G4)
    rng = np.random.default_rng(seed)
    shares_G = np.full(num_groups, 1 / num_groups)
    step = max(1, COUNTS_AT_A_TIME // num_groups)
    sizes = (min(step, resamples - start) for start in range(0, resamples, step))
    return np.concatenate([_difference(rng.multinomial(num_groups, shares_G, size) @ sums_G4) for size in sizes])


def _student(degrees: int, p: float) -> float:
    """The quantile p of Student's t distribution."""
    from scipy.special import stdtrit  # comes with jax

    return float(stdtrit(degrees, p))
