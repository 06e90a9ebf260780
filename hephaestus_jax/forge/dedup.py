"""Near-duplicates: MinHash over word shingles, with the groups they form.

Broder, "On the resemblance and containment of documents" (1997): the share of equal entries of two MinHash signatures
estimates the Jaccard similarity of the shingle sets. Candidates come from locality-sensitive hashing (Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3): signatures cut into bands, equal bands compared.

Shapes: N texts, D distinct signatures, M rows of a bucket, P permutations, R rows of a band.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
from rensa import RMinHash

from hephaestus_jax.errors import UserError

K = TypeVar("K", bound=Hashable)

SHINGLE_WORDS = 3
PERMUTATIONS = 252
SIMILAR = 0.8
MARGIN = 0.1  # 4 standard errors of the estimated similarity at 0.8
LARGE_BUCKET = 512  # texts that agree on a band, of which all pairs are still compared
MAX_PIVOTS = 256
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
    sketch.update(list(shingles(text)))
    return np.array(sketch.digest(), dtype=np.uint32)


def text_digest(text: str) -> str:
    """Equal for equal texts: 128 bits as 32 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def near_duplicate_groups(
    signatures_NP: np.ndarray,
    similarity: Callable[[int, int], float] | None = None,
    similar: float = SIMILAR,
) -> list[list[int]]:
    """The groups of two and more texts that are linked by pairs of Jaccard similarity ≥ `similar`.

    Time grows with N, not with the square of a cluster's size: in a bucket of more than `LARGE_BUCKET` texts at most
    `MAX_PIVOTS` of them are compared with the others, by the signatures' estimate alone.

    Args:
        signatures_NP: from `signature`, one row a text.
        similarity: the exact similarity of two rows, asked where the estimate is near the threshold; the estimate
            decides when None.
        similar: the threshold, above 0 and below 1.

    Returns:
        Sorted lists of row numbers, in the order of their first rows.
    """
    if not 0 < similar < 1:
        raise UserError(f"near-duplicates at similarity {similar}; give a number above 0 and below 1")
    distinct_D, first_N = _distinct_rows(signatures_NP)
    linker = _Linker(signatures_NP, distinct_D, similarity, similar)
    rows = band_rows(similar)
    for band in range(PERMUTATIONS // rows):
        for bucket in _buckets(signatures_NP[:, band * rows : (band + 1) * rows], distinct_D):
            linker.link(bucket)
    members: dict[int, list[int]] = {}
    for row, root in enumerate(linker.roots(first_N).tolist()):
        members.setdefault(root, []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


def band_rows(similar: float) -> int:
    """Rows of a band: as many as let a pair at the threshold share no band with probability below 2e-4."""
    return max(r for r in range(1, 13) if r == 1 or (1 - similar**r) ** (PERMUTATIONS // r) < 1.5e-4)


class _Linker:
    """Joins rows of signatures into groups; the representative of a group is its smallest row."""

    def __init__(
        self,
        signatures_NP: np.ndarray,
        distinct_D: np.ndarray,
        similarity: Callable[[int, int], float] | None,
        similar: float,
    ) -> None:
        self._signatures_NP = signatures_NP
        self._parent_N = np.arange(len(signatures_NP))
        self._similarity, self._similar = similarity, similar
        self._checked: set[tuple[int, int]] = set()

    def roots(self, rows: np.ndarray) -> np.ndarray:
        """The representatives of the groups that `rows` are in."""
        roots = self._parent_N[rows]
        while True:
            above = self._parent_N[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent_N[rows] = roots
        return roots

    def link(self, bucket_M: np.ndarray) -> None:
        """Joins those of the rows (sorted) that are similar."""
        large = len(bucket_M) > LARGE_BUCKET
        roots_M = self.roots(bucket_M)
        if (roots_M == roots_M[0]).all():
            return
        left = np.ones(len(bucket_M), bool)  # those that may still be pivots
        for _ in range(MAX_PIVOTS if large else len(bucket_M) - 1):
            if not left.any():
                return
            pivot = int(np.argmax(left))
            left[pivot] = False
            # every pair of a small bucket is compared once; in a large one, pivots with all that are in other groups
            others = np.nonzero(roots_M != roots_M[pivot])[0]
            if not large:
                others = others[others > pivot]
            if not len(others):
                continue
            row, rows = int(bucket_M[pivot]), bucket_M[others]
            estimates = (self._signatures_NP[rows] == self._signatures_NP[row]).mean(axis=1)
            alike = self._alike(row, rows, estimates, exact=not large)
            if not len(alike):
                continue
            self._join(row, alike)
            if large:
                left[np.isin(bucket_M, alike)] = False
            roots_M = self.roots(bucket_M)

    def _alike(self, row: int, rows: np.ndarray, estimates: np.ndarray, exact: bool) -> np.ndarray:
        """Those of `rows` that are similar to `row`."""
        if not exact or self._similarity is None:
            return rows[estimates >= self._similar]
        # 4 standard errors of the estimate on either side of the threshold: there the exact similarity decides
        found = estimates >= self._similar + MARGIN
        joined: set[int] = set(self.roots(rows[found]).tolist())
        for place in np.nonzero((estimates >= self._similar - MARGIN) & ~found)[0]:
            pair = (row, int(rows[place]))
            root = int(self.roots(rows[place : place + 1])[0])
            if pair in self._checked or root in joined:
                continue
            self._checked.add(pair)
            if self._similarity(*pair) >= self._similar:
                found[place] = True
                joined.add(root)
        return rows[found]

    def _join(self, row: int, rows: np.ndarray) -> None:
        roots = self.roots(np.append(rows, row))
        self._parent_N[roots] = roots.min()


def _distinct_rows(signatures_NP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of every distinct signature [D], and of each row the first of its equals [N].

    Equal signatures: similarity 1 but for an error of one in e^(-P(1-J)); no exact check of those.
    """
    first_of: dict[bytes, int] = {}
    first_N = np.empty(len(signatures_NP), np.int64)
    for row, signature_P in enumerate(signatures_NP):
        key = hashlib.blake2b(signature_P.tobytes(), digest_size=16).digest()
        first_N[row] = first_of.setdefault(key, row)
    return np.array(list(first_of.values()), np.int64), first_N


def _buckets(band_NR: np.ndarray, distinct_D: np.ndarray) -> Iterator[np.ndarray]:
    """Sorted row numbers of those (two and more, of `distinct_D`) that agree on a band."""
    if not len(distinct_D):
        return
    band_DR = np.ascontiguousarray(band_NR[distinct_D])
    values_D = band_DR.view(np.dtype((np.void, band_DR.dtype.itemsize * band_DR.shape[1]))).ravel()
    order_D = np.argsort(values_D, kind="stable")
    sorted_D = band_DR[order_D]
    starts = np.flatnonzero(np.append(True, (sorted_D[1:] != sorted_D[:-1]).any(axis=1)))
    ends = np.append(starts[1:], len(order_D))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield distinct_D[order_D[start:end]]


def stack(signatures: Sequence[np.ndarray]) -> np.ndarray:
    """Signatures as one array [N, P]; [0, P] when there are none."""
    return np.stack(signatures) if signatures else np.zeros((0, PERMUTATIONS), np.uint32)


def keyed_fraction(seed: int, *parts: str) -> float:
    """A number in [0, 1) that depends on the seed and the parts alone: the source of every keyed choice."""
    key = "\x1f".join(itertools.chain([str(seed)], parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big") / 2**56
