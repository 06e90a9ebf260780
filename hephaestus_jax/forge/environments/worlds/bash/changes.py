"""Changes of where files are and what they are called, to be made with a shell."""

from __future__ import annotations

import random
from typing import Any

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.bash.files import (
    BashTask,
    change,
    looking,
    prose,
    run,
)
from hephaestus_jax.forge.environments.worlds.crafted.crafted import Step
from hephaestus_jax.forge.environments.worlds.crafted.words import one_of, words


def _moved(files: dict[str, str], moves: dict[str, str]) -> dict[str, Any]:
    """What is wanted where files go from one path to another."""
    gone: dict[str, Any] = {old: None for old in moves}
    return gone | {new: files[old] for old, new in moves.items()}


def rename_endings(rng: random.Random) -> BashTask:
    """All files of one ending get another."""
    folder, *names = words(rng, 7)
    old, new = rng.choice((("txt", "md"), ("jpeg", "jpg"), ("htm", "html"), ("yml", "yaml"), ("text", "txt")))
    files = {f"{folder}/{name}.{old}": prose(rng, 2) for name in names[:4]}
    files |= {f"{folder}/{names[4]}.csv": "a,b\n1,2\n", f"{folder}/{names[5]}.log": prose(rng, 1)}
    request = one_of(
        rng,
        f"Rename every .{old} file in {folder} so that it ends in .{new} instead.",
        f"The files in {folder} that end in .{old} should end in .{new}; the names stay otherwise the same.",
    )
    loop = f'for f in {folder}/*.{old}; do mv "$f" "${{f%.{old}}}.{new}"; done'
    steps = [
        looking(rng, folder),
        run(loop, f"mv {folder}/*.{old} {folder}/*.{new}", loop.replace(f"%.{old}", "")),
        run(f"ls {folder}"),
    ]
    moves = {f"{folder}/{name}.{old}": f"{folder}/{name}.{new}" for name in names[:4]}
    return change(rng, request, steps, files, _moved(files, moves))


def sort_into_folders(rng: random.Random) -> BashTask:
    """Files go into folders by their ending."""
    inbox, *names = words(rng, 9)
    kinds = dict(rng.sample((("csv", "tables"), ("log", "logs"), ("txt", "notes"), ("conf", "settings")), 2))
    files = {f"{inbox}/{name}.{rng.choice(sorted(kinds))}": prose(rng, 1) for name in names[:6]}
    for number, ending in enumerate(sorted(kinds)):
        files[f"{inbox}/{names[6 + number]}.{ending}"] = prose(rng, 2)
    places = sorted(kinds.items())
    request = one_of(
        rng,
        f"Tidy up {inbox}: move the .{places[0][0]} files to {inbox}/{places[0][1]} and the"
        f" .{places[1][0]} files to {inbox}/{places[1][1]}. The folders do not exist yet.",
        f"In {inbox}, make the folders {places[0][1]} and {places[1][1]}; put all .{places[0][0]}"
        f" files into the first and all .{places[1][0]} files into the second.",
    )
    make = f"mkdir {inbox}/{places[0][1]} {inbox}/{places[1][1]}"
    moves = [
        run(
            f"mv {inbox}/*.{ending} {inbox}/{place}/",
            f"mv {inbox}/*.{ending} {place}/",
            f"mv {inbox}/*.{ending} {inbox}/{places[0][1]}/"
            if ending != places[0][0]
            else (f"mv {inbox}/*.{ending} {inbox}/{places[1][1]}/"),
        )
        for ending, place in places
    ]
    steps = [
        looking(rng, inbox),
        run(make, f"mkdir {places[0][1]} {places[1][1]}"),
        *moves,
        run(f"find {inbox} -type f | sort"),
    ]
    wanted = _moved(
        files, {path: f"{inbox}/{kinds[path.rpartition('.')[2]]}/{path.rpartition('/')[2]}" for path in files}
    )
    return change(rng, request, steps, files, wanted)


def pack(rng: random.Random) -> BashTask:
    """A folder is packed into an archive."""
    folder, name, *rest = words(rng, 7)
    files = {f"{folder}/{word}.txt": prose(rng, 2) for word in rest[:3]}
    files |= {f"{folder}/{rest[3]}/{word}.csv": "a,b\n3,4\n" for word in rest[4:]}
    request = one_of(
        rng,
        f"Pack the folder {folder} into a compressed archive {name}.tar.gz; the paths in it should"
        f" begin with {folder}/. Keep the folder.",
        f"Make a gzip-compressed tar archive called {name}.tar.gz of the whole folder {folder}"
        f" (paths beginning with {folder}/), and keep the folder itself.",
    )
    command = f"tar -czf {name}.tar.gz {folder}"
    slips = (
        f"tar -czf {folder} {name}.tar.gz",
        f"tar -xzf {name}.tar.gz {folder}",
        f"cd {folder} && tar -czf ../{name}.tar.gz .",
    )
    steps = [looking(rng), run(command, *slips), run(f"tar -tzf {name}.tar.gz | sort")]
    return change(rng, request, steps, files, {f"{name}.tar.gz": dict(files)})


def make_executable(rng: random.Random) -> BashTask:
    """Scripts become executable, or files become private."""
    folder, *names = words(rng, 7)
    if rng.random() < 0.5:
        ending, mode, how, what = "sh", 0o755, "u=rwx,go=rx", "executable by everyone (mode 755)"
    else:
        ending, mode, how, what = "key", 0o600, "600", "readable and writable by their owner only (mode 600)"
    files = {f"{folder}/{name}.{ending}": f"echo {name}\n" for name in names[:3]}
    files |= {f"{folder}/{name}.txt": prose(rng, 1) for name in names[3:5]}
    request = one_of(
        rng,
        f"Make all .{ending} files in {folder} {what}.",
        f"The .{ending} files in {folder} must be {what}; do not touch the other files there.",
    )
    number = f"{mode:o}"
    command = f"chmod {rng.choice((how, number))} {folder}/*.{ending}"
    slips = (
        f"chmod {number} {folder}/*",
        f"chmod {number} *.{ending}",
        f"chmod 644 {folder}/*.{ending}",
        f"chmod -R {number} {folder}",
    )
    steps = [run(f"ls -l {folder}"), run(command, *slips), run(f"ls -l {folder}")]
    return change(rng, request, steps, files, {path: mode for path in files if path.endswith(ending)})


def clean_up(rng: random.Random) -> BashTask:
    """Files of no use are deleted: by ending, or because they are empty."""
    top, *names = words(rng, 10)
    sub = f"{top}/{names[8]}"
    files = {f"{rng.choice((top, sub))}/{name}.txt": prose(rng, 2) for name in names[:4]}
    empty = rng.random() < 0.4
    ending = rng.choice(("tmp", "bak", "old"))
    if empty:
        junk = {f"{place}/{name}.txt": "" for place, name in zip((top, sub, sub), names[4:7], strict=True)}
        command, what = f"find {top} -type f -empty -delete", "empty"
        find = f"find {top} -type f -empty | sort"
    else:
        junk = {
            f"{place}/{name}.{ending}": prose(rng, 1) for place, name in zip((top, sub, sub), names[4:7], strict=True)
        }
        command, what = f"find {top} -type f -name '*.{ending}' -delete", f".{ending}"
        find = f"find {top} -type f -name '*.{ending}' | sort"
    files |= junk
    request = one_of(
        rng,
        f"Delete all {what} files below {top}, also in the folders inside it.",
        f"Remove every {what} file in {top} and its subfolders, and no other file.",
    )
    slips = (
        f"rm {top}/*.{ending}",
        f"rm {top}/{names[4]}.txt",
        f"find {top} -type f -name '*{'' if empty else ending}' -delet",
    )
    steps = [run(f"find {top} -type f | sort"), run(find), run(command, *slips), run(f"find {top} -type f | sort")]
    return change(rng, request, steps, files, {path: None for path in junk})


def fetch_file(rng: random.Random) -> BashTask:
    """A file that is somewhere is copied or moved to a folder."""
    top, place, wanted, *names = words(rng, 9)
    deep = f"{top}/{names[0]}/{names[1]}"
    files = {
        f"{top}/{names[2]}.txt": prose(rng, 1),
        f"{top}/{names[0]}/{names[3]}.txt": prose(rng, 1),
        f"{top}/{names[4]}/{names[5]}.txt": prose(rng, 1),
    }
    path = f"{rng.choice((deep, f'{top}/{names[4]}'))}/{wanted}.txt"
    files |= {path: prose(rng, 3), f"{place}/": ""}
    move = rng.random() < 0.5
    request = one_of(
        rng,
        f"There is a file {wanted}.txt somewhere below {top}. {'Move' if move else 'Copy'} it into the folder {place}.",
        f"{'Move' if move else 'Copy'} {wanted}.txt, which is in one of the folders below {top},"
        f" to {place}/{wanted}.txt.",
    )
    command = f"{'mv' if move else 'cp'} {path} {place}/"
    slips = (
        f"{'mv' if move else 'cp'} {top}/{wanted}.txt {place}/",
        f"{'cp' if move else 'mv'} {path} {place}/",
        f"{'mv' if move else 'cp'} {path} .",
    )
    steps = [
        run("ls"),
        run(f"find {top} -name '{wanted}.txt'", f"find {top} -name '{wanted}'"),
        run(command, *slips),
        run(f"ls {place}"),
    ]
    result: dict[str, Any] = {f"{place}/{wanted}.txt": files[path]}
    return change(rng, request, steps, files, result | ({path: None} if move else {}))


def new_project(rng: random.Random) -> BashTask:
    """A structure of folders and small files."""
    name, first, second, *rest = words(rng, 5)
    version, readme = f"{rng.randint(0, 3)}.{rng.randint(0, 9)}.{rng.randint(0, 9)}", f"# {name} {rest[0]}"
    request = (
        f"Set up a project folder {name}: with the folders {first} and {second} in it, a file {name}/VERSION that says"
        f" {version}, and a file {name}/README.md with the single line '{readme}'."
    )
    slips = (f"mkdir {name}/{first} {name}/{second}", f"mkdir -p {first} {second}")
    write = (
        [
            Step(
                Call("write_file", {"path": f"{name}/VERSION", "text": f"{version}\n"}),
                (Call("write_file", {"path": "VERSION", "text": f"{version}\n"}),),
            ),
            Step(
                Call("write_file", {"path": f"{name}/README.md", "text": f"{readme}\n"}),
                (Call("write_file", {"path": f"{name}/README.md", "text": f"{name}\n"}),),
            ),
        ]
        if rng.random() < 0.5
        else [
            run(f"echo '{version}' > {name}/VERSION"),
            run(f"echo '{readme}' > {name}/README.md", f"echo {readme} > {name}/README.md"),
        ]
    )
    steps = [run("ls"), run(f"mkdir -p {name}/{first} {name}/{second}", *slips), *write, run(f"find {name} | sort")]
    wanted = {
        f"{name}/{first}": 0o755,
        f"{name}/{second}": 0o755,
        f"{name}/VERSION": f"{version}\n",
        f"{name}/README.md": f"{readme}\n",
    }
    return change(rng, request, steps, {"notes.txt": prose(rng, 2)}, wanted)


def rotate(rng: random.Random) -> BashTask:
    """Logs move up by one number, in the right order."""
    name = words(rng, 1)[0]
    count = rng.randint(2, 4)
    files = {f"logs/{name}.log": prose(rng, 2)} | {
        f"logs/{name}.log.{n}": prose(rng, n + 1) for n in range(1, count + 1)
    }
    request = one_of(
        rng,
        f"Rotate the logs in the folder logs: {name}.log becomes {name}.log.1, {name}.log.1"
        f" becomes {name}.log.2 and so on up to {name}.log.{count + 1}; then make an empty"
        f" {name}.log.",
        f"In logs, every numbered {name}.log moves up by one (the last becomes"
        f" {name}.log.{count + 1}), {name}.log itself becomes {name}.log.1, and a new empty"
        f" {name}.log takes its place.",
    )
    steps = [run("ls logs")]
    for n in range(count, 0, -1):
        steps.append(
            run(
                f"mv logs/{name}.log.{n} logs/{name}.log.{n + 1}",
                f"mv logs/{name}.log logs/{name}.log.1",
                f"mv logs/{name}.log.{n} logs/{name}.log{n + 1}",
            )
        )
    steps += [
        run(f"mv logs/{name}.log logs/{name}.log.1", f"cp logs/{name}.log logs/{name}.log.1"),
        run(f"touch logs/{name}.log"),
        run("ls logs"),
    ]
    wanted = {f"logs/{name}.log.1": files[f"logs/{name}.log"], f"logs/{name}.log": ""}
    wanted |= {f"logs/{name}.log.{n + 1}": files[f"logs/{name}.log.{n}"] for n in range(1, count + 1)}
    return change(rng, request, steps, files, wanted)


def drop_copies(rng: random.Random) -> BashTask:
    """Of files with the same content only the first by name stays."""
    folder, *names = words(rng, 8)
    names = sorted(names)
    texts = [prose(rng, rng.randint(2, 4)) for _ in range(4)]
    files = dict(zip((f"{folder}/{name}.txt" for name in names), texts + rng.sample(texts, 3), strict=True))
    first: dict[str, str] = {}
    for path in sorted(files):
        first.setdefault(files[path], path)
    copies = [path for path in sorted(files) if first[files[path]] != path]
    request = one_of(
        rng,
        f"Some files in {folder} have the same content. Of each such group keep the one that comes"
        f" first by name and delete the others.",
        f"Remove the duplicate files in {folder}: where several files are identical, only the"
        f" alphabetically first stays.",
    )
    steps = [
        run(f"ls {folder}"),
        run(f"cksum {folder}/*.txt | sort", f"ls -l {folder}"),
        run(f"rm {' '.join(copies)}", f"rm {first[files[copies[0]]]}", f"rm {copies[0]}"),
        run(f"cksum {folder}/*.txt | sort"),
    ]
    return change(rng, request, steps, files, {path: None for path in copies})


CHANGES = {
    "rename_endings": rename_endings, "sort_into_folders": sort_into_folders,
    "pack": pack, "make_executable": make_executable,
    "clean_up": clean_up, "fetch_file": fetch_file, "new_project": new_project,
    "rotate": rotate, "drop_copies": drop_copies,
}  # fmt: skip
