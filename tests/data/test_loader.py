"""Batches hold exactly the rows that the mixture names, whatever the resume point, batch size, threads and failures."""

import itertools
import threading
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.data import loader as loader_module
from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.loader import (
    PADDING_ROW,
    Loader,
    batch_digest,
    evaluation_batches,
    row_digests,
    split_rows,
)
from hephaestus_jax.data.mixture import Mixture
from hephaestus_jax.data.mixture_spec import MixtureSpec, Stage, TaskCache
from hephaestus_jax.data.packing import Rows
from hephaestus_jax.errors import UserError

LENGTH = 8
CACHE_ROWS = {"code": 23, "docs": 3, "text": 11}
PATIENCE_SECONDS = 20  # after which a test gives up on a thread that should have ended long ago


@dataclass
class ArrayCache:
    """A cache in memory whose every value tells its task and row; it keeps account of what was asked for."""

    number: int
    rows: int
    asked: list = field(default_factory=list)
    before_read: object = None

    @property
    def manifest(self):
        return SimpleNamespace(rows=self.rows, sequence_length=LENGTH)

    def read(self, rows):
        if self.before_read:
            self.before_read(rows)
        self.asked.extend(rows.tolist())
        tokens = (self.number * 1000 + rows[:, None]) * 100 + np.arange(LENGTH)
        ones = np.ones_like(tokens)
        return Rows(
            tokens_NL=tokens.astype(np.int32),
            segment_ids_NL=(ones * (1 + rows[:, None])).astype(np.int32),
            positions_NL=(ones * np.arange(LENGTH)).astype(np.int32),
            loss_weights_NL=(tokens / 7).astype(np.float32),
        )


def make_mixture(stages=None, before_read=None):
    stages = stages or [(0, {"code": 4, "docs": 1, "text": 2}), (50, {"text": 7})]
    spec = MixtureSpec(
        name="test",
        seed=3,
        denominator=7,
        sequence_length=LENGTH,
        vocabulary=VocabularyIdentity("tiny", "v", 300),
        tasks={name: TaskCache(name, rows, name) for name, rows in CACHE_ROWS.items()},
        stages=tuple(Stage(first, rates) for first, rates in stages),
    )
    caches = {
        name: ArrayCache(number, rows, before_read=before_read)
        for number, (name, rows) in enumerate(CACHE_ROWS.items())
    }
    return Mixture(spec, caches)


def take(loader, count):
    """The next `count` batches."""
    with loader:
        return list(itertools.islice(loader, count))


def stream(batches, name):
    """One array of several batches, row after row."""
    return np.concatenate([getattr(batch, name) for batch in batches])


ARRAYS = ("tokens", "segment_ids", "positions", "loss_weights", "task_ids", "rows")


def test_a_batch_holds_the_rows_that_the_mixture_names():
    mixture = make_mixture()
    batches = take(Loader(mixture, batch_size=10), 12)
    where = mixture.locate(np.arange(120))
    expected = (where.task * 1000 + where.cache_row)[:, None] * 100 + np.arange(LENGTH)
    assert np.array_equal(stream(batches, "tokens"), expected)
    assert np.array_equal(stream(batches, "segment_ids"), np.repeat(1 + where.cache_row[:, None], LENGTH, axis=1))
    assert np.array_equal(stream(batches, "positions"), np.tile(np.arange(LENGTH), (120, 1)))
    assert np.array_equal(stream(batches, "loss_weights"), (expected / 7).astype(np.float32))
    assert np.array_equal(stream(batches, "task_ids"), where.task)
    assert np.array_equal(stream(batches, "rows"), np.arange(120))
    assert [batch.next_row for batch in batches] == list(range(10, 130, 10))
    for name, dtype in zip(ARRAYS, ["int32"] * 3 + ["float32", "int32", "int64"], strict=True):
        assert getattr(batches[0], name).dtype == dtype


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=6),
    start=st.integers(0, 200),
    boundary=st.integers(1, 150),
    threads=st.integers(1, 4),
    prefetch=st.integers(1, 5),
)
def test_stopping_and_resuming_at_any_row_is_exact(sizes, start, boundary, threads, prefetch):
    stages = [(0, {"code": 4, "docs": 1, "text": 2}), (boundary, {"docs": 3, "text": 4})]
    next_row, batches = start, []
    for size in sizes:  # a new process each time: another mixture object, batch size and depth
        loader = Loader(make_mixture(stages), size, next_row, prefetch=prefetch, threads=threads)
        batches += take(loader, 2)
        next_row = loader.next_row
    assert next_row == start + 2 * sum(sizes) == batches[-1].next_row
    whole = take(Loader(make_mixture(stages), next_row - start, start), 1)
    for name in ARRAYS:
        assert np.array_equal(stream(batches, name), stream(whole, name)), name


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_a_host_reads_its_own_rows_and_no_others(hosts):
    parts = []
    for host in range(hosts):
        mixture = make_mixture()
        [batch] = take(Loader(mixture, 16, 40, split_rows(16, host, hosts), prefetch=1), 1)
        parts.append(batch)
        where = mixture.locate(np.arange(40, 56)[batch.places])
        for number, name in enumerate(mixture.task_names):
            assert sorted(mixture.caches[name].asked) == sorted(where.cache_row[where.task == number].tolist())
    [whole] = take(Loader(make_mixture(), 16, 40), 1)
    assert batch_digest(*parts) == batch_digest(whole)
    for name in ARRAYS:
        assert np.array_equal(stream(parts, name), getattr(whole, name))


def test_reading_ahead_is_bounded():
    mixture = make_mixture([(0, {"text": 7})])
    with Loader(mixture, 4, prefetch=3, threads=8) as loader:
        for _ in range(5):
            next(loader)
        loader._ahead._executor.shutdown(wait=True)  # let everything that was asked for end
        assert len(mixture.caches["text"].asked) == 4 * (5 + 3)


def test_a_loader_of_so_many_batches_ends_and_reads_no_further():
    mixture = make_mixture([(0, {"text": 7})])
    assert [batch.next_row for batch in Loader(mixture, 4, 2, batches=3)] == [6, 10, 14]
    assert len(mixture.caches["text"].asked) == 12


def test_bytes_and_stall_time_are_counted(monkeypatch):
    asked = threading.Event()
    readings = iter([10.0, 12.5, 20.0, 21.0])

    def clock():
        asked.set()  # only a clock that is read before the wait lets the read go on
        return next(readings)

    mixture = make_mixture(before_read=lambda rows: asked.wait())
    monkeypatch.setattr(loader_module, "time", SimpleNamespace(perf_counter=clock))
    with Loader(mixture, 6) as loader:
        batch = next(loader)
        assert loader.stall_seconds == 2.5
        assert loader.bytes_delivered == batch.nbytes == 6 * LENGTH * 16
        next(loader)
        assert loader.stall_seconds == 3.5
        assert loader.bytes_delivered == 2 * batch.nbytes


def test_an_error_of_a_thread_reaches_the_reader_at_its_batch():
    def refuse(rows):
        if 7 in rows:
            raise UserError("row 7 is damaged; rebuild the cache")

    mixture = make_mixture([(0, {"text": 7})], before_read=refuse)
    bad = int(np.flatnonzero(mixture.locate(np.arange(11)).cache_row == 7)[0])
    with Loader(mixture, 1) as loader:
        for row in range(bad):
            assert next(loader).next_row == row + 1
        for _ in range(2):  # asking again does not skip the batch
            with pytest.raises(UserError, match="row 7 is damaged"):
                next(loader)
        assert loader.next_row == bad  # what a checkpoint would store: nothing was delivered


@pytest.mark.parametrize("finish", ["before the first batch", "between batches", "twice"])
def test_close_returns_while_a_read_hangs(finish):
    released, hangs = threading.Event(), threading.Event()

    def wait_forever(rows):
        if hangs.is_set():
            released.wait(PATIENCE_SECONDS)

    if finish == "before the first batch":
        hangs.set()
    loader = Loader(make_mixture(before_read=wait_forever), 4, prefetch=2, threads=2)
    if finish != "before the first batch":
        next(loader)
        hangs.set()
    closing = threading.Thread(target=lambda: [loader.close(), loader.close()])
    closing.start()
    closing.join(PATIENCE_SECONDS / 2)
    stuck = closing.is_alive()
    released.set()
    assert not stuck
    with pytest.raises(StopIteration):
        next(loader)


def test_leaving_the_loop_early_leaves_no_thread_behind():
    before = threading.active_count()
    for _ in range(5):
        take(Loader(make_mixture(), 4), 2)
    for thread in threading.enumerate():
        if thread.name.startswith("loader"):
            thread.join(PATIENCE_SECONDS)
    assert threading.active_count() <= before


# ---- evaluation


@pytest.mark.parametrize(("batch_size", "max_rows"), [(4, None), (11, None), (1, None), (64, None), (4, 6), (4, 99)])
def test_evaluation_reads_every_row_once_and_fills_up_with_weight_zero(batch_size, max_rows):
    cache = ArrayCache(2, 11)
    total = min(11, max_rows or 11)
    batches = list(evaluation_batches(cache, batch_size, task_id=2, max_rows=max_rows))
    assert len(batches) == -(-total // batch_size) and batches[-1].next_row == total
    rows = stream(batches, "rows")
    assert rows.tolist() == [*range(total), *[PADDING_ROW] * (len(rows) - total)]
    assert np.array_equal(stream(batches, "tokens")[:total], cache.read(np.arange(total)).tokens_NL)
    for name in ("tokens", "segment_ids", "positions", "loss_weights"):
        assert all(getattr(batch, name).shape == (batch_size, LENGTH) for batch in batches)
        assert not stream(batches, name)[total:].any()
    assert (stream(batches, "task_ids") == 2).all()


def test_evaluation_on_several_hosts_is_the_same_batch():
    whole = list(evaluation_batches(ArrayCache(0, 11), 8))
    parts = [list(evaluation_batches(ArrayCache(0, 11), 8, split_rows(8, host, 4))) for host in range(4)]
    for number, batch in enumerate(whole):
        assert batch_digest(*(part[number] for part in parts)) == batch_digest(batch)


def test_evaluation_may_be_left_early():
    for batch in evaluation_batches(ArrayCache(0, 11), 2):
        assert batch.next_row == 2
        break


# ---- what is refused


@pytest.mark.parametrize(
    ("batch_size", "hosts", "mend"), [(12, 8, "8 or 16"), (3, 4, "batch size of 4"), (0, 2, "batch size of 2")]
)
def test_a_batch_that_hosts_cannot_share_evenly_is_refused(batch_size, hosts, mend):
    with pytest.raises(UserError, match=mend):
        split_rows(batch_size, 0, hosts)


def test_an_empty_batch_or_a_closed_mixture_is_refused():
    with pytest.raises(UserError, match="at least 1"):
        Loader(make_mixture(), 0)
    with pytest.raises(UserError, match="cache of task 'code' is not open"):
        Loader(Mixture(make_mixture().spec), 4)


@pytest.mark.parametrize("places", [[], [4], [-1, 0], [1, 0], [1, 1]])
def test_impossible_places_are_refused(places):
    with pytest.raises(ValueError, match="ascending places"):
        Loader(make_mixture(), 4, host_rows=np.array(places, np.int64))


# ---- digests


def test_the_digest_sees_every_value():
    [batch] = take(Loader(make_mixture(), 4), 1)
    digests = {batch_digest(batch)}
    for name in ARRAYS:
        changed = getattr(batch, name).copy()
        changed.flat[-1] += 1
        digests.add(batch_digest(replace(batch, **{name: changed})))
    swapped = {name: getattr(batch, name)[[1, 0, 2, 3]] for name in ARRAYS}
    digests.add(batch_digest(replace(batch, **swapped)))
    assert len(digests) == len(ARRAYS) + 2
    assert len({digest.tobytes() for digest in row_digests(batch)}) == 4


def test_the_digest_of_parts_wants_all_of_them_and_no_contradiction():
    halves = [take(Loader(make_mixture(), 4, host_rows=split_rows(4, host, 2)), 1)[0] for host in range(2)]
    assert batch_digest(*halves, halves[0]) == batch_digest(*halves)  # two hosts may hold the same rows
    with pytest.raises(ValueError, match="2 of 4 rows"):
        batch_digest(halves[0])
    with pytest.raises(ValueError, match="differ in row 0"):
        batch_digest(*halves, replace(halves[0], tokens=halves[0].tokens + 1))
