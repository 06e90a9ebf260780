"""The paired bootstrap against small cases worked out by hand, and what must not change its result."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.evals import bootstrap
from hephaestus_jax.evals.bootstrap import PerRecord, paired_bootstrap


def records(numerators, groups=None, denominators=None) -> PerRecord:
    count = len(numerators)
    ids = [f"r{n}" for n in range(count)]
    return PerRecord(ids, groups or ids, numerators, denominators or [1.0] * count)


def test_the_difference_is_one_of_ratios_of_sums():
    a = records([2.0, 30.0], denominators=[1.0, 10.0])
    b = records([1.0, 10.0], denominators=[1.0, 10.0])
    found = paired_bootstrap(a, b)
    assert a.ratio == pytest.approx(32 / 11) and found.difference == pytest.approx(21 / 11)  # not the mean, 1.5
    assert found.n_groups == 2 and found.low <= found.difference <= found.high


def test_two_groups_end_where_all_resamples_end():
    """Of two groups there are three samples; beyond the 99.9th percentile lie the samples of one group twice."""
    found = paired_bootstrap(records([3.0, 5.0]), records([1.0, 1.0]))
    assert (found.low, found.difference, found.high) == (2.0, 3.0, 4.0) and found.excludes_zero


def test_quantiles_are_those_of_all_resamples_counted_out():
    values, level = [0.0, 1.0, 4.0, 9.0], 0.5
    means = sorted(sum(chosen) / 4 for chosen in itertools.product(values, repeat=4))
    tail = bootstrap.NormalDist().cdf(-math.sqrt(4 / 3) * 0.7648923284)  # Student's t, 3 degrees of freedom, 75 %
    found = paired_bootstrap(records(values), records([0.0] * 4), resamples=60_000, level=level)
    for end, p in ((found.low, tail), (found.high, 1 - tail)):
        assert means[int(256 * (p - 0.01))] <= end <= means[int(256 * (p + 0.01))]


def test_what_is_hard_for_both_cancels():
    rng = np.random.default_rng(0)
    hard, harder = rng.normal(3, 10, 40), 0.1 + rng.normal(0, 0.01, 40)
    found = paired_bootstrap(records((hard + harder).tolist()), records(hard.tolist()))
    assert 0.08 < found.low < found.difference < found.high < 0.12
    other = dataclasses.replace(found, low=-0.1)
    assert found.excludes_zero and not other.excludes_zero


def test_groups_are_drawn_whole():
    """Twenty copies of each of four records know no more than the four."""
    a, zero = [1.0, 2.0, 3.0, 6.0], [0.0] * 4
    four = paired_bootstrap(records(a), records(zero))
    groups = [f"g{n % 4}" for n in range(80)]
    eighty = paired_bootstrap(records(a * 20, groups), records(zero * 20, groups))
    assert eighty == four
    alone = paired_bootstrap(records(a * 20), records(zero * 20))
    assert alone.n_groups == 80 and alone.high - alone.low < (four.high - four.low) / 3


def test_one_group_has_no_interval():
    found = paired_bootstrap(records([1.0, 2.0], ["g", "g"]), records([0.0, 0.0], ["g", "g"]))
    assert found.difference == 1.5 and math.isnan(found.low) and math.isnan(found.high) and not found.excludes_zero


numbers = st.floats(-100, 100, allow_subnormal=False)
rows = st.lists(st.tuples(numbers, numbers, st.integers(0, 5), st.integers(1, 9)), min_size=2, max_size=30)


def pair(rows) -> tuple[PerRecord, PerRecord]:
    groups, sizes = [f"g{row[2]}" for row in rows], [float(row[3]) for row in rows]
    return records([row[0] for row in rows], groups, sizes), records([row[1] for row in rows], groups, sizes)


def shuffled(one: PerRecord, order) -> PerRecord:
    return PerRecord(*([getattr(one, field.name)[n] for n in order] for field in dataclasses.fields(one)))


@settings(max_examples=60, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_sides_mirror(rows, random):
    a, b = pair(rows)
    found = paired_bootstrap(a, b, resamples=200)
    one, other = list(range(len(rows))), list(range(len(rows)))
    random.shuffle(one)
    random.shuffle(other)
    assert repr(paired_bootstrap(shuffled(a, one), shuffled(b, other), resamples=200)) == repr(found)
    mirrored = paired_bootstrap(b, a, resamples=200)
    expected = [-found.difference, -found.high, -found.low]
    assert [mirrored.difference, mirrored.low, mirrored.high] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    same = paired_bootstrap(a, a, resamples=50)
    assert same.difference == 0 and (same.n_groups == 1 or same.low == same.high == 0)


def test_memory_does_not_change_the_result(monkeypatch):
    a, b = records([float(n**1.5 % 7) for n in range(50)]), records([1.0] * 50)
    whole = paired_bootstrap(a, b)
    monkeypatch.setattr(bootstrap, "COUNTS_AT_A_TIME", 50 * 7)
    in_parts = paired_bootstrap(a, b)
    assert in_parts == whole  # the generator gives the same draws however many are asked for at a time
    assert paired_bootstrap(a, b, seed=1) != whole


def test_what_cannot_be_compared_is_refused():
    a = records([1.0, 2.0])
    with pytest.raises(ValueError, match="the same records"):
        paired_bootstrap(a, records([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="the same records"):
        paired_bootstrap(a, records([1.0, 2.0], ["g", "g"]))
    for wrong, message in (
        (((), (), (), ()), "one record or more"),
        ((("a",), ("g",), (1.0, 2.0), (1.0,)), "one value per record"),
        ((("a", "a"), ("g", "g"), (1.0, 2.0), (1.0, 1.0)), "one id"),
        ((("a",), ("g",), (1.0,), (0.0,)), "not above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PerRecord(*wrong)
