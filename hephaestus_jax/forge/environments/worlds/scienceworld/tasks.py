"""The tools and the tasks of ScienceWorld."""

from __future__ import annotations

import re

from hephaestus_jax.forge.environments.environment import Verb
from hephaestus_jax.forge.environments.worlds.text_commands import Commands, Pattern, tidy, with_articles
from hephaestus_jax.formats.records import Json


def _text(description: str) -> dict[str, Json]:
    return {"type": "string", "minLength": 1, "description": description}


_THING = "The name of the thing, as it was described; say what it is in or on where several have that name."
_OBJECT = {"object": _text(_THING)}

_COMMON = (
    Verb(
        "look_around",
        ("Describes the place you are in; takes no time.", "Tells what is in this place and where its doors lead."),
        other_names=("look", "describe_place"),
        reasons=(
            "I want to see what there is in this place.",
            "A look around shows me what I can work with here.",
            "I check how things look around me now.",
            "Before I go on I make sure what is here.",
        ),
    ),
    Verb(
        "inventory",
        ("Lists what you carry; takes no time.", "Tells what is in your inventory."),
        other_names=("list_inventory", "check_bag"),
        reasons=(
            "I check what I am carrying.",
            "Let me see what I have with me.",
            "I want to be sure of what I hold.",
        ),
    ),
    Verb(
        "recall_task",
        ("Repeats what the task is; takes no time.", "Says once more what has to be done."),
        other_names=("show_task", "task_description"),
        reasons=(
            "I read the task once more to be sure of its order.",
            "Let me recall what exactly is asked for.",
            "I do not want to get the task wrong, so I look at it again.",
        ),
    ),
    Verb(
        "open",
        ("Opens a door or a container.", "Opens something that is closed, such as a fridge or the door to a room."),
        {"object": _text("What to open: a container, or a door by where it leads ('door to the kitchen').")},
        other_names=("open_object", "unclose"),
        reasons=(
            "I open the {object}.",
            "The {object} has to be open for what I want to do.",
            "I want the {object} to be open.",
        ),
    ),
    Verb(
        "close",
        ("Closes a door or a container.", "Shuts something that is open."),
        {"object": _text("What to close: a container, or a door by where it leads ('door to the kitchen').")},
        other_names=("close_object", "shut"),
        reasons=(
            "I close the {object}.",
            "The {object} should not stay open.",
            "It is better to have the {object} closed now.",
        ),
    ),
    Verb(
        "go_to",
        ("Goes to a neighbouring place through an open door.", "Walks to a place that a door here leads to."),
        {"place": _text("The name of the place that the door leads to.")},
        other_names=("walk_to", "enter"),
        reasons=(
            "I go to the {place} to find what I need.",
            "My way leads through the {place}.",
            "Next I want to be in the {place}.",
        ),
    ),
    Verb(
        "look_at",
        ("Describes one thing; time passes.", "Examines a thing more closely, which takes a moment."),
        _OBJECT,
        other_names=("examine", "inspect"),
        reasons=(
            "I look at the {object} to see in what state it is.",
            "I want to know more about the {object}.",
            "The {object} may have changed, so I look at it.",
        ),
    ),
    Verb(
        "look_in",
        ("Tells what is inside a container; time passes.", "Looks into an open container."),
        _OBJECT,
        other_names=("look_inside", "peek_into"),
        reasons=(
            "I look into the {object} to see what it holds.",
            "What I need may be in the {object}.",
            "Let me see what is inside the {object}.",
        ),
    ),
    Verb(
        "pick_up",
        ("Takes a thing into your inventory.", "Picks up a thing that can be moved and carries it with you."),
        _OBJECT,
        other_names=("take", "get"),
        reasons=(
            "I take the {object} with me.",
            "I will need the {object}.",
            "The {object} is of use for this task, so I pick it up.",
        ),
    ),
    Verb(
        "put_down",
        ("Puts a thing from your inventory down in this place.", "Drops a thing that you carry."),
        _OBJECT,
        other_names=("drop", "leave_here"),
        reasons=(
            "I do not need to carry the {object} any longer.",
            "I put the {object} down here.",
            "The {object} can stay in this place.",
        ),
    ),
    Verb(
        "move",
        ("Moves a thing to a container, a device or another thing.", "Puts a thing into or onto something else."),
        {**_OBJECT, "to": _text("Where it is put, as it was described.")},
        other_names=("put", "place"),
        reasons=(
            "I move the {object} to the {to}.",
            "For what I have in mind the {object} has to be with the {to}.",
            "I want the {object} to be where the {to} is.",
            "I bring this to where the task needs it.",
        ),
    ),
    Verb(
        "pour",
        ("Pours the contents of a container into another one.", "Empties a container, or a liquid, into something."),
        {"object": _text("The container or the liquid that is poured."), "into": _text("What it is poured into.")},
        other_names=("pour_into", "empty_into"),
        reasons=(
            "I pour the {object} into the {into}.",
            "The contents of the {object} have to get into the {into}.",
            "The {into} should get what is in the {object}.",
            "The two have to come together, so I pour one to the other.",
        ),
    ),
    Verb(
        "mix",
        ("Mixes what is in a container.", "Stirs the contents of a container together, so that they may react."),
        {"object": _text("The container with the substances.")},
        other_names=("stir", "blend"),
        reasons=(
            "I mix what is in the {object}.",
            "The things in the {object} have to be mixed to become something new.",
            "All that should be in the {object} is there, so I stir it.",
        ),
    ),
    Verb(
        "activate",
        ("Turns a device on.", "Switches on a device, such as a stove, a sink or a stopwatch."),
        {"object": _text("The device.")},
        other_names=("turn_on", "switch_on"),
        reasons=(
            "I turn the {object} on.",
            "The {object} has to be running for this.",
            "It is time to switch on the {object}.",
        ),
    ),
    Verb(
        "deactivate",
        ("Turns a device off.", "Switches off a device that is running."),
        {"object": _text("The device.")},
        other_names=("turn_off", "switch_off"),
        reasons=(
            "I turn the {object} off.",
            "The {object} has done what it should, so I switch it off.",
            "There is no need for the {object} to run any longer.",
        ),
    ),
    Verb(
        "use",
        ("Uses a tool on something, such as a thermometer on a substance.", "Applies a tool or instrument to a thing."),
        {"tool": _text("The tool, which you carry or which is here."), "on": _text("What it is used on.")},
        other_names=("use_on", "apply"),
        reasons=(
            "I use the {tool} on the {on}.",
            "What the {on} needs now is the {tool}.",
            "For the {on} the {tool} is the right thing.",
            "I have the right tool for this, so I use it.",
        ),
    ),
    Verb(
        "read",
        ("Reads a text.", "Tells what is written on a thing, such as a recipe."),
        _OBJECT,
        other_names=("read_text", "study"),
        reasons=(
            "I read the {object}: it may say how this is done.",
            "Let me see what the {object} says.",
            "The {object} should hold something I need to know.",
        ),
    ),
    Verb(
        "focus_on",
        (
            "Shows which thing you mean, where the task asks for it. A wrong one ends the task.",
            "Points out the thing that the task asks for; this counts as an answer and cannot be taken back.",
        ),
        _OBJECT,
        other_names=("point_out", "select"),
        reasons=(
            "The task asks me to focus, and the {object} is what I mean.",
            "I focus on the {object}, as the task wants it.",
            "The {object} is the thing to point out.",
            "This is what the task asks me to point out.",
        ),
    ),
    Verb(
        "wait",
        ("Lets time pass.", "Waits for a number of turns while things go on by themselves."),
        {"turns": {"type": "integer", "minimum": 1, "maximum": 10, "description": "How many turns, from 1 to 10."}},
        other_names=("let_time_pass", "pause"),
        reasons=(
            "This takes a while, so I wait.",
            "I give it some time.",
            "Nothing is left to do at the moment but to wait.",
        ),
    ),
    Verb(
        "choose",
        (
            "Answers the question which of several actions was meant, by its number.",
            "Picks one of the numbered possibilities, after a request that was ambiguous.",
        ),
        {"number": {"type": "integer", "minimum": 0, "description": "The number in the list of possibilities."}},
        other_names=("pick_option", "answer_number"),
        reasons=(
            "Several things were meant; number {number} will do.",
            "I have to say which one I meant: number {number}.",
            "Of these possibilities I take number {number}.",
        ),
    ),
)
_ELECTRICAL = (
    Verb(
        "connect",
        ("Connects two electrical things.", "Joins a contact of one component to a contact of another one."),
        {
            "one": _text("A wire or component and its contact, such as 'terminal 1 on red wire' or 'battery anode'."),
            "other": _text("The contact that it is joined to."),
        },
        other_names=("wire_up", "join"),
        reasons=(
            "The circuit needs a connection from the {one} to the {other}.",
            "I connect the {one} to the {other}.",
            "Current should flow between the {one} and the {other}.",
            "The circuit is not closed yet, so I make the next connection.",
        ),
    ),
    Verb(
        "disconnect",
        ("Takes all connections of an electrical thing away.", "Frees a component or a wire from its circuit."),
        {"object": _text("The wire or the component.")},
        other_names=("unplug", "detach"),
        reasons=(
            "I take the {object} out of the circuit.",
            "The {object} should not be connected any longer.",
            "I free the {object} from its connections.",
        ),
    ),
)

COMMANDS = Commands(
    (
        Pattern("look_around", "look around"),
        Pattern("inventory", "inventory"),
        Pattern("recall_task", "task"),
        Pattern("wait", "wait1", fixed={"turns": 1}),
        Pattern(
            "wait", "wait", fixed={"turns": 6}
        ),  # the package's long wait takes as long as five and a half short ones
        Pattern("look_in", "look in {object}"),
        Pattern("look_at", "look at {object}", also=("look on {object}", "examine {object}")),
        Pattern("open", "open {object}"),
        Pattern("close", "close {object}"),
        Pattern("go_to", "go to {place}", also=("go through door to {place}", "go {place}")),
        Pattern("pick_up", "pick up {object}"),
        Pattern("put_down", "put down {object}", also=("drop {object}",)),
        Pattern("move", "move {object} to {to}", last=True),
        Pattern("pour", "pour {object} into {into}", also=("pour {object} in {into}",), last=True),
        Pattern("mix", "mix {object}"),
        Pattern("deactivate", "deactivate {object}"),
        Pattern("activate", "activate {object}"),
        Pattern("use", "use {tool} on {on}"),
        Pattern("read", "read {object}"),
        Pattern("focus_on", "focus on {object}"),
        Pattern("disconnect", "disconnect {object}"),
        Pattern("connect", "connect {one} to {other}"),
        Pattern("choose", "{number}", values={"number": tuple(map(str, range(100)))}),
    ),
    numbers=("number",),
)

_BRIEF = 40  # steps of an episode of the games that a few steps win
_LONG = 100
STEPS: dict[str, int] = {
    "boil": _LONG,
    "freeze": _LONG,
    "melt": _LONG,
    "change-the-state-of-matter-of": _LONG,
    "use-thermometer": _LONG,
    "measure-melting-point-known-substance": _LONG,
    "measure-melting-point-unknown-substance": _LONG,
    "power-component": _BRIEF,
    "power-component-renewable-vs-nonrenewable-energy": _LONG,
    "test-conductivity": _LONG,
    "test-conductivity-of-unknown-substances": _LONG,
    "find-living-thing": _BRIEF,
    "find-non-living-thing": _BRIEF,
    "find-plant": _BRIEF,
    "find-animal": _BRIEF,
    "grow-plant": _LONG,
    "grow-fruit": _LONG,
    "chemistry-mix": _LONG,
    "chemistry-mix-paint-secondary-color": _LONG,
    "chemistry-mix-paint-tertiary-color": _LONG,
    "lifespan-longest-lived": _BRIEF,
    "lifespan-shortest-lived": _BRIEF,
    "lifespan-longest-lived-then-shortest-lived": _BRIEF,
    "identify-life-stages-1": _LONG,
    "identify-life-stages-2": _LONG,
    "inclined-plane-determine-angle": _LONG,
    "inclined-plane-friction-named-surfaces": _LONG,
    "inclined-plane-friction-unnamed-surfaces": _LONG,
}
# One of each topic; the others of its topic need the same tools for another goal. Both games of heredity
# (mendelian-genetics-…) are left out: their gold paths take over a hundred steps and most of a minute to find.
UNSEEN = (
    "boil",
    "power-component-renewable-vs-nonrenewable-energy",
    "find-plant",
    "chemistry-mix-paint-tertiary-color",
    "lifespan-longest-lived-then-shortest-lived",
    "inclined-plane-friction-unnamed-surfaces",
)
SYSTEMS = (
    "You are in a simulated house with a workshop, a greenhouse and an outside, in which experiments can be made. You "
    "act by calling tools, one action at a time; name things as they were described.",
    "This is a science laboratory in words. Each tool call is one action, and its result tells what happened. Use the "
    "names of things as you have read them.",
    "You do experiments in a small simulated world that you can only change through the tools. Time passes with every "
    "action but looking around, checking what you carry and recalling the task.",
)
_REQUESTS = ("Please {task}", "I would like you to {task}", "Here is what I need you to do: {task}")
_ENDINGS = (
    "You are done as soon as that is reached. Focusing on a wrong thing loses the task.",
    "The task ends when that is done; it is lost if you focus on anything that it does not ask for.",
)


def verbs_of(game: str) -> tuple[Verb, ...]:
    electrical = "conductivity" in game or "power-component" in game
    return (*_COMMON, *_ELECTRICAL) if electrical else _COMMON


def goal_of(task: str, request: int, ending: int) -> str:
    """The request for a task, in one of several wordings, of the package's description of it."""
    said = with_articles(tidy(task).replace("a(n) ", "a "))
    said = re.sub(r"^Your task is to ", "", said)
    return f"{_REQUESTS[request % len(_REQUESTS)].format(task=said)} {_ENDINGS[ending % len(_ENDINGS)]}"
