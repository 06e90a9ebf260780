"""Mistakes as people and models make them, when they write a command, a statement or a piece of code.

Each function gives texts near the right one, in a fixed order and made only of it and of names that were seen. Some of
them are wrong in a way that is answered with an error, others do something else in silence; a few may even be right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_MOST = 10


def misspelled(word: str) -> str:
    """A word with one letter left out, from its middle; as given if it is too short."""
    return word[: len(word) // 2] + word[len(word) // 2 + 1 :] if len(word) > 3 else word


def number_changed(word: str) -> str:
    """The plural of a singular, the singular of a plural."""
    return word[:-1] if word.endswith("s") else word + "s"


def sql_slips(text: str, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Statements near `text`; `columns` are those of the tables that were seen."""
    found = [
        re.sub(r" GROUP BY [\w.]+", "", text),
        re.sub(r" WHERE .*?(?= GROUP| ORDER| LIMIT|$)", "", text),
        re.sub(r" ON [\w.]+ = [\w.]+", "", text, count=1),
        re.sub(r"'([^']*)'", r"\1", text, count=1),
        re.sub(r"'([^']*)'", lambda match: f"'{match[1].lower()}'", text, count=1),
        re.sub(r" >= ", " > ", text, count=1),
        re.sub(r" DESC\b", "", text),
        re.sub(r"\)(?=[^)]*$)", "", text, count=1),
        re.sub(r"\bSELECT (.*?) FROM", r"SELECT \1, FROM", text, count=1),
        re.sub(r"\bCOUNT\(\*\)", "SUM(*)", text, count=1),
        re.sub(r"\bORDER BY\b", "SORT BY", text, count=1),
    ]
    for table in sorted(table for table in columns if re.search(rf"\b{table}\b", text))[:3]:
        found.append(re.sub(rf"(?<!\.)\b{table}\b", number_changed(table), text, count=1))
        used = sorted(column for column in columns[table] if re.search(rf"\b{column}\b", text))
        for column in used[:2]:
            found.append(re.sub(rf"\b{column}\b", _other_column(column, columns[table]), text, count=1))
        if used:
            found.append(re.sub(rf"\b{used[-1]}\b", misspelled(used[-1]), text, count=1))
    return _others(found, text)


def _other_column(column: str, columns: Sequence[str]) -> str:
    """A column one may take for another: its neighbour, or the usual name of such a thing."""
    usual = {"name": "full_name", "full_name": "name", "title": "name", "category": "type", "kind": "type", "id": "ID_"}
    return usual[column] if column in usual else columns[(list(columns).index(column) + 1) % len(columns)]


_SHELL_WORDS = {
    "awk", "bash", "cksum", "delete", "done", "echo", "empty", "find", "folder", "grep", "head", "mkdir",
    "name", "print", "sort", "tail", "total", "touch", "type", "uniq",
}  # fmt: skip
_PATH = re.compile(r"(?<![\w./$-])(?:[\w-]+/)*[\w-]+\.\w{2,4}\b")


def bash_slips(text: str, paths: Sequence[str]) -> list[str]:
    """Commands near `text`; `paths` are files that were seen."""
    found = [
        re.sub(r" -[a-zA-Z]{1,3}\b", "", text, count=1),
        re.sub(r" -[a-zA-Z]{1,3}\b(?!.* -[a-zA-Z]{1,3}\b)", "", text, count=1),
        re.sub(r"'([^']*)$", r"\1", text) if "'" in text else text,
        re.sub(r"(?<!>)>(?!>)", ">>", text, count=1),
        text.replace(">>", ">"),
        re.sub(r"\buniq\b", "unique", text, count=1),
        re.sub(r"\bcat\b", "ct", text, count=1),
        re.sub(r"\bgrep\b", "gerp", text, count=1),
        re.sub(r"\bsed -i\b", "sed", text, count=1),
        re.sub(r"\bmkdir -p\b", "mkdir", text, count=1),
        re.sub(r"-f(\d)\b", lambda match: f"-f{int(match[1]) + 1}", text, count=1),
        re.sub(r"\$(\d)\b", lambda match: f"${int(match[1]) + 1}", text, count=1),
        re.sub(r"\| sort \|", "|", text, count=1),
        re.sub(r"; done$", "", text),
        re.sub(r"^cp\b", "mv", text),
        re.sub(r"^ls\b", "sl", text),
    ]
    names = [word for word in re.findall(r"(?<![\w.$%-])[a-z]{4,}(?![\w.])", text) if word not in _SHELL_WORDS]
    found += [re.sub(rf"\b{word}\b", misspelled(word), text, count=1) for word in dict.fromkeys(names[:2])]
    for path in dict.fromkeys(_PATH.findall(text)):
        folder, slash, name = path.rpartition("/")
        stem, _, ending = name.rpartition(".")
        wrong = stem.replace("_", "-") if "_" in stem else misspelled(stem)
        found.append(text.replace(path, f"{folder}{slash}{wrong}.{ending}", 1))
        if "/" in path:
            found.append(text.replace(path, path.rpartition("/")[2], 1))
        near = [other for other in paths if other != path and other.endswith(f".{ending}")]
        if near:
            found.append(text.replace(path, near[len(path) % len(near)], 1))
    return _others(found, text)


def python_slips(text: str, files: Sequence[str]) -> list[str]:
    """Pieces of code near `text`; `files` are those that were seen."""
    found = [
        re.sub(r":\n", "\n", text, count=1),
        re.sub(r"\)$", "", text),
        re.sub(r"^import \w+\n", "", text, count=1),
        re.sub(r"\bint\(([^()]*)\)", r"\1", text, count=1),
        re.sub(r"\bfloat\(([^()]*)\)", r"\1", text, count=1),
        re.sub(r"==", "=", text, count=1),
        re.sub(r">=", ">", text, count=1),
        re.sub(r"\.append\(", ".add(", text, count=1),
        re.sub(r"\.split\(([^()]*)\)", ".split()", text, count=1),
        re.sub(r"\+ 1\b", "", text, count=1),
        re.sub(r"\breturn\b", "print", text, count=1),
        re.sub(r"\[1:\]", "", text, count=1),
        re.sub(r"\[\"(\w+)\"\]", lambda match: f'["{match[1].title()}"]', text, count=1),
        re.sub(r"\[\"(\w+)\"\]", r".\1", text, count=1),
        re.sub(r", reverse=True", "", text, count=1),
        re.sub(r"\n    ", "\n", text, count=1),
    ]
    defined = sorted(set(re.findall(r"^(\w{4,}) = ", text, re.MULTILINE)))
    for name in defined[:2]:
        last = text.rfind(name)
        if last > text.find(name):
            found.append(text[:last] + misspelled(name) + text[last + len(name) :])
    for file in files:
        if f'"{file}"' in text:
            stem, _, ending = file.rpartition(".")
            found.append(text.replace(file, f"{misspelled(stem)}.{ending}", 1))
            near = [other for other in files if other != file]
            if near:
                found.append(text.replace(file, near[len(file) % len(near)], 1))
    return _others(found, text)


def _others(found: Sequence[str], text: str) -> list[str]:
    """Those that differ from the right text and from each other."""
    unique = [item for item in dict.fromkeys(found) if item.strip() and item != text]
    step = max(1, len(unique) // _MOST)
    return unique[::step][:_MOST]
