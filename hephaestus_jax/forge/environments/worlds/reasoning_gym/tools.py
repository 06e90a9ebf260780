"""The tools of a desk at which problems are solved: a calculator, sorting, counting, bases, letters, a calendar.

Each is a function of its arguments alone; what it cannot do raises `ToolError` with words for the agent.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from hephaestus_jax.forge.environments.environment import Verb
from hephaestus_jax.forge.environments.worlds.reasoning_gym.calculator import CalculatorError, calculate
from hephaestus_jax.formats.records import Json

_DIGITS = string.digits + string.ascii_lowercase


class ToolError(ValueError):
    """Why a tool cannot do it."""


def _text(told: str) -> dict[str, Json]:
    return {"type": "string", "description": told}


def _whole(told: str, least: int | None = None, most: int | None = None) -> dict[str, Json]:
    limits = {name: value for name, value in (("minimum", least), ("maximum", most)) if value is not None}
    return {"type": "integer", "description": told, **limits}


def _one_of(told: str, *values: str) -> dict[str, Json]:
    return {"type": "string", "enum": list(values), "description": told}


_ITEMS: dict[str, Json] = {
    "type": "array", "items": {"type": "string"}, "minItems": 1, "description": "The entries, each as text.",
}  # fmt: skip
_DATE = _text("A day as YYYY-MM-DD.")
READ = Verb(
    "read_problem",
    ("Shows the problem once more.", "Repeats the text of the problem."),
    {},
    ("show_problem", "reread"),
    ("I read the problem once more, to miss nothing.", "What exactly is asked?", "I check the wording of the problem."),
)
SUBMIT = Verb(
    "submit",
    ("Hands in an answer; it is checked at once, and the problem is over when it is right.",
     "Gives the final answer, in the form that the problem asks for, and tells whether it is right."),
    {"answer": _text("The answer, and nothing else.")},
    ("submit_answer", "hand_in"),
    ("I have what is asked for, so I hand it in.",
     "Nothing is left to work out; this is my answer.",
     "This is in the form that the problem asks for, so I submit it."),
)  # fmt: skip
TOOLS = (
    Verb(
        "calculate",
        ("Works out one line of arithmetic exactly: + - * / // % ** << >>, brackets, 0x numbers, and abs, comb, hex, "
         "max, min, sqrt. Numbers that do not end are rounded to 12 significant digits.",
         "A calculator for an expression such as (3 + 4) * 2; knows abs, comb, hex, max, min and sqrt."),
        {"expression": _text("What to work out, without an equals sign.")},
        ("evaluate", "compute"),
        ("Working this out by hand invites slips; I use the calculator.",
         "The numbers are there, so I calculate.",
         "I let the calculator work this out."),
    ),
    Verb(
        "sort_items",
        ("Sorts entries by their value as numbers, or as text in the order of their characters (capitals first).",
         "Puts entries in order, as numbers or as text."),
        {"items": _ITEMS, "order": _one_of("Which way.", "ascending", "descending"),
         "by": _one_of("What is compared.", "number", "text")},
        ("sort", "put_in_order"),
        ("In {order} order this is easy to read off, so I have the entries sorted.",
         "I have them sorted by {by} instead of comparing them by eye.",
         "Sorting is what helps here."),
    ),
    Verb(
        "reverse_items",
        ("Gives entries in the opposite order, the last one first.", "Turns the order of a list around."),
        {"items": _ITEMS},
        ("reverse_list", "flip_order"),
        ("The order has to be turned around.", "I need them from the last to the first.", "Backwards, then."),
    ),
    Verb(
        "reverse_text",
        ("Gives a text with its characters from the last to the first.", "Writes a text backwards."),
        {"text": _text("What to turn around.")},
        ("spell_backwards", "mirror_text"),
        ("I have {text} turned around letter by letter.",
         "Backwards, letter by letter; the tool makes no slips.",
         "The letters are needed from the last to the first."),
    ),
    Verb(
        "count_text",
        ("Counts how often a part occurs in a text, capitals and small letters alike.",
         "Tells the number of places where a letter or word stands in a text."),
        {"text": _text("Where to count."), "part": _text("The letter, digit or word to count.")},
        ("count_occurrences", "count_in"),
        ("How often is there {part}? I have it counted.",
         "Counting by eye goes wrong easily, so I use the tool.",
         "The number of times it occurs is what I need."),
    ),
    Verb(
        "convert_base",
        ("Writes a whole number in another base; digits above 9 are small letters.",
         "Converts a number from one number system into another (bases 2 to 36)."),
        {"number": _text("Its digits."), "from_base": _whole("The base it is written in.", 2, 36),
         "to_base": _whole("The base to write it in.", 2, 36)},
        ("change_base", "convert_number"),
        ("I need {number} in base {to_base}.",
         "The number has to be written in another base.",
         "From one base to the other, digit by digit, is work for the tool."),
    ),
    Verb(
        "shift_letters",
        ("Moves every letter of a text on by so many places in the alphabet, around its end; a negative number moves "
         "them back.",
         "Replaces letters by those a number of places further on in the alphabet, or further back if it is negative."),
        {"text": _text("The text."), "places": _whole("How far.", -25, 25)},
        ("rotate_letters", "caesar_shift"),
        ("I try what this shift makes of it.",
         "If a shift of {places} makes words of it, that is the key.",
         "The letters are shifted by some number; I try this one."),
    ),
    Verb(
        "move_date",
        ("Tells which day is so many days after a date, and its weekday; 0 for the date itself, a negative number for "
         "days before.",
         "A calendar: the date and weekday that lie a number of days away from a date."),
        {"date": _DATE, "days": _whole("How many days later.", -100000, 100000)},
        ("calendar", "add_days"),
        ("The calendar tells what day that is.", "I look it up in the calendar.", "The calendar knows the weekday."),
    ),
    Verb(
        "days_between",
        ("Tells how many days lie from a first date to a last one.", "The difference of two dates in days."),
        {"first": _DATE, "last": _DATE},
        ("date_difference", "count_days"),
        ("I need the number of days up to {last}.",
         "How far apart are the two dates?",
         "First the distance in days."),
    ),
)  # fmt: skip
VERBS = (READ, *TOOLS, SUBMIT)


def used(tool: str, arguments: Mapping[str, Any]) -> str:
    """What a tool answers.

    Raises:
        ToolError: it cannot do that.
    """
    return _DOES[tool](**arguments)


def _calculate(expression: str) -> str:
    try:
        return calculate(expression)
    except CalculatorError as error:
        raise ToolError(str(error)) from None


def as_number(text: str) -> Decimal:
    """A number as people write them, with commas or an exponent.

    Raises:
        ToolError: it is none.
    """
    try:
        number = Decimal(text.replace(",", "").strip())
    except InvalidOperation:
        raise ToolError(f"{text!r} is not a number") from None
    if not number.is_finite():
        raise ToolError(f"{text!r} is not a number")
    return number


def _sort_items(items: list[str], order: str, by: str) -> str:
    return ", ".join(sorted(items, key=as_number if by == "number" else str, reverse=order == "descending"))


def _reverse_items(items: list[str]) -> str:
    return ", ".join(reversed(items))


def _reverse_text(text: str) -> str:
    return text[::-1]


def _count_text(text: str, part: str) -> str:
    if not part:
        raise ToolError("there is no part to count")
    return str(text.lower().count(part.lower()))


def _convert_base(number: str, from_base: int, to_base: int) -> str:
    try:
        value = int(number, from_base)
    except ValueError:
        raise ToolError(f"{number!r} is not a number in base {from_base}") from None
    digits = ""
    rest = abs(value)
    while rest or not digits:
        rest, digit = divmod(rest, to_base)
        digits = _DIGITS[digit] + digits
    return f"-{digits}" if value < 0 else digits


def _shift_letters(text: str, places: int) -> str:
    kinds = (string.ascii_lowercase, string.ascii_uppercase)
    moved = {ord(a): kind[(at + places) % 26] for kind in kinds for at, a in enumerate(kind)}
    return text.translate(moved)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ToolError(f"{text!r} is not a date; dates are written YYYY-MM-DD") from None


_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _move_date(date: str, days: int) -> str:
    try:
        day = _day(date) + timedelta(days=days)
    except OverflowError:
        raise ToolError("the calendar ends before that day") from None
    return f"{day.isoformat()}, a {_WEEKDAYS[day.weekday()]}"


def _days_between(first: str, last: str) -> str:
    return str((_day(last) - _day(first)).days)


_DOES: dict[str, Callable[..., str]] = {
    "calculate": _calculate,
    "sort_items": _sort_items,
    "reverse_items": _reverse_items,
    "reverse_text": _reverse_text,
    "count_text": _count_text,
    "convert_base": _convert_base,
    "shift_letters": _shift_letters,
    "move_date": _move_date,
    "days_between": _days_between,
}
