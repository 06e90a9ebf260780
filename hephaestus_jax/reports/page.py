"""The parts that pages of a report are built of: the style sheet, tables, text made safe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from hephaestus_jax.reports.rows import visible

STYLE = """
:root { color-scheme: light dark; --ink: #1d1f23; --faint: #5d6470; --page: #f6f7f9; --card: #ffffff; --line: #d9dde3;
  --s0: #3a4252; --s1: #0b62c4; --s2: #b8470a; --s3: #187a3c; --s4: #8a2fa8; --s5: #7a6400;
  --better: #14703a; --worse: #b3261e; --mark: #fff1b8; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --faint: #9aa1ad; --page: #15171b;
  --card: #1d2025; --line: #353a43; --s0: #c3c9d4; --s1: #6cb1ff; --s2: #ff9d5c; --s3: #6bd08f; --s4: #d79bf0;
  --s5: #e0c54a; --better: #6bd08f; --worse: #ff8a80; --mark: #4d420f; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem 1.5rem 3rem; max-width: 78rem; background: var(--page); color: var(--ink);
  font: .94rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; padding-top: .2rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; }
p { margin: .4rem 0; max-width: 62rem; }
.about, figcaption, .note { color: var(--faint); }
.note { font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .8rem 0 0; font-size: .9rem; }
a { color: var(--s1); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem;
  margin: .8rem 0; }
.card h3 { margin-top: 0; }
ul { margin: .3rem 0 .6rem; padding-left: 1.2rem; }
li { margin: .2rem 0; }
.verdict { list-style: none; padding-left: 0; }
.verdict li { padding-left: 1.5rem; text-indent: -1.5rem; }
.sign { display: inline-block; width: 1.5rem; text-indent: 0; font-weight: 700; }
.better { color: var(--better); } .worse { color: var(--worse); } .none { color: var(--faint); }
td.better, td.worse { font-weight: 600; }
.scroll { overflow-x: auto; margin: .6rem 0; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody:last-child tr:last-child > * { border-bottom: 0; }
thead th { color: var(--faint); font-weight: 600; vertical-align: bottom; }
th { overflow-wrap: normal; }
th.n, td.n { text-align: right; overflow-wrap: normal; } td.n { white-space: nowrap; }
td:not(.n) { min-width: 6.5rem; } td.w { white-space: nowrap; }
tr.group th { background: color-mix(in srgb, var(--line) 35%, transparent); font-weight: 600; }
tr.group th span { color: var(--faint); font-weight: 400; }
mark { background: var(--mark); color: inherit; border-radius: .2rem; padding: 0 .1rem; }
.headline { font-size: 1.08rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: .8rem; }
.charts.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .7rem .3rem; }
figcaption { font-size: .9rem; font-weight: 600; color: var(--ink); }
svg { display: block; width: 100%; max-width: 34rem; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg .tick { fill: var(--faint); } svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
svg .group { font-weight: 600; }
svg .group, svg .name { paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
svg .grid { stroke: var(--line); fill: none; } svg .axis, svg .zero { stroke: var(--faint); fill: none; }
svg .zero { stroke-width: 1.3; stroke-dasharray: 4 3; }
svg .lead { stroke: var(--faint); stroke-width: .7; fill: none; }
svg .line { fill: none; stroke-width: 1.9; stroke-linejoin: round; }
svg .line.s0, svg .mark.s0 { stroke: var(--s0); } svg .line.s1, svg .mark.s1 { stroke: var(--s1); }
svg .line.s2, svg .mark.s2 { stroke: var(--s2); } svg .line.s3, svg .mark.s3 { stroke: var(--s3); }
svg .line.s4, svg .mark.s4 { stroke: var(--s4); } svg .line.s5, svg .mark.s5 { stroke: var(--s5); }
svg .s0:not(.line) { fill: var(--s0); } svg .s1:not(.line) { fill: var(--s1); } svg .s2:not(.line) { fill: var(--s2); }
svg .s3:not(.line) { fill: var(--s3); } svg .s4:not(.line) { fill: var(--s4); } svg .s5:not(.line) { fill: var(--s5); }
.bar { display: inline-block; width: 6rem; height: .6rem; margin-left: .6rem; background: var(--line);
  border-radius: .2rem; overflow: hidden; vertical-align: baseline; }
.bar i { display: block; height: 100%; background: var(--s1); }
code, pre { font: .82rem/1.5 ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: .3rem 0; padding: .5rem .7rem; white-space: pre-wrap; background: var(--page);
  border: 1px solid var(--line); border-radius: .35rem; tab-size: 4; max-height: 24rem; overflow: auto; }
details { margin: .5rem 0; } summary { cursor: pointer; font-weight: 600; }
.label { color: var(--faint); font-size: .87rem; margin-top: .5rem; }
@media (max-width: 40rem) { th:first-child:not([colspan]), td:first-child { position: sticky; left: 0;
  background: var(--card); }  body { padding: 1rem .8rem 2rem; } th, td { padding: .3rem .5rem; } }
@media print { :root { color-scheme: light; font-size: 10px; } body { max-width: none; padding: 0; background: none; }
  th, td { padding: .25rem .5rem; }
  nav { display: none; } .card, figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } pre { max-height: none; overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""

_SIGNS = {"better": "▲", "worse": "▼", "no difference shown": "=", "not compared": "?", "baseline": ""}
_CLASSES = {"better": "better", "worse": "worse"}


def text(value: object) -> str:
    """A value as HTML text: markup escaped, control characters made visible."""
    return escape(visible(str(value)), quote=True)


def prose(value: str) -> str:
    """A sentence as HTML text; a number stays on the line of its percent sign."""
    return text(value).replace(" %", "\u00a0%")


def sign(verdict: str) -> str:
    """The sign of a verdict, coloured; the words beside it say the same."""
    return f"<span class='sign {_CLASSES.get(verdict, 'none')}'>{_SIGNS[verdict]}</span>"


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{f' class={kind!r}' if kind else ''}>{prose(words)}</p>\n" if words else ""


def listed(items: Iterable[str]) -> str:
    """A list of plain texts; nothing for none."""
    lines = "".join(f"<li>{prose(item)}</li>\n" for item in items)
    return f"<ul>\n{lines}</ul>\n" if lines else ""


def table(head: Sequence[str], groups: Iterable[tuple[str, Sequence[Sequence[str]]]], left: set[int]) -> str:
    """A table of plain texts.

    Args:
        head: names of the columns, with their units.
        groups: (heading, rows); an empty heading is left out, and what stands after a line break in one is made faint.
        left: columns of words; all others hold numbers and are aligned to the right.
    """
    kinds = ["" if column in left else " class='n'" for column in range(len(head))]
    parts = ["<div class='scroll'><table>\n<thead><tr>"]
    parts += [f"<th scope='col'{kind}>{text(name)}</th>" for name, kind in zip(head, kinds, strict=True)]
    parts.append("</tr></thead>\n")
    for heading, rows in groups:
        parts.append("<tbody>\n")
        if heading:
            name, _, more = heading.partition("\n")
            faint = f" <span>{text(more)}</span>" if more else ""
            parts.append(f"<tr class='group'><th colspan='{len(head)}'>{text(name)}{faint}</th></tr>\n")
        for row in rows:
            cells = zip(row, kinds, strict=True)
            parts.append(f"<tr>{''.join(_cell(cell, kind) for cell, kind in cells)}</tr>\n")
        parts.append("</tbody>\n")
    return "".join([*parts, "</table></div>\n"])


def _cell(cell: str, kind: str) -> str:
    if cell in _SIGNS:
        words = f"{_SIGNS[cell]} {cell}".strip()
        return f"<td class='w {_CLASSES.get(cell, 'none')}'>{text(words)}</td>"
    words = text(cell)
    for place in "_/.":  # where a long name may break
        words = words if kind else words.replace(place, f"{place}<wbr>")
    return f"<td{kind}>{words}</td>"


def preformatted(value: object) -> str:
    """Text as it stands, line breaks and all."""
    return f"<pre>{text(value)}</pre>\n"


def section(anchor: str, heading: str, content: str) -> str:
    """A section under a heading that the page's contents link to."""
    return f"<section id='{anchor}'>\n<h2>{text(heading)}</h2>\n{content}</section>\n"
