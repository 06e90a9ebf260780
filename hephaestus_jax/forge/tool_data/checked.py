"""Whether the calls of a trajectory fit the tools on offer: what does not is marked, and never called right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend

from hephaestus_jax.formats.records import ApiAction, Json, Provenance, Step, Trajectory

# A pattern of unknown origin may take exponential time; nothing is held against a call that does not match one.
_Validator = extend(Draft202012Validator, {"pattern": None, "patternProperties": None})


def contradiction(schema: Mapping[str, Json], arguments: Mapping[str, Json]) -> str:
    """What is wrong with the arguments of a call, "" if they fit the schema (or the schema is no valid one)."""
    try:
        _validator(json.dumps(schema, sort_keys=True)).validate(arguments)
    except ValidationError as error:
        where = ".".join(map(str, error.absolute_path))
        return f"{where}: {error.message}" if where else error.message
    except (SchemaError, RecursionError, TypeError) as error:
        return f"the schema cannot be used: {type(error).__name__}"
    return ""


@lru_cache(maxsize=2048)
def _validator(schema: str) -> Draft202012Validator:
    return _Validator(json.loads(schema))


def checked(trajectory: Trajectory) -> Trajectory:
    """The trajectory with its calls compared with its tools, if it offers any.

    A call of a tool that is not on offer, or with arguments that its schema refuses, is never "ok" or "corrected": its
    outcome becomes "unknown" unless it is "error", and `provenance.processing` tells how many there are.
    """
    tools = {tool.name: tool.parameters for tool in trajectory.tools}
    if not tools:
        return trajectory
    steps: list[Step] = []
    missing = refused = 0
    for step in trajectory.steps:
        if isinstance(step, ApiAction):
            absent = step.function not in tools
            if absent or contradiction(tools[step.function], step.kwargs):
                missing += absent
                refused += not absent
                step = step if step.outcome == "error" else replace(step, outcome="unknown")
        steps.append(step)
    notes = []
    if missing:
        notes.append(f"{missing} calls of tools that are not on offer")
    if refused:
        notes.append(f"{refused} calls contradict the schema of their tool")
    if not notes:
        return trajectory
    return replace(trajectory, steps=tuple(steps), provenance=noted(trajectory.provenance, *notes))


def noted(provenance: Provenance, *notes: str) -> Provenance:
    """The provenance with further notes of what was done or found."""
    return replace(provenance, processing=(*provenance.processing, *notes))
