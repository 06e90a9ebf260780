"""Words that generated tasks are made of."""

from __future__ import annotations

import random

FIRST_NAMES = (
    "Ada", "Akira", "Alba", "Amina", "Anton", "Astrid", "Bela", "Boris", "Carla", "Chen", "Clara", "Dalia",
    "Dario", "Edith", "Elias", "Emre", "Esther", "Farid", "Felix", "Freya", "Gita", "Greta", "Hana", "Hugo",
    "Ida", "Ines", "Ivan", "Jana", "Jonas", "Juno", "Kofi", "Lars", "Leila", "Luca", "Maren", "Marta",
    "Milan", "Mina", "Nadia", "Nils", "Noor", "Olga", "Omar", "Paula", "Pavel", "Priya", "Rafael", "Rosa",
    "Samir", "Selma", "Sonja", "Tariq", "Tessa", "Theo", "Uma", "Viktor", "Wanda", "Yara", "Yusuf", "Zoe",
)  # fmt: skip
LAST_NAMES = (
    "Abara", "Adler", "Almeida", "Bakker", "Baptiste", "Berg", "Castro", "Conti", "Dahl", "Dupont", "Egger",
    "Eriksen", "Falk", "Ferrari", "Fischer", "Garcia", "Haddad", "Hansen", "Horvat", "Ito", "Jansen", "Kaya",
    "Keller", "Kim", "Kovac", "Kumar", "Larsen", "Lindholm", "Lopez", "Marino", "Mensah", "Meyer", "Moreau",
    "Nagy", "Novak", "Okafor", "Olsen", "Park", "Petrov", "Quist", "Rossi", "Sato", "Schmid", "Silva",
    "Tanaka", "Torres", "Ueda", "Varga", "Virtanen", "Weber", "Yilmaz", "Zhou",
)  # fmt: skip
CITIES = (
    "Aachen", "Bergen", "Bologna", "Brno", "Cork", "Delft", "Essen", "Gdansk", "Ghent", "Graz", "Leeds",
    "Lille", "Linz", "Lyon", "Malmo", "Nantes", "Odense", "Oslo", "Porto", "Riga", "Seville", "Split",
    "Tampere", "Turin", "Utrecht", "Vilnius",
)  # fmt: skip
REGIONS = ("north", "south", "east", "west", "coast", "valley", "harbour", "hill")
PRODUCTS = (
    "lamp", "desk", "chair", "kettle", "mug", "blanket", "shelf", "mirror", "clock", "vase", "stool", "rug",
    "basket", "candle", "pillow", "tray", "bench", "curtain", "teapot", "bowl", "frame", "hook", "crate",
    "ladder",
)  # fmt: skip
NOUNS = (
    "alpha", "anchor", "atlas", "beacon", "birch", "bridge", "cedar", "comet", "coral", "delta", "ember",
    "falcon", "fern", "garnet", "harbor", "heron", "indigo", "iris", "jasper", "juniper", "kestrel", "lagoon",
    "lantern", "maple", "meadow", "meteor", "nebula", "opal", "orchid", "osprey", "pebble", "pine", "plume",
    "quartz", "quill", "raven", "reef", "river", "saffron", "sparrow", "summit", "tundra", "umber", "velvet",
    "willow", "zephyr",
)  # fmt: skip
SERVICES = (
    "auth",
    "billing",
    "cache",
    "gateway",
    "mailer",
    "orders",
    "payments",
    "profile",
    "reports",
    "search",
    "sync",
)
LINES = (
    "The kettle was still warm when they came back.", "Remember to water the plants on the second floor.",
    "Nobody had seen the key since Tuesday.", "The ferry leaves from the eastern pier.",
    "Ask for a receipt every time.", "Turn the valve a quarter to the left.",
    "The meeting has been moved to the small room.", "Two of the boxes were empty.",
    "Please keep the door closed at night.", "The map is pinned to the back wall.",
    "Leave the parcel with the neighbour.", "A draft of the letter is in the drawer.",
    "The lights on the stairs are out.", "Snow is expected by the weekend.", "We counted the chairs twice.",
    "The old printer works again.",
)  # fmt: skip


def words(rng: random.Random, count: int) -> list[str]:
    """Different names for files and folders."""
    return rng.sample(NOUNS, count)


def person(rng: random.Random) -> str:
    """A full name."""
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def asked_by(rng: random.Random, request: str, ending: str) -> str:
    """A request with the name of whom it is from, so that hardly any two are the same."""
    name = person(rng)
    return rng.choice(
        (
            f"{name} asks: {request} {ending}",
            f"This is for {name}. {request} {ending}",
            f"A request from {name}: {request} {ending}",
            f"{request} {ending} (Asked by {name}.)",
        )
    )


def names(rng: random.Random, count: int) -> list[str]:
    """Different full names."""
    firsts, lasts = rng.sample(FIRST_NAMES, count), rng.sample(LAST_NAMES, count)
    return [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]


def day(rng: random.Random, year: int = 0, months: tuple[int, int] = (1, 12)) -> str:
    """A date as 2024-03-09."""
    return f"{year or rng.randint(2021, 2024)}-{rng.randint(*months):02d}-{rng.randint(1, 28):02d}"


def one_of(rng: random.Random, *texts: str) -> str:
    """One of several ways to say the same."""
    return rng.choice(texts)


def listed(words: list[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def article(noun: str) -> str:
    """A noun with a or an before it."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"
