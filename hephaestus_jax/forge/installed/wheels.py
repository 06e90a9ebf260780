"""Pinned wheels whose documentation, code and examples the corpus reads beside the installed packages."""

from __future__ import annotations

from hephaestus_jax.forge.sources.source import Package

_LINUX = ("3.11", "cp311", "manylinux_2_28_x86_64")

WHEELS = (
    Package(
        "pypi", "joblib", "1.6.0",  # what scikit-learn imports
        "3dbbf9f6e4b592a2357b854608e980fe6390d131d7a82f011a377ef2ebef7aba", "BSD-3-Clause",
    ),
    Package(
        "pypi", "narwhals", "2.29.0",
        "1c69b3dc30240f6e848c5a673cafc86affa44184ecce721e25b7194663ad10dc", "MIT",
    ),
    Package(
        "pypi", "networkx", "3.6.1",
        "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762", "BSD-3-Clause",
    ),
    Package(
        "pypi", "pandas", "3.1.1",
        "4f1602f614bb83f443381dbcbb94c4ac764b2e50c8d6c965614c5cd83e328c47", "BSD-3-Clause", _LINUX,
    ),
    Package(
        "pypi", "scikit-learn", "1.9.1",
        "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df", "BSD-3-Clause", _LINUX,
    ),
    Package(
        "pypi", "threadpoolctl", "3.8.0",
        "f1b49c82704d50f13ffae019c727b0fa4f6791a58f48f06a09c45face1be66da", "BSD-3-Clause",
    ),
    Package(
        "pypi", "sympy", "1.14.0",
        "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5", "BSD-3-Clause",
    ),
)  # fmt: skip
