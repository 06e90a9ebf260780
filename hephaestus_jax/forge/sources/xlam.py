"""xLAM's function-calling data, made by APIGen (Liu et al., arXiv 2406.18518), and APIGen-MT's dialogues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import checked
from hephaestus_jax.forge.tool_data.json_values import list_of
from hephaestus_jax.forge.tool_data.rows import PATTERNS, objects, stated_licence
from hephaestus_jax.forge.tool_data.turns import Steps, calls_of, tools_of, trajectory_of_turns
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json, Provenance, Record, Trajectory

LICENCE = "CC-BY-4.0"  # of xlam-function-calling-60k
LICENCE_OF_DIALOGUES = "CC-BY-NC-4.0"  # of APIGen-MT-5k
HOST = "huggingface.co/Salesforce"


@source("xlam", files=PATTERNS)
def read_xlam(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """xLAM/APIGen: a query, the tools, and the calls that answer it; APIGen-MT's dialogues."""
    for where, row in objects(file, quarantine):
        try:
            if "conversations" in row:
                licence = stated_licence(row) or LICENCE_OF_DIALOGUES
                yield trajectory_of_turns(row, file.provenance(where, licence, HOST))
            else:
                yield _single_turn(row, file.provenance(where, stated_licence(row) or LICENCE, HOST))
        except ValueError as error:
            quarantine.add("malformed row", file.place(where), str(error))


def _single_turn(row: Mapping[str, Json], provenance: Provenance) -> Trajectory:
    query = row.get("query") if row.get("query") is not None else row.get("instruction")
    if not isinstance(query, str) or not query.strip():
        raise ValueError("query: expected text")
    made = Steps()
    made.said_by_user(query.strip())
    calls = calls_of(list_of(row.get("answers"), "answers"))
    if not calls:
        raise ValueError("answers: no call answers the query")
    made.called(calls)
    identifier = row.get("id")
    name = str(identifier) if isinstance(identifier, int | str) else ""
    return checked(Trajectory(tuple(made.steps), provenance, tools=tools_of(row.get("tools")), name=name))
