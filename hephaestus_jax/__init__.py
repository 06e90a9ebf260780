"""Hephaestus in the open: continual pre-training of language models for agents, in JAX."""

__version__ = "0.1.0"
