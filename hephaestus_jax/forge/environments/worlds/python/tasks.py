"""Questions about data in files, to be answered with Python."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.bash.files import log, sales
from hephaestus_jax.forge.environments.worlds.crafted.crafted import CraftedTask, Step
from hephaestus_jax.forge.environments.worlds.crafted.words import (
    CITIES,
    LINES,
    PRODUCTS,
    SERVICES,
    asked_by,
    names,
    one_of,
    words,
)

LIST = Step(Call("list_files"))


@dataclass(frozen=True)
class PythonTask(CraftedTask):
    """`files` is the folder at first; `checks` are expressions that must have the values that the expert reaches."""

    files: dict[str, str] = field(default_factory=dict)
    checks: tuple[str, ...] = ()


def cell(code: str, *slips: str) -> Step:
    """A piece of code, and pieces that one may write by mistake."""
    return Step(run(code), tuple(run(slip) for slip in slips))


def run(code: str) -> Call:
    """A call that runs code."""
    return Call("run", {"code": code})


def read(path: str) -> Step:
    """A look at a file."""
    return Step(Call("read_file", {"path": path}))


def question(
    rng: random.Random, request: str, steps: list[Step], answer: object, files: dict[str, str],
    near: tuple[object, ...] = (),
) -> PythonTask:  # fmt: skip
    """A task that asks for an answer."""
    goal = asked_by(rng, request, one_of(rng, "Submit the answer.", "Compute it and submit the result."))
    others = tuple(str(item) for item in near if str(item) != str(answer))
    return PythonTask(goal, tuple(steps), str(answer), others, files)


def _load_csv(name: str) -> Step:
    code = f'import csv\nwith open("{name}") as file:\n    rows = list(csv.DictReader(file))\nprint(len(rows), rows[0])'
    return cell(code, code.replace("import csv\n", ""), code.replace("csv.DictReader", "csv.reader"))


def csv_total(rng: random.Random) -> PythonTask:
    """The sum, largest or smallest of a column over some rows of a table."""
    text, rows = sales(rng, rng.randint(12, 30))
    name = f"{words(rng, 1)[0]}.csv"
    index, column = rng.choice(((1, "region"), (2, "product")))
    value = str(rng.choice(rows)[index])
    amounts = [row[3] for row in rows if row[index] == value]
    kind = rng.choice(("sum", "max", "min"))
    answer = {"sum": sum(amounts), "max": max(amounts), "min": min(amounts)}[kind]
    what = {"sum": "the sum of all amounts", "max": "the largest amount", "min": "the smallest amount"}[kind]
    request = one_of(
        rng,
        f"The file {name} has a table of sales. What is {what} with the {column} {value}?",
        f"What is {what} in {name} among the rows whose {column} is {value}?",
    )
    code = f'amounts = [int(row["amount"]) for row in rows if row["{column}"] == "{value}"]\n{kind}(amounts)'
    slips = (code.replace('int(row["amount"])', 'row["amount"]'), code.replace(f'"{value}"', f'"{value.title()}"'))
    steps = [LIST, cell(f'print(open("{name}").read()[:150])'), _load_csv(name), cell(code, *slips)]
    return question(rng, request, steps, answer, {name: text})


def people(rng: random.Random) -> PythonTask:
    """The mean of a field, or the oldest, among the people of a city."""
    cities = rng.sample(CITIES, 3)
    while True:
        found: list[dict[str, Any]] = [
            {"name": name, "age": age, "city": rng.choice(cities), "points": rng.randint(0, 500)}
            for name, age in zip(names(rng, 12), rng.sample(range(18, 80), 12), strict=True)
        ]
        city = rng.choice(cities)
        chosen = [person for person in found if person["city"] == city]
        if len(chosen) in (3, 5, 6, 7):
            break
    name = f"{words(rng, 1)[0]}.json"
    load = cell(
        f'import json\nwith open("{name}") as file:\n    people = json.load(file)\nprint(len(people), people[0])',
        f'import json\npeople = json.loads("{name}")\nprint(len(people), people[0])',
    )
    if rng.random() < 0.5:
        key = rng.choice(("age", "points"))
        answer: object = round(sum(person[key] for person in chosen) / len(chosen), 1)
        request = (
            f"{name} is a list of people. What is the average of {key} for those who live in {city}?"
            f" Round to one decimal."
        )
        code = (
            f'values = [person["{key}"] for person in people if person["city"] == "{city}"]\n'
            f"round(sum(values) / len(values), 1)"
        )
        slip = f'round(sum(person["{key}"] for person in people) / len(people), 1)'
    else:
        oldest = rng.random() < 0.5
        answer = (max if oldest else min)(chosen, key=lambda person: person["age"])["name"]
        request = f"Who is the {'oldest' if oldest else 'youngest'} person from {city} in {name}? I need the name."
        code = (
            f'chosen = [person for person in people if person["city"] =='
            f' "{city}"]\n{"max" if oldest else "min"}(chosen, key=lambda person:'
            f' person["age"])["name"]'
        )
        slip = f'{"max" if oldest else "min"}(people, key=lambda person: person["age"])["name"]'
    steps = [LIST, load, cell(code, slip, code.replace('["city"]', '["town"]'))]
    return question(rng, request, steps, answer, {name: json.dumps(found, indent=1) + "\n"})


def slow_requests(rng: random.Random) -> PythonTask:
    """Something about the durations in a log, which take a regular expression."""
    service = rng.choice(SERVICES)
    while True:
        lines = [line for _, line in log(rng, service, rng.randint(25, 40))]
        times = [int(line.split(" took ")[1].split()[0]) for line in lines if " took " in line]
        if len(times) > 3 and any(" took " in line for line in lines[:4]):
            break
    name, limit = f"{service}-{rng.randint(10, 99)}.log", rng.choice((100, 200, 300, 400))
    kind = rng.choice(("sum", "max", "slow"))
    answer = {"sum": sum(times), "max": max(times), "slow": sum(value > limit for value in times)}[kind]
    what = {
        "sum": "How many milliseconds do the requests in {} take in all?",
        "max": "How many milliseconds does the slowest request in {} take?",
        "slow": "How many requests in {} take more than " + str(limit) + " ms?",
    }[kind].format(name)
    last = {"sum": "sum(times)", "max": "max(times)", "slow": f"sum(time > {limit} for time in times)"}[kind]
    find = (
        f'import re\ntext = open("{name}").read()\ntimes = [int(found) for found in'
        f' re.findall(r"took (\\d+) ms", text)]\nlen(times)'
    )
    slips = (find.replace("(\\d+)", "\\d+"), find.replace(".read()", ""), find.replace("int(found)", "found"))
    steps = [LIST, cell(f'print(open("{name}").read()[:400])'), cell(find, *slips), cell(last)]
    return question(rng, what, steps, answer, {name: "".join(f"{line}\n" for line in lines)}, (len(times),))


def common_word(rng: random.Random) -> PythonTask:
    """The word that comes up most in a text, among long ones."""
    while True:
        chosen = rng.choices(LINES, k=rng.randint(18, 30))
        least = rng.randint(4, 6)
        text = "\n".join(chosen)
        tally = Counter(word for word in text.lower().replace(".", "").split() if len(word) >= least).most_common(2)
        if tally[0][1] > tally[1][1]:
            break
    name = f"{words(rng, 1)[0]}.txt"
    request = one_of(
        rng,
        f"Which word of at least {least} letters comes up most often in {name}? Ignore case and full stops.",
        f"Leaving aside case and full stops, what is the most frequent word in {name} that has"
        f" {least} letters or more?",
    )
    load = cell(
        f'text = open("{name}").read().lower().replace(".", "")\nprint(text[:120])', f'text = open("{name}").lower()'
    )
    code = (
        f"from collections import Counter\ntally = Counter(word for word in text.split() if"
        f" len(word) >= {least})\ntally.most_common(3)"
    )
    return question(
        rng,
        request,
        [LIST, load, cell(code, code.replace(">=", ">"), code.replace("text.split()", "text"))],
        tally[0][0],
        {name: text + "\n"},
        (tally[1][0],),
    )


def two_tables(rng: random.Random) -> PythonTask:
    """A sum over two tables that have to be joined."""
    products = rng.sample(PRODUCTS, 5)
    prices = {product: rng.randint(3, 60) for product in products}
    orders = [(rng.choice(products), rng.randint(1, 9)) for _ in range(rng.randint(10, 20))]
    first, second = words(rng, 2)
    total = sum(prices[product] * count for product, count in orders)
    files = {
        f"{first}.csv": "product,price\n" + "".join(f"{product},{price}\n" for product, price in prices.items()),
        f"{second}.csv": "product,count\n" + "".join(f"{product},{count}\n" for product, count in orders),
    }
    request = one_of(
        rng,
        f"{first}.csv has the price of each product and {second}.csv the products that were"
        f" ordered, with their count. What does everything in {second}.csv cost together?",
        f"What is the total value of the orders in {second}.csv, at the prices in {first}.csv?",
    )
    load = (
        f'import csv\nprices = {{row["product"]: int(row["price"]) for row in'
        f' csv.DictReader(open("{first}.csv"))}}\nprices'
    )
    code = (
        f'orders = list(csv.DictReader(open("{second}.csv")))\nsum(prices[row["product"]] *'
        f' int(row["count"]) for row in orders)'
    )
    steps = [
        LIST,
        read(f"{first}.csv"),
        cell(f'print(open("{second}.csv").read()[:80])'),
        cell(load, load.replace('int(row["price"])', 'row["price"]')),
        cell(code, code.replace('int(row["count"])', 'row["count"]'), code.replace('["count"]', '["amount"]')),
    ]
    return question(rng, request, steps, total, files)


def grid(rng: random.Random) -> PythonTask:
    """Something about the rows, columns or diagonal of a table of numbers."""
    size = rng.randint(4, 7)
    numbers = [[rng.randint(-20, 60) for _ in range(size)] for _ in range(size)]
    name = f"{words(rng, 1)[0]}.txt"
    sums, columns = [sum(row) for row in numbers], [sum(column) for column in zip(*numbers, strict=True)]
    what, code, answer = rng.choice(
        [
            ("What is the largest sum of a row", "max(sum(row) for row in grid)", max(sums)),
            ("What is the smallest sum of a column", "min(sum(column) for column in zip(*grid))", min(columns)),
            ("What is the sum of the main diagonal (from"
        " the top left)", "sum(grid[i][i] for i in range(len(grid)))", sum(numbers[i][i] for i in range(size))),
            ("How many of the numbers are negative", "sum(value < 0 for row in grid for"
        " value in row)", sum(value < 0 for row in numbers for value in row)),
            ("What is the difference between the largest and the smallest number", "values = [value for row in grid for"
        " value in row]\n"
        "max(values) -"
        " min(values)", max(map(max, numbers)) - min(map(min, numbers))),
        ]
    )  # fmt: skip
    load = f'grid = [[int(value) for value in line.split()] for line in open("{name}")]\nlen(grid), grid[0]'
    steps = [
        LIST,
        read(name),
        cell(load, load.replace("int(value)", "value"), load.replace("line.split()", "line")),
        cell(code, code.replace("row) for row", "row for row")),
    ]
    text = "".join(" ".join(map(str, row)) + "\n" for row in numbers)
    return question(rng, f"{name} holds a square table of numbers. {what}?", steps, answer, {name: text})


def stock_moves(rng: random.Random) -> PythonTask:
    """What is in stock after a list of moves, some of which are refused."""
    products = rng.sample(PRODUCTS, 4)
    stock = {product: rng.randint(5, 30) for product in products}
    moves = [(rng.choice(("in", "out")), rng.choice(products), rng.randint(1, 14)) for _ in range(rng.randint(10, 20))]
    name = f"{words(rng, 1)[0]}.json"
    left = dict(stock)
    for kind, product, count in moves:
        if kind == "in":
            left[product] += count
        elif left[product] >= count:
            left[product] -= count
    product = rng.choice(products)
    request = (
        f"{name} has the stock of some products and a list of moves (in or out, product, count)."
        f" Apply the moves in order;"
        f" a move out of more than there is left is skipped. How many of {product} are there in the end?"
    )
    load = (
        f'import json\ndata = json.load(open("{name}"))\nstock, moves = data["stock"],'
        f' data["moves"]\nprint(stock, len(moves), moves[:2])'
    )
    code = (
        'left = dict(stock)\nfor kind, product, count in moves:\n    if kind == "in":\n       '
        " left[product] += count\n"
        f'    elif left[product] >= count:\n        left[product] -= count\nleft["{product}"]'
    )
    slips = (
        code.replace("elif left[product] >= count:", "else:"),
        code.replace("dict(stock)", "{}"),
        code.replace("+=", "="),
    )
    text = json.dumps({"stock": stock, "moves": moves}) + "\n"
    return question(
        rng, request, [LIST, cell(load), cell(code, *slips)], left[product], {name: text}, (stock[product],)
    )


def dirty_numbers(rng: random.Random) -> PythonTask:
    """The sum of numbers that are written in several ways, with some that are none."""
    values = [rng.randint(100, 9000) for _ in range(rng.randint(7, 12))]
    marks = rng.choice((("EUR ", "-"), ("$", "n/a"), ("USD ", "unknown")))
    written = [rng.choice((str(value), f"{value:,}", f"{marks[0]}{value:,}", f" {value} ")) for value in values]
    for _ in range(rng.randint(1, 3)):
        written.insert(rng.randint(0, len(written)), marks[1])
    name = f"{words(rng, 1)[0]}.txt"
    request = one_of(
        rng,
        f"Add up the amounts in {name}. They are written in several ways, and lines with '{marks[1]}' do not count.",
        f"What do the amounts in {name} come to? Mind the separators and the signs in front of"
        f" some; skip '{marks[1]}'.",
    )
    code = (
        f'total = 0\nfor line in open("{name}"):\n    text = line.replace("{marks[0].strip()}",'
        f' "").replace(",", "").strip()\n'
        f'    if text != "{marks[1]}":\n        total += int(text)\ntotal'
    )
    slips = (
        code.replace('.replace(",", "")', ""),
        code.replace(f'    if text != "{marks[1]}":\n    ', ""),
        code.replace("+=", "="),
    )
    return question(
        rng,
        request,
        [LIST, read(name), cell(code, *slips)],
        sum(values),
        {name: "".join(f"{line}\n" for line in written)},
    )


QUESTIONS = {
    "csv_total": csv_total, "people": people, "slow_requests": slow_requests,
    "common_word": common_word, "two_tables": two_tables, "grid": grid, "stock_moves": stock_moves,
    "dirty_numbers": dirty_numbers,
}  # fmt: skip
