"""What every environment must hold, for the tests of each; and a command that plays or shows its episodes.

    python tests/forge/environments/environment_checks.py textworld_express --episodes 100
    python tests/forge/environments/environment_checks.py textworld_express --game coin --read 2

Needs the working tree on PYTHONPATH. `told` gives an episode as lines of JSON: equal for two that have equal words.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import string
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jsonschema

from hephaestus_jax.forge.environments import ENVIRONMENTS
from hephaestus_jax.forge.environments.environment import (
    FIRST_UNSEEN_SEED,
    Call,
    Environment,
    Feedback,
    Kind,
    Split,
    Task,
    checked_step,
    complaint_about,
)
from hephaestus_jax.formats.records import Json

ROOT = Path(__file__).resolve().parents[3]
LONGEST_OBSERVATION = 4200  # characters: about 4,000, and the note that says that it was cut
Steps = list[tuple[Call, Feedback]]


def kind_named(name: str) -> Kind:
    """A registered environment."""
    return ENVIRONMENTS[name]


def check_kind(kind: Kind) -> None:
    """What is registered: games of training and unseen ones are disjoint, and the terms are stated."""
    assert kind.games or kind.unseen_games
    assert len(set(kind.games + kind.unseen_games)) == len(kind.games) + len(kind.unseen_games)
    assert kind.description and kind.terms.licence and (kind.terms.version or not kind.terms.package)


def check_text(text: str, what: str) -> None:
    """Tidy words: no double blanks within a line, no blanks at its end, no heaps of empty lines, and not too long."""
    assert text == text.strip(), f"{what} begins or ends with blanks: {text!r}"
    for line in text.split("\n"):
        assert line == line.rstrip(), f"{what}: blanks at the end of {line!r}"
        assert "  " not in line.lstrip(), f"{what}: double blanks in {line!r}"
    assert "\n\n\n" not in text, f"{what}: more than one empty line: {text!r}"
    assert len(text) <= LONGEST_OBSERVATION, f"{what} has {len(text)} characters"


def check_task(task: Task) -> None:
    """A goal in full sentences, tidy words, a bound on steps, and verbs that comply."""
    assert task.goal and task.goal[-1] in ".!?)\"'`" and len(task.goal.split()) >= 4, task.goal
    for text, what in ((task.goal, "goal"), (task.observation, "observation"), (task.system, "system")):
        check_text(text, what)
    assert task.system and 1 <= task.max_steps <= 100
    check_verbs(task)


def check_verbs(task: Task) -> None:
    """Every verb: a valid closed schema, two descriptions, another name, three reasons with its own parameters only."""
    taken: Counter[str] = Counter()
    for verb in task.verbs:
        schema = verb.tool().parameters
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["additionalProperties"] is False and schema["type"] == "object"
        assert set(verb.optional) <= set(verb.parameters)
        for name in {verb.name, *verb.other_names}:
            assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]{0,63}", name), name
            taken[name] += 1
        assert verb.other_names and verb.name not in verb.other_names, f"{verb.name} has no other name"
        assert len(set(verb.descriptions)) >= 2, f"{verb.name} has fewer than two descriptions"
        assert len(set(verb.reasons)) >= 3, f"{verb.name} has fewer than three reasons"
        for text in (*verb.descriptions, *verb.reasons):
            check_text(text, verb.name)
            assert text[0].isupper() and text[-1] in ".!?", f"{verb.name}: not a sentence: {text!r}"
        for reason in verb.reasons:
            slots = {slot for _, slot, _, _ in string.Formatter().parse(reason) if slot is not None}
            assert slots <= set(verb.parameters) - set(verb.optional), f"{verb.name}: {reason!r} asks for {slots}"
        for name, parameter in verb.parameters.items():
            assert parameter.get("description"), f"{verb.name}: parameter {name} is not described"
    assert task.verbs and max(taken.values()) == 1, f"names of more than one verb: {taken.most_common(3)}"


def check_feedback(feedback: Feedback, what: str = "observation") -> None:
    check_text(feedback.observation, what)
    assert feedback.observation, f"{what} is empty"
    assert 0.0 <= feedback.score <= 1.0, feedback.score


def begin(environment: Environment, game: str, seed: int, split: Split) -> tuple[Task, Sequence[Call]]:
    """Resets; the task, and the expert's calls where they are known from the beginning."""
    task = environment.reset(game, seed, split)
    return task, () if environment.oracle() is not None else tuple(environment.gold_path())


def play_oracle(environment: Environment, game: str, seed: int, split: Split = "train", must_win: bool = True) -> Steps:
    """An expert's episode, checked: it wins within `max_steps`, ends in `done`, and none of its calls is an error."""
    task, path = begin(environment, game, seed, split)
    check_task(task)
    what = f"{game}, seed {seed}, {split}"
    steps: Steps = []
    while len(steps) < task.max_steps and not (steps and steps[-1][1].done):
        call = environment.oracle() if not path else path[len(steps)] if len(steps) < len(path) else None
        if call is None:
            break
        feedback = checked_step(environment, task.verbs, call, steps[-1][1] if steps else None)
        check_feedback(feedback, f"{what}, {call.key}")
        assert not feedback.error or not must_win, f"{what}: {call.key} was refused: {feedback.observation}"
        steps.append((call, feedback))
    if must_win:
        assert steps and steps[-1][1].success, f"{what}: not won after {len(steps)} of {task.max_steps} steps"
        assert steps[-1][1].done, f"{what}: won, but not over"
    return steps


def told(task: Task, steps: Steps) -> str:
    """An episode in words: equal for equal ones."""
    lines = [json.dumps([task.goal, task.observation, task.system, [verb.name for verb in task.verbs], task.max_steps])]
    for call, feedback in steps:
        lines.append(json.dumps([call.key, feedback.observation, feedback.error, feedback.score, feedback.success]))
    return "\n".join(lines)


def replay(environment: Environment, game: str, seed: int, split: Split, calls: Sequence[Call]) -> tuple[Task, Steps]:
    """The same calls from the beginning; calls after the end of the episode are left out."""
    task = environment.reset(game, seed, split)
    steps: Steps = []
    for call in calls:
        steps.append((call, checked_step(environment, task.verbs, call, steps[-1][1] if steps else None)))
        if steps[-1][1].done:
            break
    return task, steps


def wandering(environment: Environment, game: str, seed: int, split: Split, count: int, expert: bool = True) -> Steps:
    """A player without a plan: choices, and the expert's calls by turns unless `expert` is off. Deterministic."""
    task, path = begin(environment, game, seed, split) if expert else (environment.reset(game, seed, split), ())
    steps: Steps = []
    while len(steps) < count and not (steps and steps[-1][1].done):
        choices = environment.choices()
        assert choices, "there is always something that one can do"
        call = choices[(7919 * len(steps) + seed) % len(choices)]
        if expert and len(steps) % 2:
            call = (path[len(steps) // 2] if len(steps) // 2 < len(path) else environment.oracle()) or call
        steps.append((call, checked_step(environment, task.verbs, call, steps[-1][1] if steps else None)))
        check_feedback(steps[-1][1], call.key)
    return steps


_ELSEWHERE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from environment_checks import Call, kind_named, outcome, replay
name, game, seed, split, calls, other = json.loads(sys.stdin.read())
environment = kind_named(name).make()
environment.reset(*other)
environment.choices()
task, steps = replay(environment, game, seed, split, [Call(tool, arguments) for tool, arguments in calls])
print(json.dumps(outcome(environment, task, steps)))
environment.close()
"""


def outcome(environment: Environment, task: Task, steps: Steps) -> list[Json]:
    """What must be the same whenever the same calls were made: words, choices, state, and what an expert would do."""
    expert = environment.oracle()
    path = [call.key for call in ([expert] if expert is not None else environment.gold_path())]
    return [told(task, steps), [call.key for call in environment.choices()], environment.state(), *path]


def check_determinism(
    name: str,
    game: str,
    seed: int,
    split: Split = "train",
    environment: Environment | None = None,
    count: int = 14,
) -> None:
    """The same calls give the same words, choices, state and expert's calls.

    That is with and without asking for choices between them, in an instance that has played other episodes, and in
    another process with other hashes of strings.
    """
    kind = kind_named(name)
    here = environment or kind.make()
    try:
        wandered = wandering(here, game, seed, split, count)
        calls = [call for call, _ in wandered]
        outcomes = []
        for other in ((game, seed + 1), (kind.games[0], seed + 2)):
            wandering(here, *other, split="train", count=3, expert=False)
            task, steps = replay(here, game, seed, split, calls)
            outcomes.append(outcome(here, task, steps))
    finally:
        if environment is None:
            here.close()
    assert outcomes[0] == outcomes[1], "an episode depends on those before it"
    assert told(task, wandered) == outcomes[0][0], "choices() or the expert's calls change something when asked for"
    pairs = [[call.tool, dict(call.arguments)] for call in calls]
    environ = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(Path(__file__).parent)], env=environ, text=True, capture_output=True,
        input=json.dumps([name, game, seed, split, pairs, [kind.games[-1], seed + 3, "train"]]), timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == outcomes[0], "another process gives other words"


def check_choices(environment: Environment, task: Task) -> None:
    """Choices are calls of the tools on offer, valid, without doubles, always the same; looks are among them."""
    choices = list(environment.choices())
    assert choices and choices == list(environment.choices())
    keys = [call.key for call in choices]
    assert len(set(keys)) == len(keys), f"doubles among the choices: {Counter(keys).most_common(2)}"
    for call in (*choices, *environment.looks()):
        complaint = complaint_about(task.verbs, call)
        assert not complaint, f"{call.key}: {complaint}"
    assert {call.key for call in environment.looks()} <= set(keys), "a look is no choice"


def check_looks_and_undo(
    environment: Environment,
    game: str,
    seed: int,
    split: Split = "train",
    depth: int = 4,
    most: int = 12,
    first: Sequence[Call] = (),
) -> Counter[str]:
    """From the state after some of the expert's calls: looks leave `state()` as it is, and what `undo` says of each
    choice returns to it. Counts of what was tried, so that a test may demand that something was. `first` are calls
    that are made before all others."""
    task, path = begin(environment, game, seed, split)
    calls = list(first)
    replay(environment, game, seed, split, calls)
    tried: Counter[str] = Counter()
    for turn in range(depth):
        check_choices(environment, task)
        before = environment.state()
        assert before, "state() is not implemented"
        for look in environment.looks():
            checked_step(environment, task.verbs, look, None)
            assert environment.state() == before, f"{look.key} changed the state"
            tried["looks"] += 1
        candidates = [call for call in environment.choices() if call not in list(environment.looks())]
        for call in candidates[:: max(1, len(candidates) // most)]:
            back = environment.undo(call)
            if back is None:
                continue
            feedback = checked_step(environment, task.verbs, call, None)
            if not feedback.error and not feedback.done:
                returned = checked_step(environment, task.verbs, back, feedback)
                assert not returned.error, f"{back.key} takes back {call.key}: {returned.observation}"
                assert environment.state() == before, f"{back.key} does not quite take back {call.key}"
                tried[f"undone {call.tool}"] += 1
            replay(environment, game, seed, split, calls)
        call_of_expert = path[turn] if path else environment.oracle()
        if call_of_expert is None or (path and turn + 1 >= len(path)):
            break
        calls.append(call_of_expert)
        if checked_step(environment, task.verbs, call_of_expert, None).done:
            break
    return tried


def check_refusals(environment: Environment, task: Task, calls: Sequence[Call]) -> None:
    """Calls that cannot be done (valid by their schemas or not) are errors in words, and change nothing."""
    for call in calls:
        before = environment.state()
        feedback = checked_step(environment, task.verbs, call, None)
        check_feedback(feedback, call.key)
        assert feedback.error and not feedback.done, f"{call.key} is no error: {feedback.observation}"
        assert environment.state() == before, f"{call.key} was refused but changed the state"


def shown(task: Task, steps: Steps, verbs: bool = False) -> str:
    """An episode for a reader."""
    lines = [f"SYSTEM  {task.system}", f"GOAL    {task.goal}", f"SEEN    {task.observation}", ""]
    for number, (call, feedback) in enumerate(steps):
        verb = next((verb for verb in task.verbs if verb.name == call.tool), None)
        reason = ""
        if verb is not None and verb.reasons:
            arguments = {name: str(value) for name, value in call.arguments.items()}
            reason = verb.reasons[number % len(verb.reasons)].format(**arguments)
        arguments_shown = json.dumps(dict(call.arguments), ensure_ascii=False)
        mark = "ERROR " if feedback.error else "WON " if feedback.success else ""
        lines += [
            f"  ({reason})",
            f"> {call.tool}{arguments_shown}",
            f"  {mark}{feedback.score:.2f} {feedback.observation}",
        ]
    if verbs:
        lines += ["", *(f"TOOL {verb.tool().name} {json.dumps(verb.tool().parameters)}" for verb in task.verbs)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Plays an environment's expert over all games; counts what it wins.")
    parser.add_argument("name")
    parser.add_argument("--game", action="append", help="only this one (may be repeated)")
    parser.add_argument("--episodes", type=int, default=0, help="to play in all, spread over the games")
    parser.add_argument("--read", type=int, default=0, help="episodes of each game to show")
    parser.add_argument("--wander", type=int, default=0, help="steps of a player without a plan to show, of each game")
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    kind = kind_named(options.name)
    games = options.game or [*kind.games, *kind.unseen_games]
    began = time.perf_counter()
    environment = kind.make()
    print(f"{options.name}: {kind.description} Started in {time.perf_counter() - began:.1f} s.")
    try:
        for game in games:
            for seed in range(options.first_seed, options.first_seed + options.read):
                steps = play_oracle(environment, game, seed, must_win=False)
                print(f"\n=== {game}, seed {seed}\n{shown(environment.reset(game, seed, 'train'), steps)}")
            if options.wander:
                steps = wandering(environment, game, options.first_seed, "train", options.wander)
                task = environment.reset(game, options.first_seed, "train")
                print(f"\n=== wandering in {game}\n{shown(task, steps)}")
        if options.episodes:
            _count(environment, kind, games, options.episodes, options.first_seed)
    finally:
        environment.close()


def _count(environment: Environment, kind: Kind, games: Sequence[str], episodes: int, first_seed: int) -> None:
    """Plays and reports, a line for each game."""
    for number, game in enumerate(games):
        share = episodes // len(games) + (number < episodes % len(games))
        won, lengths, problems, distinct = 0, [], [], set()
        began = time.perf_counter()
        for seed in range(first_seed, first_seed + share):
            split: Split = "unseen_games" if game in kind.unseen_games else "unseen_seeds" if seed % 5 == 4 else "train"
            played = seed if split == "train" else FIRST_UNSEEN_SEED + seed
            try:
                steps = play_oracle(environment, game, played, split)
            except AssertionError as error:
                problems.append(str(error).partition("\n")[0][:300])
                continue
            won += 1
            lengths.append(len(steps))
            distinct.add(" ".join(call.key for call, _ in steps))
        took = time.perf_counter() - began
        print(
            f"{game}: {won} of {share} episodes won, {len(distinct)} different, "
            f"{sum(lengths) / max(1, len(lengths)):.1f} steps on average, {max(lengths, default=0)} at most, "
            f"{took / max(1, share):.2f} s/episode, {sum(lengths) / took:.0f} steps/s",
            flush=True,
        )
        for problem in problems[:5]:
            print(f"  {problem}")


if __name__ == "__main__":
    main()
