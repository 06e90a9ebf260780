"""Descriptions as plain Markdown: HTML turned into it, code left alone, sentences whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.forge.prose import clean, mended, shortened


@pytest.mark.parametrize(
    ("stated", "plain"),
    [
        ("<p>Describes the <code>id</code> of <i>x</i>.</p>", "Describes the `id` of x."),
        ("<p>One.</p><p>Two\n  lines.</p>", "One.\n\nTwo lines."),
        ("<ul> <li> <p>a</p> </li> <li> <p>b</p> </li></ul>", "- a\n- b"),
        ("<ol><li>a</li><li>b</li></ol>", "1. a\n2. b"),
        ("<pre>a\n  b</pre>", "```\na\n  b\n```"),
        ("one<br/>two<br>three", "one\ntwo\nthree"),
        ("<note><p>Careful.</p></note>", "Note: Careful."),
        ("> [!NOTE]\n> Careful.\n> Very.\n\nText", "Note: Careful.\nVery.\n\nText"),
        ("see [the docs](https://x.y/(a)) and ![pic](u)", "see the docs and"),
        ("# Title #\ntext", "**Title**\ntext"),
        ("Use `<div>` with <id> and a < b", "Use `<div>` with <id> and a < b"),
        ("a &amp; b &lt;c&gt; &copy=1 <b>d</b>", "a & b <c> &copy=1 d"),
        ("```\n<b>kept</b>  as is\n```", "```\n<b>kept</b>  as is\n```"),
        ("a\r\n\r\n\r\n\r\nb  c \u200b", "a\n\nb c"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("<script>alert(1)</script>text", "text"),
        ("a <!-- hidden --> b", "a b"),
        (r"One.\r\n\r\nTwo in C:\new.", "One.\n\nTwo in C:\\new."),
        ("", ""),
    ],
)
def test_clean(stated: str, plain: str) -> None:
    assert clean(stated) == plain


@given(st.text(alphabet="ab <>/`&;#[]()!\n*pcode-", max_size=80))
def test_clean_never_fails_and_its_result_can_be_written(text: str) -> None:
    assert clean(text) == clean(text).strip()
    assert "\n\n\n" not in clean(text).replace("`", "")
    clean(text).encode("utf-8")


@pytest.mark.parametrize("bomb", ["~~~x\n", "[a]", "`" * 3 + " ", "<" * 50, "# # ", "<p", "&#", "![", "  \n"])
def test_clean_ends_soon_on_repetition(bomb: str) -> None:
    assert len(clean("[" + bomb * 100_000)) <= 40_000


def test_shortened_ends_with_a_sentence() -> None:
    assert shortened("One two. Three four. Five six.", 22) == "One two. Three four."


@pytest.mark.parametrize(
    ("stated", "whole"),
    [
        ("It is rejected.Any other is kept.", "It is rejected. Any other is kept."),
        ("See Canada and the States.Valid values are A.", "See Canada and the States. Valid values are A."),
        (
            "See google.api.Service and protobuf.Timestamp for it",
            "See google.api.Service and protobuf.Timestamp for it",
        ),
        ("The original number.. And so on...", "The original number. And so on..."),
        ("The role. For a list of all roles, see here. Or none.", "The role. Or none."),
        ("See here: https://x.y/z", "See here: https://x.y/z"),
    ],
)
def test_mended(stated: str, whole: str) -> None:
    assert mended(stated) == whole


@pytest.mark.parametrize("bomb", ["a.A ", "a b ", "see here", "..", " here.", "x."])
def test_mended_ends_soon_on_repetition(bomb: str) -> None:
    assert len(mended(bomb * 10_000)) <= 90_000


def test_a_list_that_is_cut_says_so() -> None:
    assert (
        shortened("It is so. Its signature is:\n\n    f(x, y, z, and many more)", 40) == "It is so. Its signature is: …"
    )
    assert shortened("Values:\n* One. It is first.\n* Two. It is last.", 32) == "Values:\n* One. It is first. …"


def test_shortened_ends_with_a_word_where_no_sentence_ends() -> None:
    assert shortened("alpha beta gamma delta epsilon", 20) == "alpha beta gamma …"


@given(st.text(max_size=120), st.integers(10, 60))
def test_shortened_is_a_beginning_within_the_limit(text: str, limit: int) -> None:
    short = shortened(text, limit)
    assert len(short) <= limit + 2
    assert short == text or text.startswith(short.removesuffix(" …").rstrip())
