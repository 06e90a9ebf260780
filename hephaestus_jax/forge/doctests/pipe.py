"""Messages to and from a child process, a line each."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time


class LinePipe:
    """The standard input and output of `process`, which is told and tells in lines; each end is used by one thread."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._buffer = b""

    def send(self, line: bytes) -> None:
        """Sends one line, given without its end. To a process that is gone nothing is sent: no answer will say so."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def receive(self, seconds: float) -> bytes | None:
        """The next line; None at the end of the stream, or when so many seconds have passed."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        poller = select.poll()  # select() refuses descriptors above 1023
        poller.register(descriptor, select.POLLIN)
        parts = [self._buffer]
        while b"\n" not in parts[-1]:
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(1000 * left):
                return None
            part = os.read(descriptor, 1 << 20)
            if not part:
                return None
            parts.append(part)
        line, _, self._buffer = b"".join(parts).partition(b"\n")
        return line
