"""Executed documentation examples: docstrings in, call → observation trajectories out."""
