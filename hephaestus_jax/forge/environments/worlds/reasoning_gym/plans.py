"""How the problems of each generator of reasoning-gym are solved with the tools of the desk.

One function for each generator, named after it. It works from the numbers and words that stand in the problem: it
calls tools, uses their results in further calls, and gives the answer that follows from them. Where finding the answer
takes a search that no tool makes (`countdown`, `puzzle24`), it only checks a solution that the package knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hephaestus_jax.forge.environments.worlds.reasoning_gym.tools import as_number
from hephaestus_jax.formats.records import Json

Entry = Mapping[str, Any]


class Unsolvable(Exception):
    """A problem that its plan does not solve; another one is drawn."""


class Desk:
    """Calls tools for a plan."""

    def __init__(self, use: Callable[[str, dict[str, Json]], str]) -> None:
        self.use = use

    def calculate(self, expression: str) -> str:
        """A value in digits."""
        return self.use("calculate", {"expression": expression})

    def sort(self, items: Sequence[str], by: str, order: str = "ascending") -> list[str]:
        """The items in order."""
        return self.use("sort_items", {"items": list(items), "order": order, "by": by}).split(", ")


def expression(entry: Entry, desk: Desk) -> str:
    return desk.calculate(entry["metadata"]["expression"])


def decimal_arithmetic(entry: Entry, desk: Desk) -> str:
    return desk.calculate(entry["question"].splitlines()[-1].removesuffix("= ?").strip())


def power_function(entry: Entry, desk: Desk) -> str:
    facts = entry["metadata"]
    power = desk.calculate(f"({facts['base']})**{_signed(facts['exponent'])}")
    return f"{as_number(power):.2e}"


def _signed(number: object) -> str:
    """A number that may stand after an operator: "(-3)" for -3."""
    return f"({number})" if str(number).startswith("-") else str(number)


def _divisor(numbers: Sequence[int], desk: Desk) -> int:
    """The greatest common divisor, by Euclid's algorithm."""
    current = numbers[0]
    for number in numbers[1:]:
        larger, smaller = max(current, number), min(current, number)
        while smaller:
            larger, smaller = smaller, int(desk.calculate(f"{larger} % {smaller}"))
        current = larger
    return current


def gcd(entry: Entry, desk: Desk) -> str:
    return str(_divisor(entry["metadata"]["numbers"], desk))


def lcm(entry: Entry, desk: Desk) -> str:
    current, *others = entry["metadata"]["numbers"]
    for number in others:
        current = int(desk.calculate(f"{current} * {number} / {_divisor([current, number], desk)}"))
    return str(current)


def prime_factorization(entry: Entry, desk: Desk) -> str:
    rest, factors = str(entry["metadata"]["number"]), entry["metadata"]["factors"]
    for factor in factors[:-1]:
        rest = desk.calculate(f"{rest} / {factor}")
    return " × ".join(str(factor) for factor in factors)


def fraction_simplification(entry: Entry, desk: Desk) -> str:
    facts = entry["metadata"]
    above, below = facts["numerator"], facts["denominator"]
    divisor = _divisor([above, below], desk)
    parts = [above, below] if divisor == 1 else [desk.calculate(f"{part} / {divisor}") for part in (above, below)]
    return {
        "plain": "{}/{}", "latex_inline": "${}/{}$", "latex_frac": "$\\frac{{{}}}{{{}}}$",
        "latex_dfrac": "$\\dfrac{{{}}}{{{}}}$",
    }[facts["style"]].format(*parts)  # fmt: skip


def leg_counting(entry: Entry, desk: Desk) -> str:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    animals = entry["metadata"]["animals"]
    return desk.calculate(" + ".join(f"{count} * {ANIMALS[animal]}" for animal, count in animals.items()))


def complex_arithmetic(entry: Entry, desk: Desk) -> str:
    facts = entry["metadata"]
    (a, b), (c, d) = ([_signed(int(part)) for part in facts[name]] for name in ("num1", "num2"))
    match facts["operation"]:
        case "+" | "-" as sign:
            parts = [desk.calculate(f"{a} {sign} {c}"), desk.calculate(f"{b} {sign} {d}")]
        case "*":
            parts = [desk.calculate(f"{a}*{c} - {b}*{d}"), desk.calculate(f"{a}*{d} + {b}*{c}")]
        case _:
            below = desk.calculate(f"{c}**2 + {d}**2")
            parts = [desk.calculate(f"({a}*{c} + {b}*{d}) / {below}"), desk.calculate(f"({b}*{c} - {a}*{d}) / {below}")]
    return f"{parts[0]} {'-' if parts[1].startswith('-') else '+'} {parts[1].removeprefix('-')}i"


def simple_equations(entry: Entry, desk: Desk) -> str:
    left, right = entry["metadata"]["equation"].split(" = ")
    slope, constant = 0, 0
    for sign, number, variable in re.findall(r"([+-]?)\s*(?:(\d+)(?!\d)\*?)?([a-z]?)", left):
        if number or variable:
            value = int(sign + (number or "1"))
            slope, constant = (slope + value, constant) if variable else (slope, constant + value)
    if not slope or "**" in left:
        raise Unsolvable
    if constant:
        right = desk.calculate(f"{right} {'-' if constant > 0 else '+'} {abs(constant)}")
    return desk.calculate(f"{right} / {_signed(slope)}")


def simple_geometry(entry: Entry, desk: Desk) -> str:
    angles = [f"{angle:g}" for angle in entry["metadata"]["known_angles"]]
    whole = desk.calculate(f"({len(angles) + 1} - 2) * 180")
    return desk.calculate(f"{whole} - {desk.calculate(' + '.join(angles))}")


def incircle_radius(entry: Entry, desk: Desk) -> str:
    (ax, ay), (bx, by), (cx, cy) = ([_signed(int(float(part))) for part in entry["metadata"][name]] for name in "ABC")
    sides = [
        desk.calculate(f"sqrt(({x} - {u})**2 + ({y} - {v})**2)")
        for x, y, u, v in ((bx, by, cx, cy), (ax, ay, cx, cy), (ax, ay, bx, by))
    ]
    around = desk.calculate(" + ".join(sides))
    area = desk.calculate(f"abs({ax}*({by} - {cy}) + {bx}*({cy} - {ay}) + {cx}*({ay} - {by})) / 2")
    return f"{as_number(desk.calculate(f'2 * {area} / {around}')):.3f}"


def coin_flip(entry: Entry, desk: Desk) -> str:
    flips, heads = entry["metadata"]["num_trials"], entry["metadata"]["k_heads"]
    most = heads if entry["metadata"]["problem_type"] == "exact" else flips
    ways = desk.calculate(" + ".join(f"comb({flips}, {count})" for count in range(heads, most + 1)))
    return desk.calculate(f"{ways} / {desk.calculate(f'2**{flips}')}")


def bitwise_arithmetic(entry: Entry, desk: Desk) -> str:
    return desk.calculate(f"hex({entry['metadata']['problem']})")


def count_bits(entry: Entry, desk: Desk) -> str:
    number = str(entry["metadata"]["number"])
    binary = desk.use("convert_base", {"number": number, "from_base": 10, "to_base": 2})
    return desk.use("count_text", {"text": binary, "part": "1"})


def base_conversion(entry: Entry, desk: Desk) -> str:
    facts = entry["metadata"]
    bases = {"from_base": facts["source_base"], "to_base": facts["target_base"]}
    return desk.use("convert_base", {"number": facts["source_repr"], **bases})


def letter_counting(entry: Entry, desk: Desk) -> str:
    text = " ".join(entry["metadata"]["span"])
    return desk.use("count_text", {"text": text, "part": entry["metadata"]["target_letter"]})


def spell_backward(entry: Entry, desk: Desk) -> str:
    return desk.use("reverse_text", {"text": entry["metadata"]["word"]})


def word_sequence_reversal(entry: Entry, desk: Desk) -> str:
    return desk.use("reverse_items", {"items": list(entry["metadata"]["words"])})


def word_sorting(entry: Entry, desk: Desk) -> str:
    facts = entry["metadata"]
    return ", ".join(desk.sort(facts["transformed_words"], "text", facts["direction"]))


def number_sorting(entry: Entry, desk: Desk) -> str:
    facts = entry["metadata"]
    return str(desk.sort(facts["original_numbers"], "number", facts["direction"]))


def number_filtering(entry: Entry, desk: Desk) -> str:
    """Sorted together with the bound, it is plain which numbers lie on the side that is asked for."""
    facts = entry["metadata"]
    numbers, bound = facts["original_numbers"], facts["filter_value"]
    ordered = desk.sort([*numbers, bound], "number")
    kept = ordered[: ordered.index(bound)]
    if facts["operation"] in ("keep_larger", "remove_smaller"):
        kept = ordered[ordered.index(bound) + 1 :]
    return str([number for number in numbers if number in kept])


def number_format(entry: Entry, desk: Desk) -> str:
    ordered = desk.sort([text.replace(",", "") for text in entry["metadata"]["formatted_candidates"]], "number")
    return f"{as_number(ordered[-1 if entry['metadata']['size'] == 'largest' else 0]):f}"


def palindrome_generation(entry: Entry, desk: Desk) -> str:
    """In order, equal letters stand side by side: one of each pair goes to the front, the other to the back."""
    ordered = desk.sort(entry["metadata"]["letters"], "text")
    pairs: list[str] = []
    middle = ""
    while ordered:
        letter = ordered.pop(0)
        if ordered and ordered[0] == letter:
            pairs.append(ordered.pop(0))
        else:
            middle += letter
    return "".join(pairs) + middle + "".join(reversed(pairs))


def caesar_cipher(entry: Entry, desk: Desk) -> str:
    """One shift after the other, until the text can be read."""
    for places in range(1, 26):
        text = desk.use("shift_letters", {"text": entry["metadata"]["cipher_text"], "places": -places})
        if text == entry["metadata"]["clear_text"]:
            return text
    raise Unsolvable


def calendar_arithmetic(entry: Entry, desk: Desk) -> str:
    facts = entry["metadata"]
    match facts["task"]:
        case "weekday_offset":
            told = desk.use("move_date", {"date": facts["start_date"], "days": facts["offset_days"]})
            return told.split()[-1]
        case "weekday_of_date":
            return desk.use("move_date", {"date": facts["target_date"], "days": 0}).split()[-1]
        case "weekday_of_date_from_first_date":
            first = f"{facts['target_date'][:4]}-01-01"
            days = desk.use("days_between", {"first": first, "last": facts["target_date"]})
            over = int(desk.calculate(f"{days} % 7"))
            week = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
            return week[(week.index(facts["first_day"]) + over) % 7]
    return "Yes" if _is_leap(facts["year"], desk) else "No"


def _is_leap(year: int, desk: Desk) -> bool:
    if desk.calculate(f"{year} % 4") != "0":
        return False
    if desk.calculate(f"{year} % 100") != "0":
        return True
    return desk.calculate(f"{year} % 400") == "0"


def gsm_symbolic(entry: Entry, desk: Desk) -> str:
    """The steps of the solution that the package gives, where each one follows from the text and those before."""
    facts = entry["metadata"]
    known = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", entry["question"].replace(",", ""))}
    known |= {number / 100 for number in known} | {1 - number / 100 for number in known} | _CONSTANTS
    result = ""
    for left, right in _EQUATION.findall(facts["answer_cot"].replace("$", "").replace(",", "")):
        if not re.search(r"\d\s*[-+*/]", left):
            continue
        numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", left)}
        if not numbers <= known:
            raise Unsolvable
        result = desk.calculate(" ".join(left.split()))
        if abs(float(result) - float(right)) > 1e-6:
            raise Unsolvable
        known.add(float(right))
    if not result:
        raise Unsolvable
    return result


_EQUATION = re.compile(r"((?<![\w.])[\d(][\d\s.+*/()-]*?)\s*=\s*(-?\d+(?:\.\d+)?)(?![\d.]*\s*[-+*/]\s*\d)")
_CONSTANTS = {2.0, 7.0, 10.0, 12.0, 24.0, 52.0, 60.0, 100.0, 365.0, 0.5}


def pool_matrix(entry: Entry, desk: Desk) -> str:
    facts = entry["metadata"]
    matrix, size = facts["matrix"], facts["pool_size"]
    rows = []
    for top in range(0, len(matrix), size):
        row = []
        for left in range(0, len(matrix[0]), size):
            values = [str(value) for line in matrix[top : top + size] for value in line[left : left + size]]
            if facts["pool_type"] == "average":
                mean = desk.calculate(f"({' + '.join(values)}) / {len(values)}")
                row.append(f"{float(mean):.2f}")
            else:
                row.append(desk.calculate(f"max({', '.join(values)})") if len(values) > 1 else values[0])
        rows.append(" ".join(row))
    return "\n".join(rows)


def time_intervals(entry: Entry, desk: Desk) -> str:
    times = re.findall(r"\b(\d\d):(\d\d):(\d\d(?:\.\d+)?)", entry["question"])
    first, last = (desk.calculate(f"{int(h)}*3600 + {int(m)}*60 + {s.lstrip('0') or '0'}") for h, m, s in times[:2])
    between = desk.calculate(f"{last} - {first}")
    if between.startswith("-"):
        raise Unsolvable
    hours, minutes = desk.calculate(f"{between} // 3600"), desk.calculate(f"{between} % 3600 // 60")
    seconds = float(desk.calculate(f"{between} % 60"))
    shown = f"{seconds:06.3f}" if "." in times[0][2] else f"{seconds:02.0f}"
    return f"{int(hours):02d}:{int(minutes):02d}:{shown}"


def checked_solution(entry: Entry, desk: Desk) -> str:
    desk.calculate(entry["answer"])
    return entry["answer"]


def polynomial_equations(entry: Entry, desk: Desk) -> str:
    from sympy import Poly, Symbol, sympify

    facts = entry["metadata"]
    variable = Symbol(facts["variable"])
    polynomial = Poly(sympify(facts["polynomial_expr"], locals={facts["variable"]: variable}), variable)
    coefficients = [_signed(part) for part in polynomial.all_coeffs()]
    if len(coefficients) != 3:
        raise Unsolvable
    a, b, c = coefficients
    inside = desk.calculate(f"{b}**2 - 4*{a}*{c}")
    root = desk.calculate(f"sqrt({inside})")
    found = {desk.calculate(f"(-{b} {sign} {root}) / (2*{a})") for sign in ("-", "+")}
    return ", ".join(f"{number:.4f}" for number in sorted(float(text) for text in found))


def aiw(entry: Entry, desk: Desk) -> str:
    counts = re.findall(r"(\d+) (?:sisters|female friends|female colleagues)", entry["question"])
    return desk.calculate(f"{counts[0]} + 1")
