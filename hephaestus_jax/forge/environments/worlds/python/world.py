"""A Python interpreter whose session keeps its names: questions about data, and programs to be written or mended."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.confinement.process import Confined
from hephaestus_jax.forge.environments.environment import Call, Terms, Verb, environment
from hephaestus_jax.forge.environments.worlds.crafted.crafted import Crafted, Rehearsed, tidy
from hephaestus_jax.forge.environments.worlds.crafted.reasons import CHECKS, PYTHON, reasons_by
from hephaestus_jax.forge.environments.worlds.crafted.slips import misspelled, python_slips
from hephaestus_jax.forge.environments.worlds.python.programs import PROGRAMS
from hephaestus_jax.forge.environments.worlds.python.sums import SUMS
from hephaestus_jax.forge.environments.worlds.python.tasks import QUESTIONS, PythonTask, run

_UNSEEN = ("busy_room", "folder_sizes", "write_class")
_FAMILIES = {**QUESTIONS, **SUMS, **PROGRAMS}
_LOOKS = 4

_VERBS = (
    Verb(
        "run",
        (
            "Run Python code in the session and show what it prints and the value of its last line.",
            "Executes Python in a session that keeps its names; shows the output and the value of a last expression.",
        ),
        {"code": {"type": "string", "description": "The code."}},
        ("python", "execute_code"),
        (
            "A few lines of Python are the surest way.",
            "I let Python do this instead of doing it in my head.",
            "This piece of code is the next part of the work.",
            "I run this and look at what comes out.",
        ),
    ),
    Verb(
        "list_files",
        ("List the files in the working directory.", "Shows which files there are in the working directory."),
        {},
        ("ls", "show_files"),
        (
            "First I want to know which files there are.",
            "What is there to work with? I list the files.",
            "I check the file names before I open anything.",
        ),
    ),
    Verb(
        "read_file",
        ("Show the content of a text file.", "Reads a text file in the working directory."),
        {"path": {"type": "string", "description": "Name of the file."}},
        ("open_file", "view_file"),
        (
            "I want to see how {path} looks before I write code for it.",
            "What does {path} say? I read it.",
            "The content of the file decides how to go on.",
        ),
    ),
)


@environment(
    "python",
    Terms("", f"1 (Python {platform.python_version()})", "Apache-2.0"),
    sorted(_FAMILIES.keys() - set(_UNSEEN)),
    _UNSEEN,
)
class Python(Crafted):
    """A Python interpreter: data to be computed with and functions to be written or mended, checked by running them."""

    name = "python"
    verbs = _VERBS
    systems: ClassVar[tuple[str, ...]] = (
        "You work in a Python session through tools. Names that you define stay defined. Hand in with submit.",
        "A Python interpreter is at your service, with the standard library and a working"
        " directory. Every piece of code"
        " sees the names of the ones before it. End the task with submit.",
        "You solve tasks with Python. The session keeps its variables and functions; only the standard library is"
        " installed. Hand the task in when you are done.",
    )
    families = _FAMILIES
    _task: PythonTask

    def __init__(self) -> None:
        super().__init__()
        self._machine: Confined | None = Confined("python")
        self._tree: dict[str, list[Any]] = {}
        self._names: dict[str, str] = {}
        self._after: list[dict[str, str]] = []  # holdings after each step of the rehearsal
        self._wanted: list[str] = []  # values of the task's checks

    def _ask(self, operation: str, *arguments: Any) -> Any:
        if self._machine is None or not self._machine.alive:
            self._machine = Confined("python")
        return self._machine.ask(operation, *arguments)

    def _begin(self, fresh: bool) -> None:
        self._tree = self._ask("begin", {path: ["file", 0o644, text] for path, text in self._task.files.items()})
        self._names = {}

    def _holdings(self) -> dict[str, str]:
        return _holdings(self._names, self._tree)

    def _state(self) -> str:
        text = repr(sorted(self._holdings().items()))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _rehearse(self, calls: Sequence[Call]) -> list[Rehearsed]:
        cells = [str(call.arguments["code"]) for call in calls if call.tool == "run"]
        answer = self._ask("rehearse_python", cells, list(self._task.checks))
        self._wanted = answer["values"]
        failed = [value for value in self._wanted if value.startswith("!") and value != "!ValueError"]
        if failed:
            raise UserError(f"python: the expert's own code fails a check of its task: {failed[0]}; mend the family")
        answers = iter(answer["cells"])
        tree, names, made = self._tree, self._names, []
        self._after = []
        for call in calls:
            if call.tool == "run":
                done = next(answers)
                tree, names = done["tree"], done["names"]
                observation = _report(done)
            else:
                observation, _ = _look(call, tree)
            self._after.append(_holdings(names, tree))
            made.append(Rehearsed(tidy(observation), ""))
        return made

    def _do(self, call: Call) -> tuple[str, bool]:
        if call.tool != "run":
            return _look(call, self._tree)
        answer = self._ask("python", str(call.arguments["code"]))
        self._tree, self._names = answer["tree"], answer["names"]
        if answer["lost"]:
            return "Error: the code ran too long. The interpreter was started again, and all names are lost.", True
        return _report(answer), answer["error"]

    def _checks(self) -> tuple[int, int]:
        values = self._ask("evaluate", list(self._task.checks)) if self._task.checks else []
        return sum(value == wanted for value, wanted in zip(values, self._wanted, strict=True)), len(self._wanted)

    def _next_step(self, now: str) -> Call | None:
        if self._is_spoiled():
            return None
        done = [self._is_done(number) for number in range(len(self._after))]
        for number, step in enumerate(self._task.steps):
            if not done[number] and not (self._was_done(number) and all(done[number + 1 :]) and self._is_complete()):
                return step.call
        return Call("submit", {"answer": self._task.answer} if self._task.answer else {})

    def _is_complete(self) -> bool:
        if self._task.answer:
            return True
        passed, count = self._passed()
        return passed == count

    def _was_done(self, number: int) -> bool:
        return self._has_seen(self._task.steps[number].call, self._rehearsed[number].observation)

    def _is_done(self, number: int) -> bool:
        """Whether a step was made, and what it brought about is still there, or has become what it should later."""
        before = self._after[number - 1] if number else _holdings({}, self._first_tree())
        after, now = self._after[number], self._holdings()
        products = [name for name, value in after.items() if before.get(name) != value]
        kept = all(now.get(name) in {later.get(name) for later in self._after[number:]} for name in products)
        return kept and self._was_done(number)

    def _first_tree(self) -> dict[str, list[Any]]:
        return {path: ["file", 0o644, text] for path, text in self._task.files.items()}

    def _is_spoiled(self) -> bool:
        """Whether a file that was given is not what it was, nor what it is to become."""
        now = self._holdings()
        for path, value in _holdings({}, self._first_tree()).items():
            if now.get(path) not in {value, *(later.get(path) for later in self._after)}:
                return True
        return False

    def _mend(self, now: str, states: set[str]) -> Call | None:
        return None  # `_next_step` goes by what is there, so that nothing else is needed

    def _seen_files(self) -> list[str]:
        told = "\n".join(self._told)
        return [path for path in self._tree if re.search(rf"(?<![\w.-]){re.escape(path)}(?![\w-])", told)]

    def looks(self) -> Sequence[Call]:
        if self._done:
            return ()
        told = {str(heard.call.arguments.get("code", "")) for heard in self._heard if not heard.error}
        plain = [
            name
            for name, value in self._names.items()
            if value[:1] in "[{'0123456789" and any(name in code for code in told)
        ]
        looks = [Call("list_files"), *(Call("read_file", {"path": path}) for path in self._seen_files())]
        looks += [run(f"print({name})") for name in plain]
        return [look for look in looks if not self.has_looked(look)][:_LOOKS]

    def _slips(self, call: Call) -> list[Call]:
        files = self._seen_files()
        if call.tool == "run":
            return [run(slip) for slip in python_slips(str(call.arguments["code"]), files)]
        if call.tool == "read_file":
            path = str(call.arguments["path"])
            stem, _, ending = path.rpartition(".")
            return [
                Call("read_file", {"path": other}) for other in (f"{misspelled(stem)}.{ending}", stem, f"data/{path}")
            ]
        return (
            [run(f'print(open("{name}").read())') for name in ("data.txt", "input.csv")]
            if call.tool == "list_files"
            else []
        )

    def _why(self, call: Call) -> Sequence[str]:
        if call.tool == "read_file" and self._has_changed() and self._task.checks:
            return CHECKS
        return reasons_by(PYTHON, str(call.arguments.get("code", "")))

    def close(self) -> None:
        if self._machine is not None:
            self._machine.close()
            self._machine = None


def _holdings(names: Mapping[str, str], tree: Mapping[str, list[Any]]) -> dict[str, str]:
    files = {f"file {path}": repr(entry) for path, entry in tree.items() if "__pycache__" not in path}
    return {**{f"name {name}": value for name, value in names.items()}, **files}


def _report(answer: dict[str, Any]) -> str:
    return tidy(answer["output"]) or "[no output]"


def _look(call: Call, tree: Mapping[str, list[Any]]) -> tuple[str, bool]:
    if call.tool == "list_files":
        paths = [path for path, entry in tree.items() if entry[0] == "file" and "__pycache__" not in path]
        return "\n".join(paths) or "The working directory is empty.", False
    path = os.path.normpath(str(call.arguments["path"]))
    if tree.get(path, [""])[0] == "file":
        return tree[path][2], False
    return f"Error: there is no file {path}.", True
