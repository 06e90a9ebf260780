"""Token sources for tests: importable by the worker processes that the cache builder spawns."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hephaestus_jax.data.identity import Origin
from hephaestus_jax.data.task import Rejected, TokenizedRecord


def write_vocabulary(directory: Path, extra: int = 44) -> str:
    """A byte-level tokenizer.json of 256 + `extra` ids (id 0 is the byte "!")."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    merges = []
    for first in alphabet:
        for second in alphabet:
            if len(merges) < extra:
                merges.append(f"{first} {second}")
                vocabulary[first + second] = len(vocabulary)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(spec))
    return str(path)


def record_id(number: int) -> str:
    """The id of record `number`."""
    return hashlib.md5(str(number).encode()).hexdigest()


def make_record(tokens: object, weights: object, carry: int = 0, number: int = 0, origin: str = "a") -> TokenizedRecord:
    """A record of these tokens and weights."""
    return TokenizedRecord(
        record_id(number), Origin(origin, "1", "MIT"), np.array(tokens, np.int32), np.array(weights, np.float32), carry
    )


@dataclass(frozen=True)
class ListSource:
    """Records given one by one."""

    items: tuple[TokenizedRecord | Rejected, ...]
    vocabulary: str
    name: str = "listed"
    split: str = "train"
    stated_count: int | None = None

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(item.record_id.encode())
            if isinstance(item, TokenizedRecord):
                digest.update(item.tokens_T.tobytes() + item.weights_T.tobytes())
        return digest.hexdigest()[:32]

    def count(self) -> int:
        return len(self.items) if self.stated_count is None else self.stated_count

    def read(self, start: int, stop: int) -> Iterator[TokenizedRecord | Rejected]:
        yield from self.items[start:stop]


@dataclass(frozen=True)
class RandomSource:
    """Records drawn from their number alone: some empty, of one token, rejected, without weight, or of many rows."""

    vocabulary: str
    records: int = 1_000
    seed: int = 0
    mean: float = 60.0
    fractional: bool = False  # loss weights other than 0 and 1
    pause: float = 0.0  # seconds per record, to be killed in
    kill_at: int = -1  # the process that reads this record is killed, once
    flag: str = ""  # file that says that it was
    name: str = "random"
    split: str = "train"

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.records} {self.seed} {self.mean} {self.fractional}".encode()).hexdigest()[:32]

    def count(self) -> int:
        return self.records

    def read(self, start: int, stop: int) -> Iterator[TokenizedRecord | Rejected]:
        for number in range(start, stop):
            if number == self.kill_at and not os.path.exists(self.flag):
                Path(self.flag).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.pause)
            yield self.record(number)

    def record(self, number: int) -> TokenizedRecord | Rejected:
        rng = np.random.default_rng((self.seed, number))
        kind = rng.integers(0, 100)
        if kind == 0:
            return Rejected(record_id(number), f"no form for kind {number % 3}")
        length = {1: 0, 2: 1, 3: 2_000}.get(int(kind), int(rng.exponential(self.mean)) + 2)
        tokens = rng.integers(0, 300, length)
        weights = np.ones(length) if kind % 2 else (rng.random(length) < 0.5)
        if self.fractional:
            weights = weights * rng.choice([0.0, 0.25, 1.0, 1.5], length)
        if kind == 4:
            weights = np.zeros(length)
        carry = int(rng.integers(0, length // 2 + 1))
        return make_record(tokens, weights, carry, number, origin=f"package{number % 7}")
