"""Tasks that change a generated database, checked by queries on what it holds in the end."""

from __future__ import annotations

import random
from typing import Any

from hephaestus_jax.forge.environments.worlds.crafted.crafted import Step
from hephaestus_jax.forge.environments.worlds.crafted.words import CITIES, FIRST_NAMES, LAST_NAMES, article, day, one_of
from hephaestus_jax.forge.environments.worlds.sqlite.schemas import Row, World, literal
from hephaestus_jax.forge.environments.worlds.sqlite.tasks import SqliteTask, exploring, sql

Check = tuple[str, list[list[Any]]]  # a query, and the rows that it must give


def change(rng: random.Random, w: World, request: str, steps: list[Step], checks: list[Check]) -> SqliteTask:
    """A task that asks for a change."""
    about = w.about
    goal = one_of(
        rng,
        f"You look after the database of {about}. {request} Submit when it is done.",
        f"{request} It is the database of {about}. Hand the task in once the database is right.",
        f"This is the database of {about}. {request} When you are done, submit without an answer.",
    )
    return SqliteTask(goal, tuple(steps), "", (), w.script(), tuple(checks))


def whole(table: str, rows: list[Row]) -> Check:
    """The check that a table holds these rows and no others."""
    return f"SELECT * FROM {table}", rows_of(rows)


def rows_of(rows: list[Row]) -> list[list[Any]]:
    """Rows as a query gives them."""
    return [list(row.values()) for row in rows]


def raise_price(rng: random.Random) -> SqliteTask:
    """An update of all items of a category."""
    w = World(rng)
    category, by = rng.choice(w.items)[w.cat], rng.randint(2, 9)
    down = rng.random() < 0.3
    by = min(by, min(row[w.price] for row in w.items)) if down else by
    wanted = [{**row, w.price: row[w.price] + (-by if down else by) * (row[w.cat] == category)} for row in w.items]
    request = one_of(
        rng,
        f"{'Lower' if down else 'Raise'} the {w.price} of every {w.item} of the {w.cat} '{category}' by {by}.",
        f"All {w.i} with the {w.cat} '{category}' must cost {by} {'less' if down else 'more'}"
        f" ({w.price}); leave the others alone.",
    )
    update = f"UPDATE {w.i} SET {w.price} = {w.price} {'-' if down else '+'} {by} WHERE {w.cat} = '{category}'"
    view = f"SELECT {w.iid}, {w.title}, {w.price} FROM {w.i} WHERE {w.cat} = '{category}'"
    slips = (
        update.replace(f" = {w.price} {'-' if down else '+'} {by}", f" = {by}"),
        update.replace(category, category.title()),
    )
    return change(
        rng,
        w,
        request,
        [*exploring(rng, w, w.i), sql(view), sql(update, *slips), sql(view)],
        [whole(w.i, wanted), whole(w.e, w.events)],
    )


def add_event(rng: random.Random) -> SqliteTask:
    """A new event of a person and an item that have to be looked up."""
    w = World(rng)
    person, item = rng.choice(w.persons), rng.choice(w.items)
    new = {
        w.eid: w.events[-1][w.eid] + 1, w.e_p: person[w.pid], w.e_i: item[w.iid], w.day: day(rng, w.year + 1),
        w.amount: rng.randint(1, 9), w.status: rng.choice(w.domain.statuses),
    }  # fmt: skip
    request = one_of(
        rng,
        f"Add {article(w.event)} of {person[w.pname]} for the {w.item} '{item[w.title]}': {w.day}"
        f" {new[w.day]}, {w.amount} {new[w.amount]}, {w.status} '{new[w.status]}'.",
        f"A new {w.event} has to be entered: {person[w.pname]}, {w.item} '{item[w.title]}',"
        f" {w.amount} {new[w.amount]}, {w.day} {new[w.day]}, {w.status} '{new[w.status]}'.",
    )
    columns = [w.e_p, w.e_i, w.day, w.amount, w.status]
    insert = f"INSERT INTO {w.e} ({', '.join(columns)}) VALUES ({', '.join(literal(new[name]) for name in columns)})"
    steps = [
        *exploring(rng, w, w.e, w.p, w.i),
        sql(f"SELECT {w.pid} FROM {w.p} WHERE {w.pname} = '{person[w.pname]}'"),
        sql(f"SELECT {w.iid} FROM {w.i} WHERE {w.title} = '{item[w.title]}'"),
        sql(insert, insert.replace(literal(new[w.day]), new[w.day]), insert.replace(f"({', '.join(columns)}) ", "")),
        sql(f"SELECT * FROM {w.e} ORDER BY {w.eid} DESC LIMIT 1"),
    ]
    return change(rng, w, request, steps, [whole(w.e, [*w.events, new]), whole(w.p, w.persons)])


def delete_old(rng: random.Random) -> SqliteTask:
    """Deleting events of a status before a day."""
    while True:
        w = World(rng)
        status, before = rng.choice(w.domain.statuses), f"{w.year}-{rng.randint(4, 9):02d}-01"
        gone = [row for row in w.events if row[w.status] == status and row[w.day] < before]
        if gone:
            break
    request = one_of(
        rng,
        f"Delete the {w.e} with the {w.status} '{status}' and a {w.day} before {before}, and no others.",
        f"Remove every {w.event} that is '{status}' and dated ({w.day}) earlier than {before}.",
    )
    where = f"FROM {w.e} WHERE {w.status} = '{status}' AND {w.day} < '{before}'"
    steps = [
        *exploring(rng, w, w.e), sql(f"SELECT * {where}"),
        sql(f"DELETE {where}", f"DELETE {where}".replace("AND", "OR"), f"DELETE {where}".replace("<", "<=")),
        sql(f"SELECT COUNT(*) {where}"),
    ]  # fmt: skip
    kept = [row for row in w.events if row not in gone]
    return change(rng, w, request, steps, [whole(w.e, kept), whole(w.p, w.persons)])


def move_person(rng: random.Random) -> SqliteTask:
    """An update of one person's city and group."""
    w = World(rng)
    person, group = rng.choice(w.persons), rng.choice(w.groups)
    city = rng.choice([name for name in CITIES if name != person[w.pcity]])
    wanted = [
        {**row, w.pcity: city, w.pgroup: group[w.gid]} if row[w.pid] == person[w.pid] else row for row in w.persons
    ]
    request = one_of(
        rng,
        f"{person[w.pname]} has moved: the {w.pcity} is now {city}, and the {w.group} is '{group[w.gname]}'.",
        f"Change the record of the {w.person} {person[w.pname]}: {w.pcity} {city}, {w.group} '{group[w.gname]}'.",
    )
    view = sql(f"SELECT * FROM {w.p} WHERE {w.pname} = '{person[w.pname]}'")
    update = f"UPDATE {w.p} SET {w.pcity} = '{city}', {w.pgroup} = {group[w.gid]} WHERE {w.pid} = {person[w.pid]}"
    slips = (
        update.replace("',", "' AND"),
        update.replace(f"{w.pgroup} = {group[w.gid]}", f"{w.pgroup} = '{group[w.gname]}'"),
    )
    steps = [*exploring(rng, w, w.p, w.g), sql(f"SELECT * FROM {w.g}"), view, sql(update, *slips), view]
    return change(rng, w, request, steps, [whole(w.p, wanted), whole(w.e, w.events)])


def merge_duplicates(rng: random.Random) -> SqliteTask:
    """Persons entered twice: events go to the first entry, the second goes."""
    w = World(rng)
    twins = rng.sample(w.persons, rng.randint(1, 2))
    extra = [{**row, w.pid: w.persons[-1][w.pid] + number} for number, row in enumerate(twins, 1)]
    single = w.persons
    events = [dict(row) for row in w.events]
    for old, new in zip(twins, extra, strict=True):
        for row in rng.sample(events, 2):
            row[w.e_p] = new[w.pid]
            row["kept"] = old[w.pid]
    wanted = [{**row, w.e_p: row.get("kept", row[w.e_p])} for row in events]
    for row in (*events, *wanted):
        row.pop("kept", None)
    w.persons, w.events = [*single, *extra], events
    request = one_of(
        rng,
        f"Some {w.p} were entered twice, with the same {w.pmail}. Keep the entry with the lowest"
        f" {w.pid}, let the {w.e} of the other point to it, and delete the other.",
        f"There are {w.p} that share a {w.pmail}. For each, point all {w.e} to the entry with the"
        f" lowest {w.pid} and remove the later entry.",
    )
    twice = (
        f"SELECT {w.pmail}, MIN({w.pid}) AS first, MAX({w.pid}) AS last FROM {w.p} GROUP BY"
        f" {w.pmail} HAVING COUNT(*) > 1"
    )
    steps = [*exploring(rng, w, w.p, w.e), sql(twice, twice.replace("HAVING", "WHERE"))]
    pairs = sorted(zip(twins, extra, strict=True), key=lambda pair: pair[0][w.pmail])
    for old, new in pairs:
        update = f"UPDATE {w.e} SET {w.e_p} = {old[w.pid]} WHERE {w.e_p} = {new[w.pid]}"
        swapped = f"UPDATE {w.e} SET {w.e_p} = {new[w.pid]} WHERE {w.e_p} = {old[w.pid]}"
        delete = f"DELETE FROM {w.p} WHERE {w.pid} = {new[w.pid]}"
        steps += [sql(f"SELECT * FROM {w.e} WHERE {w.e_p} = {new[w.pid]}"), sql(update, swapped, delete), sql(delete)]
    steps.append(sql(twice))
    return change(rng, w, request, steps, [whole(w.p, single), whole(w.e, wanted)])


def clean_city(rng: random.Random) -> SqliteTask:
    """One city spelled in several ways."""
    w = World(rng)
    city = w.persons[0][w.pcity]
    clean = [dict(row) for row in w.persons]
    spelled = [city.upper(), city.lower(), f" {city}", f"{city} "]
    dirty = rng.sample(w.persons, rng.randint(2, 4))
    for row, wrong in zip(dirty, rng.sample(spelled, len(dirty)), strict=True):
        row[w.pcity] = wrong
        clean[w.persons.index(row)][w.pcity] = city
    request = one_of(
        rng,
        f"In {w.p}, the {w.pcity} {city} is written in several ways (capitals, spaces). Write it"
        f" as '{city}' everywhere.",
        f"Clean up the column {w.pcity} of {w.p}: every spelling of {city} that differs only by"
        f" case or by spaces at the ends must become '{city}'.",
    )
    view = sql(
        f"SELECT DISTINCT '[' || {w.pcity} || ']' AS {w.pcity} FROM {w.p} ORDER BY 1",
        f"SELECT DISTINCT {w.pcity} FROM {w.p}",
    )
    update = f"UPDATE {w.p} SET {w.pcity} = '{city}' WHERE lower(trim({w.pcity})) = '{city.lower()}'"
    slips = (
        update.replace("lower(trim(", "trim((").replace(city.lower(), city),
        update.replace(f"'{city.lower()}'", f"'{city}'"),
        f"UPDATE {w.p} SET {w.pcity} = '{city}'",
    )
    return change(
        rng,
        w,
        request,
        [*exploring(rng, w, w.p), view, sql(update, *slips), view],
        [whole(w.p, clean), whole(w.e, w.events)],
    )


def transfer_stock(rng: random.Random) -> SqliteTask:
    """Stock moved from one item to another in a transaction."""
    w = World(rng)
    source = max(w.items, key=lambda row: row[w.stock])
    target = rng.choice([row for row in w.items if row is not source])
    number = rng.randint(1, max(1, source[w.stock] - 1))
    by = {source[w.iid]: -number, target[w.iid]: number}
    wanted = [{**row, w.stock: row[w.stock] + by.get(row[w.iid], 0)} for row in w.items]
    request = one_of(
        rng,
        f"Move {number} of what is {w.stock} from '{source[w.title]}' to '{target[w.title]}'"
        f" ({w.i}), both changes in one transaction.",
        f"Within one transaction, take {number} from what is {w.stock} of the {w.item}"
        f" '{source[w.title]}' and add it to '{target[w.title]}'.",
    )
    view = sql(f"SELECT * FROM {w.i} WHERE {w.title} IN ('{source[w.title]}', '{target[w.title]}')")
    less = f"UPDATE {w.i} SET {w.stock} = {w.stock} - {number} WHERE {w.iid} = {source[w.iid]}"
    more = f"UPDATE {w.i} SET {w.stock} = {w.stock} + {number} WHERE {w.iid} = {target[w.iid]}"
    steps = [
        *exploring(rng, w, w.i), view, sql("BEGIN"), sql(less, less.replace(" - ", " + ")),
        sql(more, more.replace(" + ", " - "), "COMMIT"), view, sql("COMMIT", "ROLLBACK"),
    ]  # fmt: skip
    return change(rng, w, request, steps, [whole(w.i, wanted), whole(w.e, w.events)])


def delete_orphans(rng: random.Random) -> SqliteTask:
    """Events whose person does not exist any more."""
    w = World(rng)
    kept = list(w.events)
    lost = [w.persons[-1][w.pid] + number for number in rng.sample(range(3, 30), rng.randint(2, 3))]
    numbers = [w.events[-1][w.eid] + number for number in range(1, 6)]
    orphans = [{**rng.choice(kept), w.eid: number, w.e_p: rng.choice(lost)} for number in numbers]
    w.events = [*kept, *orphans]
    request = one_of(
        rng,
        f"Some {w.e} point to {article(w.person)} that no longer exists. Delete them.",
        f"Remove all {w.e} whose {w.e_p} is not found in {w.p}.",
    )
    where = f"FROM {w.e} WHERE {w.e_p} NOT IN (SELECT {w.pid} FROM {w.p})"
    steps = [
        *exploring(rng, w, w.e, w.p), sql(f"SELECT * {where}"),
        sql(f"DELETE {where}", f"DELETE {where}".replace("NOT IN", "IN")), sql(f"SELECT COUNT(*) {where}"),
    ]  # fmt: skip
    return change(rng, w, request, steps, [whole(w.e, kept), whole(w.p, w.persons)])


def new_person(rng: random.Random) -> SqliteTask:
    """A new person in a group that has to be looked up, and a first event."""
    w = World(rng)
    name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
    if any(row[w.pname] == name for row in w.persons):
        return new_person(rng)
    group, item = rng.choice(w.groups), rng.choice(w.items)
    person = {
        w.pid: w.persons[-1][w.pid] + 1, w.pname: name, w.pcity: rng.choice(CITIES),
        w.pmail: f"{name.lower().replace(' ', '.')}@example.com", w.pgroup: group[w.gid],
    }  # fmt: skip
    event = {
        w.eid: w.events[-1][w.eid] + 1, w.e_p: person[w.pid], w.e_i: item[w.iid], w.day: day(rng, w.year + 1),
        w.amount: rng.randint(1, 9), w.status: rng.choice(w.domain.statuses),
    }  # fmt: skip
    request = (
        f"Enter a new {w.person}: {name} from {person[w.pcity]}, {w.pmail} {person[w.pmail]},"
        f" {w.group} '{group[w.gname]}'."
        f" Then add a first {w.event} for '{item[w.title]}': {w.day} {event[w.day]}, {w.amount} {event[w.amount]},"
        f" {w.status} '{event[w.status]}'."
    )
    insert = (
        f"INSERT INTO {w.p} ({', '.join(list(person)[1:])}) VALUES"
        f" ({', '.join(literal(value) for value in list(person.values())[1:])})"
    )
    second = (
        f"INSERT INTO {w.e} ({', '.join(list(event)[1:])}) VALUES"
        f" ({', '.join(literal(value) for value in list(event.values())[1:])})"
    )
    steps = [
        *exploring(rng, w, w.p, w.g, w.i, w.e), sql(f"SELECT * FROM {w.g}"),
        sql(insert, insert.replace(f"VALUES ('{name}', ", "VALUES ("),
            insert.replace(f", {group[w.gid]})", f", '{group[w.gname]}')")),
        sql(f"SELECT {w.pid} FROM {w.p} WHERE {w.pname} = '{name}'"),
        sql(f"SELECT {w.iid} FROM {w.i} WHERE {w.title} = '{item[w.title]}'"),
        sql(second, second.replace(f"VALUES ({person[w.pid]}", f"VALUES ('{name}'")),
        sql(f"SELECT * FROM {w.e} WHERE {w.e_p} = {person[w.pid]}"),
    ]  # fmt: skip
    return change(rng, w, request, steps, [whole(w.p, [*w.persons, person]), whole(w.e, [*w.events, event])])


def hand_over(rng: random.Random) -> SqliteTask:
    """All events of one status go from one person to another."""
    while True:
        w = World(rng)
        giver, taker = rng.sample(w.persons, 2)
        status = rng.choice(w.domain.statuses)
        if any(row[w.e_p] == giver[w.pid] and row[w.status] == status for row in w.events):
            break
    wanted = [
        {**row, w.e_p: taker[w.pid]} if row[w.e_p] == giver[w.pid] and row[w.status] == status else row
        for row in w.events
    ]
    request = one_of(
        rng,
        f"{taker[w.pname]} takes over the {w.e} of {giver[w.pname]} that have the {w.status}"
        f" '{status}'; the others stay.",
        f"Transfer every {w.event} with {w.status} '{status}' from {giver[w.pname]} to {taker[w.pname]}.",
    )
    where = f"WHERE {w.e_p} = {giver[w.pid]} AND {w.status} = '{status}'"
    update = f"UPDATE {w.e} SET {w.e_p} = {taker[w.pid]} {where}"
    slips = (
        update.replace(f" AND {w.status} = '{status}'", ""),
        f"UPDATE {w.e} SET {w.e_p} = {giver[w.pid]} WHERE {w.e_p} = {taker[w.pid]}",
    )
    steps = [
        *exploring(rng, w, w.p, w.e),
        sql(f"SELECT {w.pid}, {w.pname} FROM {w.p} WHERE {w.pname} IN ('{giver[w.pname]}', '{taker[w.pname]}')"),
        sql(f"SELECT * FROM {w.e} WHERE {w.e_p} = {giver[w.pid]}"), sql(update, *slips),
        sql(f"SELECT * FROM {w.e} WHERE {w.e_p} = {taker[w.pid]}"),
    ]  # fmt: skip
    return change(rng, w, request, steps, [whole(w.e, wanted), whole(w.p, w.persons)])


CHANGES = {
    "raise_price": raise_price, "add_event": add_event, "delete_old": delete_old, "move_person": move_person,
    "merge_duplicates": merge_duplicates, "clean_city": clean_city,
    "transfer_stock": transfer_stock, "delete_orphans": delete_orphans,
    "new_person": new_person, "hand_over": hand_over,
}  # fmt: skip
