"""YAML as JSON values: what words mean, what is refused, what bombs cost."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.forge.yaml_files import DEEPEST, load_yaml

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_what_yaml_writes_is_read_again(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    control = any(ord(c) < 32 or ord(c) in (127, 0x85, 0x2028, 0x2029) for c in json.dumps(value, ensure_ascii=False))
    if not control:
        assert load_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes", {"a": True}),
        ("a: 'yes'", {"a": "yes"}),
        ("a: 2020-01-02", {"a": "2020-01-02"}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: 0644", {"a": "0644"}),
        ("a: 0x1f", {"a": 31}),
        ("a: .inf", {"a": ".inf"}),
        ("a: 1e999", {"a": "1e999"}),
        ("200: a", {"200": "a"}),
        ("on: a", {"on": "a"}),
        ("null: ~", {"null": None}),
        ("a: !vault |\n  x", {"a": "x"}),
        ("a: !!binary aGk=", {"a": "aGk="}),
        ("b: &b {x: 1}\nc: {<<: *b, y: 2}", {"b": {"x": 1}, "c": {"y": 2, "x": 1}}),
        ("b: &b {x: 1}\nc: {x: 3, <<: [*b]}", {"b": {"x": 1}, "c": {"x": 3}}),
        ("a: [*x, 1]\n".replace("*x", "&x 2, *x"), {"a": [2, 2, 1]}),
        ("a: \x07b", {"a": "b"}),
        ("", None),
        ("# nothing", None),
    ],
)
def test_words(text: str, value: object) -> None:
    assert load_yaml(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system [true]",
        "!!python/name:os.system x",
        "&a [*a]",
        "a: *b",
        "a: 1\n---\nb: 2",
        "{",
        "? [1]\n: 2",
        "<<: 3",
        "[" * 100_000,
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        "- " * 50_000 + "x",
        "\n".join(" " * i + "a:" for i in range(DEEPEST + 2)),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError):
        load_yaml(text)


def test_a_bomb_of_aliases_is_refused_before_it_is_built() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(ValueError, match="aliases"):
        load_yaml("\n".join(levels))


def test_a_ladder_of_aliases_is_refused_for_its_depth() -> None:
    ladder = "a0: &a0 [1]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, DEEPEST + 50))
    with pytest.raises(ValueError, match="levels"):
        load_yaml(ladder)
