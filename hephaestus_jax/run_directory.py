"""The directory of one run, and what must stay the same in it.

    RUN/run.json        identity, versions, devices, every start and resume of the run
    RUN/config.gin      the operative configuration of the latest start, complete
    RUN/metrics.jsonl   see `metrics.MetricsWriter`
    RUN/tensorboard/    event files
    RUN/checkpoints/    see `checkpoints`
    RUN/evaluation/     caches of the user's own evaluation files
    RUN/profile/        traces
    RUN/huggingface/    where the weights came from a Hugging Face model: its files but the weights, for the way back
    RUN/lock            held by the process that writes here

The identity of a run is what its weights are a function of: model, adapters, data, seed, batch, loss, optimizer,
schedule. A changed identity is refused; everything else (mesh, microbatches, attention, logging, saving, evaluation,
total steps) may change between starts, and what changed is printed.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from hephaestus_jax.config import LoraConfig, LossConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from hephaestus_jax.data.mixture import Mixture
from hephaestus_jax.data.mixture_spec import check_extension, mixture_spec_from_json
from hephaestus_jax.data.storage import Storage
from hephaestus_jax.errors import UserError
from hephaestus_jax.metrics import MFU_CONVENTION
from hephaestus_jax.versions import versions_of

FORMAT = 1
RUN, CONFIG, LOCK = "run.json", "config.gin", "lock"
CHECKPOINTS, HUGGINGFACE = "checkpoints", "huggingface"
AVERAGED = "averaged"  # in run.json, where the folder holds the average of a run's checkpoints
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorstore", "numpy", "gin-config")

CONVENTIONS = {
    "mfu": MFU_CONVENTION,
    "tokens_per_second": "all positions of the rows, padding too, over all devices; the first step of a start left out",
    "loss_tokens_per_second": "tokens of loss weight above 0, likewise",
    "stall": "share of the time of training that waited for rows",
    "memory_bytes": "of the fullest device of process 0, or of the process where devices keep no account (CPU)",
    "loss": "nats per token, weighted",
    "goodput": "shares of the wall time of a start; wall_seconds is all of it",
}
"""What the names in metrics.jsonl mean; written into run.json."""

Json = Any
Identity = dict[str, Json]  # field → JSON value; "mixture" holds the whole of mixture.json


class RunDirectory:
    """A run's directory; as a context manager it is locked, so that two runs never write to one.

    Args:
        path: a local (or mounted) folder; made if absent.
        writes: whether this process writes here; false in all processes but one.

    Raises:
        UserError: the folder cannot be used, another process is running in it, or its run.json is damaged.
    """

    def __init__(self, path: str | Path, writes: bool = True) -> None:
        if "://" in str(path):
            raise UserError(f"run_dir {path} is a URL; give a local folder, or mount the bucket and give its path")
        self.path = Path(path).expanduser().absolute()
        self.checkpoints = self.path / CHECKPOINTS
        self.evaluation = self.path / "evaluation"
        self.profile = self.path / "profile"
        self.huggingface = self.path / HUGGINGFACE
        self._writes = writes
        self._lock: TextIO | None = None

    def __enter__(self) -> RunDirectory:
        if self._writes:
            self._acquire()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()  # releases it, as the end of the process would
            self._lock = None

    @property
    def identity(self) -> Identity | None:
        """What the run was begun as; None for a new run, and for one that has saved nothing that could be lost."""
        record = self.record()
        saved = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
        if saved and record is None:
            raise UserError(
                f"{self.path} has checkpoints, but no {RUN}, which says what run they are of: put it back, or start a"
                " new run from them with TrainConfig.init_from"
            )
        if record is not None and AVERAGED in record:
            raise UserError(
                f"{self.path} is an average of checkpoints, without an optimizer: begin a new run from it with"
                " TrainConfig.init_from and another run_dir"
            )
        return record["identity"] if record is not None and saved else None

    def record(self) -> dict[str, Json] | None:
        """The content of run.json; None for a new run.

        Raises:
            UserError: it is damaged, or of another format.
        """
        path = self.path / RUN
        if not path.exists():
            return None
        record = Storage(str(self.path)).read_json(RUN)
        found = record.get("format") if isinstance(record, dict) else None
        if found != FORMAT or not {"identity", "digests", "config", "versions", "starts"} <= set(record):
            raise UserError(f"{path} has format {found}, this version reads {FORMAT}; use another run_dir")
        kinds = {name: type(record[name]) for name in ("identity", "config", "versions", "digests", "starts")}
        if {kinds.pop("starts")} != {list} or set(kinds.values()) != {dict} or "mixture" not in record["identity"]:
            raise UserError(f"{path} is not as it was written; put it back as it was, or use another run_dir")
        return record

    def begin(self, identity: Identity, config: TrainConfig, mesh: Any, step: int, operative: str) -> None:
        """Writes run.json and config.gin for a start at `step` (steps done), and prints what changed since the last.

        Args:
            identity: of this run, already checked against the old one.
            config: the whole configuration.
            mesh: the `jax.sharding.Mesh` of this start.
            step: steps done, 0 for a new run.
            operative: text of the operative configuration (`gin_files.operative_text`).
        """
        if not self._writes:
            return
        old = self.record()
        record = {
            "format": FORMAT,
            "identity": identity,
            "digests": identity_digests(identity),
            "config": free_settings(config),
            "versions": {"commit": _commit(), "python": platform.python_version(), **versions_of(*PACKAGES)},
            "conventions": CONVENTIONS,
            "starts": [*(old["starts"] if old is not None else []), _start(mesh, step)],
        }
        if old is not None and (changes := _changes(old, record)):
            print(f"changed since the last start: {', '.join(changes)}", flush=True)
        storage = Storage(str(self.path))
        storage.write(CONFIG, operative.encode())
        storage.write_json(RUN, record)

    def _acquire(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / LOCK, "a+")  # noqa: SIM115 - held until the end; the lock dies with the process
        except OSError as error:
            raise UserError(f"cannot use run_dir {self.path}: {error.strerror}; give another folder") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "another process"
            lock.close()
            raise UserError(f"{who} is running in {self.path}; wait for it, end it, or use another run_dir") from None
        except OSError as error:
            lock.close()
            raise UserError(
                f"cannot lock run_dir {self.path}: {error.strerror}; give a folder on a file system that has locks"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        self._lock = lock


def identity_of(config: TrainConfig, mixture: Mixture) -> Identity:
    """What the weights of the run are a function of, as a flat dict of JSON values.

    Raises:
        UserError: the vocabulary has more ids than the model has embeddings, or rows are longer than its positions.
    """
    spec = mixture.spec
    if spec.vocabulary.size > config.model.vocab_size:
        raise UserError(
            f"mixture {spec.name!r} has a vocabulary of {spec.vocabulary.size:,} ids, ModelConfig.vocab_size is"
            f" {config.model.vocab_size:,}; set it to {spec.vocabulary.size:,} or more, or build the caches with the"
            " model's own vocabulary"
        )
    if spec.sequence_length > config.model.max_positions:
        raise UserError(
            f"mixture {spec.name!r} has rows of {spec.sequence_length:,} tokens, ModelConfig.max_positions is"
            f" {config.model.max_positions:,}; raise it, or build the caches with a smaller --seq_length"
        )
    identity: Identity = {"vocabulary": spec.vocabulary.digest, "sequence_length": spec.sequence_length}
    identity.update({name: value for name, value in _flat(config).items() if _is_identity(name)})
    if config.init_from:
        identity["init_from"] = Storage(config.init_from).url  # absolute
    identity["mixture"] = spec.to_json()  # in place of its path: what it says counts
    return json.loads(json.dumps(identity))


_IDENTITY_PARTS: Mapping[str, type] = {
    "model": ModelConfig,
    "loss": LossConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "lora": LoraConfig,
}
_IDENTITY_FIELDS = {
    "seed", "batch_size", "init_from", "init_optimizer", "mixture", "compute.dtype", "compute.param_dtype",
}  # fmt: skip
_FREE_FIELDS = {"schedule.total_steps"}  # of the parts of the identity


def _is_identity(name: str) -> bool:
    return name in _IDENTITY_FIELDS or (name.partition(".")[0] in _IDENTITY_PARTS and name not in _FREE_FIELDS)


def _flat(config: TrainConfig) -> dict[str, Json]:
    """Every setting by name, "PART.FIELD" where it is in a part."""
    settings: dict[str, Json] = {}
    for name, value in dataclasses.asdict(config).items():
        parts = {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
        settings.update(parts)
    return settings


def check_identity(old: Identity, new: Identity, consumed_row: int = 0) -> None:
    """Passes if a run begun as `old` may go on as `new`.

    Args:
        old: from run.json.
        new: of this start (`identity_of`).
        consumed_row: rows of the mixture that the run has taken; from there on its stages may differ.

    Raises:
        UserError: names the first field that changed, with both values.
    """
    for name in dict.fromkeys([*new, *old]):
        before, after = old.get(name, _default(name)), new.get(name)
        if name != "mixture" and before != after:
            raise UserError(
                f"{name} changed from {before!r} to {after!r}, and this run directory was begun with the former: set it"
                " back, use another run_dir, or start a new run from this one with TrainConfig.init_from"
            )
    before, after = (mixture_spec_from_json(identity["mixture"], "the run's mixture") for identity in (old, new))
    check_extension(before, after, consumed_row)


def _default(name: str) -> Json:
    """What a setting that did not exist yet when the run was begun stood for: its default."""
    part, _, field_name = name.partition(".")
    for field in dataclasses.fields(_IDENTITY_PARTS.get(part, TrainConfig)):
        if field.name == (field_name or part) and field.default is not dataclasses.MISSING:
            return json.loads(json.dumps(field.default))  # as run.json has it
    return None


def free_settings(config: TrainConfig) -> dict[str, Json]:
    """The settings that may change between starts, by name, and the step at which the schedule ends.

    The run directory itself is not one of them: it may be moved.
    """
    settings = {name: value for name, value in _flat(config).items() if not _is_identity(name) and name != "run_dir"}
    settings["schedule.end"] = None if config.schedule.kind == "constant" else config.schedule_steps
    return json.loads(json.dumps(settings))


def identity_digests(identity: Identity) -> dict[str, str]:
    """Digests of what the identity says of model and adapters, vocabulary, and mixture, for checkpoints to carry.

    A setting at its default does not count, so that a setting which is new in a later version changes nothing.
    """
    of_model = {name: value for name, value in identity.items() if name.startswith(("model.", "lora."))}
    model = {name: value for name, value in of_model.items() if value != _default(name)}
    return {
        "model": digest_of(model),
        "vocabulary": identity["vocabulary"],
        "mixture": digest_of(identity["mixture"]),
    }


def digest_of(value: Json) -> str:
    """128-bit digest of a JSON value, as 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _changes(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    """What differs between two contents of run.json, in words."""
    notes = {"schedule.end": " (the learning rates of the steps to come move with it)"}
    found = []
    for part in ("identity", "digests", "config", "versions"):
        for name, value in new[part].items():
            before = old[part].get(name, _default(name) if part == "identity" else None)
            if before != value and (part, name) != ("identity", "mixture"):
                found.append(f"{name} {before!r} → {value!r}{notes.get(name, '')}")
    return list(dict.fromkeys(found))  # the vocabulary has its digest in two places


def _start(mesh: Any, step: int) -> dict[str, Json]:
    import jax

    return {
        "step": step,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "device_kind": mesh.devices.flat[0].device_kind,
        "devices": int(mesh.devices.size),
        "processes": jax.process_count(),
        "mesh": {name: int(size) for name, size in mesh.shape.items()},
    }


def _commit() -> str:
    """The commit of the checkout that this package runs from, "+changes" appended if files differ; else ""."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=30)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
