"""Checkpoints of a training run: asynchronous, atomic, digest-checked, restorable on any mesh."""

from hephaestus_jax.checkpoints.checkpointer import Checkpointer, Restored, newest_step, restore_parts

__all__ = ["Checkpointer", "Restored", "newest_step", "restore_parts"]
