import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.dedup import (
    LARGE_BUCKET,
    SIMILAR,
    UnionFind,
    band_rows,
    jaccard,
    keyed_fraction,
    near_duplicate_groups,
    shingles,
    signature,
    stack,
)


def _groups(texts: list[str]) -> list[list[int]]:
    return near_duplicate_groups(stack([signature(t) for t in texts]), lambda a, b: jaccard(texts[a], texts[b]))


def test_shingles_are_runs_of_three_words_in_lower_case() -> None:
    assert shingles("One two, THREE\nfour") == {"one two three", "two three four"}
    assert shingles("One two") == {"one two"} and shingles("") == {""}


def test_jaccard_by_hand() -> None:
    assert jaccard("a b c d", "a b c e") == 1 / 3
    assert jaccard("a b c", "A, B; C!") == 1


def test_groups_are_exactly_the_pairs_above_the_threshold() -> None:
    words = [f"w{i}" for i in range(400)]
    base = words[:102]  # 100 shingles
    texts = [" ".join(base)]
    for changed in range(1, 40):  # one more word at the end: 100 shared shingles of 100 + changed
        texts.append(" ".join([*base, *(f"x{changed}_{i}" for i in range(changed))]))
    for number in range(1, len(texts)):
        similar = jaccard(texts[0], texts[number]) >= SIMILAR
        assert similar == (100 / (100 + number) >= 0.8)
        assert _groups([texts[0], texts[number]]) == ([[0, 1]] if similar else [])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_no_pair_above_the_threshold_is_missed(seed: int) -> None:
    draw = random.Random(seed)
    originals = [[draw.choice("abcdefghijklmnop") * 3 for _ in range(draw.randint(5, 60))] for _ in range(6)]
    texts = []
    for words in originals:
        for _ in range(3):
            edited = list(words)
            for _ in range(draw.randint(0, 3)):
                edited[draw.randrange(len(edited))] = "edit"
            texts.append(" ".join(edited))
    group_of = {row: number for number, group in enumerate(_groups(texts)) for row in group}
    for a in range(len(texts)):
        for b in range(a + 1, len(texts)):
            if jaccard(texts[a], texts[b]) >= SIMILAR:
                assert group_of[a] == group_of[b]


def test_without_exact_similarity_the_estimate_decides() -> None:
    texts = ["the same words in every text of these two", "the same words in every text of these two", "nothing alike"]
    assert near_duplicate_groups(stack([signature(t) for t in texts])) == [[0, 1]]
    assert near_duplicate_groups(stack([])) == []


def test_another_threshold() -> None:
    base = [f"w{i}" for i in range(102)]
    texts = [" ".join(base), *(" ".join([*base, *(f"x{n}" for n in range(more))]) for more in (30, 50))]  # 0.77, 0.67
    signatures = stack([signature(text) for text in texts])
    exact = [near_duplicate_groups(signatures, lambda a, b: jaccard(texts[a], texts[b]), s) for s in (0.8, 0.7, 0.65)]
    assert exact == [[[1, 2]], [[0, 1, 2]], [[0, 1, 2]]]
    assert [band_rows(similar) for similar in (0.9, 0.8, 0.7, 0.5)] == [10, 6, 5, 3]
    with pytest.raises(UserError, match=r"1\.5"):
        near_duplicate_groups(signatures, similar=1.5)


def test_large_clusters_are_found_without_comparing_all_pairs() -> None:
    draw = np.random.default_rng(0)
    parts = []
    for _ in range(3):  # of 1,500: signatures that agree in nine of ten places with their centre's
        centre = draw.integers(0, 2**32, 252, dtype=np.uint32)
        members = np.tile(centre, (1500, 1))
        changed = draw.random(members.shape) < 0.04
        members[changed] = draw.integers(0, 2**32, int(changed.sum()), dtype=np.uint32)
        parts.append(members)
        assert len(np.unique(members, axis=0)) > 2 * LARGE_BUCKET
    asked: list[tuple[int, int]] = []

    def similarity(one: int, other: int) -> float:
        asked.append((one, other))
        return 1.0

    assert near_duplicate_groups(np.concatenate(parts), similarity) == [
        list(range(n, n + 1500)) for n in (0, 1500, 3000)
    ]
    assert len(asked) < 5_000  # of 3.4 million pairs


def test_signatures_are_the_same_on_every_machine() -> None:
    # written down once: another value would move records between splits
    assert signature("one two three four").tolist()[:4] == GOLDEN
    assert signature("x").dtype == np.uint32


GOLDEN = [3805660373, 3265925264, 3879862452, 3292978270]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20))), st.randoms())
def test_union_find_does_not_depend_on_the_order(pairs: list[tuple[int, int]], draw: random.Random) -> None:
    first: UnionFind[int] = UnionFind()
    for a, b in pairs:
        first.union(a, b)
    second: UnionFind[int] = UnionFind()
    shuffled = list(pairs)
    draw.shuffle(shuffled)
    for a, b in shuffled:
        second.union(b, a)
    assert [first.find(i) for i in range(21)] == [second.find(i) for i in range(21)]
    assert all(first.find(i) <= i for i in range(21))


def test_keyed_fraction_is_uniform_and_depends_on_every_part() -> None:
    draws = np.array([keyed_fraction(0, "file", str(i)) for i in range(4000)])
    assert draws.min() >= 0 and draws.max() < 1
    assert np.abs(np.histogram(draws, 10, (0, 1))[0] - 400).max() < 90
    assert len({keyed_fraction(*key) for key in [(0, "a", "b"), (1, "a", "b"), (0, "ab", ""), (0, "", "ab")]}) == 4
