"""Functions to be written or mended: what they do in words, their code, wrong code, and calls to check them with."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from hephaestus_jax.forge.environments.worlds.crafted.words import NOUNS, one_of


@dataclass(frozen=True)
class Spec:
    """A function to be written: what it does in words, its code, wrong code, and arguments to try."""

    name: str
    told: str
    code: str
    wrong: str
    shown: str  # a call for the expert to try
    hidden: tuple[str, ...]


def _mask(rng: random.Random) -> Spec:
    keep, sign, name = rng.randint(2, 5), rng.choice("*#x-"), one_of(rng, "mask", "hide", "cover")
    code = (
        f'def {name}(text):\n    if len(text) <= {keep}:\n        return text\n    return "{sign}"'
        f" * (len(text) - {keep}) + text[-{keep}:]"
    )
    wrong = f'def {name}(text):\n    return "{sign}" * len(text) + text[-{keep}:]'
    told = (
        f"takes a string and replaces all but its last {keep} characters by '{sign}'; a string of"
        f" {keep} characters or fewer is returned as it is"
    )
    return Spec(
        name,
        told,
        code,
        wrong,
        f'{name}("4921337")',
        (f'{name}("")', f'{name}("abcdefgh")', f'{name}("ab")', f'{name}("{"q" * keep}")'),
    )


def _price(rng: random.Random) -> Spec:
    limit, percent, name = (
        rng.randrange(50, 400, 10),
        rng.choice((5, 10, 15, 20)),
        one_of(rng, "final_price", "to_pay", "discounted"),
    )
    code = (
        f"def {name}(prices):\n    total = sum(prices)\n    if total >= {limit}:\n        total ="
        f" total * (100 - {percent}) / 100\n    return round(total, 2)"
    )
    told = (
        f"takes a list of prices and returns their sum rounded to 2 decimals, less {percent}"
        f" percent if the sum is {limit} or more"
    )
    return Spec(
        name,
        told,
        code,
        code.replace(">=", ">"),
        f"{name}([{limit}])",
        (f"{name}([])", f"{name}([{limit - 1}, 1])", f"{name}([{limit - 1}])", f"{name}([19.99, 5.5, {limit}])"),
    )


def _buzz(rng: random.Random) -> Spec:
    first, second = rng.sample((2, 3, 4, 5, 7), 2)
    one, two = rng.sample(NOUNS, 2)
    name = one_of(rng, "say", "call_out", "word_for")
    code = (
        f'def {name}(n):\n    words = ""\n    if n % {first} == 0:\n        words += "{one}"\n   '
        f' if n % {second} == 0:\n        words += "{two}"\n    return words or str(n)'
    )
    told = (
        f"takes a whole number and returns '{one}' if it can be divided by {first}, '{two}' if by"
        f" {second}, both one after the other ('{one}{two}') if by both, and else the number as a"
        f" string"
    )
    return Spec(
        name,
        told,
        code,
        code.replace(f"    if n % {second}", f"    elif n % {second}"),
        f"[{name}(n) for n in range(1, 11)]",
        (f"{name}({first * second})", f"{name}({first})", f"{name}({second})", f"{name}(11)"),
    )


def _chunks(rng: random.Random) -> Spec:
    name, size = one_of(rng, "chunks", "in_groups", "pages"), rng.randint(2, 5)
    code = f"def {name}(items, size={size}):\n    return [items[at:at + size] for at in range(0, len(items), size)]"
    told = (
        f"takes a list and an optional size (default {size}) and returns the list cut into pieces"
        f" of that size, the last of which may be shorter"
    )
    return Spec(
        name,
        told,
        code,
        code.replace("len(items), size", "len(items)"),
        f"{name}(list(range(7)))",
        (f"{name}([])", f"{name}(list(range(12)))", f"{name}(list(range(5)), 2)", f"{name}('abcdefg', 3)"),
    )


def _minutes(rng: random.Random) -> Spec:
    name, sign = one_of(rng, "minutes", "to_minutes", "duration"), rng.choice((":", ".", "h"))
    code = f'def {name}(text):\n    hours, rest = text.split("{sign}")\n    return int(hours) * 60 + int(rest)'
    told = f"takes a duration like '2{sign}05' (hours, '{sign}', minutes) and returns it in minutes as a whole number"
    return Spec(
        name,
        told,
        code,
        code.replace("int(hours)", "hours"),
        f'{name}("2{sign}05")',
        (f'{name}("0{sign}00")', f'{name}("10{sign}30")', f'{name}("1{sign}59")'),
    )


def _rank(rng: random.Random) -> Spec:
    name, count = one_of(rng, "top", "best", "leaders"), rng.randint(2, 4)
    code = (
        f"def {name}(scores):\n    ranked = sorted(scores, key=lambda name: (-scores[name],"
        f" name))\n    return ranked[:{count}]"
    )
    told = (
        f"takes a dictionary of names to scores and returns the list of the {count} names with the"
        f" highest scores, highest first, equal scores in alphabetical order"
    )
    data = ('{"b": 3, "a": 3, "c": 9, "d": 1, "e": 4}', "{}", '{"x": 1}', '{"q": 5, "p": 5, "o": 5, "n": 5, "m": 6}')
    return Spec(
        name,
        told,
        code,
        code.replace("(-scores[name], name)", "scores[name]"),
        f"{name}({data[0]})",
        tuple(f"{name}({item})" for item in data),
    )


def _collapse(rng: random.Random) -> Spec:
    name = one_of(rng, "runs", "compress", "shorten")
    first = rng.random() < 0.5
    part = "{count}{letter}" if first else "{letter}{count}"
    code = (
        f"from itertools import groupby\n\ndef {name}(text):\n    parts = []\n    for letter,"
        f" group in groupby(text):\n        count = len(list(group))\n       "
        f' parts.append(f"{part}")\n    return "".join(parts)'
    )
    told = (
        f"takes a string and returns its run-length form: each run of equal letters as"
        f" {'its length and the letter' if first else 'the letter and its length'}, so that 'aaab'"
        f" becomes '{'3a1b' if first else 'a3b1'}'"
    )
    return Spec(
        name,
        told,
        code,
        code.replace("groupby(text)", "groupby(sorted(text))"),
        f'{name}("aaab")',
        (f'{name}("")', f'{name}("abab")', f'{name}("zzzzzzzzzzzz")', f'{name}("mississippi")'),
    )


SPECS: tuple[Callable[[random.Random], Spec], ...] = (_mask, _price, _buzz, _chunks, _minutes, _rank, _collapse)
