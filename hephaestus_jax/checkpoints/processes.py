"""Agreement between the processes of a run: what one of them found out, all of them act on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from hephaestus_jax.distributed import broadcast, is_main
from hephaestus_jax.errors import UserError

T = TypeVar("T")
_MESSAGE_BYTES = 1024


class Damaged(Exception):
    """What is stored is not what was saved; the message says which array or file, and how."""


_KINDS: tuple[type[Exception], ...] = (UserError, Damaged)


def together(action: Callable[[], T]) -> T:
    """The result of `action`, which every process runs; if it fails in one, it fails in all with the same message.

    Only `UserError` and `Damaged` are shared so. `action` itself must not wait for other processes.
    """
    try:
        result, failure = action(), b""
    except _KINDS as error:
        if jax.process_count() == 1:
            raise
        kind = next(number for number, kind in enumerate(_KINDS) if isinstance(error, kind))
        failure = f"{kind}{error}".encode()[:_MESSAGE_BYTES]
    if jax.process_count() == 1:
        return result
    messages = np.zeros(_MESSAGE_BYTES, np.uint8)
    messages[: len(failure)] = np.frombuffer(failure, np.uint8)
    for message in np.asarray(multihost_utils.process_allgather(messages)):
        text = message.tobytes().rstrip(b"\0").decode(errors="replace")
        if text:
            raise _KINDS[int(text[0])](text[1:])
    return result


def on_first(action: Callable[[], Any]) -> Any:
    """The JSON value that `action` returns on process 0, on all processes; its failure is theirs too."""
    return broadcast(together(lambda: action() if is_main() else None))
