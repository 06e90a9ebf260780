"""Between calls of tools and the one-line commands of text games, by patterns that are read in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.environments.environment import Call

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Pattern:
    """How a tool is said as a command: Pattern("put", "put {object} in {container}").

    Args:
        tool: the name of a verb; of several patterns of one tool the first that fits a call's arguments says it.
        template: the command, parameters in braces.
        also: other templates that are understood but never said; they have the same parameters.
        values: what a parameter may be, where that is a short list; a number is written as a number in calls.
        fixed: arguments that the template does not show: Pattern("wait", "wait", fixed={"turns": 10}).
        last: whether the last of several possible places separates two parameters ("pour tea in cup in pot").
    """

    tool: str
    template: str
    also: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed: Mapping[str, int | str] = field(default_factory=dict)
    last: bool = False

    def __post_init__(self) -> None:
        slots = set(self.slots)
        for template in self.also:
            if set(_SLOT.findall(template)) != slots:
                raise UserError(f"{template!r} and {self.template!r} have different parameters")
        if not set(self.values) <= slots or set(self.fixed) & slots:
            raise UserError(f"{self.template!r}: values are of its parameters, fixed arguments are others")

    @property
    def slots(self) -> list[str]:
        return _SLOT.findall(self.template)

    def regexes(self) -> list[re.Pattern[str]]:
        return [re.compile(self._regex(template)) for template in (self.template, *self.also)]

    def _regex(self, template: str) -> str:
        anything = ".+" if self.last else ".+?"
        parts = []
        for number, part in enumerate(_SLOT.split(template)):
            if number % 2 == 0:
                parts.append(re.escape(part))
            elif part in self.values:
                parts.append(f"(?P<{part}>{'|'.join(map(re.escape, self.values[part]))})")
            else:
                parts.append(f"(?P<{part}>{anything})")
        return "".join(parts)

    def says(self, call: Call) -> bool:
        """Whether the command of this pattern means the call."""
        if call.tool != self.tool or set(call.arguments) != {*self.slots, *self.fixed}:
            return False
        if any(call.arguments[name] != value for name, value in self.fixed.items()):
            return False
        return all(str(call.arguments[name]) in allowed for name, allowed in self.values.items())


class Commands:
    """The patterns of a game, in the order in which they are tried.

    Args:
        patterns: a command is read by the first that fits all of it, so special ones come before general ones
            ("open door to {direction}" before "open {container}").
        numbers: parameters whose values are integers in calls.
    """

    def __init__(self, patterns: Sequence[Pattern], numbers: Sequence[str] = ()) -> None:
        self._patterns = tuple(patterns)
        self._numbers = frozenset(numbers)
        self._regexes = [(pattern, regex) for pattern in self._patterns for regex in pattern.regexes()]

    def command(self, call: Call) -> str:
        """The command of a call; "" where no pattern says it."""
        pattern = next((pattern for pattern in self._patterns if pattern.says(call)), None)
        if pattern is None:
            return ""
        return _SLOT.sub(lambda slot: " ".join(str(call.arguments[slot[1]]).split()), pattern.template)

    def call(self, command: str) -> Call | None:
        """The call that a command means; None where no pattern reads it."""
        for pattern, regex in self._regexes:
            match = regex.fullmatch(command.strip())
            if match:
                given = {name: int(said) if name in self._numbers else said for name, said in match.groupdict().items()}
                return Call(pattern.tool, {**given, **pattern.fixed})
        return None

    def readings(self, command: str) -> list[Call]:
        """All calls that a command may mean, that of `call` first: "pour tea in cup in pot" is cut in two places."""
        found = [call for call in [self.call(command)] if call is not None]
        for pattern in self._patterns:
            for template in (pattern.template, *pattern.also):
                start, *between = _SLOT.split(template)[::2]
                if len(pattern.slots) != 2 or pattern.values or between[1] or not command.startswith(start):
                    continue
                rest = command[len(start) :]
                for place in reversed([match.start() for match in re.finditer(re.escape(between[0]), rest)]):
                    parts = (rest[:place], rest[place + len(between[0]) :])
                    call = Call(pattern.tool, dict(zip(pattern.slots, parts, strict=True)))
                    if call not in found and all(parts):
                        found.append(call)
        return found

    def calls(self, commands: Sequence[str]) -> list[Call]:
        """The calls of those commands that a pattern reads, without doubles, sorted by the command that says them."""
        found = {call.key: call for call in map(self.call, commands) if call is not None}
        return sorted(found.values(), key=lambda call: (self.command(call), call.key))


def tidy(text: str, most: int = 4000) -> str:
    """An observation with single blanks, none before full stops and ends of lines, and no heaps of empty lines.

    What stands at the beginning of a line stays; a text of more than `most` characters is cut, with a note.
    """
    lines = []
    for line in text.expandtabs(2).split("\n"):
        words = " ".join(line.split())
        words = re.sub(r" (?=[.,](\s|$))", "", words)
        lines.append(line[: len(line) - len(line.lstrip())] + words if words else "")
    tidied = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return tidied if len(tidied) <= most else tidied[:most].rstrip() + "\n[… cut: the text was longer]"


def with_articles(text: str) -> str:
    """A text with "an" before vowels, where a program wrote "a" before every noun."""
    return re.sub(r"\b([Aa]) (?=[aeioAEIO]|umbrella|ultra)(?!one\b)", r"\1n ", text)


def mentions(text: str, name: str) -> bool:
    """Whether every word of a name occurs in a text, in lower case; what a player can refer to, they have read."""
    return set(re.findall(r"\w+", name.lower())) <= set(re.findall(r"\w+", text.lower()))
