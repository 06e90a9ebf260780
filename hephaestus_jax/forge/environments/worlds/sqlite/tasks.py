"""Tasks about generated databases: questions. Those that change a database are in `sqlite_changes`."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.crafted.crafted import CraftedTask, Step
from hephaestus_jax.forge.environments.worlds.crafted.words import one_of
from hephaestus_jax.forge.environments.worlds.sqlite.schemas import Row, World


@dataclass(frozen=True)
class SqliteTask(CraftedTask):
    """`script` makes the database; `checks` are queries with the rows they must give in the end."""

    script: str = ""
    checks: tuple[tuple[str, list[list[Any]]], ...] = ()


def sql(text: str, *slips: str) -> Step:
    """A statement, and statements that one may write by mistake."""
    return Step(execute(text), slips=tuple(execute(slip) for slip in slips))


def execute(text: str) -> Call:
    """A call that executes a statement."""
    return Call("execute", {"sql": text})


def exploring(rng: random.Random, world: World, *tables: str) -> list[Step]:
    """Looks at what there is: the tables, and those that are needed."""
    return [Step(Call("list_tables")), *(Step(Call("describe", {"table": table})) for table in tables)]


def _question(
    rng: random.Random, world: World, question: str, steps: list[Step], answer: object, near: tuple[object, ...] = ()
) -> SqliteTask:
    about = world.about
    goal = one_of(
        rng,
        f"The database belongs to {about}. {question} Submit the answer.",
        f"You have the database of {about}. {question} Look it up and submit what you find.",
        f"{question} The answer is in the database of {about}; submit it.",
    )
    others = tuple(str(item) for item in near if str(item) != str(answer))
    return SqliteTask(goal, tuple(steps), str(answer), others, world.script())


def _untied(rng: random.Random, make: Any) -> tuple[World, list[tuple[Any, Any]]]:
    """A world in which `make`'s tally has one entry at the top, and one at the second place."""
    while True:
        world = World(rng)
        tally = Counter(make(world)).most_common()
        if len(tally) > 2 and tally[0][1] > tally[1][1] > tally[2][1]:
            return world, tally


def count_where(rng: random.Random) -> SqliteTask:
    """How many events have a status, since a day."""
    w = World(rng)
    status, month = rng.choice(w.domain.statuses), rng.randint(3, 9)
    since = f"{w.year}-{month:02d}-01"
    count = sum(row[w.status] == status and row[w.day] >= since for row in w.events)
    question = one_of(
        rng,
        f"How many {w.e} have the {w.status} '{status}' and a {w.day} of {since} or later?",
        f"Count the {w.e} whose {w.status} is '{status}' and whose {w.day} is not before {since}.",
    )
    query = f"SELECT COUNT(*) FROM {w.e} WHERE {w.status} = '{status}' AND {w.day} >= '{since}'"
    slips = (query.replace(f"'{status}'", f"'{status.title()}'"), query.replace(">=", "<"))
    steps = [
        *exploring(rng, w, w.e),
        sql(f"SELECT DISTINCT {w.status} FROM {w.e} ORDER BY {w.status}"),
        sql(query, *slips),
    ]
    return _question(rng, w, question, steps, count, (len(w.events),))


def top_person(rng: random.Random) -> SqliteTask:
    """Who has the most events."""
    w, tally = _untied(rng, lambda w: [row[w.e_p] for row in w.events])
    name = {row[w.pid]: row[w.pname] for row in w.persons}
    question = one_of(
        rng,
        f"Which {w.person} has the most {w.e}? I need the name.",
        f"Give the name of the {w.person} with the largest number of {w.e}.",
    )
    query = (
        f"SELECT p.{w.pname}, COUNT(*) AS n FROM {w.p} p JOIN {w.e} e ON e.{w.e_p} = p.{w.pid}"
        f" GROUP BY p.{w.pid} ORDER BY n DESC LIMIT 3"
    )
    steps = [*exploring(rng, w, w.e, w.p), sql(query, query.replace(f"GROUP BY p.{w.pid} ", ""))]
    return _question(rng, w, question, steps, name[tally[0][0]], (name[tally[1][0]],))


def total_by_category(rng: random.Random) -> SqliteTask:
    """The sum of amount times price over a category."""
    w = World(rng)
    category = rng.choice(w.items)[w.cat]
    total = sum(row[w.amount] * w.item_of(row)[w.price] for row in w.events if w.item_of(row)[w.cat] == category)
    question = one_of(
        rng,
        f"Taken over all {w.e} of {w.i} with the {w.cat} '{category}', what is the sum of {w.amount} times {w.price}?",
        f"What do the {w.e} for {w.i} of the {w.cat} '{category}' add up to, each counted as"
        f" {w.amount} times {w.price}?",
    )
    join = f"FROM {w.e} e JOIN {w.i} i ON i.{w.iid} = e.{w.e_i} WHERE i.{w.cat} = '{category}'"
    query = f"SELECT SUM(e.{w.amount} * i.{w.price}) {join}"
    slips = (
        f"SELECT SUM(i.{w.price}) {join}", query.replace(f"JOIN {w.i} i ON i.{w.iid} = e.{w.e_i}", f"JOIN {w.i} i"),
    )  # fmt: skip
    steps = [*exploring(rng, w, w.i, w.e), sql(query, *slips)]
    return _question(rng, w, question, steps, total or "0") if total else total_by_category(rng)


def never(rng: random.Random) -> SqliteTask:
    """How many persons have no event, or which."""
    w = World(rng)
    active = {row[w.e_p] for row in w.events}
    idle = sorted(row[w.pname] for row in w.persons if row[w.pid] not in active)
    question = one_of(
        rng,
        f"Which {w.p} have no {w.event} at all? Give the names in alphabetical order, separated by commas.",
        f"List the names of all {w.p} without a single {w.event}: alphabetical, with commas between them.",
    )
    query = (
        f"SELECT p.{w.pname} FROM {w.p} p LEFT JOIN {w.e} e ON e.{w.e_p} = p.{w.pid}"
        f" WHERE e.{w.eid} IS NULL ORDER BY p.{w.pname}"
    )
    slips = (query.replace("LEFT JOIN", "JOIN"), query.replace("IS NULL", "= NULL"))
    steps = [*exploring(rng, w, w.p, w.e), sql(query, *slips)]
    return _question(rng, w, question, steps, ", ".join(idle))


def average_of_city(rng: random.Random) -> SqliteTask:
    """The mean amount over the events of persons from a city."""
    while True:
        w = World(rng)
        city = rng.choice(w.persons)[w.pcity]
        values = [row[w.amount] for row in w.events if w.person_of(row)[w.pcity] == city]
        if len(values) > 2:
            break
    mean = sum(values) / len(values)
    if abs(mean * 100 % 1 - 0.5) < 0.01:  # rounding a half is not the point
        return average_of_city(rng)
    question = one_of(
        rng,
        f"Over all {w.e} of {w.p} from {city}, what is the average of {w.amount}? Round to two decimals.",
        f"What is the mean of {w.amount} over the {w.e} that belong to {w.p} from {city}, to two decimals?",
    )
    query = (
        f"SELECT ROUND(AVG(e.{w.amount}), 2) FROM {w.e} e JOIN {w.p} p ON p.{w.pid} = e.{w.e_p}"
        f" WHERE p.{w.pcity} = '{city}'"
    )
    slips = (query.replace("AVG", "SUM"), f"SELECT ROUND(AVG({w.amount}), 2) FROM {w.e}")
    steps = [*exploring(rng, w, w.p, w.e), sql(query, *slips)]
    return _question(rng, w, question, steps, round(mean, 2))


def busiest_month(rng: random.Random) -> SqliteTask:
    """The month with the most events."""
    w, tally = _untied(rng, lambda w: [row[w.day][:7] for row in w.events])
    question = one_of(
        rng,
        f"In which month were there the most {w.e}, by {w.day}? Answer like {w.year}-01.",
        f"Which month (written like {w.year}-01) has the largest number of {w.e} going by {w.day}?",
    )
    query = f"SELECT substr({w.day}, 1, 7) AS month, COUNT(*) AS n FROM {w.e} GROUP BY month ORDER BY n DESC LIMIT 3"
    slips = (query.replace("1, 7", "1, 4"), query.replace(" DESC", ""))
    sample = sql(f"SELECT {w.day} FROM {w.e} LIMIT 5")
    return _question(
        rng, w, question, [*exploring(rng, w, w.e), sample, sql(query, *slips)], tally[0][0], (tally[1][0],)
    )


def at_least(rng: random.Random) -> SqliteTask:
    """How many persons have at least so many events."""
    w = World(rng)
    number = rng.randint(3, 5)
    tally = Counter(row[w.e_p] for row in w.events)
    count = sum(value >= number for value in tally.values())
    question = one_of(
        rng,
        f"How many {w.p} have at least {number} {w.e}?",
        f"Count the {w.p} to whom {number} or more {w.e} belong.",
    )
    inner = f"SELECT {w.e_p} FROM {w.e} GROUP BY {w.e_p} HAVING COUNT(*) >= {number}"
    query = f"SELECT COUNT(*) FROM ({inner})"
    slips = (query.replace("HAVING", "WHERE"), query.replace(">=", ">"), f"SELECT COUNT({w.e_p}) FROM {w.e}")
    return _question(rng, w, question, [*exploring(rng, w, w.e), sql(query, *slips)], count, (len(w.persons),))


def favourite_of_person(rng: random.Random) -> SqliteTask:
    """The item on which a person's events sum to the most."""
    while True:
        w = World(rng)
        person = rng.choice(w.persons)
        tally: Counter[str] = Counter()
        for row in w.events:
            if row[w.e_p] == person[w.pid]:
                tally[w.item_of(row)[w.title]] += row[w.amount]
        top = tally.most_common(2)
        if len(top) == 2 and top[0][1] > top[1][1]:
            break
    name = person[w.pname]
    question = one_of(
        rng,
        f"For which {w.item} is the total {w.amount} over the {w.e} of {name} the largest? Give its {w.title}.",
        f"Adding up {w.amount} over all {w.e} of {name}, which {w.item} comes out on top? I want its {w.title}.",
    )
    query = (
        f"SELECT i.{w.title}, SUM(e.{w.amount}) AS total FROM {w.e} e JOIN {w.i} i ON i.{w.iid} = e.{w.e_i}"
        f" WHERE e.{w.e_p} = {person[w.pid]} GROUP BY i.{w.iid} ORDER BY total DESC"
    )
    find = sql(
        f"SELECT {w.pid} FROM {w.p} WHERE {w.pname} = '{name}'", f"SELECT {w.pid} FROM {w.p} WHERE {w.pname} = {name}"
    )
    steps = [*exploring(rng, w, w.p, w.e, w.i), find, sql(query, query.replace("SUM", "COUNT"))]
    return _question(rng, w, question, steps, top[0][0], (top[1][0],))


def group_members(rng: random.Random) -> SqliteTask:
    """The group with the most persons or events."""
    w, tally = _untied(rng, lambda w: [w.person_of(row)[w.pgroup] for row in w.events])
    label = {row[w.gid]: row[w.gname] for row in w.groups}
    question = f"Which {w.group} has the most {w.e}, counted by the {w.group} of the {w.person}? Give its {w.gname}."
    query = (
        f"SELECT g.{w.gname}, COUNT(*) AS n FROM {w.g} g JOIN {w.p} p ON p.{w.pgroup} = g.{w.gid}"
        f" JOIN {w.e} e ON e.{w.e_p} = p.{w.pid} GROUP BY g.{w.gid} ORDER BY n DESC"
    )
    slip = f"SELECT g.{w.gname}, COUNT(*) AS n FROM {w.g} g JOIN {w.p} p ON p.{w.pgroup} = g.{w.gid} GROUP BY g.{w.gid}"
    steps = [*exploring(rng, w, w.g, w.p, w.e), sql(query, slip)]
    return _question(rng, w, question, steps, label[tally[0][0]], (label[tally[1][0]],))


def _best_of_category(w: World, category: str) -> list[Row]:
    return sorted((row for row in w.items if row[w.cat] == category), key=lambda row: -row[w.price])


def runner_up(rng: random.Random) -> SqliteTask:
    """The second most expensive item of a category (a window function)."""
    while True:
        w = World(rng)
        category = rng.choice(w.items)[w.cat]
        best = _best_of_category(w, category)
        if len({row[w.price] for row in best[:3]}) == min(len(best), 3) and len(best) > 1:
            break
    question = one_of(
        rng,
        f"Which {w.item} has the second highest {w.price} within the {w.cat} '{category}'? Give its {w.title}.",
        f"Rank the {w.i} of each {w.cat} by {w.price}. Which one is second in '{category}'? I need its {w.title}.",
    )
    query = (
        f"SELECT {w.title}, {w.price}, RANK() OVER (PARTITION BY {w.cat} ORDER BY {w.price} DESC) AS place"
        f" FROM {w.i} WHERE {w.cat} = '{category}' ORDER BY place"
    )
    steps = [*exploring(rng, w, w.i), sql(query, query.replace(" DESC", ""))]
    return _question(rng, w, question, steps, best[1][w.title], (best[0][w.title],))


def running_total(rng: random.Random) -> SqliteTask:
    """The day on which the running total of the amounts passes a number."""
    w = World(rng)
    amounts = [row[w.amount] for row in w.events]
    wanted = rng.randint(sum(amounts) // 3, 2 * sum(amounts) // 3)
    total, day = 0, ""
    for row in w.events:
        total += row[w.amount]
        if total >= wanted:
            day = row[w.day]
            break
    question = one_of(
        rng,
        f"The {w.e} are numbered in the order of {w.day}. On which day does the running total of"
        f" {w.amount} first reach {wanted}?",
        f"Going through the {w.e} by {w.eid}, on what {w.day} does the sum of {w.amount} so far"
        f" become {wanted} or more?",
    )
    inner = f"SELECT {w.day}, SUM({w.amount}) OVER (ORDER BY {w.eid}) AS total FROM {w.e}"
    query = f"SELECT {w.day}, total FROM ({inner}) WHERE total >= {wanted} ORDER BY total LIMIT 1"
    steps = [*exploring(rng, w, w.e), sql(query, f"SELECT {w.day} FROM {w.e} WHERE SUM({w.amount}) >= {wanted}")]
    return _question(rng, w, question, steps, day)


QUESTIONS = {
    "count_where": count_where, "top_person": top_person, "total_by_category": total_by_category, "never": never,
    "average_of_city": average_of_city, "busiest_month": busiest_month, "at_least": at_least,
    "favourite_of_person": favourite_of_person, "group_members": group_members, "runner_up": runner_up,
    "running_total": running_total,
}  # fmt: skip
