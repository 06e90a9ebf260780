"""Conversations in ShareGPT's form, among them AgentInstruct (Zeng et al., arXiv 2310.12823) and Hermes's calls."""

from __future__ import annotations

from collections.abc import Iterator

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.rows import PATTERNS, objects, stated_licence
from hephaestus_jax.forge.tool_data.turns import trajectory_of_turns
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Record


@source("sharegpt", files=PATTERNS)
def read_sharegpt(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Conversations of {"from", "value"} turns (ShareGPT, AgentInstruct), with tools where the row lists them."""
    for where, row in objects(file, quarantine):
        try:
            yield trajectory_of_turns(row, file.provenance(where, stated_licence(row)))
        except ValueError as error:
            quarantine.add("malformed conversation", file.place(where), str(error))
