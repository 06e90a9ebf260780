"""ToolBench (Qin et al., arXiv 2307.16789): trees of attempts with real RapidAPI services, and the APIs of its queries.

An answer file holds the tree of a depth-first search. The path to the final answer becomes a trajectory; where the
search gave up on the way, the branch that was given up stands where it left the path, its steps marked as errors.
Thoughts about attempts that the trajectory does not show are left out, and so is a call made again in vain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import checked
from hephaestus_jax.forge.tool_data.json_values import list_of, object_of, parse_loose
from hephaestus_jax.forge.tool_data.rows import objects
from hephaestus_jax.forge.tool_data.tool_schemas import fitting_value, parameters_schema, tool_of, type_schema
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    Json,
    MessageAction,
    Outcome,
    Record,
    Step,
    TextObservation,
    Tool,
    Trajectory,
)

LICENCE = "Apache-2.0"
HOST = "github.com/OpenBMB/ToolBench"
MOST_NODES = 100_000  # of one tree
GAVE_UP = 4  # codes of observations: 0 a result, 3 the final answer, 4 a give-up, others errors
ANSWERED = 3
# what the data's own program wrote around the descriptions of the tools
_SUBFUNCTION = re.compile(
    r'This is the subfunction for tool ".*?", you can use this tool\.?'
    r'(?:\s*The description of this function is: "(?P<told>.*)")?\s*',
    re.DOTALL,
)
_SUSPECTED = "Message error..."  # said of every answer with the word "error" in it
_STATUS_KEYS = ("status", "statusCode", "status_code", "code", "cod")
_MESSAGE_KEYS = frozenset({"message", "messages", "msg", "error", "detail", "title", *_STATUS_KEYS})
_WELL = re.compile(r"success|\bok\b|created|deleted|updated|sent|accepted|queued|welcome|thank|hello", re.IGNORECASE)
_ERROR_PAGE = re.compile(
    r"<(?:title|h1)>[^<]{0,60}(?:forbidden|error|denied|not found|bad gateway|unavailable|[45]\d\d)", re.IGNORECASE
)
_TEMPLATE_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
}


@source("toolbench", files="**/*.json")
def read_toolbench(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """ToolBench answer trees as trajectories, its query and tool files as API documentation."""
    for where, row in objects(file, quarantine):
        try:
            if isinstance(row.get("tree"), Mapping):
                yield _trajectory(row, file, where)
            elif isinstance(row.get("api_list"), list):
                yield from _apis(row, file, where, quarantine)
            else:
                reason = "query without APIs" if "query" in row else "unknown form"
                quarantine.add(reason, file.place(where), f"keys {', '.join(sorted(row)[:8])}")
        except ValueError as error:
            quarantine.add("malformed tree" if "tree" in row else "malformed API", file.place(where), str(error))


# Answer trees.


class _Node(NamedTuple):
    """A node of the tree: what the model thought, chose, or passed, and what came back."""

    kind: str  # "Thought", "Action", "Action Input"
    text: str
    observation: str | None
    code: int | None
    order: int  # in which the search came to it
    parent: int  # -1 of the root
    number: int


@dataclass
class _Tree:
    """The nodes in the order in which they stand, parents first."""

    nodes: list[_Node] = field(default_factory=list)

    @classmethod
    def read(cls, stated: Json) -> _Tree:
        tree = cls()
        pending: list[tuple[Json, int]] = [(stated, -1)]
        while pending:
            value, parent = pending.pop()
            if not isinstance(value, Mapping):
                raise ValueError(f"a node is an object, found {type(value).__name__}")
            if len(tree.nodes) >= MOST_NODES:
                raise ValueError(f"more than {MOST_NODES:,} nodes")
            children = value.get("children") or []
            kind, text, observation = (value.get(key) for key in ("node_type", "description", "observation"))
            if not isinstance(kind, str) or not isinstance(children, list):
                raise ValueError("a node has a node_type and a list of children")
            code = value.get("observation_code")
            number = len(tree.nodes)
            tree.nodes.append(
                _Node(
                    kind,
                    text if isinstance(text, str) else "",
                    observation if isinstance(observation, str) else None,
                    code if isinstance(code, int) else None,
                    number,
                    parent,
                    number,
                )
            )
            pending += [(child, number) for child in reversed(children)]
        return tree

    def elder_siblings(self, node: _Node) -> Iterator[int]:
        """The numbers of the nodes that the search tried before this one, from the same place."""
        for number in range(node.parent + 1, node.number):
            if self.nodes[number].parent == node.parent:
                yield number

    def path(self, node: _Node) -> list[_Node]:
        """The nodes from the first below the root to this one."""
        path = []
        while node.parent >= 0:
            path.append(node)
            node = self.nodes[node.parent]
        return path[::-1]


def _trajectory(row: Mapping[str, Json], file: SourceFile, where: str) -> Trajectory:
    generation = object_of(row.get("answer_generation"), "answer_generation")
    tree = _Tree.read(object_of(row["tree"]).get("tree"))
    query = generation.get("query")
    if not isinstance(query, str) or not query.strip():
        raise ValueError("answer_generation.query: no task is stated")
    leaf = _answer(tree, generation.get("final_answer"))
    if leaf is None:
        raise ValueError("the search ended without an answer and without giving up")
    path = tree.path(leaf)
    failed = _given_up_before(tree, path) if leaf.code == ANSWERED else []
    shared = _shared(path, failed)
    made = _Steps(tree, {node.number for node in (*path, *failed)})
    made.steps.append(TextObservation(query.strip(), "user"))
    made.add(path[:shared])
    if failed:
        made.add(failed[shared:], failed=True)
    made.add(path[shared:], again=bool(failed))
    tools = tuple(_tool(tool) for tool in list_of(generation.get("function"), "answer_generation.function"))
    notes = (*(("a branch that was given up",) if failed else ()), *made.notes())
    provenance = replace(file.provenance(where, LICENCE, HOST), processing=notes)
    finish = generation.get("finish_type")
    won = row.get("win") is True and leaf.code == ANSWERED
    trajectory = Trajectory(
        steps=tuple(made.steps),
        provenance=provenance,
        tools=tools,
        system=_system(generation),
        success=won if isinstance(row.get("win"), bool) else None,
        name=file.path.rsplit("/", 1)[-1].removesuffix(".json") + where,
        details={"finish_type": finish} if isinstance(finish, str) else {},
    )
    return checked(trajectory)


def _answer(tree: _Tree, stated: Json) -> _Node | None:
    """The node of the final answer, else of the give-up that the search ended with."""
    for code in (ANSWERED, GAVE_UP):
        ends = [node for node in tree.nodes if node.kind == "Action Input" and node.code == code]
        named = [node for node in ends if node.text == stated]
        if ends:
            return (named or ends)[-1]
    return None


def _given_up_before(tree: _Tree, path: list[_Node]) -> list[_Node]:
    """The last branch that was given up before the path to the answer was begun; none if none was."""
    on_path = {node.number for node in path}
    first = path[0].number if path else 0
    found: list[_Node] = []
    for node in tree.nodes:
        if node.code == GAVE_UP and node.number not in on_path:
            branch = tree.path(node)
            common = sum(1 for part in branch if part.number in on_path)
            if branch[common].number < path[common].number if common < len(path) else branch[0].number < first:
                found = branch
    return found


def _shared(path: list[_Node], branch: list[_Node]) -> int:
    """How many nodes both begin with, up to the end of a call."""
    shared = 0
    for one, other in zip(path, branch, strict=False):
        if one.number != other.number:
            break
        shared += 1
    while shared and path[shared - 1].kind != "Action Input":
        shared -= 1
    return shared


@dataclass
class _Steps:
    """The steps of paths through a tree: thoughts go with the action that follows them."""

    tree: _Tree
    shown: set[int]  # numbers of the nodes that the trajectory shows
    steps: list[Step] = field(default_factory=list)
    failed_calls: set[str] = field(default_factory=set)
    repeated: int = 0
    unseen: int = 0

    def add(self, path: list[_Node], failed: bool = False, again: bool = False) -> None:
        """Adds a path's steps: errors all if it `failed`; what is done `again` corrects what failed."""
        thought: list[str] = []
        name = ""
        for node in path:
            if node.kind == "Thought":
                thought += self._thought(node)
            elif node.kind == "Action":
                name = node.text.strip()
            elif node.kind == "Action Input":
                call = ApiAction(name, object_of(node.text, f"input of {name}"), outcome=_outcome(node, failed))
                if self._is_repeated(call, node.observation):
                    self.repeated += 1
                else:
                    again = self._call(call, node, thought, again)
                    if call.outcome == "error" and not failed:
                        self.failed_calls.add(name)
                thought = []
            else:
                raise ValueError(f"node_type {node.kind!r} is unknown")
        if said := "\n".join(filter(None, thought)):
            self.steps.append(MessageAction(said, outcome="error" if failed else "unknown"))

    def _thought(self, node: _Node) -> list[str]:
        """What was thought, unless it was of attempts that are not shown: the search told the model of them."""
        if all(number in self.shown for number in self.tree.elder_siblings(node)):
            return [node.text.strip()]
        self.unseen += 1
        return []

    def _call(self, call: ApiAction, node: _Node, thought: list[str], again: bool) -> bool:
        """Adds a call and what came back; whether the next one that goes well still corrects what failed."""
        outcome = call.outcome
        if outcome == "ok" and (again or call.function in self.failed_calls):
            outcome, again = "corrected", False
            self.failed_calls.discard(call.function)
        call_id = f"call_{len(self.steps):06d}"
        said = "\n".join(filter(None, thought)) or None
        self.steps.append(replace(call, reasoning_content=said, tool_call_id=call_id, outcome=outcome))
        if node.observation is not None:
            self.steps.append(TextObservation(node.observation, "environment", tool_call_id=call_id))
        return again

    def _is_repeated(self, call: ApiAction, observation: str | None) -> bool:
        """Whether the last call was the same, with the same result."""
        match self.steps[-2:]:
            case [ApiAction() as last, TextObservation(content=told)]:
                return (last.function, last.kwargs, told) == (call.function, call.kwargs, observation)
        return False

    def notes(self) -> Iterator[str]:
        """What was left out."""
        if self.repeated:
            yield f"{self.repeated} calls made again with the same result left out"
        if self.unseen:
            yield f"{self.unseen} thoughts about attempts that are not shown left out"


def _outcome(node: _Node, failed: bool) -> Outcome:
    if failed or node.code not in (0, ANSWERED):
        return "error"
    if node.code == 0 and node.observation is not None:
        try:
            told = json.loads(node.observation)
        except (ValueError, RecursionError):  # the data cut long results
            return "ok" if node.observation.startswith('{"error": "",') else "unknown"
        if isinstance(told, Mapping):
            answered = _answered(told.get("response"))
            if told.get("error") == _SUSPECTED:
                return "error" if answered == "error" else "unknown"
            return "error" if told.get("error") else answered
    return "ok"


def _answered(response: Json) -> Outcome:
    """How a call went whose answer came through: services tell their errors in their own words."""
    if isinstance(response, str):
        if _ERROR_PAGE.search(response, 0, 4_000):
            return "error"
        try:
            response = parse_loose(response)
        except ValueError:
            return "ok" if response.strip() else "unknown"
    if isinstance(response, Mapping) and response:
        codes = [str(response.get(key)) for key in _STATUS_KEYS]
        if any(re.fullmatch(r"[45]\d\d", code) for code in codes) or response.get("success") is False:
            return "error"
        if response.get("error") or response.get("errors"):
            return "error"
        only_told = _MESSAGE_KEYS.issuperset(response)
        return "error" if only_told and not _WELL.search(str(list(response.values()))) else "ok"
    return "ok" if response not in ("", None) else "unknown"


def _tool(stated: Json) -> Tool:
    tool = tool_of(stated)
    found = _SUBFUNCTION.fullmatch(tool.description)
    return replace(tool, description=(found["told"] or "").strip()) if found else tool


def _system(generation: Mapping[str, Json]) -> str:
    """The system prompt of the messages that the data were made with."""
    messages = generation.get("train_messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    first = last[0] if isinstance(last, list) and last else None
    if isinstance(first, Mapping) and first.get("role") == "system" and isinstance(first.get("content"), str):
        return first["content"].strip()
    return ""


# Queries and tools.


def _apis(row: Mapping[str, Json], file: SourceFile, where: str, quarantine: Quarantine) -> Iterator[ApiDoc]:
    """The APIs that a query (or the file of a tool) lists."""
    for index, api in enumerate(row["api_list"]):
        place = f"{where}.api_list[{index}]"
        if not isinstance(api, Mapping):
            quarantine.add("malformed API", file.place(place), f"expected an object, found {type(api).__name__}")
            continue
        tool = api.get("tool_name") or row.get("tool_name") or row.get("title")
        name = api.get("api_name") or api.get("name")
        if not isinstance(tool, str) or not isinstance(name, str) or not tool.strip() or not name.strip():
            quarantine.add("malformed API", file.place(place), "it has no tool_name or no api_name")
            continue
        description = api.get("api_description") or api.get("description")
        described = description.strip() if isinstance(description, str) else ""
        if not described and not api.get("required_parameters") and not api.get("optional_parameters"):
            quarantine.add("nothing described", file.place(place), f"{tool}: {name} has no description, no parameters")
            continue
        yield ApiDoc(
            name=f"{tool.strip()}: {name.strip()}",
            provider=tool.strip(),
            description=described,
            provenance=file.provenance(place, LICENCE, "rapidapi.com"),
            parameters=_parameters(api),
            returns=_returns(api.get("template_response")),
            interface="tool",
            function=name.strip(),
        )


def _parameters(api: Mapping[str, Json]) -> dict[str, Json]:
    properties: dict[str, Json] = {}
    required = []
    for key in ("required_parameters", "optional_parameters"):
        for stated in list_of(api.get(key), key):
            if not isinstance(stated, Mapping) or not isinstance(stated.get("name"), str):
                raise ValueError(f"{key}: a parameter has a name")
            kind, default = stated.get("type"), stated.get("default")
            made = type_schema(kind) if isinstance(kind, str) else {}
            if isinstance(text := stated.get("description"), str) and text.strip():
                made["description"] = text.strip()
            # RapidAPI's example, sent if nothing else is
            if default not in ("", "null", None) and (value := fitting_value(default, made)) is not None:
                optional = key.startswith("optional")
                made["default" if optional else "examples"] = value if optional else [value]
            properties[stated["name"]] = made
            if key.startswith("required"):
                required.append(stated["name"])
    return parameters_schema({"type": "object", "properties": properties, "required": required})[0]


def _returns(template: Json) -> dict[str, Json] | None:
    """The schema of a response that was seen; None if what was seen was an error, as it is of many."""
    if isinstance(template, Mapping) and _MESSAGE_KEYS.issuperset(template):
        return None
    return _template(template)


def _template(value: Json, depth: int = 5) -> dict[str, Json] | None:
    """The schema of `{"id": "str", "items": [{"n": "int"}]}`, the shape of a response that was seen."""
    if isinstance(value, str) and value in _TEMPLATE_TYPES:
        return {"type": _TEMPLATE_TYPES[value]}
    if isinstance(value, list) and value:
        items = _template(value[0], depth) if isinstance(value[0], Mapping | str) else None
        return {"type": "array", **({"items": items} if items else {})}
    if isinstance(value, Mapping) and value:
        fields = (
            {name: _template(part, depth - 1) or {} for name, part in value.items() if name != "_list_length"}
            if depth > 0
            else {}
        )
        return {"type": "object", **({"properties": fields} if fields else {})}
    return None
