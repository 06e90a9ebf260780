"""Calls as commands and back, and texts made tidy."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.environments.environment import Call
from hephaestus_jax.forge.environments.worlds.text_commands import Commands, Pattern, mentions, tidy, with_articles

WAYS = {"direction": ("north", "south")}
COMMANDS = Commands(
    (
        Pattern("open_door", "open door to {direction}", values=WAYS),
        Pattern("open", "open {container}"),
        Pattern("put", "put {object} in {container}", also=("put {object} into {container}",)),
        Pattern("pour", "pour {liquid} into {pot}", also=("pour {liquid} in {pot}",), last=True),
        Pattern("wait", "wait", fixed={"turns": 10}),
        Pattern("wait", "wait1", fixed={"turns": 1}),
        Pattern("choose", "{number}", values={"number": ("0", "1", "2")}),
    ),
    numbers=("number",),
)


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("open door to north", Call("open_door", {"direction": "north"})),
        ("open door to up", Call("open", {"container": "door to up"})),
        ("put red tea in big cup", Call("put", {"object": "red tea", "container": "big cup"})),
        ("pour cup in room into jug", Call("pour", {"liquid": "cup in room", "pot": "jug"})),
        ("wait", Call("wait", {"turns": 10})),
        ("wait1", Call("wait", {"turns": 1})),
        ("2", Call("choose", {"number": 2})),
    ],
)
def test_a_command_is_a_call_and_a_call_is_that_command(command: str, call: Call) -> None:
    read = COMMANDS.call(command)
    assert read is not None and read.key == call.key
    assert COMMANDS.command(call) == command


def test_other_ways_to_say_it_are_read_but_not_said() -> None:
    call = COMMANDS.call("pour tea in cup in jug")
    assert call == Call("pour", {"liquid": "tea in cup", "pot": "jug"})
    assert COMMANDS.command(call) == "pour tea in cup into jug"
    assert COMMANDS.call("put tea into cup") == Call("put", {"object": "tea", "container": "cup"})


def test_a_command_that_can_be_cut_in_several_places_has_as_many_readings() -> None:
    read = COMMANDS.readings("pour tea in pot in cup in room")
    assert [call.arguments["liquid"] for call in read] == ["tea in pot in cup", "tea in pot", "tea"]
    assert [call.arguments["pot"] for call in read] == ["room", "cup in room", "pot in cup in room"]
    assert COMMANDS.readings("open a") == [Call("open", {"container": "a"})] and COMMANDS.readings("dance") == []


@pytest.mark.parametrize("command", ["", "open", "dance", "3", "put tea", "wait2"])
def test_what_no_pattern_reads_is_no_call(command: str) -> None:
    assert COMMANDS.call(command) is None


@pytest.mark.parametrize(
    "call",
    [Call("dance"), Call("wait", {"turns": 3}), Call("open"), Call("open_door", {"direction": "up"}), Call("wait")],
)
def test_what_no_pattern_says_is_no_command(call: Call) -> None:
    assert COMMANDS.command(call) == ""


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_names_with_blanks_and_braces_stay_on_one_line(thing: str, place: str) -> None:
    command = COMMANDS.command(Call("put", {"object": thing, "container": place}))
    assert "\n" not in command and not re.search(
        "  ", command.strip().removeprefix("put").replace(" in ", "", 1).strip()
    )
    assert " ".join(thing.split()) in command and " ".join(place.split()) in command


def test_calls_are_sorted_and_without_doubles() -> None:
    calls = COMMANDS.calls(["put b into c", "nonsense", "put b in c", "open a"])
    assert [COMMANDS.command(call) for call in calls] == ["open a", "put b in c"]
    assert COMMANDS.calls(["open a", "put b in c"]) == calls


def test_patterns_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(UserError, match="different parameters"):
        Pattern("take", "take {object}", also=("get {thing}",))
    with pytest.raises(UserError, match="values are of its parameters"):
        Pattern("take", "take {object}", values={"thing": ("a",)})


@given(st.text(alphabet="ab. ,\n\t", max_size=60))
def test_tidy_text_is_tidy_and_stays_so(text: str) -> None:
    once = tidy(text)
    assert once == once.strip() and "\n\n\n" not in once
    assert all(line == line.rstrip() and "  " not in line.lstrip() for line in once.split("\n"))
    assert tidy(once) == once


def test_tidy_keeps_the_lists_of_a_text_and_says_where_it_cuts() -> None:
    assert tidy("You  see: \n\ta cup \n\n\n\nand 2 . \n") == "You see:\n  a cup\n\nand 2."
    cut = tidy("word " * 2000, most=100)
    assert len(cut) < 140 and cut.endswith("[… cut: the text was longer]")


def test_articles_and_mentions() -> None:
    assert with_articles("a apple, a umbrella stand, a red egg, a union, a one, A oven") == (
        "an apple, an umbrella stand, a red egg, a union, a one, An oven"
    )
    assert mentions("You see a raw Yellow potato.", "yellow potato")
    assert not mentions("You see a potatoes.", "potato")
