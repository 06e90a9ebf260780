"""A script played for the record: the trajectory that a model is trained on, and whether it can be played again."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from hephaestus_jax.forge.environments.environment import Call, Environment, Kind, Split, Task, complaint_about
from hephaestus_jax.forge.environments.perturbations import FAILURES, Offer, Perturbations, offer
from hephaestus_jax.forge.environments.play import Play
from hephaestus_jax.forge.environments.scripts import Move, Policy, Script, plan
from hephaestus_jax.forge.environments.seen import Seen
from hephaestus_jax.forge.environments.thoughts import Situation, Thoughts, thought
from hephaestus_jax.formats.records import (
    ApiAction,
    Json,
    MessageAction,
    Outcome,
    Provenance,
    Step,
    TextObservation,
    Trajectory,
    canonical_json,
    digest,
    episode_of,
)

_DONE = ("Done: the task is finished.", "That is done.", "The goal is reached.", "Finished; everything is as asked.")
_GIVEN_UP = ("I cannot do this.", "I am sorry, I do not get any further here.", "I give up on this task.")
_NOT_DONE = (
    "It is not done yet ({percent} % of it, by the environment's own score). Please go on.",
    "No, the task is not finished: the score is {percent} of 100. Go on.",
    "That is not right yet; the environment counts {percent} %. Please finish it.",
)


@dataclass(frozen=True)
class EpisodeConfig:
    """How episodes are put into words."""

    thoughts: Thoughts = field(default_factory=Thoughts)
    perturbations: Perturbations = field(default_factory=Perturbations)


@dataclass(frozen=True)
class Assignment:
    """One episode to be played."""

    kind: Kind
    game: str
    seed: int
    split: Split
    policy: Policy

    @property
    def rng(self) -> random.Random:
        """Randomness of its own, the same on every machine."""
        return random.Random(digest([self.kind.name, self.game, self.seed, self.split, self.policy]))


@dataclass
class _Recording:
    """The steps of a trajectory as they come."""

    play: Play
    offer: Offer
    rng: random.Random
    thoughts: Thoughts
    seen: Seen
    steps: list[Step] = field(default_factory=list)
    calls: int = 0

    def begin(self) -> None:
        """The goal and the first observation."""
        task = self.play.task
        text = f"{task.goal}\n\n{task.observation}" if task.observation else task.goal
        self.steps.append(TextObservation(text, "user"))
        for told in (
            task.system,
            text,
            *(canonical_json([t.name, t.description, t.parameters]) for t in self.offer.tools),
        ):
            self.seen.add(told)

    def move(self, move: Move, before: Move | None, outcome: Outcome) -> None:
        """One move, with what comes of it."""
        if move.call is None:
            self._claim(move, outcome)
            return
        situation = Situation(
            move.part, first=not self.calls, refused=self._refused,
            unfinished=before is not None and before.call is None,
        )  # fmt: skip
        if move.part not in ("floor", "wrong") and self.rng.random() < self.offer.failures:
            failure = self.rng.choice(FAILURES)
            self._act(move.call, situation, "ok")
            self._observe(failure)
            situation = Situation(move.part, failed=True)
        self._act(move.call, situation, outcome)
        made = self.play.step(move.call)
        shown = complaint_about(self.offer.shown_verbs, self.offer.shown(move.call))
        self._observe(shown or made.observation, made.score)

    @property
    def _refused(self) -> bool:
        return self.play.last is not None and self.play.last.error

    def _claim(self, move: Move, outcome: Outcome) -> None:
        """Says that it is done (or, of a floor, that it gives up); what is wrong about it is answered."""
        text = self.rng.choice(_DONE if move.part == "wrong" else _GIVEN_UP)
        self.steps.append(MessageAction(text, outcome=outcome))
        if move.part == "wrong":
            score = self.play.last.score if self.play.last is not None else 0.0
            answer = self.rng.choice(_NOT_DONE).format(percent=round(100 * score))
            self.steps.append(TextObservation(answer, "user"))
            self.seen.add(answer)

    def _act(self, call: Call, situation: Situation, outcome: Outcome) -> None:
        self.calls += 1
        said = self._thought(call, situation) if self.rng.random() < self.thoughts.share else None
        name, identifier = self.offer.shown(call).tool, f"call_{self.calls:06d}"
        self.steps.append(
            ApiAction(name, dict(call.arguments), reasoning_content=said, tool_call_id=identifier, outcome=outcome)
        )

    def _thought(self, call: Call, situation: Situation) -> str:
        verb = next((verb for verb in self.play.task.verbs if verb.name == call.tool), None)
        own = [reason.replace("{", "{{").replace("}", "}}") for reason in self.play.environment.reasons(call)]
        reasons = own or (verb.reasons if verb else ())
        return thought(reasons, call, situation, self.seen, self.rng)

    def _observe(self, text: str, score: float | None = None) -> None:
        self.steps.append(TextObservation(text, "environment", f"call_{self.calls:06d}", reward=score))
        self.seen.add(text)

    def end(self, outcome: Outcome) -> None:
        """What the agent tells the user after success."""
        answer = self.play.environment.answer() or self.rng.choice(_DONE)
        self.steps.append(MessageAction(answer, outcome=outcome))


def play_episode(environment: Environment, wanted: Assignment, config: EpisodeConfig) -> Trajectory | None:
    """Plans an episode, plays it for the record, and writes it down.

    Returns:
        None when the policy found no way to play it (an expert that does not win, no mistake that can be mended).
    """
    rng = wanted.rng
    play = Play(environment, wanted.game, wanted.seed, wanted.split)
    script = plan(wanted.policy, play, rng)
    floor = wanted.policy in ("random", "refuse")
    if not floor and not script.solved:
        return None
    play = Play(environment, wanted.game, wanted.seed, wanted.split)
    names = frozenset(str(value) for move in script.moves if move.call for value in move.call.arguments.values())
    offered = offer(play.task.verbs, config.perturbations, rng)
    recording = _Recording(play, offered, rng, config.thoughts, Seen(names))
    recording.begin()
    _record(recording, script, floor)
    if play.won:
        recording.end("error" if floor else "ok")
    elif not floor:
        return None  # it went otherwise than when it was planned; the caller counts it
    return _trajectory(wanted, recording, script)


def _record(recording: _Recording, script: Script, floor: bool) -> None:
    before: Move | None = None
    for move in script.moves:
        if floor and move.call is None and recording.play.won:
            break
        recording.move(move, before, _outcome(move, floor))
        before = move


def _outcome(move: Move, floor: bool) -> Outcome:
    """What is learned from a step: nothing from a wrong one, nor from a policy that knows no better."""
    if floor or move.part == "wrong":
        return "error"
    return "corrected" if move.part == "recovery" else "ok"


def _trajectory(wanted: Assignment, recording: _Recording, script: Script) -> Trajectory:
    play, kind = recording.play, wanted.kind
    task = play.task
    last = play.last
    wrong = [move.wrong_kind for move in script.moves if move.part == "wrong"]
    episode: dict[str, Json] = {
        "environment": kind.name,
        "game": wanted.game,
        "seed": wanted.seed,
        "split": wanted.split,
        "policy": wanted.policy,
        "wrong_steps": wrong,
        "changes": list(recording.offer.changes),
        "tool_names": {own: name for own, name in recording.offer.names.items() if own != name},
        "task": task_digest(task),
    }
    return Trajectory(
        steps=tuple(recording.steps),
        provenance=Provenance(
            kind.terms.package or "hephaestus_jax", kind.terms.version, kind.terms.licence,
            host=f"pypi.org/project/{kind.terms.package}" if kind.terms.package else "",
            path=f"{kind.name}/{wanted.game}/{wanted.split}/{wanted.seed}/{wanted.policy}",
        ),
        tools=recording.offer.tools,
        system=task.system,
        success=play.won,
        reward=last.score if last is not None else 0.0,
        name=f"{kind.name}-{wanted.game}-{wanted.seed}-{wanted.policy}",
        details={"episode": episode},
    )  # fmt: skip


def task_digest(task: Task) -> str:
    """Equal for two episodes that set the same task."""
    return digest([task.goal, task.observation])


def replay(environment: Environment, trajectory: Trajectory) -> str:
    """Plays a trajectory's calls again; what came out otherwise, "" if every word and the success are the same."""
    episode = episode_of(trajectory)
    play = Play(environment, episode["game"], episode["seed"], episode["split"])
    if task_digest(play.task) != episode["task"]:
        return "begins otherwise"
    names = {verb.name: verb.name for verb in play.task.verbs} | episode["tool_names"]
    made = Offer(play.task.verbs, trajectory.tools, names)
    for number, (action, observation) in enumerate(_pairs(trajectory.steps)):
        if observation.reward is None and observation.content in FAILURES:  # a call that was made to fail
            continue
        call = made.meant(Call(action.function, action.kwargs))
        shown = complaint_about(made.shown_verbs, Call(action.function, action.kwargs))
        told = play.step(call)
        if (shown or told.observation) != observation.content or told.score != observation.reward:
            return f"call {number}: {action.function} answers otherwise"
    if play.won != trajectory.success:
        return "claims success and has none" if trajectory.success else "claims failure and succeeds"
    return ""


def _pairs(steps: Sequence[Step]) -> list[tuple[ApiAction, TextObservation]]:
    pairs = itertools.pairwise(steps)
    return [(a, o) for a, o in pairs if isinstance(a, ApiAction) and isinstance(o, TextObservation)]
