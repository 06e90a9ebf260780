"""Row i of a run is a pure function: exact counts, whole epochs, stable prefixes. And every refusal names its mend."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.mixture import Mixture, quantise
from hephaestus_jax.data.mixture_spec import (
    MixtureSpec,
    Stage,
    TaskCache,
    check_extension,
    load_mixture_spec,
    mixture_spec_from_json,
    resolve,
    save_mixture_spec,
)
from hephaestus_jax.data.permutation import derive_key, permute
from hephaestus_jax.errors import UserError

VOCABULARY = VocabularyIdentity("tiny", "v" * 32, 300)
NAMES = ("agent", "code", "docs", "text")

GOLDEN_TASK = [1, 2, 2, 0, 2, 1, 1, 1, 2, 0, 1, 1, 0, 0, 1, 1]
GOLDEN_EPOCH = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
GOLDEN_ROW = [0, 4, 0, 2, 3, 7, 4, 3, 8, 1, 2, 1, 0, 2, 8, 5]


def make_spec(rows, stages, seed=0, **changes):
    """A mixture with `rows[task]` cache rows and stages [(first row, rates)]."""
    tasks = {name: TaskCache(f"caches/{name}", count, name * 4) for name, count in rows.items()}
    first_rates = stages[0][1]
    fields = dict(
        name="test",
        seed=seed,
        denominator=sum(first_rates.values()),
        sequence_length=64,
        vocabulary=VOCABULARY,
        tasks=tasks,
        stages=tuple(Stage(first, rates) for first, rates in stages),
    )
    return MixtureSpec(**{**fields, **changes})


@st.composite
def specs(draw):
    """Mixtures of one to four tasks, small caches (many epochs), one to four stages that begin anywhere."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    rows = {name: draw(st.integers(1, 40)) for name in names}
    denominator = draw(st.integers(len(names), 30))
    boundaries = draw(st.lists(st.integers(1, 200), max_size=3, unique=True))
    stages = []
    for first_row in [0, *sorted(boundaries)]:
        members = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        inside = st.integers(1, max(1, denominator - 1))
        cuts = sorted(draw(st.sets(inside, min_size=len(members) - 1, max_size=len(members) - 1)))
        parts = np.diff([0, *cuts, denominator]).tolist()
        stages.append((first_row, dict(zip(members, parts, strict=True))))
    return make_spec(rows, stages, seed=draw(st.integers(-5, 2**64)))


@functools.cache
def whole_permutation(size, key):
    return permute(np.arange(size), size, key).tolist()


def brute_force(spec, total):
    """The first `total` rows one after the other, as the definition says: (task, epoch, cache row) each."""
    names = sorted(spec.tasks)
    cursors = dict.fromkeys(names, 0)
    found = []
    for row in range(total):
        stage = [stage for stage in spec.stages if stage.first_row <= row][-1]
        block, slot = divmod(row - stage.first_row, spec.denominator)
        tickets = [name for name in names for _ in range(stage.rates.get(name, 0))]
        key = derive_key("block", spec.seed, stage.first_row, block)
        task = tickets[whole_permutation(spec.denominator, key)[slot]]
        epoch, within = divmod(cursors[task], spec.tasks[task].rows)
        key = derive_key("epoch", spec.seed, task, epoch)
        found.append((task, epoch, whole_permutation(spec.tasks[task].rows, key)[within]))
        cursors[task] += 1
    return found


def located(mixture, rows):
    """(task, epoch, cache row) of each row."""
    where = mixture.locate(np.asarray(rows))
    names = [mixture.task_names[task] for task in where.task]
    return list(zip(names, where.epoch.tolist(), where.cache_row.tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(spec=specs(), data=st.data())
def test_locate_and_counts_equal_brute_force(spec, data):
    total = 260
    expected = brute_force(spec, total)
    mixture = Mixture(spec)
    assert located(mixture, np.arange(total)) == expected
    some = data.draw(st.lists(st.integers(0, total - 1), max_size=30))
    assert located(mixture, np.array(some, np.int64)) == [expected[row] for row in some]
    for row in [*some, 0, total]:
        tasks = [task for task, _, _ in expected[:row]]
        assert mixture.counts(row).tolist() == [tasks.count(name) for name in mixture.task_names]


@settings(deadline=None, max_examples=40)
@given(spec=specs(), cut=st.integers(1, 400), data=st.data())
def test_a_later_stage_changes_no_earlier_row_and_takes_over_the_cursors(spec, cut, data):
    cut = max(cut, spec.stages[-1].first_row + 1)
    name = data.draw(st.sampled_from(sorted(spec.tasks)))
    extended = spec.with_stage(cut, {name: spec.denominator})
    before, after = Mixture(spec), Mixture(extended)
    assert located(before, np.arange(cut)) == located(after, np.arange(cut))
    check_extension(spec, extended, cut)
    # whatever the stages, the rows of every epoch but the last come exactly once each, and the last one's at most once
    taken = {}
    for task, epoch, cache_row in located(after, np.arange(cut + 3 * spec.denominator)):
        taken.setdefault((task, epoch), []).append(cache_row)
    for (task, epoch), rows in taken.items():
        assert len(set(rows)) == len(rows)
        if (task, epoch + 1) in taken:
            assert sorted(rows) == list(range(spec.tasks[task].rows))


@settings(deadline=None, max_examples=30)
@given(spec=specs(), block=st.integers(0, 10**12))
def test_every_whole_block_holds_exactly_its_rates(spec, block):
    mixture = Mixture(spec)
    stage = spec.stages[-1]
    first = stage.first_row + block * spec.denominator
    rates = [stage.rates.get(name, 0) for name in mixture.task_names]
    assert (mixture.counts(first + spec.denominator) - mixture.counts(first)).tolist() == rates
    tasks = mixture.locate(np.arange(first, first + spec.denominator)).task
    assert np.bincount(tasks, minlength=len(rates)).tolist() == rates
    for row in (first + 1, first + spec.denominator // 2):
        assert (mixture.counts(row) >= 0).all() and mixture.counts(row).sum() == row


def test_a_rate_of_one_in_a_thousand():
    mixture = Mixture(make_spec({"code": 500, "docs": 3}, [(0, {"code": 999, "docs": 1})]))
    where = mixture.locate(np.arange(20_000))
    docs = np.flatnonzero(where.task == 1)
    assert (docs // 1000).tolist() == list(range(20))
    assert len(set((docs % 1000).tolist())) > 10  # not always at the same place
    for epoch in range(6):
        assert sorted(where.cache_row[docs][3 * epoch : 3 * epoch + 3].tolist()) == [0, 1, 2]
        assert (where.epoch[docs][3 * epoch : 3 * epoch + 3] == epoch).all()


@pytest.mark.parametrize("denominator", [1, 7, 5000])
def test_a_single_task_runs_through_its_cache_in_a_new_order_every_epoch(denominator):
    mixture = Mixture(make_spec({"text": 101}, [(0, {"text": denominator})]))
    where = mixture.locate(np.arange(404))
    orders = where.cache_row.reshape(4, 101)
    assert (np.sort(orders, axis=1) == np.arange(101)).all()
    assert len({tuple(order) for order in orders.tolist()}) == 4
    assert (where.epoch == np.repeat(np.arange(4), 101)).all() and (where.task == 0).all()


def test_the_seed_changes_both_orders():
    spec = make_spec({"code": 50, "text": 50}, [(0, {"code": 5, "text": 5})])
    first = Mixture(spec).locate(np.arange(100))
    second = Mixture(dataclasses.replace(spec, seed=1)).locate(np.arange(100))
    assert (first.task != second.task).any() and (first.cache_row != second.cache_row).any()


def test_golden_rows():
    # These must never change: a run that resumes under a newer version must see the rows it would have seen.
    rows = {"agent": 3, "code": 10, "text": 10}
    spec = make_spec(rows, [(0, {"agent": 1, "code": 2, "text": 3}), (9, {"agent": 3, "code": 3})])
    where = Mixture(spec).locate(np.arange(16))
    assert where.task.tolist() == GOLDEN_TASK
    assert where.epoch.tolist() == GOLDEN_EPOCH
    assert where.cache_row.tolist() == GOLDEN_ROW


def test_far_rows_and_a_large_denominator_cost_nothing_special():
    rates = {"code": 700_000, "text": 300_000}
    mixture = Mixture(make_spec({"code": 10**9, "text": 7}, [(0, rates)]))
    rows = np.array([0, 10**6 - 1, 10**15, 10**15 + 1])
    where = mixture.locate(rows)
    assert (where.cache_row >= 0).all() and (where.cache_row < np.array([10**9, 7])[where.task]).all()
    assert mixture.counts(10**15).tolist() == [7 * 10**14, 3 * 10**14]


def test_tiny_blocks_far_apart():
    mixture = Mixture(make_spec({"code": 5, "text": 6}, [(0, {"code": 1, "text": 1})]))
    rows = np.arange(0, 10**9, 10**8 // 3)
    assert located(mixture, rows) == [located(mixture, [row])[0] for row in rows]


@pytest.mark.parametrize("rows", [[-1], [[1, 2]], [0.5]])
def test_what_is_no_row_number_is_refused(rows):
    mixture = Mixture(make_spec({"code": 5}, [(0, {"code": 1})]))
    with pytest.raises(ValueError, match="row"):
        mixture.locate(np.array(rows))
    with pytest.raises(ValueError, match="negative"):
        mixture.counts(-1)


# ---- rates


@settings(deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 1000), min_size=1, max_size=6),
    denominator=st.integers(1, 5000),
)
def test_quantise_is_exact_in_sum_and_within_one_of_the_proportion(weights, denominator):
    rates = {f"task{number}": weight for number, weight in enumerate(weights)}
    try:
        whole = quantise(rates, denominator)
    except UserError as error:
        assert "denominator of at least" in str(error)
        enough = int(str(error).rsplit(" ", 1)[1])
        assert enough > denominator and min(quantise(rates, enough).values()) >= 1
        return
    assert list(whole) == list(rates) and sum(whole.values()) == denominator
    for name, rate in rates.items():
        assert whole[name] >= 1 and abs(whole[name] - rate / sum(weights) * denominator) < 1 + 1e-6


def test_quantise_by_largest_remainder():
    assert quantise({"a": 1, "b": 1, "c": 1}, 3000) == {"a": 1000, "b": 1000, "c": 1000}
    assert quantise({"b": 1, "a": 1}, 3) == {"b": 1, "a": 2}  # a tie: alphabetical, not by order of mention
    assert quantise({"a": 0.999, "b": 0.001}, 1000) == {"a": 999, "b": 1}
    assert quantise({"a": 0.29, "b": 0.71}, 100) == {"a": 29, "b": 71}  # 0.29 * 100 is 28.999… as a float


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"a": 1.0, "b": 0.0}, "rate of 'b' is 0.0"),
        ({"a": 1.0, "b": float("nan")}, "rate of 'b' is nan"),
        ({"a": -1.0}, "rate of 'a' is -1.0"),
        ({"a": float("inf")}, "rate of 'a' is inf"),
        ({}, "no tasks"),
        ({"a": 1.0, "b": 1e-4}, "'b' with 0.01 % of the mixture rounds to 0 of 1000 rows; use a denominator of at"),
    ],
)
def test_quantise_refuses(rates, message):
    with pytest.raises(UserError, match=message):
        quantise(rates, 1000)
    with pytest.raises(UserError, match="denominator 0"):
        quantise({"a": 1.0}, 0)


# ---- the table before the run


def test_epochs_and_their_table():
    spec = make_spec({"code": 1000, "text": 50}, [(0, {"code": 3, "text": 1}), (400, {"text": 4})])
    mixture = Mixture(spec)
    code, text = mixture.epochs(500)
    assert (code.rows, code.epochs, code.tokens) == (300, 0.3, 300 * 64)
    assert (text.rows, text.epochs, text.share) == (200, 4.0, 0.4)
    table = mixture.describe(500).splitlines()
    assert " ".join(table[0].split()) == "task rows in cache share of rows rows used epochs tokens with padding"
    assert table[2].split() == ["text", "50", "40.00", "%", "200", "4.000", "12,800"]
    assert table[3].split() == ["total", "1,050", "500", "32,000"]
    assert mixture.describe(0)


# ---- what a mixture refuses to be


def valid():
    return make_spec({"code": 10, "text": 20}, [(0, {"code": 3, "text": 1}), (400, {"text": 4})])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": (Stage(0, {"code": 3, "texts": 1}),)}, "unknown task 'texts'; .* for code, text"),
        (
            {"stages": (Stage(0, {"code": 4}), Stage(8, {"code": 4}), Stage(8, {"text": 4}))},
            "two stages begin at row 8",
        ),
        ({"stages": (Stage(0, {"code": 4}), Stage(8, {"code": 4}), Stage(5, {"text": 4}))}, "too early, at row 5"),
        ({"stages": (Stage(3, {"code": 4}),)}, "must begin at row 0"),
        ({"stages": (Stage(0, {"code": 3}),)}, "sum to 3, not to the denominator 4"),
        ({"stages": ()}, "no stages"),
        ({"tasks": {}}, "no tasks"),
        ({"tasks": {"code": TaskCache("c", 0, "d"), "text": TaskCache("c", 1, "d")}}, "'code' has no rows"),
        ({"denominator": 0}, "denominator is 0"),
        ({"denominator": 1 << 21}, "coarser"),
        ({"sequence_length": 0}, "sequence_length is 0"),
        ({"seed": "7"}, "seed is '7'; it must be an integer"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(valid(), **changes)


@pytest.mark.parametrize("rates", [{}, {"code": 0, "text": 4}, {"code": -1, "text": 5}, {"code": 1.5, "text": 2.5}])
def test_a_stage_takes_positive_integers_only(rates):
    with pytest.raises(UserError, match="rate"):
        Stage(0, rates)


def test_json_round_trip(tmp_path):
    spec = dataclasses.replace(valid(), validation={"code": TaskCache("caches/v", 2, "x")})
    assert mixture_spec_from_json(json.loads(json.dumps(spec.to_json())), "here") == spec
    for url in (str(tmp_path / "out"), str(tmp_path / "other" / "mine.json"), "memory://test_mixture/round"):
        save_mixture_spec(url, spec)
        assert load_mixture_spec(url) == spec


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda value: value.update(format=2), "has format 2, this version reads 1"),
        (lambda value: value.pop("seed"), "'seed'"),
        (lambda value: value.update(colour="red"), "'colour'"),
        (lambda value: value["tasks"]["code"].pop("rows"), "'rows'"),
        (lambda value: value.update(stages=3), "no mixture"),
        (lambda value: value.update(tasks=[1]), "no mixture"),
    ],
)
def test_damaged_json_is_refused_in_one_line(damage, message):
    value = valid().to_json()
    value = json.loads(json.dumps(value))
    damage(value)
    with pytest.raises(UserError, match=message) as caught:
        mixture_spec_from_json(value, "folder/mixture.json")
    assert "folder/mixture.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no mixture at .*nowhere/mixture\.json: build one with"):
        load_mixture_spec(str(tmp_path / "nowhere"))
    (tmp_path / "mixture.json").write_text("{not json")
    with pytest.raises(UserError, match=r"mixture\.json is damaged"):
        load_mixture_spec(str(tmp_path))


def test_caches_lie_beside_their_mixture(tmp_path):
    assert resolve("gs://bucket/runs/mixture.json", "caches/a") == "gs://bucket/runs/caches/a"
    assert resolve("gs://bucket/runs", "caches/a") == "gs://bucket/runs/caches/a"
    assert resolve(str(tmp_path), "caches/a") == str(tmp_path / "caches" / "a")
    assert resolve("gs://bucket/runs", "/abs/a") == "/abs/a"
    assert resolve("/runs/mixture.json", "memory://b/a") == "memory://b/a"


# ---- extending a mixture that a run has begun to consume


def test_unconsumed_parts_may_change():
    old = valid()
    later = dataclasses.replace(old, stages=(old.stages[0], Stage(300, {"text": 4})))
    check_extension(old, later, 300)
    check_extension(old, old.with_stage(900, {"code": 4}), 900)
    check_extension(old, dataclasses.replace(old, stages=old.stages[:1]), 400)
    new_task = {**old.tasks, "agent": TaskCache("caches/agent", 5, "new")}
    check_extension(old, dataclasses.replace(old, tasks=new_task), 10_000)
    moved = {name: dataclasses.replace(part, cache=f"gs://b/{name}") for name, part in old.tasks.items()}
    check_extension(old, dataclasses.replace(old, tasks=moved, name="renamed"), 10_000)
    check_extension(old, dataclasses.replace(old, seed=9, denominator=4), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed changed from 0 to 1"),
        ({"sequence_length": 128}, "sequence_length changed from 64 to 128"),
        ({"vocabulary": dataclasses.replace(VOCABULARY, digest="w")}, "vocabulary digest changed"),
        ({"vocabulary": dataclasses.replace(VOCABULARY, size=301)}, "vocabulary size changed from 300 to 301"),
        ({"stages": (Stage(0, {"code": 2, "text": 2}),)}, "rates of stage 0 changed"),
        ({"stages": (Stage(0, {"code": 3, "text": 1}), Stage(299, {"text": 4}))}, "number of stages before row 300"),
        (
            {"tasks": {"code": TaskCache("c", 11, "codecodecodecode"), "text": valid().tasks["text"]}},
            "rows of task 'code'",
        ),
        ({"tasks": {"code": TaskCache("c", 10, "x"), "text": valid().tasks["text"]}}, "cache digest of task 'code'"),
    ],
)
def test_a_change_of_consumed_rows_is_refused(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        check_extension(valid(), dataclasses.replace(valid(), **changes), 300)
    assert "begin a new run" in str(caught.value)


def test_a_consumed_task_that_is_gone_is_refused():
    old = make_spec({"code": 10, "text": 20}, [(0, {"code": 4}), (400, {"text": 4})])
    changed = make_spec({"code": 10, "text": 20}, [(0, {"code": 4}), (8, {"text": 4})])
    with pytest.raises(UserError, match="number of stages"):
        check_extension(old, changed, 9)
    with pytest.raises(UserError, match="first_row of stage 1 changed from 400 to 8"):
        check_extension(old, changed, 401)
    check_extension(old, changed, 8)


@pytest.mark.parametrize("change", [{"cache": 5}, {"digest": None}, {"rows": 3.0}, {"rows": -1}])
def test_a_cache_entry_of_another_type_is_one_line(change):
    with pytest.raises(UserError, match=f"{next(iter(change))} is .*must be"):
        TaskCache(**{"cache": "caches/code", "rows": 3, "digest": "x", **change})
