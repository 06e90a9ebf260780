"""What generated tasks have in common: answers compared, slips, and reasons."""

from __future__ import annotations

import random
import re

import pytest

from hephaestus_jax.forge.environments.worlds.bash.world import Bash
from hephaestus_jax.forge.environments.worlds.crafted.crafted import Crafted, same_answer, tidy
from hephaestus_jax.forge.environments.worlds.crafted.reasons import (
    PYTHON,
    SHELL_CHANGES,
    SHELL_FIRST,
    SQL_CHANGES,
    SQL_FIRST,
    reasons_by,
)
from hephaestus_jax.forge.environments.worlds.crafted.slips import bash_slips, python_slips, sql_slips
from hephaestus_jax.forge.environments.worlds.python.world import Python
from hephaestus_jax.forge.environments.worlds.sqlite.world import Sqlite

SAME = (("12", "12.0"), (" 'Oslo'. ", "oslo"), ("a,b ,c", "a, b, c"), ("./notes/a.txt", "notes/a.txt"))
OTHER = (
    ("12", "13"), ("a, c, b", "a, b, c"), ("", "0"), ("5.674", "5.67"), ("nan", "1"), ("notes/a", "notes/a.txt"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted", "same"), [*((*pair, True) for pair in SAME), *((*pair, False) for pair in OTHER)]
)
def test_answers(given: str, wanted: str, same: bool) -> None:
    assert same_answer(given, wanted) == same


def test_long_observations_are_cut() -> None:
    text = tidy("a line \n" * 3000)
    assert len(text) < 4100 and text.endswith("more characters]") and "a line\na line" in text


def shell_slips(text: str) -> list[str]:
    return bash_slips(text, ["a/b.txt", "c.csv", "logs/d.log"])


def statement_slips(text: str) -> list[str]:
    return sql_slips(text, {table: ["id", "name", "city"] for table in re.findall(r"(?:FROM|INTO|UPDATE) (\w+)", text)})


def code_slips(text: str) -> list[str]:
    return python_slips(text, ["a.csv"])


@pytest.mark.parametrize(
    ("kind", "argument", "slips", "rules"),
    [
        (Bash, "command", shell_slips, (SHELL_CHANGES, SHELL_FIRST)),
        (Sqlite, "sql", statement_slips, (SQL_CHANGES, SQL_FIRST)),
        (Python, "code", code_slips, (PYTHON,)),
    ],
)
def test_slips_and_reasons_of_every_family(kind: type[Crafted], argument: str, slips, rules) -> None:
    """Slips are several, differ from what is right, and are the same each time; reasons are whole sentences."""
    steps = [step for game, family in sorted(kind.families.items()) for step in family(random.Random(game)).steps]
    texts = [str(step.call.arguments[argument]) for step in steps if argument in step.call.arguments]
    made = [slips(text) for text in texts]
    assert made == [slips(text) for text in texts]
    assert all(text not in found and len(set(found)) == len(found) for text, found in zip(texts, made, strict=True))
    assert sum(map(len, made)) > 2 * len(texts) > 50
    found = [[sentence for rule in rules for sentence in reasons_by(rule, text)] for text in texts]
    for sentence in (sentence for sentences in found for sentence in sentences):
        assert sentence[-1] in ".?" and "{" not in sentence and "  " not in sentence, sentence
    assert sum(map(bool, found)) > 0.8 * len(texts)
