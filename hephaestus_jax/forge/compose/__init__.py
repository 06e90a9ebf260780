"""Trajectories composed from documented examples, without any language model.

    for trajectory in compose(docs, pool, ComposeConfig(seed=7)):
        assert not violations(trajectory)

Nothing is executed: every call and every result is one that the documentation states, and every value of a call stands
in the user's words or in an earlier result.
"""

from hephaestus_jax.forge.compose.checks import underived, violations
from hephaestus_jax.forge.compose.composer import compose
from hephaestus_jax.forge.compose.settings import KINDS, ComposeConfig

__all__ = ["KINDS", "ComposeConfig", "compose", "underived", "violations"]
