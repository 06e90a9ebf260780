"""Tensors of experts, slices of several processes, and exports that go on where they were killed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    MODEL,
    MODELS,
    files_of,
    import_all,
    new_config,
    old_config,
    reader,
    run_process,
    tensors,
    write_model,
)

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf import layout
from hephaestus_jax.hf.config_files import TokenIds
from hephaestus_jax.hf.export_journal import JOURNAL
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.hf.slices import byte_runs, clipped, shares

sys.path.append(str(Path(__file__).parents[1] / "parallel"))
from processes import finish, start_together

EXPERTS = MODELS["qwen3_moe"]

# ---- slices


@st.composite
def boxes_of_arrays(draw):
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))

    def part(size):
        first, last = sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))
        return range(first, last)

    boxes = tuple(tuple(part(size) for size in shape) for _ in range(draw(st.integers(0, 3))))
    return shape, boxes, draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 5, 100]))


@settings(max_examples=200, deadline=None)
@given(boxes_of_arrays())
def test_runs_hold_the_boxes_and_no_more_than_they_may(case):
    shape, boxes, itemsize, read_over = case
    wanted = np.zeros(shape, bool)
    for box in boxes:
        wanted[np.ix_(*box)] = True
    bytes_wanted = np.repeat(wanted.reshape(-1), itemsize)
    read = np.zeros_like(bytes_wanted)
    runs = byte_runs(shape, itemsize, boxes, read_over)
    for start, stop in runs:
        assert start < stop and bytes_wanted[start] and bytes_wanted[stop - 1]
        read[start:stop] = True
    assert read[bytes_wanted].all()
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(runs)]
    assert all(gap >= read_over for gap in gaps)
    if read_over == 1:
        np.testing.assert_array_equal(read, bytes_wanted)


def test_rows_of_a_box_and_shares():
    assert clipped((range(2, 9), range(3)), range(4, 6)) == (range(0, 2), range(3))
    assert len(clipped((range(2, 4),), range(6, 9))[0]) == 0
    assert [len(share) for share in shares(10, 4)] == [2, 3, 2, 3] and shares(10, 4)[3].stop == 10


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model whose rows are so long that what lies between two slices of them is more than a page."""
    model = dataclasses.replace(
        EXPERTS, vocab_size=64, embed_dim=4096, num_layers=2,
        experts=dataclasses.replace(EXPERTS.experts, num_experts=4),
    )  # fmt: skip
    values = tensors(model, ("F32",))
    return write_model(tmp_path_factory.mktemp("wide") / "model", new_config(model), values)


def test_each_of_four_processes_reads_its_slices_and_no_more(wide):
    """By the system's own count, which has the few bytes of the processes' talk in it."""
    worker = str(Path(__file__).parent / "streaming_process.py")
    for status, output, errors in finish(start_together(4, worker, str(wide), devices=2), 200):
        assert status == 0, errors
        lines = [line.split(": ") for line in output.splitlines() if line.startswith("mesh ")]
        counts = {name: [int(word) for word in words.split()[1::2]] for name, words in lines}
        whole = counts["mesh fsdp"][2]
        for read, slices, _ in counts.values():
            assert slices - 1000 <= read <= slices + 20_000
        read = {name: count[0] / (whole - 100_000) for name, count in counts.items()}  # but for norms, which all have
        assert read["mesh fsdp"] < 0.26 and read["mesh expert and tensor"] < 0.26 and read["mesh data and fsdp"] < 0.51


# ---- experts


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_come_back_byte_for_byte(name, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "CHUNK_BYTES", 200)
    model = MODELS[name]
    folder = write_model(tmp_path / "in", new_config(model), tensors(model, ("BF16", "F32", "F16")), 3)
    params = import_all(folder)
    down = params["layers"]["experts"]["down"]["kernel"]
    assert down.shape == (3, model.experts.num_experts, model.experts.mlp_dim, 24)
    export_model(tmp_path / "out", model, reader(params), keep_origin(folder, tmp_path / "origin"), progress=False)
    assert files_of(tmp_path / "out") == files_of(folder)


def test_experts_go_onto_any_mesh_and_back(tmp_path):
    """On eight devices: each shard as it must be, and the files again from the shards."""
    write_model(tmp_path / "in", new_config(EXPERTS), tensors(EXPERTS, ("BF16", "F32")), 2)
    process = run_process("sharded_process", tmp_path / "in")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert {"experts over fsdp", "experts over tensor", "layer by layer"} <= set(output.splitlines())


# ---- exports that go on


class Interrupted(Exception):
    pass


class Counting:
    """Gives parameters, and stops at one of the times it is asked."""

    def __init__(self, params, stop_at=None):
        self._read, self._stop_at, self.asked = reader(params), stop_at, []

    def __call__(self, path, index):
        if len(self.asked) == self._stop_at:
            raise Interrupted
        self.asked.append((path, index))
        return self._read(path, index)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model in five files, its parameters and its origin."""
    place = tmp_path_factory.mktemp("resumed")
    folder = write_model(place / "in", old_config(MODEL), tensors(MODEL), 5)
    (folder / "LICENSE").write_text("free")
    return folder, import_all(folder), keep_origin(folder, place / "origin")


def inodes(folder):
    """What tells a file that was kept from one that was written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.safetensors")}


def interrupted(out, exported, reads, **options):
    _, params, origin = exported
    with pytest.raises(Interrupted):
        export_model(out, MODEL, Counting(params, reads), origin, progress=False, **options)
    return out.with_name(out.name + ".unfinished")


def test_an_export_goes_on_with_the_files_that_are_whole(tmp_path, exported):
    folder, params, origin = exported
    unfinished = interrupted(tmp_path / "out", exported, 20, source="a")
    assert not (tmp_path / "out").exists()
    before, whole = inodes(unfinished), [json.loads(line)["file"] for line in journal_lines(unfinished)[1:]]
    assert len(before) == 4 and len(whole) == 3, "six tensors a file"
    damaged = unfinished / whole[1]
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    (unfinished / "stray").write_text("stray")

    read = Counting(params)
    result = export_model(tmp_path / "out", MODEL, read, origin, source="a", progress=False)
    after = inodes(tmp_path / "out")
    assert [before.get(name) == after[name] for name in sorted(after)] == [True, False, True, False, False]
    assert len(read.asked) == 18
    assert any(note.startswith("2 of 5 weight files were whole") for note in result.notes)
    assert files_of(tmp_path / "out") == files_of(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def journal_lines(unfinished):
    return unfinished.with_name(unfinished.name + JOURNAL).read_text().splitlines()


CHANGES = {
    "source": {"source": "b"},
    "dtype": {"source": "a", "dtype": "float32"},
    "no source": {},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_source_or_setting_begins_anew(change, tmp_path, exported):
    folder, params, origin = exported
    interrupted(tmp_path / "out", exported, 20, source="a")
    read = Counting(jax.tree.map(lambda leaf: -leaf, params))
    result = export_model(tmp_path / "out", MODEL, read, origin, progress=False, **CHANGES[change])
    assert len(read.asked) == 30 and any("was cleared away" in note for note in result.notes)
    assert files_of(tmp_path / "out") != files_of(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_files_without_an_origin_and_settings_of_their_sizes(tmp_path, exported):
    params = exported[1]
    options = {"dtype": "bfloat16", "ids": TokenIds(1, 2), "source": "a", "progress": False}
    with pytest.raises(Interrupted):
        export_model(tmp_path / "out", MODEL, Counting(params, 25), max_shard_bytes=9000, **options)
    again = Counting(params)
    export_model(tmp_path / "out", MODEL, again, max_shard_bytes=9000, files={"README.md": b"new"}, **options)
    assert len(again.asked) < 15 and (tmp_path / "out/README.md").read_bytes() == b"new"
    with pytest.raises(Interrupted):
        export_model(tmp_path / "other", MODEL, Counting(params, 25), max_shard_bytes=9000, **options)
    again = Counting(params)
    export_model(tmp_path / "other", MODEL, again, max_shard_bytes=20_000, **options)
    assert len(again.asked) == 30


@pytest.mark.parametrize("damage", ["cut", "cut in the middle", "nonsense", "no journal", "names", "no head"])
def test_a_damaged_journal_costs_work_and_nothing_else(damage, tmp_path, exported):
    folder, params, origin = exported
    unfinished = interrupted(tmp_path / "out", exported, 20, source="a")
    journal = unfinished.with_name(unfinished.name + JOURNAL)
    text, kept = journal.read_bytes(), 3
    if damage == "cut":
        journal.write_bytes(text[:-1])
        kept = 2
    elif damage == "cut in the middle":
        journal.write_bytes(text.replace(b'"sha256"', b'"sha', 1))
        kept = 0
    elif damage == "nonsense":
        journal.write_bytes(b"\xff\n[]\n")
        kept = 0
    elif damage == "no journal":
        journal.unlink()
        kept = 0
    elif damage == "names":
        entry = json.loads(text.splitlines()[1])
        for name in ("../in/x", "", 3, None):
            journal.write_bytes(journal.read_bytes() + json.dumps(entry | {"file": name}).encode() + b"\n")
    else:
        journal.write_bytes(text.split(b"\n", 1)[1])
        kept = 0
    read = Counting(params)
    export_model(tmp_path / "out", MODEL, read, origin, source="a", progress=False)
    assert len(read.asked) == 30 - 6 * kept
    assert files_of(tmp_path / "out") == files_of(folder)


def test_a_failure_keeps_whole_files_and_says_so(tmp_path, exported):
    folder, params, origin = exported
    spoilt = jax.tree.map(np.array, params)
    spoilt["layers"]["mlp"]["up"]["kernel"][2, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"up_proj.*NaN.*\((\d) whole files are kept, the same command goes on"):
        export_model(tmp_path / "out", MODEL, reader(spoilt), origin, source="a", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.unfinished", f"out.unfinished{JOURNAL}"]
    export_model(tmp_path / "out", MODEL, reader(params), origin, source="b", progress=False)
    assert files_of(tmp_path / "out") == files_of(folder)
    spoilt["layers"]["attention_norm"]["scale"][:] = np.nan
    with pytest.raises(UserError, match="NaN") as caught:
        export_model(tmp_path / "other", MODEL, reader(spoilt), origin, source="a", progress=False)
    assert "kept" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "no file was whole"


def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(tmp_path):
    """The real process, by SIGKILL, at moments that it does not choose; in between a whole file goes bad."""
    folder = write_model(tmp_path / "in", old_config(MODEL), tensors(MODEL), 8)
    keep_origin(folder, tmp_path / "origin")
    rng, unfinished, seen = random.Random(0), tmp_path / "out.unfinished", set()
    for attempt in range(6):
        process = run_process("export_process", tmp_path, f"slowly {rng.randrange(1 << 30)}", "source")
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 12)):
            process.stdout.readline()  # a line for every array that is read
        process.kill()
        process.communicate()
        assert not (tmp_path / "out").exists()
        whole = [json.loads(line) for line in journal_lines(unfinished)[1:] if line.endswith("}")]
        seen |= {entry["file"] for entry in whole}
        if whole and attempt == 3:
            (unfinished / whole[0]["file"]).write_bytes(bytes(whole[0]["bytes"]))
    assert len(seen) >= 2, "it came on"
    process = run_process("export_process", tmp_path, "to the end", "source")
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    process = run_process("export_process", tmp_path, "to the end", "", "other")
    assert process.communicate(timeout=60)[1] == ""
    assert files_of(tmp_path / "out") == files_of(tmp_path / "other")
    names = {"in", "origin", "out", "other"}
    assert {path.name for path in tmp_path.iterdir()} == names and os.path.isdir(tmp_path / "out")
