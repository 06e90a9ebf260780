"""The three kinds of record a corpus is made of, and the provenance each one carries.

Records are plain frozen dataclasses of JSON values. `to_json` and `from_json` are inverse to each other, and
`record_id` is derived from the content alone, so the same record has the same id on every machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from hephaestus_jax.errors import UserError

Json = Any  # a JSON value: None, bool, int, float, str, list, or dict with string keys
Outcome = Literal["ok", "error", "corrected", "unknown"]
Author = Literal["user", "agent", "environment"]
# python: a callable; rest: an HTTP operation; rpc: an operation of a service's SDK; cli: a command; tool: a function of
# a tool list; module: a unit of automation
Interface = Literal["python", "rest", "rpc", "cli", "tool", "module"]

PLAYED = "agent_environments"  # episodes in environments, which are a corpus of their own (`tools.rollout`)
SLICES = ("agent_docs", "agent_trajectories", PLAYED, "code", "text")
SPLITS = ("train", "validation")  # validation holds the APIs (and documents) that training never sees


@dataclass(frozen=True)
class Provenance:
    """Where a record comes from, under which terms, and what was done to it."""

    source: str  # package, repository or file set, for instance "numpy"
    version: str  # version or digest of the source, "unknown" if it states none
    licence: str  # SPDX expression where one is stated, else the stated words, else "unknown"
    host: str = ""  # where a reader would find it, for instance "pypi.org/project/numpy"; used as metadata
    path: str = ""  # the place inside the source, for instance "numpy/linalg/_linalg.py:1423"
    processing: tuple[str, ...] = ()  # steps that changed the record, in order


@dataclass(frozen=True)
class ApiExample:
    """One use of an API: the call, what came back, and what it was meant to do.

    `arguments` is the same call as the value of each parameter, where the source states it so.
    """

    call: str
    result: str | None = None
    intent: str | None = None
    arguments: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class ApiError:
    """An error that an API documents: its exception class or status code, and when it happens."""

    name: str
    description: str = ""


@dataclass(frozen=True)
class ApiDoc:
    """The documentation of one callable API.

    `parameters` is a JSON Schema of type "object"; `returns` a JSON Schema or None. Both may carry Python annotations
    under the key "x-python-type".
    """

    name: str  # fully qualified: "numpy.linalg.solve", "GET /v1/pets/{id}", "aws s3api list-objects"
    provider: str  # "numpy", "github.com"
    description: str
    provenance: Provenance
    signature: str = ""
    parameters: Mapping[str, Json] = field(default_factory=lambda: {"type": "object", "properties": {}})
    returns: Mapping[str, Json] | None = None
    errors: tuple[ApiError, ...] = ()
    examples: tuple[ApiExample, ...] = ()
    interface: Interface = "python"
    function: str = ""  # what a program calls it ("listPets"), where that is not `name`
    deprecated: bool = False


@dataclass(frozen=True)
class Tool:
    """A function on offer to an agent; `parameters` is a JSON Schema of type "object"."""

    name: str
    description: str = ""
    parameters: Mapping[str, Json] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True)
class ApiAction:
    """The agent calls a tool. `outcome` says how the step went, for loss masks."""

    function: str
    kwargs: Mapping[str, Json]
    description: str | None = None
    reasoning_content: str | None = None
    reward: float | None = None
    tool_call_id: str | None = None
    outcome: Outcome = "unknown"


@dataclass(frozen=True)
class CodeAction:
    """The agent runs code."""

    language: str
    content: str
    description: str | None = None
    reasoning_content: str | None = None
    reward: float | None = None
    tool_call_id: str | None = None
    outcome: Outcome = "unknown"


@dataclass(frozen=True)
class MessageAction:
    """The agent says something."""

    content: str
    description: str | None = None
    reasoning_content: str | None = None
    reward: float | None = None
    outcome: Outcome = "unknown"


@dataclass(frozen=True)
class TextObservation:
    """Text that reaches the agent: a user's turn, or what a tool or an environment returned."""

    content: str
    source: Author
    tool_call_id: str | None = None
    reward: float | None = None


@dataclass(frozen=True)
class WebObservation:
    """A page that reaches the agent. `image_observation` is kept as the JSON value it came as."""

    html: str | None = None
    axtree: str | None = None
    url: str | None = None
    image_observation: Json = None
    viewport_size: Json = None
    tool_call_id: str | None = None
    reward: float | None = None


@dataclass(frozen=True)
class ImageObservation:
    """A picture that reaches the agent, kept as the JSON value it came as."""

    content: Json
    annotations: Json = None
    source: str | None = None
    tool_call_id: str | None = None
    reward: float | None = None


Action = ApiAction | CodeAction | MessageAction
Observation = TextObservation | WebObservation | ImageObservation
Step = Action | Observation


@dataclass(frozen=True)
class Trajectory:
    """A sequence of actions and observations, with the tools that were on offer.

    Models the Agent Data Protocol (schema 1.2.0); `formats.adp` reads and writes its JSON form without loss.
    """

    steps: tuple[Step, ...]
    provenance: Provenance
    tools: tuple[Tool, ...] = ()
    code_languages: tuple[str, ...] = ()
    system: str = ""
    success: bool | None = None
    reward: float | None = None
    name: str = ""  # the id that its source gave it
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """Running text or source code."""

    text: str
    slice: str  # "code" or "text"
    provenance: Provenance
    language: str = ""  # "python", "en"; "" when unknown


Record = ApiDoc | Trajectory | Document


class Identified(NamedTuple):
    """A record and its `record_id`, which takes longer to derive than to keep."""

    id: str
    record: Record


_KINDS: dict[str, type] = {cls.__name__: cls for cls in (ApiDoc, Trajectory, Document)}
_STEPS: dict[str, type] = {cls.__name__: cls for cls in (*get_args(Action), *get_args(Observation))}
_NESTED: dict[str, dict[str, type]] = {
    "ApiDoc": {"errors": ApiError, "examples": ApiExample},
    "Trajectory": {"tools": Tool},
}


def slice_of(record: Record) -> str:
    """The slice of the corpus that a record belongs to."""
    if isinstance(record, ApiDoc):
        return "agent_docs"
    if isinstance(record, Trajectory):  # played episodes are mixed at a rate of their own
        return PLAYED if episode_of(record) else "agent_trajectories"
    return record.slice


def episode_of(record: Trajectory) -> Mapping[str, Json]:
    """What is known of an episode that was played in an environment; empty of other trajectories.

    Its keys are environment, game, seed, split, policy, wrong_steps, changes, tool_names, task.
    """
    episode = record.details.get("episode")
    return episode if isinstance(episode, Mapping) and "environment" in episode else {}


def held_out_split(record: Record) -> str:
    """The split of a played episode that training must not see ("unseen_games", …); "" of all other records."""
    split = str(episode_of(record).get("split", "train")) if isinstance(record, Trajectory) else "train"
    return "" if split == "train" else split


def to_json(record: Record) -> dict[str, Json]:
    """The record as a JSON object with a `kind`, steps with their `class_`; it shares parts of the record."""
    value = {"kind": type(record).__name__, **_fields(record), "provenance": _fields(record.provenance)}
    for name in _NESTED.get(value["kind"], {}):
        value[name] = tuple(map(_fields, value[name]))
    if isinstance(record, Trajectory):
        value["steps"] = tuple({**_fields(step), "class_": type(step).__name__} for step in record.steps)
    return value


def from_json(value: Mapping[str, Json]) -> Record:
    """Inverse of `to_json`.

    Raises:
        UserError: the object is of no known kind, or lacks or exceeds the fields of its kind.
    """
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"record kind {kind!r} is unknown; expected one of {', '.join(_KINDS)}")
    fields = {name: field for name, field in value.items() if name != "kind"}
    try:
        fields["provenance"] = _build(Provenance, fields["provenance"])
        if kind == "Trajectory":
            fields["steps"] = tuple(_step(step) for step in fields["steps"])
        for name, cls in _NESTED.get(kind, {}).items():
            fields[name] = tuple(_build(cls, item) for item in fields.get(name, ()))
        return _build(_KINDS[kind], fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"malformed {kind} record: {error}; compare it with formats/records.py") from error


def _fields(value: Any) -> dict[str, Json]:
    # not dataclasses.asdict, which copies the JSON values within: slow, and too deep a recursion for nested ones
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _step(value: Mapping[str, Json]) -> Step:
    fields = dict(value)
    step = _build(_STEPS[fields.pop("class_")], fields)
    if isinstance(step, Action) and step.outcome not in get_args(Outcome):
        raise ValueError(f"outcome {step.outcome!r} is none of {', '.join(get_args(Outcome))}")
    return step


def _build(cls: type, fields: Mapping[str, Json]) -> Any:
    tuples = {f.name for f in dataclasses.fields(cls) if str(f.type).startswith("tuple")}
    return cls(**{k: tuple(v) if k in tuples else v for k, v in fields.items()})


def canonical_json(value: Json) -> str:
    """JSON with sorted keys and no optional white space: equal values give equal strings."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def digest(value: Json) -> str:
    """128-bit content digest of a JSON value, as 32 hexadecimal digits."""
    # surrogatepass: a lone surrogate is valid in a Python string and must not stop a build
    return hashlib.blake2b(canonical_json(value).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def record_id(record: Record) -> str:
    """Content-derived id: 32 hexadecimal digits over every field of the record but `processing`."""
    value = to_json(record)
    value["provenance"] = {k: v for k, v in value["provenance"].items() if k != "processing"}
    return digest(value)


def identify(record: Record) -> Identified:
    """The record with its id."""
    return Identified(record_id(record), record)
