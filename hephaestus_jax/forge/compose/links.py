"""Outputs that feed inputs, found through the names and types of the schemas' fields.

`{"Vpc": {"VpcId": "vpc-1"}}` of CreateVpc feeds `VpcId` of CreateSubnet and an item of `VpcIds` of DescribeVpcs; the
`id` of what POST /v1/customers returns feeds `customer` or `customer_id` of another operation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hephaestus_jax.forge.compose.cases import Case, belies
from hephaestus_jax.forge.compose.checks import argument_faults, at_path
from hephaestus_jax.forge.compose.settings import Draw
from hephaestus_jax.forge.compose.tasks import CREATING, READING, REMOVING, verb_of
from hephaestus_jax.forge.compose.wording import is_said, name_words, scalars, singular, word_set
from hephaestus_jax.formats.records import Json, canonical_json

Path = tuple[str | int, ...]

# A field of such a name says what it identifies only together with what it is a field of.
_BARE = word_set("id arn name key number slug uuid guid code sid ref sha handle login identifier")
_CHANGING = re.compile(r"(?i)state|status|time|date|_at$|At$|updated|modified|etag|version|count|progress|url|href")
# Such an id names a request, a user or a version of something else, and is not what a second call is about.
_NO_LINK = re.compile(r"request|token|trace|idempoten|operationid$|owner|requester|awsaccount|version|^etag")
_MAKE = re.compile(r"(?:[a-z]+-)+(?=[0-9a-f]{6,}\Z)|arn:[\w-]*:[\w-]*:")
_NOTHING = frozenset(["null", "none", "default", "string", "true", "false", "latest"])
_MAX_LEAVES = 200  # of one output that are looked at
_CANDIDATES = 24  # consumers of one value that are tried
_Scalar = str | int


@dataclass(frozen=True)
class Leaf:
    """A scalar of an output or of a call, and what it identifies: ("vpc", "id")."""

    path: Path
    what: str
    value: _Scalar
    kind: str  # "string" or "integer"
    form: str  # the schema's format, "" if none


@dataclass(frozen=True)
class Link:
    """`argument` of the later call takes what stands at `path` of the earlier call's output."""

    path: Path
    argument: Path


@dataclass(frozen=True)
class Chain:
    """Two calls, the second with its arguments and result after the links were made."""

    first: Case
    second: Case
    links: tuple[Link, ...]


class Links:
    """Finds the chains among the cases of one provider."""

    def __init__(self, cases: Sequence[Case]) -> None:
        """`cases` are sorted."""
        self._inputs = {case.key: list(_inputs(case)) for case in cases}
        self._takers: dict[str, list[Case]] = {}
        for case in cases:
            for what in sorted({leaf.what for leaf in self._inputs[case.key]}):
                self._takers.setdefault(what, []).append(case)

    def chains(self, first: Case, limit: int, draw: Draw) -> list[Chain]:
        """At most `limit` chains that begin with this call, each with another second API."""
        if first.result is None or verb_of(first.task) in REMOVING:
            return []
        said = json.dumps(first.arguments, ensure_ascii=False) + first.task
        named = {leaf.what for leaf in self._inputs[first.key]}
        fresh = [leaf for leaf in _outputs(first) if leaf.what not in named and not is_said(leaf.value, said)]
        found: list[Chain] = []
        for leaf in draw.shuffled(fresh):
            takers = [case for case in self._takers.get(leaf.what, ()) if case.doc is not first.doc]
            same = [case for case in takers if case.offer.group == first.offer.group]
            for second in draw.sample(same, _CANDIDATES):
                if len(found) >= limit:
                    return found
                if any(second.doc is chain.second.doc for chain in found):
                    continue
                if chain := self._chain(first, second, fresh):
                    found.append(chain)
        return found

    def _chain(self, first: Case, second: Case, fresh: Sequence[Leaf]) -> Chain | None:
        """The two calls as a chain; None where they cannot be one without contradiction."""
        if _disagree(first, second):
            return None
        verb = verb_of(second.task)
        arguments: Json = second.arguments
        result = second.result
        links = []
        own = _own_words(first)
        for taken in self._inputs[second.key]:
            given = next((leaf for leaf in fresh if _fits(leaf, taken) and _look_alike(leaf, taken)), None)
            if given is None or (taken.what.endswith(("name", "key")) and verb not in READING | REMOVING):
                continue  # to name something as it is named already is no task
            if verb in REMOVING and not given.what.startswith(own):
                continue  # nobody removes what a result mentions by the way
            links.append((Link(given.path, taken.path), given))
            arguments = _with(arguments, taken.path, given.value)
            if result is not None:
                result = _renamed(result, taken.value, given.value)
                if result is None:
                    return None
        if not links or argument_faults(arguments, second.offer.tool.parameters):
            return None
        if any(is_said(at_path(second.arguments, link.argument), second.task) for link, _ in links):
            return None  # the documented words name the value that was replaced
        output = _parsed(result)
        if any(_contradicts(first, link.path, given.value, output) for link, given in links):
            return None
        taken_names = [link.argument[0] for link, _ in links]
        others = {name: value for name, value in arguments.items() if name not in taken_names}
        if any(_is_of_another(at_path(first.output, link.path[:-1]), others) for link, _ in links):
            return None
        if belies(second.doc, arguments, output):
            return None
        if verb in CREATING and _known_before(first, second):
            return None
        changed = replace(second, arguments=arguments, result=result, output=output)
        return Chain(first, changed, tuple(link for link, _ in links))


# --- what fields identify ---------------------------------------------------------------------------------------------


def identified(name: str, owner: str) -> str:
    """What a field identifies, "vpcid"; "" if it is no identifier. `owner` is what the field is a field of."""
    words = [singular(word) for word in name_words(name)]
    if not words or words[-1] not in _BARE:
        return ""
    if _NO_LINK.search("".join(words)):
        return ""
    if len(words) == 1 and words[0] in _BARE:
        owned = [singular(word) for word in name_words(owner)]
        return "".join((*owned, words[0])) if owned else ""
    return "".join(words)


def resource_of(case: Case) -> str:
    """The thing an operation works on: "pets" of POST /v1/pets, "Vpc" of ec2.CreateVpc."""
    name = case.doc.name
    if case.doc.interface == "rest":
        parts = [part for part in name.partition(" ")[2].split("/") if part and not part.startswith("{")]
        return parts[-1] if parts else ""
    words = name_words(case.doc.function or name.rpartition(".")[2].rpartition(" ")[2])
    return "_".join(words[1:])


def _own_words(case: Case) -> tuple[str, ...]:
    """How identifiers of a call's own thing begin: of "AttachVolume" with "volume" or, as "AttachmentId", "attach"."""
    thing = "".join(singular(word) for word in name_words(resource_of(case)))
    verb = verb_of(case.task)
    return tuple(filter(None, (thing, verb.removesuffix("e") if len(verb) > 5 else "")))


def _inputs(case: Case) -> Iterator[Leaf]:
    """The identifiers among the arguments: scalars, and the one item of a list."""
    properties = case.doc.parameters.get("properties", {})
    for name, value in case.arguments.items():
        schema = properties.get(name)
        path: Path = (name,)
        if isinstance(value, list) and len(value) == 1 and isinstance(schema, Mapping):
            value, schema, path = value[0], schema.get("items"), (name, 0)
        kind, form = _type(schema)
        what = identified(name, _owner_in_path(case, name))
        if what and kind and _is_identifier(value):
            yield Leaf(path, what, value, kind, form)


def _owner_in_path(case: Case, name: str) -> str:
    """The segment before a path parameter, else the resource."""
    parts = case.doc.name.split("/")
    if "{" + name + "}" in parts[1:]:
        return parts[parts.index("{" + name + "}") - 1]
    return resource_of(case)


def _outputs(case: Case) -> list[Leaf]:
    """The identifiers in the documented output that the schema of the returned value knows."""
    found: list[Leaf] = []
    if case.doc.returns is not None:
        _walk(case.output, case.doc.returns, (), resource_of(case), found)
    known: dict[str, Leaf] = {}
    for leaf in found:
        known.setdefault(leaf.what, leaf)
    return list(known.values())


def _walk(value: Json, schema: Json, path: Path, owner: str, found: list[Leaf]) -> None:
    if len(found) >= _MAX_LEAVES or len(path) > 8 or not isinstance(schema, Mapping):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            part = _property(schema, key)
            kind, form = _type(part)
            what = identified(key, owner) if kind and _is_identifier(item) else ""
            if what:
                found.append(Leaf((*path, key), what, item, kind, form))
            elif isinstance(item, Mapping | list):
                _walk(item, part, (*path, key), key, found)
    elif isinstance(value, list) and value:
        part = _items(schema)
        kind, form = _type(part)
        if isinstance(value[0], Mapping):
            _walk(value[0], part, (*path, 0), owner, found)
        elif kind and _is_identifier(value[0]) and (what := identified(owner, "")):
            found.append(Leaf((*path, 0), what, value[0], kind, form))


def _variants(schema: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    parts = [part for key in ("anyOf", "oneOf", "allOf") for part in schema.get(key, ()) if isinstance(part, Mapping)]
    return [schema, *parts]


def _property(schema: Mapping[str, Json], key: str) -> Json:
    for part in _variants(schema):
        if isinstance(properties := part.get("properties"), Mapping) and key in properties:
            return properties[key]
    return None


def _items(schema: Mapping[str, Json]) -> Json:
    return next((part["items"] for part in _variants(schema) if "items" in part), None)


def _type(schema: Json) -> tuple[str, str]:
    """Type, "string" or "integer", and format of a schema; ("", "") for any other."""
    if not isinstance(schema, Mapping) or "enum" in schema:
        return "", ""
    for part in _variants(schema):
        stated = part.get("type")
        kinds = [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
        for kind in ("string", "integer"):
            if kind in kinds:
                return kind, part["format"] if isinstance(part.get("format"), str) else ""
    return "", ""


def _is_identifier(value: Json) -> bool:
    if isinstance(value, str):
        if value.lower() in _NOTHING:
            return False
        return len(value) >= 3 and "\n" not in value and len(value) <= 200
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _fits(given: Leaf, taken: Leaf) -> bool:
    if given.what != taken.what or given.kind != taken.kind:
        return False
    return given.form == taken.form or not given.form or not taken.form


def _look_alike(given: Leaf, taken: Leaf) -> bool:
    """Whether two identifiers are of one make: "rtbassoc-781d0d1a" is none that stands where "iip-assoc-0e77" does."""
    makes = [_MAKE.match(str(leaf.value)) for leaf in (given, taken)]
    return (makes[0] or [""])[0] == (makes[1] or [""])[0]


# --- contradictions ---------------------------------------------------------------------------------------------------


def _disagree(first: Case, second: Case) -> bool:
    """Whether the two calls name the same argument with different values: they speak of different things."""
    shared = first.arguments.keys() & second.arguments.keys()
    required = {*first.doc.parameters.get("required", ()), *second.doc.parameters.get("required", ())}
    return any(first.arguments[name] != second.arguments[name] for name in shared & required)


def _with(value: Json, path: Path, new: Json) -> Json:
    """The JSON value with another value at a path that exists."""
    if not path:
        return new
    head, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        return {key: _with(item, rest, new) if key == head else item for key, item in value.items()}
    return [_with(item, rest, new) if number == head else item for number, item in enumerate(value)]


def _renamed(result: str, old: _Scalar, new: _Scalar) -> str | None:
    """The result with the new identifier wherever it shows the old one; None where that cannot be told."""
    if old == new:
        return result
    shown = json.dumps(old, ensure_ascii=False).strip('"')
    if shown not in result:
        return result
    if len(shown) < 4:  # too short to be told from other values
        return None
    told = json.dumps(new, ensure_ascii=False).strip('"')
    renamed = re.sub(rf"(?<![A-Za-z0-9_]){re.escape(shown)}(?![A-Za-z0-9_])", lambda _: told, result)
    return None if shown in renamed.replace(told, "") or _kind(_parsed(renamed)) != _kind(_parsed(result)) else renamed


def _kind(value: Json) -> type:
    return type(value)


def _is_of_another(owner: Json, arguments: Mapping[str, Json]) -> bool:
    """Whether a call is about something else than what the taken value stands in: a version of another key."""
    if not isinstance(owner, Mapping):
        return False
    told = {"".join(name_words(str(name))): value for name, value in owner.items()}
    return any(
        isinstance(value, str | int)
        and isinstance(known := told.get("".join(name_words(name))), str | int)
        and identified(name, "") != ""
        and known != value
        for name, value in arguments.items()
    )


def _known_before(first: Case, second: Case) -> bool:
    """Whether what the second call creates is something that the first already knew."""
    told = {canonical_json(value) for value in (*scalars(first.arguments), *scalars(first.output))}
    told -= {canonical_json(value) for value in scalars(second.arguments)}
    return any(canonical_json(leaf.value) in told for leaf in _outputs(second))


def _contradicts(first: Case, path: Path, shared: Json, after: Json) -> bool:
    """Whether the later output says something else of the thing that the shared identifier names."""
    owner = at_path(first.output, path[:-1])
    if not isinstance(owner, Mapping):
        return False
    key = path[-1]
    before = {**first.arguments, **owner} if verb_of(first.task) in CREATING else owner
    known = {
        name: value
        for name, value in before.items()
        if name != key and isinstance(value, str | int | float) and not _CHANGING.search(str(name))
    }
    return any(
        name in part and isinstance(part[name], str | int | float) and part[name] != value
        for thing in _things_with(after, key, shared)
        for part in (thing, *(inner for inner in thing.values() if isinstance(inner, Mapping)))
        for name, value in known.items()
    )


def _things_with(value: Json, key: str | int, shared: Json) -> Iterator[Mapping[str, Json]]:
    if isinstance(value, Mapping):
        if value.get(key) == shared:
            yield value
        for item in value.values():
            yield from _things_with(item, key, shared)
    elif isinstance(value, list):
        for item in value:
            yield from _things_with(item, key, shared)


def _parsed(text: str | None) -> Json:
    try:
        return json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return text
