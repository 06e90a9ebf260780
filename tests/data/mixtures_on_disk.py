"""A small mixture over real caches, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

from token_sources import RandomSource, write_vocabulary

from hephaestus_jax.data.cache_build import build_cache
from hephaestus_jax.data.mixture_spec import MixtureSpec, Stage, save_mixture_spec

LENGTH = 64
RECORDS = {"code": 400, "docs": 40, "text": 250}
STAGES = ((0, {"code": 4, "docs": 1, "text": 2}), (1000, {"docs": 3, "text": 4}))


def write_mixture(directory: Path) -> str:
    """Builds the caches and writes `mixture.json`; the path of the latter."""
    vocabulary = write_vocabulary(directory / "vocabulary")
    parts = {}
    for number, (name, records) in enumerate(RECORDS.items()):
        source = RandomSource(vocabulary, records=records, seed=number, name=name, fractional=name == "text")
        built = build_cache(source, directory / "caches", LENGTH)
        parts[name] = built.as_part(directory)
        identity = built.manifest.vocabulary
    spec = MixtureSpec(
        name="small",
        seed=11,
        denominator=7,
        sequence_length=LENGTH,
        vocabulary=identity,
        tasks=parts,
        stages=tuple(Stage(first_row, rates) for first_row, rates in STAGES),
        validation={"docs": parts["docs"]},
    )
    save_mixture_spec(str(directory), spec)
    return str(directory / "mixture.json")
