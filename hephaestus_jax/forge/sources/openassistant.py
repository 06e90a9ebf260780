"""OpenAssistant's conversation trees (Köpf et al., arXiv 2304.07327), as trees or as single messages with parents.

Of each tree one conversation is kept: the reply that its reviewers ranked best, at each turn. Language, review and rank
of every message go to the details.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.rows import PATTERNS, objects
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json, MessageAction, Record, Step, TextObservation, Trajectory

LICENCE = "Apache-2.0"
HOST = "huggingface.co/OpenAssistant"
MOST_MESSAGES = 100_000  # of one tree
_FLAGS = ("message_id", "lang", "rank", "review_result", "review_count", "synthetic", "model_name", "labels")


class _Message(NamedTuple):
    """A message, and the numbers of its replies."""

    fields: Mapping[str, Json]
    replies: list[int]


@source("openassistant", files=PATTERNS)
def read_openassistant(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """OpenAssistant trees: the best-ranked conversation of each, with its language and reviews."""
    single: dict[str, list[tuple[str, Mapping[str, Json]]]] = {}
    for where, row in objects(file, quarantine):
        if isinstance(row.get("prompt"), Mapping):
            yield from _read(row["prompt"], str(row.get("message_tree_id") or ""), row, file, where, quarantine)
        elif isinstance(row.get("message_id"), str) and isinstance(row.get("message_tree_id"), str):
            single.setdefault(row["message_tree_id"], []).append((where, row))
        else:
            quarantine.add("unknown form", file.place(where), f"keys {', '.join(sorted(row)[:8])}")
    for tree_id, messages in single.items():
        yield from _grown(tree_id, messages, file, quarantine)


def _read(
    prompt: Mapping[str, Json], name: str, row: Mapping[str, Json], file: SourceFile, where: str, quarantine: Quarantine
) -> Iterator[Trajectory]:
    """The conversation of a nested tree."""
    messages: list[_Message] = []
    pending: list[tuple[Mapping[str, Json], int]] = [(prompt, -1)]
    while pending:
        fields, parent = pending.pop()
        if parent >= 0:
            messages[parent].replies.append(len(messages))
        replies = fields.get("replies") or []
        if not isinstance(replies, list) or len(messages) >= MOST_MESSAGES:
            quarantine.add("malformed tree", file.place(where), "replies are no list, or too many")
            return
        number = len(messages)
        messages.append(_Message(fields, []))
        pending += [(reply, number) for reply in reversed(replies) if isinstance(reply, Mapping)]
        for reply in replies:
            if not isinstance(reply, Mapping):
                quarantine.add("malformed message", file.place(where), "a reply is no object")
    yield from _best(messages, name, {"tree_state": row.get("tree_state")}, file, where, quarantine)


def _grown(
    tree_id: str, rows: list[tuple[str, Mapping[str, Json]]], file: SourceFile, quarantine: Quarantine
) -> Iterator[Trajectory]:
    """The conversation of a tree that is told message by message; orphans and circles are set aside."""
    first = rows[0][0]
    numbers: dict[str, int] = {}
    messages: list[_Message] = []
    places: list[str] = []
    for where, fields in rows:
        if fields["message_id"] in numbers:
            quarantine.add("message told twice", file.place(where), str(fields["message_id"]))
            continue
        numbers[fields["message_id"]] = len(messages)
        messages.append(_Message(fields, []))
        places.append(where)
    roots = []
    for number, message in enumerate(messages):
        parent = message.fields.get("parent_id")
        if parent is None:
            roots.append(number)
        elif isinstance(parent, str) and parent in numbers:
            messages[numbers[parent]].replies.append(number)
        else:
            quarantine.add("missing parent", file.place(places[number]), f"parent_id {parent!r}")
    if len(roots) != 1:
        quarantine.add("malformed tree", file.place(first), f"{len(roots)} messages of {tree_id} have no parent")
        return
    reached = set(_below(messages, roots[0]))
    for number in range(len(messages)):
        if number not in reached and messages[number].fields.get("parent_id") in numbers:
            quarantine.add("not below the prompt", file.place(places[number]), "its parents run in a circle")
    order = [roots[0], *(number for number in range(len(messages)) if number != roots[0])]
    renamed = {number: index for index, number in enumerate(order)}
    tree = [_Message(messages[n].fields, [renamed[reply] for reply in messages[n].replies]) for n in order]
    state = messages[roots[0]].fields.get("tree_state")
    yield from _best(tree, tree_id, {"tree_state": state}, file, first, quarantine)


def _below(messages: list[_Message], root: int) -> Iterator[int]:
    """The numbers of a message and of all below it, parents first; each once, as each has one parent."""
    pending = [root]
    while pending:
        number = pending.pop()
        yield number
        pending += reversed(messages[number].replies)


def _best(
    messages: list[_Message],
    name: str,
    facts: Mapping[str, Json],
    file: SourceFile,
    where: str,
    quarantine: Quarantine,
) -> Iterator[Trajectory]:
    """The conversation of the replies that were ranked best, up to the assistant's last turn."""
    depths = [1] * len(messages)
    for number in reversed(list(_below(messages, 0))):
        depths[number] += max((depths[reply] for reply in messages[number].replies), default=0)
    path: list[_Message] = []
    following: int | None = 0 if _accepted(messages[0].fields) else None
    while following is not None:
        path.append(messages[following])
        replies = [r for r in messages[following].replies if _accepted(messages[r].fields)]
        following = min(replies, key=lambda r: (_rank(messages[r].fields), -depths[r], r), default=None)
    while path and path[-1].fields.get("role") != "assistant":
        path.pop()
    if not path:
        quarantine.add("no accepted answer", file.place(where), "the prompt or every reply to it was turned down")
        return
    roles = [message.fields.get("role") for message in path]
    if roles != ["prompter", "assistant"] * (len(path) // 2):
        quarantine.add("malformed tree", file.place(where), f"roles do not take turns: {roles[:6]}")
        return
    texts = [message.fields["text"] for message in path]
    steps: tuple[Step, ...] = tuple(
        MessageAction(text) if role == "assistant" else TextObservation(text, "user")
        for role, text in zip(roles, texts, strict=True)
    )
    kept = [{key: m.fields[key] for key in _FLAGS if m.fields.get(key) is not None} for m in path]
    stated = {key: value for key, value in facts.items() if value is not None}
    details = {"language": path[0].fields.get("lang") or "", **stated, "messages": kept}
    yield Trajectory(steps, file.provenance(where, LICENCE, HOST), name=name, details=details)


def _accepted(fields: Mapping[str, Json]) -> bool:
    """Whether a message has text and was neither deleted nor turned down."""
    text = fields.get("text")
    said = isinstance(text, str) and bool(text.strip())
    return said and fields.get("deleted") is not True and fields.get("review_result") is not False


def _rank(fields: Mapping[str, Json]) -> float:
    rank = fields.get("rank")
    return float(rank) if isinstance(rank, int | float) and not isinstance(rank, bool) else float("inf")
