"""Operations on plain values, strings, numbers, lists and dictionaries, as Python code does them; within bounds."""

from __future__ import annotations

import ast
import string
from collections.abc import Mapping
from typing import Any

LARGEST_VALUE = 200_000  # characters of a string, items of a list


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Any = _Unknown()


def is_plain(value: Any) -> bool:
    """Whether a value is a string, a number or None."""
    return value is None or isinstance(value, str | int | float)


def combined(left: Any, operator: ast.operator, right: Any) -> Any:
    """The sum of two plain values or lists, or a filled template; UNKNOWN of all else."""
    if isinstance(operator, ast.Add):
        for kind in (str, list, int):
            if isinstance(left, kind) and isinstance(right, kind):
                joined: Any = left + right  # type: ignore[operator]
                return UNKNOWN if isinstance(joined, str | list) and len(joined) > LARGEST_VALUE else joined
    if isinstance(operator, ast.Mod) and isinstance(left, str):
        return _formatted(left, right)
    return UNKNOWN


def _formatted(template: str, given: Any) -> Any:
    """`template % given`, for plain values and without widths, which could make it very long."""
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not all(is_plain(value) for value in values) or template.replace("%%", "").count("%s") != len(values):
        return UNKNOWN
    pieces = template.replace("%%", "\0").split("%s")
    if any("%" in piece for piece in pieces):
        return UNKNOWN
    joined = pieces[0] + "".join(str(value) + piece for value, piece in zip(values, pieces[1:], strict=True))
    return joined.replace("\0", "%")


def item_of(owner: Any, key: Any) -> Any:
    """`owner[key]`; UNKNOWN if there is none."""
    if isinstance(owner, dict) and isinstance(key, str | int):
        return owner.get(key, UNKNOWN)
    if isinstance(owner, str | list | tuple) and isinstance(key, int):
        return owner[key] if -len(owner) <= key < len(owner) else UNKNOWN
    return UNKNOWN


def method(owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a method of a plain value returns, of those that documentation is made with."""
    if isinstance(owner, str):
        if name == "join" and len(args) == 1 and isinstance(args[0], list | tuple):
            whole = all(isinstance(part, str) for part in args[0])
            return owner.join(args[0]) if whole and sum(map(len, args[0])) < LARGEST_VALUE else UNKNOWN
        if name == "format":
            return _filled(owner, args, kwargs)
        if name in ("strip", "lstrip", "rstrip", "lower", "upper", "capitalize", "title") and not args:
            return getattr(owner, name)()
        return UNKNOWN
    if name in ("keys", "values", "items") and isinstance(owner, dict) and not args:
        return [list(item) for item in owner.items()] if name == "items" else list(getattr(owner, name)())
    if name == "get" and isinstance(owner, dict) and args and isinstance(args[0], str):
        return owner.get(args[0], args[1] if len(args) > 1 else None)
    if isinstance(owner, list) and name in ("append", "extend") and len(args) == 1 and len(owner) < LARGEST_VALUE:
        owner.extend(args if name == "append" else args[0] if isinstance(args[0], list) else [])
        return None
    return UNKNOWN


def _filled(template: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """`template.format(...)` with plain values in plain fields."""
    made, number = [], 0
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template):
            made.append(literal)
            if name is None:
                continue
            if spec or conversion:
                return UNKNOWN
            if name == "":
                name, number = str(number), number + 1
            value = args[int(name)] if name.isdigit() else kwargs[name]
            if not is_plain(value):
                return UNKNOWN
            made.append(str(value))
    except (ValueError, LookupError):
        return UNKNOWN
    return "".join(made) if sum(map(len, made)) < LARGEST_VALUE else UNKNOWN
