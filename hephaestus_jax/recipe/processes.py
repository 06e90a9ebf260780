"""Commands run one after the other, none of which outlives the process that runs them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

# Reads a line for each command: its process group when it begins, an empty one when it has ended. The input closes when
# the recipe ends, whatever ended it; what is then still running is asked to end, and killed two minutes later.
_WATCHER = """
group=
while read -r line; do group=$line; done
[ -n "$group" ] || exit 0
kill -s TERM -- "-$group"
left=120
while kill -s 0 -- "-$group" && [ $left -gt 0 ]; do sleep 1; left=$((left - 1)); done
kill -s KILL -- "-$group"
"""


class Commands(contextlib.AbstractContextManager["Commands"]):
    """Runs commands; `asked` is the signal that asked this process to end, if one did.

    A command leads a process group of its own. SIGTERM, and SIGINT (Ctrl-C) alike, are passed on to it as SIGTERM,
    which a training run answers by saving; the second one kills it. To be used in the main thread.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Commands:
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHER],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait()

    def run(self, command: Sequence[str], keep_open: int) -> int:
        """The exit status of `command`, the negative of a signal's number if that ended it.

        Args:
            command: the program and its arguments; it shares our standard output and error.
            keep_open: a file descriptor that it inherits.
        """
        self._child = subprocess.Popen(
            command, env=_environment(), stdin=subprocess.DEVNULL, process_group=0, pass_fds=(keep_open,)
        )
        group = self._child.pid
        self._tell(str(group))
        if self.asked:  # between the last command and this one
            _signal_group(group, signal.SIGTERM)
        status = self._child.wait()
        self._child = None
        if self.asked or status < 0:  # its own processes may not have noticed
            _signal_group(group, signal.SIGKILL)
        self._tell("")
        return status

    def _tell(self, line: str) -> None:
        assert self._watcher.stdin is not None
        self._watcher.stdin.write(f"{line}\n".encode())
        self._watcher.stdin.flush()

    def _ask(self, number: int, _: FrameType | None) -> None:
        again, self.asked = self.asked is not None, signal.Signals(number)
        if self._child is not None:
            _signal_group(self._child.pid, signal.SIGKILL if again else signal.SIGTERM)


def _environment() -> dict[str, str]:
    """Ours; Python's tracker of semaphores does not complain about those that it removes after an interrupted tool."""
    filters = [os.environ.get("PYTHONWARNINGS", ""), "ignore:resource_tracker"]
    return {**os.environ, "PYTHONWARNINGS": ",".join(filter(None, filters))}


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
