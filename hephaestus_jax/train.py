"""One training run, from top to bottom: configuration → mesh → rows → state → steps → checkpoints → evaluation.

    train(config)
      1 devices     mesh, how every array lies on it
      2 rows        the mixture's caches, what the run takes from each task
      3 directory   the run's identity, refused when it changed
      4 state       resume → another run's or an imported checkpoint → a Hugging Face model → scratch, in this order
      5 steps       row cursor → batch → step; metrics are fetched one step late, so that devices need not wait
      6 end         the last evaluation and checkpoint

A step numbered n is the n-th: checkpoints, metrics and messages count steps done. Step n takes the rows
[(n − 1) · B, n · B) of the mixture.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

import jax

from hephaestus_jax import distributed, dry_run
from hephaestus_jax.bad_rows import find_bad_rows, in_words
from hephaestus_jax.checkpoints import Checkpointer
from hephaestus_jax.config import PARTS, TrainConfig
from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.loader import Loader, host_rows, to_global
from hephaestus_jax.data.mixture import Mixture, open_mixture
from hephaestus_jax.devices import memory_in_use, peak_flops
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals.held_out import HeldOut
from hephaestus_jax.evals.user_files import open_user_files
from hephaestus_jax.gin_files import Loaded, load_gin_with_text, split_overrides
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.metrics import MFU_CONVENTION, Goodput, MetricsWriter, Throughput, mfu, progress_line
from hephaestus_jax.profiling import StepProfiler
from hephaestus_jax.recipe import Recipe, run_recipe
from hephaestus_jax.run_directory import RunDirectory, check_identity, identity_digests, identity_of
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.starting_point import open_starting_point, starting_model
from hephaestus_jax.train_step import (
    StepMetrics,
    TrainState,
    abstract_state,
    check_batch,
    init_state,
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
    args = parser.parse_args(rest)
    if args.profile_steps:
        overrides.append(f"LoggingConfig.profile_steps={args.profile_steps!r}")
    loaded: Loaded[Recipe | TrainConfig] = load_gin_with_text(
        (Recipe, TrainConfig), args.gin_file, overrides, also=(*PARTS, starting_model)
    )
    if isinstance(loaded.value, Recipe):
        if args.dry_run:
            raise UserError(f"{args.gin_file[0]} is a recipe; --dry_run is for the runs that it consists of")
        run_recipe(loaded.value, loaded.operative)
        return
    distributed.initialise()
    if args.dry_run:
        dry_run.describe(loaded.value)
    else:
        train(loaded.value, loaded.operative)


def say(text: str) -> None:
    """Prints a line, once among all processes."""
    if distributed.is_main():
        print(text, flush=True)


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
    partitioning = Partitioning(mesh, config.model)
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

        # 4 state
        checkpoints = stack.enter_context(contextlib.closing(Checkpointer(str(run.checkpoints), config.checkpoints)))
        with goodput.part("restore"):
            facts: dict[str, str | int] = {"seed": config.seed, **identity_digests(identity)}
            state, next_row = first_state(config, checkpoints, abstract, facts, mixture.spec.vocabulary)
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
            contextlib.closing(Training(config, mixture, partitioning, run, checkpoints, goodput, state, facts))
        )
        training.steps(state, next_row, preemption)


def use_compilation_cache(folder: str) -> None:
    """Lets JAX keep compiled programs in `folder`, so that a resumed run starts sooner.

    Not for several processes on CPUs: with jax 0.10 they then wait for each other in the first step for ever.
    """
    if folder and not (jax.process_count() > 1 and jax.default_backend() == "cpu"):
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))


def first_state(
    config: TrainConfig,
    checkpoints: Checkpointer,
    abstract: TrainState,
    facts: Mapping[str, str | int],
    vocabulary: VocabularyIdentity,
) -> tuple[TrainState, int]:
    """The state to go on from and its row cursor, by the first of these that applies.

    1. The newest whole checkpoint of this run.
    2. The parameters (and optimizer state, if asked) of another run's newest checkpoint or of an imported one, at
       step 0.
    3. The weights of a Hugging Face model, at step 0.
    4. Fresh parameters from the seed.
    """
    if (restored := checkpoints.restore(abstract)) is not None:
        for name in ("model", "vocabulary", "seed"):
            if restored.facts[name] != facts[name]:
                raise UserError(
                    f"checkpoint {restored.step:,} in {checkpoints.directory} is another run's: its {name} differs;"
                    " put the run's own checkpoints back, or start from them with TrainConfig.init_from"
                )
        next_row = int(restored.facts["next_row"])
        say(f"resumed at step {restored.step:,}, row {next_row:,}, from {checkpoints.directory}")
        return restored.state, next_row
    if config.init_from:
        start = open_starting_point(config.init_from)
        wanted = {"params": abstract.params, **({"opt_state": abstract.opt_state} if config.init_optimizer else {})}
        start.check_vocabulary(vocabulary)
        found = start.restore(wanted)
        of = "the Hugging Face model" if start.kind == "huggingface" else f"step {found.step:,} of"
        say(f"started with {' and '.join(wanted)} of {of} {config.init_from}")
        return init_state(config, abstract, found.state), 0
    say(f"started from scratch with seed {config.seed}")
    return init_state(config, abstract), 0


def keep_origin_of(init_from: str, run: RunDirectory) -> None:
    """Keeps the files of the Hugging Face model that this line of runs began with, so that it can be exported.

    What an earlier start left, which saved nothing and may have begun elsewhere, goes.
    """
    origin = open_starting_point(init_from).origin if init_from else None
    if origin is not None:
        keep_origin(origin, run.huggingface)
    elif run.huggingface.exists():
        shutil.rmtree(run.huggingface)


class Sent(NamedTuple):
    """A step that was sent to the devices and whose metrics have not been fetched yet."""

    step: int
    first_row: int
    metrics: StepMetrics  # on the devices


class Training:
    """The loop of one run (`steps`) and what it needs."""

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
    ) -> None:
        self.config, self.mixture, self.partitioning = config, mixture, partitioning
        self.run, self.checkpoints, self.goodput, self.facts = run, checkpoints, goodput, facts
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
        self.writer = MetricsWriter(run.path, config.logging.tensorboard, self.first_step, distributed.is_main())
        devices = partitioning.mesh.devices
        self.peak_flops = config.logging.peak_tflops * 1e12 or peak_flops(devices.flat[0].device_kind)
        self.num_devices = devices.size
        if self.peak_flops:
            say(f"{self.peak_flops / 1e12:,.0f} TFLOP/s a device; {MFU_CONVENTION}")
        self.sent: Sent | None = None
        self.last_was_bad = False

    def steps(self, state: TrainState, next_row: int, preemption: distributed.Preemption) -> None:
        """From `state`, whose next batch begins at row `next_row`, to the end of the run or the wish to end it."""
        config, step, ending = self.config, self.first_step, False
        evaluate_every, save_due = config.evaluation.every_steps, False
        if step == 0 and evaluate_every:
            self.evaluate(state, 0)
        places = host_rows(self.partitioning.batch, config.batch_size)
        loader = Loader(self.mixture, config.batch_size, next_row, places, batches=config.train_steps - step)
        self.goodput.begin("train")
        with loader:
            while step < config.train_steps:
                if ending := preemption.requested(step) or 0 < config.stop_after <= step:
                    break
                with self.goodput.part("data"):
                    batch = next(loader)
                self.profiler.before(step + 1)
                state, metrics = self.send(state, to_global(batch, self.partitioning.batch))
                self.finish(state)  # the step before, while the devices work on this one
                self.sent = Sent(step + 1, next_row, metrics)
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
        per_token = self.config.model.flops_per_token(self.length)
        used = mfu(per_token, rates.tokens_per_second, self.num_devices, self.peak_flops) if rates.steps else None
        names = self.mixture.task_names
        sums = zip(names, metrics.loss_G, metrics.weight_G, strict=True)
        values: dict[str, float | int | str | None] = {
            "rows": sent.first_row + self.config.batch_size,
            "loss": float(metrics.loss),
            **{f"loss/{k}": float(loss / weight) for k, loss, weight in sums if weight > 0},
            **{f"loss_tokens/{k}": int(n) for k, n in zip(names, metrics.tokens_G, strict=True)},
            "z_loss": float(metrics.z_loss),
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

    def save(self, state: TrainState, step: int, next_row: int) -> None:
        """Begins to save; the writing goes on behind the steps that follow."""
        with self.goodput.part("save"):
            self.writer.flush()
            self.checkpoints.save(step, state, {"next_row": next_row, **self.facts}, force=True)

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
        say(f"{state_of}: step {step:,} of {self.config.train_steps:,}, row {next_row:,}, in {self.run.path}")

    def halt(self, state: TrainState, sent: Sent, metrics: StepMetrics) -> NoReturn:
        """Stops the run at a bad step, with the records that were in it."""
        rows = find_bad_rows(self.config, self.mixture, self.partitioning, state.params, sent.first_row)
        if distributed.is_main():
            text = "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows)
            (self.run.path / BAD_ROWS).write_text(text, "utf-8")
        what = "whose update was dropped" if metrics.bad else "after which parameters are not finite"
        skips = self.config.guard.on_bad_step == "skip"
        mend = "raise GuardConfig.max_skipped" if skips else "set GuardConfig.on_bad_step to 'skip'"
        raise UserError(
            f"stopped at step {sent.step:,}, {what}: loss {metrics.loss:.4g} nats/token, gradient"
            f" norm {metrics.grad_norm:.4g}; {in_words(rows)}; all are in {self.run.path / BAD_ROWS}, look at them with"
            f" `python -m tools.inspect`, or {mend}"
        )

    def close(self) -> None:
        """Lets go of what the loop holds open."""
        self.profiler.stop()
        self.writer.close()
