"""What a valid object of the Agent Data Protocol is: the fields of each class, and how tool calls link to results.

Every check takes a JSON value and its place in the object, and raises a `UserError` that begins with the place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import (
    ApiAction,
    Author,
    CodeAction,
    ImageObservation,
    Json,
    MessageAction,
    Step,
    TextObservation,
    WebObservation,
)

SCHEMA_VERSION = "1.2.0"
LINKED_SINCE = 2  # minor version from which a tool action before an observation needs a tool_call_id

CLASSES: dict[str, type] = {
    "api_action": ApiAction,
    "code_action": CodeAction,
    "message_action": MessageAction,
    "text_observation": TextObservation,
    "image_observation": ImageObservation,
    "web_observation": WebObservation,
}
CLASS_NAMES = {cls: name for name, cls in CLASSES.items()}
TOOL_ACTIONS = (ApiAction, CodeAction)
OBSERVATIONS = (TextObservation, ImageObservation, WebObservation)
TOP_FIELDS = frozenset(
    (
        "schema_version",
        "id",
        "content",
        "available_custom_tools",
        "available_apis",  # the name of available_custom_tools in other 1.x versions
        "available_code_languages",
        "details",
    )
)

Check = Callable[[Json, str], Any]


def _expected(place: str, expected: str, value: Json) -> UserError:
    return UserError(f"{place}: expected {expected}, found {type(value).__name__}")


def check_object(value: Json, place: str) -> Mapping[str, Json]:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise _expected(place, "an object", value)
    return value


def check_list(value: Json, place: str) -> list[Json]:
    """A JSON array."""
    if not isinstance(value, list):
        raise _expected(place, "a list", value)
    return value


def check_text(value: Json, place: str) -> str:
    """A JSON string."""
    if not isinstance(value, str):
        raise _expected(place, "a string", value)
    return value


def check_number(value: Json, place: str) -> float:
    """A JSON number, kept as it came (an integer stays one)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _expected(place, "a number", value)
    return value


def check_boolean(value: Json, place: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise _expected(place, "true or false", value)
    return value


def one_of(names: tuple[str, ...]) -> Check:
    """One of the given strings."""

    def check(value: Json, place: str) -> str:
        if not isinstance(value, str) or value not in names:
            raise UserError(f"{place}: {value!r} is none of {', '.join(names)}")
        return value

    return check


def optional(check: Check) -> Check:
    """null, or what `check` accepts."""
    return lambda value, place: None if value is None else check(value, place)


def each(check: Check) -> Check:
    """A list of what `check` accepts."""

    def check_all(value: Json, place: str) -> list[Json]:
        return [check(item, f"{place}[{index}]") for index, item in enumerate(check_list(value, place))]

    return check_all


def required(fields: Mapping[str, Json], name: str, place: str) -> Json:
    """The field `name`, which must be there."""
    if name not in fields:
        raise UserError(f"{place}.{name}: missing".removeprefix("."))
    return fields[name]


def refuse_unknown(fields: Mapping[str, Json], known: frozenset[str] | set[str], place: str) -> None:
    """Extra fields are forbidden."""
    if unknown := sorted(str(key) for key in fields if key not in known):
        where = f"{place}.{unknown[0]}".removeprefix(".")
        raise UserError(f"{where}: not a field of the Agent Data Protocol; move it to details")


def minor_version(value: Json) -> int:
    """The y of a schema version 1.y.z."""
    match = re.fullmatch(r"1\.(\d+)\.\d+", value) if isinstance(value, str) else None
    if match is None:
        raise UserError(f"schema_version: {value!r} is no version 1.x.y of the Agent Data Protocol; convert it first")
    return int(match[1])


def _viewport(value: Json, place: str) -> list[int]:
    if not isinstance(value, list) or len(value) != 2 or any(type(side) is not int for side in value):
        raise UserError(f"{place}: expected [width, height], two integers")
    return value


def _annotation(value: Json, place: str) -> Json:
    fields = check_object(value, place)
    check_text(required(fields, "element_type", place), f"{place}.element_type")
    where = f"{place}.bounding_box"
    box = check_object(required(fields, "bounding_box", place), where)
    for side in ("x", "y", "width", "height"):
        check_number(required(box, side, where), f"{where}.{side}")
    return value


def _page_image(value: Json, place: str) -> Json:
    """The picture of a page: an image observation whose class may be left out."""
    parse_step({"class_": "image_observation", **check_object(value, place)}, place)
    return value


_SOURCE = one_of(get_args(Author))
_LINK: dict[str, Check] = {"tool_call_id": optional(check_text)}
_REWARD: dict[str, Check] = {"reward": optional(check_number)}
_ACTION: dict[str, Check] = {
    "description": optional(check_text),
    "reasoning_content": optional(check_text),
    **_REWARD,
}
FIELDS: dict[type, dict[str, Check]] = {
    ApiAction: {"function": check_text, "kwargs": check_object, **_ACTION, **_LINK},
    CodeAction: {"language": check_text, "content": check_text, **_ACTION, **_LINK},
    MessageAction: {"content": check_text, **_ACTION},
    TextObservation: {"content": check_text, "source": _SOURCE, **_REWARD, **_LINK},
    ImageObservation: {
        "content": check_text,
        "annotations": optional(each(_annotation)),
        "source": _SOURCE,
        **_REWARD,
        **_LINK,
    },
    WebObservation: {
        "html": optional(check_text),
        "axtree": optional(check_text),
        "url": optional(check_text),
        "image_observation": optional(_page_image),
        "viewport_size": optional(_viewport),
        **_REWARD,
        **_LINK,
    },
}
_REQUIRED: dict[type, frozenset[str]] = {
    ApiAction: frozenset(("function", "kwargs")),
    CodeAction: frozenset(("language", "content", "description")),
    MessageAction: frozenset(("content",)),
    TextObservation: frozenset(("content", "source")),
    ImageObservation: frozenset(("content", "source")),
    WebObservation: frozenset(("html", "url", "image_observation", "viewport_size")),
}
_OTHER_VERSIONS: dict[type, frozenset[str]] = {TextObservation: frozenset(("name",))}


def parse_step(value: Json, place: str) -> Step:
    """One item of `content`."""
    fields = check_object(value, place)
    class_name = required(fields, "class_", place)
    cls = CLASSES.get(class_name) if isinstance(class_name, str) else None
    if cls is None:
        raise UserError(f"{place}.class_: {class_name!r} is none of {', '.join(CLASSES)}")
    checks, foreign = FIELDS[cls], _OTHER_VERSIONS.get(cls, frozenset())
    refuse_unknown(fields, {"class_", *checks, *foreign}, place)
    for name in foreign & fields.keys():
        optional(check_text)(fields[name], f"{place}.{name}")
    for name in sorted(_REQUIRED[cls]):
        required(fields, name, place)
    return cls(**{name: check(fields[name], f"{place}.{name}") for name, check in checks.items() if name in fields})


def check_links(steps: tuple[Step, ...], demanded: bool) -> None:
    """Each tool_call_id belongs to one tool action and to exactly one later observation.

    With `demanded`, a tool action directly before an observation must have one.
    """
    actions: dict[str, int] = {}
    answered: dict[str, int] = {}
    for index, step in enumerate(steps):
        place = f"content[{index}].tool_call_id"
        identifier = getattr(step, "tool_call_id", None)
        if isinstance(step, TOOL_ACTIONS):
            followed = index + 1 < len(steps) and isinstance(steps[index + 1], OBSERVATIONS)
            if identifier is None and followed and demanded:
                raise UserError(
                    f"{place}: missing, though an observation follows; add it to both,"
                    f" or state the schema_version (before {SCHEMA_VERSION}) that the data was written in"
                )
            if identifier in actions:
                raise UserError(f"{place}: {identifier!r} is also the id of content[{actions[identifier]}]")
            if identifier is not None:
                actions[identifier] = index
        elif identifier is not None:
            if identifier not in actions:
                raise UserError(f"{place}: {identifier!r} is the id of no earlier tool action")
            if identifier in answered:
                raise UserError(f"{place}: {identifier!r} is already answered by content[{answered[identifier]}]")
            answered[identifier] = index
    for identifier, index in actions.items():
        if identifier not in answered:
            raise UserError(f"content[{index}].tool_call_id: no later observation answers {identifier!r}")


def valid_links(steps: tuple[Step, ...], demanded: bool) -> dict[int, str]:
    """Tool-call ids by step index that pass `check_links`: the stated ones where they do, new ones where one is due.

    Raises:
        UserError: a tool action stands before observations that all answer other calls.
    """
    links: dict[int, str] = {}
    calls: dict[str, int] = {}
    taken: set[str] = set()
    for index, step in enumerate(steps):
        identifier = getattr(step, "tool_call_id", None)
        if identifier is None or identifier in taken:
            continue
        if isinstance(step, TOOL_ACTIONS):
            calls[identifier] = index
        elif identifier in calls:
            links[calls.pop(identifier)] = links[index] = identifier
            taken.add(identifier)
    fresh = (name for number in range(1, len(steps) + 1) if (name := f"call_{number:06d}") not in taken)
    for index, step in enumerate(steps):
        if demanded and isinstance(step, TOOL_ACTIONS) and index not in links:
            for call, answer in _pairs(steps, index, links):
                links[call] = links[answer] = next(fresh)
    return links


def _pairs(steps: tuple[Step, ...], last: int, links: Mapping[int, str]) -> list[tuple[int, int]]:
    """Unlinked calls of the turn that ends with step `last`, each with the observation after the turn that is its."""
    stop = last + 1
    while stop < len(steps) and isinstance(steps[stop], OBSERVATIONS):
        stop += 1
    if stop == last + 1:
        return []
    first = last
    while first > 0 and isinstance(steps[first - 1], TOOL_ACTIONS):
        first -= 1
    calls = [index for index in range(first, last + 1) if index not in links]
    answers = [index for index in range(last + 1, stop) if index not in links]
    if not answers:
        raise UserError(
            f"content[{last}]: a tool action without result stands before the results of others, which the Agent Data"
            " Protocol cannot express; move it before the other calls or give its result"
        )
    paired = min(len(calls), len(answers))
    return list(zip(calls[-paired:], answers[:paired], strict=True))
