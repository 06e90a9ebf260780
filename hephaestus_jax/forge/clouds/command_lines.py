"""Command lines as values: what a shell would hand to the program, option by option."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LONGEST_COMMAND = 20_000  # characters
_CONTINUED = re.compile(r"[ \t]*\\[ \t]*\n[ \t]*|[ \t]+[`^][ \t]*\n[ \t]*|[ \t]\\[ \t]+(?=-)")
_OPTION = re.compile(r"--[A-Za-z][\w.-]*|-[A-Za-z]")
BROKEN_QUOTES = re.compile(r"(?<![\\'\"])\"\s*[\[{]+\s*\"(?=[A-Za-z])")  # --value "[{"id": 1}]" loses the inner quotes
_SHELL = frozenset(["|", "||", "&&", ";", ">", ">>", "<", "2>&1", "&"])


@dataclass(frozen=True)
class CommandLine:
    """A parsed command: its words in order, and what followed each option as it is written ("--name", "-n").

    An option that is given twice has both values. `positional` are the words before the first option.
    """

    positional: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def split_commands(text: str) -> list[str]:
    """The commands of a block of shell text, lines that a backslash continues joined; quotes may span lines."""
    commands: list[str] = []
    pending = ""
    for line in _CONTINUED.sub(" ", text.strip()).split("\n"):
        pending = f"{pending}\n{line}" if pending else line
        if words(pending) is not None:
            commands.append(pending.strip())
            pending = ""
    if pending:
        commands.append(pending.strip())
    return [re.sub(r"^(\$|#|>|C:\\>)\s+", "", command) for command in commands if command]


def words(command: str) -> list[str] | None:
    """The words that a POSIX shell would make of a command; None if a quote is never closed."""
    if len(command) > LONGEST_COMMAND:
        return None
    try:
        return shlex.split(command)
    except ValueError:
        return None


def parsed(command: str, name: Sequence[str]) -> CommandLine | None:
    """A command whose first words are `name`; None if it is another, or more than one command, or no command line."""
    commands = split_commands(command)
    given = words(commands[0]) if len(commands) == 1 else None
    if BROKEN_QUOTES.search(command):
        return None
    if given is None or given[: len(name)] != list(name) or _SHELL & set(given) or re.search(r"\$\(|`", command):
        return None
    positional: list[str] = []
    options: dict[str, tuple[str, ...]] = {}
    current = ""
    for word in given[len(name) :]:
        option, equals, value = word.partition("=")
        if _OPTION.fullmatch(option) and (equals == "" or option.startswith("--")):
            current = option
            options[current] = options.get(current, ()) + ((value,) if equals else ())
        elif current:
            options[current] = (*options[current], word)
        else:
            positional.append(word)
    return CommandLine(tuple(positional), options)
