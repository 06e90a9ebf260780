"""One request with all that follows from it: the parts that trajectories are put together from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hephaestus_jax.forge.compose import replies, requests
from hephaestus_jax.forge.compose.cases import Case
from hephaestus_jax.forge.compose.checks import at_path, unsaid
from hephaestus_jax.forge.compose.links import Chain, Path
from hephaestus_jax.forge.compose.offers import Offer
from hephaestus_jax.forge.compose.settings import Draw
from hephaestus_jax.forge.compose.tasks import READING, verb_of
from hephaestus_jax.forge.compose.wording import is_said, scalars
from hephaestus_jax.formats.records import ApiAction, Json, MessageAction, Step, TextObservation, canonical_json

_THEN = ("Then this: ", "After that: ", "And then: ", "Once that is done: ")
_ALL_TOLD = ("Here are the results.", "All of it is done; the results are there.", "Those are the results.")


@dataclass(frozen=True)
class Segment:
    """One request with its calls, their results and the agent's words."""

    kind: str
    steps: tuple[Step, ...]
    offers: tuple[Offer, ...]  # the right tools
    links: tuple[Mapping[str, Json], ...] = ()
    answered: bool = True  # every call has its result, so that the conversation can go on


class Ids:
    """Call ids of one trajectory: call_1, call_2, …"""

    def __init__(self) -> None:
        self._count = 0

    def next(self) -> str:
        self._count += 1
        return f"call_{self._count}"


@dataclass(frozen=True)
class Telling:
    """Whether the agent closes with words about the result: in a share of the requests, or always."""

    share: float
    always: bool = False

    def steps(self, case: Case, draw: Draw) -> list[Step]:
        """No step, or one."""
        if case.result is None or not (self.always or draw.chance(self.share)):
            return []
        words = replies.closing(case.task, case.output, draw, scalars(case.arguments))
        if words is None and self.always:
            words = "Here is the result." if verb_of(case.task) in READING else "Done."
        return [MessageAction(words, outcome="ok")] if words else []


def single(case: Case, ids: Ids, telling: Telling, draw: Draw) -> Segment | None:
    """The user states everything, the agent calls."""
    text = requests.request(case.task, case.arguments, draw)
    if unsaid(case.arguments, case.offer.tool.parameters, text):
        return None
    steps = (_user(text), *_calls([case], ids), *telling.steps(case, draw))
    return Segment("single", steps, (case.offer,), answered=case.result is not None)


def missing_parameter(case: Case, ids: Ids, telling: Telling, draw: Draw) -> Segment | None:
    """The user leaves out a required argument; the agent asks for it, gets it and calls."""
    schema = case.offer.tool.parameters
    choices = [name for name in schema.get("required", ()) if _can_be_asked(case.arguments.get(name), name, schema)]
    if not choices:
        return None
    name = draw.pick(choices)
    value = case.arguments[name]
    text = requests.request(case.task, case.arguments, draw, leave=(name,))
    question = replies.ask(case.task, name, schema.get("properties", {}).get(name, {}), draw)
    answer = replies.give(name, value, draw)
    if is_said(value, text) or unsaid(case.arguments, schema, f"{text}\n{answer}"):
        return None
    steps = (
        _user(text),
        MessageAction(question, outcome="ok"),
        _user(answer),
        *_calls([case], ids),
        *telling.steps(case, draw),
    )
    return Segment("missing_parameter", steps, (case.offer,), answered=case.result is not None)


def _can_be_asked(value: Json, name: str, schema: Mapping[str, Json]) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    if re.match(r"(?i)(?:is|has|enable)(?=[_A-Z])|.*ed$", name):  # a switch; "what is the enabled?"
        return False
    return bool(unsaid({name: value}, schema, ""))  # neither a default nor the only choice


def parallel(cases: Sequence[Case], ids: Ids, telling: Telling, draw: Draw) -> Segment | None:
    """Calls of one turn that do not depend on each other; each case has its result."""
    texts = [requests.request(case.task, case.arguments, draw) for case in cases]
    for case, text in zip(cases, texts, strict=True):
        if unsaid(case.arguments, case.offer.tool.parameters, text):
            return None
    words = [MessageAction(draw.pick(_ALL_TOLD), outcome="ok")] if telling.always else []
    steps = (_user(requests.together(texts, draw)), *_calls(cases, ids), *words)
    return Segment("parallel", steps, tuple(dict.fromkeys(case.offer for case in cases)))


def independent(case: Case, others: Sequence[Case]) -> bool:
    """Whether a call repeats none of the others', and is not asked for in the words of another API's."""
    call, task = canonical_json(case.arguments), case.task.lower()
    return not any(
        canonical_json(one.arguments) == call if one.doc is case.doc else one.task.lower() == task for one in others
    )


def dependent(chain: Chain, ids: Ids, telling: Telling, draw: Draw) -> Segment | None:
    """Two calls, the second of which takes values from the first one's result, in one turn of the user or in two."""
    first, second = chain.first, chain.second
    taken = list(dict.fromkeys(str(link.argument[0]) for link in chain.links))
    opening = requests.request(first.task, first.arguments, draw)
    among = any(_has_choice(first.output, link.path) for link in chain.links)
    further = requests.follow_up(second.task, second.arguments, taken, among, draw)
    stated = {name: value for name, value in second.arguments.items() if name not in taken}
    if unsaid(first.arguments, first.offer.tool.parameters, opening):
        return None
    if unsaid(stated, second.offer.tool.parameters, f"{opening}\n{further}"):
        return None
    calls = _calls([first], ids)
    if draw.chance(0.5):
        between = "\n\n" if "\n" in opening else " "
        begun: tuple[Step, ...] = (_user(f"{opening}{between}{draw.pick(_THEN)}{further}"), *calls)
    else:
        begun = (_user(opening), *calls, *Telling(1, always=True).steps(first, draw), _user(further))
    then = _calls([second], ids)
    steps = (*begun, *then, *telling.steps(second, draw))
    made = [
        {"from": _id(calls), "path": list(link.path), "to": _id(then), "argument": list(link.argument)}
        for link in chain.links
    ]
    return Segment("dependent", steps, (first.offer, second.offer), tuple(made), second.result is not None)


def _id(calls: Sequence[Step]) -> str | None:
    return calls[0].tool_call_id if isinstance(calls[0], ApiAction) else None


def _has_choice(output: Json, path: Path) -> bool:
    """Whether the path goes through the first of several items."""
    return any(isinstance(part, int) and len(at_path(output, path[:place], ())) > 1 for place, part in enumerate(path))


def missing_function(case: Case, offered: int, draw: Draw) -> Segment:
    """The agent declines: no tool on offer does what the user asks for."""
    needed = case.offer.tool.parameters.get("required", ())
    words = replies.decline(case.task, needed, offered, draw)
    text = requests.request(case.task, case.arguments, draw)
    return Segment("missing_function", (_user(text), MessageAction(words, outcome="ok")), ())


def _user(text: str) -> Step:
    return TextObservation(text, "user")


def _calls(cases: Sequence[Case], ids: Ids) -> list[Step]:
    """The calls of one turn, then what they returned, in the same order."""
    named = [(case, ids.next()) for case in cases]
    calls = [ApiAction(case.offer.name, case.arguments, tool_call_id=name, outcome="ok") for case, name in named]
    results = [
        TextObservation(case.result, "environment", tool_call_id=name)
        for case, name in named
        if case.result is not None
    ]
    return [*calls, *results]
