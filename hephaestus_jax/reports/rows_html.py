"""Decoded rows as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from hephaestus_jax.reports.rows import InspectedRow, InspectedSegment, InspectedToken, segment_facts, visible

HUES = (212, 28, 150, 320, 60, 185, 0, 265)  # degrees, one per segment in turn

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1f23; --faint: #5d6470; --page: #f6f7f9; --card: #ffffff; --line: #d9dde3;
  --light: 88%; --tint: 70%; --strong: 40%; --control: #5b21b6; --control-page: #ede9fe; --hit: #b45309; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --faint: #9aa1ad; --page: #15171b; --card: #1d2025;
  --line: #353a43; --light: 27%; --tint: 40%; --strong: 66%; --control: #d6c7ff; --control-page: #3b2a66;
  --hit: #fbbf24; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem; overflow-wrap: anywhere; }
.about, .facts, .padding { color: var(--faint); }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: center; z-index: 1;
  margin: .75rem -1.5rem 0; padding: .55rem 1.5rem; background: var(--page); border-bottom: 1px solid var(--line); }
@media (min-width: 48rem) { .legend { position: sticky; top: 0; } }
.strip { display: flex; height: .6rem; border-radius: .3rem; overflow: hidden; margin-bottom: .9rem;
  background: var(--line); }
.strip a { background: hsl(var(--hue) 60% 52%); border-right: 1px solid var(--page); min-width: 2px; }
.segment { background: var(--card); border: 1px solid var(--line); border-left: .35rem solid hsl(var(--hue) 60% 52%);
  border-radius: .4rem; margin: 0 0 .9rem; overflow: hidden; }
.segment header { display: flex; flex-wrap: wrap; gap: .1rem .9rem; padding: .45rem .8rem; font-size: .87rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.segment header b { color: hsl(var(--hue) 70% var(--strong)); }
code, pre { font: 13px/1.6 ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: 0; padding: .7rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 4;
  color: var(--faint); }
.w { color: var(--ink); background: hsl(var(--hue) var(--tint) var(--light) / var(--share)); }
.c { color: var(--control); background: var(--control-page); border-radius: .25rem; padding: .1em .2em .15em;
  box-shadow: inset 0 0 0 1px currentColor; }
.c:not(.w) { opacity: .85; box-shadow: none; outline: 1px dashed currentColor; outline-offset: -1px; }
.p { text-decoration: underline dotted 2px; text-underline-offset: .25em; }
.h { outline: 2px solid var(--hit); border-radius: 2px; }
.n { opacity: .45; user-select: none; }
body:has(#bounds:checked) .segment i:not(.n) { box-shadow: inset 1px 0 0 var(--faint); }
body:has(#learned:checked) .segment i:not(.w) { opacity: .25; }
i { font-style: normal; }
label { cursor: pointer; user-select: none; }
"""


def html_page(rows: Iterable[InspectedRow], title: str, about: str = "", highlight: str = "") -> Iterator[str]:
    """The page as pieces of text to be written one after the other; `highlight` marks occurrences of a text."""
    yield "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
    yield f"<title>{escape(visible(title))}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    yield f"<h1>{escape(visible(title))}</h1>\n<div class='about'>{escape(visible(about))}</div>\n{_legend()}"
    for number, row in enumerate(rows):
        yield from _row(row, f"r{number}", highlight)
    yield "</body>\n</html>\n"


def _legend() -> str:
    samples = (
        ("weight 1", InspectedToken("text", 1.0, False, 0)),
        ("weight other than 0 and 1", InspectedToken("text", 0.35, False, 0)),
        ("weight 0", InspectedToken("text", 0.0, False, 0)),
        ("control token with loss", InspectedToken("<|end|>", 1.0, True, 0)),
        ("control token without", InspectedToken("<|begin|>", 0.0, True, 0)),
    )
    shown = "".join(
        f"<span style='--hue:{HUES[0]}'><code>{_token(token, False, tooltip=False)}</code> {escape(words)}</span>\n"
        for words, token in samples
    )
    toggles = "<label><input type='checkbox' id='bounds'> token boundaries</label>\n"
    toggles += "<label><input type='checkbox' id='learned'> fade what is not learned</label>\n"
    return f"<div class='legend'>\n{shown}{toggles}</div>\n"


def _row(row: InspectedRow, anchor: str, highlight: str) -> Iterator[str]:
    # anchors count the rows of the page: several caches may have a row of the same number
    yield f"<h2>{escape(visible(row.title))}</h2>\n<div class='strip' aria-hidden='true'>"
    for index, segment in enumerate(row.segments):
        share = 100 * len(segment.tokens) / max(1, row.length)
        name = escape(visible(segment.source), quote=True)
        yield f"<a href='#{anchor}s{index}' title='{name}' style='--hue:{_hue(index)};width:{share:.3f}%'></a>"
    yield "</div>\n"
    for index, segment in enumerate(row.segments):
        yield from _segment(f"{anchor}s{index}", index, segment, highlight)
    if padding := row.length - row.tokens:
        yield f"<div class='padding'>{padding:,} positions of padding</div>\n"


def _segment(anchor: str, index: int, segment: InspectedSegment, highlight: str) -> Iterator[str]:
    origin, *facts = (escape(visible(fact)) for fact in segment_facts(segment))
    yield f"<section class='segment' id='{anchor}' style='--hue:{_hue(index)}'>\n<header>"
    yield f"<b>{index + 1} · {origin}</b>" + "".join(f"<span class='facts'>{fact}</span>" for fact in facts)
    yield f"<span class='facts'>record <code>{escape(visible(segment.record_id))}</code></span></header>\n<pre>"
    for token, hit in zip(segment.tokens, segment.matches(highlight), strict=True):
        yield _token(token, hit)
    yield "</pre>\n</section>\n"


def _token(token: InspectedToken, hit: bool, tooltip: bool = True) -> str:
    traits = (("w", token.weight > 0), ("p", token.weight not in (0, 1)), ("c", token.control), ("h", hit))
    classes = [name for name, on in traits if on]
    share = f" style='--share:{min(1.0, token.weight):.3g}'" if token.weight > 0 else ""
    named = f" class='{' '.join(classes)}'" if classes else ""
    told = f" title='id {token.id}, weight {token.weight:.4g}'" if tooltip else ""
    text = escape(visible(token.text)).replace("\n", "<i class='n'>⏎</i>\n")
    return f"<i{named}{share}{told}>{text}</i>"


def _hue(index: int) -> int:
    return HUES[index % len(HUES)]
