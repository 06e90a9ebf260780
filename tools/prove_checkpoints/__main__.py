"""`python -m tools.prove_checkpoints --out DIR`: breaks off the real training command, resumes it, compares the end.

A small run goes once without a break, and once broken off again and again: by SIGKILL at random moments (while it
starts, between steps, inside an open save), or with --sigterm by asking it to end. Every resume must name the step of
the newest whole checkpoint, and the losses, held-out losses and final state must equal the undisturbed run's, bit by
bit. Prints one JSON line; exits with 1 if anything differs.

With --kill_one one process of several is killed, another each time, and the others must end by themselves. With
--other_processes every second start has that many processes, on another mesh of as many devices: then losses must
equal the undisturbed run's to 1e-6 (float32), and its rows must be the same.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hephaestus_jax.config import DType
from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress
from tools._command import run
from tools.prove_checkpoints.attempts import Attempt, newest_whole
from tools.prove_checkpoints.small_run import write_small_run

TOLERANCE = 1e-6  # of losses on another mesh
BEGUN = ("resumed at step", "started from scratch")
OF_THE_CLOCK = ("_per_second", "_seconds", "mfu", "stall", "memory_", "goodput")  # metrics that no two runs share


Metrics = dict[tuple[str, int], dict[str, Any]]  # by kind and step


@dataclass
class Outcome:
    """What the JSON line says; `wrong` is empty if all is well."""

    processes: int
    kills: int = 0
    in_open_save: int = 0
    while_starting: int = 0
    sigterms: int = 0
    others_ended_by_themselves: int = 0
    others_with_one_line: int = 0
    slowest_to_end_seconds: float = 0.0
    resumes: int = 0
    resumes_naming_their_step: int = 0
    unfinished_saves_removed: int = 0
    damaged_checkpoints: int = 0
    losses_compared: int = 0
    losses_equal: int = 0
    rows_equal: int = 0
    largest_difference: float = 0.0
    held_out_losses_compared: int = 0
    held_out_losses_equal: int = 0
    final_state_equal: bool | None = False  # None where it need not be, on other meshes
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.prove_checkpoints", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; what is there of them goes")
    parser.add_argument("--kills", type=int, default=30, help="how often to break off (default: %(default)s)")
    parser.add_argument("--in_open_save", type=int, help="of these at least so many in an open save (default: a third)")
    parser.add_argument("--sigterm", action="store_true", help="SIGTERM to the last process in place of SIGKILL to all")
    parser.add_argument("--kill_one", action="store_true", help="SIGKILL to one process of several only")
    parser.add_argument("--processes", type=int, default=1, help="of the run (default: %(default)s)")
    parser.add_argument("--other_processes", type=int, default=0, help="of every second start; must divide the former")
    parser.add_argument("--steps", type=int, help="of the run (default: 20 and 8 per kill)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    args = parser.parse_args()
    if args.kills < 1 or args.processes < 1:
        raise UserError("--kills and --processes must be at least 1")
    if args.other_processes and args.processes % args.other_processes:
        raise UserError(f"--other_processes {args.other_processes} does not divide {args.processes} processes")
    outcome = prove(args)
    print(json.dumps(asdict(outcome)))
    if outcome.wrong:
        print("\n".join(outcome.wrong), file=sys.stderr)
        sys.exit(1)


def prove(args: argparse.Namespace) -> Outcome:
    """Both runs, and their comparison."""
    started = time.monotonic()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    dtype: DType = "float32" if args.other_processes else "bfloat16"
    gin_file = write_small_run(out, args.steps or 20 + 8 * args.kills, dtype)
    undisturbed, broken = out / "undisturbed", out / "broken_off"
    for run_dir in (undisturbed, broken):
        shutil.rmtree(run_dir, ignore_errors=True)

    attempt = Attempt(gin_file, undisturbed, args.processes)
    attempt.wait_until(lambda: attempt.steps_taken)
    startup = time.monotonic() - attempt.started
    print(f"undisturbed run: first step after {startup:.1f} s", file=sys.stderr)
    attempt.finish()

    breaker = Breaker(gin_file, broken, args, startup)
    breaker.break_off_repeatedly()
    outcome = breaker.outcome
    compare(undisturbed, broken, outcome, bitwise=not args.other_processes)
    outcome.seconds = round(time.monotonic() - started, 1)
    return outcome


class Breaker:
    """Starts the run, breaks it off, and starts it again, until that was done often enough; then lets it end."""

    def __init__(self, gin_file: Path, run_dir: Path, args: argparse.Namespace, startup: float) -> None:
        self.gin_file, self.run_dir, self.args, self.startup = gin_file, run_dir, args, startup
        self.outcome = Outcome(args.processes)
        self.rng = random.Random(args.seed)
        self.open_seconds = 0.05  # how long a save stays open, about

    def break_off_repeatedly(self) -> None:
        """All of it."""
        kills, outcome = self.args.kills, self.outcome
        wanted = 0 if self.args.sigterm else self.args.in_open_save
        wanted = -(-kills // 3) if wanted is None else wanted
        with Progress("broken off", "times", kills) as progress:
            while (done := outcome.kills + outcome.sigterms) < kills or outcome.in_open_save < wanted:
                if done >= 3 * kills + 10:
                    raise UserError(f"only {outcome.in_open_save} of {done} kills fell into an open save; try --seed")
                self.break_off(number=done)
                progress.add(1)
        attempt, expected = self.start(done)
        attempt.finish()
        self.note_resume(attempt, expected)

    def start(self, number: int) -> tuple[Attempt, str]:
        """The command, and how it must say where it goes on."""
        newest = newest_whole(self.run_dir / "checkpoints")
        expected = "started from scratch" if newest is None else f"resumed at step {newest:,},"
        devices, other = self.args.processes, self.args.other_processes
        if other and number % 2:
            mesh = ("--gin.MeshConfig.data=2",) if devices % 2 == 0 else ()
            return Attempt(self.gin_file, self.run_dir, other, devices // other, mesh), expected
        return Attempt(self.gin_file, self.run_dir, devices), expected

    def break_off(self, number: int) -> None:
        """One start and its end."""
        attempt, expected = self.start(number)
        moment = "steps" if self.args.sigterm else ("save", "steps", "save", "start")[number % 4]
        if not self.reach(attempt, moment):
            attempt.finish()
            raise UserError(f"the run ended before it was broken off for the {number + 1}th time; raise --steps")
        if self.args.sigterm:
            statuses = attempt.terminate()
            self.outcome.sigterms += 1
            newest = newest_whole(attempt.checkpoints)
            if any(statuses) or not attempt.line(f"saved: step {newest:,} of"):
                self.outcome.wrong.append(f"SIGTERM: exit statuses {statuses}, {attempt.lines[-1]!r}, newest {newest}")
        elif self.args.kill_one and attempt.processes > 1:
            self.kill_one(attempt)
        else:
            self.outcome.in_open_save += attempt.kill()
            self.outcome.kills += 1
            self.outcome.while_starting += not attempt.steps_taken
        self.note_resume(attempt, expected)

    def kill_one(self, attempt: Attempt) -> None:
        """SIGKILL to one process of several."""
        outcome, victim, started = self.outcome, self.rng.randrange(attempt.processes), time.monotonic()
        statuses = attempt.kill_one(victim)
        others = [status for number, status in enumerate(statuses) if number != victim]
        outcome.slowest_to_end_seconds = round(max(outcome.slowest_to_end_seconds, time.monotonic() - started), 1)
        outcome.kills += 1
        outcome.while_starting += not attempt.steps_taken
        outcome.in_open_save += bool(attempt.open_saves)
        outcome.others_ended_by_themselves += len(others)
        outcome.others_with_one_line += attempt.errors.read_text().count("error: another process of this run has ended")
        if 0 in others:
            outcome.wrong.append(f"process {victim} was killed, and the exit statuses of all are {statuses}")

    def reach(self, attempt: Attempt, moment: str) -> bool:
        """Waits for a random moment of that kind; false if the run ended before."""
        if moment == "start":
            time.sleep(self.rng.random() * self.startup)
            return attempt.running
        if not attempt.wait_until(lambda: attempt.steps_taken):
            return False
        self.startup = time.monotonic() - attempt.started
        if moment == "steps":
            time.sleep(self.rng.random())
            return attempt.running
        for _ in range(self.rng.randrange(1, 4)):
            if not attempt.next_open_save():
                return False
            opened = time.monotonic()
        time.sleep(self.rng.random() * self.open_seconds)
        self.open_seconds = max(0.02, min(self.open_seconds, time.monotonic() - opened + 0.05))
        return attempt.running

    def note_resume(self, attempt: Attempt, expected: str) -> None:
        """Whether the command said where it went on, and what else it had to say."""
        outcome, said = self.outcome, attempt.line(*BEGUN)
        outcome.resumes += said.startswith("resumed")
        outcome.resumes_naming_their_step += said.startswith("resumed") and said.startswith(expected)
        if said and not said.startswith(expected):
            outcome.wrong.append(f"{said!r}, but the newest whole checkpoint would have been {expected!r}")
        errors = attempt.errors.read_text()
        outcome.unfinished_saves_removed += errors.count("a save that was not finished")
        outcome.damaged_checkpoints += errors.count("is damaged")


def compare(undisturbed: Path, broken: Path, outcome: Outcome, bitwise: bool = True) -> None:
    """Notes in `outcome` how the two runs' metrics and, on one mesh, final states compare."""
    theirs, ours = metrics(undisturbed), metrics(broken)
    if not bitwise:
        compare_closely(theirs, ours, outcome)
        return
    for kind, counted in (("train", "losses"), ("eval", "held_out_losses")):
        steps = sorted({step for of, step in theirs | ours if of == kind})
        equal = [step for step in steps if theirs.get((kind, step)) == ours.get((kind, step))]
        setattr(outcome, f"{counted}_compared", len(steps))
        setattr(outcome, f"{counted}_equal", len(equal))
        if len(equal) != len(steps):
            outcome.wrong.append(f"{kind} metrics differ at steps {sorted(set(steps) - set(equal))[:10]}")
    last = newest_whole(undisturbed / "checkpoints")
    digests = [folder / "checkpoints" / str(last) / "digests" / "metadata" for folder in (undisturbed, broken)]
    outcome.final_state_equal = all(map(Path.exists, digests)) and len({path.read_text() for path in digests}) == 1
    if not outcome.final_state_equal:
        outcome.wrong.append(f"the states after step {last} differ")
    if outcome.damaged_checkpoints:
        outcome.wrong.append(f"{outcome.damaged_checkpoints} checkpoints were found damaged")


def compare_closely(theirs: Metrics, ours: Metrics, outcome: Outcome) -> None:
    """As `compare`, for meshes that add up in other orders: rows are the same, losses nearly so."""
    outcome.final_state_equal = None
    for key in sorted(theirs | ours):
        kind, step = key
        a, b = theirs.get(key, {}), ours.get(key, {})
        names = [name for name in a if name == "loss" or name.endswith("nats_per_token")]
        apart = [abs(a[name] - b.get(name, float("inf"))) / abs(a[name]) for name in names]
        close = a.keys() == b.keys() and max(apart) <= TOLERANCE
        outcome.largest_difference = max(outcome.largest_difference, *apart)
        if kind == "train":
            outcome.losses_compared += 1
            outcome.losses_equal += close
            counts = [name for name in a if name == "rows" or name.startswith("loss_tokens/")]
            same_rows = [a[name] for name in counts] == [b.get(name) for name in counts]
            outcome.rows_equal += same_rows
            close &= same_rows
        else:
            outcome.held_out_losses_compared += 1
            outcome.held_out_losses_equal += close
        if not close:
            outcome.wrong.append(f"{kind} metrics of step {step} differ by {max(apart):.2g}, or their rows do")


def metrics(run_dir: Path) -> Metrics:
    """Lines of metrics.jsonl by kind and step, without what depends on the clock."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        (line["kind"], line["step"]): {
            name: value for name, value in line.items() if not any(part in name for part in OF_THE_CLOCK)
        }
        for line in lines
        if line["kind"] in ("train", "eval")
    }


if __name__ == "__main__":
    run(main)
