"""How long the stages of a build took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class StageTimes:
    """Wall time of the stages of one build, and the records that went through them; what was resumed counts as new."""

    seconds: dict[str, float] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time of what it goes around."""
        start = time.monotonic()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start

    def table(self) -> str:
        """Records, seconds and records/s of every stage."""
        lines = [f"{'stage':<14}{'records':>12}{'seconds':>10}{'records/s':>12}"]
        for stage, seconds in self.seconds.items():
            count = self.records.get(stage, 0)
            rate = f"{count / seconds:>12,.0f}" if count and seconds >= 0.1 else f"{'':>12}"
            told = f"{count:,}" if count else ""
            lines.append(f"{stage:<14}{told:>12}{seconds:>10,.1f}{rate}".rstrip())
        return "\n".join(lines)
