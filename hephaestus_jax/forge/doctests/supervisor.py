"""The process above a sandboxed worker. It ends only when nothing that the worker started is left.

The death of a process namespace is not instantaneous: after its process 1 has received SIGKILL, the kernel still has to
end and reap every other process in it. Only the parent of process 1 can wait for that, so it must outlive it. Where
there is no process namespace, the supervisor adopts what loses its parent, and ends that itself.

Standard library only, and Linux only.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from hephaestus_jax.forge.doctests.isolation import adopt_orphans, die_with_parent

_AWAITED = (signal.SIGTERM, signal.SIGCHLD)


def supervise() -> None:
    """Forks; the worker, process 1 of a new process namespace if one was entered, returns as the child.

    This process stays behind. When it receives SIGTERM or its own parent ends, it kills the worker; when the worker has
    ended, it ends what is left and exits as the worker did.
    """
    for number in _AWAITED:
        signal.signal(number, signal.SIG_DFL)  # an ignored SIGCHLD is never sent
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    adopt_orphans()
    die_with_parent(signal.SIGTERM)  # once more: entering a user namespace cancelled it
    worker = os.fork()
    if worker:
        os._exit(_watch(worker))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    die_with_parent()


def _watch(worker: int) -> int:
    """The exit status of `worker`, once it and everything below it are gone."""
    ended = 0
    while not ended:
        if signal.sigwait(_AWAITED) == signal.SIGTERM:
            os.kill(worker, signal.SIGKILL)
        ended, status = os.waitpid(worker, os.WNOHANG)  # of process 1: reported when its whole namespace is gone
    end_children()
    return os.waitstatus_to_exitcode(status) & 0xFF


def end_children(is_init: bool = False) -> None:
    """Kills every process below this one and returns when all of them are gone.

    Orphans must come to this process: because it asked for them (`adopt_orphans`), or because it is process 1 of a
    namespace of its own (`is_init`), and then all of them are killed at once.
    """
    with contextlib.suppress(ChildProcessError):  # there is none left
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for process in (-1,) if is_init else _children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                os.waitpid(-1, 0)


def _children() -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            _, _, fields = (folder / "stat").read_text(errors="replace").rpartition(")")
            if int(fields.split()[1]) == os.getpid():  # the parent follows the name and the state
                yield int(folder.name)
