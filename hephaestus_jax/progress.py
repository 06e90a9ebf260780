"""Progress of long steps: one line with count, rate and time left, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")


def duration(seconds: float) -> str:
    """Whole seconds as "41 s", "3 min 05 s" or "2 h 07 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Counts work done and prints at most one line every `every` seconds, and a last one when closed.

    On a terminal the line is rewritten in place; in a log file each line stands alone.
    """

    def __init__(
        self, label: str, unit: str, total: int | None = None, every: float = 2.0, stream: TextIO | None = None
    ) -> None:
        self.label, self.unit, self.total, self.every = label, unit, total, every
        self.stream = stream or sys.stderr
        self.count = 0
        self._started = self._printed = time.monotonic()

    def add(self, count: int = 1) -> None:
        """Records `count` more units of work."""
        self.count += count
        if time.monotonic() - self._printed >= self.every:
            self._print("\r" if self.stream.isatty() else "\n")

    def _print(self, end: str) -> None:
        self._printed = time.monotonic()
        elapsed = max(self._printed - self._started, 1e-9)
        rate = self.count / elapsed
        parts = [f"{self.count:,} {self.unit}", f"{rate:,.1f} {self.unit}/s"]
        if self.total:
            parts[0] = f"{self.count:,} of {self.total:,} {self.unit} ({100 * self.count / self.total:.0f} %)"
            parts.append(f"{duration((self.total - self.count) / rate)} left" if rate else "time left unknown")
        clear = "\x1b[K" if self.stream.isatty() else ""
        self.stream.write(f"{self.label}: {', '.join(parts)}{clear}{end}")
        self.stream.flush()

    def close(self) -> None:
        """Prints the closing line: what was done and how long it took."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        clear = "\x1b[K" if self.stream.isatty() else ""
        self.stream.write(
            f"{self.label}: {self.count:,} {self.unit} in {duration(elapsed)}"
            f" ({self.count / elapsed:,.1f} {self.unit}/s){clear}\n"
        )
        self.stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Yields `items`, counting each once it is done."""
        for item in items:
            yield item
            self.add()
