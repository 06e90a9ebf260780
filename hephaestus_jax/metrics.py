"""What a run measures of itself, and where it writes it.

    goodput = Goodput()                        from the start of the process: where the wall time went
    throughput = Throughput(goodput)           tokens per second, pauses and compilation left out
    writer = MetricsWriter(folder, ...)        metrics.jsonl and TensorBoard, every step exactly once

Steps are counted as done: what a line says of step n was known after the n-th step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import numbers
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import duration

Kind = Literal["train", "eval", "run"]
Value = float | int | str | None

METRICS, EVENTS = "metrics.jsonl", "tensorboard"
EVENTS_FLUSH_SECONDS = 30

MFU_CONVENTION = (
    "MFU = FLOPs per token × tokens/s / (devices × dense bf16 peak); FLOPs per token = 6 × matmul weights (output"
    " projection included, embedding look-up not; 4 × those that adapters leave as they are) + 12 × layers × heads ×"
    " head size × keys seen on average (causal attention: half the row, fewer under a window); recomputation not"
    " counted, padding counted as tokens"
)


class MetricsWriter:
    """Appends to `metrics.jsonl`, one JSON object per line, and to TensorBoard's event files.

    A line holds `kind`, `step` and the values by name. It is strict JSON: a number that is not finite is written as
    null, and its name and spelling are added under `non_finite`, as in {"loss": null, "non_finite": {"loss": "nan"}}.
    TensorBoard gets the finite numbers, as scalars called KIND/NAME.

    Args:
        folder: the run directory.
        tensorboard: whether event files are written, in the folder `tensorboard`.
        resume_step: steps done when this process begins. Lines of later steps were left by a process that went further
            than the checkpoint; they are cut off, with a last line that a kill tore, and will be written again. At 0
            nothing was done yet: the file begins anew.
        enabled: false in all processes but one; nothing is touched then.

    Raises:
        UserError: `tensorboardX` is not installed.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, tensorboard: bool, resume_step: int, enabled: bool = True) -> None:
        self._file: TextIO | None = None
        self._events: _Events | None = None
        if not enabled:
            return
        last_step = resume_step if resume_step > 0 else -1
        if tensorboard:
            self._events = _Events(Path(folder) / EVENTS, last_step)
        path = Path(folder) / METRICS
        cut_after(path, last_step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by `close`

    def write(self, kind: Kind, step: int, values: Mapping[str, Value]) -> None:
        """Writes one line; the operating system has it on return, so that killing the process does not lose it.

        Raises:
            UserError: the disk is full.
            TypeError: a value is no number on the host, string or None.
            ValueError: a value has a name that the line itself needs.
        """
        if self._file is None:
            return
        if taken := values.keys() & {"kind", "step", "non_finite"}:
            raise ValueError(f"a metric cannot be called {', '.join(sorted(taken))}")
        plain = {name: _plain(name, value) for name, value in values.items()}
        strict, non_finite = {}, {}
        for name, value in plain.items():
            finite = not isinstance(value, float) or math.isfinite(value)
            strict[name] = value if finite else None
            if not finite:
                non_finite[name] = str(value)
        line = {"kind": kind, "step": int(step), **strict, **({"non_finite": non_finite} if non_finite else {})}
        try:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            if self._events is not None:
                scalars = {f"{kind}/{name}": value for name, value in strict.items() if isinstance(value, int | float)}
                self._events.write(int(step), scalars)
        except OSError as error:
            raise UserError(f"cannot write {self._file.name}: {error.strerror}; mend that and resume") from error

    def flush(self) -> None:
        """Puts everything on disk. Call it before a checkpoint is saved: a resume relies on the lines before it.

        Raises:
            UserError: the disk is full.
        """
        if self._file is None:
            return
        try:
            os.fsync(self._file.fileno())
            if self._events is not None:
                self._events.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._file.name}: {error.strerror}; mend that and resume") from error

    def close(self) -> None:
        """Closes the files; more than once does no harm."""
        for file in (self._file, self._events):
            with contextlib.suppress(OSError):  # a full disk was reported when it was written to
                if file is not None:
                    file.close()
        self._file = self._events = None


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Keeps tensorboardX from importing PyTorch, which it does for one type check and which takes over a second."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


class _Events:
    """One event file of TensorBoard, written at once and in this thread.

    tensorboardX's own `SummaryWriter` hands events to a thread; a full disk ends that thread, and then the run hangs.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        try:
            with _without_torch():
                from tensorboardX.event_file_writer import EventsWriter
                from tensorboardX.proto.event_pb2 import Event, SessionLog
                from tensorboardX.proto.summary_pb2 import Summary
        except ImportError as error:
            raise UserError(
                f"TensorBoard events need tensorboardX ({error}); `pip install tensorboardX`, or set"
                " LoggingConfig.tensorboard to False"
            ) from error
        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        # names are told apart by the second only, and two processes may start within one
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{last_step + 1}")
        self._flushed = time.monotonic()
        # makes TensorBoard forget what an earlier process wrote of later steps
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=last_step + 1, session_log=start))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))
        if time.monotonic() - self._flushed > EVENTS_FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._writer.close()


def _plain(name: str, value: Any) -> Value:
    """Python's own number for any scalar on the host. Device arrays are refused: fetching is the loop's business."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"metric {name} is a {type(value).__name__}; expected a number on the host, a string or None")


def cut_after(path: Path, step: int) -> None:
    """Takes from a metrics file what was written of steps after `step`, and lines that are no JSON objects (torn ones).

    The file is replaced at once or not at all; one with nothing to take is left as it is.
    """
    if not path.exists():
        return
    partial = path.with_name(path.name + ".partial")
    dropped = torn = 0
    with open(path, "rb") as old, open(partial, "wb") as new:
        for line in old:
            found = _step_of(line)
            if found is not None and found <= step:
                new.write(line)
            else:
                dropped += 1
                torn += found is None
        new.flush()
        os.fsync(new.fileno())
    if not dropped:
        partial.unlink()
        return
    os.replace(partial, path)
    after = f" of steps after {step:,}" if step >= 0 else ""
    words = f" ({torn} of them torn)" if torn else ""
    print(f"{path}: {dropped:,} lines{after} taken back{words}; they are written again", flush=True)


def _step_of(line: bytes) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) and line.endswith(b"\n") else None


# ---------------------------------------------------------------------------------------------------------- wall time

PARTS = ("train", "compile", "data", "evaluate", "save", "restore", "startup", "other")
"""What the wall time of a run goes to. train: steps and waiting for their results; data: waiting for rows; compile: the
first step; save: what saving holds up; startup: from the start of the process to the loop."""


class Goodput:
    """Accounts for the wall time of the process, part by part: at any moment exactly one part is running.

        goodput = Goodput()                     # "startup" runs since the process began
        goodput.begin("train")                  # from here on, what no `with` claims is training
        with goodput.part("evaluate"): ...      # a part within a part is taken from the outer one

    Args:
        clock: seconds, monotonic.
        started: the clock's reading when the process began; found out by default.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, started: float | None = None) -> None:
        self._clock = clock
        self._started = clock() - _process_age() if started is None else started
        self._since = self._started  # when the running part began to run
        self._running = ["startup"]
        self._seconds = dict.fromkeys(PARTS, 0.0)

    def begin(self, name: str) -> None:
        """From now on the time that no `part` claims belongs to `name`."""
        self._settle()
        self._running[0] = _known(name)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside belongs to `name`, parts within it left out."""
        self._settle()
        self._running.append(_known(name))
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def seconds(self, *names: str) -> float:
        """Seconds so far of the named parts together; of all without a name."""
        self._settle()
        return sum(self._seconds[_known(name)] for name in names or PARTS)

    def share(self) -> dict[str, float]:
        """Each part's share of the wall time since the process began; together 1."""
        self._settle()
        total = sum(self._seconds.values())
        return {name: seconds / total if total else 0.0 for name, seconds in self._seconds.items()}

    def line(self) -> str:
        """As printed: "goodput 83.1 % of 2 h 07 min (startup 9.0 %, evaluate 5.2 %, save 2.7 %)"."""
        share = self.share()
        rest = sorted((name for name in PARTS if name != "train"), key=lambda name: -share[name])
        words = ", ".join(f"{name} {100 * share[name]:.1f} %" for name in rest if share[name] >= 0.0005)
        total = f"goodput {100 * share['train']:.1f} % of {duration(self.seconds())}"
        return f"{total} ({words})" if words else total

    def _settle(self) -> None:
        now = self._clock()
        self._seconds[self._running[-1]] += now - self._since
        self._since = now


def _known(name: str) -> str:
    if name not in PARTS:
        raise ValueError(f"no part of the wall time is called {name!r}; known are {', '.join(PARTS)}")
    return name


def _process_age() -> float:
    """Seconds since this process began; 0 where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since boot; field 22 of proc(5)
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


# --------------------------------------------------------------------------------------------------------- throughput


@dataclass(frozen=True)
class Rates:
    """How fast some steps went. `tokens` count every position of the rows, padding too; 0 steps have 0 rates.

    `seconds` is the time spent training and waiting for rows; `stall` is the share of the latter.
    """

    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss_tokens: int = 0
    stall_seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """All positions of the rows, over all devices."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def loss_tokens_per_second(self) -> float:
        """Tokens of weight above 0."""
        return self.loss_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def step_seconds(self) -> float:
        """Mean duration of a step."""
        return self.seconds / self.steps if self.steps else 0.0

    @property
    def stall(self) -> float:
        """Share of the time in which training waited for rows."""
        return self.stall_seconds / self.seconds if self.seconds > 0 else 0.0


class Throughput:
    """Rates of the steps, measured on the time that `goodput` counts as training or as waiting for rows.

    So compilation, evaluation and saving are left out without being told. Report a step when its metrics were fetched:
    that is when it is known to be over. Fetch what is under way before a pause begins, or the pause hides a part of it.

    Attributes:
        started: whether the measurement has begun.

    Args:
        goodput: the clock.
        window: steps that `rates` looks back on.
    """

    def __init__(self, goodput: Goodput, window: int = 10) -> None:
        self._goodput = goodput
        self._run = Rates()
        self._window: deque[Rates] = deque(maxlen=window)
        self.started = False
        self._first_reported = False
        self._mark = (0.0, 0.0)  # when the last step was over: seconds of training and data, seconds of data
        self._wall_started = 0.0

    def start(self) -> None:
        """Begins the measurement: the first step, which compiled, is over. Its own report will not be counted.

        From here on `goodput` counts as training what nothing else claims.
        """
        self._goodput.begin("train")
        self.started = True
        self._mark = self._now()
        self._wall_started = self._goodput.seconds()

    def add(self, loss_tokens: int, tokens: int) -> None:
        """Reports that one more step is over: its tokens of weight above 0, and all positions of its rows."""
        if not self._first_reported:
            self._first_reported = True
            if not self.started:
                self.start()
            return
        before, self._mark = self._mark, self._now()
        one = Rates(1, self._mark[0] - before[0], int(tokens), int(loss_tokens), self._mark[1] - before[1])
        self._run = _sum([self._run, one])
        self._window.append(one)

    def rates(self) -> Rates:
        """The rates over the last `window` steps."""
        return _sum(self._window)

    def run(self) -> Rates:
        """The rates over all steps of this process but the first."""
        return self._run

    def seconds_left(self, steps: int) -> float | None:
        """Wall time of `steps` more steps, pauses as frequent as so far included; None when nothing is known."""
        if not self._run.steps:
            return None
        return (self._goodput.seconds() - self._wall_started) / self._run.steps * steps

    def _now(self) -> tuple[float, float]:
        return self._goodput.seconds("train", "data"), self._goodput.seconds("data")


def _sum(parts: Iterable[Rates]) -> Rates:
    columns = zip(*(dataclasses.astuple(part) for part in parts), strict=True)
    return Rates(*(sum(column) for column in columns))


def mfu(flops_per_token: float, tokens_per_second: float, devices: int, peak_flops: float | None) -> float | None:
    """Model FLOPs utilisation, from 0 to 1 (PaLM, arXiv 2204.02311, appendix B); None where the peak is not known.

    `MFU_CONVENTION` says in words what is counted.

    Args:
        flops_per_token: `ModelConfig.flops_per_token`.
        tokens_per_second: over all devices.
        devices: how many.
        peak_flops: dense bf16 peak of one, in FLOP/s (`devices.peak_flops`).
    """
    if not peak_flops:
        return None
    return flops_per_token * tokens_per_second / (devices * peak_flops)


def progress_line(
    step: int, total: int, loss: float, rates: Rates, utilisation: float | None, seconds_left: float | None
) -> str:
    """One line on where the run stands: step, loss, rates of the last window, and the time left."""
    parts = [f"step {step:,} of {total:,} ({100 * step / total:.1f} %)", f"loss {loss:.4f} nats/token"]
    if rates.steps:
        parts.append(f"{rates.tokens_per_second:,.0f} tokens/s")
        parts.append(f"{rates.loss_tokens_per_second:,.0f} loss tokens/s")
        parts.append(f"{_seconds(rates.step_seconds)}/step")
        if utilisation is not None:
            parts.append(f"MFU {100 * utilisation:.1f} %")
        parts.append(f"stall {100 * rates.stall:.1f} %")
    if seconds_left is not None and step < total:
        parts.append(f"{duration(seconds_left)} left")
    return ", ".join(parts)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
