"""Environments, and trajectories of what was done in them; importing this package registers all of them.

`environment` says what an environment is, `worlds` holds them. `scripts` plans what a policy does,
`episodes` plays and records it, `rollout` does that many times in processes and writes a corpus. Packages that an
environment needs are imported only when it is made.
"""

from __future__ import annotations

import importlib

from hephaestus_jax.forge.environments.environment import ENVIRONMENTS

__all__ = ["ENVIRONMENTS"]

_WORLDS = (
    "babyai",
    "bash",
    "household",
    "miniwob",
    "python",
    "reasoning_gym",
    "scienceworld",
    "sqlite",
    "textworld",
    "textworld_express",
)

for _name in _WORLDS:
    importlib.import_module(f"{__name__}.worlds.{_name}.world")
