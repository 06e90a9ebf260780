"""SQLite over generated schemas: an expert that explores, wins and mends; checks that look at the database alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crafted_checks import after_mistake, check_choices_are_known, check_sql, different_tasks, keep_program_output, won
from environment_checks import check_determinism, check_kind, check_looks_and_undo, check_refusals, replay, told

from hephaestus_jax.forge.environments.environment import ENVIRONMENTS, Call, checked_step
from hephaestus_jax.forge.environments.worlds.sqlite.tasks import execute
from hephaestus_jax.forge.environments.worlds.sqlite.world import Sqlite

KIND = ENVIRONMENTS["sqlite"]
GAMES = (*KIND.games, *KIND.unseen_games)


@pytest.fixture(scope="module")
def database() -> Iterator[Sqlite]:
    environment = Sqlite()
    yield environment
    environment.close()


@pytest.fixture(autouse=True)
def program_output(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_program_output(monkeypatch)


def test_families() -> None:
    check_kind(KIND)
    assert len(KIND.games) >= 12 and len(KIND.unseen_games) >= 2


@pytest.mark.parametrize("game", GAMES)
def test_the_expert_wins_by_what_it_has_read_and_a_replay_says_the_same(database: Sqlite, game: str) -> None:
    other = Sqlite()
    for seed in (3, 2**30 + 8, 2**31 - 1):
        steps = won(database, game, seed, "train", check_sql)
        assert not any(made.error for _, made in steps)
        task, again = replay(other, game, seed, "train", [call for call, _ in steps])
        assert told(task, again) == told(task, steps)


def test_determinism(database: Sqlite) -> None:
    check_determinism("sqlite", "merge_duplicates", 5, environment=database)


@pytest.mark.parametrize("game", ("transfer_stock", "never", "make_view"))
def test_looks_change_nothing(database: Sqlite, game: str) -> None:
    assert check_looks_and_undo(database, game, 1, depth=8)["looks"] >= 8


@pytest.mark.parametrize("game", GAMES[::4])
def test_choices_name_only_tables_that_were_seen(database: Sqlite, game: str) -> None:
    def tables() -> list[str]:
        return [name for (name,) in database._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]

    check_choices_are_known(database, game, 4, tables)


MISTAKES = (  # family, what the right statement has in it, what is written instead
    ("raise_price", "UPDATE", lambda text: text.replace("UPDATE", "UPDAT")),
    ("raise_price", "UPDATE", lambda text: text.partition(" WHERE")[0] + " WHERE 1 = 0"),
    ("hand_over", "UPDATE", lambda text: text.partition(" AND")[0]),
    ("move_person", "UPDATE", lambda text: text.replace("',", "' AND")),
    ("clean_city", "UPDATE", lambda text: text.replace("lower(trim(", "trim((")),
    ("delete_old", "DELETE", lambda text: text.replace("DELETE", "SELECT *")),
    ("delete_old", "SELECT * FROM", lambda text: "CREATE TABLE keep (a)"),
    ("make_view", "CREATE VIEW", lambda text: text.replace("VIEW", "TABLE")),
    ("make_index", "CREATE", lambda text: text.replace("INDEX ", "INDEX the_")),
    ("transfer_stock", "BEGIN", lambda text: "COMMIT"),
    ("transfer_stock", " - ", lambda text: text.replace(" - ", " + ")),
    ("transfer_stock", "COMMIT", lambda text: "ROLLBACK"),
    ("add_event", "INSERT", lambda text: text.replace("VALUES (", "VALUES (1000 + ")),
    ("merge_duplicates", "UPDATE", lambda text: text.replace("SET", "SET WHERE")),
    ("add_column", "UPDATE", lambda text: text.replace(">=", "<")),
    ("never", "LEFT JOIN", lambda text: text.replace("LEFT JOIN", "JOIN")),
)


@pytest.mark.parametrize(("game", "right", "wrong"), MISTAKES)
def test_the_expert_mends_a_mistake(database: Sqlite, game: str, right: str, wrong) -> None:
    assert after_mistake(database, game, 12, right, lambda text: execute(wrong(text)), check_sql) is not None


def test_what_is_lost_is_lost(database: Sqlite) -> None:
    """Rows that nobody has looked at cannot be put back, and the expert does not know them."""
    assert (
        after_mistake(database, "delete_old", 12, "DELETE", lambda text: execute(text.partition(" WHERE")[0])) is None
    )
    assert database.oracle() is None


def test_the_database_decides_not_the_words(database: Sqlite) -> None:
    task = database.reset("raise_price", 12, "train")
    assert not checked_step(database, task.verbs, Call("submit"), None).success
    right = next(step.call for step in database._task.steps if "UPDATE" in str(step.call.arguments))
    text = str(right.arguments["sql"])
    target, rule, where = text.partition(" SET ")[0][7:], *text.partition(" SET ")[2].split(" WHERE ")
    column = rule.split(" = ")[0]
    other = (
        f"UPDATE {target} SET {column} = (SELECT {rule.split(' = ')[1]}) WHERE rowid IN (SELECT"
        f" rowid FROM {target} WHERE {where})"
    )
    assert not checked_step(database, task.verbs, execute(other), None).error
    assert checked_step(database, task.verbs, Call("submit"), None).success
    task = database.reset("raise_price", 12, "train")
    checked_step(database, task.verbs, right, None)
    checked_step(database, task.verbs, right, None)  # twice is wrong
    assert not checked_step(database, task.verbs, Call("submit"), None).success


def test_the_third_wrong_hand_in_ends_the_episode(database: Sqlite) -> None:
    task = database.reset("top_person", 1, "train")
    made = [checked_step(database, task.verbs, Call("submit", {"answer": "nobody"}), None) for _ in range(3)]
    assert [m.done for m in made] == [False, False, True] and not made[-1].success and made[0].error
    assert checked_step(database, task.verbs, Call("list_tables"), None).error and not database.choices()


def test_refusals_and_limits(database: Sqlite) -> None:
    task = database.reset("at_least", 1, "train")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    hostile = (
        "ATTACH 'x.db' AS x", "PRAGMA journal_mode = WAL", "VACUUM INTO 'x.db'", "SELECT load_extension('x')",
        "SELECT random()", "CREATE VIRTUAL TABLE v USING fts5(a)", "SELECT zeroblob(1000000000)", endless,
        "SELECT 1; SELECT 2", "SELEC 1", "SELECT * FROM nothing", "\ud800",
    )  # fmt: skip
    check_refusals(
        database, task, [*map(execute, hostile), Call("describe", {"table": "no such"}), Call("dance"), Call("execute")]
    )
    growing = (
        "CREATE TABLE big AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT"
        " 5000) SELECT zeroblob(9000) FROM n"
    )
    assert "full" in checked_step(database, task.verbs, execute(growing), None).observation


def test_tasks_are_many() -> None:
    assert different_tasks(Sqlite.families, 600) >= 590
