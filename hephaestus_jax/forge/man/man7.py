"""Pages in man(7), the macros of most manual pages, with those that DocBook, pod2man and help2man add."""

from __future__ import annotations

from hephaestus_jax.forge.man.blocks import Page
from hephaestus_jax.forge.man.page_reader import PageReader

_FONTS = frozenset(["B", "I", "SM", "SB", "R", "CW", "C"])
_JOINED = frozenset(["BR", "BI", "RB", "RI", "IB", "IR", "CR", "RC", "BC", "CB", "CI", "IC"])
_PARAGRAPHS = frozenset(["PP", "P", "LP", "Pp"])
_BREAKS = frozenset(["sp", "br", "Sp", "HP", "SP"])


def read_man(source: str) -> Page:
    """The blocks of a page in man(7)."""
    return _Reader().page(source)


class _Reader(PageReader):
    """Reads line after line."""

    def __init__(self) -> None:
        super().__init__()
        self.title_wanted = 0  # level of a section whose title is the next line
        self.table: list[str] | None = None  # lines of a table; the format comes first
        self.address = ""

    def read(self, line: str) -> None:
        """One line."""
        if self.table is not None:
            self._in_table(line)
        elif line[:1] in (".", "'"):
            name, _, rest = line[1:].strip().replace("\t", " ").partition(" ")
            self._macro(name, rest)
        elif not line.strip():
            if self.builder.code is not None:
                self.builder.text("")
            else:
                self.builder.paragraph()
        else:
            self._text(self.roff.plain(line))

    def _text(self, text: str) -> None:
        if self.title_wanted:
            self.builder.section(text, self.title_wanted)
            self.title_wanted = 0
        else:
            self.builder.text(text)

    def _macro(self, name: str, rest: str) -> None:
        builder = self.builder
        if name in _FONTS:
            if arguments := self.roff.arguments(rest):
                self._text(" ".join(arguments))
        elif name in _JOINED:
            if arguments := self.roff.arguments(rest):
                self._text("".join(arguments))
        elif name in ("SH", "SS"):
            title = " ".join(self.roff.arguments(rest))
            level = 1 if name == "SH" else 2
            if title.strip():
                builder.section(title, level)
            else:
                self.title_wanted = level
        elif name == "TP":
            builder.want_tag()
        elif name == "TQ":
            builder.want_tag(more=True)
        elif name == "IP":
            arguments = self.roff.arguments(rest)
            if arguments and arguments[0].strip():
                builder.item(arguments[0])
            else:
                builder.paragraph()
        elif name in _PARAGRAPHS:
            builder.end_code()
            builder.paragraph(leave=True)
        elif name in _BREAKS:
            if builder.code is not None:
                builder.text("")
            elif name != "br" or builder.in_synopsis:
                builder.paragraph()
        elif name == "RS":
            builder.indent()
        elif name == "RE":
            builder.dedent()
        elif name in ("nf", "EX", "Vb"):
            builder.begin_code()
        elif name in ("fi", "EE", "Ve"):
            builder.end_code()
        elif name == "TS":
            self.table = []
        elif name == "TH":
            self._head(self.roff.arguments(rest))
        else:
            self._rare(name, rest)

    def _rare(self, name: str, rest: str) -> None:
        arguments = self.roff.arguments(rest)
        if name in ("UR", "MT") and arguments:
            self.address = arguments[0]
        elif name in ("UE", "ME") and self.address:
            self.builder.text(f"<{self.address}>{arguments[0] if arguments else ''}")
            self.address = ""
        elif name == "SY" and arguments:
            self.builder.paragraph()
            self.builder.text(arguments[0])
        elif name == "OP" and arguments:
            self.builder.text(f"[{' '.join(arguments)}]")
        elif name == "YS":
            self.builder.paragraph()

    def _head(self, arguments: list[str]) -> None:
        page = self.builder.page
        if not page.title and arguments:
            page.title = arguments[0]
            page.number = arguments[1] if len(arguments) > 1 else ""
            page.source = arguments[3] if len(arguments) > 3 else ""

    def _in_table(self, line: str) -> None:
        """Rows of tbl: a format up to a line that ends in a dot, then cells between tabs."""
        assert self.table is not None
        if line.startswith(".TE"):
            rows, self.table = self.table, None
            self._rows(rows)
        elif len(self.table) < 2000:
            self.table.append(line)

    def _rows(self, rows: list[str]) -> None:
        begin = next((index + 1 for index, row in enumerate(rows) if row.rstrip().endswith(".")), 0)
        separator = "\t"
        if rows and "tab(" in rows[0]:
            separator = rows[0].partition("tab(")[2][:1] or separator
        made = []
        text = ""
        for row in rows[begin:]:
            if row.startswith((".", "'")) or not row.strip("_= "):
                continue
            text = f"{text} {row}".strip() if text else row
            if text.count("T{") > text.count("T}"):  # a cell of several lines
                continue
            cells = [self.roff.plain(cell).replace("T{", "").replace("T}", "") for cell in text.split(separator)]
            made.append(" | ".join(" ".join(cell.split()) for cell in cells))
            text = ""
        if made:
            self.builder.begin_code()
            for row in made:
                self.builder.text(row)
            self.builder.end_code()
