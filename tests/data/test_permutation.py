"""Permutations are exact bijections, well mixed, and the same everywhere and for ever."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.data.permutation import MAX_SIZE, derive_key, permutations, permute

KEY = derive_key("epoch", 0, "code", 3)

GOLDEN_KEY = "7ba8e10aa44ecfdffb94664d34292362"
GOLDEN_12 = [4, 7, 0, 11, 2, 10, 8, 5, 6, 9, 3, 1]
GOLDEN_MILLION = [835739, 139887, 205739, 906867, 828458, 278336]
GOLDEN_HUGE = [536996930446356104, 503439136116581985, 2278546466395860394]


def sigmas(observed: np.ndarray, expected: float) -> float:
    """How far the chi-square of equally likely cells lies from its mean, in standard deviations."""
    degrees = observed.size - 1
    return (float(((observed - expected) ** 2).sum()) / expected - degrees) / math.sqrt(2 * degrees)


def test_bijective_for_every_small_size():
    for size in range(1, 600):
        assert np.array_equal(np.sort(permute(np.arange(size), size, KEY)), np.arange(size)), size


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 100_000), seed=st.integers(-(2**70), 2**70))
def test_bijective_for_any_size_and_key(size, seed):
    image = permute(np.arange(size), size, derive_key(seed))
    assert np.array_equal(np.sort(image), np.arange(size))


@settings(deadline=None)
@given(size=st.integers(2**40, MAX_SIZE), indices=st.lists(st.integers(0, 2**40 - 1), min_size=2, unique=True))
def test_huge_sizes_stay_in_range_and_distinct(size, indices):
    image = permute(np.array(indices), size, KEY)
    assert image.min() >= 0 and image.max() < size
    assert len(set(image.tolist())) == len(indices)


@settings(deadline=None)
@given(size=st.integers(1, 5_000), data=st.data())
def test_an_element_does_not_depend_on_its_company(size, data):
    whole = permute(np.arange(size), size, KEY)
    some = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    assert np.array_equal(permute(some, size, KEY), whole[some])
    assert permute(some[:1].reshape(1, 1), size, KEY).shape == (1, 1)
    assert permute(int(some[0]), size, KEY) == whole[some[0]]


def test_several_keys_at_once_equal_one_key_at_a_time():
    keys = [derive_key(number) for number in range(40)]
    for size in (1, 2, 3, 10, 1000):
        expected = np.stack([permute(np.arange(size), size, key) for key in keys])
        assert np.array_equal(permutations(size, keys), expected)


def test_golden_values():
    # These must never change: every cached run's order of rows rests on them.
    assert KEY.hex() == GOLDEN_KEY
    assert permute(np.arange(12), 12, KEY).tolist() == GOLDEN_12
    assert permute(np.arange(6), 1_000_003, KEY).tolist() == GOLDEN_MILLION
    assert permute(np.arange(3), MAX_SIZE, KEY).tolist() == GOLDEN_HUGE


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_every_permutation_of_few_elements_is_equally_likely(size):
    keys = [derive_key("few", size, number) for number in range(100 * math.factorial(size))]
    seen = Counter(map(tuple, permutations(size, keys).tolist()))
    observed = np.array([seen[order] for order in itertools.permutations(range(size))])
    assert abs(sigmas(observed, 100)) < 4


@pytest.mark.parametrize("size", [1_000, 1_024, 65_536, 99_991])
def test_no_trace_of_the_input_order(size):
    for number in range(4):
        image = permute(np.arange(size), size, derive_key("mixed", number))
        noise = 1 / math.sqrt(size)
        for lag in (1, 2, math.isqrt(size - 1) + 1):  # the last: a whole line of the Feistel grid
            assert abs(np.corrcoef(image[:-lag], image[lag:])[0, 1]) < 5 * noise
        assert abs(np.corrcoef(np.arange(size), image)[0, 1]) < 5 * noise
        # where the first, second, … tenth of the inputs land: a 10 × 10 contingency table
        table, _, _ = np.histogram2d(np.arange(size), image, bins=10)
        assert sigmas(table, size / 100) < 5
        # steps between neighbours' images modulo the size are uniform
        steps = np.diff(image) % size
        assert abs(sigmas(np.histogram(steps, bins=50, range=(0, size))[0], (size - 1) / 50)) < 5
        assert (image == np.arange(size)).sum() < 8  # fixed points are Poisson(1)


def test_keys_differing_in_one_bit_give_unrelated_permutations():
    size = 10_000
    other = bytes([KEY[0] ^ 1]) + KEY[1:]
    first, second = permute(np.arange(size), size, KEY), permute(np.arange(size), size, other)
    assert (first == second).sum() < 8
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(size)


def test_keys_keep_their_parts_apart():
    parts = [("a", "b"), ("ab",), ("a", "b", ""), (1, 2), (12,), ("1", "2"), (1, "2"), ('a","b',), ()]
    assert len({derive_key(*part) for part in parts}) == len(parts)


@pytest.mark.parametrize(("index", "size"), [([5], 5), ([-1], 5), ([0], 0), ([0], MAX_SIZE + 1)])
def test_out_of_range_is_refused(index, size):
    with pytest.raises(ValueError, match="outside"):
        permute(np.array(index), size, KEY)


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ValueError, match="16"):
        permute(np.arange(3), 3, b"short")


def test_no_elements_is_fine():
    assert permute(np.array([], np.int64), 7, KEY).shape == (0,)
