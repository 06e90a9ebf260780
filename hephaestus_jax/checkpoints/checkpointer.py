"""Saving and restoring a run's state: asynchronous, atomic, and checked against what was saved.

A save copies the state from the devices and returns; a background thread writes it to a temporary folder that becomes
the checkpoint by one rename. A process killed at any moment leaves the checkpoints before it whole.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from hephaestus_jax.checkpoints import orbax_noise, storage
from hephaestus_jax.checkpoints.local import LocalSaves, Parent
from hephaestus_jax.checkpoints.processes import Damaged, on_first, together
from hephaestus_jax.config import CheckpointConfig
from hephaestus_jax.distributed import is_main, lost_a_process
from hephaestus_jax.errors import UserError

_SAVE_TIMEOUT_SECONDS = 2 * 60 * 60  # of one save in the background, and of waiting for other processes there


@dataclass(frozen=True)
class Restored:
    """A state as it was saved.

    Attributes:
        step: the step that the checkpoint is named by.
        state: arrays in the tree and shardings that were asked for.
        facts: the JSON that was saved with it.
        set_aside: paths of damaged newer checkpoints, which were moved there.
        source: where it was found, in words.
    """

    step: int
    state: Any
    facts: dict[str, Any]
    set_aside: tuple[str, ...] = ()
    source: str = ""


class Checkpointer:
    """The checkpoints of one run. All processes of the run make the same calls in the same order.

    Attributes:
        directory: where they lie, a local path or URL.
        last_saved: the newest step that was saved or restored, None if there is none yet.
        blocked_seconds: time that callers spent in `save`, `wait` and `close`.
    """

    def __init__(self, directory: str | os.PathLike, config: CheckpointConfig, piece_bytes: int | None = None) -> None:
        """Opens `directory` and removes from it what killed processes left half written.

        Args:
            directory: a local path or URL.
            config: when to save, and what to keep.
            piece_bytes: largest piece that a shard is stored in, 0 for any; by default Orbax's 2 GiB. What is larger is
                cut, for which it is copied on the host.

        Raises:
            UserError: the directory cannot be created or read.
        """
        orbax_noise.silence()
        self._path = storage.open_directory(directory)
        if special := sorted(set(str(self._path)) & set("*?[")):  # Orbax takes the path for a pattern when it saves
            raise UserError(f"checkpoint directory {self._path} has {' '.join(special)} in its path; use another one")
        self.directory = str(self._path)
        self.config = config
        self._piece_bytes = piece_bytes
        self.last_saved: int | None = None
        self.blocked_seconds = 0.0
        self._clock = _Clock(60 * config.every_minutes)
        self._writing: int | None = None  # a step whose save was not waited for yet
        self._failed = False  # a save did, and that was said
        self._abandoned = False  # a save failed in another process, and will never be finished in this one
        self._waiter = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        handler = ocp.CompositeCheckpointHandler(
            **{
                storage.STATE: ocp.PyTreeCheckpointHandler(use_compression=False),  # floats hardly compress
                storage.FACTS: ocp.JsonCheckpointHandler(),
                storage.DIGESTS: ocp.JsonCheckpointHandler(),
            }
        )
        self._writer = ocp.AsyncCheckpointer(handler, timeout_secs=_SAVE_TIMEOUT_SECONDS)
        self._local = LocalSaves(config.local_dir) if config.local_dir else None
        for name in on_first(self._prepare):
            _say(f"removed {self._path / name}, a save that was not finished")

    def _prepare(self) -> list[str]:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            return storage.remove_unfinished(self._path)
        except OSError as error:
            raise UserError(f"cannot use checkpoint directory {self._path}: {storage.reason(error)}") from error

    # ---- saving

    def should_save(self, step: int) -> bool:
        """Whether the state after `step` steps is due to be saved, by steps or by time; the same in all processes.

        Raises:
            UserError: the save before this one failed in the background.
        """
        with self._failures_as_one_line():
            self._writer.check_for_errors()
        if step == self.last_saved or step < 1:
            return False
        every = self.config.every_steps
        by_steps = bool(every) and step % every == 0
        return by_steps or self._clock.due(step)

    def save(self, step: int, state: Any, facts: Mapping[str, Any], force: bool = False) -> None:
        """Saves the state after `step` steps if it is due, or in any case with `force`; never the same step twice.

        Returns when the state has left the devices: its buffers may be donated at once. The save before this one is
        waited for.

        Args:
            step: number of steps done.
            state: tree of jax arrays, which all processes hold their shards of.
            facts: JSON that belongs to it.

        Raises:
            UserError: this save or the one before failed; the checkpoints before that are whole.
        """
        if step == self.last_saved or not (force or self.should_save(step)):
            return
        self.wait()
        self._failed = False
        arrays = jax.block_until_ready(storage.named_leaves(state))  # still training, not saving
        facts = json.loads(json.dumps(facts, allow_nan=False))
        with self._blocking():
            items = {
                storage.STATE: ocp.args.PyTreeSave(
                    storage.nested(arrays), ocdbt_target_data_file_size=self._piece_bytes
                ),
                storage.FACTS: ocp.args.JsonSave(facts),
                storage.DIGESTS: ocp.args.JsonSave(storage.Index.of(arrays, facts).to_json()),
            }
            self._writing = step
            with self._failures_as_one_line():
                self._writer.save(self._path / str(step), args=ocp.args.Composite(**items))
        self.last_saved = step
        self._clock.restart()

    def should_save_locally(self, step: int) -> bool:
        """Whether the state after `step` steps is due to be saved on the hosts' own disks."""
        return self._local is not None and step % self.config.local_every_steps == 0 and step != self.last_saved

    def save_locally(self, step: int, state: Any, facts: Mapping[str, Any]) -> None:
        """Saves the state on the hosts' own disks, as soon as there is a whole checkpoint; arguments as for `save`."""
        assert self._local is not None
        if parents := self._parents():
            arrays = jax.block_until_ready(storage.named_leaves(state))
            with self._blocking():
                self._local.save(step, arrays, facts, parents[-1])

    def _parents(self) -> list[Parent]:
        """What says which whole checkpoints there are, ascending."""

        def read() -> list[dict[str, Any]]:
            return [asdict(Parent.of(self._path, step)) for step in storage.whole_steps(self._path)]

        try:
            return [Parent(**value) for value in on_first(read)]
        except Damaged:  # which a restore will tell of
            return []

    def wait(self) -> None:
        """Waits until everything saved lies on disk, and deletes checkpoints that need not be kept.

        Raises:
            UserError: a save failed; the checkpoints before it are whole.
        """
        self._wait(self._finished_together if jax.process_count() > 1 else self._writer.wait_until_finished)

    def _wait(self, finished: Callable[[], None]) -> None:
        with self._blocking():
            with self._failures_as_one_line():
                finished()
            if self._writing is not None and is_main():
                self._delete_old()
            self._writing = None

    def _finished_together(self) -> None:
        """Returns when the save is finished on all processes, or raises when it failed on one.

        Orbax waits at a barrier for processes that are gone, 100 seconds and more; a collective fails at once.
        """
        waiting = self._waiter.submit(self._writer.wait_until_finished)
        for pause in itertools.chain([0.01] * 10, itertools.repeat(0.1)):
            done = waiting.done()
            mine = np.array([done, done and waiting.exception() is not None])
            all_done, failed = np.asarray(multihost_utils.process_allgather(mine)).T
            if failed.any() or all_done.all():
                break
            time.sleep(pause)
        if done:
            waiting.result()
        if failed.any():
            self._abandoned = not done
            raise OSError("another process could not write its part")

    def close(self) -> None:
        """Waits as `wait` does, and ends the background threads."""
        self._close(self.wait)

    def _close(self, wait: Callable[[], None]) -> None:
        lost = self._abandoned  # then the writer waits for a process that does not come; the end of this one ends it
        try:
            if not self._failed:  # Orbax would raise the same failure once more
                wait()
        except (UserError, RuntimeError, ValueError) as error:
            lost = self._abandoned or lost_a_process(error)
            raise
        finally:
            if not lost:
                self._waiter.shutdown()
                with contextlib.suppress(OSError, ValueError) if self._failed else contextlib.nullcontext():
                    self._writer.close()
                if self._local is not None:
                    self._local.close()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Closes it, unless another process is gone: the open save waits for that one, and a resume removes it."""
        if error is None:
            self.close()
        elif not lost_a_process(error):  # perhaps in this process only: the others are elsewhere
            self._close(lambda: self._wait(self._writer.wait_until_finished))
        elif self._local is not None:
            self._local.wait()

    def _delete_old(self) -> None:
        every = self.config.keep_every_steps
        for step in storage.whole_steps(self._path)[: -self.config.keep]:
            if not (every and step % every == 0):
                storage.delete(self._path, step)

    @contextlib.contextmanager
    def _blocking(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.blocked_seconds += time.perf_counter() - started

    @contextlib.contextmanager
    def _failures_as_one_line(self) -> Iterator[None]:
        """Turns an error of writing into one line, and removes the temporary folder of the save that failed."""
        try:
            yield
        except (OSError, ValueError) as error:
            if lost_a_process(error):
                raise
            step, self._writing, self.last_saved, self._failed = self._writing, None, None, True
            if is_main():
                storage.remove_failed(self._path)
            whole = storage.whole_steps(self._path)
            last = f"the last whole checkpoint is step {whole[-1]}" if whole else "there is no whole checkpoint yet"
            raise UserError(
                f"cannot save step {step} to {self._path}: {storage.reason(error)}; {last}; mend that and start again"
            ) from error

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, all but the oldest, so that the run goes back behind them."""
        self.wait()
        if self._local is not None:
            self._local.clear()
        on_first(lambda: self._drop_after(step))

    def _drop_after(self, step: int) -> None:
        for later in reversed(storage.whole_steps(self._path)[1:]):
            if later > step:
                storage.delete(self._path, later)

    # ---- restoring

    def restore(self, abstract_state: Any, later: Collection[str] = ()) -> Restored | None:
        """The newest whole checkpoint or newer local save, or None if nothing was ever saved here.

        Contents are compared with the digests taken at save. A damaged checkpoint is named on standard error and
        moved to `set_aside`, and the one before it is tried.

        Args:
            abstract_state: tree of `jax.ShapeDtypeStruct` with the shardings wanted, on any mesh.
            later: names of arrays that earlier versions of the project did not save; zeros where they are not there.

        Raises:
            UserError: the saved state has other arrays than the one asked for (nothing is set aside), every
                checkpoint is damaged, or the storage cannot be read.
        """
        self.wait()
        if self._local is not None:
            if (found := self._restore_locally(self._local, abstract_state)) is not None:
                return found
            self._local.clear()
        moved: list[str] = []
        for step in reversed(on_first(lambda: storage.whole_steps(self._path))):
            try:
                state, facts = _read_checked(self._path / str(step), abstract_state, later=later)
            except Damaged as damage:
                moved.append(on_first(functools.partial(storage.set_aside, self._path, step)))
                _say(f"checkpoint {self._path / str(step)} is damaged: {damage}; set aside as {moved[-1]}")
                continue
            self.last_saved = step
            return Restored(step, state, facts, tuple(moved), self.directory)
        if aside := on_first(lambda: storage.names_set_aside(self._path)):
            raise UserError(
                f"no whole checkpoint in {self._path}; damaged ones are in {storage.SET_ASIDE} ({', '.join(aside)}):"
                " mend one and move it back, or give the run another directory to start afresh"
            )
        return None

    def _restore_locally(self, local: LocalSaves, abstract_state: Any) -> Restored | None:
        parents = self._parents()
        wanted = storage.named_leaves(abstract_state)
        if not parents or (found := local.restore(wanted, parents)) is None:
            return None
        step, arrays, facts, others = found
        given = f" ({len(others)} of {jax.process_count()} processes got theirs from others)" if others else ""
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), [arrays[name] for name in wanted])
        return Restored(step, state, facts, source=f"the hosts' own disks{given}")


def newest_step(directory: str | os.PathLike) -> int:
    """Step of the newest checkpoint in a directory, its contents unchecked.

    Raises:
        UserError: there is none.
    """
    path = storage.open_directory(directory)
    steps = storage.whole_steps(path)
    if not steps:
        raise UserError(f"no whole checkpoint in {path}; give the directory of a run that has saved one")
    return steps[-1]


def restore_parts(directory: str | os.PathLike, abstract: Mapping[str, Any], step: int | None = None) -> Restored:
    """Named parts of a checkpoint of any run, such as its parameters, and nothing else of it; contents are checked.

    Args:
        directory: the run's checkpoint directory.
        abstract: for each part ("params", "opt_state") the tree of `jax.ShapeDtypeStruct` with the shardings wanted, on
            any mesh.
        step: which checkpoint; the newest by default.

    Raises:
        UserError: there is no such checkpoint, it is damaged, or its arrays are others than those asked for.
    """
    path = storage.open_directory(directory)
    steps = on_first(lambda: storage.whole_steps(path))
    if not steps or step not in (None, *steps):
        wanted = "whole checkpoint" if step is None else f"checkpoint of step {step}"
        raise UserError(f"no {wanted} in {path}; there are {', '.join(map(str, steps)) or 'none'}")
    chosen = steps[-1] if step is None else step
    try:
        state, facts = _read_checked(path / str(chosen), abstract, partial=True)
    except Damaged as damage:
        raise UserError(
            f"checkpoint {path / str(chosen)} is damaged: {damage}; resume that run, which goes back to the checkpoint"
            " before, or move the folder away"
        ) from damage
    return Restored(chosen, state, facts)


def _read_checked(
    path: epath.Path, abstract: Any, partial: bool = False, later: Collection[str] = ()
) -> tuple[Any, dict[str, Any]]:
    """The state and facts of one checkpoint.

    Raises:
        Damaged: what is stored is not what was saved, in all processes alike.
        UserError: the arrays are others than those asked for, or the storage cannot be read.
    """
    wanted = storage.named_leaves(abstract)
    index = together(lambda: storage.read_index(path))
    facts = together(lambda: storage.read_facts(path, index))
    saved = {name: array for name, array in wanted.items() if name in index.arrays or name not in later}
    _check_same_arrays(path, index, saved, partial)
    arrays = together(lambda: storage.read_arrays(path, saved))
    if damage := index.damage(arrays):
        raise Damaged(damage)
    arrays |= {name: jnp.zeros(x.shape, x.dtype, device=x.sharding) for name, x in wanted.items() if name not in saved}
    return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[name] for name in wanted]), facts


def _check_same_arrays(path: epath.Path, index: storage.Index, wanted: Mapping[str, Any], partial: bool) -> None:
    """Raises `UserError` if the checkpoint has other arrays than `wanted` (more of them are welcome if `partial`)."""
    saved = {name: entry.kind for name, entry in index.arrays.items()}
    asked = {n: storage.ArrayEntry(a.shape, np.dtype(a.dtype).name, ()).kind for n, a in wanted.items()}
    lacking = [f"{name} is not in it" for name in asked if name not in saved]
    surplus = [] if partial else [f"it has {name} too" for name in saved if name not in asked]
    changed = [f"{n} is {saved[n]}, not {asked[n]}" for n in asked if n in saved and saved[n] != asked[n]]
    if differences := changed + lacking + surplus:
        more = f" and {len(differences) - 1} more differences" if len(differences) > 1 else ""
        raise UserError(
            f"checkpoint {path} is of another model or optimizer: {differences[0]}{more};"
            " give the configuration that it was saved with, or another directory"
        )


class _Clock:
    """Whether the time between saves has passed, by process 0's clock.

    Asking the other processes costs a synchronisation with the devices, so process 0 also says at which step to ask
    again: when half the time left will have passed at the pace so far. That is about ten questions between two saves.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._started = time.monotonic()
        self._first_step: int | None = None  # asked about since the last save
        self._ask_at = 0
        self._due = False

    def restart(self) -> None:
        """Called at every save."""
        self._started, self._first_step, self._ask_at, self._due = time.monotonic(), None, 0, False

    def due(self, step: int) -> bool:
        if not self._seconds or self._due:
            return self._due
        if self._first_step is None:
            self._first_step = step
        if step >= self._ask_at:
            passed = time.monotonic() - self._started
            pace = (step - self._first_step) / passed if passed else 0.0  # steps/s
            answer = np.array([passed >= self._seconds, max(1, (self._seconds - passed) * pace / 2)], np.int32)
            if jax.process_count() > 1:
                answer = np.asarray(multihost_utils.broadcast_one_to_all(answer))
            self._due, self._ask_at = bool(answer[0]), step + int(answer[1])
        return self._due


def _say(line: str) -> None:
    if is_main():
        print(line, file=sys.stderr, flush=True)
