"""A shell in a scratch folder: questions about files, and changes to be made to them."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from typing import Any, ClassVar

from hephaestus_jax.forge.confinement.process import Confined
from hephaestus_jax.forge.environments.environment import Call, Terms, Verb, environment
from hephaestus_jax.forge.environments.worlds.bash.changes import CHANGES
from hephaestus_jax.forge.environments.worlds.bash.files import BashTask, members_of, shell
from hephaestus_jax.forge.environments.worlds.bash.questions import QUESTIONS
from hephaestus_jax.forge.environments.worlds.bash.texts import TEXTS
from hephaestus_jax.forge.environments.worlds.crafted.crafted import Crafted, Rehearsed, tidy
from hephaestus_jax.forge.environments.worlds.crafted.reasons import CHECKS, SHELL_CHANGES, SHELL_FIRST, reasons_by
from hephaestus_jax.forge.environments.worlds.crafted.slips import bash_slips, misspelled

_UNSEEN = ("rotate", "drop_copies", "mend_script", "disk_hog")
_FAMILIES = {**QUESTIONS, **CHANGES, **TEXTS}
_LISTING = "find . | sort"
_REWRITTEN_CHARACTERS = 1500  # a file that is longer is not typed again
_LOOKS = 4

Tree = dict[str, list[Any]]  # path → [kind, mode, text]

_VERBS = (
    Verb(
        "run",
        (
            "Run a command in bash. Every command starts in a new shell in the working directory.",
            "Executes a bash command line in the working directory and shows what it prints; a new shell each time, so"
            " a cd does not last.",
        ),
        {"command": {"type": "string", "description": "The command line."}},
        ("bash", "execute_command"),
        (
            "A command line does this best.",
            "The shell can do this in one line.",
            "I run the command that this calls for.",
            "This command comes next; I will see from its output whether it worked.",
        ),
    ),
    Verb(
        "read_file",
        ("Read a text file.", "Shows the content of a text file, given its path."),
        {"path": {"type": "string", "description": "Path of the file, relative to the working directory."}},
        ("open_file", "view_file"),
        (
            "I want to see what is in {path}.",
            "Before I do anything with it I read {path}.",
            "The file should tell me what I need to know.",
        ),
    ),
    Verb(
        "write_file",
        ("Write a text file, replacing what it held.", "Creates or overwrites a text file with the given content."),
        {
            "path": {"type": "string", "description": "Path of the file, relative to the working directory."},
            "text": {"type": "string", "description": "The whole content of the file."},
        },
        ("create_file", "save_file"),
        (
            "I know what {path} must say, so I write it.",
            "I write the file as a whole.",
            "This is the content that the file should have.",
        ),
    ),
)


@environment("bash", Terms("", "1", "Apache-2.0", programs=("bash",)), sorted(_FAMILIES.keys() - set(_UNSEEN)), _UNSEEN)
class Bash(Crafted):
    """A shell in a scratch folder: questions about files and changes to be made, checked by what the folder holds."""

    name = "bash"
    verbs = _VERBS
    systems: ClassVar[tuple[str, ...]] = (
        "You work in a directory on a Linux machine through tools: a shell, and reading and writing files. Every"
        " command runs in a new shell that starts in the working directory. Hand in with submit.",
        "You are at a Linux machine. Commands run in bash, each in a fresh shell in the working directory; the usual"
        " tools (grep, sed, awk, find, sort, tar) are there. Hand the task in when it is done.",
        "A bash shell and two tools for files are at your service. Look before you change anything, check what you did,"
        " and end with submit.",
    )
    families = _FAMILIES
    _task: BashTask

    def __init__(self) -> None:
        super().__init__()
        self._machine: Confined | None = Confined("shell")
        self._tree: Tree = {}
        self._trees: dict[str, Tree] = {}  # by state

    def _ask(self, operation: str, *arguments: Any) -> Any:
        if self._machine is None or not self._machine.alive:
            self._machine = Confined("shell")
        return self._machine.ask(operation, *arguments)

    def _begin(self, fresh: bool) -> None:
        files: Tree = {}
        for path, text in self._task.files.items():
            mode = self._task.modes.get(path, 0o644)
            files[path.rstrip("/")] = ["folder", 0o755, ""] if path.endswith("/") else ["file", mode, text]
        self._tree = self._ask("begin", files)
        if fresh:
            self._trees.clear()
        self._trees[self._state()] = self._tree

    def _state(self) -> str:
        return _fingerprint(self._tree)

    def _rehearse(self, calls: Sequence[Call]) -> list[Rehearsed]:
        requests = [_request(call) for call in calls]
        answers = iter(self._ask("rehearse", [request for request in requests if request]))
        made, tree = [], self._tree
        for call, request in zip(calls, requests, strict=True):
            if request:
                answer = next(answers)
                tree = answer["tree"]
                observation, _ = _report(answer)
            else:
                observation, _ = _read(tree, str(call.arguments["path"]))
            made.append(Rehearsed(tidy(observation), _fingerprint(tree)))
            self._trees[made[-1].state] = tree
        return made

    def _do(self, call: Call) -> tuple[str, bool]:
        request = _request(call)
        if not request:
            return _read(self._tree, str(call.arguments["path"]))
        answer = self._ask(*request)
        self._tree = answer["tree"]
        return _report(answer)

    def _checks(self) -> tuple[int, int]:
        wanted = self._task.wanted
        passed = [_is_as_wanted(self._tree.get(path), value) for path, value in wanted.items()]
        if self._task.proof:
            tree = self._ask("rehearse", [["shell", self._task.proof]])[0]["tree"]
            passed += [_is_as_wanted(tree.get(path), value) for path, value in wanted.items()]
        first = self._trees[self._start]
        others = {path for path, entry in first.items() if path not in wanted and entry[0] == "file"}
        untouched = all(self._tree.get(path) == first[path] for path in others)
        return sum(passed) + untouched, len(passed) + 1

    def _mend(self, now: str, states: set[str]) -> Call | None:
        good = self._trees[self._last_good(states)]
        again = self._redo(states)
        if again is not None:
            return again
        for path, entry in good.items():  # a folder that is closed seems to be empty
            if entry[0] == "folder" and self._tree.get(path, entry)[1] != entry[1]:
                return self._mended(path, entry, self._tree[path])
        missing, surplus = sorted(good.keys() - self._tree.keys()), sorted(self._tree.keys() - good.keys())
        if missing or surplus:
            if not self.has_looked(shell(_LISTING)):
                return shell(_LISTING)
            command = self._restored(good, missing, surplus)
            return self._known(command) if isinstance(command, str) else command
        for path, entry in good.items():
            if self._tree[path] != entry:
                return self._mended(path, entry, self._tree[path])
        return None

    def _known(self, command: str) -> Call | None:
        """A command, if a player has read of every path in it."""
        paths = [word for word in shlex.split(command) if "/" in word or "." in word]
        return shell(command) if all(self._has_read_path(path.strip("/")) for path in paths) else None

    def _has_read_path(self, path: str) -> bool:
        return self.has_read(path) or self.has_read(*path.split("/"))

    def _restored(self, good: Tree, missing: list[str], surplus: list[str]) -> str | Call | None:
        """A command that brings back what is missing, or removes what is there too much; None if that is not all."""
        if not all(self._is_restorable(good, path, surplus) for path in missing):
            return None
        back = self._moved_back(good, missing, surplus)
        if back:
            return back
        if surplus:
            tops = [path for path in surplus if os.path.dirname(path) not in surplus]
            folders = any(self._tree[path][0] == "folder" for path in tops)
            return f"rm {'-r ' if folders else ''}{' '.join(map(shlex.quote, tops))}"
        path = missing[0]
        if good[path][0] == "folder":
            return f"mkdir -p {shlex.quote(path)}"
        copy = next((other for other, entry in self._tree.items() if entry == good[path] and entry[2]), None)
        if copy is not None:
            return f"cp {shlex.quote(copy)} {shlex.quote(path)}"
        return self._retyped(path, good[path][2])

    def _moved_back(self, good: Tree, missing: list[str], surplus: list[str]) -> str:
        """A command that moves back what went elsewhere: all that went from one folder to another, under its name."""
        found: list[tuple[str, str]] = []
        for path in missing:
            twin = next((other for other in surplus if _same(self._tree, other, good, path)), None)
            if twin is not None and not any(path.startswith(f"{moved}/") for _, moved in found):
                found.append((twin, path))
        if not found:
            return ""
        source, target = found[0]
        folder = os.path.dirname(target)
        make = f"mkdir -p {shlex.quote(folder)} && " if folder and folder not in self._tree else ""
        places = (os.path.dirname(source), folder)
        along = [
            twin for twin, path in found
            if (os.path.dirname(twin), os.path.dirname(path)) == places
            and os.path.basename(twin) == os.path.basename(path)
        ]  # fmt: skip
        if len(along) > 1:
            return f"{make}mv {' '.join(map(shlex.quote, along))} {shlex.quote(folder or '.')}/"
        return f"{make}mv {shlex.quote(source)} {shlex.quote(target)}"

    def _is_restorable(self, good: Tree, path: str, surplus: list[str]) -> bool:
        kind, _, text = good[path]
        above = any(_same(self._tree, other, good, folder) for folder in _folders_of(path) for other in surplus)
        return (
            kind == "folder" or above or self._retyped(path, text) is not None
            or any(entry == good[path] and bool(text) for entry in self._tree.values())
        )  # fmt: skip

    def _mended(self, path: str, entry: list[Any], found: list[Any]) -> Call | None:
        """A call that gives a file its mode or its text back."""
        if entry[0] != found[0] or entry[0] not in ("file", "folder"):
            return None
        if entry[2] == found[2]:
            look = shell(f"ls -l {shlex.quote(os.path.dirname(path) or '.')}")
            return shell(f"chmod {entry[1]:o} {shlex.quote(path)}") if self.has_looked(look) else look
        look = Call("read_file", {"path": path})
        if not self.has_looked(look):
            return look
        return self._retyped(path, entry[2])

    def _retyped(self, path: str, text: str) -> Call | None:
        """Writes a file again, if a player has seen all of it."""
        shown = tidy(text)
        known = shown and len(text) <= _REWRITTEN_CHARACTERS and any(shown in told for told in self._told)
        return Call("write_file", {"path": path, "text": text}) if known and self.has_read(path) else None

    def _seen_paths(self) -> list[str]:
        """Files whose path, or name, was seen."""
        told = "\n".join(self._told)
        return [
            path for path, entry in self._tree.items()
            if entry[0] == "file" and re.search(rf"(?<![\w.-]){re.escape(os.path.basename(path))}(?![\w-])", told)
        ]  # fmt: skip

    def looks(self) -> Sequence[Call]:
        if self._done:
            return ()
        texts = [path for path in self._seen_paths() if not path.endswith(".gz")]
        looks = [shell("ls -l"), shell("find . -type f | sort"), *(Call("read_file", {"path": path}) for path in texts)]
        return [look for look in looks if not self.has_looked(look)][:_LOOKS]

    def _slips(self, call: Call) -> list[Call]:
        seen = self._seen_paths()
        if call.tool == "run":
            return [shell(slip) for slip in bash_slips(str(call.arguments["command"]), seen)]
        path = str(call.arguments.get("path", ""))
        stem, dot, ending = path.rpartition(".")
        wrong = [misspelled(stem or ending) + dot + (ending if stem else ""), os.path.basename(path), f"{path}.txt"]
        wrong += [other for other in seen if other != path][:2]
        return [
            Call(call.tool, {**call.arguments, "path": other}) for other in wrong
            if path and other != path and (call.tool == "read_file" or other not in self._tree)
        ]  # fmt: skip

    def _why(self, call: Call) -> Sequence[str]:
        command = str(call.arguments.get("command", ""))
        if not command:
            return ()
        changes = reasons_by(SHELL_CHANGES, command)
        if changes and not (command.startswith("bash ") and not self._has_changed()):
            return changes
        if self._has_changed() and self._task.wanted:
            return CHECKS
        return reasons_by(SHELL_FIRST, command)

    def close(self) -> None:
        if self._machine is not None:
            self._machine.close()
            self._machine = None


def _request(call: Call) -> list[str]:
    """A call as the confined machine takes it; [] for one that needs no machine."""
    if call.tool == "run":
        return ["shell", str(call.arguments["command"])]
    return ["write", str(call.arguments["path"]), str(call.arguments["text"])] if call.tool == "write_file" else []


def _report(answer: dict[str, Any]) -> tuple[str, bool]:
    """What a player reads of what the machine did, and whether it is an error."""
    if "problem" in answer:
        return (f"Error: cannot write: {answer['problem']}.", True) if answer["problem"] else ("Written.", False)
    output, status = tidy(answer["output"]), answer["status"]
    if status is None:
        return f"{output}\n[ended: the command ran too long or printed too much]".lstrip("\n"), True
    if status:
        return f"{output}\n[exit status {status}]".lstrip("\n"), True
    return output or "[no output]", False


def _read(tree: Tree, path: str) -> tuple[str, bool]:
    kind, _, text = tree.get(os.path.normpath(path), ["", 0, ""])
    if kind == "file":
        return (text, False) if text.isprintable() or _is_text(text) else (f"Error: {path} is not a text file.", True)
    return f"Error: {path} is a folder." if kind == "folder" else f"Error: there is no file {path}.", True


def _folders_of(path: str) -> list[str]:
    """All folders that a path lies in."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _is_text(text: str) -> bool:
    return not re.search(r"[\x00-\x08\udc80-\udcff]", text)


def _fingerprint(tree: Tree) -> str:
    return hashlib.blake2b(repr(sorted(tree.items())).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _same(tree: Tree, path: str, good: Tree, other: str) -> bool:
    """Whether the file or folder `path` is what `other` was; of folders, with all that is in them."""
    if tree[path][0] != "folder":
        return other in good and tree[path] == good[other] and tree[path][2] != ""
    inside = {name[len(path) :]: entry for name, entry in tree.items() if name.startswith(f"{path}/")}
    return other in good and good[other][0] == "folder" and bool(inside) and inside == {
        name[len(other) :]: entry for name, entry in good.items() if name.startswith(f"{other}/")
    }  # fmt: skip


def _is_as_wanted(entry: list[Any] | None, value: Any) -> bool:
    if value is ...:
        return True
    if value is None or entry is None:
        return value is None and entry is None
    if isinstance(value, int):
        return bool(entry[1] == value)
    if isinstance(value, set):
        return sorted(entry[2].splitlines()) == sorted(value)
    return members_of(entry[2]) == value if isinstance(value, dict) else entry[2] == value
