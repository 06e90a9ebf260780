"""Runs the steps that are not done yet, one after the other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import duration
from hephaestus_jax.recipe.accounts import Accounts, Step
from hephaestus_jax.recipe.processes import Commands


def run_steps(steps: Sequence[Step], work: Path, settings: str, disk_gigabytes: float = 0.0) -> None:
    """Runs every one of `steps` that is not done, in this order.

    Args:
        steps: with names of their own.
        work: folder of the accounts, made if absent.
        settings: lines "NAME = VALUE", to name what changed.
        disk_gigabytes: free space to ask for when nothing was begun yet.

    Raises:
        UserError: see `run_recipe`.
        SystemExit: likewise.
    """
    with _locked(work) as lock:
        accounts = Accounts(work, steps)
        accounts.open(settings)
        if not accounts.begun:
            _check_room(work, disk_gigabytes)
        done, left = sum(map(accounts.is_done, steps)), duration(accounts.seconds_left())
        _say(
            f"{len(steps)} steps in {work}, {done} of them done; about {left} to go (an estimate, corrected on the way)"
        )
        with Commands() as commands:
            for number, step in enumerate(steps, 1):
                _do(step, f"step {number} of {len(steps)} · {step.title}", accounts, commands, lock)
        _say(f"\ndone: {len(steps)} steps in {work}, {duration(accounts.seconds_spent())} in all")


def _do(step: Step, where: str, accounts: Accounts, commands: Commands, lock: int) -> None:
    account = accounts.of(step)
    if account is not None and accounts.is_done(step):
        _say(f"{where} · done before, in {duration(account.seconds)}")
        return
    if account is not None and account.done and not step.made:
        gone = next(path for path in step.outputs if not path.exists())
        _say(f"{where} · {gone} is gone, so once more")
    command = ("python", *step.arguments, *step.late_arguments())
    shown = shlex.join(command)
    spent, left = duration(accounts.seconds_spent()), duration(accounts.seconds_left())
    _say(f"\n{where} · {spent} so far, about {left} left\n$ {shown}")
    accounts.begin(step, shown)
    start = time.monotonic()
    status = commands.run((sys.executable, *command[1:]), lock)
    complete = status == 0 and step.made
    accounts.end(step, complete, time.monotonic() - start)
    if commands.asked:
        _say(f"asked to end; {where} is {'done' if complete else 'stopped'}; the same command goes on from there")
        raise SystemExit(128 + commands.asked)
    if not complete:
        raise UserError(
            f"{where} {_outcome(status)}, then give the same command again, which goes on with this step; its own was:"
            f" {shown}"
        )


def _outcome(status: int) -> str:
    """What became of a command, and the mend."""
    if status == -signal.SIGKILL:
        return "was killed (SIGKILL): make sure that there is enough memory"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}: see that nothing ends it"
    if status > 0:
        return f"failed with status {status}: see above what it printed and mend that"
    return "ended before it was complete, as if it had been asked to: see that nothing ends it"


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[int]:
    """Holds the folder for this recipe alone; gives a descriptor for its commands to inherit.

    A command that outlives its recipe for a moment, while it saves, holds the folder by that: it is waited for.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        own, commands = open(work / "lock", "a+"), open(work / "steps.lock", "a")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"cannot use the folder {work}: {error.strerror}; give another one") from error
    with own, commands:
        if not _take(own):
            own.seek(0)
            who = own.read().strip() or "another process"
            raise UserError(f"{who} is running a recipe in {work}; wait for it, or give another folder")
        own.truncate(0)
        own.write(f"process {os.getpid()} on {platform.node()}")
        own.flush()
        if not _take(commands):
            _say(f"{work}: waiting for a step of an earlier start to end")
            while not _take(commands):
                time.sleep(0.2)
        yield commands.fileno()


def _take(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"cannot lock {lock.name}: {error.strerror}; give a folder on a file system that can"
        ) from error
    return True


def _check_room(work: Path, gigabytes: float) -> None:
    free = shutil.disk_usage(work).free / 1e9
    if free < gigabytes:
        raise UserError(
            f"the disk of {work} has {free:.1f} GB left, and about {gigabytes:.1f} GB are needed; make room, or give a"
            " folder on another disk"
        )


def _say(text: str) -> None:
    print(text, flush=True)
