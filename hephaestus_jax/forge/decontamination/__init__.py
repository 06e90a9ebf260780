"""Benchmarks, and the records that give them away."""

from hephaestus_jax.forge.decontamination.check import Contamination, Decontaminator
from hephaestus_jax.forge.decontamination.opening import PACKAGES, open_benchmarks

__all__ = ["PACKAGES", "Contamination", "Decontaminator", "open_benchmarks"]
