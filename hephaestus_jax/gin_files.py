"""The gin edge: one gin file and its overrides become one frozen dataclass.

gin-config stays out of the rest of the package: nothing else reads its global state. A gin file is found as it is
written, relative to the current directory, and else among the files that ship with the project, so that
`gin/corpora/installed.gin` works from any folder.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib.util  # noqa: F401  gin needs it loaded for `include`
import inspect
import io
import logging
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, Union

import gin
from hephaestus_jax.errors import UserError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Loaded(Generic[T]):
    """A dataclass as gin files bound it, and the text of its operative configuration (`operative_text`)."""

    value: T
    operative: str


OVERRIDE = "--gin."
_PACKAGE = Path(__file__).resolve().parent
# A checkout has its gin/ beside the package; an installed package has it inside, under a name of its own, because
# `import gin` must find gin-config.
SHIPPED = (_PACKAGE.parent / "gin", _PACKAGE / "shipped_gin")
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_NAME = re.compile(r"[A-Za-z_][\w./]*(\.[A-Za-z_]\w*)?$")


def find_gin_file(name: str | Path) -> Path:
    """The gin file called `name`.

    Raises:
        UserError: it is neither where it was said to be nor shipped with the project.
    """
    found = _locate(str(name))
    if found is None:
        shipped = sorted({f"gin/{file.relative_to(root)}" for root in SHIPPED for file in root.rglob("*.gin")})
        raise UserError(f"gin file {name} exists neither here nor in the project, which ships {', '.join(shipped)}")
    return found


def _locate(name: str) -> Path | None:
    path = Path(name)
    inside = Path(*path.parts[1:]) if path.parts[:1] == ("gin",) else path
    candidates = [path] if path.is_absolute() else [path, *(root / inside for root in SHIPPED)]
    return next((candidate.resolve() for candidate in candidates if candidate.is_file()), None)


def split_overrides(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Separates `--gin.NAME=value` arguments from the others: (overrides as "NAME=value", the rest)."""
    arguments = list(arguments)
    overrides = [argument[len(OVERRIDE) :] for argument in arguments if argument.startswith(OVERRIDE)]
    return overrides, [argument for argument in arguments if not argument.startswith(OVERRIDE)]


def load_gin(
    target: type[T] | Sequence[type[T]],
    gin_files: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    also: Sequence[Callable[..., Any]] = (),
) -> T:
    """The dataclass `target` as the gin files and then the overrides bind it.

    Args:
        target: a dataclass; gin knows it by its class name. Of several, the first of which the files bind a field.
        gin_files: one or several files, later ones override earlier ones.
        overrides: "NAME=value" for a macro or "Class.field=value". A value that is no Python literal, macro (`%X`) or
            reference (`@X`) is taken as a string, so that paths need no quotes.
        also: further dataclasses that the files may bind or refer to, and functions that give one.

    Raises:
        UserError: a file, name or value is wrong, a required macro was not given, or something is bound that nothing
            uses.
    """
    files = [gin_files] if isinstance(gin_files, str | Path) else list(gin_files)
    found = [find_gin_file(file) for file in files]
    shown = ", ".join(map(str, files))
    targets = (target,) if isinstance(target, type) else tuple(target)
    classes: tuple[Callable[..., Any], ...] = (*targets, *also)
    known = {cls.__name__: cls for cls in classes}
    gin.clear_config()
    _MADE.clear()
    try:
        lines = [_binding(override) for override in overrides]
        with gin.unlock_config():
            makers = {name: _configurable(cls) for name, cls in known.items()}
            _read_shipped()
            for file in found:
                gin.parse_config_file(str(file), print_includes_and_imports=False)
            _check_names(lines)
            gin.parse_config(lines)
            _check_required()
        bound = _bound()
        made = makers[next((cls.__name__ for cls in targets if cls.__name__ in bound), targets[-1].__name__)]()
        _check_used({name for name in bound & set(known) if isinstance(known[name], type)})
    except UserError as error:  # gin adds lines about where in its own terms
        raise UserError(f"{shown}: {str(error).splitlines()[0]}") from error
    except _EXPECTED as error:
        raise UserError(f"{shown}: {_explain(error, known)}") from error
    finally:
        gin.clear_config()
    return made


def load_gin_with_text(
    target: type[T] | Sequence[type[T]],
    gin_files: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    also: Sequence[Callable[..., Any]] = (),
) -> Loaded[T]:
    """`load_gin`, and the text of a gin file that binds the same dataclass completely, defaults included."""
    value = load_gin(target, gin_files, overrides, also)
    return Loaded(value, operative_text(value))


def operative_text(value: Any) -> str:
    """A gin file that binds the dataclass `value`, dataclasses within it and all: every field, defaults included.

    It depends on the values alone, so equal configurations give equal texts, and loading it gives an equal dataclass.

    Raises:
        ValueError: a value cannot be written in gin, or one class occurs twice with different values.
    """
    blocks: dict[str, list[str]] = {}

    def literal(value: Any) -> str:
        if not dataclasses.is_dataclass(value):
            text = repr(value)
            try:
                same = ast.literal_eval(text) == value
            except (ValueError, SyntaxError):  # nan, inf and whatever is no literal
                same = False
            if not same:
                raise ValueError(f"{text} cannot be written in gin")
            return text
        name = type(value).__name__
        lines = [f"{name}.{field.name} = {literal(getattr(value, field.name))}" for field in dataclasses.fields(value)]
        if blocks.setdefault(name, lines) != lines:
            raise ValueError(f"two different {name} in one configuration cannot be written in gin")
        return f"@{name}()"

    root = literal(value)[1:-2]
    order = [root, *sorted(set(blocks) - {root})]
    return "\n\n".join("\n".join(sorted(blocks[name])) for name in order) + "\n"


_EXPECTED = (
    ValueError, TypeError, SyntaxError, OSError, LookupError, ImportError, RuntimeError, OverflowError,
)  # fmt: skip


@functools.cache
def _read_shipped() -> None:
    """Lets `include 'gin/...'` find the shipped files. Called once: gin keeps its readers for good."""
    # gin asks a reader of its own first, which logs every file that it does not find as an error
    logging.getLogger().addFilter(lambda record: record.msg != "Path not found: %s")
    gin.config.register_file_reader(lambda name: io.StringIO(find_gin_file(name).read_text("utf-8")), lambda name: True)


_REGISTERED: dict[Callable[..., Any], Any] = {}
_MADE: set[str] = set()  # names of what the configuration at hand has used


def _configurable(cls: Callable[..., Any]) -> Any:
    """`cls` as a gin configurable; gin refuses to register a name twice, so each class is registered once."""
    if cls not in _REGISTERED:

        def make(**values: Any) -> Any:
            _MADE.add(cls.__name__)
            check_types(cls, values)  # before the class looks at the values itself
            return cls(**values)

        make.__signature__ = inspect.signature(cls)  # type: ignore[attr-defined]
        _REGISTERED[cls] = gin.external_configurable(make, cls.__name__, module=cls.__module__)
    return _REGISTERED[cls]


def _binding(override: str) -> str:
    """One override as a gin statement, bare strings quoted."""
    name, equals, value = override.partition("=")
    name = name.strip()
    if not equals or not _NAME.match(name):
        raise UserError(f"override {OVERRIDE}{override} is not understood; write {OVERRIDE}NAME=value")
    if not value.strip().startswith(("@", "%")):
        try:
            ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError):
            value = repr(value)
    return f"{name} = {value}"


def _check_names(lines: Sequence[str]) -> None:
    """gin takes any new name for a macro; here an override must name one that the files define or use."""
    defined, used = _macros()
    for name in (line.partition(" = ")[0] for line in lines):
        if "." not in name and name not in defined | used:
            near = difflib.get_close_matches(name, defined | used, n=1, cutoff=0.5) or sorted(defined | used)
            raise UserError(f"override {OVERRIDE}{name}: no such name in the gin file; did you mean {', '.join(near)}?")


def _check_required() -> None:
    """Reports everything that still has to be given, at once."""
    defined, used = _macros()
    missing = sorted(used - defined | set(re.findall(r"(?m)^([\w./]+) = %gin\.REQUIRED$", gin.config_str())))
    if missing:
        mend = " ".join(f"{OVERRIDE}{name}=..." for name in missing)
        raise UserError(f"{', '.join(missing)} must be given; add {mend}")


def _bound() -> set[str]:
    """What the parsed configuration binds a field of."""
    return set(re.findall(r"(?m)^(?:\w+[./])*?(\w+)\.\w+ = ", _STRING.sub("''", gin.config_str())))


def _check_used(bound: set[str]) -> None:
    """Reports a dataclass that was bound for nothing, such as a model's where that of the weights counts."""
    if idle := sorted(bound - _MADE):
        raise UserError(
            f"{', '.join(idle)} is bound, and nothing uses it here; leave it out, or refer to it (TrainConfig.model ="
            " @ModelConfig() for a model other than that of the weights to begin with)"
        )


def _macros() -> tuple[set[str], set[str]]:
    """The macros that the parsed configuration defines (`NAME = ...`) and those it uses (`%NAME`)."""
    config = _STRING.sub("''", gin.config_str())  # a path may hold a %20
    return set(re.findall(r"(?m)^(\w+) = ", config)), set(re.findall(r"%(\w+)(?![\w.])", config))


def _explain(error: Exception, known: Mapping[str, Callable[..., Any]]) -> str:
    """gin's error in one line, with the mend where we know it."""
    message = " ".join(str(error).split())
    if required := re.search(r"__init__\(\) missing \d+ required positional arguments?: (.*?) No values", message):
        return f"{required[1]} must be given; bind it in the file"
    if field := re.search(r"doesn't have a parameter named '(\w+)'", message):
        names = [name for cls in known.values() for name in inspect.signature(cls).parameters]
        near = difflib.get_close_matches(field[1], names, n=1) or names
        return f"no setting is called {field[1]}; did you mean {', '.join(near)}?"
    if unknown := re.search(r"No configurable matching (?:reference )?'([@\w./()]+)'", message):
        return f"nothing is called {unknown[1]}; known are {', '.join(known)}"
    return message


def check_types(cls: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Compares values with the annotations of the dataclass's fields that they are meant for.

    Raises:
        UserError: a value is not of its field's type.
    """
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        if name in hints and not _is(value, hints[name]):
            wanted = getattr(hints[name], "__name__", None) if isinstance(hints[name], type) else str(hints[name])
            raise UserError(f"{cls.__name__}.{name} is {value!r}; it must be of type {wanted}")


def _is(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_is(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_is(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_is, value, arguments))
    if origin is not None:
        return isinstance(value, origin)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)
