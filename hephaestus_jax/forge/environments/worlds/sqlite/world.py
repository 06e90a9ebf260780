"""SQLite over generated schemas: questions to be answered, and changes to be made."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar

from hephaestus_jax.forge.environments.environment import Call, Terms, Verb, environment
from hephaestus_jax.forge.environments.worlds.crafted.crafted import Crafted, Rehearsed, tidy
from hephaestus_jax.forge.environments.worlds.crafted.reasons import CHECKS, SQL_CHANGES, SQL_FIRST, reasons_by
from hephaestus_jax.forge.environments.worlds.crafted.slips import misspelled, number_changed, sql_slips
from hephaestus_jax.forge.environments.worlds.sqlite.changes import CHANGES
from hephaestus_jax.forge.environments.worlds.sqlite.schemas import literal
from hephaestus_jax.forge.environments.worlds.sqlite.structure import STRUCTURE
from hephaestus_jax.forge.environments.worlds.sqlite.tasks import QUESTIONS, SqliteTask, execute

_ROWS_SHOWN = 50
_OPERATIONS = 20_000_000  # of SQLite's virtual machine that one statement may take: the same on every machine
_OPERATIONS_PER_CALL = 100_000
_PAGES = 4000  # of 4,096 bytes, that a database may have
_VALUE_BYTES = 1_000_000
_MENDED_ROWS = 8
_INDEXES = "SELECT name, sql FROM sqlite_master WHERE type = 'index'"
_UNSEEN = ("runner_up", "running_total", "hand_over")
_FAMILIES = {**QUESTIONS, **CHANGES, **STRUCTURE}
_READ_PRAGMAS = {
    "table_info",
    "table_list",
    "table_xinfo",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
}
# What would read or change the machine, or answer differently each time.
_FORBIDDEN_FUNCTIONS = {"load_extension", "random", "randomblob", "current_time", "current_date", "current_timestamp",
                        "readfile", "writefile", "edit", "fts3_tokenizer"}  # fmt: skip

Content = dict[str, tuple[tuple[str, ...], list[tuple[Any, ...]]]]  # table → its columns and its rows

_VERBS = (
    Verb(
        "list_tables",
        ("List the tables and views of the database.", "Shows which tables and views the database has."),
        {},
        ("show_tables", "tables"),
        (
            "I do not know the database yet, so I begin with its tables.",
            "Which tables are there? I list them first.",
            "Before I write any SQL I want to see what tables exist.",
        ),
    ),
    Verb(
        "describe",
        ("Show the columns of a table.", "Gives the columns of a table with their types, keys and references."),
        {"table": {"type": "string", "description": "Name of the table."}},
        ("table_info", "show_columns"),
        (
            "I need the exact column names of {table}.",
            "How are the columns of {table} called? I look.",
            "Guessing column names leads to errors; I look at {table} first.",
            "I want to know which columns there are before I use them.",
        ),
    ),
    Verb(
        "execute",
        (
            "Execute one SQL statement and show its rows, or how many rows it changed.",
            "Runs a single statement of SQLite's SQL; gives the rows it returns, or the number of rows changed.",
        ),
        {"sql": {"type": "string", "description": "One SQL statement."}},
        ("run_sql", "query"),
        (
            "I know the columns that matter now, so I can write the statement.",
            "This statement should do what the task needs next.",
            "The database can tell me; I put it into SQL.",
            "With what I have seen of the tables, this is the SQL for it.",
        ),
    ),
)


@environment(
    "sqlite",
    Terms("", f"1 (SQLite {sqlite3.sqlite_version})", "Apache-2.0"),
    sorted(_FAMILIES.keys() - set(_UNSEEN)),
    _UNSEEN,
)
class Sqlite(Crafted):
    """SQLite over generated schemas: questions to be answered and changes to be made, checked by queries."""

    name = "sqlite"
    verbs = _VERBS
    systems: ClassVar[tuple[str, ...]] = (
        "You work on a SQLite database through tools. Look at the tables before you query them,"
        " and hand in with submit.",
        "A SQLite database is open. The tools list its tables, describe them and execute SQL, one statement at a time."
        " End the task with submit.",
        "You answer questions about a SQLite database and keep it in order. One statement per call; every statement"
        " outside a transaction takes effect at once. Hand the task in when it is done.",
    )
    families = _FAMILIES
    _task: SqliteTask

    def __init__(self) -> None:
        super().__init__()
        self._connection: sqlite3.Connection | None = None
        self._contents: dict[str, Content] = {}
        self._used = 0

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.execute(f"PRAGMA max_page_count = {_PAGES}")
        connection.set_progress_handler(self._tick, _OPERATIONS_PER_CALL)
        return connection

    def _tick(self) -> int:
        self._used += _OPERATIONS_PER_CALL
        return int(self._used > _OPERATIONS)

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _begin(self, fresh: bool) -> None:
        self.close()
        self._connection = self._open()
        self._db.executescript(self._task.script)
        self._db.set_authorizer(_authorize)
        if fresh:
            self._contents = {self._state(): content(self._db)}

    def _state(self) -> str:
        return _fingerprint(self._db)

    def _rehearse(self, calls: Sequence[Call]) -> list[Rehearsed]:
        kept, copy = self._connection, self._open()
        _copy(self._db, copy)
        copy.set_authorizer(_authorize)
        self._connection = copy
        try:
            made = []
            for call in calls:
                observation, _ = self._do(call)
                made.append(Rehearsed(tidy(observation), self._state()))
                self._contents.setdefault(made[-1].state, content(copy))
            return made
        finally:
            copy.close()
            self._connection = kept

    def _do(self, call: Call) -> tuple[str, bool]:
        self._used = 0
        try:
            if call.tool == "list_tables":
                rows = self._db.execute(
                    "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE"
                    " 'sqlite%' ORDER BY name"
                ).fetchall()
                return "\n".join(name if kind == "table" else f"{name} (view)" for name, kind in rows), False
            if call.tool == "describe":
                return self._describe(str(call.arguments["table"]))
            return self._execute(str(call.arguments["sql"])), False
        except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError) as error:
            if "interrupted" in str(error):
                return "Error: the statement took too long and was interrupted.", True
            return f"Error: {error}", True

    def _describe(self, table: str) -> tuple[str, bool]:
        rows = self._db.execute('SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (table,)).fetchall()
        if not rows:
            return f"Error: no such table: {table}", True
        references = dict(
            (column, f"{to}({key})")
            for column, to, key in self._db.execute(
                'SELECT "from", "table", "to" FROM pragma_foreign_key_list(?)', (table,)
            )
        )
        lines = []
        for name, kind, required, key in rows:
            extras = ["primary key"] * bool(key) + ["not null"] * bool(required)
            extras += [f"references {references[name]}"] if name in references else []
            lines.append(f"{name} {kind}{' ' + ', '.join(extras) if extras else ''}".strip())
        return "\n".join(lines), False

    def _execute(self, text: str) -> str:
        before = self._db.total_changes
        cursor = self._db.execute(text)
        if cursor.description is None:
            changed = self._db.total_changes - before
            if re.match(r"\s*(insert|update|delete|replace|with)\b", text, re.IGNORECASE):
                return f"{changed} row{'s' if changed != 1 else ''} changed."
            return "Done."
        rows = cursor.fetchmany(_ROWS_SHOWN + 1)
        more = len(rows) > _ROWS_SHOWN
        cursor.close()
        lines = [" | ".join(column[0] for column in cursor.description or ()), *map(_line, rows[:_ROWS_SHOWN])]
        lines.append(
            f"(only the first {_ROWS_SHOWN} rows are shown)"
            if more
            else (f"({len(rows)} row{'s' if len(rows) != 1 else ''})")
        )
        return "\n".join(lines)

    def _checks(self) -> tuple[int, int]:
        passed = int(not self._db.in_transaction)
        for query, wanted in self._task.checks:
            self._used = 0
            try:
                passed += [list(row) for row in self._db.execute(query)] == wanted
            except sqlite3.Error:
                continue
        return passed, len(self._task.checks) + 1

    def _mend(self, now: str, states: set[str]) -> Call | None:
        good = self._last_good(states)
        if self._db.in_transaction and not good.endswith("in transaction"):
            return execute("ROLLBACK")
        again = self._redo(states)
        if again is not None:
            return again
        return self._undo_rows(content(self._db), self._contents[good], states)

    def _undo_rows(self, now: Content, wanted: Content, states: set[str]) -> Call | None:
        """A statement that undoes a part of the damage that a player can see, or the look that shows it."""
        surplus = sorted(now.keys() - wanted.keys())
        if surplus:
            kind = self._kind_of(surplus[0])
            look = execute(_INDEXES) if kind == "INDEX" else Call("list_tables")
            drop = execute(f"DROP {kind} {surplus[0]}")
            return drop if self.has_looked(look) else look
        for table, (columns, rows) in sorted(wanted.items()):
            if table not in now or now[table][0] != columns:
                return None
            if now[table][1] != rows:
                return self._undo_row(table, columns, now[table][1], rows, states)
        return None

    def _undo_row(
        self, table: str, columns: tuple[str, ...], now: list[Any], rows: list[Any], states: set[str]
    ) -> Call | None:
        key = columns[0]
        found, wanted = {row[0]: row for row in now}, {row[0]: row for row in rows}
        differ = sorted(
            (number for number in found.keys() | wanted.keys() if found.get(number) != wanted.get(number)), key=str
        )
        if len(differ) > _MENDED_ROWS or not all(
            self._has_seen_cells(_cells_lost(found.get(number), wanted[number]))
            for number in differ
            if number in wanted
        ):
            return None
        number = differ[0]
        if number not in wanted:
            mend = f"DELETE FROM {table} WHERE {key} = {literal(number)}"
        elif number not in found:
            mend = f"INSERT INTO {table} VALUES ({', '.join(map(literal, wanted[number]))})"
        else:
            changed = [at for at in range(len(columns)) if found[number][at] != wanted[number][at]]
            parts = ", ".join(f"{columns[at]} = {literal(wanted[number][at])}" for at in changed)
            mend = f"UPDATE {table} SET {parts} WHERE {key} = {literal(number)}"
        look = execute(f"SELECT * FROM {table}")
        looked = any(heard.call.key == look.key and heard.after not in states for heard in self._heard)
        return execute(mend) if looked else look

    def _has_seen_cells(self, values: set[str]) -> bool:
        """Whether these values once stood in one row of what was shown."""
        lines = (line for heard in self._heard for line in heard.observation.split("\n"))
        return any(values <= set(line.split(" | ")) for line in lines)

    def _kind_of(self, name: str) -> str:
        row = self._db.execute("SELECT type FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        return str(row[0]).upper()

    def _seen_columns(self) -> dict[str, list[str]]:
        """The columns of tables that were described."""
        seen = {}
        for heard in self._heard:
            if heard.call.tool == "describe" and not heard.error:
                seen[str(heard.call.arguments["table"])] = [line.split()[0] for line in heard.observation.split("\n")]
        return seen

    def _seen_tables(self) -> list[str]:
        listed = [heard.observation for heard in self._heard if heard.call.tool == "list_tables"]
        return [line.split()[0] for line in listed[-1].split("\n") if line] if listed else []

    def looks(self) -> Sequence[Call]:
        if self._done:
            return ()
        looks = [Call("list_tables"), *(Call("describe", {"table": table}) for table in self._seen_tables())]
        looks += [execute(f"SELECT * FROM {table} LIMIT 3") for table in sorted(self._seen_columns())]
        return [look for look in looks if not self.has_looked(look)]

    def _slips(self, call: Call) -> list[Call]:
        tables = self._seen_tables()
        if call.tool == "describe":
            table = str(call.arguments["table"])
            return [Call("describe", {"table": name}) for name in (number_changed(table), misspelled(table))]
        if call.tool == "execute":
            return [execute(slip) for slip in sql_slips(str(call.arguments["sql"]), self._seen_columns())]
        if not tables:  # before anything was seen: a guess at what there might be
            words = sorted(set(re.findall(r"\b[a-z]{4,}s\b", self._task.goal)))[:3]
            return [execute(f"SELECT * FROM {word}") for word in words] + [Call("describe", {"table": "main"})]
        return []

    def _why(self, call: Call) -> Sequence[str]:
        text = str(call.arguments.get("sql", ""))
        if not text:
            return ()
        return reasons_by(SQL_CHANGES, text) or (CHECKS if self._is_check() else reasons_by(SQL_FIRST, text))

    def _is_check(self) -> bool:
        """Whether the last thing that was done changed the database."""
        last = next((heard for heard in reversed(self._heard) if not heard.error), None)
        return last is not None and last.before != last.after

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    refused = action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    refused = refused or (action == sqlite3.SQLITE_PRAGMA and (first or "").lower() not in _READ_PRAGMAS)
    refused = refused or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS)
    refused = refused or action == sqlite3.SQLITE_CREATE_VTABLE
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK


def _cells_lost(found: Sequence[Any] | None, wanted: Sequence[Any]) -> set[str]:
    """The key of a row and the values that must be put back into it."""
    lost = [value for at, value in enumerate(wanted) if found is None or found[at] != value]
    return {_line([value]) for value in (wanted[0], *lost)}


def _line(row: Sequence[Any]) -> str:
    return " | ".join("NULL" if value is None else str(value) for value in row)


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return connection.execute("SELECT name, type, sql FROM sqlite_master ORDER BY name").fetchall()


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Makes an empty database like another; `Connection.backup` would wait for ever for an open transaction."""
    views_last = "SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'view', rowid"
    for name, kind, text in source.execute(views_last).fetchall():
        target.execute(text)
        if kind == "table":
            cursor = source.execute(f'SELECT * FROM "{name}"')
            marks = ", ".join("?" for _ in cursor.description)
            target.executemany(f'INSERT INTO "{name}" VALUES ({marks})', cursor)
    if source.in_transaction:
        target.execute("BEGIN")


def content(connection: sqlite3.Connection) -> Content:
    """Every table's columns and rows; of all else its definition."""
    found: Content = {}
    for name, kind, text in _tables(connection):
        found[name] = ((text,), [])
        if kind == "table":
            cursor = connection.execute(f'SELECT * FROM "{name}"')
            found[name] = (tuple(column[0] for column in cursor.description), cursor.fetchall())
    return found


def _fingerprint(connection: sqlite3.Connection) -> str:
    """Equal for databases that hold the same, and are or are not in a transaction."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, kind, text in _tables(connection):
        hashed.update(repr((name, kind, text)).encode("utf-8", "surrogatepass"))
        if kind == "table":
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                hashed.update(repr(row).encode("utf-8", "surrogatepass"))
    return hashed.hexdigest() + (" in transaction" if connection.in_transaction else "")
