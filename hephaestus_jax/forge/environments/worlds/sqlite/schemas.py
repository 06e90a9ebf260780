"""Generated databases: who (persons), what (items), when (events between the two), and where persons belong (groups).

The tables, columns and rows of a `World` are drawn anew for every task; what they mean is the same in all, so that the
families of tasks are written once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from hephaestus_jax.forge.environments.worlds.crafted.words import CITIES, day, names, words

Row = dict[str, Any]


@dataclass(frozen=True)
class Domain:
    """Words of a trade. Each of `persons`, `items`, `events`, `groups` is (table, singular)."""

    about: str
    persons: tuple[str, str]
    items: tuple[str, str]
    events: tuple[str, str]
    groups: tuple[str, str]
    amount: str  # what an event has a number of
    price: str
    day: str
    categories: tuple[str, ...]
    titles: tuple[str, ...]  # as many of each category, in the order of the categories
    statuses: tuple[str, ...]


_SHOP = Domain(
    "a furniture shop", ("customers", "customer"), ("products", "product"), ("orders", "order"), ("branches", "branch"),
    "quantity", "price", "ordered_on", ("bedroom", "kitchen", "office", "garden"),
    ("Bunk Bed", "Soft Pillow", "Night Table", "Spice Rack", "Bar Stool", "Tea Tray",
     "Oak Desk", "Steel Lamp", "Wall Clock", "Garden Bench", "Folding Chair", "Fire Bowl"),
    ("pending", "shipped", "delivered", "cancelled"),
)  # fmt: skip
_LIBRARY = Domain(
    "a public library", ("members", "member"), ("books", "book"), ("loans", "loan"), ("libraries", "library"),
    "days", "fee", "loaned_on", ("novel", "history", "science", "poetry"),
    ("The Long Tide", "Bright Harbour", "The Clock Maker", "Salt and Iron", "The Ninth Lock", "Roads of Rome",
     "Small Engines", "Stones and Stars", "A Field of Glass", "Winter Letters", "Maps of Rain", "River Songs"),
    ("open", "returned", "overdue", "lost"),
)  # fmt: skip
_CLINIC = Domain(
    "a clinic", ("patients", "patient"), ("treatments", "treatment"), ("appointments", "appointment"),
    ("wards", "ward"), "minutes", "rate", "held_on", ("dental", "physio", "vision", "general"),
    ("Root Check", "Deep Cleaning", "Gum Care", "Knee Training", "Back Massage", "Posture Course",
     "Eye Test", "Lens Fitting", "Colour Test", "Blood Panel", "Flu Shot", "Travel Advice"),
    ("booked", "done", "missed", "moved"),
)  # fmt: skip
_SCHOOL = Domain(
    "an evening school", ("students", "student"), ("courses", "course"), ("enrolments", "enrolment"),
    ("campuses", "campus"), "credits", "tuition", "enrolled_on", ("language", "craft", "music", "computing"),
    ("Spanish One", "Polish Two", "Sign Language", "Pottery Basics", "Wood Carving", "Book Binding",
     "Choir Practice", "Jazz Piano", "Guitar Evenings", "Intro to Networks", "Web Pages", "Data Tables"),
    ("active", "finished", "dropped", "waiting"),
)  # fmt: skip
_TRAVEL = Domain(
    "a travel agency", ("travellers", "traveller"), ("tours", "tour"), ("bookings", "booking"), ("offices", "office"),
    "seats", "fare", "booked_on", ("city", "mountain", "island", "desert"),
    ("Seven Bridges", "Night Markets", "Old Harbours", "High Passes", "Glacier Walk", "Lake Circle",
     "Coral Bays", "Lava Coast", "Palm Trail", "Dune Crossing", "Canyon Rim", "Salt Flats"),
    ("confirmed", "waiting", "cancelled", "paid"),
)  # fmt: skip
_STUDIO = Domain(
    "a sports club", ("athletes", "athlete"), ("classes", "class"), ("visits", "visit"), ("clubs", "club"),
    "hours", "cost", "visited_on", ("strength", "dance", "water", "balance"),
    ("Early Lift", "Rope Work", "Kettle Bells", "Salsa Night", "Tap Basics", "Power Hour",
     "Deep Water", "Aqua Run", "Lane Swim", "Slow Yoga", "Tai Chi", "Stretch and Rest"),
    ("attended", "skipped", "refunded", "reserved"),
)  # fmt: skip
_FARM = Domain(
    "a seed supplier", ("growers", "grower"), ("seeds", "seed"), ("deliveries", "delivery"), ("depots", "depot"),
    "sacks", "unit_price", "delivered_on", ("grain", "root", "leaf", "flower"),
    ("Winter Wheat", "Red Barley", "Black Oat", "Sugar Beet", "Blue Carrot", "Long Radish",
     "Curly Kale", "Baby Spinach", "Butter Lettuce", "Sun Gold", "Field Poppy", "Corn Flower"),
    ("planned", "sent", "received", "refused"),
)  # fmt: skip
DOMAINS = (_SHOP, _LIBRARY, _CLINIC, _SCHOOL, _TRAVEL, _STUDIO, _FARM)


class World:
    """A database: its words, and its rows as Python values. Table and column names are attributes.

    persons: `p` with `pid`, `pname`, `pcity`, `pmail`, `pgroup`; items: `i` with `iid`, `title`, `cat`, `price`,
    `stock`; events: `e` with `eid`, `e_p`, `e_i`, `day`, `amount`, `status`; groups: `g` with `gid`, `gname`.
    """

    def __init__(self, rng: random.Random) -> None:
        domain = self.domain = rng.choice(DOMAINS)
        (self.p, self.person), (self.i, self.item) = domain.persons, domain.items
        (self.e, self.event), (self.g, self.group) = domain.events, domain.groups
        long = rng.random() < 0.5  # how keys are called
        self.pid, self.iid, self.eid, self.gid = (
            f"{singular}_id" if long else "id" for singular in (self.person, self.item, self.event, self.group)
        )
        self.e_p, self.e_i, self.pgroup = f"{self.person}_id", f"{self.item}_id", f"{self.group}_id"
        self.pname, self.gname = rng.choice(("name", "full_name")), rng.choice(("name", "label"))
        self.title, self.cat = rng.choice(("title", "name")), rng.choice(("category", "kind"))
        self.pcity, self.pmail = rng.choice(("city", "town")), rng.choice(("email", "mail"))
        self.price, self.amount, self.day = domain.price, domain.amount, domain.day
        self.stock, self.status = rng.choice(("available", "remaining")), rng.choice(("status", "state"))
        self.about = f"{' & '.join(word.title() for word in words(rng, 2))}, {domain.about} in {rng.choice(CITIES)}"
        self._fill(rng)

    def _fill(self, rng: random.Random) -> None:
        domain = self.domain
        cities = rng.sample(CITIES, 5)
        self.groups: list[Row] = [
            {self.gid: number, self.gname: label}
            for number, label in enumerate(
                rng.sample(("North", "South", "East", "West", "Central"), rng.randint(3, 4)), 1
            )
        ]
        self.persons: list[Row] = [
            {
                self.pid: number, self.pname: name, self.pcity: rng.choice(cities[:4]),
                self.pmail: f"{name.lower().replace(' ', '.')}@example.com",
                self.pgroup: rng.choice(self.groups)[self.gid],
            }
            for number, name in enumerate(names(rng, rng.randint(8, 12)), rng.choice((1, 101)))
        ]  # fmt: skip
        each = len(domain.titles) // len(domain.categories)
        kinds = {title: domain.categories[place // each] for place, title in enumerate(domain.titles)}
        dropped = rng.choice(domain.categories)
        titles = rng.sample([title for title in domain.titles if kinds[title] != dropped], rng.randint(7, 9))
        self.items: list[Row] = [
            {
                self.iid: number, self.title: title, self.cat: kinds[title],
                self.price: rng.randint(4, 90), self.stock: rng.randint(0, 60),
            }
            for number, title in enumerate(titles, rng.choice((1, 11)))
        ]  # fmt: skip
        year = rng.randint(2021, 2024)
        days = sorted(day(rng, year) for _ in range(rng.randint(24, 38)))
        buyers = rng.sample(self.persons, len(self.persons) - rng.randint(1, 3))
        self.events: list[Row] = [
            {
                self.eid: number, self.e_p: rng.choice(buyers)[self.pid], self.e_i: rng.choice(self.items)[self.iid],
                self.day: when, self.amount: rng.randint(1, 9), self.status: rng.choice(domain.statuses),
            }
            for number, when in enumerate(days, 1)
        ]  # fmt: skip
        self.year = year

    def person_of(self, event: Row) -> Row:
        """Who an event belongs to."""
        return next(row for row in self.persons if row[self.pid] == event[self.e_p])

    def item_of(self, event: Row) -> Row:
        """What an event is about."""
        return next(row for row in self.items if row[self.iid] == event[self.e_i])

    def script(self) -> str:
        """SQL that makes the database."""
        key = "INTEGER PRIMARY KEY"
        tables = [
            (self.g, [f"{self.gid} {key}", f"{self.gname} TEXT NOT NULL"], self.groups),
            (
                self.p,
                [
                    f"{self.pid} {key}", f"{self.pname} TEXT NOT NULL", f"{self.pcity} TEXT", f"{self.pmail} TEXT",
                    f"{self.pgroup} INTEGER REFERENCES {self.g}({self.gid})",
                ],
                self.persons,
            ),
            (
                self.i,
                [
                    f"{self.iid} {key}", f"{self.title} TEXT NOT NULL", f"{self.cat} TEXT", f"{self.price} INTEGER",
                    f"{self.stock} INTEGER CHECK ({self.stock} >= 0)",
                ],
                self.items,
            ),
            (
                self.e,
                [
                    f"{self.eid} {key}", f"{self.e_p} INTEGER REFERENCES {self.p}({self.pid})",
                    f"{self.e_i} INTEGER REFERENCES {self.i}({self.iid})", f"{self.day} TEXT",
                    f"{self.amount} INTEGER", f"{self.status} TEXT",
                ],
                self.events,
            ),
        ]  # fmt: skip
        lines = []
        for table, columns, rows in tables:
            lines.append(f"CREATE TABLE {table} ({', '.join(columns)});")
            values = ", ".join(f"({', '.join(literal(value) for value in row.values())})" for row in rows)
            lines.append(f"INSERT INTO {table} VALUES {values};")
        return "\n".join(lines)


def literal(value: Any) -> str:
    """A value as SQL writes it."""
    if value is None:
        return "NULL"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
