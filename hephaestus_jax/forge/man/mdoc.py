"""Pages in mdoc(7), the macros of BSD manual pages: what words mean is marked, and macros stand within lines."""

from __future__ import annotations

from hephaestus_jax.forge.man.blocks import Page
from hephaestus_jax.forge.man.page_reader import PageReader

_QUOTES = {
    "Op": ("[", "]"), "Oo": ("[", ""), "Oc": ("", "]"), "Aq": ("<", ">"), "Ao": ("<", ""), "Ac": ("", ">"),
    "Bq": ("[", "]"), "Bo": ("[", ""), "Bc": ("", "]"), "Pq": ("(", ")"), "Po": ("(", ""), "Pc": ("", ")"),
    "Dq": ('"', '"'), "Do": ('"', ""), "Dc": ("", '"'), "Sq": ("'", "'"), "So": ("'", ""), "Sc": ("", "'"),
    "Qq": ('"', '"'), "Qo": ('"', ""), "Qc": ("", '"'), "Ql": ("'", "'"), "Brq": ("{", "}"), "Bro": ("{", ""),
    "Brc": ("", "}"),
}  # fmt: skip
_PLAIN = frozenset(
    name
    for line in (
        "Ar Cm Ic Pa Ev Va Vt Fa Ft Sy Em Li No Tn Ux Bx At Dv Er Cd Ad An Ms",
        "Sx St Nx Fx Ox Dx Bsx Cl Lb Ta Ef Bf Nd",
    )
    for name in line.split()
)
_NAMES = {
    "Ux": "UNIX",
    "Bx": "BSD",
    "At": "AT&T UNIX",
    "Nx": "NetBSD",
    "Fx": "FreeBSD",
    "Ox": "OpenBSD",
    "Bsx": "BSD/OS",
}
_SILENT = frozenset(["Xo", "Xc", "Ns", "Ap", "Pf", "Fl", "Nm", "Xr", "Fn", "Lk", "Mt", "In", *_NAMES])
_CALLABLE = _PLAIN | _SILENT | frozenset(_QUOTES)
_CLOSING, _OPENING = frozenset(".,:;)]?!"), frozenset("([")


def read_mdoc(source: str) -> Page:
    """The blocks of a page in mdoc(7)."""
    return _Reader().page(source)


class _Reader(PageReader):
    """Reads line after line."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.returned, self.function = "", ""  # of the prototype that is read
        self.taken: list[str] = []
        self.lists: list[bool] = []  # whether the items of an open list have tags

    def read(self, line: str) -> None:
        """One line."""
        if not line.startswith("."):
            if line.strip():
                self.builder.text(self.roff.plain(line))
            elif self.builder.code is not None:
                self.builder.text("")
            else:
                self.builder.paragraph()
            return
        name, _, rest = line[1:].strip().replace("\t", " ").partition(" ")
        arguments = self.roff.arguments(rest)
        sections = self.builder.page.sections
        if sections and sections[-1].title.upper() == "SYNOPSIS" and self._prototype(name, arguments):
            return
        if not self._block(name, arguments):
            self.builder.text(self.inline([name, *arguments]) if name in _CALLABLE else "")

    def _prototype(self, name: str, arguments: list[str]) -> bool:
        """A line of a C function's prototype, which is shown as C has it; whether it is one."""
        if name == "In" and arguments:
            self.builder.text(f"#include <{arguments[0]}>")
        elif name == "Ft":
            self.returned = " ".join(arguments)
        elif name == "Fn" and arguments:
            self.builder.paragraph()
            self.builder.text(f"{self.returned} {arguments[0]}({', '.join(arguments[1:])});".strip())
        elif name == "Fo" and arguments:
            self.function, self.taken = arguments[0], []
        elif name == "Fa" and self.function:
            self.taken += arguments
        elif name == "Fc" and self.function:
            self.builder.paragraph()
            self.builder.text(f"{self.returned} {self.function}({', '.join(self.taken)});".strip())
            self.function = ""
        else:
            return False
        return True

    def _block(self, name: str, arguments: list[str]) -> bool:
        builder = self.builder
        if name in ("Sh", "Ss"):
            builder.section(self.inline(arguments), 1 if name == "Sh" else 2)
        elif name == "Dt" and arguments:
            builder.page.title = arguments[0]
            builder.page.number = arguments[1] if len(arguments) > 1 else ""
        elif name == "Os":
            builder.page.source = " ".join(arguments)
        elif name == "Nm" and not self.name and arguments:
            self.name = arguments[0]
            builder.text(self.inline(["Nm", *arguments]))
        elif name == "Nd":
            builder.text("- " + self.inline(arguments))
        elif name in ("Pp", "Lp"):
            builder.paragraph()
        elif name == "Bl":
            self.lists.append(not any(word in ("-bullet", "-dash", "-hyphen", "-enum", "-item") for word in arguments))
            builder.paragraph()
            if len(self.lists) > 1:
                builder.level += 1
        elif name == "El":
            builder.paragraph()
            if self.lists:
                self.lists.pop()
            if self.lists:
                builder.level = max(0, builder.level - 1)
            builder.paragraph(leave=True)
        elif name == "It":
            if not self.lists or self.lists[-1]:
                builder.item(self.inline(arguments) or "•")
            else:
                builder.item("•")
        elif name == "Bd":
            builder.begin_code()
        elif name == "Ed":
            builder.end_code()
        elif name in ("Dl", "D1"):
            builder.begin_code()
            builder.text(self.inline(arguments))
            builder.end_code()
        elif name == "Ex":
            builder.text(f"The {self.name or 'utility'} utility exits 0 on success, and above 0 if an error occurs.")
        else:
            return False
        return True

    def inline(self, words: list[str]) -> str:
        """The words of a line, macros among them, as text."""
        text, closing, glue = "", [], False
        words, after = list(words), ""
        while len(words) > 1 and words[-1] in _CLOSING:  # it stands behind what the line's macros close
            after = words.pop() + after
        index = 0
        while index < len(words):
            word = words[index]
            index += 1
            if word in _QUOTES:
                opened, closed = _QUOTES[word]
                if closed and not opened:
                    text, glue = text.rstrip() + closed, False
                    continue
                text, glue = _appended(text, opened, glue), True
                if closed and opened:
                    closing.append(closed)
            elif word == "Ns":
                glue = True
            elif word == "Ap":
                text, glue = text + "'", True
            elif word == "Pf" and index < len(words):
                text, glue = _appended(text, words[index], glue), True
                index += 1
            elif word == "Fl":
                flag = index < len(words) and words[index] not in _CALLABLE and words[index] not in _CLOSING
                text, glue = _appended(text, "-", glue), flag or (index < len(words) and words[index] == "Fl")
            elif word == "Nm":
                given = index < len(words) and words[index] not in _CALLABLE and words[index] not in _CLOSING
                if not given:
                    text, glue = _appended(text, self.name, glue), False
            elif word in ("Xr", "Fn") and index < len(words):
                what, index = words[index], index + 1
                text, glue = _appended(text, what + ("()" if word == "Fn" else ""), glue), False
                if word == "Xr" and index < len(words) and words[index][:1].isdigit():
                    text, index = f"{text}({words[index]})", index + 1
            elif word in _NAMES:
                text, glue = _appended(text, _NAMES[word], glue), False
            elif word in _CALLABLE:
                if word == "Ar" and (index >= len(words) or words[index] in _CALLABLE or words[index] in _CLOSING):
                    text, glue = _appended(text, "file ...", glue), False
            else:
                text, glue = _appended(text, word, glue or word in _CLOSING), word in _OPENING
        return text + "".join(reversed(closing)) + after


def _appended(text: str, word: str, glue: bool) -> str:
    return text + word if glue or not text else f"{text} {word}"
