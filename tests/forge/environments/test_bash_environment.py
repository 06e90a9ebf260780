"""A shell in a scratch folder: an expert that looks, wins and mends; what hostile commands cannot do."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from crafted_checks import (
    after_mistake,
    check_choices_are_known,
    check_shell,
    different_tasks,
    keep_program_output,
    won,
)
from environment_checks import check_determinism, check_kind, check_looks_and_undo, check_refusals, replay, told

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.confinement.process import Confined
from hephaestus_jax.forge.environments.environment import ENVIRONMENTS, Call, checked_step
from hephaestus_jax.forge.environments.worlds.bash.files import archive, members_of, shell
from hephaestus_jax.forge.environments.worlds.bash.world import Bash

KIND = ENVIRONMENTS["bash"]
GAMES = (*KIND.games, *KIND.unseen_games)


@pytest.fixture(scope="module")
def machine() -> Iterator[Bash]:
    try:
        environment = Bash()
    except UserError as error:
        pytest.skip(str(error))
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def other(machine: Bash) -> Iterator[Bash]:
    environment = Bash()
    yield environment
    environment.close()


@pytest.fixture(autouse=True)
def program_output(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_program_output(monkeypatch)


def test_families() -> None:
    check_kind(KIND)
    assert len(KIND.games) >= 12 and len(KIND.unseen_games) >= 2
    assert different_tasks(Bash.families, 600) >= 590


@pytest.mark.parametrize("game", GAMES)
def test_the_expert_wins_by_what_it_has_read(machine: Bash, other: Bash, game: str) -> None:
    steps = won(machine, game, 7, "train", check_shell)
    if GAMES.index(game) % 4 == 0:
        task, again = replay(other, game, 7, "train", [call for call, _ in steps])
        assert told(task, again) == told(task, steps)


def test_determinism(machine: Bash) -> None:
    check_determinism("bash", "sort_into_folders", 5, environment=machine, count=8)


def test_looks_change_nothing(machine: Bash) -> None:
    assert check_looks_and_undo(machine, "replace_host", 1, depth=4)["looks"] >= 4


@pytest.mark.parametrize("game", ("find_phrase", "drop_copies"))
def test_choices_name_only_files_that_were_seen(machine: Bash, game: str) -> None:
    check_choices_are_known(machine, game, 4, lambda: [os.path.basename(path) for path in machine._tree])


MISTAKES = (  # family, what the right command has in it, what is typed instead
    ("rename_endings", "for f", lambda text: text.replace("mv", "mvv")),
    ("sort_into_folders", "mkdir", lambda text: text.replace("mkdir", "mkdr")),
    ("sort_into_folders", "mv ", lambda text: " ".join([*text.split()[:2], "."])),
    ("column_to_file", "sort -u", lambda text: text.replace("sort -u", "uniq")),
    ("join_parts", "cat ", lambda text: text.replace("> ", "> my_")),
    ("make_executable", "chmod", lambda text: "chmod 000 ./*"),
    ("new_project", "mkdir -p", lambda text: text.replace("-p ", "")),
    ("clean_up", "-delete", lambda text: text.replace(" -delete", " -delet")),
    ("split_table", "for r", lambda text: text.replace("; done", "")),
    ("rotate", "mv ", lambda text: text + "x"),
)


@pytest.mark.parametrize(("game", "right", "wrong"), MISTAKES)
def test_the_expert_mends_a_mistake(machine: Bash, game: str, right: str, wrong) -> None:
    assert after_mistake(machine, game, 12, right, lambda text: shell(wrong(text)), check_shell) is not None


def test_what_cannot_be_mended(machine: Bash) -> None:
    assert after_mistake(machine, "make_executable", 12, "chmod", lambda text: shell("chmod 000 .")) is None
    assert after_mistake(machine, "pack", 12, "tar -c", lambda text: shell("rm -r *")) is None


def test_what_was_moved_is_moved_back(machine: Bash) -> None:
    seed = next(seed for seed in range(20) if "Move" in machine.reset("fetch_file", seed, "train").goal)

    def lose(text: str) -> Call:
        return shell(f"mv {text.split()[1]} ./lost.txt")

    steps = after_mistake(machine, "fetch_file", seed, "mv ", lose, check_shell)
    assert steps is not None
    assert any(str(call.arguments.get("command", "")).startswith("mv lost.txt") for call, _ in steps)


def test_the_folder_decides_not_the_words(machine: Bash) -> None:
    task = machine.reset("rename_endings", 12, "train")
    wanted = machine._task.wanted
    old = [path for path, text in wanted.items() if text is None]
    new = [path for path, text in wanted.items() if text is not None]
    moves = "\n".join(f"mv {first} {second}" for first, second in zip(old, new, strict=True))
    assert not checked_step(machine, task.verbs, Call("submit"), None).success
    assert not checked_step(machine, task.verbs, Call("write_file", {"path": "go.sh", "text": moves}), None).error
    assert not checked_step(machine, task.verbs, shell("bash go.sh; rm go.sh"), None).error
    assert checked_step(machine, task.verbs, Call("submit"), None).success
    task = machine.reset("pack", 12, "train")
    path = next(iter(machine._task.wanted))
    checked_step(machine, task.verbs, shell(f"touch {path}"), None)  # the name is right, the archive is empty
    assert not checked_step(machine, task.verbs, Call("submit"), None).success


def test_refusals(machine: Bash) -> None:
    task = machine.reset("pack", 1, "train")
    calls = [
        *map(shell, ("ls nowhere", "not_a_program", "if", "\0", "echo \ud800")),
        Call("read_file", {"path": "nowhere"}), Call("run"),
        Call("read_file", {"path": "../../etc/passwd"}), Call("dance"),
        Call("write_file", {"path": "/etc/x", "text": ""}),
        Call("write_file", {"path": "a\0", "text": ""}),
    ]  # fmt: skip
    check_refusals(machine, task, calls)


def test_archives_are_read_by_what_is_in_them() -> None:
    assert members_of(archive({"a/b.txt": "hé\n"})) == {"a/b.txt": "hé\n"}
    assert members_of("no archive") is None


HOSTILE = (
    "rm -rf --no-preserve-root / 2>/dev/null", ":(){ :|:& };:", "while true; do :; done", "yes", "sleep 60 & sleep 60",
    "head -c 1G /dev/zero > big", "tail /dev/zero", "kill -9 1; kill -9 -1", "(setsid sleep 60 &)", "chmod 000 .",
    "exec 3<>/dev/tcp/127.0.0.1/22 && echo reached", "echo x > /etc/hostile && echo written", "cat /dev/sd* /dev/mem",
    "mkfifo p; cat p", "ln -s / root", "for i in $(seq 5000); do touch $i; done",
)  # fmt: skip


def test_hostile_commands_harm_nobody(machine: Bash) -> None:
    confined = Confined("shell", seconds=0.4)
    try:
        for command in HOSTILE:
            confined.ask("begin", {"a.txt": ["file", 0o644, "hello\n"]})
            answer = confined.ask("shell", command)
            assert not {"reached", "written"} & set(answer["output"].split()), command
            assert len(answer["output"]) < 100_000
        tree = confined.ask("begin", {"a.txt": ["file", 0o644, "hello\n"]})
        assert tree == {"a.txt": ["file", 0o644, "hello\n"]}
        answer = confined.ask("shell", "cat a.txt; ls /proc | grep -c '^[0-9]'")
        assert answer["output"].startswith("hello\n") and int(answer["output"].split()[1]) <= 5, "something is left"
    finally:
        confined.close()


def test_all_output_is_seen(machine: Bash) -> None:
    """Also what comes late, and what is printed while something in the background keeps the pipe open."""
    machine.reset("pack", 1, "train")
    for command, wanted in (
        ("for i in 1 2 3; do sleep 0.03; echo $i; done", "1\n2\n3"),
        ("sleep 30 & sleep 0.03; echo late", "late"),
        ("seq 300 | tail -n 1; echo wrong >&2", "300\nwrong"),
        ("(sleep 0.05; echo alone) | cat", "alone"),
    ):
        assert machine._do(shell(command)) == (wanted, False), command


def test_nothing_is_left_when_it_is_closed() -> None:
    try:
        environment = Bash()
    except UserError as error:
        pytest.skip(str(error))
    environment.reset("pack", 1, "train")
    assert environment._machine is not None
    number = environment._machine._process.pid
    environment.close()
    environment.close()
    assert not os.path.exists(f"/proc/{number}")
