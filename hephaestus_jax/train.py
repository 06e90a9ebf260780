"""One training run, from top to bottom: configuration → mesh → rows → state → steps → checkpoints → evaluation.

    train(config)
      1 devices     mesh, how every array lies on it
      2 rows        the mixture's caches, what the run takes from each task
      3 directory   the run's identity, refused when it changed
      4 state       resume → another run's or an imported checkpoint → a Hugging Face model → scratch, in this order
      5 steps       row cursor → batch → step; metrics are fetched one step late, so that devices need not wait
      6 end         the last evaluation and checkpoint

A step numbered n is the n-th: checkpoints, metrics and messages count steps done. Step n takes the rows
[(n − 1) · B, n · B) of the mixture, and later ones where the run rolled back and left rows out (`skipped_rows`): what
a checkpoint stores as `next_row` is the truth.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import jax

from hephaestus_jax import distributed, dry_run
from hephaestus_jax.bad_rows import BadRow, find_bad_rows, in_words
from hephaestus_jax.checkpoints import Checkpointer
from hephaestus_jax.config import PARTS, GuardConfig, TrainConfig
from hephaestus_jax.data.loader import Loader, host_rows, to_global
from hephaestus_jax.data.mixture import Mixture, open_mixture
from hephaestus_jax.devices import memory_in_use, peak_flops
from hephaestus_jax.distributed import say
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals.held_out import HeldOut
from hephaestus_jax.evals.user_files import open_user_files
from hephaestus_jax.first_state import first_state, keep_origin_of, skipped_rows_of
from hephaestus_jax.gin_files import Loaded, load_gin_with_text, split_overrides
from hephaestus_jax.metrics import MFU_CONVENTION, Goodput, MetricsWriter, Throughput, mfu, progress_line
from hephaestus_jax.profiling import StepProfiler
from hephaestus_jax.recipe import Recipe, run_recipe
from hephaestus_jax.run_directory import RunDirectory, check_identity, identity_digests, identity_of
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.skipped_rows import SKIPPED_ROWS, Rollback, SkippedRows
from hephaestus_jax.starting_point import starting_model
from hephaestus_jax.train_step import (
    GuardState,
    StepMetrics,
    TrainState,
    abstract_state,
    check_batch,
    make_eval_step,
    make_train_step,
)

BAD_ROWS = "bad_rows.jsonl"


def main() -> None:
    """The command line."""
    overrides, rest = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Trains one run, or resumes it; with a recipe's gin file, a chain of runs from corpus to report.",
        epilog="--gin.NAME=VALUE sets a macro (--gin.TRAIN_STEPS=200) or a field (--gin.MeshConfig.fsdp=4).",
    )
    parser.add_argument("--gin_file", action="append", required=True, help="may be repeated; later files override")
    parser.add_argument("--dry_run", action="store_true", help="print what the run would be, compile it, write nothing")
    parser.add_argument("--profile_steps", help="FIRST-LAST: steps to trace into the run directory, such as 10-12")
    distributed.add_flags(parser)
    args = parser.parse_args(rest)
    cluster = distributed.Cluster.from_flags(args)
    if args.profile_steps:
        overrides.append(f"LoggingConfig.profile_steps={args.profile_steps!r}")
    loaded: Loaded[Recipe | TrainConfig] = load_gin_with_text(
        (Recipe, TrainConfig), args.gin_file, overrides, also=(*PARTS, starting_model)
    )
    if isinstance(loaded.value, Recipe):
        if args.dry_run:
            raise UserError(f"{args.gin_file[0]} is a recipe; --dry_run is for the runs that it consists of")
        if cluster is not None:
            raise UserError(f"{args.gin_file[0]} is a recipe, which starts its runs itself; --processes is for a run")
        run_recipe(loaded.value, loaded.operative)
        return
    distributed.initialise(cluster)
    if args.dry_run:
        dry_run.describe(loaded.value)
    else:
        train(loaded.value, loaded.operative)


def train(config: TrainConfig, operative: str = "") -> None:
    """Trains until `config.train_steps`, or until the process is asked to end (SIGTERM), after saving.

    Args:
        config: the run.
        operative: the text of its operative gin configuration, kept in the run directory.

    Raises:
        UserError: anything in configuration, data or checkpoints that the user can mend, and a halt by the guard.
    """
    goodput = Goodput()
    use_compilation_cache(config.logging.compilation_cache)

    # 1 devices
    mesh = make_mesh(config.mesh)
    partitioning = Partitioning(mesh, config.model, lora=config.lora)
    check_batch(config, partitioning)
    abstract = abstract_state(config, partitioning)

    # 2 rows
    mixture = open_mixture(config.mixture)
    say(dry_run.headline(config, mixture, partitioning))
    say(mixture.describe(config.train_steps * config.batch_size))

    # 3 directory
    with RunDirectory(config.run_dir, writes=distributed.is_main()) as run, contextlib.ExitStack() as stack:
        preemption = stack.enter_context(distributed.Preemption())  # from here on a SIGTERM waits for the first step
        identity = identity_of(config, mixture)
        if (old := run.identity) is not None:
            check_identity(old, identity)
        skipped = skipped_rows_of(run, identity)

        # 4 state
        checkpoints = stack.enter_context(Checkpointer(str(run.checkpoints), config.checkpoints))
        facts: dict[str, str | int] = {"seed": config.seed, **identity_digests(identity)}

        def beginning() -> tuple[TrainState, int]:
            with goodput.part("restore"):
                return first_state(config, checkpoints, abstract, facts, mixture.spec.vocabulary, skipped)

        state, next_row = beginning()
        if old is not None:
            check_identity(old, identity, next_row)
        first_step = int(state.step)
        if first_step == 0 and distributed.is_main():
            keep_origin_of(config.init_from, run)
        run.begin(identity, config, mesh, first_step, operative)

        if first_step >= config.train_steps:
            say(f"this run is complete: {first_step:,} of {config.train_steps:,} steps are done")
            return

        # 5 steps
        training = stack.enter_context(
            contextlib.closing(
                Training(config, mixture, partitioning, run, checkpoints, goodput, state, facts, skipped, beginning)
            )
        )
        training.run(state, next_row, preemption)


def use_compilation_cache(folder: str) -> None:
    """Lets JAX keep compiled programs in `folder`, so that a resumed run starts sooner.

    Not for several processes on CPUs: with jax 0.10 they then wait for each other in the first step for ever.
    """
    if folder and not (jax.process_count() > 1 and jax.default_backend() == "cpu"):
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))


class Sent(NamedTuple):
    """A step that was sent to the devices and whose metrics have not been fetched yet."""

    step: int
    first_row: int
    metrics: StepMetrics  # on the devices


class BadStep(Exception):
    """The guard froze the state at a step, and the run is to go back to a checkpoint."""

    def __init__(self, sent: Sent, cause: str, rows: list[BadRow]) -> None:
        super().__init__(cause)
        self.step, self.first_row, self.cause, self.rows = sent.step, sent.first_row, cause, rows


class Training:
    """The loop of one run (`steps`, which `run` begins again after a rollback) and what it needs."""

    def __init__(
        self,
        config: TrainConfig,
        mixture: Mixture,
        partitioning: Partitioning,
        run: RunDirectory,
        checkpoints: Checkpointer,
        goodput: Goodput,
        state: TrainState,
        facts: Mapping[str, str | int],
        skipped: SkippedRows,
        beginning: Callable[[], tuple[TrainState, int]],
    ) -> None:
        self.config, self.mixture, self.partitioning = config, mixture, partitioning
        self.directory, self.checkpoints, self.goodput, self.facts = run, checkpoints, goodput, facts
        self.skipped, self.beginning = skipped, beginning
        self.first_step = int(state.step)
        self.length = mixture.spec.sequence_length
        self.train_step = make_train_step(config, partitioning, state, len(mixture.task_names))
        user_slices = open_user_files(config.evaluation, mixture, run.evaluation)
        eval_step = make_eval_step(config, partitioning, groups=1)
        self.held_out = HeldOut(config, mixture, user_slices, partitioning, eval_step)
        self.throughput = Throughput(goodput, window=config.logging.every_steps)
        self.profiler = StepProfiler(config.logging.profile_range, run.profile)
        traced, done = config.logging.profile_range, self.first_step
        if traced and not (traced[0] <= config.train_steps and traced[-1] > done):
            say(f"no trace: steps {traced[0]:,} to {traced[-1]:,} are not among those to do ({done + 1:,} and later)")
        self.writer = self.open_writer()
        devices = partitioning.mesh.devices
        self.peak_flops = config.logging.peak_tflops * 1e12 or peak_flops(devices.flat[0].device_kind)
        self.num_devices = devices.size
        if self.peak_flops:
            say(f"{self.peak_flops / 1e12:,.0f} TFLOP/s a device; {MFU_CONVENTION}")
        self.sent: Sent | None = None
        self.last_was_bad = False

    def open_writer(self) -> MetricsWriter:
        """Of the metrics of the steps after the first one."""
        tensorboard = self.config.logging.tensorboard
        return MetricsWriter(self.directory.path, tensorboard, self.first_step, distributed.is_main())

    def run(self, state: TrainState, next_row: int, preemption: distributed.Preemption) -> None:
        """From `state`, whose next batch begins at row `next_row`, to the end of the run or the wish to end it."""
        while True:
            try:
                return self.steps(state, next_row, preemption)
            except BadStep as error:
                bad = error.with_traceback(None)  # whose frames hold the state, and two do not fit on the devices
            state, next_row = self.roll_back(bad)

    def roll_back(self, bad: BadStep) -> tuple[TrainState, int]:
        """The state of a checkpoint before a bad step and its cursor; the rows from there to the bad step's, or more,
        are left out from now on.

        What makes the run forget later steps comes first: a process that is killed in here finds the bad step again.
        """
        guard, batch_size = self.config.guard, self.config.batch_size
        self.checkpoints.drop_after(bad.step - guard.rollback_steps)
        state, next_row = self.beginning()
        self.first_step = int(state.step)
        first_row = self.skipped.after(next_row)
        end = max(bad.first_row + batch_size, first_row + guard.rollback_skip_steps * batch_size)
        self.skipped.add(Rollback(bad.step, bad.cause, self.first_step, first_row, end, tuple(bad.rows)))
        say(
            f"step {bad.step:,}: {bad.cause}; rolled back to step {self.first_step:,}, and rows {first_row:,} to"
            f" {end - 1:,} are left out (rollback {len(self.skipped)} of {guard.max_rollbacks} at most), see"
            f" {self.directory.path / SKIPPED_ROWS}"
        )
        self.writer.close()
        self.writer = self.open_writer()
        self.last_was_bad = False
        return state, next_row

    def steps(self, state: TrainState, next_row: int, preemption: distributed.Preemption) -> None:
        """As `run`, until a bad step (`BadStep`) if the policy is to roll back."""
        config, step, ending = self.config, self.first_step, False
        evaluate_every, save_due = config.evaluation.every_steps, False
        if step == 0 and evaluate_every:
            self.evaluate(state, 0)
        places = host_rows(self.partitioning.batch, config.batch_size)
        left = config.train_steps - step
        loader = Loader(self.mixture, config.batch_size, next_row, places, batches=left, jump=self.skipped.after)
        self.goodput.begin("train")
        with loader:
            while step < config.train_steps:
                if ending := preemption.requested() or 0 < config.stop_after <= step:
                    break
                with self.goodput.part("data"):
                    batch = next(loader)
                self.profiler.before(step + 1)
                state, metrics = self.send(state, to_global(batch, self.partitioning.batch))
                self.finish(state)  # the step before, while the devices work on this one
                self.sent = Sent(step + 1, batch.next_row - config.batch_size, metrics)
                step, next_row = step + 1, batch.next_row

                if self.profiler.ends_with(step):
                    self.finish(state)
                    self.profiler.stop()
                if step == config.train_steps:
                    break  # the last evaluation and checkpoint are `end`'s
                if evaluate_every and step % evaluate_every == 0:
                    self.finish(state)
                    self.evaluate(state, step)
                save_due |= self.checkpoints.should_save(step)
                if save_due:
                    self.finish(state)
                    save_due = self.last_was_bad  # then after the next good step
                    if not save_due:
                        self.save(state, step, next_row)
                elif self.checkpoints.should_save_locally(step):
                    self.finish(state)
                    if not self.last_was_bad:
                        self.save(state, step, next_row, locally=True)
            self.finish(state)
            self.end(state, step, next_row, ending)

    def send(self, state: TrainState, arrays: Mapping[str, jax.Array]) -> tuple[TrainState, StepMetrics]:
        """Hands one step to the devices; the first one compiles and is waited for, so that no rate counts it."""
        if self.throughput.started:
            return self.train_step(state, arrays)
        with self.goodput.part("compile"):
            state, metrics = jax.block_until_ready(self.train_step(state, arrays))
        self.throughput.start()
        return state, metrics

    def finish(self, state: TrainState) -> None:
        """Waits for the step that was sent last and writes its metrics.

        Raises:
            UserError: the guard halted the run there; the message names the records of the step.
        """
        if self.sent is None:
            return
        sent, self.sent = self.sent, None
        metrics: StepMetrics = jax.device_get(sent.metrics)
        self.throughput.add(int(metrics.tokens_G.sum()), self.config.batch_size * self.length)
        self.last_was_bad = bool(metrics.bad)
        self.write(sent, metrics)
        if metrics.halted:
            self.halt(state, sent, metrics)

    def write(self, sent: Sent, metrics: StepMetrics) -> None:
        """A line of metrics.jsonl for every step, and one on the terminal now and then."""
        rates, memory = self.throughput.rates(), memory_in_use(self.partitioning.mesh.local_devices)
        per_token = self.config.flops_per_token(self.length)
        used = mfu(per_token, rates.tokens_per_second, self.num_devices, self.peak_flops) if rates.steps else None
        names = self.mixture.task_names
        sums = zip(names, metrics.loss_G, metrics.weight_G, strict=True)
        values: dict[str, float | int | str | None] = {
            "rows": sent.first_row + self.config.batch_size,
            "loss": float(metrics.loss),
            **{f"loss/{k}": float(loss / weight) for k, loss, weight in sums if weight > 0},
            **{f"loss_tokens/{k}": int(n) for k, n in zip(names, metrics.tokens_G, strict=True)},
            "z_loss": float(metrics.z_loss),
            **({} if metrics.router is None else {k: float(x) for k, x in metrics.router._asdict().items()}),
            "grad_norm": float(metrics.grad_norm),
            "param_norm": float(metrics.param_norm),
            "learning_rate": float(metrics.learning_rate),
            "bad": int(metrics.bad),
            "tokens_per_second": rates.tokens_per_second if rates.steps else None,
            "loss_tokens_per_second": rates.loss_tokens_per_second if rates.steps else None,
            "step_seconds": rates.step_seconds if rates.steps else None,
            "mfu": used,
            "stall": rates.stall,
            "memory_bytes": memory.in_use,
            "memory_peak_bytes": memory.peak,
        }
        self.writer.write("train", sent.step, values)
        total = self.config.train_steps
        if metrics.bad and not metrics.halted:
            last_row = sent.first_row + self.config.batch_size - 1
            say(
                f"step {sent.step:,}: update dropped, loss {metrics.loss:.4g} nats/token, gradient norm"
                f" {metrics.grad_norm:.4g}; rows {sent.first_row:,} to {last_row:,}"
            )
        if sent.step % self.config.logging.every_steps == 0 or sent.step in (self.first_step + 1, total):
            left = self.throughput.seconds_left(total - sent.step)
            say(progress_line(sent.step, total, float(metrics.loss), rates, used, left))

    def evaluate(self, state: TrainState, step: int) -> None:
        """Held-out loss of every slice, written and printed."""
        if not self.held_out.slices:
            return
        with self.goodput.part("evaluate"):
            losses = self.held_out.run(state.params)
        values: dict[str, float | int | str | None] = {}
        for name, loss in losses.items():
            values[f"{name}/nats_per_token"] = loss.nats_per_token
            values[f"{name}/bits_per_byte"] = loss.bits_per_byte
            values[f"{name}/tokens"] = loss.tokens
            say(f"step {step:,}, held-out {name}: {loss}")
        self.writer.write("eval", step, values)

    def save(self, state: TrainState, step: int, next_row: int, locally: bool = False) -> None:
        """Begins to save, on the hosts' own disks if `locally`; the writing goes on behind the steps that follow."""
        with self.goodput.part("save"):
            self.writer.flush()
            facts: dict[str, Any] = {"next_row": next_row, **self.facts, **self.skipped.facts()}
            if locally:
                self.checkpoints.save_locally(step, state, facts)
            else:
                self.checkpoints.save(step, state, facts, force=True)

    def end(self, state: TrainState, step: int, next_row: int, ending: bool) -> None:
        """The last evaluation, unless the process was asked to end, and the last checkpoint."""
        if ending:
            say(f"asked to end: saving step {step:,}")
        else:
            self.evaluate(state, step)
        self.save(state, step, next_row)
        with self.goodput.part("save"):
            self.checkpoints.wait()
        rates = self.throughput.run()
        if step > self.first_step:  # else an earlier process has written that line
            shares = {f"goodput/{name}": share for name, share in self.goodput.share().items()}
            self.writer.write("run", step, {**shares, "wall_seconds": self.goodput.seconds()})
        if rates.steps:
            say(f"{rates.tokens_per_second:,.0f} tokens/s over {rates.steps:,} steps, the first one left out")
        say(self.goodput.line())
        state_of = "saved" if ending else "done"
        say(f"{state_of}: step {step:,} of {self.config.train_steps:,}, row {next_row:,}, in {self.directory.path}")

    def halt(self, state: TrainState, sent: Sent, metrics: StepMetrics) -> NoReturn:
        """Ends the run at a bad step, or its steps if it is to roll back, with the records that were in it."""
        guard = self.config.guard
        rows = find_bad_rows(self.config, self.mixture, self.partitioning, state.params, sent.first_row)
        if guard.on_bad_step == "rollback" and len(self.skipped) < guard.max_rollbacks:
            raise BadStep(sent, cause_of(guard, jax.device_get(state.guard), metrics), rows)
        if distributed.is_main():
            text = "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows)
            (self.directory.path / BAD_ROWS).write_text(text, "utf-8")
        what = "whose update was dropped" if metrics.bad else "after which parameters are not finite"
        mend = {
            "skip": "raise GuardConfig.max_skipped",
            "stop": "set GuardConfig.on_bad_step to 'skip' or 'rollback'",
            "rollback": f"raise GuardConfig.max_rollbacks, after {len(self.skipped)} of them",
        }[guard.on_bad_step]
        raise UserError(
            f"stopped at step {sent.step:,}, {what}: loss {metrics.loss:.4g} nats/token, gradient"
            f" norm {metrics.grad_norm:.4g}; {in_words(rows)}; all are in {self.directory.path / BAD_ROWS}, look at"
            f" them with `python -m tools.inspect`, or {mend}"
        )

    def close(self) -> None:
        """Lets go of what the loop holds open."""
        self.profiler.stop()
        self.writer.close()


def cause_of(config: GuardConfig, guard: GuardState, metrics: StepMetrics) -> str:
    """What was bad about the step at which the state froze, in words."""
    found = {"loss": (metrics.loss, config.loss_spike_factor, guard.loss_mean, " nats/token")}
    found["gradient norm"] = (metrics.grad_norm, config.spike_factor, guard.norm_mean, "")
    for name, (value, _, _, unit) in found.items():
        if not math.isfinite(value):
            return f"{name} {value}{unit}"
    for name, (value, factor, mean, unit) in found.items():
        if metrics.bad and factor and value > factor * mean:
            return f"{name} {value:.4g}{unit}, its running mean is {mean:.4g}"
    return "parameters are not finite after it"
