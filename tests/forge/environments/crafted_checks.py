"""What the environments of this project's own must hold: their experts know only what they have read."""

from __future__ import annotations

import ast
import builtins
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import environment_checks
from environment_checks import Steps, check_task

from hephaestus_jax.forge.environments.environment import Call, Environment, Feedback, Split, Task, checked_step
from hephaestus_jax.forge.environments.worlds.crafted.crafted import Crafted


def keep_program_output(monkeypatch: Any) -> None:
    """What programs print is shown as it is, aligned columns included; only its length and its end are checked."""

    def check(feedback: Feedback, what: str = "observation") -> None:
        assert feedback.observation and feedback.observation == feedback.observation.rstrip(), what
        assert len(feedback.observation) <= environment_checks.LONGEST_OBSERVATION, what
        assert 0.0 <= feedback.score <= 1.0, feedback.score

    monkeypatch.setattr(environment_checks, "check_feedback", check)


def play(
    environment: Environment, task: Task, steps: Steps | None = None, check: Callable[..., None] | None = None
) -> Steps:
    """The expert's calls from where the environment stands to the end; `check` is given each call and what was told."""
    steps = [] if steps is None else steps
    told = [
        task.goal,
        *(text for call, made in steps for text in (*map(str, call.arguments.values()), made.observation)),
    ]
    while len(steps) < task.max_steps and not (steps and steps[-1][1].done):
        call = environment.oracle()
        if call is None:
            break
        if check is not None:
            check(call, "\n".join(told))
        steps.append((call, checked_step(environment, task.verbs, call, steps[-1][1] if steps else None)))
        told += [*map(str, call.arguments.values()), steps[-1][1].observation]
    return steps


def won(
    environment: Environment, game: str, seed: int, split: Split, check: Callable[..., None] | None = None
) -> Steps:
    """An expert's episode, which is won; nothing is won by handing in at once."""
    task = environment.reset(game, seed, split)
    check_task(task)
    assert not checked_step(environment, task.verbs, Call("submit"), None).success, (
        f"{game}, seed {seed}: no task at all"
    )
    environment.reset(game, seed, split)
    steps = play(environment, task, check=check)
    assert steps and steps[-1][1].success and steps[-1][1].done, f"{game}, seed {seed}: not won: {steps[-1:]}"
    assert 2 <= len(steps) <= 0.75 * task.max_steps
    return steps


def after_mistake(
    environment: Environment,
    game: str,
    seed: int,
    right: str,
    wrong: Callable[[str], Call],
    check: Callable[..., None] | None = None,
) -> Steps | None:
    """An episode in which the expert's first call with `right` in it is replaced; None if it is not won after that."""
    task = environment.reset(game, seed, "train")
    steps: Steps = []
    while True:
        call = environment.oracle()
        assert call is not None and call.tool != "submit", f"{game}, seed {seed}: nothing with {right!r}"
        text = str(next(iter(call.arguments.values()), ""))
        if right in text:
            break
        steps.append((call, checked_step(environment, task.verbs, call, None)))
    mistake = wrong(text)
    assert mistake.key != call.key, "no mistake"
    steps.append((mistake, checked_step(environment, task.verbs, mistake, None)))
    play(environment, task, steps, check)
    return steps if steps[-1][1].success else None


def check_choices_are_known(environment: Crafted, game: str, seed: int, names: Callable[[], Sequence[str]]) -> None:
    """No choice names anything of `names` (tables, files) before a player has read of it."""
    task = environment.reset(game, seed, "train")
    told = [task.goal]
    while True:
        unknown = [name for name in names() if not re.search(rf"\b{re.escape(name)}\b", "\n".join(told))]
        for call in environment.choices():
            text = " ".join(map(str, call.arguments.values()))
            for name in unknown:
                assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text), f"{call.key} names {name}, unread"
        call = environment.oracle()
        assert call is not None
        feedback = checked_step(environment, task.verbs, call, None)
        if feedback.done:
            return
        told += [*map(str, call.arguments.values()), feedback.observation]


def different_tasks(families: dict[str, Callable[[random.Random], Any]], seeds: int) -> int:
    """How many different requests so many seeds give, spread over the families."""
    names = sorted(families)
    return len({families[names[seed % len(names)]](random.Random(f"x {seed}")).goal for seed in range(seeds)})


def unread(words: Sequence[str], told: str) -> list[str]:
    """Which words were neither read nor are so short that anyone might write them."""
    return [word for word in words if len(word) > 1 and not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", told)]


_SQL = {
    "select", "from", "where", "and", "or", "not", "in", "join", "left", "on", "group", "by", "having", "order",
    "asc", "desc", "limit", "count", "sum", "avg", "round", "min", "max", "as", "distinct", "is", "null",
    "insert", "into", "values", "update", "set", "delete", "create", "view", "unique", "index", "alter",
    "table", "add", "column", "text", "case", "when", "then", "else", "end", "substr", "lower", "trim", "rank",
    "over", "partition", "begin", "commit", "rollback", "drop", "sqlite_master", "type", "name", "sql",
    "tbl_name",
}  # fmt: skip


def check_sql(call: Call, told: str) -> None:
    """Every name, number and text in a statement was read, but for aliases, which the statement makes itself."""
    text = str(call.arguments.get("sql", call.arguments.get("table", call.arguments.get("answer", ""))))
    own = set(re.findall(r"\bAS (\w+)", text)) | set(re.findall(r"(?:FROM|JOIN) \w+ (\w)\b", text))
    words = [word for word in re.findall(r"[\w.@-]+", text) if word.lower() not in _SQL and word not in own]
    parts = [part for word in words for part in ([word] if "@" in word or "-" in word else word.split("."))]
    left = [part for part in unread(parts, told) if part not in own]
    assert not left, f"{left} in {text!r} was never read"


_SHELL = {
    "ls", "find", "grep", "awk", "sed", "cut", "sort", "uniq", "head", "tail", "wc", "tar", "cat", "mkdir",
    "touch", "mv", "cp", "rm", "chmod", "cksum", "echo", "for", "in", "do", "done", "if", "then", "bash",
    "type", "name", "print", "total", "END", "NR", "folder", "rn", "rl", "Rl", "xzf", "czf", "tzf", "empty",
    "delete", "dat", "txt", "conf", "sh", "key", "csv", "jsonl", "log", "yaml", "yml", "text", "VERSION",
    "README", "md", "id", "0-9", "check", "rwx", "go", "rx",
}  # fmt: skip


def check_shell(call: Call, told: str) -> None:
    """Every name, number and text in a command was read, or is a word that every user of a shell knows."""
    if call.tool == "submit":
        words = re.findall(r"[\w.-]+", str(call.arguments.get("answer", "")))
    else:
        text = re.sub(r"\$\{?\w+", " ", " ".join(str(value) for value in call.arguments.values()))
        words = re.findall(r"[\w.-]+", text)
    parts = [
        part.strip(".")
        for word in words
        if not word.startswith("-")
        for part in ([word] if word in told else re.split(r"[./]", word))
    ]
    left = [word for word in unread(parts, told) if word not in _SHELL and not word.isdigit()]
    assert not left, f"{left} in {dict(call.arguments)} was never read"
    numbers = [word for word in parts if word.isdigit() and int(word) > 10 and word not in told]
    assert set(numbers) <= {"600", "755"}, f"{numbers} in {dict(call.arguments)}"


def check_python(call: Call, told: str) -> None:
    """Every number and text in a piece of code was read, or is one of very few that code is full of."""
    if call.tool != "run":
        left = unread(re.findall(r"[\w.-]+", " ".join(map(str, call.arguments.values()))), told)
        assert not left, f"{left} in {dict(call.arguments)} was never read"
        return
    tree = ast.parse(str(call.arguments["code"]))
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = [word for value in constants if isinstance(value, str) for word in re.findall(r"[A-Za-z0-9]{2,}", value)]
    numbers = [str(value) for value in constants if isinstance(value, int | float) and not isinstance(value, bool)]
    usual = {*dir(builtins), *map(str, range(13)), "0.5", "26", "97", "60", "100", "150", "80", "120", "400", "and"}
    left = [word for word in unread(texts + numbers, told) if word not in usual]
    assert not left, f"{left} in {call.arguments['code']!r} was never read"
