"""Questions to be answered with Python that need little data, or none: dates, processes, numbers, codes."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from hephaestus_jax.forge.environments.worlds.crafted.words import day, words
from hephaestus_jax.forge.environments.worlds.python.tasks import LIST, PythonTask, cell, question


def calendar_sum(rng: random.Random) -> PythonTask:
    """Days between dates, or a date some days on."""
    first, days = date.fromisoformat(day(rng)), rng.randint(30, 900)
    second = first + timedelta(days)
    kind = rng.randrange(3)
    if kind == 0:
        request, answer = f"How many days are there from {first} to {second}?", str(days)
        code = f'(date.fromisoformat("{second}") - date.fromisoformat("{first}")).days'
        slip = f'date.fromisoformat("{second}").day - date.fromisoformat("{first}").day'
        check = f'print(date.fromisoformat("{first}") + timedelta(days={days}))'
    elif kind == 1:
        request, answer = f"Which date is {days} days after {first}? Write it like {first}.", str(second)
        code, slip = (
            (f'print(date.fromisoformat("{first}") + {number})') for number in (f"timedelta(days={days})", days)
        )
        check = f'(date.fromisoformat("{second}") - date.fromisoformat("{first}")).days'
    else:
        request, answer = f"On which day of the week does {second} fall? Answer with its English name.", f"{second:%A}"
        code = f'date.fromisoformat("{second}").strftime("%A")'
        slip, check = f'date("{second}").strftime("%A")', f'date.fromisoformat("{second}").isoweekday()'
    load = "from datetime import date, timedelta\n"
    steps = [cell(load + code, code, load + slip), cell(check)]
    return question(rng, request, steps, answer, {})


def savings(rng: random.Random) -> PythonTask:
    """A process by a rule, simulated until a limit is passed."""
    start, add, percent = rng.randrange(100, 3000, 50), rng.randrange(10, 200, 5), rng.choice((1, 2, 3, 4, 5))
    wanted = start * rng.randint(2, 4)
    value, months = float(start), 0
    while value < wanted:
        value, months = value * (1 + percent / 100) + add, months + 1
    request = (
        f"An account starts with {start}. Every month it first gains {percent} percent and then"
        f" {add} is paid in. After how"
        f" many months does it hold {wanted} or more for the first time?"
    )
    code = (
        f"value, months = {start}, 0\nwhile value < {wanted}:\n    value = value * (1 + {percent}"
        f" / 100) + {add}\n    months += 1\nmonths, round(value, 2)"
    )
    slips = (
        code.replace("    months += 1\n", ""),
        code.replace(f"* (1 + {percent} / 100)", f"* {percent} / 100"),
        code.replace("months += 1", "month += 1"),
    )
    check = (
        f"balance = {start}\nfor _ in range({months}):\n    balance = balance * (1 + {percent} / 100) +"
        f" {add}\nbalance >= {wanted}"
    )
    return question(rng, request, [cell(code, *slips), cell(check)], months, {})


def primes(rng: random.Random) -> PythonTask:
    """Counting numbers in a range that have a property."""
    low = rng.randint(10, 400)
    high = low + rng.randint(100, 900)
    what, code = rng.choice(
        [
            ("prime", "def holds(n):\n    return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))"),
            (
                "divisible by the sum of their digits",
                "def holds(n):\n    return n % sum(int(digit) for digit in str(n)) == 0",
            ),
            ("the same when read backwards", "def holds(n):\n    return str(n) == str(n)[::-1]"),
            ("such that no digit comes up twice in them", "def holds(n):\n    return len(set(str(n))) == len(str(n))"),
        ]
    )
    scope: dict[str, Any] = {}
    exec(code, scope)
    answer = sum(scope["holds"](number) for number in range(low, high + 1))
    request = f"How many numbers from {low} to {high}, both included, are {what}?"
    count = f"sum(holds(n) for n in range({low}, {high} + 1))"
    steps = [
        cell(code, code.replace("return ", ""), code.replace(":\n", "\n", 1)),
        cell(f"[n for n in range({low}, {high}) if holds(n)][:5]"),
        cell(count, count.replace(" + 1", "")),
    ]
    return question(rng, request, steps, answer, {})


def secret(rng: random.Random) -> PythonTask:
    """A text that was encoded."""
    plain = " ".join(words(rng, rng.randint(3, 5)))
    name, kind = f"{words(rng, 1)[0]}.txt", rng.choice(("shift", "base64", "reversed", "runs"))
    number = rng.randint(2, 11)
    if kind == "shift":
        text = "".join(chr((ord(c) - 97 + number) % 26 + 97) if c.isalpha() else c for c in plain)
        told = f"every letter was moved {number} places on in the alphabet"
        code = f'"".join(chr((ord(c) - 97 - {number}) % 26 + 97) if c.isalpha() else c for c in text)'
        slip = code.replace(f"- {number}", f"+ {number}")
    elif kind == "base64":
        import base64

        text, told = base64.b64encode(plain.encode()).decode(), "it was encoded with Base64"
        code, slip = "import base64\nbase64.b64decode(text).decode()", "base64.b64encode(text).decode()"
    elif kind == "reversed":
        text, told = " ".join(word[::-1] for word in plain.split()), "every word was written backwards"
        code, slip = '" ".join(word[::-1] for word in text.split())', "text[::-1]"
    else:
        text, told = " ".join(f"{ord(c)}" for c in plain), "every character was replaced by its code number"
        code, slip = (
            '"".join(chr(int(number)) for number in text.split())',
            ('"".join(chr(number) for number in text.split())'),
        )
    request = f"The file {name} holds a short text, but {told}. What does the text say in plain words?"
    load = f'text = open("{name}").read().strip()\ntext'
    return question(
        rng, request, [LIST, cell(load, load.replace(".read()", "")), cell(code, slip)], plain, {name: text + "\n"}
    )


SUMS = {"calendar_sum": calendar_sum, "savings": savings, "primes": primes, "secret": secret}
