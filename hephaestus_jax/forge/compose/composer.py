"""Composes trajectories from the documented examples of one provider's APIs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hephaestus_jax.forge.compose import segments
from hephaestus_jax.forge.compose.cases import Case, cases_of
from hephaestus_jax.forge.compose.commands import LANGUAGE, Command, command_request, commands_of
from hephaestus_jax.forge.compose.links import Links
from hephaestus_jax.forge.compose.offers import Offer, Shelf
from hephaestus_jax.forge.compose.segments import Ids, Segment, Telling
from hephaestus_jax.forge.compose.settings import ComposeConfig, Draw
from hephaestus_jax.forge.compose.tasks import READING, REMOVING, verb_of
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    CodeAction,
    Json,
    Provenance,
    Step,
    TextObservation,
    Trajectory,
    canonical_json,
)


def compose(docs: Sequence[ApiDoc], pool: Sequence[ApiDoc], config: ComposeConfig) -> Iterator[Trajectory]:
    """The trajectories that the documented examples of one provider's APIs make.

    They depend on the contents of `docs` and `pool` and on the seed, not on their order. `details` tell the kind
    ("composed", one of `KINDS`), the APIs with their record ids, and the links of dependent calls.

    Args:
        docs: APIs of one provider and one split.
        pool: APIs of other providers of the same split, to stand beside the right ones. An API that is held out must
            not be here when training's trajectories are composed.
        config: limits and shares.
    """
    composer = _Composer(_offers(docs, config), _offers(pool, config), config)
    for offer in composer.own:
        yield from composer.of_api(offer)


def _offers(docs: Sequence[ApiDoc], config: ComposeConfig) -> list[Offer]:
    """The APIs in an order that is theirs; the same API once."""
    alike: dict[tuple[str, ...], list[Offer]] = {}
    for doc in docs:
        origin = doc.provenance
        key = (doc.name, origin.path, origin.source, origin.version)
        alike.setdefault(key, []).append(Offer(doc, config.tool_characters))
    ordered = []
    for _, offers in sorted(alike.items()):
        if len(offers) > 1:  # ids take long to derive, and few APIs need them to be told apart
            offers = [offer for _, offer in sorted({offer.id: offer for offer in offers}.items())]
        ordered += offers
    return ordered


class _Composer:
    def __init__(self, own: list[Offer], others: list[Offer], config: ComposeConfig) -> None:
        self.own = own
        self._config = config
        self._telling = Telling(config.closing)
        self._shelf = Shelf(own, others)
        # A command line is shown either as a command or as a call, never as both.
        self._cases = {offer: [c for c in cases_of(offer, config) if not self._in_bash(offer, c)] for offer in own}
        every = [case for offer in own for case in self._cases[offer]]
        self._links = Links(every)
        self._groups: dict[str, list[Case]] = {}
        for case in every:
            self._groups.setdefault(case.offer.group, []).append(case)

    def of_api(self, offer: Offer) -> Iterator[Trajectory]:
        """The trajectories whose first call is this API's, at most `max_per_api`."""
        for _, trajectory in zip(range(self._config.max_per_api), self._all_of_api(offer), strict=False):
            yield trajectory

    def _all_of_api(self, offer: Offer) -> Iterator[Trajectory]:
        chains = self._config.max_dependent
        for case in self._cases[offer]:
            for trajectory in self._of_case(case, chains):
                chains -= trajectory.details["composed"] == "dependent"
                yield trajectory
        if offer.doc.interface == "cli":
            calls = {case.number for case in self._cases[offer]}
            for command in commands_of(offer, self._config):
                if command.number not in calls and (run := self._command(command)):
                    yield run

    def _in_bash(self, offer: Offer, case: Case) -> bool:
        return offer.doc.interface == "cli" and Draw(self._config.seed, "bash", case.key).chance(self._config.bash)

    def _of_case(self, case: Case, chains: int) -> Iterator[Trajectory]:
        config = self._config
        draw = Draw(config.seed, case.key)
        if segment := segments.single(case, Ids(), self._telling, draw):
            alone = draw.chance(config.alone)
            yield from self._finished("single" if alone else "distractors", [segment], draw, alone)
        for chain in self._links.chains(case, chains, draw):
            if segment := segments.dependent(chain, Ids(), self._telling, draw):
                yield from self._finished("dependent", [segment], draw)
        asks = draw.chance(config.missing_parameter)
        if asks and (segment := segments.missing_parameter(case, Ids(), self._telling, draw)):
            yield from self._finished("missing_parameter", [segment], draw)
        if draw.chance(config.missing_function):
            yield from self._missing_function(case, draw)
        if draw.chance(config.parallel) and (segment := self._parallel(case, Ids(), self._telling, draw)):
            yield from self._finished("parallel", [segment], draw)
        if draw.chance(config.multi_turn):
            yield from self._multi_turn(case, draw)

    # --- kinds --------------------------------------------------------------------------------------------------------

    def _missing_function(self, case: Case, draw: Draw) -> Iterator[Trajectory]:
        offered = self._shelf.beside([case.offer], draw.between(*self._config.distractors), draw, strict=True)
        if offered:
            segment = segments.missing_function(case, len(offered), draw)
            yield self._trajectory("missing_function", [segment], [case.offer], offered)

    def _parallel(self, case: Case, ids: Ids, telling: Telling, draw: Draw) -> Segment | None:
        """Calls of one API with other arguments, or of APIs of its group that only read."""
        if case.result is None:
            return None
        group = self._groups[case.offer.group] if verb_of(case.task) in READING else ()
        readers = [other for other in group if verb_of(other.task) in READING and other.doc is not case.doc]
        count = draw.between(1, self._config.max_parallel - 1)
        chosen = [case]
        for other in [*draw.sample(self._cases[case.offer], count), *draw.sample(readers, 2 * count)]:
            if len(chosen) <= count and other.result is not None and segments.independent(other, chosen):
                chosen.append(other)
        return segments.parallel(chosen, ids, telling, draw) if len(chosen) > 1 else None

    def _multi_turn(self, case: Case, draw: Draw) -> Iterator[Trajectory]:
        """Several requests of one group, one after the other; what removes things comes last."""
        count = draw.between(2, self._config.max_turns)
        group = [other for other in self._groups[case.offer.group] if segments.independent(other, [case])]
        cases = [case]
        for other in draw.sample(group, 2 * count):
            if len(cases) < count and segments.independent(other, cases):
                cases.append(other)
        cases.sort(key=lambda one: verb_of(one.task) in REMOVING)
        ids = Ids()
        made: list[Segment] = []
        done: set[str] = set()
        for number, one in enumerate(cases):
            telling = self._telling if number == len(cases) - 1 else Telling(1, always=True)
            segment = self._turn(one, ids, telling, draw)
            if segment and (segment.answered or number == len(cases) - 1) and not _calls_of(segment) & done:
                made.append(segment)
                done |= _calls_of(segment)
        if len(made) > 1:
            yield from self._finished("multi_turn", made, draw)

    def _turn(self, case: Case, ids: Ids, telling: Telling, draw: Draw) -> Segment | None:
        """One request of a conversation, of any kind that the case allows."""
        kind = draw.below(8)
        segment: Segment | None = None
        if kind == 0:
            segment = segments.missing_parameter(case, ids, telling, draw)
        elif kind == 1:
            segment = self._parallel(case, ids, telling, draw)
        elif kind in (2, 3):
            for chain in self._links.chains(case, 1, draw):
                segment = segments.dependent(chain, ids, telling, draw)
        return segment or segments.single(case, ids, telling, draw)

    def _command(self, command: Command) -> Trajectory | None:
        """A command that is run in a shell."""
        draw = Draw(self._config.seed, "command", command.offer.id, command.number)
        text = command_request(command, draw)
        if text is None:
            return None
        steps: list[Step] = [
            TextObservation(text, "user"),
            CodeAction(LANGUAGE, command.call, tool_call_id="call_1", outcome="ok"),
        ]
        if command.result is not None:
            steps.append(TextObservation(command.result, "environment", tool_call_id="call_1"))
        made = self._trajectory("command", [Segment("command", tuple(steps), (command.offer,))], [command.offer], [])
        return replace(made, code_languages=(LANGUAGE,))

    # --- trajectories -------------------------------------------------------------------------------------------------

    def _finished(self, kind: str, parts: Sequence[Segment], draw: Draw, alone: bool = False) -> Iterator[Trajectory]:
        """The trajectory, its tools among others; none where two right tools have one name."""
        right = list(dict.fromkeys(offer for part in parts for offer in part.offers))
        if len({offer.name for offer in right}) < len(right):
            return
        others = [] if alone else self._shelf.beside(right, draw.between(*self._config.distractors), draw)
        yield self._trajectory(kind, parts, right, draw.shuffled([*right, *others]))

    def _trajectory(
        self, kind: str, parts: Sequence[Segment], right: Sequence[Offer], offered: Sequence[Offer]
    ) -> Trajectory:
        details: dict[str, Json] = {
            "composed": kind,
            "apis": [offer.doc.name for offer in right],
            "documents": [offer.id for offer in right],
        }
        if links := [dict(link) for part in parts for link in part.links]:
            details["links"] = links
        if kind == "multi_turn":
            details["turns"] = [part.kind for part in parts]
        return Trajectory(
            steps=tuple(step for part in parts for step in part.steps),
            provenance=_provenance(kind, right),
            tools=tuple(offer.tool for offer in offered),
            success=True,
            name=right[0].doc.name,
            details=details,
        )


def _calls_of(segment: Segment) -> set[str]:
    """What the segment calls, with which arguments."""
    return {canonical_json([s.function, s.kwargs]) for s in segment.steps if isinstance(s, ApiAction)}


def _provenance(kind: str, right: Sequence[Offer]) -> Provenance:
    """That of the first call's API, under the terms of all."""
    first = right[0].doc.provenance
    stated = sorted({offer.doc.provenance.licence for offer in right})
    licence = " AND ".join(f"({one})" if " OR " in one and len(stated) > 1 else one for one in stated)
    processing = (*first.processing, f"composed: {kind} from documented examples, not executed")
    return replace(first, licence=licence, processing=processing)
