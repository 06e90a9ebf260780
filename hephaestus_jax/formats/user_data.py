"""A user's own corpus: a file or directory of JSON lines or Parquet, as numbered records.

Each row holds `text`, or `messages` (with `tools`; `formats.messages`), or is a trajectory of the Agent Data Protocol
(`formats.adp`). The form is found out per file, from its first well-formed row. Rows that cannot be read are set aside
in a quarantine that counts them and names the place of each; the numbers of records count good rows only.

A row may state `licence` (or `license`), `host` or `url`, and, beside `text`, `language`. In nested columns of Parquet
an absent field cannot be told from a null one: both are read as absent.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.adp import trajectory_from_adp
from hephaestus_jax.formats.adp_schema import SCHEMA_VERSION
from hephaestus_jax.formats.messages import trajectory_from_messages
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Document, Identified, Json, Provenance, Record, digest, identify
from hephaestus_jax.formats.row_files import SUFFIXES, RowFile, file_digest, row_file
from hephaestus_jax.progress import Progress

READER = 1  # raised whenever the same rows are read as other records
KINDS = {"text": "Document", "messages": "Trajectory", "adp": "Trajectory"}  # record kind of each form
_SHOW_PROGRESS_BYTES = 64 << 20  # a smaller corpus is indexed at once
_NESTED_JSON = ("content", "details", "available_custom_tools", "available_apis", "available_code_languages")
_NULLABLE = {  # fields that the Agent Data Protocol requires and lets be null
    "code_action": ("description",),
    "web_observation": ("html", "axtree", "url", "image_observation", "viewport_size"),
}


@dataclass(frozen=True)
class UserDataSource:
    """Numbered records of a user's corpus: files sorted by name, rows in order.

    Everything is read and checked once, on first use; what that found is pickled with the source, so that workers
    start at once.

    Attributes:
        path: a directory, searched with its subdirectories for *.jsonl, *.jsonl.gz and *.parquet, or one such file.
        licence: of rows that state none.
        slice: the slice of documents, "text" or "code".
        adp_version: the schema version of ADP trajectories that state none.
    """

    path: str | Path
    licence: str = "unknown"
    slice: str = "text"
    adp_version: str = SCHEMA_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        if self.slice not in ("text", "code"):
            raise UserError(f"slice of {self.path} is {self.slice!r}; it is 'text' or 'code'")

    def fingerprint(self) -> str:
        """Digest of the files' names and bytes and of the options."""
        files = [[indexed.name, indexed.digest] for indexed in self._index.files]
        return digest([READER, files, self.licence, self.slice, self.adp_version])

    def count(self) -> int:
        """Number of records: rows that are not in quarantine.

        Raises:
            UserError: there is nothing to read, or documents are mixed with trajectories.
        """
        return self._index.starts[-1]

    def read(self, start: int, stop: int) -> Iterator[Identified]:
        """Records `start` to `stop` (exclusive), in order.

        Raises:
            UserError: there are not that many, or a file has changed since it was indexed.
        """
        if not 0 <= start <= stop <= self.count():
            raise UserError(f"{self.path}: records {start} to {stop} of {self.count()} do not exist")
        while start < stop:
            number = bisect_right(self._index.starts, start) - 1
            first, end = self._index.starts[number : number + 2]
            yield from self._index.files[number].read(start - first, min(stop, end) - first, self)
            start = min(stop, end)

    @property
    def kind(self) -> str:
        """What every record is: "Document" or "Trajectory"."""
        return KINDS[next(indexed.form for indexed in self._index.files if indexed.form)]

    @property
    def quarantine(self) -> Quarantine:
        """The rows that could not be read."""
        return self._index.quarantine

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of files in the directory that are of no known kind."""
        return self._index.ignored

    @cached_property
    def _index(self) -> _Index:
        return _build_index(self)


@dataclass(frozen=True)
class _IndexedFile:
    """One file and its good rows."""

    name: str  # relative to the corpus
    rows: RowFile
    digest: str
    stamp: tuple[int, int]  # size in bytes and modification time in ns
    form: str  # "" when no row is good
    keys: array[int]  # of good rows
    numbers: array[int]  # line numbers of good rows

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, start: int, stop: int, source: UserDataSource) -> Iterator[Identified]:
        """The records of good rows `start` to `stop` of this file."""
        if _stamp(self.rows.path) != self.stamp:
            raise UserError(f"{self.rows.path} has changed since it was indexed; start again")
        contents = self.rows.at(list(self.keys[start:stop]))
        for number, content in zip(self.numbers[start:stop], contents, strict=True):
            yield identify(_record(self.form, _parsed(content), _Place(self.name, self.digest, number), source))


class _Place(NamedTuple):
    """Where a row stands."""

    file: str
    digest: str
    number: int


@dataclass(frozen=True)
class _Index:
    files: tuple[_IndexedFile, ...]
    starts: tuple[int, ...]  # number of the first record of each file, then of all records
    quarantine: Quarantine
    ignored: tuple[str, ...]


class _BadRow(Exception):
    """A row for the quarantine: (reason, detail)."""


def _build_index(source: UserDataSource) -> _Index:
    root = Path(source.path)
    names, ignored = _files(root)
    quarantine = Quarantine()
    size = sum(path.stat().st_size for path in names.values())
    with Progress(f"reading {root}", "bytes", size) if size > _SHOW_PROGRESS_BYTES else nullcontext() as progress:
        files = [_index_file(name, path, source, quarantine, progress) for name, path in names.items()]
    if not any(files):
        raise UserError(f"{root}: no row can be read as text, messages or an ADP trajectory; {quarantine.summary()}")
    firsts: dict[str, str] = {}
    for indexed in files:
        if indexed.form:
            firsts.setdefault(KINDS[indexed.form], f"{indexed.form} ({indexed.name})")
    if len(firsts) > 1:
        raise UserError(
            f"{root} mixes {' and '.join(firsts.values())}; give documents and trajectories a directory each, and mix"
            " them as two tasks"
        )
    return _Index(tuple(files), (0, *accumulate(map(len, files))), quarantine, ignored)


def _files(root: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Files to read by name, sorted, and the names of those that are of no known kind."""
    if root.is_file():
        found = {root.name: root}
    elif root.is_dir():
        paths = (path for path in root.rglob("*") if path.is_file())
        found = {path.relative_to(root).as_posix(): path for path in paths}
    else:
        raise UserError(f"no file or directory at {root}; check the path of the corpus")
    visible = [name for name in sorted(found) if not any(part.startswith(".") for part in name.split("/"))]
    usable = {name: found[name] for name in visible if name.endswith(SUFFIXES)}
    ignored = tuple(name for name in visible if name not in usable)
    if not usable:
        others = f", only {', '.join(ignored[:3])}{' …' if len(ignored) > 3 else ''}" if ignored else ""
        raise UserError(f"{root} holds no {' and no '.join('*' + s for s in SUFFIXES)}{others}; convert the data")
    return usable, ignored


def _index_file(
    name: str, path: Path, source: UserDataSource, quarantine: Quarantine, progress: Progress | None
) -> _IndexedFile:
    stamp, digested, rows = _stamp(path), file_digest(path), row_file(path)
    form, keys, numbers, counted = "", array("Q"), array("Q"), 0
    for number, key, content in rows.scan():
        if progress and isinstance(content, bytes):
            counted += len(content)
            progress.add(len(content))
        try:
            row = _parsed(content)
            stated = _form(row)
            if form and stated != form:
                raise _BadRow("another form", f"this row holds {stated}, the first of the file {form}; split the file")
            _record(stated, row, _Place(name, digested, number), source)
        except _BadRow as error:
            quarantine.add(error.args[0], f"{name}:{number}", error.args[1])
            continue
        form = stated
        keys.append(key)
        numbers.append(number)
    if progress:
        progress.add(stamp[0] - counted)  # compressed files hold more bytes than they take
    return _IndexedFile(name, rows, digested, stamp, form, keys, numbers)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); the corpus has changed, start again") from error
    return stat.st_size, stat.st_mtime_ns


# One row.


def _parsed(content: bytes | dict[str, Any]) -> dict[str, Json]:
    if isinstance(content, dict):
        return _from_parquet(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _BadRow("undecodable bytes", f"not UTF-8: {error}; convert the file") from error
    try:
        row = json.loads(text)
        if b"\\ud" in content.lower():
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is valid JSON and no text
    except UnicodeEncodeError as error:
        raise _BadRow("undecodable bytes", f"an escape is half a surrogate pair: {error}") from error
    except (ValueError, RecursionError) as error:
        raise _BadRow("malformed JSON", str(error)) from error
    if not isinstance(row, dict):
        raise _BadRow("not an object", f"expected an object, found {type(row).__name__}")
    return row


def _from_parquet(content: dict[str, Any]) -> dict[str, Json]:
    row = _without_nulls(content)
    steps = row.get("content")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict):
            for name in _NULLABLE.get(step.get("class_", ""), ()):
                step.setdefault(name, None)
    return row


def _without_nulls(value: Any) -> Any:
    """What Parquet gives, as JSON values without null fields."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _form(row: Mapping[str, Json]) -> str:
    """ "messages", "adp" or "text"."""
    if row.get("messages") is not None:
        return "messages"
    if row.get("content") is not None and "id" in row:
        return "adp"
    if row.get("text") is not None:
        return "text"
    keys = ", ".join(sorted(row)[:8]) or "nothing"
    raise _BadRow("unknown form", f"needs text, messages, or id and content (an ADP trajectory); found {keys}")


def _record(form: str, row: dict[str, Json], place: _Place, source: UserDataSource) -> Record:
    """The record of a row.

    Raises:
        _BadRow: the row is no valid one of this form.
    """
    provenance = _provenance(row, place, source)
    try:
        if form == "messages":
            return trajectory_from_messages(row, provenance)
        if form == "adp":
            return trajectory_from_adp(_adp_object(row), provenance, source.adp_version)
    except UserError as error:
        raise _BadRow(f"malformed {'ADP trajectory' if form == 'adp' else form}", str(error)) from error
    if not isinstance(row["text"], str):
        raise _BadRow("malformed text", f"text: expected a string, found {type(row['text']).__name__}")
    language = row.get("language")
    return Document(row["text"], source.slice, provenance, language if isinstance(language, str) else "")


def _provenance(row: Mapping[str, Json], place: _Place, source: UserDataSource) -> Provenance:
    licence = row.get("licence") or row.get("license") or source.licence
    host = row.get("host") or _host(row.get("url"))
    return Provenance(
        source=place.file,
        version=place.digest,
        licence=licence if isinstance(licence, str) else json.dumps(licence),
        host=host if isinstance(host, str) else "",
        path=f"{place.file}:{place.number}",
    )


def _host(url: Json) -> str:
    try:
        return urlsplit(url).hostname or "" if isinstance(url, str) else ""
    except ValueError:  # the row's address is no address
        return ""


def _adp_object(row: Mapping[str, Json]) -> dict[str, Json]:
    """The trajectory without what the corpus says about the row; nested columns may be JSON strings."""
    value = {key: item for key, item in row.items() if key not in ("licence", "license", "host", "url")}
    for key in _NESTED_JSON:
        if isinstance(value.get(key), str):
            try:
                value[key] = json.loads(value[key])
            except (ValueError, RecursionError) as error:
                raise UserError(f"{key}: not JSON ({error})") from error
    return value
