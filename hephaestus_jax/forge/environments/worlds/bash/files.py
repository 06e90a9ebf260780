"""What generated folders hold: logs, tables, notes, configuration files; and what a task in one is."""

from __future__ import annotations

import io
import random
import tarfile
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.crafted.crafted import CraftedTask, Step
from hephaestus_jax.forge.environments.worlds.crafted.words import (
    LINES,
    PRODUCTS,
    REGIONS,
    SERVICES,
    asked_by,
    day,
    one_of,
)

Files = dict[str, str]  # path → text; a path that ends in "/" is an empty folder


@dataclass(frozen=True)
class BashTask(CraftedTask):
    """`files` is the folder at first (`modes` those that are not 644).

    `wanted` says what some paths must be in the end: a text, None for nothing, a number for a mode, a set for these
    lines in any order, a dictionary for an archive with these members, `...` for anything. All other files must be as
    they were. `proof` is a command that must bring all this about when it is run in a copy of the folder.
    """

    files: Files = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, Any] = field(default_factory=dict)
    proof: str = ""


def run(command: str, *slips: str) -> Step:
    """A command, and commands that one may type by mistake."""
    return Step(shell(command), tuple(shell(slip) for slip in slips))


def shell(command: str) -> Call:
    """A call that runs a command."""
    return Call("run", {"command": command})


def read(path: str) -> Step:
    """A look at a file."""
    return Step(Call("read_file", {"path": path}))


def question(
    rng: random.Random, request: str, steps: list[Step], answer: object, files: Files, near: tuple[object, ...] = ()
) -> BashTask:
    """A task that asks for an answer."""
    ending = one_of(rng, "Submit the answer.", "Look into it and submit what you find.", "Submit it once you know it.")
    goal = asked_by(rng, request, ending)
    others = tuple(str(item) for item in near if str(item) != str(answer))
    return BashTask(goal, tuple(steps), str(answer), others, files)


def change(
    rng: random.Random, request: str, steps: list[Step], files: Files, wanted: dict[str, Any],
    modes: dict[str, int] | None = None, proof: str = "",
) -> BashTask:  # fmt: skip
    """A task that asks for changes."""
    ending = one_of(
        rng, "Submit when it is done.", "Leave everything else as it is, and hand the task in at the end.",
        "Submit without an answer when you are done.",
    )  # fmt: skip
    goal = asked_by(rng, request, ending)
    return BashTask(goal, tuple(steps), "", (), files, modes or {}, wanted, proof)


def looking(rng: random.Random, folder: str = "") -> Step:
    """One of the usual first looks at a folder."""
    if folder:
        return run(one_of(rng, f"ls {folder}", f"ls -1 {folder}", f"find {folder} -type f | sort"))
    return run(one_of(rng, "ls", "ls -R", "find . -type f | sort"))


def prose(rng: random.Random, lines: int) -> str:
    """A text of so many lines, all different."""
    return "".join(f"{line}\n" for line in rng.sample(LINES, lines))


def log(rng: random.Random, service: str, lines: int) -> list[tuple[str, str]]:
    """Lines of a log as (level, line)."""
    date, second, found = day(rng), rng.randint(0, 40_000), []
    for _ in range(lines):
        second += rng.randint(1, 900)
        level = rng.choice(("INFO", "INFO", "INFO", "WARN", "ERROR", "DEBUG"))
        clock = f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        words_ = rng.choice(
            (f"request {rng.randint(100, 999)} took {rng.randint(3, 900)} ms", f"connection from"
        f" 10.0.{rng.randint(0, 9)}.{rng.randint(2, 250)}",
             f"queue length {rng.randint(0, 80)}", "cache refreshed", f"retry {rng.randint(1, 5)} of job"
        f" {rng.randint(10, 99)}")
        )  # fmt: skip
        found.append((level, f"{date} {clock} {level} {service}: {words_}"))
    return found


def log_files(rng: random.Random, folder: str = "logs") -> tuple[Files, dict[str, list[tuple[str, str]]]]:
    """Logs of a few services: as files, and as (level, line) by service."""
    logs = {service: log(rng, service, rng.randint(12, 30)) for service in sorted(rng.sample(SERVICES, 4))}
    return {f"{folder}/{name}.log": "".join(f"{line}\n" for _, line in rows) for name, rows in logs.items()}, logs


def sales(rng: random.Random, rows: int) -> tuple[str, list[tuple[str, str, str, int]]]:
    """A table of sales: its text, and its rows (day, region, product, amount)."""
    regions, products = rng.sample(REGIONS, 4), rng.sample(PRODUCTS, 6)
    found = [(day(rng, 2024), rng.choice(regions), rng.choice(products), rng.randint(5, 400)) for _ in range(rows)]
    lines = "".join(f"{when},{region},{product},{amount}\n" for when, region, product, amount in found)
    return f"date,region,product,amount\n{lines}", found


def archive(members: Files) -> str:
    """A tar.gz archive, as the text that stands for its bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.USTAR_FORMAT, compresslevel=6) as tar:
        for path, text in sorted(members.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = len(text.encode()), 0o644, 1_700_000_000
            tar.addfile(info, io.BytesIO(text.encode()))
    data = bytearray(buffer.getvalue())
    data[4:8] = bytes(4)  # the time of compression
    return bytes(data).decode("utf-8", "surrogateescape")


def members_of(text: str) -> dict[str, str] | None:
    """The files in an archive, None if it is not one."""
    try:
        with tarfile.open(fileobj=io.BytesIO(text.encode("utf-8", "surrogateescape")), mode="r:*") as tar:
            found = {}
            for info in tar.getmembers():
                file = tar.extractfile(info)
                if file is not None:
                    found[info.name.removeprefix("./")] = file.read().decode()
            return found
    except (tarfile.TarError, OSError, UnicodeError, EOFError):
        return None
