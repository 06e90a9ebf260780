"""The tools of the games of TextWorldExpress."""

from __future__ import annotations

from hephaestus_jax.forge.environments.environment import Verb
from hephaestus_jax.formats.records import Json

DIRECTIONS = ("north", "east", "south", "west")
OPPOSITE = dict(zip(DIRECTIONS, ("south", "west", "north", "east"), strict=True))
CUTS = ("chop", "slice", "dice")
FOOD_VERBS = ("eat", "examine", "slice", "smell", "take", "touch")


def _text(description: str) -> dict[str, Json]:
    return {"type": "string", "minLength": 1, "description": description}


def _one_of(values: tuple[str, ...], description: str) -> dict[str, Json]:
    return {"type": "string", "enum": list(values), "description": description}


_OBJECT = {"object": _text("The name of the thing, as it was described.")}
_DIRECTION = {"direction": _one_of(DIRECTIONS, "Which way.")}

LOOK = Verb(
    "look_around",
    ("Describes the room you are in.", "Tells what is in this room and where one can go from it."),
    other_names=("look", "describe_room"),
    reasons=(
        "I want to see what this room holds.",
        "A look around tells me what is here and which ways lead on.",
        "Before I do anything I make sure what is around me.",
        "I should know how this room looks now.",
    ),
)
INVENTORY = Verb(
    "inventory",
    ("Lists what you carry.", "Tells which things you have with you."),
    other_names=("list_inventory", "check_bag"),
    reasons=(
        "I check what I am carrying.",
        "Let me see what I have with me.",
        "I want to be sure of what I hold at the moment.",
    ),
)
TASK = Verb(
    "recall_task",
    ("Repeats what the task is.", "Says once more what has to be done."),
    other_names=("show_task", "task"),
    reasons=(
        "I read the task once more, to be sure of the places it names.",
        "Let me recall what exactly has to be done.",
        "I do not want to get the task wrong, so I look at it again.",
    ),
)
MOVE = Verb(
    "move",
    ("Goes to the next room in a direction.", "Walks one room on, the way that is named."),
    _DIRECTION,
    other_names=("go", "walk"),
    reasons=(
        "I go {direction} to get on.",
        "The next place I want to be is to the {direction}.",
        "From here I continue {direction}.",
        "I walk {direction}: that is where I have something to do or to find out.",
    ),
)
OPEN_DOOR = Verb(
    "open_door",
    ("Opens the door in a direction.", "Opens the door on one side of the room."),
    _DIRECTION,
    other_names=("unclose_door", "open_the_door"),
    reasons=(
        "The door to the {direction} has to be open before I can go through.",
        "I open the door to the {direction} to see where it leads.",
        "A closed door to the {direction} is in my way, so I open it.",
    ),
)
CLOSE_DOOR = Verb(
    "close_door",
    ("Closes the door in a direction.", "Shuts the door on one side of the room."),
    _DIRECTION,
    other_names=("shut_door", "close_the_door"),
    reasons=(
        "I close the door to the {direction} again.",
        "The door to the {direction} can be shut now.",
        "I leave the door to the {direction} closed.",
    ),
)
OPEN = Verb(
    "open",
    ("Opens a container, such as a fridge or a drawer, and tells what is in it.", "Opens something that is closed."),
    {"container": _text("The name of what is opened, as it was described.")},
    other_names=("open_container", "unclose"),
    reasons=(
        "The {container} is closed; I open it.",
        "I want to know what is inside the {container}.",
        "To use the {container} I have to open it first.",
    ),
)
CLOSE = Verb(
    "close",
    ("Closes a container.", "Shuts something that is open."),
    {"container": _text("The name of what is closed, as it was described.")},
    other_names=("close_container", "shut"),
    reasons=(
        "I am done with the {container} and close it.",
        "The {container} need not stay open.",
        "I shut the {container} again.",
    ),
)
TAKE = Verb(
    "take",
    ("Takes a thing that you can see.", "Picks something up and carries it with you."),
    _OBJECT,
    other_names=("pick_up", "get"),
    reasons=(
        "I take the {object} with me.",
        "What I need now is the {object}.",
        "I see the {object} within reach; I pick that up.",
    ),
)
PUT = Verb(
    "put",
    ("Puts a thing that you carry into or onto something.", "Places something you hold in or on a container."),
    {**_OBJECT, "container": _text("Where it is put: a container or a piece of furniture in this room.")},
    other_names=("place", "put_down"),
    reasons=(
        "I put the {object} in the {container}.",
        "I think the {container} is the right place for the {object}.",
        "I want the {object} to be in the {container}.",
    ),
)
EXAMINE = Verb(
    "examine",
    ("Describes a thing in the room or in your hands.", "Looks at one thing more closely."),
    _OBJECT,
    other_names=("inspect", "look_at"),
    reasons=(
        "I look at the {object} more closely.",
        "I want to know in what state the {object} is.",
        "A closer look at the {object} may help.",
    ),
)
READ = Verb(
    "read",
    ("Reads something that has writing on it.", "Tells what is written on a thing."),
    _OBJECT,
    other_names=("read_text", "study"),
    reasons=(
        "I read the {object}: it should tell me what to do.",
        "What I need to know may be written in the {object}.",
        "Let me see what the {object} says.",
    ),
)
CUT = Verb(
    "cut",
    (
        "Cuts food that you carry, in one of three ways; needs a knife in your inventory.",
        "Chops, slices or dices an ingredient in your hands with the knife you carry.",
    ),
    {"food": _text("The name of the ingredient."), "style": _one_of(CUTS, "The way in which it is cut.")},
    other_names=("cut_up", "use_knife"),
    reasons=(
        "The directions ask me to {style} the {food}.",
        "I have the knife, so I {style} the {food}.",
        "I {style} the {food} now, as the recipe wants it.",
    ),
)
COOK = Verb(
    "cook",
    (
        "Cooks food that you carry: a stove fries, an oven roasts, a barbeque grills.",
        "Prepares an ingredient in your hands with heat; how depends on the appliance (stove, oven or barbeque).",
    ),
    {"food": _text("The name of the ingredient."), "appliance": _text("A stove, an oven or a barbeque in this room.")},
    other_names=("heat", "cook_with"),
    reasons=(
        "The {food} has to be cooked, and the {appliance} does it the right way.",
        "I cook the {food} in the {appliance}, as the directions say.",
        "For the {food} I use the {appliance}.",
    ),
)
PREPARE = Verb(
    "prepare_meal",
    (
        "Makes the meal of the ingredients that you carry, once all are as the recipe wants them.",
        "Puts the finished ingredients together to a meal.",
    ),
    other_names=("assemble_meal", "make_meal"),
    reasons=(
        "All the ingredients are as the recipe wants them, so I prepare the meal.",
        "What is left of the directions is to prepare the meal.",
        "Everything is ready to be put together.",
    ),
)
EAT = Verb(
    "eat",
    ("Eats something that you carry.", "Consumes food in your hands; it is gone then."),
    {"food": _text("The name of the food.")},
    other_names=("consume", "eat_food"),
    reasons=(
        "I eat the {food}.",
        "The {food} is there to be eaten.",
        "Now for the {food}: I eat it.",
    ),
)


def simon_verbs() -> tuple[Verb, ...]:
    """The tools of `simonsays`: what Simon may say to do with food, and motions of any kind."""
    others = {"eat": "bite", "examine": "inspect", "slice": "cut", "smell": "sniff", "take": "grab", "touch": "feel"}
    verbs = [
        Verb(
            name,
            (f"{name.capitalize()}s some food.", f"Does what Simon calls '{name}' to a fruit or vegetable."),
            {"food": _text("The fruit or vegetable, as Simon names it.")},
            other_names=(f"{others[name]}_food",),
            reasons=(
                f"Simon says to {name} the {{food}}.",
                f"I am told to {name} the {{food}}, so I do that and nothing else.",
                f"Simon wants me to {name} the {{food}}.",
            ),
        )
        for name in FOOD_VERBS
    ]
    perform = Verb(
        "perform",
        ("Makes a motion or a noise that needs nothing but yourself.", "Does a motion, such as 'sit down'."),
        {"motion": _text("What to do, in Simon's words.")},
        other_names=("do_motion", "act_out"),
        reasons=(
            "Simon says to {motion}.",
            "I am told to {motion}, so that is what I do.",
            "What Simon wants now is that I {motion}.",
        ),
    )
    return (*verbs, perform)
