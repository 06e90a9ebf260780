"""Reads the installation itself: the documentation, sources and prose of the installed packages and of the standard
library. Nothing is imported, executed or downloaded; Python files are parsed with `ast`.

    for distribution in iter_distributions():
        reading = read_distribution(distribution, ReadOptions(), quarantine)
"""

from hephaestus_jax.forge.installed.distributions import Distribution, iter_distributions
from hephaestus_jax.forge.installed.python_api import FoundApi
from hephaestus_jax.forge.installed.reading import Reading, ReadOptions, read_distribution

__all__ = ["Distribution", "FoundApi", "ReadOptions", "Reading", "iter_distributions", "read_distribution"]
