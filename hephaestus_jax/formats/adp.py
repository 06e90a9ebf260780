"""The Agent Data Protocol (arXiv 2510.24702; github.com/neulab/agent-data-protocol) in and out, without loss.

* `trajectory_from_adp(trajectory_to_adp(t), any provenance) == t` for every trajectory `t` of JSON values. What the
  protocol has no field for (provenance, system prompt, full tool definitions, the outcome of each step, success and
  reward of the whole) travels in `details["hephaestus_jax"]`.
* `trajectory_to_adp(trajectory_from_adp(v, p), extras=False) == v` for every valid object `v`, absent fields and
  explicit nulls included: where `v` is not written as the protocol's own writer does it, the trajectory remembers how
  in its own `details["hephaestus_jax"]`.

Validation is that of schema 1.2.0, with three differences. Any 1.x `schema_version` is read, with the fields
`available_apis` and `name` that other 1.x versions have; only a version before 1.2.0 lets a tool action stand before an
observation without a `tool_call_id`. Numbers must be JSON numbers, where the protocol's own reader converts strings.
Programming languages are not restricted to the protocol's list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import get_args

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.adp_schema import (
    CLASS_NAMES,
    FIELDS,
    LINKED_SINCE,
    SCHEMA_VERSION,
    TOP_FIELDS,
    Check,
    check_boolean,
    check_links,
    check_list,
    check_number,
    check_object,
    check_text,
    each,
    minor_version,
    one_of,
    optional,
    parse_step,
    refuse_unknown,
    required,
    valid_links,
)
from hephaestus_jax.formats.records import CodeAction, Json, Outcome, Provenance, Step, Tool, Trajectory, record_id

EXTRAS_KEY = "hephaestus_jax"  # of `details`: what the protocol has no field for
FORM_KEY = "form"  # of the extras: how the object was written

_OWN_FIELDS: dict[str, Check] = {
    "provenance": check_object,
    "tools": each(check_object),
    "outcomes": check_object,
    "tool_call_ids": check_object,
    "code_languages": each(check_text),
    "system": check_text,
    "success": check_boolean,
    "reward": check_number,
    "name": check_text,
    FORM_KEY: check_object,
}
_STEP_FIELDS: dict[str, tuple[str, Check]] = {  # own field by step index: (field of the step, check of its value)
    "outcomes": ("outcome", one_of(get_args(Outcome))),
    "tool_call_ids": ("tool_call_id", optional(check_text)),
}


def trajectory_from_adp(value: Json, provenance: Provenance, default_version: str = SCHEMA_VERSION) -> Trajectory:
    """Reads one ADP trajectory.

    Args:
        value: the JSON object; it is not changed, and the result shares parts of it.
        provenance: where it comes from. The provenance inside an object that `trajectory_to_adp` wrote wins.
        default_version: the schema version of objects that state none.

    Raises:
        UserError: the object is not valid; the message begins with the place, such as `content[3].tool_call_id`.
    """
    top = check_object(value, "trajectory")
    refuse_unknown(top, TOP_FIELDS, "")
    minor = minor_version(top.get("schema_version", default_version))
    content = check_list(required(top, "content", ""), "content")
    steps = tuple(parse_step(item, f"content[{index}]") for index, item in enumerate(content))
    check_links(steps, demanded=minor >= LINKED_SINCE)
    details = dict(check_object(top.get("details", {}), "details"))
    own = _checked_own_fields(details.pop(EXTRAS_KEY, {}))
    trajectory = Trajectory(
        steps=steps,
        provenance=provenance,
        tools=_tools(top),
        code_languages=_code_languages(top, steps),
        name=check_text(required(top, "id", ""), "id"),
        details=details,
    )
    form = own.pop(FORM_KEY, None) if own else _form(top, trajectory)
    if form is not None:
        trajectory = dataclasses.replace(trajectory, details={**details, EXTRAS_KEY: {FORM_KEY: form}})
        _stored_form(trajectory)
    return _with_own_fields(trajectory, own)


def trajectory_to_adp(trajectory: Trajectory, extras: bool = True) -> dict[str, Json]:
    """Writes one trajectory as a valid ADP object, of schema 1.2.0 or of the version it was read in.

    Args:
        trajectory: the result shares parts of it.
        extras: whether what the protocol has no field for is told in `details["hephaestus_jax"]`. Without, the object
            is bare ADP: what came from ADP leaves as it came, and its provenance is not told.

    Raises:
        UserError: a tool action without result stands where the protocol demands one, or the trajectory's
            `details["hephaestus_jax"]` no longer fits its steps.
    """
    form = _stored_form(trajectory)
    value = _written(trajectory, nulls=form is None)
    own = _own_fields(trajectory)
    if ids := _set_links(trajectory, value["content"], demanded=form is None):
        own["tool_call_ids"] = ids
    if form is not None:
        own[FORM_KEY] = form
        _apply(form, value)
    if extras:
        value["details"] = {**value.get("details", {}), EXTRAS_KEY: own}
    return value


def _tools(top: Mapping[str, Json]) -> tuple[Tool, ...]:
    if "available_custom_tools" in top and "available_apis" in top:
        raise UserError("available_apis: the other name of available_custom_tools; keep one of the two")
    key = "available_apis" if "available_apis" in top else "available_custom_tools"
    return tuple(Tool(name) for name in optional(each(check_text))(top.get(key), key) or ())


def _code_languages(top: Mapping[str, Json], steps: tuple[Step, ...]) -> tuple[str, ...]:
    key = "available_code_languages"
    languages = optional(each(check_text))(top.get(key), key)
    if languages is None:
        return ()
    if differing := sorted(set(languages) ^ _used_languages(steps)):
        raise UserError(f"{key}: must name exactly the languages of the code actions; differs in {differing}")
    return tuple(languages)


def _used_languages(steps: tuple[Step, ...]) -> set[str]:
    return {step.language for step in steps if isinstance(step, CodeAction)}


# Writing what the protocol has a field for.


def _written(trajectory: Trajectory, nulls: bool) -> dict[str, Json]:
    """With `nulls` as the protocol's own writer puts it, without them as short as it may be."""
    value: dict[str, Json] = {"schema_version": SCHEMA_VERSION} if nulls else {}
    value["id"] = trajectory.name or (record_id(trajectory) if nulls else "")
    value["content"] = [_written_step(step, nulls) for step in trajectory.steps]
    if trajectory.tools:
        value["available_custom_tools"] = [tool.name for tool in trajectory.tools]
    if languages := _stated_languages(trajectory):
        value["available_code_languages"] = languages
    details = {key: item for key, item in trajectory.details.items() if key != EXTRAS_KEY}
    if nulls or details:
        value["details"] = details
    return value


def _written_step(step: Step, nulls: bool) -> dict[str, Json]:
    written: dict[str, Json] = {"class_": CLASS_NAMES[type(step)]}
    for name in FIELDS[type(step)]:
        field = getattr(step, name)
        if field is not None or (nulls and name != "tool_call_id"):
            written[name] = field
    return written


def _stated_languages(trajectory: Trajectory) -> list[str]:
    """Those of the trajectory where they are the used ones, as the protocol demands; else the used ones."""
    used = _used_languages(trajectory.steps)
    stated = trajectory.code_languages
    return list(stated) if not stated or set(stated) == used else sorted(used)


def _set_links(trajectory: Trajectory, content: list[dict[str, Json]], demanded: bool) -> dict[str, Json]:
    """Makes the tool-call ids in `content` valid; returns the trajectory's own where they differ."""
    links = valid_links(trajectory.steps, demanded)
    own: dict[str, Json] = {}
    for index, (step, written) in enumerate(zip(trajectory.steps, content, strict=True)):
        stated = getattr(step, "tool_call_id", None)
        if links.get(index) != stated:
            own[str(index)] = stated
            written.pop("tool_call_id", None)
            if index in links:
                written["tool_call_id"] = links[index]
    return own


# Writing and reading what the protocol has no field for.


def _own_fields(trajectory: Trajectory) -> dict[str, Json]:
    provenance = dataclasses.asdict(trajectory.provenance)
    own: dict[str, Json] = {"provenance": {**provenance, "processing": list(provenance["processing"])}}
    if any(tool != Tool(tool.name) for tool in trajectory.tools):
        own["tools"] = [dataclasses.asdict(tool) for tool in trajectory.tools]
    outcomes = {str(i): getattr(step, "outcome", "unknown") for i, step in enumerate(trajectory.steps)}
    if notable := {index: outcome for index, outcome in outcomes.items() if outcome != "unknown"}:
        own["outcomes"] = notable
    if _stated_languages(trajectory) != list(trajectory.code_languages):
        own["code_languages"] = list(trajectory.code_languages)
    for name, default in (("system", ""), ("success", None), ("reward", None)):
        if (field := getattr(trajectory, name)) != default:
            own[name] = field
    if not trajectory.name:
        own["name"] = ""
    return own


def _checked_own_fields(value: Json) -> dict[str, Json]:
    place = f"details.{EXTRAS_KEY}"
    own = dict(check_object(value, place))
    refuse_unknown(own, set(_OWN_FIELDS), place)
    for name, field in own.items():
        _OWN_FIELDS[name](field, f"{place}.{name}")
    return own


def _with_own_fields(trajectory: Trajectory, own: Mapping[str, Json]) -> Trajectory:
    changes = {name: own[name] for name in ("system", "success", "reward", "name") if name in own}
    if "code_languages" in own:
        changes["code_languages"] = tuple(own["code_languages"])
    try:
        if stated := own.get("provenance"):
            changes["provenance"] = Provenance(**{**stated, "processing": tuple(stated.get("processing", ()))})
        if "tools" in own:
            changes["tools"] = tuple(Tool(**tool) for tool in own["tools"])
    except TypeError as error:
        raise UserError(f"details.{EXTRAS_KEY}: {error}; it was not written by this library, remove it") from error
    steps = list(trajectory.steps)
    for key, (name, check) in _STEP_FIELDS.items():
        for index, field in own.get(key, {}).items():
            place = f"details.{EXTRAS_KEY}.{key}.{index}"
            if not index.isdecimal() or int(index) >= len(steps) or not hasattr(steps[int(index)], name):
                raise UserError(f"{place}: content[{index}] has no {name}; remove this entry or restore the content")
            steps[int(index)] = dataclasses.replace(steps[int(index)], **{name: check(field, place)})
    return dataclasses.replace(trajectory, steps=tuple(steps), **changes)


# How an object was written: {"top": {field: value}, "steps": {index: {field: value}}}, the fields that its shortest
# writing lacks. None for objects as the protocol's own writer puts them, and for ours.


def _form(value: Mapping[str, Json], trajectory: Trajectory) -> dict[str, Json] | None:
    if _written(trajectory, nulls=True) == value:
        return None
    shortest = _written(trajectory, nulls=False)
    steps = {}
    for index, (short, stated) in enumerate(zip(shortest["content"], value["content"], strict=True)):
        if added := {key: item for key, item in stated.items() if key not in short}:
            steps[str(index)] = added
    return {"top": {key: item for key, item in value.items() if key not in shortest}, "steps": steps}


def _apply(form: Mapping[str, Json], value: dict[str, Json]) -> None:
    """Adds what the shortest writing lacks; what the trajectory itself has come to say since then stays."""
    if "available_apis" in form["top"] and "available_custom_tools" in value:
        value["available_apis"] = value.pop("available_custom_tools")
    for key, item in form["top"].items():
        value.setdefault(key, item)
    for index, added in form["steps"].items():
        for key, item in added.items():
            value["content"][int(index)].setdefault(key, item)


def _stored_form(trajectory: Trajectory) -> Mapping[str, Json] | None:
    stored = trajectory.details.get(EXTRAS_KEY)
    if stored is None:
        return None
    form = stored.get(FORM_KEY) if isinstance(stored, Mapping) else None
    known = isinstance(form, Mapping) and set(form) == {"top", "steps"}
    steps = form["steps"] if isinstance(form, Mapping) and known else {}
    if not known or not all(index.isdecimal() and int(index) < len(trajectory.steps) for index in steps):
        raise UserError(
            f"trajectory {trajectory.name!r}: details[{EXTRAS_KEY!r}] tells how it was written in ADP and does not fit"
            " its steps; remove that key after changing the steps"
        )
    return form
