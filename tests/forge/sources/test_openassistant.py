"""OpenAssistant: the best-ranked conversation of a tree, told nested or message by message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from source_reading import read_rows


def message(name: str, parent: str | None, role: str, **more: Any) -> dict[str, Any]:
    return {
        "message_id": name,
        "parent_id": parent,
        "role": role,
        "text": f"text {name}",
        "lang": "en",
        "message_tree_id": "t",
        **more,
    }


def nested(name: str, role: str, *replies: Any, **more: Any) -> dict[str, Any]:
    return {**message(name, None, role, **more), "replies": list(replies)}


def texts(trajectory: Any) -> list[str]:
    return [step.content.removeprefix("text ") for step in trajectory.steps]


def test_the_best_ranked_path_of_a_nested_tree(tmp_path: Path) -> None:
    last = nested("p2", "prompter", nested("a3", "assistant", rank=0))
    best = nested("a2", "assistant", nested("p1", "prompter"), last, rank=0, review_result=True)
    tree = nested(
        "p0",
        "prompter",
        nested("a1", "assistant", rank=1),
        best,
        nested("a0", "assistant", rank=-1, review_result=False),
    )
    (made,), _ = read_rows(
        "openassistant", tmp_path, {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": tree}
    )
    assert texts(made) == ["p0", "a2", "p2", "a3"]  # a rejected reply is none, the longer talk is kept
    assert made.details["language"] == "en" and made.details["tree_state"] == "ready_for_export"
    assert made.details["messages"][1] == {"message_id": "a2", "lang": "en", "rank": 0, "review_result": True}


def test_messages_with_parents_orphans_circles_and_doubles(tmp_path: Path) -> None:
    rows = [
        message("a", "p", "assistant", rank=0),  # before its parent
        message("p", None, "prompter"),
        message("p", None, "prompter"),
        message("o", "gone", "assistant"),
        message("x", "y", "assistant"),
        message("y", "x", "prompter"),
        {**message("q", None, "prompter"), "message_tree_id": "u", "deleted": True},
        {**message("r", "s", "prompter"), "message_tree_id": "w"},
        {"text": "no ids"},
    ]
    (made,), quarantine = read_rows("openassistant", tmp_path, *rows)
    assert texts(made) == ["p", "a"]
    assert quarantine.counts == {
        "missing parent": 2,
        "not below the prompt": 2,
        "malformed tree": 1,
        "message told twice": 1,
        "no accepted answer": 1,
        "unknown form": 1,
    }


def test_a_chain_of_messages_costs_no_recursion(tmp_path: Path) -> None:
    rows = [message("m0", None, "prompter")]
    rows += [message(f"m{i}", f"m{i - 1}", "assistant" if i % 2 else "prompter") for i in range(1, 3000)]
    (made,), _ = read_rows("openassistant", tmp_path, *rows)
    assert len(made.steps) == 3000


def test_roles_that_do_not_take_turns(tmp_path: Path) -> None:
    tree = nested("p0", "prompter", nested("p1", "prompter", nested("a", "assistant")))
    records, quarantine = read_rows("openassistant", tmp_path, {"message_tree_id": "t", "prompt": tree})
    assert records == [] and quarantine.counts == {"malformed tree": 1}
