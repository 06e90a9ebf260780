"""The lines of a roff file as plain text: escapes, strings, conditions, arguments of macros. No macro is expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_LINES = 60_000  # of one page that are read
LONGEST_STRING = 500  # characters of a string that the page defines
LONGEST_LINE = 20_000  # characters of one line, strings expanded

_GLYPHS = {
    "aq": "'", "cq": "'", "oq": "'", "dq": '"', "lq": '"', "rq": '"', "Bq": '"', "bq": "'", "ga": "`", "aa": "'",
    "ha": "^", "ti": "~", "rs": "\\", "sl": "/", "bu": "•", "em": "—", "en": "–", "hy": "-", "mi": "-", "pl": "+",
    "mu": "×", "di": "/", "eq": "=", "<=": "≤", ">=": "≥", "!=": "≠", "->": "→", "<-": "←", "co": "©", "rg": "®",
    "tm": "™", "ba": "|", "or": "|", "br": "|", "ul": "_", "at": "@", "sh": "#", "Do": "$", "ct": "¢", "Eu": "€",
    "lB": "[", "rB": "]", "lC": "{", "rC": "}", "la": "<", "ra": ">", "de": "°", "+-": "±", "sc": "§", "ss": "ß",
    "14": "¼", "12": "½", "34": "¾", "S1": "¹", "S2": "²", "S3": "³", "*a": "α", "*b": "β", "*m": "μ", "mc": "µ",
    "*p": "π", "if": "∞", "pc": "·", "md": "·", "Fc": "»", "Fo": "«", "fo": "‹", "fc": "›", "Po": "£", "Ye": "¥",
    "lh": "☜", "OK": "✓", "CR": "↵", "sq": "□", "ci": "○", "dg": "†", "dd": "‡", "ps": "¶", "lf": "⌊", "rf": "⌋",
    "no": "¬", "AE": "Æ", "ae": "æ", "o/": "ø", "oa": "å", "'e": "é", "`e": "è", "'a": "á", "'o": "ó", ":a": "ä",
    ":o": "ö", ":u": "ü", ":O": "Ö", ":U": "Ü", ":A": "Ä", ",c": "ç", "~n": "ñ", "^e": "ê", "`a": "à", "'i": "í",
    "'u": "ú", "coproduct": "∐", "aqq": "'", "pp": "⊥", "tf": "∴", "~~": "≈", "ap": "∼", "==": "≡", "lk": "{",
}  # fmt: skip
_ESCAPE = re.compile(
    r"""\\(?:
      (?P<font>f(?:\[[^\]\n]*\]|\(..|.)|F(?:\[[^\]\n]*\]|\(..|.))
    | \((?P<two>..)
    | \[(?P<name>[^\]\n]*)\]
    | C'(?P<quoted>[^'\n]*)'
    | \*(?:\[(?P<string>[^\]\n]*)\]|\((?P<pair>..)|(?P<single>.))
    | s(?:\[[^\]\n]*\]|\([+-]?..|[+-]?\d{1,2}|'[^'\n]*')
    | [nmMgkV](?:\[[^\]\n]*\]|[+-]?\(..|[+-]?.)
    | [hvwlLDbSHNoRXYABxZ](?P<delim>['"]).*?(?P=delim)
    | (?P<sign>.)
    )""",
    re.VERBOSE,
)
_SIGNS = {
    "-": "-",
    "e": "\\",
    "\\": "\\",
    " ": " ",
    "~": " ",
    "0": " ",
    "'": "'",
    "`": "`",
    "t": "\t",
    ".": ".",
    "_": "_",
}
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)\\[\"#].*")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\ |\\.|[^\s\\])+)')
_BLOCK_MARK = re.compile(r"\\[{}]")
_IF = re.compile(r"[.'][ \t]*(if|ie|el|while)\b[ \t]*")
_QUOTED_CONDITION = re.compile(r"!?(['\"]).*?\1.*?\1")


@dataclass
class Roff:
    """The lines of a page with its strings; reading it never takes longer than in proportion to its length."""

    strings: dict[str, str] = field(default_factory=lambda: {"lq": '"', "rq": '"', "R": "®", "Tm": "™", "Aq": "'"})

    def lines(self, source: str) -> Iterator[str]:
        """The lines that a terminal would show, with macro definitions, comments and other branches left out."""
        skipping = ""  # what ends a definition or a part to be left out
        branches: list[bool] = []  # of open \\{ blocks: whether they are read
        taken = True  # of the last .ie
        lines = source.split("\n")[:MOST_LINES]
        number = 0
        while number < len(lines):
            line = _COMMENT.sub(r"\1", lines[number].rstrip("\r"))[:LONGEST_LINE]
            number += 1
            while (
                line.endswith("\\") and not line.endswith("\\\\") and number < len(lines) and len(line) < LONGEST_LINE
            ):
                line = line[:-1] + lines[number]
                number += 1
            if skipping:
                if line[:1] in (".", "'") and line[1:].strip() == skipping:
                    skipping = ""
                continue
            condition = _IF.match(line)
            if condition:
                holds, rest = _condition(condition[1], line[condition.end() :], taken)
                if condition[1] == "ie":
                    taken = holds
                opens = rest.count("\\{") - rest.count("\\}")
                rest = _BLOCK_MARK.sub("", rest).strip()
                if opens > 0:
                    branches += [holds] * min(opens, 100)
                if not holds or not all(branches):
                    continue
                line = rest
            else:
                closes = line.count("\\}")
                opened = line.count("\\{")
                if closes or opened:
                    shown = all(branches)
                    del branches[len(branches) - min(len(branches), max(0, closes - opened)) :]
                    line = _BLOCK_MARK.sub("", line)
                    if not shown or line.strip() in (".", "'", ""):
                        continue
                elif not all(branches):
                    continue
            name, _, rest = line[1:].lstrip().partition(" ") if line[:1] in (".", "'") else ("", "", "")
            if name in ("de", "de1", "am", "dei", "ig"):
                words = rest.split()
                skipping = words[1] if len(words) > 1 else "."
            elif name in ("ds", "ds1", "as"):
                self._define(rest, append=name == "as")
            elif line or not condition:
                yield line

    def _define(self, rest: str, append: bool) -> None:
        name, _, value = rest.strip().partition(" ")
        value = self.plain(value.strip().removeprefix('"'))
        before = self.strings.get(name, "") if append else ""
        self.strings[name] = (before + value)[:LONGEST_STRING]

    def plain(self, text: str) -> str:
        """The text without escapes; strings are put in once, and hold no more of them."""
        if "\\" not in text:
            return text
        return _ESCAPE.sub(self._replaced, text)[:LONGEST_LINE]

    def _replaced(self, found: re.Match[str]) -> str:
        groups = found.groupdict()
        named = groups["two"] or groups["name"] or groups["quoted"]
        if named:
            return _glyph(named)
        string = groups["string"] or groups["pair"] or groups["single"]
        if string:
            return self.strings.get(string, "")
        return _SIGNS.get(groups["sign"] or "", "")

    def arguments(self, rest: str) -> list[str]:
        """The arguments of a macro, as plain text."""
        return [self.plain(f[1].replace('""', '"') if f[2] is None else f[2]) for f in _ARGUMENT.finditer(rest)]


def _glyph(name: str) -> str:
    if name in _GLYPHS:
        return _GLYPHS[name]
    if re.fullmatch(r"u[0-9A-Fa-f]{4,6}(_[0-9A-Fa-f]{4,6})*", name):
        points = [int(part.lstrip("u"), 16) for part in name.split("_")]
        return "".join(chr(p) for p in points if p < 0x110000 and not 0xD800 <= p < 0xE000 and p >= 32)
    return name if len(name) == 1 else ""


def _condition(word: str, rest: str, taken: bool) -> tuple[bool, str]:
    """Whether a condition holds on a terminal, and what follows it. Of registers only `.g`, groff's own, is known."""
    if word == "el":
        return not taken, rest
    quoted = _QUOTED_CONDITION.match(rest)
    if quoted:
        return False, rest[quoted.end() :].strip()
    test, _, after = rest.partition(" ")
    mark = test.find("\\{")
    if mark > 0:
        test, after = test[:mark], rest[mark:]
    negated, bare = test.startswith("!"), test.lstrip("!")
    holds = bare in ("n", "o", "1", "\\n(.g", "\\n[.g]")
    if word == "while":
        holds = negated = False
    return holds != negated, after.strip()
