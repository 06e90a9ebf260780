"""The recipe: what it refuses, its plan, and what becomes of it when steps or it itself are disturbed."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from quickstart_run import SMALLER, Quickstart, run_quickstart

from hephaestus_jax.errors import UserError
from hephaestus_jax.gin_files import load_gin_with_text
from hephaestus_jax.recipe import Recipe
from hephaestus_jax.recipe.accounts import Accounts, Step
from hephaestus_jax.recipe.plan import plan
from hephaestus_jax.recipe.runner import run_steps

ROOT = Path(__file__).resolve().parents[1]
NOTE = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"


def note(work: Path, name: str, text: str = "x", **more) -> Step:
    """A step that appends `text` to WORK/NAME."""
    path = work / name
    return Step(name, f"the {name}", ("-c", NOTE, str(path), text), outputs=(path,), **more)


# --- what a recipe may say


def shipped(*overrides: str) -> Recipe:
    return load_gin_with_text(Recipe, "gin/runs/quickstart.gin", overrides).value


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("WORK_DIR=", "Recipe.work_dir is empty"),
        ("WORK_DIR=gs://bucket/work", "is a URL"),
        ("BASE_STEPS=0", "stage 'base': train_steps is 0"),
        ("BASE_STEPS=many", "must be of type"),
        ("BASE_WARMUP=1000000", "warmup_steps is 1000000; it must be from 0 to train_steps"),
        ("CONTINUAL_WARMUP=0", "is re-warmed, give 1 or more"),
        ("CONTINUAL_LEARNING_RATE=-1.0", "learning_rate is -1.0"),
        ("BATCH_SIZE=0", "Recipe.batch_size is 0"),
        ("SEED=-1", "Recipe.seed is -1"),
        ("Recipe.baseline=contrl", "give one of base, control, agent"),
        ("Recipe.evaluation_mixture=agent_heavy", "give one that is trained on: base, agent_code_text"),
        ("Recipe.train_settings=('DTYPE',)", "write NAME=VALUE"),
        ("Recipe.stages=()", "Recipe.stages is empty"),
        ("Recipe.stages=(('corpus', '', 'base', 1, 1.0, 0),)", "is none of corpus"),
        ("Recipe.stages=(('a', 'b', 'base', 1, 1.0, 1),)", "starts from 'b', which is no earlier stage"),
        ("Recipe.stages=(('a', '', 'base', 1, 1.0, 0), ('a', '', 'base', 1, 1.0, 0))", "two stages 'a'"),
        ("Recipe.stages=(('a', '', 'base', 1, 1.0),)", "must be of type"),
        ("BASE_STEP=3", "did you mean BASE_STEPS"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_mend(override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        shipped(override)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_compared_has_the_same_schedule() -> None:
    rows = list(shipped().stages)
    rows[2] = (*rows[2][:3], rows[2][3] + 1, *rows[2][4:])
    with pytest.raises(UserError, match="train_steps is .* for 'agent' and .* for the baseline 'control'"):
        replace(shipped(), stages=tuple(rows))


# --- its plan


def test_the_shipped_plan() -> None:
    planned = plan(shipped("WORK_DIR=w"))
    names = [step.name for step in planned]
    assert names == [
        "corpus", "vocabulary", "rows_base", "rows_agent", "base", "base_hf", "control", "agent", "evaluate",
        "agent_hf", "check_agent", "report",
    ]  # fmt: skip
    for number, step in enumerate(planned):
        assert set(step.needs) <= set(names[:number]), step.name
        assert step.arguments[0] == "-m"
        assert importlib.util.find_spec(step.arguments[1]) is not None, step.name
    control, agent = (set(planned[names.index(name)].arguments) for name in ("control", "agent"))
    assert control - agent == {"--gin.RUN_DIR=w/control", "--gin.MIXTURE=w/rows_base"}
    assert agent - control == {"--gin.RUN_DIR=w/agent", "--gin.MIXTURE=w/rows_agent"}


def test_a_longer_chain() -> None:
    recipe = shipped("WORK_DIR=w")
    planned = plan(replace(recipe, stages=(*recipe.stages, ("agent_2", "agent", "agent_heavy", 9, 1e-4, 2))))
    by_name = {step.name: step for step in planned}
    assert "--gin.INIT_FROM=w/agent_hf" in by_name["agent_2"].arguments
    assert by_name["agent_2"].needs == ("rows_agent_2", "rows_agent", "agent_hf")
    names = list(by_name)
    assert names.index("agent") < names.index("agent_hf") < names.index("agent_2") < names.index("evaluate")
    assert {"check_agent_2", "agent_2_hf"} <= set(names)
    assert "check_agent" not in names


def test_settings_of_every_gin_file_count(tmp_path: Path) -> None:
    (tmp_path / "model.gin").write_text("include 'gin/models/tiny.gin'\n")
    base = next(step for step in plan(shipped(f"MODEL={tmp_path / 'model.gin'}")) if step.name == "base")
    assert {"pretrain.gin", "training.gin", "model.gin", "tiny.gin"} <= {file.name for file in base.files}


# --- steps that go well, badly, and once more


def test_steps_are_done_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chain = (
        note(tmp_path, "corpus"),
        note(tmp_path, "base", needs=("corpus",)),
        note(tmp_path, "report", repeated=True),
    )
    run_steps(chain, tmp_path, "")
    first = capfd.readouterr().out
    assert "step 2 of 3 · the base · " in first
    assert "about" in first and "left\n$ python -c " in first
    run_steps(chain, tmp_path, "")
    assert "step 2 of 3 · the base · done before, in 0 s" in capfd.readouterr().out
    assert [(tmp_path / name).read_text() for name in ("corpus", "base", "report")] == ["x", "x", "xx"]


def test_what_is_gone_is_made_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chain = (note(tmp_path, "corpus"), note(tmp_path, "base", needs=("corpus",)))
    run_steps(chain, tmp_path, "")
    (tmp_path / "corpus").unlink()
    run_steps(chain, tmp_path, "")
    assert "corpus is gone, so once more" in capfd.readouterr().out
    assert (tmp_path / "base").read_text() == "x"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit(3)", "failed with status 3"),
        ("pass", "ended before it was complete"),
        ("import os; os.kill(os.getpid(), 9)", "was killed (SIGKILL)"),
    ],
)
def test_a_step_that_fails(tmp_path: Path, code: str, words: str) -> None:
    bad = Step("base", "base run", ("-c", code), outputs=(tmp_path / "base",), needs=("corpus",))
    chain = (note(tmp_path, "corpus"), bad, note(tmp_path, "report"))
    with pytest.raises(UserError) as caught:
        run_steps(chain, tmp_path, "")
    message = str(caught.value)
    assert "step 2 of 3 · base run" in message
    assert words in message
    assert "python -c" in message and "same command again" in message
    assert not (tmp_path / "report").exists()
    (tmp_path / "base").touch()
    assert not Accounts(tmp_path, chain).is_done(bad)  # what a failed step left behind does not make it done


@pytest.mark.parametrize("atomic", [False, True])
def test_ended_between_the_work_and_its_account(tmp_path: Path, atomic: bool) -> None:
    step = note(tmp_path, "base_hf", atomic=atomic)
    Accounts(tmp_path, (step,)).begin(step, "")
    (tmp_path / "base_hf").write_text("whole")
    run_steps((step,), tmp_path, "")
    assert (tmp_path / "base_hf").read_text() == ("whole" if atomic else "wholex")


def test_arguments_that_follow_from_earlier_steps(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "corpus"
    late = Step("base", "base", ("-c", NOTE, str(tmp_path / "base")), late_arguments=lambda: (made.read_text() + "y",))
    run_steps((note(tmp_path, "corpus"), late), tmp_path, "")
    assert (tmp_path / "base").read_text() == "xy"
    assert capfd.readouterr().out.count(" xy\n") == 1


# --- settings that change


def test_changed_settings_are_refused_and_named(tmp_path: Path) -> None:
    def chain(text: str) -> tuple[Step, ...]:
        return (note(tmp_path, "corpus", text), note(tmp_path, "base", needs=("corpus",)))

    run_steps(chain("x"), tmp_path, "Recipe.size = 1\nRecipe.name = 'a'\n")
    with pytest.raises(UserError) as caught:
        run_steps(chain("y"), tmp_path, "Recipe.size = 2\nRecipe.name = 'a'\n")
    for words in ("Recipe.size was 1, now 2", "'the corpus'", "--gin.WORK_DIR=", f"delete {tmp_path}"):
        assert words in str(caught.value)
    assert "Recipe.name" not in str(caught.value)
    run_steps(chain("x"), tmp_path, "")
    assert (tmp_path / "corpus").read_text() == "x"


def test_settings_of_steps_to_come_may_change(tmp_path: Path) -> None:
    run_steps((note(tmp_path, "corpus"),), tmp_path, "")
    run_steps((note(tmp_path, "corpus"), note(tmp_path, "base", "z")), tmp_path, "")
    assert (tmp_path / "base").read_text() == "z"


def test_a_changed_gin_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gin"
    file.write_text("SIZE = 1")
    chain = (note(tmp_path, "corpus", files=(file,)), note(tmp_path, "base", needs=("corpus",)))
    run_steps(chain, tmp_path, "")
    file.write_text("SIZE = 2")
    with pytest.raises(UserError, match="a gin file that they name was changed"):
        run_steps(chain, tmp_path, "")


def test_the_work_folder_may_be_moved(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    run_steps((note(before, "corpus"),), before, "")
    before.rename(after)
    run_steps((note(after, "corpus"),), after, "")
    assert (after / "corpus").read_text() == "x"


def test_a_damaged_account_is_named(tmp_path: Path) -> None:
    run_steps((note(tmp_path, "corpus"),), tmp_path, "")
    (tmp_path / "steps/corpus.json").write_text("{")
    with pytest.raises(UserError, match=r"corpus\.json is damaged; delete it"):
        run_steps((note(tmp_path, "corpus"),), tmp_path, "")


# --- room, time


def test_too_little_room(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"GB left, and about 1000000\.0 GB are needed"):
        run_steps((note(tmp_path, "corpus"),), tmp_path, "", disk_gigabytes=1e6)
    assert not (tmp_path / "corpus").exists()


def test_the_estimate_learns_from_what_was_measured(tmp_path: Path) -> None:
    train = [Step(name, name, ("-m", "train", name), seconds=100) for name in ("base", "agent")]
    report = Step("report", "report", ("-m", "tools.report"), seconds=10)
    corpus = Step("corpus", "corpus", ("-m", "tools.build_corpus"), seconds=10)
    accounts = Accounts(tmp_path, (corpus, *train, report))
    assert accounts.seconds_left() == 220
    accounts.begin(corpus, "")
    accounts.end(corpus, True, 30.0)
    assert accounts.seconds_left() == pytest.approx(3 * 210)  # the only measure there is
    accounts.begin(train[0], "")
    accounts.end(train[0], True, 50.0)
    assert accounts.seconds_left() == pytest.approx(0.5 * 100 + 80 / 110 * 10)
    assert accounts.seconds_spent() == 80


# --- interruptions


class Process:
    """recipe_process.py in a process."""

    def __init__(self, work: Path, **environment: str) -> None:
        self.work = work
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/recipe_process.py"), str(work)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def slow_step(self) -> int:
        """Waits for the slow step to be under way; its process id."""
        wait_for(lambda: (self.work / "pid").exists() and (self.work / "pid").read_text())
        return int((self.work / "pid").read_text())

    def end(self) -> tuple[int, str]:
        """Exit status and output."""
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    if (tmp_path / "pid").exists():
        pid = int((tmp_path / "pid").read_text())
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


def check_resumed(work: Path) -> None:
    """The same command again comes to the end, and does nothing twice."""
    status, output = Process(work).end()
    assert status == 0, output
    assert "step 1 of 3 · first step · done before" in output
    assert (work / "first").read_text() == (work / "last").read_text() == "x"


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_end(work: Path, number: signal.Signals, expected: int) -> None:
    recipe = Process(work)
    pid = recipe.slow_step()
    recipe.process.send_signal(number)
    status, output = recipe.end()
    assert status == expected, output
    assert "asked to end; step 2 of 3 · slow step is stopped; the same command goes on" in output
    assert "Traceback" not in output
    assert (work / "saved").exists()
    assert gone(pid)
    assert not (work / "last").exists()
    check_resumed(work)


def test_a_second_signal_does_not_wait(work: Path) -> None:
    recipe = Process(work, STUBBORN="1")
    pid = recipe.slow_step()
    recipe.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert recipe.process.poll() is None
    recipe.process.send_signal(signal.SIGTERM)
    assert recipe.end()[0] == 143
    assert gone(pid)


def test_killed(work: Path) -> None:
    """What it was running is asked to end, and the next start waits for that."""
    recipe = Process(work)
    pid = recipe.slow_step()
    (work / "hold").touch()  # the step takes its time to save
    recipe.process.kill()
    again = Process(work)
    assert again.process.stdout is not None
    assert again.process.stdout.readline() == f"{work}: waiting for a step of an earlier start to end\n"
    assert not gone(pid)
    (work / "hold").unlink()
    status, output = again.end()
    assert status == 0, output
    assert gone(pid)
    assert (work / "saved").exists()
    recipe.end()
    assert (work / "first").read_text() == (work / "last").read_text() == "x"


def test_two_at_once(work: Path) -> None:
    recipe = Process(work)
    recipe.slow_step()
    status, output = Process(work).end()
    assert status == 2
    holder = f"process {recipe.process.pid} on {platform.node()}"
    assert output == f"error: {holder} is running a recipe in {work}; wait for it, or give another folder\n"
    recipe.process.send_signal(signal.SIGTERM)
    recipe.end()


def test_a_step_that_is_ended_from_outside(work: Path) -> None:
    recipe = Process(work)
    os.kill(recipe.slow_step(), signal.SIGTERM)
    status, output = recipe.end()
    assert status == 2
    assert "step 2 of 3 · slow step ended before it was complete, as if it had been asked to" in output
    check_resumed(work)


# --- the small quickstart


@pytest.mark.slow
def test_the_quickstart(quickstart: Quickstart) -> None:
    planned = plan(shipped(*SMALLER))
    for number, step in enumerate(planned, 1):
        assert f"\nstep {number} of {len(planned)} · {step.title} · " in quickstart.output
        assert all((quickstart.folder / path).exists() for path in step.outputs), step.name
    commands = [shlex.split(line[2:]) for line in quickstart.output.splitlines() if line.startswith("$ ")]
    assert [command[:3] for command in commands] == [["python", *step.arguments[:2]] for step in planned]
    assert "agent and work/quickstart/agent_hf are the same" in quickstart.output
    typed = subprocess.run(
        [sys.executable, *commands[-1][1:]], cwd=quickstart.folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert typed.stdout in quickstart.output  # what was printed as a command is the command


@pytest.mark.slow
def test_control_and_agent_differ_in_their_rows_alone(quickstart: Quickstart) -> None:
    runs = {name: run_lines(quickstart.work / name) for name in ("base", "control", "agent")}
    wanted = {"agent_docs", "agent_trajectories", "code", "text"}
    for lines in runs.values():
        slices = {key.partition("/")[0] for key in lines["eval"][0] if key.endswith("/nats_per_token")}
        assert slices == wanted  # those of unseen APIs too, also where no agent data is trained on
    for name in ("step", "rows", "learning_rate"):
        control, agent = ([line[name] for line in runs[run]["train"]] for run in ("control", "agent"))
        assert control == agent
    trained = {
        run: {key for line in runs[run]["train"] for key in line if key.startswith("loss_tokens/")} for run in runs
    }
    assert trained["base"] == trained["control"] == {"loss_tokens/code", "loss_tokens/text"}
    assert trained["agent"] == {f"loss_tokens/{name}" for name in wanted}
    last, first = runs["base"]["eval"][-1], (runs[name]["eval"][0] for name in ("control", "agent"))
    for line in first:  # by way of base_hf
        assert all(
            line[f"{name}/nats_per_token"] == pytest.approx(last[f"{name}/nats_per_token"], rel=1e-6) for name in wanted
        )


def run_lines(run: Path) -> dict[str, list[dict]]:
    """The lines of metrics.jsonl by kind."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {kind: [line for line in lines if line["kind"] == kind] for kind in ("train", "eval")}


@pytest.mark.slow
def test_the_quickstart_once_more(quickstart: Quickstart) -> None:
    before = {path: path.stat().st_mtime_ns for path in quickstart.work.rglob("*.json") if path.parent.name != "steps"}
    again = run_quickstart(quickstart.folder)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("· done before, in ") == 11
    assert before == {path: path.stat().st_mtime_ns for path in before}
    changed = run_quickstart(quickstart.folder, "SEQUENCE_LENGTH=64")
    assert changed.returncode == 2
    assert "Recipe.sequence_length was 128, now 64" in changed.stdout
    assert "'rows of base'" in changed.stdout
    assert changed.stdout.count("\n") == 1
