"""Programs to be written or mended: functions that must pass hidden checks, and files that code must write."""

from __future__ import annotations

import json
import random
from typing import Any

from hephaestus_jax.forge.environments.worlds.bash.files import sales
from hephaestus_jax.forge.environments.worlds.crafted.crafted import Step
from hephaestus_jax.forge.environments.worlds.crafted.words import NOUNS, SERVICES, asked_by, day, names, one_of, words
from hephaestus_jax.forge.environments.worlds.python.specs import SPECS
from hephaestus_jax.forge.environments.worlds.python.tasks import LIST, PythonTask, cell, question, read


def _program(
    rng: random.Random, request: str, steps: list[Step], files: dict[str, str], checks: tuple[str, ...]
) -> PythonTask:
    ending = one_of(
        rng, "Submit when it is done.", "Submit without an answer once it works.", "Hand the task in at the end."
    )
    return PythonTask(asked_by(rng, request, ending), tuple(steps), "", (), files, checks)


def write_function(rng: random.Random) -> PythonTask:
    """A function by its description."""
    spec = rng.choice(SPECS)(rng)
    request = one_of(
        rng,
        f"Define a function {spec.name} that {spec.told}. Hidden checks will call it.",
        f"Write {spec.name}, a function that {spec.told}; it will be checked with arguments you do not see.",
    )
    steps = [
        cell(spec.code, spec.wrong, spec.code.replace(spec.name, spec.name + "_", 1)),
        cell(spec.shown),
        cell(spec.hidden[-1]),
    ]
    return _program(rng, request, steps, {}, spec.hidden[:-1])


def mend_function(rng: random.Random) -> PythonTask:
    """A faulty function in a module: see it fail, define it right."""
    spec = rng.choice(SPECS)(rng)
    module = words(rng, 1)[0]
    name = spec.name
    request = one_of(
        rng,
        f"{module}.py has a function {name} that {spec.told}. At least that is what it should do;"
        f" it has a fault. Define a corrected {name} in the session.",
        f"Something is wrong with {name} in {module}.py: it is meant to be a function that"
        f" {spec.told}. Find out what, and define it correctly in the session.",
    )
    steps = [
        read(f"{module}.py"),
        cell(f"from {module} import {name}\n{spec.shown}"),
        cell(spec.code, spec.wrong),
        cell(spec.shown),
        cell(spec.hidden[-1]),
    ]
    return _program(rng, request, steps, {f"{module}.py": spec.wrong + "\n"}, spec.hidden[:-1])


def mend_program(rng: random.Random) -> PythonTask:
    """A program that ends in a traceback; it must be mended in its file so that it writes what it should."""
    text, _ = sales(rng, rng.randint(8, 16))
    module, data, out = words(rng, 3)
    column = rng.choice(("region", "product"))
    right = (
        f'import csv\nimport json\n\ntotals = {{}}\nwith open("{data}.csv") as file:\n    for row'
        f" in csv.DictReader(file):\n"
        f'        key = row["{column}"]\n        totals[key] = totals.get(key, 0) + int(row["amount"])\n'
        f'with open("{out}.json", "w") as file:\n    json.dump(totals, file, sort_keys=True)\n'
    )
    old, new = rng.choice(
        [
            ('totals[key] + int(row["amount"])', 'totals.get(key, 0) + int(row["amount"])'),
            ('totals.get(key, 0) + row["amount"]', 'totals.get(key, 0) + int(row["amount"])'),
            (f'row["{column.title()}"]', f'row["{column}"]'), (f"{data}.cvs", f"{data}.csv"),
            ('.json")', '.json", "w")'),
        ]
    )  # fmt: skip
    request = one_of(
        rng,
        f"The program {module}.py should write the total amount per {column} of {data}.csv to"
        f" {out}.json, but it fails. Repair the file {module}.py and run it.",
        f"Running {module}.py ends in a traceback. Mend it in its file and run it, so that"
        f" {out}.json has the total amount of every {column} in {data}.csv.",
    )
    execute = f'import runpy\n_ = runpy.run_path("{module}.py")'
    edit = (
        f'source = open("{module}.py").read()\nfixed = source.replace({old!r}, {new!r})\nwith'
        f' open("{module}.py", "w") as file:\n    file.write(fixed)'
    )
    steps = [
        read(f"{module}.py"),
        cell(execute),
        cell(edit, edit.replace(', "w"', "")),
        cell(execute),
        read(f"{out}.json"),
    ]
    again = (
        'import os, shutil, runpy, json, tempfile\nplace = tempfile.mkdtemp(dir="../tmp")\n'
        f'shutil.copytree(".", place, dirs_exist_ok=True)\nos.chdir(place)\nos.path.exists("{out}.json") and '
        f'os.remove("{out}.json")\n_ = runpy.run_path("{module}.py")\njson.load(open("{out}.json"))'
    )
    checks = (f'__import__("json").load(open("{out}.json"))', again)
    return _program(rng, request, steps, {f"{module}.py": right.replace(new, old), f"{data}.csv": text}, checks)


def write_report(rng: random.Random) -> PythonTask:
    """A JSON file with totals by group."""
    text, _ = sales(rng, rng.randint(10, 24))
    data, out = words(rng, 2)
    column, kind = rng.choice(("region", "product")), rng.choice(("total", "count", "largest"))
    told = {"total": "the sum of its amounts", "count": "the number of its rows", "largest": "its largest amount"}[kind]
    request = one_of(
        rng,
        f"Write {out}.json: an object that gives for every {column} in {data}.csv {told}.",
        f"From {data}.csv, make a JSON file {out}.json with one key per {column} and {told} as the value.",
    )
    load = f'import csv\nwith open("{data}.csv") as file:\n    rows = list(csv.DictReader(file))\nrows[:2]'
    group = (
        f'groups = {{}}\nfor row in rows:\n    groups.setdefault(row["{column}"],'
        f' []).append(int(row["amount"]))\nlen(groups)'
    )
    how = {"total": "sum", "count": "len", "largest": "max"}[kind]
    write = (
        f"import json\nresult = {{key: {how}(values) for key, values in groups.items()}}\nwith"
        f' open("{out}.json", "w") as file:\n    json.dump(result, file)\nresult'
    )
    slips = (
        write.replace(', "w"', ""),
        write.replace("import json\n", ""),
        write.replace("json.dump(result, file)", "file.write(result)"),
    )
    steps = [
        LIST,
        cell(load),
        cell(group, group.replace(".setdefault(", ".get("), group.replace('int(row["amount"])', 'row["amount"]')),
        cell(write, *slips),
        read(f"{out}.json"),
    ]
    return _program(rng, request, steps, {f"{data}.csv": text}, (f'__import__("json").load(open("{out}.json"))',))


def settings_differ(rng: random.Random) -> PythonTask:
    """The keys in which two configuration files differ."""
    first, second = words(rng, 2)
    keys = rng.sample(("host", "port", "user", "retries", "region", "timeout", "mode", "level", "workers", "queue"), 7)
    old = {key: str(rng.randint(1, 99)) for key in keys}
    new = dict(old)
    for key in rng.sample(keys, rng.randint(2, 3)):
        new[key] = str(int(old[key]) + rng.randint(1, 9))
    differ = sorted(key for key in keys if old[key] != new[key])
    files = {
        f"{first}.conf": "".join(f"{key} = {old[key]}\n" for key in keys),
        f"{second}.conf": "".join(f"{key} = {new[key]}\n" for key in sorted(keys)),
    }
    request = (
        f"In which settings do {first}.conf and {second}.conf differ? Give the keys in"
        f" alphabetical order, separated by commas."
    )
    define = 'def load(path):\n    return dict(line.strip().split(" = ") for line in open(path))'
    code = (
        f'old, new = load("{first}.conf"), load("{second}.conf")\nprint(", ".join(sorted(key for'
        f" key in old if old[key] != new[key])))"
    )
    steps = [
        LIST,
        read(f"{first}.conf"),
        cell(define, define.replace('" = "', '"="')),
        cell(code, code.replace("!=", "==")),
    ]
    return question(rng, request, steps, ", ".join(differ), files)


def folder_sizes(rng: random.Random) -> PythonTask:
    """The total of a nested structure, which takes recursion."""
    labels = iter(rng.sample(NOUNS, 40))

    def made(depth: int) -> dict[str, Any]:
        return {next(labels): made(depth - 1) if depth and rng.random() < 0.6 else rng.randint(1, 90) for _ in range(3)}

    def total(tree: Any) -> int:
        return sum(map(total, tree.values())) if isinstance(tree, dict) else tree

    def leaves(tree: Any) -> list[int]:
        return [value for part in tree.values() for value in leaves(part)] if isinstance(tree, dict) else [tree]

    tree, name = made(2), f"{words(rng, 1)[0]}.json"
    largest = rng.random() < 0.4
    answer = max(leaves(tree)) if largest else total(tree)
    request = (
        f"{name} describes folders: every name has either a size or a folder in it with names of"
        f" its own. What is the"
        f" {'largest size of a single file' if largest else 'sum of all sizes'}?"
    )
    load = f'import json\ntree = json.load(open("{name}"))\ntree'
    how = "max" if largest else "sum"
    define = (
        f"def measure(part):\n    if isinstance(part, dict):\n        return {how}(measure(inner)"
        f" for inner in part.values())\n    return part"
    )
    steps = [
        LIST,
        cell(load),
        cell(define, define.replace(".values()", "")),
        cell("measure(tree)", "measure(tree.values())"),
    ]
    return question(rng, request, steps, answer, {name: json.dumps(tree) + "\n"})


def busy_room(rng: random.Random) -> PythonTask:
    """The most bookings of a room at one time."""
    name = f"{words(rng, 1)[0]}.txt"
    while True:
        starts = [rng.randint(8 * 60, 17 * 60) for _ in range(rng.randint(6, 10))]
        spans = sorted((start, start + rng.randrange(20, 150, 5)) for start in starts)
        most = max(sum(begin <= start < end for begin, end in spans) for start, _ in spans)
        if most > 1:
            break
    when = day(rng)
    text = "".join(f"{a // 60:02d}:{a % 60:02d}-{b // 60:02d}:{b % 60:02d}\n" for a, b in spans)
    request = (
        f"{name} has the visits to an office on {when}, each as start-end. What is the largest"
        f" number of visitors that were there at the same time? (Who ends when another starts does"
        f" not meet them.)"
    )
    define = 'def minutes(text):\n    hours, rest = text.split(":")\n    return int(hours) * 60 + int(rest)'
    load = (
        f'visits = []\nfor line in open("{name}"):\n    start, end = line.strip().split("-")\n   '
        f" visits.append((minutes(start), minutes(end)))\nlen(visits)"
    )
    code = "max(sum(start <= moment < end for start, end in visits) for moment, _ in visits)"
    steps = [
        LIST,
        read(name),
        cell(define),
        cell(load, load.replace('.split("-")', ".split()")),
        cell(code, code.replace("< end", "<= end")),
    ]
    return question(rng, request, steps, most, {name: text}, (len(spans),))


def write_class(rng: random.Random) -> PythonTask:
    """A class by its description."""
    title, unit = rng.choice((("Account", "amount"), ("Tank", "litres"), ("Battery", "charge"), ("Wallet", "coins")))
    limit = rng.randrange(50, 900, 10)
    add, take, left = rng.choice((("add", "take", "level"), ("put", "remove", "left"), ("fill", "drain", "total")))
    owner, service = names(rng, 1)[0], rng.choice(SERVICES)
    code = (
        f"class {title}:\n    def __init__(self, start=0):\n        self.{left} = start\n\n    def"
        f" {add}(self, {unit}):\n"
        f'        if self.{left} + {unit} > {limit}:\n            raise ValueError("too much")\n'
        f"        self.{left} += {unit}\n\n"
        f"    def {take}(self, {unit}):\n        taken = min({unit}, self.{left})\n       "
        f" self.{left} -= taken\n        return taken"
    )
    request = (
        f"Define a class {title} for the {service} service (the code goes to {owner}). It takes an optional start value"
        f" (default 0) and keeps it in the attribute {left}. {add}({unit}) raises {left} by that,"
        f" or raises ValueError and"
        f" changes nothing if {left} would be above {limit}. {take}({unit}) lowers {left}, at most"
        f" to 0, and returns how"
        " much was taken."
    )
    hidden = (
        f"{title}().{left}", f"{title}(7).{take}(9)", f"t = {title}(5)\nt.{add}({limit - 5})\nt.{left}",
        f"t = {title}(5)\nt.{add}({limit - 4})", f"t = {title}(3)\n[t.{take}(2), t.{take}(2), t.{left}]",
    )  # fmt: skip
    steps = [
        cell(code, code.replace("min(", "max("), code.replace(f"self.{left} += {unit}", f"{left} += {unit}")),
        cell(f"item = {title}(10)\nitem.{add}(5)\nprint(item.{take}(20),"
        f" item.{left})"), cell(f"{title}({limit}).{add}(1)"),
    ]  # fmt: skip
    return _program(rng, request, steps, {}, hidden)


PROGRAMS = {
    "write_function": write_function, "mend_function": mend_function, "mend_program": mend_program,
    "write_report": write_report, "settings_differ": settings_differ, "folder_sizes": folder_sizes,
    "busy_room": busy_room, "write_class": write_class,
}  # fmt: skip
