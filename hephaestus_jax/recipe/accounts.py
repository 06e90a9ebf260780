"""The account kept of every step, so that the same command goes on where it was.

WORK/steps/NAME.json holds the step's command, its digest, whether it is done, and the seconds spent on it in all
starts; WORK/recipe.gin the settings of the latest start.

A step that is done is skipped as long as what it made is there. Its digest covers its own arguments, the contents of
its gin files and the digests of the steps it needs; when that has changed since a step was begun, nothing is run. Other
versions of the installed packages or of this project do not count: a finished step stays what it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import digest

SETTINGS = "recipe.gin"


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: of its account, a file name.
        title: in the line above its output.
        arguments: of the Python interpreter; "-m", a module and so on.
        outputs: what exists once it is done.
        needs: names of earlier steps whose results it reads.
        files: further inputs whose contents belong to its settings.
        late_arguments: gives further arguments, which follow from what the steps it needs have made.
        seconds: expected.
        atomic: whether `outputs` appear whole or not at all, and the command refuses to make them twice.
        repeated: whether it is run every time, with whatever settings.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    outputs: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    late_arguments: Callable[[], tuple[str, ...]] = tuple
    seconds: float = 10.0
    atomic: bool = False
    repeated: bool = False

    @property
    def kind(self) -> str:
        """Steps of one kind are expected to be slower or faster than thought by the same factor."""
        return self.arguments[1]

    @property
    def made(self) -> bool:
        """Whether what it makes is there."""
        return all(path.exists() for path in self.outputs)


@dataclass(frozen=True)
class Account:
    """What is known of a step that was begun."""

    digest: str
    command: str
    done: bool
    seconds: float


class Accounts:
    """The accounts of all steps in the folder `work`.

    Raises:
        UserError: one of them is damaged.
    """

    def __init__(self, work: Path, steps: Sequence[Step]) -> None:
        self.work, self.steps = work, steps
        self._folder = work / "steps"
        self._digests: dict[str, str] = {}
        for step in steps:
            self._digests[step.name] = self._digest(step)
        self._accounts = {step.name: account for step in steps if (account := self._read(step)) is not None}

    @property
    def begun(self) -> bool:
        """Whether any step was."""
        return bool(self._accounts)

    def of(self, step: Step) -> Account | None:
        """The account of a step; None if it was never begun."""
        return self._accounts.get(step.name)

    def is_done(self, step: Step) -> bool:
        """Whether it can be skipped."""
        account = self.of(step)
        if account is None or step.repeated or not step.made:
            return False
        return account.done or step.atomic  # then it was ended after its work and before its account was closed

    def open(self, settings: str) -> None:
        """Takes note of the settings of this start, lines "NAME = VALUE".

        Raises:
            UserError: a step was begun with others; names those that changed.
        """
        path = self.work / SETTINGS
        for step in self.steps:
            account = self.of(step)
            if account is not None and account.digest != self._digests[step.name] and not step.repeated:
                changes = _changes(path.read_text("utf-8") if path.exists() else "", settings)
                raise UserError(
                    f"{self.work} was begun with other settings ({changes}), and step {step.title!r} with them: set"
                    f" them back, give another folder (--gin.WORK_DIR=...), or delete {self.work} to begin anew"
                )
        path.write_text(settings, "utf-8")

    def begin(self, step: Step, command: str) -> None:
        """Notes that a step was begun."""
        before = self.of(step)
        seconds = before.seconds if before is not None and not before.done else 0.0
        self._write(step, Account(self._digests[step.name], command, False, seconds))

    def end(self, step: Step, done: bool, seconds: float) -> None:
        """Notes how long it went on, and whether it is done."""
        begun = self._accounts[step.name]
        self._write(step, Account(begun.digest, begun.command, done, begun.seconds + seconds))

    def seconds_spent(self) -> float:
        """On all steps, in all starts."""
        return sum(account.seconds for account in self._accounts.values())

    def seconds_left(self) -> float:
        """For the steps that are not done: what is expected, times how much longer steps of that kind took than
        expected; where none is done yet, all steps."""
        spent: dict[str, float] = {}
        expected: dict[str, float] = {}
        for step in self.steps:
            account = self.of(step)
            if account is not None and account.done:
                for kind in (step.kind, ""):
                    spent[kind] = spent.get(kind, 0.0) + account.seconds
                    expected[kind] = expected.get(kind, 0.0) + step.seconds
        factors = {kind: spent[kind] / expected[kind] for kind in spent}
        to_do = [step for step in self.steps if not self.is_done(step)]
        return sum(step.seconds * factors.get(step.kind, factors.get("", 1.0)) for step in to_do)

    def _digest(self, step: Step) -> str:
        """Of all that makes the step's result what it is; where the work folder lies does not."""
        parts = [argument.replace(str(self.work), "WORK") for argument in step.arguments]
        parts += [file.read_text("utf-8") for file in step.files]
        return digest([*parts, *(self._digests[name] for name in step.needs)])

    def _read(self, step: Step) -> Account | None:
        path = self._folder / f"{step.name}.json"
        if not path.exists():
            return None
        try:
            account = Account(**json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged; delete it, and step {step.title!r} is done once more") from error
        return account

    def _write(self, step: Step, account: Account) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{step.name}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(vars(account), indent=1) + "\n", "utf-8")
        os.replace(partial, path)
        self._accounts[step.name] = account


def _changes(before: str, after: str) -> str:
    old, new = (dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line) for text in (before, after))
    changed = [f"{name} was {value}, now {new.get(name)}" for name, value in old.items() if value != new.get(name)]
    return "; ".join(changed) or "a gin file that they name was changed"
