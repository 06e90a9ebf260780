"""Keeps Orbax's own account of a failure off the terminal: what went wrong is raised as one line."""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings

_LIBRARY = f"{os.sep}orbax{os.sep}"


@functools.cache
def silence() -> None:
    """Drops what Orbax logs, and what comes of its leaving reads and writes behind when one of them fails.

    Orbax ends its event loop at the first failure. The others then fail too, unobserved by anyone ("exception was
    never retrieved", "coroutine ignored"), or find the loop closed when TensorStore reports them done.
    """
    logging.getLogger("absl").addFilter(lambda record: _LIBRARY not in record.pathname)
    logging.getLogger("asyncio").addFilter(_of_others)
    warnings.filterwarnings("ignore", r"coroutine '\w+(\.\w+)*' was never awaited", RuntimeWarning)
    show = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        trace, coroutine = unraisable.exc_traceback, getattr(unraisable.object, "cr_code", None)
        # asyncio was called straight from native code, where no one could have handled the error
        native = trace is not None and trace.tb_frame.f_code.co_name == "call_soon_threadsafe"
        left_behind = coroutine is not None and _LIBRARY in coroutine.co_filename
        if not (left_behind or (native and str(unraisable.exc_value) == "Event loop is closed")):
            show(unraisable)

    sys.unraisablehook = hook


def _of_others(record: logging.LogRecord) -> bool:
    text = logging.Formatter().format(record)  # with the traceback
    return not ("never retrieved" in text and ("orbax" in text or "tensorstore" in text))
