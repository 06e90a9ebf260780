"""The benchmarks that a build is told to keep out, by name or file."""

from __future__ import annotations

from collections.abc import Sequence

from hephaestus_jax.forge.decontamination.benchmarks import Item, read_bfcl, read_jsonl
from hephaestus_jax.forge.decontamination.check import Decontaminator
from hephaestus_jax.forge.sources.source import Package

# benchmarks that are packages of a registry
PACKAGES = {
    "bfcl": Package(
        "pypi", "bfcl-eval", "2026.3.23",
        "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a", "Apache-2.0",
    ),
}  # fmt: skip


def open_benchmarks(benchmarks: Sequence[str]) -> Decontaminator:
    """What finds these benchmarks in records.

    Args:
        benchmarks: "bfcl=FOLDER" for a package that was unpacked there, else a file of JSON lines.

    Raises:
        UserError: one of them cannot be read.
    """
    items: list[Item] = []
    for entry in benchmarks:
        name, _, folder = entry.partition("=")
        items += read_bfcl(folder) if name in PACKAGES and folder else read_jsonl(entry)
    return Decontaminator(items)
