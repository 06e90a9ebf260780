"""Every step is in metrics.jsonl exactly once, all wall time is accounted for, and rates leave pauses out."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax import metrics
from hephaestus_jax.config import ModelConfig
from hephaestus_jax.devices import Memory, memory_in_use, peak_flops
from hephaestus_jax.errors import UserError
from hephaestus_jax.metrics import MFU_CONVENTION, PARTS, Goodput, MetricsWriter, Rates, Throughput, mfu, progress_line


def lines_of(folder: Path) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (folder / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def write_steps(folder: Path, first: int, last: int, resume_step: int) -> None:
    writer = MetricsWriter(folder, tensorboard=False, resume_step=resume_step)
    for step in range(first, last + 1):
        writer.write("train", step, {"loss": 1 / step})
        if step % 3 == 0:
            writer.write("eval", step, {"loss/docs": 2.0})
    writer.close()


# ---- metrics.jsonl


def test_a_line_holds_what_was_measured(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False, resume_step=0)
    values = {"loss": np.float32(0.1), "tokens": np.int32(7), "bad": True, "mfu": None, "memory_of": "process"}
    writer.write("train", 1, values)
    assert lines_of(tmp_path) == [  # at once: nothing is held back
        {"kind": "train", "step": 1, "loss": float(np.float32(0.1)), "tokens": 7, "bad": True, "mfu": None}
        | {"memory_of": "process"}
    ]


def test_numbers_that_are_not_finite_stay_json_and_stay_told_apart(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False, resume_step=0)
    writer.write("train", 1, {"loss": float("nan"), "norm": np.float32("inf"), "low": -np.inf, "rate": 0.5})
    (line,) = lines_of(tmp_path)
    assert (line["loss"], line["norm"], line["low"], line["rate"]) == (None, None, None, 0.5)
    assert line["non_finite"] == {"loss": "nan", "norm": "inf", "low": "-inf"}


def test_what_is_no_metric_is_refused(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False, resume_step=0)
    for value in (jnp.ones(()), np.ones(3), [1.0]):
        with pytest.raises(TypeError, match="metric loss"):
            writer.write("train", 1, {"loss": value})
    for name in ("kind", "step", "non_finite"):
        with pytest.raises(ValueError, match=f"cannot be called {name}"):
            writer.write("train", 1, {name: 1.0})
    assert lines_of(tmp_path) == []


def test_a_process_that_does_not_write_touches_nothing(tmp_path):
    writer = MetricsWriter(tmp_path / "absent", tensorboard=True, resume_step=0, enabled=False)
    writer.write("train", 1, {"loss": 1.0})
    writer.flush()
    writer.close()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_step_is_written_once_however_often_the_process_dies(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    checkpoint = reached = 0
    for _ in range(data.draw(st.integers(1, 4), label="deaths")):
        reached = data.draw(st.integers(checkpoint, checkpoint + 8), label="reached")
        write_steps(folder, checkpoint + 1, reached, resume_step=checkpoint)
        path = folder / "metrics.jsonl"
        torn = data.draw(st.integers(0, 30), label="bytes torn off")
        # a checkpoint is saved after its step's line: what a kill tears is later
        checkpoint = data.draw(st.integers(checkpoint, max(checkpoint, reached - 1)), label="checkpoint")
        if reached > checkpoint + 1:
            path.write_bytes(path.read_bytes()[: -torn or None])
        path.write_bytes(path.read_bytes() + data.draw(st.sampled_from([b"", b'{"kind": "tr', b'{"step": 1}'])))
    write_steps(folder, checkpoint + 1, checkpoint + 5, resume_step=checkpoint)
    found = lines_of(folder)
    assert [line["step"] for line in found if line["kind"] == "train"] == list(range(1, checkpoint + 6))
    assert [line["step"] for line in found if line["kind"] == "eval"] == list(range(3, checkpoint + 6, 3))


def test_a_run_without_a_checkpoint_begins_its_file_anew(tmp_path, capsys):
    writer = MetricsWriter(tmp_path, tensorboard=False, resume_step=0)
    writer.write("eval", 0, {"loss": 5.0})
    writer.close()
    writer = MetricsWriter(tmp_path, tensorboard=False, resume_step=0)
    assert lines_of(tmp_path) == [] and "1 lines taken back" in capsys.readouterr().out


def test_a_file_with_nothing_to_cut_is_left_alone(tmp_path, capsys):
    write_steps(tmp_path, 1, 5, resume_step=0)
    before = (tmp_path / "metrics.jsonl").stat()
    MetricsWriter(tmp_path, tensorboard=False, resume_step=5).close()
    after = (tmp_path / "metrics.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"] and capsys.readouterr().out == ""


def test_a_full_disk_is_one_line(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    writer = MetricsWriter.__new__(MetricsWriter)
    writer._events, writer._file = None, (tmp_path / "metrics.jsonl").open("w")
    with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: No space left on device; mend that and resume"):
        writer.write("train", 1, {"loss": 1.0})
    writer.close()  # what is held back is not tried again


# ---- TensorBoard


def events_of(folder: Path) -> list:
    """(step, tag, value) of every scalar and (step, "start", None) of every session, in order of writing."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:  # length, checksum, event, checksum
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                found.append((event.step, "start", None))
            found.extend((event.step, value.tag, value.simple_value) for value in event.summary.value)
    return found


def test_tensorboard_gets_the_finite_numbers_and_a_resume_hides_what_it_repeats(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = MetricsWriter(tmp_path, tensorboard=True, resume_step=0)
    for step in (1, 2, 3):
        writer.write("train", step, {"loss": step / 2, "norm": float("nan"), "mfu": None, "of": "x"})
    writer.flush()
    assert [event for event in events_of(tmp_path) if event[1] != "start"] == [
        (step, "train/loss", step / 2) for step in (1, 2, 3)
    ]
    writer.close()
    writer = MetricsWriter(tmp_path, tensorboard=True, resume_step=2)
    writer.write("eval", 3, {"loss/docs": 7})
    writer.close()
    writer.close()  # once more does no harm
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2  # though both began within a second
    assert (3, "start", None) in events_of(tmp_path)  # TensorBoard forgets steps from 3 on that were there before
    assert events_of(tmp_path)[-1] == (3, "eval/loss/docs", 7)


def test_pytorch_is_not_imported_for_event_files(tmp_path):
    code = (
        "import sys\nfrom hephaestus_jax.metrics import MetricsWriter\n"
        "MetricsWriter(sys.argv[1], tensorboard=True, resume_step=0).close()\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_missing_tensorboard_is_said_before_anything_is_cut(tmp_path, monkeypatch):
    write_steps(tmp_path, 1, 4, resume_step=0)
    for module in ("tensorboardX", "tensorboardX.event_file_writer"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install tensorboardX.*LoggingConfig\.tensorboard"):
        MetricsWriter(tmp_path, tensorboard=True, resume_step=2)
    assert len(lines_of(tmp_path)) == 5


# ---- wall time


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_part_within_a_part_is_counted_once():
    clock = Clock()
    goodput = Goodput(clock, started=90.0)
    goodput.begin("train")
    clock.now += 60
    with goodput.part("evaluate"):
        clock.now += 5
        with goodput.part("data"):
            clock.now += 2
        clock.now += 3
    clock.now += 20
    seconds = {name: goodput.seconds(name) for name in PARTS}
    assert seconds == dict.fromkeys(PARTS, 0.0) | {"startup": 10, "train": 80, "evaluate": 8, "data": 2}
    assert goodput.share()["train"] == 0.8
    assert goodput.line() == "goodput 80.0 % of 1 min 40 s (startup 10.0 %, evaluate 8.0 %, data 2.0 %)"


def test_an_error_inside_a_part_ends_it():
    clock = Clock()
    goodput = Goodput(clock, started=100.0)
    with pytest.raises(KeyError), goodput.part("save"):
        clock.now += 1
        raise KeyError
    clock.now += 3
    assert (goodput.seconds("save"), goodput.seconds("startup")) == (1, 3)
    with pytest.raises(ValueError, match="no part of the wall time is called 'evaluation'"):
        goodput.begin("evaluation")


Tree = st.recursive(
    st.integers(0, 9), lambda inner: st.tuples(st.sampled_from(PARTS), st.lists(inner, max_size=4)), max_leaves=12
)


@given(st.lists(Tree, max_size=6))
def test_parts_sum_to_the_wall_time(work):
    clock = Clock()
    goodput = Goodput(clock, started=100.0)
    expected = dict.fromkeys(PARTS, 0)

    def do(item, running: str) -> None:
        if isinstance(item, int):
            clock.now += item
            expected[running] += item
            return
        with goodput.part(item[0]):
            for inner in item[1]:
                do(inner, item[0])

    for item in work:
        do(item, "startup")
    assert {name: goodput.seconds(name) for name in PARTS} == expected
    assert goodput.seconds() == clock.now - 100
    assert sum(goodput.share().values()) == pytest.approx(1 if clock.now > 100 else 0)


def test_startup_begins_with_the_process():
    code = (
        "import time; time.sleep(0.5); from hephaestus_jax.metrics import Goodput; print(Goodput().seconds('startup'))"
    )
    where = {**os.environ, "PYTHONPATH": str(Path(metrics.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=where, capture_output=True, text=True, check=True)
    assert float(done.stdout) >= 0.45  # the system counts in hundredths


# ---- throughput


def test_throughput_leaves_out_the_first_step_and_pauses():
    clock = Clock()
    goodput = Goodput(clock, started=0.0)
    throughput = Throughput(goodput, window=2)
    assert not throughput.started and throughput.rates() == Rates() and throughput.seconds_left(5) is None
    with goodput.part("compile"):
        clock.now += 50
    throughput.start()
    throughput.add(loss_tokens=9, tokens=10)  # the first step, reported late
    assert throughput.started and throughput.run().steps == 0
    for step in range(4):
        with goodput.part("data"):
            clock.now += 1
        clock.now += 1 + step
        throughput.add(loss_tokens=60, tokens=100)
        with goodput.part("evaluate"):
            clock.now += 30
    run, recent = throughput.run(), throughput.rates()
    assert run == Rates(4, 14.0, 400, 240, 4.0)
    assert recent == Rates(2, 9.0, 200, 120, 2.0)
    assert recent.tokens_per_second == 200 / 9 and recent.loss_tokens_per_second == 120 / 9
    assert recent.step_seconds == 4.5 and recent.stall == 2 / 9
    assert throughput.seconds_left(2) == 2 * (14 + 120) / 4  # evaluations go on
    assert goodput.seconds("startup") == 100.0 and goodput.seconds("train") == 10.0


def test_mfu_by_hand():
    model = ModelConfig("m", 1000, 64, 128, 2, 4, 2, 16)
    matmul = 2 * (64 * 16 * (4 + 4) + 64 * 16 * (2 + 2) + 3 * 64 * 128) + 1000 * 64
    flops = model.flops_per_token(256)
    assert flops == 6 * matmul + 6 * 2 * 4 * 16 * 256
    assert mfu(flops, 1e6, 8, 100e12) == pytest.approx(flops * 1e6 / 8e14)
    assert mfu(flops, 1e6, 8, None) is None
    assert "causal" in MFU_CONVENTION and "recomputation not counted" in MFU_CONVENTION


def test_progress_line():
    rates = Rates(10, 25.0, 1_000_000, 800_000, 0.5)
    assert progress_line(120, 2000, 2.34567, rates, 0.4119, 11_000.0) == (
        "step 120 of 2,000 (6.0 %), loss 2.3457 nats/token, 40,000 tokens/s, 32,000 loss tokens/s, 2.50 s/step,"
        " MFU 41.2 %, stall 2.0 %, 3 h 03 min left"
    )
    assert progress_line(1, 3, 2.0, Rates(), None, None) == "step 1 of 3 (33.3 %), loss 2.0000 nats/token"
    assert "12.5 ms/step" in progress_line(1, 3, 2.0, Rates(2, 0.025, 4, 4), None, 0.1)


# ---- devices


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("TPU v3", 61.5),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("TPU v6e", 918),
        ("TPU7x", 1153.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H20", 148),
        ("AMD Instinct MI300X", 1307.4),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10G", 70),
    ],
)
def test_known_peaks(kind, tflops):
    assert peak_flops(kind) == tflops * 1e12


@pytest.mark.parametrize(
    "kind", ["cpu", "Tesla V100-SXM2-16GB", "Tesla T4", "NVIDIA L40", "TPU v9", "", "NVIDIA A1000"]
)
def test_unknown_peaks(kind):
    assert peak_flops(kind) is None


class Device:
    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


def test_memory_is_that_of_the_fullest_device():
    one = {"bytes_in_use": 5 << 30, "peak_bytes_in_use": 6 << 30, "bytes_limit": 80 << 30}
    two = {"bytes_in_use": 4 << 30, "peak_bytes_in_use": 9 << 30, "bytes_limit": 81 << 30}
    memory = memory_in_use([Device(one), Device(two)])
    assert memory == Memory("device", 5 << 30, 9 << 30, 80 << 30)
    assert str(memory) == "5.00 GiB of 80.00 GiB in use per device, 9.00 GiB at the peak"
    assert memory_in_use([Device({"bytes_in_use": 7})]) == Memory("device", 7, 7, None)


def test_memory_of_the_process_where_devices_keep_no_account():
    before = memory_in_use([Device(None)])
    held = np.ones(64 << 20, np.uint8)
    after = memory_in_use([Device(None)])
    assert after.of == "process" and after.peak >= after.in_use and after.limit is None
    assert after.in_use - before.in_use > 48 << 20
    assert held[-1] == 1
