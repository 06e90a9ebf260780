"""Charts: round ticks, labels that do not overlap, marks where their values are."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.reports.charts import (
    WIDTH,
    Estimate,
    EstimateGroup,
    Line,
    Reference,
    interval_chart,
    line_chart,
    shortened,
    spread,
    ticks,
)

FINITE = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(FINITE, FINITE, st.integers(3, 8))
def test_ticks_are_round_and_cover_the_values(a, b, about):
    low, high = min(a, b), max(a, b)
    if 0 < high - low < 1e-6 * max(abs(low), abs(high)):
        return  # as narrow as that, rounding is all there is
    found = ticks(low, high, about)
    step = found[1] - found[0]
    assert 2 <= len(found) <= 2 * about + 2
    assert found[0] <= low + 1e-6 * step and found[-1] >= high - 1e-6 * step
    lead = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(lead - one) for one in (1, 2, 2.5, 5)) < 1e-3


def test_ticks_of_a_typical_loss():
    assert ticks(5.21, 5.39, 5) == pytest.approx([5.2, 5.25, 5.3, 5.35, 5.4])
    assert ticks(0, 307_200, 5) == [0, 100_000, 200_000, 300_000, 400_000]


@given(st.lists(st.floats(0, 200), min_size=1, max_size=9))
def test_labels_are_apart_and_stay_inside(positions):
    moved = spread(positions, 14.0, 0.0, 200.0)
    order = sorted(range(len(positions)), key=lambda index: moved[index])
    gap = min(14.0, 200.0 / max(1, len(positions) - 1))
    for one, other in itertools.pairwise(order):
        assert moved[other] - moved[one] >= gap - 1e-6
        assert positions[one] <= positions[other] or moved[other] - moved[one] == pytest.approx(gap)
    assert min(moved) >= -1e-6 and max(moved) <= 200 + 1e-6


def test_labels_that_are_apart_already_stay():
    assert spread([10.0, 100.0, 50.0], 14.0, 0.0, 200.0) == [10.0, 100.0, 50.0]


def numbers(pattern, text):
    return [tuple(map(float, found)) for found in re.findall(pattern, text)]


def test_estimates_lie_on_one_scale_with_their_reference():
    groups = [
        EstimateGroup("first", (Estimate("a", -0.5, -0.6, -0.4, 0), Estimate("b", 0.5, math.nan, math.nan, 0))),
        EstimateGroup("none", (Estimate("c", math.nan, math.nan, math.nan, 1),)),
    ]
    chart = interval_chart("t", groups, "difference", Reference(0.0, "zero"))
    (a, _), (b, _) = numbers(r"<circle cx='([\d.]+)' cy='([\d.]+)'", chart)
    ((zero, _),) = numbers(r"class='zero' d='M([\d.]+) ([\d.]+)V", chart)
    ((low, _, high),) = numbers(r"class='line s0' d='M([\d.]+) ([\d.]+)H([\d.]+)M", chart)
    unit = (b - a) / 1.0
    assert zero == pytest.approx((a + b) / 2, abs=0.2)
    assert (low, high) == pytest.approx((a - 0.1 * unit, a + 0.1 * unit), abs=0.2)
    assert "none" not in chart and ">c<" not in chart


@given(
    st.lists(
        st.tuples(
            st.text(max_size=30),
            st.lists(st.tuples(st.integers(0, 10**9), st.floats(-1e6, 1e6) | st.just(math.nan)), max_size=5),
        ),
        max_size=4,
    )
)
def test_everything_drawn_is_inside_the_picture(series):
    lines = [Line(label, tuple(map(tuple, points)), number, True) for number, (label, points) in enumerate(series)]
    chart = line_chart("<title>", lines, "x", "y", height=250)
    assert "<title>" not in chart
    if not any(math.isfinite(y) for line in lines for _, y in line.points):
        assert "nothing was measured" in chart
        return
    places = numbers(r"[ML]([\d.-]+) ([\d.-]+)", chart) + numbers(
        r"<text class='[^']+' x='([\d.-]+)' y='([\d.-]+)'", chart
    )
    assert len(places) > 8
    for x, y in places:
        assert 0 <= x <= WIDTH and 0 <= y <= 250


def test_long_names_are_shortened_in_the_middle():
    assert shortened("abcdefghij", 10) == "abcdefghij" and shortened("abcdefghijk", 7) == "abc…ijk"
    assert shortened("a\nb\x1b", 9) == "a␊b␛"


def test_series_differ_without_colour():
    lines = [Line(name, ((0, 1), (1, 2)), number, True) for number, name in enumerate("abcdef")]
    chart = line_chart("t", lines, "x", "y")
    dashes = re.findall(r"class='line s\d' d='[^']*'( stroke-dasharray='[\d ]+')?", chart)
    assert len(set(dashes)) == 6
