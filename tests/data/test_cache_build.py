"""Building for real: other processes, kills, full disks."""

import dataclasses
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from token_sources import ListSource, RandomSource, make_record, record_id, write_vocabulary

from hephaestus_jax.data import cache_build
from hephaestus_jax.data.cache import Cache, Rejection
from hephaestus_jax.data.cache_build import build_cache, cache_name
from hephaestus_jax.data.cache_units import OTHER_REASONS, REASONS, TokenTable, build_unit
from hephaestus_jax.data.task import Rejected
from hephaestus_jax.errors import UserError

LENGTH, UNIT = 64, 50


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def source(vocabulary: str) -> RandomSource:
    return RandomSource(vocabulary, records=600)


@pytest.fixture(scope="module")
def undisturbed(source: RandomSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digests(build_cache(source, tmp_path_factory.mktemp("undisturbed"), LENGTH, unit_records=UNIT).path)


def digests(cache: Path) -> dict[str, str]:
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    assert files
    return {str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start_build(
    source: RandomSource, out: Path, workers: int, before: Callable[[], None] | None = None, first: str = ""
) -> subprocess.Popen[str]:
    """A real build in a process of its own, which runs `first` before; prints the `UserError` that ends it, if any."""
    code = (
        f"import os, signal, sys\n{first}\n"
        "from token_sources import RandomSource\nfrom hephaestus_jax.errors import UserError\n"
        "from hephaestus_jax.data.cache_build import build_cache\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        f"        build_cache({source!r}, {str(out)!r}, {LENGTH}, {workers}, {UNIT})\n"
        "    except UserError as error:\n"
        "        sys.exit(f'error: {error}')\n"
    )
    script = out.parent / f"{out.name}.py"
    script.write_text(code)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    env = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, str(script)]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=before)


@pytest.mark.parametrize("workers", [2, 4])
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    source: RandomSource, undisturbed: dict[str, str], tmp_path: Path, workers: int
) -> None:
    built = build_cache(source, tmp_path, LENGTH, workers=workers, unit_records=UNIT)
    assert digests(built.path) == undisturbed
    assert os.listdir(tmp_path) == [built.path.name]


def ended(build: subprocess.Popen[str]) -> None:
    """Waits for the build alone: its workers share its standard error, which may stay open."""
    build.wait(timeout=60)
    assert build.stderr is not None
    build.stderr.close()


# What a build does, as the kernel is asked for it: the event, and the end of the path that it is about.
MOMENTS = {
    "a unit is half written": ("os.rename", ".npz"),
    "a unit is written but not counted": ("os.rename", ".json"),
    "units are laid out": ("open", "units/00000007.npz"),
    "arrays are written": ("open", "cache/tokens/zarr.json"),
    "the manifest is written": ("os.rename", "cache/manifest.json"),
}
STOP = """
import pathlib, time
def stop(event, arguments):
    if event != {event!r} or event == "open" and arguments[1] != "r":
        return
    if str(arguments[event == "os.rename"]).endswith({end!r}):
        if {end!r} == ".npz":
            os.truncate(arguments[0], os.path.getsize(arguments[0]) // 2)
        pathlib.Path({flag!r}).touch()
        time.sleep(600)
sys.addaudithook(stop)
"""


def kill(build: subprocess.Popen[str]) -> None:
    """SIGKILL; the workers are left to notice. A build that has ended was not killed."""
    build.kill()
    ended(build)
    assert build.returncode == -signal.SIGKILL


def wait_until(condition: Callable[[], bool], build: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert build.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again_it_ends_in_the_same_bytes(
    source: RandomSource, undisturbed: dict[str, str], tmp_path: Path, workers: int
) -> None:
    out, rng = tmp_path / "out", random.Random(workers)
    build = start_build(dataclasses.replace(source, pause=0.02), out, workers)  # takes much longer than it is given
    time.sleep(rng.uniform(0.3, 1.5))
    kill(build)
    for number, (event, end) in enumerate(MOMENTS.values()):
        flag = tmp_path / f"stopped {number}"
        build = start_build(source, out, workers, first=STOP.format(event=event, end=end, flag=str(flag)))
        wait_until(flag.exists, build)
        kill(build)
    final = build_cache(source, out, LENGTH, workers=workers, unit_records=UNIT).path
    assert digests(final) == undisturbed
    assert os.listdir(out) == [final.name]


@pytest.mark.parametrize("last", ["", "rename(*a); "])
def test_killed_before_and_after_the_final_rename(
    source: RandomSource, undisturbed: dict[str, str], tmp_path: Path, last: str
) -> None:
    first = f"rename = os.rename\ndef patched(*a): {last}os.kill(os.getpid(), signal.SIGKILL)\nos.rename = patched"
    build = start_build(source, tmp_path / "out", 1, first=first)
    build.communicate()
    assert build.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path / "out")) == (2 if last else 1)
    built = build_cache(source, tmp_path / "out", LENGTH, unit_records=UNIT)
    assert built.reused == bool(last) and digests(built.path) == undisturbed
    assert os.listdir(tmp_path / "out") == [built.path.name]


def test_a_resumed_build_keeps_the_finished_units(
    source: RandomSource, undisturbed: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flag = tmp_path / "killed"
    build = start_build(dataclasses.replace(source, kill_at=320, flag=str(flag)), tmp_path / "out", workers=1)
    build.communicate()
    assert build.returncode == -signal.SIGKILL
    built = build_cache(source, tmp_path / "out", LENGTH, unit_records=UNIT)
    assert "6 of 12 units done" in capsys.readouterr().err
    assert digests(built.path) == undisturbed


def test_a_killed_worker_is_one_line_and_the_next_build_goes_on(
    source: RandomSource, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    doomed = dataclasses.replace(source, kill_at=320, flag=str(tmp_path / "killed"))
    with pytest.raises(UserError, match=r"a worker was killed .* run again to resume") as caught:
        build_cache(doomed, tmp_path / "out", LENGTH, workers=2, unit_records=UNIT)
    assert "\n" not in str(caught.value)
    assert digests(build_cache(doomed, tmp_path / "out", LENGTH, workers=2, unit_records=UNIT).path) == undisturbed


def test_workers_do_not_outlive_a_killed_build(source: RandomSource, tmp_path: Path) -> None:
    build = start_build(dataclasses.replace(source, pause=0.05), tmp_path / "out", workers=2)

    def children() -> list[str]:
        return Path(f"/proc/{build.pid}/task/{build.pid}/children").read_text().split()

    wait_until(lambda: len(children()) >= 3, build)  # two workers, and what cleans up after them
    workers = children()
    build.kill()
    ended(build)
    deadline = time.monotonic() + 60
    while any(running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in workers if running(pid)]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert not left


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("limit", [3_000, 40_000])  # bytes: stops at the first unit, and at the arrays
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    source: RandomSource, undisturbed: dict[str, str], tmp_path: Path, limit: int, workers: int
) -> None:
    """A limit on file sizes stands in for the full disk: it fails the same calls, with EFBIG for ENOSPC."""
    limited = start_build(
        source, tmp_path / "out", workers, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    _, errors = limited.communicate()
    assert limited.returncode == 1
    assert errors.count("error: cannot write") == 1 and "Traceback" not in errors
    assert errors.splitlines()[-1].endswith("mend that and run again to resume"), errors
    assert [name.endswith(".partial") for name in os.listdir(tmp_path / "out")] == [True]
    assert not list((tmp_path / "out").rglob("*/manifest.json"))
    assert not list((tmp_path / "out").rglob("units/*.partial"))
    assert digests(build_cache(source, tmp_path / "out", LENGTH, unit_records=UNIT).path) == undisturbed


@pytest.mark.parametrize("kilobytes", [64, 400])  # stops among the units, and at the arrays
def test_a_full_file_system(source: RandomSource, undisturbed: dict[str, str], tmp_path: Path, kilobytes: int) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(UserError, match="cannot write .*: No space left on device; mend that") as caught:
            build_cache(source, small, LENGTH, unit_records=UNIT)
        assert "\n" not in str(caught.value)
        assert [name.endswith(".partial") for name in os.listdir(small)] == [True]
        subprocess.run(["mount", "-o", "remount,size=16m", str(small)], check=True)
        assert digests(build_cache(source, small, LENGTH, unit_records=UNIT).path) == undisturbed
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_finished_cache_is_used_again(source: RandomSource, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = build_cache(source, tmp_path, LENGTH, unit_records=UNIT)
    modified = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    again = build_cache(source, tmp_path, LENGTH, unit_records=UNIT, workers=3)
    assert (first.reused, again.reused) == (False, True) and again.manifest == first.manifest
    assert "is already built" in capsys.readouterr().err
    assert modified == {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    with pytest.raises(UserError, match="units of 50 records, not .* and 51; delete it"):
        build_cache(source, tmp_path, LENGTH, unit_records=51)
    (first.path / "tokens" / "c" / "0" / "0").unlink()
    with pytest.raises(UserError, match="is incomplete"):
        build_cache(source, tmp_path, LENGTH, unit_records=UNIT)


def test_other_records_lengths_and_splits_have_other_names(source: RandomSource, tmp_path: Path) -> None:
    others = [dataclasses.replace(source, seed=1), dataclasses.replace(source, split="validation"), source]
    names = {build_cache(other, tmp_path, length, unit_records=300).path for other in others for length in (32, 64)}
    assert len(names) == 6


def test_units_of_another_plan_are_discarded_with_the_reason(
    source: RandomSource, undisturbed: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    partial = tmp_path / (cache_name(source, LENGTH, source.fingerprint()) + ".partial")
    doomed = start_build(dataclasses.replace(source, kill_at=320, flag=str(tmp_path / "flag")), tmp_path, workers=1)
    doomed.communicate()
    plan = partial / "plan.json"
    plan.write_text(plan.read_text().replace('"unit_records": 50', '"unit_records": 49'))
    built = build_cache(source, tmp_path, LENGTH, unit_records=UNIT)
    errors = capsys.readouterr().err
    assert "discarding the unfinished" in errors and "unit_records was 49, is 50" in errors
    assert digests(built.path) == undisturbed


def test_an_unfinished_build_of_other_records_is_left_alone_and_named(
    source: RandomSource, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / (cache_name(source, LENGTH, "0" * 32) + ".partial")
    elsewhere = tmp_path / (cache_name(source, LENGTH + 1, "0" * 32) + ".partial")
    other.mkdir()
    elsewhere.mkdir()
    build_cache(source, tmp_path, LENGTH, unit_records=UNIT)
    errors = capsys.readouterr().err
    assert f"not resuming {other}: its fingerprint" in errors and str(elsewhere) not in errors
    assert other.exists() and elsewhere.exists()


def test_two_builds_of_one_cache_at_once_are_refused(source: RandomSource, tmp_path: Path) -> None:
    partial = tmp_path / (cache_name(source, LENGTH, source.fingerprint()) + ".partial")
    with (
        cache_build._locked(partial),
        pytest.raises(UserError, match="another process is building"),
    ):
        build_cache(source, tmp_path, LENGTH, unit_records=UNIT)
    assert not build_cache(source, tmp_path, LENGTH, unit_records=UNIT).reused


def test_counts_of_each_kind_of_record(vocabulary: str, tmp_path: Path) -> None:
    items = (
        make_record([0, 0, 0], [1, 1, 1], number=0),
        make_record([], [], number=1),
        make_record([5], [1], number=2),
        make_record([5, 6], [1, 0], number=3),
        make_record(range(20), [0] + [1] * 19, carry=4, number=4),
        Rejected(record_id(5), "no form"),
        Rejected(record_id(6), "no form"),
        make_record(range(8), [0] + [1] * 7, carry=2, number=7, origin="b"),
    )
    manifest = build_cache(ListSource(items, vocabulary), tmp_path, 8, unit_records=3).manifest
    assert dataclasses.asdict(manifest.counters) == {
        "empty_records": 1,
        "unweighted_records": 2,
        "unweighted_tokens": 3,
        "unpredicted_tokens": 3,
        "continued_records": 1,
        "carry_cut_records": 1,
        "repeated_tokens": 9,  # three continuations of the record of 20: 5 new tokens each after 8
        "rejected_records": 2,
    }
    assert manifest.rejections == (Rejection("no form", 2, (record_id(5), record_id(6))),)
    assert (manifest.records, manifest.segments, manifest.tokens) == (8, 6, 3 + 20 + 9 + 8)
    assert manifest.loss_weight == manifest.loss_tokens == 2 + 19 + 7
    assert [origin.source for origin in manifest.origins] == ["a", "b"]
    assert manifest.dtypes["loss_weights"] == "uint8"


def test_many_reasons_of_rejection_are_counted_together(vocabulary: str) -> None:
    items = [Rejected(record_id(n), f"line {n} is bad") for n in range(80)]
    source = ListSource((*items, make_record([1, 2], [1, 1], number=99)), vocabulary)
    rejections = build_unit(source, 0, 81, 8, TokenTable.load(vocabulary)).summary.rejections
    assert sum(rejection.records for rejection in rejections) == 80
    assert len(rejections) == REASONS + 1 and rejections[-1].reason == OTHER_REASONS
    assert all(len(rejection.examples) <= 3 for rejection in rejections)


@pytest.mark.parametrize(
    ("tokens", "weights", "message"),
    [
        ([1, 300], [0, 1], "token id 300 is outside vocabulary tokenizer.json of 300 ids"),
        ([1, -1], [0, 1], "token id -1 is outside"),
        ([1, 2], [0, -1], "loss weight -1.0 is negative or not finite"),
        ([1, 2], [0, float("nan")], "loss weight nan is negative or not finite"),
        ([1, 2], [0, float("inf")], "loss weight inf is negative or not finite"),
    ],
)
def test_what_no_cache_can_hold(vocabulary: str, tmp_path: Path, tokens: list, weights: list, message: str) -> None:
    items = (make_record([1, 2, 3], [1, 1, 1]), make_record(tokens, weights, number=1), make_record([4] * 9, [1] * 9))
    with pytest.raises(UserError, match=f"task listed, record {record_id(1)}: {message}"):
        build_cache(ListSource(items, vocabulary), tmp_path, 8)


def test_bad_sources_and_settings(vocabulary: str, source: RandomSource, tmp_path: Path) -> None:
    one = make_record([1, 2], [1, 1])
    with pytest.raises(UserError, match="records 0 to 4 were asked for and 1 came"):
        build_cache(ListSource((one,), vocabulary, stated_count=5), tmp_path, 8)
    with pytest.raises(UserError, match="32 hexadecimal digits"):
        build_cache(ListSource((dataclasses.replace(one, record_id="12"),), vocabulary), tmp_path, 8)
    with pytest.raises(UserError, match=r"none of its 2 records has a token to learn \(1 rejected, 0 empty, 1 without"):
        build_cache(ListSource((make_record([1], [1]), Rejected(record_id(1), "why")), vocabulary), tmp_path, 8)
    with pytest.raises(UserError, match="none of its 0 records"):
        build_cache(ListSource((), vocabulary), tmp_path, 8)
    with pytest.raises(UserError, match="sequence length 1 is too short"):
        build_cache(source, tmp_path, 1)
    with pytest.raises(UserError, match="at least 1"):
        build_cache(source, tmp_path, 8, workers=0)
    with pytest.raises(UserError, match="built on local disk, not at gs://bucket/x"):
        build_cache(source, "gs://bucket/x", 8)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        build_cache(source, tmp_path / "file" / "below", 8)
    with pytest.raises(UserError, match="no vocabulary at"):
        build_cache(dataclasses.replace(source, vocabulary=str(tmp_path / "none")), tmp_path, 8)


def test_an_error_of_the_source_crosses_from_the_worker(source: RandomSource, tmp_path: Path) -> None:
    """`stop` beyond the records raises in RandomSource's stead: a ListSource that states too many."""
    items = tuple(make_record([1, 2], [1, 1], number=n) for n in range(4))
    with pytest.raises(UserError, match="records 4 to 5 were asked for and 0 came"):
        build_cache(ListSource(items, source.vocabulary, stated_count=6), tmp_path, 8, workers=2, unit_records=2)
    assert not multiprocessing.active_children()


def test_ids_beyond_16_bits(tmp_path: Path) -> None:
    large = write_vocabulary(tmp_path / "vocabulary", extra=65_300)
    items = (make_record([0, 65_535, 65_536, 65_555], [1, 1, 1, 1]),)
    built = build_cache(ListSource(items, large), tmp_path / "out", 8)
    assert built.manifest.dtypes["tokens"] == "uint32"
    assert Cache.open(str(built.path)).read([0]).tokens_NL.tolist() == [[0, 65_535, 65_536, 65_555, 0, 0, 0, 0]]


def test_shards_of_a_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: RandomSource) -> None:
    """Assembling in shards of a few rows, whose borders are not those of units, changes no row."""
    monkeypatch.setattr(cache_build, "SHARD_TOKENS", 7 * LENGTH)
    monkeypatch.setattr(cache_build, "SEGMENTS_PER_SHARD", 64)
    monkeypatch.setattr(cache_build, "SEGMENTS_PER_CHUNK", 8)
    small = Cache.open(str(build_cache(source, tmp_path / "small", LENGTH, unit_records=UNIT).path))
    monkeypatch.undo()
    whole = Cache.open(str(build_cache(source, tmp_path / "whole", LENGTH, unit_records=UNIT).path))
    assert len([name for name in small.files if name.startswith("tokens/c/")]) == -(-len(whole) // 7) > 10
    everything = range(len(whole))
    one, other = small.read(everything), whole.read(everything)  # type: ignore[arg-type]
    for field in dataclasses.fields(one):
        assert (getattr(one, field.name) == getattr(other, field.name)).all()
    assert [small.segments(row) for row in everything] == [whole.segments(row) for row in everything]
    small.verify()
