"""Examples found in docstrings, and the prose that introduces them."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.forge.doctests.extract import extract_examples, free_names, intent_of, shows_something


def test_examples_keep_their_order_and_the_sentence_before_them() -> None:
    examples = extract_examples(
        inspect.cleandoc(
            """Adds things.

            Examples
            --------
            >>> 1 + 1
            2

            A remark. Lists are joined with :func:`join`::

            >>> [1] + [2]
            [1, 2]
            >>> boom()  # doctest: +SKIP
            >>> 1 / 0
            Traceback (most recent call last):
                ...
            ZeroDivisionError: division by zero
            >>> rng()  # may vary
            0.5
            """
        )
    )
    assert [example.source for example in examples][:2] == ["1 + 1\n", "[1] + [2]\n"]
    assert [example.intent for example in examples] == ["", "Lists are joined with `join`:", "", "", ""]
    assert [example.skipped for example in examples] == [False, False, True, False, False]
    assert examples[3].error == "ZeroDivisionError: division by zero\n"
    assert [example.checked for example in examples] == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("prose", "intent"),
    [
        ("Examples\n--------\n", ""),
        ("Example:\n\n", ""),
        ("Usage::\n", ""),
        ("First this. Then that is done:\n", "Then that is done:"),
        ("One paragraph.\n\nAnother\nin two lines.\n", "Another in two lines."),
        ("Text.\n\n.. doctest::\n", ""),
        ("***\n", ""),
        ("See e.g. numpy for `x`.", "See e.g. numpy for `x`."),
    ],
)
def test_intent(prose: str, intent: str) -> None:
    assert intent_of(prose) == intent


def test_the_end_of_a_fence_is_no_output() -> None:
    examples = extract_examples("Adds:\n\n    ```python\n    >>> 1 + 1\n    2\n    >>> x = 3\n    ```\n    More.\n")
    assert [(example.source, example.want) for example in examples] == [("1 + 1\n", "2\n"), ("x = 3\n", "")]


@pytest.mark.parametrize(
    ("example", "shows"),
    [
        (">>> x = build()", False),
        (">>> import a", False),
        (">>> def f(x):\n...     return x", False),
        (">>> x", True),
        (">>> for x in y:\n...     print(x)", True),
        (">>> x = warn()\ncareful", True),
        (">>> assert 1 > 2\nTraceback (most recent call last):\n    ...\nAssertionError", True),
    ],
)
def test_what_can_show_something(example: str, shows: bool) -> None:
    (found,) = extract_examples(example + "\n")
    assert shows_something(found) is shows


def test_malformed_docstrings_are_refused() -> None:
    with pytest.raises(ValueError, match="inconsistent leading whitespace"):
        extract_examples("    >>> f()\n  1\n")
    with pytest.raises(ValueError, match="at most"):
        extract_examples(">>> 1\n" * 100_000)
    assert extract_examples("no examples") == ()


@given(st.text(max_size=200))
def test_any_text_gives_examples_or_a_reason(text: str) -> None:
    try:
        examples = extract_examples(">>> 1\n" + text)
    except ValueError:
        return
    assert examples[0].source.startswith("1")


def test_free_names() -> None:
    sources = [
        "x = f(1)\n",
        "for i in x: print(i, y)\n",
        "g = lambda a: a + b\n",
        "[k for k in x]\n",
        "import m; m.n\n",
        "(",
    ]
    assert free_names(sources) == ("f", "y", "b")
