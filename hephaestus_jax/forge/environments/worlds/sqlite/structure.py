"""Tasks that change the structure of a generated database: views, indexes, columns."""

from __future__ import annotations

import random

from hephaestus_jax.forge.environments.worlds.crafted.words import one_of
from hephaestus_jax.forge.environments.worlds.sqlite.changes import Check, change, rows_of, whole
from hephaestus_jax.forge.environments.worlds.sqlite.schemas import World
from hephaestus_jax.forge.environments.worlds.sqlite.tasks import SqliteTask, exploring, sql


def make_view(rng: random.Random) -> SqliteTask:
    """A view with a total per person or item."""
    w = World(rng)
    name = one_of(rng, f"{w.item}_totals", f"{w.e}_per_{w.item}", f"{w.item}_summary")
    totals: dict[int, list[int]] = {}
    for row in w.events:
        entry = totals.setdefault(row[w.e_i], [0, 0])
        entry[0] += 1
        entry[1] += row[w.amount]
    wanted = sorted([row[w.title], *totals[row[w.iid]]] for row in w.items if row[w.iid] in totals)
    request = one_of(
        rng,
        f"Create a view {name} with the columns {w.title}, number and total: for every {w.item}"
        f" that has {w.e}, how many they are and the sum of their {w.amount}.",
        f"I need a view called {name}. It has one row per {w.item} with at least one {w.event},"
        f" with the columns {w.title}, number (of {w.e}) and total (the sum of {w.amount}).",
    )
    query = (
        f"SELECT i.{w.title} AS {w.title}, COUNT(*) AS number, SUM(e.{w.amount}) AS total FROM {w.i} i"
        f" JOIN {w.e} e ON e.{w.e_i} = i.{w.iid} GROUP BY i.{w.iid}"
    )
    create = f"CREATE VIEW {name} AS {query}"
    steps = [
        *exploring(rng, w, w.i, w.e), sql(query),
        sql(create, create.replace("VIEW", "TABLE"), create.replace(f" GROUP BY i.{w.iid}", "")),
        sql(f"SELECT * FROM {name} LIMIT 5"),
    ]  # fmt: skip
    checks: list[Check] = [
        (f"SELECT {w.title}, number, total FROM {name} ORDER BY 1, 2, 3", wanted),
        (f"SELECT type FROM sqlite_master WHERE name = '{name}'", [["view"]]), whole(w.e, w.events),
    ]  # fmt: skip
    return change(rng, w, request, steps, checks)


def make_index(rng: random.Random) -> SqliteTask:
    """An index on one or two columns, unique or not."""
    w = World(rng)
    table, columns, unique = rng.choice(
        [(w.e, [w.day], False), (w.e, [w.e_p, w.day], False), (w.p, [w.pmail], True), (w.i, [w.cat, w.price], False),
         (w.i, [w.title], True), (w.e, [w.status], False), (w.p, [w.pcity], False)]
    )  # fmt: skip
    name = one_of(rng, f"idx_{table}_{columns[0]}", f"{table}_by_{columns[0]}", f"ix_{columns[-1]}")
    on = " and ".join(columns)
    request = one_of(
        rng,
        f"Searching {table} by {on} is slow. Create {'a unique' if unique else 'an'} index named"
        f" {name} on {on}{', in this order' if len(columns) > 1 else ''}.",
        f"Add {'a unique' if unique else 'an'} index {name} to the table {table}, on"
        f" {on}{', in this order' if len(columns) > 1 else ''}.",
    )
    create = f"CREATE {'UNIQUE ' if unique else ''}INDEX {name} ON {table}({', '.join(columns)})"
    slips = (create.replace("UNIQUE ", ""), f"CREATE INDEX {name} ON {table}")
    check = f"SELECT name FROM pragma_index_info('{name}') ORDER BY seqno"
    steps = [
        *exploring(rng, w, table), sql(create, *(slip for slip in slips if slip != create)),
        sql(f"SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = '{table}'"),
    ]  # fmt: skip
    checks: list[Check] = [
        (check, [[column] for column in columns]),
        (f"SELECT \"unique\" FROM pragma_index_list('{table}') WHERE name = '{name}'", [[int(unique)]]),
        whole(table, {w.e: w.events, w.p: w.persons, w.i: w.items}[table]),
    ]
    return change(rng, w, request, steps, checks)


def add_column(rng: random.Random) -> SqliteTask:
    """A new column, filled by a rule."""
    w = World(rng)
    name, limit = rng.choice(("level", "class", "tier", "size")), rng.randint(20, 60)
    high, low = rng.choice((("high", "low"), ("large", "small"), ("A", "B"), ("premium", "basic")))
    wanted = [{**row, name: high if row[w.price] >= limit else low} for row in w.items]
    request = one_of(
        rng,
        f"Add a text column {name} to {w.i}: '{high}' where the {w.price} is {limit} or more, '{low}' elsewhere.",
        f"The table {w.i} needs a column {name} (TEXT), which says '{high}' for a {w.price} of at"
        f" least {limit} and '{low}' for the rest.",
    )
    update = f"UPDATE {w.i} SET {name} = CASE WHEN {w.price} >= {limit} THEN '{high}' ELSE '{low}' END"
    slips = (
        update.replace(">=", ">"),
        update.replace(" END", ""),
        f"UPDATE {w.i} SET {name} = '{high}' WHERE {w.price} >= {limit}",
    )
    steps = [
        *exploring(rng, w, w.i), sql(f"ALTER TABLE {w.i} ADD COLUMN {name} TEXT", update), sql(update, *slips),
        sql(f"SELECT {w.title}, {w.price}, {name} FROM {w.i}"),
    ]  # fmt: skip
    columns = ", ".join([*w.items[0], name])
    return change(rng, w, request, steps, [(f"SELECT {columns} FROM {w.i}", rows_of(wanted)), whole(w.e, w.events)])


STRUCTURE = {"make_view": make_view, "make_index": make_index, "add_column": add_column}
