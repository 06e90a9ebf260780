"""Questions about files, to be answered with a shell."""

from __future__ import annotations

import random
from collections import Counter

from hephaestus_jax.forge.environments.worlds.bash.files import (
    BashTask,
    Files,
    archive,
    log_files,
    looking,
    prose,
    question,
    read,
    run,
    sales,
)
from hephaestus_jax.forge.environments.worlds.crafted.words import LINES, one_of, words


def _notes(rng: random.Random, count: int) -> Files:
    """Notes in nested folders."""
    top, *folders = words(rng, 4)
    places = [top, *(f"{top}/{name}" for name in folders[:2]), f"{top}/{folders[0]}/{folders[2]}"]
    return {
        f"{place}/{name}.txt": "".join(f"{line}\n" for line in rng.sample(LINES[:-3], rng.randint(2, 6)))
        for place, name in zip((places * count)[:count], words(rng, count), strict=True)
    }


def find_phrase(rng: random.Random) -> BashTask:
    """Which file has a sentence in it."""
    files = _notes(rng, rng.randint(7, 10))
    line, path = rng.choice(LINES[-3:]), rng.choice(sorted(files))
    kept = files[path].splitlines(keepends=True)
    kept.insert(rng.randint(0, len(kept)), f"{line}\n")
    files[path] = "".join(kept)
    phrase = " ".join(line.rstrip(".").split()[1:5])
    top = path.partition("/")[0]
    request = one_of(
        rng,
        f"Which file below {top} contains the words '{phrase}'? Give its path, starting with {top}/.",
        f"Somewhere below the folder {top} there is a note that says '{phrase}'. In which file? I"
        f" need the path from {top}/ on.",
    )
    search = f"grep -rl '{phrase}' {top}"
    steps = [
        run(one_of(rng, "ls -R", f"find {top} -type f | sort")),
        run(search, f"grep -l '{phrase}' {top}", f"grep '{phrase}' *.txt"),
    ]
    return question(rng, request, steps, path, files, tuple(sorted(files))[:2])


def count_level(rng: random.Random) -> BashTask:
    """How many lines of a log have a level."""
    folder = one_of(rng, "logs", "var/log", "service-logs")
    files, logs = log_files(rng, folder)
    service, level = rng.choice(sorted(logs)), rng.choice(("ERROR", "WARN", "DEBUG"))
    count = sum(found == level for found, _ in logs[service])
    path = f"{folder}/{service}.log"
    request = one_of(
        rng,
        f"How many lines of the log of the {service} service (in {folder}) have the level {level}?",
        f"Count the {level} lines in the {service} log in the folder {folder}.",
    )
    steps = [
        looking(rng, folder),
        run(f"head -n 5 {path}"),
        run(
            f"grep -c ' {level} ' {path}",
            f"grep ' {level.lower()} ' {path} | wc -l",
            f"grep -c ' {level} ' {folder}/*.log",
        ),
    ]
    return question(rng, request, steps, count, files, (len(logs[service]),))


def noisiest(rng: random.Random) -> BashTask:
    """Which log has the most lines of a level."""
    while True:
        files, logs = log_files(rng)
        level = rng.choice(("ERROR", "WARN"))
        tally = Counter({name: sum(found == level for found, _ in rows) for name, rows in logs.items()}).most_common()
        if tally[0][1] > tally[1][1]:
            break
    request = one_of(
        rng,
        f"Which of the log files in logs has the most lines with the level {level}? Give the file name.",
        f"In which file in logs does {level} come up in the largest number of lines? Submit the name of the file.",
    )
    steps = [
        looking(rng, "logs"),
        run(f"head -n 3 logs/{sorted(logs)[0]}.log"),
        run(f"grep -c ' {level} ' logs/*.log", "wc -l logs/*.log", f"grep -c ' {level} ' logs"),
    ]
    return question(rng, request, steps, f"{tally[0][0]}.log", files, (f"{tally[1][0]}.log",))


def sum_of_region(rng: random.Random) -> BashTask:
    """The sum of a column over some rows of a table."""
    text, rows = sales(rng, rng.randint(15, 40))
    name = f"{one_of(rng, 'sales', 'turnover', 'orders')}_{words(rng, 1)[0]}.csv"
    column, value = rng.choice([(2, rng.choice(rows)[1]), (3, rng.choice(rows)[2])])
    total = sum(row[3] for row in rows if row[column - 1] == value)
    what = ("region", "product")[column - 2]
    request = one_of(
        rng,
        f"In {name}, what is the sum of the amounts of the {what} {value}?",
        f"Add up the column amount of {name} over all rows with the {what} {value}. What do you get?",
    )
    awk = "awk -F, '$%d == \"%s\" {total += $4} END {print total}' %s"
    steps = [
        run("ls"),
        run(f"head -n 4 {name}"),
        run(
            awk % (column, value, name),
            awk % (5 - column, value, name),
            (awk % (column, value, name)).replace("-F, ", ""),
        ),
    ]
    return question(rng, request, steps, total, {name: text, "README.md": prose(rng, 2)})


def top_visitor(rng: random.Random) -> BashTask:
    """The most frequent address in an access log."""
    hosts = [f"10.{rng.randint(0, 9)}.{rng.randint(0, 99)}.{rng.randint(2, 250)}" for _ in range(6)]
    pages = [f"/{name}" for name in words(rng, 5)]
    while True:
        rows = [
            (rng.choice(hosts + hosts[:1]), rng.choice(pages), rng.choice((200, 200, 200, 304, 404, 500)))
            for _ in range(rng.randint(25, 50))
        ]
        field, what = rng.choice(((0, "address"), (1, "page")))
        tally = Counter(row[field] for row in rows).most_common()
        if tally[0][1] > tally[1][1]:
            break
    name = f"{words(rng, 1)[0]}-access.log"
    text = "".join(f"{host} GET {page} {code}\n" for host, page, code in rows)
    request = one_of(
        rng,
        f"Which {what} occurs most often in {name}?",
        f"Find the {what} that has the most lines in the access log {name}.",
    )
    command = f"awk '{{print ${1 + 2 * field}}}' {name} | sort | uniq -c | sort -rn | head -n 3"
    steps = [
        run("ls"),
        run(f"head -n 4 {name}"),
        run(command, command.replace("sort | uniq", "uniq"), command.replace(f"${1 + 2 * field}", "$2")),
    ]
    return question(rng, request, steps, tally[0][0], {name: text, "notes.txt": prose(rng, 3)}, (tally[1][0],))


def longest_file(rng: random.Random) -> BashTask:
    """Which file has the most lines."""
    folder, *rest = words(rng, 7)
    counts = rng.sample(range(2, 14), 6)
    files = {f"{folder}/{name}.txt": prose(rng, count) for name, count in zip(rest, counts, strict=True)}
    most = rng.random() < 0.6
    best = (max if most else min)(zip(counts, rest, strict=True))[1]
    request = one_of(
        rng,
        f"Which file in {folder} has the {'most' if most else 'fewest'} lines? Give its name.",
        f"Of the files in the folder {folder}, which one is the"
        f" {'longest' if most else 'shortest'}, counted in lines? I need the name.",
    )
    command = f"wc -l {folder}/*.txt | sort {'-rn' if most else '-n'}"
    steps = [
        looking(rng, folder),
        run(command, f"wc -c {folder}/*.txt", command.replace("n", "", 1) if False else f"ls -lS {folder}"),
    ]
    return question(rng, request, steps, f"{best}.txt", files, (f"{rest[0]}.txt", f"{rest[1]}.txt"))


def inside_archive(rng: random.Random) -> BashTask:
    """A value in a file that is in an archive."""
    name, top, *rest = words(rng, 7)
    keys = rng.sample(("host", "port", "user", "region", "token", "retries"), 4)
    values = {
        key: one_of(rng, f"{rng.choice(rest)}-{rng.randint(10, 99)}", str(rng.randint(1000, 9999))) for key in keys
    }
    key = rng.choice(keys)
    members = {f"{top}/{rest[0]}.txt": prose(rng, 3), f"{top}/{rest[1]}.txt": prose(rng, 2)}
    members[f"{top}/{rest[2]}.conf"] = "".join(f"{name} = {value}\n" for name, value in values.items())
    request = one_of(
        rng,
        f"The archive {name}.tar.gz has a .conf file in it. What is the value of '{key}' there?",
        f"Somewhere in {name}.tar.gz there is a configuration file (.conf) that sets '{key}'. To what?",
    )
    path = f"{top}/{rest[2]}.conf"
    steps = [
        run("ls"), run(f"tar -tzf {name}.tar.gz", f"tar -tzf {name}.tar"),
        run(f"tar -xzf {name}.tar.gz", f"tar -czf {name}.tar.gz", f"gunzip {name}.tar.gz"),
        *([read(path)] if rng.random() < 0.5 else [run(f"grep '{key}' {path}")]),
    ]  # fmt: skip
    others = tuple(value for other, value in values.items() if other != key)
    return question(rng, request, steps, values[key], {f"{name}.tar.gz": archive(members)}, others)


def disk_hog(rng: random.Random) -> BashTask:
    """Which subfolder holds the most files."""
    top, *folders = words(rng, 5)
    counts = rng.sample(range(1, 8), 4)
    files = {
        f"{top}/{folder}/{name}.dat": prose(rng, 1)
        for folder, count in zip(folders, counts, strict=True)
        for name in words(rng, count)
    }
    best = max(zip(counts, folders, strict=True))[1]
    request = one_of(
        rng,
        f"Which folder in {top} has the largest number of files in it? Give the name of the folder.",
        f"The files in {top} are spread over some folders. Which of these folders has the most files?",
    )
    command = f'for folder in {top}/*/; do echo "$(ls $folder | wc -l) $folder"; done | sort -rn'
    slip = f"ls {top} | wc -l"
    return question(rng, request, [run(f"ls {top}"), run(command, slip)], best, files, tuple(folders[:2]))


QUESTIONS = {
    "find_phrase": find_phrase, "count_level": count_level, "noisiest": noisiest, "sum_of_region": sum_of_region,
    "top_visitor": top_visitor, "longest_file": longest_file, "inside_archive": inside_archive, "disk_hog": disk_hog,
}  # fmt: skip
