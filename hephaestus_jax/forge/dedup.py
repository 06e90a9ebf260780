"""Near-duplicates: MinHash over word shingles, with the groups they form.

Broder, "On the resemblance and containment of documents" (1997): the share of equal entries of two MinHash signatures
estimates the Jaccard similarity of the shingle sets. Candidates come from locality-sensitive hashing (Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3): signatures cut into bands, equal bands compared.

Shapes: N texts, P permutations, B bands, R rows of a band.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
from rensa import RMinHash

K = TypeVar("K", bound=Hashable)

SHINGLE_WORDS = 3
PERMUTATIONS = 252
BANDS, ROWS = 42, 6  # a pair at Jaccard 0.8 shares no band with probability (1 - 0.8**6)**42 = 3e-6
SIMILAR = 0.8
_SEED = 20_250_207
_WORD = re.compile(r"\w+")


class UnionFind(Generic[K]):
    """Disjoint sets; the representative of a set is its smallest member, so groups do not depend on the order."""

    def __init__(self) -> None:
        self._parent: dict[K, K] = {}

    def find(self, item: K) -> K:
        """The representative of the set that `item` is in."""
        root = item
        while (parent := self._parent.setdefault(root, root)) != root:
            root = parent
        while (parent := self._parent[item]) != root:
            self._parent[item], item = root, parent
        return root

    def union(self, first: K, second: K) -> None:
        """Joins two sets."""
        one, other = self.find(first), self.find(second)
        if one != other:
            low, high = (one, other) if one < other else (other, one)  # type: ignore[operator]
            self._parent[high] = low


def shingles(text: str) -> set[str]:
    """The distinct runs of three lower-case words; a shorter text is one shingle."""
    words = _WORD.findall(text.lower())
    if len(words) < SHINGLE_WORDS:
        return {" ".join(words)}
    return {" ".join(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)}


def jaccard(first: str, second: str) -> float:
    """Jaccard similarity of two texts' shingle sets, exactly."""
    one, other = shingles(first), shingles(second)
    return len(one & other) / len(one | other)


def signature(text: str) -> np.ndarray:
    """MinHash signature [P] uint32 of a text."""
    sketch = RMinHash(num_perm=PERMUTATIONS, seed=_SEED)
    sketch.update(sorted(shingles(text)))
    return np.array(sketch.digest(), dtype=np.uint32)


def text_digest(text: str) -> str:
    """Equal for equal texts: 128 bits as 32 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def near_duplicate_groups(
    signatures_NP: np.ndarray, similarity: Callable[[int, int], float] | None = None
) -> list[list[int]]:
    """The groups of two and more texts that are linked by pairs of Jaccard similarity ≥ `SIMILAR`.

    Args:
        signatures_NP: from `signature`, one row a text.
        similarity: the exact similarity of two rows, asked for candidate pairs; the signatures' estimate when None.

    Returns:
        Sorted lists of row numbers, in the order of their first rows.
    """
    distinct, rows_of = _distinct_rows(signatures_NP)
    groups: UnionFind[int] = UnionFind()
    for rows in rows_of:
        # equal signatures: similarity 1 but for an error of one in e^(-P(1-J)); the exact check would be quadratic
        for row in rows[1:]:
            groups.union(rows[0], row)
    checked: set[tuple[int, int]] = set()
    for first, second, estimate in _candidates(signatures_NP[distinct]):
        one, other = int(distinct[first]), int(distinct[second])
        if (one, other) in checked or groups.find(one) == groups.find(other):
            continue
        checked.add((one, other))
        if (estimate if similarity is None else similarity(one, other)) >= SIMILAR:
            groups.union(one, other)
    members: dict[int, list[int]] = {}
    for row in range(len(signatures_NP)):
        members.setdefault(groups.find(row), []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


def _distinct_rows(signatures_NP: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """First row of every distinct signature, and all rows of each."""
    rows_of: dict[bytes, list[int]] = {}
    for row, signature_P in enumerate(signatures_NP):
        rows_of.setdefault(signature_P.tobytes(), []).append(row)
    return np.array([rows[0] for rows in rows_of.values()], dtype=np.int64), list(rows_of.values())


def _candidates(signatures_NP: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows (first < second) that agree on a band, with their estimated similarity; some come repeatedly."""
    for band in range(BANDS):
        values_NR = np.ascontiguousarray(signatures_NP[:, band * ROWS : (band + 1) * ROWS])
        buckets: dict[bytes, list[int]] = {}
        for row, value_R in enumerate(values_NR):
            buckets.setdefault(value_R.tobytes(), []).append(row)
        for rows in buckets.values():
            for position, row in enumerate(rows[:-1]):
                others = np.array(rows[position + 1 :])
                estimates = (signatures_NP[others] == signatures_NP[row]).mean(axis=1)
                # 5 standard errors below the threshold: no true pair is lost to the estimate
                for other in np.nonzero(estimates >= SIMILAR - 0.13)[0]:
                    yield row, int(others[other]), float(estimates[other])


def stack(signatures: Sequence[np.ndarray]) -> np.ndarray:
    """Signatures as one array [N, P]; [0, P] when there are none."""
    return np.stack(signatures) if signatures else np.zeros((0, PERMUTATIONS), np.uint32)


def keyed_fraction(seed: int, *parts: str) -> float:
    """A number in [0, 1) that depends on the seed and the parts alone: the source of every keyed choice."""
    key = "\x1f".join(itertools.chain([str(seed)], parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big") / 2**56
