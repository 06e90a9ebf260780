"""Pinned wheels whose documentation, code and examples the corpus reads beside the installed packages."""

from __future__ import annotations

from hephaestus_jax.forge.sources.source import Package

_LINUX = ("3.11", "cp311", "manylinux_2_28_x86_64")

WHEELS = (
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
        "pypi", "sympy", "1.14.0",
        "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5", "BSD-3-Clause",
    ),
)  # fmt: skip
