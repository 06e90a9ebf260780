"""How decoded rows look in a terminal and as a page."""

import re
import unicodedata
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.reports.rows import (
    InspectedRow,
    InspectedSegment,
    InspectedToken,
    TerminalStyle,
    legend,
    segment_facts,
    terminal,
    visible,
)
from hephaestus_jax.reports.rows_html import html_page

DEMO = InspectedRow(
    7,
    (
        InspectedSegment(
            "ab" * 16,
            "numpy",
            "2.1.0",
            "BSD-3-Clause",
            (
                InspectedToken("<|bos|>", 0.0, True, 1),
                InspectedToken("URL: x\n\n", 0.0, False, 2),
                InspectedToken("Solve", 1.0, False, 3),
                InspectedToken(" it", 0.25, False, 4),
                InspectedToken(".\n", 1.0, False, 5),
                InspectedToken("<|eos|>", 1.0, True, 6),
            ),
            path="numpy/linalg.py:3",
        ),
        InspectedSegment("cd" * 16, "notes", "unknown", "", (InspectedToken("the\x1b[31m end", 1, False, 7),), part=2),
    ),
    10,
    "of cache docs train",
)
PLAIN = TerminalStyle(colour=False)


def shown(style, row=DEMO):
    return "".join(terminal([row], style))


def test_the_terminal_without_colour():
    assert shown(PLAIN) == (
        "row 7 of cache docs train · 2 segments · 7 of 10 positions used · 5 tokens carry loss\n"
        "\n━━ [1] · numpy 2.1.0 · licence BSD-3-Clause · numpy/linalg.py:3 · from its beginning · 6 tokens, 4 with loss"
        f" · record {'ab' * 16}\n"
        "{0:<|bos|>}{0:URL: x\n\n}Solve{0.25: it}.\n<|eos|>\n"
        "\n━━ [2] · notes · licence unknown · part 3 · 1 token, 1 with loss"
        f" · record {'cd' * 16}\n"
        "the␛[31m end\n"
        "\n(3 positions of padding)\n\n"
    )


def test_colours_tell_weights_and_segments_and_change_nothing_else():
    painted = shown(TerminalStyle())
    assert "\x1b[38;5;39mSolve\x1b[0m" in painted
    assert "\x1b[38;5;39;3m it\x1b[0m" in painted  # a weight between: italic
    assert "\x1b[38;5;244;7m<|bos|>\x1b[0m" in painted  # control tokens: reversed
    assert "\x1b[38;5;39;7m<|eos|>\x1b[0m" in painted
    assert "\x1b[38;5;244mURL: x\x1b[0m\n\n" in painted
    assert "\x1b[38;5;208mthe␛[31m end\x1b[0m" in painted  # another segment, another colour
    bare = re.sub(r"\x1b\[[0-9;]*m", "", painted)
    assert bare == re.sub(r"\{[0-9.]+:([^}]*)\}", r"\1", shown(PLAIN))
    assert "weight 0" in legend(TerminalStyle()) and "\x1b" not in legend(PLAIN)


def test_boundaries_and_hits():
    assert "{0:<|bos|>}|{0:URL: x\n\n}|Solve|{0.25: it}|.\n|<|eos|>\n" in shown(TerminalStyle(False, boundaries=True))
    assert "«Solve»{0.25:« it»}.\n" in shown(TerminalStyle(False, highlight="lve i"))
    assert "\x1b[38;5;39;1;4mSolve\x1b[0m" in shown(TerminalStyle(highlight="Solve"))
    assert DEMO.segments[0].matches("") == [False] * 6
    assert DEMO.segments[0].matches("it.") == [False, False, False, True, True, False]


def test_facts_leave_nothing_unsaid():
    nothing = InspectedSegment("", "", "unknown", "", ())
    assert segment_facts(nothing)[:2] == ["source unknown", "licence unknown"]


@given(st.text(st.characters(), max_size=20))
def test_no_text_steers_the_terminal(text):
    made = visible(text)
    for character in made:
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert not set(made) & set("\x1b\r\x07\x9b\u202e\u2066\u200f\u2028")
    assert visible(made) == made


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.open, self.titles = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "pre":
            self.texts.append("")
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "pre" in self.open:
            self.texts[-1] += data


def parsed(rows, **options):
    page = _Page()
    page.feed("".join(html_page(rows, **options)))
    page.close()
    assert page.open == []
    return page


def test_the_page_shows_the_text_and_where_it_comes_from():
    source = "".join(html_page([DEMO], "a title", "about it"))
    page = parsed([DEMO], title="a title")
    assert [text.replace("⏎", "") for text in page.texts] == [visible(s.text) for s in DEMO.segments]
    told = ["numpy 2.1.0", "licence BSD-3-Clause", "numpy/linalg.py:3", "ab" * 16, "part 3", "3 positions of padding"]
    assert [part for part in told if part not in source] == []
    tokens = [attributes for tag, attributes in page.tags if tag == "i" and "title" in attributes]
    assert tokens[3] == {"class": "w p", "style": "--share:0.25", "title": "id 4, weight 0.25"}
    assert tokens[0] == {"class": "c", "title": "id 1, weight 0"}
    assert tokens[5]["class"] == "w c"


def test_the_page_needs_nothing_else_and_lets_nothing_in():
    evil = "</pre><script>alert(1)</script><img src=http://x>' onload=\"x"
    segment = InspectedSegment(evil, evil, evil, evil, (InspectedToken(evil, 1.0, False, 1),), path=evil)
    page = parsed([InspectedRow(0, (segment,), 1, evil)], title=evil, about=evil, highlight="script")
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "div", "span", "code", "label", "input"),
        *("section", "header", "b", "i", "pre", "a"),
    }
    for _, attributes in page.tags:
        assert not {"src", "onload", "onerror", "srcset"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")
    assert page.texts == [evil]


def test_rows_of_one_number_from_different_caches_have_anchors_of_their_own():
    page = parsed([DEMO, DEMO], title="twice")
    targets = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(set(targets)) == 2 * len(DEMO.segments) and links == [f"#{target}" for target in targets]


def test_hits_are_marked_on_the_page():
    classes = [attributes.get("class", "") for tag, attributes in parsed([DEMO], title="t", highlight="Solve it").tags]
    assert [name for name in classes if "h" in name.split()] == ["w h", "w p h"]


tokens = st.builds(
    InspectedToken,
    st.text(st.characters(), max_size=6),
    st.sampled_from([0.0, 0.5, 1.0, 1.5]),
    st.booleans(),
    st.integers(0, 9),
)
segments = st.builds(InspectedSegment, st.text(), st.text(), st.text(), st.text(), st.lists(tokens).map(tuple))


@settings(max_examples=100, deadline=None)
@given(st.lists(segments, max_size=3), st.text(max_size=2))
def test_any_row_can_be_shown(made, query):
    row = InspectedRow(0, tuple(made), 64)
    for style in (TerminalStyle(highlight=query), TerminalStyle(False, True, query)):
        shown(style, row)
    page = parsed([row], title="t", highlight=query)
    assert [text.replace("⏎\n", "\n") for text in page.texts] == [visible(s.text) for s in made]
