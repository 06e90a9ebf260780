"""The tasks and mixtures that come with the project.

Rates are shares of packed rows. Within the agent share, documentation and trajectories stand 3 : 1, our own choice:
the installed corpus holds far fewer trajectories than documentation.
"""

from __future__ import annotations

import seqio

from data_tasks.records import add_corpus_task
from hephaestus_jax.formats.records import SLICES

MIXTURES: dict[str, dict[str, float]] = {
    # no agent data: what a base model, and a control run, are trained on
    "base": {"code": 1, "text": 1},
    # agent : code : text = 1 : 1 : 1, close to the share of 36 % that the Hephaestus paper reports as best
    "agent_code_text": {"agent_docs": 3, "agent_trajectories": 1, "code": 4, "text": 4},
    # the same shares, with environment feedback beside documentation and calls
    "agent_feedback": {"agent_docs": 2, "agent_trajectories": 1, "agent_environments": 1, "code": 4, "text": 4},
    # agent data two thirds
    "agent_heavy": {"agent_docs": 6, "agent_trajectories": 2, "code": 2, "text": 2},
}

for _slice in SLICES:
    add_corpus_task(_slice, _slice)
for _name, _rates in MIXTURES.items():
    seqio.MixtureRegistry.add(_name, list(_rates.items()))
