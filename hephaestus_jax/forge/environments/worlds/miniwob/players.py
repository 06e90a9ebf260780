"""How the tasks of MiniWoB++ are done: players that read nothing but what was asked and what the page showed.

One for each task, named after it. A player is asked before every step, so that it goes on from any state.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.miniwob.page import Element

_FIELDS = ("text field", "password field", "date field", "time field", "number field")
_BUTTONS = ("button", "text")  # some buttons of these pages are marked as nothing but text


@dataclass(frozen=True)
class Sight:
    """What a player knows: the request, the page as it is, the numbers clicked on, and all pages so far."""

    asked: str
    elements: tuple[Element, ...]
    clicked: tuple[int, ...]
    told: str

    @property
    def quoted(self) -> list[str]:
        """What the request says in quotation marks."""
        return re.findall(r'"([^"]*)"', self.asked)

    def of(self, *kinds: str) -> list[Element]:
        """The elements of some kinds."""
        return [element for element in self.elements if element.kind in kinds]

    def named(self, text: str, *kinds: str) -> Element | None:
        """The first element of these kinds (any, if none is given) with a text."""
        return next((one for one in self.elements if one.text == text and (not kinds or one.kind in kinds)), None)


Player = Callable[[Sight], Call | None]


def _click(element: Element | None) -> Call | None:
    return Call("click", {"ref": element.ref}) if element is not None else None


def _press(sight: Sight, *names: str) -> Call | None:
    wanted = {name.lower() for name in names or ("submit",)}
    return _click(next((one for one in sight.of(*_BUTTONS) if one.text.lower() in wanted), None))


def _fill(sight: Sight, wanted: list[tuple[Element, str]], *button: str) -> Call | None:
    """Fields one after the other, then the button."""
    for field, text in wanted:
        if field.value != text:
            return Call("type_text", {"ref": field.ref, "text": text})
    return _press(sight, *button)


def _position(text: str, pattern: str) -> int:
    """The place that "3rd" tells of, counted from 0."""
    match = re.search(rf"(\d+)(?:st|nd|rd|th) {pattern}", text)
    return int(match.group(1)) - 1 if match else 0


def click_quoted(sight: Sight) -> Call | None:
    """Clicks on what is named in quotation marks."""
    return _click(sight.named(sight.quoted[0], "button", "link", "tab"))


def click_button_by_word(sight: Sight) -> Call | None:
    """ "Click button ONE." and, of a sequence, the one after it."""
    for name in re.findall(r"button (\w+)", sight.asked):
        button = sight.named(name, "button")
        if button is not None and button.ref not in sight.clicked:
            return _click(button)
    return None


def click_dialog(sight: Sight) -> Call | None:
    return _click(sight.named("Close" if sight.quoted[0] == "x" else sight.quoted[0], "button"))


def click_checkboxes(sight: Sight) -> Call | None:
    match = re.search(r"Select (.*) and click Submit", sight.asked)
    wanted = set(match.group(1).split(", ")) if match else set()
    for box in sight.of("checkbox"):
        if box.checked != (box.text in wanted):
            return _click(box)
    return _press(sight)


def click_option(sight: Sight) -> Call | None:
    match = re.search(r"Select (.*) and click Submit", sight.asked)
    button = sight.named(match.group(1), "radio button") if match else None
    return _click(button) if button is not None and not button.checked else _press(sight)


def click_tab(sight: Sight) -> Call | None:
    match = re.search(r"Tab #\d+", sight.asked)
    return _click(sight.named(match.group(), "tab")) if match else None


def find_link(sight: Sight) -> Call | None:
    """Opens tabs or sections one after the other until the link is there."""
    link = sight.named(sight.quoted[0], "link")
    if link is not None:
        return _click(link)
    closed = [one for one in sight.of("tab", "section") if not one.open]
    return _click(next((one for one in closed if one.ref not in sight.clicked), closed[0] if closed else None))


def click_collapsible(sight: Sight) -> Call | None:
    closed = next((one for one in sight.of("section") if not one.open), None)
    return _click(closed) if closed is not None else _press(sight)


def enter_text(sight: Sight) -> Call | None:
    text = sight.quoted[0]
    if "lower case" in sight.asked or "upper case" in sight.asked:
        text = text.lower() if "lower case" in sight.asked else text.upper()
    return _fill(sight, [(sight.of("text field")[0], text)])


def enter_password(sight: Sight) -> Call | None:
    return _fill(sight, [(field, sight.quoted[0]) for field in sight.of("password field")])


def enter_date(sight: Sight) -> Call | None:
    month, day, year = re.findall(r"\d+", sight.asked)[:3]
    return _fill(sight, [(sight.of("date field")[0], f"{year}-{int(month):02d}-{int(day):02d}")])


def enter_time(sight: Sight) -> Call | None:
    match = re.search(r"(\d+):(\d+) (AM|PM)", sight.asked)
    if match is None:
        return None
    hour = int(match.group(1)) % 12 + (12 if match.group(3) == "PM" else 0)
    return _fill(sight, [(sight.of("time field")[0], f"{hour:02d}:{match.group(2)}")])


def focus_text(sight: Sight) -> Call | None:
    return _click(sight.of("text field")[_position(sight.asked, "input")])


def choose_list(sight: Sight) -> Call | None:
    match = re.search(r"Select (.*) from the list", sight.asked)
    choice = sight.of("drop-down list")[0]
    if match and choice.value != match.group(1):
        return Call("select_option", {"ref": choice.ref, "option": match.group(1)})
    return _press(sight)


def login_user(sight: Sight) -> Call | None:
    """A question that comes up is turned down first."""
    cancel = sight.named("Cancel", "button")
    if cancel is not None:
        return _click(cancel)
    fields = [sight.of("text field")[0], sight.of("password field")[0]]
    return _fill(sight, list(zip(fields, sight.quoted, strict=False)), "Login", "OK")


def search_movies(sight: Sight) -> Call | None:
    """The label of a field stands before it; where fields come first, after it."""
    match = re.search(r"Search for (.*) movies directed by (.*) from year (\d+)", sight.asked)
    if match is None:
        return None
    values = dict(zip((("genre",), ("director",), ("year", "released")), match.groups(), strict=True))
    labels = [value for one in sight.of("text") for names, value in values.items() if _says(one, names)]
    fields = sight.of("text field")
    if any(field.text for field in fields):
        wanted = [(field, value) for field in fields for names, value in values.items() if _says(field, names)]
    else:
        wanted = list(zip(fields, labels, strict=False))
    return _fill(sight, wanted, "Submit", "Search", "Go!")


def _says(element: Element, names: tuple[str, ...]) -> bool:
    return any(name in element.text.lower() for name in names)


def form_sequence_2(sight: Sight) -> Call | None:
    button = sight.of("radio button")[_position(sight.asked, "radio")]
    if not button.checked:
        return _click(button)
    right = sight.of("text field")[_position(sight.asked, "textbox")]
    return _fill(sight, [(one, sight.quoted[0] if one is right else "") for one in sight.of("text field")])


def form_sequence_3(sight: Sight) -> Call | None:
    match = re.search(r"Choose (.*) from the dropdown", sight.asked)
    choice = sight.of("drop-down list")[0]
    if match and choice.value != match.group(1):
        return Call("select_option", {"ref": choice.ref, "option": match.group(1)})
    return click_quoted(sight)


def read_table(sight: Sight) -> Call | None:
    """Beside each heading of the table stands its value."""
    texts = [one.text for one in sight.of("text")]
    values = dict(zip(texts[::2], texts[1::2], strict=False))
    match = re.search(r"Enter the value of (.*) into the text field", sight.asked)
    fields = sight.of("text field")
    names = [match.group(1)] if match else [field.text.rstrip(":") for field in fields]
    if not set(names) <= set(values):
        return None
    return _fill(sight, [(field, values[name]) for field, name in zip(fields, names, strict=False)])


def search_engine(sight: Sight) -> Call | None:
    field = sight.of("text field")[0]
    if field.value != sight.quoted[0]:
        return Call("type_text", {"ref": field.ref, "text": sight.quoted[0]})
    since = sight.told.rpartition('You click on button "Search".')[2]  # was anything typed after the last search?
    pages = [one for one in sight.of("link") if one.text in ("1", "2", "3")]
    if not pages or "You type" in since:
        return _press(sight, "Search")
    place = _position(sight.asked, "search result")
    shown = re.findall(r'You click on link "([123])"\.', since)
    if place // 3 + 1 != int(shown[-1] if shown else 1):
        return _click(next(one for one in pages if one.text == str(place // 3 + 1)))
    results = [one for one in sight.of("link") if one.text not in ("1", "2", "3", "<", ">")]
    return _click(results[place % 3])


def phone_book(sight: Sight) -> Call | None:
    match = re.search(r"Find (.*) in the contact book and click on their (\w+)", sight.asked)
    if match is None:
        return None
    if sight.named(match.group(1), "text") is None:
        return _click(sight.named(">", "link"))
    label = next((at for at, one in enumerate(sight.elements) if one.text.lower() == f"{match.group(2)}:"), None)
    return _click(sight.elements[label + 1]) if label is not None else None


def simple_arithmetic(sight: Sight) -> Call | None:
    match = re.search(r"(-?\d+) ([-+x]) (-?\d+) =", " ".join(one.text for one in sight.of("text")))
    if match is None:
        return None
    left, right = int(match.group(1)), int(match.group(3))
    result = {"+": left + right, "-": left - right, "x": left * right}[match.group(2)]
    return _fill(sight, [(sight.of("text field")[0], str(result))])


def simple_algebra(sight: Sight) -> Call | None:
    text = sight.of("text")[0].text
    first = re.fullmatch(r"x ([-+]) (-?\d+) = (-?\d+)", text)
    second = re.fullmatch(r"(-?\d+) ([-+]) x = (-?\d+)", text)
    if first:
        sign, number, result = first.group(1), int(first.group(2)), int(first.group(3))
        value = result - number if sign == "+" else result + number
    elif second:
        number, sign, result = int(second.group(1)), second.group(2), int(second.group(3))
        value = result - number if sign == "+" else number - result
    else:
        return None
    return _fill(sight, [(sight.of("text field")[0], str(value))])


def find_word(sight: Sight) -> Call | None:
    words = sight.of("text")[0].text.split()
    word = re.sub(r"[^a-zA-Z]", "", words[_position(sight.asked, "word")])
    return _fill(sight, [(sight.of("text field")[0], word)])


def guess_number(sight: Sight) -> Call | None:
    """Halves what is possible; a guess is new when the feedback on the one before was read."""
    lowest = max([0, *(int(number) + 1 for number in re.findall(r"higher than (\d+)", sight.told))])
    highest = min([9, *(int(number) - 1 for number in re.findall(r"lower than (\d+)", sight.told))])
    field = sight.of("number field")[0]
    if field.value and lowest <= int(field.value) <= highest:
        return _press(sight)
    return Call("type_text", {"ref": field.ref, "text": str((lowest + highest) // 2)})


def navigate_tree(sight: Sight) -> Call | None:
    found = sight.named(sight.quoted[0], "folder", "file")
    unopened = [one for one in sight.of("folder") if one.ref not in sight.clicked]
    return _click(found or next(iter(unopened), None))


def odd_or_even(sight: Sight) -> Call | None:
    for before, number, after in zip(sight.elements, sight.elements[1:], sight.elements[2:], strict=False):
        if (before.text, after.text) == ("Odd", "Even"):
            right = before if int(number.text) % 2 else after
            if not right.selected:
                return _click(right)
    return _press(sight)


def generate_number(sight: Sight) -> Call | None:
    text = sight.of("text")[0].text
    match = re.search(r"(less than|greater than|odd|even) ?(\d*)", sight.asked)
    if match is None:
        return None
    if re.fullmatch(r"-?\d+", text):
        number, bound = int(text), int(match.group(2) or 0)
        fits = {"less than": number < bound, "greater than": number > bound, "odd": number % 2 == 1}
        if fits.get(match.group(1), number % 2 == 0):
            return _press(sight)
    return _press(sight, "Generate")


def copy_paste(sight: Sight) -> Call | None:
    return _fill(sight, [(sight.of("text field")[0], sight.of("text area")[0].value or "")])


def text_transform(sight: Sight) -> Call | None:
    return _fill(sight, [(sight.of("text field")[0], "".join(one.text for one in sight.of("text")))])


def buy_ticket(sight: Sight) -> Call | None:
    """Prices stand on the buttons, durations before them."""
    durations = [one.text for one in sight.of("text") if re.fullmatch(r"\d+h \d+m", one.text)]
    buttons = [one for one in sight.of("button") if one.text.startswith("Book for $")]
    minutes = [60 * int(text.split("h")[0]) + int(text.split()[1].rstrip("m")) for text in durations]
    prices = [int(one.text.removeprefix("Book for $")) for one in buttons]
    values = prices if "cost" in sight.asked else minutes
    best = min(values) if "cheapest" in sight.asked or "shortest" in sight.asked else max(values)
    return _click(buttons[values.index(best)])


# Tasks of the package, with their players.
PLAYERS: dict[str, Player] = {
    "click-button": click_quoted,
    "click-link": click_quoted,
    "click-dialog-2": click_dialog,
    "click-checkboxes": click_checkboxes,
    "click-checkboxes-large": click_checkboxes,
    "click-option": click_option,
    "click-tab": click_tab,
    "click-tab-2": find_link,
    "click-collapsible": click_collapsible,
    "click-collapsible-2": find_link,
    "click-button-sequence": click_button_by_word,
    "enter-text": enter_text,
    "enter-text-2": enter_text,
    "enter-password": enter_password,
    "enter-date": enter_date,
    "focus-text-2": focus_text,
    "choose-list": choose_list,
    "login-user": login_user,
    "multi-orderings": search_movies,
    "form-sequence-2": form_sequence_2,
    "read-table": read_table,
    "search-engine": search_engine,
    "phone-book": phone_book,
    "simple-arithmetic": simple_arithmetic,
    "find-word": find_word,
    "guess-number": guess_number,
    "generate-number": generate_number,
    "navigate-tree": navigate_tree,
    "odd-or-even": odd_or_even,
    "copy-paste": copy_paste,
}
UNSEEN_PLAYERS: dict[str, Player] = {
    "click-checkboxes-transfer": click_checkboxes,
    "enter-time": enter_time,
    "login-user-popup": login_user,
    "multi-layouts": search_movies,
    "form-sequence-3": form_sequence_3,
    "read-table-2": read_table,
    "simple-algebra": simple_algebra,
    "text-transform": text_transform,
    "buy-ticket": buy_ticket,
}
