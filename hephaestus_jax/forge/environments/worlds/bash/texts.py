"""Changes of what is in files: extracts, replacements, repairs, to be made with a shell."""

from __future__ import annotations

import random

from hephaestus_jax.forge.environments.worlds.bash.files import BashTask, change, log_files, prose, read, run, sales
from hephaestus_jax.forge.environments.worlds.crafted.words import one_of, words


def column_to_file(rng: random.Random) -> BashTask:
    """The different values of a column, sorted, go into a file."""
    text, rows = sales(rng, rng.randint(10, 25))
    name, out = (f"{word}.{ending}" for word, ending in zip(words(rng, 2), ("csv", "txt"), strict=True))
    column, what = rng.choice(((2, "region"), (3, "product")))
    values = sorted({str(row[column - 1]) for row in rows})
    request = one_of(
        rng,
        f"Write every different {what} of {name} into {out}: one per line, sorted, without the header.",
        f"I need a file {out} with the values of the column {what} in {name}, each once and in"
        f" alphabetical order, one per line, no header.",
    )
    command = f"tail -n +2 {name} | cut -d, -f{column} | sort -u > {out}"
    slips = (command.replace("tail -n +2", "cat"), command.replace("sort -u", "uniq"), command.replace("-d, ", ""))
    steps = [run("ls"), run(f"head -n 4 {name}"), run(command, *slips), run(f"cat {out}")]
    return change(
        rng, request, steps, {name: text, "todo.txt": prose(rng, 2)}, {out: "".join(f"{v}\n" for v in values)}
    )


def join_parts(rng: random.Random) -> BashTask:
    """Parts go into one file, in order."""
    folder, out, *_ = words(rng, 3)
    count = rng.randint(3, 5)
    files = {f"{folder}/part{number}.txt": prose(rng, rng.randint(1, 3)) for number in range(1, count + 1)}
    backwards = rng.random() < 0.3
    order = sorted(files, reverse=backwards)
    how = "the highest number first" if backwards else "in the order of their numbers"
    request = one_of(
        rng,
        f"Join the parts in {folder} into one file {out}.txt, {how}. Keep the parts.",
        f"{out}.txt should hold the text of all parts in {folder} one after the other, {how}; the"
        f" parts stay where they are.",
    )
    command = f"cat {' '.join(order)} > {out}.txt"
    slips = (
        f"cat {' '.join(sorted(files, reverse=not backwards))} > {out}.txt",
        f"cat {' '.join(order[:-1])} > {out}.txt",
        f"mv {' '.join(order)} {out}.txt",
    )
    steps = [run(f"ls {folder}"), run(command, *slips), run(f"cat {out}.txt")]
    return change(rng, request, steps, files, {f"{out}.txt": "".join(files[path] for path in order)})


def replace_host(rng: random.Random) -> BashTask:
    """A name is replaced in all configuration files."""
    folder, old, new, *names = words(rng, 8)
    old, new = f"{old}.example.com", f"{new}.example.org"
    files = {
        f"{folder}/{name}.conf": (
            f"name = {name}\nhost = {old if number < 3 else 'localhost'}\nport = {rng.randint(1024, 9999)}\n"
        )
        for number, name in enumerate(names)
    }
    request = one_of(
        rng,
        f"The server {old} is now called {new}. Change it in all configuration files in {folder}.",
        f"Replace {old} by {new} wherever it occurs in the files in {folder}.",
    )
    paths = sorted(path for path, text in files.items() if old in text)
    pattern = old.replace(".", "\\.")
    command = f"sed -i 's/{pattern}/{new}/g' {' '.join(paths)}"
    slips = (
        command.replace("-i ", ""),
        f"sed -i 's/{pattern}/{new}/g' {folder}",
        f"sed -i 's/{pattern}/{new}/g' {paths[0]}",
    )
    steps = [
        run(f"ls {folder}"),
        run(f"grep -r '{old}' {folder} | sort"),
        run(command, *slips),
        run(f"grep -r '{new}' {folder} | sort"),
    ]
    return change(rng, request, steps, files, {path: files[path].replace(old, new) for path in paths})


def failed_jobs(rng: random.Random) -> BashTask:
    """Identifiers of some records of a JSON-lines file go into a file."""
    name, out = words(rng, 2)
    states = ("done", "failed", "queued")
    rows = [(rng.randint(1000, 9999), rng.choice(words(rng, 6)), rng.choice(states)) for _ in range(rng.randint(8, 16))]
    state = rng.choice(states)
    text = "".join(f'{{"id": {number}, "name": "{word}", "state": "{found}"}}\n' for number, word, found in rows)
    numbers = [str(number) for number, _, found in rows if found == state]
    if not numbers:
        return failed_jobs(rng)
    request = one_of(
        rng,
        f'Each line of {name}.jsonl is a record. Write the ids of those with the state "{state}"'
        f" into {out}.txt, one per line, in the order of the file.",
        f'From {name}.jsonl, collect the id of every record that is "{state}" in {out}.txt: one'
        f" id per line, same order.",
    )
    command = f'grep \'"state": "{state}"\' {name}.jsonl | sed \'s/.*"id": \\([0-9]*\\).*/\\1/\' > {out}.txt'
    slips = (
        f'grep \'"state": "{state}"\' {name}.jsonl > {out}.txt',
        command.replace('"state": ', '"state":'),
        command.replace("grep", "grep -v"),
    )
    steps = [run("ls"), run(f"head -n 3 {name}.jsonl"), run(command, *slips), run(f"cat {out}.txt")]
    return change(rng, request, steps, {f"{name}.jsonl": text}, {f"{out}.txt": "".join(f"{n}\n" for n in numbers)})


def split_table(rng: random.Random) -> BashTask:
    """One file per region, without a header."""
    text, rows = sales(rng, rng.randint(10, 20))
    name, folder = words(rng, 2)
    regions = sorted({row[1] for row in rows})
    request = one_of(
        rng,
        f"Split {name}.csv by region: {folder}/<region>.csv gets the lines of that region, in the"
        f" same order and without the header.",
        f"For every region in {name}.csv make a file {folder}/<region>.csv with the rows of this"
        f" region (no header, order kept).",
    )
    loop = f'for r in {" ".join(regions)}; do grep ",$r," {name}.csv > {folder}/$r.csv; done'
    slips = (
        loop.replace(f"{folder}/$r", "$r"),
        loop.replace(f"{' '.join(regions)}", " ".join(regions[:-1])),
        loop.replace("done", ""),
    )
    steps = [
        run(f"head -n 4 {name}.csv"), run(f"tail -n +2 {name}.csv | cut -d, -f2 | sort -u"), run(f"mkdir {folder}"),
        run(loop, *slips), run(f"wc -l {folder}/*.csv"),
    ]  # fmt: skip
    lines = text.splitlines(keepends=True)[1:]
    wanted = {f"{folder}/{region}.csv": "".join(line for line in lines if f",{region}," in line) for region in regions}
    return change(rng, request, steps, {f"{name}.csv": text}, wanted)


def filter_log(rng: random.Random) -> BashTask:
    """Lines of a level from all logs go into one file, sorted."""
    files, logs = log_files(rng)
    level, out = rng.choice(("ERROR", "WARN")), words(rng, 1)[0]
    lines = sorted(line for rows in logs.values() for found, line in rows if found == level)
    request = one_of(
        rng,
        f"Collect all lines with the level {level} from the files in logs in {out}.txt, sorted,"
        f" and without file names in front of them.",
        f"I want one file {out}.txt with every {level} line of the logs (folder logs), in sorted"
        f" order and just as the lines are.",
    )
    command = f"grep -h ' {level} ' logs/*.log | sort > {out}.txt"
    slips = (command.replace("-h ", ""), command.replace(" | sort", ""), command.replace("*.log", f"{min(logs)}.log"))
    steps = [run("ls logs"), run(f"head -n 3 logs/{min(logs)}.log"), run(command, *slips), run(f"head -n 5 {out}.txt")]
    return change(rng, request, steps, files, {f"{out}.txt": "".join(f"{line}\n" for line in lines)})


def mend_config(rng: random.Random) -> BashTask:
    """A check fails because of a configuration file; the right values are in a note."""
    name, host = words(rng, 2)
    right = {
        "host": f"{host}.example.com",
        "port": str(rng.randint(2000, 9000)),
        "workers": str(rng.randint(2, 16)),
        "timeout": str(rng.randint(5, 90)),
    }
    keys = rng.sample(sorted(right), len(right))
    broken = dict(right)
    faults = rng.sample(sorted(right), rng.randint(1, 2))
    for key in faults:
        broken[key] = (
            ""
            if rng.random() < 0.3
            else {"host": host, "port": right["port"][:3], "workers": "many", "timeout": "-" + right["timeout"]}[key]
        )
    rules = {
        "host": "*.example.com",
        "port": "[2-9][0-9][0-9][0-9]",
        "workers": "[1-9]|[1-9][0-9]",
        "timeout": "[1-9]|[1-9][0-9]",
    }
    checks = "".join(
        (
            f'case "$(sed -n "s/^{key}=//p" {name}.conf)" in {rules[key]}) ;; *) echo "bad or missing'
            f' value: {key}"; bad=1 ;; esac\n'
        )
        for key in keys
    )
    script = f"# Checks {name}.conf.\nbad=0\n{checks}if [ $bad = 0 ]; then echo 'all good'; fi\n"
    files = {
        "check.sh": script, f"{name}.conf": "".join(f"{key}={broken[key]}\n" for key in keys),
        "SETTINGS.md": (f"The service {name} runs on {right['host']}, port {right['port']}, with"
        f" {right['workers']} workers and a timeout of {right['timeout']} seconds.\n"),
    }  # fmt: skip
    request = one_of(
        rng,
        f"'bash check.sh' complains about {name}.conf. Mend the file so that the check says 'all"
        f" good'; the right values are in SETTINGS.md.",
        f"Something is wrong with {name}.conf: run 'bash check.sh' to see what. Put in the values"
        f" that SETTINGS.md gives, until the check is content.",
    )
    steps = [run("ls"), run("bash check.sh"), read(f"{name}.conf"), read("SETTINGS.md")]
    for key in (key for key in keys if key in faults):
        fix = f"sed -i 's/^{key}=.*/{key}={right[key]}/' {name}.conf"
        steps.append(
            run(
                fix,
                fix.replace("-i ", ""),
                f"echo '{key}={right[key]}' >> {name}.conf",
                fix.replace(right[key], broken[key] or "0"),
            )
        )
    steps.append(run("bash check.sh"))
    return change(rng, request, steps, files, {f"{name}.conf": {f"{key}={right[key]}" for key in keys}})


def mend_script(rng: random.Random) -> BashTask:
    """A script has a fault; it must be mended and run."""
    text, rows = sales(rng, rng.randint(8, 16))
    data, out, name = words(rng, 3)
    column, what = rng.choice(((2, "region"), (3, "product")))
    line = f"tail -n +2 {data}.csv | cut -d, -f{column} | sort | uniq -c | sort -rn > {out}.txt"
    wrong = rng.choice(
        (
            line.replace(f"{data}.csv", f"{data}.cvs"),
            line.replace("sort -rn", "srot -rn"),
            line.replace("cut -d,", "cut -q,"),
        )
    )
    body = "# Counts the rows of each {}.\nset -e -o pipefail\n{}\necho finished\n"
    files = {f"{name}.sh": body.format(what, wrong), f"{data}.csv": text}
    old, new = next((a, b) for a, b in ((f"{data}.cvs", f"{data}.csv"), ("srot", "sort"), ("-q,", "-d,")) if a in wrong)
    request = one_of(
        rng,
        f"{name}.sh should count the rows of {data}.csv by {what} and write {out}.txt, but it"
        f" fails. Find the fault, mend the script and run it.",
        f"When I run 'bash {name}.sh' I get an error. Repair it, then run it so that {out}.txt is there.",
    )
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row[column - 1])] = counts.get(str(row[column - 1]), 0) + 1
    ranked = sorted(((number, value) for value, number in counts.items()), reverse=True)
    result = "".join(f"{number:7d} {value}\n" for number, value in ranked)
    fix = f"sed -i 's/{old}/{new}/' {name}.sh"
    proof = f"rm -f {out}.txt; bash {name}.sh"
    steps = [
        run("ls"),
        read(f"{name}.sh"),
        run(f"bash {name}.sh"),
        run(fix, fix.replace("-i ", ""), f"sed -i 's/{new}/{old}/' {name}.sh"),
        run(f"bash {name}.sh"),
        run(f"cat {out}.txt"),
    ]
    return change(rng, request, steps, files, {f"{name}.sh": ..., f"{out}.txt": result}, None, proof)


TEXTS = {
    "column_to_file": column_to_file,
    "join_parts": join_parts,
    "replace_host": replace_host,
    "failed_jobs": failed_jobs,
    "split_table": split_table,
    "filter_log": filter_log,
    "mend_config": mend_config,
    "mend_script": mend_script,
}
