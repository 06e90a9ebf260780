"""The roll-out engine, on the corridor: what policies do, what is recorded, kept, split, resumed and refused."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corridor import Corridor
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.data.task import CorpusSource, Rejected, RenderedTask
from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.environments.assignments import RolloutConfig, dealt, shares, split_counts
from hephaestus_jax.forge.environments.environment import ENVIRONMENTS, FIRST_UNSEEN_SEED, Call, Feedback, Kind, Terms
from hephaestus_jax.forge.environments.episodes import replay
from hephaestus_jax.forge.environments.perturbations import FAILURES
from hephaestus_jax.forge.environments.rollout import SLICE, roll_out, verify
from hephaestus_jax.forge.environments.thoughts import told_too_early
from hephaestus_jax.formats.records import SPLITS, ApiAction, MessageAction, TextObservation, Trajectory, episode_of
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.formats.store import Corpus, write_corpus

BOTH = ("corridor", "corridor_by_heart")
POLICIES = ("oracle", "explore=2", "mistakes=4", "random", "refuse")


def config(**changes: Any) -> RolloutConfig:
    settings: dict[str, Any] = {
        "episodes": 160,
        "environments": BOTH,
        "policies": POLICIES,
        "workers": 1,
        "perturbed": 0.4,
    }
    return RolloutConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return roll_out(config(), tmp_path_factory.mktemp("episodes") / "corpus")


@pytest.fixture(scope="module")
def played(corpus: Corpus) -> list[Trajectory]:
    records = episodes(corpus, *SPLITS)
    assert len(records) > 100
    return records


def episodes(corpus: Corpus, *splits: str) -> list[Trajectory]:
    records = [record for split in splits for _, record in corpus.read(SLICE, split)]
    return [record for record in records if isinstance(record, Trajectory)]


def of(played: list[Trajectory], policy: str) -> list[Trajectory]:
    found = [record for record in played if episode_of(record)["policy"] == policy]
    assert len(found) >= 5
    return found


def actions(record: Trajectory) -> list[ApiAction | MessageAction]:
    return [step for step in record.steps if isinstance(step, ApiAction | MessageAction)]


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_policies_that_know_win_and_floors_do_not(played: list[Trajectory]) -> None:
    for policy in ("oracle", "explore", "mistakes"):
        assert all(record.success and record.reward == 1.0 for record in of(played, policy))
    assert not any(record.success for record in of(played, "refuse"))
    random_wins = [bool(record.success) for record in of(played, "random")]
    assert sum(random_wins) < len(random_wins)


def test_a_wrong_step_is_one_and_is_followed_by_its_mending(played: list[Trajectory]) -> None:
    kinds = set()
    for record in of(played, "mistakes"):
        outcomes = [step.outcome for step in actions(record)]
        assert outcomes.count("error") == len(episode_of(record)["wrong_steps"]) >= 1
        assert outcomes.count("corrected") == outcomes.count("error")
        for at, outcome in enumerate(outcomes):
            if outcome == "error":  # a call that failed for no fault of the agent's may stand between
                assert next(after for after in outcomes[at + 1 :] if after != "ok") == "corrected"
        kinds |= set(episode_of(record)["wrong_steps"])
    assert kinds == {"wrong tool", "wrong argument", "wrong order", "premature finish"}


def test_without_its_wrong_steps_an_episode_would_not_be_longer(played: list[Trajectory]) -> None:
    """A step that brings the goal nearer is no mistake, whoever calls it one."""
    for record in of(played, "mistakes"):
        details = episode_of(record)
        environment = Corridor()
        environment.reset(details["game"], details["seed"], details["split"])
        needed = 0
        while (call := environment.oracle()) is not None and not environment.opened:
            environment.step(call)
            needed += 1
        failed = sum(isinstance(step, TextObservation) and step.content in FAILURES for step in record.steps)
        wrong = [kind for kind in details["wrong_steps"] if kind != "premature finish"]
        done = sum(isinstance(step, ApiAction) for step in record.steps) - failed
        assert done >= needed + len(wrong)


def test_nothing_is_learned_from_floors(played: list[Trajectory]) -> None:
    for policy in ("random", "refuse"):
        for record in of(played, policy):
            assert all(step.outcome == "error" for step in actions(record))


def test_explorers_look_and_go_ways_that_lead_nowhere(played: list[Trajectory]) -> None:
    explored = of(played, "explore")
    needed = {episode_of(record)["seed"]: len(actions(record)) for record in of(played, "oracle")}
    assert any(
        step.function in ("look", "describe_room") for r in explored for step in r.steps if isinstance(step, ApiAction)
    )
    mean = sum(len(actions(record)) for record in explored) / len(explored)
    assert mean > sum(needed.values()) / len(needed)


def test_thoughts_name_nothing_that_was_not_seen(played: list[Trajectory]) -> None:
    thoughts = [step.reasoning_content for r in played for step in r.steps if isinstance(step, ApiAction)]
    assert sum(thought is not None for thought in thoughts) > len(thoughts) / 2
    assert any("key" in thought for thought in thoughts if thought)
    assert [name for record in played for name in told_too_early(record)] == []
    taken = [
        (r, s.kwargs["thing"]) for r in played for s in r.steps if isinstance(s, ApiAction) and s.function == "take"
    ]
    record, key = next((record, thing) for record, thing in taken if "key" in thing)
    first = next(number for number, step in enumerate(record.steps) if isinstance(step, ApiAction))
    steps: list[Any] = list(record.steps)
    steps[0] = TextObservation("Please open the chest.", "user")
    steps[first] = dataclasses.replace(steps[first], reasoning_content=f"The {key} must be near.")
    assert told_too_early(dataclasses.replace(record, steps=tuple(steps))) == [key]


def test_thoughts_can_be_switched_off(tmp_path: Path) -> None:
    corpus = roll_out(config(episodes=20, thoughts=0.0), tmp_path / "c")
    steps = [step for record in episodes(corpus, "train") for step in record.steps]
    assert steps and not any(isinstance(step, ApiAction) and step.reasoning_content for step in steps)


def test_changed_tools_are_offered_called_and_replayed(corpus: Corpus, played: list[Trajectory]) -> None:
    changed = [record for record in played if episode_of(record)["changes"]]
    assert 0.2 * len(played) < len(changed) < 0.6 * len(played)
    for record in changed:
        offered = {tool.name for tool in record.tools}
        assert offered == {"walk", "pick_up", "put_down", "unlock", "describe_room"}
        called = {step.function for step in record.steps if isinstance(step, ApiAction) and step.outcome != "error"}
        assert called <= offered
        assert not {"go", "take", "drop"} & called
    texts = [step.content for record in changed for step in record.steps if isinstance(step, TextObservation)]
    assert any(text in FAILURES for text in texts)
    checked, problems = verify(corpus)
    assert checked == sum(bool(record.success) for record in played) and problems == []


def test_a_failed_call_is_repeated(played: list[Trajectory]) -> None:
    repeated = 0
    for record in played:
        for before, failure, after in zip(record.steps, record.steps[1:], record.steps[2:], strict=False):
            if isinstance(failure, TextObservation) and failure.content in FAILURES:
                assert isinstance(before, ApiAction) and isinstance(after, ApiAction)
                assert (before.function, before.kwargs) == (after.function, after.kwargs)
                assert after.outcome != "error"
                repeated += 1
    assert repeated >= 3


def test_replay_finds_words_and_successes_that_are_not_so(played: list[Trajectory]) -> None:
    record = next(r for r in of(played, "oracle") if not episode_of(r)["changes"] and len(r.steps) > 6)
    assert replay(Corridor(), record) == ""
    steps: list[Any] = list(record.steps)
    at = next(n for n, step in enumerate(steps) if isinstance(step, TextObservation) and step.source == "environment")
    steps[at] = dataclasses.replace(steps[at], content="You are in a garden.")
    assert "answers otherwise" in replay(Corridor(), dataclasses.replace(record, steps=tuple(steps)))
    begun = dataclasses.replace(record, steps=(TextObservation("Please dance.", "user"), *record.steps[1:]))
    assert replay(Corridor(), begun) == ""  # its own task is what counts
    episode = {**episode_of(record), "task": "another"}
    assert replay(Corridor(), dataclasses.replace(record, details={"episode": episode})) == "begins otherwise"
    assert "claims success" in replay(Corridor(), dataclasses.replace(record, steps=record.steps[:3]))


class _Flaky(Corridor):
    """Says something else every time it is made."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.number = type(self).made

    def _room(self) -> str:
        return f"{super()._room()} ({self.number})"


def test_an_episode_that_cannot_be_played_again_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = dataclasses.replace(ENVIRONMENTS["corridor"], name="flaky", make=_Flaky)
    monkeypatch.setitem(ENVIRONMENTS, "flaky", flaky)
    corpus = roll_out(config(episodes=5, environments=("flaky",), policies=("oracle",), failures=0.0), tmp_path / "c")
    assert corpus.count(SLICE, "train") < 5
    assert any("played again, it begins otherwise" in reason for reason in corpus.manifest["left_out"])


class _Crashing(Corridor):
    """Breaks down in the 40th step of an instance's life."""

    steps = 0

    def step(self, call: Call) -> Feedback:
        self.steps += 1
        if self.steps == 40:
            raise RuntimeError("lost its mind\nfor good")
        return super().step(call)


class _Dead(Corridor):
    def step(self, call: Call) -> Feedback:
        raise RuntimeError("lost its mind")


def test_an_environment_that_breaks_down_costs_its_episode_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, made in (("crashing", _Crashing), ("dead", _Dead)):
        monkeypatch.setitem(ENVIRONMENTS, name, dataclasses.replace(ENVIRONMENTS["corridor"], name=name, make=made))
    corpus = roll_out(config(episodes=20, environments=("crashing",), policies=("oracle",)), tmp_path / "c")
    broken = [reason for reason in corpus.manifest["left_out"] if "failed: RuntimeError: lost its mind;" in reason]
    assert broken and corpus.count(SLICE, "train") > 10
    with pytest.raises(UserError, match="environment dead failed in every episode: RuntimeError: lost its mind"):
        roll_out(config(episodes=3, environments=("dead",), policies=("oracle",)), tmp_path / "d")


def test_splits(corpus: Corpus) -> None:
    for record in episodes(corpus, "train"):
        assert episode_of(record)["game"] in ("short", "long") and episode_of(record)["seed"] < FIRST_UNSEEN_SEED
    kind = ENVIRONMENTS["corridor"]
    assert split_counts(kind, 100, 0.1) == {"train": 90, "unseen_seeds": 5, "unseen_games": 5}
    assert split_counts(dataclasses.replace(kind, held_out=True), 100, 0.1) == {"unseen_environments": 100}
    assert split_counts(dataclasses.replace(kind, unseen_games=()), 100, 0.1) == {"train": 90, "unseen_seeds": 10}


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """`corridor` is trained on, `corridor_by_heart` is not; games are long enough to differ."""
    settings = config(episodes=60, held_out=("corridor_by_heart",), validation_fraction=0.3, policies=("oracle",))
    return roll_out(settings, tmp_path_factory.mktemp("held_out") / "corpus")


def test_a_held_out_environment_is_on_the_validation_side_alone(held_out: Corpus) -> None:
    train = {episode_of(record)["environment"] for record in episodes(held_out, "train")}
    validation = [episode_of(record) for record in episodes(held_out, "validation")]
    assert train == {"corridor"}
    tasks = {episode_of(record)["task"] for record in episodes(held_out, "train")}
    assert validation and not tasks & {details["task"] for details in validation}
    assert {d["split"] for d in validation if d["environment"] == "corridor_by_heart"} <= {"unseen_environments"}
    assert held_out.manifest["environments"]["corridor_by_heart"]["held_out"] is True
    assert held_out.manifest["environments"]["corridor"]["unseen_games"] == ["unseen"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory, played: list[Trajectory]) -> str:
    from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece

    out = tmp_path_factory.mktemp("vocabulary")
    train_sentencepiece([str(record) for record in played], out, VocabularyConfig(size=400))
    return str(out)


def task(corpus: Corpus, split: str, vocabulary: str) -> RenderedTask:
    source = CorpusSource(str(corpus.directory), SLICE, split)
    return RenderedTask(SLICE, split, source, RecordRenderer(chat="react"), vocabulary)


def test_training_refuses_episodes_that_are_held_out(held_out: Corpus, vocabulary: str, tmp_path: Path) -> None:
    """Also when somebody has written them to the training side of another corpus."""
    records = [record for record in episodes(held_out, "validation")]
    moved = write_corpus(tmp_path / "moved", {(SLICE, "train"): records}, {})
    with pytest.raises(UserError, match="which is held out"):
        list(task(moved, "train", vocabulary).read(0, len(records)))
    assert len(list(task(held_out, "validation", vocabulary).read(0, len(records)))) == len(records)


def test_wrong_steps_have_no_weight_in_packed_rows_and_their_mending_has(
    corpus: Corpus, vocabulary: str, tmp_path: Path
) -> None:
    """From the record to the row: what is under loss, read back from a real cache, letter by letter."""
    from hephaestus_jax.data.cache import Cache
    from hephaestus_jax.data.cache_build import build_cache
    from hephaestus_jax.data.vocabularies import load_vocabulary

    mistaken = [r for r in episodes(corpus, "train") if episode_of(r)["policy"] == "mistakes"][:8]
    assert mistaken
    marked = [_marked(record) for record in mistaken]
    few = write_corpus(tmp_path / "few", {(SLICE, "train"): marked}, {})
    built = build_cache(task(few, "train", vocabulary), tmp_path / "caches", 4096)
    cache, words = Cache.open(str(built.path)), load_vocabulary(vocabulary)
    rows = cache.read(np.arange(cache.manifest.rows))
    learned, ignored = "", ""
    for tokens, weights in zip(rows.tokens_NL, rows.loss_weights_NL, strict=True):
        for weight in (0.0, 1.0):
            kept = [int(token) for token, w in zip(tokens, weights, strict=True) if w == weight]
            if weight:
                learned += words.decode(kept)
            else:
                ignored += words.decode(kept)
    assert learned.count("MENDED") == sum(len(episode_of(r)["wrong_steps"]) for r in mistaken) > 0
    assert "MISTAKE" in ignored and "MISTAKE" not in learned and "MENDED" not in ignored


def _marked(record: Trajectory) -> Trajectory:
    """The record with words in its steps that tell wrong ones from mended ones."""
    words = {"error": "MISTAKE", "corrected": "MENDED"}
    steps = []
    for step in record.steps:
        word = words.get(getattr(step, "outcome", ""))
        if word and isinstance(step, ApiAction):
            step = dataclasses.replace(step, reasoning_content=word)
        elif word and isinstance(step, MessageAction):
            step = dataclasses.replace(step, content=word)
        elif isinstance(step, ApiAction):
            step = dataclasses.replace(step, reasoning_content=None)
        steps.append(step)
    return dataclasses.replace(record, steps=tuple(steps))


def test_every_chat_family_renders_episodes(played: list[Trajectory]) -> None:
    for chat in ("llama3", "hermes", "mistral", "react", "code_action"):
        renderer = RecordRenderer(chat=chat)
        for record in [*of(played, "mistakes")[:3], *of(played, "explore")[:2], *of(played, "refuse")[:1]]:
            assert renderer.render(record).text
    assert not isinstance(record, Rejected)


def test_the_bytes_do_not_depend_on_the_workers_nor_on_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, with environments from a module that is not of this project, killed and given again."""
    settings = config(episodes=120, policies=("oracle", "mistakes"), modules=("corridor",))
    roll_out(settings, tmp_path / "one")
    command = [
        sys.executable, "-m", "tools.rollout", "--import=corridor", "--env=corridor,corridor_by_heart", "--workers=2",
        "--policy=oracle,mistakes", "--episodes=120", "--gin.PERTURBED=0.4", f"--out={tmp_path / 'two'}",
    ]  # fmt: skip
    where: dict[str, Any] = {
        "env": {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        "stderr": subprocess.DEVNULL,
    }
    process = subprocess.Popen(command, start_new_session=True, **where)
    kept = tmp_path / "two.work" / "played"
    deadline = time.monotonic() + 120
    while not (kept.exists() and any(kept.glob("*.json"))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "two").exists()
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **where).stdout
    assert "corridor_by_heart" in told
    (tmp_path / "two" / "episodes.html").unlink()  # the command's, not the roll-out's
    assert digests(tmp_path / "two") == digests(tmp_path / "one")
    assert not (tmp_path / "two.work").exists()

    monkeypatch.setattr("hephaestus_jax.forge.environments.rollout.run_jobs", lambda *_, **__: pytest.fail("played"))
    assert roll_out(settings, tmp_path / "two").manifest == Corpus(tmp_path / "one").manifest


def test_what_is_not_installed_is_told_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = Terms("absent", "1", "MIT", needs=("no_such_module_at_all",))
    absent = Kind("absent", terms, ("game",), (), False, Corridor)
    monkeypatch.setitem(ENVIRONMENTS, "absent", absent)
    corpus = roll_out(config(episodes=10, environments=("absent", "corridor")), tmp_path / "c")
    assert "pip install 'hephaestus_jax[environments]'" in corpus.manifest["unavailable_environments"]["absent"]
    with pytest.raises(UserError, match="no environment can be played: absent: no_such_module_at_all not installed"):
        roll_out(config(environments=("absent",)), tmp_path / "d")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 0}, "must be 1 or more"),
        ({"policies": ("orcale",)}, "policies names 'orcale'; known are"),
        ({"policies": ("oracle=none",)}, "share above 0"),
        ({"policies": ("oracle", "oracle=2")}, "used once"),
        ({"thoughts": 1.5}, "share from 0 to 1|number from 0 to 1"),
        ({"failures": -1.0}, "share from 0 to 1"),
        ({"validation_fraction": 0.9}, "share from 0 to 0.5"),
    ],
)
def test_a_wrong_setting_is_told_at_once(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**settings)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is no corpus"):
        roll_out(config(), tmp_path)
    with pytest.raises(UserError, match="there is no module no_such_games"):
        roll_out(config(modules=("no_such_games",)), tmp_path / "c")
    with pytest.raises(UserError, match="environments names 'corridoor'"):
        roll_out(config(environments=("corridoor",)), tmp_path / "c")
    with pytest.raises(UserError, match="held_out names corridoor"):
        roll_out(config(held_out=("corridoor",)), tmp_path / "c")


@given(st.integers(0, 10**6), st.lists(st.floats(0.01, 100), min_size=1, max_size=12))
def test_episodes_are_dealt_out_whole(total: int, parts: list[float]) -> None:
    counts = dealt(total, parts)
    assert sum(counts) == total
    assert all(abs(count - total * part / sum(parts)) < 1 + 1e-6 for count, part in zip(counts, parts, strict=True))


def test_shares_are_read() -> None:
    assert shares("x", ("a=2", "b"), ("a", "b", "c")) == {"a": 2.0, "b": 1.0}


class _Unsafe(Corridor):
    """Cannot be made here."""

    def __init__(self) -> None:
        raise UserError("this machine cannot lock it in")


def test_what_cannot_be_made_here_is_told_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        ENVIRONMENTS, "unsafe", dataclasses.replace(ENVIRONMENTS["corridor"], name="unsafe", make=_Unsafe)
    )
    corpus = roll_out(config(episodes=10, environments=("unsafe", "corridor")), tmp_path / "c")
    assert corpus.manifest["unavailable_environments"] == {"unsafe": "this machine cannot lock it in"}
