"""MiniWoB++: small web pages with a request, in a headless browser, after Liu et al. 2018 (1802.08802).

The pages and what counts as done are those of the package `miniwob`. The agent reads a page as a numbered list of its
elements, and acts on them by their numbers. The package ships no expert; `miniwob_players` has them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hephaestus_jax.forge.environments.environment import (
    Call,
    Environment,
    Feedback,
    Split,
    Task,
    Terms,
    Verb,
    environment,
)
from hephaestus_jax.forge.environments.worlds.miniwob.page import Browser, Element, listed
from hephaestus_jax.forge.environments.worlds.miniwob.players import PLAYERS, UNSEEN_PLAYERS, Sight
from hephaestus_jax.formats.records import Json, digest

_ALL = {**PLAYERS, **UNSEEN_PLAYERS}
_MAX_STEPS = 30
_LONGEST = 3900  # characters of a page
_TO_CLICK = ("button", "link", "tab", "section", "checkbox", "radio button", "folder", "file", "suggestion")
_TO_FILL = ("text field", "password field", "date field", "time field", "number field", "text area")
_TO_CHOOSE = ("drop-down list", "list")
_REF = {"type": "integer", "minimum": 1, "description": "The number of the element, as the page lists it in brackets."}
VERBS = (
    Verb(
        "click",
        ("Clicks on an element of the page.", "Presses a button, follows a link, ticks a box or opens a tab."),
        {"ref": _REF},
        ("click_element", "press"),
        ("Element {ref} is the one to click on.",
         "A click on [{ref}] is what comes next.",
         "I click on it and see what the page does.",
         "That is where the request leads me."),
    ),
    Verb(
        "type_text",
        ("Fills a field; what it contained before is replaced. Dates are written YYYY-MM-DD, times HH:MM.",
         "Enters text into a field in place of what is there (dates as YYYY-MM-DD, times as HH:MM)."),
        {"ref": _REF, "text": {"type": "string", "description": "What the field shall contain."}},
        ("fill", "enter_text"),
        ('Field [{ref}] has to contain "{text}".',
         "This field has to be filled in first.",
         'I enter "{text}".',
         "The field does not contain what it should yet."),
    ),
    Verb(
        "select_option",
        ("Chooses an option of a list.", "Picks one entry of a drop-down list."),
        {"ref": _REF, "option": {"type": "string", "description": "The option, as the page lists it."}},
        ("choose", "pick_option"),
        ('The option that is wanted is "{option}".',
         "The list has to show another option.",
         'I choose "{option}" from the list.'),
    ),
    Verb(
        "read_page",
        ("Lists the elements of the page as it is now.", "Shows what is on the page, without changing it."),
        {},
        ("list_elements", "snapshot"),
        ("I read the page again.", "What does the page show now?", "I make sure of what is on the page."),
    ),
)  # fmt: skip
_SYSTEMS = (
    "You use a web page through tools. The page is told as a list of its elements, each with a number by which the "
    "tools refer to it.",
    "A web page is open, and you act on it for the user. Its elements are listed with numbers in brackets; give these "
    "numbers to the tools.",
    "You operate a browser by calling tools. After every call you get the page as a numbered list of elements.",
)
_GOALS = (
    "There is something to do on a web page: {asked}",
    "On the page that is open: {asked}",
    "Please do this on the web page for me. {asked}",
)


@environment(
    "miniwob",
    Terms("miniwob", "1.1.0", "MIT", needs=("miniwob", "selenium"), programs=("chromium", "chromedriver")),
    games=tuple(PLAYERS),
    unseen_games=tuple(UNSEEN_PLAYERS),
)
class MiniWoB(Environment):
    """Small web pages on which something has to be clicked, filled in, chosen or found."""

    def __init__(self) -> None:
        self._browser = Browser()

    def reset(self, game: str, seed: int, split: Split) -> Task:
        """See `Environment.reset`."""
        self._game, self._seed = game, seed
        asked = self._browser.begin(game, seed)
        self._asked = asked if asked[-1] in ".!?" else f"{asked}."
        self._elements = self._browser.elements()
        self._clicked: list[int] = []
        self._made: list[Json] = []  # calls that were carried out
        self._done, self._reward = False, 0.0
        self._told = ""
        choice = int(digest([game, seed])[:8], 16)
        goal = _GOALS[choice % len(_GOALS)].format(asked=self._asked)
        system = _SYSTEMS[choice // len(_GOALS) % len(_SYSTEMS)]
        return Task(goal, self._page(), VERBS, system, _MAX_STEPS)

    def _page(self) -> str:
        text = listed(self._elements)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n(the rest of the page is left out)"

    def step(self, call: Call) -> Feedback:
        """See `Environment.step`."""
        if call.tool == "read_page":
            return self._feedback(self._page())
        if self._done:
            return self._feedback("The task is over; the page does not react any more.", error=True)
        element = next((one for one in self._elements if one.ref == call.arguments["ref"]), None)
        if element is None:
            return self._feedback(f"There is no element [{call.arguments['ref']}] on the page.", error=True)
        if element.disabled:
            return self._feedback(f"The {element.name} is disabled for now.", error=True)
        refused = self._act(call, element)
        if refused:
            return self._feedback(refused, error=True)
        return self._after(call, element)

    def _act(self, call: Call, element: Element) -> str:
        """Does it; why it could not be done, "" if it could."""
        given = call.arguments
        if call.tool == "click":
            self._browser.click(element.ref)
            return ""
        if call.tool == "type_text":
            if element.kind not in _TO_FILL:
                return f"The {element.name} cannot be filled in."
            kept = self._browser.type(element.ref, str(given["text"]))
            if given["text"] and kept == "":
                return f'The {element.name} does not take "{given["text"]}"; it is empty now.'
            return ""
        if element.kind not in _TO_CHOOSE:
            return f"The {element.name} is no list of options."
        if given["option"] not in element.options:
            return f'The {element.name} has no option "{given["option"]}".'
        self._browser.select(element.ref, str(given["option"]))
        return ""

    def _after(self, call: Call, element: Element) -> Feedback:
        """What the page shows after a call that was carried out."""
        if call.tool == "click":
            self._clicked.append(element.ref)
        self._made.append(call.key)
        done = {
            "click": f"You click on {element.name}.",
            "type_text": f"You type into {element.name}.",
            "select_option": f'You choose "{call.arguments.get("option")}" in {element.name}.',
        }[call.tool]
        self._done, self._reward = self._browser.outcome()
        if self._done:
            end = "The task is done." if self._won else "That was wrong, and the task is over."
            return self._feedback(f"{done} {end}")
        self._elements = self._browser.elements()
        self._told += f"\n{done}\n{self._page()}"
        return self._feedback(f"{done} The page now:\n{self._page()}")

    @property
    def _won(self) -> bool:
        return self._done and self._reward > 0.99

    def _feedback(self, told: str, error: bool = False) -> Feedback:
        return Feedback(told, error, float(self._won), self._won, self._done)

    def oracle(self) -> Call | None:
        """See `Environment.oracle`: what a player does who reads the page."""
        if self._done:
            return None
        sight = Sight(self._asked, tuple(self._elements), tuple(self._clicked), self._told)
        try:
            return _ALL[self._game](sight)
        except (IndexError, ValueError):  # the page is not as the player knows it, after a wrong step
            return None

    def choices(self) -> Sequence[Call]:
        """Clicks on what can be clicked on, and for fields and lists what the request and the page name."""
        calls = [Call("click", {"ref": one.ref}) for one in self._elements if one.kind in _TO_CLICK][:20]
        for one in self._elements:
            if one.kind in _TO_FILL:
                calls += [Call("type_text", {"ref": one.ref, "text": word}) for word in self._words()[:5]]
            if one.kind in _TO_CHOOSE:
                others = [option for option in one.options if option and option != one.value]
                calls += [Call("select_option", {"ref": one.ref, "option": option}) for option in others[:6]]
        return [*calls, *self.looks()]

    def _words(self) -> list[str]:
        """What one might type: quoted words, else names and numbers of the request, and short texts of the page."""
        words = re.findall(r'"([^"]+)"', self._asked)
        if not words:
            words = re.findall(r"(?<=[a-z] )[A-Z][a-z]+\b|\d[\d/:-]*", self._asked)
            words += [one.text for one in self._elements if one.kind == "text" and len(one.text) <= 20]
        return list(dict.fromkeys(words))

    def looks(self) -> Sequence[Call]:
        """See `Environment.looks`."""
        return [Call("read_page")]

    def state(self) -> str:
        """See `Environment.state`: what was done, for a page keeps more than it shows."""
        return digest([self._game, self._seed, self._made])

    def close(self) -> None:
        """See `Environment.close`."""
        self._browser.close()
