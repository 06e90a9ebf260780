"""A trace of some steps, for TensorBoard's profiler or Perfetto."""

from __future__ import annotations

from pathlib import Path

import jax


class StepProfiler:
    """Traces the steps of a range into a folder.

    Args:
        steps: the steps to trace, numbered as done; empty for none.
        folder: where the trace goes.
    """

    def __init__(self, steps: range, folder: Path) -> None:
        self._steps, self._folder = steps, folder
        self._tracing = False

    def before(self, step: int) -> None:
        """To be called before step number `step` is sent; begins with the first one of the range that the run does."""
        if step in self._steps and not self._tracing:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True

    def ends_with(self, step: int) -> bool:
        """Whether the trace is to be stopped once this step is over."""
        return self._tracing and step >= self._steps[-1]

    def stop(self) -> None:
        """Writes the trace, if one is under way."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
