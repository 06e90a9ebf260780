"""The agent's words: what a result says, what is missing, and what cannot be done."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from hephaestus_jax.forge.compose.requests import written
from hephaestus_jax.forge.compose.settings import Draw
from hephaestus_jax.forge.compose.tasks import READING, verb_of
from hephaestus_jax.forge.compose.wording import capitalised, human, is_plural, joined, name_words, singular, spelled
from hephaestus_jax.formats.records import Json

_SHORT = 80  # characters of a value that is repeated
_TELLING = (
    "id",
    "arn",
    "name",
    "login",
    "title",
    "number",
    "status",
    "state",
    "url",
    "email",
    "type",
    "count",
    "total",
)


def closing(task: str, output: Json, draw: Draw, said: Sequence[Json] = ()) -> str | None:
    """A short statement of what the result holds; None where it holds nothing that is quickly told.

    What was `said` is not told again.
    """
    reads = verb_of(task) in READING
    if isinstance(output, Mapping) and len(output) == 1:
        key, inner = next(iter(output.items()))
        if isinstance(inner, list):
            return _listed(inner, human(key), draw, reads)
        if isinstance(inner, Mapping):
            output = inner
    if isinstance(output, list):
        return _listed(output, "", draw, reads)
    if reads and isinstance(output, Mapping):
        lists = [(key, inner) for key, inner in output.items() if _is_of_objects(inner)]
        whole = any(isinstance(inner, Mapping) and inner for inner in output.values())  # the list is a part of a thing
        if (
            len(lists) == 1
            and not whole
            and not any(human(key).lower().split()[-1:] in (["id"], ["name"]) for key in output)
        ):
            return _listed(lists[0][1], human(lists[0][0]), draw)
    if not isinstance(output, Mapping):
        return f"The result is {spelled(output)}." if isinstance(output, int | float) else None
    fresh = {key: value for key, value in output.items() if not _is_among(value, said)}
    facts = [f"the {human(key)} is {spelled(value)}" for key, value in _telling(fresh)]
    if not facts:
        failed = any(re.search(r"(?i)fail|error|unprocessed|reject", key) for key in output)
        return None if reads or not output or failed else "Done."
    if reads:
        lead = draw.pick(("Here is what I found: {}.", "{}.", "According to the result, {}."))
    else:
        lead = draw.pick(("Done: {}.", "That is done; {}.", "It went through: {}.", "{}."))
    return capitalised(lead.format(joined(facts)))


def _is_among(value: Json, values: Sequence[Json]) -> bool:
    return isinstance(value, str | int) and any(str(value) == str(other) for other in values)


def _telling(output: Mapping[str, Json]) -> list[tuple[str, Json]]:
    """At most three fields that say most: scalars, short, identifiers first."""
    ranked = []
    for place, (key, value) in enumerate(output.items()):
        if not isinstance(value, str | int | float) or isinstance(value, bool) or not _is_brief(value):
            continue
        last = human(key).lower().split()[-1:]
        rank = _TELLING.index(last[0]) if last and last[0] in _TELLING else None
        if rank is not None:
            ranked.append((rank, place, key, value))
    return [(key, value) for _, _, key, value in sorted(ranked)[:3]]


def _is_brief(value: Json) -> bool:
    return 0 < len(str(value)) <= _SHORT and "\n" not in str(value)


def _listed(items: Sequence[Json], what: str, draw: Draw, reads: bool = True) -> str | None:
    if not reads:  # of a change the list may name what failed
        rest = _listed(items, what, draw) if items else None
        return f"Done. {rest}" if rest else f"Done; the result lists no {what}." if what.endswith("s") else "Done."
    if not items:
        return draw.pick(("The result is empty.", "Nothing was found: the list is empty."))
    count = str(len(items))
    names = [name for item in items if (name := _name_of(item, what)) is not None]
    known = what.endswith("s") and what.lower() not in ("results", "values")
    things = (what if known else "entries") if len(items) > 1 else (singular(what) if known else "entry")
    lead = draw.pick(("The result lists {} {}", "I see {} {} in the result", "There are {} {} in the result"))
    if len(items) == 1:
        lead = lead.replace("There are", "There is")
        count = "one"
    told = lead.format(count, things)
    if len(names) == len(items) <= 5:
        return f"{told}: {joined([spelled(name) for name in names])}."
    return f"{told}."


def _is_of_objects(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _name_of(item: Json, what: str) -> str | None:
    """What a listed item is called: its own name or id, not that of what it belongs to."""
    if isinstance(item, str):
        return item if _is_brief(item) else None
    if not isinstance(item, Mapping):
        return None
    own = singular(what).lower()
    for wanted in ("name", "title", "login", "id", "arn"):
        for key, value in item.items():
            is_own = human(key).lower() in (wanted, f"{own} {wanted}")
            if is_own and isinstance(value, str):
                return value if _is_brief(value) else None
    return None


def ask(task: str, name: str, schema: Mapping[str, Json], draw: Draw) -> str:
    """A question for a required argument, by its description."""
    what, about, many = *_asked(name, _first_words(schema.get("description"))), is_plural(name)
    choices = schema.get("enum")
    options = ""
    if isinstance(choices, list) and 1 < len(choices) <= 6 and all(isinstance(choice, str) for choice in choices):
        options = f" It can be {joined([spelled(choice) for choice in choices], 'or')}."
    template = draw.pick(
        (
            "To {task}, I also need the {what}{about}. What should {it} be?",
            "I can do that. What {be} the {what}{about}?",
            "Before I go on: what {be} the {what}{about}?",
            "One thing is missing: the {what}{about}. Could you give {them} to me?",
        )
    )
    it, be, them = ("they", "are", "them") if many else ("it", "is", "it")
    return template.format(task=task, what=what, about=about, it=it, be=be, them=them) + options


def _asked(name: str, told: str) -> tuple[str, str]:
    """What is asked for, and in brackets what that is; a description that names it stands in its place."""
    what = human(name)
    told = re.sub(r"Amazon Resource Names? \((ARNs?)\)", r"\1", told)
    bare = re.sub(r"^(?:the|an?|your) ", "", told, flags=re.I)
    if bare.lower() == what.lower() or not bare:
        return what, ""
    if re.match(r"(?:name|id|identifier|arn) (?:of|for) ", bare, re.I) and what.lower() in bare.lower():
        return bare, ""
    if bare.lower().startswith((f"{what.lower()} of ", f"{what.lower()} for ", f"{what.lower().split()[-1]} of ")):
        own = name_words(name)[-1:]
        return re.sub(r"^\w+", lambda word: human(word[0]) if word[0].lower() in own else word[0], bare), ""
    return what, f" ({told})"


def give(name: str, value: Json, draw: Draw) -> str:
    """The user's answer to `ask`."""
    text, what = written(value), human(name)
    template = draw.pick(("{text}", "Use {text}.", "The {what} {be} {text}.", "{It} {text}.", "{What}: {text}"))
    be, it = ("are", "They are") if is_plural(name) else ("is", "It's")
    return template.format(text=text, what=what, What=capitalised(what), be=be, It=it)


def decline(task: str, needed: Sequence[str], offered: int, draw: Draw) -> str:
    """The agent says that no tool on offer does the task, and what it would need."""
    none = "The tool I have does" if offered == 1 else "The tools I have do"
    by = joined([human(name) for name in needed[:3]])
    taking = f" that takes the {by}" if by else ""
    template = draw.pick(
        (
            "I can't do that here. {none} not let me {task}; I would need a function for it{such}.",
            "None of the functions on offer can {task}. To help, I would need one that {does}.",
            "I'm not able to {task} with the tools available. What is missing is a function for it{such}.",
            "{none} not cover this request: to {task}, I would need a tool made for it{such}.",
        )
    )
    such = f", one{taking}" if taking else ""
    does = f"takes the {by} and does this" if by else "does this"
    if offered == 1:
        template = template.replace("None of the functions on offer can", "The function on offer cannot")
    return template.format(none=none, task=task, does=does, such=such)


def _first_words(description: Json) -> str:
    """The first sentence of a description, if it is short, without its full stop."""
    if not isinstance(description, str):
        return ""
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", description.strip().split("\n")[0].split("; ")[0])
    plain = re.sub(r"\s*[(\[](?:string|integer|number|boolean|required|optional)[)\]]", "", plain, flags=re.I)
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z])", re.sub(r"[`*]+|<[^<>]{1,60}>", "", plain))[0].strip().rstrip(".:")
    if not 8 <= len(sentence) <= 140 or sentence.count("(") != sentence.count(")"):
        return ""
    return sentence[0].lower() + sentence[1:] if sentence[:2].istitle() or sentence[1:2] == " " else sentence


def output_of(result: str | None) -> Json:
    """The result as a JSON value; the text itself where it is none."""
    try:
        return json.loads(result) if result is not None else None
    except (ValueError, RecursionError):
        return result
