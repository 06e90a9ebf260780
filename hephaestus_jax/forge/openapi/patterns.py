"""Which regular expressions of other people can be evaluated without the risk of never ending."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators

LONGEST_PATTERN = 500  # characters
MOST_REPEATS = 5  # repetitions of open length in one pattern
LONGEST_TEXT = 100  # characters of a text that a pattern with several repetitions is tried on
_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")
_COUNT = re.compile(r"[*+{]")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)


def is_safe_pattern(pattern: str) -> bool:
    """Whether Python compiles it, its repetitions are few, and none stands around another one or a choice."""
    return _repeats(pattern) <= MOST_REPEATS


@lru_cache(maxsize=1 << 14)
def _repeats(pattern: str) -> int:
    """The repetitions of open length; more than `MOST_REPEATS` where they stand inside each other."""
    never = MOST_REPEATS + 1
    if len(pattern) > LONGEST_PATTERN or not _compiles(pattern):
        return never
    text = _CLASS.sub("c", re.sub(r"\\.", "e", pattern, flags=re.DOTALL))
    risky = [False]  # of each open group, from the outside in
    repeats = 0
    for place, character in enumerate(text):
        if character == "(":
            risky.append(False)
        elif character == ")" and len(risky) > 1:
            if (inner := risky.pop()) and _COUNT.match(text, place + 1):
                return never
            risky[-1] |= inner
        elif character == "|":
            risky[-1] = True
        elif _REPEAT.match(text, place):
            risky[-1] = True
            repeats += 1
    return repeats


def _compiles(pattern: str) -> bool:
    try:
        with warnings.catch_warnings():  # about what other people's patterns may mean one day
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError, MemoryError, ValueError):
        return False
    return True


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str):
        if len(instance) > LONGEST_TEXT and _repeats(pattern) > 1:
            yield ValidationError("too long to be tried")
        elif not re.search(pattern, instance):
            yield ValidationError("does not match")


# JSON Schema, but a long text does not meet a pattern that might take for ever on it.
BoundedValidator = validators.extend(Draft202012Validator, {"pattern": _pattern})
